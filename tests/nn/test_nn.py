"""Networks: shapes, conditioning, second derivatives, spectral norm, and independence from the batch; sharded random draws."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from thalweg import random
from thalweg.nn.convnet import ConvEnergy
from thalweg.nn.guided import HEADS, GuidedUNet, MeanPool, TransformerBlock, pooled
from thalweg.nn.layers import Attention, LabelEmbedding, LevelEmbedding, StridedConv2d, frozen, spectral
from thalweg.nn.mlp import MLP
from thalweg.nn.patchnet import PatchNet, VectorNet
from thalweg.nn.unet import AttentionPool, UNet


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return random.normal(*shape, generator=random.seeded(88, seed), dtype=dtype)


def prepared(make, std: float = 0.1) -> nn.Module:
    """In float64 with noise on every weight, so that what starts at zero takes part."""
    torch.manual_seed(0)
    net = make().double().eval()
    with torch.no_grad():
        for i, parameter in enumerate(net.parameters()):
            parameter.add_(std * normal(*parameter.shape, seed=100 + i))
    return net


IMAGE = (2, 8, 8)
T = torch.tensor([3, 40, 900])
LABEL = torch.tensor([0, 2, 1])
RELEASED = dict(transformer=True, modulate=False, pool="map")
# name: network, shape of one example, keywords of the call, shapes of the outputs
NETS = {
    "mlp": (lambda: MLP(5, width=8), (5,), {}, [()]),
    "mlp-out": (lambda: MLP(6, width=8, out=4), (2, 3), {}, [(4,)]),
    "mlp-conditional": (lambda: MLP(5, width=8, levels=True, classes=3), (5,), {"t": T, "label": LABEL}, [()]),
    "convnet": (lambda: ConvEnergy(IMAGE, widths=(4, 8)), IMAGE, {}, [()]),
    "convnet-out": (lambda: ConvEnergy((2, 16, 8), widths=(4, 8, 8), blocks=1, out=3), (2, 16, 8), {}, [(3,)]),
    "convnet-conditional": (lambda: ConvEnergy(IMAGE, widths=(4, 8), levels=True, classes=3), IMAGE, {"t": T, "label": LABEL}, [()]),
    "convnet-patches": (lambda: ConvEnergy((2, 8, 12), widths=(4, 8), blocks=1, patch=2), (2, 8, 12), {}, [()]),
    "convnet-spectral": (lambda: ConvEnergy(IMAGE, widths=(4, 8), blocks=1, spectral_norm=True), IMAGE, {}, [()]),
    "patch": (lambda: PatchNet(IMAGE, out=3, vector=5, width=8, blocks=2, hidden=16), IMAGE, {"t": T}, [(3, 8, 8), (5,)]),
    "patch-map": (lambda: PatchNet(IMAGE, out=2, vector=0, width=8, blocks=1, hidden=16, patch=4), IMAGE, {"t": T}, [(2, 8, 8), None]),
    "vector": (lambda: VectorNet(5, out=1, vector=4, width=8, depth=2), (5,), {"t": T}, [(5,), (4,)]),
    "unet": (
        lambda: UNet(IMAGE, out=3, vector=5, width=8, multipliers=(1, 2), blocks=1, attention=4, classes=3),
        IMAGE,
        {"t": T, "label": LABEL},
        [(3, 8, 8), (5,)],
    ),
    "guided": (
        lambda: GuidedUNet(IMAGE, out=3, vector=5, width=8, multipliers=(1, 2), blocks=1, attention=4, head_channels=4, classes=3),
        IMAGE,
        {"t": T, "label": LABEL},
        [(3, 8, 8), (5,)],
    ),
    "guided-transformer": (
        lambda: GuidedUNet(
            IMAGE, out=5, vector=5, width=8, multipliers=(1, 2), blocks=1, attention=4, head_channels=4, classes=3, **RELEASED
        ),
        IMAGE,
        {"t": T, "label": LABEL},
        [(5, 8, 8), (5,)],
    ),
    "guided-transformer-map": (
        lambda: GuidedUNet(IMAGE, out=2, width=8, multipliers=(1,), blocks=1, attention=8, head_channels=4, **RELEASED),
        IMAGE,
        {"t": T},
        [(2, 8, 8), None],
    ),
    "unet-map": (lambda: UNet(IMAGE, out=2, width=8, multipliers=(1,), blocks=1), IMAGE, {"t": T}, [(2, 8, 8), None]),
}


@pytest.fixture(params=NETS)
def case(request):
    make, shape, keywords, outputs = NETS[request.param]
    return prepared(make), normal(3, *shape), keywords, outputs


def parts(result) -> list[Tensor]:
    return list(result) if isinstance(result, tuple) else [result]


def test_shapes(case):
    net, x, keywords, outputs = case
    found = parts(net(x, **keywords))
    assert [None if part is None else tuple(part.shape) for part in found] == [None if o is None else (3, *o) for o in outputs]


def test_every_input_and_every_parameter_matters(case):
    net, x, keywords, _ = case
    x = x.requires_grad_(True)
    total = sum((part * normal(*part.shape, seed=9)).sum() for part in parts(net(x, **keywords)) if part is not None)
    wanted = {name: p for name, p in net.named_parameters()}
    gradient, *gradients = torch.autograd.grad(total, [x, *wanted.values()], allow_unused=True)
    assert (gradient.flatten(1).abs() > 0).all()
    silent = {name for name, g in zip(wanted, gradients) if g is None or float(g.abs().max()) == 0}
    for name, g in zip(wanted, gradients):  # each unit of a layer too; a table of labels has rows that this batch does not name
        if g is not None and g.dim() > 1 and "table" not in name and not (g.flatten(1).abs().amax(1) > 0).all():
            silent.add(name)
    assert not silent


def test_the_level_and_the_label_matter(case):
    net, x, keywords, _ = case
    for key, other in (("t", T + 7), ("label", (LABEL + 1) % 3)):
        if key in keywords:
            changed = parts(net(x, **{**keywords, key: other}))
            for part, before in zip(changed, parts(net(x, **keywords))):
                if part is not None:
                    difference = (part - before).abs().flatten(1).amax(1) if part.dim() > 1 else (part - before).abs()
                    assert (difference > 1e-6).all()


def test_no_row_depends_on_its_batch(case):
    net, x, keywords, _ = case
    for mode in (True, False):
        net.train(mode)
        if any(isinstance(m, parametrize.ParametrizationList) for m in net.modules()) and mode:
            continue  # in training mode a spectral norm moves with each call
        together = parts(net(x, **keywords))
        for row in range(3):
            alone = parts(net(x[row : row + 1], **{key: value[row : row + 1] for key, value in keywords.items()}))
            for part, whole in zip(alone, together):
                if part is not None:
                    torch.testing.assert_close(part, whole[row : row + 1], rtol=1e-10, atol=1e-12)


def test_second_derivatives_exist_and_are_right(case):
    """The gradient of ‖∇ₓ f‖² by the parameters against a finite difference along a random direction."""
    net, x, keywords, _ = case
    parameters = list(net.parameters())

    def penalty() -> Tensor:
        point = x.detach().requires_grad_(True)
        total = sum((part.square()).sum() for part in parts(net(point, **keywords)) if part is not None)
        (gradient,) = torch.autograd.grad(total, point, create_graph=True)
        return gradient.square().mean()

    gradients = torch.autograd.grad(penalty(), parameters, allow_unused=True)
    directions = [normal(*p.shape, seed=200 + i) for i, p in enumerate(parameters)]
    slope = sum(float((g * d).sum()) for g, d in zip(gradients, directions) if g is not None)
    values = []
    for h in (-2, -1, 1, 2):
        with torch.no_grad():
            torch._foreach_add_(parameters, directions, alpha=1e-4 * h)
        values.append(float(penalty().detach()))
        with torch.no_grad():
            torch._foreach_add_(parameters, directions, alpha=-1e-4 * h)
    expected = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / 12e-4
    assert abs(expected) > 1e-6
    assert slope == pytest.approx(expected, rel=2e-5)


def test_no_label_has_its_own_embedding():
    embedding = LabelEmbedding(3, 4)
    none = embedding(None, 2)
    assert torch.equal(none, embedding(torch.tensor([-1, -1]), 2)) and torch.equal(none[0], embedding.table.weight[3])
    assert torch.equal(embedding(torch.tensor([1, -1]), 2)[0], embedding.table.weight[1])


def test_levels_are_told_apart():
    torch.manual_seed(0)
    embedding = LevelEmbedding(16)
    codes = embedding(torch.arange(1001))
    assert torch.pdist(codes[::10]).min() > 1e-3 and (codes[1:] - codes[:-1]).norm(dim=1).min() > 1e-4


@pytest.mark.parametrize("make, message", [
    (lambda: ConvEnergy((1, 10, 8), widths=(4, 8, 8)), "divide by 4, got 10×8"),
    (lambda: ConvEnergy((1, 10, 8), widths=(4, 8), patch=2), "2 widths and patches of 2: height and width must divide by 4, got 10×8"),
    (lambda: PatchNet((1, 9, 8), out=1, vector=0), "patch of 2, got 9×8"),
    (lambda: UNet((1, 8, 10), out=1, width=8, multipliers=(1, 1, 1)), "divide by 4, got 8×10"),
])  # fmt: skip
def test_sizes_that_do_not_divide_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_frozen_networks_have_their_bounded_weights_before_they_are_called():
    """A compiled chain may read them, but not make them inside of its derivative."""
    net = ConvEnergy((1, 8, 8), widths=(4, 8), blocks=1, spectral_norm=True)
    with frozen(net):
        kept = dict(parametrize._cache)
        assert len(kept) == 4 and all(isinstance(weight, Tensor) for weight in kept.values())
        net(normal(2, 1, 8, 8).float())
        assert dict(parametrize._cache).keys() == kept.keys()
    assert not parametrize._cache


def test_patches_are_pixels_of_the_first_convolution():
    torch.manual_seed(0)
    folded, plain = ConvEnergy((1, 8, 8), widths=(4, 8), patch=2).double(), ConvEnergy((4, 4, 4), widths=(4, 8)).double()
    plain.load_state_dict(folded.state_dict())
    x = normal(3, 1, 8, 8)
    blocks = torch.stack([x[:, 0, i::2, j::2] for i in (0, 1) for j in (0, 1)], 1)
    torch.testing.assert_close(folded(x), plain(blocks))


# --- strided convolution


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(8, 8), (2, 6), (4, 2)])
@pytest.mark.parametrize("weights_last", [False, True])
def test_strided_convolution_is_the_plain_one(channels, size, weights_last):
    torch.manual_seed(0)
    fast, plain = StridedConv2d(channels, 5).double(), nn.Conv2d(channels, 5, 4, 2, 1).double()
    plain.load_state_dict(fast.state_dict())
    if weights_last:
        fast = fast.to(memory_format=torch.channels_last)
    x = normal(3, channels, *size)
    results = []
    for layer, memory_format in ((plain, torch.contiguous_format), (fast, torch.contiguous_format), (fast, torch.channels_last)):
        point = x.clone(memory_format=memory_format).requires_grad_(True)
        y = layer(point)
        (first,) = torch.autograd.grad(y.pow(3).sum(), point, create_graph=True)
        second = torch.autograd.grad(first.square().sum(), [point, layer.weight, layer.bias])
        results.append([y, first, *second])
    assert results[0][0].shape == (3, 5, size[0] // 2, size[1] // 2)
    for result in results[1:]:
        for found, expected in zip(result, results[0]):
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_memory_formats_agree_in_whole_networks():
    for name in ("convnet-conditional", "convnet-spectral", "patch", "unet"):
        make, shape, keywords, _ = NETS[name]
        net, x = prepared(make), normal(3, *shape)
        plain = parts(net(x, **keywords))
        for part, other in zip(
            plain, parts(net.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last), **keywords))
        ):
            torch.testing.assert_close(other, part, rtol=1e-9, atol=1e-10)


# --- attention


def test_attention_is_scaled_dot_product_attention():
    torch.manual_seed(0)
    layer = prepared(lambda: Attention(16, heads=4))
    x = normal(2, 16, 3, 5)
    query, key, value = (part.reshape(2, 4, 4, 15).transpose(2, 3) for part in layer.qkv(layer.norm(x)).chunk(3, 1))
    mixed = nn.functional.scaled_dot_product_attention(query, key, value).transpose(2, 3).reshape(2, 16, 3, 5)
    torch.testing.assert_close(layer(x), x + layer.out(mixed))
    torch.manual_seed(0)
    torch.testing.assert_close(Attention(16)(x.float()), x.float())  # starts as the identity


@pytest.mark.parametrize("layer, outputs", [(lambda: Attention(8, heads=2), 8), (lambda: AttentionPool(8, heads=2), 8)])
def test_attention_passes_gradgradcheck(layer, outputs):
    layer = prepared(layer)
    x = normal(1, 8, 2, 2).requires_grad_(True)
    assert layer(x).shape[1] == outputs
    assert torch.autograd.gradcheck(layer, x) and torch.autograd.gradgradcheck(layer, x)


def test_attention_pool_weighs_pixels_to_one():
    pool = prepared(lambda: AttentionPool(8, heads=2))
    with torch.no_grad():
        pool.value.weight.zero_()
        pool.value.bias.copy_(torch.arange(8.0))
    torch.testing.assert_close(pool(normal(3, 8, 4, 4)), torch.arange(8.0).double().expand(3, 8))


# --- spectral norm and `frozen`


def spectral_linear() -> nn.Module:
    torch.manual_seed(0)
    return spectral(nn.Linear(6, 6))


def test_spectral_norm_comes_to_one():
    layer = spectral_linear()
    with torch.no_grad():
        layer.parametrizations.weight.original.mul_(7)
    for _ in range(100):
        layer(torch.zeros(1, 6))
    with frozen(layer):
        largest = float(torch.linalg.matrix_norm(layer.weight, 2))
    assert largest == pytest.approx(1, abs=1e-3)


def test_spectral_norm_moves_in_training_and_holds_still_in_a_frozen_chain():
    net = ConvEnergy((1, 8, 8), widths=(4, 8), spectral_norm=True).train()
    x = normal(4, 1, 8, 8, dtype=torch.float32)
    vectors = lambda: torch.cat([b.flatten().clone() for name, b in net.named_buffers() if "_u" in name or "_v" in name])  # noqa: E731
    start = vectors()
    assert len(start) > 20
    with frozen(net):
        energies = [net(x) for _ in range(5)]
        weights = [net.first.weight for _ in range(2)]
    assert torch.equal(start, vectors()) and all(torch.equal(energies[0], e) for e in energies)
    assert weights[0] is weights[1], "computed once, then kept"
    net(x)
    assert not torch.equal(start, vectors())


def test_frozen_restores_modes_and_gradients_even_after_an_error():
    net = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5), nn.Sequential(nn.Linear(3, 1), nn.Dropout(0.5)))
    net.train()
    net[2].eval()
    net[0].bias.requires_grad_(False)
    modes, flags = [m.training for m in net.modules()], [p.requires_grad for p in net.parameters()]
    with pytest.raises(KeyError), frozen(net, nn.Linear(2, 2)):
        assert not any(m.training for m in net.modules()) and not any(p.requires_grad for p in net.parameters())
        with frozen(net):
            pass
        assert not any(m.training for m in net.modules()), "nests"
        raise KeyError("inside a chain")
    assert [m.training for m in net.modules()] == modes and [p.requires_grad for p in net.parameters()] == flags
    assert True in modes and False in modes and True in flags and False in flags


def test_frozen_forgets_its_cache():
    layer = spectral_linear()
    with frozen(layer):
        before = layer.weight.clone()
    with torch.no_grad():
        layer.parametrizations.weight.original.copy_(torch.eye(6) * 3)
    with frozen(layer):
        assert not torch.allclose(layer.weight, before)


# --- random draws that do not depend on how rows are shared out


def keys() -> tuple[torch.Generator, ...]:
    return tuple(random.seeded(3, rank) for rank in range(4))


@pytest.mark.parametrize(
    "draw",
    [
        lambda n, g: random.normal(n, 2, 3, generator=g),
        lambda n, g: random.normal(n, generator=g, dtype=torch.float64),
        lambda n, g: random.uniform(n, 2, low=-2.0, high=5.0, generator=g),
        lambda n, g: random.integers(n, 3, 17, generator=g),
        lambda n, g: random.normal_like(torch.zeros(n, 3, 2, 2).to(memory_format=torch.channels_last), g),
    ],
    ids=["normal", "double", "uniform", "integers", "normal_like"],
)
def test_one_process_with_all_generators_draws_what_the_ranks_draw(draw):
    together = draw(12, keys())
    ranks = torch.cat([draw(3, g) for g in keys()])
    assert together.shape[0] == 12 and torch.equal(together, ranks)
    assert torch.equal(draw(12, (random.seeded(3, 0),)), draw(12, random.seeded(3, 0))), "one share is the plain draw"
    with pytest.raises(ValueError, match="13 rows do not divide over 4"):
        draw(13, keys())


def test_uniform_and_integers_fill_their_ranges():
    u = random.uniform(20_000, low=-2.0, high=5.0, generator=random.seeded(1))
    assert -2 <= float(u.min()) < -1.99 and 4.99 < float(u.max()) < 5
    assert abs(float(u.mean()) - 1.5) < 4.5 * 7 / 12**0.5 / 20_000**0.5
    assert set(random.integers(1000, 3, 7, generator=random.seeded(1)).tolist()) == {3, 4, 5, 6}


def test_seeds_of_neighbouring_keys_are_unrelated():
    streams = [random.normal(2000, generator=random.seeded(*key)) for key in [(0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 256), (0, 1, 256)]]
    correlation = torch.corrcoef(torch.stack(streams)) - torch.eye(len(streams))
    assert float(correlation.abs().max()) < 4.5 / 2000**0.5
    assert torch.equal(random.normal(5, generator=random.seeded(-1, 2)), random.normal(5, generator=random.seeded(-1, 2)))


@pytest.mark.parametrize("generator", [None, 1, 4])
def test_rows_are_drawn_without_replacement(generator):
    g = None if generator is None else random.seeded(3, 0) if generator == 1 else keys()
    torch.manual_seed(0)
    drawn = random.rows(12, 40, generator=g)
    assert drawn.dtype == torch.int64 and len(set(drawn.tolist())) == 12 and int(drawn.min()) >= 0 and int(drawn.max()) < 40
    everything = random.rows(40, 40, generator=g)
    assert sorted(everything.tolist()) == list(range(40)) and everything.tolist() != list(range(40))
    if generator == 4:  # each from its own share of the table
        assert torch.equal(drawn // 10, torch.arange(4).repeat_interleave(3))


def test_rows_are_uniform():
    g = random.seeded(5)
    counts = torch.bincount(torch.cat([random.rows(5, 20, generator=g) for _ in range(4000)]), minlength=20).double()
    # each row is in with probability ¼, independently over the calls
    assert float(((counts - 1000) / (4000 * 0.25 * 0.75) ** 0.5).abs().max()) < 4.5


@pytest.mark.parametrize("count, of, shares", [(5, 4, 1), (4, 10, 4), (6, 8, 4)])
def test_rows_that_are_refused(count, of, shares):
    with pytest.raises(ValueError, match=f"cannot draw {count} of {of} rows for {shares}"):
        random.rows(count, of, generator=keys()[:shares] if shares > 1 else random.seeded(1))


@pytest.mark.parametrize("spectral_norm", [False, True])
def test_a_grey_image_passes_the_first_convolution_unchanged(spectral_norm, monkeypatch):
    """The empty second channel that keeps the layout changes neither the energy nor any gradient."""
    net = ConvEnergy((1, 8, 8), widths=(8, 16), spectral_norm=spectral_norm).eval()
    x = random.normal(4, 1, 8, 8, generator=random.seeded(41)).requires_grad_(True)
    found = [net(x), *torch.autograd.grad(net(x).sum(), [x, *net.parameters()])]
    monkeypatch.setattr(net, "_first", net.first)
    expected = [net(x), *torch.autograd.grad(net(x).sum(), [x, *net.parameters()])]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


# --- the guided UNet


def test_the_guided_unet_has_the_parts_of_the_released_one():
    """Of ImageNet's latents, on no device: learned resampling, two middle blocks, 32 groups, 64 channels a head, a token for the label."""
    with torch.device("meta"):
        options = dict(width=384, multipliers=(1, 2, 4), blocks=2, attention=32, classes=1000, **RELEASED)
        net = GuidedUNet((4, 32, 32), out=1000, vector=1000, **options)
    assert [layer.stride for layer in net.shrink] == [(2, 2)] * 2 and [layer.kernel_size for layer in net.grow] == [(3, 3)] * 2
    assert len(net.middle) == 2 and isinstance(net.middle[0][1], TransformerBlock) and len(net.middle[1]) == 1
    assert {m.num_groups for m in net.modules() if isinstance(m, torch.nn.GroupNorm)} == {32}
    attention = net.middle[0][1].attention
    assert attention.heads == HEADS and attention.out.in_features == HEADS * 64 and net.label.table.weight.shape == (1001, 512)
    assert [len(stage) for stage in net.down] == [2, 2, 2] and [len(stage) for stage in net.up] == [3, 3, 3] and net.vector is None
    with torch.device("meta"):
        plain = GuidedUNet((3, 32, 32), out=3, vector=10)
    assert {m.heads for m in plain.modules() if isinstance(m, Attention)} == {384 // 64}


def test_the_mean_of_a_map_attends_over_it():
    """Against PyTorch's own attention, and without parameters against the formula."""
    x = normal(3, 8, 4, 2)
    tokens = torch.cat([x.mean((2, 3))[:, None], x.flatten(2).transpose(1, 2)], 1)
    weights = (tokens[:, :1] @ tokens.transpose(1, 2) / 8**0.5).softmax(-1)
    torch.testing.assert_close(pooled(x), (weights @ tokens)[:, 0])
    pool = MeanPool(8, 4).double()
    query, (key, value) = pool.query(tokens[:, :1]), pool.keys(tokens).chunk(2, 2)
    heads = [part.unflatten(2, (2, 4)).transpose(1, 2) for part in (query, key, value)]
    expected = torch.nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(1)
    torch.testing.assert_close(pool(x), expected, rtol=1e-4, atol=1e-5)


def test_attention_to_one_token_is_its_value():
    """What stands for the released cross-attention to the label's token: softmax over one key is 1, whatever asks."""
    block, h, context = TransformerBlock(8, 4, 2, labels=True).double(), normal(2, 6, 16), normal(2, 512, seed=1)
    query, key = normal(2, 6, 16, seed=2) * h, normal(2, 1, 16, seed=3)
    value = block.second[0](context)[:, None]
    attended = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(block.second[1](attended), block.second(context)[:, None].expand(-1, 6, -1), rtol=1e-4, atol=1e-5)
