"""Gradient accumulation: a batch in parts, one after the other, as if each were that of a process of its own.

Losses of one step may depend on updates of the same step, so that gradients of a whole step cannot be summed. Here the parts take turns:
each goes on to its next `update`, leaves its gradients there and waits; the last one's makes the update, and all go on. So the parts of one
process see what several processes would see, with their own draws, buffers and shares of chains, and memory holds the graph of one part.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from thalweg import random
from thalweg.data.base import Batch
from thalweg.methods.base import Method
from thalweg.updates import Update


class _Left(BaseException):
    """Another part has failed: this one leaves its step."""


class _Part:
    """The verb of one part: what it gives is gathered, what it asks comes from the run's own `Update`."""

    def __init__(self, turns: "_Turns", number: int, generator: torch.Generator) -> None:
        self.turns, self.number, self.generator = turns, number, (generator,)
        self.logged: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:  # images, updates, ema, optimizers
        return getattr(self.turns.update, name)

    def __call__(self, name: str, loss: Tensor) -> None:
        update = self.turns.update
        gradients = update.gradients(name, loss)  # the graph is gone before the next part begins
        self.turns.meet(self.number, ("update", name), [loss.detach(), *gradients], lambda means: update.take(name, *means))

    def mean(self, value: Tensor) -> Tensor:
        return self.turns.meet(self.number, ("mean",), [value], lambda means: self.turns.update.mean(means[0]))

    def log(self, **values: Tensor | float) -> None:
        self.logged.update(values)


class _Turns:
    """Whose turn it is, and what the parts have left at the place where they meet."""

    def __init__(self, method: Method, update: Update, count: int) -> None:
        self.method, self.update, self.count = method, update, count
        self.ready = threading.Condition()
        self.turn, self.running = 0, count
        self.place: Any = None
        self.sums: list[Tensor] = []
        self.answer: Any = None
        self.trouble: BaseException | None = None
        self.buffers = [self._own(part) for part in range(count)]

    def _own(self, part: int) -> dict[str, Tensor]:
        """A part's buffers: its share of those whose rows are chains, a copy of others."""
        found = {}
        for name, value in self.method.named_buffers():
            if name in self.method.sharded:
                rows = len(value) // self.count
                found[name] = value[part * rows : (part + 1) * rows]
            else:
                found[name] = value if part == 0 else value.clone()
        return found

    def show(self, buffers: dict[str, Tensor]) -> None:
        """Put buffers in the method's place."""
        for name, value in buffers.items():
            home, _, leaf = name.rpartition(".")
            setattr(self.method.get_submodule(home), leaf, value)

    def wait(self, part: int) -> None:
        """Until it is this part's turn. What the method holds is then its own."""
        self.ready.wait_for(lambda: self.turn == part or self.trouble is not None)
        if self.trouble is not None:
            raise _Left
        self.show(self.buffers[part])

    def hand_on(self, part: int) -> None:
        self.buffers[part] = {name: value for name, value in self.method.named_buffers() if name in self.buffers[part]}
        self.turn = (part + 1) % self.count
        self.ready.notify_all()

    def meet(self, part: int, place: tuple[str, ...], values: list[Tensor], act: Callable[[list[Tensor]], Any]) -> Any:
        """Leave values; the last part's turn acts on their means, and all are given what came of it."""
        if part and place != self.place:
            raise RuntimeError(f"parts of a batch meet at different updates: {place} and {self.place}")
        if part == 0:
            self.place, self.sums = place, [value.clone() for value in values]
        else:
            for total, value in zip(self.sums, values):
                total.add_(value)
        if part == self.count - 1:
            self.answer = act([total.div_(self.count) for total in self.sums])
            self.sums = []
        self.hand_on(part)
        self.wait(part)
        return self.answer


def step_in_parts(method: Method, batch: Batch, update: Update, count: int, within: Callable[[], AbstractContextManager]) -> None:
    """`method.step` on `count` equal parts of a batch, each inside the context `within()`; raises what a part raises.

    Losses must be means over the rows. The draws are those of `count` processes, and so are buffers that are not chains: the first
    part's stay. InputError is raised elsewhere for a batch that does not divide.
    """
    turns, rows = _Turns(method, update, count), len(batch.x) // count
    whole = {name: value for name, value in method.named_buffers() if name in method.sharded}
    first = update.world.rank * count
    parts = [
        _Part(turns, number, random.seeded(update.seed, first + number, update.images, device=method.device)) for number in range(count)
    ]

    def run(number: int) -> None:
        part: Sequence[Any] = [None if value is None else value[number * rows : (number + 1) * rows] for value in batch]
        if method.device.type == "cuda":
            torch.cuda.set_device(method.device)
        with turns.ready:
            try:
                turns.wait(number)
                torch.manual_seed(random.seeded(update.seed, first + number, update.images, 1).initial_seed())
                with within():
                    method.step(type(batch)(*part), parts[number])
                turns.hand_on(number)
            except _Left:
                pass
            except BaseException as error:
                turns.trouble = turns.trouble or error
                turns.ready.notify_all()

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    turns.show(turns.buffers[0] | whole)
    if turns.trouble is not None:
        raise turns.trouble
    keys = [key for key in parts[0].logged if all(key in part.logged for part in parts)]
    update.log(**{key: _mean([part.logged[key] for part in parts]) for key in keys})


def _mean(values: list[Any]) -> Any:
    if isinstance(values[0], Tensor):
        return torch.stack([value.detach().float().mean() for value in values]).mean()
    return sum(values) / len(values)
