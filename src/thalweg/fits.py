"""Whether a model can be trained on data: what is asked before a run begins."""

from thalweg.data.base import Data
from thalweg.errors import InputError
from thalweg.methods.base import Method, has


def check_fit(method: Method, data: Data, batch: int, shards: int) -> None:
    """Raises InputError unless a method can learn from data, in batches of `batch` over `shards` processes or parts of a batch."""
    shape, classes = tuple(method.config.shape), method.config.classes
    if tuple(data.shape) != shape:
        raise InputError(f"{method.name} is built for examples of shape {shape}, but {data.name} has {tuple(data.shape)}")
    if classes and not 0 < len(data.classes) <= classes:
        raise InputError(f"{method.name} is built for {classes} classes, but {data.name} has {len(data.classes)}")
    if not any(p.requires_grad for p in method.parameters()):
        raise InputError(
            f"no weight of this {method.name} can learn: what fit and load return is for use. Train a run further by its folder, or "
            f"call requires_grad_() on the model first"
        )
    concepts = getattr(data, "concepts", {})
    learns_labels = has(method, "labels") or has(method, "classify")
    # concepts are composed through p(x), which is trained as well as p(x | label) by dropping labels
    if concepts and learns_labels and not has(method, "concepts"):
        raise InputError(f"{method.name} takes one label an image, but {data.name} has several concepts: {', '.join(concepts)}")
    for name in method.sharded:
        rows = len(method.get_buffer(name))
        if rows < batch or rows % shards:
            raise InputError(
                f"{method.name}: {rows} {name.rpartition('.')[2]} are too few for a batch of {batch}, "
                f"or do not divide over {shards} processes"
            )


def shares(begun: int, processes: int, accumulate: int, asked: int | None, run: str) -> int:
    """In how many shares a run goes on to draw noise that has `begun` with so many; InputError where these processes cannot.

    Processes × accumulate must be as many, or one process takes the whole batch. `asked`: the shares that were asked for, if any.
    """
    now = asked or processes * accumulate
    if begun == now or (asked is None and now == 1):
        return begun
    several = "1 process" if processes == 1 else f"{processes} processes"
    parts = f" with --accumulate {accumulate}" * (accumulate > 1)
    trouble = f"the run in {run} draws noise in {begun} share{'s' * (begun > 1)}, and {several}{parts} would draw in {now}; it goes on with"
    if begun == 1:
        raise InputError(f"{trouble} one process, without --accumulate")
    if begun % processes:
        raise InputError(f"{trouble} {begun} processes, or with fewer, of a number that {begun} divides by, and --accumulate")
    fewer = f"{several} and --accumulate {begun // processes}, or " * (begun > processes)
    raise InputError(f"{trouble} {fewer}{begun} processes")
