"""DDPM: a denoising diffusion model without an energy, a reference for those with one. docs/methods/ddpm.md

    y = x + σ z,  z ~ N(0, I),  log σ ~ N(log σ_f, r²) within [log σ_min, log σ_max]
    D(y, σ) = s²/(s² + σ²) y + σ s/√(s² + σ²) F(y/√(s² + σ²), log σ)         x̂₀, with s the data's root mean square
    update("denoiser", (s² + σ²)/(σ s)² ‖D(y, σ) − x‖²/d)

Ho et al., NeurIPS 2020, at continuous noise levels, with the preconditioning, the weights and the log-normal levels of Karras et al.,
NeurIPS 2022 (arXiv:2206.00364), sec. 5. The predicted noise is (y − D)/σ; it is no gradient of anything, so that there are no likelihoods
of one pass, no sums of energies and no Metropolis-adjusted chains.
"""

import math
from typing import Any, Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from thalweg import diffusion, random
from thalweg.config import STRICT, Common, Count, Fraction, Positive
from thalweg.data.base import Batch
from thalweg.errors import InputError
from thalweg.guidance import asked_for, checked_labels, given, some_left_out
from thalweg.methods.base import Method, Update, check_start, finished
from thalweg.nn.build import MLP, MapNetwork
from thalweg.nn.layers import frozen
from thalweg.nn.log_sigma import see_log_sigma
from thalweg.nn.log_snr import start_at_zero
from thalweg.sample import Constraint, Trace


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Config(Common):
    """Settings of `ddpm`; `lr` is the one rate."""

    net: MapNetwork = MLP(width=256, depth=4)
    """F, a network with a map in the shape of x"""
    conditional: bool = False
    """model p(x | label), and p(x) where labels are dropped"""
    label_dropping: Fraction = 0.1
    """share of training labels that are left out, for guidance (Ho and Salimans 2022); 0 trains p(x | label) alone"""
    guidance: float = 1.0
    """default guidance of samples by label: 1 samples p(x | label), 0 ignores the label"""
    data_std: Positive = 1.0
    """s, root mean square of the data's entries"""
    sigma_min: Positive = 0.01
    """the lowest noise level"""
    sigma_max: Positive = 40.0
    """the highest noise level, where samples begin"""
    focus_sigma: Positive = 0.5
    """σ_f, median of the levels in training"""
    focus_spread: Positive = 1.4
    """r, standard deviation of log σ in training"""
    beta2: Fraction = 0.99
    """Adam's β₂"""
    sample_steps: Count = 40
    """default number of levels that samples pass"""


class DDPM(Method):
    """A denoiser of every noise level and the samplers that follow from it; the settings are in `Config`."""

    name = "ddpm"
    Config = Config
    held = {"sampler": "flow"}

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        c = config
        if not c.sigma_min < c.sigma_max:
            raise InputError(f"ddpm: sigma_min must be below sigma_max, got {c.sigma_min:g} and {c.sigma_max:g}")
        if c.conditional and not c.classes:
            raise InputError("ddpm: conditional = True needs data with labels")
        net = c.net.build(c.shape, channels=c.shape[0], classes=c.classes if c.conditional else 0)
        self.net = see_log_sigma(start_at_zero(net), c.sigma_min, c.sigma_max)

    @property
    def default_guidance(self) -> float:
        return self.config.guidance

    @property
    def abilities(self) -> frozenset[str]:
        labels = {"labels"} if self.config.conditional else set()
        # of a model of labels alone there is no denoiser of images without one
        free = {"denoise"} if not labels or self.config.label_dropping else set()
        return frozenset({"sample", "start", "constraint"} | labels | free)

    def denoised(self, y: Tensor, log_sigma: Tensor, label: Tensor | None = None) -> Tensor:
        """D(y, σ), the estimate of E[x | y], of which an untrained network gives that of N(0, s² I): [B, ...], [B] -> [B, ...]."""
        s, sigma = self.config.data_std, log_sigma.exp().view(-1, *[1] * (y.dim() - 1))
        scale = (s**2 + sigma.square()).sqrt()
        field = (self.net(y / scale, log_sigma) if label is None else self.net(y / scale, log_sigma, label))[0].to(y.dtype)
        return (s / scale).square() * y + sigma * s / scale * field

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        c = self.config
        return {"denoiser": torch.optim.Adam(self.net.parameters(), lr=c.lr, betas=(0.9, c.beta2), fused=True)}

    def step(self, batch: Batch, update: Update) -> None:
        c, g, x = self.config, update.generator, batch.x
        label = some_left_out(batch.label, c.label_dropping, g) if c.conditional else None
        error, noise_error = self.losses(x, self.draw_levels(len(x), g), random.normal_like(x, g), label)
        update("denoiser", error.mean())
        update.log(noise_error=noise_error)

    def losses(self, x: Tensor, log_sigma: Tensor, z: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Per row at y = x + σ z: the weighted error of D, and the mean squared error of the noise that it predicts: [B] each."""
        s, sigma = self.config.data_std, log_sigma.exp()
        x0 = self.denoised(x + sigma.view(-1, *[1] * (x.dim() - 1)) * z, log_sigma, label)
        error = (x0 - x).flatten(1).square().mean(1)
        return error * (s**2 + sigma.square()) / (s * sigma).square(), (error / sigma.square()).detach()

    def draw_levels(self, n: int, generator: random.Generator) -> Tensor:
        """log σ [n], one from each of n equal parts of their distribution."""
        c = self.config
        share = n // (len(generator) if isinstance(generator, tuple) else 1)
        part = torch.arange(n, device=self.device) % share
        place = (part + random.uniform(n, generator=generator, device=self.device)) / share
        levels = math.log(c.focus_sigma) + c.focus_spread * torch.special.ndtri(place.clamp(1e-4, 1 - 1e-4))
        return levels.clamp(math.log(c.sigma_min), math.log(c.sigma_max))

    @torch.no_grad()
    def criterion(self, held_out: Batch, generator: random.Generator) -> float:
        """The training loss on held-out data under fixed noise."""
        x, label = held_out.x, held_out.label if self.config.conditional else None
        return float(self.losses(x, self.draw_levels(len(x), generator), random.normal_like(x, generator), label)[0].mean())

    # --- use

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        label: Tensor | int | None = None,
        guidance: float | None = None,
        steps: int | None = None,
        sampler: Literal["diffusion", "flow"] = "diffusion",
        eta: float = 1.0,
        constraint: Constraint | None = None,
        resample: int = 1,
        start: Tensor | None = None,
        trace: Trace | None = None,
    ) -> Tensor:
        """`n` samples down `steps` noise levels: [n, ...], images in [−1, 1].

        `sampler`: "diffusion", one evaluation a level (`diffusion.down`; `eta` 0 has no noise), or "flow", the probability flow by Heun's
        method, two a level. A `label` with `guidance` w predicts w ε̂(y | label) + (1 − w) ε̂(y). `constraint` puts what was measured back.
        `start` [n, ...] is the noise that y begins with. Raises InputError for another sampler, and for labels that there are not.
        """
        c, device = self.config, self.device
        check_start(self, start, n)
        if sampler not in ("diffusion", "flow"):
            raise InputError(f"ddpm: sampler must be diffusion or flow, got '{sampler}'")
        if sampler == "flow" and constraint is not None:
            raise InputError("ddpm: the flow keeps no constraint; use the sampler diffusion")
        generator = random.seeded(seed, 2, device=device)
        z = random.normal(n, *c.shape, generator=generator, device=device) if start is None else start.to(device)
        y = math.hypot(c.sigma_max, c.data_std) * z
        levels = diffusion.sigmas(c.sample_steps if steps is None else steps, c.sigma_min, c.sigma_max)
        predict, clamp = self._predictor(label, n, guidance), (-1.0, 1.0) if len(c.shape) == 3 else None
        with frozen(self.net):
            if sampler == "flow":
                y = diffusion.flow(predict, y, levels, clamp=clamp, trace=trace)
                return finished(y - levels[-1] * predict(y, levels[-1]))
            options: dict[str, Any] = dict(constraint=constraint, resample=resample, generator=generator, trace=trace)
            return finished(diffusion.down(predict, y, levels, eta=eta, clamp=clamp, **options))

    @torch.no_grad()
    def denoise(self, y: Tensor, std: float, *, seed: int = 0) -> Tensor:
        """The estimate D(y, std) of the mean of x given y = x + std·ε: [B, ...] -> [B, ...]; `seed` is of no effect.

        A `std` below the lowest level counts as that one. Raises InputError for std ≤ 0 or above the highest level.
        """
        c = self.config
        if not 0 < std <= c.sigma_max:
            raise InputError(f"ddpm: denoise needs std above 0 and up to {c.sigma_max:g}, got {std}")
        with frozen(self.net):
            return y - std * self._predictor(None, len(y), None)(y, max(std, c.sigma_min))

    def _predictor(self, label: Tensor | int | None, n: int, guidance: float | None) -> diffusion.PredictNoise:
        """ε̂(y, σ), guided towards `label` where there is one."""
        c = self.config
        if label is not None and not c.conditional:
            raise InputError("this ddpm model was trained without labels: it takes no label")
        if label is None and c.conditional and not c.label_dropping:
            raise InputError("this ddpm model has no samples without a label (label_dropping = 0): give one")
        labels = None if label is None else checked_labels(label, n, c.classes, self.device)
        concepts = asked_for(labels, c.guidance if guidance is None else guidance)
        if not c.label_dropping and any(weight != 1 for _, weight in concepts):
            raise InputError("ddpm: this model has no p(x) without a label (label_dropping = 0), so that guidance must be 1")

        def predict(y: Tensor, *, sigma: float, label: Tensor | None = None) -> Tensor:
            log_sigma = torch.full((len(y),), math.log(sigma), device=y.device, dtype=y.dtype)
            return (y - self.denoised(y, log_sigma, label)) / sigma

        guided = given(predict, concepts)
        return lambda y, sigma: guided(y, sigma=sigma)
