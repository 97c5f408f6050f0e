"""What `thalweg evaluate` measures: one entry a metric, each of them for any method that fits. Knows no method by name."""

import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from thalweg import checkpoint, data, plot, random, tasks
from thalweg import evaluate as ev
from thalweg.data.base import Batch
from thalweg.data.toy import TOYS, Toy, toy
from thalweg.errors import InputError, nearest
from thalweg.methods.base import Method, has

OUTLIERS = ("uniform", "constant", "noise", "interpolation", "shuffled")


@dataclass(frozen=True)
class Settings:
    """What a comparison must hold equal: samples drawn, their seed, the extractor of features, outlier data besides the made ones.

    `ood_images`: how many test images, and outliers of each kind, are scored at most.
    """

    n: int = 1000
    seed: int = 0
    extractor: str = "classifier"
    weights: str | None = None
    outliers: tuple[str, ...] = ()
    ood_images: int = 2000


@dataclass
class Subject:
    """A model under evaluation; what several metrics share is made once. `folder` takes pictures, None for none."""

    method: Method
    settings: Settings
    folder: Path | None = None
    pictures: list[tuple[str, Path]] = field(default_factory=list)

    def draw(self, caption: str, name: str, picture: Callable[[Path], Path]) -> None:
        """Make a picture in the folder, if there is one, and list it."""
        if self.folder is not None:
            self.pictures.append((caption, picture(self.folder / f"{name}.png")))

    @property
    def config(self) -> Any:
        return self.method.config

    @property
    def device(self) -> torch.device:
        return next(self.method.parameters()).device

    @cached_property
    def truth(self) -> Toy:
        return toy(self.config.data)

    def split(self, name: str) -> Batch:
        return data.load(self.config.data, name, size=self.config.shape[-1]).all()

    @cached_property
    def train(self) -> Batch:
        return self.split("train")

    @cached_property
    def test(self) -> Batch:
        return self.split("test")

    def sample(self, n: int, **options: Any) -> Tensor:
        """Samples, of a translation from test images of its source domain."""
        seed = self.settings.seed
        return self.method.sample(n, seed=seed, **self.method.starts(n, seed), **options).cpu()

    @cached_property
    def samples(self) -> Tensor:
        return self.sample(self.settings.n)

    @cached_property
    def asked(self) -> Tensor:
        """The labels of `guided`, going round; of several concepts the first one's."""
        concepts = data.concepts(self.config.data)
        return torch.arange(self.settings.n) % (len(next(iter(concepts.values()))) if concepts else self.config.classes)

    @cached_property
    def guided(self) -> Tensor:
        return self.sample(self.settings.n, label=self.asked)

    @cached_property
    def extractor(self) -> Any:
        if self.settings.extractor != "classifier":
            return ev.extractor_by_name(self.settings.extractor, weights=self.settings.weights)
        name, train, test = self.config.data, self.train, self.test
        base, _, one = name.partition(":")
        if one and base in data.NAMES:  # of one class: the extractor is that of the whole set
            name = base
            train, test = (data.load(base, split, size=self.config.shape[-1]).all() for split in ("train", "test"))
        if train.label is None:
            raise InputError(
                f"fidelity needs data with labels to train its feature extractor on, {self.config.data} has none; "
                "take another: --extractor efficientnet-lite0"
            )
        splits = [(part.x, part.label if part.label.dim() == 1 else part.label[:, 0]) for part in (train, test)]
        return ev.extractor(tuple(splits), name=name)

    def classify(self, x: Tensor) -> Tensor:
        return self.method.classify(x.to(self.device)).cpu()


def takes_labels(method: Method) -> bool:
    """Whether samples can be asked for by label."""
    return has(method, "labels")


class Row(NamedTuple):
    """A line of the table. `value` with its interval is for comparing; `better` is "up", "down" or "" for neither."""

    name: str
    text: str
    note: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    better: str = ""


def _row(name: str, value: float, form: str, interval: Any = None, note: str = "", better: str = "") -> Row:
    low, high = (None, None) if interval is None else interval
    unit = " %" if form.endswith("%") else ""
    text = format(value, form).replace("%", unit)
    if low is not None:
        span = f"95 % interval {format(low, form).replace('%', '')} to {format(high, form).replace('%', '')}"
        note = f"{span}; {note}" if note else span
    return Row(name, text, note, value, low, high, better)


# --- toys


def density(s: Subject) -> dict[str, Any]:
    s.draw(
        "Density of the truth and of the model, with its samples", "density",
        lambda path: plot.density({"model": s.method.energy}, s.truth, path, samples=s.samples),
    )  # fmt: skip
    real = s.truth.sample(max(s.settings.n, 4096), generator=random.seeded(s.settings.seed + 1))
    found = {
        "density": asdict(ev.density(s.method.energy, s.truth)),
        "energy_distance": asdict(ev.energy_distance_interval(s.samples, real)),
    }
    return found | ({"mode_coverage": asdict(ev.mode_coverage(s.samples, s.truth))} if s.truth.modes is not None else {})


def density_rows(r: dict[str, Any]) -> list[Row]:
    d, e = r["density"], r["energy_distance"]
    table = [
        _row("KL(truth‖model)", d["kl_truth_model"], ".4f", note="nats, both normalised on a grid", better="down"),
        _row("KL(model‖truth)", d["kl_model_truth"], ".4f", note="nats", better="down"),
        _row("total variation", d["total_variation"], ".4f", better="down"),
        _row("energy distance of samples", e["value"], ".4f", (e["low"], e["high"]), better="down"),
    ]
    if d["modes"]:
        table.append(_row("modes missing", d["modes_missing"], "d", note=f"of {d['modes']}", better="down"))
    return table


# --- classification


def accuracy(s: Subject) -> dict[str, Any]:
    return asdict(ev.accuracy(s.classify, s.test.x, s.test.label))


def accuracy_rows(r: dict[str, Any]) -> list[Row]:
    return [_row("test accuracy", r["value"], ".1%", (r["low"], r["high"]), f"n = {r['n']}", "up")]


def calibration(s: Subject) -> dict[str, Any]:
    found = ev.calibration(s.classify, s.test.x, s.test.label, seed=s.settings.seed)
    s.draw("Reliability of the classes' probabilities on held-out images", "reliability", lambda path: plot.reliability(found, path))
    return asdict(found)


def calibration_rows(r: dict[str, Any]) -> list[Row]:
    floor = f"a calibrated classifier would score {r['ece_floor']:.4f} at n = {r['n']}"
    return [
        _row("calibration error (ECE)", r["ece"], ".4f", r["ece_interval"], floor, "down"),
        _row("negative log-likelihood of labels", r["nll"], ".4f", r["nll_interval"], "nats", "down"),
    ]


def robustness(s: Subject) -> dict[str, Any]:
    n = min(len(s.test.x), s.settings.n, 200)  # each that withstands costs 2·steps·restarts gradients at every ε
    x, label = s.test.x[:n].to(s.device), s.test.label[:n].to(s.device)
    found = ev.robustness(s.method.classify, x, label, steps=20, restarts=2, seed=s.settings.seed)
    s.draw("Accuracy under attacks in the sup-norm", "robustness", lambda path: plot.robustness(found, path))
    return asdict(found)


def robustness_rows(r: dict[str, Any]) -> list[Row]:
    masked = "" if r["checks"]["passed"] else "gradient-masking checks FAILED: do not trust; "
    table = []
    for epsilon, pgd, fgsm in zip(r["epsilons"], r["pgd"], r["fgsm"]):
        note = f"{masked}FGSM {100 * fgsm['value']:.1f}, n = {r['n']}"
        table.append(_row(f"accuracy under PGD, ε = {255 * epsilon:.3g}/255", pgd["value"], ".1%", (pgd["low"], pgd["high"]), note, "up"))
    return table


# --- images


def fidelity(s: Subject) -> dict[str, Any]:
    kinds = {"samples": s.samples} | ({"guided samples": s.guided} if takes_labels(s.method) else {})
    found: dict[str, Any] = {"extractor_test_accuracy": getattr(s.extractor, "test_accuracy", None)}
    for kind, x in kinds.items():
        # the first ones, not a random draw: labels go round, so that as many of each class are compared as there are in the test set
        x = x[: len(s.test.x)]
        # a covariance needs more images than features, which small test sets do not have for the large extractors
        few = s.settings.extractor != "classifier" and min(len(x), len(s.train.x)) <= s.extractor.num_features
        metrics = ("kid", "prdc") if few else None
        found[kind] = asdict(ev.fidelity(s.train.x, x, s.extractor, held_out=s.test.x, metrics=metrics, n=len(x), seed=s.settings.seed))
        shown, caption = x, f"{kind.capitalize()} of the trained model"
        if kind == "guided samples":
            classes = s.config.classes
            shown, caption = s.guided[: 10 * classes], caption + ", one row a class"
            shown = shown.view(-1, classes, *s.config.shape).transpose(0, 1).flatten(0, 1) if len(shown) == 10 * classes else shown
        s.draw(caption, kind.replace(" ", "_"), lambda path, shown=shown: plot.grid(shown[:100], path, columns=10))
    if takes_labels(s.method) and hasattr(s.extractor, "test_accuracy"):
        found["class_accuracy"] = asdict(ev.class_accuracy(s.guided, s.asked, s.extractor))
    return found


def fidelity_rows(r: dict[str, Any]) -> list[Row]:
    table = []
    if c := r.get("class_accuracy"):
        table.append(
            _row("class accuracy of guided samples", c["value"], ".1%", (c["low"], c["high"]), f"by the extractor, n = {c['n']}", "up")
        )
    for kind in ("guided samples", "samples"):
        for figure in ("frechet", "kid", "inception_score", "precision", "recall", "density", "coverage"):
            f = r.get(kind, {}).get(figure)
            if f is None:
                continue
            note = "" if f["held_out"] is None else f"real held-out images {f['held_out']:.4g}"
            if figure == "frechet":
                note = f"{f['value'] / f['held_out']:.2f} × the floor {f['held_out']:.2f}, {r[kind]['n']} real held-out images"
            form = ".2f" if figure in ("frechet", "inception_score") else ".4f" if figure == "kid" else ".3f"
            interval = None if f["low"] is None else (f["low"], f["high"])
            table.append(_row(f"{f['name']}, {kind}", f["value"], form, interval, note, "down" if figure in ("frechet", "kid") else "up"))
    return table


def neighbours(s: Subject) -> dict[str, Any]:
    found = ev.memorisation(s.samples, s.train.x, s.test.x)
    shown = s.samples[:10]
    nearest = ev.nearest_neighbours(shown, s.train.x, k=7).indices
    caption = "Samples, first of each row, and their nearest training images in pixels"
    s.draw(caption, "neighbours", lambda path: plot.neighbours(shown, s.train.x, nearest, path))
    return asdict(found)


def neighbours_rows(r: dict[str, Any]) -> list[Row]:
    note = f"{100 * r['expected']:.0f} % expected of new images; {r['copies']} near copies among {r['n']}"
    return [_row("samples closer to training images than new images are", r["closer"], ".1%", (r["low"], r["high"]), note)]


def ood(s: Subject) -> dict[str, Any]:
    inliers = _spread(s.test.x, s.settings.ood_images)
    outliers = {kind: ev.outliers(kind, inliers, len(inliers), s.settings.seed) for kind in OUTLIERS}
    for name in s.settings.outliers:
        other = data.load(name, "test", size=s.config.shape[-1], channels=s.config.shape[0]).all().x
        outliers[name] = _spread(other, s.settings.ood_images)
    reports, values = ev.ood_table(s.method, inliers, outliers, reference=s.train.x, seed=s.settings.seed)
    for score, by_kind in values.items():
        label = "energy (nats)" if score == "energy" else score
        caption = f"Outlier score '{score}' of held-out images and of outliers"
        s.draw(caption, f"ood_{score}", lambda path, v=by_kind, label=label: plot.histogram(v, path, label=label))
    return {
        score: {kind: asdict(r) for kind, r in by_kind.items()} | {"mean_auroc": sum(r.auroc for r in by_kind.values()) / len(by_kind)}
        for score, by_kind in reports.items()
    }


def _spread(x: Tensor, most: int) -> Tensor:
    """At most so many of x, evenly spaced, because data may be sorted by label."""
    return x if len(x) <= most else x[torch.arange(most) * len(x) // most]


def ood_rows(r: dict[str, Any]) -> list[Row]:
    """A row a kind for the energy, and a row for each other score; metrics.json has all of them with their intervals."""
    table = []
    for score, found in r.items():
        kinds = {kind: o for kind, o in found.items() if kind != "mean_auroc"}
        if score == "energy":
            for kind, o in kinds.items():
                table.append(
                    _row(f"OOD AUROC against {kind}", o["auroc"], ".4f", o["auroc_interval"], f"by energy; FPR@95 {o['fpr95']:.3f}", "up")
                )
        else:
            note = ", ".join(f"{kind} {o['auroc']:.3f}" for kind, o in kinds.items())
            table.append(_row(f"mean OOD AUROC by {score}", found["mean_auroc"], ".4f", note=note, better="up"))
    return table


def modes(s: Subject) -> dict[str, Any]:
    stacks = data.load(s.config.data, "test", size=s.config.shape[-1])
    held_out = stacks.batch(0, s.settings.n, seed=0)
    return asdict(ev.stacked_modes(s.samples, ev.extractor(stacks.base.name.removesuffix("/test")), held_out=tuple(held_out)))


def modes_rows(r: dict[str, Any]) -> list[Row]:
    m, real = r["samples"], r["held_out"]
    note = (
        f"a perfect sampler hits {r['perfect_modes']:.0f} with {m['n']} samples; {r['name']} is right on {100 * r['stack_accuracy']:.1f} %"
    )
    kl = f"nats, corrected for n; real stacks {real['kl_corrected']:.3f}"
    return [
        _row(f"modes covered of {m['possible']}", m["modes"], "d", note=note, better="up"),
        _row("KL(model‖data) over modes", m["kl_corrected"], ".3f", (m["low"], m["high"]), kl, "down"),
    ]


def restoration(s: Subject) -> dict[str, Any]:
    n = min(256, len(s.test.x))
    clean, found = s.test.x[:n], {}
    for std in (0.1, 0.3, 0.6):
        noisy = clean + std * random.normal(*clean.shape, generator=random.seeded(s.settings.seed, int(1000 * std)))
        restored = s.method.denoise(noisy.to(s.device), std, seed=s.settings.seed).cpu().clamp(-1, 1)
        found[f"noise {std}"] = asdict(ev.restoration(clean, restored, observed=noisy.clamp(-1, 1)))
        rows = torch.cat([clean[:10], noisy[:10].clamp(-1, 1), restored[:10]])
        caption = f"Denoising at standard deviation {std}: held-out images, with noise, restored"
        s.draw(caption, f"denoised_{std}", lambda path, rows=rows: plot.grid(rows, path, columns=10))
    return found


def restoration_rows(r: dict[str, Any]) -> list[Row]:
    table = []
    for kind, q in r.items():
        for figure, form in (("psnr", ".2f"), ("ssim", ".4f")):
            f = q["restored"][figure]
            note = f"{'dB, ' if figure == 'psnr' else ''}before {format(q['observed'][figure]['value'], form)}"
            table.append(_row(f"{figure.upper()} after denoising, {kind}", f["value"], form, (f["low"], f["high"]), note, "up"))
    return table


def latents(s: Subject) -> dict[str, Any]:
    train, test = (torch.cat([s.method.encode(x.to(s.device)).cpu() for x in part.x.split(512)]) for part in (s.train, s.test))
    some = slice(0, 2000)
    caption = "t-SNE of the latents of held-out images, coloured by class"
    s.draw(caption, "latents", lambda path: plot.embedding(ev.tsne(test[some], seed=s.settings.seed), path, labels=s.test.label[some]))
    return {
        "linear_probe": asdict(ev.linear_probe(train, s.train.label, test, s.test.label)),
        "knn": asdict(ev.knn(train, s.train.label, test, s.test.label)),
    }


def latents_rows(r: dict[str, Any]) -> list[Row]:
    names = {"linear_probe": "linear probe of latents", "knn": "nearest neighbours of latents"}
    return [_row(name, a["value"], ".1%", (a["low"], a["high"]), better="up") for key, name in names.items() for a in (r[key]["accuracy"],)]


def likelihood(s: Subject) -> dict[str, Any]:
    if s.config.data in TOYS:
        train, test = (s.truth.sample(4096, generator=random.seeded(s.settings.seed, part)) for part in (5, 6))
        bin_width = None
    else:
        train, test, bin_width = s.train.x, s.test.x, 2 / 255
    if has(s.method, "normalised"):  # nothing is to be bounded
        if grey := s.config.grey_values:
            noise = random.uniform(*test.shape, generator=random.seeded(s.settings.seed, 12))
            test, bin_width = s.method.dequantise(test, noise), 2 / (grey - 1)
        return {"log_likelihood": asdict(ev.log_likelihood(s.method.energy, test, s.method.log_z, bin_width=bin_width, device=s.device))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the row says that the bound is loose
        partition = ev.log_partition(
            s.method.energy,
            ev.fitted_base(train),
            samples=s.samples[:64],
            chains=64,
            temperatures=300,
            seed=s.settings.seed,
            device=s.device,
        )
    found = ev.log_likelihood(s.method.energy, test, partition, bin_width=bin_width, device=s.device)
    return {"log_partition": asdict(partition), "log_likelihood": asdict(found)}


def likelihood_rows(r: dict[str, Any]) -> list[Row]:
    z, q = r.get("log_partition"), r["log_likelihood"]
    if z is None:
        v, note = q["value"], f"nats, exact; {q['bits_per_dimension']:.3f} bits a dimension"
        return [_row("log-likelihood of held-out data", v["value"], ".2f", (v["low"], v["high"]), note, "up")]
    loose = "LOOSE, do not trust; " if z["loose"] else ""
    # between bounds the upper of which holds only as far as the model's samples are draws of its density
    note = f"nats; {loose}log Z from {z['lower']['value']:.2f} to {z['upper']['value']:.2f}; {q['bits_per_dimension']:.3f} bits a dimension"
    value = q["value"]["value"]
    interval = min(value, q["lower"]["low"]), max(value, q["upper"]["high"])
    return [_row("log-likelihood of held-out data", value, ".2f", interval, note, "" if z["loose"] else "up")]


def views(s: Subject) -> dict[str, Any]:
    """Held-out objects from two of their images, seen from four sides that were not given, beside the mean training image's PSNR."""
    held_out = data.load(s.config.data, "test", size=s.config.shape[-1])
    made = tasks.new_views(s.method, held_out, objects=min(50, s.settings.n), seed=s.settings.seed)
    truth = made.truth.flatten(0, 1)
    mean = s.train.x.mean(0, keepdim=True).expand_as(truth)
    rows = torch.cat([part[:8] for part in (made.given, made.rebuilt.cpu(), made.x.cpu(), made.truth)], 1)
    caption = "Held-out objects: two images that are given, the same and four others as the model sees them, and the true ones"
    s.draw(caption, "views", lambda path: plot.grid(rows.flatten(0, 1), path, columns=rows.shape[1], least=64))
    grid = tasks.recombine(s.method, seed=s.settings.seed).x.cpu()
    s.draw(
        "Shapes (columns) in colours (rows)", "recombined", lambda path: plot.grid(grid.flatten(0, 1), path, columns=len(grid), least=64)
    )
    # images of an object are no independent witnesses: the interval is over objects
    found = ev.psnr(truth, made.x.cpu().flatten(0, 1)).unflatten(0, made.x.shape[:2]).mean(1)
    margin = 1.96 * float(found.std(correction=min(1, len(found) - 1))) / len(found) ** 0.5
    value = float(found.mean())
    return {
        "psnr": {"value": value, "low": value - margin, "high": value + margin, "n": len(found)},
        "of_mean_image": float(ev.psnr(truth, mean).mean()),
    }


def views_rows(r: dict[str, Any]) -> list[Row]:
    p = r["psnr"]
    note = f"dB, {p['n']} held-out objects; the mean training image {r['of_mean_image']:.2f}"
    return [_row("PSNR of new views from two", p["value"], ".2f", (p["low"], p["high"]), note, "up")]


def cost(s: Subject) -> dict[str, Any]:
    n, seed = min(64, s.settings.n), s.settings.seed
    return asdict(ev.cost(s.method, n, seed=seed, **s.method.starts(n, seed)))


def cost_rows(r: dict[str, Any]) -> list[Row]:
    where = f"{r['device']}, {r['threads']} threads, batches of {r['n']}"
    return [
        _row("network evaluations a sample", r["evaluations"], ".0f", note=f"{r['gradients']:.0f} with gradient", better="down"),
        _row("seconds a sample", r["seconds"], ".3g", note=where, better="down"),
        _row("memory a sample, MiB", r["memory"] / 2**20, ".3g", note=r["memory_source"], better="down"),
        _row("parameters", r["parameters"], ",d"),
    ]


class Metric(NamedTuple):
    """How a metric is measured, told as rows, and for which methods; those not `automatic` are made on request only."""

    measure: Callable[[Subject], dict[str, Any]]
    rows: Callable[[dict[str, Any]], list[Row]]
    fits: Callable[[Method], bool]
    automatic: bool = True


def _images(method: Method) -> bool:
    return len(method.config.shape) == 3 and method.config.data not in TOYS


def _scores(method: Method) -> bool:
    return has(method, "energy")


def _stacked(method: Method) -> bool:
    return method.config.data.startswith("stacked-")


def _sees_objects(method: Method) -> bool:
    return has(method, "views", "cameras")


def _classifies(method: Method) -> bool:
    return _images(method) and has(method, "classify")


METRICS: dict[str, Metric] = {
    "density": Metric(density, density_rows, lambda m: m.config.data in TOYS and has(m, "energy")),
    "accuracy": Metric(accuracy, accuracy_rows, _classifies),
    "calibration": Metric(calibration, calibration_rows, _classifies),
    "fidelity": Metric(fidelity, fidelity_rows, lambda m: _images(m) and not _stacked(m) and has(m, "sample")),
    "neighbours": Metric(neighbours, neighbours_rows, lambda m: _images(m) and not _stacked(m) and has(m, "sample")),
    "ood": Metric(ood, ood_rows, lambda m: _images(m) and _scores(m)),
    "modes": Metric(modes, modes_rows, lambda m: _stacked(m) and has(m, "sample")),
    "views": Metric(views, views_rows, _sees_objects),
    "cost": Metric(cost, cost_rows, lambda m: has(m, "sample")),
    "robustness": Metric(robustness, robustness_rows, _classifies, automatic=False),
    "restoration": Metric(restoration, restoration_rows, lambda m: _images(m) and has(m, "denoise"), automatic=False),
    "latents": Metric(latents, latents_rows, lambda m: _images(m) and has(m, "encode") and bool(m.config.classes), automatic=False),
    "likelihood": Metric(likelihood, likelihood_rows, _scores, automatic=False),
}


def check_metrics(wanted: str) -> tuple[str, ...]:
    """Metric names from a comma-separated list; "auto" is all quick ones that fit, "all" all that fit."""
    names = tuple(part.strip() for part in wanted.split(","))
    for name in names:
        if name not in METRICS and (name not in ("auto", "all") or len(names) > 1):
            raise InputError(f"unknown metric '{name}'{nearest(name, METRICS)}. Metrics: {', '.join(METRICS)}, auto, all")
    return names


def chosen(method: Method, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The metrics to measure of one method; InputError names one that does not fit."""
    fitting = tuple(name for name, metric in METRICS.items() if metric.fits(method))
    if wanted in (("auto",), ("all",)):
        return tuple(name for name in fitting if METRICS[name].automatic or wanted == ("all",))
    if bad := [name for name in wanted if name not in fitting]:
        raise InputError(
            f"metric '{bad[0]}' does not fit {method.name} on {method.config.data}; fitting are: {', '.join(fitting) or 'none'}"
        )
    return wanted


def measure(subject: Subject, wanted: tuple[str, ...]) -> dict[str, Any]:
    """The figures of one model by metric, with what was held equal."""
    results: dict[str, Any] = {"settings": asdict(subject.settings)}
    names = chosen(subject.method, wanted)
    without = subject.settings.extractor == "classifier" and "fidelity" in names and subject.test.label is None
    if wanted in (("auto",), ("all",)) and without:
        print("fidelity left out: no labels to train a classifier on; --extractor efficientnet-lite0 needs none", file=sys.stderr)
        names = tuple(name for name in names if name != "fidelity")
    for name in names:
        results[name] = METRICS[name].measure(subject)
    return results


def rows(results: dict[str, Any]) -> list[Row]:
    """All figures as lines of a table."""
    return [row for name, metric in METRICS.items() if name in results for row in metric.rows(results[name])]


# --- several runs beside each other


def compare(results: dict[str, dict[str, Any]]) -> list[tuple[str, list[Row | None]]]:
    """One line a figure, with each model's row in it (None where it lacks that figure); the models must share data and settings."""
    tables = {model: {row.name: row for row in rows(found)} for model, found in results.items()}
    names = dict.fromkeys(name for table in tables.values() for name in table)
    return [(name, [table.get(name) for table in tables.values()]) for name in names]


def best(line: list[Row | None]) -> set[int]:
    """Which columns of a comparison hold the best value; none where neither direction is better or all are equal."""
    given = [(row.value if row.better == "up" else -row.value, i) for i, row in enumerate(line) if row is not None and row.better]
    if len({value for value, _ in given}) < 2:
        return set()
    top = max(value for value, _ in given)
    return {i for value, i in given if value == top}


def write_results(path: Path, results: dict[str, Any]) -> None:
    checkpoint.write_bytes(path, (json.dumps(results, indent=2) + "\n").encode())
