"""What `thalweg train` says at its end: how much of the preset's length was done, and the commands that go on from there."""

import pytest

from thalweg.commands.main import main
from thalweg.commands.train import Options, _next, _trained
from thalweg.methods import method


def test_a_short_training_is_called_one(tmp_path, capsys):
    out = tmp_path / "run"
    words = ["train", "short_run/moons", "--out", str(out), "--images", "512", "--width", "8", "--steps", "2", "--sample-steps", "2"]
    assert main([*words, "--sample-every", "100000"]) == 0
    said = capsys.readouterr().err.splitlines()
    line = next(line for line in said if line.startswith("trained: "))
    assert line.startswith(f"trained: {out}, 512 images in ") and line.endswith(
        "that the preset is made for: expect less of it than it can do"
    )
    assert said[-3:] == ["next:", f"  thalweg evaluate {out}", f"  thalweg sample {out} -n 64 --out samples.png"]
    assert _trained(Options("short_run/moons", out=out), 1000).endswith("s")  # half of it or more: nothing to excuse


@pytest.mark.parametrize("name, kind", [("short_run/vectors", "csv"), ("egc/digits", "png"), ("ssl/digits", None)])
def test_the_next_commands_are_those_that_the_model_can_do(name, kind, tmp_path):
    lines = _next(Options(name, out=tmp_path), method(name))
    assert lines[:2] == ["next:", f"  thalweg evaluate {tmp_path}"]
    assert lines[2:] == ([] if kind is None else [f"  thalweg sample {tmp_path} -n 64 --out samples.{kind}"])
