"""Whether the built package works without the clone: python -m studies.checks.wheel

Builds source archive and wheel of a copy of the repository (`python -m build --no-isolation`), installs the wheel alone into a fresh
virtual environment, which sees the other packages of this one, and there runs `thalweg list`, `train`, `sample` and others from an empty
folder. Sizes and times are recorded, and what the packages that it needs take up on disk. Needs the package build (extra `dev`).
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from pathlib import Path

from packaging.requirements import Requirement

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
    """A new virtual environment that finds the packages of this one, but for Thalweg; its interpreter."""
    venv.create(place / "env", with_pip=False, symlinks=True)
    packages = next((place / "env" / "lib").glob("python*")) / "site-packages"
    others = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "others.pth").write_text("\n".join(others) + "\n")
    return place / "env" / "bin" / "python"


def call(words: list[str], folder: Path) -> tuple[int, str, float]:
    """Run a program in `folder` without the clone on its path: exit code, what it said, seconds."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    started = time.monotonic()
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr, round(time.monotonic() - started, 1)


def needed(name: str, extras: tuple[str, ...] = ()) -> set[str]:
    """Names of the packages that one needs, itself among them, as they are installed here."""
    seen, todo = set(), [(name, extras)]
    while todo:
        one, asked = todo.pop()
        key = re.sub(r"[-_.]+", "-", one).lower()
        if key in seen:
            continue
        try:
            requires = importlib.metadata.distribution(one).requires or []
        except importlib.metadata.PackageNotFoundError:
            continue  # not for this system
        seen.add(key)
        for text in requires:
            wanted = Requirement(text)
            if wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in ("", *asked)):
                todo.append((wanted.name, tuple(wanted.extras)))
    return seen


def on_disk(name: str) -> float:
    """MiB of an installed package's files."""
    files = importlib.metadata.distribution(name).files or []
    return sum(path.stat().st_size for file in files if (path := Path(str(file.locate()))).is_file()) / MIB


def run(options: Options) -> dict:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        files = built(place)
        wheel = next((place / "dist").glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            unpacked = sum(info.file_size for info in archive.infolist()) / MIB
            strays = [path for path in archive.namelist() if not path.startswith(("thalweg/", "thalweg-"))]
        python = fresh(place)
        code, said, seconds = call(
            [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)], place
        )
        if code:
            raise SystemExit(said)
        home = place / "empty"
        home.mkdir()
        _, where, _ = call([str(python), "-c", "import thalweg; print(thalweg.__file__)"], home)
        rows = []
        for words in COMMANDS:
            code, said, took = call([str(python.with_name("thalweg")), *words.split()], home)
            rows.append(
                {
                    "command": f"thalweg {words}",
                    "exit": code,
                    "seconds": took,
                    "last": said.strip().splitlines()[-1] if said.strip() else "",
                }
            )
            print(rows[-1]["exit"], rows[-1]["command"], rows[-1]["last"][:100], sep="  ")
        packages = sorted(((on_disk(one), one) for one in needed("thalweg") - {"thalweg"}), reverse=True)
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
    "Source archive and wheel are built in {files[0][seconds]:.0f} s, the wheel is installed in {install_seconds:.0f} s and has "
    "{unpacked_mib:.1f} MiB unpacked. In a fresh environment, from an empty folder, {worked} commands work. The {packages} packages that "
    "it needs without extras take {packages_mib:,} MiB here, with the CPU build of PyTorch (MiB: {big})."
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
