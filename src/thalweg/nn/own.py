"""The spec of a network of one's own: any `nn.Module` of the signature (x[, t][, label]) that the other specs' networks have.

A config says its class's name, and holds the module beside what is written to disk: config.json has no code, so that whoever loads such a
model gives the network again, tw.load(FOLDER, net=MyEnergy()).
"""

from typing import TYPE_CHECKING, Any, Literal

from pydantic.dataclasses import dataclass

from thalweg.config import STRICT
from thalweg.errors import InputError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, config=STRICT)
class Own:
    """A network of one's own, by the name of its class; `Own.of(module)` holds the module too."""

    kind: Literal["own"] = "own"
    name: str = ""
    """the class of the module"""

    @classmethod
    def of(cls, module: "nn.Module") -> "Own":
        """The spec that builds this very module."""
        spec = cls(name=type(module).__name__)
        object.__setattr__(spec, "_module", module)  # no field: never written, compared or validated
        return spec

    def build(self, shape: tuple[int, ...], *, out: int = 0, channels: int = 0, levels: bool = False, classes: int = 0) -> "nn.Module":
        """The module itself, in float32, tried once on two examples of zeros; `thalweg.nn.build` says what is asked of it.

        InputError where the config came without a module, and where it fails or gives anything else.
        """
        module = vars(self).get("_module")
        if module is None:
            raise InputError(
                f"the network {self.name or 'of kind own'} is one of your own, whose code no file holds: give it in Python as net=, for "
                f"example tw.load(FOLDER, net={self.name or 'MyEnergy'}())"
            )
        if next(module.parameters(), None) is None:
            raise InputError(f"net: {self.name} has no parameters, so that there is nothing to train")
        module.float()
        _check(module, self.name, tuple(shape), out=out, channels=channels, levels=levels or channels > 0, classes=classes)
        return module


def _check(module: Any, name: str, shape: tuple[int, ...], *, out: int, channels: int, levels: bool, classes: int) -> None:
    """InputError unless the module gives what is asked of it for two examples of zeros."""
    import torch

    weight = next(module.parameters())
    x = torch.zeros(2, *shape, device=weight.device, dtype=weight.dtype)
    where = torch.ones(2, dtype=torch.long, device=weight.device)
    given, text = (x, where) if levels else (x,), "x, t" if levels else "x"
    condition = {"label": torch.zeros_like(where)} if classes else {}
    call = f"{name}({text}{', label=label' if classes else ''})"
    training = module.training
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            found = module.eval()(*given, **condition)
    except Exception as error:  # whatever one's own code raises
        said = next(iter(str(error).strip().splitlines()), "")
        raise InputError(
            f"net: {call} fails for x of shape {list(x.shape)}, which this model is of: {type(error).__name__}: {said}"
        ) from error
    finally:
        module.train(training)
    numbers = None if channels and not out else [2, out] if out else [2]
    if channels:
        pair = isinstance(found, tuple) and len(found) == 2
        if not (pair and _shape(found[0]) == [2, channels, *shape[1:]] and (numbers is None or _shape(found[1]) == numbers)):
            wanted = f"a pair of a map {[2, channels, *shape[1:]]} and {numbers or 'anything'}"
            raise InputError(f"net: {call} must give {wanted} for x of shape {list(x.shape)}, got {_said(found)}")
    elif _shape(found) != numbers:
        hint = "; one energy for each example, for example .flatten(1).sum(1)" if not out else ""
        raise InputError(f"net: {call} must give {numbers} for x of shape {list(x.shape)}, got {_said(found)}{hint}")


def _shape(value: Any) -> list[int] | None:
    import torch

    return list(value.shape) if isinstance(value, torch.Tensor) and value.is_floating_point() else None


def _said(value: Any) -> str:
    import torch

    if isinstance(value, tuple):
        return f"({', '.join(map(_said, value))})"
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
