"""What a detector promises: false-alarm rates from held-out inliers, a test for drift, and a threshold that follows drift.

All of it takes a *strangeness*: any number that is higher for stranger items, such as an energy or a negative log-likelihood. That the
items are exchangeable is the one assumption; how good the strangeness is decides how many outliers are found, not how many false alarms
there are.
"""

import math
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Iterable
from typing import Any, final

import numpy

from ..errors import InputError

MEMORY = 10_000  # items that a stream is compared with
HIGHEST = 1e100  # wealth that is not counted further


def least(alpha: float) -> int:
    """The calibration rows that a false-alarm rate `alpha` in (0, 1) needs, ⌈1/α⌉ − 1; with fewer nothing could ever be flagged."""
    _check_rate(alpha)
    return math.ceil(1 / alpha - 1e-9) - 1


@final
class Conformal:
    """Split-conformal p-values: the rank of an item among held-out inliers that the density was not fitted to.

    `strangeness` [M]: of the held-out inliers, finite. A new inlier that is exchangeable with them has a p-value of at most α with
    probability at most α, for every α; the probability is over the held-out rows too. For one given set of them the rate of false
    alarms follows a beta distribution (see `false_alarms`). Raises InputError for no rows, NaN and infinities.
    (Bates et al. 2023, "Testing for outliers with conformal p-values", arXiv:2104.08279; Vovk et al. 2005.)
    """

    def __init__(self, strangeness: Any) -> None:
        values = numpy.sort(_vector(strangeness, "calibration"))
        if not len(values):
            raise InputError("calibration needs held-out rows, there are none")
        if not numpy.isfinite(values).all():
            raise InputError(f"calibration: {int((~numpy.isfinite(values)).sum())} of {len(values)} values are not finite")
        self.strangeness = values

    def __len__(self) -> int:
        return len(self.strangeness)

    def __repr__(self) -> str:
        return f"Conformal({len(self)} rows)"

    def p_value(self, strangeness: Any) -> numpy.ndarray:
        """p-values [N] in [1/(M + 1), 1] of items of `strangeness` [N]: (1 + #{calibration ≥ s})/(M + 1). InputError for NaN."""
        values = _vector(strangeness, "strangeness")
        above = len(self) - numpy.searchsorted(self.strangeness, values, side="left")
        return (1 + above) / (len(self) + 1)

    def threshold(self, alpha: float) -> float:
        """The strangeness above which, not at which, an item has a p-value of at most `alpha`.

        Raises InputError where there are fewer than `least(alpha)` calibration rows.
        """
        return float(self.strangeness[len(self) - self._above(alpha)])

    def check(self, alpha: float) -> None:
        """Raises InputError, which says how many rows are needed, where there are too few for a false-alarm rate `alpha`."""
        if len(self) < least(alpha):
            raise InputError(
                f"a false-alarm rate of {alpha:g} needs at least {least(alpha):,} held-out rows to calibrate on, there are {len(self):,}, "
                f"which allow {1 / (len(self) + 1):.3g} or more; give more rows or a higher rate"
            )

    def false_alarms(self, alpha: float, n: int, *, confidence: float = 0.95) -> int:
        """The most false alarms among `n` new inliers that are in keeping with the promise, with probability `confidence` or more.

        The quantile of the beta-binomial distribution that the number follows exactly where the strangeness has no ties. One set of
        calibration rows serves all `n` items, which spreads it wider than the binomial.
        """
        k, m = self._above(alpha), len(self)
        total = 0.0
        for count in range(n + 1):
            total += math.exp(_log_choose(n, count) + _log_beta(k + count, m + 1 - k + n - count) - _log_beta(k, m + 1 - k))
            if total >= confidence - 1e-12:
                return count
        return n

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON, from which `from_dict` makes an equal one."""
        return {"strangeness": self.strangeness.tolist()}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Conformal":
        """The inverse of `as_dict`; InputError for anything else."""
        if not isinstance(content, dict) or not isinstance(content.get("strangeness"), list):
            raise InputError("calibration: need the list 'strangeness' of numbers")
        return cls(content["strangeness"])

    def _above(self, alpha: float) -> int:
        """The largest k with k/(M + 1) ≤ α: as many of M + 1 equally likely ranks are false alarms."""
        self.check(alpha)
        k = min(len(self), round(alpha * (len(self) + 1)))
        while k > 1 and k / (len(self) + 1) > alpha:
            k -= 1
        return k


@final
class Martingale:
    """A conformal test martingale: the wealth of a gambler who bets on a stream that it differs from the calibration rows.

    `strangeness` [M]: of the calibration rows; `jump`: share of the bets that is spread anew at each item; `memory`: items held at most.
    If the calibration rows and the stream are exchangeable, the probability that the wealth ever reaches 1/δ, however long the stream
    is, is at most δ (Ville's inequality). So `p_value` = 1/(highest wealth so far) may be looked at after every item.

    - p-values: item n has the smoothed rank (#{stranger} + θ·#{as strange})/(K + 1) among the K items held and itself, θ uniform. Each
      item joins those held before the next comes; comparing all of them with the calibration rows alone would leave the ranks of a
      stream dependent, since they share these rows, and void the guarantee. When more than `memory` are held, one of them, the new one
      included, is dropped with equal probabilities. What is dropped does not depend on which item is new, so that given the values
      held at n, its rank is uniform and independent of all later ones: the ranks are independent and uniform, as with unbounded
      memory, and the guarantee is exact. The price is that a drift slower than about `memory` items is forgotten rather than found.
    - bets: the simple jumper, f(p) = 1 + ε(p − ½) for ε in {−1, 0, 1}. Of a reserve, 1/(1 + ln(1 + n)) is left after n items, and what
      leaves it joins the bets; without it the wealth would fall by a constant factor at each item of a quiet stream, with it a drift
      after n items is found some ln n items later. Both are fair at each item.

    (Vovk et al. 2021, "Retrain or not retrain: conformal test martingales for change-point detection", arXiv:2102.10439.)
    """

    BETS = (-1.0, 0.0, 1.0)

    def __init__(self, strangeness: Any, *, jump: float = 0.01, memory: int = MEMORY, seed: int = 0) -> None:
        values = _vector(strangeness, "calibration")
        if not 0 <= jump <= 1:
            raise InputError(f"jump must be in [0, 1], got {jump}")
        _check_memory("memory", memory)
        self.jump, self.memory = jump, memory
        self.generator = numpy.random.default_rng(seed)
        if len(values) > memory:  # which ones does not depend on what they are
            values = self.generator.choice(values, memory, replace=False)
        self._held: list[float] = sorted(values.tolist())
        self._parts = [0.0] * len(self.BETS)
        self.items = 0
        self.highest = 1.0

    @property
    def wealth(self) -> float:
        """What the gambler has after the items so far, beginning with 1; not counted further above 1e100."""
        return self._reserve(self.items) + sum(self._parts)

    @property
    def p_value(self) -> float:
        """1/(highest wealth so far) in (0, 1]: without drift it is ever at most δ with probability at most δ."""
        return 1 / self.highest

    def update(self, strangeness: Any) -> numpy.ndarray:
        """Take the next items of the stream, `strangeness` [N] -> `p_value` [N] after each of them. InputError for NaN.

        The stream may be cut anywhere: the result does not depend on it.
        """
        values = _vector(strangeness, "strangeness")
        draws = self.generator.random((len(values), 2))
        found = numpy.empty(len(values))
        for i, (value, (smooth, drop)) in enumerate(zip(values.tolist(), draws.tolist())):
            self._bet(self._rank(value, smooth, drop))
            found[i] = self.p_value
        return found

    def _rank(self, value: float, smooth: float, drop: float) -> float:
        """The smoothed p-value of an item, which then joins those held."""
        held = self._held
        low, high = bisect_left(held, value), bisect_right(held, value)
        p = (len(held) - high + smooth * (high - low + 1)) / (len(held) + 1)
        held.insert(high, value)
        if len(held) > self.memory:
            del held[int(drop * len(held))]
        return p

    def _bet(self, p: float) -> None:
        fresh = (self._reserve(self.items) - self._reserve(self.items + 1)) / len(self.BETS)
        spread = self.jump * sum(self._parts) / len(self.BETS)
        self._parts = [((1 - self.jump) * part + spread + fresh) * (1 + bet * (p - 0.5)) for part, bet in zip(self._parts, self.BETS)]
        self.items += 1
        wealth = self.wealth
        if wealth > HIGHEST:
            self._parts = [part * HIGHEST / wealth for part in self._parts]
        self.highest = max(self.highest, min(wealth, HIGHEST))

    @staticmethod
    def _reserve(items: int) -> float:
        return 1 / (1 + math.log1p(items))


@final
class RollingQuantile:
    """p-values and a threshold from the last items of a stream, which follow its drift.

    `window`: items held; `strangeness`: earlier items, oldest first, of which the last `window` are taken. Where the stream is
    exchangeable the promise is that of `Conformal`. Under drift there is none: the threshold lags by about half a window, and a stream
    that turns strange for longer than a window has become the norm, outliers included.
    """

    def __init__(self, window: int = 1000, strangeness: Any = ()) -> None:
        _check_memory("window", window)
        self.window = window
        self._last: deque[float] = deque(_vector(strangeness, "strangeness")[-window:].tolist())
        self._sorted = sorted(self._last)

    def __len__(self) -> int:
        return len(self._last)

    def update(self, strangeness: Any) -> numpy.ndarray:
        """p-values [N] of the next items of `strangeness` [N], each among those before it: (1 + #{held ≥ s})/(#held + 1)."""
        found = []
        for value in _vector(strangeness, "strangeness").tolist():
            found.append((1 + len(self._sorted) - bisect_left(self._sorted, value)) / (len(self._sorted) + 1))
            self._last.append(value)
            insort(self._sorted, value)
            if len(self._last) > self.window:
                del self._sorted[bisect_left(self._sorted, self._last.popleft())]
        return numpy.array(found)

    def threshold(self, alpha: float) -> float:
        """The strangeness above which the next item has a p-value of at most `alpha`; InputError for fewer items than that needs."""
        return Conformal(self._sorted).threshold(alpha)


def _vector(values: Any, what: str) -> numpy.ndarray:
    """One number an item as float64 [N]; InputError for another shape and for NaN."""
    if isinstance(values, Iterable) and not isinstance(values, numpy.ndarray):
        values = list(values)
    try:
        found = numpy.asarray(values, dtype=numpy.float64)
    except (TypeError, ValueError):
        raise InputError(f"{what} must be numbers, one for each item") from None
    if found.ndim != 1:
        raise InputError(f"{what} must be one number for each item, [N], got {list(found.shape)}")
    if numpy.isnan(found).any():
        raise InputError(f"{what}: {int(numpy.isnan(found).sum())} of {len(found)} values are NaN")
    return found


def _check_rate(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise InputError(f"a false-alarm rate must be above 0 and below 1, got {alpha:g}")


def _check_memory(name: str, count: int) -> None:
    if count < 1:
        raise InputError(f"{name} must be at least 1, got {count}")


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
