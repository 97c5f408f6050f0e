"""Outlier detection by the four models of images: every score against every kind of outliers.

Trains what is not yet under --runs (an hour on two cores), then measures all of them with `thalweg evaluate`'s own protocol:
inliers are the test split, outliers are made ones and the test split of the other data set.

    python -m studies.checks.ood --runs runs --out studies/results/ood.json
"""

from pathlib import Path

import thalweg as tw
from studies.runner import Check, Options, table
from studies.tables import Each, Section, Shown, Table
from thalweg import checkpoint, data, metrics

# model: (preset, precision, images, fields that differ from the preset, the other data set)
MODELS = {
    "egc-digits": ("egc/digits", "fp32", None, {}, "fashion-mnist"),
    "short_run-digits": ("short_run/digits", "bf16", 200_000, {"compile": True}, "fashion-mnist"),
    "egc-fashion": ("egc/fashion-mnist", "bf16", 500_000, {"passes": "joint", "class_augmentation": None}, "mnist-small"),
    "short_run-fashion": ("short_run/fashion-mnist", "bf16", 150_000, {"compile": True}, "mnist-small"),
}


def trained(folder: Path, preset: str, precision: str, images: int | None, fields: dict) -> None:
    """Train into `folder`, or go on there; a finished run returns at once."""
    shorter = {} if images is None else {"images": images}
    train = data.load(preset.split("/")[1])
    method = tw.method(preset, data=train, **shorter, **fields)
    tw.fit(method, train, folder, images=method.config.images, precision=precision, seed=0)


def run(options: Options) -> dict:
    results = {}
    for name, (preset, precision, images, fields, other) in MODELS.items():
        folder = options.runs / name
        trained(folder, preset, precision, images, fields)
        subject = metrics.Subject(tw.load(folder), metrics.Settings(outliers=(other,)))
        seen = [row for row in checkpoint.read_stats(folder) if "seconds" in row][-1]
        results[name] = {
            "preset": preset,
            "precision": precision,
            "images": seen["images"],
            "training_seconds": round(seen["seconds"]),
            "inliers": min(len(subject.test.x), subject.settings.ood_images),
            "ood": metrics.METRICS["ood"].measure(subject),
        }
        print(name + "\n" + table([short(score, found) for score, found in results[name]["ood"].items()]), flush=True)
    return results


def short(score: str, found: dict) -> dict:
    return {"score": score} | {kind: r["auroc"] for kind, r in found.items() if isinstance(r, dict)} | {"mean": found["mean_auroc"]}


def columns(r: dict) -> list[str | tuple]:
    kinds = [kind for kind in r["ood"]["energy"] if kind != "mean_auroc"]
    return [
        "score",
        *(
            (kind, lambda row, kind=kind: "{:.3f} ({:.3f}–{:.3f})".format(row[kind]["auroc"], *row[kind]["auroc_interval"]))
            for kind in kinds
        ),
    ]


TABLE = Table(columns, lambda r: [{"score": score, **found} for score, found in r["ood"].items()])
MODEL = Each(
    lambda r: [{"name": name, **r[name]} for name in MODELS],
    ["{name}: {preset}, {images:,} images, {precision}, {inliers:,} inliers.", TABLE],
)
INTRO = "AUROC, with its 95 % bootstrap interval; inliers are the test split."
PAGE = [Section("Outliers", [Shown("ood", [MODEL])], INTRO)]
CHECK = Check("ood", __doc__, run, dict(runs=Path("runs"), threads=1))

if __name__ == "__main__":
    CHECK.main()
