"""Training objectives: plain functions of energies that return a scalar loss, in nats unless said otherwise."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from thalweg.energy import Energy, score


def contrastive(
    energy: Energy, data: Tensor, samples: Tensor, label: Tensor | None = None, *, regularise: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """E(x⁺).mean() − E(x⁻).mean(), whose gradient is that of −log-likelihood when `samples` are draws of the model (thesis, eq. 2.2).

    `data` and `samples`: [B, ...] of equal shape, passed through the energy in one batch; `label` [2B] are the labels of both
    for a conditional energy. `regularise` α adds α·(E(x⁺)² + E(x⁻)²).mean(), off by default. Returns the loss and both
    energies [B].
    """
    both = torch.cat([data, samples])
    positive, negative = (energy(both) if label is None else energy(both, label=label)).chunk(2)
    loss = positive.mean() - negative.mean()
    if regularise:
        loss = loss + regularise * (positive.square().mean() + negative.square().mean())
    return loss, positive, negative


def recovery(
    energy: Callable[..., Tensor], data: Tensor, samples: Tensor, weight: Tensor, t: Tensor, label: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean of w·(E(y; t) − E(ỹ; t)), whose gradient is that of −log p(y | x_{t+1}) when `samples` ỹ are draws of it (thesis, eq. 5.5).

    The quadratic term of p(y | x_{t+1}) holds no parameter and is left out. `data` and `samples` [B, ...], `weight`, levels `t` and
    `label` [B] (or None); energy(y, t, label) in nats. Returns the loss and both weighted energies [B].
    """
    both = None if label is None else torch.cat([label, label])
    positive, negative = (energy(torch.cat([data, samples]), torch.cat([t, t]), both) * torch.cat([weight, weight])).chunk(2)
    return positive.mean() - negative.mean(), positive, negative


def denoising_score_matching(energy: Energy, x_t: Tensor, noise: Tensor, scale: Tensor | float = 1.0, **condition) -> Tensor:
    """‖scale·score(x_t) + ε‖² per dimension, [B]: noise ε predicted by the (scaled) score (Vincent 2011; EGC, Algorithm 1)."""
    predicted = -scale * score(energy, x_t, create_graph=True, **condition)
    return (predicted - noise).flatten(1).square().mean(1)


def sliced_score_matching(energy: Energy, x: Tensor, direction: Tensor, **condition) -> Tensor:
    """½(vᵀs)² + vᵀ∇(vᵀs) per row, [B], for random directions v shaped like x (Song et al. 2019, eq. 8)."""
    point = x.detach().requires_grad_(True)
    along = (score(energy, point, create_graph=True, **condition) * direction).flatten(1).sum(1)
    (curvature,) = torch.autograd.grad(along.sum(), point, create_graph=True)
    return 0.5 * along.square() + (curvature * direction).flatten(1).sum(1)


def gradient_penalty(energy: Energy, x: Tensor, **condition) -> Tensor:
    """½‖∇ₓE‖² per row, [B]: flattens the energy at `x` (DDAEBM, eq. 23)."""
    return 0.5 * score(energy, x, create_graph=True, **condition).flatten(1).square().sum(1)


def kl_from_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(μ, σ² I) ‖ N(0, I)) of latents [B, ...], in nats: [B]."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1)


def classification(log_p: Tensor, label: Tensor, *, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """Per row: the cross-entropy, and 1 where the likeliest class is `label`, else 0: [B, classes], [B] -> [B], [B].

    `log_p`: log-probabilities or logits; `smoothing`: share of each label that is spread evenly over all classes.
    """
    return F.cross_entropy(log_p, label, reduction="none", label_smoothing=smoothing), (log_p.argmax(1) == label).float()


def nt_xent(a: Tensor, b: Tensor, temperature: float = 0.5, others: Tensor | None = None) -> Tensor:
    """SimCLR's loss in nats, a mean over both views: a, b [B, d] are two views of B ≥ 2 images, of any length (Chen et al. 2020, eq. 1).

    −log of exp(cos(i, j)/T) over its sum for all 2B − 1 others, j the other view of i; `others` [N, d] are further ones of that sum.
    """
    z = F.normalize(torch.cat([a, b]), dim=1)
    among = z if others is None else torch.cat([z, F.normalize(others, dim=1)])
    alike = z @ among.T / temperature
    alike = alike.masked_fill(torch.eye(len(z), len(among), dtype=torch.bool, device=z.device), -torch.inf)
    return F.cross_entropy(alike, torch.arange(len(z), device=z.device).roll(len(a)))


def squared_error(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over all elements against a fixed target (nothing flows into `target`)."""
    return F.mse_loss(predicted, target.detach())
