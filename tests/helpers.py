"""What the tests of several parts share."""

import math

import torch
from torch import Tensor

from thalweg import random
from thalweg.data.base import Batch


class Recorder:
    """An `update` that takes no step: it keeps the last loss, under which name, and what was logged."""

    def __init__(self, *seed: int) -> None:
        self.generator, self.logged, self.loss, self.name = random.seeded(*seed), {}, None, ""
        self.images = 0

    def __call__(self, name: str, loss: Tensor) -> None:
        self.name, self.loss = name, loss.detach()

    def log(self, **values) -> None:
        self.logged.update(values)

    def mean(self, value: Tensor) -> Tensor:
        return value


class Gaussians:
    """Data N(mean_k, std² I) with k, the label, drawn evenly; one mean for data without labels. Also its exact density."""

    name, extent, modes, mode_std = "gaussians", 5.0, None, None

    def __init__(self, means: list[list[float]], std: float) -> None:
        self.means, self.std = torch.tensor(means), std
        self.shape = (len(means[0]),)
        self.classes = tuple(map(str, range(len(means)))) if len(means) > 1 else ()

    def batch(self, start: int, count: int, seed: int) -> Batch:
        generator = random.seeded(seed, start)
        label = random.integers(count, 0, len(self.means), generator=generator)
        x = self.means[label] + self.std * random.normal(count, *self.shape, generator=generator)
        return Batch(x, label if self.classes else None)

    def log_prob(self, x: Tensor) -> Tensor:
        squares = (x[:, None] - self.means).square().sum(2) / (2 * self.std**2)
        return torch.logsumexp(-squares, 1) - math.log(len(self.means)) - self.means.shape[1] * math.log(self.std * math.sqrt(2 * math.pi))
