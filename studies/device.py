"""What a device does with presets of paper scale, in eight minutes: python -m studies.device [--device cuda] [--budget 480] [--train 120]

First the device's own speed, products of large matrices in bf16. Then a step of each preset at its batch, or at half of it until it
fits, and its chain in three ways: as it is, compiled, and as one CUDA graph a step. Images a second, the share of the measured speed
that they are by the operations of studies/results/presets.json, and the most memory that was held. Last, three models are trained on
Fashion-MNIST for `--train` seconds each. Whatever fails is said in its row, and what there was no time for is named.
"""

import gc
import json
import math
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import thalweg as tw
from studies.pretend import chain_fields
from studies.runner import Check, Options, Row
from studies.tables import RESULTS
from thalweg import camera, random, sample
from thalweg.checkpoint import read_stats
from thalweg.commands.list import tables
from thalweg.config import changed
from thalweg.data import Batch, UnpairedBatch, ViewBatch
from thalweg.distributed import usable
from thalweg.methods import preset
from thalweg.methods.base import has
from thalweg.nn.layers import frozen
from thalweg.precision import autocast, native
from thalweg.train import fit

# one of each kind first, so that little time says something of all
FIRST = ("egc/cifar10", "dual/cifar10", "cdrl/cifar10", "coopflow/cifar10", "liebm/cifar10", "cf_ebm/celeba-64", "ddaebm/cifar10",
         "short_run/cifar10", "egc/imagenet256-latent", "nerf_lebm/carla-amortized")  # fmt: skip
TRAINED = {"dual/fashion-mnist": {}, "egc/fashion-mnist": {}, "cdrl/fashion-mnist": {}}
STEPS = 10  # of a chain that is timed


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(work: Callable[[], Any], device: torch.device, *, least: float, warm: int = 1) -> float:
    """Seconds of one call, after `warm` others: the mean over as many as take `least` seconds."""
    for _ in range(warm):
        work()
    wait(device)
    started, done = time.perf_counter(), 0
    while done == 0 or time.perf_counter() - started < least:
        work()
        wait(device)
        done += 1
    return (time.perf_counter() - started) / done


def peak(device: torch.device, sizes: tuple[int, ...], least: float) -> float:
    """The most floating-point operations a second of products of square matrices in bf16, in fp32 where that is emulated."""
    found, dtype = [], torch.bfloat16 if native(device) else torch.float32
    for size in sizes:
        a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        found.append(2 * size**3 / seconds_of(partial(torch.mm, a, b), device, least=least, warm=3))
    return max(found)


def batch_of(method: Any, count: int, device: torch.device) -> Any:
    """A batch of noise, as the method takes it."""
    config = method.config
    x = random.uniform(count, *config.shape, low=-1.0, high=1.0, device=device, generator=random.seeded(0, device=device))
    label = torch.arange(count, device=device) % config.classes if config.classes else None
    if has(method, "views"):
        angle = camera.unit_vector(torch.linspace(0.1, 1.3, count))
        view = camera.orbit(angle, angle, distance=10.0 if config.renderer.near > 2 else 1.3, focal=1.2)
        row = torch.arange(count, device=device)
        return ViewBatch(x, None, view.to(device), row // config.views, row=row)
    return UnpairedBatch(x, label, x) if config.data_needs.source else Batch(x, label)


def memory(device: torch.device) -> float | None:
    """The most GiB held since the last call."""
    if device.type != "cuda":
        return None
    held = torch.cuda.max_memory_allocated(device) / 2**30
    torch.cuda.reset_peak_memory_stats(device)
    return round(held, 2)


def fields_of(config: Any, options: Options) -> dict[str, Any]:
    """The fields of a try at small settings; none of a real run."""
    if not options.tiny:
        return {}
    return {name: (1,) * len(value) if isinstance(value, tuple) else min(1, value) for name, value in chain_fields(config).items()}


def a_step(name: str, count: int, device: torch.device, options: Options, **fields: Any) -> tuple[float, Any]:
    """Seconds of a step of a preset on `count` images, and its method."""
    kind, config = preset(name)
    config = changed(config, **fields_of(config, options), **fields)
    torch.manual_seed(0)
    with torch.device(device):
        method = kind(config)
    method = method.to(device)
    if device.type == "cuda":
        method = method.to(memory_format=torch.channels_last)
    update, batch = tw.update(method), batch_of(method, count, device)

    def step() -> None:
        with autocast("bf16", device):
            update.step(batch)

    return seconds_of(step, device, least=options.least), method


def largest(name: str, device: torch.device, options: Options) -> tuple[int, float, Any]:
    """The preset's batch, or half of it again and again until a step fits: the batch, seconds of a step, the method."""
    _, config = preset(name)
    least = max(2, getattr(config, "views", 1), *getattr(config, "stage_splits", (1,)))
    count = options.batch or config.batch
    while True:
        try:
            return count, *a_step(name, count, device, options)
        except torch.OutOfMemoryError:
            if count // 2 < least:
                raise
            count //= 2
            free()


def free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def chains(method: Any, count: int, device: torch.device, options: Options) -> Row:
    """Seconds of a step of Langevin on the method's energy, as it is, compiled, and as a CUDA graph."""
    energy, x = method.energy, batch_of(method, count, device).x
    found: Row = {}

    def chain(compile: bool) -> None:
        with frozen(method), autocast("bf16", device):
            sample.langevin(energy, x, steps=STEPS, step=1e-3, compile=compile, generator=random.seeded(0, device=device))

    found["eager"] = attempt(lambda: seconds_of(partial(chain, False), device, least=options.least) / STEPS)
    if not options.tiny:  # the compiler takes minutes on a CPU
        found["compiled"] = attempt(lambda: seconds_of(partial(chain, True), device, least=options.least) / STEPS)
    if device.type == "cuda":
        found["graphed"] = attempt(lambda: seconds_of(graphed(method, energy, x), device, least=options.least))
    return found


def graphed(method: Any, energy: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], None]:
    """A step of Langevin as a CUDA graph, which is replayed at each call and moves x."""
    state = x.clone()

    def move() -> None:
        with frozen(method), torch.autocast("cuda", torch.bfloat16):
            y = state.detach().requires_grad_(True)
            (slope,) = torch.autograd.grad(energy(y).sum(), y)
            state.add_(-5e-7 * slope + 1e-3 * torch.randn_like(state))

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            move()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        move()
    return graph.replay


def attempt(work: Callable[[], Any]) -> Any:
    """What the work gives, or in one line what went wrong."""
    try:
        return work()
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:160] if str(error) else ''}"


def of_preset(name: str, device: torch.device, speed: float, counts: dict[str, float], options: Options) -> Row:
    """The row of one preset."""
    free()
    memory(device)
    count, seconds, method = largest(name, device, options)
    row: Row = {
        "preset": name,
        "batch": count,
        "preset_batch": preset(name)[1].batch,
        "seconds_step": seconds,
        "images_second": count / seconds,
    }
    row["memory_gib"] = memory(device)
    if name in counts:
        row["share_of_peak"] = counts[name] * count / seconds / speed
    _, config = preset(name)
    if getattr(config, "compile", None) is False and not options.tiny:  # the whole loss
        row["seconds_step_compiled"] = attempt(lambda: a_step(name, count, device, options, compile=True)[0])
    if has(method, "energy") and "views" not in method.abilities:
        row["chain"] = chains(method, min(count, 64), device, options)
    return row


def trained(name: str, device: torch.device, options: Options) -> Row:
    """A model of Fashion-MNIST after `--train` seconds."""
    kind, config = preset(name)
    torch.manual_seed(0)
    config = changed(config, **({"net.width": 8} if options.tiny else {}), **({"batch": options.batch} if options.batch else {}))
    data = tw.data.load("fashion-mnist")
    with tempfile.TemporaryDirectory() as folder:
        often = config.batch if options.tiny else None
        settings = dict(
            seconds=options.train, device=str(device), precision="bf16" if native(device) else "fp32", log_every=often, progress=False
        )
        twin = fit(kind(config), data, folder, **settings)
        rows = read_stats(Path(folder))
    last = [row for row in rows if "seconds" in row][-1]
    drawn = twin.sample(16, seed=0, **({"steps": 2} if options.tiny and name.startswith(("dual", "egc")) else {}))
    held_out = data.batch(10**6, 256, 1)
    held_out = type(held_out)(*(None if part is None else part.to(device) for part in held_out))
    criterion = attempt(lambda: float(twin.criterion(held_out, random.seeded(1, device=device))))
    return {
        "preset": name, "seconds": last["seconds"], "images": last["images"], "images_second": last["images"] / last["seconds"],
        "memory_gib": memory(device), "guard_events": sum("event" in row for row in rows),
        "samples_finite": bool(drawn.isfinite().all()), "samples_std": float(drawn.std()), "criterion": criterion,
    }  # fmt: skip


def presets_of_paper_scale() -> list[str]:
    """Presets whose run takes more than 10¹⁶ operations, one of each kind first."""
    path = RESULTS / "presets.json"
    rows = json.loads(path.read_text())["results"]["rows"] if path.exists() else []
    large = [row["preset"] for row in rows if row.get("operations_image", 0) * row["images"] > 1e16]
    known = [f"{method}/{key}" for method, table in tables().items() for key in table]
    return list(dict.fromkeys([*(name for name in FIRST if name in known), *large]))


def run(options: Options) -> dict[str, Any]:
    device, ends = torch.device(usable(options.device)), time.perf_counter() + options.budget
    path = RESULTS / "presets.json"
    rows = json.loads(path.read_text())["results"]["rows"] if path.exists() else []
    counts = {row["preset"]: row["operations_image"] for row in rows if "operations_image" in row}
    found: dict[str, Any] = {"device": str(device), "name": torch.cuda.get_device_name() if device.type == "cuda" else "cpu"}
    speed = peak(device, (256,) if options.tiny else (4096, 8192), options.least)
    found |= {"peak": speed, "presets": [], "trained": [], "no_time": []}
    print(f"{found['name']}: {speed / 1e12:.1f} TFLOP/s in bf16", flush=True)
    kept = len(TRAINED) * (options.train + 10 * (not options.tiny))
    for name in options.only if options.only != [""] else presets_of_paper_scale():
        if time.perf_counter() > ends - kept:
            found["no_time"].append(name)
            continue
        row = attempt(partial(of_preset, name, device, speed, counts, options))
        found["presets"].append(row if isinstance(row, dict) else {"preset": name, "failed": row})
        print(json.dumps(found["presets"][-1]), flush=True)
    for name in TRAINED if options.train > 0 else ():
        free()
        row = attempt(partial(trained, name, device, options))
        found["trained"].append(row if isinstance(row, dict) else {"preset": name, "failed": row})
        print(json.dumps(found["trained"][-1]), flush=True)
    return found


def failed(found: dict[str, Any]) -> bool:
    """Whether a preset or a training failed, or samples are not finite."""
    rows = [*found["presets"], *found["trained"]]
    return not math.isfinite(found["peak"]) or any("failed" in row or row.get("samples_finite") is False for row in rows)


OWN = dict(device="auto", budget=480.0, train=120.0, least=1.0, batch=0, tiny=0, only=[""], threads=torch.get_num_threads())
CHECK = Check("device", __doc__, run, OWN, failed=failed)

if __name__ == "__main__":
    CHECK.main()
