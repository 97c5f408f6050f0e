"""What the settings of `ssl` were called before."""

from typing import Any


def renamed(old: dict[str, Any]) -> dict[str, Any]:
    """The settings of version 0.1 by their present names."""
    same = ("data", "shape", "classes", "batch", "images", "lr", "warm_up", "clip", "ema", "loss", "whiten_size", "weight_decay")
    new = {key: old[key] for key in same} | {"lr_end": 0.0, "softmax_temperature": old["temperature"]}
    patch = 1
    if old["data"] == "fashion-mnist":  # an encoder and a length for 40 CPU minutes
        new["images"], old, patch = 1_400_000, old | {"widths": [32, 64, 128, 256]}, 2
    sizes = {"widths": old["widths"], "blocks": old["blocks"], "head": old["head"], "dim": old["latent_dim"], "patch": patch}
    views = {key: old[key] for key in ("crop", "flip", "jitter", "grey")}
    return new | {"encoder": {"kind": "resnet", **sizes}, "augmentation": {"kind": "augmented", **views}}
