"""LIEBM: what latents of a frozen encoder do for an energy and its generator, and the settings that its paper leaves out.

`encoders`: the self-supervised encoders h (SimCLR, BYOL, W-MSE), with a linear probe, nearest neighbours and a picture by t-SNE.
`ablation`: LIEBM beside the same energy and generator without latents, with an encoder that was never trained, without augmented
negatives, with the other learners, encoders, posteriors and γ (Figures 6 to 8, Tables 9 and 10), each for `--seconds` of CPU time
(encoders come on top): Fréchet distances of samples and of the generator alone, after fewer and more steps; outliers by the energy and
by the joint score (eq. 15); samples by label; reconstruction. `sweep`: the settings that the paper does not give, one at a time.
`restoration`: images from means of their pixels or channels or with a part hidden, m⁰, m and Y in turn (Table 8), of the model that
`ablation` kept.

    python -m studies.liebm encoders ablation --seconds 120 --jobs 2
    python -m studies.liebm sweep --seconds 120 --seeds 1
    python -m studies.liebm restoration
"""

import argparse
import math
import os
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from studies.runner import Study, file_of, precise  # after the setting, which torch reads when it is imported

FULL = "latents"
ERM = dict(learner="erm")
# row: (encoder's loss, "random" for one without training, None for none; fields)
ROWS: dict[str, tuple[str | None, dict[str, Any]]] = {
    FULL: ("simclr", {}),
    "no latents": (None, {}),
    "no pretraining": ("random", {}),
    "no augmentation": ("simclr", {"augment": 0.0}),
    "EJM": ("simclr", {"learner": "ejm"}),
    "ERM": ("simclr", ERM),
    "ERM, no latents": (None, ERM),
    "BYOL": ("byol", {}),
    "W-MSE": ("w-mse", {}),
    "gaussian posterior": ("simclr", {"posterior": "gaussian"}),
    "exponential posterior": ("simclr", {"posterior": "exponential"}),
    "γ = 0.001": ("simclr", {"gamma": 0.001}),
    "γ = 0.1": ("simclr", {"gamma": 0.1}),
    "γ = 1": ("simclr", {"gamma": 1.0}),
}
SWEEP: dict[str, tuple[Any, ...]] = {
    "step": (0.5, 2.0, 5.0, 10.0, 20.0),
    "noise": (0.0, 1e-3, 1e-2),
    "augment": (0.0, 0.3),
    "generator_std": (0.1, 1.0),
    "regularise": (0.01, 0.1),
    "data_noise": (0.0, 0.1),
    "clip_move": (0.0, 0.03),
    "view": ("noise",),
}
SETTINGS = {"as the preset": {}} | {f"{field} = {value}": {field: value} for field, values in SWEEP.items() for value in values}
LOSSES = ("simclr", "byol", "w-mse")
STEPS = (0, 5, 10, 15, 30)
GAMMAS = (None, 0.1, 1.0)  # γ of samples by label
PARTS_OF_TIME = 4  # at which distances are measured
SAMPLES = 500
OUTLIERS = ("constant", "uniform", "interpolation")
OTHERS = {"digits": "fashion-mnist", "fashion-mnist": "mnist-small", "emoji-google": "emoji-twitter"}
OF_LABEL = 40
RESTORED = 100
DRAWN = 2000  # points of t-SNE
ENDLESS = 10**8  # images


def images_of(options: argparse.Namespace) -> tuple[Any, Any]:
    import thalweg as tw

    return tuple(tw.data.load(options.data, split, size=options.size) for split in ("train", "test"))


# --- encoders


def encoder_of(loss: str, seed: int, options: argparse.Namespace) -> Path:
    """The folder of an encoder, trained on `--encoder-images` where there is none yet."""
    import thalweg as tw

    folder = options.work / "encoders" / "-".join(map(str, (options.data, options.size, loss, options.encoder_images, seed)))
    if folder.exists():
        return folder
    train, _ = images_of(options)
    part = folder.with_name(f"{folder.name}.part-{os.getpid()}")
    settings = dict(seed=seed, progress=False, sample_every=10**9, save_every=10**9, log_every=25_600, precision=options.precision)
    images = 1 if loss == "random" else options.encoder_images
    model = tw.method(f"ssl/{options.data}", seed=seed, data=train, images=images, loss="simclr" if loss == "random" else loss)
    tw.fit(model, train, part, images=images, **settings)
    part.rename(folder)
    return folder


def encoders_one(row: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    import torch

    import thalweg as tw
    from thalweg.checkpoint import latest

    folder = encoder_of(row, seed, options)
    model = tw.load(folder)
    train, test = (part.all() for part in images_of(options))
    some = slice(0, 10_000)
    with torch.no_grad():
        z, held_out = (torch.cat([model.encode(x) for x in part.x[some].split(512)]) for part in (train, test))
        latents = torch.cat([model.project(x) for x in test.x[some].split(512)])
    labels = (train.label[some], held_out, test.label[some])
    if seed == 0:
        path = options.pictures / file_of("liebm", options.data, "tsne", row)
        classes = images_of(options)[1].classes
        tw.plot.embedding(tw.evaluate.tsne(held_out[:DRAWN], seed=seed), path, labels=labels[2][:DRAWN], classes=classes)
    return {
        "row": row, "seed": seed, "images": latest(folder)["images"], "linear_probe": tw.evaluate.linear_probe(z, *labels).accuracy.value,
        "knn": tw.evaluate.knn(z, *labels).accuracy.value,
        # 1/√d where latents lie evenly on the sphere, 0 where they have collapsed
        "spread": float(latents.std(0).mean()) * math.sqrt(latents.shape[1]),
    }  # fmt: skip


def encoders(options: argparse.Namespace) -> dict[str, Any]:
    names = STUDY.chosen((*LOSSES, "random"), options)
    rows = STUDY.rows("encoders", [(name, seed) for seed in range(options.seeds) for name in names], options)
    lines = []
    for name in names:
        mine = [r for r in rows if r["row"] == name]
        figures = ("images", "linear_probe", "knn", "spread")
        lines.append({"row": name, "seeds": len(mine)} | {key: statistics.fmean(r[key] for r in mine) for key in figures})
    return {"encoder_images": options.encoder_images, "summary": lines, "runs": rows}


# --- training with and without parts


def model_folder(row: str, seed: int, options: argparse.Namespace) -> Path:
    return options.work / "models" / f"{options.data}-{options.size}-{row.replace(' ', '-')}-{seed}"


def trained(loss: str | None, fields: dict[str, Any], row: str, seed: int, options: argparse.Namespace, distance: Any) -> Any:
    """The EMA twin of a model trained for `options.seconds` CPU seconds (None if it diverged), and how that went."""
    import thalweg as tw
    from thalweg.checkpoint import latest, read_stats
    from thalweg.errors import Diverged

    train, _ = images_of(options)
    encoder = {"encoder": str(encoder_of(loss, seed, options))} if loss else {}
    # rates fall with the images of the config; here time ends the run, and a rate that fell by images would favour slow rows
    model = tw.method(f"liebm/{options.data}", seed=seed, data=train, images=ENDLESS, **encoder, **fields)
    folder = model_folder(row, seed, options)
    shutil.rmtree(folder, ignore_errors=True)
    found: dict[str, Any] = {"row": row, "seed": seed, "diverged": None, "frechet": None, "along": []}
    twin = None
    for part in range(1, PARTS_OF_TIME + 1):
        seconds = options.seconds * part / PARTS_OF_TIME
        try:
            twin = tw.fit(
                model, train, folder, seed=seed, images=ENDLESS, seconds=seconds, clock=time.process_time,
                precision=options.precision, progress=False, log_every=2560, sample_every=10**9, save_every=10_240,
            ).eval()  # fmt: skip
        except Diverged as trouble:
            return None, found | {"diverged": str(trouble)}
        images = latest(folder)["images"]
        found["along"].append({"cpu_seconds": seconds, "images": images, "frechet": distance(twin, seed)})
    stats = [r for r in read_stats(folder) if "energy_data" in r] or [{}]
    found["frechet"] = found["along"][-1]["frechet"]
    found["guard_events"] = sum("event" in r for r in read_stats(folder))
    found |= {key: stats[-1].get(key) for key in ("energy_data", "energy_samples", "displacement", "agreement")}
    return twin, found


def distance_of(options: argparse.Namespace) -> tuple[Any, Any, float]:
    """Fréchet distance of a model's samples to training images, the data's extractor, and the distance of held-out images."""
    import thalweg as tw

    train, test = images_of(options)
    extractor = tw.evaluate.extractor((tuple(train.all()), tuple(test.all())), name=options.data)
    x, held_out = train.all().x, test.all().x[:SAMPLES]

    def report(drawn: Any) -> Any:
        return tw.evaluate.fidelity(x, drawn, extractor, held_out=held_out, metrics=("frechet",)).frechet

    def distance(model: Any, seed: int, **way: Any) -> float:
        with precise(options):
            drawn = model.sample(len(held_out), seed=seed + 1, **way).float()
        return report(drawn).value

    return distance, extractor, report(held_out).held_out


def outliers_of(model: Any, options: argparse.Namespace) -> dict[str, Any]:
    """AUROC of each kind of outliers by the energy and, where there are latents, by the joint score."""
    import thalweg as tw

    _, test = images_of(options)
    inliers = test.all().x[:SAMPLES]
    kinds = {kind: tw.evaluate.outliers(kind, inliers, len(inliers)) for kind in OUTLIERS}
    other = OTHERS[options.data]
    kinds[other] = tw.data.load(other, "test", size=inliers.shape[-1]).all().x[: len(inliers)]
    scores = ("energy",) if model.encoder is None else ("energy", "joint")
    reports, _ = tw.evaluate.ood_table(model, inliers, kinds, scores=scores, bootstrap=20)
    found = {score: {kind: report.auroc for kind, report in by_kind.items()} for score, by_kind in reports.items()}
    means = {f"auroc_{score}": statistics.fmean(by_kind.values()) for score, by_kind in found.items()}
    return {"outliers": found} | means | {"auroc_best": means.get("auroc_joint", means["auroc_energy"])}


def by_label(model: Any, extractor: Any, seed: int) -> dict[str, Any]:
    """Share of samples that another classifier gives the label they were asked for, for several γ; with q and by nearest latents."""
    import torch

    import thalweg as tw

    labels = torch.arange(model.config.classes).repeat_interleave(OF_LABEL)

    def share(**options: Any) -> float:
        drawn = model.sample(len(labels), label=labels, seed=seed + 2, **options).float()
        return tw.evaluate.class_accuracy(drawn, labels, extractor).value

    gammas = GAMMAS if model.config.posterior == "cosine" else (None,)
    found: dict[str, Any] = {"nearest": {str(gamma): share(gamma=gamma, candidates=16) for gamma in gammas}}
    if model.inference is not None:
        found["q"] = {str(gamma): share(gamma=gamma) for gamma in gammas}
    return {"by_label": found, "label_accuracy": max(value for way in found.values() for value in way.values())}


def looked_at(twin: Any, found: dict[str, Any], distance: Any, extractor: Any, floor: float, seed: int, options: argparse.Namespace) -> Any:
    import thalweg as tw

    by_steps = {}
    for steps in STEPS:
        way = dict(use="initializer") if not steps else dict(steps=steps)
        by_steps[str(steps)] = distance(twin, seed, **way)
    found |= {"by_steps": by_steps, "generator": by_steps["0"], "floor": floor}
    found |= outliers_of(twin, options)
    _, test = images_of(options)
    if twin.encoder is not None:
        with precise(options):
            found |= by_label(twin, extractor, seed)
    if twin.inference is not None:
        x = test.all().x[:SAMPLES]
        found["reconstruction"] = float((twin.reconstruct(x).x - x).square().mean())
    if seed == 0:
        name = f"liebm_{options.data}_{''.join(a for a in found['row'] if a.isalnum())}.png"
        with precise(options):
            tw.plot.grid(twin.sample(64, seed=1).float(), options.pictures / name, columns=16)
    return found


def ablation_one(row: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    loss, fields = ROWS[row]
    distance, extractor, floor = distance_of(options)
    twin, found = trained(loss, fields, row, seed, options, distance)
    return found if twin is None else looked_at(twin, found, distance, extractor, floor, seed, options)


def ablation(options: argparse.Namespace) -> dict[str, Any]:
    names = STUDY.chosen(ROWS, options)
    rows = STUDY.rows("ablation", [(name, seed) for seed in range(options.seeds) for name in names], options)
    return summary(names, FULL, rows) | {"encoder_images": options.encoder_images}


def summary(names: list[str], base: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds, and each row's distance above that of `base` at the same seed."""
    full = {r["seed"]: r["frechet"] for r in rows if r["row"] == base}
    lines = []
    for name in names:
        mine = [r for r in rows if r["row"] == name]
        line: dict[str, Any] = {"row": name, "seeds": len(mine), "diverged": sum(r["diverged"] is not None for r in mine)}
        for key in ("frechet", "generator", "auroc_energy", "auroc_joint", "label_accuracy", "reconstruction"):
            known = [r[key] for r in mine if r.get(key) is not None]
            line[key] = statistics.fmean(known) if known else None
        pairs = [r["frechet"] - full[r["seed"]] for r in mine if r["frechet"] is not None and full.get(r["seed"]) is not None]
        pairs = [] if name == base else pairs
        line["above_full"] = statistics.fmean(pairs) if pairs else None
        line["standard_error"] = statistics.stdev(pairs) / math.sqrt(len(pairs)) if len(pairs) > 1 else None
        lines.append(line)
    return {"floor": next((r["floor"] for r in rows if "floor" in r), None), "summary": lines, "runs": rows}


# --- settings that the paper leaves out


def sweep_one(row: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    distance, _, floor = distance_of(options)
    twin, found = trained("simclr", SETTINGS[row], f"sweep-{row}", seed, options, distance)
    found["row"] = row
    if twin is None:
        return found
    found |= outliers_of(twin, options) | {"generator": distance(twin, seed, use="initializer"), "floor": floor}
    return found


def sweep(options: argparse.Namespace) -> dict[str, Any]:
    names = STUDY.chosen(SETTINGS, options)
    rows = STUDY.rows("sweep", [(name, seed) for seed in range(options.seeds) for name in names], options)
    return summary(names, "as the preset", rows) | {"encoder_images": options.encoder_images}


# --- restoration


def restoration_one(row: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    import thalweg as tw
    from thalweg import tasks

    model = tw.load(model_folder("ERM", seed, options)).eval()
    _, test = images_of(options)
    clean = test.all().x[:RESTORED]
    operator = tasks.operators.named(row, tuple(clean.shape[1:]), seed=seed)
    found = tasks.restore_latent(model, operator.forward(clean), operator, seed=seed)

    def psnr(x: Any) -> float:
        return float(tw.evaluate.psnr(clean, x).mean())

    blurred = operator.pseudo_inverse(operator.forward(clean)).clamp(-1, 1)
    if seed == 0:
        rows = [x[:16] for x in (clean, blurred, found.start, found.refined, found.x)]
        labels = ["image", "A⁺y", "G(m⁰)", "G(m)", "G(m) + Y"]
        name = f"liebm_{options.data}_{''.join(a for a in row if a.isalnum())}.png"
        import torch

        tw.plot.grid(torch.cat(rows), options.pictures / name, columns=16, row_labels=labels)
    figures = dict(pseudo_inverse=blurred, start=found.start, refined=found.refined, restored=found.x)
    return {"row": row, "seed": seed, "n": len(clean)} | {f"psnr_{name}": psnr(x) for name, x in figures.items()}


def restoration(options: argparse.Namespace) -> dict[str, Any]:
    coloured = images_of(options)[1].all().x.shape[1] == 3
    names = STUDY.chosen(("pool:2", "pool:4", "mask:centre:0.25", *(["grey"] if coloured else [])), options)
    rows = STUDY.rows("restoration", [(name, seed) for seed in range(options.seeds) for name in names], options)
    lines = []
    for name in names:
        mine = [r for r in rows if r["row"] == name]
        figures = [key for key in mine[0] if key.startswith("psnr")]
        lines.append({"row": name, "seeds": len(mine)} | {key: statistics.fmean(r[key] for r in mine) for key in figures})
    return {"summary": lines, "runs": rows}


STUDY = Study(
    "liebm",
    __doc__,
    {"encoders": encoders, "ablation": ablation, "sweep": sweep, "restoration": restoration},
    {"encoders": encoders_one, "ablation": ablation_one, "sweep": sweep_one, "restoration": restoration_one},
    run=Path("runs/liebm-digits"),
)


def main() -> None:
    parser = STUDY.parser()
    parser.set_defaults(seconds=120.0)
    parser.add_argument("--encoder-images", type=int, default=60_000, help="images that an encoder is trained on")
    STUDY.main(parser)


if __name__ == "__main__":
    main()
