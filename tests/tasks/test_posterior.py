"""Restoration from noisy measurements: exact on Gaussian data, right on a mixture whose posterior is known."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import thalweg as tw
from thalweg import diffusion, random, tasks
from thalweg.commands.main import main
from thalweg.errors import InputError
from thalweg.tasks import operators
from thalweg.tasks.posterior import Likelihood

BOUND = 4.5  # standard errors
SHAPE, STD = (1, 4, 4), 0.06


def gaussian_model(reference: str = "full", **fields):
    """An untrained model, the exact Gaussian of data whose pixels vary together; its mean and covariance in float64."""
    g = random.seeded(4)
    mix = 0.03 * random.normal(16, 16, generator=g)
    x = 0.1 * random.normal(16, generator=g) + random.normal(4000, 16, generator=g) @ mix
    method = tw.method(
        "dual/vectors", shape=SHAPE, reference=reference, sigma_min=0.004, least_std=0.01, **{"net.width": 4, "waves": 0} | fields
    )
    method.prepare(x.view(-1, *SHAPE))
    law = method.gaussian
    basis = torch.eye(16).double() if law.basis is None else law.basis.double()
    return method, law.mean.flatten().double(), (basis * law.variance.double()) @ basis.T


NAMES = ("mask:half:left", "blur:0.8", "pool:2", "function")


def operator_of(name: str) -> operators.LinearOperator:
    """The operator, of one's own as a function that weighs rows of pixels."""
    return (
        operators.from_function(lambda x: x[:, :, 1:] - 0.5 * x[:, :, :-1], SHAPE) if name == "function" else operators.named(name, SHAPE)
    )


def exact(operator, y: Tensor, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of x given y [1, ...]: (C⁻¹ + AᵀA/s²)⁻¹, by its other form, the gain of Kalman's."""
    a = operator.forward(torch.eye(16).view(16, *SHAPE)).flatten(1).T.double()
    gain = covariance @ a.T @ torch.linalg.inv(a @ covariance @ a.T + STD**2 * torch.eye(len(a)))
    return mean + gain @ (y.flatten().double() - a @ mean), covariance - gain @ a @ covariance


@pytest.mark.parametrize("reference", ["full", "diagonal"])
@pytest.mark.parametrize("name", NAMES)
def test_draws_given_a_noisy_measurement_are_those_of_the_gaussian_posterior(name, reference):
    method, mean, covariance = gaussian_model(reference)
    operator, n, g = operator_of(name), 2000, random.seeded(5)
    truth = mean + torch.linalg.cholesky(covariance) @ random.normal(16, generator=g).double()
    y = operator.forward(truth.float().view(1, *SHAPE))
    y = y + STD * random.normal_like(y, g)
    wanted, spread = exact(operator, y, mean, covariance)
    x = tasks.restore(method, y, operator, std=STD, completions=n, steps=80, seed=3)[:, 0].flatten(1).double()
    assert float(x.abs().max()) < 1, "nothing is clamped"
    scale = spread.diagonal()
    assert float(((x.mean(0) - wanted).abs() / (scale / n).sqrt()).max()) < BOUND
    error = ((scale[:, None] * scale + spread**2) / n).sqrt()
    # the walk's own steps widen or narrow a deviation by less than a hundredth
    assert float((((x - wanted).T @ (x - wanted) / n - spread).abs() - 0.02 * scale.max()).clamp_min(0).div(error).max()) < BOUND
    prior = mean + random.normal(n, 16, generator=g).double() @ torch.linalg.cholesky(covariance).T
    assert float(((prior.mean(0) - wanted).abs() / (scale / n).sqrt()).max()) > 3 * BOUND, "the measurement says something"


def test_the_energy_given_a_measurement_is_that_of_bayes_at_every_level():
    """U(x_σ | y) − U(x_σ) = −log N(y; A x̂, s² + A V Aᵀ) up to a constant of the level, with x̂ and V of the Gaussian."""
    method, mean, covariance = gaussian_model()
    operator, g = operator_of("blur:0.8"), random.seeded(6)
    a = operator.forward(torch.eye(16).view(16, *SHAPE)).flatten(1).T.double()
    y = random.normal(1, *SHAPE, generator=g)
    x = random.normal(5, *SHAPE, generator=g)
    given = Likelihood(operator, STD, method.gaussian, SHAPE).given(y)(method.energy)
    for sigma in (0.01, 0.2, 3.0):
        gain = covariance @ torch.linalg.inv(covariance + sigma**2 * torch.eye(16))
        guess, spread = mean + (x.flatten(1).double() - mean) @ gain.T, sigma**2 * gain
        law = torch.distributions.MultivariateNormal(guess @ a.T, a @ spread @ a.T + STD**2 * torch.eye(16))
        found = (given(x, sigma=sigma) - method.energy(x, sigma=sigma)).detach().double()
        wanted = -law.log_prob(y.flatten().double())
        assert torch.allclose(found - found[0], wanted - wanted[0], rtol=1e-3, atol=2e-2), sigma


def test_corrections_find_the_posterior_of_a_mixture():
    """Two far Gaussians in the plane and a measurement of one coordinate that leaves both, with weights that are known."""
    means, weights, std = torch.tensor([[-1.0, -0.5], [1.0, 0.5]]), torch.tensor([0.7, 0.3]), 0.3

    def energy(x: Tensor, *, sigma: float) -> Tensor:
        variance = std**2 + sigma**2
        parts = -(x[:, None] - means).square().sum(2) / (2 * variance) + weights.log()
        return -parts.logsumexp(1) + math.log(2 * math.pi * variance)

    spread = std**2 * torch.eye(2) + (weights[:, None] * (means - weights @ means)).T @ (means - weights @ means)
    variance, basis = torch.linalg.eigh(spread)
    law = type("Law", (), {"variance": variance, "basis": basis})
    operator, n, noise = operators.matrix(torch.tensor([[0.0, 1.0]]), (2,)), 3000, 0.4
    y = torch.full((n, 1), 0.1)
    given = Likelihood(operator, noise, law, (2,)).given(y)(energy)
    g = random.seeded(7)
    correct = diffusion.correction(given, steps=5, generator=g)
    start = 10 * random.normal(n, 2, generator=g)
    x = diffusion.down(diffusion.noise_of(given), start, diffusion.sigmas(60, 0.01, 10.0), correct=correct, generator=g)
    of_each = weights * torch.exp(-(0.1 - means[:, 1]).square() / (2 * (std**2 + noise**2)))
    share = float(of_each[0] / of_each.sum())
    right = x[:, 0] > 0
    assert abs(float((~right).float().mean()) - share) < BOUND * math.sqrt(share * (1 - share) / n) + 0.02
    gain = std**2 / (std**2 + noise**2)
    for half, mean in zip((x[~right], x[right]), means):
        error = std / math.sqrt(len(half))
        wanted = torch.stack([mean[0], mean[1] + gain * (0.1 - mean[1])])
        assert float((half.mean(0) - wanted).abs().max()) < BOUND * error + 0.02
        assert float(half.std(0)[1]) == pytest.approx(std * math.sqrt(1 - gain), rel=0.1)


def test_masks_of_each_image_are_restored_one_by_one():
    method, mean, _ = gaussian_model()
    known = torch.zeros(2, 1, 4, 4)
    known[0, :, :2], known[1, :, :, :2] = 1, 1
    operator = operators.mask(known)
    y = operator.forward(mean.float().view(1, *SHAPE).expand(2, -1, -1, -1) + 0.3)
    found = tasks.restore(method, y, operator, std=0.001, completions=3, steps=20)
    assert found.shape == (3, 2, *SHAPE)
    assert float((operator.forward(found[0]) - y).abs().max()) < 0.02
    first = tasks.restore(method, y[:1], operator.rows(torch.tensor([0])), std=0.001, completions=3, steps=20)
    assert torch.equal(found[:, :1], first)


def test_labels_and_guidance_go_along():
    """The energy that a measurement is added to is that of each image's label, with its guidance."""
    method, g = tw.method("dual/vectors", shape=SHAPE, classes=2, conditional=True, **{"net.width": 8, "waves": 0}), random.seeded(9)
    with torch.no_grad():
        for p in method.net.parameters():
            p.add_(0.1 * random.normal(*p.shape, generator=g))
    operator, y = operators.named("pool:2", SHAPE), torch.zeros(2, 1, 2, 2)

    def restored(*labels: int, **options) -> Tensor:
        return tasks.restore(method, y, operator, std=0.5, completions=2, steps=5, label=torch.tensor(labels), **options)

    found, other = restored(0, 1), restored(0, 0)
    assert torch.equal(found[:, 0], other[:, 0]) and not torch.equal(found[:, 1], other[:, 1])
    assert not torch.equal(restored(0, 1, guidance=2.0), found)
    given = Likelihood(operator, 0.5, method.gaussian, SHAPE).given(y.repeat(2, 1, 1, 1))
    assert torch.equal(method.sample(4, steps=5, label=torch.tensor([0, 1, 0, 1]), evidence=given).view(2, 2, *SHAPE), found)


@pytest.mark.parametrize(
    "options, message",
    [({"std": -0.1}, "std, of the measurement's noise, must be 0 or more"), ({"std": math.inf}, "must be 0 or more and finite")],
)
def test_wrong_noise_is_refused(options, message):
    method, *_ = gaussian_model()
    with pytest.raises(InputError, match=message):
        tasks.restore(method, torch.zeros(1, *SHAPE), operators.blur(0.8), **options)


def test_what_cannot_be_restored_from_noise_is_said():
    other = tw.method("short_run/digits")
    with pytest.raises(InputError, match="evidence"):
        tasks.restore(other, torch.zeros(1, 1, 8, 8), operators.blur(0.8), std=0.1)
    law = type("Law", (), {"variance": torch.ones(5000), "basis": None})
    with pytest.raises(InputError, match="at most 4096 entries"):
        Likelihood(operators.blur(0.8), 0.1, law, (1, 50, 100))


# --- coverage


def test_central_intervals_of_draws_of_the_truth_cover_their_share():
    """Also where many values are tied, as those of 8 bits are: ties are broken at random."""
    g, pixels = random.seeded(10), 40 * 64
    values = torch.randn(8, 40, 1, 8, 8, generator=g)
    for name, drawn in (("continuous", values), ("few values", (2 * values).round())):
        completions, x = drawn[:7], drawn[7]
        for share in (0.5, 0.9):
            error = math.sqrt(share * (1 - share) / pixels)
            found = tasks.coverage(completions, x, share=share)
            assert found.shape == (40,) and abs(float(found.mean()) - share) < BOUND * error, (name, share)
            assert float(tasks.coverage(0.3 * completions, x, share=share).mean()) < share - 10 * error, "too alike"
            assert float(tasks.coverage(4 * completions, x, share=share).mean()) > share + 5 * error, "too unlike"


def test_pixels_that_are_alike_in_all_images_do_not_count():
    x = torch.zeros(1, 1, 2, 2)
    completions = torch.zeros(3, 1, 1, 2, 2)
    completions[:, 0, 0, 0, 0] = torch.tensor([1.0, 2.0, 3.0])
    assert float(tasks.coverage(completions, x)) == 0.75
    assert float(tasks.coverage(completions + 0.004, x, step=0.01)) == 0
    assert float(tasks.coverage(completions - 2, x, step=0.01)) == 0.25
    assert bool(tasks.coverage(torch.zeros(3, 1, 1, 2, 2), x, step=0.01).isnan())


@pytest.mark.parametrize("options", [{"share": 1.0}, {"share": 0.0}, {"step": -1.0}])
def test_wrong_intervals_are_refused(options):
    with pytest.raises(InputError, match="share must be in"):
        tasks.coverage(torch.zeros(3, 1, 1, 2, 2), torch.zeros(1, 1, 2, 2), **options)


# --- on the command line


def test_apply_adds_the_noise_and_restores_given_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    method = tw.method("dual/digits", net={"kind": "mlp", "width": 4, "depth": 1})
    x = random.uniform(2, 1, 8, 8, low=-1, high=1, generator=random.seeded(1))
    method.prepare(x)
    tw.save(method, "model")
    np.savez("two.npz", x=x.numpy())
    line = "apply restore model --input two.npz --operator pool:2 --std 0.2 --completions 3 --corrections 1 --seed 4"
    assert main([*line.split(), "--out", "out.npz"]) == 0, capsys.readouterr().err
    found = {name: torch.from_numpy(value) for name, value in np.load("out.npz").items()}
    operator = operators.average_pool(2)
    assert 0.1 < float((found["y"] - operator.forward(x)).std()) < 0.3
    wanted = tasks.restore(method, found["y"], operator, std=0.2, completions=3, corrections=1, seed=4)
    assert found["completions"].shape == (3, 2, 1, 8, 8) and torch.equal(found["completions"], wanted)
    assert main([*line.replace("pool:2", "blur:1.0").split(), "--out", "out.png"]) == 0
    with Image.open("out.png") as picture:
        assert picture.size == (34 * 5 + 2, 34 * 2 + 2)
    capsys.readouterr()
    for wrong, message in (
        ("--std inf", "--std must be finite"),
        ("--std 0", "--std must be above 0"),
        ("--std 0.1 --latent", "it takes no"),
    ):
        assert main(f"apply restore model --input two.npz --operator pool:2 {wrong} --out out.npz".split()) == 2
        assert message in capsys.readouterr().err


def test_missing_pixels_are_drawn_from_the_posterior_where_the_model_can():
    """Of Gaussian data the law of the missing pixels given the known ones, with little noise, is known."""
    method, mean, covariance = gaussian_model()
    known = torch.zeros(SHAPE[1:])
    known[:2] = 1
    x = method.gaussian.sample(1, generator=random.seeded(5)).clamp(-1, 1)
    n = 400
    found = tasks.inpaint(method, x, known, completions=n, steps=30)[:, 0]
    here, gone = known.flatten().bool(), ~known.flatten().bool()
    assert torch.equal(found.flatten(1)[:, here], x.flatten(1)[:, here].expand(n, -1))
    seen = covariance[here][:, here] + 0.05**2 * torch.eye(int(here.sum())).double()
    gain = covariance[gone][:, here] @ torch.linalg.inv(seen)
    expected = mean[gone] + gain @ (x.flatten().double()[here] - mean[here])
    spread = (covariance[gone][:, gone] - gain @ covariance[here][:, gone]).diagonal()
    off = found.flatten(1)[:, gone].double().mean(0) - expected
    # 30 levels leave a few per cent of a deviation
    assert (off.abs() < BOUND * (spread / n).sqrt() + 0.1 * spread.sqrt()).all()
    wrong = tasks.inpaint(method, x, known, completions=n, steps=30, posterior=False)[:, 0]
    assert not torch.equal(wrong, found)
    # what says how a constraint is kept asks for one
    assert torch.equal(tasks.inpaint(method, x, known, completions=2, steps=3, corrections=1), tasks.inpaint(
        method, x, known, completions=2, steps=3, corrections=1, posterior=False))  # fmt: skip
