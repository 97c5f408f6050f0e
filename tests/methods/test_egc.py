"""EGC: Algorithm 1, labels in the score matching loss, passes, the plain classifier, latent classes, networks, guidance, inversion."""

import functools
import math
import os
import subprocess
import sys

import pytest
import torch
from helpers import Recorder
from torch import Tensor
from torch.nn import functional as F

import thalweg as tw
from thalweg import random
from thalweg.augmentation import Affine, Shifts
from thalweg.config import DataNeeds
from thalweg.data.augment import random_affine
from thalweg.data.base import Batch
from thalweg.energy import score
from thalweg.errors import InputError
from thalweg.methods.base import has
from thalweg.nn.build import MLP, ConvNet, GuidedUNet, PatchNet, PatchUNet, UNet

TINY = dict(batch=8, ema=0.9)
NETS = {
    "mlp": MLP(width=8, depth=1),
    "patch": PatchNet(width=8, blocks=1),
    "patch_unet": PatchUNet(width=8, deep_width=8, blocks=1, deep_blocks=1, hidden=16),
    "unet": UNet(width=8, blocks=1, multipliers=(1, 2)),
    "convnet": ConvNet(widths=(8, 16), blocks=1),
    "guided_unet": GuidedUNet(width=8, blocks=1, multipliers=(1, 2), attention=4, head_channels=4),
}
RELEASED = GuidedUNet(width=8, blocks=1, multipliers=(1, 2), attention=4, head_channels=4, transformer=True, modulate=False, pool="map")


def make(shape=(1, 8, 8), *, net: str | UNet = "", moved: bool = True, **fields):
    """A small EGC whose weights have left their zeros."""
    net = net or ("mlp" if len(shape) == 1 else "patch")
    method = tw.method("egc", seed=0, shape=shape, net=NETS.get(net, net), **TINY | fields).eval()
    with torch.no_grad():
        for i, p in enumerate(method.parameters()):
            p.add_(moved * 0.1 * random.normal(*p.shape, generator=random.seeded(5, i)))
    return method


def draws(method, n: int = 6):
    """(x₀, label, t, ε) for the losses."""
    g, c = random.seeded(1), method.config
    x0 = random.uniform(n, *c.shape, low=-1.0, high=1.0, generator=g)
    t = torch.tensor([1, 50, 300, 500, 800, 1000])[:n]
    return x0, torch.arange(n) % max(1, c.classes), t, random.normal_like(x0, g)


# --- the loss of Algorithm 1, and the order in which a step draws


def test_a_step_is_algorithm_1():
    method = make(classes=3, cross_entropy_weight=0.7, label_smoothing=0.1)
    x0, label, _, _ = draws(method)
    update, g = Recorder(4), random.seeded(4)
    method.step(Batch(x0, label), update)
    t = random.integers(6, 1, 1001, generator=g)
    epsilon = random.normal_like(x0, g)
    signal, sigma = (torch.tensor(v)[t] for v in (method.schedule.signal, method.schedule.noise))
    x_t = (signal.view(-1, 1, 1, 1) * x0 + sigma.view(-1, 1, 1, 1) * epsilon).requires_grad_(True)
    value, log_p = method.joint(x_t, t)
    (gradient,) = torch.autograd.grad(value.sum(), x_t)
    smoothed = 0.9 * F.one_hot(label, 3) + 0.1 / 3
    expected = (gradient + epsilon).square().mean() - 0.7 * (signal * (smoothed * log_p).sum(1)).mean()
    assert float(update.loss) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert set(update.logged) == {"score_matching", "cross_entropy", "accuracy"}


# --- labels in the score matching loss (eq. 15, 16)

MEANS, STD = torch.tensor([[1.0, 0.5], [-1.0, 0.0], [0.2, -1.0]]), 0.4


def exact_gaussians(**fields):
    """An EGC whose joint is exactly that of data N(mean_y, STD²) with even labels."""
    method = make((2,), classes=3, readout="logits", **fields)

    def joint(x: Tensor, t: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        signal, sigma = method.schedule.alpha(t)[:, None], method.schedule.sigma(t)[:, None]
        variance = signal**2 * STD**2 + sigma**2
        logits = -(x[:, None] - signal[:, :, None] * MEANS).square().sum(2) / (2 * variance)
        return sigma[:, 0] * logits.logsumexp(1), logits.log_softmax(1)

    method.joint = joint
    return method


def test_kept_labels_match_the_conditional_score_and_dropped_ones_the_marginal():
    """Of exact densities both losses are their closed-form floors: ε less its expectation given x_t, with or without y."""
    method, n = exact_gaussians(), 60_000
    g = random.seeded(3)
    label = random.integers(n, 0, 3, generator=g)
    x0 = MEANS[label] + STD * random.normal(n, 2, generator=g)
    t, epsilon = random.integers(n, 1, 1001, generator=g), random.normal(n, 2, generator=g)
    kept = torch.arange(n) % 2 == 0
    with torch.no_grad():
        loss, cross_entropy, _ = method.losses(x0, label, t, epsilon, kept)
    signal, sigma = method.schedule.alpha(t)[:, None], method.schedule.sigma(t)[:, None]
    variance, x_t = signal**2 * STD**2 + sigma**2, signal * x0 + sigma * epsilon
    each = sigma[:, :, None] * (x_t[:, None] - signal[:, :, None] * MEANS) / variance[:, :, None]  # E[ε | x_t, y]
    posterior = torch.softmax(-(x_t[:, None] - signal[:, :, None] * MEANS).square().sum(2) / (2 * variance), 1)
    given = each[torch.arange(n), label]
    best = torch.where(kept[:, None], given, (posterior[:, :, None] * each).sum(1))
    torch.testing.assert_close(loss, (epsilon - best).square().mean(1), rtol=1e-3, atol=1e-5)
    assert float(loss.mean()) == pytest.approx(float((epsilon - best).square().mean()), rel=1e-5)
    # the mean over levels of Var(ε | x_t, y) = ᾱ² s²/v, which is below the marginal's
    table = torch.tensor(method.schedule.signal[1:]).double() ** 2
    floor = float((table * STD**2 / (table * STD**2 + 1 - table)).mean())
    error = float(loss[kept].std()) / math.sqrt(n / 2)
    assert abs(float(loss[kept].mean()) - floor) < 4.5 * error
    assert float(loss[~kept].mean()) > floor + 0.01
    expected = F.nll_loss(posterior.log(), label, reduction="none") * signal[:, 0]
    torch.testing.assert_close(cross_entropy, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_label_dropping_is_the_share_that_is_not_kept(share, monkeypatch):
    method = make((2,), classes=3, label_dropping=1 - share)
    seen = []
    monkeypatch.setattr(method, "losses", lambda *a: seen.append(a) or (torch.zeros(len(a[0]), requires_grad=True),) * 3)
    method.step(Batch(torch.zeros(4000, 2), torch.zeros(4000, dtype=torch.int64)), Recorder(2))
    kept = seen[0][4]
    assert (kept is None) == (share == 0.0)
    if share:
        assert abs(float(kept.float().mean()) - share) <= 4.5 * math.sqrt(share * (1 - share) / 4000)


def shown_labels(method) -> list:
    """What the network is shown from now on, call by call."""
    seen, forward = [], method.net.forward
    method.net.forward = lambda x, t, label=None: seen.append(label) or forward(x, t, label)
    return seen


@pytest.mark.parametrize("net", NETS)
def test_label_input_shows_kept_labels_to_the_denoising_pass_alone(net):
    fields = dict(passes="separate", label_dropping=0.1, label_input=True, net=net, readout="logits")
    method = make((2,) if net == "mlp" else (1, 8, 8), classes=3, **fields)
    x0, label, t, epsilon = draws(method)
    kept = torch.tensor([True, False, True, True, False, True])
    seen = shown_labels(method)
    method.losses(x0, label, t, epsilon, kept, (x0, torch.zeros_like(t)))
    assert len(seen) == 2 and seen[1] is None
    assert seen[0].tolist() == [0, -1, 2, 0, -1, 2]
    with torch.no_grad():
        plain, conditional = (method.losses(x0, label, t, epsilon, k, (x0, t))[0] for k in (torch.zeros(6, dtype=torch.bool), kept))
    assert torch.equal(plain[~kept], conditional[~kept]) and not torch.isclose(plain[kept], conditional[kept], rtol=1e-6).any()


@pytest.mark.parametrize("label_input", [False, True])
@pytest.mark.parametrize("w", [0.0, 1.0, 7.0])
def test_guidance_is_the_score_of_the_conditional_times_a_power_of_the_classifier(label_input, w):
    """p(x | y) p(y | x)^(w−1), whether p(x | y) is the marginal with the classifier or a network that is shown the label."""
    extra = dict(passes="separate", label_dropping=0.1, label_input=True) if label_input else {}
    method = make(classes=3, **extra)
    x, label = random.normal(4, 1, 8, 8, generator=random.seeded(8)), torch.tensor([0, 1, 2, 1])
    for level in (1, 400, 1000):
        t = torch.full((4,), level)
        point = x.clone().requires_grad_(True)
        sigma = method.schedule.noise[level]
        value, log_p = method.joint(point, t)
        conditional = method.joint(point, t, label)[0] if label_input else value + sigma * log_p.gather(1, label[:, None])[:, 0]
        total = conditional + (w - 1) * sigma * log_p.gather(1, label[:, None])[:, 0]
        (expected,) = torch.autograd.grad(-total.sum(), point)
        found = method._predict_noise(4, label, w, x.device)(x, t)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    seen = shown_labels(method)
    method._predict_noise(4, label, 1.0, x.device)(x, t)
    assert len(seen) == 1, "at w = 1 the conditional alone is asked"


# --- separate passes


def test_separate_passes_have_their_own_levels_and_clean_images():
    method = make(classes=3, passes="separate", clean_share=0.3)
    x0 = random.uniform(3000, 1, 8, 8, low=-1.0, high=1.0, generator=random.seeded(1))
    x, t = method._own_pass(x0, random.seeded(2))
    clean = t == 0
    assert abs(float(clean.float().mean()) - 0.3) < 4.5 * math.sqrt(0.3 * 0.7 / 3000)
    assert torch.equal(x[clean], x0[clean]) and int(t.max()) <= 1000
    noise = (x - method.schedule.alpha(t, x) * x0)[~clean] / method.schedule.sigma(t, x)[~clean]
    assert abs(float(noise.mean())) < 4.5 / math.sqrt(noise.numel()) and abs(float(noise.var()) - 1) < 4.5 * math.sqrt(2 / noise.numel())


def test_the_cross_entropy_of_separate_passes_is_at_its_own_images():
    method = make(classes=3, passes="separate")
    x0, label, t, epsilon = draws(method)
    own = (0.5 * x0, torch.tensor([0, 0, 10, 100, 500, 900]))
    with torch.no_grad():
        joint = method.losses(x0, label, t, epsilon)
        matching, cross_entropy, correct = method.losses(x0, label, t, epsilon, None, own)
        log_p = method.classify(own[0], t=own[1])
    assert torch.equal(matching, joint[0]) and not torch.allclose(cross_entropy, joint[1])
    expected = torch.tensor(method.schedule.signal)[own[1]] * F.nll_loss(log_p, label, reduction="none")
    torch.testing.assert_close(cross_entropy, expected)
    assert torch.equal(correct, (log_p.argmax(1) == label).float())
    update = Recorder(1)
    method.step(Batch(x0, label), update)
    assert set(update.logged) == {"score_matching", "cross_entropy", "accuracy"}


# --- the classifier alone


def test_a_plain_classifier_has_no_density():
    method = make(classes=3, classifier_only=True, cross_entropy_weight=1.0)
    assert method.abilities == {"encode", "classify"}
    x0, label, _, _ = draws(method)
    update = Recorder(1)
    method.step(Batch(x0, label), update)
    with torch.no_grad():
        expected = float(F.nll_loss(method.classify(x0), label))
    assert float(update.loss) == pytest.approx(expected, rel=1e-5)
    assert set(update.logged) == {"cross_entropy", "accuracy"}
    assert method.criterion(Batch(x0, label), random.seeded(0)) == pytest.approx(expected, rel=1e-5)
    for name, call in {
        "sample": lambda: method.sample(2), "energy": lambda: method.energy(x0), "denoise": lambda: method.denoise(x0, 0.3),
        "invert": lambda: method.invert(x0),
    }.items():  # fmt: skip
        with pytest.raises(InputError, match=f"plain classifier .* has no density: there is no {name}"):
            call()


def test_the_plain_classifier_has_the_settings_of_the_whole():
    """Weight, smoothing and augmentation are those of EGC's own cross-entropy, so that only the score matching is left out."""
    method = make(classes=3, classifier_only=True, cross_entropy_weight=0.7, label_smoothing=0.1, augmentation=Affine())
    x0, label, _, _ = draws(method)
    update = Recorder(3)
    method.step(Batch(x0, label), update)
    x = random_affine(x0, 1.0, random.seeded(3))
    with torch.no_grad():
        log_p = method.classify(x)
        whole = make(classes=3, label_smoothing=0.1, passes="separate").losses(x, label, label + 1, x, own=(x, 0 * label))
    smoothed = 0.9 * F.one_hot(label, 3) + 0.1 / 3
    assert float(update.loss) == pytest.approx(-0.7 * float((smoothed * log_p).sum(1).mean()), rel=1e-5)
    torch.testing.assert_close(update.logged["cross_entropy"].detach(), whole[1])
    assert torch.equal(update.logged["accuracy"], (log_p.argmax(1) == label).float()) and torch.equal(update.logged["accuracy"], whole[2])


# --- what a model can do


@pytest.mark.parametrize(("fields", "labels"), [
    (dict(classes=3), {"labels", "classify"}), (dict(classes=0), set()), (dict(classes=3, supervised=False, latent_classes=3), set()),
])  # fmt: skip
def test_abilities_and_needs_of_data(fields, labels):
    method = make(autoencoder="runs/somewhere", guidance=1.5, **fields)
    assert method.abilities == {"sample", "energy", "level_energies", "denoise", "encode", "constraint", "start", "invert"} | labels
    assert method.config.data_needs == DataNeeds(autoencoder="runs/somewhere") and method.default_guidance == 1.5


# --- without labels


def test_unsupervised_models_do_not_look_at_labels():
    data = tw.data.load("digits")
    fields = dict(supervised=False, latent_classes=4, width=8, blocks=1, batch=16)
    method = tw.method("egc/digits", data=data, **fields)
    assert method.config.classes == 0 and not has(method, "labels") and not has(method, "classify")
    tw.fit(method, data, images=32, progress=False)
    other = tw.method("egc/digits", data=data, **fields)
    tw.fit(other, tw.data.Images(data.x), images=32, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(method.parameters(), other.parameters()))
    log_p = method.classify(data.all().x[:5])
    assert log_p.shape == (5, 4) and torch.allclose(log_p.exp().sum(1), torch.ones(5))
    assert method.sample(3, label=torch.tensor([0, 3, 1]), steps=2).shape == (3, 1, 8, 8)
    with pytest.raises(InputError, match="labels must be between 0 and 3, got 4"):
        method.sample(1, label=4)


class Clusters:
    """Images or points about two opposite centres, without labels."""

    name, classes = "clusters", ()

    def __init__(self, *shape: int) -> None:
        self.shape = shape

    def batch(self, start: int, count: int, seed: int) -> Batch:
        g = random.seeded(seed, start)
        side = 2.0 * random.integers(count, 0, 2, generator=g) - 1
        return Batch(0.8 * side.view(-1, *[1] * len(self.shape)) + 0.1 * random.normal(count, *self.shape, generator=g))


@pytest.mark.parametrize("fields", [
    dict(net=MLP(width=8, depth=1), readout="logits", shape=(2,)), dict(net=PatchNet(width=8, blocks=1), shape=(1, 4, 4)),
    dict(net=PatchNet(width=8, blocks=1), readout="map", shape=(1, 4, 4)),
    dict(net=UNet(width=8, blocks=1, multipliers=(1, 1)), readout="map", shape=(1, 4, 4)),
    dict(net=NETS["patch_unet"], readout="map", shape=(1, 4, 4)),
    dict(net=ConvNet(widths=(8, 8), blocks=1), readout="logits", shape=(1, 4, 4)), dict(net=RELEASED, readout="map", shape=(1, 4, 4)),
], ids=["vectors", "patch", "map", "unet-map", "patch-unet-map", "convnet", "released"])  # fmt: skip
def test_latent_classes_part_ways_unless_they_start_equal(fields):
    """From a last layer at zero all classes take the same steps and stay one class for ever; ours must not start so."""
    apart = {}
    for start in ("ours", "zero"):
        settings = dict(classes=0, latent_classes=3, batch=32, lr=3e-3, warm_up=1) | fields
        method = tw.method("egc", seed=0, **settings)
        last = method.net.map if method.config.readout == "map" else method._score_layer()
        if start == "zero":
            torch.nn.init.zeros_(last.weight)
            torch.nn.init.zeros_(last.bias)
        first = last.weight.detach().clone()
        tw.fit(method, Clusters(*method.config.shape), images=32 * 6, progress=False)
        # of vectors the layer also puts out the map, before the logits; of maps a class is all rows of its patch
        step = (last.weight.detach() - first)[-3:] if method.config.net.kind == "mlp" else last.weight.detach() - first
        step = step.view(3, -1)
        assert float(step.abs().mean()) > 1e-4, "trained"
        apart[start] = float(step.std(0).mean() / step.abs().mean())
    assert apart["zero"] < 1e-4 and apart["ours"] > 0.01, apart


# --- networks, latents


@pytest.mark.parametrize("label", [None, 1])
def test_convnet_scores_are_the_gradient(monkeypatch, label):
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # EGC sums in fp32, which would drown a finite difference
    method = make((2, 4, 4), classes=3, net="convnet", readout="logits").double()
    x, direction = (random.normal(3, 2, 4, 4, generator=random.seeded(i), dtype=torch.float64) for i in (1, 2))
    energy = functools.partial(method.energy, t=300, label=label)
    h = 1e-3
    at = [energy(x + k * h * direction).detach() for k in (-2, -1, 1, 2)]
    along = (score(energy, x) * direction).flatten(1).sum(1)
    torch.testing.assert_close(along, -(at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * h), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("fields", [
    dict(net="mlp", shape=(2,)), dict(net="patch"), dict(net="patch_unet"), dict(net="unet"), dict(net="unet", readout="map"),
    dict(net="convnet", readout="logits"), dict(net="guided_unet"),
], ids=["mlp", "patch", "patch_unet", "unet", "unet-map", "convnet", "guided"])  # fmt: skip
def test_encodings_are_what_the_scores_are_linear_in(fields):
    method = make(classes=3, **fields)
    x = random.normal(4, *method.config.shape, generator=random.seeded(2))
    code = method.encode(x)
    last = method._score_layer()
    assert code.shape == (4, last.in_features)
    logits = F.linear(code, last.weight, last.bias)[:, -3:]
    torch.testing.assert_close(logits.log_softmax(1), method.classify(x), rtol=1e-4, atol=1e-5)


def test_scores_that_are_pooled_from_the_map_encode_nothing():
    method = make(classes=3, net=RELEASED, readout="map")
    assert "encode" not in method.abilities and method.classify(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
    with pytest.raises(InputError, match="it encodes nothing"):
        method.encode(torch.zeros(2, 1, 8, 8))


def test_latents_are_neither_clamped_nor_augmented():
    fields = dict(shape=(2, 4, 4), data_std=2.0, moved=False, classes=0)
    x = {name: make(autoencoder=name, **fields).sample(50, seed=1, steps=200) for name in ("", "somewhere")}
    assert float(x[""].abs().max()) <= 1
    # the untrained model is N(0, 2²)
    assert float(x["somewhere"].std()) == pytest.approx(2, rel=0.15) and float(x["somewhere"].abs().max()) > 4


# --- the compiled loss


@pytest.mark.parametrize("fields", [
    dict(label_dropping=0.5),
    dict(net=UNet(width=8, blocks=1, multipliers=(1,)), passes="separate", label_dropping=0.5, label_input=True),
], ids=["patch", "unet"])  # fmt: skip
def test_the_compiled_loss_and_its_gradients_equal_the_eager_ones(fields, monkeypatch):
    """Traced whole, without a break, through both derivatives; the code generator is the compiler's own business."""
    from thalweg.compiled import compiled_losses

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager", fullgraph=True))
    method = make((1, 4, 4), classes=3, **fields)
    x0, label, t, epsilon = draws(method)
    kept = torch.arange(6) % 2 == 0
    own = (x0, torch.zeros_like(t)) if method.config.passes == "separate" else None
    results = []
    for losses in (method.losses, compiled_losses(method.losses, "egc")):
        matching, cross_entropy, correct = losses(x0, label, t, epsilon, kept, own)
        gradients = torch.autograd.grad(matching.mean() + cross_entropy.mean(), list(method.parameters()), allow_unused=True)
        results.append([matching, cross_entropy, correct, *(g for g in gradients if g is not None)])
    assert len(results[0]) == len(results[1]) > 10
    for found, expected in zip(results[1], results[0]):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_a_step_takes_the_compiled_loss(monkeypatch):
    from thalweg.methods import egc

    asked = []
    monkeypatch.setattr(egc, "compiled_losses", lambda losses, name: asked.append(losses) or losses)
    whole, classifier = (make((2,), classes=3, compile=True, classifier_only=alone) for alone in (False, True))
    for method in (whole, classifier):
        method.step(Batch(torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64)), Recorder(1))
    assert asked == [whole.losses, classifier.classifier_losses]


def test_training_goes_on_uncompiled_with_a_warning_where_there_is_no_compiler(tmp_path):
    code = """
import torch, thalweg as tw
twins = []
for c in (False, True):
    fields = dict(width=8, depth=1, images=64, batch=16)
    twins.append(tw.fit(tw.method("egc/moons", compile=c, **fields), tw.data.toy("moons"), images=32, progress=False))
assert all(torch.equal(a, b) for a, b in zip(*(t.parameters() for t in twins)))
"""
    changed = {"CXX": "/no/such/compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | changed, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("the loss of egc runs uncompiled (InvalidCxxCompiler") == 1


# --- sampling


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("w", [0.0, 1.0, 6.0, 200.0])
def test_few_steps_and_any_guidance_stay_finite(steps, w):
    for name in ("", "latent"):
        method = make(classes=3, autoencoder=name)
        x = method.sample(4, seed=1, label=torch.tensor([0, 1, 2, 0]), guidance=w, steps=steps, eta=0.0)
        assert x.isfinite().all()
        if not name:
            assert float(x.abs().max()) <= 1, "the clamp of x̂₀ holds images in their range"
    if w == 200.0 and steps > 1:
        assert float(x.abs().max()) > 3, "which is not for want of push"


def test_the_default_eta_is_the_config_s():
    for eta in (0.0, 1.0):
        method = make(eta=eta, classes=0)
        assert torch.equal(method.sample(2, steps=4), method.sample(2, steps=4, eta=eta))
        assert not torch.equal(method.sample(2, steps=4), method.sample(2, steps=4, eta=1 - eta))


def test_inversion_on_gaussian_data_is_the_flow_of_the_noise():
    """Between Gaussians the deterministic flow scales: x_T = x₀ √v_T/s with v_T = ᾱ_T² s² + σ_T²."""
    method = make((3,), classes=0, readout="logits", data_std=0.6, levels=1000)
    with torch.no_grad():
        for p in method.parameters():
            p.zero_()
    x = 0.6 * random.normal(5, 3, generator=random.seeded(1))
    top = method.schedule.signal[-1] ** 2 * 0.36 + method.schedule.noise[-1] ** 2
    errors = [float((method.invert(x, steps=n) - x * math.sqrt(top) / 0.6).abs().max()) for n in (25, 250)]
    assert errors[1] < 0.03 and errors[1] < 0.15 * errors[0], errors


@pytest.mark.parametrize(("levels", "steps"), [(40, 40), (1000, 200)])
def test_inversion_takes_200_steps_or_all(levels, steps):
    method, asked = make((2,), classes=0, levels=levels), []
    joint = method.joint
    method.joint = lambda x, t, label=None: asked.append(int(t[0])) or joint(x, t, label)
    x = random.normal(3, 2, generator=random.seeded(1))
    assert torch.equal(method.invert(x, seed=5, iterations=1), method.invert(x, steps=steps, iterations=1))
    assert asked[:steps] == [levels * (i + 1) // steps for i in range(steps)]


@pytest.mark.parametrize("label", [None, 2])
def test_samples_from_inverted_noise_come_back(label):
    method = make((2, 4, 4), classes=3, autoencoder="none")
    x = 0.6 * random.normal(5, 2, 4, 4, generator=random.seeded(4))
    errors = []
    for iterations in (1, 12):
        noise = method.invert(x, label=label, guidance=1.5, steps=25, iterations=iterations)
        back = method.sample(5, start=noise, label=label, guidance=1.5, steps=25, eta=0.0)
        errors.append(float((back - x).square().mean().sqrt()))
    assert errors[1] < 1e-3 and errors[1] < 0.1 * errors[0], errors


def test_samples_of_all_classes_in_one_call_see_a_few_rows_at_once():
    """Whatever passes the network at once, draws and labels of a row are its own."""
    for fields in ({}, dict(passes="separate", label_dropping=0.1, label_input=True)):
        method, rows = make(classes=3, **fields), []
        joint = method.joint
        method.joint = lambda x, t, label=None, joint=joint, rows=rows: rows.append(len(x)) or joint(x, t, label)
        labels = torch.arange(10) % 3
        found = [method.sample(10, seed=1, label=labels, guidance=2.0, steps=3, batch=batch) for batch in (4, 256)]
        assert {4, 2} == {n for n in rows if n < 10} and max(rows) == 10
        torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)
        other = method.sample(10, seed=1, label=labels.flip(0), guidance=2.0, steps=3)
        assert (other - found[1]).flatten(1).abs().amax(1)[labels != labels.flip(0)].min() > 1e-3, "labels matter, each to its row"
    with pytest.raises(InputError, match="batch must be 1 or more"):
        method.sample(2, batch=0)


def test_steps_may_be_denser_at_low_noise():
    method, asked = make((2,), classes=0, sample_spacing="quadratic"), []
    joint = method.joint
    method.joint = lambda x, t, label=None: asked.append(int(t[0])) or joint(x, t, label)
    x = method.sample(2, steps=4, eta=0.0)
    assert asked == [1000, 562, 250, 62] and not torch.equal(x, method.sample(2, steps=4, eta=0.0, spacing="even"))
    noise = method.invert(x, steps=50, iterations=8)
    assert float((method.sample(2, start=noise, steps=50, eta=0.0) - x).abs().max()) < 0.02


# --- the weight of the cross-entropy, augmentation


def test_the_weight_of_the_cross_entropy_rises_by_a_line():
    method = make(images=1000, cross_entropy_early=0.1, cross_entropy_weight=0.5, cross_entropy_rise=(0.4, 0.6))
    assert [round(method.weight_at(n), 6) for n in (0, 400, 450, 500, 600, 1000, 5000)] == [0.1, 0.1, 0.2, 0.3, 0.5, 0.5, 0.5]
    assert make(cross_entropy_weight=0.3).weight_at(7) == 0.3
    method = make(classes=3, images=1000, cross_entropy_early=0.0, cross_entropy_weight=0.5)
    x0, label, _, _ = draws(method)
    losses = []
    for images in (0, 1000):
        update = Recorder(4)
        update.images = images
        method.step(Batch(x0, label), update)
        losses.append((float(update.loss), update.logged))
    (early, logged), (late, _) = losses
    assert early == pytest.approx(float(logged["score_matching"].detach().mean()), rel=1e-5)
    assert late == pytest.approx(early + 0.5 * float(logged["cross_entropy"].detach().mean()), rel=1e-5)


def test_what_the_classes_see_moved_samples_do_not(monkeypatch):
    """Of `class_augmentation` the score matching sees nothing, the cross-entropy all; of `augmentation` both see the same."""
    monkeypatch.setattr(Shifts, "__call__", lambda self, x, generator=None: x.flip(3) if self.flip == 1.0 else x + 0.5)
    flips, lighter = Shifts(flip=1.0), Shifts(flip=0.0)
    method = make(classes=3, passes="separate", clean_share=1.0, augmentation=lighter, class_augmentation=flips)
    x0, label, _, _ = draws(method)
    seen = []
    monkeypatch.setattr(method, "losses", lambda *a: seen.append(a) or (torch.zeros(len(a[0]), requires_grad=True),) * 3)
    method.step(Batch(x0, label), Recorder(2))
    assert torch.equal(seen[0][0], x0 + 0.5) and torch.equal(seen[0][5][0], (x0 + 0.5).flip(3))


@pytest.mark.parametrize("noised", [True, False])
def test_noised_images_are_moved_for_the_classes_only_where_asked(noised, monkeypatch):
    monkeypatch.setattr(Shifts, "__call__", lambda self, x, generator=None: x.flip(3))
    method = make(classes=3, passes="separate", class_augmentation=Shifts(flip=1.0), class_augmentation_noised=noised)
    monkeypatch.setattr(type(method.schedule), "diffuse", lambda self, x, t, epsilon: x)
    x0 = torch.randn(64, *method.config.shape)
    x, t = method._own_pass(x0, tw.random.seeded(0))
    flipped = torch.tensor([torch.equal(a, b.flip(2)) for a, b in zip(x, x0)])
    assert 10 < (t == 0).sum() < 54 and torch.equal(flipped, (t == 0) | noised)


def test_an_augmented_training_goes_on_after_a_stop_as_if_there_were_none(tmp_path):
    data = tw.data.load("digits")
    fields = dict(width=8, blocks=1, batch=16, images=96, passes="separate", augmentation=Shifts(), class_augmentation=Affine())

    def trained(name, images=96):
        method = tw.method("egc/digits", seed=0, data=data, **fields)
        return tw.fit(method, data, tmp_path / name, images=images, progress=False, save_every=48)

    whole, _ = trained("whole"), trained("stopped", 48)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), trained("stopped").parameters()))


# --- energies by the noise of x₀


def test_the_energy_at_sigma_is_that_of_data_with_so_much_noise():
    """Of the exact model of N(0, s²): −log N(x; 0, s² + σ²) up to a constant, with its slopes in x and, but for a constant, in log σ."""
    method = make((3,), classes=0, readout="logits", data_std=0.6)
    with torch.no_grad():
        for p in method.parameters():
            p.zero_()
    x = random.normal(50, 3, generator=random.seeded(1))
    low, high = method.sigma_range
    assert low == pytest.approx(0.01, rel=1e-3) and high > 100
    for sigma in (0.1, 0.5, 3.0):
        level = method.schedule.nearest(sigma)
        exact = method.schedule.ratio(level)
        assert exact == pytest.approx(sigma, rel=0.02)
        squares, variance = x.square().sum(1), 0.36 + exact**2
        value, by_x, by_level = method.slopes(x, sigma=sigma)
        assert torch.equal(value, method.energy(x, sigma=sigma).detach())
        expected = squares / (2 * variance)
        torch.testing.assert_close(value - value.mean(), expected - expected.mean(), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(by_x, x / variance, rtol=1e-3, atol=1e-4)
        slope = -squares * exact**2 / variance**2
        gap = (by_level - by_level.mean()) - (slope - slope.mean())
        assert float(gap.abs().max()) < 0.1 * float(slope.abs().max()), "as near as a difference between levels is to a slope"
    for message, options in {"from 0.01.* got 0.001": dict(sigma=0.001), "not both": dict(sigma=0.1, t=3)}.items():
        with pytest.raises(InputError, match=message):
            method.energy(x, **options)


# --- refusals

CONVNET = dict(net="convnet", readout="logits")
REFUSED = {
    "convnet map": (CONVNET | dict(readout="inner"), r"'convnet' has no map; it needs readout = 'logits', got 'inner'"),
    "convnet vectors": (CONVNET | dict(shape=(3,)), r"needs images \[C, H, W\], got shape \(3,\)"),
    "vectors map": (dict(net="mlp", readout="map", shape=(3,)), "readout = 'map' needs images"),
    "convnet size": (CONVNET | dict(widths=(8, 8, 8, 8), shape=(1, 9, 9)), "height and width must divide by 8, got 9×9"),
    "augmented latents": (dict(autoencoder="a", augmentation="affine"), "augmentation is for images"),
    "augmented vectors": (dict(shape=(2,), net="mlp", class_augmentation="shifts"), "augmentation is for images"),
    "classes of one pass": (dict(class_augmentation="shifts"), "class_augmentation needs passes = 'separate'"),
    "rise": (dict(cross_entropy_rise=(0.5, 1.5)), "cross_entropy_rise"),
    "spacing": (dict(sample_spacing="log"), "sample_spacing"),
    "map pooled elsewhere": (dict(net=GuidedUNet(width=8, pool="map"), shape=(1, 8, 8)), "a map of as many channels, and this map has 1"),
    "classifier": (dict(classifier_only=True, classes=0), "classifier_only = True needs labels"),
    "unsupervised classifier": (dict(classifier_only=True, supervised=False), "needs labels"),
    "leak": (dict(label_input=True, label_dropping=0.1), "label_input needs passes = 'separate'"),
    "never dropped": (dict(label_input=True, label_dropping=0.0, passes="separate"), "label_dropping between 0 and 1, got 0"),
    "always dropped": (dict(label_input=True, passes="separate"), "label_dropping between 0 and 1, got 1"),
    "share": (dict(label_dropping=1.5), "label_dropping"),
    "passes": (dict(passes="both"), "passes"),
    "latent classes": (dict(latent_classes=0), "latent_classes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_settings_are_refused(name):
    fields, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        tw.method("egc", **fields)


@pytest.mark.parametrize(("call", "message"), [
    (lambda m: m.invert(torch.zeros(2, 1, 4, 4)), r"invert needs images \[B, 1, 8, 8\], got \[2, 1, 4, 4\]"),
    (lambda m: m.invert(torch.zeros(2, 1, 8, 8), steps=0), "1 to 1000 steps and 1 iteration or more, got 0 and 4"),
    (lambda m: m.invert(torch.zeros(2, 1, 8, 8), iterations=0), "got 200 and 0"),
    (lambda m: m.invert(torch.zeros(2, 1, 8, 8), label=3), "between 0 and 2, got 3"),
])  # fmt: skip
def test_wrong_inversions_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(make(classes=3))
