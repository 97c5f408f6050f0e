"""Methods trained on data whose best model is known in closed form, and the replay buffer's bookkeeping."""

import math

import pytest
import torch
from torch import Tensor

import thalweg as tw
from thalweg import random
from thalweg.data.base import Batch
from thalweg.nn.build import MLP

BOUND = 4.5


class Gaussians:
    """Data N(mean_k, std² I) with k, the label, drawn evenly; one mean for data without labels. Also its exact density."""

    name, extent, modes, mode_std = "gaussians", 5.0, None, None

    def __init__(self, means: list[list[float]], std: float) -> None:
        self.means, self.std = torch.tensor(means), std
        self.shape = (len(means[0]),)
        self.classes = tuple(map(str, range(len(means)))) if len(means) > 1 else ()

    def batch(self, start: int, count: int, seed: int) -> Batch:
        generator = random.seeded(seed, start)
        label = random.integers(count, 0, len(self.means), generator=generator)
        x = self.means[label] + self.std * random.normal(count, *self.shape, generator=generator)
        return Batch(x, label if self.classes else None)

    def log_prob(self, x: Tensor) -> Tensor:
        squares = (x[:, None] - self.means).square().sum(2) / (2 * self.std**2)
        return torch.logsumexp(-squares, 1) - math.log(len(self.means)) - self.means.shape[1] * math.log(self.std * math.sqrt(2 * math.pi))


# --- EGC on N(0, I): the best ε̂ is σ_t x, the loss floor per dimension the mean of ᾱ_t² = 0.2755

FLOOR, DIM = 0.2755, 4


@pytest.fixture(scope="module")
def egc():
    """Trained from a base that is not the answer: data_std 0.5 where the data's is 1."""
    data = Gaussians([[0.0] * DIM], 1.0)
    fields = {"net": MLP(width=64, depth=2), "readout": "logits", "data_std": 0.5, "lr": 5e-3, "batch": 256, "ema": 0.99}
    method = tw.method("egc", seed=0, data=data, images=1200 * 256, weight_decay=0.0, **fields)
    untrained = egc_loss(method)
    return untrained, tw.fit(method, data, images=1200 * 256, progress=False), method


def egc_loss(method) -> tuple[float, float, float]:
    """(mean loss, its standard error, mean excess over ε̂ = σ_t x on the same draws) with each level equally often."""
    t = torch.arange(1, 1001).repeat(40)
    generator = random.seeded(5)
    x0, epsilon = (random.normal(len(t), DIM, generator=generator) for _ in range(2))
    with torch.no_grad():
        loss, _, _ = method.losses(x0, None, t, epsilon)
    x_t = method.schedule.diffuse(x0, t, epsilon)
    best = (method.schedule.sigma(t, x_t) * x_t - epsilon).square().mean(1)
    # levels are strata: the standard error is that of the spread within them
    within = loss.view(40, 1000).var(0).mean().item() / len(t)
    return loss.mean().item(), math.sqrt(within), (loss - best).mean().item()


def test_egc_reaches_the_closed_form_floor(egc):
    (untrained, _, _), ema, _ = egc
    loss, error, excess = egc_loss(ema)
    assert untrained > 1.1 * FLOOR, "the base alone must not be the answer"
    assert abs(loss - FLOOR) < 0.02 * FLOOR + BOUND * error
    assert -0.001 * FLOOR < excess < 0.02 * FLOOR, "draw by draw, at most 2 % above the best predictor"


@pytest.mark.parametrize("level", [200, 400, 700, 1000])
def test_egc_learns_the_line_of_the_score(egc, level):
    """σ_t·score = −σ_t x: the slope of a regression through the origin within 3 %, and the energy's curvature in nats."""
    _, ema, _ = egc
    x = random.normal(4000, DIM, generator=random.seeded(9))
    sigma = ema.schedule.noise[level]
    scaled = sigma * tw.score(ema.energy, x, t=level)
    line = -sigma * x
    slope = float((scaled * line).sum() / line.square().sum())
    assert slope == pytest.approx(1, abs=0.03)
    residual = (scaled - slope * line).square().mean() / line.square().mean()
    assert residual < 0.02, "and nothing else than the line"
    energy = ema.energy(x, t=level).detach()
    half = x.square().sum(1) / 2
    assert float(torch.cov(torch.stack([energy, half]))[0, 1] / half.var()) == pytest.approx(1, abs=0.04)


def test_egc_samples_have_the_data_s_moments(egc):
    _, ema, _ = egc
    x = ema.sample(4000, seed=3, steps=100).double()
    assert float(x.mean().abs()) < 0.05 + BOUND / math.sqrt(x.numel())
    assert float(x.var()) == pytest.approx(1, abs=0.05 + BOUND * math.sqrt(2 / x.numel()))


# --- short_run


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


class Recorder:
    """An `update` that takes no step."""

    def __init__(self, *seed: int) -> None:
        self.generator = random.seeded(*seed)
        self.logged: dict = {}

    def __call__(self, name: str, loss: Tensor) -> None:
        assert torch.isfinite(loss)

    def log(self, **values) -> None:
        self.logged.update(values)


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
