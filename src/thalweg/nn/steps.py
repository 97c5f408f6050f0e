"""Specs of networks of one denoising step, besides those of `nn.build`: those of DDAEBM's paper. torch is imported when one is built."""

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from thalweg.config import STRICT, Count
from thalweg.nn.build import ConvEncoder, MLPEncoder, Shape, _image_shape, _options, construct

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, config=STRICT)
class TwoStream:
    """A network of x and one of the level, whose features a third one reads: PReLU, for vectors (`nn.two_stream`; DDAEBM, Table 6)."""

    kind: Literal["two_stream"] = "two_stream"
    width: Count = 300
    """hidden units of the network that reads both"""
    depth: Count = 2
    """its hidden layers"""

    def build(self, dim: int, *, out: int, batch_norm: bool) -> "nn.Module":
        """(x [B, `dim`], t [B]) -> [B, out], or [B] for `out` 0."""
        from thalweg.nn.two_stream import TwoStream as Network

        return Network(dim, out=out, batch_norm=batch_norm, **_options(self))


@dataclass(frozen=True, config=STRICT)
class TwoStreamEncoder:
    """An encoder of the same form, with batch norm (DDAEBM, Table 6)."""

    kind: Literal["two_stream"] = "two_stream"
    width: Count = 300
    """hidden units of the network that reads both"""
    depth: Count = 2
    """its hidden layers"""

    def build(self, shape: Shape, *, latent: int, levels: int) -> "nn.Module":
        """(x_s, x_t, t) -> mean and log-variance of z, [B, `latent`] each."""
        from thalweg.nn.generator import VectorEncoder

        body = TwoStream(width=self.width, depth=self.depth)
        return VectorEncoder(body.build(2 * math.prod(shape), out=2 * latent, batch_norm=True))


@dataclass(frozen=True, config=STRICT)
class ResidualEncoder:
    """An encoder of large images, of the form of DDGAN's discriminator (`nn.generator`; DDAEBM, sec. B.2.3, LSUN church)."""

    kind: Literal["residual"] = "residual"
    width: Count = 32
    """an eighth of the channels from the second halving on"""

    def build(self, shape: Shape, *, latent: int, levels: int) -> "nn.Module":
        """(x_s, x_t, t) -> mean and log-variance of z, [B, `latent`] each, for any t."""
        from thalweg.nn.generator import ResidualImageEncoder

        return construct(ResidualImageEncoder, _image_shape(self, shape), latent, **_options(self))


# what a config's field may say
StepEncoder = Annotated[MLPEncoder | ConvEncoder | TwoStreamEncoder | ResidualEncoder, Field(discriminator="kind")]
