"""What a small energy of pictures says of them, one of all noise levels (`dual`): how likely they are, and how steep the density is there.

    U(x, σ), ∂U/∂log σ, log ‖σ ∇U‖² at six σ from 0.016 to 1.8        as of the score `levels`

Trained on pictures by which the others are described, so that it has seen none that counts for the threshold.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import thalweg.methods as methods
from thalweg import random
from thalweg.data.base import Batch
from thalweg.errors import InputError
from thalweg.evaluate.bins import grey_bins
from thalweg.evaluate.scores import of_levels
from thalweg.nn.build import PatchUNet
from thalweg.precision import autocast
from thalweg.updates import Update

SIGMAS = tuple(0.016 * 2.57**k for k in range(6))
SIDE, FOLD = 32, 4  # to which larger pictures are brought; pixels that the network folds into one
UPDATES, BATCH, LR = 1000, 32, 2e-3
FULL_COVARIANCE = 1024  # pixels up to which the Gaussian that is tilted has all of its covariance
GRID = 256  # steps a deviation, to which numbers are rounded: beyond them they depend on which pictures are looked at together
AT_ONCE = 64


class PictureEnergies:
    """A trained model with the scale of its numbers over what it was trained on: `PictureEnergies.fit(x, seconds)(x)`."""

    def __init__(self, model: Any, centre: Tensor, unit: Tensor) -> None:
        self.model, self.centre, self.unit = model, centre, unit

    @classmethod
    def fit(cls, x: Tensor, seconds: float, note: Callable[[float], None] = lambda share: None) -> "PictureEnergies":
        """Train on pictures x [N, C, H, W] in [−1, 1], for about `seconds` at most; `note` is told the share that is done.

        Raises InputError for pictures of less than 4 × 4 pixels.
        """
        if min(x.shape[2:]) < FOLD:
            raise InputError(f"features 'energies' need pictures of {FOLD} × {FOLD} pixels or more, got {x.shape[2]} × {x.shape[3]}")
        small, bins = brought(x), grey_bins(x)
        # pictures that were made smaller have values between grey values, over which noise spreads them all the same
        grey_values = 256 if bins is None or bins.grey_values > 256 else bins.grey_values
        with torch.random.fork_rng(devices=[]):  # of weights and dropout
            torch.manual_seed(0)
            model = untrained(tuple(small.shape[1:]), grey_values)
            model.prepare(small)
            model.to(memory_format=torch.channels_last)
            update, chosen, start = Update(model, seed=0), random.seeded(37), time.perf_counter()
            while update.updates < UPDATES and (time.perf_counter() - start < seconds or not update.updates):
                with autocast("bf16"):
                    update.step(Batch(small[random.integers(BATCH, 0, len(small), generator=chosen)]))
                note(max(update.updates / UPDATES, min(1.0, (time.perf_counter() - start) / max(seconds, 1e-9))))
        trained = update.ema.eval().requires_grad_(False)
        numbers = torch.cat([of_levels(trained, part, SIGMAS) for part in small[:1000].split(AT_ONCE)])
        return cls(trained, numbers.mean(0), numbers.std(0, correction=0).clamp_min(1e-6))

    @property
    def width(self) -> int:
        """How many numbers a picture has."""
        return 3 * len(SIGMAS)

    def __call__(self, x: Tensor) -> Tensor:
        """Pictures [N, C, H, W] of the shape of fit -> [N, D] float64, in deviations."""
        numbers = torch.cat([of_levels(self.model, part, SIGMAS) for part in brought(x).split(AT_ONCE)])
        return ((numbers - self.centre) / self.unit * GRID).round() / GRID

    def tensors(self) -> dict[str, Tensor]:
        """What `of_tensors` needs."""
        weights = {f"model.{key}": value.detach().cpu().contiguous() for key, value in self.model.state_dict().items()}
        grey, shape = self.model.config.grey_values, self.model.config.shape
        return {"grey_values": torch.tensor(grey), "shape": torch.tensor(shape), "centre": self.centre, "unit": self.unit} | weights

    @classmethod
    def of_tensors(cls, stored: dict[str, Tensor]) -> "PictureEnergies":
        """What `tensors` gave."""
        model = untrained(tuple(stored["shape"].tolist()), int(stored["grey_values"]))
        model.load_state_dict({key.removeprefix("model."): value for key, value in stored.items() if key.startswith("model.")})
        return cls(model.to(memory_format=torch.channels_last).eval().requires_grad_(False), stored["centre"], stored["unit"])


def untrained(shape: tuple[int, ...], grey_values: int) -> Any:
    """The model as it is before training."""
    net = PatchUNet(width=32, deep_width=64, hidden=64, blocks=1, deep_blocks=2, dropout=0.1)
    full = shape[0] * shape[1] * shape[2] <= FULL_COVARIANCE
    return methods.method(
        "dual/digits", shape=shape, classes=0, net=net, grey_values=grey_values, reference="full" if full else "diagonal", ends="bins",
        sigma_min=0.01, sigma_max=20.0, time_weight=2.0, batch=BATCH, lr=LR, ema=0.995, images=UPDATES * BATCH,
    )  # fmt: skip


def brought(x: Tensor) -> Tensor:
    """Pictures [N, C, H, W] as the network sees them: sides of multiples of 4, at most 32, by means over blocks."""
    high, wide = (min(SIDE, side // FOLD * FOLD) for side in x.shape[2:])
    return x.float() if tuple(x.shape[2:]) == (high, wide) else F.adaptive_avg_pool2d(x.float(), (high, wide))
