"""Random draws whose rows do not depend on how a batch is spread over processes.

A `Generator` here is one `torch.Generator`, or a tuple of them, one for each equal share of the rows. Rank r of n
draws its share from generator (seed, r, images); one process that is given all n generators draws the same rows, so
that a data-parallel run and its single-process twin see the same noise.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Generator = torch.Generator | tuple[torch.Generator, ...] | None


def seeded(*key: int, device: str | torch.device = "cpu") -> torch.Generator:
    """A generator whose stream is set by the integers `key`, for example (seed, rank, images seen)."""
    mixed = 0x9E3779B97F4A7C15
    for part in key:  # splitmix64, so that neighbouring keys give unrelated streams
        mixed = (mixed + (int(part) & (2**64 - 1)) + 0x9E3779B97F4A7C15) % 2**64
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) % 2**64
        mixed ^= mixed >> 31
    return torch.Generator(device=device).manual_seed(mixed >> 1)


def _by_share(draw, rows: int, generator: Generator) -> Tensor:
    if not isinstance(generator, tuple):
        return draw(rows, generator)
    if rows % len(generator):
        raise ValueError(f"{rows} rows do not divide over {len(generator)} generators")
    share = rows // len(generator)
    return draw(share, generator[0]) if len(generator) == 1 else torch.cat([draw(share, g) for g in generator])


def normal(rows: int, *shape: int, generator: Generator = None, device=None, dtype=None) -> Tensor:
    """Standard normal draws [rows, *shape]."""
    return _by_share(lambda n, g: torch.randn(n, *shape, generator=g, device=device, dtype=dtype), rows, generator)


def uniform(rows: int, *shape: int, low: float = 0.0, high: float = 1.0, generator: Generator = None, device=None, dtype=None) -> Tensor:
    """Uniform draws in [low, high), [rows, *shape]."""
    unit = _by_share(lambda n, g: torch.rand(n, *shape, generator=g, device=device, dtype=dtype), rows, generator)
    return unit.mul_(high - low).add_(low)


def integers(rows: int, low: int, high: int, generator: Generator = None, device=None) -> Tensor:
    """Uniform integers in {low, ..., high − 1}, [rows]."""
    return _by_share(lambda n, g: torch.randint(low, high, (n,), generator=g, device=device), rows, generator)


def of_samples(n: int, seed: int, chain_seed: int, shared: str, device: str | torch.device) -> tuple[Generator, Generator, Generator]:
    """Generators of where n samples start, of the proposals and of the chains from there.

    What all rows share, `shared` "proposals" or "all", has a generator for each row, all of one seed; "nothing" has one for all rows.
    """
    first, chains = seeded(seed, 4, device=device), seeded(chain_seed, 5, device=device)
    if shared == "nothing":
        return first, first, chains
    proposals = tuple(seeded(seed, 6, device=device) for _ in range(n))
    same = tuple(seeded(chain_seed, 5, device=device) for _ in range(n))
    return first, proposals, same if shared == "all" else chains


def rows(count: int, of: int, *, generator: Generator = None, device=None) -> Tensor:
    """`count` different rows of a table of `of`, in random order, [count] int64; each generator draws from its own share."""
    shares = len(generator) if isinstance(generator, tuple) else 1
    if count > of or of % shares or count % shares:
        raise ValueError(f"cannot draw {count} of {of} rows for {shares} generators")
    each = generator if isinstance(generator, tuple) else (generator,)
    part = of // shares
    drawn = [torch.randperm(part, generator=g, device=device)[: count // shares] + i * part for i, g in enumerate(each)]
    return torch.cat(drawn)


def normal_like(x: Tensor, generator: Generator = None) -> Tensor:
    """Standard normal draws in the shape, memory format, device and type of `x`.

    Images in channels-last are drawn in that order and viewed as [B, C, H, W]: filling a strided tensor is ten times slower.
    """
    if x.dim() == 4 and x.shape[1] > 1 and x.is_contiguous(memory_format=torch.channels_last):
        rows, channels, height, width = x.shape
        flat = normal(rows, height, width, channels, generator=generator, device=x.device, dtype=x.dtype)
        return flat.permute(0, 3, 1, 2)
    return normal(*x.shape, generator=generator, device=x.device, dtype=x.dtype)


def each_share(work: Callable[..., Tensor], *rows: Tensor, generator: Generator = None) -> Tensor:
    """`work(*rows, generator)` -> [B, ...] for the rows [B, ...] of each share with its own generator, joined.

    For work whose count of draws depends on what it has drawn before, so that joined rows would not divide over the generators.
    """
    each = generator if isinstance(generator, tuple) else (generator,)
    if len(each) == 1:
        return work(*rows, generator)
    if len(rows[0]) % len(each):
        raise ValueError(f"{len(rows[0])} rows do not divide over {len(each)} generators")
    return torch.cat([work(*parts, one) for *parts, one in zip(*(part.chunk(len(each)) for part in rows), each)])
