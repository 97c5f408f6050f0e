"""Do the bounds of log Z hold where it is known? AIS and its reverse on Gaussians, mixtures and NICE, as one table.

    python -m studies.checks.likelihood --out studies/results/likelihood.json

Every energy is −log p + 3.75 for a normalised p, so that log Z = −3.75, and the chains start at a Gaussian that is not p.
A row is right if the truth lies within three standard errors of the interval between the bounds and the gap is below 0.5
nat; a row that is loose on purpose (two temperatures) is right if its bounds hold and the warning was given. `low` and `high`
are the deviations of lower and upper from the truth. Leaves with exit code 1 if a row is wrong. Needs the extra `flows` (zuko).
"""

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from studies.runner import Check, Options, table
from studies.tables import Section, Shown, Table
from thalweg import random
from thalweg.errors import require
from thalweg.evaluate.bases import FlowEnergy, Gaussian, fitted_base
from thalweg.evaluate.likelihood import log_likelihood, log_partition

SHIFT, GAP = 3.75, 0.5  # nats
Row = dict[str, Any]


def correlated(dim: int) -> Gaussian:
    """A Gaussian in a random orientation whose variances run from 0.2 to 1.5."""
    turn, _ = torch.linalg.qr(random.normal(dim, dim, generator=random.seeded(5), dtype=torch.float64))
    return Gaussian(torch.full((dim,), 0.3), covariance=turn @ torch.diag(torch.linspace(0.2, 1.5, dim).double()) @ turn.T)


def mixture(dim: int) -> FlowEnergy:
    """Three round Gaussians of unequal weights (0.5, 0.3, 0.2) and widths (0.7, 0.8, 1), centres 3.4 to 3.5 apart."""
    centres = torch.zeros(3, dim)
    centres[0, 0], centres[1, :2], centres[2, :2] = 2.0, torch.tensor([-1.0, 1.7]), torch.tensor([-1.0, -1.7])
    widths = torch.tensor([0.7, 0.8, 1.0])[:, None].expand(3, dim)
    return FlowEnergy(MixtureSameFamily(Categorical(torch.tensor([0.5, 0.3, 0.2])), Independent(Normal(centres, widths), 1)))


def nice(dim: int) -> FlowEnergy:
    """A NICE flow of four coupling layers with random weights."""
    flows = require("zuko.flows", "flows")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return FlowEnergy(flows.NICE(dim, transforms=4, hidden_features=(64,)).requires_grad_(False))


def rows(seed: int) -> Iterator[Row]:
    for dim, temperatures in ((1, 100), (2, 100), (10, 200), (50, 500), (100, 800), (200, 1500)):
        target, base = Gaussian(torch.full((dim,), 0.3), 0.5), Gaussian(torch.zeros(dim), 1.0)
        yield row(f"Gaussian, std 0.5, {dim}-D", target, base, seed, temperatures=temperatures)
    for dim, temperatures in ((50, 300), (200, 800)):
        yield row(f"correlated Gaussian, {dim}-D", correlated(dim), Gaussian(torch.zeros(dim), 1.0), seed, temperatures=temperatures)
    for dim in (2, 10):
        yield row(f"mixture, {dim}-D", mixture(dim), Gaussian(torch.zeros(dim), 1.6), seed, temperatures=500)
    for dim in (16, 64):
        target = nice(dim)
        base = fitted_base(target.sample(4000, generator=random.seeded(seed, 1)))
        yield row(f"NICE, {dim}-D, fitted base", target, base, seed, temperatures=150)
    target, base = Gaussian(torch.full((10,), 0.3), 0.5), Gaussian(torch.zeros(10), 1.0)
    yield row("Gaussian, std 0.5, 10-D", target, base, seed, temperatures=500, transition="mala")
    yield row("Gaussian, std 0.5, 10-D", target, base, seed, temperatures=500, transition="langevin", steps=4)
    yield row("Gaussian, std 0.5, 10-D, linear", target, base, seed, temperatures=200, schedule="linear")
    yield row("loose: Gaussian, 200-D", Gaussian(torch.full((200,), 0.3), 0.5), Gaussian(torch.zeros(200), 1.0), seed, temperatures=2)


def row(name: str, target, base, seed: int, *, temperatures: int, **knobs) -> Row:
    def energy(x):
        return SHIFT - target.log_prob(x)

    samples = target.sample(128, generator=random.seeded(seed, 2))
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        report = log_partition(energy, base, samples=samples, temperatures=temperatures, seed=seed, **knobs)
    warned = any("bounds are loose" in str(one.message) for one in given)
    held_out = target.sample(1000, generator=random.seeded(seed, 3))
    likelihood = log_likelihood(energy, held_out, report)
    truth, slack = -SHIFT, 3
    inside = report.lower.value - slack * report.lower.standard_error <= truth <= report.upper.value + slack * report.upper.standard_error
    with torch.no_grad():
        exact = float(target.log_prob(held_out).double().mean())
    loose = name.startswith("loose")
    found = {"target": name, "transition": report.transition, "temperatures": temperatures}
    found |= {"low": report.lower.value - truth, "low_error": report.lower.standard_error}
    found |= {"high": report.upper.value - truth, "high_error": report.upper.standard_error, "estimate": report.estimate.value - truth}
    found |= {key: getattr(report, key) for key in ("gap", "ess", "ess_reverse", "variance", "variance_reverse", "acceptance")}
    found |= {"log_likelihood": likelihood.value.value, "exact_log_likelihood": exact, "warned": warned}
    return found | {"ok": inside and (warned and report.loose if loose else report.gap < GAP and not warned)}


def run(options: Options) -> dict:
    found = []
    for result in rows(options.seed):
        found.append(result)
        print(f"{result['target']}: gap {result['gap']:.3g}, {'ok' if result['ok'] else 'WRONG'}", flush=True)
    shown = ("target", "transition", "temperatures", "low", "high", "gap", "estimate", "ess", "variance", "acceptance", "ok")
    print(table([{key: result[key] for key in shown} for result in found]))
    tight = [result for result in found if not result["target"].startswith("loose")]
    summary = {"log_z": -SHIFT, "rows": len(found), "wrong": sum(not r["ok"] for r in found), "largest_gap": max(r["gap"] for r in tight)}
    print(summary)
    return {"rows": found, "summary": summary}


COLUMNS = "target | transition | temperatures | lower = low:+.3f | upper = high:+.3f | gap:.3f | effective sample size, share = ess:.2f"
INTRO = "Bounds of log Z on targets whose log Z is known, as deviations from it in nats."
PAGE = [Section("Likelihood", [Shown("likelihood", [Table(COLUMNS, "rows")])], INTRO)]
CHECK = Check("likelihood", __doc__, run, dict(seed=0), failed=lambda results: results["summary"]["wrong"] > 0)

if __name__ == "__main__":
    CHECK.main()
