"""The table of tasks: what it says is there, and the command knows nothing else of them."""

import dataclasses
import importlib

import pytest

from thalweg.commands import apply
from thalweg.commands.main import main
from thalweg.errors import InputError
from thalweg.methods.base import ABILITIES
from thalweg.tasks import TASKS


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_whole(name):
    task = TASKS[name]
    module, function = task.function.split(":")
    assert callable(getattr(importlib.import_module(f"thalweg.tasks.{module}"), function))
    assert set(task.needs) | set(task.instead.values()) <= set(ABILITIES) and task.needs
    assert set(task.writes) <= {".json", ".png", ".npz", ".gif"} and task.reads in ("images", "views", "")
    assert set(task.instead) <= {f.name for f in dataclasses.fields(task.options)}
    assert all(f.default is not dataclasses.MISSING for f in dataclasses.fields(task.options))


def test_the_ability_that_is_needed_follows_the_options():
    restore, inpaint = TASKS["restore"], TASKS["inpaint"]
    assert restore.needed(restore.options()) == ("constraint",) and restore.needed(restore.options(latent=True)) == ("restore_latent",)
    assert inpaint.needed(inpaint.options(search=5)) == ("reconstruct",)


def test_help_names_every_task_and_its_options(capsys):
    assert main(["apply", "--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"\n  {name} " in said for name in TASKS)
    for name, task in TASKS.items():
        with pytest.raises(SystemExit) as stop:
            main(["apply", name, "--help"])
        assert not stop.value.code
        said = capsys.readouterr().out
        for field in dataclasses.fields(task.options):
            assert f"--{field.name.replace('_', '-')}" in said
        others = {f.name for t in TASKS.values() for f in dataclasses.fields(t.options)} - {
            f.name for f in dataclasses.fields(task.options)
        }
        assert not [other for other in others if f"--{other.replace('_', '-')} " in said]


def test_options_may_stand_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in ("inpaint model --out a.png --input x --completions 2", "--out a.png --completions 2 inpaint --input x model"):
        name, options = apply.read_options(words.split())
        assert name == "inpaint" and options.model == "model" and options.completions == 2 and options.mask == "centre:0.25"
    _, options = apply.read_options(["turntable", "model", "--out", "a.gif"])
    assert options.frames == 36
    with pytest.raises(InputError, match=r"--out a\.gif: the name must end in \.png or \.npz"):
        apply.read_options(["recombine", "model", "--out", "a.gif"])
