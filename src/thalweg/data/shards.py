"""Numbers too many for memory: rows in one memory-mapped file, written by shards, and read only where these are known to be whole.

A folder holds rows.f32 and, for each shard of consecutive rows, a file shard-NNNNN with the SHA-256 of its bytes, written after they are on
the disk. A shard that is torn, by a crash or a bad disk, does not match and counts as missing. Several processes may write, each its own.
"""

import hashlib
import math
import mmap
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from ..errors import InputError

MOST_BYTES = 2**25  # of a shard
ALIGNED = 1024  # rows of a shard divide by so many: shards begin at a page of the file, and machines never write the same one
READ = 2**22  # bytes read at once
# a mapping of one's own, for which the system sets no memory aside
_PRIVATE: dict[str, Any] = (
    {"flags": mmap.MAP_PRIVATE | mmap.MAP_NORESERVE} if hasattr(mmap, "MAP_NORESERVE") else {"access": mmap.ACCESS_COPY}
)


class Unwritten(InputError):
    """Rows that could not be put on the disk; those before them are there."""


@final
class Shards:
    """`count` rows of `shape`, float32, in the files of `folder`; `rows` of them are a shard, by default as many as have about 32 MB.

    `write` fills in shards; once all are there and it is open, `self[index]` gives copies of rows, and keeps none of them in memory.
    Raises InputError where the folder cannot be written or lacks shards.
    """

    def __init__(self, folder: str | Path, count: int, shape: tuple[int, ...], *, rows: int | None = None) -> None:
        self.folder, self.shape = Path(folder), (count, *shape)
        self._row = 4 * math.prod(shape)  # bytes
        self.rows = rows or max(1, MOST_BYTES // (self._row * ALIGNED)) * ALIGNED

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def count(self) -> int:
        """How many shards there are."""
        return -(-len(self) // self.rows)

    def span(self, number: int) -> tuple[int, int]:
        """The first row of a shard, and the one after its last."""
        return number * self.rows, min(len(self), (number + 1) * self.rows)

    @property
    def _path(self) -> Path:
        return self.folder / "rows.f32"

    def _mark(self, number: int) -> Path:
        return self.folder / f"shard-{number:05d}"

    def is_whole(self, number: int) -> bool:
        """Whether a shard is there and its checksum right, by reading all of it; of one that is torn a line on stderr tells."""
        try:
            wanted = self._mark(number).read_text()
        except OSError:
            return False
        if self._digest(number) == wanted:
            return True
        print(f"thalweg: {self.folder}: shard {number} is torn; it is made anew", file=sys.stderr)
        self._mark(number).unlink(missing_ok=True)
        return False

    def _digest(self, number: int) -> str:
        digest, (begin, end) = hashlib.sha256(), self.span(number)
        try:
            with open(self._path, "rb", buffering=0) as file:
                file.seek(begin * self._row)
                left = (end - begin) * self._row
                while left and (part := file.read(min(left, READ))):
                    digest.update(part)
                    left -= len(part)
        except OSError:
            return ""
        return "" if left else digest.hexdigest()

    def write(self, number: int, x: Tensor) -> None:
        """Put a shard's rows on the disk, whole or not at all. InputError where that cannot be."""
        begin, end = self.span(number)
        if tuple(x.shape) != (end - begin, *self.shape[1:]):
            raise ValueError(f"shard {number} has the shape {[end - begin, *self.shape[1:]]}, got {list(x.shape)}")
        content = memoryview(x.detach().cpu().float().contiguous().numpy()).cast("B")
        mark = self._mark(number)
        partial = mark.with_name(f"{mark.name}.{os.getpid()}.partial")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            mark.unlink(missing_ok=True)
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                done = 0
                while done < len(content):
                    done += os.pwrite(handle, content[done:], begin * self._row + done)
                os.fsync(handle)
            finally:
                os.close(handle)
            with open(partial, "w") as file:
                file.write(hashlib.sha256(content).hexdigest())
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, mark)
        except OSError as error:
            raise Unwritten(
                f"cannot write {self._path}: {error.strerror or error}. What is there is kept, and the same command goes on from it"
            ) from None

    def open(self) -> "Shards":
        """Map the file, of which all shards are whole; returns itself. InputError where some are not there."""
        missing = [number for number in range(self.count) if not self._mark(number).is_file()]
        if missing or self._path.stat().st_size < len(self) * self._row:
            raise InputError(
                f"{self.folder} lacks {len(missing) or 'a part'} of {self.count} shards: all processes must see this folder, and nobody "
                "else may change it"
            )
        with suppress(OSError):  # a folder that may only be read keeps them
            for left in self.folder.glob("shard-*.partial"):  # of a process that was killed as it wrote a mark
                left.unlink(missing_ok=True)
        with open(self._path, "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, **_PRIVATE)
        return self

    def mapped(self) -> Tensor:
        """All rows as a tensor that lies in the file, whose pages the system reads and lets go; what is written to it never gets there."""
        return torch.frombuffer(self._map, dtype=torch.float32, count=math.prod(self.shape)).view(self.shape)

    def __getitem__(self, index: Tensor) -> Tensor:
        """Rows [n, *shape] at the integers `index` [n], copied."""
        found = self.mapped()[index]
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)  # pages stay with the system, not with this process
        return found
