"""Convex parts in colour, of which procedural objects are made, and the factors that are drawn for them.

Lengths are in world units; x is the object's front, y its left, z up.
"""

import colorsys
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy

from ..random import integers, seeded, uniform

RGB = tuple[float, float, float]
# hue in turns, saturation and value of the colours that objects have; each object's differ a little
PALETTE = {
    "red": (0.0, 0.85, 0.85),
    "orange": (0.08, 0.9, 0.95),
    "yellow": (0.145, 0.85, 0.95),
    "green": (0.36, 0.7, 0.6),
    "blue": (0.6, 0.8, 0.85),
    "purple": (0.78, 0.55, 0.65),
    "brown": (0.07, 0.6, 0.45),
    "grey": (0.6, 0.06, 0.6),
}
JITTER = (0.015, 0.06, 0.06)  # half-widths, of hue, saturation and value


class Part(NamedTuple):
    """A convex part: two polygons of as many corners, `low` and `high` [K, 3], joined corner by corner, in one colour."""

    low: numpy.ndarray
    high: numpy.ndarray
    colour: RGB

    @property
    def corners(self) -> numpy.ndarray:
        """[2 K, 3]"""
        return numpy.concatenate([self.low, self.high])

    @property
    def faces(self) -> list[numpy.ndarray]:
        """Corners [M, 3] of each face: the two polygons, and a quadrangle for each of their edges."""
        low, high = numpy.roll(self.low, -1, 0), numpy.roll(self.high, -1, 0)
        return [self.low, self.high, *(numpy.stack(sides) for sides in zip(self.low, low, high, self.high))]


def mesh(parts: Sequence[Part]) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
    """Corners and normals [N, 3] of all faces, each face with its own, and triangles [T, 3] of them, counter-clockwise from outside."""
    corner, normal, triangle, count = [], [], [], 0
    for part in parts:
        middle = part.corners.mean(0)
        for face in part.faces:
            after = numpy.roll(face, -1, 0)
            out = numpy.cross(face, after).sum(0)  # twice the area's vector: also of faces with corners that coincide
            area = numpy.linalg.norm(out)
            if area < 1e-9:
                continue
            out = out / area
            if out @ (face.mean(0) - middle) < 0:
                face, out = face[::-1], -out
            corner.append(face)
            normal.append(numpy.tile(out, (len(face), 1)))
            triangle += [[count, count + i, count + i + 1] for i in range(1, len(face) - 1)]
            count += len(face)
    return numpy.concatenate(corner), numpy.concatenate(normal), numpy.array(triangle)


def box(low: Sequence[float], high: Sequence[float], colour: RGB, *, top: Sequence[float] = (1.0, 1.0)) -> Part:
    """A box between two opposite corners; its top may be scaled about its middle by `top` along x and y."""
    (x0, y0, z0), (x1, y1, z1) = low, high
    corner = numpy.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    middle = corner.mean(0)
    return Part(_at(corner, z0), _at(middle + (corner - middle) * numpy.array(top), z1), colour)


def beam(start: Sequence[float], end: Sequence[float], width: Sequence[float], colour: RGB, *, tip: float = 1.0) -> Part:
    """A square rod from `start` to `end`, `width` along x (of an upright one; else along z) and along y; its end scaled by `tip`."""
    start, end = numpy.array(start), numpy.array(end)
    along = numpy.abs(end - start)
    first = (0, 1) if along[2] >= along[:2].max() else ((2, 1) if along[0] >= along[1] else (2, 0))  # across the longest axis
    corner = numpy.zeros((4, 3))
    corner[:, first[0]] = numpy.array([-0.5, 0.5, 0.5, -0.5]) * width[0]
    corner[:, first[1]] = numpy.array([-0.5, -0.5, 0.5, 0.5]) * width[1]
    return Part(start + corner, end + tip * corner, colour)


def disc(
    centre: Sequence[float],
    radii: tuple[float, float],
    height: float,
    colour: RGB,
    *,
    axis: int = 2,
    sides: int = 12,
    power: float = 2.0,
) -> Part:
    """A prism of `sides` from `centre` along `axis` (0, 1, 2 for x, y, z), over the superellipse |u/a|^p + |v/b|^p = 1."""
    angle = (numpy.arange(sides) + 0.5) * 2 * math.pi / sides
    corner = numpy.tile(numpy.array(centre, dtype=float), (sides, 1))
    for i, radius, wave in zip([i for i in range(3) if i != axis], radii, (numpy.cos(angle), numpy.sin(angle))):
        corner[:, i] += radius * numpy.sign(wave) * numpy.abs(wave) ** (2 / power)
    away = numpy.zeros(3)
    away[axis] = height
    return Part(corner, corner + away, colour)


def extrusion(
    profile: Sequence[tuple[float, float]], right: float, left: float, colour: RGB, *, taper: Sequence[float] | None = None
) -> Part:
    """A convex `profile` of points (x, z) between y = `right` and `left`; `taper` of each point scales both about their middle."""
    flat, middle, half = numpy.array(profile), (left + right) / 2, (left - right) / 2
    scale = numpy.ones(len(flat)) if taper is None else numpy.array(taper)
    return Part(*(numpy.stack([flat[:, 0], middle + side * half * scale, flat[:, 1]], 1) for side in (-1, 1)), colour)


def _at(corner: numpy.ndarray, z: float) -> numpy.ndarray:
    return numpy.concatenate([corner, numpy.full((len(corner), 1), z)], 1)


class Draws:
    """Factors of one object, drawn in the order in which they are asked for from the stream of its `number`; `found` by name."""

    def __init__(self, number: int, stream: int) -> None:
        self.generator = seeded(number, stream)
        self.found: dict[str, Any] = {}
        self.values: dict[str, tuple[str, ...]] = {}  # names of what factors that are whole numbers stand for

    def number(self, name: str, low: float, high: float) -> float:
        """Uniform."""
        self.found[name] = float(uniform(1, low=low, high=high, generator=self.generator))
        return self.found[name]

    def choice(self, name: str, values: Sequence[str]) -> str:
        """One of `values`, all alike; one that stands there twice is twice as likely."""
        self.values[name] = tuple(dict.fromkeys(values))
        value = values[int(integers(1, 0, len(values), self.generator))]
        self.found[name] = self.values[name].index(value)
        return value

    def colour(self, name: str) -> RGB:
        """One of the palette, under `name`, and its own red, green and blue in [0, 1] under `name`_rgb."""
        hue, saturation, value = PALETTE[self.choice(name, tuple(PALETTE))]
        jitter = [most * (2 * u - 1) for most, u in zip(JITTER, uniform(3, generator=self.generator).tolist())]
        rgb = colorsys.hsv_to_rgb(
            (hue + jitter[0]) % 1, *(min(1.0, max(0.0, part)) for part in (saturation + jitter[1], value + jitter[2]))
        )
        self.found[f"{name}_rgb"] = rgb
        return rgb

    def same(self, name: str, other: str) -> RGB:
        """The colour `name` becomes that of `other`."""
        for end in ("", "_rgb"):
            self.found[f"{name}{end}"] = self.found[f"{other}{end}"]
        return self.found[f"{name}_rgb"]
