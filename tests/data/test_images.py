"""Images: the stream, every loader, and what each says to wrong input."""

import gzip
import hashlib
import io
import subprocess
import sys
import urllib.request

import datasets
import numpy
import pytest
import torch
from PIL import Image

from thalweg.data import NAMES, SPLITS, Images, Stream, attributes, fashion_mnist, folder, folders, load, sources
from thalweg.data.record import fingerprint
from thalweg.distributed import World
from thalweg.errors import InputError


def numbered(count, **options):
    """Images [1, 2, 3] that hold their own number, so that a stream can be read back."""
    return Images(torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 2, 3).clone(), **options)


def numbers(batch):
    return ((batch.x[:, 0, 0, 0] + 1) * 127.5).round().long().tolist()


def picture(path, value=0, size=(6, 6), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, value, value)).save(path)


# the stream


def test_each_epoch_visits_each_image_once_in_a_new_order():
    images = numbered(10)
    epochs = [numbers(images.batch(start, 10, 0)) for start in (0, 10, 20)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_batches_are_pieces_of_one_stream():
    images = numbered(10, flip=True, jitter=0.1)
    whole = images.batch(3, 25, 5).x  # over three epochs
    assert torch.equal(whole, torch.cat([images.batch(3, 4, 5).x, images.batch(7, 21, 5).x]))
    assert torch.equal(whole, images.batch(3, 25, 5).x)
    assert not torch.equal(whole, images.batch(3, 25, 6).x)


def test_all_is_in_order_and_labels_go_along():
    images = numbered(5, label=torch.tensor([0, 1, 1, 0, 2]), flip=True, jitter=0.2)
    assert numbers(images.all()) == [0, 1, 2, 3, 4] and len(images) == 5 and images.classes == ("0", "1", "2")
    batch = images.batch(2, 8, 0)
    plain = numbers(images.augmented().batch(2, 8, 0))
    assert batch.label.tolist() == [[0, 1, 1, 0, 2][number] for number in plain] and batch.label.dtype == torch.int64
    assert numbers(images.subset(torch.tensor([4, 1])).all()) == [4, 1]


def test_uint8_maps_onto_the_whole_range():
    x = Images(torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1)).all().x.flatten()
    assert x.tolist() == [-1.0, 1.0] and x.dtype == torch.float32


def test_flips_are_even_and_differ_from_epoch_to_epoch():
    ramp = torch.linspace(-1, 1, 3).expand(400, 1, 1, 3)
    images = Images(ramp, flip=True)
    flipped = [images.batch(start, 400, 0).x[:, 0, 0, 0] == 1 for start in (0, 400)]
    assert all(abs(part.float().mean() - 0.5) < 4.5 * 0.025 for part in flipped)
    assert not torch.equal(*flipped)


def test_jitter_of_one_level_is_dequantisation():
    images = Images(torch.arange(256, dtype=torch.uint8).reshape(256, 1, 1, 1).expand(-1, 1, 8, 8), jitter=1 / 255)
    x = images.batch(0, 256, 0).x
    assert x.min() >= -1 and x.max() <= 1
    level = ((x + 1) * 128).floor()
    assert all((image == image[0, 0, 0]).all() for image in level)
    inside = (x + 1) * 128 - level
    assert abs(inside.mean() - 0.5) < 0.02 and abs(inside.var() - 1 / 12) < 0.005


@pytest.mark.parametrize(
    "x, label, options, message",
    [
        (torch.zeros(2, 3, 3), None, {}, r"shape \[N, C, H, W\] with no side of 0, got \[2, 3, 3\]"),
        (torch.zeros(0, 1, 3, 3), None, {}, r"got \[0, 1, 3, 3\]"),
        (torch.zeros(2, 1, 3, 3, dtype=torch.int64), None, {}, "must be uint8 or float, got torch.int64"),
        (torch.full((2, 1, 3, 3), 2.0), None, {}, r"must lie in \[−1, 1\], got values from 2 to 2; give uint8"),
        (torch.full((2, 1, 3, 3), torch.nan), None, {}, "2 of 2 images hold NaN or infinity"),
        (torch.zeros(2, 1, 3, 3), torch.zeros(3, dtype=torch.int64), {}, r"labels must be 2 integers.*got \[3\]"),
        (torch.zeros(2, 1, 3, 3), torch.zeros(2), {}, "labels must be 2 integers.*torch.float32"),
        (torch.zeros(2, 1, 3, 3), torch.tensor([0, 2]), {"classes": ("a", "b")}, "labels must be in 0 … 1, got values from 0 to 2"),
        (torch.zeros(2, 1, 3, 3), None, {"jitter": 1.5}, r"jitter must be in \[0, 1\), got 1.5"),
    ],
)
def test_images_refuse_what_does_not_fit(x, label, options, message):
    with pytest.raises(InputError, match=message):
        Images(x, label, **options)


def test_a_batch_needs_rows():
    with pytest.raises(InputError, match="start ≥ 0 and count ≥ 1, got start=-1, count=4"):
        numbered(3).batch(-1, 4, 0)


# built-in sets


@pytest.mark.parametrize("name, shape, sizes", [("digits", (1, 8, 8), (1259, 179, 359)), ("mnist-small", (1, 28, 28), (4000, 500, 500))])
def test_built_in_sets_split_without_overlap(name, shape, sizes):
    splits = [load(name, split) for split in SPLITS]
    assert tuple(len(part) for part in splits) == sizes and all(part.shape == shape for part in splits)
    everything = torch.cat([part.x for part in splits]).flatten(1)
    assert len(everything) == sum(sizes)
    assert torch.equal(splits[0].x, load(name).x)
    batch = splits[0].batch(0, 500, 0)
    assert batch.x.min() == -1 and batch.x.max() == 1
    for part in splits:  # even over the classes
        share = torch.bincount(part.label) / len(part)
        assert len(share) == 10 and (share - 0.1).abs().max() < 0.01


def test_splits_share_no_row():
    rows = [sources.partition(split, 103, (0.1, 0.2), torch.arange(103) % 3) for split in SPLITS]
    assert torch.equal(torch.cat(rows).sort().values, torch.arange(103))


def test_size_and_channels_convert():
    images = load("digits", "validation", size=16, channels=3)
    assert images.shape == (3, 16, 16)
    x = images.all().x
    assert torch.equal(x[:, 0], x[:, 2]) and x.min() >= -1 and x.max() <= 1
    down = sources.convert(torch.randint(0, 256, (2, 3, 20, 32), dtype=torch.uint8), 10, 1)
    assert down.shape == (2, 1, 10, 10) and down.dtype == torch.uint8
    flat = torch.full((1, 3, 9, 14), 200, dtype=torch.uint8)
    assert sources.convert(flat, 5, 1).unique().tolist() == [200]


@pytest.mark.parametrize("options, message", [({"size": 0}, "at least 1, got 0"), ({"channels": 2}, r"1 \(grey\) or 3 \(colour\), got 2")])
def test_impossible_conversions_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        load("digits", **options)


# Fashion-MNIST from files


def write_fashion(root, train=24, test=6):
    root.mkdir(parents=True)
    for part, count in (("train", train), ("t10k", test)):
        images = bytes([0, 0, 8, 3]) + numpy.array([count, 28, 28], ">u4").tobytes() + bytes(k % 256 for k in range(count * 784))
        labels = bytes([0, 0, 8, 1]) + numpy.array([count], ">u4").tobytes() + bytes(k % 10 for k in range(count))
        (root / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (root / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))


@pytest.fixture
def fashion(tmp_path, monkeypatch):
    monkeypatch.setenv("THALWEG_DATA", str(tmp_path))
    write_fashion(tmp_path / "fashion-mnist")
    return tmp_path / "fashion-mnist"


def test_fashion_mnist_reads_the_files(fashion):
    parts = [load("fashion-mnist", split) for split in SPLITS]
    assert [len(part) for part in parts] == [22, 2, 6]
    assert parts[0].shape == (1, 28, 28) and parts[0].classes[9] == "ankle boot"
    assert parts[0].x[1].flatten()[:3].tolist() == [784 % 256, 785 % 256, 786 % 256]
    assert parts[1].label.tolist() == [2, 3]
    assert load("fashion-mnist", size=32).shape == (1, 32, 32)


def test_damaged_fashion_files_are_named(fashion):
    file = fashion / "train-images-idx3-ubyte.gz"
    whole = file.read_bytes()
    file.write_bytes(whole[:-30])
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte.gz cannot be read as a gzip file"):
        fashion_mnist()
    file.write_bytes(gzip.compress(gzip.decompress(whole)[:-1]))
    with pytest.raises(InputError, match="is not a whole IDX file of bytes in 3 dimensions"):
        fashion_mnist()
    write_fashion(fashion.parent / "short", train=12)
    file.write_bytes((fashion.parent / "short" / file.name).read_bytes())
    with pytest.raises(InputError, match="12 train images but 24 labels"):
        fashion_mnist()
    file.unlink()
    with pytest.raises(InputError, match="THALWEG_DATA is set, but there is no file"):
        fashion_mnist()


def test_downloads_are_verified_and_kept_whole(tmp_path, monkeypatch):
    write_fashion(tmp_path / "server")
    monkeypatch.delenv("THALWEG_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sources, "_DEBIAN", tmp_path / "nowhere")
    asked = []

    def answer(url, timeout):
        asked.append(url)
        if "githubusercontent" in url:
            raise urllib.request.URLError("no network")
        return io.BytesIO((tmp_path / "server" / url.rsplit("/", 1)[1]).read_bytes())

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    with pytest.raises(InputError, match=r"cannot download .*no network.*checksum .*, expected 8d4f.*set THALWEG_DATA"):
        fashion_mnist()
    assert not (tmp_path / "cache").exists()
    sums = {file.name: hashlib.md5(file.read_bytes()).hexdigest() for file in (tmp_path / "server").iterdir()}
    monkeypatch.setattr(sources, "_FASHION_MD5", sums)
    assert len(fashion_mnist()) == 22
    asked.clear()
    assert len(fashion_mnist("validation")) == 2 and not asked


# folders


def test_a_folder_of_class_folders(tmp_path):
    for name, value in (("cat", 0), ("dog", 255)):
        for k in range(20):
            picture(tmp_path / name / f"{k}.png", value)
    parts = [load(tmp_path, split) for split in SPLITS]
    assert [len(part) for part in parts] == [32, 4, 4]
    for part in parts:
        assert part.classes == ("cat", "dog") and part.shape == (3, 6, 6)
        assert torch.equal(part.all().x[:, 0, 0, 0], part.label * 2.0 - 1)
        assert part.label.sum() * 2 == len(part)


def test_a_folder_with_splits_keeps_them(tmp_path):
    for k in range(20):
        picture(tmp_path / "train" / "a" / f"{k}.jpg", k)
        picture(tmp_path / "train" / "b" / f"{k}.jpg", k)
    picture(tmp_path / "test" / "b" / "x.PNG", 200, mode="L")
    assert [len(folder(tmp_path, split)) for split in ("train", "validation")] == [36, 4]
    test = folder(tmp_path, "test")
    assert test.label.tolist() == [1] and test.classes == ("a", "b") and test.shape == (3, 6, 6)
    picture(tmp_path / "val" / "a" / "x.png", 9)
    assert [len(folder(tmp_path, split)) for split in SPLITS] == [40, 1, 1]


def test_loose_pictures_have_no_labels_and_can_be_resized(tmp_path):
    for k in range(10):
        picture(tmp_path / f"{k}.png", 10 * k, size=(6 + k % 2, 9))
    with pytest.raises(InputError, match=r"pictures differ: \[3, 9, \d\] \(\d.png\) and .*; give size"):
        load(tmp_path)
    images = load(tmp_path, size=4, channels=1)
    assert images.shape == (1, 4, 4) and images.label is None and images.classes == () and len(images) == 8
    assert all((image == image[0, 0, 0]).all() for image in images.x)


def test_sixteen_bit_grey_keeps_its_high_byte(tmp_path):
    for k in range(10):
        Image.fromarray(numpy.full((4, 4), 20_000, numpy.uint16)).save(tmp_path / f"{k}.png")
    assert load(tmp_path).x.unique().tolist() == [20_000 // 256]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_are_white_whatever_lies_under_them(tmp_path, mode):
    picture = Image.new("RGBA", (4, 4), (10, 10, 10, 0))
    picture.paste((20, 20, 20, 255), (0, 0, 2, 4))
    picture.paste((0, 0, 0, 128), (2, 0, 3, 4))
    made = picture.convert("LA") if mode == "LA" else picture if mode == "RGBA" else picture.quantize()
    made.save(tmp_path / "one.png")
    x = folders.decode(tmp_path / "one.png", "one.png").int()
    assert x.shape == ((1, 4, 4) if mode == "LA" else (3, 4, 4))
    assert (x[:, :, 3] == 255).all() and (x[:, :, :2] == 20).all() and ((x[:, :, 2] - 127).abs() <= 1).all()


def test_what_a_folder_can_have_wrong(tmp_path):
    with pytest.raises(InputError, match=r"holds no pictures; the endings read are \.png"):
        load(tmp_path)
    picture(tmp_path / "train" / "0.png")
    with pytest.raises(InputError, match=r"a folder train but none for the split 'test' \(test or testing\)"):
        load(tmp_path, "test")
    with pytest.raises(InputError, match="1 examples are too few for a validation split"):
        load(tmp_path, "validation")
    picture(tmp_path / "train" / "a" / "0.png")
    with pytest.raises(InputError, match=r"both loose pictures \(0.png\) and class folders \(a\)"):
        load(tmp_path)
    with pytest.raises(InputError, match="there is no folder"):
        folder(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "damage", [lambda content: content[: len(content) // 2], lambda content: b"no picture at all", lambda content: b""]
)
def test_a_corrupt_picture_is_named(tmp_path, damage):
    for k in range(10):
        picture(tmp_path / f"{k}.png", k, size=(64, 64))
    for file in tmp_path.iterdir():
        file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(InputError, match=r"\d.png cannot be read as a picture"):
        load(tmp_path)


# NumPy files


def test_numpy_files(tmp_path):
    x = numpy.random.default_rng(0).integers(0, 256, (40, 5, 6, 3), dtype=numpy.uint8)
    y = numpy.arange(40) % 2
    numpy.savez(tmp_path / "a.npz", x=x, y=y)
    parts = [load(tmp_path / "a.npz", split) for split in SPLITS]
    assert [len(part) for part in parts] == [32, 4, 4] and parts[0].shape == (3, 5, 6) and parts[0].classes == ("0", "1")
    row = parts[1].x[0]
    index = next(k for k in range(40) if numpy.array_equal(x[k].transpose(2, 0, 1), row.numpy()))
    assert y[index] == parts[1].label[0]
    numpy.save(tmp_path / "b.npy", numpy.full((10, 4, 4), 0.5))
    images = load(str(tmp_path / "b.npy"), channels=3)
    assert images.shape == (3, 4, 4) and images.label is None and images.all().x.unique().tolist() == [0.5]


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"z": numpy.zeros((4, 3, 3))}, "must hold an array x of images .* it holds z"),
        ({"x": numpy.zeros((4, 0))}, r"no side of 0, got \[4, 0\]"),
        ({"x": numpy.zeros((4, 2, 5, 5))}, r"with 1 or 3 channels, got \[4, 2, 5, 5\]"),
        ({"x": numpy.zeros((0, 5, 5))}, r"got \[0, 1, 5, 5\]"),
        ({"x": numpy.full((4, 5, 5), numpy.nan)}, "4 of 4 images hold NaN or infinity"),
        ({"x": numpy.full((4, 5, 5), numpy.inf)}, "4 of 4 images hold NaN or infinity"),
        ({"x": numpy.full((4, 5, 5), 255.0)}, r"must lie in \[−1, 1\], got values from 255 to 255"),
        ({"x": numpy.full((4, 5, 5), 256)}, "integer images must be in 0 … 255, got values from 256 to 256"),
        ({"x": numpy.full((4, 5, 5), True)}, "x must hold uint8 or float, got bool"),
        ({"x": numpy.zeros((4, 5, 5)), "y": numpy.zeros(3, int)}, r"labels must be 4 integers.*got \[3\]"),
        ({"x": numpy.zeros((4, 5, 5)), "y": numpy.full(4, 0.5)}, "labels must be whole numbers or text, got float64 such as 0.5"),
        ({"x": numpy.zeros((4, 5, 5)), "y": numpy.array(["a", "", "b", "b"])}, "1 of 4 labels are missing"),
        ({"x": numpy.zeros((4, 5, 5)), "y": numpy.full(4, -1)}, "labels must be in 0"),
        ({"x": numpy.array([object()])}, "cannot be read as a NumPy file of plain arrays"),
    ],
)
def test_what_a_numpy_file_can_have_wrong(tmp_path, arrays, message):
    numpy.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match=message):
        load(tmp_path / "a.npz")


def test_a_damaged_numpy_file_is_named(tmp_path):
    numpy.savez(tmp_path / "a.npz", x=numpy.zeros((20, 8, 8)))
    content = (tmp_path / "a.npz").read_bytes()
    for damaged in (content[:-40], b"", b"nothing"):
        (tmp_path / "a.npz").write_bytes(damaged)
        with pytest.raises(InputError, match=r"a\.npz cannot be read as a NumPy file"):
            load(tmp_path / "a.npz")


# the package datasets


def table(count, size=(5, 4)):
    """A set of `datasets` whose grey pictures hold 10 times their number."""
    features = datasets.Features({"picture": datasets.Image(), "kind": datasets.ClassLabel(names=["even", "odd"])})
    pictures = [Image.new("L", size, 10 * k) for k in range(count)]
    return datasets.Dataset.from_dict({"picture": pictures, "kind": [k % 2 for k in range(count)]}, features=features)


@pytest.fixture
def saved(tmp_path):
    datasets.DatasetDict({"train": table(20), "test": table(6)}).save_to_disk(tmp_path / "set")
    return tmp_path / "set"


def test_saved_sets_are_read_into_memory(saved):
    parts = [load(saved, split) for split in SPLITS]
    assert [len(part) for part in parts] == [18, 2, 6]
    assert parts[0].shape == (1, 4, 5) and parts[0].classes == ("even", "odd")
    assert parts[2].x[:, 0, 0, 0].tolist() == [0, 10, 20, 30, 40, 50] and parts[2].label.tolist() == [0, 1] * 3
    held = torch.cat([parts[0].x, parts[1].x])[:, 0, 0, 0].sort().values
    assert held.tolist() == [10 * k for k in range(20)]
    assert load(saved, size=8, channels=3).shape == (3, 8, 8)


def test_a_saved_set_without_splits_is_cut(tmp_path):
    table(20).save_to_disk(tmp_path / "one")
    assert [len(load(tmp_path / "one", split)) for split in SPLITS] == [16, 2, 2]


def tens(batch):
    return [number // 10 for number in numbers(batch)]


def test_a_stream_is_the_set_in_another_order(saved):
    stream, held = load(saved, streaming=True), load(saved)
    assert isinstance(stream, Stream) and (stream.shape, stream.classes, len(stream)) == (held.shape, held.classes, len(held))
    batches = [stream.batch(start, 9, 3) for start in range(0, 2 * 18, 9)]
    for epoch in range(2):
        assert sorted(tens(batches[2 * epoch]) + tens(batches[2 * epoch + 1])) == sorted(tens(held.all()))
    assert tens(batches[0]) != tens(batches[2]) and tens(stream.batch(0, 9, 4)) != tens(batches[0])
    assert all((batch.label == torch.tensor(tens(batch)) % 2).all() for batch in batches)
    fresh = load(saved, streaming=True)
    for start in (27, 0, 18):  # no state: any start is the same
        assert torch.equal(fresh.batch(start, 9, 3).x, batches[start // 9].x)
    assert torch.equal(fresh.batch(5, 9, 3).x, torch.cat([batches[0].x[5:], batches[1].x[:5]]))
    few = stream.subset(torch.tensor([3, 1]))
    assert torch.equal(few.all().x, held.all().x[[3, 1]]) and torch.equal(few.label, held.label[[3, 1]]) and not hasattr(stream, "all")
    assert [len(load(saved, split, streaming=True)) for split in SPLITS] == [18, 2, 6], "splits are those of the set in memory"


def test_windows_shuffle_and_visit_everything_and_read_only_what_is_asked():
    asked = []

    def read(row):
        asked.append(row)
        return torch.full((1, 2, 2), row % 256, dtype=torch.uint8)

    stream = Stream(read, 1000, window=64)
    asked.clear()
    stream.batch(0, 1000, 0)
    assert sorted(asked) == list(range(1000)) and stream.batch(0, 2, 0).label is None
    for start in range(0, 1000, 64):  # a window is of four runs of 16 that lie one after the other, or the shorter last one
        runs = {row // 16 for row in asked[start : start + 64]}
        assert len(runs) <= 6
    inside = torch.tensor(asked[:64])
    assert (inside[1:] - inside[:-1]).eq(1).sum() < 16, "a window is shuffled"
    whole = torch.tensor(asked)
    asked.clear()
    stream.batch(100, 7, 0)
    assert asked == whole[100:107].tolist()


def test_each_process_reads_its_share_alone():
    asked = []

    def read(row):
        asked.append(row)
        return torch.full((1, 2, 2), row, dtype=torch.uint8)

    stream, device = Stream(read, 50), torch.device("cpu")
    whole = stream.batch(20, 10, 3)
    asked.clear()
    for start in (20, 44):  # the second one goes on in the next epoch
        mine = World(1, 2).take(stream, start, 10, 3, device)
        assert len(asked) == 5 and torch.equal(mine.x, stream.batch(start, 10, 3).x[5:])
        asked.clear()
    images = Images(torch.arange(50, dtype=torch.uint8).view(50, 1, 1, 1).expand(50, 1, 2, 2), torch.arange(50) % 2, flip=True, jitter=0.1)
    parts = [World(rank, 2).take(images, 44, 10, 3, device) for rank in range(2)]
    for part, joined in zip(zip(*parts), images.batch(44, 10, 3)):
        assert torch.equal(torch.cat(part), joined)
    assert len(whole.x) == 10
    toy = load("moons")  # a batch of a toy cannot be cut
    parts = [World(rank, 2).take(toy, 0, 10, 3, device).x for rank in range(2)]
    assert torch.equal(torch.cat(parts), toy.batch(0, 10, 3).x)


@pytest.mark.parametrize("table", (False, True))
def test_a_folder_is_streamed_as_it_is_read(tmp_path, table):
    for i in range(60):
        path = tmp_path / f"{'ab'[i % 2]}/{i:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (6, 4), 4 * i).save(path)
    if table:
        rows = "".join(f"{'ab'[i % 2]}/{i:02}.png,{'red' if i < 30 else 'blue'},{i % 2}\n" for i in range(60))
        (tmp_path / "attributes.csv").write_text("file,colour,odd\n" + rows)
    for split in SPLITS:
        held, stream = load(tmp_path, split, size=4), load(tmp_path, split, size=4, streaming=True, window=8)
        assert (stream.shape, stream.classes, stream.concepts, len(stream)) == (held.shape, held.classes, held.concepts, len(held))
        every = stream.subset(torch.arange(len(stream)))
        assert torch.equal(every.x, held.x) and torch.equal(every.label, held.label)
    fingerprints = {load(tmp_path, size=size, streaming=True).fingerprint for size in (4, 4, 3)}
    Image.new("RGB", (6, 4), "red").save(tmp_path / "a/00.png")
    assert len(fingerprints | {load(tmp_path, size=4, channels=1, streaming=True).fingerprint}) == 3
    with pytest.raises(InputError, match="window says how many pictures are shuffled together with streaming"):
        load(tmp_path, window=8)
    (tmp_path / "b/59.png").write_bytes(b"junk")
    stream = load(tmp_path, size=4, channels=1, streaming=True)
    with pytest.raises(InputError, match=r"b/59\.png cannot be read as a picture"):
        stream.batch(0, len(stream), 0)


def test_hub_names_are_passed_on(saved, monkeypatch):
    asked = []

    def load_dataset(*given, **options):
        asked.append((given, options))
        return datasets.load_from_disk(str(saved))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert [len(load("hf:someone/pictures", split)) for split in SPLITS] == [20, 1, 6], "nothing of train is held out"
    assert load("hf:someone/pictures:small", streaming=True).shape == (1, 4, 5)
    assert asked == [(("someone/pictures", None), {})] * 3 + [(("someone/pictures", "small"), {})]
    cut = load("hf:someone/pictures", streaming=True, middle=2)
    assert cut.shape == (1, 2, 2) and load("hf:someone/pictures", middle=2).shape == (1, 2, 2)
    assert fingerprint(cut) != fingerprint(load("hf:someone/pictures", streaming=True, size=2))

    def unreachable(*given, **options):
        raise ConnectionError("no route\nto the hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(InputError, match="cannot open hf:someone/pictures with the package datasets: no route to the hub"):
        load("hf:someone/pictures")


def test_what_a_set_can_have_wrong(tmp_path):
    datasets.DatasetDict({"train": table(4)}).save_to_disk(tmp_path / "no-test")
    with pytest.raises(InputError, match="no-test has no split 'test'; it has train"):
        load(tmp_path / "no-test", "test")
    datasets.Dataset.from_dict({"text": ["a", "b"]}).save_to_disk(tmp_path / "text")
    with pytest.raises(InputError, match=r"text/train has no column of images; its columns are text"):
        load(tmp_path / "text")
    (tmp_path / "no-test" / "train" / "state.json").write_text("{")
    with pytest.raises(InputError, match=r"cannot open .*no-test with the package datasets"):
        load(tmp_path / "no-test")


def test_corrupt_and_differing_pictures_of_a_set_are_told(tmp_path):
    features = datasets.Features({"image": datasets.Image()})
    good = io.BytesIO()
    Image.new("RGB", (4, 4)).save(good, "PNG")
    wide = io.BytesIO()
    Image.new("RGB", (5, 4)).save(wide, "PNG")
    for name, last, message in (("bad", b"junk", "bad: image 1 cannot be read"), ("wide", wide.getvalue(), "the images differ")):
        rows = [{"bytes": good.getvalue(), "path": None}, {"bytes": last, "path": None}]
        single = datasets.Dataset.from_dict({"image": rows}, features=features)
        datasets.DatasetDict({"train": single, "validation": single}).save_to_disk(tmp_path / name)
        with pytest.raises(InputError, match=message.replace("bad:", "bad/train:")):
            load(tmp_path / name)
        stream = load(tmp_path / name, streaming=True)
        with pytest.raises(InputError, match=message.replace("bad:", "bad/train:")):
            stream.batch(0, 2, 0)


def test_an_empty_stream_and_an_empty_window_are_refused():
    with pytest.raises(InputError, match="stream is empty"):
        Stream(lambda k: k, 0)
    with pytest.raises(InputError, match="a window holds at least 1 picture"):
        Stream(lambda k: k, 5, window=0)


# load


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("didgits", {}, r"unknown data 'didgits', and no such file or folder \(did you mean 'digits'\?\); the names are gaussian, "),
        ("fashion_mnist", {}, r"did you mean 'fashion-mnist'\?"),
        ("digits", {"split": "dev"}, "unknown split 'dev'; the splits are train, validation, test"),
        ("rings", {"size": 8}, "'rings' is a toy of points in the plane"),
        (
            "digits",
            {"streaming": True},
            "streaming is for hf:NAME, folders of pictures and folders written by the package datasets, not for 'digits'",
        ),
        (__file__, {}, "is a file of another kind"),
    ],
)
def test_load_says_what_would_be_right(name, options, message):
    with pytest.raises(InputError, match=message):
        load(name, **options)


def test_digits_are_those_of_scikit_learn_and_need_no_package():
    from sklearn.datasets import load_digits

    x, label = load_digits(return_X_y=True)
    own = [load("digits", split) for split in ("train", "validation", "test")]
    shown = sorted(
        (int(one), tuple(row)) for part in own for one, row in zip(part.label, (8 * (part.all().x.flatten(1) + 1)).int().tolist())
    )
    assert shown == sorted((int(one), tuple(map(int, row))) for one, row in zip(label, x))
    code = "import sys; sys.modules['sklearn'] = None; from thalweg.data import load; sys.exit(len(load('digits')) != 1259)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_load_and_importing_is_light():
    assert {"8gaussians", "digits", "fashion-mnist", "mnist-small"} <= set(NAMES)
    heavy = "[m for m in ('PIL', 'sklearn', 'scipy', 'datasets', 'mlxtend', 'matplotlib') if m in sys.modules]"
    code = f"import sys, thalweg.data; sys.exit(str({heavy}) if {heavy} else 0)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_images_of_one_class():
    whole, nines = load("digits", "test"), load("digits:9", "test", size=16)
    assert nines.label is None and nines.classes == () and nines.shape == (1, 16, 16)
    assert torch.equal(nines.x, whole.resized(16).x[whole.label == 9])
    # of several concepts, every image that has the value
    inked, red = load("inked-digits", "test"), load("inked-digits:colour=red", "test")
    expected = attributes.split_label(inked.label, inked.concepts)["colour"] == inked.concepts["colour"].index("red")
    assert 0 < len(red) < len(inked) and torch.equal(red.x, inked.x[expected])
    for name, words in (("digits:ten", "no class 'ten'"), ("stacked-digits:3", "put together"), ("nope:3", "unknown data 'nope:3'")):
        with pytest.raises(InputError, match=words):
            load(name)
    empty = Images(torch.zeros(2, 1, 2, 2), torch.tensor([0, 0]), ("a", "b"))
    with pytest.raises(InputError, match="no image of class 'b'"):
        empty.of_class("b")
