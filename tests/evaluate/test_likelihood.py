"""Bounds of log Z against known ones, weights against their definition, log-likelihoods against the flow's own."""

import dataclasses
import math
import warnings

import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
import torch
import zuko
from sklearn.covariance import shrunk_covariance
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal

import thalweg as tw
from thalweg import sample
from thalweg.data import toy
from thalweg.errors import Diverged, InputError
from thalweg.evaluate.annealing import Moves, Path, anneal, bridge, langevin, tuned_path
from thalweg.evaluate.bases import FlowEnergy, Gaussian, fitted_base
from thalweg.evaluate.likelihood import bits_per_dimension, effective_share, log_likelihood, log_partition
from thalweg.random import normal, seeded

SHIFT = -3.75


def shifted(density, shift=SHIFT):
    """The energy of a normalised density plus a constant: log Z = −shift."""
    return lambda x: shift - density.log_prob(x)


def correlated(dim):
    turn, _ = torch.linalg.qr(normal(dim, dim, generator=seeded(5), dtype=torch.float64))
    return Gaussian(torch.full((dim,), 0.3), covariance=turn @ torch.diag(torch.linspace(0.3, 1.4, dim).double()) @ turn.T)


def mixture(dim):
    """Three Gaussians of unequal weights and widths, their centres about four widths apart."""
    centres = torch.zeros(3, dim)
    centres[0, 0], centres[1, :2], centres[2, :2] = 2.0, torch.tensor([-1.0, 1.7]), torch.tensor([-1.0, -1.7])
    widths = torch.tensor([0.7, 0.8, 1.0])[:, None].expand(3, dim)
    return FlowEnergy(MixtureSameFamily(Categorical(torch.tensor([0.5, 0.3, 0.2])), Independent(Normal(centres, widths), 1)))


def nice(dim=16):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return zuko.flows.NICE(dim, transforms=2, hidden_features=(32,)).double()


WIDE = {dim: Gaussian(torch.zeros(dim), 1.0) for dim in (1, 10, 50, 200)}
TARGETS = {
    "gaussian, 1": (Gaussian(torch.tensor([0.3]), 0.5), WIDE[1], 40),
    "gaussian, 10": (Gaussian(torch.full((10,), 0.3), 0.6), WIDE[10], 60),
    "gaussian, 50": (Gaussian(torch.full((50,), 0.2), 0.7), WIDE[50], 100),
    "gaussian, 200": (Gaussian(torch.full((200,), 0.1), 0.8), WIDE[200], 130),
    "correlated, 50": (correlated(50), WIDE[50], 120),
    "mixture, 2": (mixture(2), Gaussian(torch.zeros(2), 2.0), 60),
    "mixture, 10": (mixture(10), Gaussian(torch.zeros(10), 1.5), 100),
}


def check_sandwich(report, log_z, gap=0.5):
    assert report.lower.value - 3 * report.lower.standard_error <= log_z <= report.upper.value + 3 * report.upper.standard_error
    assert abs(report.estimate.value - log_z) < 4 * report.estimate.standard_error
    assert abs(report.estimate_reverse.value - log_z) < 4 * report.estimate_reverse.standard_error
    assert report.gap == report.upper.value - report.lower.value
    assert report.gap < gap and not report.loose
    # weights of both directions have one law of log-ratios: E[log w] is half a variance off either way, roughly
    assert 0 < report.variance < 1 and 0 < report.variance_reverse < 1
    assert 0.3 < report.ess <= 1 and 0.3 < report.ess_reverse <= 1


@pytest.mark.parametrize("name", TARGETS)
def test_the_known_log_z_lies_between_the_bounds(name):
    target, base, temperatures = TARGETS[name]
    samples = target.sample(80, generator=seeded(1))
    report = log_partition(shifted(target), base, samples=samples, chains=64, temperatures=temperatures)
    check_sandwich(report, -SHIFT)
    assert (report.chains, report.chains_reverse, report.temperatures, report.transition) == (64, 64, temperatures, "hmc")
    assert 0.85 < report.acceptance < 0.99 and 0.85 < report.acceptance_reverse < 0.99  # tuned to 0.9, more where jumps are long


def test_a_flow_energy_has_the_bounds_around_its_exact_log_z():
    energy = FlowEnergy(nice(), 41.5)
    assert energy.log_z == -41.5
    base = fitted_base(energy.sample(2000, generator=seeded(2)))
    report = log_partition(energy, base, samples=energy.sample(64, generator=seeded(3)), chains=64, temperatures=40)
    check_sandwich(report, -41.5)


@pytest.mark.parametrize("transition", ["mala", "langevin"])
@pytest.mark.parametrize("schedule", ["linear", "sigmoidal", "adaptive"])
def test_other_transitions_and_schedules_bound_log_z(transition, schedule):
    target = Gaussian(torch.full((4,), 0.3), 0.6)
    report = log_partition(
        shifted(target),
        Gaussian(torch.zeros(4), 1.0),
        samples=target.sample(64, generator=seeded(1)),
        chains=64,
        temperatures=80,
        transition=transition,
        schedule=schedule,
    )
    check_sandwich(report, -SHIFT)
    assert (report.acceptance is None) == (transition == "langevin")


def double_well(x):
    x = x[:, 0]
    return 0.6 * x.square() + 1.2 * torch.cos(1.5 * x) + 0.3 * x


@pytest.mark.parametrize("transition", ["hmc", "mala", "langevin"])
@pytest.mark.parametrize("reverse", [False, True])
def test_weights_are_unbiased_with_few_coarse_steps(transition, reverse):
    z = scipy.integrate.quad(lambda x: math.exp(-0.6 * x * x - 1.2 * math.cos(1.5 * x) - 0.3 * x), -12, 12, epsabs=1e-12)[0]
    chains, generator = 20_000, seeded(4)
    base = Gaussian(torch.zeros(1, dtype=torch.float64), 1.2)
    x = base.sample(chains, generator=generator)
    if reverse:  # exact draws by rejection from the base, exp(3) times which is above exp(−E) everywhere
        x = base.sample(8 * chains, generator=generator)
        keep = torch.rand(len(x), generator=generator, dtype=x.dtype).log() < -double_well(x) - base.log_prob(x) - 3
        assert (-double_well(x) - base.log_prob(x)).max() < 3 and keep.sum() > chains / 2
        x = x[keep]
    path = Path([0.0, 0.3, 0.6, 1.0], [0.4] * 4)
    log_w, _ = anneal(double_well, base, x, path, Moves(transition, 2, 3), generator, reverse=reverse)
    ratio = (math.log(z) - log_w if reverse else log_w - math.log(z)).exp()  # E[w] = Z forward, E[1/w] = 1/Z in reverse
    error = float(ratio.std()) / math.sqrt(len(x))
    assert error < 0.04
    assert abs(float(ratio.mean()) - 1) < 4 * error


def test_langevin_weights_are_the_ratio_of_path_densities():
    """log w = log [p(x_K) ∏ q(x_k → x_{k−1})] − log [p₀(x_0) ∏ q(x_{k−1} → x_k)], written out with normal densities."""
    base, path = Gaussian(torch.zeros(1, dtype=torch.float64), 1.5), Path([0.0, 0.2, 0.7, 1.0], [0.0, 0.5, 0.3, 0.0])
    x = base.sample(50, generator=seeded(6))

    def log_q(energy, start, end, step):
        start = start.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(energy(start).sum(), start)
        return Normal((start - 0.5 * step**2 * gradient).detach(), step).log_prob(end).sum(1)

    for reverse in (False, True):
        generator, at, expected = seeded(7), x, 0
        for k in (2, 1) if reverse else (1, 2):
            for _ in range(2):
                tempered = bridge(double_well, base, path.b[k])
                new = sample.langevin(tempered, at, steps=1, step=path.step[k], generator=generator)
                there, back = (log_q(tempered, *pair, path.step[k]) for pair in ((at, new), (new, at)))
                expected, at = expected + (there - back if reverse else back - there), new
        top, bottom = (x, at) if reverse else (at, x)
        expected = expected - double_well(top) - base.log_prob(bottom)
        log_w, _ = anneal(double_well, base, x, path, Moves("langevin", 2, 1), seeded(7), reverse=reverse)
        torch.testing.assert_close(log_w, expected, rtol=1e-10, atol=1e-10)


def test_langevin_moves_are_those_of_the_sampler():
    x = normal(20, 1, generator=seeded(0), dtype=torch.float64)
    moved, _, _ = langevin(double_well, x, 5, 0.3, seeded(1))
    torch.testing.assert_close(moved, sample.langevin(double_well, x, steps=5, step=0.3, generator=seeded(1)))


def test_two_temperatures_are_importance_sampling_in_closed_form():
    """E[log w] is log Z − KL(p₀‖p) forward and log Z + KL(p‖p₀) in reverse; intervals cover; the summary is numpy's."""
    base, target = Gaussian(torch.zeros(3, dtype=torch.float64), 1.0), Gaussian(torch.full((3,), 0.2, dtype=torch.float64), 0.8)
    kl = [3 * (math.log(b / a) + (a * a + 0.2**2) / (2 * b * b) - 0.5) for a, b in ((1.0, 0.8), (0.8, 1.0))]
    covered, runs = [0, 0, 0, 0], 30
    for seed in range(runs):
        samples = target.sample(300, generator=seeded(10, seed))
        report = log_partition(shifted(target), base, samples=samples, chains=300, temperatures=2, seed=seed)
        truths = (-SHIFT - kl[0], -SHIFT + kl[1], -SHIFT, -SHIFT)
        for i, (bound, truth) in enumerate(zip((report.lower, report.upper, report.estimate, report.estimate_reverse), truths)):
            covered[i] += bound.low <= truth <= bound.high
            assert bound.low < bound.value < bound.high
    assert min(covered) >= 23  # 30 runs at 95 %: fewer has a chance below 0.0002
    assert report.acceptance is None

    x = base.sample(300, generator=seeded(runs - 1, 4, 0)).numpy()
    log_w = -SHIFT + scipy.stats.norm.logpdf(x, 0.2, 0.8).sum(1) - scipy.stats.norm.logpdf(x).sum(1)
    w = np.exp(log_w)
    assert report.lower.value == pytest.approx(log_w.mean(), rel=1e-9)
    assert report.lower.standard_error == pytest.approx(scipy.stats.sem(log_w), rel=1e-9)
    assert report.variance == pytest.approx(log_w.var(ddof=1), rel=1e-9)
    assert report.estimate.value == pytest.approx(scipy.special.logsumexp(log_w, b=1 / 300), rel=1e-9)
    assert report.estimate.standard_error == pytest.approx(w.std() / w.mean() / math.sqrt(300), rel=0.1)  # delta method
    assert report.ess == pytest.approx(w.sum() ** 2 / (w**2).sum() / 300, rel=1e-9)


def test_effective_share_by_hand():
    assert effective_share(torch.log(torch.tensor([1.0, 1.0, 2.0]))) == pytest.approx(16 / 6 / 3)
    assert effective_share(torch.full((7,), -3000.0)) == pytest.approx(1)


def test_frozen_numbers():
    base, target = Gaussian(torch.zeros(3, dtype=torch.float64), 1.0), Gaussian(torch.full((3,), 0.2, dtype=torch.float64), 0.8)
    samples = target.sample(20, generator=seeded(1))
    plain = log_partition(shifted(target), base, samples=samples, chains=20, temperatures=2)
    assert (plain.lower.value, plain.upper.value) == pytest.approx((3.4783656736870596, 3.842424976965154), rel=1e-9)
    annealed = log_partition(
        shifted(target), base, samples=samples, chains=20, temperatures=10, transition="mala", step=0.5, schedule="linear"
    )
    found = (annealed.estimate.value, annealed.upper.value, annealed.ess, annealed.acceptance)
    assert found == pytest.approx((3.7375677720532594, 3.903494502917085, 0.8729134682847539, 0.96875), rel=1e-6)


def test_the_adaptive_schedule_is_the_geometric_one_between_round_gaussians():
    """Between N(0, I) and N(0, I/τ), E₀ − E deviates in proportion to 1/(1 + (τ − 1) b), so equal shares are powers of τ."""
    base, target = Gaussian(torch.zeros(20), 1.0), Gaussian(torch.zeros(20), 0.2)
    path = tuned_path(lambda x: -target.log_prob(x), base, Moves("hmc", 1, 5), temperatures=11)
    expected = (25 ** torch.linspace(0, 1, 11) - 1) / 24
    assert path.b[0] == 0 and path.b[-1] == 1
    torch.testing.assert_close(torch.tensor(path.b)[1:-1].log(), expected[1:-1].log(), atol=0.25, rtol=0)
    assert path.step[1] / path.step[-1] > 2  # and the steps follow the width, here from 1 to 0.2
    assert tuned_path(shifted(target), base, Moves("hmc", 1, 5), temperatures=3, schedule="linear", step=0.1).b == [0, 0.5, 1]


def test_a_loose_bound_warns_and_says_why():
    target = Gaussian(torch.full((200,), 0.3), 0.7)
    with pytest.warns(UserWarning, match="bounds are loose: a gap of .* nats, above 1; an effective share .* forward .*a variance of"):
        report = log_partition(shifted(target), WIDE[200], samples=target.sample(64, generator=seeded(1)), chains=64, temperatures=2)
    assert report.loose and report.gap > 10 and report.lower.high < -SHIFT < report.upper.low
    with pytest.warns(UserWarning, match="effective share"):  # also without an upper bound
        assert log_partition(shifted(target), WIDE[200], chains=64, temperatures=2).loose


def test_samples_of_another_density_are_noticed():
    target = Gaussian(torch.zeros(1), 0.5)
    with pytest.warns(UserWarning, match="samples are not draws of this energy"):
        report = log_partition(shifted(target), WIDE[1], samples=3 + 0.01 * normal(50, 1, generator=seeded(1)), temperatures=2, chains=50)
    assert report.loose and report.gap < 0


def test_without_samples_there_is_no_upper_bound_and_fields_are_plain():
    report = log_partition(shifted(TARGETS["gaussian, 1"][0]), WIDE[1], chains=16, temperatures=20, step=0.5, schedule="linear")
    assert report.upper is report.gap is report.estimate_reverse is report.ess_reverse is report.variance_reverse is None
    assert report.acceptance_reverse is None and report.chains_reverse == 0
    assert dataclasses.asdict(report)["lower"]["value"] == report.lower.value


def test_seeds_batches_and_the_global_generator():
    target, near = TARGETS["gaussian, 10"][0], Gaussian(torch.full((10,), 0.3), 0.65)
    knobs = {"samples": target.sample(40, generator=seeded(1)), "chains": 30, "temperatures": 4, "leapfrog": 2}
    state = torch.get_rng_state()
    runs = [log_partition(shifted(target), near, **knobs, seed=seed) for seed in (3, 3, 4)]
    FlowEnergy(nice()).sample(3, generator=seeded(1))
    assert torch.equal(torch.get_rng_state(), state)
    assert runs[0] == runs[1] != runs[2]
    parts = []

    def watched(x):
        parts.append(len(x))
        return SHIFT - target.log_prob(x)

    knobs["temperatures"] = 2
    report = log_partition(watched, near, **knobs, batch=16)
    assert parts == [2, 16, 16, 16, 14, 16, 14] and (report.chains, report.chains_reverse) == (30, 30)
    whole = log_partition(watched, near, **knobs)
    assert report.upper.value == pytest.approx(whole.upper.value, rel=1e-6)  # the same samples, however they are split


def test_toys_and_images_as_bases_and_energies():
    target = toy("8gaussians")
    samples = target.sample(128, generator=seeded(1))
    report = log_partition(lambda x: target.energy(x) - 1, fitted_base(samples), samples=samples, chains=128, temperatures=60)
    assert report.lower.low < 1 < report.upper.high
    images = 0.3 * normal(50, 2, 3, 3, generator=seeded(2))
    base = fitted_base(images)
    assert base.sample(5, generator=seeded(0)).shape == (5, 2, 3, 3)
    assert log_partition(lambda x: 2 - base.log_prob(x), base, samples=images, temperatures=3, chains=8).gap == pytest.approx(0, abs=1e-4)


# --- bases


def test_gaussian_is_that_of_torch():
    target = correlated(6)
    covariance = target.scale @ target.scale.T
    reference = MultivariateNormal(target.mean, covariance)
    x = target.sample(40_000, generator=seeded(0))
    torch.testing.assert_close(target.log_prob(x[:50]), reference.log_prob(x[:50]), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(x.mean(0), target.mean, rtol=0, atol=0.03)
    torch.testing.assert_close(x.T.cov(), covariance, rtol=0, atol=0.05)
    std = torch.tensor([0.5, 2.0])
    flat = Gaussian(torch.ones(2), std)
    torch.testing.assert_close(flat.log_prob(x[:50, :2]), Normal(torch.ones(2), std).log_prob(x[:50, :2]).sum(1))
    torch.testing.assert_close(flat.sample(40_000, generator=seeded(0)).std(0), std, rtol=0.02, atol=0)


def test_fitted_base_has_the_shrunk_moments():
    x = normal(60, 5, generator=seeded(3), dtype=torch.float64) * torch.tensor([1.0, 2.0, 0.5, 0.1, 0.0]) + 7
    expected = torch.from_numpy(shrunk_covariance(np.cov(x.T.numpy(), bias=True), 0.2))
    full = fitted_base(x, covariance="full", shrinkage=0.2)
    torch.testing.assert_close(full.scale @ full.scale.T, expected, rtol=1e-9, atol=1e-12)
    diagonal = fitted_base(x.view(60, 5, 1), shrinkage=0.2)
    torch.testing.assert_close(diagonal.scale.square(), expected.diagonal(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(diagonal.mean[:, 0], x.mean(0))
    with pytest.raises(InputError, match="deviation that is not above 0"):
        fitted_base(x, shrinkage=0.0)
    with pytest.raises(InputError, match="not positive definite"):
        fitted_base(x, covariance="full", shrinkage=0.0)


# --- log-likelihood


def test_a_flow_has_its_exact_log_likelihood():
    flow = nice()
    energy = FlowEnergy(flow, 41.5, shape=(1, 4, 4))
    x = energy.sample(300, generator=seeded(5))
    assert x.shape == (300, 1, 4, 4) and torch.equal(x, energy.sample(300, generator=seeded(5)))
    exact = flow().log_prob(x.flatten(1)).detach().numpy()
    torch.testing.assert_close(energy(x).detach(), torch.from_numpy(41.5 - exact))
    report = log_likelihood(energy, x, batch=128)
    assert report.value.value == pytest.approx(exact.mean(), rel=1e-9)
    assert report.value.standard_error == pytest.approx(scipy.stats.sem(exact), rel=1e-9)
    assert report.exact and report.lower is report.upper is None
    assert (report.n, report.dimensions) == (300, 16)
    assert report.bits_per_dimension == pytest.approx(-exact.mean() / 16 / math.log(2))
    assert log_likelihood(energy, x, -41.5) == report


def test_log_likelihood_takes_the_bounds_of_log_z():
    target = TARGETS["gaussian, 10"][0]
    x = target.sample(200, generator=seeded(6))
    log_z = log_partition(shifted(target), WIDE[10], samples=target.sample(64, generator=seeded(1)), chains=64, temperatures=30)
    report = log_likelihood(shifted(target), x, log_z)
    exact = target.log_prob(x).double()
    energy_error = float(exact.std()) / math.sqrt(200)
    for found, bound in ((report.value, log_z.estimate), (report.lower, log_z.upper), (report.upper, log_z.lower)):
        assert found.value == pytest.approx(float(exact.mean()) - SHIFT - bound.value, rel=1e-5)
        assert found.standard_error == pytest.approx(math.hypot(energy_error, bound.standard_error), rel=1e-5)
    assert report.lower.value < report.upper.value and not report.exact
    assert log_likelihood(shifted(target), x, dataclasses.replace(log_z, upper=None)).lower is None


@pytest.mark.parametrize(
    "energy",
    [
        lambda x: 0.0 * x.sum(1),
        lambda x: -x.square().sum(1) / 2,
        lambda x: x[:, 0],
        lambda x: 1.5 * (1 + x.square().sum(1)).log() / 2,
        lambda x: (1 + x.square().sum(1)).log(),
        lambda x: -3 * (-x.square().sum(1)).exp(),
    ],
    ids=["flat", "falling", "linear", "tails as 1/r^1.5 in two dimensions", "as 1/r^2", "a bump on a plain"],
)
def test_an_infinite_log_z_never_passes_for_a_finite_one(energy):
    with pytest.raises(InputError, match="log Z is infinite: far out"):
        log_partition(energy, Gaussian(torch.zeros(2), 1.0), chains=8, temperatures=8)


@pytest.mark.parametrize(
    "energy",
    [
        lambda x: x.square().sum(1) / 2,
        lambda x: x.abs().sum(1),
        lambda x: 3 * (1 + x.square().sum(1)).log() / 2,  # Cauchy's in two dimensions
        lambda x: 2.1 * (1 + x.square().sum(1)).log() / 2,
        lambda x: torch.where((x.abs() < 1e3).all(1), x.square().sum(1) / 2, torch.inf),
    ],
    ids=["Gaussian", "Laplace", "Cauchy", "tails as 1/r^2.1", "a box"],
)
def test_energies_that_confine_are_not_refused(energy):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert math.isfinite(log_partition(energy, Gaussian(torch.zeros(2), 1.0), chains=8, temperatures=8).lower.value)


def test_infinite_bounds_are_refused():
    energy, base = (lambda x: x.square().sum(1) / 2), Gaussian(torch.zeros(2), 1.0)
    partition = log_partition(energy, base, chains=8, temperatures=8)
    for bad in (math.inf, -math.inf, math.nan):
        wrong = dataclasses.replace(partition, estimate=dataclasses.replace(partition.estimate, value=bad))
        with pytest.raises(InputError, match="infinite or NaN"):
            log_likelihood(energy, torch.zeros(4, 2), wrong)
        with pytest.raises(InputError, match="need a finite number"):
            log_likelihood(energy, torch.zeros(4, 2), bad)


def test_grey_values_are_those_of_the_data():
    digits = tw.data.load("digits", "test").all().x
    assert tw.evaluate.grey_bins(digits) == (0.125, 17)
    generator = seeded(0)
    for count in (2, 5, 16, 256):
        x = torch.randint(0, count, (64, 1, 8, 8), generator=generator) * (2 / (count - 1)) - 1
        width, found = tw.evaluate.grey_bins(x)
        assert width == pytest.approx(2 / (count - 1), rel=1e-4) and found == count
    gaps = torch.tensor([0.0, 2.0, 5.0, 9.0])[torch.randint(0, 4, (64, 1, 8, 8), generator=generator)] / 127.5 - 1
    assert tw.evaluate.grey_bins(gaps).width == pytest.approx(1 / 127.5, rel=1e-4)
    for continuous in (torch.rand(64, 1, 8, 8, generator=generator), torch.zeros(8, 1, 8, 8), torch.randn(500, 6)):
        assert tw.evaluate.grey_bins(continuous) is None
    bins = tw.evaluate.grey_bins(digits)
    spread = tw.evaluate.dequantise(digits, bins, generator)
    assert ((spread - digits).abs() <= 0.0625).all() and (spread - digits).std() == pytest.approx(0.125 / 12**0.5, rel=0.02)


def test_bits_of_a_uniform_density_are_those_of_its_grey_values():
    """17 equally likely grey values are log2(17) bits, whatever model knows them to be uniform over their bins."""
    width = 0.125
    report = log_likelihood(lambda x: 0.0 * x.flatten(1).sum(1), torch.zeros(4, 1, 8, 8), 64 * math.log(17 * width), bin_width=width)
    assert report.bits_per_dimension == pytest.approx(math.log2(17))


def test_bits_per_dimension_of_discrete_values():
    # independent uniform values over 256 levels of width 2/256 have density 1/2 a value: 8 bits each
    assert bits_per_dimension(-12 * math.log(2), 12, 2 / 256) == pytest.approx(8)
    assert bits_per_dimension(-12 * math.log(2), 12) == pytest.approx(1)
    uniform = lambda x: torch.zeros(len(x))  # noqa: E731
    report = log_likelihood(uniform, torch.zeros(4, 3, 2, 2), 12 * math.log(2), bin_width=2 / 256)
    assert (report.bits_per_dimension, report.bin_width) == (pytest.approx(8), 2 / 256)


# --- what is refused

GOOD = lambda x: x.square().sum(1)  # noqa: E731
REFUSED = {
    "chains is 1, need a whole number, 2 or more": {"chains": 1},
    "temperatures is 1": {"temperatures": 1},
    "steps is 0": {"steps": 0},
    "leapfrog is 2.5": {"leapfrog": 2.5},
    "batch is 0": {"batch": 0},
    "step is -1.0, need a positive number": {"step": -1.0},
    "no transition 'nuts', there are hmc, mala, langevin": {"transition": "nuts"},
    "did you mean 'langevin'": {"transition": "langvin"},
    "no schedule 'cosine'": {"schedule": "cosine"},
    "energy: NaN or infinite at 2 of 2 points": {"energy": lambda x: x.sum(1) * math.nan},
    "need \\[2\\]": {"energy": lambda x: x},
    "energy: got shape \\[\\] for 2": {"energy": lambda x: x.sum()},
    "samples: got shape \\[9, 3\\], need \\[M, 4\\]": {"samples": torch.zeros(9, 3)},
    "samples: got shape \\[1, 4\\]": {"samples": torch.zeros(1, 4)},
    "samples: NaN": {"samples": torch.full((9, 4), math.nan)},
}


@pytest.mark.parametrize("message", REFUSED)
def test_wrong_requests_are_refused(message):
    knobs = {"energy": GOOD, "base": Gaussian(torch.zeros(4), 1.0), "chains": 4, "temperatures": 3, "step": 0.1} | REFUSED[message]
    with pytest.raises(InputError, match=message):
        log_partition(**knobs)


def test_energies_that_break_on_the_way_are_refused():
    base = Gaussian(torch.zeros(1), 1.0)
    with pytest.raises(InputError, match="energy: NaN or infinite"):
        log_partition(lambda x: torch.where(x[:, 0] > 1, math.nan, x[:, 0].square()), base, temperatures=5, schedule="linear", step=0.5)
    with pytest.raises(Diverged, match=r"langevin: chains left the finite numbers at b = 0\.5; lower the step"):
        anneal(lambda x: x[:, 0] ** 4, base, torch.ones(4, 1), Path([0, 0.5, 1], [5.0] * 3), Moves("langevin", 9, 1), seeded(0))


def test_wrong_bases_and_examples_are_refused():
    x = torch.zeros(4, 2)
    for call, message in (
        (lambda: Gaussian(torch.zeros(2)), "one of std and covariance"),
        (lambda: Gaussian(torch.zeros(2), 0.0), "not above 0"),
        (lambda: Gaussian(torch.zeros(2), covariance=torch.eye(3)), "need \\[2, 2\\]"),
        (lambda: fitted_base(x[:1]), "N ≥ 2"),
        (lambda: fitted_base(x * math.nan), "finite"),
        (lambda: fitted_base(x.int()), "floating-point"),
        (lambda: fitted_base(x, covariance="banded"), "no covariance 'banded'"),
        (lambda: fitted_base(x, shrinkage=1.5), "need \\[0, 1\\]"),
        (lambda: FlowEnergy(3), "int has no log_prob"),
        (lambda: log_likelihood(GOOD, x), "no log_z of its own"),
        (lambda: log_likelihood(GOOD, x, math.inf), "log_z is inf"),
        (lambda: log_likelihood(GOOD, x[:1], 0.0), "N ≥ 2"),
        (lambda: log_likelihood(GOOD, x * math.nan, 0.0), "finite"),
        (lambda: log_likelihood(lambda x: x, x, 0.0), "need \\[4\\]"),
        (lambda: bits_per_dimension(1.0, 0), "above 0"),
        (lambda: bits_per_dimension(1.0, 3, -1.0), "above 0"),
    ):
        with pytest.raises(InputError, match=message):
            call()
