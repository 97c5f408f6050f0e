"""Curves, histograms and diagrams of figures."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from thalweg.errors import InputError, nearest
from thalweg.evaluate.accuracy import wilson
from thalweg.evaluate.calibration import Calibration
from thalweg.evaluate.robustness import RobustnessReport
from thalweg.plot.style import COLOURS, MANY_COLOURS, figure_in, finite, points_of, short


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
            raise InputError(f"curves: no '{key}' with '{x}' in the statistics, there are {sorted(known) or 'none'}{nearest(key, known)}")
    if not panels:
        raise InputError("curves: no keys to draw, need one or more")
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    with figure_in(path, 4.2 * columns, 2.9 * rows + (0.3 if title else 0), layout="constrained") as figure:
        if title:
            figure.suptitle(title, fontsize=12)
        axes = figure.subplots(rows, columns, squeeze=False).flatten()
        for axis, (name, keys) in zip(axes, panels.items()):
            for colour, key in zip(COLOURS * len(keys), keys):
                _curve(axis, [(line[x], line[key]) for line in stats if finite(line.get(x)) and finite(line.get(key))], key, colour, window)
            axis.set_title(name)
            axis.set_xlabel("images seen" if x == "images" else x)
            axis.xaxis.set_major_formatter(short)
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
    with figure_in(path, 6.4, 3.4, layout="constrained") as figure:
        axis = figure.subplots()
        for i, (name, value) in enumerate(values.items()):
            colour, text = COLOURS[i % len(COLOURS)], f"{name} ({len(value)})"
            axis.hist(value.clip(low, high), edges, density=True, color=colour, alpha=0.28 if i == 0 else 0.12, linewidth=0)
            axis.hist(value.clip(low, high), edges, density=True, color=colour, histtype="step", linewidth=1.5, label=text)
        axis.set_xlabel(label)
        axis.set_ylabel("density")
        axis.set_title(title or "")
        axis.legend(fontsize=9, loc="upper right")  # to look for the best place takes seconds where there is much to avoid
    return Path(path)


def strip(
    scores: Mapping[str, Tensor], path: str | os.PathLike, *, label: str = "energy (nats)", log: bool = False, title: str | None = None
) -> Path:
    """Draw each named set of scores [N] as a row of dots, for sets too small for a histogram.

    The first one, the inliers, has a colour of its own. `log`: on a logarithmic axis, for scores above 0.
    """
    values = {name: torch.as_tensor(score).detach().double().cpu() for name, score in scores.items()}
    for name, value in values.items():
        if value.dim() != 1 or not len(value) or not value.isfinite().all() or (log and value.min() <= 0):
            raise InputError(f"strip: '{name}' has shape {list(value.shape)}; need [N] finite scores{' above 0' if log else ''}")
    if not values:
        raise InputError("strip: no scores, need one set or more")
    with figure_in(path, 6.4, 0.9 + 0.34 * len(values), layout="constrained") as figure:
        axis = figure.subplots()
        for row, value in enumerate(values.values()):
            axis.plot(value.numpy(), [row] * len(value), "o", color=COLOURS[min(row, 1)], alpha=0.55, markersize=7, markeredgewidth=0)
        axis.set_xscale("log" if log else "linear")
        axis.set_yticks(range(len(values)), list(values))
        axis.set_ylim(len(values) - 0.5, -0.5)
        axis.tick_params(axis="y", length=0)
        axis.set_xlabel(label)
        axis.set_title(title or "")
    return Path(path)


def embedding(
    points: Tensor, path: str | os.PathLike, *, labels: Tensor | None = None, classes: Sequence[str] = (), title: str | None = None
) -> Path:
    """Draw points [N, 2], such as latents laid out by t-SNE, coloured by their labels [N] in 0 … K−1; the axes have no scale.

    classes: K names, the numbers by default. Up to ten classes are named in a legend, more are told by a bar of colours.
    """
    x, y = points_of(points).unbind(-1)
    if not points.isfinite().all():
        raise InputError("points: NaN or infinity, need finite points")
    if labels is not None and (labels.shape != x.shape or labels.is_floating_point() or int(labels.min()) < 0):
        raise InputError(f"labels: got {labels.dtype} {list(labels.shape)}, need whole numbers from 0, [{len(x)}]")
    kinds = 1 if labels is None else int(labels.max()) + 1
    if classes and len(classes) < kinds:
        raise InputError(f"classes: got {len(classes)} names, need {kinds}, one a label")
    dots = {"s": max(1.0, min(14.0, 12000 / len(x))), "alpha": 0.75, "linewidths": 0}
    with figure_in(path, 6.4, 5.2, layout="constrained") as figure:
        axis = figure.subplots()
        if labels is None:
            axis.scatter(x, y, color=COLOURS[0], **dots)
        elif kinds <= len(MANY_COLOURS):
            for kind in labels.unique().tolist():
                rows = labels.cpu() == kind
                axis.scatter(x[rows], y[rows], color=MANY_COLOURS[kind], label=classes[kind] if classes else str(kind), **dots)
            marks = axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9, handletextpad=0.2).legend_handles
            for mark in marks:
                mark.set(sizes=[36], alpha=1)
        else:
            picture = axis.scatter(x, y, c=labels.cpu(), cmap="turbo", **dots)
            bar = figure.colorbar(picture, ax=axis, fraction=0.04, pad=0.02)
            bar.set_label("label")
            bar.outline.set_visible(False)
        axis.set(xticks=[], yticks=[], aspect="equal", title=title or "")
        axis.set_facecolor("#f7f8fa")
        axis.grid(False)
        axis.spines[:].set_visible(False)
    return Path(path)


def reliability(reports: Calibration | Mapping[str, Calibration], path: str | os.PathLike) -> Path:
    """Draw the reliability diagram of one classifier, or of several by name: accuracy against confidence, and how many have which.

    Bars are each bin's accuracy, dots with 95 % intervals stand at its mean confidence; on the dashed diagonal the two agree.
    """
    named = _reports(reports, Calibration, "reliability", "")
    with figure_in(path, max(4.6, 3.6 * len(named)), 4.4, layout="constrained") as figure:
        axes = figure.subplots(2, len(named), squeeze=False, sharex=True, height_ratios=[3, 1])
        for (upper, lower), (name, report) in zip(axes.T, named.items()):
            edges, width = report.edges, report.edges[1] - report.edges[0]
            full = [b for b, count in enumerate(report.counts) if count]
            shares = [wilson(round(report.accuracies[b] * report.counts[b]), report.counts[b]) for b in full]
            middles, values = [edges[b] + width / 2 for b in full], [share.value for share in shares]
            errors = [[max(0.0, s.value - s.low) for s in shares], [max(0.0, s.high - s.value) for s in shares]]
            upper.bar(middles, values, 0.92 * width, color=COLOURS[0], alpha=0.25)
            dots = dict(fmt="o", markersize=4, elinewidth=1.2, capsize=2, clip_on=False)
            upper.errorbar([report.confidences[b] for b in full], values, errors, color=COLOURS[0], **dots)
            upper.plot([0, 1], [0, 1], "--", color=COLOURS[5], linewidth=1)
            upper.set(xlim=(0, 1), ylim=(0, 1.02))
            upper.set_ylabel("accuracy")
            upper.set_title(f"{name}{': ' if name else ''}ECE {report.ece:.3f}, floor {report.ece_floor:.3f}")
            lower.bar(middles, [report.counts[b] for b in full], 0.92 * width, color=COLOURS[5], alpha=0.6)
            lower.set_ylabel("examples")
            lower.set_xlabel(f"confidence (n = {report.n})")
            lower.yaxis.set_major_formatter(short)
    return Path(path)


def robustness(reports: RobustnessReport | Mapping[str, RobustnessReport], path: str | os.PathLike, *, title: str | None = None) -> Path:
    """Draw accuracy against the size ε of L∞ perturbations, in 1/255, of one classifier or of several by name, each in its colour.

    Solid with a 95 % band: PGD; dash-dotted: Auto-PGD, where there is one; dashed: FGSM; dotted: noise. A classifier that fails a check for
    masked gradients is marked.
    """
    named = _reports(reports, RobustnessReport, "robustness", "classifier")
    with figure_in(path, 6.4, 4.0, layout="constrained") as figure:
        axis = figure.subplots()
        for i, (name, report) in enumerate(named.items()):
            colour, x = COLOURS[i % len(COLOURS)], [0.0, *(255 * epsilon for epsilon in report.epsilons)]
            label = name if report.checks.passed else f"{name} (fails a check)"
            for kind, text, line in (("pgd", "PGD", "-"), ("auto", "Auto-PGD", "-."), ("fgsm", "FGSM", "--"), ("noise", "noise", ":")):
                if not getattr(report, kind):
                    continue
                points = [report.clean, *getattr(report, kind)]
                axis.plot(x, [p.value for p in points], line, color=colour, linewidth=1.7, label=f"{label}, {text}")
                if kind == "pgd":
                    axis.fill_between(x, [p.low for p in points], [p.high for p in points], color=colour, alpha=0.15, linewidth=0)
        axis.set_xscale("symlog", base=2, linthresh=1, linscale=0.5)
        ticks = sorted({round(255 * e, 6) for report in named.values() for e in report.epsilons})
        axis.set_xticks([0, *ticks], [f"{t:.3g}" for t in [0, *ticks]])
        axis.minorticks_off()
        axis.set(xlim=(0, None), ylim=(0, 1.02))
        axis.set_xlabel("ε, in 1/255 of the range of a pixel")
        axis.set_ylabel("accuracy")
        axis.set_title(title or "")
        axis.legend(fontsize=8)
    return Path(path)


def _reports(reports, kind: type, what: str, name: str) -> dict:
    named = {name: reports} if isinstance(reports, kind) else dict(reports) if isinstance(reports, Mapping) else {}
    if not named or not all(isinstance(report, kind) for report in named.values()):
        raise InputError(f"{what}: got {type(reports).__name__}, need one {kind.__name__} or more by name")
    return named


def comparison(lines: Mapping[str, Sequence], models: Sequence[str], path: str | os.PathLike, *, columns: int = 3) -> Path:
    """Draw one small panel a measure with a row a model: its value as a dot, its 95 % interval as a line.

    lines: measure -> for each model (value, low, high), low and high None without an interval, or None where the model lacks it.
    """
    for name, line in lines.items():
        if len(line) != len(models):
            raise InputError(f"comparison: '{name}' has {len(line)} values for {len(models)} models")
    if not lines or not models:
        raise InputError("comparison: nothing to draw, need one measure and one model or more")
    rows = math.ceil(len(lines) / columns)
    with figure_in(path, 4.6 * columns, rows * (0.75 + 0.24 * len(models)), layout="constrained") as figure:
        axes = figure.subplots(rows, columns, squeeze=False).flatten()
        for i, (axis, (name, line)) in enumerate(zip(axes, lines.items())):
            for row, point in enumerate(line):
                if point is None:
                    continue
                value, low, high = point
                colour = COLOURS[row % len(COLOURS)]
                if low is not None:
                    axis.plot([low, high], [row, row], color=colour, linewidth=2, alpha=0.5, solid_capstyle="round")
                axis.scatter([value], [row], s=26, color=colour, zorder=3)
            axis.set_title(name, fontsize=9)
            axis.set(ylim=(len(models) - 0.5, -0.5))
            axis.set_yticks(range(len(models)), models if i % columns == 0 else [""] * len(models), fontsize=8)
            axis.tick_params(axis="x", labelsize=8)
            axis.margins(x=0.12)
        for axis in axes[len(lines) :]:
            axis.set_visible(False)
    return Path(path)


def over_time(lines: Mapping[str, Sequence[tuple]], path: str | os.PathLike, *, y: str = "value", x: str = "CPU seconds") -> Path:
    """Draw how a figure of several models went over time, both axes logarithmic where all values are above 0.

    lines: name of a model -> its (time, value) or (time, value, low, high), whose interval is a band, None without one; those that are not
    finite are left out. Raises InputError where nothing is left.
    """
    points = {name: [(t, v) for t, v, *_ in line if finite(t) and finite(v)] for name, line in lines.items()}
    bands = {name: [(one[0], *one[2:]) for one in line if len(one) == 4 and all(map(finite, one))] for name, line in lines.items()}
    values = [pair for line in points.values() for pair in line]
    if not values:
        raise InputError("over_time: nothing to draw, need one finite value or more")
    with figure_in(path, 7.5, 4.2, layout="constrained") as figure:
        axis = figure.subplots()
        least = min(v for _, v in values)
        for i, (name, line) in enumerate((name, line) for name, line in points.items() if line):
            colour = MANY_COLOURS[i % len(MANY_COLOURS)]
            axis.plot(*zip(*sorted(line)), color=colour, marker="o", markersize=4, linewidth=1.6, label=name)
            if bands[name]:
                times, low, high = zip(*sorted(bands[name]))
                low = [max(one, least / 2) for one in low] if least > 0 else low  # an axis of powers of ten has no 0
                axis.fill_between(times, low, high, color=colour, alpha=0.15, linewidth=0)
        if min(min(pair) for pair in values) > 0:
            axis.set(xscale="log", yscale="log")
            for side in (axis.xaxis, axis.yaxis):
                side.set_major_formatter(short)
                side.set_minor_formatter(short if _decades(side.get_view_interval()) < 1.3 else lambda value, position: "")
            axis.tick_params(which="minor", labelsize=8)
        axis.set(xlabel=x, ylabel=y)
        axis.legend(fontsize=8)
    return Path(path)


def _decades(interval: Sequence[float]) -> float:
    """How many powers of ten an axis spans."""
    return math.log10(interval[1] / interval[0])
