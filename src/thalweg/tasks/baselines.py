"""What any restoration must beat: fillings of missing pixels that need no model."""

import torch
from torch import Tensor

from thalweg.errors import InputError
from thalweg.given import Examples, Numbers, takes
from thalweg.tasks import operators
from thalweg.tasks.checks import check_images


@takes
def mean_fill(x: Examples, mask: Numbers, train: Examples) -> Tensor:
    """Images [B, C, H, W] with missing pixels from the mean of the training images `train` [M, C, H, W]; all in [−1, 1].

    mask: 1 known, 0 missing, as `operators.mask` takes it; what x holds in missing pixels is not looked at.
    """
    operator, known = _checked(x, mask, train)
    return operator.project(train.mean(0, keepdim=True).to(known).expand_as(known), known)


@takes
def nearest_fill(x: Examples, mask: Numbers, train: Examples) -> Tensor:
    """As `mean_fill`, from the training image that is nearest in the known pixels, by the sum of squared differences."""
    operator, known = _checked(x, mask, train)
    weight = operator.forward(torch.ones_like(known)).double().flatten(1)
    visible, other = known.double().flatten(1), train.to(known).double().flatten(1)
    # ‖m(x − t)‖² up to ‖m x‖², which is the same for all t
    distance = weight @ other.square().T - 2 * visible @ other.T
    return operator.project(train.to(known)[distance.argmin(1)], known)


def _checked(x: Tensor, mask: Tensor, train: Tensor) -> tuple[operators.Mask, Tensor]:
    check_images("train", train)
    if x.dim() != 4 or x.shape[1:] != train.shape[1:] or not x.is_floating_point():
        wanted = ", ".join(map(str, train.shape[1:]))
        raise InputError(f"got images of {x.dtype} {list(x.shape)}, need floating-point [B, {wanted}] as in train")
    operator = operators.mask(mask).to(x.device)
    known = operator.forward(x)
    check_images("known pixels", known)
    return operator, known
