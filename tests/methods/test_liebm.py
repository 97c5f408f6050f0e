"""LIEBM in the plane, where its densities can be summed up on a grid; its losses by hand, its options, and what it keeps on disk."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import thalweg as tw
from thalweg import random, tasks
from thalweg.chain import Langevin
from thalweg.cli import main
from thalweg.config import changed
from thalweg.data import Images
from thalweg.data.base import Batch
from thalweg.errors import InputError
from thalweg.methods import preset
from thalweg.methods.liebm import LIEBM
from thalweg.nn.build import MLP, ConvNet, ResNet
from thalweg.nn.initializers import Generator

BOUND = 4.5  # standard errors
Q = MLP(width=8, depth=2)
PLANE = dict(
    shape=(2,), classes=3, net=Q, augmentation="noise", augmented_starts=0.0, features=4, head=8, concentration=0.7, concentration_step=0.5,
    generator=Generator(latent_dim=3, width=8), chain=Langevin(steps=3, step=0.5), data_noise=0.0, batch=16, images=64, clip=0.0, warm_up=0,
)  # fmt: skip
SMALL_Q = MLP(width=16)
SMALL = dict(
    net=SMALL_Q, features=8, head=8, generator=Generator(latent_dim=4, width=8), steps=2, batch=16, images=64, warm_up=0,
)  # fmt: skip
ENCODER = dict(widths=(8, 8), head=8, dim=4, batch=16, images=16, warm_up=0)


class Turned(nn.Module):
    """A fixed smooth map of the plane to vectors, so that directions of latents depend on x."""

    def __init__(self, out: int = 2) -> None:
        super().__init__()
        self.weight = nn.Parameter(random.normal(2, out, generator=random.seeded(11)))

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.weight).sin() + 0.3


def plane(*, encoder: nn.Module | None = None, **fields) -> LIEBM:
    config = changed(preset("liebm/digits")[1], **(PLANE | fields))
    torch.manual_seed(0)
    return LIEBM(config, encoder=Turned() if encoder is None else encoder)


def points(n: int, key: int = 0) -> Tensor:
    return random.normal(n, 2, generator=random.seeded(12, key))


def images(n: int = 64) -> Images:
    return Images(random.uniform(n, 1, 8, 8, low=-1.0, high=1.0, generator=random.seeded(13)), torch.arange(n) % 10)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> str:
    """The folder of an encoder that has seen one batch."""
    out = tmp_path_factory.mktemp("ssl") / "run"
    tw.fit(tw.method("ssl/digits", **ENCODER), images(), out, progress=False)
    return str(out)


def of_images(folder: str, **fields) -> LIEBM:
    return tw.method("liebm/digits", seed=0, pretrained=folder, **(SMALL | fields))


class Once:
    """An `update` that keeps what it is given and learns nothing."""

    def __init__(self, key: int = 0) -> None:
        self.generator, self.images, self.losses, self.logged = random.seeded(14, key), 0, {}, {}

    def __call__(self, name: str, loss: Tensor) -> None:
        self.losses[name] = loss

    def log(self, **values) -> None:
        self.logged |= values

    def mean(self, value: Tensor) -> Tensor:
        return value


# --- the joint density


def test_the_cosine_posterior_integrates_to_a_constant_of_gamma():
    """∫ exp(−E(x, z)) dz over the circle, z uniform: exp(−E(x)) I₀(γ) at every x."""
    m, x = plane().double(), points(5).double()
    angle = torch.arange(72, dtype=torch.double) / 72 * 2 * math.pi
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    for gamma in (0.7, 3.0):
        mass = torch.stack([(-m.energy(x, z=z, concentration=gamma)).exp() for z in circle]).mean(0)
        expected = torch.special.i0(torch.tensor(gamma, dtype=torch.double))
        torch.testing.assert_close(mass * m.energy(x).exp(), expected.expand(5), rtol=1e-10, atol=0)


def test_on_a_sphere_of_more_dimensions_it_is_that_of_von_mises_and_fisher():
    """In three dimensions Z = sinh(γ)/γ; the mean of many uniform z is within its standard error."""
    m, x = plane(encoder=Turned(3)), points(3)
    z = F.normalize(random.normal(20_000, 3, generator=random.seeded(15)), dim=1)
    weights = torch.stack([(m.energy(one[None]) - m.energy(one.expand(len(z), 2), z=z)).exp() for one in x])
    error = weights.std(1) / math.sqrt(len(z))
    assert ((weights.mean(1) - math.sinh(0.7) / 0.7).abs() < BOUND * error).all()


@pytest.mark.parametrize("posterior", ["gaussian", "exponential"])
def test_other_posteriors_integrate_to_one(posterior):
    m, x = plane(latent_posterior=posterior).double(), points(4).double()
    side = torch.linspace(-12, 12, 241, dtype=torch.double)
    z = torch.cartesian_prod(side, side)
    mass = torch.stack([(-m.energy(one.expand(len(z), 2), z=z)).exp().sum() * 0.01 for one in x])
    torch.testing.assert_close(mass, (-m.energy(x)).exp(), rtol=1e-6, atol=0)


def test_the_gaussian_posterior_has_the_moments_that_it_says():
    m, x = plane(latent_posterior="gaussian"), points(6)
    mean, precision = m.posterior(x)
    z = random.normal(6, 2, generator=random.seeded(16))
    density = torch.distributions.Normal(mean, precision.rsqrt())
    torch.testing.assert_close(m.energy(x) - m.energy(x, z=z), density.log_prob(z).sum(1))
    torch.testing.assert_close(mean.norm(dim=1), torch.ones(6))
    assert precision.log().abs().max() <= 1


def test_the_exponential_family_is_that_of_section_3_1():
    """E(x) = B(λ) − B(λ + t) and −E(x, z) = ⟨λ + t, η(z)⟩ − B(λ), each up to the constants of its base measure."""
    m, x = plane(latent_posterior="exponential"), points(6)
    t, one = m.posterior(x)
    z = random.normal(6, 2, generator=random.seeded(17))

    def b(first: Tensor, second: Tensor) -> Tensor:
        return (-first.square() / (4 * second) - 0.5 * (-2 * second).log()).sum(1)

    half = torch.full_like(t, -0.5)
    torch.testing.assert_close(-m.energy(x), b(t, half) - b(0 * t, half))
    joint = (t * z + half * z.square()).sum(1) - b(0 * t, half) - math.log(2 * math.pi)
    torch.testing.assert_close(-m.energy(x, z=z), joint)
    assert (one == 1).all()


def test_signs_of_the_energies():
    """f = F + γ cos: E falls where z agrees with g, and is ½‖f_φ‖², or −F linear."""
    m, x = plane(), points(6)
    direction, gamma = m.posterior(x)
    assert (gamma == torch.tensor(0.7)).all()
    torch.testing.assert_close(m.energy(x, z=direction), m.energy(x) - 0.7)
    torch.testing.assert_close(m.energy(x, z=-direction), m.energy(x) + 0.7)
    torch.testing.assert_close(m.energy(x), 0.5 * m.encode(x).square().sum(1))
    linear = plane(marginal="linear")
    torch.testing.assert_close(linear.energy(x), -linear.last(linear.encode(x))[:, 0])
    # eq. 15, turned so that higher is more outlying
    score = m.energy(x) - 0.1 * F.cosine_similarity(direction, m.latent(x), dim=1)
    torch.testing.assert_close(m.outlier_score(x), score)
    torch.testing.assert_close(m.outlier_score(x, concentration=0.7), m.informed_energy(x))
    found = tw.evaluate.outlier_scores(m, x, ["joint", "energy"])
    torch.testing.assert_close(found["joint"], score)


def test_gamma_has_the_unit_of_its_step():
    """At a tenth of the step γ is a hundred times as many nats, so that latents move a chain as far; in the score of outliers too."""
    x, z = points(6), F.normalize(points(6, 1), dim=1)
    near, far = plane(step=0.05), plane(step=0.5)
    near.load_state_dict(far.state_dict())
    gap = [m.energy(x, z=z) - m.energy(x) for m in (near, far)]
    torch.testing.assert_close(gap[0], 100 * gap[1])
    torch.testing.assert_close(near.posterior(x)[1], 100 * far.posterior(x)[1])
    torch.testing.assert_close(near.outlier_score(x) - near.energy(x), 100 * (far.outlier_score(x) - far.energy(x)))
    moves = [step**2 / 2 * (tw.score(m.energy, x, z=z) - tw.score(m.energy, x)) for m, step in ((near, 0.05), (far, 0.5))]
    torch.testing.assert_close(*moves)


@pytest.mark.parametrize("name", ["digits", "fashion-mnist", "emoji-google", "cifar10", "imagenet-32", "celeba-64", "celebahq-256"])
def test_presets_have_the_papers_gamma_at_its_step(name):
    """γ s²/2, what a step has of latents: 0.01 of Table 12 with δ² = 25 in [0, 1] (100 in [−1, 1]), 25 for ImageNet and 0.1 for faces."""
    config = preset(f"liebm/{name}")[1]
    squared = {"imagenet-32": 25.0, "celeba-64": 0.1, "celebahq-256": 0.1}.get(name, 100.0)
    gamma = config.concentration * (config.concentration_step / config.chain.step) ** 2
    assert gamma * config.chain.step**2 == pytest.approx(0.01 * squared)


def test_the_share_of_latents_is_that_of_the_slopes():
    """Half the difference of E(x + hv, z) along the coordinates, against ∇ by autograd; logged in training."""
    m, x, h = plane().double(), points(8).double(), 1e-5
    z = m.latent(x)

    def slope(f) -> Tensor:
        return torch.stack([(f(x + h * v) - f(x - h * v)) / (2 * h) for v in torch.eye(2, dtype=torch.double)], 1).norm(dim=1)

    wanted = slope(lambda x: m.energy(x, z=z) - m.energy(x)).mean() / slope(m.energy).mean()
    torch.testing.assert_close(m.latent_share(x, z), wanted, rtol=1e-5, atol=0)
    once = Once()
    m.float().step(Batch(points(16), torch.arange(16) % 3), once)
    assert once.logged["latent_share"] > 0 and all(p.requires_grad for p in m.net.parameters())


def test_the_score_of_the_informed_energy_goes_through_the_encoder():
    m, x, h = plane().double(), points(3).double(), 1e-5
    move = torch.tensor([0.6, -0.8], dtype=torch.double)
    slope = (m.informed_energy(x + h * move) - m.informed_energy(x - h * move)) / (2 * h)
    torch.testing.assert_close(-(tw.score(m.informed_energy, x) * move).sum(1), slope, rtol=1e-6, atol=1e-8)
    held = -(tw.score(m.energy, x, z=m.latent(x)) * move).sum(1)
    assert (held - slope).abs().max() > 1e-4


def test_the_gradient_of_eq_4_is_that_of_the_exact_log_likelihood():
    """Negatives drawn from p(x) on a grid, against −∇ log p(x, z) with its partition function summed over that grid."""
    m = plane(marginal="linear")
    x, side = points(200), torch.linspace(-3, 3, 41)
    z, grid = m.latent(x), torch.cartesian_prod(side, side)
    weights = [p for part in (m.net, m.head, m.last) for p in part.parameters()]
    exact = torch.autograd.grad(m.energy(x, z=z).mean() + (-m.energy(grid)).logsumexp(0), weights, allow_unused=True)
    found = []
    for key in range(30):
        rows = torch.multinomial((-m.energy(grid)).softmax(0), 200, replacement=True, generator=random.seeded(18, key))
        loss, *_ = m.energy_loss(x, z, grid[rows], random.seeded(0))
        gradient = torch.autograd.grad(loss, weights, allow_unused=True)
        found.append(torch.cat([g.flatten() for g in gradient if g is not None]))
    exact, found = torch.cat([g.flatten() for g in exact if g is not None]), torch.stack(found)
    for direction in (exact, random.normal(len(exact), generator=random.seeded(19))):
        along, wanted = found @ direction, exact @ direction
        error = along.std() / math.sqrt(len(along))
        assert abs(along.mean() - wanted) < BOUND * error
    assert (found @ exact).mean() > BOUND * (found @ exact).std() / math.sqrt(30), "an inverted sign would show"


# --- the generator and the inference model


class Fixed(nn.Module):
    """x = a m + b; as an inference model it gives mean and log-variance that do not depend on x."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = nn.Parameter(value)

    def forward(self, x: Tensor) -> Tensor:
        return self.value.expand(len(x), -1)


def test_the_generators_loss_by_hand():
    """Eq. 8: ω₁‖G(m) − x^T‖²/2τ² per dimension, and it pulls G towards where the chains end."""
    m = plane(match_weight=3.0, generator_std=0.5)
    m.generator = Fixed(torch.tensor([[0.0, 0.0]]))
    refined = torch.tensor([[1.0, 0.0], [1.0, 2.0]])
    loss = m.generator_loss(torch.zeros(2, 3), refined, refined, None, None)
    torch.testing.assert_close(loss, torch.tensor(3 * (1 + 5) / 2 / (2 * 0.25) / 2))
    (gradient,) = torch.autograd.grad(loss, [m.generator.value])
    assert (gradient < 0).all()


def test_the_loss_of_erm_by_hand():
    """Eq. 11–14: minus the evidence lower bound of x and z, by torch's own KL divergence."""
    m = plane(generator_training="erm", inference=Q, match_weight=1.0, data_weight=0.5, generator_std=0.5, generator_concentration=2.0)
    mean, log_variance = torch.tensor([0.3, -1.0, 0.5]), torch.tensor([0.2, -0.4, 0.1])
    m.generator, m.inference = Fixed(torch.tensor([[0.5, -0.5]])), Fixed(torch.cat([mean, log_variance])[None])
    x, refined, z = points(4, 1), points(4, 2), F.normalize(points(4, 3), dim=1)
    normal = torch.distributions.Normal
    kl = torch.distributions.kl_divergence(normal(mean, (log_variance / 2).exp()), normal(0.0, 1.0)).sum()
    rebuilt = torch.tensor([[0.5, -0.5]]).expand(4, 2)
    agreement = (m.latent(rebuilt) * z).sum(1)
    match = (rebuilt - refined).square().sum(1) / 0.5
    bound = -(rebuilt - x).square().sum(1) / 0.5 + 2.0 * agreement - kl
    expected = (match - 0.5 * bound).mean() / 2
    torch.testing.assert_close(m.generator_loss(torch.zeros(4, 3), refined, x, z, random.seeded(0)), expected)
    # eq. 26: without pixels
    torch.testing.assert_close(m.inference_loss(x, z, random.seeded(0)), (kl - 2.0 * agreement).mean())


def test_draws_of_the_inference_model_have_its_moments():
    m = plane(inference=Q)
    m.inference = Fixed(torch.tensor([[1.0, -2.0, 0.0, math.log(4.0), 0.0, math.log(0.25)]]))
    drawn, _ = m.draw_latent(torch.zeros(4000, 2), random.seeded(20))
    std = torch.tensor([2.0, 1.0, 0.5])
    assert ((drawn.mean(0) - torch.tensor([1.0, -2.0, 0.0])).abs() < BOUND * std / 4000**0.5).all()
    assert ((drawn.std(0) / std - 1).abs() < BOUND / (2 * 4000) ** 0.5).all()


@pytest.mark.parametrize("learner", ["em", "ejm"])
def test_negatives_start_from_views_with_probability_p(learner):
    """A chain of one step of no length and no noise ends where it starts."""
    still = dict(generator_training=learner, steps=1, step=1e-9, noise=0.0, clamp=False)
    start = points(2000).clamp(-1, 1)
    refined = start + 10.0
    usual = start if learner == "ejm" else refined
    torch.testing.assert_close(plane(augmented_starts=0.0, **still).negatives(start, refined, random.seeded(21)), usual, rtol=0, atol=1e-6)
    for p in (1.0, 0.3):
        ends = plane(augmented_starts=p, **still).negatives(start, refined, random.seeded(21))
        changed = ((ends - usual).abs() > 1e-6).any(1)
        assert abs(changed.float().mean() - p) <= BOUND * (p * (1 - p) / 2000) ** 0.5
        assert ((ends - start)[changed].abs() < 2 / 128).all()  # a view by noise


@pytest.mark.parametrize("learner", ["em", "ejm"])
def test_a_process_that_stands_for_two_draws_the_negatives_of_each(learner):
    """How many rows of a share start from a view is random, so that joined rows need not divide over the shares."""
    m, start, refined = plane(augmented_starts=0.3, generator_training=learner), points(16), points(16, 1)
    for key in range(4):
        joined = random.each_share(m.negatives, start, refined, generator=(random.seeded(40, key), random.seeded(41, key)))
        halves = [m.negatives(start[i : i + 8], refined[i : i + 8], random.seeded(40 + i // 8, key)) for i in (0, 8)]
        torch.testing.assert_close(joined, torch.cat(halves), rtol=0, atol=0)
        update = Once()
        update.generator = (random.seeded(42, key), random.seeded(43, key))
        m.step(Batch(points(16), torch.arange(16) % 3), update)
        assert update.losses["energy"].isfinite()


def test_chains_of_negatives_are_shared_with_the_generator(monkeypatch):
    """Of eq. 9 and the negatives only rows with views have chains of their own."""
    rows = []
    chain = tw.methods.liebm.LIEBM._chain
    monkeypatch.setattr(
        tw.methods.liebm.LIEBM, "_chain", lambda self, energy, x, *a, **k: rows.append(len(x)) or chain(self, energy, x, *a, **k)
    )
    for learner, least, most in (("em", 100, 125), ("ejm", 200, 200)):
        rows.clear()
        plane(generator_training=learner, augmented_starts=0.1).step(Batch(points(100), torch.arange(100) % 3), Once())
        assert least <= sum(rows) <= most


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({}, ["generator", "energy"]),
        ({"inference": Q}, ["generator", "inference", "energy"]),
        ({"generator_training": "ejm", "augmented_starts": 1.0}, ["generator", "energy"]),
        ({"generator_training": "erm", "inference": Q}, ["generator", "energy"]),
    ],
)
def test_the_order_and_the_parts_of_a_step(fields, names):
    """Algorithm 1: the generator first; each loss reaches its own networks, and the encoder is left alone."""
    m, once = plane(**fields), Once()
    before = {key: value.clone() for key, value in m.encoder.state_dict().items()}
    m.step(Batch(points(16), torch.arange(16) % 3), once)
    assert list(once.losses) == names and all(loss.isfinite() for loss in once.losses.values())
    assert set(m.optimizers()) == set(names)
    for name, optimizer in m.optimizers().items():
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        gradients = torch.autograd.grad(once.losses[name], parameters, allow_unused=True)
        assert any(g is not None and g.abs().max() > 0 for g in gradients), name
    assert all(torch.equal(value, before[key]) for key, value in m.encoder.state_dict().items())
    assert not any(p.requires_grad for p in m.encoder.parameters()) and not m.train().encoder.training


def test_spectral_norm_moves_in_updates_alone(encoder):
    """As in the released backbone: every convolution is bounded; power iterations run where the energy is learned, never inside a chain."""
    m = of_images(encoder, net=ConvNet(widths=(4, 8), blocks=1, spectral_norm=True), chain=Langevin(steps=2, step=1.0, clip=0.0))
    x = images(8).all().x

    def vectors() -> Tensor:
        return torch.cat([value.flatten() for key, value in m.net.state_dict().items() if key.endswith("._u")])

    before, norms = vectors(), []
    m.negatives(m.generate(points(8)[:, :1].expand(-1, 4)), x, random.seeded(26))
    m.latent_share(x, m.latent(x))
    m.sample(2)
    assert torch.equal(vectors(), before)
    for _ in range(60):
        m.energy_loss(x, m.latent(x), x, random.seeded(27))
    assert not torch.equal(vectors(), before)
    for layer in m.net.modules():
        if isinstance(layer, nn.Conv2d):
            norms.append(float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)))
    assert len(norms) == 4 and all(abs(norm - 1) < 0.05 for norm in norms)
    assert m.config.chain.clip == 0


def test_a_cotrained_encoder_learns_by_its_own_loss(encoder):
    """CLEL: views against each other and against what g says of negatives; the energy's and the generator's losses leave it alone."""
    new = of_images("", cotraining=dict(lr_encoder=1e-2), encoder=ResNet(**{key: ENCODER[key] for key in ("widths", "head", "dim")}))
    for m in (of_images(encoder, cotraining="contrastive"), new):
        once, x = Once(), images(16).all().x
        assert m.train().encoder.training and all(p.requires_grad for p in m.encoder.parameters())
        m.step(Batch(x, torch.arange(16) % 10), once)
        assert list(once.losses) == ["generator", "energy", "encoder"] and set(m.optimizers()) == set(once.losses)
        for name, loss in once.losses.items():
            found = torch.autograd.grad(loss, list(m.encoder.parameters()), allow_unused=True, retain_graph=True)
            assert all((g is not None) == (name == "encoder") for g in found), name
        g = torch.autograd.grad(once.losses["encoder"], list(m.net.parameters()), allow_unused=True)
        assert all(one is None for one in g)
    twin = tw.fit(new, images(), images=32, progress=False)
    fresh = of_images("", cotraining=dict(lr_encoder=1e-2), encoder=new.config.encoder)
    assert not torch.equal(twin.encoder.head[0].weight, fresh.encoder.head[0].weight)
    assert not of_images("", cotraining="contrastive").notice and "labels" in twin.abilities


def test_negatives_are_among_the_others_of_a_cotrained_encoder():
    m, x, negative = plane(cotraining="contrastive"), points(6), points(5, 1)
    a, b = (m.encoder(m.config.augmentation(x, g)) for g in [random.seeded(28)] for _ in range(2))
    others = m.posterior(negative)[0]
    z = F.normalize(torch.cat([a, b]), dim=1)
    alike = (2 * z @ torch.cat([z, others]).T).exp()
    wanted = -(alike[torch.arange(12), (torch.arange(12) + 6) % 12] / (alike.sum(1) - alike.diagonal())).log().mean()
    torch.testing.assert_close(m.encoder_loss(x, negative, random.seeded(28)), wanted)


def test_a_cotrained_encoder_is_kept(tmp_path):
    m = tw.fit(of_images("", cotraining="contrastive"), images(), tmp_path / "run", images=16, progress=False)
    tw.save_pretrained(m, tmp_path / "model")
    x = images(4).all().x
    for name in ("run", "model"):
        assert torch.equal(tw.load(tmp_path / name).outlier_score(x), m.outlier_score(x))


def test_without_latents_it_is_a_plain_energy():
    m, once = tw.method("liebm/digits", **(PLANE | {"pretrained": ""})), Once()
    x = points(16)
    m.step(Batch(x, None), once)
    torch.testing.assert_close(once.losses["energy"], once.logged["energy_data"].mean() - once.logged["energy_samples"].mean())
    assert not {"agreement", "latent_share"} & set(once.logged)
    assert torch.equal(m.outlier_score(x), m.energy(x)) and torch.equal(m.informed_energy(x), m.energy(x))
    for call in (lambda: m.latent(x), lambda: m.posterior(x), lambda: m.energy(x, z=x), lambda: m.sample(2, label=0)):
        with pytest.raises(InputError, match="no latents"):
            call()


# --- training and files


@pytest.mark.parametrize(
    "fields",
    [
        {"generator_training": "erm", "net": ConvNet(widths=(4, 8), blocks=1), "inference": ConvNet(widths=(4, 8), blocks=1)},
        {"inference": SMALL_Q, "augmented_starts": 0.5},
    ],
    ids=["erm", "em"],
)
def test_a_resumed_run_is_bit_equal_and_keeps_its_encoder(encoder, tmp_path, fields):
    whole = tw.fit(of_images(encoder, **fields), images(), progress=False)
    tw.fit(of_images(encoder, **fields), images(), tmp_path / "run", images=32, progress=False)
    resumed = tw.fit(of_images(encoder, **fields), images(), tmp_path / "run", progress=False)
    found = whole.state_dict()
    for key, value in resumed.state_dict().items():
        assert torch.equal(value, found[key]), key
    given = tw.load(encoder)
    x = images(8).all().x
    assert torch.equal(whole.latent(x), given.project(x))


def test_it_learns_images_in_colour(tmp_path, native_bf16):
    """With bf16 a run lays out all maps channels last, the classes' mean images among them."""
    data = Images(random.uniform(32, 3, 8, 8, low=-1.0, high=1.0, generator=random.seeded(15)), torch.arange(32) % 10)
    ssl = tw.fit(tw.method("ssl/digits", shape=(3, 8, 8), **ENCODER), data, tmp_path / "ssl", progress=False)
    colour = dict(
        shape=(3, 8, 8),
        net=ConvNet(widths=(4, 8), blocks=1),
        images=32,
        pretrained=str(tmp_path / "ssl"),
        augmentation="noise",
        data_noise=0.0,
    )
    twin = tw.fit(tw.method("liebm/digits", seed=0, **SMALL | colour), data, precision="bf16", progress=False)
    mean = torch.stack([data.all().x[data.all().label == k].mean(0) for k in range(10)])
    assert twin.class_means.images.shape == (10, 3, 8, 8) and ssl.config.shape == (3, 8, 8)
    torch.testing.assert_close(twin.class_means.images, mean, atol=0.02, rtol=0)


def test_a_saved_model_needs_no_other_folder(tmp_path):
    folder = tmp_path / "ssl"
    tw.fit(tw.method("ssl/digits", **ENCODER), images(), folder, progress=False)
    tw.save_pretrained(tw.load(folder), tmp_path / "exported")
    m = tw.fit(of_images(str(folder)), images(), tmp_path / "run", images=16, progress=False)
    assert torch.equal(m.encoder.head[0].weight, of_images(str(tmp_path / "exported")).encoder.head[0].weight)
    tw.save_pretrained(m, tmp_path / "model")
    assert not any(str(tmp_path) in path.read_text() for path in (tmp_path / "model").iterdir() if path.suffix in (".json", ".md"))
    folder.rename(tmp_path / "gone")
    x, seen = images(8).all().x, int(m.class_means.count.argmax())
    for name in ("run", "model"):
        loaded = tw.load(tmp_path / name)
        assert torch.equal(loaded.outlier_score(x), m.outlier_score(x))
        assert torch.equal(loaded.sample(4, seed=1, label=seen), m.sample(4, seed=1, label=seen))


def test_an_encoder_of_ones_own_is_frozen_and_named(tmp_path):
    m = plane()
    tw.save_pretrained(m, tmp_path / "model")
    with pytest.raises(InputError, match=r"user's own \(Turned\)"):
        tw.load(tmp_path / "model")
    again = plane(encoder=Turned())
    again.load_state_dict(m.state_dict())
    assert torch.equal(again.informed_energy(points(4)), m.informed_energy(points(4)))


def test_labels_change_the_classes_means_and_nothing_else(encoder):
    data = images()
    other = Images(data.all().x, data.all().label.flip(0))
    a, b = (tw.fit(of_images(encoder), d, images=32, progress=False) for d in (data, other))
    different = {key for key, value in a.state_dict().items() if not torch.equal(value, b.state_dict()[key])}
    assert different and different <= {"class_means.latents", "class_means.images", "class_means.count"}
    assert a.class_means.count.sum() == 32


def test_class_means_are_those_of_all_views():
    m, seen = plane(), []
    for key in range(3):
        x, label = points(16, key), torch.arange(16) % 3
        once = Once(key)
        view = m.config.augmentation(x, once.generator)
        m.class_means.add(view, m.latent(view), label, once.mean)
        seen.append((view, label))
    view, label = (torch.cat(parts) for parts in zip(*seen))
    for k in range(3):
        torch.testing.assert_close(m.class_means.images[k], view[label == k].mean(0))
        torch.testing.assert_close(m.class_means.latents[k], m.latent(view[label == k]).mean(0))


# --- sampling


def test_samples_are_fixed_by_the_seed(encoder):
    m = tw.fit(of_images(encoder, inference=SMALL_Q), images(), images=16, progress=False)
    for options in ({}, {"label": 3}, {"label": 3, "candidates": 2}, {"use": "initializer"}):
        a, b, c = (m.sample(3, seed=seed, **options) for seed in (1, 1, 2))
        assert torch.equal(a, b) and not torch.equal(a, c) and a.shape == (3, 1, 8, 8) and a.abs().max() <= 1
    start = random.normal(3, 4, generator=random.seeded(24))
    assert torch.equal(m.sample(3, start=start, use="initializer"), m.generate(start))
    assert torch.equal(m.sample(3, start=start, steps=0), m.generate(start))


def test_chains_go_down_the_energy():
    m = plane(noise=0.0, step=0.05, steps=20)
    trace = tw.sample.Trace()
    start = random.normal(16, 3, generator=random.seeded(25))
    x = m.sample(16, start=start, trace=trace)
    assert (m.energy(x) < m.energy(m.generate(start))).all() and trace.displacement.shape == (16,)


def test_samples_by_label_start_near_the_classes_latent():
    m = plane()
    m.class_means.count += 1
    m.class_means.latents += torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    label = torch.arange(3).repeat(20)
    x = m.sample(60, label=label, use="initializer", candidates=32)
    near = F.cosine_similarity(m.latent(x), m.class_means.latents[label], dim=1)
    anywhere = F.cosine_similarity(m.latent(m.sample(60, use="initializer")), m.class_means.latents[label], dim=1)
    assert near.mean() > anywhere.mean() + 0.1
    # chains run on E(x, z̄) of a strong γ: they end nearer to what g says of the class than those on E(x) alone
    strong = m.sample(60, label=label, concentration=50.0, steps=20)
    weak = m.sample(60, label=label, concentration=0.0, steps=20)
    agreement = [F.cosine_similarity(m.posterior(x)[0], m.class_means.latents[label], dim=1).mean() for x in (strong, weak)]
    assert agreement[0] > agreement[1] + 0.1


def test_a_constraint_is_met_at_every_step():
    m = tw.method("liebm/digits", **SMALL)
    x = images(4).all().x
    mask = tasks.masks.half((1, 8, 8), "left")
    filled = tasks.inpaint(m, x, mask, completions=2)
    known = tasks.operators.mask(mask).forward(x)
    assert torch.equal(tasks.operators.mask(mask).forward(filled[1]), known)


def test_reconstruction_finds_what_the_generator_made(encoder):
    m = of_images(encoder, inference=SMALL_Q)
    x = m.sample(4, seed=3, use="initializer")
    first, found = m.reconstruct(x), m.reconstruct(x, steps=150)
    torch.testing.assert_close(first.latent, m.infer(x)[0])
    torch.testing.assert_close(m.generate(found.latent), found.x)
    errors = [(r.x - x).square().mean() for r in (first, found)]
    assert errors[1] < 0.1 * errors[0]
    assert tasks.reconstruct(m, x, steps=2).shape == x.shape


def test_restoration_agrees_more_with_what_was_measured_at_each_stage():
    m = tw.method("liebm/digits", **SMALL)
    x = m.sample(6, seed=4, use="initializer")
    operator = tasks.operators.average_pool(2)
    y = operator.forward(x)
    found = tasks.restore_latent(m, y, operator, latent_steps=100, latent_step=0.05)
    misfit = [tasks.consistency(operator, stage, y).mean() for stage in (found.start, found.refined, found.x)]
    assert misfit[1] < 0.7 * misfit[0] and misfit[2] < 0.2 * misfit[1]
    again = tasks.restore_latent(m, y, operator, latent_steps=100, latent_step=0.05)
    assert torch.equal(found.x, again.x) and found.x.abs().max() <= 1
    still = tasks.restore_latent(m, y, operator, latent_steps=0, steps=0)
    assert torch.equal(still.start, still.refined)


def test_apply_restores_by_latents_in_three_stages(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    m = tw.method("liebm/digits", **SMALL)
    tw.save_pretrained(m, tmp_path / "model")
    x = m.sample(2, seed=4, use="initializer")
    np.savez("two.npz", x=x.numpy())
    line = "apply restore model --input two.npz --operator pool:2 --latent --seed 3"
    assert main(f"{line} --out out.npz".split()) == 0, capsys.readouterr().err
    operator = tasks.operators.average_pool(2)
    wanted = tasks.restore_latent(m, operator.forward(x), operator, seed=3)
    found = np.load("out.npz")
    for name, stage in (("start", wanted.start), ("refined", wanted.refined), ("restored", wanted.x)):
        np.testing.assert_allclose(found[name], stage.numpy(), atol=1e-6)
    assert main(f"{line} --out out.png".split()) == 0
    assert main(f"{line} --completions 2 --out out.npz".split()) == 2 and "gives one image" in capsys.readouterr().err


def test_a_model_without_latents_says_so_before_it_is_trained(encoder, monkeypatch, capsys):
    assert "no latents" in tw.method("liebm/digits", **SMALL).notice and not of_images(encoder).notice
    options = "--net.width 16 --features 8 --head 8 --latent-dim 4 --generator.width 8 --steps 2 --batch 16 --images 64 --warm-up 0"
    assert main(["train", "liebm/digits", "--dry-run", *options.split()]) == 0
    assert "thalweg train ssl/digits" in capsys.readouterr().err


# --- bad input


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pretrained": "", "generator_training": "ejm"}, "generator_training = 'ejm' needs latents"),
        ({"pretrained": "", "inference": SMALL_Q}, "inference without"),
        ({"generator_training": "erm"}, "'erm' needs an inference model"),
        ({"cotraining": "contrastive", "inference": SMALL_Q}, "cotraining of the encoder is for"),
        ({"cotraining": "contrastive", "generator_training": "ejm"}, "cotraining of the encoder is for"),
        ({"pretrained": "", "latent_posterior": "exponential"}, "needs latents"),
        ({"pretrained": "nowhere"}, "no run or exported model"),
        ({"shape": (2,), "augmented_starts": 0.0, "net": "convnet", "pretrained": ""}, "needs images"),
        ({"shape": (2,), "augmented_starts": 0.0}, "encoders of ssl are for images"),
        ({"shape": (2,), "augmented_starts": 0.0, "pretrained": ""}, None),
        ({"shape": (2,), "augmented_starts": 0.5, "pretrained": ""}, "use augmentation = 'noise'"),
        ({"shape": (1, 12, 12)}, "is for images of shape"),
        ({"shape": (1, 7, 7), "pretrained": "", "net": "convnet"}, "must divide by"),
        ({"augmented_starts": 1.5}, "augmented_starts"),
        ({"pretrained": "own:Net"}, "user's own"),
    ],
)
def test_bad_settings_get_one_message(encoder, fields, message):
    if message is None:
        tw.method("liebm/digits", **(SMALL | fields))
        return
    with pytest.raises(InputError, match=message):
        of_images(encoder) if not fields else tw.method("liebm/digits", **(SMALL | {"pretrained": encoder} | fields))


def test_bad_calls_get_one_message(encoder, tmp_path):
    m, x = of_images(encoder), images(4).all().x
    calls = {
        "z must be": lambda: m.energy(x, z=torch.zeros(4, 5)),
        "or one for each": lambda: m.energy(x, z=torch.zeros(3, 4)),
        "no inference model": lambda: m.infer(x),
        "1 step or more": lambda: m.reconstruct(x),
        "start must have shape": lambda: m.sample(2, start=torch.zeros(2, 5)),
        "label or start": lambda: m.sample(2, start=torch.zeros(2, 4), label=1),
        "use must be": lambda: m.sample(2, use="flow"),
        "no images of this label": lambda: m.sample(2, label=1),
        "labels must be between": lambda: m.sample(2, label=10),
        "concentration is of the cosine": lambda: of_images(encoder, latent_posterior="gaussian").energy(
            x, z=torch.zeros(4), concentration=1.0
        ),
        "must give vectors": lambda: LIEBM(m.config, encoder=nn.Identity()),
        "no encoder; train one": lambda: of_images(str(saved)),
        "the encoder has no weights": lambda: of_images(encoder, encoder=ResNet(widths=(8, 8), head=8, dim=4)).step(Batch(x, None), Once()),
    }
    saved = tw.save_pretrained(m, tmp_path / "model")
    for message, call in calls.items():
        with pytest.raises(InputError, match=message):
            call()
