"""Densities on grids, energy distances and modes against closed forms."""

import math
from dataclasses import dataclass

import pytest
import torch

from thalweg.data import toy
from thalweg.errors import InputError
from thalweg.evaluate import density, energy_distance, energy_distance_interval, histogram_variation, mode_coverage
from thalweg.evaluate.density import grid_points
from thalweg.random import normal, seeded


@dataclass
class Gaussian:
    """A diagonal Gaussian as a toy, for closed forms."""

    mean: tuple[float, float]
    std: tuple[float, float]
    extent: float = 8.0
    modes: torch.Tensor | None = None
    mode_std: float | None = None

    def log_prob(self, x):
        z = (x - torch.tensor(self.mean, dtype=x.dtype)) / torch.tensor(self.std, dtype=x.dtype)
        return -z.square().sum(-1) / 2 - math.log(2 * math.pi * self.std[0] * self.std[1])


def divergence(p: Gaussian, q: Gaussian) -> float:
    """KL(p | q) of two diagonal Gaussians."""
    pairs = zip(p.mean, p.std, q.mean, q.std)
    return sum(math.log(t / s) + (s * s + (m - n) ** 2) / (2 * t * t) - 0.5 for m, s, n, t in pairs)


def test_gaussians_match_the_closed_forms():
    p, q = Gaussian((0.3, -0.2), (1.0, 0.7)), Gaussian((-0.4, 0.5), (0.8, 1.1))
    report = density(lambda x: 5.0 - q.log_prob(x), p)
    assert report.kl_truth_model == pytest.approx(divergence(p, q), rel=1e-5)
    assert report.kl_model_truth == pytest.approx(divergence(q, p), rel=1e-5)
    assert report.log_z == pytest.approx(-5.0, abs=1e-5)
    assert report.edge_mass < 1e-6
    assert (report.modes, report.modes_missing) == (0, 0)


def test_total_variation_of_a_shift_matches_the_closed_form():
    p, q = Gaussian((-0.5, 0.0), (1.0, 1.0)), Gaussian((0.5, 0.0), (1.0, 1.0))
    expected = math.erf(0.5 / math.sqrt(2))  # 2 Φ(distance / 2) − 1
    assert density(lambda x: -q.log_prob(x), p).total_variation == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", ["8gaussians", "25gaussians", "checkerboard"])
def test_the_truth_itself_has_no_distance(name):
    truth = toy(name)
    report = density(lambda x: 3.0 - truth.log_prob(x), truth)
    assert report.kl_truth_model == pytest.approx(0, abs=1e-6)
    assert report.kl_model_truth == pytest.approx(0, abs=1e-6)
    assert report.total_variation == pytest.approx(0, abs=1e-6)
    assert report.log_z == pytest.approx(-3.0, abs=1e-3)
    assert report.modes_missing == 0


def mixture(modes, std, weights=None):
    weights = torch.ones(len(modes)) if weights is None else weights
    return lambda x: -torch.logsumexp(weights.log() - (x[:, None] - modes).square().sum(-1) / (2 * std**2), 1)


@pytest.mark.parametrize("kept", [8, 6, 1])
def test_modes_that_a_model_leaves_out_are_missing(kept):
    truth = toy("8gaussians")
    report = density(mixture(truth.modes[:kept], truth.mode_std), truth)
    assert (report.modes, report.modes_missing) == (8, 8 - kept)
    if kept < 8:
        assert report.kl_truth_model > report.kl_model_truth  # the forward divergence is the one that sees what is left out
        assert report.kl_model_truth == pytest.approx(math.log(8 / kept), rel=1e-2)
        assert report.total_variation == pytest.approx(1 - kept / 8, abs=1e-2)


def test_a_mode_is_missing_below_a_quarter_of_its_share():
    truth = toy("8gaussians")
    for share, missing in ((0.3, 0), (0.2, 1)):
        weights = torch.ones(8)
        weights[3] = share * 7 / (8 - share)  # normalised, mode 3 then holds `share` of an eighth
        assert density(mixture(truth.modes, truth.mode_std, weights), truth).modes_missing == missing


def test_an_energy_that_is_not_confined_shows_at_the_edge():
    flat = density(lambda x: torch.zeros(len(x)), toy("8gaussians"))
    assert flat.edge_mass == pytest.approx(1 - 0.95**2, abs=1e-6)
    assert flat.log_z == pytest.approx(2 * math.log(2 * toy("8gaussians").extent), abs=1e-6)


def test_infinite_energy_is_only_accepted_where_the_truth_has_no_density():
    class Square(Gaussian):
        def log_prob(self, x):
            return torch.where(x.abs().amax(-1) < 1, -math.log(4), -math.inf)

    square = Square((0, 0), (1, 1), extent=2.0)
    exact = density(lambda x: -square.log_prob(x), square)
    assert exact.total_variation == 0 and exact.log_z == pytest.approx(0, abs=1e-6)
    wider = density(lambda x: torch.zeros(len(x)), square)
    assert wider.kl_truth_model == pytest.approx(math.log(4), rel=1e-6) and wider.kl_model_truth == math.inf
    with pytest.raises(InputError, match="where the truth has density"):
        density(lambda x: -square.log_prob(2 * x), square)


@pytest.mark.parametrize(
    "energy, message",
    [
        (lambda x: torch.full((len(x),), math.nan), "NaN"),
        (lambda x: torch.full((len(x),), -math.inf), "NaN or −inf"),
        (lambda x: torch.full((len(x),), math.inf), "no density anywhere"),
        (lambda x: x, "need \\["),
    ],
)
def test_a_broken_energy_is_refused(energy, message):
    with pytest.raises(InputError, match=message):
        density(energy, toy("8gaussians"), grid=50)


def test_a_grid_that_misses_modes_is_refused():
    with pytest.raises(InputError, match="a mode lies outside"):
        density(lambda x: x.square().sum(-1), toy("8gaussians"), extent=1.0)
    with pytest.raises(InputError, match="grid"):
        density(lambda x: x.square().sum(-1), toy("8gaussians"), grid=0)
    with pytest.raises(InputError, match="extent"):
        density(lambda x: x.square().sum(-1), toy("8gaussians"), extent=-1.0)


def test_grid_points_are_cell_centres_with_rows_going_up():
    points = grid_points(2.0, 8).view(8, 8, 2)
    assert points[0, 0].tolist() == [-1.75, -1.75]
    assert points[0, 7].tolist() == [1.75, -1.75]
    assert points[7, 0].tolist() == [-1.75, 1.75]


def test_energy_distance_of_a_few_points_by_hand():
    x, y = torch.tensor([0.0, 1.0, 3.0]), torch.tensor([2.0, 2.0, 5.0])
    between = (2 + 2 + 5 + 1 + 1 + 4 + 1 + 1 + 2) / 9
    assert energy_distance(x, y) == pytest.approx(2 * between - (1 + 3 + 2) / 3 - (0 + 3 + 3) / 3)


def test_the_jackknife_equals_leaving_out_one_point_at_a_time():
    g = seeded(5)
    x, y = normal(9, 2, generator=g), normal(7, 2, generator=g) + 1
    without_x = torch.tensor([energy_distance(torch.cat([x[:i], x[i + 1 :]]), y) for i in range(9)], dtype=torch.float64)
    without_y = torch.tensor([energy_distance(x, torch.cat([y[:i], y[i + 1 :]])) for i in range(7)], dtype=torch.float64)
    variance = 8 * without_x.var(correction=0) + 6 * without_y.var(correction=0)
    assert energy_distance_interval(x, y).standard_error == pytest.approx(float(variance.sqrt()), rel=1e-6)


def expected_norm(mean: float, std: float) -> float:
    """E|Z| of Z ~ N(mean, std²)."""
    return std * math.sqrt(2 / math.pi) * math.exp(-(mean**2) / (2 * std**2)) + mean * math.erf(mean / (std * math.sqrt(2)))


def test_energy_distance_of_gaussians_on_a_line_is_within_its_error():
    expected = 2 * expected_norm(0.5, math.sqrt(1 + 2.25)) - expected_norm(0, math.sqrt(2)) - expected_norm(0, 1.5 * math.sqrt(2))
    scores, covered = [], 0
    for seed in range(60):
        g = seeded(1, seed)
        found = energy_distance_interval(normal(300, 1, generator=g), 0.5 + 1.5 * normal(400, 1, generator=g))
        scores.append((found.value - expected) / found.standard_error)
        covered += found.low <= expected <= found.high
    scores = torch.tensor(scores)
    assert abs(float(scores.mean())) < 4 / math.sqrt(60)
    assert 0.7 < float(scores.std()) < 1.3
    assert covered >= 50  # 57 expected; below 50 has a chance under one in a thousand


def test_energy_distance_of_gaussians_in_the_plane_is_within_its_error():
    # |X − Y| of round Gaussians of equal centre is Rayleigh: E = s √(π/2) with s² the sum of the variances.
    expected = math.sqrt(math.pi / 2) * (2 * math.sqrt(1 + 4) - math.sqrt(2) - math.sqrt(8))
    g = seeded(2)
    found = energy_distance_interval(normal(3000, 2, generator=g), 2 * normal(3000, 2, generator=g))
    assert abs(found.value - expected) < 4 * found.standard_error
    assert found.standard_error < 0.05 * expected


def test_energy_distance_of_equal_distributions_is_unbiased_and_its_error_not_too_small():
    found = []
    for seed in range(60):
        g = seeded(3, seed)
        found.append(energy_distance_interval(normal(200, 2, generator=g), normal(200, 2, generator=g)))
    values = torch.tensor([f.value for f in found])
    assert abs(float(values.mean())) < 4 * float(values.std()) / math.sqrt(60)
    assert (values < 0).any()
    ratio = float(torch.tensor([f.standard_error for f in found]).square().mean().sqrt() / values.std())
    assert 1.0 < ratio < 2.0


def test_energy_distance_refuses_what_it_cannot_use():
    good = torch.zeros(5, 2)
    with pytest.raises(InputError, match="NaN"):
        energy_distance(torch.full((5, 2), math.nan), good)
    with pytest.raises(InputError, match="same number"):
        energy_distance(good, torch.zeros(5, 3))
    with pytest.raises(InputError, match="N ≥ 3"):
        energy_distance(good[:2], good)


def test_mode_coverage_counts_modes_and_strays():
    truth = toy("8gaussians")
    near = truth.modes[:5].repeat(4, 1) + 0.1 * truth.mode_std
    far = torch.tensor([[0.0, 0.0], [50.0, 0.0]])
    found = mode_coverage(torch.cat([near, far]), truth)
    assert (found.modes, found.hit, found.counts) == (8, 5, (4, 4, 4, 4, 4, 0, 0, 0))
    assert found.fraction == pytest.approx(20 / 22)
    assert mode_coverage(torch.cat([near, far]), truth, at_least=5).hit == 0
    every = mode_coverage(truth.sample(2000, generator=seeded(0)), truth)
    assert every.hit == 8 and every.fraction > 0.995
    with pytest.raises(InputError, match="no separate modes"):
        mode_coverage(near, toy("rings"))
    with pytest.raises(InputError, match="NaN"):
        mode_coverage(near / 0 * 0, truth)


def test_histograms_of_exact_draws_lie_at_their_floor():
    truth = toy("spiral")
    found = [histogram_variation(truth.sample(20_000, generator=seeded(61, i)), truth) for i in range(8)]
    values = torch.tensor([f.value for f in found])
    assert abs(float(values.mean()) - found[0].floor) < 4.5 * float(values.std()) / math.sqrt(len(found)) + 0.02 * found[0].floor
    assert (found[0].samples, found[0].cells) == (20_000, 40)


def test_a_histogram_of_shifted_draws_has_the_closed_form_variation():
    p, q = Gaussian((-0.5, 0.0), (1.0, 1.0)), Gaussian((0.5, 0.0), (1.0, 1.0))
    x = normal(400_000, 2, generator=seeded(62)) + torch.tensor(p.mean)
    found = histogram_variation(x, q)
    assert found.value == pytest.approx(math.erf(0.5 / math.sqrt(2)), abs=found.floor)


def test_samples_outside_the_histogram_are_wrong():
    truth = toy("gaussian")
    x = truth.sample(1000, generator=seeded(63))
    away = torch.cat([x, x + 100])
    assert histogram_variation(away, truth).value >= 0.5
    with pytest.raises(InputError, match=r"got shape \[5, 3\]"):
        histogram_variation(torch.zeros(5, 3), truth)
