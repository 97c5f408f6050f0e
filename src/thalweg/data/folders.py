"""Pictures in folders: which files count, what the splits and classes are, and how a picture is read. Training and applying share it."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import torch
from torch import Tensor

from ..errors import InputError, require
from .images import Images, Size, check_size, check_split, convert, middle_square, partition
from .plausible import depth, mapped
from .stream import Stream
from .tables import TABLE, read_table

Values = tuple[float, float]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
# how a split's folder may be called, in small or capital letters
FOLDERS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val"),
    "test": ("test", "testing"),
}
DEEP = ("I", "F")  # beginnings of the modes of 16-bit pictures, and of floats
_TURNED = (5, 6, 7, 8)  # EXIF orientations in which height and width change places


def folder(
    path: str | Path,
    split: str = "train",
    *,
    size: Size | None = None,
    channels: int | None = None,
    values: Values | None = None,
    middle: int | None = None,
    streaming: bool = False,
    window: int | None = None,
) -> Images | Stream:
    """The pictures (PNG, JPEG, WebP, BMP) of a folder; subfolders are its classes, or attributes.csv says its concepts.

    Subfolders train (or training), test (testing) and validation (valid, val), in small or capital letters, are its splits; where only
    validation is missing, it is a seeded tenth of train. Without them the split is seeded, 80/10/10 and even over the classes. What is
    hidden (.ipynb_checkpoints, ._x.png, __MACOSX) is left out. `size`: see `convert`, required where the pictures differ in size;
    `channels`: 3 unless all pictures are grey; both are settled by all pictures of all splits. With attributes.csv (see
    `tables.read_table`) the pictures are those that it lists, the split is seeded, and subfolders mean nothing. `values`: the numbers of
    black and white, where they are not those of the files' type, such as (0, 4095) of 12 bits. `middle`: the side of the middle square
    that is cut out of each picture before it is resized. All are held in memory as uint8, but with `streaming`, when they are read as
    batches need them, shuffled in windows of `window`. Raises InputError for a folder without pictures and for a picture that cannot be
    decoded or is smaller than `middle`, naming it.
    """
    check_split(split)
    check_size(size, channels)
    require("PIL", "images")
    root = Path(path)
    if not root.is_dir():
        raise InputError(f"there is no folder {root}")

    def made(files: list[Path], every: list[Path], label: Tensor | None, **names: Any) -> Images | Stream:
        settled, name = _settled(every, size or middle, channels), f"{root.name}/{split}"
        if not streaming:
            return Images(decode_all(files, size, settled, values, middle), label, **names, name=name)
        known = [f"{file.relative_to(root)} {file.stat().st_size}" for file in files]
        known += [str(values), *([] if middle is None else [f"middle {middle}"])]
        read = lambda row: decode(files[row], str(files[row]), size, settled, values, middle)  # noqa: E731
        return Stream(read, len(files), label, **names, name=name, window=window, content=known)

    if (root / TABLE).is_file():
        table = read_table(root)
        rows = partition(split, len(table.files), (0.1, 0.1), table.label)
        return made([table.files[row] for row in rows.tolist()], table.files, table.label[rows], concepts=table.concepts)
    named = _splits(root)
    if not named:
        files, labels, classes = _listing(root, _classes_of([root]))
        every, rows = files, partition(split, len(files), (0.1, 0.1), labels)
    else:
        source = "train" if split == "validation" and split not in named else split
        if source not in named:
            raise InputError(f"{root} has a folder train but none for the split '{split}' ({' or '.join(FOLDERS[split])})")
        classes = _classes_of(list(named.values()))
        files, labels, classes = _listing(named[source], classes)
        every = [file for one in named.values() for file in pictures_in(one)]
        whole = source == "test" or "validation" in named
        rows = torch.arange(len(files)) if whole else partition(split, len(files), (0.1, 0.0), labels)
    return made([files[row] for row in rows.tolist()], every, None if labels is None else labels[rows], classes=classes)


def hidden(path: Path, root: Path) -> bool:
    """Whether a file inside `root` is hidden, or in a hidden folder: of notebooks, of Macs."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.relative_to(root).parts)


def pictures_in(root: Path, *, deep: bool = True) -> list[Path]:
    """The picture files of a folder, sorted, also of its subfolders if `deep`; nothing that is hidden."""
    found = root.rglob("*") if deep else root.iterdir()
    return sorted(file for file in found if file.suffix.lower() in SUFFIXES and not hidden(file, root) and file.is_file())


def _subfolders(root: Path) -> list[Path]:
    """Those that are not hidden and hold pictures."""
    return sorted(child for child in root.iterdir() if child.is_dir() and not hidden(child, root) and pictures_in(child))


def _splits(root: Path) -> dict[str, Path]:
    """The folders of the splits; none where train is a class among others. InputError where it cannot be told."""
    names = {name: split for split, titles in FOLDERS.items() for name in titles}
    subfolders = [child for child in root.iterdir() if child.is_dir() and not hidden(child, root)]
    found: dict[str, Path] = {}
    for child in sorted(subfolders):
        split = names.get(child.name.lower())
        if split in found:
            raise InputError(f"{root} has two folders for the split '{split}': {found[split].name} and {child.name}; keep one")
        if split is not None:
            found[split] = child
    if "train" not in found:
        return {}
    others = [child.name for child in _subfolders(root) if child not in found.values()]
    if others and len(found) == 1:  # a train among planes and cars
        print(f"thalweg: {root}: {found['train'].name} is taken for a class, with {', '.join(others)}", file=sys.stderr)
        return {}
    if others:
        known = ", ".join(child.name for child in found.values())
        raise InputError(f"{root} holds splits ({known}) and other folders with pictures ({', '.join(others)}); keep one kind")
    return found


def _classes_of(roots: list[Path]) -> tuple[str, ...]:
    """Names of the subfolders that hold pictures, in any of the splits, so that a label means the same in all of them."""
    return tuple(sorted({child.name for root in roots for child in _subfolders(root)}))


def _listing(root: Path, classes: tuple[str, ...]) -> tuple[list[Path], Tensor | None, tuple[str, ...]]:
    loose = pictures_in(root, deep=False)
    if loose and classes:
        raise InputError(f"{root} holds both loose pictures ({loose[0].name}) and class folders ({classes[0]}); keep one kind")
    groups = [pictures_in(root / name) if (root / name).is_dir() else [] for name in classes]
    files = loose + [file for group in groups for file in group]
    if not files:
        raise InputError(f"{root} holds no pictures; the endings read are {', '.join(SUFFIXES)}")
    labels = [value for value, group in enumerate(groups) for _ in group]
    return files, torch.tensor(labels) if classes else None, classes


class _Look(NamedTuple):
    """What a file says of a picture before it is decoded."""

    height: int
    width: int
    grey: bool
    deep: bool
    """whether grey values have more than 8 bits"""


@contextmanager
def _opened(source: Any, name: str) -> Iterator[Any]:
    """A picture of Pillow's; InputError where it cannot be opened or, in the block, decoded.

    Pillow also warns, as of torn EXIF in a picture that is whole, and of a corrupt one before it fails: neither is news.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(source) as image:
                yield image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{name} cannot be read as a picture: {error}") from error


def look(source: Any, name: str = "") -> _Look:
    with _opened(source, name or str(source)) as image:
        wide, high = image.size
        if image.getexif().get(0x0112) in _TURNED:
            wide, high = high, wide
        return _Look(high, wide, _is_grey(image.mode), image.mode.startswith(DEEP))


def _is_grey(mode: str) -> bool:
    return mode in ("1", "L", "LA", "La", "F") or mode.startswith("I")


def _settled(files: list[Path], size: Size | None, channels: int | None) -> int:
    """The channels of a whole data set, by all of its files; InputError where their sizes differ and none was given."""
    if size is not None and channels is not None:
        return channels
    looks = [look(file) for file in files]
    channels = channels or (1 if all(look.grey for look in looks) else 3)
    odd = next((i for i, look in enumerate(looks) if look[:2] != looks[0][:2]), None)
    if size is None and odd is not None:
        shapes = [f"[{channels}, {looks[i].height}, {looks[i].width}] ({files[i].name})" for i in (0, odd)]
        raise InputError(f"the pictures differ: {shapes[0]} and {shapes[1]} [C, H, W]; give size to resize them")
    return channels


def decode_all(
    files: list[Path], size: Size | None, channels: int | None, values: Values | None = None, middle: int | None = None
) -> Tensor:
    """Pictures of one size as uint8 [N, C, H, W]; InputError where they differ or one cannot be decoded."""
    images = []
    for file in files:
        image = decode(file, str(file), size, channels, values, middle)
        if images and image.shape != images[0].shape:
            shapes = [f"{list(part.shape)} ({name})" for part, name in ((images[0], files[0].name), (image, file.name))]
            raise InputError(f"the pictures differ: {shapes[0]} and {shapes[1]} [C, H, W]; give size to resize them")
        channels = channels or image.shape[0]
        images.append(image)
    x = torch.stack(images)
    highest = int(x.max())
    if values is None and 0 < highest < 64 and look(files[0]).deep:
        bits = depth(256 * highest + 255)
        print(
            f"thalweg: {files[0].parent}: 16-bit pictures in which no value reaches {2**bits}; they are read as 0 … 65535, and so nearly "
            f"black; if they have {bits} bits, say --values 0,{2**bits - 1} (values= from Python)",
            file=sys.stderr,
        )
    elif values is None and 0 < highest <= 16:
        print(
            f"thalweg: {files[0].parent}: no pixel is lighter than {highest} of 255, nearly black; if that is white, say --values "
            f"0,{highest} (values= from Python)",
            file=sys.stderr,
        )
    return x


def decode(
    source, name: str, size: Size | None = None, channels: int | None = None, values: Values | None = None, middle: int | None = None
) -> Tensor:
    """One picture, a path or a binary file, as uint8 [C, H, W], on white where it is transparent; InputError where it is corrupt.

    `values`: the numbers of black and white, by default 0 and 255, of 16-bit pictures 0 and 65535. `middle`: of its middle square of that
    side alone, before it is resized; InputError where it is smaller.
    """
    from PIL import Image, ImageOps

    with _opened(source, name) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.has_transparency_data:  # what lies under transparent pixels is arbitrary; paper is white
            above = upright.convert("RGBA")
            below = Image.new("RGBA", above.size, "white")
            upright = Image.alpha_composite(below, above).convert("L" if upright.mode in ("LA", "La") else "RGB")
        grey = _is_grey(upright.mode)
        if upright.mode == "F" and values is None:
            raise ValueError("it holds floats, whose black and white are not known; say values=(low, high)")
        pixels = numpy.array(upright if upright.mode.startswith(DEEP) else upright.convert("L" if grey else "RGB"))
    if values is not None:
        pixels = ((mapped(torch.from_numpy(pixels.astype(numpy.float64)), name, values) + 1) * 127.5).round().byte().numpy()
    elif pixels.dtype != numpy.uint8:  # 16-bit grey, which PIL would clip at 255
        pixels = (pixels.astype(numpy.int64) // 256).clip(0, 255).astype(numpy.uint8)
    x = torch.from_numpy(pixels)
    x = x[None, None] if grey else x.permute(2, 0, 1)[None]
    return convert(middle_square(x, middle, name), size, channels)[0].contiguous()
