"""The loop: optimizer steps, EMA twin, learning rates, stats, resume, limits. Exact, on tiny models."""

import json
import math
from pathlib import Path

import pytest
import torch
from pydantic.dataclasses import dataclass
from torch import nn

import thalweg as tw
from thalweg import checkpoint, random
from thalweg.config import STRICT, Common
from thalweg.data.base import Batch
from thalweg.distributed import World
from thalweg.guard import Guard
from thalweg.methods.base import Method
from thalweg.train import fit
from thalweg.updates import Update

TINY = {
    "short_run/8gaussians": dict(width=16, steps=2, sample_steps=5, batch=16, images=192, buffer=64),
    "egc/digits": dict(width=8, blocks=1, levels=20, sample_steps=5, batch=16, images=192),
    "egc/digits dropout": dict(width=8, blocks=1, levels=20, sample_steps=5, batch=16, images=192, dropout=0.5),
}


def tiny(name: str, **changes) -> Method:
    return tw.method(name.split()[0], **(TINY[name] | changes))


def data_of(name: str):
    return tw.data.load(name.split()[0].split("/")[1])


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Config(Common):
    shape: tuple[int, ...] = (2,)
    clip: float = 0.0
    ema: float = 0.9
    batch: int = 4
    images: int = 64


class Two(Method):
    """Two parameters with an optimizer each, and a loss that contains both."""

    name = "two"

    def __init__(self, rate: float = 0.1) -> None:
        super().__init__(Config())
        self.a = nn.Parameter(torch.tensor([1.0, 2.0]))
        self.b = nn.Parameter(torch.tensor([3.0]))
        self.rate = rate
        self.noises: list[float] = []

    def optimizers(self):
        return {"a": torch.optim.SGD([self.a], lr=self.rate), "b": torch.optim.SGD([self.b], lr=2 * self.rate)}

    def learning_rate(self, name: str, images: int) -> float:
        return 1.0 / (1 + images)

    def step(self, batch: Batch, update) -> None:
        self.noises.append(float(random.normal(4, generator=update.generator).sum()))
        update("a", self.a.square().sum() * self.b.sum())

    def sample(self, n: int, *, seed: int = 0):
        torch.rand(1000)  # a sampler that draws from the global generator too
        return random.normal(n, 2, generator=random.seeded(seed)) + self.a


def updater(method: Method, **options) -> Update:
    import copy

    settings = dict(clip=0.0, ema_decay=0.9, guard=Guard()) | options
    return Update(method, copy.deepcopy(method).requires_grad_(False), World(), **settings)


def assert_equal(a, b, where: str = "") -> None:
    """Nested containers and tensors are bit-equal."""
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and torch.equal(a, b), f"{where}: {(a - b).abs().max() if a.shape == b.shape else a.shape}"
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b)):
            assert_equal(x, y, f"{where}/{i}")
    else:
        assert a == b, where


def final_state(out: Path) -> dict:
    state = checkpoint.latest(out)
    del state["elapsed"]
    return state


def stats(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "stats.jsonl").read_text().splitlines()]


def without_time(rows: list[dict]) -> list[dict]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


# --- one update


def test_update_steps_only_the_named_optimizer_and_scales_its_rate():
    method = Two()
    update = updater(method)
    update.images = 4
    update("a", method.a.square().sum() * method.b.sum())
    torch.testing.assert_close(method.a.detach(), torch.tensor([1.0, 2.0]) * (1 - 0.1 / 5 * 2 * 3.0))
    assert torch.equal(method.b.detach(), torch.tensor([3.0]))
    assert method.a.grad is None and method.b.grad is None
    update("b", method.b.square().sum())
    torch.testing.assert_close(method.b.detach(), torch.tensor([3.0 * (1 - 0.2 / 5 * 2)]))


def test_update_halves_the_rate_with_the_guard():
    method = Two()
    update = updater(method)
    update.guard.rate_scale = 0.5
    update("b", method.b.square().sum())
    torch.testing.assert_close(method.b.detach(), torch.tensor([3.0 * (1 - 0.5 * 0.2 * 2)]))


def test_update_with_an_unknown_name():
    with pytest.raises(KeyError, match=r"Two\.optimizers\(\) has no 'c', only \['a', 'b'\]"):
        updater(Two())("c", torch.zeros(()))


def test_clip_bounds_the_norm_and_leaves_small_gradients():
    method = Two()
    update = updater(method, clip=0.5)
    before = method.a.detach().clone()
    update("a", (method.a * torch.tensor([3.0, 4.0])).sum())
    torch.testing.assert_close(before - method.a.detach(), 0.1 * 0.5 * torch.tensor([0.6, 0.8]), rtol=1e-5, atol=1e-7)
    assert update.logged["gradient_norm/a"] == pytest.approx(5.0)
    before = method.a.detach().clone()
    update("a", (method.a * torch.tensor([0.03, 0.04])).sum())
    torch.testing.assert_close(before - method.a.detach(), 0.1 * torch.tensor([0.03, 0.04]), rtol=1e-4, atol=1e-7)


def test_ema_twin_follows_with_a_decay_that_rises():
    method = Two()
    update = updater(method, ema_decay=0.5)
    expected = method.a.detach().clone()
    for k in range(1, 13):
        update("a", method.a.square().sum())
        decay = min(0.5, (1 + k) / (10 + k))  # (1 + k)/(10 + k) passes one half at k = 8
        expected = decay * expected + (1 - decay) * method.a.detach()
    torch.testing.assert_close(update.ema.a, expected)
    assert torch.equal(update.ema.b, torch.tensor([3.0]))


def test_schedules_rise_and_fall_to_zero():
    run, egc = tiny("short_run/8gaussians", warm_up=4, images=160), tiny("egc/digits", warm_up=4, images=160)
    for method in (run, egc):
        assert method.learning_rate("energy", 0) == pytest.approx(0.25)
        assert method.learning_rate("energy", 16) == pytest.approx(0.5 * 0.5 * (1 + math.cos(math.pi * 0.1)))
        assert method.learning_rate("energy", 80) == pytest.approx(0.5)
        assert method.learning_rate("energy", 160) == method.learning_rate("energy", 1000) == pytest.approx(0.0, abs=1e-12)
    assert tiny("egc/digits", warm_up=0, lr_end=1.0).learning_rate("energy", 10**9) == 1.0


# --- runs


def test_stats_rows(tmp_path):
    name = "short_run/8gaussians"
    toy = data_of(name)
    fit(tiny(name), toy, tmp_path / "a", log_every=48, sample_every=96, held_out=toy.batch(0, 32, 1), progress=False)
    rows = stats(tmp_path / "a")
    logged = [row for row in rows if "loss/energy" in row]
    assert [row["images"] for row in logged] == [48, 96, 144, 192]
    assert {"images", "seconds", "loss/energy", "gradient_norm/energy", "energy_data", "energy_samples", "acceptance"} <= set(logged[0])
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert [row["images"] for row in rows if "criterion" in row] == [96, 192]
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds) and seconds[0] > 0


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("look", [False, True], ids=["bare", "held-out and pictures"])
def test_resume_is_bit_equal(name, look, tmp_path):
    data = data_of(name)
    options = dict(log_every=32, sample_every=48, save_every=64, progress=False, seed=3)
    if look:
        options |= dict(held_out=data.batch(0, 24, 1), picture=lambda method, path, images: path.write_text(f"{method.sample(4, seed=1)}"))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    twin = fit(tiny(name), data, whole, **options)
    fit(tiny(name), data, broken, images=96, **options)  # stops between two states, so that the last one is an extra
    resumed = fit(tiny(name), data, broken, **options)
    assert_equal(final_state(whole), final_state(broken))
    assert_equal(dict(twin.state_dict()), dict(resumed.state_dict()))
    assert final_state(whole)["optimizers"] and final_state(whole)["updates"] == 12
    if look:
        assert_equal(checkpoint.read(whole / "best.pt"), checkpoint.read(broken / "best.pt"))
        pictures = sorted(path.name for path in (whole / "samples").iterdir())
        assert pictures == [f"{n:012d}.png" for n in (48, 96, 144, 192)]
        for picture in pictures:
            assert (whole / "samples" / picture).read_text() == (broken / "samples" / picture).read_text()
    assert without_time(stats(whole)) == without_time(stats(broken))


def test_a_lost_tail_is_computed_again(tmp_path):
    name = "short_run/8gaussians"
    for out in ("whole", "torn"):
        fit(tiny(name), data_of(name), tmp_path / out, save_every=64, log_every=16, progress=False)
    torn = tmp_path / "torn"
    for path in torn.glob("state-000000000192-*.pt"):
        path.unlink()
    assert checkpoint.latest(torn)["images"] == 128
    fit(tiny(name), data_of(name), torn, save_every=64, log_every=16, progress=False)
    assert_equal(final_state(tmp_path / "whole"), final_state(torn))
    assert without_time(stats(tmp_path / "whole")) == without_time(stats(torn))


def test_images_beyond_a_finished_run_go_on_and_fewer_change_nothing(tmp_path):
    name, out = "egc/digits", tmp_path / "a"
    fit(tiny(name), data_of(name), out, images=64, progress=False)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    fit(tiny(name), data_of(name), out, images=32, progress=False)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    fit(tiny(name), data_of(name), out, images=112, progress=False)
    assert checkpoint.latest(out)["images"] == 112
    fit(tiny(name), data_of(name), tmp_path / "b", images=112, progress=False)
    assert_equal(final_state(out), final_state(tmp_path / "b"))


def test_best_is_kept_by_the_held_out_criterion(tmp_path, monkeypatch):
    name = "egc/digits"
    values = iter([3.0, 1.0, 2.0, 1.5])
    kind = type(tiny(name))
    monkeypatch.setattr(kind, "criterion", lambda self, held_out, generator: next(values))
    twins = []
    fit(
        tiny(name), data_of(name), tmp_path, sample_every=48, held_out=data_of(name).batch(0, 8, 1), progress=False,
        picture=lambda method, path, images: twins.append({key: value.clone() for key, value in method.state_dict().items()}),
    )  # fmt: skip
    best = checkpoint.read(tmp_path / "best.pt")
    assert (best["images"], best["criterion"]) == (96, 1.0)
    assert_equal(dict(best["ema"]), twins[1])
    assert_equal(dict(tw.load(tmp_path, which="best").state_dict()), twins[1])
    assert final_state(tmp_path)["best"] == 1.0


def test_seconds_end_a_run_and_count_over_resumes(tmp_path):
    class Clock:
        now = 0.0

        def __call__(self) -> float:
            Clock.now += 1.0
            return Clock.now

    name = "short_run/8gaussians"
    fit(tiny(name), data_of(name), tmp_path, seconds=8.5, clock=Clock(), progress=False)
    first = checkpoint.latest(tmp_path)
    assert 0 < first["images"] < 192 and 8.5 <= first["elapsed"] < 11
    Clock.now += 1000.0  # time between the two calls does not count
    fit(tiny(name), data_of(name), tmp_path, seconds=8.5, clock=Clock(), progress=False)
    assert checkpoint.latest(tmp_path)["images"] == first["images"]
    fit(tiny(name), data_of(name), tmp_path, seconds=11.5, clock=Clock(), progress=False)
    later = checkpoint.latest(tmp_path)
    assert first["images"] < later["images"] < 192 and 11.5 <= later["elapsed"] < 14


def test_a_run_on_a_folder_that_is_streamed_resumes_and_keeps_its_window(tmp_path, monkeypatch, capsys):
    from PIL import Image

    from thalweg.commands.train import run

    for i in range(40):
        path = tmp_path / f"pictures/{'ab'[i % 2]}/{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 6 * i).save(path)
    monkeypatch.setattr("thalweg.data.folders.decode_all", None)  # of which nothing is called that reads all
    words = f"egc/digits --data {tmp_path}/pictures --stream --window 16 --size 8 --batch 8 --width 8 --blocks 1 --levels 10".split()
    words += ["--threads", "1", "--device", "cpu", "--images", "64", "--save-every", "32", "--sample-every", "999"]
    for out in ("whole", "halves"):
        run([*words, "--out", str(tmp_path / out)])
    max((tmp_path / "halves").glob("state-*.pt")).unlink()  # as a run that was killed after 32 images
    run([*words, "--out", str(tmp_path / "halves")])
    states = [checkpoint.latest(tmp_path / out) for out in ("whole", "halves")]
    assert states[0]["images"] == states[1]["images"] == 64
    for part in ("method", "ema"):
        assert all(torch.equal(value, states[1][part][key]) for key, value in states[0][part].items())
    record = json.loads((tmp_path / "whole/data.json").read_text())
    assert (record["read"], record["count"], record["options"]) == (" --stream --window 16", 32, {"window": 16, "streaming": True})
    with pytest.raises(
        tw.InputError, match=r"--stream --window 16, and these are other data, pictures \(32 of \[1, 8, 8\]\) --stream --window 9:"
    ):
        run([*["9" if word == "16" else word for word in words], "--out", str(tmp_path / "whole")])


def test_a_run_without_a_folder_writes_nothing(tmp_path, monkeypatch):
    from thalweg.cli import main

    monkeypatch.chdir(tmp_path)
    name = "short_run/8gaussians"
    fit(tiny(name), data_of(name), images=32, progress=False)
    assert main(["train", name, "--dry-run", "--width", "16", "--steps", "2", "--batch", "16", "--buffer", "64", "--out", "here"]) == 0
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_events(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    name = "short_run/8gaussians"
    fit(tiny(name), data_of(name), tmp_path, log_every=64, tensorboard=True, progress=False)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    rows = stats(tmp_path)
    written = events.Scalars("loss/energy")
    assert [event.step for event in written] == [row["images"] for row in rows] == [64, 128, 192]
    assert [event.value for event in written] == pytest.approx([row["loss/energy"] for row in rows])


@pytest.mark.parametrize("name", list(TINY)[:2])
def test_bf16_runs_and_keeps_weights_in_fp32(name, native_bf16):
    def state(precision: str):
        return fit(tiny(name), data_of(name), images=48, precision=precision, progress=False).state_dict()

    low, full = state("bf16"), state("fp32")
    assert all(value.dtype != torch.bfloat16 and torch.isfinite(value).all() for value in low.values())
    # rounding must show, but not more than the steps taken
    moved = max(float((low[key] - full[key]).abs().max()) for key in low if key.startswith("net"))
    assert 0 < moved < 0.05


@pytest.mark.parametrize("name", TINY)
def test_looking_does_not_change_the_training(name, tmp_path):
    data = data_of(name)
    fit(tiny(name), data, tmp_path / "blind", sample_every=10**6, progress=False)
    fit(
        tiny(name), data, tmp_path / "seen", sample_every=16, held_out=data.batch(0, 24, 1), progress=False,
        picture=lambda method, path, images: (torch.rand(7), method.sample(3, seed=images)),
    )  # fmt: skip
    blind, seen = final_state(tmp_path / "blind"), final_state(tmp_path / "seen")
    assert seen.pop("best") < blind.pop("best") == math.inf
    assert len(seen.pop("held_out")) == 24 and len(blind.pop("held_out")) > 0
    assert_equal(blind, seen)


def test_fit_leaves_the_global_generator_as_it_was():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(tiny("egc/digits dropout"), data_of("egc/digits"), images=32, progress=False)
    assert torch.equal(torch.rand(3), expected)


def test_each_step_has_noise_of_its_own_that_the_seed_sets():
    class Rows:
        name, shape, classes = "rows", (2,), ()

        def batch(self, start, count, seed):
            return Batch(torch.zeros(count, 2))

    def noises(seed: int) -> list[float]:
        method = Two(rate=1e-4)
        fit(method, Rows(), images=32, seed=seed, progress=False)
        return method.noises

    first = noises(0)
    assert len(set(first)) == 8 and first == noises(0) and not set(first) & set(noises(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(images=0), "images must be above 0, got 0"),
        (dict(batch=-1), "batch must be above 0"),
        (dict(seconds=float("nan")), "seconds must be above 0, got nan"),
        (dict(save_every=0), "save_every must be above 0"),
        (dict(seed=-1), "the seed must be between 0"),
        (dict(precision="bf61"), "precision 'bf61' is not known (did you mean 'bf16'"),
        (dict(device="gpu"), "device 'gpu' is not known: cpu, cuda, mps or auto"),
        (dict(batch=15, shards=2), "a batch of 15 does not divide over 2 processes"),
    ],
)
def test_options_out_of_range(options, message, tmp_path):
    with pytest.raises(tw.InputError, match=message.replace("(", r"\(")):
        fit(tiny("short_run/8gaussians"), data_of("short_run/8gaussians"), tmp_path / "a", progress=False, **options)
    assert list(tmp_path.iterdir()) == []


def test_what_fit_returns_does_not_learn_by_accident(tmp_path):
    data = data_of("short_run/8gaussians")
    returned = fit(tiny("short_run/8gaussians"), data, tmp_path / "a", progress=False)
    with pytest.raises(tw.InputError, match="no weight of this short_run can learn"):
        fit(returned, data, tmp_path / "b", progress=False)
    before = [p.clone() for p in returned.parameters()]
    learned = fit(returned.requires_grad_(), data, tmp_path / "b", progress=False)
    assert any(not torch.equal(a, b) for a, b in zip(before, learned.parameters()))


def test_data_that_do_not_fit_the_method(tmp_path):
    with pytest.raises(tw.InputError, match=r"short_run is built for examples of shape \(2,\), but digits/train has \(1, 8, 8\)"):
        fit(tiny("short_run/8gaussians"), data_of("egc/digits"), tmp_path / "a", progress=False)
    unlabelled = tw.data.Images(torch.zeros(20, 1, 8, 8), name="plain")
    with pytest.raises(tw.InputError, match="egc is built for 10 classes, but plain has 0"):
        fit(tiny("egc/digits"), unlabelled, tmp_path / "a", progress=False)
    assert list(tmp_path.iterdir()) == []
