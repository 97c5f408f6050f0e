"""`thalweg detect`: from files to verdicts and pages, streams, what is refused, and the task of that name."""

import csv
import io
import json
import re
import sys

import numpy as np
import pandas
import pytest
from PIL import Image

import thalweg as tw
from thalweg import progress
from thalweg.commands import detect
from thalweg.commands.main import main
from thalweg.errors import InputError


def people(n: int, seed: int) -> pandas.DataFrame:
    rng = np.random.default_rng(seed)
    height = rng.normal(170, 10, n)
    columns = {"height": height, "weight": height - 100 + rng.normal(0, 8, n), "city": rng.choice(["Rome", "Oslo"], n)}
    return pandas.DataFrame(columns)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A detector of a table, and rows to look at, of which 1 and 2 are strange."""
    folder = tmp_path_factory.mktemp("detect")
    people(600, 0).to_csv(folder / "normal.csv", index=False)
    new = people(200, 1)
    new.loc[1, "height"], new.loc[2, "weight"] = 17.0, 700.0
    new.to_csv(folder / "new.csv", index=False)
    np.save(folder / "empty.npy", np.zeros((0, 3)))
    assert main(["detect", "fit", str(folder / "normal.csv"), "--out", str(folder / "people"), "--seconds", "3"]) == 0
    return folder


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A folder of pictures in two sizes, grey squares on black, and a detector of it."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "normal").mkdir()
    rng = np.random.default_rng(0)
    for i in range(120):
        side = 16 if i % 2 else 24
        pixels = np.zeros((side, side), np.uint8)
        pixels[side // 4 : -side // 4, side // 4 : -side // 4] = rng.integers(100, 200)
        Image.fromarray(pixels).save(folder / "normal" / f"{i:03}.png")
    (folder / "new").mkdir()
    for name, pixels in (("a", np.asarray(Image.open(folder / "normal" / "001.png"))), ("noise", rng.integers(0, 256, (30, 20, 3)))):
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "new" / f"{name}.png")
    words = [
        "detect",
        "fit",
        str(folder / "normal"),
        "--out",
        str(folder / "shop"),
        "--size",
        "8",
        "--seconds",
        "3",
        "--false-alarms",
        "0.1",
    ]
    assert main(words) == 0
    return folder


def rows_of(path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def run(*words) -> int:
    return main(["detect", *map(str, words)])


def test_fit_says_what_it_does(home, tmp_path, capsys):
    assert run("fit", home / "normal.csv", "--out", tmp_path / "people", "--seconds", 1) == 0
    said = capsys.readouterr()
    assert "600 rows; fitting takes 1 s at most" in said.err
    assert re.search(r"^threshold: a score of -?[\d.e+-]+$", said.out, re.M) and f"detector: {tmp_path / 'people'}" in said.out
    told = json.loads((tmp_path / "people" / detect.SOURCE).read_text())
    assert told["data"] == "normal.csv" and told["items"] == 600 and str(tmp_path) not in (tmp_path / "people" / detect.SOURCE).read_text()
    assert run("fit", home / "normal.csv", "--out", tmp_path / "people", "--seconds", 1) == 0  # over an older one


def test_results_as_csv_and_json_are_the_same_and_those_of_python(home, tmp_path, capsys):
    assert run("run", home / "people", "--input", home / "new.csv", "--out", tmp_path / "r.csv") == 0
    said = capsys.readouterr()
    assert said.out == f"{tmp_path / 'r.csv'}\n" and "of 200 are outliers at a false-alarm rate of 0.05" in said.err
    assert run("run", home / "people", "--input", home / "new.csv", "--out", tmp_path / "r.json") == 0
    found = json.loads((tmp_path / "r.json").read_text())
    rows = rows_of(tmp_path / "r.csv")
    assert [{key: str(value) for key, value in record.items()} for record in found] == rows
    assert [record["row"] for record in found] == list(range(200))
    assert found[1]["verdict"] == found[2]["verdict"] == "outlier" and sum(record["verdict"] == "outlier" for record in found) < 40
    detector, table = detect.load(home / "people")[0], pandas.read_csv(home / "new.csv")
    assert np.allclose([record["score"] for record in found], detector.score_samples(table), rtol=1e-6)
    assert np.allclose([record["p_value"] for record in found], detector.p_value(table))
    flagged = detector.predict(table) == -1
    assert [record["verdict"] == "outlier" for record in found] == flagged.tolist()


def test_the_page_shows_strange_rows_with_their_columns(home, tmp_path):
    assert run("run", home / "people", "--input", home / "new.csv", "--out", tmp_path / "r.html") == 0
    page = (tmp_path / "r.html").read_text()
    assert "The strangest of new.csv" in page and "normal.csv" in page and page.count("<li><h3>row ") == 24
    card = {int(row): card for row, card in re.findall(r"<li><h3>row (\d+)</h3>(.*?)</li>", page)}
    first = {row: re.search(r"<dt>(.*?) <small>", card[row])[1] for row in (1, 2)}
    assert first[1].startswith(("height = 17", "weight")) and first[2] == "weight = 700"


def test_pictures_of_a_folder(shop, tmp_path):
    assert run("run", shop / "shop", "--input", shop / "new", "--out", tmp_path / "r.json") == 0
    found = json.loads((tmp_path / "r.json").read_text())
    assert [record["file"] for record in found] == [str(shop / "new" / "a.png"), str(shop / "new" / "noise.png")]
    assert [record["verdict"] for record in found] == ["inlier", "outlier"]
    assert run("run", shop / "shop", "--input", shop / "new" / "noise.png", "--out", tmp_path / "r.html") == 0
    page = (tmp_path / "r.html").read_text()
    assert page.count("data:image/png") == 1 and "1 of 1 item is an outlier" in page and "noise.png" in page
    assert detect.load(shop / "shop")[1]["items"] == 120  # all of them


def test_a_detector_that_python_saved_is_run_too(shop, tmp_path):
    detector = tw.EnergyDetector(members=2, updates=1, random_state=0).fit(detect.normal_items(str(shop / "normal"), 8).x)
    detector.save(tmp_path / "saved")
    assert run("run", tmp_path / "saved", "--input", shop / "new", "--out", tmp_path / "r.csv") == 0
    assert len(rows_of(tmp_path / "r.csv")) == 2 and run("run", tmp_path / "saved", "--stream") == 2


def test_images_in_a_file_and_by_name(shop, tmp_path):
    x = detect.normal_items(str(shop / "normal"), 8).x[:30].copy()
    x[3] = 1
    np.savez(tmp_path / "x.npz", x=x)
    assert run("run", shop / "shop", "--input", tmp_path / "x.npz", "--out", tmp_path / "r.csv") == 0
    rows = rows_of(tmp_path / "r.csv")
    assert rows[3]["file"] == "x.npz[3]" and rows[3]["verdict"] == "outlier"
    assert sum(row["verdict"] == "outlier" for row in rows) < 15
    assert run("run", shop / "shop", "--input", "digits", "--out", tmp_path / "r.csv") == 0
    assert len(rows_of(tmp_path / "r.csv")) == 359


def test_pictures_by_pixels_and_the_features_of_a_frozen_network(shop, tmp_path):
    (tmp_path / "some").mkdir()
    for file in sorted((shop / "normal").iterdir())[:24]:
        (tmp_path / "some" / file.name).write_bytes(file.read_bytes())
    words = ("--size", 24, "--seconds", 1, "--false-alarms", 0.1, "--features", "pixels+efficientnet-lite0")
    assert run("fit", tmp_path / "some", "--out", tmp_path / "d", *words) == 0
    detector, told = detect.load(tmp_path / "d")
    assert set(detector.choice_) == {"pixels", "efficientnet-lite0", "pixels+efficientnet-lite0"} and told["shape"] == [1, 24, 24]
    assert detector.choice_[told["features"]] == max(detector.choice_.values()) and told["features"] == detector.pictures_.features
    assert run("run", tmp_path / "d", "--input", shop / "new", "--out", tmp_path / "r.json") == 0
    same, noise = json.loads((tmp_path / "r.json").read_text())
    assert noise["score"] < same["score"]


def test_a_named_set_is_learned_without_its_test_split(monkeypatch):
    items = detect.normal_items("digits", None)
    assert items.x.shape == (1259 + 179, 1, 8, 8) and items.kind == "pictures" and abs(items.x).max() == 1
    assert detect.normal_items("moons", None).x.shape == (10_000, 2)
    monkeypatch.setattr(tw.data, "load", lambda name, split, size: tw.data.toy("moons"))
    with pytest.raises(InputError, match="objects: a detector is of tables and pictures"):
        detect.normal_items("objects", 8)


# --- streams


def feed(monkeypatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def test_a_stream_is_answered_and_drift_is_told_once(home, monkeypatch, capsys):
    later = people(200, 3)
    later["height"] += 40
    rows = pandas.concat([people(100, 2), later])
    feed(monkeypatch, rows.to_csv(index=False))
    assert run("run", home / "people", "--stream") == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0] == "row,score,p_value,verdict,drift" and len(lines) == 301
    row = int(re.search(r"drift by row (\d+):", said.err)[1])
    assert said.err.count("drift by row") == 1 and 100 <= row < 300 and "300 rows" in said.err
    drift = [float(line.split(",")[4]) for line in lines[1:]]
    assert drift[row] <= 0.01 < drift[row - 1]


def test_a_stream_to_a_file_with_a_window(home, tmp_path, monkeypatch, capsys):
    feed(monkeypatch, people(50, 4).to_json(orient="records", lines=True))
    out = tmp_path / "r.jsonl"
    assert run("run", home / "people", "--stream", "--window", 100, "--out", out) == 0 and capsys.readouterr().out == ""
    assert [json.loads(line)["row"] for line in out.read_text().splitlines()] == list(range(50))
    feed(monkeypatch, "")
    assert run("run", home / "people", "--stream") == 0


def test_a_wrong_line_of_a_stream_ends_it_with_its_number(home, monkeypatch, capsys):
    feed(monkeypatch, '[170, 70, "Rome"]\n[170, 70]\n')
    assert run("run", home / "people", "--stream") == 2
    said = capsys.readouterr()
    assert json.loads(said.out)["row"] == 0 and "thalweg: line 2: 2 values for 3 columns" in said.err


# --- what is refused


@pytest.mark.parametrize(
    "words, says",
    [
        ("", "detect needs fit or run"),
        ("fot x.csv", "detect has no 'fot' (did you mean 'fit'?)"),
        ("fit", "needs"),
        ("fit {home}/normal.csv", "needs --out"),
        ("fit {home}/normal.csv --out {tmp}/d --false-alarms 0", "--false-alarms must be above 0 and at most 0.5, got 0"),
        ("fit {home}/normal.csv --out {tmp}/d --false-alarms nan", "--false-alarms must be above 0"),
        ("fit {home}/normal.csv --out {tmp}/d --false-alarms 5%", "--false-alarms takes a number"),
        ("fit {home}/normal.csv --out {tmp}/d --seconds -1", "--seconds must be above 0"),
        ("fit {home}/normal.csv --out {tmp}/d --features pixel", "did you mean 'pixels'?"),
        (
            "fit {home}/normal.csv --out {tmp}/d --features pixels+vgg",
            "takes pixels, energies, efficientnet-lite0, or several with + between",
        ),
        ("fit {home}/normal.csv --out {tmp}/d --features efficientnet-lite0", "is of pictures"),
        ("fit {home}/normal.csv --out {tmp}/d --size 8", "--size is of pictures"),
        ("fit {home}/normal.csv --out {home}", "holds something else"),
        ("fit {home}/normal.csv --out {home}/normal.csv", "holds something else"),
        ("fit {home}/empty.npy --out {tmp}/d", "empty.npy holds no rows"),
        ("fit {home}/nothing.csv --out {tmp}/d", "unknown data"),
        ("fit nowhere --out {tmp}/d", "unknown data"),
        ("fit {tmp} --out {tmp}/d", "holds no pictures"),
        ("run {home}/people", "needs --input DATA and --out"),
        ("run {home}/people --input {home}/new.csv", "needs --input DATA and --out"),
        ("run {home}/people --input {home}/new.csv --out {tmp}/r.txt", "must end in .csv or .json or .html"),
        ("run {home}/people --input {home}/new.csv --out {tmp}/no/r.csv", "in a folder that exists"),
        ("run {home}/people --input {home}/nothing.csv --out {tmp}/r.csv", "no table there"),
        ("run {home}/people --input digits --out {tmp}/r.csv", "no table there"),
        ("run {home} --input {home}/new.csv --out {tmp}/r.csv", "no detector"),
        ("run {home}/people --stream --input {home}/new.csv", "leave --input out"),
        ("run {home}/people --stream --window -1", "--window must be 0 or more"),
        ("run {home}/people --stream --window 5", "needs at least 19"),
        ("run {home}/people --stream --drift 1", "--drift must be above 0 and below 1"),
        ("run {home}/people --stream --out {tmp}/r.json", "must end in .csv or .jsonl"),
        ("run {home}/people --window 9 --input {home}/new.csv --out {tmp}/r.csv", "--window is of --stream"),
        ("run {shop}/shop --input {home}/new.csv --out {tmp}/r.csv", "holds a table, the detector is of pictures"),
        ("run {shop}/shop --stream", "--stream is of rows"),
    ],
)
def test_wrong_input_is_one_message(home, shop, tmp_path, capsys, monkeypatch, words, says):
    feed(monkeypatch, "")
    before = sorted(tmp_path.iterdir())
    assert run(*words.format(home=home, shop=shop, tmp=tmp_path).split()) == 2
    said = capsys.readouterr()
    assert says in said.err.splitlines()[-1] and said.out == "" and "Traceback" not in said.err
    assert sorted(tmp_path.iterdir()) == before


def test_too_few_rows_for_the_rate_say_how_many_are_needed(tmp_path, capsys):
    people(60, 0).to_csv(tmp_path / "few.csv", index=False)
    assert run("fit", tmp_path / "few.csv", "--out", tmp_path / "d", "--false-alarms", 0.01, "--seconds", 1) == 2
    assert "99" in capsys.readouterr().err.splitlines()[-1] and not (tmp_path / "d").exists()


def test_another_table_is_refused_by_its_columns(home, tmp_path, capsys):
    people(5, 0).rename(columns={"height": "hight"}).to_csv(tmp_path / "x.csv", index=False)
    assert run("run", home / "people", "--input", tmp_path / "x.csv", "--out", tmp_path / "r.csv") == 2
    assert "'height'" in capsys.readouterr().err and not (tmp_path / "r.csv").exists()


# --- help, progress and the task of the same name


def test_help_names_both_ways(capsys):
    assert run("--help") == 0
    said = capsys.readouterr().out
    assert all(word in said for word in ("detect fit", "detect run", "--stream", "thalweg apply detect"))
    for word in ("fit", "run"):
        with pytest.raises(SystemExit):
            run(word, "--help")
    assert "detect fit" in main.__globals__["USAGE"]


def test_a_long_fit_says_that_it_goes_on(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(progress, "SOON", 0.0)
    monkeypatch.setattr(progress.Beat, "tick", 0.01)
    rows = np.random.default_rng(0).normal(size=(60, 2))
    np.savez(tmp_path / "x.npz", x=rows)
    assert run("fit", tmp_path / "x.npz", "--out", tmp_path / "d", "--seconds", "1") == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "  fitting" in line]
    assert said and any(" left" in line for line in said) and all(len(line) <= progress.COLUMNS for line in said)


def test_a_run_in_place_of_fit_and_run_is_the_task(tmp_path, capsys):
    model = tw.method("egc/digits", **{"net.width": 8, "net.blocks": 1}, levels=20, sample_steps=5)
    folder = tw.save(model.eval(), tmp_path / "model")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "black.png")
    words = [str(folder), "--input", str(tmp_path / "black.png"), "--out"]
    codes = [run(*words, tmp_path / "a.json"), main(["apply", "detect", *words, str(tmp_path / "b.json")])]
    said = capsys.readouterr().err.splitlines()
    assert codes[0] == codes[1] and (codes[0] == 0 or said[0] == said[1])
    if codes[0] == 0:
        assert (tmp_path / "a.json").read_text() == (tmp_path / "b.json").read_text()
