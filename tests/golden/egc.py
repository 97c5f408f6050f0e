"""What the settings of `egc` were called before."""

from typing import Any


def renamed(old: dict[str, Any]) -> dict[str, Any]:
    """The settings of version 0.1 by their present names."""
    same = ("data", "shape", "classes", "batch", "images", "lr", "warm_up", "clip", "ema", "autoencoder", "supervised", "latent_classes",
            "readout", "data_std", "levels", "beta_start", "beta_stop", "passes", "clean_share", "label_input", "label_smoothing",
            "weigh_by_signal", "guidance", "sample_steps", "eta", "energy_level", "compile", "weight_decay")  # fmt: skip
    new = {key: old[key] for key in same} | {"lr_end": 0.0 if old["decay"] else 1.0}
    new |= {"cross_entropy_weight": old["gamma"], "label_dropping": round(1 - old["labelled_share"], 10)}
    new |= {"classifier_only": old["matching"] == 0.0, "sample_spacing": "even"}
    new |= {"cross_entropy_early": None, "cross_entropy_rise": [0.5, 0.75], "augmentation": None, "class_augmentation": None,
            "class_augmentation_noised": True}  # fmt: skip
    assert not old["augment"]
    return new | {"net": net(old)}


def net(old: dict[str, Any]) -> dict[str, Any]:
    """The network of the former fields `network`, `width`, `blocks` and others, for `egc` and `jem`."""
    width, blocks = old["width"], old["blocks"]
    match old["network"]:
        case "mlp":
            return {"kind": "mlp", "width": width, "depth": blocks}
        case "patch":
            dropout = old.get("dropout", 0.0)
            return {"kind": "patch", "width": width, "blocks": blocks, "patch": old["patch"], "embedding": 128, "dropout": dropout} | {
                "precise_first": False
            }
    return {"kind": "convnet", "widths": [width * m for m in old["multipliers"]], "blocks": blocks, "spectral_norm": False, "patch": 1}
