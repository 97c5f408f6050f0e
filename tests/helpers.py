"""What the tests of several parts share."""

from torch import Tensor

from thalweg import random


class Recorder:
    """An `update` that takes no step: it keeps the last loss, under which name, and what was logged."""

    def __init__(self, *seed: int) -> None:
        self.generator, self.logged, self.loss, self.name = random.seeded(*seed), {}, None, ""

    def __call__(self, name: str, loss: Tensor) -> None:
        self.name, self.loss = name, loss.detach()

    def log(self, **values) -> None:
        self.logged.update(values)
