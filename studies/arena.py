"""The arena: every method on the same data at the same price, beside a diffusion model, a GAN and a flow.

    python -m studies.arena dual egc --jobs 2
    python -m studies.arena --data digits --seconds 600 --seeds 3 --jobs 2
    python -m studies.arena dual --run runs/dual

A row is trained for `--seconds` of CPU time of one thread, 7,200 by default, at the preset that is named here, and measured on `--n`
samples. With `--run` a run that was trained before is measured instead. Rows join studies/results/arena.json: those of the same name,
data and seed are replaced, the others stay, each with the machine that it was found on.
"""

import argparse
import datetime
import json
import multiprocessing
import shlex
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import thalweg as tw
from studies.coopflow import bits_of
from studies.measures import SIGMAS, noise_errors
from studies.runner import Row, file_of, machine, versions
from studies.tables import RESULTS, Each, Picture, Section, Shown, Table
from thalweg.arena.compare import place
from thalweg.arena.entrants import Entrant
from thalweg.arena.row import Plan, measured, measured_run
from thalweg.data.prepare import image_size
from thalweg.methods import preset, presets_of

SHORTER = "short_run, a tenth as long"  # at a price of its own, --seconds, when it is named
# by row: the method's preset, to which the data's name is added, and fields that it changes
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "dual": ("dual", {}),
    "dual by label": ("dual/{data}-conditional", {}),
    "egc": ("egc", {}),
    "egc given labels": ("egc/{data}-conditional", {}),
    "egc unsupervised": ("egc/{data}-unsupervised", {}),
    "cdrl": ("cdrl", {}),
    "ddaebm": ("ddaebm", {}),
    "short_run": ("short_run", {}),
    SHORTER: ("short_run", {}),
    "short_run persistent": ("short_run/{data}-persistent", {}),
    "short_run from data": ("short_run/{data}-data", {}),
    "jem": ("jem", {}),
    "coopflow": ("coopflow", {}),
    "cf_ebm": ("cf_ebm", {}),
    "liebm": ("liebm", {}),
    "ddpm": ("ddpm", {}),
    "ddpm by label": ("ddpm/{data}-conditional", {}),
    "wgan_gp": ("wgan_gp", {}),
    "flow": ("coopflow", {"chain.steps": 0}),
}
OUTLIERS = {"fashion-mnist": ("mnist-small",)}


def entrant(name: str, data: str) -> Entrant:
    """The row of a name on a data set."""
    preset, fields = ROWS[name]
    return Entrant(name, preset.format(data=data) if "/" in preset else f"{preset}/{data}", fields)


def plan_of(options: argparse.Namespace) -> Plan:
    return Plan(
        options.data, seconds=options.seconds, n=options.n, precision=options.precision, outliers=OUTLIERS.get(options.data, ())
    )  # fmt: skip


def one(name: str, seed: int, options: argparse.Namespace) -> Row:
    """A row, trained at the price; its pictures go to docs/images."""
    torch.set_num_threads(1)
    plan, who = plan_of(options), entrant(name, options.data)
    folder = place(options.work / options.data, who, seed)
    if options.run is not None:
        model = tw.load(options.run)
        row: Row = {"method": name, "preset": who.preset, "fields": changes(model, who.preset), "data": options.data, "seed": seed}
        row |= {"folder": folder.name} | measured_run(model, options.run, plan, seed)
        folder = options.run
    else:
        row = measured(who, seed, plan, folder, progress=options.jobs == 1)
    if "images" in row and row.get("noise_error") is None:
        row["noise_error"] = errors_by_level(tw.load(folder), options)
    if name == "flow" and "images" in row:
        test = tw.data.load(options.data, "test", size=image_size(tw.load(folder).config.shape)).all()
        found = bits_of(tw.load(folder), test.x, seed)
        row |= {"bits": found["bits_of_several"], "bits_by_one_draw": found["bits_per_dim"]}
    if not seed:
        for kind in ("samples", "guided_samples", "neighbours"):
            if (path := folder / "report" / f"{kind}.png").exists():
                shutil.copy(path, options.pictures / file_of("arena", options.data, name, kind))
    return row | {"command": options.command, "machine": machine(), "versions": versions(), "date": today()}


def changes(model: Any, name: str) -> dict[str, Any]:
    """The fields of a trained model that are not its preset's, but for the length of its training."""
    own, asked = (asdict(config) for config in (model.config, preset(name)[1]))
    return {key: value for key, value in own.items() if key not in ("images", "calibration") and value != asked[key]}


def errors_by_level(model: Any, options: argparse.Namespace) -> dict[str, float | None] | None:
    """Mean squared error of the predicted noise by σ on test images; None for a model that does not denoise."""
    if "denoise" not in model.abilities:
        return None
    test = tw.data.load(options.data, "test", size=image_size(model.config.shape)).all()
    return noise_errors(model, test.x[:1000], options.precision)


def today() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def join(path: Path, rows: list[Row]) -> None:
    """Put rows among those of the file, in place of those of the same name, data and seed."""
    before = json.loads(path.read_text())["results"]["rows"] if path.exists() else []
    key = lambda row: (row["data"], list(ROWS).index(row["method"]), row["seed"])  # noqa: E731
    new = {key(row): row for row in rows}
    kept = [row for row in before if row["method"] in ROWS and key(row) not in new]
    joined = sorted([*kept, *new.values()], key=key)
    record = {
        "command": joined[-1]["command"], "date": today(), "seed": 0, "seconds": sum(row.get("cpu_seconds", 0) for row in joined),
        "machine": machine(), "versions": versions(), "results": {"rows": joined},
    }  # fmt: skip
    path.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    made.add_argument("--data", default="fashion-mnist")
    made.add_argument("--seconds", type=float, default=7200, help="CPU seconds of one thread for a training")
    made.add_argument("--seeds", type=int, default=1)
    made.add_argument("--n", type=int, default=5000, help="samples that are measured")
    made.add_argument("--precision", default="bf16", choices=("fp32", "bf16"))
    made.add_argument("--jobs", type=int, default=1, help="trainings at the same time; keep it at or below the number of cores")
    made.add_argument("--run", type=Path, help="a trained run of the one row that is named")
    made.add_argument("--work", type=Path, default=Path("runs/arena"), help="folder of the runs")
    made.add_argument("--out", type=Path, default=RESULTS / "arena.json")
    made.add_argument("--pictures", type=Path, default=RESULTS.parents[1] / "docs" / "images")
    return made


def main() -> None:
    options = parser().parse_args()
    if unknown := [name for name in options.rows if name not in ROWS]:
        parser().error(f"unknown row '{unknown[0]}': {', '.join(ROWS)}")
    if options.run is not None and len(options.rows) != 1:
        parser().error("--run is of one row: name it")
    options.command = shlex.join(["python", "-m", "studies.arena", *sys.argv[1:]])
    names = options.rows or [name for name in ROWS if has_preset(name, options.data) and name != SHORTER]
    jobs = [(name, seed) for seed in range(options.seeds) for name in names]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=spawn, max_tasks_per_child=1) as pool:
        for found in [pool.submit(one, name, seed, options) for name, seed in jobs]:
            row = found.result()
            short = {
                key: row.get(key) for key in ("method", "seed", "frechet", "guided", "bits", "images", "cpu_seconds", "refused", "diverged")
            }
            print(json.dumps({key: value for key, value in short.items() if value is not None}), flush=True)
            if "refused" not in row:
                join(options.out, [row])


def has_preset(name: str, data: str) -> bool:
    """Whether the row's method has a preset of its own for the data."""
    method, _, preset = entrant(name, data).preset.partition("/")
    return preset in presets_of(tw.methods.find(method))


# --- the page


def of_data(values: Any) -> list[Any]:
    """The rows by data set, for a table each, and those of models that denoise."""
    rows = [line(row) for row in values["results"]["rows"]]
    found = {data: [row for row in rows if row["data"] == data] for data in dict.fromkeys(row["data"] for row in rows)}
    return [{"set": data, "rows": mine, "levels": [row for row in mine if row.get("noise_error")]} for data, mine in found.items()]


def line(row: Row) -> Row:
    """A row of the page: figures that a method lacks are None; one that was trained for less than half of the price is too short."""
    outliers = row.get("outliers") or {}
    kinds = {key: value for key, value in outliers.items() if key not in ("score", "mean")}
    least = min(kinds, key=kinds.get) if kinds else None
    share = row.get("cpu_seconds", 0) / row["price"] if row.get("price") else None
    return row | {
        "length": None if share is None else f"{row['cpu_seconds']:,.0f}" + (" (too short)" if share < 0.5 else ""),
        "worst": None if least is None else f"{kinds[least]:.3f} ({least})",
        "ways": None if not row.get("flow") else f"{row['flow']['difference']:+.1f} ± {row['flow']['standard_error']:.1f}",
        "fate": row.get("diverged", ""),
    }  # fmt: skip


COLUMNS = (
    "row = method | Fréchet = frechet:.2f | floor = floor:.2f | by label = guided:.2f | KID = kid:.3g | precision = precision:.3f | "
    "recall = recall:.3f | bits = bits:.3f | nats by the flow less own = ways | "
    "accuracy = accuracy:.1f % | hardest outliers = worst | evaluations = evaluations:.0f | "
    "CPU s a sample = cpu_seconds_sample:.2g | parameters = parameters:, | images = images:, | CPU s = length | guard = guard_events"
)
ERRORS = [
    ("row", "method"),
    *((f"σ = {sigma:g}", (lambda key: lambda row: row["noise_error"].get(key))(f"{sigma:g}"), ".4f") for sigma in SIGMAS),
]
PAGE = [
    Section(
        "The arena",
        [
            Shown(
                "arena",
                [
                    Each(
                        of_data,
                        [
                            "**{set}**: Fréchet distance, KID, precision and recall of {rows[0][n]:,} samples in the features of a "
                            "classifier of the data; the floor is that of as many real test images. Outliers: AUROC of the hardest kind.",
                            Table(COLUMNS, "rows"),
                            "Mean squared error of the predicted noise, a pixel, by σ (images in [−1, 1]) on test images; 1 is no better "
                            "than predicting none.",
                            Table(ERRORS, "levels"),
                        ],
                    ),
                    "{source}",
                    Picture("{words}", "arena_*_samples.png"),
                ],
            )
        ],
        "The price of a row is 7,200 CPU seconds of one thread (`python -m studies.arena ROW`); what was spent stands in its line. "
        "Digits have 480, in fp32 on a CPU with AVX2 alone, in which `jem` and `cf_ebm` saw a quarter of their presets' images "
        "and `ddaebm` an eighth: too short for the last two. No sample copies a digit, but of `liebm` and `ddpm` 40 and 34 % "
        "lie nearer to training images than 95 % of new digits do (5 % expected), a sign of learning by heart. Errors above 1 "
        "of `cdrl` at low noise say that its energy of a level alone is not that of noised images. "
        "One seed, the row's own preset; what an earlier run (`--run`) changed of it is in the results (dual by label: a rate of 0.002). "
        "The flow's bits bound its own from above, by the mean probability of eight noises within the bins of grey values.",
    )
]

if __name__ == "__main__":
    main()
