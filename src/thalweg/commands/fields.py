"""The fields of a preset for `thalweg train METHOD/PRESET --help`: their values, and what they mean, as the source says it."""

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any, NamedTuple

from thalweg.config import spec_kinds

WIDTH = 100


class Field(NamedTuple):
    """A field by the name of its option, its value in the preset, and its meaning."""

    name: str
    value: str
    meaning: str


def described(config: Any, prefix: str = "") -> Iterator[Field]:
    """The fields of a config, each spec followed by its own fields, named as in --net.width."""
    meanings, kinds = meanings_of(type(config)), spec_kinds(type(config))
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), prefix + field.name.replace("_", "-")
        if field.name == "kind" and prefix:
            continue
        if dataclasses.is_dataclass(value):
            spec: Any = value
            others = [kind for kind in kinds.get(field.name, {}) if kind != spec.kind]
            yield Field(name, spec.kind, meanings.get(field.name, "") + (f"; or {', '.join(others)}" if others else ""))
            yield from described(spec, f"{name}.")
        else:
            yield Field(name, _shown(value), meanings.get(field.name, ""))


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return ",".join(map(_shown, value))
    return "none" if value is None else f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value) or "–"


def meanings_of(kind: type) -> dict[str, str]:
    """What the source says below each field of a dataclass and of its bases."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if "__annotations__" not in vars(base):
            continue
        try:
            (body,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        except (OSError, TypeError, ValueError):  # of a class that was made without a file
            continue
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:]):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                found[ast.unparse(field.target)] = " ".join(str(text.value.value).split())
    return found


def table(config: Any) -> str:
    """The fields as aligned lines, meanings wrapped."""
    rows = list(described(config))
    names, values = (max(len(getattr(row, key)) for row in rows) for key in ("name", "value"))
    values = min(values, 24)
    indent = " " * (names + values + 6)
    lines = []
    for row in rows:
        head = f"  --{row.name:{names}} {row.value:{values}} "
        wrapped = textwrap.wrap(row.meaning, max(30, WIDTH - len(indent))) or [""]
        lines += [(head + wrapped[0]).rstrip(), *(indent + part for part in wrapped[1:])]
    return "\n".join(lines)
