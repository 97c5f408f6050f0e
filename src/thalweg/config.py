"""Settings: what every method's Config has, how values from outside are checked, and how a few of them are changed.

Nothing here needs torch, so that `thalweg list` and `--help` answer at once.
"""

import math
from abc import ABC
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from thalweg.errors import InputError, nearest

# types of fields
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
# of every Config and spec: unknown fields are refused, so that a misspelt one is noticed
STRICT = ConfigDict(extra="forbid", arbitrary_types_allowed=False)


class DataNeeds(NamedTuple):
    """What a model's data must be prepared with: an autoencoder whose latents it sees, a source domain that it translates from, how many
    views of an object stand next to each other in a batch, how many of them are read (None for all), the share of each image that is
    hidden, and the side in pixels of the middle square that is cut out of pictures before they are resized (0 for all of them)."""

    autoencoder: str = ""
    source: str = ""
    views: int = 1
    read_views: int | None = None
    missing: float = 0.0
    middle: int = 0


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Common(ABC):
    """The settings of every method; a method's own Config extends it."""

    data: str = ""
    """name of the data that the preset is for"""
    shape: tuple[Count, ...]
    """shape of one example, [D] or [C, H, W]"""
    classes: Whole = 0
    """number of labels, 0 where there are none or none is used"""
    batch: Count = 128
    """images per update"""
    images: Count = 1_000_000
    """length of training in images; learning rates have reached their end then"""
    lr: Positive = 1e-3
    """base learning rate of the energy"""
    warm_up: Whole = 100
    """updates over which learning rates rise"""
    lr_end: Fraction = 0.0
    """share of the learning rates that is left at the end, by a cosine; 1 for constant rates"""
    clip: NotNegative = 1.0
    """bound on each update's gradient norm, 0 for none"""
    ema: Fraction = 0.999
    """decay of the EMA twin"""

    def rate(self, images: float, updates: float | None = None, *, start: int = 0, end: int | None = None) -> float:
        """The factor of a base learning rate after `images` images: a linear warm-up, then a cosine from 1 to `lr_end` at the run's end.

        `updates`: those that count for the warm-up, by default images / batch. `start`: images after which the optimizer begins; `end`:
        images at which the cosine ends, by default those of the run.
        """
        updates = (images - start) / self.batch if updates is None else updates
        done = min(1.0, (images - start) / max(1, (self.images if end is None else end) - start))
        fallen = 0.5 * (1 + math.cos(math.pi * done))
        return min(1.0, (updates + 1) / max(1, self.warm_up)) * (self.lr_end + (1 - self.lr_end) * fallen)

    @property
    def data_needs(self) -> DataNeeds:
        """What data must be prepared with for this model."""
        return DataNeeds()


def make_config(kind: type, values: Mapping[str, Any], *, what: str) -> Any:
    """A validated Config of `kind` from plain values (a loaded JSON, options); InputError names the field and the range."""
    known = [f.name for f in fields(kind)]
    for key in values:
        if key not in known:
            raise InputError(f"{what} has no field '{key}'{nearest(key, known)}. Its fields: {', '.join(known)}")
    try:
        return TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        raise InputError(f"{what}: " + "; ".join(_explain(e, kind) for e in error.errors())) from None


def _explain(error: Mapping[str, Any], kind: type | None) -> str:
    place, parts = [], [str(part) for part in error["loc"]]
    while parts:
        place.append(parts.pop(0))
        kinds = spec_kinds(kind).get(place[-1], {}) if kind is not None else {}
        # of a spec of several kinds the place holds the kind, as in net.mlp.width, which is no part of the field's name
        kind = kinds.get(parts.pop(0) if len(kinds) > 1 and parts else next(iter(kinds), ""))
    return f"{'.'.join(place) or 'config'} = {error['input']!r}: {_said(error)}"


_TAKES = {"int": "takes a whole number", "float": "takes a number", "bool": "takes true or false", "string": "takes a text"}
_BOUNDS = {
    "greater_than": ("gt", "above {}"),
    "greater_than_equal": ("ge", "{} or more"),
    "less_than": ("lt", "below {}"),
    "less_than_equal": ("le", "{} or less"),
}


def _said(error: Mapping[str, Any]) -> str:
    """What pydantic says of a value, in the words of the other messages."""
    kind, context = error["type"], error.get("ctx", {})
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        return "must be " + words.format(f"{context[key]:g}")
    if kind == "literal_error":
        return f"takes {context['expected']}"
    if kind == "finite_number":
        return "must be finite"
    return _TAKES.get(kind.partition("_")[0], "") or f"{error['msg'][0].lower()}{error['msg'][1:]}"


def changed(config: Any, **values: Any) -> Any:
    """`config` with some fields replaced, validated again.

    A field of a spec is named `net.width`, or `width` alone where one spec only has it; specs may hold specs. A spec is replaced
    whole by another one or by the name of its kind (`net="unet"`: that kind with its defaults), and in part by a dict of its fields.
    InputError for what is unknown, in more than one spec, or out of range.
    """
    found = _merged(type(config), _values(config), values)
    return make_config(type(config), found, what=type(config).__module__.rpartition(".")[2] + ".Config")


def _merged(kind: type, found: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields `found` of a config of class `kind`, or of a spec in it, with `values` put in."""
    found = dict(found)
    for key in sorted(values, key=lambda key: (key not in found, key.rpartition(".")[2] not in _spec_fields(kind))):
        # specs first, whose fields others may then change
        name, _, rest = (key if key in found else _place(kind, found, key)).partition(".")
        found[name] = _inside(kind, name, found[name], {rest: values[key]}) if rest else _spec(kind, name, found[name], values[key])
    return found


def _inside(kind: type, name: str, spec: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the spec `name` with values put in."""
    own = _values(spec)
    option = spec_kinds(kind)[name].get(own["kind"])
    return own | dict(values) if option is None else _merged(option, own, values)  # a kind that is not known is refused later


def _spec_fields(kind: type) -> set[str]:
    """The names of fields that take specs, in a config and in its specs."""
    kinds = spec_kinds(kind)
    return set(kinds).union(*(_spec_fields(option) for options in kinds.values() for option in options.values()))


def _spec(kind: type, name: str, present: Any, value: Any) -> Any:
    """The value for field `name`, where a spec is named by its kind or given in part."""
    kinds = spec_kinds(kind).get(name)
    if not kinds:
        return value
    if isinstance(value, str):
        if value == "none":  # of a part that may be missing; the field's type says whether it may
            return None
        if value not in kinds:
            raise InputError(f"{name} = '{value}' is not known{nearest(value, kinds)}: {', '.join(kinds)}")
        return present if getattr(present, "kind", None) == value else kinds[value]()
    if isinstance(value, Mapping) and "kind" not in value and is_dataclass(present):
        own_kind = getattr(present, "kind", "")
        known = [key for key in _values(present) if key != "kind"]
        for field in value:
            if field not in known:
                raise InputError(
                    f"{name} of kind '{own_kind}' has no field '{field}'{nearest(field, known)}. Its fields: {', '.join(known)}"
                )
        return _inside(kind, name, present, value)
    return value


def _place(kind: type, found: Mapping[str, Any], key: str) -> str:
    """Where the field `key` of a spec is: as it is named, or SPEC.FIELD of the one spec that has it. InputError otherwise."""
    known = list(all_fields(found))
    whole = key in known or key.partition(".")[0] in found
    homes = [place for place in known if place == key or (not whole and place.endswith(f".{key}"))]
    if len(homes) == 1:
        return homes[0]
    what = kind.__module__.rpartition(".")[2]
    if homes:
        parts = [place.removesuffix(f".{key}") for place in homes]
        raise InputError(f"{what}: '{key}' is a field of {' and '.join(parts)}; say which: {', '.join(homes)}")
    raise InputError(f"{what} has no field '{key}'{nearest(key, known)}. Its fields: {', '.join(known)}")


def all_fields(config: Any) -> Iterator[str]:
    """The names of all fields of a config, or of its values by name, with those of its specs as SPEC.FIELD."""
    for name, value in _values(config).items():
        yield name
        if _is_spec(value):
            yield from (f"{name}.{field}" for field in all_fields(value) if field != "kind")


def _values(config: Any) -> dict[str, Any]:
    return {f.name: getattr(config, f.name) for f in fields(config)} if is_dataclass(config) else dict(config)


def _is_spec(value: Any) -> bool:
    """A spec, or one that was given as a dict and is not validated yet."""
    return is_dataclass(value) or (isinstance(value, dict) and "kind" in value)


def _members(hint: Any) -> tuple[Any, ...]:
    """The types of a union, or the type itself."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def spec_kinds(kind: type) -> dict[str, dict[str, type]]:
    """For each field of a Config class that takes specs, its classes by kind."""
    found = {}
    hints = get_type_hints(kind)
    for f in fields(kind):
        options = [option for one in _members(hints[f.name]) for option in _members(one)]
        kinds: dict[str, Any] = {getattr(option, "kind", ""): option for option in options if is_dataclass(option)}
        if kinds:
            found[f.name] = kinds
    return found
