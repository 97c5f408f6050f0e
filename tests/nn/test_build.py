"""Specs of networks: what they build for images and vectors, and what they refuse."""

import pytest
import torch

from thalweg.energy import score, value_and_score
from thalweg.errors import InputError
from thalweg.nn.build import MLP, Coders, ConvNet, ExpandingNet, GuidedUNet, PatchNet, PatchUNet, PooledNet, ResNet, UNet
from thalweg.nn.patchunet import PatchUNet as PatchUNetNetwork
from thalweg.nn.published import RecoveryNet

IMAGE, VECTOR = (2, 8, 8), (5,)
SMALL = [
    MLP(width=8, depth=2),
    ConvNet(widths=(8, 8)),
    PatchNet(width=8, blocks=1),
    PatchUNet(width=8, deep_width=8, blocks=1, deep_blocks=1, hidden=8),
    UNet(width=8, multipliers=(1, 1), blocks=1, attention=4),
    GuidedUNet(width=8, multipliers=(1, 2), blocks=1, attention=4, head_channels=4),
]
WITH_MAP = [spec for spec in SMALL if spec.kind != "convnet"]


def kinds(spec) -> str:
    return spec.kind


@pytest.mark.parametrize("spec", SMALL, ids=kinds)
@pytest.mark.parametrize("levels", [False, True])
@pytest.mark.parametrize("classes", [0, 3])
def test_numbers(spec, levels, classes):
    x, t, label = torch.randn(4, *IMAGE), torch.tensor([0, 1, 2, 3]), torch.tensor([0, 1, 2, -1])
    given = ((t,) if levels else ()) + ((label,) if classes and levels else ())
    options = {"label": label} if classes and not levels else {}
    assert spec.build(IMAGE, levels=levels, classes=classes)(x, *given, **options).shape == (4,)
    assert spec.build(IMAGE, out=3, levels=levels, classes=classes)(x, *given, **options).shape == (4, 3)


@pytest.mark.parametrize("spec", WITH_MAP, ids=kinds)
@pytest.mark.parametrize("out", [0, 4])
def test_a_map_in_the_shape_of_x(spec, out):
    x, t = torch.randn(4, *IMAGE), torch.arange(4)
    fields, numbers = spec.build(IMAGE, channels=IMAGE[0], out=out)(x, t)
    assert fields.shape == x.shape and (numbers is None if not out else numbers.shape == (4, out))
    if spec.kind == "mlp":
        fields, _ = spec.build(VECTOR, channels=5)(torch.randn(4, 5), t)
        assert fields.shape == (4, 5)


@pytest.mark.parametrize("spec", SMALL, ids=kinds)
def test_energies_are_differentiated_twice(spec):
    net = spec.build((1, 8, 8))
    for p in net.parameters():  # layers that start at zero hide a missing path
        torch.nn.init.normal_(p, std=0.1)
    x = torch.randn(3, 1, 8, 8)
    loss = score(net, x, create_graph=True).square().mean()
    gradients = torch.autograd.grad(loss, list(net.parameters()), allow_unused=True)
    assert any(g is not None and float(g.abs().max()) > 0 for g in gradients)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConvNet().build((2,)), r"kind 'convnet' needs images \[C, H, W\], got shape \(2,\); use kind 'mlp'"),
        (lambda: PatchNet().build((7,), channels=1), "kind 'patch' needs images"),
        (lambda: ConvNet().build((1, 9, 9)), "height and width must divide by 4, got 9×9"),
        (lambda: PatchUNet().build((1, 6, 8)), "height and width must divide by 4, got 6×8"),
        (lambda: UNet().build((1, 12, 12)), "height and width must divide by 8"),
        (lambda: GuidedUNet().build((1, 10, 12)), "height and width must divide by 4 for 3 multipliers, got 10×12"),
        (lambda: GuidedUNet(width=36).build((1, 8, 8)), "must be divisible by num_groups"),
        (lambda: GuidedUNet(pool="map", width=32).build((1, 8, 8), channels=1, out=3), "pools 3 class scores from a map of as many"),
        (lambda: ConvNet().build((1, 8, 8), channels=1), "has no map"),
        (lambda: MLP().build((3, 8, 8), channels=2), "maps in the shape of x"),
        (lambda: PooledNet().build((1, 8, 8), levels=True), "takes neither levels nor labels"),
        (lambda: ExpandingNet().build((2,), stages=2), "kind 'expanding' needs images"),
        (lambda: ExpandingNet().build((1, 6, 8), stages=3), "sides that divide by 4, to 2 pixels or more, got 6×8"),
        (lambda: ResNet().build((2,)), "kind 'resnet' needs images"),
        (lambda: Coders(widths=(8, 8)).build((1, 7, 8)), "height and width must divide by 2, got 7×8"),
    ],
)
def test_what_does_not_fit_is_wrong_input(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_network_that_grows_has_an_energy_at_each_stage():
    net = ExpandingNet(width=2, activation="celu", residual=False).build((3, 8, 8), stages=2)
    assert [net(torch.randn(4, 3, side, side), stage=stage).shape for stage, side in enumerate((4, 8))] == [(4,), (4,)]
    assert net.skip is None and net.activation is torch.nn.functional.celu


def test_encoders_give_vectors_and_coders_a_map():
    x = torch.randn(2, *IMAGE)
    encoder = ResNet(widths=(8, 16), head=4, dim=3).build(IMAGE)
    assert encoder(x).shape == (2, 3) and encoder.features(x).shape == (2, 16)
    coders = Coders(latent_channels=5, widths=(8, 8))
    encode, decode = coders.build(IMAGE)
    mean, log_variance = encode(x)
    assert mean.shape[1:] == log_variance.shape[1:] == coders.latent_shape(IMAGE) == (5, 4, 4) and decode(mean).shape == x.shape


def test_patch_unet_sees_the_whole_image_from_every_pixel():
    net = PatchUNetNetwork((1, 16, 16), out=1, vector=2, width=8, deep_width=8, blocks=1, deep_blocks=1, hidden=16)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.2)
    x = torch.randn(1, 1, 16, 16)
    _, slope = value_and_score(lambda x: net(x, torch.zeros(1))[0][:, 0, 0, 0], x)
    assert float(slope[0, 0, -1, -1].abs()) > 0  # the far corner reaches the first pixel
    _, slope = value_and_score(lambda x: net(x, torch.zeros(1))[1][:, 0], x)
    assert (slope.abs() > 0).all()


def test_patch_unet_starts_with_no_map_and_a_small_vector():
    fields, vector = PatchUNetNetwork((3, 8, 12), out=3, vector=2)(torch.randn(2, 3, 8, 12), torch.arange(2))
    assert fields.shape == (2, 3, 8, 12) and not fields.any() and 0 < float(vector.detach().abs().max()) < 1


@pytest.mark.parametrize("kind", [PatchNet, PatchUNet, UNet, RecoveryNet])
def test_the_first_layer_stays_in_fp32(kind):
    """Under bf16 autocast a difference far below bf16's resolution of x still reaches the first layer's output."""
    for precise in (True, False):
        spec = kind(precise_first=precise, **{"blocks": 1} | ({"widths": (8, 8)} if kind is RecoveryNet else {"width": 8}))
        net = spec.build((1, 8, 8), levels=True, **{} if kind is RecoveryNet else {"channels": 1}).eval()
        seen = []
        net.first.register_forward_hook(lambda layer, given, out, seen=seen: seen.append(out))
        with torch.autocast("cpu", torch.bfloat16):
            for x in (torch.ones(1, 1, 8, 8), torch.ones(1, 1, 8, 8) + 1e-4):
                net(x, torch.zeros(1))
        assert torch.equal(*seen) != precise


def test_the_recovery_net_is_that_of_table_5_7():
    """Blocks at every resolution, the level in each of them, ReLU, a sum and the product with the level's vector."""
    net = RecoveryNet(widths=(4, 8), blocks=2).build((3, 8, 8), levels=True, classes=3).eval()
    assert [[block.first.in_channels for block in stage] for stage in net.stages] == [[4, 4], [4, 8]]
    x, t = torch.randn(5, 3, 8, 8), torch.arange(5)
    shapes = []
    for stage in net.stages:
        stage[0].register_forward_hook(lambda layer, given, out: shapes.append(tuple(out.shape[1:])))
    energy = net(x, t)
    assert energy.shape == (5,) and shapes == [(4, 8, 8), (8, 4, 4)]
    assert not torch.equal(energy, net(x, torch.zeros_like(t))) and not torch.equal(energy, net(x, t, torch.ones(5, dtype=torch.int64)))
    h = net.first(x)
    pooled = torch.nn.functional.avg_pool2d(h, 2)  # blocks start as the identity, or as the convolution where channels change
    vector = net.last(torch.nn.functional.leaky_relu(net.level(t) + net.label(None, 5), 0.2))
    expected = (net.stages[1][0].skip(pooled).relu().sum((2, 3)) * vector).sum(1)
    assert torch.allclose(energy, expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match="one energy at each noise level"):
        RecoveryNet().build((3, 32, 32), channels=3)
