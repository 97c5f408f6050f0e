"""A run knows its data by their content: from another directory, after they moved, from an export; and what evaluate keeps of a run."""

import contextlib
import io
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import thalweg as tw
from thalweg import metrics
from thalweg.commands.main import main
from thalweg.methods.egc import EGC

FAST = ["--width", "8", "--blocks", "1", "--levels", "20", "--batch", "16", "--sample-steps", "2", "--threads", "1"]
FIELDS = dict(width=8, blocks=1, levels=20, batch=16, sample_steps=2)


def read(path: str):
    return json.loads(Path(path).read_text())


def pictures(root, rows: torch.Tensor, labels: torch.Tensor | None, names: str = "abc") -> None:
    for i, x in enumerate(rows):
        path = root / (names[int(labels[i])] if labels is not None else "") / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(((x[0] + 1) * 127.5).round().byte().numpy()).save(path)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a run of egc, `r`, trained on 150 digits in the folder `pics` with the classes a, b and c."""
    root = tmp_path_factory.mktemp("runs")
    digits = tw.data.load("digits").all()
    rows = torch.cat([torch.nonzero(digits.label == c).flatten()[:50] for c in range(3)])
    pictures(root / "pics", digits.x[rows], digits.label[rows])
    with contextlib.chdir(root):
        assert main(["train", "egc/digits", "--data", "pics", "--out", "r", "--images", "64", *FAST]) == 0
    return root


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    """A directory of its own beside a copy of all that."""
    shutil.copytree(made, tmp_path / "top")
    path = tmp_path / "top" / "r" / "data.json"
    path.write_text(path.read_text().replace(str(made), str(tmp_path / "top")))
    (tmp_path / "top" / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "top" / "sub")
    return tmp_path / "top"


def classes(model: str, *words: str) -> set[str]:
    assert main(["apply", "classify", model, "--input", "../pics", "--out", "o.json", *words]) == 0
    return {row["class"] for row in read("o.json")}


# --- where the data are


@pytest.mark.parametrize("spelling", ["pics", "pics/", "./pics", "{top}/pics"])
def test_every_spelling_of_the_path_is_the_same_run(spelling, here, capsys, monkeypatch):
    monkeypatch.chdir(here)
    words = ["train", "egc/digits", "--data", spelling.format(top=here), "--out", "r", "--images", "64", *FAST]
    assert main(words) == 0 and "going on from 64" in capsys.readouterr().err


def test_from_another_directory(here, capsys):
    assert main(["evaluate", "../r", "--metrics", "accuracy", "-n", "20"]) == 0
    assert main(["apply", "detect", "../r", "--input", "../pics/a/000.png", "--out", "d.json"]) == 0
    assert main(["sample", "../r", "-n", "2", "--label", "c", "--out", "s.npz"]) == 0
    assert classes("../r") <= set("abc") and str(here) not in Path("../r/config.json").read_text()


def test_after_the_data_moved(here, capsys, monkeypatch):
    monkeypatch.chdir(here)
    os.rename("pics", "moved")
    assert main(["sample", "r", "-n", "2", "--label", "c", "--out", "s.npz"]) == 0
    assert main(["apply", "detect", "r", "--input", "moved/a/000.png", "--out", "d.json"]) == 0
    assert main(["evaluate", "r", "--metrics", "accuracy", "-n", "20"]) == 2
    assert "was trained on 'pics', which are not at" in (said := capsys.readouterr().err) and "--data PATH" in said
    assert main(["evaluate", "r", "--metrics", "accuracy", "-n", "20", "--data", "moved"]) == 0
    assert read("r/metrics.json")["accuracy"]["n"] == 15
    assert main(["train", "egc/digits", "--data", "moved", "--out", "r", "--images", "64", *FAST]) == 0
    assert main(["evaluate", "r", "--metrics", "accuracy", "-n", "20"]) == 0  # which now knows where they are


def test_data_that_changed_in_their_place_are_refused(here, capsys, monkeypatch):
    monkeypatch.chdir(here)
    Image.fromarray(torch.zeros(8, 8, dtype=torch.uint8).numpy()).save("pics/a/new.png")
    assert main(["evaluate", "r", "--metrics", "accuracy"]) == 2
    assert "are not what this egc was trained on any more" in capsys.readouterr().err
    before = (here / "r" / "metrics.json").exists()
    assert main(["evaluate", "r", "--metrics", "accuracy", "--data", "pics", "--out", "o.json"]) == 0
    said = capsys.readouterr()
    assert "test accuracy" in said.out and "pics are other data than r was trained on" in said.err
    assert (here / "r" / "metrics.json").exists() == before and read("o.json")["r"]["accuracy"]["n"] == 15


def test_other_data_are_no_resume(here, capsys, monkeypatch):
    monkeypatch.chdir(here)
    pictures(here / "other", tw.data.load("digits").all().x[:90], torch.arange(90) % 3)
    for words in (["--data", "other"], ["--data", "other/"]):
        assert main(["train", "egc/digits", *words, "--out", "r", "--images", "64", *FAST]) == 2
    assert capsys.readouterr().err.count("was trained on pics") == 2


def test_from_an_export_without_data(here, capsys):
    assert main(["evaluate", "../r", "--metrics", "accuracy", "-n", "20"]) == 0
    assert main(["export", "../r", "--out", "model"]) == 0
    card = Path("model/README.md").read_text()
    assert "# egc on pics" in card and "- Classes: a, b, c" in card and "| test accuracy |" in card
    assert not any(str(here) in Path(f"model/{name}").read_text() for name in ("README.md", "config.json", "data.json"))
    for folder in ("../r", "../pics"):
        if folder == "../r":
            os.rename(folder, "../gone")
    assert classes("model") <= set("abc")
    assert main(["sample", "model", "-n", "2", "--label", "c", "--out", "s.npz"]) == 0
    assert main(["apply", "detect", "model", "--input", "../pics/a/000.png", "--out", "d.json"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "model", "--metrics", "accuracy"]) == 2 and "--data PATH" in capsys.readouterr().err
    assert main(["evaluate", "model", "--metrics", "accuracy", "--data", "../pics"]) == 0
    again = tw.save(tw.load("model"), "again")
    assert (again / "README.md").read_text() == card  # figures and names outlast a second export


def test_kept_energies_are_those_of_held_out_examples(here):
    m = tw.load("../r")
    x = tw.data.load("../pics", "validation").all().x
    assert torch.allclose(torch.tensor(m.trained_on["held_out"]), m.energy(x), rtol=1e-4)


def test_a_model_of_ones_own_tensors_is_not_measured_on_the_presets_data(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    digits = tw.data.load("digits")
    mine = tw.data.Images(-digits.all().x, (digits.all().label + 5) % 10, tuple("klmnopqrst"), name="mine")
    for fields in ({"data": mine}, {}):  # told of the data, or not
        fit = tw.fit(tw.method("egc/digits", images=32, **FIELDS, **fields), mine, "mine", progress=False)
        assert fit.trained_on["name"] == "mine"
    before = sorted(os.listdir("mine"))
    assert main(["evaluate", "mine", "--metrics", "accuracy,ood", "-n", "50"]) == 2
    assert "was trained on 'mine', which only you have; say where they are: --data PATH" in capsys.readouterr().err
    assert sorted(os.listdir("mine")) == before
    pictures(tmp_path / "some", digits.all().x[:3], None)
    assert main(["apply", "detect", "mine", "--input", "some", "--out", "d.json"]) == 2 and "--data PATH" in capsys.readouterr().err
    assert main(["sample", "mine", "-n", "2", "--label", "k", "--out", "s.npz"]) == 0
    subject = metrics.Subject(tw.load("mine"), metrics.Settings(n=10))
    with pytest.raises(tw.InputError, match="which only you have"):
        metrics.measure(subject, ("ood",))
    assert set(metrics.measure(subject, ("ood", "cost"))["ood"]) == {"refused"}


def test_a_model_of_ones_own_tensors_is_measured_on_what_is_given(tmp_path):
    digits = tw.data.load("digits").all()
    names = [*"klmnopqrst"]
    mine = tw.data.of((digits.x, [names[i] for i in digits.label]))
    model = tw.fit(tw.method("egc/digits", images=32, **FIELDS, data=mine), mine, tmp_path / "mine", progress=False)
    held_out = digits.x[:300], digits.label[:300]
    few = digits.label[:300] > 6  # which alone would be the classes 0, 1 and 2
    assert metrics.data_kind(model, {"test": held_out}) == "images"
    for x, y in (held_out, (held_out[0], [names[i] for i in held_out[1]]), (held_out[0][few], [names[i] for i in held_out[1][few]])):
        subject = metrics.Subject(model, metrics.Settings(n=10), data={"train": mine, "test": (x, y)})
        found = metrics.measure(subject, ("accuracy", "ood"))
        truth = digits.label[:300][few] if len(x) < 300 else digits.label[:300]
        assert found["accuracy"]["value"] == float((model.classify(x).argmax(1) == truth).double().mean())
        assert found["ood"]["energy"]["uniform"]["inliers"] == len(x)
    with pytest.raises(tw.InputError, match=r"the data given have the splits test, needed is 'train' too: data=\{'train': …\}"):
        metrics.measure(metrics.Subject(model, metrics.Settings(n=10), data={"test": held_out}), ("neighbours",))
    with pytest.raises(tw.InputError, match=r"test has examples of shape \(1, 4, 4\), the model is of \(1, 8, 8\)"):
        metrics.measure(metrics.Subject(model, metrics.Settings(n=10), data={"test": held_out[0][..., :4, :4]}), ("ood",))


def test_a_run_in_python_keeps_held_out_energies_where_its_data_have_a_split(here, capsys):
    data = tw.data.load("../pics")
    for name, given in (("loaded", data), ("named", "../pics"), ("own", data.x)):
        model = tw.fit(tw.method("egc/digits", images=32, **FIELDS, data=data), given, name, progress=False) if name != "own" else None
        if model is None:
            tw.fit(tw.method("short_run/pictures", images=32, batch=16, buffer=16, data=given), given, name, progress=False)
    x = tw.data.load("../pics", "validation").all().x
    os.rename("../pics", "../gone")
    for name in ("loaded", "named"):
        m = tw.load(name)
        assert torch.allclose(torch.tensor(m.trained_on["held_out"]), m.energy(x), rtol=1e-4) and not Path(name, "best.pt").exists()
        assert main(["apply", "detect", name, "--input", "../gone/a/000.png", "--out", "d.json"]) == 0
    assert tw.load("own").trained_on["held_out"] is None


def test_digits_by_any_function_are_digits(tmp_path):
    data = tw.data.digits("train")  # which says nothing of a name
    tw.fit(tw.method("egc/digits", images=32, **FIELDS), data, tmp_path / "r", progress=False)
    assert main(["evaluate", str(tmp_path / "r"), "--metrics", "accuracy", "-n", "20"]) == 0


# --- what evaluate keeps


def test_one_metric_that_refuses_leaves_the_others(here, capsys):
    assert main(["evaluate", "../r", "-n", "30"]) == 0
    said, found = capsys.readouterr().out, read("../r/metrics.json")
    assert "test accuracy" in said and "neighbours" in said and (here / "r" / "report.html").exists()
    assert "refused" in found["neighbours"] and found["accuracy"]["n"] == 15
    assert main(["evaluate", "../r", "--metrics", "neighbours", "-n", "30"]) == 2  # nothing was measured


def test_an_evaluation_that_was_cut_off_draws_the_rest_only(tmp_path, monkeypatch):
    """Samples lie in the run's folder until they are measured, all of them, if they are more than there are held-out images."""
    asked, sample, cut = [], EGC.sample, True

    def cut_off(self, n, **options):
        asked.append(n)
        if cut and len(asked) == 3:
            raise KeyboardInterrupt
        return sample(self, n, **options)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("THALWEG_CACHE", str(tmp_path / "cache"))
    module = sys.modules["thalweg.evaluate.extractor"]
    monkeypatch.setattr(module, "train_extractor", lambda x, label, name, **_: module.Extractor((1, 8, 8), 10, name=name))
    assert main(["train", "egc/digits", "--out", "r", "--images", "32", *FAST]) == 0
    monkeypatch.setattr(EGC, "sample", cut_off)
    monkeypatch.setattr("thalweg.drawing.NUMBERS", 64 * 100)
    words = ["evaluate", "r", "--metrics", "fidelity", "-n", "450", "--device", "cpu"]
    assert main(words) == 130
    assert asked == [100] * 3 and len(list(Path("r/drawn").rglob("shard-*"))) == 2
    assert main(["evaluate", "r", "--metrics", "fidelity", "--extractor", "inception", "--weights", "none.pth"]) == 2
    assert asked == [100] * 3 and len(list(Path("r/drawn").rglob("shard-*"))) == 2  # refused before a draw; what is there stays
    cut = False
    assert main([*words, "--out", "o.json"]) == 0
    assert asked[3:] == [100] * 2 + [50] + [100] * 4 + [50], "of 450 samples the rest, then as many by label"
    assert not Path("r/drawn").exists()
    found = read("o.json")["r"]["fidelity"]
    for kind in ("samples", "guided samples"):
        assert (found[kind]["n"], found[f"all {kind}"]["n"]) == (359, 450)
        assert found[kind]["frechet"]["held_out"] is not None and found[f"all {kind}"]["frechet"]["held_out"] is None
    page = Path("r/report.html").read_text()
    assert "all samples" in page and "450 samples" in page


def test_a_metric_that_breaks_leaves_the_others(here, capsys, monkeypatch):
    def broken(subject):
        raise RuntimeError("out of luck")

    monkeypatch.setitem(metrics.METRICS, "ood", metrics.METRICS["ood"]._replace(measure=broken))
    assert main(["evaluate", "../r", "--metrics", "accuracy,ood", "-n", "30"]) == 0
    said = capsys.readouterr()
    assert "test accuracy" in said.out and "RuntimeError: out of luck" in said.out and "Traceback" not in said.err


def test_a_partial_evaluation_keeps_what_was_measured_before(here, capsys, monkeypatch):
    assert main(["evaluate", "../r", "--metrics", "accuracy,calibration", "-n", "30"]) == 0
    assert main(["evaluate", "../r", "--metrics", "cost", "-n", "20"]) == 0
    found = read("../r/metrics.json")
    assert {"accuracy", "calibration", "cost"} <= set(found) and found["measured"]["accuracy"]["settings"]["n"] == 30
    page = (here / "r" / "report.html").read_text()
    assert "test accuracy" in page and "Reliability" in page and "seconds a sample" in page
    monkeypatch.chdir(here)
    assert main(["train", "egc/digits", "--data", "pics", "--out", "r", "--images", "128", *FAST]) == 0
    assert main(["evaluate", "r", "--metrics", "cost", "-n", "20"]) == 0
    assert "accuracy" not in read("r/metrics.json")  # it was of another state


def test_a_refusal_takes_the_place_of_no_figure():
    before = {"state": 1, "accuracy": {"value": 0.5}, "ood": {"refused": "a"}, "measured": {"accuracy": {"n": 1}, "ood": {"n": 1}}}
    now = {"state": 1, "accuracy": {"refused": "b"}, "ood": {"refused": "c"}, "measured": {"accuracy": {"n": 2}, "ood": {"n": 2}}}
    found = metrics.merged(before, now)
    assert found["accuracy"] == {"value": 0.5} and found["ood"] == {"refused": "c"}
    assert found["measured"] == {"accuracy": {"n": 1}, "ood": {"n": 2}}


def test_one_model_that_cannot_be_loaded_leaves_the_others(here, capsys):
    assert main(["evaluate", "nothing", "../r", "--metrics", "accuracy", "-n", "20", "--out", "o.json"]) == 2
    said = capsys.readouterr()
    assert "test accuracy" in said.out and "there is no folder nothing" in said.err and list(read("o.json")) == ["../r"]


def test_a_cache_that_cannot_be_written_costs_no_figures(here, capsys, monkeypatch):
    (here / "file").touch()
    monkeypatch.setenv("THALWEG_CACHE", str(here / "file"))
    module = sys.modules["thalweg.evaluate.extractor"]
    monkeypatch.setattr(module, "train_extractor", lambda x, label, name, **_: module.Extractor((1, 8, 8), 3, name=name))
    assert main(["evaluate", "../r", "--metrics", "accuracy,fidelity", "-n", "24"]) == 0
    said = capsys.readouterr()
    assert "test accuracy" in said.out and "samples" in said.out and "going on without a cache" in said.err
    assert "fidelity" in read("../r/metrics.json")


def test_a_run_folder_that_cannot_be_written_costs_no_figures(here, capsys, monkeypatch):
    real = os.replace

    def fail(source, target):
        if "/r/" in str(target):
            raise OSError(30, "Read-only file system")
        real(source, target)

    monkeypatch.setattr(os, "replace", fail)
    assert main(["evaluate", "../r", "--metrics", "accuracy,calibration", "-n", "20"]) == 0
    said = capsys.readouterr()
    assert "test accuracy" in said.out and "calibration error" in said.out and "Traceback" not in said.err
    for name in ("reliability.png", "metrics.json", "report.html"):
        assert f"{name}: Read-only file system" in said.err or name == "report.html"
    assert "report.html" not in said.out  # there is none


def test_an_older_report_is_not_called_that_of_new_figures(here, capsys, monkeypatch):
    assert main(["evaluate", "../r", "--metrics", "accuracy", "-n", "20"]) == 0
    assert "pictures and table: ../r/report.html" in capsys.readouterr().out
    shutil.copytree("../pics", "../more")
    shutil.copytree("../pics/a", "../more/a", dirs_exist_ok=True, copy_function=lambda x, y: shutil.copy(x, f"{y[:-4]}x.png"))
    assert main(["evaluate", "../r", "--metrics", "accuracy", "--data", "../more"]) == 0
    said = capsys.readouterr()
    assert "these figures are not written into its folder" in said.err and "report.html" not in said.out
    real = os.replace
    monkeypatch.setattr(
        os, "replace", lambda source, to: (_ for _ in ()).throw(OSError(30, "Read-only")) if "/r/" in str(to) else real(source, to)
    )
    assert main(["evaluate", "../r", "--metrics", "accuracy", "-n", "20"]) == 0
    assert "test accuracy" in (said := capsys.readouterr()).out and "report.html" not in said.out


def test_a_model_without_labels_is_measured_by_what_it_can(here, tmp_path, capsys, monkeypatch):
    digits = tw.data.load("digits").all()
    pictures(tmp_path / "plain", digits.x[:200], None)
    monkeypatch.chdir(tmp_path)
    assert main(["train", "egc/digits", "--data", "plain", "--out", "u", "--images", "64", *FAST]) == 0
    assert main(["evaluate", "u", "-n", "40"]) == 0 and "ood" in read("u/metrics.json")
    assert main(["evaluate", "u", "--metrics", "ood", "-n", "40"]) == 0
    found = read("u/metrics.json")
    assert "joint" not in found["ood"] and found["ood"]["energy"]["uniform"]["inliers"] == 20 and "accuracy" not in found


# --- output


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_what_an_encoding_does_not_have_is_written_plainly(encoding, here, monkeypatch):
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert main(["evaluate", "../r", "--metrics", "accuracy,neighbours", "-n", "20"]) == 0
    assert main(["evaluate", "../r", "--n", "-3"]) == 2 and main(["apply", "detect", "missing-ärger-☃"]) == 2
    for stream in (out, err):
        stream.flush()
    assert b"test accuracy" in out.buffer.getvalue() and b"Traceback" not in err.buffer.getvalue() and err.buffer.getvalue()


def test_the_default_dtype_of_a_process_changes_no_command(here, monkeypatch):
    torch.set_default_dtype(torch.float64)
    try:
        assert main(["train", "egc/digits", "--data", "../pics", "--out", "wide", "--images", "64", *FAST]) == 0
        for model in ("../r", "wide"):
            assert main(["evaluate", model, "--metrics", "accuracy,ood,fidelity", "-n", "80"]) == 0
            assert main(["sample", model, "-n", "2", "--out", f"{Path(model).name}.npz"]) == 0
            assert main(["apply", "inpaint", model, "--input", "../pics/a/000.png", "--out", "i.npz"]) == 0
    finally:
        torch.set_default_dtype(torch.float32)
    found, right = tw.load("wide").state_dict(), tw.load("../r").state_dict()
    assert all(torch.equal(value, right[name]) for name, value in found.items())
