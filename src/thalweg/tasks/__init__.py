"""What a trained model does for its user: classify, detect, inpaint, restore, denoise, reconstruct, interpolate, translate; with
objects in space turn them, recombine them, new views, completions, poses. Any method that can."""

from thalweg.tasks import masks, operators
from thalweg.tasks.baselines import mean_fill, nearest_fill
from thalweg.tasks.denoise import denoise
from thalweg.tasks.interpolate import interpolate, latents, slerp
from thalweg.tasks.operators import LinearOperator
from thalweg.tasks.predict import classify, detect
from thalweg.tasks.reconstruct import reconstruct
from thalweg.tasks.restore import Measured, consistency, diversity, inpaint, restore
from thalweg.tasks.restore_latent import LatentRestoration, restore_latent
from thalweg.tasks.scenes import NewViews, Poses, Recombined, Turntable, drawn, new_views, pose, recombine, recombined, turntable
from thalweg.tasks.translate import Translation, translate

SCENES = ("turntable", "recombine", "views", "complete", "pose")  # of models of objects in space
TASKS = ("classify", "detect", "inpaint", "restore", "denoise", "reconstruct", "interpolate", "translate", *SCENES)

__all__ = [
    "SCENES",
    "TASKS",
    "LatentRestoration",
    "LinearOperator",
    "Measured",
    "NewViews",
    "Poses",
    "Recombined",
    "Translation",
    "Turntable",
    "classify",
    "consistency",
    "denoise",
    "detect",
    "diversity",
    "drawn",
    "inpaint",
    "interpolate",
    "latents",
    "masks",
    "mean_fill",
    "nearest_fill",
    "new_views",
    "operators",
    "pose",
    "recombine",
    "recombined",
    "reconstruct",
    "restore",
    "restore_latent",
    "slerp",
    "translate",
    "turntable",
]
