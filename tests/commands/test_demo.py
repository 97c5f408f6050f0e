"""`thalweg demo` and `thalweg zoo`: pages and lists of models that are there, and what is said where there are none."""

import json

import pytest

import thalweg as tw
from thalweg.commands import zoo
from thalweg.commands.main import main
from thalweg.commands.zoo import figures, models, told


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small") / "model"
    model = tw.method("dual/digits", conditional=True, calibration=100, sample_steps=4, net={"kind": "mlp", "width": 16, "depth": 1})
    return tw.save(model.eval(), folder)


def test_a_page_shows_what_a_model_can_do(small, tmp_path, capsys):
    out = tmp_path / "demo"
    assert main(["demo", str(small), "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert f"page: {out / 'index.html'}" in said.out
    for what in ("loaded", "Samples by label", "Hidden halves filled in", "taken off", "What is no such picture"):
        assert what in said.err
    page = (out / "index.html").read_text()
    assert page.count("data:image/png") == 4 and "thalweg sample" in page and "What is no such picture is flagged" in page
    assert "dual: one energy of all noise levels" in page and "learned from" in page and "thalweg app" in page


def test_what_a_model_cannot_do_is_left_out(tmp_path, capsys):
    folder = tw.save(tw.method("wgan_gp/digits").eval(), tmp_path / "gan")
    assert main(["demo", str(folder), "--out", str(tmp_path / "demo")]) == 0
    assert (tmp_path / "demo" / "index.html").read_text().count("data:image/png") == 1


def test_a_model_of_vectors_and_one_that_is_not_there_are_refused(tmp_path, capsys):
    folder = tw.save(tw.method("short_run/moons").eval(), tmp_path / "moons")
    assert main(["demo", str(folder), "--out", str(tmp_path / "demo")]) == 2
    assert "demo is for models of images" in capsys.readouterr().err and not (tmp_path / "demo").exists()
    assert main(["demo", str(tmp_path / "nowhere")]) == 2


def test_the_zoo_is_listed(capsys):
    assert main(["zoo"]) == 0
    said = capsys.readouterr().out
    assert models() and all(f"{name}: " in said for name in models()) and "Fréchet" in said
    assert main(["zoo", "x"]) == 2


def test_without_a_clone_the_zoo_and_the_demo_say_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(zoo, "models", lambda: [])
    assert main(["zoo"]) == 2 and "a clone of the repository has some" in capsys.readouterr().err
    assert main(["demo"]) == 2 and "name a run" in capsys.readouterr().err


def test_a_model_is_told_by_its_files(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"0" * 2**20)
    (folder / "config.json").write_text(json.dumps({"method": "dual", "config": {"data": "digits", "shape": [1, 8, 8]}}))
    found = {"samples": {"free": {"frechet": 5.0, "floor": 2.0, "n": 1000}}, "bits": 3.0345, "noise_error": {"1": 0.1}}
    about = {"command": "thalweg train dual/digits", "images": 1000, "cpu_minutes": 3, "figures": found}
    (folder / "zoo.json").write_text(json.dumps(about))
    assert models(tmp_path) == ["mine"]
    assert told("mine", tmp_path) == [
        "mine: dual of digits, 1×8×8, 1.0 MiB",
        "  1,000 images in 3 CPU minutes: thalweg train dual/digits",
        "  samples, free: Fréchet 5.00 (real images 2.00, n = 1,000)",
        "  bits a dimension: 3.03",
    ]
    assert figures({}) == {}
