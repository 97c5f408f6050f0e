"""Data as models take them: the size of the config's own data, height and width, other data, both domains, views, the held-out batch."""

from types import SimpleNamespace

import pytest
import torch

import thalweg as tw
from thalweg.config import DataNeeds
from thalweg.data import load
from thalweg.data.images import convert
from thalweg.data.prepare import HELD_OUT, everything, held_out, image_size, prepare, sized
from thalweg.errors import InputError


def config(data: str, shape: tuple[int, ...], **needs) -> SimpleNamespace:
    return SimpleNamespace(data=data, shape=shape, data_needs=DataNeeds(**needs), **needs)


def test_the_config_s_own_data_come_at_its_size_others_at_their_own():
    c = config("digits", (1, 16, 16))
    assert prepare(c, "digits", "test").shape == (1, 16, 16) and prepare(c, "mnist-small", "test").shape == (1, 28, 28)
    assert prepare(c, "digits", "test", size=12).shape == (1, 12, 12)
    assert prepare(config("moons", (2,)), "moons", "train").shape == (2,)
    with pytest.raises(InputError, match="is a toy of points in the plane"):
        prepare(config("moons", (2,)), "moons", "train", size=8)


def test_height_and_width_need_not_be_equal():
    assert image_size((1, 8, 16)) == (8, 16) and image_size((3, 8, 8)) == 8 and image_size((2,)) is None
    c = config("paired-digits", (1, 8, 16))
    assert sized(c, "paired-digits", "test").shape == (1, 8, 16)
    assert torch.equal(sized(c, "paired-digits", "test").x, tw.data.load("paired-digits", "test").x)
    assert sized(config("digits", (1, 8, 12)), "digits", "test").shape == (1, 8, 12)


def test_images_cover_the_size_and_are_cut_in_the_middle():
    x = torch.arange(48.0).view(1, 1, 6, 8) / 48
    assert torch.equal(convert(x, (6, 4)), x[..., 2:6]) and torch.equal(convert(x, (4, 8)), x[:, :, 1:5])
    assert torch.equal(convert(x, (6, 8)), x) and torch.equal(convert(x, (6, 6)), convert(x, 6))
    for size in ((6,), (0, 4), (6, 2.5)):
        with pytest.raises(InputError, match=r"size must be a whole number of pixels, or \(height, width\), of at least 1"):
            convert(x, size)


def test_a_source_comes_in_the_target_s_shape():
    c = config("coloured-digits", (3, 8, 8), source="mnist-small")
    found = prepare(c, "coloured-digits", "train")
    batch = found.batch(0, 6, seed=1)
    assert found.shape == (3, 8, 8) and batch.source.shape == batch.x.shape == (6, 3, 8, 8)
    held = held_out(c, "coloured-digits")
    assert len(held.x) == len(held.source) == min(HELD_OUT, len(tw.data.load("mnist-small", "validation"))) and held.label is None


def test_the_held_out_batch():
    digits = held_out(config("digits", (1, 8, 8)), "digits")
    assert torch.equal(digits.x, tw.data.load("digits", "validation").all().x)
    assert len(held_out(config("moons", (2,)), "moons").x) == HELD_OUT
    assert (
        held_out(config("hf:a/b", (3, 8, 8)), "hf:a/b") is None and held_out(config("digits", (1, 8, 8), source="hf:a/b"), "digits") is None
    )
    with pytest.raises(InputError, match="views = 2 is for images of objects"):
        prepare(config("digits", (1, 8, 8), views=2), "digits", "train")


def test_images_for_latents_are_brought_to_the_size_that_the_latents_are_of(monkeypatch, tmp_path):
    """ImageNet's pictures differ in size; a preset of latents [4, 4, 4] of an autoencoder that takes 8 pixels to one needs 32×32."""
    from PIL import Image

    from thalweg import latent

    class Eighth(torch.nn.Module):
        def encode(self, x):
            return torch.nn.functional.avg_pool2d(x, 8)[:, [0, 1, 2, 0]]

        def decode(self, z):
            return torch.zeros(len(z), 3, 8 * z.shape[2], 8 * z.shape[3])

    monkeypatch.setattr(latent, "load_autoencoder", lambda name, device="cpu": Eighth())
    latent._loaded.cache_clear()
    for i in range(4):
        Image.new("RGB", (40 + i, 50)).save(tmp_path / f"{i}.png")
    name = f"{tmp_path}/"
    data = prepare(config(name, (4, 4, 4), autoencoder="eighth"), name, "train")
    assert tuple(data.shape) == (4, 4, 4)
    with pytest.raises(InputError, match="the pictures differ"):
        prepare(config("others", (4, 4, 4), autoencoder="eighth"), name, "train")
    latent._loaded.cache_clear()


def test_all_of_a_stream_is_read_where_it_fits_into_memory(monkeypatch, tmp_path):
    from PIL import Image

    for i in range(30):
        Image.new("L", (8, 8), i).save(tmp_path / f"{i:02}.png")
    stream, held = load(tmp_path, streaming=True), load(tmp_path)
    assert torch.equal(everything(stream).x, held.all().x)
    name = str(tmp_path)
    chosen = held_out(config(name, (1, 8, 8)), name, streaming=True, window=8)
    assert torch.equal(chosen.x, load(tmp_path, "validation").all().x)
    monkeypatch.setattr("thalweg.data.prepare.MOST_BYTES", 24 * 4 * 64 - 1)
    with pytest.raises(InputError, match=r"all 24 pictures of \[1, 8, 8\] take .* GiB in memory"):
        everything(stream)
