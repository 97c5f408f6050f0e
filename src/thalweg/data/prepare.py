"""Data as a model takes them: at its size, encoded, with images of a source domain, with several views of an object in a row."""

from typing import Any

from torch import Tensor

from ..errors import InputError
from . import Unpaired, UnpairedBatch, group_views, load
from .base import Batch, Data
from .images import Size, TooFew
from .toy import TOYS, toy
from .vectors import Table

HELD_OUT = 512  # examples that the best state is chosen by


def image_size(shape: tuple[int, ...]) -> Size | None:
    """The `size` of images [C, H, W]: a side where they are square, else (height, width); None for other data."""
    if len(shape) != 3:
        return None
    return shape[1] if shape[1] == shape[2] else (shape[1], shape[2])


def sized(config: Any, name: str, split: str, *, size: Size | None = None) -> Data:
    """The `split` of the data `name`: the config's own at its size, others at their own, unless `size` says which.

    Raises InputError for unknown data, and for a size of data that have none.
    """
    if size is None and name == config.data and name not in TOYS and not config.data_needs.autoencoder:
        size = image_size(config.shape)
    return load(name, split, size=size)


def prepare(config: Any, name: str, split: str, *, size: Size | None = None, device: str = "cpu") -> Data:
    """As `sized`, with all that a model of `config` is trained on, by `config.data_needs`; encoding runs on `device`.

    Raises InputError for data without what the model needs.
    """
    needs, found = config.data_needs, sized(config, name, split, size=size)
    if needs.autoencoder:
        from ..latent import wrap

        found = wrap(found, needs.autoencoder, device=device)
    if needs.source:
        found = Unpaired(found, load(needs.source, split, size=image_size(found.shape), channels=found.shape[0]))
    return group_views(found, needs.views)


def held_out(config: Any, name: str, *, size: Size | None = None, device: str = "cpu") -> Batch | None:
    """The batch that the best state is chosen by: prepared validation examples, or fresh points of a toy.

    None for data of the hub, whose validation split need not exist, and where there are fewer than 3 examples, or too few to split.
    """
    needs = config.data_needs
    if name in TOYS:
        return toy(name).batch(0, HELD_OUT, seed=1)
    if name.startswith("hf:") or needs.source.startswith("hf:"):
        return None
    try:
        found: Any = prepare(config, name, "validation", size=size, device=device)
    except TooFew:
        return None
    if isinstance(found, Unpaired):
        x = everything(found.target).x[:HELD_OUT]
        start = everything(found.source).x[: len(x)]
        return UnpairedBatch(x[: len(start)], None, start) if len(start) >= 3 else None
    rows, whole = HELD_OUT // needs.views * needs.views, everything(found)
    return type(whole)(*(None if part is None else part[:rows] for part in whole)) if len(whole.x) >= 3 else None


def everything(data: Any) -> Batch:
    """Every example once, in order; InputError for a stream."""
    if not hasattr(data, "all"):
        raise InputError(f"{data.name} is a stream, whose examples are never all there; give data that fit into memory")
    return data.all()


def in_own_units(data: Any) -> Batch:
    """As `everything`, vectors in the data's own units, as the models take them that are loaded."""
    whole = everything(data)
    return Batch(data.decode(whole.x), whole.label) if isinstance(data, Table) else whole


def source_images(config: Any, split: str, n: int) -> Tensor:
    """`n` images of the domain that a translation starts from, in the shape of its config: [n, C, H, W]."""
    return load(config.data_needs.source, split, size=image_size(config.shape), channels=config.shape[0]).batch(0, n, seed=0).x
