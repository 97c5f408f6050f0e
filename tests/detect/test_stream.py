"""Rows in, a verdict a line out: forms of rows, batches, wrong lines, drift, and bounded memory."""

import io
import json
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pandas
import pytest

from thalweg import InputError
from thalweg.detect.columns import Columns
from thalweg.detect.promise import Conformal
from thalweg.detect.stream import Watch, answer, lines, records


class Gaussian:
    """A detector whose density is a standard normal of the encoded columns."""

    contamination = 0.05

    def __init__(self, table) -> None:
        self.columns_ = Columns.fit(table)
        self.left_out_ = -self.score_samples(table)
        self.conformal_ = Conformal(self.left_out_)

    def score_samples(self, table) -> np.ndarray:
        return -0.5 * (self.columns_.encode(table) ** 2).sum(1)

    def follow(self, table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        scores = self.score_samples(table)
        return scores, self.conformal_.p_value(-scores), -scores


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    colour = np.array(["red", "green"])[rng.integers(0, 2, 999)]
    return pandas.DataFrame(
        {"height": rng.normal(170, 10, 999).tolist(), "weight": rng.normal(70, 9, 999).tolist(), "colour": colour.tolist()}
    )


@pytest.fixture(scope="module")
def detector(rows):
    return Gaussian(rows)


@pytest.fixture(scope="module")
def plain():
    """Of an array, whose columns have no names."""
    return Gaussian(np.random.default_rng(0).standard_normal((999, 2)))


def stream(detector, text, **options) -> list[str]:
    target = io.StringIO()
    answer(detector, io.BytesIO(text if isinstance(text, bytes) else text.encode()), target, **options)
    return target.getvalue().splitlines()


def test_json_lines_are_answered_with_json_lines(detector):
    found = [json.loads(line) for line in stream(detector, '{"height": 171, "weight": 70, "colour": "red"}\n[300, 70, "red"]\n')]
    assert [record["row"] for record in found] == [0, 1] and [record["verdict"] for record in found] == ["inlier", "outlier"]
    assert found[0]["score"] > found[1]["score"] and found[1]["p_value"] == 0.001 and 0 < found[1]["drift"] <= 1
    assert list(found[0]) == ["row", "score", "p_value", "verdict", "drift"]


def test_csv_is_answered_with_csv(detector):
    found = stream(detector, "\ufeffweight,height,colour\r\n70,171,red\r\n\r\n70,300,red\r\n")
    assert found[0] == "row,score,p_value,verdict,drift" and [line.split(",")[3] for line in found[1:]] == ["inlier", "outlier"]
    assert stream(detector, "weight;height;colour\n70;171;red") == stream(detector, '"weight"\theight\tcolour\n70\t171\t"red"') == found[:2]
    assert stream(detector, ",weight,height,colour\n7,70,171,red") == found[:2]  # with the index that pandas writes
    assert len(stream(detector, "weight,height,colour\n")) == 1 and stream(detector, "") == []


def test_both_forms_and_whole_tables_say_the_same(detector, rows):
    table = rows[:200]
    whole = Watch(detector).look(table)
    assert Watch(detector).look(table[["colour", "weight", "height"]]) == whole
    listed = table.to_dict("records")
    assert [json.loads(line) for line in stream(detector, "\n".join(map(json.dumps, listed)))] == whole
    csv = ["height,weight,colour", *(",".join(map(str, row.values())) for row in listed)]
    assert [json.loads(line) for line in stream(detector, "\n".join(csv), form="jsonl")] == whole
    p = detector.conformal_.p_value(-detector.score_samples(table))
    assert [record["verdict"] == "outlier" for record in whole] == (p <= 0.05).tolist()
    assert np.allclose([record["p_value"] for record in whole], p)


def test_columns_without_names_come_in_their_order(plain):
    found = stream(plain, "0.1,0.2\n9,9\n")
    assert [line.split(",")[3] for line in found[1:]] == ["inlier", "outlier"] and stream(plain, "a,b\n0.1,0.2\n9,9\n") == found
    assert len(stream(plain, '[0.1, 0.2]\n{"x1": 9, "x0": 9}\n')) == 2
    with pytest.raises(InputError, match="line 1: the columns had no names at fit; give lists of 2 values"):
        stream(plain, '{"a": 1, "b": 2}')


def test_a_key_that_is_not_there_is_a_missing_value(detector):
    one, two = stream(detector, '{"height": 171, "weight": 70, "colour": "red"}\n{"height": 171, "colour": "red"}')
    alone = stream(detector, '{"height": 171, "colour": "red"}')[0]
    assert json.loads(one)["verdict"] == "inlier" and json.loads(two)["verdict"] == "outlier"  # no weight was missing at fit
    assert json.loads(alone)["score"] == json.loads(two)["score"] == json.loads(stream(detector, '[171, null, "red"]')[0])["score"]


@pytest.mark.parametrize(
    "text, says, answered",
    [
        ("height,weight,colour\n1,2,red\n1,2\n", "line 3: 2 values for 3 columns (height, weight, colour)", 1),
        ("height,weight,colour\n1,2,red\nhigh,2,red\n", "line 3: column 'height' held numbers at fit, now it holds 'high'", 1),
        ("height,colour\n1,red\n", "line 2: the table has no column 'weight', which was there at fit", 0),
        ("height,weight,colour,age\n1,2,red,3\n", "line 2: the table has a column 'age', which was not there at fit", 0),
        ("height,height,colour\n", "line 1: columns need names, each another", 0),
        ('height,weight,colour\n1,2,"red\n', "line 2: not CSV: unexpected end of data", 0),
        ("[1, 2, 3]\n[1, 2]\n", "line 1: column 'colour' held text at fit, now it holds 3", 0),
        ('[1, 2, "red"]\n[1, 2]\n', "line 2: 2 values for 3 columns", 1),
        ('[1, 2, "red"]\n\n{"height": [1]}\n', "line 3: column 'height': argument must be", 1),
        ('[1, 2, "red"]\n{"height": 1, "wieght": 2}\n', "line 2: the table has a column 'wieght'", 1),
        ('[1, 2, "red"]\n[Infinity, 2, "red"]\n', "line 2: column 'height' holds infinity", 1),
        ('{"height": 1\n', "line 1: not JSON", 0),
        ('{"height": 1, "weight": 2, "colour": "red"}\nheight\n', "line 2: not JSON", 1),
        ('{"height": 1, "weight": 2, "colour": "red"}\n7\n', "line 2: 7 is no row", 1),
        ("{}\n", "line 1: {} is no row", 0),
        ("[" * 100_000, "line 1: not JSON", 0),
        (b'[1, 2, "red"]\n\xff\xfe\n', "line 2: not UTF-8 text", 1),
    ],
)
def test_a_wrong_line_is_named_and_those_before_it_are_answered(detector, text, says, answered):
    target = io.StringIO()
    with pytest.raises(InputError) as error:
        answer(detector, io.BytesIO(text if isinstance(text, bytes) else text.encode()), target)
    assert says in str(error.value) and "row 0" not in str(error.value)
    said = target.getvalue().splitlines()
    assert len([line for line in said if not line.startswith("row,")]) == answered


@pytest.mark.parametrize("seed", range(100))
def test_damaged_streams_are_answered_or_refused_with_a_line(detector, seed):
    rng = np.random.default_rng(seed)
    rows = [[171, 70, "red"], [160.5, None, "green"], [1e3, 2, "blue"]] * 4
    names = ("height", "weight", "colour")
    forms = {
        0: "\n".join(json.dumps(dict(zip(names, row))) for row in rows),
        1: "\n".join(map(json.dumps, rows)),
        2: "\n".join([",".join(names), *(",".join("" if cell is None else str(cell) for cell in row) for row in rows)]),
    }
    content = bytearray(forms[seed % 3].encode())
    for _ in range(rng.integers(1, 6)):
        at = int(rng.integers(len(content)))
        piece = rng.choice(
            [b"\0", b"\xff", b'"', b"\n", b",", b"]", b"{", b"nan", b"1e999", b"\xe2\x88\x9e", b"true", b"\r", b"[[", b"9" * 400]
        )
        content[at : at + int(rng.integers(0, 3))] = piece
    target = io.StringIO()
    try:
        answer(detector, io.BytesIO(bytes(content)), target)
    except InputError as error:
        assert str(error).startswith("line ") and "\n" not in str(error)
    for line in target.getvalue().splitlines():
        assert line.startswith("row,") or line.split(",")[0].isdigit() or json.loads(line)["verdict"] in ("inlier", "outlier")


def test_a_line_without_an_end_is_refused(monkeypatch, detector):
    monkeypatch.setattr("thalweg.detect.stream.LONGEST", 2**18)
    with pytest.raises(InputError, match="line 2 has more than 262,144 bytes"):
        stream(detector, '[1, 2, "red"]\n' + " " * 2**20)


def test_lines_come_as_they_are_there():
    class Slow(io.BytesIO):
        parts = [b"one\ntwo\nth", b"ree\n", b"\n  \nfour", b""]

        def read1(self, size=-1):
            return self.parts.pop(0)

    assert list(lines(Slow())) == [[(1, b"one"), (2, b"two")], [(3, b"three")], [(6, b"four")]]


def test_a_lone_row_is_answered_before_the_next_comes(tmp_path):
    """Through real pipes: the answer is there while the stream is open."""
    code = (
        f"import sys, numpy\nsys.path[:0] = [{os.path.dirname(__file__)!r}]\nfrom test_stream import Gaussian, answer\n"
        "answer(Gaussian(numpy.random.default_rng(0).standard_normal((99, 2))), sys.stdin.buffer, sys.stdout)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        for row in range(3):
            process.stdin.write(b"[0.5, 0.5]\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["row"] == row
        process.stdin.close()
        assert process.stdout.read() == b""


def test_a_drift_is_told_by_its_p_value(plain):
    rng = np.random.default_rng(5)
    x = np.concatenate([rng.standard_normal((400, 2)), rng.standard_normal((400, 2)) + 2])
    drift = [json.loads(line)["drift"] for line in stream(plain, "\n".join(str(row.tolist()) for row in x))]
    assert drift[399] > 0.05 and drift[-1] < 1e-6 and (np.diff(drift) <= 0).all()
    watch, quiet = Watch(plain, delta=1e-3), Watch(plain)
    watch.look(x)
    quiet.look(x[:400])
    assert watch.drifted == np.argmax(np.array(drift) <= 1e-3) and quiet.drifted is None and (quiet.rows, watch.rows) == (400, 800)


def test_the_threshold_can_follow(plain):
    rng = np.random.default_rng(2)
    text = "\n".join(str(row.tolist()) for row in rng.standard_normal((3000, 2)) + 3)
    verdicts = {}
    for window in (0, 500):
        verdicts[window] = np.array([json.loads(line)["verdict"] == "outlier" for line in stream(plain, text, window=window)])
    assert verdicts[0][-1000:].mean() > 0.5 and abs(verdicts[500][-1000:].mean() - 0.05) < 0.04 and verdicts[500][0]
    with pytest.raises(InputError, match="needs at least 19 held-out rows to calibrate on, there are 10"):
        stream(plain, text, window=10)


def test_records_name_rows_or_files():
    assert records([1.0, -2.0], [0.5, 0.05], 0.05, first=7) == [
        {"row": 7, "score": 1.0, "p_value": 0.5, "verdict": "inlier"},
        {"row": 8, "score": -2.0, "p_value": 0.05, "verdict": "outlier"},
    ]
    assert records([1 / 3], [1.0], 0.05, names=["a.png"]) == [{"file": "a.png", "score": 0.333333333, "p_value": 1.0, "verdict": "inlier"}]


def test_memory_does_not_grow_with_the_stream(plain):
    """Their records alone would take 10 MB and more."""

    class Endless(io.RawIOBase):
        def __init__(self, rows: int) -> None:
            self.left = rows

        def read1(self, size=-1):
            count = min(self.left, 1000)
            self.left -= count
            return b"0.25,0.5\n" * count

    class Nowhere(io.StringIO):
        count = 0

        def write(self, text):
            self.count += text.count("\n")
            return len(text)

    answer(plain, Endless(10), Nowhere())
    tracemalloc.start()
    target = Nowhere()
    answer(plain, Endless(30_000), target)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert target.count == 30_001 and peak < 4_000_000
