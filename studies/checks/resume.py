"""Does a killed run end where an unbroken one does? python -m studies.checks.resume [--kills 20] [--seed 0] [--out FILE]

For each method a tiny model is trained once without a break, and once more while SIGKILL strikes at random moments spread
over the run and the same command is given again each time. A moment is a uniformly random count of images among those that
the next kills still have, plus up to 20 ms, so that it falls anywhere in a step or a write; every restart makes progress,
however busy the machine is. States are written every other update. All of the final state must be bit-equal: weights, EMA
twin, optimizer moments, chains, counters, the best criterion; and the rows of stats.jsonl but for their seconds.
"""

import contextlib
import json
import math
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from studies.runner import Check, Options
from studies.tables import Section, Shown, Table

ROOT = Path(__file__).parents[2]
METHODS = {
    "short_run/8gaussians": dict(width=16, steps=2, sample_steps=5, batch=16, images=4800, buffer=64),
    "egc/digits": dict(width=8, blocks=1, levels=20, sample_steps=5, batch=16, images=3200, dropout=0.1),
}
SAVE_EVERY = 32


def train(name: str, out: str, images: int | None = None) -> None:
    """The program that is killed: train, or resume, in `out`."""
    import thalweg as tw
    from thalweg.train import fit

    data = tw.data.load(name.split("/")[1])
    method = tw.method(name, **METHODS[name] | ({"images": images} if images else {}))
    held_out = data.batch(10**6, 16, 1)
    fit(method, data, out, seed=5, log_every=32, sample_every=320, save_every=SAVE_EVERY, held_out=held_out, progress=False)


def serve() -> None:
    """Fork a run for each line of JSON on the standard input; answer with its process id, then with its exit code."""
    import torch._dynamo  # noqa: F401 (an optimizer would import it in its first step)

    import thalweg.train  # noqa: F401
    from thalweg import data, methods

    for name in METHODS:
        methods.preset(name)
        data.load(name.split("/")[1])
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            train(*json.loads(line))
            os._exit(0)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


class Starter:
    """Starts runs as forks of a process that has imported everything and trained nothing: an import takes longer than a run."""

    def __enter__(self) -> "Starter":
        command = [sys.executable, "-c", "from studies.checks.resume import serve; serve()"]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
        self.server = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_) -> None:
        self.server.__exit__(*_)  # closes its input, which ends it

    def run(
        self, name: str, out: Path, images: int | None = None, kill_when: Callable[[], bool] = lambda: False, delay: float = 0.0
    ) -> int:
        """One process from start to end, killed `delay` seconds after `kill_when()` first holds; returns its exit code."""
        self.server.stdin.write(json.dumps([name, str(out), images]) + "\n")
        self.server.stdin.flush()
        handle = os.pidfd_open(int(self.server.stdout.readline()))
        try:
            while not select.select([handle], [], [], 0.002)[0]:
                if kill_when():
                    time.sleep(delay)
                    with contextlib.suppress(ProcessLookupError):
                        signal.pidfd_send_signal(handle, signal.SIGKILL)
                    break
        finally:
            os.close(handle)
        return int(self.server.stdout.readline())


def images_done(out: Path) -> int:
    """The count of images of the newest state on disk, −1 where there is none."""
    return max((int(path.name.split("-")[1]) for path in out.glob("state-*.pt")), default=-1)


@dataclass
class Tally:
    """What happened to one run: `during_a_write` counts kills that left a half-written file behind."""

    starts: int = 0
    kills: int = 0
    during_a_write: int = 0
    killed_at: list[int] = field(default_factory=list)


def run_with_kills(starter: Starter, name: str, out: Path, *, kills: int, draw: random.Random, images: int | None = None) -> Tally:
    """Start, kill at a random moment, and so on `kills` times, all within the first nine tenths; then let it end.

    A run that ends before the last kill is left as it is: `kills` of the result then says how many it took.
    """
    tally = Tally()
    last = int(0.9 * (images or METHODS[name]["images"]))
    while True:
        before = max(0, images_done(out))
        target = before + draw.uniform(0, 2 * (last - before) / (kills - tally.kills + 1)) if tally.kills < kills else math.inf
        code = starter.run(name, out, images, lambda target=target: images_done(out) >= target, draw.uniform(0.0, 0.02))
        tally.starts += 1
        if code == 0:
            return tally
        if code != -signal.SIGKILL:
            raise RuntimeError(f"the run ended with code {code}")
        tally.kills += 1
        tally.killed_at.append(images_done(out))
        tally.during_a_write += bool(list(out.glob("*.partial")))


def difference(a: Path, b: Path) -> str | None:
    """Where the last states or the stats of two runs differ, or None where they are bit-equal."""
    from thalweg import checkpoint

    one, two = checkpoint.latest(a), checkpoint.latest(b)
    one.pop("elapsed"), two.pop("elapsed")
    rows = [[{key: value for key, value in row.items() if key != "seconds"} for row in checkpoint.read_stats(out)] for out in (a, b)]
    return _first_difference(one, two) or _first_difference(rows[0], rows[1], "stats")


def _first_difference(a, b, where: str = "") -> str | None:
    import torch

    if type(a) is not type(b):
        return where
    if isinstance(a, torch.Tensor):
        return None if a.dtype == b.dtype and torch.equal(a, b) else where
    if isinstance(a, dict | list | tuple):
        keys = a if isinstance(a, dict) else range(len(a))
        if len(a) != len(b) or (isinstance(a, dict) and a.keys() != b.keys()):
            return where
        places = (_first_difference(a[key], b[key], f"{where}/{key}".lstrip("/")) for key in keys)
        return next((place for place in places if place is not None), None)
    return None if a == b else where


def run(options: Options) -> dict:
    results = {}
    for name in METHODS:
        with tempfile.TemporaryDirectory() as folder, Starter() as starter:
            whole, broken = Path(folder) / "whole", Path(folder) / "broken"
            beginning = time.perf_counter()
            if starter.run(name, whole) != 0:
                raise RuntimeError("the unbroken run failed")
            seconds = time.perf_counter() - beginning
            tally = run_with_kills(starter, name, broken, kills=options.kills, draw=random.Random(options.seed))
            place = difference(whole, broken)
            results[name] = {"seconds_unbroken": round(seconds, 2), **asdict(tally), "asked": options.kills}
            results[name] |= {"bit_equal": place is None, "first_difference": place}
        print(name, results[name], flush=True)
    return results


def failed(results: dict) -> bool:
    return not all(found["bit_equal"] and found["kills"] == found["asked"] for found in results.values())


EQUAL = ("ends bit-equal", lambda row: "yes" if row["bit_equal"] else f"no: {row['first_difference']}")
TABLE = Table(["run | kills | during a write = during_a_write", EQUAL], lambda r: [{"run": name, **r[name]} for name in METHODS])
PAGE = [Section("Resume after SIGKILL", [Shown("resume", [TABLE])])]
CHECK = Check("resume", __doc__, run, dict(kills=20, seed=0), failed=failed)

if __name__ == "__main__":
    CHECK.main()
