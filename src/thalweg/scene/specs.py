"""Specs of a model of objects in space: its rays, priors of latents, learners with their chains, searched poses.

Lengths are in world units, focal lengths in widths of the image. torch is imported when the first of them is built or called.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from thalweg.chain import Langevin
from thalweg.config import STRICT, Count, Fraction, NotNegative, Positive, Whole
from thalweg.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from thalweg import random
    from thalweg.energy import Energy
    from thalweg.nn import nerf
    from thalweg.nn.inference import InferenceNetwork
    from thalweg.prior import Prior
    from thalweg.scene.poses import PoseSet
    from thalweg.scene.rays import Pixels


# --- the renderer


@dataclass(frozen=True, config=STRICT)
class Rays:
    """Volume rendering along the rays of pinhole cameras (`nn.nerf`; thesis, eq. 3.1)."""

    kind: Literal["rays"] = "rays"
    near: Positive = 3.0
    """distance at which rays begin"""
    far: Positive = 5.0
    """distance at which rays end; the field is for the ball of diameter far − near about the origin"""
    ball: bool = True
    """follow rays through that ball only, or all the way from near to far"""
    focal: Positive = 1.866
    """focal length of cameras that no data give"""
    samples: Count = 12
    """M, stratified samples along each ray"""
    importance: Whole = 0
    """further samples where those found density, 0 for none"""
    sub_pixels: Count = 1
    """n: a pixel is the mean of n² rays, each through a place in a part of its own, drawn in training"""
    stop: Fraction = 0.0
    """share of the light below which what is behind is not looked at where no gradients are needed, 0 to look at all"""
    rays: Whole = 128
    """pixels of each image that a step of training looks at, drawn anew, 0 for all"""
    chunk: Count = 262_144
    """samples of the field held in memory at once"""
    background: Literal["white", "black"] = "white"
    """what rays see that pass through"""

    @property
    def radius(self) -> float:
        """Of the ball that the field is for."""
        return (self.far - self.near) / 2

    @property
    def distance(self) -> float:
        """To the origin, of cameras that no data give."""
        return (self.near + self.far) / 2

    def look(
        self,
        x: "Tensor",
        camera: "Tensor",
        visible: "Tensor | None" = None,
        which: "Tensor | None" = None,
        generator: "random.Generator" = None,
    ) -> "Pixels":
        """The pixels number `which` [N·V, P], or all, of images [N, V, C, H, W] from cameras [N, V, 3, 5].

        Samples along rays are drawn, or without a generator evenly spaced.
        """
        from thalweg.scene import rays

        return rays.look(
            x, camera, visible, which, samples=self.samples, importance=self.importance, sub_pixels=self.sub_pixels, generator=generator
        )

    def render(self, field: "nerf.Field", pixels: "Pixels") -> "nerf.Rendering":
        """What those pixels show of a field, whose points are in units of `radius`; depth in world units."""
        from thalweg.nn import nerf

        r = self.radius
        seen = nerf.render(
            field, pixels.origins / r, pixels.directions, pixels.jitter, near=self.near / r, far=self.far / r, ball=self.ball,
            background=float(self.background == "white"), importance=pixels.importance, chunk=self.chunk, stop=self.stop,
        )  # fmt: skip
        if self.sub_pixels > 1:
            seen = nerf.Rendering(*(part.unflatten(1, (-1, self.sub_pixels**2)).mean(2) for part in seen))
        return seen._replace(depth=seen.depth * r)


# --- priors of latents


@dataclass(frozen=True, config=STRICT)
class EnergyPrior:
    """p(z) ∝ exp(f(z)) q₀(z) for appearance and shape, each with an MLP f of its own (`prior`; thesis, eq. 3.4, 3.5)."""

    kind: Literal["energy"] = "energy"
    width_appearance: Count = 64
    """C, hidden units of f on z^a"""
    width_shape: Count = 64
    """C, hidden units of f on z^s"""
    depth: Count = 2
    """hidden layers of both f: 2 small, 4 large (Table 3.1)"""
    reference: Literal["normal", "uniform"] = "normal"
    """q₀: N(0, I), or uniform on [−1, 1]^d"""
    chain: Langevin = Langevin(steps=40, step=0.4)
    """K⁻ steps of size δ⁻ from draws of q₀ (eq. 3.10, 3.11)"""

    def build(self, dim_appearance: int, dim_shape: int) -> "tuple[Prior, Prior]":
        from thalweg.prior import Prior

        appearance = Prior(dim_appearance, width=self.width_appearance, depth=self.depth, reference=self.reference)
        return appearance, Prior(dim_shape, width=self.width_shape, depth=self.depth, reference=self.reference)


@dataclass(frozen=True, config=STRICT)
class GaussianPrior:
    """N(0, I) for both latents: NeRF-VAE with the amortized learner (Kosiorek et al. 2021), NeRF-Gaussian with MCMC."""

    kind: Literal["gaussian"] = "gaussian"
    reference: ClassVar[str] = "normal"
    chain: ClassVar[None] = None

    def build(self, dim_appearance: int, dim_shape: int) -> "tuple[Prior, Prior]":
        from thalweg.prior import Prior

        return Prior(dim_appearance, depth=0), Prior(dim_shape, depth=0)


LatentPrior = Annotated[EnergyPrior | GaussianPrior, Field(discriminator="kind")]


# --- chains on the posterior


@dataclass(frozen=True, config=STRICT)
class LatentLangevin:
    """Langevin dynamics on a posterior of latents, one block after the other (`scene.chains`; thesis, eq. 3.14, 3.15)."""

    kind: Literal["langevin"] = "langevin"
    steps: Whole = 60
    """K⁺, each in z^a, then in z^s"""
    step: Positive = 0.1
    """δ⁺, the step s of z − s²/2 ∇E + s τ ξ"""
    noise: NotNegative = 0.0
    """τ, weight of the noise (0 in the paper, 1: exact dynamics)"""
    joint: bool = False
    """move z^a and z^s at once, for half of the gradients"""

    def __call__(
        self,
        energy: "Energy",
        z: "Tensor",
        blocks: "Sequence[Tensor]",
        *,
        moments: "Tensor | None" = None,
        steps: int | None = None,
        project: "Callable[[Tensor], Tensor] | None" = None,
        generator: "random.Generator" = None,
    ) -> "tuple[Tensor, Tensor]":
        """A chain from z [N, d]; see `scene.chains.langevin`. `steps` stand in for the spec's."""
        from thalweg.scene import chains

        return chains.langevin(
            energy, z, chains.together(blocks) if self.joint else blocks, steps=self.steps if steps is None else steps, step=self.step,
            noise=self.noise, moments=moments, project=project, generator=generator,
        )  # fmt: skip


@dataclass(frozen=True, config=STRICT)
class LatentAdam:
    """Adam without noise in place of Langevin dynamics (`scene.chains`; thesis, sec. 3.5.3)."""

    kind: Literal["adam"] = "adam"
    steps: Whole = 10
    """K⁺, each in z^a, then in z^s"""
    rate: Positive = 0.1
    """δ⁺, learning rate"""
    joint: bool = False
    """move z^a and z^s at once, for half of the gradients"""

    def __call__(
        self,
        energy: "Energy",
        z: "Tensor",
        blocks: "Sequence[Tensor]",
        *,
        moments: "Tensor | None" = None,
        steps: int | None = None,
        project: "Callable[[Tensor], Tensor] | None" = None,
        generator: "random.Generator" = None,
    ) -> "tuple[Tensor, Tensor]":
        """A chain from z [N, d]; see `scene.chains.adam`. `steps` stand in for the spec's."""
        from thalweg.scene import chains

        return chains.adam(
            energy, z, chains.together(blocks) if self.joint else blocks, steps=self.steps if steps is None else steps, step=self.rate,
            moments=moments, project=project,
        )  # fmt: skip


PosteriorChain = Annotated[LatentLangevin | LatentAdam, Field(discriminator="kind")]


# --- learners: where latents of the posterior come from


@dataclass(frozen=True, config=STRICT)
class MCMC:
    """Chains anew from the reference for every batch (Algorithm 1)."""

    kind: Literal["mcmc"] = "mcmc"
    posterior_chain: PosteriorChain = LatentAdam(steps=10, rate=0.1)
    """of training"""
    infer_chain: PosteriorChain = LatentAdam(steps=100, rate=0.1)
    """of `infer`"""


@dataclass(frozen=True, config=STRICT)
class Persistent:
    """A chain kept for each object, which goes on when the object comes again (Algorithm 1; sec. 3.5.6)."""

    kind: Literal["persistent"] = "persistent"
    chains: Count = 1000
    """objects for which a chain is kept: as many as the training data have, or more"""
    posterior_chain: PosteriorChain = LatentAdam(steps=10, rate=0.1)
    """of training"""
    infer_chain: PosteriorChain = LatentAdam(steps=100, rate=0.1)
    """of `infer` (600 steps for two-shot views in the paper)"""


@dataclass(frozen=True, config=STRICT)
class InferenceNet:
    """Convolutions shared by heads for each latent (`nn.inference`; thesis, sec. 3.5.2.3)."""

    kind: Literal["inference"] = "inference"
    widths: tuple[Count, ...] = (32, 64, 128)
    """channels after each halving"""
    blocks: tuple[Whole, ...] = (1, 1, 1)
    """residual blocks at each of them"""

    def build(self, channels: int, latents: dict[str, int], *, angles: Sequence[str] = (), given: int = 0) -> "InferenceNetwork":
        """With heads for Gaussian `latents` {name: dimension} and for `angles`, and with `given` numbers that are known of each image."""
        from thalweg.nn.inference import InferenceNetwork

        if len(self.widths) != len(self.blocks):
            raise InputError(f"the inference network's widths and blocks differ in length: {self.widths} and {self.blocks}")
        return InferenceNetwork(channels, latents, angles=angles, widths=self.widths, blocks=self.blocks, given=given)


@dataclass(frozen=True, config=STRICT)
class Amortized:
    """Draws of an inference network q_φ(z | I, ξ) (Algorithm 2)."""

    kind: Literal["amortized"] = "amortized"
    inference: InferenceNet = InferenceNet()
    """q_φ"""
    lr_inference: Positive = 1e-3
    """η_φ, base learning rate of the inference network"""
    lr_heads: NotNegative = 0.0
    """that of its heads for z^a and z^s, 0 for the same"""
    infer_chain: PosteriorChain = LatentAdam(steps=0, rate=0.1)
    """of `infer`, from the inference network's means; none by default"""


@dataclass(frozen=True, config=STRICT)
class SemiAmortized:
    """Draws about a chain kept for each object, which begins at the means of an inference network; the network names the spread: ours."""

    kind: Literal["semi_amortized"] = "semi_amortized"
    chains: Count = 1000
    """objects for which a chain is kept: as many as the training data have, or more"""
    posterior_chain: PosteriorChain = LatentAdam(steps=4, rate=0.02, joint=True)
    """of training"""
    alone: Fraction = 0.0
    """share of training at the start in which draws are about the network's means, which learn by them: chains then begin at good ones"""
    parts: Count = 1
    """n: a step of training's chains looks at one of every n pixels that a batch looks at, the next step at the next ones"""
    inference: InferenceNet = InferenceNet()
    """q_φ"""
    lr_inference: Positive = 1e-3
    """η_φ, base learning rate of the inference network"""
    lr_heads: NotNegative = 0.0
    """that of its heads for z^a and z^s, 0 for the same"""
    infer_chain: PosteriorChain = LatentAdam(steps=60, rate=0.05)
    """of `infer`, from the inference network's means"""


Learner = Annotated[MCMC | Persistent | Amortized | SemiAmortized, Field(discriminator="kind")]


# --- unknown poses


@dataclass(frozen=True, config=STRICT)
class PoseSearch:
    """The likeliest of several poses instead of a draw of its posterior: ours (`scene.poses`)."""

    kind: Literal["likeliest"] = "likeliest"
    candidates: Count = 16
    """poses from above that are tried for each image besides the inference network's own"""
    same_shape: Fraction = 0.0
    """share of training at the start in which all shapes are one, z^s = 0, and poses alone can tell silhouettes apart"""
    side: Whole = 0
    """of the images, means of blocks, by all of whose pixels poses are compared; 0 to compare them by 32 pixels of the images themselves"""
    silhouettes: Fraction = 0.0
    """share of training at the start in which images are looked at as their silhouettes, which do not depend on colours"""
    kept: Whole = 0
    """images whose candidates are kept from one visit to the next, as many as the training data have, or more; 0 to draw them anew"""
    renew: Fraction = 0.5
    """share of kept candidates, of the worst ones, that a visit draws anew, half of these near better ones"""

    even: NotNegative = 0.0
    """weight, in mean misfits, of the log-density of azimuths that were chosen lately: keeps images from having one pose, 0 for none"""

    def build(self) -> "PoseSet":
        from thalweg.scene.poses import PoseSet

        return PoseSet(self.kept, self.candidates, self.renew, self.even)
