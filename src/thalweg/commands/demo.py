"""`thalweg demo`: what a trained model of the zoo can do, in seconds, on one page."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from thalweg.commands.options import check_seed, parse
from thalweg.errors import InputError
from thalweg.progress import Work, say

if TYPE_CHECKING:
    from torch import Tensor

ROWS, WIDEST, SOME = 4, 10, 5  # of samples, of which a row is so wide at most; pictures that are filled in and denoised
OTHERS = 8  # of each kind of outliers
KINDS = {"uniform": "uniform noise", "noise": "Gaussian noise", "constant": "one grey", "shuffled": "pixels shuffled"}


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

    with Work(f"loading {name}") as work:
        method = load(name)
        needs("demo", method, "sample")
        if len(method.config.shape) != 3:
            raise InputError(f"demo is for models of images, {name} is of vectors {list(method.config.shape)}")
        out.mkdir(parents=True, exist_ok=True)
        said(f"{name} loaded", started)
        work.note(0, "drawing samples")
        x = drawn(method, seed)
        parts: list[tuple[str, Callable[..., tuple[str, Path]]]] = [("drawing samples", samples)]
        parts += [("filling in what is hidden", filled)] if has(method, "constraint") else []
        parts += [("taking noise off", denoised)] if has(method, "denoise") else []
        parts += [("scoring what is no such picture", flagged)] if has(method, "energy") else []
        pictures = []
        for doing, part in parts:
            work.note(0, doing)
            caption, path = part(method, x, out, seed)
            pictures.append((caption, path.relative_to(out)))
            said(caption.partition(":")[0], started)
        took = time.monotonic() - started
    return report.write(
        out, title=f"What {name} can do", facts=facts(name, method, seed, took), pictures=pictures,
        config={"method": method.name, "config": vars(method.config)}, footer=_tries(name), name="index.html",
    )  # fmt: skip


def facts(name: str, method: Any, seed: int, took: float) -> dict[str, str]:
    """What the page says first: what the model is and has learned from, how long that took in the zoo, and how the page was made."""
    from thalweg.commands.list import about
    from thalweg.methods import METHODS

    what = f": {about(method.name)}" if method.name in METHODS else ""
    shape = "×".join(map(str, method.config.shape))
    told = {"method": f"{method.name}{what}", "learned from": f"{method.config.data}, {shape}"}
    if name.startswith("zoo:"):
        from thalweg.commands.zoo import HOME, trained

        told["trained"] = trained(HOME / name.removeprefix("zoo:"))
    return told | {"this page": f"{took:.0f} s, seed {seed}"}


def said(what: str, started: float) -> None:
    say(f"{time.monotonic() - started:5.1f} s  {what}")


def _tries(name: str) -> str:
    apply = f"thalweg apply inpaint {name} --input pictures/ --out filled.png"
    return "\n".join(["To go on:", f"thalweg app {name}", f"thalweg sample {name} -n 64 --out samples.png", apply])


def drawn(method: Any, seed: int) -> "Tensor":
    """Samples, a column of them a class where there are so few classes."""
    import torch

    from thalweg.methods.base import has

    n, asked = ROWS * _columns(method), {}
    if has(method, "labels"):
        asked["label"] = torch.arange(n) % method.config.classes
    return method.sample(n, seed=seed, **asked, **method.starts(n, seed))


def _columns(method: Any) -> int:
    from thalweg.methods.base import has

    return method.config.classes if has(method, "labels") and 1 < method.config.classes <= WIDEST else WIDEST


def samples(method: Any, x: "Tensor", out: Path, seed: int) -> tuple[str, Path]:
    from thalweg import plot
    from thalweg.data.prepare import trained_classes
    from thalweg.methods.base import has

    columns, classes = _columns(method), trained_classes(method) if has(method, "labels") else ()
    caption = f"Samples by label, a column each: {', '.join(classes)}" if len(classes) == columns else "Samples"
    return caption, plot.grid(x, out / "samples.png", columns=columns)


def filled(method: Any, x: "Tensor", out: Path, seed: int) -> tuple[str, Path]:
    """Samples whose lower half is hidden and filled in anew, twice each."""
    import torch

    from thalweg import plot
    from thalweg.methods.base import has
    from thalweg.tasks import inpaint

    some = x[:SOME]
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

    some, std = x[:SOME], 0.5
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
    others = {"fresh samples": fresh} | {said: evaluate.outliers(kind, x, OTHERS, seed) for kind, said in KINDS.items()}
    faint = 1e-3 * random.normal_like(x[:OTHERS], random.seeded(seed, 22))  # scores of equal pictures would all be tied
    others["black"] = -1 + faint.abs()
    values = {kind: evaluate.outlier_scores(method, some, [score], **given)[score] for kind, some in others.items()}
    least = min(float(value.min()) for value in values.values())
    above = {kind: 1 + value - least for kind, value in values.items()}  # scores span several powers of ten
    what = "the least energy of all" if score == "energy" else "the score of the likeliest"
    caption = "What is no such picture is flagged: the further right, the stranger; the score is " + (
        "the energy" if score == "energy" else "by the energies of all noise levels"
    )
    return caption, plot.strip(above, out / "outliers.png", label=f"1 + nats above {what}", log=True)
