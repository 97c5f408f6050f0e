"""Measures that studies share, on models and images that are small or made up."""

import time
from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch

import thalweg as tw
from studies import measures
from studies.measures import (
    ENDLESS,
    Bare,
    Judge,
    auroc_of,
    less,
    means,
    noise_errors,
    over_seeds,
    paired,
    precisely,
    psnr_hidden,
    ratio,
    seconds_in_turn,
    sets_of,
    trained,
)
from thalweg.errors import Diverged

OPTIONS = Namespace(data="digits", size=None, seconds=None, precision="fp32")


def tiny(**fields):
    return tw.method("short_run/8gaussians", width=16, steps=2, sample_steps=5, batch=16, buffer=64, **fields)


def test_a_training_says_how_it_went_and_is_watched_at_equal_parts():
    seen = []

    def look(twin, last):
        seen.append((bool(torch.isfinite(twin.sample(4)).all()), last))
        return {"parameters": measures.parameters(twin)}

    model, found = trained(tiny(images=320), tw.data.toy("8gaussians"), 3, OPTIONS, stops=2, look=look, keep=("energy_data", "nothing"))
    assert found["diverged"] is None and found["images"] == 320 and found["updates"] == 20
    assert [row["images"] for row in found["along"]] == [160, 320] and seen == [(True, False), (True, True)]
    assert found["along"][0]["parameters"] == found["parameters"] == measures.parameters(model)
    assert isinstance(found["energy_data"], float) and "nothing" not in found and found["guard_events"] == 0 and not model.training


def test_time_ends_a_training_without_an_end_and_its_folder_is_kept(tmp_path, monkeypatch):
    now = [0.0]

    def clock():
        now[0] += 0.01
        return now[0]

    monkeypatch.setattr(time, "process_time", clock)
    toy = tw.data.toy("8gaussians")
    model = tiny(images=ENDLESS)
    _, found = trained(model, toy, 0, OPTIONS, seconds=1.0, folder=tmp_path / "run", stops=4, look=lambda twin, last: {"last": last})
    spent = [row["cpu_seconds"] for row in found["along"]]
    assert spent == pytest.approx([0.25, 0.5, 0.75, 1.0], abs=0.06) and [row["last"] for row in found["along"]] == [False] * 3 + [True]
    assert (tmp_path / "run" / "config.json").exists()
    _, again = trained(tiny(images=ENDLESS), toy, 0, OPTIONS, seconds=1.0, folder=tmp_path / "run")
    assert again["images"] == found["images"] and "along" not in again


def test_a_training_that_diverges_is_none_and_says_so(monkeypatch):
    model = tiny(images=320)

    def step(batch, update):
        raise Diverged("too high")

    monkeypatch.setattr(model, "step", step)
    found_model, found = trained(model, tw.data.toy("8gaussians"), 0, OPTIONS)
    assert found_model is None and "too high" in found["diverged"] and found["images"] == 0


@pytest.fixture(scope="module")
def judge():
    x = torch.rand(400, 1, 8, 8, generator=tw.random.seeded(0)) * 2 - 1
    extractor = SimpleNamespace(name="pixels", num_features=4, features=lambda x, batch=None: x.flatten(1)[:, :4])
    return Judge(x[:300], x[300:], extractor)


def test_the_judge_compares_samples_with_training_images(judge, monkeypatch):
    reports = []

    def fidelity(train, x, extractor, *, held_out, metrics):
        reports.append((train, held_out, metrics))
        return SimpleNamespace(frechet=SimpleNamespace(value=float(x.mean()), held_out=0.25))

    monkeypatch.setattr(tw.evaluate, "fidelity", fidelity)
    model = SimpleNamespace(sample=lambda n, seed, shift=0.0: torch.full((n, 1, 8, 8), seed + shift))
    assert judge.floor == 0.25 and judge.frechet(torch.ones(3, 1, 8, 8)) == 1.0
    assert reports[0][0] is judge.train and reports[0][1] is judge.held_out and reports[0][2] == ("frechet",)
    assert judge.frechet(torch.full((3, 1, 8, 8), torch.nan)) is None
    assert [len(x) for x in judge.sets(model, 0, draws=2)] == [100, 100]
    assert judge.distance(model, 2, draws=3, shift=0.5) == pytest.approx(2002.5)  # seeds 2001, 2002, 2003
    assert judge.distance(model, 0, n=7, shift=torch.inf) is None


def test_samples_are_in_the_precision_asked_for_and_what_is_measured_of_them_is_not(judge, native_bf16):
    seen = []

    def sample(n, seed):
        seen.append(torch.is_autocast_enabled("cpu"))
        return torch.zeros(n, 1, 8, 8)

    for precision, mixed in (("bf16", True), ("fp32", False)):
        for _ in judge.sets(SimpleNamespace(sample=sample), 0, precision, draws=2):
            assert not torch.is_autocast_enabled("cpu") and seen[-1] == mixed


def test_the_judge_of_a_data_set_has_its_images():
    train, test = sets_of(OPTIONS)
    found = Judge.of("digits", train, test, most=50)
    assert len(found.train) == len(train) and torch.equal(found.held_out, test.all().x[:50]) and found.extractor.test_accuracy > 0.9


def test_psnr_of_hidden_pixels_counts_no_other():
    x, hidden = torch.zeros(2, 3, 4, 4), torch.zeros(1, 4, 4, dtype=torch.bool)
    hidden[:, :2] = True
    guess = torch.where(hidden, 0.2, 5.0).expand_as(x)
    assert psnr_hidden(x, guess, hidden).tolist() == pytest.approx([20.0, 20.0], rel=1e-5)
    # of masks that differ from image to image, and of an exact guess
    each = torch.stack([hidden, ~hidden])
    assert psnr_hidden(x, guess, each)[1] < 0 < psnr_hidden(x, x, each).min()


def test_auroc_of_outliers_by_kind_and_score():
    model = tw.method("short_run/digits", widths=(4, 4), blocks=0)
    x = tw.data.load("digits", "test").all().x[:40]
    found = auroc_of(model, x, {"other": x + 3}, kinds=("uniform", "constant"))
    assert list(found) == ["energy"] and set(found["energy"]) == {"other", "uniform", "constant"}
    assert all(0 <= value <= 1 for value in found["energy"].values())


@pytest.mark.parametrize("shuffle", [False, True])
def test_runs_take_turns(shuffle):
    calls, now = [], [0.0]

    def run(name, seconds):
        calls.append(name)
        now[0] += seconds

    runs = {"a": lambda: run("a", 1.0), "b": lambda: run("b", 2.0)}
    first, seconds = seconds_in_turn(runs, 3, lambda: now[0], shuffle=shuffle)
    assert first == {"a": 1.0, "b": 2.0} and seconds == {"a": [1.0] * 3, "b": [2.0] * 3} and ratio(seconds["b"], seconds["a"]) == 2.0
    assert all(set(calls[i : i + 2]) == {"a", "b"} for i in range(0, 8, 2)) and (calls == ["a", "b"] * 4) != shuffle


def test_a_bare_step_moves_the_weights(native_bf16):
    model = tiny()
    before = [p.clone() for p in model.parameters()]
    batch, update = tw.data.toy("8gaussians").batch(0, 16, seed=0), Bare(model)
    precisely(lambda: model.step(batch, update), "bf16")()
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters()))


def test_means_and_pairs_leave_out_what_is_not_there():
    rows = [{"row": row, "seed": seed, "x": value} for row, values in {"a": (1.0, 2.0, None), "b": (3.0, 6.0, 9.0)}.items()
            for seed, value in enumerate(values)]  # fmt: skip
    assert means(rows[:3], ("x", "y")) == {"x": 1.5, "y": None}
    assert paired(rows, "b", "a", "x") == (3.0, 1.0) and paired(rows, "a", "a", "x") == (None, None)
    assert paired(rows[:4], "b", "a", lambda row: row["x"] and 10 * row["x"]) == (20.0, None)
    assert less(rows, "b", "a", "x", "x ") == {"x less": "a", "x difference": 3.0, "x standard_error": 1.0}
    assert over_seeds("x")("b", rows[3:], rows) == {"x": 6.0}


def test_a_training_makes_its_model_of_a_preset():
    fields = dict(width=16, steps=2, sample_steps=5, batch=16, buffer=64, images=32)
    model, found = trained(("short_run/8gaussians", fields), tw.data.toy("8gaussians"), 0, OPTIONS)
    assert model.config.images == found["images"] == 32 and model.config.net.width == 16


def test_errors_of_the_predicted_noise_are_those_of_the_exact_denoiser():
    """Of N(0, s²) the mean squared error of the best ẑ is s²/(s² + σ²), of discrete levels too; None where there is no level."""
    models = {
        "egc": tw.method("egc/vectors", shape=(3,), classes=0, data_std=0.6, **{"net.width": 8, "net.depth": 1}),
        "dual": tw.method("dual/vectors", shape=(3,), **{"net.width": 8, "net.depth": 1, "waves": 0}),
    }
    x = 0.6 * tw.random.normal(4000, 3, generator=tw.random.seeded(8))
    models["dual"].prepare(x)
    for name, model in models.items():
        with torch.no_grad():
            for p in model.net.parameters():
                p.zero_()
        found = noise_errors(model, x, sigmas=(0.005, 0.1, 0.5, 2.0))
        assert found["0.005"] is None
        for sigma in (0.1, 0.5, 2.0):
            best = 0.36 / (0.36 + sigma**2)
            # squares of normal numbers have a relative standard deviation of √2
            assert abs(found[f"{sigma:g}"] / best - 1) < 4.5 * (2 / 12_000) ** 0.5 + 0.01, (name, sigma)


def test_where_chains_leave_the_support_there_is_no_error_of_the_noise():
    def denoise(y, sigma):
        if sigma > 0.5:
            raise tw.Diverged("chains ended where the energy is infinite")
        return torch.zeros_like(y)

    model = SimpleNamespace(denoise=denoise, bin_width=None, abilities=())
    found = noise_errors(model, torch.zeros(4, 1, 8, 8), sigmas=(0.1, 1.0))
    assert found == {"0.1": pytest.approx(0.0, abs=1e-9), "1": None}
