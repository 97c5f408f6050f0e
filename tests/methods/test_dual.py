"""dual: exact on Gaussian data, stationary at the truth, normalised, and three ways to one log-likelihood."""

import math

import pytest
import torch
from helpers import Gaussians, Recorder
from torch import Tensor

import thalweg as tw
from thalweg import diffusion, random
from thalweg.augmentation import Shifts
from thalweg.data.base import Batch
from thalweg.errors import InputError
from thalweg.tasks import coverage, estimate_noise, inpaint, intrinsic_dimension
from thalweg.trace import Trace

BOUND = 4.5  # standard errors


def model(d: int, **fields):
    return tw.method("dual/vectors", shape=(d,), **{"net.width": 32, "net.depth": 2, "waves": 1, "sigma_max": 10.0} | fields)


def gaussian(d: int, **fields) -> tuple:
    """A model that was told of the mean and the deviations of Gaussian data, and these."""
    method, g = model(d, **fields), random.seeded(d)
    mean, std = random.normal(d, generator=g), 0.3 + random.uniform(d, generator=g)
    tilt = method.tilt
    for buffer, value in ((tilt.mean, mean), (tilt.covariance, std.square()), (tilt.fitted, torch.tensor(True))):
        buffer.copy_(value)
    tilt._decompose()
    return method, mean, std, g


def noised_energy(y: Tensor, mean: Tensor, std: Tensor, sigma: float) -> Tensor:
    variance = (std.square() + sigma**2).double()
    return 0.5 * ((y - mean).double().square() / variance + (2 * math.pi * variance).log()).sum(1)


def widen(method, by: float) -> None:
    method.tilt.std.mul_(by)
    method.tilt.variance.mul_(by**2)


def disturbed(method, by: float = 0.02):
    """The same model with weights that are not zero."""
    g = random.seeded(9)
    with torch.no_grad():
        for p in method.net.parameters():
            p.add_(by * torch.randn(p.shape, generator=g))
    return method


# --- exact on Gaussian data


@pytest.mark.parametrize("d", [2, 20, 200])
@pytest.mark.parametrize("sigma", [0.03, 0.5, 10.0])
def test_an_untrained_model_is_exact_on_gaussian_data(d, sigma):
    method, mean, std, g = gaussian(d)
    y = mean + (std.square() + sigma**2).sqrt() * random.normal(64, d, generator=g)
    exact = noised_energy(y, mean, std, sigma)
    assert torch.allclose(method.energy(y, sigma=sigma).double(), exact, rtol=1e-5, atol=1e-4)
    score = tw.energy.score(method.energy, y, sigma=sigma)
    assert torch.allclose(score, -(y - mean) / (std.square() + sigma**2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("d", [2, 50, 200])
def test_training_on_gaussian_data_stays_exact(d):
    method, mean, std, _ = gaussian(d, images=256 * 400, batch=256, lr=1e-3)
    data = Gaussians([[0.0] * d], 1.0)
    data.batch = lambda start, count, seed: Batch(mean + std * random.normal(count, d, generator=random.seeded(seed, start)))
    trained = tw.fit(method, data, progress=False)
    x = mean + std * random.normal(1000, d, generator=random.seeded(6))
    gap = trained.energy(x).detach().double() - noised_energy(x, mean, std, 0.03)
    assert abs(float(gap.mean())) < 0.01 * d and float(gap.std()) < 0.12 * math.sqrt(d)


def test_both_terms_are_stationary_at_the_truth():
    """The gradients of each loss by all weights vanish on average where the energy is exact: here by 40 batches, with their errors."""
    method, mean, std, g = gaussian(3)
    weights = [method.net.net.last.weight, method.net.net.last.bias]  # all others' gradients are zero, as these are
    drawn: dict[str, list[Tensor]] = {"score": [], "time": []}
    for _ in range(40):
        x = mean + std * random.normal(512, 3, generator=g)
        score, time, _ = method.losses(x, method.draw_levels(512, g), random.normal(512, 3, generator=g))
        for name, loss in (("score", score), ("time", time)):
            parts = torch.autograd.grad(loss.mean(), weights, retain_graph=True)
            drawn[name].append(torch.cat([p.flatten() for p in parts]))
    for name, found in drawn.items():
        rows = torch.stack(found)
        error = rows.std(0) / math.sqrt(len(rows))
        assert float((rows.mean(0).abs() / error.clamp_min(1e-12)).max()) < BOUND + 0.5, name
        assert float(error.max()) > 0


def test_a_model_that_is_too_wide_is_pulled_at():
    """What the test before sees where the energy is wrong: the average gradient is many standard errors away from zero."""
    method, mean, std, g = gaussian(3)
    widen(method, 1.5)
    for part in (0, 1):
        drawn = []
        for _ in range(20):
            x = mean + std * random.normal(512, 3, generator=g)
            losses = method.losses(x, method.draw_levels(512, g), random.normal(512, 3, generator=g))
            drawn.append(torch.autograd.grad(losses[part].mean(), method.net.net.last.weight)[0].flatten())
        rows = torch.stack(drawn)
        error = rows.std(0) / math.sqrt(len(rows))
        assert float((rows.mean(0).abs() / error.clamp_min(1e-12)).max()) > 1.5 * BOUND


@pytest.mark.parametrize("net", ["mlp", "patch_unet", "unet"])
def test_the_slope_in_log_sigma_is_that_of_finite_differences(net):
    shape = (6,) if net == "mlp" else (1, 8, 8)
    method = disturbed(tw.method("dual/vectors", shape=shape, net=net))
    y = random.normal(5, *shape, generator=random.seeded(1))
    with torch.no_grad():
        low, high = (method.energy(y, sigma=0.7 * math.exp(h)).double() for h in (-0.02, 0.02))
    found = method.slopes(y, sigma=0.7)[2].double()
    assert torch.allclose(found, (high - low) / 0.04, rtol=1e-2, atol=5e-3) and float(found.std()) > 0.01


def test_slopes_by_x_and_by_log_sigma_are_of_one_call():
    method = disturbed(gaussian(4)[0])
    y, level = random.normal(8, 4, generator=random.seeded(2)), torch.linspace(-2, 2, 8)
    value, (by_y, _) = method._slopes(y, level)
    assert torch.allclose(value, method.tilted(y, level))
    assert torch.allclose(by_y, -tw.energy.score(method.energy, y, sigma=level.exp()), atol=1e-5)


# --- learned densities


@pytest.fixture(scope="module")
def far():
    """Two Gaussians 8 apart with weights 0.8 and 0.2, which scores alone cannot weigh, learned in seconds."""
    g = random.seeded(3)
    x = 0.5 * random.normal(20_000, 2, generator=g)
    x[:, 0] += torch.where(random.uniform(20_000, generator=g) < 0.8, -4.0, 4.0)
    method = tw.method("dual/vectors", shape=(2,), images=512 * 1200, **{"net.width": 64, "sigma_max": 12.0})
    return tw.fit(method, tw.data.Table(x, standardise=False), progress=False)


def mass(energy, low: float, high: float) -> float:
    across, up = torch.linspace(low, high, 300), torch.linspace(-4, 4, 200)
    points = torch.cartesian_prod(across, up)
    cell = float((across[1] - across[0]) * (up[1] - up[0]))
    with torch.no_grad():
        return float((-energy(points).double()).exp().sum()) * cell


def test_far_modes_get_their_weights_and_the_whole_its_mass(far):
    left, right = mass(far.energy, -8.0, 0.0), mass(far.energy, 0.0, 8.0)
    assert left + right == pytest.approx(1.0, abs=0.06)
    assert left / (left + right) == pytest.approx(0.8, abs=0.03)


def test_three_ways_lead_to_one_log_likelihood(far):
    x = far.sample(256, seed=4, steps=100)
    own = -far.energy(x).detach()
    flow = far.flow_log_prob(x, probes=0)
    log_z = math.log(mass(far.energy, -8.0, 8.0))
    # whatever the density's own errors, its flow is normalised and its energy is so to log Z
    assert float((flow - own).mean()) == pytest.approx(-log_z, abs=0.15)
    bounds = tw.evaluate.level_bounds(far.energy, far.base, diffusion.sigmas(200, 0.03, 12.0), x=x, walks=256)
    assert bounds.lower.low < log_z < bounds.upper.high
    assert abs(bounds.estimate.value - log_z) < BOUND * bounds.estimate.standard_error + 0.02


def test_bounds_come_together_as_levels_grow_and_sooner_if_they_are_even():
    """Of an exact energy, so that the walks' steps are all that parts them."""
    method, g = model(50, sigma_min=0.002, sigma_max=20.0), random.seeded(1)
    method.prepare(torch.logspace(-1.5, 0, 50) * random.normal(2000, 50, generator=g))
    x = method.gaussian.sample(128, generator=g)
    x = x + 0.002 * random.normal_like(x, g)

    def gap(n: int, curve: float) -> float:
        return tw.evaluate.level_bounds(method.energy, method.base, diffusion.sigmas(n, 0.002, 20.0, curve=curve), x=x, walks=64).gap

    curved, even, finer = gap(50, 7.0), gap(50, math.inf), gap(200, math.inf)
    assert even < 0.8 * curved
    assert finer == pytest.approx(even / 4, rel=0.2)
    assert diffusion.sigmas(2, 1.0, 4.0, curve=math.inf) == [4.0, 2.0, 1.0]


@pytest.mark.parametrize("sampler", ["diffusion", "flow", "langevin", "mala"])
def test_every_sampler_draws_from_the_density(far, sampler):
    x = far.sample(2000, sampler=sampler, seed=1)
    left = float((x[:, 0] < 0).float().mean())
    error = math.sqrt(0.8 * 0.2 / 2000)
    assert abs(left - 0.8) < BOUND * error + 0.04
    near = x[x[:, 0] < 0]
    assert float(near.mean(0)[0]) == pytest.approx(-4.0, abs=0.08) and float(near.std(0).mean()) == pytest.approx(0.5, abs=0.05)


def test_mala_reports_its_acceptance(far):
    trace = Trace()
    far.sample(64, sampler="mala", trace=trace)
    assert trace.acceptance.shape == (64,) and 0.3 < float(trace.acceptance.mean()) <= 1


def test_a_product_of_models_is_drawn_by_chains_at_each_level(far):
    """p(x) N(x; (4, 0), 1)/Z keeps the far, lighter mode."""

    def tilted(y, *, sigma):
        return far.energy(y, sigma=sigma) + (y - torch.tensor([4.0, 0.0])).square().sum(1) / (2 * (1 + sigma**2))

    x = far.sample(500, energy=tilted, corrections=20, seed=2)
    assert float((x[:, 0] > 0).float().mean()) > 0.98
    # of N(4, 0.25) N(4, 1): variance 0.2
    assert float(x.std(0).mean()) == pytest.approx(math.sqrt(0.2), rel=0.15)


def test_a_start_fixes_a_sample_and_is_found_again(far):
    x = far.sample(64, seed=5)
    start = far.invert(x, steps=200)
    again = far.sample(64, start=start, sampler="flow", steps=200)
    assert float((again - x).abs().mean()) < 0.02


def test_denoising_is_the_posterior_mean_of_gaussian_data():
    method, mean, std, g = gaussian(5)
    y = mean + random.normal(16, 5, generator=g)
    weight = std.square() / (std.square() + 0.25)
    assert torch.allclose(method.denoise(y, 0.5), mean + weight * (y - mean), atol=1e-4)


def test_the_level_of_noise_is_found_by_likelihood():
    method, mean, std, g = gaussian(200)
    x = mean + std * random.normal(32, 200, generator=g)
    for sigma in (0.2, 1.0, 3.0):
        found = estimate_noise(method, x + sigma * random.normal(32, 200, generator=g))
        assert float(found.median()) == pytest.approx(sigma, rel=0.15)


def test_the_slope_counts_directions():
    """Of 12 coordinates 5 have no room: at σ between, 7 directions are left."""
    method, _, _, _ = gaussian(12)
    method.tilt.variance.copy_(torch.tensor([1.0] * 7 + [1e-8] * 5))
    found = intrinsic_dimension(method, method.tilt.mean.expand(3, 12), 0.03)
    assert torch.allclose(found, torch.full((3,), 7.0), atol=0.1)


# --- labels


def test_classes_are_compared_at_the_level_that_the_config_says():
    method = disturbed(model(3, classes=4, conditional=True, class_sigma=1.0), by=0.3)
    x = random.normal(5, 3, generator=random.seeded(2))
    at_one, lowest = method.classify(x, sigma=1.0), method.classify(x, sigma=method.config.sigma_min)
    assert torch.equal(method.classify(x), at_one) and not torch.allclose(at_one, lowest, atol=1e-3)


def test_labels_condition_classify_and_guide():
    data = Gaussians([[-2.0, 0.0], [2.0, 1.0]], 0.5)
    method = tw.method("dual/vectors", data=data, conditional=True, images=512 * 600, **{"net.width": 64})
    trained = tw.fit(method, data, progress=False)
    for label, mean in enumerate(data.means):
        for w in (1.0, 2.0):
            x = trained.sample(400, label=label, guidance=w, seed=1)
            assert float((x.mean(0) - mean).abs().max()) < 0.25, f"guidance {w}"
    batch = data.batch(0, 500, 1)
    assert float((trained.classify(batch.x).argmax(1) == batch.label).float().mean()) > 0.98
    both = trained.energy(batch.x)
    mixed = -torch.stack([-trained.energy(batch.x, label=k) for k in (0, 1)]).logsumexp(0) + math.log(2)
    assert float((both - mixed).abs().mean()) < 0.25


def test_each_label_s_density_is_normalised():
    """The middle class has another spread than the Gaussian that is tilted, which is that of all."""
    data = Gaussians([[-3.0, 0.0], [0.0, 0.0], [3.0, 0.0]], 0.5)
    method = tw.method("dual/vectors", data=data, conditional=True, images=512 * 700, **{"net.width": 64})
    trained = tw.fit(method, data, progress=False)
    for label in range(3):
        found = mass(lambda x, label=label: trained.energy(x, label=label), -7.0, 7.0)
        assert found == pytest.approx(1.0, abs=0.12), label


def test_without_dropped_labels_there_is_no_marginal():
    data = Gaussians([[-2.0, 0.0], [2.0, 1.0]], 0.5)
    method = tw.method("dual/vectors", data=data, conditional=True, label_dropping=0.0)
    with pytest.raises(InputError, match="label"):
        method.energy(torch.zeros(2, 2))
    with pytest.raises(InputError, match="guidance must be 1"):
        method.sample(2, label=0, guidance=2.0)


# --- levels, options, pictures


def test_levels_are_stratified_and_lie_where_they_should():
    method = model(2, focus=0.5, focus_sigma=0.4, focus_spread=0.5)
    drawn = method.draw_levels(4000, random.seeded(1))
    assert float(drawn.exp().min()) >= 0.03 * 0.999 and float(drawn.exp().max()) <= 10.0 * 1.001
    near = ((drawn - math.log(0.4)).abs() < 0.5).float().mean()
    span = math.log(10 / 0.03)
    assert float(near) == pytest.approx(0.5 * 0.683 + 0.5 / span, abs=0.02)
    uniform = model(2, focus=0.0).draw_levels(1000, random.seeded(1)).sort()[0]
    even = torch.linspace(math.log(0.03), math.log(10.0), 1001)[:-1]
    assert float((uniform - even).abs().max()) < 2 * span / 1000


def test_the_level_loss_is_least_at_the_truth():
    method, mean, std, g = gaussian(3)
    x = mean + std * random.normal(4000, 3, generator=g)
    at_truth = float(method.level_loss(x, *method.draw_several(x, random.seeded(1))).detach().mean())
    widen(method, 2.0)
    assert float(method.level_loss(x, *method.draw_several(x, random.seeded(1))).detach().mean()) > at_truth + 0.01
    assert 0 < at_truth < math.log(4)


def test_the_level_loss_is_an_option_of_late_training():
    data = Gaussians([[0.0, 0.0]], 1.0)
    method, update = tw.method("dual/vectors", data=data, level_weight=0.1, level_start=0.5, images=1000), Recorder(1)
    for images, wanted in ((0, False), (600, True)):
        update.images, update.logged = images, {}
        method.step(data.batch(0, 32, 0), update)
        assert ("level_loss" in update.logged) is wanted


def test_a_loop_of_ones_own_fits_the_gaussian_once():
    data = Gaussians([[3.0, -1.0]], 0.4)
    update = tw.update(tw.method("dual/vectors", data=data))
    for start in (0, 512):
        update.step(data.batch(start, 512, 0))
    first = data.batch(0, 512, 0).x
    assert torch.allclose(update.ema.tilt.mean, first.mean(0)) and torch.allclose(update.method.tilt.std, first.std(0, correction=0))


def small_pictures(**fields):
    x = random.uniform(64, 1, 8, 8, low=-1, high=1, generator=random.seeded(2))
    method = tw.method("dual/fashion-mnist", data=x, net="patch_unet", **{"net.width": 8, "net.deep_width": 8, "net.blocks": 1} | fields)
    return tw.fit(method, x, images=128, batch=32, progress=False), x


def test_pictures_are_dequantised_sampled_and_filled_in():
    trained, x = small_pictures()
    drawn = trained.sample(3, steps=5)
    assert drawn.shape == (3, 1, 8, 8) and float(drawn.abs().max()) <= 1
    noise = random.uniform(*x.shape, generator=random.seeded(1))
    assert float((trained.dequantise(x, noise) - x).abs().max()) <= trained.bin_width / 2
    mask = torch.zeros(8, 8)
    mask[:, :4] = 1
    for options in ({}, {"corrections": 2}, {"sampler": "langevin", "corrections": 2}):
        filled = inpaint(trained, x[:2], mask, completions=3, steps=5, **options)
        assert torch.equal(filled[..., :4], x[:2][None].expand(3, -1, -1, -1, -1)[..., :4])
    share = coverage(filled, x[:2], mask)
    assert share.shape == (2,) and bool(((share >= 0) & (share <= 1)).all())


def test_coverage_of_draws_of_the_truth_is_the_nominal_one():
    g = random.seeded(4)
    completions, x = torch.rand(4, 50, 1, 8, 8, generator=g), torch.rand(50, 1, 8, 8, generator=g)
    mask = torch.zeros(8, 8)
    mask[0] = 1
    error = math.sqrt(0.6 * 0.4 / (50 * 56))
    assert abs(float(coverage(completions, x, mask).mean()) - 3 / 5) < BOUND * error


def test_the_same_seed_gives_the_same_samples(far):
    assert torch.equal(far.sample(4, seed=1), far.sample(4, seed=1))
    assert not torch.equal(far.sample(4, seed=1), far.sample(4, seed=2))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # raised inside torch's own compiler
def test_the_compiled_loss_is_the_plain_one():
    method, mean, std, g = gaussian(4)
    disturbed(method)
    x, z, level = mean + std * random.normal(16, 4, generator=g), random.normal(16, 4, generator=g), method.draw_levels(16, g)
    compiled = torch.compile(method.losses, dynamic=False)
    plain, fast = method.losses(x, level, z), compiled(x, level, z)
    for a, b in zip(plain, fast):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)
    weights = list(method.net.parameters())
    slow, quick = (torch.autograd.grad((s.mean() + t.mean()), weights, allow_unused=True) for s, t, _ in (plain, fast))
    for a, b in zip(slow, quick):
        assert (a is None and b is None) or torch.allclose(a, b, rtol=1e-3, atol=1e-5)


def test_a_full_covariance_is_that_of_the_data_and_stored_once(tmp_path):
    g = random.seeded(8)
    mix = random.normal(16, 16, generator=g) / 4
    x = (random.normal(5000, 16, generator=g) @ mix).view(5000, 1, 4, 4)
    method = tw.method("dual/vectors", shape=(1, 4, 4), reference="full", net="mlp", **{"net.width": 8, "waves": 0})
    method.prepare(x)
    flat = x.flatten(1).double()
    law = torch.distributions.MultivariateNormal(flat.mean(0), flat.T.cov(correction=0) + 0.25 * torch.eye(16))
    assert torch.allclose(method.energy(x[:20], sigma=0.5).double(), -law.log_prob(flat[:20]), rtol=1e-4, atol=1e-3)
    tw.save(method, tmp_path / "m")
    again = tw.load(tmp_path / "m")
    assert torch.allclose(again.energy(x[:20]), method.energy(x[:20]), rtol=1e-4, atol=1e-3)
    assert "tilt.basis" not in method.state_dict() and again.tilt.covariance.numel() == 16 * 17 // 2
    start = random.normal(3, 1, 4, 4, generator=g)
    assert torch.allclose(method.base.noise_of(method.base.of_noise(start)), start, atol=1e-4)


def test_a_step_takes_the_compiled_losses(monkeypatch):
    from thalweg.methods import dual

    asked, update = [], Recorder(1)
    update.images = 1
    monkeypatch.setattr(dual, "compiled_losses", lambda losses, name: asked.append(losses) or losses)
    method = model(2, compile=True, level_weight=0.1, level_start=0.0)
    method.step(Batch(torch.randn(16, 2, generator=random.seeded(1))), update)
    assert asked == [method.losses, method.level_loss]


def test_a_step_sees_augmented_images(monkeypatch):
    seen, x = [], torch.rand(4, 1, 8, 8, generator=random.seeded(3)) * 2 - 1
    method = tw.method("dual/digits", classes=0, grey_values=0, augmentation=Shifts(flip=1.0, shift=0), **{"net.width": 8})
    monkeypatch.setattr(method, "losses", lambda given, *rest: seen.append(given) or (given.new_ones(4, requires_grad=True),) * 3)
    method.step(Batch(x), Recorder(1))
    assert torch.equal(seen[0], x.flip(3))


# --- wrong input


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"sigma_min": 2.0, "sigma_max": 1.0}, "sigma_min must be below sigma_max"),
        ({"conditional": True}, "needs data with labels"),
        ({"class_sigma": 50.0}, "class_sigma must be 0 or from"),
        ({"grey_values": 1}, "grey_values must be 2 or more"),
        ({"augmentation": Shifts()}, "augmentation is for images"),
    ],
)
def test_wrong_settings_are_refused(fields, message):
    with pytest.raises(InputError, match=message):
        model(2, **fields)


def test_wrong_use_is_refused():
    method, x = gaussian(2)[0], torch.zeros(3, 2)
    with pytest.raises(InputError, match=r"sigma from 0\.03 to 10"):
        method.energy(x, sigma=11.0)
    with pytest.raises(InputError, match="trained without labels"):
        method.energy(x, label=1)
    with pytest.raises(InputError, match="sampler must be"):
        method.sample(2, sampler="ddim")
    with pytest.raises(InputError, match="keeps no constraint"):
        method.sample(2, sampler="flow", corrections=1)
    with pytest.raises(InputError, match="std above 0"):
        method.denoise(x, 20.0)
    with pytest.raises(InputError, match="low < high"):
        estimate_noise(method, x, low=3.0, high=1.0)
    with pytest.raises(InputError, match="levels must fall"):
        tw.evaluate.level_bounds(method.energy, method.base, [1.0, 2.0])
    with pytest.raises(InputError, match="levels need"):
        diffusion.sigmas(0, 0.1, 1.0)


def test_batches_of_data_need_no_labels():
    update = Recorder(1)
    update.images = 0
    method = model(2)
    method.step(Batch(torch.randn(16, 2, generator=random.seeded(1))), update)
    assert update.name == "energy" and {"score_matching", "time_matching", "energy_data"} <= set(update.logged)
