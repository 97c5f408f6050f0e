"""What happens when a machine fails? Two processes under torchrun meet faults at random times; python -m studies.checks.node [--kills 20]

A process stands for a machine. One run is left alone; another one, started by the same command with `--max-restarts`, meets fault after
fault, drawn by the seed: SIGKILL of one process (torchrun ends the other and starts both), or of all with torchrun (the command is given
again), a disk that is full (no file may grow beyond some bytes, so that no state can be written), and, of latents, all killed and a byte
of a shard altered. Then, in a run of its own, torchrun itself is sent SIGTERM, as by a scheduler, and the command is given again. All must
end bit-equal to the first, and so must the latents.

`--on toy` trains on points; `--on latents` on pictures of Fashion-MNIST as files of `--size` pixels, streamed and encoded into shards by
both processes, the first time until they are killed while they encode.
"""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from studies.checks.resume import ROOT, difference, images_done
from studies.runner import Check, Options
from studies.tables import shown
from thalweg import data

SAVE_EVERY = 64
SLOW = 60.0  # seconds after which a start is given up; before the first state, when latents are encoded, ten times as many
ROOM = 2**16  # bytes that a file may have on a full disk: more than a log, less than a state
KINDS = {"toy": ("disk", "one", "all"), "latents": ("shard", "disk", "one", "all")}
TOY = "short_run/8gaussians --width 16 --steps 2 --sample_steps 5 --batch 16 --buffer 64"
LATENT = "egc/digits --width 8 --blocks 1 --levels 20 --sample_steps 2 --batch 16 --stream --latent-views 2"


@dataclass(frozen=True)
class Runs:
    """What is trained: the words of the command, its length, and the folder of each run's latents."""

    words: tuple[str, ...]
    images: int

    def command(self, out: Path) -> list[str]:
        lengths = ("--images", self.images, "--save-every", SAVE_EVERY, "--sample-every", 10**9)
        return ["-m", "thalweg.cli", "train", *self.words, "--device", "cpu", *map(str, lengths), "--out", str(out)]

    @contextmanager
    def started(self, out: Path, restarts: int) -> Iterator[subprocess.Popen]:
        """torchrun with two processes in `out`, ended when the block is left."""
        words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", str(restarts)]
        with open(out.with_suffix(".log"), "a") as log:
            running = subprocess.Popen(
                [sys.executable, *words, "--monitor-interval", "0.1", *self.command(out)],
                cwd=ROOT,
                env=environment(out),
                stdout=log,
                stderr=log,
            )
        try:
            yield running
        finally:
            if running.poll() is None:
                running.terminate()
            running.wait()


def environment(out: Path) -> dict[str, str]:
    """That of a run, whose latents are its own."""
    paths = os.pathsep.join(map(str, (ROOT / "src", ROOT)))
    return os.environ | {
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
        "PYTHONPATH": paths,
        "THALWEG_LATENTS": str(latents(out)),
    }


def latents(out: Path) -> Path:
    return out.with_suffix(".latents")


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
        if time.monotonic() - since > SLOW * (1 if done > 0 else 10):
            raise RuntimeError(f"no new state for {time.monotonic() - since:.0f} seconds: {log_of(out)[-1500:]}")
        time.sleep(0.02)
    return False


def log_of(out: Path) -> str:
    return out.with_suffix(".log").read_text()


def first_of(pids: list[int]) -> int:
    """The process that writes states."""
    return next(pid for pid in pids if b"\0RANK=0\0" in b"\0" + Path(f"/proc/{pid}/environ").read_bytes())


def kill_all(running: subprocess.Popen) -> None:
    pids = ranks(running.pid)
    for pid in (running.pid, *pids):  # torchrun first, which would start others
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    running.wait()


def tear(folder: Path, draw: random.Random) -> None:
    """Alter a byte of latents that were whole."""
    rows = max(folder.rglob("rows.f32"), key=lambda path: path.stat().st_size)  # those of training, not the held-out ones
    with open(rows, "r+b") as file:
        place = draw.randrange(rows.stat().st_size)
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))


def killed_while_encoding(runs: Runs, out: Path) -> bool:
    """The first start, of which all are killed as soon as a shard is there; whether one was, and no run."""
    with runs.started(out, restarts=0) as running:
        while running.poll() is None and not list(latents(out).rglob("shard-*")):
            time.sleep(0.02)
        kill_all(running)
    return bool(list(latents(out).rglob("shard-*"))) and images_done(out) < 0


def with_faults(runs: Runs, out: Path, kinds: list[str], draw: random.Random) -> dict:
    """The command, given again whenever torchrun is gone, while faults strike; how it ended, and how long each took to come back."""
    back, struck, left, code, starts = [], [], list(kinds), None, 0
    while code is None and starts <= len(kinds):
        starts += 1
        with runs.started(out, restarts=len(kinds) + 1) as running:
            gone = False
            while left and not gone:
                before = max(0, images_done(out))
                target = before + SAVE_EVERY + draw.uniform(0, max(0, 0.9 * runs.images - before) / len(left))
                if not wait_for(running, out, int(target)):
                    break
                time.sleep(draw.uniform(0, 0.02))
                kind, pids, at, moment = left.pop(0), ranks(running.pid), images_done(out), time.monotonic()
                struck.append({"kind": kind, "at": at})
                if kind == "one":
                    victim = draw.choice(pids)
                    struck[-1]["first"] = victim == first_of(pids)
                    os.kill(victim, signal.SIGKILL)
                elif kind == "disk":
                    victim = first_of(pids)
                    resource.prlimit(victim, resource.RLIMIT_FSIZE, (ROOM, resource.RLIM_INFINITY))
                    while victim in ranks(running.pid):
                        time.sleep(0.02)
                else:
                    kill_all(running)
                    gone = True
                    if kind == "shard":
                        tear(latents(out), draw)
                if not gone and wait_for(running, out, images_done(out) + SAVE_EVERY):
                    back.append(round(time.monotonic() - moment, 1))
            if not gone:
                code = running.wait()
    said = log_of(out)
    return {
        "asked": len(kinds),
        "faults": struck,
        "seconds_back": back,
        "starts": starts,
        "code": code,
        "torn_told": said.count("is torn; it is made anew"),
        "full_told": said.count("the disk is full"),
    }


def with_a_signal(runs: Runs, out: Path) -> dict:
    """torchrun is sent SIGTERM half way, and the command is given again."""
    with runs.started(out, restarts=0) as running:
        wait_for(running, out, runs.images // 2)
        running.send_signal(signal.SIGTERM)
        ended = running.wait()
    at = images_done(out)
    with runs.started(out, restarts=0) as running:
        code = running.wait()
    return {"ended_with": ended, "at": at, "code": code}


def made(options: Options, folder: Path) -> Runs:
    """What is to be trained: for latents pictures are written, and an autoencoder is trained on them, shortly."""
    if options.on == "toy":
        return Runs(tuple(TOY.split()), options.images)
    pictures, autoencoder = folder / "pictures", folder / "autoencoder"
    images = data.load("fashion-mnist").subset(torch.arange(options.pictures))
    for number in range(options.pictures):
        x = images.subset(torch.tensor([number])).resized(options.size).x[0, 0]
        path = pictures / images.classes[int(images.label[number])].replace(" ", "-") / f"{number:06}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(x.numpy()).save(path)
    stages = max(2, (options.size // 32).bit_length())  # down to 32×32, or half of the side
    source = ("--data", str(pictures), "--size", str(options.size))
    fields = ("--coders.widths", str([8] * stages), "--batch", "8", "--images", "64", "--device", "cpu", "--stream")
    command = ["-m", "thalweg.cli", "train", "autoencoder/pictures", *source, *fields, "--out", str(autoencoder)]
    subprocess.run([sys.executable, *command], cwd=ROOT, env=environment(autoencoder), check=True, capture_output=True)
    return Runs((*LATENT.split(), *source, "--autoencoder", str(autoencoder)), options.images)


def run(options: Options) -> dict:
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        runs = made(options, Path(folder))
        whole, broken, ended = (Path(folder) / name for name in ("whole", "broken", "ended"))
        beginning = time.perf_counter()
        with runs.started(whole, restarts=0) as running:
            if running.wait():
                raise RuntimeError(log_of(whole)[-2000:])
        found = {"on": options.on, "images": options.images, "seconds_unbroken": round(time.perf_counter() - beginning, 1)}
        if options.on == "latents":
            found |= {"pictures": options.pictures, "size": options.size, "killed_while_encoding": killed_while_encoding(runs, broken)}
        kinds = [KINDS[options.on][i % len(KINDS[options.on])] for i in range(options.kills)]
        draw.shuffle(kinds)
        found |= with_faults(runs, broken, kinds, draw)
        found["first_difference"] = difference(whole, broken) or _latents_differ(whole, broken)
        found["signal"] = with_a_signal(runs, ended) | {"first_difference": difference(whole, ended) or _latents_differ(whole, ended)}
        times = resource.getrusage(resource.RUSAGE_CHILDREN)
        found["cpu_seconds"] = round(times.ru_utime + times.ru_stime)
    print(json.dumps(found), flush=True)
    return found


def _latents_differ(a: Path, b: Path) -> str | None:
    one, two = (sorted((path.name, path.read_bytes()) for path in latents(out).rglob("*") if path.is_file()) for out in (a, b))
    return None if one == two else "latents"


def failed(found: dict) -> bool:
    ends = (found, found["signal"])
    kinds = Counter(fault["kind"] for fault in found["faults"])
    untold = found["torn_told"] < kinds["shard"] or found["full_told"] < kinds["disk"] or not found.get("killed_while_encoding", True)
    return len(found["faults"]) != found["asked"] or untold or any(end["code"] or end["first_difference"] for end in ends)


FAULTS = {
    "one": "SIGKILL of one process {}",
    "all": "SIGKILL of all {}",
    "disk": "a full disk {}",
    "shard": "an altered shard {}",
}


def said(results: dict) -> str:
    """The sentences of docs/scale.md."""
    back = sorted(results["seconds_back"])
    middle = shown(back[len(back) // 2], ".1f") if back else "–"
    equal = "bit-equal to one that was left alone" if results["first_difference"] is None else f"not equal: {results['first_difference']}"
    kinds = Counter(fault["kind"] for fault in results["faults"])
    times = {kind: f"{count} time{'s' * (count > 1)}" for kind, count in kinds.items()}
    met = ", ".join(FAULTS[kind].format(times[kind]) for kind in FAULTS if kind in kinds)
    what, signal_at = "Two processes on a toy", results["signal"]["at"]
    if results["on"] == "latents":
        of = f"{results['pictures']:,} pictures of {results['size']}×{results['size']}"
        what = f"Two processes on latents of {of}, killed first while they encoded"
    return (
        f"{what}, then: {met}. The run ended {equal}; after a fault a new state was there within {middle} s (the median, with the start of "
        f"two processes on a shared machine). SIGTERM to `torchrun` at {signal_at:,} of {results['images']:,} images: "
        f"{'bit-equal too' if results['signal']['first_difference'] is None else 'not equal'}."
    )


CHECK = Check("node", __doc__, run, dict(kills=20, images=8000, seed=0, on="latents", pictures=3000, size=256), failed=failed)

if __name__ == "__main__":
    CHECK.main()
