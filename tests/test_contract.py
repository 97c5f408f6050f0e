"""The contract of an energy and of a sampler's arguments, checked at one gate: a message, never a silent wrong answer."""

import math
import warnings

import numpy
import pytest
import torch
from torch import nn

import thalweg as tw
from thalweg import random, sample
from thalweg.energy import check_energy, score
from thalweg.errors import Diverged, InputError

SAMPLERS = {"langevin": sample.langevin, "mala": sample.mala, "hmc": sample.hmc}


def bowl(x):
    return x.square().sum(1) / 2


WRONG = {
    "[B, 1]": (lambda x: bowl(x)[:, None], r"\[50\], got float32 \[50, 1\]; drop the last axis: .squeeze\(1\)"),
    "mean": (lambda x: bowl(x).mean(), r"got float32 \[\]; a mean or sum over the batch"),
    "mean kept": (lambda x: bowl(x).mean(0, keepdim=True), r"got float32 \[1\]; a mean or sum over the batch"),
    "[B, D]": (lambda x: x.square(), r"got float32 \[50, 2\]; add up all but the first axis"),
    "integers": (lambda x: bowl(x).long(), r"got int64 \[50\]"),
    "no tensor": (lambda x: 3.0, "got float"),
    "argmax": (lambda x: x.argmax(1).float(), "does not depend on x through differentiable operations"),
    "detached": (lambda x: bowl(x.detach()), "does not depend on x"),
    "of parameters only": (lambda x: nn.Parameter(torch.ones(())).expand(len(x)) * 1.0, "does not depend on x"),
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_is_no_energy_is_refused_by_every_sampler(kind, sampler):
    energy, message = WRONG[kind]
    with pytest.raises(InputError, match=message):
        SAMPLERS[sampler](energy, torch.zeros(50, 2), steps=2, step=0.1)
    with pytest.raises(InputError, match=message):
        score(energy, torch.ones(50, 2))


def test_jumps_and_partition_functions_ask_the_same():
    with pytest.raises(InputError, match="squeeze"):
        sample.independence(
            lambda x: bowl(x)[:, None], torch.zeros(5, 2), propose=lambda n: torch.zeros(n, 2), proposal_energy=bowl, steps=1
        )


def test_one_row_is_a_batch():
    assert SAMPLERS["mala"](bowl, torch.ones(1, 2), steps=3, step=0.1).shape == (1, 2)


@pytest.mark.parametrize("x", [torch.zeros(4, 2, dtype=torch.long), [[0.0, 1.0]], torch.zeros(4, 2, dtype=torch.bool)])
def test_a_start_must_be_floating_point(x):
    with pytest.raises(InputError, match="floating-point tensor"):
        score(bowl, x)


KNOBS = [
    (dict(step=0.0), "step must be finite and above 0, got 0"),
    (dict(step=-0.3), "step must be finite and above 0, got -0.3"),
    (dict(step=math.nan), "step must be finite and above 0, got nan"),
    (dict(step=math.inf), "step must be finite"),
    (dict(steps=-5), "steps must be a whole number, 0 or more, got -5"),
    (dict(steps=2.5), "steps must be a whole number"),
    (dict(step=[0.1, 0.1]), "step has 2 numbers for 50 steps"),
    (dict(step=lambda i: 0.1 if i < 3 else -1.0), "got -1"),
]


@pytest.mark.parametrize(("options", "message"), KNOBS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_knobs_that_cannot_be_meant(options, message, sampler):
    with pytest.raises(InputError, match=message):
        SAMPLERS[sampler](bowl, torch.ones(5, 2), **({"steps": 50, "step": 0.3} | options))


def test_other_knobs():
    with pytest.raises(InputError, match="leapfrog must be 1 or more"):
        sample.hmc(bowl, torch.ones(5, 2), steps=3, leapfrog=0)
    with pytest.raises(InputError, match="noise must be finite and at least 0, got -1"):
        sample.langevin(bowl, torch.ones(5, 2), steps=3, noise=-1.0)
    start = torch.ones(5, 2)
    plain = sample.langevin(bowl, start, steps=3, step=0.25, generator=random.seeded(0))
    for step in (torch.full((3,), 0.25), numpy.full(3, 0.25), torch.tensor(0.25), numpy.float32(0.25), [0.25] * 3):
        assert torch.equal(sample.langevin(bowl, start, steps=numpy.int64(3), step=step, generator=random.seeded(0)), plain)


def exponential(x):
    return torch.where(x > 0, 3 * x, torch.inf).sum(1)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_chains_that_begin_or_end_outside_the_support_are_told(sampler):
    outside = torch.full((100, 1), -5.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(Diverged, match="the energy is infinite at the start of 100 of 100 chains"):
            SAMPLERS[sampler](exponential, outside, steps=30, step=0.1, generator=random.seeded(0))
        with pytest.raises(Diverged, match="NaN"):
            SAMPLERS[sampler](lambda x: x.sum(1) * math.nan, -outside, steps=3, step=0.1, generator=random.seeded(0))


def test_langevin_that_leaves_the_support_is_told_and_mala_stays():
    inside = torch.full((1000, 1), 0.3)
    with pytest.raises(Diverged, match="ended where the energy is infinite"):
        sample.langevin(exponential, inside, steps=300, step=0.3, generator=random.seeded(0))
    x = sample.mala(exponential, inside, steps=600, step=0.3, generator=random.seeded(0))
    assert abs(float(x.mean()) - 1 / 3) < 4.5 / 3 / 1000**0.5


@pytest.mark.parametrize("sampler", ["mala", "hmc"])
def test_chains_of_which_no_proposal_was_accepted_are_told(sampler):
    with pytest.warns(UserWarning, match=f"{sampler}: none of 50 × 100 proposals was accepted; lower the step"):
        SAMPLERS[sampler](bowl, torch.ones(100, 2), steps=50, step=50.0, generator=random.seeded(0))


def test_energies_that_mix_their_batch_or_change_from_call_to_call():
    torch.manual_seed(0)
    x = torch.randn(16, 2)
    check_energy(bowl, x)
    mixed = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.SiLU(), nn.Linear(8, 1), nn.Flatten(0))
    with pytest.raises(InputError, match="depends on the rows next to it"):
        check_energy(mixed, x)
    check_energy(mixed.eval(), x)
    noisy = nn.Sequential(nn.Linear(2, 64), nn.SiLU(), nn.Dropout(0.5), nn.Linear(64, 1), nn.Flatten(0))
    with pytest.raises(InputError, match="changes from call to call"):
        check_energy(noisy, x)
    check_energy(noisy.eval(), x)
    with pytest.raises(InputError, match="2 or more"):
        check_energy(bowl, x[:1])
    model = tw.method("egc/digits", width=8, blocks=1)
    check_energy(model.energy, torch.rand(6, 1, 8, 8) * 2 - 1, label=torch.arange(6))


def test_scores_and_samples_in_inference_mode():
    x = torch.ones(4, 2)
    with torch.inference_mode():
        assert torch.equal(score(bowl, x), -x) and torch.equal(score(bowl, x + 1), -(x + 1))
        sampled = sample.mala(bowl, x * 1.0, steps=3, step=0.1, generator=random.seeded(0))
    assert torch.equal(sampled, sample.mala(bowl, x, steps=3, step=0.1, generator=random.seeded(0)))
