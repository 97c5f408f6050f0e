"""Normalised model densities against exact ones: every toy's short_run preset, one CPU core, one thread, at most 120 CPU-seconds.

Each run is a process of its own; its budget counts the CPU time of the training loop, so that runs beside it do not matter.
Reports KL(truth‖model) on a 400² grid, total variation, missing modes, and the energy distance of 4,096 fresh samples to
10,000 exact ones with its standard error; medians over seeds.

    python -m studies.checks.density --out studies/results/density.json --jobs 2
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

TOYS = ("8gaussians", "25gaussians", "pinwheel", "swissroll", "spiral", "rings", "moons", "checkerboard")
BUDGET = 120.0


def one(method: str, toy_name: str, seed: int) -> dict:
    """Train and measure one preset; called in a process of its own."""
    import torch

    torch.set_num_threads(1)
    import thalweg as tw

    toy = tw.data.toy(toy_name)
    model = tw.method(f"{method}/{toy_name}", seed=seed)
    started = time.process_time()
    trained = tw.fit(model, toy, seed=seed, seconds=BUDGET, clock=time.process_time, progress=False)
    spent = time.process_time() - started
    samples = trained.sample(4096, seed=seed)
    exact = toy.sample(10_000, generator=tw.random.seeded(seed, 99))
    return {
        "method": method,
        "toy": toy_name,
        "seed": seed,
        "cpu_seconds": round(spent, 1),
        "density": asdict(tw.evaluate.density(trained.energy, toy, grid=400)),
        "energy_distance": asdict(tw.evaluate.energy_distance_interval(samples, exact)),
    }


def run(job: tuple[str, str, int]) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "studies.checks.density", "--one", *map(str, job)],
        capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    row = json.loads(done.stdout.splitlines()[-1])
    d, e = row["density"], row["energy_distance"]
    print(
        f"{row['method']:10} {row['toy']:13} seed {row['seed']}  {row['cpu_seconds']:6.1f} s  KL {d['kl_truth_model']:.4f}  "
        f"TV {d['total_variation']:.3f}  missing {d['modes_missing']}  energy distance {e['value']:.5f} ± {e['standard_error']:.5f}",
        flush=True,
    )
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="studies/results/density.json")
    parser.add_argument("--methods", nargs="+", default=["short_run"])
    parser.add_argument("--toys", nargs="+", default=list(TOYS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time; keep it at or below the number of cores")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        method, toy, seed = options.one
        print(json.dumps(one(method, toy, int(seed))))
        return
    from studies.runner import table, write_results

    started = time.monotonic()
    jobs = [(method, toy, seed) for method in options.methods for toy in options.toys for seed in range(options.seeds)]
    with ThreadPoolExecutor(options.jobs) as pool:
        rows = list(pool.map(run, jobs))
    medians = []
    for method in options.methods:
        for toy in options.toys:
            mine = [row for row in rows if row["toy"] == toy and row["method"] == method]
            medians.append(
                {
                    "method": method,
                    "toy": toy,
                    "kl_truth_model": statistics.median(r["density"]["kl_truth_model"] for r in mine),
                    "kl_worst_seed": max(r["density"]["kl_truth_model"] for r in mine),
                    "total_variation": statistics.median(r["density"]["total_variation"] for r in mine),
                    "modes_missing": max(r["density"]["modes_missing"] for r in mine),
                    "energy_distance": statistics.median(r["energy_distance"]["value"] for r in mine),
                    "cpu_seconds": statistics.median(r["cpu_seconds"] for r in mine),
                }
            )
    print("\n" + table(medians))
    results = {"budget_cpu_seconds": BUDGET, "threads": 1, "jobs": options.jobs, "medians": medians, "runs": rows}
    print(write_results(Path(options.out), results, seed=0, seconds=time.monotonic() - started))


if __name__ == "__main__":
    main()
