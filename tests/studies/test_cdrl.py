"""What the study of CDRL says of each level."""

import math
from types import SimpleNamespace

import pytest
import torch

import thalweg as tw
from studies import cdrl
from studies.cdrl import HANDED, HANDOVER, level_figures


def test_figures_of_the_levels_of_an_untrained_model():
    """Proposals are the best linear guess, and chains move by little but their noise."""
    model = tw.method("cdrl/digits", net=dict(width=8), initializer=dict(width=8), steps=2)
    rows = level_figures(model, tw.data.load("digits", "test").batch(0, 64, seed=0).x)
    assert [row["level"] for row in rows] == list(range(6))
    for row in rows:
        assert row["error"] == pytest.approx(row["linear"], rel=1e-4)
        assert row["noise"] / 2 < row["displacement"] < 2 * row["noise"]
        assert row["proposed"] > 0.9 * row["least"] and all(math.isfinite(value) for value in row.values())
        assert row["floor"] < row["distance"]
    # the last level as a denoiser; an untrained energy is that of N(0, s² I), whose posterior mean is linear
    above, signal, sigma = model.sample(5, seed=1, down_to=1), model.schedule.signal[1], model.schedule.noise[1]
    variance = (signal * model.config.data_std) ** 2
    expected = above / signal * variance / (variance + sigma**2)
    torch.testing.assert_close(cdrl.DenoisedLast(model).sample(5, seed=1), expected.clamp(-1, 1), rtol=1e-3, atol=1e-4)


def test_rows_of_the_hand_over_are_settings_of_the_preset():
    for fields in HANDOVER.values():
        assert tw.method("cdrl/digits", **HANDED | fields).config.images == HANDED["images"]


def test_the_hand_over_at_equal_time(monkeypatch):
    """Images by what steps cost before the hand-over and after it; on other data also a distance of the samples."""
    load, options = tw.data.load, cdrl.STUDY.parser().parse_args(["handover", "--data", "fashion-mnist", "--seconds", "60"])
    monkeypatch.setattr(tw.data, "load", lambda name, split="train", size=None: load("digits", split))
    monkeypatch.setattr(cdrl, "images_for", lambda trial, data, seconds, precision: 20 if trial.config.data_first == 1 else 10)
    monkeypatch.setattr(cdrl.Judge, "of", lambda *_, **asked: SimpleNamespace(floor=1.0, distance=lambda twin, *_: 7.0))
    small = dict(net=dict(width=8, blocks=1), initializer=dict(width=8, blocks=1), batch=2, steps=1)
    monkeypatch.setattr(cdrl, "OF_PRESET", cdrl.OF_PRESET | small)
    monkeypatch.setattr(cdrl, "STOPS", 3)
    monkeypatch.setattr(cdrl, "COMPARED", 16)
    row = cdrl.handover_one("the twin's proposals, means of chains", 0, options)
    assert row["images"] == 14 and row["frechet"] == 7.0 and len(row["along"]) == 3  # 1/(0.6/20 + 0.4/10)
    assert row["before"] == row["along"][1]["criterion"] and row["end"] == row["worst"] == row["along"][2]["criterion"]
    line = cdrl.handover_line("x", [row], [{**row, "row": "x", "seed": 0}])
    assert line["jump"] == pytest.approx(row["end"] / row["before"]) and line["difference"] is None


def test_sizes_at_equal_time(monkeypatch):
    """Samples, also of a denoiser as the last level, and figures of each level of as many as a row has."""
    words = ["sizes", "--seconds", "60", "--data", "digits"]
    options, own, small = cdrl.STUDY.parser().parse_args(words), cdrl.sizes_settings, dict(net=dict(width=8), initializer=dict(width=8))
    monkeypatch.setattr(cdrl, "images_for", lambda trial, data, seconds, precision: 32)
    monkeypatch.setattr(cdrl, "FIGURED", 16)
    monkeypatch.setattr(
        cdrl, "sizes_settings", lambda row, options: (own(row, options)[0], own(row, options)[1] | small | {"batch": 16, "steps": 1})
    )
    drawn = []
    judge = SimpleNamespace(floor=1.0, distance=lambda model, *_: drawn.append(model.sample(2, seed=0)) or 2.0)
    monkeypatch.setattr(cdrl.Judge, "of", lambda *_, **asked: judge)
    row = cdrl.sizes_one("T = 4", 0, options)
    assert row["images"] == 32 and row["frechet"] == 2.0 and len(row["levels"]) == 4 and not torch.equal(*drawn)
    line = cdrl.sizes_line("x", [row], [{**row, "row": "x", "seed": 0}])
    assert len(line["error"]) == len(line["displacement"]) == 4 and all(0.5 < value < 2 for value in line["error"])


def test_the_ablation_by_updates_on_more_pixels():
    words = ["ablation", "--data", "fashion-mnist", "--size", "14", "--updates", "5000", "--batch", "64"]
    asked = [cdrl.ablation_settings(row, cdrl.STUDY.parser().parse_args(words)) for row in cdrl.ROWS]
    assert {name for name, _ in asked} == {"cdrl/digits"}
    assert all(fields["images"] == 5000 * 64 and fields["batch"] == 64 and fields["net"] == {"width": 512} for _, fields in asked)
    usual = cdrl.ablation_settings(cdrl.FULL, cdrl.STUDY.parser().parse_args([]))[1]
    assert usual["images"] == cdrl.ENDLESS and usual["net"] == {"width": 256}


def test_pairs_of_digits_by_walk(monkeypatch, tmp_path):
    """Passes of the network as a walk needs them, and figures of an untrained model, whose energies know nothing of labels."""
    model = tw.method("cdrl/paired-digits", net=dict(width=8), initializer=dict(width=8), steps=2)
    x = tw.random.normal(40, 1, 8, 16, generator=tw.random.seeded(1)).clamp(-1, 1)
    label = {"left": torch.arange(40) % 10, "right": torch.arange(40) // 4}
    judge = SimpleNamespace(logits=lambda images: torch.eye(10)[torch.zeros(len(images), dtype=torch.int64)])
    monkeypatch.setattr(tw, "load", lambda run: model)
    monkeypatch.setattr(cdrl, "readers", lambda data, make: ({"left": judge, "right": judge}, x, label))
    monkeypatch.setattr(cdrl, "length_of", lambda run: {"images": 1})
    walks = {"one draw": dict(n=20), "3 corrections": dict(n=10, corrections=3), "population": dict(n=10, population=2)}
    monkeypatch.setattr(cdrl, "WALKS", walks | {"one draw, proposals guided": dict(n=10, guide="initializer", w=0.5)})
    monkeypatch.setattr(cdrl, "KEPT", 2)
    options = SimpleNamespace(pictures=tmp_path)
    found = cdrl.walked(tmp_path / "cdrl-paired", None, options)
    passes = {row["walk"]: row["passes"] for row in found["rows"]}
    # 6 levels of 2 steps and the last formula, p(x) and two labels each; MALA looks at its start too; a population moves by p(x)
    assert passes["one draw"] == 3 * (6 * 2 + 1) and passes["3 corrections"] == 3 * (6 * 2 + 6 * 4 + 1)
    assert passes["population"] == 2 * (6 * 2 + 2 * 6 * 4 + 3)
    assert [row["pairs"] for row in found["rows"][:2]] == [cdrl.UNSEEN, "seen"]
    equal, other = found["rows"][:2]
    assert [equal[key] for key in ("left", "right", "joint")] == pytest.approx([0.1] * 3), "the judges read zeros everywhere"
    assert other["joint"] == 0
    assert len(list(tmp_path.glob("*.png"))) == 2 and [row["level"] for row in found["kept"]] == list(range(6))
    assert all(row["no label, before"] == row["both, before"] for row in found["kept"]), "an untrained energy is the same given all labels"
    shown = cdrl.of_walks({"results": {name: found for name in cdrl.PAIRED}})
    assert len(shown["walks"]) == 16 and len(shown["readings"]) == 4 and len(shown["chains"]) == 24
