"""Pictures between the page and tensors: data URLs in memory, no files."""

import base64
import binascii
import io
from typing import Any

import torch
from torch import Tensor

from thalweg.data.folders import decode as decode_picture
from thalweg.data.folders import look
from thalweg.data.images import to_unit
from thalweg.errors import InputError

MOST_PIXELS = 40_000_000  # of an uploaded picture


def encoded(x: Tensor) -> str:
    """A picture [C, H, W] in [−1, 1], C = 1 or 3, as a PNG in a data URL; values outside are clipped, NaN is black."""
    from PIL import Image

    values = ((x.detach().cpu().float().nan_to_num(-1.0).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    image = Image.fromarray(values[0].numpy() if len(values) == 1 else values.permute(1, 2, 0).contiguous().numpy())
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return as_url(buffer.getvalue())


def as_url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def content(given: Any, name: str) -> bytes:
    """The bytes of a data URL, or of plain base64; InputError for what is neither."""
    if not isinstance(given, str) or not given:
        raise InputError(f"{name} is missing")
    try:
        return base64.b64decode(given.rpartition(",")[2], validate=True)
    except (binascii.Error, ValueError):
        raise InputError(f"{name} did not arrive whole: it is no base64") from None


def decoded(given: Any, name: str, shape: tuple[int, ...]) -> Tensor:
    """An uploaded picture brought to `shape` [C, H, W], as [1, C, H, W] in [−1, 1]; InputError for what is no picture or too large."""
    if len(shape) != 3:
        raise InputError(f"this model is of vectors {list(shape)}, it takes no pictures")
    raw = content(given, name)
    found = look(io.BytesIO(raw), name)
    if found.height * found.width > MOST_PIXELS:
        raise InputError(f"{name} has {found.width} × {found.height} pixels, at most {MOST_PIXELS // 10**6} million are read")
    return to_unit(decode_picture(io.BytesIO(raw), name, (shape[1], shape[2]), shape[0]))[None]
