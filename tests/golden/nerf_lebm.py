"""What the settings of `nerf_lebm` were called before."""

from typing import Any


def renamed(old: dict[str, Any]) -> dict[str, Any]:
    """The settings of version 0.1 by their present names."""
    same = ("data", "shape", "classes", "batch", "images", "lr", "warm_up", "clip", "ema", "poses", "views", "residual_std", "lr_generator")
    new = {key: old[key] for key in same} | {"lr_end": 0.0, "read_views": 0, "missing": 0.0, "likelihood_temperature": old["temperature"]}
    new |= {"dim_appearance": old["latent_appearance"], "dim_shape": old["latent_shape"]}
    field = ("width", "depth", "mapping", "mapping_layers", "octaves", "octaves_view", "conditioning")
    new["field"] = {"kind": "radiance_field"} | {key: old[key] for key in field}
    rays = ("near", "far", "ball", "focal", "samples", "importance", "rays", "chunk", "background")
    new["renderer"] = {"kind": "rays"} | {key: old[key] for key in rays}
    new["renderer"] |= {"sub_pixels": 1, "stop": 0.0}
    new["field"]["annealing"] = 0.0
    if old["prior"] == "energy":
        chain = {"kind": "langevin", "steps": old["prior_steps"], "step": old["prior_step"], "noise": old["prior_noise"]}
        new["prior"] = {"kind": "energy"} | {key: old[f"prior_{key}"] for key in ("width_appearance", "width_shape", "depth")}
        new["prior"] |= {"reference": old["reference"], "chain": chain | {"clip": 0.0, "clamp": False, "compile": False}}
    else:
        new["prior"] = {"kind": "gaussian"}

    def posterior_chain(steps: int, step: float) -> dict[str, Any]:
        chain = {"kind": old["posterior"], "steps": steps, "joint": old["joint"]}
        return chain | ({"step": step, "noise": old["posterior_noise"]} if old["posterior"] == "langevin" else {"rate": step})

    new["learner"] = learner = {"kind": old["learner"]}
    if old["learner"] == "amortized":
        learner["inference"] = {"kind": "inference", "widths": old["encoder_widths"], "blocks": old["encoder_blocks"]}
        # without `steps` infer stayed at the network's means
        learner |= {"lr_inference": old["lr_inference"], "lr_heads": old["lr_heads"], "infer_chain": posterior_chain(0, old["infer_step"])}
    else:
        learner |= {"chains": old["chains"]} if old["learner"] == "persistent" else {}
        learner["posterior_chain"] = posterior_chain(old["posterior_steps"], old["posterior_step"])
        learner["infer_chain"] = posterior_chain(old["infer_steps"], old["infer_step"])
    search = {"kind": "likeliest", "candidates": old["pose_candidates"], "same_shape": old["pose_first"]}
    search |= {"side": 0, "silhouettes": 0.0, "kept": 0, "renew": 0.5, "even": 0.0}
    return new | {"pose_search": search if old["pose_candidates"] else None}
