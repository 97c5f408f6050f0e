"""short_run on data whose best model is known in closed form, and the replay buffer's bookkeeping."""

import math

import pytest
import torch
from helpers import Gaussians, Recorder
from torch import Tensor

import thalweg as tw
from thalweg import random
from thalweg.data.base import Batch

BOUND = 4.5


def grid_law(energy, extent: float = 4.0) -> tuple[Tensor, Tensor]:
    line = torch.linspace(-extent, extent, 81)
    points = torch.cartesian_prod(line, line)
    return points, torch.softmax(-energy(points).detach().double(), 0)


def test_conditional_energies_get_their_class_means():
    data = Gaussians([[-1.2, 0.6], [1.0, -0.4]], 0.6)
    fields = {
        "conditional": True,
        "width": 32,
        "depth": 2,
        "steps": 15,
        "step": 0.4,
        "buffer": 512,
        "batch": 128,
        "ema": 0.98,
        "warm_up": 20,
    }
    method = tw.method("short_run", seed=0, data=data, images=250 * 128, lr=5e-3, **fields)
    ema = tw.fit(method, data, progress=False, images=250 * 128)
    for label, mean in enumerate(data.means):
        points, law = grid_law(lambda x, label=label: ema.energy(x, label=torch.full((len(x),), label)))
        centre = (law[:, None] * points).sum(0)
        spread = float((law * (points - centre).square().sum(1)).sum() / 2) ** 0.5
        assert float((centre - mean).abs().max()) < 0.15, f"class {label}: mean {centre.tolist()}"
        assert spread == pytest.approx(0.6, rel=0.25)
        drawn = ema.sample(1000, seed=1, label=label, steps=200)
        assert float((drawn.mean(0) - mean).abs().max()) < 0.2


def test_a_latent_prior_is_learnt_by_tilting_its_gaussian():
    """E = ‖z‖²/2 − f(z) with data N((1, −0.5), 0.6² I): short-run chains from the reference itself."""
    data = Gaussians([[1.0, -0.5]], 0.6)
    fields = {
        "reference_std": 1.0,
        "start": "noise",
        "width": 32,
        "depth": 2,
        "steps": 30,
        "step": 0.4,
        "batch": 128,
        "ema": 0.98,
        "warm_up": 20,
    }
    method = tw.method("short_run", seed=0, data=data, images=200 * 128, lr=5e-3, **fields)
    before = tw.evaluate.density(method.energy, data).kl_truth_model
    ema = tw.fit(method, data, progress=False, images=200 * 128)
    report = tw.evaluate.density(ema.energy, data)
    assert before > 0.5
    assert report.kl_truth_model < 0.03 and report.kl_model_truth < 0.03


def persistent(**fields):
    settings = {"buffer": 64, "batch": 16, "width": 8, "depth": 2, "steps": 2, **fields}
    return tw.method("short_run", seed=0, data=Gaussians([[0.0, 0.0], [1.0, 1.0]], 1.0), **settings)


@pytest.mark.parametrize("renew", [0.0, 0.3, 1.0])
def test_renew_is_the_share_of_starts_that_are_new(renew):
    method = persistent(renew=renew, buffer=8000, batch=4000)
    start, rows, _ = method._start(torch.zeros(4000, 2), None, random.seeded(1))
    new = (start != method.replay.chains[rows]).any(1)
    assert len(set(rows.tolist())) == 4000, "without replacement"
    share = float(new.float().mean())
    assert abs(share - renew) <= BOUND * math.sqrt(renew * (1 - renew) / 4000)
    if renew == 1.0:  # fresh draws of the reference, std 2
        assert float(start.square().mean()) == pytest.approx(4, rel=BOUND * math.sqrt(2 / 8000))


def test_chains_are_written_back_to_the_rows_they_came_from(monkeypatch):
    """With a chain that adds 1 and no renewal, each row counts its own visits: no lineage is copied over another."""
    method = persistent(renew=0.0, conditional=True)
    before, labels = method.replay.chains.clone(), method.replay.labels.clone()
    seen = []

    def add_one(x: Tensor, label: Tensor, *others, **options) -> Tensor:
        # the row a chain came from is told by its fractional part, as visits add whole numbers
        origin = (((x[:, None] - before) - (x[:, None] - before).round()).abs().sum(2)).argmin(1)
        assert torch.equal(label, labels[origin])
        seen.append(origin)
        return x + 1

    monkeypatch.setattr(method, "_chain", add_one)
    for i in range(20):
        method.step(Batch(torch.randn(16, 2, generator=random.seeded(i)), torch.arange(16) % 2), Recorder(1, i))
    visits = method.replay.chains - before
    assert float((visits - visits.round()).abs().max()) < 1e-4
    assert torch.equal(visits[:, 0].round(), visits[:, 1].round())
    assert int(visits[:, 0].round().sum()) == 20 * 16
    assert torch.equal(visits[:, 0].round().long(), torch.bincount(torch.cat(seen), minlength=64))
    assert torch.equal(method.replay.labels, labels)


def test_a_step_touches_only_the_drawn_rows():
    method = persistent(renew=1.0)
    before = method.replay.chains.clone()
    _, rows, _ = method._start(torch.zeros(16, 2), None, random.seeded(7))
    method.step(Batch(torch.zeros(16, 2)), Recorder(7))
    changed = (method.replay.chains != before).any(1).nonzero()[:, 0]
    assert set(changed.tolist()) == set(rows.tolist())
    assert len(method.replay.chains.unique(dim=0)) == 64, "no chain is there twice"


def test_the_buffer_is_saved_and_loaded():
    method = persistent(conditional=True)
    method.step(Batch(torch.zeros(16, 2), torch.zeros(16, dtype=torch.int64)), Recorder(3))
    state = method.state_dict()
    assert {"replay.chains", "replay.labels", "step_size.size"} <= set(state)
    other = persistent(conditional=True)
    assert not torch.equal(other.replay.chains, method.replay.chains)
    other.load_state_dict(state)
    assert torch.equal(other.replay.chains, method.replay.chains) and torch.equal(other.step_size.size, method.step_size.size)
    first, second = Recorder(4), Recorder(4)
    batch = Batch(torch.zeros(16, 2), torch.zeros(16, dtype=torch.int64))
    method.step(batch, first)
    other.step(batch, second)
    assert torch.equal(other.replay.chains, method.replay.chains), "and the next step is the same"


@pytest.mark.parametrize("start", ["noise", "data"])
def test_other_starts_keep_no_buffer(start):
    method = persistent(start=start)
    assert not any("chains" in key for key in method.state_dict())
    data = torch.full((16, 2), 3.0)
    begin, rows, _ = method._start(data, None, random.seeded(1))
    assert rows is None and torch.equal(begin, data) == (start == "data")


def test_where_chains_are_clamped_data_and_samples_are_too():
    """Noise that leads data out of [−1, 1], where no chain can go, would tell them apart from every sample."""
    settings = dict(widths=(4, 8), batch=4, buffer=8, data_noise=0.5, steps=2, sample_steps=2)
    clamped, free = (tw.method("short_run/pictures", seed=0, clamp=clamp, **settings) for clamp in (True, False))
    x = torch.ones(200, 1, 8, 8)
    noised = clamped._noised(x, random.seeded(1))
    assert float(noised.max()) == 1.0 and torch.equal(noised, free._noised(x, random.seeded(1)).clamp(-1, 1))
    # no Tweedie's formula: it is of the density of data with all of their noise
    assert torch.equal(clamped.sample(4, seed=0), clamped.sample(4, seed=0, denoise=False))
    assert not torch.equal(free.sample(4, seed=0), free.sample(4, seed=0, denoise=False))
