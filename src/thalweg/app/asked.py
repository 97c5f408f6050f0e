"""What a page asks: numbers, choices and points out of its JSON, checked one by one."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from thalweg.errors import InputError, nearest

Asked = Mapping[str, Any]


def number(asked: Asked, name: str, default: float, low: float, high: float) -> float:
    """The number that is asked for, `default` where none is; InputError unless it is finite and within [low, high]."""
    value = asked.get(name)
    if value is None or value == "":
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not low <= value <= high:
        raise InputError(f"{name} must be a number from {low:g} to {high:g}, got {_short(value)}")
    return float(value)


def whole(asked: Asked, name: str, default: int, low: int, high: int) -> int:
    """As `number`, and a whole one."""
    value = asked.get(name)
    if value is None or value == "":
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1 or not low <= value <= high:
        raise InputError(f"{name} must be a whole number from {low} to {high}, got {_short(value)}")
    return int(value)


def choice(asked: Asked, name: str, known: Sequence[str], default: str = "") -> str:
    """One of `known`; `default` where nothing is asked for and there is one."""
    value = asked.get(name)
    if not value and default:
        return default
    if not isinstance(value, str) or value not in known:
        hint = nearest(value, known) if isinstance(value, str) else ""
        raise InputError(f"{name} must be one of {', '.join(known) or 'none'}, got {_short(value)}{hint}")
    return value


def points(asked: Asked, name: str, most: int, reach: float = 1e6) -> Tensor | None:
    """Points [N ≤ most, 2] from a list of pairs, None where there is none; InputError for anything else."""
    value = asked.get(name)
    if not value:
        return None
    wrong = InputError(f"{name} must be up to {most} pairs of numbers")
    if not isinstance(value, list) or len(value) > most:
        raise wrong
    for pair in value:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(one, int | float) and abs(one) <= reach for one in pair):
            raise wrong
    return torch.tensor(value, dtype=torch.float32)


def text(asked: Asked, name: str) -> str:
    value = asked.get(name)
    if not isinstance(value, str) or not value:
        raise InputError(f"{name} is missing")
    return value


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 40 else f"{shown[:37]}…"
