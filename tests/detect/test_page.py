"""The page of strange items: whole in one file, escaped, and true to the numbers."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pandas
import pytest
from PIL import Image

from thalweg import InputError
from thalweg.detect import page
from thalweg.detect.page import Found, Row, histogram, strangest, write
from thalweg.detect.promise import Conformal


def found(scores, *, alpha=0.05, seed=0, names=None) -> Found:
    held_out = np.random.default_rng(seed).normal(size=199)
    conformal, scores = Conformal(-held_out), np.asarray(scores, dtype=float)
    p = conformal.p_value(-scores)
    names = names or [f"row {i}" for i in range(len(scores))]
    return Found(scores, p, p <= alpha, names, -conformal.threshold(alpha), alpha, held_out)


def text_of(path) -> str:
    class Reader(HTMLParser):
        said, open = "", []

        def handle_starttag(self, tag, attrs):
            if tag not in ("meta", "img"):
                self.open.append(tag)

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

        def handle_data(self, data):
            self.said += data if self.open and self.open[-1] != "style" else ""

    reader = Reader()
    reader.open = []
    reader.feed(path.read_text())
    assert not reader.open
    return reader.said


def test_the_page_needs_nothing_else_and_says_what_was_found(tmp_path):
    path = write(tmp_path / "result.html", found([0.1, -5, 0.3]), title="The strangest of x.csv", told={"score": "energy"})
    html, said = path.read_text(), text_of(path)
    assert not re.search(r"(?:src|href)=.(?!data:)|url\(|@import|<script", html) and "width=device-width" in html
    assert "prefers-color-scheme: dark" in html and "@media print" in html
    assert "1 of 3 items is an outlier at a false-alarm rate of 0.05" in said and "about 0.15 would be expected" in said
    assert said.index("row 1") < said.index("row 0") < said.index("row 2") and "score -5, p = 0.005, outlier" in said
    assert re.search(r"score 0\.3, p = 0\.\d+, inlier", said) and "energy" in said


def test_only_the_strangest_are_shown_in_order(tmp_path):
    scores = np.random.default_rng(1).normal(size=500)
    some = found(scores)
    assert strangest(some).tolist() == np.argsort(scores)[: page.MOST].tolist() and strangest(some, 3).shape == (3,)
    said = text_of(write(tmp_path / "p.html", some, title="x"))
    assert f"{int(some.outlier.sum())} of 500 items are outliers" in said and "about 25 would be" in said
    assert said.count("score ") == page.MOST and f"The strangest {page.MOST} items" in said


def test_bars_show_the_columns_that_pull(tmp_path):
    rows = [Row({"age": 950.0, "<b>": "a&b", "gone": None, "nan": float("nan")}, {"age": 5.0, "<b>": 3.0, "gone": 2.0, "nan": -4.0})]
    path = write(tmp_path / "p.html", found([-9.0]), title="x", rows=rows)
    said, html = text_of(path), path.read_text()
    assert "age = 950 (50%)" in said and "<b> = a&b (30%)" in said and "gone = missing (20%)" in said and "nan = " not in said
    assert [float(width) for width in re.findall(r'width:([\d.]+)%"></i>', html)] == [100, 60, 40] and "<b>:" not in html
    cells = {
        "a": pandas.NA,
        "b": pandas.NaT,
        "c": np.float32(0.1),
        "d": pandas.Timestamp("2024-02-03"),
        "e": 1234567,
        "f": np.float64("nan"),
    }
    said = text_of(write(tmp_path / "p.html", found([-9.0]), title="x", rows=[Row(cells, dict.fromkeys(cells, 1.0))]))
    told = ("a = missing", "b = missing", "c = 0.1 ", "d = 2024-02-03", "e = 1234567", "f = missing")
    assert all(line in said for line in told)
    many = [Row(dict.fromkeys("abcdefghij", 1), {name: 0.1 for name in "abcdefghij"})]
    assert text_of(write(tmp_path / "p.html", found([-9.0]), title="x", rows=many)).count("(10%)") == page.COLUMNS
    assert "no column makes it strange" in text_of(write(tmp_path / "p.html", found([-9.0]), title="x", rows=[Row({"a": 1}, {"a": 0.0})]))


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_in_the_page(tmp_path, channels):
    x = np.random.default_rng(0).uniform(-1, 1, (2, channels, 4, 6)).astype(np.float32)
    html = write(tmp_path / "p.html", found([-9, 0], names=["a.png", '"b".png']), title="x", pictures=x).read_text()
    data = re.findall(r'src="data:image/png;base64,([^"]+)" alt="([^"]+)"', html)
    assert [alt for _, alt in data] == ["a.png", "&quot;b&quot;.png"]
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(data[0][0]))).resize((6, 4), Image.Resampling.NEAREST))
    assert np.abs(image.reshape(4, 6, channels).transpose(2, 0, 1) / 127.5 - 1 - x[0]).max() < 0.005


@pytest.mark.parametrize("scores", [[0.0], [-1e30, 0, 1], [-5, -6, -7], [3, 3, 3], np.linspace(-4, 4, 1000), [-np.inf, 0.5]])
def test_the_histogram_holds_every_item_on_its_side_of_the_threshold(scores):
    some = found(scores)
    svg = histogram(some)
    numbers = [float(value) for value in re.findall(r'="(-?[\d.]+)"', svg)]
    assert np.isfinite(numbers).all() and "nan" not in svg and "inf" not in svg
    at = float(re.search(r'class="line" x1="([\d.]+)"', svg)[1])
    assert 10 < at < 350
    for kind, x, width in re.findall(r'class="(seen|beyond|held)" x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', svg):
        left, right = float(x), float(x) + float(width)
        assert left > 9.9 and right < 350.1 and (kind == "held" or (right < at + 0.1 if kind == "beyond" else left > at - 0.1))
    assert ('class="beyond"' in svg) == bool(some.outlier.any()) and ('class="seen"' in svg) == bool((~some.outlier).any())


def test_equal_scores_have_a_histogram():
    level = Found(np.zeros(3), np.ones(3), np.zeros(3, dtype=bool), "abc", 0.0, 0.05, np.zeros(50))
    assert 'class="seen"' in histogram(level)


def test_where_it_cannot_be_written_is_told(tmp_path):
    with pytest.raises(InputError, match="cannot write"):
        write(tmp_path / "nowhere" / "p.html", found([0.0]), title="x")
