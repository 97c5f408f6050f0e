"""Do samples of a trained chain hold? Where its chains start, at their trained length, far beyond it, and with Metropolis corrections.

    python -m studies.short_run runs/arena/short_run-0 --times 1 2 4 16 --corrected 500

Rows are of one run on images: the starts alone, chains of that many times the trained steps, and the ends of the first of them moved on by
MALA at the chain's temperature: steps of size s with noise τ are those of Langevin dynamics of size s τ on E/τ², which MALA corrects.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import thalweg as tw
from studies.measures import Judge
from studies.runner import Row, write_results
from studies.tables import RESULTS
from thalweg import random, sample
from thalweg.energy import temper
from thalweg.nn.layers import frozen
from thalweg.trace import roughness

AT_ONCE = 250  # samples


def states(model: Any, n: int, steps: int, seed: int) -> Tensor:
    """`n` samples of chains of `steps` steps from new starts."""
    parts = range(0, n, AT_ONCE)
    return torch.cat([model.sample(min(AT_ONCE, n - i), seed=seed * n + i, steps=steps, fresh=True).float() for i in parts])


def corrected(model: Any, x: Tensor, steps: int, seed: int) -> tuple[Tensor, float]:
    """Samples [N, ...] moved on by MALA at the chain's own temperature, and the share of its moves that it accepted."""
    chain, trace, parts, accepted = model.config.chain, sample.Trace(), [], []
    with frozen(model.net):
        for part in x.split(AT_ONCE):
            energy, size = temper(model.energy, chain.noise**2), chain.step * chain.noise
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


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("run", type=Path, help="the folder of a run of short_run on images")
    made.add_argument("--times", type=int, nargs="+", default=[1, 2, 4, 16], help="lengths of chains, in trained ones")
    made.add_argument("--corrected", type=int, default=500, help="steps of MALA after the first of them, 0 for none")
    made.add_argument("--n", type=int, default=1000, help="samples")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--out", type=Path, default=RESULTS / "short_run_chains.json")
    return made


def main() -> None:
    options, started = parser().parse_args(), time.monotonic()
    torch.set_num_threads(1)
    model = tw.load(options.run)
    train, test = (tw.data.load(model.config.data, split) for split in ("train", "test"))
    found = rows(model, Judge.of(model.config.data, train, test), options)
    for one in found:
        print({key: round(value, 3) if isinstance(value, float) else value for key, value in one.items()}, flush=True)
    write_results(options.out, {"run": options.run.name, "rows": found}, seed=options.seed, seconds=time.monotonic() - started)


if __name__ == "__main__":
    main()
