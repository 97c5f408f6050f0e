"""What cooperation gives: CoopFlow beside its two flows alone and CoopNets, over lengths and steps of the chain, and its tasks.

`spiral`: chains of 100, 500 and 10,000 steps, samples and densities against the exact ones (thesis, Figure 4.3). `images`: CoopFlow from
scratch and from a pretrained flow, the normalizing flow alone, the Langevin flow alone and CoopNets, on equally many images and with
the same networks (Tables 4.2 and 4.7). `chains`: lengths, steps and noise of the chain (Tables 4.5, 4.6, 4.9, 4.10). `tasks`: a trained
run's reconstructions, completions and interpolations, as figures and numbers. `flows`: our image flow beside normflows' Glow.

    thalweg train coopflow/digits --out runs/coopflow-digits --threads 1
    python -m studies.coopflow spiral images chains tasks flows --jobs 2
"""

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from studies.runner import Study  # after the setting, which torch reads when it is imported

DRAWS = 4
SAMPLES = 2000  # at most in a set, where there are more held-out images
RECONSTRUCTED = 200  # test images
COMPLETED = 50  # of them, each four times
SEARCH = 200  # steps of reconstruction
COOPFLOW, FLOW, LANGEVIN, COOPNETS, PRE = "CoopFlow", "normalizing flow", "Langevin flow", "CoopNets", "CoopFlow (pre)"
MODELS: dict[str, dict[str, Any]] = {
    COOPFLOW: {},
    PRE: {"pretrain": 0.25, "warm_up_energy": 0.05},  # shares of all images
    FLOW: {"steps": 0},
    # steps as in training: a longer one at the end is CoopFlow's alone, and makes the Langevin flow worse
    LANGEVIN: {"initializer": "noise", "step_ratio": 1.0},
    COOPNETS: {"initializer": "generator", "step_ratio": 1.0},
}
# rows of Tables 4.5, 4.6, 4.9 and 4.10; δ in units of the preset's
CHAINS: dict[str, dict[str, Any]] = {
    **{f"{name}, T = {steps}": {**MODELS[name], "steps": steps} for name in (COOPFLOW, LANGEVIN, COOPNETS) for steps in (10, 30, 50)},
    **{f"{COOPFLOW}, step × {ratio:g}": {"step": ratio} for ratio in (1 / 3, 2 / 3, 5 / 3, 10 / 3)},
    f"{COOPFLOW}, falling noise": {"noise": 1.0, "noise_decay": 0.3},
}
# fields, seeds, and samples that are looked at. Chains of 10,000 steps are too dear from scratch: they go on from T = 500
SPIRAL: dict[str, tuple[dict[str, Any], int, int]] = {
    "flow alone": ({"steps": 0}, 3, 100_000),
    "T = 100": ({"steps": 100}, 3, 100_000),
    "T = 500": ({"steps": 500, "images": 250_000}, 1, 40_000),
    "T = 10,000": ({"steps": 10_000, "images": 25_600, "lr": 5e-4, "lr_initializer": 3e-4}, 1, 4_000),
}
BEFORE = {"T = 10,000": "T = 500"}


def fields_of(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """A row's changes of the preset, with shares of images and of the step made whole; an MLP for images of 16×16, to save time."""
    import thalweg as tw

    fields = ({"network": "mlp", "width": 512} if options.size == 16 else {}) | {**MODELS, **CHAINS}[name]
    for key in ("pretrain", "warm_up_energy", "noise_decay"):
        if key in fields:
            fields[key] = round(fields[key] * options.images)
    if "step" in fields:
        fields["step"] *= tw.method(f"coopflow/{options.data}").config.step
    return fields


def sets_of(options: argparse.Namespace) -> tuple[Any, Any]:
    import thalweg as tw

    return tuple(tw.data.load(options.data, split, size=options.size) for split in ("train", "test"))


def trained(
    preset: str, fields: dict[str, Any], seed: int, options: argparse.Namespace, train: Any, *, start: Any = None
) -> tuple[Any, dict[str, Any]]:
    """A model trained on its images, at most `options.seconds` CPU seconds, from another's weights if given, and how that went."""
    import tempfile

    import thalweg as tw
    from thalweg.checkpoint import latest, read_stats
    from thalweg.errors import Diverged

    model = tw.method(preset, seed=seed, data=train, **fields)
    if start is not None:
        model.load_state_dict(start.state_dict())
    found: dict[str, Any] = {name: sum(p.numel() for p in o.param_groups[0]["params"]) for name, o in model.optimizers().items()}
    images = model.config.images
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        try:
            model = tw.fit(
                model, train, Path(folder), seed=seed, seconds=options.seconds, clock=time.process_time, precision=options.precision,
                progress=False, log_every=max(2560, images // 50), sample_every=10**9, save_every=max(2560, images // 10),
            )  # fmt: skip
        except Diverged as trouble:
            return None, {"parameters": found, "diverged": str(trouble)}
        stats = read_stats(Path(folder))
        done = latest(Path(folder))["images"]
    last = [row for row in stats if "event" not in row][-1]
    kept = {key: last[key] for key in ("energy_data", "energy_samples", "displacement") if key in last}
    return model.eval(), {
        "parameters": found, "diverged": None, "cpu_seconds": round(time.process_time() - started, 1), "images": done,
        "guard_events": sum("event" in row for row in stats), "last": kept,
    }  # fmt: skip


# --- images


def images_one(row: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    import torch

    import thalweg as tw

    train, test = sets_of(options)
    model, found = trained(f"coopflow/{options.data}", {"images": options.images, **fields_of(row, options)}, seed, options, train)
    found = {"row": row, "seed": seed, "frechet": None} | found
    if model is None:
        return found
    x, held_out = train.all().x, test.all().x[:SAMPLES]
    extractor = tw.evaluate.extractor((tuple(train.all()), tuple(test.all())), name=options.data)

    def frechet(**kwargs: Any) -> float:
        """The mean over `DRAWS` sets of as many samples as there are held-out images."""
        sets = [model.sample(len(held_out), seed=1000 * seed + draw + 1, **kwargs) for draw in range(DRAWS)]
        return statistics.fmean(tw.evaluate.fidelity(x, y, extractor, held_out=held_out, metrics=("frechet",)).frechet.value for y in sets)

    c = model.config
    found["frechet"] = frechet()
    found["floor"] = tw.evaluate.fidelity(x, held_out, extractor, held_out=held_out, metrics=("frechet",)).frechet.held_out
    if c.steps:
        found["frechet_trained_step"] = frechet(step_ratio=1.0)
        if c.initializer != "noise":
            found["frechet_initializer"] = frechet(use="initializer")
        if row in MODELS:
            rebuilt = model.reconstruct(held_out[:RECONSTRUCTED], steps=SEARCH, seed=seed).x
            found["reconstruction_mse"] = float((rebuilt - held_out[:RECONSTRUCTED]).square().mean())
    if c.initializer == "flow":
        with torch.no_grad():
            noise = tw.random.normal_like(held_out, tw.random.seeded(seed, 5))
            nats = torch.cat([model.initializer.bound(a, b) for a, b in zip(held_out.split(256), noise.split(256))])
        found["bits_per_dim"] = float(-nats.mean() / held_out[0].numel() / math.log(2))
    if seed == 0:
        name = f"coopflow_{options.data}_{''.join(a for a in row.lower() if a.isalnum())}.png"
        tw.plot.grid(model.sample(64, seed=1), options.pictures / name, columns=16)
    return found


def images(options: argparse.Namespace, names: list[str] | None = None) -> dict[str, Any]:
    names = STUDY.chosen(names or MODELS, options)
    rows = STUDY.rows("images", [(n, s) for s in range(options.seeds) for n in names], options)
    whole = {(r["row"], r["seed"]): r["frechet"] for r in rows}
    lines = []
    for name in names:
        mine = [r for r in rows if r["row"] == name]
        line: dict[str, Any] = {"row": name, "diverged": sum(r["frechet"] is None for r in mine)}
        for key in ("frechet", "frechet_initializer", "reconstruction_mse", "bits_per_dim", "cpu_seconds"):
            values = [r[key] for r in mine if r.get(key) is not None]
            line[key] = statistics.fmean(values) if values else None
        pairs = [(whole.get((name, s)), whole.get((COOPFLOW, s))) for s in range(options.seeds)]
        gaps = [a - b for a, b in pairs if a is not None and b is not None] if name != COOPFLOW else []
        line["above_coopflow"] = statistics.fmean(gaps) if gaps else None
        line["standard_error"] = statistics.stdev(gaps) / math.sqrt(len(gaps)) if len(gaps) > 1 else None
        lines.append(line)
    return {"floor": next((r["floor"] for r in rows if "floor" in r), None), "search": SEARCH, "summary": lines, "runs": rows}


def chains(options: argparse.Namespace) -> dict[str, Any]:
    return images(options, list(CHAINS))


# --- the spiral


def spiral_one(row: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    import thalweg as tw

    toy = tw.data.toy("spiral")
    fields, _, samples = SPIRAL[row]
    before = None
    if row in BEFORE:
        before, _ = trained("coopflow/spiral", SPIRAL[BEFORE[row]][0] | {"compile": True}, seed, options, toy)
    compiled = {"compile": True} if fields["steps"] else {}
    model, found = trained("coopflow/spiral", fields | compiled, seed, options, toy, start=before)
    found = {"row": row, "seed": seed, "before": BEFORE.get(row)} | found
    if model is None:
        return found
    sets = {"samples": model.sample(samples, seed=seed + 1), "flow": model.sample(samples, seed=seed + 1, use="initializer")}
    found |= {name: asdict(tw.evaluate.histogram_variation(x, toy)) for name, x in sets.items()}
    densities = {"energy": model.energy, "flow": lambda x: -model.log_prob(x)}
    found |= {f"{name}_density": asdict(tw.evaluate.density(energy, toy, grid=400)) for name, energy in densities.items()}
    if seed == 0:
        name = f"coopflow_spiral_{''.join(a for a in row.lower() if a.isalnum())}.png"
        tw.plot.density(densities, toy, options.pictures / name, samples=sets["samples"][:4000])
    return found


def spiral(options: argparse.Namespace) -> dict[str, Any]:
    names = STUDY.chosen(SPIRAL, options)
    rows = STUDY.rows("spiral", [(n, s) for n in names for s in range(min(options.seeds, SPIRAL[n][1]))], options)
    lines = []
    for name in names:
        mine = [r for r in rows if r["row"] == name and "samples" in r]
        line: dict[str, Any] = {"row": name, "models": len(mine)}
        for key, part, value in (
            ("samples_tv", "samples", "value"), ("flow_tv", "flow", "value"), ("floor", "samples", "floor"),
            ("energy_kl", "energy_density", "kl_truth_model"), ("energy_tv", "energy_density", "total_variation"),
            ("flow_kl", "flow_density", "kl_truth_model"),
        ):  # fmt: skip
            line[key] = statistics.fmean(r[part][value] for r in mine) if mine else None
        lines.append(line)
    return {"summary": lines, "runs": rows}


# --- tasks


def tasks(options: argparse.Namespace) -> dict[str, Any]:
    import torch

    import thalweg as tw
    from thalweg import tasks

    model = tw.load(options.run)
    c = model.config
    train, test = (tw.data.load(c.data, split, size=c.shape[-1]).all() for split in ("train", "test"))
    extractor = tw.evaluate.extractor((tuple(train), tuple(test)), name=c.data)
    x, label = test.x[:RECONSTRUCTED], test.label[:RECONSTRUCTED]
    found: dict[str, Any] = {"run": str(options.run), "data": c.data, "n": len(x), "search": SEARCH, "inpainting": []}
    rebuilt = model.reconstruct(x, steps=SEARCH)
    error = (rebuilt.x - x).square()
    back = model.decode(rebuilt.latent)
    found["reconstruction"] = {
        "mse": float(error.mean()), "class_kept": float((extractor.logits(rebuilt.x).argmax(1) == label).float().mean()),
        "decode_encode_error": float((back - rebuilt.start).abs().max()),
    }  # fmt: skip
    shown = torch.cat([x[:16], rebuilt.start[:16], rebuilt.x[:16]])
    tw.plot.grid(shown, options.pictures / f"coopflow_{c.data}_reconstruction.png", columns=16, row_labels=["data", "start", "F(start)"])
    masks = {"centre 25 %": tasks.masks.centre_square(c.shape, 0.25), "lower half": tasks.masks.half(c.shape, "bottom")}
    found["completed"] = COMPLETED
    x, label = x[:COMPLETED], label[:COMPLETED]
    for name, mask in masks.items():
        hidden = ~mask.bool().expand(c.shape)
        for how, given in (("search", {"search": SEARCH}), ("chain", {})):
            filled = tasks.inpaint(model, x, mask, completions=4, seed=1, **given)
            psnr = 10 * torch.log10(4 / (filled - x)[:, :, hidden].square().mean(2))
            found["inpainting"].append(
                {"mask": name, "how": how, "known_equal": bool((filled[:, :, ~hidden] == x[None][:, :, ~hidden]).all()),
                 "diversity": float(tasks.diversity(filled, mask).mean()), "psnr_hidden": float(psnr.mean()),
                 "class_kept": float((extractor.logits(filled.flatten(0, 1)).argmax(1) == label.repeat(4)).float().mean())}
            )  # fmt: skip
            picture = torch.cat([x[None, :8], torch.where(hidden, -1.0, x[:8])[None], filled[:, :8]]).transpose(0, 1).flatten(0, 1)
            tw.plot.grid(picture, options.pictures / f"coopflow_{c.data}_{name.replace(' %', '').replace(' ', '_')}_{how}.png", columns=6)
    found["nearest_fill_psnr"] = {}
    for name, mask in masks.items():
        hidden = ~mask.bool().expand(c.shape)
        error = (tasks.nearest_fill(x, mask, train.x) - x)[:, hidden].square().mean(1)
        found["nearest_fill_psnr"][name] = float((10 * torch.log10(4 / error)).mean())
    # between two images of different classes: the share of the way on which p(first class) falls and p(second) rises
    pairs = [(i, i + 1) for i in range(0, COMPLETED, 2) if label[i] != label[i + 1]]
    z, strips, falls, rises, middles, straight = tasks.latents(model, x), [], [], [], [], []
    w = torch.linspace(0, 1, 9)
    for i, j in pairs:
        strip = tasks.interpolate(model, z[i], z[j], 9)
        p = extractor.logits(strip).softmax(1)
        a, b = p[:, label[i]], p[:, label[j]]
        falls.append(float((a.diff() <= 0.02).float().mean()))
        rises.append(float((b.diff() >= -0.02).float().mean()))
        middles.append(float(p[3:6].max(1).values.mean()))
        mixed = (1 - w).view(-1, 1, 1, 1) * x[i] + w.view(-1, 1, 1, 1) * x[j]
        straight.append(float(extractor.logits(mixed)[3:6].softmax(1).max(1).values.mean()))
        strips.append(strip)
    found["interpolation"] = {
        "pairs": len(pairs), "first_class_falls": statistics.fmean(falls), "second_class_rises": statistics.fmean(rises), "slack": 0.02,
        "confidence_in_the_middle": statistics.fmean(middles), "confidence_of_mixed_pixels": statistics.fmean(straight),
    }  # fmt: skip
    tw.plot.grid(torch.cat(strips[:6]), options.pictures / f"coopflow_{c.data}_interpolation.png", columns=9)
    return found


# --- our flow and Glow


def flows_one(row: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """One flow of images trained by maximum likelihood for `options.seconds`: bits per dimension of held-out images, samples, cost."""
    import torch

    import thalweg as tw
    from thalweg.nn.flow import ImageFlow

    torch.manual_seed(seed)
    train, test = sets_of(options)
    shape, levels = train.shape, tw.method(f"coopflow/{options.data}").config.levels
    x, held_out = train.all().x, test.all().x[:SAMPLES]
    dims = x[0].numel()
    if row == "glow":
        flow, bound, sample = glow(shape, levels)
    else:
        flow = ImageFlow(shape, couplings=3, width=32, depth=1, mixtures=4, levels=levels)
        flow.initialise(x[:256], torch.rand_like(x[:256]))

        def bound(y: torch.Tensor) -> torch.Tensor:
            return flow.bound(y, torch.randn_like(y))

        def sample(n: int) -> torch.Tensor:
            return flow.decode_levels(torch.randn(n, *shape))

    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-3)
    started, updates = time.process_time(), 0
    budget = options.seconds or 120.0
    while (spent := time.process_time() - started) < budget:
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, (updates + 1) / 100) * 0.5 * (1 + math.cos(math.pi * spent / budget))
        batch = x[torch.randint(len(x), (128,))]
        loss = -bound(batch).mean() / dims
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        optimizer.step()
        updates += 1
    extractor = tw.evaluate.extractor((tuple(train.all()), tuple(test.all())), name=options.data)
    with torch.no_grad():
        bits = float(-bound(held_out).mean() / dims / math.log(2))
        sample(len(held_out))
        started = time.process_time()
        drawn = sample(len(held_out))
        cost = time.process_time() - started
    value = tw.evaluate.fidelity(x, drawn, extractor, held_out=held_out, metrics=("frechet",)).frechet.value
    parameters = sum(p.numel() for p in flow.parameters())
    return {
        "row": row, "seed": seed, "parameters": parameters, "updates": updates, "bits_per_dim": bits, "frechet": value,
        "sample_cpu_seconds": cost,
    }  # fmt: skip


def glow(shape: tuple[int, ...], levels: int, *, blocks: int = 6, hidden: int = 64, scales: int = 2) -> tuple[Any, Callable, Callable]:
    """normflows' Glow with uniform dequantisation on the logit of images, as ours: the module, log-probability and samples."""
    import normflows as nf
    import torch

    channels, height, breadth = shape
    bases, merges, flows = [], [], []
    for i in range(scales):
        width = channels * 2 ** (scales + 1 - i)
        flows.append([*(nf.flows.GlowBlock(width, hidden, split_mode="channel", scale=True) for _ in range(blocks)), nf.flows.Squeeze()])
        depth = scales - i
        if i:
            merges.append(nf.flows.Merge())
        size = (channels * 2**depth if i else channels * 2 ** (scales + 1), height // 2**depth, breadth // 2**depth)
        bases.append(nf.distributions.DiagGaussian(size, trainable=False))
    model = nf.MultiscaleFlow(bases, flows, merges, class_cond=False)

    def bound(x: torch.Tensor) -> torch.Tensor:
        y = (1 - 1 / levels) * x + (torch.rand_like(x) - 0.5) * 2 / levels
        lower, upper = (((1 + sign * y) / 2).clamp_min(1e-7).log() for sign in (1, -1))
        change = -(lower + upper + math.log(2)) + math.log(2 / levels)
        return model.log_prob(lower - upper, None) + change.flatten(1).sum(1)

    def sample(n: int) -> torch.Tensor:
        drawn, _ = model.sample(n)
        bins = (drawn.sigmoid() * levels).floor().clamp(0, levels - 1)
        return 2 * bins / (levels - 1) - 1

    return model, bound, sample


def flows(options: argparse.Namespace) -> dict[str, Any]:
    rows = STUDY.rows("flows", [(n, s) for n in ("ours", "glow") for s in range(options.seeds)], options)
    lines = []
    for name in ("ours", "glow"):
        mine = [r for r in rows if r["row"] == name]
        keys = ("parameters", "updates", "bits_per_dim", "frechet", "sample_cpu_seconds")
        lines.append({"row": name} | {key: statistics.fmean(r[key] for r in mine) for key in keys})
    return {"summary": lines, "runs": rows}


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "spiral": spiral,
    "images": images,
    "chains": chains,
    "tasks": tasks,
    "flows": flows,
}
ONES = {"images": images_one, "chains": images_one, "spiral": spiral_one, "flows": flows_one}


STUDY = Study("coopflow", __doc__, PARTS, ONES, run=Path("runs/coopflow-digits"), of_run=("tasks",))

if __name__ == "__main__":
    STUDY.main(STUDY.parser())
