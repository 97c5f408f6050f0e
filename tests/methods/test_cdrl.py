"""CDRL and DRL: constants of the thesis, closed forms on Gaussian data, the recovery gradient, guidance and composition."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import thalweg as tw
from thalweg import noise, random
from thalweg.chain import MALA, Langevin
from thalweg.data.base import Batch
from thalweg.errors import InputError
from thalweg.guidance import given
from thalweg.levels import LevelTable
from thalweg.methods import preset
from thalweg.nn.build import MLP
from thalweg.objective import recovery, squared_error
from thalweg.proposing import latent

BOUND = 4.5
STD = 0.7  # of the Gaussian data
DIM = 2


class Gaussian:
    """Data N(0, STD² I); with classes, a random label that says nothing."""

    def __init__(self, classes: int = 0) -> None:
        self.name, self.shape, self.classes = "gaussian", (DIM,), tuple(map(str, range(classes)))

    def batch(self, start: int, count: int, seed: int) -> Batch:
        generator = random.seeded(seed, start)
        x = STD * random.normal(count, DIM, generator=generator)
        return Batch(x, random.integers(count, 0, len(self.classes), generator=generator) if self.classes else None)


class Quadratic(nn.Module):
    """−f(y; t) = ½ exp(θ_t) ‖y‖² with θ from log-precisions, in the place of the network."""

    def __init__(self, log_precision: list[float]) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(log_precision))

    def forward(self, y: Tensor, t: Tensor) -> Tensor:
        return -0.5 * self.theta[t].exp() * y.square().sum(1)


class Recorder:
    """An `update` that takes no step and keeps each loss."""

    def __init__(self, *seed: int) -> None:
        self.generator, self.images, self.losses, self.logged = random.seeded(*seed), 0, {}, {}

    def __call__(self, name: str, loss: Tensor) -> None:
        self.losses[name] = loss

    def log(self, **values) -> None:
        self.logged.update(values)

    def mean(self, value: Tensor) -> Tensor:
        return value


def precision(method, t: int, std: float = STD) -> float:
    """1/(α²_{t+1}(ᾱ_t² s² + σ̄_t²)), the curvature of the energy of y_t; α = 1 at the top level."""
    s, top = method.schedule, method.config.levels - 1
    alpha = 1.0 if t == top else s.signal[t + 1] / s.signal[t]
    return 1 / (alpha**2 * (s.signal[t] ** 2 * std**2 + s.noise[t] ** 2))


SMALL = dict(net=dict(width=32, depth=2), initializer=dict(width=16), levels=6, waves=0)
ADAPTED = MALA(steps=15, step=1.0, target_acceptance=0.6)
FIXED = MALA(steps=15, step=1.0)


def toy(**fields):
    return tw.method("cdrl/8gaussians", seed=0, data=Gaussian(), **SMALL | {"chain": ADAPTED} | fields)


def quadratic(offset: float = 0.0, **fields):
    """A method whose network is the exact marginal energy of every level, its log-precisions off by `offset`."""
    method = toy(**{"data_std": 0.0, "initializer": None, "chain": FIXED, **fields})
    exact = [precision(method, t) for t in range(method.config.levels)]
    method.net = Quadratic([math.log(k) + offset for k in exact])
    if isinstance(method.config.chain, MALA):  # steps a little longer than the width of p(y_t | x_{t+1})
        widths = [1 / math.sqrt(k + float(pull)) for k, pull in zip(exact, method.table.pull)]
        method.step_size.size.copy_(1.2 * torch.tensor(widths) / method.table.step)
    return method


# --- constants


def test_constants_of_the_levels():
    method = tw.method("cdrl/digits", net=dict(width=8), weight_power=1.0)
    spread = [0.0074, 0.2221, 0.389, 0.5447, 0.7162, 0.9218]
    alpha = [float(a) for a in method.table.alpha]
    assert alpha[-1] == 1 and float(method.table.pull[-1]) == 0, "x_T is pure noise: no scaling and no quadratic term at the top"
    assert [float(p) / a for p, a in zip(method.table.proposal_std, alpha)] == pytest.approx(spread, abs=2e-4)
    assert [1 / float(p) for p in method.table.pull[:-1]] == pytest.approx([0.0636, 0.1798, 0.3031, 0.4507, 0.6522], abs=1e-4)
    assert method.table.weight.tolist() == pytest.approx([1, 0.595, 0.458, 0.376, 0.312, 0.260], abs=1e-3)
    noise, variance = [0.0074, 0.2523, 0.4817, 0.6818, 0.8402, 0.9475], [0.0636, 0.1798, 0.3031, 0.4507, 0.6522, 0.9407]
    steps = [0.054 * a * b for a, b in zip(noise, variance)]
    assert method.table.step.square().tolist() == pytest.approx(steps, rel=0.01)


def test_the_baseline_is_drl():
    """Its schedule, pairs of two noises and s_t² = b² (σ̄_t/σ̄_0) σ²_{t+1}, b² = 2e-4, of 30 steps, as in its released code."""
    for name in ("digits-drl", "cifar10-drl"):
        _, config = preset(f"cdrl/{name}")
        assert (config.chain.steps, config.initializer, config.variance_reduction, config.tweedie) == (30, None, False, 0.0)
        schedule = config.schedule.build(config.levels)
        assert schedule.signal == noise.drl(6).signal
        expected = [
            2e-4 * s / schedule.noise[0] * (1 - (b / a) ** 2) for s, a, b in zip(schedule.noise, schedule.signal, schedule.signal[1:])
        ]
        assert LevelTable(schedule, step_coefficient=config.step_coefficient, data_std=0.0, weight_power=1.0).step.square().tolist() == (
            pytest.approx(expected, rel=1e-3)
        )


def test_warm_up_of_the_initializer_is_ahead():
    method = toy(warm_up=10_000, ahead=500, lr_end=1.0, batch=256)
    rate = {name: method.learning_rate(name, 1_000 * 256) for name in ("energy", "initializer")}
    assert rate == pytest.approx({"energy": 0.1, "initializer": 0.15}, rel=2e-3)
    assert method.learning_rate("energy", 20_000 * 256) == 1


# --- densities


def test_the_untrained_energy_is_the_reference_gaussian_at_every_level():
    """And `energy` is of x_t, `marginal` of y_t = α_{t+1} x_t."""
    method = toy(data_std=STD)
    x = random.normal(64, DIM, generator=random.seeded(1))
    for t in range(6):
        level = torch.full((64,), t)
        y = x * method.table.alpha[t]
        assert torch.allclose(method.marginal(y, level), 0.5 * precision(method, t) * y.square().sum(1), rtol=1e-4)
        assert torch.allclose(method.energy(x, t=t), method.marginal(y, level))


@pytest.mark.parametrize("readout", ["scalar", "nats"])
def test_the_network_s_unit(readout):
    method = toy(data_std=0.0, readout=readout)
    nn.init.ones_(method.net.last.weight)
    x, t = torch.randn(5, DIM, generator=random.seeded(2)), torch.tensor([0, 1, 2, 4, 5])
    raw = method.net(x, t)
    unit = 0.054 * method.schedule.sigma(t) * method.schedule.step_variance(t + 1) if readout == "scalar" else torch.ones(5)
    assert torch.allclose(method.marginal(x, t), -raw / unit, rtol=1e-4)


@pytest.mark.parametrize("network", ["mlp", "patch"])
def test_the_inner_read_out(network):
    """E = ½‖u‖² + r ⟨u, m⟩ − l/σ̄: untrained the reference Gaussian at every level, then with the network's own m and l."""
    net = dict(kind="mlp", width=16) if network == "mlp" else dict(kind="patch", width=8, blocks=1)
    method = tw.method("cdrl/digits", net=net, initializer=dict(width=8))
    y, t = random.normal(6, 1, 8, 8, generator=random.seeded(19)), torch.arange(6)
    s = method.schedule
    variance = torch.tensor([float(method.table.alpha[i]) ** 2 * (s.signal[i] ** 2 * 0.85**2 + s.noise[i] ** 2) for i in range(6)])
    reference = y.flatten(1).square().sum(1) / (2 * variance)
    assert torch.allclose(method.marginal(y, t), reference, rtol=1e-4)
    m, l = random.normal(6, 1, 8, 8, generator=random.seeded(20)), random.normal(6, 1, generator=random.seeded(21))
    method.net.forward = lambda u, t: (m, l)
    u = y / variance.sqrt().view(-1, 1, 1, 1)
    ratio = torch.tensor([s.signal[i] * 0.85 / s.noise[i] for i in range(6)])
    expected = reference + ratio * (u * m).flatten(1).sum(1) - l[:, 0] / torch.tensor(s.noise[:6])
    assert torch.allclose(method.marginal(y, t), expected, rtol=1e-3)


def test_drl_s_schedule_is_a_table_of_ddpm_s():
    method = tw.method("cdrl/digits", net=dict(width=8), schedule="drl", levels=8)
    ddpm = noise.linear_beta(1000)
    assert method.schedule.signal[:6] == tuple(ddpm.signal[t] for t in (1, 101, 201, 301, 401, 501))
    assert method.schedule.signal[-1] == ddpm.signal[-1] and len(method.schedule.signal) == 9
    assert 0.28 > method.schedule.signal[6] > method.schedule.signal[7] > method.schedule.signal[8], "two more where the noise is high"


def test_the_posterior_adds_the_quadratic_term_but_at_the_top():
    method = quadratic()
    y, x_next = torch.randn(2, 3, DIM, generator=random.seeded(3)).unbind(0)
    t, unit = torch.tensor([0, 3, 5]), torch.tensor([[0.5], [2.0], [3.0]])
    found = method.posterior(y / unit, t=t, x_next=x_next, unit=unit) - method.marginal(y, t)
    squares = (y - x_next).square().sum(1)
    expected = [squares[0] / (2 * 0.06358), squares[1] / (2 * 0.4507), 0.0]
    assert found.tolist() == pytest.approx([float(v) for v in expected], rel=2e-3, abs=1e-5)


@pytest.mark.parametrize("predict", ["y", "x0", "noise"])
def test_the_initializer_s_mean(predict):
    """The network corrects the best linear guess; where it gives the truth, x0 and noise mean α_{t+1} E(x_t | x_{t+1}, x_0)."""
    method = toy(predict=predict)
    x0, e = random.normal(2, 8, DIM, generator=random.seeded(4)).unbind(0)
    for level in range(6):
        t = torch.full((8,), level)
        x_next = method.schedule.diffuse(x0, t + 1, e)
        s, std = method.schedule, method.config.data_std
        variance = s.signal[level + 1] ** 2 * std**2 + s.noise[level + 1] ** 2
        guess = {"x0": s.signal[level + 1] * std**2 / variance, "noise": s.noise[level + 1] / variance}
        answer = torch.full_like(x0, 0.3) if predict == "y" else (x0 if predict == "x0" else e) - guess[predict] * x_next
        method.initializer.forward = lambda *_, answer=answer: (answer, None)
        alpha = s.signal[level + 1] / s.signal[level]
        step = 1 - alpha**2
        mean = s.signal[level] * step / s.noise[level + 1] ** 2 * x0 + alpha * s.noise[level] ** 2 / s.noise[level + 1] ** 2 * x_next
        expected = method.table.guess[level] * x_next + 0.3 if predict == "y" else method.table.alpha[level] * mean
        assert torch.allclose(method.data_mean(x0, x_next, t), method.table.alpha[level] * mean, atol=2e-4)
        assert torch.allclose(method.proposal_mean(x_next, t), expected, atol=2e-4)


@pytest.mark.parametrize("predict", ["y", "x0", "noise"])
def test_an_untrained_initializer_proposes_the_best_linear_guess(predict):
    """The regression of y_t on x_{t+1} over pairs of Gaussian data, whatever the network predicts."""
    method, n = toy(predict=predict, data_std=STD), 20_000
    x0, e, other = random.normal(3, n, DIM, generator=random.seeded(24)).unbind(0)
    for level in range(6):
        t = torch.full((n,), level)
        y, x_next = method.schedule.pair(STD * x0, t, e, other)
        slope = float((y * x_next).sum() / x_next.square().sum())
        error = float((y - slope * x_next).std() / x_next.std()) / math.sqrt(y.numel())
        found = method.proposal_mean(x_next, t).detach()
        assert torch.allclose(found, float(method.table.guess[level]) * x_next, atol=1e-5)
        assert abs(float((found * x_next).sum() / x_next.square().sum()) - slope) < BOUND * error


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_proposals_learned_from_the_data_are_as_wide_as_y(level):
    """On narrow Gaussian data, as images are locally: from the mean they are, from y of pairs with one noise they are too wide."""
    std, n = 0.1, 20_000
    method = toy(data_std=std)
    x0, e = random.normal(2, n, DIM, generator=random.seeded(25)).unbind(0)
    t = torch.full((n,), level)
    y, x_next = method.schedule.pair(std * x0, t, e)
    width = {}
    for name, target in (("mean", method.data_mean(std * x0, x_next, t)), ("y", y)):
        best = (target * x_next).sum() / x_next.square().sum() * x_next  # what an initializer learns from these targets
        width[name] = float(method.propose(best, t, random.seeded(26)).std() / y.std())
    assert 0.94 < width["mean"] < 1.02 and width["y"] > 1.2


# --- training


def exact_pairs(method, level: int, n: int, *, reduced: bool, seed: int) -> tuple[Tensor, Tensor]:
    """(y_t, exact draws of p(y_t | x_{t+1})) where the model is the Gaussian data's."""
    generator = random.seeded(seed, level)
    x0, e, other, xi = random.normal(4, n, DIM, generator=generator).unbind(0)
    t = torch.full((n,), level)
    y, x_next = method.schedule.pair(STD * x0, t, e, None if reduced else other)
    total = precision(method, level) + float(method.table.pull[level])
    return y, float(method.table.pull[level]) / total * x_next + xi / math.sqrt(total)


@pytest.mark.parametrize("reduced", [True, False])
@pytest.mark.parametrize("level", [0, 2, 4, 5])
def test_the_recovery_gradient_is_zero_at_the_truth_and_points_there(level, reduced):
    n = 20_000
    for offset, sign in ((0.0, 0), (0.3, 1), (-0.3, -1)):
        method = quadratic(offset)
        y, samples = exact_pairs(quadratic(), level, n, reduced=reduced, seed=1)
        if offset:  # draws of the model that is off
            k, pull = precision(method, level), float(method.table.pull[level])
            t = torch.full((n,), level)
            x0, e, other, xi = random.normal(4, n, DIM, generator=random.seeded(2, level)).unbind(0)
            y, x_next = method.schedule.pair(STD * x0, t, e, None if reduced else other)
            samples = pull / (k * math.exp(offset) + pull) * x_next + xi / math.sqrt(k * math.exp(offset) + pull)
        t = torch.full((n,), level)
        loss, data, sampled = recovery(method.marginal, y, samples, torch.ones(n), t)
        (gradient,) = torch.autograd.grad(loss, method.net.theta)
        # dE/dθ = E for this family, so the rows of the loss are those of the gradient
        error = float((data - sampled).detach().std()) / math.sqrt(n)
        assert float(gradient[level]) == pytest.approx(float((data - sampled).detach().mean()), rel=1e-3, abs=1e-5)
        if sign:
            assert sign * float(gradient[level]) > BOUND * error, "too high a precision must fall, too low a one rise"
        else:
            assert abs(float(gradient[level])) < BOUND * error


def test_step_s_own_loss_is_zero_at_the_truth():
    """The whole step, chains included: DRL's start at x_{t+1}, MALA long enough to forget it."""
    method = quadratic(steps=60, batch=6000)
    update = Recorder(5)
    method.step(Gaussian().batch(0, 6000, 3), update)
    difference = (update.logged["energy_data"] - update.logged["energy_samples"]).detach()
    assert float(update.logged["acceptance"].mean()) > 0.5
    assert abs(float(difference.mean())) < BOUND * float(difference.std()) / math.sqrt(6000)
    (gradient,) = torch.autograd.grad(update.losses["energy"], method.net.theta)
    assert float(gradient.abs().max()) < 0.05


def test_variance_reduction_lowers_the_gradient_s_variance():
    method = quadratic()
    for level in (0, 1, 2, 3):
        spread = []
        for reduced in (True, False):
            y, samples = exact_pairs(method, level, 20_000, reduced=reduced, seed=6)
            t = torch.full((len(y),), level)
            _, data, sampled = recovery(method.marginal, y, samples, torch.ones(len(y)), t)
            spread.append(float((data - sampled).detach().var()))
        assert spread[0] < spread[1]


def assert_curvature(method, tolerance: float) -> None:
    """The slope of E on the exact energy of y_t at every level."""
    for t in range(6):
        y = random.normal(4000, DIM, generator=random.seeded(7, t)) / math.sqrt(precision(method, t))
        exact = 0.5 * precision(method, t) * y.square().sum(1)
        energy = method.marginal(y, torch.full((4000,), t)).detach()
        slope = float(torch.cov(torch.stack([energy, exact]))[0, 1] / exact.var())
        assert slope == pytest.approx(1, abs=tolerance), f"level {t}"


def test_drl_learns_the_closed_form_curvature():
    fields = {"batch": 600, "images": 250 * 600, "steps": 6, "lr": 0.03, "ema": 0.98, "warm_up": 1}
    method = quadratic(0.6, **fields)
    ema = tw.fit(method, Gaussian(), progress=False)
    assert_curvature(ema, 0.05)


@pytest.mark.parametrize(("readout", "lr", "updates"), [("nats", 5e-3, 300), ("inner", 5e-4, 600)])
def test_cdrl_s_network_learns_the_closed_form_curvature(readout, lr, updates):
    """From the reference of a Gaussian that is twice as wide."""
    fields = {"data_std": 1.4, "lr": lr, "lr_initializer": 5e-3, "batch": 600, "images": updates * 600, "steps": 6, "ema": 0.985}
    method = toy(**fields, warm_up=20, readout=readout)
    ema = tw.fit(method, Gaussian(), progress=False)
    assert_curvature(ema, 0.05)
    x = ema.sample(4000, seed=3, steps=15)
    assert float(x.var()) == pytest.approx(STD**2, rel=0.06 if readout == "nats" else 0.09)


def test_the_initializer_learns_from_what_it_is_told():
    mean = {}
    for source, data_first in (("refined", 0.0), ("data", 1.0)):
        method = toy(data_first=data_first)
        update = Recorder(8)
        method.refine = lambda y, *_, **options: torch.full_like(y, 50.0)
        method.step(Gaussian().batch(0, 64, 1), update)
        mean[source] = float(update.losses["initializer"].detach())
    assert mean["refined"] > 2000 and mean["data"] < 10


@pytest.mark.parametrize("data_target", ["mean", "y"])
def test_what_of_the_data_the_initializer_learns(data_target):
    method, x0 = toy(data_first=1.0, data_target=data_target), Gaussian().batch(0, 64, 1).x
    update = Recorder(27)
    method.step(Batch(x0, None), update)
    generator = random.seeded(27)
    t = random.integers(64, 0, 6, generator=generator)
    y, x_next = method.schedule.pair(x0, t, random.normal_like(x0, generator))
    target = y if data_target == "y" else method.data_mean(x0, x_next, t)
    assert float(update.losses["initializer"].detach()) == pytest.approx(
        float(squared_error(method.table.guess[t][:, None] * x_next, target))
    )


def test_the_initializer_can_learn_from_the_data_first():
    found = []
    for images in (0, 499, 500, 900):
        method = toy(data_first=0.5, images=1000)
        update = Recorder(8)
        update.images = images
        method.refine = lambda y, *_, **options: torch.full_like(y, 50.0)
        method.step(Gaussian().batch(0, 64, 1), update)
        found.append(float(update.losses["initializer"].detach()) < 10)
    assert found == [True, True, False, False]


@pytest.mark.parametrize("slow", [False, True])
def test_slow_proposals_are_those_of_the_twin(slow):
    """Chains start there; what the initializer learns is its own mean."""
    method, update, starts = toy(slow_proposals=slow), Recorder(29), []
    update.ema = toy()
    update.ema.initializer.forward = lambda x, t: (torch.full_like(x, 100.0), None)
    method.refine = lambda y, *_, **options: starts.append(y) or torch.zeros_like(y)
    method.step(Gaussian().batch(0, 64, 1), update)
    assert (float(starts[0].mean()) > 90) == slow and not starts[0].requires_grad
    assert float(update.losses["initializer"].detach()) < 10


def test_targets_pass_from_the_data_to_refined_draws_over_the_hand_over():
    method = toy(data_first=0.5, hand_over=0.2, refined_share=0.8, images=1000)
    assert [method.refined_share(images) for images in (0, 499, 500, 600, 700, 1000)] == pytest.approx([0, 0, 0, 0.4, 0.8, 0.8])
    found = {}
    for share in (0.5, 1.0):
        method, update = toy(refined_share=share), Recorder(8)
        method.refine = lambda y, *_, **options: torch.full_like(y, 50.0)
        method.step(Gaussian().batch(0, 400, 1), update)
        found[share] = float(update.losses["initializer"].detach())
    assert abs(found[0.5] / found[1.0] - 0.5) < BOUND * 0.5 / math.sqrt(400)


def test_the_energy_of_the_level_above_gives_the_mean_of_refined_draws():
    """E[y_t | x_{t+1}] of Gaussian data; at the top, where x_T is pure noise, the chain's end stands in."""
    method, t = quadratic(), torch.arange(6)
    method.config = replace(method.config, refined_target="above")
    x, end = random.normal(6, DIM, generator=random.seeded(33)), torch.full((6, DIM), 50.0)
    found = method.refined_target(end, end, x, t, None, tw.sample.Trace(), Recorder())
    signal, sigma = method.schedule.signal, method.schedule.noise
    variance = [(a * STD) ** 2 + b**2 for a, b in zip(signal, sigma)]
    shares = torch.tensor([(signal[i + 1] / signal[i]) ** 2 * variance[i] / variance[i + 1] for i in range(5)])
    torch.testing.assert_close(found[:5], shares[:, None] * x[:5], rtol=1e-4, atol=1e-5)
    assert torch.equal(found[5], end[5])


@pytest.mark.parametrize("kind", ["end", "mean", "slow"])
def test_what_of_refined_draws_the_initializer_learns(kind):
    """50 where it is asked for, 0 elsewhere; a chain of the twin is on the twin's energies."""
    method, update = toy(refined_target=kind), Recorder(34)
    update.ema = toy()

    def refine(y, x_next, t, *, energy=None, trace=None, **options):
        assert energy is None or energy.func == update.ema.marginal
        if trace is not None:
            assert trace.average == (kind == "mean")
            trace.mean = (50.0 if kind == "mean" else 0.0) / (method.table.step[t] * method.step_size.size[t])[:, None].expand_as(y)
        return torch.full_like(y, 50.0 if kind == ("end" if energy is None else "slow") else 0.0)

    method.refine = refine
    method.step(Gaussian().batch(0, 64, 1), update)
    assert float(update.losses["initializer"].detach()) > 2000


def test_steps_adapt_at_each_level_to_the_wanted_acceptance():
    method = quadratic(chain=ADAPTED, steps=10)
    method.step_size.size.fill_(1.0)
    for i in range(120):
        update = Recorder(9, i)
        method.step(Gaussian().batch(0, 240, i), update)
    assert float(method.step_size.size[0]) > 5, "the paper's step at level 0 is far too small in the plane"
    assert float(update.logged["acceptance"].mean()) == pytest.approx(0.6, abs=0.1)


# --- labels


def conditional(**fields):
    nets = dict(net=dict(width=16), initializer=dict(width=16))
    method = tw.method("cdrl/8gaussians", seed=0, data=Gaussian(3), conditional=True, levels=6, **nets, **fields)
    nn.init.normal_(method.net.net.last.weight, std=0.1, generator=random.seeded(12))
    nn.init.normal_(method.initializer.net.last.weight, std=0.1, generator=random.seeded(13))
    return method


def test_guidance_and_composition_are_the_sums_of_the_thesis():
    """In the paper's w = guidance − 1."""
    method = conditional()
    y, t = random.normal(6, DIM, generator=random.seeded(14)), torch.arange(6)
    labels = torch.tensor([[0, 2]] * 6)
    free, first, second = (method.marginal(y, t, c) for c in (None, labels[:, 0], labels[:, 1]))

    def guided(label: Tensor, guidance: float | list[float], function=method.marginal) -> Tensor:
        return given(function, method._concepts(6, label, guidance))(y, t=t)

    assert torch.allclose(guided(labels[:, 0], 1.7), 1.7 * first - 0.7 * free, atol=1e-4)  # eq. 5.9
    expected = 1.5 * (first + second) - (2 * 0.5 + 1) * free  # eq. 5.12 with M = 2
    assert torch.allclose(guided(labels, 1.5), expected, atol=1e-4)
    assert torch.allclose(guided(labels, [1.0, -1.0]), first - second + free, atol=1e-4)
    g = [method.proposal_mean(y, t, c) for c in (None, labels[:, 0])]
    assert torch.allclose(guided(labels[:, 0], 1.7, method.proposal_mean), 1.7 * g[1] - 0.7 * g[0], atol=1e-4)  # eq. 5.10
    assert torch.equal(guided(labels[:, 0], 1.0), first), "guidance 1 is p(x | label)"
    assert torch.allclose(guided(labels[:, 0], 0.0), free, atol=1e-4), "guidance 0 ignores the label"
    assert torch.allclose(guided(torch.full((6, 2), -1), 4.0), free, atol=1e-4), "−1 is no concept at all"


def test_labels_steer_samples():
    method = conditional()
    drawn = {label: method.sample(8, seed=1, label=label) for label in (None, 0, 1)}
    assert not torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[None], drawn[0])
    assert torch.equal(method.sample(8, seed=1, label=-1), drawn[None])
    assert torch.equal(method.sample(8, seed=1, label=0, guidance=1.0), drawn[0])
    assert not torch.equal(method.sample(8, seed=1, label=0, guidance=3.0), drawn[0])
    assert torch.equal(method.sample(8, seed=1, label=torch.zeros(8, 1, dtype=torch.int64)), drawn[0])


def test_guiding_the_initializer_leaves_energies_at_their_own_weight():
    method = conditional()
    labels = torch.tensor([[0, 2]] * 8)

    def drawn(guidance, guide, use):
        return method.sample(8, seed=1, label=labels, guidance=guidance, guide=guide, use=use)

    assert torch.equal(drawn(3.0, "initializer", "energy"), drawn(1.0, "both", "energy"))
    assert not torch.equal(drawn(3.0, "both", "energy"), drawn(1.0, "both", "energy"))
    assert torch.equal(drawn(3.0, "initializer", "initializer"), drawn(3.0, "both", "initializer"))
    assert torch.equal(drawn([1.0, -1.0], "initializer", "energy"), drawn([1.0, -1.0], "both", "energy")), "what is negated stays so"
    assert torch.equal(drawn(3.0, "initializer", "both"), drawn(3.0, "initializer", "both"))


def test_an_initializer_without_labels_proposes_the_same_for_all():
    """As in sec. 5.4.6: the label is in the energies alone."""
    method = conditional(initializer_conditional=False)
    assert method.initializer.net.label is None

    def drawn(label, use, **asked):
        return method.sample(8, seed=1, label=label, use=use, **asked)

    assert torch.equal(drawn(0, "initializer"), drawn(1, "initializer")) and not torch.equal(drawn(0, "both"), drawn(1, "both"))
    assert torch.equal(drawn(torch.tensor([[0, 2]] * 8), "initializer", guidance=4.0), drawn(None, "initializer"))
    update = Recorder(28)
    method.step(Gaussian(3).batch(0, 64, 1), update)
    assert set(update.losses) == {"energy", "initializer"}
    with pytest.raises(InputError, match="needs initializer_conditional"):
        drawn(0, "both", guide="initializer")


def test_a_model_samples_with_its_own_guide_and_resample():
    fields = dict(guidance=2.0, guide="initializer", resample=2)
    own, plain = conditional(**fields), conditional()
    assert torch.equal(own.sample(8, seed=1, label=0), plain.sample(8, seed=1, label=0, **fields))
    assert not torch.equal(own.sample(8, seed=1, label=0), own.sample(8, seed=1, label=0, resample=1))


# --- composed energies

CENTRES = torch.tensor([[0.8, 0.0], [0.0, 0.8], [0.0, 0.0]])  # of two labels and of none
VARIANCES = (0.2, 0.2, 1.0)


class Concepts(nn.Module):
    """The exact energies of noised N(centre, variance I) given each label, and of N(0, I) without, in the place of the network."""

    def __init__(self, method) -> None:
        super().__init__()
        self.signal, self.noise = (torch.tensor(values[:-1]) for values in (method.schedule.signal, method.schedule.noise))
        self.alpha, self.variance = method.table.alpha, nn.Parameter(torch.tensor(VARIANCES))

    def forward(self, y: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        which = torch.full_like(t, 2) if label is None else torch.where(label < 0, 2, label)
        a, b, alpha = self.signal[t], self.noise[t], self.alpha[t]
        variance = alpha**2 * (a**2 * self.variance[which] + b**2)
        return -(y - (alpha * a)[:, None] * CENTRES[which]).square().sum(1) / (2 * variance)


def two_gaussians():
    """A method with exact energies, whose chains within a level are long enough to be exact too."""
    method = tw.method(
        "cdrl/8gaussians",
        seed=0,
        data=Gaussian(2),
        conditional=True,
        **SMALL | dict(initializer=None),
        data_std=0.0,
        tweedie=0.0,
        chain=FIXED,
    )
    method.net = Concepts(method)
    s, top = method.schedule, method.config.levels - 1
    for t in range(top + 1):
        alpha = float(method.table.alpha[t])
        within = 1 / (1 / (alpha**2 * (s.signal[t] ** 2 * 0.2 + s.noise[t] ** 2)) + float(method.table.pull[t]))
        method.step_size.size[t] = 1.2 * math.sqrt(within) / method.table.step[t]
    return method


def product(signal: float, noise: float) -> tuple[float, float]:
    """Variance and mean, of each entry, of p(x | 0) p(x | 1)/p(x) at one level."""
    one, _, free = (signal**2 * variance + noise**2 for variance in VARIANCES)
    variance = 1 / (2 / one - 1 / free)
    return variance, variance * 0.8 * signal / one


def guided(method) -> tuple[float, float]:
    """Variance and mean of samples that draw each level from the composed energy and the quadratic term, as plain guidance does."""
    variance, mean, top = 1.0, 0.0, method.config.levels - 1
    for t in reversed(range(top + 1)):
        own, centre = product(method.schedule.signal[t], method.schedule.noise[t])
        alpha, pull = float(method.table.alpha[t]), float(method.table.pull[t])
        own, centre = alpha**2 * own, alpha * centre  # of y_t
        within = 1 / (1 / own + pull)
        variance, mean = within + (within * pull) ** 2 * variance, within * (centre / own + pull * mean)
        variance, mean = variance / alpha**2, mean / alpha
    return variance, mean


def off(x: Tensor, variance: float, mean: float) -> tuple[float, float]:
    """How many standard errors the variance and the mean of draws [N, 2] are from these."""
    var_error, mean_error = variance * math.sqrt(2 / x.numel()), math.sqrt(variance / x.numel())
    return (float(x.var(0).mean()) - variance) / var_error, (float(x.mean()) - mean) / mean_error


@pytest.mark.parametrize("walk", ["guided", "corrections", "population"])
def test_what_is_sampled_of_two_gaussians_composed(walk):
    """Plain guidance has a law of its own, in closed form, and far from the product's; corrections and populations have the product's."""
    method, n = two_gaussians(), 800 if walk == "population" else 4000
    exact = product(method.schedule.signal[0], method.schedule.noise[0])
    asked = {"guided": {}, "corrections": dict(corrections=40), "population": dict(population=64, corrections=3)}[walk]
    x = method.sample(n, seed=2, label=torch.tensor([[0, 1]]).expand(n, -1), steps=40 if walk == "guided" else 15, **asked)
    if walk == "guided":
        assert all(abs(error) < BOUND for error in off(x, *guided(method)))
        assert off(x, *exact)[0] < -BOUND and off(x, *exact)[1] > BOUND, "too narrow, and too far out"
    else:
        assert all(abs(error) < BOUND for error in off(x, *exact))


def test_walks_of_composed_energies():
    """Nothing changes without them; a population is of each sample's own labels; what does not fit together is said."""
    method, labels = conditional(), torch.tensor([[0, 2]] * 4)
    plain = method.sample(4, seed=1, label=labels)
    assert torch.equal(plain, method.sample(4, seed=1, label=labels, corrections=0, population=1))
    for asked in (dict(corrections=2), dict(population=3, steps=2), dict(population=2, steps=2, corrections=1, down_to=2)):
        found = method.sample(4, seed=1, label=labels, **asked)
        assert found.shape == plain.shape and not torch.equal(found, plain)
        assert torch.equal(found, method.sample(4, seed=1, label=labels, **asked))
    far = two_gaussians().sample(64, seed=3, label=torch.arange(64)[:, None] % 2, population=32)
    assert (far[0::2, 0] > far[0::2, 1]).float().mean() > 0.8 and (far[1::2, 1] > far[1::2, 0]).float().mean() > 0.8
    for options, message in (
        (dict(corrections=-1), "corrections must be 0 or more, got -1"),
        (dict(population=0), "population must be 1 or more, got 0"),
        (dict(corrections=0.5), "corrections must be a whole number"),
        (dict(corrections=1, use="initializer"), "need energies"),
        (dict(population=2, start=torch.zeros(4, DIM)), "no constraint, no start and no shared noise"),
        (dict(population=2, constraint=lambda x, signal, noise: x), "no constraint, no start and no shared noise"),
    ):
        with pytest.raises(InputError, match=message):
            method.sample(4, label=labels, **options)
    with pytest.raises(InputError, match="a population needs a model of"):
        toy().sample(2, population=2)
    with pytest.raises(InputError, match="a population needs a model of"):
        conditional(label_dropping=0.0).sample(3, label=1, population=2)


def test_corrections_keep_a_constraint():
    method = tw.method("cdrl/digits", net=dict(width=16), initializer=dict(width=8), steps=2)

    def constraint(x: Tensor, signal: float, noise: float) -> Tensor:
        return torch.cat([torch.full_like(x[:, :, :4], 0.5 * signal), x[:, :, 4:]], 2)

    x = method.sample(3, seed=1, constraint=constraint, denoise=False, corrections=3)
    assert torch.allclose(x[:, :, :4], torch.full_like(x[:, :, :4], 0.5 * method.schedule.signal[0]), atol=1e-5)
    assert not torch.equal(x, method.sample(3, seed=1, constraint=constraint, denoise=False))


def test_concepts_that_are_learned_together_are_learned_by_their_sum():
    """The loss of a batch whose images have two labels is that of the composed energies; rows of one label are as without."""
    method = conditional(together=1.0, label_dropping=0.0)
    y, t = random.normal(6, DIM, generator=random.seeded(14)), torch.arange(6)
    labels = torch.tensor([[0, 2]] * 6)
    for function in (method.marginal, method.proposal_mean):
        first, second, free = (function(y, t, label) for label in (labels[:, 0], labels[:, 1], None))
        torch.testing.assert_close(function(y, t, labels), first + second - free, rtol=1e-4, atol=1e-4)
        alone = torch.stack([labels[:, 0], torch.full((6,), -1)], 1)
        torch.testing.assert_close(function(y, t, alone), first, rtol=1e-4, atol=1e-4)
    update, batch = Recorder(3), Gaussian(3).batch(0, 60, 1)
    method.step(Batch(batch.x, labels.repeat(10, 1)), update)
    assert all(loss.isfinite() for loss in update.losses.values()) and set(update.losses) == {"energy", "initializer"}


# --- sampling


def expected_variance(method, steps: int, *, denoise: float) -> float:
    """Of samples from exact Gaussian energies by the unadjusted chain from x_{t+1}: each step is linear, and so is Tweedie's formula."""
    variance, trained = 1.0, method.config.chain.steps
    for t in reversed(range(6)):
        k, pull = precision(method, t), float(method.table.pull[t])
        s2 = float(method.table.step[t]) ** 2 * trained / steps
        shrink, to_next = 1 - s2 / 2 * (k + pull), s2 / 2 * pull
        a, noise = 1.0, 0.0  # y = a x_{t+1} + N(0, noise)
        for _ in range(steps):
            a, noise = shrink * a + to_next, shrink**2 * noise + s2
        variance = (a * a * variance + noise) / float(method.table.alpha[t]) ** 2
    sigma, signal = method.schedule.noise[0], method.schedule.signal[0]
    slope = 1 - denoise * sigma**2 / (signal**2 * STD**2 + sigma**2)
    return variance * slope**2 / signal**2


@pytest.mark.parametrize(("trained", "steps", "tweedie"), [(15, 15, 2.0), (15, 5, 1.0), (15, 60, 0.0)])
def test_langevin_samples_of_exact_energies_have_the_chain_s_own_variance(trained, steps, tweedie):
    """The whole descent in closed form: levels, scalings, steps, the sampling adjustment and the last denoising."""
    method = quadratic(chain=Langevin(steps=trained, step=1.0), tweedie=tweedie)
    x = method.sample(20_000, seed=2, steps=steps)
    expected = expected_variance(method, steps, denoise=tweedie)
    assert abs(float(x.var()) - expected) < BOUND * expected * math.sqrt(2 / x.numel())
    assert abs(float(x.mean())) < BOUND * math.sqrt(expected / x.numel())


@pytest.mark.parametrize("level", [1, 5])
def test_jumps_leave_the_posterior_as_it_is(level):
    """From a start far off, jumps alone (a vanishing step) reach the exact conditional law."""
    method = quadratic(jumps=10, jump_every=1, steps=6)
    method.step_size.size.fill_(1e-3)
    t, x_next = torch.full((8000,), level), torch.full((8000, DIM), 0.4)
    y = method.refine(torch.full((8000, DIM), 0.4), x_next, t, generator=random.seeded(18))
    total = precision(method, level) + float(method.table.pull[level])
    mean, variance = float(method.table.pull[level]) / total * 0.4, 1 / total
    assert abs(float(y.mean()) - mean) < BOUND * math.sqrt(variance / y.numel())
    assert abs(float((y - mean).square().mean()) - variance) < BOUND * variance * math.sqrt(2 / y.numel())


def test_adjusted_samples_of_exact_energies_have_the_data_s_variance():
    method = quadratic(steps=25)
    x = method.sample(10_000, seed=4)
    assert abs(float(x.var()) - STD**2) < (BOUND * math.sqrt(2 / x.numel()) + 0.005) * STD**2


def test_seeds_starts_and_parts_of_the_descent():
    method = conditional()
    x = method.sample(4, seed=1)
    assert torch.equal(x, method.sample(4, seed=1)) and not torch.equal(x, method.sample(4, seed=2))
    assert not torch.equal(x, method.sample(4, seed=1, chain_seed=9)), "the same proposals, other Langevin noise"
    only = method.sample(4, seed=1, use="initializer")
    assert torch.equal(only, method.sample(4, seed=1, use="initializer", chain_seed=9)), "no chain in it"
    assert torch.allclose(method.sample(4, seed=1, steps=0, denoise=False), only, rtol=1e-4, atol=1e-5)
    alone = method.sample(4, seed=1, use="energy")
    for p in method.initializer.parameters():
        nn.init.normal_(p, generator=random.seeded(15))
    assert torch.equal(alone, method.sample(4, seed=1, use="energy")), "no proposal in it"
    start = torch.zeros(4, DIM)
    assert not torch.equal(method.sample(4, seed=1, start=start), method.sample(4, seed=1))


def test_a_constraint_is_met_at_every_level_and_proposals_can_be_shared():
    method = tw.method("cdrl/digits", net=dict(width=16), initializer=dict(width=8), steps=2)
    for p in method.parameters():
        nn.init.normal_(p, std=0.05, generator=random.seeded(22))
    seen, s = [], method.schedule

    def constraint(x: Tensor, signal: float, noise: float) -> Tensor:
        seen.append((round(float(signal), 6), round(float(noise), 6)))
        return torch.cat([torch.full_like(x[:, :, :4], 0.5 * signal), x[:, :, 4:]], 2)

    x = method.sample(3, seed=1, constraint=constraint, denoise=False)
    assert torch.allclose(x[:, :, :4], torch.full_like(x[:, :, :4], 0.5 * s.signal[0]), atol=1e-5)
    assert seen[0] == (round(s.signal[6], 6), round(s.noise[6], 6)) and len(seen) == 1 + 6 * (1 + 2), "a proposal and two steps a level"
    for level, found in zip(reversed(range(6)), seen[1::3]):
        alpha = float(method.table.alpha[level])
        assert found == (round(alpha * s.signal[level], 6), round(alpha * s.noise[level], 6))
    start = random.normal(1, 1, 8, 8, generator=random.seeded(23)).expand(3, -1, -1, -1)
    one = method.sample(3, seed=1, start=start, shared="proposals", use="initializer")
    assert torch.allclose(one[0], one[1], atol=1e-5), "one start and one noise of the proposals: equal rows"
    assert not torch.allclose(*method.sample(3, seed=1, start=start, use="initializer")[:2], atol=1e-3)
    assert not torch.allclose(*method.sample(3, seed=1, start=start, shared="proposals")[:2], atol=1e-3), (
        "the chains' noise is each row's own"
    )
    both = method.sample(3, seed=1, start=start, shared="all")
    assert torch.allclose(both[0], both[2], atol=1e-5)


def test_samples_of_a_higher_level_have_its_variance():
    method = quadratic(steps=25)
    for level in (2, 5):
        x = method.sample(10_000, seed=6, down_to=level)
        expected = method.schedule.signal[level] ** 2 * STD**2 + method.schedule.noise[level] ** 2
        assert abs(float(x.var()) - expected) < (BOUND * math.sqrt(2 / x.numel()) + 0.005) * expected


@pytest.mark.parametrize("std", [0.2607, 0.4, 0.93, 0.1])
def test_denoise_is_the_posterior_mean_of_a_gaussian(std):
    """s²/(s² + std²)·y, at a level (0.2607 = σ̄_1/ᾱ_1, 0.93) exactly and between levels by a chain."""
    method = quadratic()
    y = random.normal(4000, DIM, generator=random.seeded(16)) * math.sqrt(STD**2 + std**2)
    found = method.denoise(y, std, steps=200, seed=1)
    slope = float((found * y).sum() / y.square().sum())
    assert slope == pytest.approx(STD**2 / (STD**2 + std**2), abs=0.015)


# --- bad input


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"net": "convnet"}, "needs images"),
        ({"conditional": True}, "needs data with labels"),
        ({"log_snr_min": 20.0}, "log_snr_max must be above"),
        ({"net": "patch", "readout": "inner"}, "needs images"),
        ({"net": "patch"}, "needs readout = 'inner'"),
        ({"net": "convnet", "readout": "inner"}, "has no map"),
        ({"net": "unet"}, "net = 'unet' is not known"),
        ({"readout": "inner", "data_std": 0.0, "waves": 0}, "needs data_std above 0"),
        ({"readout": "inner", "waves": 2}, "waves are for"),
        ({"net": "convnet", "waves": 2}, "waves are for"),
        ({"compile": True}, "has no field 'compile'"),
        ({"jumps": 2, "chain": Langevin(steps=15, step=1.0)}, "has no field 'jumps'"),
        ({"chain": Langevin(steps=15, step=1.0, clamp=True)}, "chain.clamp"),
        ({"steps": 0}, "chain.steps must be 1 or more"),
        ({"levels": 1}, "must be 2 or more"),
        ({"initializer": "unet"}, "needs images"),
        ({"initializer": None, "guide": "initializer"}, "needs an initializer"),
        ({"initializer_conditional": False, "guide": "initializer"}, "needs initializer_conditional"),
        ({"net": "recovery"}, "needs images"),
        ({"net": "recovery", "readout": "inner", "waves": 0}, "has no map"),
        ({"net": "patch_unet"}, "needs readout = 'inner'"),
    ],
)
def test_settings_that_do_not_go_together(fields, message):
    with pytest.raises(InputError, match=message):
        toy(**fields)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.energy(torch.zeros(2, 2), t=6), "levels 0 to 5"),
        (lambda m: m.sample(2, label=3), "between 0 and 2"),
        (lambda m: m.sample(2, label=torch.zeros(3, dtype=torch.int64)), "2 labels|expand"),
        (lambda m: m.sample(2, label=0, guidance=[1.0, 2.0]), "one guidance for each of 1"),
        (lambda m: m.sample(2, use="ebm"), "use must be"),
        (lambda m: m.sample(2, guide="energy"), "guide must be"),
        (lambda m: m.sample(2, resample=0), "resample must be 1 or more"),
        (lambda m: toy(initializer=None).sample(2, guide="initializer"), "needs an initializer"),
        (lambda m: m.sample(2, steps=-1), "0 or more"),
        (lambda m: m.sample(2, start=torch.zeros(3, 2)), "start must have shape"),
        (lambda m: m.denoise(torch.zeros(2, 2), 0.0), "std above 0"),
        (lambda m: toy().sample(2, label=0), "unconditional"),
        (lambda m: toy(initializer=None).sample(2, use="initializer"), "no initializer"),
    ],
)
def test_wrong_requests(call, message):
    with pytest.raises(InputError, match=message):
        call(conditional())


# --- a latent of the initializer


class TwoPoints:
    """Data −1 and 1 in equal shares."""

    name, shape, classes = "two points", (1,), ()

    def batch(self, start: int, count: int, seed: int) -> Batch:
        return Batch(random.normal(count, 1, generator=random.seeded(seed, start)).sign())


@pytest.mark.parametrize("channels", [0, 2])
def test_with_a_latent_proposals_from_pure_noise_have_both_modes_of_two_points(channels):
    """At the top, x_T says nothing of x₀. A mean without z is nearly the linear guess; with it y_T's means are about ±ᾱ."""
    method = tw.method(
        "cdrl/toy", seed=0, shape=(1,), data=TwoPoints(), initializer_latent=channels, data_first=1.0, net=MLP(width=8, depth=1), waves=0,
        chain=Langevin(steps=1, step=0.1), batch=128, images=100_000, lr_end=0.0, ema=0.98,
    )  # fmt: skip
    twin = tw.fit(method, TwoPoints(), progress=False, seed=0)
    top = method.config.levels - 1
    x, t = random.normal(2000, 1, generator=random.seeded(9)), torch.full((2000,), top)
    with torch.no_grad():
        mean = twin.proposal_mean(x, t, **latent(twin.initializer, x, random.seeded(10)))
    share = float(method.table.x0_share[top])  # of x₀ in the mean of q(y | x_T, x₀)
    rest = float(
        method.table.alpha[top]
        * method.schedule.posterior(torch.zeros(1, 1), torch.ones(1, 1), torch.tensor([top + 1]), torch.tensor([top]))[0]
    )
    of_x0 = (mean - rest * x) / share
    near = ((of_x0.abs() - 1).abs() < 0.5).float().mean()
    assert near > 0.8 and 0.3 < float((of_x0 > 0).float().mean()) < 0.7 if channels else near < 0.2
