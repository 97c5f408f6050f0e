"""Emoji in colour from the npm packages emoji-datasource-VENDOR: the same things drawn in several styles."""

import json
import os
import re
from pathlib import Path
from typing import Literal

import torch

from ..errors import InputError, require
from .folders import decode_all
from .images import Images, Size, check_size, check_split, partition

VENDORS = ("google", "twitter")


def emoji(
    vendor: str,
    split: str = "train",
    *,
    size: Size | None = None,
    channels: int | None = None,
    labels: Literal["category", "kind"] = "category",
) -> Images:
    """The emoji of one vendor on white, [3, 64, 64], 80/10/10, with their category (9 classes) or kind (Unicode's 98 subgroups) as label.

    An emoji and its skin tones are in one split, and splits and order are the same for all vendors that draw the same emoji, whatever
    the labels; a kind of few emoji may lack in a split.
    Read from $THALWEG_DATA/emoji-datasource-VENDOR if THALWEG_DATA is set, else from node_modules in the working directory.
    Raises InputError where there is no such folder and where it is not whole.
    """
    check_split(split)
    check_size(size, channels)
    require("PIL", "images")
    root = _package(vendor)
    try:
        entries = json.loads((root / "emoji.json").read_text(encoding="utf-8"))
        # components are skin tones and hair by themselves
        entries = sorted((entry for entry in entries if entry["category"] != "Component"), key=lambda entry: entry["sort_order"])
        # a category is called by its first word, so that emoji-google:food needs no quotes
        categories = [entry["category"].split()[0].lower() for entry in entries]
        names = categories if labels == "category" else [re.sub("[^a-z]+", "-", entry["subcategory"].lower()) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{root / 'emoji.json'} cannot be read as a list of emoji: {error!r}") from error
    classes, label = _numbered(names)
    files, kept = [], []
    for row in partition(split, len(entries), (0.1, 0.1), _numbered(categories)[1]).tolist():
        drawn = [one for one in (entries[row], *entries[row].get("skin_variations", {}).values()) if one.get(f"has_img_{vendor}")]
        files += [root / "img" / vendor / "64" / one["image"] for one in drawn]
        kept += [int(label[row])] * len(drawn)
    if not files:
        raise InputError(f"{root} has no emoji for the split '{split}'")
    name = f"emoji-{vendor}" if labels == "category" else f"emoji-{vendor}-kinds"
    return Images(decode_all(files, size, channels), torch.tensor(kept), classes, name=f"{name}/{split}")


def _numbered(names: list[str]) -> tuple[tuple[str, ...], torch.Tensor]:
    """Classes in order of appearance, and the number of each name among them."""
    classes = tuple(dict.fromkeys(names))
    return classes, torch.tensor([classes.index(name) for name in names])


def _package(vendor: str) -> Path:
    name = f"emoji-datasource-{vendor}"
    root = Path(os.environ.get("THALWEG_DATA") or "node_modules") / name
    if not root.is_dir():
        raise InputError(f"there is no folder {root}; run `npm install {name}`, and set THALWEG_DATA to node_modules where it is elsewhere")
    return root
