"""The autoencoder and the latent space it makes: its loss by hand, its scales, loading by name, data as latents, diffusers."""

import json
import math
import resource
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch

import thalweg as tw
from thalweg import latent, random
from thalweg.data import Images
from thalweg.data.base import Batch
from thalweg.data.latent import Latents, encode_share
from thalweg.data.record import fingerprint
from thalweg.data.shards import Shards
from thalweg.data.stream import Stream
from thalweg.errors import InputError
from thalweg.nn.autoencoder import Decoder, Encoder, latent_shape

SMALL = {"widths": (16, 16), "latent_channels": 2, "batch": 32, "warm_up": 10, "lr": 1e-2, "ema": 0.9}


def tensor(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32):
    return random.uniform(*shape, low=-1.0, high=1.0, generator=random.seeded(17, seed), dtype=dtype)


def small(**fields):
    return tw.method("autoencoder/fashion-mnist", data=tw.data.load("digits"), seed=0, **(SMALL | fields))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small autoencoder of digits and its run folder."""
    out = tmp_path_factory.mktemp("autoencoder") / "run"
    return tw.fit(small(images=32 * 150), tw.data.load("digits"), out=out, progress=False), str(out)


class Recorder:
    """An `update` that keeps losses and takes no step."""

    def __init__(self) -> None:
        self.generator, self.updates, self.loss, self.logged = random.seeded(5), 0, None, {}

    def __call__(self, name, loss) -> None:
        assert name == "autoencoder"
        self.loss, self.updates = loss, self.updates + 1

    def log(self, **values) -> None:
        self.logged.update(values)

    def mean(self, value):
        return value


class Half:
    """An autoencoder of every second pixel."""

    latent_shape = (1, 4, 4)

    def encode(self, x):
        return 3 * x[:, :, ::2, ::2]

    def decode(self, z):
        return (z / 3).repeat_interleave(2, 2).repeat_interleave(2, 3)


# --- networks


@pytest.mark.parametrize(("shape", "widths", "wanted"), [((1, 28, 28), (8, 8, 8), (4, 7, 7)), ((3, 64, 64), (4, 8, 8), (4, 16, 16)),
                                                         ((3, 8, 16), (8,), (4, 8, 16)), ((2, 8, 4), (4, 8), (4, 4, 2))])  # fmt: skip
def test_shapes_of_the_networks(shape, widths, wanted):
    assert latent_shape(shape, 4, widths) == wanted
    mean, log_variance = Encoder(shape[0], 4, widths=widths)(tensor(2, *shape))
    assert mean.shape == log_variance.shape == (2, *wanted)
    assert Decoder(shape[0], 4, widths=widths)(mean).shape == (2, *shape)


def test_no_image_depends_on_its_batch_and_all_weights_matter():
    torch.manual_seed(0)
    encoder, decoder = Encoder(1, 2, widths=(4, 8)).double(), Decoder(1, 2, widths=(4, 8)).double()
    with torch.no_grad():
        for i, p in enumerate((*encoder.parameters(), *decoder.parameters())):  # the last layers of residual blocks start at zero
            p.add_(0.1 * tensor(*p.shape, seed=i, dtype=torch.float64))
    x = tensor(3, 1, 8, 8, dtype=torch.float64)
    mean, log_variance = encoder(x)
    together = decoder(mean)
    torch.testing.assert_close(decoder(encoder(x[1:2])[0]), together[1:2], rtol=1e-10, atol=1e-12)
    total = (together * tensor(*together.shape, seed=70, dtype=torch.float64)).sum() + log_variance.square().sum()
    gradients = torch.autograd.grad(total, [*encoder.parameters(), *decoder.parameters()])
    assert all(float(g.abs().max()) > 0 for g in gradients)


# --- the method


@pytest.mark.parametrize("reconstruction", ["l1", "mse"])
def test_the_loss_is_the_evidence_bound_of_torch_distributions(reconstruction):
    m, update, x = small(reconstruction=reconstruction, kl_weight=0.3), Recorder(), tensor(16, 1, 8, 8)
    m.step(Batch(x), update)
    mean, log_variance = m.encoder(x)
    posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    kl = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).flatten(1).sum(1)
    epsilon = random.normal_like(mean, random.seeded(5))
    rebuilt = m.decoder(mean + posterior.stddev * epsilon)
    compare = torch.nn.functional.l1_loss if reconstruction == "l1" else torch.nn.functional.mse_loss
    torch.testing.assert_close(update.loss, compare(rebuilt, x) + 0.3 * kl.mean() / 64, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(update.logged["kl"], kl, rtol=1e-4, atol=1e-5)


def test_running_moments_are_those_of_the_posterior_means():
    m, update, x = small(), Recorder(), tensor(64, 1, 8, 8)
    m.step(Batch(x), update)
    mean = m.encoder(x)[0]
    torch.testing.assert_close(m.latent_mean.flatten(), mean.mean((0, 2, 3)))
    torch.testing.assert_close(m.latent_std.flatten(), mean.std((0, 2, 3), correction=0), rtol=1e-4, atol=1e-6)
    z = m.encode(x)
    torch.testing.assert_close(z.std((0, 2, 3), correction=0), torch.ones(2), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(2), rtol=0, atol=1e-4)
    before, update.updates = m.latent_mean.clone(), 499  # later updates move them by one hundredth
    other = tensor(64, 1, 8, 8, seed=1).abs()
    m.step(Batch(other), update)
    wanted = 0.99 * before.flatten() + 0.01 * m.encoder(other)[0].mean((0, 2, 3))
    torch.testing.assert_close(m.latent_mean.flatten(), wanted.detach())


def test_encode_and_decode_use_the_same_scale():
    m, x = small(), tensor(4, 1, 8, 8)
    plain = m.decoder(m.encoder(x)[0]).clamp(-1, 1)
    first = m.encode(x)
    m.latent_mean.fill_(0.5)
    m.latent_square.fill_(4.25)  # deviation 2
    torch.testing.assert_close(m.encode(x), (first - 0.5) / 2, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(m.reconstruct(x), plain, rtol=1e-4, atol=1e-5)


def test_training_on_digits_reconstructs_unseen_ones(trained):
    m, test = trained[0], tw.data.load("digits", "test").all()
    mean_image = tw.data.load("digits").all().x.mean(0)
    blind = float((test.x - mean_image).square().mean())  # what the best constant image leaves
    error = m.criterion(test, random.seeded(0))
    assert error == pytest.approx(float((m.reconstruct(test.x) - test.x).square().mean()), rel=1e-5)
    assert small().criterion(test, random.seeded(0)) > 0.9 * blind > 4 * error
    z = m.encode(tw.data.load("digits").all().x)
    assert z.shape[1:] == m.latent_shape == (2, 4, 4)
    # the running mean looks back over updates in which the encoder still moved
    torch.testing.assert_close(z.std((0, 2, 3)), torch.ones(2), rtol=0, atol=0.15)
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(2), rtol=0, atol=0.15)


def test_samples_are_decoded_normal_latents(trained):
    m = trained[0]
    x = m.sample(300, seed=3)
    assert x.shape == (300, 1, 8, 8) and float(x.abs().max()) <= 1
    z = random.normal(300, 2, 4, 4, generator=random.seeded(3, 1))
    torch.testing.assert_close(x, m.decode(z), rtol=1e-5, atol=1e-5)
    assert not torch.equal(x, m.sample(300, seed=4))


def test_there_is_no_energy():
    assert not hasattr(small(), "energy")


BAD_METHOD = {
    "sides": (lambda: tw.method("autoencoder/fashion-mnist", shape=(1, 30, 28)), "height and width must divide by 4, got 30×28"),
    "points": (lambda: tw.method("autoencoder/fashion-mnist", shape=(2,)), r"for images \[C, H, W\], got shape \(2,\)"),
    "loss": (lambda: small(reconstruction="l2"), "reconstruction = 'l2'"),
    "kl": (lambda: small(kl_weight=-1.0), "kl_weight = -1.0"),
    "shape": (lambda: small().encode(tensor(2, 1, 8, 9)), r"needs images \[B, 1, 8, 8\], got \[2, 1, 8, 9\]"),
    "range": (lambda: small().encode(2 * torch.ones(2, 1, 8, 8)), r"finite and in \[−1, 1\], got values from 2 to 2"),
    "nan": (lambda: small().encode(torch.full((2, 1, 8, 8), math.nan)), r"finite and in \[−1, 1\]"),
    "latents": (lambda: small().decode(tensor(2, 3, 4, 4)), r"needs latents \[B, 2, 4, 4\], got \[2, 3, 4, 4\]"),
    "infinite": (lambda: small().decode(torch.full((2, 2, 4, 4), math.inf)), "latents to decode hold NaN or infinity"),
}


@pytest.mark.parametrize(("call", "message"), BAD_METHOD.values(), ids=BAD_METHOD)
def test_wrong_input_to_the_method(call, message):
    with pytest.raises(InputError, match=message):
        call()


# --- data as latents


def test_latents_are_the_encoded_stream():
    images = Images(tensor(600, 1, 8, 8), torch.arange(600) % 3, ("a", "b", "c"), name="some")
    data = Latents(images, Half())
    assert (data.shape, data.classes, len(data), data.name) == ((1, 4, 4), ("a", "b", "c"), 600, "latents of some")
    x, label = data.all()
    assert torch.equal(x, Half().encode(images.x)) and torch.equal(label, images.label)
    assert float(x.abs().max()) > 1 and x.dtype == torch.float32  # not clamped
    for start, count in ((0, 10), (590, 30), (1199, 1), (37, 1300)):
        z, y = data.batch(start, count, seed=4)
        whole = images.batch(start, count, seed=4)
        assert torch.equal(z, Half().encode(whole.x)) and torch.equal(y, whole.label)
    assert not torch.equal(data.batch(0, 10, seed=5).x, data.batch(0, 10, seed=4).x)
    assert Latents(Images(tensor(3, 1, 8, 8)), Half()).batch(0, 2, seed=0).label is None


def test_latents_of_sets_that_cannot_be_cut_and_of_several_labels():
    stacked = tw.data.load("stacked-digits", "validation")
    x, label = Latents(stacked, Half()).all()
    assert torch.equal(x, Half().encode(stacked.all().x)) and torch.equal(label, stacked.label)
    concepts = {"digit": ("0", "1"), "colour": ("red", "blue")}
    images = Images(tensor(300, 1, 8, 8), torch.stack([torch.arange(300) % 2, 2 + torch.arange(300) // 150], 1), concepts=concepts)
    data = Latents(images, Half())
    assert data.concepts == images.concepts and data.classes == images.classes and torch.equal(data.all().label, images.label)


class Module(torch.nn.Module):
    """The same as a module, as what is loaded by name is, with a weight; it counts what it encodes."""

    def __init__(self, scale: float = 2.0) -> None:
        super().__init__()
        self.weight, self.encoded = torch.nn.Parameter(torch.tensor(scale)), 0

    def encode(self, x):
        self.encoded += len(x)
        return self.weight * x[:, :, ::2, ::2]


def on_disk(images, folder, *, size: int = 1, views: int = 1, module=None) -> tuple[Latents, Module]:
    """Latents as so many processes encode them, one after the other."""
    module = module or Module()
    for rank in range(size):
        stored = encode_share(images, module, folder, views=views, rank=rank, size=size)
    return Latents(images, module, views=views, stored=stored.open()), module


def test_latents_on_disk_are_those_in_memory_and_are_encoded_once(tmp_path):
    images = Images(tensor(2500, 1, 8, 8), torch.arange(2500) % 3, ("a", "b", "c"), name="some")
    held, (data, module) = Latents(images, Module()), on_disk(images, tmp_path, size=2)
    assert isinstance(data.x, Shards) and data.x.count == 1 and module.encoded == 2500 + 2, "one image a process tells the shape"
    assert data.shape == held.shape and data.fingerprint == held.fingerprint == fingerprint(images)
    for start, count in ((0, 10), (2490, 30), (37, 2600)):
        for one, other in zip(data.batch(start, count, seed=4), held.batch(start, count, seed=4)):
            assert torch.equal(one, other)
    assert torch.equal(data.all().x, held.x) and torch.equal(data.subset(torch.tensor([7, 3])).all().x, held.x[[7, 3]])
    _, module = on_disk(images, tmp_path)
    assert module.encoded == 1, "they are there"
    for other in (dict(module=Module(3.0)), dict(views=2), dict(images=images.resized(16)), dict(images=images.subset(torch.arange(99)))):
        folder = on_disk(**({"images": images, "folder": tmp_path} | other))[0].x.folder
        assert folder != data.x.folder and folder.parent == tmp_path


def test_latents_of_a_stream_are_those_of_its_pictures(tmp_path):
    x = torch.randint(256, (300, 1, 8, 8), dtype=torch.uint8)
    stream = Stream(lambda row: x[row], 300, torch.arange(300) % 2, name="some", content=("these",))
    (data, _), held = on_disk(stream, tmp_path, size=2, views=2), Latents(Images(x, torch.arange(300) % 2), Module(), views=2)
    assert torch.equal(data.batch(290, 20, 1).x, held.batch(290, 20, 1).x) and torch.equal(data.all().label, held.all().label)
    assert (data.fingerprint, data.read) == (stream.fingerprint, " --latent-views 2"), "latents need no windows"


def test_each_process_encodes_its_share_and_a_torn_shard_is_encoded_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("thalweg.data.shards.MOST_BYTES", 1)  # 1,024 rows a shard
    images = Images(tensor(2500, 1, 8, 8), name="some")
    first = Module()
    shards = encode_share(images, first, tmp_path, rank=1, size=2)
    assert first.encoded == 1 + 1024 and [shards.is_whole(number) for number in range(3)] == [False, True, False]
    with pytest.raises(InputError, match="lacks 2 of 3 shards: all processes must see this folder"):
        shards.open()
    data, _ = on_disk(images, tmp_path, size=2)
    rows = data.x.folder / "rows.f32"
    content = rows.read_bytes()
    torn = {
        "a byte": lambda: rows.write_bytes(content[:-1] + bytes([content[-1] ^ 1])),
        "the end": lambda: rows.write_bytes(content[:-100]),
        "a mark": lambda: (data.x.folder / "shard-00002").write_text("12"),
    }
    for tear in torn.values():
        tear()
        _, module = on_disk(images, tmp_path)
        assert module.encoded == 1 + 2500 - 2048 and rows.read_bytes() == content
        assert "shard 2 is torn; it is made anew" in capsys.readouterr().err
    rows.unlink()
    left = data.x.folder / "shard-00001.77.partial"  # of a process that was killed as it wrote a mark
    left.write_text("")
    assert on_disk(images, tmp_path)[1].encoded == 1 + 2500 and rows.read_bytes() == content and not left.exists()


def test_latents_that_cannot_be_written_are_told_and_nothing_half_is_left(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    images = Images(tensor(600, 1, 8, 8), name="some")
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # as a disk that is full
        with pytest.raises(InputError, match=r"cannot write .*rows\.f32: .*the same command goes on from it"):
            encode_share(images, Module(), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.rglob("shard-*"))
    assert torch.equal(on_disk(images, tmp_path)[0].all().x, Module().encode(images.x))


def test_views_are_mirror_images_and_windows_one_at_random_a_batch(tmp_path):
    images = Images(tensor(40, 1, 16, 16), name="some")
    held, (data, _) = Latents(images, Module(), views=4), on_disk(images, tmp_path, views=4)
    x = data.x[torch.arange(160)].view(4, 40, 1, 8, 8)
    assert torch.equal(x.flatten(0, 1), held.x) and (len(data), data.read) == (40, " --latent-views 4")
    assert torch.equal(x[0], Module().encode(images.x)) and torch.equal(x[1], Module().encode(images.x.flip(3)))
    assert float((x[2] - x[0]).abs().mean()) > 0.1 and float((x[3] - x[2]).abs().mean()) > 0.1
    smooth = Images(torch.linspace(-1, 1, 16).expand(40, 1, 16, 16), name="ramp")  # lighter to the right
    ramp = Latents(smooth, Module(), views=4).x.view(4, 40, 1, 8, 8)
    rises = (ramp[..., 1:] - ramp[..., :-1]).mean((2, 3, 4))
    assert (rises[[0, 2]] > 0).all() and (rises[[1, 3]] < 0).all(), "every second view is mirrored"
    torch.testing.assert_close(rises[2], rises[0] * 7 / 8, rtol=0.1, atol=0)
    batch = torch.cat([data.batch(epoch * 40, 40, seed=1).x for epoch in range(20)])
    seen = torch.cdist(batch.flatten(1), held.x.flatten(1)).argmin(1)
    assert torch.equal(held.x[seen], batch) and torch.equal(torch.cat([data.batch(0, 13, 1).x, data.batch(13, 27, 1).x]), batch[:40])
    assert all(sorted(rows.tolist()) == list(range(40)) for rows in (seen % 40).split(40))
    counts = (seen // 40).bincount()
    assert ((counts - 200).abs() < 5 * math.sqrt(800 * 3 / 16)).all(), counts
    for wrong in (0, -1):
        with pytest.raises(InputError, match="one view is encoded at least"):
            Latents(images, Module(), views=wrong)


def test_a_run_goes_on_with_the_same_views_only(trained, tmp_path):
    digits, fields = tw.data.load("digits"), dict(net="mlp", width=8, buffer=64, batch=64, images=64, steps=1, sample_steps=1)
    for views in (2, 1):
        data = latent.wrap(digits, trained[1], views=views, folder=tmp_path / "latents")
        method = tw.method("short_run/digits", data=data, **fields)
        if views == 2:
            tw.fit(method, data, out=tmp_path / "run", progress=False)
        else:
            with pytest.raises(InputError, match=r"of \[2, 4, 4\]\) --latent-views 2, and these are other data, digits \(1259"):
                tw.fit(method, data, out=tmp_path / "run", progress=False)


class Broken(Half):
    def encode(self, x):
        return torch.where(torch.arange(len(x))[:, None, None, None] == 1, math.nan, super().encode(x))


BAD_DATA = {
    "toy": (lambda: Latents(tw.data.toy("moons"), Half()), "moons is a stream"),
    "vectors": (
        lambda: Latents(SimpleNamespace(name="rows", shape=(3,), all=lambda: None), Half()),
        r"rows has examples of shape \[3\]",
    ),
    "nan": (lambda: Latents(Images(tensor(3, 1, 8, 8)), Broken()), "latents of 1 of 3 images hold NaN"),
    "flat": (
        lambda: Latents(Images(tensor(3, 1, 8, 8)), SimpleNamespace(encode=lambda x: x.flatten(1))),
        r"must be \[3, c, h, w\], the encoder gives \[3, 64\]",
    ),
    "start": (lambda: Latents(Images(tensor(3, 1, 8, 8)), Half()).batch(-1, 2, seed=0), "start ≥ 0 and count ≥ 1"),
    "count": (lambda: Latents(Images(tensor(3, 1, 8, 8)), Half()).batch(0, 0, seed=0), "start ≥ 0 and count ≥ 1"),
}


@pytest.mark.parametrize(("call", "message"), BAD_DATA.values(), ids=BAD_DATA)
def test_wrong_data(call, message):
    with pytest.raises(InputError, match=message):
        call()


# --- by name


def test_a_run_and_an_export_load_by_name(trained, tmp_path):
    m, run = trained
    x = tw.data.load("digits", "test").all().x
    exported = tw.save_pretrained(m, tmp_path / "exported")
    for name in (run, exported):
        loaded = latent.load_autoencoder(name)
        assert loaded.latent_shape == (2, 4, 4) and not any(p.requires_grad for p in loaded.parameters()) and not loaded.training
        assert torch.equal(loaded.encode(x), m.encode(x))
        assert torch.equal(loaded.decode(m.encode(x)), m.reconstruct(x))


def test_a_method_lives_in_latent_space(trained):
    m, run = trained
    digits = tw.data.load("digits")
    data = latent.wrap(digits, run)
    assert torch.equal(data.batch(0, 8, seed=1).x, m.encode(digits.batch(0, 8, seed=1).x))
    fields = dict(net="mlp", width=16, buffer=64, batch=64, images=64, steps=2, sample_steps=2)
    model = tw.fit(tw.method("short_run/digits", data=data, **fields), data, progress=False)
    z = model.sample(5, seed=0)
    assert z.shape == (5, 2, 4, 4)
    x = latent.decoder(run)(z)
    assert x.shape == (5, 1, 8, 8) and float(x.abs().max()) <= 1
    torch.testing.assert_close(x, m.decode(z))


def test_a_model_of_latents_is_loaded_as_one_of_images(trained, tmp_path):
    """`tw.load` of a saved cdrl in latents: samples decoded, not clamped before; the energy that of the latents; classify for egc."""
    digits = tw.data.load("digits")
    data = latent.wrap(digits, trained[1])
    small_nets = {"net": {"width": 16}, "initializer": {"width": 16}, "steps": 2}
    inner = tw.method("cdrl/fashion-mnist-latent", data=data, autoencoder=trained[1], **small_nets)
    tw.save_pretrained(inner, tmp_path / "model")
    model, x = tw.load(tmp_path / "model"), digits.all().x[:6]
    assert tuple(model.config.shape) == (1, 8, 8) and tuple(inner.config.shape) == (2, 4, 4)
    z = inner.sample(6, seed=3)
    assert float(z.abs().max()) > 1, "latents are not confined to [−1, 1]"
    torch.testing.assert_close(model.sample(6, seed=3), trained[0].decode(z))
    torch.testing.assert_close(model.energy(x), inner.energy(trained[0].encode(x)))
    assert "classify" not in model.abilities
    egc = tw.method("egc/digits", data=data, autoencoder=trained[1], width=8, blocks=1)
    torch.testing.assert_close(latent.as_images(egc).classify(x), egc.classify(trained[0].encode(x)))
    assert latent.as_images(trained[0]) is trained[0], "what lives in no latent space stays as it is"


def said(folder) -> str:
    """All text of a folder."""
    return "".join(path.read_text() for path in sorted(folder.rglob("*")) if path.suffix in (".json", ".md"))


def test_an_export_of_a_model_of_latents_holds_its_autoencoder(trained, tmp_path, monkeypatch):
    m, run = trained
    data = latent.wrap(tw.data.load("digits"), run)
    inner = tw.method("egc/digits", data=data, autoencoder=str(run), width=8, blocks=1, levels=20, sample_steps=2)
    exported = tw.save(inner, tmp_path / "first" / "model")
    assert str(run) not in said(exported) and json.loads((exported / "config.json").read_text())["config"]["autoencoder"] == "./autoencoder"
    (tmp_path / "first").rename(tmp_path / "second")
    monkeypatch.setattr(latent, "_loaded", latent.load_autoencoder)  # not from memory
    again = tw.load(tmp_path / "second" / "model")
    wanted = m.decode(inner.sample(3, seed=1))
    torch.testing.assert_close(again.sample(3, seed=1), wanted)
    for place in (tmp_path / "third", tmp_path / "second" / "model"):  # once more, and into its own folder
        tw.save(again, place)
        assert str(tmp_path) not in said(place)
        torch.testing.assert_close(tw.load(place).sample(3, seed=1), wanted)


def test_the_decoder_follows_the_type_of_latents_and_is_loaded_once(trained, monkeypatch):
    m, run = trained
    z = random.normal(70, 2, 4, 4, generator=random.seeded(1))
    decode = latent.decoder(run)
    monkeypatch.setattr(latent, "load_autoencoder", lambda name: pytest.fail("loaded again"))
    again = latent.decoder(run)
    torch.testing.assert_close(again(z), m.decode(z), rtol=1e-5, atol=1e-5)
    for dtype in (torch.float64, torch.bfloat16):
        images = decode(z.to(dtype))
        assert images.dtype == dtype and not images.requires_grad
        tolerance = 1e-2 if dtype == torch.bfloat16 else 1e-5
        torch.testing.assert_close(images, m.decode(z.to(dtype).float()).to(dtype), rtol=1e-5, atol=tolerance)
    torch.testing.assert_close(decode(z), m.decode(z), rtol=1e-5, atol=1e-5)  # the weights have not been rounded


def test_an_empty_name_is_no_autoencoder():
    digits, z = tw.data.load("digits"), tensor(2, 3)
    assert latent.wrap(digits, "") is digits
    assert latent.decoder("")(z) is z


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    """Folders that are no autoencoder."""
    root = tmp_path_factory.mktemp("bad")
    tw.save_pretrained(tw.method("short_run/digits", net="mlp", buffer=128), root / "other")
    for name, kind in (("pickled", "AutoencoderKL"), ("unet", "UNet2DModel"), ("weightless", "AutoencoderKL")):
        (root / name).mkdir()
        (root / name / "config.json").write_text(json.dumps({"_class_name": kind}))
    (root / "pickled" / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x04.")
    (root / "empty").mkdir()
    (root / "torn").mkdir()
    (root / "torn" / "config.json").write_text("{")
    return root


BAD_NAMES = {
    "other": ("{}/other", "is a short_run, no autoencoder; train one"),
    "nothing": ("{}/nothing", "there is no folder"),
    "pickled": ("diffusers:{}/pickled", r"its weights as a pickle only \(diffusion_pytorch_model.bin\), which can execute code"),
    "unet": ("diffusers:{}/unet", "holds a UNet2DModel, not an AutoencoderKL"),
    "weightless": ("diffusers:{}/weightless", "has no weights: diffusion_pytorch_model.safetensors is missing"),
    "empty": ("diffusers:{}/empty", "has no config.json of a diffusers model"),
    "torn": ("diffusers:{}/torn", "has no config.json of a diffusers model"),
    "no folder": ("diffusers:{}/nothing", "there is no folder"),
    "no name": ("diffusers:", "needs a folder or a hub name behind it"),
    "one word": ("diffusers:vae", "there is no folder vae; a hub name is USER/MODEL"),
}


@pytest.mark.parametrize(("name", "message"), BAD_NAMES.values(), ids=BAD_NAMES)
def test_wrong_names(name, message, bad):
    with pytest.raises(InputError, match=message):
        latent.load_autoencoder(name.format(bad))


def test_images_of_another_shape_are_refused(trained):
    with pytest.raises(InputError, match=r"encode needs images \[B, 1, 8, 8\], got \[1, 1, 28, 28\]"):
        latent.wrap(tw.data.load("digits", size=28), trained[1])


# --- diffusers


class Linear(torch.nn.Module):
    """What `AutoencoderKL` shows of itself, with raw latents twice the pooled image, all four channels alike."""

    def __init__(self, **config) -> None:
        super().__init__()
        known = dict(in_channels=3, latent_channels=4, block_out_channels=(8, 16), sample_size=16, scaling_factor=0.25)
        self.config = SimpleNamespace(**(known | config))

    def encode(self, x):
        raw = 2 * torch.nn.functional.avg_pool2d(x.mean(1, keepdim=True), 2).expand(-1, 4, -1, -1)
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: raw))

    def decode(self, z):
        return SimpleNamespace(sample=(z.mean(1, keepdim=True) / 2).expand(-1, 3, -1, -1).repeat_interleave(2, 2).repeat_interleave(2, 3))


STD = [1.0, 2.0, 4.0, 5.0]
SCALES = {
    "factor": ({}, lambda raw: 0.25 * raw),
    "shift": ({"shift_factor": 0.5}, lambda raw: 0.25 * (raw - 0.5)),
    "per channel": (
        {"latents_mean": [0.1, 0.2, 0.3, 0.4], "latents_std": STD},
        lambda raw: 0.25 * (raw - torch.tensor([0.1, 0.2, 0.3, 0.4])[:, None, None]) / torch.tensor(STD)[:, None, None],
    ),
}


@pytest.mark.parametrize(("config", "scaled"), SCALES.values(), ids=SCALES)
def test_scales_of_a_diffusers_config(config, scaled):
    model, x = Linear(**config), tensor(2, 3, 8, 12)
    wrapped = latent.Diffusers(model)
    assert wrapped.latent_shape == (4, 8, 8)
    raw = model.encode(x).latent_dist.mode()
    torch.testing.assert_close(wrapped.encode(x), scaled(raw))
    torch.testing.assert_close(wrapped.decode(wrapped.encode(x)), model.decode(raw).sample)
    assert float(wrapped.decode(torch.full((1, 4, 2, 2), 100.0)).max()) == 1.0


BAD_DIFFUSERS = {
    "grey": (lambda w: w.encode(tensor(2, 1, 8, 8)), r"needs images \[B, 3, H, W\], got \[2, 1, 8, 8\]; load data with channels=3"),
    "odd": (lambda w: w.encode(tensor(2, 3, 8, 9)), "sides that divide by 2, got 8×9"),
    "range": (lambda w: w.encode(3 * torch.ones(1, 3, 8, 8)), "got values from 3 to 3"),
    "latents": (lambda w: w.decode(tensor(2, 3, 4, 4)), r"needs latents \[B, 4, h, w\]"),
    "nan": (lambda w: w.decode(torch.full((1, 4, 2, 2), math.nan)), "hold NaN or infinity"),
}


@pytest.mark.parametrize(("call", "message"), BAD_DIFFUSERS.values(), ids=BAD_DIFFUSERS)
def test_wrong_input_to_a_wrapped_model(call, message):
    with pytest.raises(InputError, match=message):
        call(latent.Diffusers(Linear()))


def test_without_diffusers_the_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKL"}))
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(InputError, match=r"pip install 'thalweg\[latent\]'"):
        latent.load_autoencoder(f"diffusers:{tmp_path}")


@pytest.fixture(scope="module")
def kl(tmp_path_factory):
    """A small AutoencoderKL with random weights, and its folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of importing diffusers
        from diffusers import AutoencoderKL
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        blocks = dict(down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2)
        model = AutoencoderKL(block_out_channels=(8, 16), norm_num_groups=4, latent_channels=4, sample_size=16, **blocks).eval()
    folder = tmp_path_factory.mktemp("kl") / "vae"
    model.save_pretrained(folder)
    return model, folder


def test_an_autoencoder_of_diffusers_loads_by_path(kl):
    model, folder = kl
    loaded, x = latent.load_autoencoder(f"diffusers:{folder}"), tensor(3, 3, 16, 16)
    assert loaded.latent_shape == (4, 8, 8) and not any(p.requires_grad for p in loaded.parameters())
    with torch.no_grad():
        raw = model.encode(x).latent_dist.mean
        images = model.decode(raw).sample
    z = loaded.encode(x)
    assert z.shape == (3, 4, 8, 8)
    torch.testing.assert_close(z, raw * 0.18215)
    torch.testing.assert_close(loaded.decode(z), images.clamp(-1, 1), rtol=1e-4, atol=1e-5)
    data = latent.wrap(tw.data.load("digits", "validation", size=16, channels=3), f"diffusers:{folder}")
    assert data.shape == (4, 8, 8) and latent.decoder(f"diffusers:{folder}")(data.x[:2]).shape == (2, 3, 16, 16)
    (folder.parent / "model_index.json").write_text("{}")  # now a whole pipeline
    assert torch.equal(latent.load_autoencoder(f"diffusers:{folder.parent}").encode(x), z)


def test_torn_or_missing_weights_of_diffusers_are_refused(kl, tmp_path):
    from safetensors.torch import load_file, save_file

    _, folder = kl
    name = "diffusion_pytorch_model.safetensors"
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    (tmp_path / name).write_bytes((folder / name).read_bytes()[:1000])
    with pytest.raises(InputError, match="diffusers cannot load an AutoencoderKL from"):
        latent.load_autoencoder(f"diffusers:{tmp_path}")
    tensors = load_file(folder / name)
    tensors.pop("decoder.conv_out.bias")
    save_file(tensors, tmp_path / name, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"1 are missing, such as decoder\.conv_out\.bias"):
        latent.load_autoencoder(f"diffusers:{tmp_path}")


def test_an_export_in_latents_of_diffusers_holds_them(kl, tmp_path):
    folder = kl[1]
    inner = tw.method("egc/digits", shape=(4, 8, 8), classes=0, autoencoder=f"diffusers:{folder}", width=8, blocks=1, sample_steps=2)
    exported = tw.save(inner, tmp_path / "first")
    assert str(folder) not in said(exported) and "diffusers:./autoencoder" in said(exported)
    exported = exported.rename(tmp_path / "second")
    x = tw.load(exported).sample(2, seed=1)
    torch.testing.assert_close(x, latent.as_images(inner).sample(2, seed=1))
