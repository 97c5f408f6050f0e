"""Noise schedules: published constants, and their Gaussian algebra in closed form and by Monte Carlo."""

import math

import pytest
import torch
from torch import Tensor

from thalweg import noise, random
from thalweg.errors import InputError

SCHEDULES = {
    "ddpm": noise.linear_beta(),
    "ddpm-10": noise.linear_beta(10, 0.01, 0.3),
    "latent": noise.linear_beta(1000, 0.00085, 0.012),
    "vp": noise.vp(),
    "vp, most levels early": noise.vp(spacing="drl"),
    "cdrl": noise.cosine_log_snr(),
}


@pytest.fixture(params=SCHEDULES, ids=str)
def schedule(request) -> noise.Schedule:
    return SCHEDULES[request.param]


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return random.normal(*shape, generator=random.seeded(31, seed), dtype=dtype)


def assert_moments(x: Tensor, mean: float, variance: float, bound: float = 4.5) -> None:
    """`x` [N] independent Gaussian draws have this mean and variance, within `bound` standard errors of each."""
    n = x.numel()
    assert abs(float(x.mean()) - mean) < bound * math.sqrt(variance / n)
    assert abs(float((x - mean).square().mean()) - variance) < bound * variance * math.sqrt(2 / n)


def assert_rounds_to(found: Tensor | list[float], printed: list[str]) -> None:
    """Each value equals the printed one to the last printed digit (one unit, as papers truncate or round)."""
    assert len(found) == len(printed)
    for value, text in zip([float(v) for v in found], printed):
        digits = len(text.split(".")[1]) if "." in text else 0
        assert abs(value - float(text)) <= 1.0001 * 10**-digits, (value, text)


# --- constants


def test_cdrl_constants():
    s = noise.cosine_log_snr()
    t = torch.arange(7)
    like = torch.zeros(7, dtype=torch.float64)
    # the table's signal row lists squares
    assert_rounds_to(s.alpha(t, like).square(), [".99994", ".93636", ".76797", ".53521", ".29399", ".10226", ".00606"])
    assert s.signal[1] == pytest.approx(0.96766, abs=1e-5)
    assert_rounds_to(s.sigma(t, like), [".0074", ".2523", ".4817", ".6818", ".8402", ".9475", ".997"])
    assert_rounds_to(s.step_variance(t[1:], like[1:]), [".0636", ".1798", ".3031", ".4507", ".6522", ".9407"])
    # σ̃_t² = (σ̄_t²/σ̄²_{t+1}) σ²_{t+1}, the initializer's variance: the spread of the posterior from t+1 to t
    for low, printed in enumerate([".0074", ".2221", ".389", ".5447", ".7162", ".9218"]):
        _, std = s.posterior(like[:1], like[:1], low + 1, low)
        assert_rounds_to([float(std)], [printed])
    assert s.levels == 6
    assert float(s.log_snr(0)) == pytest.approx(9.8, abs=1e-5) and float(s.log_snr(6)) == pytest.approx(-5.1, abs=1e-5)
    # energy weights per level σ_1/σ_{t+1}, and SNR from the definition
    variance = s.step_variance(t[1:], like[1:])
    assert_rounds_to((variance[0] / variance).sqrt(), ["1", ".595", ".458", ".376", ".312", ".260"])
    torch.testing.assert_close(s.log_snr(t, like), 2 * (s.alpha(t, like) / s.sigma(t, like)).log())


def test_ddaebm_constants():
    s = noise.vp()
    assert s.levels == 4
    squares = [a * a for a in s.signal]
    assert_rounds_to(squares, [".9999", ".522", ".079", ".0034", ".00004"])
    for t, square in enumerate(squares):  # ᾱ² = exp(−∫β), β(u) = β_min + (β_max − β_min) u
        u = 1e-3 + (1 - 1e-3) * t / 4
        assert square == pytest.approx(math.exp(-(0.1 * u + 0.5 * 19.9 * u * u)), rel=1e-12)
    mnist = noise.vp(beta_max=10.0)
    assert mnist.signal[4] ** 2 == pytest.approx(math.exp(-0.1 - 0.5 * 9.9), rel=1e-12)


def test_ddaebm_times_of_lsun_church():
    assert noise.vp_times(4, first_time=0.0, spacing="drl") == pytest.approx([0.0, 166 / 999, 332 / 999, 498 / 999, 1.0])
    assert noise.vp_times(8, first_time=0.0, spacing="drl")[1:4] == pytest.approx([71 / 999, 142 / 999, 213 / 999])
    for spacing in ("even", "drl"):
        times, s = noise.vp_times(4, spacing=spacing), noise.vp(4, spacing=spacing)
        assert times[0] == 1e-3 and times[4] == 1.0
        assert [2 * math.log(a) for a in s.signal] == pytest.approx([-0.1 * u - 0.5 * 19.9 * u * u for u in times])
    for levels, spacing, message in ((1, "drl", "2 to 501, got 1"), (502, "drl", "2 to 501, got 502"), (4, "log", "got 'log'")):
        with pytest.raises(ValueError, match=message):
            noise.vp_times(levels, spacing=spacing)
    for first in (-0.1, 1.0):
        with pytest.raises(ValueError, match="the time of level 0"):
            noise.vp(4, first_time=first)


@pytest.mark.parametrize("name, floor", [("ddpm", 0.2755), ("latent", 0.3091)])
def test_egc_loss_floor(name, floor):
    s = SCHEDULES[name]
    assert s.levels == 1000 and s.signal[0] == 1.0 and s.noise[0] == 0.0
    assert sum(a * a for a in s.signal[1:]) / 1000 == pytest.approx(floor, abs=5e-5)


def test_linear_beta_steps():
    s = noise.linear_beta(1000)
    betas = s.step_variance(torch.arange(1, 1001), torch.zeros(1000, dtype=torch.float64))
    torch.testing.assert_close(betas, torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), rtol=1e-9, atol=1e-12)


# --- tables


def test_tables_agree_with_each_other(schedule):
    t = torch.arange(1, schedule.levels + 1)
    like = torch.zeros(len(t), dtype=torch.float64)
    torch.testing.assert_close(schedule.alpha(t, like).square() + schedule.sigma(t, like).square(), torch.ones_like(like))
    torch.testing.assert_close(schedule.step_alpha(t, like).cumprod(0) * schedule.signal[0], schedule.alpha(t, like))
    # σ̄_t² = α_t² σ̄_{t−1}² + σ_t²
    built = schedule.step_alpha(t, like).square() * schedule.sigma(t - 1, like).square() + schedule.step_variance(t, like)
    torch.testing.assert_close(built, schedule.sigma(t, like).square())


def test_shapes_and_types(schedule):
    t = torch.tensor([1, 2, schedule.levels])
    images = torch.zeros(3, 2, 4, 4)
    assert schedule.alpha(t).shape == (3,) and schedule.alpha(t).dtype == torch.float32
    assert schedule.alpha(t, images).shape == (3, 1, 1, 1)
    assert schedule.sigma(1, images).shape == () and schedule.sigma(1, images.double()).dtype == torch.float64
    assert schedule.sigma(t, images.double())[2].item() == schedule.noise[-1]
    assert schedule.log_snr(t, images).shape == (3, 1, 1, 1)


def test_clean_level_has_infinite_snr():
    assert math.isinf(float(SCHEDULES["ddpm"].log_snr(0)))


def test_sample_level_is_uniform(schedule):
    draws = schedule.sample_level(60_000, generator=random.seeded(4))
    counts = torch.bincount(draws, minlength=schedule.levels + 1).double()
    assert counts[0] == 0 and draws.max() == schedule.levels and draws.dtype == torch.int64
    expected = 60_000 / schedule.levels
    chi_square = float(((counts[1:] - expected).square() / expected).sum())
    freedom = schedule.levels - 1
    assert abs(chi_square - freedom) < 4.5 * math.sqrt(2 * freedom)
    low = schedule.sample_level(1000, low=0, generator=random.seeded(4))
    assert low.min() < draws.max() and (schedule.levels > 100 or low.min() == 0)
    assert torch.equal(draws, schedule.sample_level(60_000, generator=random.seeded(4)))


# --- diffuse, pair, posterior


def test_diffuse_is_its_formula_and_its_law(schedule):
    x0, e = normal(200_000, seed=1) * 0.5 + 0.3, normal(200_000, seed=2)
    for t in (1, schedule.levels // 2, schedule.levels):
        found = schedule.diffuse(x0, t, e)
        torch.testing.assert_close(found, schedule.signal[t] * x0 + schedule.noise[t] * e)
        assert_moments(found, 0.3 * schedule.signal[t], 0.25 * schedule.signal[t] ** 2 + schedule.noise[t] ** 2)
    levels = torch.arange(schedule.levels + 1)
    rows = schedule.diffuse(torch.ones(len(levels), 2, dtype=torch.float64), levels, torch.zeros(len(levels), 2, dtype=torch.float64))
    torch.testing.assert_close(rows, torch.tensor(schedule.signal, dtype=torch.float64)[:, None].expand(-1, 2))


def test_pair_shares_its_noise(schedule):
    top = schedule.levels - 1
    t = torch.tensor([0, 1, top - 1, top])
    x0, e = normal(4, 3, seed=1), normal(4, 3, seed=2)
    y, later = schedule.pair(x0, t, e)
    for row, level in enumerate(t.tolist()):
        step = 1.0 if level == top else schedule.signal[level + 1] / schedule.signal[level]
        torch.testing.assert_close(
            y[row], step * (schedule.signal[level] * x0[row] + schedule.noise[level] * e[row]), rtol=1e-12, atol=1e-12
        )
        torch.testing.assert_close(
            later[row], schedule.signal[level + 1] * x0[row] + schedule.noise[level + 1] * e[row], rtol=1e-12, atol=1e-12
        )


@pytest.mark.parametrize("markov", [False, True])
def test_marginals_of_the_pair_on_gaussian_data(schedule, markov):
    """Data N(0, s²): y_t ~ N(0, α²_{t+1}(ᾱ_t² s² + σ̄_t²)) with α = 1 at the top, and x_{t+1} ~ N(0, ᾱ² s² + σ̄²)."""
    n, s = 100_000, 0.6
    for t in (0, 1, schedule.levels - 2, schedule.levels - 1):
        step_noise = normal(n, seed=12) if markov else None
        y, later = schedule.pair(s * normal(n, seed=10), torch.full((n,), t), normal(n, seed=11), step_noise)
        alpha = 1.0 if t == schedule.levels - 1 else schedule.signal[t + 1] / schedule.signal[t]
        below = schedule.signal[t] ** 2 * s**2 + schedule.noise[t] ** 2
        variance, later_variance = alpha**2 * below, schedule.signal[t + 1] ** 2 * s**2 + schedule.noise[t + 1] ** 2
        assert_moments(y, 0.0, variance)
        assert_moments(later, 0.0, later_variance)
        # joint: with one noise cov = α(ᾱ_t ᾱ_{t+1} s² + σ̄_t σ̄_{t+1}); the Markov pair has cov = α α_{t+1} (ᾱ_t² s² + σ̄_t²)
        step = schedule.signal[t + 1] / schedule.signal[t]
        shared = schedule.signal[t] * schedule.signal[t + 1] * s**2 + schedule.noise[t] * schedule.noise[t + 1]
        covariance = alpha * (step * below if markov else shared)
        error = math.sqrt((variance * later_variance + covariance**2) / n)
        assert abs(float((y * later).mean()) - covariance) < 4.5 * error


def test_the_shared_noise_brings_the_pair_closer():
    """What the shared noise is for: x_{t+1} given y_t spreads less than σ_{t+1}."""
    s = SCHEDULES["cdrl"]
    n = 20_000
    x0, e, t = 0.5 * normal(n, seed=1), normal(n, seed=2), torch.full((n,), 2)
    y, shared = s.pair(x0, t, e)
    _, markov = s.pair(x0, t, e, normal(n, seed=3))
    step = float(s.step_variance(torch.tensor(3), x0))
    assert float((markov - y).var()) == pytest.approx(step, rel=4.5 * math.sqrt(2 / n))
    assert float((shared - y).var()) < 0.8 * step


def levels_to_check(schedule: noise.Schedule) -> list[tuple[int, int]]:
    top = schedule.levels
    lowest = 1 if schedule.noise[0] == 0 else 0
    return [(1, 0), (2, lowest), (top, top - 1), (top, lowest), (top // 2 + 1, top // 2)]


def test_posterior_is_bayes_rule(schedule):
    """Precisions add: q(x_s | x_t, x₀) ∝ q(x_s | x₀) q(x_t | x_s), all Gaussian."""
    x0, x_t = normal(5, seed=1), normal(5, seed=2)
    for t, s in levels_to_check(schedule):
        mean, std = schedule.posterior(x0, x_t, t, s)
        if schedule.noise[s] == 0:
            torch.testing.assert_close(mean, x0)
            assert float(std) == 0
            continue
        alpha = schedule.signal[t] / schedule.signal[s]
        step = schedule.noise[t] ** 2 - alpha**2 * schedule.noise[s] ** 2
        precision = 1 / schedule.noise[s] ** 2 + alpha**2 / step
        expected = (schedule.signal[s] * x0 / schedule.noise[s] ** 2 + alpha * x_t / step) / precision
        torch.testing.assert_close(mean, expected, rtol=1e-9, atol=1e-9)
        assert float(std) == pytest.approx(precision**-0.5, rel=1e-9)


def test_posterior_undoes_the_step_exactly(schedule):
    """Integrated over q(x_t | x₀), the posterior gives back q(x_s | x₀): mean ᾱ_s x₀, variance σ̄_s²."""
    x0 = torch.tensor(0.7, dtype=torch.float64)
    for t, s in levels_to_check(schedule):
        at, _ = schedule.posterior(x0, schedule.signal[t] * x0, t, s)
        assert float(at) == pytest.approx(schedule.signal[s] * 0.7, rel=1e-9)
        shifted, std = schedule.posterior(x0, schedule.signal[t] * x0 + 1, t, s)
        slope = float(shifted - at)
        assert slope**2 * schedule.noise[t] ** 2 + float(std) ** 2 == pytest.approx(schedule.noise[s] ** 2, rel=1e-9, abs=1e-15)


def test_posterior_by_monte_carlo():
    s = SCHEDULES["ddpm"]
    x0 = torch.full((200_000,), 0.7, dtype=torch.float64)
    t, low = torch.full((200_000,), 600), torch.full((200_000,), 350)
    mean, std = s.posterior(x0, s.diffuse(x0, t, normal(200_000, seed=1)), t, low)
    assert std.shape == x0.shape
    assert_moments(mean + std * normal(200_000, seed=2), s.signal[350] * 0.7, s.noise[350] ** 2)


def test_posterior_of_neighbouring_levels_keeps_its_digits_in_fp32():
    """1 − α² of one step in a thousand must not be computed as a difference of ones."""
    s = SCHEDULES["ddpm"]
    x0, x_t = normal(4, seed=1), normal(4, seed=2)
    for t in (1, 2, 3, 10, 100, 1000):
        exact_mean, exact_std = s.posterior(x0, x_t, t, t - 1)
        mean, std = s.posterior(x0.float(), x_t.float(), t, t - 1)
        torch.testing.assert_close(mean.double(), exact_mean, rtol=3e-5, atol=3e-5)
        assert float(std) == pytest.approx(float(exact_std), rel=3e-5)


# --- what is refused


@pytest.mark.parametrize(
    "signal, sigma, message",
    [
        ((1.0,), (0.0,), "two or more"),
        ((1.0, 0.6), (0.0, 0.8, 1.0), "same levels"),
        ((1.0, 0.6), (0.0, 0.7), "at level 1"),
        ((0.6, 0.6), (0.8, 0.8), "fall"),
        ((0.6, 1.0), (0.8, 0.0), "fall"),
    ],
)
def test_schedules_that_are_refused(signal, sigma, message):
    with pytest.raises(ValueError, match=message):
        noise.Schedule(signal, sigma)


def test_a_schedule_is_a_value():
    assert noise.vp() == noise.vp() and hash(noise.vp()) == hash(noise.vp()) and noise.vp() != noise.vp(beta_max=10.0)
    with pytest.raises(AttributeError):
        noise.vp().signal = (1.0,)


def test_steps_stop_at_levels_evenly_or_mostly_at_low_noise():
    schedule = noise.linear_beta(1000)
    assert schedule.steps(4) == [0, 250, 500, 750, 1000] and schedule.steps(4, "quadratic") == [0, 62, 250, 562, 1000]
    for count in (1, 7, 100, 400, 1000):
        for spacing in noise.SPACINGS:
            levels = schedule.steps(count, spacing)
            assert levels[0] == 0 and levels[-1] == 1000 and len(levels) == count + 1 == len(set(levels)) and levels == sorted(levels)
    with pytest.raises(InputError, match="'even' or 'quadratic', got 'log'"):
        schedule.steps(4, "log")
    with pytest.raises(ValueError, match="between 1 and the schedule's 1000, got 1001"):
        schedule.steps(1001)


def test_the_nearest_level_is_that_of_the_noise_of_clean_data():
    schedule = noise.linear_beta(1000)
    assert all(schedule.nearest(schedule.ratio(t)) == t for t in (1, 2, 77, 1000))
    assert schedule.nearest(1e-9) == 1 and schedule.nearest(1e9) == 1000
    between = math.sqrt(schedule.ratio(5) * schedule.ratio(6))
    assert (schedule.nearest(between * 0.999), schedule.nearest(between * 1.001)) == (5, 6)
