"""Computations one at a time, in the order in which they were asked for; one that nobody waits for any more is stopped."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from torch.overrides import TorchFunctionMode

LOOK = 0.1  # seconds between two looks at whether somebody still waits


class Left(BaseException):
    """Nobody waits for the answer any more. No Exception, so that nothing on the way takes it for a fault that it can mend."""


class Full(Exception):
    """More wait than may."""


class Turns:
    """A queue of computations, of which the first one runs; at most `most` are in it."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._tickets: list[list[str]] = []  # each in a list of its own, as two may have the same name
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def turn(self, ticket: str, gone: Callable[[], bool]) -> Iterator[None]:
        """Waits for its turn and holds it. Raises Full where too many wait, Left once `gone` holds, before any function of PyTorch."""
        mine = [ticket]
        with self._changed:
            if len(self._tickets) >= self.most:
                raise Full
            self._tickets.append(mine)
        try:
            with self._changed:
                while self._tickets[0] is not mine:
                    self._changed.wait(LOOK)
                    if gone():
                        raise Left
            with _Watched(gone):
                yield
        finally:
            with self._changed:
                self._tickets[:] = [one for one in self._tickets if one is not mine]
                self._changed.notify_all()

    def before(self, ticket: str) -> int | None:
        """How many are before this one, 0 for the one that runs, None for one that is not in the queue."""
        with self._changed:
            return next((i for i, one in enumerate(self._tickets) if one == [ticket]), None)


class _Watched(TorchFunctionMode):
    """Looks at whether somebody still waits before functions of PyTorch, in this thread: between two operations, not within one.

    Raises Left once, so that what tidies up on the way out may compute.
    """

    def __init__(self, gone: Callable[[], bool]) -> None:
        super().__init__()
        self.gone, self.next, self.left = gone, 0.0, False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        now = time.monotonic()
        if now >= self.next and not self.left:
            self.next = now + LOOK
            self.left = self.gone()
            if self.left:
                raise Left
        return func(*args, **(kwargs or {}))
