"""What the settings of `jem` were called before."""

from typing import Any

from golden.egc import net


def renamed(old: dict[str, Any]) -> dict[str, Any]:
    """The settings of version 0.1 by their present names."""
    same = ("data", "shape", "classes", "batch", "images", "lr", "warm_up", "clip", "ema", "buffer", "renew", "data_noise", "sample_steps")
    chain = {"kind": "langevin", "clip": 0.0, "clamp": False, "compile": False} | {key: old[key] for key in ("steps", "step", "noise")}
    new = {key: old[key] for key in same} | {"lr_end": 0.0, "likelihood_weight": old["weight"]}
    return new | {"net": net(old), "chain": chain, "start_law": "uniform", "move": 0.0}
