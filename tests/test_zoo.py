"""Each model of zoo/ loads, draws, is small, and gives the figure that is stored beside it."""

import json
from pathlib import Path

import pytest
import torch

import thalweg as tw

ZOO = Path(__file__).parents[1] / "zoo"
NAMES = sorted(folder.name for folder in ZOO.iterdir() if folder.is_dir())
MOST = 6 * 2**20  # bytes


def test_there_are_models():
    assert NAMES and all(f"`{name}`" in (ZOO / "README.md").read_text() for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_of_the_zoo_is_what_it_says(name):
    told = json.loads((ZOO / name / "zoo.json").read_text())
    assert {"command", "cpu_minutes", "images", "figures", "check"} <= told.keys() and (ZOO / name / "samples.png").exists()
    assert (ZOO / name / "model.safetensors").stat().st_size <= MOST
    model, check = tw.load(f"zoo:{name}"), told["check"]
    drawn = model.sample(2, seed=0, steps=4)
    assert drawn.shape == (2, *model.config.shape) and drawn.isfinite().all()
    x = tw.data.load(model.config.data, "test").all().x[: check["examples"]]
    with torch.no_grad():
        found = float(model.energy(x, **check["condition"]).mean())
    assert found == pytest.approx(check["mean_energy"], rel=1e-3, abs=0.5)
