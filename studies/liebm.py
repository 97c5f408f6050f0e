"""LIEBM: the effect of a frozen encoder's latents on an energy and its generator, and the settings that the paper leaves open.

`encoders`: the self-supervised encoders h (SimCLR, BYOL, W-MSE), with a linear probe, nearest neighbours and a picture by t-SNE.
`ablation`: LIEBM, the same energy and generator without latents, with an encoder that was never trained, without augmented
negatives, with the other learners, encoders, posteriors and γ (Figures 6 to 8, Tables 9 and 10), each for `--seconds` of CPU time
(encoders come on top): Fréchet distances of samples and of the generator alone, after fewer and more steps; outliers by the energy and
by the joint score (eq. 15); samples by label; reconstruction. `sweep`: the settings that the paper does not give, one at a time.
`claim`: the paper's main claim, latents against none at equal updates (`--images`), each with moves bounded as in the preset and not,
with spectral norm, with larger steps, and without a weight on the energies, and an encoder that learns along as in CLEL: distances
over time, outliers, the features f_φ(x) and h by linear probes and nearest neighbours, f_φ by t-SNE (Figures 1, 6 and 7), and γ‖∇cos‖
over ‖∇F‖. `restoration`: images from means of their pixels or channels or with a part hidden, m⁰, m and Y in turn (Table 8), of the
model that `ablation` kept.

    python -m studies.liebm encoders ablation --seconds 120 --jobs 2
    python -m studies.liebm sweep --seconds 120 --seeds 1
    python -m studies.liebm restoration
    python -m studies.liebm claim --data fashion-mnist --size 32 --precision bf16 --images 100000 --encoder runs/encoder
"""

import argparse
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import thalweg as tw
from studies.measures import ENDLESS, Judge, auroc_of, mean, means, over_seeds, paired, sets_of, trained
from studies.runner import Options, Part, Row, Study, file_of, precise
from studies.tables import Picture, Section, Shown, Table, When
from thalweg import tasks
from thalweg.checkpoint import latest
from thalweg.nn.build import MLP, ConvNet

FULL, PRESET = "latents", "as the preset"
ERM = dict(generator_training="erm")
# row: (encoder's loss, "random" for one without training, None for none; fields)
ROWS: dict[str, tuple[str | None, dict[str, Any]]] = {
    FULL: ("simclr", {}),
    "no latents": (None, {}),
    "no pretraining": ("random", {}),
    "no augmentation": ("simclr", {"augmented_starts": 0.0}),
    "EJM": ("simclr", {"generator_training": "ejm"}),
    "ERM": ("simclr", ERM),
    "ERM, no latents": (None, ERM),
    "BYOL": ("byol", {}),
    "W-MSE": ("w-mse", {}),
    "gaussian posterior": ("simclr", {"latent_posterior": "gaussian"}),
    "exponential posterior": ("simclr", {"latent_posterior": "exponential"}),
    **{f"γ = {nats:g}": ("simclr", {"concentration": nats}) for nats in (0.001, 0.01, 0.1, 1.0)},  # in nats, see `settings`
}
NONE = "no latents"
# the paper's main claim where it could show: names of variants and the fields that they change; "step ×" is of the preset's step
BOUNDED = {"net.spectral_norm": True, "chain.step": 10.0}  # slopes are bounded, so that the paper's step is needed to move at all
VARIANTS: dict[str, dict[str, Any]] = {
    "": {}, "moves unbounded": {"chain.clip": 0.0}, "spectral norm": BOUNDED,
    "spectral norm, moves unbounded": BOUNDED | {"chain.clip": 0.0}, "step × 3": {"step ×": 3.0}, "step × 10": {"step ×": 10.0},
    "energies free": {"regularise": 0.0},
}  # fmt: skip
COTRAINED = "co-trained encoder"
CLAIM: dict[str, tuple[str | None, dict[str, Any]]] = {
    f"{base}, {name}".removesuffix(", "): (loss, fields)
    for name, fields in VARIANTS.items()
    for base, loss in ((FULL, "simclr"), (NONE, None))
} | {COTRAINED: (None, {"cotraining": "contrastive"})}
# name of version 0.1, under which rows were recorded: (field, values)
SWEEP: dict[str, tuple[str, tuple[Any, ...]]] = {
    "step": ("step", (0.5, 2.0, 5.0, 10.0, 20.0)), "noise": ("noise", (0.0, 1e-3, 1e-2)), "augment": ("augmented_starts", (0.0, 0.3)),
    "generator_std": ("generator_std", (0.1, 1.0)), "regularise": ("regularise", (0.01, 0.1)), "data_noise": ("data_noise", (0.0, 0.1)),
    "clip_move": ("chain.clip", (0.0, 0.03)), "view": ("augmentation", ("noise",)),
}  # fmt: skip
SETTINGS = {f"{name} = {value}": ("simclr", {field: value}) for name, (field, values) in SWEEP.items() for value in values}
LOSSES = ("simclr", "byol", "w-mse")
STEPS = (0, 5, 10, 15, 30)
GAMMAS = (None, 0.1, 1.0)  # γ of samples by label, for the step of `concentration_step` as in training
STOPS = 4  # at which distances are measured
SAMPLES = 500
OUTLIERS = ("constant", "uniform", "interpolation")
OTHERS = {"digits": "fashion-mnist", "fashion-mnist": "mnist-small", "emoji-google": "emoji-twitter"}
OF_LABEL = 40
RESTORED = 100
RESTORED_BY = ("pseudo_inverse", "start", "refined", "restored")
DRAWN = 2000  # points of t-SNE
PROBED = 10_000  # images of each split that probes see

# --- encoders


def encoder_of(loss: str, seed: int, options: Options) -> Path:
    """The folder of an encoder: that of `--encoder`, or one that is trained on `--encoder-images` where there is none yet."""
    if options.encoder is not None and loss == "simclr":
        return options.encoder
    folder = options.work / "encoders" / "-".join(map(str, (options.data, options.size, loss, options.encoder_images, seed)))
    if folder.exists():
        return folder
    train, _ = sets_of(options)
    part = folder.with_name(f"{folder.name}.part-{os.getpid()}")
    settings = dict(seed=seed, progress=False, sample_every=10**9, save_every=10**9, log_every=25_600, precision=options.precision)
    images = 1 if loss == "random" else options.encoder_images
    model = tw.method(f"ssl/{options.data}", seed=seed, data=train, images=images, loss="simclr" if loss == "random" else loss)
    tw.fit(model, train, part, images=images, **settings)
    part.rename(folder)
    return folder


def encoders_one(row: str, seed: int, options: Options) -> Row:
    folder = encoder_of(row, seed, options)
    model, (train, test) = tw.load(folder), sets_of(options)
    classes = test.classes
    train, test, some = train.all(), test.all(), slice(0, PROBED)
    with torch.no_grad():
        z, held_out = (torch.cat([model.encode(x) for x in part.x[some].split(512)]) for part in (train, test))
        latents = torch.cat([model.project(x) for x in test.x[some].split(512)])
    labels = (train.label[some], held_out, test.label[some])
    if seed == 0:
        draw_tsne(held_out, labels[2], classes, options, "tsne", row)
    return {
        "images": latest(folder)["images"],
        "linear_probe": tw.evaluate.linear_probe(z, *labels).accuracy.value,
        "knn": tw.evaluate.knn(z, *labels).accuracy.value,
        # 1/√d where latents lie evenly on the sphere, 0 where they have collapsed
        "spread": float(latents.std(0).mean()) * math.sqrt(latents.shape[1]),
    }


def draw_tsne(vectors: torch.Tensor, labels: torch.Tensor, classes: Any, options: Options, *words: str) -> None:
    path = options.pictures / file_of("liebm", options.data, *words)
    tw.plot.embedding(tw.evaluate.tsne(vectors[:DRAWN], seed=0), path, labels=labels[:DRAWN], classes=classes)


def with_encoder_images(options: Options, rows: list[Row]) -> dict[str, Any]:
    return {"encoder_images": options.encoder_images}


# --- training with and without parts


def settings(row: str, options: Options) -> tuple[str, dict[str, Any]]:
    _, fields = {**ROWS, **SETTINGS, PRESET: ("simclr", {})}[row]
    if row.startswith("γ = "):
        fields = fields | {"concentration_step": tw.methods.preset(f"liebm/{options.data}")[1].chain.step}
    erm = fields.get("generator_training") == "erm"
    inference = {"inference": MLP(width=512) if options.data == "digits" else ConvNet(blocks=1)} if erm else {}
    return f"liebm/{options.data}", {"images": ENDLESS, **inference, **fields}


def claim_settings(row: str, options: Options) -> tuple[str, dict[str, Any]]:
    """Convolutions for digits too, so that they may be bounded."""
    name = f"liebm/{options.data}"
    fields = dict(CLAIM[row][1])
    larger = fields.pop("step ×", None)
    if row == COTRAINED:
        fields["encoder"] = tw.methods.preset(f"ssl/{options.data}")[1].encoder
    step = {} if larger is None else {"chain.step": larger * tw.methods.preset(name)[1].chain.step}
    net = {}
    if options.data == "digits":
        net = {"net": ConvNet(widths=(16, 32, 64), blocks=1, spectral_norm=fields.pop("net.spectral_norm", False))}
    return name, net | fields | step | {"images": options.images}


def model_folder(row: str, seed: int, options: Options) -> Path:
    return options.work / "models" / f"{options.data}-{options.size}-{row.replace(' ', '-')}-{seed}"


def model_of(
    row: str, seed: int, options: Options, loss: str | None, folder: Path, settings: Callable[..., Any] = settings
) -> tuple[Any, Row, Judge]:
    """The EMA twin of a row's model after its training, which is kept, how that went, and the judge of its samples.

    A model's images end its training where `settings` gives some, whatever time that takes.
    """
    train, test = sets_of(options)
    judge = Judge.of(options.data, train, test, most=SAMPLES)
    encoder = {"pretrained": str(encoder_of(loss, seed, options))} if loss else {}
    preset, fields = settings(row, options)
    shutil.rmtree(folder, ignore_errors=True)

    def look(twin: Any, last: bool) -> Row:
        return {"frechet": judge.distance(twin, seed, options.precision)}

    keep = ("energy_data", "energy_samples", "displacement", "agreement", "latent_share")
    seconds = None if fields["images"] >= ENDLESS else float(ENDLESS)
    ways = dict(folder=folder, stops=STOPS, look=look, keep=keep, seconds=seconds)
    twin, found = trained((preset, encoder | fields), train, seed, options, **ways)
    found |= {"floor": judge.floor, "frechet": found["along"][-1]["frechet"] if twin is not None else None}
    return twin, found, judge


def outliers_of(model: Any, judge: Judge, options: Options) -> Row:
    """AUROC of each kind of outliers by the energy and, where there are latents, by the joint score."""
    x, other = judge.held_out, OTHERS[options.data]
    others = {other: tw.data.load(other, "test", size=x.shape[-1]).all().x[: len(x)]}
    found = auroc_of(model, x, others, kinds=OUTLIERS, scores=("energy",) if model.encoder is None else ("energy", "joint"))
    return {"outliers": found} | {f"auroc_{score}": mean(by_kind.values()) for score, by_kind in found.items()}


def by_label(model: Any, judge: Judge, seed: int) -> Row:
    """Share of samples that another classifier gives the label they were asked for, for several γ; with q and by nearest latents."""
    labels = torch.arange(model.config.classes).repeat_interleave(OF_LABEL)

    def share(**asked: Any) -> float:
        x = model.sample(len(labels), label=labels, seed=seed + 2, **asked).float()
        return tw.evaluate.class_accuracy(x, labels, judge.extractor).value

    gammas = GAMMAS if model.config.latent_posterior == "cosine" else (None,)
    found: dict[str, Any] = {"nearest": {str(gamma): share(concentration=gamma, candidates=16) for gamma in gammas}}
    if model.inference is not None:
        found["q"] = {str(gamma): share(concentration=gamma) for gamma in gammas}
    return {"by_label": found, "label_accuracy": max(value for way in found.values() for value in way.values())}


def ablation_one(row: str, seed: int, options: Options) -> Row:
    twin, found, judge = model_of(row, seed, options, ROWS[row][0], model_folder(row, seed, options))
    if twin is None:
        return found
    ways = {str(steps): {"steps": steps} if steps else {"use": "initializer"} for steps in STEPS}
    found["by_steps"] = {steps: judge.distance(twin, seed, options.precision, **way) for steps, way in ways.items()}
    found |= {"generator": found["by_steps"]["0"]} | outliers_of(twin, judge, options)
    if twin.encoder is not None:
        with precise(options.precision):
            found |= by_label(twin, judge, seed)
    if twin.inference is not None:
        found["reconstruction"] = float((twin.reconstruct(judge.held_out).x - judge.held_out).square().mean())
    if seed == 0:
        with precise(options.precision):
            tw.plot.grid(twin.sample(64, seed=1).float(), options.pictures / file_of("liebm", options.data, row), columns=16)
    return found


def sweep_one(row: str, seed: int, options: Options) -> Row:
    twin, found, judge = model_of(row, seed, options, "simclr", model_folder(f"sweep-{row}", seed, options))
    if twin is None:
        return found
    return found | outliers_of(twin, judge, options) | {"generator": judge.distance(twin, seed, options.precision, use="initializer")}


def line(name: str, mine: list[Row], rows: list[Row]) -> Row:
    """Means over seeds, and the distance above that of the first row at the same seed."""
    keys = ("frechet", "generator", "auroc_energy", "auroc_joint", "label_accuracy", "reconstruction")
    gap, error = paired(rows, name, PRESET if PRESET in {row["row"] for row in rows} else FULL, "frechet")
    return means(mine, keys) | {"above_full": gap, "standard_error": error}


def with_floor(options: Options, rows: list[Row]) -> dict[str, Any]:
    return with_encoder_images(options, rows) | {"floor": mean(row.get("floor") for row in rows)}


def claim_one(row: str, seed: int, options: Options) -> Row:
    loss = CLAIM[row][0]
    twin, found, judge = model_of(row, seed, options, loss, model_folder(f"claim-{row}", seed, options), claim_settings)
    along = [stop["frechet"] for stop in found["along"]]
    found["best"] = min((value for value in along if value is not None), default=None)
    if twin is None:
        return found
    found |= {"generator": judge.distance(twin, seed, options.precision, use="initializer")} | outliers_of(twin, judge, options)
    train, test = sets_of(options)
    classes, parts = test.classes, [split.all() for split in (train, test)]
    encoders = {"": twin.encode} | ({} if twin.encoder is None else {"encoder_": twin.encoder.features})
    for name, encode in encoders.items():  # f, and h of the latents (Figure 7)
        with torch.no_grad():
            seen, held_out = (torch.cat([encode(x) for x in part.x[:PROBED].split(512)]) for part in parts)
        asked = (seen, parts[0].label[:PROBED], held_out, parts[1].label[:PROBED])
        found[f"{name}linear_probe"] = tw.evaluate.linear_probe(*asked).accuracy.value
        found[f"{name}knn"] = tw.evaluate.knn(*asked).accuracy.value
        if seed == 0 and not name and row in (FULL, NONE):
            draw_tsne(held_out, parts[1].label[:PROBED], classes, options, "features", row)
    return found


def claim_line(name: str, mine: list[Row], rows: list[Row]) -> Row:
    """Means over seeds; what the distance is more than with a pretrained encoder's latents, at the same seed and else the same settings."""
    keys = (
        "frechet", "best", "generator", "auroc_energy", "auroc_joint", "linear_probe", "knn", "encoder_linear_probe", "encoder_knn",
        "latent_share", "displacement", "guard_events",
    )  # fmt: skip
    gap, error = paired(rows, name, FULL if name == COTRAINED else name.replace(NONE, FULL, 1), "frechet")
    return means(mine, keys) | {"above_latents": gap, "standard_error": error}


# --- restoration


def measured(options: Options) -> list[str]:
    coloured = tw.methods.preset(f"liebm/{options.data}")[1].shape[0] == 3
    return ["pool:2", "pool:4", "mask:centre:0.25", *(["grey"] if coloured else [])]


def restoration_one(row: str, seed: int, options: Options) -> Row:
    model = tw.load(model_folder("ERM", seed, options)).eval()
    clean = sets_of(options)[1].all().x[:RESTORED]
    operator = tasks.operators.named(row, tuple(clean.shape[1:]), seed=seed)
    found = tasks.restore_latent(model, operator.forward(clean), operator, seed=seed)
    blurred = operator.pseudo_inverse(operator.forward(clean)).clamp(-1, 1)
    images = (blurred, found.start, found.refined, found.x)
    if seed == 0:
        rows = torch.cat([x[:16] for x in (clean, *images)])
        labels = ["image", "A⁺y", "G(m⁰)", "G(m)", "G(m) + Y"]
        tw.plot.grid(rows, options.pictures / file_of("liebm", options.data, row), columns=16, row_labels=labels)
    psnr = {f"psnr_{name}": float(tw.evaluate.psnr(clean, x).mean()) for name, x in zip(RESTORED_BY, images)}
    return {"n": len(clean)} | psnr


def add(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(seconds=120.0)
    parser.add_argument("--encoder", type=Path, help="a run of ssl, to be the encoder by SimCLR of every row and seed")
    parser.add_argument("--encoder-images", type=int, default=60_000, help="images that an encoder is trained on")


STUDY = Study(
    "liebm",
    __doc__,
    {
        "encoders": Part(
            (*LOSSES, "random"), encoders_one, over_seeds("images", "linear_probe", "knn", "spread"), more=with_encoder_images
        ),
        "ablation": Part(ROWS, ablation_one, line, settings, with_floor),
        "sweep": Part((PRESET, *SETTINGS), sweep_one, line, settings, with_floor),
        "claim": Part(CLAIM, claim_one, claim_line, claim_settings, with_floor),
        "restoration": Part(measured, restoration_one, over_seeds(*(f"psnr_{name}" for name in RESTORED_BY))),
    },
    add=add,
)

# --- the page

ENCODERS = [
    "Self-supervised encoders, {data}{at_size}, {encoder_images:,} images each, test accuracy:",
    Table(
        "encoder = row | seeds | linear probe = linear_probe:.1f % | nearest neighbours = knn:.1f % | "
        "spread of latents, 1 if uniform = spread:.2f"
    ),
    Picture("Latents of held-out images by t-SNE, {last}", "liebm_{data}_tsne_*.png"),
]
PARTS = Table(
    "model = row | seeds | diverged | Fréchet distance = frechet:.1f | minus that of “{base}” = above_full ± standard_error:+.1f | "
    "of the generator alone = generator:.1f | AUROC, energy = auroc_energy:.3f | AUROC, joint score = auroc_joint:.3f | "
    "samples with the requested label = label_accuracy:.1f % | reconstruction, squared error = reconstruction:.3f"
)
BY_STEPS = [
    "Fréchet distance by Langevin steps after the generator, mean over seeds:",
    Table(lambda r: ["model = row", *(f"{steps}:.1f" for steps in r["known"][0]["by_steps"])], "steps_of"),
]
RESTORATION = [
    "Restoration without pairs, {data}, ERM, {runs[0][n]} test images, PSNR:",
    Table(
        "measured = row | seeds | A⁺y, dB = psnr_pseudo_inverse:.1f | G(m⁰) = psnr_start:.1f | G(m) = psnr_refined:.1f | "
        "G(m) + Y = psnr_restored:.1f"
    ),
    *(Picture(f"Restoration, {name}", f"liebm_{{data}}_{name}.png") for name in ("pool2", "grey")),
]


def of_ablation(r: dict[str, Any]) -> dict[str, Any]:
    base, known = r["summary"][0]["row"], [x for x in r["runs"] if "by_steps" in x]
    names = dict.fromkeys(x["row"] for x in known)
    steps_of = [{"row": name} | means((x["by_steps"] for x in known if x["row"] == name), known[0]["by_steps"]) for name in names]
    return {"base": base, "known": known, "steps_of": steps_of, "first": file_of("liebm", r["data"], base)}


def ablation(part: str, what: str) -> Shown:
    head = what + ", {data}{at_size}, {seconds:.0f} CPU seconds per model; the floor of the distance is {floor:.1f}:"
    return Shown(f"liebm_{part}", [head, PARTS, When("known", BY_STEPS), When("known", [Picture("Samples", "{first}")])], of_ablation)


ABLATIONS = ablation("ablation", "Components of LIEBM"), ablation("sweep", "One setting changed at a time")
CLAIMED = [
    "Latents against none, {data}{at_size}, {images:,} images a model at equal settings; the floor of the distance is {floor:.1f}:",
    Table(
        "model = row | seeds | diverged | Fréchet distance = frechet:.1f | best on the way = best:.1f | "
        "minus that with latents = above_latents ± standard_error:+.1f | of the generator alone = generator:.1f | "
        "AUROC, energy = auroc_energy:.3f | joint = auroc_joint:.3f | linear probe of f = linear_probe:.1f % | "
        "nearest neighbours = knn:.1f % | linear probe of h = encoder_linear_probe:.1f % | γ‖∇cos‖ over ‖∇F‖ = latent_share:.3f"
    ),
    Picture("Features f(x) of held-out images by t-SNE, {last}", "liebm_{data}_features_*.png"),
]
SHOWN = (Shown("liebm_encoders", ENCODERS), *ABLATIONS, Shown("liebm_claim", CLAIMED), Shown("liebm_restoration", RESTORATION))
PAGE = [Section("LIEBM", [SHOWN])]

if __name__ == "__main__":
    STUDY.main()
