"""The verb `update(name, loss)`: what a training loop does with a loss. Usable alone, for a loop of one's own.

update = tw.update(method)
for batch in loader:
    update.step(batch)  # method.step with seeded noise, each loss through the verb
samples = update.ema.sample(64)
"""

import copy
import math
from typing import Any

import torch
from torch import Tensor

from thalweg import random
from thalweg.data.base import Batch
from thalweg.distributed import World
from thalweg.errors import Diverged
from thalweg.guard import Guard
from thalweg.methods.base import Method


class SharedDivergence(Diverged):
    """A divergence that every rank has seen at the same place."""


class Update:
    """`update(name, loss)` takes one optimizer step of a method: its gradients, clipped, at its learning rate, followed by the EMA twin.

    Carries a step's `generator`, the count of `images` seen, the `ema` twin, and what was logged by `log(name=value)`. Defaults: `clip` and
    `ema_decay` from the method's config, a new twin, one process, a guard against divergence, draws of `seed`.
    """

    def __init__(
        self,
        method: Method,
        ema: Method | None = None,
        world: World | None = None,
        *,
        clip: float | None = None,
        ema_decay: float | None = None,
        guard: Guard | None = None,
        seed: int = 0,
    ) -> None:
        self.method = method
        self.ema = copy.deepcopy(method).requires_grad_(False).eval() if ema is None else ema
        self.world = World() if world is None else world
        self.clip = method.config.clip if clip is None else clip
        self.ema_decay = method.config.ema if ema_decay is None else ema_decay
        self.guard = Guard(dimensions=math.prod(method.config.shape)) if guard is None else guard
        self.seed = seed
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

    def begin(self, shards: int = 1) -> None:
        """Before a step: nothing logged, and draws set by (seed, rank, images), of `shards` ranks where one process stands for several."""
        self.logged = {}  # of this step alone: an update that a method has ended with must not be written for ever
        device, rank = self.method.device, self.world.rank
        ranks = range(shards) if self.world.size == 1 else [rank]
        self.generator = tuple(random.seeded(self.seed, r, self.images, device=device) for r in ranks)
        torch.manual_seed(random.seeded(self.seed, rank, self.images, 1).initial_seed())  # of layers such as dropout

    def step(self, batch: Batch | Tensor | Any) -> None:
        """One step of the method on a batch, or on examples [B, ...], or (examples, labels), for a loop of one's own."""
        if isinstance(batch, Tensor):
            batch = Batch(batch)
        elif not hasattr(batch, "x"):
            batch = Batch(*batch)
        self.begin()
        if not self.images:
            for twin in (self.method, self.ema):
                twin.prepare(batch.x)
        self.method.train()
        self.method.step(batch, self)
        self.images += len(batch.x)

    def __call__(self, name: str, loss: Tensor) -> None:
        """Gradients of `loss` by the parameters of optimizer `name` alone, averaged over ranks; clip, step, EMA twin.

        Raises Diverged on a loss or gradient that is not finite, or a gradient norm far above what was usual.
        """
        self._agree()
        self._take(name, loss.detach(), self.gradients(name, loss))

    def gradients(self, name: str, loss: Tensor) -> list[Tensor]:
        """The gradients of `loss` by the parameters of optimizer `name`; KeyError where there is none of that name."""
        if name not in self.optimizers:
            raise KeyError(f"{type(self.method).__name__}.optimizers() has no '{name}', only {list(self.optimizers)}")
        found = torch.autograd.grad(loss, self.parameters[name], allow_unused=True)
        return [_laid_out_as(p, g) for p, g in zip(self.parameters[name], found)]

    def take(self, name: str, loss: Tensor, *gradients: Tensor) -> None:
        """The step of optimizer `name` by gradients that are there already, which a loop of one's own may have gathered."""
        self._agree()
        self._take(name, loss, list(gradients))

    def _take(self, name: str, loss: Tensor, gradients: list[Tensor]) -> None:
        parameters, optimizer = self.parameters[name], self.optimizers[name]
        loss, *gradients = self.world.mean([loss, *gradients])
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
        device = self.method.device
        means = [torch.as_tensor(v, device=device).detach().float().mean().reshape(1) for v in self.logged.values()]
        values = dict(zip(self.logged, (float(v) for v in self.world.mean(means))))
        self.guard.check_energies({k: v for k, v in values.items() if k in self.method.guarded})
        return values


def _laid_out_as(parameter: Tensor, gradient: Tensor | None) -> Tensor:
    """The gradient in the parameter's own strides, zero where there is none.

    `backward` sees to that by itself, `autograd.grad` does not, and a fused optimizer walks both memories side by side: it would
    give each weight of a convolution another weight's gradient, without a word.
    """
    if gradient is None:
        return torch.zeros_like(parameter)
    return gradient if gradient.stride() == parameter.stride() else torch.empty_like(parameter).copy_(gradient)


def update(method: Method, *, seed: int = 0, clip: float | None = None, ema_decay: float | None = None) -> Update:
    """The verb for a loop of one's own: `update.step(batch)`, or inside a step of one's own `update(name, loss)`; see `Update`."""
    return Update(method, seed=seed, clip=clip, ema_decay=ema_decay)
