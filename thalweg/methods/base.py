"""The one abstract class: what the loop and the command line ask of a method."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from torch import Tensor, nn

from thalweg import random
from thalweg.data.base import Batch
from thalweg.errors import InputError, nearest

# types of Config fields
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
# of every method's Config: unknown fields are refused, so that a misspelt one is noticed
STRICT = ConfigDict(extra="forbid", arbitrary_types_allowed=False)


class Method(nn.Module, ABC):
    """A training algorithm and its networks. Subclasses are final; they share by calling functions, not by inheriting.

    A method owns the order of its updates: `step` computes losses and hands each to `update`, the loop's one verb. All
    randomness inside `step` is drawn from `update.generator`. Chains and other state that must survive a restart are
    buffers. `sample` and `energy` are called on the EMA twin, a copy that the loop keeps.
    """

    name: ClassVar[str]
    Config: ClassVar[type]
    PRESETS: ClassVar[Mapping[str, Any]]
    # what `energy` takes, for methods that have one: examples of the data, or latents of its own
    energy_of: ClassVar[Literal["examples", "latents"]] = "examples"
    # logged keys whose magnitude the divergence guard watches
    guarded: ClassVar[tuple[str, ...]] = ()
    # whether `sample` draws samples; an encoder has none
    generative: ClassVar[bool] = True
    # buffers whose rows are chains of their own: in a data-parallel run each rank holds an equal part of the rows
    sharded: tuple[str, ...] = ()

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """A new optimizer for each name that `step` passes to `update`."""

    @abstractmethod
    def step(self, batch: Batch, update: Any) -> None:
        """One iteration on a batch: every loss goes to `update(name, loss)`."""

    @abstractmethod
    def sample(self, n: int, *, seed: int = 0, **options: Any) -> Tensor:
        """`n` samples [n, ...], images in [−1, 1]; the same seed gives the same samples."""

    @property
    def notice(self) -> str:
        """One line for whoever begins to train this model as it is configured; empty where there is nothing to say."""
        return ""

    def learning_rate(self, name: str, images: int) -> float:
        """What multiplies the base learning rate of optimizer `name` after `images` images; 1 unless a method has a schedule."""
        return 1.0

    def criterion(self, held_out: Batch, generator: random.Generator) -> float:
        """How well the model does on held-out data, lower is better; the loop keeps the best state by it.

        By default the energy distance between samples and `held_out`; a method with a held-out loss uses that.
        """
        from thalweg.evaluate import energy_distance

        return float(energy_distance(self.sample(len(held_out.x), seed=1).flatten(1), held_out.x.flatten(1)))


def make_config(kind: type, values: Mapping[str, Any], *, what: str) -> Any:
    """A validated Config of `kind` from plain values (a loaded JSON, options); InputError names the field and the range."""
    known = [f.name for f in fields(kind)]
    for key in values:
        if key not in known:
            raise InputError(f"{what} has no field '{key}'{nearest(key, known)}. Its fields: {', '.join(known)}")
    try:
        return TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        raise InputError(f"{what}: " + "; ".join(_explain(e) for e in error.errors())) from None


def _explain(error: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in error["loc"]) or "config"
    return f"{place} = {error['input']!r}: {error['msg'][0].lower()}{error['msg'][1:]}"


def changed(config: Any, **values: Any) -> Any:
    """`config` with some fields replaced, validated again."""
    merged = {f.name: getattr(config, f.name) for f in fields(config)} | values
    return make_config(type(config), merged, what=type(config).__qualname__)


def warm_up_cosine(updates: float, warm_up: int, done: float) -> float:
    """The factor of a learning rate that rises over `warm_up` updates and falls as a cosine to 0 at `done` = 1, the share of training."""
    return min(1.0, (updates + 1) / max(1, warm_up)) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def class_labels(label: Tensor | int, n: int, classes: int, device: torch.device) -> Tensor:
    """Class labels [n] from one, or n of them; InputError for another number of labels, and where one is not in 0 … classes − 1."""
    labels = torch.as_tensor(label, device=device)
    if labels.dim() > 1 or labels.numel() not in (1, n):
        raise InputError(f"label must be one label or {n}, one a sample, got shape {list(labels.shape)}")
    labels = labels.expand(n)
    if labels.min() < 0 or labels.max() >= classes:
        raise InputError(f"labels must be between 0 and {classes - 1}, got {int(labels.min())} to {int(labels.max())}")
    return labels


def fitted_to(config: Any, data: Any) -> Any:
    """`config` with `shape` and `classes` taken from `data`, where they differ from the preset's."""
    return replace(config, shape=tuple(data.shape), classes=len(data.classes))
