"""`thalweg sample`: samples of a run or a model, as a picture or as arrays."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from thalweg.commands.options import above_zero, check_seed, method_class, parse, usable
from thalweg.errors import InputError, nearest

if TYPE_CHECKING:
    from torch import Tensor

# options that are passed to the method's own `sample`, where they are given
PASSED = ("guide", "resample", "corrections", "population", "proposals", "steps", "eta", "spacing", "chain_noise")

WIDEST = 20  # columns of a picture of all classes


@dataclass
class Options:
    """Draw samples from a run or an exported model into a picture (.png), an array file (.npz) or, of vectors, a table (.csv)."""

    model: Annotated[str, "positional"]
    """run folder, exported folder or hub name"""
    out: Path
    """FILE.png, FILE.npz or, of vectors, FILE.csv"""
    n: Annotated[int, "short"] = 64
    """number of samples"""
    seed: int = 0
    """the same seed gives the same samples"""
    label: str | None = None
    """a class by name or number, or `all` for every class in turn; of several concepts CONCEPT=VALUE,CONCEPT=VALUE"""
    guidance: str | None = None
    """guidance of samples by label: one number, or CONCEPT=NUMBER,CONCEPT=NUMBER; 1 is p(x | label), 0 leaves the label out"""
    guide: Literal["both", "initializer"] | None = None
    """what guidance weighs, where the method has both: energies and proposals (both), or proposals alone (initializer)"""
    resample: int | None = None
    """times that each noise level is drawn, noised up again in between, where the method can; brings concepts together"""
    corrections: int | None = None
    """steps of MALA at each noise level, where the method can: what is sampled there is then the composed energy itself"""
    population: int | None = None
    """particles for each sample, weighed and drawn again at each noise level, where the method can; the other way to the composed energy"""
    proposals: int | None = None
    """draws of each step, of which one is kept by its weight under the energy, where the method can"""
    steps: int | None = None
    """sampling steps"""
    eta: float | None = None
    """1 DDPM, 0 DDIM, where the method walks noise levels"""
    spacing: Literal["even", "quadratic"] | None = None
    """levels that the steps stop at, where the method can: evenly spaced, or most of them at low noise"""
    chain_noise: float | None = None
    """standard deviation of a chain's first noise, where the method can and it is to be another than in training"""
    which: str = "last"
    """state of a run: last or best"""
    device: str = "auto"
    """cpu, cuda, mps or auto"""
    kind: str | None = None
    """FILE.py:CLASS of a method of your own"""


def run(arguments: list[str]) -> None:
    options = parse(Options, arguments, "sample")
    above_zero(options, "n", "steps", "resample", "population", "proposals")
    if options.corrections is not None and options.corrections < 0:
        raise InputError(f"--corrections must be 0 or more, got {options.corrections}")
    check_seed(options.seed)
    if options.eta is not None and not 0 <= options.eta <= 1:
        raise InputError(f"--eta must be between 0 (DDIM) and 1 (DDPM), got {options.eta}")
    if options.out.suffix not in (".png", ".npz", ".csv"):
        raise InputError(f"--out {options.out}: the name must end in .png, .npz or .csv")
    if not options.out.parent.is_dir():
        raise InputError(f"the folder {options.out.parent} does not exist")
    if options.out.is_dir():
        raise InputError(f"--out {options.out} is a folder; give a file")
    from thalweg.latent import load

    kind = method_class(options.kind)
    method = load(options.model, which=options.which, device=usable(options.device), kind=kind)
    given = {name: getattr(options, name) for name in PASSED}
    if options.guidance is not None:
        given["guidance"] = guidance_weights(method, options.guidance)
    given = {name: value for name, value in given.items() if value is not None}
    written = write_samples(method, options.out, options.n, seed=options.seed, label=options.label, **given)
    if written is not None:
        print(written)


def write_samples(method: Any, out: Path, n: int, *, seed: int = 0, label: str | None = None, **given: Any) -> Path | None:
    """Draw `n` samples and write them to a .png, .npz or .csv; `given` are options of the method's `sample`.

    Under torchrun the processes share the drawing, and the first one writes; the others return None.
    """
    from thalweg import plot
    from thalweg.commands.files import write_arrays, write_table
    from thalweg.data.prepare import trained_classes, trained_source
    from thalweg.data.toy import TOYS, toy
    from thalweg.distributed import World
    from thalweg.drawing import draw
    from thalweg.methods.base import check_sampling

    labels = None if label is None else class_labels(method, label, n)
    given |= ({} if labels is None else {"label": labels}) | method.starts(n, seed)
    check_sampling(method, given)
    if out.suffix == ".csv" and len(method.config.shape) != 1:
        raise InputError(f"--out {out}: a .csv is for vectors, this model is of {list(method.config.shape)}; use .png or .npz")
    try:
        x = draw(method, n, seed=seed, shown=True, **given)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{method.name} cannot sample so: {error}") from None
    if not World.current().first:
        return None
    if out.suffix == ".npz":
        write_arrays(out, x=x, **({} if labels is None else {"y": labels}))
    elif out.suffix == ".csv":
        write_table(out, x, () if method.units is None else method.units.columns, labels, trained_classes(method))
    elif x.dim() == 4:
        # of all classes in turn each has its column
        plot.grid(x, out, columns=classes if label == "all" and 1 < (classes := method.config.classes) <= WIDEST else None)
    elif (truth := trained_source(method)) in TOYS:
        plot.density({method.name: method.energy}, toy(str(truth)), out, samples=x)
    else:
        raise InputError(f"samples of shape {tuple(x.shape[1:])} make no picture; use --out FILE.csv or FILE.npz")
    return out


def class_labels(method: Any, label: str, n: int) -> "Tensor":
    """The labels that --label asks for: [n], or [n, M] of several concepts."""
    import torch

    from thalweg import data
    from thalweg.data.prepare import trained_classes, trained_concepts

    config = method.config
    concepts = trained_concepts(method)
    if concepts:
        return data.attributes.asked_label(label, concepts, n)
    if label == "all":
        return torch.arange(n) % max(1, config.classes)
    names = trained_classes(method)
    if label in names:
        return torch.full((n,), names.index(label))
    if label.isdecimal() and int(label) < max(1, config.classes):
        return torch.full((n,), int(label))
    raise InputError(f"unknown class '{label}'{nearest(label, names)}. Classes: {', '.join(names) or 'none'}")


def guidance_weights(method: Any, text: str) -> float | list[float]:
    """The number, or the numbers for each concept, that --guidance gives; the model's own for concepts that are not named."""
    from thalweg import data
    from thalweg.data.prepare import trained_concepts

    return data.attributes.asked_guidance(text, trained_concepts(method), method.default_guidance)
