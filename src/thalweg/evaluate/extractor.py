"""A small classifier trained on a data set, whose penultimate layer is the space in which its images are compared."""

import hashlib
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from thalweg.errors import InputError
from thalweg.evaluate.accuracy import accuracy
from thalweg.given import Examples, Labels, takes
from thalweg.random import integers, seeded


class FeatureExtractor(Protocol):
    """What the measures of fidelity ask of a network: images [N, C, H, W] in [−1, 1] to features [N, num_features].

    `name` goes into the name of each figure, `preprocessing` says in one line what happens to an image before the network.
    `features` gives float32 on the CPU and raises InputError on images that do not fit, `batch` images at a time. A layer
    `head` from features to class logits, where there is one, makes an inception score possible; a `state_dict`, as every
    nn.Module has, makes statistics cacheable.
    """

    name: str
    num_features: int
    preprocessing: str

    def features(self, images: Tensor, *, batch: int) -> Tensor: ...


@dataclass(frozen=True)
class ExtractorConfig:
    """How an `Extractor` is built and trained; any change gives another cache entry.

    `images` seen in training: 30 000 or three passes over the data, whichever is more, when None. `shift`: each training
    image moves by up to this many pixels each way, the border repeated; 1 below 16 pixels and 2 from there when None.
    """

    seed: int = 0
    images: int | None = None
    batch: int = 128
    learning_rate: float = 3e-3
    width: int = 32
    shift: int | None = None
    version: int = 1  # raise it whenever the code of this file changes what is trained

    def __post_init__(self):
        for name, low in (("images", 1), ("batch", 2), ("width", 8), ("shift", 0)):
            value = getattr(self, name)
            if value is not None and value < low:
                raise InputError(f"extractor: {name} is {value}, need {low} or more")
        if self.width % 8:
            raise InputError(f"extractor: width is {self.width}, need a multiple of 8")


class Extractor(nn.Module):
    """A small convolutional classifier whose penultimate layer, 64 numbers an image, is the space for distances.

    Calling it gives the features [B, 64], so that it also serves as `feature` of a torchmetrics metric; it has no layer
    that behaves differently in training. `name`: "<data>-classifier"; `test_accuracy` in [0, 1], None if never tested.
    """

    num_features = 64

    def __init__(self, shape: tuple[int, int, int], classes: int, *, width: int = 32, name: str = "data-classifier"):
        super().__init__()
        channels, *size = shape
        layers = [*_block(channels, width, 1)]
        while max(size) > 8:  # down to 8 pixels or fewer, whatever the images' size
            layers += _block(width, width, 2)
            size = [(s + 1) // 2 for s in size]
        layers += [*_block(width, 2 * width, 1), *_block(2 * width, 2 * width, 2), nn.AdaptiveAvgPool2d(4), nn.Flatten()]
        self.body = nn.Sequential(*layers, nn.Linear(32 * width, self.num_features), nn.SiLU())
        self.head = nn.Linear(self.num_features, classes)
        self.shape, self.name, self.test_accuracy = tuple(shape), name, None
        self.preprocessing = f"as they are: {shape[1]}×{shape[2]} pixels, {shape[0]} channel{'s' * (shape[0] > 1)}, in [−1, 1]"

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)

    @torch.no_grad()
    def features(self, images: Tensor, *, batch: int = 512) -> Tensor:
        """Features [N, 64] float32 on the CPU of images [N, C, H, W] in [−1, 1]. Raises InputError on anything else."""
        self._check(images)
        weight = self.head.weight
        return torch.cat([self(part.to(weight.device, weight.dtype)).float().cpu() for part in images.split(batch)])

    @torch.no_grad()
    def logits(self, images: Tensor, *, batch: int = 512) -> Tensor:
        """Class logits [N, classes] float32 on the CPU of images [N, C, H, W] in [−1, 1]. Raises InputError on anything else."""
        weight = self.head.weight
        return self.head(self.features(images, batch=batch).to(weight)).float().cpu()

    def _check(self, images: Tensor) -> None:
        if tuple(images.shape[1:]) != self.shape or not len(images):
            raise InputError(f"images: got shape {list(images.shape)}, {self.name} needs [N, {', '.join(map(str, self.shape))}]")
        check_range(images)


def _block(inputs: int, outputs: int, stride: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, stride, 1), nn.GroupNorm(8, outputs), nn.SiLU()


def check_range(images: Tensor) -> None:
    """Raise InputError unless images [N, ...], N ≥ 1, are floating-point, finite and in [−1, 1]."""
    if not images.is_floating_point():
        raise InputError(f"images: got {images.dtype}, need floating-point images in [−1, 1]")
    if not images.isfinite().all():
        raise InputError(f"images: {int((~images.isfinite()).flatten(1).any(1).sum())} of {len(images)} hold NaN or infinity")
    low, high = float(images.min()), float(images.max())
    if low < -1.0001 or high > 1.0001:
        raise InputError(f"images: values from {low:.4g} to {high:.4g}, need [−1, 1]; clamp samples that stray")


@takes
def train_extractor(
    x: Examples, label: Labels, *, name: str = "data", config: ExtractorConfig | None = None, device: str | torch.device = "cpu"
) -> Extractor:
    """Train an `Extractor` on images x [N, C, H, W] in [−1, 1] with labels [N] int64 in 0 … classes − 1.

    The same arguments give the same network on the same machine and thread count. 8×8 digits take about 15 s on one core.
    """
    config = config or ExtractorConfig()
    _check_labelled(x, label)
    total = config.images or max(30_000, 3 * len(x))
    shift = config.shift if config.shift is not None else (1 if max(x.shape[2:]) < 16 else 2)
    with torch.random.fork_rng(devices=[]):  # PyTorch's initialisers draw from the global generator: leave it as it was
        torch.manual_seed(config.seed)
        net = Extractor(tuple(x.shape[1:]), int(label.max()) + 1, width=config.width, name=f"{name}-classifier")
    net.to(device)
    steps = math.ceil(total / config.batch)
    optimizer = torch.optim.AdamW(net.parameters(), config.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, total_steps=steps + 1)
    generator = seeded(config.seed, len(x))
    with torch.enable_grad():
        for _ in range(steps):
            chosen = integers(config.batch, 0, len(x), generator=generator)
            images = shifted(x[chosen].float(), shift, generator).to(device)
            loss = nn.functional.cross_entropy(net.head(net(images)), label[chosen].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval().requires_grad_(False)


def shifted(x: Tensor, by: int, generator: torch.Generator) -> Tensor:
    """Move each image of x [B, C, H, W] by its own random number of pixels in {−by, …, by} each way, repeating the border."""
    rows, _, height, width = x.shape
    down, right = integers(2 * rows, -by, by + 1, generator=generator).view(2, rows)
    row = (torch.arange(height) - down[:, None]).clamp(0, height - 1)
    column = (torch.arange(width) - right[:, None]).clamp(0, width - 1)
    return x[torch.arange(rows)[:, None, None], :, row[:, :, None], column[:, None, :]].permute(0, 3, 1, 2).contiguous()


def extractor(data, *, name: str | None = None, config: ExtractorConfig | None = None, cache: bool = True, device="cpu") -> Extractor:
    """The `Extractor` of a data set, trained on its train split and tested on its test split the first time, then cached.

    data: a name that `thalweg.data.load` knows, or a pair (train, test) of labelled data: whatever `tw.data.of` takes,
    or tensors (x, label). The cache is $THALWEG_CACHE, ~/.cache/thalweg by default; an entry's name holds a hash of the
    configuration and of the data's bytes, and an unreadable entry is trained again.
    """
    config = config or ExtractorConfig()
    train, test, name = _splits(data, name)
    _check_labelled(*train)
    _check_labelled(*test)
    path = cache_folder() / f"extractor-{name}-{_fingerprint(config, train, test)}.safetensors"
    net = _load(path, train, config, name) if cache else None
    if net is None:
        net = train_extractor(*train, name=name, config=config, device=device)
        net.test_accuracy = accuracy(net.logits, *test).value
        if cache:
            keep(lambda: _save(net, path, config))
    return net.to(device)


def _splits(data, name: str | None):
    if isinstance(data, str | Path):
        from thalweg.data import load

        name, data = name or Path(data).name, (load(data, "train"), load(data, "test"))
    if not (isinstance(data, tuple | list) and len(data) == 2):
        raise InputError(f"extractor: got {type(data).__name__}, need the name of a data set or a pair (train, test)")
    name = name or str(getattr(data[0], "name", "data")).removesuffix("/train")
    train, test = (_whole(part) for part in data)
    return train, test, "".join(c if c.isalnum() or c in "-_." else "-" for c in name)


def _whole(part: Any) -> tuple[Tensor, Tensor | None]:
    """Images and labels of one split, by the door of data; tensors (x, label) as they are."""
    if isinstance(part, tuple | list) and all(isinstance(one, Tensor) for one in part):
        return tuple(part)
    from thalweg.data import of

    found: Any = part if not isinstance(part, Tensor) and callable(getattr(part, "all", None)) else of(part)
    if not callable(getattr(found, "all", None)):
        raise InputError(f"extractor: {found.name} is a stream, whose examples are never all there; give data that fit into memory")
    x, label = found.all()
    return x, label


def _check_labelled(x: Tensor, label: Tensor | None) -> None:
    if x.dim() != 4 or len(x) < 2 or min(x.shape[2:]) < 4:
        raise InputError(f"extractor: images of shape {list(x.shape)}, need [N, C, H, W] with N ≥ 2 and 4 pixels or more a side")
    if label is None or label.shape != (len(x),) or label.is_floating_point() or int(label.min()) < 0:
        given = "none" if label is None else f"{label.dtype} {list(label.shape)}"
        raise InputError(f"extractor: labels: got {given}, need whole numbers from 0, [{len(x)}]")
    check_range(x)


def cache_folder() -> Path:
    """$THALWEG_CACHE, ~/.cache/thalweg where that is not set."""
    return Path(os.environ.get("THALWEG_CACHE") or Path.home() / ".cache" / "thalweg").expanduser()


def _fingerprint(config: ExtractorConfig, *splits) -> str:
    digest = hashlib.sha256(json.dumps(asdict(config), sort_keys=True).encode())
    for x, label in splits:
        digest.update(f"{list(x.shape)} {x.dtype}".encode())
        digest.update(x.detach().cpu().contiguous().float().numpy().tobytes())
        digest.update(label.detach().cpu().long().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _save(net: Extractor, path: Path, config: ExtractorConfig) -> None:
    about = {"name": net.name, "test_accuracy": repr(net.test_accuracy), "config": json.dumps(asdict(config))}
    write_tensors(path, {k: v.cpu().contiguous() for k, v in net.state_dict().items()}, about)


def keep(write: Callable[[], None]) -> None:
    """Write into the cache; where that cannot be, one line says so, and all goes on without."""
    try:
        write()
    except InputError as error:
        print(f"thalweg: {error}; going on without a cache", file=sys.stderr)


def write_tensors(path: Path, tensors: dict[str, Tensor], about: dict[str, str]) -> None:
    """Write a safetensors file with its metadata, whole or not at all, also with two runs at once. InputError where it cannot."""
    from safetensors.torch import save_file

    partial = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=path.parent, suffix=".partial")
        os.close(handle)
        save_file(tensors, partial, metadata=about)
        os.replace(partial, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}; set THALWEG_CACHE to a folder that can be written") from None
    finally:
        if partial is not None:
            Path(partial).unlink(missing_ok=True)


def _load(path: Path, train, config: ExtractorConfig, name: str) -> Extractor | None:
    from safetensors import SafetensorError, safe_open

    x, label = train
    net = Extractor(tuple(x.shape[1:]), int(label.max()) + 1, width=config.width, name=f"{name}-classifier")
    try:
        with safe_open(path, "pt") as stored:
            names = stored.keys()  # not a mapping: it cannot be iterated itself
            net.load_state_dict({key: stored.get_tensor(key) for key in names})
            net.test_accuracy = float(stored.metadata()["test_accuracy"])
    except (OSError, SafetensorError, RuntimeError, KeyError, TypeError, ValueError):
        return None  # missing or damaged: train it again
    return net.eval().requires_grad_(False)
