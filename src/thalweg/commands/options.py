"""Options of the commands: parsed into dataclasses, and checked; whatever is wrong is one InputError."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from thalweg.errors import InputError, nearest
from thalweg.tasks.table import check_seed as check_seed

if TYPE_CHECKING:
    from thalweg.methods.base import Method


def option(field: str) -> str:
    """A field's name as an option: save_every is --save-every."""
    return f"--{field.replace('_', '-')}"


def parse(kind: type, arguments: list[str], command: str, *, rest: bool = False) -> Any:
    """Parse into the dataclass `kind` with tyro; wrong options are one InputError. With `rest`, also what was not known."""
    import contextlib
    import io

    import tyro

    said, cli = io.StringIO(), cast(Any, tyro.cli)  # its overloads know no flag for return_unknown_args
    words = ["--n" if word == "-n" else word for word in arguments]
    try:
        with contextlib.redirect_stderr(said):
            return cli(
                _positional(kind), args=words, prog=f"thalweg {command}", return_unknown_args=rest, config=(tyro.conf.FlagCreatePairsOff,)
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        # tyro frames its message; one plain line is what a terminal and a log can use
        lines = [line.strip(" │╭╮╰╯─\n") for line in said.getvalue().splitlines()]
        frame = ("For full helptext", "Parsing error", "Required options", f"thalweg {command} --help")
        text = " ".join(line for line in lines if line.strip("-") and not line.startswith(frame))
        raise InputError(f"{_plain(text) or 'wrong options'} (see thalweg {command} --help)") from None


_TYPES = {"INT": "a whole number", "FLOAT": "a number", "PATH": "a path", "STR": "a text", "True|False": "True or False"}


def _plain(text: str) -> str:
    """What a parser says of a wrong option: the option, what it takes, and what it got."""
    import re

    wrong = re.search(r"Error parsing (--?[\w-]+): (.*?) Argument helptext: (?:-n, )?--?[\w-]+ (\S+)", text)
    given = re.search(r"(?:instantiated from \[|base 10: |to float: |Got |got )'(.*?)'", wrong[2]) if wrong else None
    if wrong and given:
        kinds = [_TYPES.get(kind, kind.strip("{}").replace(",", ", ")) for kind in wrong[3].split("|") if kind != "{None}"]
        return f"{wrong[1]} takes {' or '.join(kinds)}, got {given[1]!r}"
    if choice := re.search(r"invalid choice '(.*?)' for argument '(.*?)'. Expected one of \((.*?)\)", text):
        known = sorted(set(re.findall(r"'(.*?)'", choice[3])) - {"None"})
        return f"{choice[2].split(', ')[-1]} takes {' or '.join(known)}, got {choice[1]!r}{nearest(choice[1], known)}"
    if missing := re.search(r"Missing value for argument '(.*?)'", text):
        return f"{missing[1].split(', ')[-1]} needs a value"
    if text.startswith("Missing from thalweg "):
        command, _, rest = text.removeprefix("Missing from thalweg ").partition(": ")
        needed = [re.sub(r"^(--[\w-]+ )?[A-Z]+ ", r"\1", part.strip()) for part in rest.split("(required)") if part.strip()]
        return f"{command} needs {'; '.join(needed)}"
    if unknown := re.search(r"Unrecognized options: (--?[\w-]+).*?(?:Perhaps you meant: (--?[\w-]+)|$)", text):
        return f"unknown option {unknown[1]}" + (f" (did you mean {unknown[2]}?)" if unknown[2] else "")
    return text


def _positional(kind: type) -> type:
    """Mark the fields annotated "positional" for tyro, which is imported only now."""
    import dataclasses

    import tyro

    positional: Any = tyro.conf.Positional
    for f in dataclasses.fields(kind):
        annotated: Any = f.type
        if "positional" in getattr(annotated, "__metadata__", ()):
            f.type = positional[annotated.__origin__]
            home = next(base for base in kind.__mro__ if f.name in vars(base).get("__annotations__", ()))
            home.__annotations__[f.name] = f.type
    return kind


def config_fields(config: Any, words: Iterable[str], options: Iterable[str]) -> dict[str, Any]:
    """Config fields from what is left of the command line: --field value or --net.field value, read as JSON where it is JSON.

    `options`: those of the command, which a misspelt field may have meant.
    """
    import json

    from thalweg.config import all_fields

    known, what = list(all_fields(config)), type(config).__module__.rpartition(".")[2]
    bare = {name.rpartition(".")[2] for name in known}
    values: dict[str, Any] = {}
    words = iter(words)
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        if not word.startswith("--"):
            raise InputError(f"unexpected argument '{word}': fields are given as --field value")
        if name not in known and name not in bare and "." not in name:
            hint = nearest(name.replace("_", "-"), [*(k.replace("_", "-") for k in known), *options])
            raise InputError(f"{what} has no field '{name}'{hint}. Its fields: {', '.join(known)}")
        if not equals:
            found = next(words, None)
            if found is None:
                raise InputError(f"--{name} needs a value")
            value = found
        try:
            values[name] = json.loads(value)
        except json.JSONDecodeError:
            values[name] = {"True": True, "False": False}.get(value, value)
    return values


def above_zero(options: Any, *names: str) -> None:
    """Raises InputError unless these options are None or above 0."""
    for name in names:
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise InputError(f"{option(name)} must be above 0, got {value}")


def usable(device: str) -> str:
    """The device that --device names; InputError for one that this machine does not have."""
    from thalweg.distributed import usable

    return usable(device)


def method_class(kind: str | None) -> "type[Method] | None":
    """The class that --kind FILE.py:CLASS names, which is imported; None without."""
    from thalweg.methods import find

    return None if kind is None else find(kind)


def check_out(out: Any, *suffixes: str) -> None:
    """Raises InputError unless --out names a file of one of these endings, in a folder that exists."""
    if out.suffix not in suffixes:
        raise InputError(f"--out {out}: the name must end in {' or '.join(suffixes)}")
    if out.is_dir() or not out.parent.is_dir():
        raise InputError(f"--out {out} is a folder, or in none; give a file in a folder that exists")
