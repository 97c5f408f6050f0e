"""Thalweg: deep energy-based models. `import thalweg as tw`."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

# imported on first use, so that `thalweg --help` does not wait for torch; no submodule may have one of these names
_HOMES = {
    "Diverged": "thalweg.errors",
    "EnergyDetector": "thalweg.detect.detector",
    "InputError": "thalweg.errors",
    "check_energy": "thalweg.energy",
    "combine": "thalweg.energy",
    "compare": "thalweg.arena.compare",
    "compose": "thalweg.energy",
    "condition": "thalweg.energy",
    "fit": "thalweg.train",
    "from_pretrained": "thalweg.latent",
    "load": "thalweg.latent",
    "method": "thalweg.methods",
    "push_to_hub": "thalweg.latent",
    "save": "thalweg.latent",
    "save_pretrained": "thalweg.latent",
    "score": "thalweg.energy",
    "temper": "thalweg.energy",
    "tilt": "thalweg.energy",
    "update": "thalweg.updates",
    "value_and_score": "thalweg.energy",
}
_MODULES = (
    "arena",
    "camera",
    "chain",
    "config",
    "data",
    "detect",
    "energy",
    "evaluate",
    "latent",
    "methods",
    "metrics",
    "nn",
    "noise",
    "objective",
    "plot",
    "prior",
    "random",
    "replay",
    "sample",
    "store",
    "tasks",
    "train",
)

__all__ = sorted([*_HOMES, *_MODULES, "__version__"])

if TYPE_CHECKING:
    from thalweg import (
        arena,
        camera,
        chain,
        config,
        data,
        detect,
        energy,
        evaluate,
        latent,
        methods,
        metrics,
        nn,
        noise,
        objective,
        plot,
        prior,
        random,
        replay,
        sample,
        store,
        tasks,
        train,
    )
    from thalweg.arena.compare import compare
    from thalweg.detect.detector import EnergyDetector
    from thalweg.energy import check_energy, combine, compose, condition, score, temper, tilt, value_and_score
    from thalweg.errors import Diverged, InputError
    from thalweg.latent import from_pretrained, load, push_to_hub, save, save_pretrained
    from thalweg.methods import method
    from thalweg.train import fit
    from thalweg.updates import update


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"thalweg.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'thalweg' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
