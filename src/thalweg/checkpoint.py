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
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors

import thalweg
from thalweg.errors import InputError
from thalweg.stopping import LOCK

KEEP = 3
WEIGHTS = "model.safetensors"
DATA = "data.json"  # what the model was trained on


def write_bytes(path: Path, content: bytes) -> None:
    """Write, fsync, rename: after a crash `path` holds the old content or the new, never half. InputError where it cannot."""
    # a name of its own: two writers of one file never write into each other's
    partial = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident():x}.partial")
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


class Weights(NamedTuple):
    """The tensors of a trained model, after how many images, and the energies of held-out examples, [N] nats, where they are known."""

    tensors: dict[str, torch.Tensor]
    images: int | None = None
    held_out: torch.Tensor | None = None


def read_weights(folder: Path, which: str = "last") -> Weights:
    """The weights of an exported folder, or of the EMA twin in a run's "last" or "best" state.

    InputError where nothing is there, and for what is corrupt or no state.
    """
    if (folder / WEIGHTS).exists():
        return Weights(read_tensors(folder / WEIGHTS))
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
    return Weights(state["ema"], state.get("images"), state.get("held_out"))


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


def make_folder(out: Path) -> None:
    """Make the run folder. InputError for a file, an exported model, and a folder of other things."""
    if out.exists() and not out.is_dir():
        raise InputError(f"the output {out} is a file; give a folder")
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        found = {file.name for file in out.iterdir()}
    if "config.json" in found and WEIGHTS in found:
        raise InputError(f"the folder {out} holds an exported model, not a run; give a new or empty folder")
    if "config.json" not in found and [name for name in found if name not in (LOCK, DATA) and not _is_partial(name)]:
        raise InputError(f"the folder {out} holds other files and no run; give a new or empty folder")


def _is_partial(name: str) -> bool:
    """Whether a file is one of a run's that was being written when it was killed."""
    return name.endswith(".partial") and name.startswith(("state-", "best.pt.", "config.json.", f"{DATA}."))


def prepare(out: Path, method: Any, record: Mapping[str, Any]) -> str:
    """Begin a run in its folder, or check that the one there is of the same method, config and data (`record`); the caller holds its lock.

    A run may be lengthened: then the config's new `images` are written, and a sentence says what that means. InputError for
    another run's folder.
    """
    ours, path, said = describe(method), out / "config.json", ""
    for name in os.listdir(out):
        if _is_partial(name):
            (out / name).unlink(missing_ok=True)
    if path.exists():
        theirs = read_config(out)
        _same(out, theirs, ours)
        _same_data(out, theirs["config"], ours["config"], record)
        before, now = theirs["config"].get("images"), ours["config"]["images"]
        if before != now:
            said = (
                f"{out}: lengthened from {before:,} to {now:,} images; from here on the learning rate follows the schedule of {now:,}, "
                f"{method.config.rate(before):.3g} of its full value at {before:,} images, not {_end(method, before):.3g}"
            )
    for name, values in ((DATA, record), (path.name, ours)):  # also where the data lie now
        if not (out / name).exists() or (out / name).read_bytes() != _json(values):
            write_bytes(out / name, _json(values))
    return said


def _end(method: Any, images: int) -> float:
    """The rate that a run of so many images ended with."""
    return replace(method.config, images=images).rate(images)


def _json(values: Any) -> bytes:
    return (json.dumps(values, indent=2) + "\n").encode()


def read_data(folder: Path) -> dict[str, Any] | None:
    """What the model in a folder was trained on (see `thalweg.data.record`), or None where it does not say."""
    try:
        found = json.loads((folder / DATA).read_text())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"cannot read {folder / DATA}: {error.strerror}") from None
    except ValueError:
        found = None
    if not isinstance(found, dict) or not {"name", "fingerprint", "shape", "classes", "concepts"} <= found.keys():
        raise InputError(f"{folder / DATA} is corrupt or not Thalweg's: it needs name, fingerprint, shape, classes and concepts")
    return found


def read_figures(folder: Path) -> dict[str, Any]:
    """What `thalweg evaluate` has written into a run's folder; empty where it has not, or it cannot be read."""
    try:
        found = json.loads((folder / "metrics.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


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
        before, now = there.get(key), here.get(key)
        longer = key == "images" and isinstance(before, int) and isinstance(now, int) and before <= now
        known_data = key == "data" or (key == "source" and before and now)  # which they are is for the fingerprint to say
        if before != now and not longer and not known_data and not _same_place(before, now):
            hint = "a larger number lengthens it; " if key == "images" else ""
            trouble = f"{out} was started with {key} = {before!r}, now {now!r}; {hint}give the same value or another folder"
            known = theirs["config"].keys() == ours["config"].keys()
            raise InputError(trouble) if known else of_another_version(out, theirs["thalweg"], InputError(trouble))


def _same_place(before: Any, now: Any) -> bool:
    """Whether two values are two spellings of one path."""
    return isinstance(before, str) and isinstance(now, str) and os.path.exists(now) and os.path.realpath(before) == os.path.realpath(now)


def _same_data(out: Path, theirs: Mapping[str, Any], ours: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    before = read_data(out)
    if before is None:  # of an earlier version
        if theirs.get("data") != ours["data"]:
            raise InputError(
                f"{out} was started with data = {theirs.get('data')!r}, now {ours['data']!r}; give the same value or another folder"
            )
    elif before["fingerprint"] != record["fingerprint"] or before.get("read") != record.get("read"):
        what = [f"{one['name']} ({one.get('count') or 'a stream'} of {one['shape']}){one.get('read', '')}" for one in (before, record)]
        raise InputError(
            f"{out} was trained on {what[0]}, and these are other data, {what[1]}: give those it was trained on, wherever they are now "
            f"(--data), or another folder"
        )


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted names: {"net": {"width": 8}} is {"net.width": 8}."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) and value else {f"{prefix}{name}": value}
    return found
