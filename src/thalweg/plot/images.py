"""Grids of images."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from thalweg.errors import InputError
from thalweg.plot.style import DPI, PIXELS, figure_in


def grid(
    images: Tensor,
    path: str | os.PathLike,
    *,
    columns: int | None = None,
    row_labels: Sequence[str] | None = None,
    title: str | None = None,
    least: int = 32,
) -> Path:
    """Draw images [N, C, H, W] in [−1, 1], C = 1 or 3, row by row; each at least `least` pixels tall and wide, pixels kept square.

    columns: as near to square as may be when None. Values outside [−1, 1] are clipped; pixels that are not finite are
    drawn in magenta, so that a broken sample shows. Without labels and title the file holds the pixels and a 2-pixel rim, and says so.
    """
    import numpy as np

    if images.dim() != 4 or images.shape[1] not in (1, 3) or not images.is_floating_point() or min(images.shape) < 1:
        raise InputError(f"images: got {images.dtype} {list(images.shape)}, need floating-point [N, C, H, W] in [−1, 1] with C = 1 or 3")
    if columns is not None and columns < 1:
        raise InputError(f"columns: got {columns}, need 1 or more")
    columns = min(columns or math.ceil(math.sqrt(len(images))), len(images))
    rows = math.ceil(len(images) / columns)
    if row_labels is not None and len(row_labels) != rows:
        raise InputError(f"row_labels: got {len(row_labels)} for {rows} rows of {columns} images, need {rows}")
    scale = max(1, math.ceil(least / min(images.shape[2:])))
    canvas = np.asarray(_tile(images, columns, rows, scale))
    left = 0 if not row_labels else 16 + 8 * max(len(label) for label in row_labels)
    top = 0 if not title else 34
    height, width = canvas.shape[0] + top, max(canvas.shape[1] + left, 0 if not title else 9 * len(title) + 16)
    with figure_in(path, width / DPI, height / DPI, None if left or top else {PIXELS: str(scale)}) as figure:
        figure.figimage(canvas, xo=left, yo=0)
        if title:
            figure.text((left + 2) / width, 1 - top / 2 / height, title, va="center", fontsize=10)
        for row, label in enumerate(row_labels or ()):
            middle = top + 2 + (canvas.shape[0] - 2) / rows * (row + 0.5) - 1
            figure.text((left - 8) / width, 1 - middle / height, label, va="center", ha="right", fontsize=8)
    return Path(path)


def animation(frames: Tensor, path: str | os.PathLike, *, columns: int | None = None, seconds: float = 0.1, least: int = 128) -> Path:
    """Write frames [F, N, C, H, W] in [−1, 1] as an endless .gif of F pictures of `seconds` each, N images in each as `grid` lays them."""
    from PIL import Image

    path = Path(path)
    if path.suffix.lower() != ".gif":
        raise InputError(f"animation: got '{path}', need a file name that ends in .gif")
    if frames.dim() != 5 or frames.shape[2] not in (1, 3) or not frames.is_floating_point() or min(frames.shape) < 1:
        raise InputError(f"frames: got {frames.dtype} {list(frames.shape)}, need floating-point [F, N, C, H, W] with C = 1 or 3")
    n = frames.shape[1]
    columns = min(columns or math.ceil(math.sqrt(n)), n)
    scale = max(1, math.ceil(least / min(frames.shape[3:])))
    pictures = [Image.fromarray(_tile(frame, columns, math.ceil(n / columns), scale).numpy()) for frame in frames]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        pictures[0].save(partial, format="gif", save_all=True, append_images=pictures[1:], duration=round(1000 * seconds), loop=0)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def neighbours(samples: Tensor, train: Tensor, indices: Tensor, path: str | os.PathLike, *, title: str | None = None) -> Path:
    """Draw each sample of [N, C, H, W], a gap, and its nearest training images train[indices], [N, k], nearest first; one row a sample.

    indices: as `evaluate.nearest_neighbours` gives them. Images in [−1, 1], C = 1 or 3, the same shape in both.
    """
    if samples.dim() != 4 or samples.shape[1:] != train.shape[1:]:
        raise InputError(f"neighbours: got shapes {list(samples.shape)} and {list(train.shape)}, need [N, C, H, W] and [M, C, H, W]")
    if indices.dim() != 2 or len(indices) != len(samples) or int(indices.min()) < 0 or int(indices.max()) >= len(train):
        raise InputError(f"indices: got shape {list(indices.shape)}, need [{len(samples)}, k] of rows of {len(train)} training images")
    shown, gap = samples.detach().cpu()[:, None], torch.ones(len(samples), 1, *samples.shape[1:])
    rows = torch.cat([shown, gap.to(shown), train.detach().cpu()[indices.cpu()].to(shown)], 1)
    return grid(rows.flatten(0, 1), path, columns=rows.shape[1], title=title)


def _tile(images: Tensor, columns: int, rows: int, scale: int, rim: int = 2) -> Tensor:
    images = images.detach().float().cpu()
    broken = ~images.isfinite().all(1, keepdim=True).expand(-1, 3, -1, -1)
    colour = images.nan_to_num().clamp(-1, 1).add(1).mul(127.5).round().expand(-1, 3, -1, -1)
    colour = torch.where(broken, torch.tensor([255.0, 0.0, 255.0])[:, None, None], colour)
    colour = colour.repeat_interleave(scale, 2).repeat_interleave(scale, 3).byte().permute(0, 2, 3, 1)
    height, width = colour.shape[1:3]
    canvas = torch.full((rows * (height + rim) + rim, columns * (width + rim) + rim, 3), 255, dtype=torch.uint8)
    for i, image in enumerate(colour):
        y, x = i // columns * (height + rim) + rim, i % columns * (width + rim) + rim
        canvas[y : y + height, x : x + width] = image
    return canvas
