"""The read-outs of a tilted Gaussian: grey values at the ends of the range."""

import math

import pytest
import torch

from thalweg.nn.tilt import GAIN, Tilt

WIDTH = 2 / 255


def fitted(dtype: torch.dtype = torch.float64) -> Tilt:
    tilt = Tilt((1, 3, 3), full=True, ends="bins", bin_width=WIDTH, flatness=0.1, least_std=0.03)
    tilt.fit(torch.linspace(-1, 1, 900).view(100, 1, 3, 3).sin())
    return tilt.to(dtype)


def points(sigma: float) -> torch.Tensor:
    """Pictures [40, 1, 3, 3] whose pixels lie at and about the ends, edges of the last bins among them."""
    offset = torch.linspace(-6, 6, 180, dtype=torch.float64) * sigma
    at = torch.cat([-1 + WIDTH / 2 + offset, 1 - WIDTH / 2 + offset])
    return at.view(40, 1, 3, 3)


@pytest.mark.parametrize("sigma", [0.002, 0.02, 0.3, 3.0])
def test_the_bins_are_evenly_filled_grey_values_with_noise_over_their_peak(sigma):
    y = points(sigma)
    found = fitted()(y, torch.full((len(y),), math.log(sigma), dtype=torch.float64)).bins
    width = math.sqrt(WIDTH**2 + (0.1 * sigma) ** 2)
    for i, end in enumerate((-1.0, 1.0)):
        upper, lower = (torch.special.ndtr((y - end + side) / sigma) for side in (width / 2, -width / 2))
        peak = 2 * torch.special.ndtr(torch.tensor(width / 2 / sigma, dtype=torch.float64)) - 1
        seen = (upper - lower) > 1e-9  # farther off the difference itself has no digits
        assert torch.allclose(found[:, i][seen].exp(), ((upper - lower) / peak)[seen], rtol=1e-6)


def test_logits_that_do_not_depend_on_y_make_the_density_jump_at_the_edge_of_the_last_grey_value():
    tilt, sigma, m = fitted(), 0.0002, 1.0
    y = torch.zeros(4, 1, 3, 3, dtype=torch.float64)
    y[:, 0, 0, 0] = torch.tensor([-1.0, -1 + WIDTH / 2 - 6 * sigma, -1 + WIDTH / 2, -1 + WIDTH / 2 + 6 * sigma])
    at = tilt(y, torch.full((4,), math.log(sigma), dtype=torch.float64))
    fields, none = torch.zeros(4, 4, 1, 3, 3, dtype=torch.float64), torch.zeros(4, 1, dtype=torch.float64)
    fields[:, 2] = m
    gain = at.energy - at.tilted(fields, none)
    much = math.exp(GAIN * m * float(at.cut[0]) / 3)
    assert torch.allclose(
        gain[:3], torch.tensor([(1 + much) / 2, (1 + much) / 2, (1 + much / 2) / 1.5], dtype=torch.float64).log(), atol=1e-6
    )
    assert abs(float(gain[3])) < 1e-3


@pytest.mark.parametrize("sigma", [0.002, 0.02, 0.3, 3.0, 20.0])
def test_single_precision_has_the_values_and_both_slopes_of_double(sigma):
    found = []
    for dtype in (torch.float64, torch.float32):
        y = points(sigma).to(dtype)
        place = torch.cat([y.flatten(1), torch.full((len(y), 1), math.log(sigma), dtype=dtype)], 1).requires_grad_(True)
        at = fitted(dtype)(place[:, :-1].view_as(y), place[:, -1])
        fields = torch.linspace(-1, 1, 40 * 4 * 9, dtype=dtype).view(40, 4, 3, 3)
        value = at.tilted(fields, torch.ones(40, 1, dtype=dtype))
        slope = torch.autograd.grad(value.sum(), place)[0]
        found.append((value.detach().double(), slope[:, :-1].double() * sigma, slope[:, -1].double()))
    for exact, single in zip(*found):
        assert torch.allclose(exact, single, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("ends", ["none", "bumps", "bins"])
def test_without_read_outs_it_is_the_gaussian(ends):
    tilt = Tilt((2, 3, 3), full=False, ends=ends, bin_width=WIDTH, flatness=0.1, least_std=0.03)
    x = torch.linspace(-1, 1, 1800).view(100, 2, 3, 3).sin()
    tilt.fit(x)
    at = tilt(x, torch.linspace(math.log(0.002), math.log(20), 100))
    assert at.inputs.shape[1] == 2 * tilt.inputs
    assert torch.equal(at.tilted(torch.zeros(100, 2 * tilt.maps, 3, 3), torch.zeros(100, 1)), at.energy)
