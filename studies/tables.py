"""Write docs/benchmarks.md, what docs/scale.md and README show of figures from studies/results/*.json, so that no figure is typed by hand.

    python -m studies.tables

A study declares next to its code what the page shows of its results: `PAGE`, sections of parts, each of one file of results (and of
those of the same name for other data sets). A part is a row of blocks: texts, tables, pictures. A text is a template of the results:
`{images:,}`, `{runs[0][n]}`. Forms beyond Python's: `.1f %` of a share, `+.1f±` of a value and its standard error; – for None.
"""

import importlib
import json
import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studies.runner import name_of
from thalweg.commands.list import MEASURED
from thalweg.presets import FIRST

ROOT = Path(__file__).parents[1]
RESULTS, DOCS = ROOT / "studies" / "results", ROOT / "docs"
# the order of the page, and that of data sets within a section
SECTIONS = (
    "checks.quickstart", "arena", "checks.density", "checks.fidelity", "checks.ood", "checks.likelihood", "dual", "short_run",
    "cdrl", "egc", "coopflow", "cf_ebm",
    "ddaebm", "liebm", "nerf_lebm", "checks.speed", "checks.cost", "detector", "detector_pictures", "checks.detector_export",
    "checks.detector_stream", "checks.detector_cost", "checks.precision",
    "checks.streaming", "checks.memory", "checks.resume", "checks.startup", "checks.clock", "checks.wheel",
)  # fmt: skip
DATA = ("digits", "fashion-mnist", "emoji", "emoji-google", "emoji-google-kinds")
SOURCE = "From `studies/results/{file}.json`: `{command}`, {machine[cpu]}, {machine[cores]} cores, PyTorch {versions[torch]}, {date:.10}."

Values = Mapping[str, Any]


def shown(value: Any, form: str = "") -> str:
    """A value in its form, by default four digits of a float; – for None; a value and its standard error where there is one."""
    if form.endswith("±"):
        value, error = (value["mean"], value["standard_error"]) if isinstance(value, Mapping) else value
        return shown(value, form[:-1]) if value is None or error is None else f"{value:{form[:-1]}} ± {error:{form[:-1].lstrip('+')}}"
    if value is None:
        return "–"
    if form.endswith(" %"):
        return f"{100 * value:{form[:-2]}} %"
    if isinstance(value, bool):
        return ("no", "yes")[value]
    return format(value, form or (".4g" if isinstance(value, float) else ""))


class Template(string.Formatter):
    def format_field(self, value: Any, form: str) -> str:
        return shown(value, form)


def filled(template: str, values: Values) -> str:
    return Template().vformat(template, (), values)


def found(row: Values, key: Any) -> Any:
    """What a column shows of a row: by a key, or a path of keys with dots, several keys, or a function of the row."""
    if callable(key):
        return key(row)
    if isinstance(key, tuple):
        return tuple(found(row, one) for one in key)
    if isinstance(row, Mapping) and (key in row or "." not in key):
        return row.get(key)
    first, _, rest = key.partition(".")
    return found(row[int(first)] if isinstance(row, list) else row[first], rest)


@dataclass(frozen=True)
class Table:
    """A line for each of some rows: those at a key of the results, or given by a function of them.

    Columns are `TITLE = KEY:FORM` between `|`, `TITLE = KEY ± KEY:FORM` for a value and its standard error, without the key where it is
    the title; or several of these and (title, function of a row, form). A function of the results may give them.
    """

    columns: str | Sequence[str | tuple] | Callable[[Values], Sequence[str | tuple]]
    rows: str | Callable[[Values], Sequence[Values]] = "summary"

    def text(self, values: Values) -> str:
        given = self.columns(values) if callable(self.columns) else self.columns
        columns = [c for one in ([given] if isinstance(given, str) else given) for c in (parsed(one) if isinstance(one, str) else [one])]
        head = [filled(title, values) for title, *_ in columns]
        rows = [[shown(found(row, key), *form) for _, key, *form in columns] for row in found(values, self.rows)]
        return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def parsed(columns: str) -> list[tuple]:
    """(title, key, form) of columns that are written as text."""
    made = []
    for column in columns.split(" | "):
        title, _, place = column.rpartition(" = ")
        key, _, form = place.partition(":")
        made.append((title or key, tuple(key.split(" ± ")), form + "±") if " ± " in key else (title or key, key, form))
    return made


@dataclass(frozen=True)
class Picture:
    """A picture of docs/images, where it is there: `file` is a template, or a pattern with *, of whose matches the caption may tell the
    `words` of the name but for the first, and the `last` of them."""

    caption: str
    file: str

    def text(self, values: Values) -> str:
        paths = sorted((DOCS / "images").glob(filled(self.file, values)))
        words = {path: path.stem.split("_") for path in paths}
        captions = {path: filled(self.caption, {**values, "words": ", ".join(words[path][1:]), "last": words[path][-1]}) for path in paths}
        return joined(f"![{captions[path]}](images/{path.name})" for path in paths)


@dataclass(frozen=True)
class Each:
    """Blocks for each of several items, whose values join those of the results."""

    items: str | Callable[[Values], Sequence[Values]]
    blocks: Sequence[Any]

    def text(self, values: Values) -> str:
        return joined(block_text(block, {**values, **item}) for item in found(values, self.items) for block in self.blocks)


@dataclass(frozen=True)
class When:
    """Blocks that are shown where the results have what they tell of: a key, or a function of the results."""

    has: str | Callable[[Values], Any]
    blocks: Sequence[Any]

    def text(self, values: Values) -> str:
        return joined(block_text(block, values) for block in self.blocks) if found(values, self.has) else ""


@dataclass(frozen=True)
class Shown:
    """What is shown of a file of results, with its source behind the last table, or where a block says `{source}`.

    `also` gives further values for the templates: those of the results, `data`, `at_size`, `seeds_in_words`, and
    `results` as a whole are there.
    """

    name: str
    blocks: Sequence[Any]
    also: Callable[[Values], Values] = lambda values: {}

    def text(self, data: str) -> str:
        file = name_of(self.name, data)
        record = json.loads((RESULTS / f"{file}.json").read_text())
        results = record["results"] if isinstance(record["results"], dict) else {}
        size = f" at {results['size']}×{results['size']}" if results.get("size") else ""
        seeds = f"{results.get('seeds')} seed{'s' * (results.get('seeds') != 1)}"
        values = {**results, "data": data, "at_size": size, "seeds_in_words": seeds, "results": record["results"]}
        values["source"] = filled(SOURCE, {**record, "file": file, "command": present(record["command"])})
        blocks = list(self.blocks)
        if "{source}" not in blocks:
            blocks.insert(max(i + 1 for i, block in enumerate(blocks) if has_table(block)), "{source}")
        return joined(block_text(block, {**values, **self.also(values)}) for block in blocks)


@dataclass(frozen=True)
class Section:
    """A part of the page: what is shown of each file of results. Those of a group are shown together for each data set."""

    title: str
    parts: Sequence[Shown | Sequence[Shown]]
    intro: str = ""

    def text(self) -> str:
        groups = [(part,) if isinstance(part, Shown) else part for part in self.parts]
        there = [
            (part, data) for group in groups for data in DATA for part in group if (RESULTS / f"{name_of(part.name, data)}.json").exists()
        ]
        return joined([f"## {self.title}", self.intro, *(part.text(data) for part, data in there)]) if there else ""


def has_table(block: Any) -> bool:
    return isinstance(block, Table) or (isinstance(block, Each | When) and any(map(has_table, block.blocks)))


def block_text(block: Any, values: Values) -> str:
    return filled(block, values) if isinstance(block, str) else block.text(values)


def joined(texts: Any) -> str:
    return "\n\n".join(text for text in texts if text)


def present(command: str) -> str:
    """A recorded command in the names that modules and folders have now: in version 0.1 all were in benchmarks/."""

    def module(match: re.Match) -> str:
        name = {"study_cdrl": "cdrl ablation"}.get(match[1], match[1].removeprefix("study_"))
        return f"studies.checks.{name}" if (ROOT / "studies" / "checks" / f"{name}.py").exists() else f"studies.{name}"

    return re.sub(r"(?<=-m )benchmarks\.(\w+)", module, command).replace("benchmarks/results", "studies/results")


def page() -> str:
    head = "# Benchmarks\n\nWritten by `python -m studies.tables` from the files in `studies/results`."
    sections = [section for name in SECTIONS for section in importlib.import_module(f"studies.{name}").PAGE]
    return joined([head, *(section.text() for section in sections)]) + "\n"


def readme(text: str) -> str:
    """README with the five figures of its table filled in."""
    m = json.loads((RESULTS / "quickstart.json").read_text())["results"]["metrics"]
    frechet = m["fidelity"]["guided samples"]["frechet"]
    values = {
        "test accuracy": shown(m["accuracy"]["value"], ".1f %"),
        "class accuracy of guided samples": shown(m["fidelity"]["class_accuracy"]["value"], ".1f %"),
        "Fréchet distance of guided samples, in a small classifier's features": f"{frechet['value']:.2f}",
        "the same for real held-out digits (the floor)": f"{frechet['held_out']:.2f}",
        "outlier detection, mean AUROC over five kinds": f"{m['ood']['energy']['mean_auroc']:.3f}",
    }
    for name, value in values.items():
        text = re.sub(rf"^\| {re.escape(name)} *\|.*$", f"| {name} | {value} |", text, flags=re.MULTILINE)
    return text


ARENA = re.compile(r"(?<=<!-- the arena -->\n).*?(?=<!-- end of the arena -->)", re.DOTALL)
SHORT = (
    "row = method | Fréchet = frechet:.1f | floor = floor:.1f | by label = guided:.1f | bits = bits:.2f | accuracy = accuracy:.1f % | "
    "hardest outliers = worst | evaluations = evaluations:.0f | CPU s a sample = cpu_seconds_sample:.2g | CPU s = length"
)


def choosing(text: str) -> str:
    """The page on how to choose with the arena's table filled in."""
    arena = importlib.import_module("studies.arena")
    values = json.loads((RESULTS / "arena.json").read_text())
    tables = [f"{one['set']}:\n\n{Table(SHORT, 'rows').text(one)}\n" for one in arena.of_data(values)]
    return ARENA.sub(lambda match: "\n" + "\n".join(tables) + "\n", text)


def scale(text: str) -> str:
    """docs/scale.md with the table of presets and the sentence on a failing machine filled in."""
    for place, name, said in (("presets", "checks.presets", "table"), ("node", "checks.node", "said")):
        record = json.loads((RESULTS / f"{place}.json").read_text())
        source = filled(SOURCE, {**record, "file": place})
        found = getattr(importlib.import_module(f"studies.{name}"), said)(record["results"])
        pattern = rf"(?<=<!-- {place} -->\n).*?(?=<!-- end of {place} -->)"
        text = re.sub(pattern, lambda _, found=found, source=source: f"{found}\n\n{source}\n\n", text, flags=re.DOTALL)
    return text


def measured() -> str:
    """What `thalweg list` says was measured of presets, as JSON: text by METHOD/PRESET, of rows that change no field of it."""
    found = {}
    quick = json.loads((RESULTS / "quickstart.json").read_text())
    frechet = quick["results"]["metrics"]["fidelity"]["guided samples"]["frechet"]
    threads = quick["machine"]["threads"]
    found[FIRST] = said_of(frechet["value"], frechet["held_out"], quick["results"]["training_seconds"], " by label", threads=threads)
    arena = RESULTS / "arena.json"
    for row in json.loads(arena.read_text())["results"]["rows"] if arena.exists() else []:
        if not row["fields"] and not row["seed"] and row.get("frechet") is not None:
            found[row["preset"]] = said_of(row["frechet"], row["floor"], row["cpu_seconds"])
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def said_of(frechet: float, floor: float, seconds: float, how: str = "", *, threads: int = 1) -> str:
    return f"Fréchet {frechet:.1f}{how} (real images {floor:.1f}) after {seconds / 60:.0f} min on {threads} core{'s' * (threads > 1)}"


def main() -> None:
    MEASURED.write_text(measured(), encoding="utf-8")
    (DOCS / "benchmarks.md").write_text(page())
    (DOCS / "gallery.md").write_text(importlib.import_module("studies.gallery").page())
    (DOCS / "how_to_choose.md").write_text(choosing((DOCS / "how_to_choose.md").read_text()))
    (DOCS / "scale.md").write_text(scale((DOCS / "scale.md").read_text()))
    (ROOT / "README.md").write_text(readme((ROOT / "README.md").read_text()))


if __name__ == "__main__":
    importlib.import_module("studies.tables").main()  # by the name under which studies have its classes
