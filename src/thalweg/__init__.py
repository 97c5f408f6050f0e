"""Thalweg: deep energy-based models. `import thalweg as tw`."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# imported on first use, so that `thalweg --help` does not wait for torch
_HOMES = {
    "value_and_score": "thalweg.energy",
    "score": "thalweg.energy",
    "temper": "thalweg.energy",
    "combine": "thalweg.energy",
    "compose": "thalweg.energy",
    "tilt": "thalweg.energy",
    "fit": "thalweg.train",
    "load": "thalweg.latent",
    "save_pretrained": "thalweg.save",
    "from_pretrained": "thalweg.save",
    "push_to_hub": "thalweg.save",
    "method": "thalweg.methods",
    "InputError": "thalweg.errors",
    "Diverged": "thalweg.errors",
}
_MODULES = (
    "camera",
    "data",
    "energy",
    "evaluate",
    "latent",
    "methods",
    "nn",
    "noise",
    "objective",
    "plot",
    "prior",
    "random",
    "sample",
    "save",
    "tasks",
    "train",
)

__all__ = [*_HOMES, *_MODULES]

if TYPE_CHECKING:
    from thalweg import (
        camera,
        data,
        energy,
        evaluate,
        latent,
        methods,
        nn,
        noise,
        objective,
        plot,
        prior,
        random,
        sample,
        save,
        tasks,
        train,
    )
    from thalweg.energy import combine, compose, score, temper, tilt, value_and_score
    from thalweg.errors import Diverged, InputError
    from thalweg.latent import load
    from thalweg.methods import method
    from thalweg.save import from_pretrained, push_to_hub, save_pretrained
    from thalweg.train import fit


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"thalweg.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'thalweg' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
