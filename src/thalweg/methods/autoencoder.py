"""An autoencoder whose latents other methods model: the first stage of latent diffusion (Rombach et al., CVPR 2022, sec. 3.1).

    μ, σ = encoder(x);   z = μ + σ ε,  ε ~ N(0, I)
    update("autoencoder", |decoder(z) − x| + w/D · KL(N(μ, σ² I) ‖ N(0, I)))

The weight w is small: latents are only kept bounded, the prior N(0, I) is not matched. There is no energy here, and neither the
perceptual nor the adversarial loss of the paper: fine texture comes out smooth.
"""

from typing import Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from thalweg import random
from thalweg.data.base import Batch
from thalweg.errors import InputError
from thalweg.methods.base import STRICT, Count, Fraction, Method, NotNegative, Positive, Whole, warm_up_cosine
from thalweg.nn.autoencoder import Decoder, Encoder, latent_shape

MEMORY = 0.99  # how much of the latents' running moments an update keeps


@dataclass(frozen=True, config=STRICT)
class Config:
    """Settings of `autoencoder`."""

    data: str = "fashion-mnist"
    """name of the data that the preset is for"""
    shape: tuple[Count, ...] = (1, 28, 28)
    """shape of one example, [C, H, W]; H and W divide by 2^(len(widths) − 1)"""
    classes: Whole = 0
    """number of labels; not used"""
    latent_channels: Count = 4
    """channels of the latents"""
    widths: tuple[Count, ...] = (32, 64, 64)
    """channels at each resolution; latents have the last one's height and width"""
    blocks: Whole = 1
    """residual blocks at each resolution, in encoder and decoder"""
    reconstruction: Literal["l1", "mse"] = "l1"
    """absolute or squared error, a mean over the D values of an image"""
    kl_weight: NotNegative = 1e-2
    """w, weight of the KL divergence in nats beside the sum of the D errors; 1e-6 in the released code of the paper"""
    batch: Count = 128
    """images per update"""
    images: Count = 1_000_000
    """length of training in images; the learning rate falls to zero over it"""
    lr: Positive = 1e-3
    """base learning rate of Adam"""
    warm_up: Whole = 100
    """updates over which the learning rate rises"""
    clip: NotNegative = 1.0
    """bound on the gradient's norm, 0 for none"""
    ema: Fraction = 0.999
    """decay of the EMA twin"""


class Autoencoder(Method):
    """Encoder and decoder between images and latents of unit standard deviation; the settings are in `Config`."""

    name = "autoencoder"
    Config = Config
    latent_shape: tuple[int, ...] = ()

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        c = config
        try:
            self.latent_shape = latent_shape(c.shape, c.latent_channels, c.widths)
        except ValueError as error:
            raise InputError(f"autoencoder: {error}") from None
        self.encoder = Encoder(c.shape[0], c.latent_channels, widths=c.widths, blocks=c.blocks)
        self.decoder = Decoder(c.shape[0], c.latent_channels, widths=c.widths, blocks=c.blocks)
        # of the posterior means over the data, each channel by itself: what `encode` brings to mean 0 and deviation 1
        self.register_buffer("latent_mean", torch.zeros(c.latent_channels, 1, 1))
        self.register_buffer("latent_square", torch.ones(c.latent_channels, 1, 1))

    @property
    def latent_std(self) -> Tensor:
        """Standard deviation of each channel's posterior means in training, [C, 1, 1], before scaling."""
        return (self.latent_square - self.latent_mean.square()).clamp(min=1e-12).sqrt()

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

    @property
    def abilities(self) -> frozenset[str]:
        return frozenset({"sample"})

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"autoencoder": torch.optim.Adam(self.parameters(), lr=self.config.lr, fused=True)}

    def learning_rate(self, name: str, images: int) -> float:
        """Linear warm-up, then a cosine to zero at `images` of the config."""
        c = self.config
        return warm_up_cosine(images / c.batch, c.warm_up, images / c.images)

    def step(self, batch: Batch, update) -> None:
        mean, log_variance = self.encoder(batch.x)
        z = mean + (0.5 * log_variance).exp() * random.normal_like(mean, update.generator)
        error = self.decoder(z) - batch.x
        error = (error.abs() if self.config.reconstruction == "l1" else error.square()).flatten(1).mean(1)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1)
        update("autoencoder", (error + self.config.kl_weight / batch.x[0].numel() * kl).mean())
        self._measure(mean.detach(), update)
        update.log(reconstruction=error, kl=kl, latent_std=self.latent_std)

    @torch.no_grad()
    def _measure(self, mean: Tensor, update) -> None:
        """Running moments of the posterior means; the first updates weigh more, so that the initial values are soon forgotten."""
        new = max(1 - MEMORY, 1 / update.updates)
        for buffer, value in ((self.latent_mean, mean), (self.latent_square, mean.square())):
            buffer.lerp_(update.mean(value.mean(dim=(0, 2, 3)))[:, None, None].to(buffer), new)

    @torch.no_grad()
    def criterion(self, held_out: Batch, generator: random.Generator) -> float:
        """Mean squared error of reconstructions of held-out images, per value, in the unit of [−1, 1] squared."""
        parts = held_out.x.split(256)
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
        return torch.cat([self.decode(part) for part in z.split(256)])


def _list(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))


# Widths, length and rate ours; two halvings (f = 4) and 4 channels are Rombach et al.'s middle ground (table 8).
Autoencoder.PRESETS = {
    "fashion-mnist": Config(),
    # a folder of colour pictures or --data hf:NAME, brought to this shape by --size 64
    "pictures": Config(data="pictures/", shape=(3, 64, 64), widths=(48, 96, 96), images=2_000_000, batch=64),
}
