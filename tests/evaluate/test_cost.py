"""Counts of evaluations for known chains, memory against sums by hand and against the profiler."""

import dataclasses
import json

import pytest
import torch
from torch import Tensor, nn

import thalweg as tw
from thalweg.chain import MALA, Langevin
from thalweg.errors import InputError
from thalweg.evaluate.cost import cost


def egc():
    return tw.method("egc/digits", width=16, blocks=1, levels=50)


def short_run(**settings):
    return tw.method("short_run", width=16, start="noise", reference_std=1.0, **settings)


@pytest.mark.parametrize(
    ("method", "options", "evaluations"),
    [
        (egc(), {"steps": 7, "eta": 0.0}, 7),  # DDIM: one evaluation a step
        (egc(), {"steps": 5, "label": 3, "guidance": 2.0}, 5),  # guided too
        (egc(), {}, 50),
        (short_run(chain=Langevin(steps=9)), {}, 9),
        (short_run(chain=Langevin(steps=9)), {"steps": 4}, 4),
        (short_run(chain=Langevin(steps=9), data_noise=0.1), {}, 10),  # one more to take the noise off
        (short_run(chain=MALA(steps=9)), {}, 10),  # and one for the energy at the start
    ],
)
def test_evaluations_of_known_chains(method, options, evaluations):
    report = cost(method, 6, **options)
    assert report.evaluations == report.gradients == evaluations
    assert report.networks == {"net": evaluations}
    assert report.parameters == sum(p.numel() for p in method.parameters()) and report.n == 6
    assert report.seconds > 0 and report.memory > 0 and (report.device, report.memory_source) == ("cpu", "tensors")


def test_evaluations_without_a_gradient_are_told_apart():
    # MALA needs gradients, a jump of the independence sampler only energies: two before each jump and two a jump
    report = cost(short_run(chain=MALA(steps=4, jumps=1, jump_every=2)), 5)
    assert report.gradients == 2 * 3 and report.evaluations == 2 * (3 + 2)


class Pieces(nn.Module):
    """A method of several networks, which takes rows of its own number through each."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4))
        self.levels = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 2)])
        self.activation = nn.Tanh()
        self.seeds = []

    @torch.no_grad()
    def sample(self, n: int, *, seed: int = 0, fail: bool = False) -> Tensor:
        self.seeds.append(seed)
        x = self.first(torch.ones(2 * n, 3))
        x = self.levels[0](input=self.activation(x))
        if fail:
            raise RuntimeError("no sample")
        return self.levels[1](x[:n])


def test_networks_are_counted_by_name_and_by_row():
    method = Pieces()
    report = cost(method, 5, seed=3)
    assert report.networks == {"first": 2.0, "levels.0": 2.0, "levels.1": 1.0}
    assert (report.evaluations, report.gradients, report.parameters) == (5.0, 0.0, 16 + 20 + 20 + 10)
    assert method.seeds == [3, 3]
    with pytest.raises(RuntimeError, match="no sample"):
        cost(method, 5, fail=True)
    assert not any(module._forward_hooks for module in method.modules())  # nothing stays behind
    plain = json.loads(json.dumps(dataclasses.asdict(report), allow_nan=False))
    assert plain["networks"]["first"] == 2.0


class Buffers(nn.Module):
    """Tensors of known size: 1000 float32 values are 4000 bytes."""

    def __init__(self, draw) -> None:
        super().__init__()
        self.net, self.draw = nn.Linear(1000, 1), draw

    @torch.no_grad()
    def sample(self, n: int, *, seed: int = 0) -> Tensor:
        return self.draw(self, n)


def one_after_the_other(method, n):
    a = torch.zeros(n, 1000)
    b = a + 1
    del a
    return b * 2  # two at a time


def all_at_once(method, n):
    a = torch.zeros(n, 1000)
    b = a + 1
    return a + b


def in_place_and_views(method, n):
    x = torch.zeros(n, 1000).add_(1)
    return x.view(-1).view(n, 1000)[:, ::2].T + method.net.weight.expand(n, 1000).T[::2]  # the sum is [500, n]


def in_half(method, n):
    return torch.zeros(n, 1000, dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("draw", "expected"), [(one_after_the_other, 8000), (all_at_once, 12000), (in_place_and_views, 6000), (in_half, 2000)]
)
def test_memory_is_the_peak_of_what_is_alive(draw, expected):
    for n in (1, 10):
        assert cost(Buffers(draw), n).memory == expected


def profiled(sample) -> int:
    """The peak of PyTorch's own record of its allocations."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profile:
        sample()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = torch.tensor([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]).cumsum(0)
    return int(held.max())


def test_memory_is_that_of_the_profiler_where_kernels_need_none_of_their_own():
    method = short_run(chain=MALA(steps=3))
    method.sample(32)
    expected = profiled(lambda: method.sample(32))
    assert cost(method, 32).memory == pytest.approx(expected / 32, rel=1e-4)


def test_memory_of_a_chain_grows_with_the_batch_and_not_with_its_length():
    method = egc()
    small, large = cost(method, 16, steps=2), cost(method, 64, steps=2)
    assert small.memory == pytest.approx(large.memory, rel=0.01)
    assert cost(method, 16, steps=12).memory == pytest.approx(small.memory, rel=0.01)
    assert cost(method, 16, steps=2).memory == small.memory == pytest.approx(11536.5, rel=1e-4)  # bytes a sample


def test_wrong_input_is_refused():
    for n in (0, 2.5, "3"):
        with pytest.raises(InputError, match="need a whole number of samples"):
            cost(egc(), n)
    with pytest.raises(InputError, match="no network with parameters"):
        cost(nn.Sequential(nn.Tanh()), 2)
