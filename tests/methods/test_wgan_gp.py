"""WGAN-GP: the penalty's value and gradient, the distance that a critic of known optimum finds, the order of updates, a trained toy."""

import math

import pytest
import torch
from helpers import Gaussians
from torch import nn

import thalweg as tw
from thalweg import random
from thalweg.data.base import Batch
from thalweg.errors import InputError
from thalweg.metrics import METRICS


def model(d: int = 2, **fields):
    small = {"critic.width": 32, "critic.depth": 2, "generator.width": 32, "generator.latent_dim": d}
    return tw.method("wgan_gp/vectors", shape=(d,), **small | fields)


class Linear(nn.Module):
    """f(x) = ⟨w, x⟩."""

    def __init__(self, w: list[float]) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w))

    def forward(self, x):
        return x @ self.w


def test_the_penalty_of_a_linear_critic_and_its_gradient():
    """(‖w‖ − 1)², with gradient 2 (‖w‖ − 1) w/‖w‖, wherever it is asked for."""
    method, w = model(), [1.5, -2.0]
    method.critic = Linear(w)
    x, y = (random.normal(7, 2, generator=random.seeded(i)) for i in range(2))
    distance, penalty = method.critic_losses(x, y, torch.rand(7))
    assert torch.allclose(penalty, torch.full((7,), (2.5 - 1) ** 2)) and torch.allclose(distance, (x - y) @ torch.tensor(w), atol=1e-5)
    (gradient,) = torch.autograd.grad(penalty.mean(), method.critic.w)
    assert torch.allclose(gradient, 2 * 1.5 * torch.tensor(w) / 2.5, atol=1e-5)


def test_the_penalty_is_taken_between_the_two():
    """Of f = ‖x‖²/2 the slope is x itself: at x for share 1, at x̃ for share 0, in the middle for one half."""
    method = model()
    method.critic = type("Square", (nn.Module,), {"forward": lambda self, x: 0.5 * x.square().sum(1)})()
    x, y = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 4.0]])
    for share, norm in ((1.0, 3.0), (0.0, 4.0), (0.5, 2.5)):
        assert float(method.critic_losses(x, y, torch.tensor([share]))[1].detach()) == pytest.approx((norm - 1) ** 2, rel=1e-5)


@pytest.mark.parametrize("shape", [(3,), (1, 8, 8)])
def test_the_penalty_and_its_gradient_are_those_of_autograd_of_each_row(shape):
    method = model(3) if len(shape) == 1 else tw.method("wgan_gp/digits", **{"critic.widths": (8, 8), "generator.width": 8})
    x, y = (random.normal(4, *shape, generator=random.seeded(i)) for i in range(2))
    share, weights = torch.tensor([0.1, 0.5, 0.8, 1.0]), list(method.critic.parameters())
    _, penalty = method.critic_losses(x, y, share)
    rows = []
    for i in range(4):
        point = (share[i] * x[i] + (1 - share[i]) * y[i]).requires_grad_(True)
        (slope,) = torch.autograd.grad(method.critic(point[None])[0], point, create_graph=True)
        rows.append((slope.square().sum().sqrt() - 1).square())
    assert torch.allclose(penalty, torch.stack(rows), rtol=1e-4, atol=1e-6)
    ours, theirs = (torch.autograd.grad(p.sum(), weights, allow_unused=True) for p in (penalty, torch.stack(rows)))
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in zip(ours, theirs) if a is not None) and ours[0] is not None


def test_the_critic_finds_the_distance_of_shifted_laws():
    """Between N(0, 1) and N(3, 1): the best slope is 1 + (F̃ − F)/(2λ p̂), F the laws' shares below t and p̂ the density of x̂."""
    t, u = torch.linspace(-8, 11, 2001), torch.linspace(0.001, 0.999, 500)
    std = (u.square() + (1 - u).square()).sqrt()
    between = torch.special.ndtr(t) - torch.special.ndtr(t - 3)
    density = (torch.exp(-0.5 * ((t[:, None] - 3 * u) / std).square()) / (std * math.sqrt(2 * math.pi))).mean(1)
    right = float(torch.trapezoid(between + between.square() / (20 * density.clamp(min=1e-30)), t))
    method = model(1, lr=3e-3, lr_end=1.0, penalty=10.0, critic_steps=1000)
    method._draw = lambda n, g: random.normal(n, 1, generator=g)  # a generator that stands still
    update, found = tw.update(method), []
    for i in range(400):
        update.step(Batch(3 + random.normal(256, 1, generator=random.seeded(i))))
        found.append(float(update.logged["distance"].detach().mean()))
    late = torch.tensor(found[-100:])
    error = math.sqrt(2 / 256) * 1.15 / math.sqrt(len(late))
    assert right == pytest.approx(3.463, abs=2e-3) and abs(float(late.mean()) - right) < 4.5 * error + 0.05


def test_the_generator_is_updated_once_in_n_steps_of_the_critic():
    method = model(critic_steps=3)
    update, changed = tw.update(method), []
    for i in range(9):
        before = [p.clone() for p in method.generator.parameters()], [p.clone() for p in method.critic.parameters()]
        update.step(random.normal(8, 2, generator=random.seeded(i)))
        now = method.generator.parameters(), method.critic.parameters()
        changed.append(tuple(any(not torch.equal(a, b) for a, b in zip(*pair)) for pair in zip(before, now)))
    assert changed == [(i % 3 == 2, True) for i in range(9)]


def test_a_trained_generator_has_the_data_s_moments():
    data = Gaussians([[1.0, -0.5]], 0.5)
    fields = dict(images=128 * 1500, batch=128, lr=2e-3, lr_generator=2e-3, ema=0.99)
    twin = tw.fit(model(**fields), data, progress=False)
    x = twin.sample(4000, seed=1)
    assert torch.allclose(x.mean(0), torch.tensor([1.0, -0.5]), atol=0.12)
    assert torch.allclose(x.std(0), torch.full((2,), 0.5), atol=0.12)


def test_samples_are_functions_of_their_starts_and_it_is_no_energy():
    method = model(2, **{"generator.latent_dim": 5})
    z = random.normal(6, 5, generator=random.seeded(2))
    assert method.latent_shape == (5,) and torch.equal(method.sample(6, start=z), method.sample(6, start=z, seed=3))
    assert torch.equal(method.sample(4, seed=1), method.sample(4, seed=1)) and method.abilities == {"sample", "start"}
    assert not METRICS["ood"].fits(tw.method("wgan_gp/digits")) and not METRICS["density"].fits(tw.method("wgan_gp/moons"))
    with pytest.raises(InputError, match=r"start must have shape \(6, 5\)"):
        method.sample(6, start=z[:, :4])
