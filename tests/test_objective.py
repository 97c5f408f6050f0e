"""Objectives against exact gradients, closed-form optima and expectations, within standard errors."""

import math

import pytest
import torch
from torch import Tensor

from thalweg import noise, random
from thalweg.nn.mlp import MLP
from thalweg.objective import (
    contrastive,
    denoising_score_matching,
    gradient_penalty,
    kl_from_normal,
    sliced_score_matching,
    squared_error,
)

BOUND = 4.5


def normal(*shape: int, seed: int = 0) -> Tensor:
    return random.normal(*shape, generator=random.seeded(55, seed), dtype=torch.float64)


def assert_mean(values: Tensor, expected: float | Tensor, bound: float = BOUND) -> None:
    """The mean over the first axis of independent `values` is within `bound` standard errors of `expected`."""
    error = values.std(0) / math.sqrt(len(values))
    z = (values.mean(0) - expected) / error
    assert float(z.abs().max()) < bound, f"z up to {float(z.abs().max()):.1f}"


# --- contrastive: the exact gradient of −log-likelihood by quadrature in one dimension

GRID = torch.linspace(-4, 4, 401, dtype=torch.float64)[:, None]
DATA = torch.softmax(-((GRID[:, 0].abs() - 1.5) ** 2) / 0.3, 0)  # two modes


def model() -> MLP:
    torch.manual_seed(0)
    net = MLP(1, width=8, depth=2).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(2)  # a density far from flat
    return net


def flat(gradients) -> Tensor:
    return torch.cat([torch.zeros(0, dtype=torch.float64) if g is None else g.flatten() for g in gradients])


@pytest.fixture(scope="module")
def gradients():
    """(exact gradient of E_data[−log p], gradients of `contrastive` over repeated batches [R, P])."""
    net = model()
    parameters = list(net.parameters())
    values = net(GRID)
    likelihood = -(DATA * (-values - torch.logsumexp(-values, 0))).sum()
    exact = flat(torch.autograd.grad(likelihood, parameters))
    law = torch.softmax(-net(GRID).detach(), 0)
    assert float((law - DATA).abs().sum()) / 2 > 0.2, "model and data must differ"
    generator = random.seeded(8)
    batches = []
    for _ in range(150):
        data = GRID[torch.multinomial(DATA, 200, replacement=True, generator=generator)]
        samples = GRID[torch.multinomial(law, 200, replacement=True, generator=generator)]
        loss, _, _ = contrastive(net, data, samples)
        batches.append(flat(torch.autograd.grad(loss, parameters)))
    return exact, torch.stack(batches)


def test_contrastive_gradient_is_that_of_the_likelihood(gradients):
    exact, found = gradients
    moving = found.std(0) > 1e-12
    assert moving.sum() >= len(exact) - 1 and float(exact.norm()) > 1, "all but the last bias have a gradient"
    assert_mean(found[:, moving], exact[moving])
    torch.testing.assert_close(found[:, ~moving], torch.zeros_like(found[:, ~moving]), rtol=0, atol=1e-12)


def test_contrastive_gradient_along_random_directions(gradients):
    exact, found = gradients
    directions = normal(len(exact), 20, seed=1)
    assert_mean(found @ directions, exact @ directions)
    # the test sees an error of a fifth of the gradient: it would fail for a wrong sign or a wrong weight
    error = (found @ exact).std() / math.sqrt(len(found))
    assert float(exact @ exact) * 0.2 > BOUND * float(error)


def test_contrastive_value_labels_and_energies():
    calls = []

    def energy(x: Tensor, label: Tensor | None = None) -> Tensor:
        calls.append(len(x))
        return x.square().sum(1) if label is None else label * x.square().sum(1)

    data, samples = normal(5, 2), normal(5, 2, seed=1)
    loss, positive, negative = contrastive(energy, data, samples)
    torch.testing.assert_close(positive, data.square().sum(1))
    torch.testing.assert_close(negative, samples.square().sum(1))
    torch.testing.assert_close(loss, positive.mean() - negative.mean())
    assert calls == [10], "data and samples in one pass"
    label = torch.arange(10)
    loss, positive, negative = contrastive(energy, data, samples, label)
    torch.testing.assert_close(positive, label[:5] * data.square().sum(1))
    torch.testing.assert_close(negative, label[5:] * samples.square().sum(1))


def test_regularise_adds_its_term():
    data, samples = normal(5, 2), normal(5, 2, seed=1)
    energy = lambda x: x.square().sum(1) - 1  # noqa: E731
    plain, positive, negative = contrastive(energy, data, samples)
    loss, _, _ = contrastive(energy, data, samples, regularise=0.3)
    torch.testing.assert_close(loss - plain, 0.3 * (positive**2 + negative**2).mean())


# --- denoising score matching on N(0, s²): best energy x²/(2v), v = ᾱ²s² + σ̄², loss ᾱ²s²/v with the scale σ̄


@pytest.mark.parametrize("scaled", [True, False])
def test_denoising_score_matching_is_least_at_the_marginal(scaled):
    schedule, std, n = noise.linear_beta(), 0.6, 100_000
    t = torch.full((n,), 250)
    x0, e = std * normal(n, 2, seed=1), normal(n, 2, seed=2)
    x_t, sigma = schedule.diffuse(x0, t, e), schedule.sigma(t, x0)
    variance = schedule.signal[250] ** 2 * std**2 + schedule.noise[250] ** 2

    def loss_at(v: Tensor) -> Tensor:
        # the energy of N(0, v), or (scale 1) that energy times σ, whose score is then compared with −ε directly
        energy = lambda x: x.square().sum(1) / (2 * v) * (1.0 if scaled else float(sigma[0]))  # noqa: E731
        return denoising_score_matching(energy, x_t, e, sigma if scaled else 1.0)

    v = torch.tensor(variance, dtype=torch.float64, requires_grad=True)
    loss = loss_at(v)
    assert loss.shape == (n,)
    assert_mean(loss.detach(), schedule.signal[250] ** 2 * std**2 / variance)
    # ∂/∂v of each row by forward differences of a quadratic in 1/v: zero in the mean at v, not 20 % away
    h = 1e-4
    slope = lambda at: ((loss_at(at + h) - loss_at(at - h)) / (2 * h)).detach()  # noqa: E731
    assert_mean(slope(v.detach()), 0.0)
    for factor, sign in ((0.8, -1), (1.25, 1)):
        rows = sign * slope(factor * v.detach())
        assert float(rows.mean()) > 10 * float(rows.std()) / math.sqrt(n)
    (gradient,) = torch.autograd.grad(loss.mean(), v)
    assert float(gradient) == pytest.approx(float(slope(v.detach()).mean()), abs=1e-6), "the gradient reaches the parameters"


def test_denoising_score_matching_by_hand_and_with_conditions():
    x, e = normal(4, 2, 3), normal(4, 2, 3, seed=1)
    scale = torch.tensor([0.1, 0.5, 1.0, 2.0], dtype=torch.float64).view(4, 1, 1)
    found = denoising_score_matching(lambda x, w: w * x.pow(4).flatten(1).sum(1), x, e, scale, w=0.5)
    torch.testing.assert_close(found, (scale * -2.0 * x.pow(3) + e).square().mean((1, 2)))


# --- score matching of a Gaussian model N(0, P⁻¹) on data N(0, C): ½ tr(P C P) − tr P

ROOT = torch.tensor([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [-0.2, 0.5, 0.6]], dtype=torch.float64)
PRECISION = torch.tensor([[1.5, 0.4, 0.0], [0.4, 1.0, -0.3], [0.0, -0.3, 0.8]], dtype=torch.float64)


def quadratic(x: Tensor, precision: Tensor = PRECISION) -> Tensor:
    return 0.5 * (x @ precision * x).sum(1)


@pytest.mark.parametrize("directions", ["normal", "signs"])
def test_sliced_score_matching_is_score_matching_in_expectation(directions):
    covariance = ROOT @ ROOT.T
    n = 200_000
    x, v = normal(n, 3, seed=3) @ ROOT.T, normal(n, 3, seed=4)
    found = sliced_score_matching(quadratic, x, v.sign() if directions == "signs" else v)
    assert found.shape == (n,)
    assert_mean(found.detach(), float(0.5 * torch.trace(PRECISION @ covariance @ PRECISION) - torch.trace(PRECISION)))


def test_sliced_score_matching_is_least_at_the_data_s_precision():
    covariance = ROOT @ ROOT.T
    x, v = normal(200_000, 3, seed=3) @ ROOT.T, normal(200_000, 3, seed=4)
    slopes = {}
    for factor in (0.8, 1.0, 1.25):
        scale = torch.tensor(factor, dtype=torch.float64, requires_grad=True)
        precision = torch.linalg.inv(covariance)
        loss = sliced_score_matching(lambda x: quadratic(x, scale * precision), x, v).mean()  # noqa: B023
        (slopes[factor],) = torch.autograd.grad(loss, scale)
    # ½ c² tr P − c tr P has the slope (c − 1) tr P; a tenth of the slopes away from the minimum is far above the noise
    trace = float(torch.trace(torch.linalg.inv(covariance)))
    for factor, slope in slopes.items():
        assert float(slope) == pytest.approx((factor - 1) * trace, abs=0.02 * trace)


def test_sliced_score_matching_of_a_nonlinear_score_by_hand():
    x, v = normal(6, 2), normal(6, 2, seed=1)
    found = sliced_score_matching(lambda x: x.pow(4).sum(1) / 4, x, v)  # s = −x³, ∇s = −3x² on the diagonal
    torch.testing.assert_close(found, 0.5 * (-x.pow(3) * v).sum(1).square() - (3 * x.square() * v.square()).sum(1))


# --- the small ones


def test_gradient_penalty_is_half_the_squared_gradient():
    x = normal(7, 3)
    precision = PRECISION.clone().requires_grad_(True)
    found = gradient_penalty(lambda x: quadratic(x, precision), x)
    torch.testing.assert_close(found, 0.5 * (x @ PRECISION).square().sum(1))
    (gradient,) = torch.autograd.grad(found.sum(), precision)
    assert float(gradient.abs().max()) > 0.1, "it can be trained through"
    images = normal(2, 1, 3, 3)
    torch.testing.assert_close(gradient_penalty(lambda x: x.pow(3).sum((1, 2, 3)), images), 4.5 * images.pow(4).sum((1, 2, 3)))


def test_squared_error_holds_its_target():
    a, b = normal(4, 3).requires_grad_(True), normal(4, 3, seed=1).requires_grad_(True)
    loss = squared_error(a, b)
    torch.testing.assert_close(loss, (a - b).square().mean())
    gradient, none = torch.autograd.grad(loss, [a, b], allow_unused=True)
    torch.testing.assert_close(gradient, 2 * (a - b).detach() / 12)
    assert none is None


def test_kl_from_normal_is_that_of_torch_distributions():
    mean, log_variance = (random.normal(3, 2, 4, generator=random.seeded(30 + i)) for i in range(2))
    ours = torch.distributions.Normal(mean, (log_variance / 2).exp())
    expected = torch.distributions.kl_divergence(ours, torch.distributions.Normal(0.0, 1.0)).sum((1, 2))
    torch.testing.assert_close(kl_from_normal(mean, log_variance), expected)
