"""Figures that all commands share; each function writes one picture, whole or not at all, and returns its path."""

from thalweg.plot.charts import comparison, curves, embedding, histogram, over_time, reliability, robustness, strip
from thalweg.plot.images import animation, grid, neighbours
from thalweg.plot.noise import along_noise, noise_plane
from thalweg.plot.plane import density, landscape

__all__ = [
    "along_noise",
    "animation",
    "comparison",
    "curves",
    "density",
    "embedding",
    "grid",
    "histogram",
    "landscape",
    "neighbours",
    "noise_plane",
    "over_time",
    "reliability",
    "robustness",
    "strip",
]
