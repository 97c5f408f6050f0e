"""What a step costs: as a share of what the machine can do, and as chains, steps, levels, pixels, channels and processes grow.

    python -m studies.checks.cost [--parts shares lines processes] [--rounds 7]

In bf16 where the processor has instructions for it, else in fp32.

`shares`: CPU seconds of one thread that a step takes, its counted operations, and the share that this is of what 3×3
convolutions of the best size reach; for the presets of 28×28 as they train, and for the contrastive step of `studies.checks.speed`,
eager and compiled, for which the time of its convolutions alone is taken as well: no way to run the step with these kernels is faster.
`lines`: the same seconds as one thing grows, and how far they are from a straight line. `processes`: images a second of two processes,
each with the batch that one has alone, against twice those of one, by the clock: on a machine that does nothing else.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import thalweg as tw
from studies.measures import parameters, peak, precisely, seconds_in_turn
from studies.pretend import operations
from studies.runner import Check, Options, Row, table
from studies.tables import ROOT, Section, Shown, Table
from thalweg.chain import Langevin
from thalweg.config import changed
from thalweg.nn.build import ConvNet
from thalweg.precision import native

FASTER = "bf16" if native("cpu") else "fp32"
PRESETS = (
    "short_run/fashion-mnist", "jem/fashion-mnist", "egc/fashion-mnist", "egc/fashion-mnist-unsupervised", "cdrl/fashion-mnist",
    "ddaebm/fashion-mnist", "dual/fashion-mnist",
)  # fmt: skip
SPEED = dict(shape=(3, 32, 32), net=ConvNet(widths=(32, 64, 96, 128)), start="noise", batch=128, clip=0.0, lr=1e-4)
SIXTY = Langevin(steps=60, step=0.01)
SMALL = dict(shape=(1, 28, 28), net=ConvNet(widths=(32, 64), blocks=1, patch=2), start="noise", batch=32)
CHAIN = Langevin(steps=16, step=0.01)
WARM = 8  # steps before times are taken: compilation, and the choice of `compile = "auto"`
AT = 0.875  # of a run's length, at which operations are counted


# --- shares


def stepping(kind: Any, config: Any, batch: Any, precision: str = FASTER) -> tuple[Callable[[], None], Any]:
    """A step of training on a batch, and its model."""
    torch.manual_seed(0)
    model = kind(config)
    if hasattr(model, "prepare"):
        model.prepare(batch.x)
    update = tw.update(model.to(memory_format=torch.channels_last))
    return precisely(partial(update.step, batch), precision), model


def of_preset(name: str, top: float, rounds: int) -> Row:
    kind, config = tw.methods.preset(name)
    train = tw.data.load(config.data, "train")
    step, model = stepping(kind, config, train.batch(0, config.batch, 0))
    for _ in range(WARM):
        step()
    _, seconds = seconds_in_turn({name: step}, rounds)
    (flops,) = operations(kind, config, (AT,))
    return share({"name": name, "parameters": parameters(model)}, flops * config.batch, config.batch, seconds[name], top)


def share(row: Row, flops: float, batch: int, seconds: Sequence[float], top: float) -> Row:
    middle = statistics.median(seconds)
    return row | {
        "batch": batch, "seconds": middle, "images_a_second": batch / middle, "gflop": flops / 1e9,
        "share_of_peak": flops / 1e9 / middle / top,
    }  # fmt: skip


def contrastive(top: float, rounds: int) -> list[Row]:
    """The contrastive step of `studies.checks.speed`, two ways, and its convolutions alone."""
    kind, batch = tw.methods.find("short_run"), tw.data.Batch(2 * torch.rand(128, 3, 32, 32) - 1)
    runs, ways = {}, {"eager": False, "compiled": True}
    for way, compiled in ways.items():
        runs[way], model = stepping(kind, kind.Config(chain=changed(SIXTY, compile=compiled), **SPEED), batch)
    alone = partial(convolutions, [*layers(model.net, batch.x)], SIXTY.steps)
    runs["alone"] = precisely(alone, FASTER)
    for run in runs.values():
        run()
    _, seconds = seconds_in_turn(runs, rounds)
    (flops,) = operations(kind, kind.Config(chain=SIXTY, **SPEED), (AT,))
    rows = [
        share({"name": f"60 steps at 32×32×3, {way}", "parameters": parameters(model)}, 128 * flops, 128, seconds[way], top) for way in ways
    ]
    within = 2 * SIXTY.steps * 128 * multiplied(model.net, batch.x[:1])
    return [*rows, share({"name": "its chain's convolutions alone", "parameters": None}, within, 128, seconds["alone"], top)]


def layers(net: nn.Module, x: Tensor) -> Iterator[tuple[nn.Conv2d, Tensor, Tensor]]:
    """The convolutions of a network with what they are given and give."""
    seen: list[tuple[nn.Conv2d, Tensor, Tensor]] = []
    hooks = [
        part.register_forward_hook(lambda layer, given, out: seen.append((layer, given[0].detach(), out.detach())))
        for part in net.modules()
        if isinstance(part, nn.Conv2d)
    ]
    with torch.no_grad():
        net(x)
    for hook in hooks:
        hook.remove()
    yield from seen


def multiplied(net: nn.Module, x: Tensor) -> float:
    """Operations of the convolutions of one image x [1, C, H, W], forwards."""
    return float(sum(2 * layer.weight[0].numel() * out.numel() for layer, _, out in layers(net, x)))


@torch.no_grad()
def convolutions(found: Sequence[tuple[nn.Conv2d, Tensor, Tensor]], steps: int) -> None:
    """Each of the `layers` forwards and backwards by its input, in channels-last memory, as often as a chain does."""
    for layer, given, out in found:
        near = partial(torch.Tensor.to, dtype=torch.bfloat16 if FASTER == "bf16" else torch.float32, memory_format=torch.channels_last)
        given, out, weight = near(given), near(out), near(layer.weight)
        shape = [list(layer.stride), list(layer.padding), list(layer.dilation), False, [0, 0], 1]
        for _ in range(steps):
            torch.ops.aten.convolution(given, weight, None, *shape)
            torch.ops.aten.convolution_backward(out, given, weight, None, *shape, [True, False, False])


def shares(options: Options) -> dict[str, Any]:
    top = peak(FASTER)
    rows = contrastive(top, options.rounds)
    for name in options.presets:
        rows.append(of_preset(name, top, options.rounds))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return {"precision": FASTER, "peak_gflops": top, "rows": rows}


# --- lines


def chain_step(
    batch: int = 32, steps: int = 16, side: int = 28, width: int = 32, precision: str = FASTER
) -> tuple[Callable[[], None], float]:
    """A contrastive step and its operations."""
    kind = tw.methods.find("short_run")
    settings = SMALL | dict(batch=batch, shape=(1, side, side), net=ConvNet(widths=(width, 2 * width), blocks=1, patch=2))
    config = kind.Config(chain=changed(CHAIN, steps=steps), **settings)
    step, _ = stepping(kind, config, tw.data.Batch(2 * torch.rand(batch, 1, side, side) - 1), precision)
    (flops,) = operations(kind, config, (AT,))
    return step, batch * flops


def sampling(levels: int) -> tuple[Callable[[], None], float]:
    """Drawing 64 images by `dual` along so many levels."""
    torch.manual_seed(0)
    model = tw.method("dual/fashion-mnist")
    model.prepare(2 * torch.rand(1000, 1, 28, 28) - 1)
    model = model.to(memory_format=torch.channels_last).eval()
    return precisely(lambda: model.sample(64, steps=levels, seed=0), FASTER), float(levels)


LINES: dict[str, tuple[str, tuple[int, ...], Callable[[int], tuple[Callable[[], None], float]]]] = {
    "chains": ("chains", (8, 16, 32, 64, 128), lambda n: (chain_step(batch=n)[0], n)),
    "steps": ("steps of a chain", (8, 16, 32, 64), lambda n: (chain_step(steps=n)[0], n)),
    "pixels": ("pixels of an image", (16, 24, 32, 48, 64), lambda n: (chain_step(side=n, batch=16)[0], n * n)),
    "channels": ("GFLOP, as channels grow", (16, 32, 64, 96), lambda n: (lambda made: (made[0], made[1] / 1e9))(chain_step(width=n))),
    "levels": ("levels of a sampler", (5, 10, 20, 40), sampling),
}


def line(name: str, rounds: int) -> Row:
    """CPU seconds as one thing grows, with the straight line through them: least squares of relative errors."""
    what, values, made = LINES[name]
    runs, along = {}, []
    for value in values:
        run, x = made(value)
        runs[str(value)] = run
        along.append(x)
    _, seconds = seconds_in_turn(runs, rounds, shuffle=True)
    times = [statistics.median(seconds[str(value)]) for value in values]
    fixed, each = straight(along, times)
    return {
        "line": name, "of": what, "values": along, "seconds": times, "fixed": fixed, "each": each,
        "off": [(fixed + each * x) / t - 1 for x, t in zip(along, times)],
        "spread": [max(seconds[str(v)]) / min(seconds[str(v)]) - 1 for v in values],
    }  # fmt: skip


def straight(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """a ≥ 0 and b of the line a + b x that is nearest to y > 0 in relative terms."""
    a = torch.tensor([[1 / t, s / t] for s, t in zip(x, y)], dtype=torch.float64)
    one = torch.ones(len(y), 1, dtype=torch.float64)
    fixed, each = torch.linalg.lstsq(a, one).solution[:, 0].tolist()
    return (fixed, each) if fixed >= 0 else (0.0, float(torch.linalg.lstsq(a[:, 1:], one).solution))


# --- processes


def pace(processes: int, options: Options, folder: Path) -> float:
    """Images a second that so many processes train, by the clock, after the first quarter of the run."""
    out, batch = folder / f"{processes}-{time.monotonic_ns()}", 64 * processes
    words = [sys.executable, "-m"]
    if processes > 1:
        words += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    words += [
        "thalweg.cli",
        "train",
        options.trained,
        "--batch",
        str(batch),
        "--images",
        str(options.images * processes),
        "--device",
        "cpu",
    ]
    words += ["--log-every", str(batch * 4), "--save-every", str(10**9), "--sample-every", str(10**9), "--out", str(out)]
    paths = os.pathsep.join(map(str, (ROOT / "src", ROOT)))
    alone = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "PYTHONPATH": paths}
    subprocess.run([*words, "--precision", FASTER], check=True, env=alone, capture_output=True)
    rows = [json.loads(text) for text in (out / "stats.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "images" in row and "seconds" in row]
    first, last = rows[len(rows) // 4], rows[-1]
    return (last["images"] - first["images"]) / (last["seconds"] - first["seconds"])


def processes(options: Options) -> Row:
    found: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(options.turns):
            for count in (1, 2) if turn % 2 == 0 else (2, 1):
                found[count].append(pace(count, options, Path(folder)))
                print(f"{count}: {found[count][-1]:.0f} images/s", file=sys.stderr, flush=True)
    gain = [two / (2 * one) for one, two in zip(found[1], found[2])]
    return {"preset": options.trained, "one": found[1], "two": found[2], "share": statistics.median(gain), "load": os.getloadavg()[0]}


# --- all


def run(options: Options) -> dict[str, Any]:
    torch.set_num_threads(1)
    out, found = Path(options.out), {}
    if out.exists() and set(options.parts) != {"shares", "lines", "processes"}:
        found = json.loads(out.read_text())["results"]  # the other parts stay
    if "shares" in options.parts:
        found["shares"] = shares(options)
    if "lines" in options.parts:
        found["lines"] = [line(name, options.rounds) for name in LINES]
        print(table([{"of": row["of"], "off": max(map(abs, row["off"]))} for row in found["lines"]]), file=sys.stderr, flush=True)
    if "processes" in options.parts:
        found["processes"] = processes(options)
    return found


def listed(values: Sequence[float], form: str) -> str:
    return ", ".join(format(value, form) for value in values)


SHARES = Table(
    "a step of = name | parameters = parameters:, | batch = batch | CPU s = seconds:.3g | images/s = images_a_second:,.0f | "
    "GFLOP = gflop:.4g | share of peak = share_of_peak:.0f %",
    lambda results: results["shares"]["rows"],
)
GROWN = Table(
    [
        "as these grow = of",
        ("values", lambda row: listed(row["values"], ".4g")),
        ("CPU s", lambda row: listed(row["seconds"], ".3g")),
        ("line's error, %", lambda row: listed([100 * off for off in row["off"]], "+.0f")),
        ("slowest over fastest round, %", lambda row: listed([100 * value for value in row["spread"]], ".0f")),
    ],
    lambda results: results["lines"],
)
PAGE = [
    Section(
        "What a step costs",
        [
            Shown(
                "cost",
                [
                    "One thread in {shares[precision]}; 3×3 convolutions of the best size reach {shares[peak_gflops]:.0f} GFLOP a second, "
                    "the peak here. Operations are counted, those of convolutions and products of matrices.",
                    SHARES,
                    "Medians of CPU seconds as one thing grows, and how far a straight line through them, with a fixed part, is from each:",
                    GROWN,
                    "Two processes on two cores train `{processes[preset]}` at {processes[share]:.0f %} of twice the pace of one.",
                ],
            )
        ],
    )
]
PARTS = ["shares", "lines", "processes"]
CHECK = Check(
    "cost", __doc__, run,
    dict(parts=PARTS, presets=list(PRESETS), rounds=7, turns=3, trained="egc/fashion-mnist", images=12_800),
)  # fmt: skip

if __name__ == "__main__":
    CHECK.main()
