"""What studies share: trainings that are watched, distances of samples from data, outliers, CPU time, differences over seeds."""

import math
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import thalweg as tw
from studies.runner import Options, Row, precise
from thalweg.checkpoint import latest, read_stats
from thalweg.errors import Diverged, InputError
from thalweg.evaluate.ood import OUTLIERS

ENDLESS = 10**8  # images of a model whose training is ended by time: a rate that fell by images would favour slow models

SIGMAS = (0.005, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 6.0)  # at which errors of the predicted noise are compared

# --- training


def sets_of(options: Options, name: str | None = None) -> tuple[Any, Any]:
    """Training and test split of the study's data set, or of another one in the study's size."""
    train, test = (tw.data.load(name or options.data, split, size=options.size) for split in ("train", "test"))
    return train, test


def parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def trained(
    settings: tuple[str, dict[str, Any]] | Any, data: Any, seed: int, options: Options, *, seconds: float | None = None,
    folder: Path | None = None, stops: int = 1, look: Callable[[Any, bool], Row] = lambda twin, last: {}, keep: Iterable[str] = (),
) -> tuple[Any, Row]:  # fmt: skip
    """The EMA twin of a model after its training, None where that diverged, and how it went: what a row of results begins with.

    The model is given itself, or by preset and fields as one for the data. Its images end the training, or `seconds` of CPU time,
    `options.seconds` by default, if they are over before. At each of `stops` equal parts of it, of time where the images are endless,
    `look(twin, whether it is the last)` adds to "along". With a `folder` the run is kept, and goes on where it was cut off. Of `keep` the
    last logged figures are in the row.
    """
    model = tw.method(settings[0], seed=seed, data=data, **settings[1]) if isinstance(settings, tuple) else settings
    images, seconds = model.config.images, seconds or options.seconds
    by_time, batch = images >= ENDLESS, model.config.batch
    log_every, save_every = (2560, 10_240) if by_time else (max(batch, images // 50), max(batch, images // 10))
    found: Row = {"diverged": None, "parameters": parameters(model)} | ({"along": []} if stops > 1 else {})
    with nullcontext(folder) if folder else tempfile.TemporaryDirectory() as place:
        for stop in range(1, stops + 1):
            part = stop / stops
            try:
                twin = tw.fit(
                    model, data, Path(place), seed=seed, images=images if by_time else max(batch, round(part * images)),
                    seconds=part * seconds if by_time else seconds, clock=time.process_time, precision=options.precision,
                    progress=False, log_every=log_every, save_every=save_every, sample_every=10**12,
                ).eval()  # fmt: skip
            except Diverged as trouble:
                return None, found | of_run(Path(place), keep) | {"diverged": str(trouble)}
            found |= of_run(Path(place), keep)
            if stops > 1:
                found["along"].append({key: found[key] for key in ("images", "cpu_seconds")} | look(twin, stop == stops))
    return twin, found


def of_run(folder: Path, keep: Iterable[str] = ()) -> Row:
    """How the run of a folder went so far: images, updates, CPU seconds, interventions of the guard, and the last of each figure."""
    state, stats = latest(folder), read_stats(folder)
    events, figures = [row for row in stats if "event" in row], [row for row in stats if "event" not in row]
    last = {key: next(row[key] for row in reversed(figures) if key in row) for key in keep if any(key in row for row in figures)}
    how = {"images": state["images"], "updates": state["updates"], "cpu_seconds": round(state["elapsed"], 1)}
    return how | {"guard_events": len(events)} | last


# --- samples


@dataclass(frozen=True)
class Judge:
    """What samples are compared with: images of the training set, held-out ones, and the features in which they are compared."""

    train: Tensor
    held_out: Tensor
    extractor: Any

    @classmethod
    def of(cls, name: str, train: Any, test: Any, *, most: int = 2000) -> "Judge":
        """Of a data set: all its training images, its first `most` test images, and the features of its own classifier."""
        extractor = tw.evaluate.extractor((tuple(train.all()), tuple(test.all())), name=name)
        return cls(train.all().x, test.all().x[:most], extractor)

    def report(self, x: Tensor) -> Any:
        """The Fréchet distance of images from the training images, with that of held-out ones."""
        return tw.evaluate.fidelity(self.train, x, self.extractor, held_out=self.held_out, metrics=("frechet",)).frechet

    @cached_property
    def floor(self) -> float:
        """The Fréchet distance of held-out images."""
        return self.report(self.held_out).held_out

    def frechet(self, x: Tensor) -> float | None:
        """The Fréchet distance of images; None where they are not finite."""
        return self.report(x).value if bool(x.isfinite().all()) else None

    def sets(
        self, model: Any, seed: int, precision: str = "fp32", *, draws: int = 1, n: int | None = None, **asked: Any
    ) -> Iterator[Tensor]:
        """`draws` sets of samples, by default as many in each as there are held-out images; `asked` goes to the model's `sample`."""
        for draw in range(draws):
            with precise(precision):
                x = model.sample(n or len(self.held_out), seed=1000 * seed + draw + 1, **asked).float()
            yield x  # outside of the context: what is measured of samples is so in fp32

    def distance(self, model: Any, seed: int, precision: str = "fp32", **asked: Any) -> float | None:
        """The mean Fréchet distance of `sets`, None where a sample is not finite."""
        values = [self.frechet(x) for x in self.sets(model, seed, precision, **asked)]
        return None if None in values else statistics.fmean(values)


def psnr_hidden(x: Tensor, guess: Tensor, hidden: Tensor) -> Tensor:
    """PSNR [N] in dB over the pixels of x [N, C, H, W] in [−1, 1] where `hidden`, which broadcasts, is true."""
    hidden = hidden.bool().expand_as(x)
    error = ((guess - x).square() * hidden).flatten(1).sum(1) / hidden.flatten(1).sum(1)
    return 10 * (4 / error.clamp(min=1e-12)).log10()


def auroc_of(
    model: Any, inliers: Tensor, others: Mapping[str, Tensor], *, kinds: Iterable[str] = OUTLIERS,
    scores: Sequence[str] = ("energy",), seed: int = 0,
) -> dict[str, dict[str, float]]:  # fmt: skip
    """AUROC by score and kind of outliers, as many as there are inliers [N, ...]: those of `others`, and made ones of `kinds`."""
    made = {kind: tw.evaluate.outliers(kind, inliers, len(inliers), seed) for kind in kinds}
    reports, _ = tw.evaluate.ood_table(model, inliers, {**others, **made}, scores=scores, bootstrap=20, seed=seed)
    return {score: {kind: report.auroc for kind, report in by_kind.items()} for score, by_kind in reports.items()}


def noise_errors(
    model: Any, x: Tensor, precision: str = "fp32", *, sigmas: Sequence[float] = SIGMAS, batch: int = 250
) -> dict[str, float | None]:
    """Mean squared error, a pixel, of the noise z that a model predicts at y = x + σ z, by σ; x [N, ...], the same z for every model.

    ẑ = (y − x̂)/σ with x̂ = `denoise(y, σ)`, so that every method with that ability has it; of discrete levels at the nearest. Of images that
    a model dequantises x is dequantised. None at a σ that the model refuses, that is beyond its `sigma_range`, or where
    its chains leave the support.
    """
    g, found = tw.random.seeded(1), {}
    spread = tw.random.uniform(*x.shape, generator=g)
    x = x if model.bin_width is None else model.dequantise(x, spread)
    low, high = model.sigma_range if "level_energies" in model.abilities else (0.0, math.inf)
    for sigma in sigmas:
        z = tw.random.normal_like(x, g)
        error = None
        if low <= sigma <= high:
            y = x + sigma * z
            with precise(precision), suppress(InputError, Diverged):
                clean = torch.cat([model.denoise(part, sigma) for part in y.split(batch)])
                error = float(((y - clean.float()) / sigma - z).square().mean())
        found[f"{sigma:g}"] = error
    return found


# --- time


def seconds_in_turn(
    runs: Mapping[str, Callable[[], Any]], rounds: int, clock: Callable[[], float] = time.process_time, *, shuffle: bool = False
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Seconds of each of `runs` at first, with compilation, and then in every round, in which they take turns, also in shuffled order."""

    def seconds_of(run: Callable[[], Any]) -> float:
        started = clock()
        run()
        return clock() - started

    first, found = {name: seconds_of(run) for name, run in runs.items()}, {name: [] for name in runs}
    order, shuffled = list(runs), random.Random(0)
    for _ in range(rounds):
        if shuffle:
            shuffled.shuffle(order)
        for name in order:
            found[name].append(seconds_of(runs[name]))
    return first, found


def ratio(seconds: Sequence[float], of: Sequence[float]) -> float:
    """The median over rounds of one time over another of the same round."""
    return statistics.median(a / b for a, b in zip(seconds, of))


class Bare:
    """The verb of a step whose cost alone matters: gradients and the optimizer's step, without clipping, twin and guard."""

    def __init__(self, model: Any) -> None:
        self.images = self.updates = 0
        self.ema, self.generator, self.optimizers = model, tw.random.seeded(0), model.optimizers()

    def __call__(self, name: str, loss: Tensor) -> None:
        self.optimizers[name].zero_grad(set_to_none=True)
        loss.backward()
        self.optimizers[name].step()

    def log(self, **values: Any) -> None:
        pass

    def mean(self, value: Tensor) -> Tensor:
        return value


def precisely(run: Callable[[], Any], precision: str) -> Callable[[], None]:
    """`run` in a precision: each call has its own context, which keeps the weights that it has rounded."""

    def ran() -> None:
        with precise(precision):
            run()

    return ran


def peak(precision: str) -> float:
    """GFLOP a second that one thread reaches on 3×3 convolutions, the best of several sizes."""
    found = []
    for size, channels in ((14, 96), (14, 256), (28, 128)):
        layer = torch.nn.Conv2d(channels, channels, 3, padding=1).to(memory_format=torch.channels_last).requires_grad_(False)
        x = torch.zeros(64, channels, size, size).to(memory_format=torch.channels_last)
        _, seconds = seconds_in_turn({"conv": precisely(partial(layer, x), precision)}, 10)
        found.append(2 * 9 * channels**2 * x.shape[0] * size**2 / statistics.median(seconds["conv"]) / 1e9)
    return max(found)


# --- over seeds


def mean(values: Iterable[float | None]) -> float | None:
    """Of the values that are there."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def means(rows: Iterable[Row], keys: Iterable[str]) -> Row:
    """The mean of each key over the rows that have it."""
    rows = list(rows)
    return {key: mean(row.get(key) for row in rows) for key in keys}


def standard_error(values: Sequence[float]) -> float | None:
    """Of the mean of values; None for a single one."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def paired(rows: Iterable[Row], name: str, base: str, value: str | Callable[[Row], float | None]) -> tuple[float | None, float | None]:
    """Mean and standard error over seeds of a row's `value`, a key or a function, less that of the row `base` at the same seed."""
    of = value if callable(value) else lambda row: row.get(value)
    known = {(row["row"], row["seed"]): of(row) for row in rows}
    pairs = [(mine, known.get((base, seed))) for (row, seed), mine in known.items() if row == name != base]
    gaps = [a - b for a, b in pairs if a is not None and b is not None]
    return mean(gaps), standard_error(gaps)


def less(rows: Iterable[Row], name: str, base: str, value: str | Callable[[Row], float | None], what: str = "") -> Row:
    """`paired` as part of a row's summary, its keys after the words `what`."""
    difference, error = paired(rows, name, base, value)
    return {f"{what}less": base, f"{what}difference": difference, f"{what}standard_error": error}


def over_seeds(*keys: str) -> Callable[[str, list[Row], list[Row]], Row]:
    """A row's summary by means of figures."""
    return lambda name, mine, rows: means(mine, keys)
