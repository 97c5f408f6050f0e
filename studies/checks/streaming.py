"""Memory of feature statistics over a stream of images, beyond what the extractor itself takes: peak resident memory, in MiB.

Images are made a batch at a time by seeded noise, pass through the extractor, and leave only their mean and covariance. The
baseline is the peak after the extractor has seen one batch: network, libraries and activations. Linux; one process an extractor.

    python -m studies.checks.streaming --out studies/results/streaming.json
"""

import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from studies.runner import Check, Options, Row, rows_of_jobs, table
from studies.tables import Section, Shown, Table
from thalweg.evaluate.extractor import Extractor
from thalweg.evaluate.pretrained import extractor_by_name
from thalweg.evaluate.statistics import FeatureStatistics
from thalweg.random import seeded, uniform

EXTRACTORS = ("classifier", "efficientnet-lite0")
SIZE = 32
LIMIT = 1024.0  # MiB


def peak() -> float:
    """The most memory that this process has held so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def one(options: Options) -> Row:
    """Stream images through one extractor; called in a process of its own, whose peak is its own."""
    (name,), images, batch = options.one, options.images, options.batch

    def stream() -> Iterator[torch.Tensor]:
        for start in range(0, images, batch):
            yield uniform(min(batch, images - start), 3, SIZE, SIZE, low=-1, high=1, generator=seeded(0, start))

    # memory does not depend on what the classifier has learnt
    net = Extractor((3, SIZE, SIZE), 10).eval() if name == "classifier" else extractor_by_name(name)
    net.features(next(stream()), batch=batch)
    before, started = peak(), time.monotonic()
    statistics = FeatureStatistics.of(stream(), net, batch=batch)
    after = peak()
    return {
        "extractor": name,
        "images": statistics.count,
        "features": statistics.num_features,
        "batch": batch,
        "extractor_peak_mib": round(before, 1),
        "beyond_extractor_mib": round(after - before, 1),
        "within_limit": after - before < LIMIT,
        "all_images_mib": round(images * 3 * SIZE * SIZE * 4 / 2**20, 1),
        "seconds": round(time.monotonic() - started, 1),
    }


def run(options: Options) -> dict:
    shared = [f"--{name}={getattr(options, name)}" for name in ("images", "batch", "threads")]
    jobs = [(name,) for name in options.extractors]
    with tempfile.TemporaryDirectory() as work:
        rows = rows_of_jobs("studies.checks.streaming", jobs, arguments=[*shared, "--one"], work=Path(work), workers=1, show=str)
    print(table(rows))
    return {"limit_mib": LIMIT, "size": SIZE, "threads": options.threads, "runs": rows}


def mib(value: float) -> str:
    return f"{value:.0f} MiB"


COLUMNS = [
    "extractor | images:,",
    ("peak", lambda row: mib(row["beyond_extractor_mib"])),
    ("all images at once", lambda row: mib(row["all_images_mib"])),
]
INTRO = (
    "Peak memory in addition to the extractor's own while feature statistics of a stream of images are computed, and the size of all "
    "images."
)
PAGE = [Section("Streaming", [Shown("streaming", [Table(COLUMNS, "runs")])], INTRO)]
CHECK = Check("streaming", __doc__, run, dict(images=50_000, batch=64, threads=1, extractors=list(EXTRACTORS)), one)

if __name__ == "__main__":
    CHECK.main()
