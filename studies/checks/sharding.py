"""Does PyTorch's `fully_shard` give the gradients that energies need? Two processes on the CPU (Gloo); python -m studies.checks.sharding

A small network is sharded, whole or layer by layer, and its gradients are compared with those of the network that is not, on the joined
batch: of a loss of E(x), and of one of ∇E(x), whose gradient differentiates twice. They are taken by `loss.backward()` and by
`autograd.grad`, which the library uses, as PyTorch has it and with parameters kept whole after a backward pass
(`set_reshard_after_backward(False)`).
"""

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.multiprocessing.spawn import spawn

from studies.runner import Check, Options, Row, table

PROCESSES = 2


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 8), nn.SiLU(), nn.Linear(8, 8), nn.SiLU(), nn.Linear(8, 1, bias=False))


def of_energy(net: nn.Module, x: Tensor) -> Tensor:
    return net(x).square().mean()


def of_gradient(net: nn.Module, x: Tensor) -> Tensor:
    """Denoising score matching without its noise: what it asks of autograd is the same."""
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
    return (gradient + x.detach()).square().sum(1).mean()


LOSSES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {"E(x)": of_energy, "∇E(x)": of_gradient}


def outcome(got: Sequence[Any], wanted: Sequence[Tensor]) -> str:
    """How gradients compare with the right ones."""
    if any(part is None for part in got):
        return f"no gradient of {sum(part is None for part in got)} of {len(got)} parameters"
    if not all(hasattr(part, "full_tensor") for part in got):
        return "gradients of one process's own batch, not shared and not sharded"
    worst = max(float((part.full_tensor() - right).abs().max() / right.abs().max()) for part, right in zip(got, wanted))
    return "right" if worst < 1e-5 else f"wrong by {worst:.2g}"


def work(rank: int, folder: str) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", store=dist.FileStore(f"{folder}/store", PROCESSES), rank=rank, world_size=PROCESSES)
    mesh, rows = init_device_mesh("cpu", (PROCESSES,)), []
    x = torch.randn(8, 2, generator=torch.Generator().manual_seed(1))
    for of, loss in LOSSES.items():
        plain = network()
        wanted = torch.autograd.grad(loss(plain, x), list(plain.parameters()))
        for kept in (False, True):
            for unit in ("whole", "each layer"):
                for how in ("backward", "autograd.grad"):
                    net: Any = network()
                    for layer in [part for part in net if list(part.parameters())] * (unit == "each layer"):
                        fully_shard(layer, mesh=mesh)
                    fully_shard(net, mesh=mesh)
                    net.set_reshard_after_backward(not kept)
                    try:
                        value = loss(net, x.chunk(PROCESSES)[rank])
                        if how == "backward":
                            value.backward()
                            for part in net.modules():
                                if isinstance(part, FSDPModule):
                                    part.reshard()  # so that `parameters()` are the shards, which hold the gradients
                            found = outcome([part.grad for part in net.parameters()], wanted)
                        else:
                            found = outcome(torch.autograd.grad(value, list(net.parameters())), wanted)
                    except RuntimeError as error:
                        found = f"RuntimeError: {str(error).splitlines()[0]}"
                    rows.append({"loss_of": of, "sharded": unit, "kept_whole": kept, "by": how, "gradients": found})
    if rank == 0:
        torch.save(rows, f"{folder}/rows.pt")
    dist.destroy_process_group()


def run(options: Options) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        spawn(work, (folder,), nprocs=PROCESSES)
        rows = torch.load(Path(folder) / "rows.pt", weights_only=True)
    print(table(rows))
    return rows


CHECK = Check("sharding", __doc__, run)

if __name__ == "__main__":
    CHECK.main()
