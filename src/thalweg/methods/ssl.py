"""Self-supervised encoders of images: SimCLR, BYOL and W-MSE, the first stage of LIEBM (sec. 3.1 and 4 there).

    a, b = h(v(x)), h(v′(x)),  v, v′ ~ V random views
    update("encoder", NT-Xent(a, b))                             SimCLR (Chen et al., ICML 2020, eq. 1)
    update("encoder", 2 − 2 cos(predictor(a), EMA twin's b))     BYOL (Grill et al., NeurIPS 2020, eq. 2)
    update("encoder", 2 − 2 cos(whiten(a), whiten(b)))           W-MSE (Ermolov et al., ICML 2021, eq. 6)

Labels are not used. There is no energy here and there are no samples: `encode` and `project` give vectors.
"""

from typing import Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional as F

from thalweg import random
from thalweg.data.augment import Augmentation
from thalweg.data.base import Batch
from thalweg.errors import InputError
from thalweg.methods.base import STRICT, Count, Fraction, Method, NotNegative, Positive, Whole, warm_up_cosine
from thalweg.nn.encoder import ResNetEncoder, projection_head


@dataclass(frozen=True, config=STRICT)
class Config:
    """Settings of `ssl`."""

    data: str = "digits"
    """name of the data that the preset is for"""
    shape: tuple[Count, ...] = (1, 8, 8)
    """shape of one example, [C, H, W]"""
    classes: Whole = 10
    """number of labels; not used in training, probes of the latents need them"""
    loss: Literal["simclr", "byol", "w-mse"] = "simclr"
    """what pulls two views of an image together and keeps different images apart"""
    temperature: Positive = 0.5
    """of SimCLR's loss (W-MSE's released code; METHODS of LIEBM)"""
    whiten_size: Count = 128
    """images that W-MSE whitens together; batches divide by it, and it must be above `latent_dim`"""
    widths: tuple[Count, ...] = (32, 64, 128)
    """channels at each resolution"""
    blocks: Count = 1
    """residual blocks at each resolution; 2 and widths 64, 128, 256, 512 are ResNet-18"""
    head: Count = 256
    """hidden units of the projection head, and of BYOL's predictor"""
    latent_dim: Count = 64
    """d_z, values of a projected latent"""
    crop: Fraction = 0.2
    """least share of an image's area that a view keeps"""
    flip: Fraction = 0.5
    """probability that a view is mirrored"""
    jitter: NotNegative = 0.4
    """strength of a view's changes of brightness and contrast, in colour also of saturation and hue"""
    grey: Fraction = 0.1
    """probability that a view of three channels is grey"""
    batch: Count = 256
    """images per update, 2 or more; SimCLR's other images are those of the batch (in data-parallel runs of the process's share)"""
    images: Count = 500_000
    """length of training in images; the learning rate falls to zero over it"""
    lr: Positive = 2e-3
    """base learning rate of Adam"""
    weight_decay: NotNegative = 1e-6
    """of Adam, as in the released code of W-MSE"""
    warm_up: Whole = 100
    """updates over which the learning rate rises"""
    clip: NotNegative = 0.0
    """bound on the gradient's norm, 0 for none"""
    ema: Fraction = 0.99
    """decay of the EMA twin, which is BYOL's target"""


def nt_xent(a: Tensor, b: Tensor, temperature: float = 0.5) -> Tensor:
    """SimCLR's loss in nats, a mean over both views: a, b [B, d] are two views of B ≥ 2 images, of any length (eq. 1 there).

    −log of exp(cos(i, j)/T) over its sum for all 2B − 1 others, j the other view of i.
    """
    z = F.normalize(torch.cat([a, b]), dim=1)
    alike = z @ z.T / temperature
    alike = alike.masked_fill(torch.eye(len(z), dtype=torch.bool, device=z.device), -torch.inf)
    return F.cross_entropy(alike, torch.arange(len(z), device=z.device).roll(len(a)))


def cosine_distance(a: Tensor, b: Tensor) -> Tensor:
    """2 − 2 cos(a, b), the squared distance of directions: [B, d] twice -> [B] (BYOL, eq. 2)."""
    return 2 - 2 * F.cosine_similarity(a, b, dim=1)


def whiten(z: Tensor) -> Tensor:
    """[N, d] with mean 0 and covariance I over its rows, N > d, by the Cholesky factor of its covariance (W-MSE, eq. 5)."""
    z = z - z.mean(0)
    factor = torch.linalg.cholesky(z.T @ z / (len(z) - 1))
    return torch.linalg.solve_triangular(factor, z.T, upper=False).T


class SSL(Method):
    """An encoder of images that views of one image are alike for; the settings are in `Config`."""

    name = "ssl"
    Config = Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        c = config
        if len(c.shape) != 3:
            raise InputError(f"ssl: random views are of images [C, H, W], got shape {c.shape}")
        if c.batch < 2:
            raise InputError("ssl: a loss between images needs a batch of 2 or more, got 1")
        if c.loss == "w-mse" and (c.batch % c.whiten_size or c.whiten_size <= c.latent_dim):
            raise InputError(
                f"ssl: w-mse needs a batch that divides by whiten_size, which is above latent_dim, "
                f"got {c.batch}, {c.whiten_size} and {c.latent_dim}"
            )
        self.encoder = ResNetEncoder(c.shape[0], widths=c.widths, blocks=c.blocks, head=c.head, out=c.latent_dim)
        self.predictor = projection_head(c.latent_dim, c.head, c.latent_dim, norm=True) if c.loss == "byol" else None
        self.views = Augmentation(c.crop, c.flip, c.jitter, c.grey)

    def encode(self, x: Tensor) -> Tensor:
        """Features before the head, what probes read: images [B, C, H, W] in [−1, 1] -> [B, widths[-1]]."""
        return self.encoder.features(self._checked(x))

    def project(self, x: Tensor) -> Tensor:
        """The normalised latent z = h(x)/‖h(x)‖ that LIEBM's energy is informed by: [B, C, H, W] in [−1, 1] -> [B, latent_dim]."""
        return F.normalize(self.encoder(self._checked(x)), dim=1)

    def _checked(self, x: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != tuple(self.config.shape):
            raise InputError(f"ssl: needs images [B, {', '.join(map(str, self.config.shape))}], got {list(x.shape)}")
        return x

    # --- training

    @property
    def abilities(self) -> frozenset[str]:
        return frozenset({"encode"})

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"encoder": torch.optim.Adam(self.parameters(), lr=self.config.lr, weight_decay=self.config.weight_decay, fused=True)}

    def learning_rate(self, name: str, images: int) -> float:
        """Linear warm-up, then a cosine to zero at `images` of the config."""
        c = self.config
        return warm_up_cosine(images / c.batch, c.warm_up, images / c.images)

    def step(self, batch: Batch, update) -> None:
        views = [self.views(batch.x, update.generator) for _ in range(2)]
        a, b = (self.encoder(view) for view in views)
        update("encoder", self.loss(a, b, views, update.ema))
        update.log(agreement=F.cosine_similarity(a, b, dim=1), spread=F.normalize(a.detach(), dim=1).std(0))

    def loss(self, a: Tensor, b: Tensor, views: list[Tensor], target: "SSL") -> Tensor:
        """The scalar loss of projections a, b [B, d] of two views; `target` is the slow copy that BYOL predicts."""
        c = self.config
        if c.loss == "simclr":
            return nt_xent(a, b, c.temperature)
        if c.loss == "byol":
            target.encoder.train()  # both networks normalise by the batch, as in BYOL's released code
            with torch.no_grad():
                of_a, of_b = (target.encoder(view) for view in views)
            target.encoder.eval()
            return (cosine_distance(self.predictor(a), of_b) + cosine_distance(self.predictor(b), of_a)).mean()
        # one whitening for each view, as in the released code; batches come shuffled, so consecutive images are a random part
        parts = [torch.cat([whiten(part) for part in z.split(c.whiten_size)]) for z in (a, b)]
        return cosine_distance(*parts).mean()

    @torch.no_grad()
    def criterion(self, held_out: Batch, generator: random.Generator) -> float:
        """NT-Xent of two views of held-out images in nats, whatever the loss: low where views agree and images differ."""
        return float(nt_xent(*(self.encoder(self.views(held_out.x, generator)) for _ in range(2)), self.config.temperature))

    def sample(self, n: int, *, seed: int = 0) -> Tensor:
        """Not there: raises InputError."""
        raise InputError("ssl: an encoder has no samples; give its folder to liebm: thalweg train liebm/digits --encoder DIR --out DIR")


# Temperature, projection and views: LIEBM's footnote 1, released code of W-MSE. Widths, lengths and rates of the small ones are ours;
# digits are not mirrored, and keep more of themselves
SSL.PRESETS = {
    "digits": Config(crop=0.5, flip=0.0, images=100_000),
    "fashion-mnist": Config(data="fashion-mnist", shape=(1, 32, 32), widths=(32, 64, 128), images=2_000_000),
    "emoji-google": Config(data="emoji-google", shape=(3, 32, 32), widths=(32, 64, 128), images=1_000_000),
    # ResNet-18 and its released code: Adam 3e-3, batch 512, 1000 epochs for SimCLR
    "cifar10": Config(
        data="hf:uoft-cs/cifar10", shape=(3, 32, 32), widths=(64, 128, 256, 512), blocks=2, head=1024, batch=512, lr=3e-3, warm_up=500,
        images=50_000_000,
    ),
}  # fmt: skip
