"""Where the compiler fails, its function runs as it is, with one warning."""

import warnings

import pytest
import torch
from torch._dynamo.exc import BackendCompilerFailed
from torch._inductor.exc import InductorError

from thalweg import compiled, random, sample
from thalweg.compiled import Faster, compiled_or_eager


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BackendCompilerFailed(lambda: None, RuntimeError("no compiler"), None), "backend='<lambda>' raised"),
        (InductorError(NameError("name 'x' is not defined"), None), "NameError: name 'x' is not defined"),  # a cached file is broken
    ],
    ids=["backend", "inductor"],
)
def test_a_compiler_that_fails_is_asked_once(error, reason, monkeypatch):
    asked = []

    def fail(*arguments):
        asked.append(arguments)
        raise error

    monkeypatch.setattr(torch, "compile", lambda function, dynamic: fail)
    twice = compiled_or_eager(lambda x: 2 * x, "twice runs")
    with pytest.warns(UserWarning, match=rf"thalweg: twice runs uncompiled \({reason}"):
        assert twice(3) == 6
    with warnings.catch_warnings(record=True) as more:
        assert twice(4) == 8
    assert asked == [(3,)] and not more


def test_errors_of_the_function_itself_are_not_hidden(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: function)
    with pytest.raises(ZeroDivisionError):
        compiled_or_eager(lambda x: 1 / x, "it runs")(0)


class Clock:
    """Time that passes only where a step is made."""

    now = 0.0

    def step(self, seconds: float, name: str, calls: list[str]):
        def made(x: torch.Tensor) -> torch.Tensor:
            calls.append(name)
            # compiling takes long, and is not what a step takes
            self.now += seconds + (100.0 if len(calls) in (1, 5) else 0.0)
            return x + 1

        return made


@pytest.mark.parametrize("quicker", ["eager", "compiled"])
def test_the_faster_of_two_ways_is_found_and_kept(quicker, monkeypatch):
    clock, calls = Clock(), []
    monkeypatch.setattr(compiled, "_now", lambda x: clock.now)
    ways = [clock.step(1.0 if name == quicker else 2.0, name, calls) for name in ("eager", "compiled")]
    found, x = Faster(calls=4), torch.zeros(1)
    for _ in range(2):  # two chains of six steps
        move = found.choose(*ways)
        for _ in range(6):
            x = move(x)
    assert calls == ["eager"] * 4 + ["compiled"] * 4 + [quicker] * 4 and float(x) == 12
    again = Faster()
    again.load_state_dict(found.state_dict())
    assert again.choose(*ways)(x) == x + 1 and calls[-1] == quicker, "a run that goes on takes the same way"


def test_chains_take_the_same_steps_either_way(monkeypatch):
    """With a compiler that leaves functions as they are, a chain that measures is the chain that does not."""
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: function)
    sample._compiled_move.cache_clear()
    start, faster = random.normal(5, 3, generator=random.seeded(1)), Faster(calls=2)

    def energy(x: torch.Tensor) -> torch.Tensor:
        return x.square().sum(1) / 2

    plain, measured = (
        sample.langevin(energy, start, steps=12, step=0.3, compile=how, generator=random.seeded(2)) for how in (False, faster)
    )
    torch.testing.assert_close(plain, measured)
    assert int(faster.compiled) in (0, 1)
    sample._compiled_move.cache_clear()


def test_a_spec_says_how_its_chain_is_run():
    from thalweg.chain import MALA, Langevin

    assert Faster.of(Langevin()) is False and Faster.of(Langevin(compile=True)) is True and Faster.of(MALA()) is False
    assert isinstance(Faster.of(Langevin(compile="auto")), Faster)
