"""What samples cost: network evaluations, seconds and memory, to be read with their quality."""

import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from thalweg.errors import InputError


@dataclass(frozen=True)
class Cost:
    """What one sample costs, drawn as one batch of `n`; lower is better.

    `evaluations`: rows that passed forward through the method's networks, per sample, the NFE of papers; `gradients`: those of
    them whose result could be differentiated by x, as in a Langevin step, each worth a backward pass on top. `networks`: the
    evaluations by network. These three are exact. `seconds`: wall-clock time per sample of a second, undisturbed run on
    `threads` CPU threads or a GPU; it holds for this machine, its load and this `n`. `memory`: bytes per sample by which the
    peak exceeds what was held before (parameters and buffers), the samples included; `memory_source` says how it was
    measured. "allocator": CUDA's, exact up to its rounding to 512 bytes a tensor. "tensors": the sum of all live tensors,
    exact and the same on every CPU, without what kernels use inside and give back (convolutions: up to 10 % a sample more, and
    at small `n` a reordered copy of the weights). `parameters`: numbers in the method's networks.
    """

    n: int
    evaluations: float
    gradients: float
    networks: dict[str, float]
    seconds: float
    memory: float
    memory_source: str
    parameters: int
    device: str
    threads: int


def cost(method: Any, n: int, *, seed: int = 0, **options: Any) -> Cost:
    """Evaluations, seconds and peak memory per sample of `method.sample(n, seed=seed, **options)`, which is called twice.

    method: an nn.Module whose parts are the networks. Networks are its direct children with parameters (of a list of modules,
    its members), and an evaluation is a call of one, counted by the rows of its first tensor; calls of other functions of a network than
    itself are not seen. Raises InputError where `n` is not a whole number, 1 or more, or the module has no such network.
    """
    if not isinstance(n, Integral) or n < 1:
        raise InputError(f"n: got {n!r}, need a whole number of samples, 1 or more")
    networks = _networks(method)
    if not networks:
        raise InputError("cost: the method has no network with parameters among its parts, need one or more")
    device = next(method.parameters()).device
    with _counted(networks) as counts, _memory(device) as peak:
        method.sample(n, seed=seed, **options)
    # the first run has also warmed caches and compiled kernels, which a timing should not hold
    _wait(device)
    started = time.perf_counter()
    method.sample(n, seed=seed, **options)
    _wait(device)
    seconds = time.perf_counter() - started
    forward = {name: counts[name, "forward"] / n for name in networks}
    return Cost(
        n=n,
        evaluations=sum(forward.values()),
        gradients=sum(counts[name, "gradient"] for name in networks) / n,
        networks=forward,
        seconds=seconds / n,
        memory=peak() / n,
        memory_source="allocator" if device.type == "cuda" else "tensors",
        parameters=sum(p.numel() for p in method.parameters()),
        device=str(device),
        threads=torch.get_num_threads(),
    )


def _networks(method: nn.Module, prefix: str = "") -> dict[str, nn.Module]:
    found: dict[str, nn.Module] = {}
    for name, child in method.named_children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict):  # they are never called themselves
            found |= _networks(child, f"{prefix}{name}.")
        elif any(True for _ in child.parameters()):
            found[prefix + name] = child
    return found


@contextmanager
def _counted(networks: dict[str, nn.Module]) -> Iterator[Counter]:
    """Counts rows by (network, "forward") and, where the result carries a gradient, (network, "gradient")."""
    counts: Counter = Counter()

    def counter(name: str) -> Callable:
        def hook(module, args, kwargs, output) -> None:
            inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            rows = len(inputs[0]) if inputs and inputs[0].dim() else 1
            counts[name, "forward"] += rows
            if any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in tree_leaves(output)):
                counts[name, "gradient"] += rows

        return hook

    handles = [network.register_forward_hook(counter(name), with_kwargs=True) for name, network in networks.items()]
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _memory(device: torch.device) -> Iterator[Callable[[], int]]:
    """Gives a function that tells the peak of bytes held inside the block beyond what was held before."""
    if device.type == "cuda":
        _wait(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        yield lambda: torch.cuda.max_memory_allocated(device) - before
    else:
        live = _LiveTensors()
        with live:
            yield lambda: live.peak


class _LiveTensors(TorchDispatchMode):
    """Adds up the storages that operations inside make, until nothing refers to them any more; `peak` is the largest sum.

    A sampler of the process's memory would miss what the C allocator keeps for itself, and tracemalloc sees no tensors.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        for tensor in tree_leaves((args, kwargs)):
            self._note(tensor, made=False)  # an output may be a view of a tensor from outside
        out = func(*args, **kwargs)
        for tensor in tree_leaves(out):
            self._note(tensor, made=True)
        return out

    def _note(self, tensor: Any, *, made: bool) -> None:
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.known:
            return
        size = storage.nbytes() if made else 0

        def gone(_: weakref.ref) -> None:
            self.now -= size
            self.known.pop(key, None)

        self.known[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
