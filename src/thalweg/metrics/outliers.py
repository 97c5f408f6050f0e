"""Of energies: which outliers they tell from held-out images."""

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from thalweg import data, plot
from thalweg import evaluate as ev
from thalweg.data.prepare import everything, image_size
from thalweg.metrics.base import Row, Subject, line

OUTLIERS = ("uniform", "constant", "noise", "interpolation", "shuffled")


def ood(s: Subject) -> dict[str, Any]:
    inliers = spread(s.test.x, s.settings.ood_images)
    outliers = {kind: ev.outliers(kind, inliers, len(inliers), s.settings.seed) for kind in OUTLIERS}
    for name in s.settings.outliers:
        other = data.load(name, "test", size=image_size(s.config.shape), channels=s.config.shape[0])
        outliers[name] = spread(everything(other).x, s.settings.ood_images)
    reports, values = ev.ood_table(s.method, inliers, outliers, reference=s.train.x, seed=s.settings.seed)
    for score, by_kind in values.items():
        label = "energy (nats)" if score == "energy" else score
        caption = f"Outlier score '{score}' of held-out images and of outliers"
        s.draw(caption, f"ood_{score}", lambda path, v=by_kind, label=label: plot.histogram(v, path, label=label))
    return {
        score: {kind: asdict(r) for kind, r in by_kind.items()} | {"mean_auroc": sum(r.auroc for r in by_kind.values()) / len(by_kind)}
        for score, by_kind in reports.items()
    }


def spread(x: Tensor, most: int) -> Tensor:
    """At most so many of x, evenly spaced, because data may be sorted by label."""
    return x if len(x) <= most else x[torch.arange(most) * len(x) // most]


def ood_rows(r: dict[str, Any]) -> list[Row]:
    """A row a kind for the energy, and the mean of each score; metrics.json has all of them with their intervals."""
    table, named = [], "what is no such image"
    first = "levels" if "levels" in r else "energy"  # that of all levels, where there is one
    for score, found in r.items():
        kinds = {kind: o for kind, o in found.items() if kind != "mean_auroc"}
        if score == "energy":
            for kind, o in kinds.items():
                table.append(
                    line(f"OOD AUROC against {kind}", o["auroc"], ".4f", o["auroc_interval"], f"by energy; FPR@95 {o['fpr95']:.3f}", "up")
                )
        note = ", ".join(f"{kind} {o['auroc']:.3f}" for kind, o in kinds.items())
        about = f"How often {named} has a higher score than a held-out image, averaged over kinds of outliers." if score == first else ""
        table.append(line(f"mean OOD AUROC by {score}", found["mean_auroc"], ".4f", None, note, "up", "chance 0.5", about))
    return table
