"""A classifier's accuracy under attack, and whether the attack can be believed."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thalweg.energy import value_and_score
from thalweg.errors import InputError, require
from thalweg.evaluate.accuracy import Accuracy, wilson
from thalweg.evaluate.auto_pgd import withstands
from thalweg.evaluate.calibration import examples
from thalweg.given import Examples, Labels, takes
from thalweg.nn.layers import frozen
from thalweg.random import seeded, uniform

EPSILONS = tuple(k / 255 for k in (2, 4, 8, 16, 32, 64))
SLACK = 0.01  # share of the examples by which two attacks may differ before a check fails; at least one example
FEW = 0.05  # share of the examples still right that "none" allows at full range, and zero gradients that "flow" allows
HELP = 0.1  # share of the examples that further restarts may break beyond the first


@dataclass(frozen=True)
class MaskingChecks:
    """Signs that an attack failed for want of gradients, not of adversarial examples (Athalye et al. 2018; Carlini et al. 2019).

    Each check is true where nothing is wrong, and has its number, a share of all examples; `passed` is all of them.
    `reaches_zero`: at ε = 1, where any image may become any other, PGD leaves at most 5 % right (`full_range_accuracy`).
    `pgd_at_least_fgsm`: at no ε is PGD's accuracy above FGSM's by more than 1 % or one example (`pgd_over_fgsm`, the largest
    difference). `noise_is_weaker`: the same against uniform noise of equal size and as many draws (`pgd_over_noise`).
    `restarts_help_little`: at no ε do restarts after the first break more than another 10 % (`restart_gain`); where gradients
    are useless each restart is a blind try. `gradients_flow`: of at most 5 % is the gradient of the cross-entropy at the
    example itself zero everywhere or not finite (`zero_gradients`), as behind rounding or a saturated softmax. In these
    comparisons each ε is attacked by itself.
    """

    passed: bool
    reaches_zero: bool
    pgd_at_least_fgsm: bool
    noise_is_weaker: bool
    restarts_help_little: bool
    gradients_flow: bool
    full_range_accuracy: float
    pgd_over_fgsm: float
    pgd_over_noise: float
    restart_gain: float
    zero_gradients: float


@dataclass(frozen=True)
class RobustnessReport:
    """Accuracy in [0, 1] against L∞ perturbations of at most ε, on `n` examples, with 95 % Wilson intervals; higher is better.

    `epsilons` are in the unit of images in [0, 1], as papers state them (8/255). `clean` is the accuracy without attack,
    `fgsm` that after one signed-gradient step (it need not fall with ε), `pgd` that after `restarts` random restarts of
    `steps` steps on each of two losses: an example counts as broken if any of them, at this or a smaller ε, breaks it, so
    the curve never rises. `noise` is accuracy under the worst of as many draws of uniform noise. `auto` is what withstands PGD and then
    Auto-PGD of `auto_steps` steps on the cross-entropy and on the targeted losses of AutoAttack (`auto_pgd`), also a curve that never
    rises; empty without. The lowest of them is an upper bound of the true robust accuracy, and only to be believed where
    `checks.passed`.
    """

    n: int
    epsilons: tuple[float, ...]
    clean: Accuracy
    fgsm: tuple[Accuracy, ...]
    pgd: tuple[Accuracy, ...]
    noise: tuple[Accuracy, ...]
    steps: int
    restarts: int
    checks: MaskingChecks
    auto: tuple[Accuracy, ...] = ()
    auto_steps: int = 0


@takes
def robustness(
    logits: Callable[[Tensor], Tensor],
    x: Examples,
    y: Labels,
    *,
    epsilons: Sequence[float] = EPSILONS,
    steps: int = 40,
    restarts: int = 5,
    auto: int | None = None,
    bounds: tuple[float, float] = (-1.0, 1.0),
    batch: int = 512,
    seed: int = 0,
) -> RobustnessReport:
    """Accuracy of a classifier under FGSM, random-restart PGD and noise in L∞ balls, with checks for masked gradients.

    logits: (x [B, ...]) -> [B, classes], logits or log-probabilities; a module, or a bound method of one such as
    `method.classify`, is held in evaluation mode with its parameters frozen, and left as it was. x [N, ...] in `bounds`, y [N]
    int64. epsilons: rising, in (0, 1], of images in [0, 1]; multiplied by the width of `bounds`, so that 8/255 moves a
    pixel in [−1, 1] by 16/255. Attacks are foolbox's (Goodfellow et al. 2015; Madry et al. 2018): PGD takes steps of 2.5 ε/steps
    from uniform starts, up the cross-entropy, and again up the margin max_k≠y z_k − z_y, which has a gradient where the
    softmax is saturated (Carlini and Wagner 2017). What withstands is then attacked by `auto` steps, by default `steps`, of Auto-PGD on
    each of its losses; 0 for none. An example that withstands all costs 2·steps·restarts + auto·classes gradients at each ε, of at most
    10 classes, so a few hundred examples are a good number. The same seed gives the same report. Raises InputError on wrong shapes or
    ranges, and on logits that are NaN or have no gradient.
    """
    low, high = (float(bound) for bound in bounds)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"bounds: got {tuple(bounds)}, need finite (low, high) with low < high")
    epsilons = tuple(float(epsilon) for epsilon in epsilons)
    if not epsilons or not all(0 < epsilon <= 1 for epsilon in epsilons) or sorted(set(epsilons)) != list(epsilons):
        raise InputError(f"epsilons: got {epsilons}, need rising numbers in (0, 1], in the unit of images in [0, 1]")
    if not all(isinstance(count, Integral) and count >= 1 for count in (steps, restarts, batch)):
        raise InputError(f"got steps = {steps!r}, restarts = {restarts!r}, batch = {batch!r}; need whole numbers, 1 or more")
    auto = steps if auto is None else auto
    if not isinstance(auto, Integral) or auto < 0:
        raise InputError(f"got auto = {auto!r}; need a whole number, 0 or more")
    examples("robustness", x, y, (low, high))
    x, y = x.detach().clamp(low, high), y.long()
    owner = logits if isinstance(logits, nn.Module) else getattr(logits, "__self__", None)
    with _held(owner):
        attacked = _Attacked(logits, x, y, (low, high), batch)
        clean = attacked.right(lambda rows: x[rows])
        radii = epsilons if epsilons[-1] == 1.0 else (*epsilons, 1.0)  # the last of them for the check alone
        fgsm = torch.stack([attacked.fgsm(epsilon, clean) for epsilon in radii])
        first, pgd = (torch.stack(part) for part in zip(*(attacked.pgd(epsilon, clean, steps, restarts, seed) for epsilon in radii)))
        noise = torch.stack([attacked.noise(epsilon, clean, 2 * restarts, seed) for epsilon in radii])
        zero = attacked.zero_gradients()
        shown = slice(len(epsilons))
        worst = pgd[shown].long().cummin(0).values.bool()
        further = torch.stack([attacked.auto(*each, auto, seed) for each in zip(epsilons, worst)]) if auto else worst[:0]

    def curve(right: Tensor) -> tuple[Accuracy, ...]:
        return tuple(wilson(int(row.sum()), len(x)) for row in right)

    return RobustnessReport(
        n=len(x),
        epsilons=epsilons,
        clean=wilson(int(clean.sum()), len(x)),
        fgsm=curve(fgsm[shown]),
        pgd=curve(worst),
        noise=curve(noise[shown]),
        steps=steps,
        restarts=restarts,
        checks=_checks(fgsm, first, pgd, noise, zero),
        auto=curve(further.long().cummin(0).values if auto else further),
        auto_steps=auto,
    )


def _checks(fgsm: Tensor, first: Tensor, pgd: Tensor, noise: Tensor, zero: Tensor) -> MaskingChecks:
    """From whether each example is still right, [radii, N] each, and whether its gradient vanishes, [N]."""
    share = [right.double().mean(1) for right in (fgsm, first, pgd, noise)]
    n = len(zero)
    slack = max(SLACK, 1 / n) + 1e-9
    numbers = dict(
        full_range_accuracy=float(share[2][-1]),
        pgd_over_fgsm=float((share[2] - share[0]).max()),
        pgd_over_noise=float((share[2] - share[3]).max()),
        restart_gain=float((share[1] - share[2]).max()),
        zero_gradients=float(zero.double().mean()),
    )
    verdicts = dict(
        reaches_zero=numbers["full_range_accuracy"] <= FEW,
        pgd_at_least_fgsm=numbers["pgd_over_fgsm"] <= slack,
        noise_is_weaker=numbers["pgd_over_noise"] <= slack,
        restarts_help_little=numbers["restart_gain"] <= max(HELP, 1 / n) + 1e-9,
        gradients_flow=numbers["zero_gradients"] <= FEW,
    )
    return MaskingChecks(passed=all(verdicts.values()), **verdicts, **numbers)


@contextmanager
def _held(owner: object) -> Iterator[None]:
    if isinstance(owner, nn.Module):
        with frozen(owner):
            yield
    else:
        yield


class _Attacked:
    """A classifier and the examples to attack. Each attack returns whether each example is still right, [N] bool on the CPU."""

    def __init__(self, logits: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, bounds: tuple[float, float], batch: int) -> None:
        self.logits, self.x, self.y, self.bounds, self.batch = logits, x, y.to(x.device), bounds, batch
        self.scale = bounds[1] - bounds[0]

    def _parts(self, among: Tensor | None) -> list[Tensor]:
        rows = torch.arange(len(self.x)) if among is None else among.nonzero()[:, 0]
        return list(rows.split(self.batch)) if len(rows) else []

    def values(self, x: Tensor) -> Tensor:
        value = self.logits(x)
        if value.dim() != 2 or len(value) != len(x) or value.shape[1] < 2:
            raise InputError(f"robustness: logits of shape {list(value.shape)}, need [{len(x)}, classes] for 2 classes or more")
        return value.to(x.device)

    @torch.no_grad()
    def right(self, inputs: Callable[[Tensor], Tensor], among: Tensor | None = None) -> Tensor:
        """Whether inputs(rows) are classified rightly; of the rows not `among`, False."""
        result = torch.zeros(len(self.x), dtype=torch.bool)
        for part in self._parts(among):
            value = self.values(inputs(part))
            if value.isnan().any() or int(self.y[part].max()) >= value.shape[1] or int(self.y[part].min()) < 0:
                raise InputError(f"robustness: NaN among the logits, or labels outside 0 to {value.shape[1] - 1}, their classes")
            result[part] = (value.argmax(1) == self.y[part]).cpu()
        return result

    def fgsm(self, epsilon: float, clean: Tensor) -> Tensor:
        return clean & ~self._attack(epsilon, clean, "cross-entropy", steps=1)

    def pgd(self, epsilon: float, clean: Tensor, steps: int, restarts: int, seed: int) -> tuple[Tensor, Tensor]:
        """After the first restart and after all; only what still stands is attacked again."""
        standing = clean
        for restart in range(restarts):
            for i, loss in enumerate(("cross-entropy", "margin")):
                standing = standing & ~self._attack(epsilon, standing, loss, steps, self._draw(seed, 0, restart, i))
            if restart == 0:
                first = standing
        return first, standing

    def auto(self, epsilon: float, standing: Tensor, steps: int, seed: int) -> Tensor:
        """Of those that still stand."""
        start, right = self._draw(seed, 2), standing.clone()
        for rows in self._parts(standing):
            x, begin = self.x[rows], start[rows].to(self.x)
            found = withstands(self.values, x, self.y[rows], begin, radius=epsilon * self.scale, bounds=self.bounds, steps=steps)
            right[rows] = found.cpu()
        return right

    def noise(self, epsilon: float, clean: Tensor, draws: int, seed: int) -> Tensor:
        standing = clean
        for i in range(draws):
            shift = epsilon * self.scale * self._draw(seed, 1, i)
            moved = (self.x + shift.to(self.x)).clamp(*self.bounds)
            standing = self.right(lambda rows, moved=moved: moved[rows], standing)
        return standing

    def zero_gradients(self) -> Tensor:
        result = []
        for part, label in zip(self.x.split(self.batch), self.y.split(self.batch)):
            _, gradient = _ascent(lambda x, label=label: self._loss("cross-entropy", x, label), part)
            flat = gradient.flatten(1)
            result.append(((flat == 0).all(1) | ~flat.isfinite().all(1)).cpu())
        return torch.cat(result)

    def _draw(self, *key: int) -> Tensor:
        """Uniform in [−1, 1) in the shape of x; the same for every ε and however the examples are batched."""
        return uniform(len(self.x), *self.x.shape[1:], low=-1.0, high=1.0, generator=seeded(*key))

    def _loss(self, kind: str, x: Tensor, y: Tensor) -> Tensor:
        value = self.values(x)
        if kind == "cross-entropy":
            return F.cross_entropy(value, y, reduction="none")
        own = F.one_hot(y, value.shape[1]).bool()
        return value.masked_fill(own, -math.inf).max(1).values - value[own]

    def _attack(self, epsilon: float, among: Tensor, kind: str, steps: int, start: Tensor | None = None) -> Tensor:
        """Whether each example of `among` is broken: FGSM without `start`, else PGD from x + ε·start."""
        broken = torch.zeros(len(self.x), dtype=torch.bool)
        radius = epsilon * self.scale
        for rows in self._parts(among):
            x, y = self.x[rows], self.y[rows]
            attack = _foolbox_attack(lambda x, y=y: self._loss(kind, x, y), steps, None if start is None else radius * start[rows].to(x))
            _, moved, success = attack(self._model(x), x, y, epsilons=radius)
            broken[rows] = (success & moved.flatten(1).isfinite().all(1)).cpu()
        return broken

    def _model(self, x: Tensor):
        return _foolbox().PyTorchModel(_Wrapped(self.values).eval(), bounds=self.bounds, device=x.device)


def _ascent(loss: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of each row and its gradient by x: up the loss is down the energy −loss."""
    try:
        value, gradient = value_and_score(lambda point: -loss(point), x)
    except InputError as error:
        if "differentiable" in str(error):
            raise InputError("robustness: the logits have no gradient by x; give them without detach or no_grad") from None
        raise
    return -value, gradient


class _Wrapped(nn.Module):
    """A function as the module that foolbox asks for; it holds no parameters, so foolbox moves nothing."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def _foolbox():
    with warnings.catch_warnings():  # it imports a filter, which no attack here uses, from where SciPy no longer wants it
        warnings.filterwarnings("ignore", message="Please import `gaussian_filter`", category=DeprecationWarning)
        return require("foolbox", "metrics")


def _foolbox_attack(loss: Callable[[Tensor], Tensor], steps: int, start: Tensor | None):
    """foolbox's L∞ PGD up a loss of ours [B] from x + start, or its FGSM without one.

    foolbox would draw the start from the global generator and leave gradients in the parameters: both are replaced here.
    """
    attacks = _foolbox().attacks
    eagerpy = require("eagerpy", "metrics")
    base = attacks.LinfFastGradientAttack if start is None else attacks.LinfProjectedGradientDescentAttack

    class Attack(base):
        def get_random_start(self, x0, epsilon):
            return x0 + eagerpy.astensor(start)

        def value_and_grad(self, loss_fn, x):
            value, gradient = _ascent(loss, x.raw)
            return eagerpy.astensor(value.sum()), eagerpy.astensor(gradient)

    return Attack(random_start=False) if start is None else Attack(rel_stepsize=2.5 / steps, steps=steps, random_start=True)
