"""What happens when a machine fails? Two processes under torchrun, one killed at random times; python -m studies.checks.node [--kills 20]

A process stands for a machine. One run is left alone; another one, started by the same command with `--max-restarts`, loses one of its
two processes to SIGKILL again and again: torchrun ends the other one and starts both, which go on from the newest state. Then, in a run of
its own, torchrun itself is sent SIGTERM, as by a scheduler, and the command is given again. All must end bit-equal to the first.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from studies.checks.resume import ROOT, difference, images_done
from studies.runner import Check, Options
from studies.tables import shown

TRAIN = "short_run/8gaussians --width 16 --steps 2 --sample_steps 5 --batch 16 --buffer 64 --device cpu --sample-every 1000000"
SAVE_EVERY = 64
SLOW = 60.0  # seconds after which a start is given up


@contextmanager
def started(out: Path, images: int, restarts: int) -> Iterator[subprocess.Popen]:
    """torchrun with two processes in `out`, ended when the block is left."""
    words = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "--max-restarts",
        str(restarts),
        "--monitor-interval",
        "0.1",
    ]
    train = ["-m", "thalweg.cli", "train", *TRAIN.split(), "--images", str(images), "--save-every", str(SAVE_EVERY), "--out", str(out)]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "src", ROOT))),
    }
    with open(out.with_suffix(".log"), "a") as log:
        running = subprocess.Popen([sys.executable, *words, *train], cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        yield running
    finally:
        if running.poll() is None:
            running.terminate()
        running.wait()


def ranks(agent: int) -> list[int]:
    """The processes that torchrun has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, _, rest = path.read_text().partition(" (")
            if int(rest.rpartition(") ")[2].split()[1]) == agent:
                found.append(int(pid))
        except OSError:  # gone meanwhile
            continue
    return sorted(found)


def wait_for(running: subprocess.Popen, out: Path, images: int) -> bool:
    """Whether the run reaches so many images before it ends; RuntimeError where its states stand still."""
    last, since = images_done(out), time.monotonic()
    while running.poll() is None:
        done = images_done(out)
        if done >= images:
            return True
        if done != last:
            last, since = done, time.monotonic()
        if time.monotonic() - since > SLOW:
            raise RuntimeError(f"no new state for {SLOW:.0f} seconds: {out.with_suffix('.log').read_text()[-1500:]}")
        time.sleep(0.02)
    return False


def with_kills(out: Path, images: int, kills: int, draw: random.Random) -> dict:
    """One command, of whose two processes one is killed `kills` times; how it ended, and how long each came back."""
    back, killed_at, victims = [], [], []
    with started(out, images, restarts=kills + 1) as running:
        for number in range(kills):
            before = max(0, images_done(out))
            target = before + SAVE_EVERY + draw.uniform(0, max(0, 0.9 * images - before) / (kills - number))
            if not wait_for(running, out, int(target)):
                break
            time.sleep(draw.uniform(0, 0.02))
            alive = ranks(running.pid)
            victims.append(draw.randrange(len(alive)))
            os.kill(alive[victims[-1]], signal.SIGKILL)
            at, moment = images_done(out), time.monotonic()
            killed_at.append(at)
            if wait_for(running, out, at + SAVE_EVERY):
                back.append(round(time.monotonic() - moment, 1))
        code = running.wait()
    return {"kills": len(killed_at), "asked": kills, "killed_at": killed_at, "ranks": victims, "seconds_back": back, "code": code}


def with_a_signal(out: Path, images: int) -> dict:
    """torchrun is sent SIGTERM half way, and the command is given again."""
    with started(out, images, restarts=0) as running:
        wait_for(running, out, images // 2)
        running.send_signal(signal.SIGTERM)
        ended = running.wait()
    at = images_done(out)
    with started(out, images, restarts=0) as running:
        code = running.wait()
    return {"ended_with": ended, "at": at, "code": code}


def run(options: Options) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        whole, broken, ended = (Path(folder) / name for name in ("whole", "broken", "ended"))
        beginning = time.perf_counter()
        with started(whole, options.images, restarts=0) as running:
            if running.wait():
                raise RuntimeError(whole.with_suffix(".log").read_text()[-2000:])
        found = {"images": options.images, "seconds_unbroken": round(time.perf_counter() - beginning, 1)}
        found |= with_kills(broken, options.images, options.kills, random.Random(options.seed))
        found["first_difference"] = difference(whole, broken)
        found["signal"] = with_a_signal(ended, options.images) | {"first_difference": difference(whole, ended)}
    print(json.dumps(found), flush=True)
    return found


def failed(found: dict) -> bool:
    ends = (found, found["signal"])
    return found["kills"] != found["asked"] or any(end["code"] or end["first_difference"] for end in ends)


def said(results: dict) -> str:
    """The sentence of docs/scale.md."""
    back = sorted(results["seconds_back"])
    middle = shown(back[len(back) // 2], ".1f") if back else "–"
    equal = "bit-equal to one that was left alone" if results["first_difference"] is None else f"not equal: {results['first_difference']}"
    return (
        f"Killed {results['kills']} times ({results['ranks'].count(0)} times the first process), the run ended {equal}; after a kill a new "
        f"state was there within {middle} s (the median, with the start of two processes on a shared machine). SIGTERM to `torchrun` at "
        f"{results['signal']['at']:,} of {results['images']:,} images: "
        f"{'bit-equal too' if results['signal']['first_difference'] is None else 'not equal'}."
    )


CHECK = Check("node", __doc__, run, dict(kills=20, images=40_000, seed=0), failed=failed)

if __name__ == "__main__":
    CHECK.main()
