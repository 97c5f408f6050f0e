"""Encoders of a method: what a config's `pretrained` names, read from the folder of a run or an exported model of `ssl` and frozen, one
given from Python, or one that learns along with the method."""

from pathlib import Path
from typing import Literal, NamedTuple

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from thalweg import checkpoint
from thalweg.config import STRICT, NotNegative, Positive, make_config
from thalweg.errors import InputError
from thalweg.nn.build import ResNet


@dataclass(frozen=True, config=STRICT)
class Contrastive:
    """An encoder that learns with the energy, as in CLEL (Lee et al., ICLR 2023): by SimCLR's loss, negatives among the others."""

    kind: Literal["contrastive"] = "contrastive"
    lr_encoder: Positive = 2e-3
    """base learning rate of its Adam"""
    weight_decay: NotNegative = 1e-6
    """of its Adam"""
    softmax_temperature: Positive = 0.5
    """T of SimCLR's loss (CLEL's released code has 0.2)"""

    def optimizer(self, encoder: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(encoder.parameters(), lr=self.lr_encoder, weight_decay=self.weight_decay, fused=True)


OWN = "own:"  # before the name of an encoder that was given from Python


class FrozenEncoder(NamedTuple):
    """An encoder as a method keeps it."""

    module: nn.Module | None
    """from examples [B, ...] to vectors [B, dim], in evaluation mode, its weights without gradients unless it learns; None for none"""
    dim: int
    """values of a vector, 0 for no encoder"""
    name: str
    """what the config says of it"""
    net: ResNet | None
    """its network, of one that was read"""
    known: bool
    """whether it has its weights; those of a saved model come later, with the model's"""


def frozen_encoder(
    name: str, net: ResNet | None, shape: tuple[int, ...], given: nn.Module | None = None, *, learns: bool = False
) -> FrozenEncoder:
    """The encoder of a config whose `pretrained` is `name` and whose `encoder` is `net`, for examples of `shape`, or the one `given`.

    One that `learns` is not frozen, and without a name it is new. With a `net` it is built and nothing is read: it belongs to a model that
    was saved. InputError for a folder that holds no encoder of such examples, for a `given` one that does not make vectors of them, and
    for one whose code is not kept.
    """
    if given is not None:
        encoder = given.eval().requires_grad_(learns)
        return FrozenEncoder(encoder, _dimension(encoder, shape), OWN + type(given).__name__, None, True)
    if name.startswith(OWN):
        raise InputError(
            f"this model's encoder is one of its user's own ({name.removeprefix(OWN)}), whose code is not kept: "
            "build LIEBM(config, encoder=...) and fill it by load_state_dict"
        )
    if not name and not learns:
        return FrozenEncoder(None, 0, "", None, False)
    if len(shape) != 3:
        raise InputError(f"encoders of ssl are for images [C, H, W], got shape {tuple(shape)}; give one of your own from Python")
    tensors = None
    if net is None:
        net, tensors = _read(Path(name), shape) if name else (ResNet(), None)
    encoder = net.build(shape).eval().requires_grad_(learns)
    if tensors is not None:
        try:
            encoder.load_state_dict(tensors)
        except RuntimeError as error:
            raise InputError(f"the weights in {name} do not fit its config: {str(error).splitlines()[-1].strip()}") from None
    return FrozenEncoder(encoder, net.dim, name, net, tensors is not None or not name)


def _dimension(encoder: nn.Module, shape: tuple[int, ...]) -> int:
    """Values of a vector that the encoder makes of an example."""
    with torch.no_grad():
        found = encoder(torch.zeros(2, *shape, device=next((p.device for p in encoder.parameters()), None)))
    if not isinstance(found, Tensor) or found.dim() != 2 or len(found) != 2:
        raise InputError(f"an encoder must give vectors [B, d] of examples [B, {', '.join(map(str, shape))}]")
    return found.shape[1]


def _read(folder: Path, shape: tuple[int, ...]) -> tuple[ResNet, dict[str, Tensor]]:
    """The network and the weights of the encoder in a folder."""
    found = checkpoint.read_config(folder)
    if found["method"] != "ssl":
        raise InputError(f"{folder} holds a model of {found['method']}, no encoder; train one: thalweg train ssl/digits --out DIR")
    theirs = found["config"]
    try:
        net = make_config(ResNet, theirs["encoder"], what=f"the config in {folder}")
        theirs_shape, loss = tuple(theirs["shape"]), theirs["loss"]
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"the config in {folder}, of Thalweg {found['thalweg']}, is not that of an ssl model of this version") from None
    if theirs_shape != tuple(shape):
        raise InputError(f"the encoder in {folder} ({loss}) is for images of shape {theirs_shape}, not {tuple(shape)}")
    prefix = "encoder."
    return net, {
        key.removeprefix(prefix): value for key, value in checkpoint.read_weights(folder).tensors.items() if key.startswith(prefix)
    }
