"""Samples drawn in parts: what they are, that options are cut with them, and that processes share them."""

import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import thalweg as tw
from thalweg import progress
from thalweg.drawing import NUMBERS, draw, part_seed
from thalweg.errors import InputError


class Noise:
    """Samples are noise about the label, and what was asked for is kept."""

    config, device, name = SimpleNamespace(shape=(4,)), torch.device("cpu"), "noise"

    def __init__(self, weight=0.0):
        self.asked, self.weight = [], torch.tensor(weight)

    def state_dict(self):
        return {"weight": self.weight}

    def sample(self, n, *, seed, label=None, start=None, weights=None):
        self.asked.append((n, seed, label, start, weights))
        x = tw.random.normal(n, 4, generator=tw.random.seeded(seed))
        return x if label is None else x + 100 * label[:, None]


def test_parts_hold_the_first_samples_of_their_seeds_and_are_as_large_as_asked():
    model = Noise()
    x = draw(model, 10, seed=3, at_once=4)
    parts = [Noise().sample(n, seed=part_seed(3, i)) for i, n in enumerate((4, 4, 2))]
    assert torch.equal(x, torch.cat(parts)) and [asked[:2] for asked in model.asked] == [(4, 3), (4, part_seed(3, 1)), (2, part_seed(3, 2))]
    assert len({part_seed(seed, i) for seed in range(20) for i in range(20)}) == 400
    assert torch.equal(draw(Noise(), 10, seed=3), Noise().sample(10, seed=3))  # few numbers are one part


def test_options_of_as_many_rows_are_cut_and_others_are_not():
    model, label, weights = Noise(), torch.arange(5), torch.ones(3)
    x = draw(model, 5, at_once=2, label=label, start=torch.arange(10.0).view(5, 2), weights=weights)
    assert torch.equal((x / 100).round()[:, 0].long(), label)
    assert [asked[2].tolist() for asked in model.asked] == [[0, 1], [2, 3], [4]]
    assert torch.equal(torch.cat([asked[3] for asked in model.asked]), torch.arange(10.0).view(5, 2))
    assert all(asked[4] is weights for asked in model.asked)


def test_a_part_is_bounded_by_the_numbers_in_it():
    model = Noise()
    model.config = SimpleNamespace(shape=(3, 256, 256))
    draw(model, 3)
    model.config = SimpleNamespace(shape=(1, 28, 28))
    draw(model, 400)
    assert [asked[0] for asked in model.asked] == [1, 1, 1, NUMBERS // 784, NUMBERS // 784, 400 - 2 * (NUMBERS // 784)]


@pytest.mark.parametrize("wrong", [dict(n=0), dict(n=4, at_once=0)])
def test_no_samples_are_refused(wrong):
    with pytest.raises(InputError, match="one at least"):
        draw(Noise(), **wrong)


def test_long_drawing_says_how_far_it_is(monkeypatch, capsys):
    now, model = [1000.0], Noise()

    def sample(*asked, **options):
        now[0] += 4
        return Noise.sample(model, *asked, **options)

    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress.Beat, "spoken", 0.0)
    monkeypatch.setattr(model, "sample", sample)
    draw(model, 10, at_once=1, shown=True)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == " 20%  8 s  10 samples, about 32 s left" and 2 < len(lines) < 9
    draw(model, 10, at_once=1)
    assert capsys.readouterr().err == ""


class Cut(Exception):
    """Drawing is cut off."""


def test_drawing_that_was_cut_off_goes_on(tmp_path, monkeypatch):
    label, first, draws = torch.arange(10), Noise(), []

    def sample(*asked, **options):
        draws.append(asked)
        if len(draws) > 2:
            raise Cut
        return Noise.sample(first, *asked, **options)

    monkeypatch.setattr(first, "sample", sample)
    asked = dict(n=10, seed=3, at_once=4, label=label, kept=tmp_path)
    with pytest.raises(Cut):
        draw(first, **asked)
    model = Noise()
    x = draw(model, **asked)
    assert [one[:2] for one in model.asked] == [(2, part_seed(3, 2))], "the others were drawn before"
    assert torch.equal(x, draw(Noise(), 10, seed=3, at_once=4, label=label))
    (folder,) = tmp_path.iterdir()
    content = (folder / "rows.f32").read_bytes()
    x[0] = 7.0  # nothing that is done with it gets to the file
    assert (folder / "rows.f32").read_bytes() == content and float(x[0, 0]) == 7
    (folder / "rows.f32").write_bytes(content[:20] + b"\1" + content[21:])
    model = Noise()
    assert torch.equal(draw(model, **asked), draw(Noise(), 10, seed=3, at_once=4, label=label)) and len(model.asked) == 1, "a torn part"
    for other in (dict(seed=4), dict(label=label.flip(0)), dict(at_once=5), dict(n=9, label=label[:9]), dict(model=Noise(1.0))):
        model = other.pop("model", Noise())
        draw(model, **(asked | other))
        assert len(model.asked) > 1, other


def test_samples_that_cannot_be_kept_are_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        draw(Noise(), 3, kept=tmp_path / "file")


def test_two_processes_draw_what_one_draws(tmp_path):
    model = tw.method("dual/moons", net=tw.nn.build.MLP(width=8, depth=1), seed=0)
    tw.fit(model, tw.data.toy("moons"), tmp_path / "run", images=512, progress=False)
    command = ["-m", "thalweg.cli", "sample", str(tmp_path / "run"), "-n", "70001", "--steps", "2", "--out"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | dict(OMP_NUM_THREADS="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=port, WORLD_SIZE="2")
    both = [
        subprocess.Popen(
            [sys.executable, *command, str(tmp_path / "two.npz")],
            env=environment | dict(RANK=str(rank), LOCAL_RANK=str(rank)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=150) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert said[0][0].strip().endswith("two.npz") and not said[1][0]
    one = draw(tw.load(tmp_path / "run"), 70001, steps=2)
    two = np.load(tmp_path / "two.npz")["x"]
    assert two.shape == (70001, 2) and np.allclose(two, one.numpy(), atol=1e-5)
    kept = draw(tw.load(tmp_path / "run"), 70001, steps=2, kept=tmp_path / "kept")
    assert torch.equal(kept, one)
