"""Calibration figures by hand, against scikit-learn and a plain loop; how often intervals and floors hold; the diagram."""

import dataclasses
import json
import math

import matplotlib.image
import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss, log_loss

from thalweg import plot
from thalweg.errors import InputError
from thalweg.evaluate.accuracy import wilson
from thalweg.evaluate.calibration import calibration, calibration_from_probabilities
from thalweg.plot import style
from thalweg.random import normal, seeded, uniform


def drawn(n, sharpness, *key, classes=10):
    """Probabilities [n, classes] of a model that sharpens the true logits, and labels from the truth: calibrated at 1."""
    g = seeded(*key)
    logits = 3 * normal(n, classes, generator=g).double()
    label = (logits.softmax(1).cumsum(1) < uniform(n, 1, generator=g)).sum(1).clamp_max(classes - 1)
    return (sharpness * logits).softmax(1), label


def test_figures_by_hand():
    p = torch.tensor([[0.9, 0.05, 0.05], [0.2, 0.7, 0.1], [0.3, 0.1, 0.6], [0.1, 0.8, 0.1]])
    report = calibration_from_probabilities(p, torch.tensor([0, 0, 2, 1]), bins=4)
    assert report.n == 4 and report.accuracy == wilson(3, 4)
    assert report.edges == (0.0, 0.25, 0.5, 0.75, 1.0) and report.counts == (0, 0, 2, 2)
    assert report.confidences[:2] == report.accuracies[:2] == (None, None)
    assert report.confidences[2:] == pytest.approx((0.65, 0.85)) and report.accuracies[2:] == (0.5, 1.0)
    assert report.ece == pytest.approx((0.15 + 0.15) / 2) and report.confidence == pytest.approx(0.75)
    assert report.nll == pytest.approx(-sum(map(math.log, (0.9, 0.2, 0.6, 0.8))) / 4)
    squares = (0.01 + 2 * 0.05**2, 0.64 + 0.49 + 0.01, 0.09 + 0.01 + 0.16, 0.01 + 0.04 + 0.01)
    assert report.brier == pytest.approx(sum(squares) / 4)
    half = 1.959964 * np.std(squares, ddof=1) / 2
    assert report.brier_interval == pytest.approx((report.brier - half, report.brier + half))
    assert json.loads(json.dumps(dataclasses.asdict(report), allow_nan=False))["counts"] == [0, 0, 2, 2]


def test_figures_are_those_of_the_references_and_have_not_moved():
    p, y = drawn(1000, 1.5, 3)
    report = calibration_from_probabilities(p, y)
    confidence, right = p.max(1).values.numpy(), (p.argmax(1) == y).numpy()
    expected = 0.0
    for low in np.arange(15) / 15:  # Guo et al. 2017, eq. 3, as it is written
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert report.ece == pytest.approx(expected, rel=1e-4)
    assert report.nll == pytest.approx(log_loss(y, p, labels=range(10)), rel=1e-6)
    assert report.brier == pytest.approx(brier_score_loss(y, p, labels=range(10), scale_by_half=False), rel=1e-6)
    assert report.accuracy.value == right.mean()
    assert (report.ece, report.ece_floor, report.nll, report.brier) == pytest.approx(
        (0.11190741, 0.03001665, 1.0323321, 0.48379346), rel=1e-4
    )


def test_full_confidence_belongs_to_the_last_bin():
    p = torch.tensor([[1.0, 0.0], [0.95, 0.05]])
    report = calibration_from_probabilities(p, torch.tensor([1, 0]), bins=10)
    assert report.counts[-1] == 2 and report.ece == pytest.approx(0.975 - 0.5)
    assert report.nll == math.inf and report.nll_interval == (math.inf, math.inf)  # the truth had probability 0


def test_logits_and_probabilities_give_the_same_report():
    x, y = normal(100, 3, 2, 2, generator=seeded(0)).clamp(-1, 1), torch.arange(100) % 12
    state = torch.get_rng_state()
    reports = [
        calibration(lambda part: 5 + 3 * part.flatten(1), x, y, batch=33, bootstrap=50),
        calibration(lambda part: (3 * part.flatten(1)).log_softmax(1), x, y, bootstrap=50),
        calibration_from_probabilities((3 * x.flatten(1).double()).softmax(1), y, bootstrap=50),
    ]
    for report in reports[1:]:
        assert report.counts == reports[0].counts and report.accuracy == reports[0].accuracy
        for name in ("ece", "ece_interval", "ece_floor", "nll", "nll_interval", "brier"):
            assert getattr(report, name) == pytest.approx(getattr(reports[0], name), rel=1e-5)
    assert torch.equal(state, torch.get_rng_state())
    other = calibration(lambda part: 3 * part.flatten(1), x, y, bootstrap=50, seed=1)
    assert other.ece_floor != reports[0].ece_floor and other.ece == pytest.approx(reports[0].ece)


def test_a_calibrated_classifier_is_at_the_floor():
    reports = [calibration_from_probabilities(*drawn(300, 1.0, 5, k), bootstrap=100, seed=k) for k in range(120)]
    above = sum(report.ece > report.ece_floor_high for report in reports)
    assert above <= 6 + 3 * math.sqrt(120 * 0.05 * 0.95)  # 5 % expected
    excess = np.array([report.ece - report.ece_floor for report in reports])
    assert abs(excess.mean()) < 3.5 * excess.std() / math.sqrt(120)
    assert min(report.ece for report in reports) > 0.02  # which is why there is a floor
    assert sum(report.ece_interval[0] == 0 for report in reports) >= 120 - above


def test_an_overconfident_classifier_is_above_the_floor_and_intervals_cover():
    population = calibration_from_probabilities(*drawn(200_000, 3.0, 6), bootstrap=20)
    truth, nll = population.ece, population.nll
    assert truth > 0.15
    reports = [calibration_from_probabilities(*drawn(500, 3.0, 7, k), bootstrap=200, seed=k) for k in range(80)]
    assert all(report.ece > report.ece_floor_high for report in reports)
    covered = sum(report.ece_interval[0] <= truth <= report.ece_interval[1] for report in reports)
    assert covered >= 76 - 4 * math.sqrt(80 * 0.05 * 0.95)  # 95 % expected
    width = np.mean([report.ece_interval[1] - report.ece_interval[0] for report in reports])
    assert width == pytest.approx(2 * 1.96 * np.std([report.ece for report in reports]), rel=0.3)
    covered = sum(report.nll_interval[0] <= nll <= report.nll_interval[1] for report in reports)
    assert covered >= 76 - 4 * math.sqrt(80 * 0.05 * 0.95)


def pixels(path):
    return (matplotlib.image.imread(path)[:, :, :3] * 255).round().astype(np.uint8)


def test_intervals_take_out_the_bias_of_few_examples():
    truth = calibration_from_probabilities(*drawn(200_000, 1.5, 8), bootstrap=20).ece
    reports = [calibration_from_probabilities(*drawn(200, 1.5, 9, k), bootstrap=200, seed=k) for k in range(100)]
    assert np.mean([report.ece for report in reports]) > 1.1 * truth
    # about 89 of 100 were expected from a simulation, and 66 of percentiles of the resamples, which are biased twice
    assert sum(report.ece_interval[0] <= truth <= report.ece_interval[1] for report in reports) >= 80


P, Y = torch.full((4, 2), 0.5), torch.tensor([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("p", "y", "options", "message"),
    [
        (P[:, 0], Y, {}, r"need \[N, classes\] in \[0, 1\]"),
        (P * 1.1, Y, {}, "rows sum to 1"),
        (torch.tensor([[1.5, -0.5]] * 4), Y, {}, "rows sum to 1"),
        (P * math.nan, Y, {}, "rows sum to 1"),
        (P, Y[:3], {}, r"labels: got torch.int64 \[3\] for predictions \[4, 2\]"),
        (P, Y.float(), {}, "got torch.float32"),
        (P, Y + 1, {}, "need \\[N\\] classes from 0"),
        (P, Y - 1, {}, "need \\[N\\] classes from 0"),
        (P[:1], Y[:1], {}, "N and classes ≥ 2"),
        (torch.ones(4, 1), Y * 0, {}, "N and classes ≥ 2"),
        (P, Y, {"bins": 0}, "bins: got 0"),
        (P, Y, {"bootstrap": 3}, "20 resamples or more"),
    ],
)
def test_wrong_probabilities_are_refused(p, y, options, message):
    with pytest.raises(InputError, match=message):
        calibration_from_probabilities(p, y, **options)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.zeros(4, 1, 1, 2) + 1.5, Y, r"examples range over \[1.5, 1.5\], need \[-1, 1\]"),
        (torch.full((4, 2), math.inf), Y, "need finite floats"),
        (torch.zeros(4, 2).long(), Y, "need finite floats"),
        (torch.zeros(4, 2), Y[:2], "4 examples and torch.int64 labels"),
        (torch.zeros(4, 2, 2), Y, "logits of shape"),
        (torch.zeros(1, 2), Y[:1], "N ≥ 2"),
    ],
)
def test_wrong_examples_are_refused(x, y, message):
    with pytest.raises(InputError, match=message):
        calibration(lambda part: part if part.dim() != 4 else part.flatten(1), x, y)


def test_logits_that_are_nan_are_refused():
    with pytest.raises(InputError, match="NaN"):
        calibration(lambda part: part * math.nan, torch.zeros(4, 2), Y)


def test_the_diagram_is_drawn(tmp_path):
    report = calibration_from_probabilities(*drawn(300, 2.0, 1), bootstrap=20)
    one, two = (
        pixels(plot.reliability(reports, tmp_path / name))
        for name, reports in (("a.png", report), ("b.png", {"plain": report, "other": report}))
    )
    assert one.shape == (round(4.4 * style.DPI), round(4.6 * style.DPI), 3) and two.shape[1] == round(7.2 * style.DPI)
    assert all((picture == [0x25, 0x63, 0xEB]).all(-1).sum() > 100 for picture in (one, two))
    for bad in ({}, [report], {"a": 1}):
        with pytest.raises(InputError, match="need one Calibration or more by name"):
            plot.reliability(bad, tmp_path / "c.png")
