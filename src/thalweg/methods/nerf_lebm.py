"""NeRF-LEBM: images of objects by a radiance field whose latents have energy-based priors. docs/methods/nerf_lebm.md

    I = G_θ(z^a, z^s, ξ) + ε,  ε ~ N(0, σ_ε² I);   p(z) ∝ exp(f(z)) q₀(z) for appearance z^a and shape z^s     (eq. 3.3–3.5)
    3  z⁻: K⁻ Langevin steps on the priors                                                                 (eq. 3.10, 3.11)
    4  z⁺: K⁺ steps on the posterior, z^a and z^s in turn (Algorithm 1), or draws of q_φ(z | I, ξ) (2)       (eq. 3.14, 3.15)
    5  update("appearance", E(z^a⁺).mean() − E(z^a⁻).mean())                                              (eq. 3.7, 3.18)
    6  update("shape", E(z^s⁺).mean() − E(z^s⁻).mean())                                                   (eq. 3.8, 3.19)
    7  update("generator", ‖I − G_θ(z⁺)‖²/(2σ_ε²) [+ KL(q_φ‖q₀) − f(z⁺)])                                  (eq. 3.9, 3.20)

Thesis, ch. 3; Zhu et al., AISTATS 2023. Poses ξ may be unknown: then they are latent too, with von Mises–Fisher posteriors and a uniform
prior (sec. 3.4.4). With a Gaussian prior this is NeRF-VAE (Kosiorek et al. 2021) and NeRF-Gaussian.
"""

import math
from typing import Any, Literal, NamedTuple

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from thalweg import camera as cameras
from thalweg import random
from thalweg.config import STRICT, Common, Count, DataNeeds, Fraction, NotNegative, Positive, Whole
from thalweg.data import ViewBatch
from thalweg.data.base import Batch
from thalweg.energy import Energy, combine
from thalweg.errors import InputError
from thalweg.methods.base import Method, Update
from thalweg.nn import inference, von_mises
from thalweg.nn.layers import frozen
from thalweg.nn.nerf import Rendering
from thalweg.scene import poses
from thalweg.scene.chains import ObjectChains
from thalweg.scene.checks import check, check_views
from thalweg.scene.fields import RadianceField, SceneField
from thalweg.scene.rays import Given, Pixels, choose, observe
from thalweg.scene.specs import (
    Amortized,
    EnergyPrior,
    LatentPrior,
    Learner,
    Persistent,
    PoseSearch,
    PosteriorChain,
    Rays,
    SemiAmortized,
)

LATENTS = ("appearance", "shape")
ANGLES = ("altitude", "azimuth")
CAMERAS = 512  # of training, that samples are seen from
AT_ONCE = 64  # images rendered at once
LOOKED_AT, LOOKED_STEPS = 16, 30  # held-out images of the criterion, and steps of inference at most
REDRAWN = 10  # steps of inference after which other pixels are looked at


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Config(Common):
    """Settings of `nerf_lebm`."""

    field: SceneField = RadianceField()
    """the radiance field of G_θ"""
    renderer: Rays = Rays()
    """how its images are computed, and in training of which pixels"""
    dim_appearance: Count = 32
    """dimension of z^a"""
    dim_shape: Count = 32
    """dimension of z^s"""
    prior: LatentPrior = EnergyPrior()
    """p(z^a) and p(z^s)"""
    learner: Learner = Amortized()
    """where latents of the posterior come from: chains anew, a chain kept for each object, an inference network, or both of these"""
    poses: Literal["known", "unknown"] = "known"
    """whether the data give cameras"""
    pose_search: PoseSearch | None = None
    """how unknown poses are searched; None (the paper) to draw them from their posterior"""
    views: Count = 1
    """images of an object in a batch, which share their latents; above 1 not for the amortized learner"""
    read_views: Whole = 0
    """images of each object that are read, evenly spread over its files, 0 for all"""
    missing: Fraction = 0.0
    """share of each training image that is hidden by noise (sec. 3.5.7)"""
    residual_std: Positive = 0.05
    """σ_ε, of images in [−1, 1]"""
    likelihood_temperature: Positive = 1.0
    """T of p(I | z)^(1/T); 1 is the paper's"""
    batch: Count = 16
    """images per update"""
    images: Count = 100_000
    """length of training in images"""
    lr: Positive = 5e-5
    """η_α, base learning rate of the priors"""
    lr_generator: Positive = 1e-3
    """η_θ, base learning rate of the generator"""
    clip: NotNegative = 0.0
    """bound on each update's gradient norm, 0 for none"""

    @property
    def data_needs(self) -> DataNeeds:
        return DataNeeds(views=self.views, read_views=self.read_views or None, missing=self.missing)


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


class Posterior(NamedTuple):
    """Draws of the posterior for N objects: latents z⁺ [N, d], cameras [N, V, 3, 5], the pixels that these see, and in nats [N] what an
    inference network learns by besides: KL(q_φ ‖ q₀) of its own draws, −log q_φ(z⁺) of those of chains."""

    z: Tensor
    camera: Tensor
    pixels: Pixels
    divergence: Tensor | float


class NeRFLEBM(Method):
    """A radiance field with energy-based priors of its latents; the settings are in `Config`."""

    name = "nerf_lebm"
    Config = Config
    inputs = ()  # energies are of latents, images come with cameras: `infer` and `energy` say what they need
    guarded = ("appearance_posterior", "appearance_prior", "shape_posterior", "shape_prior")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        c = config
        check(c, self.name)
        self.appearance, self.shape = c.prior.build(c.dim_appearance, c.dim_shape)
        self.field = c.field.build(c.dim_appearance, c.dim_shape)
        known, dims = c.poses == "known", dict(zip(LATENTS, (c.dim_appearance, c.dim_shape)))
        self.inference = None
        if isinstance(c.learner, Amortized | SemiAmortized):
            self.inference = c.learner.inference.build(c.shape[0], dims, angles=() if known else ANGLES, given=9 if known else 0)
        g = random.seeded(0)
        keeps = isinstance(c.learner, Persistent | SemiAmortized)
        self.kept = ObjectChains(self._reference(c.learner.chains, g)) if keeps else None
        self.candidates = None if c.pose_search is None else c.pose_search.build()
        altitude = random.uniform(CAMERAS, high=poses.HIGHEST, generator=g)
        azimuth = random.uniform(CAMERAS, high=2 * math.pi, generator=g)
        # of training, the newest in place of the oldest; before that from above, all around
        self.register_buffer("cameras", self._orbit(cameras.unit_vector(altitude), cameras.unit_vector(azimuth)))

    @property
    def abilities(self) -> frozenset[str]:
        return frozenset({"sample", "views"} | ({"cameras"} if self.config.poses == "known" else set()))

    @property
    def optics(self) -> cameras.Optics:
        """How the model sees, for the tasks."""
        r = self.config.renderer
        return cameras.Optics(r.distance, r.near, r.far, r.focal)

    def _orbit(self, altitude: Tensor, azimuth: Tensor) -> Tensor:
        return cameras.orbit(altitude, azimuth, distance=self.optics.distance, focal=self.optics.focal)

    # --- the densities

    def energy(self, z: Tensor) -> Tensor:
        """−log p(z^a) p(z^s) in nats up to its constant: latents [B, d_a + d_s], appearance first -> [B]. InputError for other shapes."""
        dim = self.config.dim_appearance + self.config.dim_shape
        if z.dim() != 2 or z.shape[1] != dim:
            raise InputError(f"nerf_lebm: energy is of latents [B, {dim}], got {list(z.shape)}")
        z_a, z_s = self.split(z)
        return self.appearance.energy(z_a) + self.shape.energy(z_s)

    def split(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z^a and z^s of latents [..., d_a + d_s]."""
        z_a, z_s = z.split([self.config.dim_appearance, self.config.dim_shape], -1)
        return z_a, z_s

    def generate(self, z: Tensor, pixels: Pixels) -> Tensor:
        """G_θ at `pixels`: latents [N, d] -> [N, Q, 3] in [−1, 1]."""
        return 2 * self._render(z, pixels).colour - 1

    def misfit(self, z: Tensor, pixels: Pixels) -> Tensor:
        """Squared error of each pixel times its weight, 0 where an image is not visible: [N, d] -> [N, Q]."""
        return (self.generate(z, pixels) - pixels.x).square().sum(-1) * pixels.weight

    def residual(self, z: Tensor, pixels: Pixels) -> Tensor:
        """−log p(I | z) in nats up to its constant, over visible pixels, divided by T: [N, d] -> [N] (eq. 3.3)."""
        return self.misfit(z, pixels).sum(1) / (2 * self.config.residual_std**2 * self.config.likelihood_temperature)

    def posterior_energy(self, z: Tensor, pixels: Pixels) -> Tensor:
        """−log p(I, z) in nats up to its constant: latents [N, d] -> [N]."""
        return self.residual(z, pixels) + self.energy(z)

    def _render(self, z: Tensor, pixels: Pixels) -> Rendering:
        latents = self.field.latents(*self.split(z))
        return self.config.renderer.render(lambda x, direction: self.field(x, direction, latents), pixels)

    # --- training

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        c, found = self.config, {}
        if isinstance(c.prior, EnergyPrior):
            found = {name: torch.optim.Adam(getattr(self, name).parameters(), lr=c.lr, fused=True) for name in LATENTS}
        groups = [{"params": list(self.field.parameters()), "lr": c.lr_generator}]
        if self.inference is not None:
            heads = [p for name in LATENTS for p in self.inference.heads[name].parameters()]
            others = [p for p in self.inference.parameters() if all(p is not head for head in heads)]
            rate = c.learner.lr_inference
            groups += [{"params": others, "lr": rate}, {"params": heads, "lr": c.learner.lr_heads or rate}]
        return found | {"generator": torch.optim.Adam(groups, fused=True)}

    def step(self, batch: Batch | ViewBatch, update: Update) -> None:
        """Algorithms 1 and 2, which differ in line 4; one with searched poses is ours."""
        if isinstance(self.config.field, RadianceField) and self.config.field.annealing:
            self.field.reveal(update.images / (self.config.field.annealing * self.config.images))
        if self.config.pose_search is not None:
            self._step_with_search(batch, update)
            return
        given = self._given(batch, update.generator)
        negative = self._negative(len(given.x), update)  # line 3
        kind = self.config.learner.kind
        infer = {"mcmc": self._by_chains, "persistent": self._by_kept_chains, "amortized": self._by_inference}
        found = infer.get(kind, self._by_both)(given, update)  # line 4
        self._learn_priors(found.z, negative, update)  # lines 5 and 6
        self._learn_generator(found, update)  # line 7

    def _negative(self, n: int, update: Update) -> Tensor:
        return torch.cat(self.draw_prior(n, update.generator, compile=True), 1)

    def _by_chains(self, given: Given, update: Update) -> Posterior:
        """Chains on the posterior, anew from the reference (eq. 3.14, 3.15)."""
        pixels = self._look(given, given.camera, update.generator)
        start = self._reference(len(given.x), update.generator, given.x.device)
        z, _ = self.run_chain(self.config.learner.posterior_chain, start, pixels, generator=update.generator)
        return Posterior(z, given.camera, pixels, 0.0)

    def _by_kept_chains(self, given: Given, update: Update, first: Tensor | None = None, about: Tensor | float = 0.0) -> Posterior:
        """As `_by_chains`, on z + `about`, but each object's chain goes on from where it was (sec. 3.5.6), or begins at `first` [N, d]."""
        pixels, rows = self._look(given, given.camera, update.generator), given.item
        if int(rows.max()) >= len(self.kept):
            raise InputError(f"nerf_lebm: object number {int(rows.max())} of the data has no chain; set chains to the count of objects")
        learner, z, moments = self.config.learner, self.kept.z[rows], self.kept.moments[rows]
        z = z if first is None else torch.where(moments[:, -1:] > 0, z, first)
        parts = learner.parts if isinstance(learner, SemiAmortized) else 1
        for k in range(1 if parts == 1 else learner.posterior_chain.steps):
            seen, steps = (pixels, None) if parts == 1 else (pixels.part(k % parts, parts), 1)
            z, moments = self.run_chain(learner.posterior_chain, z, seen, moments, steps=steps, about=about, generator=update.generator)
        self.kept.write(rows, z, moments, update.mean)
        return Posterior(z, given.camera, pixels, 0.0)

    def _by_inference(self, given: Given, update: Update) -> Posterior:
        """Draws of the inference network (eq. 3.16); of unknown poses too (sec. 3.4.4)."""
        z, camera, divergence = self._encode(given.x.flatten(0, 1), given.camera, update.generator)
        return Posterior(z, camera, self._look(given, camera, update.generator), divergence)

    def _by_both(self, given: Given, update: Update) -> Posterior:
        """Draws of Gaussians about kept chains, which begin at the means of the inference network: ours.

        It learns to name where the chain is from each view, and how far about it the image stays the same.
        """
        heads = self._heads(given.x.flatten(0, 1), given.camera.flatten(0, 1)[:, None])
        head = torch.cat([torch.stack(heads[name].chunk(2, 1), 1) for name in LATENTS], 2).unflatten(0, given.x.shape[:2])
        means, log_variance = head[:, :, 0], head[:, :, 1].mean(1).clamp(-10, 10)
        # drawn anew after the chain, which has moved against what it was given
        before, after = (random.normal_like(log_variance, update.generator) for _ in range(2))
        if update.images < self.config.learner.alone * self.config.images:
            found = Posterior(means.mean(1), given.camera, self._look(given, given.camera, update.generator), 0.0)
        else:
            found = self._by_kept_chains(given, update, means.mean(1).detach(), (0.5 * log_variance.detach()).exp() * before)
        z, divergence = inference.about(found.z, means, log_variance, after)
        return found._replace(z=z, divergence=divergence)

    def _learn_priors(self, posterior: Tensor, prior: Tensor, update: Update) -> None:
        """Eq. 3.7 and 3.8, or 3.18 and 3.19."""
        for name, positive, negative in zip(LATENTS, self.split(posterior.detach()), self.split(prior)):
            loss, of_posterior, of_prior = getattr(self, name).loss(positive, negative)
            if isinstance(self.config.prior, EnergyPrior):
                update(name, loss)
            update.log(**{f"{name}_posterior": of_posterior.detach(), f"{name}_prior": of_prior.detach()})

    def _learn_generator(self, found: Posterior, update: Update, pose_loss: Tensor | float = 0.0) -> None:
        """Eq. 3.9, or for an inference network 3.20, in nats per value of the images."""
        values = self.config.views * math.prod(self.config.shape)
        residual = self.residual(found.z, found.pixels)
        loss = (residual + found.divergence) / values + pose_loss
        if found.z.requires_grad:
            with frozen(self.appearance, self.shape):
                tilting = sum(prior.tilting(z) for prior, z in zip((self.appearance, self.shape), self.split(found.z)))
            loss = loss - tilting / values
        update("generator", loss.mean())
        self._remember(found.camera.detach().flatten(0, 1), update.images)
        update.log(residual=residual / values, divergence=found.divergence, latent_std=found.z.detach().std())

    def _step_with_search(self, batch: Batch | ViewBatch, update: Update) -> None:
        """Algorithm 2 with the likeliest poses (`scene.poses`, ours); while all shapes are one, z^s = 0, the priors wait."""
        given, search = self._given(batch, update.generator), self.config.pose_search
        same_shape, outlines = (update.images < share * self.config.images for share in (search.same_shape, search.silhouettes))
        negative = None if same_shape else self._negative(len(given.x), update)
        seen = given.silhouettes(self.config.renderer.background) if outlines else given
        found, pose_loss = self._by_search(given, seen, same_shape, update)
        if negative is not None:
            self._learn_priors(found.z, negative, update)
        self._learn_generator(found, update, pose_loss)

    def _by_search(self, given: Given, seen: Given, same_shape: bool, update: Update) -> tuple[Posterior, Tensor]:
        """As `_by_inference`, with the likeliest cameras of what is `seen` of the images; and the loss of their posteriors, [N]."""
        generator, row = update.generator, None if given.row is None else given.row[:, 0]
        heads = self._heads(given.x.flatten(0, 1))
        (z_a, of_appearance), (z_s, of_shape) = (self._draw(heads[name], generator) for name in LATENTS)
        z = torch.cat([z_a, torch.zeros_like(z_s) if same_shape else z_s], 1)

        side, n = self.config.pose_search.side, len(z)
        compared = seen.coarse(side) if side else seen

        def misfit(camera: Tensor) -> Tensor:
            few = compared.again(camera.shape[1], side**2 or poses.PIXELS)
            return self.misfit(z, self._look(few, camera)).unflatten(1, (camera.shape[1], -1)).sum(2)

        posteriors = [inference.direction(heads[name]) for name in ANGLES]
        candidates = self.candidates.propose(row, n, generator, z.device)
        camera, loss, best = poses.search(
            posteriors, misfit, candidates, distance=self.optics.distance, focal=self.optics.focal,
            own=not self.candidates.images, penalty=self.candidates.penalty,
        )  # fmt: skip
        self.candidates.keep(row, best, update.mean)
        pixels = self._look(seen, camera, generator)
        return Posterior(z, camera, pixels, of_appearance if same_shape else of_appearance + of_shape), loss

    def _given(self, batch: Batch | ViewBatch, generator: random.Generator) -> Given:
        c = self.config
        return observe(batch, c.views, known=c.poses == "known", rays=c.renderer.rays, generator=generator)

    def _look(self, given: Given, camera: Tensor, generator: random.Generator = None) -> Pixels:
        return self.config.renderer.look(given.x, camera, given.visible, given.which, generator)

    @torch.no_grad()
    def _remember(self, camera: Tensor, images: int) -> None:
        rows = (images + torch.arange(min(len(camera), CAMERAS), device=camera.device)) % CAMERAS
        self.cameras[rows] = camera[:CAMERAS].to(self.cameras)

    # --- draws of latents

    def _reference(self, n: int, generator: random.Generator, device: torch.device | None = None) -> Tensor:
        return torch.cat([prior.draw_reference(n, generator, device) for prior in (self.appearance, self.shape)], 1)

    def draw_prior(
        self,
        n: int,
        generator: random.Generator = None,
        steps: int | None = None,
        *,
        compile: bool = False,
        factor: Energy | None = None,
    ) -> tuple[Tensor, Tensor]:
        """`n` draws of z^a [n, d_a] and z^s [n, d_s] from the priors, by chains of K⁻ steps unless `steps` are given (eq. 3.10, 3.11).

        With the energy `factor` of latents [n, d_a + d_s] as many steps follow on E(z^a) + E(z^s) + `factor`, those of
        `EnergyPrior` where the prior is Gaussian: ours.
        """
        options = dict(steps=steps, compile=compile, generator=generator, device=self.cameras.device)
        chain = self.config.prior.chain
        found = self.appearance.sample(n, chain, **options), self.shape.sample(n, chain, **options)
        if factor is None:
            return found
        with torch.no_grad(), frozen(self), torch.autocast(self.device.type, enabled=False):
            z = (chain or EnergyPrior().chain)(
                combine([self.energy, factor]), torch.cat(found, 1), steps=steps, project=self.appearance.inside, generator=generator
            )
        return self.split(z)

    def run_chain(
        self,
        chain: PosteriorChain,
        z: Tensor,
        pixels: Pixels,
        moments: Tensor | None = None,
        *,
        steps: int | None = None,
        about: Tensor | float = 0.0,
        generator: random.Generator = None,
    ) -> tuple[Tensor, Tensor]:
        """Chains from z [N, d] on the posterior given `pixels`: each step moves z^a, then z^s, or both if the chain is `joint`.

        Energies are those of z + `about`. Returns z and Adam's `moments` [N, 2 d + 1]. Raises Diverged where a chain ends non-finite.
        """
        is_appearance = torch.arange(z.shape[1], device=z.device) < self.config.dim_appearance
        with frozen(self):
            return chain(
                lambda z: self.posterior_energy(z + about, pixels), z, [is_appearance, ~is_appearance], moments=moments, steps=steps,
                project=self.appearance.inside, generator=generator,
            )  # fmt: skip

    def _encode(self, x: Tensor, camera: Tensor | None, generator: random.Generator = None) -> tuple[Tensor, Tensor, Tensor]:
        """z [B, d] and cameras [B, 1, 3, 5] drawn from the network's posteriors of images [B, C, H, W] (their means without a
        generator), and the KL divergences to the references [B] in nats."""
        heads = self._heads(x, camera)
        parts, divergences = zip(*(self._draw(heads[name], generator) for name in LATENTS))
        divergence = sum(divergences)
        if camera is None:
            vectors = []
            for direction, kappa in (inference.direction(heads[name]) for name in ANGLES):
                divergence = divergence + von_mises.kl_to_uniform(kappa)  # eq. 3.21
                draw = None if generator is None else random.uniform(len(x), generator=generator, device=x.device).clamp(1e-6, 1 - 1e-6)
                vectors.append(direction if draw is None else von_mises.sample(direction, kappa, draw))
            camera = self._orbit(*vectors)[:, None]
        return torch.cat(parts, 1), camera, divergence

    def _heads(self, x: Tensor, camera: Tensor | None = None) -> dict[str, Tensor]:
        """What the network says of images [B, C, H, W] and their cameras [B, 1, 3, 5], in fp32 also under autocast."""
        rotation = None if camera is None else camera.flatten(0, 1)[:, :, :3].flatten(1)
        return {name: head.float() for name, head in self.inference(x, rotation).items()}

    @staticmethod
    def _draw(head: Tensor, generator: random.Generator = None) -> tuple[Tensor, Tensor]:
        """A draw [B, d], the mean without a generator, of a Gaussian head [B, 2 d], and its divergence to N(0, I) [B]."""
        return inference.gaussian(head, None if generator is None else random.normal_like(head.chunk(2, 1)[0], generator))

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
        restarts: int = 1,
        seed: int = 0,
    ) -> Latents:
        """The latents of N objects from images [N, C, H, W], or V views each [N, V, C, H, W], with cameras [N, 3, 5] or [N, V, 3, 5].

        `visible` [N, (V,) 1, H, W] is False where images are missing. A chain of `steps` (the learner's `infer_chain`) starts from the
        inference network's means, averaged over the views, or without one from draws of the reference that `seed` sets. It looks at `rays`
        pixels of each image (as in training, 0 for all), others every ten steps. Of `restarts` chains, all but one from draws of the
        reference, the likeliest is taken. With unknown poses the network gives the cameras. Raises InputError for shapes that do not fit.
        """
        c, device = self.config, self.cameras.device
        several = x.dim() == 5
        x, camera, visible = (None if t is None else (t if several else t[:, None]).to(device) for t in (x, camera, visible))
        check_views(c, self.name, x, camera)
        generator = random.seeded(seed, 5, device=device)
        if self.inference is None:
            z = self._reference(len(x), generator, device)
        else:
            z, camera, _ = self._encode(x.flatten(0, 1), None if camera is None else camera.flatten(0, 1)[:, None])
            z, camera = z.unflatten(0, x.shape[:2]).mean(1), camera.view(*x.shape[:2], 3, 5)
        chain, moments = c.learner.infer_chain, None
        steps, rays = chain.steps if steps is None else steps, c.renderer.rays if rays is None else rays
        if restarts > 1:
            others = self._reference(len(z) * (restarts - 1), generator, device).unflatten(0, (len(z), -1))
            z = torch.cat([z[:, None], others], 1).flatten(0, 1)
            x, camera, visible = (None if t is None else t.repeat_interleave(restarts, 0) for t in (x, camera, visible))
        pixels = math.prod(c.shape[1:])
        some = REDRAWN if 0 < rays < pixels else max(1, steps)
        for done in range(0, steps, some):
            which = choose(math.prod(x.shape[:2]), pixels, rays, generator, device)
            seen = c.renderer.look(x, camera, visible, which)
            z, moments = self.run_chain(chain, z, seen, moments, steps=min(steps - done, some), generator=generator)
        if restarts > 1:
            best = self.posterior_energy(z, c.renderer.look(x, camera, visible)).unflatten(0, (-1, restarts)).argmin(1)
            rows = best + restarts * torch.arange(len(best), device=device)
            z, camera = z[rows], camera[rows]
        return Latents(*self.split(z), camera)

    @torch.no_grad()
    def render(self, z_a: Tensor, z_s: Tensor, camera: Tensor, size: int | None = None) -> Pictures:
        """The images of objects [N, d_a] and [N, d_s] from cameras [N, 3, 5], of `size`×`size` pixels or those of training."""
        height, width = (size, size) if size else self.config.shape[1:]
        found = []
        for a, s, view in zip(z_a.split(AT_ONCE), z_s.split(AT_ONCE), camera.to(z_a).split(AT_ONCE)):
            pixels = self.config.renderer.look(z_a.new_zeros(len(a), 1, 1, height, width), view[:, None])
            made = self._render(torch.cat([a, s], 1), pixels)
            image = (2 * made.colour - 1).clamp(-1, 1).transpose(1, 2).unflatten(2, (height, width))
            maps = (part.view(len(a), 1, height, width) for part in (made.depth, made.opacity))
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
            camera = self.cameras[random.integers(n, 0, CAMERAS, generator=generator, device=device)]
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
        found = self.infer(x, camera, visible=visible, steps=min(LOOKED_STEPS, self.config.learner.infer_chain.steps))
        error = (self.render(*found[:2], found.camera[:, 0]).x - x).square() * visible
        return float(error.sum() / (visible.sum() * x.shape[1]))
