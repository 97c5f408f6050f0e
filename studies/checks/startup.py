"""How long a user waits before anything happens: python -m studies.checks.startup [--rounds 7] [--out FILE]

Wall time of whole processes, in turn, after one round to warm the file cache; median, least and most.
"""

import statistics
import subprocess
import sys
import time
from functools import partial

from studies.measures import seconds_in_turn
from studies.runner import Check, Options
from studies.tables import Section, Shown, Table

CASES = {
    "python -c pass": ["-c", "pass"],
    "import thalweg": ["-c", "import thalweg"],
    "thalweg --help": ["-m", "thalweg.cli", "--help"],
    "thalweg train --help": ["-m", "thalweg.cli", "train", "--help"],
}


def run(options: Options) -> dict:
    runs = {name: partial(subprocess.run, [sys.executable, *words], check=True, stdout=subprocess.DEVNULL) for name, words in CASES.items()}
    _, seconds = seconds_in_turn(runs, options.rounds, time.perf_counter)
    for name, times in seconds.items():
        print(f"{name:24} {statistics.median(times):.3f} s  ({min(times):.3f} to {max(times):.3f})")
    return {
        name: {"median_s": round(statistics.median(t), 4), "least_s": round(min(t), 4), "most_s": round(max(t), 4), "rounds": len(t)}
        for name, t in seconds.items()
    }


TABLE = Table("command | median seconds = median_s:.2f", lambda r: [{"command": name, **r[name]} for name in CASES])
PAGE = [Section("Start-up", [Shown("startup", [TABLE])])]
CHECK = Check("startup", __doc__, run, dict(rounds=7))

if __name__ == "__main__":
    CHECK.main()
