"""`thalweg list`: every method and preset. Reads tables only: no network is built, and torch is not imported."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thalweg import presets
from thalweg.errors import InputError
from thalweg.methods import METHODS, of_packages

SIZES = Path(presets.__file__).with_name("sizes.json")  # parameters by METHOD/PRESET, see thalweg.commands.sizes


def run(arguments: list[str]) -> None:
    if arguments and arguments[0] in ("-h", "--help"):
        print("usage: thalweg list\n\nEvery method/preset, one line each: its data, shape, parameters and length.")
        return
    if arguments:
        raise InputError(f"list takes no arguments, got '{arguments[0]}'")
    print("\n".join(lines()))


def lines() -> list[str]:
    """One line a preset, and one more that says what `toy` stands for."""
    found, sizes = [], json.loads(SIZES.read_text())
    for method, rows in tables().items():
        for key, row in rows.items():
            name, shape = f"{method}/{key}", "×".join(map(str, row["shape"]))
            size = f"{sizes[name]:,}" if name in sizes else "?"
            data = {"toy": "any toy", "vectors": "your table"}.get(key, row["data"])
            found.append(f"{name:32} {data:20} {shape:>10} {size:>12} parameters {row['images']:>13,} images")
    if packaged := of_packages():
        found += ["", "From packages: " + ", ".join(f"{name} ({point.value})" for name, point in packaged.items())]
    return [*found, "", f"METHOD/toy is for each toy by its name, as in {presets.FIRST_TOY}: {', '.join(presets.TOYS)}"]


def tables() -> dict[str, Mapping[str, Mapping[str, Any]]]:
    """The presets of every method, as they are written."""
    return {method: presets.rows(method) for method in METHODS}
