"""Specs of random views of images: their settings, bound once in a config and called like a function.

    views = RandomViews(crop=0.5)
    view = views(x, generator)

torch and kornia are imported when the first view is drawn.
"""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from thalweg.config import STRICT, Fraction, NotNegative, Positive, Whole

if TYPE_CHECKING:
    from torch import Tensor

    from thalweg import random


@dataclass(frozen=True, config=STRICT)
class RandomViews:
    """The random views of SimCLR (Chen et al. 2020, appendix A), each image its own (`data.augment`)."""

    kind: Literal["augmented"] = "augmented"
    crop: Fraction = 0.2
    """least share of an image's area that a crop keeps, resized to the image's size; 1 for no crops"""
    flip: Fraction = 0.5
    """probability of a mirror image"""
    jitter: NotNegative = 0.4
    """strength of changes, made with probability 0.8: brightness times 1 ± jitter, so that black stays black, contrast by a blend with the
    image's mean, in colour also saturation and (a quarter) hue"""
    grey: Fraction = 0.1
    """probability of a grey image, for three channels"""

    def __call__(self, x: "Tensor", generator: "random.Generator" = None) -> "Tensor":
        """Images [B, C, H, W] in [−1, 1] -> views of the same shape and range; the same generator gives the same views.

        InputError for anything but images, and without kornia.
        """
        from thalweg.data.augment import random_views

        return random_views(x, generator, crop=self.crop, flip=self.flip, jitter=self.jitter, grey=self.grey)


@dataclass(frozen=True, config=STRICT)
class NoiseViews:
    """An example with uniform noise of one grey value of 256 (LIEBM, sec. 4), also for vectors (`data.augment`)."""

    kind: Literal["noise"] = "noise"

    def __call__(self, x: "Tensor", generator: "random.Generator" = None) -> "Tensor":
        """Examples [B, ...] in [−1, 1] -> the same; the same generator gives the same noise."""
        from thalweg.data.augment import grey_noise

        return grey_noise(x, generator)


@dataclass(frozen=True, config=STRICT)
class Shifts:
    """Mirror images and shifts by whole pixels, each image its own: nothing is resampled, so that pixels stay as sharp as they are."""

    kind: Literal["shifts"] = "shifts"
    flip: Fraction = 0.5
    """probability of a mirror image"""
    shift: Whole = 2
    """most pixels that an image is moved, up or down and to a side; its edge is repeated where it leaves room"""

    def __call__(self, x: "Tensor", generator: "random.Generator" = None) -> "Tensor":
        """Images [B, C, H, W] -> the same shape and values; the same generator gives the same. InputError for anything but images."""
        from thalweg.data.augment import random_shifts

        return random_shifts(x, generator, flip=self.flip, shift=self.shift)


@dataclass(frozen=True, config=STRICT)
class Affine:
    """Small random turns, scalings and shifts (`data.augment`)."""

    kind: Literal["affine"] = "affine"
    strength: Positive = 1.0
    """1 means ±0.2 radians, ±10 %, ±0.075 of the side"""

    def __call__(self, x: "Tensor", generator: "random.Generator" = None) -> "Tensor":
        """Images [B, C, H, W] in [−1, 1] -> the same; the same generator gives the same. InputError for anything but images."""
        from thalweg.data.augment import random_affine

        return random_affine(x, self.strength, generator)


# what a config's field may say: of views to be told apart or matched, and of training images that are to stay what they are
Views = Annotated[RandomViews | NoiseViews, Field(discriminator="kind")]
Augmentation = Annotated[Shifts | Affine | RandomViews, Field(discriminator="kind")]


def augmented(x: "Tensor", views: "Shifts | Affine | RandomViews | NoiseViews | None", generator: "random.Generator" = None) -> "Tensor":
    """Views of training examples x [B, ...] as a config says, or x as it is: the same shape; drawn by the step's generator alone."""
    return x if views is None else views(x, generator)
