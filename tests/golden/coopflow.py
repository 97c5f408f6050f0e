"""What the settings of `coopflow` were called before."""

from typing import Any


def renamed(old: dict[str, Any]) -> dict[str, Any]:
    """The settings of version 0.1 by their present names."""
    same = ("data", "shape", "classes", "batch", "images", "lr", "warm_up", "clip", "ema", "reference_std", "step_ratio", "noise_decay",
            "pretrain", "warm_up_energy", "beta1", "beta2", "lr_initializer")  # fmt: skip
    # those of the paper are constant, which version 0.1 let fall
    paper = old["data"] == "hf:uoft-cs/cifar10"
    new = {key: old[key] for key in same} | {"lr_end": 1.0 if paper else 0.0}
    # as are its mirror images, which it left out
    new |= {"known_share": 0.0, "augmentation": {"kind": "shifts", "flip": 0.5, "shift": 0} if paper else None}
    networks = {"mlp": ("width", "depth"), "convnet": ("widths", "blocks"), "pooled": ("widths",)}
    new["net"] = {"kind": old["network"]} | {key: old[key] for key in networks[old["network"]]}
    if old["network"] == "convnet":
        new["net"] |= {"spectral_norm": False, "patch": 1}
    chain = {"steps": old["steps"], "step": old["step"], "noise": old["noise"], "clip": old["clip_move"], "clamp": old["clamp"]}
    new["chain"] = {"kind": "langevin", "compile": old["compile"]} | chain
    assert old["initializer"] == "flow"  # of all presets
    flow = {key: old[key] for key in ("couplings", "scales", "mixtures", "coupling", "dequantisation")} | {
        "self_attention": old["attention"]
    }
    sizes = {"width": old["flow_width"], "depth": old["flow_depth"], "grey_values": old["levels"]}
    return new | {"initializer": {"kind": "flow"} | flow | sizes}
