"""EGC: one network that classifies in its forward pass and generates in its backward pass (Guo et al., ICCV 2023).

    f(x_t, t)[y]     joint log-density of a noised image and its label, scaled by σ_t
    loss = ‖∇ₓ logsumexp_y f + ε‖² + γ · cross-entropy(softmax f, y)                               (Algorithm 1)
    p(y | x) = softmax f,   E(x, t) = −logsumexp_y f / σ_t,   E(x, y, t) = E(x, t) − log p(y | x)

The trained gradient is σ_t × score, as the loss compares it with −ε; public energies divide by σ_t and are in nats.
"""

import math
from typing import Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional as F

from thalweg import noise, random, sample
from thalweg.data.base import Batch
from thalweg.energy import value_and_score
from thalweg.errors import InputError
from thalweg.methods.base import STRICT, Count, Fraction, Method, NotNegative, Positive, Whole
from thalweg.nn.layers import frozen
from thalweg.nn.patchnet import PatchNet, VectorNet
from thalweg.nn.unet import UNet


@dataclass(frozen=True, config=STRICT)
class Config:
    """Settings of `egc`."""

    data: str = "digits"
    """name of the data that the preset is for"""
    shape: tuple[Count, ...] = (1, 8, 8)
    """shape of one example, [D] or [C, H, W]"""
    classes: Whole = 10
    """number of labels; 0 trains the energy alone"""
    network: Literal["patch", "unet", "mlp"] = "patch"
    """`patch` a fast residual network on patches, `unet` as in the paper, `mlp` for vectors"""
    width: Count = 64
    """channels (patch, unet) or hidden units (mlp)"""
    blocks: Count = 4
    """residual blocks (patch), blocks per resolution (unet), hidden layers (mlp)"""
    multipliers: tuple[Count, ...] = (1, 2, 2, 2)
    """channels of the unet at each resolution, times width"""
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
    energy_level: Count = 1
    """level t that counts as clean for public energies; must be 1 or more, as σ_0 = 0"""
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

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        c = config
        self.schedule = noise.linear_beta(c.levels, c.beta_start, c.beta_stop)
        outputs = len(c.shape) == 3 and c.shape[0] or 1
        read = {"out": max(1, c.classes) if c.readout == "map" else outputs, "vector": max(1, c.classes)}
        try:
            if c.readout == "map" and c.network == "mlp":
                raise ValueError("readout = 'map' needs images and a network with a map; use 'inner' or 'logits' for vectors")
            if c.network == "mlp":
                self.net = VectorNet(math.prod(c.shape), out=1, vector=read["vector"], width=c.width, depth=c.blocks)
            elif len(c.shape) != 3:
                raise ValueError(f"network = '{c.network}' needs images [C, H, W], got shape {c.shape}; use 'mlp'")
            elif c.network == "unet":
                self.net = UNet(c.shape, width=c.width, blocks=c.blocks, multipliers=c.multipliers, dropout=c.dropout, **read)
            else:
                self.net = PatchNet(c.shape, width=c.width, blocks=c.blocks, patch=c.patch, dropout=c.dropout, **read)
        except ValueError as error:
            raise InputError(f"egc: {error}") from None

    # --- the density

    def joint(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """(logsumexp_y f(x, t)[y], log p(y | x, t)): [B, ...], [B] -> [B], [B, classes].

        With readout "inner", f[y] = −½ a_t ‖x‖² − b_t ⟨x, m(x, t)⟩ + l(x, t)[y]: the network's map m enters by an inner product
        with x, so that the gradient has a direct path to every pixel, as in a denoiser. Where m = 0 and l is constant this is
        the exact energy of Gaussian data of `data_std` s: a_t = σ_t/v, v = ᾱ_t² s² + σ_t²; b_t = ᾱ_t s/√v is the spread of ε
        around that Gaussian's prediction. With "logits" (the paper) f[y] = −½ a_t ‖x‖² + l[y]. With "map" (the released code)
        the energy is a spatial sum of logsumexp over a map of class scores, and the logits are pooled apart from it.
        """
        c = self.config
        signal, sigma = self.schedule.alpha(t, x), self.schedule.sigma(t, x)
        variance = signal.square() * c.data_std**2 + sigma.square()
        base = sigma / variance
        fields, logits = self.net(x / variance.sqrt(), t)
        # sums over pixels lose bits in bf16: from here on in fp32
        fields, logits = fields.float(), logits.float()
        value = -0.5 * (base * x.square()).flatten(1).sum(1)
        if c.readout == "inner":
            value = value - (signal * c.data_std / variance.sqrt() * x * fields).flatten(1).sum(1)
        if c.readout == "map":
            return value + fields.logsumexp(1).flatten(1).sum(1), logits.log_softmax(1)
        return value + logits.logsumexp(1), logits.log_softmax(1)

    def energy(self, x: Tensor, *, t: Tensor | int | None = None, label: Tensor | int | None = None) -> Tensor:
        """E(x, t) = −logsumexp f/σ_t in nats, or the joint E(x, y, t) where a `label` is given: [B, ...] -> [B].

        `t` is the noise level of x, by default the lowest; levels are 1 … T.
        """
        if isinstance(t, int) and not 1 <= t <= self.config.levels:
            raise InputError(f"egc: the energy is defined at noise levels 1 to {self.config.levels}, got t = {t}")
        t = self.levels_of(x, t)
        value, log_p = self.joint(x, t)
        energy = -value / self.schedule.sigma(t, value)
        return energy if label is None else energy - log_p.gather(1, self._labels(label, len(x), x.device)[:, None])[:, 0]

    def classify(self, x: Tensor, *, t: Tensor | int = 0) -> Tensor:
        """log p(y | x), [B, classes]; `t` = 0 for clean images."""
        if not self.config.classes:
            raise InputError("this egc model was trained without labels and does not classify")
        return self.joint(x, self.levels_of(x, t))[1]

    @torch.no_grad()
    def encode(self, x: Tensor, *, t: Tensor | int = 0) -> Tensor:
        """A vector that describes each image, [B, C, H, W] -> [B, D]: the hidden units that the class scores are linear in."""
        seen: list[Tensor] = []
        last = [module for module in self.net.modules() if isinstance(module, torch.nn.Linear)][-1]
        hook = last.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
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

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        c = self.config
        return {"net": torch.optim.AdamW(self.net.parameters(), lr=c.lr, weight_decay=c.weight_decay, fused=True)}

    def learning_rate(self, name: str, images: int) -> float:
        """Linear warm-up, then (with `decay`) a cosine to zero at `images` of the config."""
        c = self.config
        rise = min(1.0, (images / c.batch + 1) / max(1, c.warm_up))
        return rise * (0.5 * (1 + math.cos(math.pi * min(1.0, images / c.images))) if c.decay else 1.0)

    def step(self, batch: Batch, update) -> None:
        g = update.generator
        x0 = self._augmented(batch.x, g)
        t = self.schedule.sample_level(len(x0), generator=g, device=x0.device)
        epsilon = random.normal_like(x0, g)
        matching, cross_entropy, correct = self.losses(x0, batch.label, t, epsilon)
        loss = matching.mean()
        if self.config.classes:
            loss = loss + self.config.gamma * cross_entropy.mean()
            update.log(cross_entropy=cross_entropy, accuracy=correct)
        update("net", loss)
        update.log(score_matching=matching)

    def losses(self, x0: Tensor, label: Tensor | None, t: Tensor, epsilon: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Per row: ‖∇ₓ logsumexp f + ε‖² per dimension, the (weighted) cross-entropy, and whether the class was right; [B] each."""
        c = self.config
        x_t = self.schedule.diffuse(x0, t, epsilon)

        def negative_joint(x: Tensor) -> tuple[Tensor, Tensor]:
            value, log_p = self.joint(x, t)
            return -value, log_p

        _, scaled_score, log_p = value_and_score(negative_joint, x_t, create_graph=torch.is_grad_enabled(), aux=True)
        matching = (scaled_score + epsilon).flatten(1).square().mean(1)
        if not c.classes:
            return matching, torch.zeros_like(matching), torch.zeros_like(matching)
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
        """The training loss on held-out data under fixed noise."""
        t = self.schedule.sample_level(len(held_out.x), generator=generator, device=held_out.x.device)
        with torch.no_grad():
            matching, cross_entropy, _ = self.losses(held_out.x, held_out.label, t, random.normal_like(held_out.x, generator))
        return float(matching.mean() + self.config.gamma * cross_entropy.mean())

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
        eta: float = 1.0,
        trace: sample.Trace | None = None,
    ) -> Tensor:
        """`n` samples down the noise levels: DDPM for `eta` 1, DDIM for 0, in `steps` steps. [n, ...], images in [−1, 1].

        With a `label` (one, or [n]) the score is that of p(x | y)·p(y | x)^(w−1), w = `guidance`: ε̂ = −∇[lse f + w σ_t log p(y|x)],
        one backward pass whatever w. Without a label the model's own marginal.
        """
        c = self.config
        device = next(self.parameters()).device
        generator = random.seeded(seed, 2, device=device)
        labels = None if label is None else self._labels(label, n, device)
        scale = c.guidance if guidance is None else guidance

        def predict_noise(x: Tensor, t: Tensor) -> Tensor:
            def guided(x: Tensor) -> Tensor:
                value, log_p = self.joint(x, t)
                if labels is not None:
                    value = value + scale * self.schedule.sigma(t, value) * log_p.gather(1, labels[:, None])[:, 0]
                return -value

            return -value_and_score(guided, x)[1]

        clamp = (-1.0, 1.0) if len(c.shape) == 3 else None
        x = random.normal(n, *c.shape, generator=generator, device=device)
        with frozen(self.net):
            return sample.ancestral(
                predict_noise,
                x,
                self.schedule,
                steps=min(c.sample_steps, c.levels) if steps is None else steps,
                eta=eta,
                clamp=clamp,
                generator=generator,
                trace=trace,
            )

    def _labels(self, label: Tensor | int, n: int, device: torch.device) -> Tensor:
        classes = self.config.classes
        if not classes:
            raise InputError("this egc model was trained without labels: it takes no label")
        labels = torch.as_tensor(label, device=device).expand(n)
        if labels.min() < 0 or labels.max() >= classes:
            raise InputError(f"labels must be between 0 and {classes - 1}, got {int(labels.min())} to {int(labels.max())}")
        return labels


_TOY = dict(
    shape=(2,), network="mlp", width=128, blocks=3, data_std=1.4, batch=512, images=2_500_000, ema=0.999, sample_steps=200, guidance=1.0
)
_CLASSES = {"8gaussians": 8, "25gaussians": 25, "pinwheel": 5, "swissroll": 0, "spiral": 0, "rings": 4, "moons": 2, "checkerboard": 0}

EGC.PRESETS = {
    # found by measurement; benchmarks/results/quickstart.json
    # (no augmentation: resampling blurs 8×8 digits, and the samples with them)
    "digits": Config(images=200_000),
    # as digits, not yet measured at length
    "fashion-mnist": Config(
        data="fashion-mnist", shape=(1, 28, 28), width=96, blocks=5, patch=4, data_std=0.86, batch=128, images=6_000_000, ema=0.999
    ),
    **{name: Config(data=name, classes=classes, **_TOY) for name, classes in _CLASSES.items()},
    # the released ImageNet recipe (γ, smoothing, AdamW, batch, EMA, clip), from Python on any Data of 4×32×32 latents; not run here
    "imagenet256-latent": Config(
        data="latents", shape=(4, 32, 32), classes=1000, network="unet", width=256, blocks=2, multipliers=(1, 2, 4), readout="map",
        data_std=1.0, beta_start=0.00085, beta_stop=0.012, gamma=0.005, label_smoothing=0.2, guidance=6.0, sample_steps=250,
        batch=512, images=400_000_000, lr=1e-4, decay=False, ema=0.9999,
    ),
    # CIFAR-10's settings were never published; these are guided diffusion's network with the recipe above; not run here
    "cifar10": Config(
        data="hf:uoft-cs/cifar10", shape=(3, 32, 32), network="unet", width=192, blocks=3, multipliers=(1, 2, 2), readout="logits",
        data_std=0.5, label_smoothing=0.2, dropout=0.1, batch=128, images=100_000_000, lr=1e-4, decay=False, ema=0.9999, sample_steps=1000,
    ),
}  # fmt: skip
