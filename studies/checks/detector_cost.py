"""What the detector costs as a table grows: CPU seconds of one thread to fit it and to score 10⁵ rows.

    python -m studies.checks.detector_cost

Rows are of a mixture of eight Gaussians of unequal size with correlated columns. Rows grow at 10 columns, columns at 2,000 rows. The
limit of time is the default of `EnergyDetector`, 60 seconds.
"""

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy
import torch

import thalweg as tw
from studies.runner import Check, Options, Row, table
from studies.tables import Section, Shown, Table

SCORED = 100_000
MODES = 8


def rows_of(count: int, columns: int, seed: int = 0) -> numpy.ndarray:
    """[count, columns] of the mixture."""
    g = numpy.random.default_rng(seed)
    law = numpy.random.default_rng(columns)  # the same one whatever is drawn of it
    centres, turned = 2 * law.normal(size=(MODES, columns)), law.normal(size=(MODES, columns, columns)) / columns**0.5
    mode = g.choice(MODES, size=count, p=numpy.arange(1, MODES + 1) / (MODES * (MODES + 1) / 2))
    x, noise = centres[mode], g.normal(size=(count, columns))
    for k in range(MODES):
        x[mode == k] += noise[mode == k] @ turned[k]
    return x


def one(options: Options) -> Row:
    """A fit and a scoring, in a process of its own whose CPU seconds are its own."""
    torch.set_num_threads(1)
    count, columns = (int(word) for word in options.one)
    x, new = rows_of(count, columns), rows_of(options.scored, columns, seed=1)
    started = time.process_time()
    detector = tw.EnergyDetector(random_state=0).fit(x)
    fitted = time.process_time()
    detector.score_samples(new)
    return {
        "rows": count, "columns": columns, "fit_seconds": fitted - started,
        "score_seconds": (time.process_time() - fitted) * SCORED / options.scored,
    }  # fmt: skip


def run(options: Options) -> dict[str, Any]:
    found = [job(options, count, 10) for count in options.rows] + [job(options, 2000, columns) for columns in options.columns]
    print(table(found), file=sys.stderr, flush=True)
    return {"scored": SCORED, "by_rows": found[: len(options.rows)], "by_columns": found[len(options.rows) :]}


def job(options: Options, *words: int) -> Row:
    """`one` of a process that is spawned, so that no earlier fit's memory or threads are in it."""
    asked = argparse.Namespace(one=[str(word) for word in words], scored=options.scored)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(one, asked).result()


COLUMNS = "rows = rows:, | columns | CPU s to fit = fit_seconds:.1f | CPU s for 100,000 rows = score_seconds:.1f"
BLOCKS = [
    "One thread, a mixture of eight Gaussians; 60 seconds at most to fit, the default.",
    Table(COLUMNS, lambda results: [*results["by_rows"], *results["by_columns"]]),
]
PAGE = [Section("What a detector costs", [Shown("detector_cost", BLOCKS)])]
CHECK = Check(
    "detector_cost", __doc__, run,
    dict(rows=[300, 1000, 3000, 10_000, 30_000, 100_000], columns=[3, 30, 100, 300], scored=SCORED),
)  # fmt: skip

if __name__ == "__main__":
    CHECK.main()
