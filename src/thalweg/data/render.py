"""Objects rendered from meshes: 999 of pybullet_data, or a folder of one's own; rendered once, then read from the cache."""

import colorsys
import ctypes
import hashlib
import io
import json
import math
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from .. import camera as cameras
from ..errors import InputError, require
from ..random import seeded, uniform
from .images import Size, check_size, check_split, convert, partition, side
from .views import Views

VIEWS = 20  # of each rendered object
DISTANCE, FIELD_OF_VIEW = 4.0, 30.0  # degrees; a ball of radius 1, which holds the object, just fits
ALTITUDES = (0.0, math.pi / 3)
SHARES = (0.1, 0.1)  # of validation and test, where a set has no splits of its own
_BROKEN = ("168",)  # of pybullet_data: every corner is NaN
_RECIPE = 2  # of the renderer: a change makes other cache entries


def objects(
    split: str = "train", *, size: Size | None = None, channels: int | None = None, missing: float = 0.0, aligned: bool = False
) -> Views:
    """The 999 coloured objects of pybullet_data, 20 views of each at `size` (32) pixels on white; 799, 100 and 100 objects.

    `missing` is the share of each image that is noise (see `Views.masked`); `aligned` lays every object on its principal axes (see
    `render`). Rendered once (extra `objects`), then read from the cache.
    """
    root = Path(require("pybullet_data", "objects").getDataPath()) / "random_urdfs"
    found = _split_of_meshes(sorted(root.glob("*/*.obj")), split, size, channels, f"objects/{split}", aligned, _BROKEN)
    return found.masked(missing) if missing else found


def meshes(path: str | Path, split: str = "train", *, size: Size | None = None, channels: int | None = None) -> Views:
    """The Wavefront meshes (*.obj) of a folder, each in a colour drawn by its number, rendered as `objects`; split 80/10/10 by object."""
    check_split(split)
    files = sorted(Path(path).glob("*.obj"))
    if not files:
        raise InputError(f"{path} holds no meshes (*.obj)")
    return _split_of_meshes(files, split, size, channels, f"{Path(path).name}/{split}")


def _split_of_meshes(
    files: list[Path],
    split: str,
    size: Size | None,
    channels: int | None,
    name: str,
    aligned: bool = False,
    broken: Sequence[str] = (),
) -> Views:
    check_split(split)
    check_size(size, channels)
    rows = [row for row in partition(split, len(files), SHARES).tolist() if files[row].stem not in broken]
    found = render([files[row] for row in rows], seeds=rows, size=side(size) or 32, name=name, aligned=aligned)
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
    with _silence():
        pybullet = require("pybullet", "objects")
        from pybullet_utils.bullet_client import BulletClient

        client = BulletClient(pybullet.DIRECT)  # without a window
    try:
        yield client
    finally:
        client.disconnect()


@contextmanager
def _silence() -> Iterator[None]:
    """Nothing on the descriptors of stdout and stderr, where pybullet writes a greeting past Python."""
    _flush()
    kept, nothing = [os.dup(descriptor) for descriptor in (1, 2)], os.open(os.devnull, os.O_WRONLY)
    try:
        for descriptor in (1, 2):
            os.dup2(nothing, descriptor)
        yield
    finally:
        _flush()
        for descriptor, copy in zip((1, 2), kept):
            os.dup2(copy, descriptor)
        for descriptor in (*kept, nothing):
            os.close(descriptor)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    if os.name == "posix":
        ctypes.CDLL(None).fflush(None)  # of C's own streams


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
