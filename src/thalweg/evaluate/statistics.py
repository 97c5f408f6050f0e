"""Means and covariances of features, gathered batch by batch in bounded memory, and kept on disk."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from thalweg.errors import InputError
from thalweg.evaluate.extractor import FeatureExtractor, cache_folder, keep, write_tensors
from thalweg.given import Batches, takes

_BROKEN = "damaged or not a file of feature statistics"


class FeatureStatistics:
    """The mean and covariance of features, updated batch by batch in float64; holds D² numbers whatever the count.

    `count`: features seen; `extractor`, `preprocessing`: where they come from, None if never said; `data`: a fingerprint of
    the images, 16 hexadecimal digits, None where features were given instead of images.
    """

    def __init__(self, num_features: int, *, extractor: str | None = None, preprocessing: str | None = None):
        self.num_features, self.extractor, self.preprocessing = num_features, extractor, preprocessing
        self.count, self.data = 0, None
        # Sums run about the mean of the first batch: squares of a large common offset would cost the covariance its digits.
        self._shift = torch.zeros(num_features, dtype=torch.float64)
        self._sum = torch.zeros(num_features, dtype=torch.float64)
        self._outer = torch.zeros(num_features, num_features, dtype=torch.float64)

    def update(self, features: Tensor) -> "FeatureStatistics":
        """Take in features [N, D], N ≥ 1, and return self. Raises InputError on another shape, NaN or infinity."""
        if features.dim() != 2 or features.shape[1] != self.num_features or not len(features):
            raise InputError(f"features: got shape {list(features.shape)}, need [N, {self.num_features}] with N ≥ 1")
        if not features.isfinite().all():
            raise InputError("features: NaN or infinity, need finite features")
        for part in features.detach().split(4096):  # so that the copy in double precision stays small
            part = part.cpu().double()
            if not self.count:
                self._shift = part.mean(0)
            centred = part - self._shift
            self._sum += centred.sum(0)
            self._outer.addmm_(centred.T, centred)
            self.count += len(part)
        return self

    @property
    def mean(self) -> Tensor:
        """[D] float64. Raises InputError before the first update."""
        if not self.count:
            raise InputError("feature statistics: no features yet, need 1 or more for a mean")
        return self._shift + self._sum / self.count

    @property
    def covariance(self) -> Tensor:
        """The unbiased covariance [D, D] float64. Raises InputError below 2 features."""
        if self.count < 2:
            raise InputError(f"feature statistics: {self.count} features, need 2 or more for a covariance")
        return (self._outer - torch.outer(self._sum, self._sum) / self.count) / (self.count - 1)

    @classmethod
    def of(cls, images: Tensor | Iterable, extractor: FeatureExtractor, *, batch: int = 256) -> "FeatureStatistics":
        """Statistics of images [N, C, H, W] in [−1, 1], or of an iterable of such batches (tensors, or anything with an `x`).

        One batch is in memory at a time, and `batch` images of it in the extractor. The result and the fingerprint do not
        depend on how the images are batched, up to rounding. Raises InputError where there are no images.
        """
        statistics = cls(extractor.num_features, extractor=extractor.name, preprocessing=extractor.preprocessing)
        digest = hashlib.sha256()
        for part in _batches(images, batch):
            _add_images(digest, part, first=not statistics.count)
            statistics.update(extractor.features(part, batch=batch))
        if not statistics.count:
            raise InputError("feature statistics: no images, need 1 or more")
        statistics.data = digest.hexdigest()[:16]
        return statistics

    def save(self, path: str | Path) -> None:
        """Write to a .safetensors file, whole or not at all, with the counts and names as its metadata."""
        tensors = {"shift": self._shift, "sum": self._sum, "outer": self._outer}
        about = {"extractor": self.extractor, "preprocessing": self.preprocessing, "data": self.data, "count": str(self.count)}
        about = {key: value for key, value in about.items() if value is not None}
        write_tensors(Path(path), tensors, about | {"sha256": _digest(tensors, about)})

    @classmethod
    def load(cls, path: str | Path) -> "FeatureStatistics":
        """Read what `save` wrote. Raises InputError where the file is missing, damaged or something else."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as stored:
                about = dict(stored.metadata() or {})
                tensors = {name: stored.get_tensor(name) for name in ("shift", "sum", "outer")}
        except FileNotFoundError:
            raise InputError(f"no file {path}: need feature statistics") from None
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path} is {_BROKEN} ({error})") from None
        if about.pop("sha256", None) != _digest(tensors, about) or not about.get("count", "").isdigit():
            raise InputError(f"{path} is {_BROKEN} (its contents do not match their checksum)")
        statistics = cls(len(tensors["sum"]), extractor=about.get("extractor"), preprocessing=about.get("preprocessing"))
        statistics._shift, statistics._sum, statistics._outer = (tensors[name] for name in ("shift", "sum", "outer"))
        statistics.count, statistics.data = int(about["count"]), about.get("data")
        return statistics


@takes
def reference_statistics(
    images: Batches | Iterable, extractor: FeatureExtractor, *, key: str | None = None, cache: bool = True, batch: int = 256
) -> FeatureStatistics:
    """`FeatureStatistics.of` real images, computed once and then read from the cache, $THALWEG_CACHE or ~/.cache/thalweg.

    An entry is found by a fingerprint of the images and of the extractor with its weights. An iterable cannot be looked up
    before it is read: it is cached only under a `key` that the caller gives, and vouches for ("cifar10/train/32"). A damaged
    entry is computed again. Raises InputError where the extractor has no state_dict to take the fingerprint of.
    """
    if not cache or (key is None and not isinstance(images, Tensor)):
        return FeatureStatistics.of(images, extractor, batch=batch)
    source = f"key {key}" if key is not None else f"data {image_fingerprint(images)}"
    entry = hashlib.sha256(f"{extractor_fingerprint(extractor)} {source}".encode()).hexdigest()[:16]
    path = cache_folder() / f"statistics-{extractor.name}-{entry}.safetensors"
    try:
        stored = FeatureStatistics.load(path)
        if (stored.extractor, stored.num_features) == (extractor.name, extractor.num_features):
            return stored
    except InputError:
        pass  # missing or damaged: compute it
    statistics = FeatureStatistics.of(images, extractor, batch=batch)
    keep(lambda: statistics.save(path))
    return statistics


def image_fingerprint(images: Tensor) -> str:
    """16 hexadecimal digits that stand for the images [N, C, H, W], their order included."""
    digest = hashlib.sha256()
    for i, part in enumerate(images.split(1024)):
        _add_images(digest, part, first=i == 0)
    return digest.hexdigest()[:16]


def extractor_fingerprint(extractor: FeatureExtractor) -> str:
    """16 hexadecimal digits that stand for an extractor: name, preprocessing and weights."""
    if not hasattr(extractor, "state_dict"):
        raise InputError(f"extractor '{extractor.name}' has no state_dict, so its statistics cannot be cached: use cache=False")
    digest = hashlib.sha256(f"{extractor.name}|{extractor.preprocessing}|{extractor.num_features}".encode())
    for name, value in sorted(extractor.state_dict().items()):
        digest.update(f"{name} {list(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().double().flatten().numpy())
    return digest.hexdigest()[:16]


def _batches(images: Tensor | Iterable, batch: int) -> Iterable[Tensor]:
    images = images if isinstance(images, Tensor) or not hasattr(images, "x") else images.x
    if isinstance(images, Tensor):
        return images.split(batch)
    return (part if isinstance(part, Tensor) else part.x for part in images)


def _add_images(digest, images: Tensor, *, first: bool) -> None:
    if first:
        digest.update(f"{list(images.shape[1:])}".encode())
    digest.update(images.detach().cpu().float().flatten().numpy())


def _digest(tensors: dict[str, Tensor], about: dict[str, str]) -> str:
    digest = hashlib.sha256(repr(sorted(about.items())).encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {list(value.shape)} {value.dtype}".encode())
        digest.update(value.contiguous().flatten().numpy())
    return digest.hexdigest()
