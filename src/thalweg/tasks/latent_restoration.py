"""Restore images from what a linear operator left of them through a generator's latent, then by a free residual (LIEBM, sec. 4.4).

    m ← Langevin steps on E(G(m)) + ½‖m‖² + ‖A⁺y − A⁺A G(m)‖²/2σ²           (eq. 16, of which this is −log)
    Y ← Langevin steps on E(G(m) + Y) where A (G(m) + Y) = y                 (eq. 17 without its noise in y)

No pair of a whole and a degraded image is learned from. E(x) is E(x, h(x)) where the model is informed by latents.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from thalweg import random
from thalweg.energy import gaussian
from thalweg.errors import InputError
from thalweg.given import Numbers, takes
from thalweg.nn.layers import frozen
from thalweg.sample import langevin
from thalweg.tasks.checks import check_count, check_model
from thalweg.tasks.operators import LinearOperator
from thalweg.tasks.restoration import check_measured


@dataclass(frozen=True, eq=False)
class LatentRestoration:
    """What `restore_latent` passed through, images [B, C, H, W]: `start` G(m⁰), `refined` G(m), and `x` = G(m) + Y in [−1, 1]."""

    start: Tensor
    refined: Tensor
    x: Tensor


@takes
def restore_latent(
    method: Any,
    y: Numbers,
    operator: LinearOperator,
    *,
    latent_steps: int = 200,
    latent_step: float = 0.01,
    latent_std: float = 0.1,
    steps: int = 30,
    step: float | None = None,
    noise: float = 0.0,
    seed: int = 0,
) -> LatentRestoration:
    """Images whose A x is near y [B, ...], by Langevin steps on a generator's latent m, then on the image itself.

    m⁰ is the mean of the model's q(m | A⁺y), or a draw of `seed` for a model without q. `latent_std` σ is the standard deviation of A⁺y
    in units of [−1, 1]; `step` is that of the model's own chains by default, whose moves are bounded alike. The second chain has σ → 0:
    it is projected onto A x = y after each step. `noise` scales that of the chains, 0 looks for the most probable. The paper gives none
    of these numbers. Raises InputError for models without a generator, a y of the wrong shape, and options out of range.
    """
    shape = check_model("restore_latent", method, "restore_latent")
    check_count("latent_steps", latent_steps, 0)
    check_count("steps", steps, 0)
    chain = method.chain
    step = chain.step if step is None else step
    if not (latent_step > 0 and latent_std > 0 and step > 0 and noise >= 0):
        raise InputError("restore_latent: steps' sizes and standard deviations must be above 0, and the noise not below")
    check_measured(y, operator, shape)
    device = method.device
    home, y, operator = y.device, y.float().to(device), operator.to(device)
    target = operator.pseudo_inverse(y)
    generator = random.seeded(seed, 14, device=device)

    def latent_energy(m: Tensor) -> Tensor:
        x = method.generate(m)
        misfit = operator.pseudo_inverse(operator.forward(x)) - target
        return method.informed_energy(x) + gaussian(m) + gaussian(misfit, latent_std)

    def measured_back(x: Tensor) -> Tensor:
        return operator.project(x, y)

    with frozen(method), torch.no_grad():
        if method.inference is None:
            m = random.normal(len(y), *method.latent_shape, generator=generator, device=device)
        else:
            m = method.infer(target.clamp(-1, 1))[0]
        start = method.generate(m)
        m = langevin(latent_energy, m, steps=latent_steps, step=latent_step, noise=noise, clip=0.1, generator=generator)
        refined = method.generate(m)
        # G(m) is fixed, so that steps on Y are steps on x = G(m) + Y
        on_images = replace(chain, steps=steps, step=step, noise=noise * chain.noise)
        x = on_images(method.informed_energy, measured_back(refined), project=measured_back, generator=generator)
    return LatentRestoration(*(image.to(home) for image in (start, refined, x.clamp(-1, 1))))
