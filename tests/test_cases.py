"""Situations that once went wrong, as a user meets them on the command line and in Python, with the right values.

Others of that kind have their tests at home: chains that are stuck or mix their batch and samplers' arguments in test_contract.py, a
`Data` of one's own in data/test_door.py, inputs of models in test_gate.py, hidden pictures in data/test_folders.py, data that move and
what cannot be written in commands/test_runs.py, two runs and two writers in test_stopping.py.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

import thalweg as tw
from thalweg.commands.main import main
from thalweg.metrics import likelihood

FAST = ["--batch", "32", "--sample-steps", "5", "--threads", "1"]
SMALL = ["--width", "8", "--blocks", "1", "--levels", "20"]
RNG = np.random.default_rng(0)


def noise(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def picture(path: str, values: np.ndarray) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def figures(run: str) -> dict:
    return json.loads((Path(run) / "metrics.json").read_text())


def grey(x: torch.Tensor) -> np.ndarray:
    return ((x + 1) * 127.5).round().byte().numpy()


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("THALWEG_CACHE", str(tmp_path / "cache"))


# --- pictures that are no square


@pytest.mark.parametrize("net", [SMALL, ["--net", "unet", "--net.multipliers", "[1,2]", "--net.width", "8", "--net.attention", "0"]])
def test_pictures_that_are_no_square_are_measured_as_they_are(net):
    for label, top in (("dark", 0), ("light", 255)):  # the class stands in the two top rows
        for k in range(60):
            values = noise(12, 8)
            values[:2] = top
            picture(f"top/{label}/{k:03}.png", values)
    assert main(["train", "egc/digits", "--data", "top", "--out", "r", "--images", "96", *net, *FAST]) == 0
    assert main(["evaluate", "r", "--metrics", "accuracy,ood", "-n", "20"]) == 0
    model, test, told = tw.load("r"), tw.data.load("top", "test").all(), figures("r")
    assert tuple(model.config.shape) == (1, 12, 8) == tuple(test.x.shape[1:])
    right = model.classify(test.x).argmax(1) == test.label
    assert told["accuracy"]["value"] == pytest.approx(float(right.float().mean()))
    for kind in ("uniform", "shuffled"):
        energies = [model.energy(x) for x in (test.x, tw.evaluate.outliers(kind, test.x, len(test.x), 0))]
        auroc = roc_auc_score([0] * len(test.x) + [1] * len(test.x), torch.cat(energies))
        assert told["ood"]["energy"][kind]["auroc"] == pytest.approx(auroc, abs=1e-6)
    assert main(["apply", "classify", "r", "--input", "top/light", "--out", "o.json"]) == 0
    found = [row["class"] for row in json.loads(Path("o.json").read_text())]
    light = torch.stack([torch.from_numpy(np.array(Image.open(path))) for path in sorted(Path("top/light").iterdir())])[:, None]
    assert found == [("dark", "light")[i] for i in model.classify(light.float() / 127.5 - 1).argmax(1)]


def test_a_preset_of_wide_pictures_is_measured():
    words = ["--images", "64", "--net.width", "8", "--initializer.width", "8", "--chain.steps", "2", "--batch", "16", "--threads", "1"]
    assert main(["train", "cdrl/paired-digits", "--out", "p", *words]) == 0
    assert main(["evaluate", "p", "--metrics", "ood", "-n", "20"]) == 0
    assert tuple(tw.load("p").config.shape) == (1, 8, 16) and "auroc" in figures("p")["ood"]["energy"]["uniform"]


# --- properties of a set


def test_photos_of_which_some_are_grey_are_trained_on_and_measured():
    for k in range(100):
        picture(f"a/{k:03}.png", noise(8, 8) if k % 10 == 0 else noise(8, 8, 3))
    assert {tw.data.load("a", split).shape for split in tw.data.SPLITS} == {(3, 8, 8)}
    assert main(["train", "egc/digits", "--data", "a", "--out", "r", "--images", "64", *SMALL, *FAST]) == 0
    assert main(["evaluate", "r", "--metrics", "neighbours,ood", "-n", "20"]) == 0
    assert figures("r")["ood"]["energy"]["uniform"]["inliers"] == 10


def test_a_small_test_set_costs_only_the_figures_that_need_more(capsys):
    digits = tw.data.load("digits").all()
    for c in range(3):
        for k, i in enumerate(torch.nonzero(digits.label == c).flatten()[:40]):
            picture(f"pics/{c}/{k:03}.png", grey(digits.x[i, 0]))
    assert main(["train", "egc/digits", "--data", "pics", "--out", "r", "--images", "64", *SMALL, *FAST]) == 0
    capsys.readouterr()
    assert main(["evaluate", "r", "-n", "100"]) == 0
    told, said = figures("r"), capsys.readouterr().out
    assert "test accuracy" in said and Path("r/report.html").exists()
    model, test = tw.load("r"), tw.data.load("pics", "test").all()
    assert told["accuracy"]["n"] == 12
    assert told["accuracy"]["value"] == pytest.approx(float((model.classify(test.x).argmax(1) == test.label).float().mean()))
    refused = [name for name, found in told.items() if isinstance(found, dict) and set(found) == {"refused"}]
    assert {"accuracy", "ood", "cost"}.isdisjoint(refused)


def test_outliers_of_a_model_without_labels_are_told_by_its_energy():
    for k, x in enumerate(tw.data.load("digits").all().x[:200]):
        picture(f"pics/{k:03}.png", grey(x[0]))
    assert main(["train", "egc/digits", "--data", "pics", "--out", "r", "--images", "64", *SMALL, *FAST]) == 0
    assert main(["evaluate", "r", "--metrics", "ood", "-n", "100"]) == 0
    model, x = tw.load("r"), tw.data.load("pics", "test")
    energies = [tw.evaluate.energies(model, one) for one in (x, tw.evaluate.outliers("uniform", x, len(x)))]
    assert figures("r")["ood"]["energy"]["uniform"]["auroc"] == pytest.approx(tw.evaluate.ood(*energies).auroc)


def test_bits_are_those_of_the_data_s_own_grey_values(monkeypatch):
    monkeypatch.setattr(likelihood, "CHAINS", 8)
    monkeypatch.setattr(likelihood, "TEMPERATURES", 20)
    for k in range(60):
        picture(f"pics/{k:03}.png", noise(8, 8) // 128 * 255)  # black and white
    assert main(["train", "egc/digits", "--data", "pics", "--out", "r", "--images", "32", *SMALL, *FAST]) == 0
    assert main(["evaluate", "r", "--metrics", "likelihood", "-n", "16"]) == 0
    found = figures("r")["likelihood"]["log_likelihood"]
    assert found["bin_width"] == pytest.approx(2.0)
    assert found["bits_per_dimension"] == pytest.approx(-found["value"]["value"] / (64 * math.log(2)) - math.log2(2))


# --- data of one's own from Python


def test_outliers_among_one_s_own_tensors_are_told_by_one_s_own():
    train, test = (tw.data.load("digits", split).all() for split in ("train", "test"))
    mine = tw.data.Images(-train.x, (train.label + 5) % 10, name="mine")  # negatives of digits under other numbers
    held_out = tw.data.load("digits", "validation").all()
    held_out = -held_out.x, (held_out.label + 5) % 10
    fields = dict(width=8, blocks=1, levels=20, images=6_000, batch=64, sample_steps=5)
    model = tw.fit(tw.method("egc/digits", data=mine, **fields), mine, "mine", held_out=held_out, progress=False)
    np.savez("x.npz", x=(-test.x).numpy())
    assert main(["apply", "detect", "mine", "--input", "x.npz", "--out", "d.json"]) == 0
    share = np.mean([row["inliers_above"] for row in json.loads(Path("d.json").read_text())])
    assert abs(share - 0.5) < 4 / math.sqrt(12 * 100)  # of about 180 held-out energies
    subject = tw.metrics.Subject(model, tw.metrics.Settings(n=50), data={"train": mine, "test": (-test.x, (test.label + 5) % 10)})
    told = tw.metrics.measure(subject, ("accuracy",))["accuracy"]
    assert told["value"] == pytest.approx(float((model.classify(-test.x).argmax(1) == (test.label + 5) % 10).float().mean()))
    other = tw.data.Images(torch.rand(200, 1, 8, 8) * 2 - 1, torch.arange(200) % 10, name="other")
    with pytest.raises(tw.InputError):
        tw.fit(tw.method("egc/digits", data=other, **fields), other, "mine", progress=False)


# --- values


def test_a_known_error_has_the_same_psnr_in_every_range():
    x = torch.rand(2, 1, 32, 32, generator=tw.random.seeded(0)) * 0.99
    for low, high in ((-1, 1), (0, 1), (0, 255)):
        a, b = (z * (high - low) + low for z in (x, x + 0.01))
        assert tw.evaluate.psnr(a, b, range=(low, high)).tolist() == pytest.approx([40.0, 40.0], abs=1e-2)
    with pytest.raises(tw.InputError, match="two sets of images"):
        tw.evaluate.psnr(x, x.expand(-1, 3, -1, -1))
    digits = tw.data.load("digits", "test").all().x[:4]
    for side in (8, 5, 3):
        assert tw.evaluate.ssim(digits[..., :side, :side], digits[..., :side, :side]).tolist() == pytest.approx([1.0] * 4)
