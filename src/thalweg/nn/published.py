"""Specs of networks that one paper has, built as those of `nn.build` are."""

from typing import TYPE_CHECKING, Literal

from pydantic.dataclasses import dataclass

from thalweg.config import STRICT, Count
from thalweg.errors import InputError
from thalweg.nn.build import Shape, _image_shape, _options, construct

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, config=STRICT)
class RecoveryNet:
    """The energy of images of DRL and CDRL: residual blocks at every resolution and average pooling, no map (`nn.recovery`)."""

    kind: Literal["recovery"] = "recovery"
    widths: tuple[Count, ...] = (128, 256, 256, 256)
    """channels at each resolution"""
    blocks: Count = 8
    """residual blocks at each resolution"""
    spectral_norm: bool = True
    """bound every convolution by spectral norm"""
    precise_first: bool = True
    """the first layer stays in fp32 under autocast, see `PatchUNet`"""

    def build(self, shape: Shape, *, out: int = 0, channels: int = 0, levels: bool = False, classes: int = 0) -> "nn.Module":
        from thalweg.nn.recovery import RecoveryEnergy

        if out or channels or not levels:
            raise InputError("a network of kind 'recovery' gives one energy at each noise level: it has no map and no other numbers")
        return construct(RecoveryEnergy, _image_shape(self, shape), classes=classes, **_options(self))
