"""result.html: the strangest items with what pulls their scores, and where all scores lie, in one file that needs nothing else."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy

from .. import report
from ..checkpoint import write_bytes

MOST = 24  # items that are shown
COLUMNS = 6  # of each row
BINS = 40

CSS = (
    report.CSS
    + """
:root { --bar: #7b8794; --flag: #c2410c; --held: #cbd2d9; }
@media (prefers-color-scheme: dark) { :root { --bar: #8f9ba8; --flag: #fb923c; --held: #3a434d; } }
.lead { font-size: 1.05rem; margin: 0 0 1.5rem; }
svg { display: block; width: 100%; max-width: 36rem; height: auto; font: 11px system-ui, sans-serif; fill: var(--soft); }
.held { fill: var(--held); } .seen { fill: var(--bar); } .beyond { fill: var(--flag); }
.line { stroke: var(--ink); stroke-width: 1; stroke-dasharray: 3 2; } .axis { stroke: var(--line); }
.key { color: var(--soft); font-size: .9rem; } .key span { display: inline-block; margin-right: .8em; }
.key b { display: inline-block; width: .8em; height: .8em; margin-right: .3em; }
details td { white-space: pre-wrap; }
.items { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 16rem), 1fr)); gap: 1rem; padding: 0; list-style: none; }
.items li { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .75rem 1rem; break-inside: avoid; }
.items h3 { font-size: .95rem; margin: 0; overflow-wrap: anywhere; }
.items p { margin: .1rem 0 .5rem; font-size: .85rem; color: var(--soft); }
.items strong { color: var(--flag); }
.items img { display: block; width: 100%; max-width: 12rem; height: auto; border-radius: 4px; image-rendering: pixelated; }
dl { margin: 0; font-size: .85rem; } dt { overflow-wrap: anywhere; } dd { margin: 0 0 .35rem; height: .4rem; background: var(--line); }
dd i { display: block; height: 100%; background: var(--flag); }
@media print {
  :root { color-scheme: light; --paper: #fff; --ink: #1f2933; --soft: #52606d; --line: #e4e7eb; --card: #fff; --bar: #7b8794;
    --flag: #c2410c; --held: #cbd2d9; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  body { max-width: none; padding: 0; } .items { grid-template-columns: repeat(3, 1fr); }
}
"""
)


class Found(NamedTuple):
    """What was found of N items. Higher scores are more normal; below `threshold` an item is an outlier."""

    scores: numpy.ndarray
    """[N]"""
    p_values: numpy.ndarray
    """[N]"""
    outlier: numpy.ndarray
    """[N] of bool"""
    names: Sequence[str]
    """N names: files, or rows by number"""
    threshold: float
    alpha: float
    """rate of false alarms"""
    held_out: numpy.ndarray
    """[M] scores of the calibration items"""


class Row(NamedTuple):
    """What makes a row strange: its cells, and what each column adds to its strangeness."""

    cells: Mapping[str, Any]
    pulls: Mapping[str, float]


def strangest(found: Found, most: int = MOST) -> numpy.ndarray:
    """Indices [n ≤ most] of the items with the lowest scores, strangest first."""
    return numpy.argsort(found.scores, kind="stable")[:most]


def write(
    path: Path,
    found: Found,
    *,
    title: str,
    rows: Sequence[Row] = (),
    pictures: Sequence[numpy.ndarray] = (),
    told: Mapping[str, Any] | None = None,
) -> Path:
    """Write the page and return its path. `rows` or `pictures` ([C, H, W] in [−1, 1]): of the `strangest` items, in that order.

    `told`: what is known of the detector, shown as a table. All text is escaped. Raises InputError where the file cannot be written.
    """
    n, count = len(found.scores), int(found.outlier.sum())
    expected = f"{found.alpha * n:,.0f}" if found.alpha * n >= 10 else f"{found.alpha * n:.2g}"
    lead = (
        f"{count:,} of {n:,} {'item' if n == 1 else 'items'} {'is an outlier' if count == 1 else 'are outliers'} at a false-alarm rate of "
        f"{found.alpha:.3g}. If all were normal, about {expected} would be expected."
    )
    parts = [f"<h1>{html.escape(title)}</h1>", f'<p class="lead">{html.escape(lead)}</p>', "<h2>Scores</h2>", histogram(found)]
    shown = strangest(found)
    parts.append(f"<h2>The strangest {'item' if len(shown) == 1 else f'{len(shown)} items' if len(shown) < n else 'first'}</h2>")
    if rows:
        parts.append('<p class="key">Bars: the columns that make a row strange, as shares of what all such columns add.</p>')
    items = []
    for place, i in enumerate(shown.tolist()):
        body = _bars(rows[place]) if rows else _picture(pictures[place], found.names[i]) if len(pictures) else ""
        verdict = "<strong>outlier</strong>" if found.outlier[i] else "inlier"
        figures = f"score {found.scores[i]:.4g}, p = {found.p_values[i]:.3g}, {verdict}"
        items.append(f"<li><h3>{html.escape(found.names[i])}</h3><p>{figures}</p>{body}</li>")
    parts.append(f'<ol class="items">{"".join(items)}</ol>')
    if told:
        table = "".join(f"<tr><td>{html.escape(str(key))}</td><td>{html.escape(str(value))}</td></tr>" for key, value in told.items())
        parts.append(
            f'<h2>Detector</h2><details><summary>How it was made</summary><div class="wide"><table>{table}</table></div></details>'
        )
    parts.append(
        "<footer>Score: higher is more normal. p: the share of held-out normal items at least as strange, in which the item itself counts; "
        "an outlier has p at or below the false-alarm rate.</footer>"
    )
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )
    write_bytes(path, page.encode("utf-8", "replace"))
    return path


def histogram(found: Found) -> str:
    """Shares of the scores, and of those held out, as an SVG with the threshold; scores far below the rest count in the first bin."""
    low, high = _span(found)
    edges = numpy.linspace(low, high, BINS + 1)
    seen, held = (
        numpy.histogram(numpy.clip(scores, low, high), edges)[0] / max(1, len(scores)) for scores in (found.scores, found.held_out)
    )
    top = max(seen.max(), held.max(), 1e-12)
    wide, base, tall = 340 / BINS, 120, 105
    bars = [f'<line class="axis" x1="10" x2="350" y1="{base}" y2="{base}"/>']
    for kind, shares in (("held", held), ("seen", seen)):
        for i, share in enumerate(shares.tolist()):
            if share > 0:
                height = max(1.0, tall * share / top)
                name = "beyond" if kind == "seen" and edges[i + 1] <= found.threshold + 1e-12 * abs(found.threshold) else kind
                inset = 0.0 if kind == "held" else wide / 4
                x, width = 10 + i * wide + inset, wide - 0.5 - 2 * inset
                bars.append(f'<rect class="{name}" x="{x:.2f}" y="{base - height:.2f}" width="{width:.2f}" height="{height:.2f}"/>')
    at = 10 + 340 * (found.threshold - low) / (high - low)
    anchor = "start" if at < 180 else "end"
    bars.append(f'<line class="line" x1="{at:.2f}" x2="{at:.2f}" y1="8" y2="{base}"/>')
    bars.append(f'<text x="{at + (4 if at < 180 else -4):.2f}" y="14" text-anchor="{anchor}">threshold {found.threshold:.4g}</text>')
    least = "≤ " if found.scores.min() < low else ""
    bars.append(f'<text x="10" y="134">{least}{low:.4g}</text><text x="350" y="134" text-anchor="end">{high:.4g}</text>')
    said = f"Histogram of scores from {low:.4g} to {high:.4g} with the threshold at {found.threshold:.4g}"
    key = "".join(
        f'<span><b style="background:var(--{colour})"></b>{text}</span> '
        for colour, text in (("held", "held-out normal items"), ("bar", "these items"), ("flag", "these items, beyond the threshold"))
    )
    return f'<svg viewBox="0 0 360 140" role="img" aria-label="{html.escape(said)}">{"".join(bars)}</svg><p class="key">{key}</p>'


def _span(found: Found) -> tuple[float, float]:
    """The range of the histogram: three times as far below the threshold as above it at most, and the threshold an edge between bins."""
    high = float(max(found.held_out.max(), numpy.quantile(found.scores, 0.99, method="higher")))
    reach = max(high - found.threshold, 1e-6 * abs(high), 1e-9)
    low = float(numpy.clip(min(found.scores.min(), found.held_out.min()), found.threshold - 3 * reach, found.threshold))
    above = min(BINS - 1, max(1, round(BINS * reach / (found.threshold + reach - low))))
    width = reach / above
    return found.threshold - (BINS - above) * width, found.threshold + above * width


def _bars(row: Row) -> str:
    pulls = {name: pull for name, pull in row.pulls.items() if pull > 0}
    total, most = sum(pulls.values()), max(pulls.values(), default=1.0)
    lines = []
    for name in sorted(pulls, key=pulls.__getitem__, reverse=True)[:COLUMNS]:
        lines.append(
            f"<dt>{html.escape(f'{name} = {_value(row.cells.get(name))}')} <small>({pulls[name] / total:.0%})</small></dt>"
            f'<dd><i style="width:{100 * pulls[name] / most:.1f}%"></i></dd>'
        )
    return f"<dl>{''.join(lines)}</dl>" if lines else "<p>no column makes it strange</p>"


def _value(cell: Any) -> str:
    number = isinstance(cell, float | numpy.floating)
    if cell is None or (number and numpy.isnan(cell)) or type(cell).__name__ in ("NAType", "NaTType"):
        return "missing"
    return f"{cell:.6g}" if number else str(cell)


def _picture(pixels: numpy.ndarray, name: str) -> str:
    from PIL import Image

    values = ((numpy.asarray(pixels) + 1) * 127.5).round().clip(0, 255).astype(numpy.uint8)
    image = Image.fromarray(values[0] if len(values) == 1 else values.transpose(1, 2, 0))
    factor = max(1, -(-96 // max(image.size)))  # printers and mail programs smooth small pictures
    image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img src="data:image/png;base64,{data}" alt="{html.escape(name)}">'
