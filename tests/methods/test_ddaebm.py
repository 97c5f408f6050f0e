"""DDAEBM on Gaussian data, where the denoising conditionals, the best energies, generator and encoder are known in closed form."""

import math

import pytest
import torch
from scipy.optimize import brentq
from torch import Tensor, nn

import thalweg as tw
from thalweg import random
from thalweg.chain import MALA
from thalweg.data.base import Batch
from thalweg.errors import InputError
from thalweg.importance import Proposals
from thalweg.nn.build import MLP, NICE, ConvEncoder, MLPEncoder, PatchNet, PatchUNet, UNet
from thalweg.nn.steps import ResidualEncoder, TwoStream, TwoStreamEncoder
from thalweg.trace import Trace

DIM = 2
STD = 1.5  # of the data, N(0, STD² I)
BOUND = 4.5  # standard errors
NETWORKS = {"net": MLP(width=8, depth=2), "encoder": MLPEncoder(width=8, depth=2)}
SETTINGS = NETWORKS | {"reference_std": 0.0, "batch": 16, "images": 1600, "reconstruction_floor": 0.0, "encoder_floor": 1e-8}
WITHOUT_ENCODER = {"objective": "kl", "encoder": None}
SMALL_IMAGES = {"net": PatchNet(width=8, embedding=16, blocks=1), "encoder": ConvEncoder(width=32)}


def method(**fields):
    return tw.method("ddaebm/25gaussians", seed=0, **(SETTINGS | fields)).double()


def normal(*shape: int, seed: int) -> Tensor:
    return random.normal(*shape, generator=random.seeded(41, seed), dtype=torch.float64)


def variances(schedule) -> list[float]:
    """Per-dimension variance of diffused data at each level, ᾱ²s² + 1 − ᾱ²."""
    return [a * a * STD**2 + 1 - a * a for a in schedule.signal]


def pair(m, t: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    x0 = STD * normal(len(t), DIM, seed=seed)
    x_s = m.schedule.diffuse(x0, t - 1, normal(len(t), DIM, seed=seed + 1))
    x_t = m.schedule.step_alpha(t, x0) * x_s + m.schedule.step_variance(t, x0).sqrt() * normal(len(t), DIM, seed=seed + 2)
    return x_s, x_t


class Quadratic(nn.Module):
    """E(x, t) = a_t ‖x‖²/2, at first the true energies, times `factor`."""

    def __init__(self, schedule, factor: float = 1.0) -> None:
        super().__init__()
        self.a = nn.Parameter(factor / torch.tensor(variances(schedule), dtype=torch.float64))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.a[t] * x.square().sum(1) / 2


class LinearGenerator(nn.Module):
    """x₀ = m_t x_t + c_t z, at first exactly q(x₀ | x_t) of Gaussian data."""

    def __init__(self, schedule) -> None:
        super().__init__()
        signal, v = torch.tensor(schedule.signal, dtype=torch.float64), torch.tensor(variances(schedule), dtype=torch.float64)
        self.m = nn.Parameter(signal * STD**2 / v)
        self.c = nn.Parameter(((1 - signal.square()) * STD**2 / v).sqrt())

    def forward(self, x_t: Tensor, z: Tensor, t: Tensor) -> Tensor:
        return self.m[t, None] * x_t + self.c[t, None] * z


class LinearEncoder(nn.Module):
    """q(z | x_s, x_t) of `LinearGenerator`: with x_s = p x₀ + r x_t + k ε, regression of z on the residual x_s − (p m + r) x_t."""

    def __init__(self, schedule, generator: LinearGenerator) -> None:
        super().__init__()
        t = torch.arange(1, schedule.levels + 1)
        one, zero = torch.ones(len(t), 1, dtype=torch.float64), torch.zeros(len(t), 1, dtype=torch.float64)
        p, k = (part[:, 0] for part in schedule.posterior(one, zero, t, t - 1))
        r = schedule.posterior(zero, one, t, t - 1)[0][:, 0]
        m, c = generator.m.detach()[1:], generator.c.detach()[1:]
        gain = p * c / (p * p * c * c + k * k)
        nothing = torch.zeros(1, dtype=torch.float64)
        self.on_s = nn.Parameter(torch.cat([nothing, gain]))
        self.on_t = nn.Parameter(torch.cat([nothing, -gain * (p * m + r)]))
        self.log_variance = nn.Parameter(torch.cat([nothing, (1 - gain * p * c).log()]))

    def forward(self, x_s: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.on_s[t, None] * x_s + self.on_t[t, None] * x_t
        return mean, self.log_variance[t, None].expand_as(mean)


def exact(**fields):
    """A method whose networks are the optimum for Gaussian data."""
    m = method(**fields)
    m.net, m.generator = Quadratic(m.schedule), LinearGenerator(m.schedule)
    if m.encoder is not None:
        m.encoder = LinearEncoder(m.schedule, m.generator)
    return m


def z_scores(gradients: list[tuple[Tensor, ...]]) -> Tensor:
    """Mean over repeats divided by its standard error, for each parameter that has a gradient."""
    rows = torch.stack([torch.cat([g.flatten() for g in repeat]) for repeat in gradients])
    error = rows.std(0) / math.sqrt(len(rows))
    return (rows.mean(0) / error)[error > 0]


# --- the schedule and the reverse step


def test_schedule_constants():
    squared = [a * a for a in method().schedule.signal]
    assert squared == pytest.approx([0.99989, 0.5214, 0.0787, 0.00342, 4.3e-5], rel=0.01)
    assert len(method(levels=7).schedule.signal) == 8


@pytest.mark.parametrize("t", [1, 2, 3, 4])
def test_reverse_step_draws_the_true_conditional(t):
    """With the exact generator x_s | x_t is Gaussian with mean v_s α x_t/v_t and variance v_s σ²/v_t."""
    m = exact()
    v, n = variances(m.schedule), 100_000
    x_t = torch.full((n, DIM), 0.7, dtype=torch.float64)
    with torch.no_grad():
        mean, std = m.reverse(x_t, normal(n, DIM, seed=1), torch.full((n,), t), t - 1)
    x_s = mean + std * normal(n, DIM, seed=2)
    alpha, beta = float(m.schedule.step_alpha(t)), float(m.schedule.step_variance(t))
    variance = v[t - 1] * beta / v[t]
    assert abs(float(x_s.mean()) - v[t - 1] * alpha / v[t] * 0.7) < BOUND * math.sqrt(variance / x_s.numel())
    assert abs(float(x_s.var()) - variance) < BOUND * variance * math.sqrt(2 / x_s.numel())


def test_exact_networks_sample_the_data():
    x = exact().float().sample(50_000, seed=1)
    assert abs(float(x.mean())) < BOUND * STD / math.sqrt(x.numel())
    # at level T some 1e-5 of the signal is left, and the last step leaves out a variance of 1e-4
    assert abs(float(x.var()) - STD**2) < BOUND * STD**2 * math.sqrt(2 / x.numel()) + 1e-3


def test_the_last_step_adds_no_noise_and_others_do():
    m = exact(latent=False, encoder=None).float()
    one = m.sample(1000, seed=3, steps=1)
    start = random.normal(1000, DIM, generator=random.seeded(3, 1))
    expected, _ = m.schedule.posterior(m.generator.m.detach()[4] * start, start, 4, 0)
    torch.testing.assert_close(one, expected)
    assert float(m.sample(1000, seed=3, steps=2).std()) > 5 * float(one.std()), "x_2 has noise that x_4 did not determine"


def test_each_step_is_one_evaluation_of_the_generator(monkeypatch):
    m = exact().float()
    seen = []
    forward = m.generator.forward
    monkeypatch.setattr(m.generator, "forward", lambda x, z, t: (seen.append(int(t[0])), forward(x, z, t))[1])
    m.sample(4, seed=0)
    assert seen == [4, 3, 2, 1]
    seen.clear()
    m.sample(4, seed=0, steps=2)
    assert seen == [4, 2]


# --- the energy's update (eq. 22, 23)


def energy_gradients(factor: float, *, t: int, gamma: float = 0.0, repeats: int = 30, rows: int = 2500) -> list[tuple[Tensor, ...]]:
    """Gradients by a_{t−1} where generated points are exact draws of the model's own conditional with energy factor·‖x‖²/(2v)."""
    m = exact()
    m.net = Quadratic(m.schedule, factor)
    levels = torch.full((rows,), t)
    alpha, beta = m.schedule.step_alpha(t).double(), m.schedule.step_variance(t).double()
    precision = m.net.a.detach()[t - 1] + alpha**2 / beta
    found = []
    for i in range(repeats):
        x_s, x_t = pair(m, levels, seed=10 * i)
        generated = alpha / beta * x_t / precision + normal(rows, DIM, seed=10 * i + 5) / precision.sqrt()
        loss, _, _ = m.energy_loss(x_s, generated, x_t, levels, torch.tensor(gamma))
        found.append((torch.autograd.grad(loss, m.net.a)[0][t - 1],))
    return found


@pytest.mark.parametrize("t", [1, 2, 3, 4])
def test_energy_gradient_vanishes_at_the_truth_and_points_to_it_elsewhere(t):
    """The optimum is E(x, t) = ‖x‖²/(2(ᾱ²s² + 1 − ᾱ²)) + c, for each level."""
    assert abs(float(z_scores(energy_gradients(1.0, t=t))[0])) < BOUND
    # too steep an energy has a positive gradient by its steepness, too flat a one a negative one
    assert float(z_scores(energy_gradients(1.6, t=t))[0]) > 10
    assert float(z_scores(energy_gradients(0.6, t=t))[0]) < -10


def test_gradient_penalty_flattens():
    """With γ the optimum is a flatter energy, whose precision solves v/2 + γ a v = ½(1/P + α²v_t/(σ⁴P²)), P = a + α²/σ²."""
    m, gamma = exact(), 0.1
    assert float(z_scores(energy_gradients(1.0, t=1, gamma=gamma))[0]) > 10, "too steep, once there is a penalty"
    (v, v_t), alpha, beta = variances(m.schedule)[:2], float(m.schedule.step_alpha(1)), float(m.schedule.step_variance(1))

    def pull(a: float) -> float:
        precision = a + alpha**2 / beta
        return v / 2 + gamma * a * v - (1 / precision + (alpha / beta) ** 2 * v_t / precision**2) / 2

    factor = brentq(lambda factor: pull(factor / v), 0.1, 1.0)
    assert factor < 0.95
    assert abs(float(z_scores(energy_gradients(factor, t=1, gamma=gamma))[0])) < BOUND


def test_gradient_penalty_is_that_of_energy_and_forward_step():
    """½‖∇(f + log q(x_t | x_s))‖² by central differences, for a network and at every level."""
    m = method()
    t = torch.tensor([1, 2, 3, 4, 1, 2, 3, 4])
    x_s, x_t = normal(8, DIM, seed=1), normal(8, DIM, seed=2)
    h = 1e-5

    def log_joint(x: Tensor) -> Tensor:
        alpha, variance = m.schedule.step_alpha(t, x), m.schedule.step_variance(t, x)
        with torch.no_grad():
            forward = torch.distributions.Normal(alpha * x, variance.sqrt()).log_prob(x_t).sum(1)
            return -m.energy(x, t=t - 1) + forward

    step = h * torch.eye(DIM, dtype=torch.float64)
    slope = torch.stack([(log_joint(x_s + e) - log_joint(x_s - e)) / (2 * h) for e in step], 1)
    _, _, penalty = m.energy_loss(x_s, x_s, x_t, t, torch.tensor(1.0))
    torch.testing.assert_close(penalty, slope.square().sum(1) / 2, rtol=1e-6, atol=1e-8)
    losses = [float(m.energy_loss(x_s, x_s, x_t, t, torch.tensor(gamma))[0].detach()) for gamma in (0.0, 0.3)]
    assert losses[1] - losses[0] == pytest.approx(0.3 * float(penalty.mean())), "weight γ on ½‖·‖²"
    free, zero = method(penalty=0.0, penalty_end=0.0), torch.tensor(0.0)
    (loss, gap, none), (same_loss, same_gap, _) = (model.energy_loss(x_s, x_t, x_t, t, zero) for model in (free, m))
    assert float(loss.detach()) == pytest.approx(float(same_loss.detach())) != 0 and not none.any(), "no penalty is looked at"
    torch.testing.assert_close(gap, same_gap)


def test_generated_weight():
    x, t = normal(6, DIM, seed=1), torch.full((6,), 2)
    full, tenth = (exact(generated_weight=w).energy_loss(x, 2 * x, x, t, torch.tensor(0.0))[0] for w in (1.0, 0.1))
    a = exact().net.a[1]
    square = x.square().sum(1).mean() / 2
    torch.testing.assert_close(full, a * square * (1 - 4))
    torch.testing.assert_close(tenth, a * square * (1 - 0.4))


# --- importance weights of proposals


@pytest.mark.parametrize("defensive", [0, 2])
@pytest.mark.parametrize("t", [1, 2, 3, 4])
def test_weights_are_those_of_the_models_own_networks(t, defensive):
    """Of a wrong generator and its exact encoder: [K, B] weights by the closed form of both conditionals, and of the reference's."""
    k, rows, wide = 8, 50, 2.0
    m = exact(proposals=Proposals(count=k, defensive=defensive), reference_std=wide * bool(defensive))
    v_s = wide**2 * m.schedule.signal[t - 1] ** 2 + m.schedule.noise[t - 1] ** 2
    with torch.no_grad():
        m.generator.c *= 1.3
    m.encoder = LinearEncoder(m.schedule, m.generator)
    levels = torch.full((rows,), t)
    _, x_t = pair(m, levels, seed=3)
    x_s, weight = m.weighted(x_t, normal(k * rows, DIM, seed=6), levels, normal(k * rows, DIM, seed=7))
    x_s = x_s.view(k, rows, DIM)
    one, zero = torch.ones(rows, 1, dtype=torch.float64), torch.zeros(rows, 1, dtype=torch.float64)
    p, std = m.schedule.posterior(one, zero, levels, t - 1)
    r, _ = m.schedule.posterior(zero, one, levels, t - 1)
    place, spread = (p * m.generator.m[t] + r) * x_t, (p.square() * m.generator.c[t] ** 2 + std.square()).sqrt()
    density = torch.distributions.Normal(place, spread).log_prob(x_s).sum(2).exp()
    alpha, beta = float(m.schedule.step_alpha(t)), float(m.schedule.step_variance(t))
    if defensive:
        variance = 1 / (1 / v_s + alpha**2 / beta)
        of_reference = torch.distributions.Normal(variance * alpha / beta * x_t, math.sqrt(variance)).log_prob(x_s).sum(2).exp()
        density = (1 - defensive / k) * density + defensive / k * of_reference
    energy = m.energy(x_s.flatten(0, 1), t=t - 1).view(k, rows) + (x_t - alpha * x_s).square().sum(2) / (2 * beta)
    expected = (-energy - density.log()).softmax(0)
    torch.testing.assert_close(weight, expected.detach(), rtol=1e-3, atol=1e-6)  # the encoder answers in single precision
    assert float(weight.std()) > 1e-4, "they differ"


def test_chosen_samples_follow_the_energies_where_the_generator_does_not():
    """Energies of 1.5 times the precision a: x_s has variance 1/p + (α/(β p))² Var x_t, p = 1.5 a + α²/β; the generator draws the data."""
    n, m = 20_000, exact().float()
    m.net = Quadratic(m.schedule, 1.5)
    expected = 1.0
    for t in (4, 3, 2, 1):
        alpha, beta = float(m.schedule.step_alpha(t)), float(m.schedule.step_variance(t))
        precision = float(m.net.a[t - 1].detach()) + alpha**2 / beta
        expected = 1 / precision + (alpha / beta / precision) ** 2 * expected
    x = m.sample(n, seed=1, proposals=64)
    own = m.sample(n, seed=1)
    error = BOUND * math.sqrt(2 / x.numel())
    assert abs(float(x.var()) / expected - 1) < error + 0.03, "up to the bias of 64 draws"
    assert abs(float(own.var()) / expected - 1) > 5 * (error + 0.03)
    assert abs(float(x.mean())) < BOUND * math.sqrt(expected / x.numel())
    assert torch.equal(x, m.sample(n, seed=1, proposals=64))


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({}, {"proposals": 0}),
        ({}, {"proposals": 4, "steps": 2}),
        (WITHOUT_ENCODER, {"proposals": 4}),
        ({"proposals": Proposals(count=4, defensive=2), "reference_std": 2.0}, {"proposals": 2}),
    ],
)
def test_chosen_samples_need_what_weighs_them(fields, options):
    with pytest.raises(InputError, match="ddaebm: proposals are 1, or more than"):
        method(**fields).sample(4, **options)


def test_proposals_take_part_in_the_step():
    for contrast, count in ((False, 4.0), (True, 5.0)):
        m, update = exact(proposals=Proposals(count=4, contrast=contrast)), Recorder()
        m.step(Batch(normal(16, DIM, seed=1), None), update)
        torch.testing.assert_close(update.logged["effective_proposals"], torch.full((16,), count, dtype=torch.float64))
    for proposals in (Proposals(count=2), Proposals(count=1, contrast=True)):
        with pytest.raises(InputError, match="proposals are weighted by the encoder"):
            method(proposals=proposals, **WITHOUT_ENCODER)
    for defensive, reference_std in ((4, 2.0), (1, 0.0)):
        with pytest.raises(InputError, match="defensive draws are of N"):
            method(proposals=Proposals(count=4, defensive=defensive), reference_std=reference_std)


# --- the generator's and encoder's update (eq. 17, 19)


def generator_gradients(*, t: int, stretch: float = 1.0, repeats: int = 30, rows: int = 2500, **fields) -> list[tuple[Tensor, ...]]:
    m = exact(**fields)
    with torch.no_grad():
        m.generator.c.mul_(stretch)
    levels = torch.full((rows,), t)
    parameters = [*m.generator.parameters(), *(m.encoder.parameters() if m.encoder is not None else ())]
    found = []
    for i in range(repeats):
        x_s, x_t = pair(m, levels, seed=10 * i)
        z = normal(rows, DIM, seed=10 * i + 5)
        mean, std = m.reverse(x_t, z, levels, t - 1)
        generated = mean + std * normal(rows, DIM, seed=10 * i + 6)
        loss, _ = m.generator_loss(generated, z, x_s, x_t, levels, normal(rows, DIM, seed=10 * i + 7))
        found.append(tuple(g[t : t + 1] for g in torch.autograd.grad(loss, parameters)))
    return found


@pytest.mark.parametrize("objective", ["jeffrey", "kl"])
@pytest.mark.parametrize("t", [1, 2, 4])
def test_both_bounds_are_tight_and_stationary_at_the_exact_networks(t, objective):
    scores = z_scores(generator_gradients(t=t, objective=objective))
    assert len(scores) == 5, "m, c and the encoder's three"
    assert float(scores.abs().max()) < BOUND


@pytest.mark.parametrize("objective", ["jeffrey", "kl"])
def test_generator_gradient_points_to_the_exact_width(objective):
    wide, narrow = (z_scores(generator_gradients(t=1, stretch=s, objective=objective))[1] for s in (1.3, 0.7))
    assert float(wide) > 10 and float(narrow) < -10


def test_without_the_entropy_the_generator_collapses():
    """Without an encoder it is a WGAN: at the exact networks the width still shrinks, as nothing holds it up."""
    scores = z_scores(generator_gradients(t=1, **WITHOUT_ENCODER))
    assert float(scores[1]) > 10


def parts_of(m, rows: int = 64) -> dict[str, Tensor]:
    t = torch.arange(rows) % 4 + 1
    x_s, x_t = pair(m, t, seed=3)
    z = m._latents(rows, random.seeded(4)).double()
    mean, std = m.reverse(x_t, z, t, t - 1)
    loss, parts = m.generator_loss(mean + std * normal(rows, DIM, seed=5), z, x_s, x_t, t, normal(rows, DIM, seed=6))
    return {"loss": loss.detach(), "ratio": m.ratio[t]} | parts


def test_loss_is_the_sum_of_its_parts():
    p = parts_of(method(elbo_weight=0.6, elbo_weight_mid=0.2, entropy_weight=0.1))
    ratio = p["ratio"] * (p["latent_kl"] + p["reconstruction"])
    torch.testing.assert_close(p["loss"], (p["conditional_energy"] + 0.1 * p["entropy"] + ratio).mean())


def test_kl_drops_the_second_bound():
    jeffrey, kl = parts_of(method()), parts_of(method(objective="kl"))
    assert set(jeffrey) - set(kl) == {"latent_kl", "reconstruction"}
    torch.testing.assert_close(kl["loss"], (kl["conditional_energy"] + kl["entropy"]).mean())


def test_without_latent_the_second_bound_is_the_exact_likelihood():
    m = method(latent=False, encoder=None)
    assert m.encoder is None and not m._latents(3, random.seeded(0)).any()
    p = parts_of(m)
    assert set(p) == {"loss", "ratio", "conditional_energy", "reconstruction"}
    torch.testing.assert_close(p["loss"], (p["conditional_energy"] + p["reconstruction"]).mean())


def test_reconstruction_floor():
    """At s = 0 the variance 1.1e-4 of q(x_0 | x_1, x₀) is replaced by the floor; above, at 0.44 and more, it is not."""
    x, z = normal(4, DIM, seed=1), normal(4, DIM, seed=2)
    for t, floor, variance in ((1, 0.01, 0.01), (1, 0.0, None), (2, 0.01, None)):
        m = exact(reconstruction_floor=floor)
        levels = torch.full((4,), t)
        mean, std = m.reverse(x, z, levels, t - 1)
        std = std if variance is None else torch.full_like(std, math.sqrt(variance))
        expected = -torch.distributions.Normal(mean, std).log_prob(x).sum(1)
        torch.testing.assert_close(m.reconstruction(x, z, x, levels), expected)


def test_encoder_floor():
    m = method(encoder_floor=0.25)
    _, log_variance = m.encode_step(*(100 * normal(50, DIM, seed=i) for i in range(2)), torch.full((50,), 1))
    assert float(log_variance.detach().exp().min()) == pytest.approx(0.25)


def test_importance_ratio():
    """λ(t − 1) by the time of x_t: w at t' = 1 and w_mid at ½ (LSUN's 0.6 and 0.2), all 1 for w = w_mid = 1."""
    ratio = method(elbo_weight=0.6, elbo_weight_mid=0.2).ratio
    assert float(ratio[4]) == pytest.approx(0.6)
    assert float(ratio[2]) == pytest.approx(0.2, rel=5e-3), "t' = 0.5005"
    assert float(ratio[1]) == pytest.approx(0.2 / 3, rel=1e-2) and float(ratio[3]) == pytest.approx(0.38027, rel=1e-3)
    assert torch.equal(method().ratio, torch.ones(5, dtype=torch.float64))
    early = method(elbo_weight=0.6, elbo_weight_mid=0.2, spacing="drl")
    assert float(early.ratio[3]) == pytest.approx(0.6 * (1e-3 + 0.999 * 498 / 999) ** (math.log(1 / 3) / math.log(0.5)), rel=1e-6)
    with pytest.raises(tw.InputError, match="levels spaced as in DRL are 2 to 501, got 1"):
        method(levels=1, spacing="drl")


def test_noise_of_level_0():
    """σ̄₀² = 1 − exp(−0.1 t' − 9.95 t'²) at t' = `first_time`: 0.010 at the paper's 1e-3, 0.045 at 1e-2."""
    for first, std in ((1e-3, 0.01049), (1e-2, 0.04464)):
        assert method(first_time=first).schedule.noise[0] == pytest.approx(std, rel=1e-3)
    with pytest.raises(tw.InputError, match="the time of level 0 is in"):
        method(first_time=1.0)


# --- the step


class Recorder:
    """An `update` that takes no step but keeps what it is given."""

    def __init__(self, images: int = 0) -> None:
        self.generator, self.images, self.losses, self.logged = random.seeded(7), images, {}, {}

    def __call__(self, name: str, loss: Tensor) -> None:
        assert torch.isfinite(loss)
        self.losses[name] = loss

    def log(self, **values) -> None:
        self.logged.update(values)


def test_step_updates_the_energy_and_then_the_generator():
    m = method().float()
    update = Recorder()
    m.step(Batch(normal(16, DIM, seed=1).float()), update)
    assert list(update.losses) == ["energy", "generator"]
    generator = [*m.generator.parameters(), *m.encoder.parameters()]
    kept = torch.autograd.grad(update.losses["energy"], generator, allow_unused=True)
    assert all(g is None for g in kept), "the energy's loss does not move the generator"
    still = torch.autograd.grad(update.losses["generator"], [*m.net.parameters()], retain_graph=True, allow_unused=True)
    assert all(g is None for g in still), "nor the generator's loss the energy"
    assert all(p.requires_grad for p in m.parameters())
    moved = torch.autograd.grad(update.losses["generator"], generator)
    assert all(bool(g.any()) for g in moved[-2:]), "and the generator's moves the encoder"
    assert set(update.logged) > {"energy_gap", "gradient_penalty", "entropy", "reconstruction"}


def test_penalty_weight_and_rates_follow_their_cosines():
    m = method(penalty=0.4, penalty_end=0.1, lr_end=0.2)
    found = []
    m._energy_loss = lambda *a: (found.append(float(a[4])), m.energy_loss(*a))[1]
    for images in (0, 800, 1600, 5000):
        m.float().step(Batch(normal(16, DIM, seed=1).float()), Recorder(images))
    assert found == pytest.approx([0.4, 0.25, 0.1, 0.1])
    assert [m.learning_rate("energy", i) for i in (0, 800, 1600)] == pytest.approx([1.0, 0.6, 0.2])


def test_optimizers_are_adam_without_momentum():
    m = method(lr_generator=3e-4, lr=2e-4)
    groups = {name: o.param_groups[0] for name, o in m.optimizers().items()}
    assert groups["energy"]["lr"] == 2e-4 and groups["generator"]["lr"] == 3e-4
    assert all(g["betas"] == (0.0, 0.9) for g in groups.values())
    owned = [p for g in groups.values() for p in g["params"]]
    assert {id(p) for p in owned} == {id(p) for p in m.parameters()} and len(owned) == len(set(map(id, owned)))


# --- energies


def test_energy_of_images_is_the_squared_distance_to_a_denoiser():
    m = tw.method("ddaebm/digits", **SMALL_IMAGES)
    x = random.normal(3, 1, 8, 8, generator=random.seeded(1))
    with torch.no_grad():
        for p in m.net.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=random.seeded(2)))
        expected = 0.5 * (x - m.net(x, torch.full((3,), 2))[0]).square().sum((1, 2, 3))
        torch.testing.assert_close(m.energy(x, t=2), expected)
        assert not torch.allclose(m.energy(x, t=2), m.energy(x))


def test_reference_is_the_diffused_gaussian():
    plain, tilted = method(), method(reference_std=STD)
    x = normal(5, DIM, seed=1)
    for t, v in enumerate(variances(plain.schedule)[:-1]):
        torch.testing.assert_close(tilted.energy(x, t=t) - plain.energy(x, t=t), x.square().sum(1) / (2 * v))


class GaussianData:
    """N(0, STD² I)."""

    name, shape, classes = "gaussian", (DIM,), ()

    def batch(self, start: int, count: int, seed: int) -> Batch:
        return Batch(STD * random.normal(count, DIM, generator=random.seeded(seed, start)))


@pytest.mark.parametrize("objective", ["jeffrey", "kl"])
def test_the_game_leads_to_the_closed_form(objective, seed=0):
    """Energies and a generator of the right family, set off by 20 to 30 %, come back by the alternating updates.

    Over four seeds every ratio to the truth ended within 0.05 of 1. The energy of level 0 is not asked for: it is an
    integral of the generator's error of some per cent, and takes far longer.
    """
    fields = {"penalty": 0.0, "penalty_end": 0.0, "lr_generator": 0.02, "lr": 0.004, "lr_end": 0.0, "batch": 400, "images": 400 * 300}
    m = exact(objective=objective, levels=2, beta_min=2.0, beta_max=2.0, **fields).float()  # signal² 0.998, 0.37, 0.13
    truth = {name: p.detach().clone() for name, p in m.named_parameters()}
    with torch.no_grad():
        m.net.a.mul_(torch.tensor([1.0, 1.3, 1.0]))
        m.generator.c.mul_(torch.tensor([1.0, 1.2, 0.8]))
    found = dict(tw.fit(m, GaussianData(), progress=False, seed=seed).named_parameters())
    ratio = {name: found[name] / truth[name] for name in truth}
    assert float(ratio["net.a"][1]) == pytest.approx(1, abs=0.1)
    assert ratio["generator.c"][1:].tolist() == pytest.approx([1, 1], abs=0.1)
    assert ratio["encoder.on_s"][1:].tolist() == pytest.approx([1, 1], abs=0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: method(encoder=None), "needs the encoder"),
        (lambda: method(latent=False), "nothing to encode"),
        (lambda: method(net="unet"), "needs images"),
        (lambda: method(encoder="conv"), "needs images"),
        (lambda: tw.method("ddaebm/digits", reference_std=1.0), "for a network of kind 'mlp'"),
        (lambda: tw.method("ddaebm/digits", patch=3), "must divide"),
        (lambda: method().float().energy(torch.zeros(2, 2), t=4), "levels 0 to 3, got t = 4"),
        (lambda: method().float().sample(2, steps=5), "1 to 4 steps, got steps = 5"),
        (lambda: method().float().sample(2, steps=0), "1 to 4 steps, got steps = 0"),
        (lambda: method(levels=0), "levels"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_samples_are_fixed_by_the_seed():
    m = method().float()
    assert torch.equal(m.sample(8, seed=1), m.sample(8, seed=1))
    assert not torch.equal(m.sample(8, seed=1), m.sample(8, seed=2))


@pytest.mark.parametrize(
    "net",
    [SMALL_IMAGES["net"], PatchUNet(width=8, deep_width=8, hidden=8), UNet(width=8, blocks=1, multipliers=(1, 2), attention=16)],
    ids=["patch", "patch_unet", "unet"],
)
def test_image_generators_use_noise_level_and_latent(net):
    m = tw.method("ddaebm/digits", seed=0, **(SMALL_IMAGES | {"net": net}))
    with torch.no_grad():
        for p in m.generator.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=random.seeded(2)))
        x, z, t = torch.zeros(2, 1, 8, 8), random.normal(2, 50, generator=random.seeded(1)), torch.full((2,), 1)
        out = m.generator(x, z, t)
        assert out.shape == x.shape and float(out.abs().max()) <= 1
        for other in (m.generator(x, -z, t), m.generator(x, z, t + 1), m.generator(x + 0.5, z, t)):
            assert float((out - other).abs().max()) > 1e-4


@pytest.mark.parametrize("encoder", [MLPEncoder(width=8, depth=1), ConvEncoder(width=4)], ids=["mlp", "conv"])
@pytest.mark.parametrize("net", [SMALL_IMAGES["net"], NICE(width=8, depth=1, couplings=2)], ids=["patch", "nice"])
def test_either_encoder_serves_images(net, encoder):
    m, update = tw.method("ddaebm/digits", seed=0, net=net, encoder=encoder), Recorder()
    m.step(Batch(random.uniform(4, 1, 8, 8, low=-1.0, generator=random.seeded(1))), update)
    gradients = torch.autograd.grad(update.losses["generator"], [*m.encoder.parameters()])
    assert all(bool(g.any()) for g in gradients[-2:])
    assert ("normalised" in m.abilities) == isinstance(net, NICE)


# --- chains of negatives


def conditional(m, x_t: Tensor, t: int) -> tuple[Tensor, float]:
    """Mean and deviation of the true p(x_s | x_t): v_s α x_t/v_t and √(v_s σ²/v_t)."""
    v, level = variances(m.schedule), torch.tensor([t])
    alpha, noise = (float(f(level, x_t)) for f in (m.schedule.step_alpha, m.schedule.step_variance))
    return v[t - 1] * alpha / v[t] * x_t, math.sqrt(v[t - 1] * noise / v[t])


@pytest.mark.parametrize("t", [1, 2, 4])
@pytest.mark.parametrize(("start", "steps"), [("draws", 3), ("wrong", 150)])
def test_a_chain_of_the_true_energy_draws_the_true_conditional(t, start, steps):
    """Draws of it stay draws of it, and draws of a wrong generator become so."""
    m, n = exact(chain=MALA(steps=steps, step=0.7)), 3000
    x_t = normal(1, DIM, seed=1).expand(n, DIM)
    mean, std = conditional(m, x_t, t)
    x_s = mean + std * (normal(n, DIM, seed=2) if start == "draws" else 0.3 * normal(n, DIM, seed=2) + 2)
    trace = Trace()
    found = (m.refine(x_s, x_t, torch.full((n,), t), generator=random.seeded(3), trace=trace) - mean) / std
    assert 0.3 < float(trace.acceptance.mean()) < 1 and not torch.equal(found, (x_s - mean) / std)
    assert abs(float(found.mean())) < BOUND / math.sqrt(2 * n) and abs(float(found.var()) - 1) < BOUND * math.sqrt(2 / (2 * n))


def test_chains_mend_what_the_generator_gets_wrong_in_the_energy_s_gradient():
    """At the true energy and with a generator too narrow the game pulls at the energy; by chains of enough steps it does not."""
    pulls = {}
    for steps in (0, 60):
        m, gradients = exact(chain=MALA(steps=steps, step=0.7) if steps else None, penalty=0.0, penalty_end=0.0), []
        with torch.no_grad():
            m.generator.c.mul_(0.3)
        for repeat in range(24):
            update = Recorder()
            update.generator = random.seeded(7, repeat)
            m.step(Batch(STD * normal(256, DIM, seed=100 + repeat)), update)
            gradients.append(torch.autograd.grad(update.losses["energy"], [m.net.a]))
        pulls[steps] = float(z_scores(gradients).abs().max())
    assert pulls[60] < BOUND and pulls[0] > 2 * BOUND


def test_the_chain_s_step_adapts_at_each_level():
    m = exact(chain=MALA(steps=3, step=1e-2, target_acceptance=0.6), first_time=1e-2)
    first = m.step_size.size.clone()
    update = Recorder()
    update.mean = lambda value: value  # of one process
    for _ in range(3):
        m.step(Batch(STD * normal(64, DIM, seed=5)), update)
    assert bool((m.step_size.size > first).all()) and {"acceptance", "displacement"} <= set(update.logged)


def test_wrong_chains():
    with pytest.raises(InputError, match="this model has no chain"):
        exact().refine(normal(1, DIM, seed=0), normal(1, DIM, seed=1), torch.tensor([1]))
    for fields in ({"chain": MALA(jumps=2)}, {"chain": MALA(), "proposals": Proposals()}):
        with pytest.raises(InputError, match="the chain moves the generator's one draw"):
            method(**fields)


# --- the paper's networks


def test_the_paper_s_recipe_for_toys():
    """Table 6: PReLU, batch norm in generator and encoder alone; section B.2.1: 180,000 updates of 200 at 1e-4."""
    m = tw.method("ddaebm/25gaussians-paper")
    c = m.config
    assert (c.batch, c.images, c.lr, c.lr_generator, c.lr_end, c.ema, c.levels, c.latent_dim) == (
        200,
        36_000_000,
        1e-4,
        1e-4,
        1.0,
        0.0,
        4,
        2,
    )
    assert (c.reference_std, c.reconstruction_floor, c.entropy_weight, c.proposals, c.chain) == (0.0, 0.0, 1.0, None, None)
    kinds = {name: [type(layer).__name__ for layer in getattr(m, name).modules()] for name in ("net", "generator", "encoder")}
    assert {name: names.count("BatchNorm1d") for name, names in kinds.items()} == {"net": 0, "generator": 3, "encoder": 3}
    assert all(names.count("PReLU") == 4 and "SiLU" not in names for names in kinds.values())
    linear = [(layer.in_features, layer.out_features) for layer in m.net.modules() if isinstance(layer, nn.Linear)]
    assert linear == [(2, 16), (16, 32), (64, 16), (16, 32), (64, 300), (300, 300), (300, 1)]


def test_two_streams_train_and_depend_on_no_batch_in_use():
    fields = {"net": TwoStream(width=8), "encoder": TwoStreamEncoder(width=8), "batch": 16, "images": 64, "reference_std": 0.0}
    twin = tw.fit(tw.method("ddaebm/25gaussians", **fields), tw.data.toy("25gaussians"), progress=False)
    x = twin.sample(6, seed=1)
    assert torch.allclose(twin.energy(x), torch.cat([twin.energy(row[None]) for row in x]), atol=1e-5)
    z, t = random.normal(6, 2, generator=random.seeded(2)), torch.full((6,), 2)
    with torch.no_grad():
        alone = torch.cat([twin.generator(x[i : i + 1], z[i : i + 1], t[:1]) for i in range(6)])
        assert torch.allclose(twin.generator(x, z, t), alone, atol=1e-5)


def test_encoders_of_large_images():
    """Table 8 of CelebA halves four times to 1024 channels and 4×4; DDGAN's discriminator halves 128 pixels six times."""
    with torch.device("meta"):
        celeba, lsun = (tw.methods.preset(f"ddaebm/{name}")[1] for name in ("celeba-64", "lsun-church-128"))
        first = celeba.encoder.build(celeba.shape, latent=100, levels=4)
        second = lsun.encoder.build(lsun.shape, latent=100, levels=4)
    assert [layer.out_channels for layer in first.layers] == [64, 128, 256, 512, 1024] and first.last.in_features == 1024 * 4 * 4
    assert [block.second.out_channels for block in second.blocks] == [128, 256, 256, 256, 256, 256]
    assert (second.first.out_channels, second.last.in_features, second.last.out_features) == (64, 256, 200)


def test_the_residual_encoder_sees_both_images_and_the_level():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = ResidualEncoder(width=4).build((1, 8, 8), latent=3, levels=4)
    with torch.no_grad():
        for p in encoder.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=random.seeded(2)))
        a, b = (random.normal(2, 1, 8, 8, generator=random.seeded(i)) for i in range(2))
        t = torch.tensor([1, 1])
        mean, log_variance = encoder(a, b, t)
        assert mean.shape == log_variance.shape == (2, 3)
        for other in (encoder(b, a, t), encoder(a, a, t), encoder(a, b, t + 1)):
            assert float((mean - other[0]).abs().max()) > 1e-4
        assert torch.allclose(mean[:1], encoder(a[:1], b[:1], t[:1])[0], atol=1e-5)  # whatever the other rows are
