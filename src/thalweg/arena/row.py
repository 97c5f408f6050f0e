"""One row of a comparison: a training at the price, on the way quality over time, and at its end all figures."""

import dataclasses
import json
import statistics
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thalweg import checkpoint, metrics, plot
from thalweg.arena.entrants import Entrant
from thalweg.arena.price import Clock, images_for
from thalweg.data import load
from thalweg.data.door import of
from thalweg.data.prepare import prepare
from thalweg.drawing import draw
from thalweg.errors import Diverged, InputError
from thalweg.evaluate import fidelity
from thalweg.methods import method, preset
from thalweg.methods.base import has
from thalweg.metrics.outliers import OUTLIERS
from thalweg.precision import autocast
from thalweg.train import fit

PARTS = 16  # of a training; quality is looked at after 1, 2, 4, 8 of them and at the end
LOOKS = 1000  # samples at each look, at most
AT_ONCE = 250  # samples, so few that caches hold them
LATE = 1.25  # times the price: where a training that is slower than its first steps said is cut off
Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What all rows of a comparison share.

    `data`: a name or path, or {"train": …, "test": …} with what `tw.data.of` takes. `seconds`: the price of a training. `n`: samples that
    are measured. `size`: side that images are brought to. `outliers`: data sets of the same size that outliers also come from.
    `curve`: look at quality on the way.
    """

    data: str | Mapping[str, Any]
    seconds: float = 300.0
    n: int = 1000
    precision: str = "fp32"
    device: str = "cpu"
    size: int | None = None
    outliers: tuple[str, ...] = ()
    curve: bool = True

    def told(self) -> dict[str, Any]:
        """As JSON holds it."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return fields | {"data": self.data if isinstance(self.data, str) else "data of one's own", "outliers": list(self.outliers)}

    def train_data(self, config: Any = None) -> Any:
        """The examples for training, as a model of `config` takes them."""
        if not isinstance(self.data, str):
            return of(self.data["train"])
        if config is None:
            return load(self.data, "train", size=self.size)
        return prepare(config, self.data, "train", size=self.size, device=self.device)


def measured(entrant: Entrant, seed: int, plan: Plan, folder: Path, *, progress: bool = True) -> Row:
    """The row of an entrant at a seed, from `folder` where it is there; a training that was cut off goes on.

    A model that diverges for good, or is refused, is a row too, which says why under "diverged" or "refused". Raises InputError for a row
    there of other settings.
    """
    path = beside(folder, "row.json")
    if path.exists():
        kept = json.loads(path.read_text())
        if kept.get("settings", plan.told()) != plan.told():
            raise InputError(f"{path} was measured with other settings {kept['settings']}; name another folder")
        return kept
    path.parent.mkdir(parents=True, exist_ok=True)
    row: Row = {"method": entrant.name, "preset": entrant.preset, "fields": dict(entrant.fields), "data": plan.told()["data"], "seed": seed}
    row["folder"] = folder.name
    try:
        row |= _trained_and_measured(entrant, seed, plan, folder, progress)
    except Diverged as trouble:
        row["diverged"] = str(trouble)
    except InputError as trouble:
        return row | {"refused": str(trouble)}  # not kept: what was wrong may be mended
    except Exception as trouble:  # one method's fault must not take the others' rows with it
        traceback.print_exc()
        return row | {"refused": f"it failed: {type(trouble).__name__}: {trouble}"}
    checkpoint.write_bytes(path, (json.dumps(row, indent=1) + "\n").encode())
    return row


def beside(folder: Path, name: str) -> Path:
    """Where a file about a run is: rows/RUN.NAME next to the run's folder, which holds nothing but the run."""
    return folder.parent / "rows" / f"{folder.name}.{name}"


def _trained_and_measured(entrant: Entrant, seed: int, plan: Plan, folder: Path, progress: bool) -> Row:
    _, config = preset(entrant.preset)
    data = plan.train_data(config)
    model = method(entrant.preset, seed=seed, data=data, **entrant.fields)
    kept = beside(folder, "price.json")
    if not kept.exists():  # a training that goes on must have the length that it began with
        trial = method(entrant.preset, seed=seed, data=data, **{**entrant.fields, "images": 1})
        images = images_for(trial, data, plan.seconds, precision=plan.precision, device=plan.device, seed=seed)
        checkpoint.write_bytes(kept, json.dumps({"images": images}).encode())
    images = json.loads(kept.read_text())["images"]
    model = method(entrant.preset, seed=seed, data=data, **{**entrant.fields, "images": images})

    clock, settings = Clock(plan.device), metrics.Settings(n=plan.n, seed=seed, outliers=plan.outliers, ood_images=1000)
    given = None if isinstance(plan.data, str) else plan.data
    looks = beside(folder, "looks.jsonl")
    every = max(model.config.batch, images // PARTS)

    def look(twin: Any, path: Path, seen: int) -> None:
        if plan.curve and seen // every in (1, 2, 4, 8) and seen < images:
            with clock.stopped(), open(looks, "a") as file:
                file.write(json.dumps({"images": seen} | _looked_at(metrics.Subject(twin, settings, data=given), path)) + "\n")

    twin = fit(
        model, data, folder, images=images, seconds=LATE * plan.seconds, seed=seed, device=plan.device, precision=plan.precision,
        picture=look, sample_every=every, progress=progress, clock=clock,
    ).eval()  # fmt: skip
    return measured_run(twin, folder, plan, seed)


def measured_run(twin: Any, folder: Path, plan: Plan, seed: int = 0) -> Row:
    """The figures of a trained model, whose run is in `folder`; pictures and metrics.json go there too."""
    given = None if isinstance(plan.data, str) else plan.data
    subject = metrics.Subject(
        twin, metrics.Settings(n=plan.n, seed=seed, outliers=plan.outliers, ood_images=1000), folder / "report", data=given
    )
    with autocast(plan.precision, plan.device):  # as it was trained
        started = time.process_time()
        subject.__dict__["samples"] = _drawn(twin, plan.n, seed)
        sample_seconds = (time.process_time() - started) / plan.n
        if subject.takes_labels:
            subject.__dict__["guided"] = _drawn(twin, plan.n, seed, label=subject.asked)
    names = metrics.chosen(twin, ("auto",), given)
    if has(twin, "normalised") and metrics.METRICS["likelihood"].fits(twin, given):
        names = (*names, "likelihood")
    found = metrics.measure(subject, tuple(name for name in names if name != "calibration"))
    metrics.write_results(folder / "metrics.json", found)
    trained = _training(folder)
    last = {key: trained[key] for key in ("images", "cpu_seconds")} | {"value": _headline(subject)}
    curve = [*_looks(beside(folder, "looks.jsonl"), folder), last]
    row = trained | figures(found) | {"cpu_seconds_sample": sample_seconds, "price": plan.seconds, "curve": curve}
    return row | {"settings": plan.told(), "batch": twin.config.batch}


def _drawn(twin: Any, n: int, seed: int, label: Tensor | None = None) -> Tensor:
    """`n` samples, by label where there is one."""
    asked = {} if label is None else {"label": label}
    return draw(twin, n, seed=seed, at_once=AT_ONCE, **asked, **twin.starts(n, seed)).float()


def _training(folder: Path) -> Row:
    """Of a run's folder: how long it was, and how often the guard stepped in."""
    state, stats = checkpoint.latest(folder), checkpoint.read_stats(folder)
    assert state is not None  # the training has just ended
    return {
        "images": state["images"], "updates": state["updates"], "cpu_seconds": round(state["elapsed"], 1),
        "guard_events": sum("event" in row for row in stats),
    }  # fmt: skip


def _looked_at(subject: metrics.Subject, path: Path) -> Row:
    """The figure by which quality is followed, of few samples, whose picture is kept."""
    few = min(LOOKS, subject.settings.n)
    subject.__dict__["samples"] = _drawn(subject.method, few, subject.settings.seed)
    if subject.samples.dim() == 4:
        plot.grid(subject.samples[:64], path, columns=8)
    return {"value": _headline(subject)}


def _headline(s: metrics.Subject) -> float | None:
    """Fréchet distance of images, KL(truth‖model) of a toy's energy, energy distance of other vectors; None where there is none."""
    kind, x = metrics.data_kind(s.method, s.data), s.samples[:LOOKS]
    if not x.isfinite().all():
        return None
    with torch.autocast("cpu", enabled=False):
        if kind == "toy" and has(s.method, "energy"):
            return float(metrics.METRICS["density"].measure(s)["density"]["kl_truth_model"])
        if kind == "images":
            try:
                return fidelity(
                    s.train.x, x, s.extractor, held_out=s.test.x, metrics=("frechet",), n=min(len(x), len(s.test.x))
                ).frechet.value
            except InputError:  # data without labels have no extractor of their own
                return None
        return float(metrics.METRICS["vectors"].measure(s)["energy_distance"]["value"]) if kind == "vectors" else None


def _looks(path: Path, folder: Path) -> list[Row]:
    """The looks of a run by images, each with the CPU seconds up to it."""
    if not path.exists():
        return []
    found = {row["images"]: row for row in map(json.loads, path.read_text().splitlines())}  # one was made twice where a run went on
    times = [(row["images"], row["seconds"]) for row in checkpoint.read_stats(folder) if "seconds" in row]
    return [row | {"cpu_seconds": max((s for i, s in times if i <= images), default=None)} for images, row in sorted(found.items())]


def figures(found: Mapping[str, Any]) -> Row:
    """The figures of a comparison from those of all metrics; None where a model lacks one."""

    def at(*path: str) -> Any:
        value: Any = found
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    row: Row = {
        "frechet": at("fidelity", "samples", "frechet", "value"), "floor": at("fidelity", "samples", "frechet", "held_out"),
        **{key: at("fidelity", "samples", key, "value") for key in ("kid", "precision", "recall")},
        "n": at("fidelity", "samples", "n"),
        "guided": at("fidelity", "guided samples", "frechet", "value"), "class_accuracy": at("fidelity", "class_accuracy", "value"),
        "closer": at("neighbours", "closer"), "copies": at("neighbours", "copies"),
        "kl": at("density", "density", "kl_truth_model"), "log_z": at("density", "density", "log_z"),
        "energy_distance": at("density", "energy_distance", "value") or at("vectors", "energy_distance", "value"),
        "modes_missing": at("density", "density", "modes_missing"),
        "nats": at("likelihood", "log_likelihood", "value", "value"), "bits": at("likelihood", "log_likelihood", "bits_per_dimension"),
        "flow": at("likelihood", "flow"), "level_bounds": at("likelihood", "level_bounds"),  # the other ways to it
        "accuracy": at("accuracy", "value"),
        "evaluations": at("cost", "evaluations"), "parameters": at("cost", "parameters"),
        "outliers": None, "refused_metrics": {name: why["refused"] for name, why in found.items() if metrics.is_refused(why)},
    }  # fmt: skip
    if isinstance(by_score := at("ood"), Mapping) and "refused" not in by_score:
        score = "levels" if "levels" in by_score else "energy"  # that of all levels, where there is one: chosen before anything is measured
        kinds = {kind: report["auroc"] for kind, report in by_score[score].items() if kind != "mean_auroc"}
        row["outliers"] = {"score": score, "mean": statistics.fmean(kinds.values()), **dict(sorted(kinds.items(), key=_order))}
    return row


def _order(item: tuple[str, float]) -> tuple[bool, int]:
    kind = item[0]
    return (kind not in OUTLIERS, OUTLIERS.index(kind) if kind in OUTLIERS else 0)
