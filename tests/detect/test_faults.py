"""Malformed tables, drawn by seed: each becomes finite numbers or gets one message, when columns are learned and when rows are encoded."""

import datetime
import json
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest

from thalweg.detect.columns import Columns
from thalweg.errors import InputError

TABLES = 200
# cells that have no place in most columns
ODD: list[Any] = [
    *(None, float("nan"), float("inf"), -1e308, 1e308, 5e-324, 10**400, -(2**63), 2**64, np.float16(3), np.longdouble("1e4000"), 1j),
    *("", " ", "NaN", "inf", "1e999", "a", "１２", "1_000", "\x00", "\ud800", "x" * 10_000, "2024-13-45", "9999-12-31T23:59:59Z", b"\xff"),
    *(True, np.bool_(False), np.complex64(1j), np.str_("b"), Decimal("sNaN"), Decimal("1e999"), Decimal("Infinity"), Fraction(1, 3)),
    *([1], {"a": 1}, (), {1}, object(), int, len, float, Exception("no"), np.array(3), np.zeros(2), pd.Series([1])),
    *(pd.NA, pd.NaT, np.datetime64("NaT"), np.datetime64("2024-01-01"), np.datetime64("300000-01-01"), np.timedelta64(3, "D")),
    *(pd.Timestamp.max, pd.Timedelta("1h"), pd.Interval(0, 1), pd.Period("2024-01"), datetime.date.min, datetime.datetime.max),
    *(datetime.time(3), datetime.timedelta.max),
]


def draw_column(rng: np.random.Generator, rows: int) -> Any:
    kinds: list[Callable[[], Any]] = [
        lambda: rng.normal(size=rows) * 10.0 ** rng.integers(-300, 300),
        lambda: rng.integers(-3, 3, rows).astype(rng.choice(["int8", "int64", "float16", "float32"])),
        lambda: rng.random(rows) > 0.5,
        lambda: [str(x) for x in rng.choice(["a", "b", "", "3"], rows)],
        lambda: [f"id {i}" for i in range(rows)],
        lambda: pd.Series(pd.date_range("2024-01-01", periods=rows, tz=rng.choice(["UTC", "Asia/Tokyo"]))),
        lambda: np.datetime64("2024-01-01", "ns") + rng.integers(0, 10**15, rows).astype("timedelta64[ns]"),
        lambda: rng.integers(0, 9, rows).astype("timedelta64[h]"),
        lambda: pd.Series(rng.choice(["u", "v"], rows), dtype="category"),
        lambda: pd.Series(pd.array([int(x) if x > 2 else None for x in rng.integers(0, 9, rows)], dtype="Int64")),
        lambda: pd.Series(pd.array([bool(x) if x > 2 else None for x in rng.integers(0, 9, rows)], dtype="boolean")),
        lambda: [str(x) for x in rng.normal(size=rows)],
        lambda: np.full(rows, rng.choice([0.0, np.nan, 1e-310, 7.0, np.inf])),
        lambda: rng.normal(size=rows) + 1j,
        lambda: [ODD[i] for i in rng.integers(0, len(ODD), rows)],
        lambda: [ODD[int(rng.integers(0, len(ODD)))]] * rows,
        lambda: rng.normal(size=(rows, 2)),
    ]
    usual = kinds[: 13 if rng.random() < 0.8 else None]
    return usual[int(rng.integers(0, len(usual)))]()


def spoil(rng: np.random.Generator, column: Any) -> Any:
    """A cell or two of a column become odd ones, or the column becomes longer, shorter, or no column."""
    change = rng.random()
    if change < 0.7 and len(column):
        cells = list(column)
        for row in rng.integers(0, len(cells), rng.integers(1, 3)):
            cells[row] = ODD[int(rng.integers(0, len(ODD)))]
        return cells
    return [list(column)[:-1], list(column) + [1], None, 3.0, "text", set(), np.zeros((len(column), 1))][int(rng.integers(0, 7))]


def as_container(rng: np.random.Generator, table: dict[Any, Any]) -> Any:
    """The same columns as one of the kinds of tables; where that is not possible, as a dict."""
    kinds: list[Callable[[], Any]] = [
        lambda: table,
        lambda: pd.DataFrame(table),
        lambda: pd.DataFrame(table).convert_dtypes(),
        lambda: pd.DataFrame(table).to_dict("records"),
        lambda: [list(row) for row in zip(*table.values())],
        lambda: pd.DataFrame(table).to_numpy(),
        lambda: pd.DataFrame(table).to_records(),
        lambda: pd.DataFrame({i: table[name] for i, name in enumerate(table)}).T.reset_index().T,
        lambda: np.array(list(table.values()), dtype=object).T,
        lambda: np.array([list(map(str, column)) for column in table.values()]).T,
        lambda: pd.concat([pd.DataFrame(table)] * 2, axis=1),
        lambda: pd.DataFrame(table, index=pd.MultiIndex.from_product([[1], range(len(next(iter(table.values()))))])),
    ]
    try:
        return kinds[int(rng.integers(0, len(kinds)))]()
    except Exception:  # numpy and pandas take fewer tables than there are
        return table


def draw_tables(seed: int) -> tuple[Any, Any]:
    """A malformed table to learn from, and one to encode: the same columns, some of them changed, gone, new or in another order."""
    rng = np.random.default_rng(seed)
    rows = int(rng.choice([0, 1, 2, 3, 20, 70], p=[0.05, 0.1, 0.1, 0.15, 0.3, 0.3]))
    names = [
        ["a", "b", "", "a ", "c\n"][i] if rng.random() < 0.8 else [3, None, ("x", "y"), 2.5, "ü" * 300][i]
        for i in range(rng.integers(0, 6))
    ]
    table = {name: draw_column(rng, rows) for name in names}
    for name in names:
        if rng.random() < 0.15:
            table[name] = spoil(rng, table[name])
    other = {
        name: spoil(rng, draw_column(rng, rows)) if rng.random() < 0.2 else column for name, column in table.items() if rng.random() < 0.97
    }
    other |= {"new": draw_column(rng, rows)} if rng.random() < 0.05 else {}
    shuffled = {list(other)[i]: list(other.values())[i] for i in rng.permutation(len(other))}
    return as_container(rng, table), as_container(rng, shuffled if rng.random() < 0.5 else other)


def check(seed: int) -> tuple[bool, bool]:
    """Whether the two tables of a seed were accepted. Anything but finite numbers and an InputError of one line fails."""
    table, other = draw_tables(seed)
    try:
        columns = Columns.fit(table)
    except InputError as error:
        assert 10 < len(str(error)) < 1000 and "\n" not in str(error), str(error)
        return False, False
    encoded = columns.encode(table)
    assert encoded.shape == (len(encoded), len(columns.outputs)) and np.isfinite(encoded).all() and np.abs(encoded).max() < 1500
    again = Columns.from_dict(json.loads(json.dumps(columns.as_dict())))
    assert again == columns and len(columns.units) == len(columns.source) == len(columns.outputs) and np.isfinite(columns.units).all()
    try:
        changed = again.encode(other)
    except InputError as error:
        assert 10 < len(str(error)) < 1000 and "\n" not in str(error), str(error)
        return True, False
    assert changed.shape == (len(changed), len(columns.outputs)) and np.isfinite(changed).all()
    return True, True


@pytest.mark.parametrize("start", range(0, TABLES, 20))
def test_malformed_tables_become_numbers_or_a_message(start):
    found = [check(seed) for seed in range(start, start + 20)]
    assert 3 < sum(fitted for fitted, _ in found) < 20 and any(encoded for _, encoded in found)  # the draw holds both kinds
