"""What DDAEBM's energies and samples are worth: toys against exact densities, levels, a sweep, NICE, stacks, outliers, and the cost.

`toys`: DDAEBM, its variants, a short-run energy and DRL on 25 Gaussians, the pinwheel and the Swiss roll (Figures 1, 6 and 7): samples
and exp(−E(·, 0)) against the exact density. `sweep`: penalty, rates and length of the same. `weighted`: K draws of the generator in
the energy's loss, with importance weights. `published`: the paper's own recipe on toys. `bias`: energies of Gaussian data under the
penalty, beside the closed form. `levels`: T = 1, 2, 4, 8, Fréchet distance along training (Figure 5). `nice`: exact test
log-likelihood of one flow, trained by DDAEBM, as WGAN-0GP and by maximum likelihood with and without levels (Table 1). `stacked`: modes
of stacked digits (Table 11). `ood`: outliers by E(·, 0) of the variants of Table 5. `cost`: CPU time of a step beside a plain loop,
and of samples beside CDRL and DRL.

"chosen" samples are one of 16 draws at each step, by its weight under the energy.

    python -m studies.ddaebm toys sweep --images 900000 --recipe quick
    python -m studies.ddaebm weighted --images 900000 --recipe quick --compile yes
    python -m studies.ddaebm published --images 36000000 --compile yes --seeds 1
    python -m studies.ddaebm levels nice ood cost
    python -m studies.ddaebm stacked --images 100000 --precision bf16
"""

import argparse
import copy
import math
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from studies.runner import Study, file_of  # after the setting, which torch reads when it is imported

TOYS = ("25gaussians", "pinwheel", "swissroll")
SAMPLES = 10_000
CHOSEN_OF = 16  # proposals of each step, of which one is kept by its weight under the energy
STACKS = 26_000
DRAWS = 4  # sets of samples of images
PLACES = 4  # of the Fréchet distance along training
COST_ROUNDS, COST_STEPS = 9, 100
# how a step of the library's is run: fields, precision
WAYS: dict[str, tuple[dict[str, Any], str]] = {
    "eager": ({}, "fp32"), "compiled": ({"compile": True}, "fp32"), "compiled, bf16": ({"compile": True}, "bf16"),
}  # fmt: skip
# ours: weighted draws of the generator in fewer and wider steps, no penalty; lengths in those of --images
WEIGHTED: dict[str, Any] = dict(recipe="weighted")
PROPOSALS = {
    "K = 1": WEIGHTED | {"proposals": 1, "defensive": 0, "contrast": False},
    "K = 16": WEIGHTED | {"defensive": 0, "contrast": False},
    "K = 16, defensive": WEIGHTED | {"contrast": False},
    "K = 16, contrast": WEIGHTED | {"defensive": 0},
    "K = 16, both": WEIGHTED,
    "both, 3 times as long": WEIGHTED | {"images": 3.0},
}
DDAEBM, KL, MANY = "DDAEBM", "KL divergence", "WGAN-0GPs in a diffusion"
WGAN = "WGAN-0GP"
DRL: dict[str, Any] = {"initializer": False, "steps": 30}
# Table 5; without q_ψ it is a WGAN-0GP at each level, which at one level is the WGAN-0GP of Figure 1 and Table 1
VARIANTS: dict[str, dict[str, Any]] = {
    DDAEBM: {},
    KL: {"objective": "kl"},
    MANY: {"objective": "kl", "posterior": False},
    "no latent variable": {"latent": False},
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: ("ddaebm", fields) for name, fields in VARIANTS.items()},
    "weighted proposals": ("ddaebm", WEIGHTED),
    "T = 1": ("ddaebm", {"levels": 1}),
    WGAN: ("ddaebm", {"objective": "kl", "posterior": False, "levels": 1}),
    "short-run": ("short_run", {}),
    "DRL": ("cdrl", DRL),
}
# one change of the recipe each; rates in its units, length in those of --images
SWEEP: dict[str, dict[str, Any]] = {
    DDAEBM: {},
    **{f"γ = {value:g}": {"gamma": value, "gamma_end": value} for value in (0.05, 0.02, 0.005, 0.001, 0.0)},
    **{f"γ from 0.02 to {value:g}": {"gamma_end": value} for value in (0.005, 0.0005, 0.0)},
    **{f"rates × {value:g}": {"lr": value, "lr_energy": value} for value in (0.3, 3.0)},
    **{f"energy's rate × {value:g}": {"lr_energy": value} for value in (0.3, 3.0)},
    **{f"rates fall to {value:g}": {"lr_end": value} for value in (0.3, 0.003)},
    **{f"{value:g} times as long": {"images": value} for value in (0.3, 3.0)},
    "entropy's weight 1": {"entropy_weight": 1.0},
    "entropy's weight 0.3": {"entropy_weight": 0.3},
    "entropy's weight 0.03": {"entropy_weight": 0.03},
    KL: {"objective": "kl"},
    f"{KL}, entropy's weight 0.3": {"objective": "kl", "entropy_weight": 0.3},
    f"{KL}, γ from 0.02 to 0.0005": {"objective": "kl", "gamma_end": 0.0005},
    f"{KL}, 3 times as long": {"objective": "kl", "images": 3.0},
    "no Gaussian reference": {"reference_std": 0.0},
    "t'(0) = 0.005": {"first": 5e-3},
}
# the paper's t'(0), and one whose noise of 0.045 the encoder can tell from none
BIAS = {f"γ = {value:g}, t'(0) = {first:g}": dict(gamma=value, first=first) for first in (1e-3, 1e-2) for value in (0.0, 0.02, 0.2)}
LEVELS = {f"T = {levels}": {"levels": levels} for levels in (1, 2, 4, 8)}
LIKELIHOOD, LIKELIHOOD_T = "maximum likelihood", "maximum likelihood with levels"
# row: (fields, the paper's log-likelihood on MNIST)
NICE: dict[str, tuple[dict[str, Any], float | None]] = {
    DDAEBM: ({}, -902.0),
    "DDAEBM, weight 1 of generated points": ({"generated_weight": 1.0}, None),
    WGAN: ({"objective": "kl", "posterior": False, "levels": 1, "generated_weight": 1.0}, -1214.0),
    "WGAN-0GP, weight 0.1 of generated points": ({"objective": "kl", "posterior": False, "levels": 1}, None),
    LIKELIHOOD: ({"levels": 1}, -791.0),
    LIKELIHOOD_T: ({}, -879.0),
}


def trained(model: Any, data: Any, seed: int, options: argparse.Namespace, *, stops: tuple[float, ...] = (1.0,)) -> Any:
    """Train `model`, at most `options.seconds` CPU seconds; yields the EMA twin and how that went at each of `stops`, shares of its images.

    A model that diverged is None.
    """
    import tempfile

    import thalweg as tw
    from thalweg.checkpoint import latest, read_stats
    from thalweg.errors import Diverged

    images, batch = model.config.images, model.config.batch
    found: dict[str, Any] = {"parameters": sum(p.numel() for p in model.parameters()), "diverged": None}
    settings = dict(log_every=max(batch, images // 50), sample_every=10**12, save_every=max(batch, images // 10))
    with tempfile.TemporaryDirectory() as folder:
        for stop in stops:
            started = time.process_time()
            try:
                twin = tw.fit(
                    model, data, Path(folder), seed=seed, images=max(batch, round(stop * images)), seconds=options.seconds,
                    clock=time.process_time, precision=options.precision, progress=False, **settings,
                )  # fmt: skip
            except Diverged as trouble:
                yield None, found | {"diverged": str(trouble)}
                return
            stats = read_stats(Path(folder))
            seen = latest(Path(folder))
            found |= {"images": seen["images"], "updates": seen["updates"], "cpu_seconds": round(seen["elapsed"], 1)}
            found |= {"waited": round(time.process_time() - started, 1), "guard_events": sum("event" in row for row in stats)}
            yield twin.eval(), dict(found)


def means(rows: list[dict[str, Any]], keys: tuple[str, ...]) -> dict[str, float | None]:
    """The mean of each key over the rows that have it."""
    known = {key: [row[key] for row in rows if row.get(key) is not None] for key in keys}
    return {key: statistics.fmean(values) if values else None for key, values in known.items()}


def line_of(name: str, mine: list[dict[str, Any]]) -> dict[str, Any]:
    return {"row": name, "seeds": len(mine), "diverged": sum(bool(row["diverged"]) for row in mine)}


def paired(rows: list[dict[str, Any]], name: str, base: str, key: str) -> dict[str, float | None]:
    """Mean and standard error over seeds of the row `name`'s `key` less that of the row `base` at the same seed."""
    known = {(row["row"], row["seed"]): row.get(key) for row in rows}
    gaps = [
        v - known[base, s] for (row, s), v in known.items() if row == name != base and v is not None and known.get((base, s)) is not None
    ]
    error = statistics.stdev(gaps) / math.sqrt(len(gaps)) if len(gaps) > 1 else None
    return {"less": base, "difference": statistics.fmean(gaps) if gaps else None, "standard_error": error}


def ran(part: str, names: Any, options: argparse.Namespace) -> list[dict[str, Any]]:
    return STUDY.rows(part, [(row, seed) for seed in range(options.seeds) for row in names], options)


# --- toys


def of_toy(model: Any, name: str, seed: int, samples: int, picture: Path | None) -> dict[str, Any]:
    """A model's samples and density against those of a toy; distances to as many exact draws."""
    import thalweg as tw

    toy = tw.data.toy(name)
    exact = toy.sample(samples, generator=tw.random.seeded(seed, 11))
    x = model.sample(samples, seed=seed + 1)
    density = asdict(tw.evaluate.density(model.energy, toy))
    found = {"kl": density["kl_truth_model"], "total_variation": density["total_variation"], "density": density}
    sets = {"": x}
    if getattr(model, "encodes", False):
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


def toy_settings(toy: str, kind: str, fields: dict[str, Any], options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Preset and fields of a row; rates are in units of the preset's, images in those of `options`, which name DDAEBM's recipe too."""
    import thalweg as tw

    fields = {"images": 1.0, "recipe": options.recipe} | fields
    recipe = fields.pop("recipe")
    preset = f"{kind}/{toy}" if kind != "ddaebm" or recipe == "published" else f"{kind}/{toy}-{recipe}"
    base = tw.method(preset).config
    for key in ("lr", "lr_energy"):
        if key in fields:
            fields[key] *= getattr(base, key)
    fields["images"] = max(base.batch, round(fields["images"] * options.images))
    if kind == "ddaebm":
        fields["compile"] = options.compile == "yes"
    return preset, fields


def toy_row(
    toy: str, name: str, kind: str, fields: dict[str, Any], seed: int, options: argparse.Namespace, title: str = ""
) -> dict[str, Any]:
    """A model of a toy, trained and measured; its picture is named after `title`, by default `name`."""
    import thalweg as tw

    preset, fields = toy_settings(toy, kind, fields, options)
    ((model, found),) = trained(tw.method(preset, seed=seed, **fields), tw.data.toy(toy), seed, options)
    row = {"row": f"{toy}: {name}", "seed": seed} | found
    picture = options.pictures / file_of("ddaebm", toy, title or name) if seed == 0 else None
    return row if model is None else row | of_toy(model, toy, seed, options.samples, picture)


def toys_one(row: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    toy, _, name = row.partition(": ")
    return toy_row(toy, name, *MODELS[name], seed, options)


def weighted_one(row: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    toy, _, name = row.partition(": ")
    return toy_row(toy, name, "ddaebm", PROPOSALS[name], seed, options)


def sweep_one(row: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    toy, _, name = row.partition(": ")
    return toy_row(toy, name, "ddaebm", SWEEP[name], seed, options)


def on_toys(part: str, names: Any, options: argparse.Namespace, base: str = DDAEBM) -> dict[str, Any]:
    names = STUDY.chosen([f"{toy}: {name}" for toy in options.toys for name in names], options)
    rows, lines = ran(part, names, options), []
    of_samples = ("modes", "within_4_std", "energy_distance", "samples_tv")
    keys = ("kl", "total_variation", *of_samples, "samples_tv_floor", *(f"chosen_{key}" for key in of_samples), "cpu_seconds")
    for name in names:
        mine = [row for row in rows if row["row"] == name]
        line = line_of(name, mine) | means(mine, keys)
        lines.append(line | paired(rows, name, f"{name.partition(': ')[0]}: {base}", "energy_distance"))
    return {"recipe": options.recipe, "samples": options.samples, "summary": lines, "runs": rows}


def toys(options: argparse.Namespace) -> dict[str, Any]:
    return on_toys("toys", MODELS, options)


def sweep(options: argparse.Namespace) -> dict[str, Any]:
    return on_toys("sweep", SWEEP, options)


def published_one(row: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    toy, _, name = row.partition(": ")
    return toy_row(toy, name, "ddaebm", VARIANTS[name] | {"recipe": "published"}, seed, options, f"{name} published")


def published(options: argparse.Namespace) -> dict[str, Any]:
    return on_toys("published", VARIANTS, options)


def weighted(options: argparse.Namespace) -> dict[str, Any]:
    return on_toys("weighted", PROPOSALS, options, base="K = 16, both")


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


def bias_one(row: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Precisions of the learned energies of N(0, I) at each level, by regression on ½|x|², beside those of the closed form."""
    import torch

    import thalweg as tw
    from thalweg.methods.ddaebm import _QUICK

    gamma = BIAS[row]["gamma"]
    recipe = _QUICK | BIAS[row] | {"images": options.images, "entropy_weight": 1.0, "objective": "kl", "gamma_end": gamma}
    toy = tw.data.toy("gaussian")
    method = tw.method("ddaebm/gaussian", seed=seed, **recipe, reference_std=0.0, compile=options.compile == "yes")
    ((model, found),) = trained(method, toy, seed, options)
    found = {"row": row, "seed": seed} | BIAS[row] | found
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
        found[f"level {s}, closed form"] = penalised_precision(gamma, variance, alpha, noise)
    return found


def bias(options: argparse.Namespace) -> dict[str, Any]:
    names = STUDY.chosen(BIAS, options)
    rows, lines = ran("bias", names, options), []
    keys = tuple(f"level {s}{what}" for s in range(4) for what in ("", ", closed form"))
    for name in names:
        mine = [row for row in rows if row["row"] == name]
        lines.append(line_of(name, mine) | means(mine, (*keys, "cpu_seconds")))
    return {"summary": lines, "runs": rows}


# --- images


def sets_of(options: argparse.Namespace, name: str | None = None) -> tuple[Any, Any]:
    import thalweg as tw

    return tuple(tw.data.load(name or options.data, split, size=options.size) for split in ("train", "test"))


def images_model(fields: dict[str, Any], seed: int, options: argparse.Namespace, train: Any, preset: str | None = None) -> Any:
    import thalweg as tw

    return tw.method(f"ddaebm/{preset or options.data}", seed=seed, data=train, **{"images": options.images, **fields})


def frechet_of(model: Any, train: Any, test: Any, extractor: Any, seed: int) -> dict[str, float]:
    """Mean over `DRAWS` sets of as many samples as there are held-out images."""
    import thalweg as tw

    held_out = test.all().x[:2000]
    sets = [model.sample(len(held_out), seed=1000 * seed + draw + 1) for draw in range(DRAWS)]
    found = [tw.evaluate.fidelity(train.all().x, x, extractor, held_out=held_out, metrics=("frechet",)).frechet for x in sets]
    return {"frechet": statistics.fmean(f.value for f in found), "floor": found[0].held_out}


def levels_one(row: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    import thalweg as tw

    train, test = sets_of(options)
    extractor = tw.evaluate.extractor((tuple(train.all()), tuple(test.all())), name=options.data)
    result: dict[str, Any] = {"row": row, "seed": seed, "along": []}
    stops = tuple((i + 1) / PLACES for i in range(PLACES))
    for model, found in trained(images_model(LEVELS[row], seed, options, train), train, seed, options, stops=stops):
        result |= found
        if model is None:
            return result | {"frechet": None}
        result |= frechet_of(model, train, test, extractor, seed)
        result["along"].append({"images": found["images"], "frechet": result["frechet"]})
    if seed == 0:
        tw.plot.grid(model.sample(64, seed=1), options.pictures / file_of("ddaebm", options.data, row), columns=16)
    return result


def levels(options: argparse.Namespace) -> dict[str, Any]:
    names = STUDY.chosen(LEVELS, options)
    rows, lines = ran("levels", names, options), []
    for name in names:
        mine = [row for row in rows if row["row"] == name]
        line = line_of(name, mine)
        for i in range(PLACES):
            line |= {
                f"frechet {i + 1}/{PLACES}": means([row["along"][i] for row in mine if len(row["along"]) > i], ("frechet",))["frechet"]
            }
        lines.append(line | means(mine, ("floor", "cpu_seconds")) | paired(rows, name, "T = 4", "frechet"))
    return {"summary": lines, "runs": rows}


def nice_one(row: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Exact log-likelihood of held-out images with noise in their bins, in nats of x and of logits, the unit of Table 1."""
    import torch

    import thalweg as tw
    from thalweg.methods.ddaebm import DDAEBM as Base

    class MaximumLikelihood(Base):
        """The flow of DDAEBM by maximum likelihood, on the same diffused data."""

        def step(self, batch, update):
            g = update.generator
            x, _ = self.logits(self.dequantise(batch.x, tw.random.uniform(*batch.x.shape, generator=g, device=batch.x.device)))
            s = self.schedule.sample_level(len(x), generator=g, device=x.device) - 1
            update("energy", self.energy_net(self.schedule.diffuse(x, s, tw.random.normal_like(x, g)), s).mean())

    train, test = sets_of(options)
    fields, _ = NICE[row]
    preset = f"{options.data}-nice"
    base = tw.method(f"ddaebm/{preset}", data=train).config
    rates = {"lr": options.rate * base.lr, "lr_energy": options.rate * base.lr_energy}
    model = images_model({"width": options.width or base.width} | rates | fields, seed, options, train, preset=preset)
    if row in (LIKELIHOOD, LIKELIHOOD_T):
        start = model.state_dict()
        model = MaximumLikelihood(model.config)
        model.load_state_dict(start)
    ((model, found),) = trained(model, train, seed, options)
    found = {"row": row, "seed": seed} | found
    if model is None:
        return found | {"nats": None, "nats_of_logits": None, "bits_per_dimension": None}
    x, grey = test.all().x, model.config.grey_values
    x = model.dequantise(x, tw.random.uniform(*x.shape, generator=tw.random.seeded(seed, 12)))
    report = tw.evaluate.log_likelihood(model.energy, x, 0.0, bin_width=2 / (grey - 1))
    found |= {"nats": report.value.value, "nats_error": report.value.standard_error, "bits_per_dimension": report.bits_per_dimension}
    found["nats_of_logits"] = report.value.value - float(model.logits(x.double())[1].mean())
    if seed == 0:
        with torch.no_grad():
            z = tw.random.normal(64, x[0].numel(), generator=tw.random.seeded(1))
            exact = model._from_logits(model.energy_net.decode(z, torch.zeros(64, dtype=torch.long))).clamp(-1, 1).view(64, *x.shape[1:])
        for name, shown in (("flow", exact), ("generator", model.sample(64, seed=1))):
            if name == "flow" or not isinstance(model, MaximumLikelihood):
                tw.plot.grid(shown, options.pictures / file_of("ddaebm", options.data, "nice", row, name), columns=16)
    return found


def nice(options: argparse.Namespace) -> dict[str, Any]:
    names = STUDY.chosen(NICE, options)
    rows, lines = ran("nice", names, options), []
    for name in names:
        mine = [row for row in rows if row["row"] == name]
        line = {"row": name, "seeds": len(mine), "diverged": sum(bool(row["diverged"]) for row in mine), "paper": NICE[name][1]}
        line |= means(mine, ("nats_of_logits", "nats", "bits_per_dimension", "cpu_seconds"))
        lines.append(line | paired(rows, name, LIKELIHOOD, "nats_of_logits"))
    return {"summary": lines, "runs": rows}


def stacked_one(row: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    import thalweg as tw

    train, test = sets_of(options, "stacked-digits")
    model = images_model(VARIANTS[row], seed, options, train, preset="stacked-digits")
    ((model, found),) = trained(model, train, seed, options)
    found = {"row": row, "seed": seed, "modes": None, "kl": None} | found
    if model is None:
        return found
    extractor = tw.evaluate.extractor("digits")
    x = model.sample(options.stacks, seed=seed + 1)
    report = tw.evaluate.stacked_modes(x, extractor, held_out=tuple(test.batch(0, options.stacks, seed=0)))
    if seed == 0:
        tw.plot.grid(x[:64], options.pictures / file_of("ddaebm", "stacked-digits", row), columns=16)
    return found | {"modes": report.samples.modes, "kl": report.samples.kl, "report": asdict(report)}


def stacked(options: argparse.Namespace) -> dict[str, Any]:
    names = STUDY.chosen(VARIANTS, options)
    rows, lines = ran("stacked", names, options), []
    for name in names:
        mine = [row for row in rows if row["row"] == name]
        lines.append({"row": name, "seeds": len(mine)} | means(mine, ("modes", "kl", "cpu_seconds")))
    return {"samples": options.stacks, "summary": lines, "runs": rows}


def ood_one(row: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Detection by E(·, 0), of images of another set, of made outliers, and of the test images with noise (Figure 4)."""
    import thalweg as tw
    from thalweg.evaluate.ood import OUTLIERS, outliers

    train, test = sets_of(options)
    ((model, found),) = trained(images_model(VARIANTS[row], seed, options, train), train, seed, options)
    found = {"row": row, "seed": seed, "auroc": {}, "mean_auroc": None} | found
    if model is None:
        return found
    x = test.all().x
    other = "mnist-small" if options.data == "fashion-mnist" else "fashion-mnist"
    kinds = {other: tw.data.load(other, "test", size=x.shape[-1]).all().x[: len(x)]}
    kinds |= {kind: outliers(kind, x, len(x), seed=seed) for kind in OUTLIERS}
    noise = tw.random.normal_like(x, tw.random.seeded(seed, 13))
    kinds |= {f"noise of {std:g}": x + std * noise for std in (0.01, 0.1, 0.5)}
    reports, _ = tw.evaluate.ood_table(model, x, kinds, scores=("energy",), seed=seed)
    found["auroc"] = {kind: report.auroc for kind, report in reports["energy"].items()}
    return found | {"mean_auroc": statistics.fmean(found["auroc"].values())}


def ood(options: argparse.Namespace) -> dict[str, Any]:
    names = STUDY.chosen(VARIANTS, options)
    rows, lines = ran("ood", names, options), []
    kinds = tuple(dict.fromkeys(kind for row in rows for kind in row["auroc"]))
    for name in names:
        mine = [row for row in rows if row["row"] == name]
        line = {"row": name, "seeds": len(mine)} | means([row["auroc"] for row in mine], kinds) | means(mine, ("mean_auroc",))
        lines.append(line | paired(rows, name, KL, "mean_auroc"))
    return {"summary": lines, "runs": rows}


# --- cost


def plain_steps(model: Any, toy: Any) -> Callable[[int], None]:
    """The same step in a loop as one writes it first: `backward`, Adam and the EMA with PyTorch's defaults, nothing compiled."""
    import torch

    from thalweg import random

    c, ema = model.config, copy.deepcopy(model)
    rates = dict(betas=(0.0, c.beta2))
    optimizers = [
        torch.optim.Adam(model.energy_net.parameters(), lr=c.lr_energy, **rates),
        torch.optim.Adam([*model.generator.parameters(), *model.encoder.parameters()], lr=c.lr, **rates),
    ]
    g, gamma = random.seeded(0), torch.tensor(c.gamma)

    def update(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> float:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    def run(steps: int) -> None:
        for i in range(steps):
            x0 = toy.batch(i * c.batch, c.batch, 0).x
            t = model.schedule.sample_level(c.batch, generator=g)
            z = random.normal(c.batch, c.latent_dim, generator=g)
            x_s, x_t, generated = model.pairs(x0, t, z, *(random.normal_like(x0, g) for _ in range(3)))
            update(optimizers[0], model.energy_loss(x_s, generated.detach(), x_t, t, gamma)[0])
            update(optimizers[1], model.generator_loss(generated, z, x_s, x_t, t, random.normal_like(z, g))[0])
            with torch.no_grad():
                for slow, fast in zip(ema.parameters(), model.parameters()):
                    slow.mul_(c.ema).add_(fast, alpha=1 - c.ema)

    return run


def share_of_products(run: Callable[[int], None]) -> float:
    """The part of the time in steps that matrix products take, which neither compiling nor a leaner loop can shorten."""
    from torch.profiler import ProfilerActivity, profile

    run(2)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        run(COST_STEPS)
    events = profiled.key_averages()
    products = sum(event.self_cpu_time_total for event in events if event.key in ("aten::mm", "aten::addmm", "aten::bmm"))
    return products / sum(event.self_cpu_time_total for event in events)


def cost(options: argparse.Namespace) -> dict[str, Any]:
    """CPU seconds of a step by the plain loop and by the library's in `WAYS`, in turn; and of samples at equal width."""
    import torch

    import thalweg as tw

    torch.set_num_threads(1)
    toy, found = tw.data.toy("25gaussians"), {"rounds": COST_ROUNDS, "steps_a_round": COST_STEPS, "training": [], "sampling": []}

    def by_fit(model: Any, precision: str) -> Callable[[int], None]:
        settings = dict(precision=precision, progress=False)

        def run(steps: int) -> None:
            images = steps * model.config.batch
            tw.fit(model, toy, images=images, log_every=images, save_every=images, **settings)

        return run

    def medians(runs: dict[str, Callable[[], Any]]) -> tuple[dict[str, float], dict[str, list[float]]]:
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(COST_ROUNDS):
            for name, run in runs.items():
                started = time.process_time()
                run()
                seconds[name].append(time.process_time() - started)
        return {name: statistics.median(values) for name, values in seconds.items()}, seconds

    for preset in ("25gaussians", "25gaussians-quick"):
        runs = {"plain loop": plain_steps(tw.method(f"ddaebm/{preset}", seed=0), toy)}
        runs |= {name: by_fit(tw.method(f"ddaebm/{preset}", seed=0, **fields), precision) for name, (fields, precision) in WAYS.items()}
        row: dict[str, Any] = {"preset": preset, "first_seconds": {}, "products_share": share_of_products(runs["plain loop"])}
        for name, run in runs.items():
            started = time.process_time()
            run(2)
            row["first_seconds"][name] = time.process_time() - started
        middle, seconds = medians({name: (lambda run=run: run(COST_STEPS)) for name, run in runs.items()})
        row["seconds_a_step"] = {name: value / COST_STEPS for name, value in middle.items()}
        row["plain loop over"] = {name: statistics.median(a / b for a, b in zip(seconds["plain loop"], seconds[name])) for name in WAYS}
        found["training"].append(row)
        print(row["seconds_a_step"], row["plain loop over"], flush=True)
    n = 2000
    sizes = {"width": 128}
    samplers = {
        "DDAEBM": tw.method("ddaebm/25gaussians", seed=0, blocks=3, **sizes),
        "CDRL": tw.method("cdrl/25gaussians", seed=0, **sizes),
        "DRL": tw.method("cdrl/25gaussians", seed=0, **DRL, **sizes),
    }
    middle, _ = medians({name: (lambda model=model: model.sample(n, seed=1)) for name, model in samplers.items()})
    for name, model in samplers.items():
        # without the proposals of jumps
        evaluations = model.config.levels * (1 if name == "DDAEBM" else model.config.steps)
        size = sum(p.numel() for p in model.parameters())
        row = {"model": name, "parameters": size, "network_evaluations": evaluations, "samples_a_second": n / middle[name]}
        found["sampling"].append(row)
    return found


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "toys": toys, "published": published, "sweep": sweep, "weighted": weighted, "bias": bias, "levels": levels, "nice": nice,
    "stacked": stacked, "ood": ood, "cost": cost,
}  # fmt: skip
ONES = {
    "toys": toys_one,
    "published": published_one,
    "sweep": sweep_one,
    "weighted": weighted_one,
    "bias": bias_one,
    "levels": levels_one,
    "nice": nice_one,
    "stacked": stacked_one,
    "ood": ood_one,
}
STUDY = Study("ddaebm", __doc__, PARTS, ONES, run=Path("runs/ddaebm-digits"))


def study_parser() -> argparse.ArgumentParser:
    parser = STUDY.parser()
    parser.add_argument("--toys", nargs="+", choices=TOYS, default=list(TOYS), help="toys of the parts that learn them")
    parser.add_argument("--recipe", choices=("published", "quick"), default="quick", help="preset of DDAEBM's rows on toys")
    parser.add_argument("--compile", choices=("no", "yes"), default="no", help="compile steps of DDAEBM on toys")
    parser.add_argument("--width", type=int, help="hidden units of the part nice, the preset's by default")
    parser.add_argument("--rate", type=float, default=1.0, help="learning rates of the part nice, in the preset's")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="of each model of a toy")
    parser.add_argument("--stacks", type=int, default=STACKS, help="samples that modes are counted in")
    return parser


if __name__ == "__main__":
    STUDY.main(study_parser())
