"""Chairs and cars made by code, rendered once by several processes, then read from the cache; with all that is true of them."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Queue
from typing import Any, NamedTuple

import numpy
import torch

from ..progress import Progress
from . import render
from .categories import CATEGORIES
from .images import Size, check_size, check_split, convert, partition, side
from .parts import RGB, Part, mesh
from .views import Views

OBJECTS = 3000
FINER = 4  # sub-pixels along each side of a pixel
LONG = 15.0  # seconds of rendering above which several processes share it, and say how far they are
COST = 2.5e-7  # CPU seconds of a sub-pixel
_RECIPE = 1  # of parts and renderer: a change makes other cache entries


def chairs(
    split: str = "train",
    *,
    size: Size | None = None,
    channels: int | None = None,
    objects: int = OBJECTS,
    views: int = render.VIEWS,
    missing: float = 0.0,
) -> Views:
    """Procedural chairs that look towards x, `views` images of each at `size` (32) pixels on white; `objects`, split 80/10/10.

    With `depth`, `mask` and `factors` (see `Views`). `missing` is the share of each image that is noise (see `Views.masked`). Rendered
    once (extra `objects`), which takes minutes, then read from the cache.
    """
    return _category("chairs", split, size, channels, objects, views, missing)


def cars(
    split: str = "train",
    *,
    size: Size | None = None,
    channels: int | None = None,
    objects: int = OBJECTS,
    views: int = render.VIEWS,
    missing: float = 0.0,
) -> Views:
    """Procedural cars that drive towards x; the rest as of `chairs`."""
    return _category("cars", split, size, channels, objects, views, missing)


def _category(name: str, split: str, size: Size | None, channels: int | None, objects: int, views: int, missing: float) -> Views:
    check_split(split)
    check_size(size, channels)
    numbers = partition(split, objects, render.SHARES).tolist()
    found = made(name, numbers, views=views, size=side(size) or 32, name=f"{name}/{split}")
    found = found._with(x=convert(found.x, None, channels))
    return found.masked(missing) if missing else found


def made(category: str, numbers: Sequence[int], *, views: int = render.VIEWS, size: int = 32, name: str = "", cache: bool = True) -> Views:
    """The objects of a category ("chairs", "cars") by their `numbers`, from cameras that the number draws (see `render.render`).

    An image is the mean of 4×4 rendered pixels each, `mask` the share of them that the object covers (0 … 255), `depth` their mean
    distance along the ray where that is half or more.
    """
    digest = hashlib.sha256(json.dumps([_RECIPE, category, list(numbers), views, size]).encode())
    key = f"{category}-{digest.hexdigest()[:16]}"
    arrays = render._cached(key) if cache else None
    if arrays is None:
        arrays = _rendered(category, numbers, views, size)
        if cache:
            render._keep(key, arrays)
    parts = {part: torch.from_numpy(values) for part, values in arrays.items()}
    factors = {part.removeprefix("factor:"): values for part, values in parts.items() if part.startswith("factor:")}
    item = torch.arange(len(numbers)).repeat_interleave(views)
    values = CATEGORIES[category](0)[1].values
    return Views(
        parts["x"], parts["camera"], item, depth=parts["depth"], mask=parts["mask"], factors=factors, values=values, name=name or category
    )


class _Seen(NamedTuple):
    """Of one object from V cameras: x [V, 3, S, S] uint8, depth [V, S, S] float16, mask [V, S, S] uint8."""

    x: numpy.ndarray
    depth: numpy.ndarray
    mask: numpy.ndarray

    @classmethod
    def empty(cls, views: int, size: int) -> "_Seen":
        shapes = ((views, 3, size, size), numpy.uint8), ((views, size, size), numpy.float16), ((views, size, size), numpy.uint8)
        return cls(*(numpy.empty(shape, kind) for shape, kind in shapes))


def _rendered(category: str, numbers: Sequence[int], views: int, size: int) -> dict[str, numpy.ndarray]:
    long = COST * len(numbers) * views * (FINER * size) ** 2 > LONG
    processes = min(_cores(), len(numbers)) if long else 1
    by = f"{processes} processes" if processes > 1 else "1 process"
    title = f"rendering {len(numbers):,} {category}, {views} views each of {size}×{size} pixels, by {by}; kept for next time"
    found, begun = {}, time.monotonic()
    with Progress(long, title, len(numbers) * views, None) as progress:
        for i, seen in _in_processes(category, numbers, views, size, processes) if long else _here(category, numbers, views, size):
            found[i] = seen
            progress.step(len(found) * views, time.monotonic() - begun)
    arrays = {part: numpy.concatenate([getattr(found[i], part) for i in range(len(numbers))]) for part in _Seen._fields}
    factors = [CATEGORIES[category](number)[1].found for number in numbers]
    for name, value in factors[0].items():
        arrays[f"factor:{name}"] = numpy.array([of[name] for of in factors], numpy.int64 if isinstance(value, int) else numpy.float32)
    return arrays | {"camera": torch.cat([render._poses(number, views) for number in numbers]).numpy()}


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _here(category: str, numbers: Sequence[int], views: int, size: int) -> Iterator[tuple[int, _Seen]]:
    with render._bullet() as bullet:
        for i, number in enumerate(numbers):
            yield i, _look(bullet, CATEGORIES[category](number)[0], number, views, size)


def _look(bullet: Any, parts: list[Part], number: int, views: int, size: int) -> _Seen:
    bodies, seen = [_body(bullet, parts, colour) for colour in dict.fromkeys(part.colour for part in parts)], _Seen.empty(views, size)
    for j, camera in enumerate(render._poses(number, views)):
        image, depth = render._picture(bullet, camera, FINER * size)
        seen.x[j], seen.depth[j], seen.mask[j] = coarser(image, depth)
    for body in bodies:
        bullet.removeBody(body)
    return seen


def _body(bullet: Any, parts: list[Part], colour: RGB) -> int:
    """The parts in `colour`, as one body."""
    corner, normal, triangle = mesh([part for part in parts if part.colour == colour])
    lists = dict(vertices=corner.tolist(), normals=normal.tolist(), indices=triangle.flatten().tolist())
    return bullet.createMultiBody(baseVisualShapeIndex=bullet.createVisualShape(bullet.GEOM_MESH, rgbaColor=[*colour, 1.0], **lists))


def coarser(image: numpy.ndarray, depth: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
    """An image [3, 4 S, 4 S] and its distances [4 S, 4 S], infinite where nothing is, as image, depth and mask of S by S pixels."""

    def blocks(values: numpy.ndarray) -> numpy.ndarray:
        *first, height, width = values.shape
        return values.reshape(*first, height // FINER, FINER, width // FINER, FINER)

    covered = blocks(numpy.isfinite(depth))
    share = covered.mean((-3, -1))
    total = numpy.where(covered, blocks(depth), 0).sum((-3, -1), dtype=numpy.float64)
    mean = numpy.where(share >= 0.5, total / numpy.maximum(share * FINER**2, 1), numpy.inf)
    return blocks(image).mean((-3, -1)).round().astype(numpy.uint8), mean.astype(numpy.float16), (255 * share).round().astype(numpy.uint8)


# --- several processes


def _in_processes(category: str, numbers: Sequence[int], views: int, size: int, processes: int) -> Iterator[tuple[int, _Seen]]:
    """By interpreters that write what they see to a pipe: forked processes would share torch's threads, spawned ones import the caller."""
    ready: Queue[tuple[int, _Seen] | None] = Queue()

    def follow(rows: range) -> None:
        try:
            _follow(category, numbers, rows, views, size, ready.put)
        finally:
            ready.put(None)

    with ThreadPoolExecutor(processes) as pool:
        futures = [pool.submit(follow, range(k, len(numbers), processes)) for k in range(processes)]
        running = processes
        while running:
            seen = ready.get()
            if seen is None:
                running -= 1
            else:
                yield seen
        for future in futures:
            future.result()


def _follow(
    category: str, numbers: Sequence[int], rows: Sequence[int], views: int, size: int, tell: Callable[[tuple[int, _Seen]], None]
) -> None:
    """Start a process that renders `rows` of `numbers`, and tell of each object as it comes."""
    order = json.dumps([category, [numbers[row] for row in rows], views, size])
    command = [sys.executable, "-c", f"from {__name__} import _work; _work()", order]
    paths = os.pathsep.join(path for path in sys.path if path)
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}) as process:
        for row in rows:
            seen = _Seen.empty(views, size)
            for part in seen:
                content = process.stdout.read(part.nbytes)
                if len(content) < part.nbytes:
                    raise RuntimeError(f"a process that rendered {category} ended with code {process.wait()}")
                part[:] = numpy.frombuffer(content, part.dtype).reshape(part.shape)
            tell((row, seen))


def _work() -> None:
    """The process's side."""
    category, numbers, views, size = json.loads(sys.argv[1])
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # pybullet greets on stdout
        for _, seen in _here(category, numbers, views, size):
            for part in seen:
                out.write(part.tobytes())
            out.flush()
