"""`thalweg apply`: any task of thalweg/tasks/table.py, from files to files. Knows no task by name."""

import json
from dataclasses import dataclass, fields, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from thalweg.commands.options import check_out, method_class, option, parse, usable
from thalweg.errors import InputError, nearest
from thalweg.tasks.table import TASKS

if TYPE_CHECKING:
    from thalweg.tasks.applied import Outcome

SHOWN = 100  # images that a picture of restored ones holds at most
READS = {"images": "a folder with pictures, one picture, or an .npz", "views": "data with cameras, by name or folder"}
OF_ROWS = "; for a model of vectors a .csv, .parquet, .npz or .npy"


@dataclass
class Options:
    """Apply a model to images, or to rows of a table."""

    model: Annotated[str, "positional"]
    """run folder, exported folder or hub name"""
    out: Path
    """what to write: FILE.json, FILE.png, FILE.npz or FILE.gif, as the task says"""
    input: str | None = None
    """what to read: pictures, a folder of them or an .npz; data with cameras by name or folder; of a model of vectors a .csv, .parquet or
    .npz"""
    which: str = "last"
    """state of a run: last or best"""
    device: str = "auto"
    """cpu, cuda, mps or auto"""
    kind: str | None = None
    """FILE.py:CLASS of a method of your own"""


def run(arguments: list[str]) -> None:
    if not arguments:
        raise InputError(f"apply needs a task: {', '.join(TASKS)} (see thalweg apply --help)")
    if arguments[0] in ("-h", "--help"):
        print(usage(), end="")
        return
    name, options = read_options(arguments)
    task = TASKS[name]
    from thalweg.commands.files import read_images, read_rows
    from thalweg.data.prepare import image_size
    from thalweg.latent import load
    from thalweg.methods.base import needs

    method = load(options.model, which=options.which, device=usable(options.device), kind=method_class(options.kind))
    shape = tuple(method.config.shape)
    if len(shape) != 3 and not task.rows:
        others = " and ".join(other for other, one in TASKS.items() if one.rows)
        raise InputError(f"{name} is for models of images; this {method.name} is of vectors {list(shape)}, for which there are {others}")
    told = next((option(key) for key in task.instead if getattr(options, key)), "")
    needs(f"{name} {told}".strip(), method, *task.needed(options))
    names: list[str] = []
    given: Any = None
    if options.input is not None:
        if len(shape) != 3:
            names, given = read_rows(options.input, () if method.units is None else method.units.columns)
        elif task.reads == "images":
            values = (method.trained_on or {}).get("options", {}).get("values")
            names, given = read_images(options.input, image_size(shape), shape[0], values)
            if options.out.suffix == ".png" and not task.optional and len(given) > SHOWN:
                raise InputError(
                    f"--out {options.out}: a picture shows {SHOWN} images at most, the input holds {len(given)}; use --out FILE.npz"
                )
        else:
            given = _with_cameras(options.input, method)
    print(write(options.out, task.run(method, given, options), names))


def read_options(arguments: list[str]) -> tuple[str, Any]:
    """The task, and the options of the command with those of the task, checked."""
    name = next((word for word in arguments if word in TASKS), None)
    if name is None:
        word = next((word for word in arguments if not word.startswith("-")), "")
        raise InputError(f"unknown task '{word}'{nearest(word, TASKS)}. Tasks: {', '.join(TASKS)}")
    task, words = TASKS[name], list(arguments)
    words.remove(name)
    _check_known(name, words)
    options = parse(options_of(name), words, f"apply {name}")
    check_out(options.out, *task.writes)
    if options.input is not None and not task.reads:
        raise InputError(f"{name} takes no --input: it works on what the model draws")
    if options.input is None and task.reads and not task.optional:
        raise InputError(f"{name} needs --input PATH: {READS[task.reads]}{OF_ROWS * task.rows}")
    options.check(options.input is not None)
    return name, options.for_file(options.out.suffix)


def _check_known(name: str, words: list[str]) -> None:
    """Raises InputError for an option that neither the command nor the task has."""
    own, others = ([option(f.name) for t in tasks for f in fields(t.options)] for tasks in ([TASKS[name]], TASKS.values()))
    known = {*own, *(option(f.name) for f in fields(Options)), "--help"}
    for word in words:
        given = word.partition("=")[0].replace("_", "-")
        if given.startswith("--") and given not in known:
            hint = "" if given in others else nearest(given, known)
            raise InputError(f"{name} takes no {given}{hint}. Its options: {', '.join(own) or 'none'}")


def options_of(name: str) -> type:
    """The dataclass of all options of a task: those of the command, then its own."""
    task = TASKS[name]
    made = make_dataclass(f"{name.capitalize()}Options", [], bases=(task.options, Options))
    reads = f"Reads {READS[task.reads]}{OF_ROWS * task.rows}{' (or nothing)' * task.optional}" if task.reads else "Reads nothing"
    made.__doc__ = f"{name}: {task.help}. {reads}; writes {', '.join(task.writes)}."
    return made


def usage() -> str:
    """What `thalweg apply --help` says."""
    lines = [f"  {name:12} {task.help}; writes {', '.join(task.writes)}" for name, task in TASKS.items()]
    return (
        "usage: thalweg apply TASK MODEL --out FILE [--input PATH] [options] (thalweg apply TASK --help for them)\n\n"
        "Apply a model to images: a folder of pictures, one picture, or an .npz with key x. A picture (.png) has one row for each image:\n"
        "the input, what was measured of it, and what the model makes of that; an .npz has the arrays.\n\n" + "\n".join(lines) + "\n"
    )


def write(out: Path, outcome: "Outcome", names: list[str]) -> Path:
    """What a task gives, as the kind of file that `out` names."""
    from thalweg import checkpoint, plot
    from thalweg.commands.files import write_arrays

    if out.suffix == ".json":
        rows = [{"input": name, **row} for name, row in zip(names, outcome.records or ())]
        checkpoint.write_bytes(out, (json.dumps(rows, indent=1) + "\n").encode())
        return out
    if out.suffix == ".npz":
        return write_arrays(out, **outcome.arrays)
    assert outcome.rows is not None
    if out.suffix == ".gif":
        return plot.animation(outcome.rows.transpose(0, 1), out)
    return plot.grid(outcome.rows.flatten(0, 1), out, columns=outcome.rows.shape[1], least=outcome.least)


def _with_cameras(source: str, method: Any) -> Any:
    from thalweg import data
    from thalweg.data.prepare import image_size

    found = data.load(source, "test", size=image_size(method.config.shape))
    if not isinstance(found, data.Views):
        raise InputError(f"--input {source}: these images have no cameras; give objects, or a folder in a layout of docs/data.md")
    return found
