"""The report is one self-contained page that escapes what it is given."""

import base64
import re
from html.parser import HTMLParser

import pytest
import torch

from thalweg import plot, report
from thalweg.errors import InputError

VOID = {"meta", "img", "br"}
ATTACK = "<script>alert('x')</script> & \"quoted\""


class Reader(HTMLParser):
    """Collects tags, attributes and text, and checks that every tag is closed in order."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def picture(tmp_path):
    return plot.grid(torch.zeros(1, 1, 8, 8), tmp_path / "samples" / "a.png")


def test_report_holds_everything_and_needs_nothing(tmp_path, picture):
    path = report.write(
        tmp_path,
        title="cdrl/digits",
        table=[("frechet[digits-classifier]", "5.2", "floor 2.5 at n = 359")],
        pictures=[("Relative", "samples/a.png"), ("Absolute", picture)],
        config={"steps": 15, "net": {"width": 64, "norm": None, "empty": {}}},
        footer="thalweg 0.2.0",
    )
    assert path == tmp_path / "report.html"
    page = path.read_text(encoding="utf-8")
    reader = Reader(page)
    for word in ("cdrl/digits", "frechet[digits-classifier]", "5.2", "net.width", "64", "None", "Relative", "thalweg 0.2.0"):
        assert word in reader.text
    sources = [value for name, value in reader.attributes if name == "src"]
    assert len(sources) == 2
    assert all(base64.b64decode(source.removeprefix("data:image/png;base64,")) == picture.read_bytes() for source in sources)
    assert not re.search(r"https?://|url\(|@import|<link|<script", page)
    assert "prefers-color-scheme: dark" in page


def test_report_escapes_every_text(tmp_path, picture):
    path = report.write(
        tmp_path,
        title=ATTACK,
        table=[(ATTACK, ATTACK, ATTACK)],
        pictures=[(ATTACK, picture)],
        config={ATTACK: ATTACK, "nested": {ATTACK: ATTACK}},
        footer=ATTACK,
    )
    page = path.read_text(encoding="utf-8")
    reader = Reader(page)
    assert "script" not in reader.tags and "<script" not in page
    assert reader.text.count(ATTACK) == 10  # the page's title and heading, the row of 3, the caption, 3 in the configuration, the footer
    assert dict(reader.attributes)["alt"] == ATTACK


def test_a_failed_report_leaves_the_old_one(tmp_path, picture):
    old = report.write(tmp_path, title="old").read_text()
    for missing, message in (("no.png", "cannot read"), ("a.txt", "not one of")):
        with pytest.raises(InputError, match=message):
            report.write(tmp_path, title="new", pictures=[("x", missing)])
    assert (tmp_path / "report.html").read_text() == old
    assert not list(tmp_path.glob(".*"))


def test_a_bare_report_is_a_whole_page(tmp_path):
    page = report.write(tmp_path / "new" / "run", title="t").read_text()
    assert Reader(page).tags.count("h1") == 1 and "<table>" not in page
