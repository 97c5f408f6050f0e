"""Fill in and Repair: pictures of which a part is missing, or that are noisy, blurred, grey or coarse."""

from typing import Any

import torch
from torch import Tensor

from thalweg import random, tasks
from thalweg.app import asked as ask
from thalweg.app.asked import Asked
from thalweg.app.draw import noise_like, source
from thalweg.app.pictures import encoded
from thalweg.app.shelf import Entry, fill_ways, repair_kinds
from thalweg.errors import InputError
from thalweg.methods.base import has
from thalweg.tasks import operators

COMPLETIONS = 8  # at most
SEARCH = 50  # steps of a search for starts
CORRECTIONS = 1  # steps of MALA at each noise level: what a page can wait for
WAYS: dict[str, dict[str, Any]] = {
    "posterior": {"posterior": True, "corrections": CORRECTIONS},
    "constraint": {"posterior": False},
    "search": {"search": SEARCH},
}


def fill(entry: Entry, asked: Asked) -> dict[str, Any]:
    """`completions` fillings of what `mask` hides: rows of 0 and 1, 1 where the pixel is to be filled in."""
    entry.require("fill")
    model = entry.model
    x, known = source(model, asked), ~_mask(asked, tuple(model.config.shape))
    ways = fill_ways(model)
    way = ask.choice(asked, "way", ways, ways[0])
    completions, seed = ask.whole(asked, "completions", 4, 1, COMPLETIONS), ask.whole(asked, "seed", 0, 0, 2**53)
    found = tasks.inpaint(model, x, known, completions=completions, seed=seed, **WAYS[way])
    left = torch.where(known, x, torch.zeros(()))
    return {"given": encoded(x[0]), "left": encoded(left[0]), "pictures": [encoded(one) for one in found[:, 0]], "way": way}


def _mask(asked: Asked, shape: tuple[int, ...]) -> Tensor:
    """[H, W] of bool, True where a pixel is hidden; InputError for another size, and where nothing or all of it is."""
    rows = asked.get("mask")
    height, width = shape[1:]
    if (
        not isinstance(rows, list)
        or len(rows) != height
        or not all(isinstance(row, list) and len(row) == width and all(one in (0, 1) for one in row) for row in rows)
    ):
        raise InputError(f"the mask must be {height} rows of {width} zeros and ones")
    hidden = torch.tensor(rows, dtype=torch.bool)
    if not hidden.any():
        raise InputError("nothing is painted over yet: paint what is to be filled in")
    if hidden.all():
        raise InputError("all of the picture is painted over: leave a part of it")
    return hidden


def repair(entry: Entry, asked: Asked) -> dict[str, Any]:
    """A picture spoilt by `kind` and repaired. `already`: it came spoilt, and is taken as it is (noise and blur).

    Of noise one estimate; else `completions` pictures, with noise of standard deviation `extra` in what is measured where a model can.
    """
    entry.require("repair")
    model = entry.model
    x, seed = source(model, asked), ask.whole(asked, "seed", 0, 0, 2**53)
    kind, already = ask.choice(asked, "kind", repair_kinds(model), repair_kinds(model)[0]), asked.get("already") is True
    if kind == "noise":
        std = ask.number(asked, "strength", 0.5, 0.05, 2.0)
        y = x if already else x + std * noise_like(x, asked)
        return _repaired(x, y, [tasks.denoise(model, y, std, seed)[0]], already)
    a = _operator(kind, asked, tuple(model.config.shape))
    y = x if already and kind == "blur" else a.forward(x)
    std = ask.number(asked, "extra", 0.0, 0.0, 1.0)
    if std and not has(model, "evidence"):
        raise InputError("this model takes no noise in what is measured: leave it at 0")
    y = y + std * random.normal_like(y, random.seeded(seed, 34)) if std and not already else y
    completions = ask.whole(asked, "completions", 4, 1, COMPLETIONS)
    more: dict[str, Any] = {"corrections": CORRECTIONS} if std else {}
    found = tasks.restore(model, y, a, std=std, completions=completions, seed=seed, **more)
    shown = y if y.shape == x.shape else a.pseudo_inverse(y)
    return _repaired(x, shown, list(found[:, 0]), already and kind == "blur")


def _operator(kind: str, asked: Asked, shape: tuple[int, ...]) -> operators.LinearOperator:
    if kind == "blur":
        return operators.named(f"blur:{ask.number(asked, 'strength', 1.0, 0.3, 3.0):g}", shape)
    return operators.named("grey" if kind == "grey" else f"pool:{ask.choice(asked, 'factor', ('2', '4', '7'), '2')}", shape)


def _repaired(x: Tensor, y: Tensor, found: list[Tensor], already: bool) -> dict[str, Any]:
    return {"given": "" if already else encoded(x[0]), "spoilt": encoded(y[0]), "pictures": [encoded(one) for one in found]}
