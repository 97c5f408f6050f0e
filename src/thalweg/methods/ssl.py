"""Self-supervised encoders of images: SimCLR, BYOL and W-MSE, the first stage of LIEBM (sec. 3.1 and 4 there). docs/methods/ssl.md

    a, b = h(v(x)), h(v′(x)),  v, v′ ~ V random views
    update("encoder", NT-Xent(a, b))                             SimCLR (Chen et al., ICML 2020, eq. 1)
    update("encoder", 2 − 2 cos(predictor(a), EMA twin's b))     BYOL (Grill et al., NeurIPS 2020, eq. 2)
    update("encoder", 2 − 2 cos(whiten(a), whiten(b)))           W-MSE (Ermolov et al., ICML 2021, eq. 6)

Labels are not used. There is no energy here and there are no samples: `encode` and `project` give vectors.
"""

from typing import Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from thalweg import random
from thalweg.augmentation import RandomViews
from thalweg.config import STRICT, Common, Count, Fraction, NotNegative, Positive
from thalweg.data.base import Batch
from thalweg.errors import InputError
from thalweg.methods.base import Method, Update
from thalweg.nn.build import ResNet
from thalweg.nn.encoder import projection_head
from thalweg.objective import nt_xent
from thalweg.presets import rows


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Config(Common):
    """Settings of `ssl`. Labels are not used in training; probes of the encoder need them."""

    encoder: ResNet = ResNet()
    """h, with its head of d_z values; BYOL's predictor has a head of the same size"""
    augmentation: RandomViews = RandomViews()
    """V, the random views"""
    loss: Literal["simclr", "byol", "w-mse"] = "simclr"
    """what makes two views of an image agree and keeps different images apart"""
    softmax_temperature: Positive = 0.5
    """T of SimCLR's loss, and of the held-out criterion whatever the loss (LIEBM's footnote 1, the released code of W-MSE)"""
    whiten_size: Count = 128
    """images that W-MSE whitens together; batches divide by it, and it is above the values of a latent"""
    batch: Count = 256
    """images per update, 2 or more; SimCLR's other images are those of the batch (in data-parallel runs of the process's share)"""
    lr: Positive = 2e-3
    """base learning rate of Adam"""
    weight_decay: NotNegative = 1e-6
    """of Adam, as in the released code of W-MSE"""
    clip: NotNegative = 0.0
    """bound on each update's gradient norm, 0 for none"""
    ema: Fraction = 0.99
    """decay of the EMA twin, which is BYOL's target"""


# --- losses


def byol(predictor: nn.Module, a: Tensor, b: Tensor, target_a: Tensor, target_b: Tensor) -> Tensor:
    """BYOL's loss, a mean over rows and a sum over both views: each view predicts the target's vector of the other, [B, d] each."""
    return (cosine_distance(predictor(a), target_b) + cosine_distance(predictor(b), target_a)).mean()


def w_mse(a: Tensor, b: Tensor, size: int) -> Tensor:
    """W-MSE's loss, a mean over rows: a, b [B, d] whitened `size` rows at a time, each view by itself, as in the released code.

    Batches come shuffled, so consecutive rows are a random part.
    """
    return cosine_distance(*(torch.cat([whiten(part) for part in z.split(size)]) for z in (a, b))).mean()


def cosine_distance(a: Tensor, b: Tensor) -> Tensor:
    """2 − 2 cos(a, b), the squared distance of directions: [B, d] twice -> [B] (BYOL, eq. 2)."""
    return 2 - 2 * F.cosine_similarity(a, b, dim=1)


def whiten(z: Tensor) -> Tensor:
    """[N, d] with mean 0 and covariance I over its rows, N > d, by the Cholesky factor of its covariance (W-MSE, eq. 5)."""
    z = z - z.mean(0)
    factor = torch.linalg.cholesky(z.T @ z / (len(z) - 1))
    return torch.linalg.solve_triangular(factor, z.T, upper=False).T


class SSL(Method):
    """An encoder of images that is invariant to random views; the settings are in `Config`."""

    name = "ssl"
    Config = Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        c, net = config, config.encoder
        if len(c.shape) != 3:
            raise InputError(f"ssl: random views are of images [C, H, W], got shape {c.shape}")
        if c.batch < 2:
            raise InputError("ssl: a loss between images needs a batch of 2 or more, got 1")
        if c.loss == "w-mse" and (c.batch % c.whiten_size or c.whiten_size <= net.dim):
            raise InputError(
                f"ssl: w-mse needs a batch that divides by whiten_size, which is above dim of encoder, "
                f"got {c.batch}, {c.whiten_size} and {net.dim}"
            )
        self.encoder = net.build(c.shape)
        self.predictor = projection_head(net.dim, net.head, net.dim, norm=True) if c.loss == "byol" else None

    @property
    def abilities(self) -> frozenset[str]:
        return frozenset({"encode"})

    def second_stage(self, run: str) -> str:
        data = self.config.data if self.config.data in rows("liebm") else "digits"
        return f"thalweg train liebm/{data} --pretrained {run} --out runs/liebm"

    def encode(self, x: Tensor) -> Tensor:
        """Features before the head, which probes read: images [B, C, H, W] in [−1, 1] -> [B, widths[-1]]."""
        return self.encoder.features(self._check(x))

    def project(self, x: Tensor) -> Tensor:
        """The normalised latent z = h(x)/‖h(x)‖ by which LIEBM's energy is informed: [B, C, H, W] in [−1, 1] -> [B, d_z]."""
        return F.normalize(self.encoder(self._check(x)), dim=1)

    def _check(self, x: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != tuple(self.config.shape):
            raise InputError(f"ssl: needs images [B, {', '.join(map(str, self.config.shape))}], got {list(x.shape)}")
        return x

    # --- training

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"encoder": torch.optim.Adam(self.parameters(), lr=self.config.lr, weight_decay=self.config.weight_decay, fused=True)}

    def step(self, batch: Batch, update: Update) -> None:
        views = [self.config.augmentation(batch.x, update.generator) for _ in range(2)]
        a, b = (self.encoder(view) for view in views)
        update("encoder", self.loss(a, b, views, update.ema))
        update.log(agreement=F.cosine_similarity(a, b, dim=1), spread=F.normalize(a.detach(), dim=1).std(0))

    def loss(self, a: Tensor, b: Tensor, views: list[Tensor], target: "SSL") -> Tensor:
        """The scalar loss of projections a, b [B, d] of two views; `target` is the slow copy that BYOL predicts."""
        c = self.config
        if c.loss == "simclr":
            return nt_xent(a, b, c.softmax_temperature)
        if c.loss == "w-mse":
            return w_mse(a, b, c.whiten_size)
        target.encoder.train()  # both networks normalise by the batch, as in BYOL's released code
        with torch.no_grad():
            targets = [target.encoder(view) for view in views]
        target.encoder.eval()
        return byol(self.predictor, a, b, *targets)

    @torch.no_grad()
    def criterion(self, held_out: Batch, generator: random.Generator) -> float:
        """NT-Xent of two views of held-out images in nats, whatever the loss: low where views agree and images differ."""
        a, b = (self.encoder(self.config.augmentation(held_out.x, generator)) for _ in range(2))
        return float(nt_xent(a, b, self.config.softmax_temperature))

    def sample(self, n: int, *, seed: int = 0) -> Tensor:
        """Not there: raises InputError."""
        raise InputError("ssl: an encoder has no samples; give its folder to liebm: thalweg train liebm/digits --pretrained DIR --out DIR")
