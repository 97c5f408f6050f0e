"""Vectors in memory: a table of numbers, standardised by column, as the same stateless stream of batches as images."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from ..errors import InputError
from .base import Batch
from .images import _epoch, check_labels, partition


class Units(nn.Module):
    """The standardisation of a table, z = (x − mean)/std by column, as buffers that travel with a model's weights.

    `mean` and `std` [D]; `columns`: D names. `encode` maps the data's own units to z, `decode` maps z back.
    """

    mean: Tensor
    std: Tensor
    names: Tensor

    def __init__(self, mean: Tensor, std: Tensor, columns: Sequence[str]) -> None:
        super().__init__()
        self.register_buffer("mean", mean.float())
        self.register_buffer("std", std.float())
        # text as bytes: weights are stored as tensors only
        self.register_buffer("names", torch.tensor(list(json.dumps(list(columns)).encode()), dtype=torch.uint8))

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the D columns."""
        return tuple(json.loads(bytes(self.names.tolist())))

    def encode(self, x: Tensor) -> Tensor:
        """Vectors [N, D] in the data's own units -> float32 of mean 0 and standard deviation 1 by column."""
        return ((x - self.mean) / self.std).float()

    def decode(self, z: Tensor) -> Tensor:
        """Standardised vectors [N, D] -> the data's own units."""
        return z * self.std + self.mean

    @property
    def log_volume(self) -> Tensor:
        """Σ log std in nats: what a density of z loses when it is said of x."""
        return self.std.log().sum()

    @classmethod
    def of_state(cls, tensors: dict[str, Tensor], prefix: str = "units.") -> "Units | None":
        """The units among a model's tensors; None where there are none."""
        parts = [tensors.get(prefix + name) for name in ("mean", "std", "names")]
        if any(part is None for part in parts):
            return None
        mean, std, names = parts
        try:
            return cls(mean, std, json.loads(bytes(names.tolist())))
        except ValueError as error:
            raise InputError(f"the names of the columns in the weights are corrupt: {error}") from None


@final
class Table:
    """Vectors held in memory, standardised by column, with or without labels.

    `x`: [N, D] numbers in the data's own units; `label`: [N] integers in {0, …, K−1}; `classes`: K names, by default the numbers;
    `columns`: D names, by default x0, x1, … . Each column is stored less its `mean` and over its `std`, by default those of x; a column
    that is constant keeps std 1. `standardise=False` leaves x as it is. Batches are standardised; `decode` maps them, and samples of a
    model, back. Raises InputError for another shape, for NaN and infinity, and for labels or names that do not fit.
    """

    concepts: dict[str, tuple[str, ...]] = {}

    def __init__(
        self,
        x: Any,
        label: Tensor | None = None,
        classes: Sequence[str] = (),
        *,
        columns: Sequence[str] = (),
        name: str = "table",
        mean: Tensor | None = None,
        std: Tensor | None = None,
        standardise: bool = True,
    ):
        x = torch.as_tensor(x).detach().cpu().double()
        if x.dim() != 2 or 0 in x.shape:
            raise InputError(f"{name}: vectors must have the shape [N, D] with no side of 0, got {list(x.shape)}")
        self.columns = tuple(columns) or tuple(f"x{i}" for i in range(x.shape[1]))
        if len(self.columns) != x.shape[1] or len(set(self.columns)) < len(self.columns):
            raise InputError(f"{name}: {x.shape[1]} columns need as many different names, got {', '.join(self.columns)}")
        check_numbers(x, name, self.columns)
        found_mean, found_std = (x.mean(0), x.std(0, correction=0)) if standardise else (torch.zeros(x.shape[1]), torch.ones(x.shape[1]))
        # a spread below what float32 can tell from none, as of a constant column that was summed up inexactly
        found_std = torch.where(found_std > 1e-7 * found_mean.abs(), found_std, 1.0)
        mean, std = found_mean if mean is None else mean, found_std if std is None else std
        self.units = Units(mean, std, self.columns) if standardise else None
        self.name, self.shape = name, (x.shape[1],)
        # with the numbers that a model stores, so that decode undoes encode
        self.x = x.float() if self.units is None else ((x - self.units.mean.double()) / self.units.std.double()).float()
        if not self.x.isfinite().all():
            raise InputError(f"{name}: values up to {float(x.abs().max()):g} do not fit into float32; scale them")
        self.label, self.classes = check_labels(label, tuple(classes), {}, len(x), name)

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        return f"Table({self.name!r}, {len(self)} of {list(self.shape)}, {len(self.classes)} classes)"

    def batch(self, start: int, count: int, seed: int) -> Batch:
        """Examples number start … start+count−1 of the stream that `seed` defines: every epoch is a fresh permutation."""
        if start < 0 or count < 1:
            raise InputError(f"a batch needs start ≥ 0 and count ≥ 1, got start={start}, count={count}")
        first, last = start // len(self), (start + count - 1) // len(self)
        order = torch.cat([_epoch(len(self), seed, epoch)[0] for epoch in range(first, last + 1)])
        rows = order[start - first * len(self) :][:count]
        return Batch(self.x[rows], None if self.label is None else self.label[rows])

    def all(self) -> Batch:
        """Every example once, in the order of the table, standardised."""
        return Batch(self.x, self.label)

    def encode(self, x: Tensor) -> Tensor:
        """Vectors [N, D] in the data's own units as a model sees them."""
        return x.float() if self.units is None else self.units.encode(x)

    def decode(self, z: Tensor) -> Tensor:
        """Vectors [N, D] as a model sees them in the data's own units."""
        return z if self.units is None else self.units.decode(z)

    def split(self, split: str) -> "Table":
        """The train, validation or test part, seeded, 80/10/10 and even over the classes, in the units of train."""
        parts = {one: partition(one, len(self), (0.1, 0.1), self.label) for one in dict.fromkeys(("train", split))}
        own = self.decode(self.x)
        train = own[parts["train"]]
        standardise = self.units is not None
        whole = Table(train, columns=self.columns, standardise=standardise)
        units = whole.units
        return Table(
            own[parts[split]], None if self.label is None else self.label[parts[split]], self.classes, columns=self.columns,
            name=f"{self.name}/{split}", standardise=standardise,
            mean=None if units is None else units.mean, std=None if units is None else units.std,
        )  # fmt: skip

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the content, units included: standardised, a table and its double are the same."""
        digest = hashlib.sha256()
        for part in (self.x, self.label, *(() if self.units is None else (self.units.mean, self.units.std))):
            digest.update(b"" if part is None else part.numpy().tobytes())
        return digest.hexdigest()[:16]

    def describe(self) -> dict[str, Any]:
        """What must be kept to use a model of this table: columns, and the mean and standard deviation of each."""
        found: dict[str, Any] = {"kind": "table", "columns": list(self.columns)}
        return found if self.units is None else found | {"mean": self.units.mean.tolist(), "std": self.units.std.tolist()}


def check_numbers(x: Tensor, name: str, columns: Sequence[str]) -> None:
    """Raises InputError for NaN and infinity in vectors [N, D], with the column and row of the first."""
    bad = (~x.isfinite()).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        rows = len(bad[:, 0].unique())
        raise InputError(
            f"{name}: {rows} of {len(x)} rows hold NaN or infinity, first in row {row}, column {columns[column]}; drop or fill them"
        )
