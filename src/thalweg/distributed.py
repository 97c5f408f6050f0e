"""Data parallelism without wrappers: one flat all-reduce of gradients, exact for any order of updates and any derivative.

DistributedDataParallel hooks the backward pass of one module; the gradients here pass through several networks, twice, in
an order that the method decides. Averaging what `autograd.grad` returns is right for all of them.
"""

import atexit
import gc
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from thalweg.data.base import Batch, Data
from thalweg.errors import Diverged, InputError


def usable(wanted: str | torch.device) -> str:
    """`wanted` if PyTorch can compute there, "auto" resolved to a GPU or the CPU; InputError otherwise."""
    wanted = str(wanted)
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = wanted.partition(":")
    if kind not in ("cpu", "cuda", "mps") or not (number or "0").isdigit():
        raise InputError(f"device '{wanted}' is not known: cpu, cuda, mps or auto")
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError("device cuda: this machine has no GPU that PyTorch can use; use cpu")
    if kind == "cuda" and int(number or "0") >= torch.cuda.device_count():
        raise InputError(f"device {wanted}: this machine has {torch.cuda.device_count()} GPUs, counted from 0")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise InputError("device mps: not available here; use cpu")
    return wanted


def speaks() -> bool:
    """Whether this process says what all processes of this machine would: the first of them, or one alone."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def leave() -> None:
    """Leave the group of processes, if there is one.

    Its threads must not outlive the interpreter: one that lets go of a tensor while Python ends aborts the process.
    """
    if dist.is_initialized():
        dist.destroy_process_group()
        gc.collect()
        time.sleep(0.1)  # for a thread that waits for Python's lock


def _meeting() -> dict[str, Any]:
    """Where processes meet, if not where PyTorch would have them.

    torchrun keeps one store for all starts of its processes, and those that are started again would find in it the addresses of
    those that are gone, and wait for them. On one machine each start has a part of the store of its own. Between machines starts are
    not counted alike; there `TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1` gives each a new store.
    """
    found = os.environ
    if found.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or found.get("TORCHELASTIC_MAX_RESTARTS", "0") == "0":
        return {}
    if found.get("LOCAL_WORLD_SIZE") != found["WORLD_SIZE"]:
        if found["RANK"] == "0":
            needed = "for --max-restarts on several machines set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for torchrun (docs/scale.md)"
            print(f"thalweg: {needed}; without it processes that are started again may wait for ever", file=sys.stderr)
        return {}
    store, rank, size = next(dist.rendezvous("env://"))
    return {"store": dist.PrefixStore(f"start {found['TORCHELASTIC_RESTART_COUNT']}", store), "rank": rank, "world_size": size}


@dataclass(frozen=True)
class World:
    """The processes of a run: this one is `rank` of `size`."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> "World":
        """The group that torchrun describes (joined here on first use; NCCL with GPUs, else Gloo), or one process alone."""
        if not dist.is_initialized():
            if int(os.environ.get("WORLD_SIZE", "1")) == 1:
                return cls()
            if torch.cuda.is_available():
                torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
            # votes and objects go over Gloo on the CPU, gradients over NCCL where there are GPUs
            dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", **_meeting())
            atexit.register(leave)
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def first(self) -> bool:
        return self.rank == 0

    def device(self, wanted: str | torch.device) -> str:
        """`wanted`, with this process's own GPU for plain "cuda"."""
        wanted = usable(wanted)
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if wanted == "cuda" else wanted

    def take(self, data: Data, start: int, count: int, seed: int, device: torch.device) -> Batch:
        """This rank's equal share of a joined batch of `data`, on `device`; of data whose batches can be cut no more is read."""
        if not getattr(data, "cuts", False):
            return self.share(data.batch(start, count, seed), device)
        rows = count // self.size
        return World().share(data.batch(start + self.rank * rows, rows, seed), device)

    def share(self, batch: Batch, device: torch.device) -> Batch:
        """This rank's equal share of a joined batch, on `device`."""
        parts: list[Any] = [None if part is None else self.part(part).to(device, non_blocking=True) for part in batch]
        return type(batch)(*parts)

    def part(self, rows: Tensor) -> Tensor:
        """This rank's equal share of `rows`, a view."""
        count = len(rows) // self.size
        return rows[self.rank * count : (self.rank + 1) * count]

    def whole(self, part: Tensor) -> Tensor:
        """The parts of all ranks, one below the other; every rank must call it."""
        if self.size == 1:
            return part
        parts = [torch.empty_like(part, memory_format=torch.contiguous_format) for _ in range(self.size)]
        dist.all_gather(parts, part.contiguous())
        return torch.cat(parts)

    def in_turn(self, mine: list[Any]) -> list[Any]:
        """What the ranks hold, one of the first, one of the second … and round again; every rank must call it."""
        if self.size == 1:
            return mine
        everyone: list[Any] = [None] * self.size
        dist.all_gather_object(everyone, mine)
        return [part for parts in zip_longest(*everyone) for part in parts if part is not None]

    def on_first(self, work: Callable[[], Any]) -> Any:
        """`work()` done by the first rank alone: every rank returns its result or raises its error; every rank must call it."""
        if self.size == 1:
            return work()
        answer: list[Any] = [None, None]
        if self.first:
            try:
                answer[0] = work()
            except (InputError, Diverged) as error:
                answer[1] = error
            except Exception as error:
                answer[1] = RuntimeError(f"{type(error).__name__} on the first process: {error}")
        dist.broadcast_object_list(answer, src=0, device=torch.device("cuda" if dist.get_backend() == "nccl" else "cpu"))
        if answer[1] is not None:
            raise answer[1]
        return answer[0]

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set on any rank; every rank must call it."""
        if self.size == 1:
            return flag
        vote = torch.tensor([float(flag)], device="cuda" if dist.get_backend() == "nccl" else "cpu")
        dist.all_reduce(vote, dist.ReduceOp.MAX)
        return bool(vote.item())

    def mean(self, values: list[Tensor]) -> list[Tensor]:
        """Each tensor averaged over the ranks, in one flat all-reduce; every rank must call it with equal shapes."""
        if self.size == 1:
            return values
        flat = torch.cat([v.reshape(-1).float() for v in values])
        dist.all_reduce(flat)
        flat /= self.size
        parts = flat.split([v.numel() for v in values])
        return [torch.empty_like(v).copy_(part.view(v.shape)) for part, v in zip(parts, values)]  # in the strides of v
