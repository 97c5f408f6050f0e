"""Searched poses, ours: the likeliest of several cameras instead of a draw of the pose's posterior.

By the paper's gradients alone (thesis, sec. 3.4.4) inference network and generator agree on one pose for all images, and z^s says how an
object is turned (docs/methods/nerf_lebm.md). Candidates may be kept for each image, as particles of its posterior: a visit draws some of
them anew, and judges all by more pixels than one visit looks at.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from thalweg import camera as cameras
from thalweg import random
from thalweg.errors import InputError
from thalweg.nn import von_mises
from thalweg.scene.chains import put_back

HIGHEST = math.pi / 3  # altitude of cameras from above
PIXELS = 32  # of an image, by which a pose is chosen
MEMORY = 4  # visits over which a candidate is judged
BINS, LATELY = 24, 0.9  # of azimuths that were chosen, and how much of what was known of them a step keeps
NEAR = (0.1, 0.2)  # radians between a new candidate's altitude and azimuth and those of one that it is drawn near


class Candidates(NamedTuple):
    """K poses of each of B images: `angles` [B, K, 2], altitude and azimuth in radians; `regret` [B, K], how much better the best one
    tried fitted, a mean over about the last MEMORY of their `visits` [B, K]."""

    angles: Tensor
    regret: Tensor
    visits: Tensor

    @classmethod
    def drawn(cls, n: int, count: int, generator: random.Generator, device: torch.device | None = None) -> "Candidates":
        """`count` poses for each of `n` images, from above, all around."""
        parts = [random.uniform(n, count, high=high, generator=generator, device=device) for high in (HIGHEST, 2 * math.pi)]
        return cls.new(torch.stack(parts, -1))

    @classmethod
    def new(cls, angles: Tensor) -> "Candidates":
        """Poses [B, K, 2] that have not been tried."""
        return cls(angles, torch.zeros_like(angles[..., 0]), torch.zeros_like(angles[..., 0]))

    def at(self, which: Tensor) -> "Candidates":
        """Those number `which` [B, M] of each image."""
        return Candidates(self.angles.gather(1, which[..., None].expand(-1, -1, 2)), *(part.gather(1, which) for part in self[1:]))

    def first(self, count: int) -> "Candidates":
        """The first `count` of each image."""
        return Candidates(*(part[:, :count] for part in self))

    def joined(self, others: "Candidates") -> "Candidates":
        """All of both."""
        return Candidates(*(torch.cat(parts, 1) for parts in zip(self, others)))

    def renewed(self, share: float, generator: random.Generator) -> "Candidates":
        """The last `share` of them drawn anew: half of these near one of the better half of those that stay, the others all around."""
        n, count = self.regret.shape
        fresh = min(count - 1, round(share * count))
        stay, near = self.first(count - fresh), fresh // 2
        around = Candidates.drawn(n, fresh - near, generator, self.regret.device)
        of = random.integers(n * near, 0, (count - fresh + 1) // 2, generator).view(n, near).to(self.regret.device)
        spread = self.angles.new_tensor(NEAR)
        angles = self.at(of).angles + spread * random.normal(n, near, 2, generator=generator, device=self.regret.device)
        angles = torch.stack([angles[..., 0].clamp(0, HIGHEST), angles[..., 1]], -1)
        return stay.joined(Candidates.new(angles)).joined(around)


class PoseSet(nn.Module):
    """Where candidates come from: drawn anew each time, or with `images` above 0 kept for so many images, of which a visit draws the worst
    `renew` anew. Every process keeps all of them. With `even` above 0 azimuths that were chosen often lately count as worse."""

    angles: Tensor
    regret: Tensor
    visits: Tensor
    usage: Tensor

    def __init__(self, images: int, candidates: int, renew: float = 0.5, even: float = 0.0) -> None:
        super().__init__()
        self.images, self.candidates, self.renew, self.even = images, candidates, renew, even
        if even:
            self.register_buffer("usage", torch.full((BINS,), 1 / BINS))
        if images:
            for name, part in Candidates.drawn(images, candidates, random.seeded(0, 33))._asdict().items():
                self.register_buffer(name, part)

    def propose(self, row: Tensor | None, n: int, generator: random.Generator, device: torch.device) -> Candidates:
        """Candidates for `n` images number `row` [n]. InputError for images without a number, and for numbers that are not kept."""
        if not self.images:
            return Candidates.drawn(n, self.candidates, generator, device)
        if row is None:
            raise InputError("poses are kept for images that have a number, as those of tw.data.Views do; set kept = 0 for others")
        if (last := int(row.max())) >= self.images:
            raise InputError(f"poses are kept for {self.images} images, image number {last} has none; set kept to their count")
        return Candidates(self.angles[row], self.regret[row], self.visits[row]).renewed(self.renew, generator)

    def keep(self, row: Tensor | None, found: Candidates, mean: Callable[[Tensor], Tensor]) -> None:
        """What was found of images number `row`, the best first; `mean` averages over processes, as of `update.mean`."""
        if self.images and row is not None:
            for buffer, part in zip((self.angles, self.regret, self.visits), found):
                put_back(buffer, row, part, mean)
        if self.even:
            bins = torch.arange(BINS, device=self.usage.device)
            chosen = (self._bin(found.angles[:, :1, 1]) == bins).to(self.usage).mean(0)  # bincount is not deterministic on GPUs
            self.usage.mul_(LATELY).add_((1 - LATELY) * mean(chosen))

    def penalty(self, angles: Tensor) -> Tensor:
        """By how much poses [B, K, 2] count as worse, in mean misfits, [B, K]: `even` times the logarithm of how many times as often as if
        all were alike azimuths near theirs were chosen lately."""
        if not self.even:
            return torch.zeros_like(angles[..., 1])
        near = (self.usage.roll(1) + self.usage + self.usage.roll(-1)) / 3
        return self.even * (BINS * near[self._bin(angles[..., 1])]).clamp(min=0.05).log()

    @staticmethod
    def _bin(azimuth: Tensor) -> Tensor:
        return (torch.remainder(azimuth, 2 * math.pi) * (BINS / (2 * math.pi))).long().clamp(max=BINS - 1)


def search(
    posteriors: Sequence[tuple[Tensor, Tensor]],
    misfit: Callable[[Tensor], Tensor],
    candidates: Candidates,
    *,
    distance: float,
    focal: float,
    own: bool = True,
    penalty: Callable[[Tensor], Tensor] = lambda angles: torch.zeros_like(angles[..., 0]),
) -> tuple[Tensor, Tensor, Candidates]:
    """The likeliest cameras of B images [B, 1, 3, 5]; the loss by which their posteriors learn to name them, [B]; as many candidates as
    before, the best first.

    `posteriors`: mean directions [B, 2] and concentrations [B] of altitude and azimuth. Tried are the `candidates` and, if `own`, their
    means. `penalty(angles)` [B, K], in means of all misfits, is added for poses [B, K, 2].
    `misfit(camera)` is how badly images are explained [B, K] by cameras [B, K, 3, 5], as −log p(image | camera) up to unit and constant.
    """
    tried = candidates
    if own:
        means = torch.stack([torch.atan2(direction[:, 1], direction[:, 0]) for direction, _ in posteriors], -1)
        tried = tried.joined(Candidates.new(means.detach()[:, None]))

    def seen_from(angles: Tensor) -> Tensor:
        return cameras.orbit(*(cameras.unit_vector(angle) for angle in angles.unbind(-1)), distance=distance, focal=focal)

    with torch.no_grad():
        found = misfit(seen_from(tried.angles))
        found = found + found.mean() * penalty(tried.angles)
    visits = tried.visits + 1
    regret = tried.regret + (found - found.amin(1, keepdim=True) - tried.regret) / visits.clamp(max=MEMORY)
    ordered = Candidates(tried.angles, regret, visits).at(regret.argsort(1))
    best = ordered.angles[:, 0]
    loss = torch.zeros(len(best), device=best.device)
    for angle, (direction, kappa) in zip(best.unbind(-1), posteriors):
        vector = cameras.unit_vector(angle)
        # directions learn on their own: by the likelihood alone those of κ = 0 would have no gradient, and κ stay there
        loss = loss + von_mises.surprise(vector, direction.detach(), kappa) + 1 - (vector * direction).sum(1)
    return seen_from(best)[:, None], loss, ordered.first(candidates.regret.shape[1])
