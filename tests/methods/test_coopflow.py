"""CoopFlow on Gaussian data, where chains, their fixed point and the flow have closed forms; its phases, options and errors."""

import math

import pytest
import torch
from torch import Tensor, nn

import thalweg as tw
from thalweg import random
from thalweg.augmentation import Shifts
from thalweg.chain import Langevin
from thalweg.data import Images
from thalweg.data.base import Batch
from thalweg.errors import InputError
from thalweg.methods import preset
from thalweg.nn.build import MLP, ConvNet, PooledNet
from thalweg.nn.initializers import Flow, Generator, Noise

DIM, STD, STEP, STEPS = 2, 1.5, 0.8, 5
BOUND = 4.5  # standard errors
TOY = dict(
    net=MLP(width=8, depth=2), initializer=Flow(couplings=2, width=8, depth=1, coupling="affine"), steps=STEPS, step=STEP, batch=64,
    images=6400, reference_std=0.0, clip=0.0, warm_up=0,
)  # fmt: skip
FLOW = Flow(scales=2, couplings=1, width=8, depth=1, mixtures=2, grey_values=17)
IMAGE = dict(
    shape=(1, 8, 8), net=ConvNet(widths=(4, 8)), initializer=FLOW, chain=Langevin(steps=3, step=0.3, noise=0.0, clip=0.1, clamp=True),
    reference_std=0.0, batch=8, images=64, step_ratio=4 / 3,
)  # fmt: skip


def method(**fields):
    return tw.method("coopflow/spiral", seed=0, **(TOY | fields))


def image_method(**fields):
    return tw.method("coopflow/spiral", seed=0, **(IMAGE | fields))


def digits() -> Images:
    return Images(random.uniform(64, 1, 8, 8, low=-1.0, high=1.0, generator=random.seeded(71)))


class Gaussian:
    """N(0, STD² I) as data."""

    name, shape, classes = "gaussian", (DIM,), ()

    def batch(self, start: int, count: int, seed: int) -> Batch:
        return Batch(STD * random.normal(count, DIM, generator=random.seeded(79, seed, start)), None)


class Quadratic(nn.Module):
    """E(x) = a ‖x‖²/2."""

    def __init__(self, a: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a))

    def forward(self, x: Tensor) -> Tensor:
        return self.a * x.square().sum(1) / 2


class Scaling(nn.Module):
    """x = s z."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def decode(self, z: Tensor) -> Tensor:
        return z * self.log_scale.exp()

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * (-self.log_scale).exp(), (-self.log_scale * x[0].numel()).expand(len(x))

    def bound(self, x: Tensor, noise: Tensor) -> Tensor:
        z, log_det = self.encode(x)
        return -0.5 * (z.square() + math.log(2 * math.pi)).sum(1) + log_det

    def initialise(self, x: Tensor, noise: Tensor, mean=None) -> None:
        """Nothing to set."""


# E = a‖x‖²/2 whose discretised chain has the data's variance for its stationary one: s² = (1 − δ²a/2)² s² + δ²
FIXED = 2 / STEP**2 * (1 - math.sqrt(1 - STEP**2 / STD**2))


def gaussian_model(a: float = FIXED, scale: float = STD, **fields):
    m = method(**fields)
    m.net, m.initializer = Quadratic(a), Scaling(scale)
    return m


def chain_variance(variance: float, *, a: float, step: float = STEP, noise: float = 1.0) -> float:
    """Of each dimension after STEPS steps on a‖x‖²/2."""
    for _ in range(STEPS):
        variance = (1 - step**2 * a / 2) ** 2 * variance + (step * noise) ** 2
    return variance


class Losses:
    """What a method hands to `update`, as gradients of the named networks."""

    def __init__(self, m, seed: int, images: int = 10**9, *, gradients: bool = True) -> None:
        self.generator, self.images, self.wanted = random.seeded(72, seed), images, gradients
        self.parameters = {"energy": m.net, "initializer": m.initializer}
        self.gradients: dict[str, Tensor] = {}
        self.order: list[str] = []

    def __call__(self, name: str, loss: Tensor) -> None:
        self.order.append(name)
        if not self.wanted:
            return
        found = torch.autograd.grad(loss, list(self.parameters[name].parameters()))
        self.gradients[name] = torch.cat([g.flatten() for g in found])

    def log(self, **values) -> None:
        pass

    def mean(self, value: Tensor) -> Tensor:
        return value


def gaussian_batch(seed: int, n: int = 4000) -> Batch:
    return Batch(STD * random.normal(n, DIM, generator=random.seeded(73, seed)), None)


def z_scores(m, repeats: int = 30) -> dict[str, float]:
    found: dict[str, list[Tensor]] = {"energy": [], "initializer": []}
    for seed in range(repeats):
        losses = Losses(m, seed)
        m.step(gaussian_batch(seed), losses)
        for name, gradient in losses.gradients.items():
            found[name].append(gradient)
    rows = {name: torch.stack(values) for name, values in found.items()}
    return {name: float(r.mean() / (r.std() / math.sqrt(repeats))) for name, r in rows.items()}


def test_the_fixed_point_of_gaussian_data_is_one():
    """There the flow is the data, and the chain leaves the data's law as it is, however short it is (thesis, eq. 4.13)."""
    for name, z in z_scores(gaussian_model()).items():
        assert abs(z) < BOUND, (name, z)


def test_a_wrong_energy_or_flow_is_pulled_back():
    assert z_scores(gaussian_model(a=1.2 * FIXED))["energy"] > BOUND, "too steep: its gradient descends"
    assert z_scores(gaussian_model(a=0.8 * FIXED))["energy"] < -BOUND
    assert z_scores(gaussian_model(scale=1.2 * STD))["initializer"] > BOUND, "its samples end narrower than they began"
    assert z_scores(gaussian_model(scale=0.8 * STD))["initializer"] < -BOUND


def test_training_goes_to_the_fixed_point():
    m = gaussian_model(a=1.0, scale=0.7, lr=1e-2, lr_initializer=1e-2, batch=1000, images=800_000, beta2=0.999, ema=0.9)
    found = tw.fit(m, Gaussian(), progress=False)
    assert float(found.net.a) == pytest.approx(FIXED, rel=0.05)
    assert float(found.initializer.log_scale.exp()) == pytest.approx(STD, rel=0.03)


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_chains_have_the_closed_form_variance(noise):
    m, n, ratio = gaussian_model(a=0.6, scale=0.5, noise=noise), 100_000, 0.5
    x = m.sample(n, seed=1, step_ratio=ratio)
    variance = chain_variance(0.25, a=0.6, step=ratio * STEP, noise=noise)
    assert abs(float(x.var()) - variance) < BOUND * variance * math.sqrt(2 / x.numel())


def test_the_energy_alone_starts_at_noise():
    m = method(initializer="noise", reference_std=2.0, steps=1, step=1e-6, step_ratio=1.0)
    x = m.sample(50_000, seed=1)
    assert abs(float(x.std()) - 2.0) < BOUND * 2.0 / math.sqrt(2 * x.numel())
    assert list(m.optimizers()) == ["energy"] and m.initializer is None


def test_densities_are_what_they_say():
    m, x = gaussian_model(), gaussian_batch(0, 10).x
    exact = torch.distributions.Normal(0.0, STD).log_prob(x).sum(1)
    torch.testing.assert_close(m.log_prob(x), exact)
    torch.testing.assert_close(m.energy(x), FIXED * x.square().sum(1) / 2)
    alone = method(steps=0)
    torch.testing.assert_close(alone.energy(x), -alone.log_prob(x))
    tilted = method(reference_std=2.0)
    torch.testing.assert_close(tilted.energy(x), tilted.net(x) + x.square().sum(1) / 8)


def test_a_flow_learns_from_refined_samples_and_alone_from_the_data():
    batch, seen = gaussian_batch(0), []
    for m in (gaussian_model(a=0.6, scale=0.5), method(steps=0)):
        m.initializer_loss = lambda x, z, g: seen.append(x) or torch.zeros(())
        m.step(batch, Losses(m, 1, gradients=False))
    refined, alone = seen
    variance = chain_variance(0.25, a=0.6)
    assert abs(float(refined.var()) - variance) < BOUND * variance * math.sqrt(2 / refined.numel())
    assert alone is batch.x


def test_phases_of_a_pretrained_flow():
    m = gaussian_model(pretrain=1000, warm_up_energy=500)
    orders = {}
    for images in (0, 999, 1000, 1499, 1500):
        losses = Losses(m, 0, images)
        m.step(gaussian_batch(0, 64), losses)
        orders[images] = losses.order
    both = ["initializer", "energy"]
    assert orders == {0: ["initializer"], 999: ["initializer"], 1000: ["energy"], 1499: ["energy"], 1500: both}


def mean_rate(m, name: str, start: int, stop: int) -> float:
    """Mean factor of a base rate over the steps between two counts of images."""
    rates = [m.learning_rate(name, images) for images in range(start, stop, m.config.batch)]
    return sum(rates) / len(rates)


def test_the_cooperative_phase_has_its_own_schedule():
    """Phases of images × (¾, 1/16, 3/16), as of the paper's CIFAR-10: one cosine over all of them left the flow 0.028 of its rate."""
    m = method(pretrain=4800, warm_up_energy=400, images=6400, batch=1)
    assert mean_rate(m, "initializer", 0, 4800) == pytest.approx(0.5, abs=1e-3), "a training of its own, to its end"
    # what is left of a cosine that has a quarter behind it
    wanted = 0.5 * (1 - math.sin(math.pi / 4) / (0.75 * math.pi))
    assert mean_rate(m, "initializer", 5200, 6400) == pytest.approx(wanted, abs=1e-3) and wanted > 0.34
    assert m.learning_rate("energy", 4800) == m.learning_rate("initializer", 4800) == pytest.approx(1.0)
    whole = method(images=6400, batch=1)
    assert mean_rate(whole, "initializer", 5200, 6400) == pytest.approx(0.028, abs=1e-3), "as it was"
    alone = method(steps=0, pretrain=4800, images=6400, batch=1)
    assert mean_rate(alone, "initializer", 0, 6400) == pytest.approx(0.5, abs=1e-3), "a flow alone has one phase"


def test_the_paper_s_rates_are_constant():
    kind, config = preset("coopflow/cifar10-pre")
    with torch.device("meta"):
        m = kind(config)
    images = (0, config.pretrain - 28, config.pretrain, config.pretrain + config.warm_up_energy, config.images)
    assert [m.learning_rate(name, i) for name in ("energy", "initializer") for i in images] == [1.0] * 10


def test_noise_decays_as_in_the_paper():
    m = method(noise=1.0, noise_decay=1000, pretrain=100)
    assert m.noise_at(100) == 1.0
    assert m.noise_at(150) == pytest.approx(0.95**20)
    assert m.noise_at(1100) == m.noise_at(5000) == 0.0
    one, two = (m.sample(5, seed=1, start=torch.ones(5, 2)) for _ in range(2))
    assert torch.equal(one, two) and torch.equal(one[0], one[1]), "samples have no noise (sec. 4.9)"


def test_moves_and_values_are_bounded():
    m = image_method(step=50.0)
    _, trace = m._initialise(digits().x[:32], Losses(m, 0)), tw.sample.Trace(keep=4)
    m.sample(16, seed=2, trace=trace)
    moves = trace.states.diff(dim=0).abs()
    assert 0.09 < float(moves.max()) <= 0.1 + 1e-6, "a step this large moves as far as it may"
    assert float(trace.states.abs().max()) <= 1.0


# --- images


def test_the_first_batch_sets_the_flow_once():
    m, x = image_method(), digits().x
    before = {k: v.clone() for k, v in m.initializer.state_dict().items()}
    m.step(Batch(x[:16], None), Losses(m, 0))
    once = {k: v.clone() for k, v in m.initializer.state_dict().items()}
    assert bool(m.initialised) and any(not torch.equal(before[k], once[k]) for k in before)
    m.step(Batch(x[16:32], None), Losses(m, 1))
    assert all(torch.equal(once[k], v) for k, v in m.initializer.state_dict().items())


def test_images_are_made_encoded_and_sampled():
    m = tw.fit(image_method(), digits(), images=16, progress=False)
    x = m.sample(5, seed=3)
    assert x.shape == (5, 1, 8, 8) and float(x.abs().max()) <= 1
    torch.testing.assert_close(m.decode(m.encode(x)[0]), x, rtol=0, atol=1e-5)
    assert torch.equal(m.sample(5, seed=3), x)
    assert not torch.equal(m.sample(5, seed=3, use="initializer"), x)
    z = m.encode(x)[0].detach()
    torch.testing.assert_close(m.sample(5, seed=8, start=z), m.sample(5, seed=9, start=z))
    alone = image_method(steps=0)
    assert {round(float(v) * 8) / 8 for v in alone.sample(20).unique()} <= {k / 8 for k in range(-8, 9)}, "grey values of the data"


@pytest.mark.parametrize("net", [ConvNet(widths=(4, 8)), PooledNet(widths=(4, 8))], ids=lambda spec: spec.kind)
@pytest.mark.parametrize("initializer", [FLOW, Generator(width=8), Noise()], ids=lambda spec: spec.kind)
def test_every_kind_trains_and_samples(initializer, net):
    m = image_method(initializer=initializer, net=net)
    before = {k: v.clone() for k, v in m.state_dict().items()}
    found = tw.fit(m, digits(), images=16, progress=False)
    assert found.sample(3).shape == (3, 1, 8, 8)
    moved = {k.partition(".")[0] for k, v in m.state_dict().items() if not torch.equal(before[k], v)}
    assert {"net", *([] if initializer.kind == "noise" else ["initializer"])} <= moved


def test_mirror_images_are_what_all_learn_from():
    fields = dict(augmentation=Shifts(flip=1.0, shift=0))
    x, seen = digits().x[:8], []
    alone, both = image_method(steps=0, **fields), image_method(**fields)
    alone.initializer_loss = lambda x, z, g: seen.append(x) or torch.zeros(())
    alone.step(Batch(x, None), Losses(alone, 1, gradients=False))
    energy, of_energy = both.energy, []
    both.energy = lambda x: of_energy.append(x.detach()) or energy(x)
    both.step(Batch(x, None), Losses(both, 1, gradients=False))
    assert torch.equal(seen[0], x.flip(3))
    assert torch.equal(of_energy[-1][:8], x.flip(3)), "the energy's update, data first"


# Table 4.4: epochs to pretrain the flow, of the energy's warm-up and of CoopFlow, steps, their size in training and for samples
TABLE = {
    "cifar10": (0, 0, 100, 30, 0.03, 0.04),
    "svhn": (0, 0, 100, 30, 0.03, 0.035),
    "celeba-32": (0, 0, 100, 30, 0.03, 0.035),
    "cifar10-long": (0, 0, 100, 200, 0.01, 0.012),
    "svhn-long": (0, 0, 100, 200, 0.011, 0.0125),
    "celeba-32-long": (0, 0, 100, 200, 0.011, 0.013),
    "cifar10-pre": (300, 25, 75, 30, 0.03, 0.04),
    "svhn-pre": (200, 10, 90, 30, 0.03, 0.035),
    "celeba-32-pre": (80, 10, 90, 30, 0.03, 0.035),
}


@pytest.mark.parametrize("name", TABLE)
def test_presets_have_the_paper_s_table(name):
    _, c = preset(f"coopflow/{name}")
    epoch = {"cifar10": 50_000, "svhn": 73_257, "celeba": 202_599}[name.partition("-")[0]]
    cooperative = c.images - c.pretrain - c.warm_up_energy
    sizes = c.chain.step, pytest.approx(c.chain.step * c.step_ratio)
    assert (c.pretrain / epoch, c.warm_up_energy / epoch, cooperative / epoch, c.chain.steps, *sizes) == TABLE[name]
    assert (c.batch, c.lr, c.lr_initializer) == (32 if name.endswith("long") else 28, 1e-4, 1e-4)
    assert (c.augmentation is not None) == name.startswith("cifar10"), "sec. 4.5.2"


def test_a_generator_learns_where_its_chains_end():
    m = image_method(initializer="generator")
    z = random.normal(4, m.config.initializer.latent_dim, generator=random.seeded(75))
    x = digits().x[:4]
    loss = m.initializer_loss(x, z, random.seeded(76))
    torch.testing.assert_close(loss, (m.initializer(z) - x).square().mean())


def test_a_run_resumes_bit_equal(tmp_path):
    options = dict(seed=3, progress=False, save_every=16, log_every=16, sample_every=64)
    tw.fit(image_method(pretrain=16, warm_up_energy=16), digits(), tmp_path / "whole", **options)
    tw.fit(image_method(pretrain=16, warm_up_energy=16), digits(), tmp_path / "parts", images=24, **options)
    tw.fit(image_method(pretrain=16, warm_up_energy=16), digits(), tmp_path / "parts", **options)
    one, two = (tw.load(tmp_path / name).state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_a_constraint_holds_after_every_step():
    m, known = image_method(), torch.full((4, 1, 8, 8), 0.25)
    m._initialise(digits().x[:32], Losses(m, 0))

    def constraint(x, signal, noise):
        x = x.clone()
        x[..., :4] = known[..., :4]
        return x

    x = m.sample(4, seed=1, constraint=constraint)
    assert torch.equal(x[..., :4], known[..., :4]) and not torch.equal(x[..., 4:], known[..., 4:])


def test_training_chains_hold_what_is_known(monkeypatch):
    """Those of the first images keep the left half; the flow and the energy learn from all."""
    x, seen = digits().x[:8], []
    known = torch.zeros(8, 1, 8, 8, dtype=torch.bool)
    known[:4, ..., :4] = True
    monkeypatch.setattr("thalweg.methods.coopflow.random_regions", lambda x, share, generator: known)
    m = image_method(known_share=0.5)
    m.initializer_loss = lambda x, z, g: seen.append(x) or torch.zeros(())
    m.step(Batch(x, None), Losses(m, 1, gradients=False))
    (refined,) = seen
    assert torch.equal(refined[:4, ..., :4], x[:4, ..., :4])
    assert float((refined - x).abs().flatten(1).mean(1).min()) > 0.1
    found = tw.fit(image_method(known_share=0.5), digits(), images=16, progress=False)
    assert found.sample(3).isfinite().all()


# --- reconstruction


def test_the_langevin_flow_is_the_chain_without_noise():
    m = image_method()
    m._initialise(digits().x[:32], Losses(m, 0))
    z = random.normal(4, 1, 8, 8, generator=random.seeded(77))
    start = m.sample(4, start=z, use="initializer")
    torch.testing.assert_close(m.langevin_flow(start, step_ratio=4 / 3).detach(), m.sample(4, start=z))


def test_its_gradient_is_that_of_finite_differences():
    m = method(**{"net.width": 6}).double()
    x = random.normal(1, 2, generator=random.seeded(78), dtype=torch.float64).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda y: m.langevin_flow(y), (x,))


def test_an_image_of_the_model_is_found_again():
    m = image_method()
    m._initialise(digits().x[:32], Losses(m, 0))
    x = m.langevin_flow(m.sample(4, seed=1, use="initializer")).detach()
    found = m.reconstruct(x, seed=2)
    first = m.langevin_flow(m.sample(4, seed=2, use="initializer")).detach()
    assert float((found.x - x).square().mean()) < 0.01 * float((first - x).square().mean())
    torch.testing.assert_close(m.decode(found.latent), found.start, rtol=0, atol=1e-5)
    torch.testing.assert_close(m.langevin_flow(found.start).detach(), found.x)


def test_an_image_s_latent_is_that_of_its_reconstruction():
    m = image_method()
    m._initialise(digits().x[:32], Losses(m, 0))
    x = m.langevin_flow(m.sample(4, seed=1, use="initializer")).detach()
    z, found = m.invert(x, seed=2), m.reconstruct(x, seed=2)
    assert torch.equal(z, found.latent)
    torch.testing.assert_close(m.sample(4, start=z, step_ratio=1.0), found.x, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, {"sample", "energy", "start", "reconstruct", "constraint", "invert"}),
        ({"noise": 1.0}, {"sample", "energy", "reconstruct", "constraint", "invert"}),
        ({"noise": 1.0, "noise_decay": 10}, {"sample", "energy", "start", "reconstruct", "constraint", "invert"}),
        ({"steps": 0}, {"sample", "energy", "start"}),
        ({"initializer": "generator"}, {"sample", "energy", "start", "reconstruct", "constraint"}),
        ({"initializer": "noise"}, {"sample", "energy", "reconstruct", "constraint"}),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),  # in one order in every process
)
def test_abilities_are_those_of_the_parts(fields, wanted):
    assert image_method(**fields).abilities == wanted


def test_hidden_pixels_are_not_looked_at():
    m = image_method()
    m._initialise(digits().x[:32], Losses(m, 0))
    x, mask = digits().x[:2], torch.zeros(1, 8, 8)
    mask[..., :4] = 1
    other = torch.where(mask.bool(), x, -x)
    one, two = (m.reconstruct(y, mask, steps=5, seed=1).x for y in (x, other))
    assert torch.equal(one, two)
    assert not torch.equal(one, m.reconstruct(x, steps=5, seed=1).x)


def drawn_model():
    m = image_method()
    m._initialise(digits().x[:32], Losses(m, 0))
    left = torch.zeros(1, 8, 8)
    left[..., :4] = 1
    return m, digits().x[:5], left


def test_starts_are_the_nearest_where_it_is_known():
    m, x, left = drawn_model()
    z = m.nearest_starts(x, left, draws=40, keep=3, seed=4)
    all_z = random.normal(40, 1, 8, 8, generator=random.seeded(4, 2))
    error = (left * (m.sample(40, start=all_z, use="initializer")[None] - x[:, None])).square().flatten(2).sum(2)
    assert torch.equal(z, all_z[error.argsort(1)[:, :3].T])


def test_the_search_of_the_lowest_energy_is_kept():
    m, x, left = drawn_model()
    options = dict(steps=3, draws=40, seed=4)
    found = m.reconstruct(x, left, tries=3, **options)
    starts = iter(m.nearest_starts(x, left, draws=40, keep=3, seed=4))
    m.nearest_starts = lambda *a, **k: next(starts)[None]
    each = [m.reconstruct(x, left, **options) for _ in range(3)]
    energies = torch.stack([m.energy(torch.where(left.bool(), x, one.x)) for one in each])
    best = energies.argmin(0)
    assert len(best.unique()) > 1
    for name in ("x", "start", "latent"):
        assert torch.equal(getattr(found, name), torch.stack([getattr(one, name) for one in each])[best, torch.arange(5)])


@pytest.mark.parametrize("initializer", [FLOW, Generator(width=8)], ids=lambda spec: spec.kind)
def test_a_search_with_a_prior_is_for_z(initializer):
    m = image_method(initializer=initializer)
    if initializer is FLOW:
        m._initialise(digits().x[:32], Losses(m, 0))
    true = random.normal(4, *m.latent_shape, generator=random.seeded(5))
    x = m.sample(4, start=true, step_ratio=1.0)
    found, first = (m.reconstruct(x, steps=steps, rate=0.05, prior=1e-3, seed=6) for steps in (50, 1))
    torch.testing.assert_close(m.sample(4, start=found.latent, step_ratio=1.0), found.x, rtol=0, atol=1e-4)
    assert float((found.x - x).square().mean()) < 0.4 * float((first.x - x).square().mean())
    pulled = m.reconstruct(x, steps=50, rate=0.2, prior=1e4, seed=6)
    assert float(pulled.latent.abs().max()) < 0.5 < float(found.latent.abs().max()), "the prior's mode"


# --- errors


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: method(steps=0, initializer="noise"), "steps = 0 trains the flow alone"),
        (lambda: method(pretrain=5, initializer="generator"), "pretrain and warm_up_energy are for initializer = 'flow'"),
        (lambda: method(augmentation=Shifts()), "augmentation is for images"),
        (lambda: method(noise=0.0, noise_decay=10), "noise_decay lets the noise fall"),
        (lambda: method(net=ConvNet()), r"needs images \[C, H, W\], got shape \(2,\)"),
        (lambda: image_method(scales=4), "divide by 16, got 8×8"),
        (lambda: image_method(widths=(4, 8, 8, 8, 8)), "divide by 16, got 8×8"),
        (lambda: method(initializer="noise").encode(torch.zeros(1, 2)), "has no flow"),
        (lambda: image_method(initializer="generator").invert(torch.zeros(1, 1, 8, 8)), "'generator' has no flow"),
        (lambda: method(steps=0).invert(torch.zeros(1, 2)), "use encode and decode"),
        (lambda: method().sample(3, start=torch.zeros(3, 5)), r"start must have shape \(3, 2\)"),
        (lambda: method(steps=0).sample(3, constraint=lambda x, s, n: x), "a constraint needs a chain"),
        (lambda: method(steps=0).reconstruct(torch.zeros(1, 2)), "use encode and decode"),
        (lambda: method().reconstruct(torch.zeros(1, 2), steps=0), "1 step or more"),
        (lambda: method(known_share=0.5), "known_share is for images"),
        (lambda: image_method(known_share=0.5, initializer="generator"), "chains from a flow or from noise"),
        (lambda: image_method(initializer="noise").reconstruct(torch.zeros(1, 1, 8, 8), prior=0.1), "have none; leave them out"),
        (lambda: image_method(initializer="noise").nearest_starts(torch.zeros(1, 1, 8, 8), 1), "no z to choose"),
        (lambda: image_method().reconstruct(torch.zeros(1, 1, 8, 8), tries=2), "tries are 1 to draws"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
