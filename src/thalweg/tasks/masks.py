"""Masks of what is known in an image: bool [H, W], true where known, the same for all images and channels.

`shape` is [H, W] or [C, H, W] everywhere; `share` in (0, 1) is the missing part, and round(share·H·W) pixels are missing.
"""

import math
from collections.abc import Callable, Iterator
from numbers import Integral

import torch
from torch import Tensor

from thalweg import random
from thalweg.errors import InputError, nearest

SIDES = ("left", "right", "top", "bottom")


def centre_square(shape: tuple[int, ...], share: float = 0.25) -> Tensor:
    """All but a square in the middle: a block as wide as the square, filled row by row; H·W·share = 16 is 4 × 4."""
    height, width, missing = _sizes(shape, share)
    rows, columns = _block(height, width, missing)
    return _without_block(height, width, missing, (height - rows) // 2, (width - columns) // 2)


def random_square(shape: tuple[int, ...], share: float = 0.25, seed: int = 0) -> Tensor:
    """As `centre_square`, at a random place."""
    height, width, missing = _sizes(shape, share)
    rows, columns = _block(height, width, missing)
    generator = random.seeded(seed, 7)
    top, left = (int(random.integers(1, 0, free + 1, generator=generator)) for free in (height - rows, width - columns))
    return _without_block(height, width, missing, top, left)


def half(shape: tuple[int, ...], side: str = "left") -> Tensor:
    """All but the half at `side`: left, right, top or bottom; of an odd number of rows or columns the middle one is known."""
    if side not in SIDES:
        raise InputError(f"half: unknown side '{side}'{nearest(str(side), SIDES)}, need one of {', '.join(SIDES)}")
    height, width, _ = _sizes(shape, 0.5)
    known = torch.ones(height, width, dtype=torch.bool)
    axis, size = (1, width) if side in ("left", "right") else (0, height)
    known.narrow(axis, 0 if side in ("left", "top") else size - size // 2, size // 2).fill_(False)
    return known


def irregular(shape: tuple[int, ...], share: float = 0.25, seed: int = 0) -> Tensor:
    """All but random brush strokes, drawn until the missing pixels are as many as `share` says."""
    height, width, missing = _sizes(shape, share)
    known = torch.ones(height, width, dtype=torch.bool)
    left = missing
    for row, column in _strokes(height, width, random.seeded(seed, 8)):
        if known[row, column]:
            known[row, column] = False
            left -= 1
        if not left:
            return known
    raise AssertionError("strokes do not end")


def named(text: str, shape: tuple[int, ...], *, seed: int = 0) -> Tensor:
    """The mask that `text` names: centre:0.25, random:0.25, irregular:0.3 (missing share) or half:left; `seed` where it is random."""
    kind, _, value = text.partition(":")
    made: dict[str, Callable[[], Tensor]] = {
        "centre": lambda: centre_square(shape, float(value)),
        "random": lambda: random_square(shape, float(value), seed),
        "irregular": lambda: irregular(shape, float(value), seed),
        "half": lambda: half(shape, value),
    }
    if kind not in made:
        raise InputError(f"unknown mask '{text}'{nearest(kind, made)}. Masks: centre:0.25, random:0.25, irregular:0.3, half:left")
    try:
        return made[kind]()
    except InputError:
        raise
    except ValueError:
        raise InputError(f"mask '{text}': {value!r} is not a share, for example {kind}:0.25") from None


def _sizes(shape: tuple[int, ...], share: float) -> tuple[int, int, int]:
    """Height, width and the number of missing pixels, at least 1 of each kind."""
    if len(shape) not in (2, 3) or any(not isinstance(side, Integral) or side < 1 for side in shape) or math.prod(shape[-2:]) < 2:
        raise InputError(f"mask: got shape {list(shape)}, need [H, W] or [C, H, W] of 2 pixels or more")
    if not 0 < share < 1:
        raise InputError(f"mask: the missing share must be between 0 and 1, got {share}")
    height, width = shape[-2:]
    return height, width, min(max(1, round(share * height * width)), height * width - 1)


def _block(height: int, width: int, count: int) -> tuple[int, int]:
    """Rows and columns of the block, as square as may be, that `count` pixels fill."""
    columns = min(width, math.ceil(math.sqrt(count)))
    columns = max(columns, math.ceil(count / height))
    return math.ceil(count / columns), columns


def _without_block(height: int, width: int, count: int, top: int, left: int) -> Tensor:
    rows, columns = _block(height, width, count)
    known = torch.ones(height, width, dtype=torch.bool)
    known[top : top + rows, left : left + columns] = (torch.arange(rows * columns) >= count).view(rows, columns)
    return known


def _strokes(height: int, width: int, generator: torch.Generator) -> Iterator[tuple[int, int]]:
    """Pixels under one brush stroke after another, without end: each starts anywhere and turns a little at every step."""
    radius = max(height, width) / 24
    reach = math.ceil(radius)
    around = [(i, j) for i in range(-reach, reach + 1) for j in range(-reach, reach + 1) if math.hypot(i, j) <= max(radius, 0.5)]
    while True:
        place = torch.rand(3, generator=generator).tolist()
        row, column, angle = place[0] * height, place[1] * width, 2 * math.pi * place[2]
        for turn in (torch.rand(max(height, width) // 2 + 1, generator=generator) - 0.5).tolist():
            for i, j in around:
                at = (math.floor(row) + i, math.floor(column) + j)
                if 0 <= at[0] < height and 0 <= at[1] < width:
                    yield at
            angle += turn
            row, column = row + math.sin(angle), column + math.cos(angle)
