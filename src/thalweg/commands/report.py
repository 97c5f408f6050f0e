"""What `thalweg evaluate` shows: tables in the terminal, and a run's page."""

from pathlib import Path
from typing import Any

from thalweg import checkpoint, metrics, plot, report

# curves of a run by title: which keys of stats.jsonl belong together
CURVES = {
    "losses": lambda key: key.startswith("loss/") or key in ("score_matching", "cross_entropy"),
    "energies": lambda key: key.startswith("energy_"),
    "held-out criterion": lambda key: key == "criterion",
    "gradient norms": lambda key: key.startswith("gradient_norm/"),
    "accuracy and acceptance": lambda key: key in ("accuracy", "acceptance"),
}


def print_table(model: str, figures: dict[str, Any]) -> None:
    """The figures of a model."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(model), title_justify="left", show_header=False, show_edge=False)
    for row in metrics.rows(figures):
        table.add_row(*map(escape, row[:3]))  # names hold brackets
    Console().print(table)


def print_next(model: str) -> None:
    """Where the report is."""
    if (Path(model) / "report.html").exists():
        print(f"pictures and table: {Path(model) / 'report.html'}\ntry next: thalweg sample {model} -n 100 --out samples.png")


def print_comparison(results: dict[str, dict[str, Any]], picture: Path | None) -> None:
    """One table with a column a model, the best of each line in bold; and the same as a picture, if a path is given."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(show_edge=False)
    table.add_column("measure")
    for model in results:
        table.add_column(escape(model), justify="right")
    lines = metrics.compare(results)
    for name, line in lines:
        best = metrics.best(line)
        cells = ["–" if row is None else f"[bold]{row.text}[/bold]" if i in best else row.text for i, row in enumerate(line)]
        table.add_row(escape(name), *cells)
    Console().print(table)
    settings = next(iter(results.values()))["settings"]
    print(f"the same data, {settings['n']} samples each, seed {settings['seed']}, extractor {settings['extractor']}")
    if picture is not None:
        figures = {name: [None if r is None or r.value is None else (r.value, r.low, r.high) for r in line] for name, line in lines}
        print(plot.comparison(figures, list(results), picture))


def write_report(folder: Path, results: dict[str, Any]) -> Path:
    """report.html of a run: its figures and their pictures, the curves of its training, samples on the way, and its config.

    InputError where it cannot be written.
    """
    with checkpoint.writing(folder / "report.html"):
        return _write_report(folder, results)


def _write_report(folder: Path, results: dict[str, Any]) -> Path:
    listed = {path: caption for about in results["measured"].values() if about for caption, path in about["pictures"]}
    pictures = [(caption, folder / path) for path, caption in listed.items() if (folder / path).exists()]
    stats, description = checkpoint.read_stats(folder), checkpoint.read_config(folder)
    name = (checkpoint.read_data(folder) or {}).get("name")
    keys = sorted({key for row in stats for key in row})
    groups = {title: [key for key in keys if belongs(key)] for title, belongs in CURVES.items()}
    if rows := [row for row in stats if "event" not in row]:
        path = plot.curves(rows, {title: group for title, group in groups.items() if group}, folder / "report" / "curves.png")
        pictures = [*pictures, ("The run", path)]
    snapshots = sorted((folder / "samples").glob("*.png"))
    for path in snapshots[:: max(1, len(snapshots) // 4)]:
        pictures = [*pictures, (f"Samples after {int(path.stem):,} images", path)]
    events = [row["event"] for row in stats if "event" in row]
    return report.write(
        folder, title=f"{description['method']} on {name or description['config'].get('data', '')}",
        table=[row[:3] for row in metrics.rows(results)],
        pictures=[(caption, Path(path).relative_to(folder)) for caption, path in pictures],
        config=description, footer="Divergence guard: " + ("; ".join(events) if events else "not needed") + ".",
    )  # fmt: skip
