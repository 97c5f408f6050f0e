"""CoopFlow: a normalizing flow and a Langevin flow that teach each other (thesis, ch. 4; Xie et al., ICLR 2022).

    x̂ = g_α(z),  z ~ N(0, I);   x̃ = T Langevin steps from x̂                                        (Algorithm 3)
    update("initializer", −log q_α(x̃))                                                              (eq. 4.5)
    update("energy", E(x).mean() − E(x̃).mean())                                                     (eq. 2.2)

Nothing is differentiated through the chain. With initializer = "generator" this is CoopNets (Xie et al. 2020), with "noise" the short-run
Langevin flow alone (Nijkamp et al. 2019), with steps = 0 the normalizing flow alone, learning from the data.
"""

import math
from dataclasses import dataclass as plain
from typing import Any, Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from thalweg import random, sample
from thalweg.data.base import Batch
from thalweg.energy import gaussian, score
from thalweg.errors import InputError, require
from thalweg.methods.base import STRICT, Count, Fraction, Method, NotNegative, Positive, Whole, warm_up_cosine
from thalweg.nn.convnet import ConvEnergy, PooledEnergy
from thalweg.nn.flow import ImageFlow, VectorFlow
from thalweg.nn.generator import LatentGenerator
from thalweg.nn.layers import frozen
from thalweg.nn.mlp import MLP
from thalweg.objective import contrastive


@dataclass(frozen=True, config=STRICT)
class Config:
    """Settings of `coopflow`."""

    data: str = "spiral"
    """name of the data that the preset is for"""
    shape: tuple[Count, ...] = (2,)
    """shape of one example, [D] or [C, H, W]"""
    classes: Whole = 0
    """number of labels; not used"""
    initializer: Literal["flow", "generator", "noise"] = "flow"
    """where chains start: a normalizing flow, a plain generator (CoopNets), or noise (the Langevin flow alone)"""
    network: Literal["mlp", "convnet", "pooled"] = "mlp"
    """the energy: `mlp` for vectors, `convnet` with strided convolutions, `pooled` the paper's residual network (Table 4.3)"""
    width: Count = 128
    """hidden units of the mlp"""
    depth: Count = 3
    """hidden layers of the mlp"""
    widths: tuple[Count, ...] = (32, 64, 128)
    """channels of convnet and pooled network at each resolution"""
    blocks: Whole = 0
    """residual blocks of the convnet at each resolution"""
    reference_std: NotNegative = 0.0
    """standard deviation of the Gaussian that the energy's network tilts (eq. 4.9), 0 for a flat reference"""
    couplings: Count = 4
    """coupling layers of the flow, for images at each scale"""
    scales: Count = 2
    """resolutions of the flow of images; height and width divide by 2^scales"""
    flow_width: Count = 48
    """channels (images) or hidden units (vectors) of each coupling's network"""
    flow_depth: Count = 1
    """residual blocks (images) or hidden layers (vectors) of each coupling's network"""
    mixtures: Count = 4
    """logistics of each coupling of images, bins of each spline for vectors"""
    attention: bool = False
    """self-attention in each coupling's network of images"""
    coupling: Literal["spline", "affine"] = "spline"
    """couplings of vectors: neural splines or affine maps; images have mixtures of logistics"""
    levels: Count = 256
    """grey values of the data, over whose bins the flow of images spreads them"""
    dequantisation: Literal["variational", "uniform"] = "variational"
    """noise within a grey value's bin: learned or uniform"""
    latent_dim: Count = 64
    """d, dimension of the generator's z"""
    steps: Whole = 30
    """T, Langevin steps; 0 for the flow alone, which then learns from the data"""
    step: Positive = 0.03
    """δ, step of x ← x − δ²/2 ∇E + δ τ ξ"""
    step_ratio: Positive = 4 / 3
    """what δ is multiplied by for samples"""
    noise: NotNegative = 0.0
    """τ, weight of the noise (0 in the paper, 1: exact dynamics)"""
    noise_decay: Whole = 0
    """K in images: noise falls as (1 − images/K)^20 in training, and samples have none (eq. 4.14); 0 for constant noise"""
    clip_move: NotNegative = 0.1
    """bound on each element of the gradient's move, 0 for none"""
    clamp: bool = True
    """keep chains in [−1, 1]"""
    pretrain: Whole = 0
    """images on which the flow first learns alone, from the data ("Pre")"""
    warm_up_energy: Whole = 0
    """images after that on which the energy alone learns"""
    compile: bool = False
    """compile the step of training chains: a wait at the start, then Langevin on images is faster (docs/benchmarks.md)"""
    batch: Count = 128
    """images per update"""
    images: Count = 1_000_000
    """length of training in images, `pretrain` included; learning rates fall to zero over it"""
    lr: Positive = 1e-4
    """base learning rate of the energy's Adam"""
    beta1: Fraction = 0.5
    """β₁ of the energy's Adam"""
    beta2: Fraction = 0.5
    """β₂ of the energy's Adam"""
    lr_initializer: Positive = 1e-4
    """base learning rate of the initializer's Adam"""
    warm_up: Whole = 100
    """updates over which learning rates rise"""
    clip: NotNegative = 1.0
    """bound on each update's gradient norm, 0 for none"""
    ema: Fraction = 0.999
    """decay of the EMA twin"""


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
        if not c.steps and c.initializer != "flow":
            raise InputError(f"coopflow: steps = 0 trains the flow alone, but initializer = '{c.initializer}'; use initializer = 'flow'")
        if (c.pretrain or c.warm_up_energy) and c.initializer != "flow":
            raise InputError("coopflow: pretrain and warm_up_energy are for initializer = 'flow'")
        if c.noise_decay and not c.noise:
            raise InputError("coopflow: noise_decay lets the noise fall from `noise`, which is 0; set noise = 1")
        try:
            self.initializer = self._initializer()
            self.net = self._energy() if c.steps else None
        except ValueError as error:
            raise InputError(f"coopflow: {error}") from None
        self.register_buffer("initialised", torch.tensor(False))

    def _energy(self) -> torch.nn.Module:
        c = self.config
        if c.network == "mlp":
            return MLP(math.prod(c.shape), width=c.width, depth=c.depth)
        if len(c.shape) != 3:
            raise InputError(f"coopflow: network = '{c.network}' needs images [C, H, W], got shape {c.shape}; use 'mlp'")
        if c.network == "convnet":
            return ConvEnergy(c.shape, widths=c.widths, blocks=c.blocks)
        return PooledEnergy(c.shape, widths=c.widths)

    def _initializer(self) -> torch.nn.Module | None:
        c = self.config
        if c.initializer == "noise":
            return None
        if c.initializer == "generator":
            return LatentGenerator(c.latent_dim, c.shape, width=c.flow_width)
        if len(c.shape) == 3:
            return ImageFlow(
                c.shape, scales=c.scales, couplings=c.couplings, width=c.flow_width, depth=c.flow_depth, mixtures=c.mixtures,
                attention=c.attention, levels=c.levels, variational=c.dequantisation == "variational",
            )  # fmt: skip
        flows = require("zuko", "flows").flows
        # two passes: half of the dimensions given the other half, so that both directions cost the same
        make, options = (flows.NICE, {}) if c.coupling == "affine" else (flows.NSF, {"bins": c.mixtures, "passes": 2})
        sizes = dict(couplings=c.couplings, width=c.flow_width, depth=c.flow_depth, scale=c.reference_std or 1.0)
        return VectorFlow(math.prod(c.shape), make, **sizes, **options)

    # --- the densities

    def energy(self, x: Tensor) -> Tensor:
        """E(x) in nats up to the constant log Z: [B, ...] -> [B]. Of the flow alone (steps = 0) it is −log q(x), normalised."""
        if self.net is None:
            return -self.log_prob(x)
        value = self.net(x)
        return value + gaussian(x, self.config.reference_std) if self.config.reference_std else value

    def log_prob(self, x: Tensor) -> Tensor:
        """The flow's exact log q(x) in nats: [B, ...] -> [B]. For images it is the density of what was dequantised (docs/equations.md).

        Raises InputError for models without a flow.
        """
        z, log_det = self.encode(x)
        return -gaussian(z) - 0.5 * math.log(2 * math.pi) * x[0].numel() + log_det

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z = g⁻¹(x), shaped like x, and log|det ∂z/∂x| in nats [B]. Raises InputError for models without a flow."""
        self._has_flow()
        return self.initializer.encode(x)

    def decode(self, z: Tensor) -> Tensor:
        """g(z), shaped like z [B, ...]: the inverse of `encode`. Raises InputError for models without a flow."""
        self._has_flow()
        return self.initializer.decode(z)

    def _has_flow(self) -> None:
        if self.config.initializer != "flow":
            raise InputError(f"coopflow: a model with initializer = '{self.config.initializer}' has no flow, only an energy")

    # --- training

    @property
    def abilities(self) -> frozenset[str]:
        found = {"sample", "energy"} | ({"start"} if self.deterministic else set())
        if self.net is not None:
            found |= {"reconstruct", "constraint"} | ({"invert"} if self.config.initializer == "flow" else set())
        return frozenset(found)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        c, found = self.config, {}
        if self.initializer is not None:
            found["initializer"] = torch.optim.Adam(self.initializer.parameters(), lr=c.lr_initializer, fused=True)
        if self.net is not None:
            found["energy"] = torch.optim.Adam(self.net.parameters(), lr=c.lr, betas=(c.beta1, c.beta2), fused=True)
        return found

    def learning_rate(self, name: str, images: int) -> float:
        """Linear warm-up, then a cosine to zero at `images` of the config; the energy's begins with its own first update."""
        c = self.config
        started = c.pretrain if name == "energy" else 0
        return warm_up_cosine((images - started) / c.batch, c.warm_up, (images - started) / max(1, c.images - started))

    def step(self, batch: Batch, update) -> None:
        c, g, x = self.config, update.generator, batch.x
        flow_learns = c.initializer != "noise" and not c.pretrain <= update.images < c.pretrain + c.warm_up_energy
        if c.initializer == "flow" and not self.initialised:
            self._initialise(x, update)
        if not c.steps or update.images < c.pretrain:
            update("initializer", self.initializer_loss(x, None, g))
            return
        start, z = self.propose(len(x), g, x.device)
        trace = sample.Trace()
        with frozen(self.net):
            refined = self._chain(start, c.step, self.noise_at(update.images), g, trace, compile=c.compile)
        if flow_learns:
            update("initializer", self.initializer_loss(refined, z, g))
        loss, positive, sampled = contrastive(self.energy, x, refined)
        update("energy", loss)
        update.log(energy_data=positive, energy_samples=sampled, displacement=trace.displacement)

    def noise_at(self, images: int) -> float:
        """τ after `images` images (eq. 4.14), counted from where the energy begins to learn."""
        c = self.config
        if not c.noise_decay:
            return c.noise
        return c.noise * max(0.0, 1 - (images - c.pretrain) / c.noise_decay) ** 20

    def initializer_loss(self, x: Tensor, z: Tensor | None, generator: random.Generator) -> Tensor:
        """What the initializer learns from images x, a scalar per dimension: −log q(x) in nats, or ‖x − g(z)‖² of a generator.

        A generator's z is the one that its chain began with: CoopNets with no steps of inference.
        """
        if self.config.initializer == "generator":
            return (self.initializer(z) - x).square().mean()
        return -self.initializer.bound(x, random.normal_like(x, generator)).mean() / x[0].numel()

    def _initialise(self, x: Tensor, update: Any) -> None:
        self.initializer.initialise(x, random.uniform(*x.shape, generator=update.generator, device=x.device), update.mean)
        self.initialised.fill_(True)

    @torch.no_grad()
    def propose(self, n: int, generator: random.Generator, device: Any = None, z: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Where `n` chains start [n, ...], and the z that they come from (drawn if not given); images are clamped to [−1, 1]."""
        c = self.config
        if c.initializer == "noise":
            if c.reference_std:
                return c.reference_std * random.normal(n, *c.shape, generator=generator, device=device), None
            return random.uniform(n, *c.shape, low=-1.0, high=1.0, generator=generator, device=device), None
        if z is None:
            z = random.normal(n, *self.latent_shape, generator=generator, device=device)
        with frozen(self.initializer):
            x = self.initializer(z) if c.initializer == "generator" else self.initializer.decode(z)
        return x.clamp(-1, 1) if len(c.shape) == 3 else x, z

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of one z: that of an example for a flow, [d] for a generator."""
        return (self.config.latent_dim,) if self.config.initializer == "generator" else tuple(self.config.shape)

    @property
    def deterministic(self) -> bool:
        """Whether a sample is a function of its `start`, a draw of N(0, I): chains without noise from a flow or a generator."""
        c = self.config
        return c.initializer != "noise" and not (c.steps and c.noise and not c.noise_decay)

    def _chain(self, x: Tensor, step: float, noise: float, generator: random.Generator, trace=None, *, steps=None, **options) -> Tensor:
        c = self.config
        if len(c.shape) == 3 and c.shape[0] > 1:
            x = x.to(memory_format=torch.channels_last)
        return sample.langevin(
            self.energy, x, steps=c.steps if steps is None else steps, step=step, noise=noise, clip=c.clip_move or None,
            clamp=(-1.0, 1.0) if c.clamp else None, generator=generator, trace=trace, **options,
        )  # fmt: skip

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
        constraint: sample.Constraint | None = None,
        trace: sample.Trace | None = None,
    ) -> Tensor:
        """`n` samples [n, ...], images in [−1, 1]: `steps` Langevin steps (T by default) of size `step_ratio`·δ from the initializer.

        `use` = "initializer" shows where chains start. `start` gives the initializer's z [n, ...] (or the chains' own start, for
        chains from noise); without noise in the chain a sample is a function of it. `constraint` puts what was measured back into
        the start and after each step. Raises InputError for a z of another shape, and constraints on the flow alone.
        """
        c = self.config
        device = self.initialised.device
        generator = random.seeded(seed, 1, device=device)
        shape = (n, *self.latent_shape)
        if start is not None and tuple(start.shape) != shape:
            raise InputError(f"coopflow: start must have shape {shape}, got {tuple(start.shape)}")
        if start is not None and c.initializer == "noise":
            x = start.to(device)
        else:
            x, z = self.propose(n, generator, device, None if start is None else start.to(device))
        if self.net is None:
            if constraint is not None:
                raise InputError("coopflow: a constraint needs a chain, and this model has steps = 0")
            return self.initializer.decode_levels(z) if len(c.shape) == 3 else x
        if use == "initializer":
            return x

        def measured_back(x: Tensor) -> Tensor:
            return constraint(x, 1.0, 0.0)

        project = None if constraint is None else measured_back
        x = x if project is None else project(x)
        noise = 0.0 if c.noise_decay else c.noise  # sec. 4.9
        size = c.step * (c.step_ratio if step_ratio is None else step_ratio)
        with frozen(self.net):
            x = self._chain(x, size, noise, generator, trace, steps=steps, project=project)
        return x.clamp(-1, 1).contiguous() if len(c.shape) == 3 else x

    # --- the two flows as a latent variable model

    def langevin_flow(self, x: Tensor, *, step_ratio: float = 1.0) -> Tensor:
        """F(x): T Langevin steps without noise, [B, ...] -> [B, ...], differentiable by x."""
        c = self.config
        gain = 0.5 * (step_ratio * c.step) ** 2
        for _ in range(c.steps):
            move = gain * score(self.energy, x, create_graph=True)
            x = x + (move.clamp(-c.clip_move, c.clip_move) if c.clip_move else move)
            x = x.clamp(-1, 1) if c.clamp else x
        return x

    def reconstruct(self, x: Tensor, mask: Tensor | None = None, *, steps: int = 200, rate: float = 0.05, seed: int = 0) -> Reconstruction:
        """Find x̂ whose Langevin flow F(x̂) is x where `mask` is 1 (or everywhere), then z = g⁻¹(x̂) (sec. 4.4.3).

        x [B, ...]; mask broadcasts against x; `steps` of Adam with learning rate `rate` on ‖mask·(x − F(x̂))‖², from proposals that
        `seed` draws. The chain has no noise and the step of training. Raises InputError for the flow alone, and for bad options.
        """
        c = self.config
        if self.net is None:
            raise InputError("coopflow: reconstruction goes through the chain, and this model has steps = 0; use encode and decode")
        if steps < 1 or not rate > 0:
            raise InputError(f"coopflow: reconstruct needs 1 step or more and a rate above 0, got steps = {steps} and rate = {rate}")
        device = self.initialised.device
        x = x.to(device)
        mask = torch.ones_like(x) if mask is None else mask.to(x).expand_as(x)
        start, _ = self.propose(len(x), random.seeded(seed, 1, device=device), device)
        with frozen(self.net), torch.enable_grad():
            start = start.clone().requires_grad_(True)
            optimizer = torch.optim.Adam([start], lr=rate)
            for _ in range(steps):
                loss = (mask * (self.langevin_flow(start) - x)).square().sum()
                (start.grad,) = torch.autograd.grad(loss, [start])
                optimizer.step()
                if c.clamp:
                    start.data.clamp_(-1, 1)
            found = self.langevin_flow(start).detach()
        start = start.detach()
        with torch.no_grad():
            return Reconstruction(found, start, self.encode(start)[0] if c.initializer == "flow" else None)


# Ours: Gaussian reference and full noise, so that long chains sample the energy's density; a flow of affine maps, as in Glow
_TOY = dict(
    width=96, reference_std=2.0, couplings=6, flow_width=64, flow_depth=2, coupling="affine", steps=100, step=0.1, step_ratio=1.0,
    noise=1.0, clip_move=0.0, clamp=False, batch=128, images=400_000, lr=2e-3, beta1=0.0, beta2=0.999, lr_initializer=1e-3,
)  # fmt: skip
# Ours; the paper's recipe (no noise, clamped moves, δ at samples 4/3 times larger) with an energy, rates and a step for small images
_SMALL = dict(
    couplings=3, flow_width=32, flow_depth=1, mixtures=4, steps=30, step=0.2, noise=0.0, clip_move=0.1, clamp=True, batch=128, lr=3e-4,
    beta1=0.5, beta2=0.999, lr_initializer=1e-3,
)  # fmt: skip
_DIGITS = dict(data="digits", shape=(1, 8, 8), network="mlp", width=512, levels=17, **_SMALL)
# Table 4.4 and section 4.5.2; epochs of 50,000 images. The flow of the paper is Flow++ for CIFAR-10, whose sizes these are
_CIFAR = dict(
    data="hf:uoft-cs/cifar10", shape=(3, 32, 32), classes=10, network="pooled", widths=(128, 256, 512, 1024), couplings=4, scales=2,
    flow_width=96, flow_depth=10, mixtures=32, attention=True, step=0.03, step_ratio=4 / 3, lr=1e-4, lr_initializer=1e-4, warm_up=0,
)  # fmt: skip

CoopFlow.PRESETS = {
    **{name: Config(data=name, **_TOY) for name in ("spiral", "8gaussians", "25gaussians", "swissroll", "checkerboard", "rings")},
    "digits": Config(**_DIGITS, images=200_000),
    "digits-pre": Config(**_DIGITS, images=200_000, pretrain=50_000, warm_up_energy=10_000),
    "fashion-mnist": Config(
        data="fashion-mnist", shape=(1, 28, 28), network="convnet", widths=(32, 64, 128), images=1_000_000, **_SMALL
    ),
    "cifar10": Config(**_CIFAR, steps=30, batch=28, images=5_000_000),
    "cifar10-long": Config(**(_CIFAR | dict(steps=200, step=0.01, step_ratio=1.2)), batch=32, images=5_000_000),
    "cifar10-pre": Config(**_CIFAR, steps=30, batch=28, pretrain=15_000_000, warm_up_energy=1_250_000, images=20_000_000),
}  # fmt: skip
