"""Images with several concepts (digit, ink, background), each a label space of its own: their labels, and the built-in sets.

Concepts map names to the names of their values. All values are numbered in one space, a concept's after those of the
concepts before it: where `digit` has 10 values and `colour` 5, the labels of `colour` are 10 … 14. A label [N, M] has a
column a concept; −1 stands for none.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..errors import InputError, nearest
from ..random import seeded
from .images import SPLITS, Images, Size, to_unit

Concepts = Mapping[str, tuple[str, ...]]
# sRGB, 0 … 255. Each ink has a contrast (WCAG 2.1) of 3 or more with each background: inks of middle luminance, on dark and light
INKS = {"red": (235, 0, 0), "green": (0, 140, 0), "blue": (30, 100, 255), "magenta": (215, 0, 215), "grey": (125, 125, 125)}
BACKGROUNDS = {"white": (255, 255, 255), "black": (0, 0, 0), "yellow": (255, 255, 0), "navy": (0, 0, 128), "cyan": (0, 255, 255)}


# --- labels


def offsets(concepts: Concepts) -> Tensor:
    """The label of each concept's first value, [M] int64."""
    sizes = torch.tensor([0] + [len(values) for values in concepts.values()])
    return sizes.cumsum(0)[:-1]


def split_label(label: Tensor, concepts: Concepts) -> dict[str, Tensor]:
    """Labels [N, M] as {concept: numbers [N] of its own values, from 0}; −1 (none) stays −1.

    Raises InputError for another number of columns, and for a label that is no value of its column's concept.
    """
    if label.dim() != 2 or label.shape[1] != len(concepts) or label.is_floating_point() or label.dtype == torch.bool:
        given = f"{list(label.shape)} of {label.dtype}"
        raise InputError(f"labels must be integers [N, {len(concepts)}], one for each of {_listed(concepts)}, got {given}")
    own = {}
    for (concept, values), start, given in zip(concepts.items(), offsets(concepts).tolist(), label.long().unbind(1)):
        wrong = (given != -1) & ((given < start) | (given >= start + len(values)))
        if wrong.any():
            raise InputError(f"labels of {concept} are {start} … {start + len(values) - 1} (−1 for none), got {int(given[wrong][0])}")
        own[concept] = torch.where(given == -1, -1, given - start)
    return own


def join_label(values: Mapping[str, Tensor], concepts: Concepts) -> Tensor:
    """The inverse of `split_label`: {concept: numbers [N] from 0} to labels [N, M]; concepts that are not given are −1 (none).

    Raises InputError for an unknown concept, none at all, and numbers that are not in −1 … K−1.
    """
    unknown = next((name for name in values if name not in concepts), None)
    if unknown is not None or not values:
        given = f"'{unknown}'" if unknown is not None else "none"
        raise InputError(f"labels of concepts: got {given}, the concepts are {_listed(concepts)}")
    for name, numbers in values.items():
        low, high = int(numbers.min()), int(numbers.max())
        if low < -1 or high >= len(concepts[name]):
            raise InputError(f"numbers of {name} must be in 0 … {len(concepts[name]) - 1} (−1 for none), got {low} to {high}")
    none = torch.full_like(next(iter(values.values())), -1)
    own = torch.stack([values.get(name, none).long() for name in concepts], 1)
    return torch.where(own < 0, -1, own + offsets(concepts).to(own.device))


def asked_label(text: str, concepts: Concepts, n: int) -> Tensor:
    """`n` equal labels [n, M] from "digit=3,colour=red", values by name or by number from 0; what is not named is −1 (none).

    "all" goes through the values of the first concept in turn. Raises InputError for unknown concepts and values.
    """
    first = next(iter(concepts))
    if text == "all":
        return join_label({first: torch.arange(n) % len(concepts[first])}, concepts)
    found = {}
    for name, value in _pairs(text, concepts, "--label").items():
        names = concepts[name]
        if value not in names and not (value.isdecimal() and int(value) < len(names)):
            raise InputError(f"unknown value '{value}' of {name}{nearest(value, names)}. Values: {', '.join(names)}")
        found[name] = torch.full((n,), names.index(value) if value in names else int(value))
    return join_label(found, concepts)


def asked_guidance(text: str, concepts: Concepts, default: float) -> float | list[float]:
    """One guidance from "2", or one for each concept in their order from "digit=1,colour=-3"; `default`, the model's, for those not named.

    1 is p(x | y), 0 ignores the condition. Raises InputError for numbers that are not finite, and for unknown concepts.
    """
    named = _pairs(text, concepts, "--guidance") if concepts and "=" in text else {"": text}
    found = {}
    for name, value in named.items():
        try:
            found[name] = float(value)
        except ValueError:
            raise InputError(f"--guidance must be a number{', or CONCEPT=NUMBER' if concepts else ''}, got '{value}'") from None
        if not math.isfinite(found[name]):
            raise InputError(f"--guidance must be finite, got {value}")
    return found[""] if "" in found else [found.get(name, default) for name in concepts]


def _pairs(text: str, concepts: Concepts, option: str) -> dict[str, str]:
    """{concept: what stands behind its =} of CONCEPT=…,CONCEPT=…"""
    found: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = (word.strip() for word in part.partition("="))
        if not equals:
            raise InputError(f"{option} {text}: give CONCEPT=…, several by commas; the concepts are {_listed(concepts)}")
        if name not in concepts:
            raise InputError(f"unknown concept '{name}'{nearest(name, concepts)}. Concepts: {_listed(concepts)}")
        if name in found:
            raise InputError(f"{option} {text}: {name} is given twice")
        found[name] = value
    return found


def _listed(concepts: Concepts) -> str:
    return ", ".join(concepts)


# --- coloured sets


def heldout_pairs(first: str = "digit") -> dict[tuple[str, str], tuple[tuple[int, int], ...]]:
    """The pairs of values that the coloured sets never show in train, validation and test, by the numbers of the values from 0.

    A fifth of the pairs of (`first`, colour), ten, and of (colour, background), five: each value of the ten classes is without one
    colour, each colour without two classes and one background. `first` is digit, or class for coloured-fashion. A tenth of the
    pairs (left, right): no digit stands next to itself.
    """
    count = len(INKS)
    return {
        (first, "colour"): tuple((i, i % count) for i in range(10)), ("colour", "background"): tuple((i, i) for i in range(count)),
        ("left", "right"): tuple((i, i) for i in range(10)),
    }  # fmt: skip


def holds_heldout(label: Tensor, concepts: Concepts) -> Tensor:
    """Whether labels [N, 3] of a coloured set hold a held-out pair, [N] bool."""
    own = split_label(label, concepts)
    held = torch.zeros(len(label), dtype=torch.bool, device=label.device)
    for (one, other), pairs in heldout_pairs(next(iter(concepts))).items():
        for a, b in pairs if one in own and other in own else ():
            held |= (own[one] == a) & (own[other] == b)
    return held


def _labelled(base: Images) -> Images:
    if base.label is None or base.label.dim() != 1:
        found = "none" if base.label is None else _listed(base.concepts)
        raise InputError(f"colours and pairs need one label an image, {base.name} has {found}")
    return base


def coloured(
    source: Callable[..., Images],
    first: str,
    split: str = "train",
    *,
    copies: int = 1,
    ground: str | None = None,
    unseen: bool = False,
    size: Size | None = None,
    channels: int | None = None,
) -> Images:
    """A grey set in colour: x = a·ink + (1 − a)·background with the grey value a in [0, 1], as uint8 [3, H, W].

    Each image of `source` (split, size=, channels=) comes `copies` times, each time with another of the combinations of ink and
    background that its class may have, drawn evenly. Concepts: `first` (the classes of the source), colour, background; on one
    `ground`, a name in BACKGROUNDS, the first two.
    Combinations without held-out pairs, or with `unseen` (split test only) those with one. Raises InputError for other channels
    than 3, for another split of unseen combinations, and for a set without one label an image.
    """
    if channels not in (None, 3):
        raise InputError(f"coloured images have 3 channels, got channels={channels!r}")
    _check_unseen(unseen, split)
    base = _labelled(source(split, size=size, channels=1))
    concepts = {first: base.classes, "colour": tuple(INKS)} | ({} if ground else {"background": tuple(BACKGROUNDS)})
    every = torch.cartesian_prod(*(torch.arange(len(values)) for values in concepts.values()))
    held = holds_heldout(join_label(dict(zip(concepts, every.unbind(1))), concepts), concepts)
    allowed = (held if unseen else ~held).view(len(base.classes), -1)
    order = torch.rand(len(base), allowed.shape[1], generator=seeded(SPLITS.index(split), unseen))
    drawn = order.masked_fill(~allowed[base.label], -1).topk(copies).indices.flatten()
    row = torch.arange(len(base)).repeat_interleave(copies)
    colours, grounds = (drawn, list(BACKGROUNDS).index(ground)) if ground else (drawn // len(BACKGROUNDS), drawn % len(BACKGROUNDS))
    numbers = {first: base.label[row], "colour": colours} | ({} if ground else {"background": grounds})
    inks, backgrounds = (torch.tensor(list(palette.values()), dtype=torch.float32)[:, :, None, None] for palette in (INKS, BACKGROUNDS))
    parts = []
    for part in torch.arange(len(row)).split(4096):  # in floats the whole set would be four times its size
        a = (to_unit(base.x[row[part]]) + 1) / 2
        below = backgrounds[grounds] if ground else backgrounds[grounds[part]]
        parts.append((a * inks[colours[part]] + (1 - a) * below).round().to(torch.uint8))
    name = f"{'inked' if ground else 'coloured'}-{base.name}{'-unseen' if unseen else ''}"
    return Images(torch.cat(parts), join_label(numbers, concepts), concepts=concepts, name=name)


# --- pairs


def paired(
    source: Callable[..., Images],
    split: str = "train",
    *,
    copies: int = 5,
    unseen: bool = False,
    size: Size | None = None,
    channels: int | None = None,
) -> Images:
    """Two images of a set side by side, [C, H, 2W]; concepts left and right, whose values are the set's classes.

    `size` is that of one image of the square, or (height, width) of the pair.

    Each image of `source` (split, size=, channels=) stands on the left `copies` times, next to an image of the same split of another
    class, all other classes alike; with `unseen` (split test only) next to one of its own class. Raises InputError for another split
    of unseen pairs, and for a set without one label an image, with fewer than 2 classes, or with a class of no images.
    """
    _check_unseen(unseen, split)
    one = (size[0], size[1] // 2) if isinstance(size, tuple) else size
    base = _labelled(source(split, size=one, channels=channels))
    k = len(base.classes)
    if k < 2:
        raise InputError(f"pairs need 2 classes or more, {base.name} has {k}")
    by_class, count = base.label.argsort(stable=True), base.label.bincount(minlength=k)
    if not count.all():
        raise InputError(f"pairs need an image of every class, {base.name} has none of {base.classes[int(count.argmin())]}")
    left = torch.arange(len(base)).repeat_interleave(copies)
    g = seeded(SPLITS.index(split), unseen, 2)
    wanted = base.label[left] if unseen else (base.label[left] + torch.randint(1, k, (len(left),), generator=g)) % k
    within = (torch.rand(len(left), generator=g) * count[wanted]).long()
    right = by_class[(count.cumsum(0) - count)[wanted] + within]
    concepts = {"left": base.classes, "right": base.classes}
    label = join_label({"left": base.label[left], "right": wanted}, concepts)
    return Images(torch.cat([base.x[left], base.x[right]], 3), label, concepts=concepts, name=f"paired-{base.name}{'-unseen' * unseen}")


def _check_unseen(unseen: bool, split: str) -> None:
    if unseen and split in SPLITS and split != "test":
        raise InputError(f"unseen combinations are for testing only: their one split is test, got '{split}'")
