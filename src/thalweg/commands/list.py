"""`thalweg list`: every method and preset, by kind of data and by what it takes. Reads tables only: no network is built, no torch."""

import importlib.util
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from thalweg import presets
from thalweg.errors import InputError, nearest
from thalweg.methods import METHODS, of_packages

SIZES = Path(presets.__file__).with_name("sizes.json")  # parameters by METHOD/PRESET, see thalweg.commands.sizes
MEASURED = Path(presets.__file__).with_name("measured.json")  # what committed results say of a preset, see studies.tables
SMALL = 16 * 16  # pixels up to which images are a matter of minutes

TAGS = {
    "toy": "points in the plane",
    "table": "your own table of numbers",
    "picture": "grey images",
    "colour": "colour images",
    "latent": "latents of an autoencoder",
    "3-d": "objects in space",
    "laptop": "minutes on two cores",
    "hours": "hours on two cores",
    "gpu": "the paper's scale, whose data are not at hand either",
}
USAGE = "usage: thalweg list [METHOD ...] [--TAG ...]\n\nEvery method/preset, one line each: its data, shape, parameters, length and tags,"
USAGE += " and what was measured of it.\nTags, of which several narrow the list down:\n"
USAGE += "".join(f"  --{tag:8} {meaning}\n" for tag, meaning in TAGS.items())


def run(arguments: list[str]) -> None:
    if arguments and arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return
    asked = [word.removeprefix("--").lower() for word in arguments if word.startswith("--")]
    for tag in asked:
        if tag not in TAGS:
            raise InputError(f"list knows no --{tag}{nearest(tag, TAGS)}. Tags: {', '.join(TAGS)}")
    named = [word for word in arguments if not word.startswith("--")]
    for name in named:
        if name not in METHODS:
            raise InputError(f"unknown method '{name}'{nearest(name, METHODS)}. Methods: {', '.join(METHODS)}")
    found = lines(named or METHODS, asked)
    if not found:
        raise InputError(f"no preset is tagged {' and '.join(asked)}")
    print("\n".join(found))


def lines(methods: Iterable[str] = METHODS, asked: Iterable[str] = ()) -> list[str]:
    """By method what it is, and one line a preset that has all of the tags `asked`; then what `toy` stands for."""
    found, sizes, asked = [], json.loads(SIZES.read_text()), set(asked)
    for method in methods:
        rows = {key: row for key, row in presets.rows(method).items() if asked <= set(tags(key, row))}
        if not rows:
            continue
        found += ["", f"{method}: {about(method)}"]
        for key, row in rows.items():
            name, shape = f"{method}/{key}", "×".join(map(str, row["shape"]))
            size = f"{sizes[name]:,}" if name in sizes else "?"
            data = {"toy": "any toy", "vectors": "your table"}.get(key, row["data"]) or "your pictures"
            line = f"  {name:34} {data:20} {shape:>9} {size:>11} parameters {row['images']:>11,} images  {', '.join(tags(key, row))}"
            found.append(line + (f"; {said}" if (said := measured(name)) else ""))
    if not found:
        return []
    if packaged := of_packages():
        found += ["", "From packages: " + ", ".join(f"{name} ({point.value})" for name, point in packaged.items())]
    return [*found[1:], "", f"METHOD/toy is for each toy by its name, as in {presets.FIRST_TOY}: {', '.join(presets.TOYS)}"]


def measured(preset: str) -> str:
    """What committed results say of a preset as it stands; empty where they say nothing."""
    return json.loads(MEASURED.read_text()).get(preset, "") if MEASURED.exists() else ""


def about(method: str) -> str:
    """The first line of a method's file, which says what it is; the file is read, not imported."""
    spec = importlib.util.find_spec(METHODS[method][0])
    assert spec is not None and spec.origin is not None  # a file of this package
    with open(spec.origin, encoding="utf-8") as file:
        text = file.readline().strip().strip('"').partition(" docs/methods/")[0].rstrip(".")
    name, colon, rest = text.partition(": ")
    return rest if colon and len(name) < 20 else text


def tags(key: str, row: Mapping[str, Any]) -> list[str]:
    """The tags of a preset: of what data it is, and how long it takes."""
    data, shape = str(row["data"]), tuple(row["shape"])
    if len(shape) == 1:
        return ["toy" if data in presets.TOYS else "table", "laptop"]
    kinds = ["latent"] if row.get("autoencoder") else ["colour" if shape[0] == 3 else "picture"]
    if data.startswith(("objects", "chairs", "cars", "data/carla/", "data/srn_cars/")):
        kinds = ["3-d"]
    large = data.startswith("hf:") or data.endswith("/") or not data
    return [*kinds, "gpu" if large else "laptop" if shape[1] * shape[2] <= SMALL and kinds != ["latent"] else "hours"]


def tables() -> dict[str, Mapping[str, Mapping[str, Any]]]:
    """The presets of every method, as they are written."""
    return {method: presets.rows(method) for method in METHODS}
