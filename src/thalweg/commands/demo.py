"""`thalweg demo`: what a trained model of the zoo can do, in seconds, on one page."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from thalweg.commands.options import check_seed, parse
from thalweg.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

A_ROW, OTHERS = 6, 12  # pictures in a row; of each kind of outliers
KINDS = ("uniform", "noise", "constant", "shuffled")


@dataclass
class Options:
    """Draw from a model of the zoo, fill in what is hidden, take noise off, flag what is no such picture; one HTML page shows it."""

    model: Annotated[str, "positional"] = ""
    """a model of `thalweg zoo`, or any run or exported model of images; the zoo's first by default"""
    out: Path = Path("runs/demo")
    """folder of the page and its pictures"""
    seed: int = 0
    """seed of all draws"""
    open: bool = False
    """open the page in a browser"""


def run(arguments: list[str]) -> None:
    options = parse(Options, arguments, "demo")
    check_seed(options.seed)
    from thalweg.commands.zoo import models

    name = options.model or next(iter(models()), "")
    if not name:
        raise InputError("this installation has no models; a clone of the repository has some, or name a run: thalweg demo runs/digits")
    page = show(f"zoo:{name}" if name in models() else name, options.out, options.seed)
    print(f"page: {page}")
    if options.open:
        import webbrowser

        webbrowser.open(page.resolve().as_uri())


def show(name: str, out: Path, seed: int = 0) -> Path:
    """Make the page of a model and return its path; InputError for a model that draws no pictures."""
    started = time.monotonic()
    from thalweg import report
    from thalweg.latent import load
    from thalweg.methods.base import has, needs

    method = load(name)
    needs("demo", method, "sample")
    if len(method.config.shape) != 3:
        raise InputError(f"demo is for models of images, {name} is of vectors {list(method.config.shape)}")
    out.mkdir(parents=True, exist_ok=True)
    said(f"{name} loaded", started)
    x = drawn(method, seed)
    parts: list[tuple[str, Callable[..., tuple[str, Path]]]] = [("sample", samples)]
    parts += [("constraint", filled)] if has(method, "constraint") else []
    parts += [("denoise", denoised)] if has(method, "denoise") else []
    parts += [("energy", flagged)] if has(method, "energy") else []
    pictures = []
    for _, part in parts:
        caption, path = part(method, x, out, seed)
        pictures.append((caption, path.relative_to(out)))
        said(caption.partition(":")[0], started)
    took = time.monotonic() - started
    return report.write(
        out, title=f"What {name} can do", pictures=pictures, config={"method": method.name, "config": vars(method.config)},
        footer=f"Made by `thalweg demo {name.removeprefix('zoo:')}` in {took:.0f} s. {_tries(name)}", name="index.html",
    )  # fmt: skip


def said(what: str, started: float) -> None:
    print(f"{time.monotonic() - started:5.1f} s  {what}", file=sys.stderr, flush=True)


def _tries(name: str) -> str:
    return f"Go on: thalweg sample {name} -n 64 --out samples.png; thalweg apply inpaint {name} --input pictures/ --out filled.png"


def drawn(method: Any, seed: int) -> "Tensor":
    """Samples, a row of them a class where there are classes."""
    import torch

    from thalweg.methods.base import has

    asked: dict[str, Any] = {}
    if has(method, "labels"):
        asked["label"] = torch.arange(method.config.classes).repeat_interleave(A_ROW)
    n = len(asked["label"]) if asked else A_ROW**2
    return method.sample(n, seed=seed, **asked, **method.starts(n, seed))


def samples(method: Any, x: "Tensor", out: Path, seed: int) -> tuple[str, Path]:
    from thalweg import plot
    from thalweg.data.prepare import trained_classes
    from thalweg.methods.base import has

    classes = f", a row each: {', '.join(trained_classes(method))}" if has(method, "labels") else ""
    return f"Samples by label{classes}" if classes else "Samples", plot.grid(x, out / "samples.png", columns=A_ROW)


def filled(method: Any, x: "Tensor", out: Path, seed: int) -> tuple[str, Path]:
    """Samples whose lower half is hidden and filled in anew, twice each."""
    import torch

    from thalweg import plot
    from thalweg.methods.base import has
    from thalweg.tasks import inpaint

    some = x[:: max(1, len(x) // A_ROW)][:A_ROW]
    mask = torch.ones_like(some[:1, :1])
    mask[..., some.shape[2] // 2 :, :] = 0
    quick = {"posterior": True, "corrections": 1} if has(method, "evidence") else {}
    fillings = inpaint(method, some, mask, completions=2, seed=seed, **quick)
    rows = torch.cat([some, torch.where(mask.bool(), some, torch.zeros(())), *fillings])
    caption = "Hidden halves filled in: a sample, what was left of it, and two completions below each other"
    return caption, plot.grid(rows, out / "filled.png", columns=len(some))


def denoised(method: Any, x: "Tensor", out: Path, seed: int) -> tuple[str, Path]:
    import torch

    from thalweg import plot, random
    from thalweg.tasks import denoise

    some, std = x[:: max(1, len(x) // A_ROW)][:A_ROW], 0.5
    noisy = some + std * random.normal_like(some, random.seeded(seed, 21))
    rows = torch.cat([some, noisy.clamp(-1, 1), denoise(method, noisy, std).clamp(-1, 1)])
    return f"Noise of standard deviation {std} taken off: sample, with noise, without", plot.grid(
        rows, out / "denoised.png", columns=len(some)
    )


def flagged(method: Any, x: "Tensor", out: Path, seed: int) -> tuple[str, Path]:
    """Scores of fresh samples and of what is no such picture, by the score of all levels where there is one."""
    import torch

    from thalweg import evaluate, plot, random
    from thalweg.evaluate.scores import fitting_scores

    score = "levels" if "levels" in fitting_scores(method) and len(x) >= 30 else "energy"
    given: dict[str, Any] = {"reference": x} if score == "levels" else {}
    asked = {"label": torch.arange(OTHERS) % method.config.classes} if "labels" in method.abilities else {}
    fresh = method.sample(OTHERS, seed=seed + 1, **asked, **method.starts(OTHERS, seed + 1))
    others = {"fresh samples": fresh} | {kind: evaluate.outliers(kind, x, OTHERS, seed) for kind in KINDS}
    faint = 1e-3 * random.normal_like(x[:OTHERS], random.seeded(seed, 22))  # scores of equal pictures would all be tied
    others["black"] = -1 + faint.abs()
    values = {kind: evaluate.outlier_scores(method, some, [score], **given)[score] for kind, some in others.items()}
    least = min(float(value.min()) for value in values.values())
    above = {kind: (1 + value - least).log10() for kind, value in values.items()}  # scores span several powers of ten
    caption = f"What is no such picture: the score '{score}', further right is stranger"
    return caption, plot.histogram(
        above, out / "outliers.png", label=f"log₁₀ of (1 + score '{score}' less the least of all, nats)", bins=30
    )
