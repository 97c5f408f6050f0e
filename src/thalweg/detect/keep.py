"""A detector on disk: detector.json and model.safetensors. Reading executes no code."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor

import thalweg
from thalweg import checkpoint
from thalweg.detect.columns import Columns
from thalweg.detect.density import LEVELS, Blocks, Ensemble, Training, untrained
from thalweg.detect.known import Known
from thalweg.detect.pictures import Pictures
from thalweg.detect.scores import Usual
from thalweg.errors import InputError

FILE, WEIGHTS = "detector.json", "model.safetensors"
PARAMETERS = ("contamination", "seconds", "members", "updates", "features")


class Kept(NamedTuple):
    """What `EnergyDetector.load` needs."""

    parameters: dict[str, Any]
    columns: Columns
    pictures: Pictures | None
    ensemble: Ensemble | Blocks
    usual: Usual
    known: Known
    strangeness: numpy.ndarray
    held_out: numpy.ndarray
    left_out: numpy.ndarray
    sensitivity: dict[str, float]
    choice: dict[str, float]


def write(detector: Any, folder: Path) -> Path:
    """A fitted detector into a new or empty folder, or over another detector; InputError for a folder that holds anything else."""
    with checkpoint.writing(folder):
        if folder.exists() and (not folder.is_dir() or any(file.name not in (FILE, WEIGHTS) for file in folder.iterdir())):
            raise InputError(f"{folder} holds other files; give a new or empty folder")
        folder.mkdir(parents=True, exist_ok=True)
    known: Known = detector.known_
    tensors = {
        "keys": torch.from_numpy(known.keys.view(numpy.int64).copy()),
        "known": torch.from_numpy(known.strangeness),
        "strangeness": torch.from_numpy(numpy.asarray(detector.decision_scores_, numpy.float64)),
        "held_out": torch.from_numpy(detector.conformal_.strangeness),
        "left_out": torch.from_numpy(detector.left_out_),
        "usual": torch.stack([*detector.usual_]),
    }
    if detector.pictures_ is not None:
        tensors |= {f"pictures.{key}": value.contiguous() for key, value in detector.pictures_.tensors().items()}
    models = [model for block in detector.ensemble_.blocks for model in block.models]  # of one block after the other
    for number, model in enumerate(models):
        tensors |= {f"{number}.{key}": value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    weights = dump_tensors(tensors)
    content = {
        "weights": hashlib.sha256(weights).hexdigest(),  # of two files, of which a crash may leave the one old and the other new
        "thalweg": thalweg.__version__,
        "parameters": {key: getattr(detector, key) for key in PARAMETERS},
        "networks": len(models),
        "columns": detector.columns_.as_dict(),
        "sensitivity": detector.sensitivity_,
        "choice": detector.choice_,
    }
    checkpoint.write_bytes(folder / WEIGHTS, weights)
    checkpoint.write_bytes(folder / FILE, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())
    return folder


def read(folder: Path) -> Kept:
    """What `write` wrote. Raises InputError where nothing is there, and for what is corrupt."""
    try:
        content = json.loads((folder / FILE).read_bytes())
        weights = (folder / WEIGHTS).read_bytes()
        tensors = parse_tensors(weights)
    except FileNotFoundError as error:
        raise InputError(
            f"{folder} is no detector: there is no {Path(str(error.filename)).name}; fit one with thalweg detect fit"
        ) from None
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"the detector in {folder} cannot be read: {error}") from None
    try:
        if content["weights"] != hashlib.sha256(weights).hexdigest():
            raise ValueError(f"{FILE} and {WEIGHTS} are not of one detector")
        columns = Columns.from_dict(content["columns"])
        pictures = Pictures.of_tensors(_under("pictures.", tensors)) if "pictures.shape" in tensors else None
        widths = [len(columns.outputs)] if pictures is None else pictures.widths
        if sum(widths) != len(columns.outputs):
            raise ValueError("pictures of other numbers")
        members = int(content["networks"]) // len(widths)
        blocks = [
            Ensemble([_member(width, tensors, f"{block * members + i}.") for i in range(members)]) for block, width in enumerate(widths)
        ]
        names = ("usual", "strangeness", "held_out", "left_out", "known")
        usual, strangeness, held_out, left_out, known = (tensors[key].double() for key in names)
        if usual.shape != (2, len(blocks) * (len(LEVELS) + 1)) or not all(
            part.isfinite().all() for part in (usual, strangeness, held_out, left_out, known)
        ):
            raise ValueError("figures that are not finite, or of other noise levels")
        return Kept(
            parameters={key: content["parameters"][key] for key in PARAMETERS},
            columns=columns,
            pictures=pictures,
            ensemble=blocks[0] if len(blocks) == 1 else Blocks(blocks, widths),
            usual=Usual(*usual),
            known=Known(tensors["keys"].numpy().view(numpy.uint64), known.numpy()),
            strangeness=strangeness.numpy(),
            held_out=held_out.numpy(),
            left_out=left_out.numpy(),
            sensitivity={str(name): float(share) for name, share in content["sensitivity"].items()},
            choice={str(name): float(area) for name, area in content["choice"].items()},
        )
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"the detector in {folder} is corrupt, or of another version: {str(error).splitlines()[-1].strip()}") from None


def _member(dim: int, tensors: dict[str, Tensor], prefix: str) -> Any:
    model = untrained(dim, Training())
    model.load_state_dict(_under(prefix, tensors))
    return model.eval().requires_grad_(False)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
