"""What a model says of an example: its class, and whether it is like the data."""

from collections.abc import Sequence
from typing import Any

from thalweg.data.prepare import trained_classes
from thalweg.given import Examples, Numbers, takes
from thalweg.methods.base import needs


@takes
def classify(method: Any, x: Examples, classes: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The most probable class of each example [N, ...], by name (those that the model was trained with by default), and its probability.

    Raises InputError for models that do not classify.
    """
    needs("classify", method, "classify")
    classes = trained_classes(method) if classes is None else classes
    probability, label = method.classify(x.to(method.device)).exp().max(1)
    return [{"class": classes[y], "probability": round(p, 6)} for y, p in zip(label.tolist(), probability.tolist())]


@takes
def detect(energies: Numbers, inliers: Numbers, *, score: str = "energy") -> list[dict[str, Any]]:
    """How unusual each energy [N] is among those of held-out inliers [M], both in nats, or scores of another name.

    `inliers_above` is the share of inliers that look no more likely: small means out of distribution.
    """
    share = (inliers[None, :] >= energies[:, None]).float().mean(1)
    return [{score: round(e, 4), "inliers_above": round(s, 4)} for e, s in zip(energies.tolist(), share.tolist())]
