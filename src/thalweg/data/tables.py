"""Tables of concepts of one's own pictures: attributes.csv in a folder, the array `attributes` in a .npz file."""

import csv
import json
import re
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy
import torch
from torch import Tensor

from ..errors import InputError
from .attributes import join_label
from .images import MOST_VALUES, check_concepts

TABLE = "attributes.csv"


class Table(NamedTuple):
    """What `attributes.csv` says: `files` [N], `label` [N, M] and the concepts."""

    files: list[Path]
    label: Tensor
    concepts: dict[str, tuple[str, ...]]


def read_table(root: Path) -> Table:
    """The table attributes.csv of a folder: a column `file` (a path inside the folder) and a column a concept.

    Values are any text; they are numbered in their sorted order, numbers as numbers. A column of −1 and 1 (as in CelebA) becomes
    no and yes. Raises InputError for missing pictures, columns or cells, a file listed twice or outside the folder, and more than
    1000 values of a concept.
    """
    path = root / TABLE
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, strict=True)
            lines = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as comma-separated UTF-8 text: {error}") from error
    header = lines[0][1] if lines else []
    if header.count("file") != 1 or len(header) < 2 or len(set(header)) < len(header):
        raise InputError(f"{path} needs a column file and one a concept, each of another name, got {', '.join(header) or 'nothing'}")
    if len(lines) < 2:
        raise InputError(f"{path} lists no pictures")
    for number, row in lines[1:]:
        empty = next((name for name, cell in zip(header, row) if not cell), None)
        if len(row) != len(header) or empty is not None:
            given = f"{len(row)} cells for {len(header)} columns" if len(row) != len(header) else f"no value for {empty}"
            raise InputError(f"{path}, line {number}: {given}")
    columns = dict(zip(header, zip(*(row for _, row in lines[1:]))))
    files = _files(root, columns.pop("file"), path)
    names = {name: _sorted_values(set(cells)) for name, cells in columns.items()}
    shown = {name: ("no", "yes") if values == ("-1", "1") else values for name, values in names.items()}
    check_concepts(shown, str(path))
    places = {name: {value: place for place, value in enumerate(values)} for name, values in names.items()}
    numbers = {name: torch.tensor([places[name][cell] for cell in cells]) for name, cells in columns.items()}
    return Table(files, join_label(numbers, shown), shown)


def _files(root: Path, names: tuple[str, ...], table: Path) -> list[Path]:
    for name in names:
        if PurePosixPath(name).is_absolute() or Path(name).is_absolute() or ".." in Path(name).parts:
            raise InputError(f"{table}: the file {name} is outside the folder")
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise InputError(f"{table}: {twice} is listed twice")
    files = [root / name for name in names]
    missing = [name for name, file in zip(names, files) if not file.is_file()]
    if missing:
        raise InputError(f"{table}: {len(missing)} of {len(files)} pictures are not there, first {missing[0]}")
    return files


def _sorted_values(values: set[str]) -> tuple[str, ...]:
    if "-1" in values and values <= {"-1", "1"}:  # yes and no of CelebA, even where the set holds only one of them
        return ("-1", "1")
    numbers = all(re.fullmatch(r"-?\d+(\.\d+)?", value) for value in values)
    return tuple(sorted(values, key=lambda value: (float(value) if numbers else 0, value)))


def read_attributes(attributes: numpy.ndarray, concepts: numpy.ndarray | None, name: str) -> tuple[Tensor, dict[str, tuple[str, ...]]]:
    """Labels [N, M] and concepts from the arrays `attributes` [N, M], integers from 0, and `concepts` of a .npz file.

    concepts: M names, or one JSON text: a list of M names, or an object of names and their values' names. Without it the concepts
    are attribute0, attribute1 …; values without names are called by their numbers. Raises InputError for anything else.
    """
    if attributes.ndim != 2 or 0 in attributes.shape or attributes.dtype.kind not in "iu":
        given = f"{list(attributes.shape)} of {attributes.dtype}"
        raise InputError(f"{name}: attributes must be integers [N, M], a column a concept, got {given}")
    if attributes.min() < 0:
        raise InputError(f"{name}: attributes must be numbers from 0, got {attributes.min()}")
    columns = attributes.shape[1]
    named = [f"attribute{i}" for i in range(columns)] if concepts is None else _named(concepts, name)
    texts = isinstance(named, list) and all(isinstance(item, str) for item in named)
    lists = isinstance(named, dict) and all(isinstance(v, list) and all(isinstance(item, str) for item in v) for v in named.values())
    if not (texts or lists) or len(named) != columns or len(set(named)) != columns:
        raise InputError(f"{name}: concepts must be {columns} different names, or a JSON object of {columns} names and lists of values")
    numbers = torch.from_numpy(attributes.astype(numpy.int64))
    highest = numbers.amax(0).tolist()
    # not one name too many: a column of identifiers could ask for any number of them
    counted = {concept: tuple(str(value) for value in range(min(high, MOST_VALUES) + 1)) for concept, high in zip(named, highest)}
    found = {concept: tuple(named[concept]) for concept in named} if isinstance(named, dict) else counted
    check_concepts(found, name)
    for concept, high in zip(found, highest):
        if high >= len(found[concept]):
            raise InputError(f"{name}: {concept} has {len(found[concept])} values, but attributes hold the number {high}")
    return join_label(dict(zip(found, numbers.unbind(1))), found), found


def _named(concepts: numpy.ndarray, name: str) -> object:
    if concepts.dtype.kind != "U" or concepts.ndim > 1:
        raise InputError(f"{name}: concepts must be text, got {list(concepts.shape)} of {concepts.dtype}")
    if concepts.ndim:
        return concepts.tolist()
    try:
        return json.loads(concepts.item())
    except ValueError as error:
        raise InputError(f"{name}: concepts is no JSON: {error}") from error
