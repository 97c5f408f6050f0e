"""Watch: what a training's folder says of it. Nothing outside that folder is read, whatever links it holds."""

import time
from pathlib import Path
from typing import Any

from thalweg import checkpoint
from thalweg.app.asked import Asked
from thalweg.app.pictures import as_url
from thalweg.app.shelf import Entry
from thalweg.errors import InputError
from thalweg.progress import duration, per_second

POINTS = 240  # of a curve
CURVES = 8
EVENTS = 50
LARGEST = 16 * 2**20  # bytes of a picture
FIRST = ("loss/", "energy", "gradient_norm/")  # beginnings of the names of curves that come first
PNG = b"\x89PNG\r\n\x1a\n"


def inside(folder: Path, *names: str) -> Path:
    """The path of a file in a folder; InputError where links lead out of it, or something in `names` does."""
    home = folder.resolve()
    path = home.joinpath(*names).resolve()
    if not path.is_relative_to(home):
        raise InputError(f"{'/'.join(names)} lies outside {folder}, and is not read")
    return path


def watch(entry: Entry, asked: Asked) -> dict[str, Any]:
    """Curves by name ([images, value] pairs), events of the guard, progress, and the newest picture unless its name is `have`."""
    entry.require("watch")
    folder = entry.folder
    assert folder is not None  # a run's
    stats = inside(folder, "stats.jsonl")
    inside(folder, "config.json")
    rows = checkpoint.read_stats(folder)
    total = checkpoint.read_config(folder)["config"].get("images")
    logged = [row for row in rows if "seconds" in row]
    images, seconds = (logged[-1]["images"], float(logged[-1]["seconds"])) if logged else (0, 0.0)
    total = total if isinstance(total, int) else None
    found: dict[str, Any] = {
        "name": entry.name,
        "images": images,
        "total": total,
        "took": duration(seconds),
        "pace": per_second(images / seconds) if seconds else "",
        "left": duration(seconds * (total / images - 1)) if total and 0 < images < total else "",
        "ago": duration(time.time() - stats.stat().st_mtime) if stats.is_file() else "",
        "curves": curves(rows),
        "events": [{"images": row["images"], "event": str(row["event"])} for row in rows if "event" in row][-EVENTS:],
        "picture": None,
    }
    name, png = newest(folder)
    if name and name != asked.get("have"):
        found["picture"] = {"name": name, "data": as_url(png)}
    return found


def curves(rows: list[dict[str, Any]]) -> dict[str, list[list[float]]]:
    """What was logged, by name, losses first: at most `POINTS` points each, evenly spaced, the last one among them."""
    found: dict[str, list[list[float]]] = {}
    for row in rows:
        for name, value in row.items():
            if name not in ("images", "seconds", "event") and isinstance(value, int | float) and abs(value) < 1e30:
                found.setdefault(name, []).append([row["images"], value])
    order = sorted(found, key=lambda name: next((i for i, first in enumerate(FIRST) if name.startswith(first)), len(FIRST)))
    return {name: _thinned(found[name]) for name in order[:CURVES]}


def _thinned(points: list[list[float]]) -> list[list[float]]:
    if len(points) <= POINTS:
        return points
    return [points[round(i * (len(points) - 1) / (POINTS - 1))] for i in range(POINTS)]


def newest(folder: Path) -> tuple[str, bytes]:
    """Name and content of the newest picture of samples; empty where there is none, or it is no PNG in this folder."""
    home = inside(folder, "samples")
    for path in sorted(home.glob("*.png"), reverse=True) if home.is_dir() else ():
        real = inside(folder, "samples", path.name)
        if real.is_file() and real.stat().st_size <= LARGEST and (content := real.read_bytes()).startswith(PNG):
            return path.name, content
    return "", b""
