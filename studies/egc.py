"""EGC: the ablation of Table 5, accuracy and robustness against other classifiers, cost, and the paper's figures.

`ablation`: every row of Table 5, and rows of our own options, trained on equally many images; the Fréchet distance of samples in
the features of the data's own classifier, accuracy on clean test images and class accuracy of guided samples, each row's distance
paired with that of the model with classifier of the same family at the same seed. `classifiers`: EGC, the plain classifier
of the same body, augmentation and length (`classifier_only`), unsupervised EGC, and JEM, on fewer images as its steps are expensive:
accuracy, samples, PGD, Auto-PGD and FGSM (Figure 7) with checks for masked gradients. `trade`: accuracy and samples over γ and label
dropping, with separate passes, against the plain classifier and unsupervised EGC. `cost`: CPU time of a step. `figures`: Figures 4, 6
and 8 of a trained run, and its samples in few steps. `noise`: of a trained run the error of the predicted noise by level.

    thalweg train egc/digits --out runs/egc-digits --threads 1
    python -m studies.egc ablation classifiers trade cost figures --jobs 2
    python -m studies.egc ablation --data fashion-mnist --size 16 --images 500000 --seconds 3600
"""

import argparse
import statistics
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

import thalweg as tw
from studies.measures import (
    Bare,
    Judge,
    less,
    mean,
    means,
    noise_errors,
    precisely,
    ratio,
    seconds_in_turn,
    sets_of,
    standard_error,
    trained,
)
from studies.runner import Options, Part, Row, Study, file_of
from studies.tables import Each, Picture, Section, Shown, Table
from thalweg import tasks
from thalweg.augmentation import Affine
from thalweg.data import Batch
from thalweg.evaluate.accuracy import Accuracy
from thalweg.methods.egc import EGC
from thalweg.nn.build import ConvNet, UNet

COST_ROUNDS = 20
FULL = "EBM + classifier (patch)"
UNET = dict(net=UNet(width=32, blocks=1, multipliers=(1, 2)), readout="logits")
RESNET = dict(net=ConvNet(widths=(32, 64, 128), blocks=1), readout="logits")
BODIES: dict[str, dict] = {"patch": {}, "unet": UNET}
ALONE = dict(supervised=False, latent_classes=10)
CLASSIFIER = dict(classifier_only=True, cross_entropy_weight=1.0)
# row: (fields, the paper's FID on CIFAR-10 without and with guidance); the paper has no patch network, nor the rows below
ROWS: dict[str, tuple[dict, float | None, float | None]] = {
    FULL: ({}, None, None),
    "EBM alone (patch)": (ALONE, None, None),
    "EBM alone (unet)": (UNET | ALONE, 5.36, None),
    "EBM + classifier (unet)": (UNET, 3.49, 3.30),
    "EBM + classifier (resnet)": (RESNET, None, 7.15),
    "logits as the only read-out": (dict(readout="logits"), None, None),
    "map read-out": (dict(readout="map"), None, None),
    "separate passes": (dict(passes="separate"), None, None),
    "labels seen by half the score matching": (dict(label_dropping=0.5), None, None),
    "labels seen by 90 %, as an input": (dict(passes="separate", label_dropping=0.1, label_input=True), None, None),
}
# what a row's distance is compared with, where that is not the full model on patches
BASE = {name: "EBM + classifier (unet)" for name in ("EBM alone (unet)", "EBM + classifier (unet)", "EBM + classifier (resnet)")}
MODELS: dict[str, tuple[str, dict]] = {
    "egc": ("egc", {}),
    "egc, separate passes": ("egc", dict(passes="separate")),
    "egc, labels seen by half": ("egc", dict(passes="separate", label_dropping=0.5)),
    "egc, labels seen by 90 %, as an input": ("egc", dict(passes="separate", label_dropping=0.1, label_input=True)),
    "classifier": ("egc", CLASSIFIER),
    "unsupervised": ("egc", ALONE),
    "jem": ("jem", {}),
}
# of the images: chains make a step of JEM several times as expensive, and a rate that falls by its own length is fair to it
SHARE = {"jem": 0.2}
APART = dict(passes="separate", cross_entropy_early=None)
TRADE: dict[str, dict] = {
    "γ = 0.05": APART | dict(cross_entropy_weight=0.05),
    "γ = 0.3": APART | dict(cross_entropy_weight=0.3),
    "γ = 1": APART | dict(cross_entropy_weight=1.0),
    "γ = 0.3, labels seen by half": APART | dict(cross_entropy_weight=0.3, label_dropping=0.5),
    "γ = 0.3, labels seen by 90 %, as an input": APART | dict(cross_entropy_weight=0.3, label_dropping=0.1, label_input=True),
    "classifier": CLASSIFIER,
    "unsupervised": ALONE,
}
GUIDANCE = (1.0, 2.0, 6.0)  # the last is the paper's on CIFAR-10
FIGURE_GUIDANCE = (1.0, 2.0, 6.0, 20.0, 200.0)
FEW_STEPS = (5, 10, 20, 50)
FIGURE_SAMPLES = 500  # of all noise levels, which takes long
PAIRS = 50
INVERSION_STEPS = 200  # in 50 steps a few images of a hundred are not recovered


EGCS = {"ablation": {row: ("egc", fields) for row, (fields, *_) in ROWS.items()}, "trade": {row: ("egc", f) for row, f in TRADE.items()}}


def settings(part: str, row: str, options: Options) -> tuple[str, dict[str, Any]]:
    """Preset and fields of a row's model, trained on its share of `options.images`."""
    name, changes = (EGCS | {"classifiers": MODELS})[part][row]
    fields = {"images": round(SHARE.get(name, 1.0) * options.images)}
    if name == "egc":  # presets differ in passes; rows say theirs
        same = {"augmentation": Affine(options.augment) if options.augment else None, "class_augmentation": None, "passes": "joint"}
        fields |= same | ({} if options.gamma is None else {"cross_entropy_weight": options.gamma, "cross_entropy_early": None})
    config = tw.methods.preset(f"{name}/{options.data}")[1]
    smaller = (options.size or config.shape[-1]) == 16 and config.net.kind == "patch"
    return f"{name}/{options.data}", fields | ({"net": dict(patch=2)} if smaller else {}) | changes


def model_of(part: str, row: str, seed: int, options: Options) -> tuple[Any, Row, tuple[Any, Any]]:
    """A trained model, None where it diverged, how that went, and the training and the test set."""
    train, test = sets_of(options)
    return *trained(settings(part, row, options), train, seed, options), (train, test)


def accuracy_of(model: Any, test: Any) -> dict[str, Any]:
    """Accuracy and calibration on clean images."""
    report = tw.evaluate.calibration(model.classify, *test.all())
    return {"accuracy": asdict(report.accuracy), "ece": report.ece, "nll": report.nll}


def distances(model: Any, judge: Judge, seed: int, options: Options, **asked: Any) -> dict[str, Any]:
    """Mean Fréchet distance of sets of samples, and with `label` their class accuracy by the extractor's classifier."""
    asked |= {"steps": options.steps} if options.steps is not None and model.name == "egc" else {}
    sets = list(judge.sets(model, seed, options.precision, draws=options.draws, **asked))
    values = [judge.frechet(x) for x in sets]
    if None in values:
        return {"frechet": None, "floor": None, "class_accuracy": None}
    right = [tw.evaluate.class_accuracy(x, asked["label"], judge.extractor).value for x in sets if "label" in asked]
    return {"frechet": mean(values), "floor": judge.floor, "class_accuracy": mean(right)}


def samples_of(model: Any, train: Any, test: Any, seed: int, options: Options) -> dict[str, Any]:
    """Distances of samples without a label, and of a model of labels with one over `GUIDANCE`, with their class accuracy."""
    judge = Judge.of(options.data, train, test, most=options.samples)
    found: dict[str, Any] = {"extractor_accuracy": judge.extractor.test_accuracy, "free": distances(model, judge, seed, options)}
    if model.config.classes:
        label = torch.arange(len(judge.held_out)) % model.config.classes
        # JEM's chains are on the joint energy as it is
        scales = {w: {"guidance": w} for w in GUIDANCE} if model.name == "egc" else {1.0: {}}
        found["guided"] = {str(w): distances(model, judge, seed, options, label=label, **asked) for w, asked in scales.items()}
    return found


def guided(rows: list[Row]) -> dict[str, float | None]:
    """Means over seeds of distance and class accuracy at each guidance scale."""
    keys = ("frechet", "class_accuracy")
    return {f"{key} w={w:g}": mean(row.get("guided", {}).get(str(w), {}).get(key) for row in rows) for w in GUIDANCE for key in keys}


def in_free(row: Row) -> float | None:
    return row["free"]["frechet"] if "free" in row else None


# --- Table 5, and γ


def plain_one(part: str, row: str, seed: int, options: Options) -> Row:
    """One model's accuracy on clean images and its samples."""
    model, found, (train, test) = model_of(part, row, seed, options)
    if model is None:
        return found
    if model.config.classes:
        found["accuracy"] = accuracy_of(model, test)["accuracy"]["value"]
    return found | ({} if row == "classifier" else samples_of(model, train, test, seed, options))


def ablation_line(name: str, mine: list[Row], rows: list[Row]) -> Row:
    mine = [row for row in mine if in_free(row) is not None]
    _, free_fid, guided_fid = ROWS[name]
    line = {"seeds": len(mine), "paper_fid": free_fid, "paper_fid_guided": guided_fid}
    line |= means(mine, ("accuracy",)) | {"frechet": mean(map(in_free, mine))}
    return line | less(rows, name, BASE.get(name, FULL), in_free) | guided(mine)


def trade_line(name: str, mine: list[Row], rows: list[Row]) -> Row:
    line = means(mine, ("accuracy",)) | {"frechet": mean(map(in_free, mine))} | less(rows, name, "classifier", "accuracy", "accuracy ")
    return line | less(rows, name, "unsupervised", in_free, "frechet ") | guided(mine)


# --- against other classifiers


def classifiers_one(row: str, seed: int, options: Options) -> Row:
    """One model's accuracy, calibration, samples and robustness, as far as it has them."""
    model, found, (train, test) = model_of("classifiers", row, seed, options)
    if model is None:
        return found
    if row != "classifier":
        found |= samples_of(model, train, test, seed, options)
        if seed == 0:
            picture(model, options.pictures / file_of("egc_samples", options.data, row), options)
    if model.config.classes:
        x, label = (part[: options.examples] for part in test.all())
        found["clean"] = accuracy_of(model, test)
        found["report"] = asdict(tw.evaluate.robustness(model.classify, x, label, steps=20, restarts=options.restarts, seed=seed))
    return found


def picture(model: Any, path: Path, options: Options) -> None:
    """Samples of a trained model: a row for each class, guided by the middle of `GUIDANCE`; without labels where it has none."""
    asked: dict[str, Any] = {}
    if model.config.classes:
        asked["label"] = torch.arange(model.config.classes).repeat_interleave(12)
    if model.name == "egc":
        asked |= {"steps": options.steps} if options.steps else {}
        asked |= {"guidance": GUIDANCE[1]} if "label" in asked else {}
    x = model.sample(len(asked["label"]) if "label" in asked else 96, seed=1, **asked)
    tw.plot.grid(x, path, columns=12)


def in_clean(row: Row) -> float | None:
    return row["clean"]["accuracy"]["value"] if "clean" in row else None


def classifiers_line(name: str, mine: list[Row], rows: list[Row]) -> Row:
    line: Row = {"accuracy": mean(map(in_clean, mine))} | less(rows, name, "classifier", in_clean, "accuracy ")
    line |= {"ece": mean(row["clean"]["ece"] for row in mine if "clean" in row), "frechet": mean(map(in_free, mine))}
    line |= less(rows, name, "unsupervised", in_free, "frechet ") | guided(mine)
    attacked = [row for row in mine if "report" in row]
    for attack in ("pgd", "auto"):
        curves = [[a["value"] for a in row["report"][attack]] for row in attacked]
        line[attack] = [statistics.fmean(values) for values in zip(*curves)]
    line["checks"] = [row["report"]["checks"]["passed"] for row in attacked]
    plain = {row["seed"]: row for row in rows if row["row"] == "classifier" and "report" in row}
    line["above"] = [above(row, plain.get(row["seed"])) for row in attacked if name != "classifier"]
    return line


def above(row: Row, classifier: Row | None) -> bool | None:
    """Whether a model holds up better than the plain classifier at every radius; radii at which neither is ever right do not count."""
    if classifier is None:
        return None
    pairs = [(a["value"], b["value"]) for a, b in zip(row["report"]["pgd"], classifier["report"]["pgd"])]
    pairs = [(a, b) for a, b in pairs if a or b]
    return all(a > b for a, b in pairs) if pairs else None


def attacks(options: Options, rows: list[Row]) -> dict[str, Any]:
    """How models were attacked, and a picture of the robustness of those of seed 0."""
    reports = {}
    for row in rows:
        if "report" in row and row["seed"] == 0:
            report = {k: tuple(Accuracy(**a) for a in v) if k in ("fgsm", "pgd", "auto", "noise") else v for k, v in row["report"].items()}
            report |= {"clean": Accuracy(**report["clean"]), "checks": tw.evaluate.MaskingChecks(**report["checks"])}
            reports[row["row"]] = tw.evaluate.RobustnessReport(**report)
    if reports:
        tw.plot.robustness(reports, options.pictures / f"egc_robustness_{options.data}.png", title=f"{options.data}, seed 0")
    radii = next((row["report"]["epsilons"] for row in rows if "report" in row), None)
    own = ("augment", "gamma", "samples", "draws", "steps", "restarts", "examples")
    return {"attack": "PGD-20, L-infinity", "epsilons": radii} | {key: getattr(options, key) for key in own}


def trade_more(options: Options, rows: list[Row]) -> dict[str, Any]:
    return {key: getattr(options, key) for key in ("samples", "draws", "steps")}


# --- cost


class Diffusion(EGC):
    """The body of EGC as a noise predictor with the plain loss ‖ε̂(x_t, t) − ε‖² (Ho et al. 2020, eq. 14)."""

    def losses(self, x0, label, t, epsilon, kept=None, own=None):
        """The error of the map at ε, and no cross-entropy."""
        fields, _ = self.net(self.schedule.diffuse(x0, t, epsilon), t)
        error = (fields.float() - epsilon).flatten(1).square().mean(1)
        return error, torch.zeros_like(error), torch.zeros_like(error)


def cost(options: Options) -> dict[str, Any]:
    """CPU seconds of a whole step of EGC, of a plain classifier and of a diffusion model of each of `BODIES`, eager and compiled.

    All in one process and in turn, medians over `COST_ROUNDS` rounds.
    """
    torch.set_num_threads(1)
    train, _ = sets_of(options)
    whole, size = train.all(), tw.methods.preset(f"egc/{options.data}")[1].batch
    batch = Batch(whole.x[:size], whole.label[:size])
    kinds = {"egc": (EGC, {}), "classifier": (EGC, CLASSIFIER), "diffusion": (Diffusion, {})}
    runs: dict[str, Callable[[], None]] = {}
    for body, sizes in BODIES.items():
        for compiled in (False, True):
            for kind, (method, fields) in kinds.items():
                config = tw.method(f"egc/{options.data}", data=train, compile=compiled, **sizes, **fields).config
                model = method(config)
                step = partial(model.step, batch, Bare(model))
                runs[f"{body}: {kind} {'compiled' if compiled else 'eager'}"] = precisely(step, options.precision)
    first, seconds = seconds_in_turn(runs, COST_ROUNDS)
    pairs = [(f"egc {way}", f"{other} {way}") for way in ("eager", "compiled") for other in ("diffusion", "classifier")]
    pairs.append(("egc eager", "egc compiled"))
    return {
        "batch": size,
        "rounds": COST_ROUNDS,
        "first_step_seconds": first,
        "seconds_a_step": {name: statistics.median(values) for name, values in seconds.items()},
        "ratios": {
            f"{body}: {one} to {other}": ratio(seconds[f"{body}: {one}"], seconds[f"{body}: {other}"])
            for body in BODIES
            for one, other in pairs
        },
    }


# --- figures


def figures(options: Options) -> dict[str, Any]:
    """Of a trained run: energies along and across noise (Figure 6), guidance (Figure 8), few steps, interpolation (Figure 4)."""
    model = tw.load(options.run)
    c = model.config
    test = tw.data.load(c.data, "test", size=c.shape[-1]).all()
    found: dict[str, Any] = {"run": str(options.run), "data": c.data, "energy_along_noise": [], "guidance": []}
    pictures, g = options.pictures, tw.random.seeded(5)
    # Figure 6a: x = ᾱ_t x₀ + a σ_t ε at fixed t; noise a at which the energy is lowest, and how it rises from there
    amounts, x0 = torch.linspace(0, 2, 21), test.x[:100]
    epsilon = tw.random.normal_like(x0, g)
    curves: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        for t in (200, 500, 800):
            signal, sigma = model.schedule.signal[t], model.schedule.noise[t]
            energies = torch.stack([model.energy(signal * x0 + a * sigma * epsilon, t=t) for a in amounts])
            curves[f"t = {t}"] = energies
            median = energies.median(1).values
            rising = (median[1:] > median[:-1]).tolist()
            found["energy_along_noise"].append(
                {"t": t, "lowest_at": float(amounts[median.argmin()]), "rises_from": float(amounts[last_fall(rising)]),
                 "nats_at_2": float(median[-1] - median.min())}
            )  # fmt: skip
        # dashed: what N(ᾱ_t x₀, σ_t² I) would have, ‖a ε‖²/2
        gaussian = amounts.square() * float(epsilon.flatten(1).square().sum(1).median()) / 2
        tw.plot.along_noise(
            curves, amounts, pictures / "egc_energy_along_noise.png", label="noise, in units of σ_t", reference={"t = 500": gaussian},
            title=c.data,
        )  # fmt: skip
        found["gaussian_nats_at_2"] = float(gaussian[-1])
        for t in (200, 500):
            signal, sigma = model.schedule.signal[t], model.schedule.noise[t]
            first, second = sigma * tw.random.normal(2, *c.shape, generator=g)

            def energy(x: torch.Tensor, t: int = t) -> torch.Tensor:
                return model.energy(x, t=t)

            tw.plot.noise_plane(energy, signal * x0[0], first, second, pictures / f"egc_noise_plane_{t}.png", extent=1.5, depth=100.0)
    # Figure 8: the same noise in each column, a row a scale, two classes
    extractor = tw.evaluate.extractor(c.data) if c.shape[-1] == tw.data.load(c.data, "test").shape[-1] else None
    for label in (0, 3):
        rows = [model.sample(12, seed=1, label=label, guidance=w, eta=0.0) for w in FIGURE_GUIDANCE]
        labels = [f"w = {w:g}" for w in FIGURE_GUIDANCE]
        tw.plot.grid(torch.cat(rows), pictures / f"egc_guidance_{label}.png", columns=12, row_labels=labels, title=f"class {label}")
    asked = torch.arange(200) % c.classes
    for w in FIGURE_GUIDANCE:
        x = model.sample(200, seed=1, label=asked, guidance=w)
        spread = statistics.fmean(float(x[asked == y].flatten(1).std(0).mean()) for y in range(c.classes))
        right = None if extractor is None else tw.evaluate.class_accuracy(x, asked, extractor).value
        found["guidance"].append(
            {"w": w, "std_within_class": spread, "class_accuracy": right, "saturated": float((x.abs() > 0.99).float().mean())}
        )
    found["few_steps"] = few_steps(model, test, extractor, pictures)
    return found | interpolation(model, test, extractor, pictures)


def few_steps(model: Any, test: Any, extractor: Any, pictures: Path) -> list[dict[str, Any]]:
    """DDIM in few steps and in all, from the same noises: how far images are from those of all steps, and Fréchet distances."""
    c, held_out = model.config, test.x[:FIGURE_SAMPLES]
    drawn = {n: model.sample(len(held_out), seed=1, steps=n, eta=0.0) for n in (*FEW_STEPS, c.levels)}
    rows = [{"steps": n, "n": len(x), "rmse_to_all_steps": float((x - drawn[c.levels]).square().mean().sqrt())} for n, x in drawn.items()]
    if extractor is not None:
        judge = Judge(tw.data.load(c.data, "train", size=c.shape[-1]).all().x, held_out, extractor)
        rows = [row | {"frechet": judge.frechet(drawn[row["steps"]]), "floor": judge.floor} for row in rows]
    labels = [f"{n} steps" for n in drawn]
    tw.plot.grid(torch.cat([x[:12] for x in drawn.values()]), pictures / "egc_few_steps.png", columns=12, row_labels=labels, title=c.data)
    return rows


def interpolation(model: Any, test: Any, extractor: Any, pictures: Path) -> dict[str, Any]:
    """Between real images (Figure 4): on the arc between their noises, against the straight line between their pixels.

    Of `PAIRS` pairs of different classes the confidence of the data's own classifier, its highest p(y | x): over the middle third of
    either path, and of the images themselves.
    """
    order = torch.randperm(len(test.x), generator=tw.random.seeded(6))
    half = len(order) // 2
    pairs = torch.stack([order[:half], order[half : 2 * half]], 1)
    pairs = pairs[test.label[pairs[:, 0]] != test.label[pairs[:, 1]]][:PAIRS]
    ends = test.x[pairs.flatten()]
    noise = model.invert(ends, steps=INVERSION_STEPS)
    back = model.sample(len(ends), start=noise, steps=INVERSION_STEPS, eta=0.0)
    weights = torch.linspace(0, 1, 9)
    starts = torch.cat([tasks.slerp(a, b, weights) for a, b in noise.unflatten(0, (-1, 2))])
    in_noise = model.sample(len(starts), start=starts, steps=INVERSION_STEPS, eta=0.0)
    one, two = ends.unflatten(0, (-1, 2)).unbind(1)
    w = weights.view(1, -1, 1, 1, 1)
    in_pixels = ((1 - w) * one[:, None] + w * two[:, None]).flatten(0, 1)
    shown = torch.cat([in_noise[:9], in_pixels[:9]])
    tw.plot.grid(shown, pictures / "egc_interpolation.png", columns=9, row_labels=["x_T", "x_0"])
    errors = (back - ends).flatten(1).square().mean(1).sqrt()
    found: dict[str, Any] = {"inversion_rmse": {"median": float(errors.median()), "highest": float(errors.max()), "images": len(ends)}}
    if extractor is None:
        return found

    def confidence(x: torch.Tensor) -> torch.Tensor:
        """[N · 9, ...] -> [N], over the points of the middle third."""
        return extractor.logits(x).softmax(1).amax(1).view(-1, len(weights))[:, (weights > 1 / 3) & (weights < 2 / 3)].mean(1)

    in_noise_p, in_pixels_p = confidence(in_noise), confidence(in_pixels)
    gain = in_noise_p - in_pixels_p
    found["interpolation"] = {
        "pairs": len(pairs), "confidence_x_T": float(in_noise_p.mean()), "confidence_x_0": float(in_pixels_p.mean()),
        "confidence_of_images": float(extractor.logits(ends).softmax(1).amax(1).mean()),
        "difference": float(gain.mean()), "standard_error": standard_error(gain.tolist()),
    }  # fmt: skip
    return found


def noise(options: Options) -> dict[str, Any]:
    """Of a trained run: the error of the predicted noise by σ on 1,000 test images."""
    torch.set_num_threads(1)
    model = tw.load(options.run)
    c = model.config
    test = tw.data.load(c.data, "test", size=c.shape[-1]).all()
    return {"run": str(options.run), "data": c.data, "noise_error": noise_errors(model, test.x[:1000], options.precision)}


def last_fall(rising: list[bool]) -> int:
    """The index after the last step that does not rise."""
    return max((i + 1 for i, up in enumerate(rising) if not up), default=0)


# --- running


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--augment", type=float, default=0.0, help="augmentation of EGC and the plain classifier alike")
    parser.add_argument("--gamma", type=float, help="weight of EGC's cross-entropy, the preset's by default")
    parser.add_argument("--samples", type=int, default=2000, help="at most in a set, where there are more held-out images")
    parser.add_argument("--draws", type=int, default=4, help="sets of samples")
    parser.add_argument("--steps", type=int, help="of EGC's sampler, the preset's by default")
    parser.add_argument("--examples", type=int, default=200, help="test images that are attacked")
    parser.add_argument("--restarts", type=int, default=2, help="of PGD")


STUDY = Study(
    "egc",
    __doc__,
    {
        "ablation": Part(ROWS, partial(plain_one, "ablation"), ablation_line, partial(settings, "ablation")),
        "classifiers": Part(MODELS, classifiers_one, classifiers_line, partial(settings, "classifiers"), attacks),
        "trade": Part(TRADE, partial(plain_one, "trade"), trade_line, partial(settings, "trade"), trade_more),
        "cost": cost,
        "figures": figures,
        "noise": noise,
    },
    run=Path("runs/egc-digits"),
    of_run=("figures", "noise"),
    add=add,
)

# --- the page


def at_scale(key: str, w: int) -> Callable[[Row], float | None]:
    """A figure of samples by label at a guidance scale. Results of before several were sampled are at the preset's, 2; JEM's at 1."""
    old = {"frechet": "frechet_guided", "class_accuracy": "class_accuracy"}[key]
    return lambda line: line.get(f"{key} w={w}", line.get(old) if w == (1 if line["row"] == "jem" else 2) else None)


BY_LABEL = [
    c for w in (1, 2, 6) for c in ((f"w = {w}", at_scale("frechet", w), ".1f"), ("class accuracy", at_scale("class_accuracy", w), ".1f %"))
]
POINTS = ("accuracy difference", "accuracy standard_error")
ACCURACY = [
    "model = row | seeds | test accuracy = accuracy:.1f %",
    ("minus the classifier's, points", lambda x: [x[key] and 100 * x[key] for key in POINTS], "+.1f±"),
]
FRECHET = "Fréchet distance = frechet:.1f | minus unsupervised EGC's = frechet difference ± frechet standard_error:+.1f"


def measured(r: dict[str, Any]) -> list[Row]:
    return [line for line in r["summary"] if line["seeds"]]


def floor(r: dict[str, Any]) -> dict[str, Any]:
    return {"floor": next(x["free"]["floor"] for x in r["runs"] if x.get("free"))}


def of_classifiers(r: dict[str, Any]) -> dict[str, Any]:
    """Which models were trained on fewer images than the others, and pictures of their samples."""
    images = {x["row"]: x["images"] for x in r["runs"] if x.get("images")}
    fewer = "".join(f", {row} {n:,}" for row, n in images.items() if n < 0.95 * r["images"])
    return floor(r) | {"fewer": fewer, "samples_of": [{"row": row, "file": file_of("egc_samples", r["data"], row)} for row in images]}


def robustness_columns(r: dict[str, Any]) -> list[tuple]:
    # radii at which no model is ever right say nothing
    auto = any(x.get("auto") for x in r["summary"])
    kept = [i for i, _ in enumerate(r["epsilons"]) if any(x["pgd"] and x["pgd"][i] for x in r["summary"])]
    return [
        ("model", "row"),
        *((f"ε = {round(255 * r['epsilons'][i])}/255", lambda x, i=i: x["pgd"][i], ".1f %") for i in kept),
        *((f"then Auto-PGD, {round(255 * r['epsilons'][i])}/255", lambda x, i=i: x["auto"][i], ".1f %") for i in kept if auto),
        ("gradient checks passed", lambda x: f"{sum(x['checks'])} of {len(x['checks'])}"),
        ("above the classifier at every ε", lambda x: f"{sum(map(bool, x['above']))} of {len(x['above'])}" if x["above"] else None),
    ]


CLASSIFIERS = [
    "Against other classifiers, {data}, {images:,} images{fewer}; the floor of the Fréchet distance is {floor:.1f}:",
    Table([*ACCURACY, "calibration error = ece:.3f", FRECHET, *BY_LABEL], measured),
    "Accuracy under {attack}, {examples} images, {restarts} restarts, means over seeds:",
    Table(robustness_columns, lambda r: [line for line in r["summary"] if line["pgd"]]),
    Picture("Robustness", "egc_robustness_{data}.png"),
    Each("samples_of", [Picture("Samples, {row}; given labels, one row per class at w = 2", "{file}")]),
]
TRADE_OFF = [
    "Accuracy and samples over γ and label dropping, separate passes, {data}, {images:,} images; floor {floor:.1f}:",
    Table([*ACCURACY, FRECHET, *BY_LABEL], measured),
]
ABLATION = [
    "Table 5 and our variants, {data}, {images:,} images per row{bound}:",
    Table(
        "row | seeds | paper's FID = paper_fid:.2f | guided = paper_fid_guided:.2f | Fréchet distance = frechet:.1f | "
        "minus the full model's = difference ± standard_error:+.1f | w = 1 = frechet w=1:.1f | w = 2 = frechet w=2:.1f | "
        "class accuracy, w = 2 = class_accuracy w=2:.1f % | test accuracy = accuracy:.1f %"
    ),
]
COST = [
    "A training step on {data}, batch {batch}, {precision}, medians of {rounds} interleaved rounds:",
    Table("step | CPU ms = ms:.0f", lambda r: [{"step": name, "ms": 1000 * value} for name, value in r["seconds_a_step"].items()]),
    "Median ratios: {all_ratios}.",
    "{source}",
]
FIGURES = [
    "Guidance, {data}:",
    Table(
        "w:g | class accuracy = class_accuracy:.1f % | within-class standard deviation = std_within_class:.3f | "
        "pixels at ±1 = saturated:.1f %",
        "guidance",
    ),
    "{source}",
    Picture("Class 3 over guidance scales", "egc_guidance_3.png"),
    Picture("Energy along the noise", "egc_energy_along_noise.png"),
    Picture("Interpolation between two images, in x_T and in x_0", "egc_interpolation.png"),
    "Between {interpolation[pairs]} pairs of test images of different classes, the classifier's confidence over the middle third of the "
    "path is {interpolation[confidence_x_T]:.3f} in x_T and {interpolation[confidence_x_0]:.3f} in x_0 (difference {gain:+.3f±}); on the "
    "images themselves it is {interpolation[confidence_of_images]:.3f}. Of {inversion_rmse[images]} images inverted and sampled again, the "
    "root mean square error is {inversion_rmse[median]:.4f} in the median and {inversion_rmse[highest]:.3f} at most.",
    "DDIM in few steps, {few_steps[0][n]} samples; the floor is {few_steps[0][floor]:.1f}:",
    Table(
        "steps | Fréchet distance = frechet:.1f | root mean square distance from the samples in all steps = rmse_to_all_steps:.3f",
        "few_steps",
    ),
    Picture("From the same noises in 5, 10, 20, 50 and all steps", "egc_few_steps.png"),
]
NOISE = [
    "Mean squared error of the predicted noise, {data}, a pixel, by σ:",
    Table("σ = sigma | error = error:.4f", lambda r: [{"sigma": s, "error": value} for s, value in r["noise_error"].items()]),
]
BY_DATA = (
    Shown("egc_classifiers", CLASSIFIERS, of_classifiers),
    Shown("egc_trade", TRADE_OFF, floor),
    Shown("egc_ablation", ABLATION, lambda r: {"bound": f", at most {r['seconds']:.0f} CPU seconds" if r["seconds"] else ""}),
    Shown("egc_noise", NOISE),
    Shown("egc_cost", COST, lambda r: {"all_ratios": "; ".join(f"{name} {value:.2f}" for name, value in r["ratios"].items())}),
)
GAIN = ("difference", "standard_error")
PAGE = [Section("EGC", [BY_DATA, Shown("egc_figures", FIGURES, lambda r: {"gain": [r["interpolation"][key] for key in GAIN]})])]

if __name__ == "__main__":
    STUDY.main()
