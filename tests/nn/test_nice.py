"""NICE against the change of variables, and DDAEBM's exact likelihoods through it."""

import math

import pytest
import torch
from torch import Tensor

import thalweg as tw
from thalweg.data.base import Batch
from thalweg.errors import InputError
from thalweg.nn.build import NICE as NICESpec
from thalweg.nn.build import MLPEncoder
from thalweg.nn.nice import NICE
from thalweg.random import integers, normal, seeded, uniform


def draws(*shape: int, seed: int = 0) -> Tensor:
    return normal(*shape, generator=seeded(61, seed), dtype=torch.float64)


def moved(module: torch.nn.Module, spread: float = 0.3) -> torch.nn.Module:
    """Away from the start, where couplings add nothing."""
    with torch.no_grad():
        for i, parameter in enumerate(module.parameters()):
            parameter.add_(spread * draws(*parameter.shape, seed=100 + i).to(parameter))
    return module


def flow(dim: int, couplings: int = 4) -> NICE:
    torch.manual_seed(0)
    return moved(NICE(dim, 3, couplings=couplings, width=8, depth=3).double()).requires_grad_(False)


@pytest.mark.parametrize(("dim", "couplings"), [(2, 1), (2, 4), (5, 3), (5, 4), (8, 2)])
def test_decode_is_the_inverse(dim, couplings):
    net, x, t = flow(dim, couplings), draws(16, dim, seed=1), torch.arange(16) % 4
    z, _ = net.encode(x, t)
    torch.testing.assert_close(net.decode(z, t), x, rtol=0, atol=1e-12)
    torch.testing.assert_close(net.encode(net.decode(x, t), t)[0], x, rtol=0, atol=1e-12)
    assert float((z - x).abs().max()) > 0.1, "the map is not the identity"


@pytest.mark.parametrize(("dim", "couplings"), [(2, 4), (5, 3)])
def test_log_determinant_and_density_are_those_of_the_jacobian(dim, couplings):
    net, x, t = flow(dim, couplings), draws(6, dim, seed=2), torch.arange(6) % 4
    _, log_det = net.encode(x, t)
    jacobian = torch.stack(
        [torch.autograd.functional.jacobian(lambda row, i=i: net.encode(row[None], t[i : i + 1])[0][0], x[i]) for i in range(6)]
    )
    expected = torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(log_det, expected)
    assert float(expected.std()) > 0.1, "levels differ"
    log_normal = torch.distributions.Normal(0, 1).log_prob(net.encode(x, t)[0]).sum(1)
    torch.testing.assert_close(net(x, t), -log_normal - expected)


def test_at_the_start_it_is_a_standard_normal():
    x = draws(5, 6, seed=3)
    expected = -torch.distributions.Normal(0, 1).log_prob(x).sum(1)
    torch.testing.assert_close(NICE(6, 3, width=8, depth=2).double()(x, torch.arange(5) % 4), expected)


def method(**fields):
    sizes = {"shape": (2,), "net": NICESpec(width=8, depth=2), "encoder": MLPEncoder(width=8, depth=2), "reference_std": 0.0}
    m = tw.method("ddaebm/25gaussians", seed=0, **(sizes | fields)).double()
    moved(m.net)
    return m


@pytest.mark.parametrize("t", [0, 1, 3])
def test_the_energy_is_normalised_at_every_level(t):
    """∫ exp(−E(x, t)) dx = 1 over the plane, and the energy falls off."""
    m = method()
    report = tw.evaluate.density(lambda x: m.energy(x.double(), t=t), tw.data.toy("gaussian"), grid=600, extent=30.0)
    assert report.edge_mass < 1e-6
    assert report.log_z == pytest.approx(0, abs=1e-4)


def test_the_score_is_that_of_central_differences():
    m, x, h = method(), draws(7, 2, seed=4), 1e-5
    with torch.no_grad():
        step = h * torch.eye(2, dtype=torch.float64)
        slope = torch.stack([(m.log_prob(x + e, t=2) - m.log_prob(x - e, t=2)) / (2 * h) for e in step], 1)
    torch.testing.assert_close(tw.score(m.energy, x, t=2), slope, rtol=1e-6, atol=1e-7)


# --- images in logits


def pictures(n: int, seed: int = 0) -> Tensor:
    """Of 5 grey values in [−1, 1]."""
    return (integers(n * 4, 0, 5, generator=seeded(62, seed)).double() / 2 - 1).view(n, 1, 2, 2)


def of_images(**fields):
    return method(shape=(1, 2, 2), grey_values=5, **fields)


def test_likelihood_of_images_is_that_of_logits_and_the_slope():
    m = of_images()
    x = m.dequantise(pictures(9), uniform(9, 1, 2, 2, generator=seeded(64), dtype=torch.float64))
    y, log_slope = m.logits.encode(x)
    torch.testing.assert_close(m.log_prob(x), log_slope - m.net(y, torch.zeros(9, dtype=torch.long)))
    found = tw.evaluate.log_likelihood(m.energy, x, 0.0)
    assert found.exact and found.value.value == pytest.approx(float(m.log_prob(x).detach().mean()))


def test_a_step_trains_on_logits_of_spread_images():
    """At the first level the energy's data are logits with noise 0.01: of values in their bins, not of whole grey values."""
    m, seen = of_images(levels=1).float(), []
    m._energy_loss = lambda *a: (seen.append(a[0]), m.energy_loss(*a))[1]
    tw.fit(m, Images(), images=64, batch=64, progress=False)
    place = seen[0].sigmoid() * 5 % 1  # within its bin
    assert abs(float(place.mean()) - 0.5) < 4.5 / math.sqrt(12 * place.numel())
    assert abs(float(place.var()) - 1 / 12) < 4.5 / math.sqrt(180 * place.numel())
    x = m.sample(8, seed=1)
    assert x.shape == (8, 1, 2, 2) and float(x.abs().max()) <= 1


def test_black_images_are_no_divergence():
    """Logits of black pixels lie near −7: a random encoder takes them for z that are thousands of nats from the prior."""
    m = tw.method("ddaebm/fashion-mnist-nice", seed=0, shape=(1, 16, 16), **{"net.width": 64, "encoder.width": 64}).float()
    x0, _ = m.logits.encode(m.dequantise(-torch.ones(32, 1, 16, 16), uniform(32, 1, 16, 16, generator=seeded(65))))
    t, z = torch.ones(32, dtype=torch.long), normal(32, 50, generator=seeded(66))
    noises = [normal(32, 1, 16, 16, generator=seeded(67, i)) for i in range(3)]
    x_s, x_t, generated = m.pairs(x0, t, z, *noises)
    loss, parts = m.generator_loss(generated, z, x_s, x_t, t, z)
    assert float(parts["latent_kl"].mean()) < 1
    assert float(loss.detach()) < 1e5, "the divergence guard's limit"


class Images:
    name, shape, classes = "pictures", (1, 2, 2), ()

    def batch(self, start: int, count: int, seed: int) -> Batch:
        return Batch(pictures(count, start).float())


def test_maximum_likelihood_ends_at_the_entropy():
    """The loss of an energy that is a likelihood, on data N(0, 4 I): from the start's 5.84 to 2·log 2 + log 2π + 1 = 4.22 nats."""
    torch.manual_seed(0)
    net = NICE(2, 1, width=8, depth=2)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    t = torch.zeros(500, dtype=torch.long)
    for i in range(150):
        loss = net(2 * draws(500, 2, seed=i).float(), t).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # of 20,000 fresh draws, whose mean has a standard error of 0.007
    held_out = float(net(2 * draws(20_000, 2, seed=999).float(), torch.zeros(20_000, dtype=torch.long)).mean().detach())
    assert held_out == pytest.approx(2 * math.log(2) + math.log(2 * math.pi) + 1, abs=0.05)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: method(shape=(1,)), "needs 2 dimensions"),
        (lambda: NICESpec().build((4,), levels=2, channels=4), "has no map"),
        (lambda: method(reference_std=1.0), "reference_std is for a network of kind 'mlp', not 'nice'"),
        (lambda: method(shape=(1, 2, 2), grey_values=1), "2 grey values or more"),
        (lambda: tw.method("ddaebm/digits", grey_values=17), "ends in tanh"),
        (lambda: tw.method("ddaebm/25gaussians").log_prob(torch.zeros(2, 2)), "'nice' only"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
