"""Presets: settings by name, a file of aligned rows for each method. Nothing here needs torch.

A row holds what differs from the method's Config, and always data, shape and images. A row called `toy` serves every toy by its name:
METHOD/moons is METHOD/toy with data = "moons".
"""

import importlib
from collections.abc import Mapping
from typing import Any

FIRST = "egc/digits"  # what a newcomer trains first, and the toy after that
FIRST_TOY = "short_run/moons"
# number of labels of each toy of thalweg/data/toy.py
TOYS = {
    "2gaussians": 2,
    "8gaussians": 8,
    "25gaussians": 25,
    "pinwheel": 5,
    "swissroll": 0,
    "spiral": 0,
    "rings": 4,
    "moons": 2,
    "checkerboard": 0,
    "gaussian": 0,
}


def rows(method: str) -> Mapping[str, Mapping[str, Any]]:
    """The table of a method of Thalweg as it is written, by preset."""
    return importlib.import_module(f"thalweg.presets.{method}").PRESETS


def with_toys(table: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """A table with a row for each toy, where it has a recipe for toys; a recipe with labels is given those of the toy."""
    recipe = table.get("toy")
    if recipe is None:
        return dict(table)
    labelled = bool(recipe.get("classes"))
    made = {name: {**recipe, "data": name, **({"classes": classes} if labelled else {})} for name, classes in TOYS.items()}
    return {**table, **{name: row for name, row in made.items() if name not in table}}
