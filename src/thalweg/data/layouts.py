"""Objects from known cameras read from folders: the layouts of ShapeNet-SRN and of GRAF's CARLA, and meshes to be rendered."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from ..errors import InputError, require
from .folders import FOLDERS, SUFFIXES, decode
from .images import Size, check_split, convert, partition, side
from .render import SHARES, meshes
from .unread import Unread
from .views import Views


def layout(path: Path) -> Any:
    """The reader of a folder of objects, `shapenet`, `carla` or `meshes`; None for a folder of another kind."""
    if any(True for depth in ("*", "*/*") for _ in path.glob(f"{depth}/intrinsics.txt")):
        return shapenet
    if _poses_folder(path) is not None:
        return carla
    return meshes if any(path.glob("*.obj")) else None


def shapenet(
    path: str | Path, split: str = "train", *, size: Size | None = None, channels: int | None = None, views: int | None = None
) -> Views:
    """A folder in the layout of ShapeNet-SRN (Sitzmann et al. 2019): OBJECT/rgb/*.png, OBJECT/pose/*.txt, OBJECT/intrinsics.txt.

    Objects lie in folders whose names end in train, val and test (cars_train), or together, then split 80/10/10 by object. Poses
    are 16 numbers, camera to world. Of each object `views` images at most are read, evenly spread over its files, all by default, each
    when it is first asked for. Raises InputError for what is missing or cannot be read, by name.
    """
    check_split(split)
    root = Path(path)
    homes = {key: part for key, names in FOLDERS.items() for part in sorted(root.iterdir()) if part.is_dir() and part.name.endswith(names)}
    if homes and split not in homes:
        raise InputError(f"{root} has no folder for the split '{split}': its name would end in {' or '.join(FOLDERS[split])}")
    found = sorted(part.parent for part in homes.get(split, root).glob("*/intrinsics.txt"))
    if not homes:
        found = [found[row] for row in partition(split, len(found), SHARES).tolist()]
    if not found:
        raise InputError(f"{homes.get(split, root)} holds no objects, folders with intrinsics.txt")
    pictures: list[Path] = []
    matrices, lenses, items = [], [], []
    for item, home in enumerate(found):
        lens = _srn_lens(home / "intrinsics.txt")
        for picture in spread(_pictures(home / "rgb"), views):
            pictures.append(picture)
            matrices.append(_numbers(home / "pose" / f"{picture.stem}.txt", 16).reshape(4, 4))
            lenses.append(lens)
            items.append(item)
    images = _unread(pictures, size, channels)
    camera = _cameras(numpy.stack(matrices), numpy.stack(lenses), str(root))
    return Views(images, camera, torch.tensor(items), name=f"{root.name}/{split}")


def spread(found: Sequence[Any], most: int | None) -> Sequence[Any]:
    """`most` of what was found, evenly spread over it; all of it for None, or where it is less. InputError below 1."""
    if most is not None and most < 1:
        raise InputError(f"views must be 1 or more, got {most}")
    return found if most is None or most >= len(found) else [found[i * len(found) // most] for i in range(most)]


def carla(path: str | Path, split: str = "train", *, size: Size | None = None, channels: int | None = None) -> Views:
    """A folder in the layout of GRAF's CARLA cars, an object an image: pictures there or in images/, and carla_poses/ (or poses/).

    That folder holds STEM_extrinsics.npy [3, 4] for STEM.png and intrinsics.npy, whose last two axes are the lens matrix in pixels.
    Split 80/10/10. Which way the matrices go is told from that all cameras look at the origin. Pictures are read when they are asked for.
    """
    check_split(split)
    root = Path(path)
    poses = _poses_folder(root)
    if poses is None:
        raise InputError(f"{root} has no folder carla_poses or poses with intrinsics.npy")
    home = next((part for part in (root / "images", root / "carla_images") if part.is_dir()), root)
    pictures = _pictures(home)
    pictures = [pictures[row] for row in partition(split, len(pictures), SHARES).tolist()]
    images = _unread(pictures, size, channels)
    lens = _array(poses / "intrinsics.npy")
    lens = lens.reshape(-1, *lens.shape[-2:])[0] if lens.ndim >= 2 else lens
    width = _width(pictures[0])
    if lens.ndim != 2 or lens.shape[0] < 2 or lens.shape[1] < 3:
        raise InputError(f"{poses / 'intrinsics.npy'} must hold a lens matrix of 3 by 3, got shape {list(lens.shape)}")
    matrices = []
    for picture in pictures:
        file = poses / f"{picture.stem}_extrinsics.npy"
        matrices.append(_array(file))
        if matrices[-1].shape not in ((3, 4), (4, 4)):
            raise InputError(f"{file} must hold a pose of 3 by 4, got shape {list(matrices[-1].shape)}")
    lenses = numpy.tile(numpy.array([lens[0, 0], lens[0, 2], lens[1, 2]]) / width, (len(pictures), 1))
    camera = _cameras(numpy.stack([m[:3] for m in matrices]), lenses, str(root))
    return Views(images, camera, torch.arange(len(pictures)), name=f"{root.name}/{split}")


def _poses_folder(root: Path) -> Path | None:
    return next((root / name for name in ("carla_poses", "poses") if (root / name / "intrinsics.npy").is_file()), None)


def _pictures(folder: Path) -> list[Path]:
    found = sorted(file for file in folder.glob("*") if file.suffix.lower() in SUFFIXES)
    if not found:
        raise InputError(f"{folder} holds no pictures; the endings read are {', '.join(SUFFIXES)}")
    return found


def _unread(files: list[Path], size: Size | None, channels: int | None) -> Unread:
    return Unread(files, partial(_square, size=size, channels=channels))


def _square(file: Path, size: Size | None, channels: int | None) -> Tensor:
    require("PIL", "images")
    image = decode(file, str(file), None, channels or 3)
    if image.shape[1] != image.shape[2]:
        raise InputError(f"{file}: pictures with cameras must be square, got {image.shape[2]} × {image.shape[1]} pixels")
    return convert(image[None], side(size))[0]


def _width(file: Path) -> int:
    return decode(file, str(file)).shape[2]


def _numbers(file: Path, count: int) -> numpy.ndarray:
    try:
        values = numpy.array(file.read_text().split()[:count], dtype=float)
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read as {count} numbers: {error}") from None
    if len(values) != count:
        raise InputError(f"{file} holds {len(values)} numbers, need {count}")
    return values


def _array(file: Path) -> numpy.ndarray:
    try:
        return numpy.asarray(numpy.load(file, allow_pickle=False), dtype=float)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{file} cannot be read as a NumPy array: {error}") from None


def _srn_lens(file: Path) -> numpy.ndarray:
    """Focal length and centre in widths, from the first line (in pixels) and the last one (height, width)."""
    focal, x, y = _numbers(file, 3)
    try:
        height, width = (float(word) for word in file.read_text().split()[-2:])
    except ValueError as error:
        raise InputError(f"{file}: the last line must be height and width in pixels: {error}") from None
    return numpy.array([focal / width, x / width, y / height])


def _cameras(matrices: numpy.ndarray, lenses: numpy.ndarray, name: str) -> Tensor:
    """Poses [N, 3 or 4, 4] as cameras [N, 3, 5].

    From world to camera or back, with the third axis backward (OpenGL) or forward (OpenCV): told from that all cameras look at
    the origin, which therefore lies on their axis. Raises InputError where they do not.
    """
    rotation, position = (torch.from_numpy(part).float() for part in (matrices[:, :3, :3], matrices[:, :3, 3]))
    if not torch.allclose(rotation.transpose(1, 2) @ rotation, torch.eye(3), atol=1e-2) or (torch.linalg.det(rotation) < 0).any():
        raise InputError(f"{name}: the poses must hold rotations (orthogonal, of determinant 1)")
    distance = position.norm(dim=1).clamp(min=1e-6)
    if (position[:, :2].norm(dim=1) < 0.05 * distance).all():  # the origin, seen from the camera
        rotation = rotation.transpose(1, 2)
        position = -(rotation @ position[:, :, None]).squeeze(2)
    facing = (rotation[:, :, 2] * position).sum(1) / distance
    if not (facing > 0.9).all() and not (facing < -0.9).all():
        raise InputError(f"{name}: the cameras do not look at the origin, so that their axes cannot be told")
    if facing[0] < 0:
        rotation = rotation * torch.tensor([1.0, -1.0, -1.0])
    return torch.cat([rotation, position[:, :, None], torch.from_numpy(lenses).float()[:, :, None]], 2)
