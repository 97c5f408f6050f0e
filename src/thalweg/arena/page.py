"""compare.html: the table of a comparison, sortable, with quality over time and samples of each entrant."""

from collections.abc import Sequence
from pathlib import Path

from thalweg import plot, report
from thalweg.arena.row import Plan, Row
from thalweg.arena.table import columns_of, shown, summary, troubles, winner
from thalweg.errors import InputError

HEADLINE = {"frechet": "Fréchet distance", "kl": "KL(truth‖model)", "energy_distance": "energy distance"}


def write_page(folder: Path, rows: Sequence[Row], plan: Plan) -> Path:
    """Write compare.html into the folder of the runs and return its path; pictures that a run lacks are left out."""
    cells = summary(rows)
    columns, names = columns_of(cells), list(cells)
    table = [[name, *(shown(cells[name].get(column.key), column) for column in columns)] for name in names]
    beats = [
        f"{column.title}: {first}"
        for column in columns
        if (first := winner(column, {n: c[column.key] for n, c in cells.items() if column.key in c}))
    ]
    seeds = max((sum(row["method"] == name for row in rows) for name in names), default=0)
    pictures: list[tuple[str, Path]] = []
    if (curve := quality_over_time(folder, rows)) is not None:
        pictures.append(("Quality over CPU seconds, mean over seeds", curve))
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
        folder, title=f"{', '.join(names)} on {plan.told()['data']}", table=table, header=["method", *(column.title for column in columns)],
        sortable=True, pictures=pictures, config=plan.told(), footer=" ".join([*said, *troubles(rows)]), name="compare.html",
    )  # fmt: skip


def quality_over_time(folder: Path, rows: Sequence[Row]) -> Path | None:
    """The picture of the figure that was followed, by entrant, means over seeds at equal parts of the training; None without any."""
    lines = {}
    for name in dict.fromkeys(row["method"] for row in rows):
        looks = [row["curve"] for row in rows if row["method"] == name and "curve" in row]
        known = [
            [(look["cpu_seconds"], look["value"]) for look in at if None not in (look["cpu_seconds"], look["value"])] for at in zip(*looks)
        ]
        lines[name] = [tuple(sum(part) / len(at) for part in zip(*at)) for at in known if at]
    key = next((key for key in HEADLINE if any(row.get(key) is not None for row in rows)), None)
    try:
        return plot.over_time(lines, folder / "compare.png", y=HEADLINE[key] if key else "value")  # type: ignore[arg-type]
    except InputError:
        return None


def _folder_of(rows: Sequence[Row], name: str) -> str:
    return next(row["folder"] for row in rows if row["method"] == name)
