"""Emoji of the npm packages: splits, labels, what is drawn, and wrong folders."""

import json

import pytest
import torch
from PIL import Image

from thalweg.commands import train
from thalweg.data import emoji, load
from thalweg.errors import InputError

SUBGROUPS = {"Food & Drink": "sky & weather", "Flags": "flag"}
COLOURS = {"Food & Drink": (200, 30, 30), "Flags": (30, 30, 200)}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """20 emoji of each of two categories, half of them with a darker variation, and a component; two vendors, one misses an emoji."""
    monkeypatch.setenv("THALWEG_DATA", str(tmp_path))
    entries = []
    for number, (category, colour) in enumerate([*COLOURS.items()] * 20):
        darker = tuple(value // 2 for value in colour)
        entry = {
            "category": category,
            "subcategory": SUBGROUPS[category] + " too" * (number // 2 % 2),
            "sort_order": number,
            "image": f"{number}.png",
        }
        if number < 20:
            entry["skin_variations"] = {"1F3FB": {"image": f"{number}-dark.png"}}
        drawn = [(entry, colour), *((one, darker) for one in entry.get("skin_variations", {}).values())]
        for vendor in ("google", "twitter"):
            folder = tmp_path / f"emoji-datasource-{vendor}" / "img" / vendor / "64"
            folder.mkdir(parents=True, exist_ok=True)
            for one, fill in drawn:
                one[f"has_img_{vendor}"] = (vendor, number) != ("twitter", 3)
                picture = Image.new("RGBA", (64, 64), (*fill, 0))
                picture.paste((*fill, 255), (16, 16, 48, 48))
                picture.save(folder / one["image"])
        entries.append(entry)
    entries.append({"category": "Component", "sort_order": 99, "image": "none.png", "has_img_google": True, "has_img_twitter": True})
    for vendor in ("google", "twitter"):
        (tmp_path / f"emoji-datasource-{vendor}" / "emoji.json").write_text(json.dumps(entries))
    return tmp_path


def test_splits_hold_all_emoji_once_and_their_tones_together(package):
    parts = {split: load("emoji-google", split) for split in ("train", "validation", "test")}
    assert sum(map(len, parts.values())) == 60 and parts["train"].classes == ("food", "flags")
    for part in parts.values():
        counts = [int((part.x[:, :, 32, 32] == torch.tensor(colour)).all(1).sum()) for colour in COLOURS.values()]
        dark = [int((part.x[:, :, 32, 32] == torch.tensor(colour) // 2).all(1).sum()) for colour in COLOURS.values()]
        assert part.label.bincount(minlength=2).tolist() == [a + b for a, b in zip(counts, dark)]
        # an image of a darker tone lies next to its own emoji
        assert all(dark[i] <= counts[i] for i in (0, 1))
    train = parts["train"].x[:, :, 32, 32].int()
    for row in range(len(train)):
        is_dark = any((train[row] == torch.tensor(colour) // 2).all() for colour in COLOURS.values())
        assert not is_dark or torch.equal(train[row], train[row - 1] // 2)


def test_kinds_label_the_same_pictures_more_finely(package):
    for split in ("train", "validation", "test"):
        by_category, by_kind = load("emoji-google", split), load("emoji-google-kinds", split)
        assert torch.equal(by_category.x, by_kind.x) and by_kind.name == f"emoji-google-kinds/{split}"
        assert by_kind.classes == ("sky-weather", "flag", "sky-weather-too", "flag-too")
        assert [by_kind.classes[k].partition("-too")[0] for k in by_kind.label] == [
            {"food": "sky-weather", "flags": "flag"}[by_category.classes[k]] for k in by_category.label
        ]  # fmt: skip


def test_transparent_ground_is_white(package):
    x = emoji("google", "test").all().x
    assert x.shape[1:] == (3, 64, 64) and (x[:, :, 0, 0] == 1).all() and (x[:, :, 32, 32].amin(1) < 0).all()


def test_vendors_share_splits_but_for_what_one_does_not_draw(package):
    lengths = {split: (len(load("emoji-google", split)), len(load("emoji-twitter", split))) for split in ("train", "validation", "test")}
    assert sorted(a - b for a, b in lengths.values()) == [0, 0, 2]
    for split, (a, b) in lengths.items():
        if a == b:
            assert torch.equal(load("emoji-google", split).x, load("emoji-twitter", split).x)


def test_size_grey_and_one_class(package):
    assert load("emoji-google", size=16, channels=1).shape == (1, 16, 16)
    flags = load("emoji-google:flags", "train")
    assert flags.label is None and (flags.x[:, 2, 32, 32] > flags.x[:, 0, 32, 32]).all()


def test_wrong_folders_say_what_to_do(package, monkeypatch):
    (package / "emoji-datasource-google" / "emoji.json").write_text("[{}]")
    with pytest.raises(InputError, match=r"emoji\.json cannot be read as a list of emoji: KeyError"):
        emoji("google")
    (package / "emoji-datasource-twitter" / "img" / "twitter" / "64" / "0.png").unlink()
    with pytest.raises(InputError, match=r"0\.png cannot be read as a picture"):
        [emoji("twitter", split) for split in ("train", "validation", "test")]
    monkeypatch.setenv("THALWEG_DATA", str(package / "elsewhere"))
    with pytest.raises(InputError, match=r"there is no folder .*; run `npm install emoji-datasource-google`, and set THALWEG_DATA"):
        emoji("google")


def test_a_preset_brings_its_data_to_its_size(package, monkeypatch):
    """Emoji have 64×64 pixels, the preset 32×32; data given by name keep theirs."""
    shapes = []
    monkeypatch.setattr("thalweg.train.fit", lambda method, data, *_, **__: shapes.append((method.config.shape, tuple(data.shape))))
    for options in ([], ["--data", "emoji-twitter"], ["--size", "16"]):
        train.run(["egc/emoji-google", "--dry-run", "--width", "8", "--blocks", "1", *options])
    assert shapes == [((3, size, size),) * 2 for size in (32, 64, 16)]
