"""Of models of objects in space: new views of held-out ones."""

from typing import Any

import torch

from thalweg import evaluate as ev
from thalweg import plot, tasks
from thalweg.data.prepare import trained_data
from thalweg.metrics.base import Row, Subject, line


def views(s: Subject) -> dict[str, Any]:
    """Held-out objects from two of their images, seen from four sides that were not given, against the mean training image's PSNR."""
    held_out: Any = trained_data(s.method, "test", s.data)
    made = tasks.new_views(s.method, held_out, objects=min(50, s.settings.n), seed=s.settings.seed)
    truth = made.truth.flatten(0, 1)
    mean = s.train.x.mean(0, keepdim=True).expand_as(truth)
    rows = torch.cat([part[:8] for part in (made.given, made.rebuilt.cpu(), made.x.cpu(), made.truth)], 1)
    caption = "Held-out objects: two images that are given, the same and four others as the model sees them, and the true ones"
    s.draw(caption, "views", lambda path: plot.grid(rows.flatten(0, 1), path, columns=rows.shape[1], least=64))
    grid = tasks.recombine(s.method, seed=s.settings.seed).x.cpu()
    s.draw(
        "Shapes (columns) in colours (rows)", "recombined", lambda path: plot.grid(grid.flatten(0, 1), path, columns=len(grid), least=64)
    )
    # images of an object are no independent witnesses: the interval is over objects
    found = ev.psnr(truth, made.x.cpu().flatten(0, 1), range=(-1, 1)).unflatten(0, made.x.shape[:2]).mean(1)
    margin = 1.96 * float(found.std(correction=min(1, len(found) - 1))) / len(found) ** 0.5
    value = float(found.mean())
    return {
        "psnr": {"value": value, "low": value - margin, "high": value + margin, "n": len(found)},
        "of_mean_image": float(ev.psnr(truth, mean, range=(-1, 1)).mean()),
    }


def views_rows(r: dict[str, Any]) -> list[Row]:
    p = r["psnr"]
    note = f"dB, {p['n']} held-out objects; the mean training image {r['of_mean_image']:.2f}"
    floor, about = (
        f"the mean training image {r['of_mean_image']:.2f}",
        "How near new views of held-out objects come to the true ones, in dB.",
    )
    return [line("PSNR of new views from two", p["value"], ".2f", (p["low"], p["high"]), note, "up", floor, about)]
