"""Draw: samples of a model by label, guidance, steps and seed."""

from typing import Any

import torch
from torch import Tensor

from thalweg import random
from thalweg.app import asked as ask
from thalweg.app.asked import Asked
from thalweg.app.pictures import decoded, encoded
from thalweg.app.shelf import CUBE, Entry, inner_options
from thalweg.data.prepare import trained_classes
from thalweg.errors import InputError
from thalweg.methods.base import has

MOST = 36  # pictures of one answer
ROWS = 400  # points or rows of a table
SHOWN = 12  # rows of a table that are shown
STEPS = 1000  # at most


def draw(entry: Entry, asked: Asked) -> dict[str, Any]:
    """`count` samples as asked for: `pictures`, or `points` in the plane, or `rows` of a table, with their `columns`."""
    entry.require("draw")
    model = entry.model
    if len(model.config.shape) == CUBE:
        count = ask.whole(asked, "count", 12, 1, MOST)
        return {"pictures": [encoded(one) for one in samples(model, asked, count)], "columns": []}
    count = ask.whole(asked, "count", ROWS, 1, ROWS)
    x = samples(model, asked, count).cpu()
    names = [f"x{i}" for i in range(x.shape[1])] if model.units is None else list(model.units.columns)
    if x.shape[1] == 2:
        return {"points": [[round(a, 4), round(b, 4)] for a, b in x.tolist()], "columns": names}
    return {"rows": [[float(f"{value:.4g}") for value in row] for row in x[:SHOWN].tolist()], "columns": names}


def samples(model: Any, asked: Asked, count: int) -> Tensor:
    """`count` samples of a model; `label` is a class by name or "" for none, or one after the other with "each"."""
    taken = inner_options(model)
    seed = ask.whole(asked, "seed", 0, 0, 2**53)
    given: dict[str, Any] = {}
    classes = list(trained_classes(model)) if has(model, "labels") else []
    if classes and asked.get("label"):
        label = ask.choice(asked, "label", [*classes, "each"])
        given["label"] = torch.arange(count) % len(classes) if label == "each" else torch.full((count,), classes.index(label))
        if "guidance" in taken:
            given["guidance"] = ask.number(asked, "guidance", model.default_guidance, 0.0, 10.0)
    if "steps" in taken and asked.get("steps") not in (None, ""):
        given["steps"] = ask.whole(asked, "steps", 1, 1, STEPS)
    return model.sample(count, seed=seed, **given, **model.starts(count, seed))


def source(model: Any, asked: Asked) -> Tensor:
    """The picture to work on, [1, C, H, W]: as it was uploaded, else a sample by `label` and `seed`."""
    if asked.get("picture"):
        name = asked.get("name")
        return decoded(asked["picture"], name if isinstance(name, str) and name else "the picture", tuple(model.config.shape))
    if not has(model, "sample") or has(model, "given"):
        raise InputError("this model draws no pictures of its own: upload one")
    return samples(model, {key: asked.get(key) for key in ("label", "seed")}, 1)


def one(entry: Entry, asked: Asked) -> dict[str, Any]:
    """One picture to work on, at the model's size: an upload brought to it, or a sample."""
    model = entry.model
    if len(model.config.shape) != CUBE:
        raise InputError(f"{entry.name} is of vectors, it takes no pictures")
    return {"picture": encoded(source(model, asked)[0])}


def noise_like(x: Tensor, asked: Asked) -> Tensor:
    return random.normal_like(x, random.seeded(ask.whole(asked, "seed", 0, 0, 2**53), 33))
