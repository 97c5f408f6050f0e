"""Whether the package works without the clone: python -m studies.checks.wheel

Builds source archive and wheel of a copy of the repository (`python -m build --no-isolation`). In a new and empty virtual environment it
runs `pip install .` of that copy, all dependencies included and nothing from pip's cache, then puts the built wheel in its place, and there
runs `thalweg list`, `train`, `sample`, `app` and others from an empty folder. Sizes and times are recorded. PyTorch is of the build that is
installed here, as `2.13.0+cpu`: pip must find that one. Needs the package build (extra `dev`).
"""

import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
import zipfile
from pathlib import Path

from studies.runner import Check, Options, Row
from studies.tables import Section, Shown, Table

ROOT = Path(__file__).parents[2]
TRACKED = ("src", "pyproject.toml", "README.md", "LICENSE")
SMALL = "--images 128 --batch 32 --width 8"
COMMANDS = (
    "list --laptop",
    f"train short_run/moons --out runs/moons --steps 2 --sample-steps 2 {SMALL}",
    "sample runs/moons -n 8 --out moons.csv",
    f"train egc/digits --out runs/digits --blocks 1 --levels 20 --sample-steps 3 {SMALL}",
    "sample runs/digits -n 10 --label all --out digits.png",
    "sample runs/digits -n 10 --label all --out digits.npz",
    "apply inpaint runs/digits --input digits.npz --out filled.png",
    "export runs/digits --out digits",
    "train egc/digits --help",
    "app --help",
    "--version",
)
SERVED = "app runs/digits"  # which is asked for a picture
JSON = {"Content-Type": "application/json"}
ENVIRONMENT = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
SIZES = (
    "import importlib.metadata as m, json; print(json.dumps({d.name: sum(f.locate().stat().st_size for f in d.files or [] "
    "if f.locate().is_file()) / 2**20 for d in m.distributions()}))"
)
MIB = 2**20


def built(place: Path) -> list[Row]:
    """Source archive and wheel of the repository, with their sizes, and the seconds that both took."""
    copy = place / "copy"
    copy.mkdir()
    for name in TRACKED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, copy / name)
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(place / "dist"), str(copy)], capture_output=True, text=True
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])
    seconds = round(time.monotonic() - started, 1)
    return [
        {"file": path.name, "kib": round(path.stat().st_size / 1024), "seconds": seconds} for path in sorted((place / "dist").iterdir())
    ]


def fresh(place: Path) -> Path:
    """A new virtual environment with pip and nothing else; its interpreter."""
    venv.create(place / "env", with_pip=True, symlinks=True)
    return place / "env" / "bin" / "python"


def pip(python: Path, *words: str) -> float:
    """Run pip of an environment; the seconds that it took. SystemExit with its last words where it fails."""
    code, said, seconds = call([str(python), "-m", "pip", *words], python.parent)
    if code:
        raise SystemExit(f"pip {' '.join(words)}:\n{said[-3000:]}")
    return seconds


def call(words: list[str], folder: Path) -> tuple[int, str, float]:
    """Run a program in `folder` without the clone on its path: exit code, what it said, seconds."""
    started = time.monotonic()
    done = subprocess.run(words, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr, round(time.monotonic() - started, 1)


def sizes(python: Path) -> dict[str, float]:
    """MiB on disk of the packages of an environment, but for pip and setuptools, by name."""
    code, said, _ = call([str(python), "-c", SIZES], python.parent)
    if code:
        raise SystemExit(said)
    return {name: size for name, size in json.loads(said).items() if name not in ("pip", "setuptools")}


def page(program: Path, home: Path, run: str) -> tuple[int, str, float]:
    """`thalweg app` of a run, asked for a picture and ended by Ctrl-C: exit code, what was drawn, seconds until then."""
    started = time.monotonic()
    words = [str(program), "app", run, "--port", "0", "--no-browser"]
    with subprocess.Popen(words, cwd=home, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().removeprefix("page: ").strip()
            asked = json.dumps({"model": run, "count": 2}).encode()
            with urllib.request.urlopen(urllib.request.Request(f"{address}api/draw", asked, JSON), timeout=120) as answer:
                drawn = len(json.loads(answer.read())["pictures"])
            seconds = round(time.monotonic() - started, 1)
            process.send_signal(signal.SIGINT)
            return process.wait(60), f"{drawn} pictures drawn", seconds
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            return 1, str(error), round(time.monotonic() - started, 1)
        finally:
            process.kill()


def run(options: Options) -> dict:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        files = built(place)
        wheel = next((place / "dist").glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            unpacked = sum(info.file_size for info in archive.infolist()) / MIB
            strays = [path for path in archive.namelist() if not path.startswith(("thalweg/", "thalweg-"))]
        python, own = fresh(place), place / "own.txt"
        own.write_text(f"torch=={importlib.metadata.version('torch')}\n")
        asked = ("install", "--no-cache-dir", "-c", str(ROOT / "constraints.txt"), "-c", str(own), str(place / "copy"))
        seconds = pip(python, *asked)
        print(f"pip install . took {seconds} s", flush=True)
        pip(python, "install", "--no-deps", "--no-index", "--force-reinstall", str(wheel))
        home = place / "empty"
        home.mkdir()
        _, where, _ = call([str(python), "-c", "import thalweg; print(thalweg.__file__)"], home)
        program = python.with_name("thalweg")
        rows = []
        for words in (*COMMANDS, SERVED):
            code, said, took = page(program, home, "runs/digits") if words == SERVED else call([str(program), *words.split()], home)
            last = said.strip().splitlines()[-1] if said.strip() else ""
            rows.append({"command": f"thalweg {words}", "exit": code, "seconds": took, "last": last})
            print(rows[-1]["exit"], rows[-1]["command"], last[:100], sep="  ", flush=True)
        packages = sorted(((size, one) for one, size in sizes(python).items() if one != "thalweg"), reverse=True)
    return {
        "files": files, "install_seconds": seconds, "unpacked_mib": round(unpacked, 2), "strays": strays,
        "from_wheel": where.strip().startswith(str(place / "env")), "commands": rows, "packages": len(packages),
        "packages_mib": round(sum(size for size, _ in packages)),
        "largest": [{"package": one, "mib": round(size)} for size, one in packages[:5]],
    }  # fmt: skip


def failed(results: dict) -> bool:
    return not results["from_wheel"] or bool(results["strays"]) or any(row["exit"] for row in results["commands"])


def also(r: dict) -> dict:
    worked = sum(row["exit"] == 0 for row in r["commands"])
    largest = ", ".join(f"{one['package']} {one['mib']:,}" for one in r["largest"])
    return {"worked": f"{worked} of {len(r['commands'])}", "big": largest}


INTRO = (
    "Source archive and wheel are built in {files[0][seconds]:.0f} s; Thalweg has {unpacked_mib:.1f} MiB unpacked. In a new and "
    "empty environment `pip install .` takes {install_seconds:.0f} s with all that it needs, {packages} packages of {packages_mib:,} MiB "
    "(largest: {big}), with the CPU build of PyTorch from a file on this machine. There, from an empty folder and by the wheel, {worked} "
    "commands work."
)
PAGE = [
    Section(
        "The package",
        [
            Shown(
                "wheel",
                [INTRO, Table("file = file | KiB = kib:,", "files"), "{source}", Table("command | exit | s = seconds", "commands")],
                also,
            )
        ],
    )
]
CHECK = Check("wheel", __doc__, run, failed=failed)

if __name__ == "__main__":
    CHECK.main()
