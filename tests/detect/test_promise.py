"""The promise of a detector: rates of false alarms, a test for drift and a rolling threshold, against their bounds."""

import json
import math
import tracemalloc

import numpy as np
import pytest

from thalweg import InputError
from thalweg.detect.promise import Conformal, Martingale, RollingQuantile, least

RATES = (0.01, 0.05, 0.1)


# --- conformal p-values


def test_p_values_and_thresholds_by_hand():
    conformal = Conformal([3, 1, 2, 2])
    assert np.allclose(conformal.p_value([4, 3, 2.5, 2, 1, 0]), np.array([1, 2, 2, 4, 5, 5]) / 5)
    assert conformal.threshold(0.2) == 3 and conformal.threshold(0.39) == 3 and conformal.threshold(0.4) == 2
    assert conformal.threshold(0.99) == 1 and len(conformal) == 4 and conformal.p_value([]).shape == (0,)
    assert conformal.p_value([np.inf, -np.inf]).tolist() == [0.2, 1.0]


@pytest.mark.parametrize("alpha", [0.01, 0.02, 0.05, 0.07, 0.1, 0.29, 1 / 3, 0.5, 0.9])
@pytest.mark.parametrize("more", [0, 1, 37, 963])
def test_above_the_threshold_is_where_the_p_value_is_at_most_alpha(alpha, more):
    rng = np.random.default_rng(more)
    conformal = Conformal(rng.integers(0, 300, least(alpha) + more))  # with ties
    s = np.concatenate([np.arange(-1.0, 302), np.arange(-1, 302) + 0.5])
    assert np.array_equal(s > conformal.threshold(alpha), conformal.p_value(s) <= alpha)


def test_as_many_rows_are_needed_as_the_message_says():
    assert [least(alpha) for alpha in (0.1, 0.05, 0.01, 0.001, 0.3, 1 / 3, 1 / 49)] == [9, 19, 99, 999, 3, 2, 48]
    few = Conformal(np.arange(98.0))
    with pytest.raises(InputError, match=r"0\.01 needs at least 99 held-out rows to calibrate on, there are 98, which allow 0\.0101"):
        few.threshold(0.01)
    assert Conformal(np.arange(99.0)).threshold(0.01) == 98
    few.check(0.05)


@pytest.mark.parametrize("alpha", RATES)
def test_the_rate_of_false_alarms_is_the_nominal_one(alpha):
    """Over 400 sets of 199 calibration rows the mean lies within 4 standard errors below; ties only lower it."""
    rng, m, n, trials = np.random.default_rng(0), 199, 500, 400
    shares, tied = [], []
    for _ in range(trials):
        x = rng.standard_normal(m + n)
        shares.append((x[m:] > Conformal(x[:m]).threshold(alpha)).mean())
        tied.append((x[m:].round() > Conformal(x[:m].round()).threshold(alpha)).mean())
    k = math.floor(alpha * (m + 1) + 1e-9)
    rate = k / (m + 1)
    error = math.sqrt(rate * (1 - rate) * (1 / (m + 2) + (1 - 1 / (m + 2)) / n) / trials)  # of a beta-binomial share
    assert rate <= alpha and abs(np.mean(shares) - rate) < 4 * error
    assert np.mean(tied) < alpha + 4 * error


@pytest.mark.parametrize("alpha", RATES)
def test_the_bound_on_false_alarms_is_a_quantile_of_their_number(alpha):
    rng, m, n, trials = np.random.default_rng(1), 300, 200, 2000
    bound = Conformal(np.arange(m)).false_alarms(alpha, n, confidence=0.9)
    counts = []
    for _ in range(trials):
        x = rng.exponential(size=m + n)
        counts.append((x[m:] > Conformal(x[:m]).threshold(alpha)).sum())
    beyond, reached = np.mean(np.array(counts) > bound), np.mean(np.array(counts) >= bound)
    error = 4 * math.sqrt(0.1 * 0.9 / trials)
    assert beyond <= 0.1 + error and reached >= 0.1 - error  # one less would be exceeded too often
    assert bound >= alpha * n


def test_the_bound_on_false_alarms_nears_the_binomial_one_with_many_rows():
    from scipy.stats import betabinom, binom

    many = Conformal(np.arange(10**6)).false_alarms(0.05, 1000)
    assert abs(many - binom(1000, 0.05).ppf(0.95)) <= 1
    assert Conformal(np.arange(99)).false_alarms(0.05, 300, confidence=0.99) == betabinom(300, 5, 95).ppf(0.99)
    assert Conformal(np.arange(99)).false_alarms(0.05, 0) == 0


def test_calibration_goes_through_json():
    conformal = Conformal(np.random.default_rng(0).standard_normal(50))
    again = Conformal.from_dict(json.loads(json.dumps(conformal.as_dict())))
    assert np.array_equal(again.strangeness, conformal.strangeness)
    for wrong in ({}, {"strangeness": 3}, [], {"strangeness": ["a"]}):
        with pytest.raises(InputError, match="calibration"):
            Conformal.from_dict(wrong)


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: Conformal([]), "there are none"),
        (lambda: Conformal([1, np.inf]), "1 of 2 values are not finite"),
        (lambda: Conformal([1, np.nan]), "1 of 2 values are NaN"),
        (lambda: Conformal(np.zeros((3, 2))), r"one number for each item, \[N\], got \[3, 2\]"),
        (lambda: Conformal(["a"]), "must be numbers"),
        (lambda: Conformal([1.0]).p_value([np.nan]), "1 of 1 values are NaN"),
        (lambda: Conformal([1.0]).threshold(0), "above 0 and below 1, got 0"),
        (lambda: least(1.0), "above 0 and below 1"),
        (lambda: least(float("nan")), "above 0 and below 1"),
        (lambda: Martingale([1.0], jump=2), r"jump must be in \[0, 1\], got 2"),
        (lambda: Martingale([1.0], memory=0), "memory must be at least 1, got 0"),
        (lambda: RollingQuantile(0), "window must be at least 1, got 0"),
        (lambda: RollingQuantile(9, [1.0] * 9).threshold(0.05), "needs at least 19 held-out rows"),
    ],
)
def test_wrong_input_is_told(call, says):
    with pytest.raises(InputError, match=says):
        call()


# --- drift


def ranks(martingale: Martingale, values) -> list[float]:
    """The p-values that the martingale bets on."""
    found = []
    bet = martingale._bet
    martingale._bet = lambda p: (found.append(p), bet(p))
    martingale.update(values)
    return found


@pytest.mark.parametrize("memory", [30, 10_000])
@pytest.mark.parametrize("ties", [False, True])
def test_ranks_of_a_stream_are_independent_and_uniform(memory, ties):
    """Also with a memory so small that most items are dropped, and where many items are alike."""
    rng, lags = np.random.default_rng(2), 25
    streams = [rng.standard_normal(30 + 200) for _ in range(200)]
    streams = [x.round() if ties else x for x in streams]
    p = np.array([ranks(Martingale(x[:30], memory=memory, seed=i), x[30:]) for i, x in enumerate(streams)])
    n = p.size
    assert abs(p.mean() - 0.5) < 4 / math.sqrt(12 * n)
    counts = np.histogram(p, bins=20, range=(0, 1))[0]
    assert ((counts - n / 20) ** 2 / (n / 20)).sum() < 19 + 4 * math.sqrt(2 * 19)
    z = (p - 0.5) * math.sqrt(12)
    for lag in range(1, lags):  # ranks among the 30 calibration rows alone have correlations of 0.03
        pairs = z[:, lag:] * z[:, :-lag]
        assert abs(pairs.mean()) < 4.5 / math.sqrt(pairs.size)


def test_the_first_items_share_their_rows_without_being_dependent():
    """Ranks among two calibration rows alone have correlations of 0.2; dropping the oldest, or never the newest, makes them −0.1."""
    rng = np.random.default_rng(3)
    p = np.array([ranks(Martingale(x[:2], memory=2, seed=i), x[2:]) for i, x in enumerate(rng.standard_normal((20_000, 5)))])
    correlation = np.corrcoef(p.T)[np.triu_indices(3, 1)]
    assert (abs(correlation) < 4 / math.sqrt(len(p))).all()


@pytest.mark.parametrize("memory", [50, 10_000])
def test_without_drift_it_seldom_alarms(memory):
    """P(ever ≥ 1/δ) ≤ δ over streams of 1,000 items, within 4 standard errors of the share."""
    rng, trials = np.random.default_rng(4), 400
    last = []
    for seed in range(trials):
        x = rng.standard_normal(50 + 1000)
        last.append(Martingale(x[:50], memory=memory, seed=seed).update(x[50:])[-1])
    for delta in (0.05, 0.1, 0.2, 0.5):
        assert np.mean(np.array(last) <= delta) <= delta + 4 * math.sqrt(delta * (1 - delta) / trials)
    assert np.mean(np.array(last) <= 0.5) > 0.1  # it does bet


def test_wealth_is_fair():
    """The mean wealth after 20 items is 1."""
    rng = np.random.default_rng(5)
    wealth = []
    for seed in range(4000):
        martingale = Martingale(rng.random(20), seed=seed)
        martingale.update(rng.random(20))
        wealth.append(martingale.wealth)
    assert abs(np.mean(wealth) - 1) < 4 * np.std(wealth) / math.sqrt(len(wealth))


@pytest.mark.parametrize("quiet", [0, 5_000])
@pytest.mark.parametrize("shift", [1.0, -1.0])
def test_a_shift_is_found_within_a_few_hundred_items(quiet, shift):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        martingale = Martingale(rng.standard_normal(500), seed=seed)
        before = martingale.update(rng.standard_normal(quiet)) if quiet else np.ones(1)
        after = martingale.update(rng.standard_normal(400) + shift)
        assert before[-1] > 0.01 >= after[299]


def test_a_slow_drift_is_found():
    rng = np.random.default_rng(6)
    found = Martingale(rng.standard_normal(1000), seed=0).update(rng.standard_normal(5000) + np.linspace(0, 2, 5000))
    assert found[-1] < 1e-6 and (np.diff(found) <= 0).all()


def test_a_stream_may_be_cut_anywhere_and_is_seeded():
    rng = np.random.default_rng(7)
    calibration, x = rng.standard_normal(100), rng.standard_normal(300)
    whole = Martingale(calibration, memory=150, seed=1).update(x)
    parts = Martingale(calibration, memory=150, seed=1)
    cut = np.concatenate([parts.update(part) for part in np.split(x, [1, 2, 60, 299])])
    assert np.array_equal(whole, cut) and parts.items == 300
    assert not np.array_equal(whole, Martingale(calibration, memory=150, seed=2).update(x))


def test_wealth_does_not_overflow():
    martingale = Martingale(np.random.default_rng(0).standard_normal(2000))
    found = martingale.update(np.full(3000, 1e300))
    assert 0 < found[-1] <= 1e-99 and np.isfinite(martingale.wealth)


def test_memory_is_bounded():
    rng = np.random.default_rng(8)
    martingale, rolling = Martingale(rng.random(50_000), memory=500), RollingQuantile(500)
    assert len(martingale._held) == 500
    x = rng.random(20_000)
    for one in (martingale, rolling):
        one.update(x[:1000])
        tracemalloc.start()
        for part in np.split(x[1000:], 19):
            one.update(part)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 500_000
    assert len(martingale._held) == 500 and martingale._held == sorted(martingale._held)


# --- a threshold that follows


def test_the_rolling_window_by_hand():
    rolling = RollingQuantile(3, [9, 1, 2, 3])
    assert rolling.update([2.5, 2.5, 0, 10]).tolist() == [2 / 4, 3 / 4, 1, 1 / 4] and len(rolling) == 3
    assert rolling.threshold(0.25) == 10 and rolling.threshold(0.5) == 2.5
    assert RollingQuantile(5).update([1.0, 2.0, 0.0]).tolist() == [1, 1 / 2, 1]


@pytest.mark.parametrize("alpha", RATES)
def test_the_rolling_window_keeps_the_rate_without_drift_and_returns_to_it_after_a_jump(alpha):
    rng = np.random.default_rng(9)
    rolling = RollingQuantile(999, rng.standard_normal(999))
    error = 4 * math.sqrt(alpha / 20_000 + alpha / 999 / 10)
    assert abs(np.mean(rolling.update(rng.standard_normal(20_000)) <= alpha) - alpha) < error
    assert np.mean(rolling.update(rng.standard_normal(100) + 5) <= alpha) > 0.5 or alpha == 0.01
    rolling.update(rng.standard_normal(899) + 5)
    assert abs(np.mean(rolling.update(rng.standard_normal(20_000) + 5) <= alpha) - alpha) < error
