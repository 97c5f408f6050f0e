"""Specs of chains: the knobs of a sampler, bound once in a config and called like a function.

    chain = Langevin(steps=60, step=0.1)
    negative = chain(energy, start, generator=g, trace=trace, label=label)

Every chain takes images of several channels in the memory layout in which convolutions are fast, keeps to the box or the constraint that it
is given, and raises Diverged where it ends non-finite (`thalweg.sample`). torch is imported when the first chain runs.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import Field
from pydantic.dataclasses import dataclass

from thalweg.config import STRICT, Count, Fraction, NotNegative, Positive, Whole
from thalweg.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from thalweg import random
    from thalweg.compiled import Faster
    from thalweg.energy import Energy
    from thalweg.sample import Constraint, Trace


class Jump(NamedTuple):
    """A distribution that chains may jump from: `propose(n)` draws [n, ...], `energy` is its own, up to a constant."""

    propose: "Callable[[int], Tensor]"
    energy: "Energy"


@dataclass(frozen=True, config=STRICT)
class Langevin:
    """Unadjusted Langevin dynamics, x ← x − s²/2 ∇E(x) + s τ ξ."""

    kind: Literal["langevin"] = "langevin"
    steps: Whole = 60
    """K, steps of a chain"""
    step: Positive = 0.1
    """s"""
    noise: NotNegative = 1.0
    """τ, weight of the noise (1: exact dynamics; 0: gradient descent)"""
    clip: NotNegative = 0.0
    """bound on each element of the gradient's move, 0 for none"""
    clamp: bool = False
    """keep chains in [−1, 1]"""
    compile: Literal[True, False, "auto"] = False
    """compile the step of training chains: a wait at the start, then Langevin on images may be faster; "auto" takes the time of both"""

    def __call__(
        self,
        energy: "Energy",
        x: "Tensor",
        *,
        generator: "random.Generator" = None,
        trace: "Trace | None" = None,
        steps: int | None = None,
        step: float | None = None,
        noise: Any = None,
        project: "Callable[[Tensor], Tensor] | None" = None,
        compile: "bool | Faster" = False,
        **condition: Any,
    ) -> "Tensor":
        """A chain from x [B, ...]: `steps`, `step` and `noise` stand in for the spec's; `project` as in `sample.langevin`.

        `compile` asks for what the spec allows: chains of training say yes, or give the `compiled.Faster` of an "auto", which is not
        compiled without; those of samples, whose shapes differ, do not ask.
        """
        from thalweg import sample

        return sample.langevin(
            energy,
            channels_last(x),
            steps=self.steps if steps is None else steps,
            step=self.step if step is None else step,
            noise=self.noise if noise is None else noise,
            clip=self.clip or None,
            clamp=(-1.0, 1.0) if self.clamp else None,
            project=project,
            compile=(False if isinstance(compile, bool) else compile) if self.compile == "auto" else bool(compile) and self.compile,
            generator=generator,
            trace=trace,
            **condition,
        )


@dataclass(frozen=True, config=STRICT)
class MALA:
    """Metropolis-adjusted Langevin dynamics, whose step may adapt, and jumps between modes."""

    kind: Literal["mala"] = "mala"
    steps: Whole = 10
    """K, steps of a chain"""
    step: Positive = 0.1
    """s, where it begins"""
    target_acceptance: Fraction = 0.0
    """the step adapts towards this acceptance, 0 for a fixed step"""
    jumps: Whole = 0
    """proposals from a distribution that covers all modes after every `jump_every` steps, accepted or not: ours, for few dimensions"""
    jump_every: Count = 10
    """steps between jumps"""

    def __call__(
        self,
        energy: "Energy",
        x: "Tensor",
        *,
        generator: "random.Generator" = None,
        trace: "Trace | None" = None,
        steps: int | None = None,
        step: float | None = None,
        jump: Jump | None = None,
        project: None = None,
        compile: bool = False,
        **condition: Any,
    ) -> "Tensor":
        """A chain from x [B, ...]: `steps` and `step` stand in for the spec's; `jump` is where its jumps come from.

        Raises InputError for a `project`: accepted moves do not stay on a set.
        """
        from thalweg import sample

        if project is not None:
            raise InputError("a constraint needs a chain of kind 'langevin': Metropolis-adjusted chains would not stay on it")
        steps, step = self.steps if steps is None else steps, self.step if step is None else step
        x, common = channels_last(x), dict(generator=generator, **condition)
        if not self.jumps or jump is None:
            return sample.mala(energy, x, steps=steps, step=step, trace=trace, **common)
        for done in range(0, steps, self.jump_every):
            x = sample.mala(energy, x, steps=min(self.jump_every, steps - done), step=step, trace=trace, **common)
            x = sample.independence(energy, x, propose=jump.propose, proposal_energy=jump.energy, steps=self.jumps, **common)
        return x


# what a config's field may say
Chain = Annotated[Langevin | MALA, Field(discriminator="kind")]


def channels_last(x: "Tensor") -> "Tensor":
    """Images of several channels in the layout in which convolutions are fast; other tensors as they are."""
    import torch

    return x.to(memory_format=torch.channels_last) if x.dim() == 4 and x.shape[1] > 1 else x


def measured_back(constraint: "Constraint | None", signal: float = 1.0, noise: float = 0.0) -> "Callable[[Tensor], Tensor] | None":
    """The constraint at one noise level as a function of the state, for `project`; None for none."""
    if constraint is None:
        return None
    return lambda x: constraint(x, signal, noise)
