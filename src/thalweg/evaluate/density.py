"""How close a model's density or samples are to a known one: grids for two-dimensional toys, distances and modes for samples."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Protocol

import torch
from torch import Tensor

from thalweg.errors import InputError
from thalweg.given import Examples, Truth, takes

Energy = Callable[..., Tensor]

MODE_RADIUS = 3.0  # a mode's own region on the grid, in its standard deviations (98.9 % of a round 2-D Gaussian)
MODE_SHARE = 0.25  # a mode is missing when the model has less than this share of the truth's mass in that region
SAMPLE_RADIUS = 4.0  # a sample belongs to a mode within this many standard deviations (99.97 % of a round 2-D Gaussian)
FRAME = 0.025  # width of the outermost frame of the grid, as a share of its side


class Toy(Protocol):
    """What these functions ask of a two-dimensional distribution with a known density (`thalweg.data.toy`)."""

    extent: float
    modes: Tensor | None
    mode_std: float | None

    def log_prob(self, x: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class DensityReport:
    """A model's density and the true one, both normalised on the same grid; masses are shares of 1, the rest in nats.

    `kl_truth_model` punishes what the model leaves out, `kl_model_truth` what it makes up (infinite where the truth has
    no density and the model has some); `total_variation` is in [0, 1]. A mode is missing when the model's mass within 3
    `mode_std` of it is below 0.25 of the truth's mass there. `edge_mass` is the model's mass in the outermost frame of
    the grid, 2.5 % of the side wide: above a few per cent the energy is not confined, and every other number depends on
    the extent. `log_z` is log ∫ exp(−E) over the grid.
    """

    kl_truth_model: float
    kl_model_truth: float
    total_variation: float
    modes: int
    modes_missing: int
    edge_mass: float
    log_z: float


@dataclass(frozen=True)
class HistogramVariation:
    """Total variation between the histogram of samples and the exact masses of its cells, in [0, 1].

    `floor` is what as many exact draws would have on average, so that no sampler can be told from a perfect one below it.
    """

    value: float
    floor: float
    samples: int
    cells: int


@dataclass(frozen=True)
class EnergyDistance:
    """A squared energy distance, its standard error and the 95 % interval value ± 1.96 standard errors.

    Unbiased, so slightly below 0 is possible where the two distributions agree.
    """

    value: float
    standard_error: float
    low: float
    high: float


@dataclass(frozen=True)
class ModeCoverage:
    """How samples spread over the modes: `hit` of `modes`, `counts` by mode, `fraction` of samples that belong to any mode."""

    modes: int
    hit: int
    fraction: float
    counts: tuple[int, ...]


def grid_points(extent: float, grid: int) -> Tensor:
    """Centres of the cells of a square grid over [−extent, extent]², [grid·grid, 2] float32; x varies fastest, rows go up in y."""
    if not (isinstance(grid, Integral) and grid >= 8):
        raise InputError(f"grid: got {grid!r}, need a whole number of cells a side, 8 or more")
    if not (math.isfinite(extent) and extent > 0):
        raise InputError(f"extent: got {extent!r}, need a positive half-width")
    centres = ((torch.arange(grid, dtype=torch.float64) + 0.5) / grid * 2 - 1) * extent
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(-1, 2).float()


@torch.no_grad()
def grid_energy(energy: Energy, points: Tensor, *, chunk: int = 16384, device: str | torch.device = "cpu") -> Tensor:
    """Energies of `points` [P, D] on the CPU in float64, [P], taken `chunk` at a time on `device`; +inf stays (no density there).

    Raises InputError on NaN, −inf or a result that is not [B].
    """
    values = []
    for part in points.split(chunk):
        value = energy(part.to(device))
        if value.shape != (len(part),):
            raise InputError(f"energy: got shape {list(value.shape)} for {len(part)} points, need [{len(part)}]")
        values.append(value.double().cpu())
    result = torch.cat(values)
    wrong = result.isnan() | (result == -math.inf)
    if wrong.any():
        raise InputError(f"energy: NaN or −inf at {int(wrong.sum())} of {len(points)} grid points, need finite energies")
    return result


def log_density(energy: Energy, extent: float, grid: int, *, device: str | torch.device = "cpu") -> tuple[Tensor, float]:
    """Log-density log p [grid, grid] of exp(−energy) normalised over [−extent, extent]², rows going up in y, and log Z (nats)."""
    value = -grid_energy(energy, grid_points(extent, grid), device=device)
    log_z = float(torch.logsumexp(value, 0)) + 2 * math.log(2 * extent / grid)
    if not math.isfinite(log_z):
        raise InputError(f"energy: no density anywhere in [−{extent:g}, {extent:g}]², need a larger extent")
    return (value - log_z).view(grid, grid), log_z


@takes
def density(
    energy: Energy, toy: Truth, *, grid: int = 400, extent: float | None = None, device: str | torch.device = "cpu"
) -> DensityReport:
    """Compare the density exp(−energy) with a toy's true one, both normalised on a grid over [−extent, extent]².

    energy: (x [B, 2]) -> [B] nats; called on `device`. extent: half-width, the toy's own when not given. Sums in float64.
    Raises InputError where an energy is NaN, −inf, or +inf at a point where the truth has density.
    """
    extent = float(toy.extent if extent is None else extent)
    truth, _ = log_density(lambda x: -toy.log_prob(x), extent, grid)
    model, log_z = log_density(energy, extent, grid, device=device)
    wrong = model.isinf() & truth.isfinite()
    if wrong.any():
        raise InputError(f"energy: infinite at {int(wrong.sum())} of {grid * grid} grid points where the truth has density, need finite")

    cell = (2 * extent / grid) ** 2
    p, q = truth.exp() * cell, model.exp() * cell
    frame = torch.ones(grid, grid, dtype=torch.bool)
    width = max(1, round(FRAME * grid))
    frame[width:-width, width:-width] = False
    modes, missing = _modes_missing(p, q, toy, extent, grid)
    return DensityReport(
        kl_truth_model=_kl(p, truth, model),
        kl_model_truth=_kl(q, model, truth),
        total_variation=float((p - q).abs().sum() / 2),
        modes=modes,
        modes_missing=missing,
        edge_mass=float(q[frame].sum()),
        log_z=log_z,
    )


@takes
def histogram_variation(x: Examples, toy: Truth, *, cells: int = 40) -> HistogramVariation:
    """Compare samples x [n, 2] with a toy by a histogram of cells × cells over [−extent, extent]²; what lies outside counts as wrong.

    A cell's exact mass is the mean of the density at 64 points of it. Raises InputError for other shapes and no samples.
    """
    if x.dim() != 2 or x.shape[1] != 2 or not len(x) or not x.isfinite().all():
        raise InputError(f"histogram_variation: got shape {list(x.shape)}, need finite samples [n, 2] with n ≥ 1")
    fine, n = 8, len(x)
    mass = (-grid_energy(lambda y: -toy.log_prob(y), grid_points(toy.extent, cells * fine))).exp() * (2 * toy.extent / (cells * fine)) ** 2
    mass = mass.view(cells, fine, cells, fine).sum((1, 3))  # rows going up in y
    place = ((x.cpu().double() + toy.extent) / (2 * toy.extent) * cells).floor().long()
    inside = ((place >= 0) & (place < cells)).all(1)
    counts = torch.bincount(place[inside, 1] * cells + place[inside, 0], minlength=cells**2).view(cells, cells)
    share = counts.double() / n
    value = 0.5 * float((share - mass).abs().sum() + (1 - share.sum()))
    # the mean of |N(0, p(1 − p)/n)|, of all cells
    floor = 0.5 * float((2 / math.pi * (mass * (1 - mass)).clamp_min(0) / n).sqrt().sum())
    return HistogramVariation(value, floor, n, cells)


def _kl(mass: Tensor, own: Tensor, other: Tensor) -> float:
    has = mass > 0  # cells of mass 0 add nothing, also where a log-density is −inf
    return max(0.0, float((mass[has] * (own[has] - other[has])).sum()))


def _modes_missing(truth: Tensor, model: Tensor, toy: Toy, extent: float, grid: int) -> tuple[int, int]:
    if toy.modes is None:
        return 0, 0
    radius = MODE_RADIUS * float(toy.mode_std)
    near = torch.cdist(toy.modes.double().cpu(), grid_points(extent, grid).double()) <= radius
    if not near.any(1).all():
        raise InputError(
            f"grid: a mode lies outside [−{extent:g}, {extent:g}]² or between its {grid}×{grid} points, need a wider or finer one"
        )
    share = near.double() @ model.flatten() / (near.double() @ truth.flatten()).clamp_min(torch.finfo(torch.float64).tiny)
    return len(near), int((share < MODE_SHARE).sum())


@takes
def mode_coverage(samples: Examples, toy: Truth, *, at_least: int = 1) -> ModeCoverage:
    """Count the modes that samples [N, 2] hit, and the share of samples within 4 standard deviations of a mode.

    A sample belongs to its nearest mode if that is within 4 `mode_std`; a mode is hit by `at_least` such samples (1, the
    convention of VEEGAN, arXiv:1705.07761; a stray sample suffices, so read `counts` too). Raises InputError where the
    toy has no modes.
    """
    samples = _rows("samples", samples)
    if toy.modes is None:
        raise InputError("mode_coverage: this toy has no separate modes; use energy_distance or density")
    distance, nearest = torch.cdist(samples, toy.modes.to(samples)).min(1)
    inside = distance <= SAMPLE_RADIUS * float(toy.mode_std)
    counts = torch.bincount(nearest[inside], minlength=len(toy.modes))
    return ModeCoverage(
        modes=len(toy.modes), hit=int((counts >= at_least).sum()), fraction=float(inside.double().mean()), counts=tuple(counts.tolist())
    )


@takes
def energy_distance(x: Examples, y: Examples) -> float:
    """Squared energy distance 2 E|X−Y| − E|X−X'| − E|Y−Y'| between two samples, an unbiased U-statistic.

    x: [N, ...], y: [M, ...], flattened to rows of one length; N, M ≥ 3. In the unit of x. (Székely and Rizzo 2013, eq. 2.)
    """
    return energy_distance_interval(x, y).value


@takes
def energy_distance_interval(x: Examples, y: Examples) -> EnergyDistance:
    """`energy_distance` with its standard error by the two-sample jackknife (Arvesen 1969), which needs no resampling.

    Every leave-one-out value follows from the row sums of the distances. Where the two distributions agree the statistic
    is degenerate and the jackknife is conservative: its standard error is then too large, by up to √2 on average.
    """
    x, y = _rows("x", x), _rows("y", y)
    if x.shape[1] != y.shape[1]:
        raise InputError(f"energy_distance: rows of x have {x.shape[1]} values and rows of y {y.shape[1]}, need the same number")
    n, m = len(x), len(y)
    between_x, between_y = _distance_sums(x, y)
    within_x, within_y = _distance_sums(x, x)[0], _distance_sums(y, y)[0]
    between, inside_x, inside_y = float(between_x.sum()), float(within_x.sum()), float(within_y.sum())
    term_x, term_y = inside_x / (n * (n - 1)), inside_y / (m * (m - 1))
    value = 2 * between / (n * m) - term_x - term_y
    # The value without x_i, then without y_j: a left-out point takes its row and its column out of the inner sum.
    without_x = 2 * (between - between_x) / ((n - 1) * m) - (inside_x - 2 * within_x) / ((n - 1) * (n - 2)) - term_y
    without_y = 2 * (between - between_y) / (n * (m - 1)) - (inside_y - 2 * within_y) / ((m - 1) * (m - 2)) - term_x
    variance = sum((len(v) - 1) * float(v.var(correction=0)) for v in (without_x, without_y))
    error = math.sqrt(variance)
    return EnergyDistance(value=value, standard_error=error, low=value - 1.96 * error, high=value + 1.96 * error)


def _distance_sums(x: Tensor, y: Tensor, *, cells: int = 2**22) -> tuple[Tensor, Tensor]:
    """Sums of |x_i − y_j| over j and over i, without ever holding more than about `cells` distances."""
    over_y, over_x = x.new_empty(len(x)), y.new_zeros(len(y))
    rows = max(1, cells // len(y))
    for start in range(0, len(x), rows):
        # The faster way through a matrix product loses digits for near pairs, and gives |x_i − x_i| > 0.
        distances = torch.cdist(x[start : start + rows], y, compute_mode="donot_use_mm_for_euclid_dist")
        over_y[start : start + rows] = distances.sum(1)
        over_x += distances.sum(0)
    return over_y, over_x


def _rows(name: str, x: Tensor) -> Tensor:
    if x.dim() < 1 or len(x) < 3:
        raise InputError(f"{name}: got shape {list(x.shape)}, need [N, ...] with N ≥ 3")
    if not x.isfinite().all():
        raise InputError(
            f"{name}: {int((~x.isfinite()).flatten(1).any(1).sum())} of {len(x)} rows hold NaN or infinity, need finite values"
        )
    return x.detach().reshape(len(x), -1).double().cpu()
