"""CF-EBM: its components at equal CPU time, restoration, denoising, and unpaired translation.

`ablation`: the full model, training at full size from the start, other activations (Table 8), without spectral norm or residual
connections, with fixed coarse energies (Table 9), and other noise on the data (Figure 13), each for `--seconds` of CPU time:
Fréchet distances during training, interventions of the divergence guard, inpainting of held-out images. `others`: the same without the
rows on training at full size and ReLU, in a file of its own with fewer seeds. `denoising`: the models kept by `ablation`, at three noise
levels, by our bounded chain and by the paper's full one (Figure 5). `denoiser`: the preset whose chains start at noisy images, against the
best linear filter. `translation`: both directions between two classes, or between the styles of two vendors (`--data emoji`): how a
classifier labels translated test images, kernel distances to the target class, how much of the source is kept, and where the saliency is
(Figures 3, 4 and 20 to 23).

    python -m studies.cf_ebm ablation --seconds 300 --jobs 2
    python -m studies.cf_ebm ablation --data fashion-mnist --size 32 --width 8 --precision bf16 --seconds 1800 \\
        --rows "coarse to fine" "from scratch" --jobs 2
    python -m studies.cf_ebm others --seconds 90 --seeds 1
    python -m studies.cf_ebm denoiser --data fashion-mnist --precision bf16 --images 16384
    python -m studies.cf_ebm translation --data fashion-mnist --size 16 --width 8 --precision bf16 --images 40000 --seeds 1
"""

import argparse
import math
import shutil
from pathlib import Path
from typing import Any

import torch

import thalweg as tw
from studies.measures import ENDLESS, Judge, mean, means, paired, psnr_hidden, sets_of, standard_error, trained
from studies.runner import Options, Part, Row, Study, file_of, precise
from studies.tables import Each, Picture, Section, Shown, Table, When, shown
from thalweg import tasks
from thalweg.checkpoint import read_stats

FULL = "coarse to fine"
# row: (fields, the paper's FID on CIFAR-10, None where there is none or it diverged)
ROWS: dict[str, tuple[dict[str, Any], float | None]] = {
    FULL: ({}, 16.71),
    "from scratch": ({"coarse_to_fine": False}, 24.67),
    "fixed coarse energies": ({"frozen_coarse": True}, None),
    **{name: ({"activation": name.replace(" ", "_")}, None) for name in ("relu", "leaky relu", "gelu", "celu")},
    "no spectral norm": ({"spectral_norm": False}, None),
    "no residual": ({"residual": False}, None),
    "no noise on data": ({"data_noise": 0.0}, None),
    "noise 0.1 on data": ({"data_noise": 0.1}, None),
}
WAYS = {"forth": ("sneaker", "ankle boot"), "back": ("ankle boot", "sneaker")}
CLASSES = {"digits": {"forth": ("3", "8"), "back": ("8", "3")}}
VENDORS = {"forth": ("emoji-twitter", "emoji-google"), "back": ("emoji-google", "emoji-twitter")}  # --data emoji
STOPS = 4  # at which distances are measured
SAMPLES = 1000
DENOISED = 200
STD = 0.2
STDS = (0.1, STD, 0.4)
DENOISERS: dict[str, dict[str, Any]] = {
    "denoise": {}, "30 steps": {"stage_steps": (30,) * 3}, "noise 0.02 in the chain": {"chain_noise": 0.02},
}  # fmt: skip


def sized(options: Options, **fields: Any) -> tuple[str, dict[str, Any]]:
    """The preset of the data for images of `--size`, with as many stages as lead from 8 pixels to it, two at least."""
    name = f"cf_ebm/{'digits' if options.data == 'digits' else 'fashion-mnist'}"
    preset = tw.methods.preset(name)[1]
    size = options.size or preset.shape[-1]
    stages = max(2, round(math.log2(size / 8)) + 1)
    return name, {
        "shape": (3 if options.data == "emoji" else preset.shape[0], size, size), "width": options.width or preset.net.width,
        "stage_steps": (15, 30, 50, 50)[:stages], "stage_images": tuple(options.budget or preset.stage_images[:stages]),
        "stage_lr_factors": (1.0,) * stages, "stage_splits": (1,) * stages, "batch": options.batch,
    } | fields  # fmt: skip


def ablation_settings(row: str, options: Options) -> tuple[str, dict[str, Any]]:
    # no end in images: time ends the run, and the last stage goes on until then
    return sized(options, images=ENDLESS, **ROWS[row][0])


def model_folder(row: str, seed: int, options: Options) -> Path:
    return options.work / "models" / f"{options.data}-{options.size or 'preset'}-{row.replace(' ', '-')}-{seed}"


def ablation_one(row: str, seed: int, options: Options) -> Row:
    train, test = sets_of(options)
    judge, folder = Judge.of(options.data, train, test, most=SAMPLES), model_folder(row, seed, options)
    shutil.rmtree(folder, ignore_errors=True)

    def look(twin: Any, last: bool) -> Row:
        # fewer during training, as chains are expensive; fewer samples give a slightly larger distance
        n = min(SAMPLES // (1 if last else 2), len(judge.held_out))
        return {"stage": twin.net.sizes[twin.reached[0]][0], "frechet": judge.distance(twin, seed, options.precision, n=n)}

    # kept for `denoising`
    asked, seconds = ablation_settings(row, options), options.seconds or 300.0
    twin, found = trained(asked, train, seed, options, seconds=seconds, folder=folder, stops=STOPS, look=look)
    energies = [abs(r[key]) for r in read_stats(folder) for key in ("energy_data", "energy_samples") if isinstance(r.get(key), float)]
    found["highest_energy"] = max(energies, default=None)
    if twin is None or twin.reached[0] < twin.stages - 1:
        return found
    found |= {"frechet": found["along"][-1]["frechet"], "floor": judge.floor}
    with precise(options.precision):
        found |= restored(twin, judge.held_out[:DENOISED], seed)
        if seed == 0:
            tw.plot.grid(twin.sample(64, seed=1).float(), options.pictures / file_of("cf_ebm", options.data, row), columns=16)
    if seed == 0 and row == FULL:
        pictures(twin, judge.train, options)
    return found


def restored(model: Any, clean: Any, seed: int) -> dict[str, Any]:
    """PSNR of hidden pixels of inpainted images, and how far their completions differ."""
    mask = tasks.masks.centre_square(tuple(clean.shape[1:]), 0.25)
    filled = tasks.inpaint(model, clean[:100], mask, completions=1, seed=seed)[0]
    return {
        "psnr_hidden": float(psnr_hidden(clean[:100], filled, ~mask.bool()).mean()),
        "inpainting_diversity": float(tasks.diversity(tasks.inpaint(model, clean[:20], mask, completions=4, seed=seed), mask).mean()),
    }


def pictures(model: Any, train: Any, options: Options) -> None:
    """A chain from noise to images, nearest training images, and more noise in the chain than was trained (Figures 10, 12 and 16)."""
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
    rows = torch.cat([model.sample(12, seed=1, chain_noise=level) for level in levels])
    labels = [f"η = {level:g}" for level in levels]
    tw.plot.grid(rows, options.pictures / f"cf_ebm_{options.data}_noise.png", columns=12, row_labels=labels)


def ablation_line(name: str, mine: list[Row], rows: list[Row]) -> Row:
    gap, error = paired(rows, name, FULL, "frechet")
    line = {"repairs": sum(row["guard_events"] for row in mine), "paper_fid": ROWS[name][1]}
    return line | means(mine, ("frechet", "psnr_hidden", "highest_energy")) | {"above_full": gap, "standard_error": error}


def sizes(options: Options, rows: list[Row]) -> dict[str, Any]:
    return {"width": options.width, "budget": options.budget, "batch": options.batch, "floor": mean(row.get("floor") for row in rows)}


# --- denoising


def by_level(clean: Any, seed: int, options: Options, path: Path | None, labels: list[str], ways: Any) -> Row:
    """PSNR in dB of images denoised in several ways at each noise level: `ways(noisy, std)` -> images by name, the last three pictured."""
    found: Row = {"n": len(clean), "levels": {}}
    for std in STDS:
        noisy = clean + std * tw.random.normal_like(clean, tw.random.seeded(seed, 21))
        with precise(options.precision):
            images = {name: x.float() for name, x in ways(noisy, std).items()}
        found["levels"][str(std)] = {name: float(tw.evaluate.psnr(clean, x).mean()) for name, x in images.items()}
        if path is not None and std == STD:
            rows = torch.cat([x[:16] for x in (clean, *list(images.values())[-3:])])
            tw.plot.grid(rows, path, columns=16, row_labels=["image", *labels])
    return found


def denoising_one(row: str, seed: int, options: Options) -> Row:
    """Held-out images with noise, through the chain within the noise's reach and through all of it as in the paper."""
    model = tw.load(model_folder(row, seed, options)).eval()

    def ways(noisy: Any, std: float) -> dict[str, Any]:
        within, whole = model.denoise(noisy, std, seed=seed), model.sample(len(noisy), seed=seed, start=noisy)
        return {"noisy": noisy.clamp(-1, 1), "within": within, "whole": whole}

    path = None if seed else options.pictures / file_of("cf_ebm", options.data, "denoising", row)
    labels = ["with noise", "within its reach", "the whole chain"]
    return {"images": int(model.images)} | by_level(sets_of(options)[1].all().x[:DENOISED], seed, options, path, labels, ways)


def wiener(train: Any, y: Any, std: float) -> Any:
    """The posterior mean of y = x + std·ε where x is Gaussian with the mean and covariance of `train`: the best linear filter."""
    x, flat = train.flatten(1).double(), y.flatten(1).double()
    mean, covariance = x.mean(0), torch.cov(x.T)
    gain = torch.linalg.solve(covariance + std**2 * torch.eye(len(covariance), dtype=torch.float64), covariance)
    return (mean + (flat - mean) @ gain).float().view_as(y).clamp(-1, 1)


def denoiser_settings(row: str, options: Options) -> tuple[str, dict[str, Any]]:
    return "cf_ebm/denoise", DENOISERS[row] | ({"images": options.images} if options.images else {})


def denoiser_one(row: str, seed: int, options: Options) -> Row:
    name, fields = denoiser_settings(row, options)
    preset = tw.methods.preset(name)[1]
    options.size = options.size or (preset.shape[-1] if options.data == preset.data else None)
    train, test = sets_of(options)
    model, found = trained((name, fields), train, seed, options)
    if model is None:
        return found
    known = train.all().x

    def ways(noisy: Any, std: float) -> dict[str, Any]:
        denoised, clamped = tasks.denoise(model, noisy, std, seed), noisy.clamp(-1, 1)
        return {"noisy": noisy, "clamped": clamped, "linear": wiener(known, noisy, std), "denoised": denoised}

    path = options.pictures / f"cf_ebm_{options.data}_denoiser.png" if not seed and row == "denoise" else None
    labels = ["with noise", "linear filter", "the chain"]
    return found | by_level(test.all().x[: 5 * DENOISED], seed, options, path, labels, ways)


def gains(*keys: str, end: str = "") -> Any:
    """The summary of parts that denoise: a line for each row and noise level, with what each of `keys` gains over the noisy images."""

    def summary(options: Options, rows: list[Row]) -> dict[str, Any]:
        lines = []
        for name in dict.fromkeys(row["row"] for row in rows):
            for std in map(str, STDS):
                mine = [row["levels"][std] for row in rows if row["row"] == name and "levels" in row]
                line = {"row": name, "std": std, "seeds": len(mine), "psnr_noisy": mean(level["noisy"] for level in mine)}
                lines.append(line | {f"{key}{end}": mean(level[key] - level["noisy"] for level in mine) for key in keys})
        return {"summary": lines}

    return summary


# --- translation


def names_of(row: str, options: Options) -> tuple[str, str]:
    """Source and target."""
    if options.data == "emoji":
        return VENDORS[row]
    source, target = CLASSES.get(options.data, WAYS)[row]
    return f"{options.data}:{source}", f"{options.data}:{target}"


def domains(row: str, options: Options) -> tuple[str, str, tuple[Any, Any], list[int]]:
    """Names of source and target, training and test data of their classifier, and its outputs for source and target."""
    source, target = names_of(row, options)
    if options.data == "emoji":
        parts = zip(*([split.all().x for split in sets_of(options, name)] for name in (source, target)))
        labelled = tuple((torch.cat(two), torch.tensor([0] * len(two[0]) + [1] * len(two[1]))) for two in parts)
        return source, target, labelled, [0, 1]
    train, test = sets_of(options)
    columns = [train.classes.index(name.partition(":")[2]) for name in (source, target)]
    return source, target, (tuple(train.all()), tuple(test.all())), columns


def translation_settings(row: str, options: Options) -> tuple[str, dict[str, Any]]:
    return sized(options, source=names_of(row, options)[0], images=options.images)


def translation_one(row: str, seed: int, options: Options) -> Row:
    source, target, whole, columns = domains(row, options)
    (train_x, test_x), (train_y, test_y) = (sets_of(options, name) for name in (source, target))
    model, how = trained(translation_settings(row, options), tw.data.Unpaired(train_y, train_x), seed, options)
    if model is None:
        return how
    extractor = tw.evaluate.extractor(whole, name=options.data)
    x, y, known = (part.all().x for part in (test_x, test_y, train_y))
    found = tasks.translate(model, x, seed)

    def target_share(images: Any) -> float:
        return float((extractor.logits(images)[:, columns].argmax(1) == 1).float().mean())

    def kid(images: Any) -> dict[str, float]:
        value = tw.evaluate.fidelity(known, images, extractor, held_out=y, metrics=("kid",)).kid
        return {"value": value.value, "low": value.low, "high": value.high, "floor": value.held_out}

    f = [extractor.features(images).double() for images in (x, found.x, y)]
    kept = (f[1] - f[0]).norm(dim=1)
    other = (f[2][torch.randperm(len(y), generator=tw.random.seeded(seed, 22))[: len(x)]] - f[0][: len(y)]).norm(dim=1)
    gap = kept[: len(other)] - other
    # the object is where either image is not background, the corner's colour
    objects = ((torch.stack([x, found.x]) - x[:, :, :1, :1]).abs() > 0.1).any(2).any(0)
    saliency = found.saliency
    on, off = (float((saliency * mask).sum() / mask.sum()) for mask in (objects, ~objects))
    if seed == 0:
        strongest = saliency[:10].flatten(1).amax(1)[:, None, None]
        rows = torch.cat([found.strip[:, :10], (2 * saliency[:10] / strongest - 1)[None, :, None].expand(1, -1, *x.shape[1:])])
        path = options.pictures / file_of("cf_ebm", options.data, row)
        tw.plot.grid(rows.transpose(0, 1).flatten(0, 1), path, columns=len(rows))
        average = saliency.mean(0)
        average = (2 * average / average.max() - 1).expand(1, *x.shape[1:])
        tw.plot.grid(average, path.with_name(f"{path.stem}_saliency.png"), columns=1)
    return how | {
        "source": source, "target": target, "n": len(x), "target_share": target_share(found.x),
        "target_share_before": target_share(x), "target_share_of_target": target_share(y),
        "kid": kid(found.x), "kid_before": kid(x), "distance_kept": float(kept.mean()), "distance_random": float(other.mean()),
        "distance_difference": float(gap.mean()), "standard_error": standard_error(gap.tolist()),
        "saliency_on_object": on, "saliency_on_background": off, **of_pairs(x, found.x, y, options),
    }  # fmt: skip


def of_pairs(x: Any, translated: Any, y: Any, options: Options) -> dict[str, float]:
    """PSNR to the same emoji as the other vendor draws it, before and after; training never saw which belong together."""
    if options.data != "emoji":
        return {}
    return {"psnr_of_pair_before": float(tw.evaluate.psnr(y, x).mean()), "psnr_of_pair": float(tw.evaluate.psnr(y, translated).mean())}


def translation_summary(options: Options, rows: list[Row]) -> dict[str, Any]:
    keys = ("source", "target", "seed", "target_share_before", "target_share", "distance_kept", "distance_random")
    lines = [{key: row.get(key) for key in keys} for row in rows]
    return {"summary": lines} | {key: getattr(options, key) for key in ("width", "budget", "batch")}


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--width", type=int, help="channel multiplier c, the preset's by default")
    parser.add_argument("--budget", type=int, nargs="+", help="images of each stage, the preset's by default")
    parser.add_argument("--batch", type=int, default=64, help="images of an update")


OTHERS = [name for name in ROWS if name not in ("from scratch", "relu")]  # not those that were run with three seeds
STUDY = Study(
    "cf_ebm",
    __doc__,
    {
        "ablation": Part(ROWS, ablation_one, ablation_line, ablation_settings, sizes),
        "others": Part(OTHERS, ablation_one, ablation_line, ablation_settings, sizes),
        "denoising": Part((FULL, "from scratch"), denoising_one, None, more=gains("within", "whole")),
        "denoiser": Part(DENOISERS, denoiser_one, None, denoiser_settings, gains("clamped", "linear", "denoised", end=" gains")),
        "translation": Part(WAYS, translation_one, None, translation_settings, translation_summary),
    },
    add=add,
)

# --- the page

PARTS = [
    "Components of CF-EBM, {data}{at_size}, {seconds:.0f} CPU seconds per model{and_floor}:",
    Table(
        "model = row | seeds | diverged | guard interventions = repairs | Fréchet distance = frechet:.1f | "
        "minus the full model's = above_full ± standard_error:+.1f | highest energy = highest_energy:.1f"
    ),
]


def and_floor(r: dict[str, Any]) -> dict[str, Any]:
    floor = "" if r["floor"] is None else f"; the floor of the Fréchet distance is {r['floor']:.1f}"
    return {"and_floor": floor, "fewer": "" if r["data"] == "digits" else FEWER}


FEWER = "; of 500 samples, at the end of 1,000, which alone lowers it a little"


def along_columns(r: dict[str, Any]) -> list[tuple]:
    seconds = [x["cpu_seconds"] for x in next(x for x in r["runs"] if x["row"] == FULL)["along"]]
    places = [(f"after {at:.0f} s (images)", lambda row, i=i: at_place(row["along"], i)) for i, at in enumerate(seconds)]
    return [("model", "row"), *places]


def at_place(along: list[list[Row]], i: int) -> str:
    """Mean distance and images of several models at one place of their training."""
    return f"{shown(mean(one[i]['frechet'] for one in along), '.1f')} ({mean(one[i]['images'] for one in along):,.0f})"


def along_rows(r: dict[str, Any]) -> list[Row]:
    along = {name: [x["along"] for x in r["runs"] if x["row"] == name and len(x["along"]) == STOPS] for name in ROWS}
    names = dict.fromkeys(x["row"] for x in r["runs"])
    return [{"row": name, "along": along[name]} for name in names if along[name]]


PICTURES = {
    "coarsetofine": "Samples", "fromscratch": "Samples of the model from scratch", "chain": "Chains from noise",
    "neighbours": "Samples and the training images nearest to them", "noise": "Samples with more noise in the chain",
}  # fmt: skip
ABLATION = [
    *PARTS,
    "Fréchet distance during training, mean over seeds{fewer}:",
    Table(along_columns, along_rows),
    *(Picture(title, f"cf_ebm_{{data}}_{name}.png") for name, title in PICTURES.items()),
]
LEVELS = "model = row | σ = std | seeds | PSNR of noisy images, dB = psnr_noisy:.1f"
DENOISING = [
    "Denoising, {data}, {runs[0][n]} test images:",
    Table([LEVELS, "gain, chain within the noise's reach = within:+.1f | gain, full chain = whole:+.1f"]),
    Picture("Denoising", "cf_ebm_{data}_denoising_coarsetofine.png"),
]
DENOISER = [
    "Chains trained to start at images with noise of σ = 0.2, {data}, {runs[0][n]:,} test images:",
    Table(
        [
            LEVELS,
            "gain by clamping = clamped gains:+.1f | by the best linear filter = linear gains:+.1f | by the chain = denoised gains:+.1f",
        ]
    ),
    Picture("Denoising", "cf_ebm_{data}_denoiser.png"),
]
TRANSLATION = [
    "Translation, {data}{at_size}, {images:,} images per model, {runs[0][n]:,} test images:",
    Table(
        [
            ("direction", lambda x: f"{x['source'].split(':')[-1]} → {x['target'].split(':')[-1]}"),
            "seed | classified as the target, before = target_share_before:.1f % | after = target_share:.1f % | "
            "KID before = kid_before.value:.1f | after = kid.value:.1f | of real target images = kid.floor:.1f | "
            "feature distance to the source = distance_kept:.1f | of random target images = distance_random:.1f | "
            "difference = distance_difference ± standard_error:+.2f",
            ("saliency, object over background", lambda x: x["saliency_on_object"] / x["saliency_on_background"], ".1f"),
        ],
        "runs",
    ),
    When("before", ["PSNR to the same emoji in the other style: {before:.1f} dB before, {after:.1f} dB after."]),
    "{source}",
    Each("ways", [Picture("From {source_name} to {target}: the chain, and the saliency", "cf_ebm_{data}_{row}.png")]),
]


def of_translation(r: dict[str, Any]) -> dict[str, Any]:
    found = {row["row"]: {**row, "source_name": row["source"]} for row in reversed(r["runs"])}
    pairs = means(r["runs"], ("psnr_of_pair_before", "psnr_of_pair"))
    return {"ways": [found[way] for way in WAYS], "before": pairs["psnr_of_pair_before"], "after": pairs["psnr_of_pair"]}


BY_DATA = (
    Shown("cf_ebm_ablation", ABLATION, and_floor),
    Shown("cf_ebm_others", PARTS, and_floor),
    Shown("cf_ebm_denoising", DENOISING),
    Shown("cf_ebm_denoiser", DENOISER),
    Shown("cf_ebm_translation", TRANSLATION, of_translation),
)
PAGE = [Section("CF-EBM", [BY_DATA])]

if __name__ == "__main__":
    STUDY.main()
