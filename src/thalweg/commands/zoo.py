"""`thalweg zoo`: the trained models that come with a clone of the repository."""

import json
from pathlib import Path
from typing import Any

from thalweg.errors import InputError

HOME = Path(__file__).parents[3] / "zoo"
NAMES = {"frechet": "Fréchet", "guided": "Fréchet by label", "bits": "bits a dimension", "accuracy": "accuracy"}
USAGE = """usage: thalweg zoo

Trained models that come with a clone of the repository: what they are, what was measured, how they were made.
"""


def run(arguments: list[str]) -> None:
    if arguments and arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return
    if arguments:
        raise InputError(f"zoo takes no arguments, got '{arguments[0]}'")
    names = models()
    if not names:
        raise InputError("this installation has no models; a clone of the repository has some in its folder zoo")
    for name in names:
        print("\n".join(told(name)), end="\n\n")
    first = names[0]
    calls = (f"thalweg demo {first}", "thalweg app", f"thalweg sample zoo:{first} -n 64 --out samples.png", f"tw.load('zoo:{first}')")
    print("To try:", *calls, sep="\n  ")


def models(home: Path = HOME) -> list[str]:
    """The names of the models, in order; none where there is no clone."""
    return sorted(path.parent.name for path in home.glob("*/zoo.json"))


def told(name: str, home: Path = HOME) -> list[str]:
    """What is said of a model: method and data, size, training, figures."""
    folder = home / name
    about, config = (json.loads((folder / file).read_text(encoding="utf-8")) for file in ("zoo.json", "config.json"))
    size = (folder / "model.safetensors").stat().st_size / 2**20
    shape = "×".join(map(str, config["config"]["shape"]))
    lines = [f"{name}: {config['method']} of {config['config']['data']}, {shape}, {size:.1f} MiB"]
    return [*lines, f"  {trained(folder)}: {about['command']}", *(f"  {key}: {value}" for key, value in figures(about["figures"]).items())]


def trained(folder: Path) -> str:
    """How much a model of the zoo has seen, and how long that took."""
    about = json.loads((folder / "zoo.json").read_text(encoding="utf-8"))
    return f"{about['images']:,} images in {about['cpu_minutes']} CPU minutes"


def figures(found: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Distances, bits and accuracies among stored figures, by a short name; what is counted or listed by level is left out."""
    shown: dict[str, str] = {}
    for key, value in found.items():
        if isinstance(value, dict) and "frechet" in value:
            shown[f"{prefix}{key}"] = f"Fréchet {value['frechet']:.2f} (real images {value['floor']:.2f}, n = {value['n']:,})"
        elif isinstance(value, dict) and key == "samples":
            shown |= figures(value, "samples, ")
        elif key in NAMES and isinstance(value, int | float):
            shown[NAMES[key]] = f"{value:.1%}" if key == "accuracy" else f"{value:.3g}"
    return shown
