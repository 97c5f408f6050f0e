"""Specs of networks: what a config says of one, and how it is built for data of a shape.

Every spec has `build(shape, *, out, channels, levels, classes)`. With `channels` 0 a network gives numbers: (x[, t][, label]) -> [B] for
`out` 0, else [B, out]. Above 0 it gives a map [B, channels, H, W] and numbers, None for `out` 0; shape[0] channels are a map in the shape
of x, of vectors too. `levels`: it takes t [B], as all with a map do; `classes`: a label [B], −1 for none. Coders have `build(shape)`.
"""

import math
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from thalweg.config import STRICT, Count, Fraction, Whole
from thalweg.errors import InputError
from thalweg.nn.own import Own

if TYPE_CHECKING:
    from torch import nn

Shape = tuple[int, ...]


def _image_shape(spec: Any, shape: Shape) -> tuple[int, int, int]:
    """The one place that says which networks are for images."""
    if len(shape) != 3:
        raise InputError(f"a network of kind '{spec.kind}' needs images [C, H, W], got shape {tuple(shape)}; use kind 'mlp'")
    return shape[0], shape[1], shape[2]


def _options(spec: Any) -> dict[str, Any]:
    """The spec's own fields, which its network's constructor takes by the same names."""
    return {f.name: getattr(spec, f.name) for f in fields(spec) if f.name != "kind"}


def construct(network: "type[nn.Module]", *arguments: Any, **options: Any) -> "nn.Module":
    """A network; what its constructor refuses of sizes is wrong input."""
    try:
        return network(*arguments, **options)
    except ValueError as error:
        raise InputError(str(error)) from None


@dataclass(frozen=True, config=STRICT)
class MLP:
    """A multilayer perceptron, for vectors and small images (`nn.mlp`)."""

    kind: Literal["mlp"] = "mlp"
    width: Count = 128
    """hidden units"""
    depth: Count = 3
    """hidden layers"""

    def build(self, shape: Shape, *, out: int = 0, channels: int = 0, levels: bool = False, classes: int = 0) -> "nn.Module":
        from thalweg.nn.mlp import MLP as Network
        from thalweg.nn.patchnet import VectorNet

        dim = math.prod(shape)
        if channels:
            if channels % shape[0]:
                raise InputError(f"a network of kind 'mlp' gives maps in the shape of x, not of {channels} channels for {shape[0]}")
            return VectorNet(dim, out=channels // shape[0], vector=out, classes=classes, **_options(self))
        return Network(dim, out=out, levels=levels, classes=classes, **_options(self))


@dataclass(frozen=True, config=STRICT)
class ConvNet:
    """A residual convolutional network with strided convolutions between resolutions and no map (`nn.convnet`)."""

    kind: Literal["convnet"] = "convnet"
    widths: tuple[Count, ...] = (32, 64, 128)
    """channels at each resolution"""
    blocks: Whole = 0
    """residual blocks at each resolution"""
    spectral_norm: bool = False
    """bound every convolution by spectral norm"""
    patch: Count = 1
    """side of the patches that are folded into channels before the first layer: 2 makes small images several times cheaper"""

    def build(self, shape: Shape, *, out: int = 0, channels: int = 0, levels: bool = False, classes: int = 0) -> "nn.Module":
        from thalweg.nn.convnet import ConvEnergy

        if channels:
            raise InputError("a network of kind 'convnet' has no map; use 'patch', 'patch_unet', 'unet' or, for vectors, 'mlp'")
        return construct(ConvEnergy, _image_shape(self, shape), out=out, levels=levels, classes=classes, **_options(self))


@dataclass(frozen=True, config=STRICT)
class PatchNet:
    """A residual network on patches, at one resolution, fast where it is differentiated twice (`nn.patchnet`)."""

    kind: Literal["patch"] = "patch"
    width: Count = 64
    """channels"""
    blocks: Whole = 4
    """residual blocks"""
    patch: Count = 2
    """side of the patches"""
    embedding: Count = 128
    """values of the embedding of levels and labels"""
    dropout: Fraction = 0.0
    """dropout in the residual blocks"""
    precise_first: bool = False
    """the first layer stays in fp32 under autocast, see `PatchUNet`; off where recipes were measured without"""

    def build(self, shape: Shape, *, out: int = 0, channels: int = 0, levels: bool = False, classes: int = 0) -> "nn.Module":
        from thalweg.nn.patchnet import PatchNet as Network

        return _with_map(Network, self, shape, out=out, channels=channels, levels=levels, classes=classes)


@dataclass(frozen=True, config=STRICT)
class PatchUNet:
    """Two resolutions of patches, pixels folded 2×2 and 4×4, with a skip between them: for small images (`nn.patchunet`)."""

    kind: Literal["patch_unet"] = "patch_unet"
    width: Count = 48
    """channels where pixels are folded 2×2"""
    deep_width: Count = 96
    """channels where they are folded 4×4"""
    blocks: Whole = 2
    """residual blocks at the first, before and again after the second"""
    deep_blocks: Whole = 4
    """residual blocks at the second"""
    hidden: Count = 256
    """units that see the whole image"""
    embedding: Count = 128
    """values of the embedding of levels and labels"""
    dropout: Fraction = 0.0
    """dropout in the residual blocks"""
    precise_first: bool = True
    """the first layer stays in fp32 under autocast: rounding x to bf16 is as large as the noise of the lowest levels"""

    def build(self, shape: Shape, *, out: int = 0, channels: int = 0, levels: bool = False, classes: int = 0) -> "nn.Module":
        from thalweg.nn.patchunet import PatchUNet as Network

        return _with_map(Network, self, shape, out=out, channels=channels, levels=levels, classes=classes)


@dataclass(frozen=True, config=STRICT)
class UNet:
    """The UNet of diffusion models (`nn.unet`)."""

    kind: Literal["unet"] = "unet"
    width: Count = 64
    """channels at the full resolution"""
    multipliers: tuple[Count, ...] = (1, 2, 2, 2)
    """channels at each resolution, times width"""
    blocks: Count = 2
    """residual blocks at each resolution"""
    attention: Whole = 8
    """self-attention at resolutions up to this many pixels"""
    dropout: Fraction = 0.0
    """dropout in the residual blocks"""
    precise_first: bool = False
    """the first layer stays in fp32 under autocast, see `PatchUNet`; off where recipes were measured without"""

    def build(self, shape: Shape, *, out: int = 0, channels: int = 0, levels: bool = False, classes: int = 0) -> "nn.Module":
        from thalweg.nn.unet import UNet as Network

        return _with_map(Network, self, shape, out=out, channels=channels, levels=levels, classes=classes)


@dataclass(frozen=True, config=STRICT)
class GuidedUNet:
    """The UNet of guided diffusion with learned resampling, as EGC's released code has it: for large machines (`nn.guided`)."""

    kind: Literal["guided_unet"] = "guided_unet"
    width: Count = 192
    """channels at the full resolution, before multipliers"""
    multipliers: tuple[Count, ...] = (1, 2, 2)
    """channels at each resolution, times width"""
    blocks: Count = 3
    """residual blocks at each resolution, and one more on the way up"""
    attention: Whole = 16
    """attention at resolutions up to this many pixels"""
    head_channels: Count = 64
    """channels of a head"""
    groups: Count = 32
    """groups of each norm, or a quarter of its channels"""
    transformer: bool = False
    """attention is a transformer's block, which labels enter; else plain attention, and labels are added to the level's embedding"""
    modulate: bool = True
    """the embedding scales and shifts what a norm gives, rather than being added before it"""
    pool: Literal["features", "map"] = "features"
    """what the numbers are pooled from: the last features, or without parameters a map of as many channels (`sattn`)"""
    dropout: Fraction = 0.0
    """dropout in the residual blocks"""

    def build(self, shape: Shape, *, out: int = 0, channels: int = 0, levels: bool = False, classes: int = 0) -> "nn.Module":
        from thalweg.nn.guided import GuidedUNet as Network

        return _with_map(Network, self, shape, out=out, channels=channels, levels=levels, classes=classes)


def _with_map(network: "type[nn.Module]", spec: Any, shape: Shape, *, out: int, channels: int, levels: bool, classes: int) -> "nn.Module":
    """A network that has a map; where no map is asked for, its numbers alone."""
    from thalweg.nn.layers import NumbersAlone

    of_image = _image_shape(spec, shape)
    if channels:
        return construct(network, of_image, out=channels, vector=out, classes=classes, **_options(spec))
    net = construct(network, of_image, out=of_image[0], vector=max(1, out), classes=classes, **_options(spec))
    return NumbersAlone(net, scalar=out == 0, levels=levels)


@dataclass(frozen=True, config=STRICT)
class PooledNet:
    """CoopFlow's energy of images, a residual network with average pooling and no map (`nn.convnet`; thesis, Table 4.3)."""

    kind: Literal["pooled"] = "pooled"
    widths: tuple[Count, ...] = (128, 256, 512, 1024)
    """channels at each resolution"""

    def build(self, shape: Shape, *, out: int = 0, channels: int = 0, levels: bool = False, classes: int = 0) -> "nn.Module":
        from thalweg.nn.convnet import PooledEnergy

        if out or channels or levels or classes:
            raise InputError("a network of kind 'pooled' gives one energy: it has no map and takes neither levels nor labels")
        return construct(PooledEnergy, _image_shape(self, shape), **_options(self))


@dataclass(frozen=True, config=STRICT)
class ExpandingNet:
    """CF-EBM's energy of images, which grows from a small resolution to a large one (`nn.expanding`; Zhao et al. 2021, Table 6)."""

    kind: Literal["expanding"] = "expanding"
    width: Count = 16
    """c, channel multiplier: 4c channels up to 32 pixels, half as many for each doubling beyond (Table 6)"""
    activation: Literal["silu", "relu", "leaky_relu", "gelu", "celu"] = "silu"
    """Table 8; silu is the paper's Swish"""
    spectral_norm: bool = True
    """bound both convolutions of each Primal block by spectral norm (Table 9)"""
    residual: bool = True
    """residual connections in the Primal blocks (Table 9)"""

    def build(self, shape: Shape, *, stages: int) -> "nn.Module":
        """A network of images whose sides halve `stages` − 1 times to 2 pixels or more; InputError for others."""
        from thalweg.nn.expanding import ExpandingEnergy

        return construct(ExpandingEnergy, _image_shape(self, shape), stages=stages, **_options(self))


@dataclass(frozen=True, config=STRICT)
class NICE:
    """A flow of additive couplings, whose energy is normalised at every noise level: for vectors and small images (`nn.nice`)."""

    kind: Literal["nice"] = "nice"
    width: Count = 1000
    """hidden units of each coupling"""
    depth: Count = 5
    """hidden layers of each coupling"""
    couplings: Count = 4
    """coupling layers"""

    def build(self, shape: Shape, *, out: int = 0, channels: int = 0, levels: int = 0, classes: int = 0) -> "nn.Module":
        """As of the other specs, but `levels` is T, the last level: each has a scale of its own."""
        from thalweg.nn.nice import NICE as Network

        if out or channels or classes:
            raise InputError("a network of kind 'nice' gives one energy at each noise level: it has no map and takes no labels")
        return construct(Network, math.prod(shape), levels, **_options(self))


@dataclass(frozen=True, config=STRICT)
class MLPEncoder:
    """The encoder of a denoising step of vectors or small images, q(z | x_s, x_t), by one MLP (`nn.generator`)."""

    kind: Literal["mlp"] = "mlp"
    width: Count = 128
    """hidden units"""
    depth: Count = 3
    """hidden layers"""

    def build(self, shape: Shape, *, latent: int, levels: int) -> "nn.Module":
        """(x_s, x_t, t) -> mean and log-variance of z, [B, `latent`] each; `levels` is T, the last level."""
        from thalweg.nn.generator import VectorEncoder, level_mlp

        return VectorEncoder(level_mlp(2 * math.prod(shape), levels, out=2 * latent, **_options(self)))


@dataclass(frozen=True, config=STRICT)
class ConvEncoder:
    """The encoder of a denoising step of images, q(z | x_s, x_t), by strided convolutions (`nn.generator`; DDAEBM, Table 8)."""

    kind: Literal["conv"] = "conv"
    width: Count = 64
    """channels of the first layer, doubled where the resolution is halved"""
    stages: Count = 3
    """how often it is halved at most"""

    def build(self, shape: Shape, *, latent: int, levels: int) -> "nn.Module":
        """(x_s, x_t, t) -> mean and log-variance of z, [B, `latent`] each, for any t."""
        from thalweg.nn.generator import ImageEncoder

        return ImageEncoder(_image_shape(self, shape), latent, **_options(self))


@dataclass(frozen=True, config=STRICT)
class ResNet:
    """A residual encoder from images to vectors, with a projection head (`nn.encoder`)."""

    kind: Literal["resnet"] = "resnet"
    widths: tuple[Count, ...] = (32, 64, 128)
    """channels at each resolution"""
    blocks: Count = 1
    """residual blocks at each resolution; 2 with widths 64, 128, 256, 512 are ResNet-18"""
    patch: Count = 1
    """side of the patches of pixels that are folded into channels first; 2 takes a fifth of the time of 1"""
    head: Count = 256
    """hidden units of the projection head"""
    dim: Count = 64
    """d, values of a vector"""

    def build(self, shape: Shape) -> "nn.Module":
        from thalweg.nn.encoder import ResNetEncoder

        return construct(ResNetEncoder, _image_shape(self, shape), **_options(self))


@dataclass(frozen=True, config=STRICT)
class Coders:
    """A convolutional encoder and decoder between images and a smaller map of latents (`nn.autoencoder`)."""

    kind: Literal["coders"] = "coders"
    latent_channels: Count = 4
    """channels of the latents"""
    widths: tuple[Count, ...] = (32, 64, 64)
    """channels at each resolution, each half of the one before; latents have the last one's height and width"""
    blocks: Whole = 1
    """residual blocks at each resolution, in the encoder and in the decoder"""

    def latent_shape(self, shape: Shape) -> tuple[int, int, int]:
        """[latent_channels, H/f, W/f] of images [C, H, W], f = 2^(len(widths) − 1). InputError where f does not divide H and W."""
        from thalweg.nn.autoencoder import latent_shape

        return latent_shape(shape, self.latent_channels, self.widths)

    def build(self, shape: Shape) -> "tuple[nn.Module, nn.Module]":
        """The encoder and the decoder."""
        from thalweg.nn.autoencoder import Decoder, Encoder

        self.latent_shape(shape)  # says what does not divide
        return Encoder(shape[0], **_options(self)), Decoder(shape[0], **_options(self))


# what a config's field may say: any network, and any of those with a map in the shape of x
Network = Annotated[MLP | ConvNet | PatchNet | PatchUNet | UNet | GuidedUNet | Own, Field(discriminator="kind")]
MapNetwork = Annotated[MLP | PatchNet | PatchUNet | UNet | GuidedUNet, Field(discriminator="kind")]
