"""The toys: sampler, log-density and score must be one law."""

import math

import numpy
import pytest
import torch

from thalweg.data import TOYS, load, toy
from thalweg.errors import InputError
from thalweg.random import seeded

CELLS, INSIDE = 40, 6  # cells a side for counting, and points a side within each


@pytest.fixture(scope="module", params=TOYS)
def case(request):
    """A toy, its density on a midpoint grid, the area of a grid point, and 40,000 samples."""
    law = toy(request.param)
    side = CELLS * INSIDE
    line = ((torch.arange(side, dtype=torch.float64) + 0.5) / side * 2 - 1) * law.extent
    log_density = law.log_prob(torch.cartesian_prod(line, line)).reshape(side, side)
    return law, log_density, (2 * law.extent / side) ** 2, law.sample(40_000, generator=seeded(7))


def test_density_integrates_to_one(case):
    law, log_density, area, _ = case
    assert abs(log_density.exp().sum().item() * area - 1) < 1e-5, law


def test_extent_holds_the_mass(case):
    law, _, _, x = case
    assert (x.abs().amax(1) <= law.extent).float().mean() > 0.9999
    assert law.extent <= 5.5


def test_samples_have_the_density_s_expected_log_density(case):
    law, log_density, area, x = case
    expected = (log_density.exp() * log_density).nan_to_num().sum() * area
    found = law.log_prob(x.double())
    assert abs((found.mean() - expected) / (found.std() / math.sqrt(len(x)))) < 4.5


def test_samples_fall_into_cells_as_the_density_says(case):
    law, log_density, area, x = case
    probability = log_density.exp().reshape(CELLS, INSIDE, CELLS, INSIDE).sum((1, 3)) * area
    inside = x[x.abs().amax(1) < law.extent].double()
    index = ((inside / law.extent + 1) / 2 * CELLS).long()
    counts = torch.bincount(index[:, 0] * CELLS + index[:, 1], minlength=CELLS**2).double()
    expected = probability.flatten() * len(x)
    seen = expected >= 5
    chi_square = ((counts - expected).square() / expected)[seen].sum().item()
    freedom = int(seen.sum())
    assert abs(chi_square - freedom) / math.sqrt(2 * freedom) < 4.5
    rest = expected[~seen].sum().item()
    assert abs(counts[~seen].sum().item() - rest) < 4.5 * math.sqrt(rest + 1)


@pytest.mark.parametrize("name", TOYS)
def test_score_is_the_gradient_of_log_prob(name):
    law = toy(name)
    generator = seeded(3)
    x = torch.cat([law.sample(200, generator=generator).double(), (torch.rand(200, 2, generator=generator).double() * 2 - 1) * law.extent])
    step = 1e-5
    columns = [(law.log_prob(x + step * unit) - law.log_prob(x - step * unit)) / (2 * step) for unit in torch.eye(2).double()]
    difference = torch.stack(columns, 1)
    score = law.score(x)
    assert score.dtype == torch.float64 and not score.requires_grad
    assert ((score - difference).abs() / (1 + difference.abs())).max() < 1e-5


def dense(curves, std, x):
    """log p by a midpoint sum with 400,000 nodes a curve, written apart from the library."""
    place = (numpy.arange(400_000) + 0.5) / 400_000
    nodes = numpy.concatenate([curve(place) for curve in curves])
    values = [numpy.logaddexp.reduce(-((point - nodes) ** 2).sum(1) / (2 * std**2)) for point in x.numpy()]
    return torch.tensor(values) - math.log(len(nodes) * 2 * math.pi * std**2)


def turn(radius, angle):
    return numpy.stack([radius * numpy.cos(angle), radius * numpy.sin(angle)], 1)


def roll(u):
    return turn(1.5 * numpy.pi * (1 + 2 * u) / 5, 1.5 * numpy.pi * (1 + 2 * u))


def arm(u):
    theta = 3 * numpy.pi * numpy.sqrt(u)
    return theta[:, None] * numpy.stack([-numpy.cos(theta), numpy.sin(theta)], 1) / 3


def moon(u):
    return turn(2, numpy.pi * u) - [1, 0.5]


@pytest.mark.parametrize(
    "name, curves, std",
    [
        ("swissroll", [roll], 0.15),
        ("spiral", [arm, lambda u: -arm(u)], 0.15),
        ("moons", [moon, lambda u: -moon(u)], 0.2),
        ("rings", [lambda u, radius=radius: turn(radius, 2 * numpy.pi * u) for radius in (0.75, 1.5, 2.25, 3.0)], 0.08),
    ],
)
def test_curves_match_a_dense_sum_on_and_far_off_the_curve(name, curves, std):
    law = toy(name)
    far = law.extent * torch.tensor([[1.0, 1.0], [-1.0, 1.0], [0.9, -1.0], [0.0, 0.0], [-0.3, -1.0]], dtype=torch.float64)
    x = torch.cat([law.sample(5, generator=seeded(1)).double(), far])
    torch.testing.assert_close(law.log_prob(x), dense(curves, std, x), rtol=1e-5, atol=1e-5)


def test_checkerboard_stays_finite_far_away():
    x = torch.tensor([[30.0, -40.0], [0.0, 100.0]], dtype=torch.float64)
    law = toy("checkerboard")
    assert law.log_prob(x).isfinite().all() and law.score(x).isfinite().all()
    assert (law.score(x) * x).sum(1).max() < 0  # back towards the board


@pytest.mark.parametrize("name", TOYS)
def test_batches_are_set_by_start_and_seed(name):
    law = load(name)
    first, again, other, later = law.batch(0, 8, 1), law.batch(0, 8, 1), law.batch(0, 8, 2), law.batch(8, 8, 1)
    assert first.x.shape == (8, 2) and first.x.dtype == torch.float32 and law.shape == (2,)
    assert torch.equal(first.x, again.x)
    assert not torch.equal(first.x, other.x) and not torch.equal(first.x, later.x)
    if law.classes:
        label = law.batch(0, 5000, 1).label
        assert label.dtype == torch.int64 and label.unique().tolist() == list(range(len(law.classes)))
        weights = torch.tensor({"2gaussians": [0.8, 0.2]}.get(name, [1 / len(law.classes)] * len(law.classes)))
        share = torch.bincount(label) / 5000 / weights
        assert (share - 1).abs().max() < 4.5 * math.sqrt(len(law.classes) / 5000)
    else:
        assert first.label is None


def test_labels_are_the_nearest_component():
    for name in ("8gaussians", "25gaussians"):
        law = toy(name)
        batch = law.batch(0, 2000, 0)
        distance, index = torch.cdist(batch.x, law.modes).min(1)
        assert torch.equal(index, batch.label)
        assert abs(distance.square().mean().sqrt() / (law.mode_std * math.sqrt(2)) - 1) < 0.06
    law = toy("rings")
    batch = law.batch(0, 500, 0)
    assert torch.equal(((batch.x.norm(dim=1) - 0.375) / 0.75).long().clamp(0, 3), batch.label)


def test_which_toys_have_labels():
    assert {name for name in TOYS if toy(name).classes} == {"2gaussians", "8gaussians", "25gaussians", "moons", "rings", "pinwheel"}


def test_log_prob_keeps_the_type_and_can_be_differentiated():
    law = toy("8gaussians")
    x = law.sample(4, generator=seeded(0)).requires_grad_(True)
    value = law.log_prob(x)
    assert value.dtype == torch.float32 and value.shape == (4,)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    torch.testing.assert_close(gradient, law.score(x))
    torch.testing.assert_close(law.energy(x), -value)
    assert torch.equal(law.sample(3, generator=(seeded(5),)), law.sample(3, generator=seeded(5)))


def test_wrong_input_is_told():
    with pytest.raises(InputError, match=r"unknown toy '8gausians' \(did you mean '8gaussians'\?\); the toys are gaussian, "):
        toy("8gausians")
    with pytest.raises(InputError, match=r"points of shape \[n, 2\], got \[4, 3\]"):
        toy("rings").log_prob(torch.zeros(4, 3))
    with pytest.raises(InputError, match="at least one point, got n=0"):
        toy("rings").sample(0)
