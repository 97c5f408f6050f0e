"""The report is one self-contained page that escapes what it is given."""

import base64
import re
from html.parser import HTMLParser

import pytest
import torch

from thalweg import calls, plot, report
from thalweg.commands.main import main
from thalweg.commands.report import _facts
from thalweg.errors import InputError

VOID = {"meta", "img", "br", "input"}
OUTSIDE = r"https?://|url\(|@import|<link|src=\"(?!data:)"  # what a page would fetch
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
    assert not re.search(OUTSIDE, page) and "<script" not in page
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


def headline(better="down", floor="real images 2.47", name="Fréchet distance"):
    return report.Headline(name, "3.76", better, floor, "How far samples lie from real images.")


def test_headlines_have_their_way_floor_and_meaning_and_the_rest_is_folded(tmp_path, picture):
    page = report.write(
        tmp_path, title="t", facts={"method": "egc", "command": "thalweg train egc/digits"}, samples=[("Drawn", picture)],
        headlines=[headline(), headline("up", "chance", "accuracy"), headline("up", "", "nats"), headline("", "new images 5 %", "closer")],
        table=[("a", "1", "b")], pictures=[("Another", picture)], config={"width": 64},
    ).read_text()  # fmt: skip
    reader = Reader(page)
    for text in ("↓ lower is better", "↑ higher is better", "≈ near its floor is right", "floor: real images 2.47", "reference: chance"):
        assert any(text in part for part in reader.text), text
    assert page.count("floor: ") == 2 and page.count("How far samples lie") == 4
    shown, folded = page[: page.index("<details>")], page[page.index("<details>") :]
    assert shown.index("thalweg train egc/digits") < shown.index("Drawn") < shown.index("3.76")
    assert all(text in folded and text not in shown for text in ("Another", "All figures", "Configuration"))
    assert [dict(reader.attributes).get("class")] and reader.tags.count("details") == 3


def test_pixels_are_shown_at_whole_factors_and_words_are_not(tmp_path):
    pixels = plot.grid(torch.zeros(4, 1, 8, 8), tmp_path / "a.png")  # each of its pixels is 4 × 4 in the file
    words = plot.grid(torch.zeros(4, 1, 8, 8), tmp_path / "b.png", title="a title")
    tags = [report.write(tmp_path, title="t", pictures=[("x", path)]).read_text() for path in (pixels, words)]
    assert 'class="pixels" style="--own: 70px; --unit: 17.5px"' in tags[0] and 'class="pixels"' not in tags[1]
    assert "image-rendering: pixelated" in tags[0] and "round(down, min(100%, 44rem), var(--unit))" in tags[0]


def test_a_slider_shows_one_picture_of_a_training_and_needs_no_network(tmp_path):
    frames = [(f"after {i} images", plot.grid(torch.zeros(1, 1, 8, 8), tmp_path / f"{i}.png")) for i in range(3)]
    page = report.write(tmp_path, title="t", training=frames).read_text()
    images = re.findall(r'<img class="([^"]*)"[^>]*alt="([^"]*)"', page)
    assert images == [("pixels", "after 0 images"), ("pixels", "after 1 images"), ("shown pixels", "after 2 images")]
    assert re.search(r'<input type="range" min="0" max="2" value="2" aria-label=', page) and page.count("<script>") == 1
    assert not re.search(OUTSIDE, page)
    one = report.write(tmp_path, title="t", training=frames[:1]).read_text()
    assert "<input" not in one and "<script" not in one and "after 0 images" in one


def test_calls_of_a_run_are_kept_by_line(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/thalweg", "train", "egc/digits", "--out", "a b"])
    calls.note(tmp_path, calls.this(seed=3))
    with open(tmp_path / calls.NAME, "a") as file:
        file.write('{"torn')
    (row,) = calls.read(tmp_path)
    assert row["command"] == "thalweg train egc/digits --out 'a b'" and row["seed"] == 3 and row["machine"]["cores"] >= 1
    assert calls.read(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    "words, said",
    [
        (["/x/thalweg/cli.py", "list"], "thalweg list"),
        (["scripts/mine.py", "3"], "python mine.py 3"),
        (["/x/ipykernel_launcher.py", "-f", "k.json"], "a notebook"),
        ([""], "python"),
    ],
)
def test_a_command_is_told_as_one_would_type_it(words, said, monkeypatch):
    monkeypatch.setattr("sys.argv", words)
    assert calls.command() == said


def test_the_report_of_a_run_says_where_it_comes_from(tmp_path, capsys):
    """Trained in two calls, evaluated: its facts, headlines, and pictures over training."""
    out = tmp_path / "run"
    words = ["train", "short_run/moons", "--out", str(out), "--width", "8", "--steps", "2", "--sample-steps", "2", "--device", "cpu"]
    assert main([*words, "--images", "512", "--sample-every", "256"]) == 0
    assert main([*words, "--images", "1024", "--sample-every", "256"]) == 0
    assert main(["evaluate", str(out), "-n", "64", "--device", "cpu"]) == 0
    text = [part.strip() for part in Reader((out / "report.html").read_text()).text]
    for fact in ("method", "data", "trained", "when", "command", "machine", "seed", "measured", "guard"):
        assert fact in text
    value = {text[i]: text[i + 1] for i in reversed(range(len(text) - 1))}  # the first of a name
    assert value["trained"].startswith("1,024 images, in ") and value["when"].endswith("; 2 calls") and value["seed"] == "0"
    assert value["method"].startswith("short_run: ") and "PyTorch" in value["machine"]
    cards = [word for word in text if word.startswith("floor: ")]
    known = ("the truth 0", "the truth 0", "the truth 0, nothing in common 1", "draws of the truth 0", "one at least")
    assert cards == [f"floor: {floor}" for floor in known]
    assert any(re.match(r"after 256 images, \d+ s", alt) for alt in re.findall(r'alt="([^"]*)"', (out / "report.html").read_text()))


@pytest.mark.parametrize(("shape", "data", "features"), [([2], "moons, vectors of 2", False), ([1, 8, 8], "digits, 1×8×8", True)])
def test_facts_of_vectors_say_nothing_of_pictures(tmp_path, shape, data, features):
    description = {"method": "short_run", "config": {"shape": shape, "data": data.partition(",")[0], "images": 10}}
    results = {"settings": {"n": 1000, "seed": 3, "extractor": "classifier"}}
    found = _facts(tmp_path, description, {}, [], results)
    assert found["data"] == data and "1,000 samples, seed 3" in found["measured"]
    assert ("features of classifier" in found["measured"]) == features
