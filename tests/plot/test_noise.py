"""Figures of energies around an image: the energies that they ask for, and what they refuse."""

import math

import matplotlib.image
import numpy as np
import pytest
import torch

from thalweg import plot
from thalweg.errors import InputError
from thalweg.plot import style
from thalweg.random import normal, seeded


def pixels(path):
    return (matplotlib.image.imread(path)[:, :, :3] * 255).round().astype(np.uint8)


def test_a_plane_of_noises_is_orthogonal_and_keeps_the_lengths(tmp_path):
    image, first, second = (normal(1, 4, 4, generator=seeded(i)) for i in range(3))
    seen = []

    def energy(x):
        seen.append(x)
        return (x - image).flatten(1).square().sum(1) / 2

    shown = pixels(plot.noise_plane(energy, image, first, second, tmp_path / "a.png", extent=2.0, cells=21))
    assert shown.shape == (round(4.8 * style.DPI), round(5.6 * style.DPI), 3) and len(np.unique(shown.reshape(-1, 3), axis=0)) > 50
    shift = (torch.cat(seen) - image).flatten(1).double()
    assert len(shift) == 21**2
    basis = torch.stack([first.flatten(), (second - first * (first * second).sum() / first.square().sum()).flatten()]).double()
    basis[1] *= second.norm() / basis[1].norm()
    u, v = (shift @ (b / b.square().sum()) for b in basis)
    torch.testing.assert_close(u[:, None] * basis[0] + v[:, None] * basis[1], shift, rtol=1e-4, atol=1e-5)
    assert float(u.abs().max()) <= 2 + 1e-5 and float(v.abs().max()) > 1.8 and float(u.abs().max()) > 1.8


def test_curves_along_noise_show_medians_and_references(tmp_path):
    amounts = torch.linspace(0, 3, 30)
    bowl = 8 * amounts.square() / 2
    energies = {"t = 200": bowl[:, None] + normal(1, 9, generator=seeded(1)), "t = 500": 3 * bowl[:, None].expand(-1, 4)}
    shown = pixels(plot.along_noise(energies, amounts, tmp_path / "a.png", reference={"t = 200": bowl}, title="energies"))
    assert shown.shape == (round(3.6 * style.DPI), round(5.6 * style.DPI), 3)
    for colour in style.COLOURS[:2]:
        assert (shown == [int(colour[k : k + 2], 16) for k in (1, 3, 5)]).all(-1).sum() > 100
    # constants of single images do not widen the band: the figure of shifted energies is the same
    energies["t = 200"] = energies["t = 200"] + torch.arange(9.0)
    again = pixels(plot.along_noise(energies, amounts, tmp_path / "b.png", reference={"t = 200": bowl}, title="energies"))
    assert (shown != again).mean() < 0.01


CURVE = torch.zeros(5, 2)
BAD = {
    "none": (lambda p: plot.along_noise({}, torch.arange(5.0), p), "got 0 curves"),
    "amounts": (lambda p: plot.along_noise({"a": CURVE}, torch.zeros(5, 1), p), r"amounts of shape \[5, 1\]"),
    "length": (lambda p: plot.along_noise({"a": CURVE}, torch.arange(4.0), p), r"'a' has shape \[5, 2\] or is not finite, need \[4, N\]"),
    "nan": (lambda p: plot.along_noise({"a": CURVE * math.nan}, torch.arange(5.0), p), "not finite"),
    "reference": (lambda p: plot.along_noise({"a": CURVE}, torch.arange(5.0), p, reference={"b": CURVE[:, 0]}), r"\['b'\], the curves"),
    "shapes": (lambda p: plot.noise_plane(torch.sum, torch.zeros(3), torch.ones(3), torch.ones(2), p), "need three the same"),
    "zero": (lambda p: plot.noise_plane(torch.sum, torch.zeros(3), torch.zeros(3), torch.ones(3), p), "neither zero nor parallel"),
    "parallel": (lambda p: plot.noise_plane(torch.sum, torch.zeros(3), torch.ones(3), -torch.ones(3), p), "neither zero nor parallel"),
    "image": (lambda p: plot.noise_plane(torch.sum, torch.full((2,), math.nan), torch.tensor([1.0, 0]), torch.ones(2), p), "finite"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name, tmp_path):
    call, message = BAD[name]
    with pytest.raises(InputError, match=message):
        call(tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
