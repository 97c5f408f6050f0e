"""What the settings of `autoencoder` were called before."""

from typing import Any


def renamed(old: dict[str, Any]) -> dict[str, Any]:
    """The settings of version 0.1 by their present names."""
    same = ("data", "shape", "classes", "batch", "images", "lr", "warm_up", "clip", "ema", "reconstruction", "kl_weight")
    new = {key: old[key] for key in same} | {"lr_end": 0.0}
    return new | {"coders": {"kind": "coders"} | {key: old[key] for key in ("latent_channels", "widths", "blocks")}}
