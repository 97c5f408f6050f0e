"""Mixed precision: bfloat16 where a processor has instructions for it, and only there.

Elsewhere PyTorch stands in for them, on a CPU with AVX2 alone far slower than in fp32.
"""

import warnings

import torch


def native(device: str | torch.device) -> bool:
    """Whether convolutions and matrix products in bfloat16 are of the processor's own; GPUs are taken to have them."""
    if torch.device(device).type != "cpu":
        return True
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def supported(precision: str, device: str | torch.device) -> str:
    """`precision`, "fp32" or "bf16"; "fp32", after a warning, for a "bf16" that the processor lacks."""
    if precision != "bf16" or native(device):
        return precision
    warnings.warn("thalweg: this processor has no instructions for bfloat16, in which it would be far slower; fp32 is used", stacklevel=3)
    return "fp32"


def autocast(precision: str, device: str | torch.device = "cpu") -> torch.autocast:
    """A context in which convolutions and matrix products are in bfloat16, for "bf16" where that is native; weights stay in fp32."""
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=precision == "bf16" and native(kind))
