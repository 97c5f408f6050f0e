"""The one training loop. The method owns the order of its updates; here is the plumbing they share.

`fit` draws batches, calls `method.step(batch, update)`, logs, saves pictures and checkpoints, watches for divergence and
resumes. It counts images, not iterations, and reseeds every step from (seed, rank, images), so that a run that was killed
and started again is bit-equal to one that was not.
"""

import copy
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from thalweg import checkpoint, random
from thalweg.data.base import Batch, Data
from thalweg.distributed import World
from thalweg.errors import Diverged, InputError
from thalweg.guard import Guard
from thalweg.methods.base import Method
from thalweg.progress import Progress


class SharedDivergence(Diverged):
    """A divergence that every rank has seen at the same place."""


class Update:
    """The verb between a method and the loop: `update(name, loss)` takes one optimizer step.

    Also carries the step's `generator`, the count of `images` seen, the `ema` twin, and `log(name=value)`.
    """

    def __init__(self, method: Method, ema: Method, world: World, *, clip: float, ema_decay: float, guard: Guard) -> None:
        self.method, self.ema, self.world = method, ema, world
        self.clip, self.ema_decay, self.guard = clip, ema_decay, guard
        self.images = 0
        self.updates = 0
        self.generator: random.Generator = None
        self.logged: dict[str, Tensor | float] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.rebuild()

    def rebuild(self) -> None:
        """Make optimizers anew and match the EMA twin to the method; a method that has grown its networks calls this."""
        self.optimizers = self.method.optimizers()
        self.base_rates = {name: [group["lr"] for group in o.param_groups] for name, o in self.optimizers.items()}
        twins = dict(self.ema.named_parameters())
        pairs = {id(p): (twins[key], p) for key, p in self.method.named_parameters() if key in twins}
        self.parameters = {name: [p for group in o.param_groups for p in group["params"]] for name, o in self.optimizers.items()}
        self.twins = {name: [pairs[id(p)] for p in parameters if id(p) in pairs] for name, parameters in self.parameters.items()}

    def __call__(self, name: str, loss: Tensor) -> None:
        """Gradients of `loss` by the parameters of optimizer `name` alone, averaged over ranks; clip, step, EMA twin.

        Raises Diverged on a loss or gradient that is not finite, or a gradient norm far above what was usual.
        """
        if name not in self.optimizers:
            raise KeyError(f"{type(self.method).__name__}.optimizers() has no '{name}', only {list(self.optimizers)}")
        parameters, optimizer = self.parameters[name], self.optimizers[name]
        if self.world.any(False):
            raise SharedDivergence("another process found its chains or losses not finite")
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        gradients = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients)]
        loss, *gradients = self.world.mean([loss.detach(), *gradients])
        norm = torch.nn.utils.get_total_norm(gradients)
        loss_value, norm_value = torch.stack([loss.float(), norm.float()]).tolist()  # the update's one wait for the device
        try:
            self.guard.check(name, loss_value, norm_value)
        except Diverged as trouble:
            raise SharedDivergence(str(trouble)) from None
        if self.clip:
            torch._foreach_mul_(gradients, min(1.0, self.clip / (norm_value + 1e-6)))
        for parameter, gradient in zip(parameters, gradients):
            parameter.grad = gradient
        scale = self.guard.rate_scale * self.method.learning_rate(name, self.images)
        for group, rate in zip(optimizer.param_groups, self.base_rates[name]):
            group["lr"] = rate * scale
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        self.updates += 1
        self._follow(name)
        self.log(**{f"loss/{name}": loss_value, f"gradient_norm/{name}": norm_value})

    @torch.no_grad()
    def _follow(self, name: str) -> None:
        # a young average forgets faster, so that it does not hold the initial weights for 1/(1 − decay) steps
        decay = min(self.ema_decay, (1 + self.updates) / (10 + self.updates))
        if self.twins[name]:
            slow, fast = zip(*self.twins[name])
            torch._foreach_lerp_(list(slow), list(fast), 1 - decay)

    def log(self, **values: Tensor | float) -> None:
        """Keep figures of this step for stats.jsonl; tensors are reduced to their mean when they are written."""
        self.logged.update(values)

    def figures(self) -> dict[str, float]:
        """What was logged in the last step, as floats; checks the energies that the method asked to have watched."""
        means = [torch.as_tensor(v).detach().float().mean().reshape(1) for v in self.logged.values()]
        values = dict(zip(self.logged, (float(v) for v in self.world.mean(means))))
        self.guard.check_energies({k: v for k, v in values.items() if k in self.method.guarded})
        return values


def sync_buffers(ema: nn.Module, method: nn.Module) -> None:
    """Copy the method's buffers (norms, spectral vectors, chains) to the twin before the twin is used."""
    for slow, fast in zip(ema.buffers(), method.buffers()):
        slow.copy_(fast)


def fit(
    method: Method,
    data: Data,
    out: str | Path | None = None,
    *,
    images: int | None = None,
    seconds: float | None = None,
    batch: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    precision: str = "fp32",
    held_out: Batch | None = None,
    clip: float | None = None,
    ema_decay: float | None = None,
    log_every: int | None = None,
    sample_every: int | None = None,
    save_every: int | None = None,
    shards: int | None = None,
    tries: int = 5,
    picture: Callable[[Method, Path, int], None] | None = None,
    progress: bool = True,
    tensorboard: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> Method:
    """Train `method` on `data` for `images` images (the config's by default) or `seconds`, whichever ends first; returns the EMA twin.

    With a folder `out`, writes config.json, stats.jsonl, samples/, state-*.pt and best.pt there, and a second call with the
    same folder resumes. `batch`, `clip` and `ema_decay` come from the method's config unless given. `precision` "bf16" runs
    convolutions and matrix products in bfloat16 (autocast), weights and reductions in fp32. `held_out` is the batch that the
    best state is chosen by. `shards` > 1 draws noise as that many ranks would. Under torchrun each rank takes its share of
    every batch. Raises Diverged when the guard has gone back `tries` times in vain, InputError on a folder of another run.
    """
    config = method.config
    run = Run(
        method, data, None if out is None else Path(out),
        images=images or config.images, seconds=seconds, batch=batch or config.batch, seed=seed, device=device, precision=precision, held_out=held_out,
        clip=config.clip if clip is None else clip, ema_decay=config.ema if ema_decay is None else ema_decay,
        log_every=log_every, sample_every=sample_every, save_every=save_every, shards=shards, tries=tries,
        picture=picture, progress=progress, tensorboard=tensorboard, clock=clock,
    )  # fmt: skip
    return run.go()


class Run:
    """One call of `fit`: the state that a checkpoint holds, and the loop over it."""

    def __init__(self, method: Method, data: Data, out: Path | None, **options: Any) -> None:
        self.__dict__.update(options)
        self.world = World.current()
        self.shards = self.shards or self.world.size
        if self.batch % self.world.size or self.batch % self.shards:
            raise InputError(f"a batch of {self.batch} does not divide over {max(self.world.size, self.shards)} processes")
        self.device = torch.device(self.world.device(self.device))
        self.method, self.data, self.out = method.to(self.device), data, out
        per_run = max(self.batch, self.images // 20)
        self.log_every = self.log_every or max(self.batch, self.images // 500)
        self.sample_every = self.sample_every or per_run
        self.save_every = self.save_every or per_run
        self.guard = Guard(tries=self.tries)
        self.ema = copy.deepcopy(self.method).requires_grad_(False).eval()
        self.update = Update(self.method, self.ema, self.world, clip=self.clip, ema_decay=self.ema_decay, guard=self.guard)
        self.best = math.inf
        self.elapsed = 0.0
        self.writer = None

    # --- state

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        return {
            "images": self.update.images,
            "updates": self.update.updates,
            "elapsed": self.elapsed,
            "best": self.best,
            "seed": self.seed,
            "method": self.method.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizers": {name: o.state_dict() for name, o in self.update.optimizers.items()},
            "guard": self.guard.state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        if state["seed"] != self.seed:
            raise InputError(f"the run in {self.out} was started with seed {state['seed']}, not {self.seed}; give that seed or another folder")
        self.method.load_state_dict(state["method"])
        self.ema.load_state_dict(state["ema"])
        for name, optimizer in self.update.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.update.images, self.update.updates = state["images"], state["updates"]
        self.elapsed, self.best = state["elapsed"], state["best"]
        self.guard.load(state["guard"])

    # --- the loop

    def go(self) -> Method:
        if self.out is not None:
            checkpoint.prepare(self.out, self.method, self.world)
            state = checkpoint.latest(self.out, self.world, self.device)
            if state is not None:
                self.load(state)
            checkpoint.trim_stats(self.out, self.update.images, self.world)
            if state is None:
                checkpoint.save(self.out, self.state(), self.world)  # where the guard goes back to if the start diverges
        else:
            self.initial = copy.deepcopy(self.state())
        if self.tensorboard and self.out is not None and self.world.first:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(self.out / "tensorboard"))
        started = self.clock() - self.elapsed
        with Progress(self.progress and self.world.first, self.images, self.seconds) as bar:
            while self.update.images < self.images and not self.world.any(self.seconds is not None and self.elapsed >= self.seconds):
                try:
                    self.one_step(bar)
                except Diverged as trouble:
                    self.go_back(trouble)
                    started = self.clock() - self.elapsed
                self.elapsed = self.clock() - started
        self.finish()
        return self.ema

    def one_step(self, bar: Progress) -> None:
        update, start = self.update, self.update.images
        ranks = range(self.shards) if self.world.size == 1 else [self.world.rank]
        update.generator = tuple(random.seeded(self.seed, rank, start, device=self.device) for rank in ranks)
        batch = self.world.share(self.data.batch(start, self.batch, self.seed), self.device)
        self.method.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            self.one_method_step(batch)
        update.images += self.batch
        done = update.images >= self.images
        if self.due(self.log_every) or done:
            figures = update.figures()
            self.write_stats({"images": update.images, "seconds": round(self.elapsed, 3), **figures})
            bar.show(update.images, self.elapsed, figures)
        if self.due(self.sample_every) or done:
            self.look()
        if self.due(self.save_every) or done:
            self.guard.passed(update.images)
            if self.out is not None:
                checkpoint.save(self.out, self.state(), self.world)
            else:
                self.initial = copy.deepcopy(self.state())

    def one_method_step(self, batch: Batch) -> None:
        """`method.step`, such that a divergence on one rank is seen by all at their next update or at the step's end."""
        try:
            self.method.step(batch, self.update)
        except SharedDivergence:
            raise
        except Diverged:
            self.world.any(True)
            raise
        if self.world.any(False):
            raise SharedDivergence("another process found its chains or losses not finite")

    def due(self, every: int) -> bool:
        """Whether this step crossed a multiple of `every` images."""
        return self.update.images // every > (self.update.images - self.batch) // every

    def look(self) -> None:
        """A picture of samples and the held-out criterion, both of the EMA twin; the best state is kept."""
        sync_buffers(self.ema, self.method)
        if not self.world.first:
            return
        if self.picture is not None and self.out is not None:
            (self.out / "samples").mkdir(exist_ok=True)
            self.picture(self.ema, self.out / "samples" / f"{self.update.images:012d}.png", self.update.images)
        if self.held_out is not None:
            held_out = Batch(*(None if part is None else part.to(self.device) for part in self.held_out))
            value = self.ema.criterion(held_out, random.seeded(self.seed, 7, device=self.device))
            self.write_stats({"images": self.update.images, "seconds": round(self.elapsed, 3), "criterion": value})
            if value < self.best:
                self.best = value
                if self.out is not None:
                    checkpoint.write(self.out / "best.pt", {"images": self.update.images, "criterion": value, "ema": self.ema.state_dict()})

    def go_back(self, trouble: Diverged) -> None:
        """Back to the last good state with a lower learning rate; raises the trouble again when the tries are used up."""
        event = self.guard.react(str(trouble), self.update.images)  # raises when there are no tries left
        kept = self.guard.state()
        state = self.initial if self.out is None else checkpoint.latest(self.out, self.world, self.device, skip=self.guard.depth)
        self.load(copy.deepcopy(state))
        self.guard.load(kept)
        if self.out is not None:
            checkpoint.drop_after(self.out, self.update.images, self.world)
            checkpoint.trim_stats(self.out, self.update.images, self.world)
        self.write_stats({"images": self.update.images, "event": f"{event}; back to {self.update.images} images"})

    def write_stats(self, row: dict[str, Any]) -> None:
        if not self.world.first:
            return
        if self.out is not None:
            with open(self.out / "stats.jsonl", "a") as file:
                file.write(json.dumps(row) + "\n")
        if self.writer is not None:
            for key, value in row.items():
                if isinstance(value, float) and key != "seconds":
                    self.writer.add_scalar(key, value, row["images"])

    def finish(self) -> None:
        sync_buffers(self.ema, self.method)
        if self.out is not None:
            checkpoint.save(self.out, self.state(), self.world)
        if self.writer is not None:
            self.writer.close()
