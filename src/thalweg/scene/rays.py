"""Views of objects and their pixels: which of them are looked at, the rays through them, and what is there."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from thalweg import camera as cameras
from thalweg import random
from thalweg.data import ViewBatch
from thalweg.data.base import Batch
from thalweg.errors import InputError


class Given(NamedTuple):
    """V images of each of N objects, x [N, V, C, H, W], with their cameras [N, V, 3, 5] and the objects' numbers `item` [N], or None;
    `visible` [N, V, 1, H, W] is False where an image is missing, None where none is; pixels `which` [N·V, P] are looked at; `row`
    [N, V] are the images' numbers, or None."""

    x: Tensor
    camera: Tensor | None
    item: Tensor | None
    visible: Tensor | None
    which: Tensor
    row: Tensor | None = None

    def again(self, times: int, pixels: int) -> "Given":
        """The first `pixels` pixels of objects of one view each, `times` times, as if they were views."""
        visible = None if self.visible is None else self.visible.expand(-1, times, *self.visible.shape[2:])
        x, which = self.x.expand(-1, times, *self.x.shape[2:]), self.which[:, :pixels].repeat_interleave(times, 0)
        return self._replace(x=x, visible=visible, which=which)

    def coarse(self, side: int) -> "Given":
        """The same in images of `side` by `side` pixels, means of blocks, all looked at; a block is visible where all of it is."""

        def blocks(maps: Tensor) -> Tensor:
            return adaptive_avg_pool2d(maps.flatten(0, 1).float(), side).unflatten(0, maps.shape[:2])

        which = torch.arange(side**2, device=self.x.device).expand(len(self.which), -1)
        return self._replace(x=blocks(self.x), visible=None if self.visible is None else blocks(self.visible) == 1, which=which)

    def silhouettes(self, background: str) -> "Given":
        """The same with the objects in black on white, or in white on black: whatever differs from the background by a twentieth."""
        empty = 1.0 if background == "white" else -1.0
        covered = ((self.x - empty).abs() > 0.1).any(2, keepdim=True)
        return self._replace(x=torch.where(covered, -empty, empty).to(self.x).expand_as(self.x))


def observe(batch: Batch | ViewBatch, views: int, *, known: bool, rays: int, generator: random.Generator) -> Given:
    """A batch of `views` images of each object, one after the other, and `rays` drawn pixels of each image, all for 0.

    With `known` poses its cameras are given; raises InputError where it has none, or where views are of different objects.
    """
    visible, camera, item, row = (getattr(batch, part, None) for part in ("visible", "camera", "item", "row"))
    if known and camera is None:
        raise InputError("poses = 'known' needs images with cameras (docs/data.md); set poses = 'unknown' for others")
    visible, camera, item, row = (None if t is None else t.unflatten(0, (-1, views)) for t in (visible, camera, item, row))
    if known and item is not None and (item != item[:, :1]).any():
        raise InputError(f"views = {views} needs data with as many images of an object next to each other (with_views)")
    which = choose(len(batch.x), math.prod(batch.x.shape[2:]), rays, generator, batch.x.device)
    x = batch.x.unflatten(0, (-1, views))
    return Given(x, camera if known else None, None if item is None else item[:, 0], visible, which, row)


class Pixels(NamedTuple):
    """Q pixels of each of N objects, of all its views: values `x` [N, Q, C] in [−1, 1] and weights [N, Q], and the rays [N, Q S, 3]
    through S places in each, one pixel after the other.

    `jitter` [N, Q S, M] in [0, 1] places samples along each ray, `importance` [N, Q S, M'] further ones.
    """

    origins: Tensor
    directions: Tensor
    x: Tensor
    weight: Tensor
    jitter: Tensor
    importance: Tensor | None

    def part(self, k: int, of: int) -> "Pixels":
        """Every `of`-th pixel of each object from number k on, with so many times the weight: over all k the mean of sums is the sum."""
        pixels = self.x.shape[1]

        def some(rays: Tensor) -> Tensor:
            return rays.unflatten(1, (pixels, -1))[:, k::of].flatten(1, 2)

        importance = None if self.importance is None else some(self.importance)
        rest = self.x[:, k::of], of * self.weight[:, k::of], some(self.jitter), importance
        return Pixels(some(self.origins), some(self.directions), *rest)


def choose(images: int, count: int, rays: int, generator: random.Generator, device: torch.device) -> Tensor:
    """Which of `count` pixels of each image are looked at, [images, P]: `rays` different ones, or all for 0."""
    if not 0 < rays < count:
        return torch.arange(count, device=device).expand(images, -1)
    return random.uniform(images, count, generator=generator, device=device).topk(rays, 1).indices


def look(
    x: Tensor,
    camera: Tensor,
    visible: Tensor | None,
    which: Tensor | None,
    *,
    samples: int,
    importance: int = 0,
    sub_pixels: int = 1,
    generator: random.Generator = None,
) -> Pixels:
    """The pixels number `which` [N·V, P], or all, of images [N, V, C, H, W] from cameras [N, V, 3, 5].

    `visible` [N, V, 1, H, W] is False where an image is missing. Rays pass through the middle of a pixel, or one through each of
    `sub_pixels`² equal parts. Places in these and samples along rays are drawn, or without a generator evenly spaced. Weights make
    up for the pixels that are not looked at: the sum over all is estimated without bias.
    """
    channels, height, width = x.shape[2:]
    objects = len(x)
    if which is None:
        which = torch.arange(height * width, device=x.device).expand(objects * x.shape[1], -1)
    through, inside = which, None
    if sub_pixels > 1:
        through = which.repeat_interleave(sub_pixels**2, 1)
        inside = _inside(which.shape, sub_pixels, generator, x.device)
    origins, directions = cameras.rays(camera.flatten(0, 1), height, width, through, inside)
    values = x.flatten(0, 1).flatten(2).gather(2, which[:, None].expand(-1, channels, -1)).transpose(1, 2)
    weight = torch.full(which.shape, height * width / which.shape[1], device=x.device)
    if visible is not None:
        weight = weight * visible.flatten(0, 1).flatten(1).gather(1, which)

    def draws(count: int, even: Tensor) -> Tensor:
        shape = (objects, through.shape[1] * x.shape[1], count)
        return even.expand(shape) if generator is None else random.uniform(*shape, generator=generator, device=x.device)

    origins, directions, values, weight = (part.reshape(objects, -1, *part.shape[2:]) for part in (origins, directions, values, weight))
    middle, spread = x.new_full((1,), 0.5), (torch.arange(importance, device=x.device) + 0.5) / max(1, importance)
    further = draws(importance, spread) if importance else None
    return Pixels(origins, directions, values, weight, draws(samples, middle), further)


def _inside(shape: torch.Size, parts: int, generator: random.Generator, device: torch.device) -> Tensor:
    """A place in each of `parts`² parts of pixels [I, P], drawn or without a generator its middle: [I, P·parts², 2] in [0, 1]."""
    images, pixels = shape
    corner = torch.cartesian_prod(*[torch.arange(parts, device=device)] * 2).repeat(pixels, 1)
    draw: Tensor | float = 0.5
    if generator is not None:
        draw = random.uniform(images, pixels * parts**2, 2, generator=generator, device=device)
    return ((corner + draw) / parts).expand(images, -1, -1)
