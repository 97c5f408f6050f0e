"""NeRF-LEBM: posteriors of a linear generator in closed form, signs, learners, poses, incomplete images, resume, errors."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import thalweg as tw
from thalweg import camera, random
from thalweg.chain import Langevin
from thalweg.data import ViewBatch, Views
from thalweg.data.base import Batch
from thalweg.errors import InputError
from thalweg.nn import inference
from thalweg.scene import poses
from thalweg.scene.fields import RadianceField, TriPlane
from thalweg.scene.rays import Given, Pixels, choose
from thalweg.scene.specs import (
    MCMC,
    Amortized,
    EnergyPrior,
    GaussianPrior,
    InferenceNet,
    LatentAdam,
    LatentLangevin,
    Persistent,
    PoseSearch,
    Rays,
    SemiAmortized,
)

BOUND = 4.5  # standard errors
PRIOR = EnergyPrior(width_appearance=8, width_shape=8, chain=Langevin(steps=3, step=0.4))
CHAINS = dict(posterior_chain=LatentAdam(steps=2), infer_chain=LatentAdam(steps=3))
LEARNERS = {
    "mcmc": MCMC(**CHAINS),
    "persistent": Persistent(chains=6, **CHAINS),
    "amortized": Amortized(inference=InferenceNet(widths=(8, 8), blocks=(0, 1))),
    "semi_amortized": SemiAmortized(chains=6, inference=InferenceNet(widths=(8, 8), blocks=(0, 1)), **CHAINS),
}
FIELD = RadianceField(width=8, depth=2, mapping=8, mapping_layers=2, octaves=2)
TINY = dict(
    shape=(3, 8, 8), dim_appearance=3, dim_shape=2, prior=PRIOR, field=FIELD, renderer=Rays(samples=4, rays=6),
    learner=LEARNERS["amortized"], batch=4, images=64, warm_up=0,
)  # fmt: skip


def method(**fields):
    return tw.method("nerf_lebm/objects", seed=0, **(TINY | fields))


def some_cameras(n: int, seed: int = 0) -> Tensor:
    vectors = (camera.unit_vector(random.uniform(n, high=1.0 + 4 * i, generator=random.seeded(111, seed, i))) for i in range(2))
    return camera.orbit(*vectors, distance=4.0, focal=1.866)


def views(objects: int = 6, each: int = 4, **options) -> Views:
    n = objects * each
    x = random.integers(n * 3 * 64, 0, 256, generator=random.seeded(112)).view(n, 3, 8, 8).to(torch.uint8)
    return Views(x, some_cameras(n), torch.arange(objects).repeat_interleave(each), **options)


class Losses:
    """What a method hands to `update`, as gradients of the named parameters."""

    def __init__(self, m, only: tuple[str, ...] = ("appearance", "shape", "generator")) -> None:
        self.generator, self.images, self.only = random.seeded(113), 0, only
        self.parameters = {name: [p for group in o.param_groups for p in group["params"]] for name, o in m.optimizers().items()}
        self.values: dict[str, Tensor] = {}
        self.gradients: dict[str, list[Tensor | None]] = {}
        self.logged: dict = {}

    def __call__(self, name: str, loss: Tensor) -> None:
        if name not in self.only:
            return
        self.values[name] = loss.detach()
        self.gradients[name] = torch.autograd.grad(loss, self.parameters[name], allow_unused=True)

    def log(self, **values) -> None:
        self.logged |= values

    def mean(self, value: Tensor) -> Tensor:
        return value


# --- a linear generator, whose posterior is Gaussian

MIX = torch.tensor([[1.0, 0.3, -0.2, 0.5, 0.0], [0.2, -1.0, 0.4, 0.1, 0.6], [0.0, 0.5, 0.8, -0.7, 0.3], [0.4, 0.0, 0.1, 0.9, -0.5]])
OBSERVED = torch.tensor([0.5, -0.3, 0.8, 0.2])
STD = 0.6


def linear(n: int = 1, weight: Tensor | None = None, **fields):
    """G(z) = MIX z as an image of 4 pixels of one channel, and what is seen of it, n times."""
    m = method(residual_std=STD, **fields)
    m.generate = lambda z, pixels: (z @ MIX.T)[:, :, None]
    weight = torch.ones(4) if weight is None else weight
    nothing = torch.zeros(n, 4, 3)
    return m, Pixels(nothing, nothing, OBSERVED.expand(n, 4)[:, :, None], weight.expand(n, 4), torch.zeros(n, 4, 1), None)


def gaussian_posterior(weight: Tensor | None = None, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    scaled = MIX if weight is None else MIX * weight.sqrt()[:, None]
    observed = OBSERVED if weight is None else OBSERVED * weight.sqrt()
    precision = torch.eye(5) + scaled.T @ scaled / (STD**2 * temperature)
    covariance = precision.inverse()
    return covariance @ scaled.T @ observed / (STD**2 * temperature), covariance


@pytest.mark.parametrize("joint", [False, True])
def test_chains_meet_the_posterior_of_a_linear_generator(joint):
    n = 4000
    m, pixels = linear(n)
    chain = LatentLangevin(steps=120, step=0.2, noise=1.0, joint=joint)
    z, _ = m.run_chain(chain, m._reference(n, random.seeded(114)), pixels, generator=random.seeded(115))
    mean, covariance = gaussian_posterior()
    error = BOUND * covariance.diagonal().sqrt() / math.sqrt(n)
    assert ((z.mean(0) - mean).abs() < error).all()
    spread = (covariance.diagonal()[:, None] * covariance.diagonal() + covariance.square()).sqrt()
    bias = 1.5 * 0.2**2 / 4  # of an unadjusted step s: s²/4 a direction, whatever its width
    assert ((z.T.cov() - covariance).abs() < BOUND * spread / math.sqrt(n) + bias).all()


def test_only_visible_pixels_count():
    n, weight = 2000, torch.tensor([1.0, 0.0, 1.0, 0.0])
    m, pixels = linear(n, weight)
    chain = LatentLangevin(steps=150, step=0.2, noise=1.0)
    z, _ = m.run_chain(chain, m._reference(n, random.seeded(116)), pixels, generator=random.seeded(117))
    mean, covariance = gaussian_posterior(weight)
    assert ((z.mean(0) - mean).abs() < BOUND * covariance.diagonal().sqrt() / math.sqrt(n)).all()


@pytest.mark.parametrize("chain", [LatentLangevin(steps=300, step=0.3), LatentAdam(steps=300, rate=0.02)])
def test_without_noise_chains_find_the_mode(chain):
    m, pixels = linear(1, likelihood_temperature=2.0)
    z, moments = m.run_chain(chain, torch.zeros(1, 5), pixels)
    torch.testing.assert_close(z[0], gaussian_posterior(temperature=2.0)[0], atol=0.02, rtol=0)
    assert int(moments[0, -1]) == 300


def test_adam_is_that_of_torch():
    """Moved jointly, a chain is torch.optim.Adam on the energy, also when it goes on from its moments."""
    m, pixels = linear(1)
    chain = LatentAdam(steps=3, rate=0.1, joint=True)
    z, moments = m.run_chain(chain, torch.zeros(1, 5), pixels)
    z, _ = m.run_chain(chain, z, pixels, moments, steps=4)
    point = torch.zeros(1, 5, requires_grad=True)
    optimizer = torch.optim.Adam([point], lr=0.1)
    for _ in range(7):
        optimizer.zero_grad()
        m.posterior_energy(point, pixels).sum().backward()
        optimizer.step()
    torch.testing.assert_close(z, point.detach(), atol=1e-5, rtol=1e-4)


def test_z_a_moves_first_and_z_s_sees_it():
    m, pixels = linear(1)
    z = m.run_chain(LatentLangevin(steps=1, step=0.4), torch.zeros(1, 5), pixels)[0]
    wanted = torch.zeros(1, 5)
    for part in (slice(0, 3), slice(3, 5)):
        moved = wanted + 0.08 * tw.score(m.posterior_energy, wanted, pixels=pixels)
        wanted = torch.cat([moved[:, s] if s == part else wanted[:, s] for s in (slice(0, 3), slice(3, 5))], 1)
    torch.testing.assert_close(z, wanted)


# --- losses and their signs


def test_energies_are_those_of_the_priors():
    m, z = method(), random.normal(4, 5, generator=random.seeded(118))
    torch.testing.assert_close(m.energy(z), z.square().sum(1) / 2)
    with torch.no_grad():
        m.appearance.net.last.bias.fill_(0.7)
    torch.testing.assert_close(m.energy(z), z.square().sum(1) / 2 - 0.7)
    with pytest.raises(InputError, match=r"latents \[B, 5\]"):
        m.energy(torch.zeros(2, 3, 8, 8))


@pytest.mark.parametrize("learner", LEARNERS)
def test_updates_are_those_of_the_algorithm(learner):
    """E(z⁺) − E(z⁻) for each prior, then the generator: residual per value, and for an inference network KL − f, or −log q of chains."""
    m = method(learner=LEARNERS[learner])
    losses = Losses(m)
    m.step(views().batch(0, 4, 0), losses)
    assert list(losses.values) == ["appearance", "shape", "generator"]
    log = losses.logged
    for name in ("appearance", "shape"):
        wanted = log[f"{name}_posterior"].mean() - log[f"{name}_prior"].mean()
        torch.testing.assert_close(losses.values[name], wanted)
        gradient = torch.cat([g.flatten() for g in losses.gradients[name]])
        assert gradient.isfinite().all() and gradient.abs().sum() > 0
    wanted = log["residual"].mean() + (log["divergence"].mean() / (3 * 64) if "amortized" in learner else 0.0)
    torch.testing.assert_close(losses.values["generator"], wanted)  # f is 0 in a new prior


def test_the_inference_network_is_drawn_to_where_f_is_high():
    """The tilt enters its loss with −f: its gradient by z is −∇f."""
    m = method()
    batch = views().batch(0, 4, 0)
    plain, tilted = Losses(m), Losses(m, only=("generator",))
    m.step(batch, plain)
    slope = random.normal(3, generator=random.seeded(119))

    class Slope(torch.nn.Module):
        def forward(self, z):
            return z @ slope

    m.appearance.net = Slope()
    m.step(batch, tilted)
    bias = m.inference.heads["appearance"][-1].bias
    place = next(i for i, p in enumerate(plain.parameters["generator"]) if p is bias)
    difference = tilted.gradients["generator"][place][:3] - plain.gradients["generator"][place][:3]
    torch.testing.assert_close(difference, -slope / (3 * 64), atol=1e-5, rtol=1e-3)


def test_pixels_of_a_step_estimate_the_whole():
    """Random subsets of pixels, weighted: without bias for the sum over all."""
    m = method()
    x, view = views().batch(0, 2, 0)[0][:, None], some_cameras(2)[:, None]
    z = random.normal(2, 5, generator=random.seeded(120))
    look = m.config.renderer.look
    even = look(x, view)
    parts = []
    with torch.no_grad():
        for seed in range(200):
            which = choose(2, 64, 16, random.seeded(121, seed), x.device)
            assert all(len(row.unique()) == 16 for row in which)
            parts.append(m.residual(z, look(x, view, which=which)))
        found, whole = torch.stack(parts), m.residual(z, even)
    assert ((found.mean(0) - whole).abs() < BOUND * found.std(0) / math.sqrt(200)).all()


def test_a_pixel_is_the_mean_of_the_rays_through_its_parts():
    """Four rays a pixel are the pixels of an image of twice the size, drawn ones lie in their own parts."""
    m, fine = method(sub_pixels=2), method()
    fine.load_state_dict(m.state_dict())
    with torch.no_grad():
        m.field.density.weight.mul_(30)
        fine.field.density.weight.mul_(30)
    z, view = random.normal(2, 5, generator=random.seeded(140)), some_cameras(2)
    made, parts = m.render(*m.split(z), view), fine.render(*fine.split(z), view, size=16)
    for whole, part in zip(made, parts):
        torch.testing.assert_close(whole, torch.nn.functional.avg_pool2d(part, 2), atol=1e-5, rtol=1e-4)
    x = torch.zeros(2, 1, 3, 8, 8)
    drawn, even = (m.config.renderer.look(x, view[:, None], generator=g) for g in (random.seeded(141), None))
    assert drawn.directions.shape == (2, 256, 3) and drawn.jitter.shape == (2, 256, 4) and drawn.x.shape == (2, 64, 3)
    apart = (drawn.directions - even.directions).norm(dim=-1) * 8 * 1.866
    assert 0.1 < float(apart.mean()) < 0.3 and float(apart.max()) < 0.5 * math.sqrt(0.5) + 0.01
    m.step(views().batch(0, 4, 0), Losses(m))


def test_a_model_may_have_its_field_on_three_planes():
    m = method(field=TriPlane(resolution=8, channels=2, width=8, base=4, mapping=8), stop=1e-3, importance=2)
    losses = Losses(m)
    m.step(views().batch(0, 4, 0), losses)
    assert all(g is not None and g.isfinite().all() for g in losses.gradients["generator"])
    made = m.render(*m.split(random.normal(3, 5, generator=random.seeded(142))), some_cameras(3))
    assert made.x.shape == (3, 3, 8, 8) and float(made.opacity.max()) <= 1 + 1e-5


def test_views_of_an_object_share_their_latents():
    m = method(learner=LEARNERS["mcmc"], views=2, rays=0)
    assert m.config.data_needs.views == 2
    batch = views(views=2).batch(0, 4, 0)
    x, view = batch.x.unflatten(0, (2, 2)), batch.camera.unflatten(0, (2, 2))
    z = random.normal(2, 5, generator=random.seeded(122))
    look = m.config.renderer.look
    both = m.residual(z, look(x, view))
    apart = sum(m.residual(z, look(x[:, i : i + 1], view[:, i : i + 1])) for i in range(2))
    torch.testing.assert_close(both, apart)
    with pytest.raises(InputError, match="next to each other"):
        m.step(views().batch(0, 4, 0), Losses(m))


def test_each_object_keeps_its_chain():
    m = method(learner=LEARNERS["persistent"], views=2)
    before = m.kept.z.clone()
    batch = views(views=2).batch(0, 4, 0)
    m.step(batch, Losses(m))
    moved = (m.kept.z != before).any(1)
    assert moved.nonzero().flatten().tolist() == sorted(batch.item.unique().tolist())
    assert torch.equal(m.kept.moments[:, -1] > 0, moved)
    with pytest.raises(InputError, match="object number 5"):
        small = method(learner=LEARNERS["persistent"], chains=5)
        small.step(ViewBatch(batch.x, None, batch.camera, torch.tensor([0, 1, 2, 5])), Losses(small))


def test_kept_chains_begin_where_the_inference_network_says():
    slow = LatentAdam(steps=1, rate=1e-4)
    m = method(learner=SemiAmortized(chains=6, posterior_chain=slow, inference=InferenceNet(widths=(8,), blocks=(0,))), views=2)
    batch = views(views=2).batch(0, 4, 0)
    heads = m._heads(batch.x, batch.camera[:, None])
    mean, log = (torch.cat(parts, 1).unflatten(0, (2, 2)) for parts in zip(*(heads[name].chunk(2, 1) for name in ("appearance", "shape"))))
    rows, before = batch.item[::2], m.kept.z.clone()
    losses = Losses(m)
    m.step(batch, losses)
    kept = m.kept.z[rows]
    torch.testing.assert_close(kept, mean.mean(1).detach(), atol=3e-4, rtol=0)
    assert torch.equal(m.kept.z[[i for i in range(6) if i not in rows.tolist()]], before[[i for i in range(6) if i not in rows.tolist()]])
    normal, kl = torch.distributions.Normal, torch.distributions.kl_divergence
    log = log.mean(1)
    std = (0.5 * log).exp()
    spread = kl(normal(kept, std), normal(0.0, 1.0)).sum(1)
    named = torch.stack([kl(normal(kept, std.detach()), normal(mean[:, v], std.detach())).sum(1) for v in range(2)]).mean(0)
    torch.testing.assert_close(losses.logged["divergence"], spread + named)
    place = [i for i, p in enumerate(losses.parameters["generator"]) if p is m.inference.heads["shape"][-1].bias]
    # of the means by their names alone
    (wanted,) = torch.autograd.grad(named.mean() / (2 * 3 * 64), m.inference.heads["shape"][-1].bias)
    dim = len(wanted) // 2
    torch.testing.assert_close(losses.gradients["generator"][place[0]][:dim], wanted[:dim])
    with torch.no_grad():
        m.kept.z[rows] = 0.3
    m.step(batch, Losses(m))
    torch.testing.assert_close(m.kept.z[rows], torch.full((2, 5), 0.3), atol=3e-4, rtol=0)


def test_latents_spread_about_kept_chains_as_their_posterior_does():
    """Of a linear generator: about its mean with 1/Λ_ii, the variances of the nearest Gaussian of independent latents (Bishop, 10.1.2)."""
    learner = SemiAmortized(
        chains=6, posterior_chain=LatentLangevin(steps=2, step=0.2, joint=True), inference=InferenceNet(widths=(8,), blocks=(0,))
    )
    m = method(learner=learner, views=2, prior=GaussianPrior())
    m.residual = lambda z, pixels: 0.5 * (z @ MIX.T - OBSERVED).square().sum(1) / STD**2
    mean, covariance = gaussian_posterior()
    wanted = 1 / torch.linalg.inv(covariance).diagonal()
    assert (covariance.diagonal() > 1.3 * wanted).any()  # which the marginal variances are not
    batch, losses = views(views=2).batch(0, 12, 0), Losses(m, only=("generator",))
    optimizer = torch.optim.Adam(m.inference.parameters(), lr=1e-2)
    kept, variances = [], []
    for i in range(300):
        m.step(batch, losses)
        for p, gradient in zip(losses.parameters["generator"], losses.gradients["generator"], strict=True):
            p.grad = gradient
        optimizer.step()
        if i >= 150:
            heads = m._heads(batch.x, batch.camera[:, None])
            kept.append(m.kept.z[batch.item].mean(0))
            variances.append(torch.cat([heads[name].detach().chunk(2, 1)[1] for name in ("appearance", "shape")], 1).exp().mean(0))
    # draws of one step go into the next: errors by blocks of 15 steps. With the chain's own draws variances are a quarter off
    ratio, place = ((torch.stack(one).unflatten(0, (10, 15)).mean(1)) for one in (variances, kept))
    ratio = (ratio / wanted).mean(1)
    bound = BOUND * float(ratio.std()) / 10**0.5
    assert abs(float(ratio.mean()) - 1) < bound < 0.15
    assert ((place.mean(0) - mean).abs() < BOUND * place.std(0) / 10**0.5 + 0.02).all()


def test_at_first_the_network_learns_alone():
    """No chain has begun, and the images' gradient reaches its means; when chains have begun it does not."""
    m = method(learner=replace(LEARNERS["semi_amortized"], alone=0.5), views=2)
    m.residual = lambda z, pixels: 1e4 * z.sum(1)
    batch, losses = views(views=2).batch(0, 4, 0), Losses(m)
    (place,) = (i for i, p in enumerate(losses.parameters["generator"]) if p is m.inference.heads["shape"][-1].bias)
    of_means = slice(0, m.config.dim_shape)
    losses.images = 31
    m.step(batch, losses)
    assert not m.kept.moments.any()
    torch.testing.assert_close(losses.gradients["generator"][place][of_means], torch.full((2,), 1e4 / (2 * 3 * 64)), rtol=0.1, atol=0)
    losses.images = 32
    m.step(batch, losses)
    assert (m.kept.moments[batch.item.unique()][:, -1] == 2).all()
    assert losses.gradients["generator"][place][of_means].abs().max() < 1


@pytest.mark.parametrize("sub_pixels", [1, 2])
def test_parts_of_the_pixels_sum_to_all_in_the_mean(sub_pixels):
    m = method(learner=LEARNERS["semi_amortized"], renderer=Rays(samples=4, importance=3, rays=6, sub_pixels=sub_pixels), views=2)
    batch, z = views(views=2).batch(0, 4, 0), random.normal(2, 5, generator=random.seeded(8))
    pixels = m._look(m._given(batch, random.seeded(9)), batch.camera.unflatten(0, (2, 2)), random.seeded(10))
    parts = [pixels.part(k, 3) for k in range(3)]
    assert sum(part.x.shape[1] for part in parts) == pixels.x.shape[1] == 12
    torch.testing.assert_close(torch.stack([m.residual(z, part) for part in parts]).mean(0), m.residual(z, pixels))


def test_the_likeliest_of_several_chains_is_taken():
    m, batch = method(learner=LEARNERS["semi_amortized"]), views(views=2).batch(0, 6, 0)
    x, view = batch.x.unflatten(0, (3, 2)), batch.camera.unflatten(0, (3, 2))

    def misfit(restarts: int) -> Tensor:
        found = m.infer(x, view, rays=0, restarts=restarts)
        assert found.camera.shape == (3, 2, 3, 5) and torch.equal(found.camera, view)
        return m.posterior_energy(torch.cat(found[:2], 1), m.config.renderer.look(x, view)).detach()

    one, several = misfit(1), misfit(6)
    assert (several <= one + 1e-3).all() and (several < one - 1e-3).any()


def test_unknown_poses_are_learned_through_the_rays():
    m = method(poses="unknown")
    losses = Losses(m)
    m.step(Batch(views().batch(0, 4, 0).x), losses)
    for head in ("altitude", "azimuth"):
        places = [i for i, p in enumerate(losses.parameters["generator"]) if p is m.inference.heads[head][-1].weight]
        assert losses.gradients["generator"][places[0]].abs().min() > 0, "direction and concentration"
    found = m.infer(views().batch(0, 3, 0).x)
    torch.testing.assert_close(found.camera[:, 0, :, 3].norm(dim=1), torch.full((3,), 4.0))


def test_the_likeliest_pose_is_taken_and_learned():
    """Images that the model itself drew from above: the camera that is found shows them better than others, and heads turn to it."""
    m = method(poses="unknown", pose_search=PoseSearch(candidates=60), rays=0)
    with torch.no_grad():
        m.field.density.weight.mul_(30)  # a shape with sides
    m.field.requires_grad_(False)
    x = views().batch(0, 6, 0).x
    z = torch.cat([inference.gaussian(m._heads(x)["appearance"])[0], torch.zeros(6, 2)], 1)
    told = m._heads(x)
    m._heads = lambda _: told  # the inference network is shown other images
    vectors = [camera.unit_vector(torch.linspace(low, high, 6)) for low, high in ((0.2, 0.9), (0.0, 5.0))]
    truth = camera.orbit(*vectors, distance=4.0, focal=m.optics.focal)
    drawn = m.render(*m.split(z), truth).x.detach()[:, None]
    which = choose(6, 64, 0, random.seeded(1), torch.device("cpu"))
    given = Given(drawn, None, None, None, which)
    (found, cameras, _, divergence), loss = m._by_search(given, given, True, Losses(m))
    assert not m.split(found)[1].any() and divergence.shape == loss.shape == (6,)

    def miss(camera: Tensor) -> Tensor:
        return m.residual(found, m.config.renderer.look(drawn, camera, which=which[:, : poses.PIXELS]))

    best = miss(cameras)
    for seed in range(8):
        angles = [random.uniform(6, high=high, generator=random.seeded(3, seed, i)) for i, high in enumerate((1.0, 6.28))]
        assert float((best < miss(camera.orbit(*map(camera.unit_vector, angles), distance=4.0, focal=1.866)[:, None])).float().mean()) > 0.6
    gradients = torch.autograd.grad(loss.sum(), m.inference.heads["azimuth"][-1].weight)[0]
    assert gradients[:2].abs().min() > 0 and gradients[2].abs().min() > 0, "direction and concentration"


def test_at_first_shapes_are_alike_and_priors_wait():
    m, x = method(poses="unknown", pose_search=PoseSearch(candidates=3, same_shape=0.25)), views().batch(0, 4, 0).x
    early, late = Losses(m), Losses(m)
    late.images = 16  # of 64
    for losses in (early, late):
        m.step(Batch(x), losses)
    assert set(early.values) == {"generator"} and set(late.values) == {"appearance", "shape", "generator"}
    heads = [i for i, p in enumerate(early.parameters["generator"]) if p is m.inference.heads["shape"][-1].weight]
    assert early.gradients["generator"][heads[0]] is None and late.gradients["generator"][heads[0]].abs().max() > 0


def test_at_first_images_are_silhouettes():
    """The generator is compared with black on white, the inference network sees the images; later both see these."""
    m, batch = method(poses="unknown", pose_search=PoseSearch(candidates=2, silhouettes=0.25), rays=0), views().batch(0, 4, 0)
    batch = batch._replace(x=torch.where(batch.x > 0, 1.0, batch.x))
    seen, told, search = [], [], m._by_search
    m._by_search = lambda given, outlines, *rest: seen.append(outlines.x) or told.append(given.x) or search(given, outlines, *rest)
    early, late = Losses(m), Losses(m)
    late.images = 16  # of 64
    for losses in (early, late):
        m.step(batch, losses)
    covered = (batch.x < 0.9).any(1, keepdim=True)
    assert 0.1 < float(covered.float().mean()) < 0.99
    torch.testing.assert_close(seen[0][:, 0], torch.where(covered, -1.0, 1.0).expand(-1, 3, -1, -1))
    assert torch.equal(told[0][:, 0], batch.x) and torch.equal(seen[1][:, 0], batch.x)


BALLS = (((0.0, 0.0, -0.1), 0.45), ((0.65, 0.0, 0.1), 0.3), ((0.0, 0.55, -0.35), 0.22))  # which have no symmetry


def test_kept_poses_are_found_with_the_shape():
    """Of one object from 60 sides, from silhouettes alone, up to one rotation and mirror; shuffled poses have 0.18."""
    angles = [random.uniform(60, high=high, generator=random.seeded(180, i)) for i, high in enumerate((1.0, 6.28))]
    view = camera.orbit(*map(camera.unit_vector, angles), distance=4.0, focal=1.866)
    origins, directions = camera.rays(view, 12, 12)
    hit = sum(torch.linalg.cross(origins - torch.tensor(at), directions).norm(dim=-1) < radius for at, radius in BALLS) > 0
    x = torch.where(hit.view(60, 1, 12, 12), torch.tensor([200, 30, 30])[:, None, None], 255).to(torch.uint8)
    search = PoseSearch(candidates=12, side=6, kept=60, same_shape=1.0, silhouettes=1.0, even=0.3)
    m = method(
        shape=(3, 12, 12), field=TriPlane(resolution=8, channels=4, width=16, base=8, mapping=8, mapping_layers=1), prior=GaussianPrior(),
        renderer=Rays(samples=6, rays=72), poses="unknown", pose_search=search, batch=12, images=12 * 140, lr_generator=1e-2,
    )  # fmt: skip
    trained = tw.fit(m, Views(x, view, torch.arange(60)), progress=False)
    window, found = math.radians(30), 0
    for sign in (1, -1):
        turn = torch.remainder(sign * trained.candidates.angles[:, 0, 1] - angles[1], 2 * math.pi)
        found = max(found, *(int((torch.remainder(turn - first, 2 * math.pi) <= window).sum()) for first in turn))
    assert found > 0.6 * 60


def test_frequencies_come_in_over_a_share_of_training():
    m, losses = method(**{"field.annealing": 0.5}), None
    for images, wanted in ((0, 0.0), (16, 0.5), (48, 1.0)):
        losses = Losses(m)
        losses.images = images
        m.step(views().batch(0, 4, 0), losses)
        assert float(m.field.revealed) == pytest.approx(wanted)


# --- use


@pytest.mark.parametrize("learner", LEARNERS)
def test_runs_resume_bit_equal_and_load_equal(learner, tmp_path):
    several = 2 if learner in ("persistent", "semi_amortized") else 1
    data, held_out = views(views=several), views().all()
    fields = dict(learner=LEARNERS[learner], views=several, images=32)
    whole = tw.fit(method(**fields), data, tmp_path / "whole", held_out=held_out, save_every=8, progress=False)
    tw.fit(method(**fields), data, tmp_path / "broken", images=16, held_out=held_out, save_every=8, progress=False)
    resumed = tw.fit(method(**fields), data, tmp_path / "broken", held_out=held_out, save_every=8, progress=False)
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values()):
        assert torch.equal(a, b), name
    assert torch.equal(tw.load(tmp_path / "broken").sample(2, seed=3), whole.sample(2, seed=3))
    tw.save_pretrained(whole, tmp_path / "exported")
    assert torch.equal(tw.from_pretrained(tmp_path / "exported").sample(2, seed=3), whole.sample(2, seed=3))


def test_training_fits_a_red_ball():
    """One shape in one colour: after a short run the silhouette and the colour are there, from a side never seen too."""
    vectors = [camera.unit_vector(random.uniform(40, high=h, generator=random.seeded(123, i))) for i, h in enumerate((1.0, 6.28))]
    view = camera.orbit(*vectors, distance=4.0, focal=1.866)
    origins, directions = camera.rays(view, 8, 8)
    hit = (torch.linalg.cross(origins, directions).norm(dim=-1) < 0.7).view(40, 1, 8, 8)
    x = torch.where(hit, torch.tensor([255, 0, 0])[:, None, None], 255).to(torch.uint8)
    data = Views(x[:36], view[:36], torch.arange(36))
    fields = {"field.width": 16, "posterior_chain.steps": 1, "samples": 12, "rays": 0}
    m = method(learner=LEARNERS["mcmc"], batch=6, images=6 * 120, lr_generator=2e-2, ema=0.9, **fields)
    trained = tw.fit(m, data, progress=False)
    made = trained.render(torch.zeros(4, 3), torch.zeros(4, 2), view[36:])
    error = (made.x - (x[36:] / 127.5 - 1)).square().mean()
    assert float(error) < 0.1, "all white: 0.5 and more"
    assert float(made.opacity[hit[36:]].mean()) > 0.8 and float(made.opacity[~hit[36:]].mean()) < 0.2


def test_samples_are_fixed_by_seed_and_camera():
    m, view = method(), some_cameras(2)
    assert torch.equal(m.sample(3, seed=1), m.sample(3, seed=1)) and not torch.equal(m.sample(3, seed=1), m.sample(3, seed=2))
    assert m.sample(2, camera=view).shape == (2, 3, 8, 8) and float(m.sample(2, camera=view[0]).abs().max()) <= 1
    assert torch.equal(m.sample(2, camera=view[0]), m.sample(2, camera=view[:1].expand(2, 3, 5)))
    with pytest.raises(InputError, match="camera must be"):
        m.sample(2, camera=view[:, :, :4])


def test_a_model_says_what_it_can_and_how_it_sees():
    m = method(near=2.5, far=4.5, focal=1.2)
    assert m.abilities == {"sample", "views", "cameras"} and method(poses="unknown").abilities == {"sample", "views"}
    assert m.optics == (3.5, 2.5, 4.5, 1.2)
    torch.testing.assert_close(m.cameras[:, :, 3].norm(dim=1), torch.full((512,), 3.5))


def test_pictures_do_not_depend_on_their_company():
    m = method(chunk=100)
    z_a, z_s = random.normal(3, 3, generator=random.seeded(124)), random.normal(3, 2, generator=random.seeded(125))
    together, alone = m.render(z_a, z_s, some_cameras(3)), m.render(z_a[:1], z_s[:1], some_cameras(3)[:1])
    for a, b in zip(together, alone):
        torch.testing.assert_close(a[:1], b, atol=1e-5, rtol=1e-4)
    assert together.depth.min() >= 3 - 1e-4 and together.depth.max() <= 5 + 1e-4
    assert m.render(z_a, z_s, some_cameras(3), size=12).x.shape == (3, 3, 12, 12)


def test_new_views_and_completions_have_their_shapes():
    m, batch = method(learner=LEARNERS["mcmc"]), views(views=2).masked(0.3, seed=1).batch(0, 4, 0)
    x, view = batch.x.unflatten(0, (2, 2)), batch.camera.unflatten(0, (2, 2))
    assert m.novel_views(x, view, some_cameras(6).unflatten(0, (2, 3))).x.shape == (6, 3, 8, 8)
    filled = m.complete(batch.x, batch.camera, batch.visible)
    kept = batch.visible.expand_as(filled)
    assert torch.equal(filled[kept], batch.x[kept]) and not torch.equal(filled, batch.x)
    noise = torch.where(kept, batch.x, -batch.x)
    assert torch.equal(m.complete(noise, batch.camera, batch.visible)[~kept], filled[~kept]), "what is missing is not looked at"
    amortized = method()
    assert amortized.infer(x, view).appearance.shape == (2, 3)
    assert not torch.equal(amortized.infer(x, view, steps=2).appearance, amortized.infer(x, view).appearance)


def test_chains_move_alike_in_bf16():
    m, batch = method(**{"infer_chain.rate": 0.05}), views().batch(0, 4, 0)
    for steps in (0, 1, 3):
        exact = m.infer(batch.x, batch.camera, steps=steps, rays=0).appearance
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = m.infer(batch.x, batch.camera, steps=steps, rays=0).appearance
        assert rough.dtype == torch.float32
        torch.testing.assert_close(rough, exact, atol=0.02 + 0.02 * steps, rtol=0)
        if steps:
            # Adam without noise: each of its first steps is about 0.05 long, whatever the gradient
            with torch.autocast("cpu", dtype=torch.bfloat16):
                start = m.infer(batch.x, batch.camera, steps=0).appearance
            assert (rough - start).abs().mean() > 0.02


def test_uniform_latents_stay_in_their_box():
    m = method(learner=LEARNERS["mcmc"], reference="uniform", **{"posterior_chain.rate": 3.0})
    m.step(views().batch(0, 4, 0), Losses(m))
    assert all(float(part.abs().max()) <= 1 for part in m.draw_prior(50, random.seeded(126), steps=5))
    found = m.infer(views().batch(0, 4, 0).x, views().batch(0, 4, 0).camera, steps=5)
    assert float(torch.cat(found[:2], 1).abs().max()) <= 1


def test_a_gaussian_prior_has_nothing_to_learn():
    m = method(prior=GaussianPrior())
    assert list(m.optimizers()) == ["generator"]
    losses = Losses(m)
    m.step(views().batch(0, 4, 0), losses)
    assert list(losses.values) == ["generator"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(shape=(1, 8, 8)), "colour images"),
        (dict(near=5.0, far=4.0), "far must be above near"),
        (dict(reference="uniform"), "needs reference = 'normal'"),
        (dict(learner=SemiAmortized(parts=7)), "looks at 6 pixels of an object, which are no 7 parts"),
        (dict(views=2), "views = 2 needs"),
        (dict(learner=LEARNERS["mcmc"], poses="unknown"), "inferred by learner = 'amortized'"),
        ({"poses": "unknown", "pose_search.same_shape": 0.1}, r"no field 'pose_search\.same_shape'"),
        (dict(pose_search=PoseSearch(candidates=4)), "pose_search is for poses = 'unknown'"),
        (dict(learner=LEARNERS["mcmc"], views=3), "does not divide"),
        ({"inference": dict(blocks=(1,))}, "differ in length"),
        (dict(octaves_view=9), "octaves_view"),
        ({"learner": LEARNERS["mcmc"], "posterior_chain.steps": 0}, "posterior_chain.steps of 1 or more"),
        ({"learner": LEARNERS["persistent"], "infer_chain.steps": 0}, "infers by chains alone"),
    ],
)
def test_settings_that_do_not_go_together(fields, message):
    with pytest.raises(InputError, match=message):
        method(**fields)


def test_wrong_input_is_named():
    m, batch = method(), views().batch(0, 2, 0)
    with pytest.raises(InputError, match="needs images with cameras"):
        m.step(Batch(batch.x), Losses(m))
    with pytest.raises(InputError, match="infer needs images"):
        m.infer(batch.x[:, :, :4], batch.camera)
    with pytest.raises(InputError, match="give cameras"):
        m.infer(batch.x)
    with pytest.raises(InputError, match="give none"):
        method(poses="unknown").infer(batch.x, batch.camera)
    with pytest.raises(InputError, match="cameras must be"):
        m.infer(batch.x, batch.camera[:1])
