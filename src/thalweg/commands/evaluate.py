"""`thalweg evaluate`: the metrics of one run or several, as a table, as figures on disk, and as a page."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from thalweg.commands.options import above_zero, check_seed, method_class, parse, usable
from thalweg.errors import InputError, nearest

if TYPE_CHECKING:
    from thalweg.methods.base import Method
    from thalweg.metrics import Settings

EXTRACTORS = ("classifier", "efficientnet-lite0", "inception")


@dataclass
class Options:
    """Measure runs: print a table, write metrics.json and report.html into each, and --out if given."""

    models: Annotated[tuple[str, ...], "positional"]
    """run folders (or exported models)"""
    metrics: str = "auto"
    """comma-separated (density, vectors, accuracy, calibration, fidelity, neighbours, ood, modes, views, cost, robustness, restoration,
    latents, likelihood), auto for the quick ones that fit, or all"""
    compare: bool = False
    """one table for all models, which must share their data; with --out also a picture of it"""
    n: Annotated[int, "short"] = 1000
    """samples drawn"""
    seed: int = 0
    """seed of the samples"""
    extractor: str = "classifier"
    """features for fidelity: classifier (trained on the data), efficientnet-lite0 or inception"""
    weights: Path | None = None
    """local file of Inception's weights"""
    outliers: str = ""
    """comma-separated data sets that outliers also come from, by name, folder or hf:NAME"""
    ood_images: int = 2000
    """test images, and outliers of each kind, that are scored at most"""
    which: str = "last"
    """state of a run: last or best"""
    out: Path | None = None
    """also write all figures to this JSON file"""
    device: str = "auto"
    """cpu, cuda, mps or auto"""
    kind: str | None = None
    """FILE.py:CLASS of a method of your own, for the models that are of it"""


def run(arguments: list[str]) -> None:
    options = parse(Options, arguments, "evaluate")
    _check(options)
    from thalweg import metrics
    from thalweg.commands.report import print_comparison, print_table

    wanted, kind = metrics.check_metrics(options.metrics), method_class(options.kind)
    if options.compare:
        check_comparable(options.models, kind)
    settings = metrics.Settings(
        n=options.n, seed=options.seed, extractor=options.extractor, ood_images=options.ood_images,
        weights=None if options.weights is None else str(options.weights),
        outliers=tuple(part.strip() for part in options.outliers.split(",") if part.strip()),
    )  # fmt: skip
    device = usable(options.device)
    results = {model: measure(model, wanted, settings, which=options.which, device=device, kind=kind) for model in options.models}
    if options.out is not None:
        metrics.write_results(options.out, results)
    if options.compare:
        print_comparison(results, None if options.out is None else options.out.with_suffix(".png"))
    else:
        print_table(results)


def _check(options: Options) -> None:
    if not options.models:
        raise InputError("evaluate needs one run folder or more")
    above_zero(options, "n", "ood_images")
    check_seed(options.seed)
    if options.out is not None and (options.out.is_dir() or not options.out.parent.is_dir()):
        raise InputError(f"--out {options.out} is a folder, or in none; give a .json file in a folder that exists")
    if options.extractor not in EXTRACTORS:
        hint = nearest(options.extractor, EXTRACTORS)
        raise InputError(f"unknown extractor '{options.extractor}'{hint}. Extractors: {', '.join(EXTRACTORS)}")


def measure(
    model: str,
    wanted: tuple[str, ...],
    settings: "Settings",
    *,
    which: str = "last",
    device: str = "cpu",
    kind: "type[Method] | None" = None,
) -> dict[str, Any]:
    """All wanted figures of one model; a run folder also gets metrics.json, pictures and report.html."""
    from thalweg import latent, metrics
    from thalweg.commands.report import write_report

    method = latent.load(model, which=which, device=device, kind=_own(model, kind))
    metrics.chosen(method, wanted)  # a metric that does not fit is said before anything is measured
    folder = Path(model)
    is_run = (folder / "stats.jsonl").exists()
    subject = metrics.Subject(method, settings, folder / "report" if is_run else None)
    results = {"which": which} | metrics.measure(subject, wanted)
    if is_run:
        metrics.write_results(folder / "metrics.json", results)
        write_report(folder, results, subject.pictures)
    return results


def check_comparable(models: tuple[str, ...], kind: "type[Method] | None" = None) -> None:
    """Raise InputError unless there are two models or more, of the same data and shape."""
    from thalweg import store

    if len(models) < 2 or len(set(models)) < len(models):
        raise InputError("--compare needs two different models or more")
    (first, one), *others = {model: store.read(model, kind=_own(model, kind)).config for model in models}.items()
    for model, other in others:
        latent = one.data_needs.autoencoder or other.data_needs.autoencoder  # then a shape is that of latents
        if one.data != other.data or (not latent and tuple(one.shape) != tuple(other.shape)):
            kinds = [f"{c.data} {tuple(c.shape)}" for c in (one, other)]
            raise InputError(f"--compare needs models of the same data: {first} is of {kinds[0]}, {model} of {kinds[1]}")


def _own(model: str, kind: "type[Method] | None") -> "type[Method] | None":
    """The class of one's own where the model is of it: others may be compared with it."""
    from thalweg import store

    return kind if kind is not None and store.method_name(model) in (kind.name, None) else None
