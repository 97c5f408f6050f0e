"""The study of chains beyond their training: its rows, and that its MALA corrects the chain of training."""

import argparse

import pytest
import torch

import thalweg as tw
from studies import short_run
from studies.measures import Judge
from thalweg import random, sample


class Sums:
    """Features that need no training: means of quarters."""

    num_features, name, preprocessing = 4, "sums", "none"

    def features(self, images: torch.Tensor, *, batch: int = 1) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)


@pytest.fixture
def model():
    settings = dict(widths=(4, 8), start="noise", step=0.5, noise=0.2, steps=2)
    return tw.method("short_run/pictures", seed=0, **settings).eval().requires_grad_(False)


def test_rows_are_of_starts_of_longer_chains_and_of_corrected_ones(model, monkeypatch):
    x = random.uniform(60, 1, 8, 8, low=-1.0, high=1.0, generator=random.seeded(1))
    judge = Judge(x, x[:30], Sums())
    monkeypatch.setattr(Judge, "frechet", lambda self, x: float(x.mean()))
    found = short_run.rows(model, judge, argparse.Namespace(n=20, seed=0, times=[1, 3], corrected=4))
    assert [(row["what"], row["steps"]) for row in found] == [
        ("starts alone", 0), ("1 × the trained steps", 2), ("3 × the trained steps", 6), ("and MALA", 4)
    ]  # fmt: skip
    assert found[0]["within"] == 1.0 and 0 < found[-1]["acceptance"] <= 1
    assert len({row["energy"] for row in found}) == 4 and len({row["energy_held_out"] for row in found}) == 1


def test_the_correction_proposes_what_the_chain_moves_to(model):
    """On E/τ² with step s τ, the unadjusted step is the chain's own with step s and noise τ."""
    x, c = random.normal(3, 1, 8, 8, generator=random.seeded(2)), model.config.chain
    own = sample.langevin(model.energy, x, steps=1, step=c.step, noise=c.noise, generator=random.seeded(3))
    tempered = short_run.temper(model.energy, c.noise**2)
    torch.testing.assert_close(sample.langevin(tempered, x, steps=1, step=c.step * c.noise, generator=random.seeded(3)), own)
