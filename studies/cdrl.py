"""CDRL: its components at equal CPU time, and trained models on toys, digits, guidance by label, composition, inpainting and latents.

`toys` and `ablation` train their own models, for a bounded CPU time, `ablation` for `--updates` where they are given. `ablation`: the
rows of Tables 5.9 and 5.10 of the thesis, the same networks (`cdrl/digits`, 256 wide for 8×8 pixels and 512 for more, eager, constant
rate) with the row's change: Fréchet distances in the features of the data's own classifier, averaged over draws, paired with the full
model's at the same seed; `holds` where the mean difference has the paper's sign by more than two standard errors over seeds. The full
models are then sampled with fewer steps a level (Table 5.2).
The other parts measure runs, below `--runs`:

    thalweg train cdrl/digits --out runs/cdrl-digits --compile true --precision bf16 --threads 1
    thalweg train cdrl/digits-conditional --out runs/cdrl-digits-conditional --compile true --precision bf16 --threads 1
    thalweg train cdrl/paired-digits --out runs/cdrl-paired --threads 1
    thalweg train cdrl/paired-digits --out runs/cdrl-paired-alone --threads 1 --together 0 --images 500000 --chain.steps 15 --chain.step 1
    thalweg train cdrl/inked-digits --out runs/cdrl-inked --compile true --precision bf16 --threads 1
    thalweg train autoencoder/fashion-mnist --out runs/autoencoder --precision bf16 --threads 1
    thalweg train cdrl/fashion-mnist-latent --out runs/cdrl-latent --compile true --precision bf16 --threads 1
    python -m studies.cdrl toys digits conditional composition inpainting latent
    python -m studies.cdrl composition --data paired-digits
    python -m studies.cdrl ablation --seconds 60 --precision bf16
    python -m studies.cdrl ablation --data fashion-mnist --size 14 --updates 5000 --batch 64 --width 256
    python -m studies.cdrl handover --data fashion-mnist --seconds 600 --precision bf16
    python -m studies.cdrl sizes --data fashion-mnist --seconds 600 --precision bf16
    python -m studies.cdrl levels --rows cdrl-digits cdrl-fashion-mnist

`levels` takes any runs below `--runs`, those of `--rows`: at each level the errors of proposals and of refined draws, the displacement of
the chains, the gap of the energies, and how far samples are from the data, also those whose last level is a denoiser. `handover`: models
learn from the data and then from refined draws, in the ways of its rows; the criterion along each. On digits they are small (128 wide) and
see equally many images; on other data they are the preset's, and each sees as many images as `--seconds` allow it. `sizes`: networks of
finer patches, more and fewer levels, longer and shorter chains at equal CPU time, where the initializer learns from the data throughout.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import thalweg as tw
from studies.measures import ENDLESS, Judge, auroc_of, mean, means, paired, psnr_hidden, ratio, sets_of, standard_error, trained
from studies.runner import Options, Part, Row, Study, file_of, name_of, precise, table
from studies.tables import Each, Picture, Section, Shown, Table, shown
from thalweg import particles, tasks
from thalweg.arena.price import images_for
from thalweg.checkpoint import read_stats
from thalweg.data import attributes
from thalweg.nn.build import PatchNet, PatchUNet

TOYS = {"checkerboard": 330.0, "25gaussians": 800.0}  # CPU seconds of training at most
DRAWS = 5
RESAMPLE = 4
UNSEEN = "never seen together"
COMPOSED = tuple(("both", w) for w in (0.0, 0.25, 0.5)) + tuple(("initializer", w) for w in (0.5, 0.75, 1.0))
BEST = ("initializer", 0.75)
# pairs of digits: runs by what they learned of each image, and how the energies of a level are walked, at w = 0 but where a row says more
PAIRED: dict[str, str] = {"one concept at a time": "cdrl-paired-alone", "both together": "cdrl-paired"}
WALKS: dict[str, dict[str, Any]] = {
    "one draw": dict(n=500),
    "one draw, guided": dict(n=500, w=0.25),
    "one draw, proposals guided": dict(n=500, guide="initializer", w=0.5),
    "four draws, proposals guided": dict(n=500, guide="initializer", w=0.75, resample=4),
    **{f"{steps} corrections": dict(n=200, corrections=steps) for steps in (2, 5, 20)},
    "population of 8, 3 corrections": dict(n=100, population=8, corrections=3),
}
SHOWN = ("one draw", "one draw, proposals guided", "20 corrections")
READ, KEPT = 300, 60  # real images that energies read, and steps of MALA that should leave them what they are
# ways of sampling digits
WAYS = {f"{n} steps": {"steps": n} for n in (15, 8, 5, 3)} | {f"{use} only": {"use": use} for use in ("initializer", "energy")}
GUIDANCE = (0.0, 0.1, 0.25, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0)

FULL = "full"
# row: (fields, the paper's FID on CIFAR-10); none for T = 4, which did not converge, and for rows that the paper does not have
ROWS: dict[str, tuple[dict, float | None]] = {
    FULL: ({}, 4.31),
    "DRL: no initializer, its schedule, 30 steps, independent pairs": (
        dict(initializer=None, schedule="drl", steps=30, variance_reduction=False, step_coefficient=0.02, tweedie=0.0), 9.58,
    ),
    "no cooperation: no initializer, 30 steps": (dict(initializer=None, steps=30), 6.47),
    "no variance reduction": (dict(variance_reduction=False), 5.51),
    "initializer predicts x0": (dict(predict="x0"), 5.17),
    "initializer predicts noise": (dict(predict="noise"), 4.95),
    "DRL's schedule, T = 8": (dict(schedule="drl", levels=8), 4.94),
    "initializer learns from y": (dict(data_first=1.0, data_target="y"), 5.95),
    "initializer learns from the mean given x0": (dict(data_first=1.0), None),
    "T = 4": (dict(levels=4), None),
    "T = 5": (dict(levels=5), 5.08),
    "K = 10": (dict(steps=10), 4.50),
    "K = 30": (dict(steps=30), 5.08),
    "scalar read-out (the paper's form)": (dict(readout="scalar", weight_power=1.0), None),
}  # fmt: skip
# when the initializer stops learning from the data, the criterion must not break: digits, hand-over after 0.6 of 450 small updates
HANDED = dict(
    net=dict(width=128), initializer=dict(width=128), batch=128, images=57_600, data_first=0.6, lr_end=1.0, warm_up=50, ahead=25, ema=0.95,
)  # fmt: skip
STOPS = 15
TWIN = dict(slow_proposals=True)
HANDOVER: dict[str, dict[str, Any]] = {
    "y of pairs with one noise": dict(data_target="y"),
    "mean given x0": dict(),
    "mean given x0, proposals of the EMA twin": TWIN,
    "mean given x0, never handed over": dict(data_first=1.0),
    "handed over within 0.3": dict(hand_over=0.3),
    "half of the targets refined": dict(refined_share=0.5),
    "the twin's proposals, never handed over": TWIN | dict(data_first=1.0),
    "the twin's proposals, handed over within 0.3": TWIN | dict(hand_over=0.3),
    "the twin's proposals, half of the targets refined": TWIN | dict(refined_share=0.5),
    "the twin's proposals, means of chains": TWIN | dict(refined_target="mean"),
    "the twin's proposals, means by the level above": TWIN | dict(refined_target="above"),
    "the twin's proposals and chains": TWIN | dict(refined_target="slow"),
    "the twin's proposals, with a latent": TWIN | dict(initializer_latent=8),
    "the twin's proposals, with a latent, never handed over": TWIN | dict(initializer_latent=8, data_first=1.0),
}
BASE = "mean given x0, proposals of the EMA twin"
OF_PRESET = dict(data_first=0.6, slow_proposals=False)  # of `HANDED`, where networks, batches, rates and the twin are a preset's
PRICE = 600.0  # CPU seconds of a model on other data than digits
COMPARED = 256  # held-out images of the criterion, at most
# what may hold a preset back where its initializer learns from the data throughout: resolution of the networks, levels, chains
FINER = PatchNet(width=32, blocks=4, patch=2, precise_first=True)
TWO = PatchUNet(width=32, deep_width=64, hidden=96, precise_first=True)
PRESET = "as the preset"
SIZES: dict[str, dict[str, Any]] = {
    PRESET: {},
    "patches of 2": dict(net=FINER, initializer=FINER),
    "two resolutions": dict(net=TWO, initializer=TWO),
    "two resolutions, the initializer alone": dict(initializer=TWO),
    **{f"T = {levels}": dict(levels=levels) for levels in (4, 10)},
    **{f"K = {steps}": dict(steps=steps) for steps in (5, 30)},
}
FIGURED = 500  # held-out images of the figures of levels
STEPS = (15, 8, 5, 3)  # of a level, Table 5.2
ABLATION_DRAWS = 4
BUDGET = 90.0  # CPU seconds of training a row


def length_of(run: Path) -> dict[str, Any]:
    """How long a run was trained: images, seconds on the clock, guard events."""
    stats = [row for row in read_stats(run) if "event" not in row]
    last = stats[-1]
    return {
        "images": last["images"], "seconds": last["seconds"], "images_per_second": last["images"] / last["seconds"],
        "guard_events": sum("event" in row for row in read_stats(run)),
    }  # fmt: skip


def digits_judge() -> Judge:
    return Judge.of("digits", *(tw.data.load("digits", split) for split in ("train", "test")))


def spread(values: list[float]) -> dict[str, float]:
    """Mean and standard error over draws."""
    return {"mean": statistics.fmean(values), "standard_error": standard_error(values) or 0.0, "draws": len(values)}


def sampled(
    model: Any, judge: Judge, seed: int = 0, precision: str = "fp32", draws: int = DRAWS, **asked: Any
) -> tuple[list[Tensor], float]:
    """`draws` sets of as many samples as there are held-out images, and the median CPU seconds of one."""
    stream, sets, seconds = judge.sets(model, seed, precision, draws=draws, **asked), [], []
    for _ in range(draws):
        started = time.process_time()
        sets.append(next(stream))
        seconds.append(time.process_time() - started)
    return sets, statistics.median(seconds)


def distances(sets: list[Tensor], judge: Judge) -> dict[str, Any]:
    value = spread([judge.frechet(x) for x in sets])
    return {"frechet": value, "floor": judge.floor, "ratio": value["mean"] / judge.floor}


# --- toys


def toy_settings(row: str, options: Options) -> tuple[str, dict[str, Any]]:
    return f"cdrl/{row}", {}


def toy_one(row: str, seed: int, options: Options) -> Row:
    """A toy's preset; the density of every level against the exact one of noised data."""
    toy = tw.data.toy(row)
    model, found = trained(toy_settings(row, options), toy, seed, options, seconds=options.seconds or TOYS[row])
    if model is None:
        return found
    x = model.sample(4096, seed=seed + 1)
    exact = toy.sample(10_000, generator=tw.random.seeded(seed, 99))
    if seed == 0:
        panels = {f"level {t}": (lambda x, t=t: model.energy(x, t=t)) for t in range(model.config.levels)}
        tw.plot.density(panels, toy, options.pictures / f"cdrl_{row}.png", samples=x)
    density, distance = tw.evaluate.density(model.energy, toy, grid=400), tw.evaluate.energy_distance_interval(x, exact)
    return found | {"toy": row, "density": asdict(density), "energy_distance": asdict(distance)}


def toy_line(name: str, mine: list[Row], rows: list[Row]) -> Row:
    kl = [row["density"]["kl_truth_model"] for row in mine if "density" in row]
    return {"median_kl": statistics.median(kl) if kl else None}


# --- ablation


def ablation_settings(row: str, options: Options) -> tuple[str, dict[str, Any]]:
    fields = ROWS[row][0]
    width = options.width or (256 if options.data == "digits" and options.size is None else 512)
    shared = dict(net=dict(width=width), initializer=dict(width=width), lr_end=1.0)
    batch = options.batch or tw.methods.preset("cdrl/digits")[1].batch
    return "cdrl/digits", {"images": options.updates * batch if options.updates else ENDLESS, "batch": batch, **shared, **fields}


def ablation_one(row: str, seed: int, options: Options) -> Row:
    options.precision = "bf16"
    train, test = sets_of(options)
    seconds = options.seconds if options.updates else options.seconds or BUDGET
    model, found = trained(ablation_settings(row, options), train, seed, options, seconds=seconds)
    if model is None:
        return found
    judge = Judge.of(options.data, train, test, most=1000)

    def figures(**asked: Any) -> Row:
        sets, seconds = sampled(model, judge, seed, options.precision, ABLATION_DRAWS, **asked)
        values = [judge.frechet(x) for x in sets]
        return {"frechet": None if None in values else mean(values), "floor": judge.floor, "seconds": seconds}

    found |= figures()
    if row == FULL:
        found["steps"] = {str(n): figures(steps=n) for n in STEPS}
        found |= {f"{use}_only": figures(use=use) for use in ("initializer", "energy")}
    return found


def ablation_line(name: str, mine: list[Row], rows: list[Row]) -> Row:
    """Mean Fréchet distance, the paired difference from the full model, its standard error, and whether the paper's order holds."""
    paper, (gap, error) = ROWS[name][1], paired(rows, name, FULL, "frechet")
    line = {"paper_fid": paper, "failed": sum(row.get("frechet") is None for row in mine)} | means(mine, ("frechet", "images"))
    # every row of the paper is worse than the full model
    far = None if error is None else abs(gap) > 2 * error
    holds = None if far is None else "undecided" if not far else "yes" if gap > 0 else "reversed"
    return line | {"difference": None if error is None else gap, "standard_error": error, "holds": holds}


def ablation_more(options: Options, rows: list[Row]) -> dict[str, Any]:
    """The full models sampled in fewer steps and by each of their networks alone, relative to themselves."""
    full = [row for row in rows if row["row"] == FULL and row.get("frechet") is not None]
    ways = {f"{n} steps": [row["steps"][str(n)] for row in full] for n in STEPS}
    ways |= {f"{use} only": [row[f"{use}_only"] for row in full] for use in ("initializer", "energy")}
    sampling = {
        name: {
            "frechet": mean(f["frechet"] for f in found),
            "ratio": mean(f["frechet"] / row["frechet"] for f, row in zip(found, full)),
            "time": ratio([f["seconds"] for f in found], [row["seconds"] for row in full]),
        }
        for name, found in ways.items()
        if found and all(f["frechet"] is not None for f in found)
    }
    print("\n" + table([{"samples by": name, **figures} for name, figures in sampling.items()]))
    floor, budget = mean(row.get("floor") for row in rows), None if options.updates else options.seconds or BUDGET
    return {"floor": floor, "sampling": sampling, "budget_cpu_seconds": budget, "updates": options.updates, "batch": options.batch}


# --- digits


def digits(options: Options) -> dict[str, Any]:
    """Quality, its parts (sec. 5.4.10), fewer steps (Table 5.2), cost and outliers of the unconditional model."""
    run = options.runs / "cdrl-digits"
    model, judge = tw.load(run), digits_judge()
    found: dict[str, Any] = {"training": length_of(run), "n": len(judge.held_out), "extractor_accuracy": judge.extractor.test_accuracy}
    for name, asked in WAYS.items():
        sets, seconds = sampled(model, judge, **asked)
        found[name] = distances(sets, judge) | {"cpu_seconds": seconds}
        print(name, found[name]["frechet"], round(seconds, 3), flush=True)
        if name in ("15 steps", "initializer only"):
            tw.plot.grid(sets[0][:64], options.pictures / f"cdrl_digits_{name.replace(' ', '_')}.png", columns=16)
    # one x_T and one noise of the proposals a row, other Langevin noise in each column (Figure 5.9c)
    start = tw.random.normal(6, 1, 8, 8, generator=tw.random.seeded(3))
    fixed = [model.sample(10, seed=7, chain_seed=s, start=x.expand(10, -1, -1, -1), shared="proposals") for s, x in enumerate(start)]
    tw.plot.grid(torch.cat(fixed), options.pictures / "cdrl_digits_fixed_start.png", columns=10)
    # the spread within a row, of one start, against that between rows
    stack = torch.stack(fixed).flatten(2)
    found["fixed start"] = {"std_within": float(stack.std(1).mean()), "std_between": float(stack.mean(1).std(0).mean())}
    found["auroc"] = {kind: {"auroc": auroc} for kind, auroc in auroc_of(model, judge.held_out, {})["energy"].items()}
    return found


# --- labels


def conditional(options: Options) -> dict[str, Any]:
    """Class accuracy, fidelity and diversity of samples by label over the guidance w (Figure 5.3)."""
    run = options.runs / "cdrl-digits-conditional"
    model, judge = tw.load(run), digits_judge()
    extractor, label = judge.extractor, torch.arange(len(judge.held_out)) % 10
    found: dict[str, Any] = {"training": length_of(run), "extractor_accuracy": extractor.test_accuracy, "curve": []}
    found["unconditional"] = distances(sampled(model, judge)[0], judge)
    for guide, w in [("both", w) for w in GUIDANCE] + [("initializer", w) for w in GUIDANCE if w >= 0.5]:
        sets, _ = sampled(model, judge, label=label, guidance=1 + w, guide=guide)
        scores = [tw.evaluate.fidelity(judge.train, x, extractor, held_out=judge.held_out) for x in sets]
        row = {"guide": guide, "w": w, **distances(sets, judge)}
        row["accuracy"] = spread([tw.evaluate.class_accuracy(x, label, extractor).value for x in sets])
        row["within_class_distance"] = spread([within_class(extractor.features(x), label) for x in sets])
        row |= {name: spread([getattr(s, name).value for s in scores]) for name in ("precision", "recall", "density", "coverage")}
        found["curve"].append(row)
        print(guide, w, row["accuracy"], row["frechet"], row["within_class_distance"], flush=True)
        if guide == "both" and w in (0.0, 0.5):
            rows = sets[0][:100].view(10, 10, 1, 8, 8).transpose(0, 1).flatten(0, 1)
            tw.plot.grid(rows, options.pictures / f"cdrl_digits_w{w}.png", columns=10)
    real = tw.data.load("digits", "test").all()
    found["real_within_class_distance"] = within_class(extractor.features(real.x), real.label)
    return found


def within_class(features: Tensor, label: Tensor) -> float:
    """Mean distance between features of the same class: how diverse they are."""
    return statistics.fmean(float(torch.pdist(features[label == value]).mean()) for value in label.unique())


# --- composition


def composition(options: Options) -> dict[str, Any]:
    """Joint accuracy of concepts, in pairs never seen together in training (sec. 5.4.6), on sets with two and three concepts.

    With `--data paired-digits` of that set alone, of models that learned one concept at a time and both together, by walk.
    """
    paired_digits = partial(tw.data.paired, copies=2)
    if options.data == "paired-digits":
        return {name: walked(options.runs / run, paired_digits, options) for name, run in PAIRED.items()}
    sets = {
        "paired-digits": ("cdrl-paired", paired_digits),
        "inked-digits": ("cdrl-inked", partial(tw.data.coloured, first="digit", ground="black", copies=1)),
        "coloured-digits": ("cdrl-coloured", partial(tw.data.coloured, first="digit", copies=3)),
    }
    return {name: composed(name, options.runs / run, make, options) for name, (run, make) in sets.items() if (options.runs / run).is_dir()}


def composed(data: str, run: Path, make: Callable[..., Any], options: Options) -> dict[str, Any]:
    model, concepts = tw.load(run), tw.data.concepts(data)
    held = {pair: values for pair, values in attributes.heldout_pairs().items() if set(pair) <= set(concepts)}
    judges, _, _ = readers(data, make)
    found: dict[str, Any] = {"training": length_of(run), "judge_accuracy": {c: j.test_accuracy for c, j in judges.items()}, "rows": []}

    def asked(wanted: dict[str, Tensor], kind: str, seed: int, guide: str, w: float, resample: int = RESAMPLE) -> Tensor:
        label = attributes.join_label(wanted, concepts)
        with precise("bf16"):  # as in training
            images = model.sample(len(label), seed=seed, label=label, guidance=1 + w, guide=guide, resample=resample).float()
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
        } | each
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
                    tw.plot.grid(images[:100], options.pictures / f"cdrl_{data}_{one}_{other}.png", columns=len(values))
        for resample in (1, 2, 8):
            asked(wanted[UNSEEN], UNSEEN, 1, *BEST, resample=resample)
    for concept in concepts:
        asked({concept: torch.arange(500) % len(concepts[concept])}, "one concept", 2, *BEST)
    # the first concept without a value of the second, which mostly comes with it: the weight 1 + w of the second is below 0
    (one, other), first = list(concepts)[:2], torch.arange(500) % 10
    second = torch.zeros_like(first) if data != "paired-digits" else (first + 1) % 10
    images = model.sample(
        500, seed=3, label=attributes.join_label({one: first, other: second}, concepts),
        guidance=[1.0, -1.0] + [1.0] * (len(concepts) - 2),
    )  # fmt: skip
    found["not"] = {
        "asked": one, "denied": other, "asked_share": float((judges[one].logits(images).argmax(1) == first).float().mean()),
        "denied_share": float((judges[other].logits(images).argmax(1) == second).float().mean()),
    }  # fmt: skip
    print(data, found["not"], flush=True)
    return found


def readers(data: str, make: Callable[..., Any]) -> tuple[dict[str, Any], Tensor, dict[str, Tensor]]:
    """A classifier of each concept, and the test images [N, ...] with their concepts' values, [N] each."""
    concepts = tw.data.concepts(data)

    def every(split: str) -> tuple[Tensor, dict[str, Tensor]]:
        """Digits of the split in all combinations, those held out from the model's training too."""
        # the library gives combinations held out from training for testing only; the judges must know them
        parts = [make(tw.data.digits, split=split).all(), make(partial_source(tw.data.digits, split), split="test", unseen=True).all()]
        return torch.cat([p.x for p in parts]), attributes.split_label(torch.cat([p.label for p in parts]), concepts)

    (x, label), (x_test, label_test) = every("train"), every("test")
    return {c: tw.evaluate.extractor(((x, label[c]), (x_test, label_test[c])), name=f"{data}-{c}") for c in concepts}, x_test, label_test


def walked(run: Path, make: Callable[..., Any], options: Options) -> dict[str, Any]:
    """Pairs of digits by walk, with passes of the energy's network and CPU seconds a sample; what energies say of real images.

    `real`: shares that the judges read right. `read`: those of which both digits are of least energy given one label, from the lowest level
    up. `kept`: what chains on the energy of one level make of real images with its noise. `one concept`: samples of one label.
    """
    model, (judges, x, label), passes = tw.load(run), readers("paired-digits", make), [0]
    concepts = tw.data.concepts("paired-digits")
    model.net.register_forward_hook(lambda net, given, out: passes.__setitem__(0, passes[0] + len(given[0])))
    same = label["left"] == label["right"]
    real = {kind: (x[where], {c: label[c][where] for c in concepts}) for kind, where in ((UNSEEN, same), ("seen", ~same))}

    def right(images: Tensor, wanted: dict[str, Tensor]) -> Row:
        """Shares of images that show what was wanted, as the judges read them, of all and of each concept."""
        each = {c: (judges[c].logits(images.clamp(-1, 1)).argmax(1) == values).float() for c, values in wanted.items()}
        joint = torch.stack(list(each.values())).amin(0)
        error = math.sqrt(float(joint.mean()) * (1 - float(joint.mean())) / len(joint))
        return {"joint": float(joint.mean()), "standard_error": error} | {c: float(values.mean()) for c, values in each.items()}

    def drawn(wanted: dict[str, Tensor], name: str, *, n: int, guide: str = "both", w: float = 0.0, resample: int = 1, **walk: Any) -> Row:
        asked, started, passes[0] = attributes.join_label(wanted, concepts), time.process_time(), 0
        images = model.sample(n, seed=1, label=asked, guidance=1 + w, guide=guide, resample=resample, **walk)
        cost = {"passes": passes[0] / n, "cpu_seconds_sample": (time.process_time() - started) / n}
        if name:
            tw.plot.grid(
                images[:100], options.pictures / file_of("cdrl", run.name.removeprefix("cdrl-"), name.replace(" ", "_")), columns=10
            )
        return {"n": n} | right(images, wanted) | cost

    found: dict[str, Any] = {
        "training": length_of(run),
        "real": {kind: right(*images) for kind, images in real.items()},
        "read": {kind: [own_reading(model, *images, level) for level in range(model.config.levels)] for kind, images in real.items()},
        "kept": [kept(model, *real["seen"], level, right) for level in range(model.config.levels)],
        "rows": [],
    }
    print(run.name, found, flush=True)
    pairs = {UNSEEN: [(i, i) for i in range(10)], "seen": [(i, (i + k) % 10) for k in range(1, 10) for i in range(10)]}
    for name, walk in WALKS.items():
        for kind, values in pairs.items():
            rows = torch.tensor(values).repeat(-(-walk["n"] // len(values)), 1)[: walk["n"]]
            picture = f"{name} {kind}" if name in SHOWN and kind == UNSEEN else ""
            row = drawn({"left": rows[:, 0], "right": rows[:, 1]}, picture, **walk)
            found["rows"].append({"walk": name, "pairs": kind} | row)
            print(run.name, found["rows"][-1], flush=True)
    one = WALKS["one draw, proposals guided"]
    found["one concept"] = {c: drawn({c: torch.arange(one["n"]) % 10}, "", **one)[c] for c in concepts}
    return found


def noised_to(model: Any, x: Tensor, level: int) -> Tensor:
    return model.schedule.diffuse(x, torch.full((len(x),), level), tw.random.normal_like(x, tw.random.seeded(3, level)))


def own_reading(model: Any, x: Tensor, label: dict[str, Tensor], level: int) -> float:
    """The share of images [N, ...] with noise of a level of which both digits are those of least energy given one label."""
    noised = noised_to(model, x[:READ], level)
    with torch.no_grad():
        energies = torch.stack([model.energy(noised, t=level, label=value) for value in range(20)], 1)
    left, right = (energies[:, part].argmin(1) for part in (slice(10), slice(10, 20)))
    return float(((left == label["left"][:READ]) & (right == label["right"][:READ])).float().mean())


def kept(model: Any, x: Tensor, wanted: dict[str, Tensor], level: int, right: Callable[[Tensor, dict[str, Tensor]], Row]) -> Row:
    """Of real images with the noise of a level: energy and standard deviation of x̂₀ before MALA on that level's energy and after it.

    x̂₀ is the mean by Tweedie's formula; `read` the share of which both digits are read from it. Of energies without labels and composed.
    """
    few = {c: values[:READ] for c, values in wanted.items()}
    own, start = attributes.join_label(few, tw.data.concepts("paired-digits")), noised_to(model, x[:READ], level)
    signal, sigma, row = model.schedule.signal[level], model.schedule.noise[level], {"level": level}
    for name, label in (("no label", None), ("both", own)):
        energy = partial(model.energy, t=level, label=label)
        for when, steps in (("before", 0), ("after", KEPT)):
            with torch.no_grad():
                z = particles.corrected(energy, steps, sigma, None, tw.random.seeded(4), start)
            value, slope = tw.value_and_score(energy, z)
            x0 = (z + sigma**2 * slope) / signal
            row |= {f"{name}, {when}": {"energy": float(value.mean()), "std": float(x0.std()), "read": right(x0, few)["joint"]}}
    return row


def partial_source(source: Callable[..., Any], split: str) -> Callable[..., Any]:
    """`source`, but giving `split` whatever split is asked for."""
    return lambda _, **options: source(split, **options)


# --- inpainting


def inpainting(options: Options) -> dict[str, Any]:
    """Held-out images with 25 % and 50 % of the pixels missing: one completion, the mean of eight, and two baselines."""
    model, judge = tw.load(options.runs / f"cdrl-{options.data}"), Judge.of(options.data, *sets_of(options))
    x, train, extractor = judge.held_out[:200], judge.train, judge.extractor
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
            row[key] = {
                "psnr_hidden": float(psnr_hidden(x, y, hidden).mean()), "mse_hidden": float((y - x)[:, hidden].square().mean()),
                "class_kept": float((extractor.logits(y).argmax(1) == truth).float().mean()),
            }  # fmt: skip
        found["rows"].append(row)
        print(name, kept, row["diversity"], {k: v["psnr_hidden"] for k, v in row.items() if isinstance(v, dict)}, flush=True)
        shown = torch.cat([x[None, :8], torch.where(hidden, -1.0, x[:8])[None], filled[:6, :8]]).transpose(0, 1).flatten(0, 1)
        tw.plot.grid(
            shown, options.pictures / f"{name_of('cdrl_inpaint', options.data)}_{name.replace(' %', '').replace(' ', '_')}.png", columns=8
        )
    return found


# --- latents


def latent(options: Options) -> dict[str, Any]:
    """CDRL in the latent space of a small autoencoder, and what the autoencoder alone loses (sec. 5.4.4)."""
    model = tw.load(options.runs / "cdrl-latent")
    whole = Judge.of("fashion-mnist", *(tw.data.load("fashion-mnist", split) for split in ("train", "test")), most=1000)
    # decoding and classifying more than these takes longer than the chains
    judge = Judge(whole.train[:10_000], whole.held_out, whole.extractor)
    with torch.no_grad():
        rebuilt = torch.cat([model.autoencoder.reconstruct(part) for part in judge.held_out.split(256)])
    sets, seconds = sampled(model, judge)
    prior = torch.cat([model.autoencoder.sample(500, seed=s) for s in range(2)])
    tw.plot.grid(sets[0][:64], options.pictures / "cdrl_fashion_latent.png", columns=16)
    return {
        "training": length_of(options.runs / "cdrl-latent"), "autoencoder": length_of(options.runs / "autoencoder"),
        "n": len(judge.held_out), "cpu_seconds": seconds,
        "reconstruction_psnr": asdict(tw.evaluate.restoration(judge.held_out, rebuilt).restored.psnr),
        "samples": distances(sets, judge), "reconstructions": distances([rebuilt], judge), "gaussian_prior": distances([prior], judge),
    }  # fmt: skip


# --- the hand-over from the data to refined draws


def handover_settings(row: str, options: Options) -> tuple[str, dict[str, Any]]:
    if options.data == "digits":
        return "cdrl/digits", HANDED | HANDOVER[row]
    return f"cdrl/{options.data}", OF_PRESET | HANDOVER[row]


def images_of(settings: tuple[str, dict[str, Any]], data: Any, options: Options) -> int:
    """How many images a model of these settings sees in `--seconds`: before the hand-over a step may cost less than after it."""
    assert options.seconds is not None
    name, fields = settings
    first = tw.method(name, seed=0, data=data, **fields).config.data_first
    shares = ((first, dict(data_first=1.0)), (1 - first, dict(data_first=0.0, hand_over=0.0)))
    of_whole = [  # a share over the images of a training in which all steps are of its kind
        share / images_for(tw.method(name, seed=0, data=data, **fields | more), data, options.seconds, precision=options.precision)
        for share, more in shares
        if share
    ]
    return round(1 / sum(of_whole))


def handover_one(row: str, seed: int, options: Options) -> Row:
    settings, (train, test) = handover_settings(row, options), sets_of(options)
    held = tw.data.load(options.data, "validation", size=options.size).all().x[:COMPARED].flatten(1)
    judge = None if options.data == "digits" else Judge.of(options.data, train, test, most=1000)
    if judge is not None:
        options.seconds = options.seconds or PRICE
        settings = settings[0], settings[1] | {"images": images_of(settings, train, options)}

    def criterion(twin: Any, last: bool) -> Row:
        with precise(options.precision):
            x = twin.sample(len(held), seed=1).float()
        return {"criterion": float(tw.evaluate.energy_distance(x.flatten(1), held))}

    twin, found = trained(settings, train, seed, options, stops=STOPS, look=criterion)
    values = [point["criterion"] for point in found["along"]]
    if twin is None:
        return found
    before = round(HANDED["data_first"] * STOPS)  # stops until the hand-over
    found |= {"before": values[before - 1], "worst": max(values[before:]), "end": values[-1]}
    return found if judge is None else found | {"floor": judge.floor, "frechet": judge.distance(twin, seed, options.precision)}


def handover_line(name: str, mine: list[Row], rows: list[Row]) -> Row:
    gap, error = paired(rows, name, BASE, "frechet")
    jump = mean(row["worst"] / row["before"] for row in mine if "worst" in row)
    found = means(mine, ("before", "worst", "end", "cpu_seconds", "images", "frechet"))
    return found | {"jump": jump, "difference": gap, "standard_error": error}


def handover_more(options: Options, rows: list[Row]) -> dict[str, Any]:
    return {} if options.data == "digits" else {"floor": mean(row.get("floor") for row in rows), "seconds": options.seconds or PRICE}


# --- sizes


def sizes_settings(row: str, options: Options) -> tuple[str, dict[str, Any]]:
    return f"cdrl/{options.data}", {"data_first": 1.0} | SIZES[row]


def sizes_one(row: str, seed: int, options: Options) -> Row:
    """A model at the price of `--seconds`: its samples, those whose last level is a denoiser, and what each level does."""
    settings, (train, test) = sizes_settings(row, options), sets_of(options)
    options.seconds = options.seconds or PRICE
    settings = settings[0], settings[1] | {"images": images_of(settings, train, options)}
    twin, found = trained(settings, train, seed, options)
    if twin is None:
        return found
    judge, last = Judge.of(options.data, train, test, most=1000), DenoisedLast(twin)
    found |= {key: judge.distance(one, seed, options.precision) for key, one in (("frechet", twin), ("frechet_denoised_last", last))}
    return found | {"floor": judge.floor, "levels": level_figures(twin, test.all().x[:FIGURED], seed=seed)}


def sizes_line(name: str, mine: list[Row], rows: list[Row]) -> Row:
    """Means over seeds; by level the proposal's error over the linear guess's, and the chain's displacement over its noise's."""
    gap, error = paired(rows, name, PRESET, "frechet")
    known = [row["levels"] for row in mine if "levels" in row]
    by_level = {
        key: [mean(level[key] / level[base] for level in one) for one in zip(*known)]
        for key, base in (("error", "linear"), ("displacement", "noise"))
    }
    return means(mine, ("frechet", "frechet_denoised_last", "images")) | {"difference": gap, "standard_error": error} | by_level


def sizes_more(options: Options, rows: list[Row]) -> dict[str, Any]:
    return {"floor": mean(row.get("floor") for row in rows), "seconds": options.seconds or PRICE}


# --- what each level does


def level_figures(model: Any, x0: Tensor, label: Tensor | None = None, seed: int = 0) -> list[dict[str, float]]:
    """Of each level: root mean square errors per entry, over pairs (y_t, x_{t+1}) of held-out data, in units of the data.

    `error` of the proposal's mean to the mean of q(y_t | x_{t+1}, x_0), and `linear` of the best linear guess; `proposed` and `refined` of
    a draw to y_t, which for the best of models is `least` or more, as x_0 is not known; `displacement` of the chain, `noise` that of its
    injected noise alone; `wide`, `wide_refined` the spread of proposals and of refined draws about x_0's share, relative to y's; `gap`
    E(y_t) − E(ỹ_t) in nats; `distance` the energy distance of samples x_t to data at that level, `floor` that of data to data.
    """
    g, c, table, n = tw.random.seeded(seed, 30), model.config, model.table, len(x0)

    def rms(x: Tensor) -> float:
        return float(x.square().mean().sqrt())

    found = []
    with torch.no_grad():
        for level in range(c.levels):
            t = torch.full((n,), level)
            e, other = (tw.random.normal_like(x0, g) for _ in range(2))
            y, x_next = model.schedule.pair(x0, t, e, other)
            exact, alpha = model.data_mean(x0, x_next, t), float(table.alpha[level])
            mean = x_next if model.initializer is None else model.proposal_mean(x_next, t, label)
            start = mean if model.initializer is None else model.propose(mean, t, g)
            refined = model.refine(start, x_next, t, label=label, generator=g)
            step = float(table.step[level] * model.step_size.size[level])
            x = model.sample(n, seed=seed, down_to=level, denoise=False, **({} if label is None else {"label": label}))
            real = [model.schedule.diffuse(x0, t, tw.random.normal_like(x0, g)).flatten(1) for _ in range(2)]
            clean = alpha * model.schedule.signal[level] * x0
            found.append({
                "level": level, "error": rms(mean - exact), "linear": rms(table.guess[level] * x_next - exact),
                "proposed": rms(start - y), "refined": rms(refined - y), "least": math.sqrt(2) * rms(y - exact),
                "displacement": rms(refined - start), "noise": step * math.sqrt(c.chain.steps), "wide": rms(start - clean) / rms(y - clean),
                "wide_refined": rms(refined - clean) / rms(y - clean),
                "gap": float((model.marginal(y, t, label) - model.marginal(refined, t, label)).mean()),
                "distance": float(tw.evaluate.energy_distance(x.flatten(1), real[0])),
                "floor": float(tw.evaluate.energy_distance(real[1], real[0])),
            })  # fmt: skip
    return found


@dataclass(frozen=True)
class DenoisedLast:
    """A model whose last level is a denoiser: samples of level 1, less their noise by Tweedie's formula."""

    model: Any

    def sample(self, n: int, *, seed: int = 0) -> Tensor:
        signal, sigma = self.model.schedule.signal[1], self.model.schedule.noise[1]
        return self.model.denoise(self.model.sample(n, seed=seed, down_to=1) / signal, sigma / signal).clamp(-1, 1)


def levels(options: Options) -> dict[str, Any]:
    """`level_figures` of runs, on 500 held-out images, and of images the Fréchet distance with and without the lowest level's chain."""
    found: dict[str, Any] = {}
    for name in options.rows or ["cdrl-digits"]:
        model = tw.load(options.runs / name)
        batch = tw.data.load(model.config.data, "test").batch(0, 500, seed=0)
        found[name] = {
            "training": length_of(options.runs / name),
            "levels": level_figures(model, batch.x, batch.label if model.config.conditional else None),
        }
        print("\n" + name + "\n" + table(found[name]["levels"]), flush=True)
        if len(batch.x.shape) == 4 and not model.config.conditional and not model.config.autoencoder:
            judge = Judge.of(model.config.data, *(tw.data.load(model.config.data, split) for split in ("train", "test")), most=1000)
            found[name] |= {"floor": judge.floor, "frechet": judge.distance(model, 0)}
            found[name]["frechet_denoised_last"] = judge.distance(DenoisedLast(model), 0)
            print({key: value for key, value in found[name].items() if isinstance(value, float)}, flush=True)
    return {"runs": found}


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the trained runs")
    parser.add_argument("--updates", type=int, help="updates of each model of the ablation, in place of a time")
    parser.add_argument("--batch", type=int, help="images of each, the preset's by default")
    parser.add_argument(
        "--width", type=int, help="units of the ablation's networks, 256 for digits of 8×8 pixels, 512 for others by default"
    )


OF_RUNS = {
    "levels": levels,
    "digits": digits,
    "conditional": conditional,
    "composition": composition,
    "inpainting": inpainting,
    "latent": latent,
}
STUDY = Study(
    "cdrl",
    __doc__,
    {
        "toys": Part(TOYS, toy_one, toy_line, toy_settings, lambda options, rows: {"budget_cpu_seconds": TOYS}),
        "handover": Part(HANDOVER, handover_one, handover_line, handover_settings, handover_more),
        "sizes": Part(SIZES, sizes_one, sizes_line, sizes_settings, sizes_more),
        "ablation": Part(ROWS, ablation_one, ablation_line, ablation_settings, ablation_more),
        **OF_RUNS,
    },
    of_run=tuple(OF_RUNS),
    add=add,
)

# --- the page

TOY = [
    "Densities at the lowest level:",
    Table(
        "toy | seed | KL(truth‖model), nats = density.kl_truth_model:.3f | total variation = density.total_variation:.3f | "
        "modes missing = density.modes_missing | energy distance = energy_distance.value:.4f | CPU seconds = cpu_seconds:.0f",
        "runs",
    ),
    Picture("Checkerboard: the truth, the three levels, samples", "cdrl_checkerboard.png"),
]
DIGITS = [
    "Unconditional digits, {training[images]:,} images, {training[seconds]:.0f} s:",
    Table(
        "samples by | Fréchet distance = frechet:.2f± | ratio to the floor = ratio:.2f | CPU seconds for 359 = cpu_seconds:.2f",
        lambda r: [{"samples by": way, **r[way]} for way in WAYS],
    ),
    "AUROC of the lowest level's energy: {aurocs}.",
    "{source}",
    Picture("Unconditional samples", "cdrl_digits_15_steps.png"),
]
GUIDED = ("guided", lambda x: {"both": "energies and proposals", "initializer": "proposals"}[x["guide"]])
CONDITIONAL = [
    "Digits by label at guidance 1 + w; the classifier's test accuracy is {extractor_accuracy:.1f %}, the mean within-class distance of "
    "real test digits {real_within_class_distance:.2f}:",
    Table(
        [
            GUIDED,
            "w:g",
            ("class accuracy", lambda x: shown({key: 100 * x["accuracy"][key] for key in ("mean", "standard_error")}, ".1f±") + " %"),
            "Fréchet distance = frechet:.2f± | within-class distance = within_class_distance:.2f± | precision:.2f± | recall:.2f±",
        ],
        "curve",
    ),
    Picture("Samples by label at w = 0.5, a class a row", "cdrl_digits_w0.5.png"),
]
COMPOSED_SET = [
    "Composition, {name}; accuracy of the classifiers on real images: {judges}:",
    Table(
        [
            GUIDED,
            "w:g",
            ("concepts", lambda x: " × ".join(x["concepts"])),
            "pairs | draws per level = resample | n | all concepts correct = joint:.1f %",
            ("each correct", lambda x: shares({concept: x[concept] for concept in x["concepts"]})),
        ],
        "rows",
    ),
    "Samples of one {not[asked]} and *not* one {not[denied]}: {not[asked_share]:.1f %} show the former, "
    "{not[denied_share]:.1f %} the latter.",
]
COMPOSITION = [
    Each("sets", COMPOSED_SET),
    *(Picture("Pairs never seen in training", f"cdrl_{name}.png") for name in ("paired-digits_left_right", "inked-digits_digit_colour")),
]
FILLS = ("one completion", "mean of 8", "mean fill", "nearest fill")
WALKED = [
    "Pairs of digits, of two models: one learned one concept of each image at a time ({alone[training][images]:,} images, chains of 15 "
    "steps), one both together ({both[training][images]:,} images, 8 steps). Both digits of real images are read right by the judges in "
    "{both[real][never seen together][joint]:.1f %} of equal pairs and {both[real][seen][joint]:.1f %} of others. A pass is one of the "
    "energy's network, for one image and one label:",
    Table(
        "learned | walk | pairs | n | both correct = joint:.1f % | standard error = standard_error:.1f % | left:.1f % | "
        "right:.1f % | passes a sample = passes:,.0f | CPU seconds a sample = cpu_seconds_sample:.3f",
        "walks",
    ),
    "Real images with the noise of a level, of which both digits have the least energy given one label, from the lowest level up:",
    Table(["learned | pairs", *(f"level {level}:.1f %" for level in range(6))], "readings"),
    "Real images of pairs that were seen, with the noise of a level, before {kept_steps} steps of MALA on the energy of that level alone "
    "and after them: mean energy in nats, standard deviation of x̂₀, both digits read from x̂₀:",
    Table(
        "learned | level | energy of = of | energy before = before.energy:.0f | after = after.energy:.0f | "
        "deviation before = before.std:.2f | and after = after.std:.2f | read before = before.read:.1f % | "
        "and after that = after.read:.1f %",
        "chains",
    ),
    *(
        Picture(f"Equal digits, learned {name}: {walk}", file_of("cdrl", run, f"{walk}_{UNSEEN}".replace(" ", "_")))
        for name, run in (("one concept at a time", "paired-alone"), ("both together", "paired"))
        for walk in SHOWN
    ),
]
INPAINTING = [
    "Inpainting {n} held-out {what}, PSNR over the missing pixels in dB:",
    Table(
        [
            "missing = mask",
            *(f"{fill} = {fill}.psnr_hidden:.2f" for fill in FILLS),
            "standard deviation over completions = diversity:.2f | known pixels bit-equal = known_pixels_equal",
        ],
        "rows",
    ),
]
OF_LATENTS = {
    "CDRL in latent space, decoded": "samples", "decoded N(0, I)": "gaussian_prior", "reconstructions of test images": "reconstructions",
}  # fmt: skip
LATENT = [
    "Fashion-MNIST in the latent space of a small autoencoder (PSNR {reconstruction_psnr[value]:.1f} dB):",
    Table(
        "images | Fréchet distance = frechet:.2f± | ratio to the floor = ratio:.2f",
        lambda r: [{"images": name, **r[key]} for name, key in OF_LATENTS.items()],
    ),
]
ABLATION = [
    "{what}, {length} per row and seed, {seeds} seeds. The Fréchet distance is in the features of the {whose} "
    "classifier (floor {floor:.2f}); the difference is from the full model at the same seed, with its standard error over seeds. In the "
    "paper every row is worse than the full model; *holds* says whether ours is.",
    Table(
        "row | paper, FID on CIFAR-10 = paper_fid:.2f | Fréchet distance = frechet:.1f | difference = difference ± standard_error:+.1f | "
        "images:,.0f | failed | holds"
    ),
    "{withdrawn}",
    "The full models, sampled with fewer steps per level and by one network alone:",
    Table(
        "samples by | Fréchet distance = frechet:.1f | ratio to 15 steps = ratio:.2f | CPU time, ratio to 15 steps = time:.2f",
        lambda r: [{"samples by": way, **figures} for way, figures in r["sampling"].items()],
    ),
]


def shares(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {shown(share, '.1f %')}" for name, share in values.items())


def of_composition(r: dict[str, Any]) -> dict[str, Any]:
    return {"sets": [{"name": name, "judges": shares(found["judge_accuracy"]), **found} for name, found in r["results"].items()]}


def of_walks(r: dict[str, Any]) -> dict[str, Any]:
    found = r["results"]
    alone, both = (found[name] for name in PAIRED)
    kinds = ("no label", "both")
    return {
        "alone": alone,
        "both": both,
        "kept_steps": KEPT,
        "walks": [{"learned": name, **row} for name, one in found.items() for row in one["rows"]],
        "readings": [
            {"learned": name, "pairs": pairs} | {f"level {level}": share for level, share in enumerate(shares)}
            for name, one in found.items()
            for pairs, shares in one["read"].items()
        ],
        "chains": [
            {"learned": name, "level": row["level"], "of": kind, "before": row[f"{kind}, before"], "after": row[f"{kind}, after"]}
            for name, one in found.items()
            for row in one["kept"]
            for kind in kinds
        ],
    }


BY_FRECHET = "Fréchet distance = frechet:.1f | minus that of the twin's proposals = difference ± standard_error:+.1f | images = images:,.0f"
OF_HANDOVER = [
    "The initializer learns from the data for 0.6 of the updates, and then from refined draws: {how}, {seeds_in_words}. Energy distance of "
    "{compared}, of EMA twins:",
    Table(
        lambda r: [
            "row | before the hand-over = before:.3f | worst after it = worst:.3f | at the end = end:.3f | worst by before = jump:.1f",
            *([BY_FRECHET] if r.get("floor") else []),
            "CPU seconds = cpu_seconds:.0f",
        ]
    ),
]


OF_SIZES = [
    "{data}{at_size}, initializers that learn from the data throughout, {seconds:.0f} CPU seconds a model; the floor of the Fréchet "
    "distance is {floor:.1f}. By level from the data up: the error of the proposal's mean over the best linear guess's, and the chain's "
    "displacement over that of its noise alone.",
    Table(
        [
            "row | seeds | Fréchet distance = frechet:.1f | minus the preset's = difference ± standard_error:+.1f | "
            "with a denoiser last = frechet_denoised_last:.1f | images = images:,.0f",
            ("error by level", lambda row: ", ".join(f"{value:.2f}" for value in row["error"])),
            ("displacement by level", lambda row: ", ".join(f"{value:.2f}" for value in row["displacement"])),
        ]
    ),
]


def of_ablation(r: dict[str, Any]) -> dict[str, Any]:
    digits, updates = r.get("data", "digits") == "digits", r.get("updates")
    length = f"{updates:,} updates" if updates else f"{r['budget_cpu_seconds']:.0f} CPU seconds"
    what = f"{'Digits' if digits else r['data']}{r['at_size']}"
    return {"what": what, "length": length, "whose": "digits'" if digits else "data's", "withdrawn": r.get("withdrawn", "")}


def of_handover(r: dict[str, Any]) -> dict[str, Any]:
    if r["data"] == "digits":
        how = "digits, 450 updates of 128 images, networks 128 wide, constant rates"
        return {"how": how, "compared": "179 samples to validation digits"}
    how = f"{r['data']}{r['at_size']}, the preset's networks, {r['seconds']:.0f} CPU seconds a model"
    return {"how": how, "compared": f"{COMPARED} samples to validation images; the floor of the Fréchet distance is {r['floor']:.1f}"}


PARTS = (
    Shown("cdrl_toys", TOY),
    Shown("cdrl_digits", DIGITS, lambda r: {"aurocs": ", ".join(f"{kind} {found['auroc']:.3f}" for kind, found in r["auroc"].items())}),
    Shown("cdrl_conditional", CONDITIONAL),
    Shown("cdrl_composition", COMPOSITION, of_composition),
    Shown("cdrl_composition_paired-digits", WALKED, of_walks),
    Shown("cdrl_inpainting", INPAINTING, lambda r: {"what": "digits" if r["data"] == "digits" else f"images, {r['data']}"}),
    Shown("cdrl_latent", LATENT),
)
PAGE = [
    Section("CDRL", PARTS, "± is the standard error over draws of one trained model, unless said otherwise."),
    Section("Ablation of CDRL", [Shown("cdrl_ablation", ABLATION, of_ablation)]),
    Section("Sizes of CDRL", [Shown("cdrl_sizes", OF_SIZES)]),
    Section("Hand-over of CDRL", [Shown("cdrl_handover", OF_HANDOVER, of_handover)]),
]

if __name__ == "__main__":
    STUDY.main()
