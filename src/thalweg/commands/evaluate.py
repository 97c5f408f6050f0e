"""`thalweg evaluate`: the metrics of one run or several, as a table, as figures on disk, and as a page."""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from thalweg.commands.options import above_zero, check_seed, method_class, parse, usable
from thalweg.errors import InputError, nearest

if TYPE_CHECKING:
    from thalweg.methods.base import Method
    from thalweg.metrics import Settings, Subject

DRAWN = "drawn"  # in a run's folder: samples that are not measured yet
EXTRACTORS = ("classifier", "efficientnet-lite0", "inception")


@dataclass
class Options:
    """Measure runs: print a table, write metrics.json and report.html into each, and --out if given.

    Samples are kept in the run's folder while they are drawn, so that the same command goes on where it was cut off. Under torchrun
    processes share the drawing of samples, and the first one writes.
    """

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
    data: str | None = None
    """where the data are, by name or path, if not where the model was trained on them; the split for testing is taken"""
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
    from thalweg.commands.report import print_comparison, print_next, print_table
    from thalweg.data.shards import Unwritten
    from thalweg.distributed import World

    wanted, kind = metrics.check_metrics(options.metrics), method_class(options.kind)
    if options.compare:
        check_comparable(options.models, kind, options.data)
    settings = metrics.Settings(
        n=options.n, seed=options.seed, extractor=options.extractor, ood_images=options.ood_images,
        weights=None if options.weights is None else str(options.weights),
        outliers=tuple(part.strip() for part in options.outliers.split(",") if part.strip()),
    )  # fmt: skip
    device = usable(options.device)
    results, trouble = {}, None
    for model in options.models:
        kept_before = (Path(model) / DRAWN).is_dir()
        try:
            subject = prepare(model, settings, which=options.which, device=device, kind=kind, data=options.data)
            results[model] = metrics.measure(subject, wanted)
        except InputError as error:  # which does not take the figures of the others with it
            trouble = trouble or error
            # the same call would be refused again; what one before it has drawn may be of use to another
            if not (kept_before or isinstance(error, Unwritten)) and _is_run(model) and World.current().first:
                shutil.rmtree(Path(model) / DRAWN, ignore_errors=True)
            continue
        if not World.current().first:
            continue
        if not options.compare:
            print_table(model, results[model])
        unkept = keep(model, subject, results[model], options.data)
        for line in [*subject.unwritten, *unkept]:
            print(f"thalweg: {line}", file=sys.stderr)
        if not unkept and subject.kept is not None:
            shutil.rmtree(subject.kept, ignore_errors=True)
        if not options.compare and not unkept:  # else a report that is there has other figures
            print_next(model)
    if not World.current().first:
        results = {}
    if options.compare and results:
        print_comparison(results, None if options.out is None else options.out.with_suffix(".png"))
    if options.out is not None and results:
        metrics.write_results(options.out, results)
    if trouble is not None:
        raise trouble


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


def prepare(
    model: str,
    settings: "Settings",
    *,
    which: str = "last",
    device: str = "cpu",
    kind: "type[Method] | None" = None,
    data: str | None = None,
) -> "Subject":
    """A model to be measured; pictures of a run go into its folder, of processes that share the work by the first of them."""
    from thalweg import latent, metrics
    from thalweg.distributed import World

    method = latent.load(model, which=which, device=device, kind=_own(model, kind))
    folder = Path(model) / "report" if _is_run(model) and World.current().first else None
    return metrics.Subject(method, settings, folder, data=data, kept=_kept(model))


def _kept(model: str) -> Path | None:
    """A folder of the run in which samples are kept until they are measured; None where none can be made."""
    folder = Path(model) / DRAWN
    try:
        if _is_run(model):
            folder.mkdir(exist_ok=True)
            return folder
    except OSError:
        pass
    return None


def _is_run(model: str) -> bool:
    return (Path(model) / "stats.jsonl").exists()


def keep(model: str, subject: "Subject", results: dict[str, Any], data: str | None) -> list[str]:
    """Write metrics.json and report.html of a run, with what was measured before of the same state; returns what could not be written.

    Figures on other data than the run's are not written there.
    """
    from thalweg import checkpoint, metrics
    from thalweg.commands.report import write_report
    from thalweg.data.prepare import is_trained_on

    folder = Path(model)
    if not _is_run(model):
        return []
    if data is not None and not is_trained_on(subject.method, data):
        return [f"{data} are other data than {model} was trained on; these figures are not written into its folder (--out FILE does that)"]
    trained = subject.method.trained_on or {}
    names = [name for name in results if name in metrics.METRICS]
    pictures = [[caption, str(path.relative_to(folder))] for caption, path in subject.pictures]
    about = {"settings": results["settings"], "pictures": pictures}
    now = results | {"state": trained.get("state"), "measured": {name: about for name in names}}
    now = metrics.merged(checkpoint.read_figures(folder), now)
    now["table"] = [list(row[:3]) for row in metrics.rows(now)]
    trouble = []
    for write in (lambda: metrics.write_results(folder / "metrics.json", now), lambda: write_report(folder, now)):
        try:
            write()
        except InputError as error:
            trouble.append(str(error))
    return trouble


def check_comparable(models: tuple[str, ...], kind: "type[Method] | None" = None, data: str | None = None) -> None:
    """Raise InputError unless there are two models or more, of one shape and of the same data, or measured on the `data` that are given."""
    from thalweg import store

    if len(models) < 2 or len(set(models)) < len(models):
        raise InputError("--compare needs two different models or more")
    (first, one), *others = {model: store.read(model, kind=_own(model, kind)).config for model in models}.items()
    prints = {model: (store.trained_on(model) or {}).get("fingerprint") for model in models}
    for model, other in others:
        latent = one.data_needs.autoencoder or other.data_needs.autoencoder  # then a shape is that of latents
        same = prints[first] == prints[model] if prints[first] and prints[model] else one.data == other.data
        if (not same and data is None) or (not latent and tuple(one.shape) != tuple(other.shape)):
            kinds = [f"{c.data} {tuple(c.shape)}" for c in (one, other)]
            raise InputError(f"--compare needs models of the same data: {first} is of {kinds[0]}, {model} of {kinds[1]}")


def _own(model: str, kind: "type[Method] | None") -> "type[Method] | None":
    """The class of one's own where the model is of it: others may be compared with it."""
    from thalweg import store

    return kind if kind is not None and store.method_name(model) in (kind.name, None) else None
