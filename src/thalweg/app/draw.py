"""Draw: samples of a model by labels, each with its guidance, by steps and seed."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from thalweg import random
from thalweg.app import asked as ask
from thalweg.app.asked import Asked
from thalweg.app.pictures import decoded, encoded
from thalweg.app.shelf import CUBE, Entry, inner_options, label_names
from thalweg.errors import InputError
from thalweg.methods.base import has

MOST = 36  # pictures of one answer
ROWS = 400  # points or rows of a table
SHOWN = 12  # rows of a table that are shown
STEPS = 1000  # at most
LABELS = 4  # at most, composed
GUIDANCE = 10.0  # at most


class Labelled(NamedTuple):
    """A label that is asked for, by name, or "each" for all in turn, and its weight: 1 is p(x | label), below 0 is "not that label"."""

    name: str
    weight: float


def draw(entry: Entry, asked: Asked) -> dict[str, Any]:
    """`count` samples as asked for: `pictures`, or `points` in the plane, or `rows` of a table, with their `columns`.

    `equation`: the energy of labels that are composed or guided, as `thalweg.guidance.given` has it; empty for plain samples.
    """
    entry.require("draw")
    return {"equation": equation(asked_labels(entry.model, asked)), **_drawn(entry.model, asked)}


def _drawn(model: Any, asked: Asked) -> dict[str, Any]:
    if len(model.config.shape) == CUBE:
        count = ask.whole(asked, "count", 12, 1, MOST)
        return {"pictures": [encoded(one) for one in samples(model, asked, count)], "columns": []}
    count = ask.whole(asked, "count", ROWS, 1, ROWS)
    x = samples(model, asked, count).cpu()
    names = [f"x{i}" for i in range(x.shape[1])] if model.units is None else list(model.units.columns)
    if x.shape[1] == 2:
        return {"points": [[round(a, 4), round(b, 4)] for a, b in x.tolist()], "columns": names}
    return {"rows": [[float(f"{value:.4g}") for value in row] for row in x[:SHOWN].tolist()], "columns": names}


def asked_labels(model: Any, asked: Asked) -> list[Labelled]:
    """`label` with `guidance`, and those of `also`, a list of the same, where a model composes concepts; none for "" or no label."""
    known, composes = label_names(model), has(model, "concepts")
    guided = "guidance" in inner_options(model)
    also = asked.get("also") or []
    if not isinstance(also, list) or len(also) >= LABELS or not all(isinstance(one, dict) for one in also):
        raise InputError(f"also must be up to {LABELS - 1} labels, each with its guidance")
    if also and not (composes and guided):
        raise InputError("this model does not compose labels: ask for one")
    found = []
    for one in (asked, *also):
        if known and one.get("label"):
            name = ask.choice(one, "label", [*known, "each"] if one is asked else known)
            own = model.default_guidance if guided else 1.0
            weight = ask.number(one, "guidance", own, -GUIDANCE if composes else 0.0, GUIDANCE) if guided else own
            found.append(Labelled(name, weight))
    return found


def equation(labels: list[Labelled]) -> str:
    """E₀ + Σ wᵢ (Eᵢ − E₀) with the names and weights of these labels; empty where that is p(x), or p(x | label) as it is."""
    if not labels or [one.weight for one in labels] == [1.0]:
        return ""
    terms = (f"{'−' if weight < 0 else '+'} {abs(weight):g} [E(x | {'y' if name == 'each' else name}) − E(x)]" for name, weight in labels)
    return " ".join(["E(x)", *terms])


def samples(model: Any, asked: Asked, count: int) -> Tensor:
    """`count` samples of a model; `label` is a class by name or "" for none, or one after the other with "each"."""
    taken = inner_options(model)
    seed = ask.whole(asked, "seed", 0, 0, 2**53)
    given: dict[str, Any] = {}
    labels, known = asked_labels(model, asked), label_names(model)
    if labels:
        columns = [torch.arange(count) % len(known) if name == "each" else torch.full((count,), known.index(name)) for name, _ in labels]
        several = len(labels) > 1
        given["label"] = torch.stack(columns, 1) if several else columns[0]
        if "guidance" in taken:
            given["guidance"] = [weight for _, weight in labels] if several else labels[0].weight
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
