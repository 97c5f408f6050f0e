"""What all benchmarks share: where and how a result came about, jobs in processes of their own, and tables on the terminal."""

import datetime
import hashlib
import importlib.util
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
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
    show: Callable[[dict[str, Any]], str],
) -> list[dict[str, Any]]:
    """The row of each job, in the order of `jobs`: the last line, JSON, of what `python -m MODULE ARGUMENTS JOB` prints.

    Each job is a process of its own with one thread, `workers` of them at a time; `show` of its row is printed when it ends. Rows
    are kept in `work`, and a job is not run again unless its arguments or the code have changed: that of the package and of the
    module, comments too. A process that fails raises SystemExit with what it said.
    """

    def row_of(job: Sequence[str | int | float]) -> dict[str, Any]:
        command = ["-m", module, *arguments, *map(str, job)]
        kept = work / f"{_digest(command, module)}.json"
        if kept.exists():
            return json.loads(kept.read_text())
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
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


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of equal keys as an aligned text table; numbers with four digits."""
    if not rows:
        return ""
    heads = list(rows[0])
    cells = [heads] + [[f"{v:.4g}" if isinstance(v, float) else str(v) for v in (row[h] for h in heads)] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(heads))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in cells)
