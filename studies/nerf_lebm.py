"""NeRF-LEBM: priors, learners and inferred poses, on 999 objects of one colour each, seen from 20 sides.

`priors`: two-shot views of held-out objects, samples, and what z^a and z^s decide, with energy-based and with Gaussian priors (NeRF-VAE,
NeRF-Gaussian), amortized and with persistent chains (Tables 3.4 and 3.5, Figures 3.4 to 3.6). `incomplete`: learned from images with a
quarter missing (Table 3.6). `unposed`: cameras inferred (Figure 3.8). `cost`: CPU time of a step by parts, and memory at 128×128.
`fields`: rays a second of the paper's field, of smaller ones and of one on three planes. `chairs`, `cars`: procedural objects, whose
images, depths, silhouettes and factors are known; `chairs_unposed`, `cars_unposed`: their cameras inferred. `composition`: objects with
factors that are asked for, of the models of `chairs` and `cars`, which it trains where they are not there yet.

    python -m studies.nerf_lebm priors --seconds 900 --precision bf16
    python -m studies.nerf_lebm incomplete unposed --seconds 900 --precision bf16 --seeds 1
    python -m studies.nerf_lebm cost fields --precision bf16
    python -m studies.nerf_lebm chairs composition --images 640000 --seconds 14400 --precision bf16
    python -m studies.nerf_lebm chairs_unposed --images 800000 --seconds 14400 --precision bf16 --seeds 1
"""

import dataclasses
import math
import multiprocessing
import resource
import statistics
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

import thalweg as tw
from studies.measures import Bare, Judge, means, paired, precisely, psnr_hidden, seconds_in_turn, trained
from studies.runner import Options, Part, Row, Study, file_of, precise
from studies.tables import Each, Picture, Section, Shown, Table, When, parsed
from thalweg.scene import rays as scene_rays
from thalweg.scene import specs

OBJECTS = 50  # of the test set, two-shot
SHOTS, VIEWS = 2, 4
SAMPLES = 1300
REAL = 2000  # training images that samples are compared with; the network has 1280 features
POSTERIOR_STEPS = 60  # of chains from the encoder's means, or from the reference
GAUSSIAN = {"prior": "gaussian"}
RESTARTS = 8  # of the chains of two-shot objects; of the others, whose latents factors are told from, one begins at the encoder's means
DATA = {"priors": "objects", "incomplete": "objects-incomplete", "unposed": "objects-aligned", "chairs": "chairs", "cars": "cars"}
DATA |= {"chairs_unposed": "chairs", "cars_unposed": "cars"}
# row: (preset, fields)
PRIORS: dict[str, tuple[str, dict[str, Any]]] = {
    "amortized": ("objects", {}),
    "amortized, Gaussian prior": ("objects", GAUSSIAN),
    "persistent chains": ("objects-persistent", {}),
    "persistent chains, Gaussian prior": ("objects-persistent", GAUSSIAN),
}
INCOMPLETE: dict[str, tuple[str, dict[str, Any]]] = {
    "amortized": ("objects", {}),
    "amortized, Gaussian prior": ("objects", GAUSSIAN),
    "persistent chains": ("objects-incomplete", {}),
    "persistent chains, Gaussian prior": ("objects-incomplete", GAUSSIAN),
}
UNPOSED: dict[str, tuple[str, dict[str, Any]]] = {
    "amortized": ("objects-unposed", {}),
    "amortized, Gaussian prior": ("objects-unposed", GAUSSIAN),
    "poses by their gradients": ("objects-unposed", {"pose_search": None}),
}


def of_category(name: str) -> dict[str, tuple[str, dict[str, Any]]]:
    return {
        "begun chains": (name, {}),
        "begun chains, Gaussian prior": (name, GAUSSIAN),
        "amortized": (f"{name}-vae", {"prior": "energy"}),
        "amortized, Gaussian prior": (f"{name}-vae", {}),
        "begun chains, four rays a pixel": (name, {"sub_pixels": 2, "rays": 64, "samples": 8, "importance": 8}),
        "begun chains, MLP": (name, {"field": {"kind": "radiance_field", "width": 128}}),
    }


def without_poses(name: str) -> dict[str, tuple[str, dict[str, Any]]]:
    preset, annealed = f"{name}-unposed", {"field": {"kind": "radiance_field", "width": 128, "annealing": 0.3}}
    return {
        "kept poses": (preset, {}),
        "poses drawn anew": (preset, {"pose_search.kept": 0}),
        "kept poses, not from silhouettes": (preset, {"pose_search.silhouettes": 0.0}),
        "kept poses, compared by 32 pixels": (preset, {"pose_search.side": 0}),
        "kept poses, of any sides": (preset, {"pose_search.even": 0.0}),
        "kept poses, annealed MLP": (preset, annealed),
        "poses by their gradients": (preset, {"pose_search": None}),
        "poses by their gradients, annealed MLP": (preset, {"pose_search": None, **annealed}),
    }


ROWS = {"priors": PRIORS, "incomplete": INCOMPLETE, "unposed": UNPOSED, "chairs": of_category("chairs"), "cars": of_category("cars")}
ROWS |= {"chairs_unposed": without_poses("chairs"), "cars_unposed": without_poses("cars")}
# what samples are compared with, else "objects": whole ones, also of a model that saw parts only
REALS = {name: DATA[name] for name in ("unposed", "chairs", "cars", "chairs_unposed", "cars_unposed")}


def settings(part: str, row: str, options: Options) -> tuple[str, dict[str, Any]]:
    preset, fields = ROWS[part][row]
    return f"nerf_lebm/{preset}", {"images": options.images, **fields}


def model_of(part: str, row: str, seed: int, options: Options) -> tuple[Any, Row]:
    """The EMA twin of a row's model, None where it diverged, and how training went. A run that was cut off goes on."""
    preset, fields = settings(part, row, options)
    data = tw.data.group_views(tw.data.load(DATA[part], "train"), tw.methods.preset(preset)[1].views)
    folder = options.work / "models" / f"{part}-{row.replace(', ', '-').replace(' ', '-')}-{options.images}-{seed}"
    return trained((preset, fields), data, seed, options, folder=folder, keep=("residual", "divergence", "latent_std"))


def picture(options: Options, seed: int, *words: str) -> Path | None:
    """Where a picture goes, of a model of seed 0."""
    return None if seed else options.pictures / file_of("nerf_lebm", *words)


def judge_of(part: str) -> Judge:
    """Through EfficientNet-Lite0."""
    data = REALS.get(part, "objects")
    real, held_out = (tw.data.load(data, split).batch(0, n, seed=0).x for split, n in (("train", REAL), ("test", SAMPLES)))
    return Judge(real, held_out, tw.evaluate.extractor_by_name("efficientnet-lite0"))


def two_shot(model: Any, seed: int, options: Options, path: Path | None) -> dict[str, float]:
    """PSNR in dB of images of held-out objects that were not given, by what an encoder finds alone and after chains from there."""
    test = tw.data.load("objects", "test")
    found: dict[str, Any] = {"two_shot_encoder": None, "given_encoder": None}
    for name, steps in {"encoder": 0, "chain": POSTERIOR_STEPS}.items():
        if name == "encoder" and model.inference is None:
            continue
        with precise(options.precision):
            made = tw.tasks.new_views(model, test, objects=OBJECTS, shots=SHOTS, views=VIEWS, seed=seed, steps=steps)
        for key, x, truth in (("two_shot", made.x, made.truth), ("given", made.rebuilt, made.given)):
            found[f"{key}_{name}"] = float(tw.evaluate.psnr(truth.flatten(0, 1), x.float().flatten(0, 1)).mean())
    if path is not None:
        rows = torch.cat([made.given, made.rebuilt, made.x, made.truth], 1)[:8]
        tw.plot.grid(rows.float().flatten(0, 1), path, columns=rows.shape[1], least=64)
    return found


def mean_view(part: str) -> float:
    """PSNR in dB of the mean training image: what there is without looking."""
    data = REALS.get(part, "objects")
    x = tw.data.load(data, "test").all().x
    mean = tw.data.load(data, "train").all().x.mean(0, keepdim=True)
    return float(tw.evaluate.psnr(x, mean.expand_as(x)).mean())


def decided_by(model: Any, seed: int, path: Path | None, data: str = "objects", *, n: int = 16) -> dict[str, float]:
    """Shares of the variance of mean colours due to z^a, and of silhouettes due to z^s, of n² recombinations of inferred latents.

    Shares of the sum over both, without their interplay; the colour is weighted by opacity, the silhouette is the opacity itself.
    """
    test = tw.data.load(data, "test").all()
    first = [int((test.item == item).nonzero()[0]) for item in range(n)]
    x, camera = test.x[first], test.camera[first]
    found = model.infer(x, camera if model.config.poses == "known" else None, steps=0 if model.inference is not None else None, seed=seed)
    view = camera[0] if model.config.poses == "known" else found.camera[0, 0]
    made = tw.tasks.recombine_latents(model, found.appearance, found.shape, camera=view)
    opacity = made.opacity.flatten(3)
    colour = (made.x.flatten(3) * opacity).sum(-1) / opacity.sum(-1).clamp(min=1e-6)  # [appearance, shape, 3]

    def share(values: Any, own: int) -> float:
        by_own, by_other = values.mean(1 - own).var(0).sum(), values.mean(own).var(0).sum()
        return float(by_own / (by_own + by_other))

    if path is not None:
        tw.plot.grid(made.x[:8, :8].flatten(0, 1), path, columns=8, least=64)
    return {"colour_by_appearance": share(colour, 0), "silhouette_by_shape": share(torch.as_tensor(opacity.flatten(2)), 1)}


def priors_one(row: str, seed: int, options: Options) -> Row:
    model, found = model_of("priors", row, seed, options)
    if model is None:
        return found
    path = partial(picture, options, seed, row)
    found |= two_shot(model, seed, options, path("views")) | decided_by(model, seed, path("recombined"))
    found["frechet"] = judge_of("priors").distance(model, seed, options.precision)
    if not seed:
        tw.plot.grid(model.sample(32, seed=1), path("samples"), columns=8, least=64)
        a, s = tw.tasks.draw_objects(model, 6, seed=1)
        tw.plot.animation(tw.tasks.turntable(model, a, s, frames=24, size=64).x.transpose(0, 1), path("turntable").with_suffix(".gif"))
    return found


def incomplete_one(row: str, seed: int, options: Options) -> dict[str, Any]:
    """As `priors`, and PSNR of hidden pixels of held-out images: by the model, and by the mean of the visible ones of each image."""
    model, found = model_of("incomplete", row, seed, options)
    if model is None:
        return found
    whole, masked = tw.data.load("objects", "test").all(), tw.data.load("objects-incomplete", "test").all()
    rows = [int((whole.item == item).nonzero()[0]) for item in range(OBJECTS)]
    x, camera, visible = whole.x[rows], masked.camera[rows], masked.visible[rows]
    with precise(options.precision):
        made = model.complete(masked.x[rows], camera, visible, steps=POSTERIOR_STEPS, seed=seed).float()
    filled = (x * visible).sum((2, 3), keepdim=True) / visible.sum((2, 3), keepdim=True)
    guesses = {"hidden": made, "hidden_by_mean": filled.expand_as(x)}
    found |= {name: float(psnr_hidden(x, guess, ~visible).mean()) for name, guess in guesses.items()}
    found |= two_shot(model, seed, options, None) | {"frechet": judge_of("incomplete").distance(model, seed, options.precision)}
    if seed == 0:
        shown = torch.where(visible, x, torch.zeros_like(x))
        tw.plot.grid(torch.stack([shown, made, x], 1)[:16].flatten(0, 1), picture(options, seed, "incomplete", row), columns=12, least=64)
    return found


def share_within(guess: torch.Tensor, truth: torch.Tensor, degrees: float = 15.0) -> float:
    """Share of azimuths [N] in radians that are within `degrees` of the truth, at the best one rotation of all, mirrored or not."""
    window, best = 2 * math.radians(degrees), 0
    for sign in (1, -1):
        turn = torch.remainder(sign * guess.double() - truth.double(), 2 * math.pi).sort().values
        ends = torch.searchsorted(torch.cat([turn, turn + 2 * math.pi]), turn + window, right=True)
        best = max(best, int((ends - torch.arange(len(turn))).max()))
    return best / len(guess)


def unposed_one(part: str, row: str, seed: int, options: Options) -> dict[str, Any]:
    """Inferred against true poses of held-out images, up to one rotation and a mirror; and the best of 100 shuffles.

    Of kept poses also the best ones of training images, whose cameras the model was not told either.
    """
    model, found = model_of(part, row, seed, options)
    if model is None:
        return found
    data = DATA[part]
    test = tw.data.load(data, "test").all()
    altitude, azimuth, _ = tw.camera.angles(test.camera)
    told = tw.tasks.pose(model, test.x)
    guess = torch.deg2rad(told.azimuth)

    def agreement(a: Any, b: Any) -> float:
        """|mean exp(i (a ∓ b))|, the better sign: 1 for equal up to rotation and mirror, about 1/√N by chance."""
        return max(float(torch.polar(torch.ones_like(a), a - sign * b).mean().abs()) for sign in (1, -1))

    others = [guess[torch.randperm(len(guess), generator=tw.random.seeded(seed, i))] for i in range(100)]
    if model.candidates is not None and model.candidates.images:
        camera = tw.data.load(data, "train").camera
        found["training_within"] = share_within(model.candidates.angles[: len(camera), 0, 1], tw.camera.angles(camera)[1])
    found |= {
        "azimuth_within": share_within(guess, azimuth),
        "within_by_chance": max(share_within(other, azimuth) for other in others[:20]),
        "azimuth": agreement(guess, azimuth),
        "azimuth_twofold": agreement(2 * guess, 2 * azimuth),  # objects alike from behind
        "azimuth_by_chance": max(agreement(other, azimuth) for other in others),
        "altitude": float(torch.corrcoef(torch.stack([told.altitude, altitude]))[0, 1]),
    }
    path = partial(picture, options, seed, part, row)
    found |= decided_by(model, seed, path("recombined"), data) | {"frechet": judge_of(part).distance(model, seed, options.precision)}
    if not seed:
        tw.plot.grid(model.sample(32, seed=1), path("samples"), columns=8, least=64)
        a, s = tw.tasks.draw_objects(model, 4, seed=1)
        tw.plot.grid(tw.tasks.turntable(model, a, s, frames=8).x.flatten(0, 1), path("turn"), columns=8, least=64)
    return found


def against_truth(model: Any, test: Any, found: Any, objects: int) -> tuple[dict[str, float], torch.Tensor]:
    """Views that were not given of the first `objects`, whose latents were `found`, against their images, depths and masks; the views.

    PSNR in dB, SSIM; the mean distance from the true depth where both see the object, in world units; and the mean over images of the
    intersection over the union of what is covered by half or more.
    """
    rows = of_each(test)[:objects, SHOTS : SHOTS + VIEWS]
    z_a, z_s = (part[:objects].repeat_interleave(VIEWS, 0) for part in found[:2])
    made = model.render(z_a, z_s, test.camera[rows].flatten(0, 1))
    x, rows = made.x.float(), rows.flatten()
    truth, depth, mask = test.all().x[rows], test.depth[rows].float(), test.mask[rows] > 127
    opacity = made.opacity[:, 0].float()
    seen, far = opacity > 0.5, model.optics.far
    # what passes through counts as far away in a model's depth
    distance = (made.depth[:, 0].float() - far * (1 - opacity)) / opacity.clamp(min=1e-3)
    both = seen & mask & depth.isfinite()
    return {
        "two_shot_chain": float(tw.evaluate.psnr(truth, x).mean()),
        "ssim": float(tw.evaluate.ssim(truth, x).mean()),
        "depth_error": float((distance - depth)[both].abs().mean()),
        "mask_iou": float(((seen & mask).sum((1, 2)) / (seen | mask).sum((1, 2)).clamp(min=1)).mean()),
    }, x.unflatten(0, (objects, VIEWS))


def of_each(test: Any) -> torch.Tensor:
    """The images of each object by number, [objects, views]."""
    return test.item.argsort(stable=True).view(test.objects, -1)


def explained(latent: torch.Tensor, factor: torch.Tensor, ridge: float = 1.0) -> float:
    """R² on the second half of objects of a linear regression from latents [N, d] to a factor [N, K] that the first half was fitted to."""
    latent = (latent - latent.mean(0)) / latent.std(0).clamp(min=1e-6)
    x, y = torch.cat([latent, torch.ones_like(latent[:, :1])], 1).double(), factor.double()
    half = len(x) // 2
    weight = torch.linalg.solve(x[:half].T @ x[:half] + ridge * torch.eye(x.shape[1], dtype=x.dtype), x[:half].T @ y[:half])
    return float(1 - (y[half:] - x[half:] @ weight).square().sum() / (y[half:] - y[half:].mean(0)).square().sum())


def factors_by(found: Any, test: Any) -> dict[str, float]:
    """Mean R² of measures and of colours, by z^s and by z^a."""
    measures = {key: of[:, None] for key, of in test.factors.items() if of.dim() == 1 and of.is_floating_point()}
    kinds = {"measures": measures, "colours": {key: of for key, of in test.factors.items() if of.dim() == 2}}
    latents = {"shape": found.shape, "appearance": found.appearance}
    return {
        f"{kind}_by_{name}": statistics.mean(explained(latent.float(), of) for of in factors.values())
        for kind, factors in kinds.items()
        for name, latent in latents.items()
    }


def category_one(part: str, row: str, seed: int, options: Options) -> Row:
    model, found = model_of(part, row, seed, options)
    if model is None:
        return found
    test, path = tw.data.load(DATA[part], "test"), partial(picture, options, seed, part, row)
    given = of_each(test)[:, :SHOTS]
    with precise(options.precision):
        few, rest = (
            model.infer(test.all().x[rows], test.camera[rows], seed=seed, restarts=restarts)
            for rows, restarts in ((given[:OBJECTS], RESTARTS), (given[OBJECTS:], 1))
        )
        inferred = type(few)(*(torch.cat(parts) for parts in zip(few, rest)))
        against, x = against_truth(model, test, inferred, OBJECTS)
    found |= against | factors_by(inferred, test) | decided_by(model, seed, path("recombined"), DATA[part])
    found["frechet"] = judge_of(part).distance(model, seed, options.precision)
    if not seed:
        rows = of_each(test)[:8]
        shown = [test.all().x[rows[:, :SHOTS]], x[:8], test.all().x[rows[:, SHOTS : SHOTS + VIEWS]]]
        tw.plot.grid(torch.cat(shown, 1).flatten(0, 1), path("views"), columns=SHOTS + 2 * VIEWS, least=64)
        tw.plot.grid(model.sample(64, seed=1), path("samples"), columns=8, least=64)
        a, s = tw.tasks.draw_objects(model, 6, seed=1)
        tw.plot.animation(tw.tasks.turntable(model, a, s, frames=24, size=64).x.transpose(0, 1), path("turntable").with_suffix(".gif"))
    return found


# --- objects with factors that are asked for

# row: a category, and the row of its models
COMPOSED = {f"{name}{rest}": (name, f"begun chains{rest}") for name in ("chairs", "cars") for rest in ("", ", Gaussian prior")}
ASKED = {"chairs": ("red", "tall", "armed"), "cars": ("red", "long", "van")}
WEIGHTS = (1.0, 3.0)  # of each factor's energy
COMPOSED_STEPS, COMPOSED_COUNT, COMPOSED_VIEWS = 100, 100, 8
READ_VIEWS = 5  # of each training object that the reader learns from


def factors_of(data: Any) -> dict[str, torch.Tensor]:
    """Which objects have each factor that is asked for, bool [objects] by name."""
    f = data.factors

    def named(factor: str, value: str) -> torch.Tensor:
        return f[factor] == data.values[factor].index(value)

    if "seat_height" in f:
        tall = f["seat_height"] + f["back_height"] > 1.25
        return {"red": named("colour", "red"), "tall": tall, "armed": ~named("arms", "none")}
    return {"red": named("colour", "red"), "long": f["length"] > 1.57, "van": named("body", "van")}


def asked_of(name: str) -> list[tuple[str, ...]]:
    """Each factor alone, the first two, and all."""
    first, second, third = ASKED[name]
    return [(first,), (second,), (third,), (first, second), (first, second, third)]


def code_of(has: dict[str, torch.Tensor]) -> torch.Tensor:
    """Which of the factors objects have, as one number each."""
    return sum(part.long() << k for k, part in enumerate(has.values()))


class Reader:
    """Reads factors from pictures of objects: a classifier of all combinations of them, which was trained on true pictures alone."""

    def __init__(self, name: str, train: Any, test: Any) -> None:
        def pictures(data: Any) -> tuple[torch.Tensor, torch.Tensor]:
            rows = of_each(data)[:, :READ_VIEWS].flatten()
            return data.x[rows].float() / 127.5 - 1, code_of(factors_of(data))[data.item[rows]]

        self.names = list(factors_of(train))
        self.net = tw.evaluate.extractor((pictures(train), pictures(test)), name=f"{name}-factors")

    def __call__(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Which of N objects have each factor, bool [N] by name, by all of their V pictures [N, V, 3, H, W]."""
        chance = self.net.logits(x.flatten(0, 1).clamp(-1, 1)).log_softmax(1).unflatten(0, x.shape[:2]).sum(1).softmax(1)
        which = torch.arange(chance.shape[1])
        return {name: (chance * ((which >> k) & 1)).sum(1) > 0.5 for k, name in enumerate(self.names)}


def composition_one(row: str, seed: int, options: Options) -> Row:
    """Shares of composed objects that have all factors asked for, as the reader sees them, and those of objects of the prior alone."""
    name, of = COMPOSED[row]
    model, found = model_of(name, of, seed, options)
    if model is None:
        return found
    train, test = (tw.data.load(name, split) for split in ("train", "test"))
    reader, has = Reader(name, train, test), factors_of(train)
    return found | composed(model, has, reader, test, name, seed, picture(options, seed, "composition", row))


def composed(model: Any, has: dict[str, torch.Tensor], reader: Any, test: Any, name: str, seed: int, path: Path | None) -> Row:
    """As `composition_one`, of a model with kept chains of objects that have the factors `has`; with how well true pictures are read."""
    energies = {key: tw.tasks.fit_factor(model.kept.z[: len(part)], part, seed=seed) for key, part in has.items()}
    rows = of_each(test)[:, :COMPOSED_VIEWS]
    view = test.camera[rows[:COMPOSED_COUNT]]  # of as many true objects, from all around

    def read(latents: tuple[torch.Tensor, torch.Tensor]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        n = len(latents[0])
        each = (part.repeat_interleave(view.shape[1], 0) for part in latents)
        x = model.render(*each, view[torch.arange(n) % len(view)].flatten(0, 1)).x.unflatten(0, (n, -1)).float()
        return reader(x), x[:8, 0]

    def share(seen: dict[str, torch.Tensor], asked: tuple[str, ...]) -> float:
        return float(torch.stack([seen[key] for key in asked]).all(0).float().mean())

    true, real = factors_of(test), reader(test.x[rows].float() / 127.5 - 1)
    plain, _ = read(tw.tasks.draw_objects(model, COMPOSED_COUNT, seed=seed))
    found, shown = [], []
    for asked in asked_of(name):
        line: Row = {"asked": " + ".join(asked), "prior": share(plain, asked)}
        for weight in WEIGHTS:
            latents = tw.tasks.compose_factors(
                model, [energies[key] for key in asked], COMPOSED_COUNT, weights=[weight] * len(asked), steps=COMPOSED_STEPS, seed=seed
            )
            seen, some = read(latents)
            line[f"weight {weight:g}"] = share(seen, asked)
        found.append(line)
        shown.append(some)
    if path is not None:
        tw.plot.grid(torch.cat(shown), path, columns=len(shown[0]), least=64)
    return {
        "asked": found,
        "classifiers": {key: energy.accuracy for key, energy in energies.items()},
        "reader": {key: float((real[key] == true[key]).float().mean()) for key in true},
    }


def composition_line(name: str, mine: list[Row], rows: list[Row]) -> Row:
    """Means over seeds for each combination that was asked for, and the least of them."""
    known = [row["asked"] for row in mine if "asked" in row]
    keys = ["prior", *(f"weight {weight:g}" for weight in WEIGHTS)]
    asked = [{"asked": lines[0]["asked"]} | {key: statistics.mean(line[key] for line in lines) for key in keys} for lines in zip(*known)]
    return {"asked": asked} | {f"least, {key}": min((line[key] for line in asked), default=None) for key in keys[1:]}


MEASURED = ("two_shot_encoder", "two_shot_chain", "given_chain", "hidden", "hidden_by_mean", "frechet", "colour_by_appearance",
            "silhouette_by_shape", "ssim", "depth_error", "mask_iou", "measures_by_shape", "measures_by_appearance", "colours_by_shape",
            "colours_by_appearance", "azimuth_within", "within_by_chance", "training_within", "azimuth", "azimuth_twofold",
            "azimuth_by_chance", "altitude", "cpu_seconds", "images")  # fmt: skip
COMPARED = ("two_shot_chain", "hidden", "azimuth", "frechet")


def line(name: str, mine: list[Row], rows: list[Row]) -> Row:
    """Means over seeds; and what a row has more than that with a Gaussian prior at the same seed, with standard errors."""
    found = means(mine, (key for key in MEASURED if any(key in row for row in mine)))
    for key in COMPARED:
        if key in found:
            gap, error = paired(rows, name, f"{name}, Gaussian prior", key)
            found |= {f"{key}: more than Gaussian": gap, f"{key}: its standard error": error}
    return found


def known(part: str, options: Options, rows: list[Row]) -> dict[str, Any]:
    return {"mean_view": mean_view(part), "frechet_floor": judge_of(part).floor, "samples": SAMPLES, "objects": OBJECTS}


def memory(field: str, chunk: int) -> float:
    """GiB that a step on one image of 128×128 takes, all its rays, 64 samples on each; in a process of its own, whose peak is its own."""
    options = dict(shape=(3, 128, 128), field=FIELDS[field], rays=0, samples=64, ball=False, chunk=chunk, batch=1)
    model = tw.method("nerf_lebm/objects", seed=0, **options)
    batch = tw.data.ViewBatch(torch.zeros(1, 3, 128, 128), None, model.cameras[:1].clone(), torch.zeros(1, dtype=torch.long))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model.step(batch, Bare(model))
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20


def cost(options: Options) -> dict[str, Any]:
    """CPU seconds of a step and of its parts, medians of rounds on one thread, and the memory that a step at 128×128 takes."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {"steps": [], "memory": []}
    # first: a new process takes over the peak of this one
    for field, chunk in MEMORY:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            found["memory"].append({"field": field, "chunk": chunk, "gib": round(pool.submit(memory, field, chunk).result(), 2)})
        print(found["memory"][-1], flush=True)
    for preset, rounds, fields in STEPS:
        found["steps"].append(costs(preset, rounds, fields, options.precision))
        print(found["steps"][-1], flush=True)
    return found


def costs(preset: str, rounds: int, fields: dict[str, Any], precision: str) -> Row:
    """CPU seconds of a step and the shares of its parts: chains of the priors, and these with the priors' own updates. Of grey images:
    what is in them costs nothing."""
    model = tw.method(f"nerf_lebm/{preset}", seed=0, **fields)
    c = model.config
    objects = c.batch // c.views
    item = torch.arange(objects).repeat_interleave(c.views)
    batch = tw.data.ViewBatch(torch.zeros(c.batch, *c.shape), None, model.cameras[: c.batch].clone(), item)
    update, few = Bare(model), min(16, c.batch)
    z = torch.randn(2, objects, c.dim_appearance + c.dim_shape, generator=tw.random.seeded(0))
    runs = {
        "step": lambda: model.step(batch, update),
        "chains": lambda: model.draw_prior(objects, update.generator),
        "updates": lambda: model._learn_priors(*z, update),
        "images": lambda: model.sample(few, steps=1),
    }
    _, seconds = seconds_in_turn({name: precisely(run, precision) for name, run in runs.items()}, rounds)
    step, chains, updates, images = (statistics.median(seconds[name]) for name in runs)
    row = {"preset": preset, "batch": c.batch, "rounds": rounds, "seconds_a_step": step, "seconds_an_image": step / c.batch}
    row |= {"field": next((name for name, field in FIELDS.items() if field == fields.get("field")), None)}
    return row | {"prior_chains": chains / step, "priors": (chains + updates) / step, "rendering_an_image": images / few}


FIELDS: dict[str, dict[str, Any]] = {
    "MLP of 8 layers of 256, the paper's": dict(kind="radiance_field", width=256, depth=8, mapping=256, octaves=10, octaves_view=4),
    "MLP of 4 layers of 128": dict(kind="radiance_field", width=128),
    "MLP of 4 layers of 64": dict(kind="radiance_field"),
    "three planes of 32×32": dict(kind="tri_plane"),
    "three planes of 64×64": dict(kind="tri_plane", resolution=64),
}
PAPER, PLANES = "MLP of 8 layers of 256, the paper's", "three planes of 32×32"
# field and samples of it that are held at once
MEMORY = (*(("MLP of 4 layers of 64", chunk) for chunk in (65_536, 262_144, 1_048_576)), (PLANES, 262_144), (PAPER, 262_144))
# preset, rounds and settings; the paper's size last, on a quarter of its batch
STEPS: tuple[tuple[str, int, dict[str, Any]], ...] = (
    ("objects", 21, {}),
    ("objects-vae", 21, {}),
    ("objects-persistent", 21, {}),
    ("chairs", 21, {}),
    ("chairs", 3, {"field": FIELDS[PAPER]}),
    ("carla-amortized", 3, {"batch": 2}),
)
LATENTS, SIDE, OBJECT = 8, 32, 0.5  # objects at once; pixels of a side of their images; radius of what is in them


def rays_of(name: str, rounds: int, precision: str) -> dict[str, Any]:
    """Rays a CPU second of a field with 16 + 16 samples: a gradient by its weights and latents, and pictures with and without `stop`.

    To the field a soft ball is added, of half the radius that rays are followed through: one that has learned nothing hides nothing.
    """
    rays = specs.Rays(samples=16, importance=16, rays=128)
    model = tw.method("nerf_lebm/objects", seed=0, field=FIELDS[name], renderer=rays)
    field, z = model.field, torch.randn(LATENTS, 64, generator=tw.random.seeded(0))
    camera = model.cameras[:LATENTS, None].clone()
    image = torch.zeros(LATENTS, 1, 3, SIDE, SIDE)
    some = scene_rays.choose(LATENTS, SIDE**2, rays.rays, tw.random.seeded(1), image.device)
    pixels = {"training": rays.look(image, camera, which=some, generator=tw.random.seeded(2)), "pictures": rays.look(image, camera)}

    def seen(renderer: Any, pixels: Any, z: torch.Tensor) -> Any:
        latents = field.latents(*model.split(z))

        def with_ball(x: torch.Tensor, direction: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            density, colour = field(x, direction, latents)
            return density * 0 + 40 * torch.sigmoid(40 * (OBJECT - x.norm(dim=-1))), colour

        return renderer.render(with_ball, pixels).colour

    def gradient() -> None:
        latent = z.clone().requires_grad_(True)
        torch.autograd.grad(seen(rays, pixels["training"], latent).square().mean(), [latent, *field.parameters()], allow_unused=True)

    def pictures(stop: float) -> None:
        with torch.no_grad():
            seen(dataclasses.replace(rays, stop=stop), pixels["pictures"], z)

    runs = {"training": gradient, "pictures": partial(pictures, 0.0), "pictures that stop": partial(pictures, 1e-3)}
    with FlopCounterMode(display=False) as counter:
        precisely(gradient, precision)()
    _, seconds = seconds_in_turn({key: precisely(run, precision) for key, run in runs.items()}, rounds)
    counts = {key: pixels[key.split()[0]].origins.shape[:2].numel() for key in runs}
    found = {key.replace(" ", "_"): counts[key] / statistics.median(seconds[key]) for key in runs}
    found["gflops"] = counter.get_total_flops() / statistics.median(seconds["training"]) / 1e9
    return {"field": name, "parameters": sum(p.numel() for p in field.parameters()), **found}


def products(precision: str) -> float:
    """GFLOP a second that one thread reaches on products of square matrices, the best of several sizes."""
    found, kind = [], torch.bfloat16 if precision == "bf16" else torch.float32
    for side in (256, 512, 1024):
        a, b = torch.randn(2, side, side, generator=tw.random.seeded(0)).to(kind)
        _, seconds = seconds_in_turn({"product": partial(torch.mm, a, b)}, 10)
        found.append(2 * side**3 / statistics.median(seconds["product"]) / 1e9)
    return max(found)


def fields(options: Options) -> dict[str, Any]:
    """Rays a second of each field, medians of rounds on one thread, and the share of the speed of products that its gradient reaches."""
    torch.set_num_threads(1)
    found, peak = [], products(options.precision)
    for name in FIELDS:
        row = rays_of(name, 3, options.precision)
        found.append(row | {"share_of_peak": row["gflops"] / peak})
        print(found[-1], flush=True)
    return {"fields": found, "objects": LATENTS, "size": SIDE, "precision": options.precision, "peak_gflops": peak}


def part(name: str, one: Callable[[str, int, Options], Row]) -> Part:
    return Part(ROWS[name], one, line, partial(settings, name), partial(known, name))


STUDY = Study(
    "nerf_lebm",
    __doc__,
    {
        "priors": part("priors", priors_one),
        "incomplete": part("incomplete", incomplete_one),
        "unposed": part("unposed", partial(unposed_one, "unposed")),
        "chairs": part("chairs", partial(category_one, "chairs")),
        "cars": part("cars", partial(category_one, "cars")),
        "chairs_unposed": part("chairs_unposed", partial(unposed_one, "chairs_unposed")),
        "cars_unposed": part("cars_unposed", partial(unposed_one, "cars_unposed")),
        "composition": Part(COMPOSED, composition_one, composition_line),
        "cost": cost,
        "fields": fields,
    },
)

# --- the page

FIGURES = (
    "new views from two, dB, by the encoder = two_shot_encoder:.1f | after chains = two_shot_chain:.1f | the two given = given_chain:.1f | "
    "hidden pixels, dB = hidden:.1f | Fréchet distance = frechet:.1f | share of colour due to z^a = colour_by_appearance:.2f | "
    "share of silhouette due to z^s = silhouette_by_shape:.2f | SSIM = ssim:.3f | depth error = depth_error:.3f | "
    "mask IoU = mask_iou:.2f | R² of measures by z^s = measures_by_shape:.2f | by z^a = measures_by_appearance:.2f | "
    "of colours by z^s = colours_by_shape:.2f | by z^a = colours_by_appearance:.2f | azimuth within 15° = azimuth_within:.1f % | "
    "by chance = within_by_chance:.1f % | of training images, by kept poses = training_within:.1f % | azimuth:.2f | "
    "azimuth twofold = azimuth_twofold:.2f | azimuth by chance = azimuth_by_chance:.2f | altitude, correlation = altitude:.2f"
)


def columns(r: dict[str, Any]) -> list[str | tuple]:
    """Those of the figures that the part has."""
    own = [column for column in parsed(FIGURES) if any(x.get(column[1]) is not None for x in r["summary"])]
    how_long = [("images", lambda x: x["images"] or 0, ",.0f"), ("CPU seconds", lambda x: x["cpu_seconds"] or 0, ".0f")]
    return ["model = row | seeds | diverged", *how_long, *own]


TITLES = {
    "priors": "Objects from known cameras, {objects} held-out objects",
    "incomplete": "Learned from images with a quarter missing, {objects} held-out objects",
    "unposed": "Cameras inferred, objects on their axes; 1 would be every azimuth correct, up to one rotation and mirror",
    "chairs": "Procedural chairs from known cameras, {objects} held-out chairs",
    "cars": "Procedural cars from known cameras, {objects} held-out cars",
    "chairs_unposed": "Chairs whose cameras are inferred, up to one rotation and mirror",
    "cars_unposed": "Cars whose cameras are inferred, up to one rotation and mirror",
}
# of each row, by kind
PICTURES = {
    "priors": {
        "views": "Two images given, the same and four others from the model, the true ones", "recombined": "Colours and shapes",
        "samples": "Samples",
    },
    "incomplete": {"": "Visible pixels, completed, whole"},
    "unposed": {"samples": "Samples", "turn": "Turned", "recombined": "Colours and shapes"},
}  # fmt: skip
PICTURES |= {name: PICTURES["unposed"] for name in ("chairs_unposed", "cars_unposed")}
PICTURES |= {name: PICTURES["priors"] for name in ("chairs", "cars")}


def shown_part(name: str, title: str) -> Shown:
    def each(r: dict[str, Any]) -> list[Row]:
        """The pictures of each row."""
        found = ((x["row"], kind, what) for x in r["summary"] for kind, what in PICTURES[name].items())
        words = [] if name == "priors" else [name]
        return [{"row": row, "what": what, "file": file_of("nerf_lebm", *words, row, *filter(None, [kind]))} for row, kind, what in found]

    text = title + "; the mean training image reaches {mean_view:.1f} dB, and {samples} held-out images have a Fréchet distance of "
    text += "{frechet_floor:.0f} (EfficientNet-Lite0), as many as there are samples:"
    return Shown(f"nerf_lebm_{name}", [text, Table(columns), Each(each, [Picture("{row}: {what}", "{file}")])])


COMPOSITION = [
    "Objects with factors that were asked for: shares that have all of them, read from pictures from several sides by a classifier of true "
    "pictures, {seeds_in_words}; by energies of factors of weight 1 and 3, and of the prior alone:",
    Each(
        lambda r: [line | {"file": file_of("nerf_lebm", "composition", line["row"])} for line in r["summary"]],
        [
            "{row}:",
            Table("asked | weight 1 = weight 1:.0f % | weight 3 = weight 3:.0f % | the prior alone = prior:.0f %", "asked"),
            Picture("{row}: what was asked for, line by line", "{file}"),
        ],
    ),
]


def _where(rows: list[Row], key: str, column: str | tuple) -> list[str | tuple]:
    """A column that older results do not have."""
    return [column] if all(key in row for row in rows) else []


COST = [
    "CPU milliseconds, {precision}, one thread, medians of rounds:",
    Table(
        lambda r: [
            "preset | batch | rounds",
            *_where(r["steps"], "field", ("field", lambda x: x["field"] or "of the preset")),
            ("a step", lambda x: 1000 * x["seconds_a_step"], ".0f"),
            ("an image of training", lambda x: 1000 * x["seconds_an_image"], ".1f"),
            "share of prior chains = prior_chains:.1f %",
            *_where(r["steps"], "priors", "with the priors' updates = priors:.1f %"),
            ("rendering a sample", lambda x: 1000 * x["rendering_an_image"], ".0f"),
        ],
        "steps",
    ),
    "Memory of a step on one image of 128×128, 64 samples per ray, by the samples held at once:",
    Table(lambda r: [*_where(r["memory"], "field", "field"), "samples at once = chunk:, | GiB = gib:.2f"], "memory"),
]
RATES = [
    "Rays a CPU second, {precision}, one thread, medians of rounds, 16 + 16 samples on each; {objects} objects: a gradient of 128 rays of "
    "each, and pictures of {size}×{size} pixels, the second time without what light does not reach (`stop`):",
    Table(
        lambda r: [
            "field | parameters:, | gradient = training:,.0f",
            *_where(r["fields"], "share_of_peak", "of the peak = share_of_peak:.1f %"),
            "pictures:,.0f | pictures with `stop` = pictures_that_stop:,.0f",
        ],
        "fields",
    ),
    When("peak_gflops", ["The peak is {peak_gflops:.0f} GFLOP a second, products of square matrices."]),
]
PAGE = [
    Section(
        "NeRF-LEBM",
        [
            *(shown_part(name, title) for name, title in TITLES.items()),
            Shown("nerf_lebm_composition", COMPOSITION),
            Shown("nerf_lebm_cost", COST),
            Shown("nerf_lebm_fields", RATES),
        ],
    )
]

if __name__ == "__main__":
    STUDY.main()
