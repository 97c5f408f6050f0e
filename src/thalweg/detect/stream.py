"""A stream of rows through a detector: JSON lines or CSV in, a verdict a line out, in bounded memory.

What has arrived is scored at once: a lone row is answered right away, a full pipe in batches of some thousand rows. Each line is a row, so
that cells of CSV cannot hold line breaks.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TextIO

import numpy

from ..errors import InputError
from .promise import Conformal, Martingale, RollingQuantile
from .values import EMPTY

AT_ONCE = 2**16  # bytes that are read at once
LONGEST = 2**24  # bytes of a line
FIELDS = ("row", "score", "p_value", "verdict", "drift")


class Detector(Protocol):
    """What a stream needs of a fitted `EnergyDetector`."""

    contamination: float
    conformal_: Conformal
    columns_: Any
    left_out_: numpy.ndarray
    """strangeness of the rows of fit that one member left out, by that member alone"""

    def follow(self, X: Any) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
        """Scores and p-values [N] of a table, and the strangeness of its rows by that member alone."""


class Source(Protocol):
    """A binary file, such as `sys.stdin.buffer`."""

    def read1(self, size: int, /) -> bytes: ...


@dataclass
class Watch:
    """Verdicts on rows that come one after the other.

    `detector`: a fitted detector of tables; `window`: 0 for its own calibration, else the last items that the threshold follows (see
    `RollingQuantile`); `seed`: of the test for drift (see `Martingale`); `delta`: the probability at most with which `drifted`, the row at
    which there is drift, is ever set without any. Raises InputError for a window below what the rate needs.
    """

    detector: Detector
    window: int = 0
    seed: int = 0
    delta: float = 0.01
    rows: int = field(init=False, default=0)
    outliers: int = field(init=False, default=0)
    drifted: int | None = field(init=False, default=None)
    rolling: RollingQuantile | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        calibration = self.detector.conformal_.strangeness
        self.martingale = Martingale(self.detector.left_out_, seed=self.seed)
        if self.window:
            Conformal(numpy.zeros(self.window)).check(self.detector.contamination)
            mixed = numpy.random.default_rng(self.seed).permutation(calibration)  # which are kept must not depend on what they are
            self.rolling = RollingQuantile(self.window, mixed)

    def look(self, table: Any) -> list[dict[str, Any]]:
        """A record of row (from 0), score, p-value, verdict and p-value of no drift for each row of a table, in order.

        Raises InputError, and then counts none of them, for rows that the detector refuses.
        """
        try:
            table = as_fitted(table, self.detector.columns_)
            # the mean of several members is a little less strange than what one says of rows that it left out, and a long stream shows it
            scores, p, alone = self.detector.follow(table)
        except ValueError as error:  # scikit-learn's own are no InputErrors
            raise InputError(str(error)) from None
        if self.rolling is not None:
            p = self.rolling.update(-scores)
        drift = self.martingale.update(alone)
        found = records(scores, p, self.detector.contamination, first=self.rows)
        for record, value in zip(found, drift.tolist()):
            record["drift"] = significant(value)
            if self.drifted is None and value <= self.delta:
                self.drifted = record["row"]
        self.rows += len(found)
        self.outliers += sum(record["verdict"] == "outlier" for record in found)
        return found


def as_fitted(table: Any, columns: Any) -> Any:
    """A DataFrame or array [N, D] with the columns of fit in their order, as scikit-learn wants it: a DataFrame if these have names.

    Raises InputError for a column that is missing, new or of another type.
    """
    columns.encode(table.iloc[:1] if hasattr(table, "iloc") else table[:1])
    if not columns.named:
        return table.to_numpy() if hasattr(table, "iloc") else table
    import pandas

    if not hasattr(table, "iloc"):
        return pandas.DataFrame(table, columns=list(columns.names))
    return table.set_axis(list(map(str, table.columns)), axis=1).reindex(columns=list(columns.names))


def significant(value: float) -> float:
    """A number with nine digits, as it is written."""
    return float(f"{value:.9g}")


def records(scores: Any, p_values: Any, alpha: float, *, names: Sequence[str] = (), first: int = 0) -> list[dict[str, Any]]:
    """A record for each item: its row from `first`, or its file where there are `names`, its score, p-value and verdict at rate `alpha`."""
    return [
        ({"file": names[i]} if names else {"row": first + i})
        | {"score": significant(score), "p_value": significant(p), "verdict": "outlier" if p <= alpha else "inlier"}
        for i, (score, p) in enumerate(zip(numpy.asarray(scores).tolist(), numpy.asarray(p_values).tolist()))
    ]


def answer(
    detector: Detector,
    source: Source,
    target: TextIO,
    *,
    window: int = 0,
    seed: int = 0,
    delta: float = 0.01,
    form: str = "",
    after: Callable[[Watch], None] = lambda watch: None,
) -> Watch:
    """Read rows from `source` to its end, write a verdict a line into `target`, and return the watch.

    Rows are JSON lines (objects by column, or lists in the order of the columns) or CSV, told by the first line; the first line of CSV
    names the columns unless all of its cells are numbers. A key that a JSON row lacks is a missing value. `form`: csv or jsonl of what is
    written, by default that of what is read. `after` is called after each batch. Raises InputError with the number of the line for one
    that cannot be read or scored; what came before it has been answered.
    """
    watch, reader = Watch(detector, window, seed, delta), Reader(detector.columns_)
    writer: Writer | None = None
    for numbered in lines(source):
        rows: list[tuple[int, Any]] = []
        problem: InputError | None = None
        for number, line in numbered:
            try:
                row = reader.read(line)
            except InputError as error:
                problem = InputError(f"line {number}: {error}")
                break
            if row is not None:
                rows.append((number, row))
        if writer is None and (rows or problem is None):
            writer = Writer(target, form or ("jsonl" if reader.json else "csv"))
        try:
            for part in _scored(watch, reader, rows):
                assert writer is not None
                writer.write(part)
        finally:
            target.flush()
            after(watch)
        if problem is not None:
            raise problem
    return watch


def _scored(watch: Watch, reader: "Reader", rows: list[tuple[int, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Records of a batch; where the detector refuses it, of its rows one by one up to the one that is refused."""
    if not rows:
        return
    try:
        yield watch.look(reader.table([row for _, row in rows]))
        return
    except InputError as error:
        if len(rows) == 1:
            raise InputError(f"line {rows[0][0]}: {_of_one(str(error))}") from None
    for one in rows:
        yield from _scored(watch, reader, [one])


def _of_one(message: str) -> str:
    """What is said of a table of one row, without the number of the row in it."""
    return re.sub(r",? (?:in 1 of 1 rows, )?(?:first in )?row 0\b", "", message.replace(", row 0 holds", ", now it holds"))


def lines(source: Source) -> Iterator[list[tuple[int, bytes]]]:
    """Lists of numbered lines (from 1) as they come, without those that are blank; InputError for one that has no end."""
    rest, number = b"", 0
    while chunk := source.read1(AT_ONCE):
        *whole, rest = (rest + chunk).split(b"\n")
        if found := [(i, line) for i, line in enumerate(whole, number + 1) if line.strip()]:
            yield found
        number += len(whole)
        if len(rest) > LONGEST:
            raise InputError(f"line {number + 1} has more than {LONGEST:,} bytes; each row is a line")
    if rest.strip():
        yield [(number + 1, rest)]


class Reader:
    """Lines as rows; the first line tells JSON from CSV. `columns`: those of the detector, with `names` and whether they are `named`."""

    def __init__(self, columns: Any) -> None:
        self.names, self.named = tuple(columns.names), bool(columns.named)
        self.json: bool | None = None  # not known yet
        self.header: tuple[str, ...] | None = None  # of CSV, empty where it has none
        self.mark, self.index = ",", False  # whether the first column is an index without a name, as pandas writes it

    def table(self, rows: Sequence[Any]) -> Any:
        """Rows that were read, as a DataFrame of cells as they are."""
        import pandas

        if not self.json:
            return pandas.DataFrame(rows, columns=list(self.header or self.names), dtype=object)
        every = list(dict.fromkeys([*self.names, *(name for row in rows for name in row)]))
        return pandas.DataFrame([[row.get(name) for name in every] for row in rows], columns=every, dtype=object)

    def read(self, raw: bytes) -> Any:
        """The row of a line; None for the line of names of a CSV. InputError for a line of another form."""
        try:
            line = raw.decode("utf-8-sig" if self.json is None else "utf-8").strip("\r ")
        except UnicodeDecodeError:
            raise InputError("not UTF-8 text") from None
        if self.json is None:
            self.json = line[0] in "{["
        if self.json:
            return self._of_json(line)
        if self.header is None:
            commas, semicolons, tabs = (line.count(mark) for mark in ",;\t")
            self.mark = "," if commas or not (semicolons or tabs) else ";" if semicolons >= tabs else "\t"
            cells = self._cells(line)
            if not all(map(_is_number, cells)):
                self.index = cells[0] is None
                self.header = _different(cells[self.index :])
                return None
            self.header = ()
        cells = self._cells(line)[self.index :]
        _check_count(cells, self.header or self.names)
        return cells

    def _of_json(self, line: str) -> Any:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"not JSON ({error}); each line is an object of columns or a list of values") from None
        if isinstance(found, list):
            _check_count(found, self.names)
            found = dict(zip(self.names, found))
        if not isinstance(found, dict) or not found:
            raise InputError(f"{found!r:.40} is no row; each line is an object of columns or a list of values")
        if not self.named and set(found) != set(self.names):  # without names at fit a key says nothing
            raise InputError(f"the columns had no names at fit; give lists of {len(self.names)} values")
        return found

    def _cells(self, line: str) -> list[str | None]:
        try:
            return [cell.strip() or None for cell in next(csv.reader([line], delimiter=self.mark, strict=True))]
        except (csv.Error, StopIteration) as error:
            raise InputError(f"not CSV: {error}") from None


def _check_count(values: Sequence[Any], names: Sequence[str]) -> None:
    if len(values) != len(names):
        known = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
        raise InputError(f"{len(values)} values for {len(names)} columns ({known})")


def _different(cells: list[str | None]) -> tuple[str, ...]:
    names = tuple(cell or "" for cell in cells)
    if len(set(names)) < len(names) or "" in names:
        raise InputError(f"columns need names, each another, got {', '.join(names):.80}")
    return names


def _is_number(cell: str | None) -> bool:
    if cell is None or cell.lower() in EMPTY:
        return True
    try:
        float(cell)
    except ValueError:
        return False
    return True


class Writer:
    """Records as lines of CSV, with a line of names, or of JSON."""

    def __init__(self, target: TextIO, form: str) -> None:
        self.target, self.csv = target, form == "csv"
        if self.csv:
            target.write(",".join(FIELDS) + "\n")

    def write(self, found: Sequence[dict[str, Any]]) -> None:
        buffer = io.StringIO()
        for record in found:
            buffer.write((",".join(str(record[name]) for name in FIELDS) if self.csv else json.dumps(record)) + "\n")
        self.target.write(buffer.getvalue())
