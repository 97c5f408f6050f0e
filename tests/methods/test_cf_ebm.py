"""CF-EBM: its schedules against the paper's formulas, its chains and gradient on quadratic energies in closed form, growth, translation."""

import json
import math
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import thalweg as tw
from thalweg import random, tasks
from thalweg.cli import main
from thalweg.config import DataNeeds
from thalweg.data import Batch, Images, Unpaired, UnpairedBatch
from thalweg.errors import InputError
from thalweg.nn.expanding import ExpandingEnergy
from thalweg.nn.layers import frozen

BOUND = 4.5  # standard errors
# three stages, 2×2, 4×4 and 8×8, of 16, 32 and 32 images and more
SMALL = dict(
    shape=(1, 8, 8), width=2, stage_steps=(3, 5, 4), stage_images=(16, 32, 32), stage_lr_factors=(10, 1, 2), stage_splits=(1, 1, 2),
    batch=8, images=96, data_noise=0.0,
)  # fmt: skip


def method(**fields):
    return tw.method("cf_ebm/digits", seed=0, **(SMALL | fields))


def uniform(n: int, *shape: int, seed: int = 0) -> Tensor:
    return random.uniform(n, *shape, low=-1.0, high=1.0, generator=random.seeded(61, seed))


def images(n: int = 64, seed: int = 0) -> Images:
    return Images(uniform(n, 1, 8, 8, seed=seed), name=f"uniform{seed}")


def at(m, seen: int):
    """`m` as if it had seen so many images."""
    m.images.fill_(seen)
    return m


class Quadratic(nn.Module):
    """E(x) = a ‖x‖²/2 at every stage."""

    def __init__(self, a: float, sizes) -> None:
        super().__init__()
        self.a, self.sizes = nn.Parameter(torch.tensor(a)), sizes

    def forward(self, x: Tensor, *, stage: int, beta: float) -> Tensor:
        return self.a * x.flatten(1).square().sum(1) / 2

    def parameters_of(self, stage: int) -> list[nn.Parameter]:
        return [self.a]


def quadratic(a: float, **fields):
    m = method(**fields)
    m.net = Quadratic(a, m.net.sizes)
    return m


class Recorder:
    """Takes losses and keeps their gradients."""

    def __init__(self, m, seen: int, seed: int = 0) -> None:
        self.images, self.generator, self.ema = seen, random.seeded(62, seed), m
        self.parameters = {name: o.param_groups[0]["params"] for name, o in m.optimizers().items()}
        self.optimizers = m.optimizers()
        self.gradients: list[tuple[str, list[Tensor]]] = []

    def __call__(self, name: str, loss: Tensor) -> None:
        self.gradients.append((name, torch.autograd.grad(loss, self.parameters[name], allow_unused=True)))

    def log(self, **values) -> None:
        self.logged = values


# --- schedules


def test_stages_and_fading_follow_the_images_seen():
    m = method()
    assert [m.stage_at(i) for i in (0, 15, 16, 47, 48, 1000)] == [(0, 0), (0, 15), (1, 0), (1, 31), (2, 0), (2, 952)]
    assert [m.beta(0, i) for i in (0, 8)] == [1.0, 1.0], "the first stage has nothing to fade in"
    assert [m.beta(1, i) for i in (0, 4, 8, 16, 31)] == [0.0, 0.25, 0.5, 1.0, 1.0]
    whole = method(coarse_to_fine=False)
    assert whole.stage_at(0) == (2, 0) and whole.beta(2, 0) == 1.0 and whole.coarse_steps(2, 0) == 0
    assert list(whole.optimizers()) == ["energy_8"] and list(m.optimizers()) == ["energy_2", "energy_4", "energy_8"]


def test_coarse_steps_are_the_paper_s():
    """⌈T(1 − β)⌉ with T = 30 and N = 100,000, also where T·2m/N is whole and floating point would round up."""
    m = method(stage_steps=(15, 30, 50), stage_images=(50_000, 75_000, 100_000))
    for seen in (0, 1, 1000, 5000, 45_000, 49_999):
        assert m.coarse_steps(2, seen) == math.ceil(round(30 * (1 - 2 * seen / 100_000), 9))
    assert [m.coarse_steps(2, s) for s in (5000, 45_000, 50_000, 99_999)] == [27, 3, 0, 0] and m.coarse_steps(0, 5) == 0


def test_the_noise_of_a_chain_has_the_paper_s_standard_deviations():
    """On a flat energy a chain adds N(0, Σ η_t²), η_t = η − η/(T − t + 1); its steps one by one show each η_t, the last none."""
    m, n = quadratic(0.0, chain_noise=0.02), 4000
    trace, steps = tw.sample.Trace(keep=5), 4
    m._chain(m.net, torch.zeros(n, 1, 8, 8), 2, random.seeded(1), steps=steps, trace=trace)
    for t, move in enumerate(trace.states.diff(dim=0), start=1):
        eta = 0.02 - 0.02 / (steps - t + 1)
        assert abs(float(move.std()) - eta) <= BOUND * eta / math.sqrt(2 * move.numel())


def test_a_step_follows_the_whole_gradient():
    """Without noise x ← (1 − step·a) x, whose coefficient is the paper's 1.0 and not ½."""
    m, x = at(quadratic(0.3, chain_noise=0.0), 1000), uniform(5, 1, 8, 8)
    torch.testing.assert_close(m.sample(5, start=x, steps=1), 0.7 * x)
    torch.testing.assert_close(m.sample(5, start=x), 0.7**4 * x)
    half = at(quadratic(0.3, chain_noise=0.0, step=1.0), 1000)
    torch.testing.assert_close(half.sample(5, start=x, steps=1), 0.85 * x)


def chain_variance(variance: float, a: float, steps: int, eta: float) -> float:
    """Of each pixel after a chain with step 1 on a‖x‖²/2, while the clamp does nothing."""
    for t in range(1, steps + 1):
        variance = (1 - a) ** 2 * variance + (eta - eta / (steps - t + 1)) ** 2
    return variance


def test_chains_have_the_closed_form_variance():
    m, n = at(quadratic(0.4, chain_noise=0.1), 1000), 4000
    x = m.sample(n, start=0.1 * random.normal(n, 1, 8, 8, generator=random.seeded(2)), seed=1)
    variance = chain_variance(0.01, 0.4, 4, 0.1)
    assert abs(float(x.var()) - variance) < BOUND * variance * math.sqrt(2 / x.numel())
    loud = m.sample(n, start=torch.zeros(n, 1, 8, 8), chain_noise=0.2, seed=1)
    variance = chain_variance(0.0, 0.4, 4, 0.2)
    assert abs(float(loud.var()) - variance) < BOUND * variance * math.sqrt(2 / x.numel()), "another η_0"


def test_chains_end_within_the_range_of_images():
    m, x = at(quadratic(-1.0, chain_noise=0.0), 1000), uniform(6, 1, 8, 8)
    torch.testing.assert_close(m.sample(6, start=x), (2**4 * x).clamp(-1, 1))


def test_smooth_sampling_mixes_the_coarse_sample_with_noise():
    """√(1 − β²)·Up(x) + β·u, x being ⌈T(1 − β)⌉ steps at the coarser stage."""
    m = method(chain_noise=0.0)
    seen = 12  # of 32, β = 0.75: ⌈3·0.25⌉ = 1 step
    generator = random.seeded(3)
    with frozen(m.net):
        found = m._start(7, 1, seen, random.seeded(3), "cpu")
        coarse = random.uniform(7, 1, 2, 2, low=-1.0, high=1.0, generator=generator)
        moved = (coarse + tw.score(m.net, coarse, stage=0)).clamp(-1, 1)
    fine = random.uniform(7, 1, 4, 4, low=-1.0, high=1.0, generator=generator)
    expected = math.sqrt(1 - 0.75**2) * moved.repeat_interleave(2, 2).repeat_interleave(2, 3) + 0.75 * fine
    torch.testing.assert_close(found, expected)
    assert torch.equal(m._start(7, 1, 16, random.seeded(3), "cpu"), random.uniform(7, 1, 4, 4, low=-1.0, generator=random.seeded(3)))


def test_coarse_steps_are_run_at_the_coarse_stage():
    m, calls = method(), []
    forward = m.net.forward
    m.net.forward = lambda x, *, stage, beta: calls.append((x.shape[-1], stage, beta)) or forward(x, stage=stage, beta=beta)
    at(m, 16 + 4).sample(2)  # β = 0.25: ⌈3·0.75⌉ = 3 coarse steps, then 5
    assert calls == [(2, 0, 1.0)] * 3 + [(4, 1, 0.25)] * 5


def test_learning_rates_are_the_stage_s_factor_times_the_config_s_rule():
    m = method(lr=0.5, warm_up=4, lr_end=0.1)
    assert [o.param_groups[0]["lr"] for o in m.optimizers().values()] == [5.0, 0.5, 1.0]
    assert [m.learning_rate("energy_2", i) for i in (0, 8)] == [m.config.rate(0), m.config.rate(8)]
    assert m.learning_rate("energy_2", 0) == 0.25 and m.learning_rate("energy_8", 96) == pytest.approx(0.1)
    assert [method().learning_rate("energy_8", i) for i in (0, 50, 96)] == [1.0] * 3, "constant in the paper"


# --- the network


@pytest.mark.parametrize("options", [{}, {"spectral_norm": False}, {"residual": False}, {"activation": "leaky_relu"}])
def test_fading_in_begins_at_the_coarser_energy(options):
    net, x = ExpandingEnergy((3, 28, 28), stages=3, width=2, **options).eval(), uniform(4, 3, 28, 28)
    assert net.sizes == [(7, 7), (14, 14), (28, 28)]
    for stage in (1, 2):
        fine, coarse = (F.avg_pool2d(x, 2 ** (2 - s)) for s in (stage, stage - 1))
        torch.testing.assert_close(net(fine, stage=stage, beta=0.0), net(coarse, stage=stage - 1))
        assert (net(fine, stage=stage, beta=0.5) - net(coarse, stage=stage - 1)).abs().max() > 1e-5


@pytest.mark.parametrize("channels", [1, 3])
def test_maps_of_a_network_laid_out_for_bf16_are_not_copied(channels):
    net = ExpandingEnergy((channels, 8, 8), stages=2, width=2).to(memory_format=torch.channels_last).requires_grad_(False)
    seen = []
    for layer in (*net.first, *net.second, *net.skip):
        layer.register_forward_hook(lambda _, inputs, out: seen.extend([*inputs, out]))
    net(uniform(4, channels, 8, 8).contiguous(memory_format=torch.channels_last))
    assert len(seen) == 12 and all(h.is_contiguous(memory_format=torch.channels_last) for h in seen)


def test_a_full_stage_takes_no_fade():
    net, x = ExpandingEnergy((1, 8, 8), stages=3, width=2), uniform(4, 1, 8, 8)
    fade = [*net.from_rgb[1].parameters()]
    assert torch.autograd.grad(net(x, stage=2).sum(), fade, allow_unused=True) == (None, None)
    assert all(g is not None for g in torch.autograd.grad(net(x, stage=2, beta=0.9).sum(), fade))


def test_a_stage_knows_its_parameters():
    net = ExpandingEnergy((1, 8, 8), stages=3, width=2)
    for stage in range(3):
        x = uniform(4, 1, 2 * 2**stage, 2 * 2**stage)
        gradients = torch.autograd.grad(net(x, stage=stage, beta=0.5).sum(), list(net.parameters()), allow_unused=True)
        used = {id(p) for p, g in zip(net.parameters(), gradients) if g is not None}
        assert used == {id(p) for p in net.parameters_of(stage)}


def test_channels_are_those_of_table_6():
    with torch.device("meta"):
        net = ExpandingEnergy((3, 256, 256), stages=6)
    assert [layer.out_channels for layer in net.from_rgb] == [128, 128, 128, 64, 32, 16]
    assert [(a.in_channels, a.out_channels) for a in net.first] == [(128, 128)] * 3 + [(64, 128), (32, 64), (16, 32)]
    assert net.top_second.kernel_size == (4, 4) and net.last.in_features == 128


def test_the_blocks_are_bounded_and_their_skips_are_not():
    net, x = ExpandingEnergy((1, 8, 8), stages=2, width=2), uniform(2, 1, 8, 8)
    for _ in range(200):  # power iterations
        net(x)
    net.eval()
    for layer in (*net.first, *net.second, net.top_first, net.top_second):
        assert float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)) == pytest.approx(1.0, abs=1e-3)
    assert not any("skip" in name and "parametrizations" in name for name in net.state_dict())


def test_a_chain_does_not_move_spectral_norms_and_an_update_does():
    m = method().train()
    before = {k: v.clone() for k, v in m.named_buffers() if "_u" in k or "_v" in k}
    assert before
    at(m, 20).sample(3)
    assert all(torch.equal(v, m.get_buffer(k)) for k, v in before.items())
    m.step(images().batch(0, 8, 0), Recorder(m, 20))
    assert any(not torch.equal(v, m.get_buffer(k)) for k, v in before.items())


def test_energies_are_of_the_stage_that_training_has_reached():
    m, x = method().eval(), uniform(4, 1, 8, 8)
    for seen, stage, beta in ((5, 0, 1.0), (20, 1, 0.25), (60, 2, 0.75), (90, 2, 1.0)):
        pooled = F.avg_pool2d(x, 2 ** (2 - stage))
        expected = m.net(pooled, stage=stage, beta=beta)
        torch.testing.assert_close(at(m, seen).energy(x), expected)
        torch.testing.assert_close(m.energy(pooled), expected)
        drawn = m.sample(3, seed=1)
        assert drawn.shape == (3, 1, 8, 8)
        small = F.avg_pool2d(drawn, 2 ** (2 - stage))
        torch.testing.assert_close(F.interpolate(small, scale_factor=2.0 ** (2 - stage)), drawn)


# --- training

STD, A, ETA, STEPS = 0.1, 0.5, 0.1, 4


class Gaussian:
    """N(0, STD² I), 8×8."""

    name, shape, classes = "gaussian", (1, 8, 8), ()

    def batch(self, start: int, count: int, seed: int) -> Batch:
        return Batch(STD * random.normal(count, 1, 8, 8, generator=random.seeded(64, seed, start)))


def fixed_point() -> float:
    """a whose chain from the data's own law ends in its variance: (1 − a)^{2T} s² + Σ_t (1 − a)^{2(T − t)} η_t² = s²."""
    low, high = 1e-3, 0.9
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if chain_variance(STD**2, middle, STEPS, ETA) > STD**2 else (low, middle)
    return low


def z_score(a: float, repeats: int = 20, n: int = 800) -> float:
    """Of ∂loss/∂a, with chains that start at the data's law, as a translation between equal domains."""
    m = quadratic(a, chain_noise=ETA, stage_steps=(1, 1, STEPS), source="itself", batch=n, stage_images=(n, n, n))
    found = []
    for seed in range(repeats):
        update = Recorder(m, 4 * n, seed)
        x, source = (STD * random.normal(n, 1, 8, 8, generator=random.seeded(63, seed, k)) for k in (0, 1))
        m.step(UnpairedBatch(x, None, source), update)
        found += [float(g) for _, (g,) in update.gradients]
    rows = torch.tensor(found)
    return float(rows.mean() / (rows.std() / math.sqrt(len(rows))))


def test_the_gradient_vanishes_where_chains_keep_the_law_of_the_data():
    a = fixed_point()
    assert abs(z_score(a)) < BOUND
    assert z_score(1.3 * a) > BOUND, "too narrow samples: gradient descent lowers a"
    assert z_score(0.7 * a) < -BOUND


def test_training_goes_to_the_fixed_point():
    m = quadratic(0.9, chain_noise=ETA, stage_steps=(1, 1, STEPS), lr=2e-2, stage_lr_factors=(1,) * 3, source="itself", batch=256, ema=0.9,
                  stage_images=(256,) * 3, stage_splits=(1, 1, 1), images=256 * 150, beta1=0.0)  # fmt: skip
    found = tw.fit(m, Unpaired(Gaussian(), Gaussian()), progress=False)
    assert float(found.net.a) == pytest.approx(fixed_point(), rel=0.05)


def test_a_stage_learns_from_images_of_its_size_in_its_own_batches():
    m, seen = method(data_noise=0.0), []
    x = images().batch(0, 8, 0).x
    forward = m.net.forward
    m.net.forward = lambda x, *, stage, beta: (seen.append(x.detach()) if m.training else None) or forward(x, stage=stage, beta=beta)
    m.train()
    for start, names in ((0, ["energy_2"]), (16, ["energy_4"]), (48, ["energy_8"] * 2)):
        update = Recorder(m, start)
        seen.clear()
        m.step(Batch(x), update)
        assert [name for name, _ in update.gradients] == names
        trained = [part for part in seen if len(part) == 2 * 8 // len(names)]  # data and samples of an update
        data = torch.cat([part[: len(part) // 2] for part in trained])
        torch.testing.assert_close(data, F.avg_pool2d(x, 8 // data.shape[-1]))
    noisy = method(data_noise=0.5)
    noisy.net = Quadratic(0.0, noisy.net.sizes)
    update = Recorder(noisy, 0)
    noisy.step(Batch(torch.zeros(8, 1, 8, 8)), update)
    assert float(update.gradients[0][1][0]) != 0, "data noise gives zero images an energy"


def test_parts_are_the_same_rows_for_one_process_and_two():
    m, x = method(), torch.arange(16.0).view(16, 1, 1, 1)
    whole = [part.flatten().tolist() for part, _ in m._parts(Batch(x), 2, (random.seeded(0), random.seeded(1)))]
    ranks = [[p.flatten().tolist() for p, _ in m._parts(Batch(x[8 * r : 8 * r + 8]), 2, (random.seeded(r),))] for r in range(2)]
    assert whole == [one + two for one, two in zip(*ranks)]


def test_layers_of_a_later_stage_wait():
    for count, stage in ((16, 0), (32, 1)):
        m = method()
        before = {k: v.clone() for k, v in m.net.named_parameters()}
        tw.fit(m, images(), images=count, progress=False)
        moved = {k for k, v in m.net.named_parameters() if not torch.equal(before[k], v)}
        own = {id(p) for p in m.net.parameters_of(stage)}
        assert moved <= {k for k, v in m.net.named_parameters() if id(v) in own}
        assert f"from_rgb.{stage}.weight" in moved


@pytest.mark.parametrize("carry", [True, False])
def test_adam_s_moments_go_on_or_begin_anew(carry):
    """At a stage's first update a new layer's moments have counted one gradient, an old layer's 1 or those of the stage before too."""
    m = method(carry_optimizer=carry)
    counts: dict[str, list[float]] = {}
    step = type(m).step

    def spied(batch, update):
        step(m, batch, update)
        for name, optimizer in update.optimizers.items():
            counts.setdefault(name, []).append(sorted({float(s["step"]) for s in optimizer.state.values()}))

    m.step = spied
    tw.fit(m, images(), images=56, progress=False)
    assert counts["energy_2"] == [[1.0], [2.0]] + [[]] * 5, "dropped when the next stage takes over"
    assert counts["energy_4"][2:6] == [[float(k), *([2.0 + k] if carry else [])] for k in range(1, 5)]
    # two updates a batch
    assert counts["energy_8"][6] == ([2.0, 6.0, 8.0] if carry else [2.0])


@pytest.mark.parametrize("fields", [{}, {"carry_optimizer": False}, {"frozen_coarse": True}, {"coarse_to_fine": False}])
def test_a_run_resumes_bit_equal_inside_and_across_stages(tmp_path, fields):
    options = dict(seed=3, progress=False, save_every=8, log_every=8, sample_every=200)
    tw.fit(method(**fields), images(), tmp_path / "whole", **options)
    for stop in (8, 16, 32, 48, 64, 96):  # inside, at the end of a stage, and on
        tw.fit(method(**fields), images(), tmp_path / "parts", images=stop, **options)
    one, two = (tw.load(tmp_path / name) for name in ("whole", "parts"))
    assert all(torch.equal(v, two.state_dict()[k]) for k, v in one.state_dict().items())
    assert torch.equal(one.sample(3, seed=5), two.sample(3, seed=5))


def test_frozen_coarse_energies_stay_as_their_stage_left_them():
    m = method(frozen_coarse=True)
    twin = tw.fit(m, images(), images=16, progress=False)
    left = {k: v.clone() for k, v in m.net.state_dict().items()}
    twin = tw.fit(method(frozen_coarse=True), images(), images=96, progress=False)
    first = twin.coarse[0].state_dict()
    assert all(torch.equal(v, first[k]) for k, v in left.items()), "the first stage's end, to the last bit"
    assert any(not torch.equal(v, twin.net.state_dict()[k]) for k, v in left.items())
    calls = []
    for name, net in (("first", twin.coarse[0]), ("second", twin.coarse[1]), ("last", twin.net)):
        net.forward = lambda x, *, stage, beta, name=name, f=net.forward: calls.append((name, stage, beta)) or f(x, stage=stage, beta=beta)
    twin.sample(2)
    assert calls == [("first", 0, 1.0)] * 3 + [("second", 1, 1.0)] * 5 + [("last", 2, 1.0)] * 4


def test_frozen_starts_are_the_coarse_samples_alone():
    m = method(frozen_coarse=True, chain_noise=0.0)
    start = m._start(3, 1, 20, random.seeded(4), "cpu")
    assert torch.equal(start, F.interpolate(F.avg_pool2d(start, 2), scale_factor=2.0))


# --- sampling


def test_more_steps_than_trained_are_warned_of():
    m = at(method(), 1000)
    with pytest.warns(UserWarning, match="5 steps where 4 were trained: samples oversaturate"):
        m.sample(2, steps=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert m.sample(2, steps=4).shape == (2, 1, 8, 8)
    assert torch.equal(m.sample(2, seed=1), m.sample(2, seed=1)) and not torch.equal(m.sample(2, seed=1), m.sample(2, seed=2))


def test_inpainting_keeps_known_pixels_throughout():
    m, x = at(method(), 1000), uniform(3, 1, 8, 8)
    mask = tasks.masks.centre_square((1, 8, 8), 0.25)
    filled = tasks.inpaint(m, x, mask, completions=2, seed=1)
    known = mask.expand_as(filled)
    assert torch.equal(filled[known], x.expand_as(filled)[known]) and not torch.equal(filled[0], filled[1])
    trace = tw.sample.Trace(keep=5)
    constraint = tasks.Measured(tasks.operators.mask(mask), x * mask, torch.zeros_like(x))
    m.sample(3, constraint=constraint, trace=trace)
    assert torch.equal(trace.states[..., mask], x[..., mask].expand(5, -1, -1, -1)), "the start and every step"


def test_denoising_is_the_chain_from_the_noisy_image_within_reach_of_the_noise():
    m, y = at(quadratic(0.3, chain_noise=0.0), 1000), uniform(4, 1, 8, 8)
    torch.testing.assert_close(tasks.denoise(m, y, 2.0), 0.7**4 * y, msg="all of the chain lies within the radius 2·8")
    # the lowest energy ‖x‖² within 0.2·8 of y is on the way from y to 0
    shorter = 1 - 1.6 / y.flatten(1).norm(dim=1).view(4, 1, 1, 1)
    torch.testing.assert_close(tasks.denoise(m, y, 0.2), shorter * y)
    still = at(quadratic(0.0, chain_noise=0.0), 1000)
    torch.testing.assert_close(tasks.denoise(still, y, 0.2), y, msg="no move has no direction")
    noisy = at(quadratic(0.3), 1000)
    assert torch.equal(noisy.denoise(y, 0.2, seed=1), noisy.denoise(y, 0.2, seed=1))
    assert not torch.equal(noisy.denoise(y, 0.2, seed=1), noisy.denoise(y, 0.2, seed=2))


# --- translation


def test_unpaired_data_are_two_streams():
    a, b = images(40), images(40, seed=1)
    data = Unpaired(a, b)
    x, label, source = data.batch(5, 30, 7)
    assert torch.equal(x, a.batch(5, 30, 7).x) and label is None and data.shape == (1, 8, 8)
    rows = (source[:, None] == b.x[None]).flatten(2).all(2)
    assert rows.any(1).all(), "every source image is one of the source's"
    halves = torch.cat([data.batch(5, 15, 7).source, data.batch(20, 15, 7).source])
    assert torch.equal(halves, source)
    same = Unpaired(a, a).batch(0, 40, 7)
    assert int((same.x == same.source).flatten(1).all(1).sum()) < 10, "a set with itself is not paired"
    with pytest.raises(InputError, match=r"one shape, half has \[1, 4, 4\] and uniform0 \[1, 8, 8\]"):
        Unpaired(a, Images(uniform(4, 1, 4, 4), name="half"))


def test_training_chains_start_at_source_images():
    m = quadratic(0.0, chain_noise=0.0, source="there")
    for seen, factor in ((0, 4), (16, 2), (64, 1)):
        update = Recorder(m, seen)
        source = uniform(8, 1, 8, 8, seed=5)
        m.step(UnpairedBatch(torch.zeros(8, 1, 8, 8), None, source), update)
        # on a flat energy the chain stays, and ∂loss/∂a is −‖x⁻‖²/2
        expected = [-F.avg_pool2d(part, factor).square().flatten(1).sum(1).mean() / 2 for part in source.split(8 // len(update.gradients))]
        torch.testing.assert_close(torch.stack([g[0] for _, g in update.gradients]), torch.stack(expected))


def test_the_saliency_of_a_quadratic_energy():
    """Σ_t |a y_t| with y_t = (1 − a)^t x, for t = 0 … T − 1; channels add up."""
    a = 0.3
    m, x = quadratic(a, chain_noise=0.0, source="there", shape=(3, 8, 8)), uniform(40, 3, 8, 8)
    found = tasks.translate(at(m, 1000), x, frames=3)
    torch.testing.assert_close(found.x, 0.7**4 * x)
    torch.testing.assert_close(found.saliency, a * sum(0.7**t for t in range(4)) * x.abs().sum(1))
    torch.testing.assert_close(found.strip, torch.stack([x, 0.7**2 * x, 0.7**4 * x]))
    early = tasks.translate(at(m, 20), x, frames=2)  # at 4×4, five steps
    small = F.avg_pool2d(x, 2)
    torch.testing.assert_close(early.x, F.interpolate(0.7**5 * small, scale_factor=2.0))
    expected = a * sum(0.7**t for t in range(5)) * F.interpolate(small, scale_factor=2.0).abs().sum(1)
    torch.testing.assert_close(early.saliency, expected)


def test_translation_from_the_command_line(tmp_path):
    for name, data in (("here", images(60)), ("there", images(60, seed=1))):
        np.savez(tmp_path / f"{name}.npz", x=data.x.numpy())
    run, pictures = tmp_path / "run", tmp_path / "there.npz"
    fields = [f"--{k}={list(v) if isinstance(v, tuple) else v!s}" for k, v in SMALL.items() if k not in ("shape", "images")]
    train = ["train", "cf_ebm/translate", "--source", str(pictures), "--target", str(tmp_path / "here.npz"), "--images", "64"]
    assert main([*train, "--out", str(run), *fields]) == 0
    model = tw.load(run)
    assert (model.config.source, model.config.data) == (str(pictures), "here.npz") and model.trained_on["source"] == str(
        tmp_path / "here.npz"
    )
    assert list((run / "samples").glob("*.png"))
    assert main(["apply", "translate", str(run), "--input", str(pictures), "--out", str(tmp_path / "out.npz")]) == 0
    found = np.load(tmp_path / "out.npz")
    expected = tasks.translate(model, images(60, seed=1).x)
    assert found["translated"].shape == (60, 1, 8, 8) and found["strip"].shape == (8, 60, 1, 8, 8)
    assert np.array_equal(found["saliency"], expected.saliency.numpy())
    np.savez(tmp_path / "few.npz", x=images(2).x.numpy())
    assert main(["apply", "translate", str(run), "--input", str(tmp_path / "few.npz"), "--out", str(tmp_path / "out.png")]) == 0
    assert (tmp_path / "out.png").stat().st_size > 500
    # samples of a translation are translations of the source's test images
    assert main(["sample", str(run), "-n", "4", "--out", str(tmp_path / "drawn.npz")]) == 0
    start = model.starts(4)["start"]
    assert torch.equal(start, tw.data.load(pictures, "test", size=8).batch(0, 4, seed=0).x)
    assert np.array_equal(np.load(tmp_path / "drawn.npz")["x"], model.sample(4, start=start).numpy())
    assert main(["sample", str(run), "-n", "4", "--chain-noise", "0", "--out", str(tmp_path / "still.npz")]) == 0
    assert np.array_equal(np.load(tmp_path / "still.npz")["x"], model.sample(4, start=start, chain_noise=0.0).numpy())
    assert main(["evaluate", str(run), "--metrics", "cost", "-n", "8"]) == 0
    assert json.loads((run / "metrics.json").read_text())["cost"]["n"] == 8


@pytest.mark.parametrize("words", [["cf_ebm/digits", "--target", "digits"], ["cf_ebm/translate", "--target", "digits", "--data", "digits"]])
def test_a_target_without_a_source_is_refused(words, capsys):
    assert main(["train", *words, "--dry-run"]) == 2
    assert "--target names the data of a translation" in capsys.readouterr().err


def test_a_translation_begins_at_source_images_of_its_own_shape(tmp_path):
    np.savez(tmp_path / "wide.npz", x=uniform(40, 1, 8, 16).numpy())
    m = method(source=str(tmp_path / "wide.npz"), shape=(1, 8, 16))
    assert m.config.data_needs == DataNeeds(source=m.config.source) and method().config.data_needs.source == ""
    start = m.starts(5, seed=3)["start"]
    assert torch.equal(start, tw.data.load(tmp_path / "wide.npz", "test").batch(0, 5, seed=3).x) and start.shape == (5, 1, 8, 16)
    assert at(m, 1000).sample(5, start=start).shape == (5, 1, 8, 16)
    assert method().starts(5) == {}
    kept = tw.save(m, tmp_path / "kept")
    assert not any(str(tmp_path) in path.read_text() for path in kept.iterdir() if path.suffix in (".json", ".md"))
    again = tw.load(kept)
    assert again.config.source == "wide.npz" and torch.equal(
        tw.tasks.translate(at(again, 1000), start).x, tw.tasks.translate(at(m, 1000), start).x
    )
    with pytest.raises(InputError, match=r"wide\.npz"):
        again.starts(5)


def test_the_best_translation_is_chosen_by_held_out_images_of_both():
    m = at(method(source="there"), 1000)
    x, source = uniform(20, 1, 8, 8), uniform(20, 1, 8, 8, seed=1)
    found = m.criterion(UnpairedBatch(x, None, source), random.seeded(0))
    expected = tw.evaluate.energy_distance(m.sample(20, seed=1, start=source).flatten(1), x.flatten(1))
    assert found == pytest.approx(float(expected))


# --- chains that start at images with noise


def test_training_chains_start_at_the_batch_with_noise():
    m, n = quadratic(0.0, chain_noise=0.0, start_noise=0.15, batch=800, stage_images=(800,) * 3, stage_splits=(1, 1, 1)), 800
    x = 0.3 * uniform(n, 1, 8, 8, seed=7)  # which noise does not take out of [−1, 1]
    for seen, factor in ((0, 4), (800, 2), (1600, 1)):
        update = Recorder(m, seen)
        m.step(Batch(x), update)
        # on a flat energy the chain stays, ∂loss/∂a is ‖x‖²/2 − ‖x + σε‖²/2, and pixels are averaged: −½ d σ²/factor² on average
        data, dim = F.avg_pool2d(x, factor).flatten(1), (8 // factor) ** 2
        variance = 0.15**2 / factor**2
        error = math.sqrt(float((variance * data.square().sum(1)).mean() + dim * variance**2 / 2) / n)
        assert abs(float(update.gradients[0][1][0]) + dim * variance / 2) < BOUND * error


def test_denoising_ends_in_the_variance_of_the_data():
    """Without noise in the chain the factor (1 − a)^T is s/√(s² + σ²), not the posterior mean's s²/(s² + σ²)."""
    noise = 0.15
    m = quadratic(0.5, chain_noise=0.0, start_noise=noise, stage_steps=(1, 1, STEPS), lr=2e-2, stage_lr_factors=(1,) * 3, batch=256,
                  ema=0.9, stage_images=(256,) * 3, stage_splits=(1, 1, 1), images=256 * 150, beta1=0.0)  # fmt: skip
    found = tw.fit(m, Gaussian(), progress=False)
    factor = STD / math.sqrt(STD**2 + noise**2)
    assert (1 - float(found.net.a)) ** STEPS == pytest.approx(factor, rel=0.03)
    y = uniform(5, 1, 8, 8)
    torch.testing.assert_close(tasks.denoise(found, y, noise), (1 - found.net.a.detach()) ** STEPS * y)


def test_denoising_from_the_command_line(tmp_path, capsys):
    np.savez(tmp_path / "here.npz", x=images(60).x.numpy())
    run = tmp_path / "run"
    fields = [f"--{k}={list(v) if isinstance(v, tuple) else v!s}" for k, v in SMALL.items() if k not in ("shape", "images")]
    train = ["train", "cf_ebm/denoise", "--data", str(tmp_path / "here.npz"), "--images", "64"]
    assert main([*train, "--out", str(run), *fields]) == 0
    model = tw.load(run)
    assert model.config.start_noise == 0.2 and list((run / "samples").glob("*.png"))
    assert (
        main(["apply", "denoise", str(run), "--input", str(tmp_path / "here.npz"), "--std", "0.2", "--out", str(tmp_path / "out.npz")]) == 0
    )
    assert np.array_equal(np.load(tmp_path / "out.npz")["denoised"], tasks.denoise(model, images(60).x, 0.2).numpy())
    # samples are test images with noise, denoised
    assert main(["sample", str(run), "-n", "4", "--out", str(tmp_path / "drawn.npz")]) == 0
    start = model.starts(4)["start"]
    moved = start - tw.data.load(tmp_path / "here.npz", "test", size=8).batch(0, 4, seed=0).x
    assert abs(float(moved.std()) - 0.2) < BOUND * 0.2 / math.sqrt(2 * 4 * 64)
    assert np.array_equal(np.load(tmp_path / "drawn.npz")["x"], model.sample(4, start=start).numpy())
    card = (tw.save_pretrained(model, tmp_path / "kept") / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0].replace("FOLDER_OR_NAME", str(tmp_path / "kept"))
    used = {"images": images(64).x}
    exec(code, used)
    assert used["x"].shape == (64, 1, 8, 8) and used["e"].shape == (64,)


def test_the_best_denoiser_is_chosen_by_held_out_images_with_noise():
    m, x = at(method(start_noise=0.3), 1000), uniform(20, 1, 8, 8)
    noisy = x + 0.3 * random.normal_like(x, random.seeded(0))
    expected = tw.evaluate.energy_distance(m.sample(20, seed=1, start=noisy).flatten(1), x.flatten(1))
    assert m.criterion(Batch(x), random.seeded(0)) == pytest.approx(float(expected))


# --- errors


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: method(stage_steps=(3, 5)), "one value a stage in each, got stage_steps 2, stage_images 3"),
        (lambda: method(stage_steps=(), stage_images=(), stage_lr_factors=(), stage_splits=()), "got stage_steps 0"),
        (lambda: method(stage_splits=(1, 1, 3)), r"a batch of 8 does not divide into stage_splits = \(1, 1, 3\)"),
        (lambda: method(stage_images=(16, 4, 32)), r"each of stage_images = \(16, 4, 32\) must be a batch of 8 or more"),
        (lambda: method(frozen_coarse=True, source="there"), "frozen_coarse starts chains at coarse samples"),
        (lambda: method(frozen_coarse=True, start_noise=0.1), "no source and no start_noise"),
        (lambda: method(start_noise=0.1, source="there"), "start at images of there or at images with start_noise, not at both"),
        (lambda: method(start_noise=0.1).sample(2), "this model denoises; give images with noise as start"),
        (lambda: method(frozen_coarse=True, coarse_to_fine=False), "frozen_coarse starts chains at coarse samples"),
        (lambda: method(shape=(1, 6, 8)), "3 stages need sides that divide by 4, to 2 pixels or more, got 6×8"),
        (lambda: method(shape=(1, 4, 4)), "to 2 pixels or more, got 4×4"),
        (lambda: method(activation="tanh"), "net.activation = 'tanh'"),
        (lambda: method(shape=(2,)), "shape"),
        (lambda: method().sample(2, start=torch.zeros(2, 1, 4, 4)), r"start must have shape \(2, 1, 8, 8\), got \(2, 1, 4, 4\)"),
        (lambda: method().sample(2, steps=0), "steps must be 1 or more and chain_noise 0 or more, got steps = 0"),
        (lambda: method().sample(2, chain_noise=-0.1), "got steps = None, chain_noise = -0.1"),
        (lambda: method(source="there").sample(2), "this model translates images of there; give them as start"),
        (lambda: method().sample(2, constraint=lambda x, s, n: x), "a constraint needs images of 8×8, and training has reached 2×2"),
        (lambda: method().denoise(torch.zeros(1, 1, 8, 8), 0.1), "denoise needs images of 8×8, and training has reached 2×2"),
        (lambda: method().denoise(torch.zeros(1, 1, 8, 8), 0.0), "denoise needs std above 0, got 0.0"),
        (lambda: tw.fit(method(source="there"), images(), progress=False), "needs its images too; train on data.Unpaired"),
        (lambda: tw.fit(method(coarse_to_fine=False), images(), batch=9, progress=False), "a batch of 9 does not divide over 1 processes"),
        (lambda: method(source="a").criterion(images().batch(0, 4, 0), random.seeded(0)), "held-out images of it too"),
        (lambda: tasks.translate(method(), torch.zeros(1, 1, 8, 8)), "needed is the ability 'translate'"),
        (lambda: tasks.translate(method(source="a"), torch.zeros(1, 1, 4, 4)), r"need floating-point \[N, 1, 8, 8\]"),
        (lambda: tasks.translate(method(source="a"), torch.zeros(1, 1, 8, 8), frames=1), "frames must be a whole number of 2 or more"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
