"""What a trained model does for its user: classify, detect, inpaint, restore, denoise, reconstruct, interpolate, translate; with objects
in space turn them, recombine them, new views, completions, poses. Every model that has the ability; `TASKS` says which is needed."""

import importlib
from typing import TYPE_CHECKING, Any

from thalweg.tasks.table import TASKS, Task

# imported on first use, so that the command line can say what there is without torch
_HOMES = {
    "Factor": "factors",
    "LatentRestoration": "latent_restoration",
    "LinearOperator": "operators",
    "Measured": "restoration",
    "NewViews": "scenes",
    "Poses": "scenes",
    "Recombined": "scenes",
    "Translation": "translation",
    "Turntable": "scenes",
    "classify": "prediction",
    "compose_factors": "factors",
    "consistency": "restoration",
    "coverage": "restoration",
    "denoise": "denoising",
    "detect": "prediction",
    "diversity": "restoration",
    "draw_objects": "scenes",
    "estimate_noise": "levels",
    "fit_factor": "factors",
    "inpaint": "restoration",
    "interpolate": "interpolation",
    "intrinsic_dimension": "levels",
    "latents": "interpolation",
    "mean_fill": "baselines",
    "nearest_fill": "baselines",
    "new_views": "scenes",
    "pose": "scenes",
    "recombine": "scenes",
    "recombine_latents": "scenes",
    "reconstruct": "reconstruction",
    "restore": "restoration",
    "restore_latent": "latent_restoration",
    "slerp": "interpolation",
    "translate": "translation",
    "turntable": "scenes",
}
_MODULES = ("masks", "operators")

__all__ = ["TASKS", "Task", *_HOMES, *_MODULES]

if TYPE_CHECKING:
    from thalweg.tasks import masks, operators
    from thalweg.tasks.baselines import mean_fill, nearest_fill
    from thalweg.tasks.denoising import denoise
    from thalweg.tasks.factors import Factor, compose_factors, fit_factor
    from thalweg.tasks.interpolation import interpolate, latents, slerp
    from thalweg.tasks.latent_restoration import LatentRestoration, restore_latent
    from thalweg.tasks.levels import estimate_noise, intrinsic_dimension
    from thalweg.tasks.operators import LinearOperator
    from thalweg.tasks.prediction import classify, detect
    from thalweg.tasks.reconstruction import reconstruct
    from thalweg.tasks.restoration import Measured, consistency, coverage, diversity, inpaint, restore
    from thalweg.tasks.scenes import (
        NewViews,
        Poses,
        Recombined,
        Turntable,
        draw_objects,
        new_views,
        pose,
        recombine,
        recombine_latents,
        turntable,
    )
    from thalweg.tasks.translation import Translation, translate


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"thalweg.tasks.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(f"thalweg.tasks.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'thalweg.tasks' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
