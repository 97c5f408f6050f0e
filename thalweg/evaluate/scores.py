"""Scores of an energy model for telling outliers from inliers; higher is always more outlying.

energy       E(x), that is −log p(x) up to a constant
joint        min over y of E(x, y) = E(x) − max log p(y|x), for models that classify (JEM, arXiv:1912.03263, sec. 5.3)
mass         ‖∇E(x)‖: little probability mass lies where the density is steep (JEM, "approximate mass")
typicality   |E(x) − mean E of training images|: what is too likely counts too (Nalisnick et al., arXiv:1906.02994)
"""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from thalweg.energy import score as score_of
from thalweg.errors import InputError, nearest
from thalweg.evaluate.ood import OODReport, ood
from thalweg.nn.layers import frozen


def energies(method, x: Tensor, *, batch: int = 512) -> Tensor:
    """Energies of many examples x [N, ...] under a trained method, [N] nats, on the CPU, `batch` at a time without gradients."""
    return _batched(method, x, batch, method.energy)


def _batched(method, x: Tensor, batch: int, score: Callable[[Tensor], Tensor]) -> Tensor:
    device = next(method.parameters()).device
    with torch.no_grad():
        return torch.cat([score(part.to(device)).cpu() for part in x.split(batch)])


def _joint(method, x: Tensor, batch: int, reference: Tensor) -> Tensor:
    return _batched(method, x, batch, lambda part: method.energy(part) - method.classify(part).log_softmax(1).amax(1))


def _mass(method, x: Tensor, batch: int, reference: Tensor) -> Tensor:
    with frozen(method):
        return _batched(method, x, batch, lambda part: score_of(method.energy, part).flatten(1).norm(dim=1))


def _typicality(method, x: Tensor, batch: int, reference: Tensor) -> Tensor:
    return (energies(method, x, batch=batch) - energies(method, reference, batch=batch).mean()).abs()


_SCORES = {
    "energy": lambda method, x, batch, reference: energies(method, x, batch=batch),
    "joint": _joint,
    "mass": _mass,
    "typicality": _typicality,
}
SCORES = tuple(_SCORES)


def fitting_scores(method) -> tuple[str, ...]:
    """The scores that a method has: all of `SCORES`, `joint` only where it classifies."""
    return tuple(name for name in SCORES if name != "joint" or hasattr(method, "classify"))


def outlier_score(name: str, method, x: Tensor, *, reference: Tensor | None = None, batch: int = 512) -> Tensor:
    """One of `SCORES` of x [N, ...] under a trained method, [N], on the CPU; higher is more outlying.

    reference [R, ...]: training examples, needed by `typicality`. Raises InputError for an unknown score, one that the method
    does not have, or a missing reference.
    """
    if name not in _SCORES:
        raise InputError(f"unknown score '{name}'{nearest(name, SCORES)}. Scores: {', '.join(SCORES)}")
    if name not in fitting_scores(method):
        raise InputError(f"score '{name}' needs a model that classifies; {method.name} does not")
    if name == "typicality" and (reference is None or not len(reference)):
        raise InputError("score 'typicality' needs training examples as reference")
    return _SCORES[name](method, x, batch, reference)


def ood_table(
    method,
    inliers: Tensor,
    outliers: Mapping[str, Tensor],
    *,
    scores: Iterable[str] | None = None,
    reference: Tensor | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> tuple[dict[str, dict[str, OODReport]], dict[str, dict[str, Tensor]]]:
    """Detection of each kind of outliers by each score: reports[score][kind], and the scores themselves, values[score][kind].

    inliers [N, ...]: test examples of the data the model knows, under the kind "held-out" among the values. outliers: name ->
    [M, ...]. scores: all that fit the method when None. Intervals as in `ood`.
    """
    scores = fitting_scores(method) if scores is None else tuple(scores)
    reports: dict[str, dict[str, OODReport]] = {}
    values: dict[str, dict[str, Tensor]] = {}
    for name in scores:
        values[name] = {kind: outlier_score(name, method, x, reference=reference) for kind, x in {"held-out": inliers, **outliers}.items()}
        reports[name] = {kind: ood(values[name]["held-out"], values[name][kind], bootstrap=bootstrap, seed=seed) for kind in outliers}
    return reports, values
