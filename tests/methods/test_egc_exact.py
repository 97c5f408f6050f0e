"""EGC on Gaussian data, whose best noise predictor and loss are known in closed form."""

import math

import pytest
import torch
from helpers import Gaussians

import thalweg as tw
from thalweg import random
from thalweg.nn.build import MLP

BOUND = 4.5


# --- EGC on N(0, I): the best ε̂ is σ_t x, the loss floor per dimension the mean of ᾱ_t² = 0.2755

FLOOR, DIM = 0.2755, 4


@pytest.fixture(scope="module")
def egc():
    """Trained from a base that is not the answer: data_std 0.5 where the data's is 1."""
    data = Gaussians([[0.0] * DIM], 1.0)
    fields = {"net": MLP(width=64, depth=2), "readout": "logits", "data_std": 0.5, "lr": 5e-3, "batch": 256, "ema": 0.99}
    method = tw.method("egc", seed=0, data=data, images=1200 * 256, weight_decay=0.0, **fields)
    untrained = egc_loss(method)
    return untrained, tw.fit(method, data, images=1200 * 256, progress=False), method


def egc_loss(method) -> tuple[float, float, float]:
    """(mean loss, its standard error, mean excess over ε̂ = σ_t x on the same draws) with each level equally often."""
    t = torch.arange(1, 1001).repeat(40)
    generator = random.seeded(5)
    x0, epsilon = (random.normal(len(t), DIM, generator=generator) for _ in range(2))
    with torch.no_grad():
        loss, _, _ = method.losses(x0, None, t, epsilon)
    x_t = method.schedule.diffuse(x0, t, epsilon)
    best = (method.schedule.sigma(t, x_t) * x_t - epsilon).square().mean(1)
    # levels are strata: the standard error is that of the spread within them
    within = loss.view(40, 1000).var(0).mean().item() / len(t)
    return loss.mean().item(), math.sqrt(within), (loss - best).mean().item()


def test_egc_reaches_the_closed_form_floor(egc):
    (untrained, _, _), ema, _ = egc
    loss, error, excess = egc_loss(ema)
    assert untrained > 1.1 * FLOOR, "the base alone must not be the answer"
    assert abs(loss - FLOOR) < 0.02 * FLOOR + BOUND * error
    assert -0.001 * FLOOR < excess < 0.02 * FLOOR, "draw by draw, at most 2 % above the best predictor"


@pytest.mark.parametrize("level", [200, 400, 700, 1000])
def test_egc_learns_the_line_of_the_score(egc, level):
    """σ_t·score = −σ_t x: the slope of a regression through the origin within 3 %, and the energy's curvature in nats."""
    _, ema, _ = egc
    x = random.normal(4000, DIM, generator=random.seeded(9))
    sigma = ema.schedule.noise[level]
    scaled = sigma * tw.score(ema.energy, x, t=level)
    line = -sigma * x
    slope = float((scaled * line).sum() / line.square().sum())
    assert slope == pytest.approx(1, abs=0.03)
    residual = (scaled - slope * line).square().mean() / line.square().mean()
    assert residual < 0.02, "and nothing else than the line"
    energy = ema.energy(x, t=level).detach()
    half = x.square().sum(1) / 2
    assert float(torch.cov(torch.stack([energy, half]))[0, 1] / half.var()) == pytest.approx(1, abs=0.04)


def test_egc_samples_have_the_data_s_moments(egc):
    _, ema, _ = egc
    x = ema.sample(4000, seed=3, steps=100).double()
    assert float(x.mean().abs()) < 0.05 + BOUND / math.sqrt(x.numel())
    assert float(x.var()) == pytest.approx(1, abs=0.05 + BOUND * math.sqrt(2 / x.numel()))
