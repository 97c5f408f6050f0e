"""The study of chains: its rows beyond training, that its MALA corrects the chain of training, and its trainings by starts and steps."""

import argparse
from types import SimpleNamespace

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


def test_a_training_by_its_start_and_step(monkeypatch, tmp_path):
    """At tiny settings, on images that need no features: as many of them as the price allows, figures of the chains, a picture."""
    words = ["starts", "--data", "digits", "--preset", "pictures", "--seconds", "60", "--pictures", str(tmp_path)]
    options = short_run.STUDY.parser().parse_args(words)
    small = dict(widths=(4, 8), batch=8, buffer=16, steps=2)
    own = short_run.starts_settings
    monkeypatch.setattr(short_run, "starts_settings", lambda row, options: (own(row, options)[0], own(row, options)[1] | small))
    monkeypatch.setattr(short_run, "images_for", lambda trial, data, seconds, precision: 64)
    judge = SimpleNamespace(
        floor=1.0, held_out=tw.data.load("digits", "test").all().x[:20], frechet=lambda x: float(x.mean()), distance=lambda *_, **asked: 2.0
    )
    monkeypatch.setattr(short_run.Judge, "of", lambda *_, **asked: judge)
    row = short_run.starts_one("uniform noise, in units of the gradient", 0, options)
    assert row["images"] == 64 and len(row["along"]) == 4 and row["frechet"] == 2.0
    assert row["step"] > 0 and 0 < row["displacement"] < 1 and row["roughness"] > 0 and abs(row["starts"]) < 0.3
    assert len(list(tmp_path.glob("short_run_digits_*.png"))) == 1
    line = short_run.starts_line("x", [row], [{**row, "row": "x", "seed": 0}])
    assert line["step"] == row["step"] and line["difference"] is None
