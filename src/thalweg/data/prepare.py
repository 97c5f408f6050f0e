"""Data as a model takes them: at its size, encoded, with images of a source domain, with several views of an object in a row."""

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from . import NAMES, Unpaired, UnpairedBatch, Views, group_views, load, origin_of
from . import class_names as names_of
from . import concepts as concepts_of
from .base import Batch, Data
from .door import MOST_BYTES, of
from .images import Images, Size, TooFew
from .plausible import renumbered
from .record import are, class_names, concepts, fingerprint, origin
from .stream import Stream
from .toy import TOYS, toy
from .vectors import Table

OPTIONAL = (".csv", ".parquet", ".npz", ".npy")  # files that are loaded with more options than a size
Given = str | Mapping[str, Any]
"""Where data are, a name or path; or what `data.of` takes, by split."""
_IN_PYTHON = "or in Python tw.metrics.Subject(model, settings, data={'train': …, 'test': …})"
HELD_OUT, HELD_OUT_NUMBERS = 512, 2**23  # examples that the best state is chosen by, at most so many, and so many numbers in them


def image_size(shape: tuple[int, ...]) -> Size | None:
    """The `size` of images [C, H, W]: a side where they are square, else (height, width); None for other data."""
    if len(shape) != 3:
        return None
    return shape[1] if shape[1] == shape[2] else (shape[1], shape[2])


def sized(config: Any, name: str, split: str, *, size: Size | None = None, **options: Any) -> Data:
    """The `split` of the data `name`: the config's own at its size, others at their own, unless `size` says which.

    `options`: label and values of `load`. Raises InputError for unknown data, and for options that they do not have.
    """
    if size is None and name == config.data and name not in TOYS and not config.data_needs.autoencoder:
        size = image_size(config.shape)
    return load(name, split, size=size, **options)


def prepare(
    config: Any,
    name: str,
    split: str,
    *,
    size: Size | None = None,
    device: str | torch.device = "cpu",
    latent_views: int = 1,
    **options: Any,
) -> Data:
    """As `sized`, with all that a model of `config` is trained on, by `config.data_needs`; encoding runs on `device`.

    `latent_views`: of each image so many views are encoded (see `Latents`). Raises InputError for data without what the model needs.
    """
    needs = config.data_needs
    if needs.autoencoder and size is None and name == config.data:
        from ..latent import image_shape

        size = image_size(image_shape(needs.autoencoder, config.shape))
    cut = {"middle": needs.middle} if needs.middle else {}
    found = sized(config, name, split, size=size, **options | cut | ({} if needs.read_views is None else {"views": needs.read_views}))
    where = origin(found)
    if needs.autoencoder:
        from ..latent import wrap

        found = wrap(found, needs.autoencoder, device=device, views=latent_views)
    elif latent_views > 1:
        raise InputError("views of latents are for a model of latents, with an autoencoder")
    if needs.source:
        found = Unpaired(found, load(needs.source, split, size=image_size(found.shape), channels=found.shape[0], **cut))
    given = getattr(found, "options", {})
    found = group_views(found, needs.views)
    if needs.missing and isinstance(found, Views):
        whole, found = found, found.masked(needs.missing)
        found.known_as = fingerprint(whole)
    if isinstance(found, Views):
        found.origin, found.options = where, given  # type: ignore[attr-defined]  # others have them themselves
    return found


# --- of a trained model


def trained_name(method: Any) -> str:
    """What to call the data that a model was trained on."""
    return method.trained_on["name"] if method.trained_on else method.config.data


def trained_source(method: Any, given: Given | None = None) -> str | None:
    """Where the data of a model are: as `given`, as it was trained on, or as its config says; None for data of one's own."""
    if given is not None:
        return None if isinstance(given, Mapping) else origin_of(given)
    return method.trained_on["source"] if method.trained_on else method.config.data


def trained_data(method: Any, split: str, given: Given | None = None) -> Data:
    """A split of the data that a model was trained on, at its size; `given`: where they are now, or others of their shape, or by split.

    InputError where they cannot be found or are not the same any more: no model is measured on data that it does not know, unless
    they are given.
    """
    if isinstance(given, Mapping):
        return _check_data(_own_split(method, split, given), split, method.config)
    source, found, config = trained_source(method, given), method.trained_on, method.config
    size = None if source in TOYS or config.data_needs.autoencoder else image_size(config.shape)
    options = dict(found.get("options", {})) if found else {}
    of_hub = str(source).startswith("hf:") and "middle" in options
    if not (str(source).endswith(OPTIONAL) or Path(str(source)).is_dir() or "streaming" in options or of_hub):
        options = {}
    if source is None:
        source = config.data if config.data in NAMES and are(found, load(config.data, "train", size=size)) else None
    if source is None or (Path(source).is_absolute() and not Path(source).exists()):
        gone = "which only you have" if source is None else f"which are not at {source} any more"
        raise InputError(f"this {method.name} was trained on '{found['name']}', {gone}; say where they are: --data PATH, {_IN_PYTHON}")
    if given is None and found and Path(source).is_absolute() and not are(found, load(source, "train", size=size, **options)):
        raise InputError(
            f"the data at {source} are not what this {method.name} was trained on any more; say where those are, or give these all the "
            f"same: --data PATH, {_IN_PYTHON}"
        )
    return _check_data(load(source, split, size=size, **options), str(source), config)


def _check_data(data: Data, source: str, config: Any) -> Data:
    """The data; InputError where they are not of the model's shape, or have more classes."""
    if not config.data_needs.autoencoder and tuple(data.shape) != tuple(config.shape):
        raise InputError(f"{source} has examples of shape {tuple(data.shape)}, the model is of {tuple(config.shape)}")
    if len(data.classes) > config.classes > 0:
        raise InputError(f"{source} has {len(data.classes)} classes, the model was trained on {config.classes}")
    return data


def _own_split(method: Any, split: str, given: Mapping[str, Any]) -> Data:
    """A split of data of one's own, with labels as the model numbers its classes."""
    if split not in given:
        raise InputError(f"the data given have the splits {', '.join(given) or '(none)'}, needed is '{split}' too: data={{'{split}': …}}")
    data: Any = copy.copy(of(given[split]))
    classes = trained_classes(method)
    if classes and isinstance(data, Images | Table) and data.label is not None:
        data.label, data.classes = renumbered(data.label, data.classes, classes, f"data '{split}'"), classes
    return data


def trained_classes(method: Any) -> tuple[str, ...]:
    """The names of a model's classes, as its folder says them; numbers where there are no names. Reads no data where it does."""
    config, found = method.config, method.trained_on
    return class_names(found if found else {"classes": names_of(config.data)}, config.classes)


def trained_concepts(method: Any) -> dict[str, tuple[str, ...]]:
    """The concepts of the data that a model was trained on, with their values' names; empty where it has one kind of label."""
    return concepts(method.trained_on) if method.trained_on else concepts_of(method.config.data)


def is_trained_on(method: Any, given: str) -> bool:
    """Whether what is `given` is what a model was trained on; True where that is not known."""
    found = method.trained_on
    return found is None or are(found, trained_data(method, "train", given))


def held_out(config: Any, name: str, *, size: Size | None = None, device: str = "cpu", **options: Any) -> Batch | None:
    """The batch that the best state is chosen by: prepared validation examples, or fresh points of a toy.

    None for data of the hub, whose validation split need not exist, and where there are fewer than 3 examples, or too few to split.
    """
    needs = config.data_needs
    if name in TOYS:
        return toy(name).batch(0, HELD_OUT, seed=1)
    if name.startswith("hf:") or needs.source.startswith("hf:"):
        return None
    try:
        found: Any = prepare(config, name, "validation", size=size, device=device, **options)
    except TooFew:
        return None
    if isinstance(found, Unpaired):
        x, start = (everything(part.subset(torch.arange(min(HELD_OUT, len(part))))).x for part in (found.target, found.source))
        return UnpairedBatch(x[: len(start)], None, start[: len(x)]) if len(start) >= 3 else None
    rows = min(HELD_OUT, max(needs.views, HELD_OUT_NUMBERS // math.prod(found.shape))) // needs.views * needs.views
    count = len(found) if hasattr(found, "subset") else len(everything(found).x)
    if count < 3:
        return None
    # one's own pictures may lie sorted by class
    own = name not in NAMES and needs.views == 1 and count > rows
    chosen = torch.arange(rows) * count // rows if own else torch.arange(min(rows, count))
    if hasattr(found, "subset"):  # the others may lie on the disk
        return everything(found.subset(chosen))
    whole = everything(found)
    return type(whole)(*(None if part is None else part[chosen] for part in whole))


def everything(data: Any) -> Batch:
    """Every example once, in order; InputError for a stream without end, and for pictures on the disk that are too many for memory."""
    if isinstance(data, Stream):
        size = 4 * len(data) * math.prod(data.shape)
        if size > MOST_BYTES:
            raise InputError(
                f"{data.name}: all {len(data):,} pictures of {list(data.shape)} take {size / 2**30:.3g} GiB in memory, over the bound "
                f"of {MOST_BYTES / 2**30:.3g} GiB; give fewer of them (--data)"
            )
        return data.subset(torch.arange(len(data))).all()
    if not hasattr(data, "all"):
        raise InputError(f"{data.name} is a stream, whose examples are never all there; give data that fit into memory")
    return data.all()


def in_own_units(data: Any) -> Batch:
    """As `everything`, vectors in the data's own units, as the models take them that are loaded."""
    whole = everything(data)
    return Batch(data.decode(whole.x), whole.label) if isinstance(data, Table) else whole


def source_images(method: Any, split: str, n: int, seed: int = 0) -> Tensor:
    """`n` images of the domain that a translation starts from, in the shape of its config: [n, C, H, W]."""
    config, found = method.config, (method.trained_on or {}).get("source_domain")
    name = (found and found["source"]) or config.data_needs.source
    return (
        load(name, split, size=image_size(config.shape), channels=config.shape[0], middle=config.data_needs.middle or None)
        .batch(0, n, seed=seed)
        .x
    )
