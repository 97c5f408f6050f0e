"""The gate of a model: what its public functions are given is looked at once, before the method sees it.

Type, shape, device and labels are looked at in every call, which costs microseconds; values (finite, in the range of images) only where
a model that is not in training is given what nobody differentiates, so that no chain pays for it. What a method's function calls in
turn is not looked at again. The library computes in float32, whatever PyTorch's default is.
"""

import contextlib
import functools
import inspect
import math
import numbers
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from thalweg.errors import InputError

REACH = 10.0  # of images in [−1, 1] with noise of deviation 1 no value comes near
NOISE_REACH = 6.0  # deviations of the noise that `denoise` is told of
# numbers that `sample` may be given; of which sizes counts are, the methods say
COUNTS = ("steps", "resample", "corrections", "population", "proposals", "rounds", "candidates", "down_to")
KNOBS = {"eta": (0, 1), "chain_noise": (-math.inf, math.inf), "guidance": (-math.inf, math.inf), "step_ratio": (-math.inf, math.inf)}


def guard(kind: Any) -> None:
    """Put the gate before the functions of a class that are given examples (`kind.inputs`), before its `sample` and its `step`."""
    checks = {name: functools.partial(_examples, name) for name in kind.inputs} | {"sample": _sampling, "step": _step}
    for name, check in checks.items():
        function = vars(kind).get(name)
        if inspect.isfunction(function):
            setattr(kind, name, _guarded(function, check))


_INSIDE: set[int] = set()  # models of whose functions one runs: ids, as a copy made meanwhile is not inside


def _guarded(function: Callable[..., Any], check: Callable[..., tuple[Any, dict[str, Any]]]) -> Callable[..., Any]:
    @functools.wraps(function)
    def checked(self: Any, first: Any = inspect.Parameter.empty, *others: Any, **options: Any) -> Any:
        if first is inspect.Parameter.empty:  # given by name, or missing
            name = next(iter(list(inspect.signature(function).parameters)[1:]), None)
            if name not in options:
                return function(self, *others, **options)
            first = options.pop(name)
        if torch.compiler.is_compiling() or id(self) in _INSIDE:
            return function(self, first, *others, **options)
        _INSIDE.add(id(self))
        try:
            with float32():
                first, options = check(self, first, options, others)
                return function(self, first, *others, **options)
        finally:
            _INSIDE.discard(id(self))

    return checked


@contextlib.contextmanager
def float32() -> Iterator[None]:
    """New tensors are float32 inside."""
    default = torch.get_default_dtype()
    if default is torch.float32:
        yield
        return
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(default)


def _examples(name: str, method: Any, x: Any, options: dict[str, Any], others: tuple[Any, ...]) -> tuple[Tensor, dict[str, Any]]:
    what, x = f"{method.name}: {name}", tensor(f"{method.name}: {name}", x)
    shapes = method.input_shapes
    _check_shape(what, x, shapes)
    images = len(shapes[0]) == 3 and not method.config.data_needs.autoencoder
    if not x.is_floating_point() and (images or x.is_complex()):
        hint = "; of grey values 0 … 255 give x.float() / 127.5 - 1" if x.dtype is torch.uint8 else ""
        raise InputError(f"{what} needs floating-point {'images in [−1, 1]' if images else 'values'}, got {_type(x)}{hint}")
    weight = next(method.parameters(), x)
    x = x.to(device=weight.device, dtype=weight.dtype) if weight.is_floating_point() else x
    if not (method.training or x.requires_grad or name == "reconstruct"):  # whose mask says which values count
        std = options.get("std", others[0] if others else 0) if name == "denoise" else 0
        _check_values(what, x, REACH + NOISE_REACH * std if images and isinstance(std, numbers.Real) else math.inf)
    return x, _conditions(method.name, options)


def tensor(what: str, x: Any) -> Tensor:
    """`x` as a tensor; InputError where nothing can be made one."""
    if isinstance(x, Tensor):
        return x
    try:
        return torch.as_tensor(x)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"{what} needs a tensor or array [B, ...], got {type(x).__name__}") from None


def _type(x: Tensor) -> str:
    return f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)}"


def _check_shape(what: str, x: Tensor, shapes: tuple[tuple[int, ...], ...]) -> None:
    found = tuple(x.shape)
    if found[1:] in shapes and x.dim() and len(x):
        return
    wanted = " or ".join(f"[B, {', '.join(map(str, shape))}]" for shape in dict.fromkeys(shapes))
    hint = "; one example or more" if found[1:] in shapes else ""
    if found in shapes:
        hint = "; give one example as a batch: x[None]"
    elif len(found) == 4 and (found[3], found[1], found[2]) in shapes:
        hint = "; channels come first: x.permute(0, 3, 1, 2)"
    raise InputError(f"{what} needs {'images ' if len(shapes[0]) == 3 else ''}{wanted}, got {list(found)}{hint}")


def _check_values(what: str, x: Tensor, reach: float) -> None:
    if not x.numel():
        return
    try:
        low, high = float(x.min()), float(x.max())
    except RuntimeError:  # inside torch.func transforms there are no values to look at
        return
    if not math.isfinite(high - low):
        raise InputError(f"{what}: {int((~x.isfinite()).flatten(1).any(1).sum())} of {len(x)} examples hold NaN or infinity")
    if max(-low, high) > reach:
        hint = "; of grey values 0 … 255 give x / 127.5 - 1" if low >= 0 and high <= 255 else ""
        raise InputError(f"{what} needs images in [−1, 1], got values from {low:.4g} to {high:.4g}{hint}")


def _conditions(method: str, options: dict[str, Any]) -> dict[str, Any]:
    """Options with labels, and levels `t`, as ints or whole tensors; InputError for text, truth values and fractions."""
    for name in options.keys() & {"label", "t"}:
        value = options[name]
        if value is None or type(value) is int:
            continue
        found = tensor(f"{method}: {name}", value) if not isinstance(value, str) else None
        if found is None or found.dtype is torch.bool or found.is_floating_point() or found.is_complex():
            kind = f"{value!r}" if found is None or not found.dim() else _type(found)
            hint = "; a class is named by its number here" if isinstance(value, str) else ""
            raise InputError(f"{method}: {name} must be whole numbers, got {kind}{hint}")
        options = options | {name: found.long() if found.dim() or isinstance(value, Tensor) else int(found)}
    return options


def _step(method: Any, batch: Any, options: dict[str, Any], others: tuple[Any, ...]) -> tuple[Any, dict[str, Any]]:
    """A batch is looked at where data come in, not here; what the step calls is not looked at again."""
    return batch, options


def _sampling(method: Any, n: Any, options: dict[str, Any], others: tuple[Any, ...]) -> tuple[int, dict[str, Any]]:
    """What `sample` is given."""
    name, options = method.name, _conditions(method.name, options)
    if "seed" in options:
        options = options | {"seed": whole(f"{name}: seed", options["seed"])}
    for knob, value in options.items():
        if value is None or knob not in (*COUNTS, *KNOBS) or (knob == "guidance" and isinstance(value, list | tuple)):
            continue
        what = f"{name}: {knob}"
        options = options | {knob: whole(what, value) if knob in COUNTS else _number(what, value, *KNOBS[knob])}
    if options.get("start") is not None:
        options = options | {"start": tensor(f"{name}: start", options["start"]).float()}
    return whole(f"{name}: n", n, 1), options


def whole(what: str, value: Any, least: int | None = None) -> int:
    """`value` as an int; InputError unless it is a whole number (NumPy's too, no truth value), of at least `least`."""
    if isinstance(value, Tensor) and not value.dim() and not value.is_floating_point() and value.dtype is not torch.bool:
        value = int(value)
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or (least is not None and value < least):
        more = "" if least is None else f", {least} or more"
        raise InputError(f"{what} must be a whole number{more}, got {value!r}")
    return int(value)


def _number(what: str, value: Any, low: float, high: float) -> float:
    if isinstance(value, Tensor) and not value.dim():
        value = float(value)
    right = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value) and low <= value <= high
    if not right:
        span = f" between {low:g} and {high:g}" if math.isfinite(high) else f" of {low:g} or more" if math.isfinite(low) else ""
        raise InputError(f"{what} must be a finite number{span}, got {value!r}")
    return float(value)
