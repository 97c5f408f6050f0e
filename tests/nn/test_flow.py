"""Flows against the change of variables: inverses, Jacobians, and densities that add up to 1."""

import math

import pytest
import torch
import zuko

from thalweg.nn.flow import ActNorm, Dequantisation, ImageFlow, MixtureCoupling, VectorFlow, _increasing, _inverse
from thalweg.random import normal, seeded, uniform

BOUND = 4.5  # standard errors


def draws(*shape: int, seed: int = 0, dtype=torch.float64) -> torch.Tensor:
    return normal(*shape, generator=seeded(51, seed), dtype=dtype)


def images(*shape: int, seed: int = 0, dtype=torch.float64) -> torch.Tensor:
    return uniform(*shape, low=-1.0, high=1.0, generator=seeded(52, seed), dtype=dtype)


def image_flow(shape=(1, 8, 8), *, dtype=torch.float64, spread=0.05, **options) -> ImageFlow:
    """With weights moved away from their start, where couplings hardly depend on what they see."""
    torch.manual_seed(0)
    sizes = dict(scales=2, couplings=2, width=8, depth=1, mixtures=3, grey_values=16)
    flow = ImageFlow(shape, **(sizes | options)).to(dtype)
    flow.initialise(images(64, *shape, dtype=dtype), 0.5 + 0 * images(64, *shape, dtype=dtype))
    with torch.no_grad():
        for i, parameter in enumerate(flow.parameters()):
            parameter.add_(spread * draws(*parameter.shape, seed=i, dtype=dtype))
    return flow


def vector_flow(kind: str, dim: int = 2, *, dtype=torch.float64) -> VectorFlow:
    torch.manual_seed(0)
    make, options = (zuko.flows.NSF, {"bins": 6, "passes": 2}) if kind == "spline" else (zuko.flows.NICE, {})
    return VectorFlow(dim, make, couplings=3, width=16, depth=1, scale=1.7, **options).to(dtype)


def jacobian_log_det(encode, x: torch.Tensor) -> torch.Tensor:
    matrix = torch.autograd.functional.jacobian(lambda flat: encode(flat.view(1, *x.shape))[0].flatten(), x.flatten())
    return torch.linalg.slogdet(matrix).logabsdet


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 4, 12)], ids=str)
@pytest.mark.parametrize("attention", [False, True])
def test_images_come_back_in_single_precision(shape, attention):
    flow = image_flow(shape, attention=attention, dtype=torch.float32)
    x = images(20, *shape, dtype=torch.float32)
    x[0], x[1] = -1.0, 1.0  # what chains are clamped to
    with torch.no_grad():
        z, _ = flow.encode(x)
        torch.testing.assert_close(flow.decode(z), x, rtol=0, atol=1e-5)
        torch.testing.assert_close(flow.encode(flow.decode(z))[0], z, rtol=0, atol=1e-3)


@pytest.mark.parametrize("kind", ["spline", "affine"])
def test_vectors_come_back_in_single_precision(kind):
    flow, x = vector_flow(kind, 5, dtype=torch.float32), 2 * draws(200, 5, dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(flow.decode(flow.encode(x)[0]), x, rtol=0, atol=1e-5)


def test_the_log_determinant_of_images_is_that_of_the_jacobian():
    flow = image_flow()
    x = images(3, 1, 8, 8)
    _, found = flow.encode(x)
    for row, value in zip(x, found):
        torch.testing.assert_close(value, jacobian_log_det(flow.encode, row), rtol=0, atol=1e-8)


@pytest.mark.parametrize("kind", ["spline", "affine"])
def test_the_log_determinant_of_vectors_is_that_of_the_jacobian(kind):
    flow, x = vector_flow(kind, 4), draws(5, 4)
    _, found = flow.encode(x)
    for row, value in zip(x, found):
        torch.testing.assert_close(value, jacobian_log_det(flow.encode, row), rtol=0, atol=1e-8)


@pytest.mark.parametrize("kind", ["spline", "affine"])
def test_a_density_of_the_plane_adds_up_to_one(kind):
    flow, cells, extent = vector_flow(kind), 300, 12.0
    edge = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells * 2 * extent - extent
    points = torch.cartesian_prod(edge, edge)
    with torch.no_grad():
        total = flow.bound(points, points).exp().sum() * (2 * extent / cells) ** 2
    assert float(total) == pytest.approx(1.0, abs=2e-3)


def test_probabilities_of_all_grey_images_add_up_to_one():
    """exp(bound) is an unbiased estimate of an image's probability, and 2×2 pixels of 3 grey values have but 81 images.

    With uniform noise: the weights of learned noise have no variance, and its density is tested by its Jacobian.
    """
    flow = image_flow((1, 2, 2), scales=1, grey_values=3, dequantisation="uniform", spread=0.01)
    grey, repeats = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64), 1000
    every = torch.cartesian_prod(grey, grey, grey, grey).view(81, 1, 2, 2).repeat(repeats, 1, 1, 1)
    with torch.no_grad():
        parts = zip(every.split(8100), draws(*every.shape, seed=1).split(8100))
        totals = torch.cat([flow.bound(x, noise).exp() for x, noise in parts]).view(repeats, 81).sum(1)
    error = float(totals.std()) / math.sqrt(repeats)
    assert abs(float(totals.mean()) - 1) < BOUND * error
    assert error < 0.03, "too few draws to tell"


def test_dequantisation_noise_has_the_density_that_it_claims():
    torch.manual_seed(0)
    noise = Dequantisation(1, width=8, depth=1, mixtures=3).double()
    with torch.no_grad():
        for i, parameter in enumerate(noise.parameters()):
            parameter.add_(0.1 * draws(*parameter.shape, seed=i))
    x, epsilon = images(1, 1, 4, 4), draws(1, 1, 4, 4)
    with torch.no_grad():
        v, log_q = noise(x, epsilon)
    assert float(v.min()) > 0 and float(v.max()) < 1
    change = jacobian_log_det(lambda e: (noise(x, e)[0], None), epsilon[0])
    log_epsilon = -0.5 * (epsilon.square() + math.log(2 * math.pi)).sum()
    torch.testing.assert_close(log_q[0], log_epsilon - change, rtol=0, atol=1e-8)


def test_noise_of_a_grey_value_stays_in_its_bin():
    flow, seen = image_flow(grey_values=16), []
    flow._encode = lambda y: seen.append(y) or (y, torch.zeros(len(y)))
    x = images(4, 1, 8, 8)
    flow.bound(x, draws(4, 1, 8, 8))
    assert float((seen[0].detach() - 15 / 16 * x).abs().max()) <= 1 / 16


def test_the_bound_is_finite_at_the_edges_of_the_bins():
    flow = image_flow(grey_values=256, dequantisation="uniform", dtype=torch.float32)
    x = torch.ones(2, 1, 8, 8)
    noise = torch.full_like(x, 9.0)  # rounds to the very edge
    assert flow.bound(x, noise).isfinite().all() and flow.bound(-x, -noise).isfinite().all()


def test_sampled_grey_values_are_grey_values():
    flow = image_flow(grey_values=5, dtype=torch.float32)
    x = flow.decode_grey_values(draws(50, 1, 8, 8, dtype=torch.float32)).detach()
    assert {round(float(v), 6) for v in x.unique()} <= {-1.0, -0.5, 0.0, 0.5, 1.0}


def test_the_first_batch_sets_every_norm():
    torch.manual_seed(0)
    flow = ImageFlow((1, 8, 8), scales=2, couplings=2, width=8, depth=1, mixtures=3).double()
    norms, seen = [part for scale in flow.scales for part in scale if isinstance(part, ActNorm)], []
    x, noise = images(256, 1, 8, 8), 0.5 + 0 * images(256, 1, 8, 8)
    flow.initialise(x, noise)
    for norm in norms:
        norm.encode = lambda h, context=None, plain=norm.encode: seen.append(plain(h)[0]) or plain(h)
    with torch.no_grad():
        flow.encode(x)
    assert len(seen) == 4
    for h in seen:
        torch.testing.assert_close(h.mean((0, 2, 3)), torch.zeros(h.shape[1], dtype=h.dtype), rtol=0, atol=1e-6)
        torch.testing.assert_close(h.std((0, 2, 3), correction=0), torch.ones(h.shape[1], dtype=h.dtype), rtol=0, atol=1e-6)


def test_the_inverse_survives_narrow_logistics_far_apart():
    """Between them the mixture's own slope is exp(−100) and less."""
    log_weights = torch.tensor([0.5, 0.5]).log().expand(101, 2)
    means, log_scales = torch.tensor([-2.0, 2.0]).expand(101, 2), torch.tensor([-4.5, -4.5]).expand(101, 2)
    x = torch.linspace(-6, 6, 101)
    value, _ = _increasing(x, log_weights, means, log_scales)
    torch.testing.assert_close(_inverse(value, log_weights, means, log_scales), x, rtol=0, atol=1e-5)


def test_the_inverse_ends_at_the_root_of_every_element():
    """Of most after a few steps, of others, between narrow logistics, after many."""
    torch.manual_seed(0)
    log_weights, means, value = torch.randn(20_000, 4).log_softmax(-1), 3 * torch.randn(20_000, 4), 4 * torch.randn(20_000)
    log_scales = (torch.randn(20_000, 4) - 2).clamp_min(-5)
    x = _inverse(value, log_weights, means, log_scales)
    exact = _inverse(*(part.double() for part in (value, log_weights, means, log_scales)))
    torch.testing.assert_close(_increasing(exact, log_weights.double(), means.double(), log_scales.double())[0], value.double())
    torch.testing.assert_close(x.double(), exact, rtol=0, atol=1e-5)


def test_steps_of_the_inverse_do_not_go_in_a_circle():
    """Newton's steps between these two points lead from each to the other."""
    log_weights, means = torch.tensor([[-2.7897, -2.5571, -0.2561, -2.4421]]), torch.tensor([[-3.0709, -1.7968, -2.7544, -9.1734]])
    log_scales, value = torch.tensor([[-2.2333, -2.1100, -3.2509, -3.3964]]), torch.tensor([-2.6066])
    found, _ = _increasing(_inverse(value, log_weights, means, log_scales), log_weights, means, log_scales)
    torch.testing.assert_close(found, value, rtol=0, atol=1e-3)


def test_the_inverse_has_the_gradient_of_finite_differences():
    torch.manual_seed(0)
    arguments = [torch.randn(4).double(), torch.randn(4, 3).double(), torch.randn(4, 3).double(), torch.randn(4, 3).double() - 1]
    for argument in arguments:
        argument.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda value, logits, *rest: _inverse(value, logits.log_softmax(-1), *rest), arguments)


def test_a_coupling_moves_only_half_by_what_the_other_half_says():
    torch.manual_seed(0)
    coupling, x = MixtureCoupling(5, width=8, depth=1, mixtures=3).double(), draws(2, 5, 4, 4)
    z, _ = coupling.encode(x)
    assert torch.equal(z[:, :2], x[:, :2])
    other = x.clone()
    other[:, 2] += 1.0  # moves itself alone
    changed = (coupling.encode(other)[0] != z).flatten(2).any(2)[0]
    assert changed.tolist() == [False, False, True, False, False]


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="divide by 4, got 6×8"):
        ImageFlow((1, 6, 8), scales=2)
