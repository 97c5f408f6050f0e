"""What a model is given: cast where that is safe, one InputError otherwise, the same for every method."""

import copy

import numpy as np
import pytest
import torch

import thalweg as tw
from thalweg.errors import InputError

SMALL = {
    "egc/digits": {"net.width": 8, "net.blocks": 1, "sample_steps": 3},
    "short_run/digits": {"net.widths": (8, 8), "buffer": 64, "batch": 32, "sample_steps": 3},
    "jem/digits": {},
    "cdrl/digits": {},
    "short_run/moons": {"net.width": 8},
}


@pytest.fixture(scope="module", params=SMALL)
def model(request):
    return tw.method(request.param, **SMALL[request.param]).eval()


def example(model, n=3):
    return torch.rand(n, *model.config.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_what_is_safe_is_cast(model):
    x = example(model)
    right = model.energy(x)
    for given in (x.double(), x.numpy(), x.double().numpy(), x.tolist(), x.requires_grad_(True)):
        assert torch.allclose(model.energy(given), right, rtol=1e-5, atol=1e-4)
    assert torch.allclose(model.energy(x=x), right, rtol=1e-5, atol=1e-4)


def test_other_shapes_and_values_are_one_message(model):
    x = example(model)
    shape = list(model.config.shape)
    for bad, message in (
        (x[0], r"give one example as a batch: x\[None\]"),
        (x[:0], "one example or more"),
        (torch.zeros(2, *(side + 1 for side in shape)), "energy needs"),
        (x.masked_fill(x == x.flatten()[0], torch.nan), "1 of 3 examples hold NaN or infinity"),
        (x.masked_fill(x == x.flatten()[0], torch.inf), "1 of 3 examples hold NaN or infinity"),
        ("moons", "needs a tensor or array"),
        (None, "needs a tensor or array"),
        ([[0.0], [1.0, 2.0]], "needs a tensor or array"),
        (x.to(torch.complex64), "needs floating-point"),
    ):
        with pytest.raises(InputError, match=message):
            model.energy(bad)
    if len(shape) == 3:
        for bad, message in (
            (((x + 1) * 127.5).byte(), r"x.float\(\) / 127.5 - 1"),
            ((x + 1) * 127.5, r"got values from .* x / 127.5 - 1"),
            (x.expand(-1, 3, -1, -1), r"needs images \[B, 1, 8, 8\], got \[3, 3, 8, 8\]"),
            (x.permute(0, 2, 3, 1), "channels come first"),
            (x > 0, "floating-point images"),
        ):
            with pytest.raises(InputError, match=message):
                model.energy(bad)


def test_samples_are_asked_for_by_whole_numbers(model):
    steps = {"steps": 2} if model.name != "cdrl" else {"steps": 1}
    right = model.sample(2, seed=3, **steps)
    assert torch.equal(model.sample(np.int64(2), seed=np.int64(3), **{k: np.int32(v) for k, v in steps.items()}), right)
    assert torch.equal(model.sample(n=torch.tensor(2), seed=3, **steps), right)
    for bad in (0, -1, 2.5, None, True, "4"):
        with pytest.raises(InputError, match="n must be a whole number, 1 or more"):
            model.sample(bad)
    for bad in (None, 1.5, "1", True):
        with pytest.raises(InputError, match="seed must be a whole number"):
            model.sample(2, seed=bad)
    with pytest.raises(InputError, match="steps must be a whole number"):
        model.sample(2, steps=1.5)


def test_labels_are_whole_numbers():
    model = tw.method("egc/digits", **SMALL["egc/digits"]).eval()
    right = model.sample(2, label=1)
    for same in (np.int64(1), [1, 1], np.array([1, 1]), torch.tensor([1, 1], dtype=torch.uint8), torch.tensor(1)):
        assert torch.equal(model.sample(2, label=same), right)
    for bad, message in (
        ("3", "got '3'; a class is named by its number"),
        (True, "got True"),
        (1.5, "got 1.5"),
        (torch.tensor([1.5, 2.5]), r"got float32 \[2\]"),
        (np.array(["a", "b"]), "needs a tensor or array"),
        (10, "between 0 and 9"),
        ([1, 2, 3], "one label or 2"),
    ):
        with pytest.raises(InputError, match=message):
            model.sample(2, label=bad)
        if message != "one label or 2":
            with pytest.raises(InputError, match=message):
                model.energy(example(model, 2), label=bad)


def test_numbers_of_samples_are_in_range():
    model = tw.method("egc/digits", **SMALL["egc/digits"]).eval()
    for bad in (2.0, -0.1, float("nan"), "1", True):
        with pytest.raises(InputError, match="eta must be a finite number between 0 and 1"):
            model.sample(2, eta=bad)
    with pytest.raises(InputError, match="guidance must be a finite number"):
        model.sample(2, label=1, guidance=float("inf"))


def test_default_float64_changes_nothing():
    right = tw.method("egc/digits", **SMALL["egc/digits"]).eval()
    torch.set_default_dtype(torch.float64)
    try:
        model = tw.method("egc/digits", **SMALL["egc/digits"]).eval()
        x = example(model)
        assert model.energy(x).dtype is torch.float32
        assert torch.equal(model.energy(x), right.energy(x)) and torch.equal(model.sample(2), right.sample(2))
        assert torch.get_default_dtype() is torch.float64
        data = tw.data.load("digits", "train")
        assert tw.fit(model, data, images=64, batch=32, progress=False).sample(2).dtype is torch.float32
        for toy in ("short_run/moons", "ddaebm/moons"):
            tw.fit(tw.method(toy, images=64, batch=32), tw.data.load("moons"), progress=False).sample(2)
        assert torch.get_default_dtype() is torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_chains_and_training_are_not_looked_at_twice():
    """What a method's function calls in turn passes freely, and a copy made meanwhile is looked at as any."""
    model = tw.method("short_run/moons", **SMALL["short_run/moons"]).eval()
    twin = copy.deepcopy(model)
    model.sample(2, steps=2)
    for either in (model, twin):
        with pytest.raises(InputError):
            either.energy(torch.zeros(2, 3))


def test_devices_may_be_torchs_own(tmp_path):
    model = tw.method("short_run/moons", **SMALL["short_run/moons"])
    tw.save(model, tmp_path / "m")
    assert tw.load(tmp_path / "m", device=torch.device("cpu")).device.type == "cpu"
    base, energy = tw.evaluate.Gaussian(torch.zeros(2), 1.0), lambda x: x.square().sum(1) / 2
    with pytest.raises(InputError, match="device 'gpu' is not known"):
        tw.evaluate.log_partition(energy, base, device="gpu")
    assert tw.evaluate.log_partition(energy, base, chains=np.int64(8), temperatures=np.int64(8)).chains == 8
    assert tw.data.load("digits", "test", size=np.int64(8)).shape == (1, 8, 8)


@pytest.mark.parametrize("sampler", [tw.sample.langevin, tw.sample.mala, tw.sample.hmc])
def test_chains_begin_at_floating_point_tensors(sampler):
    for bad in (torch.zeros(4, 2, dtype=torch.long), np.zeros((4, 2)), torch.tensor(0.0)):
        with pytest.raises(InputError, match="a chain begins at a floating-point tensor"):
            sampler(lambda x: x.square().sum(1), bad, steps=1, step=0.1)
