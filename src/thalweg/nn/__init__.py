"""Networks, without any knowledge of a method; tensors in, tensors out."""

import importlib
from typing import Any


def __getattr__(name: str) -> Any:  # tw.nn.build, tw.nn.mlp, …: imported on first use
    try:
        return importlib.import_module(f"thalweg.nn.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"thalweg.nn.{name}":
            raise
        raise AttributeError(f"module 'thalweg.nn' has no attribute '{name}'") from None
