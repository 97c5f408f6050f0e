"""Of encoders: what classes their vectors tell apart."""

from dataclasses import asdict
from typing import Any

import torch

from thalweg import evaluate as ev
from thalweg import plot
from thalweg.metrics.base import Row, Subject, commonest, line


def latents(s: Subject) -> dict[str, Any]:
    train, test = (torch.cat([s.method.encode(x.to(s.device)).cpu() for x in part.x.split(512)]) for part in (s.train, s.test))
    some = slice(0, 2000)
    caption = "t-SNE of the latents of held-out images, coloured by class"
    s.draw(caption, "latents", lambda path: plot.embedding(ev.tsne(test[some], seed=s.settings.seed), path, labels=s.test.label[some]))
    return {
        "linear_probe": asdict(ev.linear_probe(train, s.train.label, test, s.test.label)),
        "knn": asdict(ev.knn(train, s.train.label, test, s.test.label)),
        "chance": commonest(s.test.label),
    }


def latents_rows(r: dict[str, Any]) -> list[Row]:
    names = {"linear_probe": "linear probe of latents", "knn": "nearest neighbours of latents"}
    about = {
        "linear_probe": "Held-out images whose class a linear classifier reads off the vectors.",
        "knn": "Held-out images whose class their nearest training images have.",
    }
    floor = "" if "chance" not in r else f"the most frequent class {100 * r['chance']:.1f} %"
    found = {key: r[key]["accuracy"] for key in names}
    return [line(names[key], a["value"], ".1%", (a["low"], a["high"]), "", "up", floor, about[key]) for key, a in found.items()]
