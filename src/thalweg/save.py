"""Models on disk and on the Hugging Face hub: safetensors for weights, config.json for the rest. Loading executes no code."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as dump_tensors

from thalweg import checkpoint
from thalweg.checkpoint import WEIGHTS
from thalweg.config import make_config
from thalweg.distributed import usable
from thalweg.errors import InputError
from thalweg.methods import find
from thalweg.methods.base import Method, has


def build(description: dict[str, Any], where: str) -> Method:
    """A method with fresh weights from what config.json says of it."""
    kind = find(description["method"])
    return kind(make_config(kind.Config, description["config"], what=f"the config in {where}"))


def load(path: str | Path, *, which: str = "last", device: str = "cpu") -> Method:
    """A trained method, ready to sample: from a run folder, an exported folder, or a hub name such as "user/model".

    From a run it takes the EMA twin of the `which` state: "last", or "best" by the held-out criterion. InputError where
    nothing is there, or what is there is corrupt or does not fit.
    """
    if which not in ("last", "best"):
        raise InputError(f"which = '{which}' is not known: 'last' or 'best'")
    device, folder = usable(device), Path(path)
    if not folder.exists():
        folder = _from_hub(str(path))
    elif not folder.is_dir():
        raise InputError(f"{folder} is a file; give the folder of a run or of an exported model")
    if (folder / WEIGHTS).exists():
        return from_pretrained(folder, device=device)
    method = build(checkpoint.read_config(folder), str(folder))
    _fill(method, checkpoint.read_weights(folder, which), str(folder))
    return method.to(device).eval().requires_grad_(False)


def _fill(method: Method, tensors: dict[str, torch.Tensor], where: str) -> None:
    try:
        method.load_state_dict(tensors)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"the weights in {where} do not fit its config: {str(error).splitlines()[-1].strip()}") from None


def save_pretrained(method: Method, folder: str | Path) -> Path:
    """Write `method` to `folder` as model.safetensors, config.json and a model card (README.md); returns the folder."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"the output {folder} is a file; give a folder")
    with checkpoint.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        found = {file.name for file in folder.iterdir()}
    if found and (WEIGHTS not in found or found - {WEIGHTS, "config.json", "README.md"}):
        raise InputError(f"{folder} is a run folder or holds other files; export to a new or empty one")
    tensors = {key: value.detach().cpu().contiguous() for key, value in method.state_dict().items()}
    checkpoint.write_bytes(folder / WEIGHTS, dump_tensors(tensors))
    checkpoint.write_bytes(folder / "config.json", (json.dumps(checkpoint.describe(method), indent=2) + "\n").encode())
    checkpoint.write_bytes(folder / "README.md", _card(method).encode())
    return folder


def from_pretrained(folder: str | Path, *, device: str = "cpu") -> Method:
    """The method that `save_pretrained` wrote, bit for bit; InputError where files are missing, corrupt or do not fit."""
    device, folder = usable(device), Path(folder)
    method = build(checkpoint.read_config(folder), str(folder))
    _fill(method, checkpoint.read_tensors(folder / WEIGHTS), str(folder))
    return method.to(device).eval().requires_grad_(False)


def push_to_hub(method: Method, name: str, *, private: bool = False) -> str:
    """Upload `method` to the hub as `name` ("user/model"), with the token of `hf auth login`; returns the address."""
    import tempfile

    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(method, folder)
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
        return Path(snapshot_download(name, allow_patterns=[WEIGHTS, "config.json"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(f"'{name}' is no folder here and cannot be had from the hub: {str(error).splitlines()[0]}") from None


def _card(method: Method) -> str:
    c = method.config
    parameters = sum(p.numel() for p in method.parameters())
    explicit = has(method, "energy")
    kind = "An energy-based model trained with Thalweg: p(x) ∝ exp(−E(x))" if explicit else "A model trained with Thalweg"
    energy = "\ne = model.energy(x)  # nats, lower is more likely" if explicit else ""
    begun = has(method, "given")
    starts = ", **model.starts(64)" if begun else ""
    use = f"x = model.sample(64, seed=0{starts}){energy}" if has(method, "sample") else "z = model.encode(x)  # of your images x"
    return f"""---
library_name: thalweg
tags: [energy-based-model, {method.name}]
license: apache-2.0
---
# {method.name} on {c.data}

{kind}, {parameters:,} parameters,
examples of shape {tuple(c.shape)}{f", {c.classes} classes" if c.classes else ""}.

```python
import thalweg as tw
model = tw.load("FOLDER_OR_NAME")
{use}
```
"""
