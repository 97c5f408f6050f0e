"""`thalweg export`: a trained model as safetensors, config.json and a model card; a detector as one graph."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from thalweg.commands.options import method_class, parse
from thalweg.errors import InputError


@dataclass
class Options:
    """Write a trained model as safetensors, config.json and a model card, to a folder or to the Hugging Face hub; or a detector
    as a graph, from rows to score, p-value and verdict, that runs without Thalweg."""

    model: Annotated[str, "positional"]
    """run folder, or a detector's folder"""
    out: Path | None = None
    """folder to write"""
    hub: str | None = None
    """hub name, user/model"""
    which: str = "last"
    """state of a run: last or best"""
    precision: str = "fp32"
    """fp32, or bf16 for a file of half the size"""
    kind: str | None = None
    """FILE.py:CLASS of a method of your own"""
    onnx: Path | None = None
    """of a detector: FILE.onnx to write"""
    torch_export: Path | None = None
    """of a detector: FILE.pt2 to write, for torch.export.load"""


def run(arguments: list[str]) -> None:
    options = parse(Options, arguments, "export")
    if (Path(options.model) / "detector.json").is_file():
        _export_detector(options)
        return
    if options.onnx or options.torch_export:
        raise InputError(f"--onnx and --torch-export are for a detector's folder, with detector.json, and {options.model} is none")
    if (options.out is None) == (options.hub is None):
        raise InputError("export needs either --out DIR or --hub NAME")
    from thalweg.store import load, push_to_hub, save

    method = load(options.model, which=options.which, kind=method_class(options.kind))
    print(save(method, options.out, precision=options.precision) if options.out is not None else push_to_hub(method, str(options.hub)))


def _export_detector(options: Options) -> None:
    if options.out or options.hub or options.kind:
        raise InputError(
            f"{options.model} is a detector: it is written by --onnx FILE.onnx or --torch-export FILE.pt2, or as it is by cp -r"
        )
    for option, file, suffix in (("onnx", options.onnx, ".onnx"), ("torch-export", options.torch_export, ".pt2")):
        if file is not None and file.suffix != suffix:
            raise InputError(f"--{option} needs a file name that ends in {suffix}, got {file}")
    files = [file for file in (options.onnx, options.torch_export) if file is not None]
    if not files:
        raise InputError("export of a detector needs --onnx FILE.onnx or --torch-export FILE.pt2")
    from thalweg.commands.detect import load
    from thalweg.detect import ship

    detector, told = load(Path(options.model))
    for file in ship.export(detector, *files, fitted_on=told):
        print(file)
