"""One update of the loop against PyTorch's own backward and step, for gradients in every memory layout."""

import copy

import pytest
import torch
from torch import nn

import thalweg as tw
from thalweg.data import Batch
from thalweg.distributed import World
from thalweg.energy import score
from thalweg.guard import Guard
from thalweg.methods.base import Method
from thalweg.nn.convnet import ConvEnergy
from thalweg.nn.patchnet import PatchNet
from thalweg.updates import Update


class Holder(Method):
    """A method of one network, for a loss that the test brings along."""

    name = "holder"

    def __init__(self, net: nn.Module) -> None:
        super().__init__(None)
        self.net = net

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"net": torch.optim.Adam(self.net.parameters(), lr=1e-2, fused=True)}

    def learning_rate(self, name: str, images: int) -> float:
        return 1.0

    def step(self, batch: Batch, update) -> None: ...

    def sample(self, n: int, *, seed: int = 0, **options): ...


def first_order(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return net(x).square().mean()


def second_order(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return score(net, x, create_graph=True).square().mean()


def patches(net: PatchNet, x: torch.Tensor) -> torch.Tensor:
    t = torch.full((len(x),), 3)
    return score(lambda x: net(x, t)[1].logsumexp(1) + (net(x, t)[0] * x).flatten(1).sum(1), x, create_graph=True).square().mean()


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("kind", ["first", "second", "patches"])
def test_update_equals_backward_and_step(kind: str, channels_last: bool) -> None:
    """The gradient of a convolution's weight by a loss on the score comes in other strides than the weight; a fused Adam fed
    with it as it is moves every weight by another weight's gradient."""
    torch.manual_seed(0)
    if kind == "patches":
        net, loss = PatchNet((1, 8, 8), out=1, vector=4, width=16, blocks=2), patches
        for layer in (net.map, net.spread, *(block.second for block in net.blocks)):
            nn.init.normal_(layer.weight, std=0.1)
    else:
        net, loss = ConvEnergy((1, 8, 8), widths=(8, 16, 16)), first_order if kind == "first" else second_order
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    method = Holder(net).to(memory_format=memory_format)
    reference = copy.deepcopy(method)
    x = torch.randn(16, 1, 8, 8)
    update = Update(method, copy.deepcopy(method), World(), clip=0.0, ema_decay=0.9, guard=Guard())
    plain = torch.optim.Adam(reference.net.parameters(), lr=1e-2)
    for _ in range(3):
        update("net", loss(method.net, x))
        plain.zero_grad()
        loss(reference.net, x).backward()
        plain.step()
    for (name, ours), theirs in zip(method.net.named_parameters(), reference.net.parameters()):
        assert torch.allclose(ours, theirs, atol=1e-4), f"{name}: {(ours - theirs).abs().max()}"


def test_the_verb_alone_trains_as_the_loop_does():
    """`tw.update(method).step(batch)` with its defaults, against `fit` on the same batches and seed: bit-equal weights and twin."""
    fields = dict(width=16, steps=2, batch=16, images=64, buffer=64)
    data = tw.data.toy("8gaussians")
    looped, own = (tw.method("short_run/8gaussians", **fields) for _ in range(2))
    twin = tw.fit(looped, data, seed=3, progress=False)
    update = tw.updates.update(own, seed=3)
    for start in range(0, 64, 16):
        update.step(data.batch(start, 16, seed=3))
    assert update.images == 64 and update.updates == 4
    for theirs, ours in ((looped, own), (twin, update.ema)):
        for a, b in zip(theirs.parameters(), ours.parameters()):
            assert torch.equal(a, b)
    assert isinstance(update, tw.methods.base.Update)  # the protocol that `step` is typed with


def test_the_verb_takes_tensors_and_pairs():
    method = tw.method("short_run/8gaussians", width=8, steps=1, batch=8, buffer=16, conditional=True, classes=8)
    update = tw.updates.update(method)
    update.step((torch.randn(8, 2), torch.arange(8)))
    plain = tw.updates.update(tw.method("short_run/8gaussians", width=8, steps=1, batch=8, buffer=16))
    plain.step(torch.randn(8, 2))
    assert update.updates == plain.updates == 1
