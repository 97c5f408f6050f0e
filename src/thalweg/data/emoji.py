"""Emoji in colour from the npm packages emoji-datasource-VENDOR: the same things drawn in several styles."""

import json
import os
from pathlib import Path

import torch

from ..errors import InputError, require
from .folders import decode_all
from .images import Images, Size, check_size, check_split, partition

VENDORS = ("google", "twitter")


def emoji(vendor: str, split: str = "train", *, size: Size | None = None, channels: int | None = None) -> Images:
    """The emoji of one vendor on white, [3, 64, 64], with their category as label: 9 classes, 80/10/10.

    An emoji and its skin tones are in one split, and splits and order are the same for all vendors that draw the same emoji.
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
        categories = [entry["category"] for entry in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{root / 'emoji.json'} cannot be read as a list of emoji: {error!r}") from error
    # a category is called by its first word, so that emoji-google:food needs no quotes
    classes = tuple(dict.fromkeys(name.split()[0].lower() for name in categories))
    labels = torch.tensor([classes.index(name.split()[0].lower()) for name in categories])
    files, kept = [], []
    for row in partition(split, len(entries), (0.1, 0.1), labels).tolist():
        drawn = [one for one in (entries[row], *entries[row].get("skin_variations", {}).values()) if one.get(f"has_img_{vendor}")]
        files += [root / "img" / vendor / "64" / one["image"] for one in drawn]
        kept += [int(labels[row])] * len(drawn)
    if not files:
        raise InputError(f"{root} has no emoji for the split '{split}'")
    return Images(decode_all(files, size, channels), torch.tensor(kept), classes, name=f"emoji-{vendor}/{split}")


def _package(vendor: str) -> Path:
    name = f"emoji-datasource-{vendor}"
    root = Path(os.environ.get("THALWEG_DATA") or "node_modules") / name
    if not root.is_dir():
        raise InputError(f"there is no folder {root}; run `npm install {name}`, and set THALWEG_DATA to node_modules where it is elsewhere")
    return root
