"""What a trained model does for its user: classify, detect, inpaint, restore, denoise, reconstruct, interpolate, translate;
any method that can."""

from thalweg.tasks import masks, operators
from thalweg.tasks.baselines import mean_fill, nearest_fill
from thalweg.tasks.denoise import denoise
from thalweg.tasks.interpolate import interpolate, latents, slerp
from thalweg.tasks.operators import LinearOperator
from thalweg.tasks.predict import classify, detect
from thalweg.tasks.reconstruct import reconstruct
from thalweg.tasks.restore import Measured, consistency, diversity, inpaint, restore
from thalweg.tasks.restore_latent import LatentRestoration, restore_latent
from thalweg.tasks.translate import Translation, translate

TASKS = ("classify", "detect", "inpaint", "restore", "denoise", "reconstruct", "interpolate", "translate")

__all__ = [
    "TASKS",
    "LatentRestoration",
    "LinearOperator",
    "Measured",
    "Translation",
    "classify",
    "consistency",
    "denoise",
    "detect",
    "diversity",
    "inpaint",
    "interpolate",
    "latents",
    "masks",
    "mean_fill",
    "nearest_fill",
    "operators",
    "reconstruct",
    "restore",
    "restore_latent",
    "slerp",
    "translate",
]
