"""Tables in files: .csv, .tsv, .parquet, .npy and .npz. Reading executes no code."""

import csv
import io
import re
from pathlib import Path
from typing import Any

import numpy

from ..errors import InputError, require
from .cells import short

SUFFIXES = (".csv", ".tsv", ".parquet", ".npy", ".npz")
TEXTS = (".csv", ".tsv")


def read_table(path: str | Path) -> Any:
    """The table in a .csv, .tsv or .parquet file (a pandas DataFrame), or in a .npy or .npz file (an array [N, D]).

    Text is UTF-8; its cells are separated by commas, semicolons (with decimal points or commas) or tabs. A first line of numbers only is
    a row, and the columns are then called x0, x1 …; a first column without a name (the index that pandas writes) is left out. A .npz file
    holds one array. Raises InputError for a file that is missing, empty, a folder, unreadable or of another kind, and for rows of
    different lengths, by line.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; a table is a file {', '.join(SUFFIXES)}")
    if not path.exists():
        raise InputError(f"{path}: there is no such file")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path} is a file of another kind; a table is {', '.join(SUFFIXES)}")
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path} is empty")
        if suffix in TEXTS:
            return _read_text(path, "\t" if suffix == ".tsv" else None)
        return _read_parquet(path) if suffix == ".parquet" else _read_array(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise InputError(f"{path} says that it holds more than there is memory") from error


def parse_table(content: bytes, name: str) -> Any:
    """The table in the bytes of a .csv or .tsv file called `name`, as `read_table` reads it; InputError for another name."""
    path = Path(name)
    if path.suffix.lower() not in TEXTS:
        raise InputError(f"{path} is a file of another kind; a table is {' or '.join(TEXTS)} here")
    if not content:
        raise InputError(f"{path} is empty")
    return _read_text(path, "\t" if path.suffix.lower() == ".tsv" else None, content)


def _read_text(path: Path, mark: str | None, content: bytes | None = None) -> Any:
    """The table in a file, or in `content`, which is then all that is looked at."""
    pandas = require("pandas", "detect")
    kept = None if content is None else io.BytesIO(content)
    try:
        with path.open(newline="", encoding="utf-8-sig") if kept is None else io.TextIOWrapper(kept, "utf-8-sig", newline="") as stream:
            first = next((line for line in stream if line.strip()), "")
            mark = mark or max(",;\t", key=first.count)
            stream.seek(0)
            reader = csv.reader(stream, delimiter=mark, strict=True, skipinitialspace=True)
            header = next((row for row in reader if row), [])
            start, width, rows, points, commas = reader.line_num, len(header), 0, 0, 0
            for row in reader:
                if len(row) != width and row:
                    raise InputError(f"{path}, line {reader.line_num}: {len(row)} cells for {width} columns")
                rows += bool(row)
                if mark == ";" and rows < 100:
                    points += any(re.fullmatch(r"\s*-?\d+\.\d+\s*", cell) for cell in row)
                    commas += any(re.fullmatch(r"\s*-?\d+,\d+\s*", cell) for cell in row)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as UTF-8 text, cells separated by {short(mark or ',')}: {error}") from error
    if not header:
        raise InputError(f"{path} is empty")
    names = [cell.strip() for cell in header]
    unnamed = all(_is_number(name) for name in names)
    if not rows and not unnamed:
        raise InputError(f"{path} has columns but no rows")
    if not unnamed and ("" in names[1:] or len(set(names)) < len(names) or names == [""]):
        raise InputError(f"{path}: columns need names, each another, got {short(', '.join(names), 80)}")
    try:
        frame = pandas.read_csv(
            path if content is None else io.BytesIO(content), sep=mark, encoding="utf-8-sig", header=None,
            names=[f"x{i}" for i in range(width)] if unnamed else names, index_col=False,
            skiprows=0 if unnamed else start, low_memory=False, skipinitialspace=True, decimal="," if commas and not points else ".",
        )  # fmt: skip
    except (ValueError, OverflowError) as error:  # pandas' own errors are ValueErrors
        raise InputError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    return frame if unnamed or names[0] else frame.iloc[:, 1:]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _read_parquet(path: Path) -> Any:
    require("pyarrow", "tables")
    pandas = require("pandas", "detect")
    try:
        return pandas.read_parquet(path, engine="pyarrow")
    except MemoryError:
        raise
    except Exception as error:  # pyarrow has kinds of its own
        raise InputError(f"{path} cannot be read as a parquet file: {(str(error).splitlines() or [type(error).__name__])[0]}") from error


def _read_array(path: Path) -> Any:
    try:
        with path.open("rb") as stream:
            stored = numpy.load(stream, allow_pickle=False)
            if isinstance(stored, numpy.lib.npyio.NpzFile):
                if len(stored.files) != 1:
                    raise InputError(f"{path} must hold one array, got {short(', '.join(stored.files) or 'none', 80)}")
                stored = stored[stored.files[0]]
            array = stored
    except (InputError, OSError, MemoryError):
        raise
    except Exception as error:  # a torn header fails in as many ways as Python's parser knows
        if "allow_pickle" in str(error):
            raise InputError(f"{path} holds Python objects, which are not read as they can hold code; store numbers or text") from error
        raise InputError(f"{path} cannot be read as an array: {(str(error).splitlines() or [type(error).__name__])[0]}") from error
    if not isinstance(array, numpy.ndarray) or (array.ndim != 2 and not array.dtype.names):
        raise InputError(f"{path} must hold a table [rows, columns], got an array {list(numpy.shape(array))}")
    if array.dtype.names and array.ndim == 1:
        try:
            return require("pandas", "detect").DataFrame({name: array[name] for name in array.dtype.names})
        except ValueError as error:  # columns of arrays
            raise InputError(f"{path} cannot be read as a table: {error}") from error
    return array
