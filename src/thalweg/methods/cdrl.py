"""CDRL and DRL: energies at several noise levels by recovery likelihood. docs/methods/cdrl.md

    t ~ {0 … T−1}, e ~ N(0, I): y = α_{t+1} (ᾱ_t x₀ + σ̄_t e), x_{t+1} = ᾱ_{t+1} x₀ + σ̄_{t+1} e  (Algorithm 4; eq. 5.7 misprints it)
    ŷ ~ N(g(x_{t+1}; t), (α_{t+1} σ̃_t)² I)                                                                                 (eq. 5.4)
    ỹ = K Langevin steps from ŷ on E(y; t) + ‖y − x_{t+1}‖²/(2σ²_{t+1})                                               (eq. 5.1, 5.3)
    update("energy", E(y; t) − E(ỹ; t));  update("initializer", ‖ỹ − g‖²)                                             (eq. 5.5, 5.6)
    samples: x_T ~ N(0, I); for t = T−1 … 0 draw ŷ, then ỹ, and set x_t = ỹ/α_{t+1}                                    (Algorithm 5)

Zhu et al., ICLR 2024; thesis, ch. 5, which writes p ∝ exp(f): here E = −f. At the top level x_T counts as pure noise: no quadratic
term, α_T = 1. Without an initializer chains start at x_{t+1}: this is DRL (Gao et al., ICLR 2021).
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from thalweg import random
from thalweg.chain import MALA, Chain, Langevin, measured_back
from thalweg.compiled import Faster
from thalweg.config import STRICT, Common, Count, DataNeeds, Fraction, NotNegative, Positive, Whole
from thalweg.data.base import Batch
from thalweg.energy import Energy, gaussian, score
from thalweg.errors import InputError
from thalweg.guidance import Concepts, all_of, asked_for, checked_labels, given, some_left_out
from thalweg.levels import CosineLevels, LevelSchedule, LevelTable
from thalweg.methods.base import Method, Update, check_start, finished
from thalweg.nn.build import MLP, ConvNet, MapNetwork, Own, PatchNet, PatchUNet
from thalweg.nn.layers import frozen
from thalweg.nn.log_snr import see_log_snr, start_at_zero
from thalweg.nn.published import RecoveryNet
from thalweg.nn.waves import Waves
from thalweg.objective import recovery, squared_error
from thalweg.particles import Particles, corrected
from thalweg.proposing import latent, lesson, with_latent
from thalweg.replay import AdaptiveStep
from thalweg.sample import Constraint, Trace, posterior_mean


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Config(Common):
    """Settings of `cdrl`."""

    autoencoder: str = ""
    """run folder, exported folder or hub name of an autoencoder in whose latent space the model lives, see thalweg/latent.py"""
    conditional: bool = False
    """model p(x | label) and p(x); of several concepts (labels [B, M]) `classes` is the sum of their numbers of values"""
    label_dropping: Fraction = 0.1
    """share of training labels that are left out, so that p(x) is trained too; 0 trains p(x | label) alone"""
    together: Fraction = 0.0
    """share of images of several concepts that are learned given all of them, by the sum of energies that samples take (eq. 5.11); the
    others given one (paper), from which a model learns which concepts are never seen together (ours)"""
    guidance: float = 1.0
    """default guidance of samples by label, w + 1 of eq. 5.9: 1 samples p(x | label), 0 ignores the label"""
    guide: Literal["both", "initializer"] = "both"
    """what guidance weighs: energies and proposals alike (paper), or the proposals alone with energies at their own weight (ours),
    which stays nearer to the data where guidance is large and for concepts never seen together"""
    resample: Count = 1
    """times that samples draw each level below the top, noised up again in between (ours)"""
    net: Annotated[MLP | ConvNet | PatchNet | PatchUNet | RecoveryNet | Own, Field(discriminator="kind")] = MLP(width=128, depth=3)
    """the energy's network; the paper's is a RecoveryNet"""
    readout: Literal["scalar", "nats", "inner"] = "scalar"
    """how its output f̂ enters the energy: f = f̂/s_t² (paper), f = f̂, or as a map in an inner product with y, see `CDRL.marginal`"""
    waves: Whole = 0
    """octaves of sinusoids of x in addition to x in an MLP's input, see `nn.waves`"""
    data_std: NotNegative = 0.0
    """s, root mean square of the data's entries: the network tilts the exact energies of N(0, s² I); 0 for none (paper)"""
    levels: Annotated[int, Field(ge=2)] = 6
    """T, number of energies"""
    schedule: LevelSchedule = CosineLevels()
    """how the levels mix data and noise"""
    chain: Chain = Langevin(steps=15, step=1.0)
    """how ŷ is refined, in units of s_t. A step that adapts does so at each level, and begins at `step`/2 of σ_{t+1}; jumps are proposed
    from N(x_{t+1}, σ²_{t+1} I), at the top from N(0, I)"""
    step_coefficient: Positive = 0.054
    """b in s_t² = b σ̄_t σ²_{t+1} (eq. 5.14)"""
    initializer: MapNetwork | None = MLP(width=64, depth=2)
    """the network that proposes where chains start; without one they start at x_{t+1} (DRL)"""
    initializer_conditional: bool = True
    """with `conditional`, the initializer is given the label too; in sec. 5.4.6 it is not"""
    initializer_latent: Whole = 0
    """channels of noise z that the initializer is given beside x_{t+1}, so that its proposals may have several modes (ours)"""
    latent_draws: Count = 8
    """of so many z it learns from the data by the one whose mean is nearest (Li and Malik 2018)"""
    predict: Literal["y", "x0", "noise"] = "y"
    """what the initializer predicts (Table 5.9), each as a correction of the best linear guess from x_{t+1}"""
    data_first: Fraction = 0.0
    """share of training in which it learns from the data, and only then the refined ỹ: 0 in the paper, 1 in a row of Table 5.9"""
    data_target: Literal["mean", "y"] = "mean"
    """what it then learns: the mean of q(y_t | x_{t+1}, x_0) (ours, see `CDRL.data_mean`), or y_t itself (Table 5.9)"""
    hand_over: Fraction = 0.0
    """share of training, after `data_first`, over which ever more of a batch learn the refined ỹ; 0 for all at once (ours)"""
    refined_share: Fraction = 1.0
    """share of a batch that does so in the end; the others go on with the data (ours)"""
    refined_target: Literal["end", "mean", "above", "slow"] = "end"
    """what they learn: the chain's end (paper); ours are the mean of its second half, the mean of y_t given x_{t+1} by the energy of the
    level above, and the end of a chain of the EMA twin from the same start"""
    slow_proposals: bool = False
    """chains of training start at proposals of the EMA twin, as those of samples do; without, `data_first` ends in a break (ours)"""
    variance_reduction: bool = True
    """y_t and x_{t+1} from one noise (eq. 5.7); without, x_{t+1} = y_t + σ_{t+1} ε"""
    weight_power: NotNegative = 1.0
    """k in the energy loss's level weights (σ_1/σ_{t+1})^k, on f̂; 0 weighs levels equally"""
    tweedie: NotNegative = 2.0
    """coefficient of the last denoising step of samples (1: Tweedie's formula; 2: the paper); 0 for none"""
    batch: Count = 256
    """images per update"""
    lr: Positive = 1e-4
    """base learning rate of the energy's Adam"""
    lr_initializer: Positive = 1e-5
    """base learning rate of the initializer's AdamW"""
    warm_up: Whole = 10_000
    """updates over which both learning rates rise"""
    ahead: Whole = 500
    """updates by which the initializer's warm-up is ahead (eq. 5.13)"""
    lr_end: Fraction = 1.0
    """share of the learning rates that is left at the end, by a cosine; 1 for constant rates"""
    ema: Fraction = 0.9999
    """decay of the EMA twin"""

    @property
    def data_needs(self) -> DataNeeds:
        return DataNeeds(autoencoder=self.autoencoder)


class CDRL(Method):
    """Energies at several noise levels by recovery likelihood, with or without an initializer; the settings are in `Config`."""

    name = "cdrl"
    Config = Config
    guarded = ("energy_data", "energy_samples")
    held = {"shared": "all"}

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        c = config
        _check(c)
        self.schedule = c.schedule.build(c.levels)
        self.table = LevelTable(self.schedule, step_coefficient=c.step_coefficient, data_std=c.data_std, weight_power=c.weight_power)
        unit = {"scalar": self.table.step.square(), "nats": torch.ones(c.levels), "inner": 1 / self.table.ratio}  # f̂ of one nat
        self.register_buffer("unit", unit[c.readout], persistent=False)
        of_noise = -self.table.x0_share * torch.tensor([b / a for a, b in zip(self.schedule.signal[1:], self.schedule.noise[1:])])
        correction = {"y": torch.ones(c.levels), "x0": self.table.x0_share, "noise": of_noise}  # of the initializer's output in y_t
        self.register_buffer("correction", correction[c.predict], persistent=False)
        self.net, self.initializer = self._build_networks()
        # in units of s_t; adaptation starts at half the width that p(y_t | x_{t+1}) has where the energy is flat
        self.compiled = Faster.of(c.chain)
        target = c.chain.target_acceptance if isinstance(c.chain, MALA) else 0.0
        first = [0.5 / math.sqrt(c.step_coefficient * sigma) if target else 1.0 for sigma in self.schedule.noise[:-1]]
        self.step_size = AdaptiveStep([c.chain.step * size for size in first], target, low=1e-3, high=1e3)

    def _build_networks(self) -> tuple[nn.Module, nn.Module | None]:
        """The energy's (u, t[, label]) -> f̂ [B], or (map, f̂ [B, 1]), and the initializer's (x_{t+1}, t + 1[, label]) -> (map, None).

        Both start at zero, so that an untrained energy is the reference alone, whatever it is multiplied by, and the first chains are sane.
        """
        c = self.config
        classes, seen = (c.classes if by_label else 0 for by_label in (c.conditional, self._proposes_by_label))
        log_snr = [2 * math.log(a / b) for a, b in zip(self.schedule.signal, self.schedule.noise)]
        outputs = dict(out=1, channels=c.shape[0]) if c.readout == "inner" else dict(levels=True)
        inputs = (math.prod(c.shape) * (1 + 2 * c.waves),) if c.waves else c.shape
        net = c.net.build(inputs, classes=classes, **outputs)
        if c.net.kind != "own":  # which is given the levels' numbers, and starts as it is
            net = see_log_snr(start_at_zero(net), log_snr)
        net = Waves(net, c.waves, self.table.noise_share) if c.waves else net
        if c.initializer is None:
            return net, None
        first = partial(with_latent, c.initializer, c.shape, c.initializer_latent, classes=seen)
        return net, first(lambda network: see_log_snr(start_at_zero(network), log_snr))

    @property
    def _proposes_by_label(self) -> bool:
        return self.config.conditional and self.config.initializer_conditional

    @property
    def default_guidance(self) -> float:
        return self.config.guidance

    @property
    def abilities(self) -> frozenset[str]:
        c = self.config
        found = {"sample", "energy", "start"} | ({"constraint"} if isinstance(c.chain, Langevin) else set())
        if not c.conditional:
            return frozenset(found | {"denoise"})
        return frozenset(found | {"labels"} | ({"concepts", "denoise"} if c.label_dropping else set()))

    # --- the densities

    def energy(self, x: Tensor, *, t: Tensor | int = 0, label: Tensor | int | None = None) -> Tensor:
        """The marginal energy of x_t = ᾱ_t x₀ + σ̄_t ε, or given a label, in nats up to log Z: [B, ...] -> [B].

        −f(α_{t+1} x; t), as the networks model y_t = α_{t+1} x_t; without the quadratic term. `t` is 0 … T−1, one or [B]; level 0
        is the data but for noise of σ̄_0 = 0.0074. Raises InputError for other levels, and labels that the model does not know.
        """
        if isinstance(t, int) and not 0 <= t < self.config.levels:
            raise InputError(f"cdrl: energies are defined at levels 0 to {self.config.levels - 1}, got t = {t}")
        t = torch.as_tensor(t, device=x.device).expand(len(x))
        return self.marginal(_rows(self.table.alpha[t], x) * x, t, self._labels(label, len(x)))

    def marginal(self, y: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """−f(y_t; t), or −f(y_t; c, t), for y_t = α_{t+1} x_t: [B, ...] and levels [B] -> [B], nats.

        The network's one output is f̂, as in the paper. With readout "inner" (ours) it puts out a map m in the shape of y and a number
        l, and E = ½‖u‖² + r_t ⟨u, m(u, t)⟩ − l(u, t)/σ̄_t: u is y in units of its standard deviation if the data were N(0, s² I),
        r_t = ᾱ_t s/σ̄_t. The slope then has a direct path to every pixel (cf. Du et al. 2023, sec. 4.1), and m has one size at all
        levels. With labels [B, M] it is the sum of eq. 5.11.
        """
        if label is not None and label.dim() == 2:
            return given(self.marginal, all_of(label))(y, t=t)
        c, std = self.config, _rows(self.table.std[t], y)
        u = y / std
        out = self.net(u, t, label) if c.conditional else self.net(u, t)
        if c.readout == "inner":
            fields, number = out
            # sums over pixels lose bits in bf16
            inner = (u * fields.float().view_as(u)).flatten(1).sum(1)
            return gaussian(u) + self.table.ratio[t] * inner - number.float()[:, 0] / self.table.sigma[t]
        f = out / self.unit[t]
        return gaussian(y / std) - f if c.data_std else -f

    def posterior(self, z: Tensor, *, t: Tensor, x_next: Tensor, unit: Tensor, label: Tensor | None = None) -> Tensor:
        """The energy of p(y_t | x_{t+1}), eq. 5.1, in the coordinate z = y/unit: chains of step 1 in z have a step for each row."""
        y = unit * z
        return self.marginal(y, t, label) + self.bridge(y, x_next, t)

    def bridge(self, y: Tensor, x_next: Tensor, t: Tensor) -> Tensor:
        """‖y_t − x_{t+1}‖²/(2σ²_{t+1}), [B]; 0 at the top level, where x_T is pure noise."""
        return 0.5 * self.table.pull[t] * (y - x_next).flatten(1).square().sum(1)

    def proposal_mean(self, x_next: Tensor, t: Tensor, label: Tensor | None = None, **z: Tensor) -> Tensor:
        """g(x_{t+1}; t), the mean of the initializer's proposal for y_t (eq. 5.4), or g(x_{t+1}, z; t): [B, ...] -> [B, ...].

        The network's output corrects the best linear guess of what it predicts: untrained, it proposes the same whichever that is.
        """
        if label is not None and label.dim() == 2 and self._proposes_by_label:
            return given(self.proposal_mean, all_of(label))(x_next, t=t, **z)
        out, _ = self.initializer(x_next, t + 1, *([label] if self._proposes_by_label else []), **z)
        return _rows(self.table.guess[t], x_next) * x_next + _rows(self.correction[t], x_next) * out.reshape(x_next.shape).to(x_next)

    def propose(self, mean: Tensor, t: Tensor, generator: random.Generator) -> Tensor:
        """ŷ ~ N(mean, (α_{t+1} σ̃_t)² I), eq. 5.4."""
        return mean + _rows(self.table.proposal_std[t], mean) * random.normal_like(mean, generator)

    def data_mean(self, x0: Tensor, x_next: Tensor, t: Tensor) -> Tensor:
        """The mean of q(y_t | x_{t+1}, x_0), [B, ...]: what a proposal's mean is for known x_0.

        Where y_t and x_{t+1} have one noise (eq. 5.7) proposals learned from y_t have all of its noise, and that of eq. 5.4 in addition.
        """
        return _rows(self.table.alpha[t], x0) * self.schedule.posterior(x0, x_next, t + 1, t)[0]

    def refine(
        self,
        y: Tensor,
        x_next: Tensor,
        t: Tensor,
        *,
        label: Tensor | None = None,
        energy: Energy | None = None,
        steps: int | None = None,
        project: Callable[[Tensor], Tensor] | None = None,
        generator: random.Generator = None,
        **options: Any,
    ) -> Tensor:
        """y_t [B, ...] after K steps towards p(y_t | x_{t+1}), eq. 5.3, with frozen networks.

        `energy` (y, t=t) -> [B] stands in for the marginal energy where given. Where `steps` n differ from the config's K, Langevin's
        s_t is scaled by √(K/n) (the sampling adjustment of sec. 5.4.2). `project` is applied to y_t after each step; further options are
        those of a chain.
        """
        chain = self.config.chain
        steps = chain.steps if steps is None else steps
        unit = _rows(self.table.step[t] * self.step_size.size[t], y)
        target: Energy = self.posterior
        condition = dict(t=t, x_next=x_next, unit=unit) | ({} if label is None else {"label": label})
        if energy is not None:
            target, condition = (lambda z: energy(unit * z, t=t) + self.bridge(unit * z, x_next, t)), {}
        if isinstance(chain, MALA):
            options |= {"step": 1.0, "jump": self.table.jump(x_next, t, unit, generator)}
        else:
            options |= {"step": math.sqrt(chain.steps / max(1, steps))}
        onto = None if project is None else lambda z: project(unit * z) / unit
        with frozen(self.net):
            return unit * chain(target, y / unit, steps=steps, project=onto, generator=generator, **options, **condition)

    # --- training

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        c = self.config
        found: dict[str, torch.optim.Optimizer] = {"energy": torch.optim.Adam(self.net.parameters(), lr=c.lr, fused=True)}
        if self.initializer is not None:
            found["initializer"] = torch.optim.AdamW(self.initializer.parameters(), lr=c.lr_initializer, weight_decay=0.0, fused=True)
        return found

    def learning_rate(self, name: str, images: int) -> float:
        """The config's rule, with the initializer's warm-up `ahead` (eq. 5.13)."""
        c = self.config
        return c.rate(images, images / c.batch + (c.ahead if name == "initializer" else 0))

    def step(self, batch: Batch, update: Update) -> None:
        c, g, x0, trace = self.config, update.generator, batch.x, Trace(average=self.config.refined_target == "mean")
        t = random.integers(len(x0), 0, c.levels, generator=g, device=x0.device)
        label = some_left_out(batch.label, c.label_dropping, g, c.together) if c.conditional else None
        e = random.normal_like(x0, g)
        y, x_next = self.schedule.pair(x0, t, e, None if c.variance_reduction else random.normal_like(x0, g))
        z = latent(self.initializer, x0, g)
        mean = None if self.initializer is None else self.proposal_mean(x_next, t, label, **z)
        proposed = update.ema.proposal_mean(x_next, t, label, **z) if mean is not None and c.slow_proposals else mean
        start = x_next if proposed is None else self.propose(proposed.detach(), t, g)  # eq. 5.4
        refined = self.refine(start, x_next, t, label=label, generator=g, trace=trace, compile=self.compiled)  # eq. 5.3
        # the loss is on the network's output: what turns it to nats spans two to three orders of magnitude between levels
        weight = (self.table.weight * self.unit)[t]
        loss, data, samples = recovery(self.marginal, y, refined, weight, t, label)
        update("energy", loss)  # eq. 5.5
        if mean is not None:
            target, share = y if c.data_target == "y" else self.data_mean(x0, x_next, t), self.refined_share(update.images)
            learned = self.refined_target(refined, start, x_next, t, label, trace, update) if share else target
            means, draw = partial(self.proposal_mean, x_next, t, label), partial(latent, self.initializer, x0, g)
            lessons = lesson(mean, learned, target, share, g, means if z else None, draw, c.latent_draws)
            update("initializer", squared_error(*lessons))  # eq. 5.6 without its weight
        update.log(energy_data=data, energy_samples=samples, **trace.figures(y, refined))
        self.step_size.adapt(trace, update, t)

    def refined_share(self, images: int) -> float:
        """Share of a batch whose initializer learns from refined draws after `images` images."""
        c, after = self.config, images - self.config.data_first * self.config.images
        return 0.0 if after < 0 else c.refined_share * (min(1.0, after / (c.hand_over * c.images)) if c.hand_over else 1.0)

    def refined_target(self, end: Tensor, start: Tensor, x_next: Tensor, t: Tensor, label, trace: Trace, update: Update) -> Tensor:
        """What the initializer learns from the energies, [B, ...]: `end` is that of the chain from `start`."""
        kind, pull = self.config.refined_target, _rows(self.table.pull[t], end)
        if kind == "mean":
            return _rows(self.table.step[t] * self.step_size.size[t], end) * trace.mean
        if kind == "slow":
            return self.refine(start, x_next, t, energy=partial(update.ema.marginal, label=label), generator=update.generator)
        if kind == "end":
            return end
        above = (t + 1).clamp(max=self.config.levels - 1)  # Tweedie's formula, as x_{t+1} = y_t + σ_{t+1} ε is of that level
        with frozen(self.net):
            slope = score(lambda x: self.marginal(_rows(self.table.alpha[above], x) * x, above, label), x_next)
        return torch.where(pull > 0, x_next + slope / pull, end)

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
        constraint: Constraint | None = None,
        resample: int | None = None,
        corrections: int = 0,
        population: int = 1,
        down_to: int = 0,
        denoise: bool = True,
    ) -> Tensor:
        """`n` samples down the levels from x_T ~ N(0, I) (Algorithm 5), [n, ...]; images in [−1, 1], latents as they are.

        `label`: one, [n], or [n, M] for M concepts at once (eq. 5.11), −1 for none. `guidance`, one number or one for each concept,
        weighs concepts (w + 1 of eq. 5.9, 5.12) and the initializer's means alike (eq. 5.10): 1 is p(x | label), 0 ignores the concept,
        below 0 is "not that concept". With `guide` "initializer" energies are weighed by at most 1, so that only the proposals are guided.
        A model with labels gives unconditional samples where `label` is None, or samples of all classes in turn if it never dropped them.
        `steps` K at each level, with s_t scaled by √(K_trained/K) (sec. 5.4.2). `use` the proposals alone, or the energies
        alone with chains that start at x_{t+1} (sec. 5.4.10). `seed` sets x_T and the proposals, `chain_seed` the Langevin noise
        (by default `seed` too); `start` gives x_T itself, `shared` all rows one noise of the proposals (Figure 5.9c), or of the chains too.
        `constraint` puts back what is known of x_t after each proposal and each Langevin step (sec. 5.4.7); with `resample` > 1 each
        level below the top is drawn as often, noised up again in between, which brings known and free pixels, or concepts, together.
        `corrections` steps of MALA follow at each level on its energy alone, composed and guided; with a `population` > 1 p(x) moves so
        many particles a sample, and their weights make them draws of the composed energies, see `thalweg.particles` (both ours).
        `down_to` > 0 stops at that level, with samples x_t as they are. At level 0 `denoise` takes its noise off by eq. 5.16.
        """
        c, s, device = self.config, self.schedule, self.device
        guide, resample = c.guide if guide is None else guide, c.resample if resample is None else resample
        self._check_request(n, use, shared, guide, steps, start, resample, corrections, population, constraint, down_to)
        rows, concepts = n * population, self._concepts(n, label, c.guidance if guidance is None else guidance)
        concepts = [(label.repeat_interleave(population), weight) for label, weight in concepts]
        mean = given(self.proposal_mean, concepts if self._proposes_by_label and population == 1 else [])
        energy = given(self.marginal, concepts if guide == "both" else [(label, min(weight, 1.0)) for label, weight in concepts])
        moving = energy if population == 1 else self.marginal
        crowd = Particles(n, population, lambda y, t: energy(y, t=t) - self.marginal(y, t))
        first, proposals, chains = random.of_samples(rows, seed, seed if chain_seed is None else chain_seed, shared, device)

        def draw(x: Tensor, t: Tensor, known: Callable[[Tensor], Tensor] | None) -> Tensor:
            alone, z = use == "energy" or self.initializer is None, latent(self.initializer, x, proposals)
            proposed = x if alone else self.propose(mean(x, t=t, **z), t, proposals)
            y = proposed if known is None or proposed is x else known(proposed)
            return y if use == "initializer" else self.refine(y, x, t, energy=moving, steps=steps, generator=chains, project=known)

        def up(y: Tensor, level: int) -> Tensor:
            x = y + float(self.table.pull[level]) ** -0.5 * random.normal_like(y, proposals)  # y_t + σ_{t+1} ξ
            return x if constraint is None else constraint(x, s.signal[level + 1], s.noise[level + 1])

        x = random.normal(rows, *c.shape, generator=first, device=device) if start is None else start.to(device)
        x = x if constraint is None else constraint(x, s.signal[-1], s.noise[-1])
        for level in reversed(range(down_to, c.levels)):
            t, alpha = torch.full((rows,), level, device=device), float(self.table.alpha[level])
            known = measured_back(constraint, alpha * s.signal[level], alpha * s.noise[level])  # of y_t = α_{t+1} x_t
            y = draw(x, t, known)
            for _ in range(resample - 1 if level < c.levels - 1 else 0):
                y = draw(up(y, level), t, known)
            correct = partial(corrected, partial(energy, t=t), corrections, alpha * s.noise[level], known, chains)
            with frozen(self.net):
                x = crowd.follow(y, t, correct, chains) / alpha
        if denoise and c.tweedie and use != "initializer" and not down_to:
            x = self._tweedie(x, t, energy, c.tweedie)
        x = crowd.chosen(x, chains)
        return x if down_to or c.autoencoder else finished(x)

    def _check_request(self, n: int, use, shared, guide, steps, start, resample, corrections, population, constraint, down_to) -> None:
        c, alone, bound = self.config, self.initializer is None, (constraint, start, shared) != (None, None, "nothing")
        check_start(self, start, n)
        _refuse(
            (use not in ("both", "initializer", "energy"), f"use must be 'both', 'initializer' or 'energy', got {use!r}"),
            (shared not in ("nothing", "proposals", "all"), f"shared must be 'nothing', 'proposals' or 'all', got {shared!r}"),
            (guide not in ("both", "initializer"), f"guide must be 'both' or 'initializer', got {guide!r}"),
            (use == "initializer" and alone, "this model has no initializer to sample with"),
            (guide == "initializer" and alone, "guide = 'initializer' needs an initializer"),
            (guide == "initializer" and not c.initializer_conditional, "guide = 'initializer' needs initializer_conditional = True"),
            (steps is not None and steps < 0, f"steps must be 0 or more, got {steps}"),
            (resample < 1, f"resample must be 1 or more, got {resample}"),
            (corrections < 0, f"corrections must be 0 or more, got {corrections}"),
            (population < 1, f"population must be 1 or more, got {population}"),
            (use == "initializer" and (corrections, population) != (0, 1), "corrections and a population need energies: use = 'both'"),
            (population > 1 and not (c.conditional and c.label_dropping), "a population needs a model of p(x | label) and of p(x)"),
            (population > 1 and bound, "a population takes no constraint, no start and no shared noise"),
            (not 0 <= down_to < c.levels, f"down_to must be a level from 0 to {c.levels - 1}, got {down_to}"),
        )

    def _tweedie(self, x: Tensor, t: Tensor, energy: Energy, coefficient: float = 1.0) -> Tensor:
        """The expectation of x₀ given x_t, (x_t + c σ̄_t² ∇ log p_t(x_t))/ᾱ_t (eq. 5.16)."""
        alpha, sigma = self.schedule.alpha(t, x), self.schedule.sigma(t, x)
        with frozen(self.net):
            slope = score(lambda x: energy(_rows(self.table.alpha[t], x) * x, t=t), x)
        return (x + coefficient * sigma.square() * slope) / alpha

    @torch.no_grad()
    def denoise(self, y: Tensor, std: float, *, steps: int = 100, seed: int = 0) -> Tensor:
        """An estimate of the expectation of x given y = x + std·ε, [B, ...] -> [B, ...].

        At a level's noise within 1 %, or below that of level 0: Tweedie's formula there, exact for the model. Else the mean over half
        of `steps` Langevin steps on the level below, and then that. Raises InputError for std ≤ 0 and without unconditional energies.
        """
        _refuse(
            (not std > 0, f"denoise needs std above 0, got {std}"),
            (
                self.config.conditional and not self.config.label_dropping,
                "denoise needs unconditional energies, which label_dropping = 0 does not train",
            ),
        )
        level, width = self.schedule.level_below(std)
        t, x = torch.full((len(y),), level, device=y.device), self.schedule.signal[level] * y
        if width:
            step = min(float(self.table.step[level] * self.step_size.size[level]), 0.5 * width)
            generator = random.seeded(seed, 6, device=y.device)
            with frozen(self.net):
                x = posterior_mean(partial(self.energy, t=t), x, width, steps=steps, step=step, generator=generator)
        return self._tweedie(x, t, self.marginal)

    def _labels(self, label: Tensor | int | None, n: int) -> Tensor | None:
        """Labels [n], or [n, M] of M concepts, −1 for none; None for a model without labels."""
        if label is None:
            return None
        if not self.config.conditional:
            raise InputError("this cdrl model is unconditional: it takes no label")
        return checked_labels(label, n, self.config.classes, self.device)

    def _concepts(self, n: int, label: Tensor | int | None, weights: float | list[float]) -> Concepts:
        c = self.config
        alone = c.conditional and not c.label_dropping
        label = torch.arange(n) % c.classes if label is None and alone else label
        concepts = asked_for(self._labels(label, n), weights)
        if alone and [weight for _, weight in concepts] != [1.0]:
            raise InputError("cdrl: guidance and composition need unconditional energies, which label_dropping = 0 does not train")
        return concepts


# --- small helpers


def _rows(values: Tensor, like: Tensor) -> Tensor:
    """Numbers [B], shaped to multiply `like` [B, ...]."""
    return values.view(-1, *[1] * (like.dim() - 1))


def _refuse(*rules: tuple[bool, str]) -> None:
    for wrong, message in rules:
        if wrong:
            raise InputError(f"cdrl: {message}")


def _check(c: Config) -> None:
    """Settings that do not go together."""
    scalar = c.readout != "inner"
    _refuse(
        (c.conditional and not c.classes, "conditional = True needs data with labels"),
        (c.guide == "initializer" and c.initializer is None, "guide = 'initializer' needs an initializer"),
        (c.guide == "initializer" and not c.initializer_conditional, "guide = 'initializer' needs initializer_conditional = True"),
        (not scalar and not c.data_std, "readout = 'inner' needs data_std above 0"),
        (
            scalar and c.net.kind in ("patch", "patch_unet"),
            f"a net of kind '{c.net.kind}' needs readout = 'inner'; use 'convnet' or 'recovery' for an energy by one scalar",
        ),
        (not scalar and c.net.kind == "recovery", "a net of kind 'recovery' has no map; use readout = 'scalar' or 'nats'"),
        (c.waves > 0 and not (scalar and c.net.kind == "mlp"), "waves are for a net of kind 'mlp' with readout = 'scalar' or 'nats'"),
        (c.chain.steps < 1, "chain.steps must be 1 or more"),
        (isinstance(c.chain, Langevin) and c.chain.clamp, "chain.clamp = True cannot be: chains run in units of s_t"),
    )
