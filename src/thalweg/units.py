"""A model of standardised vectors as one of the data's own units: samples decoded, energies and labels of vectors as they are."""

from typing import Any

import torch
from torch import Tensor, nn

from thalweg.errors import InputError
from thalweg.gate import tensor
from thalweg.methods.base import Method, check_sampling

KEPT = ("sample", "labels", "energy", "normalised", "classify", "encode")  # abilities that mean the same in other units


class OwnUnits(nn.Module):
    """`method`, which sees z = (x − mean)/std by column, as a model of x: `method.units` has mean and std.

    energy(x) is that of the density of x, E(z) + Σ log std in nats, so that log Z is the method's own.
    """

    def __init__(self, method: Any) -> None:
        super().__init__()
        self.method, self.name, self.config = method, method.name, method.config
        self.abilities = method.abilities & set(KEPT)
        self.log_z, self.default_guidance, self.bin_width = method.log_z, method.default_guidance, None
        self.trained_on = method.trained_on
        if kept := (self.trained_on or {}).get("held_out"):  # energies, which are those of z there
            self.trained_on = {**method.trained_on, "held_out": [energy + float(method.units.log_volume) for energy in kept]}

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.method.device

    @property
    def units(self) -> Any:
        """Mean, standard deviation and names of the columns (`thalweg.data.Units`)."""
        return self.method.units

    def starts(self, n: int, seed: int = 0) -> dict[str, Tensor]:
        """As of the method itself: nothing but a seed is needed."""
        return {}

    def sample(self, n: int, *, seed: int = 0, **options: Any) -> Tensor:
        """`n` samples [n, D] in the data's own units; `options` go to the method's `sample`."""
        check_sampling(self.method, options)
        return self.units.decode(self.method.sample(n, seed=seed, **options))

    def energy(self, x: Tensor, **condition: Any) -> Tensor:
        """−log p(x) in nats up to log Z, of vectors [B, D] in the data's own units -> [B]."""
        return self.method.energy(self._encoded(x), **condition) + self.units.log_volume

    def classify(self, x: Tensor, **condition: Any) -> Tensor:
        """log p(label | x) of vectors [B, D] -> [B, classes]."""
        return self.method.classify(self._encoded(x), **condition)

    def encode(self, x: Tensor) -> Tensor:
        """What the method makes of vectors [B, D] as an encoder."""
        return self.method.encode(self._encoded(x))

    def _encoded(self, x: Tensor) -> Tensor:
        x, columns = tensor(f"{self.name}: x", x), len(self.units.mean)
        if x.dim() != 2 or x.shape[1] != columns:
            raise InputError(f"{self.name} is of vectors [B, {columns}], got {list(x.shape)}")
        return self.units.encode(x)


def in_own_units(method: Method) -> Any:
    """`method` as a model of the data's own units where its data were standardised, else itself."""
    return method if method.units is None else OwnUnits(method).eval()


def standardised(model: Any) -> Any:
    """The model of standardised vectors behind one of own units; any other model itself."""
    return model.method if isinstance(model, OwnUnits) else model
