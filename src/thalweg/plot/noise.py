"""Energies around an image: along the amount of noise on it, and over the plane of two noises (EGC, Figure 6)."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from thalweg.errors import InputError
from thalweg.plot.plane import landscape
from thalweg.plot.style import COLOURS, figure_in


def along_noise(
    energies: Mapping[str, Tensor],
    amounts: Tensor,
    path: str | os.PathLike,
    *,
    label: str = "noise, in its standard deviation at the level",
    reference: Mapping[str, Tensor] | None = None,
    title: str | None = None,
) -> Path:
    """Draw energies against the amount of noise, each curve in nats above its own lowest point.

    energies: {name: [L, N]} nats of N images at L amounts [L] of noise; the line is the median image, the band the middle
    80 %. reference: {name: [L]} drawn dashed in the same colour, such as what a Gaussian would have. Raises InputError for
    other shapes and for values that are not finite.
    """
    if not energies or amounts.dim() != 1 or len(amounts) < 2 or not amounts.isfinite().all():
        raise InputError(
            f"along_noise: got {len(energies)} curves and amounts of shape {list(amounts.shape)}, need one or more and [L], L ≥ 2"
        )
    if set(reference or {}) - set(energies):
        raise InputError(f"along_noise: reference names {sorted(set(reference) - set(energies))}, the curves are {sorted(energies)}")
    for name, value in [*energies.items(), *((name, line[:, None]) for name, line in (reference or {}).items())]:
        if value.dim() != 2 or len(value) != len(amounts) or not value.shape[1] or not value.isfinite().all():
            raise InputError(f"along_noise: '{name}' has shape {list(value.shape)} or is not finite, need [{len(amounts)}, N] of nats")
    x = amounts.detach().cpu()
    with figure_in(path, 5.6, 3.6, layout="constrained") as figure:
        axis = figure.subplots()
        for i, (name, value) in enumerate(energies.items()):
            colour, value = COLOURS[i % len(COLOURS)], value.detach().double().cpu()
            above = value - value.min(0).values
            low, middle, high = torch.quantile(above, torch.tensor([0.1, 0.5, 0.9], dtype=above.dtype), dim=1)
            axis.plot(x, middle, color=colour, linewidth=1.7, label=f"{name} ({value.shape[1]})")
            axis.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
            if name in (reference or {}):
                line = reference[name].detach().double().cpu()
                axis.plot(x, line - line.min(), "--", color=colour, linewidth=1.1)
        axis.set_xlabel(label)
        axis.set_ylabel("nats above the lowest point")
        axis.set_title(title or "")
        axis.legend(fontsize=8)
    return Path(path)


def noise_plane(
    energy: Callable[[Tensor], Tensor],
    image: Tensor,
    first: Tensor,
    second: Tensor,
    path: str | os.PathLike,
    *,
    extent: float = 3.0,
    depth: float = 12.0,
    cells: int = 60,
    title: str | None = None,
) -> Path:
    """Draw the energy of image + u·first + v·second for u, v in ±`extent` as a relief map, up to `depth` nats above its lowest point.

    image, `first`, `second`: [C, H, W] or [D]; energy: (x [B, ...]) -> [B] nats. The two noises are made orthogonal, the second
    keeping its length. Raises InputError for other shapes, and for noises that are zero or parallel.
    """
    if not image.shape == first.shape == second.shape or not image.dim():
        raise InputError(f"noise_plane: got shapes {list(image.shape)}, {list(first.shape)} and {list(second.shape)}, need three the same")
    length, other = first.norm(), second.norm()
    across = second - first * (first * second).sum() / length.square()
    if not length > 0 or not across.norm() > 1e-3 * other or not image.isfinite().all():
        raise InputError("noise_plane: the image must be finite, and its two noises neither zero nor parallel")
    across = across * other / across.norm()

    def on_plane(point: Tensor) -> Tensor:
        u, v = (point[:, k].view(-1, *[1] * image.dim()).to(image) for k in (0, 1))
        return energy(image + u * first + v * across)

    return landscape(on_plane, path, extent=extent, depth=depth, cells=cells, title=title)
