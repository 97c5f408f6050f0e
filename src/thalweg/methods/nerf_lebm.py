"""NeRF-LEBM: images of objects by a radiance field whose latents have energy-based priors (thesis, ch. 3; Zhu et al., AISTATS 2023).

    I = G_θ(z^a, z^s, ξ) + ε,  ε ~ N(0, σ_ε² I);   p(z) ∝ exp(f(z)) q₀(z) for appearance z^a and shape z^s     (eq. 3.3–3.5)
    z⁻: K⁻ Langevin steps on the priors                                                                     (eq. 3.10, 3.11)
    z⁺: K⁺ steps on the posterior, z^a and z^s in turn (Algorithm 1), or draws of an encoder (Algorithm 2)    (eq. 3.14, 3.15)
    update("appearance", E(z^a⁺).mean() − E(z^a⁻).mean());  update("shape", …)                                (eq. 3.7, 3.8)
    update("generator", ‖I − G_θ(z⁺)‖²/(2σ_ε²) [+ KL(q‖q₀) − f(z⁺)])                                          (eq. 3.9, 3.20)

With prior = "gaussian" and the amortized learner this is NeRF-VAE (Kosiorek et al. 2021), with MCMC NeRF-Gaussian. Poses may be
unknown: then they are latent too, with von Mises–Fisher posteriors and a uniform prior (sec. 3.4.4).
"""

import math
from typing import Any, Literal, NamedTuple

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from thalweg import camera as cameras
from thalweg import random
from thalweg.data import ViewBatch
from thalweg.data.base import Batch
from thalweg.energy import score
from thalweg.errors import Diverged, InputError
from thalweg.methods.base import STRICT, Count, Fraction, Method, NotNegative, Positive, Whole, warm_up_cosine
from thalweg.nn import von_mises
from thalweg.nn.inference import InferenceNetwork
from thalweg.nn.layers import frozen
from thalweg.nn.nerf import ConditionalField, render
from thalweg.prior import Prior

POSES = 512  # cameras of training that samples are seen from
AT_ONCE = 64  # images rendered at once
FIRST_LOG_VARIANCE = -4.0  # of the encoder's posteriors before training
HIGHEST = math.pi / 3  # altitude of cameras from above
SEARCHED = 32  # pixels by which a pose is chosen
SHARPEST = 1000.0  # κ of a pose's posterior at most
LOOKED_AT, LOOKED_STEPS = 16, 30  # held-out images of the criterion, and steps of inference at most
REDRAWN = 10  # steps of inference after which other pixels are looked at


@dataclass(frozen=True, config=STRICT)
class Config:
    """Settings of `nerf_lebm`; lengths are in world units."""

    data: str = "objects"
    """name of the data that the preset is for"""
    shape: tuple[Count, ...] = (3, 32, 32)
    """shape of one image, [3, H, W]"""
    classes: Whole = 0
    """number of labels; not used"""
    learner: Literal["mcmc", "persistent", "amortized"] = "amortized"
    """where posterior latents come from: chains anew, a chain kept for each object, or an encoder"""
    prior: Literal["energy", "gaussian"] = "energy"
    """energy-based, or the reference alone (NeRF-VAE, NeRF-Gaussian)"""
    poses: Literal["known", "unknown"] = "known"
    """whether the data give cameras"""
    pose_candidates: Whole = 0
    """poses from above that are tried for each image beside the encoder's, of which the likeliest is taken; 0 for none (the paper)"""
    pose_first: Fraction = 0.0
    """share of training at the start in which all shapes are one, z^s = 0, and poses alone can tell silhouettes apart"""
    views: Count = 1
    """images of an object in a batch, which share their latents; above 1 not for the amortized learner"""
    latent_appearance: Count = 32
    """dimension of z^a"""
    latent_shape: Count = 32
    """dimension of z^s"""
    reference: Literal["normal", "uniform"] = "normal"
    """q₀: N(0, I), or uniform on [−1, 1]^d"""
    prior_width_appearance: Count = 64
    """C, hidden units of f on z^a"""
    prior_width_shape: Count = 64
    """C, hidden units of f on z^s"""
    prior_depth: Count = 2
    """hidden layers of both f: 2 small, 4 large (Table 3.1)"""
    prior_steps: Count = 40
    """K⁻, steps of the priors' chains"""
    prior_step: Positive = 0.4
    """δ⁻, their step s in z − s²/2 ∇E + s τ ξ"""
    prior_noise: NotNegative = 1.0
    """τ, weight of their noise (1: exact dynamics)"""
    posterior: Literal["langevin", "adam"] = "adam"
    """how posterior chains move: Langevin, or Adam without noise"""
    posterior_steps: Count = 10
    """K⁺, steps of the posterior's chains in training, each in z^a, then in z^s"""
    posterior_step: Positive = 0.1
    """δ⁺, their step s, or Adam's rate"""
    posterior_noise: NotNegative = 0.0
    """τ, weight of their noise in Langevin chains (0 in the paper, 1: exact dynamics)"""
    joint: bool = False
    """move z^a and z^s at once, for half of the gradients"""
    infer_steps: Count = 100
    """steps of `infer` without an encoder (600 for two-shot views in the paper)"""
    infer_step: Positive = 0.1
    """their step s, or Adam's rate"""
    chains: Count = 1000
    """objects for which a persistent learner keeps a chain: as many as the training data have, or more"""
    residual_std: Positive = 0.05
    """σ_ε, of images in [−1, 1]"""
    temperature: Positive = 1.0
    """T of the likelihood p(I | z)^(1/T); 1 is the paper's"""
    near: Positive = 3.0
    """distance at which rays begin"""
    far: Positive = 5.0
    """distance at which rays end; the field is for the ball of diameter far − near about the origin"""
    ball: bool = True
    """whether rays are followed through that ball only, or all the way from near to far"""
    focal: Positive = 1.866
    """focal length in widths of the image, for cameras that no data give"""
    samples: Count = 12
    """M, stratified samples along each ray"""
    importance: Whole = 0
    """samples more where those found density, 0 for none"""
    rays: Whole = 128
    """pixels of each image that a step of training looks at, drawn anew, 0 for all"""
    chunk: Count = 262_144
    """samples of the field held at once"""
    background: Literal["white", "black"] = "white"
    """what rays see that pass through"""
    conditioning: Literal["concat", "film"] = "film"
    """how latents enter the field (Figures 3.1, 3.2)"""
    width: Count = 64
    """hidden units of the field"""
    depth: Count = 4
    """hidden layers of the field"""
    mapping: Count = 64
    """hidden units of the latents' mapping networks"""
    mapping_layers: Count = 4
    """layers of each mapping network"""
    octaves: Count = 5
    """frequencies of the encoding of points"""
    octaves_view: Literal[-1, 0, 1, 2, 3, 4] = -1
    """frequencies of the encoding of viewing directions, −1 for colours that do not depend on them"""
    encoder_widths: tuple[Count, ...] = (32, 64, 128)
    """channels of the encoder after each halving"""
    encoder_blocks: tuple[Whole, ...] = (1, 1, 1)
    """residual blocks at each of them"""
    batch: Count = 16
    """images per update"""
    images: Count = 100_000
    """length of training in images; learning rates fall to zero over it"""
    lr: Positive = 5e-5
    """η_α, base learning rate of the priors"""
    lr_generator: Positive = 1e-3
    """η_θ, base learning rate of the generator"""
    lr_inference: Positive = 1e-3
    """η_φ, base learning rate of the encoder"""
    lr_heads: NotNegative = 0.0
    """that of its heads for z^a and z^s, 0 for the same"""
    warm_up: Whole = 100
    """updates over which learning rates rise"""
    clip: NotNegative = 0.0
    """bound on each update's gradient norm, 0 for none"""
    ema: Fraction = 0.999
    """decay of the EMA twin"""


class Pictures(NamedTuple):
    """Rendered images `x` [N, 3, H, W] in [−1, 1], `depth` [N, 1, H, W] along the ray in world units, `opacity` [N, 1, H, W] in [0, 1]."""

    x: Tensor
    depth: Tensor
    opacity: Tensor


class Latents(NamedTuple):
    """What was inferred of N objects from V views: `appearance` [N, d_a], `shape` [N, d_s], and cameras [N, V, 3, 5]."""

    appearance: Tensor
    shape: Tensor
    camera: Tensor


class Seen(NamedTuple):
    """Q pixels of each of N objects, of all its views: their rays [N, Q, 3], values `x` [N, Q, C] in [−1, 1] and weights [N, Q]."""

    origins: Tensor
    directions: Tensor
    x: Tensor
    weight: Tensor
    jitter: Tensor
    importance: Tensor | None


class NeRFLEBM(Method):
    """A radiance field with energy-based priors of its latents; the settings are in `Config`."""

    name = "nerf_lebm"
    Config = Config
    guarded = ("appearance_posterior", "appearance_prior", "shape_posterior", "shape_prior")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        c = config
        _check(c)
        depth = c.prior_depth if c.prior == "energy" else 0
        self.appearance = Prior(c.latent_appearance, width=c.prior_width_appearance, depth=depth, reference=c.reference)
        self.shape = Prior(c.latent_shape, width=c.prior_width_shape, depth=depth, reference=c.reference)
        self.field = ConditionalField(
            c.latent_appearance, c.latent_shape, width=c.width, depth=c.depth, mapping=c.mapping, mapping_layers=c.mapping_layers,
            octaves=c.octaves, octaves_view=c.octaves_view, conditioning=c.conditioning,
        )  # fmt: skip
        self.radius = (c.far - c.near) / 2
        self.encoder = self._encoder() if c.learner == "amortized" else None
        dim = c.latent_appearance + c.latent_shape
        g = random.seeded(0)
        if c.learner == "persistent":
            self.register_buffer("chains", self._reference(c.chains, g))
            # Adam's moments of each chain, and its count of steps
            self.register_buffer("moments", torch.zeros(c.chains, 2 * dim + 1))
        altitude, azimuth = random.uniform(POSES, high=HIGHEST, generator=g), random.uniform(POSES, high=2 * math.pi, generator=g)
        vectors = cameras.unit_vector(altitude), cameras.unit_vector(azimuth)
        # of training, the newest in place of the oldest; before that from above, all around
        self.register_buffer("cameras", cameras.orbit(*vectors, distance=self.distance, focal=c.focal))

    def _encoder(self) -> InferenceNetwork:
        c = self.config
        heads = {"appearance": 2 * c.latent_appearance, "shape": 2 * c.latent_shape}
        heads |= {"altitude": 3, "azimuth": 3} if c.poses == "unknown" else {}
        beside = 9 if c.poses == "known" else 0
        encoder = InferenceNetwork(c.shape[0], heads, widths=c.encoder_widths, blocks=c.encoder_blocks, beside=beside)
        for name in ("appearance", "shape"):
            last = encoder.heads[name][-1]
            # posteriors narrow from the first update: wide ones would be escaped by means far from the prior
            nn.init.constant_(last.bias[len(last.bias) // 2 :], FIRST_LOG_VARIANCE)
        return encoder

    @property
    def distance(self) -> float:
        """Of cameras that no data give, to the origin."""
        return (self.config.near + self.config.far) / 2

    @property
    def optics(self) -> cameras.Optics:
        """How the model sees, for the tasks."""
        return cameras.Optics(self.distance, self.config.near, self.config.far, self.config.focal)

    # --- the densities

    def energy(self, z: Tensor) -> Tensor:
        """−log p(z^a) p(z^s) in nats up to its constant: latents [B, d_a + d_s], appearance first -> [B]. InputError for other shapes."""
        c = self.config
        if z.dim() != 2 or z.shape[1] != c.latent_appearance + c.latent_shape:
            raise InputError(f"nerf_lebm: energy is of latents [B, {c.latent_appearance + c.latent_shape}], got {list(z.shape)}")
        z_a, z_s = self.split(z)
        return self.appearance.energy(z_a) + self.shape.energy(z_s)

    def split(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z^a and z^s of latents [..., d_a + d_s]."""
        return z.split([self.config.latent_appearance, self.config.latent_shape], -1)

    def generate(self, z: Tensor, seen: Seen) -> Tensor:
        """G_θ at the pixels of `seen`: latents [N, d] -> [N, Q, 3] in [−1, 1]."""
        return 2 * self._render(z, seen).colour - 1

    def residual(self, z: Tensor, seen: Seen) -> Tensor:
        """−log p(I | z) in nats up to its constant, over visible pixels, divided by the temperature: [N, d] -> [N] (eq. 3.3)."""
        c = self.config
        error = (self.generate(z, seen) - seen.x).square().sum(-1) * seen.weight
        return error.sum(1) / (2 * c.residual_std**2 * c.temperature)

    def posterior_energy(self, z: Tensor, seen: Seen) -> Tensor:
        """−log p(I, z) in nats up to its constant: latents [N, d] -> [N]."""
        return self.residual(z, seen) + self.energy(z)

    def _render(self, z: Tensor, seen: Seen) -> Any:
        c, r = self.config, self.radius
        latents = self.field.latents(*self.split(z))
        return render(  # in the unit of the field, in which the ball that it is for has radius 1
            lambda x, direction: self.field(x, direction, latents), seen.origins / r, seen.directions, seen.jitter,
            near=c.near / r, far=c.far / r, background=float(c.background == "white"), importance=seen.importance, chunk=c.chunk,
            ball=c.ball,
        )  # fmt: skip

    # --- training

    @property
    def abilities(self) -> frozenset[str]:
        return frozenset({"sample", "views"} | ({"cameras"} if self.config.poses == "known" else set()))

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        c, found = self.config, {}
        if c.prior == "energy":
            found = {name: torch.optim.Adam(getattr(self, name).parameters(), lr=c.lr, fused=True) for name in ("appearance", "shape")}
        groups = [{"params": list(self.field.parameters()), "lr": c.lr_generator}]
        if self.encoder is not None:
            heads = [p for name in ("appearance", "shape") for p in self.encoder.heads[name].parameters()]
            others = [p for p in self.encoder.parameters() if all(p is not head for head in heads)]
            groups += [{"params": others, "lr": c.lr_inference}, {"params": heads, "lr": c.lr_heads or c.lr_inference}]
        return found | {"generator": torch.optim.Adam(groups, fused=True)}

    def learning_rate(self, name: str, images: int) -> float:
        """Linear warm-up, then a cosine to zero at `images` of the config."""
        c = self.config
        return warm_up_cosine(images / c.batch, c.warm_up, images / c.images)

    def step(self, batch: Batch | ViewBatch, update) -> None:
        c, g = self.config, update.generator
        camera, visible = self._observed(batch)
        x = batch.x.unflatten(0, (-1, c.views))
        pixels = self._pixels(len(batch.x), g, batch.x.device, c.rays)
        alike = update.images < c.pose_first * c.images
        if not alike:
            negative = torch.cat(self.draw_prior(len(x), g), 1)  # Algorithm 1 and 2, line 3
        divergence = pose_loss = 0.0
        if self.encoder is None:
            seen = self._seen(x, camera, visible, pixels, g)
            z = self._posterior_chain(seen, batch, update)
        else:
            if c.pose_candidates:
                z, camera, divergence, pose_loss = self._search_poses(x, visible, pixels, alike, g)
            else:
                z, camera, divergence = self._encode(batch.x, camera, g)
            seen = self._seen(x, camera, visible, pixels, g)
        if not alike:
            self._learn_priors(z.detach(), negative, update)
        residual = self.residual(z, seen)
        loss = (residual + divergence) / x[0].numel() + pose_loss
        if self.encoder is not None:
            with frozen(self.appearance, self.shape):
                parts = zip((self.appearance, self.shape), self.split(z))
                loss = loss - sum(prior.tilting(part) for prior, part in parts) / x[0].numel()
        update("generator", loss.mean())
        self._remember(camera.detach().flatten(0, 1), update.images)
        update.log(residual=residual / x[0].numel(), divergence=divergence, latent_std=z.detach().std())

    def _search_poses(
        self, x: Tensor, visible: Tensor | None, pixels: Tensor, alike: bool, generator: random.Generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Latents [B, d], the likeliest of some cameras [B, 1, 3, 5], divergences of the latents and −log q of those cameras, [B] each.

        Of images [B, 1, C, H, W], looked at in the first of `pixels` [B, P]; z^s is 0 if `alike`. Ours: by the paper's gradients encoder
        and generator agree on one pose for all images, and z^s says how an object is turned (docs/reproduction.md).
        """
        c, n = self.config, len(x)
        found = self._heads(x.flatten(0, 1))
        z_a, divergence = self._draw_latent(found["appearance"], generator)
        z_s, of_shape = self._draw_latent(found["shape"], generator)
        z = torch.cat([z_a, torch.zeros_like(z_s) if alike else z_s], 1)
        pose = [self._direction(found[name]) for name in ("altitude", "azimuth")]
        tried = []
        for (direction, _), high in zip(pose, (HIGHEST, 2 * math.pi)):
            angle = random.uniform(n, c.pose_candidates, high=high, generator=generator, device=x.device)
            tried.append(torch.cat([direction.detach()[:, None], cameras.unit_vector(angle)], 1))
        candidates = cameras.orbit(*tried, distance=self.distance, focal=c.focal)  # [B, 1 + candidates, 3, 5]
        count, row = candidates.shape[1], torch.arange(n, device=x.device)
        with torch.no_grad():
            rows = row.repeat_interleave(count)
            mask = None if visible is None else visible[rows]
            seen = self._seen(x[rows], candidates.flatten(0, 1)[:, None], mask, pixels[rows, :SEARCHED])
            best = self.residual(z[rows], seen).view(n, count).argmin(1)
        pose_loss = torch.zeros(n, device=x.device)
        for vectors, (direction, kappa) in zip(tried, pose):
            vector = vectors[row, best]
            # directions learn on their own: by the likelihood alone those of κ = 0 would have no gradient, and κ stay there
            pose_loss = pose_loss + von_mises.surprise(vector, direction.detach(), kappa) + 1 - (vector * direction).sum(1)
        return z, candidates[row, best][:, None], divergence if alike else divergence + of_shape, pose_loss

    def _observed(self, batch: Batch | ViewBatch) -> tuple[Tensor | None, Tensor | None]:
        """Cameras [N, V, 3, 5], None where they are to be inferred, and visible pixels [N, V, 1, H, W] or None."""
        c = self.config
        visible = getattr(batch, "visible", None)
        visible = None if visible is None else visible.unflatten(0, (-1, c.views))
        if c.poses == "unknown":
            return None, visible
        if getattr(batch, "camera", None) is None:
            raise InputError("nerf_lebm: poses = 'known' needs images with cameras (docs/data.md); set poses = 'unknown' for others")
        item = batch.item.unflatten(0, (-1, c.views))
        if (item != item[:, :1]).any():
            raise InputError(f"nerf_lebm: views = {c.views} needs data with as many images of an object beside each other (with_views)")
        return batch.camera.unflatten(0, (-1, c.views)), visible

    def _pixels(self, rows: int, generator: random.Generator, device: torch.device, rays: int) -> Tensor:
        """Which pixels of each image are looked at, [rows, P]: `rays` different ones, or all."""
        count = math.prod(self.config.shape[1:])
        if not 0 < rays < count:
            return torch.arange(count, device=device).expand(rows, -1)
        return random.uniform(rows, count, generator=generator, device=device).topk(rays, 1).indices

    def _seen(
        self, x: Tensor, camera: Tensor, visible: Tensor | None, pixels: Tensor | None = None, generator: random.Generator = None
    ) -> Seen:
        """The `pixels` [N·V, P] of images [N, V, C, H, W], or all; samples on rays are drawn, or without a generator evenly spaced.

        Weights make up for the pixels that are not looked at: the sum over all is estimated without bias.
        """
        c = self.config
        channels, height, width = x.shape[2:]
        objects = len(x)
        if pixels is None:
            pixels = torch.arange(height * width, device=x.device).expand(objects * x.shape[1], -1)
        origins, directions = cameras.rays(camera.flatten(0, 1), height, width, pixels)
        values = x.flatten(0, 1).flatten(2).gather(2, pixels[:, None].expand(-1, channels, -1)).transpose(1, 2)
        weight = torch.full(pixels.shape, height * width / pixels.shape[1], device=x.device)
        if visible is not None:
            weight = weight * visible.flatten(0, 1).flatten(1).gather(1, pixels)

        def draws(count: int, even: Tensor) -> Tensor:
            shape = (objects, origins.shape[1] * x.shape[1], count)
            return even.expand(shape) if generator is None else random.uniform(*shape, generator=generator, device=x.device)

        def by_object(part: Tensor) -> Tensor:
            return part.reshape(objects, -1, *part.shape[2:])

        middle, spread = x.new_full((1,), 0.5), (torch.arange(c.importance, device=x.device) + 0.5) / max(1, c.importance)
        importance = draws(c.importance, spread) if c.importance else None
        return Seen(*map(by_object, (origins, directions, values, weight)), draws(c.samples, middle), importance)

    def _learn_priors(self, posterior: Tensor, prior: Tensor, update: Any) -> None:
        """Eq. 3.7, 3.8 (or 3.18, 3.19)."""
        for name, positive, negative in zip(("appearance", "shape"), self.split(posterior), self.split(prior)):
            loss, of_posterior, of_prior = getattr(self, name).loss(positive, negative)
            if self.config.prior == "energy":
                update(name, loss)
            update.log(**{f"{name}_posterior": of_posterior.detach(), f"{name}_prior": of_prior.detach()})

    @torch.no_grad()
    def _remember(self, camera: Tensor, images: int) -> None:
        rows = (images + torch.arange(min(len(camera), POSES), device=camera.device)) % POSES
        self.cameras[rows] = camera[:POSES].to(self.cameras)

    # --- posteriors by chains

    def _reference(self, n: int, generator: random.Generator, device: Any = None) -> Tensor:
        return torch.cat([prior.draw_reference(n, generator, device) for prior in (self.appearance, self.shape)], 1)

    def draw_prior(self, n: int, generator: random.Generator = None, steps: int | None = None) -> tuple[Tensor, Tensor]:
        """`n` draws of z^a [n, d_a] and z^s [n, d_s] from the priors, by chains of K⁻ steps unless `steps` are given (eq. 3.10, 3.11)."""
        c, device = self.config, self.cameras.device
        options = dict(steps=c.prior_steps if steps is None else steps, step=c.prior_step, noise=c.prior_noise)
        return tuple(prior.sample(n, **options, generator=generator, device=device) for prior in (self.appearance, self.shape))

    def _posterior_chain(self, seen: Seen, batch: ViewBatch, update: Any) -> Tensor:
        c, n = self.config, len(seen.x)
        if c.learner == "mcmc":
            return self.run_chain(self._reference(n, update.generator, seen.x.device), seen, generator=update.generator)[0]
        rows = batch.item[:: c.views]
        if int(rows.max()) >= c.chains:
            raise InputError(f"nerf_lebm: object number {int(rows.max())} of the data has no chain; set chains to the count of objects")
        z, moments = self.run_chain(self.chains[rows], seen, self.moments[rows], generator=update.generator)
        for name, new in (("chains", z), ("moments", moments)):
            buffer = getattr(self, name)
            # every rank keeps all chains: the mean over ranks of what changed, by the mean of how often
            change = torch.zeros_like(buffer).index_add_(0, rows, new - buffer[rows])
            hits = torch.zeros_like(buffer[:, :1]).index_add_(0, rows, torch.ones_like(new[:, :1]))
            change, hits = update.mean(change), update.mean(hits)
            buffer += torch.where(hits > 0, change / hits.clamp(min=1e-12), 0.0)
        return z

    @torch.no_grad()
    def run_chain(
        self,
        z: Tensor,
        seen: Seen,
        moments: Tensor | None = None,
        *,
        steps: int | None = None,
        step: float | None = None,
        generator: random.Generator = None,
    ) -> tuple[Tensor, Tensor]:
        """Chains from z [N, d] on the posterior given `seen`: each step moves z^a, then z^s (eq. 3.14, 3.15), or both if `joint`.

        Returns z and Adam's `moments` [N, 2 d + 1]. K⁺ steps of size δ⁺ unless given. Raises Diverged where a chain ends non-finite.
        """
        c = self.config
        steps, step = steps or c.posterior_steps, step or c.posterior_step
        moments = z.new_zeros(len(z), 2 * z.shape[1] + 1) if moments is None else moments
        is_appearance = torch.arange(z.shape[1], device=z.device) < c.latent_appearance
        parts = [torch.ones_like(is_appearance)] if c.joint else [is_appearance, ~is_appearance]

        def target(z: Tensor) -> Tensor:
            return self.posterior_energy(z, seen)

        with frozen(self):
            for _ in range(steps):
                count = moments[:, -1:] + 1
                mean, square = moments[:, :-1].chunk(2, 1)
                for part in parts:
                    drift = score(target, z)
                    if c.posterior == "langevin":
                        move = 0.5 * step**2 * drift
                        if c.posterior_noise:
                            move = move + step * c.posterior_noise * random.normal_like(z, generator)
                    else:
                        mean = torch.where(part, 0.9 * mean + 0.1 * drift, mean)
                        square = torch.where(part, 0.999 * square + 0.001 * drift.square(), square)
                        move = step * (mean / (1 - 0.9**count)) / ((square / (1 - 0.999**count)).sqrt() + 1e-8)
                    z = self.appearance.inside(torch.where(part, z + move, z))
                moments = torch.cat([mean, square, count], 1)
        if not bool(z.isfinite().all()):
            raise Diverged("nerf_lebm: posterior chains ended with NaN or infinite values; lower posterior_step or raise temperature")
        return z, moments

    # --- posteriors by the encoder

    def _encode(self, x: Tensor, camera: Tensor | None, generator: random.Generator = None) -> tuple[Tensor, Tensor, Tensor]:
        """z [B, d] and cameras [B, 1, 3, 5] drawn from the encoder's posteriors of images [B, C, H, W] (their means without a
        generator), and the KL divergences to the references [B] in nats."""
        c = self.config
        found = self._heads(x, camera)
        parts, divergence = zip(*(self._draw_latent(found[name], generator) for name in ("appearance", "shape")))
        divergence = sum(divergence)
        if camera is None:
            vectors = []
            for name in ("altitude", "azimuth"):
                direction, kappa = self._direction(found[name])
                divergence = divergence + von_mises.kl_to_uniform(kappa)  # eq. 3.21
                draw = None if generator is None else random.uniform(len(x), generator=generator, device=x.device).clamp(1e-6, 1 - 1e-6)
                vectors.append(direction if draw is None else von_mises.sample(direction, kappa, draw))
            camera = cameras.orbit(*vectors, distance=self.distance, focal=c.focal)[:, None]
        return torch.cat(parts, 1), camera, divergence

    def _heads(self, x: Tensor, camera: Tensor | None = None) -> dict[str, Tensor]:
        """What the encoder says of images [B, C, H, W] and their cameras [B, 1, 3, 5], in fp32 also under autocast."""
        beside = None if camera is None else camera.flatten(0, 1)[:, :, :3].flatten(1)
        return {name: head.float() for name, head in self.encoder(x, beside).items()}

    @staticmethod
    def _draw_latent(head: Tensor, generator: random.Generator = None) -> tuple[Tensor, Tensor]:
        """A draw [B, d] from means and log variances [B, 2 d], the mean without a generator, and the divergence to N(0, I) [B]."""
        mean, log_variance = head.chunk(2, 1)
        log_variance = log_variance.clamp(-10, 10)
        spread = 0.0 if generator is None else (0.5 * log_variance).exp() * random.normal_like(mean, generator)
        return mean + spread, 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)

    @staticmethod
    def _direction(head: Tensor) -> tuple[Tensor, Tensor]:
        """Mean direction [B, 2] and concentration κ [B] of an angle's posterior, of [B, 3]."""
        return F.normalize(head[:, :2], dim=1), F.softplus(head[:, 2]).clamp(max=SHARPEST)

    # --- use

    @torch.no_grad()
    def infer(
        self,
        x: Tensor,
        camera: Tensor | None = None,
        *,
        visible: Tensor | None = None,
        steps: int | None = None,
        rays: int | None = None,
        seed: int = 0,
    ) -> Latents:
        """The latents of N objects from images [N, C, H, W], or V views each [N, V, C, H, W], with cameras [N, 3, 5] or [N, V, 3, 5].

        `visible` [N, (V,) 1, H, W] is False where images are missing. An encoder's means, averaged over the views, and then `steps`
        (0) of the posterior's chain from there; without one a chain of `steps` (`infer_steps`) from draws of the reference that `seed`
        sets. It looks at `rays` pixels of each image (as in training, 0 for all), others every ten steps. With unknown poses the
        encoder gives the cameras. Raises InputError for shapes that do not fit.
        """
        c, device = self.config, self.cameras.device
        several = x.dim() == 5
        x, camera, visible = (None if t is None else (t if several else t[:, None]).to(device) for t in (x, camera, visible))
        if x.dim() != 5 or tuple(x.shape[2:]) != tuple(c.shape):
            raise InputError(f"nerf_lebm: infer needs images [N, {', '.join(map(str, c.shape))}] or [N, V, …], got {list(x.shape)}")
        if (camera is None) != (c.poses == "unknown"):
            wanted = "give cameras" if camera is None else "it infers cameras, give none"
            raise InputError(f"nerf_lebm: this model has poses = '{c.poses}': {wanted}")
        if camera is not None and tuple(camera.shape) != (*x.shape[:2], 3, 5):
            raise InputError(f"nerf_lebm: cameras must be {[*x.shape[:2], 3, 5]}, got {list(camera.shape)}")
        generator = random.seeded(seed, 5, device=device)
        if self.encoder is None:
            z, steps = self._reference(len(x), generator, device), c.infer_steps if steps is None else steps
        else:
            given = None if camera is None else camera.flatten(0, 1)[:, None]
            z, camera, _ = self._encode(x.flatten(0, 1), given)
            z, camera = z.unflatten(0, x.shape[:2]).mean(1), camera.view(*x.shape[:2], 3, 5)
        rays, moments = c.rays if rays is None else rays, None
        whole = not 0 < rays < math.prod(c.shape[1:])
        for done in range(0, steps or 0, steps or 1 if whole else REDRAWN):
            some = min(steps - done, steps if whole else REDRAWN)
            pixels = self._pixels(math.prod(x.shape[:2]), generator, device, rays)
            seen = self._seen(x, camera, visible, pixels)
            z, moments = self.run_chain(z, seen, moments, steps=some, step=c.infer_step, generator=generator)
        return Latents(*self.split(z), camera)

    @torch.no_grad()
    def render(self, z_a: Tensor, z_s: Tensor, camera: Tensor, size: int | None = None) -> Pictures:
        """The images of objects [N, d_a] and [N, d_s] from cameras [N, 3, 5], of `size`×`size` pixels or those of training."""
        height, width = (size, size) if size else self.config.shape[1:]
        found = []
        for a, s, view in zip(z_a.split(AT_ONCE), z_s.split(AT_ONCE), camera.to(z_a).split(AT_ONCE)):
            nothing = z_a.new_zeros(len(a), 1, 1, height, width)
            made = self._render(torch.cat([a, s], 1), self._seen(nothing, view[:, None], None))
            image = (2 * made.colour - 1).clamp(-1, 1).transpose(1, 2).unflatten(2, (height, width))
            maps = (part.view(len(a), 1, height, width) for part in (made.depth * self.radius, made.opacity))
            found.append(Pictures(image.contiguous(), *maps))
        return Pictures(*(torch.cat(parts) for parts in zip(*found)))

    @torch.no_grad()
    def sample(self, n: int, *, seed: int = 0, steps: int | None = None, camera: Tensor | None = None) -> Tensor:
        """`n` images [n, 3, H, W] in [−1, 1] without their noise ε: latents by the priors' chains of `steps` (K⁻) steps, then rendering.

        From `camera` [n, 3, 5], or [3, 5] for all; without one from cameras of training. Raises InputError for another shape.
        """
        device = self.cameras.device
        generator = random.seeded(seed, 1, device=device)
        z_a, z_s = self.draw_prior(n, generator, steps)
        if camera is None:
            camera = self.cameras[random.integers(n, 0, POSES, generator=generator, device=device)]
        elif tuple(camera.shape) not in ((3, 5), (n, 3, 5)):
            raise InputError(f"nerf_lebm: camera must be [3, 5] or [{n}, 3, 5], got {list(camera.shape)}")
        return self.render(z_a, z_s, camera.to(device).expand(n, 3, 5)).x

    def novel_views(self, x: Tensor, camera: Tensor | None, target: Tensor, **options: Any) -> Pictures:
        """N objects seen in `x` (as in `infer`, which takes the options) from new cameras [N, W, 3, 5]: images [N·W, 3, H, W]."""
        found = self.infer(x, camera, **options)
        a, s = (part.repeat_interleave(target.shape[1], 0) for part in found[:2])
        return self.render(a, s, target.flatten(0, 1))

    def complete(self, x: Tensor, camera: Tensor | None, visible: Tensor, **options: Any) -> Tensor:
        """Images [N, 3, H, W] with what is not `visible` [N, 1, H, W] filled in by the model's own view of what is."""
        found = self.infer(x, camera, visible=visible, **options)
        return torch.where(visible.to(found.camera.device), x.to(found.camera), self.render(*found[:2], found.camera[:, 0]).x)

    def criterion(self, held_out: Batch | ViewBatch, generator: random.Generator) -> float:
        """Mean squared error of held-out images by what is inferred from them, per visible value, in the unit of [−1, 1] squared."""
        x, visible = held_out.x[:LOOKED_AT], getattr(held_out, "visible", None)
        visible = torch.ones_like(x[:, :1], dtype=torch.bool) if visible is None else visible[:LOOKED_AT]
        camera = held_out.camera[:LOOKED_AT] if self.config.poses == "known" else None
        steps = None if self.encoder is not None else min(LOOKED_STEPS, self.config.infer_steps)
        found = self.infer(x, camera, visible=visible, steps=steps)
        error = (self.render(*found[:2], found.camera[:, 0]).x - x).square() * visible
        return float(error.sum() / (visible.sum() * x.shape[1]))


def _check(c: Config) -> None:
    """Raises InputError for settings that do not go together."""
    if len(c.shape) != 3 or c.shape[0] != 3:
        raise InputError(f"nerf_lebm is for colour images [3, H, W], got shape {c.shape}")
    if not c.far > c.near:
        raise InputError(f"nerf_lebm: far must be above near, got near = {c.near:g} and far = {c.far:g}")
    if c.learner == "amortized" and c.reference == "uniform":
        raise InputError("nerf_lebm: the amortized learner needs reference = 'normal', against which its divergence is known")
    if c.learner == "amortized" and c.views > 1:
        raise InputError(f"nerf_lebm: the encoder sees one image; views = {c.views} needs learner = 'mcmc' or 'persistent'")
    if c.pose_first and not c.pose_candidates:
        raise InputError("nerf_lebm: pose_first needs pose_candidates: shapes that are all one are told apart by poses")
    if c.pose_candidates and c.poses == "known":
        raise InputError("nerf_lebm: pose_candidates are for poses = 'unknown'")
    if c.learner != "amortized" and c.poses == "unknown":
        raise InputError(f"nerf_lebm: unknown poses are inferred by learner = 'amortized', got '{c.learner}'")
    if c.batch % c.views:
        raise InputError(f"nerf_lebm: a batch of {c.batch} does not divide by views = {c.views}")
    if len(c.encoder_widths) != len(c.encoder_blocks):
        raise InputError(f"nerf_lebm: encoder_widths and encoder_blocks differ in length, {c.encoder_widths} and {c.encoder_blocks}")


# Tables 3.1–3.3 and sec. 3.5.2; encodings, samples and bounds of GRAF (fov 30°, radius 10 for CARLA), lengths of training ours
_PAPER = dict(
    width=256, depth=8, mapping=256, mapping_layers=4, octaves=10, octaves_view=4, samples=64, rays=0, ball=False, latent_appearance=128,
    latent_shape=128, residual_std=0.05, prior_step=0.5, lr_generator=1e-4, lr_inference=1e-4, warm_up=0, images=5_000_000,
    encoder_widths=(64, 128, 256, 512), encoder_blocks=(3, 4, 6, 3),
)  # fmt: skip
_CARLA = _PAPER | dict(data="carla/", shape=(3, 64, 64), near=7.5, far=12.5, prior_steps=60)
_LARGE = dict(prior_depth=4, prior_width_appearance=256, prior_width_shape=256, lr=2e-5)
_SMALL = dict(prior_depth=2, lr=7e-6)

NeRFLEBM.PRESETS = {
    # ours, for a CPU
    "objects": Config(),
    "objects-vae": Config(prior="gaussian"),
    "objects-mcmc": Config(learner="mcmc"),
    "objects-persistent": Config(learner="persistent", views=2, chains=800, posterior_steps=2, posterior_step=0.02),
    "objects-incomplete": Config(
        data="objects-incomplete", learner="persistent", views=2, chains=800, posterior_steps=2, posterior_step=0.02
    ),
    "objects-unposed": Config(data="objects-aligned", poses="unknown", pose_candidates=16, pose_first=0.4),
    "carla-mcmc": Config(
        **_CARLA, **_LARGE, learner="mcmc", reference="uniform", posterior="langevin", posterior_steps=60, posterior_step=0.1,
        infer_steps=60, infer_step=0.1, prior_noise=0.02, batch=8,
    ),
    "carla-amortized": Config(**_CARLA, **_SMALL, prior_width_appearance=128, prior_width_shape=256, prior_noise=1.0, batch=8),
    "carla-unposed": Config(
        **(_CARLA | dict(lr_generator=3e-5, lr_inference=3e-5)), **_SMALL, poses="unknown", conditioning="film", lr_heads=5e-6,
        prior_width_appearance=64, prior_width_shape=128, prior_noise=0.0, batch=16,
    ),
    # cameras at 1.3, lens of 131.25 of 128 pixels; Adam with rate 1e-4 in training, ours for the 600 steps of `infer`
    "shapenet-cars": Config(
        **(_PAPER | dict(shape=(3, 128, 128), near=0.8, far=1.8)), **_LARGE, data="cars/", learner="persistent", views=2, chains=2500,
        posterior="adam", posterior_steps=1, posterior_step=1e-4, infer_steps=600, infer_step=0.02, focal=1.025, prior_steps=40,
        prior_noise=0.0, batch=24,
    ),
}  # fmt: skip
