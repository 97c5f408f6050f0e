"""A user's table, an array, DataFrame, list or dict, as columns of cells."""

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy

from ..errors import InputError


class Cells(NamedTuple):
    """A table of N `rows`. `columns[i]` are the cells [N] of `names[i]`; `matrix` [N, D] stands for them where all are numbers."""

    names: list[str]
    rows: int
    columns: Sequence[numpy.ndarray] = ()
    matrix: numpy.ndarray | None = None
    named: bool = True
    """whether the names are the user's"""
    records: bool = False
    """whether each row brought its own names, so that a column that is not there is missing values"""
    categories: frozenset[int] = frozenset()
    """the columns that are declared to be categories"""

    def column(self, i: int) -> numpy.ndarray:
        return self.columns[i] if self.matrix is None else self.matrix[:, i]


def short(value: Any, length: int = 40) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= length else text[: length - 1] + "…"


def read(table: Any) -> Cells:
    """Any kind of table as columns; InputError for what is none, has no rows or columns, or has columns of one name."""
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(table, pandas.DataFrame):
        found = _of_frame(table)
    elif isinstance(table, dict):
        found = _of_columns(table)
    elif isinstance(table, list | tuple):
        found = _of_rows(table)
    else:
        found = _of_array(table)
    if not found.names:
        raise InputError(f"Found array with 0 feature(s) (shape=({found.rows}, 0)) while a minimum of 1 is required: a table needs columns")
    if not found.rows:
        raise InputError(
            f"Found array with 0 sample(s) (shape=(0, {len(found.names)})) while a minimum of 1 is required: a table needs rows"
        )
    if len(set(found.names)) < len(found.names):
        twice = next(name for i, name in enumerate(found.names) if name in found.names[:i])
        raise InputError(f"columns need different names, {short(twice)} is that of {found.names.count(twice)}")
    return found


def _numbered(count: int) -> list[str]:
    return [f"x{i}" for i in range(count)]


def _of_frame(frame: Any) -> Cells:
    names = [str(name) for name in frame.columns]
    if names and all(isinstance(kind, numpy.dtype) and kind.kind in "iuf" for kind in frame.dtypes):
        return Cells(names, len(frame), matrix=frame.to_numpy(dtype=numpy.float64))
    columns, categories = [], set()
    for i in range(len(names)):
        cells, declared = _of_series(frame.iloc[:, i])
        columns.append(cells)
        categories |= {i} if declared else set()
    return Cells(names, len(frame), columns, categories=frozenset(categories))


def _of_series(series: Any) -> tuple[numpy.ndarray, bool]:
    """Cells of a pandas column, and whether it is declared to be one of categories."""
    import pandas

    kind = series.dtype
    if isinstance(kind, pandas.CategoricalDtype | pandas.IntervalDtype):
        return series.astype(object).to_numpy(), True
    if isinstance(kind, pandas.DatetimeTZDtype):
        return series.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy(), False
    if isinstance(kind, pandas.PeriodDtype):
        return series.dt.to_timestamp().to_numpy(), False
    if isinstance(kind, numpy.dtype):
        return series.to_numpy(), False
    if isinstance(kind, pandas.SparseDtype):
        return numpy.asarray(series), False
    cells = series.to_numpy(dtype=object)
    flags = pandas.api.types.is_bool_dtype(kind)
    numbers = pandas.api.types.is_numeric_dtype(kind) and not flags
    return (numpy.where(series.isna(), numpy.nan, cells).astype(numpy.float64) if numbers else cells), False


def _of_columns(table: dict) -> Cells:
    names = [str(name) for name in table]
    columns, categories = [], set()
    pandas = sys.modules.get("pandas")
    for i, (name, cells) in enumerate(zip(names, table.values())):
        if pandas is not None and isinstance(cells, pandas.Series):
            cells, declared = _of_series(cells)
            categories |= {i} if declared else set()
        elif isinstance(cells, list | tuple):
            cells = numpy.fromiter(cells, dtype=object, count=len(cells))
        elif not isinstance(cells, numpy.ndarray):
            raise InputError(
                f"column {short(name)} must be a list or an array of cells, got {type(cells).__name__}; a row is a list of one dict"
            )
        if cells.ndim != 1:
            raise InputError(f"column {short(name)} must be a list of cells, got an array {list(cells.shape)}")
        columns.append(cells)
    rows = {len(cells) for cells in columns}
    if len(rows) > 1:
        counts = ", ".join(f"{short(name)} {len(cells)}" for name, cells in list(zip(names, columns))[:5])
        raise InputError(f"columns need the same number of rows, got {counts}")
    return Cells(names, rows.pop() if rows else 0, columns, categories=frozenset(categories))


def _of_rows(table: Sequence) -> Cells:
    if table and all(isinstance(row, dict) for row in table):
        keys = list(dict.fromkeys(key for row in table for key in row))
        columns = [numpy.fromiter((row.get(key) for row in table), dtype=object, count=len(table)) for key in keys]
        return Cells([str(key) for key in keys], len(table), columns, records=True)
    wrong = next((i for i, row in enumerate(table) if not isinstance(row, list | tuple) and numpy.ndim(row) != 1), None)
    if wrong is not None:
        if wrong == 0 and numpy.ndim(table[0]) == 0 and not isinstance(table[0], dict):
            raise InputError(_flat(f"a list of {type(table[0]).__name__}"))
        raise InputError(f"rows must be lists of cells, or all dicts, row {wrong} is {type(table[wrong]).__name__}")
    width = len(table[0]) if table else 0
    wrong = next((i for i, row in enumerate(table) if len(row) != width), None)
    if wrong is not None:
        raise InputError(f"rows need the same number of cells: row 0 has {width}, row {wrong} has {len(table[wrong])}")
    columns = [numpy.fromiter(cells, dtype=object, count=len(table)) for cells in zip(*table)]
    return Cells(_numbered(width), len(table), columns, named=False)


def _flat(given: str) -> str:
    return (
        f"Expected 2D array, got 1D array instead: a table is [rows, columns], got {given}. Reshape your data: "
        "X.reshape(-1, 1) if it is one column, X.reshape(1, -1) if it is one row"
    )


def _of_array(table: Any) -> Cells:
    wanted = "a table is an array [N, D], a pandas DataFrame, a list of rows or a dict of columns"
    if table is None or isinstance(table, str | bytes) or not hasattr(table, "__array__"):
        sparse = "sparse matrices are not supported, give X.toarray(): " if hasattr(table, "toarray") else ""
        raise InputError(f"{sparse}{wanted}, got {short(table) if isinstance(table, str) else type(table).__name__}")
    try:
        if isinstance(table, numpy.ma.MaskedArray):
            table = numpy.ma.filled(table.astype(object), None)
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(table, torch.Tensor):
            table = table.detach().cpu()
            table = table.double() if table.is_floating_point() else table
        array = numpy.asarray(table)
    except Exception as error:  # of whatever kind of array it is
        raise InputError(f"{wanted}, got {type(table).__name__}: {error}") from error
    if array.dtype.names and array.ndim == 1:
        return _of_columns({name: array[name] for name in array.dtype.names})
    if array.ndim != 2:
        shape = f"an array {list(array.shape)}"
        raise InputError(_flat(shape) if array.ndim < 2 else f"{wanted}, got {shape}")
    names = _numbered(array.shape[1])
    if array.dtype.kind in "iufb":
        return Cells(names, len(array), matrix=array, named=False)
    if array.dtype.kind == "c":
        raise InputError("Complex data not supported: give real and imaginary parts as columns of their own")
    return Cells(names, len(array), list(array.T), named=False)
