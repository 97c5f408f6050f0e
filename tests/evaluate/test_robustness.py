"""Attacks against closed forms, a hand-written FGSM and brute force; each check for masked gradients on a classifier that fails it."""

import dataclasses
import json

import matplotlib.image
import numpy as np
import pytest
import torch
from torch import nn

from thalweg import plot
from thalweg.errors import InputError
from thalweg.evaluate.accuracy import wilson
from thalweg.evaluate.auto_pgd import checkpoints, ratio, withstands
from thalweg.evaluate.robustness import robustness
from thalweg.methods.egc import EGC, Config
from thalweg.nn.build import PatchNet
from thalweg.plot import style
from thalweg.random import normal, seeded, uniform

QUICK = dict(steps=8, restarts=2)


def shares(curve):
    return [point.value for point in curve]


def linear(classes, *key):
    """A linear classifier of 2×4×4 images, its weights and biases, and images with labels that it mostly gets right."""
    g = seeded(*key)
    weight, bias = normal(classes, 32, generator=g), 0.3 * normal(classes, generator=g)
    x = uniform(200, 2, 4, 4, low=-1, high=1, generator=g)
    value = x.flatten(1) @ weight.T + bias
    return (lambda z: z.flatten(1) @ weight.T + bias), weight, bias, x, (value + 0.5 * normal(*value.shape, generator=g)).argmax(1)


@pytest.fixture(scope="module")
def honest():
    """A smooth classifier, a small MLP of two pixels, and points with its labels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 3))
        with torch.no_grad():
            for layer in net[1::2]:
                layer.weight.mul_(4)
    x = uniform(120, 1, 1, 2, low=-1, high=1, generator=seeded(1))
    with torch.no_grad():
        return net, x, net(x).argmax(1)


def test_fgsm_is_that_written_by_hand():
    logits, weight, _, x, y = linear(5, 0)
    epsilons = (2 / 255, 8 / 255, 32 / 255)
    report = robustness(logits, x, y, epsilons=epsilons, batch=64, **QUICK)
    for epsilon, found in zip(epsilons, report.fgsm):
        p = logits(x).softmax(1)
        gradient = (p - nn.functional.one_hot(y, 5)) @ weight  # of the cross-entropy by x
        moved = (x + 2 * epsilon * gradient.sign().view_as(x)).clamp(-1, 1)
        clean = logits(x).argmax(1) == y
        assert found == wilson(int((clean & (logits(moved).argmax(1) == y)).sum()), 200)
    assert report.clean == wilson(int((logits(x).argmax(1) == y).sum()), 200)
    assert shares(report.fgsm) == pytest.approx([0.82, 0.41, 0.0])


def test_pgd_reaches_the_exact_worst_case_of_a_linear_classifier():
    logits, weight, bias, x, y = linear(2, 1)
    epsilons = (1 / 255, 4 / 255, 16 / 255, 64 / 255, 128 / 255)
    report = robustness(logits, x, y, epsilons=epsilons, **QUICK)
    direction = (weight[1] - weight[0]) * (2 * y - 1)[:, None]  # the margin of the true class is ⟨direction, x⟩ + its bias
    for epsilon, found in zip(epsilons, report.pgd):
        worst = (x.flatten(1) - 2 * epsilon * direction.sign()).clamp(-1, 1)
        margin = (direction * worst).sum(1) + (bias[1] - bias[0]) * (2 * y - 1)
        assert found == wilson(int((margin > 0).sum()), 200)
    inner = 0.4 * x  # away from the borders the worst case is margin − ε‖w‖₁
    found = robustness(logits, inner, y, epsilons=(0.05,), **QUICK).pgd[0]
    margin = (direction * inner.flatten(1)).sum(1) + (bias[1] - bias[0]) * (2 * y - 1) - 0.1 * (weight[1] - weight[0]).abs().sum()
    assert found == wilson(int((margin > 0).sum()), 200)
    assert report.checks.passed and report.checks.full_range_accuracy == 0.0
    assert shares(report.pgd) == pytest.approx([0.91, 0.825, 0.34, 0.0, 0.0])


def test_pgd_finds_what_brute_force_finds(honest):
    net, x, y = honest
    epsilons = (0.02, 0.05, 0.1)
    report = robustness(net, x, y, epsilons=epsilons, steps=20, restarts=5)
    offsets = torch.linspace(-1, 1, 101)
    square = torch.cartesian_prod(offsets, offsets)
    for epsilon, found in zip(epsilons, report.pgd):
        with torch.no_grad():
            right = torch.stack(
                [(net((p + 2 * epsilon * square).clamp(-1, 1)).argmax(1) == label).all() for p, label in zip(x.flatten(1), y)]
            )
        exact = float(right.double().mean())
        assert 0.2 < exact < 0.98
        assert exact - 0.01 <= found.value <= exact + 0.02  # one example less for the spacing of the grid, two more at most
    assert report.checks.passed and all(a <= b for a, b in zip(shares(report.pgd), shares(report.noise)))


def test_epsilons_are_in_the_unit_of_images_from_0_to_1(honest):
    net, x, y = honest
    expected = robustness(net, x, y, epsilons=(0.03, 0.06), **QUICK)
    found = robustness(lambda z: net(2 * z - 1), (x + 1) / 2, y, epsilons=(0.03, 0.06), bounds=(0, 1), **QUICK)
    for kind in ("fgsm", "pgd", "noise"):
        assert shares(getattr(found, kind)) == pytest.approx(shares(getattr(expected, kind)), abs=0.01)
    assert 0.3 < found.pgd[1].value < found.pgd[0].value < 0.95


def test_an_example_broken_at_a_smaller_epsilon_stays_broken_for_pgd_alone():
    bump = lambda z: torch.stack([torch.full((len(z),), 0.05), (z.flatten(1).mean(1) - 0.15).abs()], 1)  # noqa: E731
    x, y = torch.zeros(4, 1, 1, 1), torch.ones(4).long()  # class 0 within 0.05 of 0.15: one long step flies over it
    report = robustness(bump, x, y, epsilons=(0.075, 0.3), steps=1, restarts=1)
    assert shares(report.fgsm) == [0.0, 1.0]
    assert shares(report.pgd) == [0.0, 0.0]
    assert report.checks.full_range_accuracy == 1.0 and not report.checks.reaches_zero  # checks look at each ε by itself


def test_noise_is_uniform_and_the_worst_of_as_many_draws_as_pgd_has():
    def edge(z):  # wrong within the last tenth of the interval [−0.2, 0.2]
        return torch.stack([z.flatten(1).mean(1) * 0 + 0.16, z.flatten(1).mean(1)], 1)

    x, y = torch.zeros(500, 1, 1, 1), torch.zeros(500).long()
    for restarts in (1, 5):
        found = robustness(edge, x, y, epsilons=(0.1,), steps=1, restarts=restarts).noise[0].value
        expected = 0.9 ** (2 * restarts)
        assert abs(found - expected) < 3.5 * np.sqrt(expected * (1 - expected) / 500)


class Reversed(torch.autograd.Function):
    """The identity with its gradient turned round."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


def rounded(net):
    return lambda z: net((8 * z).round() / 8)


def saturated(net):
    return lambda z: 1e6 * net(z)


def rippled(net):
    """A ripple of short wavelength, whose gradient drowns the classifier's own."""
    return lambda z: net(z) + 0.3 * torch.sin(1e4 * z.flatten(1) @ torch.tensor([[1.0, 0.3, -0.7], [0.2, -1.1, 0.5]]))


def turned_round(net):
    return lambda z: net(Reversed.apply(z))


def constant(net):
    return lambda z: nn.functional.one_hot(torch.zeros(len(z)).long(), 3) + 0 * z.flatten(1).sum(1, keepdim=True)


@pytest.mark.parametrize(
    ("masked", "failing"),
    [
        (rounded, {"gradients_flow", "restarts_help_little"}),
        (saturated, {"gradients_flow"}),
        (rippled, {"restarts_help_little"}),
        (turned_round, {"noise_is_weaker", "reaches_zero"}),
        (constant, {"gradients_flow", "reaches_zero"}),
    ],
)
def test_masked_gradients_are_flagged(honest, masked, failing):
    net, x, y = honest
    logits = masked(net)
    report = robustness(logits, x, logits(x).argmax(1), epsilons=(0.02, 0.05, 0.1), steps=10, restarts=5)
    assert not report.checks.passed
    failed = {name for name, value in dataclasses.asdict(report.checks).items() if value is False} - {"passed"}
    assert failing <= failed, report.checks
    if masked is saturated:  # the margin still leads to the same examples
        assert shares(report.fgsm) == [1.0] * 3 and report.checks.zero_gradients > 0.9
        plain = robustness(net, x, y, epsilons=(0.02, 0.05, 0.1), steps=10, restarts=5)
        assert shares(report.pgd) == pytest.approx(shares(plain.pgd), abs=0.02)


def test_pgd_that_is_weaker_than_fgsm_is_flagged():
    def trap(z):  # from 0 the way to what is beyond 0.18 leads over a local peak of the loss at 0.05, where small steps stay
        s = z.flatten(1).mean(1)
        beyond = torch.where(s > 0.195, 1.0 + 0 * s, -1 - (s - 0.05).abs())
        return torch.stack([0 * s, beyond], 1)

    x, y = torch.zeros(60, 1, 1, 1), torch.zeros(60).long()
    report = robustness(trap, x, y, epsilons=(0.1,), steps=40, restarts=1)
    assert shares(report.fgsm) == [0.0] and report.checks.pgd_over_fgsm > 0.8 and not report.checks.pgd_at_least_fgsm


def test_attacking_a_method_changes_nothing_and_repeats():
    method = EGC(Config(shape=(1, 8, 8), classes=10, net=PatchNet(width=16, blocks=1))).train()
    method.net.requires_grad_(True)
    next(method.net.parameters()).requires_grad_(False)
    flags = [p.requires_grad for p in method.parameters()]
    x = uniform(40, 1, 8, 8, low=-1, high=1, generator=seeded(0))
    with torch.no_grad():
        y = method.classify(x).argmax(1)
    state = torch.get_rng_state()
    first, again = (robustness(method.classify, x, y, epsilons=(8 / 255, 64 / 255), batch=batch, **QUICK) for batch in (40, 7))
    assert first == again  # also however the examples are batched
    assert torch.equal(state, torch.get_rng_state())
    assert [p.requires_grad for p in method.parameters()] == flags and all(m.training for m in method.modules())
    robustness(lambda z: method.classify(z), x, y, epsilons=(8 / 255,), steps=2, restarts=1)
    assert all(p.grad is None for p in method.parameters())  # also where the module is out of sight
    assert first.clean.value == 1.0 and first.checks.full_range_accuracy <= 0.05
    assert robustness(method.classify, x, y, epsilons=(8 / 255, 64 / 255), seed=1, **QUICK) != first
    plain = json.loads(json.dumps(dataclasses.asdict(first), allow_nan=False))
    assert plain["n"] == 40 and len(plain["pgd"]) == 2 and plain["pgd"][0]["n"] == 40


def test_a_module_is_attacked_in_evaluation_mode():
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(2, 2)).train()
    x = uniform(50, 1, 1, 2, low=-1, high=1, generator=seeded(2))
    with torch.no_grad():
        y = net[2](x.flatten(1)).argmax(1)
    assert robustness(net, x, y, epsilons=(1e-6,), **QUICK).clean.value == 1.0
    assert net.training and net[1].training


X, Y = torch.zeros(4, 1, 1, 2), torch.tensor([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (X + 1.5, Y, {}, r"range over \[1.5, 1.5\], need \[-1, 1\]"),
        (X - 0.5, Y, {"bounds": (0.0, 1.0)}, r"need \[0, 1\]"),
        (X.flatten(1) + 1.5, Y, {}, r"need \[-1, 1\]"),
        (X * np.nan, Y, {}, "need finite floats"),
        (X, Y[:2], {}, "4 examples and torch.int64 labels"),
        (X, Y + 1, {}, "labels outside 0 to 1"),
        (X, Y - 1, {}, "labels outside 0 to 1"),
        (X, Y, {"epsilons": ()}, "need rising numbers in"),
        (X, Y, {"epsilons": (0.1, 8.0)}, "need rising numbers in"),
        (X, Y, {"epsilons": (0.2, 0.1)}, "need rising numbers in"),
        (X, Y, {"epsilons": (0.0, 0.1)}, "need rising numbers in"),
        (X, Y, {"bounds": (1.0, -1.0)}, "bounds: got"),
        (X, Y, {"steps": 0}, "steps = 0"),
        (X, Y, {"restarts": 1.5}, "restarts = 1.5"),
    ],
)
def test_wrong_input_is_refused(x, y, options, message):
    with pytest.raises(InputError, match=message):
        robustness(lambda z: z.flatten(1), x, y, **options)


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (lambda z: z, "logits of shape"),
        (lambda z: z.flatten(1) * np.nan, "NaN among the logits"),
        (lambda z: z.flatten(1)[:, :1], "2 classes or more"),
        (torch.no_grad()(lambda z: z.flatten(1)), "have no gradient by x"),
        (torch.no_grad()(lambda z: 2 * z.flatten(1)), "have no gradient by x"),
        (lambda z: torch.ones(len(z), 2, requires_grad=True) * 2, "have no gradient by x"),
    ],
)
def test_wrong_classifiers_are_refused(logits, message):
    with pytest.raises(InputError, match=message):
        robustness(logits, X + 0.1, Y, **QUICK)


def test_the_curves_are_drawn(honest, tmp_path):
    net, x, y = honest
    good, bad = (robustness(f, x[:20], y[:20], epsilons=(4 / 255, 16 / 255), steps=2, restarts=1) for f in (net, saturated(net)))
    one, two = (
        (matplotlib.image.imread(plot.robustness(reports, tmp_path / name, title="t"))[:, :, :3] * 255).round().astype(np.uint8)
        for name, reports in (("a.png", good), ("b.png", {"plain": good, "other": bad}))
    )
    assert one.shape == two.shape == (round(4.0 * style.DPI), round(6.4 * style.DPI), 3)
    drawn = [(picture == [0xE2, 0x57, 0x2B]).all(-1).sum() > 100 for picture in (one, two)]
    assert drawn == [False, True]  # the second colour is of the second classifier
    with pytest.raises(InputError, match="need one RobustnessReport or more by name"):
        plot.robustness({}, tmp_path / "c.png")


# --- Auto-PGD


def test_auto_pgd_reaches_the_exact_worst_case_where_one_class_must_be_aimed_at():
    """Of a linear classifier of five classes the worst case is the least over wrong classes of a closed form."""
    logits, weight, bias, x, y = linear(5, 2)
    x = 0.3 * x  # away from the borders
    y = logits(x).argmax(1)
    for radius in (0.003, 0.008):
        margin = (weight[y, None] - weight) @ x.flatten(1)[:, :, None]
        margin = margin[:, :, 0] + bias[y, None] - bias - radius * (weight[y, None] - weight).abs().sum(2)
        right = margin.masked_fill(nn.functional.one_hot(y, 5).bool(), 1.0).amin(1) > 0
        start = uniform(*x.shape, low=-1, high=1, generator=seeded(3))
        found = withstands(logits, x, y, start, radius=radius, bounds=(-1.0, 1.0), steps=10)
        assert torch.equal(found, right) and 0.1 < float(right.float().mean()) < 0.9


def test_auto_pgd_breaks_what_a_fixed_step_flies_over():
    """A wrong class within 0.02 of 0.07: steps of 2.5 ε fly over it, and those that halve find it."""

    def narrow(z):
        m = z.flatten(1).mean(1)
        return torch.stack([torch.full_like(m, -0.02), -(m - 0.07).abs()], 1)

    x, y = torch.zeros(50, 1, 1, 1), torch.zeros(50).long()
    report = robustness(narrow, x, y, epsilons=(0.5,), steps=1, restarts=1, auto=20)
    assert shares(report.pgd)[0] > 0.5 and shares(report.auto) == [0.0] and report.auto_steps == 20


def test_auto_pgd_is_at_most_pgd_and_never_rises(honest):
    net, x, y = honest
    report = robustness(net, x, y, epsilons=(0.02, 0.05, 0.1), **QUICK)
    pgd, auto = shares(report.pgd), shares(report.auto)
    assert all(a <= p for a, p in zip(auto, pgd)) and auto == sorted(auto, reverse=True) and report.auto_steps == QUICK["steps"]
    assert robustness(net, x, y, epsilons=(0.02,), auto=0, **QUICK).auto == ()


def test_the_targeted_ratio_does_not_change_with_scale_and_shift_of_logits():
    values, own, target = normal(6, 5, generator=seeded(4)), torch.arange(6) % 5, (torch.arange(6) + 2) % 5
    torch.testing.assert_close(ratio(3 * values + 7, own, target), ratio(values, own, target), rtol=1e-4, atol=1e-5)
    row = torch.tensor([[4.0, 1.0, 3.0, 2.0, 0.0]])  # sorted 4, 3, 2, 1: (z_2 − z_0)/(4 − 1.5)
    torch.testing.assert_close(ratio(row, torch.tensor([0]), torch.tensor([2])), torch.tensor([-1 / 2.5]))
    torch.testing.assert_close(ratio(row[:, :3], torch.tensor([0]), torch.tensor([2])), torch.tensor([-1 / 3.0]))
    torch.testing.assert_close(ratio(row[:, :2], torch.tensor([0]), torch.tensor([1])), torch.tensor([-3.0]))


def test_checkpoints_come_closer_together():
    assert checkpoints(100)[:5] == [22, 41, 57, 70, 80] and checkpoints(100)[-1] <= 100
    assert checkpoints(1) == [1] and all(b > a for a, b in zip(checkpoints(20), checkpoints(20)[1:]))
