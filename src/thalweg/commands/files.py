"""Files that the commands read and write: arrays, and images to work on."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from thalweg import checkpoint
from thalweg.data.folders import Values, decode, look, pictures_in
from thalweg.data.frames import TABLE_SUFFIXES, read_file
from thalweg.data.images import Images, Size, convert, to_unit
from thalweg.data.sources import read_arrays
from thalweg.data.vectors import Table
from thalweg.errors import InputError


def write_arrays(out: Path, **arrays: Tensor) -> Path:
    """An .npz of named arrays, written whole or not at all."""
    import numpy as np

    buffer, contents = io.BytesIO(), {name: array.cpu().numpy() for name, array in arrays.items()}
    np.savez(buffer, **cast(Any, contents))
    checkpoint.write_bytes(out, buffer.getvalue())
    return out


def write_table(out: Path, x: Tensor, columns: Sequence[str], labels: Tensor | None = None, classes: Sequence[str] = ()) -> Path:
    """Vectors [N, D] as a .csv with the names of their columns, and a column label where there are labels; whole or not at all."""
    import csv

    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = tuple(columns) or tuple(f"x{i}" for i in range(x.shape[1]))
    rows = [[format(value, ".9g") for value in row] for row in x.cpu().tolist()]
    if labels is not None:
        names, rows = (*names, "label"), [[*row, classes[i] if i < len(classes) else str(i)] for row, i in zip(rows, labels.tolist())]
    writer.writerows([names, *rows])
    checkpoint.write_bytes(out, stream.getvalue().encode())
    return out


def read_images(source: str, size: Size | None, channels: int, values: Values | None = None) -> tuple[list[str], Tensor]:
    """Names and images [N, C, H, W] in [−1, 1] of a folder of pictures, one picture, or an .npz; InputError where there are none.

    `values`: black and white of 16-bit pictures, as the model was trained on them.
    """
    path = Path(source)
    if path.suffix == ".npz" and path.is_file():
        found = read_arrays(path)
        if not isinstance(found, Images):
            raise InputError(f"--input {source}: it holds vectors {list(found.shape)}, need images [N, C, H, W]")
        x = to_unit(convert(found.x, size, channels))
        return [f"{path.name}[{i}]" for i in range(len(x))], x
    files = pictures_in(path) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise InputError(f"--input {source}: no picture there; give a folder with pictures, one picture, or an .npz")
    of = {file: values if values is not None and look(file).deep else None for file in files}
    return [str(file) for file in files], to_unit(torch.stack([decode(file, str(file), size, channels, of[file]) for file in files]))


def read_rows(source: str, columns: Sequence[str]) -> tuple[list[str], Table]:
    """Names and rows of a .csv, .parquet, .npz or .npy file; `columns`: those that a model was trained on. InputError for other files."""
    path = Path(source)
    if not path.is_file() or path.suffix.lower() not in (*TABLE_SUFFIXES, ".npz", ".npy"):
        raise InputError(f"--input {source}: no table there; give a .csv, .parquet, .npz or .npy file")
    table = path.suffix.lower() in TABLE_SUFFIXES
    found = read_file(path, columns=columns, standardise=False) if table else read_arrays(path)
    if not isinstance(found, Table):
        raise InputError(f"--input {source}: it holds images {list(found.shape)}, need vectors [N, D]")
    return [f"{path.name}[{i}]" for i in range(len(found))], found
