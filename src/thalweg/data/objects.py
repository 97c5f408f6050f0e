"""Objects seen by cameras of known pose: rendered from meshes, or read from folders in the ShapeNet-SRN and CARLA (GRAF) layouts."""

import colorsys
import hashlib
import io
import json
import math
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy
import torch
from torch import Tensor

from .. import camera as cameras
from ..errors import InputError, require
from ..random import normal, seeded, uniform
from .images import check_size, convert, partition, to_unit
from .sources import FOLDERS, SUFFIXES, check_split, decode

VIEWS = 20  # of each rendered object
DISTANCE, FIELD_OF_VIEW = 4.0, 30.0  # degrees; a ball of radius 1, which holds the object, just fits
ALTITUDES = (0.0, math.pi / 3)
SHARES = (0.1, 0.1)  # of validation and test, where a set has no splits of its own
_BROKEN = ("168",)  # of pybullet_data: every corner is NaN
_RECIPE = 2  # of the renderer: a change makes other cache entries


class ViewBatch(NamedTuple):
    """A `Batch` of images with `camera` [B, 3, 5] (see `thalweg.camera`), `item` [B] int64, the object's number in the set, and
    `visible` [B, 1, H, W] bool where images are incomplete: False where `x` shows noise."""

    x: Tensor
    label: None
    camera: Tensor
    item: Tensor
    visible: Tensor | None = None


@final
class Views:
    """Images [N, C, H, W] uint8 of objects from known cameras [N, 3, 5], in memory; `item` [N] says which object, numbered from 0.

    A batch holds `views` images of an object one after the other, objects in random order; each image comes once an epoch, but for
    those that do not fill a last group of `views`. `depth` [N, H, W] float16, where known, is the distance along the ray in world
    units, infinite where nothing is. `visible` [N, 1, H, W] bool is False where an image is missing. Raises InputError for shapes
    that do not fit and objects with fewer images than `views`.
    """

    classes: tuple[str, ...] = ()

    def __init__(
        self,
        x: Tensor,
        camera: Tensor,
        item: Tensor,
        *,
        name: str = "views",
        views: int = 1,
        depth: Tensor | None = None,
        visible: Tensor | None = None,
    ) -> None:
        if x.dim() != 4 or x.dtype != torch.uint8 or not len(x):
            raise InputError(f"{name}: images must be uint8 [N, C, H, W] with N ≥ 1, got {x.dtype} {list(x.shape)}")
        if tuple(camera.shape) != (len(x), 3, 5) or not camera.isfinite().all():
            raise InputError(f"{name}: cameras must be finite [{len(x)}, 3, 5], got {list(camera.shape)}")
        if tuple(item.shape) != (len(x),) or item.min() != 0 or len(item.unique()) != item.max() + 1:
            raise InputError(f"{name}: item must number the objects of {len(x)} images from 0 without gaps")
        if visible is not None and (visible.dtype != torch.bool or tuple(visible.shape) != (len(x), 1, *x.shape[2:])):
            raise InputError(f"{name}: visible must be bool {[len(x), 1, *x.shape[2:]]}, got {visible.dtype} {list(visible.shape)}")
        counts = item.bincount()
        if not 1 <= views <= counts.min():
            raise InputError(f"{name}: views = {views}, but some object has {int(counts.min())} images; give 1 to that many")
        self.name, self.views, self.shape = name, views, tuple(x.shape[1:])
        self.x, self.camera, self.item, self.depth, self.visible = x, camera.float(), item.long(), depth, visible
        self.objects = len(counts)
        self._epoch_length = int((counts // views * views).sum())
        self._order: tuple[tuple[int, int] | None, Tensor] = (None, torch.empty(0))

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        return f"Views({self.name!r}, {len(self)} of {list(self.shape)}, {self.objects} objects, {self.views} beside each other)"

    def batch(self, start: int, count: int, seed: int) -> ViewBatch:
        """Images number start … start+count−1 of the stream that `seed` defines; both must divide by `views`."""
        if start < 0 or count < 1 or start % self.views or count % self.views:
            raise InputError(f"a batch needs start ≥ 0 and count ≥ 1 that divide by views = {self.views}, got start={start}, count={count}")
        rows, position = [], start
        while position < start + count:
            epoch, inside = divmod(position, self._epoch_length)
            rows.append(self._epoch(seed, epoch)[inside : inside + start + count - position])
            position += len(rows[-1])
        return self._rows(torch.cat(rows))

    def all(self) -> ViewBatch:
        """Every image once, in the order of the set; with `views` above 1 those of whole groups, one object after the other."""
        return self._rows(self._grouped(torch.arange(len(self))).flatten() if self.views > 1 else torch.arange(len(self)))

    def with_views(self, views: int) -> "Views":
        """The same images (not copied), `views` of an object beside each other."""
        return self._with(views=views)

    def masked(self, share: float = 0.25, seed: int = 0) -> "Views":
        """Incomplete images: a rectangle of about `share` of each is Gaussian noise of standard deviation ½, `visible` says where.

        Raises InputError unless share is between 0 and 1.
        """
        if not 0 < share < 1:
            raise InputError(f"{self.name}: the missing share must be between 0 and 1, got {share}")
        height, width = self.shape[1:]
        g = seeded(seed, 31)
        aspect = uniform(len(self), low=-0.5, high=0.5, generator=g).exp2()
        tall = (height * math.sqrt(share) * aspect).round().clamp(1, height)
        wide = (width * math.sqrt(share) / aspect).round().clamp(1, width)
        top = (uniform(len(self), generator=g) * (height - tall + 1)).floor()
        left = (uniform(len(self), generator=g) * (width - wide + 1)).floor()
        y, x = torch.arange(height)[None, :, None], torch.arange(width)[None, None]
        inside = (y >= top[:, None, None]) & (y < (top + tall)[:, None, None])
        inside = inside & (x >= left[:, None, None]) & (x < (left + wide)[:, None, None])
        images = self.x.clone()
        for i, hole in enumerate(inside):
            noise = normal(self.shape[0], int(hole.sum()), generator=g)
            images[i][:, hole] = (127.5 + 63.75 * noise).round().clamp(0, 255).to(torch.uint8)
        return self._with(x=images, visible=~inside[:, None], name=f"{self.name} with {share:.0%} missing")

    def _with(self, **changes: Any) -> "Views":
        return Views(**({key: getattr(self, key) for key in ("x", "camera", "item", "name", "views", "depth", "visible")} | changes))

    def _rows(self, rows: Tensor) -> ViewBatch:
        visible = None if self.visible is None else self.visible[rows]
        return ViewBatch(to_unit(self.x[rows]), None, self.camera[rows], self.item[rows], visible)

    def _grouped(self, rows: Tensor) -> Tensor:
        """`rows` in groups of `views` of one object, [G, views], object by object."""
        rows = rows[self.item[rows].argsort(stable=True)]
        counts = self.item.bincount()
        place = torch.arange(len(rows)) - (counts.cumsum(0) - counts)[self.item[rows]]
        return rows[place < (counts // self.views * self.views)[self.item[rows]]].view(-1, self.views)

    def _epoch(self, seed: int, epoch: int) -> Tensor:
        if self._order[0] != (seed, epoch):
            g = seeded(seed, epoch)
            groups = self._grouped(torch.randperm(len(self), generator=g))
            self._order = ((seed, epoch), groups[torch.randperm(len(groups), generator=g)].flatten())
        return self._order[1]


def beside(data: Any, views: int) -> Any:
    """`data` with `views` images of an object beside each other; 1 leaves it as it is. InputError for data without objects."""
    if views == 1:
        return data
    if not isinstance(data, Views):
        raise InputError(f"views = {views} is for images of objects from several cameras, {data.name} has none; see docs/data.md")
    return data.with_views(views)


# --- rendered from meshes


def objects(
    split: str = "train", *, size: int | None = None, channels: int | None = None, missing: float = 0.0, aligned: bool = False
) -> Views:
    """The 999 coloured objects of pybullet_data, 20 views of each at `size` (32) pixels on white; 799, 100 and 100 objects.

    `missing` is the share of each image that is noise (see `Views.masked`); `aligned` lays every object on its principal axes (see
    `render`). Rendered once (extra `objects`), then read from the cache.
    """
    root = Path(require("pybullet_data", "objects").getDataPath()) / "random_urdfs"
    found = _split_of_meshes(sorted(root.glob("*/*.obj")), split, size, channels, f"objects/{split}", aligned, _BROKEN)
    return found.masked(missing) if missing else found


def meshes(path: str | Path, split: str = "train", *, size: int | None = None, channels: int | None = None) -> Views:
    """The Wavefront meshes (*.obj) of a folder, each in a colour drawn by its number, rendered as `objects`; split 80/10/10 by object."""
    check_split(split)
    files = sorted(Path(path).glob("*.obj"))
    if not files:
        raise InputError(f"{path} holds no meshes (*.obj)")
    return _split_of_meshes(files, split, size, channels, f"{Path(path).name}/{split}")


def _split_of_meshes(
    files: list[Path],
    split: str,
    size: int | None,
    channels: int | None,
    name: str,
    aligned: bool = False,
    broken: Sequence[str] = (),
) -> Views:
    check_split(split)
    check_size(size, channels)
    rows = [row for row in partition(split, len(files), SHARES).tolist() if files[row].stem not in broken]
    found = render([files[row] for row in rows], seeds=rows, size=size or 32, name=name, aligned=aligned)
    return found._with(x=convert(found.x, None, channels))


def render(
    files: Sequence[Path],
    *,
    seeds: Sequence[int],
    views: int = VIEWS,
    size: int = 32,
    name: str = "meshes",
    aligned: bool = False,
    cache: bool = True,
) -> Views:
    """`views` images of each mesh, scaled into the ball of radius 1, in a colour and from cameras that its number in `seeds` draws.

    Cameras at distance 4 with a field of view of 30°, altitude uniform in [0°, 60°], azimuth uniform. The light stays where it is.
    The background is white. `aligned` turns each mesh until its surface is spread most along x and least along z, up, with the longer
    tail towards positive x and y: without that an azimuth means something else for each object. The cache is $THALWEG_CACHE,
    ~/.cache/thalweg by default; an entry's name holds the hash of meshes and settings, and eight digits of its own SHA-256. InputError
    for a mesh that cannot be read.
    """
    digest = hashlib.sha256(json.dumps([_RECIPE, list(seeds), views, size, *["aligned"] * aligned]).encode())
    for file in files:
        digest.update(_bytes(file))
    key = f"objects-{digest.hexdigest()[:16]}"
    arrays = _cached(key) if cache else None
    if arrays is None:
        arrays = _render(files, seeds, views, size, aligned)
        if cache:
            _keep(key, arrays)
    item = torch.arange(len(files)).repeat_interleave(views)
    x, camera, depth = (torch.from_numpy(arrays[part]) for part in ("x", "camera", "depth"))
    return Views(x, camera, item, depth=depth, name=name)


def _bytes(file: Path) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the mesh {file}: {error.strerror}") from None


def _poses(seed: int, views: int) -> Tensor:
    g = seeded(seed, 32)
    altitude = uniform(views, low=ALTITUDES[0], high=ALTITUDES[1], generator=g)
    azimuth = uniform(views, low=-math.pi, high=math.pi, generator=g)
    vectors = cameras.unit_vector(altitude), cameras.unit_vector(azimuth)
    return cameras.orbit(*vectors, distance=DISTANCE, focal=cameras.focal_length(FIELD_OF_VIEW))


def _colour(seed: int) -> tuple[float, float, float]:
    hue, saturation, value = uniform(3, generator=seeded(seed, 33)).tolist()
    return colorsys.hsv_to_rgb(hue, 0.4 + 0.6 * saturation, 0.5 + 0.5 * value)


def _render(files: Sequence[Path], seeds: Sequence[int], views: int, size: int, aligned: bool) -> dict[str, numpy.ndarray]:
    poses = torch.stack([_poses(seed, views) for seed in seeds])
    x = numpy.empty((len(files), views, 3, size, size), numpy.uint8)
    depth = numpy.empty((len(files), views, size, size), numpy.float16)
    with _bullet() as bullet:
        for i, (file, seed) in enumerate(zip(files, seeds)):
            body = _body(bullet, file, _colour(seed), aligned)
            for j in range(views):
                x[i, j], depth[i, j] = _picture(bullet, poses[i, j], size)
            bullet.removeBody(body)
    return {"x": x.reshape(-1, 3, size, size), "camera": poses.flatten(0, 1).numpy(), "depth": depth.reshape(-1, size, size)}


@contextmanager
def _bullet() -> Iterator[Any]:
    pybullet = require("pybullet", "objects")
    from pybullet_utils.bullet_client import BulletClient

    client = BulletClient(pybullet.DIRECT)  # without a window
    try:
        yield client
    finally:
        client.disconnect()


def _body(bullet: Any, file: Path, colour: tuple[float, float, float], aligned: bool) -> int:
    rotation = require("scipy.spatial.transform", "objects").Rotation
    try:
        lines = [line.split() for line in _bytes(file).decode().splitlines()]
        corner = numpy.array([line[1:4] for line in lines if line[:1] == ["v"]], dtype=float).reshape(-1, 3)
        if not numpy.isfinite(corner).all():
            raise ValueError("it has corners that are not finite")
        turn = numpy.eye(3)
        if aligned:
            faces = [[int(part.split("/")[0]) for part in line[1:]] for line in lines if line[:1] == ["f"]]
            turn = _principal_axes(corner, faces)
            corner = corner @ turn.T
        middle = (corner.min(0) + corner.max(0)) / 2
        scale = 1 / numpy.linalg.norm(corner - middle, axis=1).max()
        shape = bullet.createVisualShape(
            bullet.GEOM_MESH, fileName=str(file), meshScale=[scale] * 3, rgbaColor=[*colour, 1.0],
            visualFramePosition=(-middle * scale).tolist(), visualFrameOrientation=rotation.from_matrix(turn).as_quat().tolist(),
        )  # fmt: skip
        return bullet.createMultiBody(baseVisualShapeIndex=shape)
    except (ValueError, ZeroDivisionError, IndexError, UnicodeDecodeError, bullet.error) as error:
        raise InputError(f"{file} cannot be read as a Wavefront mesh: {error}") from None


def _principal_axes(corner: numpy.ndarray, faces: list[list[int]]) -> numpy.ndarray:
    """The rotation [3, 3] that brings a mesh onto the principal axes of its surface, widest first, long tails of x and y positive.

    corner: [N, 3]; faces: numbers of corners from 1 as in Wavefront files, from the end if negative.
    """
    index = numpy.array([[face[0], *pair] for face in faces for pair in zip(face[1:], face[2:])])
    triangle = corner[numpy.where(index > 0, index - 1, index)]
    area = numpy.linalg.norm(numpy.cross(triangle[:, 1] - triangle[:, 0], triangle[:, 2] - triangle[:, 0]), axis=1)
    # corners, middles of edges and of faces, which give the first three moments of a triangle exactly
    parts = ((triangle, 1 / 20), ((triangle + numpy.roll(triangle, 1, axis=1)) / 2, 2 / 15), (triangle.mean(1, keepdims=True), 9 / 20))
    place = numpy.concatenate([points.reshape(-1, 3) for points, _ in parts])
    weight = numpy.concatenate([numpy.repeat(area / area.sum() * share, points.shape[1]) for points, share in parts])
    place = place - weight @ place
    _, axes = numpy.linalg.eigh((weight[:, None] * place).T @ place)
    turn = axes.T[::-1]  # eigh's are in rising order
    tail = weight @ (place @ turn.T) ** 3
    turn = turn * numpy.where(tail < 0, -1.0, 1.0)[:, None]
    turn[2] = numpy.cross(turn[0], turn[1])  # no mirror
    return turn


def _picture(bullet: Any, camera: Tensor, size: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The image [3, H, W] and the distances along its rays [H, W], infinite where nothing is."""
    _, top, back, position, _ = (column.tolist() for column in camera.unbind(-1))
    near, far = DISTANCE - 1.5, DISTANCE + 1.5
    ahead = [p - b for p, b in zip(position, back)]
    edge = near * math.tan(math.radians(FIELD_OF_VIEW) / 2)
    left, right = edge / size - edge, edge / size + edge  # the renderer looks at a pixel's lower left corner: half a pixel on, its middle
    *_, colour, buffer, segment = bullet.getCameraImage(
        size, size, bullet.computeViewMatrix(position, ahead, top), bullet.computeProjectionMatrix(left, right, left, right, near, far),
        shadow=0, lightDirection=[1.0, -1.0, 2.0], lightAmbientCoeff=0.5, lightDiffuseCoeff=0.5, lightSpecularCoeff=0.0,
        renderer=bullet.ER_TINY_RENDERER,
    )  # fmt: skip
    nothing = numpy.asarray(segment).reshape(size, size) < 0
    image = numpy.asarray(colour, numpy.uint8).reshape(size, size, 4)[..., :3].copy()
    image[nothing] = 255
    plane = far * near / (far - (far - near) * numpy.asarray(buffer, numpy.float64).reshape(size, size))
    _, direction = cameras.rays(camera[None], size, size)
    slant = -(direction[0] @ camera[:, 2]).reshape(size, size).numpy()
    return image.transpose(2, 0, 1), numpy.where(nothing, numpy.inf, plane / slant).astype(numpy.float16)


def _folder() -> Path:
    return Path(os.environ.get("THALWEG_CACHE") or Path.home() / ".cache" / "thalweg").expanduser()


def _cached(key: str) -> dict[str, numpy.ndarray] | None:
    for path in sorted(_folder().glob(f"{key}-*.npz")):
        content = _bytes(path)
        if hashlib.sha256(content).hexdigest()[:8] == path.stem[-8:]:
            with numpy.load(io.BytesIO(content), allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
        warnings.warn(f"{path} is damaged: its checksum does not match its name; the objects are rendered again", stacklevel=2)
        path.unlink(missing_ok=True)
    return None


def _keep(key: str, arrays: dict[str, numpy.ndarray]) -> None:
    buffer = io.BytesIO()
    numpy.savez_compressed(buffer, **arrays)
    content, folder = buffer.getvalue(), _folder()
    path = folder / f"{key}-{hashlib.sha256(content).hexdigest()[:8]}.npz"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".partial", delete=False) as file:
            file.write(content)
        os.replace(file.name, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}; set THALWEG_CACHE to a folder that can be written") from None


# --- read from folders


def layout(path: Path) -> Any:
    """The reader of a folder of objects, `shapenet`, `carla` or `meshes`; None for a folder of another kind."""
    if any(True for depth in ("*", "*/*") for _ in path.glob(f"{depth}/intrinsics.txt")):
        return shapenet
    if _poses_folder(path) is not None:
        return carla
    return meshes if any(path.glob("*.obj")) else None


def shapenet(path: str | Path, split: str = "train", *, size: int | None = None, channels: int | None = None) -> Views:
    """A folder in the layout of ShapeNet-SRN (Sitzmann et al. 2019): OBJECT/rgb/*.png, OBJECT/pose/*.txt, OBJECT/intrinsics.txt.

    Objects lie in folders whose names end in train, val and test (cars_train), or together, then split 80/10/10 by object. Poses
    are 16 numbers, camera to world. Raises InputError for what is missing or cannot be read, by name.
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
    images, matrices, lenses, items = [], [], [], []
    for item, home in enumerate(found):
        lens = _srn_lens(home / "intrinsics.txt")
        for picture in _pictures(home / "rgb"):
            images.append(_square(picture, size, channels))
            matrices.append(_numbers(home / "pose" / f"{picture.stem}.txt", 16).reshape(4, 4))
            lenses.append(lens)
            items.append(item)
    camera = _cameras(numpy.stack(matrices), numpy.stack(lenses), str(root))
    return Views(torch.stack(images), camera, torch.tensor(items), name=f"{root.name}/{split}")


def carla(path: str | Path, split: str = "train", *, size: int | None = None, channels: int | None = None) -> Views:
    """A folder in the layout of GRAF's CARLA cars, an object an image: pictures there or in images/, and carla_poses/ (or poses/).

    That folder holds STEM_extrinsics.npy [3, 4] for STEM.png and intrinsics.npy, whose last two axes are the lens matrix in pixels.
    Split 80/10/10. Which way the matrices go is told from that all cameras look at the origin.
    """
    check_split(split)
    root = Path(path)
    poses = _poses_folder(root)
    if poses is None:
        raise InputError(f"{root} has no folder carla_poses or poses with intrinsics.npy")
    home = next((part for part in (root / "images", root / "carla_images") if part.is_dir()), root)
    pictures = _pictures(home)
    pictures = [pictures[row] for row in partition(split, len(pictures), SHARES).tolist()]
    images = [_square(picture, size, channels) for picture in pictures]
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
    return Views(torch.stack(images), camera, torch.arange(len(images)), name=f"{root.name}/{split}")


def _poses_folder(root: Path) -> Path | None:
    return next((root / name for name in ("carla_poses", "poses") if (root / name / "intrinsics.npy").is_file()), None)


def _pictures(folder: Path) -> list[Path]:
    found = sorted(file for file in folder.glob("*") if file.suffix.lower() in SUFFIXES)
    if not found:
        raise InputError(f"{folder} holds no pictures; the endings read are {', '.join(SUFFIXES)}")
    return found


def _square(file: Path, size: int | None, channels: int | None) -> Tensor:
    require("PIL", "images")
    image = decode(file, str(file), None, channels or 3)
    if image.shape[1] != image.shape[2]:
        raise InputError(f"{file}: pictures with cameras must be square, got {image.shape[2]} × {image.shape[1]} pixels")
    return convert(image[None], size)[0]


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
