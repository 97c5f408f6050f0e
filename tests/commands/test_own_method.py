"""A method in a file of one's own: trained, resumed, sampled, measured, exported, loaded; a run folder never says where its code is."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import thalweg as tw
from thalweg.commands.main import main
from thalweg.errors import InputError
from thalweg.methods import find

CODE = """
import torch
from pydantic.dataclasses import dataclass

from thalweg.config import STRICT, Common
from thalweg.energy import gaussian
from thalweg.methods.base import Method
from thalweg.nn.build import MLP, Network


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Config(Common):
    net: Network = MLP(width=8, depth=1)
    batch: int = 16
    images: int = 64


class Mine(Method):
    name = "mine"
    Config = Config

    def __init__(self, config):
        super().__init__(config)
        self.net = config.net.build(config.shape)

    @property
    def abilities(self):
        return frozenset({"sample", "energy"})

    def energy(self, x):
        return self.net(x) + gaussian(x, 2.0)

    def optimizers(self):
        return {"energy": torch.optim.Adam(self.net.parameters(), lr=self.config.lr)}

    def step(self, batch, update):
        update("energy", self.energy(batch.x).mean() + self.energy(batch.x).square().mean())

    def sample(self, n, *, seed=0):
        return tw_normal(n, self.config.shape, seed, self.device)


def tw_normal(n, shape, seed, device):
    from thalweg import random

    return random.normal(n, *shape, generator=random.seeded(seed, device=device), device=device)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    (folder / "my_method.py").write_text(CODE)
    return folder


@pytest.fixture(scope="module")
def run(home) -> Path:
    out = home / "run"
    assert main(["train", f"{home}/my_method.py:Mine", "--data", "moons", "--out", str(out), "--width", "12", "--lr", "0.01"]) == 0
    return out


def test_a_run_says_the_name_and_is_loaded_by_the_class(run, home):
    kind = find(f"{home}/my_method.py:Mine")
    assert json.loads((run / "config.json").read_text())["method"] == "mine"
    model = tw.load(run, kind=kind)
    assert type(model) is kind and tuple(model.config.shape) == (2,) and model.config.net.width == 12 and model.config.lr == 0.01
    folder = tw.save(model, home / "model")
    assert "kind=Mine" in (folder / "README.md").read_text()
    again = tw.load(folder, kind=kind)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters()))


def test_the_commands_take_the_class(run, home, capsys, monkeypatch):
    monkeypatch.chdir(home)
    own = ["--kind", "my_method.py:Mine"]
    assert main(["sample", "run", "--out", "a.npz", "-n", "5", *own]) == 0
    assert np.load("a.npz")["x"].shape == (5, 2)
    assert main(["evaluate", "run", "--metrics", "density,cost", "-n", "64", *own]) == 0
    assert "KL(truth‖model)" in capsys.readouterr().out and (run / "report.html").exists()
    assert main(["export", "run", "--out", "exported", *own]) == 0
    assert main(["apply", "inpaint", "run", "--input", "x.npz", "--out", "b.npz", *own]) == 2
    assert "inpaint is for models of images" in capsys.readouterr().err
    # resumed by the same command
    assert main(["train", "my_method.py:Mine", "--data", "moons", "--out", "run", "--width", "12", "--lr", "0.01"]) == 0
    said = capsys.readouterr().err
    assert "going on from 64" in said and "thalweg evaluate run --kind my_method.py:Mine" in said


def test_it_is_compared_with_others(run, home, capsys, monkeypatch):
    monkeypatch.chdir(home)
    small = ["--width", "8", "--steps", "1", "--sample-steps", "2", "--batch", "16", "--images", "32", "--buffer", "64"]
    assert main(["train", "short_run/moons", "--out", "other", *small]) == 0
    words = ["--compare", "run", "other", "--metrics", "cost", "-n", "16"]
    assert main(["evaluate", *words, "--kind", "my_method.py:Mine"]) == 0
    assert "parameters" in capsys.readouterr().out
    assert main(["evaluate", *words]) == 2
    assert "unknown method 'mine'" in capsys.readouterr().err


def test_without_the_class_it_is_said_what_to_do(run, home):
    with pytest.raises(InputError, match=r"unknown method 'mine'.*--kind FILE.py:CLASS, or kind=CLASS from Python") as caught:
        tw.load(run)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="holds a model of 'mine', not of 'short_run'"):
        tw.load(run, kind=find("short_run"))


def test_code_that_a_run_folder_names_is_not_executed(run, tmp_path):
    trap = tmp_path / "executed"
    (tmp_path / "evil.py").write_text(f"open({str(trap)!r}, 'w')\n")
    description = json.loads((run / "config.json").read_text()) | {"method": f"{tmp_path}/evil.py:Evil"}
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "config.json").write_text(json.dumps(description))
    with pytest.raises(InputError, match="unknown method"):
        tw.load(tmp_path / "folder")
    assert not trap.exists()


def test_data_must_be_named(home, capsys):
    assert main(["train", f"{home}/my_method.py:Mine", "--out", str(home / "none")]) == 2
    assert "says nothing of its data: give --data" in capsys.readouterr().err
    assert main(["train", f"{home}/my_method.py:Mien", "--out", str(home / "none")]) == 2
    assert "has no method 'Mien' (did you mean 'Mine'?)" in capsys.readouterr().err
    assert not (home / "none").exists() and "my_method" not in sys.modules
