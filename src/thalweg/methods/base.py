"""The one abstract class: what the loop, the tasks and the metrics ask of a method."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from thalweg import gate, random
from thalweg.config import Common
from thalweg.data.base import Batch
from thalweg.errors import InputError, nearest

# what a method may be able to do, as it is configured; the function that each stands for
ABILITIES = {
    "sample": "sample(n, seed=…) draws samples",
    "labels": "sample(label=…) draws samples of a class",
    "concepts": "sample(label=[n, M]) composes several concepts",
    "energy": "energy(x) is −log p(x) in nats up to log Z",
    "normalised": "log_z is known, so that −energy(x) − log_z is log p(x)",
    "levels": "level_energies that are log-densities of one process at every σ, comparable between levels, up to the law `base`",
    "level_energies": "energy(x, sigma=σ) and slopes(x, sigma=σ) at noise levels in `sigma_range`, each up to a constant of its own",
    "classify": "classify(x) is log p(label | x)",
    "outlier_score": "outlier_score(x) is a score of its own, besides the energy",
    "denoise": "denoise(y, std) takes Gaussian noise off",
    "encode": "encode(x) gives a vector for each example",
    "decode": "decode(encode(x)) is nearly x again, through latents of `latent_shape` that other models may be of",
    "reconstruct": "reconstruct(x, mask) is the nearest that samples come to x where the mask is 1",
    "start": "sample(start=z) is a function of z ~ N(0, I) of `latent_shape`, so that samples are interpolated by their starts",
    "invert": "invert(x) is the start of which x is the sample",
    "given": "sample needs given images, as `starts(n)` draws them",
    "translate": "sample(start=x, trace=…) turns images of one domain into another's",
    "constraint": "sample(constraint=…) keeps what was measured",
    "evidence": "sample(evidence=f) draws from f of its energies at all levels, whose data have the Gaussian `gaussian`",
    "restore_latent": "generate, infer (unless inference is None), informed_energy and chain: restoration by a search in the latents",
    "views": "infer, render, complete, draw_prior and optics: objects in space, seen from new sides",
    "cameras": "cameras are given with the images, not inferred",
}


@runtime_checkable
class Update(Protocol):
    """The verb between a method and whoever trains it: `update(name, loss)` takes one step of the optimizer `name`."""

    images: int
    """examples seen before this step"""
    updates: int
    """optimizer steps taken"""
    generator: random.Generator
    """where all randomness of a step comes from"""
    ema: "Method"
    """the EMA twin"""
    optimizers: dict[str, torch.optim.Optimizer]

    def __call__(self, name: str, loss: Tensor) -> None:
        """Gradients of the scalar `loss` by the parameters of optimizer `name` alone, and one step."""

    def mean(self, value: Tensor) -> Tensor:
        """`value` averaged over processes, for what a method adapts by a rule of its own."""

    def log(self, **values: Tensor | float) -> None:
        """Figures of this step; tensors are reduced to their mean when they are written."""


class Method(nn.Module, ABC):
    """A training algorithm and its networks. Subclasses are final; they share by calling functions, not by inheriting.

    A method owns the order of its updates: `step` computes losses and hands each to `update`, the loop's one verb. All
    randomness inside `step` is drawn from `update.generator`. Chains and other state that must survive a restart are
    buffers. `sample` and `energy` are called on the EMA twin, a copy that the loop keeps.
    """

    name: ClassVar[str]
    Config: ClassVar[type[Common]]
    # named settings, where they are not in thalweg/presets: {"digits": dict(width=64)}
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    # logged keys whose magnitude the divergence guard watches
    guarded: ClassVar[tuple[str, ...]] = ()
    # buffers whose rows are chains of their own: in a data-parallel run each rank holds an equal part of the rows
    sharded: tuple[str, ...] = ()
    # log Z in nats where it is known
    log_z: float | None = None
    # width of the bins over which `dequantise(x, noise)` spreads what a normalised density is of; None for data as they are
    bin_width: float | None = None
    # guidance of samples by label where none is asked for; 1 is p(x | label)
    default_guidance: float = 1.0
    # functions whose first argument is examples, of `input_shapes`: the gate (`thalweg.gate`) looks at what they are given
    inputs: ClassVar[tuple[str, ...]] = ("energy", "log_prob", "classify", "encode", "outlier_score", "denoise", "reconstruct", "invert")
    # what the weights were trained on, see thalweg.data.record; None before that
    trained_on: Mapping[str, Any] | None = None
    # options of `sample` under which it is a function of its `start`
    held: ClassVar[Mapping[str, Any]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        gate.guard(cls)

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        # how vectors were standardised (`thalweg.data.Units`), set when it is trained on a table; None for all other data
        self.units: Any = None

    @property
    def abilities(self) -> frozenset[str]:
        """Which of `ABILITIES` this model has, as it is configured; by default "sample", and those named like a function of the class."""
        return frozenset({"sample"} | {name for name in ("energy", "classify", "denoise", "encode") if callable(getattr(self, name, None))})

    def prepare(self, x: Tensor) -> None:
        """Told of training examples x [N, ...] before the first step; buffers may be set by them once. By default nothing."""

    def conclude(self, batch: Batch, note: Callable[[float], None]) -> None:
        """Told of training examples after the last step, as the EMA twin; buffers may be set by them. By default nothing.

        What takes long calls `note` with the share that is done, in [0, 1], for whoever waits.
        """

    @abstractmethod
    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """A new optimizer for each name that `step` passes to `update`."""

    @abstractmethod
    def step(self, batch: Batch, update: Update) -> None:
        """One iteration on a batch: every loss goes to `update(name, loss)`."""

    @abstractmethod
    def sample(self, n: int, *, seed: int = 0, **options: Any) -> Tensor:
        """`n` samples [n, ...], images in [−1, 1]; the same seed gives the same samples."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of one example that the functions named in `inputs` take."""
        return (tuple(self.config.shape),)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of the start of one sample; that of an example unless a method has latents of its own."""
        return tuple(self.config.shape)

    @property
    def notice(self) -> str:
        """One line for whoever begins to train this model as it is configured; empty where there is nothing to say."""
        return ""

    def second_stage(self, run: str) -> str:
        """The command that trains a model on top of this one, whose run is in the folder `run`; empty for what is no first stage."""
        return ""

    def starts(self, n: int, seed: int = 0) -> dict[str, Tensor]:
        """What `sample` must be given besides a seed: nothing, or of a model that is "given" images, `n` test images as `start`."""
        return {}

    def learning_rate(self, name: str, images: int) -> float:
        """What multiplies the base learning rate of optimizer `name` after `images` images, by default the config's rule."""
        return self.config.rate(images)

    def criterion(self, held_out: Batch, generator: random.Generator) -> float:
        """How well the model does on held-out data, lower is better; the loop keeps the best state by it.

        By default the energy distance between samples and `held_out`; a method with a held-out loss uses that.
        """
        from thalweg.evaluate import energy_distance

        return float(energy_distance(self.sample(len(held_out.x), seed=1).flatten(1), held_out.x.flatten(1)))


def has(method: Any, *needed: str) -> bool:
    """Whether a model has all of the abilities."""
    return all(ability in method.abilities for ability in needed)


def needs(task: str, method: Any, *needed: str) -> None:
    """Raises InputError unless a model has all of the abilities; `task` begins the message."""
    for ability in needed:
        if ability not in method.abilities:
            what = ABILITIES[ability]
            raise InputError(
                f"{task}: this {method.name} model, as it is configured, cannot do that; needed is the ability '{ability}' ({what})"
            )


def sampling_options(method: Any) -> dict[str, inspect.Parameter]:
    """The keywords that a method's `sample` takes."""
    parameters = dict(inspect.signature(method.sample).parameters)
    return {name: p for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def check_sampling(method: Any, options: Iterable[str]) -> None:
    """Raises InputError unless a method's `sample` takes all of the options."""
    taken = sampling_options(method)
    if any(p.kind is p.VAR_KEYWORD for p in inspect.signature(method.sample).parameters.values()):
        return
    for name in options:
        if name not in taken:
            its = ", ".join(key for key in taken if key not in ("n", "seed")) or "none"
            raise InputError(f"{method.name} does not take this sampling option: '{name}'{nearest(name, taken)}. It takes {its}")


def class_labels(label: Tensor | int, n: int, classes: int, device: torch.device) -> Tensor:
    """Class labels [n] from one, or n of them; InputError for another number of labels, and where one is not in 0 … classes − 1."""
    if isinstance(label, int) and not 0 <= label < classes:  # also one that is too large for a tensor
        raise InputError(f"labels must be between 0 and {classes - 1}, got {label}")
    labels = torch.as_tensor(label, device=device)
    if not labels.numel() or labels.is_floating_point() or labels.dtype is torch.bool:
        raise InputError(f"label must be whole numbers, one or {n}, got {str(labels.dtype).removeprefix('torch.')} {list(labels.shape)}")
    if labels.dim() > 1 or labels.numel() not in (1, n):
        raise InputError(f"label must be one label or {n}, one a sample, got shape {list(labels.shape)}")
    labels = labels.expand(n)
    if labels.min() < 0 or labels.max() >= classes:
        raise InputError(f"labels must be between 0 and {classes - 1}, got {int(labels.min())} to {int(labels.max())}")
    return labels


def check_start(method: Any, start: Tensor | None, n: int, shape: tuple[int, ...] | None = None) -> None:
    """Raises InputError unless `start` is None or [n, *shape], by default of the model's latents."""
    wanted = (n, *(method.latent_shape if shape is None else shape))
    if start is not None and tuple(start.shape) != wanted:
        raise InputError(f"{method.name}: start must have shape {wanted}, got {tuple(start.shape)}")


def finished(x: Tensor) -> Tensor:
    """Samples as they are returned: images within [−1, 1] and in the usual memory layout, vectors as they are."""
    return x.clamp(-1, 1).contiguous() if x.dim() == 4 else x
