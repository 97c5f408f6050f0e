"""JEM: its loss by hand, its chains in the paper's terms, densities of labels and images, and what it refuses."""

import math

import pytest
import torch
from helpers import Recorder
from torch.nn import functional as F

import thalweg as tw
from thalweg import random
from thalweg.data.base import Batch
from thalweg.errors import InputError
from thalweg.nn.build import MLP, ConvNet, PatchNet, UNet

TINY = dict(batch=8, buffer=64, steps=3, classes=3)
NETS = {
    "mlp": MLP(width=8, depth=1),
    "patch": PatchNet(width=8, blocks=1),
    "unet": UNet(width=8, blocks=1, multipliers=(1, 2)),
    "convnet": ConvNet(widths=(8, 16), blocks=1),
}


def make(shape=(1, 8, 8), *, net: str = "", **fields):
    net = net or ("mlp" if len(shape) == 1 else "patch")
    method = tw.method("jem", seed=0, shape=shape, net=NETS[net], **TINY | fields)
    with torch.no_grad():
        for i, p in enumerate(method.parameters()):
            p.add_(0.1 * random.normal(*p.shape, generator=random.seeded(5, i)))
    return method


@pytest.mark.parametrize(
    "fields", [dict(shape=(2,)), dict(), dict(net="unet"), dict(net="convnet")], ids=["mlp", "patch", "unet", "convnet"]
)
def test_energies_and_probabilities_come_from_one_set_of_logits(fields):
    method = make(**fields).eval()
    x = random.normal(5, *method.config.shape, generator=random.seeded(1))
    with torch.no_grad():
        logits = method.logits(x)
        assert logits.shape == (5, 3) and float(logits.std()) > 1e-3
        torch.testing.assert_close(method.energy(x), -logits.exp().sum(1).log())
        torch.testing.assert_close(method.energy(x, label=torch.tensor([0, 1, 2, 0, 1])), -logits[range(5), [0, 1, 2, 0, 1]])
        torch.testing.assert_close(method.classify(x).exp().sum(1), torch.ones(5))
        # p(x) is the sum of p(x, y) over y
        torch.testing.assert_close(-method.energy(x), torch.stack([-method.energy(x, label=y) for y in range(3)]).logsumexp(0))


def test_a_step_adds_the_likelihood_to_the_cross_entropy(monkeypatch):
    method = make(likelihood_weight=0.7, data_noise=0.2)
    g = random.seeded(2)
    x, label = random.uniform(6, 1, 8, 8, low=-1.0, high=1.0, generator=g), torch.arange(6) % 3
    negative = random.uniform(6, 1, 8, 8, low=-1.0, high=1.0, generator=g)
    monkeypatch.setattr(method, "_negative", lambda n, generator, trace: negative)
    update, rows = Recorder(4), []
    handle = method.net.register_forward_pre_hook(lambda net, inputs: rows.append(len(inputs[0])))
    method.step(Batch(x, label), update)
    handle.remove()
    assert rows == [12], "data and samples pass once, in one batch"
    noised = x + 0.2 * random.normal_like(x, random.seeded(4))
    expected = F.cross_entropy(method.logits(noised), label) + 0.7 * (method.energy(noised).mean() - method.energy(negative).mean())
    torch.testing.assert_close(update.loss, expected)
    assert update.name == "energy"
    assert set(update.logged) == {"cross_entropy", "accuracy", "energy_data", "energy_samples", "roughness"}


def test_without_its_weight_it_is_a_plain_classifier():
    method = make(likelihood_weight=0.0, data_noise=0.0)
    x, label, update = random.normal(6, 1, 8, 8, generator=random.seeded(1)), torch.arange(6) % 3, Recorder(1)
    before = method.replay.chains.clone()
    method.step(Batch(x, label), update)
    torch.testing.assert_close(update.loss, F.cross_entropy(method.logits(x), label))
    assert torch.equal(before, method.replay.chains)


def test_the_chain_is_the_paper_s():
    """x ← x + α ∇ logsumexp f(x) + σ ξ with α = 1, σ = 0.01."""
    method = make((2,), steps=2)
    chain = method.config.chain
    assert chain.step**2 / 2 == pytest.approx(1) and chain.step * chain.noise == pytest.approx(0.01)
    x = random.normal(4, 2, generator=random.seeded(1))
    found, g = method._chain(x, random.seeded(3)), random.seeded(3)
    for _ in range(2):
        point = x.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(method.logits(point).logsumexp(1).sum(), point)
        x = x + gradient + 0.01 * random.normal_like(x, g)
    torch.testing.assert_close(found, x, rtol=1e-5, atol=1e-6)


def test_chains_go_back_to_their_rows_and_some_are_renewed(monkeypatch):
    method = make((2,), buffer=4000, batch=2000, renew=0.2)
    monkeypatch.setattr(method, "_chain", lambda x, *others, **options: x + 10)
    chains = method.replay.chains
    chains += 100 * torch.arange(4000)[:, None]  # each row knows its number
    before = chains.clone()
    method._negative(2000, Recorder(1))
    moved = (chains != before).any(1)
    went_on = moved & ((chains - before - 10).abs() < 0.1).all(1)
    assert int(moved.sum()) == 2000
    renewed = chains[moved & ~went_on]
    assert abs(len(renewed) / 2000 - 0.2) < 4.5 * math.sqrt(0.2 * 0.8 / 2000)
    assert bool(((renewed >= 9) & (renewed < 11)).all()), "U(−1, 1), then the chain"


def test_it_learns_labels_and_where_the_data_is():
    """Two clusters of points: classified, samples by label on their side, energies lower on the data than off it."""

    class Clusters:
        name, shape, classes = "clusters", (2,), ("left", "right")

        def batch(self, start: int, count: int, seed: int) -> Batch:
            g = random.seeded(seed, start)
            label = random.integers(count, 0, 2, generator=g)
            return Batch(1.2 * label[:, None] - 0.6 + 0.15 * random.normal(count, 2, generator=g), label)

    data, fields = Clusters(), dict(net=MLP(width=32, depth=2), batch=64, buffer=512, lr=2e-3, step=0.3, noise=0.3, images=64 * 150)
    # the paper's chains of step √2 are for images; in the plane, with the clusters 0.15 wide, they would jump across
    method = tw.fit(tw.method("jem", seed=0, data=data, **fields), data, images=64 * 150, progress=False)
    x, label = data.batch(0, 500, seed=9)
    assert float((method.classify(x).argmax(1) == label).float().mean()) > 0.99
    far = 2.0 * random.normal(500, 2, generator=random.seeded(1))
    assert tw.evaluate.ood(method.energy(x), method.energy(far)).auroc > 0.9
    asked = torch.arange(200) % 2
    drawn = method.sample(200, seed=1, label=asked, steps=100)
    assert float(((drawn[:, 0] > 0) == (asked == 1)).float().mean()) > 0.9


def test_samples_are_seeded_and_in_range():
    method = make()
    for options in ({}, {"fresh": True}, {"label": 2}, {"label": torch.tensor([0, 1, 2, 0])}):
        x = method.sample(4, seed=1, steps=3, **options)
        assert x.shape == (4, 1, 8, 8) and float(x.abs().max()) <= 1
        assert torch.equal(x, method.sample(4, seed=1, steps=3, **options)) and not torch.equal(
            x, method.sample(4, seed=2, steps=3, **options)
        )
    held = method.sample(4, seed=1, steps=0)
    assert all(bool((held[i] == method.replay.chains).flatten(1).all(1).any()) for i in range(4)), "no steps: chains of the buffer"
    assert method.sample(100, seed=1, steps=1).shape == (100, 1, 8, 8), "more than the buffer holds, from noise"


@pytest.mark.parametrize(("fields", "message"), [
    (dict(classes=0), "needs data with 2 labels or more, got 0"),
    (dict(net="patch", shape=(3,)), r"needs images \[C, H, W\], got shape \(3,\)"),
    (dict(shape=(1, 9, 9)), "divide by the patch of 2, got 9×9"),
    (dict(batch=512, buffer=64), "a batch of 512 needs as many chains, the buffer holds 64"),
    (dict(renew=2.0), "renew"),
])  # fmt: skip
def test_wrong_settings_are_refused(fields, message):
    with pytest.raises(InputError, match=message):
        tw.method("jem", **fields)


@pytest.mark.parametrize("call", [lambda m: m.sample(2, label=3), lambda m: m.energy(torch.zeros(1, 1, 8, 8), label=-1)])
def test_wrong_labels_are_refused(call):
    with pytest.raises(InputError, match="labels must be between 0 and 2, got"):
        call(make())
