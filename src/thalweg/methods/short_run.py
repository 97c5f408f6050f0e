"""The base method: maximum likelihood with Markov chains. docs/methods/short_run.md

    negative = chain(energy, start)              start: noise (short-run), a replay buffer (persistent), or data (CD-k)
    update("energy", E(x⁺).mean() − E(negative).mean())                                                  (thesis, eq. 2.2)

Nijkamp et al. 2019; Tieleman 2008; thesis, ch. 2. The energy is a network, or a network tilting a Gaussian, E(x) = ‖x‖²/(2 std²) − f(x)
(eq. 2.8): this confines toys and makes the same method a latent-space prior. With labels it models p(x | c) (eq. 2.5).
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from thalweg import random
from thalweg.chain import MALA, Chain, Jump, Langevin, measured_back
from thalweg.compiled import Faster
from thalweg.config import STRICT, Common, Count, Fraction, NotNegative, Positive
from thalweg.data.base import Batch
from thalweg.energy import gaussian, score
from thalweg.errors import InputError
from thalweg.methods.base import Method, Update, check_start, class_labels, finished
from thalweg.nn.build import MLP, Network
from thalweg.nn.layers import frozen
from thalweg.objective import contrastive
from thalweg.replay import AdaptiveStep, DataMixture, GradientStep, Replay
from thalweg.sample import Constraint, Trace, posterior_mean


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Config(Common):
    """Settings of `short_run`."""

    net: Network = MLP(width=128, depth=3)
    """the energy's network"""
    chain: Chain = Langevin(steps=60, step=0.1)
    """how chains move in training"""
    start: Literal["noise", "persistent", "data"] = "persistent"
    """where training chains start: noise (short-run), a replay buffer, or data (CD-k)"""
    start_range: Positive = 1.0
    """start noise is uniform in ± this, or has this standard deviation; with a reference it is drawn from the reference"""
    start_law: Literal["uniform", "normal", "mixture"] = "uniform"
    """where new chains begin: uniform noise, normal noise, or a mixture of Gaussians that is fitted to the data"""
    move: NotNegative = 0.0
    """root mean square of the move along the gradient with which a training chain begins, before `clip`: s follows the gradients so that it
    stays the same, and noise has the standard deviation of `chain.step` times `chain.noise` still. 0 for s as it is (ours)"""
    buffer: Count = 10_000
    """chains in the replay buffer"""
    renew: Fraction = 0.05
    """share of a batch of persistent chains that starts anew from noise"""
    reference_std: NotNegative = 0.0
    """standard deviation of the Gaussian that the network tilts (p0 in eq. 2.8), 0 for a flat reference"""
    conditional: bool = False
    """model p(x | label) instead of p(x)"""
    data_noise: NotNegative = 0.0
    """standard deviation of Gaussian noise added to data"""
    regularise: NotNegative = 0.0
    """α of α (E(x⁺)² + E(x⁻)²)"""
    sample_steps: Count = 1000
    """chain steps for samples"""
    batch: Count = 256
    """images per update"""
    beta1: Fraction = 0.0
    """Adam's β₁"""


class ShortRun(Method):
    """Maximum likelihood by Markov chains; the settings are in `Config`."""

    name = "short_run"
    Config = Config
    guarded = ("energy_data", "energy_samples")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        c = config
        if c.conditional and not c.classes:
            raise InputError("short_run: conditional = True needs data with labels")
        if c.start == "persistent" and c.batch > c.buffer:
            raise InputError(
                f"short_run: a batch of {c.batch} needs as many chains, the buffer holds {c.buffer}; raise buffer or lower batch"
            )
        adjusted = isinstance(c.chain, MALA)
        if adjusted and c.chain.jumps and not c.reference_std:
            raise InputError("short_run: jumps are drawn from the Gaussian reference; set reference_std above 0, or jumps = 0")
        if c.reference_std and c.start_law != "uniform":
            raise InputError("short_run: with a reference new chains begin at its draws; leave start_law = 'uniform', or reference_std = 0")
        if c.move and adjusted:
            raise InputError("short_run: move needs a chain of kind 'langevin'; a step of MALA adapts by target_acceptance")
        classes = c.classes if c.conditional else 0
        self.start_law = DataMixture(c.shape) if c.start_law == "mixture" else None
        self.compiled = Faster.of(c.chain)
        self.net = c.net.build(c.shape, classes=classes)
        self.replay = Replay(c.buffer, self._fresh, renew=c.renew, classes=classes) if c.start == "persistent" else None
        self.sharded = ("replay.chains", "replay.labels") if self.replay is not None else ()
        self.gradient_step = GradientStep(c.move, c.chain.step) if c.move else None
        first, target = c.chain.step, c.chain.target_acceptance if adjusted else 0.0
        self.step_size = AdaptiveStep(first, target, low=1e-3 * first, high=10 * first) if adjusted else None

    @property
    def clamped(self) -> bool:
        """Whether chains, and so the data that they learn from, are kept in [−1, 1]."""
        return isinstance(self.config.chain, Langevin) and self.config.chain.clamp

    @property
    def abilities(self) -> frozenset[str]:
        c = self.config
        found = {"sample", "energy"} | ({"labels"} if c.conditional else {"denoise"})
        return frozenset(found | ({"constraint"} if isinstance(c.chain, Langevin) else set()))

    def prepare(self, x: Tensor) -> None:
        """Where new chains begin is taken from the data."""
        if self.start_law is not None:
            self.start_law.fit(x)
            if self.replay is not None:
                self.replay.begin(self.start_law)

    # --- the density

    def energy(self, x: Tensor, *, label: Tensor | None = None) -> Tensor:
        """E(x), or E(x | label) of a conditional model, in nats up to the constant log Z: [B, ...] -> [B]."""
        value = self.net(x, label=label) if self.config.conditional else self.net(x)
        return value + gaussian(x, self.config.reference_std) if self.config.reference_std else value

    # --- training

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        c = self.config
        return {"energy": torch.optim.Adam(self.net.parameters(), lr=c.lr, betas=(c.beta1, 0.999), fused=True)}

    def step(self, batch: Batch, update: Update) -> None:
        c, g, trace = self.config, update.generator, Trace()
        x = self._noised(batch.x, g)
        label = batch.label if c.conditional else None
        start, rows, label_negative = self._start(x, label, g)
        if self.gradient_step is not None:
            with frozen(self.net):
                self.gradient_step.follow(score(self.energy, start, **({} if label is None else {"label": label_negative})), update)
        negative = self._chain(start, label_negative, g, trace=trace, compile=self.compiled)
        if rows is not None:
            self.replay.write(rows, negative)
        # data and samples pass in one batch, each with its own labels
        both = None if label is None else torch.cat([label, label_negative])
        loss, positive, sampled = contrastive(self.energy, x, negative, both, regularise=c.regularise)
        update("energy", loss)
        update.log(energy_data=positive, energy_samples=sampled, **trace.figures(x, negative))
        if self.step_size is not None:
            self.step_size.adapt(trace, update)

    def _noised(self, x: Tensor, generator: random.Generator) -> Tensor:
        """Data as the energy sees them: with their noise, and within [−1, 1] where chains are."""
        c = self.config
        x = x + c.data_noise * random.normal_like(x, generator) if c.data_noise else x
        return x.clamp(-1, 1) if self.clamped else x

    def _fresh(self, n: int, generator: random.Generator, device: Any = None) -> Tensor:
        c = self.config
        if self.start_law is not None:
            return self.start_law(random.normal(n, *c.shape, generator=generator, device=device))
        if c.reference_std:
            return c.reference_std * random.normal(n, *c.shape, generator=generator, device=device)
        if c.start_law == "normal":
            return c.start_range * random.normal(n, *c.shape, generator=generator, device=device)
        return random.uniform(n, *c.shape, low=-c.start_range, high=c.start_range, generator=generator, device=device)

    def _start(self, x: Tensor, label: Tensor | None, generator: random.Generator) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Where chains start, the buffer rows they came from (or None), and their labels (or None)."""
        if self.config.start == "data":
            return x, None, label
        if self.replay is None:
            return self._fresh(len(x), generator, x.device), None, label
        start, rows = self.replay.start(len(x), generator)
        return start, rows, None if label is None else self.replay.labels[rows]

    def _chain(self, x: Tensor, label: Tensor | None, generator: random.Generator, **options: Any) -> Tensor:
        c, device = self.config, x.device
        if self.step_size is not None:
            jump = Jump(lambda n: self._fresh(n, generator, device), lambda x: gaussian(x, c.reference_std)) if c.reference_std else None
            options |= {"step": float(self.step_size.size), "jump": jump}
        if self.gradient_step is not None and isinstance(c.chain, Langevin):
            options |= self.gradient_step.of(c.chain.step, c.chain.noise)
        condition = {} if label is None else {"label": label}
        with frozen(self.net):
            return c.chain(self.energy, x, generator=generator, **options, **condition)

    # --- use

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        steps: int | None = None,
        label: Tensor | int | None = None,
        fresh: bool = False,
        denoise: bool = True,
        constraint: Constraint | None = None,
        start: Tensor | None = None,
    ) -> Tensor:
        """`n` chains of `steps` steps: [n, ...]. A persistent model starts at its replay buffer, unless `fresh` asks for noise.

        A short-run model (start = "noise") is a sampler of its own with exactly the trained number of steps, its default.
        A model of noised data (`data_noise` σ) has its samples' noise taken off by Tweedie's formula, x + σ²·score(x), if `denoise`; not
        one whose chains are clamped, as are its data.
        `constraint` puts what was measured back, with signal 1 and noise 0, into the start, after each step and into what was
        denoised; it needs a chain of kind "langevin". `start` gives the chains' start [n, ...] itself.
        """
        c, device = self.config, self.device
        check_start(self, start, n)
        generator = random.seeded(seed, 1, device=device)
        label = self._labels(label, n, device)
        if start is not None:
            start = start.to(device)
        elif self.replay is not None and not fresh and n <= len(self.replay) and label is None:
            start = self.replay.draw(n, generator)
        else:
            start = self._fresh(n, generator, device)
        # noise 0 also where the model is of noised data: noise on what is known would only widen the conditional
        project: Callable[[Tensor], Tensor] | None = measured_back(constraint)
        start = start if project is None else project(start)
        default = c.chain.steps if c.start == "noise" else c.sample_steps
        x = self._chain(start, label, generator, steps=default if steps is None else steps, project=project)
        if denoise and c.data_noise and not self.clamped:
            with frozen(self.net):
                x = x + c.data_noise**2 * score(self.energy, x, **({} if label is None else {"label": label}))
            x = x if project is None else project(x)
        return finished(x)

    @torch.no_grad()
    def denoise(self, y: Tensor, std: float, *, steps: int = 100, seed: int = 0) -> Tensor:
        """An estimate of the expectation of x given y = x + std·ε, [B, ...] -> [B, ...].

        The mean over the second half of one Langevin chain of `steps` steps from y on the posterior energy E(x) + ‖y − x‖²/(2 std²).
        A model of noised data has its own noise taken off by Tweedie's formula, which for std ≤ `data_noise` is all that is done.
        Raises InputError for std ≤ 0, and for conditional models.
        """
        own = self.config.data_noise
        if not std > 0 or self.config.conditional:
            raise InputError(f"short_run: denoise needs std above 0 (got {std}) and an unconditional model")
        with frozen(self.net):
            if std <= own:
                return y + std**2 * score(self.energy, y)
            width = math.sqrt(std**2 - own**2)  # of y about the noised image that the model knows
            step = min(self.config.chain.step, width / 2)
            generator = random.seeded(seed, 3, device=y.device)
            x = posterior_mean(self.energy, y, width, steps=steps, step=step, generator=generator)
            return x + own**2 * score(self.energy, x) if own else x

    def _labels(self, label: Tensor | int | None, n: int, device: torch.device) -> Tensor | None:
        c = self.config
        if not c.conditional:
            if label is not None:
                raise InputError("this short_run model is unconditional: it takes no label")
            return None
        return class_labels(torch.arange(n) % c.classes if label is None else label, n, c.classes, device)
