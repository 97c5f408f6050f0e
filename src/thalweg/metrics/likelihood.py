"""Of energies: log-likelihood, exact or between bounds."""

import warnings
from dataclasses import asdict
from typing import Any

from thalweg import evaluate as ev
from thalweg import random
from thalweg.data.toy import TOYS
from thalweg.methods.base import has
from thalweg.metrics.base import Row, Subject, line
from thalweg.units import standardised


def likelihood(s: Subject) -> dict[str, Any]:
    if s.source in TOYS:
        train, test = (s.truth.sample(4096, generator=random.seeded(s.settings.seed, part)) for part in (5, 6))
        bin_width = None
    else:
        train, test, bin_width = s.train.x, s.test.x, 2 / 255 if len(s.config.shape) == 3 else None
    model, units, samples = standardised(s.method), s.method.units, s.samples[:64]
    more = {}
    if units is not None:  # where chains move at one scale in every column
        train, test, samples = (units.encode(x.to(s.device)).cpu() for x in (train, test, samples))
        more = {"log_volume": float(units.log_volume)}
    if has(model, "normalised"):  # nothing is to be bounded
        if model.bin_width is not None:
            noise = random.uniform(*test.shape, generator=random.seeded(s.settings.seed, 12))
            test, bin_width = model.dequantise(test, noise), model.bin_width
        return {"log_likelihood": asdict(ev.log_likelihood(model.energy, test, model.log_z, bin_width=bin_width, device=s.device))} | more
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the row says that the bound is loose
        partition = ev.log_partition(
            model.energy, ev.fitted_base(train), samples=samples, chains=64, temperatures=300, seed=s.settings.seed, device=s.device
        )
    found = ev.log_likelihood(model.energy, test, partition, bin_width=bin_width, device=s.device)
    return {"log_partition": asdict(partition), "log_likelihood": asdict(found)} | more


def likelihood_rows(r: dict[str, Any]) -> list[Row]:
    z, q = r.get("log_partition"), r["log_likelihood"]
    of = f" of standardised columns, {r['log_volume']:.2f} less in the data's own units" if "log_volume" in r else ""
    if z is None:
        v, note = q["value"], f"nats{of}, exact; {q['bits_per_dimension']:.3f} bits a dimension"
        return [line("log-likelihood of held-out data", v["value"], ".2f", (v["low"], v["high"]), note, "up")]
    loose = "LOOSE, do not trust; " if z["loose"] else ""
    # between bounds the upper of which holds only as far as the model's samples are draws of its density
    span = f"log Z from {z['lower']['value']:.2f} to {z['upper']['value']:.2f}"
    note = f"nats{of}; {loose}{span}; {q['bits_per_dimension']:.3f} bits a dimension"
    value = q["value"]["value"]
    interval = min(value, q["lower"]["low"]), max(value, q["upper"]["high"])
    return [line("log-likelihood of held-out data", value, ".2f", interval, note, "" if z["loose"] else "up")]
