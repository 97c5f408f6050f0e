"""What all benchmarks share: where and how a result came about, and tables on the terminal."""

import datetime
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
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
        "command": " ".join(command),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "seconds": round(seconds, 1),
        "machine": machine(),
        "versions": versions(),
        "results": results,
    }
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_suffix(out.suffix + ".part")
    part.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
    part.replace(out)
    return out


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of equal keys as an aligned text table; numbers with four digits."""
    if not rows:
        return ""
    heads = list(rows[0])
    cells = [heads] + [[f"{v:.4g}" if isinstance(v, float) else str(v) for v in (row[h] for h in heads)] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(heads))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in cells)
