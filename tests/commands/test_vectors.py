"""Tables on the command line: trained, sampled into a .csv with the names of the columns, measured on held-out rows, exported."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch

import thalweg as tw
from thalweg.commands.main import main

NAMES = ["height", "weight", "ratio"]
MEAN, STD = np.array([170.0, 60_000.0, 0.01]), np.array([5.0, 3000.0, 0.002])


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """A folder with one table in every kind of file, and a run on it."""
    root = tmp_path_factory.mktemp("tables")
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 2, 400)
    x = MEAN + STD * (rng.normal(size=(400, 3)) + np.outer(kind, [2, 0, -2]))
    with open(root / "people.csv", "w", newline="") as file:
        csv.writer(file).writerows([[*NAMES, "label"], *([*map(repr, row.tolist()), "ab"[k]] for row, k in zip(x, kind))])
    np.savez(root / "people.npz", x=x, y=kind, columns=np.array(NAMES))
    np.save(root / "plain.npy", x)
    before = os.getcwd()
    os.chdir(root)
    try:
        fast = ["--images", "60000", "--batch", "128", "--sample-steps", "20", "--width", "32", "--threads", "1"]
        assert main(["train", "egc/vectors", "--data", "people.csv", "--out", "run", *fast]) == 0
    finally:
        os.chdir(before)
    return root


def test_samples_come_back_in_the_data_s_own_units(tables, monkeypatch, capsys):
    monkeypatch.chdir(tables)
    assert main(["sample", "run", "-n", "60", "--label", "b", "--out", "s.csv"]) == 0
    rows = list(csv.reader(Path("s.csv").read_text().splitlines()))
    assert rows[0] == [*NAMES, "label"] and len(rows) == 61 and {row[3] for row in rows[1:]} == {"b"}
    x = np.array([[float(cell) for cell in row[:3]] for row in rows[1:]])
    assert (abs(x.mean(0) - MEAN) < 4 * STD).all() and (x.std(0) < 4 * STD).all() and (x.std(0) > STD / 4).all()
    model = tw.load("run")
    assert np.allclose(model.sample(60, seed=0, label=torch.ones(60, dtype=torch.long)).numpy(), x, rtol=1e-6)
    assert main(["sample", "run", "-n", "5", "--out", "s.png"]) == 2 and "use --out FILE.csv" in capsys.readouterr().err


def test_held_out_figures(tables, monkeypatch, capsys):
    monkeypatch.chdir(tables)
    assert main(["evaluate", "run", "-n", "100"]) == 0
    said, found = capsys.readouterr().out, json.loads(Path("run/metrics.json").read_text())
    assert "energy distance of samples" in said and "held-out criterion" in said and "test accuracy" in said
    assert found["vectors"]["held_out"] == 40 and found["vectors"]["energy_distance"]["value"] < 1 and found["accuracy"]["value"] > 0.6
    assert found["cost"]["evaluations"] > 0


def test_likelihood_on_request(tables, tmp_path, monkeypatch):
    """Of an energy that its Gaussian reference confines; the density of the data's own units is less by Σ log std."""
    monkeypatch.chdir(tables)
    run = str(tmp_path / "run")
    assert (
        main(["train", "short_run/vectors", "--data", "plain.npy", "--out", run, "--images", "20000", "--width", "32", "--threads", "1"])
        == 0
    )
    assert main(["evaluate", run, "--metrics", "likelihood", "-n", "64"]) == 0
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())["likelihood"]
    assert found["log_volume"] == pytest.approx(float(tw.load(run).units.std.log().sum()), rel=1e-5)
    assert -8 < found["log_likelihood"]["value"]["value"] < -2  # a standard normal in three dimensions has −4.26


@pytest.mark.parametrize(("file", "classes"), [("people.csv", ("a", "b")), ("people.npz", ("0", "1")), ("plain.npy", ())])
def test_every_kind_of_file_is_the_same_table(tables, file, classes):
    parts = [tw.data.load(tables / file, split) for split in tw.data.SPLITS]
    assert [len(part) for part in parts] == [320, 40, 40] and parts[0].classes == classes
    assert parts[0].columns == (tuple(NAMES) if classes else ("x0", "x1", "x2"))
    assert parts[0].x.mean(0).abs().max() < 1e-5 and parts[2].x.mean(0).abs().max() > 1e-3  # all in the units of train
    whole = np.load(tables / "plain.npy")
    own = torch.cat([part.decode(part.x) for part in parts]).numpy()
    assert np.allclose(np.sort(own[:, 1]), np.sort(whole[:, 1]), rtol=1e-6)


def test_parquet(tables):
    pandas.read_csv(tables / "people.csv").to_parquet(tables / "people.parquet")
    assert torch.allclose(tw.data.load(tables / "people.parquet").x, tw.data.load(tables / "people.csv").x, atol=1e-5)
    (tables / "bad.parquet").write_bytes(b"nothing")
    with pytest.raises(tw.InputError, match="cannot be read as a parquet file"):
        tw.data.load(tables / "bad.parquet")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,x\n2,y\n", "column 'b' holds text ('x'); leave it out, or make it the labels"),
        ("a,b\n1,2\n3,\n", "column 'b' is empty or not finite in 1 of 2 rows, first in row 1"),
        ("a,b\n1,2\n3\n", "line 3: 1 cells for 2 columns"),
        ("a,a\n1,2\n", "columns need names, each another, got a, a"),
        ("a,b\n", "has columns but no rows"),
        ("", "is empty"),
        ("label\na\nb\n", "no column of numbers"),
        ("a,label\n1,x\n2,\n3,x\n", "1 of 3 labels are missing"),
        ("a,label\n" + "".join(f"{i},{7 * i + 3}\n" for i in range(50)), "look like identifiers"),
        ('a,b\n"1,2\n', "cannot be read as comma-separated"),
        ("a,b\n1,1e300\n2,-1e305\n", "do not fit into float32"),
    ],
)
def test_what_a_table_can_have_wrong(text, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text(text)
    assert main(["train", "short_run/vectors", "--data", "t.csv", "--out", "run"]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert words in said and not (tmp_path / "run").exists()


def test_lines_without_names_semicolons_and_a_label_by_name(tmp_path):
    (tmp_path / "a.csv").write_text("".join(f"{i},{i * i}\n" for i in range(30)))
    assert tw.data.load(tmp_path / "a.csv").columns == ("x0", "x1") and len(tw.data.load(tmp_path / "a.csv")) == 24
    (tmp_path / "b.csv").write_text("a;kind\n" + "".join(f"{i};{'uv'[i % 2]}\n" for i in range(30)))
    assert tw.data.load(tmp_path / "b.csv", label="kind").classes == ("u", "v")


@pytest.mark.parametrize("method", ["short_run", "cdrl", "egc", "coopflow", "ddaebm"])
def test_every_method_of_vectors_takes_the_data_s_shape(method, tables, tmp_path, monkeypatch):
    monkeypatch.chdir(tables)
    assert (
        main(
            [
                "train",
                f"{method}/vectors",
                "--data",
                "plain.npy",
                "--out",
                str(tmp_path / "run"),
                *["--images", "64", "--batch", "32", "--threads", "1"],
            ]
        )
        == 0
    )
    model = tw.load(tmp_path / "run")
    x = model.sample(4, seed=0)
    assert x.shape == (4, 3) and model.units.columns == ("x0", "x1", "x2") and model.energy(x).shape == (4,)
    tw.save(model, tmp_path / "export")
    assert torch.equal(tw.load(tmp_path / "export").sample(4, seed=0), x)


def test_what_a_file_needs_said_is_kept_with_the_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.savez("digits.npz", x=rng.integers(0, 17, (60, 8, 8)), y=np.arange(60) % 2)
    fast = ["--images", "128", "--batch", "32", "--sample-steps", "3", "--threads", "1", "--width", "16", "--blocks", "1"]
    train = ["train", "egc/digits", "--data", "digits.npz", "--out", "run", *fast]
    assert main(train) == 2
    assert "from 0 to 16 would be nearly black" in (said := capsys.readouterr().err) and "--values LOW,HIGH" in said
    assert main([*train, "--values", "0"]) == 2 and "--values takes two numbers" in capsys.readouterr().err
    assert main([*train, "--values", "0,16"]) == 0
    assert main(["evaluate", "run", "--metrics", "accuracy", "-n", "10"]) == 0
    Path("kinds.csv").write_text("a,b,kind\n" + "".join(f"{i},{i % 7},{'uv'[i % 2]}\n" for i in range(80)))
    train = ["train", "egc/vectors", "--data", "kinds.csv", "--out", "table", *fast[:-2]]
    assert main(train) == 2 and "--label-column kind" in capsys.readouterr().err
    assert main([*train, "--label-column", "kind"]) == 0
    assert main(["evaluate", "table", "--metrics", "accuracy,vectors", "-n", "10"]) == 0
    assert main(["sample", "table", "-n", "4", "--label", "v", "--out", "s.csv"]) == 0
    assert Path("s.csv").read_text().splitlines()[1].endswith(",v")


def test_rows_are_classified_and_detected_by_the_names_of_their_columns(tables, tmp_path, monkeypatch, capsys):
    """Also of an export, whose held-out energies are kept in the units of the model."""
    monkeypatch.chdir(tmp_path)
    model, data = tw.load(tables / "run"), tw.data.load(tables / "people.csv", "validation")
    x = data.decode(data.all().x)
    assert torch.allclose(torch.tensor(model.trained_on["held_out"]), model.energy(x), rtol=1e-4, atol=1e-3)
    assert tw.save(model, "kept") and main(["export", str(tables / "run"), "--out", "exported"]) == 0
    assert tw.load("kept").trained_on["held_out"] == tw.load("exported").trained_on["held_out"] == model.trained_on["held_out"]
    rows = pandas.read_csv(tables / "people.csv").head(20)
    others = pandas.concat([rows[NAMES] * 1.0, rows[NAMES] + 30 * STD])[NAMES[::-1]].assign(who="a name", label="unknown")
    others.to_csv("new.csv", index=False)
    np.savez("new.npz", x=others[NAMES].to_numpy())
    for folder in (tables / "run", "exported"):
        for file in ("new.csv", "new.npz"):
            assert main(["apply", "detect", str(folder), "--input", file, "--out", "d.json"]) == 0
            found = json.loads(Path("d.json").read_text())
            assert [row["input"] for row in found[:2]] == [f"{file}[0]", f"{file}[1]"] and len(found) == 40
            share = np.array([row["inliers_above"] for row in found])
            assert 0.2 < share[:20].mean() < 0.8 and (share[20:] == 0).all()
        assert main(["apply", "classify", str(folder), "--input", "new.csv", "--out", "c.json"]) == 0
        classes = [row["class"] for row in json.loads(Path("c.json").read_text())[:20]]
        assert np.mean([one == right for one, right in zip(classes, rows["label"])]) > 0.7
    capsys.readouterr()
    others[["height", "ratio"]].to_csv("less.csv", index=False)
    for words, message in (
        (["detect", "--input", "less.csv", "--out", "d.json"], "no column 'weight', which the model was trained on"),
        (["detect", "--input", "none.csv", "--out", "d.json"], "no table there; give a .csv, .parquet, .npz or .npy file"),
        (["denoise", "--std", "0.1", "--input", "new.csv", "--out", "x.npz"], "is of vectors [3], for which there are classify and detect"),
        (["inpaint", "--input", "new.csv", "--out", "x.npz"], "inpaint is for models of images; this egc is of vectors [3]"),
    ):
        assert main(["apply", words[0], str(tables / "run"), *words[1:]]) == 2
        assert message in (said := capsys.readouterr().err) and said.count("\n") == 1
