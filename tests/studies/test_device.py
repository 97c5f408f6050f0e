"""The study of a device, at tiny settings on the CPU: its rows, what does not fit, and what fails."""

import json

import pytest
import torch

from studies import device
from thalweg.commands.list import tables

CPU = torch.device("cpu")


def options(**values):
    return device.CHECK.parser().parse_args([word for key, value in values.items() for word in (f"--{key}", *str(value).split())])


def test_a_run_has_a_row_of_each(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(device, "TRAINED", {"dual/digits": {}})
    load = device.tw.data.load
    monkeypatch.setattr(device.tw.data, "load", lambda name: load("digits"))
    only = "short_run/digits nerf_lebm/objects"
    found = device.run(options(device="cpu", tiny=1, train=0.5, least=0.01, batch=4, only=only))
    assert found["peak"] > 1e8 and not found["no_time"] and not device.failed(found), json.dumps(found)
    short, objects = found["presets"]
    assert short["chain"]["eager"] > 0 and "graphed" not in short["chain"] and "chain" not in objects
    assert {row["batch"] for row in found["presets"]} == {4} and objects["images_second"] > 0
    (trained,) = found["trained"]
    assert trained["images"] >= 4 and trained["samples_finite"] and isinstance(trained["criterion"], float)


def test_a_batch_is_halved_until_it_fits(monkeypatch):
    asked = []

    def a_step(name, count, where, options, **fields):
        asked.append(count)
        if count > 64:
            raise torch.OutOfMemoryError
        return 0.5, "method"

    monkeypatch.setattr(device, "a_step", a_step)
    assert device.largest("egc/imagenet256-latent", CPU, options()) == (64, 0.5, "method") and asked == [512, 256, 128, 64]


def test_what_fails_and_what_there_is_no_time_for_is_said(monkeypatch):
    monkeypatch.setattr(device, "TRAINED", {})
    monkeypatch.setattr(device, "of_preset", lambda *_: 1 / 0)
    found = device.run(options(device="cpu", tiny=1, train=0, least=0.01, only="egc/cifar10"))
    assert found["presets"] == [{"preset": "egc/cifar10", "failed": "ZeroDivisionError: division by zero"}] and device.failed(found)
    late = device.run(options(device="cpu", tiny=1, train=0, least=0.01, budget=0, only="egc/cifar10"))
    assert late["no_time"] == ["egc/cifar10"] and not device.failed(late)


def test_presets_of_paper_scale_have_one_of_each_kind_first():
    found = device.presets_of_paper_scale()
    known = {f"{method}/{key}" for method, rows in tables().items() for key in rows}
    assert tuple(found[: len(device.FIRST)]) == device.FIRST and set(found) <= known


def test_the_peak_is_that_of_products():
    assert device.peak(CPU, (64, 128), 0.01) == pytest.approx(device.peak(CPU, (64, 128), 0.01), rel=20)
