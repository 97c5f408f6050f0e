"""The same digits run in fp32 and in bf16: is what a model learns unchanged, and how much faster is it?

Trains short_run/digits with equal seeds, data and length in both precisions and compares the trained models: energy distance
of samples to held-out digits, Fréchet distance in a digit classifier's features, the mean energy gap of held-out digits and
samples, AUROC of held-out digits against uniform noise. Paired over seeds.

    python -m studies.checks.precision --out studies/results/precision.json
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

import thalweg as tw
from studies.runner import table, write_results


def trained(precision: str, seed: int, images: int) -> dict:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="studies/results/precision.json")
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    started = time.monotonic()
    rows = []
    for seed in range(options.seeds):
        for precision in ("fp32", "bf16") if seed % 2 else ("bf16", "fp32"):
            rows.append(trained(precision, seed, options.images))
            print(rows[-1], flush=True)
    pairs = {p: {r["seed"]: r for r in rows if r["precision"] == p} for p in ("fp32", "bf16")}
    differences = {}
    for key in ("energy_distance", "frechet", "energy_gap", "auroc_uniform"):
        change = [pairs["bf16"][s][key] - pairs["fp32"][s][key] for s in range(options.seeds)]
        spread = [pairs["fp32"][s][key] for s in range(options.seeds)]
        differences[key] = {
            "mean_change": statistics.mean(change),
            "standard_error": statistics.stdev(change) / len(change) ** 0.5 if len(change) > 1 else None,
            "fp32_std_over_seeds": statistics.stdev(spread) if len(spread) > 1 else None,
        }
    ratio = statistics.median(pairs["fp32"][s]["seconds"] / pairs["bf16"][s]["seconds"] for s in range(options.seeds))
    print(table(rows))
    results = {"images": options.images, "threads": options.threads, "speed_ratio_bf16": ratio, "differences": differences, "runs": rows}
    print(write_results(options.out, results, seed=0, seconds=time.monotonic() - started))


if __name__ == "__main__":
    main()
