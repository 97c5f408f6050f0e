"""Which calls trained a run: when, by which command, on which machine. A line each in the run's calls.jsonl."""

import contextlib
import datetime
import json
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

import torch

import thalweg
from thalweg.checkpoint import writing
from thalweg.precision import native

NAME = "calls.jsonl"


def machine() -> dict[str, Any]:
    """The processor's model, its vector instructions and whether some are for bfloat16, the cores of the machine and those that this
    process may use, memory in GiB, and the GPU if any.
    """
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
        "cpu": model, "cores": os.cpu_count(), "usable_cores": usable,
        "instructions": torch.backends.cpu.get_cpu_capability(), "bf16": native("cpu"),
        "threads": torch.get_num_threads(), "memory_gib": memory,
        "system": platform.platform(), "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }  # fmt: skip


def command() -> str:
    """How this process was called, as one would type it."""
    program, *words = sys.argv if sys.argv and sys.argv[0] else ["python"]
    path = Path(program)
    if "ipykernel" in program:
        return "a notebook"
    if path.name == "thalweg" or path.parts[-2:] in (("thalweg", "cli.py"), ("thalweg", "__main__.py")):
        return shlex.join(["thalweg", *words])
    return shlex.join(["python", path.name, *words]) if path.suffix == ".py" else shlex.join([path.name, *words])


def this(**about: Any) -> dict[str, Any]:
    """This call as it is kept; `about` says more of it, plain values."""
    return {
        "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"), "command": command(), **about, "machine": machine(),
        "versions": {"thalweg": thalweg.__version__, "torch": torch.__version__, "python": platform.python_version()},
    }  # fmt: skip


def note(out: Path, call: dict[str, Any]) -> None:
    """Add `call` to those of the run in `out`. InputError where it cannot be written."""
    with writing(out / NAME), open(out / NAME, "a", encoding="utf-8") as file:
        file.write(json.dumps(call) + "\n")


def read(out: Path) -> list[dict[str, Any]]:
    """The calls of a run, the first one first; none for a run of an earlier version, lines that are torn are left out."""
    rows = []
    with contextlib.suppress(OSError):
        for line in (out / NAME).read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict) and {"started", "command", "machine"} <= row.keys()]
