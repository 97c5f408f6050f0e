"""The contract of every method: trained on a tensor, non-square where its network can, one row as in a batch, and at home elsewhere."""

import json
import os
import subprocess
import sys

import numpy
import pytest
import torch

import thalweg as tw
from thalweg.commands.main import main
from thalweg.methods import METHODS
from thalweg.metrics import METRICS, Settings, Subject

FEW = {"batch": 8, "images": 32}
SHAPE = (1, 12, 8)  # no square: no side stands for both


class Stripes:
    """Images [C, H, W] of two classes in [−1, 1], dark and light; a `Data` of its own."""

    name, classes = "stripes", ("dark", "light")

    def __init__(self, shape, count=64):
        generator = torch.Generator().manual_seed(0)
        self.shape, self.label = shape, torch.arange(count) % 2
        noise = torch.rand(count, *shape, generator=generator)
        self.x = (noise - 0.5) * 0.8 + (self.label.view(-1, 1, 1, 1) - 0.5)

    def batch(self, start, count, seed):
        rows = (torch.arange(start, start + count) + seed) % len(self.x)
        return tw.data.Batch(self.x[rows], self.label[rows])

    def all(self):
        return tw.data.Batch(self.x, self.label)


# a preset of each method, with settings that a few steps can train
CASES = {
    "short_run": ("digits-conditional", {"net": {"widths": (8, 8)}, "buffer": 32, "chain.steps": 2, "sample_steps": 2}),
    "egc": ("digits", {"net": {"width": 8, "blocks": 1}, "sample_steps": 2}),
    "dual": ("digits", {"net": {"width": 16}, "conditional": True, "sample_steps": 2, "calibration": 64}),
    "jem": ("digits", {"net": {"width": 8, "blocks": 1}, "buffer": 32, "chain.steps": 2, "sample_steps": 2}),
    "cdrl": ("digits-conditional", {"net": {"width": 8}, "chain.steps": 2}),
    "ddaebm": ("digits", {}),
    "coopflow": ("digits", {"chain.steps": 2}),
    "cf_ebm": ("digits", {}),
    "liebm": ("digits", {"chain.steps": 2}),
    "autoencoder": ("pictures", {"coders": {"widths": (8, 8)}}),
    "ssl": ("digits", {}),
    "ddpm": ("digits", {"net": {"width": 16}, "conditional": True, "sample_steps": 2}),
    "wgan_gp": ("digits", {"critic_steps": 2}),
}
APART = {"nerf_lebm"}  # its data are views of objects in space, see tests/methods/test_nerf_lebm.py


def test_every_method_keeps_the_contract():
    assert set(CASES) | APART == set(METHODS)


@pytest.fixture(scope="module", params=CASES)
def trained(request, tmp_path_factory):
    preset, fields = CASES[request.param]
    data, folder = Stripes(SHAPE), tmp_path_factory.mktemp(request.param)
    method = tw.method(f"{request.param}/{preset}", data=data, **fields, **FEW)
    return tw.fit(method, data, folder / "run", progress=False), data, folder


def test_a_row_alone_is_as_in_its_batch(trained):
    model, data, _ = trained
    for name in ("energy", "classify", "encode", "outlier_score"):
        if name in model.abilities:
            together = getattr(model, name)(data.x[:6])
            alone = torch.cat([getattr(model, name)(data.x[i : i + 1]) for i in range(6)])
            assert torch.allclose(together, alone, rtol=1e-4, atol=1e-4 * float(1 + together.abs().max())), name


def test_samples_are_in_the_data_s_shape(trained):
    model, data, _ = trained
    if "sample" in model.abilities:
        x = model.sample(3, seed=1)
        assert x.shape == (3, *data.shape) and torch.equal(model.sample(3, seed=1), x)


CHECK = """
import json, sys, torch, thalweg as tw
model, x = tw.load(sys.argv[1]), torch.tensor(json.load(open(sys.argv[2])))
found = {name: getattr(model, name)(x).tolist() for name in ("energy", "classify", "encode") if name in model.abilities}
print(json.dumps(found | ({"sample": model.sample(2, seed=3).tolist()} if "sample" in model.abilities else {})))
"""


def test_it_is_the_same_model_in_a_new_process_elsewhere(trained, tmp_path):
    model, data, folder = trained
    tw.save(model, folder / "model")
    (tmp_path / "x.json").write_text(json.dumps(data.x[:3].tolist()))
    # elsewhere, and by a relative path
    where = os.path.relpath(folder / "model", tmp_path)
    done = subprocess.run([sys.executable, "-c", CHECK, where, "x.json"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name, value in json.loads(done.stdout).items():
        right = model.sample(2, seed=3) if name == "sample" else getattr(model, name)(data.x[:3])
        assert torch.allclose(torch.tensor(value), right, rtol=1e-4, atol=1e-4 * float(1 + right.abs().max())), name


def test_it_is_evaluated_on_its_own_images(trained):
    """At the size that it was trained at, without a word of the preset's data."""
    model, data, folder = trained
    path = folder / "stripes.npz"
    grey = ((data.x + 1) * 127.5).round().clamp(0, 255).byte()
    numpy.savez(path, x=grey.numpy(), y=data.label.numpy())
    found = Subject(tw.load(folder / "run"), Settings(n=8), data=str(path))
    assert tuple(found.test.x.shape[1:]) == SHAPE
    if "energy" in model.abilities:
        figures = METRICS["ood"].measure(found)
        right = tw.evaluate.outliers("uniform", found.test.x, len(found.test.x), 0)
        auroc = tw.evaluate.ood(model.energy(found.test.x), model.energy(right)).auroc
        assert figures["energy"]["uniform"]["auroc"] == pytest.approx(auroc, abs=1e-6)


def test_it_is_sampled_by_class_name_from_elsewhere(trained, tmp_path, monkeypatch, capsys):
    model, _, folder = trained
    if "labels" not in model.abilities:
        return
    monkeypatch.chdir(tmp_path)
    run = os.path.relpath(folder / "run", tmp_path)
    assert main(["sample", run, "-n", "2", "--label", "light", "--out", "x.npz"]) == 0, capsys.readouterr().err
    assert main(["sample", run, "-n", "2", "--label", "bright", "--out", "x.npz"]) == 2
    assert "dark, light" in capsys.readouterr().err
