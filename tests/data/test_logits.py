"""Images as logits: the bins of grey values, the inverse, and the change of variables."""

import pytest
import torch
from torch import Tensor

from thalweg.data.logits import LogitTransform
from thalweg.errors import InputError
from thalweg.random import integers, seeded, uniform


def pictures(n: int) -> Tensor:
    """Of 5 grey values in [−1, 1]."""
    return (integers(n * 4, 0, 5, generator=seeded(62, 0)).double() / 2 - 1).view(n, 1, 2, 2)


def test_logits_of_spread_images_and_back():
    logits, x = LogitTransform(5), pictures(50)
    u = uniform(50, 1, 2, 2, generator=seeded(63), dtype=torch.float64)
    spread = logits.dequantise(x, u)
    y, log_slope = logits.encode(spread)
    # the k-th grey value fills the k-th fifth of the unit interval
    torch.testing.assert_close(y, torch.logit(1e-6 + (1 - 2e-6) * (2 * (x + 1) + u) / 5))
    torch.testing.assert_close(logits.decode(y), spread)
    h = 1e-6
    numeric = ((logits.encode(spread + h)[0] - logits.encode(spread - h)[0]) / (2 * h)).log().flatten(1).sum(1)
    torch.testing.assert_close(log_slope, numeric, rtol=1e-4, atol=1e-4)


def test_the_edges_of_the_last_bins_are_finite():
    logits = LogitTransform(2)
    y, log_slope = logits.encode(logits.dequantise(torch.tensor([[-1.0], [1.0]]), torch.tensor([[0.0], [1.0]])))
    assert y[0] == -y[1] and 13 < float(y[1]) < 14 and bool(log_slope.isfinite().all())


def test_one_grey_value_is_no_image():
    with pytest.raises(InputError, match="2 grey values or more, got grey_values = 1"):
        LogitTransform(1)
