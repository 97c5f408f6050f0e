"""How studies and checks are run: options, jobs in processes of their own, and results with the machine that they were found on."""

import argparse
import datetime
import hashlib
import importlib.util
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import torch

import thalweg
from thalweg.calls import machine
from thalweg.precision import autocast
from thalweg.progress import Work

Options = argparse.Namespace
Row = dict[str, Any]


def versions() -> dict[str, str]:
    """Of Python and of the libraries that figures depend on."""
    packages = {"torch": torch, "numpy": numpy, "thalweg": thalweg}
    return {"python": platform.python_version()} | {name: package.__version__ for name, package in packages.items()}


def file_of(*words: str) -> str:
    """The file name of a picture: its words in lower case, without what is neither letter nor digit, `-` or `_`."""
    return "_".join("".join(a for a in word.lower() if a.isalnum() or a in "-_") for word in words) + ".png"


def name_of(name: str, data: str) -> str:
    """The name of results on a data set, digits where it names none."""
    return name if data == "digits" else f"{name}_{data}"


def write_results(out: str | Path, results: Any, *, seed: int, seconds: float) -> Path:
    """`results` with machine, versions, seed, command, duration and date, as JSON in `out`, which is replaced in one piece."""
    # under `python -m` the first argument is the module's file
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    command = ["python", "-m", spec.name, *sys.argv[1:]] if spec else ["python", *sys.argv]
    record = {
        "command": shlex.join(command),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "seconds": round(seconds, 1),
        "machine": machine(),
        "versions": versions(),
        "results": results,
    }
    out = Path(out)
    _write(out, json.dumps(record, indent=1, allow_nan=False) + "\n")
    return out


def rows_of_jobs(
    module: str,
    jobs: Sequence[Sequence[str | int | float]],
    *,
    arguments: Sequence[str],
    work: Path,
    workers: int,
    places: Sequence[str] = (),
    show: Callable[[Row], str],
) -> list[Row]:
    """The row of each job, in the order of `jobs`: the last line, JSON, of what `python -m MODULE ARGUMENTS JOB` prints.

    Each job is a process with one thread, `workers` of them at a time; `show` of its row is printed when it ends. Rows are kept in
    `work`, and a job is not run again unless its arguments or the code have changed: that of the package, of the module and of
    studies.measures, comments too. `places` are further arguments, of where things lie, that a row does not depend on. A process that
    fails raises SystemExit with what it said.
    """

    def row_of(job: Sequence[str | int | float]) -> Row:
        command = ["-m", module, *arguments, *map(str, job)]
        kept = work / f"{_digest(command, module)}.json"
        if kept.exists():
            return json.loads(kept.read_text())
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command[2:2] = places
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment)
        if done.returncode:
            raise SystemExit(f"{job}: {done.stderr}")
        row = json.loads(done.stdout.splitlines()[-1])
        _write(kept, json.dumps(row))
        done_rows.append(row)
        print(show(row), flush=True)
        work_left.note(len(done_rows) / len(jobs))
        return row

    done_rows: list[Row] = []
    with Work(f"{len(jobs)} rows") as work_left, ThreadPoolExecutor(workers) as pool:
        return list(pool.map(row_of, jobs))


def _digest(command: Sequence[str], module: str) -> str:
    """Of a command and of the sources that it runs."""
    digest = hashlib.sha256(json.dumps(command).encode())
    package, measures = Path(thalweg.__file__).parent, Path(__file__).with_name("measures.py")
    for path in [*sorted(package.rglob("*.py")), measures, Path(importlib.util.find_spec(module).origin)]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _write(path: Path, text: str) -> None:
    """In one piece: a process that is stopped leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(path.suffix + ".part")
    part.write_text(text)
    part.replace(path)


def line_of(name: str, mine: Sequence[Row]) -> Row:
    """What every row's summary begins with: its name, the number of its seeds, and of those that diverged."""
    return {"row": name, "seeds": len(mine), "diverged": sum(bool(row.get("diverged")) for row in mine)}


@dataclass(frozen=True)
class Part:
    """A part of a study that measures each of its rows at several seeds, one process for each row and seed.

    `rows`: their names, or a function of the options that gives them. `one`: measures a row at a seed. `line`: what a row's summary adds to
    `line_of`, from its name, its results over seeds and those of all rows; None where `more` makes the summary. `more`: what the part's
    results have in addition. `settings`: the preset of a row's model and the fields that it changes. `most`: the most seeds of a row.
    """

    rows: Iterable[str] | Callable[[Options], Iterable[str]]
    one: Callable[[str, int, Options], Row]
    line: Callable[[str, list[Row], list[Row]], Row] | None = lambda name, mine, rows: {}
    settings: Callable[[str, Options], tuple[str, dict[str, Any]]] | None = None
    more: Callable[[Options, list[Row]], dict[str, Any]] = lambda options, rows: {}
    most: Mapping[str, int] = field(default_factory=dict)

    def names(self, options: Options) -> list[str]:
        return list(self.rows(options) if callable(self.rows) else self.rows)


@dataclass(frozen=True)
class Study:
    """What is measured of a method, in parts, each a `Part` or a function of the options that gives the part's results.

    Results go to NAME_PART.json, to NAME_PART_DATA.json for other data than digits. Parts of `of_run` look at trained runs, `run` by
    default, and train nothing. `add` adds options of the study's own.
    """

    name: str
    doc: str
    parts: Mapping[str, Part | Callable[[Options], dict[str, Any]]]
    run: Path | None = None
    of_run: tuple[str, ...] = ()
    add: Callable[[argparse.ArgumentParser], object] = lambda parser: None

    def parser(self) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(description=self.doc, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(self.parts))
        parser.add_argument("--out", type=Path, default=Path("studies/results"), help="folder of the results")
        parser.add_argument("--work", type=Path, default=Path(f"runs/study_{self.name}"), help="folder of what was found so far")
        parser.add_argument("--pictures", type=Path, default=Path("docs/images"), help="folder of the figures")
        parser.add_argument("--data", default="digits", help="data set of the parts on images")
        parser.add_argument("--size", type=int, help="side that images are brought to")
        parser.add_argument("--images", type=int, default=200_000, help="images that every model is trained on")
        parser.add_argument("--seconds", type=float, help="CPU seconds at most for one training")
        parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
        parser.add_argument("--seeds", type=int, default=3)
        parser.add_argument(
            "--once", nargs="+", default=[], metavar="ROW", help="rows, or parts of their names, for which seed 0 is enough"
        )
        parser.add_argument("--jobs", type=int, default=1, help="trainings at the same time; keep it at or below the number of cores")
        parser.add_argument("--rows", nargs="+", default=[], metavar="ROW", help="some rows only")
        if self.run is not None:
            parser.add_argument("--run", type=Path, default=self.run, help=f"trained run of {', '.join(self.of_run)}")
        parser.add_argument("--one", nargs=3, metavar=("PART", "ROW", "SEED"), help=argparse.SUPPRESS)
        self.add(parser)
        return parser

    def main(self) -> None:
        """Run the parts that were asked for, all by default, or with --one a single row, which is printed as JSON."""
        parser = self.parser()
        options = parser.parse_args()
        if options.one:
            torch.set_num_threads(1)
            part, row, seed = options.one
            print(json.dumps({"row": row, "seed": int(seed)} | self.parts[part].one(row, int(seed), options)))
            return
        for name in options.parts or self.parts:
            if name not in self.parts:
                parser.error(f"unknown part '{name}': {', '.join(self.parts)}")
            started = time.monotonic()
            part = self.parts[name]
            found = self.results(name, part, options) if isinstance(part, Part) else part(options)
            if found.get("summary"):
                print("\n" + table([{k: v for k, v in line.items() if not isinstance(v, list)} for line in found["summary"]]))
            asked = () if name in self.of_run else ("data", "size", "images", "seconds", "precision", "seeds")
            out = options.out / f"{name_of(f'{self.name}_{name}', options.data)}.json"
            settings = {k: getattr(options, k) for k in asked}
            print(write_results(out, settings | found, seed=0, seconds=time.monotonic() - started))

    def results(self, name: str, part: Part, options: Options) -> dict[str, Any]:
        """A part's rows, those that were asked for, all by default, and their summary; SystemExit where there are none."""
        known = part.names(options)
        names = [row for row in known if not options.rows or row in options.rows]
        if not names:
            raise SystemExit(f"none of --rows {options.rows} is a row of this part: {known}")
        jobs = [
            (row, seed)
            for seed in range(options.seeds)
            for row in names
            if seed < part.most.get(row, options.seeds) and not (seed and any(name in row for name in options.once))
        ]
        rows = self.rows(name, jobs, options)
        of_row = {row: [found for found in rows if found["row"] == row] for row in names}
        lines = [line_of(row, mine) | part.line(row, mine, rows) for row, mine in of_row.items()] if part.line else []
        return {"summary": lines, "runs": rows} | part.more(options, rows)

    def rows(self, part: str, jobs: Sequence[tuple[str, int]], options: Options) -> list[Row]:
        """The rows of (row, seed) jobs, given all options that they may depend on."""
        aside = ("parts", "out", "work", "seeds", "once", "jobs", "rows", "run", "runs", "one")
        given = {f"--{name.replace('_', '-')}": value for name, value in vars(options).items() if name not in aside and value is not None}
        several = [word for name, value in given.items() if isinstance(value, list) for word in (name, *map(str, value))]
        arguments = [f"{name}={value}" for name, value in given.items() if not isinstance(value, list)] + several

        def show(row: Row) -> str:
            short = {k: v for k, v in row.items() if isinstance(v, int | float) and k != "seed"}
            return f"{part}: {row['row']}, seed {row['seed']}: {row.get('diverged') or json.dumps(short)}"

        return rows_of_jobs(
            f"studies.{self.name}", jobs, arguments=[*arguments, "--one", part], places=[f"--work={options.work}"],
            work=options.work, workers=options.jobs, show=show,
        )  # fmt: skip


@dataclass(frozen=True)
class Check:
    """A check of the library: `run` gives its results from the options, `failed` says of results whether they are wrong.

    `own` are the check's own options and their defaults. `one` is a job of a process of its own, `--one WORDS`, whose row is printed.
    """

    name: str
    doc: str
    run: Callable[[Options], Any]
    own: Mapping[str, Any] = field(default_factory=dict)
    one: Callable[[Options], Row] | None = None
    failed: Callable[[Any], bool] = lambda results: False

    def parser(self) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(description=self.doc, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--out", default=f"studies/results/{self.name}.json")
        if self.one:
            parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
        for name, default in self.own.items():
            several = isinstance(default, list)
            kind = type(default[0] if several else default)
            parser.add_argument(f"--{name}", type=kind, nargs="+" if several else None, default=default, help=f"default {default}")
        return parser

    def main(self) -> None:
        """Run the check and write its results; exit code 1 where they are wrong."""
        options, started = self.parser().parse_args(), time.monotonic()
        torch.set_num_threads(getattr(options, "threads", torch.get_num_threads()))
        if self.one and options.one:
            print(json.dumps(self.one(options)))
            return
        results = self.run(options)
        print(write_results(options.out, results, seed=getattr(options, "seed", 0), seconds=time.monotonic() - started))
        sys.exit(self.failed(results))


def precise(precision: str) -> Any:
    """A context in which chains run on the CPU in the precision that they were trained in."""
    return autocast(precision)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of equal keys as an aligned text table; numbers with four digits."""
    if not rows:
        return ""
    heads = list(rows[0])
    cells = [heads] + [[f"{v:.4g}" if isinstance(v, float) else str(v) for v in (row[h] for h in heads)] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(heads))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in cells)
