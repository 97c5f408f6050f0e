"""Outlier scores on an energy whose values, gradients and class probabilities are known, and the table over all of them."""

import math

import pytest
import torch
from torch import Tensor, nn

import thalweg as tw
from thalweg import random
from thalweg.errors import InputError
from thalweg.evaluate.scores import SCORES, _mixture, fitting_scores, ood_table, outlier_scores


class TwoClasses(nn.Module):
    """Two Gaussians N(±1, I): E(x) = −logsumexp over y of −‖x − m_y‖²/2, so that min over y of E(x, y) = min ‖x − m_y‖²/2."""

    name = "two"
    abilities = frozenset({"energy", "classify"})

    def __init__(self) -> None:
        super().__init__()
        self.means = nn.Parameter(torch.stack([torch.ones(4), -torch.ones(4)]))

    def _logits(self, x: Tensor) -> Tensor:
        return -torch.cdist(x.flatten(1), self.means).square() / 2

    def energy(self, x: Tensor) -> Tensor:
        return -self._logits(x).logsumexp(1)

    def classify(self, x: Tensor) -> Tensor:
        return self._logits(x)  # not normalised, as a plain classifier gives them


class Gaussian(nn.Module):
    """N(0, 4 I), which classifies nothing."""

    name = "gaussian"
    abilities = frozenset({"energy"})

    def __init__(self) -> None:
        super().__init__()
        self.std = nn.Parameter(torch.tensor(2.0))

    def energy(self, x: Tensor) -> Tensor:
        return tw.energy.gaussian(x, self.std)


def draws(n: int, seed: int, scale: float = 1.0) -> Tensor:
    return scale * random.normal(n, 1, 2, 2, generator=random.seeded(31, seed))


@pytest.mark.parametrize("batch", [3, 512])
def test_scores_are_what_they_are_called(batch):
    two, x = TwoClasses(), draws(10, 0)
    squares = torch.stack([(x.flatten(1) - m).square().sum(1) for m in two.means.detach()])
    found = outlier_scores(two, x, reference=draws(50, 1), batch=batch)
    assert tuple(found) == tuple(name for name in SCORES if name != "levels")
    torch.testing.assert_close(found["energy"], -(-squares / 2).logsumexp(0))
    torch.testing.assert_close(found["joint"], squares.amin(0) / 2)
    assert all(not value.requires_grad for value in found.values()) and two.means.grad is None and two.means.requires_grad

    wide = Gaussian()
    torch.testing.assert_close(outlier_scores(wide, x, ["mass"], batch=batch)["mass"], x.flatten(1).norm(dim=1) / 4)
    reference = draws(50, 1)
    centre = reference.flatten(1).square().sum(1).mean() / 8
    expected = (x.flatten(1).square().sum(1) / 8 - centre).abs()
    torch.testing.assert_close(outlier_scores(wide, x, ["typicality"], reference=reference, batch=batch)["typicality"], expected)


def test_the_centre_of_a_gaussian_is_an_outlier_by_typicality_alone():
    """In 4 dimensions of width 2, points at the centre are the likeliest of all and yet none of them is ever drawn."""
    wide, inliers = Gaussian(), draws(500, 2, scale=2.0)
    centre = draws(500, 3, scale=0.05)
    reports, values = ood_table(wide, inliers, {"centre": centre}, reference=draws(500, 4, scale=2.0), bootstrap=100)
    assert list(reports) == ["energy", "mass", "typicality"] == list(fitting_scores(wide))
    assert reports["energy"]["centre"].auroc < 0.01 and reports["mass"]["centre"].auroc < 0.01
    # |χ²₄/2 − 2| of inliers against 2 at the centre: P(|χ²₄/2 − 2| < 2) = P(χ²₄ < 8)
    expected = 1 - math.exp(-4) * 5
    error = math.sqrt(expected * (1 - expected) / 500)
    assert abs(reports["typicality"]["centre"].auroc - expected) < 4.5 * error
    assert set(values["mass"]) == {"held-out", "centre"} and values["mass"]["centre"].shape == (500,)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("energi", {}, "unknown score 'energi' (did you mean 'energy'"),
        ("joint", {}, "needs a model that classifies; gaussian does not"),
        ("typicality", {}, "needs training examples"),
        ("typicality", {"reference": torch.zeros(0, 1, 2, 2)}, "needs training examples"),
    ],
)
def test_wrong_scores_are_named(name, options, message):
    with pytest.raises(InputError) as error:
        outlier_scores(Gaussian(), draws(4, 0), [name], **options)
    assert message in str(error.value)


def exact_diffusion():
    """One whose levels are discrete, with a constant of its own at each."""
    model = tw.method("egc/vectors", shape=(64,), classes=0, **{"net.width": 8, "net.depth": 1})
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    energy, slopes = model.energy, model.slopes
    model.slopes = lambda x, sigma: tuple(part + shift for part, shift in zip(slopes(x, sigma=sigma), (300 / sigma, 0, -70 * sigma)))
    model.energy = lambda x, **at: energy(x, **at) + 300
    return model


@pytest.mark.parametrize("exact", [
    lambda: tw.method("dual/vectors", shape=(64,), **{"net.width": 8, "net.depth": 1, "waves": 0}), exact_diffusion,
], ids=["continuous", "discrete"])  # fmt: skip
def test_levels_tell_constants_and_noise_from_gaussian_data(exact):
    """Of an exact model of N(0, I) in 64 dimensions: points at the centre, which are the likeliest, and far ones alike."""
    model = exact()
    draw = [random.normal(400, 64, generator=random.seeded(7, part)) for part in range(2)]
    others = {"centre": 0.3 * draw[1], "far": 1.5 * draw[1]}
    reports, _ = ood_table(model, draw[1], others, scores=("energy", "levels"), reference=draw[0], bootstrap=20)
    assert reports["energy"]["centre"].auroc < 0.01
    assert reports["levels"]["centre"].auroc > 0.99 and reports["levels"]["far"].auroc > 0.99
    same, _ = ood_table(model, draw[1], {"same": random.normal(400, 64, generator=random.seeded(7, 3))}, scores=("levels",),
                        reference=draw[0], bootstrap=20)  # fmt: skip
    # the standard error of an AUROC of two sets of n from one law is √((2n + 1)/(12 n²))
    assert abs(same["levels"]["same"].auroc - 0.5) < 4.5 * math.sqrt(801 / (12 * 400**2))


def test_levels_need_a_reference_and_noise_levels():
    model = tw.method("dual/vectors", shape=(2,), **{"net.width": 8, "net.depth": 1, "waves": 0})
    x = torch.zeros(3, 2)
    with pytest.raises(tw.InputError, match="'levels' needs training examples"):
        outlier_scores(model, x, ["levels"])
    with pytest.raises(tw.InputError, match="30 training examples"):
        outlier_scores(model, x, ["levels"], reference=x)
    with pytest.raises(tw.InputError, match="energies at many noise levels"):
        outlier_scores(Gaussian(), x, ["levels"], reference=x)


def test_levels_are_left_out_where_examples_are_few_and_nobody_asked_for_them():
    model = tw.method("dual/vectors", shape=(2,), **{"net.width": 8, "net.depth": 1, "waves": 0})
    x = torch.zeros(3, 2)
    assert "levels" not in ood_table(model, x, {"same": x}, reference=x, bootstrap=20)[0]


def test_levels_of_a_trained_diffusion_tell_constants_that_its_energy_takes_for_digits():
    train, test = (tw.data.load("digits", split) for split in ("train", "test"))
    model = tw.fit(tw.method("egc/digits", seed=0, data=train, images=6_400), train, seed=0, progress=False)
    x = test.all().x[:200]
    faint = 1e-3 * random.normal(100, 1, 8, 8, generator=random.seeded(5))
    kinds = {"white": 1.0 + faint, "constant": tw.evaluate.outliers("constant", x, 200)}
    reports, _ = ood_table(model, x, kinds, scores=("energy", "levels"), reference=train.all().x[:400], bootstrap=20)
    assert reports["energy"]["white"].auroc < 0.5, "what is lighter than a digit has no more energy"
    assert all(reports["levels"][kind].auroc > max(0.95, reports["energy"][kind].auroc) for kind in kinds)


def test_several_gaussians_describe_what_has_several_kinds_and_one_what_has_one():
    g = random.seeded(11)
    one = random.normal(1200, 6, generator=g)
    assert _mixture(one.numpy()) is None and _mixture(one[:300].numpy()) is None  # too few to hold some out
    centres = torch.tensor([[-3.0] + 5 * [0.0], [3.0] + 5 * [0.0]])
    two = centres[torch.arange(1200) % 2] + 0.3 * one
    mixture = _mixture(two.numpy())
    within, between = (torch.as_tensor(mixture.score_samples(x.numpy())) for x in (two[:100], 0.3 * one[:100]))
    assert mixture.n_components >= 2 and within.min() > between.max()
