"""The one training loop. The method owns the order of its updates; here is the plumbing they share.

`fit` draws batches, calls `method.step(batch, update)`, logs, saves pictures and checkpoints, watches for divergence and
resumes. It counts images, not iterations, and reseeds every step from (seed, rank, images), so that a run that was killed
and started again is bit-equal to one that was not.
"""

import copy
import json
import math
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from thalweg import checkpoint, random
from thalweg.data.base import Batch, Data
from thalweg.distributed import World
from thalweg.errors import Diverged, InputError, nearest
from thalweg.guard import Guard
from thalweg.methods.base import Method
from thalweg.progress import Progress

PRECISIONS = ("fp32", "bf16")


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
        self._agree()
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        gradients = [_laid_out_as(p, g) for p, g in zip(parameters, gradients)]
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

    def mean(self, value: Tensor) -> Tensor:
        """`value` averaged over the ranks, for what a method adapts by its own rule; every rank must call it at the same place."""
        self._agree()
        return self.world.mean([value])[0]

    def _agree(self) -> None:
        if self.world.any(False):
            raise SharedDivergence("another process found its chains or losses not finite")

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
        device = next(self.method.parameters()).device
        means = [torch.as_tensor(v, device=device).detach().float().mean().reshape(1) for v in self.logged.values()]
        values = dict(zip(self.logged, (float(v) for v in self.world.mean(means))))
        self.guard.check_energies({k: v for k, v in values.items() if k in self.method.guarded})
        return values


def _set_buffer(module: nn.Module, name: str, value: Tensor) -> None:
    home, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(home), leaf, value)


def _above_zero(**values: float | None) -> None:
    for name, value in values.items():
        if value is not None and not value > 0:
            raise InputError(f"{name} must be above 0, got {value}")


def _laid_out_as(parameter: Tensor, gradient: Tensor | None) -> Tensor:
    """The gradient in the parameter's own strides, zero where there is none.

    `backward` sees to that by itself, `autograd.grad` does not, and a fused optimizer walks both memories side by side: it would
    give each weight of a convolution another weight's gradient, without a word.
    """
    if gradient is None:
        return torch.zeros_like(parameter)
    return gradient if gradient.stride() == parameter.stride() else torch.empty_like(parameter).copy_(gradient)


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
    every batch; the run can be resumed by as many ranks, or by one. Raises Diverged when the guard has gone back `tries` times
    in vain, InputError for options out of range, data that do not fit, and a folder of another run.
    """
    config = method.config
    _above_zero(images=images, seconds=seconds, batch=batch, shards=shards)
    _above_zero(log_every=log_every, sample_every=sample_every, save_every=save_every)
    if not 0 <= seed < 2**63:
        raise InputError(f"the seed must be between 0 and 2⁶³ − 1, got {seed}")
    if precision not in PRECISIONS:
        raise InputError(f"precision '{precision}' is not known{nearest(precision, PRECISIONS)}: fp32 or bf16")
    run = Run(
        method, data, None if out is None else Path(out),
        images=images or config.images, seconds=seconds, batch=batch or config.batch, seed=seed, device=device,
        precision=precision, held_out=held_out,
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
        self.shards_given, self.shards = self.shards is not None, self.shards or self.world.size
        if self.world.size > 1 and self.shards != self.world.size:
            raise InputError(f"{self.world.size} processes draw noise in {self.world.size} shares, not in shards = {self.shards}")
        if self.batch % self.shards:
            raise InputError(f"a batch of {self.batch} does not divide over {self.shards} processes")
        self.device = torch.device(self.world.device(self.device))
        self._check_fit(method, data)
        self.method, self.data, self.out = method.to(self.device), data, out
        if self.precision == "bf16":  # the layout in which bf16 convolutions are fast
            self.method.to(memory_format=torch.channels_last)
        per_run = max(self.batch, self.images // 20)
        self.log_every = self.log_every or max(self.batch, self.images // 500)
        self.sample_every = self.sample_every or per_run
        self.save_every = self.save_every or per_run
        self.guard = Guard(tries=self.tries)
        self.ema = copy.deepcopy(self.method).requires_grad_(False).eval()
        for name in self.method.sharded:
            _set_buffer(self.method, name, self.world.part(self.method.get_buffer(name)).clone())
        self.update = Update(self.method, self.ema, self.world, clip=self.clip, ema_decay=self.ema_decay, guard=self.guard)
        self.best = math.inf
        self.elapsed = 0.0
        self.kept: deque[dict[str, Any]] = deque(maxlen=checkpoint.KEEP)  # states of a run without a folder
        self.writer = None

    def _check_fit(self, method: Method, data: Data) -> None:
        shape, classes = getattr(method.config, "shape", None), getattr(method.config, "classes", 0)
        if shape is not None and tuple(data.shape) != tuple(shape):
            raise InputError(f"{method.name} is built for examples of shape {tuple(shape)}, but {data.name} has {tuple(data.shape)}")
        if classes and not 0 < len(data.classes) <= classes:
            raise InputError(f"{method.name} is built for {classes} classes, but {data.name} has {len(data.classes)}")
        if not any(p.requires_grad for p in method.parameters()):
            raise InputError(
                f"no weight of this {method.name} can learn: what fit and load return is for use. Train a run further by its folder, or "
                f"call requires_grad_() on the model first"
            )
        concepts = getattr(data, "concepts", {})
        labelled = classes and getattr(method.config, "conditional", hasattr(method, "classify"))
        # concepts are composed through p(x), which is trained beside p(x | label) by dropping labels
        if concepts and labelled and not hasattr(method.config, "label_dropping"):
            raise InputError(f"{method.name} takes one label an image, but {data.name} has several concepts: {', '.join(concepts)}")
        for name in method.sharded:
            rows = len(method.get_buffer(name))
            if rows < self.batch or rows % self.shards:
                raise InputError(
                    f"{method.name}: {rows} {name.replace('_', ' ')} are too few for a batch of {self.batch}, "
                    f"or do not divide over {self.shards} processes"
                )

    # --- state

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on, the same on every rank; every rank must call it."""
        self.sync_buffers()
        whole = {name: self.ema.get_buffer(name) for name in self.method.sharded}
        return {
            "images": self.update.images,
            "updates": self.update.updates,
            "elapsed": self.elapsed,
            "best": self.best,
            "seed": self.seed,
            "shards": self.shards,
            "method": self.method.state_dict() | whole,
            "ema": self.ema.state_dict(),
            "optimizers": {name: o.state_dict() for name, o in self.update.optimizers.items()},
            "guard": self.guard.state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        if state["seed"] != self.seed:
            theirs = state["seed"]
            raise InputError(f"the run in {self.out} was started with seed {theirs}, not {self.seed}; give that seed or another folder")
        shards = state.get("shards", 1)
        if shards != self.shards and (self.shards_given or self.world.size > 1):
            raise InputError(
                f"the run in {self.out} draws noise for {shards} processes, not {self.shards}; "
                f"give as many, or one process with shards = {shards}"
            )
        self.shards = shards
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
        state = self.state()
        if self.out is None:
            self.kept.append(copy.deepcopy(state))
        else:
            self.world.on_first(lambda: checkpoint.save(self.out, state))
        self.saved = self.update.images

    # --- the loop

    def go(self) -> Method:
        state = None
        if self.out is not None:
            self.world.on_first(lambda: checkpoint.prepare(self.out, self.method))
            state = self.world.on_first(lambda: checkpoint.latest(self.out))
            if state is not None:
                self.load(state)
                self.saved = self.update.images
            self.world.on_first(lambda: checkpoint.trim_stats(self.out, self.update.images))
        if state is None:
            self.save()  # where the guard goes back to if the start diverges
        if self.tensorboard and self.out is not None and self.world.first:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(self.out / "tensorboard"))
        self.started = self.clock() - self.elapsed
        parameters = sum(p.numel() for p in self.method.parameters())
        title = f"{self.method.name} on {self.data.name}: {parameters:,} parameters, {self.images:,} images in batches of {self.batch}"
        title += f", going on from {self.update.images:,}" if self.update.images else ""
        # layers such as dropout draw from the global generator, which is the caller's again afterwards
        with (
            Progress(self.progress and self.world.first, title, self.images, self.seconds) as bar,
            torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []),
        ):
            while self.update.images < self.images and not self.world.any(self.seconds is not None and self.elapsed >= self.seconds):
                try:
                    self.one_step(bar)
                except Diverged as trouble:
                    self.go_back(trouble)
                self.elapsed = self.clock() - self.started
        self.finish()
        return self.ema

    def one_step(self, bar: Progress) -> None:
        update, start = self.update, self.update.images
        update.logged = {}  # of this step alone: an update that a method has ended with must not be written for ever
        ranks = range(self.shards) if self.world.size == 1 else [self.world.rank]
        update.generator = tuple(random.seeded(self.seed, rank, start, device=self.device) for rank in ranks)
        torch.manual_seed(random.seeded(self.seed, self.world.rank, start, 1).initial_seed())
        batch = self.world.share(self.data.batch(start, self.batch, self.seed), self.device)
        self.method.train()
        with self.autocast():
            self.one_method_step(batch)
        update.images += self.batch
        self.elapsed = self.clock() - self.started
        done = update.images >= self.images
        if self.due(self.log_every) or done:
            figures = update.figures()
            self.write_stats({"images": update.images, "seconds": round(self.elapsed, 3), **figures})
            bar.show(update.images, self.elapsed, figures)
        if self.due(self.sample_every) or done:
            self.look()
        if self.due(self.save_every) or done:
            self.guard.passed(update.images)
            self.save()

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

    def autocast(self) -> torch.autocast:
        """bfloat16 where the run asked for it."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def due(self, every: int) -> bool:
        """Whether this step crossed a multiple of `every` images."""
        return self.update.images // every > (self.update.images - self.batch) // every

    def look(self) -> None:
        """A picture of samples and the held-out criterion, both of the EMA twin; the best state is kept."""
        self.sync_buffers()
        with self.autocast():  # chains for a look cost as much as those of training
            self.best = self.world.on_first(self._look)

    def _look(self) -> float:
        if self.picture is not None and self.out is not None:
            path = self.out / "samples" / f"{self.update.images:012d}.png"
            with checkpoint.writing(path):
                path.parent.mkdir(exist_ok=True)
                self.picture(self.ema, path, self.update.images)
        best = self.best
        if self.held_out is not None:
            held_out = type(self.held_out)(*(None if part is None else part.to(self.device) for part in self.held_out))
            value = self.ema.criterion(held_out, random.seeded(self.seed, 7, device=self.device))
            self.write_stats({"images": self.update.images, "seconds": round(self.elapsed, 3), "criterion": value})
            if value < best:
                best = value
                if self.out is not None:
                    checkpoint.write(self.out / "best.pt", {"images": self.update.images, "criterion": value, "ema": self.ema.state_dict()})
        return best

    def go_back(self, trouble: Diverged) -> None:
        """Back to the last good state with a lower learning rate; raises the trouble again when the tries are used up."""
        event = self.guard.react(str(trouble), self.update.images)  # raises when there are no tries left
        kept = {"guard": self.guard.state(), "elapsed": self.elapsed, "best": self.best}  # best.pt stays, and so does the time
        if self.out is None:
            for _ in range(min(self.guard.depth, len(self.kept) - 1)):
                self.kept.pop()
            state = copy.deepcopy(self.kept.pop())
        else:
            state = self.world.on_first(lambda: checkpoint.latest(self.out, skip=self.guard.depth))
        self.load(state | kept)
        if self.out is not None:
            self.world.on_first(lambda: checkpoint.drop_after(self.out, self.update.images))
            self.world.on_first(lambda: checkpoint.trim_stats(self.out, self.update.images))
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

    def finish(self) -> None:
        if self.saved != self.update.images:
            self.save()
        self.sync_buffers()
        for name in self.method.sharded:
            _set_buffer(self.method, name, self.ema.get_buffer(name).clone())
        if self.writer is not None:
            self.writer.close()
