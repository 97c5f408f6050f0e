"""What the metrics share: a model under evaluation, what a comparison holds equal, and the lines of a table."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from thalweg import checkpoint, data
from thalweg import evaluate as ev
from thalweg.data.base import Batch
from thalweg.data.prepare import Given, everything, image_size, in_own_units, trained_concepts, trained_data, trained_name, trained_source
from thalweg.data.toy import TOYS, Toy, toy
from thalweg.drawing import draw
from thalweg.errors import InputError
from thalweg.methods.base import Method, has


@dataclass(frozen=True)
class Settings:
    """What a comparison must hold equal: samples drawn, their seed, the extractor of features, outlier data in addition to those made.

    `ood_images`: how many test images, and outliers of each kind, are scored at most.
    """

    n: int = 1000
    seed: int = 0
    extractor: str = "classifier"
    weights: str | None = None
    outliers: tuple[str, ...] = ()
    ood_images: int = 2000


@dataclass
class Subject:
    """A model under evaluation; what several metrics share is made once. `folder` takes pictures, None for none. `data`: where the data
    are, if not where the model says, or {"train": …, "test": …} with what `tw.data.of` takes. `kept`: a folder in which samples are kept as
    they are drawn, so that a call that is cut off goes on."""

    method: Method
    settings: Settings
    folder: Path | None = None
    pictures: list[tuple[str, Path]] = field(default_factory=list)
    data: Given | None = None
    unwritten: list[str] = field(default_factory=list)
    kept: Path | None = None

    def draw(self, caption: str, name: str, picture: Callable[[Path], Path]) -> None:
        """Make a picture in the folder, if there is one, and list it; where it cannot be made or written, `unwritten` says why."""
        if self.folder is None:
            return
        path = self.folder / f"{name}.png"
        try:
            with checkpoint.writing(path):
                self.pictures.append((caption, picture(path)))
        except InputError as error:
            self.unwritten.append(str(error) if str(error).startswith("cannot write") else f"no picture {path.name}: {error}")

    @property
    def config(self) -> Any:
        """Of the model; the metrics read its data, shape and classes."""
        return self.method.config

    @property
    def name(self) -> str:
        """What to call the data."""
        return trained_name(self.method)

    @property
    def source(self) -> str | None:
        """Where the data are, see `trained_source`."""
        return trained_source(self.method, self.data)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.method.device

    @cached_property
    def truth(self) -> Toy:
        """The toy that the model is of, whose density is known."""
        return toy(str(self.source))

    @cached_property
    def train(self) -> Batch:
        """All training examples."""
        return in_own_units(trained_data(self.method, "train", self.data))

    @cached_property
    def test(self) -> Batch:
        """All test examples."""
        return in_own_units(trained_data(self.method, "test", self.data))

    def sample(self, n: int, **options: Any) -> Tensor:
        """Samples, of a model that is given images from test images."""
        seed = self.settings.seed
        return draw(self.method, n, seed=seed, shown=True, kept=self.kept, **self.method.starts(n, seed), **options)

    @cached_property
    def samples(self) -> Tensor:
        """As many samples as the settings say, labels going round where the model has them."""
        return self.sample(self.settings.n)

    @property
    def takes_labels(self) -> bool:
        """Whether samples can be asked for by label."""
        return has(self.method, "labels")

    @cached_property
    def asked(self) -> Tensor:
        """The labels of `guided`, going round; of several concepts the first one's."""
        concepts = trained_concepts(self.method)
        return torch.arange(self.settings.n) % (len(next(iter(concepts.values()))) if concepts else self.config.classes)

    @cached_property
    def guided(self) -> Tensor:
        """Samples by label, as many as the settings say."""
        return self.sample(self.settings.n, label=self.asked)

    @cached_property
    def extractor(self) -> Any:
        """What turns images into features."""
        if self.settings.extractor != "classifier":
            return ev.extractor_by_name(self.settings.extractor, weights=self.settings.weights)
        name, train, test = self.name, self.train, self.test
        base, _, one = (self.source or "").partition(":")
        if one and base in data.NAMES:  # of one class: the extractor is that of the whole set
            name, size = base, image_size(self.config.shape)
            train, test = (everything(data.load(base, split, size=size)) for split in ("train", "test"))
        if train.label is None:
            raise InputError(
                f"fidelity needs data with labels to train its feature extractor on, {self.name} has none; "
                "take another: --extractor efficientnet-lite0"
            )
        splits = [(part.x, part.label if part.label.dim() == 1 else part.label[:, 0]) for part in (train, test)]
        return ev.extractor(tuple(splits), name=name)

    def classify(self, x: Tensor) -> Tensor:
        """log p(label | x) on the CPU."""
        return self.method.classify(x.to(self.device)).cpu()


class Row(NamedTuple):
    """A line of the table. `value` with its interval is for comparing; `better` is "up", "down" or "" for neither.

    A row that may stand at the head of a report says there what it means, `about`, and what the least or the best to expect is, `floor`.
    """

    name: str
    text: str
    note: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    better: str = ""
    floor: str = ""
    about: str = ""


def line(
    name: str, value: float, form: str, interval: Any = None, note: str = "", better: str = "", floor: str = "", about: str = ""
) -> Row:
    """A Row whose value is written in the format `form`, with its interval in the note."""
    low, high = (None, None) if interval is None else interval
    unit = " %" if form.endswith("%") else ""
    text = format(value, form).replace("%", unit)
    if low is not None:
        span = f"95 % interval {format(low, form).replace('%', '')} to {format(high, form).replace('%', '')}"
        note = f"{span}; {note}" if note else span
    return Row(name, text, note, value, low, high, better, floor, about)


def commonest(label: Tensor) -> float:
    """The share of the most frequent label: how often one is right who always says it."""
    return float(label.flatten().bincount().max()) / label.numel()


def data_kind(method: Any, given: Given | None = None) -> str:
    """What the data of a model are, or those `given`: "toy", "stacks" of images, "images", or "vectors"."""
    source = trained_source(method, given) or ""
    if source in TOYS:
        return "toy"
    if source.startswith("stacked-"):
        return "stacks"
    return "images" if len(method.config.shape) == 3 else "vectors"


class Metric(NamedTuple):
    """How a metric is measured and told as rows; the abilities that it needs, the kinds of data that it fits (see `data_kind`; all where
    none is named), whether they must have labels, and whether it is quick enough to be made unasked."""

    measure: Callable[[Subject], dict[str, Any]]
    rows: Callable[[dict[str, Any]], list[Row]]
    needs: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    labelled: bool = False
    automatic: bool = True

    def fits(self, method: Any, given: Given | None = None) -> bool:
        """Whether a model has the abilities, and data of that kind, its own or those `given`."""
        right_data = not self.data or data_kind(method, given) in self.data
        return has(method, *self.needs) and right_data and (bool(method.config.classes) or not self.labelled)
