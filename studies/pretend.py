"""Steps without their arithmetic: a model's parameters on the meta device, what reads a value answered, floating-point operations counted.

Shapes, orders of updates and operations are those of a real step, so that a network of any size is walked through in seconds and in no
memory. What depends on values is answered: `all` is true, `any` is false, a number is 1, and every row is chosen.
"""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from thalweg.config import all_fields, changed
from thalweg.data import Batch, UnpairedBatch, ViewBatch
from thalweg.methods.base import has
from thalweg.updates import Update

aten = torch.ops.aten
META = torch.device("meta")


class Generator(torch.Generator):
    """A generator that says it is of any device, where PyTorch makes none: its draws there are without values."""

    def __new__(cls, device: Any = "cpu") -> "Generator":
        return super().__new__(cls, "cpu")

    def __init__(self, device: Any = "cpu") -> None:
        self.said = torch.device(device)

    @property
    def device(self) -> torch.device:
        return self.said


class Answers(TorchDispatchMode):
    """Answers what reads values of meta tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.negative: dict[int, Any] = {}  # storages of results of `any`, held so that none takes another's place

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        asked = args[0] if args and isinstance(args[0], Tensor) and args[0].device == META else None
        if asked is not None:
            if func is aten._local_scalar_dense.default:
                if asked.dtype is torch.bool:
                    return asked.untyped_storage()._cdata not in self.negative
                return 1.0 if asked.is_floating_point() else 1
            if func is aten.nonzero.default:
                return torch.zeros(asked.numel(), asked.dim(), dtype=torch.int64, device=META)
            if func is aten.equal.default:
                return True
            if func is aten._to_copy.default and kwargs.get("device") not in (None, META):
                return torch.ones(asked.shape, dtype=kwargs.get("dtype") or asked.dtype)
            if func is aten.index.Tensor:
                masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
                if masks:
                    rows = [None if i is None else _all_of(i) if i in masks else i for i in args[1]]
                    return func(args[0], [one for row in rows for one in (row if isinstance(row, tuple) else (row,))])
        result = func(*args, **kwargs)
        if func in (aten.any.default, aten.any.dim):
            storage = result.untyped_storage()
            self.negative[storage._cdata] = storage
        return result


def _all_of(mask: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.zeros(mask.numel(), dtype=torch.int64, device=META) for _ in range(mask.dim()))


@contextlib.contextmanager
def answered() -> Iterator[None]:
    """A context in which models on the meta device can take steps: what PyTorch lacks there, generators and autocast, is stood in for."""
    generator, enabled, autocast = torch.Generator, torch.is_autocast_enabled, torch.autocast

    def is_enabled(device: str = "cuda") -> bool:
        return device != "meta" and enabled(device)

    def cast(device: str, *arguments: Any, **options: Any) -> Any:
        return contextlib.nullcontext() if device == "meta" else autocast(device, *arguments, **options)

    torch.Generator, torch.is_autocast_enabled, torch.autocast = Generator, is_enabled, cast  # type: ignore
    try:
        with Answers():
            yield
    finally:
        torch.Generator, torch.is_autocast_enabled, torch.autocast = generator, enabled, autocast  # type: ignore


class Operations(TorchDispatchMode):
    """Counts floating-point operations of convolutions and matrix products, forward and backward, by PyTorch's own formulas."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.count += formula(*args, **(kwargs or {}), out_val=result)
        return result


class Gradients(Update):
    """The verb without its step: gradients of each loss are taken, and nothing is done with them."""

    def __call__(self, name: str, loss: Tensor) -> None:
        torch.autograd.grad(loss, self.parameters[name], allow_unused=True)
        self.updates += 1


def on_meta(kind: Any, config: Any) -> Any:
    """A model without values; single numbers among its buffers, by which methods choose their way, are real."""
    with torch.device("meta"):
        method = kind(config)
    for module in method.modules():
        for name, value in module._buffers.items():
            if value is not None and value.dim() == 0:
                module._buffers[name] = torch.ones((), dtype=value.dtype)
    return method


def batch_of(config: Any, method: Any) -> Any:
    """A batch without values, as the method takes it."""
    count = config.views if has(method, "views") else config.batch  # an object's images: its rays are rendered in many parts
    x = torch.zeros(count, *config.shape, device=META)
    label = torch.zeros(count, dtype=torch.int64, device=META) if config.classes else None
    if has(method, "views"):
        numbers = torch.zeros(count, dtype=torch.int64, device=META)
        return ViewBatch(x, None, torch.zeros(count, 3, 5, device=META), numbers, row=numbers)
    return UnpairedBatch(x, label, x) if config.data_needs.source else Batch(x, label)


def operations(kind: Any, config: Any, at: Sequence[float], known: dict[str, float] | None = None) -> list[float]:
    """Floating-point operations of one step an image, in losses, chains and gradients, at each share `at` of the run's length.

    A step of a chain costs what every other one does: chains are counted with one step, each once more with two, and drawn out. `known`
    keeps counts of steps for configs that differ in nothing that matters to them.
    """
    chains = chain_fields(config)
    short = changed(config, **{name: _all(value, 1) for name, value in chains.items()})
    if hasattr(config, "stage_splits"):  # an image costs the same in whatever part of a batch it is
        short = changed(short, stage_splits=_all(config.stage_splits, 1))
    with answered():
        found = []
        for share in at:
            once = _of_step(kind, short, share, known)
            more = [(_of_step(kind, changed(short, **{name: _all(value, 2)}), share, known) - once) for name, value in chains.items()]
            # the steps of a stage: the last one's, or where a run is in an early stage its own
            found.append(once + sum(each * (_steps_at(config, value, share) - 1) for each, value in zip(more, chains.values())))
        return found


def chain_fields(config: Any) -> dict[str, Any]:
    """The fields that say how many steps chains of training have, with their values."""
    names = [name for name in all_fields(config) if name.rpartition(".")[2] in ("steps", "stage_steps") and "infer_chain" not in name]
    return {name: functools.reduce(getattr, name.split("."), config) for name in names}


def _all(value: Any, steps: int) -> Any:
    return (steps,) * len(value) if isinstance(value, tuple) else min(steps, value)


def _steps_at(config: Any, value: Any, share: float) -> int:
    if not isinstance(value, tuple):
        return value
    reached, images = 0, share * config.images
    while reached < len(value) - 1 and images >= sum(config.stage_images[: reached + 1]):
        reached += 1
    return value[reached]


def _key(kind: Any, config: Any, share: float) -> str:
    """What the operations of a step hang on: all settings but data and batch, of rates whether there are any, of images the share."""

    def seen(value: Any) -> Any:
        if is_dataclass(value):
            return {f.name: seen(getattr(value, f.name)) for f in fields(value)}
        return bool(value) if isinstance(value, float) else value

    values = {
        name: value for name, value in seen(config).items() if name not in ("data", "source", "batch", "images", "classes", "warm_up")
    }
    counts = {name: round(value / config.images, 2) for name, value in values.items() if type(value) is int and value > 10_000}
    return repr((kind.name, share, config.classes and bool(getattr(config, "conditional", True)), values | counts))


def _of_step(kind: Any, config: Any, share: float, known: dict[str, float] | None) -> float:
    known = {} if known is None else known
    key = _key(kind, config, share)
    if key not in known:
        known[key] = _count_step(kind, config, share)
    return known[key]


def _count_step(kind: Any, config: Any, share: float) -> float:
    method = on_meta(kind, config)
    update = Gradients(method, method)
    update.images = int(share * config.images)
    update.begin()
    method.train()
    batch = batch_of(config, method)
    with Operations() as counter:
        method.step(batch, update)
    return counter.count / len(batch.x)
