"""Networks of one's own: any module of the signature that the config's has, trained, saved and loaded again."""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

import thalweg as tw
from thalweg import checkpoint
from thalweg.errors import InputError

FEW = {"images": 64, "batch": 16}


class Numbers(nn.Module):
    """(x[, t][, label]) -> [B], or [B, out]: a linear map of x, shifted by level and label."""

    def __init__(self, dim: int, out: int = 0) -> None:
        super().__init__()
        self.first, self.last, self.out = nn.Linear(dim, 16), nn.Linear(16, max(1, out)), out

    def forward(self, x, t=None, label=None):
        value = self.last(torch.tanh(self.first(x.flatten(1))))
        shift = sum(part[:, None] * 0.01 for part in (t, label) if part is not None)
        value = value + shift
        return value if self.out else value[:, 0]


class Pair(nn.Module):
    """(x, t) -> a map in the shape of x, and [B, out]."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.map, self.numbers = nn.Conv2d(channels, channels, 3, padding=1), nn.Conv2d(channels, out, 3)

    def forward(self, x, t, label=None):
        return self.map(x), self.numbers(x).mean((2, 3))


CASES = {
    "short_run/pictures": (lambda: Numbers(64), {"buffer": 64}),
    "short_run/digits-conditional": (lambda: Numbers(64), {"buffer": 64}),
    "short_run/moons": (lambda: Numbers(2), {}),
    "jem/digits": (lambda: Numbers(64, 10), {"buffer": 64, "steps": 2}),
    "egc/digits": (lambda: Pair(1, 10), {}),
    "cdrl/digits": (lambda: Pair(1, 1), {"chain.steps": 2}),
    "coopflow/moons": (lambda: Numbers(2), {}),
    "liebm/digits": (lambda: Numbers(64, 16), {"features": 16}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_network_of_ones_own_trains_is_saved_and_loaded(name, tmp_path):
    make, fields = CASES[name]
    method = tw.method(name, net=make(), **fields, **FEW)
    x = torch.rand(4, *method.config.shape) * 2 - 1
    twin = tw.fit(method, tw.data.load(method.config.data), tmp_path / "run", progress=False)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["config"]["net"] == {
        "kind": "own",
        "name": type(make()).__name__,
    }
    tw.save(twin, tmp_path / "model")
    for folder in (tmp_path / "run", tmp_path / "model"):
        with pytest.raises(InputError, match=rf"one of your own.*net={type(make()).__name__}\(\)"):
            tw.load(folder)
        assert torch.equal(tw.load(folder, net=make()).energy(x), twin.energy(x))
    assert f"net={type(make()).__name__}()" in (tmp_path / "model" / "README.md").read_text()


def test_a_run_with_a_network_of_ones_own_resumes(tmp_path):
    data = tw.data.load("digits")
    tw.fit(tw.method("short_run/pictures", net=Numbers(64), buffer=64, **FEW), data, tmp_path / "run", images=32, progress=False)
    again = tw.fit(tw.method("short_run/pictures", net=Numbers(64), buffer=64, **FEW), data, tmp_path / "run", progress=False)
    whole = tw.fit(tw.method("short_run/pictures", net=Numbers(64), buffer=64, **FEW), data, tmp_path / "whole", progress=False)
    assert checkpoint.latest(tmp_path / "run")["images"] == 64 and again.config.net.name == whole.config.net.name == "Numbers"


class Wrong(nn.Module):
    def __init__(self, give):
        super().__init__()
        self.weight, self.give = nn.Parameter(torch.ones(())), give

    def forward(self, x):
        return self.give(x, self.weight)


def test_what_it_gives_is_looked_at_once_when_it_is_built():
    for give, message in (
        (lambda x, w: x.flatten(1).sum(1, keepdim=True) * w, r"must give \[2\] .* got float32 \[2, 1\]; one energy for each example"),
        (lambda x, w: x.sum() * w, r"got float32 \[\]"),
        (lambda x, w: x.flatten(1).sum(1).long(), r"got int64 \[2\]"),
        (lambda x, w: None, "got NoneType"),
        (lambda x, w: (x, w), r"got \(float32 \[2, 1, 8, 8\], float32 \[\]\)"),
        (lambda x, w: x.flatten(1) @ torch.ones(63), r"Wrong\(x\) fails for x of shape \[2, 1, 8, 8\]"),
    ):
        with pytest.raises(InputError, match=message):
            tw.method("short_run/pictures", net=Wrong(give))
    with pytest.raises(InputError, match="has no parameters"):
        tw.method("short_run/pictures", net=nn.Flatten())
    with pytest.raises(InputError, match=r"Wrong\(x, t\) fails"):
        tw.method("egc/digits", net=Wrong(lambda x, w: x))
    with pytest.raises(InputError, match=r"Wrong\(x, label=label\) fails"):
        tw.method("short_run/digits-conditional", net=Wrong(lambda x, w: x))
    with pytest.raises(InputError, match="must give a pair of a map"):
        tw.method("egc/digits", net=Numbers(64, 10))


def test_a_check_changes_neither_mode_nor_statistics_nor_random_numbers():
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(0.5), nn.Linear(64, 1), nn.Flatten(0))
    state = torch.random.get_rng_state()
    tw.method("short_run/pictures", net=net)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert net.training and int(net[1].num_batches_tracked) == 0


def test_fields_and_models_that_take_none_say_so(tmp_path):
    for name, kinds in (("cf_ebm/digits", "expanding"), ("ddaebm/digits", "mlp, two_stream, patch, patch_unet, unet, nice")):
        with pytest.raises(InputError, match=rf"net = Numbers\(\) is a network of your own, but .* builds .* give a spec of kind {kinds}"):
            tw.method(name, net=Numbers(64))
    with pytest.raises(InputError, match=r"cdrl builds what initializer says itself.* a spec of kind mlp, patch"):
        tw.method("cdrl/digits", initializer=Numbers(64))
    with pytest.raises(InputError, match="steps of short_run is no network"):
        tw.method("short_run/moons", steps=Numbers(2))
    with pytest.raises(InputError, match="give it in Python as net="):
        tw.method("short_run/moons", net="own")
    tw.save(tw.method("short_run/moons"), tmp_path / "m")
    with pytest.raises(InputError, match="is of kind 'mlp' and built from its config; load it without net="):
        tw.load(tmp_path / "m", net=Numbers(2))


def test_weights_that_do_not_fit_are_one_message(tmp_path):
    tw.save(tw.method("short_run/pictures", net=Numbers(64)), tmp_path / "m")
    with pytest.raises(InputError, match="Pair"):
        tw.load(tmp_path / "m", net=Pair(1, 1))
    wide = Numbers(64)
    wide.first, wide.last = nn.Linear(64, 17), nn.Linear(17, 1)
    with pytest.raises(InputError, match="do not fit the network given, Numbers: "):
        tw.load(tmp_path / "m", net=wide)


def test_float64_networks_become_float32():
    torch.set_default_dtype(torch.float64)
    try:
        method = tw.method("short_run/pictures", net=Numbers(64))
    finally:
        torch.set_default_dtype(torch.float32)
    assert method.energy(torch.zeros(2, 1, 8, 8)).dtype is torch.float32


def test_the_command_line_says_that_it_takes_python(tmp_path):
    tw.save(tw.method("short_run/pictures", net=Numbers(64)), tmp_path / "m")
    words = [sys.executable, "-m", "thalweg.cli", "sample", tmp_path / "m", "--out", tmp_path / "x.npz"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 2 and "give it in Python as net=" in done.stderr and "Traceback" not in done.stderr
