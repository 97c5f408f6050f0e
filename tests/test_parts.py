"""Batches in parts, and blocks computed anew: equal to a whole batch with all values kept, and runs of them resume bit-equal."""

from dataclasses import replace

import pytest
import torch

import thalweg as tw
from thalweg import checkpoint, random
from thalweg.config import changed
from thalweg.data import Batch
from thalweg.errors import Diverged, InputError
from thalweg.methods import preset
from thalweg.nn.build import MLP, PatchUNet, UNet
from thalweg.nn.recompute import recompute_blocks
from thalweg.train import fit

# chains, a buffer of them and a network of its own for starts; a loss with a second derivative; a classifier and a score in one
METHODS = {
    "short_run/8gaussians": {"net.width": 16, "chain.steps": 2, "buffer": 64},
    "cdrl/digits-conditional": {"net.width": 16, "net.depth": 1, "chain.steps": 2},
    "dual/digits": {"net": MLP(width=16, depth=1), "classes": 0},
    "egc/digits": {"net.width": 8, "net.blocks": 1},
}
UNETS = {
    "egc/digits": {"net": UNet(width=8, multipliers=(1, 1), blocks=1, dropout=0.1)},
    "dual/digits": {"net": PatchUNet(width=8, deep_width=8, hidden=16), "shape": (1, 8, 8), "waves": 0, "classes": 0},
}


def built(name: str, fields: dict):
    kind, config = preset(name)
    torch.manual_seed(0)
    return kind(changed(config, batch=16, warm_up=0, **fields))


def data_of(name: str):
    return tw.data.load(name.split("/")[1].split("-")[0])


def trained(name: str, fields: dict, *, images: int = 48, **options):
    method = built(name, fields)
    fit(method, data_of(name), images=images, progress=False, seed=3, **options)
    return method


@pytest.mark.parametrize("name", METHODS)
def test_parts_of_a_batch_are_as_a_whole_one(name):
    """Three updates, the draws those of two processes in both; Adam's first steps are of the size of the rate, whatever the gradient."""
    whole, parts = (trained(name, METHODS[name], **options) for options in ({"shards": 2}, {"accumulate": 2}))
    rate = whole.config.lr
    for (key, one), two in zip(whole.state_dict().items(), parts.state_dict().values()):
        if one.is_floating_point() and one.numel():
            assert (one - two).abs().mean() < 0.02 * rate + 1e-4 * one.abs().mean(), key


def test_gradients_of_parts_are_those_of_the_whole():
    """Of each update, as they come to the optimizer."""
    found = []
    for options in ({"shards": 4}, {"accumulate": 4}):
        method = built("dual/digits", METHODS["dual/digits"])
        seen: list[torch.Tensor] = []
        step = torch.optim.Adam.step

        def keep(self, seen=seen, step=step):
            seen.extend(p.grad.clone() for group in self.param_groups for p in group["params"])
            return step(self)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.optim.Adam, "step", keep)
            fit(method, data_of("dual/digits"), images=16, progress=False, **options)
        found.append(seen)
    assert len(found[0]) == len(found[1]) > 4
    for one, two in zip(*found):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


def state(folder) -> dict:
    found = checkpoint.latest(folder)
    found.pop("elapsed")
    return found


@pytest.mark.parametrize("options", [{"accumulate": 4}, {"checkpointing": True}], ids=["accumulate", "checkpointing"])
def test_runs_resume_bit_equal(tmp_path, options):
    from studies.checks.resume import difference

    name, fields = (
        ("short_run/8gaussians", METHODS["short_run/8gaussians"]) if "accumulate" in options else ("egc/digits", UNETS["egc/digits"])
    )
    common = dict(data=data_of(name), progress=False, save_every=16, seed=5) | options
    fit(built(name, fields), out=tmp_path / "whole", images=64, **common)
    fit(built(name, fields), out=tmp_path / "broken", images=32, **common)
    method = built(name, fields)
    fit(method, out=tmp_path / "broken", images=64, **common)
    assert difference(tmp_path / "whole", tmp_path / "broken") is None


def test_a_run_in_parts_goes_on_with_as_many_shares(tmp_path):
    name = "short_run/8gaussians"
    common = dict(data=data_of(name), out=tmp_path, progress=False, save_every=16)
    fit(built(name, METHODS[name]), images=16, accumulate=4, **common)
    assert checkpoint.latest(tmp_path)["shards"] == 4
    with pytest.raises(InputError, match="draws noise in 4 shares, and 1 process with --accumulate 2 would draw in 2"):
        fit(built(name, METHODS[name]), images=32, accumulate=2, **common)
    fit(built(name, METHODS[name]), images=32, **common)  # one process stands for them
    with pytest.raises(InputError, match="16 does not divide over 3 processes or parts"):
        fit(built(name, METHODS[name]), data_of(name), images=32, accumulate=3, progress=False)
    with pytest.raises(InputError, match="accumulate must be above 0"):
        fit(built(name, METHODS[name]), data_of(name), accumulate=0)


@pytest.mark.parametrize("failing", [0, 1])
def test_a_divergence_of_one_part_is_one_of_the_run(failing, monkeypatch):
    name = "short_run/8gaussians"
    method, steps = built(name, METHODS[name]), []

    def step(batch, update, known=method.step):
        steps.append(len(batch.x))
        if (len(steps) - 1) % 2 == failing:
            raise Diverged("a part has diverged")
        known(batch, update)

    monkeypatch.setattr(method, "step", step)
    with pytest.raises(Diverged, match="a part has diverged"):
        fit(method, data_of(name), images=32, accumulate=2, tries=2, progress=False)
    assert set(steps) == {8} and len(method.get_buffer(method.sharded[0])) == 64


@pytest.mark.parametrize("name", UNETS)
def test_blocks_computed_anew_give_the_same_gradients(name):
    """Also through a second derivative and dropout; and fewer values are kept."""
    found, kept = [], []
    for anew in (False, True):
        method = built(name, UNETS[name])
        if anew:
            assert recompute_blocks(method) >= 2
        update = tw.update(method, seed=2)
        losses: list[torch.Tensor] = []
        update.take = lambda *_: None
        sizes = 0

        def pack(value):
            nonlocal sizes
            sizes += value.numel()
            return value

        update._take = lambda optimizer, loss, gradients, losses=losses: losses.extend([loss, *gradients])
        update.begin()
        method.train()
        x = random.uniform(16, *method.config.shape, low=-1.0, high=1.0, generator=random.seeded(1))
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
            method.step(Batch(x, torch.arange(16) % 10 if method.config.classes else None), update)
        found.append(losses)
        kept.append(sizes)
    assert len(found[0]) == len(found[1]) > 10
    for one, two in zip(*found):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


def test_checkpointing_needs_blocks():
    config = replace(preset("egc/8gaussians")[1], net=MLP(width=8, depth=1))
    with pytest.raises(InputError, match="checkpointing is of networks that are lists of blocks"):
        fit(tw.methods.egc.EGC(config), tw.data.load("8gaussians"), images=16, checkpointing=True, progress=False)
