"""Data parallelism without wrappers: one flat all-reduce of gradients, exact for any order of updates and any derivative.

DistributedDataParallel hooks the backward pass of one module; the gradients here pass through several networks, twice, in
an order that the method decides. Averaging what `autograd.grad` returns is right for all of them.
"""

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from thalweg.data.base import Batch


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
            dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def first(self) -> bool:
        return self.rank == 0

    def device(self, wanted: str) -> str:
        """`wanted`, with this process's own GPU for plain "cuda"."""
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if wanted == "cuda" else wanted

    def share(self, batch: Batch, device: torch.device) -> Batch:
        """This rank's equal share of a joined batch, on `device`."""
        rows = len(batch.x) // self.size
        mine = slice(self.rank * rows, (self.rank + 1) * rows)
        return Batch(*(None if part is None else part[mine].to(device, non_blocking=True) for part in batch))

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
        return [part.view_as(v).to(v.dtype) for part, v in zip(flat.split([v.numel() for v in values]), values)]

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()
