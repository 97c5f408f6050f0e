"""What `thalweg train` says at its end: how much of the preset's length was done, and the commands that go on from there."""

import pytest

from thalweg.commands.main import main
from thalweg.commands.options import config_fields, parse
from thalweg.commands.train import Options, _next, _trained
from thalweg.methods import method, preset


def test_a_short_training_is_called_one(tmp_path, capsys):
    out = tmp_path / "run"
    words = ["train", "short_run/moons", "--out", str(out), "--images", "512", "--width", "8", "--steps", "2", "--sample-steps", "2"]
    assert main([*words, "--sample-every", "100000"]) == 0
    said = capsys.readouterr().err.splitlines()
    at = next(i for i, line in enumerate(said) if line.startswith("trained: "))
    assert said[at].startswith(f"trained: {out}, 512 images in ")
    assert said[at + 1] == "  0.1% of the 750,000 that the preset is made for: expect less than it can do"
    assert said[-3:] == ["next:", f"  thalweg evaluate {out}", f"  thalweg sample {out} -n 64 --out samples.png"]
    assert _trained(Options("short_run/moons", out=out), 1000)[1:] == [
        "  51% of the 1,000 that the preset is made for"
    ]  # nothing to excuse
    assert "measured of the preset: Fréchet" in _trained(Options("egc/digits", out=out), 400)[2]


@pytest.mark.parametrize("name, kind", [("short_run/vectors", "csv"), ("egc/digits", "png"), ("ssl/digits", None)])
def test_the_next_commands_are_those_that_the_model_can_do(name, kind, tmp_path):
    lines, more = _next(Options(name, out=tmp_path), method(name)), method(name).second_stage(str(tmp_path))
    assert lines[:2] == ["next:", f"  thalweg evaluate {tmp_path}"]
    assert lines[2:3] == ([f"  thalweg sample {tmp_path} -n 64 --out samples.{kind}"] if kind else [f"  {more}"])


@pytest.mark.parametrize("name", ["ssl/digits", "autoencoder/fashion-mnist"])
def test_a_first_stage_names_the_second(name, tmp_path):
    command = _next(Options(name, out=tmp_path), method(name))[-1].split()
    found, rest = parse(Options, command[2:], "train", rest=True)
    _, config = preset(found.preset)
    values = config_fields(config, rest, [])
    assert str(tmp_path) in values.values() and config.data == name.partition("/")[2]
