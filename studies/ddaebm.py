"""DDAEBM: energies and samples against exact densities, levels, a sweep, exact likelihoods, modes, outliers, and cost.

`toys`: DDAEBM, its variants, a short-run energy and DRL on 25 Gaussians, the pinwheel and the Swiss roll (Figures 1, 6 and 7): samples
and exp(−E(·, 0)) against the exact density. `sweep`: penalty, rates and length of the same. `weighted`: K draws of the generator in the
energy's loss, with importance weights, and one that is moved by a short chain. `published`: the paper's rates and length on toys,
`paper`: its networks too, to the letter. `bias`: energies of Gaussian data under the penalty, against the closed form. `levels`: T = 1,
2, 4, 8, Fréchet distance along training (Figure 5). `nice`: exact test log-likelihood of one flow, trained by DDAEBM, as WGAN-0GP and by
maximum likelihood with and without levels (Table 1). `stacked`: modes of stacked digits (Table 11). `ood`: outliers by E(·, 0) of the
variants of Table 5. `cost`: CPU time of a step against that of a plain loop, and of samples against CDRL and DRL.

"chosen" samples are one of 16 draws at each step, by its weight under the energy.

    python -m studies.ddaebm toys sweep --images 900000 --recipe quick
    python -m studies.ddaebm weighted --images 900000 --recipe quick --compile yes
    python -m studies.ddaebm published --images 36000000 --compile yes --seeds 1
    python -m studies.ddaebm levels nice ood cost
    python -m studies.ddaebm stacked --images 100000 --precision bf16
"""

import argparse
import copy
import statistics
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

import thalweg as tw
from studies.measures import Judge, auroc_of, less, mean, means, over_seeds, parameters, ratio, seconds_in_turn, sets_of, trained
from studies.runner import Options, Part, Row, Study, file_of
from studies.tables import Picture, Section, Shown, Table
from thalweg.chain import MALA
from thalweg.methods.ddaebm import DDAEBM as Method
from thalweg.nn.build import MLP, MLPEncoder

TOYS = ("25gaussians", "pinwheel", "swissroll")
SAMPLES = 10_000
CHOSEN_OF = 16  # proposals of each step, of which one is kept by its weight under the energy
STACKS = 26_000
DRAWS = 4  # sets of samples of images
STOPS = 4  # of the Fréchet distance along training
RATES = ("lr", "lr_generator")
COST_ROUNDS, COST_STEPS, OF_COST = 9, 100, dict(width=128, depth=3)
# how a step of the library's is run: fields, precision
WAYS: dict[str, tuple[dict[str, Any], str]] = {
    "eager": ({}, "fp32"), "compiled": ({"compile": True}, "fp32"), "compiled, bf16": ({"compile": True}, "bf16"),
}  # fmt: skip
# ours: weighted draws of the generator in fewer and wider steps, no penalty; lengths in those of --images
WEIGHTED: dict[str, Any] = dict(recipe="weighted")
PROPOSALS = {
    "K = 1": WEIGHTED | {"proposals": None},
    "K = 1, 4 steps of MALA": WEIGHTED | {"proposals": None, "chain": MALA(steps=4, step=0.5, target_acceptance=0.6)},
    "K = 16": WEIGHTED | {"defensive": 0, "contrast": False},
    "K = 16, defensive": WEIGHTED | {"contrast": False},
    "K = 16, contrast": WEIGHTED | {"defensive": 0},
    "K = 16, both": WEIGHTED,
    "both, 3 times as long": WEIGHTED | {"images": 3.0},
}
DDAEBM, KL, MANY = "DDAEBM", "KL divergence", "WGAN-0GPs in a diffusion"
WGAN = "WGAN-0GP"
DRL: dict[str, Any] = {"initializer": None, "steps": 30}
# Table 5; without q_ψ it is a WGAN-0GP at each level, which at one level is the WGAN-0GP of Figure 1 and Table 1
VARIANTS: dict[str, dict[str, Any]] = {
    DDAEBM: {},
    KL: {"objective": "kl"},
    MANY: {"objective": "kl", "encoder": None},
    "no latent variable": {"latent": False, "encoder": None},
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: ("ddaebm", fields) for name, fields in VARIANTS.items()},
    "weighted proposals": ("ddaebm", WEIGHTED),
    "T = 1": ("ddaebm", {"levels": 1}),
    WGAN: ("ddaebm", {"objective": "kl", "encoder": None, "levels": 1}),
    "short-run": ("short_run", {}),
    "DRL": ("cdrl", DRL),
}
# one change of the recipe each; rates in its units, length in those of --images
SWEEP: dict[str, dict[str, Any]] = {
    DDAEBM: {},
    **{f"γ = {value:g}": {"penalty": value, "penalty_end": value} for value in (0.05, 0.02, 0.005, 0.001, 0.0)},
    **{f"γ from 0.02 to {value:g}": {"penalty_end": value} for value in (0.005, 0.0005, 0.0)},
    **{f"rates × {value:g}": {"lr": value, "lr_generator": value} for value in (0.3, 3.0)},
    **{f"energy's rate × {value:g}": {"lr": value} for value in (0.3, 3.0)},
    **{f"rates fall to {value:g}": {"lr_end": value} for value in (0.3, 0.003)},
    **{f"{value:g} times as long": {"images": value} for value in (0.3, 3.0)},
    "entropy's weight 1": {"entropy_weight": 1.0},
    "entropy's weight 0.3": {"entropy_weight": 0.3},
    "entropy's weight 0.03": {"entropy_weight": 0.03},
    KL: {"objective": "kl"},
    f"{KL}, entropy's weight 0.3": {"objective": "kl", "entropy_weight": 0.3},
    f"{KL}, γ from 0.02 to 0.0005": {"objective": "kl", "penalty_end": 0.0005},
    f"{KL}, 3 times as long": {"objective": "kl", "images": 3.0},
    "no Gaussian reference": {"reference_std": 0.0},
    "t'(0) = 0.005": {"first_time": 5e-3},
}
# the paper's t'(0), and one whose noise of 0.045 the encoder can tell from none
BIAS = {f"γ = {value:g}, t'(0) = {first:g}": (value, first) for first in (1e-3, 1e-2) for value in (0.0, 0.02, 0.2)}
LEVELS = {f"T = {levels}": {"levels": levels} for levels in (1, 2, 4, 8)}
LIKELIHOOD, LIKELIHOOD_T = "maximum likelihood", "maximum likelihood with levels"
# row: (fields, the paper's log-likelihood on MNIST)
NICE: dict[str, tuple[dict[str, Any], float | None]] = {
    DDAEBM: ({}, -902.0),
    "DDAEBM, weight 1 of generated points": ({"generated_weight": 1.0}, None),
    WGAN: ({"objective": "kl", "encoder": None, "levels": 1, "generated_weight": 1.0}, -1214.0),
    "WGAN-0GP, weight 0.1 of generated points": ({"objective": "kl", "encoder": None, "levels": 1}, None),
    LIKELIHOOD: ({"levels": 1}, -791.0),
    LIKELIHOOD_T: ({}, -879.0),
}


# --- toys


def of_toy(model: Any, name: str, seed: int, samples: int, picture: Path | None) -> Row:
    """A model's samples and density against those of a toy; distances to as many exact draws."""
    toy = tw.data.toy(name)
    exact = toy.sample(samples, generator=tw.random.seeded(seed, 11))
    x = model.sample(samples, seed=seed + 1)
    density = asdict(tw.evaluate.density(model.energy, toy))
    found = {"kl": density["kl_truth_model"], "total_variation": density["total_variation"], "density": density}
    sets = {"": x}
    if model.name == "ddaebm" and model.encoder is not None:
        sets["chosen_"] = model.sample(samples, seed=seed + 1, proposals=CHOSEN_OF)
    for kind, drawn in sets.items():
        distance, histogram = tw.evaluate.energy_distance_interval(drawn, exact), tw.evaluate.histogram_variation(drawn, toy)
        of_kind = {"energy_distance": distance.value, "energy_distance_error": distance.standard_error}
        of_kind |= {"samples_tv": histogram.value, "samples_tv_floor": histogram.floor}
        if toy.modes is not None:
            modes = tw.evaluate.mode_coverage(drawn, toy)
            of_kind |= {"modes": modes.hit, "within_4_std": modes.fraction, "modes_missing_in_density": density["modes_missing"]}
        found |= {kind + key: value for key, value in of_kind.items()}
    if picture is not None:
        tw.plot.density(model.energy, toy, picture, samples=x[:4000])
    return found


def toy_settings(models: dict[str, tuple[str, dict[str, Any]]], row: str, options: Options) -> tuple[str, dict[str, Any]]:
    """Preset and fields of a row; rates are in units of the preset's, images in those of `options`, which name DDAEBM's recipe too."""
    toy, _, name = row.partition(": ")
    kind, fields = models[name]
    fields = {"images": 1.0, "recipe": options.recipe} | fields
    recipe = fields.pop("recipe")
    preset = f"{kind}/{toy}" if kind != "ddaebm" or recipe == "published" else f"{kind}/{toy}-{recipe}"
    base = tw.methods.preset(preset)[1]
    fields |= {key: fields[key] * getattr(base, key) for key in RATES if key in fields}
    fields["images"] = max(base.batch, round(fields["images"] * options.images))
    return preset, fields | ({"compile": options.compile == "yes"} if kind == "ddaebm" else {})


def toy_one(settings: Any, suffix: str, row: str, seed: int, options: Options) -> Row:
    """A model of a toy, trained and measured."""
    toy, _, name = row.partition(": ")
    model, found = trained(settings(row, options), tw.data.toy(toy), seed, options)
    picture = options.pictures / file_of("ddaebm", toy, name + suffix) if seed == 0 else None
    return found | ({} if model is None else of_toy(model, toy, seed, options.samples, picture))


def toy_line(base: str, name: str, mine: list[Row], rows: list[Row]) -> Row:
    of_samples = ("modes", "within_4_std", "energy_distance", "samples_tv")
    keys = ("kl", "total_variation", *of_samples, "samples_tv_floor", *(f"chosen_{key}" for key in of_samples), "cpu_seconds")
    return means(mine, keys) | less(rows, name, f"{name.partition(': ')[0]}: {base}", "energy_distance")


def on_toys(models: dict[str, tuple[str, dict[str, Any]]], base: str = DDAEBM, suffix: str = "") -> Part:
    settings = partial(toy_settings, models)
    return Part(
        rows=lambda options: [f"{toy}: {name}" for toy in options.toys for name in models],
        one=partial(toy_one, settings, suffix),
        line=partial(toy_line, base),
        settings=settings,
        more=lambda options, rows: {"recipe": options.recipe, "samples": options.samples},
    )


def of_ddaebm(rows: dict[str, dict[str, Any]], **fields: Any) -> dict[str, tuple[str, dict[str, Any]]]:
    return {name: ("ddaebm", row | fields) for name, row in rows.items()}


# --- the penalty's bias


def penalised_precision(gamma: float, variance: float, alpha: float, noise: float) -> float:
    """Precision a of the energy ½ a x² that the game ends at on data N(0, variance) with x_t = alpha x + √noise ε, by closed form.

    Where the generator draws p(x | x_t) ∝ exp(−½ a x²) q(x_t | x), the gradient of eq. 22 and 23 in a vanishes: ½ E_q x² − ½ E_p x² +
    γ a variance = 0. At γ = 0 that is a = 1/variance.
    """

    def slope(a: float) -> float:
        precision = a + alpha**2 / noise
        of_model = 1 / precision + alpha**2 * (alpha**2 * variance + noise) / (noise * precision) ** 2
        return gamma * a * variance + 0.5 * variance - 0.5 * of_model

    low, high = 0.0, 2 / variance
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return (low + high) / 2


def bias_settings(row: str, options: Options) -> tuple[str, dict[str, Any]]:
    gamma, first = BIAS[row]
    fields = dict(penalty=gamma, penalty_end=gamma, first_time=first, entropy_weight=1.0, objective="kl", reference_std=0.0)
    return "ddaebm/25gaussians-quick", fields | {"images": options.images, "compile": options.compile == "yes"}


def bias_one(row: str, seed: int, options: Options) -> Row:
    """Precisions of the learned energies of N(0, I) at each level, by regression on ½|x|², and those of the closed form."""
    toy = tw.data.toy("gaussian")
    model, found = trained(bias_settings(row, options), toy, seed, options)
    if model is None:
        return found
    x0, schedule = toy.sample(20_000, generator=tw.random.seeded(seed, 14)), model.schedule
    for s in range(model.config.levels):
        level = torch.tensor([s])
        x = schedule.diffuse(x0, level.expand(len(x0)), tw.random.normal_like(x0, tw.random.seeded(seed, 15, s)))
        with torch.no_grad():
            energy, half = model.energy(x, t=s), 0.5 * x.square().sum(1)
        one = x0[:1]
        variance = float(schedule.alpha(level, one).square() + schedule.sigma(level, one).square())
        alpha, noise = float(schedule.step_alpha(level + 1, one)), float(schedule.step_variance(level + 1, one))
        found[f"level {s}"] = float(torch.cov(torch.stack([energy, half]))[0, 1] / half.var())
        found[f"level {s}, closed form"] = penalised_precision(BIAS[row][0], variance, alpha, noise)
    return found


OF_BIAS = tuple(f"level {s}{what}" for s in range(4) for what in ("", ", closed form"))

# --- images


def image_settings(models: dict[str, dict[str, Any]], row: str, options: Options, data: str = "") -> tuple[str, dict[str, Any]]:
    return f"ddaebm/{data or options.data}", {"images": options.images, **models[row]}


def levels_one(row: str, seed: int, options: Options) -> Row:
    train, test = sets_of(options)
    judge = Judge.of(options.data, train, test)

    def look(twin: Any, last: bool) -> Row:
        return {"frechet": judge.distance(twin, seed, draws=DRAWS)}

    model, found = trained(image_settings(LEVELS, row, options), train, seed, options, stops=STOPS, look=look)
    if model is None:
        return found
    if seed == 0:
        tw.plot.grid(model.sample(64, seed=1), options.pictures / file_of("ddaebm", options.data, row), columns=16)
    return found | {"frechet": found["along"][-1]["frechet"], "floor": judge.floor}


def levels_line(name: str, mine: list[Row], rows: list[Row]) -> Row:
    along = {f"frechet {i + 1}/{STOPS}": mean(row["along"][i]["frechet"] for row in mine if len(row["along"]) > i) for i in range(STOPS)}
    return along | means(mine, ("floor", "cpu_seconds")) | less(rows, name, "T = 4", "frechet")


class MaximumLikelihood(Method):
    """The flow of DDAEBM by maximum likelihood, on the same diffused data."""

    def step(self, batch: Any, update: Any) -> None:
        g = update.generator
        x, _ = self.logits.encode(self.dequantise(batch.x, tw.random.uniform(*batch.x.shape, generator=g, device=batch.x.device)))
        s = self.schedule.sample_level(len(x), generator=g, device=x.device) - 1
        update("energy", self.net(self.schedule.diffuse(x, s, tw.random.normal_like(x, g)), s).mean())


def nice_settings(row: str, options: Options) -> tuple[str, dict[str, Any]]:
    preset = f"ddaebm/{options.data}-nice"
    base = tw.methods.preset(preset)[1]
    fields = {"images": options.images} | {key: options.rate * getattr(base, key) for key in RATES} | NICE[row][0]
    networks = ("net", "encoder") if fields.get("encoder", base.encoder) else ("net",)
    return preset, fields | ({f"{network}.width": options.width for network in networks} if options.width else {})


def nice_one(row: str, seed: int, options: Options) -> Row:
    """Exact log-likelihood of held-out images with noise in their bins, in nats of x and of logits, the unit of Table 1."""
    (train, test), (preset, fields) = sets_of(options), nice_settings(row, options)
    model = tw.method(preset, seed=seed, data=train, **fields)
    if row in (LIKELIHOOD, LIKELIHOOD_T):
        start = model.state_dict()
        model = MaximumLikelihood(model.config)
        model.load_state_dict(start)
    model, found = trained(model, train, seed, options)
    if model is None:
        return found
    x, grey = test.all().x, model.config.grey_values
    x = model.dequantise(x, tw.random.uniform(*x.shape, generator=tw.random.seeded(seed, 12)))
    report = tw.evaluate.log_likelihood(model.energy, x, 0.0, bin_width=2 / (grey - 1))
    found |= {"nats": report.value.value, "nats_error": report.value.standard_error, "bits_per_dimension": report.bits_per_dimension}
    found["nats_of_logits"] = report.value.value - float(model.logits.encode(x.double())[1].mean())
    if seed == 0:
        with torch.no_grad():
            z = tw.random.normal(64, x[0].numel(), generator=tw.random.seeded(1))
            exact = model.logits.decode(model.net.decode(z, torch.zeros(64, dtype=torch.long))).clamp(-1, 1).view(64, *x.shape[1:])
        pictures = {"flow": exact} | ({} if isinstance(model, MaximumLikelihood) else {"generator": model.sample(64, seed=1)})
        for name, images in pictures.items():
            tw.plot.grid(images, options.pictures / file_of("ddaebm", options.data, "nice", row, name), columns=16)
    return found


def nice_line(name: str, mine: list[Row], rows: list[Row]) -> Row:
    keys = ("nats_of_logits", "nats", "bits_per_dimension", "cpu_seconds")
    return {"paper": NICE[name][1]} | means(mine, keys) | less(rows, name, LIKELIHOOD, "nats_of_logits")


def stacked_settings(row: str, options: Options) -> tuple[str, dict[str, Any]]:
    return image_settings(VARIANTS, row, options, "stacked-digits")


def stacked_one(row: str, seed: int, options: Options) -> Row:
    train, test = sets_of(options, "stacked-digits")
    model, found = trained(stacked_settings(row, options), train, seed, options)
    if model is None:
        return found
    x = model.sample(options.stacks, seed=seed + 1)
    report = tw.evaluate.stacked_modes(x, tw.evaluate.extractor("digits"), held_out=tuple(test.batch(0, options.stacks, seed=0)))
    if seed == 0:
        tw.plot.grid(x[:64], options.pictures / file_of("ddaebm", "stacked-digits", row), columns=16)
    return found | {"modes": report.samples.modes, "kl": report.samples.kl, "report": asdict(report)}


def ood_one(row: str, seed: int, options: Options) -> Row:
    """Detection by E(·, 0), of images of another set, of made outliers, and of the test images with noise (Figure 4)."""
    train, test = sets_of(options)
    model, found = trained(image_settings(VARIANTS, row, options), train, seed, options)
    if model is None:
        return found
    x = test.all().x
    other = "mnist-small" if options.data == "fashion-mnist" else "fashion-mnist"
    others = {other: tw.data.load(other, "test", size=x.shape[-1]).all().x[: len(x)]}
    noise = tw.random.normal_like(x, tw.random.seeded(seed, 13))
    others |= {f"noise of {std:g}": x + std * noise for std in (0.01, 0.1, 0.5)}
    found["auroc"] = auroc_of(model, x, others, seed=seed)["energy"]
    return found | {"mean_auroc": mean(found["auroc"].values())}


def ood_line(name: str, mine: list[Row], rows: list[Row]) -> Row:
    kinds = tuple(dict.fromkeys(kind for row in rows for kind in row.get("auroc", ())))
    return means((row.get("auroc", {}) for row in mine), kinds) | means(mine, ("mean_auroc",)) | less(rows, name, KL, "mean_auroc")


# --- cost


def plain_steps(model: Any, toy: Any) -> Callable[[int], None]:
    """The same step in a loop as one writes it first: `backward`, Adam and the EMA with PyTorch's defaults, nothing compiled."""
    c, ema = model.config, copy.deepcopy(model)
    rates = dict(betas=(0.0, c.beta2))
    optimizers = [
        torch.optim.Adam(model.net.parameters(), lr=c.lr, **rates),
        torch.optim.Adam([*model.generator.parameters(), *model.encoder.parameters()], lr=c.lr_generator, **rates),
    ]
    g, gamma = tw.random.seeded(0), torch.tensor(c.penalty)

    def update(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> float:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    def run(steps: int) -> None:
        for i in range(steps):
            x0 = toy.batch(i * c.batch, c.batch, 0).x
            t = model.schedule.sample_level(c.batch, generator=g)
            z = tw.random.normal(c.batch, c.latent_dim, generator=g)
            x_s, x_t, generated = model.pairs(x0, t, z, *(tw.random.normal_like(x0, g) for _ in range(3)))
            update(optimizers[0], model.energy_loss(x_s, generated.detach(), x_t, t, gamma)[0])
            update(optimizers[1], model.generator_loss(generated, z, x_s, x_t, t, tw.random.normal_like(z, g))[0])
            with torch.no_grad():
                for slow, fast in zip(ema.parameters(), model.parameters()):
                    slow.mul_(c.ema).add_(fast, alpha=1 - c.ema)

    return run


def share_of_products(run: Callable[[int], None]) -> float:
    """The part of the time in steps that matrix products take, which neither compiling nor a leaner loop can shorten."""
    run(2)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        run(COST_STEPS)
    events = profiled.key_averages()
    products = sum(event.self_cpu_time_total for event in events if event.key in ("aten::mm", "aten::addmm", "aten::bmm"))
    return products / sum(event.self_cpu_time_total for event in events)


def by_fit(model: Any, toy: Any, precision: str) -> Callable[[int], None]:
    def run(steps: int) -> None:
        images = steps * model.config.batch
        tw.fit(model, toy, images=images, log_every=images, save_every=images, precision=precision, progress=False)

    return run


def cost(options: Options) -> dict[str, Any]:
    """CPU seconds of a step by the plain loop and by the library's in `WAYS`, in turn; and of samples at equal width."""
    torch.set_num_threads(1)
    toy, found = tw.data.toy("25gaussians"), {"rounds": COST_ROUNDS, "steps_a_round": COST_STEPS, "training": [], "sampling": []}
    for preset in ("25gaussians", "25gaussians-quick"):
        models = {way: tw.method(f"ddaebm/{preset}", seed=0, **fields) for way, (fields, _) in WAYS.items()}
        runs = {"plain loop": plain_steps(tw.method(f"ddaebm/{preset}", seed=0), toy)}
        runs |= {way: by_fit(model, toy, WAYS[way][1]) for way, model in models.items()}
        products = share_of_products(runs["plain loop"])
        first, seconds = seconds_in_turn({name: partial(run, COST_STEPS) for name, run in runs.items()}, COST_ROUNDS)
        row = {"preset": preset, "first_seconds": first, "products_share": products}
        row["seconds_a_step"] = {name: statistics.median(values) / COST_STEPS for name, values in seconds.items()}
        row["plain loop over"] = {way: ratio(seconds["plain loop"], seconds[way]) for way in WAYS}
        found["training"].append(row)
        print(row["seconds_a_step"], row["plain loop over"], flush=True)
    n, sizes = 2000, {"net.width": 128}
    samplers = {
        "DDAEBM": tw.method("ddaebm/25gaussians", seed=0, net=MLP(**OF_COST), encoder=MLPEncoder(**OF_COST)),
        "CDRL": tw.method("cdrl/25gaussians", seed=0, **sizes),
        "DRL": tw.method("cdrl/25gaussians", seed=0, **DRL, **sizes),
    }
    _, seconds = seconds_in_turn({name: partial(model.sample, n, seed=1) for name, model in samplers.items()}, COST_ROUNDS)
    for name, model in samplers.items():
        # without the proposals of jumps
        evaluations = model.config.levels * (1 if name == "DDAEBM" else model.config.chain.steps)
        row = {"model": name, "parameters": parameters(model), "network_evaluations": evaluations}
        found["sampling"].append(row | {"samples_a_second": n / statistics.median(seconds[name])})
    return found


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--toys", nargs="+", choices=TOYS, default=list(TOYS), help="toys of the parts that learn them")
    parser.add_argument("--recipe", choices=("published", "quick"), default="quick", help="preset of DDAEBM's rows on toys")
    parser.add_argument("--compile", choices=("no", "yes"), default="no", help="compile steps of DDAEBM on toys")
    parser.add_argument("--width", type=int, help="hidden units of the part nice, the preset's by default")
    parser.add_argument("--rate", type=float, default=1.0, help="learning rates of the part nice, in the preset's")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="of each model of a toy")
    parser.add_argument("--stacks", type=int, default=STACKS, help="samples that modes are counted in")


STUDY = Study(
    "ddaebm",
    __doc__,
    {
        "toys": on_toys(MODELS),
        "published": on_toys(of_ddaebm(VARIANTS, recipe="published"), suffix=" published"),
        "paper": on_toys(of_ddaebm({DDAEBM: {}}, recipe="paper"), suffix=" paper"),
        "sweep": on_toys(of_ddaebm(SWEEP)),
        "weighted": on_toys(of_ddaebm(PROPOSALS), base="K = 16, both"),
        "bias": Part(BIAS, bias_one, over_seeds(*OF_BIAS, "cpu_seconds"), bias_settings),
        "levels": Part(LEVELS, levels_one, levels_line, partial(image_settings, LEVELS)),
        "nice": Part(NICE, nice_one, nice_line, nice_settings),
        "stacked": Part(
            VARIANTS,
            stacked_one,
            over_seeds("modes", "kl", "cpu_seconds"),
            stacked_settings,
            lambda options, rows: {"samples": options.stacks},
        ),
        "ood": Part(VARIANTS, ood_one, ood_line, partial(image_settings, VARIANTS)),
        "cost": cost,
    },
    add=add,
)

# --- the page


def columns(r: dict[str, Any]) -> list[str]:
    """All figures of the summary; differences where there are some."""
    compared = any(line.get("difference") is not None for line in r["summary"])
    keys = [key for key in r["summary"][0] if compared or key not in ("less", "difference", "standard_error")]
    return [f"{key.replace('_', ' ')} = {key}" for key in keys]


def part(name: str, title: str) -> Shown:
    text = title + "; {images:,} images per model, {seeds_in_words}:"
    below = [Picture(caption, f"ddaebm_{file}.png") for file, caption in PICTURES.get(name, {}).items()]
    return Shown(f"ddaebm_{name}", [text, Table(columns), *below])


def cost_columns(r: dict[str, Any]) -> list[tuple]:
    ways = ("plain loop", *r["training"][0]["plain loop over"])
    steps = [(way, lambda row, way=way: 1000 * row["seconds_a_step"][way], ".1f") for way in ways]
    steps[0] = ("plain loop, ms per step", *steps[0][1:])
    over = [(f"plain loop over {way}", lambda row, way=way: row["plain loop over"][way], ".2f") for way in ways[1:]]
    return [("preset", "preset"), *steps, *over, ("plain loop's matrix products", "products_share", ".0%")]


COST = [
    "CPU time of a training step, one thread:",
    Table(cost_columns, "training"),
    "Samples of 25gaussians, networks of equal width:",
    Table("model | parameters:, | network evaluations = network_evaluations | samples per second = samples_a_second:,.0f", "sampling"),
]
ON_TOYS = ("25gaussians_ddaebm", "25gaussians_kldivergence", "25gaussians_drl", "pinwheel_ddaebm", "pinwheel_drl", "swissroll_ddaebm")
TITLES = {
    "toys": "Samples and exp(−E(·, 0)) of toys against the exact ones",
    "sweep": "One change to the recipe at a time, on toys",
    "published": "Toys by the paper's recipe",
    "weighted": "K draws of the generator per row in the energy's loss, with importance weights, on toys",
    "bias": "Precision of the learned energies of N(0, I) by level and penalty, with its closed form; without a penalty it would be 1",
    "levels": "Denoising steps, Fréchet distance along training",
    "nice": "Exact log-likelihood of held-out images, one flow",
    "stacked": "Modes of stacked digits",
    "ood": "AUROC of outliers by E(·, 0)",
}
# captions by file
PICTURES: dict[str, dict[str, str]] = {
    "toys": dict.fromkeys(ON_TOYS, "{words}: truth, exp(−E), samples"),
    "weighted": {"*_k1*": "ddaebm, {words}: truth, exp(−E), samples"},
    "levels": {"digits_t4": "samples with four steps"},
    "nice": {f"fashion-mnist_nice_ddaebm_{what}": f"samples of the {what}" for what in ("generator", "flow")},
    "stacked": {"stacked-digits_ddaebm": "three digits in red, green and blue"},
}
PAGE = [Section("DDAEBM", [*(part(name, title) for name, title in TITLES.items()), Shown("ddaebm_cost", COST)])]

if __name__ == "__main__":
    STUDY.main()
