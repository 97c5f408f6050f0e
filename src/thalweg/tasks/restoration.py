"""Restore images from what a linear operator left of them, y = A x, by sampling under the constraint that A x is y, or given y = A x + s ε.

A model's `sample` calls a constraint at each state, whose level is signal·x₀ + noise·ε: the measured part of x is replaced by
what it is at that level, signal·y + noise·A ε with one fixed ε for each image. With a mask these are the known pixels, noised
(thesis, sec. 5.4.7); in general the null-space projection of Wang et al. 2023 (DDNM).
"""

import inspect
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from thalweg import random
from thalweg.errors import InputError
from thalweg.given import Examples, Numbers, takes
from thalweg.methods.base import check_sampling, has
from thalweg.tasks import operators
from thalweg.tasks.checks import check_count, check_images, check_model
from thalweg.tasks.operators import LinearOperator
from thalweg.tasks.posterior import Likelihood

ROWS = 256  # images in one call of a method's `sample` at most
NOISE, CORRECTIONS = 0.05, 2  # of known pixels, and steps at each level, where missing ones are drawn given those
OF_CONSTRAINTS = {"corrections", "resample", "sampler"}  # options that say how a constraint is kept


@dataclass(frozen=True, eq=False)
class Measured:
    """The constraint that A x₀ is `y` [B, ...]: x ↦ x − A⁺(A x − (signal·y + noise·A ε)), with `noise` = A ε shaped like y."""

    operator: LinearOperator
    y: Tensor
    noise: Tensor

    def __call__(self, x: Tensor, signal: Tensor | float, noise: Tensor | float) -> Tensor:
        """x [B, ...] with its measured part that of the level; `signal` and `noise` are numbers, or one for each row."""
        return self.operator.project(x, self._rows(signal) * self.y + self._rows(noise) * self.noise)

    def _rows(self, value: Tensor | float) -> Tensor | float:
        """A level's coefficient in as many axes as y has, which need not be those of x."""
        return value.reshape(-1, *[1] * (self.y.dim() - 1)) if isinstance(value, Tensor) and value.dim() else value


@takes
def restore(
    method: Any, y: Numbers, operator: LinearOperator, *, std: float = 0.0, completions: int = 4, seed: int = 0, **options: Any
) -> Tensor:
    """`completions` images for each measurement y = A x, drawn by a model under that constraint: [completions, B, C, H, W].

    With `std` s > 0 they are draws from p(x | y) for y = A x + s ε, by a model with energies of all noise levels (`tasks.posterior`).
    y [B, ...] is what `operator` makes of images of the model's shape, for a mask without noise within [−1, 1]. `options` go to the
    model's `sample`; a tensor among them with B rows has one for each image. The same seed and batch give the same images. Without noise
    what the model returns is projected once more, exactly onto A x = y, and then clamped to [−1, 1]: known pixels are equal to y to the
    last bit; for other operators the clamp may undo part of the projection, and `consistency` says how much. Raises InputError for
    models whose samples keep no constraint, or take no noise, and for a y of the wrong shape or not finite.
    """
    if not 0 <= std < math.inf:
        raise InputError(f"restore: std, of the measurement's noise, must be 0 or more and finite, got {std}")
    shape = check_model("restore", method, "evidence" if std else "constraint")
    check_sampling(method, options)
    check_count("completions", completions, 1)
    check_measured(y, operator, shape, noisy=std > 0)
    if std and isinstance(operator, operators.Mask) and len(operator.known) > 1:  # the likelihood is of one operator
        return _one_by_one(method, y, operator, std, completions, seed, options)
    y, device = y.float(), method.device
    images = torch.arange(len(y)).repeat(completions)
    likelihood = Likelihood(operator.to(device), std, method.gaussian, shape) if std else None
    parts = []
    for part, rows in enumerate(torch.arange(len(images)).split(ROWS)):
        image = images[rows]
        given = {name: value[image] if _one_each(value, len(y)) else value for name, value in options.items()}
        # each part has draws of its own, the first those of the seed itself
        own_seed = seed if part == 0 else random.seeded(seed, 10, part).initial_seed()
        if likelihood is not None:
            parts.append(method.sample(len(rows), seed=own_seed, evidence=likelihood.given(y[image].to(device)), **given).clamp(-1, 1))
            continue
        draws = [random.seeded(seed, 9, *divmod(int(row), len(y))) for row in rows]  # of (completion, image), whatever the part
        epsilon = torch.cat([random.normal(1, *shape, generator=draw) for draw in draws]).to(device)
        here, target = operator.rows(image).to(device), y[image].to(device)
        x = method.sample(len(rows), seed=own_seed, constraint=Measured(here, target, here.forward(epsilon)), **given)
        parts.append(here.project(x, target).clamp(-1, 1))
    return torch.cat(parts).view(completions, len(y), *shape).to(y.device)


def _one_by_one(method: Any, y: Tensor, operator: Any, std: float, completions: int, seed: int, options: dict[str, Any]) -> Tensor:
    found = []
    for i in range(len(y)):
        given = {name: value[i : i + 1] if _one_each(value, len(y)) else value for name, value in options.items()}
        own = operator.rows(torch.tensor([i], device=operator.known.device))
        own_seed = seed if i == 0 else random.seeded(seed, 15, i).initial_seed()
        found.append(restore(method, y[i : i + 1], own, std=std, completions=completions, seed=own_seed, **given))
    return torch.cat(found, 1)


@takes
def inpaint(
    method: Any, x: Examples, mask: Numbers, *, completions: int = 4, seed: int = 0, search: int | None = None,
    posterior: bool | None = None, **options: Any,
) -> Tensor:  # fmt: skip
    """`completions` fillings of the pixels that are missing from each image: [completions, B, C, H, W], equal to x where known.

    x [B, C, H, W] in [−1, 1]; what it holds in missing pixels is not looked at. mask: 1 known, 0 missing, as
    `operators.mask` takes it. The rest as `restore`. With `posterior` they are drawn given the known pixels with noise of 0.05, by
    energies of all noise levels and steps of MALA: all of the image then agrees with them, at some twelve times the cost of a constraint.
    By default so do models that can, unless `options` name how a constraint is kept. With `search`, for models that reconstruct, chains
    run freely, from starts that so many steps of optimisation have brought to agree with the known pixels (thesis, sec. 4.4.3); it
    excludes `posterior`, and `options` then go to the model's `reconstruct`.
    """
    if x.dim() != 4 or not x.is_floating_point():
        raise InputError(f"inpaint: got {x.dtype} {list(x.shape)}, need floating-point images [B, C, H, W]")
    operator = operators.mask(mask).to(x.device)
    operators.check_partial("inpaint", operator)
    if search is not None:
        if posterior:
            raise InputError("inpaint: search and posterior are two ways of filling in; give one of them")
        return _search(method, x, operator, completions, seed, search, options)
    y = operator.forward(x)
    if posterior is None:
        small = math.prod(check_model("inpaint", method, "constraint")) <= operators.MOST_ENTRIES
        posterior = small and has(method, "evidence") and not options.keys() & OF_CONSTRAINTS
    if posterior:
        found = restore(method, y, operator, std=NOISE, completions=completions, seed=seed, **{"corrections": CORRECTIONS, **options})
        return torch.stack([operator.project(one, y) for one in found])
    return restore(method, y, operator, completions=completions, seed=seed, **options)


def _search(method: Any, x: Tensor, operator: Any, completions: int, seed: int, steps: int, options: dict[str, Any]) -> Tensor:
    shape = check_model("inpaint with a search", method, "reconstruct")
    known_options = [name for name in inspect.signature(method.reconstruct).parameters if name not in ("x", "mask", "steps", "seed")]
    if unknown := [name for name in options if name not in known_options]:
        its = ", ".join(known_options) or "none"
        raise InputError(f"inpaint: with search there is no option {', '.join(unknown)}; {method.name} has {its}")
    check_count("search", steps, 1)
    check_count("completions", completions, 1)
    y = operator.forward(x.float())
    check_measured(y, operator, shape)
    known = operator.forward(torch.ones_like(y))
    rows, masks = (part.to(method.device).split(ROWS) for part in (y, known))
    parts = []
    for k in range(completions):
        seeds = [random.seeded(seed, 13, k, i).initial_seed() for i in range(0, len(x), ROWS)]
        found = [method.reconstruct(a, m, steps=steps, seed=s, **options).x for a, m, s in zip(rows, masks, seeds)]
        parts.append(operator.project(torch.cat(found).to(y.device), y))
    return torch.stack(parts)


@takes
def consistency(operator: LinearOperator, x: Numbers, y: Numbers) -> Tensor:
    """How far restored images are from their measurement: the root mean square of A x − y, for each image.

    x [B, C, H, W] -> [B], or completions [K, B, C, H, W] -> [K, B]; y [B, ...], in whose unit the figure is.
    """
    if x.dim() == 5:
        return torch.stack([consistency(operator, one, y) for one in x])
    found = operator.forward(x)
    if found.shape != y.shape:
        raise InputError(f"consistency: A x has shape {list(found.shape)}, y {list(y.shape)}; they must agree")
    return (found - y).flatten(1).square().mean(1).sqrt()


@takes
def diversity(completions: Numbers, mask: Numbers | None = None) -> Tensor:
    """How much the completions [K, B, C, H, W], K ≥ 2, of each image differ: their standard deviation in each pixel, averaged, [B].

    In the unit of images in [−1, 1]; over the missing pixels of `mask` (as `operators.mask` takes it) or over all.
    """
    if completions.dim() != 5 or len(completions) < 2:
        raise InputError(f"diversity: got shape {list(completions.shape)}, need [K, B, C, H, W] with K ≥ 2")
    spread = completions.std(0)
    if mask is None:
        return spread.flatten(1).mean(1)
    operator = operators.mask(mask)
    missing = 1 - operator.to(spread.device).forward(torch.ones_like(spread))
    if not missing.flatten(1).any(1).all():
        raise InputError("diversity: the mask leaves nothing to fill in")
    return (spread * missing).flatten(1).sum(1) / missing.flatten(1).sum(1)


@takes
def coverage(
    completions: Numbers, x: Examples, mask: Numbers | None = None, *, share: float | None = None, step: float = 0.0, seed: int = 0
) -> Tensor:
    """The share of pixels of each true image x [B, C, H, W] that lie in intervals of its K completions, [B].

    completions [K, B, C, H, W], K ≥ 2; of the missing pixels of `mask`, as `operators.mask` takes it, or of all. The intervals go from the
    least to the greatest completion, where draws of the true posterior have (K − 1)/(K + 1) of continuous pixels; with `share` q in (0, 1)
    they are the central ones of mass q: the rank of the truth among completions, ties in random order, lies in the middle q. Less than
    that says that completions are too alike, more that they are too unlike. With `step`, the width of a grey value, all are rounded to it,
    and pixels in which the truth and all completions are alike do not count; an image without others has NaN.
    """
    if completions.dim() != 5 or len(completions) < 2 or completions.shape[1:] != x.shape:
        raise InputError(f"coverage: got {list(completions.shape)} and {list(x.shape)}, need [K, B, C, H, W] with K ≥ 2 and [B, C, H, W]")
    if not (share is None or 0 < share < 1) or not 0 <= step < math.inf:
        raise InputError(f"coverage: share must be in (0, 1) and step 0 or more, got {share} and {step}")
    missing = torch.ones_like(x)
    if mask is not None:
        missing = 1 - operators.mask(mask).to(x.device).forward(missing)
        if not missing.flatten(1).any(1).all():
            raise InputError("coverage: the mask leaves nothing to fill in")
    if step:
        completions, x = ((value / step).round() for value in (completions, x))
        missing = missing * ((completions.amin(0) != x) | (completions.amax(0) != x))
    inside = (completions.amin(0) <= x) & (x <= completions.amax(0))
    if share is not None:
        below, ties = (completions < x).sum(0), (completions == x).sum(0)
        order = random.uniform(*x.shape, generator=random.seeded(seed, 16)).to(x.device)
        inside = ((below + order * (ties + 1)) / (len(completions) + 1) - 0.5).abs() <= share / 2
    return (inside * missing).flatten(1).sum(1) / missing.flatten(1).sum(1)


def _one_each(value: Any, images: int) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0 and len(value) == images


def check_measured(y: Tensor, operator: LinearOperator, shape: tuple[int, ...], *, noisy: bool = False) -> None:
    """Raises InputError unless y [B, ...] is what the operator makes of B images of `shape`, finite, and for a mask without noise in
    [−1, 1]."""
    if not y.is_floating_point() or not y.dim() or not len(y):
        raise InputError(f"restore: got y of {y.dtype} {list(y.shape)}, need floating-point [B, ...] with B ≥ 1")
    wanted = operator.to(y.device).forward(torch.zeros(len(y), *shape, device=y.device)).shape
    if y.shape != wanted:
        raise InputError(f"restore: got y of shape {list(y.shape)}, the operator makes {list(wanted)} of {len(y)} images {list(shape)}")
    if isinstance(operator, operators.Mask) and not noisy:
        check_images("known pixels", y)
    elif not y.isfinite().all():
        raise InputError(f"restore: {int((~y.isfinite()).flatten(1).any(1).sum())} of {len(y)} measurements hold NaN or infinity")
