"""What the settings of `short_run` were called before."""

from typing import Any


def renamed(old: dict[str, Any]) -> dict[str, Any]:
    """The settings of version 0.1 by their present names."""
    same = ("data", "shape", "classes", "batch", "images", "lr", "warm_up", "clip", "ema", "conditional", "reference_std", "start",
            "start_range", "buffer", "renew", "data_noise", "regularise", "sample_steps", "beta1")  # fmt: skip
    new = {key: old[key] for key in same} | {"lr_end": 0.0}
    if old["network"] == "mlp":
        new["net"] = {"kind": "mlp", "width": old["width"], "depth": old["depth"]}
    else:
        new["net"] = {"kind": "convnet"} | {key: old[key] for key in ("widths", "blocks", "spectral_norm")} | {"patch": 1}
    chain = {"kind": old["sampler"], "steps": old["steps"], "step": old["step"]}
    if old["sampler"] == "langevin":
        chain |= {"noise": old["noise"], "clip": old["clip_move"], "clamp": old["clamp"], "compile": old["compile"]}
    else:
        chain |= {key: old[key] for key in ("target_acceptance", "jumps", "jump_every")}
    return new | {"chain": chain, "start_law": "uniform", "move": 0.0}
