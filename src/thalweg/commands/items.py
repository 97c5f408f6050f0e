"""Items for a detector: tables and pictures, from files, folders and by name."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from thalweg.errors import InputError

if TYPE_CHECKING:
    import numpy


class Items(NamedTuple):
    """What is looked at: a table, or pictures [N, C, H, W] in [−1, 1]; the names of pictures' files."""

    x: Any
    kind: str
    names: Sequence[str] = ()

    def rows(self, index: "numpy.ndarray") -> Any:
        return self.x.iloc[index] if hasattr(self.x, "iloc") else self.x[index]


def normal_items(source: str, size: int | None) -> Items:
    """Items to learn from: all of one's own, of data by name (or a folder with a folder train) those that are not for tests."""
    import torch

    from thalweg import data
    from thalweg.data.folders import FOLDERS

    path = Path(source)
    if (found := _of_file(path)) is not None:
        if size is not None and found.kind == "table":
            raise InputError(f"--size is of pictures, {source} is a table")
        return found if size is None else Items(_resized(found.x, (size, size), found.x.shape[1]), found.kind)
    if source in data.TOYS:
        return Items(data.load(source).batch(0, 10_000, 0).x.numpy(), "table")
    parts: list[Any] = [data.load(source, "train", size=size)]
    if not isinstance(parts[0], data.Images):
        raise InputError(f"{source}: a detector is of tables and pictures")
    divided = not path.is_dir() or any(child.name.lower() in FOLDERS["train"] for child in path.iterdir())
    for split in ("validation",) if divided else ("validation", "test"):
        with contextlib.suppress(InputError):  # so few that this split is empty
            parts.append(data.load(source, split, size=size, channels=parts[0].shape[0]))
    return Items(torch.cat([part.all().x for part in parts]).numpy(), "pictures")


def items_of(source: str, shape: Sequence[int] | None) -> Items:
    """Items to look at; `shape` [C, H, W]: of a detector of pictures, to which they are brought, None for one of tables."""
    from thalweg import data

    path = Path(source)
    found = _of_file(path)
    wanted = "table" if shape is None else "pictures"
    if found is not None and found.kind != wanted:
        raise InputError(f"--input {source} holds {'a table' if found.kind == 'table' else found.kind}, the detector is of {wanted}")
    if shape is None:
        if found is None and source not in data.TOYS:
            raise InputError(f"--input {source}: no table there; give a .csv, .tsv, .parquet, .npy or .npz file")
        return found or Items(data.load(source).batch(0, 1000, 1).x.numpy(), "table")
    size = (shape[1], shape[2])
    if found is not None:
        return Items(_resized(found.x, size, shape[0]), "pictures", [f"{path.name}[{i}]" for i in range(len(found.x))])
    if path.exists():
        from thalweg.commands.files import read_images

        names, x = read_images(source, size, shape[0])
        return Items(x.numpy(), "pictures", names)
    images = data.load(source, "test", size=size, channels=shape[0])
    x = images.batch(0, 1000, 1).x if not isinstance(images, data.Images) else images.all().x
    return Items(x.numpy(), "pictures", [f"{source}[{i}]" for i in range(len(x))])


def _of_file(path: Path) -> Items | None:
    """All items of a file of numbers, in order; None for anything else."""
    from thalweg.detect.files import SUFFIXES, read_table

    if not path.is_file() or path.suffix.lower() not in SUFFIXES:
        return None
    if path.suffix.lower() in (".npy", ".npz") and (x := _x_of(path)) is not None:
        if x.ndim == 2:
            return Items(x, "table")
        from thalweg.data.images import Images
        from thalweg.data.sources import read_arrays

        images = read_arrays(path)
        assert isinstance(images, Images)
        return Items(images.all().x.numpy(), "pictures")
    return Items(read_table(path), "table")


def _x_of(path: Path) -> "numpy.ndarray | None":
    """The array x of a file that may hold others too, as those of `thalweg sample` do; None where there is none or it cannot be read."""
    import numpy

    try:
        with path.open("rb") as file:  # NumPy leaves a path open where it holds no archive after all
            found: Any = numpy.load(file, allow_pickle=False)
            if isinstance(found, numpy.ndarray):
                return found if found.ndim > 2 else None
            return found["x"] if "x" in found.files and found["x"].ndim > 1 else None
    except Exception:  # whatever is wrong with it, the reader of tables says so
        return None


def _resized(x: "numpy.ndarray", size: tuple[int, int], channels: int) -> "numpy.ndarray":
    import torch

    from thalweg.data.images import convert

    return convert(torch.from_numpy(x), size, channels).numpy()
