"""dual: toys by its own normalisation, mixtures in many dimensions, bits of digits in three ways.

`toys`: every toy, trained for `--seconds` of one thread, beside short_run, cdrl and a spline flow of as many seconds: KL(truth‖model) by
the model's own normalisation and by that on a grid, and log Z by the grid. `mixtures`: 8 unequal Gaussians in 16 and 64 dimensions.
`digits`: bits a dimension of dequantised test images in three ways, beside a flow.

    python -m studies.dual toys --seconds 120 --jobs 2
    python -m studies.dual mixtures digits --seconds 300 --jobs 2
"""

import argparse
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import thalweg as tw
from studies.measures import means, sets_of, trained
from studies.runner import Options, Part, Row, Study
from studies.tables import Section, Shown, Table
from thalweg.data.toy import TOYS
from thalweg.errors import require

TRIAL = 40  # steps whose CPU time says how many images a training of so many seconds can have
BESIDE = ("dual", "short_run", "cdrl", "spline flow")
DIMENSIONS = (16, 64)


def median(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(torch.tensor(known).median()) if known else None


# --- trainings of so many seconds


def priced(preset: str, fields: dict[str, Any], data: Any, seed: int, options: Options, seconds: float) -> tuple[Any, Row]:
    """A model trained for about `seconds` of CPU time: its images are set by the time of `TRIAL` steps, so that its rate ends with them."""
    begun = time.process_time()
    trial = tw.method(preset, seed=seed, data=data, **fields)
    batch, update = trial.config.batch, tw.update(trial)
    update.step(data.batch(0, batch, seed))  # compiles
    first = time.process_time() - begun
    started = time.process_time()
    for i in range(TRIAL):
        update.step(data.batch((i + 1) * batch, batch, seed))
    each = (time.process_time() - started) / TRIAL
    images = max(10, int((0.94 * seconds - first) / each)) * batch  # the rest is for what comes after the last step
    started = time.process_time()
    model, found = trained((preset, fields | {"images": images}), data, seed, options, seconds=1.5 * seconds)
    return model, found | {"cpu_seconds": round(time.process_time() - started, 1)}


class SplineFlow:
    """A neural spline flow of zuko's, trained by maximum likelihood with Adam at a rate that falls to zero over the seconds."""

    def __init__(self, dim: int, batch: Callable[[int], Tensor], seconds: float, seed: int) -> None:
        torch.manual_seed(seed)
        self.flow = require("zuko", "flows").flows.NSF(dim, transforms=4, hidden_features=(64, 64))
        optimizer = torch.optim.Adam(self.flow.parameters(), lr=2e-3)
        started, self.updates = time.process_time(), 0
        while (spent := time.process_time() - started) < seconds:
            for group in optimizer.param_groups:
                group["lr"] = 2e-3 * 0.5 * (1 + math.cos(math.pi * spent / seconds))
            loss = -self.flow().log_prob(batch(self.updates)).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.flow.parameters(), 1.0)
            optimizer.step()
            self.updates += 1

    @torch.no_grad()
    def energy(self, x: Tensor) -> Tensor:
        """−log q(x), normalised, [B]."""
        return -self.flow().log_prob(x)


# --- toys


def toy_rows(options: Options) -> list[str]:
    return [f"{toy}: {method}" for toy in TOYS if toy != "gaussian" for method in BESIDE]


def toy_one(row: str, seed: int, options: Options) -> Row:
    """One model of one toy: its divergence from the truth by its own normalisation, where it has one, and by the grid's."""
    name, _, method = row.partition(": ")
    toy, seconds = tw.data.toy(name), options.seconds or 120.0
    if method == "spline flow":
        model: Any = SplineFlow(2, lambda i: toy.batch(i * 512, 512, seed).x, seconds, seed)
        found: Row = {"diverged": None, "updates": model.updates}
    else:
        model, found = priced(f"{method}/{name}", {}, toy, seed, options, seconds)
        if model is None:
            return found
    report = tw.evaluate.density(model.energy, toy, grid=400)
    found |= {"kl_on_grid": report.kl_truth_model, "log_z": report.log_z}
    if method in ("dual", "spline flow"):
        x = toy.sample(100_000, generator=tw.random.seeded(seed, 77))
        with torch.no_grad():
            found["kl_own"] = float((toy.log_prob(x).double() + model.energy(x).double()).mean())
    return found


def toy_line(name: str, mine: list[Row], rows: list[Row]) -> Row:
    return {key: median([row.get(key) for row in mine]) for key in ("kl_own", "kl_on_grid", "log_z", "cpu_seconds")}


# --- mixtures in many dimensions


class Mixture:
    """8 Gaussians of weights 1 : 2 : … : 8 in `dim` dimensions, means on a sphere of radius 4, deviations from 0.3 to 0.6."""

    classes: tuple[str, ...] = ()

    def __init__(self, dim: int) -> None:
        g = tw.random.seeded(dim, 8)
        means = tw.random.normal(8, dim, generator=g)
        self.name, self.shape = f"8 Gaussians in {dim} dimensions", (dim,)
        self.means = 4 * means / means.norm(dim=1, keepdim=True)
        self.std = torch.linspace(0.3, 0.6, 8)
        self.weights = torch.arange(1.0, 9.0) / 36

    def batch(self, start: int, count: int, seed: int) -> Any:
        g = tw.random.seeded(seed, start)
        k = torch.multinomial(self.weights, count, replacement=True, generator=g)
        return tw.data.Batch(self.means[k] + self.std[k, None] * tw.random.normal(count, *self.shape, generator=g))

    def parts(self, x: Tensor) -> Tensor:
        """log of weight times density of each Gaussian, [N, 8]."""
        squares = torch.cdist(x, self.means).square() / (2 * self.std.square())
        return self.weights.log() - squares - self.shape[0] * (self.std * math.sqrt(2 * math.pi)).log()


def mixture_one(row: str, seed: int, options: Options) -> Row:
    """The gap of the held-out log-density to the truth's, by the model's own normalisation, and the weights of modes in its samples."""
    data = Mixture(int(row.split()[-1]))
    model, found = priced("dual/vectors", {}, data, seed, options, options.seconds or 120.0)
    if model is None:
        return found
    x = data.batch(0, 20_000, seed + 1000).x
    with torch.no_grad():
        own = torch.cat([-model.energy(part) for part in x.split(2000)]).double()
    truth = data.parts(x).double().logsumexp(1)
    drawn = model.sample(20_000, seed=seed)
    share = torch.bincount(data.parts(drawn).argmax(1), minlength=8) / len(drawn)
    bounds = tw.evaluate.level_bounds(
        model.energy, model.base, tw.diffusion.sigmas(400, model.config.sigma_min, model.config.sigma_max),
        x=x + model.config.sigma_min * tw.random.normal_like(x, tw.random.seeded(seed)), walks=256, seed=seed,
    )  # fmt: skip
    return found | {
        "gap": float((truth - own).mean()),
        "share_error": float((share / data.weights - 1).abs().max()),
        "shares": share.tolist(),
        "log_z": bounds.estimate.value,
        "log_z_low": bounds.lower.low,
        "log_z_high": bounds.upper.high if bounds.upper else None,
    }


# --- digits: three ways, beside a flow


def digits_one(row: str, seed: int, options: Options) -> Row:
    """Bits a dimension of dequantised test images: dual's in three ways, or a flow's."""
    train, _ = sets_of(options)
    seconds = options.seconds or 300.0
    preset, fields = (f"dual/{options.data}", {}) if row == "dual" else (f"coopflow/{options.data}", {"chain.steps": 0})
    model, found = priced(preset, fields, train, seed, options, seconds)
    if model is None:
        return found
    subject = tw.metrics.Subject(model.eval(), tw.metrics.Settings(seed=seed))
    measured = tw.metrics.METRICS["likelihood"].measure(subject)
    found |= {"bits": measured["log_likelihood"]["bits_per_dimension"], "nats": measured["log_likelihood"]["value"]["value"]}
    if "flow" in measured:
        found |= {"flow": measured["flow"], "level_bounds": measured["level_bounds"]}
    return found


def add(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(images=10**9)


STUDY = Study(
    name="dual",
    doc=__doc__ or "",
    parts={
        "toys": Part(toy_rows, toy_one, toy_line),
        "mixtures": Part(
            [f"dimensions {d}" for d in DIMENSIONS], mixture_one, lambda name, mine, rows: means(mine, ("gap", "share_error", "log_z"))
        ),
        "digits": Part(("dual", "flow"), digits_one, lambda name, mine, rows: means(mine, ("bits", "nats"))),
    },
    add=add,
)

TOYS_TEXT = (
    "About {seconds:g} CPU seconds of one thread a training, medians over {seeds} seeds. `own`: KL(truth‖model) in nats by the model's own "
    "normalisation on 100,000 fresh draws; `grid`: by that on a grid of 400 × 400; log Z by the grid."
)
MIXTURES_TEXT = (
    "8 Gaussians of unequal weights and deviations, about {seconds:g} CPU seconds, {seeds} seeds: the mean gap of log-densities of fresh "
    "draws to the truth's, the greatest relative error of a mode's share among samples, and log Z by walks along the levels."
)
DIGITS_TEXT = (
    "Test images, about {seconds:g} CPU seconds, {seeds} seeds: bits a dimension, dequantised, exact or by the model's own normalisation."
)
PAGE = [
    Section(
        "dual",
        [
            Shown("dual_toys", [TOYS_TEXT, Table("toy, model = row | own = kl_own:.4f | grid = kl_on_grid:.4f | log Z = log_z:+.4f")]),
            Shown("dual_mixtures", [MIXTURES_TEXT, Table("data = row | gap = gap:.3f | share = share_error:.3f | log Z = log_z:+.3f")]),
            Shown("dual_digits", [DIGITS_TEXT, Table("model = row | bits = bits:.3f | nats = nats:.1f")]),
        ],
    )
]

if __name__ == "__main__":
    STUDY.main()
