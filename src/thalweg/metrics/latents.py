"""Of encoders: what classes their vectors tell apart."""

from dataclasses import asdict
from typing import Any

import torch

from thalweg import evaluate as ev
from thalweg import plot
from thalweg.metrics.base import Row, Subject, line


def latents(s: Subject) -> dict[str, Any]:
    train, test = (torch.cat([s.method.encode(x.to(s.device)).cpu() for x in part.x.split(512)]) for part in (s.train, s.test))
    some = slice(0, 2000)
    caption = "t-SNE of the latents of held-out images, coloured by class"
    s.draw(caption, "latents", lambda path: plot.embedding(ev.tsne(test[some], seed=s.settings.seed), path, labels=s.test.label[some]))
    return {
        "linear_probe": asdict(ev.linear_probe(train, s.train.label, test, s.test.label)),
        "knn": asdict(ev.knn(train, s.train.label, test, s.test.label)),
    }


def latents_rows(r: dict[str, Any]) -> list[Row]:
    names = {"linear_probe": "linear probe of latents", "knn": "nearest neighbours of latents"}
    return [line(name, a["value"], ".1%", (a["low"], a["high"]), better="up") for key, name in names.items() for a in (r[key]["accuracy"],)]
