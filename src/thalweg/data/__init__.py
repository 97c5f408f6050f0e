"""Data: toys with exact densities, images from many places, all as the same seeded endless stream of batches."""

from functools import partial
from pathlib import Path
from typing import Any

from ..errors import InputError, nearest
from . import attributes
from .attributes import coloured, paired
from .base import Batch, Data
from .door import of
from .emoji import VENDORS, emoji
from .folders import folder
from .frames import TABLE_SUFFIXES, read_file
from .hub import hub
from .images import SPLITS, Images, Size, check_split, flat_names
from .layouts import carla, layout, shapenet
from .procedural import cars, chairs
from .render import meshes, objects
from .sources import array_concepts, array_file, digits, fashion_mnist, mnist_small
from .stacked import Stacked, stacked
from .stream import Stream
from .tables import TABLE, read_table
from .toy import TOYS, Toy, toy
from .unpaired import Unpaired, UnpairedBatch
from .vectors import Table, Units
from .views import ViewBatch, Views, group_views

_COMBINED = {
    "coloured-digits": partial(coloured, digits, "digit", copies=5),
    "coloured-digits-unseen": partial(coloured, digits, "digit", copies=5, unseen=True),
    "inked-digits": partial(coloured, digits, "digit", copies=3, ground="black"),
    "inked-digits-unseen": partial(coloured, digits, "digit", copies=1, ground="black", unseen=True),
    "paired-digits": partial(paired, digits),
    "paired-digits-unseen": partial(paired, digits, unseen=True),
    "coloured-fashion": partial(coloured, fashion_mnist, "class"),
    "coloured-fashion-unseen": partial(coloured, fashion_mnist, "class", unseen=True),
}
PROCEDURAL = {
    "chairs": chairs,
    "cars": cars,
    "chairs-incomplete": partial(chairs, missing=0.25),
    "cars-incomplete": partial(cars, missing=0.25),
}
_BUILT_IN = {
    "digits": digits,
    "fashion-mnist": fashion_mnist,
    "mnist-small": mnist_small,
    "stacked-digits": partial(stacked, digits),
    "stacked-fashion": partial(stacked, fashion_mnist),
    "stacked-mnist": partial(stacked, mnist_small),
    "objects": objects,
    "objects-aligned": partial(objects, aligned=True),
    "objects-incomplete": partial(objects, missing=0.25),
    **PROCEDURAL,
    **{f"emoji-{vendor}": partial(emoji, vendor) for vendor in VENDORS},
    **{f"emoji-{vendor}-kinds": partial(emoji, vendor, labels="kind") for vendor in VENDORS},
    **_COMBINED,
}
NAMES = TOYS + tuple(_BUILT_IN)

__all__ = [
    "NAMES",
    "SPLITS",
    "TOYS",
    "Batch",
    "Data",
    "Images",
    "Stacked",
    "Stream",
    "Table",
    "Toy",
    "Units",
    "Unpaired",
    "UnpairedBatch",
    "ViewBatch",
    "Views",
    "array_file",
    "attributes",
    "carla",
    "cars",
    "chairs",
    "class_names",
    "coloured",
    "concepts",
    "digits",
    "emoji",
    "fashion_mnist",
    "folder",
    "group_views",
    "hub",
    "load",
    "meshes",
    "mnist_small",
    "objects",
    "of",
    "paired",
    "shapenet",
    "stacked",
    "toy",
]


def load(
    name_or_path: str | Path,
    split: str = "train",
    *,
    size: Size | None = None,
    channels: int | None = None,
    streaming: bool = False,
    window: int | None = None,
    label: str | None = None,
    values: tuple[float, float] | None = None,
    views: int | None = None,
    middle: int | None = None,
) -> Data:
    """Data by name (one of `NAMES`, or hf:NAME[:CONFIGURATION]) or path: a folder, also of objects, a .npz, .npy, .csv or .parquet file.

    NAME:CLASS of a named set of images are the images of one class, without labels: a domain for translation.
    `split`: train, validation or test; a toy has one endless stream for all. `size`: pixels of the square that images are
    brought to, or (height, width); `channels`: 1 or 3; `streaming`: pictures stay on the disk and are read as they are needed (hub sets and
    folders), shuffled in windows of `window`; `label`: the column of labels of a .csv or .parquet file; `values`: black and white of a
    NumPy file or of pictures; `views`: images of each object at most, of a folder in the layout of ShapeNet-SRN and of procedural objects;
    `middle`: the side in pixels of the middle square that is cut out of pictures of hub sets and folders before they are resized.
    Raises InputError for an unknown name, a missing path and options that the data does not have.
    """
    given = dict(window=window, label=label, values=values, views=views, middle=middle)
    options: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    options |= {"streaming": True} if streaming else {}
    found: Any = _load(name_or_path, split, size=size, channels=channels, **options)
    found.origin, found.options = origin_of(name_or_path), options  # what a run keeps of where its data are
    return found


def origin_of(name_or_path: str | Path) -> str:
    """A name as it is, a path as an absolute one, so that it holds from another directory too."""
    name = str(name_or_path)
    known = name.startswith("hf:") or name in NAMES or name.partition(":")[0] in _BUILT_IN
    return name if known or not Path(name).exists() else str(Path(name).resolve())


def _load(
    name_or_path: str | Path, split: str, *, size: Size | None, channels: int | None, streaming: bool = False, window: int | None = None,
    label: str | None = None, values: tuple[float, float] | None = None, views: int | None = None, middle: int | None = None,
) -> Data:  # fmt: skip
    check_split(split)
    name = str(name_or_path)
    if not name:  # which would be a path: this folder
        raise InputError("data are needed: a name, a path, or examples of one's own")
    path = Path(name)
    table = path.suffix.lower() in TABLE_SUFFIXES and path.is_file()
    if label is not None and not table:
        raise InputError(f"label names a column of a .csv or .parquet file, '{name}' is none")
    if values is not None and path.suffix not in (".npz", ".npy") and (not path.is_dir() or layout(path) is not None):
        raise InputError(f"values are of a .npz or .npy file, or a folder of pictures, '{name}' is none")
    few = {} if views is None else {"views": views}
    if few and name not in PROCEDURAL and (not path.is_dir() or layout(path) is not shapenet):
        raise InputError(f"views are of a folder in the layout of ShapeNet-SRN, and of {', '.join(PROCEDURAL)}; '{name}' is neither")
    if window is not None and not streaming:
        raise InputError("window says how many pictures are shuffled together with streaming, which was not asked for")
    stored = name.startswith("hf:") or _saved_by_datasets(path)
    if streaming and not stored and (not path.is_dir() or layout(path) is not None):
        raise InputError(f"streaming is for hf:NAME, folders of pictures and folders written by the package datasets, not for '{name}'")
    if middle is not None and not stored and (not path.is_dir() or layout(path) is not None):
        raise InputError(
            f"a middle square is cut out of pictures of hf:NAME and of folders, not of '{name}'; leave middle out (0 in a config)"
        )
    if stored:
        return hub(name, split, size=size, channels=channels, middle=middle, streaming=streaming, window=window)
    if name in TOYS:
        if size is not None or channels is not None:
            raise InputError(f"'{name}' is a toy of points in the plane: it has no size and no channels")
        return toy(name)
    if name in _BUILT_IN:
        return _BUILT_IN[name](split, size=size, channels=channels, **few)
    base, _, one = name.partition(":")
    if one and base in _BUILT_IN:
        found = _BUILT_IN[base](split, size=size, channels=channels)
        if not isinstance(found, Images):
            raise InputError(f"'{name}': images of one class are of a set with its own images, {base} is put together from others")
        return found.of_class(one)
    if path.is_dir():
        reader = layout(path)
        if reader is not None:
            return reader(path, split, size=size, channels=channels, **few)
        return folder(path, split, size=size, channels=channels, values=values, middle=middle, streaming=streaming, window=window)
    if path.suffix in (".npz", ".npy") and path.is_file():
        return array_file(path, split, size=size, channels=channels, values=values)
    if table:
        if size is not None or channels is not None:
            raise InputError(f"'{name}' is a table of vectors: it has no size and no channels")
        return read_file(path, label).split(split)
    if path.is_file():
        raise InputError(f"{name} is a file of another kind; data is a folder of pictures, a .npz, .npy, .csv or .parquet file")
    known = f"the names are {', '.join(NAMES)} and hf:NAME"
    if name.startswith("data/"):  # where presets of the papers look for sets that are no names
        raise InputError(f"there is no folder {name}; how to get it is said in docs/data.md, 'Sets of the papers', or give --data")
    raise InputError(f"unknown data '{name}', and no such file or folder{nearest(name, NAMES)}; {known}")


def class_names(name: str) -> tuple[str, ...]:
    """The names of a data set's classes; empty where it has none or is not on this machine."""
    several = concepts(name)
    if several:
        return flat_names(several)
    try:
        return tuple(load(name, "validation").classes)
    except InputError:
        return ()


def concepts(name: str) -> dict[str, tuple[str, ...]]:
    """The concepts of a data set with the names of their values; empty where it has one kind of label or is not on this machine.

    Reads no pictures of a folder or file.
    """
    path = Path(name)
    try:
        if name in _COMBINED:
            return load(name, "test").concepts
        if (path / TABLE).is_file():
            return read_table(path).concepts
        if path.suffix == ".npz" and path.is_file():
            return array_concepts(path)
    except InputError:
        pass
    return {}


def _saved_by_datasets(path: Path) -> bool:
    return (path / "dataset_dict.json").is_file() or ((path / "dataset_info.json").is_file() and (path / "state.json").is_file())
