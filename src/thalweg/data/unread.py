"""Pictures in files that are read when they are asked for."""

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError


class Unread:
    """Pictures of one size, uint8 [N, C, H, W] like a tensor: each file is decoded by `read` when it is first asked for, and kept.

    Raises InputError, then, for a file that cannot be read or has another size than the first.
    """

    dtype = torch.uint8

    def __init__(self, files: Sequence[Path], read: Callable[[Path], Tensor]) -> None:
        self.files, self.read = list(files), read
        first = read(self.files[0])
        self.shape = torch.Size((len(self.files), *first.shape))
        self._kept = torch.empty(self.shape, dtype=torch.uint8)  # takes memory where it is written to
        self._known = torch.zeros(len(self.files), dtype=torch.bool)
        self._keep(0, first)

    def __len__(self) -> int:
        return len(self.files)

    def dim(self) -> int:
        return len(self.shape)

    def __getitem__(self, key: Any) -> Tensor:
        """What `key` takes of a tensor."""
        rows = torch.arange(len(self))[key[0] if isinstance(key, tuple) else key].flatten()
        for row in rows[~self._known[rows]].unique().tolist():
            self._keep(row, self.read(self.files[row]))
        return self._kept[key]

    def _keep(self, row: int, picture: Tensor) -> None:
        if picture.shape != self.shape[1:]:
            names = f"{list(self.shape[1:])} ({self.files[0].name}) and {list(picture.shape)} ({self.files[row]})"
            raise InputError(f"the pictures differ: {names} [C, H, W]; give size to resize them")
        self._kept[row], self._known[row] = picture, True

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the files' names and lengths, and of the pictures' shape."""
        known = [f"{'/'.join(file.parts[-3:])} {file.stat().st_size}" for file in self.files]
        return hashlib.sha256("\n".join([str(list(self.shape)), *known]).encode()).hexdigest()[:16]
