"""Of energies: log-likelihood, exact or between bounds."""

import warnings
from dataclasses import asdict
from typing import Any

from thalweg import evaluate as ev
from thalweg import random
from thalweg.data.toy import TOYS
from thalweg.methods.base import has
from thalweg.metrics.base import Row, Subject, line


def likelihood(s: Subject) -> dict[str, Any]:
    if s.config.data in TOYS:
        train, test = (s.truth.sample(4096, generator=random.seeded(s.settings.seed, part)) for part in (5, 6))
        bin_width = None
    else:
        train, test, bin_width = s.train.x, s.test.x, 2 / 255
    if has(s.method, "normalised"):  # nothing is to be bounded
        if s.method.bin_width is not None:
            noise = random.uniform(*test.shape, generator=random.seeded(s.settings.seed, 12))
            test, bin_width = s.method.dequantise(test, noise), s.method.bin_width
        return {"log_likelihood": asdict(ev.log_likelihood(s.method.energy, test, s.method.log_z, bin_width=bin_width, device=s.device))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the row says that the bound is loose
        partition = ev.log_partition(
            s.method.energy,
            ev.fitted_base(train),
            samples=s.samples[:64],
            chains=64,
            temperatures=300,
            seed=s.settings.seed,
            device=s.device,
        )
    found = ev.log_likelihood(s.method.energy, test, partition, bin_width=bin_width, device=s.device)
    return {"log_partition": asdict(partition), "log_likelihood": asdict(found)}


def likelihood_rows(r: dict[str, Any]) -> list[Row]:
    z, q = r.get("log_partition"), r["log_likelihood"]
    if z is None:
        v, note = q["value"], f"nats, exact; {q['bits_per_dimension']:.3f} bits a dimension"
        return [line("log-likelihood of held-out data", v["value"], ".2f", (v["low"], v["high"]), note, "up")]
    loose = "LOOSE, do not trust; " if z["loose"] else ""
    # between bounds the upper of which holds only as far as the model's samples are draws of its density
    note = f"nats; {loose}log Z from {z['lower']['value']:.2f} to {z['upper']['value']:.2f}; {q['bits_per_dimension']:.3f} bits a dimension"
    value = q["value"]["value"]
    interval = min(value, q["lower"]["low"]), max(value, q["upper"]["high"])
    return [line("log-likelihood of held-out data", value, ".2f", interval, note, "" if z["loose"] else "up")]
