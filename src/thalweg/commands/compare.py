"""`thalweg compare`: methods trained at equal price on the same data, measured alike, in one table."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thalweg.commands.options import above_zero, parse, usable
from thalweg.errors import InputError, nearest
from thalweg.progress import duration, say

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass
class Options:
    """Train several methods for the same price on the same data, measure all alike: one table, compare.json, and compare.html to sort."""

    methods: str = ""
    """comma-separated: METHOD, which takes its preset nearest to the data, METHOD/PRESET, or FILE.py:CLASS of your own"""
    data: str = ""
    """what they are compared on, by name, folder, .npz, .npy, .csv or .parquet"""
    out: Path | None = None
    """folder of the runs and the tables; the same command again goes on where it was cut off"""
    seconds: float = 300.0
    """price of a training: CPU seconds of one thread, on a GPU seconds"""
    seeds: int = 1
    """trainings of each method; from two on the table has intervals"""
    n: int = 1000
    """samples that are measured"""
    jobs: int = 1
    """trainings at a time, no more than there are cores"""
    precision: str = "auto"
    """fp32, bf16, or auto: bf16 on a GPU"""
    size: int | None = None
    """side that images are brought to"""
    outliers: str = ""
    """comma-separated data sets that outliers also come from"""
    device: str = "auto"
    """cpu, cuda, mps or auto"""


def run(arguments: list[str]) -> None:
    options = parse(Options, arguments, "compare")
    names = [part.strip() for part in options.methods.split(",") if part.strip()]
    if not names:
        raise InputError("compare needs --methods, names with commas: METHOD, METHOD/PRESET or FILE.py:CLASS")
    if not options.data or options.out is None:
        raise InputError(f"compare needs {'--data' if not options.data else '--out DIR, the folder of the runs'}")
    above_zero(options, "seconds", "seeds", "n", "jobs", "size")
    known = ("auto", "fp32", "bf16")
    if options.precision not in known:
        raise InputError(f"--precision {options.precision} is not known{nearest(options.precision, known)}: fp32, bf16 or auto")
    device = usable(options.device)
    total = options.seconds * options.seeds * len(names) / options.jobs
    say(f"about {duration(total)} of training, and what measuring takes")
    from thalweg.arena import compare

    bf16 = options.precision == "bf16" or (options.precision == "auto" and device.startswith("cuda"))
    rows = compare(
        names, options.data, out=options.out, seconds=options.seconds, seeds=options.seeds, jobs=options.jobs, n=options.n,
        precision="bf16" if bf16 else "fp32", device=device, size=options.size,
        outliers=tuple(part.strip() for part in options.outliers.split(",") if part.strip()),
    )  # fmt: skip
    if all("refused" in row for row in rows):
        raise InputError(f"no method could be trained: {rows[0]['refused']}")
    print_rows(rows)
    print(f"page: {options.out / 'compare.html'}")


def print_rows(rows: "Sequence[dict[str, Any]]") -> None:
    """The table: a line a figure, a column a method, and in bold what lies beyond all others' intervals."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from thalweg.arena.table import columns_of, shown, summary, troubles, winner

    cells = summary(rows)
    table = Table(show_edge=False)
    table.add_column("")
    for name in cells:
        table.add_column(escape(name), justify="right")
    for column in columns_of(cells):
        first = winner(column, {name: mine[column.key] for name, mine in cells.items() if column.key in mine})
        texts = {name: escape(shown(mine.get(column.key), column)) for name, mine in cells.items()}
        table.add_row(escape(column.title), *(f"[bold]{text}[/bold]" if name == first else text for name, text in texts.items()))
    Console().print(table)
    for line in troubles(rows):
        print(f"thalweg: {line}", file=sys.stderr)
