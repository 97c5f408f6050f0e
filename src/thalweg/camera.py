"""Pinhole cameras on spheres around the origin: poses from angles and back, and the rays through pixels.

A camera is a tensor [..., 3, 5]. Its columns are, in world coordinates, the unit vectors to the right of the image, to its top and
backward (away from what is seen), then the camera's position, then (focal length, centre x, centre y): the focal length in widths of
the image, the centre in widths from its left and heights from its top. Altitude is the angle above the plane of x and y, azimuth
the angle in it from x towards y.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Optics(NamedTuple):
    """How a model of objects sees: the distance of cameras that no data give to the origin, where rays begin and end (both in world
    units), and the focal length in widths of the image."""

    distance: float
    near: float
    far: float
    focal: float


def unit_vector(angle: Tensor) -> Tensor:
    """(cos, sin) of angles in radians: [...] -> [..., 2]."""
    return torch.stack([angle.cos(), angle.sin()], -1)


def orbit(altitude: Tensor, azimuth: Tensor, *, distance: float | Tensor, focal: float | Tensor) -> Tensor:
    """Cameras that look at the origin: unit vectors (cos, sin) of both angles [..., 2] -> cameras [..., 3, 5].

    `distance` to the origin in world units, `focal` in widths of the image: numbers or [...]. Smooth in the vectors everywhere,
    at the poles too, so that poses can be learned through it.
    """
    (up_down, height), (x, y) = altitude.unbind(-1), azimuth.unbind(-1)
    zero = torch.zeros_like(x)
    back = torch.stack([up_down * x, up_down * y, height], -1)
    top = torch.stack([-height * x, -height * y, up_down], -1)
    right = torch.stack([-y, x, zero], -1)
    lens = torch.stack([zero + focal, zero + 0.5, zero + 0.5], -1)
    return torch.stack([right, top, back, back * (zero + distance).unsqueeze(-1), lens], -1)


def angles(camera: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Altitude in [−π/2, π/2], azimuth in [−π, π] and distance to the origin of the position: [..., 3, 5] -> [...] each, in radians."""
    position = camera[..., 3]
    x, y, z = position.unbind(-1)
    return torch.atan2(z, torch.hypot(x, y)), torch.atan2(y, x), position.norm(dim=-1)


def rays(camera: Tensor, height: int, width: int, pixels: Tensor | None = None, inside: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Origins and unit directions of the rays through pixels' centres: [B, 3, 5] -> [B, P, 3] each.

    `pixels` [B, P] numbers them row by row from 0 at the top left; all height·width of them by default. Pixels are square. `inside`
    [B, P, 2] are other places in them, from the left and from the top, in [0, 1].
    """
    if pixels is None:
        pixels = torch.arange(height * width, device=camera.device).expand(len(camera), -1)
    focal, x, y = (part[:, None] for part in camera[..., 4].unbind(-1))
    across, down = (0.5, 0.5) if inside is None else inside.unbind(-1)
    right = (pixels % width + across) / width - x
    up = (y - (torch.div(pixels, width, rounding_mode="floor") + down) / height) * (height / width)
    local = torch.stack([right / focal, up / focal, -torch.ones_like(right)], -1)
    direction = local @ camera[..., :3].transpose(-1, -2)
    return camera[:, None, :, 3].expand_as(direction), direction / direction.norm(dim=-1, keepdim=True)


def focal_length(field_of_view: float) -> float:
    """The focal length in widths of the image of a horizontal field of view in degrees."""
    return 0.5 / math.tan(math.radians(field_of_view) / 2)
