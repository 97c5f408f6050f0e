"""DDAEBM: adversarial energies in a few denoising steps, without Markov chains (Geng et al., ICML 2024). docs/methods/ddaebm.md

    x_s, x_t ~ q (s = t − 1);   x̃_s ~ q(x_s | x_t, x₀ = G(x_t, z, t)),  z ~ N(0, I)                                (eq. 9)
    update("energy",    E(x_s, s) − E(x̃_s, s) + γ/2 ‖∇[E(x_s, s) − log q(x_t | x_s)]‖²)                       (eq. 22, 23)
    update("generator", E(x̃_s, s) − log q(x_t | x̃_s) − log q_ψ(z | x̃_s, x_t)                                     (eq. 17)
                        + λ(s) [KL(q_ψ(z | x_s, x_t) ‖ N(0, I)) − log q(x_s | x_t, G(x_t, z_ψ, t))])              (eq. 19)

The paper's E is −E here: p(x_s | x_t) ∝ exp(−E(x_s, s)) q(x_t | x_s) (eq. 6), and at the optimum exp(−E(·, s)) ∝ q(x_s). Draws x̃_s with
importance weights (`thalweg.importance`) or moved by a short chain, both for the energy's loss alone, are ours.
"""

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from thalweg import importance, noise, random
from thalweg.chain import MALA
from thalweg.config import STRICT, Common, Count, Fraction, NotNegative, Positive, Whole
from thalweg.data.base import Batch
from thalweg.data.logits import LogitTransform
from thalweg.energy import log_normal, value_and_score
from thalweg.errors import InputError
from thalweg.importance import Proposals
from thalweg.methods.base import Method, Update, finished
from thalweg.nn.build import MLP, NICE, MLPEncoder, PatchNet, PatchUNet, UNet
from thalweg.nn.generator import ImageGenerator, VectorGenerator, level_mlp
from thalweg.nn.layers import frozen
from thalweg.nn.steps import StepEncoder, TwoStream
from thalweg.replay import AdaptiveStep
from thalweg.sample import Trace


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Config(Common):
    """Settings of `ddaebm`."""

    net: Annotated[MLP | TwoStream | PatchNet | PatchUNet | UNet | NICE, Field(discriminator="kind")] = MLP(width=300, depth=2)
    """network of the energy, and of the generator: `unet` (the paper), `patch` or `patch_unet` for images, with the energy of eq. 24 and a
    generator of the same kind; `mlp` or `two_stream` (the paper), a scalar, or `nice`, a flow with a normalised energy, for vectors and
    small images, with such a network as generator"""
    encoder: StepEncoder | None = MLPEncoder(width=300, depth=2)
    """network of q_ψ(z | x_s, x_t); without, the first bound loses its entropy (WGAN-0GP in a diffusion), and only "kl" is left"""
    latent: bool = True
    """whether the generator has a latent z; without, z = 0 and there is no encoder"""
    latent_dim: Count = 2
    """d, dimension of z"""
    reference_std: NotNegative = 0.0
    """standard deviation of the Gaussian whose diffused energy the mlp's is added to, 0 for none (the paper)"""
    grey_values: Whole = 0
    """grey values of images that are spread over their bins by uniform noise and modelled in logits (nice, mlp); 0 for x as it is"""
    levels: Count = 4
    """T, denoising steps"""
    beta_min: Positive = 0.1
    """β_min of the noise schedule (eq. 47)"""
    beta_max: Positive = 20.0
    """β_max of the noise schedule (eq. 47)"""
    first_time: Positive = 1e-3
    """t'(0), time of level 0, whose noise is σ̄_0 = 0.01 for the paper's 1e-3; more gives E(x, 0) its right shape, docs/methods/ddaebm.md"""
    spacing: Literal["even", "drl"] = "even"
    """times of the levels: `even`, or `drl`, most of them in the first half (section B.1, LSUN church)"""
    objective: Literal["jeffrey", "kl"] = "jeffrey"
    """divergence that the generator lowers: both directions (eq. 10), or the first alone"""
    elbo_weight: Positive = 1.0
    """w, weight λ of the second bound at t' = 1 (eq. 21)"""
    elbo_weight_mid: Positive = 1.0
    """w_mid, weight λ of the second bound at t' = ½ (eq. 21)"""
    entropy_weight: NotNegative = 1.0
    """weight of −log q_ψ(z | x̃, x_t) in the first bound; 1 in eq. 17, 0.1 in the released code"""
    generated_weight: NotNegative = 1.0
    """weight of the energies of generated points in eq. 22; 0.1 for NICE"""
    proposals: Proposals | None = None
    """weighted draws for the energy's loss, which are ours, in place of the generator's one (the paper)"""
    chain: MALA | None = None
    """steps that the generator's draws take on p(x_s | x_t) before they stand for the energy's in its loss, in units of √β_t, its deviation
    for data of N(0, I); a step that adapts does so at each level; ours, none in the paper"""
    penalty: NotNegative = 0.02
    """γ, weight of the gradient penalty at the start of training (eq. 23)"""
    penalty_end: NotNegative = 0.02
    """γ at the end of training; a cosine leads from one to the other"""
    encoder_floor: Positive = 1e-4
    """smallest variance of q_ψ, in each dimension of z"""
    reconstruction_floor: NotNegative = 1e-2
    """smallest variance of q(x_s | x_t, x₀) in the second bound; at s = 0 its own is 1e-4"""
    compile: bool = False
    """compile pairs and losses: a wait of up to minutes at the start, then steps of small networks are faster"""
    lr: Positive = 1e-4
    """learning rate of the energy"""
    lr_generator: Positive = 1e-4
    """learning rate of generator and encoder"""
    warm_up: Whole = 0
    """updates over which learning rates rise"""
    lr_end: Fraction = 0.1
    """share of the learning rates that is left at the end, by a cosine; 1 for constant rates"""
    beta2: Fraction = 0.9
    """Adam's β₂; β₁ is 0"""
    clip: NotNegative = 0.0
    """bound on each update's gradient norm, 0 for none"""


class DDAEBM(Method):
    """Energies of diffused data at each level and a generator of each denoising step; the settings are in `Config`."""

    name = "ddaebm"
    Config = Config
    guarded = ("energy_gap",)

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        c = config
        _check(c)
        self.schedule = noise.vp(c.levels, c.beta_min, c.beta_max, c.first_time, c.spacing)
        self.logits = LogitTransform(c.grey_values) if c.grey_values else None
        self.net, self.generator, self.encoder = self._networks()
        # nice is normalised at every level
        self.log_z = 0.0 if isinstance(c.net, NICE) else None
        self.bin_width = 2 / (c.grey_values - 1) if c.grey_values else None
        if c.chain is not None:
            fall = [after / before for before, after in zip(self.schedule.signal, self.schedule.signal[1:])]
            steps = [c.chain.step * math.sqrt(1 - a**2) for a in fall]
            self.step_size = AdaptiveStep(steps, c.chain.target_acceptance, low=1e-4, high=1e2)
        # λ(t − 1) by the time of x_t (eq. 21), row 0 never used
        times = torch.tensor(noise.vp_times(c.levels, c.first_time, c.spacing))
        self.register_buffer(
            "ratio", c.elbo_weight * times ** (math.log(c.elbo_weight_mid / c.elbo_weight) / math.log(0.5)), persistent=False
        )
        optimised = torch.compile if c.compile else (lambda function: function)
        self._pairs, self._energy_loss = optimised(self.pairs), optimised(self.energy_loss)
        self._generator_loss, self._weighted = optimised(self.generator_loss), optimised(self.weighted)

    def _networks(self) -> tuple[nn.Module, nn.Module, nn.Module | None]:
        c, dim = self.config, math.prod(self.config.shape)
        if isinstance(c.net, TwoStream):
            net: nn.Module = c.net.build(dim, out=0, batch_norm=False)
            generator: nn.Module = VectorGenerator(c.net.build(dim + c.latent_dim, out=dim, batch_norm=True))
        elif isinstance(c.net, (MLP, NICE)):
            sizes = {"width": c.net.width, "depth": c.net.depth}
            net = level_mlp(dim, c.levels, **sizes) if isinstance(c.net, MLP) else c.net.build(c.shape, levels=c.levels)
            generator = VectorGenerator(level_mlp(dim + c.latent_dim, c.levels, out=dim, **sizes))
        else:
            generator = ImageGenerator(c.net.build(c.shape, channels=c.shape[0]), c.latent_dim)
            net = c.net.build(c.shape, channels=c.shape[0])
        if c.encoder is None:
            return net, generator, None
        encoder = c.encoder.build(c.shape, latent=c.latent_dim, levels=c.levels)
        if c.grey_values:
            # logits reach ±13, for which a random encoder's z are so far from the prior that the first losses pass for a divergence
            nn.init.zeros_(encoder.last.weight)
        return net, generator, encoder

    @property
    def abilities(self) -> frozenset[str]:
        return frozenset({"sample", "energy"} | ({"normalised"} if self.log_z is not None else set()))

    # --- the density

    def energy(self, x: Tensor, *, t: Tensor | int = 0) -> Tensor:
        """E(x_t, t) of data diffused to level t, in nats up to a constant of each level: [B, ...] -> [B].

        `t`: one level or [B], 0 … T − 1; 0 is data with noise of standard deviation σ̄_0 (`first_time`). A network's scalar with `mlp`,
        −log p_t(x), normalised, with `nice`, ½‖x − h(x, t)‖² (eq. 24) with the others. With `grey_values` x are images, and it is their
        logits that are diffused. Raises InputError for other levels.
        """
        if self.logits is None:
            return self._energy(x, t)
        y, log_slope = self.logits.encode(x)
        return self._energy(y, t) - log_slope

    def log_prob(self, x: Tensor, *, t: Tensor | int = 0) -> Tensor:
        """log p_t(x) = −E(x, t) in nats, exact: [B, ...] -> [B]. Raises InputError unless the network is of kind "nice"."""
        if self.log_z is None:
            raise InputError(f"ddaebm: log Z is known with a network of kind 'nice' only, this model has '{self.config.net.kind}'")
        return -self.energy(x, t=t)

    def dequantise(self, x: Tensor, noise: Tensor) -> Tensor:
        """Images x of `grey_values` values spread over their bins by `noise` in [0, 1), shaped like x; others as they are."""
        return x if self.logits is None else self.logits.dequantise(x, noise)

    def _energy(self, x: Tensor, t: Tensor | int) -> Tensor:
        """`energy` of what is diffused: x itself or its logits."""
        c = self.config
        if isinstance(t, int) and not 0 <= t < c.levels:
            raise InputError(f"ddaebm: energies are there for levels 0 to {c.levels - 1}, got t = {t}")
        t = torch.as_tensor(t, device=x.device).expand(len(x))
        if isinstance(c.net, (PatchNet, PatchUNet, UNet)):
            # sums over pixels lose bits in bf16
            return 0.5 * (x - self.net(x, t)[0]).float().flatten(1).square().sum(1)
        value = self.net(x, t)
        if not c.reference_std:
            return value
        variance = c.reference_std**2 * self.schedule.alpha(t, x).square() + self.schedule.sigma(t, x).square()
        return value + (x.square() / (2 * variance)).flatten(1).sum(1)

    def conditional_energy(self, x_s: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """−log p(x_s | x_t) up to a constant of x_t, that is E(x_s, t − 1) − log q(x_t | x_s) (eq. 6), and E(x_s, t − 1): [B] each."""
        energy = self._energy(x_s, t - 1)
        miss = x_t - self.schedule.step_alpha(t, x_s) * x_s
        return energy + (miss.square() / (2 * self.schedule.step_variance(t, x_s))).flatten(1).sum(1), energy

    def reverse(self, x_t: Tensor, z: Tensor, t: Tensor | int, s: Tensor | int) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the Gaussian q(x_s | x_t, x₀ = G(x_t, z, t)), s < t (eq. 9)."""
        levels = torch.as_tensor(t, device=x_t.device).expand(len(x_t))
        return self.schedule.posterior(self.generator(x_t, z, levels), x_t, t, s)

    # --- training

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        c = self.config
        generator = [*self.generator.parameters(), *(() if self.encoder is None else self.encoder.parameters())]
        common = dict(betas=(0.0, c.beta2), fused=True)
        return {
            "energy": torch.optim.Adam(self.net.parameters(), lr=c.lr, **common),
            "generator": torch.optim.Adam(generator, lr=c.lr_generator, **common),
        }

    def step(self, batch: Batch, update: Update) -> None:
        g, x0 = update.generator, batch.x
        if self.logits is not None:
            x0, _ = self.logits.encode(self.dequantise(x0, random.uniform(*x0.shape, generator=g, device=x0.device)))
        t = self.schedule.sample_level(len(x0), generator=g, device=x0.device)
        noises = [random.normal_like(x0, g) for _ in range(3)]
        z = self._latents(len(x0), g)
        x_s, x_t, generated = self._pairs(x0, t, z, *noises)

        negative, weight = self._negatives(x_s, x_t, t, generated, update)
        loss, gap, penalty = self._energy_loss(x_s, negative, x_t, t, self._penalty(update.images), weight)
        update("energy", loss)
        update.log(energy_gap=gap, gradient_penalty=penalty)

        with frozen(self.net):  # a compiled loss would find the gradients of all that learns
            loss, parts = self._generator_loss(generated, z, x_s, x_t, t, random.normal_like(z, g))
        update("generator", loss)
        update.log(**parts)

    def pairs(
        self, x0: Tensor, t: Tensor, z: Tensor, noise: Tensor, step_noise: Tensor, reverse_noise: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x_s and x_t of q, s = t − 1, and a draw of p_φ(x_s | x_t) from z, with its graph (eq. 4, 9); each shaped like x0 [B, ...]."""
        x_s = self.schedule.diffuse(x0, t - 1, noise)
        x_t = self.schedule.step_alpha(t, x0) * x_s + self.schedule.step_variance(t, x0).sqrt() * step_noise
        mean, std = self.reverse(x_t, z, t, t - 1)
        return x_s, x_t, mean + std * reverse_noise

    def _latents(self, n: int, generator: random.Generator) -> Tensor:
        shape = (n, self.config.latent_dim)
        if not self.config.latent:
            return torch.zeros(shape, device=self.device)
        return random.normal(*shape, generator=generator, device=self.device)

    def _penalty(self, images: int) -> Tensor:
        """γ after `images` images, by a cosine from `penalty` to `penalty_end`: a scalar, as a float would be compiled in."""
        c = self.config
        fallen = 0.5 * (1 + math.cos(math.pi * min(1.0, images / c.images)))
        return torch.tensor(c.penalty_end + (c.penalty - c.penalty_end) * fallen, device=self.device)

    def energy_loss(
        self, x_s: Tensor, generated: Tensor, x_t: Tensor, t: Tensor, penalty_weight: Tensor, weight: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The energy's loss (eq. 22 and 23, both signs turned), the gap E(x_s) − E(generated) and ½‖∇…‖² per row.

        x_s, x_t: a pair of q, [B, ...]; generated: draws of p_φ(x_s | x_t), [B, ...], or with `weight` [K, B] K·B of them (`weighted`);
        t: the level of x_t, [B]; penalty_weight: γ, a scalar.
        """
        if self.config.penalty or self.config.penalty_end:
            _, score, energy = value_and_score(lambda x: self.conditional_energy(x, x_t, t), x_s, create_graph=True, aux=True)
            penalty = 0.5 * score.flatten(1).square().sum(1)
        else:  # without the second derivative that nothing asks for
            energy = self._energy(x_s, t - 1)
            penalty = torch.zeros_like(energy)
        fake = self._energy(generated, t.repeat(len(generated) // len(t)) - 1)
        if weight is not None:
            fake = (weight * fake.view(weight.shape)).sum(0)
        loss = energy.mean() - self.config.generated_weight * fake.mean() + penalty_weight * penalty.mean()
        return loss, (energy - fake).detach(), penalty.detach()

    def generator_loss(
        self, generated: Tensor, z: Tensor, x_s: Tensor, x_t: Tensor, t: Tensor, epsilon: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of generator and encoder (eq. 17, and with "jeffrey" λ times eq. 19), and its parts per row in nats.

        generated: draws of p_φ(x_s | x_t) from z [B, d], with their graph; x_s, x_t: the pair of q; epsilon: noise for z_ψ, [B, d].
        """
        c = self.config
        conditional, _ = self.conditional_energy(generated, x_t, t)
        parts = {"conditional_energy": conditional}
        loss = conditional.mean()
        if self.encoder is not None:
            mean, log_variance = self.encode_step(torch.cat([generated, x_s]), torch.cat([x_t, x_t]), torch.cat([t, t]))
            (mean, mean_data), (log_variance, log_variance_data) = mean.chunk(2), log_variance.chunk(2)
            entropy = -log_normal(z, mean, log_variance)
            parts["entropy"] = entropy  # bounds H(z | x̃_s, x_t) from above (eq. 16)
            loss = loss + c.entropy_weight * entropy.mean()
        if c.objective == "jeffrey":
            bound, z_data = 0.0, z
            if self.encoder is not None:
                bound = 0.5 * (log_variance_data.exp() + mean_data.square() - 1 - log_variance_data).sum(1)
                z_data = mean_data + (0.5 * log_variance_data).exp() * epsilon
                parts["latent_kl"] = bound
            parts["reconstruction"] = self.reconstruction(x_s, z_data, x_t, t)
            loss = loss + (self.ratio[t] * (bound + parts["reconstruction"])).mean()
        return loss, {name: part.detach() for name, part in parts.items()}

    def encode_step(self, x_s: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q_ψ(z | x_s, x_t), [B, d] each; the variance stays above `encoder_floor`."""
        mean, log_variance = self.encoder(x_s, x_t, t)
        return mean.float(), log_variance.float().clamp(min=math.log(self.config.encoder_floor))

    def reconstruction(self, x_s: Tensor, z: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """−log q(x_s | x_t, G(x_t, z, t)) in nats (eq. 18), [B], with the variance kept above `reconstruction_floor`."""
        mean, std = self.reverse(x_t, z, t, t - 1)
        variance = std.square().clamp(min=self.config.reconstruction_floor)
        return -log_normal(x_s, mean, variance.log())

    # --- better draws for the energy's loss, which are ours (thalweg/importance.py, thalweg/chain.py)

    def refine(
        self,
        x_s: Tensor,
        x_t: Tensor,
        t: Tensor,
        *,
        generator: random.Generator = None,
        trace: Trace | None = None,
        steps: int | None = None,
    ) -> Tensor:
        """x_s [B, ...] after the chain's steps of MALA on p(x_s | x_t) ∝ exp(−E(x_s, s)) q(x_t | x_s), s = t − 1, in its level's unit.

        Raises InputError where the model has no chain.
        """
        chain = self.config.chain
        if chain is None:
            raise InputError("ddaebm: this model has no chain; set chain, as in chain = MALA(steps=4, target_acceptance=0.6)")
        unit = self.step_size.size[t - 1].view(-1, *[1] * (x_s.dim() - 1))
        with frozen(self.net):
            moved = chain(
                lambda w: self.conditional_energy(unit * w, x_t, t)[0], x_s / unit, steps=steps, step=1.0, generator=generator, trace=trace
            )  # fmt: skip
        return unit * moved

    def weighted(self, x_t: Tensor, z: Tensor, t: Tensor, noise: Tensor, data: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Draws of p_φ(x_s | x_t) and their weights as draws of the energy's p(x_s | x_t), as in `importance.weighted`."""
        p = self.config.proposals
        options = {} if p is None else {"defensive": p.defensive, "reference_std": self.config.reference_std}
        return importance.weighted(self, x_t, z, t, noise, data, **options)

    def _negatives(self, x_s: Tensor, x_t: Tensor, t: Tensor, generated: Tensor, update: Update) -> tuple[Tensor, Tensor | None]:
        """x̃_s of eq. 22: the generator's draws, moved by `refine` where there is a chain, or K weighted ones with their weights [K, B]."""
        p, g, trace = self.config.proposals, update.generator, Trace()
        if p is None:
            if self.config.chain is None:
                return generated.detach(), None
            negative = self.refine(generated.detach(), x_t, t, generator=g, trace=trace)
            self.step_size.adapt(trace, update, t - 1)
            update.log(**trace.figures(x_s, negative))
            return negative, None
        z = self._latents((p.count + p.contrast) * len(x_t), g)
        noise = random.normal_like(importance.repeat(x_t, p.count), g)
        negative, weight = self._weighted(x_t, z, t, noise, x_s if p.contrast else None)
        update.log(effective_proposals=1 / weight.square().sum(0))
        return negative, weight

    def _chosen(self, x_t: Tensor, t: int, k: int, generator: random.Generator) -> Tensor:
        """x_s, s = t − 1, one of k draws for each row by its weight: [n, ...] -> [n, ...]."""
        n = len(x_t)
        z, noise = self._latents(k * n, generator), random.normal_like(importance.repeat(x_t, k), generator)
        x_s, weight = self.weighted(x_t, z, torch.full((n,), t, device=x_t.device), noise)
        return importance.choose(x_s, weight, random.uniform(n, generator=generator, device=x_t.device))

    # --- use

    @torch.no_grad()
    def sample(self, n: int, *, seed: int = 0, steps: int | None = None, proposals: int = 1) -> Tensor:
        """`n` samples in `steps` evaluations of the generator, 1 … T (T by default): [n, ...], images in [−1, 1].

        From noise at level T down; no noise is added in the last step. Fewer steps than T pass over levels, which the generator was not
        trained for. With `proposals` K > 1 each step draws K times and keeps one draw by its weight under the energy
        (`importance.weighted`): samples of the energies as K grows, those of level 0 with its noise. It takes T steps and the encoder,
        K times the generator's evaluations and as many of energy and encoder. Raises InputError for other numbers of steps or K.
        """
        c, top = self.config, self.config.levels
        steps = top if steps is None else steps
        if not 1 <= steps <= top:
            raise InputError(f"ddaebm: a sample takes 1 to {top} steps, got steps = {steps}")
        defensive = 0 if c.proposals is None else c.proposals.defensive
        if proposals < 1 or (proposals > 1 and (self.encoder is None or steps < top or proposals <= defensive)):
            raise InputError(
                f"ddaebm: proposals are 1, or more than the model's {defensive} defensive ones in all {top} steps of a model with "
                f"an encoder; got proposals = {proposals} in {steps} steps"
            )
        generator = random.seeded(seed, 1, device=self.device)
        path = [round(top * (steps - i) / steps) for i in range(steps + 1)]
        x = random.normal(n, *c.shape, generator=generator, device=self.device)
        with frozen(self.generator):
            for t, s in zip(path, path[1:]):
                if proposals > 1:
                    x = self._chosen(x, t, proposals, generator)
                    continue
                mean, std = self.reverse(x, self._latents(n, generator), t, s)
                x = mean + std * random.normal_like(x, generator) if s else mean
        return finished(x if self.logits is None else self.logits.decode(x))


def _check(c: Config) -> None:
    """Raises InputError for settings that do not go together."""
    if c.latent and c.encoder is None and c.objective == "jeffrey":
        raise InputError("ddaebm: objective = 'jeffrey' needs the encoder of z; use objective = 'kl' where encoder = None")
    if c.encoder is not None and not c.latent:
        raise InputError("ddaebm: latent = False leaves an encoder nothing to encode; set encoder = None as well")
    if c.proposals is not None and c.encoder is None:
        raise InputError("ddaebm: proposals are weighted by the encoder of z; give the model one, or set proposals = None")
    if c.proposals is not None and c.proposals.defensive and not (c.proposals.defensive < c.proposals.count and c.reference_std):
        raise InputError("ddaebm: defensive draws are of N(0, reference_std² I), and fewer than count; set both, or defensive = 0")
    if c.chain is not None and (c.proposals is not None or c.chain.jumps):
        raise InputError("ddaebm: the chain moves the generator's one draw, without jumps; set proposals = None and chain.jumps = 0")
    if c.reference_std and not isinstance(c.net, MLP):
        raise InputError(f"ddaebm: reference_std is for a network of kind 'mlp', not '{c.net.kind}'")
    if c.grey_values and not isinstance(c.net, (MLP, NICE, TwoStream)):
        raise InputError(f"ddaebm: grey_values are for 'nice', 'mlp' and 'two_stream'; the generator of '{c.net.kind}' ends in tanh")
