"""PSNR, SSIM and distances of features against NumPy and SciPy, image by image, and what cannot be compared."""

import math
from dataclasses import asdict

import numpy as np
import pytest
import scipy.signal
import scipy.spatial
import scipy.stats
import torch

from thalweg.errors import InputError
from thalweg.evaluate.restoration import psnr, restoration, ssim, ssim_window
from thalweg.random import normal, seeded, uniform


def pair(*shape, seed=0, noise=0.2):
    """Smooth images and the same with noise, in [−1, 1]."""
    g = seeded(seed)
    coarse = uniform(shape[0], shape[1], 4, 4, low=-1, high=1, generator=g)
    x = torch.nn.functional.interpolate(coarse, size=shape[2:], mode="bilinear", align_corners=True)
    return x, (x + noise * normal(*shape, generator=g)).clamp(-1, 1)


def ssim_by_scipy(x, y, window):
    """Wang et al. 2004, eq. 13 on [0, 1], over the positions where the whole window fits, channel by channel."""
    offset = np.arange(window) - window // 2
    line = np.exp(-(offset**2) / (2 * (1.5 * window / 11) ** 2))
    kernel = np.outer(line, line) / line.sum() ** 2
    values = []
    for a, b in zip((x + 1) / 2, (y + 1) / 2):

        def mean(image):
            return scipy.signal.convolve2d(image, kernel, mode="valid")

        ma, mb = mean(a), mean(b)
        va, vb, vab = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
        values.append(((2 * ma * mb + 1e-4) * (2 * vab + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))).mean())
    return float(np.mean(values))


class Moments:
    """Means and deviations of rows as features."""

    name = "moments"

    def features(self, images):
        return torch.cat([images.mean((1, 3)), images.std((1, 3))], 1).float()


@pytest.mark.parametrize(
    "shape, window", [((5, 1, 28, 28), 11), ((4, 3, 12, 17), 11), ((6, 1, 8, 8), 7), ((3, 2, 9, 30), 9), ((3, 1, 3, 4), 3)]
)
def test_each_image_scores_what_numpy_and_scipy_give(shape, window):
    x, y = pair(*shape)
    a, b = x.double().numpy(), y.double().numpy()
    error = np.square(a - b).mean((1, 2, 3))
    expected = [ssim_by_scipy(a[i], b[i], window) for i in range(len(a))]
    assert psnr(x.double(), y.double()).numpy() == pytest.approx(10 * np.log10(4 / error), rel=1e-6)  # its constants are float32
    assert ssim(x.double(), y.double(), window).numpy() == pytest.approx(np.array(expected), rel=1e-8)

    found = restoration(x, y)
    assert (found.ssim_window, found.n) == (window, shape[0])
    assert found.restored.psnr.value == pytest.approx(np.mean(10 * np.log10(4 / error)), rel=1e-6)
    assert found.restored.ssim.value == pytest.approx(np.mean(expected), rel=1e-6)
    assert found.restored.mse.value == pytest.approx(error.mean(), rel=1e-6)
    assert found.observed is None and found.gain is None and found.perceptual_name is None and found.restored.perceptual is None


def test_many_images_are_split_without_a_trace():
    x, y = (part.double() for part in pair(600, 1, 8, 8))
    whole = ssim(x, y, 7)
    assert torch.allclose(whole[250:260], ssim(x[250:260], y[250:260], 7), rtol=1e-12) and whole.shape == (600,)


def test_intervals_are_student_s_and_the_gain_is_paired():
    x, y = pair(40, 1, 12, 12)
    worse = (y + 0.1 * normal(*y.shape, generator=seeded(9))).clamp(-1, 1)
    found = restoration(x, y, observed=worse)
    values, other = (10 * np.log10(4 / np.square((x - z).double().numpy()).mean((1, 2, 3))) for z in (y, worse))
    low, high = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.restored.psnr.low, found.restored.psnr.high) == pytest.approx((low, high), rel=1e-6)
    low, high = scipy.stats.ttest_rel(values, other).confidence_interval(0.95)
    assert (found.gain.low, found.gain.high) == pytest.approx((low, high), rel=1e-5) and found.gain.low > 0
    assert found.gain.value == pytest.approx(found.restored.psnr.value - found.observed.psnr.value)
    assert found.observed == restoration(x, worse).restored
    assert found.observed.ssim.value < found.restored.ssim.value and found.observed.mse.value > found.restored.mse.value


def test_intervals_cover_the_true_mean():
    # a constant error u on each image: mse u², whose mean is 1/12 for u in [0, ½)
    covered = 0
    for seed in range(200):
        shift = uniform(30, 1, 1, 1, high=0.5, generator=seeded(seed))
        mse = restoration(torch.zeros(30, 1, 3, 3), shift.expand(30, 1, 3, 3)).restored.mse
        covered += mse.low <= 1 / 12 <= mse.high
    assert covered >= 180  # 190 of 200, less three standard errors


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_perceptual_distances_are_those_of_scipy(distance):
    x, y = pair(10, 2, 12, 12)
    found = restoration(x, y, perceptual=Moments(), observed=-x, distance=distance)
    reference = getattr(scipy.spatial.distance, distance)
    for quality, images in ((found.restored, y), (found.observed, -x)):
        a, b = (Moments().features(z).double().numpy() for z in (x, images))
        assert quality.perceptual.value == pytest.approx(np.mean([reference(p, q) for p, q in zip(a, b)]), rel=1e-6)
    assert found.perceptual_name == f"{distance}[moments]"
    assert found.restored.perceptual.value < found.observed.perceptual.value


def test_equal_images_score_best():
    x, _ = pair(4, 1, 12, 12)
    best = restoration(x, x, perceptual=Moments())
    assert best.restored.psnr.value == 100.0 and best.restored.ssim.value == pytest.approx(1.0)
    assert best.restored.mse.value == 0.0 and best.restored.perceptual.value == 0.0
    assert all(math.isfinite(value) for part in asdict(best.restored).values() for value in part.values())


def test_constant_errors_have_closed_forms():
    found = restoration(torch.full((3, 1, 12, 12), -0.5), torch.full((3, 1, 12, 12), 0.5))
    assert found.restored.psnr.value == pytest.approx(20 * math.log10(2)) and found.restored.mse.value == 1.0
    # no variance, so that the luminance term is left, of means ¼ and ¾ on [0, 1]
    assert found.restored.ssim.value == pytest.approx((2 * 3 / 16 + 1e-4) / (1 / 16 + 9 / 16 + 1e-4))


def test_frozen_numbers():
    row, column = torch.meshgrid(torch.linspace(-1, 1, 16), torch.linspace(-1, 1, 16), indexing="ij")
    x = torch.stack([row, column, row * column])[:, None]
    found = restoration(x, 0.9 * x.transpose(2, 3).flip(3) * x.sign())
    assert found.restored.psnr.value == pytest.approx(9.0806619, rel=1e-6)
    assert found.restored.ssim.value == pytest.approx(0.13856479, rel=1e-6)


IMAGES = torch.zeros(4, 1, 8, 8)


@pytest.mark.parametrize(
    "images, options, message",
    [
        (IMAGES[:3], {}, r"restored: got shape \[3, 1, 8, 8\], need that of the originals, \[4, 1, 8, 8\]"),
        (IMAGES, {"observed": torch.zeros(4, 1, 4, 4)}, r"observed: got shape \[4, 1, 4, 4\]"),
        (IMAGES.expand(-1, 3, -1, -1), {}, "need that of the originals"),
        (IMAGES[0], {}, r"restored: got torch.float32 \[1, 8, 8\], need floating-point \[N, C, H, W\]"),
        (IMAGES.int(), {}, "restored: got torch.int32"),
        (IMAGES[:1], {}, "N ≥ 2"),
        (IMAGES[:, :, :2], {}, "3 pixels or more"),
        (IMAGES + 1.5, {}, r"values from 1.5 to 1.5, need \[−1, 1\]; clamp"),
        (IMAGES, {"observed": IMAGES - 2}, "observed: values from -2"),
        (IMAGES * math.nan, {}, "4 of 4 images hold NaN"),
        (IMAGES, {"observed": IMAGES + math.inf}, "observed: 4 of 4 images hold NaN or infinity"),
        (IMAGES, {"distance": "manhattan"}, "need cosine or euclidean"),
    ],
)
def test_images_that_cannot_be_compared_are_refused(images, options, message):
    with pytest.raises(InputError, match=message):
        restoration(IMAGES, images, **options)


def test_networks_that_break_are_named():
    class Broken(Moments):
        def features(self, images):
            return super().features(images) * math.nan

    class Short(Moments):
        def features(self, images):
            return super().features(images)[1:]

    for network in (Broken(), Short()):
        with pytest.raises(InputError, match="perceptual: moments gave features"):
            restoration(IMAGES, IMAGES, perceptual=network)


def test_images_of_any_range_score_alike():
    x, y = pair(4, 1, 16, 16)
    right = psnr(x, y, range=(-1, 1)), ssim(x, y, range=(-1, 1))
    for low, high in ((0, 1), (0, 255), (-3, 5)):
        a, b = ((z + 1) / 2 * (high - low) + low for z in (x, y))
        assert torch.allclose(psnr(a, b, range=(low, high)), right[0], rtol=1e-4)
        assert torch.allclose(ssim(a, b, range=(low, high)), right[1], rtol=1e-4)
    grey = ((x + 1) * 127.5).round().byte(), ((y + 1) * 127.5).round().byte()
    assert torch.allclose(psnr(*grey, range=(0, 255)), right[0], atol=0.1)


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_what_is_not_in_range_is_said(measure):
    x, y = pair(4, 1, 16, 16)
    with pytest.raises(InputError, match=r"values from .* to .*, need \[-1, 1\]; for images of another range say so: range=\(0, 1\)"):
        measure((x + 1) * 127.5, (y + 1) * 127.5)
    with pytest.warns(UserWarning, match="taken to be in"):
        measure((x + 1) / 2, (y + 1) / 2)
    for bad in ((1, 0), (0, math.inf), (0, 0)):
        with pytest.raises(InputError, match="range must be the least and the greatest"):
            measure(x, y, range=bad)
    with pytest.raises(InputError, match=r"need \[0, 1\]"):
        measure(x, y, range=(0, 1))
    for a, b in ((x, y.expand(-1, 3, -1, -1)), (x[0], y[0]), (x[:0], y[:0]), (x, y[:1])):
        with pytest.raises(InputError, match="two sets of images"):
            measure(a, b)
    with pytest.raises(InputError, match=r"range=\(0, 255\)"):
        measure(x.byte(), y.byte())
    with pytest.raises(InputError, match="values from nan"):
        measure(x * torch.nan, y)


@pytest.mark.parametrize(("side", "window"), [(3, 3), (5, 5), (8, 7), (11, 11), (12, 11)])
def test_small_images_have_a_smaller_window_everywhere(side, window):
    x, y = pair(4, 1, side, side + 1)
    assert ssim_window(tuple(x.shape)) == window == restoration(x, y).ssim_window
    assert ssim(x.double(), y.double(), range=(-1, 1)).mean() == pytest.approx(restoration(x, y).restored.ssim.value)
    assert torch.allclose(ssim(x, x, range=(-1, 1)), torch.ones(4))
    for bad in (4, 1, 2.5, 99):
        with pytest.raises(InputError, match="window must be odd"):
            ssim(x, y, bad, range=(-1, 1))
    with pytest.raises(InputError, match="3 pixels or more a side"):
        ssim(x[..., :2, :2], y[..., :2, :2])
