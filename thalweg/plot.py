"""Figures that all commands share; each function writes one PNG, whole or not at all, and returns its path."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from thalweg.errors import InputError, nearest
from thalweg.evaluate.density import Toy, grid_energy, grid_points, log_density

Energy = Callable[..., Tensor]

COLOURS = ("#2563eb", "#e2572b", "#0d9488", "#9333ea", "#b7791f", "#64748b")
INK, FAINT = "#1f2933", "#cbd2d9"
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#eef1f4",
    "xtick.color": "#616e7c",
    "ytick.color": "#616e7c",
    "legend.frameon": False,
}
DPI = 120


@contextmanager
def _figure(path: str | os.PathLike, width: float, height: float, **options):
    """A figure of width × height inches that is written to `path` when the block ends well. Never touches pyplot's state."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InputError(f"picture: got '{path}', need a file name that ends in .png")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", **options)
        FigureCanvasAgg(figure)
        yield figure
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            figure.savefig(partial, format="png")
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


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
    drawn in magenta, so that a broken sample shows. Without labels and title the file holds the pixels and a 2-pixel rim.
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
    canvas = np.asarray(_tile(images, columns, rows, max(1, math.ceil(least / min(images.shape[2:])))))
    left = 0 if not row_labels else 16 + 8 * max(len(label) for label in row_labels)
    top = 0 if not title else 34
    height, width = canvas.shape[0] + top, max(canvas.shape[1] + left, 0 if not title else 9 * len(title) + 16)
    with _figure(path, width / DPI, height / DPI) as figure:
        figure.figimage(canvas, xo=left, yo=0)
        if title:
            figure.text((left + 2) / width, 1 - top / 2 / height, title, va="center", fontsize=10)
        for row, label in enumerate(row_labels or ()):
            middle = top + 2 + (canvas.shape[0] - 2) / rows * (row + 0.5) - 1
            figure.text((left - 8) / width, 1 - middle / height, label, va="center", ha="right", fontsize=8)
    return Path(path)


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
    """Draw a toy's true density beside those of models, normalised on the same grid and in the same colours, then samples [N, 2].

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
    with _figure(path, 2.6 * total + 0.7, 3.0, layout="constrained") as figure:
        axes = figure.subplots(1, total, squeeze=False)[0]
        for axis, (name, value) in zip(axes, maps.items()):
            shown = value.clamp_min(low) if log else value.exp()
            picture = axis.imshow(shown.numpy(), origin="lower", extent=[-extent, extent] * 2, cmap="magma", vmin=low, vmax=high)
            _square(axis, name, extent)
        for axis, (name, points) in zip(axes[len(maps) :], dots.items()):
            x, y = _points(points).unbind(-1)
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
    with _figure(path, 5.6, 4.8, layout="constrained") as figure:
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


def curves(
    stats: Sequence[Mapping[str, float]],
    groups: Mapping[str, Sequence[str]] | Sequence[str],
    path: str | os.PathLike,
    *,
    x: str = "images",
    window: float = 0.03,
    title: str | None = None,
) -> Path:
    """Draw columns of a run's statistics against images seen: the raw values faint, their running mean on top.

    stats: one dictionary a line of stats.jsonl; a line without a key, or with None or NaN there, is left out of its curve.
    groups: {panel title: keys drawn together}, or keys with a panel each. window: share of the points that a mean spans.
    """
    panels = {title: list(keys) for title, keys in groups.items()} if isinstance(groups, Mapping) else {key: [key] for key in groups}
    known = {key for line in stats if x in line for key in line}
    for key in (key for keys in panels.values() for key in keys):
        if key not in known:
            raise InputError(f"curves: no '{key}' beside '{x}' in the statistics, there are {sorted(known) or 'none'}{nearest(key, known)}")
    if not panels:
        raise InputError("curves: no keys to draw, need one or more")
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    with _figure(path, 4.2 * columns, 2.9 * rows + (0.3 if title else 0), layout="constrained") as figure:
        if title:
            figure.suptitle(title, fontsize=12)
        axes = figure.subplots(rows, columns, squeeze=False).flatten()
        for axis, (name, keys) in zip(axes, panels.items()):
            for colour, key in zip(COLOURS * len(keys), keys):
                _curve(
                    axis, [(line[x], line[key]) for line in stats if _finite(line.get(x)) and _finite(line.get(key))], key, colour, window
                )
            axis.set_title(name)
            axis.set_xlabel("images seen" if x == "images" else x)
            axis.xaxis.set_major_formatter(_short)
            if keys != [name]:
                axis.legend(fontsize=8)
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
    return Path(path)


def _curve(axis, points: list[tuple[float, float]], label: str, colour: str, window: float) -> None:
    import numpy as np

    if not points:
        axis.plot([], [], color=colour, label=f"{label} (no finite value)")
        return
    x, y = np.array(sorted(points), dtype=float).T
    half = int(len(y) * window / 2)
    total = np.concatenate([[0.0], np.cumsum(y - y.mean())])
    index = np.arange(len(y))
    first, last = np.maximum(index - half, 0), np.minimum(index + half + 1, len(y))  # at the ends, as much as there is
    smooth = (total[last] - total[first]) / (last - first) + y.mean()
    if half:
        axis.plot(x, y, color=colour, alpha=0.22, linewidth=0.8)
    axis.plot(x, smooth, color=colour, linewidth=1.7, label=label, marker="o" if len(x) == 1 else None, markersize=4)


def histogram(
    scores: Mapping[str, Tensor], path: str | os.PathLike, *, bins: int = 60, label: str = "energy (nats)", title: str | None = None
) -> Path:
    """Draw the distribution of each named set of scores [N] over common bins; name the inliers first, they are filled.

    Each set has area 1. The range leaves out the outer 0.5 % of each set; what lies beyond is counted in the end bins.
    """
    import numpy as np

    values = {}
    for name, score in scores.items():
        score = torch.as_tensor(score).detach().double().cpu()
        if score.dim() != 1 or not len(score) or not score.isfinite().all():
            raise InputError(f"histogram: '{name}' has shape {list(score.shape)}, NaN or infinity; need [N] finite scores")
        values[name] = score.numpy()
    if not values:
        raise InputError("histogram: no scores, need one set or more")
    low = min(np.percentile(v, 0.5) for v in values.values())
    high = max(np.percentile(v, 99.5) for v in values.values())
    if high <= low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, bins + 1)
    with _figure(path, 6.4, 3.4, layout="constrained") as figure:
        axis = figure.subplots()
        for i, (name, value) in enumerate(values.items()):
            colour, text = COLOURS[i % len(COLOURS)], f"{name} ({len(value)})"
            axis.hist(value.clip(low, high), edges, density=True, color=colour, alpha=0.28 if i == 0 else 0.12, linewidth=0)
            axis.hist(value.clip(low, high), edges, density=True, color=colour, histtype="step", linewidth=1.5, label=text)
        axis.set_xlabel(label)
        axis.set_ylabel("density")
        axis.set_title(title or "")
        axis.legend(fontsize=9)
    return Path(path)


def _named(items, word: str) -> dict:
    if isinstance(items, Mapping):
        return dict(items)
    items = list(items) if isinstance(items, list | tuple) else [items]
    return {word if len(items) == 1 else f"{word} {i + 1}": item for i, item in enumerate(items)}


def _points(samples: Tensor) -> Tensor:
    if samples.dim() != 2 or samples.shape[1] != 2 or not len(samples):
        raise InputError(f"samples: got shape {list(samples.shape)}, need [N, 2]")
    return samples.detach().float().cpu()


def _square(axis, title: str, extent: float) -> None:
    axis.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal", xticks=[], yticks=[])
    axis.set_title(title)
    axis.grid(False)
    axis.spines[:].set_visible(False)


def _finite(value) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _short(value: float, _position=None) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
