"""Chains per second against torchebm, ebmkit and a plain PyTorch loop, in turn in one process.

(a) one contrastive step with 60 Langevin steps: batch 128, 32×32×3, a convolutional energy of 0.33M parameters
(b) 1,000 chains × 1,000 Langevin steps in the plane through a 2-128-128-1 SiLU network

Every contender runs the same energy function with the same weights; each repeat takes the CPU seconds of all of them in a shuffled order,
and the ratios are medians over repeats of (peer's time / ours). "thalweg" runs in bf16 where the processor has instructions for it, else in
fp32, and (a) compiled where that is faster. Needs the extra `peers`.

    python -m studies.checks.speed --out studies/results/speed.json
"""

import importlib.metadata
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import thalweg as tw
from studies.measures import ratio, seconds_in_turn
from studies.runner import Check, Options, precise, table
from studies.tables import Section, Shown, Table
from thalweg.chain import Langevin
from thalweg.nn.build import ConvNet
from thalweg.nn.convnet import ConvEnergy
from thalweg.nn.mlp import MLP
from thalweg.precision import native
from thalweg.updates import Update

LEARNING_RATE = 1e-4
FASTER = "bf16" if native("cpu") else "fp32"
WARM = 9  # updates in which `compile = "auto"` finds the faster way


class PlainConvEnergy(nn.Module):
    """The same function as `ConvEnergy`, from PyTorch's own layers, as one would write it."""

    def __init__(self, ours: ConvEnergy) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for layer in (ours.first, *ours.halve):
            stride = layer.stride[0]
            plain = nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel_size[0], stride, 1)
            plain.load_state_dict(layer.state_dict())
            layers += [plain, nn.SiLU()]
        last = nn.Linear(ours.last.in_features, 1)
        last.load_state_dict(ours.last.state_dict())
        self.net = nn.Sequential(*layers, nn.Flatten(), last)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).squeeze(-1)


class PlainMLP(nn.Module):
    """The same function as a two-layer `MLP`."""

    def __init__(self, ours: MLP) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for layer in (ours.first, *ours.hidden, ours.last):
            plain = nn.Linear(layer.in_features, layer.out_features)
            plain.load_state_dict(layer.state_dict())
            layers += [plain, nn.SiLU()]
        self.net = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).squeeze(-1)


def plain_langevin(energy, x: Tensor, steps: int, step: float) -> Tensor:
    for _ in range(steps):
        x = x.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(energy(x).sum(), x)
        x = x.detach() - 0.5 * step**2 * gradient + step * torch.randn_like(x)
    return x.detach()


def torchebm_langevin(energy: nn.Module, x: Tensor, steps: int, step: float) -> Tensor:
    from torchebm.samplers import LangevinDynamics

    # its step is η = s²/2; the noise is √(2η)
    return LangevinDynamics(energy, step_size=0.5 * step**2, noise_scale=1.0).sample(x=x, n_steps=steps)


def ebmkit_langevin(energy: nn.Module, x: Tensor, steps: int, step: float) -> Tensor:
    from ebm.samplers.langevin import LangevinDynamics

    return LangevinDynamics(step_size=0.5 * step**2, steps=steps).sample(energy, x)


def contrastive_step(energy: nn.Module, optimizer: torch.optim.Optimizer, chain, data: Tensor, start: Tensor, steps: int) -> None:
    """One update as a peer's user writes it: chains, the difference of mean energies, backward, step."""
    for p in energy.parameters():
        p.requires_grad_(False)
    negative = chain(energy, start, steps, 0.01)
    for p in energy.parameters():
        p.requires_grad_(True)
    loss = energy(data).mean() - energy(negative).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def torchebm_model(net: nn.Module) -> nn.Module:
    from torchebm.core import BaseModel

    class Wrapped(BaseModel):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    return Wrapped()


def images_case() -> dict[str, Callable[[], None]]:
    """Contenders for (a), each a function of no arguments that does one whole update."""
    torch.manual_seed(0)
    ours = ConvEnergy((3, 32, 32), widths=(32, 64, 96, 128))
    plain = PlainConvEnergy(ours)
    data, start = torch.rand(128, 3, 32, 32) * 2 - 1, torch.rand(128, 3, 32, 32) * 2 - 1
    peer = torchebm_model(PlainConvEnergy(ours))
    kit = PlainConvEnergy(ours)
    optimizers = {id(n): torch.optim.Adam(n.parameters(), lr=LEARNING_RATE) for n in (plain, peer, kit)}
    kind, net = tw.methods.find("short_run"), ConvNet(widths=(32, 64, 96, 128))
    settings = dict(shape=(3, 32, 32), net=net, start="noise", batch=128, lr=LEARNING_RATE, clip=0.0)

    def thalweg(precision: str, compiled: Any) -> Callable[[], None]:
        method = kind(kind.Config(chain=Langevin(steps=60, step=0.01, compile=compiled), **settings))
        method.net.load_state_dict(ours.state_dict())
        if precision == "bf16":
            method.to(memory_format=torch.channels_last)
        update = Update(method)
        update.generator = tw.random.seeded(0)

        def one_update() -> None:
            with precise(precision):
                method.step(tw.data.Batch(data), update)

        if compiled == "auto":
            for _ in range(WARM):
                one_update()
        return one_update

    return {
        "plain loop": lambda: contrastive_step(plain, optimizers[id(plain)], plain_langevin, data, start, 60),
        "torchebm": lambda: contrastive_step(peer, optimizers[id(peer)], torchebm_langevin, data, start, 60),
        "ebmkit": lambda: contrastive_step(kit, optimizers[id(kit)], ebmkit_langevin, data, start, 60),
        "thalweg eager fp32": thalweg("fp32", False),
        "thalweg compiled fp32": thalweg("fp32", True),
        **({"thalweg eager bf16": thalweg("bf16", False)} if native("cpu") else {}),
        "thalweg": thalweg(FASTER, "auto"),
    }


def plane_case() -> dict[str, Callable[[], Tensor]]:
    """Contenders for (b): each runs the 1,000 chains and returns where they end."""
    torch.manual_seed(0)
    ours = MLP(2, width=128, depth=2)
    with torch.no_grad():
        ours.last.weight.mul_(3.0)  # a landscape worth walking, confined below
    plain = PlainMLP(ours)
    for p in [*ours.parameters(), *plain.parameters()]:
        p.requires_grad_(False)

    class Confined(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x) + 0.5 * x.square().sum(1)

    fast, slow = Confined(ours), Confined(plain)
    peer = torchebm_model(slow)
    start = torch.randn(1000, 2)

    def thalweg(mixed: bool, compiled: bool) -> Callable[[], Tensor]:
        def chains() -> Tensor:
            with precise(FASTER if mixed else "fp32"):
                return tw.sample.langevin(fast, start, steps=1000, step=0.1, compile=compiled)

        return chains

    return {
        "plain loop": lambda: plain_langevin(slow, start, 1000, 0.1),
        "torchebm": lambda: torchebm_langevin(peer, start, 1000, 0.1),
        "ebmkit": lambda: ebmkit_langevin(slow, start, 1000, 0.1),
        "thalweg eager fp32": thalweg(False, False),
        "thalweg compiled fp32": thalweg(False, True),
        "thalweg": thalweg(True, True),
    }


def summary(first: dict[str, float], seconds: dict[str, list[float]]) -> list[dict]:
    """Median seconds, and the median over repeats of (contender / thalweg)."""
    return [
        {
            "contender": name,
            "median_seconds": statistics.median(times),
            "ratio_to_thalweg": ratio(times, seconds["thalweg"]),
            "first_seconds": round(first[name], 2),
            "seconds": [round(t, 4) for t in times],
        }
        for name, times in seconds.items()
    ]


def moments(case: dict[str, Callable[[], Tensor]], peers: int = 8) -> list[dict]:
    """Mean and variance of many chains' ends for each contender of (b), with standard errors: the fast chain samples the same."""
    rows = []
    for name in ("plain loop", "thalweg"):
        ends = torch.cat([case[name]() for _ in range(peers)])
        n = len(ends)
        mean, variance = ends.mean(0), ends.var(0)
        kurtosis = ((ends - mean) ** 4).mean(0)
        rows.append(
            {
                "contender": name, "chains": n, "mean": mean.tolist(), "mean_error": (variance / n).sqrt().tolist(),
                "variance": variance.tolist(), "variance_error": ((kurtosis - variance**2) / n).sqrt().tolist(),
            }
        )  # fmt: skip
    return rows


def run(options: Options) -> dict:
    results = {"threads": options.threads, "repeats": options.repeats}
    plane = plane_case()
    for key, case in (("plane", plane), ("images", images_case())):
        results[key] = summary(*seconds_in_turn(case, options.repeats, shuffle=True))
        print(f"\n{key}\n" + table([{k: v for k, v in row.items() if k != "seconds"} for row in results[key]]), flush=True)
    results["plane_moments"] = moments(plane)
    results["peers"] = {name: importlib.metadata.version(name) for name in ("torchebm", "ebmkit")}
    return results


COLUMNS = "contender | seconds = median_seconds:.2f | ratio = ratio_to_thalweg:.2f | first run = first_seconds:.1f"
BLOCKS = [
    "Medians of {repeats} paired runs, {threads} thread; the ratio is the contender's time over ours. First runs, in which ours compiles, "
    "are left out.",
    "One contrastive step with 60 Langevin steps, batch 128, 32×32×3, 0.33M parameters:",
    Table(COLUMNS, "images"),
    "1,000 chains × 1,000 Langevin steps through a 2-128-128-1 network:",
    Table(COLUMNS, "plane"),
]
AVX2 = "On a CPU with AVX2 alone, in fp32, beside another training on the other core; a step on images is its convolutions:"
PAGE = [Section("Speed", [Shown("speed", BLOCKS), Shown("speed_avx2", [AVX2, *BLOCKS])])]
CHECK = Check("speed", __doc__, run, dict(repeats=5, threads=1))

if __name__ == "__main__":
    CHECK.main()
