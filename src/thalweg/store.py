"""Models on disk and on the Hugging Face hub: safetensors for weights, config.json for the rest. Loading executes no code.

config.json holds a method's name, not where its class is: of a method of one's own, whoever loads gives the class.
"""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save as dump_tensors
from torch import nn

from thalweg import checkpoint
from thalweg.checkpoint import WEIGHTS
from thalweg.config import make_config
from thalweg.data.record import class_names, concepts, public
from thalweg.data.vectors import Units
from thalweg.distributed import usable
from thalweg.errors import InputError, nearest
from thalweg.gate import float32
from thalweg.methods import METHODS, find, of_packages, own_network
from thalweg.methods.base import Method, has
from thalweg.nn.own import Own

DIFFUSERS = "diffusers:"  # before the name of an autoencoder of that package
PART = "autoencoder"  # the folder of an export that holds the autoencoder in whose latents the model lives


ZOO = "zoo:"  # before the name of a model of the clone's folder zoo


class Stored(NamedTuple):
    """A model's folder, and what its config.json says: the class of its method, its config, and the version that wrote it."""

    folder: Path
    kind: type[Method]
    config: Any
    version: str


def read(path: str | Path, *, kind: type[Method] | None = None) -> Stored:
    """What is known of a model without its weights: of a run folder, an exported folder, or a hub name such as "user/model".

    `kind`: the class of a method of one's own. InputError where nothing is there, for what is corrupt, and for an unknown method.
    """
    folder = read_folder(path)
    found = checkpoint.read_config(folder)
    kind, version = _kind(found["method"], folder, kind), found["thalweg"]
    here = {f"{prefix}./{PART}": f"{prefix}{folder.resolve() / PART}" for prefix in ("", DIFFUSERS) if (folder / PART).is_dir()}
    values = {key: here.get(value, value) if isinstance(value, str) else value for key, value in found["config"].items()}
    try:
        config = make_config(kind.Config, values, what=f"the config in {folder}")
    except InputError as trouble:
        raise checkpoint.of_another_version(folder, version, trouble) from None
    return Stored(folder, kind, config, version)


def read_folder(path: str | Path) -> Path:
    """The local folder of a model: a folder, "zoo:NAME", or a hub name, which is fetched; InputError where there is none."""
    if str(path).startswith(ZOO):
        return _from_zoo(str(path).removeprefix(ZOO))
    folder = Path(path)
    if not folder.exists():
        return _from_hub(str(path))
    if not folder.is_dir():
        raise InputError(f"{folder} is a file; give the folder of a run or of an exported model")
    return folder


def _from_zoo(name: str) -> Path:
    """The folder of a model that comes with a clone of the repository."""
    home = Path(__file__).parents[2] / "zoo"
    known = sorted(folder.name for folder in home.iterdir() if (folder / WEIGHTS).exists()) if home.is_dir() else []
    if name not in known:
        there = f"there are {', '.join(known)}" if known else "a clone of the repository has some, this installation has none"
        raise InputError(f"no model '{name}' in the zoo{nearest(name, known)}; {there}")
    return home / name


def trained_on(path: str | Path) -> dict[str, Any] | None:
    """What a model was trained on (see `thalweg.data.record`), or None where its folder does not say."""
    return checkpoint.read_data(read_folder(path))


def method_name(path: str | Path) -> str | None:
    """The name of the method that a local folder's config.json names; None for a hub name."""
    return checkpoint.read_config(Path(path))["method"] if Path(path).is_dir() else None


def _kind(method: str, folder: Path, kind: type[Method] | None) -> type[Method]:
    if kind is not None and kind.name != method:
        raise InputError(f"{folder} holds a model of '{method}', not of '{kind.name}'")
    if kind is None and method not in METHODS and method not in of_packages():  # never looked up by a file's name: that would execute it
        raise InputError(
            f"{folder}: unknown method '{method}'{nearest(method, METHODS)}. Of a method of your own name the class as well: "
            f"--kind FILE.py:CLASS, or kind=CLASS from Python"
        )
    return kind or find(method)


def load(
    path: str | Path,
    *,
    which: str = "last",
    device: str | torch.device = "cpu",
    kind: type[Method] | None = None,
    net: nn.Module | None = None,
) -> Method:
    """A trained method, ready to sample: from a run folder, an exported folder, or a hub name such as "user/model".

    From a run it takes the EMA twin of the `which` state: "last", or "best" by the held-out criterion. `kind`: the class of a method
    of one's own, `net` a network of one's own, built as for training. InputError where nothing is there, or what is there is corrupt,
    does not fit, or comes from another version.
    """
    if which not in ("last", "best"):
        raise InputError(f"which = '{which}' is not known: 'last' or 'best'")
    device = usable(device)
    stored = read(path, kind=kind)
    config = stored.config if net is None else _with_network(stored, net)
    with float32():
        method = stored.kind(config)
    weights = checkpoint.read_weights(stored.folder, which)
    method.units = Units.of_state(weights.tensors)
    try:
        method.load_state_dict(weights.tensors)
    except (RuntimeError, TypeError) as error:
        fits = "its config" if net is None else f"the network given, {type(net).__name__}"
        trouble = InputError(f"the weights in {stored.folder} do not fit {fits}: {str(error).splitlines()[-1].strip()}")
        if net is not None:
            raise trouble from None
        raise checkpoint.of_another_version(stored.folder, stored.version, trouble) from None
    method.trained_on = _trained_on(stored.folder, weights, which)
    return method.to(device).eval().requires_grad_(False)


def _with_network(stored: Stored, net: nn.Module) -> Any:
    """The config of a stored model with its network of one's own; InputError for a model that has none."""
    spec = own_network(stored.kind, "net", net)
    present = stored.config.net
    if not isinstance(present, Own):
        raise InputError(f"the network of {stored.folder} is of kind '{present.kind}' and built from its config; load it without net=")
    return replace(stored.config, net=spec)


def _trained_on(folder: Path, weights: checkpoint.Weights, which: str) -> dict[str, Any] | None:
    """What a folder says of the data, with the images seen, the energies of held-out examples, and what was measured of these weights."""
    found = checkpoint.read_data(folder)
    if found is None or (folder / WEIGHTS).exists():
        return found
    state = {"which": which, "images": weights.images}
    energies = None if weights.held_out is None else [float(f"{e:.7g}") for e in weights.held_out.tolist()]
    measured = checkpoint.read_figures(folder)
    figures = measured.get("table", []) if measured.get("state") == state else []
    return found | {"state": state, "held_out": energies, "figures": figures}


def save(method: Method, folder: str | Path, *, precision: str = "fp32") -> Path:
    """Write `method` to `folder` as model.safetensors, config.json, data.json and a model card (README.md); returns the folder.

    `precision` "bf16" halves the file: weights are rounded to it, buffers are not. data.json says what the model was trained on, where that
    is known. Nothing of it is a path of this machine: of a model of latents the autoencoder is written too. InputError for another
    precision, and for a folder that is a run's, holds other files, or cannot be written.
    """
    if precision not in ("fp32", "bf16"):
        raise InputError(f"precision '{precision}' is not known: fp32 or bf16")
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"the output {folder} is a file; give a folder")
    with checkpoint.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        found = {file.name for file in folder.iterdir()}
    if found and (WEIGHTS not in found or found - {WEIGHTS, "config.json", checkpoint.DATA, "README.md", PART}):
        raise InputError(f"{folder} is a run folder or holds other files; export to a new or empty one")
    rounded = {key for key, _ in method.named_parameters()} if precision == "bf16" else set()
    tensors = {
        key: value.detach().cpu().to(torch.bfloat16 if key in rounded else value.dtype).contiguous()
        for key, value in method.state_dict().items()
    }
    checkpoint.write_bytes(folder / WEIGHTS, dump_tensors(tensors))
    checkpoint.write_bytes(folder / "config.json", (json.dumps(_portable(method, folder), indent=2) + "\n").encode())
    if method.trained_on is not None:
        checkpoint.write_bytes(folder / checkpoint.DATA, (json.dumps(public(method.trained_on), indent=2) + "\n").encode())
    checkpoint.write_bytes(folder / "README.md", _card(method).encode("utf-8", "replace"))
    return folder


def _portable(method: Method, folder: Path) -> dict[str, Any]:
    """What config.json of an export says: places of this machine by their last part, an autoencoder as the folder that it is copied to."""
    found, autoencoder = checkpoint.describe(method), method.config.data_needs.autoencoder
    for key, value in found["config"].items():
        prefix = DIFFUSERS if isinstance(value, str) and value.startswith(DIFFUSERS) else ""
        place = Path(value.removeprefix(prefix)) if isinstance(value, str) and value else None
        if place is None or not (place.is_absolute() or place.exists()):
            continue
        if value == autoencoder and place.is_dir():
            _copy_autoencoder(place, folder / PART, of_diffusers=bool(prefix))
            found["config"][key] = f"{prefix}./{PART}"
        else:
            found["config"][key] = prefix + place.name
    return found


def _copy_autoencoder(place: Path, to: Path, *, of_diffusers: bool) -> None:
    if place.resolve() == to.resolve():  # of an export, that is written anew
        return
    if not of_diffusers:
        save(load(place), to)
        return
    place = place / "vae" if (place / "model_index.json").exists() else place
    with checkpoint.writing(to):
        to.mkdir(exist_ok=True)
        for path in (place / "config.json", *place.glob("*.safetensors*")):
            shutil.copyfile(path, to / path.name)


def push_to_hub(method: Method, name: str, *, private: bool = False) -> str:
    """Upload `method` to the hub as `name` ("user/model"), with the token of `hf auth login`; returns the address."""
    import tempfile

    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    with tempfile.TemporaryDirectory() as folder:
        save(method, folder)
        try:
            api = HfApi()
            address = api.create_repo(name, private=private, exist_ok=True)
            api.upload_folder(repo_id=name, folder_path=folder)
        except (HfHubHTTPError, OSError, ValueError) as error:
            raise InputError(f"cannot upload to '{name}': {str(error).splitlines()[0]}") from None
    return str(address)


def _from_hub(name: str) -> Path:
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise InputError(f"there is no folder {name}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=[WEIGHTS, "config.json", checkpoint.DATA, f"{PART}/*"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(f"'{name}' is no folder here and cannot be had from the hub: {str(error).splitlines()[0]}") from None


def _card(method: Method) -> str:
    c = method.config
    parameters = sum(p.numel() for p in method.parameters())
    explicit = has(method, "energy")
    kind = "An energy-based model trained with Thalweg: p(x) ∝ exp(−E(x))" if explicit else "A model trained with Thalweg"
    energy = "\ne = model.energy(x)  # nats, lower is more likely" if explicit else ""
    starts = ", **model.starts(64)" if has(method, "given") else ""
    if starts and method.trained_on and not c.data_needs.source and public(method.trained_on)["source"] is None:
        starts = ", start=images"  # which only whoever has the data can draw
    use = f"x = model.sample(64, seed=0{starts}){energy}" if has(method, "sample") else "z = model.encode(x)  # of your images x"
    own = "" if method.name in METHODS or method.name in of_packages() else f", kind={type(method).__name__}"
    network = json.loads(json.dumps(asdict(c))).get("net")
    own += f", net={network['name']}()" if isinstance(network, dict) and network["kind"] == "own" else ""
    found = method.trained_on
    return f"""---
library_name: thalweg
tags: [energy-based-model, {method.name}]
license: apache-2.0
---
# {method.name} on {found["name"] if found else Path(c.data).name}

{kind}, {parameters:,} parameters,
examples of shape {tuple(c.shape)}{f", {c.classes} classes" if c.classes else ""}.
{_classes(method)}
```python
import thalweg as tw

model = tw.load("FOLDER_OR_NAME"{own})
{use}
```
{_figures(found)}"""


def _classes(method: Method) -> str:
    """The names of classes, or of concepts with their values, a line each."""
    found = method.trained_on
    if found is None or not method.config.classes:
        return ""
    several = concepts(found) or {"Classes": class_names(found, method.config.classes)}
    return "\n" + "\n".join(f"- {name}: {_short(names)}" for name, names in several.items()) + "\n"


def _short(names: tuple[str, ...]) -> str:
    return ", ".join(names) if len(names) <= 100 else f"{', '.join(names[:50])}, … ({len(names)})"


def _figures(found: Any) -> str:
    """The table of what `thalweg evaluate` measured, if it has."""
    rows = (found or {}).get("figures") or []
    lines = ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(["", "| measure | value | note |", "|---|---|---|", *lines, ""]) if lines else ""
