"""CF-EBM: an energy that grows from coarse images to fine ones, with its chains. docs/methods/cf_ebm.md

    for each stage s, with N images:                                                                   (Algorithm 1)
        E^s(x) = E^{s−1}(β·Primal(x) + (1 − β)·Fade(x)),  β = min(1, 2m/N) after m images of the stage      (sec. 3.2)
        x⁻ = U(−1, 1), or while β < 1  √(1 − β²)·Up(⌈T^{s−1}(1 − β)⌉ steps on E^{s−1}) + β·U(−1, 1)
        x⁻ ← T^s steps of x − ∇E^s(x) + η_t ε                                                          (eq. 3)
        update("energy_<side>", E^s(x⁺).mean() − E^s(x⁻).mean())                                        (eq. 2)

Zhao et al., ICLR 2021. With a `source`, chains start at images of another domain instead, and the trained chain translates them (eq. 4).
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

from thalweg import random
from thalweg.chain import Langevin, measured_back
from thalweg.compiled import Faster
from thalweg.config import STRICT, Common, Count, DataNeeds, Fraction, NotNegative, Positive, Whole
from thalweg.data.base import Batch
from thalweg.data.unpaired import UnpairedBatch
from thalweg.denoising import add_noise, within_reach
from thalweg.errors import InputError
from thalweg.methods.base import Method, Update, check_start
from thalweg.nn.build import ExpandingNet
from thalweg.nn.layers import frozen
from thalweg.objective import contrastive
from thalweg.sample import Constraint, Trace


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Config(Common):
    """Settings of `cf_ebm`. Fields that begin with `stage_` hold one value a stage, from coarse to fine; each stage doubles the side."""

    shape: tuple[Count, Count, Count]
    """shape of one example, [C, H, W]; the last stage's size"""
    source: str = ""
    """name of the source domain's data (sec. 3.3), empty for a model that draws images from noise; `data` is then the target"""
    middle: Whole = 0
    """side in pixels of the middle square that is cut out of pictures before they are resized (sec. A.2: 140 of CelebA's), 0 for none"""
    net: ExpandingNet = ExpandingNet(width=16)
    """the energy's network"""
    coarse_to_fine: bool = True
    """False trains at full size from the start, with the last stage's settings (Table 9, d)"""
    frozen_coarse: bool = False
    """keep a copy of each stage's energy as it was at its end, whose samples are where the next stage's chains start (sec. A.8)"""
    stage_steps: tuple[Count, ...] = (15, 30)
    """T^s, chain steps (sec. A.2)"""
    stage_images: tuple[Count, ...] = (50_000, 100_000)
    """N^s, images of a stage; β = 1 from half of them. The last stage goes on until the run's end (sec. A.2)"""
    stage_lr_factors: tuple[Positive, ...] = (1.0, 1.0)
    """factors of `lr` (sec. A.2)"""
    stage_splits: tuple[Count, ...] = (1, 1)
    """parts that a batch is cut into, each with chains and an update of its own: n^s is `batch` divided by this"""
    carry_optimizer: bool = True
    """Adam's moments of the layers that a stage takes over go on; False begins each stage without any"""
    step: Positive = math.sqrt(2)
    """s; the paper's coefficient of the gradient is s²/2 = 1 (sec. A.2: 1.0, without eq. 3's ½)"""
    chain_noise: NotNegative = 0.02
    """η_0 of the standard deviation η_t = η_0 − η_0/(T − t + 1) of the chain's noise, t = 1 … T (sec. A.2)"""
    data_noise: NotNegative = 0.0
    """standard deviation of Gaussian noise added to data (sec. A.5: none)"""
    compile: Literal[True, False, "auto"] = False
    """compile the step of training chains where no stage fades in; "auto" takes the time of both, at each stage"""
    start_noise: NotNegative = 0.0
    """standard deviation of noise on the batch's own images, where chains then start: a model that denoises; ours, 0 for none"""
    images: Count = 300_000
    """length of training in images, all stages together"""
    warm_up: Whole = 0
    """updates over which learning rates rise"""
    lr_end: Fraction = 1.0
    """share of the learning rates that is left at the end, by a cosine; 1 for constant rates"""
    beta1: Fraction = 0.5
    """Adam's β₁ (sec. A.2)"""
    beta2: Fraction = 0.999
    """Adam's β₂ (sec. A.2)"""
    clip: NotNegative = 0.0
    """bound on each update's gradient norm, 0 for none"""
    ema: Fraction = 0.99
    """decay of the EMA twin: short, as a stage is a few hundred updates"""

    @property
    def data_needs(self) -> DataNeeds:
        return DataNeeds(source=self.source, middle=self.middle)


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
        lengths = {name: len(getattr(c, name)) for name in ("stage_steps", "stage_images", "stage_lr_factors", "stage_splits")}
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
        self.net = c.net.build(c.shape, stages=self.stages)
        kept = self.stages - 1 if c.frozen_coarse else 0
        self.coarse = torch.nn.ModuleList(c.net.build(c.shape, stages=self.stages) for _ in range(kept)).requires_grad_(False)
        self.register_buffer("images", torch.tensor(0))
        self.compiled = torch.nn.ModuleList(Faster() for _ in range(self.stages)) if c.compile == "auto" else [c.compile] * self.stages

    @property
    def abilities(self) -> frozenset[str]:
        found = {"sample", "energy", "denoise", "constraint"}
        found |= {"given", "translate"} if self.config.source else {"given"} if self.config.start_noise else set()
        return frozenset(found)

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

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """That of images, and that of the stage which training has reached."""
        shape = tuple(self.config.shape)
        return shape, (shape[0], *self.net.sizes[self.reached[0]])

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

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """One Adam a stage, of the layers in use: moments of a layer count from its first gradient, not from the run's start."""
        c = self.config
        made = {}
        for stage in range(0 if c.coarse_to_fine else self.stages - 1, self.stages):
            rate, betas = c.lr * c.stage_lr_factors[stage], (c.beta1, c.beta2)
            made[self._optimizer(stage)] = torch.optim.Adam(self.net.parameters_of(stage), lr=rate, betas=betas, fused=True)
        return made

    def _optimizer(self, stage: int) -> str:
        return f"energy_{self.net.sizes[stage][0]}"

    def step(self, batch: Batch | UnpairedBatch, update: Update) -> None:
        c, g = self.config, update.generator
        stage, seen = self.stage_at(update.images)
        self._expand(stage, update)
        self.images.fill_(update.images)
        beta = self.beta(stage, seen)
        energy = partial(self.net, stage=stage, beta=beta)
        for x, given in self._parts(batch, c.stage_splits[stage], g):
            data, trace = self._at_stage(x, stage), Trace()
            data = add_noise(data, c.data_noise, g) if c.data_noise else data
            start = self._start(len(x), stage, seen, g, x.device) if given is None else self._at_stage(given, stage)
            samples = self._chain(self.net, start, stage, g, beta=beta, trace=trace, compile=self._compiled(stage, beta))
            loss, positive, sampled = contrastive(energy, data, samples)
            update(self._optimizer(stage), loss)
            update.log(energy_data=positive, energy_samples=sampled, beta=beta, **trace.figures(data, samples))

    def _parts(self, batch: Batch | UnpairedBatch, count: int, generator: random.Generator) -> Iterator[tuple[Tensor, Tensor | None]]:
        """A batch in `count` parts of images, and of given images where chains start, None for noise.

        Each process's share of the batch gives its part of each.
        """
        c, source = self.config, None
        if c.source:
            if not isinstance(batch, UnpairedBatch):
                raise InputError(f"cf_ebm: a translation from {c.source} needs its images too; train on data.Unpaired")
            source = batch.source
        shares = len(generator) if isinstance(generator, tuple) else 1
        if len(batch.x) % (shares * count):
            raise InputError(f"cf_ebm: a batch of {len(batch.x)} does not divide over {shares} processes and stage_splits of {count}")
        for rows in torch.arange(len(batch.x), device=batch.x.device).view(shares, count, -1).unbind(1):
            x = batch.x[rows.flatten()]
            if c.start_noise:
                yield x, add_noise(x, c.start_noise, generator)
            else:
                yield x, None if source is None else source[rows.flatten()]

    def _expand(self, stage: int, update: Update) -> None:
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

    def _compiled(self, stage: int, beta: float) -> bool | Faster:
        """Whether a stage's chain of training is compiled; not while β changes, which is a constant of what is compiled."""
        return self.compiled[stage] if beta == 1 else False

    def _start(self, n: int, stage: int, seen: int, generator: random.Generator, device: Any, chain_noise: float | None = None) -> Tensor:
        """Where a stage's chains start: smooth sampling (sec. 3.2, ii b), or samples of the frozen coarser stage (sec. A.8)."""

        def uniform(s: int) -> Tensor:
            return random.uniform(n, self.config.shape[0], *self.net.sizes[s], low=-1.0, high=1.0, generator=generator, device=device)

        if stage and self.config.frozen_coarse:
            x = self._start(n, stage - 1, 0, generator, device, chain_noise)
            return F.interpolate(self._chain(self.coarse[stage - 1], x, stage - 1, generator, chain_noise=chain_noise), scale_factor=2.0)
        steps = self.coarse_steps(stage, seen)
        if not steps:
            return uniform(stage)
        x = self._chain(self.net, uniform(stage - 1), stage - 1, generator, steps=steps, chain_noise=chain_noise)
        beta = self.beta(stage, seen)
        return math.sqrt(1 - beta**2) * F.interpolate(x, scale_factor=2.0) + beta * uniform(stage)

    def _chain(
        self,
        net: torch.nn.Module,
        x: Tensor,
        stage: int,
        generator: random.Generator,
        *,
        beta: float = 1.0,
        steps: int | None = None,
        chain_noise: float | None = None,
        **options: Any,
    ) -> Tensor:
        """T steps of x ← x − s²/2·∇E + η_t ε on a stage's energy, clamped to [−1, 1] at the end; T is the stage's unless given."""
        c = self.config
        steps = c.stage_steps[stage] if steps is None else steps
        eta = c.chain_noise if chain_noise is None else chain_noise
        taus = [(eta - eta / (steps - i)) / c.step for i in range(steps)]  # t = i + 1; the last step has no noise
        chain = Langevin(steps=steps, step=c.step, compile=c.compile)
        with frozen(net):
            x = chain(net, x, noise=taus, generator=generator, stage=stage, beta=beta, **options)
        return x.clamp(-1, 1)

    # --- use

    def starts(self, n: int, seed: int = 0) -> dict[str, Tensor]:
        """Test images of the source domain of a translation, or with the noise that a model takes off; for others nothing."""
        from thalweg.data import prepare

        c = self.config
        if not c.source and not c.start_noise:
            return {}
        x = prepare.source_images(self, "test", n, seed) if c.source else prepare.trained_data(self, "test").batch(0, n, seed=seed).x
        return {"start": add_noise(x, c.start_noise, random.seeded(seed, 3)) if c.start_noise else x}

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        steps: int | None = None,
        chain_noise: float | None = None,
        start: Tensor | None = None,
        constraint: Constraint | None = None,
        trace: Trace | None = None,
    ) -> Tensor:
        """`n` images [n, C, H, W] in [−1, 1] by the chain that training ended with: its starts, its stage, its T steps.

        `steps` of the last chain; more than T make a UserWarning, as images oversaturate. `chain_noise` is another η_0 (Figure 16). `start`
        [n, C, H, W] begins at given images, which models that translate or denoise need. `constraint` puts what was measured back into
        the last chain's start and after each step; `trace` follows that chain, in the stage's size. Raises InputError for such models
        without start, bad options, and constraints before the last stage.
        """
        c, device = self.config, self.device
        stage, seen = self.reached
        if (steps is not None and steps < 1) or (chain_noise is not None and not 0 <= chain_noise < math.inf):
            raise InputError(f"cf_ebm: steps must be 1 or more and chain_noise 0 or more, got steps = {steps}, chain_noise = {chain_noise}")
        check_start(self, start, n)
        if start is None and c.source:
            raise InputError(f"cf_ebm: this model translates images of {c.source}; give them as start, or use tasks.translate")
        if start is None and c.start_noise:
            raise InputError("cf_ebm: this model denoises; give images with noise as start, or use tasks.denoise")
        if constraint is not None:
            self._needs_last_stage("a constraint")
        if steps is not None and steps > self.chain_steps:
            warnings.warn(f"cf_ebm: {steps} steps where {self.chain_steps} were trained: samples oversaturate beyond them", stacklevel=2)
        generator = random.seeded(seed, 1, device=device)
        project = measured_back(constraint)
        x = self._start(n, stage, seen, generator, device, chain_noise) if start is None else self._at_stage(start.to(device), stage)
        x = x if project is None else project(x)
        options = dict(beta=self.beta(stage, seen), steps=steps, chain_noise=chain_noise, trace=trace, project=project)
        return self._full_size(self._chain(self.net, x, stage, generator, **options), stage).contiguous()

    @torch.no_grad()
    def denoise(self, y: Tensor, std: float, *, seed: int = 0) -> Tensor:
        """y = x + std·ε moved by the trained chain towards images, [B, C, H, W] -> [B, C, H, W] in [−1, 1] (sec. 4.1, Figure 5).

        The paper's chain starts at y, knows nothing of `std` and goes on to images of its own; ours stays within reach of the noise
        (`denoising.within_reach`). One that was trained with `start_noise` goes where it was trained to, and is best at that `std`. It is
        no posterior mean. Raises InputError for std ≤ 0 and before the last stage.
        """
        if not std > 0:
            raise InputError(f"cf_ebm: denoise needs std above 0, got {std}")
        self._needs_last_stage("denoise")
        stage, seen = self.reached
        project = None if self.config.start_noise else within_reach(y, std)
        generator = random.seeded(seed, 3, device=y.device)
        return self._chain(self.net, y, stage, generator, beta=self.beta(stage, seen), project=project).contiguous()

    def _needs_last_stage(self, what: str) -> None:
        stage, _ = self.reached
        if stage < self.stages - 1:
            now, full = ("×".join(map(str, self.net.sizes[s])) for s in (stage, -1))
            raise InputError(f"cf_ebm: {what} needs images of {full}, and training has reached {now}; train on to the last stage")

    def criterion(self, held_out: Batch | UnpairedBatch, generator: random.Generator) -> float:
        """The energy distance to the held-out images of samples, of translated source images, or of themselves with noise, denoised."""
        from thalweg.evaluate import energy_distance

        c, start = self.config, None
        if c.source:
            if not isinstance(held_out, UnpairedBatch):
                raise InputError(f"cf_ebm: a translation from {c.source} needs held-out images of it too, as an UnpairedBatch")
            start = held_out.source
        elif c.start_noise:
            start = add_noise(held_out.x, c.start_noise, generator)
        x = self.sample(len(held_out.x), seed=1, start=start)
        return float(energy_distance(x.flatten(1), held_out.x.flatten(1)))
