"""Tables of concepts: attributes.csv of a folder, attributes of a .npz file, and what cannot be used of them."""

import json

import numpy
import pytest
import torch
from PIL import Image

import thalweg as tw
from thalweg.data import concepts, load
from thalweg.data.attributes import split_label
from thalweg.errors import InputError


def write_folder(root, rows, header="file,size,Smiling"):
    """A folder with a grey picture for each row, the value of its pixels its number, and the table of them."""
    (root / "pictures").mkdir(parents=True, exist_ok=True)
    for number, _ in enumerate(rows):
        Image.new("L", (4, 4), number).save(root / "pictures" / f"{number:02}.png")
    (root / "attributes.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return root


def row(number, size="10", smiling="1"):
    return f"pictures/{number:02}.png,{size},{smiling}"


def test_a_folder_with_a_table(tmp_path):
    rows = [row(i, size=["9", '"10, large"', "é"][i % 3], smiling=[" -1", "1 "][i % 2]) for i in range(60)]
    write_folder(tmp_path, rows)
    Image.new("L", (4, 4), 99).save(tmp_path / "pictures" / "unlisted.png")
    parts = [load(tmp_path, split) for split in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [48, 6, 6]
    assert parts[0].concepts == {"size": ("10, large", "9", "é"), "Smiling": ("no", "yes")} == concepts(str(tmp_path))
    assert parts[0].classes[-2:] == ("Smiling=no", "Smiling=yes") == tw.data.class_names(str(tmp_path))[-2:]
    for part in parts:
        number = part.x[:, 0, 0, 0].long()
        own = split_label(part.label, part.concepts)
        assert torch.equal(own["size"], torch.tensor([1, 0, 2])[number % 3]) and torch.equal(own["Smiling"], number % 2)
    assert sorted(int(v) for part in parts for v in part.x[:, 0, 0, 0]) == list(range(60))


def test_numbers_are_sorted_as_numbers_and_a_byte_order_mark_is_skipped(tmp_path):
    write_folder(tmp_path, [row(i, size=["10", "9", "-2.5"][i % 3], smiling="-1") for i in range(30)], header="\ufefffile,size,Smiling")
    assert concepts(str(tmp_path)) == {"size": ("-2.5", "9", "10"), "Smiling": ("no", "yes")}


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ([row(0), "pictures/77.png,1,1", "78.png,1,1"], None, "2 of 3 pictures are not there, first pictures/77.png"),
        ([row(0), "/etc/hosts,1,1"], None, "the file /etc/hosts is outside the folder"),
        ([row(0), "../secret.png,1,1"], None, "../secret.png is outside the folder"),
        ([row(0), row(1), row(0)], None, "pictures/00.png is listed twice"),
        ([row(0), "pictures/01.png,1"], None, "line 3: 2 cells for 3 columns"),
        ([row(0), "pictures/01.png,1,"], None, "line 3: no value for Smiling"),
        ([row(0)], "image,size,Smiling", "needs a column file and one a concept.*got image, size, Smiling"),
        (["pictures/00.png"], "file", "needs a column file and one a concept.*got file"),
        ([row(0)], "file,size,size", "each of another name"),
        ([row(0)], "file,a=b,size", "without = and comma, got 'a=b'"),
        ([], None, "lists no pictures"),
        ([row(0), 'pictures/01.png,"1,1'], None, "cannot be read as comma-separated UTF-8 text"),
        ([row(i, size=str(i)) for i in range(1001)], None, "the concept size must have 1 to 1000 values, got 1001"),
        ([row(0), row(1)], None, "too few for a validation split"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, rows, header, message):
    write_folder(tmp_path, rows, *([header] if header else []))
    with pytest.raises(InputError, match=message):
        load(tmp_path, "validation")


def test_a_table_in_another_encoding(tmp_path):
    write_folder(tmp_path, [row(0)])
    (tmp_path / "attributes.csv").write_bytes("file,größe\npictures/00.png,1\n".encode("latin-1"))
    with pytest.raises(InputError, match="UTF-8"):
        load(tmp_path)
    assert concepts(str(tmp_path)) == {}
    (tmp_path / "attributes.csv").write_bytes(b"")
    with pytest.raises(InputError, match="got nothing"):
        load(tmp_path)


NUMBERS = numpy.stack([numpy.arange(40) % 2, numpy.arange(40) % 4], 1)
PIXELS = numpy.arange(40, dtype=numpy.uint8)[:, None, None].repeat(4, 1).repeat(4, 2)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({}, {"attribute0": ("0", "1"), "attribute1": ("0", "1", "2", "3")}),
        ({"concepts": ["sex", "age"]}, {"sex": ("0", "1"), "age": ("0", "1", "2", "3")}),
        ({"concepts": json.dumps(["sex", "age"])}, {"sex": ("0", "1"), "age": ("0", "1", "2", "3")}),
        ({"concepts": json.dumps({"sex": ["f", "m"], "age": list("abcde")})}, {"sex": ("f", "m"), "age": tuple("abcde")}),
    ],
)
def test_arrays_with_attributes(tmp_path, names, expected):
    numpy.savez(tmp_path / "a.npz", x=PIXELS, attributes=NUMBERS, **names)
    images = load(tmp_path / "a.npz")
    assert len(images) == 32 and images.concepts == expected == concepts(str(tmp_path / "a.npz"))
    number = images.x[:, 0, 0, 0].long()
    own = split_label(images.label, images.concepts)
    assert [own[name].tolist() for name in expected] == [(number % 2).tolist(), (number % 4).tolist()]
    assert load(tmp_path / "a.npz", "test", size=2, channels=3).label.shape == (4, 2)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"attributes": NUMBERS, "y": numpy.zeros(40, int)}, "y or attributes, not both"),
        ({"attributes": NUMBERS[:39]}, r"attributes of shape \[39, 2\] for 40 images"),
        ({"attributes": numpy.array(3)}, r"attributes of shape \[\] for 40 images"),
        ({"attributes": NUMBERS[:, 0]}, r"integers \[N, M\], a column a concept, got \[40\] of int64"),
        ({"attributes": NUMBERS / 2}, r"got \[40, 2\] of float64"),
        ({"attributes": 2 * NUMBERS - 1}, "numbers from 0, got -1"),
        ({"attributes": NUMBERS + 1000}, "attribute0 must have 1 to 1000 values, got 1001"),
        ({"attributes": NUMBERS, "concepts": ["sex"]}, "concepts must be 2 different names"),
        ({"attributes": NUMBERS, "concepts": ["sex", "sex"]}, "concepts must be 2 different names"),
        ({"attributes": NUMBERS, "concepts": numpy.arange(2)}, r"concepts must be text, got \[2\] of int64"),
        ({"attributes": NUMBERS, "concepts": "{sex"}, "concepts is no JSON"),
        ({"attributes": NUMBERS, "concepts": "[1, 2]"}, "concepts must be 2 different names"),
        ({"attributes": NUMBERS, "concepts": '{"a": ["x", "y"], "b": ["p"]}'}, "b has 1 values, but attributes hold the number 3"),
        ({"attributes": NUMBERS, "concepts": '{"a": [1, 2], "b": ["p"]}'}, "concepts must be 2 different names"),
    ],
)
def test_arrays_that_cannot_be_used(tmp_path, arrays, message):
    numpy.savez(tmp_path / "a.npz", x=PIXELS, **arrays)
    with pytest.raises(InputError, match=message):
        load(tmp_path / "a.npz")


def test_pickled_names_are_not_loaded(tmp_path):
    numpy.savez(tmp_path / "a.npz", x=PIXELS, attributes=NUMBERS, concepts=numpy.array([["a"], ["b", "c"]], dtype=object))
    with pytest.raises(InputError, match="plain arrays"):
        load(tmp_path / "a.npz")


def test_concepts_of_what_has_none():
    assert [concepts(name) for name in ("digits", "8gaussians", "hf:someone/pictures", "nowhere")] == [{}] * 4
    assert list(concepts("coloured-digits-unseen")) == ["digit", "colour", "background"]
