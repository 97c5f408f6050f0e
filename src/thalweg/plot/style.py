"""How every figure looks, and how it reaches the disk: whole or not at all."""

import math
import os
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from thalweg.errors import InputError

COLOURS = ("#2563eb", "#e2572b", "#0d9488", "#9333ea", "#b7791f", "#64748b")
MANY_COLOURS = COLOURS + ("#db2777", "#65a30d", "#38bdf8", "#7f1d1d")  # ten classes in one picture
INK, FAINT = "#1f2933", "#cbd2d9"
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#eef1f4",
    "xtick.color": "#616e7c",
    "ytick.color": "#616e7c",
    "legend.frameon": False,
}
DPI = 120
PIXELS = "Pixels"  # what a file of pixels alone says of itself, with the factor by which it shows them


@contextmanager
def figure_in(path: str | os.PathLike, width: float, height: float, metadata: Mapping[str, str] | None = None, **options):
    """A figure of width × height inches that is written to `path` when the block ends well. Never touches pyplot's state."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InputError(f"picture: got '{path}', need a file name that ends in .png")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", **options)
        FigureCanvasAgg(figure)
        yield figure
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            figure.savefig(partial, format="png", metadata=metadata)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def finite(value) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def short(value: float, _position=None) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def points_of(samples: Tensor) -> Tensor:
    if samples.dim() != 2 or samples.shape[1] != 2 or not len(samples):
        raise InputError(f"samples: got shape {list(samples.shape)}, need [N, 2]")
    return samples.detach().float().cpu()
