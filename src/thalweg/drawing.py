"""Many samples: so few at a time that memory is bounded, shared among the processes of torchrun, with word of how long it takes."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thalweg import random
from thalweg.data.shards import Shards, Unwritten
from thalweg.distributed import World
from thalweg.errors import InputError
from thalweg.progress import Work

NUMBERS = 2**17  # in the samples of one part: what networks keep of them is some hundred times as much
ON_A_GPU = 16  # so many times as much is drawn at once there


def draw(
    model: Any, n: int, *, seed: int = 0, at_once: int | None = None, shown: bool = False, kept: Path | None = None, **options: Any
) -> Tensor:
    """`n` samples of a model, on the CPU: [n, ...], as `sample` gives them, drawn in parts.

    `at_once` samples are a part, by default as many as have about 130,000 numbers. The first part is `sample(…, seed=seed)`, the others
    have seeds of their own, so that n, seed and `at_once` set the samples, however many processes share the parts; each returns all, and
    all must call. Parts know nothing of each other: of a model that draws from kept chains, two may begin at the same one. `options` go
    to `sample`; tensors of `n` rows, such as labels and starts, are cut alike. With a folder `kept` each part is written there when it is
    drawn, float32, and not drawn again by a later call with the same weights and arguments; the tensor then lies in a file there and takes
    no memory of its own. With `shown` a line on standard error says what is done and how long it will be, as soon as it takes more than
    seconds. Raises InputError for n or at_once below 1, and where a part cannot be written.
    """
    if n < 1 or (at_once is not None and at_once < 1):
        raise InputError(f"samples are drawn one at least, and one at once at least, got n = {n} and at_once = {at_once}")
    if at_once is None:
        at_once = max(1, NUMBERS * (ON_A_GPU if model.device.type == "cuda" else 1) // max(1, int(torch.Size(model.config.shape).numel())))
    world = World.current()
    begins, parts = range(0, n, at_once), []
    stored = (
        None if kept is None else Shards(kept / _known_by(model, n, seed, at_once, options), n, tuple(model.config.shape), rows=at_once)
    )
    trouble: list[Any] = []
    with Work(f"{n:,} samples", shown=shown and world.first) as work:
        for number, begin in enumerate(begins):
            if number % world.size == world.rank and not trouble and (stored is None or not stored.is_whole(number)):
                few = slice(begin, min(n, begin + at_once))
                asked = {key: x[few] if isinstance(x, Tensor) and x.shape[:1] == (n,) else x for key, x in options.items()}
                part = model.sample(few.stop - few.start, seed=part_seed(seed, number), **asked).cpu()
                try:
                    parts.append(part) if stored is None else stored.write(number, part)
                except InputError as error:
                    trouble.append(str(error))
            work.note((number + 1) / len(begins))
    if stored is None:
        return torch.cat(world.in_turn(parts))
    if told := world.in_turn(trouble):
        raise Unwritten(told[0])
    found = stored.open().mapped()
    world.any(False)  # all have it open, before anybody clears the folder
    return found


def _known_by(model: Any, n: int, seed: int, at_once: int, options: dict[str, Any]) -> str:
    """The name of samples: 16 hexadecimal digits of the model's weights and of what was asked for."""
    digest = hashlib.sha256(f"{model.name} {n} {seed} {at_once} {model.device.type}".encode())
    for name, value in [*sorted(model.state_dict().items()), *sorted(options.items())]:
        digest.update(f"{name} ".encode())
        whole = isinstance(value, Tensor)
        digest.update(value.detach().cpu().double().numpy().tobytes() if whole else repr(value).encode())
    return f"samples-{digest.hexdigest()[:16]}"


def part_seed(seed: int, number: int) -> int:
    """The seed of a part: the first has the one that was asked for."""
    return seed if number == 0 else random.seeded(seed, 31, number).initial_seed() % 2**31
