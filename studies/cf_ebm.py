"""Coarse to fine: CF-EBM's growth and its parts at equal time, restoration, and unpaired translation.

`ablation`: the full model, training at full size from the start, other activations (Table 8), without spectral norm or residual
connections, with fixed coarse energies (Table 9), and other noise on the data (Figure 13), each for `--seconds` of CPU time:
Fréchet distances along the training, what the divergence guard did, inpainting of held-out images. `others`: the same, without the rows
on training at full size and ReLU, for a file of its own with fewer seeds. `denoising`: the models that
`ablation` kept, at three noise levels, by our bounded chain and by the paper's whole one (Figure 5). `denoiser`: the preset whose chains
start at images with noise, beside the best linear filter. `translation`: both directions
between two classes, or between the styles of two vendors (`--data emoji`): what a classifier makes of translated test images, kernel
distances to the target class, how much of the source is kept, and where the saliency lies (Figures 3, 4 and 20 to 23).

    python -m studies.cf_ebm ablation --seconds 300 --jobs 2
    python -m studies.cf_ebm ablation --data fashion-mnist --size 32 --width 8 --precision bf16 --seconds 1800 \\
        --rows "coarse to fine" "from scratch" --jobs 2
    python -m studies.cf_ebm others --seconds 90 --seeds 1
    python -m studies.cf_ebm denoiser --data fashion-mnist --precision bf16 --images 16384
    python -m studies.cf_ebm translation --data fashion-mnist --size 16 --width 8 --precision bf16 --images 40000 --seeds 1
"""

import argparse
import math
import os
import statistics
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from studies.runner import Study, precise  # after the setting, which torch reads when it is imported

FULL = "coarse to fine"
# row: (fields, the paper's FID on CIFAR-10, None where there is none or it diverged)
ROWS: dict[str, tuple[dict[str, Any], float | None]] = {
    FULL: ({}, 16.71),
    "from scratch": ({"coarse_to_fine": False}, 24.67),
    "fixed coarse energies": ({"frozen_coarse": True}, None),
    "relu": ({"activation": "relu"}, None),
    "leaky relu": ({"activation": "leaky_relu"}, None),
    "gelu": ({"activation": "gelu"}, None),
    "celu": ({"activation": "celu"}, None),
    "no spectral norm": ({"spectral_norm": False}, None),
    "no residual": ({"residual": False}, None),
    "no noise on data": ({"data_noise": 0.0}, None),
    "noise 0.1 on data": ({"data_noise": 0.1}, None),
}
WAYS = {"forth": ("sneaker", "ankle boot"), "back": ("ankle boot", "sneaker")}
CLASSES = {"digits": {"forth": ("3", "8"), "back": ("8", "3")}}
VENDORS = {"forth": ("emoji-twitter", "emoji-google"), "back": ("emoji-google", "emoji-twitter")}  # --data emoji
PARTS_OF_TIME = 4  # at which distances are measured
SAMPLES = 1000
DENOISED = 200
STD = 0.2
STDS = (0.1, STD, 0.4)
DENOISERS: dict[str, dict[str, Any]] = {"denoise": {}, "30 steps": {"stage_steps": (30,) * 3}, "noise 0.02 in the chain": {"noise": 0.02}}


def config_of(data: str, options: argparse.Namespace, **fields: Any) -> Any:
    """The preset of the data for images of `--size`, with as many stages as lead from 8 pixels to it, two at least."""
    from thalweg.methods import find
    from thalweg.methods.base import changed

    preset = find("cf_ebm").PRESETS["digits" if options.data == "digits" else "fashion-mnist"]
    size = options.size or preset.shape[-1]
    stages = max(2, round(math.log2(size / 8)) + 1)
    budget = options.budget or preset.stage_images[:stages]
    shape = (3 if options.data == "emoji" else preset.shape[0], size, size)
    sized = {
        "data": data, "shape": shape, "width": options.width or preset.width, "stage_steps": (15, 30, 50, 50)[:stages],
        "stage_images": tuple(budget), "stage_lr": (1e-3,) * stages, "stage_splits": (1,) * stages, "batch": options.batch,
    }  # fmt: skip
    return changed(preset, **sized | fields)


def model_folder(row: str, seed: int, options: argparse.Namespace) -> Path:
    return options.work / "models" / f"{options.data}-{options.size or 'preset'}-{row.replace(' ', '-')}-{seed}"


def drawn_by(model: Any, n: int, seed: int, options: argparse.Namespace) -> Any:
    with precise(options):
        return model.sample(n, seed=seed).float()


def ablation_one(row: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    import shutil

    import torch

    import thalweg as tw
    from thalweg.checkpoint import latest, read_stats
    from thalweg.errors import Diverged
    from thalweg.methods import find

    train, test = (tw.data.load(options.data, split, size=options.size) for split in ("train", "test"))
    extractor = tw.evaluate.extractor((tuple(train.all()), tuple(test.all())), name=options.data)
    x, held_out = train.all().x, test.all().x
    budget = options.seconds or 300.0
    # no end in images: time ends the run, and the last stage goes on until then
    config = config_of(options.data, options, images=10**8, **ROWS[row][0])
    torch.manual_seed(seed)
    model = find("cf_ebm")(config)
    found: dict[str, Any] = {
        "row": row, "seed": seed, "parameters": sum(p.numel() for p in model.net.parameters()), "frechet": None, "along": [],
        "diverged": None,
    }  # fmt: skip

    def frechet(n: int = SAMPLES) -> float | None:
        drawn = drawn_by(twin, min(n, len(held_out)), seed + 1, options)
        if not bool(drawn.isfinite().all()):
            return None
        return tw.evaluate.fidelity(x, drawn, extractor, held_out=held_out, metrics=("frechet",)).frechet.value

    # kept, as more is asked of trained models than this part asks
    folder = model_folder(row, seed, options)
    shutil.rmtree(folder, ignore_errors=True)
    for part in range(1, PARTS_OF_TIME + 1):
        try:
            twin = tw.fit(
                model, train, folder, seed=seed, images=10**8, seconds=budget * part / PARTS_OF_TIME, clock=time.process_time,
                precision=options.precision, progress=False, log_every=2560, sample_every=10**9, save_every=5120,
            ).eval()  # fmt: skip
        except Diverged as trouble:
            found["diverged"] = str(trouble)
            break
        images = latest(folder)["images"]
        found["along"].append(
            {
                "cpu_seconds": budget * part / PARTS_OF_TIME,
                "images": images,
                "stage": twin.net.sizes[twin.reached[0]][0],
                # fewer on the way, as chains are dear; the distance of fewer samples is a little larger
                "frechet": frechet(SAMPLES // (1 if part == PARTS_OF_TIME else 2)),
            }
        )
    stats = read_stats(folder)
    energies = [abs(r[key]) for r in stats for key in ("energy_data", "energy_samples") if isinstance(r.get(key), float)]
    found |= {"guard_events": [r["event"] for r in stats if "event" in r], "highest_energy": max(energies, default=None)}
    if found["diverged"] or twin.reached[0] < twin.stages - 1:
        return found
    found["frechet"] = found["along"][-1]["frechet"]
    found["floor"] = tw.evaluate.fidelity(
        x, held_out[:SAMPLES], extractor, held_out=held_out[:SAMPLES], metrics=("frechet",)
    ).frechet.held_out
    with precise(options):
        found |= restored(twin, held_out[:DENOISED], seed)
    if seed == 0:
        name = f"cf_ebm_{options.data}_{''.join(a for a in row if a.isalnum())}.png"
        tw.plot.grid(drawn_by(twin, 64, 1, options), options.pictures / name, columns=16)
        if row == FULL:
            pictures(twin, x, options)
    return found


def restored(model: Any, clean: Any, seed: int) -> dict[str, Any]:
    """PSNR of hidden pixels of inpainted images, and how far their completions differ."""
    from thalweg import tasks

    mask = tasks.masks.centre_square(tuple(clean.shape[1:]), 0.25)
    filled = tasks.inpaint(model, clean[:100], mask, completions=1, seed=seed)[0]
    hidden = ~mask.bool().expand(clean.shape[1:])
    error = (filled - clean[:100])[:, hidden].square().mean(1)
    return {
        "psnr_hidden": float((10 * (4 / error).log10()).mean()),
        "inpainting_diversity": float(tasks.diversity(tasks.inpaint(model, clean[:20], mask, completions=4, seed=seed), mask).mean()),
    }


def denoising_one(row: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Held-out images with noise, through the chain within the noise's reach and through all of it as in the paper, in dB."""
    import torch

    import thalweg as tw

    model = tw.load(model_folder(row, seed, options)).eval()
    clean = tw.data.load(options.data, "test", size=options.size).all().x[:DENOISED]
    found: dict[str, Any] = {"row": row, "seed": seed, "n": len(clean), "images": int(model.images), "levels": {}}
    for std in STDS:
        noisy = clean + std * tw.random.normal_like(clean, tw.random.seeded(seed, 21))
        with precise(options):
            within, whole = model.denoise(noisy, std, seed=seed).float(), model.sample(len(noisy), seed=seed, start=noisy).float()
        values = {"noisy": noisy.clamp(-1, 1), "within": within, "whole": whole}
        found["levels"][str(std)] = {name: float(tw.evaluate.psnr(clean, x).mean()) for name, x in values.items()}
        if seed == 0 and std == STD:
            rows = torch.cat([clean[:16], noisy[:16].clamp(-1, 1), within[:16], whole[:16]])
            labels = ["image", "with noise", "within its reach", "the whole chain"]
            name = f"cf_ebm_{options.data}_denoising_{''.join(a for a in row if a.isalnum())}.png"
            tw.plot.grid(rows, options.pictures / name, columns=16, row_labels=labels)
    return found


def denoising(options: argparse.Namespace) -> dict[str, Any]:
    """Of the models that `ablation` kept."""
    names = STUDY.chosen((FULL, "from scratch"), options)
    rows = STUDY.rows("denoising", [(name, seed) for seed in range(options.seeds) for name in names], options)
    lines = []
    for name in names:
        for std in rows[0]["levels"]:
            mine = [r["levels"][std] for r in rows if r["row"] == name]
            gains = {key: statistics.fmean(r[key] - r["noisy"] for r in mine) for key in ("within", "whole")}
            lines.append({"row": name, "std": std, "seeds": len(mine), "psnr_noisy": statistics.fmean(r["noisy"] for r in mine)} | gains)
    return {"summary": lines, "runs": rows}


def wiener(train: Any, y: Any, std: float) -> Any:
    """The posterior mean of y = x + std·ε where x is Gaussian with the mean and covariance of `train`: the best linear filter."""
    import torch

    x, flat = train.flatten(1).double(), y.flatten(1).double()
    mean, covariance = x.mean(0), torch.cov(x.T)
    gain = torch.linalg.solve(covariance + std**2 * torch.eye(len(covariance), dtype=torch.float64), covariance)
    return (mean + (flat - mean) @ gain).float().view_as(y).clamp(-1, 1)


def denoiser_one(row: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    import tempfile

    import torch

    import thalweg as tw
    from thalweg.checkpoint import latest, read_stats

    preset = tw.method("cf_ebm/denoise").config
    size = options.size or (preset.shape[-1] if options.data == preset.data else None)
    train, test = (tw.data.load(options.data, split, size=size) for split in ("train", "test"))
    fields = DENOISERS[row] | ({"images": options.images} if options.images else {})
    model = tw.method("cf_ebm/denoise", seed=seed, data=train, **fields)
    with tempfile.TemporaryDirectory() as name:
        folder, started = Path(name), time.process_time()
        model = tw.fit(
            model, train, folder, seed=seed, precision=options.precision, progress=False, log_every=2560, sample_every=10**9,
            save_every=10**9,
        ).eval()  # fmt: skip
        found: dict[str, Any] = {"row": row, "seed": seed, "images": latest(folder)["images"]}
        found |= {"guard_events": sum("event" in r for r in read_stats(folder)), "cpu_seconds": round(time.process_time() - started, 1)}
    clean, known = test.all().x[: 5 * DENOISED], train.all().x
    found |= {"n": len(clean), "levels": {}}
    for std in STDS:
        noisy = clean + std * tw.random.normal_like(clean, tw.random.seeded(seed, 21))
        with precise(options):
            denoised = tw.tasks.denoise(model, noisy, std, seed).float()
        linear = wiener(known, noisy, std)
        values = {"noisy": noisy, "clamped": noisy.clamp(-1, 1), "linear": linear, "denoised": denoised}
        found["levels"][str(std)] = {name: float(tw.evaluate.psnr(clean, x).mean()) for name, x in values.items()}
        if seed == 0 and std == STD and row == "denoise":
            rows = torch.cat([clean[:16], noisy[:16].clamp(-1, 1), linear[:16], denoised[:16]])
            labels = ["image", "with noise", "linear filter", "the chain"]
            tw.plot.grid(rows, options.pictures / f"cf_ebm_{options.data}_denoiser.png", columns=16, row_labels=labels)
    return found


def denoiser(options: argparse.Namespace) -> dict[str, Any]:
    names = STUDY.chosen(DENOISERS, options)
    rows = STUDY.rows("denoiser", [(name, seed) for seed in range(options.seeds) for name in names], options)
    lines = []
    for name in names:
        for std in map(str, STDS):
            mine = [r["levels"][std] for r in rows if r["row"] == name]
            line = {"row": name, "std": std, "seeds": len(mine), "psnr_noisy": statistics.fmean(r["noisy"] for r in mine)}
            lines.append(
                line | {f"{key} gains": statistics.fmean(r[key] - r["noisy"] for r in mine) for key in ("clamped", "linear", "denoised")}
            )
    return {"summary": lines, "runs": rows}


def pictures(model: Any, train: Any, options: argparse.Namespace) -> None:
    """A chain from noise to images, nearest training images, and more noise in the chain than was trained (Figures 10, 12 and 16)."""
    import torch

    import thalweg as tw

    trace = tw.sample.Trace(keep=8)
    model.sample(8, seed=1, trace=trace)
    tw.plot.grid(
        trace.states.clamp(-1, 1).transpose(0, 1).flatten(0, 1),
        options.pictures / f"cf_ebm_{options.data}_chain.png",
        columns=len(trace.states),
    )
    drawn = model.sample(8, seed=1)
    nearest = train[torch.cdist(drawn.flatten(1), train.flatten(1)).topk(5, largest=False).indices]
    rows = torch.cat([drawn[:, None], nearest], 1).flatten(0, 1)
    tw.plot.grid(rows, options.pictures / f"cf_ebm_{options.data}_neighbours.png", columns=6)
    levels = (0.0, 0.02, 0.05, 0.1)
    rows = torch.cat([model.sample(12, seed=1, noise=level) for level in levels])
    labels = [f"η = {level:g}" for level in levels]
    tw.plot.grid(rows, options.pictures / f"cf_ebm_{options.data}_noise.png", columns=12, row_labels=labels)


def ablation(options: argparse.Namespace) -> dict[str, Any]:
    return of_rows("ablation", ROWS, options)


def others(options: argparse.Namespace) -> dict[str, Any]:
    """The rows of `ablation` but for those that three seeds were spent on."""
    return of_rows("others", [name for name in ROWS if name not in ("from scratch", "relu")], options)


def of_rows(part: str, names: Any, options: argparse.Namespace) -> dict[str, Any]:
    names = STUDY.chosen(names, options)
    rows = STUDY.rows(part, [(name, seed) for seed in range(options.seeds) for name in names], options)
    full = {r["seed"]: r["frechet"] for r in rows if r["row"] == FULL}
    lines = []
    for name in names:
        mine = [r for r in rows if r["row"] == name]
        values = [r["frechet"] for r in mine if r["frechet"] is not None]
        pairs = [r["frechet"] - full[r["seed"]] for r in mine if r["frechet"] is not None and full.get(r["seed"]) is not None]
        pairs = [] if name == FULL else pairs
        line: dict[str, Any] = {"row": name, "seeds": len(mine), "diverged": sum(r["diverged"] is not None for r in mine)}
        line["repairs"] = sum(len(r["guard_events"]) for r in mine)
        line |= {"paper_fid": ROWS[name][1], "frechet": statistics.fmean(values) if values else None}
        line["above_full"] = statistics.fmean(pairs) if pairs else None
        line["standard_error"] = statistics.stdev(pairs) / math.sqrt(len(pairs)) if len(pairs) > 1 else None
        for key in ("psnr_hidden", "highest_energy"):
            known = [r[key] for r in mine if r.get(key) is not None]
            line[key] = statistics.fmean(known) if known else None
        lines.append(line)
    return {
        "width": options.width, "budget": options.budget, "batch": options.batch,
        "floor": next((r["floor"] for r in rows if "floor" in r), None),
        "summary": lines, "runs": rows,
    }  # fmt: skip


# --- translation


def domains(row: str, options: argparse.Namespace) -> tuple[str, str, tuple[Any, Any], list[int]]:
    """Names of source and target, what their classifier is trained and tested on, and its outputs for source and target."""
    import torch

    import thalweg as tw

    if options.data == "emoji":
        both = VENDORS[row]
        parts = [[tw.data.load(name, split, size=options.size).all().x for name in both] for split in ("train", "test")]
        labelled = tuple((torch.cat(two), torch.tensor([0] * len(two[0]) + [1] * len(two[1]))) for two in parts)
        return *both, labelled, [0, 1]
    names = CLASSES.get(options.data, WAYS)[row]
    train, test = (tw.data.load(options.data, split, size=options.size) for split in ("train", "test"))
    source, target = (f"{options.data}:{name}" for name in names)
    return source, target, (tuple(train.all()), tuple(test.all())), [train.classes.index(name) for name in names]


def translation_one(row: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    import tempfile

    import torch

    import thalweg as tw
    from thalweg import tasks
    from thalweg.methods import find

    source, target, whole, columns = domains(row, options)
    train, test = ([tw.data.load(name, split, size=options.size) for name in (source, target)] for split in ("train", "test"))
    config = config_of(target, options, source=source, images=options.images)
    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        model = tw.fit(
            find("cf_ebm")(config), tw.data.Unpaired(train[1], train[0]), Path(folder), seed=seed,
            seconds=options.seconds, clock=time.process_time, precision=options.precision, progress=False,
            log_every=2560, sample_every=10**9, save_every=5120,
        ).eval()  # fmt: skip
        seconds = time.process_time() - started
    extractor = tw.evaluate.extractor(whole, name=options.data)
    x, y = (part.all().x for part in test)
    known = train[1].all().x
    found = tasks.translate(model, x, seed)

    def target_share(images: Any) -> float:
        return float((extractor.logits(images)[:, columns].argmax(1) == 1).float().mean())

    def kid(images: Any) -> dict[str, float]:
        value = tw.evaluate.fidelity(known, images, extractor, held_out=y, metrics=("kid",)).kid
        return {"value": value.value, "low": value.low, "high": value.high, "floor": value.held_out}

    f = [extractor.features(images).double() for images in (x, found.x, y)]
    kept = (f[1] - f[0]).norm(dim=1)
    other = (f[2][torch.randperm(len(y), generator=tw.random.seeded(seed, 22))[: len(x)]] - f[0][: len(y)]).norm(dim=1)
    # the object is where either image is not background, the corner's colour
    shown = ((torch.stack([x, found.x]) - x[:, :, :1, :1]).abs() > 0.1).any(2).any(0)
    saliency = found.saliency
    on, off = (float((saliency * mask).sum() / mask.sum()) for mask in (shown, ~shown))
    name = f"cf_ebm_{options.data}_{row}"
    if seed == 0:
        strongest = saliency[:10].flatten(1).amax(1)[:, None, None]
        rows = torch.cat([found.strip[:, :10], (2 * saliency[:10] / strongest - 1)[None, :, None].expand(1, -1, *x.shape[1:])])
        tw.plot.grid(rows.transpose(0, 1).flatten(0, 1), options.pictures / f"{name}.png", columns=len(rows))
        mean = saliency.mean(0)
        tw.plot.grid((2 * mean / mean.max() - 1).expand(1, *x.shape[1:]), options.pictures / f"{name}_saliency.png", columns=1)
    return {
        "row": row, "seed": seed, "source": source, "target": target, "n": len(x), "images": int(model.images),
        "cpu_seconds": round(seconds, 1), "diverged": None, "target_share": target_share(found.x),
        "target_share_before": target_share(x), "target_share_of_target": target_share(y),
        "kid": kid(found.x), "kid_before": kid(x), "distance_kept": float(kept.mean()), "distance_random": float(other.mean()),
        "distance_difference": float((kept[: len(other)] - other).mean()),
        "standard_error": float((kept[: len(other)] - other).std() / math.sqrt(len(other))),
        "saliency_on_object": on, "saliency_on_background": off, **of_pairs(x, found.x, y, options),
    }  # fmt: skip


def of_pairs(x: Any, translated: Any, y: Any, options: argparse.Namespace) -> dict[str, float]:
    """PSNR to the same emoji as the other vendor draws it, before and after; training never saw which belong together."""
    import thalweg as tw

    if options.data != "emoji":
        return {}
    return {"psnr_of_pair_before": float(tw.evaluate.psnr(y, x).mean()), "psnr_of_pair": float(tw.evaluate.psnr(y, translated).mean())}


def translation(options: argparse.Namespace) -> dict[str, Any]:
    rows = STUDY.rows("translation", [(name, seed) for seed in range(options.seeds) for name in STUDY.chosen(WAYS, options)], options)
    lines = []
    for row in rows:
        keys = ("source", "target", "seed", "target_share", "target_share_before", "distance_kept", "distance_random")
        line = {key: row[key] for key in keys}
        line |= {"kid": row["kid"]["value"], "kid_before": row["kid_before"]["value"], "kid_floor": row["kid"]["floor"]}
        line["saliency_ratio"] = row["saliency_on_object"] / row["saliency_on_background"]
        lines.append(line)
    return {"width": options.width, "budget": options.budget, "batch": options.batch, "summary": lines, "runs": rows}


STUDY = Study(
    "cf_ebm",
    __doc__,
    {"ablation": ablation, "others": others, "denoising": denoising, "denoiser": denoiser, "translation": translation},
    {
        "ablation": ablation_one,
        "others": ablation_one,
        "denoising": denoising_one,
        "denoiser": denoiser_one,
        "translation": translation_one,
    },
    run=Path("runs/cf_ebm-digits"),
)


def main() -> None:
    parser = STUDY.parser()
    parser.add_argument("--width", type=int, help="channel multiplier c, the preset's by default")
    parser.add_argument("--budget", type=int, nargs="+", help="images of each stage, the preset's by default")
    parser.add_argument("--batch", type=int, default=64, help="images of an update")
    STUDY.main(parser)


if __name__ == "__main__":
    main()
