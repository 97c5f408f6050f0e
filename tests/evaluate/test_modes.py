"""Stacked data, and counts of modes and their KL against NumPy, SciPy and what exact sampling gives."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from thalweg.data import SPLITS, Images, Stacked, load
from thalweg.errors import InputError
from thalweg.evaluate.extractor import ExtractorConfig, extractor
from thalweg.evaluate.modes import count_modes, perfect_sampler, stacked_modes
from thalweg.random import integers, normal, seeded, uniform

TENTH = torch.full((10,), 0.1, dtype=torch.float64)
UNIFORM = torch.einsum("a,b,c->abc", TENTH, TENTH, TENTH).flatten()


class Reader:
    """A perfect classifier of grey images whose every pixel is class k's level, 2k/9 − 1."""

    name, test_accuracy, shape = "levels", 0.97, (1, 4, 4)

    def logits(self, images):
        assert images.shape[1:] == self.shape
        return -(images.mean((1, 2, 3))[:, None] - self.level(torch.arange(10))).square()

    @staticmethod
    def level(labels):
        return labels * 2 / 9 - 1


def stacks(labels):
    """Images that `Reader` reads as the labels 100 a + 10 b + c."""
    parts = torch.stack([labels // 100, labels // 10 % 10, labels % 10], 1)
    return Reader.level(parts)[:, :, None, None].expand(-1, -1, 4, 4)


# the data


def test_a_stack_holds_three_images_of_its_own_split_and_their_label():
    for split in SPLITS:
        base, made = load("digits", split), load("stacked-digits", split)
        assert made.shape == (3, 8, 8) and len(made.classes) == 1000 and made.classes[123] == "123"
        x, label = made.batch(0, 300, 5)
        for channel in range(3):
            distance = torch.cdist(x[:, channel].flatten(1), base.all().x.flatten(1))
            value, row = distance.min(1)
            assert float(value.max()) == 0.0  # a digit of this split, unchanged
            assert torch.equal(base.label[row], label // 10 ** (2 - channel) % 10)
    assert [len(load("stacked-digits", split)) for split in SPLITS] == [50_000, 5_000, 26_000]


def test_channels_are_drawn_evenly_and_independently():
    made = load("stacked-digits")
    counts = torch.bincount(made.index.flatten(), minlength=1259).double()
    expected = 150_000 / 1259
    assert scipy.stats.chi2.sf(float((counts - expected).square().sum()) / expected, 1258) > 1e-4
    modes = torch.bincount(made.label, minlength=1000).double()
    share = torch.bincount(made.base.label).double() / 1259
    target = 50_000 * torch.einsum("a,b,c->abc", share, share, share).flatten()
    assert scipy.stats.chi2.sf(float(((modes - target).square() / target).sum()), 999) > 1e-4
    assert int(modes.min()) > 0


def test_stacks_are_one_seeded_stream():
    made = Stacked(load("digits", "validation"), 50)
    whole = made.batch(7, 120, 3)  # over three epochs
    parts = [made.batch(7, 43, 3), made.batch(50, 77, 3)]
    assert torch.equal(whole.x, torch.cat([part.x for part in parts])) and torch.equal(whole.label, torch.cat([p.label for p in parts]))
    assert torch.equal(made.batch(50, 50, 3).label.sort().values, made.label.sort().values)  # an epoch visits each once
    assert not torch.equal(made.batch(0, 50, 3).label, made.batch(50, 50, 3).label)
    assert not torch.equal(made.batch(0, 50, 3).label, made.batch(0, 50, 4).label)
    again = Stacked(load("digits", "validation"), 50)
    assert torch.equal(again.all().x, made.all().x) and torch.equal(again.all().label, made.label)
    assert not torch.equal(Stacked(load("digits", "validation"), 50, seed=1).index, made.index)


def test_the_stream_is_frozen():
    made = load("stacked-digits", "test")
    assert made.label[:4].tolist() == [395, 11, 69, 747]
    assert load("stacked-digits", "test", size=16).shape == (3, 16, 16)


def test_names_of_more_than_a_letter_are_joined_with_a_mark():
    base = Images(torch.zeros(4, 1, 2, 2), torch.tensor([0, 1, 1, 0]), ("cat", "dog"), name="pets")
    made = Stacked(base, 20)
    assert made.classes[3] == "cat/dog/dog" and len(made.classes) == 8 and made.name == "stacked-pets"
    assert int(made.label.max()) == 7


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Stacked(Images(torch.zeros(4, 1, 2, 2), name="bare"), 9), "bare has 1 channels and 0 classes, need 1 channel and labels"),
        (lambda: Stacked(load("digits", channels=3), 9), "3 channels and 10 classes"),
        (lambda: Stacked(load("digits"), 0), "count is 0"),
        (lambda: load("stacked-digits", channels=1), "3 channels, got channels=1"),
        (lambda: load("stacked-digits", "dev"), "unknown split 'dev'"),
        (lambda: load("stacked-digit"), "did you mean 'stacked-digits'"),
        (lambda: load("stacked-digits").batch(-1, 2, 0), "start=-1"),
    ],
)
def test_what_cannot_be_stacked_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


# counts


def test_modes_and_kl_are_those_of_numpy_and_scipy():
    labels = (uniform(5000, generator=seeded(1)).square() * 900).long()  # uneven, and a hundred modes never hit
    target = 1 + uniform(1000, generator=seeded(2)).double()
    target = target / target.sum()
    found = count_modes(labels, target)
    counts = np.bincount(labels.numpy(), minlength=1000)
    assert found.modes == np.count_nonzero(counts) and (found.possible, found.n) == (1000, 5000)
    assert found.kl == pytest.approx(scipy.stats.entropy(counts / 5000, target.numpy()), rel=1e-10)
    assert found.kl_corrected == pytest.approx(found.kl - (found.modes - 1) / 10_000, rel=1e-10)


def test_the_interval_is_the_jackknife_by_brute_force():
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 4, 4, 4, 4])
    target = torch.tensor([0.3, 0.2, 0.2, 0.2, 0.1])

    def corrected(values):
        counts = np.bincount(values, minlength=5)
        return scipy.stats.entropy(counts / len(values), target.numpy()) - (np.count_nonzero(counts) - 1) / (2 * len(values))

    left_out = np.array([corrected(np.delete(labels.numpy(), i)) for i in range(10)])
    error = math.sqrt(9 / 10 * np.square(left_out - left_out.mean()).sum())
    found = count_modes(labels, target)
    assert found.high - found.kl_corrected == pytest.approx(1.96 * error, rel=1e-6)
    assert found.kl_corrected - found.low == pytest.approx(1.96 * error, rel=1e-6)


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_the_correction_takes_the_bias_out_and_intervals_cover(power):
    weight = (1 + torch.arange(1000.0).double() / 250) ** power
    q = weight / weight.sum()
    truth = float((q * (q * 1000).log()).sum())
    draws = np.random.default_rng(0).multinomial(26_000, q.numpy(), size=100)
    reports = [count_modes(torch.arange(1000).repeat_interleave(torch.from_numpy(counts)), UNIFORM) for counts in draws]
    corrected = np.array([report.kl_corrected for report in reports])
    error = corrected.std(ddof=1) / 10
    assert abs(corrected.mean() - truth) < 4 * error + 1e-4  # the next order of the bias: (Σ 1/(1000 q) − 1)/(12 · 26²) of about 1e-4
    assert np.mean([report.kl for report in reports]) - truth == pytest.approx(999 / 52_000, rel=0.05)
    assert sum(report.low <= truth <= report.high for report in reports) >= 88  # 95 ± 3 standard errors of 2.2


@pytest.mark.parametrize("n", [500, 3000, 26_000])
def test_exact_draws_score_what_a_perfect_sampler_should(n):
    share = torch.arange(1.0, 11.0).double().sqrt()
    share = share / share.sum()
    for target in (UNIFORM, torch.einsum("a,b,c->abc", share, share, share).flatten()):
        modes, kl = perfect_sampler(target, n)
        draws = np.random.default_rng(n).multinomial(n, target.numpy(), size=100)
        hit = (draws > 0).sum(1)
        assert abs(hit.mean() - modes) <= 4 * hit.std(ddof=1) / 10 + 1e-6
        values = np.array([scipy.stats.entropy(counts / n, target.numpy()) for counts in draws])
        assert abs(values.mean() - kl) < 4 * values.std(ddof=1) / 10
    assert perfect_sampler(UNIFORM, n)[0] == pytest.approx(1000 * (1 - (1 - 1 / 1000) ** n), rel=1e-9)


def test_frozen_numbers():
    assert perfect_sampler(UNIFORM, 26_000)[1] == pytest.approx(0.019339939655578, rel=1e-9)
    assert perfect_sampler(torch.tensor([0.25, 0.75]), 1) == pytest.approx((1.0, 0.25 * math.log(4) + 0.75 * math.log(4 / 3)))
    assert perfect_sampler(torch.ones(1), 7) == (1.0, 0.0)
    found = count_modes(torch.tensor([0, 0, 0, 1]), torch.tensor([0.5, 0.25, 0.25]))
    assert found.kl == pytest.approx(0.75 * math.log(1.5)) and found.modes == 2
    assert (found.low, found.high) == pytest.approx((-0.6619348778, 1.02013254), rel=1e-6)


# stacks


def test_each_channel_is_read_in_its_place():
    labels = integers(4000, 0, 1000, generator=seeded(3))
    labels[labels == 123] = 321
    labels[labels // 100 == 7] = 555
    found = stacked_modes(stacks(labels), Reader())
    assert found.samples == count_modes(labels, UNIFORM)
    assert found.samples.modes == len(labels.unique())
    assert (found.name, found.target, found.classifier_accuracy) == ("stacked[levels]", "uniform", 0.97)
    assert found.held_out is None and found.stack_accuracy is None
    assert (found.perfect_modes, found.perfect_kl) == perfect_sampler(UNIFORM, 4000)


def test_a_perfect_model_is_at_the_floor_and_a_collapsed_one_above():
    real, good = (integers(3000, 0, 1000, generator=seeded(seed)) for seed in (4, 5))
    wrong = real.clone()
    wrong[:300] = (wrong[:300] + 1) % 1000  # labels that the images do not bear out
    found = stacked_modes(stacks(good), Reader(), held_out=(stacks(real), wrong))
    assert found.held_out == count_modes(real, UNIFORM) and found.stack_accuracy == pytest.approx(0.9)
    error = math.sqrt(1000 * math.exp(-3) * (1 - 4 * math.exp(-3)))  # of the modes hit, to first order
    assert abs(found.samples.modes - found.perfect_modes) < 4 * error
    assert found.samples.low < 0 < found.samples.high
    collapsed = stacked_modes(stacks(good % 50), Reader(), held_out=(stacks(real), None))
    assert collapsed.samples.modes == 50 and collapsed.stack_accuracy is None
    assert collapsed.samples.kl_corrected == pytest.approx(math.log(20), abs=0.02) and collapsed.samples.low > 2.9


def test_only_the_first_n_are_compared_and_shares_set_the_target():
    labels = integers(2000, 0, 1000, generator=seeded(6))
    share = torch.arange(1.0, 11.0)
    found = stacked_modes(stacks(labels), Reader(), held_out=(stacks(labels[:1500]), None), share=share)
    assert found.samples.n == found.held_out.n == 1500 and found.samples == found.held_out and found.target == "shares"
    p = share.double() / 55
    target = torch.stack([p[k // 100] * p[k // 10 % 10] * p[k % 10] for k in range(1000)])
    assert found.samples == count_modes(labels[:1500], target)
    assert stacked_modes(stacks(labels), Reader(), n=100).samples == count_modes(labels[:100], UNIFORM)


def test_a_trained_classifier_reads_real_stacks(monkeypatch, tmp_path):
    monkeypatch.setenv("THALWEG_CACHE", str(tmp_path))
    net = extractor("digits", config=ExtractorConfig(images=6000, batch=32, width=8))
    found = stacked_modes(load("stacked-digits").batch(0, 3000, 0).x, net, held_out=load("stacked-digits", "test").batch(0, 3000, 0))
    assert found.classifier_accuracy == net.test_accuracy > 0.9
    # the same 359 images lie in the stacks: three right as often as one right cubed, within the draw of 3000
    assert found.stack_accuracy == pytest.approx(net.test_accuracy**3, abs=4 * math.sqrt(0.25 / 3000))
    for count in (found.samples, found.held_out):
        assert abs(count.modes - found.perfect_modes) < 25 and count.kl == pytest.approx(found.perfect_kl, abs=0.05)


@pytest.mark.parametrize(
    "images, options, message",
    [
        (torch.zeros(5, 1, 4, 4), {}, r"samples: got shape \[5, 1, 4, 4\], need \[N, 3, H, W\]"),
        (torch.zeros(5, 3, 4), {}, r"need \[N, 3, H, W\]"),
        (torch.zeros(5, 3, 4, 4), {"held_out": (torch.zeros(5, 2, 4, 4), None)}, "held_out: got shape"),
        (torch.zeros(5, 3, 4, 4), {"n": 6}, "n = 6 with 5 samples"),
        (torch.zeros(1, 3, 4, 4), {}, "n = 1 with 1 samples"),
        (torch.zeros(5, 3, 4, 4), {"held_out": (torch.zeros(4, 3, 4, 4), torch.zeros(5))}, r"4 examples and 5 labels"),
        (torch.zeros(5, 3, 4, 4), {"share": torch.ones(9)}, r"share: got shape \[9\], need \[10\] positive"),
        (torch.zeros(5, 3, 4, 4), {"share": torch.arange(10.0)}, "positive shares"),
        (torch.zeros(5, 3, 4, 4), {"share": torch.full((10,), math.nan)}, "positive shares"),
    ],
)
def test_stacks_that_cannot_be_counted_are_refused(images, options, message):
    with pytest.raises(InputError, match=message):
        stacked_modes(images, Reader(), **options)


@pytest.mark.parametrize("bad, message", [(math.nan, "NaN"), (2.0, "need \\[−1, 1\\]")])
def test_broken_samples_are_refused(bad, message, monkeypatch, tmp_path):
    monkeypatch.setenv("THALWEG_CACHE", str(tmp_path))
    net = extractor("digits", config=ExtractorConfig(images=128, width=8))
    images = normal(5, 3, 8, 8, generator=seeded(0)).clamp(-1, 1)
    images[3, 2, 0, 0] = bad
    with pytest.raises(InputError, match=message):
        stacked_modes(images, net)
    with pytest.raises(InputError, match="digits-classifier needs"):
        stacked_modes(torch.zeros(5, 3, 9, 9), net)


@pytest.mark.parametrize(
    "labels, target, message",
    [
        (torch.tensor([0, 3]), torch.ones(3) / 3, "values from 0 to 3, need 0 … 2"),
        (torch.tensor([-1, 2]), torch.ones(3) / 3, "values from -1"),
        (torch.tensor([0.0, 1.0]), torch.ones(3) / 3, "float32"),
        (torch.tensor([0]), torch.ones(3) / 3, "N ≥ 2"),
        (torch.tensor([0, 1]), torch.ones(3), "of sum 3"),
        (torch.tensor([0, 1]), torch.tensor([1.0, 0.0]), "positive shares of sum 1"),
    ],
)
def test_labels_that_cannot_be_counted_are_refused(labels, target, message):
    with pytest.raises(InputError, match=message):
        count_modes(labels, target)
    with pytest.raises(InputError, match="n: got 0"):
        perfect_sampler(UNIFORM, 0)
