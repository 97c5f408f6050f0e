"""What a model of objects in space does: turn them, recombine shape and appearance, new views from a few, tell poses.

A model with the ability "views" infers latents of images (`infer`), renders them from cameras (`render`), draws them (`draw_prior`) and
says how it sees (`optics`).
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from thalweg import camera as cameras
from thalweg import random
from thalweg.data import Views
from thalweg.errors import InputError
from thalweg.given import Examples, Numbers, takes
from thalweg.methods.base import has
from thalweg.tasks.checks import check_count, check_model

ALTITUDE = math.radians(30)


class Turntable(NamedTuple):
    """N objects from F sides: `x` [N, F, 3, H, W] in [−1, 1], `depth` [N, F, 1, H, W] in world units, `opacity` in [0, 1] likewise."""

    x: Tensor
    depth: Tensor
    opacity: Tensor


class Recombined(NamedTuple):
    """N appearances (rows) with N shapes (columns) seen from one side: `x` [N, N, 3, H, W] in [−1, 1], `opacity` [N, N, 1, H, W]."""

    x: Tensor
    opacity: Tensor


@dataclass(frozen=True, eq=False)
class NewViews:
    """N objects, of which V views were `given` [N, V, 3, H, W]: these as the model sees them, `rebuilt`, and W others that it had not seen,
    `x` [N, W, 3, H, W] with `depth` [N, W, 1, H, W] in world units, and the `truth`."""

    given: Tensor
    rebuilt: Tensor
    x: Tensor
    depth: Tensor
    truth: Tensor


class Poses(NamedTuple):
    """Altitude in [−90°, 90°] and azimuth in [−180°, 180°] of N cameras, in degrees [N] each."""

    altitude: Tensor
    azimuth: Tensor


def draw_objects(method: Any, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Latents of appearance [n, d_a] and shape [n, d_s] from the model's priors. Raises InputError for models without objects."""
    check_model("draw_objects", method, "views")
    check_count("n", n, 1)
    return method.draw_prior(n, random.seeded(seed, 15, device=method.device))


@takes
def turntable(
    method: Any, appearance: Numbers, shape: Numbers, *, frames: int = 24, altitude: float = ALTITUDE, size: int | None = None
) -> Turntable:
    """Objects with latents [N, d_a] and [N, d_s], turned once around in `frames` pictures seen from `altitude` radians: `Turntable`.

    `size`: side of the pictures in pixels, the model's own by default. Raises InputError for models that render no objects.
    """
    check_model("turntable", method, "views")
    check_count("frames", frames, 1)
    if size is not None:
        check_count("size", size, 1)
    azimuth = 2 * math.pi * torch.arange(frames) / frames
    around = _orbit(method, torch.full_like(azimuth, altitude), azimuth)
    return Turntable(*_from_each(method, appearance, shape, around.expand(len(appearance), -1, -1, -1), size))


@takes
def recombine(method: Any, n: int = 6, *, camera: Numbers | None = None, seed: int = 0, size: int | None = None) -> Recombined:
    """`n` appearances times `n` shapes from the priors, all from one `camera` [3, 5] (thesis, Figures 3.4 and 3.5).

    Without one from the front, 30° up. Raises InputError for models that render no objects.
    """
    a, s = draw_objects(method, n, seed)
    return recombine_latents(method, a, s, camera=camera, size=size)


@takes
def recombine_latents(
    method: Any, appearance: Numbers, shape: Numbers, *, camera: Numbers | None = None, size: int | None = None
) -> Recombined:
    """As `recombine`, of the latents [N, d_a] and [N, d_s] of N objects."""
    check_model("recombine", method, "views")
    n = len(appearance)
    if camera is None:
        camera = _orbit(method, torch.tensor(ALTITUDE), torch.tensor(0.0))
    rows, columns = appearance.repeat_interleave(n, 0), shape.repeat(n, 1)
    made = method.render(rows, columns, camera.expand(n * n, 3, 5), size)
    return Recombined(made.x.unflatten(0, (n, n)), made.opacity.unflatten(0, (n, n)))


def new_views(method: Any, data: Views, *, objects: int = 6, shots: int = 2, views: int = 4, seed: int = 0, **options: Any) -> NewViews:
    """The first `objects` of `data`, inferred from `shots` of their images, seen from the cameras of `views` others (thesis, sec. 3.5.6).

    Which images are given is drawn with `seed`; `options` are those of the model's `infer`. Raises InputError for models that render no
    objects or were trained without cameras, among which a new one has no place, and for objects with fewer images.
    """
    check_model("views", method, "views", "cameras")
    if not isinstance(data, Views):
        raise InputError(
            f"views: needs data with cameras, tw.data.Views, such as tw.data.load('objects', 'test'); got {type(data).__name__}"
        )
    for name, value in (("objects", objects), ("shots", shots), ("views", views)):
        check_count(name, value, 1)
    rows = data.with_views(1).all()
    chosen, generator = [], random.seeded(seed, 16)
    for item in range(min(objects, data.objects)):
        own = (rows.item == item).nonzero().flatten()
        if len(own) < shots + views:
            raise InputError(f"views: an object of {data.name} has {len(own)} images, shots + views = {shots + views} are needed")
        chosen.append(own[random.uniform(len(own), generator=generator).argsort()[: shots + views]])
    x, camera = (part[torch.stack(chosen)] for part in (rows.x, rows.camera))
    found = method.infer(x[:, :shots], camera[:, :shots], seed=seed, **options)
    made, depth, _ = _from_each(method, found.appearance, found.shape, camera)
    return NewViews(x[:, :shots], made[:, :shots], made[:, shots:], depth[:, shots:], x[:, shots:])


@takes
def pose(method: Any, x: Examples) -> Poses:
    """The poses that images [N, 3, H, W] were seen from, by a model that infers its cameras: up to one rotation and mirror of all azimuths.

    Raises InputError for other models.
    """
    check_model("pose", method, "views")
    if has(method, "cameras"):
        raise InputError("pose needs a model trained without cameras, which infers them; this one is told its cameras")
    parts = [cameras.angles(method.infer(part).camera[:, 0].cpu())[:2] for part in x.split(256)]
    return Poses(*(torch.rad2deg(torch.cat(part)) for part in zip(*parts)))


def _orbit(method: Any, altitude: Tensor, azimuth: Tensor) -> Tensor:
    """Cameras of angles in radians, at the distance and with the focal length of the model's own."""
    angles = cameras.unit_vector(altitude), cameras.unit_vector(azimuth)
    return cameras.orbit(*angles, distance=method.optics.distance, focal=method.optics.focal)


def _from_each(method: Any, appearance: Tensor, shape: Tensor, camera: Tensor, size: int | None = None) -> tuple[Tensor, ...]:
    """Pictures, depths and opacities of N objects from cameras [N, W, 3, 5], [N, W, …] each."""
    n, w = camera.shape[:2]
    made = method.render(appearance.repeat_interleave(w, 0), shape.repeat_interleave(w, 0), camera.flatten(0, 1), size)
    return tuple(part.unflatten(0, (n, w)) for part in made)
