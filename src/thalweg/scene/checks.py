"""Settings of a model of objects in space, and images, that do not go together."""

from typing import TYPE_CHECKING, Any

from thalweg.errors import InputError
from thalweg.scene.specs import Amortized, SemiAmortized

if TYPE_CHECKING:
    from torch import Tensor


def check(c: Any, name: str) -> None:
    """Raises InputError, which begins with the method's `name`, for settings that do not go together."""
    amortized = isinstance(c.learner, Amortized)
    if len(c.shape) != 3 or c.shape[0] != 3:
        raise InputError(f"{name} is for colour images [3, H, W], got shape {c.shape}")
    if not c.renderer.far > c.renderer.near:
        raise InputError(f"{name}: far must be above near, got near = {c.renderer.near:g} and far = {c.renderer.far:g}")
    if isinstance(c.learner, Amortized | SemiAmortized) and c.prior.reference == "uniform":
        raise InputError(f"{name}: learner = '{c.learner.kind}' needs reference = 'normal', against which its divergence is known")
    if amortized and c.views > 1:
        raise InputError(f"{name}: the inference network sees one image; views = {c.views} needs learner = 'mcmc' or 'persistent'")
    if not amortized and not c.learner.posterior_chain.steps:
        raise InputError(f"{name}: chains on the posterior need posterior_chain.steps of 1 or more")
    if not amortized and not c.learner.infer_chain.steps:
        raise InputError(f"{name}: learner = '{c.learner.kind}' infers by chains alone: infer_chain.steps must be 1 or more")
    if not amortized and c.poses == "unknown":
        raise InputError(f"{name}: unknown poses are inferred by learner = 'amortized', got '{c.learner.kind}'")
    if isinstance(c.learner, SemiAmortized) and c.learner.parts > (n := c.views * (c.renderer.rays or c.shape[1] * c.shape[2])):
        raise InputError(f"{name}: a batch looks at {n} pixels of an object, which are no {c.learner.parts} parts; lower learner.parts")
    if c.pose_search is not None and c.poses == "known":
        raise InputError(f"{name}: pose_search is for poses = 'unknown'")
    if c.batch % c.views:
        raise InputError(f"{name}: a batch of {c.batch} does not divide by views = {c.views}")


def check_views(c: Any, name: str, x: "Tensor", camera: "Tensor | None") -> None:
    """Raises InputError unless images [N, V, C, H, W] and cameras [N, V, 3, 5], or none, are of the shapes that settings `c` ask for."""
    if x.dim() != 5 or tuple(x.shape[2:]) != tuple(c.shape):
        raise InputError(f"{name}: infer needs images [N, {', '.join(map(str, c.shape))}] or [N, V, …], got {list(x.shape)}")
    if (camera is None) != (c.poses == "unknown"):
        wanted = "give cameras" if camera is None else "it infers cameras, give none"
        raise InputError(f"{name}: this model has poses = '{c.poses}': {wanted}")
    if camera is not None and tuple(camera.shape) != (*x.shape[:2], 3, 5):
        raise InputError(f"{name}: cameras must be {[*x.shape[:2], 3, 5]}, got {list(camera.shape)}")
