"""An autoencoder whose latents other methods model, the first stage of latent diffusion. docs/methods/autoencoder.md

    μ, σ = encoder(x);   z = μ + σ ε,  ε ~ N(0, I)
    update("autoencoder", |decoder(z) − x| + w/D · KL(N(μ, σ² I) ‖ N(0, I)))                          (Rombach et al. 2022, sec. 3.1)

The weight w is small: latents are only kept bounded, the prior N(0, I) is not matched. There is no energy here, and neither the
perceptual nor the adversarial loss of the paper: fine texture comes out smooth.
"""

import math
from typing import Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from thalweg import random
from thalweg.config import STRICT, Common, NotNegative
from thalweg.data.base import Batch
from thalweg.errors import InputError
from thalweg.methods.base import Method, Update
from thalweg.nn.build import Coders
from thalweg.objective import kl_from_normal

MEMORY = 0.99  # how much of the latents' running moments an update keeps


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Config(Common):
    """Settings of `autoencoder`. Labels are not used; `lr` is the one rate."""

    coders: Coders = Coders()
    """the encoder and the decoder; the sides of images divide by 2^(number of widths − 1)"""
    reconstruction: Literal["l1", "mse"] = "l1"
    """absolute or squared error, a mean over the D values of an image"""
    kl_weight: NotNegative = 1e-2
    """w, weight of the KL divergence in nats against the sum of the D errors; 1e-6 in the released code of the paper"""


class Autoencoder(Method):
    """Encoder and decoder between images and latents of unit standard deviation; the settings are in `Config`."""

    name = "autoencoder"
    Config = Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        c = config
        self.encoder, self.decoder = c.coders.build(c.shape)
        # of the posterior means over the data, each channel by itself: what `encode` brings to mean 0 and deviation 1
        self.register_buffer("latent_mean", torch.zeros(c.coders.latent_channels, 1, 1))
        self.register_buffer("latent_square", torch.ones(c.coders.latent_channels, 1, 1))

    @property
    def abilities(self) -> frozenset[str]:
        return frozenset({"sample", "decode"})

    def second_stage(self, run: str) -> str:
        data = "" if self.config.data == "fashion-mnist" else f" --data {self.config.data}"
        return f"thalweg train cdrl/fashion-mnist-latent --autoencoder {run}{data} --out runs/latent"

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of one image's latents, [C, H, W]."""
        return self.config.coders.latent_shape(self.config.shape)

    @property
    def latent_std(self) -> Tensor:
        """Standard deviation of each channel's posterior means in training, [C, 1, 1], before scaling."""
        return (self.latent_square - self.latent_mean.square()).clamp(min=1e-12).sqrt()

    @property
    def _at_once(self) -> int:
        """Images that are coded at once: 256, fewer from 128×128 pixels on."""
        return max(1, min(256, 2**22 // math.prod(self.config.shape)))

    # --- between images and latents

    def encode(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] in [−1, 1] -> posterior means [B, *latent_shape], each channel scaled to mean 0 and deviation 1.

        Raises InputError for another shape, NaN, and values outside [−1, 1].
        """
        if tuple(x.shape[1:]) != tuple(self.config.shape):
            raise InputError(f"autoencoder: encode needs images [B, {_list(self.config.shape)}], got {list(x.shape)}")
        if len(x) and not (x.detach().abs() <= 1).all():  # NaN is not either
            raise InputError(f"autoencoder: images must be finite and in [−1, 1], got values from {float(x.min()):g} to {float(x.max()):g}")
        return (self.encoder(x)[0] - self.latent_mean) / self.latent_std

    def decode(self, z: Tensor) -> Tensor:
        """Latents [B, *latent_shape], scaled as `encode` gives them -> images [B, C, H, W] in [−1, 1].

        Raises InputError for another shape, and latents that are not finite.
        """
        if tuple(z.shape[1:]) != self.latent_shape:
            raise InputError(f"autoencoder: decode needs latents [B, {_list(self.latent_shape)}], got {list(z.shape)}")
        if not z.detach().isfinite().all():
            raise InputError("autoencoder: latents to decode hold NaN or infinity")
        return self.decoder(z * self.latent_std + self.latent_mean).clamp(-1, 1)

    def reconstruct(self, x: Tensor) -> Tensor:
        """decode(encode(x)): [B, C, H, W] -> [B, C, H, W] in [−1, 1]."""
        return self.decode(self.encode(x))

    # --- training

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"autoencoder": torch.optim.Adam(self.parameters(), lr=self.config.lr, fused=True)}

    def step(self, batch: Batch, update: Update) -> None:
        x = batch.x
        mean, log_variance = self.encoder(x)
        z = mean + (0.5 * log_variance).exp() * random.normal_like(mean, update.generator)
        error, kl = self.reconstruction_error(self.decoder(z), x), kl_from_normal(mean, log_variance)
        update("autoencoder", (error + self.config.kl_weight / x[0].numel() * kl).mean())
        self._measure(mean.detach(), update)
        update.log(reconstruction=error, kl=kl, latent_std=self.latent_std)

    def reconstruction_error(self, rebuilt: Tensor, x: Tensor) -> Tensor:
        """The mean error of each image's values: [B, ...] twice -> [B]."""
        error = rebuilt - x
        return (error.abs() if self.config.reconstruction == "l1" else error.square()).flatten(1).mean(1)

    @torch.no_grad()
    def _measure(self, mean: Tensor, update: Update) -> None:
        """Running moments of the posterior means; the first updates weigh more, so that the initial values are soon forgotten."""
        new = max(1 - MEMORY, 1 / update.updates)
        for buffer, value in ((self.latent_mean, mean), (self.latent_square, mean.square())):
            buffer.lerp_(update.mean(value.mean(dim=(0, 2, 3)))[:, None, None].to(buffer), new)

    @torch.no_grad()
    def criterion(self, held_out: Batch, generator: random.Generator) -> float:
        """Mean squared error of reconstructions of held-out images, per value, in the unit of [−1, 1] squared."""
        parts = held_out.x.split(self._at_once)
        return sum(float((self.reconstruct(x) - x).square().sum()) for x in parts) / held_out.x.numel()

    # --- sampling

    @torch.no_grad()
    def sample(self, n: int, *, seed: int = 0) -> Tensor:
        """`n` decoded draws of N(0, I) latents: [n, C, H, W] in [−1, 1].

        Of the right scale, but with no dependence between latents, which training hardly asks for: a picture to look at, no model
        of the data. A method trained on the latents is that (docs/latent.md).
        """
        device = self.latent_mean.device
        z = random.normal(n, *self.latent_shape, generator=random.seeded(seed, 1, device=device), device=device)
        return torch.cat([self.decode(part) for part in z.split(self._at_once)])


def _list(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))
