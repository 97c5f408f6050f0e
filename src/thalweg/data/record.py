"""What a model was trained on, as its folder says it (data.json): enough to know the data again, and to do without them.

name         what to call them; source: where they were loaded from, a name or an absolute path, None for data of one's own;
             options: what else `data.load` was told
fingerprint  of their content: it decides whether data are the same, not their name or where they lie
shape, classes, concepts, range, count, and preprocessing, whatever the data's own `describe()` says of it
read         by which options they are read, where these decide what comes when: a run goes on with the same only
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .base import Data
from .images import Images
from .toy import Toy
from .unpaired import Unpaired

EXAMPLES = 256  # of a stream, that stand for all of it
Record = Mapping[str, Any]


def origin(data: Any) -> str | None:
    """Where data were loaded from: a name that `data.load` knows, or an absolute path; None for data of one's own."""
    data = data.target if isinstance(data, Unpaired) else data
    return data.name if isinstance(data, Toy) else getattr(data, "origin", None)


def name_of(data: Data) -> str:
    """What to call data: the name they were loaded by, the last part of a path, or their own name."""
    found = origin(data)
    if found is None:
        return data.name
    return Path(found).name if Path(found).is_absolute() else found


def record(data: Data) -> dict[str, Any]:
    """What a run's folder says of the data that it is trained on; plain values, as JSON holds them. Reads all of what is in memory."""
    try:
        count = len(data)  # type: ignore[arg-type]
    except TypeError:  # a stream
        count = None
    describe = getattr(data, "describe", None)
    found = {
        "name": name_of(data),
        "source": origin(data),
        "options": dict(getattr(data, "options", {})),
        "fingerprint": fingerprint(data),
        "shape": list(data.shape),
        "classes": [] if getattr(data, "concepts", {}) else list(data.classes),
        "concepts": {key: list(values) for key, values in getattr(data, "concepts", {}).items()},
        "range": _range(data),
        "count": count,
        "preprocessing": dict(describe()) if callable(describe) else {},
    }
    if read := getattr(data, "read", ""):
        found["read"] = read
    if isinstance(data, Unpaired):
        found["target_fingerprint"] = fingerprint(data.target)
        found["source_domain"] = {"name": name_of(data.source), "source": origin(data.source)}
    return found


def are(found: Record | None, data: Data) -> bool:
    """Whether data are those of a record, of a translation its target; True where there is none."""
    return found is None or (found.get("target_fingerprint") or found["fingerprint"]) == fingerprint(data)


def fingerprint(data: Any) -> str:
    """16 hexadecimal digits of the content of data: of examples in memory all of it, of a stream the first ones in a set order.

    Flips, jitter and other draws of a batch do not count, nor do names; the size that pictures were brought to does. What is made by
    its name (rendered or stacked pictures, a stream of the hub) goes by that, since its values may differ from machine to machine.
    """
    if isinstance(data, Unpaired):
        return _digest(fingerprint(data.target).encode(), fingerprint(data.source).encode())
    known, source, x = getattr(data, "fingerprint", None), origin(data), getattr(data, "x", None)
    if isinstance(known, str):
        return known
    if source is not None and not Path(source).is_absolute() and not isinstance(data, Images):
        return _digest(f"{source} {list(data.shape)}".encode())
    if isinstance(x, Tensor):
        return _digest(*_bytes(x), *_bytes(getattr(data, "label", None)))
    first = data.batch(0, EXAMPLES, 0)
    return _digest(*_bytes(first.x), *_bytes(first.label))


def _bytes(values: Tensor | None) -> list[bytes | memoryview]:
    if values is None:
        return []
    values = values.detach().cpu().contiguous()
    return [f"{values.dtype}{list(values.shape)}".encode(), memoryview(values.view(torch.uint8).numpy().reshape(-1))]


def _digest(*parts: bytes | memoryview) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]


def _range(data: Any) -> list[float] | None:
    """The lowest and the highest value of images in memory, as a model sees them."""
    if not isinstance(data, Images):
        return None
    low, high = float(data.x.min()), float(data.x.max())
    return [low / 127.5 - 1, high / 127.5 - 1] if data.x.dtype == torch.uint8 else [low, high]


def public(found: Record) -> dict[str, Any]:
    """The same without a path of this machine, for what is handed on."""
    source = found.get("source")
    return {**found, "source": None if source is None or Path(source).is_absolute() else source, "source_domain": None}


def class_names(found: Record | None, classes: int) -> tuple[str, ...]:
    """The names of so many classes: those of a record, numbers where it has none."""
    names = tuple(found["classes"]) if found else ()
    return names + tuple(str(i) for i in range(len(names), classes))


def concepts(found: Record | None) -> dict[str, tuple[str, ...]]:
    """The concepts of a record with their values' names; empty where it has one kind of label."""
    return {key: tuple(values) for key, values in found["concepts"].items()} if found else {}
