"""What the networks of a model with few noise levels have in common: they see a level's log SNR, and start at zero."""

from typing import Any

import torch
from torch import Tensor, nn

from thalweg.nn.patchnet import VectorNet


class LogSNREmbedding(nn.Module):
    """The embedding of log SNR λ_t by the level's number t [B]: a chain embeds T rows a step, whatever its batch."""

    def __init__(self, embedding: nn.Module, log_snr: list[float]) -> None:
        super().__init__()
        self.embedding = embedding
        self.log_snr: Tensor
        self.register_buffer("log_snr", torch.tensor(log_snr, dtype=torch.float32), persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        return self.embedding(self.log_snr)[t]


def see_log_snr(network: nn.Module, log_snr: list[float]) -> nn.Module:
    """`network`, whose levels t are embedded by their log SNR, of levels 0 … T (thesis, sec. 5.4.8.3)."""
    owner: Any = network.net if isinstance(network, VectorNet) else network
    owner.level = LogSNREmbedding(owner.level, log_snr)
    return network


def start_at_zero(network: nn.Module) -> nn.Module:
    """`network` with zero weights in the layer of its numbers, or of all that an MLP puts out; maps of the other networks start at zero."""
    last: Any = network.net.last if isinstance(network, VectorNet) else network.vector if hasattr(network, "vector") else network.last
    last = last[-1] if isinstance(last, nn.Sequential) else last
    if last is not None:
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return network
