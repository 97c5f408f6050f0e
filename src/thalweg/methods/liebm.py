"""LIEBM: an energy of images and of what a frozen encoder sees in them, with a generator that learns where its chains end.

    f(x, z) = F(f_φ(x)) + log p(z | x),  log p(z | x) = γ cos(g_ψ(f_φ(x)), z);   E = −f               (eq. 5, 7)
    z = h(v(x))/‖h(v(x))‖,  v ~ V;   x⁰ = G(m),  m ~ N(0, I);   x^T = T Langevin steps from x⁰        (eq. 9, or 10)
    update("generator", ω₁ ‖G(m) − x^T‖²/2τ² + ω₂ ELBO(x, z))                                          (eq. 8; with ω₂ 11–14)
    x̃ = T Langevin steps from v(x⁰) with probability p, else from x⁰
    update("energy", E(x, z).mean() − E(x̃).mean())                                                     (eq. 4)

Algorithm 1 of "Latent-informed energy-based models with collaborative generator training" (anonymous). The paper writes p ∝ exp(E); its
E is −E here. h comes from the method `ssl`, or is any network of one's own; without it this is a plain energy, the paper's ablation.
"""

import math
from dataclasses import dataclass as plain
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from thalweg import checkpoint, random, sample
from thalweg.chain import Langevin
from thalweg.data.augment import Augmentation
from thalweg.data.base import Batch
from thalweg.energy import gaussian
from thalweg.errors import InputError
from thalweg.methods.base import STRICT, Count, Fraction, Method, NotNegative, Positive, Whole, class_labels, warm_up_cosine
from thalweg.nn.convnet import ConvEnergy
from thalweg.nn.encoder import ResNetEncoder, projection_head
from thalweg.nn.generator import LatentGenerator
from thalweg.nn.layers import frozen
from thalweg.nn.mlp import MLP

OWN = "own:"  # before the name of an encoder that was given from Python


@dataclass(frozen=True, config=STRICT)
class Config:
    """Settings of `liebm`. Where a field names no table or equation of the paper, the paper is silent and the value is ours."""

    data: str = "digits"
    """name of the data that the preset is for"""
    shape: tuple[Count, ...] = (1, 8, 8)
    """shape of one example, [D] or [C, H, W]"""
    classes: Whole = 10
    """number of labels; networks never see them, only the classes' mean latents and views are kept, for samples by label"""
    encoder: str = ""
    """folder of a run or an exported model of `ssl`: h, read once, frozen, and kept in the model's own weights; "" for no latents"""
    encoder_widths: tuple[Count, ...] = ()
    """found with the encoder: its channels at each resolution"""
    encoder_blocks: Count = 1
    """found with the encoder: its residual blocks at each resolution"""
    encoder_head: Count = 256
    """found with the encoder: hidden units of its head"""
    encoder_dim: Count = 64
    """found with the encoder: d_z, values of a latent"""
    network: Literal["mlp", "convnet"] = "convnet"
    """f_φ, G and q: `mlp` for vectors, `convnet` for images"""
    width: Count = 128
    """hidden units of the mlp"""
    depth: Count = 3
    """hidden layers of the mlp"""
    widths: tuple[Count, ...] = (32, 64, 128)
    """channels of f_φ at each resolution"""
    blocks: Whole = 1
    """residual blocks of f_φ and q at each resolution"""
    features: Count = 512
    """values of f_φ(x) (A.8: 512)"""
    head: Count = 256
    """hidden units of g_ψ"""
    marginal: Literal["norm", "linear"] = "norm"
    """F: −½‖f_φ‖² (A.8, CIFAR-10 and ImageNet 32) or a learned linear map (CelebA)"""
    posterior: Literal["cosine", "gaussian", "exponential"] = "cosine"
    """p(z | x): on the sphere (eq. 7), a Gaussian with learned variance, or CEBM's exponential family, whose F is that of 3.1 instead"""
    gamma: NotNegative = 0.01
    """γ, concentration of the cosine posterior (Table 12)"""
    gamma_ood: NotNegative = 0.1
    """γ in the score of outliers (Table 12)"""
    latent_dim: Count = 128
    """values of the generator's m (Table 12)"""
    generator_width: Count = 32
    """channels of the generator at the full resolution, for vectors the hidden units"""
    inference_widths: tuple[Count, ...] = (32, 64, 128)
    """channels of q at each resolution"""
    learner: Literal["em", "ejm", "erm"] = "em"
    """what the generator matches: ends of chains on E(x) (em, eq. 9), on E(x, h(x)) (ejm, eq. 10), the first and the data (erm, eq. 11)"""
    inference: bool = False
    """with em or ejm, also learn q(m | x), by its latents alone (eq. 26); erm always has q"""
    generator_std: Positive = 0.3
    """τ, standard deviation of p_g(x | m)"""
    match_weight: NotNegative = 1.0
    """ω₁ of eq. 11 (Table 12: 1, or 70 for faces)"""
    data_weight: NotNegative = 0.1
    """ω₂ of eq. 11 (Table 12: 0.1, or 1 for faces)"""
    rho: NotNegative = 1.0
    """ρ of eq. 13, concentration of the generator's latents (Table 12: 1, or 50 at 256×256)"""
    steps: Count = 15
    """T, Langevin steps (Table 12)"""
    step: Positive = 10.0
    """s of x ← x − s²/2 ∇E + s τ ξ: 10 in [−1, 1] is the coefficient 12.5 = δ²/2 in [0, 1] of Table 12 (δ² = 25)"""
    noise: NotNegative = 1e-4
    """weight of the noise: with δ² = 25 it cannot be 1; a step of 10 gives a standard deviation of 1e-3 in [−1, 1]"""
    clip_move: NotNegative = 0.1
    """bound on each element of the gradient's move, 0 for none"""
    clamp: bool = True
    """keep chains in [−1, 1]"""
    augment: Fraction = 0.1
    """p, probability that a negative chain starts from a view of G(m)"""
    view: Literal["augmented", "noise"] = "augmented"
    """V: random augmentations, or noise within a grey value of 256 (sec. 4)"""
    crop: Fraction = 0.2
    """least share of an image's area that a view keeps, see `ssl`"""
    flip: Fraction = 0.5
    """probability that a view is mirrored"""
    jitter: NotNegative = 0.4
    """strength of a view's changes of brightness and contrast, in colour also of saturation and hue"""
    grey: Fraction = 0.1
    """probability that a view of three channels is grey"""
    regularise: NotNegative = 0.0
    """weight of the squared energies of data and samples"""
    data_noise: NotNegative = 0.0
    """standard deviation of Gaussian noise added to images that the energy learns from"""
    batch: Count = 128
    """images per update"""
    images: Count = 400_000
    """length of training in images; learning rates fall to zero over it"""
    lr: Positive = 1e-4
    """base learning rate of the energy's Adam (Table 12)"""
    beta1: Fraction = 0.0
    """β₁ of both Adams (Table 12)"""
    beta2: Fraction = 0.999
    """β₂ of the energy's Adam (Table 12)"""
    lr_generator: Positive = 2e-4
    """base learning rate of the generator's Adam (Table 12)"""
    lr_inference: Positive = 2e-4
    """base learning rate of q's Adam (Table 12)"""
    beta2_generator: Fraction = 0.9
    """β₂ of the generator's and q's Adam (Table 12)"""
    warm_up: Whole = 100
    """updates over which learning rates rise"""
    clip: NotNegative = 1.0
    """bound on each update's gradient norm, 0 for none"""
    ema: Fraction = 0.999
    """decay of the EMA twin (Table 12: 0.9999)"""


@plain(frozen=True, eq=False)
class Reconstruction:
    """What `LIEBM.reconstruct` found: images G(m) [B, ...] and their m [B, latent_dim]."""

    x: Tensor
    latent: Tensor


class LIEBM(Method):
    """An energy informed by latents, whose chains start at a generator; the settings are in `Config`.

    `encoder`: a network of one's own, images -> [B, d], instead of the config's; it is frozen, its weights are kept with the model's,
    but not its code: such a model is loaded by building it again and `load_state_dict`.
    """

    name = "liebm"
    Config = Config
    guarded = ("energy_data", "energy_samples")

    def __init__(self, config: Config, encoder: nn.Module | None = None) -> None:
        config, encoder, known = _with_encoder(config, encoder)
        super().__init__(config)
        c = config
        self._check(encoder is not None)
        self.encoder = None if encoder is None else encoder.eval().requires_grad_(False)
        self.register_buffer("encoder_known", torch.tensor(known))
        outputs = 2 * c.encoder_dim if c.posterior == "gaussian" else c.encoder_dim
        try:
            self.net = self._network(c.widths, c.features)
            self.generator = LatentGenerator(c.latent_dim, c.shape, width=c.generator_width)
            infers = c.learner == "erm" or c.inference
            self.inference = self._network(c.inference_widths, 2 * c.latent_dim) if infers else None
        except ValueError as error:
            raise InputError(f"liebm: {error}") from None
        informed = encoder is not None
        self.head = projection_head(c.features, c.head, outputs) if informed else None
        self.last = nn.Linear(c.features, 1) if c.marginal == "linear" and c.posterior != "exponential" else None
        self.views = Augmentation(c.crop, c.flip, c.jitter, c.grey)
        # of views of each class in training: how many, their mean, and the mean of their latents
        kept = c.classes if informed else 0
        self.register_buffer("class_count", torch.zeros(kept))
        self.register_buffer("class_images", torch.zeros(kept, *c.shape))
        self.register_buffer("class_latents", torch.zeros(kept, c.encoder_dim))

    def _check(self, informed: bool) -> None:
        c = self.config
        if c.network == "convnet" and len(c.shape) != 3:
            raise InputError(f"liebm: network = 'convnet' needs images [C, H, W], got shape {c.shape}; use 'mlp'")
        if not informed:
            needs = {
                "learner = 'ejm'": c.learner == "ejm",
                "inference without learner = 'erm'": c.inference and c.learner != "erm",
                "posterior = 'exponential'": c.posterior == "exponential",
            }
            for what in (name for name, wanted in needs.items() if wanted):
                raise InputError(f"liebm: {what} needs latents; give encoder, the folder of an ssl run")
        if c.view == "augmented" and len(c.shape) != 3 and (informed or c.augment):
            raise InputError(f"liebm: view = 'augmented' is for images [C, H, W], got shape {c.shape}; use view = 'noise'")

    def _network(self, widths: tuple[int, ...], out: int) -> nn.Module:
        c = self.config
        if c.network == "mlp":
            return MLP(math.prod(c.shape), width=c.width, depth=c.depth, out=out)
        return ConvEnergy(c.shape, widths=widths, blocks=c.blocks, out=out)

    def train(self, mode: bool = True) -> "LIEBM":
        """As of any module, but that the encoder stays in evaluation mode."""
        super().train(mode)
        if self.encoder is not None:
            self.encoder.eval()
        return self

    # --- the densities

    def energy(self, x: Tensor, *, z: Tensor | None = None, gamma: float | None = None) -> Tensor:
        """E(x), or the joint E(x, z) where a latent `z` ([d_z] or [B, d_z]) is given, in nats up to a constant: [B, ...] -> [B].

        ∫ exp(−E(x, z)) dz is exp(−E(x)), times a function of γ alone for the cosine posterior, whose z are uniform on the sphere a
        priori. `gamma` replaces the config's γ. Raises InputError for a z of another shape, and for models without latents.
        """
        h = self.net(x)
        value = self._marginal(h)
        if z is None:
            return value
        self._informed()
        if z.dim() not in (1, 2) or z.shape[-1] != self.config.encoder_dim or (z.dim() == 2 and len(z) not in (1, len(x))):
            raise InputError(f"liebm: z must be [{self.config.encoder_dim}], or one for each of {len(x)} rows, got {list(z.shape)}")
        return value - self._log_posterior(h, z.expand(len(x), -1), gamma)

    def _marginal(self, h: Tensor) -> Tensor:
        """−F(f_φ(x)) of features [B, features] -> [B]."""
        if self.config.posterior == "exponential":
            return -gaussian(self.head(h))  # F = B(λ + t) − B(λ) = ½‖t‖² for t = (g_ψ, 0) and λ = (0, −½)
        return gaussian(h) if self.last is None else -self.last(h)[:, 0]

    def _log_posterior(self, h: Tensor, z: Tensor, gamma: float | None = None) -> Tensor:
        """log p(z | x) of features and latents in nats, for the cosine posterior without its constant log Z_γ: [B]."""
        c = self.config
        if c.posterior == "cosine":
            return (c.gamma if gamma is None else gamma) * F.cosine_similarity(self.head(h), z, dim=1)
        if gamma is not None:
            raise InputError(f"liebm: gamma is of the cosine posterior; this model has posterior = '{c.posterior}'")
        mean, precision = self._moments(h)
        return -0.5 * (precision * (z - mean).square() - precision.log() + math.log(2 * math.pi)).sum(1)

    def _moments(self, h: Tensor) -> tuple[Tensor, Tensor]:
        g, kind = self.head(h), self.config.posterior
        if kind == "cosine":
            return F.normalize(g, dim=1), torch.full_like(g, self.config.gamma)
        if kind == "exponential":
            return g, torch.ones_like(g)
        mean, log_variance = g.chunk(2, dim=1)
        return F.normalize(mean, dim=1), (-log_variance.tanh()).exp()  # sec. 4.5: a normalised mean, log-variances in [−1, 1]

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """p(z | x), [B, ...] -> mean and precision, [B, d_z] each: of a Gaussian, or the mean direction and γ of a von Mises–Fisher.

        Raises InputError for models without latents.
        """
        self._informed()
        return self._moments(self.net(x))

    def latent(self, x: Tensor) -> Tensor:
        """h(x)/‖h(x)‖, [B, ...] in [−1, 1] -> [B, d_z], differentiable by x. Raises InputError for models without latents."""
        self._informed()
        return F.normalize(self.encoder(x), dim=1)

    def encode(self, x: Tensor) -> Tensor:
        """f_φ(x), what the energy sees: [B, ...] -> [B, features]."""
        return self.net(x)

    def informed_energy(self, x: Tensor) -> Tensor:
        """E(x, h(x)) in nats, whose chains are those of eq. 10: [B, ...] -> [B]; E(x) for a model without latents."""
        if self.encoder is None:
            return self.energy(x)
        return self.energy(x, z=self.latent(x))

    def outlier_score(self, x: Tensor, *, gamma: float | None = None) -> Tensor:
        """−s(x) = E(x) − γ cos(g_ψ(f_φ(x)), h(x)), higher is more outlying (eq. 15): [B, ...] -> [B]; E(x) for a model without latents.

        `gamma` is `gamma_ood` by default; other posteriors than the cosine have log p(h(x) | x) in its place.
        """
        if self.encoder is None:
            return self.energy(x)
        if self.config.posterior == "cosine" and gamma is None:
            gamma = self.config.gamma_ood
        return self.energy(x, z=self.latent(x), gamma=gamma)

    def _informed(self) -> None:
        if self.encoder is None:
            raise InputError("liebm: this model has no latents (encoder = ''); train it with --encoder, the folder of an ssl run")

    # --- generator and inference model

    def generate(self, m: Tensor) -> Tensor:
        """G(m), where chains start: [B, latent_dim] -> [B, ...], images in (−1, 1)."""
        return self.generator(m)

    def infer(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """q(m | x), [B, ...] -> mean and log-variance, [B, latent_dim] each. Raises InputError for models without q."""
        if self.inference is None:
            raise InputError("liebm: this model has no inference model; train it with learner = 'erm', or with inference = true")
        mean, log_variance = self.inference(x).chunk(2, dim=1)
        return mean, log_variance.clamp(-10.0, 10.0)

    def _drawn(self, x: Tensor, generator: random.Generator) -> tuple[Tensor, Tensor]:
        """A draw of q(m | x) [B, latent_dim], and KL(q(m | x) ‖ N(0, I)) in nats [B]."""
        mean, log_variance = self.infer(x)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        return mean + (0.5 * log_variance).exp() * random.normal_like(mean, generator), kl

    def generator_loss(self, m: Tensor, refined: Tensor, x: Tensor, z: Tensor | None, generator: random.Generator) -> Tensor:
        """Eq. 8, for `erm` eq. 11: [B, latent_dim], ends of chains and data [B, ...], latents [B, d_z] -> a scalar, nats per dimension."""
        c = self.config
        loss = c.match_weight * self._misfit(self.generator(m), refined)
        if c.learner == "erm":
            drawn, kl = self._drawn(x, generator)
            rebuilt = self.generator(drawn)
            elbo = -self._misfit(rebuilt, x) - kl
            if z is not None:
                elbo = elbo + c.rho * F.cosine_similarity(z, self.encoder(rebuilt), dim=1)
            loss = loss - c.data_weight * elbo
        return loss.mean() / x[0].numel()

    def _misfit(self, a: Tensor, b: Tensor) -> Tensor:
        """−log p_g(b | m) without its constant, a = G(m): [B]."""
        return gaussian(a - b, self.config.generator_std)

    def inference_loss(self, x: Tensor, z: Tensor, generator: random.Generator) -> Tensor:
        """Eq. 26 with its log: q learns images whose latents agree with those of x, not their pixels; a scalar in nats."""
        drawn, kl = self._drawn(x, generator)
        return (kl - self.config.rho * F.cosine_similarity(z, self.encoder(self.generator(drawn)), dim=1)).mean()

    # --- training

    @property
    def notice(self) -> str:
        if self.encoder is not None:
            return ""
        return (
            "liebm: no --encoder, so there are no latents: this trains a plain energy beside a generator, the paper's ablation. "
            "Latents come of an encoder of the same data: thalweg train ssl/digits --out runs/encoder, then --encoder runs/encoder"
        )

    @property
    def abilities(self) -> frozenset[str]:
        found = {"sample", "energy", "encode", "outlier_score", "constraint", "reconstruct", "restore_latent"}
        found |= {"start"} if self.deterministic else set()
        # samples of a class begin at its mean view, which training has to have seen
        return frozenset(found | ({"labels"} if len(self.class_count) and bool(self.class_count.all()) else set()))

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        c = self.config
        generator = [{"params": self.generator.parameters(), "lr": c.lr_generator}]
        inference = [] if self.inference is None else [{"params": self.inference.parameters(), "lr": c.lr_inference}]
        energy = [p for part in (self.net, self.head, self.last) if part is not None for p in part.parameters()]
        betas = (c.beta1, c.beta2_generator)
        found = {"energy": torch.optim.Adam(energy, lr=c.lr, betas=(c.beta1, c.beta2), fused=True)}
        together = c.learner == "erm"
        found["generator"] = torch.optim.Adam(generator + (inference if together else []), betas=betas, fused=True)
        if inference and not together:
            found["inference"] = torch.optim.Adam(inference, betas=betas, fused=True)
        return found

    def learning_rate(self, name: str, images: int) -> float:
        """Linear warm-up, then a cosine to zero at `images` of the config."""
        c = self.config
        return warm_up_cosine(images / c.batch, c.warm_up, images / c.images)

    def step(self, batch: Batch, update) -> None:
        c, g, x = self.config, update.generator, batch.x
        z = None
        if self.encoder is not None:
            if not self.encoder_known:
                raise InputError("liebm: the encoder has no weights yet; leave encoder_widths to be found with the encoder")
            view = self._view(x, g)
            z = self.latent(view)
            self._remember(view, z, batch.label, update)
        m = random.normal(len(x), c.latent_dim, generator=g, device=x.device)
        with torch.no_grad():
            start = self.generator(m)
        trace = sample.Trace()
        with frozen(self.net, *(part for part in (self.head, self.last) if part is not None)):
            refined = self._chain(self.informed_energy if c.learner == "ejm" else self.energy, start, g, trace=trace)
        update("generator", self.generator_loss(m, refined, x, z, g))
        if self.inference is not None and c.learner != "erm":
            update("inference", self.inference_loss(x, z, g))
        with frozen(self.net):
            negative = self.negatives(start, refined, g)
        loss, positive, sampled, agreement = self.energy_loss(x, z, negative, g)
        update("energy", loss)
        update.log(energy_data=positive, energy_samples=sampled, displacement=trace.displacement)
        if agreement is not None:
            update.log(agreement=agreement)

    def energy_loss(
        self, x: Tensor, z: Tensor | None, negative: Tensor, generator: random.Generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """E(x, z).mean() − E(x̃).mean(), whose gradient is that of −log p(x, z) (eq. 4), both marginal energies [B], and the cosine of z
        with the mean of p(z | x) [B] (None without latents)."""
        c, agreement = self.config, None
        x = x + c.data_noise * random.normal_like(x, generator) if c.data_noise else x
        h = self.net(torch.cat([x, negative]))
        positive, sampled = self._marginal(h).chunk(2)
        loss = positive.mean() - sampled.mean()
        if z is not None:
            loss = loss - self._log_posterior(h[: len(x)], z).mean()
            with torch.no_grad():
                agreement = F.cosine_similarity(self._moments(h[: len(x)])[0], z, dim=1)
        if c.regularise:
            loss = loss + c.regularise * (positive.square().mean() + sampled.square().mean())
        return loss, positive, sampled, agreement

    def _view(self, x: Tensor, generator: random.Generator) -> Tensor:
        """v(x), v ~ V: [B, ...] in [−1, 1] -> the same."""
        if self.config.view == "augmented":
            return self.views(x, generator)
        # 255/256 x + U(0, 1/256) of sec. 4, said of [0, 1]
        u = random.uniform(*x.shape, generator=generator, device=x.device)
        return (255 * (x + 1) + 2 * u) / 256 - 1

    def negatives(self, start: Tensor, refined: Tensor, generator: random.Generator) -> Tensor:
        """Ends of chains on E(x) from v(x⁰) with probability p, else from x⁰ = `start` (Algorithm 1, lines 13 and 14): [B, ...].

        `refined` are the generator's chains from `start`. They are on E(x) as well, but for `ejm`, so only rows with a view need others.
        """
        c, chosen = self.config, torch.empty(0, dtype=torch.long, device=start.device)
        if c.augment:
            chosen = (random.uniform(len(start), generator=generator, device=start.device) < c.augment).nonzero()[:, 0]
        if c.learner == "ejm":
            views = start.index_copy(0, chosen, self._view(start[chosen], generator)) if len(chosen) else start
            return self._chain(self.energy, views, generator)
        if not len(chosen):
            return refined
        return refined.index_copy(0, chosen, self._chain(self.energy, self._view(start[chosen], generator), generator))

    @torch.no_grad()
    def _remember(self, view: Tensor, z: Tensor, label: Tensor | None, update: Any) -> None:
        """Running means of the classes' views and latents; no loss sees them."""
        if label is None or label.dim() != 1 or not self.config.classes:
            return
        rows = F.one_hot(label, self.config.classes).to(z).T
        new = update.mean(rows.sum(1))
        self.class_count += new
        for means, values in ((self.class_latents, z), (self.class_images, view)):
            sums = update.mean(rows @ values.flatten(1).to(rows)).view(means.shape)
            given, count = (n.view(-1, *[1] * (means.dim() - 1)) for n in (new, self.class_count.clamp(min=1)))
            means += (sums - given * means) / count

    @property
    def chain(self) -> Langevin:
        """How chains on images move, for restoration."""
        c = self.config
        return Langevin(steps=c.steps, step=c.step, noise=c.noise, clip=c.clip_move, clamp=c.clamp)

    def _chain(self, energy, x: Tensor, generator: random.Generator, *, steps: int | None = None, **options) -> Tensor:
        c = self.config
        if len(c.shape) == 3 and c.shape[0] > 1:
            x = x.to(memory_format=torch.channels_last)
        return sample.langevin(
            energy, x, steps=c.steps if steps is None else steps, step=c.step, noise=c.noise, clip=c.clip_move or None,
            clamp=(-1.0, 1.0) if c.clamp else None, generator=generator, **options,
        )  # fmt: skip

    # --- sampling

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of one m, the start of a sample."""
        return (self.config.latent_dim,)

    @property
    def deterministic(self) -> bool:
        """Whether a sample is a function of its `start`: chains without noise."""
        return not self.config.noise

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        steps: int | None = None,
        use: Literal["both", "initializer"] = "both",
        label: Tensor | int | None = None,
        gamma: float | None = None,
        rounds: int = 3,
        candidates: int | None = None,
        start: Tensor | None = None,
        constraint: sample.Constraint | None = None,
        trace: sample.Trace | None = None,
    ) -> Tensor:
        """`n` samples [n, ...], images in [−1, 1]: `steps` Langevin steps (T by default) on E(x) from G(m).

        `use` = "initializer" shows where chains start. `start` gives m [n, latent_dim]. With a `label` (one, or [n]) chains run on
        E(x, z̄) of its class's mean latent (sec. 4.3), with `gamma` for γ: `rounds` times from G(m), m ~ q(m | x), at first of the class's
        mean view; with `candidates`, and (16 of them) for a model without q, once from the G(m) whose latent is nearest to z̄.
        `constraint` puts what was measured back into the start and after each step. Raises InputError for an m of another shape, unknown
        labels, and a label with a start.
        """
        c = self.config
        if use not in ("both", "initializer"):
            raise InputError(f"liebm: use must be 'both' or 'initializer', got '{use}'")
        device = self.encoder_known.device
        generator = random.seeded(seed, 1, device=device)
        if start is not None and tuple(start.shape) != (n, c.latent_dim):
            raise InputError(f"liebm: start must have shape {(n, c.latent_dim)}, got {tuple(start.shape)}")

        def refine(x: Tensor, **condition) -> Tensor:
            if use == "initializer":
                return x

            def measured_back(x: Tensor) -> Tensor:
                return constraint(x, 1.0, 0.0)

            project = None if constraint is None else measured_back
            x = x if project is None else project(x)
            return self._chain(self.energy, x, generator, steps=steps, project=project, trace=trace, **condition)

        with frozen(self):
            if label is None:
                m = random.normal(n, c.latent_dim, generator=generator, device=device) if start is None else start.to(device)
                x = refine(self.generator(m))
            else:
                if start is not None:
                    raise InputError("liebm: a label chooses where chains start; give label or start")
                x, z = self._of_class(class_labels(label, n, c.classes, device))
                if self.inference is None or candidates is not None:
                    x = refine(self._nearest(z, 16 if candidates is None else candidates, generator), z=z, gamma=gamma)
                else:
                    for _ in range(rounds):
                        x = refine(self.generator(self._drawn(x, generator)[0]), z=z, gamma=gamma)
        return x.clamp(-1, 1).contiguous() if len(c.shape) == 3 else x

    def _of_class(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The mean view and the normalised mean latent of each label."""
        self._informed()
        if not self.class_count[labels].all():
            raise InputError("liebm: no images of this label were seen in training, so its mean latent is not known")
        return self.class_images[labels], F.normalize(self.class_latents[labels], dim=1)

    def _nearest(self, z: Tensor, candidates: int, generator: random.Generator) -> Tensor:
        """For each z [n, d_z] the one of several draws of G(m) whose latent is nearest: [n, ...]."""
        if candidates < 1:
            raise InputError(f"liebm: candidates must be 1 or more, got {candidates}")
        best = None
        for _ in range(candidates):
            x = self.generator(random.normal(len(z), self.config.latent_dim, generator=generator, device=z.device))
            agreement = F.cosine_similarity(self.latent(x), z, dim=1)
            if best is None:
                best, found = agreement, x
            better = agreement > best
            best, found = torch.where(better, agreement, best), torch.where(better.view(-1, *[1] * (x.dim() - 1)), x, found)
        return found

    def reconstruct(self, x: Tensor, mask: Tensor | None = None, *, steps: int = 0, rate: float = 0.05, seed: int = 0) -> Reconstruction:
        """G(m) nearest to x where `mask` is 1 (or everywhere): m from q(m | x) (Table 11), then `steps` of Adam on ‖mask·(x − G(m))‖².

        x [B, ...]; mask broadcasts against x, and what x holds elsewhere is not looked at. Without q, m begins at a draw of `seed`.
        Raises InputError for bad options, and for no steps of a model without q.
        """
        if steps < 0 or not rate > 0 or not (steps or self.inference is not None):
            raise InputError(
                f"liebm: reconstruct needs a rate above 0 and, without an inference model, 1 step or more, got {rate}, {steps}"
            )
        device = self.encoder_known.device
        x = x.to(device)
        mask = torch.ones_like(x) if mask is None else mask.to(x).expand_as(x)
        with torch.no_grad():
            if self.inference is None:
                m = random.normal(len(x), self.config.latent_dim, generator=random.seeded(seed, 1, device=device), device=device)
            else:
                m = self.infer(mask * x)[0]
        with frozen(self.generator), torch.enable_grad():
            m = m.clone().requires_grad_(True)
            optimizer = torch.optim.Adam([m], lr=rate)
            for _ in range(steps):
                (m.grad,) = torch.autograd.grad((mask * (self.generator(m) - x)).square().sum(), [m])
                optimizer.step()
        m = m.detach()
        with torch.no_grad():
            return Reconstruction(self.generator(m), m)


def _with_encoder(c: Config, given: nn.Module | None) -> tuple[Config, nn.Module | None, bool]:
    """The config with what is found of the encoder, the encoder, and whether its weights are known; a saved model brings them later."""
    if given is not None:
        with torch.no_grad():
            found = given.eval()(torch.zeros(2, *c.shape, device=next((p.device for p in given.parameters()), None)))
        if not isinstance(found, Tensor) or found.dim() != 2 or len(found) != 2:
            raise InputError(f"liebm: an encoder must give vectors [B, d] of examples [B, {', '.join(map(str, c.shape))}]")
        return replace(c, encoder=OWN + type(given).__name__, encoder_dim=found.shape[1]), given, True
    if c.encoder.startswith(OWN):
        raise InputError(
            f"liebm: this model's encoder is one of its user's own ({c.encoder.removeprefix(OWN)}), whose code is not kept: "
            "build LIEBM(config, encoder=...) and fill it by load_state_dict"
        )
    if not c.encoder:
        return c, None, False
    if len(c.shape) != 3:
        raise InputError(f"liebm: encoders of ssl are for images [C, H, W], got shape {c.shape}; give one of your own from Python")
    tensors = None
    if not c.encoder_widths:
        c, tensors = _read(c)
    encoder = ResNetEncoder(c.shape[0], widths=c.encoder_widths, blocks=c.encoder_blocks, head=c.encoder_head, out=c.encoder_dim)
    if tensors is not None:
        try:
            encoder.load_state_dict(tensors)
        except RuntimeError as error:
            raise InputError(f"the weights in {c.encoder} do not fit its config: {str(error).splitlines()[-1].strip()}") from None
    return c, encoder, tensors is not None


def _read(c: Config) -> tuple[Config, dict[str, Tensor]]:
    """The config with the sizes of the encoder in the folder that it names, and that encoder's weights."""
    folder = Path(c.encoder)
    found = checkpoint.read_config(folder)
    if found["method"] != "ssl":
        raise InputError(f"{folder} is a {found['method']}, no encoder; train one: thalweg train ssl/digits --out DIR")
    try:
        theirs = found["config"]
        shape, loss = tuple(theirs["shape"]), theirs["loss"]
        sizes = {"encoder_" + ("dim" if k == "latent_dim" else k): theirs[k] for k in ("widths", "blocks", "head", "latent_dim")}
        sizes["encoder_widths"] = tuple(sizes["encoder_widths"])
    except (KeyError, TypeError):
        raise InputError(f"the config in {folder} is not that of an ssl model") from None
    if shape != tuple(c.shape):
        raise InputError(f"liebm: the encoder in {folder} ({loss}) is for images of shape {shape}, not {tuple(c.shape)}")
    prefix = "encoder."
    tensors = {key.removeprefix(prefix): value for key, value in checkpoint.read_weights(folder).items() if key.startswith(prefix)}
    return replace(c, **sizes), tensors


# Ours, for small images; chains, γ, ratios of rates and the form of F as in Table 12, CIFAR-10
_SMALL = dict(lr=3e-4, lr_generator=6e-4, lr_inference=6e-4, features=128, latent_dim=32, data_noise=0.03)
# by trials of minutes on Fashion-MNIST; without `regularise` energies went off within 20,000 images
_SMALL_32 = _SMALL | dict(
    widths=(16, 32, 64), noise=5e-4, clip_move=0.03, regularise=0.1, batch=32, lr=7e-4, lr_generator=5e-4, images=1_000_000
)

_PAPER = dict(features=512, head=512, latent_dim=128, inference_widths=(128, 256, 256, 512), batch=256, ema=0.9999)

LIEBM.PRESETS = {
    # the paper's step of 10 makes worse samples of digits and misses outliers: benchmarks.md, sweep
    "digits": Config(crop=0.5, flip=0.0, network="mlp", width=512, step=1.0, images=100_000, **_SMALL),
    "fashion-mnist": Config(data="fashion-mnist", shape=(1, 32, 32), **_SMALL_32),
    "emoji-google": Config(data="emoji-google", shape=(3, 32, 32), classes=9, **_SMALL_32),
    # Not run here: Table 12 and A.8. Networks are ours, not Dual-MCMC's: f_φ of 8, 22 and 22 million parameters for E of 4.9, 17.6 and
    # 20.7, G of 4, 13 and 13 for 4.3, 16.0 and 12.2. The inference model of eq. 26 for the first two is --inference true. Our step is
    # the paper's δ, twice that for CIFAR-10, whose images the paper has in [0, 1]
    "cifar10": Config(
        data="hf:uoft-cs/cifar10", shape=(3, 32, 32), widths=(128, 256, 256, 256), generator_width=64, images=25_000_000, **_PAPER,
    ),
    "imagenet-32": Config(
        data="pictures/", shape=(3, 32, 32), classes=0, widths=(256, 256, 512, 512), generator_width=128, step=5.0, images=128_000_000,
        **_PAPER,
    ),
    "celeba-64": Config(
        data="pictures/", shape=(3, 64, 64), classes=0, widths=(64, 128, 256, 512, 512), generator_width=64, marginal="linear",
        learner="erm", match_weight=70.0, data_weight=1.0, step=0.1**0.5, lr_generator=3e-4, lr_inference=1e-4, beta2=0.9,
        images=60_000_000, **_PAPER,
    ),
}  # fmt: skip
