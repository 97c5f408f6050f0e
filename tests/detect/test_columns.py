"""Tables as numbers: what is learned of a column, how far wild and new values lie, and a message for everything that is no table."""

import datetime
import json
import subprocess
import sys
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
import torch

from thalweg.detect.columns import OUTPUTS, Columns
from thalweg.detect.scale import FAR, compress, scales
from thalweg.errors import InputError


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def mixed(rng, rows=400) -> pd.DataFrame:
    """A column of each kind."""
    return pd.DataFrame(
        {
            "number": rng.normal(5, 3, rows),
            "count": rng.integers(0, 4, rows),
            "flag": rng.random(rows) > 0.3,
            "colour": rng.choice(["red", "green", "blue"], rows),
            "grade": pd.Categorical(rng.choice([1, 2, 3], rows)),
            "when": pd.date_range("2024-01-01", periods=rows, freq="h", tz="Europe/Berlin"),
            "gaps": np.where(rng.random(rows) < 0.1, np.nan, rng.random(rows)),
            "text": rng.integers(0, 9, rows).astype(str),
            "same": 7,
        }
    )


def place(columns: Columns, output: str) -> int:
    return columns.outputs.index(output)


# --- numbers


def test_gaussian_columns_have_mean_0_and_variance_1(rng):
    x = rng.normal([3, -1e6, 0], [1e-5, 1e3, 1e8], (5000, 3))
    columns = Columns.fit(x)
    z = columns.encode(x)
    assert np.allclose(z.mean(0), 0, atol=1e-3) and np.allclose(z.std(0), 1, atol=0.01)
    assert np.allclose(columns.units, x.std(0), rtol=0.01)
    near = np.abs(z) < 4
    assert np.allclose((z * columns.units)[near], (x - x.mean(0))[near], rtol=0.1, atol=0.01 * x.std(0).max())


@pytest.mark.parametrize("wild", [1e3, 1e9, -1e30, 1e300])
@pytest.mark.parametrize("rows", [20, 300])
def test_one_wild_value_does_not_squash_a_column(rng, wild, rows):
    x = rng.normal(size=(rows, 1))
    plain = Columns.fit(x).units[0]
    x[3] = wild
    columns = Columns.fit(x)
    z = columns.encode(x)[:, 0]
    assert plain < columns.units[0] < 1.5
    assert 0.5 < np.delete(z, 3).std() < 1.1 and abs(z[3]) > 8 and np.sign(z[3]) == np.sign(wild)


def test_encoded_numbers_are_monotone_and_far_ones_stay_far(rng):
    columns = Columns.fit(rng.normal(size=(500, 1)))
    x = np.concatenate([np.linspace(-50, 50, 2001), [1e3, 1e6, 1e12, 1e200, np.finfo(float).max]])
    z = columns.encode(x[:, None])[:, 0]
    assert (np.diff(z) > 0).all() and np.allclose(z[np.abs(x) < 3], x[np.abs(x) < 3], atol=0.3)
    assert 6 < columns.encode([[10.0]])[0, 0] < 7 and 8.5 < columns.encode([[100.0]])[0, 0] < 10


def test_compression_is_smooth_at_the_knee():
    z = np.array([4 - 1e-6, 4, 4 + 1e-6])
    assert np.allclose(np.diff(compress(z)), 1e-6, rtol=1e-3) and np.array_equal(compress(-z), -compress(z))
    assert np.isfinite(compress(np.array([np.inf, -np.inf]))).all()


def test_extreme_scales_stay_finite():
    big = np.finfo(float).max
    for column in (
        [-big, big, 0],
        [5e-324, 0, 1e-323, 5e-324],
        [big] * 3,
        [1e-310] * 4,
        [1e200, 1e-200, 0, 1],
        [2**53, 2**53 + 2, 2**53 + 4],
    ):
        x = np.array(column, dtype=float)[:, None]
        z = Columns.fit(x).encode(np.concatenate([x, [[big], [-big], [0.0]]]))
        assert np.isfinite(z).all() and np.abs(z).max() < 1000


def test_a_changed_constant_is_very_unusual(rng):
    for value in (0.0, 7.0, -1e6, 1e-12, 0.1 + 0.2):
        columns = Columns.fit(np.column_stack([np.full(50, value), rng.normal(size=50)]))
        changed = [value + 1, value * 1.001 + 0.001, value - 1]
        assert columns.encode([[value, 0.0]])[0, 0] == 0
        assert (np.abs(columns.encode([[x, 0.0] for x in changed])[:, 0]) > 8).all()
        assert abs(columns.encode([[value * (1 + 1e-15), 0.0]])[0, 0]) < 0.01  # rounding is no change
        assert any("x0" in note and "same" in note for note in columns.notes)


def test_a_constant_column_with_one_wild_value_is_a_constant():
    x = np.zeros((1000, 1))
    x[5] = 1e9
    z = Columns.fit(x).encode([[0.0], [5.0], [1e9]])[:, 0]
    assert z[0] == 0 and z[1] > 15 and z[2] > z[1]


def test_columns_of_few_values_keep_their_spread(rng):
    rare = np.zeros(1000)
    rare[:30] = 1  # the middle 90 % are 0
    x = np.column_stack([rng.integers(0, 2, 1000), rng.integers(0, 5, 1000), rare])
    assert np.allclose(Columns.fit(x).encode(x).std(0), [1, 1, 1], atol=0.35)
    inflated = np.where(rng.random(1000) < 0.97, 0, rng.normal(size=1000))
    inflated[0] = 1e9
    unit = Columns.fit(inflated[:, None]).units[0]
    assert 0.05 < unit < 1


def test_scales_say_what_they_found():
    centre, unit, median, missing, constant = scales(np.array([[1.0, 2, 3, np.nan], [np.nan] * 4, [5, 5, 5, 5], [0, 1, 0, 1]]))
    assert centre.tolist() == [2, 0, 5, 0.5] and median.tolist() == [2, 0, 5, 0] and missing.tolist() == [0.25, 1, 0, 0]
    assert np.allclose(unit, [np.sqrt(2 / 3), unit[1], 1e-6, 0.5]) and constant.tolist() == [False, False, True, False]


# --- missing values


def test_missing_values_are_filled_and_marked(rng):
    x = rng.normal(size=(300, 2))
    x[::5, 0] = np.nan
    columns = Columns.fit(x)
    assert columns.outputs == ["x0", "x0 (missing)", "x1"] and columns.source.tolist() == [0, 0, 1]
    z = columns.encode(x)
    assert np.allclose(z[::5, 0], columns.encode([[np.nanpercentile(x[:, 0], 50, method="lower"), 0.0]])[0, 0])
    assert np.unique(z[:, 1]).size == 2 and np.allclose(z[:, 1].mean(), 0) and np.allclose(z[:, 1].std(), 1)
    assert "20.0%" in " ".join(columns.notes)


def test_a_missing_value_where_none_was_is_very_unusual(rng):
    table = mixed(rng)
    columns = Columns.fit(table)
    for name in set(table.columns) - {"gaps"}:
        row = {key: [None if key == name else value] for key, value in table.iloc[0].items()}
        z = columns.encode(row)[0]
        pulled = {columns.names[i] for i in columns.source[np.abs(z) > 10]}
        assert pulled == {name} and np.abs(z).max() == pytest.approx(FAR)


def test_a_column_without_values_is_left_out(rng):
    columns = Columns.fit({"a": rng.normal(size=9), "b": [None] * 9, "c": np.full(9, np.nan)})
    assert columns.outputs == ["a"] and columns.names == ["a", "b", "c"]
    assert any("'b', 'c'" in note and "all values are missing" in note for note in columns.notes)
    assert columns.encode({"a": [1.0]}).shape == columns.encode({"a": [1.0], "b": [3], "c": ["x"]}).shape == (1, 1)
    with pytest.raises(InputError, match=r"no column is left to look at: .*missing"):
        Columns.fit(np.full((5, 2), np.nan))


# --- categories


def test_categories_are_one_hot_with_variance_1_a_column(rng):
    colours = rng.choice(["red", "green", "blue"], 500, p=[0.6, 0.3, 0.1])
    columns = Columns.fit({"colour": colours})
    z = columns.encode({"colour": colours})
    assert columns.outputs == ["colour=red", "colour=green", "colour=blue", "colour (unseen)"]
    assert z.var(0).sum() == pytest.approx(1) and np.allclose(z.mean(0), 0)
    new = columns.encode({"colour": ["mauve"]})[0]
    assert new[3] == pytest.approx(FAR) and (np.abs(new[:3]) < 2).all()


def test_a_column_of_many_categories_has_at_most_30_outputs(rng):
    texts = np.concatenate([np.repeat([f"k{i}" for i in range(200)], 10), ["rare"] * 2, [None] * 20]).astype(object)
    columns = Columns.fit({"a": texts})
    assert len(columns.outputs) == 30 and columns.outputs[-3:] == ["a (rare)", "a (missing)", "a (unseen)"]
    z = columns.encode({"a": ["rare", "k199", "never", None]})
    assert np.array_equal(z[0], z[1]) and z[2, -1] == pytest.approx(FAR) and (z[[0, 1, 3], -1] == 0).all()


def test_new_values_are_usual_where_many_occur_once(rng):
    texts = ["a"] * 200 + ["b"] * 200 + [f"name {i}" for i in range(100)]
    columns = Columns.fit({"a": texts})
    z = columns.encode({"a": ["somebody", "name 3", None]})
    assert np.array_equal(z[0], z[1]) and np.abs(z[0]).max() < 3 and z[2].max() == pytest.approx(FAR)
    assert any("to be expected" in note for note in columns.notes)


def test_identifiers_are_left_out_with_a_note(rng):
    columns = Columns.fit({"id": [f"u{i}" for i in range(50)], "x": rng.normal(size=50)})
    assert columns.outputs == ["x"] and any("'id' (50 in 50 rows): left out as identifiers" in note for note in columns.notes)
    with pytest.raises(InputError, match="no column is left to look at: 'id'"):
        Columns.fit({"id": [f"u{i}" for i in range(50)]})


def test_numbers_as_categories_are_alike_whole_or_not():
    columns = Columns.fit(pd.DataFrame({"grade": pd.Categorical([1, 2, 2, 1, 3, 3])}))
    assert columns.outputs == ["grade=1", "grade=2", "grade=3", "grade (unseen)"]
    z = columns.encode({"grade": ["1", 1.0, 1, np.float32(1)]})
    assert (z == z[0]).all() and z[0, 0] > 0
    bins = pd.DataFrame({"bin": pd.cut(np.arange(12.0), 3)})
    assert np.isfinite(Columns.fit(bins).encode(bins)).all()


# --- types of tables and cells


def test_every_kind_of_table_gives_the_same_numbers(rng):
    x = rng.normal(size=(30, 3)).round(3)
    wanted = Columns.fit(x).encode(x)
    frame = pd.DataFrame(x, columns=["a", "b", "c"])
    tables = [x.tolist(), [tuple(row) for row in x], x.astype(object), x.astype(str), torch.from_numpy(x), np.asfortranarray(x), frame]
    tables += [
        {"a": x[:, 0], "b": x[:, 1].tolist(), "c": frame["c"]},
        frame.to_dict("records"),
        frame.convert_dtypes(),
        frame.astype(object),
    ]
    tables += [np.ma.masked_array(x), frame.to_records(index=False), [[Decimal(str(value)) for value in row] for row in x]]
    for table in tables:
        assert np.allclose(Columns.fit(table).encode(table), wanted), type(table)
        assert np.allclose(Columns.fit(x).encode(table), wanted), type(table)
    shuffled = Columns.fit(frame).encode(frame[["c", "a", "b"]])
    assert np.array_equal(shuffled, wanted)
    single = Columns.fit(frame)
    assert np.array_equal(np.concatenate([single.encode(x[i : i + 1]) for i in range(30)]), wanted)


def test_kinds_of_columns(rng):
    table = mixed(rng)
    columns = Columns.fit(table)
    kinds = dict(zip(columns.names, (column.kind for column in columns.columns)))
    assert kinds == {
        "number": "number", "count": "number", "flag": "flag", "colour": "category", "grade": "category", "when": "date",
        "gaps": "number", "text": "number", "same": "number",
    }  # fmt: skip
    z = columns.encode(table)
    assert z.shape == (400, len(columns.outputs)) == (400, len(columns.units)) and np.isfinite(z).all() and z.flags["C_CONTIGUOUS"]
    assert np.allclose(z[:, columns.source < 8].mean(0), 0, atol=0.05) and z.std(0).max() < 1.1


def test_what_comes_from_json_or_text_is_read_as_at_fit(rng):
    table = mixed(rng)
    columns = Columns.fit(table)
    z = columns.encode(table)
    text = table.astype({"grade": int}).assign(when=table["when"].map(lambda when: when.isoformat())).astype(str).replace({"nan": None})
    assert np.allclose(columns.encode(text), z)
    assert np.allclose(columns.encode(text.to_dict("records")[:5]), z[:5])
    absent = columns.encode([{key: value for key, value in text.iloc[0].items() if key != "number"}])[0]
    assert absent[place(columns, "number")] == pytest.approx(FAR)


def test_dates_of_all_kinds_are_seconds():
    days = [datetime.date(2024, 1, day) for day in (1, 2, 3, 4)]
    kinds = [
        days,
        [day.isoformat() for day in days],
        [datetime.datetime(day.year, day.month, day.day, tzinfo=datetime.UTC) for day in days],
        pd.to_datetime(days),
        pd.Series(pd.to_datetime(days)).dt.tz_localize("UTC"),
        pd.Series(pd.period_range("2024-01-01", periods=4, freq="D")),
        np.array(days, dtype="datetime64[D]"),
        np.array(days, dtype="datetime64[ns]"),
        np.array([np.datetime64(day) for day in days], dtype=object),
        [f"{day}T00:00:00Z" for day in days],
        [f"{day} 01:00+01:00" for day in days],
    ]
    fitted = Columns.fit({"when": days})
    assert fitted.columns[0].kind == "date" and fitted.units[0] == pytest.approx(86400 * np.std([1, 2, 3, 4]))
    wanted = fitted.encode({"when": days})
    for cells in kinds:
        table = {"when": np.asarray(cells) if isinstance(cells, pd.Index) else cells}
        assert np.allclose(Columns.fit(table).encode({"when": days}), wanted) and np.allclose(fitted.encode(table), wanted)
    gaps = Columns.fit({"when": np.array(["2024-01-01", "NaT", "2024-01-05"], dtype="datetime64[s]")})
    assert gaps.outputs == ["when", "when (missing)"]
    spans = {"t": [datetime.timedelta(hours=1), pd.Timedelta("2h"), None, np.timedelta64(3, "h")]}
    assert np.isfinite(Columns.fit(spans).encode(spans)).all()


def test_nullable_and_other_dtypes(rng):
    frame = pd.DataFrame(
        {
            "int": pd.array([1, None, 3, 4], dtype="Int64"),
            "float": pd.array([1.5, None, 3, 4], dtype="Float32"),
            "bool": pd.array([True, None, False, True], dtype="boolean"),
            "string": pd.array(["u", None, "v", "u"], dtype="string"),
            "sparse": pd.arrays.SparseArray([0.0, 0, 1, 0]),
            "half": np.array([1, 2, 3, 4], dtype=np.float16),
            "long": np.array([1, 2, 3, 4], dtype=np.longdouble),
            "arrow": pd.array([1, None, 3, 4], dtype="int64[pyarrow]"),
            "decimal": [Decimal("1.5"), Decimal("NaN"), Decimal("sNaN"), Decimal(3)],
            "bytes": [b"u", b"v", b"u", b"v"],
            "huge": [2**60, 2**70, -(2**80), 5],
        }
    )
    columns = Columns.fit(frame)
    kinds = [column.kind for column in columns.columns]
    assert kinds == ["number", "number", "flag", "category", "number", "number", "number", "number", "number", "category", "number"]
    assert {name for name in columns.outputs if "missing" in name} == {
        f"{n} (missing)" for n in ("int", "float", "bool", "string", "arrow", "decimal")
    }
    assert np.isfinite(columns.encode(frame)).all()


def test_a_few_words_among_many_numbers_count_as_missing(rng):
    cells = [str(x) for x in rng.normal(size=100)]
    cells[7] = "error"
    columns = Columns.fit({"a": cells})
    assert columns.outputs == ["a", "a (missing)"] and any("no numbers" in note and "1, first in row 7" in note for note in columns.notes)
    assert columns.encode({"a": ["offline", "0.5"]})[0, 1] > 4


def test_mixed_numbers_and_text_are_categories():
    columns = Columns.fit({"a": [1, "a", 2.0, "b", 1, "a", 2, "b"]})
    assert columns.outputs[:4] == ["a=1", "a=2", "a=a", "a=b"]
    assert np.array_equal(columns.encode({"a": ["2", 2, 2.0]}), columns.encode({"a": [2, 2, 2]}))


# --- as JSON, and without pandas


def test_what_is_stored_is_plain_and_the_same(rng):
    table = mixed(rng)
    columns = Columns.fit(table)
    again = Columns.from_dict(json.loads(json.dumps(columns.as_dict(), allow_nan=False)))
    assert again == columns and again.notes == columns.notes and np.array_equal(again.encode(table), columns.encode(table))
    x = rng.normal(size=(9, 2))
    unnamed = Columns.from_dict(json.loads(json.dumps(Columns.fit(x).as_dict())))
    assert np.array_equal(unnamed.encode(x), Columns.fit(x).encode(x))


def test_what_is_stored_is_checked(rng):
    stored = Columns.fit({"a": [1.0, 2, 3], "b": ["x", "y", "x"]}).as_dict()
    one, two = stored["columns"]
    wrong = [{}, [], None, {"columns": [], "named": True, "notes": []}, stored | {"columns": 3}, stored | {"columns": [one | {"unit": 0}]}]
    wrong += [
        stored | {"columns": [one | change]} for change in ({"centre": float("nan")}, {"kind": "tree"}, {"depth": 3}, {"unit": "wide"})
    ]
    wrong += [stored | {"columns": [two | change]} for change in ({"shares": [0.5]}, {"unseen": False}, {"own": 3})]
    for given in wrong:
        with pytest.raises(InputError, match="no description of a table's columns"):
            Columns.from_dict(given)


def test_arrays_need_no_pandas():
    code = (
        "import sys\nsys.modules['pandas'] = sys.modules['sklearn'] = None\nimport numpy as np\n"
        "from thalweg.detect.columns import Columns\n"
        "x = np.arange(12.0).reshape(4, 3)\nassert Columns.fit(x).encode(x).shape == (4, 3)\n"
        "t = {'a': ['u', 'v', 'u'], 'b': [1, None, 3]}\nassert Columns.fit(t).encode(t).shape == (3, 5)\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- what is refused


INF = float("inf")
BAD = [
    (None, "a table is an array"),
    ("table.csv", "a table is an array .* got 'table.csv'"),
    (3, "a table is an array .* got int"),
    (np.float64(3), "Reshape your data"),
    (np.arange(3.0), "Expected 2D array, got 1D array instead.*Reshape your data"),
    ([1.0, 2.0], "Reshape your data"),
    (["a", "b"], "Reshape your data"),
    (pd.Series([1.0, 2]), "Reshape your data"),
    (np.zeros((2, 3, 4)), r"got an array \[2, 3, 4\]"),
    (np.zeros((0, 3)), r"0 sample\(s\) \(shape=\(0, 3\)\) while a minimum of 1 is required"),
    (np.zeros((12, 0)), r"0 feature\(s\) \(shape=\(12, 0\)\) while a minimum of 1 is required."),
    (pd.DataFrame(), r"0 feature\(s\)"),
    (pd.DataFrame({"a": []}), r"0 sample\(s\)"),
    ([], r"0 feature\(s\)"),
    ({}, r"0 feature\(s\)"),
    ([[], []], r"0 feature\(s\)"),
    ([[1, 2], [3]], "row 0 has 2, row 1 has 1"),
    ([[1, 2], 3], "row 1 is int"),
    ([{"a": 1}, [1]], "rows must be lists of cells, or all dicts, row 0 is dict"),
    ({"a": [1, 2], "b": [1]}, "same number of rows, got 'a' 2, 'b' 1"),
    ({"a": 1.0}, "column 'a' must be a list or an array of cells, got float"),
    ({"a": np.zeros((2, 2))}, "column 'a' must be a list of cells"),
    ({1: [1, 2], "1": [3, 4]}, "'1' is that of 2"),
    (pd.DataFrame(np.zeros((2, 3)), columns=["a", "b", "a"]), "columns need different names, 'a' is that of 2"),
    (np.array([[1.0, INF], [2, 3]]), "'x1' holds infinity.* in 1 of 2 rows, first in row 0"),
    ([[1, 2], [3, -INF]], "'x1' holds infinity.* first in row 1"),
    ([["1"], ["-inf"]], "'x0' holds infinity"),
    ({"a": [1, 10**400]}, "'a' holds infinity, or a number beyond 64 bits"),
    (np.array([[1j], [2]]), "Complex data not supported"),
    ({"a": [1j, 2]}, "Complex data not supported: column 'a'"),
    (pd.DataFrame({"a": [1j, 2]}), "Complex data not supported: column 'a'"),
    ({"a": [1, {"b": 2}]}, "column 'a', row 1: argument must be a string, a number or a date, got dict"),
    ({"a": [[1], [2]]}, "column 'a', row 0: .* got list"),
    ([[object()]], "'x0', row 0: .* got object"),
    (np.array([[None, np.zeros(2)]], dtype=object), "'x1', row 0: .* got ndarray"),
    ({"a": [datetime.date(2024, 1, 1), 3]}, "'a' mixes date and number"),
    ({"a": [datetime.time(3)]}, "got time"),
    (np.zeros((2, 2), dtype="V4"), "argument must be a string"),
]


@pytest.mark.parametrize("table, message", BAD, ids=range(len(BAD)))
def test_what_is_no_table_is_refused(table, message):
    with pytest.raises(InputError, match=message):
        Columns.fit(table)
    with pytest.raises(InputError):
        Columns.fit(np.arange(6.0).reshape(2, 3)).encode(table)


def test_a_nested_cell_is_a_type_error_too():
    """scikit-learn's check_dtype_object wants one."""
    x = np.zeros((4, 2), dtype=object)
    x[0, 0] = {"foo": "bar"}
    with pytest.raises(TypeError, match=r"argument must be .* string.* number"):
        Columns.fit(x)


def test_sparse_matrices_are_refused():
    from scipy import sparse

    with pytest.raises(InputError, match=r"sparse matrices are not supported, give X.toarray\(\)"):
        Columns.fit(sparse.csr_array(np.eye(3)))


CHANGES = [
    (lambda t: t.drop(columns="number"), "no column 'number', which was there at fit"),
    (lambda t: t.assign(extra=1), "a column 'extra', which was not there at fit"),
    (lambda t: t.rename(columns={"number": "nubmer"}), "no column 'number'.*; and a column 'nubmer'"),
    (lambda t: t.assign(number="high"), "'number' held numbers at fit, row 0 holds 'high'"),
    (lambda t: t.assign(number=t["when"]), "'number' held numbers at fit"),
    (lambda t: t.assign(when=1.5), "'when' held dates at fit, row 0 holds 1.5"),
    (lambda t: t.assign(when="soon"), "'when' held dates at fit, row 0 holds 'soon'"),
    (lambda t: t.assign(flag="perhaps"), "'flag' held true and false at fit"),
    (lambda t: t.assign(colour=1.5), "'colour' held text at fit, row 0 holds 1.5"),
    (lambda t: t.assign(colour=t["when"]), "'colour' held text at fit"),
    (lambda t: t.assign(number=[1.0, INF, 2.0]), "'number' holds infinity.* first in row 1"),
    (lambda t: t.to_numpy()[:, :4], "X has 4 features, but Columns is expecting 9 features as input"),
    (lambda t: t[:0], r"0 sample\(s\)"),
]


@pytest.mark.parametrize("change, message", CHANGES, ids=range(len(CHANGES)))
def test_what_changed_since_fit_is_named(rng, change, message):
    columns = Columns.fit(mixed(rng))
    with pytest.raises(InputError, match=message):
        columns.encode(change(mixed(rng, 3)))


def test_one_row_and_equal_rows():
    for table in ([[1.0, "a"]], [[1.0, "a"]] * 5):
        columns = Columns.fit(table)
        assert (columns.encode(table) == 0).all() and np.abs(columns.encode([[2.0, "b"]])).max() > 10


def test_many_columns_and_too_many():
    x = np.random.default_rng(0).normal(size=(5, 100_000))
    assert Columns.fit(x).encode(x).shape == x.shape
    with pytest.raises(InputError, match=f"at most {OUTPUTS} are possible"):
        Columns.fit(np.zeros((1, OUTPUTS + 1)))


def test_input_is_not_changed(rng):
    x = rng.normal(size=(50, 3))
    x[0, 0] = np.nan
    x.flags.writeable = False
    table = mixed(rng)
    kept = table.copy(deep=True)
    Columns.fit(x).encode(x)
    Columns.fit(table).encode(table)
    pd.testing.assert_frame_equal(table, kept)
    cells = np.array([[" a"], ["b "]], dtype=object)
    Columns.fit(cells)
    assert cells[0, 0] == " a"


def test_more_rows_than_memory(rng, monkeypatch):
    x = rng.normal(size=(50, 3))
    columns = Columns.fit(x)

    def refuse(shape):
        raise MemoryError

    monkeypatch.setattr(np, "empty", refuse)
    with pytest.raises(
        InputError, match=r"50 rows of 3 numbers take 0.0 GiB, which is more memory than there is; give fewer rows at a time"
    ):
        columns.encode(x)


def test_names_of_all_kinds_are_text(rng):
    frame = pd.DataFrame(rng.normal(size=(5, 4)), columns=[3, None, ("a", 1), ""])
    columns = Columns.fit(frame)
    assert columns.names == columns.outputs == ["3", "None", "('a', 1)", ""]
    again = Columns.from_dict(columns.as_dict())
    assert np.array_equal(again.encode(frame[frame.columns[::-1]]), columns.encode(frame))


def test_many_notes_are_short(rng):
    columns = Columns.fit(np.zeros((30, 1000)))
    assert columns.notes == (columns.notes[0],) and "'x7' and 992 more: the same in all rows" in columns.notes[0]
