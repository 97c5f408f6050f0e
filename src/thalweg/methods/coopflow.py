"""CoopFlow: a normalizing flow and a Langevin flow that teach each other. docs/methods/coopflow.md

    x̂ = g_α(z),  z ~ N(0, I)                                                             (Algorithm 3; thesis, eq. 4.4)
    x̃ = T Langevin steps from x̂                                                                              (eq. 4.2)
    update("initializer", −log q_α(x̃).mean())                                                                (eq. 4.5)
    update("energy", E(x).mean() − E(x̃).mean())                                                              (eq. 2.2)

Thesis, ch. 4; Xie et al., ICLR 2022. Nothing is differentiated through the chain. With an initializer of kind "generator" this is CoopNets
(Xie et al. 2020), of kind "noise" the Langevin flow alone (Nijkamp et al. 2019); with no steps it is the normalizing flow alone, which
learns from the data.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass as plain
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from thalweg import random
from thalweg.augmentation import Augmentation, augmented
from thalweg.chain import Langevin, measured_back
from thalweg.compiled import Faster
from thalweg.config import STRICT, Common, Fraction, NotNegative, Positive, Whole
from thalweg.data.base import Batch
from thalweg.data.regions import random_regions
from thalweg.energy import gaussian, score
from thalweg.errors import InputError
from thalweg.methods.base import Method, Update, check_start, finished
from thalweg.nn.build import MLP, ConvNet, Own, PooledNet
from thalweg.nn.initializers import Flow, Initializer
from thalweg.nn.layers import frozen
from thalweg.objective import contrastive
from thalweg.sample import Constraint, Trace
from thalweg.search import fit_latent


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Config(Common):
    """Settings of `coopflow`."""

    net: Annotated[MLP | ConvNet | PooledNet | Own, Field(discriminator="kind")] = MLP(width=128, depth=3)
    """the energy's network; `pooled` is the paper's (Table 4.3)"""
    reference_std: NotNegative = 0.0
    """standard deviation of the Gaussian that the network tilts (eq. 4.9), 0 for a flat reference"""
    initializer: Initializer = Flow()
    """what chains start at: a normalizing flow, a generator (CoopNets), or noise (the Langevin flow alone)"""
    chain: Langevin = Langevin(steps=30, step=0.03, noise=0.0, clip=0.1, clamp=True)
    """the Langevin flow; 0 steps for the normalizing flow alone, which then learns from the data"""
    step_ratio: Positive = 4 / 3
    """what the chain's step is multiplied by for samples (Table 4.4)"""
    noise_decay: Whole = 0
    """K in images: the chain's noise falls as (1 − images/K)^20 in training, and samples have none (eq. 4.14); 0 for constant noise"""
    augmentation: Augmentation | None = None
    """random changes of training images, as the mirror images of sec. 4.5.2; None for images as they are"""
    known_share: Fraction = 0.0
    """share of training chains that begin with all but a rectangle of a training image, and hold it: ours, for completions"""
    pretrain: Whole = 0
    """images on which the flow first learns alone, from the data ("Pre")"""
    warm_up_energy: Whole = 0
    """images after that on which the energy learns alone"""
    lr: Positive = 1e-4
    """base learning rate of the energy's Adam"""
    beta1: Fraction = 0.5
    """β₁ of the energy's Adam"""
    beta2: Fraction = 0.5
    """β₂ of the energy's Adam"""
    lr_initializer: Positive = 1e-4
    """base learning rate of the initializer's Adam"""


@plain(frozen=True, eq=False)
class Reconstruction:
    """What `CoopFlow.reconstruct` found: images F(x̂), the chains' starts x̂, and the flow's latents g⁻¹(x̂) (None without a flow)."""

    x: Tensor
    start: Tensor
    latent: Tensor | None


class CoopFlow(Method):
    """An energy whose short chains start at a flow that learns from where they end; the settings are in `Config`."""

    name = "coopflow"
    Config = Config
    guarded = ("energy_data", "energy_samples")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        c = config
        kind = c.initializer.kind
        if not c.chain.steps and kind != "flow":
            raise InputError(f"coopflow: steps = 0 trains the flow alone, but initializer = '{kind}'; use initializer = 'flow'")
        if (c.pretrain or c.warm_up_energy) and kind != "flow":
            raise InputError("coopflow: pretrain and warm_up_energy are for initializer = 'flow'")
        if c.noise_decay and not c.chain.noise:
            raise InputError("coopflow: noise_decay lets the noise fall from `noise`, which is 0; set noise = 1")
        if c.augmentation and len(c.shape) != 3:
            raise InputError("coopflow: augmentation is for images [C, H, W], and vectors are none; use none")
        if c.known_share and (len(c.shape) != 3 or kind == "generator"):
            raise InputError("coopflow: known_share is for images, and for chains from a flow or from noise; set known_share = 0")
        self.initializer = c.initializer.build(c.shape, std=c.reference_std or 1.0)
        self.net = c.net.build(c.shape) if c.chain.steps else None
        self.compiled = Faster.of(c.chain)
        self.register_buffer("initialised", torch.tensor(False))

    @property
    def abilities(self) -> frozenset[str]:
        c, found = self.config, {"sample", "energy"}
        if self.net is not None:
            found |= {"reconstruct", "constraint"} | ({"invert"} if self.has_flow else set())
        noisy = c.chain.steps and c.chain.noise and not c.noise_decay
        if self.initializer is not None and not noisy:
            found |= {"start"}
        return frozenset(found)

    @property
    def has_flow(self) -> bool:
        """Whether chains start at a normalizing flow."""
        return isinstance(self.config.initializer, Flow)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of one z: that of an example for a flow, [d] for a generator."""
        return self.config.initializer.latent_shape(self.config.shape)

    # --- the densities

    def energy(self, x: Tensor) -> Tensor:
        """E(x) in nats up to the constant log Z: [B, ...] -> [B]. Of the flow alone (no chain) it is −log q(x), normalised."""
        if self.net is None:
            return -self.log_prob(x)
        value = self.net(x)
        return value + gaussian(x, self.config.reference_std) if self.config.reference_std else value

    def log_prob(self, x: Tensor) -> Tensor:
        """The flow's exact log q(x) in nats: [B, ...] -> [B]. For images it is the density of what was dequantised.

        Raises InputError for models without a flow.
        """
        z, log_det = self.encode(x)
        return -gaussian(z) - 0.5 * math.log(2 * math.pi) * x[0].numel() + log_det

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z = g⁻¹(x), shaped like x, and log|det ∂z/∂x| in nats [B]. Raises InputError for models without a flow."""
        self._needs_flow()
        return self.initializer.encode(x)

    def decode(self, z: Tensor) -> Tensor:
        """g(z), shaped like z [B, ...]: the inverse of `encode`. Raises InputError for models without a flow."""
        self._needs_flow()
        return self.initializer.decode(z)

    def _needs_flow(self) -> None:
        if not self.has_flow:
            raise InputError(f"coopflow: a model with initializer = '{self.config.initializer.kind}' has no flow, only an energy")

    # --- training

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        c, found = self.config, {}
        if self.initializer is not None:
            found["initializer"] = torch.optim.Adam(self.initializer.parameters(), lr=c.lr_initializer, fused=True)
        if self.net is not None:
            found["energy"] = torch.optim.Adam(self.net.parameters(), lr=c.lr, betas=(c.beta1, c.beta2), fused=True)
        return found

    def learning_rate(self, name: str, images: int) -> float:
        """The config's rule, once while the flow is pretrained and anew, for both, when the energy begins to learn."""
        pretrain = 0 if self.net is None else self.config.pretrain
        return self.config.rate(images, end=pretrain) if images < pretrain else self.config.rate(images, start=pretrain)

    def step(self, batch: Batch, update: Update) -> None:
        c, g = self.config, update.generator
        x = augmented(batch.x, c.augmentation, g)
        if self.has_flow and not self.initialised:
            self._initialise(x, update)
        if self.net is None or update.images < c.pretrain:
            update("initializer", self.initializer_loss(x, None, g))
            return
        trace = Trace()
        start, z = self.propose(len(x), g, x.device)
        start, hold = self._held(start, x, g)
        refined = self._chain(start, g, noise=self.noise_at(update.images), trace=trace, project=hold, compile=self.compiled)
        if self.initializer is not None and update.images >= c.pretrain + c.warm_up_energy:
            update("initializer", self.initializer_loss(refined, z, g))
        loss, positive, sampled = contrastive(self.energy, x, refined)
        update("energy", loss)
        update.log(energy_data=positive, energy_samples=sampled, **trace.figures(x, refined))

    def _initialise(self, x: Tensor, update: Update) -> None:
        """Set the flow's norms from the first batch (Salimans and Kingma 2016)."""
        self.initializer.initialise(x, random.uniform(*x.shape, generator=update.generator, device=x.device), update.mean)
        self.initialised.fill_(True)

    def initializer_loss(self, x: Tensor, z: Tensor | None, generator: random.Generator) -> Tensor:
        """What the initializer learns from images x, a scalar per dimension: −log q(x) in nats, or ‖x − g(z)‖² of a generator.

        A generator's z is the one that its chain began with: CoopNets with no steps of inference.
        """
        if not self.has_flow:
            return (self.initializer(z) - x).square().mean()
        return -self.initializer.bound(x, random.normal_like(x, generator)).mean() / x[0].numel()

    @torch.no_grad()
    def propose(self, n: int, generator: random.Generator, device: Any = None, z: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Where `n` chains start [n, ...], and the z that they come from (drawn if not given); images are clamped to [−1, 1]."""
        c = self.config
        if self.initializer is None:
            if c.reference_std:
                return c.reference_std * random.normal(n, *c.shape, generator=generator, device=device), None
            return random.uniform(n, *c.shape, low=-1.0, high=1.0, generator=generator, device=device), None
        if z is None:
            z = random.normal(n, *self.latent_shape, generator=generator, device=device)
        with frozen(self.initializer):
            x = self.initializer.decode(z) if self.has_flow else self.initializer(z)
        return x.clamp(-1, 1) if len(c.shape) == 3 else x, z

    def noise_at(self, images: int) -> float:
        """τ after `images` images (eq. 4.14), counted from where the energy begins to learn."""
        c = self.config
        if not c.noise_decay:
            return c.chain.noise
        return c.chain.noise * max(0.0, 1 - (images - c.pretrain) / c.noise_decay) ** 20

    def _held(self, start: Tensor, x: Tensor, generator: random.Generator) -> tuple[Tensor, Callable[[Tensor], Tensor] | None]:
        """Starts with known regions of images x in some of them, as `known_share` says, and what puts those back after each step."""
        if not self.config.known_share:
            return start, None
        known = random_regions(x, self.config.known_share, generator)
        return torch.where(known, x, start), lambda state: torch.where(known, x, state)

    def _chain(self, x: Tensor, generator: random.Generator, *, step_ratio: float = 1.0, **options: Any) -> Tensor:
        chain = self.config.chain
        with frozen(self.net):
            return chain(self.energy, x, generator=generator, step=chain.step * step_ratio, **options)

    # --- sampling

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        steps: int | None = None,
        step_ratio: float | None = None,
        use: Literal["both", "initializer"] = "both",
        start: Tensor | None = None,
        constraint: Constraint | None = None,
        trace: Trace | None = None,
    ) -> Tensor:
        """`n` samples [n, ...], images in [−1, 1]: `steps` Langevin steps (T by default) of size `step_ratio`·δ from the initializer.

        `use` = "initializer" shows where chains start. `start` gives the initializer's z [n, ...] (or the chains' own start, for
        chains from noise); without noise in the chain a sample is a function of it. `constraint` puts what was measured back into
        the start and after each step. Raises InputError for a z of another shape, and constraints on the flow alone.
        """
        c, device = self.config, self.device
        generator = random.seeded(seed, 1, device=device)
        check_start(self, start, n)
        start = None if start is None else start.to(device)
        if start is not None and self.initializer is None:
            x, z = start, None
        else:
            x, z = self.propose(n, generator, device, start)
        if self.net is None:
            if constraint is not None:
                raise InputError("coopflow: a constraint needs a chain, and this model has steps = 0")
            return self.initializer.decode_grey_values(z) if len(c.shape) == 3 else x
        if use == "initializer":
            return x
        project = measured_back(constraint)
        x = x if project is None else project(x)
        noise = 0.0 if c.noise_decay else c.chain.noise  # sec. 4.9
        ratio = c.step_ratio if step_ratio is None else step_ratio
        return finished(self._chain(x, generator, step_ratio=ratio, noise=noise, steps=steps, project=project, trace=trace))

    # --- the two flows as a latent variable model

    def langevin_flow(self, x: Tensor, *, step_ratio: float = 1.0) -> Tensor:
        """F(x): T Langevin steps without noise, [B, ...] -> [B, ...], differentiable by x."""
        chain = self.config.chain
        gain = 0.5 * (step_ratio * chain.step) ** 2
        for _ in range(chain.steps):
            move = gain * score(self.energy, x, create_graph=True)
            x = x + (move.clamp(-chain.clip, chain.clip) if chain.clip else move)
            x = x.clamp(-1, 1) if chain.clamp else x
        return x

    def reconstruct(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        *,
        steps: int = 200,
        rate: float = 0.05,
        draws: int = 0,
        tries: int = 1,
        prior: float = 0.0,
        seed: int = 0,
    ) -> Reconstruction:
        """Find x̂ whose Langevin flow F(x̂) is x where `mask` is 1 (or everywhere), then z = g⁻¹(x̂) (sec. 4.4.3).

        x [B, ...]; mask broadcasts against x; `steps` of Adam with learning rate `rate` on ‖mask·(x − F(x̂))‖², from proposals that
        `seed` draws. The chain has no noise and the step of training. Ours: with `draws` there are `tries` searches, from `nearest_starts`,
        and of each image the one is kept whose energy is lowest with the known pixels put back; with `prior` w the search is for z, on
        ‖mask·(x − F(g(z)))‖² + w‖z‖², which makes it the likeliest for noise of variance w. Raises InputError for the flow alone, for
        `draws` and `prior` of models without z, and for bad options.
        """
        self._check_search(steps, rate, draws, tries, prior)
        x = x.to(self.device)
        mask = torch.ones_like(x) if mask is None else mask.to(x).expand_as(x)
        starts = self.nearest_starts(x, mask, draws=draws, keep=tries, seed=seed) if draws else [None]
        found = [self._search(x, mask, z, steps, rate, prior, seed) for z in starts]
        with torch.no_grad():
            energies = torch.stack([self.energy(torch.where(mask.bool(), x, one.x)) for one in found])
        best, rows = energies.argmin(0), torch.arange(len(x), device=self.device)
        x, start = (torch.stack(parts)[best, rows] for parts in ([one.x for one in found], [one.start for one in found]))
        z = [one.latent for one in found if one.latent is not None]
        return Reconstruction(x, start, torch.stack(z)[best, rows] if z else None)

    def _check_search(self, steps: int, rate: float, draws: int, tries: int, prior: float) -> None:
        if self.net is None:
            raise InputError("coopflow: reconstruction goes through the chain, and this model has steps = 0; use encode and decode")
        if steps < 1 or not rate > 0:
            raise InputError(f"coopflow: reconstruct needs 1 step or more and a rate above 0, got steps = {steps} and rate = {rate}")
        if (draws or prior) and self.initializer is None:
            raise InputError("coopflow: draws and prior are of z, and chains that start at noise have none; leave them out")
        if not 1 <= tries <= max(1, draws) or not 0 <= prior < math.inf:
            raise InputError(f"coopflow: tries are 1 to draws and prior is 0 or more, got {tries} of {draws} and prior = {prior}")

    @torch.no_grad()
    def nearest_starts(self, x: Tensor, mask: Tensor, *, draws: int = 256, keep: int = 1, seed: int = 0) -> Tensor:
        """z [keep, B, ...] of the draws whose starts x̂ are nearest to each of x [B, ...] where `mask` is 1, nearest first.

        All images choose from the same `draws` of N(0, I), which `seed` gives. Raises InputError for models without z.
        """
        if self.initializer is None:
            raise InputError("coopflow: chains that start at noise have no z to choose")
        generator, x = random.seeded(seed, 2, device=self.device), x.to(self.device)
        z = random.normal(draws, *self.latent_shape, generator=generator, device=self.device)
        start = torch.cat([self.propose(len(part), None, self.device, part)[0] for part in z.split(256)]).flatten(1)
        weight = mask.to(x).expand_as(x).flatten(1)
        # ‖m(x − x̂)‖² up to ‖m x‖², which is the same for all draws
        distance = weight @ start.square().T - 2 * (weight * x.flatten(1)) @ start.T
        return z[distance.topk(keep, dim=1, largest=False).indices.T]

    def _search(self, x: Tensor, mask: Tensor, z: Tensor | None, steps: int, rate: float, prior: float, seed: int) -> Reconstruction:
        """From the start that z gives, or from one that `seed` draws."""
        start, z = self.propose(len(x), random.seeded(seed, 1, device=self.device), self.device, z)
        with frozen(self):
            if prior:
                z = fit_latent(lambda z: self.langevin_flow(self._start_of(z)), z, x, mask, steps=steps, rate=rate, prior=prior)
                start, _ = self.propose(len(x), None, self.device, z)
            else:
                start = fit_latent(self.langevin_flow, start, x, mask, steps=steps, rate=rate, clamp=self.config.chain.clamp)
                with torch.no_grad():
                    z = self.encode(start)[0] if self.has_flow else None
            with torch.enable_grad():
                found = self.langevin_flow(start).detach()
        return Reconstruction(found, start, z)

    def _start_of(self, z: Tensor) -> Tensor:
        """As `propose`, differentiable by z: values of images that are clamped have the gradient that they had."""
        x = self.initializer.decode(z) if self.has_flow else self.initializer(z)
        return x + (x.clamp(-1, 1) - x).detach() if len(self.config.shape) == 3 else x

    def invert(self, x: Tensor, *, seed: int = 0) -> Tensor:
        """The z of which x [n, ...] is the sample, as near as `reconstruct` comes: `sample(start=z, step_ratio=1)`. [n, ...] -> [n, ...].

        From proposals that `seed` draws. Raises InputError for models without a flow, and for the flow alone.
        """
        self._needs_flow()
        return self.reconstruct(x, seed=seed).latent
