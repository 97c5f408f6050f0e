"""CoopFlow against its two flows alone and CoopNets, over lengths and steps of the chain; its tasks; its flow against Glow.

`spiral`: chains of 100, 500 and 10,000 steps, samples and densities against the exact ones (thesis, Figure 4.3). `images`: CoopFlow from
scratch and from a pretrained flow, the normalizing flow alone, the Langevin flow alone and CoopNets, on equally many images and with
the same networks (Tables 4.2 and 4.7). `chains`: lengths, steps and noise of the chain (Tables 4.5, 4.6, 4.9, 4.10). `tasks`: a trained
run's reconstructions, completions and interpolations, as figures and numbers. `flows`: our image flow against normflows' Glow. `networks`:
gradient evaluations of energies, and images of whole updates, in a CPU second. `steps`: sizes of the chain's step, and networks, each
trained for `--seconds` of CPU time. `price`: CoopFlow and its two flows alone at that price. `cost`: what an update of the spiral costs.

    thalweg train coopflow/digits --out runs/coopflow-digits --threads 1
    python -m studies.coopflow spiral images chains tasks flows cost --jobs 2
    python -m studies.coopflow networks steps price --data fashion-mnist --seconds 1800 --precision bf16 --jobs 2
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

import thalweg as tw
from studies.measures import (
    Bare,
    Judge,
    mean,
    means,
    over_seeds,
    paired,
    parameters,
    precisely,
    psnr_hidden,
    seconds_in_turn,
    sets_of,
    trained,
)
from studies.runner import Options, Part, Row, Study, file_of
from studies.tables import Picture, Section, Shown, Table
from thalweg import tasks
from thalweg.arena.price import images_for
from thalweg.nn.build import MLP, ConvNet, PooledNet
from thalweg.nn.flow import ImageFlow

DRAWS = 4
SAMPLES = 2000  # of a set, at most
NEAREST = 256  # draws of the flow that a completion's start is chosen from
SEARCH = 200  # steps of reconstruction
ROUNDS = 2  # of what is timed
COOPFLOW, FLOW, LANGEVIN, COOPNETS, PRE = "CoopFlow", "normalizing flow", "Langevin flow", "CoopNets", "CoopFlow (pre)"
MODELS: dict[str, dict[str, Any]] = {
    COOPFLOW: {},
    PRE: {"pretrain": 0.25, "warm_up_energy": 0.05},  # shares of all images
    FLOW: {"steps": 0},
    # samples with the step of training: the longer one is CoopFlow's alone, and makes the Langevin flow worse
    LANGEVIN: {"initializer": "noise", "step_ratio": 1.0},
    COOPNETS: {"initializer": "generator", "step_ratio": 1.0},
}
# rows of Tables 4.5, 4.6, 4.9 and 4.10; δ in units of the preset's
CHAINS: dict[str, dict[str, Any]] = {
    **{f"{name}, T = {steps}": {**MODELS[name], "steps": steps} for name in (COOPFLOW, LANGEVIN, COOPNETS) for steps in (10, 30, 50)},
    **{f"{COOPFLOW}, step × {ratio:g}": {"step": ratio} for ratio in (1 / 3, 2 / 3, 5 / 3, 10 / 3)},
    f"{COOPFLOW}, falling noise": {"noise": 1.0, "noise_decay": 0.3},
}
# fields, seeds, and samples that are evaluated. Chains of 10,000 steps are too expensive from scratch: they continue from T = 500
SPIRAL: dict[str, tuple[dict[str, Any], int, int]] = {
    "flow alone": ({"steps": 0}, 3, 100_000),
    "T = 100": ({"steps": 100}, 3, 100_000),
    "T = 500": ({"steps": 500, "images": 250_000}, 1, 40_000),
    "T = 10,000": ({"steps": 10_000, "images": 25_600, "lr": 5e-4, "lr_initializer": 3e-4}, 1, 4_000),
}
BEFORE = {"T = 10,000": "T = 500"}


def settings(row: str, options: Options) -> tuple[str, dict[str, Any]]:
    """Preset and fields of a row, with shares of images and step in absolute numbers; an MLP for images of 16×16, to save time."""
    fields = {"images": options.images} | ({"net": MLP(width=512, depth=3)} if options.size == 16 else {}) | {**MODELS, **CHAINS}[row]
    fields |= {key: round(fields[key] * options.images) for key in ("pretrain", "warm_up_energy", "noise_decay") if key in fields}
    preset = f"coopflow/{options.data}"
    return preset, fields | ({"step": fields["step"] * tw.methods.preset(preset)[1].chain.step} if "step" in fields else {})


# --- images

LAST = ("energy_data", "energy_samples", "displacement")


def images_one(row: str, seed: int, options: Options) -> Row:
    train, test = sets_of(options)
    model, found = trained(settings(row, options), train, seed, options, keep=LAST)
    if model is None:
        return found
    judge, c = Judge.of(options.data, train, test, most=SAMPLES), model.config
    held_out = judge.held_out

    def frechet(**asked: Any) -> float | None:
        return judge.distance(model, seed, draws=DRAWS, **asked)

    found |= {"frechet": frechet(), "floor": judge.floor}
    if c.chain.steps:
        found["frechet_trained_step"] = frechet(step_ratio=1.0)
        if c.initializer.kind != "noise":
            found["frechet_initializer"] = frechet(use="initializer")
        if row in MODELS:
            rebuilt = model.reconstruct(held_out[: options.reconstructed], steps=SEARCH, seed=seed).x
            found["reconstruction_mse"] = float((rebuilt - held_out[: options.reconstructed]).square().mean())
    if c.initializer.kind == "flow":
        with torch.no_grad():
            noise = tw.random.normal_like(held_out, tw.random.seeded(seed, 5))
            nats = torch.cat([model.initializer.bound(a, b) for a, b in zip(held_out.split(256), noise.split(256))])
        found["bits_per_dim"] = float(-nats.mean() / held_out[0].numel() / math.log(2))
    if seed == 0:
        tw.plot.grid(model.sample(64, seed=1), options.pictures / file_of("coopflow", options.data, row), columns=16)
    return found


def images_line(name: str, mine: list[Row], rows: list[Row]) -> Row:
    keys = ("frechet", "frechet_trained_step", "frechet_initializer", "reconstruction_mse", "bits_per_dim", "cpu_seconds")
    gap, error = paired(rows, name, COOPFLOW, "frechet")
    return means(mine, keys) | {"above_coopflow": gap, "standard_error": error}


def with_floor(options: Options, rows: list[Row]) -> dict[str, Any]:
    return {"floor": mean(row.get("floor") for row in rows), "search": SEARCH}


# --- at a price

PRICE = 300.0  # CPU seconds of a training
DRAWN = 8  # noises within the bins for the tighter bound of bits
# energies of 28×28, strided and pooled, and the MLP that the first study at 16×16 had
NETWORKS: dict[str, Any] = {
    "strided, 16 32 64": ConvNet(widths=(16, 32, 64)),
    "strided, 24 48 96": ConvNet(widths=(24, 48, 96)),
    "strided, 32 64 128": ConvNet(widths=(32, 64, 128)),
    "pooled, 8 16 32": PooledNet(widths=(8, 16, 32)),
    "MLP, 512": MLP(width=512, depth=3),
}
OTHERS = ("strided, 16 32 64", "strided, 32 64 128", "pooled, 8 16 32")
STEPS: dict[str, dict[str, Any]] = {
    **{f"step {step:g}": {"chain.step": step} for step in (0.2, 0.4, 0.7, 1.0, 1.5, 2.0)},
    **{f"step 0.7, {name}": {"chain.step": 0.7, "net": NETWORKS[name]} for name in OTHERS},
}
PRICED = {name: MODELS[name] for name in (COOPFLOW, FLOW, LANGEVIN)}


def networks_one(row: str, seed: int, options: Options) -> Row:
    """What an energy costs: its multiplications, its gradients by x in both precisions, and whole updates with it."""
    train, _ = sets_of(options)
    found: Row = {}
    runs, made = {}, {}
    for precision in ("fp32", "bf16"):
        model = tw.method(f"coopflow/{options.data}", seed=seed, data=train, net=NETWORKS[row])
        x, update = train.batch(0, model.config.batch, seed).x, Bare(model)
        model.initialised.fill_(True)
        model.initializer.initialise(x, tw.random.uniform(*x.shape, generator=tw.random.seeded(seed)))
        model = model.to(memory_format=torch.channels_last) if precision == "bf16" else model
        made[precision] = model, x
        # weights stay as they are while gradients by x are timed: `step` comes last
        runs[f"gradient_{precision}"] = precisely(lambda model=model, x=x: tw.energy.score(model.energy, x), precision)
        runs[f"update_{precision}"] = precisely(
            lambda model=model, x=x, update=update: model.step(tw.data.Batch(x, None), update), precision
        )
    model, x = made["fp32"]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.net(x)
    found |= {"parameters": parameters(model.net), "multiplications": counter.get_total_flops() / 2 / len(x)}
    _, seconds = seconds_in_turn(runs, ROUNDS)
    # an update has as many gradients by x as the chain has steps, and both networks' updates besides
    return found | {f"{name}s_a_second": len(x) / statistics.median(values) for name, values in seconds.items()}


def step_settings(row: str, options: Options) -> tuple[str, dict[str, Any]]:
    return f"coopflow/{options.data}", STEPS[row]


def price_settings(row: str, options: Options) -> tuple[str, dict[str, Any]]:
    return f"coopflow/{options.data}", PRICED[row]


def of_price(settings: Callable[[str, Options], tuple[str, dict[str, Any]]]) -> Callable[[str, int, Options], Row]:
    """A row of models that are trained for equal CPU time: as many images as it is enough for, over which rates fall to their end."""

    def one(row: str, seed: int, options: Options) -> Row:
        train, test = sets_of(options)
        (preset, fields), seconds = settings(row, options), options.seconds or PRICE
        trial = tw.method(preset, seed=seed, data=train, **{**fields, "images": 1})
        images = images_for(trial, train, seconds, precision=options.precision, seed=seed)
        model = tw.method(preset, seed=seed, data=train, **{**fields, "images": images})
        model, found = trained(model, train, seed, options, seconds=1.25 * seconds, keep=LAST)
        if model is None:
            return found
        judge = Judge.of(options.data, train, test, most=SAMPLES)
        found |= {"floor": judge.floor, "frechet": judge.distance(model, seed, options.precision)}
        if model.has_flow:
            if model.config.chain.steps:
                found["frechet_initializer"] = judge.distance(model, seed, options.precision, use="initializer")
            found |= bits_of(model, judge.held_out[:500], seed)
        if seed == 0:
            tw.plot.grid(model.sample(64, seed=1), options.pictures / file_of("coopflow_price", options.data, row), columns=16)
        return found

    return one


def bits_of(model: Any, x: torch.Tensor, seed: int, draws: int = DRAWN) -> Row:
    """Bits per dimension of the flow, from above: by one noise within the bins of grey values (Ho et al. 2019, eq. 5), and by the mean
    probability over several, which comes nearer to the exact ones."""
    g, nats = tw.random.seeded(seed, 5), []
    with torch.no_grad():
        for _ in range(draws):
            noise = tw.random.normal_like(x, g)
            nats.append(torch.cat([model.initializer.bound(a, b) for a, b in zip(x.split(250), noise.split(250))]).double())
    unit, several = x[0].numel() * math.log(2), torch.stack(nats)
    tight = several.logsumexp(0) - math.log(draws)
    return {"bits_per_dim": float(-several.mean() / unit), "bits_of_several": float(-tight.mean() / unit)}


OF_PRICE = (
    "frechet", "frechet_initializer", "bits_per_dim", "bits_of_several", "displacement", "images", "updates", "cpu_seconds",
)  # fmt: skip


def price_line(name: str, mine: list[Row], rows: list[Row]) -> Row:
    gap, error = paired(rows, name, COOPFLOW, "frechet")
    return means(mine, OF_PRICE) | {"above_coopflow": gap, "standard_error": error}


# --- the spiral


def spiral_settings(row: str, options: Options) -> tuple[str, dict[str, Any]]:
    fields, _, _ = SPIRAL[row]
    return "coopflow/spiral", fields | ({"compile": True} if fields["steps"] else {})


def spiral_one(row: str, seed: int, options: Options) -> Row:
    toy, start = tw.data.toy("spiral"), None
    for name in (*([BEFORE[row]] if row in BEFORE else []), row):
        preset, fields = spiral_settings(name, options)
        model = tw.method(preset, seed=seed, data=toy, **fields)
        if start is not None:
            model.load_state_dict(start.state_dict())
        start, found = trained(model, toy, seed, options, keep=LAST)
    model, samples = start, SPIRAL[row][2]
    found["before"] = BEFORE.get(row)
    if model is None:
        return found
    sets = {"samples": model.sample(samples, seed=seed + 1), "flow": model.sample(samples, seed=seed + 1, use="initializer")}
    found |= {name: asdict(tw.evaluate.histogram_variation(x, toy)) for name, x in sets.items()}
    densities = {"energy": model.energy, "flow": lambda x: -model.log_prob(x)}
    found |= {f"{name}_density": asdict(tw.evaluate.density(energy, toy, grid=400)) for name, energy in densities.items()}
    if seed == 0:
        tw.plot.density(densities, toy, options.pictures / file_of("coopflow_spiral", row), samples=sets["samples"][:4000])
    return found


def spiral_line(name: str, mine: list[Row], rows: list[Row]) -> Row:
    mine = [row for row in mine if "samples" in row]
    figures = {
        "samples_tv": ("samples", "value"), "flow_tv": ("flow", "value"), "floor": ("samples", "floor"),
        "energy_kl": ("energy_density", "kl_truth_model"), "energy_tv": ("energy_density", "total_variation"),
        "flow_kl": ("flow_density", "kl_truth_model"),
    }  # fmt: skip
    return {"models": len(mine)} | {key: mean(row[part][value] for row in mine) for key, (part, value) in figures.items()}


def cost_one(row: str, seed: int, options: Options) -> Row:
    """CPU seconds of an update of the spiral's training, compiled as it would be, and hours of all of the preset's."""
    toy = tw.data.toy("spiral")
    preset, fields = spiral_settings(row, options)
    model = tw.method(preset, seed=seed, data=toy, **fields | {"images": tw.methods.preset(preset)[1].images})
    update, batch = tw.update(model, seed=seed), model.config.batch
    first, seconds = seconds_in_turn({"update": lambda: update.step(toy.batch(update.images, batch, seed))}, ROUNDS)
    each, updates = statistics.median(seconds["update"]), model.config.images // batch
    return {"first_seconds": first["update"], "update_seconds": each, "updates": updates, "hours": each * updates / 3600}


# --- tasks


def on_run(options: Options) -> dict[str, Any]:
    model = tw.load(options.run)
    c = model.config
    train, test = (tw.data.load(c.data, split, size=c.shape[-1]).all() for split in ("train", "test"))
    extractor = tw.evaluate.extractor((tuple(train), tuple(test)), name=c.data)
    x, label = test.x[: options.reconstructed], test.label[: options.reconstructed]
    found: dict[str, Any] = {"run": str(options.run), "data": c.data, "n": len(x), "search": SEARCH, "inpainting": []}
    rebuilt = model.reconstruct(x, steps=SEARCH)
    error = (rebuilt.x - x).square()
    back = model.decode(rebuilt.latent)
    found["reconstruction"] = {
        "mse": float(error.mean()), "class_kept": float((extractor.logits(rebuilt.x).argmax(1) == label).float().mean()),
        "decode_encode_error": float((back - rebuilt.start).abs().max()),
    }  # fmt: skip
    shown = torch.cat([x[:16], rebuilt.start[:16], rebuilt.x[:16]])
    tw.plot.grid(shown, options.pictures / f"coopflow_{c.data}_reconstruction.png", columns=16, row_labels=["data", "start", "F(start)"])
    found |= completed_on(model, x[: options.completed], label[: options.completed], train, extractor, options, c.data)
    # between two images of different classes: the share of the way on which p(first class) falls and p(second) rises
    x, label = x[: options.completed], label[: options.completed]
    pairs = [(i, i + 1) for i in range(0, len(x) - 1, 2) if label[i] != label[i + 1]]
    z, strips, falls, rises, middles, straight = tasks.latents(model, x), [], [], [], [], []
    w = torch.linspace(0, 1, 9)
    for i, j in pairs:
        strip = tasks.interpolate(model, z[i], z[j], 9)
        p = extractor.logits(strip).softmax(1)
        a, b = p[:, label[i]], p[:, label[j]]
        falls.append(float((a.diff() <= 0.02).float().mean()))
        rises.append(float((b.diff() >= -0.02).float().mean()))
        middles.append(float(p[3:6].max(1).values.mean()))
        mixed = (1 - w).view(-1, 1, 1, 1) * x[i] + w.view(-1, 1, 1, 1) * x[j]
        straight.append(float(extractor.logits(mixed)[3:6].softmax(1).max(1).values.mean()))
        strips.append(strip)
    found["interpolation"] = {
        "pairs": len(pairs), "first_class_falls": statistics.fmean(falls), "second_class_rises": statistics.fmean(rises), "slack": 0.02,
        "confidence_in_the_middle": statistics.fmean(middles), "confidence_of_mixed_pixels": statistics.fmean(straight),
    }  # fmt: skip
    tw.plot.grid(torch.cat(strips[:6]), options.pictures / f"coopflow_{c.data}_interpolation.png", columns=9)
    return found


# how pixels are completed: by the paper's search; by chains that hold the known pixels, from any draw of the flow and from the nearest
# of 256; by a search for z with a prior from the nearest four, of which the lowest energy is kept
HOW: dict[str, dict[str, Any]] = {
    "search": {"search": SEARCH},
    "chain": {},
    "chain, nearest start": {"nearest": NEAREST},
    "search with a prior": {"search": SEARCH // 2, "draws": NEAREST, "tries": 4, "prior": 1.0},
}


def completed_on(model: Any, x: torch.Tensor, label: torch.Tensor, train: Any, extractor: Any, options: Options, data: str) -> Row:
    """Completions of images by each way, four an image, against the training image that is nearest in the known pixels."""
    shape = x.shape[1:]
    masks = {"centre 25 %": tasks.masks.centre_square(shape, 0.25), "lower half": tasks.masks.half(shape, "bottom")}
    found: Row = {"completed": len(x), "inpainting": [], "nearest_fill_psnr": {}, "nearest_fill_class_kept": {}}

    def kept(filled: torch.Tensor) -> float:
        return float((extractor.logits(filled).argmax(1) == label.repeat(len(filled) // len(x))).float().mean())

    for name, mask in masks.items():
        hidden = ~mask.bool().expand(shape)
        for how, given in HOW.items():
            filled = completions(model, x, mask, **given)
            psnr = torch.cat([psnr_hidden(x, one, hidden) for one in filled])
            found["inpainting"].append(
                {"mask": name, "how": how, "known_equal": bool((filled[:, :, ~hidden] == x[None][:, :, ~hidden]).all()),
                 "diversity": float(tasks.diversity(filled, mask).mean()), "psnr_hidden": float(psnr.mean()),
                 "class_kept": kept(filled.flatten(0, 1))}
            )  # fmt: skip
            words = "_".join(f"{name} {how}".replace("%", "").replace(",", "").split())
            picture = torch.cat([x[None, :8], torch.where(hidden, -1.0, x[:8])[None], filled[:, :8]]).transpose(0, 1).flatten(0, 1)
            tw.plot.grid(picture, options.pictures / f"coopflow_{data}_{words}.png", columns=6)
        nearest = tasks.nearest_fill(x, mask, train.x)
        found["nearest_fill_psnr"][name] = float(psnr_hidden(x, nearest, hidden).mean())
        found["nearest_fill_class_kept"][name] = kept(nearest)
    return found


def completions(model: Any, x: torch.Tensor, mask: torch.Tensor, *, nearest: int = 0, **given: Any) -> torch.Tensor:
    """Four of each image; with `nearest` by chains that begin at the four nearest of so many draws of the flow."""
    if not nearest:
        return tasks.inpaint(model, x, mask, completions=4, seed=1, **given)
    starts = model.nearest_starts(x, mask.float().expand(x.shape[1:]), draws=nearest, keep=4, seed=1)
    return torch.cat([tasks.inpaint(model, x, mask, completions=1, seed=1, start=z, **given) for z in starts])


# --- our flow and Glow


def flows_one(row: str, seed: int, options: Options) -> dict[str, Any]:
    """One flow of images trained by maximum likelihood for `options.seconds`: bits per dimension of held-out images, samples, cost."""
    torch.manual_seed(seed)
    train, test = sets_of(options)
    shape, grey_values = train.shape, tw.methods.preset(f"coopflow/{options.data}")[1].initializer.grey_values
    x = train.all().x
    dims = x[0].numel()
    if row == "glow":
        flow, bound, sample = glow(shape, grey_values)
    else:
        flow = ImageFlow(shape, couplings=3, width=32, depth=1, mixtures=4, grey_values=grey_values)
        flow.initialise(x[:256], torch.rand_like(x[:256]))

        def bound(y: torch.Tensor) -> torch.Tensor:
            return flow.bound(y, torch.randn_like(y))

        def sample(n: int) -> torch.Tensor:
            return flow.decode_grey_values(torch.randn(n, *shape))

    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-3)
    started, updates = time.process_time(), 0
    budget = options.seconds or 120.0
    while (spent := time.process_time() - started) < budget:
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, (updates + 1) / 100) * 0.5 * (1 + math.cos(math.pi * spent / budget))
        batch = x[torch.randint(len(x), (128,))]
        loss = -bound(batch).mean() / dims
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        optimizer.step()
        updates += 1
    judge = Judge.of(options.data, train, test, most=SAMPLES)
    with torch.no_grad():
        bits = float(-bound(judge.held_out).mean() / dims / math.log(2))
        sample(len(judge.held_out))
        started = time.process_time()
        drawn = sample(len(judge.held_out))
        cost = time.process_time() - started
    found = {"parameters": parameters(flow), "updates": updates, "bits_per_dim": bits}
    return found | {"frechet": judge.frechet(drawn), "sample_cpu_seconds": cost}


def glow(shape: tuple[int, ...], grey_values: int, *, blocks: int = 6, hidden: int = 64, scales: int = 2) -> tuple[Any, Callable, Callable]:
    """normflows' Glow with uniform dequantisation on the logit of images, as ours: the module, log-probability and samples."""
    import normflows as nf  # of the extra `peers`

    channels, height, breadth = shape
    bases, merges, flows = [], [], []
    for i in range(scales):
        width = channels * 2 ** (scales + 1 - i)
        flows.append([*(nf.flows.GlowBlock(width, hidden, split_mode="channel", scale=True) for _ in range(blocks)), nf.flows.Squeeze()])
        depth = scales - i
        if i:
            merges.append(nf.flows.Merge())
        size = (channels * 2**depth if i else channels * 2 ** (scales + 1), height // 2**depth, breadth // 2**depth)
        bases.append(nf.distributions.DiagGaussian(size, trainable=False))
    model = nf.MultiscaleFlow(bases, flows, merges, class_cond=False)

    def bound(x: torch.Tensor) -> torch.Tensor:
        y = (1 - 1 / grey_values) * x + (torch.rand_like(x) - 0.5) * 2 / grey_values
        lower, upper = (((1 + sign * y) / 2).clamp_min(1e-7).log() for sign in (1, -1))
        change = -(lower + upper + math.log(2)) + math.log(2 / grey_values)
        return model.log_prob(lower - upper, None) + change.flatten(1).sum(1)

    def sample(n: int) -> torch.Tensor:
        drawn, _ = model.sample(n)
        bins = (drawn.sigmoid() * grey_values).floor().clamp(0, grey_values - 1)
        return 2 * bins / (grey_values - 1) - 1

    return model, bound, sample


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reconstructed", type=int, default=200, help="test images that are reconstructed")
    parser.add_argument("--completed", type=int, default=50, help="of them those that are completed, each four times")


STUDY = Study(
    "coopflow",
    __doc__,
    {
        "spiral": Part(SPIRAL, spiral_one, spiral_line, spiral_settings, most={row: seeds for row, (_, seeds, _) in SPIRAL.items()}),
        "images": Part(MODELS, images_one, images_line, settings, with_floor),
        "chains": Part(CHAINS, images_one, images_line, settings, with_floor),
        "tasks": on_run,
        "networks": Part(
            NETWORKS,
            networks_one,
            over_seeds(
                "parameters",
                "multiplications",
                *(f"{what}s_a_second" for what in ("gradient_fp32", "gradient_bf16", "update_fp32", "update_bf16")),
            ),
            lambda row, options: (f"coopflow/{options.data}", {"net": NETWORKS[row]}),
        ),
        "steps": Part(STEPS, of_price(step_settings), over_seeds(*OF_PRICE), step_settings, with_floor),
        "price": Part(PRICED, of_price(price_settings), price_line, price_settings, with_floor),
        "cost": Part(list(SPIRAL)[1:], cost_one, over_seeds("update_seconds", "updates", "hours"), spiral_settings),
        "flows": Part(("ours", "glow"), flows_one, over_seeds("parameters", "updates", "bits_per_dim", "frechet", "sample_cpu_seconds")),
    },
    run=Path("runs/coopflow-digits"),
    of_run=("tasks",),
    add=add_options,
)

# --- the page

SPIRALS = [
    "The spiral: samples by histogram, densities on a grid, KL divergences in nats; the flow alone is its own energy:",
    Table(
        "chain = row | models | total variation of samples = samples_tv:.3f | of the flow's samples = flow_tv:.3f | floor:.3f | "
        "KL(truth‖energy) = energy_kl:.3f | total variation of the energy = energy_tv:.3f | KL(truth‖flow) = flow_kl:.3f"
    ),
    *(Picture(f"The spiral, {row}", file_of("coopflow_spiral", row)) for row in SPIRAL),
]
COLUMNS = (
    "model = row | seeds | Fréchet distance = frechet:.1f | minus CoopFlow's = above_coopflow ± standard_error:+.1f | "
    "with the training step = frechet_trained_step:.1f | of the initializer = frechet_initializer:.1f | "
    "reconstruction error = reconstruction_mse:.4f | bits per dimension = bits_per_dim:.3f | CPU s = cpu_seconds:.0f"
)


def models_of(title: str) -> list[Any]:
    text = title + ", {data}{at_size}, {images:,} images per model; the floor of the Fréchet distance is {floor:.1f}:"
    return [text, Table(COLUMNS, lambda r: [line | of_seeds(line["row"], r["runs"]) for line in r["summary"]])]


def of_seeds(name: str, runs: list[Row]) -> Row:
    """Figures that the first results had in their runs, not in their summary."""
    mine = [row for row in runs if row["row"] == name]
    return {"seeds": len(mine)} | means(mine, ("frechet_trained_step",))


def of_nearest(results: Row, mask: str) -> Row:
    """The first results did not say how often the nearest training image is of the same class."""
    return {"nearest": results["nearest_fill_psnr"][mask], "nearest_kept": results.get("nearest_fill_class_kept", {}).get(mask)}


TASKS = [
    "Tasks on {n} test images of {data}, inpainting on {completed} of them. Reconstruction: mean squared error {reconstruction[mse]:.5f}, "
    "class preserved in {reconstruction[class_kept]:.1f %}. Interpolation between {interpolation[pairs]} pairs of images: the probability "
    "of the first class does not rise in {interpolation[first_class_falls]:.1f %} of steps, that of the second does not fall in "
    "{interpolation[second_class_rises]:.1f %}; the classifier's confidence in the middle is "
    "{interpolation[confidence_in_the_middle]:.3f}, on mixed pixels {interpolation[confidence_of_mixed_pixels]:.3f}.",
    Table(
        "missing = mask | by = how | known pixels equal = known_equal | diversity:.3f | PSNR of a completion, dB = psnr_hidden:.1f | "
        "of the nearest training image = nearest:.1f | class preserved = class_kept:.1f % | "
        "by the nearest training image = nearest_kept:.1f %",
        lambda r: [{**row, **of_nearest(r, row["mask"])} for row in r["inpainting"]],
    ),
    *(
        Picture(name.replace("_", " ").capitalize(), f"coopflow_{{data}}_{name}.png")
        for name in ("reconstruction", "lower_half_search", "interpolation")
    ),
]
FLOWS = [
    "Our flow and Glow on digits, {seconds:.0f} CPU seconds each, {seeds_in_words}:",
    Table(
        "flow = row | parameters:,.0f | updates:.0f | bits per dimension = bits_per_dim:.3f | Fréchet distance = frechet:.1f | "
        "CPU seconds per set of samples = sample_cpu_seconds:.2f"
    ),
]
NETS = [
    "Energies of {data}{at_size}: multiplications an image, gradients by x, and images of whole updates, in a CPU second:",
    Table(
        "energy = row | parameters:,.0f | multiplications, millions = millions:.1f | gradients, fp32 = gradient_fp32s_a_second:,.0f | "
        "bf16 = gradient_bf16s_a_second:,.0f | images of updates, fp32 = update_fp32s_a_second:,.0f | bf16 = update_bf16s_a_second:,.0f",
        lambda r: [{**line, "millions": line["multiplications"] / 1e6} for line in r["summary"]],
    ),
]
AT_PRICE = (
    "model = row | seeds | Fréchet distance = frechet:.1f | minus CoopFlow's = above_coopflow ± standard_error:+.1f | "
    "of the initializer = frechet_initializer:.1f | bits per dimension = bits_per_dim:.3f | by several draws = bits_of_several:.3f | "
    "images:,.0f | CPU s = cpu_seconds:.0f"
)
PRICES = ["The two flows alone and together on {data}{at_size} at equal CPU time; the floor is {floor:.1f}:", Table(AT_PRICE)]
SWEEP = [
    "Steps of the chain on {data}{at_size} at equal CPU time; the floor is {floor:.1f}:",
    Table(
        "step = row | Fréchet distance = frechet:.1f | of the initializer = frechet_initializer:.1f | displacement:.3f | "
        "bits per dimension = bits_per_dim:.3f | images:,.0f | CPU s = cpu_seconds:.0f"
    ),
]
COST = [
    "What chains on the spiral cost in training:",
    Table("chain = row | CPU s an update = update_seconds:.3f | updates of the preset = updates:,.0f | CPU hours = hours:.2f"),
]
TOGETHER = [*models_of("The two flows alone and together"), Picture("Samples of CoopFlow", "coopflow_{data}_coopflow.png")]
SHOWN = {
    "spiral": SPIRALS, "images": TOGETHER, "chains": models_of("Lengths, steps and noise of the chain"), "tasks": TASKS, "flows": FLOWS,
    "networks": NETS, "steps": SWEEP, "price": PRICES, "cost": COST,
}  # fmt: skip
PAGE = [Section("CoopFlow", [Shown(f"coopflow_{part}", blocks) for part, blocks in SHOWN.items()])]

if __name__ == "__main__":
    STUDY.main()
