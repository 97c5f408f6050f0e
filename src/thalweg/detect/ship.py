"""A detector as a file that runs without Thalweg: ONNX, or what `torch.export` writes; both hold tensors and operators, no code.

Rows of the fit are known to `EnergyDetector` and judged by the member that has not seen them; the graph judges every row as a new one.
"""

import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim, ExportedProgram

import thalweg
from thalweg import checkpoint
from thalweg.detect.detector import NEVER
from thalweg.detect.graph import Graph
from thalweg.errors import InputError, require

ONNX, TORCH = ".onnx", ".pt2"
OUTPUTS = {
    "score": "float64, logarithm of the density in nats up to a constant, lower for stranger rows",
    "p_value": "float64, of new inliers a share of about α, or less, has one of at most α",
    "verdict": "int64, 1 for outliers, 0 for others",
}
PICTURES = "float32 [pictures, channels, height, width] in [-1, 1], black and white being -1 and 1, of the size of fit"
INPUT = (
    "float64 [rows, columns]: numbers in the table's units, flags as 0 and 1, dates as seconds since 1970 in UTC, "
    "categories as their codes, -1 for others; NaN where missing, and in columns that were left out"
)
NAME = "thalweg.json"  # of the description inside a file


def export(detector: Any, *files: str | Path, fitted_on: dict[str, Any] | None = None) -> list[Path]:
    """Write a fitted detector to `files`, each an .onnx or a .pt2, and `describe` to FILE.json next to each.

    The description is in the file too: in the metadata of ONNX as "thalweg", among the extra files of torch.export as thalweg.json.
    Raises InputError for other suffixes, where the extra `onnx` is missing, and for what cannot be written.
    """
    paths = [Path(file) for file in files]
    for path in paths:
        if path.suffix not in (ONNX, TORCH):
            raise InputError(f"a detector is written as FILE{ONNX} or FILE{TORCH}, got {path}")
    if any(path.suffix == ONNX for path in paths):
        require("onnxscript", "onnx")
    with _quiet():
        found = program(detector)
        text = json.dumps(describe(detector) | ({"fitted_on": fitted_on} if fitted_on else {}), indent=1, ensure_ascii=False) + "\n"
        for path in paths:
            with checkpoint.writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            checkpoint.write_bytes(path, _as_onnx(found, text) if path.suffix == ONNX else _as_torch(found, text))
            checkpoint.write_bytes(path.with_name(path.name + ".json"), text.encode())
    return paths


def program(detector: Any) -> ExportedProgram:
    """The detector's `Graph`, for any number of rows or pictures."""
    pictures = detector.pictures_
    graph = Graph(detector.columns_, detector.ensemble_, detector.usual_, detector.conformal_.strangeness, detector.threshold_, pictures)
    rows = torch.zeros(2, len(detector.columns_.columns), dtype=torch.float64) if pictures is None else torch.zeros(2, *pictures.shape)
    with torch.no_grad():
        found = torch.export.export(graph.eval(), (rows,), dynamic_shapes=({0: Dim("rows", min=1)},))
    for node in found.graph.nodes:  # paths of the machine
        node.meta.pop("stack_trace", None)
    return found


def describe(detector: Any) -> dict[str, Any]:
    """What a graph takes and gives, as plain JSON: its columns in their order, with the code of each category, or the shape of pictures."""
    columns = [
        {"name": column.name, "kind": column.kind} | ({"codes": column.code_of} if column.kind == "category" else {})
        for column in detector.columns_.columns
    ]
    pictures = detector.pictures_
    return {
        "thalweg": thalweg.__version__,
        "input": {"x": INPUT if pictures is None else PICTURES},
        **({"columns": columns} if pictures is None else {"shape": list(pictures.shape)}),
        "outputs": OUTPUTS,
        "false_alarms": detector.contamination,
        "outliers_below": None if detector.threshold_ == NEVER else detector.offset_,
        "calibration_rows": len(detector.conformal_),
    }


def _as_onnx(found: ExportedProgram, text: str) -> bytes:
    written = torch.onnx.export(
        found, dynamo=True, verbose=False, dynamic_shapes={"x": {0: "rows"}}, input_names=["x"], output_names=list(OUTPUTS)
    )
    assert written is not None
    model = written.model
    parts: list[Any] = [model.graph, *model.graph.all_nodes(), *model.graph.initializers.values()]
    for part in parts:
        part.metadata_props.clear()  # of how PyTorch found it
    model.metadata_props["thalweg"] = text
    return written.model_proto.SerializeToString()


def _as_torch(found: ExportedProgram, text: str) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(found, buffer, extra_files={NAME: text})
    return buffer.getvalue()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what PyTorch says to its developers on the way."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
