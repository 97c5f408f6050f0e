"""Searches for a generator's latent: the nearest of several draws, and descent on a generator whose answer is known."""

import torch

from thalweg import random
from thalweg.search import fit_latent, nearest_draw


def test_the_nearest_draw_is_chosen_row_by_row():
    draws = [random.normal(50, 3, generator=random.seeded(1, i)) for i in range(6)]
    target = random.normal(50, 3, generator=random.seeded(2))
    stream = iter(draws)
    found = nearest_draw(lambda: next(stream), lambda x: -(x - target).square().sum(1), 6)
    distance = torch.stack([(x - target).square().sum(1) for x in draws])
    torch.testing.assert_close((found - target).square().sum(1), distance.min(0).values)
    assert next(stream, None) is None and len(distance.argmin(0).unique()) > 1


def test_one_draw_is_taken_as_it_is_and_equals_keep_the_first():
    stream = iter([torch.zeros(2, 1), torch.ones(2, 1)])
    assert torch.equal(nearest_draw(lambda: next(stream), lambda x: torch.zeros(len(x)), 2), torch.zeros(2, 1))
    assert torch.equal(nearest_draw(lambda: torch.ones(2, 1), lambda x: x[:, 0], 1), torch.ones(2, 1))


def test_descent_finds_the_latent_of_a_linear_generator():
    """With half of x hidden the least squares of what is seen; no row is moved by another."""
    weight = random.normal(2, 6, generator=random.seeded(3))
    x, mask = random.normal(4, 6, generator=random.seeded(4)), torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0, 1.0])
    start = torch.zeros(4, 2)
    found = fit_latent(lambda z: z @ weight, start, x, mask, steps=2000, rate=0.02)
    seen = mask.bool()
    expected = torch.linalg.lstsq(weight[:, seen].T, x[:, seen].T).solution.T
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert not found.requires_grad and torch.equal(start, torch.zeros(4, 2))
    alone = fit_latent(lambda z: z @ weight, start[:1], x[:1], mask, steps=20, rate=0.02)
    torch.testing.assert_close(fit_latent(lambda z: z @ weight, start, x, mask, steps=20, rate=0.02)[:1], alone)
    assert torch.equal(fit_latent(lambda z: z @ weight, start, x, steps=0, rate=0.1), start)


def test_with_a_prior_the_latent_is_the_posterior_mean():
    """Of a linear generator and noise of variance w: (W Wᵀ + w)⁻¹ W x."""
    weight, x, w = random.normal(2, 6, generator=random.seeded(3)), random.normal(4, 6, generator=random.seeded(4)), 0.5
    found = fit_latent(lambda z: z @ weight, torch.zeros(4, 2), x, steps=2000, rate=0.02, prior=w)
    expected = torch.linalg.solve(weight @ weight.T + w * torch.eye(2), weight @ x.T).T
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    inside = fit_latent(lambda z: z @ weight, torch.zeros(4, 2), 9 * x, steps=50, rate=0.1, clamp=True)
    assert float(inside.abs().max()) == 1.0
