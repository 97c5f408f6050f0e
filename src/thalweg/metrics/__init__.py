"""What `thalweg evaluate` measures: one entry a metric, each of them for every model that has the abilities. Knows no method by name."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from thalweg import checkpoint
from thalweg.data.prepare import Given, trained_name
from thalweg.errors import InputError, nearest
from thalweg.methods.base import Method
from thalweg.metrics import classes, cost, images, latents, likelihood, objects, outliers, toys, vectors
from thalweg.metrics.base import Metric, Row, Settings, Subject, data_kind, line
from thalweg.progress import Work
from thalweg.tasks.table import TASKS

__all__ = [
    "METRICS",
    "Metric",
    "Row",
    "Settings",
    "Subject",
    "best",
    "check_metrics",
    "chosen",
    "compare",
    "data_kind",
    "headlines",
    "is_refused",
    "line",
    "measure",
    "merged",
    "rows",
    "write_results",
]

_IMAGES = ("images", "stacks")

# fmt: off
METRICS: dict[str, Metric] = {
    "density":     Metric(toys.density, toys.density_rows, ("energy",), ("toy",)),
    "vectors":     Metric(vectors.vectors, vectors.vectors_rows, ("sample",), ("vectors",)),
    "accuracy":    Metric(classes.accuracy, classes.accuracy_rows, TASKS["classify"].needs, (*_IMAGES, "vectors")),
    "calibration": Metric(classes.calibration, classes.calibration_rows, TASKS["classify"].needs, (*_IMAGES, "vectors")),
    "fidelity":    Metric(images.fidelity, images.fidelity_rows, ("sample",), ("images",)),
    "neighbours":  Metric(images.neighbours, images.neighbours_rows, ("sample",), ("images",)),
    "ood":         Metric(outliers.ood, outliers.ood_rows, TASKS["detect"].needs, _IMAGES),
    "modes":       Metric(images.modes, images.modes_rows, ("sample",), ("stacks",)),
    "views":       Metric(objects.views, objects.views_rows, TASKS["views"].needs),
    "cost":        Metric(cost.cost, cost.cost_rows, ("sample",)),
    "robustness":  Metric(classes.robustness, classes.robustness_rows, TASKS["classify"].needs, _IMAGES, automatic=False),
    "restoration": Metric(images.restoration, images.restoration_rows, TASKS["denoise"].needs, _IMAGES, automatic=False),
    "latents":     Metric(latents.latents, latents.latents_rows, ("encode",), _IMAGES, labelled=True, automatic=False),
    "likelihood":  Metric(likelihood.likelihood, likelihood.likelihood_rows, ("energy",), automatic=False),
}
# fmt: on

HEADLINES = 5
# whose rows stand at the head of a report: those that say what they mean, one at each mention of their metric
FIRST = (
    "fidelity", "density", "modes", "vectors", "views", "likelihood", "accuracy", "fidelity", "latents", "ood", "neighbours",
    "density", "density", "modes", "latents", "density", "calibration", "restoration", "cost",
)  # fmt: skip


def check_metrics(wanted: str) -> tuple[str, ...]:
    """Metric names from a comma-separated list; "auto" is all quick ones that fit, "all" all that fit."""
    names = tuple(part.strip() for part in wanted.split(","))
    for name in names:
        if name not in METRICS and (name not in ("auto", "all") or len(names) > 1):
            raise InputError(f"unknown metric '{name}'{nearest(name, METRICS)}. Metrics: {', '.join(METRICS)}, auto, all")
    return names


def chosen(method: Method, wanted: tuple[str, ...], given: Given | None = None) -> tuple[str, ...]:
    """The metrics to measure of one model, on its data or those `given`; InputError names one that does not fit."""
    fitting = tuple(name for name, metric in METRICS.items() if metric.fits(method, given))
    if wanted in (("auto",), ("all",)):
        quick = tuple(name for name in fitting if METRICS[name].automatic)
        if not fitting:
            raise InputError(f"no figure is for {method.name} on {trained_name(method)}")
        return quick if quick and wanted == ("auto",) else fitting  # of an encoder all are slow: better those than none
    if bad := [name for name in wanted if name not in fitting]:
        raise InputError(
            f"metric '{bad[0]}' does not fit {method.name} on {trained_name(method)}; fitting are: {', '.join(fitting) or 'none'}"
        )
    return wanted


def measure(subject: Subject, wanted: tuple[str, ...]) -> dict[str, Any]:
    """The figures of one model by metric, with what was held equal.

    Where a metric refuses or fails, {"refused": why} stands in its place. InputError where all do.
    """
    results: dict[str, Any] = {"settings": asdict(subject.settings)}
    names = chosen(subject.method, wanted, subject.data)
    automatic = wanted in (("auto",), ("all",)) and subject.settings.extractor == "classifier" and "fidelity" in names
    if automatic and _unlabelled(subject):
        print("fidelity left out: no labels to train a classifier on; --extractor efficientnet-lite0 needs none", file=sys.stderr)
        names = tuple(name for name in names if name != "fidelity")
    refused: list[InputError] = []
    with Work("measuring") as work:
        for number, name in enumerate(names):
            work.note(number / len(names), f"measuring {name}, {number + 1} of {len(names)}")
            try:
                results[name] = METRICS[name].measure(subject)
            except InputError as error:
                refused.append(error)
                results[name] = {"refused": str(error)}
            except Exception as error:  # one metric's fault must not take the others' figures with it
                refused.append(InputError(f"{name} failed: {type(error).__name__}: {error}"))
                results[name] = {"refused": str(refused[-1])}
    if names and len(refused) == len(names):
        raise refused[0]
    return results


def _unlabelled(subject: Subject) -> bool:
    try:
        return subject.test.label is None
    except InputError:  # each metric says so itself, some do without
        return False


def is_refused(found: Any) -> bool:
    """Whether a metric gave a reason instead of figures."""
    return isinstance(found, dict) and set(found) == {"refused"}


def rows(results: dict[str, Any]) -> list[Row]:
    """All figures as lines of a table; of a metric that refused, why."""
    table = []
    for name, metric in METRICS.items():
        if name in results:
            found = results[name]
            table += [Row(name, "–", found["refused"])] if is_refused(found) else metric.rows(found)
    return table


def headlines(results: dict[str, Any]) -> list[Row]:
    """The few figures by which a model is judged at a glance, each with what it means, and its floor where there is one."""
    said = {
        name: [row for row in metric.rows(results[name]) if row.about]
        for name, metric in METRICS.items()
        if name in results and not is_refused(results[name])
    }
    found = [said[name].pop(0) for name in FIRST if said.get(name)]
    return found[:HEADLINES]


def merged(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Figures `now` with those of `before` that were not made again, if they are of the same state of the run.

    `measured` says of each metric under which settings it was made. A refusal takes the place of no figures.
    """
    if before.get("state") != now.get("state"):
        return now
    better = {name: name not in now or (is_refused(now[name]) and not is_refused(before[name])) for name in METRICS if name in before}
    kept = {name: before[name] for name, stays in better.items() if stays}
    return now | kept | {"measured": now["measured"] | {name: before.get("measured", {}).get(name) for name in kept}}


def compare(results: dict[str, dict[str, Any]]) -> list[tuple[str, list[Row | None]]]:
    """One line a figure, with each model's row in it (None where it lacks that figure); the models must share data and settings."""
    tables = {model: {row.name: row for row in rows(found)} for model, found in results.items()}
    names = dict.fromkeys(name for table in tables.values() for name in table)
    return [(name, [table.get(name) for table in tables.values()]) for name in names]


def best(row: list[Row | None]) -> set[int]:
    """Which columns of a comparison hold the best value; none where neither direction is better or all are equal."""
    given = [(one.value if one.better == "up" else -one.value, i) for i, one in enumerate(row) if one is not None and one.better]
    if len({value for value, _ in given}) < 2:
        return set()
    top = max(value for value, _ in given)
    return {i for value, i in given if value == top}


def write_results(path: Path, results: dict[str, Any]) -> None:
    """All figures as a JSON file, written whole or not at all."""
    checkpoint.write_bytes(path, (json.dumps(results, indent=2) + "\n").encode())
