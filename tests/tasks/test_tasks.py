"""Tasks: operators against dense linear algebra, restoration against conditional Gaussians in closed form, bit-equality, messages."""

import importlib
import json
import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

import thalweg as tw
from thalweg import random, tasks
from thalweg.chain import MALA, Langevin
from thalweg.cli import main
from thalweg.errors import InputError
from thalweg.methods.short_run import Config, ShortRun
from thalweg.nn.build import MLP
from thalweg.nn.initializers import Flow
from thalweg.tasks import masks, operators

BOUND = 4.0


def images(n: int, *shape: int, seed: int = 0) -> Tensor:
    return random.uniform(n, *shape, low=-0.9, high=0.9, generator=random.seeded(31, seed))


# --- operators against dense matrices

KERNEL = torch.tensor([[0.0, 0.1, 0.0], [0.3, 0.4, 0.1], [0.0, 0.05, 0.05]])  # of no symmetry
WIDE = random.normal(5, 12, generator=random.seeded(1))
OPERATORS = {
    "mask": (operators.mask(torch.tensor([[1, 0], [0, 1]])), (3, 2, 2)),
    "mask of channels": (operators.mask(images(3, 4, 2) > 0), (3, 4, 2)),
    "pool": (operators.average_pool(2), (2, 4, 6)),
    "pool of one": (operators.average_pool(1), (1, 2, 3)),
    "grey": (operators.grey(3), (3, 2, 4)),
    "blur": (operators.blur(0.5), (2, 4, 5)),
    "blur that loses frequencies": (operators.blur(1.5, threshold=0.05), (1, 6, 5)),
    "blur with a kernel": (operators.blur(kernel=KERNEL), (1, 5, 4)),
    "wide matrix": (operators.matrix(WIDE, (3, 2, 2)), (3, 2, 2)),
    "tall matrix": (operators.matrix(WIDE.T.contiguous(), (5,)), (5,)),
    "matrix of rank 2": (operators.matrix(WIDE[:, :2] @ WIDE[:2, :], (3, 2, 2)), (3, 2, 2)),
    "function": (operators.from_function(lambda x: x[:, :1, 1:] - 2 * x[:, 1:2, :-1], (3, 3, 2)), (3, 3, 2)),
}


def dense(function, shape: tuple[int, ...]) -> np.ndarray:
    """The matrix of a linear function of rows of `shape`, in float64."""
    return function(torch.eye(math.prod(shape), dtype=torch.float64).view(-1, *shape)).flatten(1).T.numpy()


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_are_moore_penrose_pairs(name):
    operator, shape = OPERATORS[name]
    a = dense(operator.forward, shape)
    measured = tuple(operator.forward(torch.zeros(1, *shape)).shape[1:])
    inverse = dense(operator.pseudo_inverse, measured)
    threshold = getattr(operator, "threshold", 1e-5)
    np.testing.assert_allclose(inverse, np.linalg.pinv(a, rcond=threshold), rtol=0, atol=1e-9 * max(1, np.abs(inverse).max()))
    np.testing.assert_allclose(inverse @ a @ inverse, inverse, atol=1e-8)
    np.testing.assert_allclose(inverse @ a, (inverse @ a).T, atol=1e-8)
    np.testing.assert_allclose(a @ inverse, (a @ inverse).T, atol=1e-8)
    lost = np.linalg.norm(a @ inverse @ a - a, 2) / np.linalg.norm(a, 2)
    if name == "blur that loses frequencies":
        assert 1e-4 < lost <= threshold  # of A itself only what the threshold says
    else:
        assert lost < 1e-7  # a float32 product of rank 2 has singular values of 1e-8 beyond it


@pytest.mark.parametrize("name", OPERATORS)
def test_projection_is_the_nearest_image_of_that_measurement(name):
    operator, shape = OPERATORS[name]
    x, other = images(3, *shape), images(3, *shape, seed=1)
    y = operator.forward(other)
    found = operator.project(x, y)
    tolerance = 0.05 if "loses" in name else 1e-5
    assert float(tasks.consistency(operator, found, y).max()) < tolerance
    assert float(tasks.consistency(operator, x, y).min()) > 20 * tolerance or "loses" in name
    # the move is orthogonal to all that A does not see
    unseen = other - operator.pseudo_inverse(operator.forward(other))
    torch.testing.assert_close(((found - x) * unseen).flatten(1).sum(1), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(operator.to("cpu").project(x, y), found)


def test_operators_against_other_libraries():
    x = images(2, 3, 8, 8)
    blurred = gaussian_filter(x.numpy(), 1.2, mode="wrap", axes=(2, 3), truncate=8.0)
    np.testing.assert_allclose(operators.blur(1.2).forward(x).numpy(), blurred, atol=1e-4 * np.abs(blurred).max())
    pooled = x.numpy().reshape(2, 3, 4, 2, 4, 2).mean((3, 5))
    np.testing.assert_allclose(operators.average_pool(2).forward(x).numpy(), pooled, atol=1e-6)
    np.testing.assert_allclose(operators.grey().forward(x).numpy(), x.numpy().mean(1, keepdims=True), atol=1e-6)
    shifted = operators.blur(kernel=torch.tensor([[0.0, 0.0, 1.0]])).forward(x)
    torch.testing.assert_close(shifted, x.roll(1, 3), rtol=0, atol=1e-6)
    wide = operators.blur(6.0).forward(x)  # copies of the Gaussian lap several times around
    torch.testing.assert_close(wide, x.mean((2, 3), keepdim=True).expand_as(x), rtol=0, atol=2e-4)
    assert operators.blur(1.0).forward(torch.eye(4)[None, None])[0, 0, 0, :2].tolist() == pytest.approx([0.2924586, 0.2499483], abs=1e-6)


def test_masks_of_each_image_and_their_rows():
    known = images(3, 1, 2, 2) > 0
    operator, x = operators.mask(known.float()), images(3, 2, 2, 2, seed=1)
    torch.testing.assert_close(operator.forward(x), x * known)
    rows = operator.rows(torch.tensor([2, 0, 2]))
    torch.testing.assert_close(rows.forward(x), x * known[[2, 0, 2]])
    shared = operators.mask(known[0])
    assert shared.rows(torch.tensor([2, 0])) is shared
    y = operator.forward(x)
    far = torch.full_like(x, 1e3 / 3)  # from where a difference would lose bits of y
    assert torch.equal(operator.project(far, y), torch.where(known, y, far))


def test_measured_replaces_what_a_level_makes_of_the_measurement():
    """A x ↦ signal·y + noise·A ε, with coefficients as numbers, as [B, 1, 1, 1] and for a y of other axes than x."""
    operator, shape = OPERATORS["wide matrix"]
    y, noise, x = images(4, 5), images(4, 5, seed=1), images(4, *shape, seed=2)
    signal, sigma = torch.tensor([1.0, 0.9, 0.5, 0.0]), torch.tensor([0.0, 0.3, 0.5, 1.0])
    measured = tasks.Measured(operator, y, noise)
    found = measured(x, signal.view(-1, 1, 1, 1), sigma.view(-1, 1, 1, 1))
    torch.testing.assert_close(operator.forward(found), signal[:, None] * y + sigma[:, None] * noise, rtol=0, atol=1e-5)
    for a, s in ((0.7, 0.6), (torch.tensor(0.7), torch.tensor(0.6))):
        torch.testing.assert_close(operator.forward(measured(x, a, s)), 0.7 * y + 0.6 * noise, rtol=0, atol=1e-5)
    rest = x - operator.pseudo_inverse(operator.forward(x))
    torch.testing.assert_close(found - operator.pseudo_inverse(operator.forward(found)), rest, rtol=0, atol=1e-5)


# --- masks


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8), (3, 7, 10), (28, 28), (2, 1)])
@pytest.mark.parametrize("share", [0.01, 0.25, 0.3, 0.5, 0.9])
def test_the_missing_share_is_exact_to_a_pixel(shape, share):
    pixels = shape[-1] * shape[-2]
    wanted = min(max(1, round(share * pixels)), pixels - 1)
    for known in (masks.centre_square(shape, share), masks.random_square(shape, share, 3), masks.irregular(shape, share, 3)):
        assert known.shape == shape[-2:] and known.dtype == torch.bool
        assert int((~known).sum()) == wanted


def test_squares_and_halves():
    square = torch.ones(8, 8, dtype=torch.bool)
    square[2:6, 2:6] = False
    assert torch.equal(masks.centre_square((1, 8, 8), 0.25), square)
    places = set()
    for seed in range(30):
        rows, columns = (~masks.random_square((8, 8), 0.25, seed)).nonzero().unbind(1)
        assert int(rows.max() - rows.min()) == int(columns.max() - columns.min()) == 3
        places.add((int(rows.min()), int(columns.min())))
    assert len(places) > 10 and {p[0] for p in places} == set(range(5))
    missing = {side: (~masks.half((4, 5), side)).nonzero() for side in masks.SIDES}
    assert {side: len(m) for side, m in missing.items()} == {"left": 8, "right": 8, "top": 10, "bottom": 10}
    assert int(missing["left"][:, 1].max()) == 1 and int(missing["right"][:, 1].min()) == 3
    assert int(missing["top"][:, 0].max()) == 1 and int(missing["bottom"][:, 0].min()) == 2


def test_irregular_masks_are_strokes_fixed_by_their_seed():
    one = masks.irregular((32, 32), 0.3, 1)
    assert torch.equal(one, masks.irregular((32, 32), 0.3, 1)) and not torch.equal(one, masks.irregular((32, 32), 0.3, 2))
    missing = (~one).float()
    alike = (missing[:, 1:] * missing[:, :-1]).mean() / 0.3**2  # 1 for pixels that are missing independently
    assert float(alike) > 2


def test_masks_and_operators_by_name():
    shape = (1, 8, 8)
    assert torch.equal(masks.named("centre:0.25", shape), masks.centre_square(shape, 0.25))
    assert torch.equal(masks.named("random:0.25", shape, seed=4), masks.random_square(shape, 0.25, 4))
    assert torch.equal(masks.named("irregular:0.3", shape, seed=4), masks.irregular(shape, 0.3, 4))
    assert torch.equal(masks.named("half:top", shape), masks.half(shape, "top"))
    assert operators.named("pool:2", shape) == operators.average_pool(2) and operators.named("grey", shape) == operators.grey(1)
    assert operators.named("blur:1.5", shape).std == 1.5
    assert torch.equal(operators.named("mask:half:top", shape).known[0, 0], masks.half(shape, "top"))


# --- a method of known conditionals: short_run with a Gaussian energy of 3 × 3 images

SHAPE, STEP = (1, 3, 3), 0.08
PLACE = torch.cartesian_prod(torch.arange(3.0), torch.arange(3.0)).double()
COVARIANCE = 0.04 * 0.7 ** torch.cdist(PLACE, PLACE)
MEAN = torch.linspace(-0.2, 0.2, 9, dtype=torch.float64)


class Quadratic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.precision = nn.Parameter(torch.linalg.inv(COVARIANCE).float())

    def forward(self, x: Tensor) -> Tensor:
        centred = x.flatten(1) - MEAN.float()
        return 0.5 * (centred @ self.precision * centred).sum(1)


def gaussian_method(**changed) -> ShortRun:
    config = dict(data="digits", shape=SHAPE, net=MLP(width=4, depth=1), start="noise", chain=Langevin(steps=300, step=STEP))
    method = ShortRun(Config(**(config | changed)))
    method.net = Quadratic()
    return method


CORNERS = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 0, 0]])
AVERAGES = random.normal(3, 9, generator=random.seeded(8))


@pytest.mark.parametrize("name", ["mask", "matrix"])
def test_restoration_draws_the_conditional_gaussian(name):
    """Langevin dynamics on the plane A x = y: mean C Aᵀ(A C Aᵀ)⁻¹(y − A μ) + μ, covariance of the chain's own steps within it."""
    method, n = gaussian_method(), 1500
    operator = operators.mask(CORNERS) if name == "mask" else operators.matrix(AVERAGES, SHAPE)
    x = 0.3 * random.normal(1, *SHAPE, generator=random.seeded(3))
    y = operator.forward(x)
    found = tasks.restore(method, y, operator, completions=n, seed=2)[:, 0].flatten(1).double()
    a = (torch.diag(CORNERS.flatten()) if name == "mask" else AVERAGES).double()
    gain = COVARIANCE @ a.T @ torch.linalg.pinv(a @ COVARIANCE @ a.T)
    mean = MEAN + gain @ (y[0].flatten().double() - a @ MEAN)
    free = torch.linalg.svd(a)[2][torch.linalg.matrix_rank(a) :].T  # an orthonormal basis of what A does not see
    precision = free.T @ torch.linalg.inv(COVARIANCE) @ free
    shrink = torch.eye(len(precision)) - 0.5 * STEP**2 * precision
    spread = STEP**2 * torch.linalg.inv(torch.eye(len(precision)) - shrink @ shrink)
    # the step's bias is the known one, and the conditional differs from the marginal by far more than the test's bounds
    exact = torch.linalg.inv(precision)
    assert (spread - exact).abs().max() < 0.25 * exact.diagonal().max()
    assert ((mean - MEAN) @ free).abs().max() > 0.05

    within = (found - mean) @ free
    scale = spread.diagonal()
    assert (within.mean(0).abs() / (scale / n).sqrt()).max() < BOUND
    error = ((scale[:, None] * scale + spread**2) / n).sqrt()
    assert ((within.T @ within / n - spread).abs() / error).max() < BOUND
    assert float(tasks.consistency(operator, found.view(n, 1, *SHAPE).float(), y).max()) < 1e-5


def test_a_chain_is_constrained_at_its_start_after_each_step_and_once_denoised():
    method, levels = gaussian_method(data_noise=0.1, chain=Langevin(steps=4, step=STEP)), []

    def constraint(x: Tensor, signal: float, noise: float) -> Tensor:
        levels.append((signal, noise))
        return x

    free = method.sample(3, seed=1)
    assert torch.equal(method.sample(3, seed=1, constraint=constraint), free)
    assert levels == [(1.0, 0.0)] * 6
    seen = []
    steps = 1 + torch.arange(6)  # after each call another value, so that the last one is the sample
    held = method.sample(3, seed=1, constraint=lambda x, *_: (seen.append(x), torch.full_like(x, 0.1 * int(steps[len(seen) - 1])))[1])
    assert torch.equal(held, torch.full_like(held, 0.6)) and len(seen) == 6


@pytest.fixture(scope="module")
def egc():
    torch.manual_seed(0)
    return tw.method("egc/digits", width=8, blocks=1, levels=20, sample_steps=6)


METHODS = ("egc", "short_run")


def method_of(name: str, egc, shape: tuple[int, ...] = (1, 8, 8)):
    if name == "egc":
        return egc
    return ShortRun(Config(shape=shape, net=MLP(width=4, depth=1), chain=Langevin(steps=6), start="noise", data_noise=0.2))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("options", [{}, {"resample": 3}, {"label": torch.tensor([3, 1]), "steps": 4}], ids=["plain", "resample", "label"])
def test_known_pixels_are_bit_equal_and_missing_ones_are_not_looked_at(name, options, egc):
    if options and name == "short_run":
        options = {"steps": 3}
    method, x = method_of(name, egc), images(2, 1, 8, 8)
    mask = torch.stack([masks.centre_square((8, 8), 0.3), masks.half((8, 8))])[:, None]
    found = tasks.inpaint(method, x, mask, completions=3, seed=5, **options)
    assert found.shape == (3, 2, 1, 8, 8) and float(found.abs().max()) <= 1
    for one in found:
        assert torch.equal(one[mask], x[mask])
    assert float(tasks.diversity(found, mask).min()) > 0.01, "completions differ"
    hidden = torch.where(mask, x, math.nan)  # as unknown as can be
    assert torch.equal(tasks.inpaint(method, hidden, mask, completions=3, seed=5, **options), found)
    assert not torch.equal(tasks.inpaint(method, x, mask, completions=3, seed=6, **options), found)
    if "resample" in options:
        assert not torch.equal(tasks.inpaint(method, x, mask, completions=3, seed=5), found), "steps are made again"
    other = torch.where(mask, x + 0.05, x)
    assert not torch.equal(torch.where(mask, 0.0, tasks.inpaint(method, other, mask, completions=3, seed=5, **options)),
                           torch.where(mask, 0.0, found)), "but the known ones are"  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("spec", ["pool:2", "blur:0.6"])
def test_restored_images_agree_with_their_measurement_but_for_the_clamp(name, spec, egc):
    operator, x = operators.named(spec, (1, 8, 8)), images(3, 1, 8, 8)
    y = 0.5 * operator.forward(x)
    found = tasks.restore(method_of(name, egc), y, operator, completions=2)
    inside = found.abs().flatten(2).max(2).values < 1
    agreement = tasks.consistency(operator, found, y)
    assert agreement.shape == (2, 3) and (agreement[inside] < 1e-5).all()
    assert float(agreement.max()) < 0.1 < float(tasks.consistency(operator, found.roll(1, 1), y).min())


class Recorder:
    """A method that only notes what it is asked for and hands back its constraint's noise."""

    name = "recorder"
    device = torch.device("cpu")
    abilities = frozenset({"constraint", "start"})
    held = {"shared": "all"}

    def __init__(self, shape: tuple[int, ...] = (1, 2, 2)) -> None:
        self.config, self.latent_shape = type("C", (), {"shape": shape}), shape
        self.calls: list[dict] = []

    def sample(self, n: int, *, seed: int = 0, constraint=None, label=None, start=None, shared: str = "nothing") -> Tensor:
        self.calls.append(dict(n=n, seed=seed, label=label, shared=shared))
        return constraint(torch.zeros(n, *self.config.shape), 0.0, 0.5) if constraint else start


def test_rows_go_in_parts_with_their_own_seeds_labels_and_noise(monkeypatch):
    module = importlib.import_module("thalweg.tasks.restoration")
    monkeypatch.setattr(module, "ROWS", 4)
    seen = []
    monkeypatch.setattr(operators.Mask, "project", lambda self, x, y: (seen.append(y), x)[1])
    method, mask = Recorder(), torch.tensor([[1, 0], [1, 1]])
    tasks.inpaint(method, images(3, 1, 2, 2), mask, completions=3, seed=7, label=torch.tensor([5, 6, 7]))
    assert [call["n"] for call in method.calls] == [4, 4, 1]
    assert torch.cat([call["label"] for call in method.calls]).tolist() == [5, 6, 7] * 3
    assert method.calls[0]["seed"] == 7 and len({call["seed"] for call in method.calls}) == 3
    noise = torch.cat(seen[::2])  # of the call within `sample`; the next is the last projection
    assert torch.equal(noise, noise * mask) and len(noise[:, 0, 0, 0].unique()) == 9
    seen.clear()
    monkeypatch.setattr(module, "ROWS", 256)
    tasks.inpaint(method, images(3, 1, 2, 2), mask, completions=3, seed=7, label=4)
    assert method.calls[-1] == dict(n=9, seed=7, label=4, shared="nothing")
    assert torch.equal(seen[0], noise), "the noise of a completion does not depend on the parts"
    draws = random.normal(1, 1, 2, 2, generator=random.seeded(7, 9, 1, 2))
    assert torch.equal(noise[5], 0.5 * draws[0] * mask)


def test_consistency_and_diversity_by_hand():
    x = torch.tensor([[1.0, 3.0], [5.0, 7.0]]).view(1, 1, 2, 2)
    assert tasks.consistency(operators.average_pool(2), x, torch.full((1, 1, 1, 1), 1.5)).tolist() == [2.5]
    y = torch.tensor([[1.0, 0.0], [2.0, 0.0]]).view(1, 1, 2, 2)
    mask = torch.tensor([[1, 0], [1, 0]])
    assert tasks.consistency(operators.mask(mask), x, y).tolist() == [1.5]  # √(3²/4)
    pair = torch.stack([x, x + torch.tensor([[0.0, 2.0], [0.0, 4.0]])])
    root = math.sqrt(2)  # of two values d apart the deviation is d/√2
    assert tasks.diversity(pair, mask).tolist() == pytest.approx([3 / root])
    assert tasks.diversity(pair).tolist() == pytest.approx([1.5 / root])


# --- denoising


def test_denoising_is_the_method_s_own_and_stays_in_range(egc):
    y = 2 * images(3, 1, 8, 8)
    found = tasks.denoise(egc, y, 0.5)
    assert torch.equal(found, egc.denoise(y, 0.5).clamp(-1, 1)) and float(found.abs().max()) <= 1
    method = gaussian_method(chain=Langevin(steps=50, step=STEP))
    y = images(2, *SHAPE)
    one = tasks.denoise(method, y, 0.2, 1)
    assert torch.equal(one, tasks.denoise(method, y, 0.2, 1)) and not torch.equal(one, tasks.denoise(method, y, 0.2, 2))
    posterior = torch.linalg.inv(torch.linalg.inv(COVARIANCE) + torch.eye(9) / 0.04)
    exact = (posterior @ (torch.linalg.solve(COVARIANCE, MEAN)[:, None] + y.flatten(1).double().T / 0.04)).T
    many = torch.stack([tasks.denoise(method, y, 0.2, seed).flatten(1) for seed in range(40)]).double()
    assert ((many.mean(0) - exact).abs() / (many.std(0) / math.sqrt(40))).max() < BOUND


# --- interpolation


def test_slerp_walks_the_arc_at_even_angles():
    a, b = torch.tensor([2.0, 0.0, 0.0]), torch.tensor([0.0, 2.0, 0.0])
    points = tasks.slerp(a, b, torch.tensor([0.0, 1 / 3, 0.5, 1.0]))
    expected = [[2, 0, 0], [math.sqrt(3), 1, 0], [math.sqrt(2), math.sqrt(2), 0], [0, 2, 0]]
    torch.testing.assert_close(points, torch.tensor(expected), rtol=0, atol=1e-6)
    c, d = (random.normal(1, 8, 8, generator=random.seeded(k)) for k in (1, 2))
    arc = tasks.slerp(c, d, torch.linspace(0, 1, 9))
    assert torch.equal(arc[[0, -1]], torch.stack([c, d])) and arc.shape == (9, 1, 8, 8)
    cosine = nn.functional.cosine_similarity(arc[1:].flatten(1), arc[:-1].flatten(1))
    total = torch.acos(nn.functional.cosine_similarity(c.flatten(), d.flatten(), dim=0))
    if c.norm() != d.norm():  # the angles are even for ends of one norm
        unit = tasks.slerp(c / c.norm(), d / d.norm(), torch.linspace(0, 1, 9))
        cosine = (unit[1:].flatten(1) * unit[:-1].flatten(1)).sum(1)
        torch.testing.assert_close(unit.flatten(1).norm(dim=1), torch.ones(9))
    torch.testing.assert_close(torch.acos(cosine), (total / 8).expand(8), rtol=1e-3, atol=0)
    torch.testing.assert_close(tasks.slerp(a, 3 * a, torch.tensor([0.5])), 2 * a[None])


def test_interpolation_runs_from_one_sample_to_the_other(egc):
    a, b = (random.normal(1, 8, 8, generator=random.seeded(k)) for k in (1, 2))
    found = tasks.interpolate(egc, a, b, 5)
    assert torch.equal(found, tasks.interpolate(egc, a, b, 5, seed=3)), "nothing is drawn on the way"
    for row, start in ((0, a), (4, b)):
        end = egc.sample(1, start=start[None], eta=0.0)[0]
        torch.testing.assert_close(found[row], end, rtol=0, atol=1e-5)
    assert float((found[1:] - found[:-1]).flatten(1).norm(dim=1).max()) < float((found[-1] - found[0]).norm())
    method = Recorder()
    x = tasks.interpolate(method, images(1, 2, 2), -images(1, 2, 2, seed=1), 3, seed=4)
    assert x.shape == (3, 1, 2, 2) and method.calls == [dict(n=3, seed=4, label=None, shared="all")]


# --- baselines


def test_fillings_by_hand():
    train = images(20, 1, 4, 4, seed=5)
    x = images(3, 1, 4, 4, seed=6)
    mask = torch.stack([masks.half((4, 4)), masks.centre_square((4, 4)), masks.half((4, 4), "top")])[:, None]
    hidden = torch.where(mask, x, math.nan)
    mean, nearest = tasks.mean_fill(hidden, mask, train), tasks.nearest_fill(hidden, mask, train)
    for i in range(3):
        m, one = mask[i].numpy(), x[i].numpy()
        np.testing.assert_allclose(mean[i].numpy(), np.where(m, one, train.numpy().mean(0)), atol=1e-6)
        best = min(range(20), key=lambda j: ((train[j].numpy() - one) ** 2)[m].sum())
        np.testing.assert_array_equal(nearest[i].numpy(), np.where(m, one, train[best].numpy()))
    same = tasks.nearest_fill(train[7:8], mask[0], train)
    assert torch.equal(same, train[7:8]), "an image of the training set is found again"


# --- wrong input


def unable() -> Recorder:
    method = Recorder((1, 8, 8))
    method.abilities = frozenset()
    return method


def toy() -> Recorder:
    return Recorder((2,))


X, M = images(2, 1, 8, 8), masks.half((8, 8))
BAD = {
    "no constraint": (lambda: tasks.inpaint(unable(), X, M), "inpaint: this recorder model, as it is configured, cannot do that"),
    "no reconstruct": (lambda: tasks.reconstruct(unable(), X), "needed is the ability 'reconstruct'"),
    "search and posterior": (lambda: tasks.inpaint(unable(), X, M, search=5, posterior=True), "two ways of filling in; give one of them"),
    "no search": (lambda: tasks.inpaint(unable(), X, M, search=5), "inpaint with a search: this recorder model"),
    "no latents": (lambda: tasks.latents(unable(), X), "needed is the ability 'invert'"),
    "no start": (lambda: tasks.interpolate(unable(), X[0], X[1]), "needed is the ability 'start'"),
    "no denoise": (lambda: tasks.denoise(unable(), X, 0.3), "needed is the ability 'denoise'"),
    "toy": (lambda: tasks.inpaint(toy(), X, M), "for models of images; this recorder was trained on points of shape (2,)"),
    "toy denoise": (lambda: tasks.denoise(toy(), X, 0.3), "for models of images"),
    "option": (lambda: tasks.inpaint(Recorder((1, 8, 8)), X, M, labl=3), "not take this sampling option: 'labl' (did you mean 'label'?)"),
    "completions": (lambda: tasks.inpaint(Recorder((1, 8, 8)), X, M, completions=0), "must be a whole number of 1 or more, got 0"),
    "range": (lambda: tasks.inpaint(Recorder((1, 8, 8)), 2 * X, M), "need [−1, 1]"),
    "nan": (lambda: tasks.inpaint(Recorder((1, 8, 8)), X + math.nan, M), "known pixels: 2 of 2 images hold NaN"),
    "int": (lambda: tasks.inpaint(Recorder((1, 8, 8)), X.int(), M), "need floating-point"),
    "size": (lambda: tasks.inpaint(Recorder((1, 4, 4)), X, M), "does not fit images [2, 1, 4, 4]"),
    "channels": (lambda: tasks.inpaint(Recorder((3, 8, 8)), X, M), "the operator makes [2, 3, 8, 8] of 2 images"),
    "mask size": (lambda: tasks.inpaint(Recorder((1, 8, 8)), X, M[:4]), "got shape [1, 1, 4, 8], which does not fit"),
    "mask values": (lambda: operators.mask(torch.tensor([[0.5, 1.0]])), "values must be 1 (known) or 0 (missing)"),
    "nothing known": (lambda: tasks.inpaint(Recorder((1, 8, 8)), X, torch.zeros(8, 8)), "nothing is known by 1 of 1 masks"),
    "nothing missing": (lambda: tasks.inpaint(Recorder((1, 8, 8)), X, torch.ones(8, 8)), "nothing is missing from 1 of 1 masks"),
    "nothing known of one": (
        lambda: tasks.inpaint(Recorder((1, 8, 8)), X, torch.stack([torch.zeros(1, 8, 8), torch.eye(8)[None]])),
        "nothing is known by 1 of 2 masks",
    ),
    "mask axes": (lambda: operators.mask(torch.ones(3)), "got shape [3], need [H, W]"),
    "measurement": (lambda: tasks.restore(Recorder((1, 8, 8)), X, operators.average_pool(2)), "the operator makes [2, 1, 4, 4]"),
    "nan measurement": (lambda: tasks.restore(Recorder((1, 8, 8)), X / 0, operators.blur(1.0)), "2 of 2 measurements hold NaN"),
    "no measurement": (lambda: tasks.restore(Recorder((1, 8, 8)), X[:0], operators.blur(1.0)), "B ≥ 1"),
    "std": (lambda: tasks.denoise(gaussian_method(), images(1, *SHAPE), 0.0), "std must be above 0 and finite, got 0.0"),
    "denoise nan": (lambda: tasks.denoise(gaussian_method(), images(1, *SHAPE) + math.inf, 0.1), "1 of 1 images hold NaN or infinity"),
    "denoise shape": (lambda: tasks.denoise(gaussian_method(), X, 0.1), "need floating-point [N, 1, 3, 3]"),
    "pool": (lambda: operators.average_pool(3).forward(X), "sides of images [2, 1, 8, 8] do not divide by 3"),
    "pool 0": (lambda: operators.average_pool(0), "the factor must be a whole number of 1 or more, got 0"),
    "grey": (lambda: operators.grey().forward(X), "made for images of 3 channels"),
    "blur": (lambda: operators.blur(), "give either std or a kernel"),
    "blur std": (lambda: operators.blur(-1.0), "std must be above 0 and finite, got -1.0"),
    "blur kernel": (lambda: operators.blur(kernel=torch.ones(2, 3)), "need [h, w] with odd sides"),
    "blur zero": (lambda: operators.blur(kernel=torch.zeros(3, 3)), "nothing but 0"),
    "blur size": (lambda: operators.blur(kernel=torch.ones(9, 9)).forward(X), "is larger than images of 8 × 8"),
    "blur threshold": (lambda: operators.blur(1.0, threshold=1.0), "the threshold must be in [0, 1), got 1.0"),
    "matrix": (lambda: operators.matrix(torch.ones(3, 5), (2, 2)), "got shape [3, 5], need [m, 4]"),
    "matrix nan": (lambda: operators.matrix(torch.ones(3, 4) / 0, (2, 2)), "NaN or infinity"),
    "square": (lambda: operators.from_function(torch.square, (2, 2)), "not linear"),
    "affine": (lambda: operators.from_function(lambda x: 3 * x + 1, (2, 2)), "not linear"),
    "cosine": (lambda: operators.from_function(lambda x: x.sin(), (2, 2)), "not linear"),
    "rows": (lambda: operators.from_function(lambda x: x.sum(0), (3, 2)), "one finite floating-point row for each image"),
    "large": (lambda: operators.from_function(lambda x: x, (3, 64, 64)), "at most 4096 entries"),
    "operator": (lambda: operators.named("pol:2", (1, 8, 8)), "unknown operator 'pol:2' (did you mean 'pool'?)"),
    "operator value": (lambda: operators.named("pool:two", (1, 8, 8)), "'two' is not a number"),
    "mask name": (lambda: masks.named("center:0.2", (8, 8)), "unknown mask 'center:0.2' (did you mean 'centre'?)"),
    "mask share": (lambda: masks.named("centre:much", (8, 8)), "'much' is not a share"),
    "share": (lambda: masks.irregular((8, 8), 1.0), "the missing share must be between 0 and 1, got 1.0"),
    "share nan": (lambda: masks.centre_square((8, 8), math.nan), "must be between 0 and 1"),
    "side": (lambda: masks.half((8, 8), "botom"), "unknown side 'botom' (did you mean 'bottom'?)"),
    "mask shape": (lambda: masks.half((8,)), "need [H, W] or [C, H, W]"),
    "opposite": (lambda: tasks.slerp(X[0], -X[0], torch.linspace(0, 1, 3)), "opposite directions"),
    "zero": (lambda: tasks.slerp(X[0], 0 * X[0], torch.linspace(0, 1, 3)), "not all zero"),
    "slerp shapes": (lambda: tasks.slerp(X[0], X, torch.linspace(0, 1, 3)), "slerp: got shapes [1, 8, 8], [2, 1, 8, 8] and [3]"),
    "ends": (lambda: tasks.interpolate(Recorder((1, 4, 4)), X[0], X[1]), "got a of torch.float32 [1, 8, 8], need floating-point [1, 4, 4]"),
    "steps": (lambda: tasks.interpolate(Recorder((1, 8, 8)), X[0], X[1], 1), "steps must be a whole number of 2 or more, got 1"),
    "noise on the way": (lambda: tasks.interpolate(gaussian_method(), *images(2, *SHAPE)), "needed is the ability 'start'"),
    "start": (lambda: gaussian_method().sample(2, start=images(3, *SHAPE)), "start must have shape (2, 1, 3, 3), got (3, 1, 3, 3)"),
    "jumps": (lambda: tasks.inpaint(gaussian_method(chain=MALA()), images(1, *SHAPE), CORNERS), "needed is the ability 'constraint'"),
    "diversity": (lambda: tasks.diversity(X[None], M), "need [K, B, C, H, W] with K ≥ 2"),
    "diversity mask": (lambda: tasks.diversity(torch.stack([X, X]), torch.ones(8, 8)), "the mask leaves nothing to fill in"),
    "consistency": (lambda: tasks.consistency(operators.average_pool(2), X, X), "A x has shape [2, 1, 4, 4], y [2, 1, 8, 8]"),
    "train": (lambda: tasks.mean_fill(X, M, X[:, :, :4]), "need floating-point [B, 1, 4, 8] as in train"),
    "train range": (lambda: tasks.nearest_fill(X, M, 3 * X), "train: values from"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_wrong_input_is_refused(case):
    call, words = BAD[case]
    with pytest.raises(InputError) as caught:
        call()
    assert words in str(caught.value) and "\n" not in str(caught.value)


# --- methods whose samples are a function of their start


@pytest.fixture(scope="module")
def coopflow():
    """Untrained, but for the norms of its flow."""
    flow = Flow(scales=2, couplings=1, width=8, depth=1, mixtures=2, grey_values=17)
    chain = Langevin(steps=3, step=0.3, noise=0.0, clip=0.1, clamp=True)
    method = tw.method("coopflow/digits", seed=0, net=MLP(width=16, depth=2), initializer=flow, chain=chain)
    method.initializer.initialise(images(32, 1, 8, 8), 0.5 + 0 * images(32, 1, 8, 8))
    return method


def test_reconstruction_is_the_method_s_own_in_parts(coopflow, monkeypatch):
    x = images(5, 1, 8, 8)
    assert torch.equal(tasks.reconstruct(coopflow, x, steps=4, seed=2), coopflow.reconstruct(x, steps=4, seed=2).x)
    monkeypatch.setattr(importlib.import_module("thalweg.tasks.reconstruction"), "ROWS", 2)
    found = tasks.reconstruct(coopflow, x, steps=4, seed=2)
    parts = [coopflow.reconstruct(part, steps=4, seed=2 + i).x for i, part in enumerate(x.split(2))]
    assert torch.equal(found, torch.cat(parts))


def test_a_search_keeps_known_pixels_and_completions_differ(coopflow):
    x, mask = images(3, 1, 8, 8), masks.half((8, 8), "bottom")
    known = mask.bool().expand(3, 1, 8, 8)
    filled = tasks.inpaint(coopflow, x, mask, completions=2, seed=1, search=30)
    assert torch.equal(filled[:, known], x[known].expand(2, -1))
    assert not torch.equal(filled[0], filled[1])
    other = torch.where(known, x, -x)
    assert torch.equal(tasks.inpaint(coopflow, other, mask, completions=2, seed=1, search=30), filled)
    # what the chain made of the known pixels before they were put back; one step of search leaves them further away
    far, near = ((coopflow.reconstruct(x * mask, mask, steps=n, seed=1).x - x)[known].square().mean() for n in (1, 30))
    assert near < far


def test_a_search_takes_the_model_s_own_options(coopflow):
    x, mask = images(3, 1, 8, 8), masks.half((8, 8), "bottom")
    filled = tasks.inpaint(coopflow, x, mask, completions=1, seed=1, search=3, draws=20, tries=2, prior=0.1)
    seed = random.seeded(1, 13, 0, 0).initial_seed()
    known = mask.float().expand(3, 1, 8, 8)
    found = coopflow.reconstruct(known * x, known, steps=3, draws=20, tries=2, prior=0.1, seed=seed).x
    assert torch.equal(filled[0], torch.where(known.bool(), x, found))
    with pytest.raises(InputError, match="with search there is no option resample; coopflow has rate, draws, tries, prior"):
        tasks.inpaint(coopflow, x, mask, search=3, resample=2)


def test_interpolation_between_images_goes_through_their_latents(coopflow):
    ends = images(2, 1, 8, 8)
    z = tasks.latents(coopflow, ends, seed=3)
    x = tasks.interpolate(coopflow, z[0], z[1], 5)
    found = coopflow.reconstruct(ends, seed=3)
    torch.testing.assert_close(z, found.latent)
    torch.testing.assert_close(x[[0, -1]], coopflow.sample(2, start=z), rtol=0, atol=1e-5)
    torch.testing.assert_close(coopflow.sample(2, start=z, step_ratio=1.0), found.x, rtol=0, atol=1e-4)


def test_latents_of_a_diffusion_give_the_images_back(egc):
    x = images(2, 1, 8, 8)
    z = tasks.latents(egc, x)
    assert torch.equal(z, egc.invert(x, seed=0))


# --- the command


@pytest.fixture(scope="module")
def model(egc, tmp_path_factory):
    root = tmp_path_factory.mktemp("tasks")
    tw.save(egc, root / "model")
    np.savez(root / "three.npz", x=images(3, 1, 8, 8).numpy())
    from PIL import Image

    Image.fromarray(np.where(masks.half((8, 8)).numpy(), 255, 0).astype(np.uint8)).save(root / "mask.png")
    return root


def test_apply_reconstructs_and_searches(coopflow, model, monkeypatch, capsys):
    monkeypatch.chdir(model)
    tw.save(coopflow, model / "coopflow")
    x = images(3, 1, 8, 8)

    def run(line: str) -> dict[str, np.ndarray]:
        assert main(f"apply {line} --out out.npz".split()) == 0, capsys.readouterr().err
        return dict(np.load("out.npz"))

    found = run("reconstruct coopflow --input three.npz --search 3 --seed 4")
    assert (found["reconstructed"] == tasks.reconstruct(coopflow, x, steps=3, seed=4).numpy()).all() and (found["x"] == x.numpy()).all()
    found = run("inpaint coopflow --input three.npz --mask half:bottom --search 3 --completions 2")
    wanted = tasks.inpaint(coopflow, x, masks.half((8, 8), "bottom"), completions=2, search=3)
    assert (found["completions"] == wanted.numpy()).all()
    found = run("interpolate coopflow --input three.npz --steps 3")
    z = tasks.latents(coopflow, x[:2])
    np.testing.assert_allclose(found["x"], tasks.interpolate(coopflow, z[0], z[1], 3).numpy(), atol=1e-5)
    np.savez("one.npz", x=x[:1].numpy())
    assert main(["apply", "interpolate", "coopflow", "--input", "one.npz", "--out", "out.npz"]) == 2
    assert "there is only one" in capsys.readouterr().err


def test_apply_writes_arrays(model, monkeypatch, capsys, egc):
    monkeypatch.chdir(model)
    x = images(3, 1, 8, 8)

    def run(line: str) -> dict[str, np.ndarray]:
        assert main(f"apply {line} --out out.npz".split()) == 0, capsys.readouterr().err
        assert capsys.readouterr().out == "out.npz\n"
        return dict(np.load("out.npz"))

    found = run("inpaint model --input three.npz --mask mask.png --completions 2 --seed 3")
    assert {key: a.shape for key, a in found.items()} == {
        "x": (3, 1, 8, 8), "y": (3, 1, 8, 8), "completions": (2, 3, 1, 8, 8), "mask": (3, 1, 8, 8)
    }  # fmt: skip
    mask = masks.half((8, 8))
    assert (found["mask"] == mask.numpy()).all() and (found["y"] == (x * mask).numpy()).all()
    assert (found["completions"] == tasks.inpaint(egc, x, mask, completions=2, seed=3).numpy()).all()
    found = run("inpaint model --input three.npz --resample 2")
    assert (found["completions"] == tasks.inpaint(egc, x, masks.centre_square((8, 8)), resample=2).numpy()).all()
    found = run("restore model --input three.npz --operator pool:2 --completions 1")
    operator = operators.average_pool(2)
    assert (found["y"] == operator.forward(x).numpy()).all() and "mask" not in found
    assert (found["completions"] == tasks.restore(egc, operator.forward(x), operator, completions=1).numpy()).all()
    found = run("denoise model --input three.npz --std 0.4")
    assert (found["denoised"] == tasks.denoise(egc, x, 0.4).numpy()).all() and (found["y"] == found["x"]).all()
    found = run("denoise model --input three.npz --std 0.4 --add-noise")
    assert 0.3 < (found["y"] - found["x"]).std() < 0.5
    assert (found["denoised"] == tasks.denoise(egc, torch.from_numpy(found["y"]), 0.4).numpy()).all()
    one, other, back = (run(f"interpolate model --steps 4{more}")["x"] for more in ("", " --seeds 0,2", " --seeds 1,0"))
    assert one.shape == (4, 1, 8, 8) and not (one == other).all()
    np.testing.assert_allclose(one, back[::-1], atol=1e-5)


@pytest.mark.parametrize(
    ("line", "rows", "columns"),
    [
        ("inpaint model --input three.npz --mask irregular:0.3 --completions 3", 3, 5),
        ("restore model --input three.npz --operator blur:1.0", 3, 6),
        ("restore model --input three.npz --operator mask:mask.png --completions 1", 3, 3),
        ("denoise model --input three.npz --std 0.4", 3, 2),
        ("denoise model --input three.npz --std 0.4 --add-noise", 3, 3),
        ("interpolate model --seeds 5,6 --steps 7", 1, 7),
    ],
)
def test_apply_draws_a_row_an_image(line, rows, columns, model, monkeypatch):
    from PIL import Image

    monkeypatch.chdir(model)
    assert main(f"apply {line} --out out.png".split()) == 0
    with Image.open("out.png") as picture:
        pixels = np.asarray(picture.convert("L")).astype(float) / 127.5 - 1
    assert pixels.shape == (34 * rows + 2, 34 * columns + 2)  # 8 pixels four times as large, and a rim of 2
    if "--input" in line:
        x = images(3, 1, 8, 8)
        for row in range(rows):
            shown = pixels[34 * row + 4 : 34 * row + 36 : 4, 4:36:4]
            np.testing.assert_allclose(shown, x[row, 0].numpy(), atol=0.01)


def test_classify_and_detect_still_write_json(model, monkeypatch, egc):
    monkeypatch.chdir(model)
    x = images(3, 1, 8, 8)
    assert main(["apply", "classify", "model", "--input", "three.npz", "--out", "c.json"]) == 0
    rows = json.loads((model / "c.json").read_text())
    assert [int(row["class"]) for row in rows] == egc.classify(x).argmax(1).tolist() and rows[2]["input"] == "three.npz[2]"
    assert tasks.detect(torch.tensor([1.0, 9.0]), torch.tensor([0.0, 2.0, 3.0, 4.0]))[0] == {"energy": 1.0, "inliers_above": 0.75}


def test_detect_compares_by_another_score_with_held_out_images(model, monkeypatch, capsys):
    """By all levels, of which training images are the reference: black and grey pictures are unlike all digits."""
    monkeypatch.chdir(model)
    digits = tw.data.load("digits", "test").all().x[:20]
    np.savez("some.npz", x=torch.cat([digits, torch.full((2, 1, 8, 8), -1.0), torch.zeros(2, 1, 8, 8)]).numpy())
    assert main(["apply", "detect", "model", "--input", "some.npz", "--score", "levels", "--data", "digits", "--out", "l.json"]) == 0
    rows = json.loads((model / "l.json").read_text())
    share = torch.tensor([row["inliers_above"] for row in rows])
    assert set(rows[0]) >= {"levels", "inliers_above"} and 0.2 < float(share[:20].mean()) < 0.8 and float(share[20:].max()) < 0.1
    assert main(["apply", "detect", "model", "--input", "some.npz", "--score", "level", "--out", "l.json"]) == 2
    assert "levels" in capsys.readouterr().err
