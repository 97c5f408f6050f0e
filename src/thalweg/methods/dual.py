"""dual: one energy of all noise levels that is normalised, by matching its slopes in x and in σ. docs/methods/dual.md

    y = x + σ z, z ~ N(0, I), log σ drawn from all levels:   U(y, σ) is to be −log p_σ(y)
    update("energy", ‖σ ∇U − z‖²/d + w [½(1 − ‖z‖²/d) − ½ ∂U/∂log σ /d]²)
    U = −log N(y; μ, C + σ²) + ⟨r u, m(u, σ)⟩ − c l(u, σ), u = (y − μ)/√(s² + σ²)      (ours)

Guth, Kadkhodaie and Simoncelli, NeurIPS 2025 (arXiv:2506.05310). The first term is denoising score matching at each level; the second ties
the levels to each other: from the largest, where the data are Gaussian and U is normalised as it stands, it carries log Z = 0 down to the
data, so that one forward pass is a log-likelihood. Where the paper fits a constant at the largest level, U here is the exact energy of the
Gaussian with the data's mean and covariance, tilted by read-outs r m and c l that vanish at high noise (`nn.tilt`).
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from thalweg import diffusion, random
from thalweg.augmentation import Augmentation, augmented
from thalweg.compiled import compiled_losses
from thalweg.config import STRICT, Common, Count, DataNeeds, Fraction, NotNegative, Positive, Whole
from thalweg.data.base import Batch
from thalweg.energy import Energy, value_and_score
from thalweg.errors import InputError
from thalweg.guidance import Concepts, asked_for, checked_labels, given, some_left_out
from thalweg.methods.base import Method, Update, check_start, finished
from thalweg.nn.build import MLP, Network
from thalweg.nn.layers import frozen
from thalweg.nn.log_sigma import FadingWaves, see_log_sigma
from thalweg.nn.log_snr import start_at_zero
from thalweg.nn.tilt import Base, Ends, Tilt
from thalweg.normalising import log_z_by_level
from thalweg.sample import Constraint, Trace

INTERVALS = 64  # between levels at which log Z is found
LEVEL_SHARE = 8  # of a batch, one part in so many tells levels


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Config(Common):
    """Settings of `dual`."""

    autoencoder: str = ""
    """run folder, exported folder or hub name of an autoencoder in whose latent space the model lives, see thalweg/latent.py"""
    conditional: bool = False
    """model p(x | label), and p(x) where labels are dropped"""
    label_dropping: Fraction = 0.1
    """share of training labels that are left out, so that p(x) is trained too; 0 trains p(x | label) alone"""
    guidance: float = 1.0
    """default guidance of samples by label: 1 samples p(x | label), 0 ignores the label"""
    class_sigma: NotNegative = 0.0
    """noise level at which `classify` compares the classes, 0 for the lowest; at low noise energies of images differ less by label than
    log Z of each label's density is uncertain"""
    net: Network = MLP(width=128, depth=3)
    """the energy's network, one with a map"""
    waves: Whole = 4
    """octaves of sinusoids of x in addition to x in an MLP's input, see `nn.log_sigma`"""
    reference: Literal["diagonal", "full"] = "diagonal"
    """C, covariance of the Gaussian that is tilted: the variances s² alone, or all of the data's; then the network sees the mean of x given
    y under that Gaussian too"""
    ends: Ends = "none"
    """how both ends of the range of grey values, where 8-bit images pile up, are seen and read out: as parts of a mixture (bins),
    as smooth bumps, or not (none); see `nn.tilt`"""
    grey_values: Whole = 0
    """grey values of 8-bit images, over whose bins uniform noise spreads them; 0 for data that are continuous"""
    sigma_min: Positive = 0.03
    """the lowest noise level, that of public energies: below the finest structure of the data"""
    sigma_max: Positive = 10.0
    """the highest noise level, where the data are Gaussian to the eye"""
    augmentation: Augmentation | None = None
    """random changes of training images, which samples then show too; None for none"""
    focus: Fraction = 0.0
    """share of training draws whose σ is log-normal about `focus_sigma`; the others are uniform in log σ"""
    focus_sigma: Positive = 0.4
    """σ about which that share lies: what decides samples"""
    focus_spread: Positive = 1.0
    """standard deviation of log σ of that share"""
    time_weight: NotNegative = 0.5
    """w, weight of the term in ∂U/∂log σ"""
    flatness: NotNegative = 0.1
    """δ in r = s/√(σ² + δ² s²), which bounds the read-out of the map at low noise: the energy is flat below δ s"""
    least_std: Positive = 0.02
    """least deviation of a coordinate, and of any direction, so that what is constant has room"""
    level_weight: NotNegative = 0.0
    """weight of telling a level by its energies (DiffCLF), 0 for none; see `Dual.level_loss`"""
    level_start: Fraction = 0.25
    """share of training after which that begins: the scores must have been learned"""
    calibration: Count = 50_000
    """draws by which log Z is found at the end of training, two energies each"""
    beta2: Fraction = 0.99
    """Adam's β₂"""
    compile: bool = False
    """compile the whole loss, with its second derivatives: a wait at the start, then faster steps"""
    sample_steps: Count = 64
    """default number of levels that samples pass"""

    @property
    def data_needs(self) -> DataNeeds:
        return DataNeeds(autoencoder=self.autoencoder)


class Dual(Method):
    """A normalised energy at every noise level; the settings are in `Config`."""

    name = "dual"
    Config = Config
    guarded = ("energy_data",)
    held = {"sampler": "flow"}
    log_z = 0.0

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        c = config
        if not c.sigma_min < c.sigma_max:
            raise InputError(f"dual: sigma_min must be below sigma_max, got {c.sigma_min:g} and {c.sigma_max:g}")
        if c.class_sigma and not c.sigma_min <= c.class_sigma <= c.sigma_max:
            raise InputError(f"dual: class_sigma must be 0 or from {c.sigma_min:g} to {c.sigma_max:g}, got {c.class_sigma:g}")
        if c.conditional and not c.classes:
            raise InputError("dual: conditional = True needs data with labels")
        if c.augmentation and (c.autoencoder or len(c.shape) != 3):
            raise InputError("dual: augmentation is for images [C, H, W], and vectors and latents are none; use none")
        if c.grey_values == 1:
            raise InputError("dual: grey_values must be 2 or more, or 0 for continuous data, got 1")
        self.bin_width = 2 / (c.grey_values - 1) if c.grey_values else None
        options: dict[str, Any] = dict(ends=c.ends, bin_width=self.bin_width, flatness=c.flatness, least_std=c.least_std)
        self.tilt = Tilt(c.shape, full=c.reference == "full", **options)
        self.net = self._build_network()
        self.level_log_z: Tensor
        self.register_buffer("level_log_z", torch.zeros((c.classes if c.conditional else 0) + 1, INTERVALS + 1))

    def _build_network(self) -> nn.Module:
        """(inputs, log σ[, label]) -> (map, number [B, 1]), zero at first; one of vectors also takes the noise's `share` of u."""
        c, classes = self.config, self.config.classes if self.config.conditional else 0
        if c.net.kind == "mlp":
            dim = math.prod(c.shape)
            net = c.net.build((dim * (self.tilt.inputs + 2 * c.waves),), out=dim * self.tilt.maps + 1, levels=True, classes=classes)
            return FadingWaves(see_log_sigma(start_at_zero(net), c.sigma_min, c.sigma_max), c.waves)
        channels, height, width = c.shape
        net = c.net.build((channels * self.tilt.inputs, height, width), out=1, channels=channels * self.tilt.maps, classes=classes)
        return net if c.net.kind == "own" else see_log_sigma(start_at_zero(net), c.sigma_min, c.sigma_max)

    @property
    def default_guidance(self) -> float:
        return self.config.guidance

    @property
    def abilities(self) -> frozenset[str]:
        c = self.config
        found = {"sample", "energy", "normalised", "levels", "level_energies", "constraint", "evidence", "start", "invert"}
        if not c.conditional:
            return frozenset(found | {"denoise"})
        return frozenset(found | {"labels", "classify"} | ({"denoise", "concepts"} if c.label_dropping else set()))

    # --- the density

    def energy(self, x: Tensor, *, sigma: Tensor | float | None = None, label: Tensor | int | None = None) -> Tensor:
        """U(x, σ) = −log p_σ(x) in nats, normalised, of x with noise of standard deviation σ, by default the lowest: [B, ...] -> [B].

        `sigma`: one level or [B]; `label`: of p_σ(x | label), one or [B], −1 for none. Of images with `grey_values` it is the density of
        dequantised ones. Raises InputError for levels outside sigma_min … sigma_max, and for labels of a model without.
        """
        c = self.config
        if isinstance(sigma, float | int):
            self._check_level(float(sigma))
        return self._normalised(x, c.sigma_min if sigma is None else sigma, self._labels(label, len(x)))

    def _normalised(self, x: Tensor, sigma: Tensor | float, label: Tensor | None) -> Tensor:
        """`energy` of what was checked: a chain on another device must not wait for labels to be looked at."""
        log_sigma = torch.as_tensor(sigma, device=x.device, dtype=x.dtype).log().expand(len(x))
        return self.tilted(x, log_sigma, label) + self._log_z_at(log_sigma, label)

    def tilted(self, y: Tensor, log_sigma: Tensor, label: Tensor | None = None) -> Tensor:
        """U(y, σ), the Gaussian's energy with the network's read-outs: [B, ...], [B] -> [B], nats; see `nn.tilt`."""
        at = self.tilt(y, log_sigma)
        share = {"share": at.share} if self.config.net.kind == "mlp" else {}
        out = self.net(at.inputs, log_sigma, label, **share) if label is not None else self.net(at.inputs, log_sigma, **share)
        return at.tilted(*out)

    def _log_z_at(self, log_sigma: Tensor, label: Tensor | None) -> Tensor:
        """What `conclude` found to be log Z of `tilted`, [B], between its levels by a line; of each label, the last row for none."""
        c = self.config
        low, high = math.log(c.sigma_min), math.log(c.sigma_max)
        place = ((log_sigma - low) / (high - low)).clamp(0, 1) * (self.level_log_z.shape[1] - 1)
        below = place.detach().long().clamp(max=self.level_log_z.shape[1] - 2)
        row = -1 if label is None else label
        first, second = self.level_log_z[row, below], self.level_log_z[row, below + 1]
        return first + (place - below) * (second - first)

    @property
    def sigma_range(self) -> tuple[float, float]:
        """The lowest and the highest noise level."""
        return self.config.sigma_min, self.config.sigma_max

    @property
    def base(self) -> Base:
        """N(μ, C + σ²) at the highest level, where chains and flows begin."""
        return self.tilt.base(self.config.sigma_max)

    @property
    def gaussian(self) -> Base:
        """N(μ, C), the Gaussian with the data's mean and covariance that is tilted."""
        return self.tilt.base(0.0)

    # --- training

    def prepare(self, x: Tensor) -> None:
        """Fit the Gaussian that is tilted to training examples x [N, ...], once: later calls change nothing."""
        self.tilt.fit(self.dequantise(x, random.uniform(*x.shape, generator=random.seeded(0, 3)).to(x.device)))

    @torch.no_grad()
    def conclude(self, batch: Batch, note: Callable[[float], None] = lambda share: None) -> None:
        """Find log Z of the energies as they are by training examples, level by level, and take it off; see `normalising`."""
        c = self.config
        x = self.dequantise(batch.x, random.uniform(*batch.x.shape, generator=random.seeded(0, 5)).to(batch.x.device))
        low, high = math.log(c.sigma_min), math.log(c.sigma_max)
        draws = max(64, c.calibration // len(self.level_log_z))
        size = min(4096, max(64, 2**21 // x[0].numel()), draws)
        found = []
        for row in range(len(self.level_log_z)):
            label = None if not c.conditional else torch.full((size,), row if row < c.classes else -1, device=x.device)
            own = x if label is None or row == c.classes else x[batch.label == row]
            if not len(own) or (c.conditional and row == c.classes and not c.label_dropping):
                found.append(torch.zeros(INTERVALS + 1))
                continue

            def correction(y: Tensor, log_sigma: Tensor, label: Tensor | None = label) -> Tensor:
                own_label = None if label is None else label[: len(y)]
                return self.tilted(y, log_sigma, own_label) - self.tilt(y, log_sigma).energy

            def part(share: float, row: int = row) -> None:
                note((row + share) / len(self.level_log_z))

            with frozen(self.net):
                known = self.tilt.expected_change(own, low, high, INTERVALS)
                top = self.base.sample(max(size, draws // 8), generator=random.seeded(0, 7))
                options: dict[str, Any] = dict(intervals=INTERVALS, draws=draws, batch=size, known=known, top=top, note=part)
                found.append(log_z_by_level(correction, own, low, high, generator=random.seeded(0, 6, row), **options)[0])
        self.level_log_z.copy_(torch.stack(found))

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        c = self.config
        return {"energy": torch.optim.Adam(self.net.parameters(), lr=c.lr, betas=(0.9, c.beta2), fused=True)}

    def step(self, batch: Batch, update: Update) -> None:
        c, g = self.config, update.generator
        x = augmented(batch.x, c.augmentation, g)
        if c.grey_values:
            x = self.dequantise(x, random.uniform(*x.shape, generator=g, device=x.device))
        label = some_left_out(batch.label, c.label_dropping, g) if c.conditional else None
        losses = compiled_losses(self.losses, self.name) if c.compile else self.losses
        score, time, value = losses(x, self.draw_levels(len(x), g), random.normal_like(x, g), label)
        loss = score.mean() + c.time_weight * time.mean()
        if c.level_weight and update.images >= c.level_start * c.images:
            few = x[: max(1, len(x) // LEVEL_SHARE)]
            level_loss = compiled_losses(self.level_loss, self.name) if c.compile else self.level_loss
            levels = level_loss(few, *self.draw_several(few, g), None if label is None else label[: len(few)])
            loss = loss + c.level_weight * levels.mean()
            update.log(level_loss=levels)
        update("energy", loss)
        update.log(score_matching=score, time_matching=time, energy_data=value)

    def losses(self, x: Tensor, log_sigma: Tensor, z: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Per row: ‖σ ∇U − z‖²/d, [½(1 − ‖z‖²/d) − ½ ∂U/∂log σ /d]², and U/d, at y = x + σ z: [B] each.

        The best U of the first has ∇U = −∇ log p_σ (Vincent 2011); of the second ∂U/∂log σ = E[d − ‖z‖² | y] = −∂ log p_σ/∂log σ.
        """
        d, sigma = x[0].numel(), rows(log_sigma.exp(), x)
        y = x + sigma * z
        value, slopes = self._slopes(y, log_sigma, label)
        score = (sigma * slopes[0] - z).flatten(1).square().mean(1)
        time = (0.5 * (1 - z.flatten(1).square().sum(1) / d) - 0.5 * slopes[1] / d).square()
        return score, time, value / d

    def _slopes(self, y: Tensor, log_sigma: Tensor, label: Tensor | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """U and its slopes by y and by log σ, from one backward pass: both are coordinates of one point."""

        def joined(point: Tensor) -> Tensor:
            return self.tilted(point[:, :-1].view_as(y), point[:, -1], label)

        point = torch.cat([y.flatten(1), log_sigma[:, None]], 1)
        value, score = value_and_score(joined, point, create_graph=torch.is_grad_enabled())
        return value, (-score[:, :-1].view_as(y), -score[:, -1])

    def level_loss(self, x: Tensor, log_sigma: Tensor, z: Tensor, label: Tensor | None = None) -> Tensor:
        """−log of the share that the right one of L levels has in p_σ(y), [B]: it sees the weights of far modes (DiffCLF).

        And it closes holes: where there are no data at a level, nothing else keeps the energy there from being low. For each x,
        y_j = x + σ_j z_j at L distinct levels, log σ [B, L] and z [B, L, ...]; −mean_j log [p_σj(y_j)/Σ_i p_σi(y_j)]
        (arXiv:2601.21025), without constants to learn, as the densities are normalised.
        """
        n, levels = log_sigma.shape
        y = (x[:, None] + rows(log_sigma.exp().flatten(), x).view(n, levels, *[1] * (x.dim() - 1)) * z).flatten(0, 1)
        all_y = y.repeat_interleave(levels, 0)  # each y_j at each level i
        all_levels = log_sigma.repeat_interleave(levels, 0).flatten()
        of_each = None if label is None else label.repeat_interleave(levels * levels, 0)
        log_p = -self.tilted(all_y, all_levels, of_each).view(n, levels, levels)
        return -log_p.log_softmax(2).diagonal(dim1=1, dim2=2).mean(1)

    def draw_several(self, x: Tensor, generator: random.Generator, levels: int = 4) -> tuple[Tensor, Tensor]:
        """What `level_loss` of x [B, ...] needs: log σ [B, L], one from each of L equal parts of the range, and noise [B, L, ...]."""
        low, high = math.log(self.config.sigma_min), math.log(self.config.sigma_max)
        place = torch.arange(levels, device=x.device) + random.uniform(len(x), levels, generator=generator, device=x.device)
        return low + (high - low) * place / levels, random.normal(len(x), levels, *x.shape[1:], generator=generator, device=x.device)

    def draw_levels(self, n: int, generator: random.Generator) -> Tensor:
        """log σ [n], one from each of n equal parts of their distribution: uniform but for the share `focus` about `focus_sigma`."""
        c, low, high = self.config, math.log(self.config.sigma_min), math.log(self.config.sigma_max)
        device = self.device
        share = n // (len(generator) if isinstance(generator, tuple) else 1)
        part = torch.arange(n, device=device) % share
        place = (part + random.uniform(n, generator=generator, device=device)) / share
        level = low + (high - low) * ((place - c.focus) / max(1e-6, 1 - c.focus)).clamp(0, 1)
        if c.focus:
            centre = math.log(c.focus_sigma) + c.focus_spread * torch.special.ndtri((place / c.focus).clamp(1e-4, 1 - 1e-4))
            level = torch.where(place < c.focus, centre.clamp(low, high), level)
        return level

    def dequantise(self, x: Tensor, noise: Tensor) -> Tensor:
        """Images spread over the bins of their grey values, by noise in [0, 1): [B, ...] -> the same; others as they are."""
        return x if self.bin_width is None else x + self.bin_width * (noise - 0.5)

    def criterion(self, held_out: Batch, generator: random.Generator) -> float:
        """The training loss on held-out data under fixed noise."""
        c, x = self.config, held_out.x
        x = self.dequantise(x, random.uniform(*x.shape, generator=generator, device=x.device))
        with torch.no_grad():
            label = held_out.label if c.conditional else None
            score, time, _ = self.losses(x, self.draw_levels(len(x), generator), random.normal_like(x, generator), label)
        return float(score.mean() + c.time_weight * time.mean())

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
        sampler: Literal["diffusion", "flow", "langevin", "mala"] = "diffusion",
        eta: float = 1.0,
        corrections: int = 0,
        constraint: Constraint | None = None,
        resample: int = 1,
        start: Tensor | None = None,
        energy: Energy | None = None,
        evidence: Callable[[Energy], Energy] | None = None,
        trace: Trace | None = None,
    ) -> Tensor:
        """`n` samples down `steps` noise levels: [n, ...], images in [−1, 1].

        `sampler`: "diffusion", one evaluation a level (`diffusion.down`; `eta` 0 has no noise); "flow", the probability flow by Heun's
        method, two a level; "langevin" and "mala", chains at each level alone. With `corrections`, so many steps of MALA at each level,
        of chains the steps themselves (10). A `label` with `guidance` w samples p(x | label)^w p(x)^(1−w) level by level. `energy`
        (y, sigma=σ) -> [B] stands in for the model's, for products, mixtures and negations; `evidence` makes of it that of the density
        given a measurement (`tasks.posterior`). `constraint` puts what was measured back; under it corrections are chains of what is free.
        `start` [n, ...] is the noise that y begins with.
        """
        c, device = self.config, self.device
        check_start(self, start, n)
        chains = sampler in ("langevin", "mala")
        if sampler not in ("diffusion", "flow", "langevin", "mala"):
            raise InputError(f"dual: sampler must be diffusion, flow, langevin or mala, got '{sampler}'")
        if sampler == "flow" and (constraint is not None or corrections):
            raise InputError("dual: the flow keeps no constraint and has no corrections; use the sampler diffusion")
        generator = random.seeded(seed, 2, device=device)
        z = random.normal(n, *c.shape, generator=generator, device=device) if start is None else start.to(device)
        y = self.base.of_noise(z)
        levels = diffusion.sigmas(c.sample_steps if steps is None else steps, c.sigma_min, c.sigma_max)
        target = self._given(label, n, guidance) if energy is None else energy
        target = target if evidence is None else evidence(target)
        predict = diffusion.noise_of(target)
        clamp = (-1.0, 1.0) if len(c.shape) == 3 and not c.autoencoder else None
        with frozen(self.net):
            if sampler == "flow":
                y = diffusion.flow(predict, y, levels, clamp=clamp, trace=trace)
                return finished(y - levels[-1] * predict(y, levels[-1]))
            correct = None
            if chains or corrections:
                chain, count = (sampler, corrections or 10) if chains else ("mala", corrections)
                correct = diffusion.correction(
                    target, chain=chain, steps=count, constraint=constraint, generator=generator, trace=trace
                )  # fmt: skip
            options: dict[str, Any] = dict(constraint=constraint, resample=resample, generator=generator, trace=trace)
            y = diffusion.down(None if chains else predict, y, levels, eta=eta, clamp=clamp, correct=correct, **options)
            if chains:
                y = y - levels[-1] * predict(y, levels[-1])
        return finished(y)

    @torch.no_grad()
    def invert(self, x: Tensor, *, seed: int = 0, label: Tensor | int | None = None, steps: int | None = None) -> Tensor:
        """The start from which `sample(start=…, sampler="flow")` arrives nearly at x: [n, ...] -> [n, ...], up the probability flow."""
        c = self.config
        levels = diffusion.sigmas(c.sample_steps if steps is None else steps, c.sigma_min, c.sigma_max)[::-1]
        with frozen(self.net):
            y = diffusion.flow(diffusion.noise_of(self._given(label, len(x), None)), x, levels)
        return self.base.noise_of(y)

    def flow_log_prob(self, x: Tensor, *, steps: int = 100, probes: int = 1, seed: int = 0) -> Tensor:
        """log p of x at the lowest level by the probability flow of this energy's gradients, nats: [B, ...] -> [B].

        A second way to the number that −energy(x) is; `steps` and `probes` as in `diffusion.log_likelihood`.
        """
        c = self.config
        levels = [c.sigma_min * (c.sigma_max / c.sigma_min) ** (i / steps) for i in range(steps + 1)]
        generator = random.seeded(seed, 4, device=x.device)
        with frozen(self.net):
            return diffusion.log_likelihood(self.energy, x, levels, self.base.log_prob, probes=probes, generator=generator)

    @torch.no_grad()
    def denoise(self, y: Tensor, std: float, *, seed: int = 0) -> Tensor:
        """The expectation of x given y = x + std·ε, [B, ...] -> [B, ...], by Tweedie's formula: y − std² ∇U(y, std).

        Exact for the model's density, without any sampling; `seed` is of no effect. A `std` below the lowest level counts as that one.
        Raises InputError for std ≤ 0 or above the highest level.
        """
        if not 0 < std <= self.config.sigma_max:
            raise InputError(f"dual: denoise needs std above 0 and up to {self.config.sigma_max:g}, got {std}")
        with frozen(self.net):
            return y - std * diffusion.noise_of(self.energy)(y, max(std, self.config.sigma_min))

    @torch.no_grad()
    def classify(self, x: Tensor, *, sigma: float | None = None) -> Tensor:
        """log p(label | x) with labels equally likely, from the energies given each: [B, ...] -> [B, classes]; one pass a class.

        `sigma`: the level at which they are compared, by default `class_sigma`.
        """
        count, sigma = self.config.classes, sigma or self.config.class_sigma or None
        log_p = [-self.energy(x, sigma=sigma, label=torch.full((len(x),), k, device=x.device)) for k in range(count)]
        return torch.stack(log_p, 1).log_softmax(1)

    @torch.no_grad()
    def slopes(self, x: Tensor, *, sigma: float) -> tuple[Tensor, Tensor, Tensor]:
        """(U, ∇U, ∂U/∂log σ) at x, from one pass: [B, ...] -> [B], [B, ...], [B], nats; U up to log Z of the level.

        The last is d less the number of directions in which the data extend beyond σ.
        """
        self._check_level(sigma)
        value, (by_x, by_level) = self._slopes(x, torch.full((len(x),), math.log(sigma), device=x.device), self._labels(None, len(x)))
        return value, by_x, by_level

    def _given(self, label: Tensor | int | None, n: int, guidance: float | None) -> Energy:
        """The energy (y, sigma=σ) guided towards `label`, where there is one."""
        concepts: Concepts = []
        labels = self._labels(label, n)
        if labels is not None:
            concepts = asked_for(labels, self.config.guidance if guidance is None else guidance)
            if not self.config.label_dropping and any(weight != 1 for _, weight in concepts):
                raise InputError("dual: this model has no p(x) without a label (label_dropping = 0), so that guidance must be 1")
        none = self._labels(None, n) if self.config.label_dropping else labels

        def energy(y: Tensor, *, sigma: float, label: Tensor | None = None) -> Tensor:
            return self._normalised(y, sigma, none if label is None else label)

        return given(energy, concepts)

    def _labels(self, label: Tensor | int | None, n: int) -> Tensor | None:
        c = self.config
        if not c.conditional:
            if label is not None:
                raise InputError("this dual model was trained without labels: it takes no label")
            return None
        if label is None and not c.label_dropping:
            raise InputError("this dual model has no density without a label (label_dropping = 0): give one")
        return torch.full((n,), -1, device=self.device) if label is None else checked_labels(label, n, c.classes, self.device)

    def _check_level(self, sigma: float) -> None:
        c = self.config
        if not c.sigma_min * (1 - 1e-6) <= sigma <= c.sigma_max * (1 + 1e-6):
            raise InputError(f"dual: energies are defined for sigma from {c.sigma_min:g} to {c.sigma_max:g}, got {sigma:g}")


def rows(value: Tensor, like: Tensor) -> Tensor:
    """[B] in as many axes as `like` [B, ...] has."""
    return value.view(-1, *[1] * (like.dim() - 1))
