"""Scores against finite differences, the compiled branch against the eager one, and the algebra of energies on Gaussians."""

import math

import pytest
import torch
from torch import Tensor

import thalweg as tw
from thalweg import energy as energies
from thalweg import random
from thalweg.data import TOYS, toy
from thalweg.energy import combine, compose, condition, gaussian, score, temper, tilt, value_and_score
from thalweg.errors import InputError
from thalweg.nn.build import PatchNet, UNet
from thalweg.nn.convnet import ConvEnergy
from thalweg.nn.mlp import MLP


def finite_difference(energy, x: Tensor, direction: Tensor, h: float = 1e-3) -> Tensor:
    """Directional derivative of each row's energy along `direction`, central and of fourth order."""
    at = [energy(x + k * h * direction).detach() for k in (-2, -1, 1, 2)]
    return (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * h)


def assert_score_matches(energy, x: Tensor, *, tolerance: float = 1e-7, h: float = 1e-3) -> None:
    assert x.dtype == torch.float64
    found = score(energy, x)
    assert found.shape == x.shape and found.dtype == torch.float64
    for seed in range(4):
        direction = random.normal(*x.shape, generator=random.seeded(9, seed), dtype=torch.float64)
        expected = -finite_difference(energy, x, direction, h)
        along = (found * direction).flatten(1).sum(1)
        assert along.abs().max() > 1e-3, "the score must not be zero for this test to say anything"
        torch.testing.assert_close(along, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))


def perturbed(module: torch.nn.Module, std: float = 0.1) -> torch.nn.Module:
    """`module` in float64 with noise on every weight, so that layers which start at zero take part."""
    module = module.double()
    generator = random.seeded(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(std * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return module


def points(*shape: int) -> Tensor:
    return random.normal(*shape, generator=random.seeded(1), dtype=torch.float64)


T = torch.tensor([1, 5, 400])
LABEL = torch.tensor([0, 2, -1])


@pytest.mark.parametrize(
    "net, condition",
    [
        (lambda: MLP(5, width=16), {}),
        (lambda: MLP(5, width=16, depth=1), {}),
        (lambda: MLP(5, width=16, levels=True, classes=3), {"t": T, "label": LABEL}),
        (lambda: ConvEnergy((2, 8, 8), widths=(4, 8, 8)), {}),
        (lambda: ConvEnergy((2, 8, 8), widths=(4, 8), blocks=1, levels=True, classes=3), {"t": T, "label": LABEL}),
        (lambda: ConvEnergy((2, 8, 8), widths=(4, 8), spectral_norm=True), {}),
    ],
    ids=["mlp", "mlp-shallow", "mlp-conditional", "convnet", "convnet-conditional", "convnet-spectral"],
)
@pytest.mark.parametrize("channels_last", [False, True])
def test_network_scores_are_the_gradient(net, condition, channels_last):
    torch.manual_seed(0)
    net = perturbed(net()).eval()
    x = points(3, 2, 8, 8) if isinstance(net, ConvEnergy) else points(3, 5)
    if channels_last and x.dim() == 4:
        x = x.to(memory_format=torch.channels_last)
    assert net(x, **condition).dtype == torch.float64
    assert_score_matches(lambda point: net(point, **condition), x)


@pytest.mark.parametrize("net", [PatchNet(width=8, blocks=1), UNet(width=8, blocks=1, multipliers=(1, 2))], ids=["patch", "unet"])
@pytest.mark.parametrize("readout", ["inner", "logits", "map"])
@pytest.mark.parametrize("label", [None, 1])
def test_egc_scores_are_the_gradient(monkeypatch, net, readout, label):
    # EGC sums in fp32, whose rounding would drown a finite difference: here `.float()` keeps double precision
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    method = tw.method("egc", seed=0, shape=(2, 4, 4), classes=3, net=net, readout=readout).eval()
    perturbed(method)
    x = points(3, 2, 4, 4)
    for t in (1, 100, 1000):
        assert_score_matches(lambda point, t=t: method.energy(point, t=t, label=label), x, tolerance=1e-5)


def test_egc_vector_scores_are_the_gradient(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    method = perturbed(tw.method("egc", seed=0, shape=(4,), classes=3, net="mlp", readout="logits", width=16, depth=2))
    assert_score_matches(lambda x: method.energy(x, t=300, label=2), points(3, 4), tolerance=1e-6)


@pytest.mark.parametrize("name", TOYS)
def test_toy_scores_are_the_gradient(name):
    law = toy(name)
    x = law.sample(64, generator=random.seeded(2)).double()
    assert_score_matches(law.energy, x, tolerance=2e-5, h=1e-4)


# --- value_and_score


def quartic(x: Tensor, weight: Tensor | float = 1.0) -> Tensor:
    return weight * x.pow(4).flatten(1).sum(1)


def test_value_and_score_of_a_known_function():
    x = points(6, 2, 3)
    value, found = value_and_score(quartic, x)
    torch.testing.assert_close(value, x.pow(4).sum((1, 2)))
    torch.testing.assert_close(found, -4 * x.pow(3))
    assert not value.requires_grad and not found.requires_grad


def test_condition_and_aux_pass_through():
    x = points(6, 3)

    def energy(x: Tensor, *, weight: float) -> tuple[Tensor, dict]:
        return quartic(x, weight), {"largest": x.max()}

    value, found, extra = value_and_score(energy, x, aux=True, weight=2.0)
    torch.testing.assert_close(value, 2 * x.pow(4).sum(1))
    torch.testing.assert_close(found, -8 * x.pow(3))
    assert torch.equal(extra["largest"].detach(), x.max())
    torch.testing.assert_close(score(quartic, x, weight=2.0), found)


def test_create_graph_reaches_the_parameters():
    x, weight = points(6, 3), torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    found = score(quartic, x, create_graph=True, weight=weight)
    (gradient,) = torch.autograd.grad(found.square().sum(), weight)  # ∂/∂w Σ (4 w x³)² = 32 w Σ x⁶
    torch.testing.assert_close(gradient, 32 * weight.detach() * x.pow(6).sum())


def test_x_that_requires_grad():
    x = points(6, 3).requires_grad_(True)
    value, found = value_and_score(quartic, x)
    assert not value.requires_grad and not found.requires_grad, "without create_graph nothing is kept"
    found = score(quartic, x, create_graph=True)
    (gradient,) = torch.autograd.grad(found.sum(), x)  # through x itself: −12 x²
    torch.testing.assert_close(gradient, -12 * x.detach().square())
    assert x.grad is None


def test_score_inside_no_grad_and_leaves_the_mode():
    x = points(4, 3)
    with torch.no_grad():
        torch.testing.assert_close(score(quartic, x), -4 * x.pow(3))
        assert not torch.is_grad_enabled()
    with pytest.raises(InputError, match="does not depend on x"):
        score(lambda x: torch.zeros(len(x)), x)  # an energy that forgets x is an error, not a zero


# --- compiled


def test_compiled_loss_and_its_second_order_gradients_equal_eager():
    torch.manual_seed(0)
    net = MLP(3, width=8, depth=2).double()
    x, noise = points(5, 3), random.normal(5, 3, generator=random.seeded(4), dtype=torch.float64)
    branches = []

    def loss(x: Tensor, noise: Tensor) -> Tensor:
        value, found, extra = value_and_score(lambda p: (net(p), p.sum()), x, create_graph=True, aux=True)
        if torch.compiler.is_compiling():
            branches.append("compiled")
        return (found + noise).square().mean() + 0.1 * value.square().mean() + 0.0 * extra

    expected = loss(x, noise)
    assert branches == []
    expected_gradients = torch.autograd.grad(expected, list(net.parameters()))
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    found = compiled(x, noise)
    found_gradients = torch.autograd.grad(found, list(net.parameters()))
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    assert sum(float(g.abs().sum()) for g in expected_gradients) > 0.1
    for a, b in zip(found_gradients, expected_gradients):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_compiled_score_is_detached_as_the_eager_one():
    torch.manual_seed(0)
    net = MLP(3, width=8, depth=2)
    x = points(5, 3).float()

    def both(x: Tensor) -> tuple[Tensor, Tensor]:
        return value_and_score(net, x)

    value, found = torch.compile(both, backend="aot_eager", fullgraph=True)(x)
    expected_value, expected = both(x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(value, expected_value)
    assert not value.requires_grad and not found.requires_grad


# --- algebra of Gaussians in closed form


def normal_energy(mean: Tensor, precision: Tensor):
    return lambda x, **_: 0.5 * ((x - mean) @ precision * (x - mean)).sum(1)


def precision_of(seed: int) -> Tensor:
    a = random.normal(3, 3, generator=random.seeded(20, seed), dtype=torch.float64)
    return a @ a.T + torch.eye(3, dtype=torch.float64)


MEANS = [torch.tensor(m, dtype=torch.float64) for m in ([1.0, 0.0, -2.0], [0.5, 2.0, 1.0], [-1.0, 1.0, 0.0])]
PRECISIONS = [precision_of(k) for k in range(3)]


def assert_is_gaussian(energy, mean: Tensor, precision: Tensor) -> None:
    """Equal to the energy of N(mean, precision⁻¹) up to a constant, and the score equal to −precision (x − mean)."""
    x = points(20, 3)
    difference = energy(x) - normal_energy(mean, precision)(x)
    torch.testing.assert_close(difference, difference[:1].expand(20))
    torch.testing.assert_close(score(energy, x), -(x - mean) @ precision)


@pytest.mark.parametrize("weights", [None, [1.0, 1.0, 1.0], [2.0, 0.5, 0.25], [3.0, 1.0, -0.1]])
def test_combine_is_the_product_of_gaussians(weights):
    w = weights or [1.0] * 3
    precision = sum(k * p for k, p in zip(w, PRECISIONS))
    mean = torch.linalg.solve(precision, sum(k * p @ m for k, p, m in zip(w, PRECISIONS, MEANS)))
    experts = [normal_energy(m, p) for m, p in zip(MEANS, PRECISIONS)]
    assert_is_gaussian(combine(experts, weights), mean, precision)


@pytest.mark.parametrize("weights", [None, [1.0, 1.0], [2.5, 1.0], [1.0, -0.5]])
def test_compose_of_gaussian_concepts(weights):
    """With p(x|c_i) ∝ p(x) p(c_i|x) and Gaussian p(c_i|x): the exact posterior precision P₀ + Σ wᵢ (Pᵢ − P₀)."""
    base_mean, base = MEANS[2], torch.eye(3, dtype=torch.float64)
    likelihood = [0.5 * p for p in PRECISIONS[:2]]  # precision of p(c_i | x) in x, centred at MEANS[i]
    concept_precisions = [base + p for p in likelihood]
    concept_means = [torch.linalg.solve(base + p, base @ base_mean + p @ m) for p, m in zip(likelihood, MEANS)]
    w = weights or [1.0, 1.0]
    precision = base + sum(k * p for k, p in zip(w, likelihood))
    mean = torch.linalg.solve(precision, base @ base_mean + sum(k * p @ m for k, p, m in zip(w, likelihood, MEANS)))
    concepts = [normal_energy(m, p) for m, p in zip(concept_means, concept_precisions)]
    assert_is_gaussian(compose(concepts, normal_energy(base_mean, base), weights), mean, precision)


def test_temper_scales_the_covariance():
    assert_is_gaussian(temper(normal_energy(MEANS[0], PRECISIONS[0]), 2.5), MEANS[0], PRECISIONS[0] / 2.5)


def test_tilt_of_a_gaussian_by_a_linear_function_shifts_it():
    slope = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    std = 1.7
    tilted = tilt(lambda x: x @ slope, lambda x: gaussian(x, std))
    assert_is_gaussian(tilted, std**2 * slope, torch.eye(3, dtype=torch.float64) / std**2)


def test_condition_holds_some_and_passes_others():
    def energy(x: Tensor, *, label: Tensor, scale: float) -> Tensor:
        return scale * (x - label).square().sum(1)

    x = points(4, 2)
    held = condition(energy, label=torch.ones(()))
    torch.testing.assert_close(held(x, scale=3.0), 3 * (x - 1).square().sum(1))
    nested = temper(combine([held, held], [1.0, 2.0]), 2.0)
    torch.testing.assert_close(nested(x, scale=1.0), 1.5 * (x - 1).square().sum(1))
    with pytest.raises(TypeError):
        held(x, scale=1.0, label=torch.zeros(()))


def test_gaussian_energy_is_normalised_up_to_its_constant():
    x = points(5, 2, 2)
    law = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 0.6)
    constant = 4 * math.log(0.6 * math.sqrt(2 * math.pi))
    torch.testing.assert_close(gaussian(x, 0.6) + constant, -law.log_prob(x).sum((1, 2)))


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_temperatures_that_are_refused(temperature):
    with pytest.raises(ValueError, match="temperature"):
        temper(quartic, temperature)


def test_weights_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="2 energies and 1 weights"):
        combine([quartic, quartic], [1.0])
    with pytest.raises(ValueError, match="0 energies"):
        combine([])
    with pytest.raises(ValueError, match="weights"):
        compose([quartic, quartic], quartic, [1.0])


def test_the_package_hands_out_the_same_functions():
    assert tw.score is energies.score and tw.combine is energies.combine and tw.tilt is energies.tilt


def test_a_mixture_of_normalised_densities_is_normalised():
    x = torch.linspace(-12, 12, 4001)[:, None]
    parts = [lambda x, m=m: 0.5 * (x[:, 0] - m).square() + 0.5 * math.log(2 * math.pi) for m in (-3.0, 2.0)]
    mixed = energies.mixture(parts, [3, 1])
    density = (-mixed(x).double()).exp() * 24 / 4000
    assert float(density.sum()) == pytest.approx(1, abs=1e-4) and float(density[x[:, 0] < -0.5].sum()) == pytest.approx(0.75, abs=0.01)
    for wrong in ([1.0], [1.0, 0.0]):
        with pytest.raises(ValueError, match="one weight above 0"):
            energies.mixture(parts, wrong)
