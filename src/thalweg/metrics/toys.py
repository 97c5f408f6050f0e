"""Of toys: the density against the truth."""

from dataclasses import asdict
from typing import Any

from thalweg import evaluate as ev
from thalweg import plot, random
from thalweg.metrics.base import Row, Subject, line


def density(s: Subject) -> dict[str, Any]:
    s.draw(
        "Density of the truth and of the model, with its samples", "density",
        lambda path: plot.density({"model": s.method.energy}, s.truth, path, samples=s.samples),
    )  # fmt: skip
    real = s.truth.sample(max(s.settings.n, 4096), generator=random.seeded(s.settings.seed + 1))
    found = {
        "density": asdict(ev.density(s.method.energy, s.truth)),
        "energy_distance": asdict(ev.energy_distance_interval(s.samples, real)),
    }
    return found | ({"mode_coverage": asdict(ev.mode_coverage(s.samples, s.truth))} if s.truth.modes is not None else {})


def density_rows(r: dict[str, Any]) -> list[Row]:
    d, e = r["density"], r["energy_distance"]
    made_up = "" if d["modes"] else "How much the model puts where the truth has little, in nats."
    table = [
        line(
            "KL(truth‖model)", d["kl_truth_model"], ".4f", note="nats, both normalised on a grid", better="down", floor="the truth 0",
            about="How much likelihood true points lose under the model's density, in nats. What the model leaves out costs most.",
        ),
        line("KL(model‖truth)", d["kl_model_truth"], ".4f", None, "nats", "down", "the truth 0", made_up),
        line(
            "total variation", d["total_variation"], ".4f", better="down", floor="the truth 0, nothing in common 1",
            about="The probability that the model puts in the wrong place.",
        ),
        line(
            "energy distance of samples", e["value"], ".4f", (e["low"], e["high"]), better="down", floor="draws of the truth 0",
            about="How far samples lie from draws of the truth. It tells of the sampler as well as of the energy.",
        ),
    ]  # fmt: skip
    if d["modes"]:
        table.append(
            line(
                "modes missing", d["modes_missing"], "d", note=f"of {d['modes']}", better="down", floor=f"0 of {d['modes']}",
                about="Bumps of the truth where the model has less than a quarter of their mass.",
            )
        )  # fmt: skip
    return table
