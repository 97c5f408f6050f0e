"""What `thalweg evaluate` shows: tables in the terminal, and a run's page."""

import datetime
from pathlib import Path
from typing import Any

import thalweg
from thalweg import calls, checkpoint, metrics, plot, report
from thalweg.commands.list import about
from thalweg.methods import METHODS
from thalweg.progress import duration

FRAMES = 16  # pictures over a training
SAMPLES = ("guided_samples", "samples", "density", "recombined", "views", "latents")  # which picture a page begins with

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
    """report.html of a run: what it is, its samples, the figures that count, pictures over its training, and all the rest, folded.

    InputError where it cannot be written.
    """
    with checkpoint.writing(folder / "report.html"):
        return _write_report(folder, results)


def _write_report(folder: Path, results: dict[str, Any]) -> Path:
    listed = {path: caption for about in results["measured"].values() if about for caption, path in about["pictures"]}
    pictures = [(caption, Path(path)) for path, caption in listed.items() if (folder / path).exists()]
    stats, description = checkpoint.read_stats(folder), checkpoint.read_config(folder)
    data = checkpoint.read_data(folder) or {}
    keys = sorted({key for row in stats for key in row})
    groups = {title: [key for key in keys if belongs(key)] for title, belongs in CURVES.items()}
    if rows := [row for row in stats if "event" not in row]:
        path = plot.curves(rows, {title: group for title, group in groups.items() if group}, folder / "report" / "curves.png")
        pictures = [*pictures, ("The run", path.relative_to(folder))]
    over = _over_training(folder, stats)
    first = next((one for stem in SAMPLES for one in pictures if one[1].stem == stem), None) or next(iter(over[-1:]), None)
    return report.write(
        folder, title=f"{description['method']} on {data.get('name') or description['config'].get('data', '')}",
        facts=_facts(folder, description, data, stats, results), samples=[first] if first else [],
        headlines=[report.Headline(row.name, row.text, row.better, row.floor, row.about) for row in metrics.headlines(results)],
        training=over, table=[row[:3] for row in metrics.rows(results)], pictures=[one for one in pictures if one != first],
        config=description, footer=f"Made by `thalweg evaluate {folder}`, Thalweg {thalweg.__version__}.",
    )  # fmt: skip


def _over_training(folder: Path, stats: list[dict[str, Any]]) -> list[tuple[str, Path]]:
    """At most `FRAMES` pictures that were kept while the run trained, evenly spaced, the last of them among them."""
    paths = sorted((folder / "samples").glob("*.png"))
    times = [(row["images"], row["seconds"]) for row in stats if "seconds" in row]
    many = min(FRAMES, len(paths))
    chosen = [paths[i] for i in sorted(len(paths) - 1 - len(paths) * i // many for i in range(many))]
    found = []
    for path in chosen:
        seconds = max((s for images, s in times if images <= int(path.stem)), default=None)
        found.append((f"after {int(path.stem):,} images{'' if seconds is None else f', {duration(seconds)}'}", path.relative_to(folder)))
    return found


def _facts(folder: Path, description: dict[str, Any], data: dict[str, Any], stats: list[dict[str, Any]], results: dict[str, Any]) -> dict:
    """What the run is, when, how and where it was trained, and what was measured; what a run of an earlier version lacks is left out."""
    method, config, made = description["method"], description["config"], calls.read(folder)
    pictures, classes = len(config["shape"]) == 3, len(data.get("classes") or ())
    shape = "×".join(map(str, config["shape"])) if pictures else f"vectors of {config['shape'][0]}"
    count = f", {data['count']:,} for training" if data.get("count") else ""
    facts = {"method": f"{method}: {about(method)}" if method in METHODS else method}
    facts["data"] = f"{data.get('name') or config.get('data', '')}, {shape}{count}{f', {classes} classes' if classes else ''}"
    last = next((row for row in reversed(stats) if "seconds" in row), None)
    if last is not None:
        share = "" if last["images"] >= config["images"] else f", {last['images'] / config['images']:.0%} of {config['images']:,}"
        facts["trained"] = f"{last['images']:,} images{share}, in {duration(last['seconds'])}"
    if made:
        call, more = made[-1], f"; {len(made)} calls" if len(made) > 1 else ""
        facts["when"] = f"begun {made[0]['started'][:16].replace('T', ' at ')}{more}"
        facts["command"] = call["command"]
        m = call["machine"]
        where = m["gpu"] if m["gpu"] and str(call["device"]).startswith("cuda") else f"{m['cpu']}, {m['threads']} of {m['cores']} cores"
        facts["machine"] = f"{where}, {call['precision']}; PyTorch {call['versions']['torch']}, Thalweg {call['versions']['thalweg']}"
        facts["seed"] = str(call["seed"])
    settings, events = results["settings"], [row["event"] for row in stats if "event" in row]
    by = f", features of {settings['extractor']}" if pictures else ""
    facts["measured"] = f"{datetime.date.today()}: {settings['n']:,} samples, seed {settings['seed']}{by}"
    facts["guard"] = "; ".join(events) if events else "not needed"
    return facts
