"""The cells of a column as what they are: numbers, true and false, dates or categories."""

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

import numpy

from ..errors import InputError
from .cells import short

EMPTY = ("", "?", "na", "n/a", "nan", "null", "none")  # text that stands for a missing value
MANY = 30  # different values, above which a column with a few words among its numbers is one of numbers
FLAGS = {"true": 1.0, "false": 0.0}
_ISO = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?)?(Z|[+-]\d\d:?\d\d)?")
_KINDS = (  # in this order: bool is an int, a datetime is a date
    ("complex", (complex, numpy.complexfloating)),
    ("flag", (bool, numpy.bool_)),
    ("duration", (timedelta, numpy.timedelta64)),
    ("number", (int, float, numpy.integer, numpy.floating, Decimal)),
    ("text", (str, bytes)),
    ("date", (date, numpy.datetime64)),
)


class CellError(InputError, TypeError):
    """A cell that holds an object of its own, such as a list; scikit-learn expects a TypeError."""


class Values(NamedTuple):
    """A column as what it is: `numbers` float64 [N], NaN where missing, of a number, flag or date (seconds); `texts` [N] of a category."""

    kind: str
    numbers: numpy.ndarray | None = None
    texts: list[str | None] | None = None
    refused: Sequence[int] = ()
    """rows whose cells are no numbers and count as missing"""


def infer(cells: numpy.ndarray, name: str, category: bool = False) -> Values:
    """What a column is at fit; `category`: it is declared to hold these. InputError names the column and the row of a wrong cell."""
    if category:
        return Values("category", texts=_texts(_plain(cells, name, anything=True)[0]))
    if cells.dtype.kind == "b":
        return Values("flag", cells.astype(numpy.float64))
    if cells.dtype.kind in "iufMm":
        return Values("date" if cells.dtype.kind == "M" else "number", _converted(cells, name))
    values, present = _plain(cells, name)
    if present <= {"number", "flag"} or present in ({"duration"}, {"date"}):
        kind = present.pop() if len(present) == 1 else "number"
        return Values("number" if kind == "duration" else kind, _numbers(values, name))
    if not present <= {"text", "number", "flag"}:
        raise InputError(f"column {short(name)} mixes {' and '.join(sorted(present))}; give it cells of one kind")
    texts = _texts(values)
    different = {text for text in texts if text is not None}
    parsed = {text: number for text in different if (number := parse(text)) is not None}
    if len(parsed) == len(different):
        return Values("number", _looked_up(texts, parsed, name))
    dates = {text: seconds for text in different if (seconds := _parse_date(text)) is not None}
    if len(dates) == len(different):
        return Values("date", _looked_up(texts, dates, name))
    refused = [i for i, text in enumerate(texts) if text is not None and text not in parsed]
    if len(parsed) > MANY and len(refused) <= 0.05 * sum(text is not None for text in texts):
        return Values("number", _looked_up(texts, parsed, name), refused=refused)
    return Values("category", texts=texts)


def as_numbers(cells: numpy.ndarray, name: str, kind: str = "number", lenient: bool = False) -> numpy.ndarray:
    """Cells of a column of `kind` (number, flag, date) at fit as float64 [N]; missing ones, and of `lenient` other text, are NaN."""
    if cells.dtype.kind in ("M" if kind == "date" else "biufm") or (cells.dtype.kind == "f" and numpy.isnan(cells).all()):
        return _converted(cells, name)
    values, present = _plain(cells, name)
    wanted = {"date"} if kind == "date" else {"number", "flag", "duration"}
    if present <= wanted:
        return _numbers(values, name)
    texts = [value if isinstance(value, str) else None for value in values]
    different = {text for text in texts if text is not None}
    convert = _parse_date if kind == "date" else parse
    parsed = {text: number for text in different if (number := convert(text)) is not None}
    if kind == "flag":
        parsed |= {text: FLAGS[text.lower()] for text in different if text.lower() in FLAGS}
    for row, (value, text) in enumerate(zip(values, texts)):
        if value is not None and (
            text is None and _kind(type(value)) not in wanted or text is not None and text not in parsed and not lenient
        ):
            held = {"date": "dates", "flag": "true and false"}.get(kind, "numbers")
            raise InputError(f"column {short(name)} held {held} at fit, row {row} holds {short(value)}")
    others = _numbers([None if isinstance(value, str) else value for value in values], name)
    return numpy.where([text is None for text in texts], others, _looked_up(texts, parsed, name))


def as_texts(cells: numpy.ndarray, name: str, declared: bool, numeric: bool) -> list[str | None]:
    """Cells of a column of categories: N texts, None where missing. InputError for numbers, unless a category is one, and dates."""
    values, present = _plain(cells, name, anything=declared)
    if present <= {"text", "flag"} or declared or numeric and present <= {"text", "flag", "number"}:
        return _texts(values)
    row = next(i for i, value in enumerate(values) if value is not None and _kind(type(value)) not in ("text", "flag"))
    raise InputError(f"column {short(name)} held text at fit, row {row} holds {short(values[row])}")


def _kind(kind: type) -> str | None:
    if kind.__name__ in ("NoneType", "NAType", "NaTType"):
        return "missing"
    return next((word for word, kinds in _KINDS if issubclass(kind, kinds)), None)


def _missing(value: Any) -> bool:
    return value.is_nan() if isinstance(value, Decimal) else bool(value != value)


def _plain(cells: numpy.ndarray, name: str, anything: bool = False) -> tuple[list, set[str]]:
    """Cells as a list with None where missing, text stripped; the kinds that are there. `anything`: other objects stand as their text."""
    if cells.dtype.kind == "V":
        raise CellError(f"column {short(name)}: argument must be a string, a number or a date, got cells of {cells.dtype}")
    values = cells.tolist() if cells.dtype.kind not in "Mm" else list(cells)
    kinds = {kind: _kind(kind) for kind in set(map(type, values))}
    if "complex" in kinds.values():
        raise InputError(f"Complex data not supported: column {short(name)}; give real and imaginary parts as columns of their own")
    nested = {kind for kind, word in kinds.items() if word is None}
    if nested and not anything:
        row, value = next((i, value) for i, value in enumerate(values) if type(value) in nested)
        given = f"{type(value).__name__} {short(value)}"
        raise CellError(f"column {short(name)}, row {row}: argument must be a string, a number or a date, got {given}")
    gone = {kind for kind, word in kinds.items() if word == "missing"}
    partly = {kind for kind in kinds if issubclass(kind, float | numpy.floating | Decimal | numpy.datetime64 | numpy.timedelta64)}
    strings = {kind for kind, word in kinds.items() if word == "text" or word is None}
    plain: dict[Any, str | None] = {}  # of the texts that were seen
    for i, value in enumerate(values):
        kind = type(value)
        if kind in strings:
            text = value if isinstance(value, str) else value.decode(errors="replace") if isinstance(value, bytes) else str(value)
            if text not in plain:
                plain[text] = None if text.strip().lower() in EMPTY else str(text.strip())
            values[i] = plain[text]
        elif kind in gone or (kind in partly and _missing(value)):
            values[i] = None
    return values, {_kind(kind) or "text" for kind in set(map(type, values)) - {type(None)}}


def _texts(values: list) -> list[str | None]:
    return [value if value is None or isinstance(value, str) else _text(value) for value in values]


def _text(value: Any) -> str:
    """A category's name: whole numbers alike whether they are integers or not."""
    whole = isinstance(value, float | numpy.floating | Decimal) and float(value).is_integer()
    return str(int(value)) if whole else str(value)


def parse(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _parse_date(text: str) -> float | None:
    """Seconds since 1970 of an ISO date such as 2024-03-01 or 2024-03-01T12:30:00+01:00; UTC where it names no zone."""
    if not _ISO.fullmatch(text):
        return None
    try:
        return _stamp(datetime.fromisoformat(text))
    except ValueError:
        return None


def _stamp(value: Any) -> float:
    """A date, time span or number as a float; dates as seconds since 1970 in UTC."""
    if isinstance(value, numpy.datetime64 | numpy.timedelta64):
        return float(_seconds(numpy.array([value]))[0])
    if hasattr(value, "to_datetime64"):  # of pandas, which knows years beyond 9999
        return _stamp(value.to_datetime64())
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp()
    try:
        return float(value)
    except OverflowError:  # an integer beyond floating point
        return numpy.inf


def _seconds(cells: numpy.ndarray) -> numpy.ndarray:
    """Dates since 1970, or time spans, as seconds; NaN where missing."""
    unit = numpy.datetime_data(cells.dtype)[0]
    fine = {"ms": 1e3, "us": 1e6, "ns": 1e9}.get(unit)
    whole = cells if fine else cells.astype(f"{cells.dtype.kind}8[s]")
    return numpy.where(numpy.isnat(cells), numpy.nan, whole.astype(numpy.int64) / (fine or 1.0))


def _converted(cells: numpy.ndarray, name: str) -> numpy.ndarray:
    if cells.dtype.kind in "Mm":
        return _seconds(cells)
    with numpy.errstate(over="ignore"):  # of numbers of more than 64 bits
        return finite(cells.astype(numpy.float64), name)


def _numbers(values: list, name: str) -> numpy.ndarray:
    return finite(numpy.array([numpy.nan if value is None else _stamp(value) for value in values], dtype=numpy.float64), name)


def _looked_up(texts: list[str | None], known: dict[str, float], name: str) -> numpy.ndarray:
    return finite(numpy.array([known.get(text, numpy.nan) if text is not None else numpy.nan for text in texts], dtype=numpy.float64), name)


def finite(numbers: numpy.ndarray, name: str) -> numpy.ndarray:
    """`numbers` [N], where none is infinite; InputError says where the first is."""
    wrong = numpy.isinf(numbers)
    if wrong.any():
        count = f"{int(wrong.sum())} of {len(numbers)} rows"
        raise InputError(
            f"column {short(name)} holds infinity, or a number beyond 64 bits, in {count}, first in row {int(wrong.argmax())}; "
            "leave the cell empty (NaN) if the value is missing"
        )
    return numbers
