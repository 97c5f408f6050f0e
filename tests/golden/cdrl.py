"""What the settings of `cdrl` were called before."""

from typing import Any

NO_GUIDANCE = 1.0  # the paper's w = 0 is p(x | label), which is guidance 1


def renamed(old: dict[str, Any]) -> dict[str, Any]:
    """The settings of version 0.1 by their present names."""
    same = (
        "data", "shape", "autoencoder", "classes", "conditional", "label_dropping", "guide", "resample", "data_std", "levels", "waves",
        "predict", "variance_reduction", "weight_power", "tweedie", "batch", "images", "lr", "warm_up", "ahead", "clip", "ema",
    )  # fmt: skip
    new = {key: old[key] for key in same}
    new |= {"lr_initializer": old["initializer_lr"], "lr_end": 0.0 if old["decay"] else 1.0, "step_coefficient": old["step"]}
    new |= {"guidance": old["guidance"] + NO_GUIDANCE, "data_first": 1.0 if old["learn_from"] == "data" else old["data_first"]}
    new["readout"] = "nats" if old["readout"] == "scalar" and old["scale"] == "nats" else old["readout"]
    new["schedule"] = {"kind": old["schedule"]}
    if old["schedule"] == "cosine_log_snr":
        new["schedule"] |= {key: old[key] for key in ("log_snr_max", "log_snr_min")}
    fields = {"mlp": ("width", "depth"), "convnet": ("widths", "blocks", "spectral_norm"), "patch": ("width", "blocks", "patch")}
    new["net"] = _network(old["network"], {key: old[key] for key in fields[old["network"]]})
    new["initializer"] = _initializer(old) if old["initializer"] else None
    new["chain"] = _chain(old)
    return _since(new)


def _since(new: dict[str, Any]) -> dict[str, Any]:
    """What has changed on purpose: DRL is Gao et al.'s, CIFAR-10's energy that of Table 5.7, first layers stay in fp32, EMA twins propose
    where initializers learn from the data first, as Fashion-MNIST's do now too; pairs of digits are learned together."""
    if new["data"] == "fashion-mnist" and not new["autoencoder"]:
        new["data_first"] = 0.6
    if new["data"] == "paired-digits":
        new |= {"guidance": 1.5, "resample": 1, "images": 300_000, "chain": new["chain"] | {"steps": 8, "step": 1.37}}
    new |= {"initializer_conditional": True, "data_target": "mean", "slow_proposals": new["data_first"] > 0}
    new |= {"hand_over": 0.0, "refined_share": 1.0, "refined_target": "end", "together": float(new["data"] == "paired-digits")}
    new |= {"initializer_latent": 0, "latent_draws": 8}
    for network in (new["net"], new["initializer"] or {}):
        if network.get("kind") in ("patch", "unet"):
            network["precise_first"] = True
        if network.get("kind") == "unet":
            network["attention"] = 16
    if new["net"]["kind"] == "convnet":
        kept = {key: new["net"][key] for key in ("widths", "blocks", "spectral_norm")}
        new["net"] = {"kind": "recovery", **kept, "precise_first": True}
    if new["initializer"] is None:
        new |= {"schedule": {"kind": "drl"}, "variance_reduction": False, "step_coefficient": 0.02, "tweedie": 0.0}
    return new


def _network(kind: str, fields: dict[str, Any]) -> dict[str, Any]:
    return {"kind": kind, **fields} | ({"embedding": 128, "dropout": 0.0} if kind == "patch" else {})


def _initializer(old: dict[str, Any]) -> dict[str, Any]:
    kind, width, blocks = (old[f"initializer_{key}"] for key in ("network", "width", "blocks"))
    if kind == "mlp":
        return _network(kind, {"width": width, "depth": blocks})
    if kind == "patch":
        return _network(kind, {"width": width, "blocks": blocks, "patch": old["initializer_patch"]})
    return {
        "kind": kind, "width": width, "multipliers": old["initializer_multipliers"], "blocks": blocks, "attention": 8, "dropout": 0.0,
    }  # fmt: skip


def _chain(old: dict[str, Any]) -> dict[str, Any]:
    chain = {"kind": old["sampler"], "steps": old["steps"], "step": 1.0}
    if old["sampler"] == "langevin":
        return chain | {"noise": 1.0, "clip": 0.0, "clamp": False, "compile": old["compile"]}
    return chain | {key: old[key] for key in ("target_acceptance", "jumps", "jump_every")}
