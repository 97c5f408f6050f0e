"""Conditional neural radiance fields and volume rendering (thesis, sec. 3.3; Mildenhall et al. 2020; GRAF, Schwarz et al. 2020).

A field maps points x [B, P, 3] and unit viewing directions [B, P, 3] of B objects, with their latents, to densities [B, P], per unit
of length and not negative, and colours [B, P, 3] in [0, 1]. Lengths are in whatever unit the points have.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

Field = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


# --- volume rendering


class Rendering(NamedTuple):
    """Of rays [B, P]: `colour` [B, P, 3] in [0, 1], `depth` [B, P] along the ray, `opacity` [B, P] in [0, 1].

    `depth` is the mean over where the ray ends, `far` for the part of it that passes through.
    """

    colour: Tensor
    depth: Tensor
    opacity: Tensor


@torch.no_grad()
def inside_ball(origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Where rays [B, P, 3] enter and leave the ball of radius 1 about the origin: distances [B, P, 1]; equal where they miss it.

    Without gradients, which have no bound where a ray grazes the ball: poses are learned at fixed distances, as between fixed bounds.
    """
    nearest = -(origins * directions).sum(-1, keepdim=True)
    half = (1 - origins.square().sum(-1, keepdim=True) + nearest.square()).clamp(min=0).sqrt()
    return nearest - half, nearest + half


def stratified(near: float | Tensor, far: float | Tensor, jitter: Tensor) -> Tensor:
    """Distances along rays, one in each of M equal parts of [near, far]: jitter [..., M] in [0, 1] -> [..., M], rising.

    Bounds are numbers, or [..., 1] for each ray its own, here and below.
    """
    samples = jitter.shape[-1]
    return near + (far - near) * (torch.arange(samples, device=jitter.device) + jitter) / samples


def hierarchical(t: Tensor, weights: Tensor, far: float | Tensor, jitter: Tensor) -> Tensor:
    """Distances drawn where a first pass found something: from the histogram of `weights` on the intervals around each `t`.

    t [..., M] rising; the intervals meet half way, the first begins at its t, the last ends at `far`. weights [..., M] ≥ 0; jitter
    [..., N] in [0, 1], a draw each -> [..., N] (Mildenhall et al., sec. 5.2). Where all weights are 0 all intervals are alike.
    """
    edges = torch.cat([t[..., :1], (t[..., 1:] + t[..., :-1]) / 2, _of_each(t, far)], -1)
    share = weights + 1e-5
    upper = (share / share.sum(-1, keepdim=True)).cumsum(-1)
    place = torch.searchsorted(upper.contiguous(), jitter.contiguous()).clamp(max=t.shape[-1] - 1)
    above = upper.gather(-1, place)
    below = torch.cat([torch.zeros_like(upper[..., :1]), upper], -1).gather(-1, place)
    inside = ((jitter - below) / (above - below).clamp(min=1e-12)).clamp(0, 1)
    left, right = edges.gather(-1, place), edges.gather(-1, place + 1)
    return left + (right - left) * inside


def weights_of(density: Tensor, t: Tensor, far: float | Tensor) -> Tensor:
    """T_i (1 − exp(−σ_i δ_i)) of eq. 3.1, the share of the light that comes from each sample: [..., M] -> [..., M].

    δ_i is the distance to the next sample, of the last one to `far`.
    """
    length = torch.cat([t[..., 1:], _of_each(t, far)], -1) - t
    thickness = density * length
    passed = (thickness - thickness.cumsum(-1)).exp()  # T_i: all samples before this one
    return passed * -torch.expm1(-thickness)


def _of_each(t: Tensor, far: float | Tensor) -> Tensor:
    """`far` of each ray of t [..., M]: [..., 1]."""
    return far if isinstance(far, Tensor) else torch.full_like(t[..., :1], far)


def composite(density: Tensor, colour: Tensor, t: Tensor, far: float | Tensor, background: float, behind: float | None = None) -> Rendering:
    """C = Σ T_i (1 − exp(−σ_i δ_i)) c_i (eq. 3.1), and what passes through shows the background, a grey value in [0, 1].

    density and t [B, P, M], colour [B, P, M, 3]. The background's distance is `behind`, `far` unless given.
    """
    weights = weights_of(density, t, far)
    opacity = weights.sum(-1)
    through = 1 - opacity
    seen = (weights[..., None] * colour).sum(-2) + background * through[..., None]
    end = _of_each(t, far).squeeze(-1) if behind is None else behind
    return Rendering(seen, (weights * t).sum(-1) + end * through, opacity)


def render(
    field: Field,
    origins: Tensor,
    directions: Tensor,
    jitter: Tensor,
    *,
    near: float,
    far: float,
    background: float = 1.0,
    importance: Tensor | None = None,
    chunk: int | None = None,
    ball: bool = False,
    stop: float = 0.0,
) -> Rendering:
    """Rays [B, P, 3] through a field: `jitter` [B, P, M] in [0, 1] places M stratified samples between `near` and `far`.

    With `ball` between where each ray enters and leaves the ball of radius 1 about the origin, outside which nothing is.
    `importance` [B, P, N] in [0, 1] draws N more where the first ones found density, of the same field. `stop`: where no gradients are
    needed, samples that less than this share of the light reaches are not asked for, nor any on rays that miss the ball, nor further
    ones on rays where the first ones held back less than this share.
    `chunk`: samples along all rays that are held at once at most (not below one ray of each object); gradients then compute
    each chunk anew, so that memory stays bounded in training too. The result does not depend on it.
    """
    rays_at_once = origins.shape[1]
    if chunk is not None:
        per_ray = len(origins) * (jitter.shape[-1] + (0 if importance is None else importance.shape[-1]))
        rays_at_once = min(rays_at_once, max(1, chunk // per_ray))

    def part(origin: Tensor, direction: Tensor, jitter: Tensor, importance: Tensor | None) -> Rendering:
        start, end = inside_ball(origin, direction) if ball else (near, far)
        t = stratified(start, end, jitter)
        sparing = stop > 0 and not torch.is_grad_enabled()
        density, colour = _front_to_back(field, origin, direction, t, end, stop) if sparing else _along(field, origin, direction, t)
        if importance is not None:
            with torch.no_grad():
                weights = weights_of(density, t, end)
                further = hierarchical(t, weights, end, importance)
                left = 1 - torch.cat([torch.zeros_like(weights[..., :1]), weights.cumsum(-1)], -1)  # of the light, before each sample
                reached = left.gather(-1, torch.searchsorted(t.contiguous(), further.contiguous())) > stop
            wanted = reached & (left[..., -1:] < 1 - stop) if sparing else None
            more = _along(field, origin, direction, further) if wanted is None else _at(field, origin, direction, further, wanted)
            t, order = torch.cat([t, further], -1).sort(-1)
            density = torch.cat([density, more[0]], -1).gather(-1, order)
            colour = torch.cat([colour, more[1]], -2).gather(-2, order[..., None].expand(*order.shape, 3))
        return composite(density, colour, t, end, background, behind=far)

    parts = [None if x is None else x.split(rays_at_once, 1) for x in (origins, directions, jitter, importance)]
    again = torch.is_grad_enabled() and len(parts[0]) > 1
    found = []
    for i in range(len(parts[0])):
        given = [None if x is None else x[i] for x in parts]
        found.append(checkpoint(part, *given, use_reentrant=False, preserve_rng_state=False) if again else part(*given))
    return found[0] if len(found) == 1 else Rendering(*(torch.cat(values, 1) for values in zip(*found)))


def _along(field: Field, origins: Tensor, directions: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Density [B, P, M] and colour [B, P, M, 3] at the distances t [B, P, M] along rays [B, P, 3]."""
    points = origins[:, :, None] + t[..., None] * directions[:, :, None]
    density, colour = field(points.flatten(1, 2), directions[:, :, None].expand_as(points).flatten(1, 2))
    return density.view_as(t), colour.view_as(points)


def _at(field: Field, origins: Tensor, directions: Tensor, t: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """As `_along` of the `wanted` [B, P, M] samples alone; elsewhere nothing is. Without gradients."""
    density, colour, flat = t.new_zeros(t.shape), t.new_zeros(*t.shape, 3), wanted.flatten(1)
    most = int(flat.sum(1).max())
    if most:
        place = flat.byte().argsort(dim=1, descending=True, stable=True)[:, :most]  # objects with fewer are filled up with others
        ray = torch.div(place, t.shape[-1], rounding_mode="floor")[..., None].expand(-1, -1, 3)
        direction = directions.gather(1, ray)
        found = field(origins.gather(1, ray) + t.flatten(1).gather(1, place)[..., None] * direction, direction)
        density.view(len(t), -1).scatter_(1, place, (found[0] * flat.gather(1, place)).to(density))
        colour.view(len(t), -1, 3).scatter_(1, place[..., None].expand(-1, -1, 3), found[1].to(colour))
    return density, colour


def _front_to_back(field: Field, origins: Tensor, directions: Tensor, t: Tensor, far: float | Tensor, stop: float) -> tuple[Tensor, Tensor]:
    """As `_along`, four samples at a time, as long as more than `stop` of the light is left, and not on rays that end where they begin."""
    length = torch.cat([t[..., 1:], _of_each(t, far)], -1) - t
    left, found = (_of_each(t, far) > t[..., :1]).to(t), []
    for part, step in zip(t.split(4, -1), length.split(4, -1)):
        found.append(_at(field, origins, directions, part, (left > stop).expand_as(part)))
        left = left * (-(found[-1][0] * step).sum(-1, keepdim=True)).exp()
    return torch.cat([density for density, _ in found], -1), torch.cat([colour for _, colour in found], -2)


# --- fields


def positional_encoding(x: Tensor, octaves: int, revealed: Tensor | None = None) -> Tensor:
    """x, then sin and cos of 2^k π x for k = 0 … octaves − 1: [..., D] -> [..., D (2·octaves + 1)].

    `revealed`, a share: of the octaves so many from the lowest on are there, the last of them in part (BARF, arXiv 2104.06405).
    """
    k = torch.arange(octaves, device=x.device)
    angle = x[..., None] * (math.pi * 2.0**k)
    sin, cos = angle.sin(), angle.cos()
    if revealed is not None:
        weight = 0.5 - 0.5 * (math.pi * (revealed * octaves - k).clamp(0, 1)).cos()
        sin, cos = sin * weight, cos * weight
    return torch.cat([x, sin.flatten(-2), cos.flatten(-2)], -1)


class Mapping(nn.Module):
    """z [B, d], brought to length √d, through `layers` linear layers, each with LeakyReLU: [B, d] -> [B, width] (sec. 3.5.2.1)."""

    def __init__(self, dim: int, width: int, layers: int = 4) -> None:
        super().__init__()
        sizes = [dim, *[width] * layers]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:]))
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight, a=0.2)

    def forward(self, z: Tensor) -> Tensor:
        h = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        for layer in self.layers:
            h = F.leaky_relu(layer(h), 0.2)
        return h


class ConditionalField(nn.Module):
    """g_θ(x, d, z^s, z^a) -> (c, σ) (eq. 3.2): shape enters the layers below the density, appearance those of the colour alone.

    `conditioning` "concat": mapped latents stand next to the encoded point (again halfway up) and the encoded direction, as in GRAF.
    "film": they scale and shift the first four layers, and the colour's. `depth` layers of `width`. `octaves` of the encoding of
    points, whose range of interest is [−1, 1]; of directions `octaves_view`, −1 for a colour that does not depend on the view. With
    `annealed` octaves are there as far as `reveal` was told.
    """

    revealed: Tensor | None

    def __init__(
        self,
        appearance: int,
        shape: int,
        *,
        width: int = 256,
        depth: int = 8,
        mapping: int = 256,
        mapping_layers: int = 4,
        octaves: int = 10,
        octaves_view: int = 4,
        conditioning: Literal["concat", "film"] = "concat",
        annealed: bool = False,
    ) -> None:
        super().__init__()
        self.octaves, self.octaves_view, self.film = octaves, octaves_view, conditioning == "film"
        self.register_buffer("revealed", torch.zeros(()) if annealed else None)
        point, view = 3 * (2 * octaves + 1), 3 * (2 * octaves_view + 1) if octaves_view >= 0 else 0
        self.map_appearance = Mapping(appearance, mapping, mapping_layers)
        self.map_shape = Mapping(shape, mapping, mapping_layers)
        self.again = depth // 2 if depth > 3 else 0  # the layer that sees the point a second time
        self.layers = nn.ModuleList(nn.Linear(point if i == 0 else width + point * (i == self.again), width) for i in range(depth))
        taught = range(min(4, depth)) if self.film else {0, self.again}
        self.shape_at = nn.ModuleDict({str(i): nn.Linear(mapping, width * (1 + self.film)) for i in taught})
        self.density = nn.Linear(width, 1)
        self.feature = nn.Linear(width, width)
        self.colour_hidden = nn.Linear(width + view, width // 2)
        self.appearance_at = nn.Linear(mapping, width // 2 * (1 + self.film))
        self.colour = nn.Linear(width // 2, 3)

    def reveal(self, share: float) -> None:
        """Look at points by that share of the octaves, from the lowest on; only of an annealed field."""
        assert self.revealed is not None
        self.revealed.fill_(min(1.0, share))

    def latents(self, z_a: Tensor, z_s: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """What the layers add (and scale by), [B, 1, ·]: once an object, not once a point."""
        w_a, w_s = self.map_appearance(z_a)[:, None], self.map_shape(z_s)[:, None]
        return self.appearance_at(w_a), {key: layer(w_s) for key, layer in self.shape_at.items()}

    def forward(self, x: Tensor, direction: Tensor, latents: tuple[Tensor, dict[str, Tensor]]) -> tuple[Tensor, Tensor]:
        appearance, shape = latents
        point = positional_encoding(x, self.octaves, self.revealed)
        h = point
        for i, layer in enumerate(self.layers):
            parts = (h, point) if i and i == self.again else (h,)
            h = F.relu(self._layer(layer, parts, shape.get(str(i))), inplace=True)
        density = F.softplus(self.density(h).squeeze(-1) - 1)  # shifted: at first space is thin and everything is seen
        parts = (self.feature(h),)
        if self.octaves_view >= 0:
            parts = (*parts, positional_encoding(direction, self.octaves_view))
        seen = F.relu(self._layer(self.colour_hidden, parts, appearance), inplace=True)
        return density, self.colour(seen).sigmoid()

    def _layer(self, layer: nn.Linear, parts: tuple[Tensor, ...], latent: Tensor | None) -> Tensor:
        """A linear layer of `parts` [B, P, ·] side by side, told the latent [B, 1, ·]: plus it ("concat"), or times 1 + scale plus shift.

        Sums of products instead of side by side, and scaled weights instead of scaled values: most of the time goes into memory.
        """
        weights = layer.weight.split([part.shape[-1] for part in parts], 1)
        if latent is None or not self.film:
            out = F.linear(parts[-1], weights[-1], layer.bias)
            for part, weight in zip(parts[:-1], weights):
                out = out + F.linear(part, weight)
            return out if latent is None else out + latent
        scale, shift = latent.chunk(2, -1)
        out = (1 + scale) * layer.bias + shift
        for part, weight in zip(parts, weights):
            out = torch.baddbmm(out, part, ((1 + scale).transpose(1, 2) * weight).transpose(1, 2))
        return out
