"""EGC: one network that classifies in its forward pass and generates in its backward pass (Guo et al., ICCV 2023).

    f(x_t, t)[y]     joint log-density of a noised image and its label, scaled by σ_t
    loss = ‖∇ₓ logsumexp_y f + ε‖² + γ · cross-entropy(softmax f, y)                               (Algorithm 1)
    p(y | x) = softmax f,   E(x, t) = −logsumexp_y f / σ_t,   E(x, y, t) = E(x, t) − log p(y | x)

The trained gradient is σ_t × score, as the loss compares it with −ε; public energies divide by σ_t and are in nats.
Without labels y is latent (sec. 4.2, "Unsupervised EGC"): the same loss without the cross-entropy, over `latent_classes`.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from thalweg import noise, random, sample
from thalweg.compiled import compiled_or_eager
from thalweg.data.base import Batch
from thalweg.energy import value_and_score
from thalweg.errors import InputError
from thalweg.methods.base import STRICT, Count, Fraction, Method, NotNegative, Positive, Whole, class_labels, warm_up_cosine
from thalweg.nn.convnet import ConvEnergy
from thalweg.nn.layers import frozen
from thalweg.nn.patchnet import PatchNet, VectorNet
from thalweg.nn.unet import UNet


@dataclass(frozen=True, config=STRICT)
class Config:
    """Settings of `egc`."""

    data: str = "digits"
    """name of the data that the preset is for"""
    shape: tuple[Count, ...] = (1, 8, 8)
    """shape of one example, [D] or [C, H, W]; of latents where there is an autoencoder"""
    autoencoder: str = ""
    """run folder, exported folder or hub name of an autoencoder in whose latent space the model lives, see thalweg/latent.py"""
    classes: Whole = 10
    """number of labels; 0 trains the energy alone"""
    supervised: bool = True
    """learn from labels; without, the data's labels are not looked at and classes counts as 0"""
    latent_classes: Count = 1
    """K, number of classes without labels over which the density is summed where there are no labels (unsupervised EGC)"""
    network: Literal["patch", "unet", "resnet", "mlp"] = "patch"
    """`patch` a fast residual network on patches, `unet` as in the paper, `resnet` feed-forward (Table 5), `mlp` for vectors"""
    width: Count = 64
    """channels (patch, unet, resnet) or hidden units (mlp)"""
    blocks: Count = 4
    """residual blocks (patch), blocks per resolution (unet, resnet), hidden layers (mlp)"""
    multipliers: tuple[Count, ...] = (1, 2, 2, 2)
    """channels of the unet and the resnet at each resolution, times width"""
    attention: Whole = 8
    """self-attention of the unet at resolutions up to this many pixels"""
    patch: Count = 2
    """side of the patches of the patch network"""
    dropout: Fraction = 0.0
    """dropout in the residual blocks"""
    readout: Literal["inner", "logits", "map"] = "inner"
    """where the energy comes from, see `EGC.joint`"""
    data_std: Positive = 0.85
    """root mean square of the data's entries about zero: sets the Gaussian that the network starts from"""
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
    matching: NotNegative = 1.0
    """weight of the score matching loss; 0 trains a plain classifier, on clean images alone"""
    labelled_share: Fraction = 0.0
    """share of images whose label the score matching loss sees, 1 − label dropping (Table 3, †; `EGC.losses`); 0 as in Algorithm 1"""
    label_input: bool = False
    """those labels are an input of the network, as in the released code; without, they choose the logit whose score is matched"""
    gamma: NotNegative = 0.05
    """γ, weight of the cross-entropy"""
    label_smoothing: Fraction = 0.0
    """share of the label spread over all classes"""
    weigh_by_signal: bool = True
    """weigh each cross-entropy by ᾱ_t: a label says little about pure noise"""
    augment: NotNegative = 0.0
    """random shifts, turns and scalings of images; 1 means ±0.2 radians, ±10 %, ±0.075 of the side"""
    guidance: NotNegative = 2.0
    """default guidance scale w of class-conditional samples"""
    sample_steps: Count = 100
    """default number of sampling steps"""
    eta: Fraction = 1.0
    """default η of samples: 1 DDPM's ancestral sampling, 0 the deterministic DDIM"""
    energy_level: Count = 1
    """level t that counts as clean for public energies; must be 1 or more, as σ_0 = 0"""
    compile: bool = False
    """compile the whole loss, with its second derivatives: a wait at the start, then faster steps"""
    batch: Count = 128
    """images per update"""
    images: Count = 250_000
    """length of training in images; the learning rate falls to zero over it"""
    lr: Positive = 1e-3
    """base learning rate of AdamW"""
    weight_decay: NotNegative = 0.01
    """decay of AdamW"""
    warm_up: Whole = 50
    """updates over which the learning rate rises"""
    decay: bool = True
    """cosine decay of the learning rate over `images`"""
    clip: NotNegative = 1.0
    """bound on the gradient's norm, 0 for none"""
    ema: Fraction = 0.995
    """decay of the EMA twin"""


class EGC(Method):
    """An energy-based classifier and generator; the settings are in `Config`."""

    name = "egc"
    Config = Config
    held = {"eta": 0.0}

    def __init__(self, config: Config) -> None:
        # whoever asks for the model's labels by its config finds that there are none
        super().__init__(config if config.supervised else replace(config, classes=0))
        c = self.config
        self._check()
        self.schedule = noise.linear_beta(c.levels, c.beta_start, c.beta_stop)
        try:
            self.net = self._make_network()
        except ValueError as error:
            raise InputError(f"egc: {error}") from None

    @property
    def kinds(self) -> int:
        """The number of classes that f has, with labels or latent."""
        return self.config.classes or self.config.latent_classes

    def _check(self) -> None:
        c = self.config
        images = len(c.shape) == 3
        if c.network == "mlp" and c.readout == "map":
            raise InputError("egc: readout = 'map' needs images and a network with a map; use 'inner' or 'logits' for vectors")
        if c.network != "mlp" and not images:
            raise InputError(f"egc: network = '{c.network}' needs images [C, H, W], got shape {c.shape}; use 'mlp'")
        if c.network == "resnet" and c.readout != "logits":
            raise InputError(f"egc: network = 'resnet' has no map; it needs readout = 'logits', got '{c.readout}'")
        if c.autoencoder and c.augment:
            raise InputError("egc: augment is for images, and latents are none; use augment = 0 with an autoencoder")
        if not c.matching and not c.classes:
            raise InputError("egc: matching = 0 trains the classifier alone and needs labels")
        if c.label_input and c.classes and c.passes == "joint":
            raise InputError("egc: label_input needs passes = 'separate': the cross-entropy must not see the label it is to tell")
        if c.label_input and c.classes and not 0 < c.labelled_share < 1:
            raise InputError(
                f"egc: label_input needs a labelled_share between 0 and 1, got {c.labelled_share:g}: energies are those without a label"
            )

    def _make_network(self) -> nn.Module:
        """A network (x, t[, label]) -> (map, logits [B, kinds]), or logits alone (resnet)."""
        c = self.config
        labels = {"classes": c.classes} if c.label_input else {}
        if c.network == "mlp":
            return VectorNet(math.prod(c.shape), out=1, vector=self.kinds, width=c.width, depth=c.blocks, **labels)
        if c.network == "resnet":
            widths = tuple(c.width * multiplier for multiplier in c.multipliers)
            return ConvEnergy(c.shape, widths=widths, blocks=c.blocks, out=self.kinds, levels=True, **labels)
        fields = {"out": self.kinds if c.readout == "map" else c.shape[0], "vector": self.kinds, "width": c.width, "dropout": c.dropout}
        if c.network == "unet":
            net: UNet | PatchNet = UNet(c.shape, blocks=c.blocks, multipliers=c.multipliers, attention=c.attention, **fields, **labels)
        else:
            net = PatchNet(c.shape, blocks=c.blocks, patch=c.patch, **fields, **labels)
        if c.readout == "map":  # classes whose maps start equal stay equal: labels reach the logits, not the map
            nn.init.normal_(net.map.weight, std=0.02)
        return net

    def _score_layer(self) -> nn.Linear:
        """The layer of the network that puts out the logits."""
        match self.config.network:
            case "mlp":
                return self.net.net.last
            case "resnet":
                return self.net.last
            case "unet":
                return self.net.vector[-1]
            case _:
                return self.net.vector

    # --- the density

    def joint(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(logsumexp_y f(x, t)[y], log p(y | x, t)): [B, ...], [B] -> [B], [B, kinds].

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
        fields, logits = (None, out) if c.network == "resnet" else out
        # sums over pixels lose bits in bf16: from here on in fp32
        logits = logits.float()
        value = -0.5 * (base * x.square()).flatten(1).sum(1)
        if c.readout == "inner":
            value = value - (signal * c.data_std / variance.sqrt() * x * fields.float()).flatten(1).sum(1)
        if c.readout == "map":
            return value + fields.float().logsumexp(1).flatten(1).sum(1), logits.log_softmax(1)
        return value + logits.logsumexp(1), logits.log_softmax(1)

    def energy(self, x: Tensor, *, t: Tensor | int | None = None, label: Tensor | int | None = None) -> Tensor:
        """E(x, t) = −logsumexp f/σ_t in nats, or the joint E(x, y, t) where a `label` is given: [B, ...] -> [B].

        `t` is the noise level of x, by default the lowest; levels are 1 … T. Without labels a `label` is one of the latent classes.
        Raises InputError for other levels and labels, and for a plain classifier (matching = 0), which has no density.
        """
        self._needs_density("energy")
        if isinstance(t, int) and not 1 <= t <= self.config.levels:
            raise InputError(f"egc: the energy is defined at noise levels 1 to {self.config.levels}, got t = {t}")
        t = self.levels_of(x, t)
        value, log_p = self.joint(x, t)
        energy = -value / self.schedule.sigma(t, value)
        return energy if label is None else energy - log_p.gather(1, self._labels(label, len(x), x.device)[:, None])[:, 0]

    def classify(self, x: Tensor, *, t: Tensor | int = 0) -> Tensor:
        """log p(y | x), [B, classes], of latent classes where there are no labels; `t` = 0 for clean images."""
        if self.kinds == 1 and not self.config.classes:
            raise InputError("this egc model was trained without labels and does not classify")
        return self.joint(x, self.levels_of(x, t))[1]

    @torch.no_grad()
    def encode(self, x: Tensor, *, t: Tensor | int = 0) -> Tensor:
        """A vector that describes each image, [B, C, H, W] -> [B, D]: the hidden units that the class scores are linear in."""
        seen: list[Tensor] = []
        hook = self._score_layer().register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        try:
            self.joint(x, self.levels_of(x, t))
        finally:
            hook.remove()
        return seen[0].flatten(1)

    @torch.no_grad()
    def denoise(self, y: Tensor, std: float, *, seed: int = 0) -> Tensor:
        """The expectation of x given y = x + std·ε, [B, ...] -> [B, ...], by Tweedie's formula at the level whose σ_t/ᾱ_t is std.

        Exact for the model's density, without any sampling; `seed` is of no effect. Raises InputError for std ≤ 0.
        """
        self._needs_density("denoise")
        if not std > 0:
            raise InputError(f"egc: denoise needs std above 0, got {std}")
        ratio = torch.tensor(self.schedule.noise[1:]) / torch.tensor(self.schedule.signal[1:])
        t = self.levels_of(y, int((ratio.log() - math.log(std)).abs().argmin()) + 1)
        signal, sigma = self.schedule.alpha(t, y), self.schedule.sigma(t, y)
        with frozen(self.net):
            scaled = value_and_score(lambda x: -self.joint(x, t)[0], signal * y)[1]  # σ_t × score
        return y + sigma / signal * scaled

    def levels_of(self, x: Tensor, t: Tensor | int | None) -> Tensor:
        """Levels [B] from one level, a tensor of them, or None for the level that counts as clean."""
        return torch.as_tensor(self.config.energy_level if t is None else t, device=x.device).expand(len(x))

    # --- training

    @property
    def abilities(self) -> frozenset[str]:
        c = self.config
        found = {"encode"} | ({"classify"} if c.classes else set())
        if c.matching:
            found |= {"sample", "energy", "denoise", "constraint", "start", "invert"} | ({"labels"} if c.classes else set())
        return frozenset(found)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        c = self.config
        return {"net": torch.optim.AdamW(self.net.parameters(), lr=c.lr, weight_decay=c.weight_decay, fused=True)}

    def learning_rate(self, name: str, images: int) -> float:
        """Linear warm-up, then (with `decay`) a cosine to zero at `images` of the config."""
        c = self.config
        return warm_up_cosine(images / c.batch, c.warm_up, images / c.images if c.decay else 0.0)

    def step(self, batch: Batch, update) -> None:
        c, g = self.config, update.generator
        x0 = self._augmented(batch.x, g)
        t = self.schedule.sample_level(len(x0), generator=g, device=x0.device)
        epsilon = random.normal_like(x0, g)
        label = batch.label if c.classes else None
        kept = None
        if label is not None and c.labelled_share:
            kept = random.uniform(len(x0), generator=g, device=x0.device) < c.labelled_share
        own = self._own_pass(x0, g) if label is not None and c.passes == "separate" and c.matching else None
        losses = _compiled_losses(self) if c.compile else self.losses
        matching, cross_entropy, correct = losses(x0, label, t, epsilon, kept, own)
        loss = c.matching * matching.mean()
        if label is not None:
            loss = loss + c.gamma * cross_entropy.mean()
            update.log(cross_entropy=cross_entropy, accuracy=correct)
        update("net", loss)
        if c.matching:
            update.log(score_matching=matching)

    def _own_pass(self, x0: Tensor, generator: random.Generator) -> tuple[Tensor, Tensor]:
        """Images and levels of a cross-entropy with a pass of its own: `clean_share` of them clean, the others noised anew."""
        t = self.schedule.sample_level(len(x0), generator=generator, device=x0.device)
        clean = random.uniform(len(x0), generator=generator, device=x0.device) < self.config.clean_share
        t = t.masked_fill(clean, 0)
        return self.schedule.diffuse(x0, t, random.normal_like(x0, generator)), t

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
        shown y (or "no label") instead, and ‖∇ₓ logsumexp f(·; y) + ε‖² trains a conditional model beside the marginal one.
        The cross-entropy is at the same x_t, or at `own`, (x, levels).
        """
        c = self.config
        matching = torch.zeros(len(x0), device=x0.device)
        if c.matching:
            x_t = self.schedule.diffuse(x0, t, epsilon)
            shown = torch.where(kept, label, -1) if c.label_input and kept is not None else None

            def negative_joint(x: Tensor) -> tuple[Tensor, Tensor]:
                value, log_p = self.joint(x, t, shown)
                if kept is not None and not c.label_input:
                    value = value + kept * self.schedule.sigma(t, value) * log_p.gather(1, label[:, None])[:, 0]
                return -value, log_p

            _, scaled_score, log_p = value_and_score(negative_joint, x_t, create_graph=torch.is_grad_enabled(), aux=True)
            matching = (scaled_score + epsilon).flatten(1).square().mean(1)
        if label is None:
            return matching, torch.zeros_like(matching), torch.zeros_like(matching)
        if own is None and not c.matching:
            own = x0, torch.zeros_like(t)
        if own is not None:
            x, t = own
            log_p = self.joint(x, t)[1]
        cross_entropy = F.cross_entropy(log_p, label, reduction="none", label_smoothing=c.label_smoothing)
        if c.weigh_by_signal:
            cross_entropy = cross_entropy * self.schedule.alpha(t, cross_entropy)
        return matching, cross_entropy, (log_p.argmax(1) == label).float()

    def _augmented(self, x: Tensor, generator: random.Generator) -> Tensor:
        """Images turned, scaled and shifted at random about their background, which is their most common darkest value −1."""
        strength = self.config.augment
        if not strength or x.dim() != 4:
            return x
        draw = strength * random.uniform(len(x), 4, low=-1.0, high=1.0, generator=generator, device=x.device)
        angle, scale, shift = 0.2 * draw[:, 0], 1 + 0.1 * draw[:, 1], 0.15 * draw[:, 2:]
        rows = [
            torch.stack([scale * angle.cos(), -scale * angle.sin(), shift[:, 0]], 1),
            torch.stack([scale * angle.sin(), scale * angle.cos(), shift[:, 1]], 1),
        ]
        grid = F.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
        return F.grid_sample(x + 1, grid, align_corners=False) - 1

    def criterion(self, held_out: Batch, generator: random.Generator) -> float:
        """The training loss on held-out data under fixed noise; of a cross-entropy with a pass of its own, at clean images."""
        c, x0 = self.config, held_out.x
        t = self.schedule.sample_level(len(x0), generator=generator, device=x0.device)
        own = (x0, torch.zeros_like(t)) if c.passes == "separate" else None
        with torch.no_grad():
            label = held_out.label if c.classes else None
            matching, cross_entropy, _ = self.losses(x0, label, t, random.normal_like(x0, generator), own=own)
        return float(c.matching * matching.mean() + c.gamma * cross_entropy.mean())

    # --- sampling

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
        constraint: sample.Constraint | None = None,
        resample: int = 1,
        start: Tensor | None = None,
        trace: sample.Trace | None = None,
    ) -> Tensor:
        """`n` samples down the noise levels: DDPM for `eta` 1, DDIM for 0, in `steps` steps. [n, ...], images in [−1, 1].

        With a `label` (one, or [n]) the score is that of p(x | y)·p(y | x)^(w−1), w = `guidance`: ε̂ = −∇[lse f + w σ_t log p(y|x)],
        one backward pass whatever w; with `label_input` ε̂ = −∇[lse f(·; y) + (w−1) σ_t log p(y|x)]. Without a label the model's own
        marginal. For images each x̂₀ on the way is clamped to [−1, 1] and ε̂ made anew from it, so that no w can drive a sample away:
        it saturates. Latents and vectors are not clamped. `constraint` puts what was measured back at each level, with each step
        made `resample` times (`sample.ancestral`); `start` gives x_T [n, ...] itself.
        """
        c = self.config
        self._needs_density("sample")
        device = next(self.parameters()).device
        if start is not None and tuple(start.shape) != (n, *c.shape):
            raise InputError(f"egc: start must have shape {(n, *c.shape)}, got {tuple(start.shape)}")
        generator = random.seeded(seed, 2, device=device)
        predict_noise = self._predict_noise(n, label, guidance, device)
        clamp = (-1.0, 1.0) if len(c.shape) == 3 and not c.autoencoder else None
        x = random.normal(n, *c.shape, generator=generator, device=device) if start is None else start.to(device)
        with frozen(self.net):
            return sample.ancestral(
                predict_noise,
                x,
                self.schedule,
                steps=min(c.sample_steps, c.levels) if steps is None else steps,
                eta=c.eta if eta is None else eta,
                clamp=clamp,
                constraint=constraint,
                resample=resample,
                generator=generator,
                trace=trace,
            )

    def _predict_noise(
        self, n: int, label: Tensor | int | None, guidance: float | None, device: torch.device
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """(x_t, t) -> ε̂, guided towards `label` where there is one; see `sample`."""
        c = self.config
        labels = None if label is None else self._labels(label, n, device)
        scale = c.guidance if guidance is None else guidance
        shown = labels if c.label_input else None
        # what p(x | y) lacks to p(x | y) p(y | x)^(w−1): from the marginal it is one more log p(y | x)
        weight = scale - 1.0 if c.label_input else scale

        def predict_noise(x: Tensor, t: Tensor) -> Tensor:
            def guided(x: Tensor) -> Tensor:
                value, log_p = self.joint(x, t, shown)
                if labels is not None and weight:
                    log_p = log_p if shown is None else self.joint(x, t)[1]
                    value = value + weight * self.schedule.sigma(t, value) * log_p.gather(1, labels[:, None])[:, 0]
                return -value

            return -value_and_score(guided, x)[1]

        return predict_noise

    @torch.no_grad()
    def invert(
        self, x: Tensor, *, label: Tensor | int | None = None, guidance: float | None = None, steps: int | None = None, iterations: int = 4
    ) -> Tensor:
        """The noise x_T from which DDIM arrives at x: `sample(start=x_T, eta=0)` with the same options. [n, ...] -> [n, ...].

        Each step up is the step down solved for where it began, x_t = ᾱ_t (x_s − σ_s ε̂)/ᾱ_s + σ_t ε̂ with ε̂ = ε̂(x_t, t), by
        `iterations` fixed-point iterations from x_s (one is the DDIM encoding of Song et al. 2021, sec. 5.4). What samples lose to the
        clamp of x̂₀ does not come back, and in few steps some images may not either; in 200 all of 100 digits did
        (`egc_figures.json`). Raises InputError for another shape or count.
        """
        c = self.config
        self._needs_density("invert")
        steps = min(c.sample_steps, c.levels) if steps is None else steps
        if tuple(x.shape[1:]) != tuple(c.shape) or not len(x):
            raise InputError(f"egc: invert needs x of shape [n, {', '.join(map(str, c.shape))}], got {list(x.shape)}")
        if not 1 <= steps <= c.levels or iterations < 1:
            raise InputError(f"egc: invert needs 1 to {c.levels} steps and 1 iteration or more, got {steps} and {iterations}")
        predict_noise = self._predict_noise(len(x), label, guidance, x.device)
        levels = [round(c.levels * i / steps) for i in range(steps + 1)]
        with frozen(self.net):
            for s, t in zip(levels, levels[1:]):
                below, level = x, torch.full((len(x),), t, device=x.device)
                for _ in range(iterations):
                    noise = predict_noise(x, level)
                    x0 = (below - self.schedule.sigma(s, x) * noise) / self.schedule.alpha(s, x)
                    x = self.schedule.diffuse(x0, t, noise)
        return x

    def _needs_density(self, what: str) -> None:
        if not self.config.matching:
            raise InputError(f"this egc model is a plain classifier (matching = 0) and has no density: there is no {what}")

    def _labels(self, label: Tensor | int, n: int, device: torch.device) -> Tensor:
        if self.kinds == 1 and not self.config.classes:
            raise InputError("this egc model was trained without labels: it takes no label")
        return class_labels(label, n, self.kinds, device)


@functools.lru_cache(maxsize=4)
def _compiled_losses(method: EGC) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """`method.losses`, compiled whole with its second derivatives; uncompiled, with a warning, where nothing can be compiled."""
    return compiled_or_eager(method.losses, "the loss of egc runs")


_TOY = dict(
    shape=(2,), network="mlp", width=128, blocks=3, data_std=1.4, batch=512, images=2_500_000, ema=0.999, sample_steps=200, guidance=1.0
)
_CLASSES = {"8gaussians": 8, "25gaussians": 25, "pinwheel": 5, "swissroll": 0, "spiral": 0, "rings": 4, "moons": 2, "checkerboard": 0}

# the released recipe for latents (its training and sampling scripts; sec. 4.1). Ours differs in the unet: pooling of the logits by
# learned queries, labels added to the level's embedding
_LATENT = dict(
    shape=(4, 32, 32), classes=1000, network="unet", width=384, blocks=2, multipliers=(1, 2, 4), attention=32, readout="map",
    data_std=1.0, beta_start=0.00085, beta_stop=0.012, gamma=0.005, label_smoothing=0.2, passes="separate", labelled_share=0.9,
    label_input=True, sample_steps=100, eta=0.0, batch=512, images=400_000_000, lr=1e-4, weight_decay=0.0, warm_up=0, decay=False,
    ema=0.9999,
)  # fmt: skip
_FASHION = dict(data="fashion-mnist", shape=(1, 28, 28), width=96, blocks=5, patch=4, data_std=0.86, batch=128, images=6_000_000, ema=0.999)

EGC.PRESETS = {
    # found by measurement; studies/results/quickstart.json
    # (no augmentation: resampling blurs 8×8 digits, and the samples with them)
    "digits": Config(images=200_000),
    # measured at a twentieth of the length, egc_classifiers_fashion-mnist.json
    "fashion-mnist": Config(passes="separate", **_FASHION),
    # y latent (sec. 4.2, Table 4): as many classes as there are labels, which are not looked at
    "digits-unsupervised": Config(images=200_000, classes=0, supervised=False, latent_classes=10),
    "fashion-mnist-unsupervised": Config(classes=0, supervised=False, latent_classes=10, **_FASHION),
    # in colour, with categories as labels; measured at a tenth of the length, egc_classifiers_emoji-google.json
    "emoji-google": Config(
        data="emoji-google", shape=(3, 32, 32), classes=9, passes="separate", width=96, blocks=6, patch=4, data_std=0.8,
        batch=128, images=2_000_000, ema=0.999,
    ),
    **{name: Config(data=name, classes=classes, **_TOY) for name, classes in _CLASSES.items()},
    # not run here. The autoencoder has the shape (8 times smaller, 4 channels) and scale (0.18215) of the paper's. The released scale
    # 6 of the classifier's gradient comes on top of the conditional score, which makes w = 7
    "imagenet256-latent": Config(
        data="hf:ILSVRC/imagenet-1k", autoencoder="diffusers:stabilityai/sd-vae-ft-ema", guidance=7.0, **_LATENT
    ),
    # CIFAR-10's settings were never published; these are guided diffusion's network with the recipe above; not run here
    "cifar10": Config(
        data="hf:uoft-cs/cifar10", shape=(3, 32, 32), network="unet", width=192, blocks=3, multipliers=(1, 2, 2), attention=16,
        readout="logits", data_std=0.5, gamma=0.005, label_smoothing=0.2, passes="separate", dropout=0.1, guidance=1.0, batch=128,
        images=100_000_000, lr=1e-4, weight_decay=0.0, decay=False, ema=0.9999, sample_steps=1000,
    ),
}  # fmt: skip
