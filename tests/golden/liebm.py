"""What the settings of `liebm` were called before."""

from typing import Any


def renamed(old: dict[str, Any]) -> dict[str, Any]:
    """The settings of version 0.1 by their present names."""
    same = ("data", "shape", "classes", "batch", "images", "lr", "warm_up", "clip", "ema", "features", "head", "marginal",
            "generator_std", "match_weight", "data_weight", "regularise", "data_noise", "beta1", "beta2", "lr_generator", "lr_inference",
            "beta2_generator")  # fmt: skip
    new = {key: old[key] for key in same} | {"lr_end": 0.0}
    others = {"latent_posterior": "posterior", "concentration": "gamma", "concentration_ood": "gamma_ood", "generator_concentration": "rho",
              "generator_training": "learner", "augmented_starts": "augment"}  # fmt: skip
    new |= {key: old[before] for key, before in others.items()}

    def network(widths: list[int]) -> dict[str, Any]:
        if old["network"] == "mlp":
            return {"kind": "mlp", "width": old["width"], "depth": old["depth"]}
        return {"kind": "convnet", "widths": widths, "blocks": old["blocks"], "spectral_norm": False, "patch": 1}

    new["net"] = network(old["widths"])
    if old["ema"] == 0.9999:  # presets of the paper, whose backbone has it
        new["net"]["spectral_norm"] = True
    new["inference"] = network(old["inference_widths"]) if old["learner"] == "erm" or old["inference"] else None
    new["generator"] = {"kind": "generator", "latent_dim": old["latent_dim"], "width": old["generator_width"]}
    sizes = {"widths": old["encoder_widths"], "blocks": old["encoder_blocks"], "head": old["encoder_head"], "dim": old["encoder_dim"]}
    new["pretrained"], new["cotraining"] = old["encoder"], None
    new["encoder"] = {"kind": "resnet", **sizes} if old["encoder_widths"] else None
    views = {key: old[key] for key in ("crop", "flip", "jitter", "grey")} if old["view"] == "augmented" else {}
    new["augmentation"] = {"kind": old["view"], **views}
    # γ belongs to a step: the paper's own where the preset is the paper's, else 10, so that γ of digits, with a step of 1, is 1 nat
    new["concentration_step"] = old["step"] if old["ema"] == 0.9999 else 10.0
    moves = {"steps": old["steps"], "step": old["step"], "noise": old["noise"], "clip": old["clip_move"], "clamp": old["clamp"]}
    return new | {"chain": {"kind": "langevin", **moves, "compile": False}}
