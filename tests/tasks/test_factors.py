"""Factors as energies of latents: a composition has the density that it says, and objects with what was asked for."""

import math

import pytest
import torch

import thalweg as tw
from thalweg import random, tasks
from thalweg.chain import Langevin
from thalweg.errors import InputError
from thalweg.scene.fields import RadianceField
from thalweg.scene.specs import Amortized, EnergyPrior, GaussianPrior, InferenceNet, Rays

TINY = dict(
    shape=(3, 8, 8), dim_appearance=3, dim_shape=2, field=RadianceField(width=8, depth=2, mapping=8, mapping_layers=2, octaves=2),
    prior=GaussianPrior(), renderer=Rays(samples=4, rays=6), learner=Amortized(inference=InferenceNet(widths=(8,), blocks=(0,))),
)  # fmt: skip
BOUND = 4.5  # standard errors
Z = random.normal(1500, 5, generator=random.seeded(221))


def method(**fields):
    return tw.method("nerf_lebm/objects", seed=0, **(TINY | fields))


@pytest.mark.parametrize("prior", [GaussianPrior(), EnergyPrior(width_appearance=8, width_shape=8, chain=Langevin(steps=40, step=0.4))])
def test_a_composition_has_the_density_of_the_summed_energies(prior):
    """N(0, I) times (z₀ − 2)²/2, twice: N(4/3, 1/3) in z₀ and N(0, 1) elsewhere; a new prior is its reference."""
    n, found = 2000, torch.cat(tasks.compose_factors(method(prior=prior), [lambda z: (z[:, 0] - 2).square() / 2], 2000, weights=[2.0]), 1)
    variance = torch.tensor([1 / 3, 1, 1, 1, 1])
    variance = variance / (1 - 0.4**2 / (4 * variance))  # of an unadjusted step s
    wanted = torch.tensor([4 / 3, 0, 0, 0, 0])
    assert ((found.mean(0) - wanted).abs() < BOUND * (variance / n).sqrt()).all()
    assert ((found.var(0) - variance).abs() < BOUND * variance * math.sqrt(2 / n)).all()


def test_objects_have_the_factors_that_were_asked_for():
    """z₀ > 0.5 and z₄ < −0.5, which 31 % of the prior's objects have, each by itself."""
    has = [Z[:, 0] > 0.5, Z[:, 4] < -0.5]
    factors = [tasks.fit_factor(Z, one, steps=250) for one in has]
    assert min(factor.accuracy for factor in factors) > 0.9
    m = method()

    def share(factors, weights=None) -> list[float]:
        found = torch.cat(tasks.compose_factors(m, factors, 500, weights=weights, seed=1), 1)
        high, low = found[:, 0] > 0.5, found[:, 4] < -0.5
        return [float(part.float().mean()) for part in (high, low, high & low)]

    assert share(factors, [3.0, 3.0])[2] > 0.9
    assert min(share(factors)[:2]) > 0.75, "with weights of 1 by the classifier's own measure"
    high, low, _ = share(factors[:1], [3.0])
    assert high > 0.9 and abs(low - 0.31) < 0.1, "what was not asked for is as it is in the prior"
    assert share(factors[:1], [-1.0])[0] < 0.1


def test_a_factor_is_an_energy_and_the_same_each_time():
    one, two = (tasks.fit_factor(Z, Z[:, 1] > 0, steps=20, seed=seed) for seed in (3, 3))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values()))
    torch.testing.assert_close(one(Z).neg().exp() + torch.sigmoid(-one.logit(Z)), torch.ones(len(Z)))


def test_wrong_input_is_named():
    few = torch.arange(len(Z)) < 9
    with pytest.raises(InputError, match="10 objects with the factor and 10 without, got 9 of 1500"):
        tasks.fit_factor(Z, few)
    with pytest.raises(InputError, match=r"bool \[N\]; got \[1500, 5\] and float32 \[1500\]"):
        tasks.fit_factor(Z, few.float())
    with pytest.raises(InputError, match="one weight for each factor, got 1 factors and 2 weights"):
        tasks.compose_factors(method(), [lambda z: z[:, 0]], 3, weights=[1.0, 2.0])
    with pytest.raises(InputError, match="got 0 factors"):
        tasks.compose_factors(method(), [], 3)
    with pytest.raises(InputError, match="compose_factors is for models of images"):
        tasks.compose_factors(tw.method("dual/8gaussians"), [lambda z: z[:, 0]], 3)
