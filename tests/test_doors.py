"""docs/doors.md block by block as it is written, and methods that packages offer."""

import re
from pathlib import Path

import pytest
import torch

import thalweg as tw
from thalweg.commands import main as thalweg
from thalweg.errors import InputError

BLOCKS = re.findall(r"^```python\n(.*?)^```$", (Path(__file__).parents[1] / "docs" / "doors.md").read_text(), re.S | re.M)
FILE = re.findall(r"^```python\n(.*?)^```$", (Path(__file__).parents[1] / "docs" / "add_a_method.md").read_text(), re.S | re.M)[0]


def test_every_block_runs_as_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    for number, block in enumerate(BLOCKS):
        exec(compile(block, f"doors.md, block {number + 1}", "exec"), scope)
    assert len(BLOCKS) >= 12
    # what the comments on the page say
    model, X = scope["model"], scope["X"]
    x = model.sample(256, seed=2)
    assert x.shape == (256, 3) and 500 < float(x[:, 2].mean()) < 1500 and 0 < float(x[:, 1].mean()) < 100
    assert model.energy(X[:5]).shape == (5,)
    assert scope["table"].columns == ("width", "weight", "price") and scope["table"].classes == ("high", "low")
    assert scope["energy"].config.shape == (1, 8, 12) and scope["energy"].sample(2).shape == (2, 1, 8, 12)
    assert (len(scope["loaded"]), scope["loaded"].classes) == (64, ("cat", "dog"))
    assert scope["classifier"].classify(X[:5]).exp().sum(1).allclose(torch.ones(5))
    assert scope["scores"]["typicality"].shape == (500,) and scope["right"].n == 2000 and len(scope["unusual"]) == 3
    assert scope["near"].distances.shape == (64, 1) and scope["likely"].shape == (64,)
    assert scope["mine"].sample(3, steps=2).shape == (3, 2) and scope["samples"].isfinite().all()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package with the method of docs/add_a_method.md, and entry points that name nothing of use."""
    (tmp_path / "their_ebm.py").write_text(FILE + "\nnumber = 3\n")
    info = tmp_path / "their_ebm-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-ebm\nVersion: 1.0\n")
    points = [
        "dsm = their_ebm:DSM",
        "another = their_ebm:DSM",
        "number = their_ebm:number",
        "gone = no_such_module:Method",
        "egc = their_ebm:DSM",
    ]
    (info / "entry_points.txt").write_text("[thalweg.methods]\n" + "\n".join(points) + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)


def test_a_packages_method_is_one_of_ours(package, capsys):
    """By name, without --kind, in Python and on the command line; a name of ours stays ours."""
    assert thalweg.main(["train", "dsm/moons", "--out", "run", "--images", "512", "--chain.steps", "5"]) == 0
    assert "--kind" not in capsys.readouterr().out
    assert thalweg.main(["sample", "run", "--out", "x.npz", "-n", "4", "--steps", "5"]) == 0
    assert type(tw.load("run")).__name__ == "DSM" and tw.method("dsm").config.data == "8gaussians"
    tw.save(tw.load("run"), "kept")
    assert "kind=" not in Path("kept/README.md").read_text() and tw.load("kept").name == "dsm"
    assert type(tw.method("egc/digits")).__name__ == "EGC"
    capsys.readouterr()
    assert thalweg.main(["list"]) == 0
    assert "From packages: " in (out := capsys.readouterr().out) and "dsm (their_ebm:DSM)" in out


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("another", "the entry point another = their_ebm:DSM is no method named 'another'"),
        ("number", "the entry point number = their_ebm:number is no method named 'number'"),
        ("gone", "the method gone cannot be imported: ModuleNotFoundError"),
        ("dsn", "unknown method 'dsn' (did you mean 'dsm'?)"),
    ],
)
def test_entry_points_that_are_no_methods(package, name, message):
    with pytest.raises(InputError, match=re.escape(message)):
        tw.method(name)
