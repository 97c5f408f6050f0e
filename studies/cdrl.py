"""What trained CDRL models do, part by part: densities of toys, digits, labels and guidance, composition, inpainting, latents.

Each part writes studies/results/cdrl_PART.json. `toys` trains its models itself, CPU time bounded; the others measure runs:

    thalweg train cdrl/digits --out runs/cdrl-digits --compile true --precision bf16 --threads 1
    thalweg train cdrl/digits-conditional --out runs/cdrl-digits-conditional --compile true --precision bf16 --threads 1
    thalweg train cdrl/paired-digits --out runs/cdrl-paired --compile true --precision bf16 --threads 1
    thalweg train cdrl/inked-digits --out runs/cdrl-inked --compile true --precision bf16 --threads 1
    thalweg train autoencoder/fashion-mnist --out runs/autoencoder --precision bf16 --threads 1
    thalweg train cdrl/fashion-mnist-latent --out runs/cdrl-latent --compile true --precision bf16 --threads 1
    python -m studies.cdrl toys digits conditional composition inpainting latent
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from torch import Tensor

import thalweg as tw
from studies.runner import rows_of_jobs, write_results
from thalweg.checkpoint import read_stats
from thalweg.evaluate.ood import OUTLIERS

RESULTS = Path("studies/results")
IMAGES = Path("docs/images")
TOYS = {"checkerboard": 330.0, "25gaussians": 800.0}  # CPU seconds of training at most
DRAWS = 5
RESAMPLE = 4
UNSEEN = "never seen together"
COMPOSED = tuple(("both", w) for w in (0.0, 0.25, 0.5)) + tuple(("initializer", w) for w in (0.5, 0.75, 1.0))
BEST = ("initializer", 0.75)
GUIDANCE = (0.0, 0.1, 0.25, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0)


def trained(run: Path) -> dict[str, Any]:
    """How long a run was trained: images, seconds on the clock, guard events."""
    stats = [row for row in read_stats(run) if "event" not in row]
    last = stats[-1]
    return {
        "images": last["images"], "seconds": last["seconds"], "images_per_second": last["images"] / last["seconds"],
        "guard_events": sum("event" in row for row in read_stats(run)),
    }  # fmt: skip


def images_of(name: str, split: str) -> tuple[Tensor, Tensor | None]:
    return tuple(tw.data.load(name, split).all())


def spread(values: list[float]) -> dict[str, float]:
    """Mean and standard error over draws."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return {"mean": statistics.fmean(values), "standard_error": error, "draws": len(values)}


def drawn(model: Any, n: int, **options: Any) -> tuple[list[Tensor], float]:
    """`DRAWS` sets of n samples and the median CPU seconds of one."""
    sets, seconds = [], []
    for seed in range(1, DRAWS + 1):
        started = time.process_time()
        sets.append(model.sample(n, seed=seed, **options))
        seconds.append(time.process_time() - started)
    return sets, statistics.median(seconds)


def distances(sets: list[Tensor], train: Tensor, held_out: Tensor, extractor: Any) -> dict[str, Any]:
    found = [tw.evaluate.fidelity(train, x, extractor, held_out=held_out, metrics=("frechet",)).frechet for x in sets]
    value = spread([f.value for f in found])
    return {"name": found[0].name, "frechet": value, "floor": found[0].held_out, "ratio": value["mean"] / found[0].held_out}


# --- toys


def toy_run(name: str, seed: int) -> dict[str, Any]:
    """Train one toy's preset in this process; the density of every level against the exact one of noised data."""
    torch.set_num_threads(1)
    toy = tw.data.toy(name)
    started = time.process_time()
    model = tw.fit(
        tw.method(f"cdrl/{name}", seed=seed), toy, seed=seed, seconds=TOYS[name], clock=time.process_time, progress=False,
        sample_every=10**8,
    )  # fmt: skip
    spent = time.process_time() - started
    x = model.sample(4096, seed=seed + 1)
    exact = toy.sample(10_000, generator=tw.random.seeded(seed, 99))
    if seed == 0:
        panels = {f"level {t}": (lambda x, t=t: model.energy(x, t=t)) for t in range(model.config.levels)}
        tw.plot.density(panels, toy, IMAGES / f"cdrl_{name}.png", samples=x)
    return {
        "toy": name, "seed": seed, "cpu_seconds": round(spent, 1),
        "density": asdict(tw.evaluate.density(model.energy, toy, grid=400)),
        "energy_distance": asdict(tw.evaluate.energy_distance_interval(x, exact)),
    }  # fmt: skip


def toys(options: argparse.Namespace) -> dict[str, Any]:
    def show(row: dict[str, Any]) -> str:
        return f"{row['toy']} seed {row['seed']}  KL {row['density']['kl_truth_model']:.4f}  missing {row['density']['modes_missing']}"

    jobs = [(toy, seed) for seed in range(options.seeds) for toy in TOYS]
    work = options.runs / "cdrl_toys"
    rows = rows_of_jobs("studies.cdrl", jobs, arguments=["--toy"], work=work, workers=options.jobs, show=show)
    kl = {toy: [r["density"]["kl_truth_model"] for r in rows if r["toy"] == toy] for toy in TOYS}
    return {"budget_cpu_seconds": TOYS, "median_kl": {t: statistics.median(v) for t, v in kl.items()}, "runs": rows}


# --- digits


def digits(options: argparse.Namespace) -> dict[str, Any]:
    """Quality, its parts (sec. 5.4.10), fewer steps (Table 5.2), cost and outliers of the unconditional model."""
    run = options.runs / "cdrl-digits"
    model, (train, _), (held_out, _) = tw.load(run), images_of("digits", "train"), images_of("digits", "test")
    extractor = tw.evaluate.extractor("digits")
    found: dict[str, Any] = {"training": trained(run), "n": len(held_out), "extractor_accuracy": extractor.test_accuracy}
    rows = {f"{n} steps": {"steps": n} for n in (15, 8, 5, 3)} | {
        "initializer only": {"use": "initializer"},
        "energy only": {"use": "energy"},
    }
    for name, fields in rows.items():
        sets, seconds = drawn(model, len(held_out), **fields)
        found[name] = distances(sets, train, held_out, extractor) | {"cpu_seconds": seconds}
        print(name, found[name]["frechet"], round(seconds, 3), flush=True)
        if name in ("15 steps", "initializer only"):
            tw.plot.grid(sets[0][:64], IMAGES / f"cdrl_digits_{name.replace(' ', '_')}.png", columns=16)
    # one x_T and one noise of the proposals a row, other Langevin noise in each column (Figure 5.9c)
    start = tw.random.normal(6, 1, 8, 8, generator=tw.random.seeded(3))
    fixed = [model.sample(10, seed=7, chain_seed=s, start=x.expand(10, -1, -1, -1), shared="proposals") for s, x in enumerate(start)]
    tw.plot.grid(torch.cat(fixed), IMAGES / "cdrl_digits_fixed_start.png", columns=10)
    # the spread within a row, of one start, against that between rows
    stack = torch.stack(fixed).flatten(2)
    found["fixed start"] = {"std_within": float(stack.std(1).mean()), "std_between": float(stack.mean(1).std(0).mean())}
    with torch.no_grad():
        inliers = model.energy(held_out)
        outliers = {kind: model.energy(tw.evaluate.outliers(kind, held_out, len(held_out), seed=0)) for kind in OUTLIERS}
    found["auroc"] = {kind: asdict(tw.evaluate.ood(inliers, energies)) for kind, energies in outliers.items()}
    return found


# --- labels


def conditional(options: argparse.Namespace) -> dict[str, Any]:
    """Class accuracy, fidelity and diversity of samples by label over the guidance w (Figure 5.3)."""
    run = options.runs / "cdrl-digits-conditional"
    model, (train, _), (held_out, _) = tw.load(run), images_of("digits", "train"), images_of("digits", "test")
    extractor = tw.evaluate.extractor("digits")
    found: dict[str, Any] = {"training": trained(run), "extractor_accuracy": extractor.test_accuracy, "curve": []}
    label = torch.arange(len(held_out)) % 10
    free, _ = drawn(model, len(held_out))
    found["unconditional"] = distances(free, train, held_out, extractor)
    for guide, w in [("both", w) for w in GUIDANCE] + [("initializer", w) for w in GUIDANCE if w >= 0.5]:
        sets, _ = drawn(model, len(held_out), label=label, guidance=w, guide=guide)
        scores = [tw.evaluate.fidelity(train, x, extractor, held_out=held_out) for x in sets]
        row = {"guide": guide, "w": w, **distances(sets, train, held_out, extractor)}
        row["accuracy"] = spread([tw.evaluate.class_accuracy(x, label, extractor).value for x in sets])
        row["within_class_distance"] = spread([within_class(extractor.features(x), label) for x in sets])
        row |= {name: spread([getattr(s, name).value for s in scores]) for name in ("precision", "recall", "density", "coverage")}
        found["curve"].append(row)
        print(guide, w, row["accuracy"], row["frechet"], row["within_class_distance"], flush=True)
        if guide == "both" and w in (0.0, 0.5):
            tw.plot.grid(sets[0][:100].view(10, 10, 1, 8, 8).transpose(0, 1).flatten(0, 1), IMAGES / f"cdrl_digits_w{w}.png", columns=10)
    real, label = images_of("digits", "test")
    found["real_within_class_distance"] = within_class(extractor.features(real), label)
    return found


def within_class(features: Tensor, label: Tensor) -> float:
    """Mean distance between features of the same class: how diverse they are."""
    means = []
    for value in label.unique():
        mine = features[label == value]
        means.append(float(torch.pdist(mine).mean()))
    return statistics.fmean(means)


# --- composition


def composition(options: argparse.Namespace) -> dict[str, Any]:
    """Joint accuracy of concepts, in pairs never seen together in training (sec. 5.4.6), on sets with two and three concepts."""
    from thalweg.data.attributes import coloured, paired

    sets = {
        "paired-digits": ("cdrl-paired", partial(paired, copies=2)),
        "inked-digits": ("cdrl-inked", partial(coloured, first="digit", ground="black", copies=1)),
        "coloured-digits": ("cdrl-coloured", partial(coloured, first="digit", copies=3)),
    }
    return {name: composed(name, options.runs / run, make) for name, (run, make) in sets.items() if (options.runs / run).is_dir()}


def composed(data: str, run: Path, make: Callable[..., Any]) -> dict[str, Any]:
    from thalweg.data import attributes
    from thalweg.data.sources import digits as grey_digits

    model, concepts = tw.load(run), tw.data.concepts(data)
    held = {pair: values for pair, values in attributes.heldout_pairs().items() if set(pair) <= set(concepts)}

    def every(split: str) -> tuple[Tensor, dict[str, Tensor]]:
        """Digits of the split in all combinations, those held out from the model's training too."""
        # the library gives combinations held out from training for testing only; the judges shall know them
        parts = [make(grey_digits, split=split).all(), make(partial_source(grey_digits, split), split="test", unseen=True).all()]
        return torch.cat([p.x for p in parts]), attributes.split_label(torch.cat([p.label for p in parts]), concepts)

    (x, label), (x_test, label_test) = every("train"), every("test")
    judges = {c: tw.evaluate.extractor(((x, label[c]), (x_test, label_test[c])), name=f"{data}-{c}") for c in concepts}
    found: dict[str, Any] = {"training": trained(run), "judge_accuracy": {c: j.test_accuracy for c, j in judges.items()}, "rows": []}

    def asked(wanted: dict[str, Tensor], kind: str, seed: int, guide: str, w: float, resample: int = RESAMPLE) -> Tensor:
        label = attributes.join_label(wanted, concepts)
        with torch.autocast("cpu", torch.bfloat16):  # as in training
            images = model.sample(len(label), seed=seed, label=label, guidance=w, guide=guide, resample=resample).float()
        right = {c: judges[c].logits(images).argmax(1) == v for c, v in wanted.items()}
        each = {c: float(r.float().mean()) for c, r in right.items()}
        joint = float(torch.stack(list(right.values())).all(0).float().mean())
        row = {
            "guide": guide,
            "w": w,
            "concepts": list(wanted),
            "pairs": kind,
            "n": len(label),
            "resample": resample,
            "joint": joint,
            **each,
        }
        found["rows"].append(row)
        print(data, guide, w, resample, list(wanted), kind, round(joint, 3), each, flush=True)
        return images

    for (one, other), values in held.items():
        every_pair = [(i, j) for i in range(len(concepts[one])) for j in range(len(concepts[other]))]
        chosen = {UNSEEN: values, "seen": [pair for pair in every_pair if pair not in values]}
        rows = {kind: torch.tensor(list(pairs)).repeat(500 // len(pairs), 1) for kind, pairs in chosen.items()}
        wanted = {kind: {one: pairs[:, 0], other: pairs[:, 1]} for kind, pairs in rows.items()}
        for guide, w in COMPOSED:
            for kind in wanted:
                images = asked(wanted[kind], kind, 1, guide, w)
                if (guide, w) == BEST and kind == UNSEEN:
                    tw.plot.grid(images[:100], IMAGES / f"cdrl_{data}_{one}_{other}.png", columns=len(values))
        for resample in (1, 2, 8):
            asked(wanted[UNSEEN], UNSEEN, 1, *BEST, resample=resample)
    for concept in concepts:
        asked({concept: torch.arange(500) % len(concepts[concept])}, "one concept", 2, *BEST)
    # the first concept without a value of the second, which mostly comes with it: the weight 1 + w of the second is below 0
    (one, other), first = list(concepts)[:2], torch.arange(500) % 10
    second = torch.zeros_like(first) if data != "paired-digits" else (first + 1) % 10
    images = model.sample(
        500, seed=3, label=attributes.join_label({one: first, other: second}, concepts),
        guidance=[0.0, -2.0] + [0.0] * (len(concepts) - 2),
    )  # fmt: skip
    found["not"] = {
        "asked": one, "denied": other, "asked_share": float((judges[one].logits(images).argmax(1) == first).float().mean()),
        "denied_share": float((judges[other].logits(images).argmax(1) == second).float().mean()),
    }  # fmt: skip
    print(data, found["not"], flush=True)
    return found


def partial_source(source: Callable[..., Any], split: str) -> Callable[..., Any]:
    """`source` that gives `split` whatever split it is asked for."""
    return lambda _, **options: source(split, **options)


# --- inpainting


def inpainting(options: argparse.Namespace) -> dict[str, Any]:
    """Held-out digits with 25 % and 50 % of the pixels missing: one completion, the mean of eight, and two baselines."""
    from thalweg import tasks

    model, (train, _), (x, _) = tw.load(options.runs / "cdrl-digits"), images_of("digits", "train"), images_of("digits", "test")
    x = x[:200]
    extractor = tw.evaluate.extractor("digits")
    shape = tuple(x.shape[1:])
    masks = {
        "centre 25 %": tasks.masks.centre_square(shape, 0.25), "irregular 25 %": tasks.masks.irregular(shape, 0.25, seed=1),
        "lower half 50 %": tasks.masks.half(shape, "bottom"), "irregular 50 %": tasks.masks.irregular(shape, 0.5, seed=1),
    }  # fmt: skip
    found: dict[str, Any] = {"n": len(x), "completions": 8, "resample": RESAMPLE, "rows": []}
    truth = extractor.logits(x).argmax(1)
    for name, mask in masks.items():
        filled = tasks.inpaint(model, x, mask, completions=8, seed=1, resample=RESAMPLE)
        hidden = ~mask.bool().expand(shape)
        kept = bool((filled[:, :, ~hidden] == x[None][:, :, ~hidden]).all())
        candidates = {
            "one completion": filled[0], "mean of 8": filled.mean(0),
            "mean fill": tasks.mean_fill(x, mask, train), "nearest fill": tasks.nearest_fill(x, mask, train),
        }  # fmt: skip
        row: dict[str, Any] = {"mask": name, "known_pixels_equal": kept, "diversity": float(tasks.diversity(filled, mask).mean())}
        for key, y in candidates.items():
            error = (y - x)[:, hidden].square().mean(1)
            # the peak of images in [−1, 1] is 2; over hidden pixels, as all others are equal
            row[key] = {
                "psnr_hidden": float((10 * torch.log10(4 / error.clamp_min(1e-12))).mean()), "mse_hidden": float(error.mean()),
                "class_kept": float((extractor.logits(y).argmax(1) == truth).float().mean()),
            }  # fmt: skip
        found["rows"].append(row)
        print(name, kept, row["diversity"], {k: v["psnr_hidden"] for k, v in row.items() if isinstance(v, dict)}, flush=True)
        shown = torch.cat([x[None, :8], torch.where(hidden, -1.0, x[:8])[None], filled[:6, :8]]).transpose(0, 1).flatten(0, 1)
        tw.plot.grid(shown, IMAGES / f"cdrl_inpaint_{name.replace(' %', '').replace(' ', '_')}.png", columns=8)
    return found


# --- latents


def latent(options: argparse.Namespace) -> dict[str, Any]:
    """CDRL in the latent space of a small autoencoder, beside what the autoencoder itself loses (sec. 5.4.4)."""
    run = options.runs / "cdrl-latent"
    model, (train, _), (held_out, _) = tw.load(run), images_of("fashion-mnist", "train"), images_of("fashion-mnist", "test")
    extractor = tw.evaluate.extractor("fashion-mnist")
    # 1,000 images a set: decoding and classifying more takes longer than the chains
    train, held_out = train[:10_000], held_out[:1000]
    with torch.no_grad():
        rebuilt = torch.cat([model.autoencoder.reconstruct(part) for part in held_out.split(256)])
    sets, seconds = drawn(model, len(held_out))
    prior = torch.cat([model.autoencoder.sample(500, seed=s) for s in range(2)])
    tw.plot.grid(sets[0][:64], IMAGES / "cdrl_fashion_latent.png", columns=16)
    return {
        "training": trained(run), "autoencoder": trained(options.runs / "autoencoder"), "n": len(held_out), "cpu_seconds": seconds,
        "reconstruction_psnr": asdict(tw.evaluate.restoration(held_out, rebuilt).restored.psnr),
        "samples": distances(sets, train, held_out, extractor),
        "reconstructions": distances([rebuilt], train, held_out, extractor),
        "gaussian_prior": distances([prior], train, held_out, extractor),
    }  # fmt: skip


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "toys": toys, "digits": digits, "conditional": conditional, "composition": composition, "inpainting": inpainting, "latent": latent,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--seeds", type=int, default=3, help="of the toys")
    parser.add_argument("--jobs", type=int, default=1, help="toys trained at the same time")
    parser.add_argument("--toy", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.toy:
        print(json.dumps(toy_run(options.toy[0], int(options.toy[1]))))
        return
    for part in options.parts or PARTS:
        if part not in PARTS:
            parser.error(f"unknown part '{part}': {', '.join(PARTS)}")
        started = time.monotonic()
        found = PARTS[part](options)
        print(write_results(RESULTS / f"cdrl_{part}.json", found, seed=0, seconds=time.monotonic() - started))


if __name__ == "__main__":
    main()
