"""Of images: how samples compare with data, whether they are copies, modes of stacks, denoising."""

from dataclasses import asdict
from typing import Any

import torch

from thalweg import evaluate as ev
from thalweg import plot, random
from thalweg.data.prepare import trained_data
from thalweg.metrics.base import Row, Subject, line


def fidelity(s: Subject) -> dict[str, Any]:
    # the extractor first: where it cannot be had, nothing has been drawn in vain
    found: dict[str, Any] = {"extractor_test_accuracy": getattr(s.extractor, "test_accuracy", None)}
    kinds = {"samples": s.samples} | ({"guided samples": s.guided} if s.takes_labels else {})
    for kind, x in kinds.items():
        # the first ones, not a random draw: labels go round, so that as many of each class are compared as there are in the test set
        every, x = x, x[: len(s.test.x)]
        # a covariance needs more images than features, which small test sets do not have for the large extractors
        few = s.settings.extractor != "classifier" and min(len(x), len(s.train.x)) <= s.extractor.num_features
        metrics = ("kid", "prdc") if few else None
        found[kind] = asdict(ev.fidelity(s.train.x, x, s.extractor, held_out=s.test.x, metrics=metrics, n=len(x), seed=s.settings.seed))
        if len(every) > len(x):  # as papers have it, with no floor at that number
            found[f"all {kind}"] = asdict(ev.fidelity(s.train.x, every, s.extractor, metrics=metrics, seed=s.settings.seed))
        shown, caption = x, f"{kind.capitalize()} of the trained model"
        if kind == "guided samples":
            classes = s.config.classes
            shown, caption = s.guided[: 10 * classes], caption + ", one row a class"
            shown = shown.view(-1, classes, *s.config.shape).transpose(0, 1).flatten(0, 1) if len(shown) == 10 * classes else shown
        s.draw(caption, kind.replace(" ", "_"), lambda path, shown=shown: plot.grid(shown[:100], path, columns=10))
    if s.takes_labels and hasattr(s.extractor, "test_accuracy"):
        found["class_accuracy"] = asdict(ev.class_accuracy(s.guided, s.asked, s.extractor))
    return found


# what the figures at the head of a report mean
FIDELITY = {
    "frechet": "How far samples as a whole lie from real images, in a network's features. New real images have the floor.",
    "recall": "The share of real images that have a sample near them: what the model leaves out lowers it.",
}


def fidelity_rows(r: dict[str, Any]) -> list[Row]:
    table = []
    for kind in ("guided samples", "samples", "all guided samples", "all samples"):
        for figure in ("frechet", "kid", "inception_score", "precision", "recall", "density", "coverage"):
            f = r.get(kind, {}).get(figure)
            if f is None:
                continue
            note = f"{r[kind]['n']:,} samples" if f["held_out"] is None else f"real held-out images {f['held_out']:.4g}"
            if figure == "frechet" and f["held_out"] is not None:
                note = f"{f['value'] / f['held_out']:.2f} × the floor {f['held_out']:.2f}, {r[kind]['n']} real held-out images"
            form = ".2f" if figure in ("frechet", "inception_score") else ".4f" if figure == "kid" else ".3f"
            interval = None if f["low"] is None else (f["low"], f["high"])
            floor = "" if f["held_out"] is None else f"real images {format(f['held_out'], form)}"
            about = "" if figure == "recall" and "guided samples" in r else FIDELITY.get(figure, "")
            better = "down" if figure in ("frechet", "kid") else "up"
            table.append(line(f"{f['name']}, {kind}", f["value"], form, interval, note, better, floor, about))
        if kind == "guided samples" and (c := r.get("class_accuracy")):
            real, note = r.get("extractor_test_accuracy"), f"by the extractor, n = {c['n']}"
            floor = "" if real is None else f"real images {100 * real:.1f} %"
            about = "Samples that a classifier of the same data takes for the class that was asked for."
            table.append(line("class accuracy of guided samples", c["value"], ".1%", (c["low"], c["high"]), note, "up", floor, about))
    return table


def neighbours(s: Subject) -> dict[str, Any]:
    found = ev.memorisation(s.samples, s.train.x, s.test.x)
    shown = s.samples[:10]
    nearest = ev.nearest_neighbours(shown, s.train.x, k=7).indices
    caption = "Samples, first of each row, and their nearest training images in pixels"
    s.draw(caption, "neighbours", lambda path: plot.neighbours(shown, s.train.x, nearest, path))
    return asdict(found)


def neighbours_rows(r: dict[str, Any]) -> list[Row]:
    note = f"{100 * r['expected']:.0f} % expected of new images; {r['copies']} near copies among {r['n']}"
    about = "Samples that lie nearer to a training image than new real images do. Well above the floor the model copies."
    floor, name = f"new images {100 * r['expected']:.0f} %", "samples closer to training images than new images are"
    return [line(name, r["closer"], ".1%", (r["low"], r["high"]), note, floor=floor, about=about)]


def modes(s: Subject) -> dict[str, Any]:
    stacks: Any = trained_data(s.method, "test", s.data)
    held_out = stacks.batch(0, s.settings.n, seed=0)
    return asdict(ev.stacked_modes(s.samples, ev.extractor(stacks.base.name.removesuffix("/test")), held_out=tuple(held_out)))


def modes_rows(r: dict[str, Any]) -> list[Row]:
    m, real = r["samples"], r["held_out"]
    note = (
        f"a perfect sampler hits {r['perfect_modes']:.0f} with {m['n']} samples; {r['name']} is right on {100 * r['stack_accuracy']:.1f} %"
    )
    kl = f"nats, corrected for n; real stacks {real['kl_corrected']:.3f}"
    return [
        line(
            f"modes covered of {m['possible']}", m["modes"], "d", note=note, better="up",
            floor=f"a perfect sampler {r['perfect_modes']:.0f}",
            about="Kinds of stacks that are among the samples: what the model has dropped is missing.",
        ),
        line(
            "KL(model‖data) over modes", m["kl_corrected"], ".3f", (m["low"], m["high"]), kl, "down",
            f"real stacks {real['kl_corrected']:.3f}",
            "How unevenly samples fall on the kinds, in nats.",
        ),
    ]  # fmt: skip


def restoration(s: Subject) -> dict[str, Any]:
    n = min(256, len(s.test.x))
    clean, found = s.test.x[:n], {}
    for std in (0.1, 0.3, 0.6):
        noisy = clean + std * random.normal(*clean.shape, generator=random.seeded(s.settings.seed, int(1000 * std)))
        restored = s.method.denoise(noisy.to(s.device), std, seed=s.settings.seed).cpu().clamp(-1, 1)
        found[f"noise {std}"] = asdict(ev.restoration(clean, restored, observed=noisy.clamp(-1, 1)))
        rows = torch.cat([clean[:10], noisy[:10].clamp(-1, 1), restored[:10]])
        caption = f"Denoising at standard deviation {std}: held-out images, with noise, restored"
        s.draw(caption, f"denoised_{std}", lambda path, rows=rows: plot.grid(rows, path, columns=10))
    return found


def restoration_rows(r: dict[str, Any]) -> list[Row]:
    table = []
    for kind, q in r.items():
        for figure, form in (("psnr", ".2f"), ("ssim", ".4f")):
            f = q["restored"][figure]
            before = f"before {format(q['observed'][figure]['value'], form)}"
            note = f"{'dB, ' if figure == 'psnr' else ''}{before}"
            about = "How near held-out images come back when noise is taken off them, in dB." if figure == "psnr" else ""
            name = f"{figure.upper()} after denoising, {kind}"
            table.append(line(name, f["value"], form, (f["low"], f["high"]), note, "up", before, about))
    return table
