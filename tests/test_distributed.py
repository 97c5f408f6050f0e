"""Two Gloo processes against one process with the joined batch and `shards=2`.

The noise is the same by construction; sums run in another order, and matrix products of half the rows round differently,
hence the tolerance. This file is also the program that the two processes run.
"""

import copy
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from pydantic.dataclasses import dataclass
from torch import nn

import thalweg as tw
from thalweg import checkpoint, random, sample
from thalweg.config import STRICT, Common
from thalweg.data.base import Batch
from thalweg.distributed import World, _meeting, leave
from thalweg.errors import Diverged
from thalweg.fits import shares
from thalweg.methods.base import Method
from thalweg.nn.mlp import MLP
from thalweg.train import fit

TOLERANCE = dict(rtol=1e-4, atol=2e-5)
TIMEOUT = 150


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Config(Common):
    clip: float = 1.0
    ema: float = 0.9
    batch: int = 16
    images: int = 96
    shape: tuple[int, ...] = (2,)
    warm_up: int = 0
    lr_end: float = 1.0


class Chained(Method):
    """A generator and an energy, updated in turn, with a Langevin chain between them; `poison` breaks the chain."""

    name = "chained"

    def __init__(self, poison=lambda rank, images, scale: False) -> None:
        super().__init__(Config())
        self.energy_net, self.generator = MLP(2, width=16, depth=2), nn.Linear(3, 2)
        self.poison = poison

    def optimizers(self):
        return {
            "energy": torch.optim.Adam(self.energy_net.parameters(), lr=1e-2),
            "generator": torch.optim.SGD(self.generator.parameters(), lr=1e-1),
        }

    def step(self, batch: Batch, update) -> None:
        z = random.normal(len(batch.x), 3, generator=update.generator)
        proposal = self.generator(z)
        scale = float("nan") if self.poison(update.world.rank, update.images, update.guard.rate_scale) else 1.0
        refined = sample.langevin(lambda x: scale * self.energy_net(x), proposal.detach(), steps=3, step=0.3, generator=update.generator)
        update("energy", self.energy_net(batch.x).mean() - self.energy_net(refined).mean())
        update("generator", (self.generator(z) - refined).square().mean())
        update.log(moved=(refined - proposal).norm(dim=1))

    def sample(self, n: int, *, seed: int = 0):
        return self.generator(random.normal(n, 3, generator=random.seeded(seed)))

    def __deepcopy__(self, memo):
        twin = Chained()
        twin.load_state_dict(copy.deepcopy(self.state_dict()))
        return twin


def make(name: str) -> tuple[Method, object]:
    torch.manual_seed(1)
    if name == "chained":
        return Chained(), tw.data.toy("8gaussians")
    if name == "egc":
        fields = dict(width=8, blocks=1, levels=20, batch=16, images=96, warm_up=1)
        return tw.method("egc/digits", **fields), tw.data.load("digits")
    if name == "coopflow":
        fields = dict(couplings=1, mixtures=2, steps=2, batch=16, images=96, warm_up=1) | {"net.width": 32, "initializer.width": 8}
        return tw.method("coopflow/digits", **fields), tw.data.load("digits")
    fields = dict(width=16, steps=2, step=0.7, sample_steps=5, batch=16, images=96, buffer=48, warm_up=1, renew=0.2, target_acceptance=0.6)
    return tw.method("short_run/8gaussians", **fields), tw.data.toy("8gaussians")


NAMES = ("chained", "egc", "coopflow", "short_run")
OPTIONS = dict(seed=4, save_every=48, log_every=32, progress=False)


def once(rank: int, images: int, scale: float) -> bool:
    return rank == 1 and images == 64 and scale == 1.0


def always(rank: int, images: int, scale: float) -> bool:
    return rank == 1 and images == 64


def two_processes(out: Path) -> None:
    """What each of the two processes runs: every case in turn, its outcome in files named after the rank."""
    rank = World.current().rank
    for name in NAMES:
        method, data = make(name)
        twin = fit(method, data, out / name, held_out=data.batch(0, 16, 1), sample_every=48, **OPTIONS)
        torch.save({"method": method.state_dict(), "ema": twin.state_dict()}, out / f"{name}-{rank}.pt")
        for images in (48, 96):
            method, data = make(name)
            fit(method, data, out / f"{name}-broken", images=images, held_out=data.batch(0, 16, 1), sample_every=48, **OPTIONS)
        method, data = make(name)
        fit(method, data, out / f"{name}-half", images=48, **OPTIONS)
    for case, poison in (("once", once), ("always", always)):
        torch.manual_seed(1)
        method = Chained(poison)
        try:
            fit(method, tw.data.toy("8gaussians"), out / case, tries=2, **OPTIONS)
            outcome = "finished"
        except Diverged as error:
            outcome = str(error)
        torch.save({"outcome": outcome, "method": method.state_dict()}, out / f"{case}-{rank}.pt")
    refusals = []
    for arguments in (
        dict(out=out / "odd", batch=15),
        dict(out=out / "chained", seed=5),
        dict(out=Path("/proc/nowhere")),
        dict(out=out / "egc"),
        dict(out=out / "odd", shards=4),
    ):
        method, data = make("chained")
        try:
            fit(method, data, **(OPTIONS | arguments))
        except tw.InputError as error:
            refusals.append(str(error))
    torch.save(refusals, out / f"refusals-{rank}.pt")


def start_two(out: Path, *words: str) -> list[subprocess.Popen]:
    """Two processes of one group that run `python WORDS`; what each of them says is in log-RANK.txt."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    processes = []
    for rank in range(2):
        with open(out / f"log-{rank}.txt", "w") as file:
            environment = os.environ | group | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            processes.append(subprocess.Popen([sys.executable, *words], env=environment, stdout=file, stderr=file))
    return processes


def ended(processes: list[subprocess.Popen]) -> list[int]:
    """Their exit codes; a deadlock ends in TimeoutExpired."""
    try:
        return [process.wait(timeout=TIMEOUT) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def logs(out: Path) -> list[str]:
    return [(out / f"log-{rank}.txt").read_text() for rank in range(2)]


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """The folder with all that the two processes left."""
    out = tmp_path_factory.mktemp("two")
    assert ended(start_two(out, __file__, str(out))) == [0, 0], "\n".join(logs(out))
    return out


def close(a: dict, b: dict, **tolerance) -> None:
    assert a.keys() == b.keys()
    for key, value in a.items():
        torch.testing.assert_close(value, b[key], **tolerance, msg=lambda text, key=key: f"{key}: {text}")


def load(path: Path):
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_are_one_with_the_joined_batch(name, results, tmp_path):
    first, second = (load(results / f"{name}-{rank}.pt") for rank in range(2))
    for part in ("method", "ema"):
        close(first[part], second[part], rtol=0, atol=0)
    method, data = make(name)
    initial = copy.deepcopy(method.state_dict())
    fit(method, data, tmp_path, shards=2, held_out=data.batch(0, 16, 1), sample_every=48, **OPTIONS)
    one, two = checkpoint.latest(tmp_path), checkpoint.latest(results / name)
    close(one["method"], two["method"], **TOLERANCE)
    close(one["ema"], two["ema"], **TOLERANCE)
    close(two["method"], first["method"], rtol=0, atol=0)
    assert one["updates"] == two["updates"] and two["best"] == pytest.approx(one["best"], rel=1e-3, abs=1e-4)
    for key, optimizer in one["optimizers"].items():
        for i, moments in optimizer["state"].items():
            close(moments, two["optimizers"][key]["state"][i], rtol=1e-3, atol=2e-5)
    # the tolerance is far below what the run has moved, and the noise of other shares is seen
    moved = max(float((one["method"][key] - value).abs().max()) for key, value in initial.items() if value.is_floating_point())
    assert moved > 1e-3
    other, data = make(name)
    fit(other, data, shards=4, **OPTIONS)
    assert any(not torch.allclose(other.state_dict()[key], value, **TOLERANCE) for key, value in first["method"].items())


def test_each_process_moves_its_own_part_of_the_chains(results):
    method, _ = make("short_run")
    before, after = method.replay.chains, load(results / "short_run-0.pt")["method"]["replay.chains"]
    moved = (before != after).any(1)
    # 6 steps of 8 chains from 24 in each half; a process that used the other's part would leave its own as it was
    assert after.shape == (48, 2) and moved[:24].sum() >= 16 and moved[24:].sum() >= 16


@pytest.mark.parametrize("name", NAMES)
def test_resume_by_two_processes_is_bit_equal(name, results):
    whole, broken = checkpoint.latest(results / name), checkpoint.latest(results / f"{name}-broken")
    assert broken["images"] == 96 and broken["best"] == whole["best"] and broken["guard"] == whole["guard"]
    for part in ("method", "ema"):
        close(whole[part], broken[part], rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_one_process_goes_on_with_a_run_of_two(name, results, tmp_path):
    import shutil

    shutil.copytree(results / f"{name}-half", tmp_path / "half")
    method, data = make(name)
    fit(method, data, tmp_path / "half", **OPTIONS)
    close(checkpoint.latest(tmp_path / "half")["method"], checkpoint.latest(results / name)["method"], **TOLERANCE)
    with pytest.raises(
        tw.InputError, match="draws noise in 2 shares, and 1 process would draw in 1; it goes on with 1 process and --accumulate 2"
    ):
        fit(make(name)[0], data, tmp_path / "half", shards=1, images=200, **OPTIONS)


def test_fewer_processes_go_on_with_parts_of_a_batch(results, tmp_path):
    import shutil

    shutil.copytree(results / "short_run-half", tmp_path / "half")
    method, data = make("short_run")
    fit(method, data, tmp_path / "half", accumulate=2, **OPTIONS)
    close(checkpoint.latest(tmp_path / "half")["method"], checkpoint.latest(results / "short_run")["method"], **TOLERANCE)


def test_a_run_goes_on_with_other_processes_only_where_its_draws_stay():
    """(begun, processes, accumulate) -> what is said, None where it goes on."""
    said = {
        (8, 8, 1): None,
        (8, 4, 2): None,
        (8, 1, 8): None,
        (8, 1, 1): None,
        (8, 4, 1): "8 shares, and 4 processes would draw in 4; it goes on with 4 processes and --accumulate 2, or 8 processes",
        (8, 2, 2): "2 processes with --accumulate 2 would draw in 4; it goes on with 2 processes and --accumulate 4, or 8 processes",
        (8, 3, 1): "3 processes would draw in 3; it goes on with 8 processes, or with fewer, of a number that 8 divides by",
        (1, 2, 1): "1 share, and 2 processes would draw in 2; it goes on with one process",
        (2, 4, 1): "it goes on with 2 processes",
    }
    for (begun, processes, accumulate), words in said.items():
        if words is None:
            assert shares(begun, processes, accumulate, None, "run") == begun
            continue
        with pytest.raises(tw.InputError, match=words):
            shares(begun, processes, accumulate, None, "run")


def test_a_divergence_on_one_process_is_handled_by_both(results):
    first, second = (load(results / f"once-{rank}.pt") for rank in range(2))
    assert first["outcome"] == second["outcome"] == "finished"
    close(first["method"], second["method"], rtol=0, atol=0)
    assert all(torch.isfinite(value).all() for value in first["method"].values())
    (event,) = [row["event"] for row in checkpoint.read_stats(results / "once") if "event" in row]
    assert event.startswith("diverged at 64 images (another process") and event.endswith("learning rate × 0.5; back to 48 images")
    assert checkpoint.latest(results / "once")["images"] == 96


def test_a_divergence_without_end_stops_both(results):
    for rank in range(2):
        result = load(results / f"always-{rank}.pt")
        assert result["outcome"].startswith("gave up after 2 tries: ") and "at 64 images" in result["outcome"]
    assert checkpoint.latest(results / "always")["images"] <= 48


def test_wrong_input_is_refused_by_both(results):
    first, second = (load(results / f"refusals-{rank}.pt") for rank in range(2))
    assert first == second and len(first) == 5
    wanted = (
        "15 does not divide over 2 processes",
        "started with seed 4, not 5",
        "cannot write /proc/nowhere",
        "holds a run of egc, not chained",
    )
    for message, words in zip(first, (*wanted, "not in shards = 4")):
        assert words in message
    assert not (results / "odd").exists()


def command(out: Path, images: int, width: int = 16) -> list[str]:
    fields = f"--width {width} --steps 2 --batch 16 --buffer 64 --threads 1 --images {images}".split()
    return ["-m", "thalweg.cli", "train", "short_run/8gaussians", "--out", str(out / "run"), *fields]


def test_messages_come_once_and_the_group_is_left(tmp_path):
    for words, codes, said in (
        (command(tmp_path, 64), [0, 0], "trained: "),
        (command(tmp_path, 64, width=24), [2, 2], "thalweg: "),
        (["-m", "thalweg.cli", "train", "short_run/none", "--out", str(tmp_path / "other")], [2, 2], "thalweg: "),
    ):
        assert ended(start_two(tmp_path, *words)) == codes
        first, second = logs(tmp_path)
        assert first.count(said) == 1 and said not in second and "terminate called" not in first + second and "Traceback" not in first


def test_a_signal_to_one_process_ends_both_with_one_state(tmp_path):
    processes = start_two(tmp_path, *command(tmp_path, 10**9))
    until = time.monotonic() + 100
    while "parameters" not in logs(tmp_path)[0] and time.monotonic() < until and all(one.poll() is None for one in processes):
        time.sleep(0.2)
    time.sleep(2)
    processes[1].send_signal(signal.SIGTERM)
    assert ended(processes) == [130, 143], logs(tmp_path)
    assert logs(tmp_path)[0].count("its state is saved") == 1 and checkpoint.latest(tmp_path / "run")["images"] > 0


# --- processes that torchrun starts again

RUN = {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_MAX_RESTARTS": "3", "TORCHELASTIC_RESTART_COUNT": "1", "RANK": "0"}


def test_each_start_meets_at_a_place_of_its_own(monkeypatch):
    """What an earlier start left in torchrun's store is not found by the next one."""
    store = torch.distributed.HashStore()
    monkeypatch.setattr("torch.distributed.rendezvous", lambda url: iter([(store, 0, 2)]))
    for name, value in (RUN | {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}).items():
        monkeypatch.setenv(name, value)
    _meeting()["store"].set("address", "gone")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    found = _meeting()
    assert found["store"].check(["address"]) is False and (found["rank"], found["world_size"]) == (0, 2)
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "False")
    assert _meeting() == {}


def test_starts_on_several_machines_need_a_store_each(monkeypatch, capsys):
    for name, value in (RUN | {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}).items():
        monkeypatch.setenv(name, value)
    assert _meeting() == {} and "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1" in capsys.readouterr().err


if __name__ == "__main__":
    two_processes(Path(sys.argv[1]))
    leave()
