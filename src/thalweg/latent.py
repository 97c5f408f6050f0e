"""Autoencoders by name, for models of their latents: those trained here, or diffusers' `AutoencoderKL`.

A model whose data needs an autoencoder is trained on latents; `as_images` makes a model of images of it, and `load` does so.
"""

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from thalweg import store
from thalweg.config import STRICT, Common
from thalweg.data.base import Data
from thalweg.data.latent import Autoencoder, Latents, encode_share
from thalweg.distributed import World, usable
from thalweg.errors import InputError, require
from thalweg.methods.base import Method, check_sampling, has
from thalweg.store import DIFFUSERS
from thalweg.units import in_own_units, standardised

_WEIGHTS = "diffusion_pytorch_model"


class Diffusers(nn.Module):
    """diffusers' `AutoencoderKL` as an `Autoencoder`: posterior means, scaled by the numbers in its config.

    z = (raw − mean)·scaling/std, with `scaling_factor`, `shift_factor` or `latents_mean` for mean (0 without), `latents_std`
    for std (1 without), as diffusers' own pipelines do. Images of any size that the model divides; `latent_shape` is that of
    its config's `sample_size`.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        settings = model.config
        channels, factor = settings.latent_channels, 2 ** (len(settings.block_out_channels) - 1)
        size = settings.sample_size
        height, width = size if isinstance(size, list | tuple) else (size, size)
        self.channels, self.factor = settings.in_channels, factor
        self.latent_shape = (channels, height // factor, width // factor)
        mean, std = getattr(settings, "latents_mean", None), getattr(settings, "latents_std", None)
        mean = getattr(settings, "shift_factor", None) if mean is None else mean
        self.register_buffer("mean", _per_channel(0.0 if mean is None else mean, channels), persistent=False)
        self.register_buffer("scale", settings.scaling_factor / _per_channel(1.0 if std is None else std, channels), persistent=False)

    def encode(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] in [−1, 1] -> latents [B, c, H/f, W/f]. InputError for other channels, sides and ranges."""
        if x.dim() != 4 or x.shape[1] != self.channels:
            raise InputError(
                f"this AutoencoderKL needs images [B, {self.channels}, H, W], got {list(x.shape)}; load data with channels={self.channels}"
            )
        if x.shape[2] % self.factor or x.shape[3] % self.factor:
            raise InputError(f"this AutoencoderKL needs sides that divide by {self.factor}, got {x.shape[2]}×{x.shape[3]}")
        if len(x) and not (x.detach().abs() <= 1).all():
            raise InputError(f"images must be finite and in [−1, 1], got values from {float(x.min()):g} to {float(x.max()):g}")
        return (self.model.encode(x).latent_dist.mode() - self.mean) * self.scale

    def decode(self, z: Tensor) -> Tensor:
        """Latents [B, c, h, w] -> images [B, C, f h, f w] in [−1, 1]. InputError for other channels and what is not finite."""
        if z.dim() != 4 or z.shape[1] != self.latent_shape[0]:
            raise InputError(f"this AutoencoderKL needs latents [B, {self.latent_shape[0]}, h, w], got {list(z.shape)}")
        if not z.detach().isfinite().all():
            raise InputError("latents to decode hold NaN or infinity")
        return self.model.decode(z / self.scale + self.mean).sample.clamp(-1, 1)


def _per_channel(value: Any, channels: int) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float32).flatten().expand(channels).reshape(channels, 1, 1).clone()


def load_autoencoder(name: str | Path, *, device: str | torch.device = "cpu") -> Autoencoder:
    """An autoencoder, frozen and in evaluation mode, by the run folder, exported folder or hub name of a model that decodes.

    "diffusers:PATH" or "diffusers:USER/MODEL" is diffusers' `AutoencoderKL` (extra `latent`), weights from safetensors only; of a
    whole pipeline the part `vae`, which from the hub is named: "diffusers:USER/PIPELINE/vae". Raises InputError where nothing is
    there, it does not load, or is no autoencoder.
    """
    name = str(name)
    if name.startswith(DIFFUSERS):
        model: Any = Diffusers(_from_diffusers(name.removeprefix(DIFFUSERS)))
    else:
        model = store.load(name)
        if not has(model, "decode"):
            raise InputError(
                f"{name} is a {model.name}, no autoencoder; train one: thalweg train autoencoder/fashion-mnist --out DIR, "
                "or give diffusers:PATH_OR_NAME"
            )
    return model.to(usable(device)).eval().requires_grad_(False)


def _from_diffusers(name: str) -> Any:
    """AutoencoderKL by local folder or hub name, in float32. What a folder lacks is said before diffusers is asked."""
    if not name:
        raise InputError(f"'{DIFFUSERS}' needs a folder or a hub name behind it")
    folder = Path(name)
    options: dict[str, Any] = {}
    if folder.is_dir():
        folder = folder / "vae" if (folder / "model_index.json").exists() else folder
        _check_folder(folder)
        name, options = str(folder), {"local_files_only": True}
    elif folder.exists() or name.startswith((".", "/", "~")) or name.count("/") < 1:
        raise InputError(f"there is no folder {name}; a hub name is USER/MODEL")
    else:
        user, model, *inside = name.split("/")
        name, options = f"{user}/{model}", {"subfolder": "/".join(inside)} if inside else {}
    kind = require("diffusers", "latent").AutoencoderKL
    try:
        model, found = kind.from_pretrained(
            name, use_safetensors=True, low_cpu_mem_usage=False, torch_dtype=torch.float32, output_loading_info=True, **options
        )
    except Exception as error:  # diffusers, its hub client and safetensors each have kinds of their own
        raise InputError(f"diffusers cannot load an AutoencoderKL from '{name}': {_first_line(error)}") from None
    if missing := found.get("missing_keys"):  # these would stay at random values
        raise InputError(f"the weights of '{name}' do not fit its config: {len(missing)} are missing, such as {sorted(missing)[0]}")
    return model


def _check_folder(folder: Path) -> None:
    try:
        kind = json.loads((folder / "config.json").read_text()).get("_class_name")
    except (OSError, ValueError, AttributeError):
        raise InputError(f"{folder} has no config.json of a diffusers model that can be read") from None
    if kind != "AutoencoderKL":
        raise InputError(f"{folder} holds a {kind}, not an AutoencoderKL")
    if not any(folder.glob(f"{_WEIGHTS}*.safetensors")):
        pickled = sorted(path.name for suffix in ("bin", "pt", "pth", "ckpt") for path in folder.glob(f"*.{suffix}"))
        if pickled:
            raise InputError(
                f"{folder} has its weights as a pickle only ({pickled[0]}), which can execute code and is not read; "
                f"convert it to {_WEIGHTS}.safetensors"
            )
        raise InputError(f"{folder} has no weights: {_WEIGHTS}.safetensors is missing")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@lru_cache(maxsize=2)
def _loaded(name: str) -> Autoencoder:
    return load_autoencoder(name)


def wrap(data: Data, name: str | Path, *, device: str | torch.device = "cpu", views: int = 1, folder: str | Path | None = None) -> Data:
    """`data` as `Latents` of the autoencoder `name`, `views` of each image, encoded on `device`; `data` itself for an empty name.

    Latents are encoded once and lie in `folder` (by default $THALWEG_LATENTS, or `latents` in the cache), from where they are read as
    they are needed. Processes of torchrun encode a share each; all must call. Errors as of `load_autoencoder` and `Latents`, and where
    the folder cannot be written; a set of other images than the autoencoder's is refused by its `encode`.
    """
    if not str(name):
        return data
    world = World.current()
    autoencoder: Any = load_autoencoder(name, device=device)
    trouble: list[Any] = []
    try:
        stored = encode_share(data, autoencoder, folder, views=views, device=usable(device), rank=world.rank, size=world.size)
    except InputError as error:
        trouble = [str(error)]
    if told := world.in_turn(trouble):
        raise InputError(told[0])
    return Latents(data, autoencoder, views=views, stored=stored.open())


def image_shape(name: str | Path, latent: tuple[int, ...]) -> tuple[int, ...]:
    """The shape [C, H, W] of the images whose latents by the autoencoder `name` have the shape `latent` [c, h, w]."""
    with torch.no_grad():
        return tuple(_loaded(str(name)).decode(torch.zeros(1, *latent)).shape[1:])


def _some(z: Tensor) -> tuple[Tensor, ...]:
    """Latents in parts that are decoded at once: of large images few, as a decoder's inner values are hundreds of times as much."""
    return z.split(max(1, min(64, 2**16 // max(1, z[0].numel()))))


def decoder(name: str | Path) -> Callable[[Tensor], Tensor]:
    """A function from latents [B, c, h, w] to images [B, C, H, W] in [−1, 1], for samples; the identity for an empty name.

    The autoencoder is loaded once a process and follows the latents to their device. It computes in float32 and gives images in the
    type of the latents, without gradients.
    """
    if not str(name):
        return lambda z: z
    autoencoder: Any = _loaded(str(name))

    @torch.no_grad()
    def decode(z: Tensor) -> Tensor:
        images = [autoencoder.to(z.device).decode(part.float()) for part in _some(z)]
        return torch.cat(images).to(z.dtype)

    return decode


@dataclass(frozen=True, config=STRICT, kw_only=True)
class ImageConfig(Common):
    """What is said of a model of latents as one of images: its data, which need no encoding any more, their shape and classes."""


class Decoded(nn.Module):
    """A model of latents as one of images: its samples decoded, its energy that of an image's latent.

    `method` is the model itself. E(encode(x)) ranks images; as a density it is one of latents, not of images.
    """

    def __init__(self, method: Any, autoencoder: Autoencoder) -> None:
        super().__init__()
        self.method, self.autoencoder, self.name = method, autoencoder, method.name
        self.units = None
        with torch.no_grad():
            shape = autoencoder.decode(torch.zeros(1, *method.config.shape)).shape[1:]
        self.config = ImageConfig(data=method.config.data, shape=tuple(shape), classes=method.config.classes)
        self.abilities = method.abilities & {"sample", "labels", "concepts", "energy", "classify"}
        self.default_guidance, self.trained_on = method.default_guidance, method.trained_on

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.method.device

    def starts(self, n: int, seed: int = 0) -> dict[str, Tensor]:
        """As of any method: nothing but a seed is needed."""
        return {}

    def sample(self, n: int, *, seed: int = 0, **options: Any) -> Tensor:
        """`n` images [n, C, H, W] in [−1, 1]; `options` go to the method's `sample`. InputError for those that it does not take."""
        check_sampling(self.method, options)
        z = self.method.sample(n, seed=seed, **options)
        with torch.no_grad():
            return torch.cat([self.autoencoder.decode(part.float()) for part in _some(z)])

    def energy(self, x: Tensor, **condition: Any) -> Tensor:
        """The energy of the latents of images [B, C, H, W] -> [B], nats."""
        return self.method.energy(self.autoencoder.encode(x), **condition)

    def classify(self, x: Tensor, **condition: Any) -> Tensor:
        """log p(label | x) of images [B, C, H, W] -> [B, classes]."""
        return self.method.classify(self.autoencoder.encode(x), **condition)


def as_images(method: Any) -> Any:
    """`method` as a model of images: `Decoded` where it is one of latents, else `method` itself."""
    name = method.config.data_needs.autoencoder
    if not name:
        return method
    autoencoder: Any = _loaded(name)
    return Decoded(method, autoencoder.to(method.device)).eval()


def load(
    name: str | Path,
    *,
    which: str = "last",
    device: str | torch.device = "cpu",
    kind: type[Method] | None = None,
    net: nn.Module | None = None,
) -> Any:
    """A trained model by run folder, exported folder or hub name, see `store.load`; one of latents as a model of images, one of
    vectors in the data's own units.

    `kind`: the class of a method of your own, `net`: a network of your own, both of which config.json names but does not hold. InputError
    where nothing is there, or what is there is corrupt, does not fit, or comes from another version.
    """
    return in_own_units(as_images(store.load(name, which=which, device=device, kind=kind, net=net)))


def save(method: Any, folder: str | Path, *, precision: str = "fp32") -> Path:
    """Write a model to `folder`, as `load` reads it: model.safetensors, config.json and a model card; returns the folder.

    `precision` "bf16" rounds the weights, for a file of half the size. Of a model of latents as one of images, the model of latents.
    InputError for a folder that is a run's or holds other files.
    """
    return store.save(_itself(method), folder, precision=precision)


def push_to_hub(method: Any, name: str, *, private: bool = False) -> str:
    """Upload what `save` writes to the hub as `name` ("user/model"), with the token of `hf auth login`; returns the address."""
    return store.push_to_hub(_itself(method), name, private=private)


def _itself(method: Any) -> Method:
    return method.method if isinstance(method, Decoded) else standardised(method)


# the names of version 0.1
save_pretrained, from_pretrained = save, load
