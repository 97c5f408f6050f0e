"""What the settings of `ddaebm` were called before."""

from typing import Any

SAME = ("data", "shape", "classes", "batch", "images", "lr_end", "clip", "ema", "beta2", "latent", "latent_dim", "reference_std",
        "grey_values", "levels", "beta_min", "beta_max", "spacing", "objective", "entropy_weight", "generated_weight", "encoder_floor",
        "reconstruction_floor", "compile")  # fmt: skip
RENAMED = {"lr": "lr_energy", "lr_generator": "lr", "first_time": "first", "elbo_weight": "w", "elbo_weight_mid": "w_mid",
           "penalty": "gamma", "penalty_end": "gamma_end"}  # fmt: skip


def renamed(old: dict[str, Any]) -> dict[str, Any]:
    """The settings of version 0.1 by their present names."""
    new = {key: old[key] for key in SAME} | {key: old[before] for key, before in RENAMED.items()} | {"warm_up": 0}
    width, mlp = old["width"], {"width": old["width"], "depth": old["blocks"]}
    new["net"] = {"kind": old["network"]} | {
        "mlp": mlp,
        "nice": mlp | {"couplings": old["couplings"]},
        "patch": {"width": width, "blocks": old["blocks"], "patch": old["patch"], "embedding": 2 * width, "dropout": 0.0},
        "unet": {key: old[key] for key in ("width", "multipliers", "blocks", "attention")} | {"dropout": 0.0},
    }[old["network"]]
    vectors = old["network"] in ("mlp", "nice")
    encoder = {"kind": "mlp"} | mlp if vectors else {"kind": "conv", "width": old["encoder_width"]}
    new["encoder"] = encoder if old["latent"] and old["posterior"] else None
    weighs = old["proposals"] > 1 or old["contrast"]
    proposals = {"kind": "weighted", "count": old["proposals"], "defensive": old["defensive"], "contrast": old["contrast"]}
    return new | {"proposals": proposals if weighs else None}
