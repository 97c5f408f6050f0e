"""A run's page: its numbers, pictures and configuration in one HTML file that needs nothing else."""

import base64
import html
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from thalweg.checkpoint import flat
from thalweg.errors import InputError

KINDS = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp"}

CSS = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1f2933; --soft: #52606d; --line: #e4e7eb; --card: #f7f8fa; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181d; --ink: #e6e9ec; --soft: #9aa5b1; --line: #2b323a; --card: #1c2128; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 2.5rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 1.5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2.5rem 0 .75rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .5rem 1.25rem .5rem 0; border-bottom: 1px solid var(--line); }
th { font-size: .8rem; font-weight: 600; color: var(--soft); }
td:nth-child(2) { font-variant-numeric: tabular-nums; white-space: nowrap; font-weight: 600; }
td:nth-child(3) { color: var(--soft); font-size: .9rem; }
figure { margin: 0 0 1.75rem; }
figure img { display: block; max-width: 100%; height: auto; border-radius: 6px; background: #fff; }
figcaption { color: var(--soft); font-size: .9rem; margin-top: .5rem; }
.sorts th { cursor: pointer; white-space: nowrap; }
.sorts td { white-space: nowrap; font-weight: 400; font-variant-numeric: tabular-nums; }
.sorts td:first-child { font-weight: 600; }
.sorts .best { font-weight: 700; }
details { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .75rem 1rem; }
summary { cursor: pointer; font-weight: 600; }
details td { font: 13px/1.5 ui-monospace, "SF Mono", Consolas, monospace; font-weight: 400; white-space: normal; overflow-wrap: anywhere; }
details tr:last-child td { border-bottom: 0; }
footer { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--line); color: var(--soft); font-size: .85rem; }
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


def write(
    run: str | os.PathLike,
    *,
    title: str,
    table: Sequence[Sequence[str]] = (),
    header: Sequence[str] = ("measure", "value", "note"),
    sortable: bool = False,
    pictures: Sequence[tuple[str, str | os.PathLike]] = (),
    config: Mapping | None = None,
    footer: str = "",
    name: str = "report.html",
) -> Path:
    """Write the page `name` into the folder `run` and return its path; an older one stays whole until the new one is.

    table: rows of as many cells as `header`; where it is `sortable`, a click on a column's head sorts by it. pictures: (caption, path), a
    relative path taken from `run`; they are embedded. config: values of any kind, nested ones shown as a.b. All text is escaped.
    Raises InputError for a picture that cannot be read.
    """
    run = Path(run)
    parts = [f"<h1>{html.escape(title)}</h1>"]
    if table:
        parts.append(f'<div class="wide{" sorts" if sortable else ""}">' + _table(table, header) + "</div>" + (SORT if sortable else ""))
    if pictures:
        parts += ["<h2>Pictures</h2>", *(_picture(run, caption, path) for caption, path in pictures)]
    if config:
        rows = _table([(name, value) for name, value in flat(config).items()], ())
        parts += ["<h2>Configuration</h2>", f'<details><summary>All fields</summary><div class="wide">{rows}</div></details>']
    if footer:
        parts.append(f"<footer>{html.escape(footer)}</footer>")
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )
    run.mkdir(parents=True, exist_ok=True)
    path, partial = run / name, run / f".{name}.{os.getpid()}-{threading.get_ident():x}.partial"
    try:
        partial.write_bytes(page.encode("utf-8", "replace"))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _table(rows: Sequence[Sequence], header: Sequence[str]) -> str:
    head = "<thead><tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in header) + "</tr></thead>" if header else ""
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>{head}<tbody>{body}</tbody></table>"


def _picture(run: Path, caption: str, path: str | os.PathLike) -> str:
    path = run / path  # an absolute path stays itself
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        raise InputError(f"report: picture '{path}' is not one of {', '.join(KINDS)}")
    try:
        data = base64.b64encode(path.read_bytes()).decode("ascii")
    except OSError as error:
        raise InputError(f"report: cannot read the picture '{path}' ({error.strerror})") from error
    text = html.escape(caption)
    return f'<figure><img src="data:{kind};base64,{data}" alt="{text}"><figcaption>{text}</figcaption></figure>'
