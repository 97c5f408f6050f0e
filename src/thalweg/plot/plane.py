"""Densities and energies of the plane."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from thalweg.errors import InputError
from thalweg.evaluate.density import Toy, grid_energy, grid_points, log_density
from thalweg.plot.style import COLOURS, figure_in, points_of

Energy = Callable[..., Tensor]


def density(
    energies: Energy | Sequence[Energy] | Mapping[str, Energy],
    toy: Toy,
    path: str | os.PathLike,
    *,
    samples: Tensor | Mapping[str, Tensor] | None = None,
    log: bool = False,
    cells: int = 200,
    extent: float | None = None,
) -> Path:
    """Draw a toy's true density next to those of models, normalised on the same grid and in the same colours, then samples [N, 2].

    energies: one, several, or {title: energy}; each (x [B, 2]) -> [B] nats. log: colours by log-density, down to 10 nats
    below the truth's peak. extent: half-width of the square, the toy's own when None.
    """
    extent = float(toy.extent if extent is None else extent)
    panels = {"truth": lambda x: -toy.log_prob(x), **_named(energies, "model")}
    maps = {name: log_density(energy, extent, cells)[0] for name, energy in panels.items()}
    dots = {} if samples is None else _named(samples, "samples")
    peak = float(maps["truth"].max())
    low, high = (peak - 10, peak) if log else (0.0, math.exp(peak))
    total = len(maps) + len(dots)
    with figure_in(path, 2.6 * total + 0.7, 3.0, layout="constrained") as figure:
        axes = figure.subplots(1, total, squeeze=False)[0]
        for axis, (name, value) in zip(axes, maps.items()):
            shown = value.clamp_min(low) if log else value.exp()
            picture = axis.imshow(shown.numpy(), origin="lower", extent=[-extent, extent] * 2, cmap="magma", vmin=low, vmax=high)
            _square(axis, name, extent)
        for axis, (name, points) in zip(axes[len(maps) :], dots.items()):
            x, y = points_of(points).unbind(-1)
            axis.set_facecolor("#f7f8fa")
            axis.scatter(x, y, s=max(0.3, min(6.0, 4000 / len(x))), c=COLOURS[0], alpha=0.5, linewidths=0)
            _square(axis, f"{name} ({len(x)})", extent)
        bar = figure.colorbar(picture, ax=list(axes), fraction=0.04, pad=0.01, aspect=24)
        bar.set_label("log-density (nats)" if log else "density", fontsize=8)
        bar.ax.tick_params(labelsize=8)
        bar.outline.set_visible(False)
    return Path(path)


def landscape(
    energy: Energy,
    path: str | os.PathLike,
    *,
    extent: float,
    chains: Tensor | None = None,
    depth: float = 12.0,
    cells: int = 200,
    title: str | None = None,
) -> Path:
    """Draw a 2-D energy as a relief map with contour lines, up to `depth` nats above its lowest point, and chains over it.

    energy: (x [B, 2]) -> [B] nats. chains [T, N, 2]: N paths of T steps; a ring marks where each starts and a dot its end.
    """
    value = grid_energy(energy, grid_points(extent, cells)).view(cells, cells)
    value = (value - value.min()).clamp_max(depth).numpy()
    with figure_in(path, 5.6, 4.8, layout="constrained") as figure:
        axis = figure.subplots()
        box = {"origin": "lower", "extent": [-extent, extent] * 2}
        picture = axis.imshow(value, cmap="YlGnBu_r", vmin=0, vmax=depth, interpolation="bilinear", **box)
        levels = [depth * k / 12 for k in range(1, 12)]
        if value.max() > levels[0]:
            axis.contour(value, levels=levels, colors="white", linewidths=0.5, alpha=0.6, **box)
        if chains is not None:
            if chains.dim() != 3 or chains.shape[2] != 2:
                raise InputError(f"chains: got shape {list(chains.shape)}, need [T, N, 2]")
            x, y = chains.detach().float().cpu().unbind(-1)
            axis.plot(x, y, color=COLOURS[1], linewidth=0.9, alpha=0.8)
            axis.scatter(x[0], y[0], s=18, facecolors="none", edgecolors=COLOURS[1], linewidths=0.9, zorder=3)
            axis.scatter(x[-1], y[-1], s=16, color=COLOURS[1], edgecolors="white", linewidths=0.6, zorder=4)
        _square(axis, title or "energy", extent)
        bar = figure.colorbar(picture, ax=axis, fraction=0.046, pad=0.02, extend="max")
        bar.set_label("nats above the lowest point")
        bar.outline.set_visible(False)
    return Path(path)


def _named(items, word: str) -> dict:
    if isinstance(items, Mapping):
        return dict(items)
    items = list(items) if isinstance(items, list | tuple) else [items]
    return {word if len(items) == 1 else f"{word} {i + 1}": item for i, item in enumerate(items)}


def _square(axis, title: str, extent: float) -> None:
    axis.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal", xticks=[], yticks=[])
    axis.set_title(title)
    axis.grid(False)
    axis.spines[:].set_visible(False)
