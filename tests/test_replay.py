"""Where new chains begin: a mixture of Gaussians that is fitted to the data; and the methods that begin there."""

import pytest
import torch
from helpers import Recorder

import thalweg as tw
from thalweg import random
from thalweg.data.base import Batch
from thalweg.errors import InputError
from thalweg.replay import DataMixture

METHODS = {
    "short_run": dict(widths=(4, 8), batch=16, buffer=64, steps=1),
    "jem": dict(width=8, blocks=1, batch=16, buffer=64, steps=1),
}


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return random.normal(*shape, generator=random.seeded(seed))


def test_draws_have_the_mean_and_covariance_of_the_data():
    mix = torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.8, -0.3]])
    data = normal(20_000, 2) @ mix + torch.tensor([0.3, -1.0, 2.0])
    law = DataMixture((3,), parts=1, rank=2)
    noise = normal(20_000, 3, seed=1)
    assert torch.equal(law(noise), noise), "before it is fitted"
    law.fit(data)
    x = law(noise)
    torch.testing.assert_close(x.mean(0), data.mean(0), atol=0.04, rtol=0)
    torch.testing.assert_close(x.T.cov(), data.T.cov(), atol=0.05, rtol=0)
    other = DataMixture((3,), parts=1, rank=2)
    other.load_state_dict(law.state_dict())
    assert torch.equal(other(noise), x)


def test_a_low_rank_keeps_the_widest_directions():
    data = normal(2000, 4) * torch.tensor([0.05, 1.0, 0.01, 2.0])
    law = DataMixture((4,), parts=1, rank=2)
    law.fit(data)
    spread = law(normal(2000, 4, seed=1)).std(0)
    assert float((spread[[1, 3]] / data.std(0)[[1, 3]] - 1).abs().max()) < 0.06 and float(spread[[0, 2]].max()) < 0.01
    law.fit(data[:2])  # fewer examples than directions
    assert law(normal(5, 4)).isfinite().all()


def test_each_cluster_has_its_share_mean_and_spread():
    means, stds, shares = torch.tensor([[-3.0, 0.0], [3.0, 0.0], [0.0, 4.0]]), torch.tensor([0.2, 0.5, 1.0]), torch.tensor([0.5, 0.2, 0.3])
    which = torch.repeat_interleave(torch.arange(3), (4000 * shares).int())
    data = means[which] + stds[which, None] * normal(4000, 2)
    law = DataMixture((2,), parts=8, rank=2)
    law.fit(data)
    x = law(normal(20_000, 2, seed=1))
    for k in range(3):
        real, own = (y[torch.cdist(y, means).argmin(1) == k] for y in (data, x))
        assert len(own) / 20_000 == pytest.approx(len(real) / 4000, abs=0.01)
        torch.testing.assert_close(own.mean(0), real.mean(0), atol=0.05, rtol=0)
        torch.testing.assert_close(own.std(0), real.std(0), atol=0, rtol=0.1)


def test_images_are_kept_within_their_range():
    law = DataMixture((1, 4, 4))
    law.fit(normal(100, 1, 4, 4).sign())
    x = law(normal(50, 1, 4, 4, seed=1))
    assert x.shape == (50, 1, 4, 4) and float(x.abs().max()) == 1.0


@pytest.mark.parametrize("name", METHODS)
def test_chains_begin_at_blurred_data(name):
    preset = {"short_run": "short_run/pictures", "jem": "jem/digits"}[name]
    method = tw.method(preset, seed=0, start_law="mixture", **METHODS[name])
    x = tw.data.load("digits").batch(0, 1000, 0).x
    update = tw.update(method)
    update.step(Batch(x[:16], torch.arange(16) % 10))
    chains = update.ema.replay.chains  # which no chain has moved
    assert chains.shape == (64, 1, 8, 8) and float(chains.abs().max()) == 1.0 and float((chains.mean(0) - x[:16].mean(0)).abs().max()) < 0.3
    method.prepare(x)
    begun = method._fresh(500, random.seeded(3))
    torch.testing.assert_close(begun.mean(0), x.mean(0), atol=0.2, rtol=0)
    plain = tw.method(preset, seed=0, **METHODS[name])
    plain.prepare(x)
    assert float((plain._fresh(500, random.seeded(3)).mean(0) - x.mean(0)).abs().max()) > 0.5, "uniform noise knows nothing of the data"


@pytest.mark.parametrize("name", METHODS)
def test_steps_in_units_of_the_gradient_are_the_same_for_flat_and_steep_energies(name):
    """A chain of one step moves by 0.1; then its s is that of the mean gradient, and its noise what it was."""
    preset = {"short_run": "short_run/pictures", "jem": "jem/digits"}[name]
    fields = METHODS[name] | {"chain.step": 0.5, "chain.noise": 0.0, "move": 0.1}
    for scale in (1e-5, 1.0, 1e4):
        method, update = tw.method(preset, seed=0, **fields), Recorder(5)
        method.energy = lambda x, scale=scale, **condition: scale * x.flatten(1).sum(1)
        assert method.gradient_step.of(0.5, 0.4) == {"step": 0.5, "noise": 0.4}, "before the first gradients"
        method.step(tw.data.load("digits").batch(0, 16, 0), update)
        torch.testing.assert_close(update.logged["displacement"], torch.full((16,), 0.1), rtol=1e-4, atol=0)
        found = method.gradient_step.of(0.5, 0.4)
        assert found["step"] == pytest.approx((2 * 0.1 / scale) ** 0.5) and found["step"] * found["noise"] == pytest.approx(0.2)
    method.gradient_step.follow(torch.full((4, 2), 3e4), update)  # of mean square 9 times as large
    assert method.gradient_step.of(0.5, 0.4)["step"] == pytest.approx((2 * 0.1 / (scale * 1.8**0.5)) ** 0.5, rel=1e-5)


def test_new_chains_may_begin_at_normal_noise():
    method = tw.method("short_run/pictures", seed=0, start_law="normal", start_range=0.3, **METHODS["short_run"])
    x = method._fresh(500, random.seeded(3))
    assert float(x.std()) == pytest.approx(0.3, rel=0.03) and float(x.abs().max()) > 0.9
    with pytest.raises(InputError, match="move needs a chain of kind 'langevin'"):
        tw.method("short_run/toy", move=0.1)


def test_a_reference_has_starts_of_its_own():
    with pytest.raises(InputError, match="with a reference new chains begin at its draws"):
        tw.method("short_run/latent", start_law="mixture")
