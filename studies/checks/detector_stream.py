"""A long stream of rows through a detector: rows a second, and memory beyond that of a short one.

    python -m studies.checks.detector_stream --rows 1000000

A detector of five networks is fitted to a table of numbers, categories and missing values, saved and loaded again. New rows of the same
source, made in parts, go through it as text, in CSV and as JSON lines, a process each. `beyond_mib` is by how much resident memory, looked
at after each batch, was ever above what it was after the first tenth of the stream, at most 50,000 rows; `rows_a_second` are of CPU seconds
on one thread, without those in which rows are made. Without drift, its p-value is at most 0.01 with a probability of 0.01. Linux.
"""

import resource
import tempfile
import time
from pathlib import Path

import numpy

from studies.checks.streaming import mib
from studies.runner import Check, Options, Row, rows_of_jobs
from studies.runner import table as as_text
from studies.tables import Section, Shown, Table
from thalweg.detect.detector import EnergyDetector
from thalweg.detect.stream import Watch, answer

FORMS = ("csv", "jsonl")
PART, FITTED, FIRST = 5000, 2000, 50_000  # rows made at once, of the fit, before memory is counted
LIMIT = 32.0  # MiB
DRIFT = 0.01


def table(rows: int, *seed: int):
    """Eight numbers that go together, one with missing values, and two categories."""
    import pandas

    draw = numpy.random.default_rng(seed)
    mixing = numpy.random.default_rng(0).normal(size=(3, 8))
    frame = pandas.DataFrame(draw.normal(size=(rows, 3)) @ mixing + 0.3 * draw.normal(size=(rows, 8)), columns=[f"x{i}" for i in range(8)])
    frame.loc[draw.random(rows) < 0.05, "x0"] = numpy.nan
    for name, count in (("few", 3), ("many", 40)):
        frame[name] = draw.choice([f"{name} {i}" for i in range(count)], rows)
    return frame


def resident() -> float:
    """The memory that this process holds now, MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


class Source:
    """Rows as text, as a pipe gives them; `seconds` in which they were made."""

    def __init__(self, rows: int, form: str, seed: int) -> None:
        self.left, self.form, self.seed, self.part, self.seconds, self.rest = rows, form, seed, 0, 0.0, b""

    def read1(self, size: int, /) -> bytes:
        if not self.rest and self.left:
            self._make()
        given, self.rest = self.rest[:size], self.rest[size:]
        return given

    def _make(self) -> None:
        started = time.process_time()
        rows = table(min(PART, self.left), self.seed, 1, self.part).round(4)
        text = rows.to_csv(index=False, header=not self.part) if self.form == "csv" else rows.to_json(orient="records", lines=True)
        self.rest, self.left, self.part = text.encode(), self.left - len(rows), self.part + 1
        self.seconds += time.process_time() - started


class Nowhere:
    """Counts the lines that are written to it."""

    def __init__(self) -> None:
        self.lines = 0

    def write(self, text: str) -> int:
        self.lines += text.count("\n")
        return len(text)

    def flush(self) -> None:
        pass


def one(options: Options) -> Row:
    """The stream in one form; called in a process of its own, whose peak is its own."""
    (form,) = options.one
    with tempfile.TemporaryDirectory() as folder:
        fitted = EnergyDetector(seconds=600, updates=options.updates, random_state=options.seed).fit(table(FITTED, options.seed, 0))
        detector = EnergyDetector.load(fitted.save(Path(folder, "detector")))
    source, target = Source(options.rows, form, options.seed), Nowhere()
    before = highest = resident()

    def after(watch: Watch) -> None:
        nonlocal before, highest
        highest = max(highest, now := resident())
        if watch.rows <= min(FIRST, options.rows // 10):
            before = now

    started = time.process_time()
    watch = answer(detector, source, target, delta=DRIFT, seed=options.seed, after=after)  # type: ignore[arg-type]
    seconds = time.process_time() - started - source.seconds
    beyond = highest - before
    return {
        "form": form, "rows": watch.rows, "answers": target.lines - (form == "csv"), "rows_a_second": round(watch.rows / seconds),
        "most_mib": round(highest, 1), "beyond_mib": round(beyond, 1), "within_limit": beyond < LIMIT,
        "outliers": watch.outliers / watch.rows, "no_drift": watch.martingale.p_value, "cpu_seconds": round(seconds, 1),
    }  # fmt: skip


def run(options: Options) -> dict:
    shared = [f"--{name}={getattr(options, name)}" for name in ("rows", "seed", "updates", "threads")]
    with tempfile.TemporaryDirectory() as work:
        jobs = [(form,) for form in FORMS]
        rows = rows_of_jobs("studies.checks.detector_stream", jobs, arguments=[*shared, "--one"], work=Path(work), workers=1, show=str)
    print(as_text(rows))
    return {"limit_mib": LIMIT, "fitted": FITTED, "false_alarms": 0.05, "runs": rows}


def failed(results: dict) -> bool:
    """Memory that grows, or rows without an answer."""
    return not all(row["within_limit"] and row["answers"] == row["rows"] for row in results["runs"])


COLUMNS = [
    "rows as = form | rows:, | rows a second = rows_a_second:,",
    ("memory at most", lambda row: mib(row["most_mib"])),
    ("beyond that after a tenth", lambda row: mib(row["beyond_mib"])),
    "called outliers = outliers:.2f % | p-value of no drift = no_drift:.2g",
]
INTRO = """New rows of a table of eight numbers and two categories go through a detector of five networks as text, on one thread, at a rate
of false alarms of 5 % and without drift. Rows a second are of CPU time."""
PAGE = [Section("A stream through the detector", [Shown("detector_stream", [Table(COLUMNS, "runs")])], INTRO)]
CHECK = Check("detector_stream", __doc__, run, dict(rows=1_000_000, seed=0, updates=400, threads=1), one, failed)

if __name__ == "__main__":
    CHECK.main()
