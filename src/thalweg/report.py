"""A page about a run or a model: facts, samples, figures, training and configuration in one HTML file that needs nothing else."""

import base64
import html
import os
import struct
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from thalweg.checkpoint import flat
from thalweg.errors import InputError
from thalweg.plot.style import PIXELS

KINDS = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp"}

CSS = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1f2933; --soft: #52606d; --line: #e4e7eb; --card: #f7f8fa; --good: #0f766e; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14181d; --ink: #e6e9ec; --soft: #9aa5b1; --line: #2b323a; --card: #1c2128; --good: #5eead4; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 64rem; padding: 2rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2.25rem 0 .75rem; }
.wide { overflow-x: auto; margin-bottom: 1.5rem; }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: 0 0 1.75rem; font-size: .9rem; }
.facts dt { color: var(--soft); }
.facts dd { margin: 0; overflow-wrap: anywhere; }
.facts dd.typed { font-family: ui-monospace, "SF Mono", Consolas, monospace; font-size: .85rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 17rem), 1fr)); gap: .75rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .8rem 1rem; break-inside: avoid; }
.card h3 { font-size: .85rem; font-weight: 600; color: var(--soft); margin: 0; overflow-wrap: anywhere; }
.card .value { font-size: 1.7rem; font-weight: 650; line-height: 1.35; font-variant-numeric: tabular-nums; margin: 0; }
.card .value span { font-size: .85rem; font-weight: 400; color: var(--good); white-space: nowrap; }
.card .floor { margin: 0; font-size: .85rem; }
.card .about { margin: .35rem 0 0; color: var(--soft); font-size: .85rem; line-height: 1.45; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .45rem 1.25rem .45rem 0; border-bottom: 1px solid var(--line); }
th { font-size: .8rem; font-weight: 600; color: var(--soft); }
td:nth-child(2) { font-variant-numeric: tabular-nums; white-space: nowrap; font-weight: 600; }
td:nth-child(3) { color: var(--soft); font-size: .9rem; }
figure { margin: 0 0 1.5rem; break-inside: avoid; }
figure img { display: block; max-width: 100%; height: auto; border-radius: 4px; background: #fff; }
figure img.pixels { --fit: round(down, min(100%, 44rem), var(--unit)); image-rendering: pixelated; border-radius: 0;
  width: min(100%, var(--own)); width: max(min(100%, var(--own)), var(--fit)); }
figcaption { color: var(--soft); font-size: .9rem; margin-top: .5rem; }
.training input { width: min(100%, 40rem); display: block; margin: 0 0 .75rem; accent-color: var(--good); }
.training img:not(.shown) { display: none; }
.training img.pixels { --fit: round(down, min(100%, 32rem), var(--unit)); }
.sorts th { cursor: pointer; white-space: nowrap; }
.sorts td { white-space: nowrap; font-weight: 400; font-size: 1rem; color: inherit; font-variant-numeric: tabular-nums; }
.sorts td:first-child { font-weight: 600; }
.sorts .best { font-weight: 700; }
details { border-top: 1px solid var(--line); padding: .6rem 0; }
details:last-of-type { border-bottom: 1px solid var(--line); }
summary { cursor: pointer; font-weight: 600; }
details > :nth-child(2) { margin-top: .75rem; }
.config td { font: 13px/1.5 ui-monospace, "SF Mono", Consolas, monospace; white-space: normal; overflow-wrap: anywhere; }
details tr:last-child td { border-bottom: 0; }
footer { margin-top: 2rem; color: var(--soft); font-size: .85rem; white-space: pre-line; overflow-wrap: anywhere; }
@media (max-width: 34rem) {
  body { padding: 1.25rem .9rem 3rem; }
  h1 { font-size: 1.35rem; }
  .facts { grid-template-columns: 5.2rem 1fr; gap: .15rem .6rem; font-size: .85rem; }
  td:nth-child(2), .sorts td { white-space: normal; }
  th, td { padding-right: .75rem; } }
@media print {
  :root { --paper: #fff; --ink: #000; --soft: #444; --line: #bbb; --card: #fff; --good: #000; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  .training input { display: none; }
  figure img.pixels { --fit: round(down, min(100%, 26rem), var(--unit)); }
  details::details-content { content-visibility: visible; block-size: auto; display: block; }
  h2, summary { break-after: avoid; }
  tr { break-inside: avoid; } }
"""

# by the number that a cell begins with, cells without one last; a second click turns the order round
SORT = """<script>
document.querySelectorAll(".sorts th").forEach((head, column) => head.addEventListener("click", () => {
  const body = head.closest("table").tBodies[0], down = head.dataset.down = head.dataset.down === "1" ? "" : "1";
  const key = row => { const text = row.cells[column].textContent.replace(/,/g, ""), n = parseFloat(text); return isNaN(n) ? text : n; };
  const last = value => typeof value === "string";
  [...body.rows].sort((a, b) => {
    const x = key(a), y = key(b);
    if (last(x) !== last(y)) return last(x) ? 1 : -1;
    return (x < y ? -1 : x > y ? 1 : 0) * (down ? 1 : -1);
  }).forEach(row => body.append(row));
}));
</script>"""

# the slider over training; without scripts the last picture stays
SLIDE = """<script>
document.querySelectorAll(".training").forEach(part => {
  const images = part.querySelectorAll("img"), slider = part.querySelector("input"), caption = part.querySelector("figcaption");
  slider.addEventListener("input", () => {
    images.forEach((image, i) => image.classList.toggle("shown", i === +slider.value));
    caption.textContent = images[slider.value].alt;
  });
});
</script>"""

WAYS = {"up": "↑ higher is better", "down": "↓ lower is better", "": "≈ near its floor is right"}


class Headline(NamedTuple):
    """A figure at the head of a page: its value as text, which way is better ("up", "down" or "" for neither), its floor, its meaning."""

    name: str
    text: str
    better: str
    floor: str
    about: str


Pictures = Sequence[tuple[str, str | os.PathLike]]


def write(
    run: str | os.PathLike,
    *,
    title: str,
    facts: Mapping[str, str] | None = None,
    samples: Pictures = (),
    headlines: Sequence[Headline] = (),
    training: Pictures = (),
    table: Sequence[Sequence[str]] = (),
    header: Sequence[str] = ("measure", "value", "note"),
    sortable: bool = False,
    best: Collection[tuple[int, int]] = (),
    pictures: Pictures = (),
    config: Mapping | None = None,
    footer: str = "",
    name: str = "report.html",
) -> Path:
    """Write the page `name` into the folder `run` and return its path; an older one stays whole until the new one is.

    In this order: facts, by name, of which one that is a command is set as one; samples, large; headlines; a slider over the pictures of a
    training; a table of rows of as many cells as `header`, where it is `sortable` by a click on a column's head, with the (row, column) of
    `best` in bold; pictures; the config, values of any kind, nested ones shown as a.b. Beside headlines the table and the pictures are
    folded. Pictures are (caption, path), a relative path taken from `run`; they are embedded, and those that are pixels alone (`plot.grid`
    without words) shown at whole factors.
    All text is escaped. Raises InputError for a picture that cannot be read.
    """
    run = Path(run)
    parts = [f"<h1>{html.escape(title)}</h1>"]
    if facts:
        parts.append(f'<dl class="facts">{"".join(_fact(key, value) for key, value in facts.items())}</dl>')
    parts += [_picture(run, caption, path) for caption, path in samples]
    if headlines:
        parts.append(f'<h2>Figures</h2><div class="cards">{"".join(map(_card, headlines))}</div>')
    if training:
        parts.append(_slider(run, training))
    whole = (
        f'<div class="wide{" sorts" if sortable else ""}">{_table(table, header, best)}</div>{SORT if sortable else ""}' if table else ""
    )
    shown = "".join(_picture(run, caption, path) for caption, path in pictures)
    if headlines:
        parts.append("<h2>All the rest</h2>")
        whole, shown = _folded("All figures", whole), _folded("More pictures", shown)
    parts += [whole, shown]
    if config:
        rows = _table([(name, value) for name, value in flat(config).items()], ())
        parts.append(_folded("Configuration", f'<div class="wide config">{rows}</div>'))
    if footer:
        parts.append(f"<footer>{html.escape(footer)}</footer>")
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n"
        + "\n".join(filter(None, parts))
        + "\n</body>\n</html>\n"
    )
    run.mkdir(parents=True, exist_ok=True)
    path, partial = run / name, run / f".{name}.{os.getpid()}-{threading.get_ident():x}.partial"
    try:
        partial.write_bytes(page.encode("utf-8", "replace"))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _fact(name: str, value: str) -> str:
    typed = ' class="typed"' if name == "command" else ""
    return f"<dt>{html.escape(name)}</dt><dd{typed}>{html.escape(value)}</dd>"


def _card(one: Headline) -> str:
    name, text, floor, about = map(html.escape, (one.name, one.text, one.floor, one.about))
    way = f" <span>{WAYS[one.better]}</span>" if one.better or one.floor else ""
    floor = f'<p class="floor">{"reference" if one.better == "up" else "floor"}: {floor}</p>' if floor else ""
    return f'<div class="card"><h3>{name}</h3><p class="value">{text}{way}</p>{floor}<p class="about">{about}</p></div>'


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{title}</summary>{content}</details>" if content else ""


def _table(rows: Sequence[Sequence], header: Sequence[str], best: Collection[tuple[int, int]] = ()) -> str:
    head = "<thead><tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in header) + "</tr></thead>" if header else ""
    marks = [[' class="best"' if (i, j) in best else "" for j in range(len(row))] for i, row in enumerate(rows)]
    cells = [[f"<td{mark}>{html.escape(str(cell))}</td>" for mark, cell in zip(*pair)] for pair in zip(marks, rows)]
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in cells)
    return f"<table>{head}<tbody>{body}</tbody></table>"


def _slider(run: Path, pictures: Pictures) -> str:
    images = [_image(run, caption, path, "shown" * (i == len(pictures) - 1)) for i, (caption, path) in enumerate(pictures)]
    last = len(images) - 1
    slider = f'<input type="range" min="0" max="{last}" value="{last}" aria-label="how far training was">' if last else ""
    caption = f"<figcaption>{html.escape(pictures[-1][0])}</figcaption>"
    return f'<h2>Over training</h2><figure class="training">{slider}{"".join(images)}{caption}</figure>{SLIDE if last else ""}'


def _picture(run: Path, caption: str, path: str | os.PathLike) -> str:
    return f"<figure>{_image(run, caption, path)}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _image(run: Path, caption: str, path: str | os.PathLike, shown: str = "") -> str:
    path = run / path  # an absolute path stays itself
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        raise InputError(f"report: picture '{path}' is not one of {', '.join(KINDS)}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"report: cannot read the picture '{path}' ({error.strerror})") from error
    look, classes = "", shown
    if (scale := _scale(content)) is not None:
        width = struct.unpack(">I", content[16:20])[0]
        look, classes = f' style="--own: {width}px; --unit: {width / scale:g}px"', f"{shown} pixels".strip()
    marked = f' class="{classes}"' if classes else ""
    data = base64.b64encode(content).decode("ascii")
    return f'<img{marked}{look} src="data:{kind};base64,{data}" alt="{html.escape(caption)}">'


def _scale(content: bytes) -> int | None:
    """By what factor a PNG of `plot.grid` shows its pixels; None for a picture of another kind."""
    begin = content.find(b"tEXt" + PIXELS.encode() + b"\0", 0, 4096)
    if content[:4] != b"\x89PNG" or begin < 4:
        return None
    length = struct.unpack(">I", content[begin - 4 : begin])[0]
    return int(content[begin + 4 : begin + 4 + length].partition(b"\0")[2])
