"""Specs of radiance fields conditional on latents of appearance and shape. torch is imported when the first of them is built."""

from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from thalweg.config import STRICT, Count, Fraction

if TYPE_CHECKING:
    from thalweg.nn.nerf import ConditionalField
    from thalweg.nn.tri_plane import TriPlaneField


@dataclass(frozen=True, config=STRICT)
class RadianceField:
    """A radiance field conditional on latents of appearance and shape (`nn.nerf`; thesis, Figures 3.1 and 3.2)."""

    kind: Literal["radiance_field"] = "radiance_field"
    width: Count = 64
    """hidden units"""
    depth: Count = 4
    """hidden layers"""
    mapping: Count = 64
    """hidden units of the latents' mapping networks"""
    mapping_layers: Count = 4
    """layers of each mapping network"""
    octaves: Count = 5
    """frequencies of the encoding of points"""
    octaves_view: Literal[-1, 0, 1, 2, 3, 4] = -1
    """frequencies of the encoding of viewing directions, −1 for colours that do not depend on them"""
    conditioning: Literal["concat", "film"] = "film"
    """how latents enter: by concatenation (Figure 3.1), or by FiLM layers (Figure 3.2)"""
    annealing: Fraction = 0.0
    """share of training over which the encoding's frequencies are added one after the other (BARF, Lin et al. 2021), 0 for all at once"""

    def build(self, dim_appearance: int, dim_shape: int) -> "ConditionalField":
        from thalweg.nn.nerf import ConditionalField

        options = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("kind", "annealing")}
        return ConditionalField(dim_appearance, dim_shape, **options, annealed=self.annealing > 0)


@dataclass(frozen=True, config=STRICT)
class TriPlane:
    """A radiance field on three planes of features that the latent of shape makes (`nn.tri_plane`; Chan et al. 2022): ours."""

    kind: Literal["tri_plane"] = "tri_plane"
    resolution: Literal[8, 16, 32, 64, 128] = 32
    """side of the planes"""
    channels: Count = 16
    """features in each"""
    width: Count = 64
    """hidden units of the layer that reads them"""
    base: Count = 32
    """channels of the planes' decoder"""
    mapping: Count = 64
    """hidden units of the latents' mapping networks"""
    mapping_layers: Count = 4
    """layers of each mapping network"""

    def build(self, dim_appearance: int, dim_shape: int) -> "TriPlaneField":
        from thalweg.nn.tri_plane import TriPlaneField

        options = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "kind"}
        return TriPlaneField(dim_appearance, dim_shape, **options)


SceneField = Annotated[RadianceField | TriPlane, Field(discriminator="kind")]
