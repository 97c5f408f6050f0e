"""Who takes part in a comparison: a method with the preset of its own that is nearest to the data."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from thalweg.data.record import origin
from thalweg.errors import InputError
from thalweg.methods import find, presets_of, split_name


@dataclass(frozen=True)
class Entrant:
    """One row of a comparison: its name in the table, METHOD/PRESET (or FILE.py:CLASS), and fields that it changes."""

    name: str
    preset: str
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """A name for its files."""
        return re.sub(r"[^\w.=-]+", "_", self.name)


Named = str | Entrant | tuple[str, Mapping[str, Any]]


def entrants(named: Iterable[Named] | Mapping[str, Named], data: Any) -> list[Entrant]:
    """The entrants that were named for `data`: METHOD, METHOD/PRESET, FILE.py:CLASS, (one of these, fields), by a name of one's own or not.

    A METHOD alone takes its preset of that data, or else the one for data of the same kind and the nearest size. Raises InputError for
    unknown names, for a method without a preset for such data, and for two rows of the same name.
    """
    pairs = named.items() if isinstance(named, Mapping) else ((None, one) for one in named)
    found = [_entrant(name, one, data) for name, one in pairs]
    names = [one.folder for one in found]
    if twice := {one.name for one in found if names.count(one.folder) > 1}:
        raise InputError(f"compared twice, or under names that differ in signs alone: {', '.join(sorted(twice))}")
    return found


def _entrant(name: str | None, one: Named, data: Any) -> Entrant:
    if isinstance(one, Entrant):
        return one
    preset, fields = (one, {}) if isinstance(one, str) else one
    method, chosen = split_name(preset)
    if not chosen:
        preset = f"{method}/{nearest_preset(method, data)}".rstrip("/")
    return Entrant(name or (Path(method).name if ".py:" in method else preset), preset, fields)


def nearest_preset(method: str, data: Any) -> str:
    """The preset of METHOD that is made for the data or, if there is none, for others of the same kind; "" for a method without presets.

    Points of a toy take the toy's row, other vectors `vectors`, images those with as many channels and the nearest size, the first of them.
    Raises InputError where no preset is of the kind.
    """
    rows = presets_of(find(method)) if ".py:" in method or find(method).PRESETS else _rows_of(method)
    if not rows:
        return ""
    name, shape = origin(data), tuple(data.shape)
    if name in rows:
        return str(name)
    if len(shape) == 1:
        if "vectors" in rows:
            return "vectors"
    else:
        alike = {key: tuple(row["shape"]) for key, row in rows.items() if len(row.get("shape", ())) == 3 and not row.get("autoencoder")}
        if alike:
            return min(alike, key=lambda key: (alike[key][0] != shape[0], abs(alike[key][1] - shape[1])))
    raise InputError(f"{method} has no preset for examples of shape {shape}: name one, METHOD/PRESET (thalweg list)")


def _rows_of(method: str) -> Mapping[str, Mapping[str, Any]]:
    from thalweg.methods import METHODS

    return presets_of(find(method)) if method in METHODS else {}
