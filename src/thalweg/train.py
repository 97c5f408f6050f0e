"""`fit` trains a method on data. The method owns the order of its updates; the loop (`thalweg.loop`) is the plumbing that all share."""

import contextlib
import copy
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thalweg.data.base import Batch
from thalweg.data.contract import Own
from thalweg.data.door import of
from thalweg.data.prepare import everything, image_size, in_own_units, prepare
from thalweg.data.prepare import held_out as held_out_part
from thalweg.data.record import origin
from thalweg.data.vectors import Table
from thalweg.errors import InputError, nearest
from thalweg.gate import float32
from thalweg.loop import Options, Run
from thalweg.methods.base import Method
from thalweg.precision import supported
from thalweg.units import OwnUnits

PRECISIONS = ("fp32", "bf16")
LARGE = 100  # beyond which vectors are no standardised ones


def _above_zero(**values: float | None) -> None:
    for name, value in values.items():
        if value is not None and not value > 0:
            raise InputError(f"{name} must be above 0, got {value}")


def _look(data: Own, x: Tensor) -> None:
    """A word on vectors that are far from standardised, which a learning rate cannot make up for."""
    largest = float(x.abs().max())
    if x.dim() == 2 and largest > LARGE:
        print(
            f"thalweg: {data.name}: values up to {largest:.3g}; models expect columns with standard deviations of about 1. "
            "tw.data.Table(x) standardises them, and samples come back in their own units",
            file=sys.stderr,
        )


def _seen(held_out: Any, data: Any) -> Any:
    """Held-out examples as a model sees them: vectors in the units of its training data, labels of the same classes."""
    if not isinstance(data, Table):
        return everything(of(held_out))
    found = of(held_out) if isinstance(held_out, str | Path | Table) else of(held_out, classes=data.classes)
    whole = in_own_units(found)
    return Batch(data.encode(whole.x), whole.label)


def _held_out_part(config: Any, data: Any, device: str) -> Batch | None:
    """The held-out examples of data that were loaded by name or path; None where there are none any more."""
    source, found = origin(data), None
    if source is not None:
        size = None if config.data_needs.autoencoder else image_size(tuple(data.shape))
        with contextlib.suppress(InputError):  # a run does without them
            found = held_out_part(config, source, size=size, device=device, **getattr(data, "options", {}))
    return found if found is not None and found.x.shape[1:] == tuple(data.shape) else None


def fit(
    method: Method,
    data: Any,
    out: str | Path | None = None,
    *,
    images: int | None = None,
    seconds: float | None = None,
    batch: int | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    precision: str = "fp32",
    held_out: Any = None,
    clip: float | None = None,
    ema_decay: float | None = None,
    log_every: int | None = None,
    sample_every: int | None = None,
    save_every: int | None = None,
    shards: int | None = None,
    accumulate: int = 1,
    checkpointing: bool = False,
    tries: int = 5,
    picture: Callable[[Method, Path, int], None] | None = None,
    progress: bool = True,
    tensorboard: bool = False,
    clock: Callable[[], float] = time.monotonic,
    dry_run: bool = False,
) -> Any:
    """Train `method` on `data` for `images` images (the config's by default) or `seconds`, whichever ends first; returns the EMA twin.

    `data` is whatever `tw.data.of` takes: a tensor or array, a pair (x, y), a DataFrame, a Dataset or DataLoader, a name or path, or an
    object with batches of its own. A model of vectors, which are standardised, is returned in the data's own units.
    With a folder `out`, writes config.json, stats.jsonl, samples/, state-*.pt and best.pt there, and a second call with the
    same folder resumes. `batch`, `clip` and `ema_decay` come from the method's config unless given. `precision` "bf16" runs
    convolutions and matrix products in bfloat16 (autocast), weights and reductions in fp32; a processor without instructions for it
    warns and runs fp32. `held_out`, a `Batch` as the model
    sees it or whatever `tw.data.of` takes, is what the best state is chosen by; without it, a run on data that were loaded by name or
    path keeps the energies of their held-out part. `shards` > 1 draws noise as that many ranks would. `accumulate` cuts each
    process's share of a batch into so many parts, one after the other, whose gradients make one update; draws are those of as many
    processes. With `checkpointing` blocks of the networks compute their inner values anew in the backward pass. Both save memory. With
    `dry_run` one step is taken, and nothing is kept, looked at or written. Under torchrun each rank takes
    its share of every batch; the run can be resumed by as many ranks, or by one. Raises Diverged when the guard has gone back `tries`
    times in vain, InputError for options out of range, data that do not fit, and a folder of another run.
    """
    config = method.config
    _above_zero(images=images, seconds=seconds, batch=batch, shards=shards, accumulate=accumulate)
    _above_zero(log_every=log_every, sample_every=sample_every, save_every=save_every)
    if not 0 <= seed < 2**63:
        raise InputError(f"the seed must be between 0 and 2⁶³ − 1, got {seed}")
    if precision not in PRECISIONS:
        raise InputError(f"precision '{precision}' is not known{nearest(precision, PRECISIONS)}: fp32 or bf16")
    precision = supported(precision, device)
    images, batch = images or config.images, batch or config.batch
    per_run = max(batch, images // 20)
    options = Options(
        images=images, seconds=seconds, batch=batch, seed=seed, device=device, precision=precision, held_out=held_out, compared=None,
        clip=config.clip if clip is None else clip, ema_decay=config.ema if ema_decay is None else ema_decay,
        log_every=log_every or max(batch, images // 500), sample_every=sample_every or per_run, save_every=save_every or per_run,
        shards=shards, accumulate=accumulate, checkpointing=checkpointing,
        tries=tries, picture=picture, progress=progress, tensorboard=tensorboard, clock=clock,
    )  # fmt: skip
    with float32():
        data = prepare(config, str(data), "train", device=str(device)) if isinstance(data, str | Path) else of(data)
        if tuple(data.shape) == tuple(config.shape):  # else the loop says so
            if isinstance(data, Own):
                _look(data, data.batch(0, batch, seed).x)  # what is wrong with it is said before anything is written
            method.units = copy.deepcopy(data.units) if isinstance(data, Table) else None  # a model moves to its device
        if held_out is not None and not hasattr(held_out, "_fields"):
            options = replace(options, held_out=_seen(held_out, data))
        if held_out is None and out is not None and not dry_run:
            options = replace(options, compared=_held_out_part(config, data, str(device)))
        run = Run(method, data, None if out is None or dry_run else Path(out), options)
        twin = run.try_step() if dry_run else run.go()
        return twin if twin.units is None else OwnUnits(twin).eval()
