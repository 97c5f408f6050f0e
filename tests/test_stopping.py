"""Ctrl-C and SIGTERM save a state; one run a folder, by a lock that dies with its owner; writers never tear a file."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import thalweg as tw
from thalweg import checkpoint
from thalweg.stopping import LOCK, Stopped, Watch, locked
from thalweg.train import fit

SMALL = dict(width=16, steps=2, sample_steps=5, batch=16, buffer=64)
TOY = tw.data.toy("8gaussians")


def method(images: int = 320):
    return tw.method("short_run/8gaussians", images=images, **SMALL)


class Interrupting:
    """A toy that sends this process a signal when the example number `at` is asked for."""

    name, shape, classes, origin = "8gaussians", TOY.shape, TOY.classes, "8gaussians"

    def __init__(self, number: int, at: int) -> None:
        self.number, self.at = number, at

    def batch(self, start: int, count: int, seed: int):
        if start == self.at:
            os.kill(os.getpid(), self.number)
        return TOY.batch(start, count, seed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_a_state_and_the_run_goes_on_bit_equal(number, tmp_path):
    fit(method(), TOY, tmp_path / "whole", progress=False, save_every=10**6)
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped) as caught:
        fit(method(), Interrupting(number, 96), tmp_path / "broken", progress=False, save_every=10**6)
    assert caught.value.number == number and before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    assert checkpoint.latest(tmp_path / "broken")["images"] == 112  # the step that was running is in it
    fit(method(), TOY, tmp_path / "broken", progress=False, save_every=10**6)
    one, two = (checkpoint.latest(tmp_path / name) for name in ("whole", "broken"))
    assert one["images"] == two["images"] == 320
    assert all(torch.equal(value, two["method"][key]) for key, value in one["method"].items())


def test_without_a_folder_a_signal_ends_it_too():
    with pytest.raises(KeyboardInterrupt):
        fit(method(), Interrupting(signal.SIGTERM, 32), progress=False)


def test_a_second_ctrl_c_ends_at_once_and_a_handler_of_ones_own_stays():
    with Watch() as watch:
        os.kill(os.getpid(), signal.SIGINT)
        assert watch.number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with Watch() as watch:
            os.kill(os.getpid(), signal.SIGTERM)
        assert seen == [signal.SIGTERM] and not watch.number
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_command_says_so_and_ends_with_the_signals_number(tmp_path):
    words = ["train", "short_run/8gaussians", "--out", "run", "--images", "100000000", "--width", "16"]
    words += ["--steps", "2", "--batch", "16", "--buffer", "64", "--threads", "1"]
    run = subprocess.Popen([sys.executable, "-m", "thalweg.cli", *words], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 90
    while not (tmp_path / "run" / "stats.jsonl").exists() and time.monotonic() < until and run.poll() is None:
        time.sleep(0.2)
        if list((tmp_path / "run").glob("state-*.pt")):
            time.sleep(1)
            break
    run.send_signal(signal.SIGTERM)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 143 and "its state is saved" in said and "Traceback" not in said
    assert checkpoint.latest(tmp_path / "run")["images"] > 0


# --- one run a folder


def test_a_second_run_is_refused_with_the_number_of_the_first(tmp_path):
    fit(method(), TOY, tmp_path, progress=False)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with locked(tmp_path):
        with pytest.raises(tw.InputError, match=rf"is being trained by process {os.getpid()} on "):
            fit(method(), TOY, tmp_path, progress=False)
        assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} ")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before  # nor is the lock left there
    fit(method(), TOY, tmp_path, progress=False)


def test_a_lock_dies_with_its_owner(tmp_path):
    code = "import os, sys; from pathlib import Path; from thalweg.stopping import locked\n"
    code += f"with locked(Path({str(tmp_path)!r})):\n    print('held', flush=True); sys.stdin.read()"
    owner = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert owner.stdout.readline() == b"held\n"
    with pytest.raises(tw.InputError, match=f"process {owner.pid}"), locked(tmp_path):
        pass
    owner.kill()
    owner.communicate()
    with locked(tmp_path):
        assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} ")


def _write(path: Path, letter: bytes) -> None:
    for _ in range(30):
        checkpoint.write_bytes(path, letter * 1_000_000)


def test_two_writers_of_one_file_never_tear_it(tmp_path):
    path = tmp_path / "best.pt"
    path.write_bytes(b"A" * 1_000_000)
    writers = [multiprocessing.get_context("fork").Process(target=_write, args=(path, letter)) for letter in (b"A", b"B")]
    for one in writers:
        one.start()
    while any(one.is_alive() for one in writers):
        content = path.read_bytes()
        assert len(content) == 1_000_000 and content.count(content[:1]) == len(content)
    assert [one.exitcode for one in writers] == [0, 0] and os.listdir(tmp_path) == ["best.pt"]


# --- lengthening, and other data


def test_a_finished_run_can_be_lengthened_and_not_shortened(tmp_path, capsys):
    fit(method(160), TOY, tmp_path, progress=False)
    fit(method(320), TOY, tmp_path, progress=False)
    said = capsys.readouterr().err
    assert "lengthened from 160 to 320 images" in said and said.count("\n") == 1
    assert checkpoint.latest(tmp_path)["images"] == 320 and checkpoint.read_config(tmp_path)["config"]["images"] == 320
    assert tw.load(tmp_path).config.images == 320
    with pytest.raises(tw.InputError, match="was started with images = 320, now 160; a larger number lengthens it"):
        fit(method(160), TOY, tmp_path, progress=False)


def test_the_rates_of_a_lengthened_run_are_said(tmp_path, capsys):
    def cosine(images: int):
        return tw.method("short_run/8gaussians", images=images, lr_end=0.0, warm_up=0, **SMALL)

    fit(cosine(160), TOY, tmp_path, progress=False)
    fit(cosine(320), TOY, tmp_path, progress=False)
    assert "0.5 of its full value at 160 images, not 0" in capsys.readouterr().err


def test_a_run_is_not_resumed_with_other_data(tmp_path):
    def images(seed: int):
        return tw.data.Images(torch.rand(64, 1, 8, 8, generator=tw.random.seeded(seed)) * 2 - 1, name=f"set {seed}")

    def small(data):
        return tw.method("short_run/digits", data=data, widths=(8, 8), images=64, batch=16, steps=1, buffer=64, sample_steps=2)

    first, second = images(0), images(1)
    fit(small(first), first, tmp_path, progress=False)
    assert json.loads((tmp_path / "data.json").read_text())["name"] == "set 0"
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(tw.InputError, match=r"was trained on set 0 \(64 of \[1, 8, 8\]\), and these are other data, set 1"):
        fit(small(second), second, tmp_path, progress=False)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    fit(small(first), tw.data.Images(first.x.clone(), name="the same by another name"), tmp_path, progress=False)


def test_a_device_may_be_a_torch_device(tmp_path):
    fit(method(64), TOY, tmp_path, device=torch.device("cpu"), progress=False)
    assert tw.load(tmp_path, device=torch.device("cpu")).device == torch.device("cpu")
