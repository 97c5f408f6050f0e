"""What samples cost."""

from dataclasses import asdict
from typing import Any

from thalweg import evaluate as ev
from thalweg.metrics.base import Row, Subject, line
from thalweg.units import standardised


def cost(s: Subject) -> dict[str, Any]:
    n, seed = min(64, s.settings.n), s.settings.seed
    return asdict(ev.cost(standardised(s.method), n, seed=seed, **s.method.starts(n, seed)))


def cost_rows(r: dict[str, Any]) -> list[Row]:
    where = f"{r['device']}, {r['threads']} threads, batches of {r['n']}"
    return [
        line(
            "network evaluations a sample", r["evaluations"], ".0f", note=f"{r['gradients']:.0f} with gradient", better="down",
            floor="one at least", about="How often the network is asked for one sample: what samples cost on any machine.",
        ),
        line("seconds a sample", r["seconds"], ".3g", note=where, better="down"),
        line("memory a sample, MiB", r["memory"] / 2**20, ".3g", note=r["memory_source"], better="down"),
        line("parameters", r["parameters"], ",d"),
    ]  # fmt: skip
