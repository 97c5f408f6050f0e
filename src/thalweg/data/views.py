"""Images of objects seen by cameras of known pose, several of an object in a batch."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from ..errors import InputError
from ..random import normal, seeded, uniform
from .images import to_unit
from .unread import Unread


class ViewBatch(NamedTuple):
    """A `Batch` of images with `camera` [B, 3, 5] (see `thalweg.camera`), `item` [B] int64, the object's number in the set,
    `visible` [B, 1, H, W] bool where images are incomplete: False where `x` shows noise, and `row` [B] int64, the image's number in the
    set."""

    x: Tensor
    label: None
    camera: Tensor
    item: Tensor
    visible: Tensor | None = None
    row: Tensor | None = None


@final
class Views:
    """Images [N, C, H, W] uint8 of objects from known cameras [N, 3, 5]; `item` [N] says which object, numbered from 0.

    Images are in memory, or in files that are read when they are asked for (`unread`).

    A batch holds `views` images of an object one after the other, objects in random order; each image comes once an epoch, but for
    those that do not fill a last group of `views`. `depth` [N, H, W] float16, where known, is the distance along the ray in world
    units, infinite where nothing is; `mask` [N, H, W] uint8 is how much of a pixel the object covers, of 255. `visible` [N, 1, H, W]
    bool is False where an image is missing. `factors` {name: [objects] or [objects, K]} are what made each object; whole numbers
    among them stand for the names in `values` {name: names}. Raises InputError for shapes that do not fit and objects with fewer
    images than `views`.
    """

    classes: tuple[str, ...] = ()
    known_as: str | None = None  # the fingerprint of the whole images, where these are incomplete

    def __init__(
        self,
        x: Tensor | Unread,
        camera: Tensor,
        item: Tensor,
        *,
        name: str = "views",
        views: int = 1,
        depth: Tensor | None = None,
        mask: Tensor | None = None,
        visible: Tensor | None = None,
        factors: Mapping[str, Tensor] | None = None,
        values: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        if x.dim() != 4 or x.dtype != torch.uint8 or not len(x):
            raise InputError(f"{name}: images must be uint8 [N, C, H, W] with N ≥ 1, got {x.dtype} {list(x.shape)}")
        if tuple(camera.shape) != (len(x), 3, 5) or not camera.isfinite().all():
            raise InputError(f"{name}: cameras must be finite [{len(x)}, 3, 5], got {list(camera.shape)}")
        if tuple(item.shape) != (len(x),) or item.min() != 0 or len(item.unique()) != item.max() + 1:
            raise InputError(f"{name}: item must number the objects of {len(x)} images from 0 without gaps")
        if visible is not None and (visible.dtype != torch.bool or tuple(visible.shape) != (len(x), 1, *x.shape[2:])):
            raise InputError(f"{name}: visible must be bool {[len(x), 1, *x.shape[2:]]}, got {visible.dtype} {list(visible.shape)}")
        for part, maps, kind in (("depth", depth, torch.float16), ("mask", mask, torch.uint8)):
            if maps is not None and (maps.dtype != kind or tuple(maps.shape) != (len(x), *x.shape[2:])):
                raise InputError(f"{name}: {part} must be {kind} {[len(x), *x.shape[2:]]}, got {maps.dtype} {list(maps.shape)}")
        counts = item.bincount()
        self.factors, self.values = dict(factors or {}), dict(values or {})
        for part, of in self.factors.items():
            if len(of) != len(counts):
                raise InputError(f"{name}: the factor {part} must have {len(counts)} values, one for each object, got {len(of)}")
        if not 1 <= views <= counts.min():
            raise InputError(f"{name}: views = {views}, but some object has {int(counts.min())} images; give 1 to that many")
        self.name, self.views, self.shape = name, views, tuple(x.shape[1:])
        self.x, self.camera, self.item = x, camera.float(), item.long()
        self.depth, self.mask, self.visible = depth, mask, visible
        self.objects = len(counts)
        self._epoch_length = int((counts // views * views).sum())
        self._order: tuple[tuple[int, int] | None, Tensor] = (None, torch.empty(0))

    @property
    def fingerprint(self) -> str | None:
        """`known_as`, or of images in files that of their names and lengths; None of others, which are known by their content."""
        return self.known_as or (self.x.fingerprint if isinstance(self.x, Unread) else None)

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        return f"Views({self.name!r}, {len(self)} of {list(self.shape)}, {self.objects} objects, {self.views} next to each other)"

    def batch(self, start: int, count: int, seed: int) -> ViewBatch:
        """Images number start … start+count−1 of the stream that `seed` defines; both must divide by `views`."""
        if start < 0 or count < 1 or start % self.views or count % self.views:
            raise InputError(f"a batch needs start ≥ 0 and count ≥ 1 that divide by views = {self.views}, got start={start}, count={count}")
        rows, position = [], start
        while position < start + count:
            epoch, inside = divmod(position, self._epoch_length)
            rows.append(self._epoch(seed, epoch)[inside : inside + start + count - position])
            position += len(rows[-1])
        return self._rows(torch.cat(rows))

    def all(self) -> ViewBatch:
        """Every image once, in the order of the set; with `views` above 1 those of whole groups, one object after the other."""
        return self._rows(self._grouped(torch.arange(len(self))).flatten() if self.views > 1 else torch.arange(len(self)))

    def with_views(self, views: int) -> "Views":
        """The same images (not copied), `views` of an object next to each other."""
        return self._with(views=views)

    def masked(self, share: float = 0.25, seed: int = 0) -> "Views":
        """Incomplete images: a rectangle of about `share` of each is Gaussian noise of standard deviation ½, `visible` says where.

        Raises InputError unless share is between 0 and 1.
        """
        if not 0 < share < 1:
            raise InputError(f"{self.name}: the missing share must be between 0 and 1, got {share}")
        height, width = self.shape[1:]
        g = seeded(seed, 31)
        aspect = uniform(len(self), low=-0.5, high=0.5, generator=g).exp2()
        tall = (height * math.sqrt(share) * aspect).round().clamp(1, height)
        wide = (width * math.sqrt(share) / aspect).round().clamp(1, width)
        top = (uniform(len(self), generator=g) * (height - tall + 1)).floor()
        left = (uniform(len(self), generator=g) * (width - wide + 1)).floor()
        y, x = torch.arange(height)[None, :, None], torch.arange(width)[None, None]
        inside = (y >= top[:, None, None]) & (y < (top + tall)[:, None, None])
        inside = inside & (x >= left[:, None, None]) & (x < (left + wide)[:, None, None])
        images = self.x[torch.arange(len(self))]
        for i, hole in enumerate(inside):
            noise = normal(self.shape[0], int(hole.sum()), generator=g)
            images[i][:, hole] = (127.5 + 63.75 * noise).round().clamp(0, 255).to(torch.uint8)
        return self._with(x=images, visible=~inside[:, None], name=f"{self.name} with {share:.0%} missing")

    def _with(self, **changes: Any) -> "Views":
        kept = ("x", "camera", "item", "name", "views", "depth", "mask", "visible", "factors", "values")
        return Views(**({key: getattr(self, key) for key in kept} | changes))

    def _rows(self, rows: Tensor) -> ViewBatch:
        visible = None if self.visible is None else self.visible[rows]
        return ViewBatch(to_unit(self.x[rows]), None, self.camera[rows], self.item[rows], visible, rows)

    def _grouped(self, rows: Tensor) -> Tensor:
        """`rows` in groups of `views` of one object, [G, views], object by object."""
        rows = rows[self.item[rows].argsort(stable=True)]
        counts = self.item.bincount()
        place = torch.arange(len(rows)) - (counts.cumsum(0) - counts)[self.item[rows]]
        return rows[place < (counts // self.views * self.views)[self.item[rows]]].view(-1, self.views)

    def _epoch(self, seed: int, epoch: int) -> Tensor:
        if self._order[0] != (seed, epoch):
            g = seeded(seed, epoch)
            groups = self._grouped(torch.randperm(len(self), generator=g))
            self._order = ((seed, epoch), groups[torch.randperm(len(groups), generator=g)].flatten())
        return self._order[1]


def group_views(data: Any, views: int) -> Any:
    """`data` with `views` images of an object next to each other; 1 leaves it as it is. InputError for data without objects."""
    if views == 1:
        return data
    if not isinstance(data, Views):
        raise InputError(f"views = {views} is for images of objects from several cameras, {data.name} has none; see docs/data.md")
    return data.with_views(views)
