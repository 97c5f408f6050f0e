"""What the settings of `ddaebm` were called before."""

from typing import Any

SAME = ("data", "shape", "classes", "batch", "images", "lr_end", "clip", "ema", "beta2", "latent", "latent_dim", "reference_std",
        "grey_values", "levels", "beta_min", "beta_max", "spacing", "objective", "entropy_weight", "generated_weight", "encoder_floor",
        "reconstruction_floor", "compile")  # fmt: skip
RENAMED = {"lr": "lr_energy", "lr_generator": "lr", "first_time": "first", "elbo_weight": "w", "elbo_weight_mid": "w_mid",
           "penalty": "gamma", "penalty_end": "gamma_end"}  # fmt: skip
# what has been changed since, by network and shape (CHANGELOG.md): the encoders of large images are the paper's, and Fashion-MNIST is
# trained for the arena's price
CHANGED: dict[tuple[str, tuple[int, ...]], dict[str, Any]] = {
    ("unet", (3, 64, 64)): {"encoder": {"kind": "conv", "width": 64, "stages": 4}},
    ("unet", (3, 128, 128)): {"encoder": {"kind": "residual", "width": 32}},
    ("patch", (1, 28, 28)): {
        "net": {"kind": "patch_unet", "width": 32, "deep_width": 64, "blocks": 2, "deep_blocks": 4, "hidden": 96, "embedding": 128,
                "dropout": 0.0, "precise_first": True},
        "encoder": {"kind": "conv", "width": 16, "stages": 3},
        "batch": 64, "lr": 2e-4, "lr_generator": 2e-4, "lr_end": 0.02, "images": 1_000_000,
    },
}  # fmt: skip


def renamed(old: dict[str, Any]) -> dict[str, Any]:
    """The settings of version 0.1 by their present names."""
    new = {key: old[key] for key in SAME} | {key: old[before] for key, before in RENAMED.items()} | {"warm_up": 0}
    width, mlp = old["width"], {"width": old["width"], "depth": old["blocks"]}
    new["net"] = {"kind": old["network"]} | {
        "mlp": mlp,
        "nice": mlp | {"couplings": old["couplings"]},
        "patch": {
            "width": width,
            "blocks": old["blocks"],
            "patch": old["patch"],
            "embedding": 2 * width,
            "dropout": 0.0,
            "precise_first": False,
        },
        "unet": {key: old[key] for key in ("width", "multipliers", "blocks", "attention")} | {"dropout": 0.0, "precise_first": False},
    }[old["network"]]
    vectors = old["network"] in ("mlp", "nice")
    encoder = {"kind": "mlp"} | mlp if vectors else {"kind": "conv", "width": old["encoder_width"], "stages": 3}
    new["encoder"] = encoder if old["latent"] and old["posterior"] else None
    weighs = old["proposals"] > 1 or old["contrast"]
    proposals = {"kind": "weighted", "count": old["proposals"], "defensive": old["defensive"], "contrast": old["contrast"]}
    new |= {"proposals": proposals if weighs else None, "chain": None}
    return new | CHANGED.get((old["network"], tuple(old["shape"])), {})
