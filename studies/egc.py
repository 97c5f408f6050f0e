"""What EGC is made of and what it gives: Table 5's ablation, its accuracy and robustness beside other classifiers, and its figures.

`ablation`: every row of Table 5, and rows of our own options, trained on equally many images; the Fréchet distance of samples in
the features of the data's own classifier, accuracy on clean test images and class accuracy of guided samples, each row's distance
paired with that of the model with classifier of the same family at the same seed. `classifiers`: EGC beside the plain classifier
of the same body, augmentation and length (matching = 0), unsupervised EGC, and JEM, on fewer images as its steps are dearer:
accuracy, samples, PGD and FGSM (Figure 7) with checks for masked gradients. `trade`: accuracy and samples over γ and label
dropping, with passes apart, beside the plain classifier and unsupervised EGC. `cost`: CPU time of a step. `figures`: Figures 4, 6
and 8 of a trained run, and its samples in few steps.

    thalweg train egc/digits --out runs/egc-digits --threads 1
    python -m studies.egc ablation classifiers trade cost figures --jobs 2
    python -m studies.egc ablation --data fashion-mnist --size 16 --images 500000 --seconds 3600
"""

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from studies.runner import Study, file_of  # after the setting, which torch reads when it is imported

COST_ROUNDS = 20
FULL = "EBM + classifier (patch)"
UNET = dict(network="unet", width=32, blocks=1, multipliers=(1, 2), readout="logits")
RESNET = dict(network="resnet", width=32, blocks=1, multipliers=(1, 2, 4), readout="logits")
BODIES: dict[str, dict] = {"patch": {}, "unet": UNET}
ALONE = dict(supervised=False, latent_classes=10)
CLASSIFIER = dict(matching=0.0, gamma=1.0)
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
    "labels seen by half the score matching": (dict(labelled_share=0.5), None, None),
    "labels seen by 90 %, as an input": (dict(passes="separate", labelled_share=0.9, label_input=True), None, None),
}
# what a row's distance is compared with, where that is not the full model on patches
BASE = {name: "EBM + classifier (unet)" for name in ("EBM alone (unet)", "EBM + classifier (unet)", "EBM + classifier (resnet)")}
MODELS: dict[str, tuple[str, dict]] = {
    "egc": ("egc", {}),
    "egc, separate passes": ("egc", dict(passes="separate")),
    "egc, labels seen by half": ("egc", dict(passes="separate", labelled_share=0.5)),
    "egc, labels seen by 90 %, as an input": ("egc", dict(passes="separate", labelled_share=0.9, label_input=True)),
    "classifier": ("egc", CLASSIFIER),
    "unsupervised": ("egc", ALONE),
    "jem": ("jem", {}),
}
# of the images: chains make a step of JEM several times as dear, and a learning rate that ends with its training is a fair one
SHARE = {"jem": 0.2}
APART = dict(passes="separate")
TRADE: dict[str, dict] = {
    "γ = 0.05": APART | dict(gamma=0.05),
    "γ = 0.3": APART | dict(gamma=0.3),
    "γ = 1": APART | dict(gamma=1.0),
    "γ = 0.3, labels seen by half": APART | dict(gamma=0.3, labelled_share=0.5),
    "γ = 0.3, labels seen by 90 %, as an input": APART | dict(gamma=0.3, labelled_share=0.9, label_input=True),
    "classifier": CLASSIFIER,
    "unsupervised": ALONE,
}
GUIDANCE = (1.0, 2.0, 6.0)  # the last is the paper's on CIFAR-10
FIGURE_GUIDANCE = (1.0, 2.0, 6.0, 20.0, 200.0)
FEW_STEPS = (5, 10, 20, 50)
FIGURE_SAMPLES = 500  # of all noise levels, which takes long
PAIRS = 50
INVERSION_STEPS = 200  # in 50 a few images of a hundred are not found again


def images_of(options: argparse.Namespace) -> tuple[Any, Any]:
    import thalweg as tw

    return tuple(tw.data.load(options.data, split, size=options.size) for split in ("train", "test"))


def trained(name: str, fields: dict, seed: int, options: argparse.Namespace, train: Any) -> tuple[Any, dict[str, Any]]:
    """A model trained for its share of `options.images` images, at most `options.seconds` CPU seconds, and how that went."""
    import tempfile

    import thalweg as tw
    from thalweg.checkpoint import latest, read_stats
    from thalweg.errors import Diverged

    images = round(SHARE.get(name, 1.0) * options.images)
    patch = {"patch": 2} if train.shape[-1] == 16 else {}
    common = {"augment": options.augment, "passes": "joint"} if name == "egc" else {}  # presets differ in passes; rows say theirs
    if options.gamma is not None and name == "egc":
        common["gamma"] = options.gamma
    model = tw.method(f"{name}/{options.data}", seed=seed, data=train, **{"images": images, **patch, **common, **fields})
    found: dict[str, Any] = {"parameters": sum(p.numel() for p in model.parameters()), "diverged": None}
    settings = dict(log_every=max(2560, options.images // 50), sample_every=10**9, save_every=max(2560, options.images // 10))
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        try:
            model = tw.fit(
                model, train, Path(folder), seed=seed, images=images, seconds=options.seconds, clock=time.process_time,
                precision=options.precision, progress=False, **settings,
            )  # fmt: skip
        except Diverged as trouble:
            return None, found | {"diverged": str(trouble)}
        events = sum("event" in row for row in read_stats(Path(folder)))
        images = latest(Path(folder))["images"]
    found |= {"cpu_seconds": round(time.process_time() - started, 1), "images": images}
    return model.eval(), found | {"guard_events": events}


def accuracy_of(model: Any, test: Any) -> dict[str, Any]:
    """Accuracy and calibration on clean images."""
    import thalweg as tw

    report = tw.evaluate.calibration(model.classify, *test.all())
    return {"accuracy": asdict(report.accuracy), "ece": report.ece, "nll": report.nll}


def distances(model: Any, train: Any, test: Any, extractor: Any, seed: int, options: argparse.Namespace, **asked: Any) -> dict[str, Any]:
    """Mean Fréchet distance of sets of samples, and with `label` their class accuracy by the extractor's classifier."""
    import torch

    import thalweg as tw

    held_out = test.all().x[: options.samples]
    if options.steps is not None and model.name == "egc":
        asked["steps"] = options.steps
    values, right, floor = [], [], None
    for draw in range(options.draws):
        with torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bf16"):
            x = model.sample(len(held_out), seed=1000 * seed + draw + 1, **asked).float()
        if not bool(torch.isfinite(x).all()):
            return {"frechet": None, "floor": None, "class_accuracy": None}
        found = tw.evaluate.fidelity(train.all().x, x, extractor, held_out=held_out, metrics=("frechet",)).frechet
        values.append(found.value)
        floor = found.held_out
        if "label" in asked:
            right.append(tw.evaluate.class_accuracy(x, asked["label"], extractor).value)
    mean = {"frechet": statistics.fmean(values), "floor": floor}
    return mean | {"class_accuracy": statistics.fmean(right) if right else None}


# --- Table 5


def ablation_one(row: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    train, test = images_of(options)
    model, found = trained("egc", ROWS[row][0], seed, options, train)
    found = {"row": row, "seed": seed, "accuracy": None, "free": None, "guided": {}} | found
    if model is not None:
        found |= samples_of(model, train, test, seed, options)
        if model.config.classes:
            found["accuracy"] = accuracy_of(model, test)["accuracy"]["value"]
    return found


def samples_of(model: Any, train: Any, test: Any, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Distances of samples without a label, and of a model of labels with one over `GUIDANCE`, with their class accuracy."""
    import torch

    import thalweg as tw

    extractor = tw.evaluate.extractor((tuple(train.all()), tuple(test.all())), name=options.data)
    found: dict[str, Any] = {"extractor_accuracy": extractor.test_accuracy}
    found["free"] = distances(model, train, test, extractor, seed, options)
    if model.config.classes:
        label = torch.arange(min(options.samples, len(test))) % model.config.classes
        # JEM's chains are on the joint energy as it is
        scales = {w: {"guidance": w} for w in GUIDANCE} if model.name == "egc" else {1.0: {}}
        found["guided"] = {w: distances(model, train, test, extractor, seed, options, label=label, **asked) for w, asked in scales.items()}
    return found


def ablation(options: argparse.Namespace) -> dict[str, Any]:
    rows = run_all("ablation", list(ROWS), options)
    free = {(r["row"], r["seed"]): r["free"]["frechet"] for r in rows if r["free"]}
    lines = []
    for name, (_, free_fid, guided_fid) in ROWS.items():
        mine = [r for r in rows if r["row"] == name and r["free"] and r["free"]["frechet"] is not None]
        line: dict[str, Any] = {"row": name, "seeds": len(mine), "paper_fid": free_fid, "paper_fid_guided": guided_fid}
        line["accuracy"] = mean(r["accuracy"] for r in mine)
        line["frechet"] = mean(r["free"]["frechet"] for r in mine)
        base = BASE.get(name, FULL)
        others = [(r["free"]["frechet"], free.get((base, r["seed"]))) for r in mine] if name != base else []
        line |= {"less": base, **paired([value - other for value, other in others if other is not None])}
        lines.append(line | guided(mine))
    return {"summary": lines, "runs": rows}


def guided(rows: list[dict[str, Any]]) -> dict[str, float | None]:
    """Means over seeds of distance and class accuracy at each guidance scale."""
    found = {}
    for w in GUIDANCE:
        # written and read as JSON, a number as key is a text
        at = [r["guided"].get(str(w), {}) for r in rows]
        found[f"frechet w={w:g}"] = mean(g.get("frechet") for g in at)
        found[f"class_accuracy w={w:g}"] = mean(g.get("class_accuracy") for g in at)
    return found


def mean(values: Any) -> float | None:
    known = [v for v in values if v is not None]
    return statistics.fmean(known) if known else None


def paired(differences: list[float]) -> dict[str, float | None]:
    """Mean and standard error over seeds of differences from another model of the same seed."""
    error = statistics.stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else None
    return {"difference": mean(differences), "standard_error": error}


# --- beside other classifiers


def classifiers_one(row: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """One model's accuracy, calibration, samples and robustness, as far as it has them."""
    import thalweg as tw

    train, test = images_of(options)
    name, fields = MODELS[row]
    model, found = trained(name, fields, seed, options, train)
    found = {"row": row, "seed": seed, "clean": None, "report": None, "free": None, "guided": {}} | found
    if model is None:
        return found
    if fields is not CLASSIFIER:
        found |= samples_of(model, train, test, seed, options)
        if seed == 0:
            picture(model, options.pictures / file_of("egc_samples", options.data, row), options)
    if model.config.classes:
        x, label = (part[: options.examples] for part in test.all())
        found["clean"] = accuracy_of(model, test)
        found["report"] = asdict(tw.evaluate.robustness(model.classify, x, label, steps=20, restarts=options.restarts, seed=seed))
    return found


def picture(model: Any, path: Path, options: argparse.Namespace) -> None:
    """Samples of a trained model: a row for each class, guided by the middle of `GUIDANCE`; without labels where it has none."""
    import torch

    import thalweg as tw

    asked: dict[str, Any] = {}
    if model.config.classes:
        asked["label"] = torch.arange(model.config.classes).repeat_interleave(12)
    if model.name == "egc":
        asked |= {"steps": options.steps} if options.steps else {}
        asked |= {"guidance": GUIDANCE[1]} if "label" in asked else {}
    x = model.sample(len(asked["label"]) if "label" in asked else 96, seed=1, **asked)
    tw.plot.grid(x, path, columns=12)


def classifiers(options: argparse.Namespace) -> dict[str, Any]:
    import thalweg as tw
    from thalweg.evaluate.accuracy import Accuracy

    rows = run_all("classifiers", list(MODELS), options)
    reports = {}
    for row in rows:
        if row["report"] and row["seed"] == 0:
            report = {k: tuple(Accuracy(**a) for a in v) if k in ("fgsm", "pgd", "noise") else v for k, v in row["report"].items()}
            report |= {"clean": Accuracy(**report["clean"]), "checks": tw.evaluate.MaskingChecks(**report["checks"])}
            reports[row["row"]] = tw.evaluate.RobustnessReport(**report)
    if reports:
        tw.plot.robustness(reports, options.pictures / f"egc_robustness_{options.data}.png", title=f"{options.data}, seed 0")
    known = {(r["row"], r["seed"]): r for r in rows if not r["diverged"]}
    lines = []
    for name in MODELS:
        mine = [r for (row, _), r in known.items() if row == name]
        line: dict[str, Any] = {"row": name, "seeds": len(mine)}
        line["accuracy"] = mean(r["clean"]["accuracy"]["value"] for r in mine if r["clean"])
        line |= {f"accuracy {k}": v for k, v in paired(differences(known, mine, "classifier", accuracy_in)).items()}
        line["ece"] = mean(r["clean"]["ece"] for r in mine if r["clean"])
        line["frechet"] = mean(r["free"]["frechet"] for r in mine if r["free"])
        line |= {f"frechet {k}": v for k, v in paired(differences(known, mine, "unsupervised", frechet_in)).items()}
        line |= guided(mine)
        curves = [[a["value"] for a in r["report"]["pgd"]] for r in mine if r["report"]]
        line["pgd"] = [statistics.fmean(values) for values in zip(*curves)]
        line["checks"] = [r["report"]["checks"]["passed"] for r in mine if r["report"]]
        line["above"] = [above(r, known.get(("classifier", r["seed"]))) for r in mine if r["report"] and name != "classifier"]
        lines.append(line)
    radii = next((r["report"]["epsilons"] for r in rows if r["report"]), None)
    return {
        "augment": options.augment, "gamma": options.gamma, "samples": options.samples, "draws": options.draws, "steps": options.steps,
        "attack": "PGD-20, L-infinity", "restarts": options.restarts, "examples": options.examples,
        "epsilons": radii, "summary": lines, "runs": rows,
    }  # fmt: skip


def accuracy_in(row: dict[str, Any]) -> float | None:
    return row["clean"] and row["clean"]["accuracy"]["value"]


def frechet_in(row: dict[str, Any]) -> float | None:
    return row["free"] and row["free"]["frechet"]


def differences(known: dict, mine: list[dict], other: str, value: Callable[[dict], float | None]) -> list[float]:
    """`value` of rows less that of the model `other` of the same seed, where both have one."""
    pairs = [(value(r), value(known[other, r["seed"]])) for r in mine if r["row"] != other and (other, r["seed"]) in known]
    return [a - b for a, b in pairs if a is not None and b is not None]


def above(row: dict[str, Any], classifier: dict[str, Any] | None) -> bool | None:
    """Whether a model holds up better than the plain classifier at every radius; where both are broken wholly nothing is compared."""
    if classifier is None or not classifier["report"]:
        return None
    pairs = [(a["value"], b["value"]) for a, b in zip(row["report"]["pgd"], classifier["report"]["pgd"])]
    pairs = [(a, b) for a, b in pairs if a or b]
    return all(a > b for a, b in pairs) if pairs else None


# --- γ


def trade_one(row: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """One model's accuracy on clean images and its samples."""
    train, test = images_of(options)
    model, found = trained("egc", TRADE[row], seed, options, train)
    found = {"row": row, "seed": seed, "accuracy": None, "free": None, "guided": {}} | found
    if model is None:
        return found
    if model.config.classes:
        found["accuracy"] = accuracy_of(model, test)["accuracy"]["value"]
    if model.config.matching:
        found |= samples_of(model, train, test, seed, options)
    return found


def trade(options: argparse.Namespace) -> dict[str, Any]:
    rows = run_all("trade", list(TRADE), options)
    known = {(r["row"], r["seed"]): r for r in rows if not r["diverged"]}
    lines = []
    for name in TRADE:
        mine = [r for (row, _), r in known.items() if row == name]
        line: dict[str, Any] = {"row": name, "seeds": len(mine), "accuracy": mean(r["accuracy"] for r in mine)}
        line |= {f"accuracy {k}": v for k, v in paired(differences(known, mine, "classifier", lambda r: r["accuracy"])).items()}
        line["frechet"] = mean(frechet_in(r) for r in mine)
        line |= {f"frechet {k}": v for k, v in paired(differences(known, mine, "unsupervised", frechet_in)).items()}
        lines.append(line | guided(mine))
    return {"samples": options.samples, "draws": options.draws, "steps": options.steps, "summary": lines, "runs": rows}


# --- cost


def cost(options: argparse.Namespace) -> dict[str, Any]:
    """CPU seconds of a whole step of EGC, of a plain classifier and of a diffusion model of each of `BODIES`, eager and compiled.

    All in one process and in turn, medians over `COST_ROUNDS` rounds. The diffusion model is the body's map with the plain loss
    ‖ε̂(x_t, t) − ε‖² (Ho et al. 2020, eq. 14).
    """
    import torch

    import thalweg as tw
    from thalweg.data.base import Batch
    from thalweg.methods.egc import EGC

    class Diffusion(EGC):
        """The body of EGC as a noise predictor."""

        def losses(self, x0, label, t, epsilon, kept=None, own=None):
            """The error of the map at ε, and no cross-entropy."""
            fields, _ = self.net(self.schedule.diffuse(x0, t, epsilon), t)
            error = (fields.float() - epsilon).flatten(1).square().mean(1)
            return error, torch.zeros_like(error), torch.zeros_like(error)

    torch.set_num_threads(1)
    train, _ = images_of(options)
    config = tw.method(f"egc/{options.data}", data=train).config
    kinds = {"egc": (EGC, {}), "classifier": (EGC, CLASSIFIER), "diffusion": (Diffusion, {})}
    runs: dict[str, Callable[[], None]] = {}
    first: dict[str, float] = {}
    whole = train.all()
    batch = Batch(whole.x[: config.batch], whole.label[: config.batch])
    for body, sizes in BODIES.items():
        for compiled in (False, True):
            for kind, (method, fields) in kinds.items():
                model = method(replace(config, compile=compiled, **sizes, **fields))
                optimizer = model.optimizers()["net"]
                name = f"{body}: {kind} {'compiled' if compiled else 'eager'}"
                runs[name] = stepper(model, optimizer, batch, options.precision)
    found: dict[str, Any] = {"batch": config.batch, "rounds": COST_ROUNDS, "first_step_seconds": first}
    for name, one in runs.items():
        started = time.process_time()
        one()
        first[name] = time.process_time() - started
        print(f"{name}: first step {first[name]:.2f} s", flush=True)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(COST_ROUNDS):
        for name, one in runs.items():
            started = time.process_time()
            one()
            seconds[name].append(time.process_time() - started)
    found["seconds_a_step"] = {name: statistics.median(values) for name, values in seconds.items()}
    pairs = [(f"egc {way}", f"{other} {way}") for way in ("eager", "compiled") for other in ("diffusion", "classifier")]
    found["ratios"] = {
        f"{body}: {one} to {other}": statistics.median(a / b for a, b in zip(seconds[f"{body}: {one}"], seconds[f"{body}: {other}"]))
        for body in BODIES
        for one, other in (*pairs, ("egc eager", "egc compiled"))
    }
    return found


def stepper(model: Any, optimizer: Any, batch: Any, precision: str) -> Callable[[], None]:
    """One update of the model's own `step`, without the loop around it."""
    import torch

    from thalweg import random

    class Update:
        generator = random.seeded(1)

        def __call__(self, name: str, loss: torch.Tensor) -> None:
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

        def log(self, **values: torch.Tensor) -> None:
            pass

    update = Update()

    def one() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            model.step(batch, update)

    return one


# --- figures


def figures(options: argparse.Namespace) -> dict[str, Any]:
    """Of a trained run: energies along and across noise (Figure 6), guidance (Figure 8), few steps, interpolation (Figure 4)."""
    import torch

    import thalweg as tw

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
            signal, sigma = c_at(model, t)
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
            signal, sigma = c_at(model, t)
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
    import torch

    import thalweg as tw

    c, held_out = model.config, test.x[:FIGURE_SAMPLES]
    train = tw.data.load(c.data, "train", size=c.shape[-1]).all().x
    drawn = {n: model.sample(len(held_out), seed=1, steps=n, eta=0.0) for n in (*FEW_STEPS, c.levels)}
    rows = []
    for n, x in drawn.items():
        row = {"steps": n, "n": len(x), "rmse_to_all_steps": float((x - drawn[c.levels]).square().mean().sqrt())}
        if extractor is not None:
            frechet = tw.evaluate.fidelity(train, x, extractor, held_out=held_out, metrics=("frechet",)).frechet
            row |= {"frechet": frechet.value, "floor": frechet.held_out}
        rows.append(row)
    labels = [f"{n} steps" for n in drawn]
    tw.plot.grid(torch.cat([x[:12] for x in drawn.values()]), pictures / "egc_few_steps.png", columns=12, row_labels=labels, title=c.data)
    return rows


def interpolation(model: Any, test: Any, extractor: Any, pictures: Path) -> dict[str, Any]:
    """Between real images (Figure 4): on the arc between their noises, against the straight line between their pixels.

    Of `PAIRS` pairs of different classes the confidence of the data's own classifier, its highest p(y | x): over the middle third of
    either path, and of the images themselves.
    """
    import torch

    import thalweg as tw
    from thalweg import tasks

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
    found["interpolation"] = {
        "pairs": len(pairs), "confidence_x_T": float(in_noise_p.mean()), "confidence_x_0": float(in_pixels_p.mean()),
        "confidence_of_images": float(extractor.logits(ends).softmax(1).amax(1).mean()), **paired((in_noise_p - in_pixels_p).tolist()),
    }  # fmt: skip
    return found


def c_at(model: Any, t: int) -> tuple[float, float]:
    return model.schedule.signal[t], model.schedule.noise[t]


def last_fall(rising: list[bool]) -> int:
    """The index after the last step that does not rise."""
    return max((i + 1 for i, up in enumerate(rising) if not up), default=0)


# --- running


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "ablation": ablation, "classifiers": classifiers, "trade": trade, "cost": cost, "figures": figures,
}  # fmt: skip
ONES = {"ablation": ablation_one, "classifiers": classifiers_one, "trade": trade_one}


STUDY = Study("egc", __doc__, PARTS, ONES, run=Path("runs/egc-digits"), of_run=("figures",))


def run_all(part: str, rows: list[str], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every row that was asked for and every seed."""
    return STUDY.rows(part, [(row, seed) for seed in range(options.seeds) for row in STUDY.chosen(rows, options)], options)


def main() -> None:
    parser = STUDY.parser()
    parser.add_argument("--augment", type=float, default=0.0, help="augmentation of EGC and the plain classifier alike")
    parser.add_argument("--gamma", type=float, help="weight of EGC's cross-entropy, the preset's by default")
    parser.add_argument("--samples", type=int, default=2000, help="at most in a set, where there are more held-out images")
    parser.add_argument("--draws", type=int, default=4, help="sets of samples")
    parser.add_argument("--steps", type=int, help="of EGC's sampler, the preset's by default")
    parser.add_argument("--examples", type=int, default=200, help="test images that are attacked")
    parser.add_argument("--restarts", type=int, default=2, help="of PGD")
    STUDY.main(parser)


if __name__ == "__main__":
    main()
