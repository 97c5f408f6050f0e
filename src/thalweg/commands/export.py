"""`thalweg export`: a trained model as safetensors, config.json and a model card."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from thalweg.commands.options import method_class, parse
from thalweg.errors import InputError


@dataclass
class Options:
    """Write a trained model as safetensors, config.json and a model card, to a folder or to the Hugging Face hub."""

    model: Annotated[str, "positional"]
    """run folder"""
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


def run(arguments: list[str]) -> None:
    options = parse(Options, arguments, "export")
    if (options.out is None) == (options.hub is None):
        raise InputError("export needs either --out DIR or --hub NAME")
    from thalweg.store import load, push_to_hub, save

    method = load(options.model, which=options.which, kind=method_class(options.kind))
    print(save(method, options.out, precision=options.precision) if options.out is not None else push_to_hub(method, str(options.hub)))
