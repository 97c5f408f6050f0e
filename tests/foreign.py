"""A device that no machine has: its tensors compute on the CPU, and what would go wrong on a GPU goes wrong here.

`with on_foreign() as log` makes the device "foreign". Mixing it with tensors of the CPU raises, as CUDA does, and so does a generator of
the CPU. Each time that the host waits for a value (`item`, `tolist`, `bool`, `cpu`, `nonzero`, a mask as an index), the line of Thalweg
that asked is noted in `log`. For processes of their own: PyTorch must know of a device before the first backward pass.
"""

import contextlib
import copy
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

aten = torch.ops.aten
NAME = "foreign"
COPIES = (aten._to_copy.default, aten.copy_.default)
# operations whose result the host must know before it goes on
WAITS = (aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten.equal.default, aten._unique2.default)
INDEX = (aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default)
DRAWS = ("randn", "rand", "randint", "randperm", "normal", "bernoulli", "multinomial", "randn_like", "rand_like", "poisson")
CPU = torch.device("cpu")


class Misplaced(RuntimeError):
    """Tensors or a generator of another device where those of the foreign one are needed."""


class Foreign(Tensor):
    """A tensor that says it is on the foreign device, and holds its values in `here`, on the CPU."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> "Foreign":
        made = Tensor._make_wrapper_subclass(
            cls, here.shape, strides=here.stride(), storage_offset=here.storage_offset(), dtype=here.dtype, layout=here.layout,
            device=torch.device(NAME, 0), requires_grad=False,
        )  # fmt: skip
        made.here = here
        return made

    def __repr__(self, **_: Any) -> str:
        return f"Foreign({list(self.shape)})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


def leaves(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, list | tuple):
        for part in tree:
            yield from leaves(part)
    elif isinstance(tree, dict):
        yield from leaves(list(tree.values()))


def caller() -> str:
    """The innermost line of Thalweg that led here."""
    frame: Any = sys._getframe()
    while frame is not None:
        name = frame.f_code.co_filename
        if "/thalweg/" in name and "/tests/" not in name:
            return f"{name.rpartition('/thalweg/')[2]}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back
    return "outside"


_log: list[str] = []

_setup_privateuseone_for_python_backend(NAME)
getattr(torch, NAME).get_amp_supported_dtype = lambda: [torch.bfloat16]


def computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The operation on the CPU, its result on the foreign device where it belongs there."""
    given = list(leaves([args, kwargs]))
    ours = any(isinstance(one, Foreign) for one in given)
    wanted = kwargs.get("device")
    wanted = None if wanted is None else torch.device(wanted)
    if ours and func not in COPIES:
        others = [one for one in given if not isinstance(one, Foreign) and one.dim() > 0]
        indices = [id(one) for one in leaves(args[1])] if func in INDEX else []
        if any(id(one) not in indices for one in others):
            raise Misplaced(f"{func}: expected all tensors on the foreign device, but found one on the CPU, at {caller()}")
    masks = func in INDEX and any(one.dtype in (torch.bool, torch.uint8) for one in leaves(args[1]))
    leaves_device = ours and func is aten._to_copy.default and wanted == CPU
    comes_down = func is aten.copy_.default and not isinstance(args[0], Foreign) and isinstance(args[1], Foreign)
    if ours and (func in WAITS or masks or leaves_device or comes_down):
        _log.append(caller())
    below = {key: value for key, value in kwargs.items()}
    if wanted is not None and wanted.type == NAME:
        below["device"] = CPU
    unwrapped = tree_map(lambda one: one.here if isinstance(one, Foreign) else one, (args, below))
    result = func(*unwrapped[0], **unwrapped[1])
    stays = wanted.type == NAME if wanted is not None else ours and not comes_down
    if not stays:
        return result if not comes_down else args[0]
    result = tree_map(lambda one: Foreign(one) if isinstance(one, Tensor) else one, result)
    return return_and_correct_aliasing(func, args, kwargs, result) if ours else result


class Dispatch(TorchDispatchMode):
    """Takes the operations that make foreign tensors out of none."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


class Generator(torch.Generator):
    """A generator that says of which device it is; PyTorch makes none for devices of its own making."""

    def __new__(cls, device: Any = "cpu") -> "Generator":
        return super().__new__(cls, "cpu")

    def __init__(self, device: Any = "cpu") -> None:
        self.said = torch.device(device)

    @property
    def device(self) -> torch.device:
        return self.said


class Functions(TorchFunctionMode):
    """Looks at generators, which are without their device further down, and makes tensors of numbers on the foreign device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        generator = kwargs.get("generator")
        device = kwargs.get("device")
        if name in ("tensor", "as_tensor", "from_numpy") and device is not None and torch.device(device).type == NAME:
            return func(*args, **kwargs | {"device": None if name == "as_tensor" else "cpu"}).to(device)
        if name in ("tolist", "numpy", "__array__") and isinstance(args[0], Foreign):
            _log.append(caller())
            return func(args[0].here.detach(), *args[1:], **kwargs)
        if generator is not None:
            where = next((one.device for one in leaves(args)), torch.device("cpu" if device is None else device))
            if (where.type == NAME) != (generator.device.type == NAME):
                raise Misplaced(f"{name}: expected a generator of {where}, but found one of {generator.device}, at {caller()}")
        return func(*args, **kwargs)


def moved(module: torch.nn.Module) -> torch.nn.Module:
    """A copy of a module on the foreign device, as `to` would make it: parameters and buffers, and nothing else."""
    copied = copy.deepcopy(module)
    for part in copied.modules():
        for name, value in part._parameters.items():
            if value is not None:
                part._parameters[name] = torch.nn.Parameter(Foreign(value.detach()), value.requires_grad)
        for name, value in part._buffers.items():
            if value is not None:
                part._buffers[name] = Foreign(value)
    return copied


@contextlib.contextmanager
def on_foreign() -> Iterator[list[str]]:
    """A context in which the foreign device exists; gives the lines at which the host waited."""
    known = torch.Generator
    torch.Generator = Generator  # type: ignore[misc]
    _log.clear()
    try:
        with Functions(), Dispatch():
            yield _log
    finally:
        torch.Generator = known  # type: ignore[misc]
