"""CDRL and DRL: a sequence of energies trained by diffusion recovery likelihood (Zhu et al., ICLR 2024; thesis, ch. 5).

    x_t = ᾱ_t x₀ + σ̄_t e, x_{t+1} = ᾱ_{t+1} x₀ + σ̄_{t+1} e, y_t = α_{t+1} x_t           (Algorithm 4; eq. 5.7 misprints it)
    p(y_t | x_{t+1}) ∝ exp(f(y_t; t) − ‖y_t − x_{t+1}‖²/(2σ²_{t+1}))                       (eq. 5.1)
    ŷ ~ N(g(x_{t+1}; t), (α_{t+1} σ̃_t)² I), then K Langevin steps to ỹ                     (eq. 5.4, 5.3)
    update("energy", f(ỹ; t) − f(y; t));  update("initializer", ‖ỹ − g‖²)                  (eq. 5.5, 5.6)

The paper writes p ∝ exp(f); here E = −f throughout. At the top level x_T counts as pure noise: no quadratic term, α_T = 1.
Without the initializer, chains start at x_{t+1}: this is DRL (Gao et al., ICLR 2021).
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from thalweg import noise, random, sample
from thalweg.data.base import Batch
from thalweg.energy import Energy, compose, gaussian, score
from thalweg.errors import InputError
from thalweg.methods.base import STRICT, Count, Fraction, Method, NotNegative, Positive, Whole, warm_up_cosine
from thalweg.nn.convnet import ConvEnergy
from thalweg.nn.layers import frozen
from thalweg.nn.mlp import MLP
from thalweg.nn.patchnet import PatchNet, VectorNet
from thalweg.nn.unet import UNet
from thalweg.objective import recovery, squared_error


@dataclass(frozen=True, config=STRICT)
class Config:
    """Settings of `cdrl`."""

    data: str = "8gaussians"
    """name of the data that the preset is for"""
    shape: tuple[Count, ...] = (2,)
    """shape of one example, [D] or [C, H, W]; of latents where there is an autoencoder"""
    autoencoder: str = ""
    """run folder, exported folder or hub name of an autoencoder in whose latent space the model lives, see thalweg/latent.py"""
    classes: Whole = 0
    """number of labels, 0 where there are none; for several concepts (labels [B, M]) the sum of their numbers of values"""
    conditional: bool = False
    """model p(x | label) beside p(x)"""
    label_dropping: Fraction = 0.1
    """share of training labels that are left out, so that the unconditional model is trained too; 0 trains none"""
    guidance: float = 0.0
    """default guidance w of samples by label (eq. 5.9); 0 samples p(x | label)"""
    guide: Literal["both", "initializer"] = "both"
    """what guidance weighs: energies and proposals alike (paper), or with energies at their own weight the proposals alone, which
    stays nearer to the data for large w and for concepts never seen together (docs/benchmarks.md)"""
    resample: Count = 1
    """times that samples draw each level below the top, noised up again in between"""
    network: Literal["mlp", "patch", "convnet"] = "mlp"
    """`mlp` for vectors and small images, `patch` a fast residual network on patches, `convnet` for images (paper)"""
    readout: Literal["scalar", "inner"] = "scalar"
    """what the energy's network puts out: f itself (paper), or a map that enters by an inner product with y, see `CDRL.marginal`"""
    width: Count = 128
    """hidden units of the mlp"""
    depth: Count = 3
    """hidden layers of the mlp"""
    waves: Whole = 0
    """octaves of sinusoids of x beside x in the mlp's input, each faded by the level's noise: fine detail in the plane"""
    widths: tuple[Count, ...] = (32, 64, 128)
    """channels of the convnet at each resolution"""
    blocks: Whole = 0
    """residual blocks of the convnet at each resolution, or of the patch network"""
    patch: Count = 2
    """side of the patches of the patch network"""
    spectral_norm: bool = False
    """bound the convnet's layers by spectral norm"""
    data_std: NotNegative = 0.0
    """s, root mean square of the data's entries about zero: the network tilts the exact energies of N(0, s² I); 0 for none (paper)"""
    scale: Literal["step", "nats"] = "step"
    """unit of the scalar read-out: `step` f = f̂/s_t² (paper), `nats` f = f̂"""
    levels: Annotated[int, Field(ge=2)] = 6
    """T, number of energies"""
    schedule: Literal["cosine_log_snr", "drl"] = "cosine_log_snr"
    """the paper's schedule, or DRL's, whose levels beyond 6 are put where the noise is high (Table 5.9)"""
    log_snr_max: float = 9.8
    """λ_max of the schedule, at level 0"""
    log_snr_min: float = -5.1
    """λ_min of the schedule, at level T"""
    sampler: Literal["langevin", "mala"] = "langevin"
    """unadjusted (paper) or Metropolis-adjusted Langevin"""
    steps: Count = 15
    """K, chain steps at each level"""
    step: Positive = 0.054
    """b in s_t² = b σ̄_t σ²_{t+1} (eq. 5.14)"""
    target_acceptance: Fraction = 0.0
    """MALA's step adapts towards this acceptance at each level, 0 for fixed steps"""
    jumps: Whole = 0
    """proposals from N(x_{t+1}, σ²_{t+1} I) (at the top N(0, 1)) after every `jump_every` steps of MALA, accepted or not: chains then
    mix between modes, for vectors of few dimensions"""
    jump_every: Count = 5
    """chain steps between jumps"""
    initializer: bool = True
    """propose chain starts by a network; without, chains start at x_{t+1} (DRL)"""
    predict: Literal["y", "x0", "noise"] = "y"
    """what the initializer's network predicts (Table 5.9)"""
    learn_from: Literal["refined", "data"] = "refined"
    """what the initializer learns: the refined sample ỹ, or y from the data (Table 5.9)"""
    data_first: Fraction = 0.0
    """share of training in which the initializer learns y from the data before it learns the refined sample: refined by an energy that
    knows nothing yet it learns nothing"""
    initializer_network: Literal["mlp", "patch", "unet"] = "mlp"
    """`mlp` for vectors and small images, `patch` a fast residual network on patches, without labels, `unet` as in the paper"""
    initializer_width: Count = 64
    """the initializer's hidden units (mlp) or channels"""
    initializer_blocks: Count = 2
    """its hidden layers (mlp), residual blocks (patch), or blocks per resolution (unet)"""
    initializer_patch: Count = 2
    """side of the patches of its patch network"""
    initializer_multipliers: tuple[Count, ...] = (1, 1)
    """channels of its unet at each resolution, times width"""
    variance_reduction: bool = True
    """y_t and x_{t+1} from one noise (eq. 5.7); without, x_{t+1} = y_t + σ_{t+1} ε"""
    weight_power: NotNegative = 1.0
    """k in the energy's level weights (σ_1/σ_{t+1})^k, on f̂; 0 weighs levels equally"""
    tweedie: NotNegative = 2.0
    """coefficient of the last denoising step of samples (1: Tweedie's formula; 2: the paper); 0 for none"""
    compile: bool = False
    """compile the step of training chains: a wait at the start, then Langevin on images is faster (docs/benchmarks.md)"""
    batch: Count = 256
    """images per update"""
    images: Count = 1_000_000
    """length of training in images"""
    lr: Positive = 1e-4
    """base learning rate of the energy's Adam"""
    initializer_lr: Positive = 1e-5
    """base learning rate of the initializer's AdamW"""
    warm_up: Whole = 10_000
    """updates over which both learning rates rise"""
    ahead: Whole = 500
    """updates by which the initializer's warm-up is ahead (eq. 5.13)"""
    decay: bool = False
    """cosine decay of both learning rates over `images`"""
    clip: NotNegative = 1.0
    """bound on the gradient's norm, 0 for none"""
    ema: Fraction = 0.9999
    """decay of the EMA twin"""


class LevelTable(nn.Module):
    """The embedding of log SNR λ_t by the level's number t [B]: a chain embeds T rows a step, whatever its batch."""

    def __init__(self, embedding: nn.Module, log_snr: list[float]) -> None:
        super().__init__()
        self.embedding = embedding
        self.register_buffer("log_snr", torch.tensor(log_snr, dtype=torch.float32), persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        return self.embedding(self.log_snr)[t]


class CDRL(Method):
    """Energies at several noise levels by recovery likelihood, with or without initializers; the settings are in `Config`."""

    name = "cdrl"
    Config = Config
    guarded = ("energy_data", "energy_samples")
    held = {"shared": "all"}

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        c = config
        if not c.log_snr_max > c.log_snr_min:
            raise InputError(f"cdrl: log_snr_max must be above log_snr_min, got {c.log_snr_max} and {c.log_snr_min}")
        if c.conditional and not c.classes:
            raise InputError("cdrl: conditional = True needs data with labels")
        if c.guide == "initializer" and not c.initializer:
            raise InputError("cdrl: guide = 'initializer' needs an initializer")
        if c.network != "mlp" and len(c.shape) != 3:
            raise InputError(f"cdrl: network = '{c.network}' needs images [C, H, W], got shape {c.shape}; use 'mlp'")
        if c.readout == "inner" and (c.network == "convnet" or not c.data_std):
            raise InputError("cdrl: readout = 'inner' needs network = 'mlp' or 'patch', and data_std above 0")
        if c.network == "patch" and c.readout != "inner":
            raise InputError("cdrl: network = 'patch' needs readout = 'inner'; use 'convnet' for an energy by one scalar")
        if c.waves and (c.network != "mlp" or c.readout != "scalar"):
            raise InputError("cdrl: waves are for network = 'mlp' with readout = 'scalar'")
        if c.jumps and c.sampler != "mala":
            raise InputError("cdrl: jumps are for sampler = 'mala'")
        if c.sampler == "mala" and c.compile:
            raise InputError("cdrl: compile = True is for sampler = 'langevin'")
        cosine = c.schedule == "cosine_log_snr"
        self.schedule = noise.cosine_log_snr(c.levels, c.log_snr_max, c.log_snr_min) if cosine else noise.drl(c.levels)
        self._tabulate()
        classes = c.classes if c.conditional else 0
        try:
            self.net = self._make_energy(classes)
            self.initializer = self._make_initializer(classes) if c.initializer else None
        except ValueError as error:
            raise InputError(f"cdrl: {error}") from None
        log_snr = [2 * math.log(a / b) for a, b in zip(self.schedule.signal, self.schedule.noise)]
        for network in filter(None, (self.net, self.initializer)):
            owner = network.net if isinstance(network, VectorNet) else network
            owner.level = LevelTable(owner.level, log_snr)
        # what s_t is multiplied by; adaptation starts at half the width that p(y_t | x_{t+1}) has where the energy is flat
        adapted = [0.5 / math.sqrt(c.step * sigma) for sigma in self.schedule.noise[:-1]]
        self.register_buffer("step_scale", torch.tensor(adapted) if c.target_acceptance else torch.ones(c.levels))

    def _make_energy(self, classes: int) -> nn.Module:
        """A network (y_t, t[, label]) -> f̂ [B], or (map, f̂ [B, 1]) for readout "inner".

        It starts at zero, so that an untrained energy is the reference alone, whatever it is multiplied by, and the first chains are sane.
        """
        c = self.config
        dim = math.prod(c.shape)
        if c.readout == "inner":
            if c.network == "patch":
                net = PatchNet(c.shape, out=c.shape[0], vector=1, width=c.width, blocks=c.blocks, patch=c.patch, classes=classes)
                last = [net.vector]
            elif c.network == "mlp":
                net = VectorNet(dim, out=1, vector=1, width=c.width, depth=c.depth, classes=classes)
                last = [net.net.last]
        elif c.network == "convnet":
            fields = dict(widths=c.widths, blocks=c.blocks, spectral_norm=c.spectral_norm)
            net = ConvEnergy(c.shape, levels=True, classes=classes, **fields)
            last = [net.last]
        else:
            net = MLP(dim * (1 + 2 * c.waves), width=c.width, depth=c.depth, levels=True, classes=classes)
            last = [net.last]
        for layer in last:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        return net

    def _make_initializer(self, classes: int) -> nn.Module:
        """A network (x_{t+1}, t + 1[, label]) -> what `predict` says, that starts at zero."""
        c = self.config
        width, blocks = c.initializer_width, c.initializer_blocks
        if c.initializer_network == "mlp":
            dim = math.prod(c.shape)
            network = MLP(dim, out=dim, width=width, depth=blocks, levels=True, classes=classes)
            nn.init.zeros_(network.last.weight)
            nn.init.zeros_(network.last.bias)
            return network
        if len(c.shape) != 3:
            raise ValueError(f"initializer_network = '{c.initializer_network}' needs images [C, H, W], got shape {c.shape}; use 'mlp'")
        if c.initializer_network == "unet":
            fields = dict(width=width, blocks=blocks, multipliers=c.initializer_multipliers)
            return UNet(c.shape, out=c.shape[0], classes=classes, **fields)
        return PatchNet(c.shape, out=c.shape[0], vector=0, width=width, blocks=blocks, patch=c.initializer_patch, classes=classes)

    def _tabulate(self) -> None:
        """Constants of the levels t = 0 … T−1 as buffers, so that a chain indexes them on its device."""
        c, s = self.config, self.schedule
        levels, top = range(c.levels), c.levels - 1
        step_alpha, step_variance = [s.signal[t + 1] / s.signal[t] for t in levels], self._step_variances()
        alpha = [1.0 if t == top else step_alpha[t] for t in levels]
        spread = [s.noise[t] / s.noise[t + 1] * math.sqrt(step_variance[t]) for t in levels]
        tables = {
            "alpha_next": alpha,  # α_{t+1}
            "pull": [0.0 if t == top else 1 / step_variance[t] for t in levels],  # 1/σ²_{t+1} of the quadratic term
            "step_size": [math.sqrt(c.step * s.noise[t] * step_variance[t]) for t in levels],  # s_t, eq. 5.14
            "proposal_std": [alpha[t] * spread[t] for t in levels],  # α_{t+1} σ̃_t
            "variance": [alpha[t] ** 2 * (s.signal[t] ** 2 * c.data_std**2 + s.noise[t] ** 2) for t in levels],  # of y_t if N(0, s²)
            "sigma": list(s.noise[:-1]),
            "ratio": [s.signal[t] * c.data_std / s.noise[t] for t in levels],  # of the spread of data to that of the noise in x_t
            "noise_share": [s.noise[t] / math.hypot(s.signal[t] * c.data_std, s.noise[t]) for t in levels],  # of the std of y_t
            "weight": [math.sqrt(step_variance[0] / step_variance[t]) ** c.weight_power for t in levels],
        }
        for name, values in tables.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32), persistent=False)

    def _step_variances(self) -> list[float]:
        """σ²_{t+1} = 1 − α²_{t+1} for t = 0 … T−1."""
        signal = self.schedule.signal
        return [1 - (after / before) ** 2 for before, after in zip(signal, signal[1:])]

    # --- the densities

    def energy(self, x: Tensor, *, t: Tensor | int = 0, label: Tensor | int | None = None) -> Tensor:
        """The marginal energy of x_t = ᾱ_t x₀ + σ̄_t ε, or given a label, in nats up to log Z: [B, ...] -> [B].

        −f(α_{t+1} x; t), as the networks model y_t = α_{t+1} x_t; without the quadratic term. `t` is 0 … T−1, one or [B]; level 0
        is the data but for noise of σ̄_0 = 0.0074. Raises InputError for other levels, and labels that the model does not know.
        """
        t = self._levels(t, x)
        return self.marginal(self._row("alpha_next", t, x) * x, t, self._labels(label, len(x), x.device))

    def marginal(self, y: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """−f(y_t; t), or −f(y_t; c, t), for y_t = α_{t+1} x_t: [B, ...] and levels [B] -> [B], nats.

        With readout "scalar" the network's one output is f̂, as in the paper. With "inner" it puts out a map m in the shape of y
        and a number l, and E = ½‖u‖² + r_t ⟨u, m(u, t)⟩ − l(u, t)/σ̄_t: u is y in units of its standard deviation if the data were
        N(0, s² I), r_t = ᾱ_t s/σ̄_t. The slope then has a direct path to every pixel, as in a denoiser (cf. Du et al. 2023, sec.
        4.1), and m has the same size at every level.
        """
        c = self.config
        width = self._row("variance", t, y).sqrt() if c.data_std else 1.0
        u = y / width
        if c.waves:
            u = self._with_waves(u, t)
        value = self.net(u, t, label) if c.conditional else self.net(u, t)
        if c.readout == "inner":
            fields, value = value
            # sums over pixels lose bits in bf16
            inner = (u * fields.float().view_as(u)).flatten(1).sum(1)
            return gaussian(u) + self.ratio[t] * inner - value.float()[:, 0] / self.sigma[t]
        if c.scale == "step":
            value = value / self.step_size[t].square()
        return gaussian(y / width) - value if c.data_std else -value

    def _with_waves(self, u: Tensor, t: Tensor) -> Tensor:
        """u and sin, cos of ωu for ω = 2, 4, 8 …, times 2/ω and the exp(−ω²σ²/2) that noise σ leaves of a wave, [B, D·(1 + 2·waves)]."""
        u = u.flatten(1)
        frequencies = 2.0 ** torch.arange(1, self.config.waves + 1, device=u.device)
        # weights of equal size shall mean slopes of equal size: rough energies run away from the chains
        fade = (2 / frequencies * torch.exp(-0.5 * (frequencies * self.noise_share[t][:, None]).square()))[:, None]  # [B, 1, waves]
        angle = u[:, :, None] * frequencies
        return torch.cat([u, (fade * angle.sin()).flatten(1), (fade * angle.cos()).flatten(1)], 1)

    def posterior(self, z: Tensor, *, t: Tensor, x_next: Tensor, unit: Tensor, label: Tensor | None = None) -> Tensor:
        """The energy of p(y_t | x_{t+1}), eq. 5.1, in the coordinate z = y/unit: chains of step 1 in z have a step for each row."""
        y = unit * z
        return self.marginal(y, t, label) + self.bridge(y, x_next, t)

    def bridge(self, y: Tensor, x_next: Tensor, t: Tensor) -> Tensor:
        """‖y_t − x_{t+1}‖²/(2σ²_{t+1}), [B]; 0 at the top level, where x_T is pure noise."""
        return 0.5 * self.pull[t] * (y - x_next).flatten(1).square().sum(1)

    def proposal_mean(self, x_next: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """g(x_{t+1}; t), the mean of the initializer's proposal for y_t (eq. 5.4): [B, ...] -> [B, ...]."""
        c = self.config
        out = self.initializer(x_next, t + 1, label) if c.conditional else self.initializer(x_next, t + 1)
        out = (out if isinstance(out, Tensor) else out[0]).reshape(x_next.shape).to(x_next)
        if c.predict == "y":  # as a difference from x_{t+1}, where an untrained initializer thus starts, like DRL
            return x_next + out
        alpha, sigma = self.schedule.alpha(t + 1, x_next), self.schedule.sigma(t + 1, x_next)
        x0 = out if c.predict == "x0" else (x_next - sigma * out) / alpha
        return self._row("alpha_next", t, x_next) * self.schedule.posterior(x0, x_next, t + 1, t)[0]

    # --- training

    @property
    def default_guidance(self) -> float:
        return self.config.guidance

    @property
    def abilities(self) -> frozenset[str]:
        c = self.config
        found = {"sample", "energy", "start"} | ({"constraint"} if c.sampler == "langevin" else set())
        if not c.conditional:
            return frozenset(found | {"denoise"})
        return frozenset(found | {"labels"} | ({"concepts", "denoise"} if c.label_dropping else set()))

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        c = self.config
        optimizers = {"energy": torch.optim.Adam(self.net.parameters(), lr=c.lr, betas=(0.9, 0.999), fused=True)}
        if c.initializer:
            fields = dict(lr=c.initializer_lr, betas=(0.9, 0.999), weight_decay=0.0, fused=True)
            optimizers["initializer"] = torch.optim.AdamW(self.initializer.parameters(), **fields)
        return optimizers

    def learning_rate(self, name: str, images: int) -> float:
        """Linear warm-up, the initializer's `ahead` (eq. 5.13); with `decay` a cosine to zero at `images` of the config."""
        c = self.config
        updates = images / c.batch + (c.ahead if name == "initializer" else 0)
        return warm_up_cosine(updates, c.warm_up, images / c.images if c.decay else 0.0)

    def step(self, batch: Batch, update) -> None:
        c, g, x0 = self.config, update.generator, batch.x
        t = random.integers(len(x0), 0, c.levels, generator=g, device=x0.device)
        label = self._dropped(batch.label, g) if c.conditional else None
        e = random.normal_like(x0, g)
        y, x_next = self.schedule.pair(x0, t, e, None if c.variance_reduction else random.normal_like(x0, g))
        start, mean = x_next, None
        if c.initializer:
            mean = self.proposal_mean(x_next, t, label)
            start = mean.detach() + self._row("proposal_std", t, x0) * random.normal_like(x0, g)  # eq. 5.4
        trace = sample.Trace()
        refined = self.refine(start, x_next, t, label=label, generator=g, trace=trace, compile=c.compile)  # eq. 5.3
        # the loss is on the network's output: its factor, 1/s_t² or r_t, spans two to three orders of magnitude between levels
        factor = 1 / self.ratio if c.readout == "inner" else self.step_size.square() if c.scale == "step" else torch.ones_like(self.weight)
        weight = (self.weight * factor)[t]
        loss, data, samples = recovery(self.marginal, y, refined, weight, t, label)
        update("energy", loss)  # eq. 5.5
        if c.initializer:
            from_data = c.learn_from == "data" or (c.data_first and update.images < c.data_first * c.images)
            update("initializer", squared_error(mean, y if from_data else refined))  # eq. 5.6 without its weight
        update.log(energy_data=data, energy_samples=samples, displacement=trace.displacement)
        self._adapt(trace, t, update)

    def refine(
        self,
        y: Tensor,
        x_next: Tensor,
        t: Tensor,
        *,
        label: Tensor | None = None,
        energy: Callable[[Tensor, Tensor], Tensor] | None = None,
        steps: int | None = None,
        generator: random.Generator = None,
        trace: sample.Trace | None = None,
        compile: bool = False,
        project: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """y_t [B, ...] after K steps towards p(y_t | x_{t+1}), eq. 5.3, with frozen networks.

        `energy` (y, t) -> [B] stands in for the marginal energy where given. Where `steps` n differ from the config's K, Langevin's
        s_t is scaled by √(K/n) (the sampling adjustment of sec. 5.4.2). `project` is applied to y_t after each step.
        """
        c = self.config
        steps = c.steps if steps is None else steps
        unit = self._row("step_size", t, y) * self._row("step_scale", t, y)
        if c.sampler == "langevin" and steps:
            unit = unit * math.sqrt(c.steps / steps)
        condition = dict(t=t, x_next=x_next, unit=unit) | ({} if label is None else {"label": label})
        target: Energy = self.posterior
        if energy is not None:
            target, condition = (lambda z: energy(unit * z, t) + self.bridge(unit * z, x_next, t)), {}
        z = y / unit
        if z.dim() == 4 and z.shape[1] > 1:
            z = z.to(memory_format=torch.channels_last)
        common = dict(generator=generator, trace=trace, **condition)
        with frozen(self.net):
            if c.sampler == "langevin":
                onto = None if project is None else lambda z: project(unit * z) / unit
                return unit * sample.langevin(target, z, steps=steps, step=1.0, compile=compile, project=onto, **common)
            if not c.jumps:
                return unit * sample.mala(target, z, steps=steps, step=1.0, **common)
            for done in range(0, steps, c.jump_every):
                z = sample.mala(target, z, steps=min(c.jump_every, steps - done), step=1.0, **common)
                z = self._jump(target, z, x_next, t, unit, generator, condition)
        return unit * z

    def _jump(self, target: Energy, z: Tensor, x_next: Tensor, t: Tensor, unit: Tensor, generator, condition: dict) -> Tensor:
        """Metropolis–Hastings with the quadratic term's own Gaussian as proposal: the weights of modes that MALA cannot cross between."""
        pull = self._row("pull", t, z)
        centre = torch.where(pull > 0, x_next, 0.0) / unit
        width = torch.where(pull > 0, pull, 1.0).rsqrt() / unit
        return sample.independence(
            target,
            z,
            propose=lambda n: centre + width * random.normal_like(z, generator),
            proposal_energy=lambda z: gaussian((z - centre) / width),
            steps=self.config.jumps,
            generator=generator,
            **condition,
        )

    def _adapt(self, trace: sample.Trace, t: Tensor, update) -> None:
        """Log MALA's acceptance, and move each level's step towards the wanted one, the same on every rank."""
        c = self.config
        if trace.acceptance is None:
            return
        update.log(acceptance=trace.acceptance)
        if c.target_acceptance:
            here = nn.functional.one_hot(t, c.levels).to(trace.acceptance)
            count, excess = update.mean(torch.stack([here.sum(0), (trace.acceptance - c.target_acceptance) @ here]))
            self.step_scale.mul_(torch.exp(0.1 * excess / count.clamp_min(1e-6))).clamp_(1e-3, 1e3)

    def _dropped(self, label: Tensor, generator: random.Generator) -> Tensor:
        """Labels [B], −1 (none) for a share `label_dropping`; of several concepts [B, M], one is picked at random for each row."""
        if label.dim() == 2:
            pick = random.integers(len(label), 0, label.shape[1], generator=generator, device=label.device)
            label = label.gather(1, pick[:, None])[:, 0]
        drop = random.uniform(len(label), generator=generator, device=label.device) < self.config.label_dropping
        return label.masked_fill(drop, -1)

    # --- sampling

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        label: Tensor | int | None = None,
        guidance: float | list[float] | None = None,
        guide: Literal["both", "initializer"] | None = None,
        steps: int | None = None,
        use: Literal["both", "initializer", "energy"] = "both",
        start: Tensor | None = None,
        chain_seed: int | None = None,
        shared: Literal["nothing", "proposals", "all"] = "nothing",
        constraint: sample.Constraint | None = None,
        resample: int | None = None,
        down_to: int = 0,
        denoise: bool = True,
    ) -> Tensor:
        """`n` samples down the levels from x_T ~ N(0, I) (Algorithm 5), [n, ...]; images in [−1, 1], latents as they are.

        `label`: one, [n], or [n, M] for M concepts at once (eq. 5.11), −1 for none. `guidance` w, one number or one for each concept,
        weighs concepts by 1 + w (eq. 5.9, 5.12), the initializer's means alike (eq. 5.10); w < −1 is "not that concept". With
        `guide` "initializer" energies are weighed by 1 + min(w, 0), so that only the proposals are guided. A model with labels
        gives unconditional samples where `label` is None, or samples of all classes in turn if it never dropped them.
        `steps` K at each level, with s_t scaled by √(K_trained/K) (sec. 5.4.2). `use` the proposals alone, or the energies
        alone with chains that start at x_{t+1} (sec. 5.4.10). `seed` sets x_T and the proposals, `chain_seed` the Langevin noise
        (by default `seed` too); `start` gives x_T itself, `shared` all rows one noise of
        the proposals (Figure 5.9c), or of the chains too.
        `constraint` puts back what is known of x_t after each proposal and each Langevin step (sec. 5.4.7); with `resample` > 1 each
        level below the top is drawn as often, noised up again in between, which brings known and free pixels, or concepts, together.
        `down_to` > 0 stops at that level, with samples x_t as they are. At level 0 `denoise` takes its noise off by eq. 5.16.
        """
        c = self.config
        device = self.step_scale.device
        if use not in ("both", "initializer", "energy"):
            raise InputError(f"cdrl: use must be 'both', 'initializer' or 'energy', got {use!r}")
        if shared not in ("nothing", "proposals", "all"):
            raise InputError(f"cdrl: shared must be 'nothing', 'proposals' or 'all', got {shared!r}")
        if use == "initializer" and not c.initializer:
            raise InputError("cdrl: this model has no initializer to sample with")
        if steps is not None and steps < 0:
            raise InputError(f"cdrl: steps must be 0 or more, got {steps}")
        if start is not None and tuple(start.shape) != (n, *c.shape):
            raise InputError(f"cdrl: start must have shape {(n, *c.shape)}, got {tuple(start.shape)}")
        if constraint is not None and c.sampler != "langevin":
            raise InputError("cdrl: constraints need sampler = 'langevin': Metropolis-adjusted chains would not stay on them")
        resample = c.resample if resample is None else resample
        guide = c.guide if guide is None else guide
        if guide not in ("both", "initializer"):
            raise InputError(f"cdrl: guide must be 'both' or 'initializer', got {guide!r}")
        if guide == "initializer" and not c.initializer:
            raise InputError("cdrl: guide = 'initializer' needs an initializer")
        if resample < 1:
            raise InputError(f"cdrl: resample must be 1 or more, got {resample}")
        if not 0 <= down_to < c.levels:
            raise InputError(f"cdrl: down_to must be a level from 0 to {c.levels - 1}, got {down_to}")
        s = self.schedule
        key = (seed if chain_seed is None else chain_seed, 5)
        outer: random.Generator = random.seeded(seed, 4, device=device)
        inner: random.Generator = random.seeded(*key, device=device)
        concepts, weights = self._concepts(n, label, guidance, device)
        energy = self._guided(concepts, weights if guide == "both" else [min(w, 1.0) for w in weights])
        x = random.normal(n, *c.shape, generator=outer, device=device) if start is None else start.to(device)
        if shared != "nothing":  # a generator of its own for each row, all with one seed
            outer = tuple(random.seeded(seed, 6, device=device) for _ in range(n))
        if shared == "all":
            inner = tuple(random.seeded(*key, device=device) for _ in range(n))
        if constraint is not None:
            x = constraint(x, s.signal[-1], s.noise[-1])
        for level in reversed(range(down_to, c.levels)):
            t = torch.full((n,), level, device=device)
            alpha = float(self.alpha_next[level])
            known = None
            if constraint is not None:  # of y_t = α_{t+1} x_t
                known = partial(_put_back, constraint, alpha * s.signal[level], alpha * s.noise[level])
            y = x
            for again in range(resample if level < c.levels - 1 else 1):
                if again:  # back up: x_{t+1} = y_t + σ_{t+1} ξ
                    x = y + float(self.pull[level]) ** -0.5 * random.normal_like(y, outer)
                    x = x if constraint is None else constraint(x, s.signal[level + 1], s.noise[level + 1])
                y = x
                if c.initializer and use != "energy":
                    mean = self._guided_mean(x, t, concepts, weights)
                    y = mean + self._row("proposal_std", t, x) * random.normal_like(mean, outer)
                    y = y if known is None else known(y)
                if use != "initializer":
                    y = self.refine(y, x, t, energy=energy, steps=steps, generator=inner, project=known)
            x = y / alpha
        if down_to:
            return x
        if denoise and c.tweedie and use != "initializer":
            x = self._tweedie(x, t, energy, c.tweedie)
        return x.clamp(-1, 1).contiguous() if len(c.shape) == 3 and not c.autoencoder else x

    def _guided(self, concepts: list[Tensor], weights: list[float]) -> Callable[[Tensor, Tensor], Tensor]:
        """(y, t) -> E₀ + Σ wᵢ (Eᵢ − E₀), the energy of y_t given all concepts (eq. 5.9, 5.11, 5.12)."""
        if not concepts:
            return self.marginal
        if weights == [1.0]:
            return lambda y, t: self.marginal(y, t, concepts[0])

        def energy(y: Tensor, t: Tensor) -> Tensor:
            given = [lambda y, label=label: self.marginal(y, t, label) for label in concepts]
            return compose(given, lambda y: self.marginal(y, t), weights)(y)

        return energy

    def _guided_mean(self, x_next: Tensor, t: Tensor, concepts: list[Tensor], weights: list[float]) -> Tensor:
        """The same sum of the initializer's means (eq. 5.10)."""
        if weights == [1.0]:
            return self.proposal_mean(x_next, t, concepts[0])
        free = self.proposal_mean(x_next, t)
        return free + sum(w * (self.proposal_mean(x_next, t, label) - free) for w, label in zip(weights, concepts))

    def _tweedie(self, x: Tensor, t: Tensor, energy: Callable[[Tensor, Tensor], Tensor], coefficient: float = 1.0) -> Tensor:
        """The expectation of x₀ given x_t, (x_t + c σ̄_t² ∇ log p_t(x_t))/ᾱ_t (eq. 5.16)."""
        alpha, sigma = self.schedule.alpha(t, x), self.schedule.sigma(t, x)
        with frozen(self.net):
            slope = score(lambda x: energy(self._row("alpha_next", t, x) * x, t), x)
        return (x + coefficient * sigma.square() * slope) / alpha

    @torch.no_grad()
    def denoise(self, y: Tensor, std: float, *, steps: int = 100, seed: int = 0) -> Tensor:
        """An estimate of the expectation of x given y = x + std·ε, [B, ...] -> [B, ...].

        Where std is the σ̄_t/ᾱ_t of a level within 1 %, or below that of level 0: Tweedie's formula there, exact for the model. Else
        the mean over the second half of `steps` Langevin steps on the level below, given ᾱ_t y = x_t + w ε with the rest w of the
        noise, and then Tweedie's formula. Raises InputError for std ≤ 0, and for a model without unconditional energies.
        """
        c, s = self.config, self.schedule
        if not std > 0:
            raise InputError(f"cdrl: denoise needs std above 0, got {std}")
        if c.conditional and not c.label_dropping:
            raise InputError("cdrl: denoise needs unconditional energies, which label_dropping = 0 does not train")
        ratios = [b / a for a, b in zip(s.signal[:-1], s.noise[:-1])]
        level = max([t for t, ratio in enumerate(ratios) if ratio < 1.01 * std], default=0)
        t = torch.full((len(y),), level, device=y.device)
        scaled = s.signal[level] * y
        if std > 1.01 * ratios[level]:
            width = s.signal[level] * math.sqrt(std**2 - ratios[level] ** 2)
            step = min(float(self.step_size[level] * self.step_scale[level]), 0.5 * width)
            generator = random.seeded(seed, 6, device=y.device)
            with frozen(self.net):
                scaled = sample.posterior_mean(lambda x: self.energy(x, t=t), scaled, width, steps=steps, step=step, generator=generator)
        return self._tweedie(scaled, t, self.marginal)

    # --- small helpers

    def _row(self, name: str, t: Tensor, like: Tensor) -> Tensor:
        """The table `name` at levels t [B], shaped to multiply `like` [B, ...]."""
        return getattr(self, name)[t].view(-1, *[1] * (like.dim() - 1))

    def _levels(self, t: Tensor | int, x: Tensor) -> Tensor:
        if isinstance(t, int) and not 0 <= t < self.config.levels:
            raise InputError(f"cdrl: energies are defined at levels 0 to {self.config.levels - 1}, got t = {t}")
        return torch.as_tensor(t, device=x.device).expand(len(x))

    def _labels(self, label: Tensor | int | None, n: int, device: torch.device) -> Tensor | None:
        c = self.config
        if label is None:
            return None
        if not c.conditional:
            raise InputError("this cdrl model is unconditional: it takes no label")
        label = torch.as_tensor(label, device=device)
        label = label.expand(n) if label.dim() == 0 else label
        if label.dim() > 2 or len(label) != n or label.min() < -1 or label.max() >= c.classes:
            low, high = int(label.min()), int(label.max())
            raise InputError(
                f"cdrl: {n} labels between 0 and {c.classes - 1} (−1 for none) are needed, got {len(label)} from {low} to {high}"
            )
        return label

    def _concepts(
        self, n: int, label: Tensor | int | None, guidance: float | list[float] | None, device: torch.device
    ) -> tuple[list[Tensor], list[float]]:
        """Labels [n] of each concept and its weight 1 + w."""
        c = self.config
        if label is None and c.conditional and not c.label_dropping:
            label = torch.arange(n) % c.classes
        label = self._labels(label, n, device)
        if label is None:
            return [], []
        concepts = list(label.unbind(1)) if label.dim() == 2 else [label]
        w = c.guidance if guidance is None else guidance
        weights = [1.0 + v for v in (w if isinstance(w, list | tuple) else [w] * len(concepts))]
        if len(weights) != len(concepts):
            raise InputError(f"cdrl: one guidance for each of {len(concepts)} concepts is needed, got {len(weights)}")
        # a concept that no row asks for is not evaluated
        asked = [(concept, weight) for concept, weight in zip(concepts, weights) if (concept >= 0).any()]
        concepts, weights = [concept for concept, _ in asked], [weight for _, weight in asked]
        if not c.label_dropping and (weights != [1.0] or not asked):
            raise InputError("cdrl: guidance and composition need unconditional energies, which label_dropping = 0 does not train")
        return concepts, weights


def _put_back(constraint: sample.Constraint, signal: float, noise: float, y: Tensor) -> Tensor:
    return constraint(y, signal, noise)


# Toys: the paper's s_0 = 0.005 is for images, whose p(y_0 | x_1) is narrow; in the plane it is as wide as σ_1, and 15 such steps
# move 0.02. Metropolis-adjusted chains find each level's step, and have no discretisation error that the energy would absorb;
# without jumps samples of 25gaussians look right while the energy's mode weights are wrong. Three levels for the same reason: with six
# σ_1 is 0.25, and p(y_0 | x_1) hardly sees two modes at once (both seen in single trials, not in a benchmark).
_TOY = dict(
    data_std=1.4, width=192, waves=3, scale="nats", levels=3, sampler="mala", steps=15, jumps=3, target_acceptance=0.6, weight_power=0.0,
    tweedie=1.0, batch=1024, images=1_200_000, lr=1e-3, initializer_lr=1e-3, warm_up=100, ahead=50, decay=True, ema=0.999,
)  # fmt: skip
# Small images. Ours: the inner read-out and rates for minutes, not days (studies/cdrl_ablation)
_SMALL = dict(
    readout="inner", data_std=0.85, weight_power=0.0, batch=256, lr=1e-3, initializer_lr=1e-3, warm_up=100, ahead=50, decay=True, ema=0.999,
)  # fmt: skip
_DIGITS = dict(
    data="digits", shape=(1, 8, 8), width=512, depth=3, initializer_width=512, initializer_blocks=3, images=500_000, **_SMALL,
)  # fmt: skip
# guidance found on held-out pairs of inked digits (studies/cdrl composition)
_COMPOSED = _DIGITS | dict(conditional=True, data_first=0.6, guide="initializer", guidance=0.75, resample=4)
_INKED = _COMPOSED | dict(data="inked-digits", shape=(3, 8, 8), classes=15, images=850_000)
_PAIRED = _COMPOSED | dict(data="paired-digits", shape=(1, 8, 16), classes=20)
_COLOURED = _COMPOSED | dict(data="coloured-digits", shape=(3, 8, 8), classes=20, images=600_000)
# 28 pixels are 7×7 patches; not run at length, not measured
_FASHION = dict(
    data="fashion-mnist", shape=(1, 28, 28), network="patch", width=64, blocks=4, patch=4, initializer_network="patch",
    initializer_width=64, initializer_blocks=4, initializer_patch=4, images=2_000_000, **_SMALL,
)  # fmt: skip
# sec. 5.4.4 at a small scale: latents of 28×28 pixels are 4×7×7, of deviation 1
_LATENT = dict(
    data="fashion-mnist", shape=(4, 7, 7), autoencoder="runs/autoencoder", width=512, depth=3, initializer_width=512,
    initializer_blocks=3, images=500_000, data_first=0.6, **_SMALL | dict(data_std=1.0),
)  # fmt: skip
# tables 5.6, 5.7 and sec. 5.4.8.2. ConvEnergy differs from the paper's network: SiLU for LeakyReLU(0.2), strided convolutions for
# average pooling, residual blocks after (not before) each halving, a linear read-out for ReLU, sum and the product with the embedding
_CIFAR = dict(
    data="hf:uoft-cs/cifar10", shape=(3, 32, 32), network="convnet", widths=(128, 256, 256, 256), blocks=8, spectral_norm=True,
    batch=256, images=102_400_000,
)  # fmt: skip
_CIFAR_INITIALIZER = dict(initializer_network="unet", initializer_width=64, initializer_multipliers=(1, 1, 1, 1), initializer_blocks=3)

CDRL.PRESETS = {
    **{name: Config(data=name, **_TOY) for name in ("8gaussians", "pinwheel", "swissroll", "spiral", "rings", "moons", "checkerboard")},
    # of its narrow modes few proposals hit one: with 3 jumps the weights of modes went astray, seen in trials of 2,000,000 images
    "25gaussians": Config(data="25gaussians", **_TOY | dict(jumps=12)),
    "digits": Config(**_DIGITS),
    "digits-conditional": Config(classes=10, conditional=True, **_DIGITS),
    # concepts composed in sampling, their numbers of values summed: digit × digit, digit × ink, and × background (not at its target yet)
    "paired-digits": Config(**_PAIRED),
    "inked-digits": Config(**_INKED),
    "coloured-digits": Config(**_COLOURED),
    # the baseline without initializer: 30 steps, as in Gao et al. 2021
    "digits-drl": Config(initializer=False, steps=30, **_DIGITS),
    # 28 pixels are 7×7 patches
    "fashion-mnist": Config(**_FASHION),
    "fashion-mnist-latent": Config(**_LATENT),
    # not run here
    "cifar10": Config(**_CIFAR, **_CIFAR_INITIALIZER),
    "cifar10-drl": Config(initializer=False, steps=30, **_CIFAR),
}
