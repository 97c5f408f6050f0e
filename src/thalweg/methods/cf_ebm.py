"""CF-EBM: an energy that grows from coarse images to fine ones, with its chains (Zhao et al., ICLR 2021).

    for each stage s, with N images:                                                                   (Algorithm 1)
        E^s(x) = E^{s−1}(β·Primal(x) + (1 − β)·Fade(x)),  β = min(1, 2m/N) after m images of the stage
        x⁻ = U(−1, 1), or while β < 1  √(1 − β²)·Up(⌈T^{s−1}(1 − β)⌉ steps on E^{s−1}) + β·U(−1, 1)
        x⁻ ← T^s steps of x − ∇E^s(x) + η_t ε                                                          (eq. 3)
        update("energy_<side>", E^s(x⁺).mean() − E^s(x⁻).mean())                                        (eq. 2)

With a `source`, chains start at images of another domain instead, and the trained chain translates them (eq. 4). With `start_noise`,
which is ours, they start at the batch itself with noise, and the trained chain denoises.
"""

import math
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional as F

from thalweg import random, sample
from thalweg.data.base import Batch
from thalweg.data.unpaired import UnpairedBatch
from thalweg.errors import InputError
from thalweg.methods.base import STRICT, Count, Fraction, Method, NotNegative, Positive, Whole
from thalweg.nn.expanding import ExpandingEnergy
from thalweg.nn.layers import frozen
from thalweg.objective import contrastive


@dataclass(frozen=True, config=STRICT)
class Config:
    """Settings of `cf_ebm`. Fields that begin with `stage_` hold one value a stage, from coarse to fine; each stage doubles the side."""

    data: str = "digits"
    """name of the data that the preset is for; of a translation the target domain"""
    source: str = ""
    """name of the source domain's data (sec. 3.3), empty for a model that draws images from noise"""
    shape: tuple[Count, Count, Count] = (1, 8, 8)
    """shape of one example, [C, H, W]; the last stage's size"""
    classes: Whole = 0
    """number of labels; not used"""
    width: Count = 16
    """c, channel multiplier: 4c channels up to 32 pixels, half as many for each doubling beyond (Table 6)"""
    activation: Literal["silu", "relu", "leaky_relu", "gelu", "celu"] = "silu"
    """Table 8; silu is the paper's Swish"""
    spectral_norm: bool = True
    """bound both convolutions of each Primal block by spectral norm (Table 9)"""
    residual: bool = True
    """residual connections in the Primal blocks (Table 9)"""
    coarse_to_fine: bool = True
    """False trains at full size from the start, with the last stage's settings (Table 9, d)"""
    frozen_coarse: bool = False
    """keep a copy of each stage's energy as it was at its end, whose samples are where the next stage's chains start (sec. A.8)"""
    stage_steps: tuple[Count, ...] = (15, 30)
    """T^s, Langevin steps (sec. A.2)"""
    stage_images: tuple[Count, ...] = (50_000, 100_000)
    """N^s, images of a stage; β = 1 from half of them. The last stage goes on until the run's end (sec. A.2)"""
    stage_lr: tuple[Positive, ...] = (1e-3, 1e-3)
    """α, learning rate of Adam (sec. A.2)"""
    stage_splits: tuple[Count, ...] = (1, 1)
    """parts that a batch is cut into, each with chains and an update of its own: n^s is `batch` divided by this"""
    carry_optimizer: bool = True
    """Adam's moments of the layers that a stage takes over go on; False begins each stage without any"""
    step: Positive = 1.0
    """coefficient of the gradient in x ← x − step·∇E + η_t ε (sec. A.2: 1.0, without eq. 3's ½)"""
    noise: NotNegative = 0.02
    """η_0 of the noise's standard deviation η_t = η_0 − η_0/(T − t + 1), t = 1 … T (sec. A.2)"""
    data_noise: NotNegative = 0.0
    """standard deviation of Gaussian noise added to the images (sec. A.5: none)"""
    start_noise: NotNegative = 0.0
    """standard deviation of noise on the batch's own images, at which chains then start: a model that denoises; ours, 0 for none"""
    batch: Count = 128
    """images that the loop draws at once: the largest n^s"""
    images: Count = 300_000
    """length of training in images, all stages together"""
    beta1: Fraction = 0.5
    """Adam's β₁ (sec. A.2)"""
    beta2: Fraction = 0.999
    """Adam's β₂ (sec. A.2)"""
    clip: NotNegative = 0.0
    """bound on the gradient's norm, 0 for none"""
    ema: Fraction = 0.99
    """decay of the EMA twin: short, as a stage is a few hundred updates"""


class CFEBM(Method):
    """An energy of images that is trained from coarse to fine; the settings are in `Config`.

    The stage is a function of the images seen. Before the last stage is reached `energy` is that of images averaged down to the stage's
    size, and samples are brought up to full size by repeating pixels.
    """

    name = "cf_ebm"
    Config = Config
    guarded = ("energy_data", "energy_samples")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        c = config
        self.stages = len(c.stage_steps)
        lengths = {name: len(getattr(c, name)) for name in ("stage_steps", "stage_images", "stage_lr", "stage_splits")}
        if not self.stages or len(set(lengths.values())) > 1:
            found = ", ".join(f"{name} {count}" for name, count in lengths.items())
            raise InputError(f"cf_ebm: there must be one value a stage in each, got {found}")
        if any(c.batch % count for count in c.stage_splits):
            raise InputError(f"cf_ebm: a batch of {c.batch} does not divide into stage_splits = {c.stage_splits} parts")
        if min(c.stage_images) < c.batch:
            raise InputError(f"cf_ebm: each of stage_images = {c.stage_images} must be a batch of {c.batch} or more")
        if c.source and c.start_noise:
            raise InputError(f"cf_ebm: chains start at images of {c.source} or at images with start_noise, not at both; leave one out")
        if c.frozen_coarse and (c.source or c.start_noise or not c.coarse_to_fine):
            raise InputError(
                "cf_ebm: frozen_coarse starts chains at coarse samples: it needs coarse_to_fine = True, no source and no start_noise"
            )
        try:
            self.net = self._network()
        except ValueError as error:
            raise InputError(f"cf_ebm: {error}") from None
        kept = self.stages - 1 if c.frozen_coarse else 0
        self.coarse = torch.nn.ModuleList(self._network() for _ in range(kept)).requires_grad_(False)
        self.register_buffer("images", torch.tensor(0))

    def _network(self) -> ExpandingEnergy:
        c = self.config
        return ExpandingEnergy(
            c.shape, stages=self.stages, width=c.width, activation=c.activation, spectral_norm=c.spectral_norm, residual=c.residual
        )

    # --- stages

    def stage_at(self, images: int) -> tuple[int, int]:
        """The stage s = 0, 1, … after `images` images of the run, and m, those of the stage among them."""
        if self.config.coarse_to_fine:
            for stage, budget in enumerate(self.config.stage_images[:-1]):
                if images < budget:
                    return stage, images
                images -= budget
        return self.stages - 1, images

    def beta(self, stage: int, seen: int) -> float:
        """β after m = `seen` images of a stage; 1 where there is nothing to fade in. Algorithm 1 misprints it."""
        fades = stage > 0 and self.config.coarse_to_fine
        return min(1.0, 2 * seen / self.config.stage_images[stage]) if fades else 1.0

    def coarse_steps(self, stage: int, seen: int) -> int:
        """⌈T^{s−1}(1 − β)⌉, in whole numbers; 0 where chains start at noise alone."""
        if not stage or not self.config.coarse_to_fine:
            return 0
        budget = self.config.stage_images[stage]
        return -(-self.config.stage_steps[stage - 1] * max(0, budget - 2 * seen) // budget)

    @property
    def reached(self) -> tuple[int, int]:
        """The stage of the last update, and the images it had seen: what energies and samples are of."""
        return self.stage_at(int(self.images))

    @property
    def chain_steps(self) -> int:
        """T, the steps of the chain that samples end with."""
        return self.config.stage_steps[self.reached[0]]

    def _at_stage(self, x: Tensor, stage: int) -> Tensor:
        """Images averaged down to a stage's size; those that have it already are left."""
        factor = x.shape[-1] // self.net.sizes[stage][1]
        return x if factor == 1 else F.avg_pool2d(x, factor)

    def _full_size(self, x: Tensor, stage: int) -> Tensor:
        return F.interpolate(x, scale_factor=2 ** (self.stages - 1 - stage), mode="nearest")

    def energy(self, x: Tensor) -> Tensor:
        """E(x) in nats up to the constant log Z: [B, C, H, W] -> [B].

        Before the last stage it is that stage's energy of x averaged down to its size; x may have that size already.
        """
        stage, seen = self.reached
        return self.net(self._at_stage(x, stage), stage=stage, beta=self.beta(stage, seen))

    # --- training

    @property
    def abilities(self) -> frozenset[str]:
        found = {"sample", "energy", "denoise", "constraint"}
        found |= {"given", "translate"} if self.config.source else {"given"} if self.config.start_noise else set()
        return frozenset(found)

    def starts(self, n: int, seed: int = 0) -> dict[str, Tensor]:
        """Test images of the source domain of a translation, or with the noise that a model takes off; for others nothing."""
        from thalweg import data

        c = self.config
        if not c.source and not c.start_noise:
            return {}
        channels, _, size = c.shape
        x = data.load(c.source or c.data, "test", size=size, channels=channels).batch(0, n, seed=seed).x
        return {"start": x + c.start_noise * random.normal_like(x, random.seeded(seed, 3))}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """One Adam a stage, of the layers in use: moments of a layer count from its first gradient, not from the run's start."""
        c = self.config
        stages = range(0 if c.coarse_to_fine else self.stages - 1, self.stages)
        return {
            self._optimizer(s): torch.optim.Adam(self.net.parameters_of(s), lr=c.stage_lr[s], betas=(c.beta1, c.beta2), fused=True)
            for s in stages
        }

    def _optimizer(self, stage: int) -> str:
        return f"energy_{self.net.sizes[stage][0]}"

    def step(self, batch: Batch | UnpairedBatch, update: Any) -> None:
        c, g = self.config, update.generator
        stage, seen = self.stage_at(update.images)
        self._expand(stage, update)
        self.images.fill_(update.images)
        beta = self.beta(stage, seen)
        energy = partial(self.net, stage=stage, beta=beta)
        for x, source in self._parts(batch, c.stage_splits[stage], g):
            if c.start_noise:
                # each image beside its own chain, so that what the two have in common drops out of the loss
                source = x + c.start_noise * random.normal_like(x, g)
            data = self._at_stage(x, stage)
            data = data + c.data_noise * random.normal_like(data, g) if c.data_noise else data
            trace = sample.Trace()
            with frozen(self.net, self.coarse):
                start = self._start(len(x), stage, seen, g, x.device) if source is None else self._at_stage(source, stage)
                samples = self._chain(self.net, start, stage, g, beta=beta, trace=trace)
            loss, positive, sampled = contrastive(energy, data, samples)
            update(self._optimizer(stage), loss)
            update.log(energy_data=positive, energy_samples=sampled, displacement=trace.displacement, beta=beta)

    def _parts(self, batch: Batch | UnpairedBatch, count: int, generator: random.Generator) -> Iterator[tuple[Tensor, Tensor | None]]:
        """A batch in `count` parts of images and source images; each process's share of the batch gives its part of each."""
        source = None
        if self.config.source:
            if not isinstance(batch, UnpairedBatch):
                raise InputError(f"cf_ebm: a translation from {self.config.source} needs its images too; train on data.Unpaired")
            source = batch.source
        shares = len(generator) if isinstance(generator, tuple) else 1
        if len(batch.x) % (shares * count):
            raise InputError(f"cf_ebm: a batch of {len(batch.x)} does not divide over {shares} processes and stage_splits of {count}")
        for rows in torch.arange(len(batch.x), device=batch.x.device).view(shares, count, -1).unbind(1):
            yield batch.x[rows.flatten()], None if source is None else source[rows.flatten()]

    def _expand(self, stage: int, update: Any) -> None:
        """On entering a stage: hand Adam's moments over, and keep the coarser energy where it is to stay."""
        for left in range(self.reached[0], stage):
            before, after = (update.optimizers[self._optimizer(s)] for s in (left, left + 1))
            if self.config.carry_optimizer:
                shared = {id(p) for p in self.net.parameters_of(left + 1)}
                after.state.update({p: state for p, state in before.state.items() if id(p) in shared})
            before.state.clear()
            if self.config.frozen_coarse:
                # the twin's too: the stage is trained for what starts at this very energy, not at an average of its weights
                for home in (self, update.ema):
                    home.coarse[left].load_state_dict(self.net.state_dict())

    # --- chains

    def _start(self, n: int, stage: int, seen: int, generator: random.Generator, device: Any, noise: float | None = None) -> Tensor:
        """Where a stage's chains start: smooth sampling (sec. 3.2, ii b), or samples of the frozen coarser stage (sec. A.8)."""

        def uniform(s: int) -> Tensor:
            return random.uniform(n, self.config.shape[0], *self.net.sizes[s], low=-1.0, high=1.0, generator=generator, device=device)

        if stage and self.config.frozen_coarse:
            x = self._start(n, stage - 1, 0, generator, device, noise)
            return F.interpolate(self._chain(self.coarse[stage - 1], x, stage - 1, generator, noise=noise), scale_factor=2.0)
        steps = self.coarse_steps(stage, seen)
        if not steps:
            return uniform(stage)
        x = self._chain(self.net, uniform(stage - 1), stage - 1, generator, steps=steps, noise=noise)
        beta = self.beta(stage, seen)
        return math.sqrt(1 - beta**2) * F.interpolate(x, scale_factor=2.0) + beta * uniform(stage)

    def _chain(
        self, net: Any, x: Tensor, stage: int, generator: random.Generator, *, beta: float = 1.0, steps: int | None = None,
        noise: float | None = None, **options: Any,
    ) -> Tensor:  # fmt: skip
        """T steps of x ← x − step·∇E + η_t ε on a stage's energy, clamped to [−1, 1] at the end; T is the stage's unless given."""
        c = self.config
        steps = c.stage_steps[stage] if steps is None else steps
        s, eta = math.sqrt(2 * c.step), c.noise if noise is None else noise  # langevin's gradient coefficient is s²/2, its noise s·τ
        x = x.to(memory_format=torch.channels_last) if x.shape[1] > 1 else x
        taus = [(eta - eta / (steps - i)) / s for i in range(steps)]  # t = i + 1; the last step has none
        x = sample.langevin(net, x, steps=steps, step=s, noise=taus, generator=generator, stage=stage, beta=beta, **options)
        return x.clamp(-1, 1)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        steps: int | None = None,
        noise: float | None = None,
        start: Tensor | None = None,
        constraint: sample.Constraint | None = None,
        trace: sample.Trace | None = None,
    ) -> Tensor:
        """`n` images [n, C, H, W] in [−1, 1] by the chain that training ended with: its starts, its stage, its T steps.

        `steps` of the last chain; more than T make a UserWarning, as images oversaturate. `noise` is another η_0 (Figure 16). `start`
        [n, C, H, W] begins at given images, which models that translate or denoise need. `constraint` puts what was measured back into
        the last chain's start and after each step; `trace` follows that chain, in the stage's size. Raises InputError for such models
        without start, bad options, and constraints before the last stage.
        """
        c, device = self.config, self.images.device
        stage, seen = self.reached
        if (steps is not None and steps < 1) or (noise is not None and not 0 <= noise < math.inf):
            raise InputError(f"cf_ebm: steps must be 1 or more and noise 0 or more, got steps = {steps} and noise = {noise}")
        if start is not None and tuple(start.shape) != (n, *c.shape):
            raise InputError(f"cf_ebm: start must have shape {(n, *c.shape)}, got {tuple(start.shape)}")
        if start is None and c.source:
            raise InputError(f"cf_ebm: this model translates images of {c.source}; give them as start, or use tasks.translate")
        if start is None and c.start_noise:
            raise InputError("cf_ebm: this model denoises; give images with noise as start, or use tasks.denoise")
        if constraint is not None:
            self._needs_last_stage("a constraint")
        if steps is not None and steps > self.chain_steps:
            warnings.warn(f"cf_ebm: {steps} steps where {self.chain_steps} were trained: samples oversaturate beyond them", stacklevel=2)
        generator = random.seeded(seed, 1, device=device)

        def measured_back(x: Tensor) -> Tensor:
            return x if constraint is None else constraint(x, 1.0, 0.0)

        with frozen(self.net, self.coarse):
            x = self._start(n, stage, seen, generator, device, noise) if start is None else self._at_stage(start.to(device), stage)
            x = self._chain(
                self.net, measured_back(x), stage, generator, beta=self.beta(stage, seen), steps=steps, noise=noise, trace=trace,
                project=None if constraint is None else measured_back,
            )  # fmt: skip
        return self._full_size(x, stage).contiguous()

    @torch.no_grad()
    def denoise(self, y: Tensor, std: float, *, seed: int = 0) -> Tensor:
        """y = x + std·ε moved by the trained chain towards images, [B, C, H, W] -> [B, C, H, W] in [−1, 1] (sec. 4.1, Figure 5).

        The paper's chain starts at y, knows nothing of `std` and goes on to images of its own; ours stays within std·√(C·H·W) of y, which
        is how far the clean image lies (Morozov's discrepancy principle). One that was trained with `start_noise` goes where it was
        trained to, and is best at that `std`. It is no posterior mean. Raises InputError for std ≤ 0 and before the last stage.
        """
        if not std > 0:
            raise InputError(f"cf_ebm: denoise needs std above 0, got {std}")
        self._needs_last_stage("denoise")
        stage, seen = self.reached
        radius = std * math.sqrt(y[0].numel())

        def near(x: Tensor) -> Tensor:
            move = x - y
            return y + move * (radius / move.flatten(1).norm(dim=1).view(-1, 1, 1, 1)).clamp(max=1)

        project = None if self.config.start_noise else near
        with frozen(self.net):
            chain = self._chain(self.net, y, stage, random.seeded(seed, 3, device=y.device), beta=self.beta(stage, seen), project=project)
            return chain.contiguous()

    def _needs_last_stage(self, what: str) -> None:
        stage, _ = self.reached
        if stage < self.stages - 1:
            now, full = ("×".join(map(str, self.net.sizes[s])) for s in (stage, -1))
            raise InputError(f"cf_ebm: {what} needs images of {full}, and training has reached {now}; train on to the last stage")

    def criterion(self, held_out: Batch | UnpairedBatch, generator: random.Generator) -> float:
        """The energy distance to the held-out images of samples, of translated source images, or of themselves with noise, denoised."""
        from thalweg.evaluate import energy_distance

        if self.config.source and not isinstance(held_out, UnpairedBatch):
            raise InputError(f"cf_ebm: a translation from {self.config.source} needs held-out images of it too, as an UnpairedBatch")
        start = held_out.source if self.config.source else None
        if self.config.start_noise:
            start = held_out.x + self.config.start_noise * random.normal_like(held_out.x, generator)
        x = self.sample(len(held_out.x), seed=1, start=start)
        return float(energy_distance(x.flatten(1), held_out.x.flatten(1)))


# Ours: sizes and budgets for small images, with the paper's rates, steps and noise; the data noise is ours as well (sec. A.5: none)
_SMALL = dict(width=16, data_noise=0.03, batch=128)
# Sec. A.2, one column a stage: 8, 16, 32, 64, 128 pixels
_PAPER = {
    "stage_steps": (15, 30, 50, 50, 60),
    "stage_images": (50_000, 75_000, 100_000, 125_000, 150_000),
    "stage_lr": (1e-3, 1e-3, 1e-3, 1.2e-3, 1.5e-3),
    "stage_splits": (1, 2, 4, 4, 8),  # batches of 256, 128, 64, 64 and 32
}


def _paper(stages: int, **fields: Any) -> Config:
    """The paper's settings up to a stage; not run here. The run ends with the last stage's budget."""
    columns = {name: values[:stages] for name, values in _PAPER.items()} | fields
    return Config(**({"width": 32, "batch": 256, "images": sum(columns["stage_images"])} | columns))


CFEBM.PRESETS = {
    "digits": Config(data="digits", shape=(1, 8, 8), images=300_000, **_SMALL),
    "fashion-mnist": Config(
        data="fashion-mnist", shape=(1, 28, 28), stage_steps=(15, 30, 50), stage_images=(50_000, 75_000, 100_000),
        stage_lr=(1e-3, 1e-3, 1e-3), stage_splits=(1, 1, 2), images=400_000, **_SMALL,
    ),
    # Ours: from images with noise, few steps with hardly any, at full size from the start by the network of three stages.
    # studies/results/cf_ebm_denoiser_fashion-mnist.json
    "denoise": Config(
        data="fashion-mnist", shape=(1, 28, 28), start_noise=0.2, coarse_to_fine=False, stage_steps=(10,) * 3, stage_images=(16_384,) * 3,
        stage_lr=(1e-3,) * 3, stage_splits=(1,) * 3, width=8, noise=0.002, batch=32, images=16_384, ema=0.995,
    ),
    # from digits in colour on black to digits in colour on colour: what is to be found is the ground
    "translate": Config(data="coloured-digits", source="inked-digits", shape=(3, 8, 8), images=300_000, **_SMALL),
    # studies/results/cf_ebm_translation_fashion-mnist.json; the other way by --source, --target and --size 16
    "translate-shoes": Config(
        data="fashion-mnist:ankle boot", source="fashion-mnist:sneaker", shape=(1, 16, 16), classes=0, width=8, data_noise=0.03, batch=64,
        stage_images=(4096, 8192), images=16_384,
    ),
    # one vendor's emoji in the other's style, measured at 16×16
    "translate-emoji": Config(
        data="emoji-google", source="emoji-twitter", shape=(3, 16, 16), classes=0, width=8, data_noise=0.03, batch=64,
        stage_images=(4096, 8192), images=16_384,
    ),
    "cifar10": _paper(3, data="hf:uoft-cs/cifar10", shape=(3, 32, 32)),
    "celeba-64": _paper(4, data="pictures/", shape=(3, 64, 64)),
    "celebahq-128": _paper(5, data="pictures/", shape=(3, 128, 128)),
    # sec. A.8: 15 steps a stage, η_0 = 0.03, 200,000 iterations, here of 32 images
    "celebahq-128-frozen": _paper(
        5, data="pictures/", shape=(3, 128, 128), frozen_coarse=True, stage_steps=(15,) * 5, noise=0.03, images=6_400_000
    ),
    # sec. A.9.2: c = 16; the paper's 256 pixels have one stage more, whose settings it does not give
    "translate-128": _paper(5, data="target/", source="source/", shape=(3, 128, 128), width=16),
}  # fmt: skip
