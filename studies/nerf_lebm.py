"""What NeRF-LEBM's priors, learners and poses are worth, on 999 objects of one colour each from 20 sides.

`priors`: two-shot views of held-out objects, samples, and what z^a and z^s decide, with energy-based and with Gaussian priors (NeRF-VAE,
NeRF-Gaussian), amortized and with persistent chains (Tables 3.4 and 3.5, Figures 3.4 to 3.6). `incomplete`: learned from images of which a
quarter is missing (Table 3.6). `unposed`: cameras inferred (Figure 3.8). `cost`: CPU time of a step by parts, and memory at 128×128.

    python -m studies.nerf_lebm priors --seconds 900 --precision bf16
    python -m studies.nerf_lebm incomplete unposed --seconds 900 --precision bf16 --seeds 1
    python -m studies.nerf_lebm cost
"""

import argparse
import math
import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from studies.runner import Study, precise  # after the setting, which torch reads when it is imported

OBJECTS = 50  # of the test set, two-shot
SHOTS, VIEWS = 2, 4
SAMPLES = 1300
REAL = 2000  # training images that samples are compared with; the network has 1280 features
POSTERIOR_STEPS = 60  # of chains from the encoder's means, or from the reference
GAUSSIAN = {"prior": "gaussian"}
DATA = {"priors": "objects", "incomplete": "objects-incomplete", "unposed": "objects-aligned"}
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
    "poses by their gradients": ("objects-unposed", {"pose_candidates": 0, "pose_first": 0.0}),
}


def trained(part: str, row: str, seed: int, options: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """The EMA twin of a row's model, None where it diverged, and how training went. A run that was cut off goes on."""
    import thalweg as tw
    from thalweg.checkpoint import latest, read_stats
    from thalweg.errors import Diverged

    preset, fields = ROWS[part][row]
    model = tw.method(f"nerf_lebm/{preset}", seed=seed, images=options.images, **fields)
    data = tw.data.beside(tw.data.load(DATA[part], "train"), model.config.views)
    folder = options.work / "models" / f"{part}-{row.replace(', ', '-').replace(' ', '-')}-{options.images}-{seed}"
    batch = model.config.batch
    settings = dict(log_every=100 * batch, sample_every=10**12, save_every=500 * batch)
    found: dict[str, Any] = {"row": row, "seed": seed, "diverged": None}
    try:
        twin = tw.fit(
            model, data, folder, seed=seed, images=options.images, seconds=options.seconds, clock=time.process_time,
            precision=options.precision, progress=False, **settings,
        )  # fmt: skip
    except Diverged as trouble:
        return None, found | {"diverged": str(trouble)}
    seen, stats = latest(folder), read_stats(folder)
    found |= {"images": seen["images"], "updates": seen["updates"], "cpu_seconds": round(seen["elapsed"], 1)}
    found |= {"guard_events": sum("event" in line for line in stats)}
    found |= {key: stats[-1][key] for key in ("residual", "divergence", "latent_std") if key in stats[-1]}
    return twin.eval(), found


def picture(options: argparse.Namespace, *words: str) -> Path:
    name = "_".join("".join(a for a in word.lower() if a.isalnum()) for word in words)
    return options.pictures / f"nerf_lebm_{name}.png"


def frechet_of(model: Any, seed: int, options: argparse.Namespace, data: str = "objects") -> dict[str, float]:
    """Fréchet distance through EfficientNet-Lite0 of samples."""
    with precise(options):
        x = model.sample(SAMPLES, seed=seed + 1).float()
    return {"frechet": frechet_to_training(x, data)}


def frechet_to_training(x: Any, data: str) -> float:
    import thalweg as tw

    real = tw.data.load(data, "train").batch(0, REAL, seed=0).x
    extractor = tw.evaluate.extractor_by_name("efficientnet-lite0")
    return tw.evaluate.fidelity(real, x, extractor, metrics=("frechet",)).frechet.value


def floor(data: str) -> float:
    """That of as many held-out images."""
    import thalweg as tw

    return frechet_to_training(tw.data.load(data, "test").batch(0, SAMPLES, seed=0).x, data)


def two_shot(model: Any, seed: int, options: argparse.Namespace, path: Path | None) -> dict[str, float]:
    """PSNR in dB of images of held-out objects that were not given, by what an encoder finds alone and after chains from there."""
    import thalweg as tw

    test = tw.data.load("objects", "test")
    found = {}
    for name, steps in {"encoder": 0, "chain": POSTERIOR_STEPS}.items():
        if name == "encoder" and model.encoder is None:
            continue
        with precise(options):
            made = tw.tasks.new_views(model, test, objects=OBJECTS, shots=SHOTS, views=VIEWS, seed=seed, steps=steps)
        for key, x, truth in (("two_shot", made.x, made.truth), ("given", made.rebuilt, made.given)):
            found[f"{key}_{name}"] = float(tw.evaluate.psnr(truth.flatten(0, 1), x.float().flatten(0, 1)).mean())
    if path is not None:
        import torch

        rows = torch.cat([made.given, made.rebuilt, made.x, made.truth], 1)[:8]
        tw.plot.grid(rows.float().flatten(0, 1), path, columns=rows.shape[1], least=64)
    if model.encoder is None:
        found["two_shot_encoder"] = found["given_encoder"] = None
    return found


def mean_view(data: str) -> float:
    """PSNR in dB of the mean training image: what there is without looking."""
    import thalweg as tw

    x = tw.data.load(data, "test").all().x
    mean = tw.data.load(data, "train").all().x.mean(0, keepdim=True)
    return float(tw.evaluate.psnr(x, mean.expand_as(x)).mean())


def decided_by(model: Any, seed: int, path: Path | None, data: str = "objects", *, n: int = 16) -> dict[str, float]:
    """Shares of the variance of mean colours due to z^a, and of silhouettes due to z^s, of n² recombinations of inferred latents.

    Shares of the sum over both, without their interplay; the colour is weighted by opacity, the silhouette is the opacity itself.
    """
    import torch

    import thalweg as tw

    test = tw.data.load(data, "test").all()
    first = [int((test.item == item).nonzero()[0]) for item in range(n)]
    x, camera = test.x[first], test.camera[first]
    found = model.infer(x, camera if model.config.poses == "known" else None, steps=0 if model.encoder is not None else None, seed=seed)
    view = camera[0] if model.config.poses == "known" else found.camera[0, 0]
    made = tw.tasks.recombined(model, found.appearance, found.shape, camera=view)
    opacity = made.opacity.flatten(3)
    colour = (made.x.flatten(3) * opacity).sum(-1) / opacity.sum(-1).clamp(min=1e-6)  # [appearance, shape, 3]

    def share(values: Any, own: int) -> float:
        by_own, by_other = values.mean(1 - own).var(0).sum(), values.mean(own).var(0).sum()
        return float(by_own / (by_own + by_other))

    if path is not None:
        tw.plot.grid(made.x[:8, :8].flatten(0, 1), path, columns=8, least=64)
    return {"colour_by_appearance": share(colour, 0), "silhouette_by_shape": share(torch.as_tensor(opacity.flatten(2)), 1)}


def priors_one(row: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    import thalweg as tw

    model, found = trained("priors", row, seed, options)
    if model is None:
        return found
    pictures = seed == 0

    def path(kind: str) -> Path | None:
        return picture(options, row, kind) if pictures else None

    found |= two_shot(model, seed, options, path("views")) | decided_by(model, seed, path("recombined")) | frechet_of(model, seed, options)
    if pictures:
        tw.plot.grid(model.sample(32, seed=1), path("samples"), columns=8, least=64)
        a, s = tw.tasks.drawn(model, 6, seed=1)
        tw.plot.animation(tw.tasks.turntable(model, a, s, frames=24, size=64).x.transpose(0, 1), path("turntable").with_suffix(".gif"))
    return found


def incomplete_one(row: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """As `priors`, and PSNR of hidden pixels of held-out images: by the model, and by the mean of the visible ones of each image."""
    import torch

    import thalweg as tw

    model, found = trained("incomplete", row, seed, options)
    if model is None:
        return found
    whole, masked = tw.data.load("objects", "test").all(), tw.data.load("objects-incomplete", "test").all()
    rows = [int((whole.item == item).nonzero()[0]) for item in range(OBJECTS)]
    x, camera, visible = whole.x[rows], masked.camera[rows], masked.visible[rows]
    with precise(options):
        made = model.complete(masked.x[rows], camera, visible, steps=POSTERIOR_STEPS, seed=seed).float()
    hidden = (~visible).expand_as(x)
    filled = (x * visible).sum((2, 3), keepdim=True) / visible.sum((2, 3), keepdim=True)

    def of_hidden(guess: Any) -> float:
        error = ((guess - x).square() * hidden).flatten(1).sum(1) / hidden.flatten(1).sum(1)
        return float((10 * (4 / error.clamp(min=1e-8)).log10()).mean())

    found |= {"hidden": of_hidden(made), "hidden_by_mean": of_hidden(filled.expand_as(x))}
    found |= two_shot(model, seed, options, None) | frechet_of(model, seed, options)
    if seed == 0:
        shown = torch.where(visible, x, torch.zeros_like(x))
        tw.plot.grid(torch.stack([shown, made, x], 1)[:16].flatten(0, 1), picture(options, "incomplete", row), columns=12, least=64)
    return found


def unposed_one(row: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Inferred against true poses of held-out images, up to one rotation and a mirror; beside the best of 100 shuffles."""
    import torch

    import thalweg as tw

    model, found = trained("unposed", row, seed, options)
    if model is None:
        return found
    data = DATA["unposed"]
    test = tw.data.load(data, "test").all()
    altitude, azimuth, _ = tw.camera.angles(test.camera)
    told = tw.tasks.pose(model, test.x)
    guess = torch.deg2rad(told.azimuth)

    def agreement(a: Any, b: Any) -> float:
        """|mean exp(i (a ∓ b))|, the better sign: 1 for equal up to rotation and mirror, about 1/√N by chance."""
        return max(float(torch.polar(torch.ones_like(a), a - sign * b).mean().abs()) for sign in (1, -1))

    shuffled = [agreement(guess[torch.randperm(len(guess), generator=tw.random.seeded(seed, i))], azimuth) for i in range(100)]
    found |= {
        "azimuth": agreement(guess, azimuth),
        "azimuth_twofold": agreement(2 * guess, 2 * azimuth),  # objects alike from behind
        "azimuth_by_chance": max(shuffled),
        "altitude": float(torch.corrcoef(torch.stack([told.altitude, altitude]))[0, 1]),
    }
    path = picture(options, "unposed", row, "recombined") if seed == 0 else None
    found |= decided_by(model, seed, path, data) | frechet_of(model, seed, options, data)
    if seed == 0:
        tw.plot.grid(model.sample(32, seed=1), picture(options, "unposed", row, "samples"), columns=8, least=64)
        a, s = tw.tasks.drawn(model, 4, seed=1)
        tw.plot.grid(
            tw.tasks.turntable(model, a, s, frames=8).x.flatten(0, 1), picture(options, "unposed", row, "turn"), columns=8, least=64
        )
    return found


def summary(part: str, keys: tuple[str, ...], options: argparse.Namespace, paired: tuple[str, ...]) -> dict[str, Any]:
    """Means over seeds of each row; and what a row has more than that with a Gaussian prior at the same seed, with standard errors."""
    names = STUDY.chosen(ROWS[part], options)
    rows = STUDY.rows(part, [(row, seed) for seed in range(options.seeds) for row in names], options)
    lines = []
    for name in names:
        mine = [row for row in rows if row["row"] == name]
        line: dict[str, Any] = {"row": name, "seeds": len(mine), "diverged": sum(bool(row["diverged"]) for row in mine)}
        for key in keys:
            values = [row[key] for row in mine if row.get(key) is not None]
            line[key] = statistics.fmean(values) if values else None
        other = {row["seed"]: row for row in rows if row["row"] == f"{name}, Gaussian prior"}
        for key in paired:
            gaps = [
                row[key] - other[row["seed"]][key]
                for row in mine
                if row["seed"] in other and None not in (row.get(key), other[row["seed"]].get(key))
            ]
            line[f"{key}: more than Gaussian"] = statistics.fmean(gaps) if gaps else None
            line[f"{key}: its standard error"] = statistics.stdev(gaps) / math.sqrt(len(gaps)) if len(gaps) > 1 else None
        lines.append(line)
    reals = DATA["unposed"] if part == "unposed" else "objects"  # whole ones, also where incomplete ones were learned from
    known = {"mean_view": mean_view(reals), "frechet_floor": floor(reals), "samples": SAMPLES, "objects": OBJECTS}
    return known | {"summary": lines, "runs": rows}


def priors(options: argparse.Namespace) -> dict[str, Any]:
    keys = ("two_shot_encoder", "two_shot_chain", "given_chain", "frechet", "colour_by_appearance", "silhouette_by_shape")
    return summary("priors", (*keys, "cpu_seconds", "images"), options, ("two_shot_chain", "frechet"))


def incomplete(options: argparse.Namespace) -> dict[str, Any]:
    keys = ("hidden", "hidden_by_mean", "two_shot_encoder", "two_shot_chain", "frechet", "cpu_seconds", "images")
    return summary("incomplete", keys, options, ("hidden", "two_shot_chain", "frechet"))


def unposed(options: argparse.Namespace) -> dict[str, Any]:
    keys = ("azimuth", "azimuth_twofold", "azimuth_by_chance", "altitude", "colour_by_appearance", "frechet")
    return summary("unposed", (*keys, "cpu_seconds", "images"), options, ("azimuth", "frechet"))


class Update:
    """What a method is given for its gradients, without a loop: they are computed and dropped."""

    images = 0

    def __init__(self, model: Any) -> None:
        import thalweg as tw

        self.model, self.generator = model, tw.random.seeded(0)

    def __call__(self, name: str, loss: Any) -> None:
        self.model.zero_grad()
        loss.backward()

    def log(self, **values: Any) -> None:
        pass

    def mean(self, x: Any) -> Any:
        return x


def memory(chunk: int) -> float:
    """GiB that a step on one image of 128×128 takes, all its rays, 64 samples on each; in a process of its own, whose peak is its own."""
    import torch

    import thalweg as tw

    model = tw.method("nerf_lebm/objects", seed=0, shape=(3, 128, 128), rays=0, samples=64, ball=False, chunk=chunk, batch=1)
    batch = tw.data.ViewBatch(torch.zeros(1, 3, 128, 128), None, model.cameras[:1].clone(), torch.zeros(1, dtype=torch.long))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model.step(batch, Update(model))
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20


def cost(options: argparse.Namespace) -> dict[str, Any]:
    """CPU seconds of a step and of its parts, medians of rounds on one thread, and the memory that a step at 128×128 takes."""
    import torch

    import thalweg as tw

    torch.set_num_threads(1)
    found: dict[str, Any] = {"steps": [], "memory": []}

    def median(run: Callable[[], Any], rounds: int) -> float:
        run()
        times = []
        for _ in range(rounds):
            started = time.process_time()
            with precise(options):
                run()
            times.append(time.process_time() - started)
        return statistics.median(times)

    def costs(preset: str, rounds: int, **fields: Any) -> dict[str, Any]:
        """Of grey images: what is in them costs nothing."""
        model = tw.method(f"nerf_lebm/{preset}", seed=0, **fields)
        c = model.config
        item = torch.arange(c.batch // c.views).repeat_interleave(c.views)
        batch = tw.data.ViewBatch(torch.zeros(c.batch, *c.shape), None, model.cameras[: c.batch].clone(), item)
        update = Update(model)
        step = median(lambda: model.step(batch, update), rounds)
        chains = median(lambda: model.draw_prior(c.batch // c.views, update.generator), rounds)
        few = min(16, c.batch)
        image = median(lambda: model.sample(few, steps=1), rounds) / few
        row = {"preset": preset, "batch": c.batch, "rounds": rounds, "seconds_a_step": step, "seconds_an_image": step / c.batch}
        return row | {"prior_chains": chains / step, "rendering_an_image": image}

    # first: a new process takes over the peak of this one
    for chunk in (65_536, 262_144, 1_048_576):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            found["memory"].append({"chunk": chunk, "gib": round(pool.submit(memory, chunk).result(), 2)})
        print(found["memory"][-1], flush=True)
    # the paper's size last, on a quarter of its batch
    for preset, rounds, fields in (
        ("objects", 21, {}),
        ("objects-vae", 21, {}),
        ("objects-persistent", 21, {}),
        ("carla-amortized", 3, {"batch": 2}),
    ):
        found["steps"].append(costs(preset, rounds, **fields))
        print(found["steps"][-1], flush=True)
    return found


ROWS = {"priors": PRIORS, "incomplete": INCOMPLETE, "unposed": UNPOSED}
PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "priors": priors, "incomplete": incomplete, "unposed": unposed, "cost": cost,
}  # fmt: skip
ONES = {"priors": priors_one, "incomplete": incomplete_one, "unposed": unposed_one}
STUDY = Study("nerf_lebm", __doc__, PARTS, ONES, run=Path("runs/nerf-lebm"))

if __name__ == "__main__":
    STUDY.main(STUDY.parser())
