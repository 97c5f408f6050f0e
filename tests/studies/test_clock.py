"""The check of the clock: that it sees when a command speaks, and two presets that do in time."""

import sys

import pytest

from studies.checks import clock


def test_one_toy_stands_for_all_and_no_preset_is_there_twice():
    names = clock.laptop()
    assert "short_run/moons" in names and "egc/digits" in names and not any(name.endswith("/toy") for name in names)
    assert len(names) == len(set(names)) > 40


@pytest.mark.parametrize("name", ["short_run/moons", "egc/digits"])
def test_a_training_speaks_at_once_and_of_its_length(name, tmp_path):
    row = clock.timed(clock.train_words(name), tmp_path, 240.0, enough=clock.DONE)
    assert not clock.late(row | {"silence_s": 0.0}) and row["first_cpu_s"] < clock.SOON and row["widest"] <= 110
    assert row["done_s"] is not None and f"{name.partition('/')[0]} on " in row["log"]


def test_a_silent_command_is_late(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    (tmp_path / "python").write_text("#!/bin/sh\necho first\nsleep 0.6\necho ' 50%  1 s'\nexec sleep 20\n")
    (tmp_path / "python").chmod(0o755)
    row = clock.timed(["train"], tmp_path, 15.0, enough=clock.DONE)
    assert row["done_s"] - row["first_s"] >= 0.5 and row["silence_s"] >= 0.5 and row["seconds"] < 15
    cut = clock.timed(["train"], tmp_path, 0.2)
    assert cut["done_s"] is None and cut["seconds"] < 5
    monkeypatch.setattr(clock, "SILENT", 0.3)
    assert clock.late(row) and not clock.late(row | {"refused": "no such data"})
