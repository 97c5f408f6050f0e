"""What a model says of an image: its class, and whether it is like the data."""

from typing import Any

from torch import Tensor

from thalweg.methods.base import needs


def classify(method: Any, x: Tensor, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """The most probable class of each image [N, C, H, W] in [−1, 1], by name, and its probability.

    Raises InputError for models that do not classify.
    """
    needs("classify", method, "classify")
    probability, label = method.classify(x).exp().max(1)
    return [{"class": classes[y], "probability": round(p, 6)} for y, p in zip(label.tolist(), probability.tolist())]


def detect(energies: Tensor, inliers: Tensor) -> list[dict[str, Any]]:
    """How unusual each energy [N] is among those of held-out inliers [M], both in nats.

    `inliers_above` is the share of inliers that look no more likely: small means out of distribution.
    """
    share = (inliers[None, :] >= energies[:, None]).float().mean(1)
    return [{"energy": round(e, 4), "inliers_above": round(s, 4)} for e, s in zip(energies.tolist(), share.tolist())]
