"""The tasks: what each of them does, needs, reads, writes and can be told. Nothing here needs torch.

The command line and the metrics read this table.
"""

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from thalweg.errors import InputError

# --- what a task can be told: one dataclass a task, from which the command line makes its options


@dataclass
class Options:
    """Options of a task; none by itself."""

    def check(self, given: bool) -> None:
        """Raises InputError for values out of range; `given`: whether there is an input."""
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name == "seed":
                check_seed(value)
            elif isinstance(value, int | float) and not isinstance(value, bool) and not value > 0:
                raise InputError(f"--{f.name.replace('_', '-')} must be above 0, got {value}")

    def for_file(self, suffix: str) -> "Options":
        """The same with defaults for a file of that ending."""
        return self


def check_seed(seed: int) -> None:
    """Raises InputError unless 0 ≤ seed < 2⁶³."""
    if not 0 <= seed < 2**63:
        raise InputError(f"--seed must be between 0 and 2⁶³ − 1, got {seed}")


@dataclass
class Detect(Options):
    data: str | None = None
    """data of which the held-out examples are what others are compared with, instead of those that the model keeps"""
    score: Literal["energy", "joint", "mass", "typicality", "levels"] = "energy"
    """what examples are compared by; others than the energy need the data that the model was trained on"""


@dataclass
class Inpaint(Options):
    mask: str = "centre:0.25"
    """what is missing: centre:SHARE, random:SHARE, irregular:SHARE, half:SIDE, or FILE.png, white where known"""
    completions: int = 4
    """images drawn for each input"""
    resample: int | None = None
    """times that each step down the noise levels is made, where the method can (RePaint)"""
    search: int | None = None
    """complete by so many steps of a search for where chains start, where the method reconstructs"""
    seed: int = 0
    """of all draws"""


@dataclass
class Restore(Options):
    operator: str | None = None
    """what is measured of the input: pool:FACTOR, grey, blur:STD or mask:MASK"""
    std: float | None = None
    """standard deviation of noise in what is measured, which is added to it; then images are drawn given that"""
    latent: bool = False
    """look for a latent of the generator that agrees with what was measured, then for a residual"""
    completions: int | None = None
    """images drawn for each input, 4 by default"""
    resample: int | None = None
    """times that each step down the noise levels is made, where the method can"""
    corrections: int | None = None
    """steps of MALA at each noise level, where the method can"""
    seed: int = 0
    """of all draws"""

    def check(self, given: bool) -> None:
        super().check(given)
        if self.std == math.inf:
            raise InputError("--std must be finite, got inf")
        if self.operator is None:
            raise InputError("restore needs --operator, what is measured of the input: pool:2, grey, blur:1.0 or mask:centre:0.25")
        if self.latent and (self.completions or self.resample or self.corrections or self.std):
            raise InputError(
                "restore --latent gives one image for each input: it takes no --completions, --resample, --corrections and --std"
            )


@dataclass
class Denoise(Options):
    std: float | None = None
    """standard deviation of the noise, in the unit of images in [−1, 1]"""
    add_noise: bool = False
    """add that noise to the input first"""
    seed: int = 0
    """of all draws"""

    def check(self, given: bool) -> None:
        super().check(given)
        if self.std is None:
            raise InputError("denoise needs --std, the standard deviation of the noise in images in [−1, 1]; for example --std 0.3")
        if self.std == math.inf:
            raise InputError("--std must be finite, got inf")


@dataclass
class Reconstruct(Options):
    search: int = 200
    """steps of the search for where chains start"""
    seed: int = 0
    """of all draws"""


@dataclass
class Interpolate(Options):
    seeds: str | None = None
    """seeds of the noise at the two ends, 0,1 by default; without --input"""
    steps: int = 8
    """samples from end to end"""
    seed: int = 0
    """of all other draws"""

    def check(self, given: bool) -> None:
        super().check(given)
        if given and self.seeds is not None:
            raise InputError("interpolate goes between the first two images of --input or between the noise of two --seeds, not both")
        if self.steps < 2:
            raise InputError(f"--steps must be 2 or more, got {self.steps}")
        _ = self.ends

    @property
    def ends(self) -> tuple[int, int]:
        """The two seeds; InputError for what is not two different whole numbers."""
        parts = (self.seeds or "0,1").split(",")
        if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts) or int(parts[0]) == int(parts[1]):
            raise InputError(f"--seeds must be two different whole numbers, for example 0,1, got '{self.seeds}'")
        for part in parts:
            check_seed(int(part))
        return int(parts[0]), int(parts[1])


@dataclass
class Translate(Options):
    seed: int = 0
    """of all draws"""


@dataclass
class Turntable(Options):
    count: int = 6
    """objects"""
    frames: int | None = None
    """pictures of one turn, 36 in a .gif, else 8"""
    shots: int = 2
    """images of each object that are given, with --input"""
    search: int | None = None
    """steps of the posterior's chain, with --input"""
    size: int | None = None
    """side of the pictures in pixels, that of training by default"""
    seed: int = 0
    """of all draws"""

    def for_file(self, suffix: str) -> "Turntable":
        return replace(self, frames=self.frames or (36 if suffix == ".gif" else 8))


@dataclass
class Recombine(Options):
    count: int = 6
    """objects"""
    size: int | None = None
    """side of the pictures in pixels, that of training by default"""
    seed: int = 0
    """of all draws"""


@dataclass
class Views(Options):
    count: int = 6
    """objects"""
    shots: int = 2
    """images of each object that are given"""
    search: int | None = None
    """steps of the posterior's chain"""
    seed: int = 0
    """of all draws"""


@dataclass
class Complete(Options):
    count: int = 6
    """objects"""
    mask: str | None = None
    """what is missing of images that are whole: centre:SHARE, random:SHARE, irregular:SHARE or half:SIDE"""
    search: int | None = None
    """steps of the posterior's chain"""
    seed: int = 0
    """of all draws"""


# --- the tasks


@dataclass(frozen=True)
class Task:
    """One task of `thalweg apply`: `function`, "MODULE:NAME", is called with a model, what was read (or None) and the options, and gives
    an `applied.Outcome`."""

    help: str
    function: str
    options: type[Options]
    needs: tuple[str, ...]
    """abilities of the model"""
    reads: Literal["images", "views", ""] = "images"
    """pictures, data of objects with cameras, or nothing"""
    writes: tuple[str, ...] = (".png", ".npz")
    """endings of what it may write"""
    optional: bool = False
    """whether it can do without an input"""
    rows: bool = False
    """whether it is for models of vectors too, and reads the rows of a table for them"""
    instead: Mapping[str, str] = field(default_factory=dict)
    """the ability that is needed in place of `needs` where an option is given"""

    def needed(self, options: Options) -> tuple[str, ...]:
        """The abilities that the task needs with these options."""
        found = [ability for name, ability in self.instead.items() if getattr(options, name)]
        return tuple(found) or self.needs

    def run(self, method: Any, given: Any, options: Options) -> Any:
        """Do it: `given` is images [N, C, H, W] in [−1, 1], a table, data with cameras, or None."""
        module, name = self.function.split(":")
        function: Callable[..., Any] = getattr(importlib.import_module(f"thalweg.tasks.{module}"), name)
        return function(method, given, options)


# fmt: off
TASKS: dict[str, Task] = {
    "classify":    Task("the class of each example, and its probability", "applied:classify", Options, ("classify",), writes=(".json",),
                        rows=True),
    "detect":      Task("the energy or another score of each example, and the share of held-out ones above it", "applied:detect", Detect,
                        ("energy",), writes=(".json",), rows=True),
    "inpaint":     Task("fill in the missing pixels of images, of which the mask hides some", "applied:inpaint", Inpaint, ("constraint",),
                        instead={"search": "reconstruct"}),
    "restore":     Task("images that agree with what a linear operator left of the input", "applied:restore", Restore, ("constraint",),
                        instead={"latent": "restore_latent", "std": "evidence"}),
    "denoise":     Task("take Gaussian noise off images", "applied:denoise", Denoise, ("denoise",)),
    "reconstruct": Task("the nearest that the model's samples come to each image", "applied:reconstruct", Reconstruct, ("reconstruct",)),
    "interpolate": Task("samples between two draws of noise, or between the first two images of the input", "applied:interpolate",
                        Interpolate, ("start",), optional=True),
    "translate":   Task("images of the model's source domain in its own, and where they change", "applied:translate", Translate,
                        ("translate",)),
    # of objects in space
    "turntable":   Task("turn samples, or the objects of the input", "applied_scenes:turntable", Turntable, ("views",), reads="views",
                        writes=(".png", ".npz", ".gif"), optional=True),
    "recombine":   Task("every appearance with every shape", "applied_scenes:recombine", Recombine, ("views",), reads=""),
    "views":       Task("new views of objects, from a few of their images", "applied_scenes:views", Views, ("views", "cameras"),
                        reads="views"),
    "complete":    Task("fill in what is missing of images of objects", "applied_scenes:complete", Complete, ("views",), reads="views"),
    "pose":        Task("where from each image was seen, by a model that infers its cameras", "applied_scenes:pose", Options, ("views",),
                        writes=(".json",)),
}
# fmt: on
