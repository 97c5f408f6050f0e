"""A run's folder on disk: atomic, self-checking states and the files next to them.

A state's name carries the count of images and eight digits of its SHA-256, so that a torn or altered file is known before
it is read; the one before it is then used, and a warning says so. Files load with `weights_only=True`. In a data-parallel
run the first rank alone reads and writes.
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors

import thalweg
from thalweg.errors import InputError

KEEP = 3
WEIGHTS = "model.safetensors"


def write_bytes(path: Path, content: bytes) -> None:
    """Write, fsync, rename: after a crash `path` holds the old content or the new, never half. InputError where it cannot."""
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise InputError(f"cannot write {path}: {_why(error)}. What was there before is unchanged") from None


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError of the block, which writes `path`, into InputError."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write {path}: {_why(error)}") from None


def _why(error: OSError) -> str:
    return "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else error.strerror or str(error)


def write(path: Path, state: Any) -> None:
    """`torch.save`, atomically."""
    write_bytes(path, _serialised(state))


def _serialised(state: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def read(path: Path, device: torch.device | str = "cpu") -> Any:
    """A state from disk without executing code. InputError for a file that is missing, torn or no state."""
    try:
        content = path.read_bytes()
        digest = re.search(r"-([0-9a-f]{8})\.pt$", path.name)
        if digest and hashlib.sha256(content).hexdigest()[:8] != digest[1]:
            raise InputError(f"{path} is corrupt: its checksum does not match its name")
        return torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path} is corrupt or no state of Thalweg: {str(error).splitlines()[0]}") from None


def save(out: Path, state: dict[str, Any]) -> None:
    """Write the state at its count of images, in place of one of the same count, and drop all but the newest few."""
    content = _serialised(state)
    digest = hashlib.sha256(content).hexdigest()[:8]
    path = out / f"state-{state['images']:012d}-{digest}.pt"
    write_bytes(path, content)
    states = _states(out)
    stale = [file for file in states[state["images"]] if file != path]
    for file in stale + [file for files in list(states.values())[KEEP:] for file in files]:
        file.unlink(missing_ok=True)


def _states(out: Path) -> dict[int, list[Path]]:
    """Files by count of images, the newest count first."""
    found: dict[int, list[Path]] = {}
    for path in sorted(out.glob("state-*.pt")):
        if count := re.match(r"state-(\d+)-", path.name):
            found.setdefault(int(count[1]), []).append(path)
    return dict(sorted(found.items(), reverse=True))


def latest(out: Path, device: torch.device | str = "cpu", skip: int = 0) -> dict[str, Any] | None:
    """The newest state that is whole, passing over `skip` whole ones (but never the oldest), or None where there is no state."""
    chosen = None
    for files in _states(out).values():
        state = None
        for file in files:
            try:
                state = read(file, device)
                break
            except InputError as error:
                print(f"thalweg: {error}; using the state before it", file=sys.stderr)
        if state is None:
            continue
        chosen = state
        if skip == 0:
            break
        skip -= 1
    if chosen is None and _states(out):
        raise InputError(f"no state in {out} can be read; move the folder away to start anew")
    return chosen


def read_weights(folder: Path, which: str = "last") -> dict[str, torch.Tensor]:
    """The tensors of a trained model: of an exported folder, or of the EMA twin in a run's "last" or "best" state.

    InputError where nothing is there, and for what is corrupt or no state.
    """
    if (folder / WEIGHTS).exists():
        return read_tensors(folder / WEIGHTS)
    if which == "best":
        if not (folder / "best.pt").exists():
            raise InputError(f"{folder} has no best.pt: the run had no held-out data or has not been evaluated yet; use which = 'last'")
        state = read(folder / "best.pt")
    else:
        state = latest(folder)
        if state is None:
            raise InputError(f"{folder} has no {WEIGHTS} and holds no state yet; train it first")
    if not isinstance(state, dict) or "ema" not in state:
        raise InputError(f"{folder} holds no state of Thalweg: it has no EMA weights")
    return state["ema"]


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The named tensors of a safetensors file; InputError where it is missing or corrupt."""
    try:
        return load_tensors(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path.parent} has no {path.name}") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except SafetensorError as error:
        raise InputError(f"{path} is corrupt: {error}") from None


def drop_after(out: Path, images: int) -> None:
    """Remove the states beyond `images`: they led to a divergence."""
    for count, files in _states(out).items():
        if count > images:
            for file in files:
                file.unlink(missing_ok=True)


def read_stats(out: Path) -> list[dict[str, Any]]:
    """The rows of stats.jsonl, without a line that was being written when the run was killed."""
    path = out / "stats.jsonl"
    rows = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict) and "images" in row]


def trim_stats(out: Path, images: int) -> None:
    """Drop the rows of stats.jsonl beyond `images` (they are about to be written again); events stay."""
    if (out / "stats.jsonl").exists():
        rows = [row for row in read_stats(out) if row["images"] <= images or "event" in row]
        write_bytes(out / "stats.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())


def describe(method: Any) -> dict[str, Any]:
    """What config.json says of a method: enough to build it again."""
    return {"thalweg": thalweg.__version__, "method": method.name, "config": json.loads(json.dumps(asdict(method.config)))}


def prepare(out: Path, method: Any) -> None:
    """Make the run folder, or check that the one there belongs to the same method and config. InputError otherwise."""
    ours = describe(method)
    if out.exists() and not out.is_dir():
        raise InputError(f"the output {out} is a file; give a folder")
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        found = {file.name for file in out.iterdir()}
    path = out / "config.json"
    if path.name in found:
        if WEIGHTS in found:
            raise InputError(f"the folder {out} holds an exported model, not a run; give a new or empty folder")
        _same(out, read_config(out), ours)
        for partial in out.glob("state-*.partial"):  # what was being written when the run was killed
            partial.unlink(missing_ok=True)
    elif found - {f"{path.name}.partial"}:
        raise InputError(f"the folder {out} holds other files and no run; give a new or empty folder")
    else:
        write_bytes(path, (json.dumps(ours, indent=2) + "\n").encode())


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a run or an exported model; InputError where it is missing or not one of ours."""
    path = folder / "config.json"
    if not path.is_file():
        raise InputError(f"{folder} is no run or exported model: it has no config.json")
    try:
        found = json.loads(path.read_text())
        known = {"thalweg": found["thalweg"], "method": found["method"], "config": found["config"]}
        if not isinstance(known["method"], str) or not isinstance(known["config"], dict):
            raise TypeError
        return known
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path} is corrupt or not Thalweg's: it needs the keys thalweg, method and config") from None


def of_another_version(folder: Path, version: str, trouble: InputError) -> InputError:
    """The error of a model that does not fit: where another version has written it, that is the reason."""
    if version == thalweg.__version__:
        return trouble
    return InputError(
        f"{folder} was made by Thalweg {version} and does not fit {thalweg.__version__}: train it anew, or use it with that version "
        f"(pip install thalweg=={version})"
    )


def _same(out: Path, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    if theirs["method"] != ours["method"]:
        raise InputError(f"{out} holds a run of {theirs['method']}, not {ours['method']}; give another folder")
    there, here = flat(theirs["config"]), flat(ours["config"])
    for key in sorted(there.keys() | here.keys()):
        if there.get(key) != here.get(key):
            trouble = f"{out} was started with {key} = {there.get(key)!r}, now {here.get(key)!r}; give the same value or another folder"
            known = theirs["config"].keys() == ours["config"].keys()
            raise InputError(trouble) if known else of_another_version(out, theirs["thalweg"], InputError(trouble))


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted names: {"net": {"width": 8}} is {"net.width": 8}."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) and value else {f"{prefix}{name}": value}
    return found
