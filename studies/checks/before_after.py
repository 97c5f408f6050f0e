"""Is this checkout as fast as another one? Training steps and Langevin steps of presets, in turn, round by round.

    python -m studies.checks.before_after --before ../other-checkout

Each checkout has a process of its own, with one thread, which is asked for one round at a time: what slows the machine slows both.
Seconds are of CPU time; the ratio is this checkout's over the other's, its median over rounds. So are the seconds of starting commands,
by the clock.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from studies.runner import Check, Options

PRESETS = ("short_run/digits", "egc/digits", "cdrl/digits", "coopflow/digits")
COMMANDS = {
    "import thalweg": ["-c", "import thalweg"],
    "thalweg --help": ["-m", "thalweg.cli", "--help"],
    "thalweg list": ["-m", "thalweg.cli", "list"],
}
WORKER = """
import json, sys, time
import torch
torch.set_num_threads(1)
import thalweg as tw

models = {}
for name in json.loads(sys.argv[1]):
    data = tw.data.load("digits")
    models[name] = tw.method(name, data=data, images=10**9), data
x = data.batch(0, 128, seed=0).x
for line in sys.stdin:
    name, what, count = json.loads(line)
    method, data = models[name]
    if what == "training":
        images = count * method.config.batch
        start = time.process_time()
        tw.fit(method, data, images=images, progress=False, save_every=10**9, sample_every=10**9)
        method.requires_grad_(True)
    else:
        model = method.eval()
        start = time.process_time()
        with torch.no_grad():
            tw.sample.langevin(model.energy, x, steps=count, step=1e-4, generator=tw.random.seeded(0))
    print(json.dumps(time.process_time() - start), flush=True)
"""


class Checkout:
    """A process that runs rounds in one checkout."""

    def __init__(self, source: Path) -> None:
        self.environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
        command = [sys.executable, "-c", WORKER, json.dumps(PRESETS)]
        self.process = subprocess.Popen(command, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, name: str, what: str, count: int) -> float:
        """CPU seconds of `count` steps."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps([name, what, count]) + "\n")
        self.process.stdin.flush()
        return float(json.loads(self.process.stdout.readline()))

    def start(self, words: list[str]) -> float:
        """Wall-clock seconds of a command of its own."""
        started = time.perf_counter()
        subprocess.run([sys.executable, *words], env=self.environment, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - started


def source_of(folder: Path) -> Path:
    """Where the package of a checkout lies: src/, or the folder itself."""
    for source in (folder / "src", folder):
        if (source / "thalweg" / "__init__.py").is_file():
            return source.resolve()
    raise SystemExit(f"{folder} is no checkout of Thalweg")


def run(options: Options) -> dict:
    sides = {"before": Checkout(source_of(options.before)), "after": Checkout(source_of(Path(__file__).parents[2]))}
    rows = []
    for name in PRESETS:
        for what, count in (("training", options.steps), ("langevin", 10 * options.steps)):
            for side in sides.values():
                side.ask(name, what, count)  # not counted
            found = [{key: side.ask(name, what, count) for key, side in sides.items()} for _ in range(options.rounds)]
            rows.append({"preset": name, "what": what, "steps": count, **summary(found)})
            print(f"{name:18} {what:9} {rows[-1]['ratio']:.3f}", flush=True)
    for name, words in COMMANDS.items():
        found = [{key: side.start(words) for key, side in sides.items()} for _ in range(options.rounds)]
        rows.append({"preset": name, "what": "start", "steps": 1, **summary(found)})
        print(f"{name:18} {'start':9} {rows[-1]['ratio']:.3f}", flush=True)
    return {"rounds": options.rounds, "rows": rows}


def summary(found: list[dict[str, float]]) -> dict[str, float]:
    """Medians of both sides and of the ratio round by round, with its least and greatest."""
    ratios = [pair["after"] / pair["before"] for pair in found]
    seconds = {f"seconds_{key}": median(pair[key] for pair in found) for key in ("before", "after")}
    return seconds | {"ratio": median(ratios), "ratio_low": min(ratios), "ratio_high": max(ratios)}


# Langevin steps are ten times as many as `steps`, those of training
CHECK = Check("before_after", __doc__, run, dict(before=Path("../before"), rounds=9, steps=12))

if __name__ == "__main__":
    CHECK.main()
