"""Networks that see log SNR in the place of a level's number, and start at zero."""

import pytest
import torch

from thalweg import random
from thalweg.nn.build import MLP, ConvNet, PatchNet, PatchUNet, UNet
from thalweg.nn.log_snr import see_log_snr, start_at_zero

SHAPE = (1, 8, 8)
SMALL = (MLP(width=8, depth=2), PatchNet(width=8, blocks=1), PatchUNet(width=8, deep_width=8, blocks=1, deep_blocks=1),
         UNet(width=8, multipliers=(1, 1), blocks=1))  # fmt: skip


@pytest.mark.parametrize("spec", SMALL, ids=lambda spec: spec.kind)
@pytest.mark.parametrize("channels", [0, 1])
def test_a_level_is_seen_by_its_log_snr(spec, channels):
    if not channels and spec.kind != "mlp":
        spec = ConvNet(widths=(8, 8))
    net = spec.build(SHAPE, channels=channels, levels=True)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.3, generator=random.seeded(3))
    x, t = random.normal(3, *SHAPE, generator=random.seeded(1)), torch.tensor([0, 2, 1])
    log_snr = [7.0, 1.0, -2.0]
    expected = net(x, torch.tensor([7.0, -2.0, 1.0]))
    found = see_log_snr(net, log_snr)(x, t)
    assert torch.allclose(*(out[0] if channels else out for out in (found, expected)), atol=1e-6)


@pytest.mark.parametrize("spec", [*SMALL, ConvNet(widths=(8, 8))], ids=lambda spec: spec.kind)
def test_networks_start_at_zero(spec):
    x, t = random.normal(3, *SHAPE, generator=random.seeded(1)), torch.tensor([0, 2, 1])
    if spec.kind in ("mlp", "convnet"):
        assert not start_at_zero(spec.build(SHAPE, levels=True))(x, t).any()
    if spec.kind == "convnet":
        return
    fields, numbers = start_at_zero(spec.build(SHAPE, channels=1))(x, t)
    assert not fields.any() and numbers is None
    if spec.kind in ("mlp", "patch", "patch_unet"):
        fields, numbers = start_at_zero(spec.build(SHAPE, out=1, channels=1))(x, t)
        assert not fields.any() and not numbers.any() and numbers.shape == (3, 1)
