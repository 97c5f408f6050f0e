"""Normalised model densities against exact ones: every toy's short_run preset, one CPU core, one thread, at most 120 CPU seconds.

Each run is a process of its own; its budget counts the CPU time of the training loop, so that other runs do not matter.
Reports KL(truth‖model) on a 400² grid, total variation, missing modes, and the energy distance of 4,096 fresh samples to
10,000 exact ones with its standard error; medians over seeds.

    python -m studies.checks.density --out studies/results/density.json --jobs 2
"""

import statistics
import time
from dataclasses import asdict
from pathlib import Path

import thalweg as tw
from studies.runner import Check, Options, Row, rows_of_jobs, table
from studies.tables import Section, Shown, Table

TOYS = ("8gaussians", "25gaussians", "pinwheel", "swissroll", "spiral", "rings", "moons", "checkerboard")
BUDGET = 120.0


def one(options: Options) -> Row:
    """Train and measure one preset."""
    method, name, seed = *options.one[:2], int(options.one[2])
    toy, model = tw.data.toy(name), tw.method(f"{method}/{name}", seed=seed)
    started = time.process_time()
    trained = tw.fit(model, toy, seed=seed, seconds=BUDGET, clock=time.process_time, progress=False)
    spent = time.process_time() - started
    samples = trained.sample(4096, seed=seed)
    exact = toy.sample(10_000, generator=tw.random.seeded(seed, 99))
    return {
        "method": method,
        "toy": name,
        "seed": seed,
        "cpu_seconds": round(spent, 1),
        "density": asdict(tw.evaluate.density(trained.energy, toy, grid=400)),
        "energy_distance": asdict(tw.evaluate.energy_distance_interval(samples, exact)),
    }


def show(row: Row) -> str:
    d, e = row["density"], row["energy_distance"]
    return (
        f"{row['method']:10} {row['toy']:13} seed {row['seed']}  {row['cpu_seconds']:6.1f} s  KL {d['kl_truth_model']:.4f}  "
        f"TV {d['total_variation']:.3f}  missing {d['modes_missing']}  energy distance {e['value']:.5f} ± {e['standard_error']:.5f}"
    )


def summary(mine: list[Row]) -> Row:
    kl, modes = ([row["density"][key] for row in mine] for key in ("kl_truth_model", "modes_missing"))
    return {
        "method": mine[0]["method"],
        "toy": mine[0]["toy"],
        "kl_truth_model": statistics.median(kl),
        "kl_worst_seed": max(kl),
        "total_variation": statistics.median(row["density"]["total_variation"] for row in mine),
        "modes_missing": max(modes),
        "energy_distance": statistics.median(row["energy_distance"]["value"] for row in mine),
        "cpu_seconds": statistics.median(row["cpu_seconds"] for row in mine),
    }


def run(options: Options) -> dict:
    models = [(method, toy) for method in options.methods for toy in options.toys]
    jobs = [(*model, seed) for model in models for seed in range(options.seeds)]
    rows = rows_of_jobs("studies.checks.density", jobs, arguments=["--one"], work=options.work, workers=options.jobs, show=show)
    medians = [summary([row for row in rows if (row["method"], row["toy"]) == model]) for model in models]
    print("\n" + table(medians))
    return {"budget_cpu_seconds": BUDGET, "threads": 1, "jobs": options.jobs, "medians": medians, "runs": rows}


COLUMNS = (
    "toy | KL(truth‖model), nats = kl_truth_model:.4f | worst seed = kl_worst_seed:.4f | total variation = total_variation:.3f | "
    "modes missing = modes_missing | energy distance = energy_distance:.5f | CPU seconds = cpu_seconds:.0f"
)
INTRO = "short_run presets, one thread, medians over 3 seeds, both densities normalised on a 400² grid."
PAGE = [Section("Densities", [Shown("density", [Table(COLUMNS, "medians")])], INTRO)]
OWN = dict(methods=["short_run"], toys=list(TOYS), seeds=3, jobs=1, work=Path("runs/check_density"))
CHECK = Check("density", __doc__, run, OWN, one)

if __name__ == "__main__":
    CHECK.main()
