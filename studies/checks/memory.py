"""Peak memory of a run on pictures that would not fit: written, encoded, trained on as latents, and their FID statistics; in MiB.

Synthetic pictures are written as JPEG files, 10 classes, and everything after that streams them: a small autoencoder is trained on a few,
all are encoded into shards on the disk, a small model is trained on one epoch of latents, and feature statistics are gathered. A stage is
a process of its own, whose peak (VmHWM of /proc/self/status, Linux) counts all: Python, libraries, networks, pages of mapped files.

    python -m studies.checks.memory --images 50000
"""

import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from PIL import Image

from studies.runner import Check, Options, Row, rows_of_jobs, table
from studies.tables import Section, Shown, Table
from thalweg import data, latent
from thalweg.commands.train import run as train
from thalweg.evaluate.extractor import Extractor
from thalweg.evaluate.statistics import FeatureStatistics
from thalweg.random import seeded

LIMIT = 2048.0  # MiB
CLASSES = 10
WIDTHS = "[8, 8, 8, 8]"  # of the autoencoder: 256×256 to 32×32


def peak() -> float:
    """The most memory that this process has held so far, MiB."""
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) / 1024


def write(options: Options, home: Path) -> None:
    """Smooth random pictures, each set by its number, and a few to hold out."""
    for number in range(options.images + CLASSES):
        split = "train" if number < options.images else "validation"
        path = home / "pictures" / split / f"class{number % CLASSES}" / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        few = torch.randint(256, (8, 8, 3), dtype=torch.uint8, generator=seeded(options.seed, number))
        Image.fromarray(few.numpy()).resize((options.size, options.size), Image.Resampling.BICUBIC).save(path, quality=85)


def source(options: Options, home: Path) -> list[str]:
    return ["--data", str(home / "pictures"), "--size", str(options.size), "--stream", "--device", "cpu", "--threads", str(options.threads)]


def autoencoder(options: Options, home: Path) -> None:
    words = [
        "--coders.widths",
        WIDTHS,
        "--batch",
        "8",
        "--images",
        "64",
        "--sample-every",
        "1000000000",
        "--out",
        str(home / "autoencoder"),
    ]
    train(["autoencoder/pictures", *source(options, home), *words])


def encode(options: Options, home: Path) -> None:
    pictures = data.load(home / "pictures", size=options.size, streaming=True)
    latent.wrap(pictures, home / "autoencoder", folder=home / "latents")


def fit(options: Options, home: Path) -> None:
    """One epoch of latents, which are on the disk."""
    net = ["--width", "8", "--blocks", "1", "--levels", "20", "--sample_steps", "2", "--batch", str(options.batch)]
    lengths = ["--images", str(options.images), "--sample-every", "1000000000", "--autoencoder", str(home / "autoencoder")]
    train(["egc/digits", *source(options, home), *net, *lengths, "--out", str(home / "run")])


def statistics(options: Options, home: Path) -> None:
    pictures = data.load(home / "pictures", size=options.size, streaming=True)

    def parts() -> Iterator[torch.Tensor]:
        for rows in torch.arange(len(pictures)).split(options.batch):
            yield pictures.subset(rows).all().x

    # memory does not depend on what the classifier has learnt
    FeatureStatistics.of(parts(), Extractor(pictures.shape, CLASSES).eval(), batch=options.batch)


STAGES: dict[str, Callable[[Options, Path], None]] = {
    "write": write,
    "autoencoder": autoencoder,
    "encode": encode,
    "train": fit,
    "statistics": statistics,
}


def one(options: Options) -> Row:
    """A stage; called in a process of its own, whose peak is its own."""
    import os

    (name,), home, started = options.one, Path(options.place), time.monotonic()
    os.environ["THALWEG_LATENTS"] = str(home / "latents")
    STAGES[name](options, home)
    return {"stage": name, "images": options.images, "peak_mib": round(peak(), 1), "seconds": round(time.monotonic() - started, 1)}


def run(options: Options) -> dict:
    shared = [f"--{name}={getattr(options, name)}" for name in ("images", "size", "batch", "threads", "seed")]
    with tempfile.TemporaryDirectory(dir=options.place or None) as home:
        rows = rows_of_jobs(
            "studies.checks.memory",
            [(name,) for name in STAGES],
            arguments=[*shared, "--one"],
            work=Path(home) / "rows",
            workers=1,
            places=["--place", home],
            show=str,
        )
        kept = sum(path.stat().st_size for path in Path(home, "latents").rglob("*") if path.is_file())
    print(table(rows))
    return {
        "limit_mib": LIMIT,
        "images": options.images,
        "size": options.size,
        "all_images_mib": round(options.images * 3 * options.size**2 / 2**20, 1),
        "latents_mib": round(kept / 2**20, 1),
        "stages": rows,
    }


def failed(results: dict) -> bool:
    return any(row["peak_mib"] >= LIMIT for row in results["stages"])


INTRO = (
    "Peak memory of each stage of a run on pictures that stay on the disk (`--stream`), a process each, with Python, libraries and mapped "
    "files. As bytes in memory {images:,} pictures of {size}×{size} would take {all_images_mib:,.0f} MiB; their latents take "
    "{latents_mib:,.0f} MiB of the disk."
)
TABLE = Table(["stage | images:,", ("peak", lambda row: f"{row['peak_mib']:.0f} MiB"), "seconds:.0f"], "stages")
PAGE = [Section("Memory of a streamed run", [Shown("memory", [INTRO, TABLE])])]
OWN = dict(images=50_000, size=256, batch=16, threads=1, seed=0, place="")
CHECK = Check("memory", __doc__, run, OWN, one, failed=failed)

if __name__ == "__main__":
    CHECK.main()
