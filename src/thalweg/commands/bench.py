"""`thalweg bench`: the studies of a clone of the repository."""

import sys
from pathlib import Path

from thalweg.errors import InputError, nearest


def run(arguments: list[str]) -> None:
    import runpy

    root = Path.cwd() / "studies"
    names = studies(root)
    if arguments and arguments[0] in ("-h", "--help"):
        print("usage: thalweg bench [NAME] [options of the study]\n\nRun from a clone of the repository; no name lists them.")
        return
    if not names:
        raise InputError("there is no folder studies here; run from a clone of the repository")
    if not arguments:
        print("\n".join(names))
        return
    if arguments[0] not in names:
        raise InputError(f"unknown study '{arguments[0]}'{nearest(arguments[0], names)}. Studies: {', '.join(names)}")
    sys.path.insert(0, str(Path.cwd()))
    sys.argv = [f"studies/{arguments[0].replace('.', '/')}.py", *arguments[1:]]
    runpy.run_module(f"studies.{arguments[0]}", run_name="__main__")


def studies(root: Path) -> list[str]:
    """The studies in a folder, by dotted name: those files that can be run."""
    found = [path for path in sorted(root.rglob("*.py")) if '__name__ == "__main__"' in path.read_text()]
    return [".".join(path.relative_to(root).with_suffix("").parts) for path in found]
