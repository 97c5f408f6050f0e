"""compare.html: the table of a comparison, sortable, with quality over time and samples of each entrant."""

from collections.abc import Sequence
from pathlib import Path

from thalweg import calls, plot, report
from thalweg.arena.row import Plan, Row
from thalweg.arena.table import cell, columns_of, shown, summary, troubles, winner
from thalweg.errors import InputError

WAYS = {"up": " ↑", "down": " ↓", "": ""}  # which way is better
HEADLINE = {"frechet": "Fréchet distance", "kl": "KL(truth‖model)", "energy_distance": "energy distance"}


def write_page(folder: Path, rows: Sequence[Row], plan: Plan) -> Path:
    """Write compare.html into the folder of the runs and return its path; pictures that a run lacks are left out."""
    cells = summary(rows)
    columns, names = columns_of(cells), list(cells)
    table = [[name, *(shown(cells[name].get(column.key), column) for column in columns)] for name in names]
    first = [winner(column, {name: mine[column.key] for name, mine in cells.items() if column.key in mine}) for column in columns]
    best = [(names.index(name), 1 + i) for i, name in enumerate(first) if name is not None]
    beats = [f"{column.title}: {name}" for column, name in zip(columns, first) if name is not None]
    seeds, told = max((sum(row["method"] == name for row in rows) for name in names), default=0), plan.told()
    price = f"{told['seconds']:g} {'CPU seconds of one thread' if told['device'] == 'cpu' else 'seconds'}"
    facts = {
        "price": f"{price} a training", "seeds": str(seeds), "data": told["data"], "measured": f"{told['n']:,} samples of each",
        "errors": "95 % intervals by Student's t over seeds" if seeds > 1 else "none: one seed",
        "command": calls.command(), "machine": _machine(),
    }  # fmt: skip
    pictures: list[tuple[str, Path]] = []
    if (curve := quality_over_time(folder, rows)) is not None:
        error = " with its 95 % interval" if seeds > 1 else ""
        pictures.append((f"Quality over CPU seconds, mean over seeds{error}", curve.relative_to(folder)))
    for name in names:
        run = folder / _folder_of(rows, name)
        for kind in ("samples", "guided_samples", "density", "neighbours"):
            if (path := run / "report" / f"{kind}.png").exists():
                pictures.append((f"{name}: {kind.replace('_', ' ')}", path.relative_to(folder)))
    said = (
        [f"Beyond all others' 95 % intervals: {'; '.join(beats)}." if beats else "No interval lies beyond all others'."]
        if seeds > 1
        else []
    )
    said += ["One seed: no interval, no winner."] if seeds == 1 else []
    return report.write(
        folder, title=f"{', '.join(names)} on {told['data']}", facts=facts, table=table, best=best,
        header=["method", *(f"{column.title}{WAYS[column.better]}" for column in columns)],
        sortable=True, pictures=pictures, config=told, footer=" ".join([*said, *troubles(rows)]), name="compare.html",
    )  # fmt: skip


def _machine() -> str:
    m = calls.machine()
    return m["gpu"] or f"{m['cpu']}, {m['cores']} cores"


def quality_over_time(folder: Path, rows: Sequence[Row]) -> Path | None:
    """The picture of the figure that was followed, by entrant, means over seeds with intervals at equal parts of the training; None
    without any."""
    lines = {}
    for name in dict.fromkeys(row["method"] for row in rows):
        looks = [row["curve"] for row in rows if row["method"] == name and "curve" in row]
        known = [
            [(look["cpu_seconds"], look["value"]) for look in at if None not in (look["cpu_seconds"], look["value"])] for at in zip(*looks)
        ]
        lines[name] = [_point(at) for at in known if at]
    key = next((key for key in HEADLINE if any(row.get(key) is not None for row in rows)), None)
    try:
        return plot.over_time(lines, folder / "compare.png", y=HEADLINE[key] if key else "value")  # type: ignore[arg-type]
    except InputError:
        return None


def _point(looks: list[tuple[float, float]]) -> tuple[float, float, float | None, float | None]:
    """Mean seconds and value of the looks of several seeds, and the value's interval."""
    value = cell([v for _, v in looks])
    assert value is not None  # there are looks
    return sum(s for s, _ in looks) / len(looks), value.mean, value.low, value.high


def _folder_of(rows: Sequence[Row], name: str) -> str:
    return next(row["folder"] for row in rows if row["method"] == name)
