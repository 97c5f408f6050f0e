"""The same digits run in fp32 and in bf16: is what a model learns unchanged, and how much faster is it?

Trains short_run/digits with equal seeds, data and length in both precisions and compares the trained models: energy distance
of samples to held-out digits, Fréchet distance in a digit classifier's features, the mean energy gap of held-out digits and
samples, AUROC of held-out digits against uniform noise. Paired over seeds.

    python -m studies.checks.precision --out studies/results/precision.json
"""

import statistics
import time

import torch

import thalweg as tw
from studies.measures import mean, paired, ratio
from studies.runner import Check, Options, Row, table
from studies.tables import Section, Shown, Table

FIGURES = {
    "energy_distance": "energy distance of samples to held-out digits",
    "frechet": "Fréchet distance in a digit classifier's features",
    "energy_gap": "energy of held-out digits less that of samples, nats",
    "auroc_uniform": "AUROC against uniform noise",
}


def trained(precision: str, seed: int, images: int) -> Row:
    """Figures of one run."""
    train, test = (tw.data.load("digits", split) for split in ("train", "test"))
    model = tw.method("short_run/digits", seed=seed, data=train)
    started = time.monotonic()
    ema = tw.fit(model, train, seed=seed, images=images, precision=precision, progress=False)
    seconds = time.monotonic() - started
    held_out = test.all()
    samples = ema.sample(1000, seed=seed)
    extractor = tw.evaluate.extractor("digits")
    with torch.no_grad():
        real, drawn = ema.energy(held_out.x), ema.energy(samples)
        noise = ema.energy(tw.evaluate.outliers("uniform", held_out.x, 1000, seed))
    distance = tw.evaluate.energy_distance_interval(samples.flatten(1), held_out.x.flatten(1))
    return {
        "precision": precision,
        "seed": seed,
        "seconds": round(seconds, 1),
        "energy_distance": distance.value,
        "energy_distance_error": distance.standard_error,
        "frechet": tw.evaluate.frechet_distance(train.all().x, samples, extractor, held_out=held_out.x, n=len(held_out.x)).value,
        "energy_gap": float(real.mean() - drawn.mean()),
        "auroc_uniform": tw.evaluate.ood(real, noise, bootstrap=100).auroc,
    }


def run(options: Options) -> dict:
    rows = []
    for seed in range(options.seeds):
        for precision in ("fp32", "bf16") if seed % 2 else ("bf16", "fp32"):
            rows.append(trained(precision, seed, options.images))
            print(rows[-1], flush=True)
    named = [{**row, "row": row["precision"]} for row in rows]
    differences = {}
    for key in FIGURES:
        change, error = paired(named, "bf16", "fp32", key)
        values = [row[key] for row in rows if row["precision"] == "fp32"]
        spread = statistics.stdev(values) if len(values) > 1 else None
        differences[key] = {"mean_change": change, "standard_error": error, "fp32_std_over_seeds": spread}
    seconds = {p: [row["seconds"] for row in sorted(rows, key=lambda row: row["seed"]) if row["precision"] == p] for p in ("fp32", "bf16")}
    print(table(rows))
    faster = ratio(seconds["fp32"], seconds["bf16"])
    return {"images": options.images, "threads": options.threads, "speed_ratio_bf16": faster, "differences": differences, "runs": rows}


def compared(r: dict) -> list[dict]:
    means = {p: {key: mean(row[key] for row in r["runs"] if row["precision"] == p) for key in FIGURES} for p in ("fp32", "bf16")}
    return [{"figure": name, **{p: means[p][key] for p in means}, **r["differences"][key]} for key, name in FIGURES.items()]


INTRO = (
    "The same digits run, {images:,} images, in fp32 and in bf16: means over {seeds} seeds, and the paired change with its standard error."
)
TABLE = Table("figure | fp32:.4f | bf16:.4f | change = mean_change ± standard_error:+.4f", compared)
PAGE = [Section("Precision", [Shown("precision", [INTRO, TABLE], lambda r: {"seeds": len(r["runs"]) // 2})])]
CHECK = Check("precision", __doc__, run, dict(images=60_000, seeds=3, threads=1))

if __name__ == "__main__":
    CHECK.main()
