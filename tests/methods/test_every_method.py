"""What every method keeps, with pictures of one's own that are wider than high: trained from a tensor, of each row alone, loaded in a
new process from another directory, evaluated there, and sampled by a class's name."""

import json
import subprocess
import sys
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch

import thalweg as tw
from thalweg.data import Views
from thalweg.methods import METHODS
from thalweg.methods.base import has

SMALL = {  # preset and fields that make it quick; 8×12 halves twice
    "short_run": ("digits-conditional", {"net.widths": (8, 8, 8), "buffer": 64, "sample_steps": 3, "chain.steps": 2}),
    "egc": ("digits", {"net.width": 8, "net.blocks": 1, "sample_steps": 3}),
    "dual": ("digits", {"net.width": 8, "conditional": True, "sample_steps": 3, "calibration": 64}),
    "cdrl": ("digits-conditional", {"net.width": 8, "net.depth": 1}),
    "ddaebm": ("digits", {}),
    "jem": ("digits", {"net.width": 8, "net.blocks": 1, "sample_steps": 3, "chain.steps": 2, "buffer": 64}),
    "coopflow": ("digits", {}),
    "cf_ebm": ("digits", {}),
    "nerf_lebm": ("objects", {"field.width": 8, "field.mapping": 8, "renderer.samples": 4}),
    "autoencoder": ("pictures", {"widths": (8, 8, 8)}),
    "ssl": ("digits", {}),
    "ddpm": ("digits", {"net.width": 8, "conditional": True, "sample_steps": 3}),
    "wgan_gp": ("digits", {"critic_steps": 2}),
    "liebm": ("digits", {"chain.steps": 2}),
}
# one process, in a directory of its own, for all of them
ELSEWHERE = """
import json, sys, traceback
import torch
import thalweg as tw
from thalweg.commands.main import main
from thalweg.methods.base import has

said = {}
for name in sys.argv[1:]:
    run = f"../there/{name}"
    try:
        model, kept = tw.load(run), torch.load(f"{run}.pt")
        row = said[name] = {}
        for what in ("energy", "encode"):
            if what in kept:
                row[what] = float((getattr(model, what)(kept["x"]) - kept[what]).abs().max())
        data = [] if name == "nerf_lebm" else ["--data", "../there/pets.npz"]
        metrics = ["--metrics", "cost,fidelity" if data else "cost"] if has(model, "sample") else []
        row["evaluate"] = main(["evaluate", run, "-n", "30", "--out", f"{name}.json", *data, *metrics])
        row["figures"] = json.load(open(f"{name}.json"))
        if has(model, "sample") and not has(model, "given"):
            label = ["--label", "dog"] if has(model, "labels") else []
            row["sample"] = main(["sample", run, "-n", "3", "--out", f"{name}.npz", *label])
    except BaseException:
        said[name] = traceback.format_exc()
json.dump(said, open("said.json", "w"))
"""


def pets() -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy stripes [200, 1, 8, 12], across for cats and along for dogs."""
    generator, label = torch.Generator().manual_seed(0), torch.arange(200) % 2
    across = (torch.arange(12) % 4 < 2).expand(8, 12)
    along = (torch.arange(8) % 4 < 2)[:, None].expand(8, 12)
    x = torch.stack([across, along])[label][:, None] * 1.0 - 0.5
    return (x + 0.2 * torch.randn(x.shape, generator=generator)).clamp(-1, 1), label


def views() -> Views:
    x, _ = pets()
    angle = torch.linspace(0, 6, 200)
    directions = torch.stack([angle.cos(), angle.sin()], 1)
    cameras = tw.camera.orbit(directions, directions, distance=4.0, focal=1.866)
    return Views(((x + 1) * 127.5).byte().expand(-1, 3, -1, -1), cameras, torch.arange(50).repeat_interleave(4))


def train(name: str, folder: Path) -> None:
    preset, fields = SMALL[name]
    x, label = pets()
    data = views() if name == "nerf_lebm" else tw.data.of((x, label), classes=("cat", "dog"), name="pets")
    model = tw.fit(tw.method(f"{name}/{preset}", data=data, batch=8, **fields), data, folder / name, images=16, progress=False).eval()
    kept = {"x": x[:6]}
    for what in ("energy", "encode"):
        if has(model, what) and name != "nerf_lebm":  # whose energies are of latents
            kept[what] = getattr(model, what)(x[:6])
            alone = torch.cat([getattr(model, what)(row[None]) for row in x[:6]])
            torch.testing.assert_close(alone, kept[what], rtol=1e-4, atol=1e-4)
    torch.save({k: v.detach() for k, v in kept.items()}, folder / f"{name}.pt")


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """By method: what became of it here, and in the other process."""
    root = tmp_path_factory.mktemp("every")
    here, there = root / "here", root / "there"
    here.mkdir(), there.mkdir()
    x, label = pets()
    np.savez(there / "pets.npz", x=x.numpy(), y=np.array(["cat", "dog"])[label.numpy()])
    trained = {}
    for name in METHODS:
        try:
            trained[name] = train(name, there)
        except Exception:
            trained[name] = traceback.format_exc()
    words = [sys.executable, "-c", ELSEWHERE, *(name for name in METHODS if trained[name] is None)]
    done = subprocess.run(words, cwd=here, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    other = json.loads((here / "said.json").read_text())
    return {name: trained[name] or other[name] for name in METHODS}, here


@pytest.mark.parametrize("name", METHODS)
def test_what_every_method_keeps(name, said):
    said, here = said
    row = said[name]
    assert isinstance(row, dict), row
    assert all(row[what] < 1e-4 for what in ("energy", "encode") if what in row)
    (figures,) = row["figures"].values()
    assert row["evaluate"] == 0 and len(figures) > 1
    if "sample" in row:
        assert "cost" in figures and ("fidelity" in figures or name == "nerf_lebm")
        x = np.load(here / f"{name}.npz")["x"]
        assert row["sample"] == 0 and x.shape[0] == 3 and np.isfinite(x).all()
        assert x.shape[1:] == (3 if name == "nerf_lebm" else 1, 8, 12)
