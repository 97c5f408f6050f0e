"""LIEBM: an energy of images and of their latents by a frozen encoder, with a generator where its chains start. docs/methods/liebm.md

    f(x, z) = F(f_φ(x)) + log p(z | x),  log p(z | x) = γ cos(g_ψ(f_φ(x)), z);   E = −f               (eq. 5, 7)
    z = h(v(x))/‖h(v(x))‖,  v ~ V;   x⁰ = G(m),  m ~ N(0, I);   x^T = T Langevin steps from x⁰        (eq. 9, or 10)
    update("generator", ω₁ ‖G(m) − x^T‖²/2τ² − ω₂ ELBO(x, z))                                          (eq. 8; with ω₂ 11–14)
    update("inference", KL(q(m | x) ‖ N(0, I)) − ρ cos(h(G(m)), z))                                    (eq. 26, where there is q)
    x̃ = T Langevin steps from v(x⁰) with probability p, else from x⁰
    update("energy", E(x, z).mean() − E(x̃).mean())                                                     (eq. 4)

    with `cotraining` update("encoder", NT-Xent of h(v(x)), h(v′(x)) and the others', g_ψ(f_φ(x̃)) among them)  (Fig. 7's control)

Algorithm 1 of "Latent-informed energy-based models with collaborative generator training" (anonymous). The paper writes p ∝ exp(E); its
E is −E here. h comes from the method `ssl`, or is any network of one's own; without it this is a plain energy, the paper's ablation.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from thalweg import random
from thalweg.augmentation import RandomViews, Views
from thalweg.chain import Langevin, measured_back
from thalweg.compiled import Faster
from thalweg.config import STRICT, Common, Count, Fraction, NotNegative, Positive
from thalweg.data.base import Batch
from thalweg.encoders import Contrastive, frozen_encoder
from thalweg.energy import Energy, gaussian
from thalweg.errors import InputError
from thalweg.methods.base import Method, Update, check_start, class_labels, finished
from thalweg.nn.build import MLP, ConvNet, Own, ResNet
from thalweg.nn.class_means import ClassMeans
from thalweg.nn.encoder import projection_head
from thalweg.nn.initializers import Generator
from thalweg.nn.latent_posterior import log_posterior, moments
from thalweg.nn.layers import frozen
from thalweg.objective import kl_from_normal, nt_xent
from thalweg.sample import Constraint, Trace
from thalweg.search import Reconstruction, fit_latent, nearest_draw

FeatureNet = Annotated[MLP | ConvNet, Field(discriminator="kind")]


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Config(Common):
    """Settings of `liebm`. Where a field names no table or equation of the paper, the paper is silent and the value is ours.

    Networks never see labels; only the classes' mean latents and views are kept, for samples by label.
    """

    # the energy
    net: Annotated[MLP | ConvNet | Own, Field(discriminator="kind")] = ConvNet(blocks=1)
    """the energy's network f_φ"""
    features: Count = 512
    """values of f_φ(x) (A.8: 512)"""
    head: Count = 256
    """hidden units of g_ψ"""
    marginal: Literal["norm", "linear"] = "norm"
    """F: −½‖f_φ‖² (A.8, CIFAR-10 and ImageNet 32) or a learned linear map (CelebA)"""
    latent_posterior: Literal["cosine", "gaussian", "exponential"] = "cosine"
    """p(z | x): on the sphere (eq. 7), a Gaussian with learned variance, or CEBM's exponential family, whose F is that of 3.1 instead"""
    concentration: NotNegative = 0.01
    """γ of the cosine posterior (Table 12), in the unit of energies whose chains have the step `concentration_step`"""
    concentration_ood: NotNegative = 0.1
    """γ in the score of outliers (Table 12), in the same unit"""
    concentration_step: Positive = 10.0
    """s₀, the step in [−1, 1] for which γ is given. Energies on which chains of step s move as far are (s₀/s)² times as steep, and so γ is
    (s₀/s)² times as many nats: whatever the step, latents have the same share in it"""
    regularise: NotNegative = 0.0
    """α of α (E(x⁺)² + E(x⁻)²)"""
    data_noise: NotNegative = 0.0
    """standard deviation of Gaussian noise added to data"""
    # the latents of images
    pretrained: str = ""
    """folder of a run or an exported model of `ssl`: h, read once, frozen, and kept in the model's own weights; "" for no latents"""
    encoder: ResNet | None = None
    """h's network, found with the encoder"""
    cotraining: Contrastive | None = None
    """h learns with the energy, as in CLEL (Fig. 7's control), from `pretrained` or anew; None for one that is frozen"""
    augmentation: Views = RandomViews()
    """V, the views whose latents are z: random ones of images, or noise within a grey value of 256 (sec. 4)"""
    # the chains
    chain: Langevin = Langevin(steps=15, step=10.0, noise=1e-4, clip=0.1, clamp=True)
    """how chains move: T = 15 (Table 12). A step of 10 in [−1, 1] is the coefficient 12.5 = δ²/2 of Table 12 (δ² = 25) in [0, 1]; noise of
    weight 1 would then have a standard deviation of 10, here it has 1e-3"""
    augmented_starts: Fraction = 0.1
    """p, probability that a negative chain starts from a view of G(m)"""
    # the generator and the inference model
    generator: Generator = Generator(latent_dim=128)
    """G (Table 12: 128 latents)"""
    generator_training: Literal["em", "ejm", "erm"] = "em"
    """what G learns: ends of chains on E(x) (em, eq. 9), on E(x, h(x)) (ejm, eq. 10), the first and the data (erm, eq. 11)"""
    generator_std: Positive = 0.3
    """τ, standard deviation of p_g(x | m)"""
    match_weight: NotNegative = 1.0
    """ω₁ of eq. 11 (Table 12: 1, or 70 for faces)"""
    inference: FeatureNet | None = None
    """q(m | x): needed by erm; with em or ejm it is learned by its latents alone (eq. 26), None for none"""
    data_weight: NotNegative = 0.1
    """ω₂ of eq. 11 (Table 12: 0.1, or 1 for faces)"""
    generator_concentration: NotNegative = 1.0
    """ρ of eq. 13, concentration of the generator's latents (Table 12: 1, or 50 at 256×256)"""
    # the optimizers
    lr: Positive = 1e-4
    """base learning rate of the energy's Adam (Table 12)"""
    beta1: Fraction = 0.0
    """β₁ of all Adams (Table 12)"""
    beta2: Fraction = 0.999
    """β₂ of the energy's Adam (Table 12)"""
    lr_generator: Positive = 2e-4
    """base learning rate of the generator's Adam (Table 12)"""
    lr_inference: Positive = 2e-4
    """base learning rate of q's Adam (Table 12)"""
    beta2_generator: Fraction = 0.9
    """β₂ of the generator's and q's Adam (Table 12)"""


class LIEBM(Method):
    """An energy informed by latents, whose chains start at a generator; the settings are in `Config`.

    `encoder`: a network of one's own, images -> [B, d], instead of the config's; it is frozen, its weights are kept with the model's,
    but not its code: such a model is loaded by building it again and `load_state_dict`.
    """

    name = "liebm"
    Config = Config
    guarded = ("energy_data", "energy_samples")

    def __init__(self, config: Config, encoder: nn.Module | None = None) -> None:
        found = frozen_encoder(config.pretrained, config.encoder, config.shape, given=encoder, learns=config.cotraining is not None)
        super().__init__(replace(config, pretrained=found.name, encoder=found.net))
        c = self.config
        self._check(informed=found.module is not None)
        self.encoder = found.module
        self.register_buffer("encoder_known", torch.tensor(found.known))
        self.net = c.net.build(c.shape, out=c.features)
        self.compiled = Faster.of(c.chain)
        self.generator = c.generator.build(c.shape)
        self.inference = None if c.inference is None else c.inference.build(c.shape, out=2 * c.generator.latent_dim)
        outputs = 2 * found.dim if c.latent_posterior == "gaussian" else found.dim
        self.head = None if self.encoder is None else projection_head(c.features, c.head, outputs)
        self.last = nn.Linear(c.features, 1) if c.marginal == "linear" and c.latent_posterior != "exponential" else None
        self.class_means = ClassMeans(0 if self.encoder is None else c.classes, c.shape, found.dim)

    def _check(self, informed: bool) -> None:
        c = self.config
        if c.generator_training == "erm" and c.inference is None:
            raise InputError("liebm: generator_training = 'erm' needs an inference model; give inference = 'convnet', or 'mlp' for vectors")
        needs = {
            "generator_training = 'ejm'": c.generator_training == "ejm",
            "inference without generator_training = 'erm'": c.inference is not None and c.generator_training != "erm",
            "latent_posterior = 'exponential'": c.latent_posterior == "exponential",
        }
        for what, wanted in needs.items():
            if wanted and not informed:
                raise InputError(f"liebm: {what} needs latents; give encoder, the folder of an ssl run")
        if c.cotraining and (c.generator_training != "em" or c.inference):
            raise InputError("liebm: cotraining of the encoder is for generator_training = 'em' without an inference model")
        if c.augmentation.kind == "augmented" and len(c.shape) != 3 and (informed or c.augmented_starts):
            raise InputError(f"liebm: random views are of images [C, H, W], got shape {c.shape}; use augmentation = 'noise'")

    def train(self, mode: bool = True) -> "LIEBM":
        """As of any module, but that a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.encoder is not None and not self.config.cotraining:
            self.encoder.eval()
        return self

    # --- the densities

    def energy(self, x: Tensor, *, z: Tensor | None = None, concentration: float | None = None) -> Tensor:
        """E(x), or the joint E(x, z) where a latent `z` ([d_z] or [B, d_z]) is given, in nats up to a constant: [B, ...] -> [B].

        ∫ exp(−E(x, z)) dz is exp(−E(x)), times a function of γ alone for the cosine posterior, whose z are uniform on the sphere a
        priori. `concentration` stands in for the config's γ, in its unit. InputError for a z of another shape and models without latents.
        """
        h = self.net(x)
        value = self._marginal(h)
        if z is None:
            return value
        self._check_informed()
        dim = self.class_means.latents.shape[1]
        if z.dim() not in (1, 2) or z.shape[-1] != dim or (z.dim() == 2 and len(z) not in (1, len(x))):
            raise InputError(f"liebm: z must be [{dim}], or one for each of {len(x)} rows, got {list(z.shape)}")
        return value - self._log_posterior(h, z.expand(len(x), -1), concentration)

    def _marginal(self, h: Tensor) -> Tensor:
        """−F(f_φ(x)) of features [B, features] -> [B]."""
        if self.config.latent_posterior == "exponential":
            return -gaussian(self.head(h))  # F = B(λ + t) − B(λ) = ½‖t‖² for t = (g_ψ, 0) and λ = (0, −½)
        return gaussian(h) if self.last is None else -self.last(h)[:, 0]

    def _log_posterior(self, h: Tensor, z: Tensor, concentration: float | None = None) -> Tensor:
        """log p(z | x) of features and latents in nats, for the cosine posterior without its constant log Z_γ: [B]."""
        c = self.config
        if concentration is not None and c.latent_posterior != "cosine":
            raise InputError(f"liebm: a concentration is of the cosine posterior; this model has latent_posterior = '{c.latent_posterior}'")
        return log_posterior(c.latent_posterior, self.head(h), z, self._gamma(concentration))

    def _moments(self, h: Tensor) -> tuple[Tensor, Tensor]:
        return moments(self.config.latent_posterior, self.head(h), self._gamma())

    def _gamma(self, concentration: float | None = None) -> float:
        """γ in nats, of the config or as given in its unit."""
        c = self.config
        return (c.concentration if concentration is None else concentration) * (c.concentration_step / c.chain.step) ** 2

    def latent_share(self, x: Tensor, z: Tensor) -> Tensor:
        """Mean ‖∇ log p(z | x)‖, of the cosine posterior γ‖∇cos‖, over mean ‖∇F‖, slopes by x: [B, ...] and [B, d_z] -> a scalar."""
        with frozen(*self._energy_networks), torch.enable_grad():
            x = x.detach().requires_grad_()
            h = self.net(x)
            parts = (self._log_posterior(h, z), self._marginal(h))
            latent, marginal = (torch.autograd.grad(part.sum(), x, retain_graph=True)[0].flatten(1).norm(dim=1) for part in parts)
        return latent.mean() / marginal.mean()

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """p(z | x), [B, ...] -> mean and precision, [B, d_z] each: of a Gaussian, or the mean direction and γ of a von Mises–Fisher.

        InputError for models without latents.
        """
        self._check_informed()
        return self._moments(self.net(x))

    def latent(self, x: Tensor) -> Tensor:
        """h(x)/‖h(x)‖, [B, ...] in [−1, 1] -> [B, d_z], differentiable by x. InputError for models without latents."""
        self._check_informed()
        return F.normalize(self.encoder(x), dim=1)

    def encode(self, x: Tensor) -> Tensor:
        """f_φ(x), the features of which the energy is a function: [B, ...] -> [B, features]."""
        return self.net(x)

    def informed_energy(self, x: Tensor) -> Tensor:
        """E(x, h(x)) in nats, on which the chains of eq. 10 run: [B, ...] -> [B]; E(x) for a model without latents."""
        return self.energy(x, z=None if self.encoder is None else self.latent(x))

    def outlier_score(self, x: Tensor, *, concentration: float | None = None) -> Tensor:
        """−s(x) = E(x) − γ cos(g_ψ(f_φ(x)), h(x)), higher is more outlying (eq. 15): [B, ...] -> [B]; E(x) for a model without latents.

        γ is `concentration_ood` unless given; other posteriors than the cosine have log p(h(x) | x) in its place.
        """
        if self.encoder is None:
            return self.energy(x)
        if self.config.latent_posterior == "cosine" and concentration is None:
            concentration = self.config.concentration_ood
        return self.energy(x, z=self.latent(x), concentration=concentration)

    def _check_informed(self) -> None:
        if self.encoder is None:
            raise InputError("liebm: this model has no latents (pretrained = ''); train it with --pretrained, the folder of an ssl run")

    # --- generator and inference model

    def generate(self, m: Tensor) -> Tensor:
        """G(m), where chains start: [B, latent_dim] -> [B, ...], images in (−1, 1)."""
        return self.generator(m)

    def infer(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """q(m | x), [B, ...] -> mean and log-variance, [B, latent_dim] each. InputError for models without q."""
        if self.inference is None:
            raise InputError("liebm: this model has no inference model; train it with inference = 'convnet', or 'mlp' for vectors")
        mean, log_variance = self.inference(x).chunk(2, dim=1)
        return mean, log_variance.clamp(-10.0, 10.0)

    def draw_latent(self, x: Tensor, generator: random.Generator) -> tuple[Tensor, Tensor]:
        """A draw of q(m | x) [B, latent_dim], differentiable, and KL(q(m | x) ‖ N(0, I)) in nats [B]."""
        mean, log_variance = self.infer(x)
        kl = kl_from_normal(mean, log_variance)
        return mean + (0.5 * log_variance).exp() * random.normal_like(mean, generator), kl

    # --- losses

    def generator_loss(self, m: Tensor, refined: Tensor, x: Tensor, z: Tensor | None, generator: random.Generator) -> Tensor:
        """Eq. 8, for `erm` eq. 11: [B, latent_dim], ends of chains and data [B, ...], latents [B, d_z] -> a scalar, nats per dimension."""
        c = self.config
        loss = c.match_weight * self._misfit(self.generator(m), refined)
        if c.generator_training == "erm":
            m, kl = self.draw_latent(x, generator)
            rebuilt = self.generator(m)
            elbo = -self._misfit(rebuilt, x) - kl
            if z is not None:
                elbo = elbo + c.generator_concentration * F.cosine_similarity(z, self.encoder(rebuilt), dim=1)
            loss = loss - c.data_weight * elbo
        return loss.mean() / x[0].numel()

    def _misfit(self, a: Tensor, b: Tensor) -> Tensor:
        """−log p_g(b | m) without its constant, a = G(m): [B]."""
        return gaussian(a - b, self.config.generator_std)

    def inference_loss(self, x: Tensor, z: Tensor, generator: random.Generator) -> Tensor:
        """Eq. 26 with its log: q learns images whose latents agree with those of x, not their pixels; a scalar in nats."""
        m, kl = self.draw_latent(x, generator)
        return (kl - self.config.generator_concentration * F.cosine_similarity(z, self.encoder(self.generator(m)), dim=1)).mean()

    def encoder_loss(self, x: Tensor, negative: Tensor, generator: random.Generator) -> Tensor:
        """CLEL's loss of h in nats: two views of each image agree, and differ from others' and from g_ψ(f_φ(x̃)) of the negatives."""
        a, b = (self.encoder(self.config.augmentation(x, generator)) for _ in range(2))
        with torch.no_grad(), frozen(*self._energy_networks):
            others = self._moments(self.net(negative))[0]
        return nt_xent(a, b, self.config.cotraining.softmax_temperature, others)

    def energy_loss(self, x: Tensor, z: Tensor | None, negative: Tensor, generator: random.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """E(x, z).mean() − E(x̃).mean(), whose gradient is that of −log p(x, z) (eq. 4), and figures.

        Both marginal energies [B]; with latents `agreement` [B], cos(z, mean of p(z | x)), and `latent_share` of some rows.
        """
        c = self.config
        x = x + c.data_noise * random.normal_like(x, generator) if c.data_noise else x
        h = self.net(torch.cat([x, negative]))
        positive, sampled = self._marginal(h).chunk(2)
        figures = {"energy_data": positive, "energy_samples": sampled}
        loss = positive.mean() - sampled.mean()
        if z is not None:
            of_data = h[: len(x)]
            loss = loss - self._log_posterior(of_data, z).mean()
            with torch.no_grad():
                figures["agreement"] = F.cosine_similarity(self._moments(of_data)[0], z, dim=1)
            figures["latent_share"] = self.latent_share(x[:8], z[:8])
        if c.regularise:
            loss = loss + c.regularise * (positive.square().mean() + sampled.square().mean())
        return loss, figures

    # --- training

    @property
    def notice(self) -> str:
        if self.encoder is not None:
            return ""
        return (
            "liebm: no --pretrained encoder, so there are no latents: this trains a plain energy with a generator, the paper's ablation. "
            "Latents come from an encoder of the same data: thalweg train ssl/digits --out runs/encoder, then --pretrained runs/encoder"
        )

    @property
    def abilities(self) -> frozenset[str]:
        found = {"sample", "energy", "encode", "outlier_score", "constraint", "reconstruct", "restore_latent"}
        found |= set() if self.config.chain.noise else {"start"}  # a chain without noise is a function of its start
        # samples of a class begin at its mean view, which training has to have seen
        return frozenset(found | ({"labels"} if self.class_means.complete else set()))

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        c = self.config
        betas, generator = (c.beta1, c.beta2_generator), [{"params": self.generator.parameters(), "lr": c.lr_generator}]
        inference = [] if self.inference is None else [{"params": self.inference.parameters(), "lr": c.lr_inference}]
        energy = [p for part in self._energy_networks for p in part.parameters()]
        found = {"energy": torch.optim.Adam(energy, lr=c.lr, betas=(c.beta1, c.beta2), fused=True)}
        together = inference if c.generator_training == "erm" else []
        found["generator"] = torch.optim.Adam(generator + together, betas=betas, fused=True)
        if inference and not together:
            found["inference"] = torch.optim.Adam(inference, betas=betas, fused=True)
        if c.cotraining:
            found["encoder"] = c.cotraining.optimizer(self.encoder)
        return found

    def step(self, batch: Batch, update: Update) -> None:
        """Algorithm 1, whose lines are at the right."""
        c, g, x, trace = self.config, update.generator, batch.x, Trace()
        z = self._latents(batch, update)  # 3
        m = self._prior(len(x), g)  # 4
        with torch.no_grad():
            start = self.generator(m)
        chains_on = self.informed_energy if c.generator_training == "ejm" else self.energy
        refined = self._chain(chains_on, start, g, trace=trace, compile=self.compiled)  # 5
        update("generator", self.generator_loss(m, refined, x, z, g))  # 6 to 12
        if self.inference is not None and c.generator_training != "erm":
            update("inference", self.inference_loss(x, z, g))  # eq. 26
        negative = random.each_share(self.negatives, start, refined, generator=g)  # 13, 14
        loss, figures = self.energy_loss(x, z, negative, g)  # 15
        update("energy", loss)  # 16
        if c.cotraining:
            update("encoder", self.encoder_loss(x, negative, g))
        update.log(**trace.figures(x, refined), **figures)

    def _latents(self, batch: Batch, update: Update) -> Tensor | None:
        """z of a view of each image, [B, d_z] or None without an encoder, also taken into the classes' means."""
        if self.encoder is None:
            return None
        if not self.encoder_known:
            raise InputError("liebm: the encoder has no weights yet; leave `encoder` to be found with the encoder")
        view = self.config.augmentation(batch.x, update.generator)
        with torch.no_grad():
            z = self.latent(view)
        self.class_means.add(view, z, batch.label, update.mean)
        return z

    def negatives(self, start: Tensor, refined: Tensor, generator: random.Generator) -> Tensor:
        """Ends of chains on E(x) from v(x⁰) with probability p, else from x⁰ = `start` (Algorithm 1, lines 13 and 14): [B, ...].

        `refined` are the generator's chains from `start`. They are on E(x) as well, but for `ejm`, so only rows with a view need others.
        """
        c, chosen = self.config, torch.empty(0, dtype=torch.long, device=start.device)
        if c.augmented_starts:
            chosen = (random.uniform(len(start), generator=generator, device=start.device) < c.augmented_starts).nonzero()[:, 0]
        if c.generator_training == "ejm":
            views = start.index_copy(0, chosen, c.augmentation(start[chosen], generator)) if len(chosen) else start
            return self._chain(self.energy, views, generator)
        if not len(chosen):
            return refined
        return refined.index_copy(0, chosen, self._chain(self.energy, c.augmentation(start[chosen], generator), generator))

    @property
    def _energy_networks(self) -> list[nn.Module]:
        return [part for part in (self.net, self.head, self.last) if part is not None]

    @property
    def chain(self) -> Langevin:
        """How chains on images move, for restoration."""
        return self.config.chain

    def _prior(self, n: int, generator: random.Generator) -> Tensor:
        """m ~ N(0, I), [n, latent_dim]."""
        return random.normal(n, *self.latent_shape, generator=generator, device=self.device)

    def _chain(self, energy: Energy, x: Tensor, generator: random.Generator, **options: Any) -> Tensor:
        with frozen(*self._energy_networks):
            return self.config.chain(energy, x, generator=generator, **options)

    # --- sampling

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of one m, the start of a sample."""
        return (self.config.generator.latent_dim,)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        steps: int | None = None,
        use: Literal["both", "initializer"] = "both",
        label: Tensor | int | None = None,
        concentration: float | None = None,
        rounds: int = 3,
        candidates: int | None = None,
        start: Tensor | None = None,
        constraint: Constraint | None = None,
        trace: Trace | None = None,
    ) -> Tensor:
        """`n` samples [n, ...], images in [−1, 1]: `steps` Langevin steps (T by default) on E(x) from G(m).

        `use` = "initializer" shows where chains start. `start` gives m [n, latent_dim]. With a `label` (one, or [n]) chains run on
        E(x, z̄) of its class's mean latent (sec. 4.3), with `concentration` for γ: `rounds` times from G(m), m ~ q(m | x), at first of the
        class's mean view; with `candidates`, and (16 of them) for a model without q, once from the G(m) whose latent is nearest to z̄.
        `constraint` puts what was measured back into the start and after each step. InputError for an m of another shape, unknown
        labels, and a label with a start.
        """
        if use not in ("both", "initializer"):
            raise InputError(f"liebm: use must be 'both' or 'initializer', got '{use}'")
        check_start(self, start, n)
        if label is not None and start is not None:
            raise InputError("liebm: a label chooses where chains start; give label or start")
        generator, project = random.seeded(seed, 1, device=self.device), measured_back(constraint)

        def refine(x: Tensor, **condition: Any) -> Tensor:
            if use == "initializer":
                return x
            x = x if project is None else project(x)
            return self._chain(self.energy, x, generator, steps=steps, project=project, trace=trace, **condition)

        with frozen(self):
            if label is None:
                x = refine(self.generator(self._prior(n, generator) if start is None else start.to(self.device)))
            else:
                labels = class_labels(label, n, self.config.classes, self.device)
                x = self._sample_classes(labels, refine, generator, concentration, rounds, candidates)
        return finished(x)

    def _sample_classes(
        self,
        labels: Tensor,
        refine: Callable[..., Tensor],
        generator: random.Generator,
        concentration: float | None,
        rounds: int,
        candidates: int | None,
    ) -> Tensor:
        """Samples of classes (sec. 4.3); the start at the nearest of several G(m) is ours, for models without q."""
        self._check_informed()
        if candidates is not None and candidates < 1:
            raise InputError(f"liebm: candidates must be 1 or more, got {candidates}")
        if not self.class_means.has(labels):
            raise InputError("liebm: no images of this label were seen in training, so its mean latent is not known")
        x, z = self.class_means.of(labels)
        condition = {"z": z, "concentration": concentration}
        if self.inference is None or candidates is not None:

            def agreement(x: Tensor) -> Tensor:
                return F.cosine_similarity(self.latent(x), z, dim=1)

            start = nearest_draw(lambda: self.generator(self._prior(len(z), generator)), agreement, candidates or 16)
            return refine(start, **condition)
        for _ in range(rounds):
            x = refine(self.generator(self.draw_latent(x, generator)[0]), **condition)
        return x

    @torch.no_grad()
    def reconstruct(self, x: Tensor, mask: Tensor | None = None, *, steps: int = 0, rate: float = 0.05, seed: int = 0) -> Reconstruction:
        """G(m) nearest to x where `mask` is 1 (or everywhere): m from q(m | x) (Table 11), then `steps` of Adam on ‖mask·(x − G(m))‖².

        x [B, ...]; mask broadcasts against x, and what x holds elsewhere is not looked at. Without q, m begins at a draw of `seed`.
        InputError for bad options, and for no steps of a model without q.
        """
        if steps < 0 or not rate > 0 or not (steps or self.inference is not None):
            raise InputError(
                f"liebm: reconstruct needs a rate above 0 and, without an inference model, 1 step or more, got {rate}, {steps}"
            )
        x = x.to(self.device)
        mask = torch.ones_like(x) if mask is None else mask.to(x).expand_as(x)
        m = self._prior(len(x), random.seeded(seed, 1, device=self.device)) if self.inference is None else self.infer(mask * x)[0]
        with frozen(self.generator):
            m = fit_latent(self.generator, m, x, mask, steps=steps, rate=rate)
        return Reconstruction(self.generator(m), m)
