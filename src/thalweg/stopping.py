"""What ends a run from outside, Ctrl-C and SIGTERM, heard between two steps; and the lock that keeps a folder to one run."""

import contextlib
import errno
import os
import platform
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from thalweg.errors import InputError

LOCK = ".lock"
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A run that saved its state and ended because of a signal."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


class Watch:
    """Inside this context `number` is the first of SIGINT and SIGTERM that came, instead of the process ending at once.

    With `insist`, a second Ctrl-C ends it as ever (under torchrun one Ctrl-C may come twice). A handler of one's own stays, and
    outside the main thread, where Python allows none, nothing is watched.
    """

    def __init__(self, *, insist: bool = True) -> None:
        self.number, self.insist = 0, insist
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> "Watch":
        if threading.current_thread() is threading.main_thread():
            for one in SIGNALS:
                if signal.getsignal(one) in (signal.SIG_DFL, signal.default_int_handler):
                    self._before[one] = signal.signal(one, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)  # type: ignore[arg-type]  # what signal.signal itself gave back

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number and self.insist and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = self.number or number


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep `folder` to this process while the context lasts; the system takes the lock away when the process ends, however it ends.

    InputError, with the number of the other process, where one has it. Where the system or the file system has no such locks, nothing
    is kept.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    path, handle = folder / LOCK, -1
    try:
        while handle < 0 or not _is(path, handle):  # who ends removes the file, perhaps just after it was opened here
            if handle >= 0:
                os.close(handle)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    break
                owner = os.pread(handle, 200, 0).decode(errors="replace").strip() or "another process"
                raise InputError(f"{folder} is being trained by {owner}; wait for it or stop it, or give another folder") from None
        os.truncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {platform.node()}".encode(), 0)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(handle)


def _is(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except OSError:
        return False
