"""What the study of CoopFlow measures at a price, at tiny settings."""

import math

import pytest
import torch

import thalweg as tw
from studies import coopflow
from studies.coopflow import COOPFLOW, FLOW, LANGEVIN, STUDY, bits_of
from thalweg.chain import Langevin
from thalweg.nn.build import MLP
from thalweg.nn.initializers import Flow

SMALL = dict(
    net=MLP(width=8, depth=1), initializer=Flow(couplings=1, width=8, grey_values=17), chain=Langevin(steps=2, step=0.5, noise=0.0),
    batch=32,
)  # fmt: skip


class Judge:
    """Of samples' mean square instead of a classifier's features."""

    floor = 0.0

    def __init__(self, held_out):
        self.held_out = held_out

    @classmethod
    def of(cls, name, train, test, *, most):
        return cls(test.all().x[:most])

    def distance(self, model, seed, precision, **asked):
        return float(model.sample(4, seed=seed, **asked).square().mean())


@pytest.fixture
def options(tmp_path, monkeypatch):
    monkeypatch.setattr(coopflow, "Judge", Judge)
    monkeypatch.setattr(coopflow, "SAMPLES", 20)
    monkeypatch.setattr(coopflow, "DRAWN", 2)
    monkeypatch.setattr(coopflow, "ROUNDS", 1)
    return STUDY.parser().parse_args([f"--pictures={tmp_path}", "--seconds=0.5"])


@pytest.mark.parametrize("row", [COOPFLOW, FLOW, LANGEVIN])
def test_a_row_of_equal_price_is_trained_for_it_and_measured(row, options, monkeypatch):
    """Rates have fallen to their end, whatever the images of a second: those are the config's length."""
    given, asked = [], []
    fit = tw.fit
    monkeypatch.setattr(coopflow, "images_for", lambda trial, data, seconds, **k: asked.append(seconds) or 64)  # few, on any machine
    monkeypatch.setattr(tw, "fit", lambda model, *a, **k: given.append(model.config.images) or fit(model, *a, **k))
    monkeypatch.setitem(coopflow.PRICED, row, SMALL | {"initializer": "noise"} if row == LANGEVIN else SMALL | coopflow.PRICED[row])
    found = STUDY.parts["price"].one(row, 0, options)
    assert given == [found["images"]] == [64] and asked == [0.5]
    assert all(math.isfinite(found[key]) for key in ("frechet", "floor"))
    assert ("bits_per_dim" in found, "frechet_initializer" in found) == (row != LANGEVIN, row == COOPFLOW)


def test_bits_by_several_draws_are_fewer():
    """By Jensen's inequality, and equal for one draw."""
    model = tw.method("coopflow/digits", **SMALL)
    x = tw.data.load("digits", "test").all().x[:20]
    model.initializer.initialise(x, torch.full_like(x, 0.5))
    one, several = (bits_of(model, x, 0, draws) for draws in (1, 8))
    assert one["bits_per_dim"] == pytest.approx(one["bits_of_several"])
    assert several["bits_of_several"] < several["bits_per_dim"]


def test_what_energies_and_updates_cost(options, monkeypatch):
    monkeypatch.setitem(coopflow.NETWORKS, "MLP, 512", MLP(width=16, depth=2))
    found = STUDY.parts["networks"].one("MLP, 512", 0, options)
    assert found["multiplications"] == 64 * 16 + 16 * 16 + 16
    assert found["gradient_fp32s_a_second"] > found["update_fp32s_a_second"] > 0
    monkeypatch.setattr(coopflow, "spiral_settings", lambda row, options: ("coopflow/spiral", {"steps": 3}))
    found = STUDY.parts["cost"].one("T = 100", 0, options)
    assert found["hours"] == pytest.approx(found["update_seconds"] * 3125 / 3600) and found["updates"] == 3125
