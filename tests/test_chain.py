"""Specs of chains against the samplers that they bind, replay buffers, and steps that adapt."""

import pytest
import torch

from thalweg import random, sample
from thalweg.chain import MALA, Jump, Langevin, channels_last, measured_back
from thalweg.energy import gaussian
from thalweg.errors import InputError
from thalweg.replay import AdaptiveStep, Replay


def start(seed: int = 0) -> torch.Tensor:
    return random.normal(6, 3, generator=random.seeded(seed))


def test_langevin_binds_its_knobs():
    spec = Langevin(steps=5, step=0.3, noise=0.5, clip=0.02, clamp=True)
    ours = spec(gaussian, start(), generator=random.seeded(1), std=0.2)
    plain = sample.langevin(
        gaussian, start(), steps=5, step=0.3, noise=0.5, clip=0.02, clamp=(-1.0, 1.0), generator=random.seeded(1), std=0.2
    )
    assert torch.equal(ours, plain) and float(ours.abs().max()) <= 1
    other = spec(gaussian, start(), generator=random.seeded(1), steps=2, step=0.1, noise=[0.0, 1.0], std=0.2)
    assert torch.equal(
        other,
        sample.langevin(
            gaussian, start(), steps=2, step=0.1, noise=[0.0, 1.0], clip=0.02, clamp=(-1.0, 1.0), generator=random.seeded(1), std=0.2
        ),
    )
    assert torch.equal(Langevin(steps=0)(gaussian, start()), start())


def test_mala_jumps_between_its_steps():
    spec, trace = MALA(steps=5, step=0.3, jumps=2, jump_every=3), sample.Trace()
    g, h = random.seeded(1), random.seeded(1)
    jump = Jump(lambda n: 2 * random.normal(n, 3, generator=g), lambda x: gaussian(x, 2.0))
    ours = spec(gaussian, start(), generator=g, trace=trace, jump=jump)
    x = start()
    for steps in (3, 2):
        x = sample.mala(gaussian, x, steps=steps, step=0.3, generator=h)
        x = sample.independence(
            gaussian,
            x,
            propose=lambda n: 2 * random.normal(n, 3, generator=h),
            proposal_energy=lambda x: gaussian(x, 2.0),
            steps=2,
            generator=h,
        )
    assert torch.equal(ours, x) and trace.acceptance is not None
    with pytest.raises(InputError, match="kind 'langevin'"):
        spec(gaussian, start(), project=lambda x: x)


def test_images_of_several_channels_go_channels_last():
    image, grey, vector = torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 4, 4), torch.zeros(2, 3)
    assert channels_last(image).is_contiguous(memory_format=torch.channels_last)
    assert channels_last(grey) is grey and channels_last(vector) is vector


def test_a_constraint_at_one_level():
    assert measured_back(None) is None
    seen = measured_back(lambda x, signal, noise: x * signal + noise, 2.0, 1.0)
    assert torch.equal(seen(torch.ones(2)), torch.full((2,), 3.0))


def fresh(n, generator, device=None):
    return 5 + random.uniform(n, 2, generator=generator, device=device)


def test_a_replay_buffer_renews_its_share_and_keeps_its_rows():
    replay = Replay(4000, fresh, renew=0.25, classes=3)
    assert len(replay) == 4000 and torch.equal(replay.labels, torch.arange(4000) % 3)
    x, rows = replay.start(2000, random.seeded(1))
    assert len(rows.unique()) == 2000
    share = float((x != replay.chains[rows]).any(1).float().mean())
    assert abs(share - 0.25) < 4.5 * (0.25 * 0.75 / 2000) ** 0.5
    before = replay.chains.clone()
    replay.write(rows, x + 1)
    assert torch.equal(replay.chains[rows], x + 1)
    others = torch.ones(4000, dtype=torch.bool).index_fill(0, rows, False)
    assert torch.equal(replay.chains[others], before[others])
    assert len(replay.draw(50, random.seeded(2)).unique(dim=0)) == 50


class Mean:
    """An `update` of one process."""

    def __init__(self) -> None:
        self.logged: dict = {}

    def mean(self, value):
        return value

    def log(self, **values) -> None:
        self.logged |= values


def test_steps_adapt_towards_the_wanted_acceptance():
    update, trace = Mean(), sample.Trace(acceptance=torch.tensor([1.0, 0.8, 0.2, 0.2]))
    step = AdaptiveStep(0.5, 0.6, low=0.1, high=2.0)
    step.adapt(trace, update)
    assert float(step.size) == pytest.approx(0.5 * torch.tensor(0.1 * (0.55 - 0.6)).exp().item())
    by_level = AdaptiveStep([1.0, 1.0, 1.0], 0.6, low=0.1, high=2.0)
    by_level.adapt(trace, update, torch.tensor([0, 0, 2, 2]))
    torch.testing.assert_close(by_level.size, torch.exp(0.1 * torch.tensor([0.3, 0.0, -0.4])))
    fixed = AdaptiveStep(0.5, 0.0, low=0.1, high=2.0)
    fixed.adapt(trace, update)
    assert float(fixed.size) == 0.5 and torch.equal(update.logged["acceptance"], trace.acceptance)
    for _ in range(100):
        step.adapt(sample.Trace(acceptance=torch.ones(4)), update)
    assert float(step.size) == 2.0
