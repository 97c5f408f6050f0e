"""Every figure is a PNG of the size it should have, showing what it was given."""

import math

import matplotlib.image
import numpy as np
import pytest
import torch

from thalweg import plot
from thalweg.data import toy
from thalweg.errors import InputError
from thalweg.plot import style
from thalweg.random import normal, seeded


def pixels(path):
    """The picture as uint8 [H, W, 3]."""
    assert path.exists() and not list(path.parent.glob(".*"))  # no half-written file stays
    return (matplotlib.image.imread(path)[:, :, :3] * 255).round().astype(np.uint8)


def test_grid_shows_each_pixel_in_its_place(tmp_path):
    images = torch.linspace(-1, 1, 10).view(10, 1, 1, 1).expand(10, 1, 8, 8)
    shown = pixels(plot.grid(images, tmp_path / "deep" / "grid.png", columns=4))
    assert shown.shape == (3 * 34 + 2, 4 * 34 + 2, 3)  # 8 pixels drawn as 32, rims of 2
    for i in range(10):
        y, x = i // 4 * 34 + 2, i % 4 * 34 + 2
        assert (shown[y : y + 32, x : x + 32] == round(255 * i / 9)).all()
    assert (shown[70:, 70:] == 255).all()  # the last row is not full
    assert (shown[:2] == 255).all()


def test_grid_scales_colours_and_marks_what_is_not_finite(tmp_path):
    images = torch.zeros(1, 3, 2, 2)
    images[0, 0] = 5.0  # beyond the range: clipped
    images[0, 1, 1, 1] = math.nan
    shown = pixels(plot.grid(images, tmp_path / "a.png"))
    assert shown.shape == (36, 36, 3)
    assert shown[2, 2].tolist() == [255, 128, 128]
    assert shown[33, 33].tolist() == [255, 0, 255]
    large = pixels(plot.grid(torch.zeros(5, 1, 28, 40), tmp_path / "b.png"))
    assert large.shape == (2 * 58 + 2, 3 * 82 + 2, 3)


def test_grid_makes_room_for_labels_and_title(tmp_path):
    images = torch.zeros(6, 1, 8, 8)
    plain = pixels(plot.grid(images, tmp_path / "a.png", columns=3))
    shown = pixels(plot.grid(images, tmp_path / "b.png", columns=3, row_labels=["data", "samples"], title="t"))
    assert shown.shape[0] == plain.shape[0] + 34 and shown.shape[1] > plain.shape[1] + 50
    assert (shown[34:, -plain.shape[1] :] == plain).all()
    assert shown[36:, : -plain.shape[1]].min() < 128  # text
    with pytest.raises(InputError, match="need 2"):
        plot.grid(images, tmp_path / "c.png", columns=3, row_labels=["one"])


def test_grid_refuses_what_is_not_images(tmp_path):
    for bad in (torch.zeros(2, 2, 8, 8), torch.zeros(8, 8), torch.zeros(0, 1, 8, 8), torch.zeros(2, 1, 8, 8, dtype=torch.uint8)):
        with pytest.raises(InputError, match="N, C, H, W"):
            plot.grid(bad, tmp_path / "a.png")
    with pytest.raises(InputError, match=r"ends in \.png"):
        plot.grid(torch.zeros(1, 1, 8, 8), tmp_path / "a.jpg")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("log", [False, True])
def test_density_draws_truth_models_and_samples(tmp_path, log):
    truth = toy("8gaussians")
    models = {"exact": truth.energy, "flat": lambda x: torch.zeros(len(x))}
    shown = pixels(plot.density(models, truth, tmp_path / "a.png", samples=truth.sample(500, generator=seeded(0)), log=log, cells=60))
    assert shown.shape == (round(3.0 * style.DPI), round((2.6 * 4 + 0.7) * style.DPI), 3)
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) > 50
    one = pixels(plot.density(truth.energy, truth, tmp_path / "b.png", cells=60))
    assert one.shape[1] == round((2.6 * 2 + 0.7) * style.DPI)
    with pytest.raises(InputError, match="need \\[N, 2\\]"):
        plot.density(truth.energy, truth, tmp_path / "c.png", samples=torch.zeros(4, 3), cells=60)
    assert not (tmp_path / "c.png").exists()


def test_landscape_draws_chains(tmp_path):
    truth = toy("8gaussians")
    chains = normal(20, 5, 2, generator=seeded(0)).cumsum(0) / 5
    shown = pixels(plot.landscape(truth.energy, tmp_path / "a.png", extent=3.0, chains=chains, cells=60))
    assert shown.shape == (round(4.8 * style.DPI), round(5.6 * style.DPI), 3)
    flat = pixels(plot.landscape(lambda x: torch.zeros(len(x)), tmp_path / "b.png", extent=3.0, cells=60))
    assert flat.shape == shown.shape
    with pytest.raises(InputError, match="T, N, 2"):
        plot.landscape(truth.energy, tmp_path / "c.png", extent=3.0, chains=chains[0], cells=60)


def test_curves_draw_groups_and_leave_gaps_out(tmp_path):
    stats = [
        {"images": 64 * i, "loss": math.exp(-i / 50), "energy/data": -i / 9, "energy/samples": math.nan if i % 2 else 1.0}
        for i in range(200)
    ]
    stats += [{"images": 12800, "loss": None}, {"note": "no figures here"}]
    groups = {"loss": ["loss"], "energy": ["energy/data", "energy/samples"]}
    shown = pixels(plot.curves(stats, groups, tmp_path / "a.png"))
    assert shown.shape == (round(2.9 * style.DPI), round(8.4 * style.DPI), 3)
    assert (shown == [0x25, 0x63, 0xEB]).all(-1).sum() > 100  # the first colour is on the page
    four = pixels(plot.curves(stats, ["loss", "energy/data", "energy/samples", "loss"], tmp_path / "b.png", title="a run"))
    assert four.shape[1] == round(12.6 * style.DPI)
    plot.curves(stats[:1], ["loss"], tmp_path / "c.png")
    with pytest.raises(InputError, match="did you mean 'loss'"):
        plot.curves(stats, ["los"], tmp_path / "d.png")
    with pytest.raises(InputError, match="there are none"):
        plot.curves([], ["loss"], tmp_path / "d.png")


def test_a_strip_has_a_row_of_dots_for_each_set(tmp_path):
    scores = {"digits": 1 + normal(12, generator=seeded(0)).abs(), "uniform": torch.full((12,), 1e4), "black": torch.full((12,), 1e2)}
    shown = pixels(plot.strip(scores, tmp_path / "a.png", log=True)).astype(int)
    assert shown.shape[1] == round(6.4 * style.DPI)
    blue, red = ((shown[..., one] - shown[..., other] > 60) for one, other in ((2, 0), (0, 2)))
    assert blue.any(1).nonzero()[0].max() < red.any(1).nonzero()[0].min(), "the inliers are the first row"
    assert blue.any(0).nonzero()[0].max() < red.any(0).nonzero()[0].min(), "and the least"
    for wrong in ({}, {"bad": torch.tensor([math.nan])}, {"bad": torch.tensor([0.0])}):
        with pytest.raises(InputError, match="strip: "):
            plot.strip(wrong, tmp_path / "c.png", log=True)


def test_histogram_keeps_far_scores_from_flattening_the_rest(tmp_path):
    scores = {"digits": normal(1000, generator=seeded(0)), "uniform": 5 + normal(500, generator=seeded(1))}
    scores["uniform"][0] = 1e9
    shown = pixels(plot.histogram(scores, tmp_path / "a.png", title="energies"))
    assert shown.shape == (round(3.4 * style.DPI), round(6.4 * style.DPI), 3)
    blue = (shown.astype(int) == [0x25, 0x63, 0xEB]).all(-1).any(0).nonzero()[0]
    assert blue.max() - blue.min() > 200  # the inliers still span a good part of the axis
    plot.histogram({"same": torch.ones(5)}, tmp_path / "b.png")
    with pytest.raises(InputError, match="'bad'"):
        plot.histogram({"bad": torch.tensor([math.nan])}, tmp_path / "c.png")
    with pytest.raises(InputError, match="no scores"):
        plot.histogram({}, tmp_path / "c.png")
