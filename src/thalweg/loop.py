"""One training run: the loop over its steps, the state that a checkpoint holds, and the way back after a divergence.

The run counts images, not iterations, and reseeds every step from (seed, rank, images), so that a run that was killed and started again is
bit-equal to one that was not.
"""

import contextlib
import copy
import json
import math
import signal
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from thalweg import calls, checkpoint, random, told
from thalweg.data.base import Batch, Data
from thalweg.data.record import record
from thalweg.distributed import World
from thalweg.errors import Diverged, InputError
from thalweg.fits import check_fit, shares
from thalweg.guard import Guard
from thalweg.methods.base import Method, has
from thalweg.nn.recompute import recompute_blocks
from thalweg.parts import step_in_parts
from thalweg.precision import autocast
from thalweg.progress import Progress
from thalweg.stopping import Stopped, Watch, locked
from thalweg.updates import SharedDivergence, Update


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `fit` was asked for, its defaults filled in; every count is of images."""

    images: int
    seconds: float | None
    batch: int
    seed: int
    device: str | torch.device
    precision: str
    held_out: Batch | None
    compared: Batch | None  # in place of `held_out` where only energies are kept, and no best state is looked for
    clip: float
    ema_decay: float
    log_every: int
    sample_every: int
    save_every: int
    shards: int | None
    accumulate: int
    checkpointing: bool
    tries: int
    picture: Callable[[Method, Path, int], None] | None
    progress: bool
    tensorboard: bool
    clock: Callable[[], float]


def _set_buffer(module: nn.Module, name: str, value: Tensor) -> None:
    home, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(home), leaf, value)


class Run:
    """One call of `fit`: the state that a checkpoint holds, and the loop over it."""

    def __init__(self, method: Method, data: Data, out: Path | None, options: Options) -> None:
        self.options = options
        self.world = World.current()
        several = self.world.size * options.accumulate
        self.shards = options.shards or several
        if several > 1 and self.shards != several:
            raise InputError(f"{several} processes or parts of a batch draw noise in {several} shares, not in shards = {self.shards}")
        if options.batch % self.shards:
            raise InputError(f"a batch of {options.batch} does not divide over {self.shards} processes or parts of it")
        self.device = torch.device(self.world.device(options.device))
        check_fit(method, data, options.batch, self.shards)
        self.method, self.data, self.out = method.to(self.device), data, out
        self.method.trained_on = record(data)
        if options.precision == "bf16":  # the layout in which bf16 convolutions are fast
            self.method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub leaves this form out
        self.guard = Guard(tries=options.tries, dimensions=math.prod(self.method.config.shape))
        self.ema = copy.deepcopy(self.method).requires_grad_(False).eval()
        self.ema.trained_on = self.method.trained_on
        for name in self.method.sharded:
            _set_buffer(self.method, name, self.world.part(self.method.get_buffer(name)).clone())
        self.update = Update(
            self.method, self.ema, self.world, clip=options.clip, ema_decay=options.ema_decay, guard=self.guard, seed=options.seed
        )
        if options.checkpointing and not recompute_blocks(self.method):
            raise InputError(f"{method.name}: checkpointing is of networks that are lists of blocks, such as a unet; this one has none")
        self.best = math.inf
        self.elapsed = 0.0
        self.saved = -1  # images of the newest state
        self.call: dict[str, Any] | None = None  # what is to be noted of this call
        self.started = 0.0  # on the clock, less what was spent before a resume
        self.kept: deque[dict[str, Any]] = deque(maxlen=checkpoint.KEEP)  # states of a run without a folder
        self.writer: Any = None

    # --- state

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on, the same on every rank; every rank must call it."""
        self.sync_buffers()
        same = dict(self.ema.named_buffers())  # one tensor in both, so that a file holds chains once
        return {
            "images": self.update.images,
            "updates": self.update.updates,
            "elapsed": self.elapsed,
            "best": self.best,
            "seed": self.options.seed,
            "shards": self.shards,
            "method": self.method.state_dict() | {name: same[name] for name in self.method.state_dict() if name in same},
            "ema": self.ema.state_dict(),
            "optimizers": {name: o.state_dict() for name, o in self.update.optimizers.items()},
            "guard": self.guard.state(),
            "held_out": self.world.on_first(self.held_out_energies),
        }

    def held_out_energies(self) -> Tensor | None:
        """What the twin says of the held-out examples, [N] nats: what energies of other examples are compared with."""
        held_out = self.options.compared if self.options.held_out is None else self.options.held_out
        if held_out is None or not has(self.ema, "energy"):
            return None
        ema: Any = self.ema
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            return torch.cat([ema.energy(part.to(self.device)).float().cpu() for part in held_out.x.split(256)])

    def load(self, state: dict[str, Any]) -> None:
        if state["seed"] != self.options.seed:
            raise InputError(
                f"the run in {self.out} was started with seed {state['seed']}, not {self.options.seed}; give that seed or another folder"
            )
        self.shards = shares(state.get("shards", 1), self.world.size, self.options.accumulate, self.options.shards, str(self.out))
        parts = {name: self.world.part(state["method"][name]) for name in self.method.sharded}
        self.method.load_state_dict(state["method"] | parts)
        self.ema.load_state_dict(state["ema"])
        for name, optimizer in self.update.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.update.images, self.update.updates = state["images"], state["updates"]
        self.elapsed, self.best = state["elapsed"], state["best"]
        self.guard.load(state["guard"])

    def sync_buffers(self) -> None:
        """Copy the method's buffers (norms, spectral vectors, chains) to the twin before the twin is used; every rank must call it."""
        for (name, fast), slow in zip(self.method.named_buffers(), self.ema.buffers()):
            slow.copy_(self.world.whole(fast) if name in self.method.sharded else fast)

    def save(self) -> None:
        """Keep the present state, on disk or (a run without a folder) in memory."""
        state, out = self.state(), self.out
        if out is None:
            self.kept.append(copy.deepcopy(state))
        else:
            self.world.on_first(lambda: checkpoint.save(out, state))
            if call := self.call:  # noted with the first state that is its own
                self.world.on_first(lambda: calls.note(out, call))
                self.call = None
        self.saved = self.update.images

    # --- the loop

    def go(self) -> Method:
        """Load the newest state if there is one, train to the end, and return the EMA twin. Stopped after a signal, with a state saved."""
        with contextlib.ExitStack() as held:
            if self.out is None or not self.resume(self.out, held):
                told.prepare(self.method, self.ema, self.data, self.options.seed, self.device)
                self.save()  # where the guard goes back to if the start diverges
            self.train()
        return self.ema

    def try_step(self) -> Method:
        """One step from new weights, of which no state is kept; returns the EMA twin."""
        told.prepare(self.method, self.ema, self.data, self.options.seed, self.device)
        self.train_on_a_batch()
        return self.ema

    def resume(self, out: Path, held: contextlib.ExitStack) -> bool:
        """Take the run's folder, for as long as `held` holds it, and the newest state that is in it; whether there is one."""

        def take() -> str:
            checkpoint.make_folder(out)
            held.enter_context(locked(out))
            return checkpoint.prepare(out, self.method, self.method.trained_on or {})

        said = self.world.on_first(take)
        if said and self.world.first:
            print(f"thalweg: {said}", file=sys.stderr)
        state = self.world.on_first(lambda: checkpoint.latest(out))
        if state is not None:
            self.load(state)
            self.saved = self.update.images
        self.world.on_first(lambda: checkpoint.trim_stats(out, self.update.images))
        about = dict(images=self.update.images, seed=self.options.seed, device=str(self.device), precision=self.options.precision)
        self.call = self.world.on_first(lambda: calls.this(**about, processes=self.world.size))
        return state is not None

    def train(self) -> None:
        options, out = self.options, self.out
        if options.tensorboard and out is not None and self.world.first:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(out / "tensorboard"))
        self.started = options.clock() - self.elapsed
        parameters, done = sum(p.numel() for p in self.method.parameters()), self.update.images
        title = f"{self.method.name} on {self.data.name}: {parameters:,} parameters, {options.images:,} images in batches of "
        title += f"{options.batch}" + (f"\ngoing on from {done:,}" if done else "")
        shown, pictures = options.progress and self.world.first, None if options.picture is None or out is None else options.sample_every
        # layers such as dropout draw from the global generator, which is the caller's again afterwards
        with (
            Progress(shown, title, options.images, options.seconds, begun=(done, self.elapsed), pictures=pictures) as bar,
            torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []),
            Watch(insist=self.world.size == 1) as watch,
        ):
            while self.update.images < options.images and not self.world.any(self.out_of_time() or bool(watch.number)):
                try:
                    self.one_step(bar)
                except Diverged as trouble:
                    self.go_back(trouble)
                self.elapsed = options.clock() - self.started
            self.finish(bar)
            if self.world.any(bool(watch.number)):
                raise Stopped(watch.number or signal.SIGINT)

    def out_of_time(self) -> bool:
        """Whether the seconds that the run may take are spent."""
        return self.options.seconds is not None and self.elapsed >= self.options.seconds

    def one_step(self, bar: Progress) -> None:
        self.train_on_a_batch()
        self.update.images += self.options.batch
        self.elapsed = self.options.clock() - self.started
        done = self.update.images >= self.options.images
        if self.due(self.options.log_every) or done:
            figures = self.update.figures()
            self.write_stats({"images": self.update.images, "seconds": round(self.elapsed, 3), **figures})
            bar.show(figures)
        bar.step(self.update.images, self.elapsed)
        if self.due(self.options.sample_every) or done:
            self.look()
        if self.due(self.options.save_every) or done:
            self.guard.passed(self.update.images)
            self.save()

    def train_on_a_batch(self) -> None:
        """`method.step`, such that a divergence on one rank is seen by all at their next update or at the step's end."""
        self.update.begin(self.shards)
        batch = self.world.take(self.data, self.update.images, self.options.batch, self.options.seed, self.device)
        self.method.train()
        try:
            with self.autocast():
                if self.options.accumulate > 1:
                    step_in_parts(self.method, batch, self.update, self.options.accumulate, self.autocast)
                else:
                    self.method.step(batch, self.update)
        except SharedDivergence:
            raise
        except Diverged:
            self.world.any(True)
            raise
        if self.world.any(False):
            raise SharedDivergence("another process found its chains or losses not finite")

    def autocast(self) -> torch.autocast:
        """bfloat16 where the run asked for it."""
        return autocast(self.options.precision, self.device)

    def due(self, every: int) -> bool:
        """Whether this step crossed a multiple of `every` images."""
        return self.update.images // every > (self.update.images - self.options.batch) // every

    def look(self) -> None:
        """A picture of samples and the held-out criterion, both of the EMA twin; the best state is kept."""
        self.sync_buffers()
        with self.autocast():  # chains for a look cost as much as those of training
            self.best = self.world.on_first(self._look)

    def _look(self) -> float:
        out, images, picture, held_out, best = self.out, self.update.images, self.options.picture, self.options.held_out, self.best
        if picture is not None and out is not None:
            path = out / "samples" / f"{images:012d}.png"
            with checkpoint.writing(path):
                path.parent.mkdir(exist_ok=True)
                picture(self.ema, path, images)
        if held_out is not None:
            value = self.ema.criterion(told.moved(held_out, self.device), random.seeded(self.options.seed, 7, device=self.device))
            self.write_stats({"images": images, "seconds": round(self.elapsed, 3), "criterion": value})
            if value < best:
                best = value
                if out is not None:
                    best_state = {"images": images, "criterion": value, "ema": self.ema.state_dict(), "held_out": self.held_out_energies()}
                    checkpoint.write(out / "best.pt", best_state)
        return best

    def go_back(self, trouble: Diverged) -> None:
        """Back to the last good state with a lower learning rate; raises the trouble again when the tries are used up."""
        event = self.guard.react(str(trouble), self.update.images)  # raises when there are no tries left
        kept = {"guard": self.guard.state(), "elapsed": self.elapsed, "best": self.best}  # best.pt stays, and so does the time
        out = self.out
        if out is None:
            for _ in range(min(self.guard.depth, len(self.kept) - 1)):
                self.kept.pop()
            self.load(copy.deepcopy(self.kept.pop()) | kept)
        else:
            self.load(self.world.on_first(lambda: checkpoint.latest(out, skip=self.guard.depth)) | kept)
            self.world.on_first(lambda: checkpoint.drop_after(out, self.update.images))
            self.world.on_first(lambda: checkpoint.trim_stats(out, self.update.images))
        self.write_stats({"images": self.update.images, "event": f"{event}; back to {self.update.images} images"})
        self.save()  # so that a run that is killed now goes on with the lower rate

    def write_stats(self, row: dict[str, Any]) -> None:
        if not self.world.first:
            return
        if self.out is not None:
            path = self.out / "stats.jsonl"
            with checkpoint.writing(path), open(path, "a") as file:
                file.write(json.dumps(row) + "\n")
        if self.writer is not None:
            for key, value in row.items():
                if isinstance(value, float) and key != "seconds":
                    self.writer.add_scalar(key, value, row["images"])

    def finish(self, bar: Progress) -> None:
        self.sync_buffers()
        ended = self.update.images >= self.options.images or self.world.any(self.out_of_time())
        concluded = ended and told.conclude(self.method, self.ema, self.data, self.options.seed, self.device, bar.conclude)
        if concluded or self.saved != self.update.images:
            self.save()
        for name in self.method.sharded:
            _set_buffer(self.method, name, self.ema.get_buffer(name).clone())
        if self.writer is not None:
            self.writer.close()
