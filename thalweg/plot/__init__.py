"""Figures that all commands share; each function writes one PNG, whole or not at all, and returns its path."""

from thalweg.plot.charts import comparison, curves, embedding, histogram, reliability, robustness
from thalweg.plot.images import grid, neighbours
from thalweg.plot.plane import density, landscape

__all__ = [
    "comparison",
    "curves",
    "density",
    "embedding",
    "grid",
    "histogram",
    "landscape",
    "neighbours",
    "reliability",
    "robustness",
]
