"""Importance weights of a generator's draws on Gaussian data, where every distribution of a denoising step is known in closed form."""

import math

import pytest
import torch
from torch import Tensor

from thalweg import noise, random
from thalweg.importance import Proposals, choose, reference_step, repeat, weighted

DIM = 2
STD = 1.5  # of the data, N(0, STD² I)
WIDE = 2.0  # of the reference, N(0, WIDE² I)
BOUND = 4.5  # standard errors
SCHEDULE = noise.vp()
ALPHA, BETA = ([math.nan, *(float(part(t)) for t in (1, 2, 3, 4))] for part in (SCHEDULE.step_alpha, SCHEDULE.step_variance))


def normal(*shape: int, seed: int) -> Tensor:
    return random.normal(*shape, generator=random.seeded(41, seed), dtype=torch.float64)


class GaussianSteps:
    """E(x, t) = a_t ‖x‖²/2, x₀ = m_t x_t + c_t z and their exact encoder: at first the optimum for the data.

    `factor` multiplies the true energy, `width` and `place` what the generator adds to and keeps of x_t.
    """

    schedule = SCHEDULE

    def __init__(self, factor: float = 1.0, width: float = 1.0, place: float = 1.0) -> None:
        signal = torch.tensor(SCHEDULE.signal, dtype=torch.float64)
        v = torch.tensor([a * a * STD**2 + 1 - a * a for a in SCHEDULE.signal], dtype=torch.float64)
        self.a = factor / v
        self.m = place * signal * STD**2 / v
        self.c = width * ((1 - signal.square()) * STD**2 / v).sqrt()

    def reverse(self, x_t: Tensor, z: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        return SCHEDULE.posterior(self.m[t, None] * x_t + self.c[t, None] * z, x_t, t, s)

    def encode_step(self, x_s: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        # x_s = p x₀ + r x_t + k ε: regression of z on the residual x_s − (p m + r) x_t
        one, zero = torch.ones_like(x_t), torch.zeros_like(x_t)
        (p, k), (r, _) = (SCHEDULE.posterior(x0, other, t, t - 1) for x0, other in ((one, zero), (zero, one)))
        m, c = self.m[t, None], self.c[t, None]
        gain = p * c / (p * p * c * c + k * k)
        return gain * (x_s - (p * m + r) * x_t), (1 - gain * p * c).log()

    def conditional_energy(self, x_s: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        energy = self.a[t - 1] * x_s.square().sum(1) / 2
        miss = x_t - SCHEDULE.step_alpha(t, x_s) * x_s
        return energy + (miss.square() / (2 * SCHEDULE.step_variance(t, x_s))).sum(1), energy

    def precision(self, t: int) -> float:
        """Of p(x_s | x_t), whose mean is α x_t/β over it."""
        return float(self.a[t - 1]) + ALPHA[t] ** 2 / BETA[t]


def pair(t: int, rows: int, seed: int = 3) -> tuple[Tensor, Tensor]:
    x_s = SCHEDULE.diffuse(STD * normal(rows, DIM, seed=seed), t - 1, normal(rows, DIM, seed=seed + 1))
    return x_s, ALPHA[t] * x_s + math.sqrt(BETA[t]) * normal(rows, DIM, seed=seed + 2)


def draws(model: GaussianSteps, t: int, x_t: Tensor, *, k: int, data: Tensor | None = None, defensive: int = 0) -> tuple[Tensor, Tensor]:
    """Draws [K, rows, D] and weights [K, rows]."""
    rows = len(x_t)
    latents, spread = normal((k + (data is not None)) * rows, DIM, seed=6), normal(k * rows, DIM, seed=7)
    reference = {"defensive": defensive, "reference_std": WIDE * bool(defensive)}
    x_s, weight = weighted(model, x_t, latents, torch.full((rows,), t), spread, data, **reference)
    return x_s.view(*weight.shape, DIM), weight


@pytest.mark.parametrize("t", [1, 2, 3, 4])
def test_proposals_of_the_exact_generator_have_equal_weights(t):
    _, weight = draws(GaussianSteps(), t, pair(t, 50)[1], k=8)
    torch.testing.assert_close(weight, torch.full_like(weight, 1 / 8))


@pytest.mark.parametrize("defensive", [0, 2000])
@pytest.mark.parametrize("t", [1, 2, 3, 4])
def test_weights_turn_proposals_into_draws_of_the_energy(t, defensive):
    """p(x_s | x_t) of E = a|x|²/2 is Gaussian with precision a + α²/β and mean α x_t/β over it, which is not the generator's."""
    for factor in (0.7, 1.5):
        model, (_, x_t) = GaussianSteps(factor), pair(t, 40)
        x_s, weight = draws(model, t, x_t, k=4000, defensive=defensive)
        precision = model.precision(t)
        residual = x_s - ALPHA[t] / BETA[t] * x_t / precision
        square = (weight[..., None] * residual.square()).sum(0)  # [rows, D], each an estimate of 1/precision
        error = float(square.std()) / math.sqrt(square.numel())
        bias = 4 / 4000 / precision  # of weights that sum to 1
        assert abs(float(square.mean()) - 1 / precision) < BOUND * error + bias
    assert abs(float(residual.square().mean()) - 1 / precision) > 2 * (BOUND * error + bias), "without weights they are not"


@pytest.mark.parametrize("t", [1, 2, 3, 4])
def test_defensive_draws_are_of_the_reference_given_the_next_level(t):
    """x_t = α x_s + √β ε with x_s ~ N(0, v): the mean is the regression of x_s on x_t, the variance what that leaves."""
    v = WIDE**2 * SCHEDULE.signal[t - 1] ** 2 + SCHEDULE.noise[t - 1] ** 2
    x_s = math.sqrt(v) * normal(200_000, DIM, seed=1)
    x_t = ALPHA[t] * x_s + math.sqrt(BETA[t]) * normal(200_000, DIM, seed=2)
    mean, variance = reference_step(SCHEDULE, WIDE, x_t, torch.full((200_000,), t))
    left = x_s - mean
    assert abs(float((left * x_t).mean())) < BOUND * float((left * x_t).std()) / math.sqrt(left.numel())
    assert abs(float(left.square().mean() / variance[0, 0]) - 1) < BOUND * math.sqrt(2 / left.numel())


def test_defensive_draws_find_what_the_generator_does_not_reach():
    """A generator that stays at the middle: from its own draws hardly anything of the energy's law is known."""
    t, found = 1, []
    for defensive in (0, 1000):
        model, (_, x_t) = GaussianSteps(width=0.05, place=0.0), pair(1, 40)
        x_s, weight = draws(model, t, x_t, k=4000, defensive=defensive)
        precision = model.precision(t)
        square = (weight[..., None] * (x_s - ALPHA[t] / BETA[t] * x_t / precision).square()).sum(0)
        found.append((float(square.mean()) * precision, BOUND * float(square.std()) * precision / math.sqrt(square.numel()) + 0.01))
    (_, spread), (with_them, error) = found
    assert abs(with_them - 1) < error < spread / 20, found


@pytest.mark.parametrize("defensive", [0, 1])
@pytest.mark.parametrize("t", [1, 2])
def test_contrast_is_right_at_the_true_energy_with_two_draws_of_a_wrong_generator(t, defensive):
    """The expected gradient in a, E = a|x|²/2, is 0 with the data point among the draws; without it few draws bias it."""
    rows, k, model = 100_000, 2, GaussianSteps(width=1.5, place=0.9)
    x_s, x_t = pair(t, rows)
    found = {}
    for data in (None, x_s):
        x, weight = draws(model, t, x_t, k=k, data=data, defensive=defensive)
        assert weight.shape == (k + (data is not None), rows)
        torch.testing.assert_close(weight.sum(0), torch.ones(rows, dtype=weight.dtype))
        slope = 0.5 * (x_s.square().sum(1) - (weight * x.square().sum(2)).sum(0))
        found[data is not None] = float(slope.mean() / (slope.std() / math.sqrt(rows)))
    assert abs(found[True]) < BOUND, found
    assert abs(found[False]) > 2 * BOUND, found


def test_contrast_stops_an_energy_that_runs_away():
    """Data that no draw comes near weigh nearly 1, and leave no gradient."""
    model, (x_s, x_t) = GaussianSteps(), pair(1, 64)
    true = model.conditional_energy
    model.conditional_energy = lambda x, x_t, t: (true(x, x_t, t)[0] + 10 * (x - 20).square().sum(1), None)
    _, weight = draws(model, 1, x_t, k=4, data=x_s + 20)
    assert float(weight[-1].min()) > 1 - 1e-6


def test_choosing_follows_the_weights():
    n, x = 100_000, torch.tensor([1.0, 2.0, 3.0])
    weight = torch.tensor([0.2, 0.0, 0.8])[:, None].expand(3, n)
    chosen = choose(repeat(x[:, None], 1).repeat_interleave(n, 0), weight, random.uniform(n, generator=random.seeded(1)))
    assert chosen.shape == (n, 1) and not (chosen == 2).any()
    assert abs(float((chosen == 1).float().mean()) - 0.2) < BOUND * math.sqrt(0.16 / n)
    last = choose(torch.arange(3.0), torch.full((3, 1), 1 / 3), torch.ones(1))
    assert last.tolist() == [2.0], "rounded weights may sum to less than 1"


def test_a_batch_is_repeated_whole():
    assert repeat(torch.tensor([[1.0], [2.0]]), 2).flatten().tolist() == [1, 2, 1, 2]


def test_the_spec_is_checked_and_needs_no_torch():
    import subprocess
    import sys

    assert Proposals().count == 16
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        Proposals(count=0)
    code = "import sys, thalweg.presets.ddaebm; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
