"""Does a killed run end where an unbroken one does? python -m benchmarks.resume [--kills 20] [--seed 0] [--out FILE]

For each method a tiny model is trained once without a break, and once more while SIGKILL strikes at uniformly random
moments of its life (start-up from the last state included) and the same command is given again each time. States are
written every other update, so that many kills strike a write. All of the final state must be bit-equal: weights, EMA twin,
optimizer moments, chains, counters, the best criterion; and the rows of stats.jsonl but for their seconds.
"""

import argparse
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

METHODS = {
    "short_run/8gaussians": dict(width=16, steps=2, sample_steps=5, batch=16, images=4800, buffer=64),
    "egc/digits": dict(width=8, blocks=1, levels=20, sample_steps=5, batch=16, images=3200, dropout=0.1),
}
READY = b"ready\n"


def train(name: str, out: str) -> None:
    """The program that is killed: train, or resume, in `out`."""
    import thalweg as tw
    from thalweg.train import fit

    data = tw.data.load(name.split("/")[1])
    method = tw.method(name, **METHODS[name])
    held_out = data.batch(10**6, 16, 1)
    os.write(1, READY)
    fit(method, data, out, seed=5, log_every=32, sample_every=320, save_every=32, held_out=held_out, progress=False)


def start(name: str, out: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", f"from benchmarks.resume import train; train({name!r}, {str(out)!r})"]
    root = Path(__file__).parents[1]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, cwd=root, env=os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    )


def wait_until_ready(process: subprocess.Popen, limit: float = 120.0) -> None:
    """Until the imports are done and `fit` is about to be called."""
    if not select.select([process.stdout], [], [], limit)[0] or os.read(process.stdout.fileno(), len(READY)) != READY:
        raise RuntimeError(f"the run did not start within {limit:.0f} s")


@dataclass
class Tally:
    """What happened to one run: `during_a_write` counts kills that left a half-written file behind."""

    starts: int = 0
    kills: int = 0
    during_a_write: int = 0
    before_any_state: int = 0


def run_with_kills(name: str, out: Path, *, kills: int, span: float, draw: random.Random) -> Tally:
    """Start, kill after uniform(0, span) seconds of training, and so on `kills` times; then let it end.

    A run that ends before the last kill is left as it is: `kills` of the result then says how many it took.
    """
    tally = Tally()
    while True:
        process = start(name, out)
        tally.starts += 1
        with process.stdout:
            wait_until_ready(process)
            if tally.kills < kills:
                try:
                    process.wait(timeout=draw.uniform(0.0, span))
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    if process.returncode == -signal.SIGKILL:
                        tally.kills += 1
                        tally.during_a_write += bool(list(out.glob("*.partial")))
                        tally.before_any_state += not list(out.glob("state-*.pt"))
                        continue
            if process.wait(timeout=600) != 0:
                raise RuntimeError(f"the run ended with code {process.returncode}")
        return tally


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="benchmarks/results/resume.json")
    options = parser.parse_args()
    began, results = time.perf_counter(), {}
    for name in METHODS:
        with tempfile.TemporaryDirectory() as folder:
            whole, broken = Path(folder) / "whole", Path(folder) / "broken"
            process = start(name, whole)
            with process.stdout:
                wait_until_ready(process)
                ready = time.perf_counter()
                if process.wait(timeout=600) != 0:
                    raise RuntimeError("the unbroken run failed")
            expected = time.perf_counter() - ready
            # on average the kills fall within 80 % of the run, as each also costs what was done since the last state
            tally = run_with_kills(name, broken, kills=options.kills, span=1.6 * expected / options.kills, draw=random.Random(options.seed))
            place = difference(whole, broken)
            results[name] = {"seconds_unbroken": round(expected, 2), **asdict(tally), "bit_equal": place is None, "first_difference": place}
        print(name, results[name], flush=True)
    from benchmarks.common import write_results

    print(write_results(options.out, results, seed=options.seed, seconds=time.perf_counter() - began))
    sys.exit(not all(result["bit_equal"] and result["kills"] == options.kills for result in results.values()))


if __name__ == "__main__":
    main()
