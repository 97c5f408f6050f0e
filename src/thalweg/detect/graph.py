"""A detector as one graph of tensors: rows or pictures -> score, p-value and verdict, with all that Python does to them inside.

The energies are in float32, as in Python, of all members and levels at once; what is before and after is float64, since of a date in
seconds or a price of 10⁹ float32 keeps too few digits.
"""

import math
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thalweg.detect import scale, scores
from thalweg.detect.column import spread
from thalweg.detect.columns import Columns
from thalweg.detect.density import LEVELS, Blocks, Ensemble, log_z_at
from thalweg.detect.energies import PictureEnergies
from thalweg.detect.pictures import PIXELS, Along, Pictures, Pixels, network
from thalweg.detect.scores import Usual
from thalweg.errors import InputError


class Constants(nn.Module):
    """A module with the constants of a graph, `self.NAME`."""

    def keep(self, **tensors: Any) -> None:
        """Tensors, arrays or lists, by name."""
        for name, value in tensors.items():
            self.register_buffer(name, value.detach() if isinstance(value, Tensor) else torch.from_numpy(numpy.array(value)))

    def __getattr__(self, name: str) -> Any:  # for the types of its tensors
        return super().__getattr__(name)


class Graph(Constants):
    """Rows x [N, columns] float64 as `Columns.numbers` gives them -> score [N], p-value [N], both float64, and verdict [N] int64.

    Where there are `pictures`, x [N, C, H, W] float32 in [−1, 1] instead, and their numbers are the rows.
    The score is `score_samples` of rows that are not of the fit, the verdict 1 for outliers and 0 for others. `strangeness` [M] is that
    of the calibration rows; outliers are stranger than `threshold`.
    """

    def __init__(
        self,
        columns: Columns,
        ensemble: Ensemble | Blocks,
        usual: Usual,
        strangeness: numpy.ndarray,
        threshold: float,
        pictures: Pictures | None = None,
    ) -> None:
        super().__init__()
        self.look = nn.Identity() if pictures is None else Look(pictures)
        self.encode = Encode(columns)
        self.blocks, self.widths = nn.ModuleList(map(Energies, ensemble.blocks)), pictures.widths if pictures else [len(columns.outputs)]
        self.keep(centre=usual.centre, spread=usual.spread)
        self.rows, self.first = len(strangeness), 1 << len(strangeness).bit_length() >> 1
        self.keep(
            threshold=threshold, rising=numpy.pad(numpy.sort(strangeness), (0, 2 * self.first - self.rows), constant_values=numpy.inf)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows = self.encode(self.look(x)).float()
        parts = rows.split(self.widths, 1) if len(self.widths) > 1 else [rows]
        energies = torch.cat([block(part) for block, part in zip(self.blocks, parts)], 1)
        strangeness = scores.strangeness(energies, Usual(self.centre, self.spread))
        below, step = torch.zeros_like(strangeness, dtype=torch.int64), self.first
        while step:  # binary search: no runtime has a sorted search, and comparing with all of 10⁵ rows is slow
            below = below + step * (self.rising[below + (step - 1)] < strangeness)
            step //= 2
        p_value = (1 + self.rows - below).double() / (self.rows + 1)
        return -strangeness, p_value, (strangeness > self.threshold).long()


class Look(Constants):
    """`Pictures.encode`: pictures [N, C, H, W] float32 -> [N, D] float64."""

    def __init__(self, pictures: Pictures) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for part, along in pictures.along.items():
            if isinstance(along, PictureEnergies):
                raise InputError("a detector that looks at energies of pictures cannot be exported: they need gradients; fit one by pixels")
            parts.append(Pixels(pictures.shape, along) if part == PIXELS else Seen(network(part), pictures.shape, along))
        self.parts = nn.ModuleList(parts)
        self.keep(centre=pictures.centre, unit=pictures.unit)

    def forward(self, x: Tensor) -> Tensor:
        return compress((torch.cat([part(x) for part in self.parts], 1) - self.centre) / self.unit)


class Seen(Constants):
    """What a frozen network says of pictures [N, 1 or 3, H, W]: [N, K + 1]; bilinear resizing as products, which every runtime has."""

    def __init__(self, seen_by: Any, shape: tuple[int, ...], along: Along) -> None:
        super().__init__()
        self.network, self.along = seen_by, along
        self.keep(**{name: _resizing(side, seen_by.net.input_image_size) for name, side in (("down", shape[1]), ("across", shape[2]))})

    def forward(self, x: Tensor) -> Tensor:
        resized = self.down @ x @ self.across.T
        return self.along(self.network.of_size(resized.expand(-1, 3, -1, -1)))


def _resizing(side: int, to: int) -> Tensor:
    """What bilinear resizing with antialiasing makes of each pixel along a side: [to, side]."""
    return F.interpolate(torch.eye(side)[None, None], (to, side), mode="bilinear", antialias=True, align_corners=False)[0, 0]


class Encode(Constants):
    """`Columns.numbers` [N, columns] -> `Columns.encode` [N, D], float64. Infinities are encoded as 1e300 is."""

    def __init__(self, columns: Columns) -> None:
        super().__init__()
        which, place, centre, unit, missing, filled = columns.numeric
        some = missing > 0
        self.numbers, self.marks = len(which) > 0, bool(some.any())  # a file has no empty tensors
        places = [place, place[some] + 1]
        if self.numbers:
            self.keep(numeric=which, centre=centre, unit=unit, filled=filled)
        if self.marks:
            present, absent = (scale.compress((mark - missing[some]) / [*map(spread, missing[some])]) for mark in (0.0, 1.0))
            self.keep(marked=numpy.flatnonzero(some), present=present, absent=absent)
        found = [(i, column) for i, column in enumerate(columns.columns) if column.kind == "category"]
        self.categories = bool(found)
        if found:
            widest = max(column.codes.shape[1] for _, column in found)
            tables = [numpy.pad(column.codes, ((0, 0), (0, widest - column.codes.shape[1]))) for _, column in found]
            self.keep(
                categorical=[i for i, _ in found], known=[float(len(column.own) + column.rare) for _, column in found],
                unseen=[float(len(column.shares)) for _, column in found], missing=[float(column.places[None]) for _, column in found],
                first=numpy.cumsum([0, *map(len, tables)])[:-1], table=numpy.concatenate(tables),
            )  # fmt: skip
            wide, outputs = numpy.arange(widest), len(columns.outputs)  # places beyond the outputs for what is padded
            places += [numpy.where(wide < column.codes.shape[1], columns.starts[i] + wide, outputs) for i, column in found]
        self.keep(order=numpy.argsort(numpy.concatenate(places), kind="stable")[: len(columns.outputs)])

    def forward(self, x: Tensor) -> Tensor:
        parts = []
        if self.numbers:
            raw = x.index_select(1, self.numeric)
            gone = raw.isnan()
            parts.append(torch.where(gone, self.filled, compress((raw - self.centre) / self.unit)))
        if self.marks:
            parts.append(torch.where(gone.index_select(1, self.marked), self.absent, self.present))
        if self.categories:
            code = x.index_select(1, self.categorical)
            known = (code == code.floor()) & (code >= 0) & (code < self.known)
            row = torch.where(code.isnan(), self.missing, torch.where(known, code, self.unseen)).long()
            parts.append(self.table[row + self.first].flatten(1))
        return torch.cat(parts, 1).index_select(1, self.order)


def compress(z: Tensor) -> Tensor:
    """`scale.compress` of tensors, by operations that runtimes have for float64."""
    size = torch.minimum(z.abs(), torch.tensor(scale.LARGEST, dtype=z.dtype))
    far = (size - scale.KNEE).clamp(min=0)
    unit = far.clamp(min=1)  # the square of what is far would overflow
    arsinh = unit.log() + (far / unit + ((far / unit).square() + unit.reciprocal().square()).sqrt()).log()
    return torch.where(size > scale.KNEE, z.sign() * (scale.KNEE + arsinh), z)


class Energies(Constants):
    """`Ensemble.energies` of rows [N, D] float32: [N, levels + 1] float64, nats.

    The Gaussian of `nn.tilt` with the MLP of `nn.log_sigma`, tensors being [members, levels, N, ...], or 1 where all have the same: some
    fifty operations for a row, which would be thousands one member and level at a time. What depends on the level alone is a constant.
    """

    def __init__(self, ensemble: Ensemble) -> None:
        super().__init__()
        models = ensemble.models
        tilts, nets = [model.tilt for model in models], [model.net.net for model in models]

        def of_members(tensors: Any) -> Tensor:
            return torch.stack([*tensors])[:, None, None]

        log_sigma = torch.tensor([math.log(sigma) for sigma in LEVELS])
        sigma, noise = log_sigma.exp()[:, None, None], (2 * log_sigma).exp()[:, None, None]
        mean, std, variance = (of_members(getattr(tilt, name) for tilt in tilts) for name in ("mean", "std", "variance"))
        deviation = (std.square() + sigma.square()).sqrt()
        power = std.square().mean(-1)
        frequencies = 2.0 ** torch.arange(1, models[0].net.octaves + 1)
        share = (sigma / deviation)[..., None]
        self.keep(
            mean=mean, deviation=deviation, noisy=variance + noise, kept=variance / (variance + noise), frequencies=frequencies,
            log_det=(2 * math.pi * (variance + noise)).log().sum(-1),
            map_weight=std / (sigma.square() + (tilts[0].flatness * std).square()).sqrt(),
            number_weight=math.sqrt(std.shape[-1]) * power / (power + sigma[..., 0].square()),
            fade=2 / frequencies * torch.exp(-0.5 * (frequencies * share).square()),
            shift=torch.stack([net.level(log_sigma) for net in nets])[:, :, None],
            log_z=torch.tensor([[[log_z_at(model, sigma)] for sigma in LEVELS] for model in models], dtype=torch.float64),
        )  # fmt: skip
        self.full = tilts[0].full
        if self.full:
            self.keep(basis=torch.stack([tilt.basis for tilt in tilts])[:, None])
        layers = [*zip(*([net.first, *net.hidden, net.last] for net in nets))]
        self.last = len(layers) - 1
        for i, layer in enumerate(layers):
            self.keep(**{f"weight{i}": torch.stack([own.weight.T for own in layer])[:, None]})
            self.keep(**{f"bias{i}": of_members(own.bias for own in layer)})

    def forward(self, x: Tensor) -> Tensor:
        centred = x - self.mean
        u = centred / self.deviation
        along = centred @ self.basis if self.full else centred
        seen = [u]
        if self.full:
            seen.append(self.mean + (along * self.kept) @ self.basis.transpose(-1, -2))
        angle = u[..., None] * self.frequencies
        seen += [(self.fade * angle.sin()).flatten(-2), (self.fade * angle.cos()).flatten(-2)]
        h = torch.cat(seen, -1)
        for i in range(self.last + 1):
            h = h @ getattr(self, f"weight{i}") + getattr(self, f"bias{i}")
            h = F.silu(h + self.shift) if i < self.last else h
        gaussian = 0.5 * ((along.square() / self.noisy).sum(-1) + self.log_det)
        energy = gaussian + (self.map_weight * u * h[..., :-1]).sum(-1) - self.number_weight * h[..., -1]
        of_levels = (energy.double() + self.log_z).mean(0)
        return torch.cat([of_levels, gaussian.double().mean(0)[:1]]).T
