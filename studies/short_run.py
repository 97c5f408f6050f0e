"""Where chains start and how far they step, in training and beyond it.

`starts`: the preset of `--data` (or `--preset`) with chains from uniform noise, normal noise and blurred data, each with its fixed step and
with steps in units of the gradient (`move`), at equal CPU time: Fréchet distances of samples and of the starts alone, displacement and
roughness along training. `chains`: do samples of a trained chain hold? Rows of one run on images: the starts alone, chains of `--times`
the trained steps, and the ends of the first of them moved on by MALA at the chain's temperature: steps of size s with noise τ are those of
Langevin dynamics of size s τ on E/τ², which MALA corrects.

    python -m studies.short_run starts --seconds 600 --precision bf16
    python -m studies.short_run chains --run runs/arena/short_run-0 --times 1 2 4 16 --corrected 500
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import thalweg as tw
from studies.measures import Judge, mean, means, paired, sets_of, trained
from studies.runner import Options, Part, Row, Study, file_of, precise
from studies.tables import Picture, Section, Shown, Table
from thalweg import random, sample
from thalweg.arena.price import images_for
from thalweg.energy import temper
from thalweg.nn.layers import frozen
from thalweg.trace import roughness

# where training chains start. A few steps sharpen blurred data; from noise they have to go all the way
BLURRED: dict[str, Any] = {"start_law": "mixture"}
NOISE = {"uniform": {"start_law": "uniform"}, "normal": {"start_law": "normal", "start_range": 0.5}}
FAR, NEAR = {"chain.clip": 0.1}, {"chain.clip": 0.03}  # bounds of each pixel's move
BASE = "blurred data, fixed step"
STARTS: dict[str, dict[str, Any]] = {
    BASE: BLURRED | NEAR,
    "blurred data, fixed step, unbounded": BLURRED | {"chain.clip": 0.0},
    "blurred data, in units of the gradient": BLURRED | NEAR | {"move": 0.01},
    "blurred data, in units of the gradient, unbounded": BLURRED | {"chain.clip": 0.0, "move": 0.01},
    **{f"{name} noise, fixed step": law | FAR for name, law in NOISE.items()},
    **{f"{name} noise, in units of the gradient": law | FAR | {"move": 0.05} for name, law in NOISE.items()},
    "uniform noise, in units of the gradient, unbounded": NOISE["uniform"] | {"chain.clip": 0.0, "move": 0.05},
    "uniform noise, fixed step, spectral norm": NOISE["uniform"] | FAR | {"net.spectral_norm": True},
}
STOPS = 4  # at which distances are measured
SAMPLES = 1000
PRICE = 600.0  # CPU seconds of a model
AT_ONCE = 250  # samples


def states(model: Any, n: int, steps: int, seed: int) -> Tensor:
    """`n` samples of chains of `steps` steps from new starts."""
    parts = range(0, n, AT_ONCE)
    return torch.cat([model.sample(min(AT_ONCE, n - i), seed=seed * n + i, steps=steps, fresh=True).float() for i in parts])


def corrected(model: Any, x: Tensor, steps: int, seed: int) -> tuple[Tensor, float]:
    """Samples [N, ...] moved on by MALA at the chain's own temperature, and the share of its moves that it accepted."""
    chain, trace, parts, accepted = model.config.chain, sample.Trace(), [], []
    found = {} if model.gradient_step is None else model.gradient_step.of(chain.step, chain.noise)
    step, noise = found.get("step", chain.step), found.get("noise", chain.noise)
    with frozen(model.net):
        for part in x.split(AT_ONCE):
            energy, size = temper(model.energy, noise**2), step * noise
            parts.append(sample.mala(energy, part, steps=steps, step=size, generator=random.seeded(seed, len(parts)), trace=trace))
            accepted.append(trace.acceptance.mean())
    return torch.cat(parts), float(torch.stack(accepted).mean())


def row(model: Any, judge: Judge, x: Tensor, what: str, **more: Any) -> Row:
    """Of samples: distance to the training images, roughness as a multiple of theirs, mean energy and that of held-out images."""
    with torch.no_grad():
        energies = [float(torch.cat([model.energy(part) for part in y.split(AT_ONCE)]).mean()) for y in (x, judge.held_out)]
    rough = float(roughness(x).mean() / roughness(judge.held_out).mean())
    within = float((x.abs() <= 1).float().mean())
    return {"what": what, "frechet": judge.frechet(x.clamp(-1, 1)), "roughness": rough, "within": within, "energy": energies[0],
            "energy_held_out": energies[1], **more}  # fmt: skip


def rows(model: Any, judge: Judge, options: argparse.Namespace) -> list[Row]:
    """All rows of a model."""
    trained, ends = model.config.chain.steps, None
    found = [row(model, judge, states(model, options.n, 0, options.seed), "starts alone", steps=0)]
    for times in options.times:
        x = states(model, options.n, times * trained, options.seed)
        ends = x if ends is None else ends
        found.append(row(model, judge, x, f"{times} × the trained steps", steps=times * trained))
    if options.corrected and ends is not None:
        started = time.process_time()
        x, accepted = corrected(model, ends, options.corrected, options.seed)
        spent = (time.process_time() - started) / options.n
        found.append(row(model, judge, x, "and MALA", steps=options.corrected, acceptance=accepted, cpu_seconds_sample=spent))
    return found


def chains(options: Options) -> dict[str, Any]:
    """Whether samples of a run hold."""
    model = tw.load(options.run)
    train, test = (tw.data.load(model.config.data, split) for split in ("train", "test"))
    found = rows(model, Judge.of(model.config.data, train, test), options)
    for one in found:
        print({key: round(value, 3) if isinstance(value, float) else value for key, value in one.items()}, flush=True)
    return {"run": options.run.name, "rows": found}


# --- training


def starts_settings(row: str, options: Options) -> tuple[str, dict[str, Any]]:
    return f"short_run/{options.preset or options.data}", {"chain.compile": False} | STARTS[row]


def starts_one(row: str, seed: int, options: Options) -> Row:
    """A model trained for as many images as the price allows, so that its rates have fallen at the end."""
    (train, test), seconds, (name, fields) = sets_of(options), options.seconds or PRICE, starts_settings(row, options)
    trial = tw.method(name, seed=seed, data=train, **fields | {"images": 1})
    fields = fields | {"images": images_for(trial, train, seconds, precision=options.precision)}
    judge, keep = Judge.of(options.data, train, test, most=SAMPLES), ("displacement", "roughness", "energy_data", "energy_samples")

    def look(twin: Any, last: bool) -> Row:
        return {"frechet": judge.distance(twin, seed, options.precision, fresh=True)}

    twin, found = trained((name, fields), train, seed, options, seconds=seconds, stops=STOPS, look=look, keep=keep)
    if twin is None:
        return found
    with precise(options.precision):
        starts, x = (states(twin, len(judge.held_out), steps, seed) for steps in (0, twin.config.chain.steps))
    if seed == 0:
        tw.plot.grid(x[:64], options.pictures / file_of("short_run", options.data, row), columns=16)
    slope = None if twin.gradient_step is None else twin.gradient_step.of(twin.config.chain.step, twin.config.chain.noise)["step"]
    rough = float(roughness(x).mean() / roughness(judge.held_out).mean())
    return found | {
        "frechet": found["along"][-1]["frechet"], "floor": judge.floor, "starts": judge.frechet(starts.clamp(-1, 1)),
        "roughness_of_samples": rough, "step": slope,
    }  # fmt: skip


def starts_line(name: str, mine: list[Row], rows: list[Row]) -> Row:
    """Means over seeds, and the distance above that of the preset's starts and step at the same seed."""
    gap, error = paired(rows, name, BASE, "frechet")
    keys = ("frechet", "starts", "displacement", "roughness", "roughness_of_samples", "step", "images", "guard_events")
    return means(mine, keys) | {"difference": gap, "standard_error": error}


def starts_more(options: Options, rows: list[Row]) -> dict[str, Any]:
    return {"floor": mean(row.get("floor") for row in rows), "preset": options.preset or options.data, "seconds": options.seconds or PRICE}


def add(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(data="fashion-mnist")
    parser.add_argument("--preset", help="whose chains are changed, by default the preset named as the data")
    parser.add_argument("--times", type=int, nargs="+", default=[1, 2, 4, 16], help="lengths of chains, in trained ones")
    parser.add_argument("--corrected", type=int, default=500, help="steps of MALA after the first of them, 0 for none")
    parser.add_argument("--n", type=int, default=1000, help="samples")
    parser.add_argument("--seed", type=int, default=0, help="of chains")


STUDY = Study(
    "short_run",
    __doc__,
    {"starts": Part(STARTS, starts_one, starts_line, starts_settings, starts_more), "chains": chains},
    run=Path("runs/arena/short_run-0"),
    of_run=("chains",),
    add=add,
)

# --- the page

OF_STARTS = [
    "Where chains of training start, and their steps: `short_run/{preset}`, {seconds:.0f} CPU seconds a model; the floor of the Fréchet "
    "distance is {floor:.1f}:",
    Table(
        "model = row | seeds | diverged | Fréchet distance = frechet:.1f | minus that of the first = difference ± standard_error:+.1f | "
        "of the starts alone = starts:.1f | displacement = displacement:.3f | roughness over the data's = roughness_of_samples:.2f | "
        "images = images:,.0f"
    ),
    Picture("Samples, {last}", "short_run_{data}_*.png"),
]
OF_CHAINS = [
    "Samples of a run after longer chains and Metropolis corrections:",
    Table(
        "samples of = what | steps | Fréchet distance = frechet:.1f | roughness over the data's = roughness:.2f | energy = energy:.1f | "
        "of held-out images = energy_held_out:.1f",
        "rows",
    ),
]
PAGE = [Section("Chains of short_run", [(Shown("short_run_starts", OF_STARTS), Shown("short_run_chains", OF_CHAINS))])]

if __name__ == "__main__":
    STUDY.main()
