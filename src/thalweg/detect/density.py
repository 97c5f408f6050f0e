"""The density of a detector: `dual` energies of a few networks, each of which leaves a part of the rows out.

    rows fall into as many folds as there are members; member j learns from all folds but j
    new rows: U_σ(x) = mean_j U_j(x, σ);  rows of the fit: U_j(x, σ) of the member that left x out

So every row of the fit has energies from a network that has not seen it, which is what thresholds and p-values are made of, and no row is
lost for them (cross-conformal prediction, Vovk 2015).
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

import thalweg.methods as methods
from thalweg import random
from thalweg.data.base import Batch
from thalweg.nn.build import MLP
from thalweg.updates import Update

LEVELS = tuple(0.05 * 24 ** (k / 3) for k in range(4))  # σ of the energies, in units of a column's deviation: 0.05 … 1.2
SIGMA_MIN, SIGMA_MAX = 0.04, 5.0  # of training
BLOCK = 1024  # rows whose energies are found at once
FULL_COVARIANCE = 256  # columns up to which the Gaussian that is tilted has all of its covariance


@dataclass(frozen=True)
class Training:
    """How members are trained: `updates` of `batch` rows each, fewer where all of `members` ≥ 2 together would take over `seconds`."""

    members: int = 5
    updates: int = 400
    batch: int = 256
    seconds: float = 60.0
    width: int = 128
    lr: float = 4e-3


class Ensemble:
    """The members, models of `dual` for rows of the same width, which are the one of its `blocks`."""

    def __init__(self, models: list[Any]) -> None:
        self.models, self.blocks = models, [self]
        self.log_z = [[log_z_at(model, sigma) for sigma in LEVELS] for model in models]

    def energies(self, x: Tensor) -> Tensor:
        """Nats, the mean of the members, of rows x [N, D]: U at `LEVELS`, and of the Gaussian at the lowest, [N, levels + 1] float64."""
        return self.of_each(x).mean(0)

    @torch.no_grad()
    def of_each(self, x: Tensor) -> Tensor:
        """`energies` of each of the members, [members, N, levels + 1]."""
        none = x.new_zeros(len(self.models), 0, len(LEVELS) + 1).double()
        return torch.cat([self._of_each(part) for part in x.split(BLOCK)], 1) if len(x) else none

    def in_graph(self, x: Tensor) -> Tensor:
        """`energies` of a few rows, which may be differentiated."""
        return self._of_each(x).mean(0)

    def _of_each(self, x: Tensor) -> Tensor:
        return torch.stack([_energies(model, log_z, x) for model, log_z in zip(self.models, self.log_z)])

    @torch.no_grad()
    def left_out(self, x: Tensor, fold: Tensor) -> Tensor:
        """`energies` by the member that `fold` [N] names alone, the mean of all where it is −1."""
        found = torch.zeros(len(x), len(LEVELS) + 1, dtype=torch.float64)
        found[fold < 0] = self.energies(x[fold < 0])
        for member in range(len(self.models)):
            found[fold == member] = Ensemble([self.models[member]]).energies(x[fold == member])
        return found

    def usual(self, x: Tensor) -> Tensor:
        """A usual row near each row x [N, D]: level by level, from the highest, what is expected there, x − σ²∇U (Tweedie's formula)."""
        for sigma in reversed(LEVELS):
            x = x - sigma**2 * self._mean_slope(x, sigma)
        return x

    @torch.no_grad()
    def log_density(self, x: Tensor, sigma: float) -> Tensor:
        """log p_σ, nats, normalised, the mean of the members: [N] float64."""
        return -torch.stack([model.energy(x, sigma=sigma).double() for model in self.models]).mean(0)

    def _mean_slope(self, x: Tensor, sigma: float) -> Tensor:
        of_each = [torch.cat([model.slopes(part, sigma=sigma)[1] for part in x.split(BLOCK)]) for model in self.models]
        return torch.stack(of_each).mean(0)


class Blocks:
    """Ensembles of as many members, `blocks`, for several groups of columns, `widths` of them each: their energies side by side."""

    def __init__(self, blocks: list[Ensemble], widths: list[int]) -> None:
        self.blocks, self.widths, self.models = blocks, widths, blocks[0].models

    def energies(self, x: Tensor) -> Tensor:
        """As of an `Ensemble`, those of one block after the other: [N, blocks · (levels + 1)]."""
        return self._of_all("energies", x, dim=1)

    def of_each(self, x: Tensor) -> Tensor:
        return self._of_all("of_each", x, dim=2)

    def in_graph(self, x: Tensor) -> Tensor:
        return self._of_all("in_graph", x, dim=1)

    def left_out(self, x: Tensor, fold: Tensor) -> Tensor:
        return self._of_all("left_out", x, fold, dim=1)

    def usual(self, x: Tensor) -> Tensor:
        return self._of_all("usual", x, dim=1)

    def log_density(self, x: Tensor, sigma: float) -> Tensor:
        """As if the blocks were independent."""
        return sum((block.log_density(part, sigma) for block, part in self._parts(x)), torch.zeros(()))

    def _of_all(self, use: str, x: Tensor, *words: Any, dim: int) -> Tensor:
        return torch.cat([getattr(block, use)(part, *words) for block, part in self._parts(x)], dim)

    def _parts(self, x: Tensor) -> Any:
        return zip(self.blocks, x.split(self.widths, 1))


@torch.no_grad()
def log_z_at(model: Any, sigma: float) -> float:
    """What a member's energy with noise `sigma` has in addition to `tilted`, which is not normalised, in nats."""
    x = torch.zeros(1, *model.config.shape)
    return float(model.energy(x, sigma=sigma) - model.tilted(x, torch.tensor([math.log(sigma)])))


def _energies(model: Any, log_z: list[float], x: Tensor) -> Tensor:
    """[N, D] -> [N, levels + 1] float64; one log σ for all rows, whose embedding is found once."""
    found = [model.tilted(x, torch.tensor([math.log(s)], dtype=x.dtype)).double() + own for s, own in zip(LEVELS, log_z)]
    return torch.stack([*found, -model.tilt.base(LEVELS[0]).log_prob(x).double()], 1)


def fit(
    x: Tensor, training: Training, *, never: Tensor | None = None, apart: bool = False, seed: int = 0,
    note: Callable[[float], None] = lambda share: None,
) -> tuple[Ensemble, Tensor]:  # fmt: skip
    """Members trained on rows x [N, D] of columns of deviation 1, and the member that left each row out, [N] in {0, …, members − 1}.

    N ≥ 2; `never` [M]: rows that no member leaves out, whose fold is −1; with `apart` none learns from them either. `note` is told the
    share of the work that is done. There is no early stopping: that the loss of left-out rows rises again on small tables does not make
    their energies worse detectors.
    """
    t = training
    open_to_all = torch.ones(len(x), dtype=torch.bool)
    if never is not None:
        open_to_all[never] = False
    rows = open_to_all.nonzero()[:, 0]
    members = max(2, min(t.members, len(rows)))
    fold = torch.full((len(x),), -1)
    fold[rows[random.rows(len(rows), len(rows), generator=random.seeded(seed, 31))]] = torch.arange(len(rows)) % members
    start, models = time.perf_counter(), []
    for member in range(members):
        left = t.seconds - (time.perf_counter() - start)

        def told(share: float, member: int = member) -> None:
            note((member + share) / members)

        learned = x[(fold != member) & (open_to_all | (not apart))]
        models.append(_train(learned, t, seed + member, left / (members - member), told))
    return Ensemble(models), fold


def fit_blocks(
    x: Tensor, widths: Sequence[int], training: Training, *, never: Tensor | None = None, apart: Sequence[bool] = (False,), seed: int = 0,
    note: Callable[[float], None] = lambda share: None,
) -> tuple[Ensemble | Blocks, Tensor]:  # fmt: skip
    """`fit` of each of several groups of columns, in the same folds, `apart` or not; all have the time of one."""
    if len(widths) == 1:
        return fit(x, training, never=never, apart=apart[0], seed=seed, note=note)
    share, parts, blocks = replace(training, seconds=training.seconds / len(widths)), x.split(list(widths), 1), []
    for i, part in enumerate(parts):
        one, fold = fit(
            part, share, never=never, apart=apart[i], seed=seed,
            note=lambda done, i=i: note((i + done) / len(parts)),  # type: ignore[misc]
        )  # fmt: skip
        blocks.append(one)
    return Blocks(blocks, list(widths)), fold


def untrained(dim: int, t: Training) -> Any:
    """A member for rows of `dim` numbers, as it is before training."""
    return methods.method(
        "dual/vectors", shape=(dim,), net=MLP(width=t.width, depth=3), waves=2, batch=t.batch, lr=t.lr, level_weight=0.0,
        reference="full" if dim <= FULL_COVARIANCE else "diagonal", sigma_min=SIGMA_MIN, sigma_max=SIGMA_MAX, least_std=0.05, ema=0.995,
        images=t.updates * t.batch, lr_end=1.0, calibration=8_000,
    )  # fmt: skip


def _train(x: Tensor, t: Training, seed: int, seconds: float, note: Callable[[float], None]) -> Any:
    """A member: the running mean of the weights, normalised at every level."""
    torch.manual_seed(random.seeded(seed, 32).initial_seed())
    model = untrained(x.shape[1], t)
    model.prepare(x)
    update, chosen, start = Update(model, seed=seed), random.seeded(seed, 33), time.perf_counter()
    while update.updates < t.updates and (time.perf_counter() - start < seconds or not update.updates):
        update.step(Batch(x[random.integers(t.batch, 0, len(x), generator=chosen)]))
        note(max(update.updates / t.updates, min(1.0, (time.perf_counter() - start) / max(seconds, 1e-9))))
    update.ema.conclude(Batch(x), lambda share: None)
    return update.ema.eval()
