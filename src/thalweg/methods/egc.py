"""EGC: one network that classifies in its forward pass and generates in its backward pass. docs/methods/egc.md

    f(x_t, t)[y]     joint log-density of a noised image and its label, times σ_t                            (eq. 13, 14)
    update("energy", ‖∇ₓ logsumexp_y f + ε‖² + γ · cross-entropy(softmax_y f, y))                           (Algorithm 1)
    p(y | x) = softmax_y f,   E(x, t) = −logsumexp_y f / σ_t,   E(x, y, t) = E(x, t) − log p(y | x)          (eq. 12, 15)

Guo et al., ICCV 2023. The gradient that is trained is σ_t × score, as the loss compares it with −ε; public energies divide by σ_t and are
in nats. Without labels y is latent (sec. 4.2, "Unsupervised EGC"): the same loss without the cross-entropy, over `latent_classes`.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from thalweg import noise, random, sample
from thalweg.augmentation import Augmentation, augmented
from thalweg.compiled import compiled_losses
from thalweg.config import STRICT, Common, Count, DataNeeds, Fraction, NotNegative, Positive, Whole
from thalweg.data.base import Batch
from thalweg.energy import value_and_score
from thalweg.errors import InputError
from thalweg.methods.base import Method, Update, check_start, class_labels
from thalweg.nn.build import GuidedUNet, Network, PatchNet
from thalweg.nn.layers import frozen
from thalweg.objective import classification

ROWS = 256  # of a batch of samples that pass the network at once


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Config(Common):
    """Settings of `egc`."""

    autoencoder: str = ""
    """run folder, exported folder or hub name of an autoencoder in whose latent space the model lives, see thalweg/latent.py"""
    supervised: bool = True
    """learn from labels; without, the data's labels are not looked at and classes counts as 0"""
    latent_classes: Count = 1
    """K, number of classes without labels over which the density is summed where there are no labels (unsupervised EGC)"""
    net: Network = PatchNet(width=64, blocks=4, patch=2)
    """the body of energy and classifier: a UNet in the paper, a feed-forward ResNet (convnet) in Table 5"""
    readout: Literal["inner", "logits", "map"] = "inner"
    """where the energy comes from, see `EGC.joint`: `inner` is ours, `logits` the paper's, `map` the released code's"""
    data_std: Positive = 0.85
    """root mean square of the data's entries: sets the Gaussian that the network starts from"""
    levels: Count = 1000
    """T, noise levels"""
    beta_start: Positive = 1e-4
    """β_1 of the linear schedule"""
    beta_stop: Positive = 0.02
    """β_T of the linear schedule"""
    passes: Literal["joint", "separate"] = "joint"
    """`joint` one pass serves both losses at the same x_t (Algorithm 1); `separate` the cross-entropy has its own noise and levels, and
    sees a share of the images clean (released code)"""
    clean_share: Fraction = 0.5
    """share of the images that the cross-entropy sees clean, of separate passes"""
    label_dropping: Fraction = 1.0
    """share of images whose label is kept from the score matching loss (Table 3, †; `EGC.losses`); 1 as in Algorithm 1"""
    label_input: bool = False
    """the other labels are an input of the network, as in the released code; without, they choose the logit whose score is matched"""
    cross_entropy_weight: NotNegative = 0.05
    """γ, weight of the cross-entropy"""
    cross_entropy_early: NotNegative | None = None
    """γ early in training, from which it rises to `cross_entropy_weight`; None for the same throughout"""
    cross_entropy_rise: tuple[Fraction, Fraction] = (0.5, 0.75)
    """shares of training between which γ rises, by a line"""
    label_smoothing: Fraction = 0.0
    """share of the label spread over all classes"""
    weigh_by_signal: bool = True
    """weigh each cross-entropy by ᾱ_t: a label says little about pure noise"""
    classifier_only: bool = False
    """train the classifier alone, on clean images, a baseline of ours; it has no density"""
    augmentation: Augmentation | None = None
    """random changes of training images, which samples then show too"""
    class_augmentation: Augmentation | None = None
    """further ones of what a cross-entropy with a pass of its own sees (released code; Table 3, ‡): samples do not show them"""
    class_augmentation_noised: bool = True
    """of noised images too, as the released code; without, what is learnt of them, and guides samples, is of images as samples are"""
    guidance: NotNegative = 2.0
    """default guidance scale w of class-conditional samples: 0 ignores the label, 1 is p(x | y)"""
    sample_steps: Count = 100
    """default number of sampling steps"""
    sample_spacing: Literal["even", "quadratic"] = "even"
    """default spacing of the levels that these steps stop at: evenly in t, or most of them at low noise"""
    eta: Fraction = 1.0
    """default η of samples: 1 DDPM's ancestral sampling, 0 the deterministic DDIM"""
    energy_level: Count = 1
    """level t that counts as clean for public energies; must be 1 or more, as σ_0 = 0"""
    compile: bool = False
    """compile the whole loss, with its second derivatives: a wait at the start, then faster steps"""
    weight_decay: NotNegative = 0.01
    """decay of AdamW"""
    warm_up: Whole = 50
    """updates over which learning rates rise"""
    ema: Fraction = 0.995
    """decay of the EMA twin"""

    @property
    def data_needs(self) -> DataNeeds:
        return DataNeeds(autoencoder=self.autoencoder)


class EGC(Method):
    """An energy-based classifier and generator; the settings are in `Config`."""

    name = "egc"
    Config = Config
    held = {"eta": 0.0}

    def __init__(self, config: Config) -> None:
        # whoever asks for the model's labels by its config finds that there are none
        super().__init__(config if config.supervised else replace(config, classes=0))
        self._check()
        c = self.config
        self.schedule = noise.linear_beta(c.levels, c.beta_start, c.beta_stop)
        # a network with a map has it also where the read-out leaves it alone
        channels = 0 if self._numbers_alone else self.class_count if c.readout == "map" else c.shape[0]
        self.net = c.net.build(c.shape, out=self.class_count, channels=channels, levels=True, classes=c.classes if c.label_input else 0)
        if c.readout == "map" and c.net.kind != "own":  # classes whose maps start equal stay equal: labels reach the logits, not the map
            nn.init.normal_(self.net.map.weight, std=0.02)

    @property
    def _numbers_alone(self) -> bool:
        """Whether the network has no map; one of one's own has none where none is read."""
        c = self.config
        return c.net.kind == "convnet" or (c.net.kind == "own" and c.readout == "logits")

    @property
    def class_count(self) -> int:
        """The number of classes that f has, with labels or latent."""
        return self.config.classes or self.config.latent_classes

    @property
    def abilities(self) -> frozenset[str]:
        c = self.config
        found = {"encode"} if self._encodes else set()
        if not c.classifier_only:
            found |= {"sample", "energy", "denoise", "constraint", "start", "invert"} | ({"level_energies"} if c.levels > 1 else set())
        return frozenset(found | ({"classify"} if c.classes else set()) | ({"labels"} if c.classes and not c.classifier_only else set()))

    @property
    def default_guidance(self) -> float:
        return self.config.guidance

    def _check(self) -> None:
        c = self.config
        if c.net.kind == "mlp" and c.readout == "map":
            raise InputError("egc: readout = 'map' needs images and a network with a map; use 'inner' or 'logits' for vectors")
        if c.net.kind == "convnet" and c.readout != "logits":
            raise InputError(f"egc: a network of kind 'convnet' has no map; it needs readout = 'logits', got '{c.readout}'")
        if (c.augmentation or c.class_augmentation) and (c.autoencoder or len(c.shape) != 3):
            raise InputError("egc: augmentation is for images [C, H, W], and vectors and latents are none; use none")
        if c.class_augmentation and c.passes == "joint" and not c.classifier_only:
            raise InputError("egc: class_augmentation needs passes = 'separate': with one pass samples would show it too")
        if c.classifier_only and not c.classes:
            raise InputError("egc: classifier_only = True needs labels")
        if c.label_input and c.classes and c.passes == "joint":
            raise InputError("egc: label_input needs passes = 'separate': the cross-entropy must not see the label it is to tell")
        if c.label_input and c.classes and not 0 < c.label_dropping < 1:
            given = f"got {c.label_dropping:g}: energies are those without a label"
            raise InputError(f"egc: label_input needs a label_dropping between 0 and 1, {given}")

    # --- the density

    def joint(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(logsumexp_y f(x, t)[y], log p(y | x, t)): [B, ...], [B] -> [B], [B, class_count].

        With readout "inner", f[y] = −½ a_t ‖x‖² − b_t ⟨x, m(x, t)⟩ + l(x, t)[y]: the network's map m enters by an inner product
        with x, so that the gradient has a direct path to every pixel, as in a denoiser. Where m = 0 and l is constant this is
        the exact energy of Gaussian data of `data_std` s: a_t = σ_t/v, v = ᾱ_t² s² + σ_t²; b_t = ᾱ_t s/√v is the spread of ε
        around that Gaussian's prediction. With "logits" (the paper) f[y] = −½ a_t ‖x‖² + l[y]. With "map" (the released code)
        the energy is a spatial sum of logsumexp over a map of class scores, and the logits are pooled apart from it.
        `label` [B], −1 for none, is what a network with `label_input` is shown: then f(·, t; label) is of p(x | label).
        """
        c = self.config
        signal, sigma = self.schedule.alpha(t, x), self.schedule.sigma(t, x)
        variance = signal.square() * c.data_std**2 + sigma.square()
        base = sigma / variance
        out = self.net(x / variance.sqrt(), t, label) if c.label_input else self.net(x / variance.sqrt(), t)
        fields, logits = (None, out) if self._numbers_alone else out
        # sums over pixels lose bits in bf16: from here on in fp32
        logits = logits.float()
        value = -0.5 * (base * x.square()).flatten(1).sum(1)
        if c.readout == "inner":
            value = value - (signal * c.data_std / variance.sqrt() * x * fields.float()).flatten(1).sum(1)
        if c.readout == "map":
            return value + fields.float().logsumexp(1).flatten(1).sum(1), logits.log_softmax(1)
        return value + logits.logsumexp(1), logits.log_softmax(1)

    def energy(self, x: Tensor, *, t: Tensor | int | None = None, sigma: float | None = None, label: Tensor | int | None = None) -> Tensor:
        """E(x, t) = −logsumexp f/σ_t in nats, or the joint E(x, y, t) where a `label` is given: [B, ...] -> [B].

        `t`: the noise level of x = ᾱ_t x₀ + σ_t ε, 1 … T, by default the lowest. With `sigma` instead x is x₀ + σ ε, and its energy
        E(ᾱ_t x, t) of the nearest level. The loss sees gradients alone, so that each level has an unknown constant. Without labels `label`
        is one of the latent classes. Raises InputError for other levels and labels, and for a plain classifier, which has no density.
        """
        self._needs_density("energy")
        if sigma is not None:
            if t is not None:
                raise InputError("egc: the energy takes a noise level as t or as sigma, not both")
            t = self._level_at(sigma)
            x = self.schedule.signal[t] * x
        if isinstance(t, int) and not 1 <= t <= self.config.levels:
            raise InputError(f"egc: the energy is defined at noise levels 1 to {self.config.levels}, got t = {t}")
        t = self.levels_of(x, t)
        value, log_p = self.joint(x, t)
        energy = -value / self.schedule.sigma(t, value)
        return energy if label is None else energy - log_p.gather(1, self._labels(label, len(x), x.device)[:, None])[:, 0]

    def classify(self, x: Tensor, *, t: Tensor | int = 0) -> Tensor:
        """log p(y | x), [B, classes], of latent classes where there are no labels; `t` = 0 for clean images."""
        if self.class_count == 1 and not self.config.classes:
            raise InputError("this egc model was trained without labels and does not classify")
        return self.joint(x, self.levels_of(x, t))[1]

    @torch.no_grad()
    def slopes(self, x: Tensor, *, sigma: float) -> tuple[Tensor, Tensor, Tensor]:
        """(E, ∇E, ∂E/∂log σ) of energy(x, sigma=σ): [B, ...] -> [B], [B, ...], [B], nats; each E up to a constant of its level.

        The last is a difference between levels, those at σ e^±¼ or the next: t takes whole numbers alone.
        """
        t, last = self._level_at(sigma), self.config.levels
        low = max(1, min(t - 1, self.schedule.nearest(sigma * math.exp(-0.25))))
        high = min(last, max(t + 1, self.schedule.nearest(sigma * math.exp(0.25))))
        with frozen(self.net):
            value, score = value_and_score(self.energy, x, sigma=sigma)
            below, above = (self.energy(self.schedule.signal[level] * x, t=level) for level in (low, high))
        return value, -score, (above - below) / math.log(self.schedule.ratio(high) / self.schedule.ratio(low))

    @property
    def sigma_range(self) -> tuple[float, float]:
        """The lowest and the highest σ_t/ᾱ_t."""
        return self.schedule.ratio(1), self.schedule.ratio(self.config.levels)

    def _level_at(self, sigma: float) -> int:
        """The level whose σ_t/ᾱ_t is nearest to σ; InputError beyond all of them."""
        low, high = self.sigma_range
        if not low * (1 - 1e-6) <= sigma <= high * (1 + 1e-6):
            raise InputError(f"egc: energies are defined for sigma from {low:g} to {high:g}, got {sigma:g}")
        return self.schedule.nearest(sigma)

    def levels_of(self, x: Tensor, t: Tensor | int | None) -> Tensor:
        """Levels [B] from one level, a tensor of them, or None for the level that counts as clean."""
        return torch.as_tensor(self.config.energy_level if t is None else t, device=x.device).expand(len(x))

    # --- training

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        c = self.config
        return {"energy": torch.optim.AdamW(self.net.parameters(), lr=c.lr, weight_decay=c.weight_decay, fused=True)}

    def step(self, batch: Batch, update: Update) -> None:
        """Algorithm 1, or of a plain classifier `_classifier_step`."""
        c, g = self.config, update.generator
        if c.classifier_only:
            return self._classifier_step(batch, update)
        x0, label = augmented(batch.x, c.augmentation, g), batch.label if c.classes else None
        t = self.schedule.sample_level(len(x0), generator=g, device=x0.device)
        epsilon = random.normal_like(x0, g)
        kept, own = (None, None) if label is None else (self._kept(x0, g), self._own_pass(x0, g))
        losses = compiled_losses(self.losses, self.name) if c.compile else self.losses
        matching, cross_entropy, correct = losses(x0, label, t, epsilon, kept, own)
        loss = matching.mean()
        if label is not None:
            loss = loss + self.weight_at(update.images) * cross_entropy.mean()
            update.log(cross_entropy=cross_entropy, accuracy=correct)
        update("energy", loss)
        update.log(score_matching=matching)

    def weight_at(self, images: int) -> float:
        """γ after so many images of training."""
        c, (start, stop) = self.config, self.config.cross_entropy_rise
        early = c.cross_entropy_weight if c.cross_entropy_early is None else c.cross_entropy_early
        risen = min(1.0, max(0.0, (images / c.images - start) / max(stop - start, 1e-9)))
        return early + risen * (c.cross_entropy_weight - early)

    def losses(
        self,
        x0: Tensor,
        label: Tensor | None,
        t: Tensor,
        epsilon: Tensor,
        kept: Tensor | None = None,
        own: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Per row: the score matching loss per dimension, the (weighted) cross-entropy, and whether the class was right; [B] each.

        The first is ‖∇ₓ logsumexp f + ε‖² (eq. 11, 14), whose best gradient is σ_t ∇ log q(x_t). Where `kept` [B] is true the label y is
        not dropped, and it is the conditional score (eq. 16), σ_t ∇ log q(x_t | y), that is matched, for which ε given y is the target:
        ‖∇ₓ[logsumexp f + σ_t log p(y | x_t)] + ε‖². As log p(x_t, y) = log p(x_t) + log p(y | x_t) (eq. 15) the two and the
        cross-entropy have one optimum, and guided samples follow at w = 1 a score that was trained. With `label_input` the network is
        shown y (or "no label") instead, and ‖∇ₓ logsumexp f(·; y) + ε‖² trains a conditional model and the marginal one.
        The cross-entropy is at the same x_t, or at `own`, (x, levels).
        """
        c = self.config
        shown = torch.where(kept, label, -1) if c.label_input and kept is not None else None

        def negative_joint(x: Tensor) -> tuple[Tensor, Tensor]:
            value, log_p = self.joint(x, t, shown)
            if kept is not None and not c.label_input:
                value = value + self._of_label(log_p, label, t, kept)
            return -value, log_p

        x_t = self.schedule.diffuse(x0, t, epsilon)
        _, scaled_score, log_p = value_and_score(negative_joint, x_t, create_graph=torch.is_grad_enabled(), aux=True)
        matching = (scaled_score + epsilon).flatten(1).square().mean(1)
        if label is None:
            return matching, torch.zeros_like(matching), torch.zeros_like(matching)
        level = t
        if own is not None:
            x, level = own
            log_p = self.joint(x, level)[1]
        cross_entropy, correct = classification(log_p, label, smoothing=c.label_smoothing)
        if c.weigh_by_signal:
            cross_entropy = cross_entropy * self.schedule.alpha(level, cross_entropy)
        return matching, cross_entropy, correct

    def _of_label(self, log_p: Tensor, label: Tensor, t: Tensor, weight: Tensor | float) -> Tensor:
        """w σ_t log p(y | x_t), [B]: with w = 1 what log p(x_t, y) has more than log p(x_t), times σ_t (eq. 15)."""
        of_label = log_p.gather(1, label[:, None])[:, 0]
        return weight * self.schedule.sigma(t, of_label) * of_label

    def _kept(self, x0: Tensor, generator: random.Generator) -> Tensor | None:
        """Which labels the score matching loss sees, [B]; None where it sees none."""
        share = 1 - self.config.label_dropping
        return random.uniform(len(x0), generator=generator, device=x0.device) < share if share else None

    def _own_pass(self, x0: Tensor, generator: random.Generator) -> tuple[Tensor, Tensor] | None:
        """Images and levels of a cross-entropy with a pass of its own: `clean_share` of them clean, the others noised anew."""
        c = self.config
        if c.passes == "joint":
            return None
        plain, x0 = x0, augmented(x0, c.class_augmentation, generator)
        t = self.schedule.sample_level(len(x0), generator=generator, device=x0.device)
        clean = random.uniform(len(x0), generator=generator, device=x0.device) < c.clean_share
        if not c.class_augmentation_noised:
            x0 = torch.where(clean.view(-1, *[1] * (x0.dim() - 1)), x0, plain)
        t = t.masked_fill(clean, 0)
        return self.schedule.diffuse(x0, t, random.normal_like(x0, generator)), t

    def criterion(self, held_out: Batch, generator: random.Generator) -> float:
        """The training loss on held-out data under fixed noise; of a cross-entropy with a pass of its own, at clean images."""
        c, x0 = self.config, held_out.x
        with torch.no_grad():
            if c.classifier_only:
                return c.cross_entropy_weight * float(self.classifier_losses(x0, held_out.label)[0].mean())
            t = self.schedule.sample_level(len(x0), generator=generator, device=x0.device)
            own = (x0, torch.zeros_like(t)) if c.passes == "separate" else None
            label = held_out.label if c.classes else None
            matching, cross_entropy, _ = self.losses(x0, label, t, random.normal_like(x0, generator), own=own)
        return float(matching.mean() + c.cross_entropy_weight * cross_entropy.mean())

    # --- the classifier alone, on clean images: a baseline of ours, with the body and settings of the whole

    def classifier_losses(self, x0: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Per row: the cross-entropy at clean images, and whether the class was right; [B] each."""
        return classification(self.classify(x0), label, smoothing=self.config.label_smoothing)

    def _classifier_step(self, batch: Batch, update: Update) -> None:
        c, g = self.config, update.generator
        x = augmented(augmented(batch.x, c.augmentation, g), c.class_augmentation, g)
        losses = compiled_losses(self.classifier_losses, self.name) if c.compile else self.classifier_losses
        cross_entropy, correct = losses(x, batch.label)
        update("energy", c.cross_entropy_weight * cross_entropy.mean())
        update.log(cross_entropy=cross_entropy, accuracy=correct)

    def _needs_density(self, what: str) -> None:
        if self.config.classifier_only:
            raise InputError(f"this egc model is a plain classifier (classifier_only = True) and has no density: there is no {what}")

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
        eta: float | None = None,
        spacing: Literal["even", "quadratic"] | None = None,
        batch: int = ROWS,
        constraint: sample.Constraint | None = None,
        resample: int = 1,
        start: Tensor | None = None,
        trace: sample.Trace | None = None,
    ) -> Tensor:
        """`n` samples down the noise levels: DDPM for `eta` 1, DDIM for 0, in `steps` steps. [n, ...], images in [−1, 1].

        `spacing` of the steps: `noise.Schedule.steps`. The network sees `batch` rows at once, which bounds the memory and changes no draw.
        With a `label` (one, or [n]) the score is that of p(x | y)·p(y | x)^(w−1), w = `guidance`: ε̂ = −∇[lse f + w σ_t log p(y|x)],
        one backward pass whatever w; with `label_input` ε̂ = −∇[lse f(·; y) + (w−1) σ_t log p(y|x)]. Without a label the model's own
        marginal. For images each x̂₀ on the way is clamped to [−1, 1] and ε̂ made anew from it, so that no w can drive a sample away:
        it saturates. Latents and vectors are not clamped. `constraint` puts what was measured back at each level, with each step
        made `resample` times (`sample.ancestral`); `start` gives x_T [n, ...] itself.
        """
        c, device = self.config, self.device
        self._needs_density("sample")
        check_start(self, start, n)
        if batch < 1:
            raise InputError(f"egc: batch must be 1 or more, got {batch}")
        generator = random.seeded(seed, 2, device=device)
        predict_noise = self._predict_noise(n, label, guidance, device, batch)
        clamp = (-1.0, 1.0) if len(c.shape) == 3 and not c.autoencoder else None
        x = random.normal(n, *c.shape, generator=generator, device=device) if start is None else start.to(device)
        with frozen(self.net):
            return sample.ancestral(
                predict_noise, x, self.schedule, steps=min(c.sample_steps, c.levels) if steps is None else steps,
                eta=c.eta if eta is None else eta, spacing=c.sample_spacing if spacing is None else spacing, clamp=clamp,
                constraint=constraint, resample=resample, generator=generator, trace=trace,
            )  # fmt: skip

    def _predict_noise(
        self, n: int, label: Tensor | int | None, guidance: float | None, device: torch.device, batch: int = ROWS
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """(x_t, t) -> ε̂, guided towards `label` where there is one, `batch` rows at a time; see `sample`."""
        c = self.config
        labels = None if label is None else self._labels(label, n, device)
        scale = c.guidance if guidance is None else guidance
        # what p(x | y) lacks to p(x | y) p(y | x)^(w−1): from the marginal it is one more log p(y | x)
        weight = scale - 1.0 if c.label_input else scale

        def of_rows(x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
            shown = label if c.label_input else None

            def guided(x: Tensor) -> Tensor:
                value, log_p = self.joint(x, t, shown)
                if label is not None and weight:
                    log_p = log_p if shown is None else self.joint(x, t)[1]
                    value = value + self._of_label(log_p, label, t, weight)
                return -value

            return -value_and_score(guided, x)[1]

        def predict_noise(x: Tensor, t: Tensor) -> Tensor:
            parts = [slice(i, i + batch) for i in range(0, len(x), batch)]
            return torch.cat([of_rows(x[part], t[part], None if labels is None else labels[part]) for part in parts])

        return predict_noise

    @torch.no_grad()
    def invert(
        self,
        x: Tensor,
        *,
        seed: int = 0,
        label: Tensor | int | None = None,
        guidance: float | None = None,
        steps: int | None = None,
        spacing: Literal["even", "quadratic"] | None = None,
        iterations: int = 4,
    ) -> Tensor:
        """The noise x_T from which DDIM arrives at x: `sample(start=x_T, eta=0)` with the same options. [n, ...] -> [n, ...].

        By `steps` steps up, by default 200 or all, of `iterations` each (`sample.ascend`). What samples lose to the clamp of x̂₀ does not
        come back, and in few steps some images may not either; in 200 all of 100 digits did (`egc_figures.json`). Nothing is drawn: `seed`
        is of no effect. Raises InputError for another shape or count.
        """
        c = self.config
        self._needs_density("invert")
        steps = min(200, c.levels) if steps is None else steps
        if not 1 <= steps <= c.levels or iterations < 1:
            raise InputError(f"egc: invert needs 1 to {c.levels} steps and 1 iteration or more, got {steps} and {iterations}")
        predict_noise = self._predict_noise(len(x), label, guidance, x.device)
        levels = self.schedule.steps(steps, c.sample_spacing if spacing is None else spacing)
        with frozen(self.net):
            return sample.ascend(predict_noise, x, self.schedule, levels, iterations=iterations)

    @torch.no_grad()
    def denoise(self, y: Tensor, std: float, *, seed: int = 0) -> Tensor:
        """The expectation of x given y = x + std·ε, [B, ...] -> [B, ...], by Tweedie's formula at the level whose σ_t/ᾱ_t is std.

        Exact for the model's density, without any sampling; `seed` is of no effect. Raises InputError for std ≤ 0.
        """
        self._needs_density("denoise")
        if not std > 0:
            raise InputError(f"egc: denoise needs std above 0, got {std}")
        t = self.levels_of(y, self.schedule.nearest(std))
        signal, sigma = self.schedule.alpha(t, y), self.schedule.sigma(t, y)
        with frozen(self.net):
            scaled = value_and_score(lambda x: -self.joint(x, t)[0], signal * y)[1]  # σ_t × score
        return y + sigma / signal * scaled

    @torch.no_grad()
    def encode(self, x: Tensor, *, t: Tensor | int = 0) -> Tensor:
        """A vector that describes each image, [B, C, H, W] -> [B, D]: the hidden units that the class scores are linear in."""
        seen: list[Tensor] = []
        if not self._encodes:
            raise InputError(f"egc: class scores of this network ({self.config.net.kind}) are linear in nothing: it encodes nothing")
        with self._score_layer().register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0])):
            self.joint(x, self.levels_of(x, t))
        return seen[0].flatten(1)

    @property
    def _encodes(self) -> bool:
        net = self.config.net
        return net.kind != "own" and not (isinstance(net, GuidedUNet) and net.pool == "map")

    def _score_layer(self) -> nn.Linear:
        """The layer of the network that puts out the logits."""
        kind = self.config.net.kind
        if kind in ("mlp", "convnet"):
            return (self.net.net if kind == "mlp" else self.net).last
        return self.net.vector[-1] if kind in ("unet", "guided_unet") else self.net.vector

    def _labels(self, label: Tensor | int, n: int, device: torch.device) -> Tensor:
        if self.class_count == 1 and not self.config.classes:
            raise InputError("this egc model was trained without labels: it takes no label")
        return class_labels(label, n, self.class_count, device)
