"""`tw.data.of`: whatever holds examples becomes data, by the contract where that is clear, else one message."""

import subprocess
import sys

import numpy as np
import pandas
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, WeightedRandomSampler

import thalweg as tw
from thalweg.checkpoint import read_stats
from thalweg.data import Batch, Images, Table, of
from thalweg.errors import InputError

X = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(300) % 3
PICTURES = torch.randint(0, 256, (40, 3, 6, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


class Items(Dataset):
    """A Dataset of what a function gives for each number."""

    def __init__(self, item, count=40, **more):
        self.item, self.count = item, count
        self.__dict__.update(more)

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        return self.item(i)


class Mine:
    """A `Data` of one's own, with batches that `wrap` makes."""

    name, classes = "mine", ()

    def __init__(self, x, wrap=Batch):
        self.x, self.shape, self.wrap = x, tuple(x.shape[1:]), wrap

    def batch(self, start, count, seed):
        return self.wrap(self.x[torch.arange(start, start + count) % len(self.x)])


def vectors(data):
    assert isinstance(data, Table)
    return data.decode(data.x)


# --- what it takes


@pytest.mark.parametrize("x", [X, X.double(), X.numpy(), X.numpy().astype(">f8"), X.tolist(), X.half(), X.requires_grad_(False)])
def test_vectors_of_any_kind(x):
    found = of(x)
    assert found.x.dtype == torch.float32 and found.classes == () and found.shape == (4,)
    assert torch.allclose(vectors(found), X, atol=2e-3)
    assert found.x.mean(0).abs().max() < 1e-5 and (found.x.std(0, correction=0) - 1).abs().max() < 1e-5


@pytest.mark.parametrize(
    "pair", [(X, Y), [X, Y], (X.numpy(), Y.numpy()), (X, Y.float()), (X, Y[:, None]), (X, Y.to(torch.uint8)), Batch(X, Y)]
)
def test_pairs(pair):
    found = of(pair)
    assert torch.equal(found.label, Y) and found.label.dtype == torch.int64 and found.classes == ("0", "1", "2")


def test_labels_may_be_names():
    found = of((X, np.array(["setosa", "virginica", "versicolor"])[Y]))
    assert found.classes == ("setosa", "versicolor", "virginica") and found.label[:3].tolist() == [0, 2, 1]
    assert of(X, Y, classes=("a", "b", "c")).classes == ("a", "b", "c")
    assert of((X, Y == 1)).classes == ("no", "yes")


@pytest.mark.parametrize(
    ("label", "classes"),
    [(Y + 1, ("1", "2", "3")), (Y * 5, ("0", "5", "10")), (Y * 1_000_000 + 7, ("7", "1000007", "2000007")), (2 * (Y % 2) - 1, ("-1", "1"))],
)
def test_labels_that_are_not_from_0_are_numbered_and_said(label, classes, capsys):
    found = of((X, label))
    assert found.classes == classes and found.label.max() == len(classes) - 1
    assert "labels" in capsys.readouterr().err
    assert [classes[i] for i in found.label.tolist()] == [str(i) for i in label.tolist()]


@pytest.mark.parametrize(
    "loader",
    [
        TensorDataset(X, Y),
        DataLoader(TensorDataset(X, Y), 64),
        DataLoader(TensorDataset(X, Y), 64, shuffle=True, drop_last=True),
        Items(lambda i: (X[i].numpy(), int(Y[i])), 300),
        Items(lambda i: {"features": X[i], "label": Y[i]}, 300),
        Items(lambda i: {"x": X[i].tolist(), "y": int(Y[i])}, 300),
    ],
)
def test_datasets_and_loaders_are_read_once_in_their_order(loader, capsys):
    found = of(loader)
    assert torch.allclose(vectors(found), X, atol=1e-6) and torch.equal(found.label, Y)
    assert "read 300 rows of [4] from this" in capsys.readouterr().err
    assert of(loader) is found and capsys.readouterr().err == ""  # a second call, as by method() and then fit()
    assert torch.equal(found.batch(3, 10, 1).x, found.batch(0, 20, 1).x[3:13])


def test_a_loader_with_a_sampler_of_its_own_is_asked():
    only_twos = WeightedRandomSampler((Y == 2).double(), 100)
    assert of(DataLoader(TensorDataset(X, Y), 10, sampler=only_twos), classes=("0", "1", "2")).label.unique().tolist() == [2]

    class Endless(IterableDataset):
        def __iter__(self):
            return iter((X[i], int(Y[i])) for i in range(60))

    for source in (Endless(), DataLoader(Endless(), 16)):
        assert len(of(source)) == 60


def test_pictures_of_a_dataset():
    picture = Items(lambda i: (Image.fromarray(PICTURES[i].permute(1, 2, 0).numpy()), i % 2), classes=["cat", "dog"])
    found = of(picture)
    assert isinstance(found, Images) and torch.equal(found.x, PICTURES) and found.classes == ("cat", "dog")


def test_data_frames():
    frame = pandas.DataFrame(X.numpy(), columns=list("abcd")).assign(species=np.array(["x", "y", "z"])[Y])
    found = of(frame, "species")
    assert found.columns == tuple("abcd") and found.classes == ("x", "y", "z") and torch.equal(found.label, Y)
    assert torch.allclose(vectors(found), X, atol=1e-6)
    assert of(frame.rename(columns={"species": "label"})).classes == ("x", "y", "z")
    for wrong, words in (
        (frame, "column 'species' holds text"),
        (frame.drop(columns="species").mask(frame.a > 1), "is empty or not finite in .* rows, first in row"),
        (frame[["species"]].rename(columns={"species": "label"}), "no column of numbers"),
        (frame.iloc[:0], "no rows"),
    ):
        with pytest.raises(InputError, match=words):
            of(wrong)
    with pytest.raises(InputError, match=r"no column 'specie' \(did you mean 'species'"):
        of(frame, "specie")


def test_pandas_is_not_imported_unless_given():
    code = "import sys, torch, thalweg as tw\ntw.data.of(torch.randn(5, 2))\nsys.exit('pandas' in sys.modules or 'pyarrow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_and_data_stay():
    moons = of("moons")
    assert moons.name == "moons" and of(moons) is moons
    assert len(of("digits", split="test")) == 359


# --- what the values say


def test_pictures_in_any_layout():
    last = PICTURES.permute(0, 2, 3, 1)
    for x in (PICTURES, last, last.numpy(), PICTURES.long(), PICTURES.numpy().astype(np.uint16)):
        assert torch.equal(of(x).x, PICTURES)
    assert of(PICTURES[:, 0]).shape == (1, 6, 5) and of(PICTURES, size=4, channels=1).shape == (1, 4, 4)


def test_values_are_questioned(capsys):
    unit = PICTURES / 255
    assert torch.allclose(of(unit).x, 2 * unit - 1) and "taken for [0, 1]" in capsys.readouterr().err
    assert torch.equal(of(unit / 2 + 0.2).x, unit / 2 + 0.2) and capsys.readouterr().err == ""  # might be anything in [−1, 1]
    digits = PICTURES % 17
    assert of(digits, values=(0, 16)).x.aminmax() == (-1, 1)
    low = (PICTURES.float() - 128) / 64
    assert torch.allclose(of(low, values=(-2, 2)).x, low / 2)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (PICTURES % 17, r"from 0 to 16 would be nearly black .* values=\(low, high\), .*, here \(0, 16\)"),
        (PICTURES % 2, "from 0 to 1 would be nearly black"),
        (PICTURES.float(), r"0 … 255 as floats\?"),
        (PICTURES.float() / 64 - 2, r"standardised pictures\?"),
        (PICTURES.long() * 16, "must be in 0 … 255, got values from 0 to 4080"),
        (torch.zeros(5, 20, 20, 4), r"looks like \[N, H, W, 4\]"),
        (PICTURES == 3, "images of torch.bool"),
        (torch.full((5, 1, 4, 4), torch.nan), "5 of 5 images hold NaN"),
        (torch.where(X[3, 2] == X, torch.nan, X), "1 of 300 rows hold NaN or infinity, first in row 3, column x2"),
        (X[:, 0], r"vectors are \[N, D\], so of one column give x\[:, None\]"),
        (X[:0], r"no side of 0, got \[0, 4\]"),
        (X.to(torch.complex64), "complex numbers"),
        (np.array([["a", "b"]]), "examples must be numbers"),
        (X[None, None, None], r"must have the shape \[N, D\]"),
        ((X, Y[:5]), "labels must be 300 integers"),
        ((X, torch.eye(3)[Y]), r"one-hot labels give label.argmax\(1\)"),
        ((X, Y - 1), "labels must be in 0 … K−1, got values from -1 to 1"),
        ((X, X[:, 0]), "labels must be whole numbers or text"),
        ((X, torch.arange(300) * 7), "look like identifiers"),
        ((X, np.where(Y.numpy() == 1, "", "a")), "100 of 300 labels are missing"),
        (None, "NoneType is nothing that examples can be taken from"),
        (3, "int is nothing that examples"),
        ("mons", "did you mean 'moons'"),
        ({"z": X}, "has the keys z; x must be called one of"),
        (Items(lambda i: (X[i], 1, 2)), "has 3 parts, need x or"),
        (Items(lambda i: X[0, 0]), "need vectors"),
        (Items(lambda i: X[i, : 1 + i % 2]), "make no batch"),
        (Items(lambda i: X[i], 0), "is empty"),
    ],
)
def test_what_cannot_be_meant_is_refused(x, words):
    with pytest.raises(InputError, match=words):
        of(x)


def test_what_does_not_fit_into_memory_says_how_many_rows_do():
    with pytest.raises(InputError, match=r"40 rows of \[3, 6, 5\]\), over the bound of .* give 11 rows at most"):
        of(Items(lambda i: PICTURES[i]), most_bytes=1000)


def test_images_take_arrays_and_lists():
    images = Images(np.zeros((4, 1, 3, 3), np.float32), [0, 1, 0, 1])
    assert images.label.tolist() == [0, 1, 0, 1] and images.classes == ("0", "1")


# --- the contract of a Data


def trained(data, **fields):
    model = tw.method("short_run/latent", data=data, batch=32, images=64, steps=2, **fields)
    return tw.fit(model, data, progress=False)


@pytest.mark.parametrize(
    "wrap", [Batch, lambda x: Batch(x.double()), lambda x: Batch(x.numpy()), lambda x: (x, None), lambda x: x, lambda x: [x.half()]]
)
def test_batches_are_brought_to_the_contract(wrap):
    seen = of(Mine(X, wrap)).batch(0, 8, 0)
    assert isinstance(seen, Batch) and seen.x.dtype == torch.float32 and torch.allclose(seen.x, X[:8], atol=1e-3)
    assert torch.isfinite(trained(Mine(X, wrap)).energy(X)).all()


@pytest.mark.parametrize(
    ("wrap", "words"),
    [
        (lambda x: Batch(x[:, :3]), r"gives x of shape \[32, 3\], but its shape says \[32, 4\]"),
        (lambda x: Batch(x[:5]), r"shape \[5, 4\]"),
        (lambda x: Batch(x.masked_fill(x == x[3, 2], torch.nan)), "1 of 32 examples of a batch hold NaN"),
        (lambda x: Batch(x / 0), "32 of 32 examples"),
        (lambda x: Batch(x.tolist()), "the x of a batch is a list"),
        (lambda x: None, "the x of a batch is a NoneType"),
        (lambda x: (x, None, None), "has 3 parts"),
        (lambda x: Batch(x > 0), "holds torch.bool"),
        (lambda x: Batch(x, x[:, 0]), "labels of a batch must be whole numbers"),
    ],
)
def test_batches_that_break_it_are_refused_before_anything_is_written(wrap, words, tmp_path):
    data = Mine(X, wrap)
    with pytest.raises(InputError, match=words):
        tw.fit(tw.method("short_run/latent", data=data, batch=32, images=64), data, tmp_path / "run", progress=False)
    assert not list(tmp_path.iterdir())


def test_an_object_that_lacks_a_part_is_told_which():
    with pytest.raises(InputError, match="no name and no shape and no classes; a Data has"):
        of(type("Half", (), {"batch": lambda *a: None})())
    with pytest.raises(InputError, match="3 classes, but its batches no labels"):
        of(type("Named", (Mine,), {"classes": ("a", "b", "c")})(X)).batch(0, 4, 0)


def test_a_column_in_thousands_is_named(capsys):
    wide = X.clone()
    wide[:, 2] *= 1e4
    model = tw.method("short_run/latent", data=Mine(wide), batch=32, images=32, steps=1, lr=1e-9)
    with pytest.raises(tw.Diverged):
        tw.fit(model, Mine(wide), progress=False, tries=1)
    assert "values up to" in (said := capsys.readouterr().err) and "tw.data.Table(x) standardises" in said
    assert torch.isfinite(trained(wide).energy(wide)).all()


# --- as the design page has them


@pytest.mark.parametrize("data", [X, X.numpy(), (X, Y), DataLoader(TensorDataset(X, Y), 64), "moons"], ids=lambda data: type(data).__name__)
def test_the_doors_of_the_design_page(data, tmp_path):
    model = tw.fit(tw.method("short_run/latent", data=data, batch=32, images=64, steps=2), data, out=tmp_path / "a", progress=False)
    again = tw.load(tmp_path / "a")
    x = model.sample(5, seed=1)
    assert x.shape == (5, *model.config.shape) and torch.equal(again.sample(5, seed=1), x)
    assert torch.equal(again.energy(x), model.energy(x))


def test_a_model_knows_the_units_of_its_data(tmp_path):
    own = X * torch.tensor([1.0, 1e4, 1e-3, 1.0]) + torch.tensor([0.0, 5e5, 0.0, -7.0])
    data = of(own, columns=("a", "b", "c", "d"))
    model = trained(data)
    assert model.sample(500, steps=50).std(0).div(own.std(0)).log().abs().max() < 0.7
    assert torch.allclose(model.energy(own), model.method.energy(data.x) + own.std(0, correction=0).log().sum(), rtol=1e-4)
    tw.save(model, tmp_path / "export")
    again = tw.load(tmp_path / "export")
    assert torch.equal(again.energy(own), model.energy(own)) and again.units.columns == ("a", "b", "c", "d")
    with pytest.raises(InputError, match=r"is of vectors \[B, 4\], got \[300, 2\]"):
        again.energy(own[:, :2])


def test_held_out_rows_are_seen_in_the_units_of_training(tmp_path):
    own = X * torch.tensor([1.0, 1e4, 1e-3, 1.0]) + torch.tensor([0.0, 5e5, 0.0, -7.0])
    train, test = own[:200], own[200:]
    rows = []
    for number, held_out in enumerate([test, (test, None), Table(test), Batch(of(train).encode(test))]):
        model = tw.method("short_run/latent", data=train, batch=32, images=64, steps=2)
        tw.fit(model, train, tmp_path / str(number), held_out=held_out, progress=False)
        rows.append([row["criterion"] for row in read_stats(tmp_path / str(number)) if "criterion" in row])
    assert len(rows[0]) > 0 and all(torch.allclose(torch.tensor(row), torch.tensor(rows[0]), rtol=1e-4) for row in rows)


def test_a_run_on_a_table_goes_on_and_knows_other_data(tmp_path):
    fields = dict(batch=32, steps=2)
    whole = tw.fit(tw.method("short_run/latent", data=X, images=192, **fields), X, tmp_path / "whole", progress=False)
    for images in (96, 192):
        part = tw.fit(tw.method("short_run/latent", data=X, images=192, **fields), X, tmp_path / "part", images=images, progress=False)
    assert torch.equal(whole.energy(X), part.energy(X))
    data = of(X)
    assert tw.fit(tw.method("short_run/latent", data=data, images=64, **fields), data, progress=False).units is not data.units
    with pytest.raises(InputError, match="other data"):
        tw.fit(tw.method("short_run/latent", data=X, images=192, **fields), X * 2 + 1, tmp_path / "part", progress=False)


def test_an_extractor_takes_what_the_door_takes():
    from thalweg.evaluate import ExtractorConfig, extractor

    label = torch.arange(40) % 2
    config = ExtractorConfig(images=64, batch=16, width=8)
    given = [(PICTURES.numpy(), label.numpy()), TensorDataset(PICTURES, label), Images(PICTURES, label)]
    nets = [extractor((one, one), name="mine", config=config, cache=False) for one in given]
    features = [net.features(of(PICTURES).all().x) for net in nets]
    assert all(torch.equal(one, features[0]) for one in features)


def test_an_empty_name_is_not_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tw.plot.grid(torch.zeros(1, 1, 8, 8), tmp_path / "picture.png")
    with pytest.raises(InputError, match="data are needed"):
        tw.method("egc/digits", data="")
