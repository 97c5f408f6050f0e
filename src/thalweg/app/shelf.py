"""What the page shows: models, runs that still train, detectors of outliers; and which panels each of them has."""

import inspect
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from thalweg import checkpoint
from thalweg.data.prepare import trained_classes, trained_concepts
from thalweg.errors import InputError, nearest
from thalweg.latent import Decoded, load
from thalweg.methods.base import has, sampling_options
from thalweg.units import OwnUnits

PANELS = ("landscape", "draw", "fill", "repair", "detect", "watch")
DETECTOR = "detector.json"  # in the folder of a detector
CUBE = 3  # axes of a picture [C, H, W]


class Entry:
    """One thing on the shelf, under the `name` that it was asked for by: a model, a detector, or a run that has no state yet."""

    def __init__(self, name: str) -> None:
        self.name, self.folder = name, Path(name) if Path(name).is_dir() else None
        self._lock, self._stamp, self._model, self._why = threading.Lock(), "", None, ""
        self.detector: Any = None
        if self.folder is not None and (self.folder / DETECTOR).is_file():
            from thalweg.detect.detector import EnergyDetector

            self.detector = EnergyDetector.load(self.folder)
        elif self.folder is None or not (self.folder / "config.json").is_file() or self._newest():
            self._load()

    @property
    def watched(self) -> bool:
        """Whether it is a run's folder, which an exported model's is not."""
        return self.folder is not None and self.detector is None and not (self.folder / checkpoint.WEIGHTS).exists()

    @property
    def model(self) -> Any:
        """The model by the run's newest state; InputError where there is none."""
        with self._lock:
            if self.detector is None and (self._model is None or (self.watched and self._newest() != self._stamp)):
                self._load()
        if self._model is None:
            raise InputError(f"{self.name} is a detector, not a model")
        return self._model

    def has_model(self) -> bool:
        """Whether there is a model by now."""
        try:
            return self.model is not None
        except InputError:
            return False

    def _newest(self) -> str:
        """The name of a run's newest state, empty where it has none."""
        assert self.folder is not None
        return max((path.name for path in self.folder.glob("state-*.pt")), default="")

    def _load(self) -> None:
        stamp = "" if self.folder is None else self._newest()
        self._model, self._stamp = load(self.name), stamp

    def panels(self) -> dict[str, str]:
        """For each panel why it has nothing for this entry, in one sentence; empty where it has."""
        found = {
            "landscape": _why_no_landscape,
            "draw": _why_no_draw,
            "fill": _why_no_fill,
            "repair": _why_no_repair,
            "detect": why_no_detect,
        }
        watch = "" if self.watched else f"{self.name} is no run's folder: there is no training to watch."
        if self.detector is not None:
            other = "This is a detector of outliers: it scores, and draws nothing."
            return {name: "" if name == "detect" else other for name in found} | {"watch": watch}
        if not self.has_model():
            return {name: "This run has no saved state yet: come back when it has one." for name in found} | {"watch": watch}
        return {name: why(self.model) for name, why in found.items()} | {"watch": watch}

    def require(self, panel: str) -> None:
        """Raises InputError, with the reason, where a panel has nothing for this entry."""
        why = self.panels()[panel]
        if why:
            raise InputError(why)

    def about(self) -> dict[str, Any]:
        """What the page is told of it."""
        known: dict[str, Any] = {"name": self.name, "panels": self.panels(), "kind": "run", "shape": [], "classes": []}
        if self.detector is not None:
            kind = "pictures" if self.detector.pictures_ is not None else "table"
            return known | {
                "kind": "detector",
                "title": f"Detector of outliers {'among pictures' if kind == 'pictures' else 'in a table'}",
                "reads": kind,
                "box": [],
                "page": "",
            }
        if not self.has_model():
            return known | {"title": "A run that has no state yet", "reads": "", "box": [], "page": ""}
        model = self.model
        title, box, page = header(model)
        shape = list(model.config.shape)
        options = inner_options(model)
        return known | {
            "kind": "model",
            "title": title,
            "box": box,
            "page": page,
            "shape": shape,
            "data": str(model.config.data),
            "classes": label_names(model),
            "concepts": has(model, "concepts") and "guidance" in options,
            "guidance": model.default_guidance if "guidance" in options and has(model, "labels") else None,
            "steps": "steps" in options,
            "ways": fill_ways(model),
            "kinds": repair_kinds(model),
            "reads": "pictures" if len(shape) == CUBE else "table",
            "made": has(model, "sample") and len(shape) == CUBE and not has(model, "given"),
            "columns": [] if model.units is None else list(model.units.columns),
        }


class Shelf:
    """Entries by name, in order. Raises InputError for a name that nothing is found under."""

    def __init__(self, names: Iterable[str], told: Callable[[str], None] = lambda name: None) -> None:
        self.entries: dict[str, Entry] = {}
        for name in names:
            if name not in self.entries:
                self.entries[name] = Entry(name)
                told(name)

    def entry(self, asked: Any) -> Entry:
        """The entry that a page asks for: by a name on the shelf, and by nothing else."""
        name = asked.get("model")
        if not isinstance(name, str) or name not in self.entries:
            known = ", ".join(self.entries) or "nothing"
            raise InputError(f"there is no such model here{nearest(name, self.entries) if isinstance(name, str) else ''}; there is {known}")
        return self.entries[name]


def inner(model: Any) -> Any:
    """The method behind a model of images of latents, or of the data's own units."""
    return inner(model.method) if isinstance(model, Decoded | OwnUnits) else model


def inner_options(model: Any) -> set[str]:
    return set(sampling_options(inner(model)))


def label_names(model: Any) -> list[str]:
    """The names of a model's labels in their order: of several concepts each value as "colour=red"; empty where it draws by none."""
    if not has(model, "labels"):
        return []
    concepts = trained_concepts(model)
    return [f"{name}={value}" for name, values in concepts.items() for value in values] or list(trained_classes(model))


def header(model: Any) -> tuple[str, list[str], str]:
    """Title, algorithm box and documentation page of a model's method, by the first lines of its file."""
    said = inspect.getdoc(inspect.getmodule(type(inner(model)))) or ""
    title, _, page = (said.splitlines() or [""])[0].partition(" docs/")
    lines = said.splitlines()[1:]
    box = [line[4:].rstrip() for line in lines if line.startswith("    ")]
    return title.strip() or model.name, box, f"docs/{page}" if page else ""


def _of(model: Any) -> str:
    return f"this one is of vectors of {model.config.shape[0]}" if len(model.config.shape) == 1 else "this one is of pictures"


def _why_no_landscape(model: Any) -> str:
    if tuple(model.config.shape) != (2,):
        return f"A map needs an energy of points in the plane, {_of(model)}: here are the toys."
    return "" if has(model, "energy") else f"A {model.name} model, as it is configured, has no energy of x: here are the toys."


def _why_no_draw(model: Any) -> str:
    if has(model, "given"):
        return "This model does not draw from nothing: it changes pictures that it is given (thalweg apply translate)."
    return "" if has(model, "sample") else f"A {model.name} model, as it is configured, draws no samples."


def fill_ways(model: Any) -> list[str]:
    """How a model can fill in: by energies given the known pixels, by putting these back at each step, by a search for starts."""
    if len(model.config.shape) != CUBE:
        return []
    known = {"posterior": ("evidence",), "constraint": ("constraint",), "search": ("reconstruct",)}
    return [way for way, needed in known.items() if has(model, *needed)]


def _why_no_fill(model: Any) -> str:
    if len(model.config.shape) != CUBE:
        return f"Filling in is of pictures, {_of(model)}."
    if not fill_ways(model):
        return f"The samples of a {model.name} model, as it is configured, keep no known pixels."
    return ""


def repair_kinds(model: Any) -> list[str]:
    """What a model can repair: noise where it denoises, the rest where its samples keep what was measured."""
    if len(model.config.shape) != CUBE:
        return []
    kinds = ["noise"] if has(model, "denoise") else []
    if has(model, "constraint") or has(model, "evidence"):
        kinds += ["blur", *(["grey"] if model.config.shape[0] == 3 else []), "coarse"]
    return kinds


def _why_no_repair(model: Any) -> str:
    if len(model.config.shape) != CUBE:
        return f"Repair is of pictures, {_of(model)}."
    return "" if repair_kinds(model) else f"A {model.name} model, as it is configured, neither takes noise off nor keeps what was measured."


def why_no_detect(model: Any) -> str:
    if not has(model, "energy"):
        return f"A {model.name} model, as it is configured, has no energy to score by."
    if len(model.config.shape) not in (1, CUBE):
        return "Scores are of pictures and of rows of a table."
    if not (model.trained_on or {}).get("held_out"):
        return "This model keeps no energies of held-out examples to compare with: it was saved before its training had ended, or by hand."
    return ""
