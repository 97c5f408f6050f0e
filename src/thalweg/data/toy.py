"""Two-dimensional toys whose sampler, log-density and score are one and the same law, exactly.

| name | law (lengths in the units of x) |
|---|---|
| gaussian | the standard normal |
| 8gaussians | 8 equal Gaussians of std 0.15 on the circle of radius 2 |
| 2gaussians | two Gaussians of std 0.4 at (±3.2, 0), of weights 0.8 and 0.2: between them the score says nothing of the weights |
| 25gaussians | 25 equal Gaussians of std 0.05 on the grid {−2, −1, 0, 1, 2}² |
| rings | 4 equal circles of radius 0.75, 1.5, 2.25, 3, uniform angle, convolved with a Gaussian of std 0.08 |
| moons | 2 equal half circles of radius 2, uniform angle, convolved with std 0.2 |
| swissroll | (t cos t, t sin t)/5 with t uniform on [1.5π, 4.5π], convolved with std 0.15 |
| spiral | 2 equal arms ±θ(−cos θ, sin θ)/3 with θ = 3π√u, u uniform on [0, 1], convolved with std 0.15 |
| pinwheel | 5 equal Gaussian blades of std (0.3, 0.1) at radius 1, turned by 0.25·exp(min(radius, 3)) rad, all times 1.5 |
| checkerboard | uniform on the 8 dark unit squares of [−2, 2]², convolved with std 0.05 so that the score exists at the edges |

Gaussians, rings (Bessel function), pinwheel (a twist keeps areas) and checkerboard (error functions) are closed forms;
moons, swissroll and spiral are Gauss–Legendre integrals along the curve, with an error in log p below 1e-5 on the square
of `Toy.extent`, far from the curve too. All of it is computed in float64.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, final

import numpy
import torch
from torch import Tensor

from ..energy import score as score_of
from ..errors import InputError, nearest
from ..random import Generator, integers, normal, seeded, uniform
from .base import Batch

_ROWS = 2048  # points taken at once: the table of points × quadrature nodes stays near the cache, whatever the grid


class _Law(NamedTuple):
    """`log_density`: points [n, 2] -> nats [n]; `draw(n, generator, device)`: points [n, 2] and their component [n]."""

    log_density: Callable[[Tensor], Tensor]
    draw: Callable[[int, Generator, torch.device], tuple[Tensor, Tensor]]
    extent: float
    classes: tuple[str, ...] = ()
    modes: Tensor | None = None
    mode_std: float | None = None


@final
class Toy:
    """A two-dimensional distribution with an exact sampler, log-density and score; `toy(name)` makes one.

    `classes` names the components where they are labels (otherwise empty), `modes` [M, 2] holds the centres of a Gaussian
    mixture and `mode_std` their standard deviation (otherwise None); all but about a millionth of the mass lies in the
    square [−`extent`, `extent`]². As `Data`, `batch` draws fresh points.
    """

    shape = (2,)

    def __init__(self, name: str, law: _Law):
        self.name = name
        self.classes = law.classes
        self.extent = law.extent
        self.modes = law.modes
        self.mode_std = law.mode_std
        self._law = law

    def __repr__(self) -> str:
        return f"toy({self.name!r})"

    def sample(self, n: int, *, generator: Generator = None) -> Tensor:
        """`n` independent exact draws [n, 2], float32, on the generator's device."""
        return self._draw(n, generator)[0]

    def log_prob(self, x: Tensor) -> Tensor:
        """The normalised log-density in nats [n] of points `x` [n, 2], in the type of `x`; differentiable by `x`."""
        return torch.cat([self._law.log_density(part.to(_precision(x))) for part in _parts(x)]).to(x.dtype)

    def energy(self, x: Tensor) -> Tensor:
        """−log p(x) in nats [n]: the toy as an energy, for samplers and for comparison."""
        return -self.log_prob(x)

    def score(self, x: Tensor) -> Tensor:
        """∇ₓ log p(x), [n, 2], for points `x` [n, 2]; detached."""
        return torch.cat([score_of(self.energy, part) for part in _parts(x)])

    def batch(self, start: int, count: int, seed: int) -> Batch:
        """`count` draws that (seed, start) fixes, with the component as label where the toy has classes."""
        x, component = self._draw(count, seeded(seed, start))
        return Batch(x, component if self.classes else None)

    def _draw(self, n: int, generator: Generator) -> tuple[Tensor, Tensor]:
        if n < 1:
            raise InputError(f"a sample needs at least one point, got n={n}")
        first = generator[0] if isinstance(generator, tuple) else generator
        x, component = self._law.draw(n, generator, torch.device("cpu") if first is None else first.device)
        return x.float(), component


def toy(name: str) -> Toy:
    """The toy called `name`, one of `TOYS`. Raises InputError for another name."""
    if name not in _LAWS:
        raise InputError(f"unknown toy '{name}'{nearest(name, TOYS)}; the toys are {', '.join(TOYS)}")
    return Toy(name, _LAWS[name]())


def _parts(x: Tensor) -> tuple[Tensor, ...]:
    if x.dim() != 2 or x.shape[1] != 2 or not x.is_floating_point():
        raise InputError(f"a toy takes floating-point points of shape [n, 2], got {list(x.shape)} of {x.dtype}")
    return x.split(_ROWS)


def _precision(x: Tensor) -> torch.dtype:
    return torch.float32 if x.device.type == "mps" else torch.float64  # Apple's GPUs have no float64


def _mixture(means: Tensor, log_weights: Tensor, std: float) -> Callable[[Tensor], Tensor]:
    """log Σ wᵢ N(x; meanᵢ, std²): for Gaussians as they are, and for quadrature nodes along a curve."""
    offsets = log_weights - means.square().sum(1) / (2 * std**2)

    def log_density(x: Tensor) -> Tensor:
        # |x|² is the same for every mean, so that one matrix product gives all exponents
        exponents = torch.addmm(offsets.to(x), x, means.T.to(x) / std**2)
        return torch.logsumexp(exponents, 1) - x.square().sum(1) / (2 * std**2) - math.log(2 * math.pi * std**2)

    return log_density


def _points(means: Tensor, std: float, classes: tuple[str, ...] = (), weights: tuple[float, ...] = ()) -> _Law:
    """Equal Gaussians round `means` [M, 2], equally likely unless there are `weights`."""
    count = len(means)

    def draw(n: int, generator: Generator, device: torch.device) -> tuple[Tensor, Tensor]:
        if weights:
            bounds = torch.tensor(weights[:-1], device=device).cumsum(0)
            component = torch.bucketize(uniform(n, generator=generator, device=device), bounds, right=True)
        else:
            component = integers(n, 0, count, generator, device)
        return means.to(device)[component] + std * normal(n, 2, generator=generator, device=device), component

    log_weights = torch.tensor(weights or (1 / count,) * count, dtype=torch.float64).log()
    log_density = _mixture(means, log_weights, std)
    extent = means.abs().max().item() + 5.5 * std
    return _Law(log_density, draw, extent, classes, modes=means.float(), mode_std=std)


def _quadrature(panels: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights on [0, 1]: 16-point Gauss–Legendre on equal panels, the outer two graded towards the ends.

    Seen from beyond an end of a curve, the integrand falls off within a small part of a std from that end.
    """
    near = [0.0] + [4.0**-k / panels for k in range(3, 0, -1)]
    edges = torch.tensor(near + [k / panels for k in range(1, panels)] + [1 - edge for edge in reversed(near)], dtype=torch.float64)
    node, weight = (torch.from_numpy(part) for part in numpy.polynomial.legendre.leggauss(16))
    width = edges.diff()[:, None]
    return (edges[:-1, None] + width * (node + 1) / 2).flatten(), (width * weight / 2).flatten()


Path = Callable[[Tensor], Tensor]


def _draw_along(paths: list[Path], std: float):
    """Draws path(u) + std·normal with u uniform on [0, 1] and the path chosen evenly."""

    def draw(n: int, generator: Generator, device: torch.device) -> tuple[Tensor, Tensor]:
        component = integers(n, 0, len(paths), generator, device)
        place = uniform(n, generator=generator, device=device)
        centre = torch.stack([path(place) for path in paths])[component, torch.arange(n, device=device)]
        return centre + std * normal(n, 2, generator=generator, device=device), component

    return draw


def _curves(paths: list[Path], std: float, panels: int, extent: float, classes: tuple[str, ...] = ()) -> _Law:
    node, weight = _quadrature(panels)
    means, log_weights = torch.cat([path(node) for path in paths]), torch.log(weight / len(paths)).repeat(len(paths))
    return _Law(_mixture(means, log_weights, std), _draw_along(paths, std), extent, classes)


def _polar(radius: Tensor | float, angle: Tensor) -> Tensor:
    return torch.stack([radius * torch.cos(angle), radius * torch.sin(angle)], -1)


def _gaussian() -> _Law:
    return _points(torch.zeros(1, 2, dtype=torch.float64), 1.0)


def _two_gaussians() -> _Law:
    means = torch.tensor([[-3.2, 0.0], [3.2, 0.0]], dtype=torch.float64)
    return _points(means, 0.4, ("left", "right"), weights=(0.8, 0.2))


def _eight_gaussians() -> _Law:
    angle = torch.arange(8, dtype=torch.float64) * math.pi / 4
    return _points(_polar(2.0, angle), 0.15, tuple(f"{45 * k}°" for k in range(8)))


def _twenty_five_gaussians() -> _Law:
    line = torch.arange(-2.0, 3.0, dtype=torch.float64)
    means = torch.cartesian_prod(line, line)
    return _points(means, 0.05, tuple(f"({x:.0f}, {y:.0f})" for x, y in means.tolist()))


def _rings() -> _Law:
    radii, std = (0.75, 1.5, 2.25, 3.0), 0.08

    def log_density(x: Tensor) -> Tensor:
        # a circle of radius R convolved with a Gaussian: exp(−(r² + R²)/2σ²) I₀(rR/σ²) / 2πσ²
        distance = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        radius = torch.tensor(radii, dtype=x.dtype, device=x.device)
        logs = torch.log(torch.special.i0e(distance * radius / std**2)) - (distance - radius).square() / (2 * std**2)
        return torch.logsumexp(logs, 1) - math.log(len(radii) * 2 * math.pi * std**2)

    paths = [lambda place, radius=radius: _polar(radius, 2 * math.pi * place) for radius in radii]
    return _Law(log_density, _draw_along(paths, std), 3.5, tuple(f"radius {radius}" for radius in radii))


def _moons() -> _Law:
    def upper(place: Tensor) -> Tensor:
        return _polar(2.0, math.pi * place) - place.new_tensor([1.0, 0.5])

    return _curves([upper, lambda place: -upper(place)], 0.2, 6, 4.1, ("upper", "lower"))


def _swissroll() -> _Law:
    def path(place: Tensor) -> Tensor:
        angle = 1.5 * math.pi * (1 + 2 * place)
        return _polar(angle / 5, angle)

    return _curves([path], 0.15, 21, 3.7)


def _spiral() -> _Law:
    def arm(place: Tensor) -> Tensor:
        angle = 3 * math.pi * torch.sqrt(place)
        return _polar(angle / 3, math.pi - angle)

    return _curves([arm, lambda place: -arm(place)], 0.15, 13, 4.0)


def _pinwheel() -> _Law:
    arms, stds, scale = 5, (0.3, 0.1), 1.5

    def turned(x: Tensor, arm: Tensor, sign: int) -> Tensor:
        # the angle depends on the radius alone, which the turn keeps: the map is inverted by turning back, and keeps areas
        radius = torch.linalg.vector_norm(x, dim=-1)
        angle = sign * (0.25 * torch.exp(radius.clamp(max=3.0)) + 2 * math.pi / arms * arm)
        cosine, sine = torch.cos(angle), torch.sin(angle)
        return torch.stack([cosine * x[..., 0] - sine * x[..., 1], sine * x[..., 0] + cosine * x[..., 1]], -1)

    def log_density(x: Tensor) -> Tensor:
        flat = turned(x[:, None] / scale, torch.arange(arms, device=x.device), -1)
        squares = ((flat[..., 0] - 1) / stds[0]).square() + (flat[..., 1] / stds[1]).square()
        return torch.logsumexp(-squares / 2, 1) - math.log(arms * 2 * math.pi * stds[0] * stds[1] * scale**2)

    def draw(n: int, generator: Generator, device: torch.device) -> tuple[Tensor, Tensor]:
        arm = integers(n, 0, arms, generator, device)
        unit = normal(n, 2, generator=generator, device=device)
        return scale * turned(unit * unit.new_tensor(stds) + unit.new_tensor([1.0, 0.0]), arm, 1), arm

    return _Law(log_density, draw, 4.0, tuple(f"blade {arm}" for arm in range(arms)))


def _checkerboard() -> _Law:
    std = 0.05
    squares = torch.tensor([(column, row) for column in range(-2, 2) for row in range(-2, 2) if (column + row) % 2 == 0])

    def log_density(x: Tensor) -> Tensor:
        # one unit interval convolved with a Gaussian, mirrored into the lower tail where the difference keeps its digits
        corner = squares.to(x)
        centre = (x[:, None] - corner - 0.5).abs()
        near, far = torch.special.log_ndtr((0.5 - centre) / std), torch.special.log_ndtr((-0.5 - centre) / std)
        interval = near + torch.log1p(-torch.exp(far - near))
        return torch.logsumexp(interval.sum(-1), 1) - math.log(len(squares))

    def draw(n: int, generator: Generator, device: torch.device) -> tuple[Tensor, Tensor]:
        square = integers(n, 0, len(squares), generator, device)
        inside = squares.to(device)[square] + uniform(n, 2, generator=generator, device=device)
        return inside + std * normal(n, 2, generator=generator, device=device), square

    return _Law(log_density, draw, 2.3)


_LAWS: dict[str, Callable[[], _Law]] = {
    "gaussian": _gaussian,
    "2gaussians": _two_gaussians,
    "8gaussians": _eight_gaussians,
    "25gaussians": _twenty_five_gaussians,
    "rings": _rings,
    "moons": _moons,
    "swissroll": _swissroll,
    "spiral": _spiral,
    "pinwheel": _pinwheel,
    "checkerboard": _checkerboard,
}
TOYS = tuple(_LAWS)
