"""What all benchmarks share: where and how a result came about, jobs in processes of their own, and tables on the terminal."""

import argparse
import dataclasses
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
from pathlib import Path
from typing import Any

import numpy
import torch

import thalweg


def machine() -> dict[str, Any]:
    """The processor's model, the cores of the machine and those that this process may use, memory in GiB, and the GPU if any."""
    model, memory = platform.processor() or platform.machine(), None
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
        total = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
        memory = round(int(total.split()[1]) / 2**20, 1)
    except OSError:  # not Linux
        pass
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "usable_cores": usable,
        "threads": torch.get_num_threads(),
        "memory_gib": memory,
        "system": platform.platform(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def file_of(*words: str) -> str:
    """The name of a picture: its words in small letters, without what is no letter or digit."""
    return "_".join("".join(a for a in word.lower() if a.isalnum() or a in "-_") for word in words) + ".png"


def versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "thalweg": thalweg.__version__,
    }


def write_results(out: str | Path, results: Mapping[str, Any], *, seed: int, seconds: float) -> Path:
    """`results` beside the machine, versions, seed, command, duration and date, as JSON in `out`; replaced in one piece."""
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
    show: Callable[[dict[str, Any]], str],
) -> list[dict[str, Any]]:
    """The row of each job, in the order of `jobs`: the last line, JSON, of what `python -m MODULE ARGUMENTS JOB` prints.

    Each job is a process of its own with one thread, `workers` of them at a time; `show` of its row is printed when it ends. Rows
    are kept in `work`, and a job is not run again unless its arguments or the code have changed: that of the package and of the
    module, comments too. `places` are more arguments, of where things lie, that a row does not depend on. A process that fails raises
    SystemExit with what it said.
    """

    def row_of(job: Sequence[str | int | float]) -> dict[str, Any]:
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
        print(show(row), flush=True)
        return row

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(row_of, jobs))


def _digest(command: Sequence[str], module: str) -> str:
    """Of a command and of the sources that it runs."""
    package = Path(thalweg.__file__).parent
    digest = hashlib.sha256(json.dumps(command).encode())
    for path in [*sorted(package.rglob("*.py")), Path(importlib.util.find_spec(module).origin)]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _write(path: Path, text: str) -> None:
    """In one piece: whoever is stopped leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(path.suffix + ".part")
    part.write_text(text)
    part.replace(path)


@dataclasses.dataclass(frozen=True)
class Study:
    """A benchmark in parts, some of which train many models: each row and seed of those is a process of its own (`rows_of_jobs`).

    `parts` give a part's results, those of `ones` one row's of one seed. Results go to NAME_PART.json, with -DATA behind for data
    other than digits. `of_run` are the parts that look at a trained run, `run` by default, and train nothing.
    """

    name: str
    doc: str
    parts: Mapping[str, Callable[[argparse.Namespace], dict[str, Any]]]
    ones: Mapping[str, Callable[[str, int, argparse.Namespace], dict[str, Any]]]
    run: Path
    of_run: tuple[str, ...] = ()

    def parser(self) -> argparse.ArgumentParser:
        """The options that all studies share; a study adds its own."""
        parser = argparse.ArgumentParser(description=self.doc, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(self.parts))
        parser.add_argument("--out", type=Path, default=Path("studies/results"), help="folder of the results")
        parser.add_argument("--work", type=Path, default=Path(f"runs/study_{self.name}"), help="folder of what was found so far")
        parser.add_argument("--pictures", type=Path, default=Path("docs/images"), help="folder of the figures")
        parser.add_argument("--data", default="digits", help="digits or fashion-mnist")
        parser.add_argument("--size", type=int, help="side that images are brought to")
        parser.add_argument("--images", type=int, default=200_000, help="images that every model is trained on")
        parser.add_argument("--seconds", type=float, help="CPU seconds at most for one training")
        parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
        parser.add_argument("--seeds", type=int, default=3)
        parser.add_argument("--once", nargs="+", default=[], metavar="ROW", help="rows that seed 0 is enough for")
        parser.add_argument("--jobs", type=int, default=1, help="trainings at the same time; keep it at or below the number of cores")
        parser.add_argument("--rows", nargs="+", default=[], metavar="ROW", help="some rows only")
        parser.add_argument("--run", type=Path, default=self.run, help=f"trained run of {', '.join(self.of_run)}")
        parser.add_argument("--one", nargs=3, metavar=("PART", "ROW", "SEED"), help=argparse.SUPPRESS)
        return parser

    def main(self, parser: argparse.ArgumentParser) -> None:
        """Run the parts that were asked for, all by default, or with --one a single row, which is printed as JSON."""
        options = parser.parse_args()
        if options.one:
            torch.set_num_threads(1)
            part, row, seed = options.one
            print(json.dumps(self.ones[part](row, int(seed), options)))
            return
        for part in options.parts or self.parts:
            if part not in self.parts:
                parser.error(f"unknown part '{part}': {', '.join(self.parts)}")
            started = time.monotonic()
            found = self.parts[part](options)
            if found.get("summary"):
                print("\n" + table([{k: v for k, v in line.items() if not isinstance(v, list)} for line in found["summary"]]))
            asked = () if part in self.of_run else ("data", "size", "images", "seconds", "precision", "seeds")
            name = f"{self.name}_{part}.json" if options.data == "digits" else f"{self.name}_{part}_{options.data}.json"
            settings = {k: getattr(options, k) for k in asked}
            print(write_results(options.out / name, settings | found, seed=0, seconds=time.monotonic() - started))

    def chosen(self, names: Iterable[str], options: argparse.Namespace) -> list[str]:
        """Those of a part's rows that were asked for, all by default; SystemExit where there are none, as results would be empty."""
        names = list(names)
        found = [name for name in names if not options.rows or name in options.rows]
        if not found:
            raise SystemExit(f"none of --rows {options.rows} is a row of this part: {names}")
        return found

    def rows(self, part: str, jobs: Sequence[tuple[str, int]], options: argparse.Namespace) -> list[dict[str, Any]]:
        """The rows of (row, seed) jobs but for those that --once leaves out, with all options that a training may depend on."""
        jobs = [(row, seed) for row, seed in jobs if not seed or row not in options.once]
        aside = ("parts", "out", "work", "seeds", "once", "jobs", "rows", "run", "one")
        given = {f"--{name.replace('_', '-')}": value for name, value in vars(options).items() if name not in aside and value is not None}
        several = [word for name, value in given.items() if isinstance(value, list) for word in (name, *map(str, value))]
        arguments = [f"{name}={value}" for name, value in given.items() if not isinstance(value, list)] + several

        def show(row: dict[str, Any]) -> str:
            short = {k: v for k, v in row.items() if isinstance(v, int | float) and k != "seed"}
            return f"{part}: {row['row']}, seed {row['seed']}: {row.get('diverged') or json.dumps(short)}"

        return rows_of_jobs(
            f"studies.{self.name}", jobs, arguments=[*arguments, "--one", part], places=[f"--work={options.work}"],
            work=options.work, workers=options.jobs, show=show,
        )  # fmt: skip


def precise(options: argparse.Namespace) -> Any:
    """A context in which chains run in the precision that they were trained in, `--precision`, on the CPU."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=options.precision == "bf16")


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of equal keys as an aligned text table; numbers with four digits."""
    if not rows:
        return ""
    heads = list(rows[0])
    cells = [heads] + [[f"{v:.4g}" if isinstance(v, float) else str(v) for v in (row[h] for h in heads)] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(heads))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in cells)
