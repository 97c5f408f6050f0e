"""What a run shows of itself while it trains."""

from pathlib import Path
from typing import Any

import torch

from thalweg import plot, tasks
from thalweg.data.prepare import source_images, trained_concepts, trained_source
from thalweg.data.toy import TOYS, toy
from thalweg.latent import as_images
from thalweg.methods.base import Method, has

SHOWN = 100  # samples by label of a picture


def picture(method: Method, path: Path, images: int) -> None:
    """A grid of samples, pixels alone; of a model that is given images what it makes of them; of a toy density and samples.

    With labels a row is a class, or a value of the first concept, where there are several; of more than ten, classes have fewer samples
    each, in their order, so that no picture is of more than about `SHOWN`. Nothing for a model without samples, such as an encoder or a
    plain classifier.
    """
    model: Any = as_images(method)
    if not has(model, "sample"):
        return
    config = model.config
    if has(model, "given"):
        if has(model, "translate"):
            start = source_images(method, "validation", 32)
            found = tasks.translate(model, start).x
        else:
            start = model.starts(32)["start"]
            found = model.sample(len(start), start=start)
        plot.grid(torch.stack([start.clamp(-1, 1), found.cpu()], 1).flatten(0, 1), path, columns=8)
    elif len(config.shape) == 3 and has(model, "labels"):
        values = [len(values) for values in trained_concepts(model).values()] or [config.classes]
        labels = shown_labels(values[0])  # the labels of the first concept come first
        plot.grid(model.sample(len(labels), seed=0, label=labels), path, columns=10)
    elif len(config.shape) == 3:
        plot.grid(model.sample(64, seed=0), path)
    elif (truth := trained_source(model)) in TOYS and has(model, "energy"):
        plot.density({f"{images:,} images": model.energy}, toy(truth), path, samples=model.sample(1000, seed=0))


def shown_labels(classes: int) -> torch.Tensor:
    """The labels of a picture's samples, 10 of each of up to 10 classes, fewer of each of more; of more than `SHOWN` classes some: [N]."""
    kinds = torch.arange(classes) if classes <= SHOWN else torch.linspace(0, classes - 1, SHOWN).round().long()
    return kinds.repeat_interleave(max(1, min(10, SHOWN // classes)))
