"""The base method: maximum likelihood with Markov chains (thesis, ch. 2; Nijkamp et al. 2019; Tieleman 2008).

    negative = chain(energy, start)              start: noise (short-run), a replay buffer (persistent), or data (CD-k)
    update("energy", E(x⁺).mean() − E(negative).mean())

The energy is a network, or a network tilting a Gaussian, E(x) = ‖x‖²/(2 std²) − f(x) (thesis, eq. 2.8): this confines toys
and makes the same method a latent-space prior. With labels it models p(x | c) (eq. 2.5).
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from thalweg import random, sample
from thalweg.data.base import Batch
from thalweg.energy import gaussian, score
from thalweg.errors import InputError
from thalweg.methods.base import STRICT, Count, Fraction, Method, NotNegative, Positive, Whole, class_labels, warm_up_cosine
from thalweg.nn.convnet import ConvEnergy
from thalweg.nn.layers import frozen
from thalweg.nn.mlp import MLP
from thalweg.objective import contrastive


@dataclass(frozen=True, config=STRICT)
class Config:
    """Settings of `short_run`."""

    data: str = "8gaussians"
    """name of the data that the preset is for"""
    shape: tuple[Count, ...] = (2,)
    """shape of one example, [D] or [C, H, W]"""
    classes: Whole = 0
    """number of labels, 0 where there are none"""
    conditional: bool = False
    """model p(x | label) instead of p(x)"""
    network: Literal["mlp", "convnet"] = "mlp"
    """`mlp` for vectors and small images, `convnet` for images"""
    width: Count = 128
    """hidden units of the mlp"""
    depth: Count = 3
    """hidden layers of the mlp"""
    widths: tuple[Count, ...] = (32, 64, 96, 128)
    """channels of the convnet at each resolution"""
    blocks: Whole = 0
    """residual blocks of the convnet at each resolution"""
    spectral_norm: bool = False
    """bound the convnet's layers by spectral norm"""
    reference_std: NotNegative = 0.0
    """standard deviation of the Gaussian that the network tilts (p0 in eq. 2.8), 0 for a flat reference"""
    start: Literal["noise", "persistent", "data"] = "persistent"
    """where training chains start: noise (short-run), a replay buffer, or data (CD-k)"""
    start_range: Positive = 1.0
    """start noise is uniform in ± this; with a reference it is drawn from the reference"""
    buffer: Count = 10_000
    """chains in the replay buffer"""
    renew: Fraction = 0.05
    """share of a batch of persistent chains that starts anew from noise"""
    sampler: Literal["langevin", "mala"] = "langevin"
    """unadjusted or Metropolis-adjusted Langevin"""
    steps: Count = 60
    """K, chain steps per update"""
    step: Positive = 0.1
    """s, step of x ← x − s²/2 ∇E + s τ ξ"""
    noise: NotNegative = 1.0
    """τ, weight of the noise (1: exact dynamics)"""
    clip_move: NotNegative = 0.0
    """bound on each element of the gradient's move, 0 for none"""
    clamp: bool = False
    """keep chains in [−1, 1]"""
    target_acceptance: Fraction = 0.0
    """MALA's step adapts towards this acceptance, 0 for a fixed step"""
    jumps: Whole = 0
    """proposals from the reference after every `jump_every` chain steps (needs reference_std): chains then mix between modes"""
    jump_every: Count = 10
    """chain steps between jumps"""
    data_noise: NotNegative = 0.0
    """standard deviation of Gaussian noise added to data"""
    regularise: NotNegative = 0.0
    """α of α (E(x⁺)² + E(x⁻)²)"""
    compile: bool = False
    """compile the step of training chains: a wait at the start, then Langevin on images is faster (docs/benchmarks.md)"""
    sample_steps: Count = 1000
    """chain steps for samples"""
    batch: Count = 256
    """images per update"""
    images: Count = 1_000_000
    """length of training in images; the learning rate falls to zero over it"""
    lr: Positive = 1e-3
    """base learning rate of Adam"""
    beta1: Fraction = 0.0
    """Adam's β₁"""
    warm_up: Whole = 100
    """updates over which the learning rate rises"""
    clip: NotNegative = 1.0
    """bound on the gradient's norm, 0 for none"""
    ema: Fraction = 0.999
    """decay of the EMA twin"""


class ShortRun(Method):
    """Maximum likelihood by Markov chains; the settings are in `Config`."""

    name = "short_run"
    Config = Config
    guarded = ("energy_data", "energy_samples")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        c = config
        classes = c.classes if c.conditional else 0
        if c.conditional and not c.classes:
            raise InputError("short_run: conditional = True needs data with labels")
        if c.network == "convnet":
            if len(c.shape) != 3:
                raise InputError(f"short_run: network = 'convnet' needs images [C, H, W], got shape {c.shape}")
            try:
                self.net = ConvEnergy(c.shape, widths=c.widths, blocks=c.blocks, classes=classes, spectral_norm=c.spectral_norm)
            except ValueError as error:
                raise InputError(f"short_run: {error}") from None
        else:
            self.net = MLP(math.prod(c.shape), width=c.width, depth=c.depth, classes=classes)
        if c.start == "persistent" and c.batch > c.buffer:
            raise InputError(
                f"short_run: a batch of {c.batch} needs as many chains, the buffer holds {c.buffer}; raise buffer or lower batch"
            )
        if c.jumps and not c.reference_std:
            raise InputError("short_run: jumps are drawn from the Gaussian reference; set reference_std above 0, or jumps = 0")
        if c.compile and c.sampler == "mala":
            raise InputError("short_run: compile = True is for sampler = 'langevin'")
        if c.start == "persistent":
            self.sharded = ("chains", "chain_labels")
            self.register_buffer("chains", self._fresh(c.buffer, random.seeded(0)))
            self.register_buffer("chain_labels", torch.arange(c.buffer) % max(1, classes))
        self.register_buffer("step_size", torch.tensor(c.step))

    def energy(self, x: Tensor, *, label: Tensor | None = None) -> Tensor:
        """E(x), or E(x | label) of a conditional model, in nats up to the constant log Z: [B, ...] -> [B]."""
        value = self.net(x, label=label) if self.config.conditional else self.net(x)
        return value + gaussian(x, self.config.reference_std) if self.config.reference_std else value

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        c = self.config
        return {"energy": torch.optim.Adam(self.net.parameters(), lr=c.lr, betas=(c.beta1, 0.999), fused=True)}

    def learning_rate(self, name: str, images: int) -> float:
        """Linear warm-up, then a cosine to zero at `images` of the config."""
        c = self.config
        return warm_up_cosine(images / c.batch, c.warm_up, images / c.images)

    def step(self, batch: Batch, update) -> None:
        c = self.config
        data = batch.x + c.data_noise * random.normal_like(batch.x, update.generator) if c.data_noise else batch.x
        label = batch.label if c.conditional else None
        start, rows, label_negative = self._start(data, label, update.generator)
        trace = sample.Trace()
        with frozen(self.net):
            negative = self._chain(start, c.steps, label_negative, update.generator, trace, compile=c.compile)
        if rows is not None:
            self.chains[rows] = negative
        self._adapt(trace, update)
        # data and samples pass in one batch, each with its own labels
        both = None if label is None else torch.cat([label, label_negative])
        loss, positive, sampled = contrastive(self.energy, data, negative, both, regularise=c.regularise)
        update("energy", loss)
        update.log(energy_data=positive, energy_samples=sampled, displacement=trace.displacement, step_size=self.step_size)
        if trace.acceptance is not None:
            update.log(acceptance=trace.acceptance)

    def _fresh(self, n: int, generator: random.Generator, device=None) -> Tensor:
        c = self.config
        if c.reference_std:
            return c.reference_std * random.normal(n, *c.shape, generator=generator, device=device)
        return random.uniform(n, *c.shape, low=-c.start_range, high=c.start_range, generator=generator, device=device)

    def _start(self, data: Tensor, label: Tensor | None, generator: random.Generator) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Where chains start, the buffer rows they came from (or None), and their labels (or None)."""
        n = len(data)
        if self.config.start == "data":
            return data, None, label
        fresh = self._fresh(n, generator, data.device)
        if self.config.start == "noise":
            return fresh, None, label
        # without replacement, and written back to the rows they came from: no chain is ever copied over another
        rows = random.rows(n, len(self.chains), generator=generator, device=data.device)
        renewed = random.uniform(n, generator=generator, device=data.device) < self.config.renew
        start = torch.where(renewed.view(-1, *[1] * (data.dim() - 1)), fresh, self.chains[rows])
        return start, rows, None if label is None else self.chain_labels[rows]

    def _chain(
        self,
        x: Tensor,
        steps: int,
        label: Tensor | None,
        generator: random.Generator,
        trace: sample.Trace | None = None,
        *,
        project: Callable[[Tensor], Tensor] | None = None,
        compile: bool = False,
    ) -> Tensor:
        c = self.config
        condition = {} if label is None else {"label": label}
        if c.network == "convnet" and x.shape[1] > 1:
            x = x.to(memory_format=torch.channels_last)

        def walk(x: Tensor, steps: int) -> Tensor:
            common = dict(steps=steps, generator=generator, trace=trace, **condition)
            if c.sampler == "mala":
                return sample.mala(self.energy, x, step=float(self.step_size), **common)
            clamp = (-1.0, 1.0) if c.clamp else None
            return sample.langevin(
                self.energy,
                x,
                step=c.step,
                noise=c.noise,
                clip=c.clip_move or None,
                clamp=clamp,
                project=project,
                compile=compile,
                **common,
            )

        if not c.jumps:
            return walk(x, steps)
        device = x.device

        def propose(n: int) -> Tensor:
            return self._fresh(n, generator, device)

        def reference(x: Tensor) -> Tensor:
            return gaussian(x, c.reference_std)

        for done in range(0, steps, c.jump_every):
            x = walk(x, min(c.jump_every, steps - done))
            x = sample.independence(
                self.energy, x, propose=propose, proposal_energy=reference, steps=c.jumps, generator=generator, **condition
            )
        return x

    def _adapt(self, trace: sample.Trace, update) -> None:
        """Move MALA's step towards the wanted acceptance, the same on every rank."""
        c = self.config
        if c.target_acceptance and trace.acceptance is not None:
            excess = update.mean(trace.acceptance.mean()) - c.target_acceptance
            self.step_size.mul_(torch.exp(0.1 * excess)).clamp_(1e-3 * c.step, 10 * c.step)

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
        constraint: sample.Constraint | None = None,
        start: Tensor | None = None,
    ) -> Tensor:
        """`n` chains of `steps` steps: [n, ...]. A persistent model starts at its replay buffer, unless `fresh` asks for noise.

        A short-run model (start = "noise") is a sampler of its own with exactly the trained number of steps, its default.
        A model of noised data (`data_noise` σ) has its samples' noise taken off by Tweedie's formula, x + σ²·score(x), if `denoise`.
        `constraint` puts what was measured back, with signal 1 and noise 0, into the start, after each step and into what was
        denoised; it needs sampler = "langevin" without jumps. `start` gives the chains' start [n, ...] itself.
        """
        c = self.config
        device = self.step_size.device
        if constraint is not None and (c.sampler != "langevin" or c.jumps):
            raise InputError(
                "short_run: a constraint needs sampler = 'langevin' and jumps = 0, "
                f"this model has sampler = '{c.sampler}' and jumps = {c.jumps}"
            )
        if start is not None and tuple(start.shape) != (n, *c.shape):
            raise InputError(f"short_run: start must have shape {(n, *c.shape)}, got {tuple(start.shape)}")
        generator = random.seeded(seed, 1, device=device)
        default = c.steps if c.start == "noise" else c.sample_steps
        label = self._labels(label, n, device)
        if start is not None:
            start = start.to(device)
        elif c.start == "persistent" and not fresh and n <= c.buffer and label is None:
            start = self.chains[torch.randperm(c.buffer, generator=generator, device=device)[:n]]
        else:
            start = self._fresh(n, generator, device)

        def measured_back(x: Tensor) -> Tensor:
            # noise 0 also where the model is of noised data: noise on what is known would only widen the conditional
            return x if constraint is None else constraint(x, 1.0, 0.0)

        project = None if constraint is None else measured_back
        with frozen(self.net):
            start = measured_back(start)
            x = self._chain(start, default if steps is None else steps, label, generator, project=project)
            if denoise and c.data_noise:
                x = x + c.data_noise**2 * score(self.energy, x, **({} if label is None else {"label": label}))
                x = measured_back(x)
        return x.clamp(-1, 1).contiguous() if len(c.shape) == 3 else x

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
        if std <= own:
            with frozen(self.net):
                return y + std**2 * score(self.energy, y)
        width = math.sqrt(std**2 - own**2)  # of y about the noised image that the model knows
        with frozen(self.net):
            step = min(self.config.step, width / 2)
            generator = random.seeded(seed, 3, device=y.device)
            x = sample.posterior_mean(self.energy, y, width, steps=steps, step=step, generator=generator)
            return x + own**2 * score(self.energy, x) if own else x

    def _labels(self, label: Tensor | int | None, n: int, device: torch.device) -> Tensor | None:
        c = self.config
        if not c.conditional:
            if label is not None:
                raise InputError("this short_run model is unconditional: it takes no label")
            return None
        return class_labels(torch.arange(n) % c.classes if label is None else label, n, c.classes, device)


# Toys: Metropolis-adjusted chains, because an unadjusted step of 0.1 widens a mode of std 0.15 by 12 % and the energy absorbs it;
# jumps from the reference, because chains that cannot cross between modes leave the modes' weights undetermined, behind samples
# that look right (docs/design.md).
_TOY = dict(sampler="mala", steps=10, reference_std=2.0, jumps=2, buffer=256, renew=0.0, batch=256, images=750_000, sample_steps=200)
# Images: unadjusted Langevin at full noise from a replay buffer. Ours: samples of digits looked at, settings not swept.
_IMAGE = dict(
    network="convnet", clip=1.0, start="persistent", steps=20, step=0.2, renew=0.05, data_noise=0.2, lr=3e-4, batch=128, sample_steps=200
)

PRESETS: dict[str, Config] = {
    "8gaussians": Config(data="8gaussians", **_TOY),
    "25gaussians": Config(data="25gaussians", step=0.05, **_TOY),
    "pinwheel": Config(data="pinwheel", **_TOY),
    "swissroll": Config(data="swissroll", **_TOY),
    "spiral": Config(data="spiral", **_TOY),
    "rings": Config(data="rings", **_TOY),
    "moons": Config(data="moons", **_TOY),
    "checkerboard": Config(data="checkerboard", **_TOY),
    "digits": Config(data="digits", shape=(1, 8, 8), buffer=5_120, images=400_000, **_IMAGE),
    "digits-conditional": Config(data="digits", shape=(1, 8, 8), classes=10, buffer=5_120, images=400_000, conditional=True, **_IMAGE),
    # 28 pixels halve twice
    "fashion-mnist": Config(data="fashion-mnist", shape=(1, 28, 28), widths=(32, 64, 128), buffer=10_240, images=2_000_000, **_IMAGE),
    # a latent-space prior p(z) ∝ exp(f(z)) N(z; 0, I) (thesis, sec. 2.2.3): from Python, on any Data of vectors
    "latent": Config(
        data="gaussian", reference_std=1.0, start="noise", steps=60, step=0.4, batch=128, lr=2e-5, beta1=0.5, images=5_000_000
    ),
    # the non-convergent short run of Nijkamp et al. 2019 in the terms of this file: noise starts, K = 100, noise of std 0.03 on data
    "cifar10": Config(
        data="hf:uoft-cs/cifar10", shape=(3, 32, 32), classes=10, network="convnet", widths=(64, 128, 256, 512), start="noise",
        steps=100, step=0.01, noise=1.0, data_noise=0.03, lr=1e-4, batch=128, images=10_000_000,
    ),
}  # fmt: skip
ShortRun.PRESETS = PRESETS
