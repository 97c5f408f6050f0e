"""Tables from outside: pandas DataFrames, and .csv and .parquet files, as `Table`s."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import torch

from ..errors import InputError, nearest, require
from .plausible import numbered
from .vectors import Table

LABELS = ("label", "class", "target", "y")  # columns that are labels where none is named
TABLE_SUFFIXES = (".csv", ".parquet")
_EMPTY = ("", "na", "n/a", "nan", "null", "none")


def of_frame(frame: Any, label: Any = None, *, name: str | None = None, classes: Sequence[str] = (), columns: Sequence[str] = (),
             standardise: bool = True, **others: Any) -> Table:  # fmt: skip
    """A pandas DataFrame as a `Table`: a column named by `label`, else one called label, class, target or y, holds the labels."""
    if any(value is not None for value in others.values()):
        raise InputError(f"data: {', '.join(others)} are of images, got a table")
    names = [str(column) for column in frame.columns]
    cells = {column: frame.iloc[:, i].to_numpy() for i, column in enumerate(names)}
    if len(cells) < len(names):
        raise InputError(f"{name or 'table'}: columns need different names, got {', '.join(names)}")
    if columns:
        cells = {column: cells[column] for column in _known(columns, names, name or "table")} | _label_of(cells, label)
    return of_columns(cells, label, name=name or "table", classes=classes, standardise=standardise)


def _label_of(cells: dict[str, numpy.ndarray], label: Any) -> dict[str, numpy.ndarray]:
    return {label: cells[label]} if isinstance(label, str) and label in cells else {}


def _known(wanted: Sequence[str], names: Sequence[str], what: str) -> Sequence[str]:
    for column in wanted:
        if column not in names:
            raise InputError(f"{what} has no column '{column}'{nearest(column, names)}. Its columns: {', '.join(names)}")
    return wanted


def of_columns(cells: dict[str, numpy.ndarray], label: Any, *, name: str, classes: Sequence[str] = (), standardise: bool = True) -> Table:
    """A table from its columns by name; InputError names columns with text or empty cells, and a label that is not there."""
    if isinstance(label, str):
        _known([label], list(cells), name)
    chosen = label if isinstance(label, str) else next((c for c in cells if label is None and c.lower() in LABELS), None)
    given = label if chosen is None else cells[chosen]
    numbers = {column: values for column, values in cells.items() if column != chosen}
    if not numbers:
        raise InputError(f"{name} has no column of numbers")
    rows = len(next(iter(numbers.values())))
    if not rows:
        raise InputError(f"{name} has no rows")
    columns = [_floats(values, column, name) for column, values in numbers.items()]
    found, classes = (None, ()) if given is None else numbered(given, classes, rows, name)
    x = torch.from_numpy(numpy.stack(columns, 1))
    return Table(x, found, classes, columns=tuple(numbers), name=name, standardise=standardise)


def _floats(values: numpy.ndarray, column: str, name: str) -> numpy.ndarray:
    """A column as float64; InputError for text, dates and empty cells."""
    if values.dtype.kind in "biuf":
        found = values.astype(numpy.float64)
    elif values.dtype.kind in "OUS":
        texts = ["" if value is None else str(value).strip() for value in values.tolist()]
        found = numpy.empty(len(texts))
        for row, text in enumerate(texts):
            try:
                found[row] = numpy.nan if text.lower() in _EMPTY else float(text)
            except ValueError:
                raise InputError(
                    f"{name}: column '{column}' holds text ('{text}'); leave it out, or make it the labels: call it label, or give "
                    f"label='{column}', on the command line --label-column {column}"
                ) from None
    else:
        raise InputError(f"{name}: column '{column}' holds {values.dtype}; columns must be numbers")
    empty = ~numpy.isfinite(found)
    if empty.any():
        kind = "empty or not finite"
        raise InputError(
            f"{name}: column '{column}' is {kind} in {int(empty.sum())} of {len(found)} rows, first in row {int(empty.argmax())}; "
            "drop those rows or fill them"
        )
    return found


def read_file(path: Path, label: str | None = None, *, columns: Sequence[str] = (), standardise: bool = True) -> Table:
    """All rows of a .csv or .parquet file; see `of_columns`. A .csv whose first line holds numbers only has no names of columns.

    `columns`: where the file has all of these, nothing else is looked at.
    """
    cells = _read_csv(path) if path.suffix.lower() == ".csv" else _read_parquet(path)
    if columns and set(columns) <= cells.keys():
        cells = {column: cells[column] for column in columns}
    return of_columns(cells, label, name=path.stem, standardise=standardise)


def _read_csv(path: Path) -> dict[str, numpy.ndarray]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            sample = stream.read(4096)
            stream.seek(0)
            commas, semicolons, tabs = (sample.count(mark) for mark in ",;\t")
            mark = "," if commas or not (semicolons or tabs) else ";" if semicolons >= tabs else "\t"
            reader = csv.reader(stream, delimiter=mark, strict=True)
            lines = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as comma-separated UTF-8 text: {error}") from error
    if not lines:
        raise InputError(f"{path} is empty")
    header = lines[0][1]
    if all(_is_number(cell) for cell in header):
        header = [f"x{i}" for i in range(len(header))]
    else:
        lines = lines[1:]
    if len(set(header)) < len(header) or "" in header:
        raise InputError(f"{path}: columns need names, each another, got {', '.join(header)}")
    for number, row in lines:
        if len(row) != len(header):
            raise InputError(f"{path}, line {number}: {len(row)} cells for {len(header)} columns")
    if not lines:
        raise InputError(f"{path} has columns but no rows")
    return {column: _as_numbers(numpy.array(cells)) for column, cells in zip(header, zip(*(row for _, row in lines)))}


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _as_numbers(cells: numpy.ndarray) -> numpy.ndarray:
    """Cells of text as numbers where all of them are; whole ones as integers, which may be labels."""
    try:
        found = cells.astype(numpy.float64)
    except ValueError:
        return cells
    if numpy.isfinite(found).all() and (found == found.round()).all() and (abs(found) < 2**53).all():
        return found.astype(numpy.int64)
    return found


def _read_parquet(path: Path) -> dict[str, numpy.ndarray]:
    parquet = require("pyarrow.parquet", "tables")
    try:
        table = parquet.read_table(path)
        return {column: table.column(column).to_numpy() for column in table.column_names}
    except Exception as error:  # pyarrow has kinds of its own
        raise InputError(f"{path} cannot be read as a parquet file: {str(error).splitlines()[0]}") from error
