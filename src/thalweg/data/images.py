"""Images in memory as a stateless, seeded, endless stream, and the two conversions that all loaders share."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from numbers import Integral
from typing import Any, final

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..errors import InputError, nearest
from ..random import seeded
from .base import Batch

SPLITS = ("train", "validation", "test")
Size = int | tuple[int, int]  # pixels of a square, or height and width
MOST_VALUES = 1000  # of a concept: more is a column of identifiers


class TooFew(InputError):
    """There are fewer examples than a split needs."""


@final
class Images:
    """Images held in memory, uint8 or float, with or without labels.

    `x`: [N, C, H, W]; uint8 is mapped to [−1, 1] by v/127.5 − 1 when a batch is made, float must lie in [−1, 1] already.
    `label`: [N] integers in {0, …, K−1}; `classes`: K names, by default the numbers. `concepts`, names with the names of their
    values, are for several labels an image: `label` [N, M], the values of all M concepts numbered in one space, a concept's after
    those of the concepts before it (see `attributes.join_label`); `classes` are then "digit=0", …, "colour=red", …
    `flip` mirrors each example from left to right with probability ½, drawn anew each epoch. `jitter` in [0, 1) adds uniform
    noise in [−jitter, jitter] and divides by 1 + jitter, which keeps [−1, 1]; 1/255 is the usual dequantisation of 8-bit images,
    (v + u)/128 − 1 with u in [0, 1).
    Raises InputError for another shape, type or range, for NaN, for an empty set and for labels that do not fit.
    """

    cuts = True

    def __init__(
        self,
        x: Tensor,
        label: Tensor | None = None,
        classes: Sequence[str] = (),
        *,
        concepts: Mapping[str, Sequence[str]] | None = None,
        name: str = "images",
        flip: bool = False,
        jitter: float = 0.0,
    ):
        x, label = _as_tensor(x), None if label is None else _as_tensor(label)
        _check_images(x, name)
        if not 0 <= jitter < 1:
            raise InputError(f"jitter must be in [0, 1), got {jitter}")
        self.name = name
        self.x = x if x.dtype == torch.uint8 else x.float()
        self.concepts = check_concepts(concepts or {}, name)
        self.label, self.classes = check_labels(label, tuple(classes), self.concepts, len(x), name)
        self.shape = tuple(x.shape[1:])
        self.flip = flip
        self.jitter = jitter
        self.origin: str | None = None  # where `data.load` found them

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        sizes = " × ".join(f"{len(values)} {concept}" for concept, values in self.concepts.items())
        return f"Images({self.name!r}, {len(self)} of {list(self.shape)}, {sizes or f'{len(self.classes)} classes'})"

    def batch(self, start: int, count: int, seed: int) -> Batch:
        """Examples number start … start+count−1 of the stream that `seed` defines: every epoch is a fresh permutation.

        A batch does not depend on how the stream is cut: two halves are the same rows as the whole.
        """
        if start < 0 or count < 1:
            raise InputError(f"a batch needs start ≥ 0 and count ≥ 1, got start={start}, count={count}")
        rows, mirrored = [], []
        position = start
        while position < start + count:
            epoch, inside = divmod(position, len(self))
            order, mirror = _epoch(len(self), seed, epoch)
            taken = slice(inside, min(len(self), inside + start + count - position))
            rows.append(order[taken])
            mirrored.append(mirror[taken])
            position += taken.stop - taken.start
        index = torch.cat(rows)
        x = to_unit(self.x[index])
        if self.flip:
            x = torch.where(torch.cat(mirrored)[:, None, None, None], x.flip(3), x)
        if self.jitter:
            noise = torch.stack([torch.rand(self.shape, generator=seeded(seed, row, 2)) for row in range(start, start + count)])
            x = (x + self.jitter * (2 * noise - 1)) / (1 + self.jitter)
        return Batch(x, None if self.label is None else self.label[index])

    def all(self) -> Batch:
        """Every example once, in the order of the set, without flips or jitter."""
        return Batch(to_unit(self.x), self.label)

    def subset(self, index: Tensor, name: str | None = None) -> "Images":
        """The examples at the integers `index` [n], with the same classes and options."""
        label = None if self.label is None else self.label[index]
        return self._with(self.x[index], label, name=name or self.name, flip=self.flip, jitter=self.jitter)

    def of_class(self, name: str) -> "Images":
        """The examples of one class (of several concepts CONCEPT=VALUE) without labels; InputError where there are none."""
        if name not in self.classes:
            raise InputError(
                f"{self.name} has no class '{name}'{nearest(name, self.classes)}. Classes: {', '.join(self.classes) or 'none'}"
            )
        has = self.label.view(len(self), -1).eq(self.classes.index(name)).any(1)
        if not has.any():
            raise InputError(f"{self.name} has no image of class '{name}'")
        return Images(self.x[has], name=f"{self.name}:{name}", flip=self.flip, jitter=self.jitter)

    def augmented(self, *, flip: bool = False, jitter: float = 0.0) -> "Images":
        """The same examples (not copied) with other options."""
        return self._from_here(self._with(self.x, self.label, name=self.name, flip=flip, jitter=jitter))

    def resized(self, size: Size | None = None, channels: int | None = None, *, name: str | None = None) -> "Images":
        """The same examples brought to another size and number of channels by `convert`, without flips or jitter."""
        return self._from_here(self._with(convert(self.x, size, channels), self.label, name=name or self.name))

    def _from_here(self, other: "Images") -> "Images":
        """`other`, which says that it was loaded from where these were."""
        other.origin = self.origin
        return other

    def _with(self, x: Tensor, label: Tensor | None, **options) -> "Images":
        return Images(x, label, () if self.concepts else self.classes, concepts=self.concepts, **options)


@lru_cache(maxsize=4)
def _epoch(count: int, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
    """The permutation [count] of an epoch and which of its positions are mirrored."""
    return torch.randperm(count, generator=seeded(seed, epoch)), torch.rand(count, generator=seeded(seed, epoch, 1)) < 0.5


def to_unit(x: Tensor) -> Tensor:
    """uint8 images mapped to float32 in [−1, 1] by v/127.5 − 1; float images as they are."""
    return x.float().div_(127.5).sub_(1.0) if x.dtype == torch.uint8 else x


def check_split(split: str) -> None:
    """Raises InputError unless `split` is train, validation or test."""
    if split not in SPLITS:
        raise InputError(f"unknown split '{split}'; the splits are {', '.join(SPLITS)}")


def check_size(size: Size | None, channels: int | None) -> None:
    """Raises InputError unless `size` is None, a whole number of at least 1 or two of them, and `channels` is None, 1 or 3."""
    sides = size if isinstance(size, tuple) else (size, size)
    if size is not None and (len(sides) != 2 or not all(isinstance(side, Integral) and side >= 1 for side in sides)):
        raise InputError(f"size must be a whole number of pixels, or (height, width), of at least 1, got {size!r}")
    if channels not in (None, 1, 3):
        raise InputError(f"channels must be 1 (grey) or 3 (colour), got {channels!r}")


def side(size: Size | None) -> int | None:
    """The side of a square `size`; InputError for another shape."""
    if isinstance(size, tuple) and size[0] != size[1]:
        raise InputError(f"these images must be square, got a size of {size[0]} × {size[1]} pixels")
    return size[0] if isinstance(size, tuple) else size


def convert(x: Tensor, size: Size | None = None, channels: int | None = None) -> Tensor:
    """Images [N, C, H, W] brought to `size`×`size` pixels, or (height, width), and to 1 or 3 `channels`, in the same type.

    Images are resized (bilinear with antialiasing) until they just cover that size, and the middle is cut out. Colour becomes grey by
    the weights of ITU-R 601 (0.299, 0.587, 0.114), grey becomes colour by repetition.
    """
    check_size(size, channels)
    if channels is not None and channels != x.shape[1]:
        x = _with_channels(x, channels)
    high, wide = size if isinstance(size, tuple) else (size, size)
    if size is None or x.shape[2:] == (high, wide):
        return x
    height, width = x.shape[2:]
    scale = max(high / height, wide / width)
    shape = (max(high, round(height * scale)), max(wide, round(width * scale)))
    top, left = (shape[0] - high) // 2, (shape[1] - wide) // 2
    parts = []
    for part in x.split(1024):  # float copies of the whole set could be many times its size
        resized = interpolate(part.float(), size=shape, mode="bilinear", antialias=True)
        parts.append(_as_type(resized[:, :, top : top + high, left : left + wide], x))
    return torch.cat(parts)


def middle_square(x: Tensor, side: int | None, name: str) -> Tensor:
    """The middle `side`×`side` pixels of images [N, C, H, W], all of them for None; InputError where they are fewer."""
    if side is None:
        return x
    height, width = x.shape[2:]
    if side < 1 or min(height, width) < side:
        raise InputError(f"{name} is of {width}×{height} pixels, of which no middle square of {side} can be cut out")
    top, left = (height - side) // 2, (width - side) // 2
    return x[:, :, top : top + side, left : left + side]


def _with_channels(x: Tensor, channels: int) -> Tensor:
    if x.shape[1] == 1:
        return x.expand(-1, channels, -1, -1).contiguous()
    if x.shape[1] == 3 and channels == 1:
        weight = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
        return torch.cat([_as_type((part.float() * weight).sum(1, keepdim=True), x) for part in x.split(1024)])
    raise InputError(f"cannot make {channels} channels from images of {x.shape[1]}; 1 and 3 can be converted")


def _as_type(values: Tensor, like: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8) if like.dtype == torch.uint8 else values.clamp(-1, 1)


def partition(split: str, count: int, shares: tuple[float, float], label: Tensor | None = None, *, seed: int = 0) -> Tensor:
    """The row numbers [n] of one `split` of `count` examples, in order; fixed by `seed`, even over the classes.

    `shares`: the parts of validation and test. Of labels [N, M] the first concept counts. Where classes are so small that a split would
    get none of any, classes are not looked at and it gets one example at least. Raises TooFew where that leaves a split empty.
    """
    label = torch.zeros(count, dtype=torch.int64) if label is None else label
    label = label[:, 0] if label.dim() == 2 else label
    groups = {value: torch.nonzero(label == value).flatten() for value in label.unique().tolist()}
    sizes = {value: tuple(round(share * len(members)) for share in shares) for value, members in groups.items()}
    empty = any(share and not any(size[i] for size in sizes.values()) for i, share in enumerate(shares))
    if empty and count > sum(share > 0 for share in shares):
        groups, sizes = {0: torch.arange(count)}, {0: tuple(max(1, round(share * count)) if share else 0 for share in shares)}
    rows = []
    for value, members in groups.items():
        members = members[torch.randperm(len(members), generator=seeded(seed, value))]
        validation, test = sizes[value]
        cut = {"validation": (0, validation), "test": (validation, validation + test), "train": (validation + test, len(members))}
        rows.append(members[slice(*cut[split])])
    index = torch.cat(rows).sort().values
    if not len(index):
        raise TooFew(f"{count} examples are too few for a {split} split of shares {shares} (validation, test)")
    return index


def _as_tensor(values: Any) -> Tensor:
    """A tensor, also of NumPy's arrays and lists of numbers."""
    return values if isinstance(values, Tensor) else torch.as_tensor(values)


def _check_images(x: Tensor, name: str) -> None:
    if x.dim() != 4 or 0 in x.shape:
        raise InputError(f"{name}: images must have the shape [N, C, H, W] with no side of 0, got {list(x.shape)}")
    if x.dtype == torch.uint8:
        return
    if not x.is_floating_point():
        raise InputError(f"{name}: images must be uint8 or float, got {x.dtype}")
    if not torch.isfinite(x).all():
        raise InputError(f"{name}: {int((~torch.isfinite(x)).flatten(1).any(1).sum())} of {len(x)} images hold NaN or infinity")
    low, high = x.min().item(), x.max().item()
    if low < -1 or high > 1:
        raise InputError(f"{name}: float images must lie in [−1, 1], got values from {low:g} to {high:g}; give uint8 for 0 to 255")


def flat_names(concepts: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The names of all values in the one space of labels: "digit=0", …, "colour=red", …"""
    return tuple(f"{concept}={value}" for concept, values in concepts.items() for value in values)


def check_concepts(concepts: Mapping[str, Sequence[str]], name: str) -> dict[str, tuple[str, ...]]:
    """`concepts` as a dict of tuples; raises InputError for names that cannot be asked for, no value, one twice or above 1000."""
    for concept, values in concepts.items():
        if not concept or set(concept) & set("=,"):
            raise InputError(f"{name}: a concept needs a name without = and comma, got '{concept}'")
        if isinstance(values, str) or not 1 <= len(values) <= MOST_VALUES:
            given = f"the text '{values}'" if isinstance(values, str) else len(values)
            raise InputError(f"{name}: the concept {concept} must have 1 to {MOST_VALUES} values, got {given}")
        if len(set(values)) < len(values):
            raise InputError(f"{name}: the values of {concept} must differ, got {', '.join(values)}")
    return {concept: tuple(values) for concept, values in concepts.items()}


def check_labels(
    label: Tensor | None, classes: tuple[str, ...], concepts: dict[str, tuple[str, ...]], count: int, name: str
) -> tuple[Tensor | None, tuple[str, ...]]:
    if concepts:
        return _check_concept_labels(label, classes, concepts, count, name)
    if label is None:
        return None, ()
    if label.shape != (count,) or label.is_floating_point() or label.dtype == torch.bool:
        several = "; several labels an image need concepts" if label.dim() == 2 else ""
        raise InputError(f"{name}: labels must be {count} integers, one for each image, got {list(label.shape)} of {label.dtype}{several}")
    label = label.long()
    low, high = label.min().item(), label.max().item()
    if not classes and high >= max(MOST_VALUES, 2 * count):
        raise InputError(f"{name}: labels go up to {high:,} for {count:,} examples; number them from 0 (tw.data.of((x, labels)) does)")
    classes = classes or tuple(str(value) for value in range(high + 1))
    if low < 0 or high >= len(classes):
        raise InputError(f"{name}: labels must be in 0 … {len(classes) - 1}, got values from {low} to {high}")
    return label, classes


def _check_concept_labels(
    label: Tensor | None, classes: tuple[str, ...], concepts: dict[str, tuple[str, ...]], count: int, name: str
) -> tuple[Tensor, tuple[str, ...]]:
    if classes:
        raise InputError(f"{name}: give classes or concepts, not both")
    if label is None or label.shape != (count, len(concepts)) or label.is_floating_point() or label.dtype == torch.bool:
        given = "none" if label is None else f"{list(label.shape)} of {label.dtype}"
        raise InputError(f"{name}: labels must be integers [{count}, {len(concepts)}], one for each image and concept, got {given}")
    start = 0
    for (concept, values), column in zip(concepts.items(), label.T):
        low, high = column.min().item(), column.max().item()
        if low < start or high >= start + len(values):
            raise InputError(f"{name}: labels of {concept} must be in {start} … {start + len(values) - 1}, got values from {low} to {high}")
        start += len(values)
    return label.long(), flat_names(concepts)
