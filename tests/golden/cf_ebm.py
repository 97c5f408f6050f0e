"""What the settings of `cf_ebm` were called before."""

import math
from typing import Any


def renamed(old: dict[str, Any]) -> dict[str, Any]:
    """The settings of version 0.1 by their present names."""
    same = ("data", "source", "shape", "classes", "batch", "images", "clip", "ema", "coarse_to_fine", "frozen_coarse", "stage_steps",
            "stage_images", "stage_splits", "carry_optimizer", "data_noise", "start_noise", "beta1", "beta2")  # fmt: skip
    new = {key: old[key] for key in same} | {"warm_up": 0, "lr_end": 1.0}
    new["net"] = {"kind": "expanding"} | {key: old[key] for key in ("width", "activation", "spectral_norm", "residual")}
    new |= {"lr": 1e-3, "stage_lr_factors": [round(rate / 1e-3, 9) for rate in old["stage_lr"]]}
    # the paper's coefficient of the gradient is s²/2
    return new | {"step": math.sqrt(2 * old["step"]), "chain_noise": old["noise"], "compile": False, "middle": 0}
