"""The methods, one file each; looked up in one literal dict, in a file of one's own as `my_method.py:MyMethod`, or in a package's
entry points of the group `thalweg.methods`."""

import importlib
import importlib.metadata
import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thalweg import presets
from thalweg.errors import InputError, nearest

if TYPE_CHECKING:
    from thalweg.methods.base import Method

METHODS = {
    "short_run": ("thalweg.methods.short_run", "ShortRun"),
    "egc": ("thalweg.methods.egc", "EGC"),
    "dual": ("thalweg.methods.dual", "Dual"),
    "cdrl": ("thalweg.methods.cdrl", "CDRL"),
    "ddaebm": ("thalweg.methods.ddaebm", "DDAEBM"),
    "jem": ("thalweg.methods.jem", "JEM"),
    "coopflow": ("thalweg.methods.coopflow", "CoopFlow"),
    "cf_ebm": ("thalweg.methods.cf_ebm", "CFEBM"),
    "nerf_lebm": ("thalweg.methods.nerf_lebm", "NeRFLEBM"),
    "autoencoder": ("thalweg.methods.autoencoder", "Autoencoder"),
    "ssl": ("thalweg.methods.ssl", "SSL"),
    "liebm": ("thalweg.methods.liebm", "LIEBM"),
    "ddpm": ("thalweg.methods.ddpm", "DDPM"),
    "wgan_gp": ("thalweg.methods.wgan_gp", "WGANGP"),
}


_OWN = {"shape": (1,)}  # of a method of one's own without presets, until it is given data


def of_packages() -> dict[str, importlib.metadata.EntryPoint]:
    """Methods of installed packages by name: entry points of the group `thalweg.methods`, as in `mine = "package:MyMethod"`."""
    return {point.name: point for point in importlib.metadata.entry_points(group="thalweg.methods") if point.name not in METHODS}


def split_name(name: str) -> tuple[str, str]:
    """METHOD and PRESET of METHOD/PRESET, the second empty where there is none; METHOD may be FILE.py:CLASS."""
    own = re.fullmatch(r"(.+\.py:\w+)(?:/(.*))?", name)
    if own:
        return own[1], own[2] or ""
    method, _, preset = name.partition("/")
    return method, preset


def find(name: str) -> "type[Method]":
    """The class of a method by name, or of FILE.py:CLASS; InputError with the nearest name for one that is not there."""
    if re.fullmatch(r".+\.py:\w+", name):
        return _from_file(*name.rsplit(":", 1))
    if name in METHODS:
        module, attribute = METHODS[name]
        return getattr(importlib.import_module(module), attribute)
    packaged = of_packages()
    if name in packaged:
        return _from_package(packaged[name])
    known = [*METHODS, *packaged]
    raise InputError(f"unknown method '{name}'{nearest(name, known)}. Methods: {', '.join(known)}, or your own as FILE.py:CLASS")


def _from_package(point: importlib.metadata.EntryPoint) -> "type[Method]":
    from thalweg.methods.base import Method

    try:
        kind = point.load()
    except Exception as error:  # whatever the package's code raises
        raise InputError(f"the method {point.name} cannot be imported: {type(error).__name__}: {error}") from error
    if not (isinstance(kind, type) and issubclass(kind, Method) and kind.name == point.name):
        raise InputError(f"the entry point {point.name} = {point.value} is no method named '{point.name}'")
    return kind


def _from_file(file: str, attribute: str) -> "type[Method]":
    """A class of a Python file, which is executed: only ever on the word of whoever runs the command."""
    from thalweg.methods.base import Method

    path = Path(file)
    if not path.is_file():
        raise InputError(f"there is no file {file}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None  # it ends in .py
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever one's own code raises
        raise InputError(f"{file} cannot be imported: {type(error).__name__}: {error}") from error
    kind = getattr(module, attribute, None)
    if not (isinstance(kind, type) and issubclass(kind, Method)):
        known = [n for n, v in vars(module).items() if isinstance(v, type) and issubclass(v, Method) and v is not Method]
        raise InputError(f"{file} has no method '{attribute}'{nearest(attribute, known)}. Its methods: {', '.join(known) or 'none'}")
    return kind


def presets_of(kind: "type[Method]") -> dict[str, Mapping[str, Any]]:
    """The rows of a method's presets, its own or those of thalweg/presets, with one for each toy where there is a recipe for toys."""
    return presets.with_toys(kind.PRESETS or presets.rows(kind.name))


def preset(name: str) -> "tuple[type[Method], Any]":
    """The class and the config of METHOD/PRESET; a bare METHOD means its first preset, of one's own without presets its defaults."""
    from thalweg.config import make_config

    method_name, preset_name = split_name(name)
    kind = find(method_name)
    rows: Mapping[str, Any] = presets_of(kind) if kind.PRESETS or kind.name in METHODS else {"default": _OWN}
    preset_name = preset_name or next(iter(rows))
    if preset_name not in rows:
        raise InputError(f"{method_name} has no preset '{preset_name}'{nearest(preset_name, rows)}. Its presets: {', '.join(rows)}")
    return kind, make_config(kind.Config, rows[preset_name], what=f"preset {name}")


def own_network(kind: "type[Method]", name: str, value: Any) -> Any:
    """The value of a config's field: for an nn.Module the spec that holds it. InputError where the field takes none of one's own."""
    from torch import nn

    from thalweg.config import spec_kinds
    from thalweg.nn.own import Own

    if not isinstance(value, nn.Module):
        return value
    kinds = spec_kinds(kind.Config).get(name, {})
    if "own" not in kinds:
        why = (
            f"{kind.name} builds what {name} says itself, several networks or one that grows: give a spec of kind {', '.join(kinds)}"
            if kinds
            else f"{name} of {kind.name} is no network"
        )
        raise InputError(f"{name} = {type(value).__name__}() is a network of your own, but {why}")
    return Own.of(value)


def method(name: str, *, seed: int = 0, data: Any = None, **fields: Any) -> "Method":
    """A new method from METHOD/PRESET with some config fields changed: `tw.method("egc/digits", width=64)`.

    `net` may be a network of one's own, any nn.Module of the signature (x[, t][, label]) that the config's has; it is trained in place.
    A field of a network or chain is named alone where one of them has it, else as in `**{"net.width": 64}` or `net=dict(width=64)`.
    `seed` sets the initial weights. With `data`, whatever `tw.data.of` takes, shape and classes are taken from it. InputError for
    unknown names or values out of range.
    """
    import torch

    from thalweg.config import changed
    from thalweg.gate import float32

    kind, config = preset(name)
    if data is not None:
        from thalweg.data.door import of
        from thalweg.data.record import name_of

        found = of(data)
        config = changed(config, data=name_of(found), shape=tuple(found.shape), classes=len(found.classes))
    config = changed(config, **{name: own_network(kind, name, value) for name, value in fields.items()})
    with torch.random.fork_rng(devices=[]), float32():
        torch.manual_seed(seed)
        return kind(config)
