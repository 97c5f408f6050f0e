"""DDAEBM: adversarial energies in a few denoising steps, without Markov chains (Geng et al., ICML 2024).

    x_s, x_t ~ q (s = t − 1);   x̃_s ~ q(x_s | x_t, x₀ = G(x_t, z, t)),  z ~ N(0, I)                                (eq. 9)
    update("energy",    E(x_s, s) − E(x̃_s, s) + γ/2 ‖∇[E(x_s, s) − log q(x_t | x_s)]‖²)                       (eq. 22, 23)
    update("generator", E(x̃_s, s) − log q(x_t | x̃_s) − log q_ψ(z | x̃_s, x_t)                                     (eq. 17)
                        + λ(s) [KL(q_ψ(z | x_s, x_t) ‖ N(0, I)) − log q(x_s | x_t, G(x_t, z_ψ, t))])              (eq. 19)

The paper's E is −E here: p(x_s | x_t) ∝ exp(−E(x_s, s)) q(x_t | x_s) (eq. 6), and at the optimum exp(−E(·, s)) ∝ q(x_s).
"""

import math
from typing import Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from thalweg import noise, random
from thalweg.data.base import Batch
from thalweg.energy import value_and_score
from thalweg.errors import InputError
from thalweg.methods.base import STRICT, Count, Fraction, Method, NotNegative, Positive, Whole
from thalweg.nn.generator import ImageEncoder, ImageGenerator, VectorEncoder, VectorGenerator, level_mlp
from thalweg.nn.layers import frozen
from thalweg.nn.nice import NICE
from thalweg.nn.patchnet import PatchNet
from thalweg.nn.unet import UNet

MARGIN = 1e-6  # of the unit interval, where logits end; the paper names none, docs/equations.md


@dataclass(frozen=True, config=STRICT)
class Config:
    """Settings of `ddaebm`."""

    data: str = "25gaussians"
    """name of the data that the preset is for"""
    shape: tuple[Count, ...] = (2,)
    """shape of one example, [D] or [C, H, W]"""
    classes: Whole = 0
    """number of labels; not used"""
    network: Literal["mlp", "patch", "unet", "nice"] = "mlp"
    """`mlp` for vectors; `unet` as in the paper or `patch`, a faster residual network on patches, for images; `nice`, a flow with a
    normalised energy and an mlp as generator, for both"""
    width: Count = 300
    """hidden units (mlp, nice) or channels (patch, unet) of the energy and the generator"""
    blocks: Count = 3
    """hidden layers (mlp, each coupling of nice), residual blocks (patch), blocks per resolution (unet)"""
    couplings: Count = 4
    """coupling layers of nice"""
    grey_values: Whole = 0
    """grey values of images that are spread over their bins by uniform noise and modelled in logits (nice, mlp); 0 for x as it is"""
    multipliers: tuple[Count, ...] = (1, 2, 2, 2)
    """channels of the unet at each resolution, times width"""
    patch: Count = 2
    """side of the patches of the patch network"""
    attention: Count = 16
    """the unet has self-attention at resolutions up to this"""
    encoder_width: Count = 64
    """channels of the first layer of the encoder of images; an mlp's encoder has `width`"""
    reference_std: NotNegative = 0.0
    """standard deviation s of data N(0, s² I) whose diffused energy the mlp's is added to, 0 for none (the paper)"""
    levels: Count = 4
    """T, denoising steps"""
    beta_min: Positive = 0.1
    """β_min of the schedule (eq. 47)"""
    beta_max: Positive = 20.0
    """β_max of the schedule (eq. 47)"""
    first: Positive = 1e-3
    """t'(0), time of level 0, whose noise is σ̄_0 = 0.01 for the paper's 1e-3; more gives E(x, 0) its right shape, docs/equations.md"""
    spacing: Literal["even", "drl"] = "even"
    """times of the levels: `even`, or `drl`, most of them in the first half (section B.1, LSUN church)"""
    objective: Literal["jeffrey", "kl"] = "jeffrey"
    """divergence that the generator lowers: both directions (eq. 10), or the first alone"""
    latent: bool = True
    """whether the generator has a latent z; without, z = 0"""
    posterior: bool = True
    """whether there is an encoder q_ψ; without, the first bound loses its entropy (WGAN-0GP in a diffusion), and only "kl" is left"""
    latent_dim: Count = 2
    """d, dimension of z"""
    w: Positive = 1.0
    """w, weight λ of the second bound at t' = 1 (eq. 21)"""
    w_mid: Positive = 1.0
    """w_mid, weight λ of the second bound at t' = ½ (eq. 21)"""
    entropy_weight: NotNegative = 1.0
    """weight of −log q_ψ(z | x̃, x_t) in the first bound; 1 in eq. 17, 0.1 in the released code"""
    generated_weight: NotNegative = 1.0
    """weight of the energies of generated points in eq. 22; 0.1 for NICE"""
    proposals: Count = 1
    """K, draws of the generator per row in the energy's loss; above 1 they have importance weights, which is ours"""
    defensive: Whole = 0
    """how many of the K draws are of N(0, `reference_std`² I) given x_t instead: they go everywhere, and bound the weights of all"""
    contrast: bool = False
    """whether the data point is weighed with its K draws: the loss, unbounded below without it, is then that of telling it from them"""
    gamma: NotNegative = 0.02
    """γ, weight of the gradient penalty at the start of training (eq. 23)"""
    gamma_end: NotNegative = 0.02
    """γ at the end of training; a cosine leads from one to the other"""
    encoder_floor: Positive = 1e-4
    """smallest variance of q_ψ, in each dimension of z"""
    reconstruction_floor: NotNegative = 1e-2
    """smallest variance of q(x_s | x_t, x₀) in the second bound; at s = 0 its own is 1e-4"""
    compile: bool = False
    """compile pairs and losses: a wait of up to minutes at the start, then steps of small networks are faster"""
    batch: Count = 200
    """images per update"""
    images: Count = 36_000_000
    """length of training in images; rates and γ have reached their ends then"""
    lr: Positive = 1e-4
    """learning rate of generator and encoder"""
    lr_energy: Positive = 1e-4
    """learning rate of the energy"""
    lr_end: Fraction = 0.1
    """share of the learning rates that is left at the end, by a cosine; 1 for constant rates"""
    beta2: Fraction = 0.9
    """Adam's β₂; β₁ is 0"""
    clip: NotNegative = 0.0
    """bound on each update's gradient norm, 0 for none"""
    ema: Fraction = 0.999
    """decay of the EMA twin"""


class DDAEBM(Method):
    """Energies of diffused data at each level and a generator of each denoising step; the settings are in `Config`."""

    name = "ddaebm"
    Config = Config
    guarded = ("energy_gap",)

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        c = config
        if c.grey_values == 1:
            raise InputError("ddaebm: images have 2 grey values or more; grey_values = 0 for x as it is")
        if c.objective == "jeffrey" and c.latent and not c.posterior:
            raise InputError("ddaebm: objective = 'jeffrey' needs the encoder of z; use objective = 'kl' with posterior = False")
        try:
            times = noise.vp_times(c.levels, c.first, c.spacing)
        except ValueError as error:
            raise InputError(f"ddaebm: {error}") from None
        self.encodes = c.latent and c.posterior
        if (c.proposals > 1 or c.contrast) and not self.encodes:
            raise InputError(
                "ddaebm: proposals above 1 and contrast weigh by the encoder of z; they need latent = True and posterior = True"
            )
        if c.defensive and not (c.defensive < c.proposals and c.reference_std):
            raise InputError("ddaebm: defensive draws are of N(0, reference_std² I), and fewer than proposals; set both, or defensive = 0")
        self.schedule = noise.vp(c.levels, c.beta_min, c.beta_max, c.first, c.spacing)
        self.energy_net, self.generator, self.encoder = self._networks()
        # λ(t − 1) by the time of x_t (eq. 21), row 0 never used
        self.register_buffer("ratio", c.w * torch.tensor(times) ** (math.log(c.w_mid / c.w) / math.log(0.5)), persistent=False)
        optimised = torch.compile if c.compile else (lambda function: function)
        self._pairs, self._energy_loss = optimised(self.pairs), optimised(self.energy_loss)
        self._generator_loss, self._weighted = optimised(self.generator_loss), optimised(self.weighted)

    def _networks(self) -> tuple[torch.nn.Module, torch.nn.Module, torch.nn.Module | None]:
        c = self.config
        if c.reference_std and c.network != "mlp":
            raise InputError(f"ddaebm: reference_std is for network = 'mlp', the energy of '{c.network}' is confined without it")
        if c.grey_values and c.network not in ("mlp", "nice"):
            raise InputError(f"ddaebm: grey_values are for networks 'nice' and 'mlp'; the generator of '{c.network}' ends in tanh")
        if c.network in ("mlp", "nice"):
            dim, sizes = math.prod(c.shape), {"width": c.width, "depth": c.blocks}
            if c.network == "nice" and dim < 2:
                raise InputError(f"ddaebm: network = 'nice' needs 2 dimensions or more, got shape {c.shape}")
            energy = NICE(dim, c.levels, couplings=c.couplings, **sizes) if c.network == "nice" else level_mlp(dim, c.levels, **sizes)
            generator = VectorGenerator(dim, c.latent_dim, c.levels, **sizes)
            encoder = VectorEncoder(dim, c.latent_dim, c.levels, **sizes) if self.encodes else None
            if encoder is not None and c.grey_values:
                # logits reach ±13, for which a random encoder's z are so far from the prior that the first losses pass for a divergence
                torch.nn.init.zeros_(encoder.net.last.weight)
            return energy, generator, encoder
        if len(c.shape) != 3:
            raise InputError(f"ddaebm: network = '{c.network}' needs images [C, H, W], got shape {c.shape}; use 'mlp'")

        def network() -> torch.nn.Module:
            if c.network == "patch":
                return PatchNet(c.shape, out=c.shape[0], vector=0, width=c.width, blocks=c.blocks, patch=c.patch, embedding=2 * c.width)
            options = dict(width=c.width, blocks=c.blocks, multipliers=c.multipliers, attention=c.attention)
            return UNet(c.shape, out=c.shape[0], **options)

        try:
            embedding = (2 if c.network == "patch" else 4) * c.width
            generator = ImageGenerator(network(), c.latent_dim, embedding)
            return network(), generator, ImageEncoder(c.shape, c.latent_dim, width=c.encoder_width) if self.encodes else None
        except ValueError as error:
            raise InputError(f"ddaebm: {error}") from None

    # --- the density

    def energy(self, x: Tensor, *, t: Tensor | int = 0) -> Tensor:
        """E(x_t, t) of data diffused to level t, in nats up to a constant of each level: [B, ...] -> [B].

        `t`: one level or [B], 0 … T − 1; 0 is data with noise of standard deviation σ̄_0 (`first`). An mlp's scalar for vectors, with
        images ½‖x − h(x, t)‖² (eq. 24), with `nice` −log p_t(x), normalised. With `grey_values` x are images, and it is their
        logits that are diffused. Raises InputError for other levels.
        """
        if not self.config.grey_values:
            return self._energy(x, t)
        y, log_slope = self.logits(x)
        return self._energy(y, t) - log_slope

    @property
    def log_z(self) -> float | None:
        """log Z of every level in nats: 0 with network = 'nice', whose energies are normalised, None where it is not known."""
        return 0.0 if self.config.network == "nice" else None

    @property
    def bin_width(self) -> float | None:
        """Of the bins over which `dequantise` spreads images of `grey_values` values in [−1, 1]."""
        return 2 / (self.config.grey_values - 1) if self.config.grey_values else None

    def log_prob(self, x: Tensor, *, t: Tensor | int = 0) -> Tensor:
        """log p_t(x) = −E(x, t) in nats, exact: [B, ...] -> [B]. Raises InputError unless network = 'nice'."""
        if self.log_z is None:
            raise InputError(f"ddaebm: log Z is known with network = 'nice' only, this model has '{self.config.network}'")
        return -self.energy(x, t=t)

    def logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits y [B, ...] of images x within ±(1 + 1/(`grey_values` − 1)), and log|det ∂y/∂x| in nats [B]."""
        squeeze = (1 - 1 / self.config.grey_values) * (1 - 2 * MARGIN)
        lower, upper = (0.5 * (1 + sign * squeeze * x) for sign in (1, -1))
        log_lower, log_upper = lower.clamp_min(MARGIN).log(), upper.clamp_min(MARGIN).log()
        log_slope = math.log(squeeze / 2) - log_lower - log_upper
        return log_lower - log_upper, log_slope.flatten(1).sum(1)

    def _from_logits(self, y: Tensor) -> Tensor:
        """The inverse of `logits`."""
        return (0.5 * y).tanh() / ((1 - 1 / self.config.grey_values) * (1 - 2 * MARGIN))

    def dequantise(self, x: Tensor, noise: Tensor) -> Tensor:
        """Images x of `grey_values` values in [−1, 1], spread over their bins by `noise` in [0, 1), shaped like x."""
        return x + (noise - 0.5) * 2 / (self.config.grey_values - 1)

    def _energy(self, x: Tensor, t: Tensor | int) -> Tensor:
        """`energy` of what is diffused: x itself or its logits."""
        c = self.config
        if isinstance(t, int) and not 0 <= t < c.levels:
            raise InputError(f"ddaebm: energies are there for levels 0 to {c.levels - 1}, got t = {t}")
        t = torch.as_tensor(t, device=x.device).expand(len(x))
        if c.network in ("patch", "unet"):
            # sums over pixels lose bits in bf16
            return 0.5 * (x - self.energy_net(x, t)[0]).float().flatten(1).square().sum(1)
        value = self.energy_net(x, t)
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

    @property
    def abilities(self) -> frozenset[str]:
        return frozenset({"sample", "energy"} | ({"normalised"} if self.log_z is not None else set()))

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        c = self.config
        generator = [*self.generator.parameters(), *(self.encoder.parameters() if self.encodes else ())]
        common = dict(betas=(0.0, c.beta2), fused=True)
        return {
            "energy": torch.optim.Adam(self.energy_net.parameters(), lr=c.lr_energy, **common),
            "generator": torch.optim.Adam(generator, lr=c.lr, **common),
        }

    def _fallen(self, images: int) -> float:
        return 0.5 * (1 + math.cos(math.pi * min(1.0, images / self.config.images)))

    def learning_rate(self, name: str, images: int) -> float:
        """A cosine from 1 to `lr_end` at `images` of the config."""
        end = self.config.lr_end
        return end + (1 - end) * self._fallen(images)

    def step(self, batch: Batch, update) -> None:
        c, g, x0 = self.config, update.generator, batch.x
        if c.grey_values:
            x0, _ = self.logits(self.dequantise(x0, random.uniform(*x0.shape, generator=g, device=x0.device)))
        t = self.schedule.sample_level(len(x0), generator=g, device=x0.device)
        noises = [random.normal_like(x0, g) for _ in range(3)]
        z = self._latents(len(x0), g, x0.device)
        x_s, x_t, generated = self._pairs(x0, t, z, *noises)

        negative, weight = generated.detach(), None
        if c.proposals > 1 or c.contrast:
            many = self._latents((c.proposals + c.contrast) * len(x0), g, x0.device)
            noise = random.normal_like(_repeat(x0, c.proposals), g)
            negative, weight = self._weighted(x_t, many, t, noise, x_s if c.contrast else None)
            update.log(effective_proposals=1 / weight.square().sum(0))
        gamma = c.gamma_end + (c.gamma - c.gamma_end) * self._fallen(update.images)
        loss, gap, penalty = self._energy_loss(x_s, negative, x_t, t, torch.tensor(gamma, device=x0.device), weight)
        update("energy", loss)
        update.log(energy_gap=gap, gradient_penalty=penalty)

        with frozen(self.energy_net):  # a compiled loss would find the gradients of all that learns
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

    def _latents(self, n: int, generator: random.Generator, device) -> Tensor:
        shape = (n, self.config.latent_dim)
        return random.normal(*shape, generator=generator, device=device) if self.config.latent else torch.zeros(shape, device=device)

    @torch.no_grad()
    def weighted(self, x_t: Tensor, z: Tensor, t: Tensor, noise: Tensor, data: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Draws of p_φ(x_s | x_t) and their weights as draws of the energy's p(x_s | x_t): [K·B, ...], [K, B] of sum 1 over K.

        x_t, t: a row's state [B, ...] and its level [B]; z, noise: [K·B, d] and [K·B, ...]. `data` [B, ...] are x_s of q to be put behind
        the draws and weighed as these are; z has B rows more then, and K is one more in what returns. The generator's density, which
        has no closed form, is p(z) q(x_s | x_t, G) / q_ψ(z | x_s, x_t), exact where q_ψ is (eq. 16). The gradient of the energy is that
        of recovery likelihood as K grows, wherever the generator is; with K = 1 it is the paper's, right for the best generator only.
        With the data it is that of ranking noise-contrastive estimation, right at the true energy for any K (Ma and Collins 2018).
        With `defensive` the last draws are of the reference, and all weights those of the mixture (Hesterberg 1995).
        """
        k, defensive = len(noise) // len(x_t), self.config.defensive
        rows, generated = len(z) // len(x_t), (k - defensive) * len(x_t)
        x_t, t = _repeat(x_t, rows), t.repeat(rows)
        mean, std = self.reverse(x_t, z, t, t - 1)
        wide_mean, wide_variance = self._of_reference(x_t, t) if defensive else (mean, std.square())
        of_generator, others = slice(generated), slice(generated, len(noise))
        x_s = torch.cat(
            [
                mean[of_generator] + std[of_generator] * noise[of_generator],
                wide_mean[others] + wide_variance[others].sqrt() * noise[others],
                x_t[:0] if data is None else data,
            ]
        )
        if generated < len(z):
            # joint draws of x_s and z again, with q_ψ(z | x_s, x_t); it cancels in the weights
            centre, log_spread = self.encode_step(*(part[generated:] for part in (x_s, x_t, t)))
            z = torch.cat([z[:generated], centre + (0.5 * log_spread).exp() * z[generated:]])
            again, _ = self.reverse(*(part[generated:] for part in (x_t, z, t)), t[generated:] - 1)
            mean = torch.cat([mean[:generated], again])
        proposal = _log_normal(z, torch.zeros_like(z), torch.zeros_like(z)) + _log_normal(x_s, mean, 2 * std.log())
        proposal = proposal - _log_normal(z, *self.encode_step(x_s, x_t, t))
        if defensive:
            share, wide = defensive / k, _log_normal(x_s, wide_mean, wide_variance.log())
            proposal = torch.logaddexp(proposal + math.log(1 - share), wide + math.log(share))
        conditional, _ = self.conditional_energy(x_s, x_t, t)
        return x_s, (-conditional - proposal).view(rows, -1).softmax(0)

    def _of_reference(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of p(x_s | x_t), s = t − 1, of data N(0, `reference_std`² I)."""
        of_s = self.config.reference_std**2 * self.schedule.alpha(t - 1, x_t).square() + self.schedule.sigma(t - 1, x_t).square()
        alpha, step = self.schedule.step_alpha(t, x_t), self.schedule.step_variance(t, x_t)
        variance = 1 / (1 / of_s + alpha.square() / step)
        return variance * alpha / step * x_t, variance

    def energy_loss(
        self, x_s: Tensor, generated: Tensor, x_t: Tensor, t: Tensor, gamma: Tensor, weight: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The energy's loss (eq. 22 and 23, both signs turned), the gap E(x_s) − E(generated) and ½‖∇…‖² per row.

        x_s, x_t: a pair of q, [B, ...]; generated: draws of p_φ(x_s | x_t), [B, ...], or with `weight` [K, B] K·B of them (`weighted`);
        t: the level of x_t, [B]; gamma: γ, a scalar.
        """
        if self.config.gamma or self.config.gamma_end:
            _, score, energy = value_and_score(lambda x: self.conditional_energy(x, x_t, t), x_s, create_graph=True, aux=True)
            penalty = 0.5 * score.flatten(1).square().sum(1)
        else:  # without the second derivative that nothing asks for
            energy = self._energy(x_s, t - 1)
            penalty = torch.zeros_like(energy)
        fake = self._energy(generated, t.repeat(len(generated) // len(t)) - 1)
        if weight is not None:
            fake = (weight * fake.view(weight.shape)).sum(0)
        loss = energy.mean() - self.config.generated_weight * fake.mean() + gamma * penalty.mean()
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
        if self.encodes:
            mean, log_variance = self.encode_step(torch.cat([generated, x_s]), torch.cat([x_t, x_t]), torch.cat([t, t]))
            (mean, mean_data), (log_variance, log_variance_data) = mean.chunk(2), log_variance.chunk(2)
            entropy = -_log_normal(z, mean, log_variance)
            parts["entropy"] = entropy  # bounds H(z | x̃_s, x_t) from above (eq. 16)
            loss = loss + c.entropy_weight * entropy.mean()
        if c.objective == "jeffrey":
            bound, z_data = 0.0, z
            if self.encodes:
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
        return -_log_normal(x_s, mean, variance.log())

    # --- sampling

    @torch.no_grad()
    def sample(self, n: int, *, seed: int = 0, steps: int | None = None, proposals: int = 1) -> Tensor:
        """`n` samples in `steps` evaluations of the generator, 1 … T (T by default): [n, ...], images in [−1, 1].

        From noise at level T down; no noise is added in the last step. Fewer steps than T pass over levels, which the
        generator was not trained for. With `proposals` K > 1 each step draws K times and keeps one draw by its weight under the
        energy (`weighted`): samples of the energies as K grows, those of level 0 with its noise. It takes T steps and the encoder,
        K times the generator's evaluations and as many of energy and encoder. Raises InputError for other numbers of steps or K.
        """
        c, top = self.config, self.config.levels
        steps = top if steps is None else steps
        if not 1 <= steps <= top:
            raise InputError(f"ddaebm: a sample takes 1 to {top} steps, got steps = {steps}")
        if proposals < 1 or proposals > 1 and not (self.encodes and steps == top and proposals > c.defensive):
            raise InputError(
                f"ddaebm: proposals are 1, or more than the model's {c.defensive} defensive ones in all {top} steps of a model with "
                f"an encoder; got proposals = {proposals} in {steps} steps"
            )
        device = next(self.parameters()).device
        generator = random.seeded(seed, 1, device=device)
        path = [round(top * (steps - i) / steps) for i in range(steps + 1)]
        x = random.normal(n, *c.shape, generator=generator, device=device)
        with frozen(self.generator):
            for t, s in zip(path, path[1:]):
                if proposals > 1:
                    x = self._chosen(x, t, proposals, generator)
                    continue
                mean, std = self.reverse(x, self._latents(n, generator, device), t, s)
                x = mean + std * random.normal_like(x, generator) if s else mean
        if c.grey_values:
            x = self._from_logits(x)
        return x.clamp(-1, 1).contiguous() if len(c.shape) == 3 else x

    def _chosen(self, x_t: Tensor, t: int, k: int, generator: random.Generator) -> Tensor:
        """x_s, s = t − 1, one of k draws for each row by its weight: [n, ...] -> [n, ...]."""
        n = len(x_t)
        z, noise = self._latents(k * n, generator, x_t.device), random.normal_like(_repeat(x_t, k), generator)
        x_s, weight = self.weighted(x_t, z, torch.full((n,), t, device=x_t.device), noise)
        point = random.uniform(n, generator=generator, device=x_t.device)
        which = (weight.cumsum(0) < point).sum(0).clamp(max=k - 1)
        return x_s.view(k, *x_t.shape)[which, torch.arange(n, device=x_t.device)]


def _repeat(x: Tensor, k: int) -> Tensor:
    """Rows of x, k times: [B, ...] -> [k·B, ...]."""
    return x.repeat(k, *[1] * (x.dim() - 1))


def _log_normal(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """log N(x; mean, exp(log_variance)) summed over all but the first axis, [B]; log_variance broadcasts."""
    squares = (x - mean).square() * (-log_variance).exp()
    return -0.5 * (squares + log_variance + math.log(2 * math.pi)).flatten(1).sum(1)


# Table 6 and section B.2.1: T, schedule, batch, rates, length, latent dimension; γ and the floor are the released code's. Ours: SiLU
# networks without batch norm for its PReLU ones, rates that fall and an EMA.
_TOY = dict(shape=(2,), width=300, blocks=2, reference_std=2.0)
# Ours, for minutes instead of hours: rates 10 and 20 times the paper's, a falling γ, and the released code's weight on the entropy. Seed 0
# after 4,500 updates: 25 of 25 modes, 67 % of samples within 4 std; but E(·, 0) is far off, KL(truth ‖ model) 4.6 nats.
_QUICK = dict(width=128, blocks=3, lr=2e-3, lr_energy=1e-3, lr_end=0.03, gamma_end=0.002, entropy_weight=0.1, images=900_000, ema=0.995)
# Ours, for the density: weighted draws and no penalty, noise at level 0 that the encoder can tell from none, and two steps, so that one
# level tells how far modes outweigh each other. Without contrast the energy of a mode that the generator reaches too seldom may fall
# without end (25 Gaussians), without defensive draws it falls where the generator never is (pinwheel).
_WEIGHTED = _QUICK | dict(
    proposals=16, defensive=4, contrast=True, gamma=0.0, gamma_end=0.0, entropy_weight=1.0, first=5e-3, levels=2, batch=64, beta2=0.99
)
# Table 10's MNIST schedule, rates and length by the data's size; networks ours (the paper's energy there is a NICE flow).
# The floor gives s = 0 the weight that the released image code gives to every level: a squared error.
_IMAGE = dict(network="patch", latent_dim=50, beta_max=10.0, batch=128, reconstruction_floor=0.5)

# Table 7 and section B.2.2: weight 0.1 of generated points, 4 couplings of 5 hidden layers, latent dimension 50, an MLP as generator.
# Ours: no batch norm, widths and length by the data's size, and a scale of the flow at each level.
_NICE = dict(network="nice", blocks=5, generated_weight=0.1, latent_dim=50, beta_max=10.0, batch=128, reconstruction_floor=0.5)

_LARGE = dict(network="unet", blocks=2, attention=16, latent_dim=100, reconstruction_floor=0.5)

DDAEBM.PRESETS = {
    "25gaussians": Config(data="25gaussians", **_TOY),
    **{
        f"{name}-{recipe}": Config(data=name, **(_TOY | fields))
        for name in ("25gaussians", "pinwheel", "swissroll")
        for recipe, fields in (("quick", _QUICK), ("weighted", _WEIGHTED))
    },
    **{
        name: Config(data=name, **_TOY)
        for name in ("8gaussians", "pinwheel", "swissroll", "spiral", "rings", "moons", "checkerboard", "gaussian")
    },
    "digits": Config(data="digits", shape=(1, 8, 8), width=64, blocks=4, encoder_width=32, images=1_000_000, **_IMAGE),
    "fashion-mnist": Config(data="fashion-mnist", shape=(1, 28, 28), width=96, blocks=5, patch=4, images=24_000_000, **_IMAGE),
    # Ours: twice the paper's rates, and short, as shares of digits drift apart again after 100,000 images; the lower floor gives the
    # second bound five times the weight
    "stacked-digits": Config(
        data="stacked-digits", shape=(3, 8, 8), width=64, blocks=4, encoder_width=32, lr=2e-4, lr_energy=2e-4, lr_end=0.01,
        images=100_000, **(_IMAGE | {"reconstruction_floor": 0.1}),
    ),
    "stacked-mnist": Config(data="stacked-mnist", shape=(3, 28, 28), width=128, blocks=5, patch=4, images=24_000_000, **_IMAGE),
    "digits-nice": Config(data="digits", shape=(1, 8, 8), width=256, grey_values=17, lr=3e-4, lr_energy=3e-4, images=1_000_000, **_NICE),
    "fashion-mnist-nice": Config(data="fashion-mnist", shape=(1, 28, 28), width=1000, grey_values=256, images=24_000_000, **_NICE),
    # Tables 9 and 10, batches over all GPUs, and the released code's γ; not run here. NCSN++ without its resampling filters and progressive
    # inputs, which is the DDPM++ of LSUN church; the encoder of LSUN church is that of the others here
    "cifar10": Config(
        data="hf:uoft-cs/cifar10", shape=(3, 32, 32), width=128, multipliers=(1, 2, 2, 2), batch=256, images=60_000_000, ema=0.9999,
        **_LARGE,
    ),
    "celeba-64": Config(
        data="pictures/", shape=(3, 64, 64), width=64, multipliers=(1, 1, 2, 2, 4), gamma=0.002, gamma_end=0.002, lr=5e-5, lr_energy=5e-5,
        batch=128, images=65_000_000, **_LARGE,
    ),
    "lsun-church-128": Config(
        data="pictures/", shape=(3, 128, 128), width=64, multipliers=(1, 2, 2, 4, 4), spacing="drl", w=0.6, w_mid=0.2, gamma=0.005,
        gamma_end=0.005, lr=5e-5, lr_energy=5e-5, batch=48, images=50_000_000, **_LARGE,
    ),
}  # fmt: skip
