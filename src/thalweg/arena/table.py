"""The rows of a comparison as one line for each entrant: means over seeds with their intervals, and where one is better than all others."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from thalweg.errors import require

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """A figure of the table: its key in a row (with dots for those within others), title, form, and which direction is better."""

    key: str
    title: str
    form: str = ".3g"
    better: str = ""  # up, down, or neither


# fmt: off
COLUMNS = (
    Column("frechet",            "Fréchet",                ".2f", "down"),
    Column("floor",              "its floor",              ".2f"),
    Column("guided",             "Fréchet by label",       ".2f", "down"),
    Column("kid",                "KID",                    ".3g", "down"),
    Column("precision",          "precision",              ".3f", "up"),
    Column("recall",             "recall",                 ".3f", "up"),
    Column("closer",             "closer to training",     ".0%"),
    Column("kl",                 "KL(truth‖model)",        ".4f", "down"),
    Column("energy_distance",    "energy distance",        ".4f", "down"),
    Column("modes_missing",      "modes missing",          ".4g", "down"),
    Column("bits",               "bits a dimension",       ".3f", "down"),
    Column("nats",               "nats",                   ".2f", "up"),
    Column("outliers.mean",      "outliers, mean AUROC",   ".3f", "up"),
    Column("accuracy",           "accuracy",               ".1%", "up"),
    Column("class_accuracy",     "class of samples right", ".1%", "up"),
    Column("evaluations",        "evaluations a sample",   ".0f", "down"),
    Column("cpu_seconds_sample", "CPU s a sample",         ".2g", "down"),
    Column("parameters",         "parameters",             ",.0f"),
    Column("images",             "images",                 ",.0f"),
    Column("cpu_seconds",        "CPU s",                  ",.0f"),
    Column("guard_events",       "guard events",           ".4g"),
)
# fmt: on


@dataclass(frozen=True)
class Cell:
    """A figure over seeds: its mean, and its 95 % interval by Student's t, None for a single seed."""

    mean: float
    low: float | None
    high: float | None
    seeds: int


def value_of(row: Row, key: str) -> float | None:
    """The number at a key with dots; None where there is none, or where it is not finite."""
    found: Any = row
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return float(found) if isinstance(found, int | float) and math.isfinite(found) else None


def cell(values: Sequence[float]) -> Cell | None:
    """Mean and interval of a figure over seeds; None without values."""
    if not values:
        return None
    mean, n = statistics.fmean(values), len(values)
    if n < 2:
        return Cell(mean, None, None, n)
    half = float(require("scipy.stats", "metrics").t.ppf(0.975, n - 1)) * statistics.stdev(values) / math.sqrt(n)
    return Cell(mean, mean - half, mean + half, n)


def summary(rows: Sequence[Row]) -> dict[str, dict[str, Cell]]:
    """By entrant, in the order of the rows, its figures over seeds by column; columns that nobody has are left out."""
    names = dict.fromkeys(row["method"] for row in rows)
    found: dict[str, dict[str, Cell]] = {name: {} for name in names}
    for column in COLUMNS:
        for name in names:
            values = [v for row in rows if row["method"] == name and (v := value_of(row, column.key)) is not None]
            if (one := cell(values)) is not None:
                found[name][column.key] = one
    return found


def winner(column: Column, cells: Mapping[str, Cell]) -> str | None:
    """The entrant whose interval lies beyond those of all others, in the better direction; None where intervals meet or are not known."""
    if not column.better or len(cells) < 2 or any(one.low is None for one in cells.values()):
        return None
    sign = 1 if column.better == "up" else -1
    first = max(cells, key=lambda name: sign * cells[name].mean)
    end = cells[first].low if sign > 0 else cells[first].high
    others = [one.high if sign > 0 else one.low for name, one in cells.items() if name != first]
    return first if all(sign * (end - other) > 0 for other in others) else None  # type: ignore[operator]


def shown(one: Cell | None, column: Column) -> str:
    """A cell as text: its mean, and half of its interval where there is one."""
    if one is None:
        return "–"
    text = format(one.mean, column.form)
    return text if one.low is None or not column.better else f"{text} ± {format(one.mean - one.low, column.form)}"


def columns_of(cells: Mapping[str, Mapping[str, Cell]]) -> list[Column]:
    """The columns that at least one entrant has."""
    return [column for column in COLUMNS if any(column.key in mine for mine in cells.values())]


def troubles(rows: Sequence[Row]) -> list[str]:
    """What went wrong, one line a row; and what was not measured."""
    lines = []
    for row in rows:
        who = f"{row['method']}, seed {row['seed']}"
        for key in ("refused", "diverged"):
            if key in row:
                lines.append(f"{who}: {key}: {row[key]}")
        lines += [f"{who}: no {name}: {why}" for name, why in row.get("refused_metrics", {}).items()]
        if row.get("cpu_seconds", math.inf) < 0.8 * row.get("price", 0):
            lines.append(
                f"{who}: trained for {row['cpu_seconds']:.0f} s of {row['price']:.0f}: its first steps were slower than the others"
            )
    return lines
