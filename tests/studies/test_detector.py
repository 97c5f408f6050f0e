"""The studies of the detector, at tiny settings."""

from functools import partial

import torch

import thalweg as tw
from studies import detector, detector_pictures
from studies.checks import detector_stream
from thalweg.detect import pictures


def test_pictures_by_pixels_and_a_network_are_measured(monkeypatch) -> None:
    monkeypatch.setattr(pictures, "features_of", lambda name, x: torch.nn.functional.adaptive_avg_pool2d(x, 4).flatten(1))
    monkeypatch.setattr(tw, "EnergyDetector", partial(tw.EnergyDetector, members=2, updates=2))
    monkeypatch.setattr(detector_pictures, "OTHERS", ("mnist-small",))
    row = detector_pictures.one("digits", 0, "pixels+efficientnet-lite0", most=60)
    assert row["train"] == row["test"] == 60 and row["judged_by"] in row["choice"] and len(row["choice"]) == 3
    assert {"black", "mnist-small", "uniform"} <= row["kinds"].keys() and 0.5 < row["mean"] <= 1
    assert [rate["rate"] for rate in row["promise"]] == [0.05, 0.1]


def test_a_stream_is_measured(monkeypatch) -> None:
    monkeypatch.setattr(detector_stream, "FITTED", 60)
    monkeypatch.setattr(detector_stream, "PART", 100)
    for form in detector_stream.FORMS:
        row = detector_stream.one(detector_stream.CHECK.parser().parse_args(["--rows", "250", "--updates", "1", "--one", form]))
        assert row["rows"] == row["answers"] == 250 and row["rows_a_second"] > 100 and row["most_mib"] > row["beyond_mib"] >= 0
    assert not detector_stream.failed({"runs": [row]}) and detector_stream.failed({"runs": [row | {"answers": 249}]})
    assert detector_stream.failed({"runs": [row | {"within_limit": False}]})


def test_some_tasks_are_spread_evenly():
    names = [f"{i:03d}" for i in range(182)]
    found = detector.spread(names)
    assert sorted(found) == names and sorted(found[:91]) == names[::2] and sorted(found[:46]) == names[::4]
    places = sorted(int(name) for name in found[:110])
    assert max(b - a for a, b in zip(places, places[1:])) == 2
