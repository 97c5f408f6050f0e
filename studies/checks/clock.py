"""How soon a command says how far it is, and how long it is silent: python -m studies.checks.clock [--presets NAME ...] [--window 11]

Each preset that `thalweg list --laptop` has is trained for `window` seconds in a process of its own with its standard error in a pipe, as
in a log file, and so are `evaluate`, `compare` and `detect fit`. Recorded are the wall and CPU seconds of the process at its first line and
at the first that says how much is done, and the longest silence. The aims are 5 s to the first line and no silence over 10 s. On a machine
that other works share wall times are longer; so a first line that is late by the clock and in time by the CPU seconds of its process counts
as in time, and the machine's load stands in the results. Silences are judged by the clock, those that begin in the first 30 s: later lines
come less and less often on purpose.
"""

import os
import re
import selectors
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy
from PIL import Image

from studies.runner import Check, Options, Row, table
from studies.tables import Section, Shown, Table
from thalweg.commands.list import lines as listed

SOON, SILENT = 5.0, 10.0  # the aims: wall or CPU seconds to the first line, wall seconds between two lines
EARLY = 30.0  # silences that begin within so many seconds are judged: later lines come less often on purpose
DONE = re.compile(r"^ *\d+%  |^about ")  # how much is done, or how long it will be
TICK = os.sysconf("SC_CLK_TCK")
# of presets for data of one's own
OWN = {"vectors": ["--data", "rows.csv"], "pictures": ["--data", "pictures", "--size", "16"]}
# commands whose log the page shows, at 80 columns
LOGS = (
    "train short_run/moons --images 60000 --out runs/moons",
    "evaluate runs/moons -n 500",
    "compare --methods dual,short_run --data moons --seconds 10 --seeds 2 -n 500 --out runs/compared",
)
LONG = ("evaluate runs/moons --metrics all", "detect fit rows.csv --seconds 8 --out detector")


def laptop() -> list[str]:
    """The presets that are tagged so; one toy stands for all."""
    names = re.findall(r"^  ([a-z_]+/\S+)", "\n".join(listed(asked=["laptop"])), re.MULTILINE)
    return list(dict.fromkeys(name.replace("/toy", "/moons") for name in names))


def timed(words: list[str], folder: Path, window: float | None, *, enough: re.Pattern | None = None) -> Row:
    """What `thalweg WORDS` says in `folder`, and when; ended after `window` seconds, or when a line is `enough`, None for its own end."""
    environment = {**os.environ, "COLUMNS": "80", "PYTHONUNBUFFERED": "1"}
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "thalweg.cli", *words], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )  # fmt: skip
    assert process.stdout is not None
    said: list[tuple[float, float, str]] = []
    cpu, rest = 0.0, b""
    with selectors.DefaultSelector() as selector, process.stdout:
        selector.register(process.stdout, selectors.EVENT_READ)
        while window is None or time.monotonic() - begun < window:
            if not selector.select(0.1):
                continue
            part = os.read(process.stdout.fileno(), 65536)
            if not part:
                break
            now, cpu = time.monotonic() - begun, seconds_of(process.pid, cpu)
            *whole, rest = (rest + part).split(b"\n")
            said += [(now, cpu, line.decode(errors="replace")) for line in whole]
            if enough is not None and any(enough.match(line) for _, _, line in said):
                break
        cpu, ended = seconds_of(process.pid, cpu), time.monotonic() - begun
        process.kill()
        code = process.wait()
    first, done = said[0] if said else None, next((one for one in said if DONE.match(one[2])), None)
    times = [0.0, *(now for now, _, _ in said), ended]
    early = [b - a for a, b in zip(times, times[1:]) if a < EARLY]
    row = {
        "command": " ".join(words), "first_s": first and first[0], "first_cpu_s": first and first[1], "done_s": done and done[0],
        "done_cpu_s": done and done[1], "silence_s": max(early), "seconds": ended, "cpu_s": cpu,
        "widest": max((len(line) for _, _, line in said), default=0), "refused": said[-1][2] if code == 2 and said else None,
    }  # fmt: skip
    return {key: round(value, 2) if isinstance(value, float) else value for key, value in row.items()} | {
        "log": "\n".join(line.rstrip() for _, _, line in said)
    }


def seconds_of(pid: int, before: float) -> float:
    """CPU seconds of a process so far; `before` where it has gone."""
    try:
        user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    except (OSError, ValueError):
        return before
    return max(before, (int(user) + int(system)) / TICK)


def late(row: Row) -> bool:
    """Whether a command missed an aim."""
    first = row["first_s"] is None or min(row["first_s"], row["first_cpu_s"]) > SOON
    return row["refused"] is None and (first or row["silence_s"] > SILENT)


def prepare(folder: Path) -> None:
    """Data of one's own for presets that need some."""
    draws = numpy.random.default_rng(0)
    numpy.savetxt(folder / "rows.csv", draws.normal(size=(400, 6)), delimiter=",", header=",".join("abcdef"), comments="")
    for kind in ("one", "two"):
        (folder / "pictures" / kind).mkdir(parents=True)
        for i in range(40):
            Image.fromarray(draws.integers(0, 255, (16, 16), dtype=numpy.uint8)).save(folder / "pictures" / kind / f"{i}.png")


def train_words(name: str) -> list[str]:
    return ["train", name, *OWN.get(name.partition("/")[2], []), "--out", f"runs/{name.replace('/', '_')}"]


def run(options: Options) -> dict:
    names = laptop() if options.presets == ["all"] else options.presets
    rows, logs = [], {}
    with tempfile.TemporaryDirectory() as place:
        prepare(Path(place))
        for name in names:
            rows.append(timed(train_words(name), Path(place), options.window) | {"preset": name})
            log = rows[-1].pop("log")
            print(
                table([{key: rows[-1][key] for key in ("preset", "first_s", "first_cpu_s", "done_s", "silence_s", "cpu_s")}]).splitlines()[
                    1
                ]
            )
            if late(rows[-1]):
                print(log)
        for words in (*LOGS, *LONG) if options.logs else ():
            one = timed(words.split(), Path(place), None)
            log = one.pop("log")
            rows.append(one)
            if words in LOGS:
                logs[words] = log
    return {"presets": rows, "logs": logs, "load": os.getloadavg(), "late": [row["command"] for row in rows if late(row)]}


class Log:
    """What the commands said, as text."""

    def text(self, values: dict) -> str:
        return "\n\n".join(f"```text\n$ thalweg {words}\n{log}\n```" for words, log in values["logs"].items())


def worst(r: dict) -> list[dict]:
    """Of all commands together, by figure the median and the worst."""
    rows = [row for row in r["presets"] if row["refused"] is None]
    named = {"first_s": "first line, s", "first_cpu_s": "first line, CPU s of the process", "done_s": "first word of the length, s",
             "done_cpu_s": "the same, CPU s of the process", "silence_s": "longest silence that begins in the first 30 s"}  # fmt: skip
    found = []
    for key, title in named.items():
        values = sorted((row[key], row["command"]) for row in rows if row[key] is not None)
        if values:
            found.append(
                {"figure": title, "median": values[len(values) // 2][0], "most": values[-1][0], "of": values[-1][1], "n": len(values)}
            )
    return found


INTRO = (
    "{count} commands, each in a process of its own: presets that `thalweg list --laptop` has, trained for some seconds, and `evaluate`, "
    "`compare` and `detect fit`. Other works shared the machine (a load of {load[0]:.0f}), so that wall times stand beside CPU seconds of "
    "the process. Silences are those that begin in the first 30 s. Late: {late_text}."
)


def also(r: dict) -> dict:
    return {"count": len(r["presets"]), "late_text": ", ".join(f"`thalweg {one}`" for one in r["late"]) or "none"}


FIGURES = Table("figure | median = median:.1f | most = most:.1f | of = of | commands = n", worst)
PAGE = [Section("Clock", [Shown("clock", [INTRO, FIGURES, "{source}", "What three commands say, at 80 columns:", Log()], also)])]
CHECK = Check("clock", __doc__, run, dict(presets=["all"], window=11.0, logs=1), failed=lambda results: bool(results["late"]))

if __name__ == "__main__":
    CHECK.main()
