"""Normalizing flows: for images multiscale mixture-of-logistics couplings (Ho et al. 2019, "Flow++"), for vectors zuko's.

Both have `encode(x) -> (z, log|det ∂z/∂x|)`, `decode(z) -> x` and `initialise(x)`; z has the shape of x and N(0, I) for its law.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thalweg.nn.layers import Attention

Mean = Callable[[Tensor], Tensor]  # of a figure of a batch over all processes that hold a share of it

LEAST_SLOPE = 0.1  # of a coupling's map: between narrow logistics its own slope vanishes, and with it the inverse
LEAST_LOG_SCALE = -5.0
NEWTON_STEPS = 60  # at most
ROUNDING = 16  # units of the last digit


class ActNorm(nn.Module):
    """Each channel scaled and shifted, at first such that a batch has mean 0 and variance 1 (Kingma and Dhariwal 2018, sec. 3.1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.shift = nn.Parameter(torch.zeros(1, channels, 1, 1))

    @torch.no_grad()
    def initialise(self, x: Tensor, mean: Mean) -> None:
        center = mean(x.mean((0, 2, 3), keepdim=True))
        self.shift.copy_(-center)
        self.log_scale.copy_(-0.5 * mean((x - center).square().mean((0, 2, 3), keepdim=True)).clamp_min(1e-6).log())

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return (x + self.shift) * self.log_scale.exp(), self.log_scale.sum() * x[0, 0].numel()

    def decode(self, z: Tensor) -> Tensor:
        return z * (-self.log_scale).exp() - self.shift


class Mixing(nn.Module):
    """An invertible 1×1 convolution, at first a random rotation (Kingma and Dhariwal 2018, sec. 3.2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linalg.qr(torch.randn(channels, channels)).Q)

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return _per_pixel(self.weight, x), torch.linalg.slogdet(self.weight).logabsdet * x[0, 0].numel()

    def decode(self, z: Tensor) -> Tensor:
        # inverted in double: the inverse is what limits decode(encode(x)) = x
        return _per_pixel(torch.linalg.inv(self.weight.double()).to(z.dtype), z)


def _per_pixel(matrix: Tensor, x: Tensor) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return F.conv2d(x, matrix[:, :, None, None])


class GatedBlock(nn.Module):
    """x + a·sigmoid(b) with (a, b) from two convolutions of the normalised x."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, 2 * width, 1)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.second(F.silu(self.first(F.silu(self.norm(x))))).chunk(2, dim=1)
        return x + value * gate.sigmoid()


class MixtureCoupling(nn.Module):
    """Half of the channels through a learned increasing map whose parameters are a network of the other half (Ho et al. 2019, sec. 3.2).

    z = (logit F(x) + δ x)·exp(a) + b, F the distribution function of a mixture of logistics; δ = `LEAST_SLOPE` is ours.
    """

    def __init__(self, channels: int, *, width: int, depth: int, mixtures: int, attention: bool = False, context: int = 0) -> None:
        super().__init__()
        self.kept, self.moved, self.mixtures = channels // 2, channels - channels // 2, mixtures
        layers: list[nn.Module] = [nn.Conv2d(self.kept + context, width, 3, padding=1), *(GatedBlock(width) for _ in range(depth))]
        if attention:
            layers.append(Attention(width))
        self.net = nn.Sequential(*layers, nn.SiLU())
        self.last = nn.Conv2d(width, self.moved * (2 + 3 * mixtures), 3, padding=1)
        nn.init.normal_(self.last.weight, std=1e-3)
        bias = torch.zeros(self.moved, 2 + 3 * mixtures)
        bias[:, 2 + mixtures : 2 + 2 * mixtures] = torch.linspace(-1.5, 1.5, mixtures)  # apart, or all would learn the same
        self.last.bias.data.copy_(bias.flatten())

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        kept, moved = x.split([self.kept, self.moved], dim=1)
        log_gain, shift, mixture = self._map(kept, context)
        value, log_slope = _increasing(moved, *mixture)
        return torch.cat([kept, value * log_gain.exp() + shift], 1), (log_slope + log_gain).flatten(1).sum(1)

    def decode(self, z: Tensor) -> Tensor:
        kept, moved = z.split([self.kept, self.moved], dim=1)
        log_gain, shift, mixture = self._map(kept, None)
        return torch.cat([kept, _inverse((moved - shift) * (-log_gain).exp(), *mixture)], 1)

    def _map(self, kept: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
        seen = kept if context is None else torch.cat([kept, context], 1)
        found = self.last(self.net(seen))
        # logarithms of densities are added up: fp32 also under autocast
        found = found.to(kept.dtype).view(len(kept), self.moved, -1, *kept.shape[2:]).movedim(2, -1)
        log_gain, shift, rest = found[..., 0], found[..., 1], found[..., 2:]
        logits, means, log_scales = rest.split(self.mixtures, dim=-1)
        return log_gain.tanh(), shift, (logits.log_softmax(-1), means, log_scales.clamp_min(LEAST_LOG_SCALE))


def _increasing(x: Tensor, log_weights: Tensor, means: Tensor, log_scales: Tensor) -> tuple[Tensor, Tensor]:
    """logit F(x) + δ x and the logarithm of its derivative; x [...], the mixture's parameters [..., M]."""
    u = (x[..., None] - means) * (-log_scales).exp()
    # both tails by logarithms: F alone is 0 or 1 in float long before its logit is lost
    log_lower, log_upper = F.logsigmoid(u), F.logsigmoid(-u)
    log_cdf, log_rest = (log_weights + log_lower).logsumexp(-1), (log_weights + log_upper).logsumexp(-1)
    log_density = (log_weights + log_lower + log_upper - log_scales).logsumexp(-1)
    log_slope = log_density - log_cdf - log_rest
    return log_cdf - log_rest + LEAST_SLOPE * x, torch.logaddexp(log_slope, torch.full_like(log_slope, math.log(LEAST_SLOPE)))


def _inverse(value: Tensor, log_weights: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
    """x with `_increasing`(x) = value [...], and its gradient by all arguments."""
    mixture = log_weights, means, log_scales
    with torch.no_grad():
        x = _root(value.flatten(), *(part.flatten(0, -2) for part in mixture)).view_as(value)
    if not torch.is_grad_enabled():
        return x
    # by the implicit function theorem: a step of Newton's from the root, where the slope's own change does not count
    found, log_slope = _increasing(x, *mixture)
    return x - (found - value) * (-log_slope.detach()).exp()


def _root(value: Tensor, *mixture: Tensor) -> Tensor:
    """x [N] with `_increasing`(x) = value: Newton's method within a bracket, which is halved where a step would leave it or is not below
    half of the last one: steps could go round in a circle. Elements whose step is no more than rounding are left out of the next ones."""
    _, means, log_scales = mixture
    # the logit of a mixture lies between those of its parts, so its root lies between theirs
    roots = (value[..., None] + means * (-log_scales).exp()) / ((-log_scales).exp() + LEAST_SLOPE)
    low, high = roots.amin(-1), roots.amax(-1)
    x, moved = 0.5 * (low + high), high - low
    result, index = x.clone(), torch.arange(len(x), device=x.device)
    for _ in range(NEWTON_STEPS):
        found, log_slope = _increasing(x, *mixture)
        low, high = torch.where(found < value, x, low), torch.where(found < value, high, x)
        newton = x - (found - value) * (-log_slope).exp()
        least = ROUNDING * torch.finfo(x.dtype).eps * (1 + x.abs())
        small = (newton - x).abs() <= least
        inside = (newton > low) & (newton < high) & ((newton - x).abs() < 0.5 * moved)
        last, x = x, torch.where(small | inside, newton, 0.5 * (low + high))
        moved = (x - last).abs()
        result[index] = x
        moving = moved > least
        count = int(moving.sum())
        if not count:
            break
        if count < len(x):  # no element depends on which others are with it
            index, value, low, high, x, moved, *mixture = (part[moving] for part in (index, value, low, high, x, moved, *mixture))
    return result


class Dequantisation(nn.Module):
    """Variational dequantisation (Ho et al. 2019, sec. 3.1): v = sigmoid(flow(ε | x)) in (0, 1), and log q(v | x)."""

    def __init__(self, channels: int, *, width: int, depth: int, mixtures: int, couplings: int = 2) -> None:
        super().__init__()
        self.context = nn.Sequential(nn.Conv2d(4 * channels, width, 3, padding=1), GatedBlock(width))
        sizes = dict(width=width, depth=depth, mixtures=mixtures, context=width)
        self.parts = nn.ModuleList(
            part for _ in range(couplings) for part in (Mixing(4 * channels), MixtureCoupling(4 * channels, **sizes))
        )

    def forward(self, x: Tensor, epsilon: Tensor) -> tuple[Tensor, Tensor]:
        context = self.context(F.pixel_unshuffle(x, 2)).to(x.dtype)
        u, log_q = F.pixel_unshuffle(epsilon, 2), _log_normal(epsilon)
        for part in self.parts:
            u, log_det = part.encode(u, context)
            log_q = log_q - log_det
        u = F.pixel_shuffle(u, 2)
        return u.sigmoid(), log_q - (F.logsigmoid(u) + F.logsigmoid(-u)).flatten(1).sum(1)


class ImageFlow(nn.Module):
    """A multiscale flow of images [B, C, H, W] in [−1, 1], H and W divisible by 2^scales.

    Each scale folds 2×2 pixels into channels, has `couplings` rounds of ActNorm, 1×1 convolution and `MixtureCoupling`, and
    passes on half of the channels (Dinh et al. 2017). Images of `grey_values` grey values are spread over their bins by noise,
    learned (`dequantisation` "variational") or "uniform"; x in [−1, 1] lies at (1 − 1/grey_values) x of the flow's own interval (−1, 1).
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        scales: int = 2,
        couplings: int = 4,
        width: int = 64,
        depth: int = 2,
        mixtures: int = 4,
        attention: bool = False,
        grey_values: int = 256,
        dequantisation: str = "variational",
    ) -> None:
        super().__init__()
        channels, height, breadth = shape
        if height % 2**scales or breadth % 2**scales:
            raise ValueError(f"a flow of {scales} scales needs height and width that divide by {2**scales}, got {height}×{breadth}")
        self.shape, self.grey_values = shape, grey_values
        self.scales = nn.ModuleList()
        sizes = dict(width=width, depth=depth, mixtures=mixtures, attention=attention)
        for scale in range(scales):
            channels *= 4
            parts = (part for _ in range(couplings) for part in (ActNorm(channels), Mixing(channels), MixtureCoupling(channels, **sizes)))
            self.scales.append(nn.ModuleList(parts))
            channels //= 2 if scale < scales - 1 else 1
        self.dequantisation = Dequantisation(shape[0], width=width, depth=1, mixtures=mixtures) if dequantisation == "variational" else None

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z [B, C, H, W] and log|det ∂z/∂x| [B] of images x, whose values must lie within ±(1 + 1/grey_values)."""
        squeeze = 1 - 1 / self.grey_values
        z, log_det = self._encode(squeeze * x)
        return z, log_det + math.log(squeeze) * x[0].numel()

    def decode(self, z: Tensor) -> Tensor:
        """The inverse of `encode`; noise of a dequantised model is still in it, so that x may lie beyond ±1 by 1/grey_values."""
        return self._decode(z) / (1 - 1 / self.grey_values)

    def decode_grey_values(self, z: Tensor) -> Tensor:
        """`decode` with each value brought to the grey value in whose bin it lies: what a model of grey values samples."""
        bins = ((self._decode(z) + 1) / 2 * self.grey_values).floor().clamp(0, self.grey_values - 1)
        return 2 * bins / (self.grey_values - 1) - 1

    def bound(self, x: Tensor, noise: Tensor) -> Tensor:
        """A lower bound of the log-probability of grey values x, in nats [B]; `noise` is N(0, I) in the shape of x (Ho et al. 2019, eq. 5).

        Of images that are not whole grey values, such as refined samples, it is that of their bin's noise around them.
        """
        width = 2 / self.grey_values
        if self.dequantisation is None:
            v, log_q = torch.special.ndtr(noise), 0.0
        else:
            v, log_q = self.dequantisation(x, noise)
        z, log_det = self._encode((1 - 1 / self.grey_values) * x + (v - 0.5) * width)
        return _log_normal(z) + log_det + math.log(width) * x[0].numel() - log_q

    @torch.no_grad()
    def initialise(self, x: Tensor, noise: Tensor, mean: Mean = lambda value: value) -> None:
        """Set every ActNorm from a batch x, front to back (Salimans and Kingma 2016); `noise` uniform in the shape of x."""
        self._encode((1 - 1 / self.grey_values) * x + (noise - 0.5) * 2 / self.grey_values, mean=mean)

    def _encode(self, y: Tensor, *, mean: Mean | None = None) -> tuple[Tensor, Tensor]:
        # logit: z may lie anywhere, y in (−1, 1); noise may round to the bin's very edge
        log_lower, log_upper = (((1 + sign * y) / 2).clamp_min(1e-7).log() for sign in (1, -1))
        h = log_lower - log_upper
        log_det = -(log_lower + log_upper + math.log(2)).flatten(1).sum(1)
        done = []
        for i, parts in enumerate(self.scales):
            h = F.pixel_unshuffle(h, 2)
            for part in parts:
                if mean is not None and isinstance(part, ActNorm):
                    part.initialise(h, mean)
                h, change = part.encode(h)
                log_det = log_det + change
            if i < len(self.scales) - 1:
                out, h = h.chunk(2, dim=1)
                done.append(out.flatten(1))
        return torch.cat([*done, h.flatten(1)], 1).view_as(y), log_det

    def _decode(self, z: Tensor) -> Tensor:
        channels, height, breadth = self.shape
        sizes = []  # of what each scale left, coarse ones last
        for i in range(len(self.scales)):
            channels, height, breadth = 4 * channels, height // 2, breadth // 2
            channels //= 2 if i < len(self.scales) - 1 else 1
            sizes.append((channels, height, breadth))
        pieces = z.flatten(1).split([math.prod(size) for size in sizes], dim=1)
        h = None
        for piece, size, parts in zip(reversed(pieces), reversed(sizes), reversed(self.scales)):
            piece = piece.view(-1, *size)
            h = piece if h is None else torch.cat([piece, h], 1)
            for part in reversed(parts):
                h = part.decode(h)
            h = F.pixel_shuffle(h, 2)
        return 2 * h.sigmoid() - 1


class VectorFlow(nn.Module):
    """zuko's flows of vectors [B, D] (extra `flows`): couplings by neural splines or affine maps (Durkan et al. 2019; Dinh et al. 2017).

    `scale` is brought to 1 first; splines bend what lies within 5 of it and leave the rest as it is.
    """

    def __init__(
        self,
        dim: int,
        make: Callable[..., nn.Module],
        *,
        couplings: int = 6,
        width: int = 64,
        depth: int = 2,
        scale: float = 1.0,
        **options,
    ) -> None:
        super().__init__()
        self.net = make(dim, transforms=couplings, hidden_features=[width] * depth, **options)
        self.scale = scale

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z [B, D] and log|det ∂z/∂x| [B]."""
        z, log_det = self.net().transform.call_and_ladj(x / self.scale)
        return z, log_det - math.log(self.scale) * x.shape[1]

    def decode(self, z: Tensor) -> Tensor:
        """The inverse of `encode`."""
        return self.scale * self.net().transform.inv(z)

    def bound(self, x: Tensor, noise: Tensor) -> Tensor:
        """log q(x) in nats [B], exact; takes noise as `ImageFlow.bound` does and needs none."""
        z, log_det = self.encode(x)
        return _log_normal(z) + log_det

    def initialise(self, x: Tensor, noise: Tensor, mean: Mean = lambda value: value) -> None:
        """Nothing to set."""


def _log_normal(z: Tensor) -> Tensor:
    """log N(z; 0, I), [B, ...] -> [B]."""
    return -0.5 * (z.square() + math.log(2 * math.pi)).flatten(1).sum(1)
