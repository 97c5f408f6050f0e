"""dual: toys by its own normalisation, mixtures in many dimensions, bits of digits in three ways.

`toys`: every toy, trained for `--seconds` of one thread, beside short_run, cdrl and a spline flow of as many seconds: KL(truth‖model) by
the model's own normalisation and by that on a grid, and log Z by the grid. `mixtures`: 8 unequal Gaussians in 16 and 64 dimensions.
`holes`: two far Gaussians with and without the term by which levels are told apart, and how low the energy is where no data are.
`digits`: bits a dimension of dequantised test images, beside a flow. `halves`: two models of disjoint halves of the data,
on the same held-out images. `cost`: a step beside a plain denoiser's of the same body, and as a share of the machine's peak.
Of a trained run: `pictures`: the distance of samples, free and by label, from data, error of the predicted noise by level, neighbours;
`likelihood`: bits in three ways, accuracy by energies given each label; `outliers`: by the energy and by all levels; `uses`: denoising,
the level found by likelihood, coverage of what was hidden by completions, directions at each level; `inverse`: images given noisy linear
measurements of them, and coverage of the truth by these.

    python -m studies.dual toys --seconds 120 --jobs 2
    python -m studies.dual mixtures digits --seconds 300 --jobs 2
    python -m studies.dual holes --seconds 60
    thalweg train dual/fashion-mnist-conditional --precision bf16 --threads 1 --out runs/dual
    python -m studies.dual pictures likelihood outliers uses inverse --data fashion-mnist --precision bf16
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import thalweg as tw
from studies.coopflow import DRAWN, bits_of
from studies.measures import Bare, means, noise_errors, parameters, peak, precisely, psnr_hidden, ratio, seconds_in_turn, sets_of, trained
from studies.runner import Options, Part, Row, Study, file_of, precise
from studies.tables import Picture, Section, Shown, Table
from thalweg.checkpoint import read_stats
from thalweg.config import changed
from thalweg.data.prepare import trained_data
from thalweg.data.toy import TOYS
from thalweg.errors import require
from thalweg.evaluate.ood import OUTLIERS
from thalweg.methods.dual import Dual

TRIAL = 40  # steps whose CPU time says how many images a training of so many seconds can have
BESIDE = ("dual", "short_run", "cdrl", "spline flow")
DIMENSIONS = (16, 64)
FINEST = 0.075  # the lowest level of mixtures, a quarter of their least deviation
BITS = ("bits", "bits_of_several", "bits_by_flow", "bits_by_walks", "nats", "cpu_seconds")
STOPS = 8  # of a flow's training, at which its bits are found
ROUNDS = 15  # of steps whose time is compared
GUIDANCE = (1.0, 1.5, 2.0)
FEW = 10  # classes that a picture shows ten samples of each
MEASURED, NOISE = ("mask:half:bottom", "blur:2.0", "pool:4"), 0.1  # operators, and the deviation of the noise in what they measure
TERM = {"with": 0.02, "without": 0.0}  # weights of the term by which levels are told apart
AWAY = 30.0  # nats by which the true energy of a place without data exceeds the mean of data
CLASSIFY = (0.3, 1.0)  # levels at which energies given each label are compared
OTHERS = {"fashion-mnist": ("mnist-small",), "digits": ()}


def median(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(torch.tensor(known, dtype=torch.float64).median()) if known else None


# --- trainings of so many seconds


def priced(
    preset: str, fields: dict[str, Any], data: Any, seed: int, options: Options, seconds: float, *, most: int | None = None, **more: Any
) -> tuple[Any, Row]:  # fmt: skip
    """A model trained for about `seconds` of CPU time: its images are set by the time of `TRIAL` steps, so that its rate ends with them.

    No more images than `most`; `more` is for `trained`.
    """
    begun = time.process_time()
    trial = tw.method(preset, seed=seed, data=data, **fields | {"images": 1})  # with what begins late in training
    batch, update = trial.config.batch, tw.update(trial)
    for i in range(2):  # which compile, the second also what begins late
        update.step(data.batch(i * batch, batch, seed))
    first = time.process_time() - begun
    started = time.process_time()
    for i in range(TRIAL):
        update.step(data.batch((i + 2) * batch, batch, seed))
    each = (time.process_time() - started) / TRIAL
    images = max(10, int((0.94 * seconds - first) / each)) * batch  # the rest is for what comes after the last step
    images = min(images, most or images)
    started = time.process_time()
    model, found = trained((preset, fields | {"images": images}), data, seed, options, seconds=1.5 * seconds, **more)
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
        fields = {"compile": True} if method == "dual" else {}
        model, found = priced(f"{method}/{name}", fields, toy, seed, options, seconds)
        if model is None:
            return found
    report = tw.evaluate.density(model.energy, toy, grid=400)
    found |= {"kl_on_grid": report.kl_truth_model, "log_z": report.log_z}
    if method in ("dual", "spline flow"):
        x = toy.sample(100_000, generator=tw.random.seeded(seed, 77))
        with torch.no_grad():
            found["kl_own"] = float((toy.log_prob(x).double() + model.energy(x).double()).mean())
    if method == "dual" and seed == 0:
        tw.plot.density({"exp(−U)": model.energy}, toy, options.pictures / f"dual_{name}.png", samples=model.sample(2000, seed=1))
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
    model, found = priced("dual/vectors", {"compile": True, "sigma_min": FINEST}, data, seed, options, options.seconds or 120.0)
    if model is None:
        return found
    x = data.batch(0, 20_000, seed + 1000).x
    with torch.no_grad():
        own = torch.cat([-model.energy(part) for part in x.split(2000)]).double()
    truth = data.parts(x).double().logsumexp(1)
    drawn = model.sample(20_000, seed=seed)
    share = torch.bincount(data.parts(drawn).argmax(1), minlength=8) / len(drawn)
    bounds = tw.evaluate.level_bounds(
        model.energy, model.base, tw.diffusion.sigmas(400, model.config.sigma_min, model.config.sigma_max, curve=math.inf),
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


# --- holes between far modes


def holes_one(row: str, seed: int, options: Options) -> Row:
    """How far the energy of 2gaussians falls away from data: its least on a grid there, beside the mean of data, and the mass there."""
    toy = tw.data.toy("2gaussians")
    model, found = priced("dual/2gaussians", {"level_weight": TERM[row]}, toy, seed, options, options.seconds or 60.0)
    if model is None:
        return found
    across = torch.linspace(-model.config.sigma_max, model.config.sigma_max, 401)
    grid, x = torch.cartesian_prod(across, across), toy.sample(100_000, generator=tw.random.seeded(seed, 77))
    with torch.no_grad():
        energy = torch.cat([model.energy(part) for part in grid.split(20_000)]).double()
        of_data = torch.cat([model.energy(part) for part in x.split(20_000)]).double()
    truth, of_truth = -toy.log_prob(grid).double(), -toy.log_prob(x).double()
    away = truth > AWAY + of_truth.mean()
    mass = float((-energy).exp()[away].sum()) * float(across[1] - across[0]) ** 2
    return found | {
        "lowest_away": float(energy[away].min() - of_data.mean()), "mass_away": mass,
        "kl_own": float((of_data - of_truth).mean()), "log_z": math.log(float((-energy).exp().sum()) * float(across[1] - across[0]) ** 2),
    }  # fmt: skip


def holes_line(name: str, mine: list[Row], rows: list[Row]) -> Row:
    """Medians over seeds, and the worst seed of what a hole shows in."""
    own = ("lowest_away", "mass_away", "kl_own", "log_z", "cpu_seconds")
    known = [row for row in mine if "lowest_away" in row]
    worst = {"worst": min(row["lowest_away"] for row in known), "most": max(row["mass_away"] for row in known)} if known else {}
    return {key: median([row.get(key) for row in mine]) for key in own} | worst


# --- digits: three ways, beside a flow


def digits_one(row: str, seed: int, options: Options) -> Row:
    """Bits a dimension of test images, dual's by its own normalisation with its other ways to them, or a flow's by eight noises.

    dual has its preset's images, as more would teach it the training images themselves; of the flow, which does that too, the lowest bits
    of test images along the training count. "dual, bumps" reads out bumps in place of grey values at the ends of the range.
    """
    train, test = sets_of(options)
    seconds, x = options.seconds or 300.0, test.all().x
    if row == "flow":

        def look(twin: Any, last: bool) -> Row:
            found = bits_of(twin.eval(), x, seed)
            return {"bits": found["bits_per_dim"], "bits_of_several": found["bits_of_several"]}

        model, found = priced(f"coopflow/{options.data}", {"chain.steps": 0}, train, seed, options, seconds, stops=STOPS, look=look)
        return found if model is None else found | min(found["along"], key=lambda stop: stop["bits_of_several"])
    preset, changes = f"dual/{options.data}", {"ends": "bumps"} if row == "dual, bumps" else {}
    model, found = priced(preset, changes, train, seed, options, seconds, most=tw.methods.preset(preset)[1].images)
    if model is None:
        return found
    measured = tw.metrics.METRICS["likelihood"].measure(tw.metrics.Subject(model.eval(), tw.metrics.Settings(seed=seed)))
    bits, unit = measured["log_likelihood"]["bits_per_dimension"], x[0].numel() * math.log(2)
    found |= {"bits": bits, "nats": measured["log_likelihood"]["value"]["value"], "likelihood": measured}
    if "flow" in measured:
        found |= {
            "bits_by_flow": bits - measured["flow"]["difference"] / unit,
            "bits_by_walks": bits + measured["level_bounds"]["estimate"]["value"] / unit,
        }
    nats, g = [], tw.random.seeded(seed, 5)
    with torch.no_grad():
        for _ in range(DRAWN):
            spread = model.dequantise(x, tw.random.uniform(*x.shape, generator=g))
            nats.append(torch.cat([-model.energy(part) for part in spread.split(250)]).double())
    several = torch.stack(nats).logsumexp(0) - math.log(DRAWN)
    found["bits_of_several"] = float(-several.mean() / unit - math.log2(model.bin_width))
    shown = {"test": x[:300], "training": train.all().x[:300]}
    return found | {"noise_error": {name: noise_errors(model, images, options.precision) for name, images in shown.items()}}


# --- cost


class Denoiser(Dual):
    """The body of dual as a plain predictor of the noise, ‖m(u, σ) − z‖²/d, with what it sees."""

    def losses(self, x: Tensor, log_sigma: Tensor, z: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        at = self.tilt(x + log_sigma.exp().view(-1, *[1] * (x.dim() - 1)) * z, log_sigma)
        fields, _ = self.net(at.inputs, log_sigma)
        error = (fields.float()[:, : x.shape[1]] - z).flatten(1).square().mean(1)
        return error, torch.zeros_like(error), torch.zeros_like(error)


def cost(options: Options) -> Row:
    """CPU seconds of a step beside that of a plain denoiser of the same body, floating-point operations and the share of the peak."""
    torch.set_num_threads(1)
    train, _ = sets_of(options)
    data = options.data
    batch = train.batch(0, tw.methods.preset(f"dual/{data}")[1].batch, 0)
    config = tw.method(f"dual/{data}").config
    models = {"dual": Dual(config), "compiled": Dual(changed(config, compile=True)), "denoiser": Denoiser(config)}
    steps = {}
    for name, model in models.items():
        model.prepare(train.batch(0, 2000, 0).x)
        model.to(memory_format=torch.channels_last)
        steps[name] = precisely(partial(model.step, batch, Bare(model)), options.precision)
    with FlopCounterMode(display=False) as counter:
        steps["dual"]()
    flops = counter.get_total_flops()
    first, seconds = seconds_in_turn(steps, ROUNDS)
    found = {name: statistics.median(values) for name, values in seconds.items()}
    top = peak(options.precision)
    return {
        "batch": len(batch.x), "rounds": ROUNDS, "seconds_a_step": found, "first_step_seconds": first,
        "ratio": ratio(seconds["dual"], seconds["denoiser"]), "gain": ratio(seconds["dual"], seconds["compiled"]),
        "gflop_a_step": flops / 1e9, "peak_gflops": top,
        "share_of_peak": flops / 1e9 / found["dual"] / top, "share_of_peak_compiled": flops / 1e9 / found["compiled"] / top,
        "parameters": parameters(models["dual"]),
    }  # fmt: skip


# --- generalisation: two models of disjoint halves of the data


def half(data: Any, first: int) -> Any:
    """Every other example of a data set, from the first or from the second on."""
    x, label = data.all()
    return tw.data.Images(x[first::2], None if label is None else label[first::2], data.classes, name=f"{data.name}:{first}")


def half_one(row: str, seed: int, options: Options) -> Row:
    """Held-out and training energies, nats, of a model of one half."""
    train, test = sets_of(options)
    data = half(train, int(row == "second half"))
    model, found = priced(f"dual/{options.data}", {}, data, seed, options, options.seconds or 300.0)
    if model is None:
        return found
    g = tw.random.seeded(4)
    x = model.dequantise(test.all().x[:1000], tw.random.uniform(*test.all().x[:1000].shape, generator=g))
    own = model.dequantise(data.all().x[:1000], tw.random.uniform(*data.all().x[:1000].shape, generator=g))
    with torch.no_grad(), precise(options.precision):
        held_out, seen = (torch.cat([-model.energy(part) for part in images.split(250)]) for images in (x, own))
    return found | {"log_p": held_out.tolist(), "log_p_seen": float(seen.mean())}


def halves_more(options: Options, rows: list[Row]) -> Row:
    """Correlation and difference of the two models' log-densities of the same held-out images, and what each gains on its own."""
    found = {row["row"]: torch.tensor(row["log_p"]).double() for row in rows if "log_p" in row and row["seed"] == 0}
    if len(found) < 2:
        return {}
    a, b = found.values()
    return {
        "correlation": float(torch.corrcoef(torch.stack([a, b]))[0, 1]), "difference": float((a - b).mean()),
        "spread_of_difference": float((a - b).std()), "spread": float(a.std()), "images": len(a),
    }  # fmt: skip


# --- of a trained run


def run_of(options: Options) -> tuple[Any, Any, Any, Row]:
    """The model of the run, training and test images, and how it was trained."""
    model = tw.load(options.run)
    train, test = (trained_data(model, split).all() for split in ("train", "test"))
    stats = [row for row in read_stats(options.run) if "loss/energy" in row]
    row = {"parameters": parameters(model), "images": stats[-1]["images"], "train_seconds": round(stats[-1]["seconds"])} if stats else {}
    events = sum("event" in row for row in read_stats(options.run))
    return model, train, test, row | {"guard_events": events, "preset": f"dual/{model.config.data}", "batch": model.config.batch}


def drawn(model: Any, n: int, options: Options, **asked: Any) -> tuple[Tensor, float]:
    """`n` samples, 250 at a time, in the precision of training, and the CPU seconds of one; `label` is cut alike."""
    started, parts = time.process_time(), []
    for i in range(0, n, 250):
        here = {key: value[i : i + 250] if isinstance(value, Tensor) else value for key, value in asked.items()}
        with precise(options.precision):
            parts.append(model.sample(min(250, n - i), seed=i + 1, **here).float())
    return torch.cat(parts), (time.process_time() - started) / n


def pictures(options: Options) -> Row:
    """Samples, errors by level and neighbours of the run's model."""
    torch.set_num_threads(1)
    model, train, test, row = run_of(options)
    n, c = options.samples, model.config
    judge = tw.evaluate.extractor((tuple(train), tuple(test)), name=c.data)
    ways: dict[str, dict[str, Any]] = {"free": {}}
    if c.conditional:
        # of many classes, which are not equally large, as often as in the data
        label = (
            torch.arange(n) % c.classes if c.classes <= FEW else train.label[tw.random.rows(n, len(train.x), generator=tw.random.seeded(8))]
        )
        ways |= {f"guidance {w:g}": dict(label=label, guidance=w) for w in GUIDANCE}
    row["samples"] = {}
    for way, asked in ways.items():
        x, cost = drawn(model, n, options, **asked)
        found = tw.evaluate.fidelity(train.x, x, judge, held_out=test.x, n=n, metrics=("frechet", "kid", "prdc"))
        figures = {key: getattr(found, key) for key in ("frechet", "kid", "precision", "recall")}
        row["samples"][way] = {key: f.value for key, f in figures.items()} | {
            "floor": found.frechet.held_out, "n": n, "evaluations": c.sample_steps + 1, "cpu_seconds_sample": cost,
        }  # fmt: skip
        if "label" in asked:
            row["samples"][way]["class_accuracy"] = tw.evaluate.class_accuracy(x, label, judge).value
            row["samples"][way]["closer"] = tw.evaluate.memorisation(x, train.x, test.x).closer
            shown = torch.cat([x[label == k][:10] for k in range(c.classes)]) if c.classes <= FEW else x[:64]
        else:
            shown = x[:100]
            row["neighbours"] = asdict(tw.evaluate.memorisation(x, train.x, test.x))
            nearest = tw.evaluate.nearest_neighbours(x[:10], train.x, k=7).indices
            tw.plot.neighbours(x[:10], train.x, nearest, options.pictures / f"dual_neighbours_{c.data}.png")
        tw.plot.grid(
            shown,
            options.pictures / file_of("dual", c.data, way.replace(" ", "-").replace(".", "_")),
            columns=8 if len(shown) == 64 else 10,
        )
    if c.conditional and c.classes > FEW:
        each, _ = drawn(model, c.classes, options, label=torch.arange(c.classes))
        tw.plot.grid(each, options.pictures / file_of("dual", c.data, "kinds"), columns=10)
    row["noise_error"] = noise_errors(model, test.x[:1000], options.precision)
    return row


def likelihood(options: Options) -> Row:
    """Bits of the run's model in three ways, and the accuracy of comparing its energies given each label."""
    torch.set_num_threads(1)
    model, _, test, row = run_of(options)
    if model.config.conditional:
        x, label, row["accuracy"] = test.x[:2000], test.label[:2000], {}
        for sigma in CLASSIFY:
            with precise(options.precision):
                log_p = torch.cat([model.classify(part, sigma=sigma) for part in x.split(250)])
            row["accuracy"][f"{sigma:g}"] = float((log_p.argmax(1) == label).float().mean())
    measured = tw.metrics.METRICS["likelihood"].measure(tw.metrics.Subject(model, tw.metrics.Settings()))
    own = measured["log_likelihood"]
    row |= {"bits": own["bits_per_dimension"], "nats": own["value"]["value"]}
    return row | {key: measured[key] for key in ("flow", "level_bounds", "sigma")}


def outliers(options: Options) -> Row:
    """AUROC of the energy alone and of all levels together, of 1,000 test images against as many of each kind."""
    model, train, test, row = run_of(options)
    x, data = test.x[:1000], model.config.data
    others = {name: tw.data.load(name, "test", size=x.shape[-1]).all().x[:1000] for name in OTHERS.get(data, ())}
    made = {kind: tw.evaluate.outliers(kind, x, len(x)) for kind in OUTLIERS}
    faint = 1e-3 * tw.random.normal(50, *x.shape[1:], generator=tw.random.seeded(5))  # so that scores of equal pictures are not all tied
    made |= {f"all {value:+g}": value + faint for value in (-1.0, 0.0, 1.0)}
    scores = ("energy", "typicality", "mass", "levels")
    with precise(options.precision):
        reports, _ = tw.evaluate.ood_table(model, x, {**others, **made}, scores=scores, reference=train.x[:5000], bootstrap=20)
    return {"auroc": {score: {kind: report.auroc for kind, report in by.items()} for score, by in reports.items()}} | row


# by name: how `inpaint` fills in
COMPLETIONS: dict[str, dict[str, Any]] = {
    "constraint": dict(posterior=False), "corrected": dict(posterior=False, corrections=3), "posterior": dict(posterior=True)
}  # fmt: skip


def uses(options: Options) -> Row:
    """What else the one energy is good for, in figures."""
    model, _, test, row = run_of(options)
    c, x, g = model.config, test.x[:200], tw.random.seeded(3)
    row["denoising"], row["level"] = {}, {}
    for sigma in (0.1, 0.2, 0.5, 1.0):
        y = x + sigma * tw.random.normal_like(x, g)
        with precise(options.precision):
            gain = tw.evaluate.psnr(tw.tasks.denoise(model, y, sigma), x).mean() - tw.evaluate.psnr(y.clamp(-1, 1), x).mean()
            found = tw.tasks.estimate_noise(model, y)
        row["denoising"][f"{sigma:g}"] = float(gain)
        row["level"][f"{sigma:g}"] = {
            "median": float(found.median()),
            "off by more than a tenth": float(((found / sigma - 1).abs() > 0.1).float().mean()),
        }
    mask = torch.ones(c.shape[-2:])
    mask[c.shape[-2] // 2 :] = 0
    row["completions"] = {}
    for way, given in COMPLETIONS.items():
        started = time.process_time()
        with precise(options.precision):
            filled = tw.tasks.inpaint(model, x[:50], mask, completions=8, **given)
        seconds = (time.process_time() - started) / filled[:, :, 0, 0, 0].numel()
        shown = torch.cat([x[:8, None], (x[:8] * mask - (1 - mask))[:, None], filled[:4, :8].transpose(0, 1)], 1).flatten(0, 1)
        tw.plot.grid(shown, options.pictures / f"dual_completions_{c.data}_{way}.png", columns=6)
        share = tw.tasks.coverage(filled, x[:50], mask)
        hidden = (1 - mask).bool()
        of_mean, of_one = (float(psnr_hidden(x[:50], guess, hidden).mean()) for guess in (filled.mean(0), filled[0]))
        row["completions"][way] = {
            "coverage": float(share.mean()), "nominal": 7 / 9, "psnr_of_mean": of_mean, "psnr_of_one": of_one, "cpu_seconds": seconds,
        }  # fmt: skip
    row["dimension"] = {f"{s:g}": float(tw.tasks.intrinsic_dimension(model, x, s).mean()) for s in (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)}
    return row


def linear_guess(model: Any, operator: Any, y: Tensor) -> Tensor:
    """The mean of x given y = A x + noise were the data Gaussian: Wiener's filter, from the model's own mean and covariance."""
    a = operator.forward(torch.eye(math.prod(model.config.shape)).view(-1, *model.config.shape)).flatten(1).T.double()
    law = model.gaussian
    basis = law.basis.double() if law.basis is not None else torch.eye(a.shape[1]).double()
    across = a @ (basis * law.variance.double()) @ basis.T
    rest = (y - operator.forward(law.mean[None])).flatten(1).double()
    found = torch.linalg.solve(across @ a.T + NOISE**2 * torch.eye(len(a)).double(), rest.T).T @ across
    return (law.mean + found.view(-1, *model.config.shape).float()).clamp(-1, 1)


def inverse(options: Options) -> Row:
    """Draws given noisy measurements of test images: how often these lie where the draws say, and how near the draws' mean comes."""
    torch.set_num_threads(1)
    model, _, test, row = run_of(options)
    step = model.bin_width or 0.0
    row |= {"noise": NOISE, "completions": options.completions, "measured": []}
    for name in MEASURED:
        operator = tw.tasks.operators.named(name, tuple(model.config.shape))
        for corrections, n in ((0, options.inverse_images), (1, options.corrected_images)):
            x, g = test.x[:n], tw.random.seeded(6)
            y = operator.forward(x)
            y = y + NOISE * tw.random.normal_like(y, g)
            y = operator.forward(y) if isinstance(operator, tw.tasks.operators.Mask) else y  # no noise where nothing is measured
            started = time.process_time()
            asked = dict(std=NOISE, completions=options.completions, corrections=corrections)
            with precise(options.precision):
                drawn = tw.tasks.restore(model, y, operator, **asked).float()
            cost = (time.process_time() - started) / (n * options.completions)
            covered = {f"coverage_{100 * q:.0f}": tw.tasks.coverage(drawn, x, share=q, step=step).nanmean() for q in (0.5, 0.9)}
            one, mean, linear = (tw.evaluate.psnr(x, guess).mean() for guess in (drawn[0], drawn.mean(0), linear_guess(model, operator, y)))
            away = tw.tasks.consistency(operator, drawn, operator.forward(x)).mean()
            figures = covered | {"psnr_of_one": one, "psnr_of_mean": mean, "psnr_linear": linear, "away": away}
            own = {"operator": name, "corrections": corrections, "n": n, "cpu_seconds_sample": cost}
            row["measured"].append(own | {key: float(value) for key, value in figures.items()})
            if not corrections:
                seen = y if y.shape == x.shape else operator.pseudo_inverse(y)
                shown = torch.cat([x[:8, None], seen[:8, None].clamp(-1, 1), drawn[:4, :8].transpose(0, 1)], 1).flatten(0, 1)
                tw.plot.grid(shown, options.pictures / file_of("dual_inverse", model.config.data, name.partition(":")[0]), columns=6)
    return row


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--completions", type=int, default=8, help="of each measured image")
    parser.add_argument("--inverse-images", type=int, default=50, help="that are measured")
    parser.add_argument("--corrected-images", type=int, default=50, help="of these, whose completions are also drawn with steps of MALA")
    parser.add_argument("--samples", type=int, default=2000, help="of each way, and as many held-out images")
    parser.set_defaults(images=10**9)


STUDY = Study(
    name="dual",
    doc=__doc__ or "",
    parts={
        "toys": Part(toy_rows, toy_one, toy_line),
        "mixtures": Part(
            [f"dimensions {d}" for d in DIMENSIONS], mixture_one, lambda name, mine, rows: means(mine, ("gap", "share_error", "log_z"))
        ),
        "holes": Part(tuple(TERM), holes_one, holes_line),
        "halves": Part(("first half", "second half"), half_one, None, more=halves_more),
        "cost": cost,
        "pictures": pictures,
        "likelihood": likelihood,
        "outliers": outliers,
        "uses": uses,
        "inverse": inverse,
        "digits": Part(("dual", "dual, bumps", "flow"), digits_one, lambda name, mine, rows: means(mine, BITS)),
    },
    run=Path("runs/dual"),
    of_run=("pictures", "likelihood", "outliers", "uses", "inverse"),
    add=add,
)

TOYS_TEXT = (
    "Planned for {seconds:g} CPU seconds of one thread a training (beside what each took, on a machine that others used too), "
    "medians over the seeds. `own`: KL(truth‖model) in nats by the model's own normalisation on 100,000 fresh draws; `grid`: by "
    "that on a grid of 400 × 400; log Z by the grid."
)
MIXTURES_TEXT = (
    "8 Gaussians of unequal weights and deviations, about {seconds:g} CPU seconds, {seeds_in_words}: the mean gap of log-densities of "
    "fresh draws to the truth's, the greatest relative error of a mode's share among samples, and log Z by walks along the levels."
)
HOLES_TEXT = (
    "Two Gaussians 16 deviations apart, about {seconds:g} CPU seconds, medians over {seeds_in_words}: the least energy on a grid "
    f"where the true one is {AWAY:g} nats or more above the mean of data, less the model's own mean of data; the "
    "mass that the model has there; KL(truth‖model) by its own normalisation; log Z by the grid."
)
DIGITS_TEXT = (
    "Test images, about {seconds:g} CPU seconds, {seeds_in_words}: bits a dimension by one noise within the bins of grey values and by "
    "the mean probability of eight, both from above; of dual by its own normalisation, and beside it by the likelihood under the flow of "
    "its gradients (256 images) and with log Z by walks along the levels. With bumps the ends of the range are read out smoothly. The flow "
    "is a coupling flow with learned noise within the bins, at the best of eight stops for these test images."
)
HALVES_TEXT = (
    "Two models, each of every other image of {data}, planned for {seconds:g} CPU seconds each: on {images} test images their "
    "log-densities have a correlation of {correlation:.4f}, differ by {difference:+.1f} nats in the mean and {spread_of_difference:.1f} "
    "from image to image, where images differ by {spread:.0f} (standard deviations)."
)
COST_TEXT = (
    "A step on {batch} images of {data} takes {ratio:.2f} times a plain denoiser's of the same body, {gflop_a_step:.1f} GFLOP as "
    "counted, and {share_of_peak:.0f %} of the {peak_gflops:.0f} GFLOP a second that one thread reaches on convolutions; compiled "
    "(`--compile true`) it is {gain:.2f} times as fast, {share_of_peak_compiled:.0f %}."
)
PICTURES_TEXT = (
    "A model of {data}, {parameters:,} parameters, {images:,} images in {train_seconds:,} s of one thread, guard events {guard_events}."
)
LIKELIHOOD_TEXT = (
    "Bits a dimension {bits:.3f} by its own normalisation on all test images; by the flow of its gradients "
    "{flow[bits_per_dimension]:.3f} on {flow[n]} of them, {flow[difference]:+.1f} ± {flow[standard_error]:.1f} nats beside its own; log Z "
    "by walks {level_bounds[estimate][value]:+.1f}, between {level_bounds[lower][low]:.1f} and {level_bounds[upper][high]:.1f} nats."
)
OUTLIERS_TEXT = (
    "AUROC of up to 1,000 test images against outliers of each kind; `levels` looks at eight noise levels, no score at any outlier."
)
USES_TEXT = (
    "Gain in PSNR by denoising, and the level that likelihood finds. Completions of lower halves, 8 for each of 50 images: how many of the "
    "true pixels lie between the least and the greatest, and PSNR of hidden pixels."
)


INVERSE_TEXT = (
    "Test images given y = A x + {noise} ε, {completions} draws each, along 40 levels, without and with one step of MALA at each: how many "
    "of the true pixels lie in the draws' central intervals of 50 and 90 % (pixels that are alike in all draws and the truth left "
    "out), PSNR of one draw, of the draws' mean, and of the linear estimate by the Gaussian with the data's mean and covariance."
)


def sample_rows(values: Any) -> list[Row]:
    return [{"way": way} | found for way, found in values["samples"].items()]


def error_rows(values: Any) -> list[Row]:
    return [{"sigma": sigma, "error": error} for sigma, error in values["noise_error"].items()]


def accuracy_rows(values: Any) -> list[Row]:
    return [{"sigma": sigma, "accuracy": share} for sigma, share in values["accuracy"].items()]


def outlier_rows(values: Any) -> list[Row]:
    scores = values["auroc"]
    return [{"kind": kind} | {score: by[kind] for score, by in scores.items()} for kind in next(iter(scores.values()))]


def level_rows(values: Any) -> list[Row]:
    return [{"sigma": s, "gain": gain, "found": values["level"][s]["median"]} for s, gain in values["denoising"].items()]


PAGE = [
    Section(
        "dual",
        [
            Shown(
                "dual_toys",
                [
                    TOYS_TEXT,
                    Table(
                        "toy, model = row | own = kl_own:.4f | grid = kl_on_grid:.4f | log Z = log_z:+.4f | CPU s = cpu_seconds:.0f | seeds"
                    ),
                ],
            ),
            Shown("dual_mixtures", [MIXTURES_TEXT, Table("data = row | gap = gap:.3f | share = share_error:.3f | log Z = log_z:+.3f")]),
            Shown(
                "dual_holes",
                [
                    HOLES_TEXT,
                    Table(
                        "the term = row | least away = lowest_away:.1f | worst = worst:.1f | mass there = mass_away:.1e | "
                        "worst mass = most:.1e | own = kl_own:.4f | log Z = log_z:+.4f | CPU s = cpu_seconds:.0f"
                    ),
                ],
            ),
            Shown(
                "dual_digits",
                [
                    DIGITS_TEXT,
                    Table(
                        "model = row | bits = bits:.3f | by eight noises = bits_of_several:.3f | by its flow = bits_by_flow:.3f | "
                        "by walks = bits_by_walks:.3f | CPU s = cpu_seconds:.0f"
                    ),
                ],
            ),
            Shown("dual_halves", [HALVES_TEXT, "{source}"]),
            Shown("dual_cost", [COST_TEXT, "{source}"]),
            Shown(
                "dual_pictures",
                [
                    PICTURES_TEXT,
                    Table(
                        "samples = way | Fréchet = frechet:.2f | floor = floor:.2f | KID = kid:.4f | precision = precision:.3f | "
                        "recall = recall:.3f | class accuracy = class_accuracy:.3f | nearer to training images = closer:.1f % | n = n",
                        sample_rows,
                    ),
                    Table("σ = sigma | error of the predicted noise = error:.4f", error_rows),
                    Picture("Samples without a label", "dual_{data}_free.png"),
                    Picture("Samples by label, a class a row, or labels as often as in the data", "dual_{data}_guidance-1.png"),
                    Picture("The same at guidance 2", "dual_{data}_guidance-2.png"),
                    Picture("One of each kind", "dual_{data}_kinds.png"),
                    Picture("Samples and their nearest training images", "dual_neighbours_{data}.png"),
                ],
            ),
            Shown(
                "dual_likelihood",
                [LIKELIHOOD_TEXT, Table("σ = sigma | accuracy by energies given each label = accuracy:.1f %", accuracy_rows)],
            ),
            Shown(
                "dual_outliers",
                [
                    OUTLIERS_TEXT,
                    Table("kind | energy = energy:.3f | typicality = typicality:.3f | mass = mass:.3f | levels = levels:.3f", outlier_rows),
                ],
            ),
            Shown(
                "dual_uses",
                [
                    USES_TEXT,
                    Table("σ = sigma | dB gained = gain:.1f | σ found, median = found:.3f", level_rows),
                    Table(
                        "hidden halves by = way | range of 8 holds = coverage:.1f % | it should = nominal:.1f % | "
                        "mean, dB = psnr_of_mean:.1f | "
                        "one, dB = psnr_of_one:.1f | CPU s a draw = cpu_seconds:.2f",
                        lambda r: [{"way": way, **figures} for way, figures in r["completions"].items()],
                    ),
                    Picture("An image, what is known of it, four draws of the posterior", "dual_completions_{data}_posterior.png"),
                    Picture("The same by a constraint alone", "dual_completions_{data}_constraint.png"),
                ],
            ),
            Shown(
                "dual_inverse",
                [
                    INVERSE_TEXT,
                    Table(
                        "A = operator | steps of MALA = corrections | in 50 % = coverage_50:.1f % | in 90 % = coverage_90:.1f % | "
                        "one, dB = psnr_of_one:.1f | mean, dB = psnr_of_mean:.1f | linear, dB = psnr_linear:.1f | images = n | "
                        "CPU s a draw = cpu_seconds_sample:.2f",
                        lambda values: values["measured"],
                    ),
                    Picture("Blurred: an image, what is measured, four draws", "dual_inverse_{data}_blur.png"),
                    Picture("Means of 4 × 4 pixels: the same", "dual_inverse_{data}_pool.png"),
                ],
            ),
        ],
    )
]

if __name__ == "__main__":
    STUDY.main()
