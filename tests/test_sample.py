"""Samplers against exact stationary moments, exact recursions and hand-written loops.

Bounds are standard errors: for chains σ/√ESS, the effective sample size ESS from the autocorrelation over many parallel
chains (Geyer's initial positive sequence); for independent draws σ/√n. |z| < 4.5 everywhere, all draws seeded.
"""

import math
import os
import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from thalweg import noise, random, sample
from thalweg.energy import score
from thalweg.errors import Diverged, InputError
from thalweg.sample import Trace

BOUND = 4.5


def effective_size(f: Tensor, mean: float) -> float:
    """ESS of states f [steps, chains] with this expectation."""
    steps, chains = f.shape
    spectrum = torch.fft.rfft((f - mean).double(), n=2 * steps, dim=0)
    covariance = torch.fft.irfft(spectrum * spectrum.conj(), dim=0)[:steps].sum(1) / torch.arange(steps, 0, -1) / chains
    correlation = covariance / covariance[0]
    pairs = correlation[0 : steps - 1 : 2] + correlation[1:steps:2]
    positive = int((pairs <= 0).nonzero()[0]) if bool((pairs <= 0).any()) else len(pairs)
    return steps * chains / max(1e-9, float(2 * pairs[:positive].sum() - 1))


def assert_expectation(f: Tensor, expected: float, what: str) -> float:
    """mean of f [steps, chains] is within BOUND·σ/√ESS of `expected`; returns the ESS."""
    size = effective_size(f, expected)
    z = float(f.double().mean() - expected) / (float((f.double() - expected).square().mean().sqrt()) / math.sqrt(size))
    assert size > 500, f"{what}: an effective size of {size:.0f} says too little"
    assert abs(z) < BOUND, f"{what}: {float(f.mean()):.5f} for {expected:.5f}, z = {z:.1f} at an effective size of {size:.0f}"
    return size


def states_of(sampler, energy, x: Tensor, *, steps: int, burn_in: int, seed: int = 1, **options) -> tuple[Tensor, Trace]:
    """All states after burn-in [steps, chains, D]."""
    trace = Trace(keep=steps + burn_in + 1)
    sampler(energy, x, steps=steps + burn_in, generator=random.seeded(seed), trace=trace, **options)
    assert trace.at == list(range(steps + burn_in + 1))
    return trace.states[burn_in + 1 :], trace


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return random.normal(*shape, generator=random.seeded(77, seed), dtype=dtype)


# --- Gaussians

MEAN = torch.tensor([1.0, -0.5, 0.25])
ROOT = torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.5, 0.0], [-0.3, 0.4, 0.7]])
COVARIANCE = ROOT @ ROOT.T
PRECISION = torch.linalg.inv(COVARIANCE)


def correlated(x: Tensor) -> Tensor:
    return 0.5 * ((x - MEAN) @ PRECISION * (x - MEAN)).sum(1)


def assert_gaussian_moments(states: Tensor, mean: Tensor, covariance: Tensor) -> None:
    centred = states - mean
    for i in range(len(mean)):
        assert_expectation(states[..., i], float(mean[i]), f"mean of x{i}")
        for j in range(i, len(mean)):
            assert_expectation(centred[..., i] * centred[..., j], float(covariance[i, j]), f"covariance of x{i} and x{j}")


def discretised_covariance(precision: Tensor, step: float, tau: float = 1.0) -> Tensor:
    """Of x ← x − (s²/2) P (x − μ) + sτξ: s²τ² (I − (I − s²P/2)²)⁻¹."""
    one = torch.eye(len(precision), dtype=torch.float64)
    contraction = one - 0.5 * step**2 * precision.double()
    return step**2 * tau**2 * torch.linalg.inv(one - contraction @ contraction)


@pytest.mark.parametrize("step, tau, temperature", [(0.35, 1.0, 1.0), (0.35, 0.5, 1.0), (0.5, 1.0, 2.0)])
def test_langevin_has_its_exact_discretised_covariance(step, tau, temperature):
    expected = discretised_covariance(PRECISION / temperature, step, tau)
    if tau == 1.0:  # far enough from the target's covariance that the test tells one from the other
        assert (expected - temperature * COVARIANCE).abs().max() > 0.02
    states, _ = states_of(
        sample.langevin, correlated, 3 * normal(256, 3), steps=600, burn_in=200, step=step, noise=tau, temperature=temperature
    )
    assert_gaussian_moments(states, MEAN, expected)


def test_langevin_in_one_dimension_has_the_textbook_variance():
    """E = x²/(2v): variance s²/(1 − (1 − s²/(2v))²)."""
    v, s = 0.5, 0.9
    states, _ = states_of(sample.langevin, lambda x: (x.square() / (2 * v)).sum(1), normal(512, 1), steps=200, burn_in=30, step=s)
    expected = s**2 / (1 - (1 - s**2 / (2 * v)) ** 2)
    assert expected > 1.2 * v
    assert_expectation(states[..., 0].square(), expected, "variance")


@pytest.mark.parametrize(
    "sampler, options, accepted",
    [(sample.mala, {"step": 0.45}, (0.5, 0.95)), (sample.hmc, {"step": 0.45, "leapfrog": 4}, (0.6, 0.98))],
    ids=["mala", "hmc"],
)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_adjusted_samplers_have_the_target_s_moments(sampler, options, accepted, temperature):
    states, trace = states_of(sampler, correlated, 3 * normal(256, 3), steps=500, burn_in=120, temperature=temperature, **options)
    assert_gaussian_moments(states, MEAN, temperature * COVARIANCE)
    assert accepted[0] < float(trace.acceptance.mean()) < accepted[1], "neither always nor never accepted"


def test_many_dimensions_of_different_widths():
    widths = torch.linspace(0.5, 1.5, 16)
    for sampler, options in ((sample.mala, {"step": 0.55}), (sample.hmc, {"step": 0.35, "leapfrog": 5})):
        energy = lambda x: 0.5 * (x / widths).square().sum(1)  # noqa: E731
        states, _ = states_of(sampler, energy, widths * normal(128, 16, seed=3), steps=300, burn_in=60, **options)
        assert_expectation((states / widths).square().mean(2), 1.0, "mean squared width")
        assert_expectation(states[..., 0].square(), float(widths[0] ** 2), "narrowest")
        assert_expectation(states[..., -1].square(), float(widths[-1] ** 2), "widest")


def test_acceptance_of_independent_gaussian_is_exact():
    """MALA on N(0, 1) in one dimension: the accepted share equals its integral over x and ξ."""
    s = 1.4
    states, trace = states_of(sample.mala, lambda x: x.square().sum(1) / 2, normal(512, 1), steps=200, burn_in=0, step=s)
    line = torch.linspace(-7, 7, 701, dtype=torch.float64)
    weight = torch.exp(-line.square() / 2)
    weight = weight / weight.sum()
    x, xi = line[:, None], line[None]
    new = x - 0.5 * s * s * x + s * xi
    back = (x - new + 0.5 * s * s * new) / s
    exact = float((weight[:, None] * weight * torch.exp((x.square() - new.square() + xi.square() - back.square()) / 2).clamp(max=1)).sum())
    shares = trace.acceptance.double()
    assert 0.3 < exact < 0.9
    assert abs(float(shares.mean()) - exact) < BOUND * float(shares.std()) / math.sqrt(len(shares))
    assert len(states) == 200


# --- mixtures


MIX = {"weights": (0.3, 0.7), "means": (-1.4, 1.0), "stds": (0.6, 0.8)}


def mixture(x: Tensor) -> Tensor:
    parts = [math.log(w / s) - (x[:, 0] - m).square() / (2 * s * s) for w, m, s in zip(MIX["weights"], MIX["means"], MIX["stds"])]
    return -torch.logsumexp(torch.stack(parts), 0)


def mixture_moments() -> tuple[float, float, float]:
    first = sum(w * m for w, m in zip(MIX["weights"], MIX["means"]))
    second = sum(w * (m * m + s * s) for w, m, s in zip(*MIX.values()))
    left = sum(w * 0.5 * math.erfc(m / (s * math.sqrt(2))) for w, m, s in zip(*MIX.values()))
    return first, second, left


def assert_mixture_moments(states: Tensor, first: float, second: float, left: float) -> None:
    x = states[..., 0]
    assert_expectation(x, first, "mean")
    assert_expectation(x.square(), second, "second moment")
    assert_expectation((x < 0).double(), left, "mass below 0")


@pytest.mark.parametrize(
    "sampler, options", [(sample.mala, {"step": 1.2}), (sample.hmc, {"step": 0.6, "leapfrog": 4})], ids=["mala", "hmc"]
)
def test_adjusted_samplers_weigh_the_modes_of_a_mixture(sampler, options):
    states, _ = states_of(sampler, mixture, 2 * normal(512, 1), steps=500, burn_in=100, **options)
    assert_mixture_moments(states, *mixture_moments())


def test_langevin_on_a_mixture_has_the_stationary_law_of_its_kernel():
    """The exact law of the discretised chain, by iterating its transition density on a grid."""
    s = 0.8
    line = torch.linspace(-7, 7, 1001, dtype=torch.float64)[:, None]
    moved = line + 0.5 * s * s * score(mixture, line)
    kernel = torch.exp(-(line.T - moved).square() / (2 * s * s))
    kernel = kernel / kernel.sum(1, keepdim=True)
    for _ in range(10):
        kernel = kernel @ kernel  # 1024 steps: every row is the stationary law
    law, x = kernel[500], line[:, 0]
    assert (kernel[300] - law).abs().max() < 1e-9
    below = float(law[x < 0].sum() + 0.5 * law[500])
    first, second = float((law * x).sum()), float((law * x.square()).sum())
    assert abs(second - mixture_moments()[1]) > 0.05, "the discretisation must show"
    states, _ = states_of(sample.langevin, mixture, 2 * normal(512, 1), steps=500, burn_in=100, step=s)
    assert_mixture_moments(states, first, second, below)


# --- Langevin, step by step


def quartic(x: Tensor, *, shift: float = 0.0) -> Tensor:
    return 0.25 * (x - shift).pow(4).flatten(1).sum(1)


STEPS, NOISES = [0.3, 0.2, 0.1, 0.05], [1.0, 0.5, 0.0, 2.0]


@pytest.mark.parametrize("knobs", ["number", "list", "tuple", "function"])
@pytest.mark.parametrize(
    "clip, clamp, temperature", [(None, None, 1.0), (0.004, None, 1.0), (None, (-0.9, 0.8), 1.0), (0.004, (-1, 1), 3.0)]
)
def test_langevin_equals_a_hand_written_loop(knobs, clip, clamp, temperature):
    step, tau = {
        "number": (0.2, 0.7),
        "list": (STEPS, NOISES),
        "tuple": (tuple(STEPS), tuple(NOISES)),
        "function": (lambda i: STEPS[i], lambda i: NOISES[i]),
    }[knobs]
    start = normal(6, 2, 3, dtype=torch.float64)
    before = start.clone()
    found = sample.langevin(
        quartic,
        start,
        steps=4,
        step=step,
        noise=tau,
        clip=clip,
        clamp=clamp,
        temperature=temperature,
        generator=random.seeded(5),
        shift=0.1,
    )
    generator, x = random.seeded(5), start.clone()
    for i in range(4):
        s, weight = (0.2, 0.7) if knobs == "number" else (STEPS[i], NOISES[i])
        move = -(s**2 / 2) * (x - 0.1) ** 3 / temperature
        if clip is not None:
            assert i > 0 or move.abs().max() > clip, "the bound must bind"
            move = move.clamp(-clip, clip)
        x = x + move
        if weight:  # no noise, no draw
            x = x + s * weight * torch.randn(6, 2, 3, generator=generator, dtype=torch.float64)
        if clamp is not None:
            x = x.clamp(*clamp)
    torch.testing.assert_close(found, x, rtol=1e-12, atol=1e-12)
    assert torch.equal(start, before), "the start is not written to"


def test_without_noise_langevin_is_gradient_descent():
    x = sample.langevin(correlated, normal(8, 3), steps=400, step=0.4, noise=0.0)
    torch.testing.assert_close(x, MEAN.expand(8, 3), rtol=0, atol=1e-4)


def test_zero_steps_return_the_start():
    x = normal(4, 3)
    for sampler in (sample.langevin, sample.mala, sample.hmc):
        trace = Trace(keep=3)
        found = sampler(correlated, x, steps=0, trace=trace)
        assert torch.equal(found, x) and trace.at == [0] and float(trace.displacement.abs().max()) == 0


def test_temperature_out_of_range_is_refused():
    with pytest.raises(ValueError, match="temperature"):
        sample.langevin(correlated, normal(2, 3), steps=1, temperature=0.0)


def test_projection_comes_after_each_step_and_after_the_clamp():
    start, seen = normal(4, 3, dtype=torch.float64), []

    def project(x: Tensor) -> Tensor:
        seen.append(x)
        return torch.cat([torch.full_like(x[:, :1], 2.0), x[:, 1:]], 1)

    options = dict(step=0.3, clamp=(-0.5, 0.5))
    trace = Trace(keep=4)
    found = sample.langevin(quartic, start, steps=3, project=project, generator=random.seeded(5), trace=trace, **options)
    generator, x = random.seeded(5), start
    for i in range(3):
        x = sample.langevin(quartic, x, steps=1, generator=generator, **options)
        assert torch.equal(seen[i], x) and float(x.abs().max()) <= 0.5
        x = torch.cat([torch.full_like(x[:, :1], 2.0), x[:, 1:]], 1)
        torch.testing.assert_close(trace.states[i + 1], x.float())
    assert torch.equal(found, x) and len(seen) == 3


def test_langevin_on_a_plane_is_the_conditional_s_dynamics():
    """x₁ held at 1 by projection: x₂, x₃ have the discretised law of the conditional Gaussian, and of no other."""
    project = lambda x: torch.cat([torch.ones_like(x[:, :1]), x[:, 1:]], 1)  # noqa: E731
    states, _ = states_of(sample.langevin, correlated, project(normal(256, 3)), steps=600, burn_in=200, step=0.35, project=project)
    assert (states[..., 0] == 1).all()
    inner = PRECISION[1:, 1:]
    mean = MEAN[1:] - torch.linalg.solve(inner, PRECISION[1:, 0]) * (1 - MEAN[0])
    assert_gaussian_moments(states[..., 1:], mean, discretised_covariance(inner, 0.35))
    assert (discretised_covariance(inner, 0.35) - COVARIANCE[1:, 1:]).abs().max() > 0.1


# --- posterior means


@pytest.mark.parametrize("steps", [1, 5, 8])
def test_posterior_mean_is_the_mean_of_the_second_half_of_a_chain(steps):
    y, std = normal(6, 2, 3, dtype=torch.float64), 0.8
    before = y.clone()
    found = sample.posterior_mean(quartic, y, std, steps=steps, step=0.3, generator=random.seeded(4))
    generator, x, kept = random.seeded(4), y, []
    for i in range(steps):
        slope = x**3 + (x - y) / std**2
        x = x - 0.3**2 / 2 * slope + 0.3 * torch.randn(6, 2, 3, generator=generator, dtype=torch.float64)
        if i >= steps // 2:
            kept.append(x)
    torch.testing.assert_close(found, torch.stack(kept).mean(0), rtol=1e-12, atol=1e-12)
    assert torch.equal(y, before)


@pytest.mark.parametrize("std", [0.3, 1.0])
def test_posterior_mean_of_a_gaussian(std):
    n, one = 800, torch.tensor([[0.5, 1.5, -1.0]])
    found = sample.posterior_mean(correlated, one.expand(n, 3), std, steps=300, step=0.3 * std, generator=random.seeded(7)).double()
    precision = PRECISION + torch.eye(3) / std**2
    exact = torch.linalg.solve(precision, PRECISION @ MEAN + one[0] / std**2)
    z = (found.mean(0) - exact) / (found.std(0) / math.sqrt(n))
    assert z.abs().max() < BOUND and (found.std(0) / math.sqrt(n)).max() < 0.01 < (exact - one[0]).abs().max()


@pytest.mark.parametrize("std, steps", [(0.0, 10), (-1.0, 10), (math.nan, 10), (0.5, 0)])
def test_posterior_mean_refuses_no_noise_and_no_steps(std, steps):
    with pytest.raises(InputError, match="std above 0 and 1 step or more"):
        sample.posterior_mean(quartic, normal(2, 3), std, steps=steps, step=0.1)


# --- randomness


ANCESTRAL = noise.linear_beta(8, 0.02, 0.4)


def run(name: str, generator: torch.Generator | tuple | None) -> Tensor:
    x = normal(8, 3)
    match name:
        case "annealed_langevin":
            return sample.annealed_langevin(lambda x, t: x.square().sum(1), x, ANCESTRAL, steps=2, generator=generator)
        case "ancestral":
            return sample.ancestral(lambda x, t: 0.1 * x, x, ANCESTRAL, generator=generator)
        case _:
            return getattr(sample, name)(correlated, x, steps=5, step=0.3, generator=generator)


SAMPLERS = ("langevin", "mala", "hmc", "annealed_langevin", "ancestral")


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_generator_fixes_the_draws_and_the_global_one_is_left_alone(name):
    torch.manual_seed(11)
    before = torch.get_rng_state()
    first = run(name, random.seeded(1))
    assert torch.equal(first, run(name, random.seeded(1)))
    assert not torch.equal(first, run(name, random.seeded(2)))
    assert torch.equal(before, torch.get_rng_state())
    unseeded = run(name, None)  # without a generator the global one is used
    assert not torch.equal(before, torch.get_rng_state())
    torch.manual_seed(11)
    assert torch.equal(unseeded, run(name, None))


@pytest.mark.parametrize("name", SAMPLERS)
def test_shares_of_rows_draw_from_their_own_generators(name):
    both = run(name, (random.seeded(1), random.seeded(2)))
    other = run(name, (random.seeded(1), random.seeded(3)))
    assert torch.equal(both[:4], other[:4]) and not torch.equal(both[4:], other[4:])


@pytest.mark.parametrize("generators", [None, 1, 2])
def test_normal_like_in_channels_last(generators):
    x = torch.empty(64, 3, 16, 16, dtype=torch.float64).to(memory_format=torch.channels_last)
    keys = [random.seeded(6, k) for k in range(generators or 1)]
    torch.manual_seed(0)
    draw = random.normal_like(x, None if generators is None else keys[0] if generators == 1 else tuple(keys))
    assert draw.shape == x.shape and draw.dtype == x.dtype and draw.is_contiguous(memory_format=torch.channels_last)
    n = draw.numel()
    assert abs(float(draw.mean())) < BOUND / math.sqrt(n)
    assert abs(float(draw.square().mean()) - 1) < BOUND * math.sqrt(2 / n)
    assert abs(float(draw.pow(4).mean()) - 3) < BOUND * math.sqrt(96 / n)
    for shifted in (draw.roll(1, 0), draw.roll(1, 1), draw.roll(1, 3)):  # no value is used twice
        assert abs(float((draw * shifted).mean())) < BOUND / math.sqrt(n)
    if generators == 2:
        halves = [random.normal_like(x[:32], random.seeded(6, k)) for k in range(2)]
        assert torch.equal(draw, torch.cat(halves))


def test_normal_like_of_other_shapes():
    for shape in [(4,), (4, 3), (4, 1, 5, 5), (4, 3, 5, 5), (4, 2, 3, 2, 2)]:
        x = torch.zeros(shape)
        assert torch.equal(random.normal_like(x, random.seeded(1)), torch.randn(shape, generator=random.seeded(1)))


def test_a_chain_in_channels_last_stays_so():
    x = normal(4, 3, 4, 4).to(memory_format=torch.channels_last)
    found = sample.langevin(quartic, x, steps=3, step=0.1, generator=random.seeded(1))
    assert found.is_contiguous(memory_format=torch.channels_last)


# --- trace


@pytest.mark.parametrize("sampler", [sample.langevin, sample.mala, sample.hmc])
@pytest.mark.parametrize("steps, keep", [(100, 7), (100, 2), (5, 6), (5, 20), (99, 50), (1, 2), (64, 33)])
def test_trace_is_bounded_and_evenly_spaced(sampler, steps, keep):
    trace, x = Trace(keep=keep), normal(3, 3)
    found = sampler(correlated, x, steps=steps, step=0.2, generator=random.seeded(1), trace=trace)
    assert len(trace.at) == min(keep, steps + 1) and trace.states.shape == (len(trace.at), 3, 3)
    assert trace.at[0] == 0 and trace.at[-1] == steps
    assert torch.equal(trace.states[0], x) and torch.equal(trace.states[-1], found)
    gaps = [b - a for a, b in pairwise(trace.at)]
    assert max(gaps) - min(gaps) <= 1
    torch.testing.assert_close(trace.displacement, (found - x).norm(dim=1) / math.sqrt(3))
    assert (trace.acceptance is None) == (sampler is sample.langevin)


def test_trace_states_are_copies_and_none_are_kept_unless_asked():
    trace = Trace()
    sample.langevin(correlated, normal(3, 3), steps=10, trace=trace, generator=random.seeded(1))
    assert trace.at == [] and trace.displacement is not None
    trace = Trace(keep=4)
    sample.langevin(correlated, normal(3, 3), steps=9, step=0.3, trace=trace, generator=random.seeded(1))
    assert all(not torch.equal(a, b) for a, b in pairwise(trace.states))
    single = Trace(keep=1)
    sample.langevin(correlated, normal(3, 3), steps=9, trace=single, generator=random.seeded(1))
    assert single.at == [9]
    sample.langevin(correlated, normal(3, 3), steps=9, trace=trace, generator=random.seeded(1))
    assert len(trace.states) == 4 and trace.at == [0, 3, 6, 9], "a second chain begins the trace anew"


def test_acceptance_counts_moves():
    trace = Trace(keep=51)
    sample.mala(correlated, normal(20, 3), steps=50, step=0.5, generator=random.seeded(1), trace=trace)
    moved = (trace.states.diff(dim=0) != 0).any(2).float().mean(0)
    torch.testing.assert_close(trace.acceptance, moved)
    assert 0.05 < float(moved.mean()) < 0.95


# --- what is not finite


def hole(x: Tensor) -> Tensor:
    """A Gaussian that is NaN for x₀ > 1, gradient too."""
    return torch.where(x[:, 0] > 1, math.nan, 1.0) * x.square().sum(1) / 2


@pytest.mark.parametrize(
    "sampler, options", [(sample.mala, {"step": 0.8}), (sample.hmc, {"step": 0.3, "leapfrog": 4})], ids=["mala", "hmc"]
)
def test_a_nan_proposal_is_rejected(sampler, options):
    """The hole is never entered: the chain samples the Gaussian truncated at 1."""
    start = -normal(512, 1).abs()
    states, _ = states_of(sampler, hole, start, steps=300, burn_in=50, **options)
    assert float(states.max()) <= 1
    phi, mass = math.exp(-0.5) / math.sqrt(2 * math.pi), 0.5 * math.erfc(-1 / math.sqrt(2))
    assert_expectation(states[..., 0], -phi / mass, "mean of the truncated Gaussian")
    assert_expectation(states[..., 0].square(), 1 - phi / mass, "its second moment")


def test_an_infinite_proposal_is_rejected_even_for_the_smallest_draw(monkeypatch):
    monkeypatch.setattr(random, "uniform", lambda rows, **_: torch.zeros(rows))  # log 0 = −∞
    wall = lambda x: torch.where(x[:, 0] > 0, math.inf, 0.0) + 0 * x.sum(1)  # noqa: E731
    found = sample.mala(wall, torch.full((64, 1), -0.1), steps=5, step=1.0, generator=random.seeded(1))
    assert float(found.max()) <= 0


def test_a_chain_that_ends_in_nan_raises():
    x = torch.tensor([[0.0], [2.0], [3.0]])
    with pytest.raises(Diverged, match="2 of 3 chains"):
        sample.langevin(hole, x, steps=1, step=1e-3, generator=random.seeded(1))
    for sampler in (sample.mala, sample.hmc):
        with pytest.raises(Diverged, match="the energy is NaN at the start of 2 of 3 chains"):
            sampler(hole, x, steps=3, step=1e-3, generator=random.seeded(1))
    with pytest.raises(Diverged, match="langevin"):
        sample.langevin(lambda x: -x.pow(4).sum(1), x, steps=60, step=1.0, generator=random.seeded(1))
    with pytest.raises(Diverged, match="ancestral"):
        sample.ancestral(lambda x, t: x * math.nan, x, ANCESTRAL, generator=random.seeded(1))


# --- annealed Langevin


def test_annealed_langevin_has_the_exact_moments_of_its_linear_recursion():
    schedule, mean, std, n = noise.linear_beta(6, 0.05, 0.5), 0.8, 0.4, 40_000
    variances = [a * a * std**2 + s * s for a, s in zip(schedule.signal, schedule.noise)]
    seen = []

    def energy(x: Tensor, t: Tensor) -> Tensor:
        seen.append(int(t[0]))
        assert t.shape == (len(x),)
        return (x - schedule.alpha(t, x) * mean).square().sum(1) / (2 * variances[int(t[0])])

    found = sample.annealed_langevin(energy, normal(n, 1), schedule, steps=4, step=0.6, generator=random.seeded(2))
    assert seen == [t for t in (6, 5, 4, 3, 2, 1) for _ in range(4)], "each level in turn, the clean one passed over"
    m, v = 0.0, 1.0
    for t in range(6, 0, -1):
        s = 0.6 * schedule.noise[t]
        for _ in range(4):
            shrink = 1 - s * s / (2 * variances[t])
            m, v = schedule.signal[t] * mean + shrink * (m - schedule.signal[t] * mean), shrink**2 * v + s * s
    assert_independent_moments(found, m, v)


def assert_independent_moments(x: Tensor, mean: float, variance: float) -> None:
    x = x.double()
    assert abs(float(x.mean()) - mean) < BOUND * math.sqrt(variance / x.numel())
    assert abs(float((x - mean).square().mean()) - variance) < BOUND * variance * math.sqrt(2 / x.numel())


# --- ancestral sampling on Gaussian data N(μ, s²), where the best ε̂ is σ̄_t (x − ᾱ_t μ)/(ᾱ_t² s² + σ̄_t²)

MU, STD = 0.7, 0.5


def exact_noise(schedule: noise.Schedule):
    def predict(x: Tensor, t: Tensor) -> Tensor:
        a, sigma = schedule.alpha(t, x), schedule.sigma(t, x)
        return sigma * (x - a * MU) / (a.square() * STD**2 + sigma.square())

    return predict


def ddpm_moments(schedule: noise.Schedule, levels: list[int]) -> tuple[float, float]:
    """Mean and variance after the linear maps of DDPM (posterior mean of x̂₀, posterior variance), from N(0, 1)."""
    m, v = 0.0, 1.0
    for t, s in pairwise(levels):
        a_t, a_s, n_t, n_s = schedule.signal[t], schedule.signal[s], schedule.noise[t], schedule.noise[s]
        total, alpha = a_t**2 * STD**2 + n_t**2, a_t / a_s
        beta = 1 - alpha**2
        slope0 = a_t * STD**2 / total  # of x̂₀ = E[x₀ | x_t]
        slope = a_s * beta / n_t**2 * slope0 + alpha * n_s**2 / n_t**2
        m, v = a_s * MU + slope * (m - a_t * MU), slope**2 * v + n_s**2 / n_t**2 * beta
    return m, v


@pytest.mark.parametrize("steps", [None, 10, 1])
def test_ddpm_has_the_exact_moments(steps):
    schedule = noise.linear_beta(200, 5e-4, 0.1)
    levels = [round(200 * i / (steps or 200)) for i in range(steps or 200, -1, -1)]
    found = sample.ancestral(
        exact_noise(schedule), normal(20_000, 1, dtype=torch.float64), schedule, steps=steps, eta=1.0, generator=random.seeded(3)
    )
    mean, variance = ddpm_moments(schedule, levels)
    assert_independent_moments(found, mean, variance)
    if steps is None:  # at all levels this is the data's law, up to the discretisation that DDPM's posterior variance leaves
        assert mean == pytest.approx(MU, abs=2e-3) and variance == pytest.approx(STD**2, rel=0.08)


def test_ddpm_comes_to_the_data_s_law_as_the_levels_grow():
    """The shortfall of the posterior variance is first order in 1/T."""
    errors = []
    for count in (250, 500, 1000):
        schedule = noise.linear_beta(count, 0.1 / count, 20 / count)
        errors.append(STD**2 - ddpm_moments(schedule, list(range(count, -1, -1)))[1])
    assert 0 < errors[2] < 0.02 * STD**2
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.15) and errors[1] / errors[2] == pytest.approx(2, rel=0.15)


@pytest.mark.parametrize("steps", [None, 13])
def test_ddim_is_the_closed_form_map(steps):
    """x_s − ᾱ_s μ = (ᾱ_s ᾱ_t s² + σ̄_s σ̄_t)/(ᾱ_t² s² + σ̄_t²) · (x_t − ᾱ_t μ), level by level; s/√v_T in the limit."""
    schedule = noise.linear_beta()
    x = normal(50, 3, dtype=torch.float64)
    before = torch.get_rng_state()
    found = sample.ancestral(exact_noise(schedule), x, schedule, steps=steps, eta=0.0)
    assert torch.equal(before, torch.get_rng_state()), "a deterministic map draws nothing"
    levels = [round(1000 * i / (steps or 1000)) for i in range(steps or 1000, -1, -1)]
    factor = 1.0
    for t, s in pairwise(levels):
        a_t, a_s, n_t, n_s = schedule.signal[t], schedule.signal[s], schedule.noise[t], schedule.noise[s]
        factor *= (a_s * a_t * STD**2 + n_s * n_t) / (a_t**2 * STD**2 + n_t**2)
    torch.testing.assert_close(found, MU + factor * (x - schedule.signal[-1] * MU), rtol=1e-8, atol=1e-8)
    if steps is None:
        final = schedule.signal[-1] ** 2 * STD**2 + schedule.noise[-1] ** 2
        assert factor == pytest.approx(STD / math.sqrt(final), rel=0.01)


def test_eta_between_has_the_moments_of_its_recursion():
    schedule, eta = noise.linear_beta(50, 1e-3, 0.3), 0.5
    m, v = 0.0, 1.0
    for t in range(50, 0, -1):
        a_t, a_s, n_t, n_s = schedule.signal[t], schedule.signal[t - 1], schedule.noise[t], schedule.noise[t - 1]
        total = a_t**2 * STD**2 + n_t**2
        spread = eta * n_s / n_t * math.sqrt(1 - (a_t / a_s) ** 2)  # Song et al. 2021, eq. 16
        slope = a_s * a_t * STD**2 / total + math.sqrt(n_s**2 - spread**2) * n_t / total
        m, v = a_s * MU + slope * (m - a_t * MU), slope**2 * v + spread**2
    found = sample.ancestral(exact_noise(schedule), normal(40_000, 1, dtype=torch.float64), schedule, eta=eta, generator=random.seeded(8))
    assert_independent_moments(found, m, v)


def test_ancestral_clamps_the_predicted_data():
    """With x̂₀ held to [0, 0], every path ends at 0 exactly; levels are handed over as [B]."""
    schedule = noise.linear_beta(20, 1e-3, 0.3)
    seen = []

    def predict(x: Tensor, t: Tensor) -> Tensor:
        assert t.shape == (len(x),) and t.dtype == torch.int64
        seen.append(int(t[0]))
        return exact_noise(schedule)(x, t)

    trace = Trace(keep=3)
    found = sample.ancestral(predict, normal(8, 2), schedule, steps=5, clamp=(0.0, 0.0), generator=random.seeded(1), trace=trace)
    assert seen == [20, 16, 12, 8, 4] and float(found.abs().max()) == 0
    assert trace.at == [0, 3, 5] and trace.states.shape == (3, 8, 2)
    inside = sample.ancestral(exact_noise(schedule), normal(500, 2), schedule, clamp=(0.5, 0.9), generator=random.seeded(1))
    assert float(inside.min()) >= 0.5 and float(inside.max()) <= 0.9


@pytest.mark.parametrize("steps", [0, 9, -1])
def test_step_counts_that_are_refused(steps):
    with pytest.raises(ValueError, match=f"between 1 and the schedule's 8, got {steps}"):
        sample.ancestral(lambda x, t: x, normal(2, 2), ANCESTRAL, steps=steps)


# --- ancestral sampling under constraints


@pytest.mark.parametrize("resample", [1, 3])
def test_the_constraint_is_applied_at_each_level_arrived_at(resample):
    schedule, seen = noise.linear_beta(20, 1e-3, 0.3), []
    held = torch.linspace(-0.5, 0.5, 8)

    def constraint(x: Tensor, signal: Tensor, sigma: Tensor) -> Tensor:
        seen.append((float(signal), float(sigma)))
        return torch.stack([signal * held, x[:, 1]], 1)

    options = dict(steps=4, constraint=constraint, resample=resample, generator=random.seeded(1))
    found = sample.ancestral(exact_noise(schedule), normal(8, 2), schedule, **options)
    assert torch.equal(found[:, 0], held), "bit-equal at the end"
    visited = [20]
    for t, s in pairwise([20, 15, 10, 5]):
        visited += [s] + [t, s] * (resample - 1)
    expected = [(schedule.signal[t], schedule.noise[t]) for t in [*visited, 0]]  # the last step is made once
    assert len(seen) == len(expected)
    assert torch.allclose(torch.tensor(seen), torch.tensor(expected))
    free = sample.ancestral(exact_noise(schedule), normal(8, 2), schedule, steps=4, generator=random.seeded(1))
    if resample == 1:  # the free coordinate is independent of the held one and walks as without a constraint
        torch.testing.assert_close(found[:, 1], free[:, 1])


def test_resampling_has_the_moments_of_its_recursion():
    """Each step but the last twice: down, up by forward noise, down again."""
    schedule = noise.linear_beta(10, 5e-3, 0.5)
    m, v = 0.0, 1.0
    for t in range(10, 0, -1):
        a_t, a_s, n_t, n_s = schedule.signal[t], schedule.signal[t - 1], schedule.noise[t], schedule.noise[t - 1]
        total, alpha = a_t**2 * STD**2 + n_t**2, a_t / a_s
        beta = 1 - alpha**2
        slope = a_s * beta / n_t**2 * a_t * STD**2 / total + alpha * n_s**2 / n_t**2
        for again in range(2 if t > 1 else 1):
            if again:
                m, v = alpha * m, alpha**2 * v + beta
            m, v = a_s * MU + slope * (m - a_t * MU), slope**2 * v + n_s**2 / n_t**2 * beta
    once = ddpm_moments(schedule, list(range(10, -1, -1)))
    assert abs(v - once[1]) > 0.004 * once[1]
    start = normal(400_000, 1, dtype=torch.float64)
    found = sample.ancestral(exact_noise(schedule), start, schedule, resample=2, generator=random.seeded(3))
    assert_independent_moments(found, m, v)


def test_resampling_brings_the_free_part_to_the_conditional():
    """Two coordinates of correlation 0.9, the first held at 1: the second's mean comes to 0.9 as steps are repeated."""
    schedule, n = noise.linear_beta(50, 2e-3, 0.3), 4000
    joint = torch.tensor([[1.0, 0.9], [0.9, 1.0]])

    def predict(x: Tensor, t: Tensor) -> Tensor:
        a, sigma = schedule.alpha(int(t[0])), schedule.sigma(int(t[0]))
        return sigma * torch.linalg.solve(a**2 * joint + sigma**2 * torch.eye(2), x.T).T

    def mean_of_free(resample: int) -> float:
        epsilon = normal(n, seed=5)

        def constraint(x: Tensor, signal: Tensor, sigma: Tensor) -> Tensor:
            return torch.stack([signal + sigma * epsilon, x[:, 1]], 1)

        options = dict(constraint=constraint, resample=resample, generator=random.seeded(6))
        return float(sample.ancestral(predict, normal(n, 2), schedule, **options)[:, 1].mean())

    once, often = mean_of_free(1), mean_of_free(10)
    error = BOUND * math.sqrt((1 - 0.81) / n)
    assert once < 0.9 - 2 * error, "replacement alone falls short"
    assert abs(often - 0.9) < 0.5 * (0.9 - once)


def test_no_resampling_is_refused():
    with pytest.raises(InputError, match="resample must be 1 or more, got 0"):
        sample.ancestral(lambda x, t: x, normal(2, 2), ANCESTRAL, resample=0)


# --- compiled chains


class Well(torch.nn.Module):
    """A small anharmonic energy with a label that moves its centre."""

    def __init__(self) -> None:
        super().__init__()
        self.centre = torch.nn.Parameter(torch.tensor([[0.5, -0.5], [-1.0, 1.0]]))

    def energy(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        centre = self.centre[0] if label is None else self.centre[label]
        return (x - centre).square().sum(1) + 0.1 * (x**4).sum(1)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # raised inside torch's own compiler
@pytest.mark.parametrize(
    "options",
    [
        dict(step=[0.3, 0.2, 0.1, 0.05]),
        dict(step=0.3, temperature=2.0, clip=0.01, clamp=(-0.4, 0.4), label=torch.tensor([0, 1, 1])),
        dict(step=0.3, noise=0.0),
        dict(step=0.3, project=lambda x: torch.cat([torch.ones_like(x[:, :1]), x[:, 1:]], 1)),
    ],
    ids=["schedule", "everything", "descent", "projected"],
)
def test_a_compiled_chain_walks_as_the_uncompiled_one(options):
    well, start = Well(), normal(3, 2)
    ends, traces = [], []
    for compile in (False, True):
        traces.append(Trace(keep=3))
        ends.append(sample.langevin(well.energy, start, steps=4, compile=compile, generator=random.seeded(3), trace=traces[-1], **options))
    torch.testing.assert_close(ends[1], ends[0])
    torch.testing.assert_close(traces[1].states, traces[0].states)
    torch.testing.assert_close(traces[1].displacement, traces[0].displacement)
    assert not ends[1].requires_grad and well.centre.grad is None


def test_a_chain_runs_uncompiled_with_a_warning_where_there_is_no_compiler(tmp_path):
    code = """
import torch, thalweg as tw
ends = [tw.sample.langevin(tw.energy.gaussian, torch.ones(3, 2), steps=2, compile=c, generator=tw.random.seeded(3)) for c in (False, True)]
assert torch.equal(*ends)
"""
    changed = {"CXX": "/no/such/compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | changed, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("chains run uncompiled (InvalidCxxCompiler") == 1
