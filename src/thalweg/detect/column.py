"""One column of a table: what is learned of it at fit, and its place among an encoded row's numbers."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy

from .cells import short
from .scale import CHANGED, FAR, compress
from .values import MANY, Values, parse

OWN = 27  # categories with an output of their own; rare, missing and unseen make it 30
KNOWN = 10_000  # categories that are told from unseen ones


@dataclass(frozen=True)
class Column:
    """A column of the user's as it was at fit."""

    name: str
    kind: str
    """number, flag (true and false), date (seconds), category, or dropped"""
    centre: float = 0.0
    unit: float = 1.0
    """standard deviation, without the wildest values; of a category the root of the summed variances of its outputs"""
    fill: float = 0.0
    """the median, which stands for missing values"""
    missing: float = 0.0
    """share of missing values"""
    lenient: bool = False
    """text that is no number counts as missing"""
    declared: bool = False
    """the user's own type is one of categories"""
    numeric: bool = False
    """some categories are numbers"""
    own: tuple[str, ...] = ()
    """categories with an output of their own"""
    merged: tuple[str, ...] = ()
    """categories that share an output; empty where new ones join them"""
    shares: tuple[float, ...] = ()
    """of the outputs at fit: own, then the rare ones where there are, then missing where some were"""
    rare: bool = False
    """an output for rare categories"""
    unseen: bool = False
    """an output for categories that were not there at fit; without it they count as rare"""

    @property
    def outputs(self) -> list[str]:
        if self.kind == "category":
            own = [f"{self.name}={text}" for text in self.own]
            others = [("rare", self.rare), ("missing", self.missing > 0), ("unseen", self.unseen)]
            return own + [f"{self.name} ({word})" for word, there in others if there]
        return [] if self.kind == "dropped" else [self.name] + [f"{self.name} (missing)"] * (self.missing > 0)

    @property
    def units(self) -> list[float]:
        if self.kind == "category":
            return [self.unit] * len(self.shares) + [CHANGED] * self.unseen
        return [] if self.kind == "dropped" else [self.unit] + [spread(self.missing)] * (self.missing > 0)

    @cached_property
    def places(self) -> dict[str | None, int]:
        """The row of `codes` of each category that is known."""
        found: dict[str | None, int] = {text: i for i, text in enumerate(self.own)}
        found |= dict.fromkeys(self.merged, len(self.own))
        return found | ({None: len(self.shares) - 1} if self.missing else {None: len(self.shares) + 1})

    @property
    def code_of(self) -> dict[str, int]:
        """The number that stands for each known category, from 0; rare ones share one."""
        return {text: row for text, row in self.places.items() if text is not None}

    @cached_property
    def codes(self) -> numpy.ndarray:
        """Outputs [C + 2, D] of each of C known categories, of a new one, and of a missing value where there was none at fit."""
        shares = numpy.array(self.shares)
        rows = [compress((row - shares) / self.unit) for row in (*numpy.eye(len(shares)), numpy.zeros(len(shares)))]
        codes = numpy.zeros((len(rows) + 1, len(shares) + self.unseen))
        codes[:-1, : len(shares)] = rows
        codes[-1] = codes[-2]
        if self.unseen:
            codes[-2:, -1] = FAR
        else:
            codes[-2] = codes[len(self.own)]
            codes[-1, len(self.own)] = FAR
        return codes


def spread(share: float) -> float:
    """Standard deviation of what is 1 in a share of rows, else 0."""
    return math.sqrt(share * (1 - share)) or 1.0


def fit_number(name: str, values: Values, column: Column, constant: bool, log: "Log") -> Column:
    """A column of numbers, flags or dates whose scale is known, with a note of what was special about it."""
    if column.missing == 1:
        log.add("left out, all values are missing", name)
        return Column(name, "dropped")
    if constant:
        log.add("the same in all rows, or in all but one; any other value counts as very unusual", name)
    if column.kind == "date":
        log.add("dates, as seconds since 1970; rows later than those of fit count as unusual", name)
    if column.missing:
        log.add("missing values are filled with the median, and marked in a column of their own", name, f"{column.missing:.1%}")
    if values.refused:
        log.add("cells that are no numbers count as missing", name, f"{len(values.refused)}, first in row {values.refused[0]}")
        return Column(**(asdict(column) | {"lenient": True}))
    return column


def fit_category(name: str, texts: list[str | None], declared: bool, log: "Log") -> Column:
    """A column of categories [N], None where missing: which have an output of their own, and whether new ones are to be expected."""
    counts: dict[str | None, int] = Counter(texts)
    missing = counts.pop(None, 0)
    rows, different, once = len(texts) - missing, len(counts), sum(count == 1 for count in counts.values())
    if not different:
        log.add("left out, all values are missing", name)
        return Column(name, "dropped")
    if (different == rows and rows > 2) or (different > MANY and different > rows / 2):
        log.add("left out as identifiers or free text, most values are different", name, f"{different} in {rows} rows")
        return Column(name, "dropped")
    ordered = sorted(((text, count) for text, count in counts.items() if text is not None), key=lambda item: (-item[1], item[0]))
    # the share of values that occur once estimates that of unseen values in new rows (Good and Turing)
    open_ended = (once > 2 and once > rows / 100) or different > KNOWN
    own = tuple(text for text, count in ordered[:OWN] if count > 1 or not open_ended)
    merged = tuple(text for text, _ in ordered[len(own) :])
    rare = bool(merged)
    if open_ended:
        log.add("new categories are to be expected and count as rare ones", name, f"{once} occur once in {rows} rows")
    elif merged:
        log.add("rare categories share one number", name, f"{len(merged)} of {different}")
    elif different == 1:
        log.add("the same in all rows, or in all but one; any other value counts as very unusual", name)
    if missing:
        log.add("missing values are a category of their own", name, f"{missing / len(texts):.1%}")
    sizes = [counts[text] for text in own] + [sum(counts[text] for text in merged)] * rare + [missing] * (missing > 0)
    shares = tuple(size / len(texts) for size in sizes)
    unit = math.sqrt(sum(share * (1 - share) for share in shares)) or 1.0
    numeric = any(parse(text) is not None for text, _ in ordered)
    return Column(
        name, "category", unit=unit, missing=missing / len(texts), declared=declared, numeric=numeric, own=own,
        merged=() if open_ended else merged, shares=shares, rare=rare, unseen=not open_ended,
    )  # fmt: skip


class Log:
    """What was done at fit: a sentence each, with the names of the columns that it is true of."""

    def __init__(self, rows: int):
        self.rows = rows
        self.told: dict[str, list[str]] = {}

    def add(self, what: str, name: str, detail: str = "") -> None:
        self.told.setdefault(what, []).append(short(name) + (f" ({detail})" if detail else ""))

    def sentences(self) -> list[str]:
        return [f"{listed(names, quoted=False)}: {what}." for what, names in self.told.items()]


def listed(names: Sequence[str], most: int = 8, quoted: bool = True) -> str:
    """The first names of a list, and how many more there are."""
    shown = ", ".join(short(name) if quoted else name for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
