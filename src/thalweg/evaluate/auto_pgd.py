"""Auto-PGD, an attack in the sup-norm that sets its steps by how it fares: the part of AutoAttack that uses gradients.

    z = P(x_k + η sign ∇f(x_k)),   x_{k+1} = P(x_k + α (z − x_k) + (1 − α)(x_k − x_{k−1})),   η = 2ε at first

At checkpoints, which come closer together, η is halved and x put back to the best so far where f rose too seldom or found nothing better
(Croce and Hein, ICML 2020, arXiv:2003.01690). f is the cross-entropy, then for each of the likeliest wrong classes the targeted difference
of logits ratio, which no scaling or shift of the logits changes. FAB and Square, the rest of AutoAttack, are not here.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from thalweg.energy import value_and_score

TARGETS = 9  # wrong classes that are aimed at, the likeliest first
MOMENTUM, RISES = 0.75, 0.75  # α; share of steps that must rise between checkpoints
Logits = Callable[[Tensor], Tensor]


def withstands(
    logits: Logits, x: Tensor, y: Tensor, start: Tensor, *, radius: float, bounds: tuple[float, float], steps: int, targets: int = TARGETS
) -> Tensor:
    """Whether each of x [B, ...] within `bounds`, which is classified as y [B], still is after all attacks within ±`radius`: [B].

    `logits` (x [B, ...]) -> [B, classes]; `start` [B, ...] in [−1, 1], in units of the radius, is where the first attack begins; the
    others begin at x. `steps` gradients an attack, 1 + min(`targets`, classes − 1) attacks on what withstands.
    """
    with torch.no_grad():
        others = logits(x).scatter(1, y[:, None], -torch.inf).argsort(1, descending=True)[:, :-1][:, :targets]
    standing = torch.ones(len(x), dtype=torch.bool, device=x.device)
    for aim in (None, *range(others.shape[1])):
        rows = standing.nonzero()[:, 0]
        if not len(rows):
            break
        own, target = y[rows], None if aim is None else others[rows, aim]

        def objective(values: Tensor, own: Tensor = own, target: Tensor | None = target) -> Tensor:
            return F.cross_entropy(values, own, reduction="none") if target is None else ratio(values, own, target)

        begin = x[rows] + radius * start[rows] if aim is None else x[rows]
        standing[rows] = ~_broken(logits, objective, x[rows], own, begin, radius=radius, bounds=bounds, steps=steps)
    return standing


def ratio(values: Tensor, own: Tensor, target: Tensor) -> Tensor:
    """(z_t − z_y)/(z_1 − ½ (z_3 + z_4)) of logits [B, classes] sorted from z_1 down, [B]: the targeted difference of logits ratio.

    With three classes over z_1 − z_3; with two, whose ratio has no slope, z_t − z_y.
    """
    ahead = (values.gather(1, target[:, None]) - values.gather(1, own[:, None]))[:, 0]
    if values.shape[1] < 3:
        return ahead
    ranked = values.sort(1, descending=True).values
    return ahead / (ranked[:, 0] - ranked[:, 2:4].mean(1) + 1e-12)


def checkpoints(steps: int) -> list[int]:
    """The steps after which an attack looks back: 22 % in, then ever closer, at least 6 % apart."""
    gap, least, less = max(int(0.22 * steps), 1), max(int(0.06 * steps), 1), max(int(0.03 * steps), 1)
    found = [gap]
    while (found[-1] + (gap := max(gap - less, least))) <= steps:
        found.append(found[-1] + gap)
    return found


def _broken(
    logits: Logits,
    objective: Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    start: Tensor,
    *,
    radius: float,
    bounds: tuple[float, float],
    steps: int,
) -> Tensor:
    """Whether any point that the attack comes by is classified otherwise than as y, [B]."""
    low, high = (x - radius).clamp(*bounds), (x + radius).clamp(*bounds)
    broken = torch.zeros(len(x), dtype=torch.bool, device=x.device)

    def place(point: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(point, low), high)

    def look(point: Tensor) -> tuple[Tensor, Tensor]:
        """f and ∇f there: up f is down the energy −f."""

        def energy(point: Tensor) -> tuple[Tensor, Tensor]:
            values = logits(point)
            return -objective(values), values

        value, slope, values = value_and_score(energy, point, aux=True)
        broken.logical_or_(values.argmax(1) != y)
        return -value, slope

    def rows(value: Tensor) -> Tensor:
        return value.view(-1, *[1] * (x.dim() - 1))

    here = before = best = place(start)
    value, slope = look(here)
    best_value, best_slope = value, slope
    size, rises, last_best, last = torch.full_like(value, 2 * radius), torch.zeros_like(value), value, 0
    halved = torch.ones_like(broken)
    looks = set(checkpoints(steps))
    for i in range(1, steps + 1):
        ahead = place(here + rows(size) * slope.sign())
        if i > 1:
            ahead = place(here + MOMENTUM * (ahead - here) + (1 - MOMENTUM) * (here - before))
        before, here, former = here, ahead, value
        value, slope = look(here)
        rises = rises + (value > former)
        better = value > best_value
        best, best_slope = torch.where(rows(better), here, best), torch.where(rows(better), slope, best_slope)
        best_value = torch.where(better, value, best_value)
        if bool(broken.all()):
            break
        if i in looks:
            halved = (rises <= RISES * (i - last)) | (~halved & (best_value <= last_best))
            size = torch.where(halved, size / 2, size)
            here, slope = torch.where(rows(halved), best, here), torch.where(rows(halved), best_slope, slope)
            value = torch.where(halved, best_value, value)
            rises, last_best, last = torch.zeros_like(value), best_value, i
    return broken
