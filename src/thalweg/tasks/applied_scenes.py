"""The tasks with objects in space, as `thalweg apply` runs them: turntables, grids, new views, completions, poses."""

from typing import Any

import torch
from torch import Tensor

from thalweg import data
from thalweg.errors import InputError
from thalweg.methods.base import has
from thalweg.tasks import operators, scenes, table
from thalweg.tasks.applied import Outcome

LEAST = 64


def turntable(method: Any, given: data.Views | None, options: table.Turntable) -> Outcome:
    if given is None:
        a, s = scenes.draw_objects(method, options.count, options.seed)
    else:
        rows = _rows(given, options.count, options.shots)
        camera = rows.camera if has(method, "cameras") else None
        found = method.infer(rows.x, camera, steps=options.search, seed=options.seed)
        a, s = found.appearance, found.shape
    made = scenes.turntable(method, a, s, frames=options.frames or 8, size=options.size)
    return Outcome({"x": made.x, "depth": made.depth, "opacity": made.opacity}, made.x, least=LEAST)


def recombine(method: Any, given: None, options: table.Recombine) -> Outcome:
    made = scenes.recombine(method, options.count, seed=options.seed, size=options.size)
    return Outcome({"x": made.x, "opacity": made.opacity}, made.x, least=LEAST)


def views(method: Any, given: data.Views, options: table.Views) -> Outcome:
    made = scenes.new_views(method, given, objects=options.count, shots=options.shots, steps=options.search, seed=options.seed)
    arrays = {"given": made.given, "rebuilt": made.rebuilt, "x": made.x, "truth": made.truth, "depth": made.depth}
    near, far = method.optics.near, method.optics.far
    nearness = (1 - 2 * (made.depth - near) / (far - near)).clamp(-1, 1).expand_as(made.x)  # white in front
    return Outcome(arrays, torch.cat([made.given, made.rebuilt, made.x, made.truth, nearness], 1), least=LEAST)


def complete(method: Any, given: data.Views, options: table.Complete) -> Outcome:
    if options.mask is not None:
        hidden = operators.named(f"mask:{options.mask}", tuple(method.config.shape), seed=options.seed)
        assert isinstance(hidden, operators.Mask)
        visible = hidden.known[..., :1, :, :].expand(len(given), 1, *given.shape[1:]).contiguous()
        given = data.Views(given.x, given.camera, given.item, name=given.name, visible=visible)
    if given.visible is None:
        raise InputError(f"complete: nothing is missing in {given.name}; give --mask, for example centre:0.25")
    rows = _rows(given, options.count, 1)
    x, seen, camera = rows.x[:, 0], rows.visible[:, 0], rows.camera[:, 0] if has(method, "cameras") else None
    found = method.complete(x, camera, seen, steps=options.search, seed=options.seed)
    shown = torch.where(seen, x, torch.zeros_like(x))
    return Outcome({"x": x, "visible": seen, "completed": found}, torch.stack([shown, found.to(x)], 1), least=LEAST)


def pose(method: Any, x: Tensor, options: table.Options) -> Outcome:
    found = scenes.pose(method, x)
    degrees = [(round(float(a), 2), round(float(b), 2)) for a, b in zip(found.altitude, found.azimuth)]
    return Outcome(records=[{"altitude": altitude, "azimuth": azimuth} for altitude, azimuth in degrees])


def _rows(views: data.Views, count: int, shots: int) -> Any:
    """The first `shots` images of the first `count` objects, [count, shots, …]."""
    rows: Any = views.with_views(shots).all()
    start = [int((rows.item == item).nonzero()[0]) for item in range(min(count, views.objects))]
    which = torch.tensor(start)[:, None] + torch.arange(shots)
    return type(rows)(*(None if part is None else part[which] for part in rows))
