"""JEM: a classifier whose logits are also an energy, trained by maximum likelihood (Grathwohl et al., ICLR 2020); a baseline of EGC.

    E(x) = −logsumexp_y f(x)[y],   E(x, y) = −f(x)[y],   p(y | x) = softmax f              (eq. 3–5)
    negative = K steps of Langevin from a replay buffer                                    (Algorithm 1)
    update("net", cross-entropy(f(x), y) + λ (E(x).mean() − E(negative).mean()))           (eq. 6: log p(x, y) = log p(x) + log p(y | x))

The paper's SGLD, x ← x − α ∇E + N(0, σ²) with α = 1, σ = 0.01, is Langevin here with step √(2α) and noise weight σ/step.
"""

import math
from typing import Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional as F

from thalweg import random, sample
from thalweg.data.base import Batch
from thalweg.errors import InputError
from thalweg.methods.base import STRICT, Count, Fraction, Method, NotNegative, Positive, Whole, class_labels, warm_up_cosine
from thalweg.nn.convnet import ConvEnergy
from thalweg.nn.layers import frozen
from thalweg.nn.mlp import MLP
from thalweg.nn.patchnet import PatchNet


@dataclass(frozen=True, config=STRICT)
class Config:
    """Settings of `jem`."""

    data: str = "digits"
    """name of the data that the preset is for"""
    shape: tuple[Count, ...] = (1, 8, 8)
    """shape of one example, [D] or [C, H, W]"""
    classes: Whole = 10
    """number of labels, 2 or more"""
    network: Literal["patch", "convnet", "mlp"] = "patch"
    """`patch` the body of `egc`, `convnet` feed-forward, `mlp` for vectors; none has a normalisation over the batch"""
    width: Count = 64
    """channels (patch, convnet) or hidden units (mlp)"""
    blocks: Count = 4
    """residual blocks (patch), residual blocks per resolution (convnet), hidden layers (mlp)"""
    multipliers: tuple[Count, ...] = (1, 2, 2)
    """channels of the convnet at each resolution, times width"""
    patch: Count = 2
    """side of the patches of the patch network"""
    weight: NotNegative = 1.0
    """λ, weight of −log p(x); 0 trains a plain classifier"""
    steps: Count = 20
    """K, chain steps per update"""
    step: Positive = math.sqrt(2.0)
    """s = √(2α), step of x ← x − s²/2 ∇E + s τ ξ"""
    noise: NotNegative = 0.01 / math.sqrt(2.0)
    """τ = σ/s, weight of the noise: far below 1, so chains are nearly gradient descent"""
    buffer: Count = 10_000
    """chains in the replay buffer"""
    renew: Fraction = 0.05
    """ρ, share of a batch of chains that starts anew from U(−1, 1)"""
    data_noise: NotNegative = 0.03
    """standard deviation of Gaussian noise added to images"""
    sample_steps: Count = 100
    """chain steps for samples from noise"""
    batch: Count = 64
    """images per update"""
    images: Count = 200_000
    """length of training in images; the learning rate falls to zero over it"""
    lr: Positive = 1e-4
    """base learning rate of Adam"""
    warm_up: Whole = 100
    """updates over which the learning rate rises"""
    clip: NotNegative = 1.0
    """bound on the gradient's norm, 0 for none"""
    ema: Fraction = 0.995
    """decay of the EMA twin"""


class JEM(Method):
    """A joint energy model of images and labels; the settings are in `Config`."""

    name = "jem"
    Config = Config
    guarded = ("energy_data", "energy_samples")
    sharded = ("chains",)

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        c = config
        if c.classes < 2:
            raise InputError(f"jem: needs data with 2 labels or more, got {c.classes}")
        if c.network != "mlp" and len(c.shape) != 3:
            raise InputError(f"jem: network = '{c.network}' needs images [C, H, W], got shape {c.shape}; use 'mlp'")
        if c.batch > c.buffer:
            raise InputError(f"jem: a batch of {c.batch} needs as many chains, the buffer holds {c.buffer}; raise buffer or lower batch")
        try:
            if c.network == "mlp":
                self.net = MLP(math.prod(c.shape), width=c.width, depth=c.blocks, out=c.classes)
            elif c.network == "convnet":
                self.net = ConvEnergy(c.shape, widths=tuple(c.width * m for m in c.multipliers), blocks=c.blocks, out=c.classes)
            else:
                self.net = PatchNet(c.shape, out=c.shape[0], vector=c.classes, width=c.width, blocks=c.blocks, patch=c.patch)
        except ValueError as error:
            raise InputError(f"jem: {error}") from None
        self.register_buffer("chains", self._fresh(c.buffer, random.seeded(0)))

    def logits(self, x: Tensor) -> Tensor:
        """f(x)[y], [B, ...] -> [B, classes]: unnormalised log p(x, y)."""
        if self.config.network != "patch":
            return self.net(x).float()
        # the body of egc has a noise level, here always that of clean images, and a map, here unused
        return self.net(x, torch.zeros(len(x), dtype=torch.int64, device=x.device))[1].float()

    def energy(self, x: Tensor, *, label: Tensor | int | None = None) -> Tensor:
        """E(x) = −logsumexp_y f(x)[y], or the joint E(x, y) = −f(x)[y] where a `label` is given, in nats up to log Z: [B, ...] -> [B]."""
        logits = self.logits(x)
        if label is None:
            return -logits.logsumexp(1)
        return -logits.gather(1, class_labels(label, len(x), self.config.classes, x.device)[:, None])[:, 0]

    def classify(self, x: Tensor) -> Tensor:
        """log p(y | x), [B, ...] -> [B, classes]."""
        return self.logits(x).log_softmax(1)

    # --- training

    @property
    def abilities(self) -> frozenset[str]:
        return frozenset({"sample", "energy", "labels", "classify"})

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"net": torch.optim.Adam(self.net.parameters(), lr=self.config.lr, fused=True)}

    def learning_rate(self, name: str, images: int) -> float:
        """Linear warm-up, then a cosine to zero at `images` of the config."""
        c = self.config
        return warm_up_cosine(images / c.batch, c.warm_up, images / c.images)

    def step(self, batch: Batch, update) -> None:
        c, g = self.config, update.generator
        x = batch.x + c.data_noise * random.normal_like(batch.x, g) if c.data_noise else batch.x
        # classes and energies are read from the same logits, data and samples in one batch
        logits = self.logits(torch.cat([x, self._negative(len(x), g, x.device)]) if c.weight else x)
        of_data = logits[: len(x)]
        loss = cross_entropy = F.cross_entropy(of_data, batch.label)
        if c.weight:
            positive, negative = (-logits.logsumexp(1)).chunk(2)
            loss = loss + c.weight * (positive.mean() - negative.mean())
            update.log(energy_data=positive, energy_samples=negative)
        update("net", loss)
        update.log(cross_entropy=cross_entropy, accuracy=(of_data.argmax(1) == batch.label).float())

    def _negative(self, n: int, generator: random.Generator, device: torch.device) -> Tensor:
        """K steps on from rows of the buffer, some of them renewed; written back to the rows that they came from."""
        rows = random.rows(n, len(self.chains), generator=generator, device=device)
        renewed = random.uniform(n, generator=generator, device=device) < self.config.renew
        fresh = self._fresh(n, generator, device)
        start = torch.where(renewed.view(-1, *[1] * len(self.config.shape)), fresh, self.chains[rows])
        self.chains[rows] = negative = self._chain(start, self.config.steps, None, generator)
        return negative

    def _fresh(self, n: int, generator: random.Generator, device: torch.device | None = None) -> Tensor:
        return random.uniform(n, *self.config.shape, low=-1.0, high=1.0, generator=generator, device=device)

    def _chain(self, x: Tensor, steps: int, label: Tensor | None, generator: random.Generator, trace: sample.Trace | None = None) -> Tensor:
        c = self.config
        condition = {} if label is None else {"label": label}
        with frozen(self.net):
            return sample.langevin(self.energy, x, steps=steps, step=c.step, noise=c.noise, generator=generator, trace=trace, **condition)

    def criterion(self, held_out: Batch, generator: random.Generator) -> float:
        """The cross-entropy of held-out data; the likelihood has no value that could be compared."""
        with torch.no_grad():
            return float(F.cross_entropy(self.classify(held_out.x), held_out.label))

    # --- sampling

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        label: Tensor | int | None = None,
        steps: int | None = None,
        fresh: bool = False,
        trace: sample.Trace | None = None,
    ) -> Tensor:
        """`n` samples [n, ...], images clamped to [−1, 1]: chains of the buffer `steps` steps on, by default as many as in training.

        With a `label` (one, or [n]), with `fresh`, and where the buffer is too small, chains start from noise (by default
        `sample_steps`), on E(x, y) where there is a label. Raises InputError for labels that the model does not know.
        """
        c = self.config
        device = self.chains.device
        generator = random.seeded(seed, 1, device=device)
        labels = None if label is None else class_labels(label, n, c.classes, device)
        from_buffer = labels is None and not fresh and n <= len(self.chains)
        if from_buffer:
            start = self.chains[torch.randperm(len(self.chains), generator=generator, device=device)[:n]]
        else:
            start = self._fresh(n, generator, device)
        default = c.steps if from_buffer else c.sample_steps
        x = self._chain(start, default if steps is None else steps, labels, generator, trace)
        return x.clamp(-1, 1).contiguous() if len(c.shape) == 3 else x


JEM.PRESETS = {
    # the body, length and data of egc's presets of the same names, chains and noise as in the paper (sec. 5, appendix A); measured at a
    # fifth of the length, studies/results/egc_classifiers.json
    "digits": Config(lr=1e-3, batch=128),
    # not measured
    "fashion-mnist": Config(
        data="fashion-mnist", shape=(1, 28, 28), width=96, blocks=5, patch=4, lr=3e-4, batch=128, images=6_000_000, ema=0.999
    ),
}
