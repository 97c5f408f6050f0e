"""JEM: a classifier whose logits are also an energy, by maximum likelihood with persistent chains. docs/methods/jem.md

    E(x) = −logsumexp_y f(x)[y],   E(x, y) = −f(x)[y],   p(y | x) = softmax_y f(x)                       (eq. 3–5)
    negative = chain(E, start)                                   start: rows of a replay buffer        (Algorithm 1)
    update("energy", cross-entropy(f(x⁺), y) + λ (E(x⁺).mean() − E(negative).mean()))
                                                            (eq. 6: log p(x, y) = log p(y | x) + log p(x))

Grathwohl et al., ICLR 2020; a baseline of EGC. The paper's SGLD, x ← x − α ∇E + N(0, σ²) with α = 1, σ = 0.01, is Langevin here with step
√(2α) and noise weight σ/step.
"""

import math
from typing import Any, Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional as F

from thalweg import random
from thalweg.chain import Langevin
from thalweg.compiled import Faster
from thalweg.config import STRICT, Common, Count, Fraction, NotNegative, Positive
from thalweg.data.base import Batch
from thalweg.energy import score
from thalweg.errors import InputError
from thalweg.methods.base import Method, Update, class_labels, finished
from thalweg.nn.build import Network, PatchNet
from thalweg.nn.layers import frozen
from thalweg.replay import DataMixture, GradientStep, Replay
from thalweg.sample import Trace


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Config(Common):
    """Settings of `jem`."""

    net: Network = PatchNet(width=64, blocks=4, patch=2)
    """the classifier f, of which a map is left unused; the level it may take is always that of clean images"""
    likelihood_weight: NotNegative = 1.0
    """λ, weight of −log p(x); 0 trains a plain classifier"""
    chain: Langevin = Langevin(steps=20, step=math.sqrt(2.0), noise=0.01 / math.sqrt(2.0))
    """how chains move: s = √(2α), τ = σ/s, which is far below 1, so that chains are nearly gradient descent"""
    buffer: Count = 10_000
    """chains in the replay buffer"""
    renew: Fraction = 0.05
    """ρ, share of a batch of chains that starts anew from U(−1, 1)"""
    start_law: Literal["uniform", "mixture"] = "uniform"
    """where new chains begin: U(−1, 1), or a mixture of Gaussians that is fitted to the data (JEM++: one a class)"""
    move: NotNegative = 0.0
    """root mean square of the move along the gradient with which a training chain begins, before `clip`: s follows the gradients so that it
    stays the same, and noise has the standard deviation of `chain.step` times `chain.noise` still. 0 for s as it is (ours)"""
    data_noise: NotNegative = 0.03
    """standard deviation of Gaussian noise added to data"""
    sample_steps: Count = 100
    """chain steps for samples from noise"""
    batch: Count = 64
    """images per update"""
    lr: Positive = 1e-4
    """base learning rate of the energy"""
    ema: Fraction = 0.995
    """decay of the EMA twin"""


class JEM(Method):
    """A joint energy model of images and labels; the settings are in `Config`."""

    name = "jem"
    Config = Config
    guarded = ("energy_data", "energy_samples")
    sharded = ("replay.chains", "replay.labels")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        c = config
        if c.classes < 2:
            raise InputError(f"jem: needs data with 2 labels or more, got {c.classes}")
        if c.batch > c.buffer:
            raise InputError(f"jem: a batch of {c.batch} needs as many chains, the buffer holds {c.buffer}; raise buffer or lower batch")
        self.net = c.net.build(c.shape, out=c.classes)
        self.start_law = DataMixture(c.shape) if c.start_law == "mixture" else None
        self.compiled = Faster.of(c.chain)
        self.gradient_step = GradientStep(c.move, c.chain.step) if c.move else None
        self.replay = Replay(c.buffer, self._fresh, renew=c.renew)

    @property
    def abilities(self) -> frozenset[str]:
        return frozenset({"sample", "energy", "labels", "classify"})

    def prepare(self, x: Tensor) -> None:
        """Where new chains begin is taken from the data."""
        if self.start_law is not None:
            self.start_law.fit(x)
            self.replay.begin(self.start_law)

    # --- the density

    def logits(self, x: Tensor) -> Tensor:
        """f(x)[y], [B, ...] -> [B, classes]: unnormalised log p(x, y)."""
        return self.net(x)

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

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"energy": torch.optim.Adam(self.net.parameters(), lr=self.config.lr, fused=True)}

    def step(self, batch: Batch, update: Update) -> None:
        """Algorithm 1."""
        c, g, trace = self.config, update.generator, Trace()
        x = batch.x + c.data_noise * random.normal_like(batch.x, g) if c.data_noise else batch.x
        x = x.clamp(-1, 1) if c.chain.clamp else x
        # classes and energies are read from the same logits, data and samples in one batch
        samples = self._negative(len(x), update, trace) if c.likelihood_weight else x[:0]
        logits = self.logits(torch.cat([x, samples]))
        of_data = logits[: len(x)]
        loss = cross_entropy = F.cross_entropy(of_data, batch.label)
        if c.likelihood_weight:
            positive, negative = (-logits.logsumexp(1)).chunk(2)
            loss = loss + c.likelihood_weight * (positive.mean() - negative.mean())
            update.log(energy_data=positive, energy_samples=negative, **trace.figures(x, samples))
        update("energy", loss)
        update.log(cross_entropy=cross_entropy, accuracy=(of_data.argmax(1) == batch.label).float())

    def _negative(self, n: int, update: Update, trace: Trace | None = None) -> Tensor:
        """`n` chains of the buffer a chain further, some of them renewed before."""
        start, rows = self.replay.start(n, update.generator)
        if self.gradient_step is not None:
            with frozen(self.net):
                self.gradient_step.follow(score(self.energy, start), update)
        negative = self._chain(start, update.generator, trace=trace, compile=self.compiled)
        self.replay.write(rows, negative)
        return negative

    def _fresh(self, n: int, generator: random.Generator, device: Any = None) -> Tensor:
        if self.start_law is not None:
            return self.start_law(random.normal(n, *self.config.shape, generator=generator, device=device))
        return random.uniform(n, *self.config.shape, low=-1.0, high=1.0, generator=generator, device=device)

    def _chain(self, x: Tensor, generator: random.Generator, label: Tensor | None = None, **options: Any) -> Tensor:
        condition = {} if label is None else {"label": label}
        if self.gradient_step is not None:
            options |= self.gradient_step.of(self.config.chain.step, self.config.chain.noise)
        with frozen(self.net):
            return self.config.chain(self.energy, x, generator=generator, **options, **condition)

    def criterion(self, held_out: Batch, generator: random.Generator) -> float:
        """The cross-entropy of held-out data; the likelihood has no value that could be compared."""
        with torch.no_grad():
            return float(F.cross_entropy(self.classify(held_out.x), held_out.label))

    # --- use

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        label: Tensor | int | None = None,
        steps: int | None = None,
        fresh: bool = False,
        trace: Trace | None = None,
    ) -> Tensor:
        """`n` samples [n, ...], images clamped to [−1, 1]: chains of the buffer `steps` steps on, by default as many as in training.

        With a `label` (one, or [n]), with `fresh`, and where the buffer is too small, chains start from noise (by default
        `sample_steps`), on E(x, y) where there is a label. Raises InputError for labels that the model does not know.
        """
        c, device = self.config, self.device
        generator = random.seeded(seed, 1, device=device)
        labels = None if label is None else class_labels(label, n, c.classes, device)
        from_buffer = labels is None and not fresh and n <= len(self.replay)
        start = self.replay.draw(n, generator) if from_buffer else self._fresh(n, generator, device)
        default = c.chain.steps if from_buffer else c.sample_steps
        return finished(self._chain(start, generator, labels, steps=default if steps is None else steps, trace=trace))
