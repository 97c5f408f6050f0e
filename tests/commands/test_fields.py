"""`thalweg train METHOD/PRESET --help`: every field with its value and its meaning."""

import dataclasses

import pytest

from thalweg.commands.fields import described, meanings_of
from thalweg.commands.list import tables
from thalweg.commands.main import main
from thalweg.methods import METHODS, preset

FIRST = [f"{method}/{next(iter(tables()[method]))}" for method in METHODS]


@pytest.mark.parametrize("name", FIRST)
def test_every_field_of_every_part_has_a_meaning(name):
    config = preset(name)[1]
    rows = list(described(config))
    assert {row.name for row in rows if "." not in row.name} == {f.name.replace("_", "-") for f in dataclasses.fields(config)}
    assert all(row.meaning and row.value for row in rows), [row.name for row in rows if not row.meaning]


def test_a_preset_shows_its_own_values(capsys):
    assert main(["train", "egc/digits", "--help"]) == 0
    said = capsys.readouterr().out
    config = preset("egc/digits")[1]
    assert "usage: thalweg train egc/digits --out DIR" in said and "docs/methods/egc.md" in said
    lines = {line.split()[0]: line for line in said.splitlines() if line.startswith("  --")}
    assert f" {config.images:,} " in lines["--images"] and "; or mlp" in " ".join(said.split()) and "--net.width" in lines
    assert all(len(line) <= 100 for line in said.splitlines()[6:])


def test_without_a_preset_the_help_is_that_of_all(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert "--sample-every" in capsys.readouterr().out
    assert main(["train", "egc/digts", "--help"]) == 2 and "did you mean 'digits'" in capsys.readouterr().err


def test_meanings_are_those_below_the_fields_of_all_bases():
    found = meanings_of(type(preset("short_run/moons")[1]))
    assert found["ema"] == "decay of the EMA twin" and found["chain"]
