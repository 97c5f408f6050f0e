"""Wrong input, one row each: exit code 2, one message that says what was wrong and what would be right, nothing on disk changed."""

import errno
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import thalweg as tw
from thalweg import checkpoint
from thalweg.cli import main
from thalweg.train import fit

TOY = "short_run/8gaussians"
SMALL = "--width 16 --steps 2 --sample-steps 5 --batch 16 --images 32 --buffer 64"
SMALL_EGC = "--width 8 --blocks 1 --levels 20 --sample-steps 5 --batch 16 --images 32"


def make_runs(root: Path) -> None:
    """Two small runs, an export, and files of many kinds of wrongness."""
    toy = tw.method(TOY, data=tw.data.toy("8gaussians"), width=16, steps=2, sample_steps=5, batch=16, images=32, buffer=64)
    fit(toy, tw.data.toy("8gaussians"), root / "toy", progress=False)
    digits = tw.method("egc/digits", width=8, blocks=1, levels=20, sample_steps=5, batch=16, images=32)
    twin = fit(digits, tw.data.load("digits"), root / "digits", progress=False)
    tw.save(twin, root / "model")
    for name in ("no_config", "no_weights", "truncated", "pickled", "other_shape", "other_method", "no_dict", "bad_json"):
        shutil.copytree(root / "model", root / name)
    (root / "no_config" / "config.json").unlink()
    (root / "no_weights" / "model.safetensors").unlink()
    content = (root / "model" / "model.safetensors").read_bytes()
    (root / "truncated" / "model.safetensors").write_bytes(content[: len(content) // 2])
    (root / "pickled" / "model.safetensors").write_bytes(pickle.dumps({"net": [1.0]}))
    config = json.loads((root / "model" / "config.json").read_text())
    (root / "other_shape" / "config.json").write_text(
        json.dumps(config | {"config": config["config"] | {"net": config["config"]["net"] | {"width": 16}}})
    )
    (root / "other_method" / "config.json").write_text(json.dumps(config | {"method": "ecg"}))
    (root / "no_dict" / "config.json").write_text(json.dumps(config | {"config": ["width", 8]}))
    (root / "bad_json" / "config.json").write_text('{"thalweg": "0.2.0", "method"')
    shutil.copytree(root / "toy", root / "corrupt")
    for path in (root / "corrupt").glob("state-*.pt"):
        path.write_bytes(path.read_bytes()[:-100])
    shutil.copytree(root / "toy", root / "bad_config")
    (root / "bad_config" / "config.json").write_text("{")
    shutil.copytree(root / "toy", root / "no_state")
    for path in (root / "no_state").glob("state-*.pt"):
        path.unlink()
    shutil.copytree(root / "toy", root / "old")
    old = {"thalweg": "0.1.0", "method": "short_run", "config": {"shape": [2], "network": "mlp", "width": 16, "sampler": "mala"}}
    (root / "old" / "config.json").write_text(json.dumps(old))
    (root / "others").mkdir()
    (root / "others" / "thesis.tex").write_text("years of work")
    (root / "empty").mkdir()
    (root / "file").write_text("a file")
    (root / "text.csv").write_text("1,2")
    generator = np.random.default_rng(0)
    for name in ("pictures", "broken_pictures"):
        (root / name).mkdir()
        for i in range(20):
            Image.fromarray(generator.integers(0, 255, (8, 8), dtype=np.uint8)).save(root / name / f"{i:02d}.png")
    (root / "broken_pictures" / "07.png").write_bytes(b"\x89PNG\r\n\x1a\n but no picture")
    x = generator.uniform(-1, 1, (40, 1, 8, 8)).astype(np.float32)
    x[3, 0, 0, 0] = np.nan
    np.savez(root / "nan.npz", x=x)
    np.savez(root / "flat.npz", x=np.zeros((40, 64), np.uint8))
    np.savez(root / "range.npz", x=np.full((40, 1, 8, 8), 255.0, np.float32))
    np.savez(root / "other_key.npz", images=np.zeros((40, 1, 8, 8), np.uint8))
    np.savez(root / "odd.npz", x=np.zeros((40, 1, 9, 9), np.uint8), y=np.arange(40) % 10)
    unable = tw.method("ddaebm/digits", blocks=1, **{"net.width": 8, "encoder.width": 8})  # it takes no constraint and does not denoise
    tw.save(unable, root / "unable")
    Image.fromarray(np.full((8, 9), 255, np.uint8)).save(root / "wide.png")
    np.savez(root / "many.npz", x=np.zeros((101, 1, 8, 8), np.uint8))
    np.savez(root / "plain.npz", x=np.zeros((40, 1, 8, 8), np.uint8))
    (root / "torn.npz").write_bytes((root / "plain.npz").read_bytes()[:300])


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    make_runs(folder)
    return folder


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


# (command line, words that the message must contain); every path is relative to the folder of `make_runs`
COMMANDS = [
    # commands, methods, presets
    ("trian egc/digits --out new", ["unknown command 'trian' (did you mean 'train'?", "evaluate"]),
    ("list all", ["unknown method 'all'", "Methods: short_run, egc"]),
    ("list --slow", ["list knows no --slow", "Tags: toy, table"]),
    ("zoo all", ["zoo takes no arguments, got 'all'"]),
    ("bench speed", ["no folder studies here", "clone"]),
    ("train --out new", ["METHOD/PRESET", "thalweg train --help"]),
    ("train ecg/digits --out new", ["unknown method 'ecg' (did you mean 'egc'?", "short_run"]),
    ("train egc/digit --out new", ["egc has no preset 'digit' (did you mean 'digits'?"]),
    ("train nothing --out new", ["unknown method 'nothing'", "Methods: short_run, egc"]),
    # fields
    (f"train {TOY} --out new --widht 16", ["has no field 'widht' (did you mean 'net.width'?"]),
    (f"train {TOY} --out new --net.widht 16", ["has no field 'net.widht' (did you mean 'net.width'?"]),
    (f"train {TOY} --out new --log-evry 16", ["did you mean 'log-every'?"]),
    (f"train {TOY} --out new --width wide", ["width = 'wide'", "takes a whole number"]),
    (f"train {TOY} --out new --width 0", ["net.width = 0", "must be 1 or more"]),
    (f"train {TOY} --out new --net.width 0", ["net.width = 0", "must be 1 or more"]),
    (f"train {TOY} --out new --width 1.5", ["width = 1.5", "takes a whole number"]),
    (f"train {TOY} --out new --lr -1", ["lr = -1", "must be above 0"]),
    (f"train {TOY} --out new --lr NaN", ["lr = nan"]),
    (f"train {TOY} --out new --ema 2", ["ema = 2", "must be 1 or less"]),
    (f"train {TOY} --out new --chain hmc", ["chain = 'hmc' is not known: langevin, mala"]),
    (f"train {TOY} --out new --net convnet", ["kind 'convnet' needs images", "(2,)"]),
    (f"train {TOY} --out new --width", ["--width needs a value"]),
    (f"train {TOY} here --out new", ["unexpected argument 'here'", "--field value"]),
    (f"train {TOY} --out new --batch 16 --buffer 10", ["a batch of 16 needs as many chains, the buffer holds 10"]),
    ("train egc/digits --out new --patch 3", ["divide by the patch of 3, got 8×8"]),
    ("train egc/digits --out new --energy_level 0", ["energy_level = 0"]),
    # options
    (f"train {TOY}", ["train needs --out DIR"]),
    (f"train {TOY} --out new --images 0", ["--images must be above 0, got 0"]),
    (f"train {TOY} --out new --images many", ["images", "many"]),
    (f"train {TOY} --out new --seconds nan", ["--seconds must be above 0, got nan"]),
    (f"train {TOY} --out new --threads -1", ["--threads must be above 0, got -1"]),
    (f"train {TOY} --out new --save-every 0", ["--save-every must be above 0"]),
    (f"train {TOY} --out new --seed -1", ["--seed must be between 0", "-1"]),
    (f"train {TOY} --out new --precision fp16", ["--precision fp16 is not known", "bf16"]),
    (f"train {TOY} --out new --device gpu", ["device 'gpu' is not known: cpu, cuda, mps or auto"]),
    (f"train {TOY} --out new --size 8", ["'8gaussians' is a toy of points in the plane"]),
    # where to
    (f"train {TOY} --out file {SMALL}", ["the output file is a file; give a folder"]),
    (f"train {TOY} --out file/new {SMALL}", ["cannot write file/new"]),
    (f"train {TOY} --out others {SMALL}", ["the folder others holds other files and no run"]),
    (f"train {TOY} --out model {SMALL}", ["the folder model holds an exported model, not a run"]),
    (f"train {TOY} --out /proc/new {SMALL}", ["cannot write /proc/new"]),
    (f"train {TOY} --out bad_config {SMALL}", ["config.json is corrupt"]),
    (f"train egc/digits --out toy {SMALL_EGC}", ["toy holds a run of short_run, not egc"]),
    (f"train {TOY} --out toy {SMALL} --lr 0.5", ["toy was started with lr = 0.001, now 0.5"]),
    (f"train {TOY} --out toy {SMALL} --seed 4", ["toy was started with seed 0, not 4"]),
    (f"train {TOY} --out corrupt {SMALL}", ["no state in corrupt can be read"]),
    # data
    ("train egc/digits --out new --data digitz", ["unknown data 'digitz'", "did you mean 'digits'?"]),
    ("train egc/digits --out new --data empty", ["empty holds no pictures", ".png"]),
    ("train egc/digits --out new --data text.csv", ["egc/digits is for images", "text.csv holds vectors [2]"]),
    ("train egc/digits --out new --data broken_pictures", ["07.png cannot be read as a picture"]),
    ("train egc/digits --out new --data nan.npz", ["1 of 40 images hold NaN"]),
    ("train egc/digits --out new --data flat.npz", ["egc/digits is for images", "flat.npz holds vectors [64]"]),
    ("train egc/digits --out new --data range.npz", ["must lie in [−1, 1]", "255"]),
    ("train egc/digits --out new --data other_key.npz", ["must hold an array x", "images"]),
    ("train egc/digits --out new --data torn.npz", ["torn.npz cannot be read"]),
    ("train egc/digits --out new --data odd.npz", ["divide by the patch of 2, got 9×9"]),
    ("train egc/digits --out new --data 8gaussians", ["is for images", "holds vectors", "[2]"]),
    # models
    ("sample nowhere --out new.png", ["there is no folder nowhere"]),
    ("sample file --out new.png", ["file is a file"]),
    ("sample empty --out new.png", ["no config.json"]),
    ("sample no_config --out new.png", ["no config.json"]),
    ("sample bad_json --out new.png", ["config.json is corrupt"]),
    ("sample no_dict --out new.png", ["config.json is corrupt"]),
    ("sample other_method --out new.png", ["unknown method 'ecg' (did you mean 'egc'?"]),
    ("sample other_shape --out new.png", ["do not fit its config", "size mismatch"]),
    ("sample old --out new.png", ["old was made by Thalweg 0.1.0 and does not fit 0.2.0: train it anew", "pip install thalweg==0.1.0"]),
    (f"train {TOY} --out old {SMALL}", ["old was made by Thalweg 0.1.0 and does not fit 0.2.0: train it anew"]),
    ("evaluate --compare toy old", ["old was made by Thalweg 0.1.0"]),
    ("sample truncated --out new.png", ["model.safetensors is corrupt"]),
    ("sample pickled --out new.png", ["model.safetensors is corrupt"]),
    ("sample no_weights --out new.png", ["holds no state yet"]),
    ("sample no_state --out new.png", ["holds no state yet; train it first"]),
    ("sample corrupt --out new.png", ["no state in corrupt can be read"]),
    ("sample toy --which best --out new.png", ["toy has no best.pt", "which = 'last'"]),
    ("sample toy --which frist --out new.png", ["which = 'frist' is not known: 'last' or 'best'"]),
    # sampling
    ("sample digits", ["out", "thalweg sample --help"]),
    ("sample digits --out new.jpg", ["must end in .png, .npz or .csv"]),
    ("sample digits --out nowhere/new.png", ["the folder nowhere does not exist"]),
    ("sample digits --out new.png -n 0", ["--n must be above 0, got 0"]),
    ("sample digits --out new.png -n few", ["few"]),
    ("sample digits --out new.png --label cat", ["unknown class 'cat'", "0, 1, 2"]),
    ("sample digits --out new.png --label 11", ["unknown class '11'", "Classes: 0, 1"]),
    ("sample toy --out new.png --label 1", ["takes no label"]),
    ("sample toy --out new.png --guidance 2", ["short_run does not take this sampling option", "guidance"]),
    ("sample digits --out new.png --guide initializer", ["egc does not take this sampling option", "'guide'"]),
    ("sample digits --out new.png --guide proposals", ["proposals", "initializer", "thalweg sample --help"]),
    ("sample toy --out new.png --resample 2", ["short_run does not take this sampling option", "'resample'"]),
    ("sample digits --out new.png --resample 0", ["--resample must be above 0, got 0"]),
    ("sample digits --out new.png --corrections -1", ["--corrections must be 0 or more, got -1"]),
    ("sample digits --out new.png --population 0", ["--population must be above 0, got 0"]),
    ("sample digits --out new.png --population many", ["--population takes a whole number", "'many'"]),
    ("sample toy --out new.png --corrections 2", ["short_run does not take this sampling option", "'corrections'"]),
    ("sample digits --out new.png --guidance inf", ["--guidance must be finite"]),
    ("sample digits --out new.png --steps 0", ["--steps must be above 0"]),
    ("sample digits --out new.png --steps 21", ["steps must be between 1 and the schedule's 20, got 21"]),
    ("sample digits --out new.png --eta 2", ["--eta must be between 0 (DDIM) and 1 (DDPM), got 2"]),
    # measuring and applying
    ("evaluate", ["evaluate needs one run folder or more"]),
    ("evaluate nowhere", ["there is no folder nowhere"]),
    ("evaluate digits --metrics accuracy,fid", ["unknown metric 'fid'", "fidelity, neighbours, ood"]),
    ("evaluate digits --metrics auto,ood", ["unknown metric 'auto'"]),
    ("evaluate digits --metrics fidelity --n 20", ["got 20 images", "65 or more"]),
    ("evaluate digits --metrics fidelity --extractor vgg", ["unknown extractor 'vgg'", "efficientnet-lite0"]),
    ("evaluate digits --metrics fidelity --extractor inception --weights missing.pth", ["inception"]),
    ("evaluate digits --metrics ood --outliers svnh", ["unknown data 'svnh'"]),
    ("evaluate digits --metrics ood --outliers flat.npz", ["flat.npz"]),
    ("evaluate digits --ood-images 0", ["--ood-images must be above 0"]),
    ("evaluate --compare digits", ["--compare needs two different models or more"]),
    ("evaluate --compare digits digits", ["--compare needs two different models or more"]),
    ("evaluate --compare digits toy", ["same data", "digits (1, 8, 8)", "8gaussians (2,)"]),
    ("evaluate digits --metrics density", ["metric 'density' does not fit egc on digits"]),
    ("evaluate toy --metrics accuracy", ["metric 'accuracy' does not fit short_run on 8gaussians"]),
    ("evaluate digits --out empty", ["--out empty is a folder"]),
    ("evaluate digits --n 0", ["--n must be above 0"]),
    ("apply clasify digits --input pictures --out new.json", ["unknown task 'clasify' (did you mean 'classify'?"]),
    ("apply", ["apply needs a task: classify, detect", "thalweg apply --help"]),
    ("apply classify toy --input pictures --out new.json", ["needed is the ability 'classify'"]),
    ("apply classify unable --input pictures --out new.json", ["classify: this ddaebm model", "the ability 'classify'"]),
    ("apply turntable digits --out new.png", ["turntable: this egc model", "the ability 'views'"]),
    ("apply turntable digits --out new.png --cuont 3", ["turntable takes no --cuont (did you mean '--count'?). Its options: --count"]),
    ("apply classify digits --input nowhere --out new.json", ["no picture there"]),
    ("apply classify digits --input empty --out new.json", ["no picture there"]),
    ("apply classify digits --input broken_pictures --out new.json", ["07.png cannot be read as a picture"]),
    ("apply classify digits --input nan.npz --out new.json", ["1 of 40 images hold NaN"]),
    ("apply classify digits --input other_key.npz --out new.json", ["must hold an array x"]),
    ("apply detect digits --input torn.npz --out new.json", ["torn.npz cannot be read"]),
    ("apply classify digits --input pictures --out new.txt", ["must end in .json"]),
    ("apply classify digits --input pictures --out nowhere/new.json", ["nowhere/new.json"]),
    ("apply detect toy --input pictures --out new.json", ["--input pictures: no table there; give a .csv"]),
    ("apply inpant digits --input pictures --out new.png", ["unknown task 'inpant' (did you mean 'inpaint'?", "interpolate"]),
    ("apply inpaint digits --out new.png", ["inpaint needs --input PATH"]),
    ("apply inpaint digits --input pictures", ["--out"]),
    ("apply inpaint digits --input pictures --out new.json", ["must end in .png or .npz"]),
    ("apply inpaint digits --input pictures --out nowhere/new.png", ["nowhere/new.png is a folder, or in none"]),
    ("apply inpaint digits --input pictures --out new.png --mask center:0.3", ["unknown mask 'center:0.3' (did you mean 'centre'?"]),
    ("apply inpaint digits --input pictures --out new.png --mask centre:2", ["missing share must be between 0 and 1, got 2.0"]),
    ("apply inpaint digits --input pictures --out new.png --mask half:botom", ["unknown side 'botom' (did you mean 'bottom'?"]),
    ("apply inpaint digits --input pictures --out new.png --mask nowhere.png", ["mask nowhere.png: there is no such file"]),
    ("apply inpaint digits --input pictures --out new.png --mask wide.png", ["got 8 × 9 pixels, the model's images have 8 × 8"]),
    ("apply inpaint digits --input pictures --out new.png --mask text.csv", ["unknown mask 'text.csv'"]),
    ("apply inpaint digits --input pictures --out new.png --completions 0", ["--completions must be above 0, got 0"]),
    ("apply inpaint digits --input pictures --out new.png --resample 0", ["--resample must be above 0, got 0"]),
    ("apply inpaint digits --input pictures --out new.png --seed -1", ["--seed must be between 0"]),
    ("apply inpaint digits --input pictures --out new.png --std 0.3", ["inpaint takes no --std", "--mask, --completions"]),
    ("apply inpaint digits --input nan.npz --out new.png", ["1 of 40 images hold NaN"]),
    (
        "apply inpaint toy --input pictures --out new.png",
        ["inpaint is for models of images", "of vectors [2], for which there are classify"],
    ),
    ("apply inpaint unable --input pictures --out new.png", ["inpaint: this ddaebm model", "the ability 'constraint'"]),
    ("apply inpaint digits --input many.npz --out new.png", ["a picture shows 100 images at most, the input holds 101", ".npz"]),
    ("apply restore digits --input pictures --out new.png", ["restore needs --operator", "pool:2"]),
    ("apply restore digits --input pictures --out new.png --operator pol:2", ["unknown operator 'pol:2' (did you mean 'pool'?"]),
    ("apply restore digits --input pictures --out new.png --operator pool:3", ["do not divide by 3"]),
    ("apply restore digits --input pictures --out new.png --operator blur:0", ["std must be above 0 and finite, got 0.0"]),
    ("apply restore digits --input pictures --out new.png --mask half:left", ["restore takes no --mask"]),
    ("apply denoise digits --input pictures --out new.png", ["denoise needs --std"]),
    ("apply denoise digits --input pictures --out new.png --std 0", ["--std must be above 0, got 0.0"]),
    ("apply denoise digits --input pictures --out new.png --std inf", ["--std must be finite"]),
    ("apply denoise unable --input pictures --out new.png --std 0.3", ["denoise: this ddaebm model", "the ability 'denoise'"]),
    ("apply interpolate digits --out new.png --input pictures --seeds 0,1", ["of --input or between the noise of two --seeds, not both"]),
    ("apply reconstruct digits --out new.png", ["reconstruct needs --input PATH"]),
    ("apply reconstruct digits --out new.png --input pictures", ["reconstruct: this egc model", "the ability 'reconstruct'"]),
    ("apply reconstruct digits --out new.png --input pictures --search 0", ["--search must be above 0, got 0"]),
    ("apply inpaint digits --out new.png --input pictures --search 5", ["inpaint --search: this egc model", "'reconstruct'"]),
    ("apply interpolate digits --out new.png --seeds 1", ["--seeds must be two different whole numbers, for example 0,1, got '1'"]),
    ("apply interpolate digits --out new.png --seeds 3,3", ["two different whole numbers"]),
    ("apply interpolate digits --out new.png --steps 1", ["--steps must be 2 or more, got 1"]),
    ("apply restore digits --out new.png --input pictures --operator grey --latent", ["restore --latent: this egc", "'restore_latent'"]),
    ("apply interpolate unable --out new.png", ["interpolate: this ddaebm model", "the ability 'start'"]),
    ("apply classify digits --input pictures --out new.json --seed 0", ["classify takes no --seed. Its options: none"]),
    ("export digits", ["export needs either --out DIR or --hub NAME"]),
    ("export digits --out new --hub user/name", ["export needs either --out DIR or --hub NAME"]),
    ("export digits --out file", ["the output file is a file"]),
    ("export digits --out others", ["others is a run folder or holds other files"]),
    ("export digits --out toy", ["toy is a run folder or holds other files"]),
]
if not torch.cuda.is_available():
    COMMANDS.append((f"train {TOY} --out new --device cuda", ["device cuda: this machine has no GPU that PyTorch can use; use cpu"]))


@pytest.mark.parametrize(("line", "words"), COMMANDS, ids=[line for line, _ in COMMANDS])
def test_command(line, words, root, monkeypatch, capsys):
    monkeypatch.chdir(root)
    before = snapshot(root)
    code = main(line.split())
    said = capsys.readouterr()
    message = said.err.strip().splitlines()[-1] if said.err.strip() else ""
    assert code == 2, said.err
    assert message.startswith("thalweg: ") and "Traceback" not in said.err and said.out == ""
    # states that are passed over are named, each on its line, before the message
    assert all("using the state before it" in other for other in said.err.strip().splitlines()[:-1]), said.err
    for part in words:
        assert part in message, message
    assert snapshot(root) == before


SUBPROCESSES = [
    ("trian", ["did you mean 'train'"]),
    (f"train {TOY} --out others {SMALL}", ["holds other files"]),
    ("sample truncated --out new.png", ["is corrupt"]),
    (f"train {TOY} --out new {SMALL} --lr fast", ["lr = 'fast'"]),
]


@pytest.mark.parametrize(("line", "words"), SUBPROCESSES, ids=[line for line, _ in SUBPROCESSES])
def test_command_in_a_process_of_its_own(line, words, root):
    before = snapshot(root)
    done = subprocess.run([sys.executable, "-m", "thalweg.cli", *line.split()], capture_output=True, text=True, cwd=root, timeout=120)
    said = [line for line in done.stderr.splitlines() if not line.endswith(" goes on")]  # which a slow machine is told by time
    assert done.returncode == 2 and done.stdout == "" and len(said) == 1 and said[0].startswith("thalweg: ")
    assert all(part in said[0] for part in words)
    assert snapshot(root) == before


def test_a_full_disk(root, monkeypatch, capsys):
    monkeypatch.chdir(root)
    before = snapshot(root)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    lines = (
        f"train {TOY} --out empty {SMALL}",
        "sample digits --out new.npz -n 4",
        "apply classify digits --input pictures --out new.json",
        "apply interpolate digits --out new.npz",
    )
    for line in lines:
        assert main(line.split()) == 2
        said = capsys.readouterr().err
        assert "the disk is full. What was there before is unchanged" in said and said.count("\n") == 1
    monkeypatch.undo()
    assert snapshot(root) == before


def test_the_same_inputs_made_right_are_taken(root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(root)
    before = snapshot(root)
    for line in (
        f"sample digits --out {tmp_path}/a.npz -n 3 --label 3 --steps 5 --guidance 1.5 --eta 0.5",
        f"apply classify digits --input plain.npz --out {tmp_path}/b.json",
        f"apply detect digits --input pictures --out {tmp_path}/c.json",
        f"apply inpaint digits --input pictures --mask half:left --completions 2 --out {tmp_path}/d.png",
        f"apply inpaint digits --input many.npz --completions 1 --out {tmp_path}/d.npz",
        f"export digits --out {tmp_path}/model",
        f"train {TOY} --out {tmp_path}/new {SMALL} --lr 0.5",
    ):
        assert main(line.split()) == 0, capsys.readouterr().err
    assert np.load(tmp_path / "a.npz")["x"].shape == (3, 1, 8, 8)
    assert len(json.loads((tmp_path / "b.json").read_text())) == 40 and len(json.loads((tmp_path / "c.json").read_text())) == 20
    assert np.load(tmp_path / "d.npz")["completions"].shape == (1, 101, 1, 8, 8) and (tmp_path / "d.png").stat().st_size > 1000
    assert tw.load(tmp_path / "model").name == "egc" and tw.load(tmp_path / "new").config.lr == 0.5
    assert snapshot(root) == before


def energy(x: torch.Tensor) -> torch.Tensor:
    return x.square().sum(1)


API: dict[str, tuple[Callable[[Path], object], str]] = {
    "temper 0": (lambda root: tw.temper(energy, 0.0), "the temperature must be above 0, got 0"),
    "temper -1": (lambda root: tw.temper(energy, -1.0), "the temperature must be above 0, got -1"),
    "combine": (lambda root: tw.combine([energy], [1.0, 2.0]), "1 energies and 2 weights"),
    "method": (lambda root: tw.method("ecg/digits"), "did you mean 'egc'"),
    "field": (lambda root: tw.method("egc/digits", widht=3), "has no field 'widht' (did you mean 'net.width'"),
    "value": (lambda root: tw.method("egc/digits", width="wide"), "width = 'wide'"),
    "toy": (lambda root: tw.data.toy("8gausians"), "did you mean '8gaussians'"),
    "split": (lambda root: tw.data.load("digits", "dev"), "unknown split 'dev'"),
    "load": (lambda root: tw.load(root / "nowhere"), "there is no folder"),
    "load device": (lambda root: tw.load(root / "toy", device="tpu"), "device 'tpu' is not known"),
    "label": (lambda root: tw.load(root / "digits").sample(2, label=12), "labels must be between 0 and 9, got 12"),
    "labels": (lambda root: tw.load(root / "digits").sample(4, label=torch.arange(3)), "one label or 4, one a sample, got shape [3]"),
    "no label": (lambda root: tw.load(root / "toy").sample(2, label=1), "takes no label"),
    "steps": (lambda root: tw.load(root / "digits").sample(2, steps=50), "steps must be between 1 and the schedule's 20"),
    "state": (lambda root: checkpoint.read(root / "file"), "is corrupt or no state of Thalweg"),
    "no state": (lambda root: checkpoint.read(root / "nowhere.pt"), "cannot read"),
    "export": (lambda root: tw.save(tw.method(TOY), root / "file" / "x"), "cannot write"),
    "fit": (lambda root: fit(tw.method(TOY), tw.data.load("digits"), root / "new"), "is built for examples of shape"),
    "fit file": (lambda root: fit(tw.method(TOY), tw.data.toy("8gaussians"), root / "file"), "is a file; give a folder"),
    "processes": (lambda root: fit(tw.method(TOY), tw.data.toy("8gaussians"), root / "new", batch=15, shards=2), "does not divide over 2"),
}


@pytest.mark.parametrize("case", API)
def test_python(case, root):
    call, words = API[case]
    before = snapshot(root)
    with pytest.raises(ValueError) as caught:  # InputError is one
        call(root)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert snapshot(root) == before


@pytest.mark.parametrize(
    "code",
    ["import thalweg", "from thalweg.cli import main; assert main(['--help']) == 0", "from thalweg.cli import main; main(['trian'])"],
)
def test_help_does_not_wait_for_torch(code):
    heavy = "{'torch', 'numpy', 'matplotlib', 'pydantic', 'tyro', 'huggingface_hub'}"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint('loaded', sorted({heavy} & set(sys.modules)))"], capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "loaded []", done.stdout + done.stderr
