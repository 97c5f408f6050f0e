"""Memory of feature statistics over a stream of images, beyond what the extractor itself takes: peak resident memory, in MiB.

Images are made a batch at a time by seeded noise, pass through the extractor, and leave only their mean and covariance. The
baseline is the peak after the extractor has seen one batch: network, libraries and activations. Linux; one process an extractor.

    python -m studies.checks.streaming --out studies/results/streaming.json
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

EXTRACTORS = ("classifier", "efficientnet-lite0")
SIZE = 32
LIMIT = 1024.0  # MiB


def peak() -> float:
    """The most memory that this process has held so far, MiB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def one(name: str, images: int, batch: int, threads: int) -> dict:
    """Stream `images` images through one extractor; called in a process of its own."""
    import torch

    torch.set_num_threads(threads)
    from thalweg.evaluate.extractor import Extractor
    from thalweg.evaluate.pretrained import extractor_by_name
    from thalweg.evaluate.statistics import FeatureStatistics
    from thalweg.random import seeded, uniform

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="studies/results/streaming.json")
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--extractors", nargs="+", default=list(EXTRACTORS), choices=EXTRACTORS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one, options.images, options.batch, options.threads)))
        return
    from studies.runner import table, write_results

    started = time.monotonic()
    shared = ["--images", str(options.images), "--batch", str(options.batch), "--threads", str(options.threads)]
    rows = []
    for name in options.extractors:
        done = subprocess.run(
            [sys.executable, "-m", "studies.checks.streaming", "--one", name, *shared], capture_output=True, text=True, check=True
        )
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    print(table(rows))
    results = {"limit_mib": LIMIT, "size": SIZE, "threads": options.threads, "runs": rows}
    print(write_results(Path(options.out), results, seed=0, seconds=time.monotonic() - started))


if __name__ == "__main__":
    main()
