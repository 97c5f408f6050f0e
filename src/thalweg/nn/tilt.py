"""The Gaussian that a normalised energy of all noise levels tilts, and how a network's outputs enter: U = −log N(y; μ, C + σ²) + read-outs.

    u = (y − μ)/√(s² + σ²), s² the diagonal of C         what the network sees, of size 1 at every level
    ⟨r u, m⟩, r = s/√(σ² + δ² s²)                         its map: a direct path to the slope at each pixel; vanishes at high noise
    c √d l, c = s̄²/(s̄² + σ²)                              its number

With `ends`, for images of grey values, which pile up at the ends of their range: bumps g = exp(−½ v²) and v g, v the distance of y from an
end in units of twice the noise, as inputs, and a read-out c ⟨1, m⟩. Without them a small network does not resolve edges that are one grey
value wide. They are read out too, as "bumps" c ⟨g, m⟩ or, which fits better, as "bins":

    −Σ log [(1 + Σ_e exp(k c m_e) b_e(y)) / (1 + Σ_e b_e(y))]

of each pixel, b_e the grey value e, a bin evenly filled, with the noise, over its own peak: 0 where m is. So logits that hardly
depend on y make the density jump at the edges of the last grey values, as sharply as the noise lets it.
"""

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

Ends = Literal["none", "bumps", "bins"]
GAIN = 8.0  # k, as logits of a grey value are larger than what a network puts out
LEAST_BIN = 0.1  # of the noise: a bin need be no narrower, and its logarithm would drown in rounding


class Tilted(NamedTuple):
    """What a network is given at y and what its outputs are multiplied by: `energy` [B] of the Gaussian; `inputs` [B, k·C, ...] ;
    `weights` [B, maps, *shape] of the map; `cut` [B] of the number; `share` the noise's part of u's deviation; `bins` log b_e
    [B, 2, *shape], where they are read out, by the last two of the maps."""

    energy: Tensor
    inputs: Tensor
    weights: Tensor
    cut: Tensor
    share: Tensor
    bins: Tensor | None

    def tilted(self, fields: Tensor, number: Tensor) -> Tensor:
        """U [B] by a network's maps [B, (maps·C), ...] and number [B, 1]."""
        fields, cut = fields.to(self.energy.dtype), self.cut * number.to(self.energy.dtype)[:, 0]
        shape, linear = self.weights.shape[2:], self.weights.shape[1]
        fields = fields.view(len(fields), -1, *shape)
        inner = self.weights * fields[:, :linear]  # sums over pixels lose bits in bf16
        found = self.energy + inner.flatten(1).sum(1) - cut
        if self.bins is None:
            return found
        fade = self.cut.view(-1, *[1] * (fields.dim() - 1)) / math.sqrt(math.prod(shape))
        none = torch.zeros_like(self.bins[:, :1])
        mixed = torch.cat([none, self.bins + GAIN * fade * fields[:, linear:]], 1).logsumexp(1)
        return found - (mixed - torch.cat([none, self.bins], 1).logsumexp(1)).flatten(1).sum(1)


class Base:
    """N(μ, C + σ²) at one level, with draws and densities; `basis` [D, D] holds the directions of a full covariance in its columns."""

    def __init__(self, mean: Tensor, variance: Tensor, basis: Tensor | None) -> None:
        self.mean, self.variance, self.basis = mean, variance, basis

    def of_noise(self, z: Tensor) -> Tensor:
        """The draw that noise z [B, ...] makes."""
        scaled = z.flatten(1) * self.variance.sqrt()
        return self.mean + (scaled if self.basis is None else scaled @ self.basis.T).view_as(z)

    def noise_of(self, y: Tensor) -> Tensor:
        """The noise [B, ...] that makes y."""
        return (self._along(y) / self.variance.sqrt()).view_as(y)

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """`n` draws [n, ...]."""
        device = self.mean.device if generator is None else generator.device
        return self.of_noise(torch.randn(n, *self.mean.shape, generator=generator, device=device).to(self.mean.device))

    def log_prob(self, y: Tensor) -> Tensor:
        """Log-density in nats, [B, ...] -> [B]."""
        return -0.5 * (self._along(y).square() / self.variance + (2 * math.pi * self.variance).log()).sum(1)

    def _along(self, y: Tensor) -> Tensor:
        centred = (y - self.mean).flatten(1)
        return centred if self.basis is None else centred @ self.basis


def _decompose(tilt: "Tilt", keys: Any) -> None:
    tilt._decompose()


class Tilt(nn.Module):
    """The Gaussian, fitted once to data, and the read-outs of a network: call it with y [B, *shape] and log σ [B].

    `full`: all of the data's covariance, which costs D² numbers and two products with them; then the network also sees the mean of x
    given y. `ends`: how both ends of the range are read out, of grey values `bin_width` wide. `flatness` is δ, `least_std` the least
    deviation in any direction. `inputs` and `maps` say how many times the data's channels a network takes and gives.
    """

    mean: Tensor
    std: Tensor
    covariance: Tensor
    variance: Tensor
    basis: Tensor
    fitted: Tensor

    def __init__(
        self, shape: tuple[int, ...], *, full: bool, ends: Ends, bin_width: float | None, flatness: float, least_std: float
    ) -> None:
        super().__init__()
        dim = math.prod(shape)
        self.full, self.flatness, self.least_std = full, flatness, least_std
        self.ends: Ends = "none" if bin_width is None else ends
        self.bin_width = bin_width or 0.0
        self.inputs, self.maps = 1 + full + (0 if self.ends == "none" else 4), {"none": 1, "bumps": 6, "bins": 4}[self.ends]
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("std", torch.ones(shape), persistent=False)
        # of a full covariance its upper triangle is stored, from which the others are made again
        identity = torch.cat([torch.eye(1, dim - i)[0] for i in range(dim)]) if full else torch.ones(dim)
        self.register_buffer("covariance", identity)
        self.register_buffer("variance", torch.ones(dim), persistent=False)
        self.register_buffer("basis", torch.eye(dim) if full else torch.zeros(0, 0), persistent=False)
        self.register_load_state_dict_post_hook(_decompose)
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Take mean and covariance of x [N, *shape]; later calls change nothing."""
        if bool(self.fitted):
            return
        flat = x.flatten(1).double()
        centred = flat - flat.mean(0)
        if self.full:
            covariance = centred.T @ centred / len(flat)
            self.covariance.copy_(covariance[self._upper(covariance)])
        else:
            self.covariance.copy_(centred.square().mean(0))
        self.mean.copy_(flat.mean(0).view_as(self.mean))
        self.fitted.fill_(True)
        self._decompose()

    @staticmethod
    def _upper(like: Tensor) -> Tensor:
        return torch.triu(torch.ones_like(like)) > 0

    @torch.no_grad()
    def _decompose(self) -> None:
        """Deviations, directions and variances along them, from the covariance."""
        diagonal = variance = self.covariance.double()
        if self.full:
            upper = torch.zeros(self.basis.shape, dtype=torch.float64, device=self.basis.device)
            upper[self._upper(upper)] = self.covariance.double()
            diagonal = upper.diagonal()
            variance, basis = torch.linalg.eigh(upper + upper.T - diagonal.diag())
            self.basis.copy_(basis)
        self.variance.copy_(variance.clamp_min(self.least_std**2))
        self.std.copy_(diagonal.sqrt().clamp_min(self.least_std).view_as(self.std))

    @torch.no_grad()
    def expected_change(self, x: Tensor, low: float, high: float, intervals: int) -> Tensor:
        """The mean of U₀(y, τ + h) − U₀(y, τ), nats, for y of examples x [N, *shape] noised to a level between, of each interval of log σ.

        Zero of examples with the Gaussian's own moments. [intervals], exact in the noise.
        """
        centred = (x - self.mean).flatten(1)
        along = (centred @ self.basis if self.full else centred).double().square().mean(0)[:, None]
        noise = (2 * torch.linspace(low, high, intervals + 1, dtype=torch.float64, device=x.device)).exp()
        spread = self.variance.double()[:, None] + noise
        between = noise.diff() * intervals / (2 * (high - low))  # the mean of σ² over an interval of log σ
        change = (along + between) * (1 / spread[:, 1:] - 1 / spread[:, :-1]) + (spread[:, 1:] / spread[:, :-1]).log()
        return 0.5 * change.sum(0).cpu()

    def base(self, sigma: float) -> Base:
        """The Gaussian with noise of `sigma`."""
        return Base(self.mean, self.variance + sigma**2, self.basis if self.full else None)

    def forward(self, y: Tensor, log_sigma: Tensor) -> Tilted:
        rows = (-1, *[1] * (y.dim() - 1))
        sigma = log_sigma.exp().view(rows)
        deviation = (self.std.square() + sigma.square()).sqrt()
        u = (y - self.mean) / deviation
        noisy = self.variance + (2 * log_sigma).exp()[:, None]
        inputs = [u]
        with torch.autocast(y.device.type, enabled=False):  # products of the covariance are of the energy itself
            along = (y - self.mean).flatten(1) @ self.basis if self.full else (y - self.mean).flatten(1)
            if self.full:
                inputs.append(self.mean + ((along * (self.variance / noisy)) @ self.basis.T).view_as(y))
        energy = 0.5 * (along.square() / noisy + (2 * math.pi * noisy).log()).sum(1)
        cut = self._cut(sigma)
        weights = [self.std / (sigma.square() + (self.flatness * self.std).square()).sqrt() * u]
        if self.ends != "none":
            bumps = [cut * bump for bump in self._bumps(y, sigma)]
            inputs += bumps
            weights += [cut.expand_as(y), *(bumps if self.ends == "bumps" else [])]
        bins = self._log_bins(y, sigma) if self.ends == "bins" else None
        root = math.sqrt(y[0].numel())
        stacked = torch.cat(inputs, 1) if len(inputs) > 1 else u
        return Tilted(energy, stacked, torch.stack(weights, 1), root * cut.flatten(), sigma / deviation, bins)

    def _cut(self, sigma: Tensor) -> Tensor:
        spread = self.std.square().mean()
        return spread / (spread + sigma.square())

    def _bumps(self, y: Tensor, sigma: Tensor) -> list[Tensor]:
        width = 2 * (sigma.square() + self.bin_width**2 / 12).sqrt()  # of noise and of a grey value that is spread evenly
        found = []
        for end in (-1.0, 1.0):
            distance = (y - end) / width
            bump = torch.exp(-0.5 * distance.square())
            found += [bump, distance * bump]
        return found

    def _log_bins(self, y: Tensor, sigma: Tensor) -> Tensor:
        """log of b_e(y) = [Φ((y − e + w/2)/σ) − Φ((y − e − w/2)/σ)] / [2 Φ(w/2σ) − 1] for both ends e, [B, 2, *shape]."""
        half = 0.5 * (self.bin_width**2 + (LEAST_BIN * sigma).square()).sqrt() / sigma
        found = []
        for end in (-1.0, 1.0):
            distance = ((y - end).abs() / sigma).clamp(max=40.0)  # farther there is nothing of the bin
            inner, outer = (torch.special.log_ndtr(side - distance) for side in (half, -half))
            found.append(inner + torch.log1p(-(outer - inner).exp()) - torch.erf(half / math.sqrt(2)).log())
        return torch.stack(found, 1)
