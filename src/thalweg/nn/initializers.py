"""Specs of what chains start at, CoopFlow's and LIEBM's: a normalizing flow, a generator, or noise.

Every spec has `build(shape, std=…)`, the network or None for noise, and `latent_shape(shape)`, the shape of one draw of N(0, I) that it
turns into a start. torch is imported when the first network is built.
"""

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from thalweg.config import STRICT, Count
from thalweg.errors import require
from thalweg.nn.build import Shape, construct

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, config=STRICT)
class Flow:
    """A normalizing flow: of images multiscale couplings by mixtures of logistics (Ho et al. 2019), of vectors zuko's (`nn.flow`)."""

    kind: Literal["flow"] = "flow"
    couplings: Count = 4
    """coupling layers, of images at each scale"""
    width: Count = 48
    """channels (images) or hidden units (vectors) of each coupling's network"""
    depth: Count = 1
    """residual blocks (images) or hidden layers (vectors) of each coupling's network"""
    mixtures: Count = 4
    """logistics of each coupling of images, bins of each spline of vectors"""
    scales: Count = 2
    """images: resolutions; height and width divide by 2^scales"""
    self_attention: bool = False
    """images: self-attention in each coupling's network"""
    grey_values: Count = 256
    """images: grey values of the data, over whose bins the flow spreads them"""
    dequantisation: Literal["variational", "uniform"] = "variational"
    """images: noise within a grey value's bin, learned or uniform"""
    coupling: Literal["spline", "affine"] = "spline"
    """vectors: couplings by neural splines or by affine maps"""

    def build(self, shape: Shape, *, std: float = 1.0) -> "nn.Module":
        """A flow of examples of `shape`; of vectors with the root mean square `std`. InputError for sides that do not divide."""
        from thalweg.nn.flow import ImageFlow, VectorFlow

        sizes = dict(couplings=self.couplings, width=self.width, depth=self.depth)
        if len(shape) == 3:
            noise = dict(grey_values=self.grey_values, dequantisation=self.dequantisation)
            return construct(ImageFlow, shape, scales=self.scales, mixtures=self.mixtures, attention=self.self_attention, **sizes, **noise)
        flows = require("zuko", "flows").flows
        # two passes: half of the dimensions given the other half, so that both directions cost the same
        make, bins = (flows.NICE, {}) if self.coupling == "affine" else (flows.NSF, dict(bins=self.mixtures, passes=2))
        return VectorFlow(math.prod(shape), make, scale=std, **sizes, **bins)

    def latent_shape(self, shape: Shape) -> Shape:
        return tuple(shape)


@dataclass(frozen=True, config=STRICT)
class Generator:
    """A plain generator, as in CoopNets (Xie et al. 2020; `nn.generator`)."""

    kind: Literal["generator"] = "generator"
    latent_dim: Count = 64
    """d, dimension of z"""
    width: Count = 32
    """channels at the full resolution (images) or hidden units (vectors)"""

    def build(self, shape: Shape, *, std: float = 1.0) -> "nn.Module":
        from thalweg.nn.generator import LatentGenerator

        return construct(LatentGenerator, self.latent_dim, shape, width=self.width)

    def latent_shape(self, shape: Shape) -> Shape:
        return (self.latent_dim,)


@dataclass(frozen=True, config=STRICT)
class Noise:
    """No network: chains start at noise, Gaussian where the energy has a Gaussian reference, else uniform in [−1, 1]."""

    kind: Literal["noise"] = "noise"

    def build(self, shape: Shape, *, std: float = 1.0) -> None:
        return None

    def latent_shape(self, shape: Shape) -> Shape:
        return tuple(shape)


# what a config's field may say
Initializer = Annotated[Flow | Generator | Noise, Field(discriminator="kind")]
