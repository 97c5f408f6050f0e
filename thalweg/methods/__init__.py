"""The methods, one file each; looked up in one literal dict."""

import importlib
from typing import TYPE_CHECKING, Any

from thalweg.errors import InputError, nearest

if TYPE_CHECKING:
    from thalweg.methods.base import Method

METHODS = {
    "short_run": ("thalweg.methods.short_run", "ShortRun"),
    "egc": ("thalweg.methods.egc", "EGC"),
    "cdrl": ("thalweg.methods.cdrl", "CDRL"),
    "ddaebm": ("thalweg.methods.ddaebm", "DDAEBM"),
    "jem": ("thalweg.methods.jem", "JEM"),
    "coopflow": ("thalweg.methods.coopflow", "CoopFlow"),
    "cf_ebm": ("thalweg.methods.cf_ebm", "CFEBM"),
    "nerf_lebm": ("thalweg.methods.nerf_lebm", "NeRFLEBM"),
    "autoencoder": ("thalweg.methods.autoencoder", "Autoencoder"),
    "ssl": ("thalweg.methods.ssl", "SSL"),
    "liebm": ("thalweg.methods.liebm", "LIEBM"),
}


def find(name: str) -> "type[Method]":
    """The class of a method by name; InputError with the nearest name for one that is not there."""
    if name not in METHODS:
        raise InputError(f"unknown method '{name}'{nearest(name, METHODS)}. Methods: {', '.join(METHODS)}")
    module, attribute = METHODS[name]
    return getattr(importlib.import_module(module), attribute)


def preset(name: str) -> "tuple[type[Method], Any]":
    """The class and the config of METHOD/PRESET; a bare METHOD means its first preset."""
    method_name, _, preset_name = name.partition("/")
    kind = find(method_name)
    preset_name = preset_name or next(iter(kind.PRESETS))
    if preset_name not in kind.PRESETS:
        raise InputError(
            f"{method_name} has no preset '{preset_name}'{nearest(preset_name, kind.PRESETS)}. Its presets: {', '.join(kind.PRESETS)}"
        )
    return kind, kind.PRESETS[preset_name]


def method(name: str, *, seed: int = 0, data: Any = None, **fields: Any) -> "Method":
    """A new method from METHOD/PRESET with some config fields changed: `tw.method("egc/digits", width=64)`.

    `seed` sets the initial weights. With `data`, a data set, shape and classes are taken from it. InputError for unknown names or
    values out of range.
    """
    import torch

    from thalweg.methods.base import changed, fitted_to

    kind, config = preset(name)
    if isinstance(data, str):
        raise InputError(f"data must be a data set, as tw.data.load('{data}') gives, not its name")
    if data is not None:
        config = fitted_to(config, data)
    config = changed(config, **fields)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(config)
