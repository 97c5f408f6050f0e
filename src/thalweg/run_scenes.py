"""What `thalweg apply` does with models of objects in space: turntables, grids, new views, completions, poses."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thalweg import data, plot, tasks
from thalweg.errors import InputError
from thalweg.methods.base import Method


def apply(task: str, method: Method, source: str | None, out: Path, **options: Any) -> dict[str, Tensor] | None:
    """Run a task of `tasks.SCENES` but "pose"; write a picture to `out` (.png, .gif), or return the arrays of an .npz.

    `source` names data with cameras. InputError for models that render no objects, and data without what is needed.
    """
    tasks.scenes.check_scene_model(task, method)
    arrays, rows = {"turntable": _turntable, "recombine": _recombine, "views": _views, "complete": _complete}[task](
        method, source, out, **options
    )
    if out.suffix == ".npz":
        return arrays
    if out.suffix == ".gif":
        plot.animation(rows.transpose(0, 1), out)
    else:
        plot.grid(rows.flatten(0, 1), out, columns=rows.shape[1], least=64)
    return None


def _turntable(
    method: Method, source: str | None, out: Path, *, count: int = 6, frames: int | None = None, shots: int = 2, search: int | None = None,
    size: int | None = None, seed: int = 0,
) -> tuple[dict[str, Tensor], Tensor]:  # fmt: skip
    if source is None:
        a, s = tasks.drawn(method, count, seed)
    else:
        views = _rows(_with_cameras(source, method), count, shots, method)
        camera = None if method.config.poses == "unknown" else views.camera
        found = method.infer(views.x, camera, steps=search, seed=seed)
        a, s = found.appearance, found.shape
    made = tasks.turntable(method, a, s, frames=frames or (36 if out.suffix == ".gif" else 8), size=size)
    return {"x": made.x, "depth": made.depth, "opacity": made.opacity}, made.x


def _recombine(
    method: Method, source: None, out: Path, *, count: int = 6, size: int | None = None, seed: int = 0
) -> tuple[dict[str, Tensor], Tensor]:
    made = tasks.recombine(method, count, seed=seed, size=size)
    return {"x": made.x, "opacity": made.opacity}, made.x


def _views(
    method: Method, source: str, out: Path, *, count: int = 6, shots: int = 2, search: int | None = None, seed: int = 0
) -> tuple[dict[str, Tensor], Tensor]:
    made = tasks.new_views(method, _with_cameras(source, method), objects=count, shots=shots, steps=search, seed=seed)
    arrays = {"given": made.given, "rebuilt": made.rebuilt, "x": made.x, "truth": made.truth, "depth": made.depth}
    return arrays, torch.cat([made.given, made.rebuilt, made.x, made.truth, _shown(made.depth, method)], 1)


def _complete(
    method: Method, source: str, out: Path, *, count: int = 6, mask: str | None = None, search: int | None = None, seed: int = 0
) -> tuple[dict[str, Tensor], Tensor]:
    views = _with_cameras(source, method)
    if mask is not None:
        hidden = tasks.operators.named(f"mask:{mask}", tuple(method.config.shape), seed=seed).known
        views = views._with(visible=hidden[..., :1, :, :].expand(len(views), 1, *views.shape[1:]).contiguous())
    if views.visible is None:
        raise InputError(f"complete: nothing is missing in {views.name}; give --mask, for example centre:0.25")
    rows = _rows(views, count, 1, method)
    camera = None if method.config.poses == "unknown" else rows.camera[:, 0]
    x, visible = rows.x[:, 0], rows.visible[:, 0]
    found = method.complete(x, camera, visible, steps=search, seed=seed)
    shown = torch.where(visible, x, torch.zeros_like(x))
    return {"x": x, "visible": visible, "completed": found}, torch.stack([shown, found.to(x)], 1)


def _with_cameras(source: str, method: Method) -> data.Views:
    found = data.load(source, "test", size=method.config.shape[-1])
    if not isinstance(found, data.Views):
        raise InputError(f"--input {source}: these images have no cameras; give objects, or a folder in a layout of docs/data.md")
    return found


def _rows(views: data.Views, count: int, shots: int, method: Method) -> Any:
    """The first `shots` images of the first `count` objects, [count, shots, …]."""
    rows = views.with_views(shots).all()
    start = [int((rows.item == item).nonzero()[0]) for item in range(min(count, views.objects))]
    which = torch.tensor(start)[:, None] + torch.arange(shots)
    return type(rows)(*(None if part is None else part[which] for part in rows))


def _shown(depth: Tensor, method: Method) -> Tensor:
    """Nearness as grey pictures in [−1, 1], white in front."""
    c = method.config
    return (1 - 2 * (depth - c.near) / (c.far - c.near)).clamp(-1, 1).expand(*depth.shape[:2], 3, *depth.shape[3:])


def degrees(found: tasks.Poses) -> list[dict[str, float]]:
    """One row an image of `tasks.pose`."""
    return [{"altitude": round(float(a), 2), "azimuth": round(float(b), 2)} for a, b in zip(found.altitude, found.azimuth)]
