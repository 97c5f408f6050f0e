"""Scores of an energy model for telling outliers from inliers; higher is always more outlying.

energy       E(x), that is −log p(x) up to a constant
joint        min over y of E(x, y) = E(x) − max log p(y|x), for models that classify (JEM, arXiv:1912.03263, sec. 5.3);
             a model's own joint score, where it has one (LIEBM, eq. 15)
mass         ‖∇E(x)‖: little probability mass lies where the density is steep (JEM, "approximate mass")
typicality   |E(x) − mean E of training images|: what is too likely counts too (Nalisnick et al., arXiv:1906.02994)
levels       for models with energies at many noise levels: how unlikely energies, slopes in log σ and gradient norms at several levels
             are, all together, among those of training images (`LevelScore`)
"""

import math
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from thalweg.energy import score as score_of
from thalweg.errors import InputError, nearest, require
from thalweg.evaluate.ood import OODReport, ood
from thalweg.given import Examples, Kinds, takes
from thalweg.nn.layers import frozen

SCORES = ("energy", "joint", "mass", "typicality", "levels")
REFERENCE, LEAST = 5_000, 30  # training examples whose mean energy is known well enough; that the score "levels" needs
ROWS_A_PART = 100  # of the reference, for each Gaussian by which "levels" describes it
LEVELS, HIGHEST = 8, 20.0  # noise levels of the score "levels"; beyond so much noise nothing is left of standardised data


@takes
def energies(method, x: Examples, *, batch: int = 512) -> Tensor:
    """Energies of many examples x [N, ...] under a trained method, [N] nats, on the CPU, `batch` at a time without gradients."""
    return _batched(method, x, batch, method.energy)


def _batched(method, x: Tensor, batch: int, score: Callable[[Tensor], Tensor]) -> Tensor:
    device = next(method.parameters()).device
    with torch.no_grad():
        return torch.cat([score(part.to(device)).cpu() for part in x.split(batch)])


def fitting_scores(method) -> tuple[str, ...]:
    """The scores that a method has: `joint` only where it classifies or has an `outlier_score`, `levels` where it has noise levels."""
    lacking = set() if {"classify", "outlier_score"} & method.abilities else {"joint"}
    lacking |= set() if "level_energies" in method.abilities else {"levels"}
    return tuple(name for name in SCORES if name not in lacking)


class LevelScore:
    """How unlike training examples x is by what a model says of it at `LEVELS` noise levels: fitted to `reference` [R, ...], R ≥ 30.

    At levels that are evenly spaced in log σ: U(x, σ), its slope in log σ, and log ‖σ ∇U‖², of x without noise. The score is −log of
    the density of these numbers over the reference, up to a constant: a Gaussian whose covariance is shrunk by a hundredth, or more
    where examples are few; or, of 400 examples or more, a mixture of as many Gaussians as say most of a quarter of them that is held out.
    A constant of each level makes no difference. No outlier is looked at.
    """

    def __init__(self, method: Any, reference: Tensor, *, batch: int = 256) -> None:
        if len(reference) < LEAST:
            raise InputError(f"score 'levels' needs {LEAST} training examples or more as reference, got {len(reference)}")
        low, high = (math.log(min(HIGHEST, sigma)) for sigma in method.sigma_range)
        self.sigmas = [math.exp(low + (high - low) * (i + 0.5) / LEVELS) for i in range(LEVELS)]
        self.method, self.batch = method, batch
        found = self.features(reference)
        self.mean = found.mean(0)
        self.std = found.std(0).clamp_min(1e-9)
        z = (found - self.mean) / self.std
        shrunk = max(0.01, min(0.5, 12 / len(z)))
        correlation = (1 - shrunk) * z.T @ z / len(z) + shrunk * torch.eye(z.shape[1], dtype=z.dtype)
        self.whiten = torch.linalg.cholesky(torch.linalg.inv(correlation))
        self.mixture = _mixture((z @ self.whiten).numpy())

    def features(self, x: Tensor) -> Tensor:
        """[N, ...] -> [N, 3 · LEVELS] on the CPU in float64."""
        parts = x.split(self.batch)
        return torch.cat([of_levels(self.method, part.to(self.method.device), self.sigmas).cpu() for part in parts])

    def __call__(self, x: Tensor) -> Tensor:
        """The score of x [N, ...], [N] nats; higher is more outlying."""
        z = ((self.features(x) - self.mean) / self.std) @ self.whiten
        return 0.5 * z.square().sum(1) if self.mixture is None else -torch.as_tensor(self.mixture.score_samples(z.numpy()))


def of_levels(method: Any, x: Tensor, sigmas: Iterable[float]) -> Tensor:
    """U, its slope in log σ, and log ‖σ ∇U‖² of x [N, ...] at each of `sigmas`, one level after the other: [N, 3 · levels] float64."""
    columns = []
    with frozen(method):
        for sigma in sigmas:
            value, by_x, by_level = method.slopes(x, sigma=sigma)
            columns += [value, by_level, (sigma * by_x).flatten(1).square().sum(1).log()]
    return torch.stack(columns, 1).double()


def _mixture(z: Any) -> Any:
    """A mixture of Gaussians of whitened numbers z [R, D]: as many parts as say most of those that are held out; None for a single one."""
    best, parts = -math.inf, 1
    if len(z) < 4 * ROWS_A_PART:
        return None
    mixture = require("sklearn.mixture", "metrics").GaussianMixture

    def fitted(count: int, rows: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # whether it has converged is told by what is held out
            return mixture(count, reg_covar=0.03, max_iter=50, random_state=0).fit(rows)

    held_out = [i % 4 == 3 for i in range(len(z))]
    kept, shown = z[[not held for held in held_out]], z[held_out]
    for count in (1, 2, 4, 8, 16, 32):
        if count * ROWS_A_PART > len(kept):
            break
        value = fitted(count, kept).score(shown)
        if value > best:
            best, parts = value, count
    return None if parts == 1 else fitted(parts, z)


@takes
def outlier_scores(
    method,
    x: Examples,
    names: Iterable[str] | None = None,
    *,
    reference: Examples | float | None = None,
    level_score: LevelScore | None = None,
    batch: int = 512,
) -> dict[str, Tensor]:
    """Some of `SCORES` (all that fit when None) of x [N, ...] under a trained method: name -> [N] on the CPU, higher is more outlying.

    reference: training examples [R, ...], needed by `typicality`, for which their mean energy will do, and by `levels`, for which a
    `LevelScore` will. Energies are computed once for all scores.
    Raises InputError for an unknown score, one that the method does not have, or a missing reference.
    """
    names = fitting_scores(method) if names is None else tuple(names)
    for name in names:
        if name not in SCORES:
            raise InputError(f"unknown score '{name}'{nearest(name, SCORES)}. Scores: {', '.join(SCORES)}")
        if name not in fitting_scores(method):
            lacks = "has energies at many noise levels" if name == "levels" else "classifies"
            raise InputError(f"score '{name}' needs a model that {lacks}; {method.name} does not")
    if "typicality" in names and (reference is None or (isinstance(reference, Tensor) and not len(reference))):
        raise InputError("score 'typicality' needs training examples as reference")
    if "levels" in names and level_score is None and not isinstance(reference, Tensor):
        raise InputError("score 'levels' needs training examples as reference")
    found = {}
    energy = energies(method, x, batch=batch) if set(names) - {"mass", "levels"} else None
    for name in names:
        if name == "levels":
            found[name] = (level_score or LevelScore(method, reference))(x)
        elif name == "energy":
            found[name] = energy
        elif name == "joint" and "outlier_score" in method.abilities:
            found[name] = _batched(method, x, batch, method.outlier_score)
        elif name == "joint":
            found[name] = energy - _batched(method, x, batch, lambda part: method.classify(part).log_softmax(1).amax(1))
        elif name == "mass":
            with frozen(method):
                found[name] = _batched(method, x, batch, lambda part: score_of(method.energy, part).flatten(1).norm(dim=1))
        else:
            centre = float(energies(method, reference, batch=batch).mean()) if isinstance(reference, Tensor) else reference
            found[name] = (energy - centre).abs()
    return found


@takes
def ood_table(
    method,
    inliers: Examples,
    outliers: Kinds,
    *,
    scores: Iterable[str] | None = None,
    reference: Examples | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> tuple[dict[str, dict[str, OODReport]], dict[str, dict[str, Tensor]]]:
    """Detection of each kind of outliers by each score: reports[score][kind], and the scores themselves, values[score][kind].

    inliers [N, ...]: test examples of the data the model knows, under the kind "held-out" among the values. outliers: name ->
    [M, ...]. scores: all that fit the method and the examples when None. reference [R, ...]: training examples, of which 5,000 give the
    mean energy for `typicality` and what `levels` compares with. Intervals as in `ood`.
    """
    names = fitting_scores(method) if scores is None else tuple(scores)
    if scores is None and reference is not None and len(reference) < LEAST:
        names = tuple(name for name in names if name != "levels")
    centre = levels = None
    if "typicality" in names and reference is not None and len(reference):
        centre = float(energies(method, reference[:REFERENCE]).mean())
    if "levels" in names and reference is not None:
        levels = LevelScore(method, reference[:REFERENCE])
    by_kind = {
        kind: outlier_scores(method, x, names, reference=centre, level_score=levels)
        for kind, x in {"held-out": inliers, **outliers}.items()
    }
    values = {name: {kind: found[name] for kind, found in by_kind.items()} for name in names}
    reports = {
        name: {kind: ood(values[name]["held-out"], values[name][kind], bootstrap=bootstrap, seed=seed) for kind in outliers}
        for name in names
    }
    return reports, values
