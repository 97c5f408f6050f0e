"""Tables as numbers: what a table's columns were at fit, and rows of the same columns as standardised vectors."""

import math
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any, NamedTuple

import numpy

from ..errors import InputError
from .cells import Cells, read, short
from .column import Column, Log, fit_category, fit_number, listed, spread
from .scale import FAR, compress, scales
from .values import as_numbers, as_texts, finite, infer

OUTPUTS = 200_000
BLOCK = 2**22  # cells at a time


class Numeric(NamedTuple):
    """The columns of numbers: which they are, their places among the outputs, and what their values become; each an array [k]."""

    which: numpy.ndarray
    place: numpy.ndarray
    centre: numpy.ndarray
    unit: numpy.ndarray
    missing: numpy.ndarray
    """share of missing values; above 0 the next output marks them"""
    filled: numpy.ndarray
    """encoded, of a missing value"""


@dataclass(frozen=True)
class Columns:
    """What a table was at fit, and rows of such a table as vectors: `Columns.fit(table).encode(rows)`.

    A table is an array [N, D], a pandas DataFrame, a list of rows (lists, or dicts by name) or a dict of columns. Numbers are divided by
    their standard deviation, which a few wild values do not move; beyond 4 of these they grow as asinh. Categories are one-hot, at most
    30 outputs a column; dates are seconds. A value that could not be there at fit (another value of a constant column, a missing
    value where none was, an unseen category) lies about 18 standard deviations away.
    """

    columns: tuple[Column, ...]
    named: bool = True
    """whether the names are the user's; else columns are told by their order"""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """what was done at fit, a sentence each"""

    @classmethod
    def fit(cls, table: Any) -> "Columns":
        """Learn the columns of a table [N, D] with N ≥ 1. Raises InputError for what is no table, and for infinities, by row and column."""
        cells = read(table)
        log = Log(cells.rows)
        found: list[Column] = []
        block = max(1, BLOCK // cells.rows)
        for start in range(0, len(cells.names), block):
            found += _fit_block(cells, range(start, min(start + block, len(cells.names))), log)
        outputs = sum(len(column.outputs) for column in found)
        if not outputs:
            raise InputError(f"no column is left to look at: {' '.join(log.sentences())}")
        if outputs > OUTPUTS:
            raise InputError(f"{len(found)} columns become {outputs} numbers, at most {OUTPUTS} are possible: leave columns of text out")
        return cls(tuple(found), cells.named, tuple(log.sentences()))

    @cached_property
    def names(self) -> list[str]:
        """The user's columns, in the order of fit."""
        return [column.name for column in self.columns]

    @cached_property
    def outputs(self) -> list[str]:
        """Names of the D numbers of an encoded row."""
        return [name for column in self.columns for name in column.outputs]

    @cached_property
    def source(self) -> numpy.ndarray:
        """Index [D] of the user's column that each number of an encoded row comes from."""
        return numpy.repeat(numpy.arange(len(self.columns)), [len(column.outputs) for column in self.columns])

    @cached_property
    def units(self) -> numpy.ndarray:
        """What each number [D] of an encoded row was divided by: a standard deviation in the data's units, of dates in seconds."""
        return numpy.array([unit for column in self.columns for unit in column.units])

    @cached_property
    def starts(self) -> numpy.ndarray:
        """The place of each column's first output."""
        return numpy.searchsorted(self.source, numpy.arange(len(self.columns)))

    @cached_property
    def numeric(self) -> Numeric:
        """The columns that hold numbers, flags or dates."""
        rows = [
            (i, self.starts[i], column.centre, column.unit, column.missing, column.fill)
            for i, column in enumerate(self.columns)
            if column.kind in ("number", "flag", "date")
        ]
        which, place, centre, unit, missing, fill = numpy.array(rows, dtype=numpy.float64).reshape(-1, 6).T
        with numpy.errstate(over="ignore"):
            filled = numpy.where(missing > 0, compress((fill - centre) / unit), FAR)
        return Numeric(which.astype(int), place.astype(int), centre, unit, missing, filled)

    def numbers(self, table: Any) -> numpy.ndarray:
        """Rows of a table as float64 [N, columns] in its own units, as a graph takes them; the errors are those of `encode`.

        Flags are 0 and 1, dates seconds since 1970 in UTC, categories their `Column.code_of`, −1 for others; NaN where missing, and in
        columns that were left out.
        """
        cells = read(table)
        order, which = self._order(cells), self.numeric.which
        found = numpy.full((cells.rows, len(self.columns)), numpy.nan)
        found[:, which] = self._raw(cells, which, order)
        for i, (where, column) in enumerate(zip(order, self.columns)):
            if column.kind == "category":
                code_of = column.code_of
                found[:, i] = [numpy.nan if text is None else code_of.get(text, -1) for text in self._texts(cells, where, column)]
        return found

    def encode(self, table: Any) -> numpy.ndarray:
        """Rows of a table with the columns of fit as float64 [N, D], finite and standardised; columns with names may come in any order.

        Raises InputError for a column that is not there, is new or is of another type than at fit, and for infinities. A missing
        value in a column that had none at fit is no error: it is encoded as very unusual.
        """
        cells = read(table)
        order = self._order(cells)
        try:
            encoded = numpy.empty((cells.rows, len(self.outputs)))
        except MemoryError as error:
            size = f"{cells.rows} rows of {len(self.outputs)} numbers take {cells.rows * len(self.outputs) / 2**27:.1f} GiB"
            raise InputError(f"{size}, which is more memory than there is; give fewer rows at a time") from error
        which, place, centre, unit, missing, filled = self.numeric
        block = max(1, BLOCK // cells.rows)
        for part in (slice(start, start + block) for start in range(0, len(which), block)):
            raw = self._raw(cells, which[part], order)
            gone = numpy.isnan(raw)
            with numpy.errstate(over="ignore"):
                raw -= centre[part]
                raw /= unit[part]
            encoded[:, place[part]] = numpy.where(gone, filled[part], compress(raw))
            some = missing[part] > 0
            deviation = numpy.array([spread(share) for share in missing[part][some]])
            encoded[:, place[part][some] + 1] = compress((gone[:, some] - missing[part][some]) / deviation)
        for where, column, start in zip(order, self.columns, self.starts.tolist()):
            if column.kind == "category":
                encoded[:, start : start + len(column.outputs)] = self._one_hot(cells, where, column)
        return encoded

    def _raw(self, cells: Cells, index: numpy.ndarray, order: list[int]) -> numpy.ndarray:
        """Columns of numbers [N, k], NaN where missing."""
        if cells.matrix is not None and not any(self.columns[i].kind == "date" for i in index):
            with numpy.errstate(over="ignore"):
                raw = cells.matrix[:, [order[i] for i in index]].astype(numpy.float64)
            for j in numpy.flatnonzero(numpy.isinf(raw).any(0)).tolist():
                finite(raw[:, j], self.names[index[j]])
            return raw
        raw = numpy.full((cells.rows, len(index)), numpy.nan)
        for j, i in enumerate(index.tolist()):
            column = self.columns[i]
            if order[i] >= 0:
                raw[:, j] = as_numbers(cells.column(order[i]), column.name, column.kind, column.lenient)
        return raw

    def _texts(self, cells: Cells, place: int, column: Column) -> list[str | None]:
        return as_texts(cells.column(place), column.name, column.declared, column.numeric) if place >= 0 else [None] * cells.rows

    def _one_hot(self, cells: Cells, place: int, column: Column) -> numpy.ndarray:
        new = len(column.shares)
        return column.codes[[column.places.get(text, new) for text in self._texts(cells, place, column)]]

    def _order(self, cells: Cells) -> list[int]:
        """Where each column of fit is in a table, −1 where it is not; InputError for columns that are missing or new."""
        if not (self.named and cells.named):
            if len(cells.names) != len(self.columns):
                raise InputError(f"X has {len(cells.names)} features, but Columns is expecting {len(self.columns)} features as input")
            return list(range(len(self.columns)))
        places = {name: i for i, name in enumerate(cells.names)}
        gone = [c.name for c in self.columns if c.name not in places and c.kind != "dropped" and not cells.records]
        new = sorted(places.keys() - set(self.names), key=places.__getitem__)
        if gone or new:
            said = [f"no column {listed(gone)}, which was there at fit"] * bool(gone)
            said += [f"a column {listed(new)}, which was not there at fit"] * bool(new)
            raise InputError(f"the table has {'; and '.join(said)}")
        return [places.get(name, -1) for name in self.names]

    def some(self, which: slice) -> "Columns":
        """A part of the columns."""
        return Columns(self.columns[which], self.named, self.notes)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON: numbers, text, lists and dicts; what is as by default is left out."""
        default = asdict(Column("", ""))
        columns = [
            {key: value for key, value in asdict(column).items() if key in ("name", "kind") or value != default[key]}
            for column in self.columns
        ]
        return {"columns": columns, "named": self.named, "notes": list(self.notes)}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> "Columns":
        """What `as_dict` wrote. Raises InputError for anything else."""
        types = {one.name: type(getattr(Column("", ""), one.name)) for one in fields(Column)}
        try:
            columns = []
            for one in stored["columns"]:
                values: dict[str, Any] = {key: tuple(value) if types[key] is tuple else types[key](value) for key, value in one.items()}
                column = Column(**values)
                if not all(math.isfinite(x) for x in (column.centre, column.fill, *column.shares)) or not column.unit > 0:
                    raise ValueError(f"column {short(column.name)} is not finite")
                if column.kind not in ("number", "flag", "date", "category", "dropped"):
                    raise ValueError(f"column {short(column.name)} is of kind {short(column.kind)}")
                if len(column.shares) != (column.kind == "category") * (len(column.own) + column.rare + (column.missing > 0)):
                    raise ValueError(f"column {short(column.name)} has {len(column.shares)} shares")
                if column.kind == "category" and not (column.rare or column.unseen):
                    raise ValueError(f"column {short(column.name)} has no place for unseen categories")
                columns.append(column)
            if not any(column.outputs for column in columns):
                raise ValueError("no columns")
            return cls(tuple(columns), bool(stored["named"]), tuple(map(str, stored["notes"])))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"this is no description of a table's columns: {error}") from error


def _fit_block(cells: Cells, block: range, log: Log) -> list[Column]:
    values = [infer(cells.column(i), cells.names[i], i in cells.categories) for i in block]
    numeric = {j: one.numbers for j, one in enumerate(values) if one.numbers is not None}
    found: list[Column | None] = [None] * len(values)
    for j, one in enumerate(values):
        if one.texts is not None:
            found[j] = fit_category(cells.names[block[j]], one.texts, block[j] in cells.categories, log)
    if numeric:
        scaled = scales(numpy.stack(list(numeric.values())))
        for j, (centre, unit, fill, missing, constant) in zip(numeric, zip(*(array.tolist() for array in scaled))):
            name = cells.names[block[j]]
            found[j] = fit_number(name, values[j], Column(name, values[j].kind, centre, unit, fill, missing), constant, log)
    return [column for column in found if column is not None]
