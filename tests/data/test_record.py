"""What a run says of its data: the content decides, not the name or the place."""

import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

import thalweg as tw
from thalweg.data import Images, Unpaired
from thalweg.data.record import are, class_names, fingerprint, public, record
from thalweg.data.stacked import Stacked


def pictures(root, count: int = 40, seed: int = 0) -> None:
    draw = np.random.default_rng(seed)
    for name in ("left", "right"):
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(draw.integers(0, 256, (8, 6), dtype=np.uint8)).save(root / name / f"{i:03}.png")


def test_a_folder_is_known_by_its_content_wherever_it_lies(tmp_path, monkeypatch):
    pictures(tmp_path / "pics")
    monkeypatch.chdir(tmp_path)
    found = [record(tw.data.load(name)) for name in ("pics", "pics/", "./pics", tmp_path / "pics")]
    assert all(one == found[0] for one in found)
    assert found[0]["name"] == "pics" and found[0]["source"] == str(tmp_path / "pics") and found[0]["classes"] == ["left", "right"]
    assert found[0]["shape"] == [1, 8, 6] and found[0]["count"] == 64 and -1 <= found[0]["range"][0] < found[0]["range"][1] <= 1
    json.dumps(found[0], allow_nan=False)
    os.rename("pics", "elsewhere")
    moved = tw.data.load("elsewhere")
    assert are(found[0], moved) and record(moved)["name"] == "elsewhere"
    pictures(tmp_path / "others", seed=1)
    assert not are(found[0], tw.data.load("others")) and not are(found[0], tw.data.load("elsewhere", "test"))


def test_one_pixel_or_one_label_makes_other_data():
    x, label = torch.zeros(5, 1, 4, 4, dtype=torch.uint8), torch.arange(5)
    same = fingerprint(Images(x, label))
    changed = x.clone()
    changed[3, 0, 2, 1] = 1
    assert fingerprint(Images(x.clone(), label, name="another name")) == same
    assert len({same, fingerprint(Images(changed, label)), fingerprint(Images(x, label.flip(0))), fingerprint(Images(x))}) == 4


def test_flips_jitter_and_their_place_do_not_count_but_size_does():
    digits = tw.data.load("digits")
    assert record(digits.augmented(flip=True, jitter=1 / 255)) == record(digits)
    assert are(record(tw.data.load("digits", size=12)), digits.resized(12)) and not are(record(digits), digits.resized(12))
    assert digits.resized(12).origin == "digits" and digits.subset(torch.arange(10)).origin is None


@pytest.mark.parametrize("make", [lambda: tw.data.toy("moons"), lambda: tw.data.load("stacked-digits"), lambda: tw.data.load("objects")])
def test_what_is_made_by_its_name_goes_by_that(make):
    found = record(make())
    assert found["name"] == found["source"] in tw.data.NAMES and are(found, make())


class Own:
    """The least that data are."""

    name, shape, classes = "own", (3,), ()

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def batch(self, start: int, count: int, seed: int) -> tw.data.Batch:
        return tw.data.Batch(torch.randn(count, 3, generator=tw.random.seeded(self.seed, start, seed)))

    def describe(self) -> dict:
        return {"mean": [0.0, 1.0, 2.0]}


def test_data_of_ones_own_need_no_more_than_batches():
    found = record(Own(0))
    assert are(found, Own(0)) and not are(found, Own(1))
    assert found["source"] is None and found["count"] is None and found["preprocessing"] == {"mean": [0.0, 1.0, 2.0]}


def test_translations_are_their_two_sets():
    a, b, c = (Images(torch.full((4, 1, 4, 4), value)) for value in (-0.5, 0.0, 0.5))
    assert fingerprint(Unpaired(a, b)) != fingerprint(Unpaired(a, c)) and are(record(Unpaired(a, b)), a)


def test_concepts_and_missing_names():
    found = record(tw.data.load("inked-digits"))
    assert not found["classes"] and list(found["concepts"]) == ["digit", "colour"]
    assert class_names(record(Images(torch.zeros(2, 1, 4, 4), torch.tensor([0, 1]), ("a", "b"))), 3) == ("a", "b", "2")
    assert class_names(None, 2) == ("0", "1")


def test_nothing_of_this_machine_is_handed_on(tmp_path):
    pictures(tmp_path / "pics")
    assert str(tmp_path) not in json.dumps(public(record(tw.data.load(tmp_path / "pics"))))
    assert public(record(tw.data.load("digits")))["source"] == "digits"


def test_stacks_of_ones_own_are_known_by_their_batches():
    base = tw.data.load("digits")
    assert are(record(Stacked(base, 50)), Stacked(base, 50)) and not are(record(Stacked(base, 50)), Stacked(base, 50, seed=1))
