"""DDPM: exact on Gaussian data, its best loss known, guidance a sum of predictions, and samples of what it was trained on."""

import math

import pytest
import torch
from helpers import Gaussians

import thalweg as tw
from thalweg import random
from thalweg.errors import InputError
from thalweg.metrics import METRICS
from thalweg.tasks import inpaint

BOUND = 4.5  # standard errors
LEVELS = (0.05, 0.5, 5.0)


def model(d: int = 3, **fields):
    return tw.method("ddpm/vectors", shape=(d,), **{"net.width": 32, "net.depth": 2, "data_std": 0.7, "sigma_max": 10.0} | fields)


def disturbed(method, by: float = 0.3):
    """The same model with a last layer that is not zero."""
    last = method.net.net.last
    with torch.no_grad():
        last.weight.copy_(by * random.normal(*last.weight.shape, generator=random.seeded(9)))
    return method


@pytest.mark.parametrize("sigma", LEVELS)
def test_an_untrained_model_is_exact_on_gaussian_data(sigma):
    """ε̂ = σ y/(s² + σ²) and x̂₀ = s² y/(s² + σ²), in the shape of vectors and of images."""
    for method in (model(), tw.method("ddpm/fashion-mnist", shape=(1, 8, 8), data_std=0.7)):
        y = math.hypot(0.7, sigma) * random.normal(6, *method.config.shape, generator=random.seeded(1))
        predicted = method._predictor(None, 6, None)(y, sigma)
        assert torch.allclose(predicted, sigma * y / (0.49 + sigma**2), atol=1e-5)
        assert torch.allclose(method.denoise(y, sigma), 0.49 * y / (0.49 + sigma**2), atol=1e-5)


@pytest.mark.parametrize("sigma", LEVELS)
def test_the_best_losses_on_gaussian_data_are_known(sigma):
    """The error of the noise is s²/(s² + σ²) a dimension, the weighted loss 1 at every level."""
    g = random.seeded(2)
    x, z = (random.normal(20_000, 3, generator=g) for _ in range(2))
    with torch.no_grad():
        loss, noise_error = model().losses(0.7 * x, torch.full((20_000,), math.log(sigma)), z)
    for found, right in ((loss, 1.0), (noise_error, 0.49 / (0.49 + sigma**2))):
        error = float(found.std()) / math.sqrt(len(found))
        assert abs(float(found.mean()) - right) < BOUND * error and error < 0.02


def test_the_loss_is_stationary_at_the_truth_and_pulls_where_it_is_not():
    for std, least, most in ((0.7, 0.0, BOUND), (1.4, 2 * BOUND, math.inf)):
        method, g, rows = model(), random.seeded(3), []
        for _ in range(20):
            x = std * random.normal(256, 3, generator=g)
            loss, _ = method.losses(x, method.draw_levels(256, g), random.normal(256, 3, generator=g))
            rows.append(torch.autograd.grad(loss.mean(), method.net.net.last.weight)[0].flatten())
        found = torch.stack(rows)
        pull = (found.mean(0).abs() / (found.std(0) / math.sqrt(len(found)))).max()
        assert least <= float(pull) <= most


def test_levels_are_log_normal_between_the_ends():
    levels = model(sigma_min=0.02, sigma_max=5.0, focus_sigma=0.5, focus_spread=1.4).draw_levels(10_000, random.seeded(0))
    share = torch.special.ndtr((levels.sort().values - math.log(0.5)) / 1.4)
    inside = (levels.sort().values > math.log(0.02) + 1e-4) & (levels.sort().values < math.log(5.0) - 1e-4)
    assert float((share - torch.linspace(0, 1, 10_000))[inside].abs().max()) < 1e-3
    assert math.log(0.02) - 1e-5 <= float(levels.min()) and float(levels.max()) <= math.log(5.0) + 1e-5
    both = model().draw_levels(8, (random.seeded(0), random.seeded(1)))
    assert torch.equal(both[:4], model().draw_levels(4, random.seeded(0)))  # a rank draws its share


@pytest.mark.parametrize("sampler", ["diffusion", "flow"])
def test_samples_of_the_gaussian_have_its_deviation(sampler):
    x = model().sample(4000, steps=60, sampler=sampler, seed=1)
    error = 0.7 / math.sqrt(2 * x.numel())
    assert abs(float(x.std()) - 0.7) < BOUND * error + 0.007 and abs(float(x.mean())) < BOUND * 0.7 / math.sqrt(x.numel())


def test_guidance_adds_predictions_up():
    method = disturbed(model(classes=4, conditional=True))
    y, label = random.normal(5, 3, generator=random.seeded(4)), torch.tensor([0, 1, 2, 3, 3])
    free, given = method._predictor(None, 5, None)(y, 0.8), method._predictor(label, 5, 1.0)(y, 0.8)
    assert float((free - given).detach().abs().min(1).values.max()) > 1e-3
    for weight in (0.0, 1.0, 2.5, -1.0):
        assert torch.allclose(method._predictor(label, 5, weight)(y, 0.8), free + weight * (given - free), atol=1e-5)


@pytest.fixture(scope="module")
def two():
    """Two Gaussians with labels, learned in seconds."""
    data = Gaussians([[-2.0, 0.0], [2.0, 1.0]], 0.3)
    method = tw.method("ddpm/vectors", data=data, conditional=True, data_std=1.6, images=512 * 500, **{"net.width": 64})
    return tw.fit(method, data, progress=False)


def test_a_trained_model_draws_the_modes_with_their_weights_and_widths(two):
    x = two.sample(2000, seed=1)
    left = x[:, 0] < 0
    assert abs(float(left.float().mean()) - 0.5) < BOUND * 0.5 / math.sqrt(2000) + 0.02
    for rows, mean in ((x[left], (-2.0, 0.0)), (x[~left], (2.0, 1.0))):
        assert torch.allclose(rows.mean(0), torch.tensor(mean), atol=0.06) and float(rows.std(0).mean()) == pytest.approx(0.3, abs=0.05)


def test_a_label_draws_its_mode_and_no_guidance_draws_both(two):
    x = two.sample(200, label=1, seed=2)
    assert float((x[:, 0] > 0).float().mean()) > 0.99
    assert 0.3 < float((two.sample(200, label=1, guidance=0.0, seed=2)[:, 0] > 0).float().mean()) < 0.7


def test_the_flow_is_a_function_of_its_start(two):
    start = random.normal(8, 2, generator=random.seeded(6))
    first, again = (two.sample(8, sampler="flow", start=start, seed=seed) for seed in (0, 1))
    assert torch.equal(first, again) and "start" in two.abilities


def test_what_was_measured_is_kept():
    method = tw.method("ddpm/digits", **{"net.width": 16, "net.depth": 1})
    image = random.uniform(1, 1, 8, 8, low=-1.0, high=1.0, generator=random.seeded(7))
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    filled = inpaint(method, image, mask, steps=4)
    assert torch.allclose(filled[..., :4], image[..., :4], atol=1e-5) and not torch.allclose(filled[..., 4:], image[..., 4:], atol=0.1)


def test_it_is_no_energy():
    assert not {"energy", "levels", "normalised", "classify"} & model(classes=3, conditional=True).abilities
    assert "denoise" in model().abilities
    assert not METRICS["ood"].fits(tw.method("ddpm/digits")) and not METRICS["density"].fits(tw.method("ddpm/moons"))


def test_wrong_input():
    method, labelled = model(), model(classes=3, conditional=True, label_dropping=0.0)
    for message, call in {
        "sigma_min must be below sigma_max": lambda: model(sigma_min=3.0, sigma_max=2.0),
        "needs data with labels": lambda: model(conditional=True),
        "sampler must be diffusion or flow, got 'mala'": lambda: method.sample(1, sampler="mala"),
        "without labels: it takes no label": lambda: method.sample(2, label=1),
        "no samples without a label": lambda: labelled.sample(2),
        "guidance must be 1": lambda: labelled.sample(2, label=1, guidance=2.0),
        "labels between 0 and 2": lambda: labelled.sample(2, label=3),
        "start must have shape": lambda: method.sample(2, start=torch.zeros(2, 4)),
        "the flow keeps no constraint": lambda: method.sample(1, sampler="flow", constraint=lambda x, signal, noise: x),
        "std above 0 and up to 10": lambda: method.denoise(torch.zeros(1, 3), 11.0),
    }.items():
        with pytest.raises(InputError, match=message):
            call()
