"""Ablation of CDRL on digits at equal CPU time: the rows of Tables 5.9 and 5.10 of the thesis, and the steps of Table 5.2.

Every row trains the same networks (`cdrl/digits`, 256 wide, eager, constant rate) for the same CPU seconds of one thread with the
row's change, each seed in a process of its own. Reported: the Fréchet distance of 359 samples in the features of the digits' own
classifier, averaged over draws, paired with the full model's at the same seed; `holds` where the mean difference has the paper's
sign by more than two standard errors over seeds. The full models are then sampled with fewer steps a level.

    python -m studies.cdrl_ablation --out studies/results/study_cdrl.json --jobs 2
"""

import argparse
import json
import math
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

SHARED = dict(width=256, initializer_width=256, decay=False)
FULL = "full"
# row: (fields, the paper's FID on CIFAR-10); none for T = 4, which did not converge, and for the last row, which the paper does not have
ROWS: dict[str, tuple[dict, float | None]] = {
    FULL: ({}, 4.31),
    "DRL: no initializer, its schedule, 30 steps, independent pairs": (
        dict(initializer=False, schedule="drl", steps=30, variance_reduction=False), 9.58,
    ),
    "no cooperation: no initializer, 30 steps": (dict(initializer=False, steps=30), 6.47),
    "no variance reduction": (dict(variance_reduction=False), 5.51),
    "initializer predicts x0": (dict(predict="x0"), 5.17),
    "initializer predicts noise": (dict(predict="noise"), 4.95),
    "DRL's schedule, T = 8": (dict(schedule="drl", levels=8), 4.94),
    "initializer learns from y": (dict(learn_from="data"), 5.95),
    "T = 4": (dict(levels=4), None),
    "T = 5": (dict(levels=5), 5.08),
    "K = 10": (dict(steps=10), 4.50),
    "K = 30": (dict(steps=30), 5.08),
    "scalar read-out (the paper's form)": (dict(readout="scalar", weight_power=1.0), None),
}  # fmt: skip
STEPS = {15: 4.31, 8: 4.58, 5: 5.37, 3: 9.67}
DRAWS = 4


def frechet(samples, train, held_out, extractor) -> tuple[float, float]:
    """The Fréchet distance of samples [N, ...] to the training images, and that of held-out images; samples must be finite."""
    import thalweg as tw

    found = tw.evaluate.fidelity(train, samples, extractor, held_out=held_out, metrics=("frechet",)).frechet
    return found.value, found.held_out


def draws(model, train, held_out, extractor, seed: int, **options) -> dict:
    """Mean Fréchet distance and CPU seconds of `DRAWS` sets of samples, as many in each as there are held-out images."""
    import torch

    values, seconds, floor = [], [], None
    for draw in range(DRAWS):
        started = time.process_time()
        x = model.sample(len(held_out), seed=1000 * seed + draw + 1, **options)
        seconds.append(time.process_time() - started)
        if not bool(torch.isfinite(x).all()):
            return {"frechet": None, "floor": None, "seconds": statistics.median(seconds)}
        value, floor = frechet(x, train, held_out, extractor)
        values.append(value)
    return {"frechet": statistics.fmean(values), "floor": floor, "seconds": statistics.median(seconds)}


def one(row: str, seed: int, budget: float) -> dict:
    """Train and measure one row; called in a process of its own."""
    import tempfile

    import torch

    torch.set_num_threads(1)
    import thalweg as tw
    from thalweg.checkpoint import read_stats
    from thalweg.errors import Diverged

    train, held_out = tw.data.load("digits", "train"), tw.data.load("digits", "test").all().x
    extractor = tw.evaluate.extractor("digits")
    model = tw.method("cdrl/digits", seed=seed, data=train, **{**SHARED, **ROWS[row][0]})
    figures: dict = {"row": row, "seed": seed, "diverged": None, "frechet": None, "parameters": sum(p.numel() for p in model.parameters())}
    options = dict(images=10**8, log_every=2560, sample_every=10**8, save_every=25_600, clock=time.process_time, progress=False)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        started = time.process_time()
        try:
            trained = tw.fit(model, train, folder, seed=seed, seconds=budget, precision="bf16", **options)
        except Diverged as trouble:
            return figures | {"diverged": str(trouble)}
        figures["cpu_seconds"] = round(time.process_time() - started, 1)
        stats = read_stats(folder)
        figures["images"] = max(r["images"] for r in stats)
        figures["guard_events"] = sum("event" in r for r in stats)
    with torch.autocast("cpu", torch.bfloat16):
        figures |= draws(trained, train.all().x, held_out, extractor, seed)
        if row == FULL:
            figures["steps"] = {n: draws(trained, train.all().x, held_out, extractor, seed, steps=n) for n in STEPS}
            for use in ("initializer", "energy"):
                figures[f"{use}_only"] = draws(trained, train.all().x, held_out, extractor, seed, use=use)
    return figures


def show(row: dict) -> str:
    return f"{row['row']:64} seed {row['seed']}  images {row.get('images')}  Fréchet {row['frechet']}  {row['diverged'] or ''}"


def summary(rows: list[dict]) -> list[dict]:
    """One line a row: mean Fréchet distance, the paired difference from the full model, its standard error, and whether the order holds."""
    full = {r["seed"]: r["frechet"] for r in rows if r["row"] == FULL}
    lines = []
    for name, (_, paper) in ROWS.items():
        mine = {r["seed"]: r["frechet"] for r in rows if r["row"] == name}
        values = [v for v in mine.values() if v is not None]
        pairs = [v - full[s] for s, v in mine.items() if v is not None and full[s] is not None]
        line = {
            "row": name, "paper_fid": paper, "frechet": statistics.fmean(values) if values else None, "seeds": len(mine),
            "failed": len(mine) - len(values), "images": statistics.fmean(r.get("images", 0) for r in rows if r["row"] == name),
            "difference": None, "standard_error": None, "holds": None,
        }  # fmt: skip
        if name != FULL and len(pairs) > 1:
            line["difference"] = statistics.fmean(pairs)
            line["standard_error"] = statistics.stdev(pairs) / math.sqrt(len(pairs))
            # every row of the paper is worse than the full model
            far = abs(line["difference"]) > 2 * line["standard_error"]
            line["holds"] = "yes" if far and line["difference"] > 0 else "reversed" if far else "undecided"
        lines.append(line)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="studies/results/study_cdrl.json")
    parser.add_argument("--work", type=Path, default=Path("runs/study_cdrl"), help="folder of what was found so far")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=90.0, help="CPU seconds of training a row")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time; keep it at or below the number of cores")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS), metavar="ROW")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        row, seed, budget = options.one
        print(json.dumps(one(row, int(seed), float(budget))))
        return
    from studies.runner import rows_of_jobs, table, write_results

    started = time.monotonic()
    jobs = [(row, seed, options.seconds) for seed in range(options.seeds) for row in options.rows]
    rows = rows_of_jobs("studies.cdrl_ablation", jobs, arguments=["--one"], work=options.work, workers=options.jobs, show=show)
    lines = summary(rows)
    print("\n" + table([{k: v for k, v in line.items() if k != "failed"} for line in lines]))
    full = [r for r in rows if r["row"] == FULL and r["frechet"] is not None]
    ways = {f"{n} steps": [r["steps"][str(n)] for r in full] for n in STEPS}
    ways |= {f"{use} only": [r[f"{use}_only"] for r in full] for use in ("initializer", "energy")}
    sampling = {
        name: {
            "frechet": statistics.fmean(f["frechet"] for f in found),
            "ratio": statistics.fmean(f["frechet"] / r["frechet"] for f, r in zip(found, full)),
            "time": statistics.median(f["seconds"] / r["seconds"] for f, r in zip(found, full)),
        }
        for name, found in ways.items()
        if found and all(f["frechet"] is not None for f in found)
    }
    print("\n" + table([{"samples by": name, **figures} for name, figures in sampling.items()]))
    results = {
        "floor": next((r["floor"] for r in rows if r["frechet"] is not None), None),
        "seeds": options.seeds,
        "sampling": sampling,
        "budget_cpu_seconds": options.seconds,
        "threads": 1,
        "jobs": options.jobs,
        "shared": SHARED,
        "summary": lines,
        "runs": rows,
    }
    print(write_results(options.out, results, seed=0, seconds=time.monotonic() - started))


if __name__ == "__main__":
    main()
