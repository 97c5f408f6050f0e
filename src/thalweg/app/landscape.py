"""Landscape: energies in the plane, exact toys and models, summed with weights, and chains that walk on them."""

import base64
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from thalweg import random
from thalweg.app import asked as ask
from thalweg.app.asked import Asked
from thalweg.app.shelf import Shelf
from thalweg.data.prepare import trained_source
from thalweg.data.toy import TOYS, Toy, toy
from thalweg.energy import Energy, combine
from thalweg.sample import Trace, hmc, langevin, mala

CELLS = 160  # of the map, a side
DEPTH = 12.0  # nats that its colours span
CHAINS, STEPS = 400, 200  # at most, in one answer
FRAMES = 50  # states of an answer at most
SAMPLERS = ("langevin", "mala", "hmc")
EXACT = 2000  # draws whose mean energy is shown
NONE = "none"
WALL = 2.0  # nats a squared unit: gentle enough for long steps
Box = tuple[float, float, float, float]


class Landscape(NamedTuple):
    """An energy, the box [left, right, bottom, top] to look at, and the toy whose exact density it is, if it is one."""

    energy: Energy
    box: Box
    toy: Toy | None


def names(shelf: Shelf) -> list[str]:
    """The energies to choose from: models of points on the shelf, then the toys."""
    return [*(name for name, entry in shelf.entries.items() if not entry.panels()["landscape"]), *TOYS]


def chosen(shelf: Shelf, asked: Asked) -> Landscape:
    """E = w₁E₁ + w₂E₂ as asked for: `first` and `second` ("none" for none) by name, `weight1` and `weight2` in [−2, 2].

    Where a weight is negative the sum falls without end far away: it is then that of the box, with a wall round it.
    """
    known = names(shelf)
    first = _one(shelf, ask.choice(asked, "first", known))
    weight = ask.number(asked, "weight1", 1.0, -2.0, 2.0)
    second = ask.choice(asked, "second", [NONE, *known], NONE)
    if second == NONE:
        parts, weights = [first], [weight]
    else:
        parts, weights = [first, _one(shelf, second)], [weight, ask.number(asked, "weight2", 1.0, -2.0, 2.0)]
    left, right, bottom, top = zip(*(part.box for part in parts))
    box = (min(left), max(right), min(bottom), max(top))
    if len(parts) == 1 and weight == 1.0:
        return first
    energy = combine([part.energy for part in parts], weights)
    return Landscape(partial(_walled, energy, box) if min(weights) < 0 else energy, box, None)


def _one(shelf: Shelf, name: str) -> Landscape:
    if name in TOYS:
        known = toy(name)
        return Landscape(known.energy, (-known.extent, known.extent) * 2, known)
    model = shelf.entries[name].model
    source = trained_source(model)
    if model.units is not None:
        (x, y), (across, up) = model.units.mean.tolist(), (4 * model.units.std).tolist()
        return Landscape(model.energy, (x - across, x + across, y - up, y + up), None)
    extent = toy(source).extent if source in TOYS else 4.0
    return Landscape(model.energy, (-extent, extent) * 2, None)


def _walled(energy: Energy, box: Box, x: Tensor) -> Tensor:
    """The energy of the point of the box that is nearest to x, and `WALL` nats for each squared unit of the way there."""
    near = x.clamp(x.new_tensor([box[0], box[2]]), x.new_tensor([box[1], box[3]]))
    return energy(near) + WALL * (x - near.detach()).square().sum(1)


def picture(shelf: Shelf, asked: Asked) -> dict[str, Any]:
    """The map: energies at the middles of `cells` × `cells` squares from the top left, as bytes, 255 for `depth` nats above the least."""
    land = chosen(shelf, asked)
    left, right, bottom, top = land.box
    middles = (torch.arange(CELLS) + 0.5) / CELLS
    across, up = left + (right - left) * middles, top + (bottom - top) * middles
    points = torch.stack([across.repeat(CELLS), up.repeat_interleave(CELLS)], 1)
    with torch.no_grad():
        values = torch.cat([land.energy(part).float() for part in points.split(8192)])
    least = float(values[values.isfinite()].min()) if bool(values.isfinite().any()) else 0.0
    levels = ((values - least).nan_to_num(DEPTH, DEPTH, DEPTH).clamp(0, DEPTH) * (255 / DEPTH)).round().to(torch.uint8)
    return {
        "box": list(land.box), "cells": CELLS, "depth": DEPTH, "least": round(least, 3),
        "map": base64.b64encode(bytes(levels.tolist())).decode("ascii"),
    }  # fmt: skip


def walk(shelf: Shelf, asked: Asked) -> dict[str, Any]:
    """Chains moved on: from `x` (pairs), or `chains` of them spread over the box, `steps` steps of `sampler` after `done` others.

    Gives `frames` [F ≤ 50][N] pairs, from the start to the end, their mean energy, and the share of moves accepted where moves are.
    Nothing is kept between two calls: chains live in the page.
    """
    land = chosen(shelf, asked)
    sampler = ask.choice(asked, "sampler", SAMPLERS, SAMPLERS[0])
    steps, step = ask.whole(asked, "steps", 50, 1, STEPS), ask.number(asked, "step", 0.1, 0.001, 2.0)
    temperature = ask.number(asked, "temperature", 1.0, 0.05, 20.0)
    done, seed = ask.whole(asked, "done", 0, 0, 10**9), ask.whole(asked, "seed", 0, 0, 2**53)
    x = ask.points(asked, "x", CHAINS)
    if x is None:
        left, right, bottom, top = land.box
        u = random.uniform(ask.whole(asked, "chains", 100, 1, CHAINS), 2, generator=random.seeded(seed, 30))
        x = torch.tensor([left, bottom]) + u * torch.tensor([right - left, top - bottom])
    trace = Trace(keep=min(FRAMES, steps + 1))
    options: dict[str, Any] = dict(steps=steps, step=step, temperature=temperature, generator=random.seeded(seed, 31, done), trace=trace)
    if sampler == "langevin":
        x = langevin(land.energy, x, noise=ask.number(asked, "noise", 1.0, 0.0, 2.0), **options)
    else:
        x = (mala if sampler == "mala" else hmc)(land.energy, x, **options)
    found: dict[str, Any] = {
        "frames": [[[round(a, 3), round(b, 3)] for a, b in state.tolist()] for state in trace.states],
        "done": done + steps,
        "energy": round(float(land.energy(x).mean()), 3),
        "accepted": None if trace.acceptance is None else round(float(trace.acceptance.mean()), 3),
        "exact": None,
    }
    if land.toy is not None and temperature == 1.0:  # of which exact draws are known
        found["exact"] = round(float(land.energy(land.toy.sample(EXACT, generator=random.seeded(0, 32))).mean()), 3)
    return found
