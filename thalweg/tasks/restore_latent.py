"""Restore images from what a linear operator left of them through a generator's latent, then by a free residual (LIEBM, sec. 4.4).

    m ← Langevin steps on E(G(m)) + ½‖m‖² + ‖A⁺y − A⁺A G(m)‖²/2σ²           (eq. 16, of which this is −log)
    Y ← Langevin steps on E(G(m) + Y) + ‖A⁺y − A⁺A (G(m) + Y)‖²/2σ′²        (eq. 17)

No pair of a whole and a degraded image is learned from. E(x) is E(x, h(x)) where the model is informed by latents.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from thalweg import random
from thalweg.energy import gaussian
from thalweg.errors import InputError
from thalweg.nn.layers import frozen
from thalweg.sample import langevin
from thalweg.tasks.checks import check_count, check_images_model, device_of
from thalweg.tasks.operators import LinearOperator
from thalweg.tasks.restore import _check_measured


@dataclass(frozen=True, eq=False)
class LatentRestoration:
    """What `restore_latent` passed through, images [B, C, H, W]: `start` G(m⁰), `refined` G(m), and `x` = G(m) + Y in [−1, 1]."""

    start: Tensor
    refined: Tensor
    x: Tensor


def restore_latent(
    method: Any,
    y: Tensor,
    operator: LinearOperator,
    *,
    latent_steps: int = 200,
    latent_step: float = 0.01,
    latent_std: float = 0.1,
    steps: int = 30,
    step: float | None = None,
    std: float | None = None,
    noise: float = 0.0,
    seed: int = 0,
) -> LatentRestoration:
    """Images whose A x is near y [B, ...], by Langevin steps on a generator's latent m, then on the image itself.

    m⁰ is the mean of the method's q(m | A⁺y), or a draw of `seed` for a method without q. `latent_std` σ and `std` σ′ are standard
    deviations of A⁺y in units of [−1, 1]; `step` is that of the method's own chains by default, and σ′ is `step` by default, so that each
    step halves what is wrong with A x beside the energy's own move. `noise` 0 looks for the most probable. The paper gives none of
    these. Raises InputError for methods without a generator, a y of the wrong shape, and options out of range.
    """
    shape = check_images_model("restore_latent", method)
    if not all(hasattr(method, part) for part in ("generate", "infer", "informed_energy")):
        raise InputError(f"restore_latent needs a method with a generator and an inference model, as liebm; {method.name} is none")
    check_count("latent_steps", latent_steps, 0)
    check_count("steps", steps, 0)
    c = method.config
    step = c.step if step is None else step
    std = step if std is None else std
    if not (latent_step > 0 and latent_std > 0 and step > 0 and std > 0 and noise >= 0):
        raise InputError("restore_latent: steps' sizes and standard deviations must be above 0, and the noise not below")
    _check_measured(y, operator, shape)
    device = device_of(method, y)
    operator, target = operator.to(device), operator.pseudo_inverse(y.float()).to(device)
    generator = random.seeded(seed, 14, device=device)

    def misfit(x: Tensor, std: float) -> Tensor:
        return gaussian(operator.pseudo_inverse(operator.forward(x)) - target, std)

    def latent_energy(m: Tensor) -> Tensor:
        x = method.generate(m)
        return method.informed_energy(x) + gaussian(m) + misfit(x, latent_std)

    def energy(x: Tensor) -> Tensor:
        return method.informed_energy(x) + misfit(x, std)

    with frozen(method), torch.no_grad():
        if method.inference is None:
            m = random.normal(len(y), *method.latent_shape, generator=generator, device=device)
        else:
            m = method.infer(target.clamp(-1, 1))[0]
        start = method.generate(m)
        m = langevin(latent_energy, m, steps=latent_steps, step=latent_step, noise=noise, clip=0.1, generator=generator)
        refined = method.generate(m)
        # G(m) is fixed, so that steps on Y are steps on x = G(m) + Y
        x = langevin(energy, refined, steps=steps, step=step, noise=noise * c.noise, clamp=(-1.0, 1.0), generator=generator)
    return LatentRestoration(start.to(y.device), refined.to(y.device), x.to(y.device))
