"""`thalweg detect fit|run`: a detector of outliers in tables and pictures; with a run in place of these words the task `apply detect`."""

import contextlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from thalweg import progress
from thalweg.commands.items import Items, items_of, normal_items
from thalweg.commands.options import above_zero, check_out, check_seed, parse
from thalweg.errors import InputError, nearest
from thalweg.progress import Work, duration

if TYPE_CHECKING:
    import numpy

    from thalweg.detect.stream import Watch

FEATURES = ("pixels", "energies", "efficientnet-lite0")
PART = 256  # pictures that are looked at together
SOURCE = "source.json"  # in a detector's folder: what it was fitted on
USAGE = """usage: thalweg detect fit DATA --out DIR [options]    (thalweg detect fit --help for them)
       thalweg detect run DIR --input DATA --out FILE [options]
       thalweg detect run DIR --stream < rows
       thalweg detect RUN --input PATH --out FILE.json    (the same as thalweg apply detect: the energy of a model of your own)

Find outliers at a rate of false alarms that holds. fit learns from normal items, some of which it holds out to set the threshold: a table
(.csv, .tsv, .parquet, .npy), a folder of pictures, or data by name. run gives each item a score, a p-value and a verdict, in a .csv,
.json or .html; --stream reads rows from standard input and answers each with a line.
"""


@dataclass
class FitOptions:
    """Learn what is normal, and set a threshold with a false-alarm rate that holds."""

    data: Annotated[str, "positional"]
    """normal items: a table (.csv, .tsv, .parquet, .npy), a folder of pictures, an .npz of images, or data by name"""
    out: Path
    """folder of the detector"""
    false_alarms: float = 0.05
    """share of normal items that may be called outliers"""
    seconds: float = 60.0
    """that fitting may take, about"""
    features: str = "pixels"
    """what of pictures is looked at: pixels; energies, of a small model that is trained on them, for minutes: give --seconds 240;
    efficientnet-lite0, a frozen network; or several with + between, such as pixels+energies, the best of these or all together"""
    size: int | None = None
    """side that pictures are brought to; needed where they differ"""
    seed: int = 0
    """of all draws"""


@dataclass
class RunOptions:
    """Give each item a score, a p-value and a verdict."""

    detector: Annotated[Path, "positional"]
    """folder that fit wrote"""
    input: str | None = None
    """items of the kind that the detector was fitted on: a table, a folder of pictures or one picture, an .npz, or data by name"""
    out: Path | None = None
    """FILE.csv, FILE.json or FILE.html; with --stream FILE.csv or FILE.jsonl, by default standard output"""
    stream: bool = False
    """read rows from standard input, JSON lines or CSV, and write a verdict a line"""
    window: int = 0
    """with --stream: let the threshold follow the last items, so many of them; 0 keeps that of fit"""
    drift: float = 0.01
    """with --stream: probability at most with which a stream without drift is ever said to drift"""
    seed: int = 0
    """with --stream: of the test for drift"""


def run(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        if not arguments:
            raise InputError("detect needs fit or run (see thalweg detect --help)")
        print(USAGE, end="")
        return
    options = read_options(arguments)
    if isinstance(options, FitOptions):
        fit(options)
    elif isinstance(options, RunOptions) and options.stream:
        follow(options)
    elif isinstance(options, RunOptions):
        look(options)
    else:
        from thalweg.commands import apply

        apply.run(["detect", *arguments])


def read_options(arguments: Sequence[str]) -> FitOptions | RunOptions | None:
    """The options of fit or run, checked; None where neither is asked for."""
    word, rest = arguments[0], list(arguments[1:])
    if word == "fit":
        chosen: FitOptions = parse(FitOptions, rest, "detect fit")
        above_zero(chosen, "seconds", "size")
        check_seed(chosen.seed)
        if not 0 < chosen.false_alarms <= 0.5:
            raise InputError(f"--false-alarms must be above 0 and at most 0.5, got {chosen.false_alarms:g}")
        for name in chosen.features.split("+"):
            if name not in FEATURES:
                known = f"{', '.join(FEATURES)}, or several with + between"
                raise InputError(f"--features takes {known}, got {chosen.features!r}{nearest(name, FEATURES)}")
        return chosen
    if word == "run":
        return _checked(parse(RunOptions, rest, "detect run"))
    if not word.startswith("-") and not set(word) & set("/\\:.") and not Path(word).exists() and nearest(word, ("fit", "run")):
        raise InputError(f"detect has no '{word}'{nearest(word, ('fit', 'run'))}, and there is no such run folder")
    return None


def _checked(options: RunOptions) -> RunOptions:
    if options.stream:
        if options.input is not None:
            raise InputError("--stream reads standard input: leave --input out")
        if options.window < 0:
            raise InputError(f"--window must be 0 or more items, got {options.window}")
        if not 0 < options.drift < 1:
            raise InputError(f"--drift must be above 0 and below 1, got {options.drift:g}")
        check_seed(options.seed)
        if options.out is not None:
            check_out(options.out, ".csv", ".jsonl")
        return options
    if options.window or options.drift != 0.01:
        raise InputError(f"{'--window' if options.window else '--drift'} is of --stream")
    if options.input is None or options.out is None:
        raise InputError("detect run needs --input DATA and --out FILE.csv, FILE.json or FILE.html; or --stream")
    check_out(options.out, ".csv", ".json", ".html")
    return options


# --- fit


def fit(options: FitOptions) -> None:
    import numpy

    from thalweg import checkpoint
    from thalweg.detect.detector import EnergyDetector, describe
    from thalweg.detect.pictures import described
    from thalweg.detect.promise import Conformal

    if options.out.exists() and not (options.out / SOURCE).is_file() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise InputError(f"--out {options.out} holds something else; give a new folder, or one of a detector")
    say(f"reading {options.data}")
    items = normal_items(options.data, options.size)
    if not len(items.x):
        raise InputError(f"{options.data} holds no rows")
    if items.kind == "table" and options.features != "pixels":
        raise InputError(f"--features {options.features} is of pictures, {options.data} is a table")
    held_out = len(items.x) - (described(len(items.x)) if items.kind == "pictures" else 0)
    Conformal(numpy.zeros(max(1, held_out))).check(options.false_alarms)  # each is held out once
    takes = f"fitting takes {duration(options.seconds)} at most" + ", and the looking at pictures" * (options.features != "pixels")
    say(f"{len(items.x):,} {'rows' if items.kind == 'table' else 'pictures'}; {takes}")
    detector = EnergyDetector(
        contamination=options.false_alarms, seconds=options.seconds, random_state=options.seed, features=options.features
    )
    with Work("fitting") as work:
        detector._fit(items.x, work.note)
    told: dict[str, Any] = {"data": Path(options.data).name, "kind": items.kind, "items": len(items.x)}
    if detector.pictures_ is not None:
        told |= {"features": detector.pictures_.features, "shape": list(items.x.shape[1:])}
    (options.out / SOURCE).unlink(missing_ok=True)  # the detector writes over nothing but a detector
    detector.save(options.out)
    checkpoint.write_bytes(options.out / SOURCE, (json.dumps(told, indent=1) + "\n").encode())
    print(describe(detector))
    print(f"threshold: a score of {-detector.conformal_.threshold(options.false_alarms):.6g}")
    print(f"detector: {options.out}")


def say(text: str) -> None:
    progress.say(f"thalweg: {text}")


# --- run


def load(folder: Path) -> tuple[Any, dict[str, Any]]:
    """A fitted detector, and what it was fitted on."""
    from thalweg.detect.detector import EnergyDetector

    detector = EnergyDetector.load(folder)
    try:
        told = json.loads((folder / SOURCE).read_text())
    except (OSError, ValueError):  # saved from Python
        told = {}
    told = told if isinstance(told, dict) else {}
    if detector.pictures_ is not None:
        told |= {"kind": "pictures", "shape": list(detector.pictures_.shape)}
    return detector, told


def look(options: RunOptions) -> None:
    from thalweg.detect.stream import as_fitted, records

    assert options.input is not None and options.out is not None
    detector, told = load(options.detector)
    items = items_of(options.input, told.get("shape"))
    if items.kind == "table":
        items = items._replace(x=as_fitted(items.x, detector.columns_))
    scores, p_values = _judged(detector, items)
    outlier = p_values <= detector.contamination
    if options.out.suffix == ".html":
        write_page(options.out, detector, items, scores, p_values, told, options.input)
    else:
        write_records(options.out, records(scores, p_values, detector.contamination, names=items.names))
    say(f"{int(outlier.sum()):,} of {len(scores):,} are outliers at a false-alarm rate of {detector.contamination:g}")
    print(options.out)


def _judged(detector: Any, items: Items) -> "tuple[numpy.ndarray, numpy.ndarray]":
    """Scores and p-values [N], of pictures in parts."""
    if items.kind == "table":
        return detector.judge(items.x)
    import numpy

    with Work("looking") as work:
        found = []
        for start in range(0, len(items.x), PART):
            found.append(detector.judge(items.x[start : start + PART]))
            work.note(min(1.0, (start + PART) / len(items.x)))
    scores, p_values = zip(*found)
    return numpy.concatenate(scores), numpy.concatenate(p_values)


def write_records(out: Path, found: Sequence[dict[str, Any]]) -> None:
    """A .csv or .json of all items, whole or not at all."""
    import csv
    import io

    from thalweg import checkpoint

    stream = io.StringIO()
    if out.suffix == ".json":
        stream.write("[\n" + ",\n".join(f" {json.dumps(record)}" for record in found) + "\n]\n")
    else:
        writer = csv.DictWriter(stream, list(found[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    checkpoint.write_bytes(out, stream.getvalue().encode("utf-8", "surrogateescape"))


def write_page(
    out: Path, detector: Any, items: Items, scores: "numpy.ndarray", p_values: "numpy.ndarray", told: dict[str, Any], source: str
) -> None:
    from thalweg.detect import page
    from thalweg.detect.detector import describe

    threshold = -detector.conformal_.threshold(detector.contamination)
    names = items.names or [f"row {i}" for i in range(len(scores))]
    found = page.Found(
        scores, p_values, p_values <= detector.contamination, names, threshold, detector.contamination, -detector.conformal_.strangeness
    )
    first = page.strangest(found)
    some, rows = items.rows(first), []
    if items.kind == "table":
        columns = detector.columns_.names
        for place, shares in enumerate(detector.explain(some).tolist()):
            cells = some.iloc[place].to_dict() if hasattr(some, "iloc") else dict(zip(columns, some[place].tolist()))
            rows.append(page.Row({str(name): cell for name, cell in cells.items()}, dict(zip(columns, shares))))
    known = {key: plain(value) for key, value in told.items() if key != "kind"}
    known["detector"] = describe(detector)
    page.write(
        out, found, title=f"The strangest of {Path(source).name}", rows=rows, pictures=some if items.kind == "pictures" else (), told=known
    )  # fmt: skip


def plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def follow(options: RunOptions) -> None:
    """Answer the rows of standard input, a line each, and say once when they begin to drift."""
    from thalweg.detect.stream import answer

    detector, source = load(options.detector)
    if source.get("kind") == "pictures":
        raise InputError(f"--stream is of rows, {options.detector} is a detector of pictures")
    told = False

    def after(watch: "Watch") -> None:
        nonlocal told
        if watch.drifted is not None and not told:
            told = True
            say(
                f"drift by row {watch.drifted}: these rows are not exchangeable with those of fit (without drift this is ever said with a "
                f"probability of {options.drift:g} at most), so that the rate of false alarms is not held at {detector.contamination:g}"
            )

    target = sys.stdout if options.out is None else options.out.open("w")
    with contextlib.nullcontext() if options.out is None else target:
        form = "" if options.out is None else options.out.suffix[1:]
        watch = answer(
            detector,
            cast(Any, sys.stdin.buffer),
            target,
            window=options.window,
            seed=options.seed,
            delta=options.drift,
            form=form,
            after=after,
        )
    say(f"{watch.rows:,} rows, {watch.outliers:,} outliers, p-value of no drift {watch.martingale.p_value:.3g}")
