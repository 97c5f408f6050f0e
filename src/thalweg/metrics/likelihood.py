"""Of energies: log-likelihood, exact or between bounds."""

import warnings
from dataclasses import asdict
from typing import Any

from torch import Tensor

from thalweg import evaluate as ev
from thalweg import random
from thalweg.data.toy import TOYS
from thalweg.methods.base import has
from thalweg.metrics.base import Row, Subject, line
from thalweg.units import standardised


def likelihood(s: Subject) -> dict[str, Any]:
    """Nats of held-out data; of images also bits a dimension, with the data's own grey values, over whose bins noise spreads them."""
    if s.source in TOYS:
        train, test = (s.truth.sample(4096, generator=random.seeded(s.settings.seed, part)) for part in (5, 6))
        bins = None
    else:
        train, test = s.train.x, s.test.x
        bins = ev.grey_bins(train) if len(s.config.shape) == 3 else None
    draws = random.seeded(s.settings.seed, 12)
    model, units, samples = standardised(s.method), s.method.units, s.samples[:64]
    more = {}
    if units is not None:  # where chains move at one scale in every column
        train, test, samples = (units.encode(x.to(s.device)).cpu() for x in (train, test, samples))
        more = {"log_volume": float(units.log_volume)}
    if has(model, "normalised"):  # nothing is to be bounded
        if model.bin_width is not None:
            bins = ev.Bins(model.bin_width, round(2 / model.bin_width) + 1)
            test = model.dequantise(test, random.uniform(*test.shape, generator=draws))
        elif bins is not None:
            test = ev.dequantise(test, bins, draws)
        return {"log_likelihood": _told(model, test, model.log_z, bins, s)} | more
    test = test if bins is None else ev.dequantise(test, bins, draws)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the row says that the bound is loose
        partition = ev.log_partition(
            model.energy, ev.fitted_base(train), samples=samples, chains=64, temperatures=300, seed=s.settings.seed, device=s.device
        )
    return {"log_partition": asdict(partition), "log_likelihood": _told(model, test, partition, bins, s)} | more


def _told(model: Any, x: Tensor, log_z: Any, bins: ev.Bins | None, s: Subject) -> dict[str, Any]:
    """The figures of dequantised values, with the count of grey values; of continuous ones no bits, which would depend on their scale."""
    found = asdict(ev.log_likelihood(model.energy, x, log_z, bin_width=None if bins is None else bins.width, device=s.device))
    return found | ({"bits_per_dimension": None, "grey_values": None} if bins is None else {"grey_values": bins.grey_values})


def _bits(q: dict[str, Any]) -> str:
    if q["bits_per_dimension"] is None:
        return "continuous values, so no bits a dimension"
    return f"{q['bits_per_dimension']:.3f} bits a dimension of {q['grey_values']} grey values, dequantised"


def likelihood_rows(r: dict[str, Any]) -> list[Row]:
    z, q = r.get("log_partition"), r["log_likelihood"]
    of = f" of standardised columns, {r['log_volume']:.2f} less in the data's own units" if "log_volume" in r else ""
    if z is None:
        v, note = q["value"], f"nats{of}, exact; {_bits(q)}"
        return [line("log-likelihood of held-out data", v["value"], ".2f", (v["low"], v["high"]), note, "up")]
    loose = "LOOSE, do not trust; " if z["loose"] else ""
    # between bounds the upper of which holds only as far as the model's samples are draws of its density
    span = f"log Z from {z['lower']['value']:.2f} to {z['upper']['value']:.2f}"
    note = f"nats{of}; {loose}{span}; {_bits(q)}"
    value = q["value"]["value"]
    interval = min(value, q["lower"]["low"]), max(value, q["upper"]["high"])
    return [line("log-likelihood of held-out data", value, ".2f", interval, note, "" if z["loose"] else "up")]
