"""What a trained model does for its user: classify, detect, inpaint, restore, denoise, interpolate. Works with any method that can."""

from thalweg.tasks import masks, operators
from thalweg.tasks.baselines import mean_fill, nearest_fill
from thalweg.tasks.denoise import denoise
from thalweg.tasks.interpolate import interpolate, slerp
from thalweg.tasks.operators import LinearOperator
from thalweg.tasks.predict import classify, detect
from thalweg.tasks.restore import Measured, consistency, diversity, inpaint, restore

TASKS = ("classify", "detect", "inpaint", "restore", "denoise", "interpolate")

__all__ = [
    "TASKS",
    "LinearOperator",
    "Measured",
    "classify",
    "consistency",
    "denoise",
    "detect",
    "diversity",
    "inpaint",
    "interpolate",
    "masks",
    "mean_fill",
    "nearest_fill",
    "operators",
    "restore",
    "slerp",
]
