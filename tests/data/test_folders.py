"""Folders as people have them: hidden files, odd names of splits, mixed pictures, few of them; and the same reader for what is applied."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import thalweg as tw
from thalweg.commands.files import read_images
from thalweg.commands.main import main
from thalweg.data import SPLITS, load
from thalweg.data.images import TooFew, partition
from thalweg.data.prepare import prepare, trained_data
from thalweg.errors import InputError

RNG = np.random.default_rng(0)


def picture(path, *, grey=False, size=(8, 8), values=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = RNG.integers(0, 256, size if grey else (*size, 3), dtype=np.uint8) if values is None else values
    Image.fromarray(values).save(path)


def classes_of(root):
    data = load(root)
    return dict(zip(data.classes, torch.bincount(data.label, minlength=len(data.classes)).tolist()))


def test_hidden_files_and_folders_are_no_data(tmp_path):
    for name in ("cat", "dog"):
        for k in range(20):
            picture(tmp_path / name / f"{k:02}.png")
    before = [load(tmp_path, split).x for split in SPLITS]
    shutil.copytree(tmp_path / "cat", tmp_path / "cat" / ".ipynb_checkpoints")
    shutil.copytree(tmp_path / "cat", tmp_path / ".ipynb_checkpoints")
    shutil.copytree(tmp_path / "cat", tmp_path / "__MACOSX" / "cat")
    (tmp_path / "dog" / "._00.png").write_bytes(b"\0\5\x16\7")
    (tmp_path / "dog" / "scans.png").mkdir()
    assert classes_of(tmp_path) == {"cat": 16, "dog": 16}
    assert all(torch.equal(load(tmp_path, split).x, x) for split, x in zip(SPLITS, before))
    names, x = read_images(str(tmp_path), None, 3)  # what --input reads
    assert len(names) == len(x) == 40


def test_a_hidden_root_is_read(tmp_path):
    for k in range(10):
        picture(tmp_path / ".cache" / "pictures" / f"{k}.png")
    assert len(load(tmp_path / ".cache" / "pictures")) == 8


@pytest.mark.parametrize(
    "names", [("Train", "Val", "TEST"), ("training", "validation", "testing"), ("train", "valid", "Test"), ("TRAINING", "VALID", "Testing")]
)
def test_names_of_splits(tmp_path, names):
    for count, name in zip((5, 4, 3), names):
        for k in range(count):
            picture(tmp_path / name / "a" / f"{k}.png")
    assert [len(load(tmp_path, split)) for split in SPLITS] == [5, 4, 3] and load(tmp_path).classes == ("a",)


def test_a_class_called_train(tmp_path, capsys):
    for name in ("train", "plane", "car"):
        for k in range(10):
            picture(tmp_path / name / f"{k}.png")
    assert classes_of(tmp_path) == {"car": 8, "plane": 8, "train": 8}
    assert "train is taken for a class, with car, plane" in capsys.readouterr().err
    picture(tmp_path / "test" / "0.png")
    with pytest.raises(InputError, match=r"holds splits \(test, train\) and other folders with pictures \(car, plane\)"):
        load(tmp_path)


def test_two_folders_for_one_split(tmp_path):
    for name in ("train", "Training"):
        picture(tmp_path / name / "0.png")
    with pytest.raises(InputError, match="two folders for the split 'train': Training and train"):
        load(tmp_path)


def test_grey_and_colour_are_settled_for_all_splits(tmp_path):
    for k in range(100):
        picture(tmp_path / "mixed" / f"{k:03}.png", grey=k % 10 == 0)
        picture(tmp_path / "grey" / f"{k:03}.png", grey=True)
        picture(tmp_path / "nearly" / f"{k:03}.png", grey=k != 99)
    assert {load(tmp_path / "mixed", split).shape for split in SPLITS} == {(3, 8, 8)}
    assert {load(tmp_path / "grey", split).shape for split in SPLITS} == {(1, 8, 8)}
    assert {load(tmp_path / "nearly", split).shape for split in SPLITS} == {(3, 8, 8)}
    assert load(tmp_path / "mixed", "test", channels=1).shape == (1, 8, 8)


def test_sizes_are_settled_for_all_splits(tmp_path):
    held = set(partition("validation", 40, (0.1, 0.1)).tolist())
    for k in range(40):
        picture(tmp_path / f"{k:03}.png", size=(12, 12) if k in held else (8, 8))
    for split in SPLITS:
        with pytest.raises(InputError, match=r"the pictures differ: \[3, 8, 8\] .* and \[3, 12, 12\] .* give size"):
            load(tmp_path, split)
    assert {load(tmp_path, split, size=8).shape for split in SPLITS} == {(3, 8, 8)}


def test_turned_pictures_have_the_size_that_is_seen(tmp_path):
    for k in range(10):
        image = Image.fromarray(RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8))
        exif = image.getexif()
        exif[0x0112] = 6
        image.save(tmp_path / f"{k}.jpg", exif=exif)
        picture(tmp_path / f"upright{k}.png", size=(9, 6))
    assert load(tmp_path).shape == (3, 9, 6)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_sixteen_bit_pictures_of_fewer_bits_are_said_and_made_right(bits, tmp_path, capsys):
    white = 2**bits - 1
    values = [RNG.integers(0, white + 1, (8, 8)).astype(np.uint16) for _ in range(10)]
    for k, one in enumerate(values):
        one[0, 0] = white
        picture(tmp_path / f"{k}.png", values=one)
    assert load(tmp_path).x.max() < 64
    said = capsys.readouterr().err
    assert f"no value reaches {2**bits}" in said and f"if they have {bits} bits, say --values 0,{white} (values= from Python)" in said
    every = torch.cat([load(tmp_path, split, values=(0, white)).x for split in SPLITS])
    wanted = {tuple(np.round(one.astype(float) * 255 / white).astype(int).ravel()) for one in values}
    assert {tuple(one.ravel().tolist()) for one in every} == wanted and not capsys.readouterr().err
    with pytest.raises(InputError, match=rf"values are said to lie in \[0, 255\], but go from .* to {white}"):
        load(tmp_path, values=(0, 255))


def test_pictures_of_few_grey_values_by_their_values(tmp_path, capsys):
    for k in range(10):
        picture(tmp_path / "few" / f"{k}.png", values=np.eye(8, dtype=np.uint8) * 3)
    assert load(tmp_path / "few").x.max() == 3 and "no pixel is lighter than 3 of 255" in (said := capsys.readouterr().err)
    assert "--values 0,3" in said and set(load(tmp_path / "few", values=(0, 3)).x.unique().tolist()) == {0, 255}
    assert load(tmp_path / "few", values=(0, 255)).x.max() == 3 and not capsys.readouterr().err  # they are dark


def test_a_model_of_twelve_bits_reads_pictures_alike_ever_after(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for k in range(30):
        picture(tmp_path / "pics" / f"{k}.png", values=RNG.integers(0, 4096, (8, 8)).astype(np.uint16))
    few = ["--images", "32", "--batch", "16", "--width", "8", "--blocks", "1", "--levels", "20", "--sample-steps", "2", "--threads", "1"]
    assert main(["train", "egc/digits", "--data", "pics", "--values", "0,4095", "--out", "r", *few]) == 0
    assert main(["evaluate", "r", "--metrics", "cost", "-n", "4"]) == 0
    (tmp_path / "pics").rename(tmp_path / "moved")
    assert main(["evaluate", "r", "--metrics", "ood", "-n", "4", "--data", "moved"]) == 0
    assert "other data" not in capsys.readouterr().err
    assert main(["apply", "detect", "r", "--input", "moved/0.png", "--out", "d.json"]) == 0
    model, x = tw.load("r"), np.asarray(Image.open("moved/0.png")).astype(float)
    x = torch.from_numpy(np.round(x * 255 / 4095) / 127.5 - 1).float()[None, None]
    assert json.loads(Path("d.json").read_text())[0]["energy"] == pytest.approx(float(model.energy(x)), abs=2e-4, rel=1e-5)


# --- few of them


def test_few_examples_of_many_classes_are_split_all_the_same():
    label = torch.arange(50) % 10  # five pictures a class
    parts = [partition(split, 50, (0.1, 0.1), label) for split in SPLITS]
    assert [len(part) for part in parts] == [40, 5, 5] and len(torch.cat(parts).unique()) == 50
    assert [len(partition(split, 4, (0.1, 0.1))) for split in SPLITS] == [2, 1, 1]
    assert [len(partition(split, 2, (0.1, 0.0))) for split in ("train", "validation")] == [1, 1]
    assert partition("train", 1, (0.1, 0.1)).tolist() == [0]
    with pytest.raises(TooFew, match="1 examples are too few for a test split"):
        partition("test", 1, (0.1, 0.1))


def test_splits_that_could_be_even_stay_as_they_were():
    label = torch.arange(60) % 10
    parts = [partition(split, 60, (0.1, 0.1), label) for split in SPLITS]
    assert [len(part) for part in parts] == [40, 10, 10] and torch.bincount(label[parts[1]]).tolist() == [1] * 10


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_model_learns_from_very_few_pictures(tmp_path, monkeypatch, count):
    monkeypatch.chdir(tmp_path)
    for k in range(count):
        picture(Path("few") / f"{k}.png", grey=True)
    fast = ["--images", "128", "--batch", "64", "--width", "16", "--blocks", "1", "--sample-steps", "3", "--threads", "1"]
    assert main(["train", "egc/digits", "--data", "few", "--out", "run", *fast]) == 0
    assert tw.load("run").sample(2).shape == (2, 1, 8, 8)


def test_the_middle_of_faces_before_they_are_resized(tmp_path):
    """In CelebA's layout, a folder of pictures of 178×218 pixels: what lies outside of the middle 140×140 leaves no trace."""
    values = np.zeros((218, 178, 3), dtype=np.uint8)
    values[39:179, 19:159] = 200  # and the paper's crop, in whole pixels
    for k in range(12):
        picture(tmp_path / "img_align_celeba" / f"{k:06}.png", values=values)
    root = tmp_path / "img_align_celeba"
    whole, cut = load(root, size=16), load(root, size=16, middle=140)
    assert whole.shape == cut.shape == (3, 16, 16)
    assert int(whole.x.min()) < 100 and bool((cut.x == 200).all())
    assert load(root, middle=140).shape == (3, 140, 140)
    stream = load(root, size=16, middle=140, streaming=True)
    assert (
        torch.equal(stream.batch(0, 8, 0).x, cut.batch(0, 8, 0).x) and stream.fingerprint != load(root, size=16, streaming=True).fingerprint
    )
    fields = dict(middle=140, batch=4, images=8, stage_steps=(1, 1), stage_images=(4, 4), **{"net.width": 2})
    config = tw.method("cf_ebm/digits", data=cut, **fields).config
    data = prepare(config, str(root), "train", size=16)
    assert torch.equal(data.x, cut.x)
    model = tw.fit(tw.method("cf_ebm/digits", data=data, **fields), data, progress=False)
    assert bool((trained_data(model, "test").x == 200).all()), "the model knows how its data were read"
    with pytest.raises(InputError, match=r"000000\.png is of 178×218 pixels, of which no middle square of 200 can be cut out"):
        load(root, size=16, middle=200)
    with pytest.raises(InputError, match="not of 'digits'; leave middle out"):
        load("digits", middle=4)
