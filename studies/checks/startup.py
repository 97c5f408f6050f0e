"""How long a user waits before anything happens: python -m studies.checks.startup [--rounds 7] [--out FILE]

Wall time of whole processes, interleaved, after one round to warm the file cache; median, least and most.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

CASES = {
    "python -c pass": ["-c", "pass"],
    "import thalweg": ["-c", "import thalweg"],
    "thalweg --help": ["-m", "thalweg.cli", "--help"],
    "thalweg train --help": ["-m", "thalweg.cli", "train", "--help"],
}


def measure(arguments: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", default="studies/results/startup.json")
    options = parser.parse_args()
    began = time.perf_counter()
    times: dict[str, list[float]] = {name: [] for name in CASES}
    for round_number in range(options.rounds + 1):
        for name, arguments in CASES.items():
            seconds = measure(arguments)
            if round_number:
                times[name].append(seconds)
    results = {
        name: {"median_s": round(statistics.median(t), 4), "least_s": round(min(t), 4), "most_s": round(max(t), 4), "rounds": len(t)}
        for name, t in times.items()
    }
    for name, result in results.items():
        print(f"{name:24} {result['median_s']:.3f} s  ({result['least_s']:.3f} to {result['most_s']:.3f})")
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from studies.runner import write_results

    print(write_results(options.out, results, seed=0, seconds=time.perf_counter() - began))


if __name__ == "__main__":
    main()
