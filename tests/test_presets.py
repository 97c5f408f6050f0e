"""Every preset can be listed, built, trained for a step and sampled from, at its own shape and network."""

import math
from dataclasses import dataclass

import pytest
import torch

import thalweg as tw
from thalweg import camera, random, told
from thalweg.config import all_fields
from thalweg.data import Batch, UnpairedBatch, ViewBatch
from thalweg.errors import InputError
from thalweg.methods import METHODS, find, preset, presets_of

PRESETS = [(name, key) for name in METHODS for key in presets_of(find(name))]
SHORTENED = ("steps", "sample_steps", "prior_steps", "posterior_steps", "samples", "rays", "calibration")
LARGE = 5_000_000  # parameters from which a preset is only built, not run
FEW = 3  # classes are no more than that


@dataclass(frozen=True)
class Noise:
    """An endless stream in a preset's shape."""

    shape: tuple[int, ...]
    classes: tuple[str, ...]
    name: str = "noise"
    domains: bool = False  # with images of a source domain
    views: int = 0  # of each object, with cameras

    def batch(self, start: int, count: int, seed: int) -> Batch:
        generator = random.seeded(seed, start)
        label = random.integers(count, 0, len(self.classes), generator=generator) if self.classes else None
        x, source = (random.uniform(count, *self.shape, low=-1.0, high=1.0, generator=generator) for _ in range(2))
        if self.views:
            view = camera.orbit(*(camera.unit_vector(torch.rand(count)) for _ in range(2)), distance=4.0, focal=2.0)
            return ViewBatch(x, None, view, torch.arange(count) // self.views, row=torch.arange(start, start + count))
        return UnpairedBatch(x, label, source) if self.domains else Batch(x, label)


@pytest.mark.parametrize(("name", "key"), PRESETS, ids=["/".join(p) for p in PRESETS])
def test_a_preset_trains_a_step_and_samples(name, key, monkeypatch):
    monkeypatch.setattr(told, "EXAMPLES", 64)
    kind, config = preset(f"{name}/{key}")
    # zuko's flows of vectors look at their masks when they are built
    with torch.device("meta" if len(config.shape) == 3 else "cpu"):
        size = sum(p.numel() for p in kind(config).parameters())
    if size > LARGE:
        assert math.isfinite(size) and config.images > 1_000_000  # a recipe of a paper, for larger machines
        return
    batch = max(4, *getattr(config, "stage_splits", (1,)))
    short = {"batch": batch, "images": 2 * batch} | {k: 2 for k in all_fields(config) if k.rpartition(".")[2] in SHORTENED}
    short |= {k: False for k in all_fields(config) if k.rpartition(".")[2] == "compile"}  # the compiler takes longer than the test
    if config.classes > FEW:
        short["classes"] = FEW  # each costs a density whose log Z is found
    method = tw.method(f"{name}/{key}", **short)
    before = [p.clone() for p in method.parameters()]
    views = config.views if "views" in method.abilities else 0
    noise = Noise(config.shape, tuple(map(str, range(method.config.classes))), domains="translate" in method.abilities, views=views)
    twin = tw.fit(method, noise, images=2 * batch, progress=False)
    assert any(not torch.equal(a, b) for a, b in zip(before, method.parameters()))
    if "sample" not in twin.abilities:
        with pytest.raises(InputError, match="no samples"):
            twin.sample(2)
        return
    x = twin.sample(2, seed=0, **({"start": torch.zeros(2, *config.shape)} if "given" in twin.abilities else {}))
    assert x.shape == (2, *config.shape) and x.isfinite().all()
