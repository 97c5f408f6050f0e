"""Of energies: log-likelihood, exact or between bounds."""

import math
import warnings
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from thalweg import diffusion, random
from thalweg import evaluate as ev
from thalweg.data.toy import TOYS
from thalweg.methods.base import has
from thalweg.metrics.base import Row, Subject, line
from thalweg.metrics.outliers import spread
from thalweg.units import standardised

# of the other ways to a log-likelihood: dimensions up to which a divergence is exact, and up to which there are more examples and walks;
# their numbers; levels of the flow and of the walks
EXACT, SMALL, WALKS, FLOW, STEPS = 32, 64, (256, 64), 100, 400
CHAINS, TEMPERATURES = 64, 300  # of the walks that bound log Z of an energy without levels


def likelihood(s: Subject) -> dict[str, Any]:
    """Nats of held-out data; of images also bits a dimension, with the data's own grey values, over whose bins noise spreads them."""
    if s.source in TOYS:
        train, test = (s.truth.sample(4096, generator=random.seeded(s.settings.seed, part)) for part in (5, 6))
        bins = None
    else:
        train, test = s.train.x, s.test.x
        bins = ev.grey_bins(train) if len(s.config.shape) == 3 else None
    draws = random.seeded(s.settings.seed, 12)
    model, units = standardised(s.method), s.method.units
    more = {}
    if units is not None:  # where chains move at one scale in every column
        train, test = (units.encode(x.to(s.device)).cpu() for x in (train, test))
        more = {"log_volume": float(units.log_volume)}
    if has(model, "normalised"):  # nothing is to be bounded
        if model.bin_width is not None:
            bins = ev.Bins(model.bin_width, round(2 / model.bin_width) + 1)
            test = model.dequantise(test, random.uniform(*test.shape, generator=draws))
        elif bins is not None:
            test = ev.dequantise(test, bins, draws)
        if has(model, "levels"):
            more |= _other_ways(model, train, test, bins, s)
        more["of_gaussian"] = _of_gaussian(train, test)
        return {"log_likelihood": _told(model, test, model.log_z, bins, s)} | more
    test = test if bins is None else ev.dequantise(test, bins, draws)
    more["of_gaussian"] = _of_gaussian(train, test)
    samples = s.samples[:64] if units is None else units.encode(s.samples[:64].to(s.device)).cpu()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the row says that the bound is loose
        partition = ev.log_partition(
            model.energy, ev.fitted_base(train), samples=samples, chains=CHAINS, temperatures=TEMPERATURES, seed=s.settings.seed,
            device=s.device,
        )  # fmt: skip
    return {"log_partition": asdict(partition), "log_likelihood": _told(model, test, partition, bins, s)} | more


def _other_ways(model: Any, train: Tensor, test: Tensor, bins: ev.Bins | None, s: Subject) -> dict[str, Any]:
    """Two more ways to the log-likelihood of an energy of all noise levels: by the flow of its gradients, and log Z between bounds.

    Flow and energy are asked of the same examples; walks up begin with these and noise of the lowest level, whose density it is.
    """
    d = test[0].numel()
    exact = d <= EXACT
    sigma, few = model.config.sigma_min, spread(test, WALKS[0 if d <= SMALL else 1]).to(s.device)
    noised = few + sigma * random.normal(*few.shape, generator=random.seeded(s.settings.seed, 13)).to(s.device)
    probes = 0 if exact else 1
    levels = diffusion.sigmas(STEPS, sigma, model.config.sigma_max, curve=math.inf)
    with torch.no_grad():
        own = -torch.cat([model.energy(part) for part in few.split(256)]).double().cpu()
    flow = torch.cat([model.flow_log_prob(part, steps=FLOW, probes=probes) for part in few.split(256)]).double().cpu()
    gap = flow - own
    bounds = ev.level_bounds(model.energy, model.base, levels, x=noised, walks=len(few), seed=s.settings.seed, device=s.device)
    n = len(few)
    return {
        "sigma": sigma,
        "flow": {
            "own": float(own.mean()), "flow": float(flow.mean()), "difference": float(gap.mean()),
            "standard_error": float(gap.std()) / math.sqrt(n), "n": n, "probes": probes, "steps": FLOW,
            "bits_per_dimension": None if bins is None else ev.bits_per_dimension(float(flow.mean()), d, bins.width),
        },
        "level_bounds": asdict(bounds),
    }  # fmt: skip


def _told(model: Any, x: Tensor, log_z: Any, bins: ev.Bins | None, s: Subject) -> dict[str, Any]:
    """The figures of dequantised values, with the count of grey values; of continuous ones no bits, which would depend on their scale."""
    found = asdict(ev.log_likelihood(model.energy, x, log_z, bin_width=None if bins is None else bins.width, device=s.device))
    return found | ({"bits_per_dimension": None, "grey_values": None} if bins is None else {"grey_values": bins.grey_values})


def _of_gaussian(train: Tensor, test: Tensor) -> float:
    """Mean log-density of test data, nats, under the Gaussian of independent dimensions that training data have the moments of."""
    return float(ev.fitted_base(train.float()).log_prob(test.float()).mean())


def _bits(q: dict[str, Any]) -> str:
    if q["bits_per_dimension"] is None:
        return "continuous values, so no bits a dimension"
    return f"{q['bits_per_dimension']:.3f} bits a dimension of {q['grey_values']} grey values, dequantised"


def likelihood_rows(r: dict[str, Any]) -> list[Row]:
    return _own_rows(r) + (_other_rows(r) if "flow" in r else [])


def _other_rows(r: dict[str, Any]) -> list[Row]:
    f, z = r["flow"], r["level_bounds"]
    bits = "" if f["bits_per_dimension"] is None else f"; {f['bits_per_dimension']:.3f} bits a dimension"
    span = 1.96 * f["standard_error"]
    note = f"nats by the flow of its gradients less its own, {f['n']} held-out examples of {f['own']:.2f}{bits}"
    bounds = f"nats, estimate; walks along the levels give {z['lower']['value']:.2f} to {z['upper']['value']:.2f}"
    return [
        line("log-likelihood by the flow", f["difference"], "+.2f", (f["difference"] - span, f["difference"] + span), note),
        line("log Z by walks", z["estimate"]["value"], "+.2f", (z["lower"]["low"], z["upper"]["high"]), bounds),
    ]


def _own_rows(r: dict[str, Any]) -> list[Row]:
    z, q = r.get("log_partition"), r["log_likelihood"]
    of = f" of standardised columns, {r['log_volume']:.2f} less in the data's own units" if "log_volume" in r else ""
    if z is None:
        v, note = q["value"], f"nats{of}, exact; {_bits(q)}"
        return [line("log-likelihood of held-out data", v["value"], ".2f", (v["low"], v["high"]), note, "up", *_meaning(r))]
    loose = "LOOSE, do not trust; " if z["loose"] else ""
    # between bounds the upper of which holds only as far as the model's samples are draws of its density
    span = f"log Z from {z['lower']['value']:.2f} to {z['upper']['value']:.2f}"
    note = f"nats{of}; {loose}{span}; {_bits(q)}"
    value = q["value"]["value"]
    interval = min(value, q["lower"]["low"]), max(value, q["upper"]["high"])
    return [line("log-likelihood of held-out data", value, ".2f", interval, note, *(("",) if z["loose"] else ("up", *_meaning(r))))]


def _meaning(r: dict[str, Any]) -> tuple[str, str]:
    floor = "" if "of_gaussian" not in r else f"independent Gaussians {r['of_gaussian']:.2f}"
    return floor, "How likely the model holds data that it has not seen, in nats."
