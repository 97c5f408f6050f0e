"""Detect: how unlike what was learned an uploaded picture or row is: score, p-value, verdict, and where it lies among held-out ones."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy
import torch
from torch import Tensor

from thalweg import evaluate, random
from thalweg.app import asked as ask
from thalweg.app.asked import Asked
from thalweg.app.draw import samples
from thalweg.app.pictures import content, decoded, encoded
from thalweg.app.shelf import CUBE, Entry
from thalweg.data.frames import of_frame
from thalweg.errors import InputError

PICTURES, ROWS = 48, 10_000  # at most in one answer
SHOWN = 60  # rows of a table that are listed, the strangest first
BINS = 40
MADE = 4  # pictures of each made-up kind
KINDS = {"uniform": "uniform noise", "constant": "one grey", "shuffled": "sample, pixels shuffled"}
TABLES = (".csv", ".tsv")


class Items(NamedTuple):
    """What is scored: pictures [N, C, H, W] in [−1, 1] or a table, and a name for each."""

    x: Any
    names: Sequence[str]


def judge(entry: Entry, asked: Asked) -> dict[str, Any]:
    """Score, p-value and verdict of each of `files` ({name, data}), or of pictures made up, at a rate of false alarms `alpha`.

    Scores are in nats: the energy of a model, of a detector its score with the sign changed, its strangeness. An energy is strange at both
    ends, as pictures simpler than the data have less than any of these. `bins`: how many held-out examples lie in each, from `low` to
    `high`; `threshold`: the score above which an item is an outlier, and `lower` that below which it is, None of a detector.
    """
    entry.require("detect")
    alpha = ask.number(asked, "alpha", 0.05 if entry.detector is None else float(entry.detector.contamination), 0.001, 0.5)
    items = _made(entry, asked) if asked.get("made") is True else _uploaded(entry, asked)
    if entry.detector is None:
        strange, held_out = _by_energy(entry.model, items.x)
        above, below = ((1 + side.sum(1)) / (len(held_out) + 1) for side in (held_out >= strange[:, None], held_out <= strange[:, None]))
        p_values = numpy.minimum(1, 2 * numpy.minimum(above, below))
    else:
        score, p_values = entry.detector.judge(items.x)
        strange, held_out = -score, numpy.sort(entry.detector.conformal_.strangeness)
    ends = 2 if entry.detector is None else 1
    k = int(alpha / ends * (len(held_out) + 1) + 1e-9)
    if k < 1:
        raise InputError(
            f"a rate of {alpha:g} needs {int(ends / alpha)} held-out examples or more, there are {len(held_out)}: choose a higher one"
        )
    in_order = numpy.sort(held_out)
    threshold, lower = float(in_order[len(held_out) - k]), float(in_order[k - 1]) if ends == 2 else None
    pictures = isinstance(items.x, Tensor | numpy.ndarray) and items.x.ndim == 4
    order = range(len(strange)) if pictures else numpy.lexsort((-strange, p_values))[:SHOWN].tolist()
    rows = [
        {
            "name": items.names[i], "score": float(f"{strange[i]:.6g}"), "p": float(f"{p_values[i]:.3g}"),
            "outlier": bool(p_values[i] <= alpha),
            **({"picture": encoded(torch.as_tensor(items.x[i]))} if pictures else {}),
        }
        for i in order
    ]  # fmt: skip
    return {
        "rows": rows, "count": len(strange), "outliers": int((p_values <= alpha).sum()), "alpha": alpha, "held_out": len(held_out),
        **_histogram(held_out, strange, threshold, lower), "score": "energy" if entry.detector is None else "strangeness",
    }  # fmt: skip


def _by_energy(model: Any, x: Any) -> tuple[numpy.ndarray, numpy.ndarray]:
    found = evaluate.energies(model, x).double().numpy()
    return found, numpy.asarray(model.trained_on["held_out"], numpy.float64)


def _histogram(held_out: numpy.ndarray, strange: numpy.ndarray, threshold: float, lower: float | None) -> dict[str, Any]:
    """Counts of held-out examples, over their own range, and that of the items as far as twice beyond it; items lie at `at` in [0, 1]."""
    low, high = float(held_out.min()), float(numpy.quantile(held_out, 0.995))
    reach = max(high - low, 1e-9)
    low, high = max(float(min(low, strange.min())), low - reach), min(float(max(high, strange.max())), high + 2 * reach)
    counts, _ = numpy.histogram(held_out.clip(low, high), BINS, (low, high))
    at = ((strange.clip(low, high) - low) / (high - low)).round(4)
    return {
        "bins": counts.tolist(), "low": float(f"{low:.5g}"), "high": float(f"{high:.5g}"), "at": at.tolist()[:ROWS],
        "threshold": float(f"{threshold:.6g}"), "threshold_at": round((threshold - low) / (high - low), 4),
        "lower": None if lower is None else float(f"{lower:.6g}"),
        "lower_at": None if lower is None else round((lower - low) / (high - low), 4),
        "beyond": bool(strange.max() > high),
    }  # fmt: skip


def _uploaded(entry: Entry, asked: Asked) -> Items:
    files = asked.get("files")
    if not isinstance(files, list) or not files or not all(isinstance(file, dict) for file in files):
        raise InputError("no file arrived: drop pictures, or a .csv")
    names = [str(file.get("name") or "file")[:80] for file in files]
    tables = [name.lower().endswith(TABLES) for name in names]
    if any(tables):
        if len(files) > 1:
            raise InputError("drop one table at a time")
        return _table(entry, content(files[0].get("data"), names[0]), names[0])
    shape = _shape(entry)
    if len(shape) != CUBE:
        raise InputError(f"{names[0]} is no table: this one takes rows, in a .csv or .tsv file")
    if len(files) > PICTURES:
        raise InputError(f"at most {PICTURES} pictures at a time, got {len(files)}")
    x = torch.cat([decoded(file.get("data"), name, shape) for name, file in zip(names, files)])
    return Items(x if entry.detector is None else x.numpy(), names)


def _shape(entry: Entry) -> tuple[int, ...]:
    """[C, H, W] of pictures, anything shorter for a table."""
    if entry.detector is None:
        return tuple(entry.model.config.shape)
    return () if entry.detector.pictures_ is None else tuple(entry.detector.pictures_.shape)


def _table(entry: Entry, raw: bytes, name: str) -> Items:
    from thalweg.detect.files import parse_table
    from thalweg.detect.stream import as_fitted

    if len(_shape(entry)) == CUBE:
        raise InputError(f"{name} is a table, this one takes pictures")
    frame = parse_table(raw, name)
    if len(frame) > ROWS:
        raise InputError(f"{name} has {len(frame):,} rows, at most {ROWS:,} are scored here; the command line has no such bound")
    rows = [f"row {i + 1}" for i in range(len(frame))]
    if entry.detector is not None:
        wanted = entry.detector.columns_.names
        if not entry.detector.columns_.named and len(frame.columns) != len(wanted):
            raise InputError(f"{name} has {len(frame.columns)} columns, the detector is of {len(wanted)}")
        return Items(as_fitted(frame, entry.detector.columns_), rows)
    units = entry.model.units
    table = of_frame(frame, name=name, columns=() if units is None else list(units.columns), standardise=False)
    if table.shape != tuple(entry.model.config.shape):
        raise InputError(f"{name} has {table.shape[0]} columns of numbers, this model is of {entry.model.config.shape[0]}")
    return Items(table.all().x, rows)


def _made(entry: Entry, asked: Asked) -> Items:
    """Samples of the model, and pictures of `KINDS` that no such model should take for its own."""
    if entry.detector is not None or not entry.about()["made"]:
        raise InputError("this one draws no pictures to try: drop some of your own")
    model = entry.model
    label = {"label": "each"} if entry.about()["classes"] else {}
    fresh = samples(model, {"seed": asked.get("seed"), **label}, MADE).cpu()
    parts, names = [fresh], [f"sample {i + 1}" for i in range(MADE)]
    for kind, name in KINDS.items():
        n = 2
        x = evaluate.outliers(kind, fresh, n, ask.whole(asked, "seed", 0, 0, 2**53))
        faint = 1e-3 * random.normal_like(x, random.seeded(0, 35))  # one grey alone has a density of its own
        parts.append((x + faint).clamp(-1, 1))
        names += [f"{name} {i + 1}" for i in range(n)]
    return Items(torch.cat(parts), names)
