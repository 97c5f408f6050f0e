"""Of vectors: how samples compare with held-out rows, all standardised, so that every column counts alike."""

from dataclasses import asdict
from typing import Any

from torch import Tensor

from thalweg import evaluate as ev
from thalweg import random
from thalweg.data.base import Batch
from thalweg.metrics.base import Row, Subject, line
from thalweg.metrics.outliers import spread
from thalweg.units import standardised


def vectors(s: Subject) -> dict[str, Any]:
    """The energy distance of samples to held-out rows, with that of as many training rows beside it, and the held-out criterion."""
    model, units = standardised(s.method), s.method.units

    def encoded(x: Tensor) -> Tensor:
        return x if units is None else units.encode(x.to(s.device)).cpu()

    x, test = encoded(s.samples), encoded(s.test.x)
    held_out = Batch(test.to(s.device), None if s.test.label is None else s.test.label.to(s.device))
    return {
        "energy_distance": asdict(ev.energy_distance_interval(x, test)),
        "of_training_rows": float(ev.energy_distance(encoded(spread(s.train.x, len(x))), test)),
        "held_out": len(test),
        "criterion": model.criterion(held_out, random.seeded(s.settings.seed, 7, device=s.device)),
    }


def vectors_rows(r: dict[str, Any]) -> list[Row]:
    e = r["energy_distance"]
    note = f"standardised columns, {r['held_out']} held-out rows; training rows {r['of_training_rows']:.4f}"
    return [
        line(
            "energy distance of samples", e["value"], ".4f", (e["low"], e["high"]), note, "down",
            f"training rows {r['of_training_rows']:.4f}", "How far samples lie from held-out rows, all columns standardised.",
        ),
        line("held-out criterion", r["criterion"], ".4f", note="what the best state is chosen by", better="down"),
    ]  # fmt: skip
