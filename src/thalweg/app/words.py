"""What each panel says of itself: a sentence, the equation, and the function that does it."""

from typing import NamedTuple


class Panel(NamedTuple):
    title: str
    sentence: str
    equations: tuple[str, ...]
    by: str


WORDS = {
    "landscape": Panel(
        "Landscape",
        "An energy of points in the plane, and chains that walk on it. Dark is low energy, so likely. Energies add up, with weights: a sum "
        "is the product of the densities, a negative weight is “and not”. T is the temperature: chains sample p to the power of 1/T.",
        (
            "p(x) ∝ exp(−E(x)/T),   E = w₁E₁ + w₂E₂",
            "Langevin:  x ← x − s²/2 ∇E(x)/T + s τ ξ,  ξ ~ N(0, I)",
            "MALA: that move, accepted with min(1, p(x′) q(x | x′) / p(x) q(x′ | x))",
            "HMC: 5 leapfrog steps, accepted with min(1, exp(H(x, v) − H(x′, v′)))",
        ),
        "thalweg.sample.langevin, mala, hmc; thalweg.energy.combine",
    ),
    "draw": Panel(
        "Draw",
        "Samples of the model. Guidance 1 draws from p(x | label), 0 leaves the label out, more exaggerates it, and below 0 it is “not "
        "that label”. Where a model has learned both p(x | label) and p(x), several labels compose, each with a guidance of its own.",
        (
            "at each noise level:  E(x) + Σᵢ wᵢ [E(x | yᵢ) − E(x)],  wᵢ the guidance of label yᵢ",
            "with one label guidance, with several composition (Zhu 2024, eq. 5.9, 5.11, 5.12)",
        ),
        "model.sample",
    ),
    "fill": Panel(
        "Fill in",
        "Paint over what is to be invented; the rest of the picture stays as it is, to the last bit.",
        (
            "given the pixels:  U(x_σ | y) = U(x_σ) + ½ rᵀ (s² + A V Aᵀ)⁻¹ r,   r = y − A x̂(x_σ)",
            "put back:  x ← x − A⁺(A x − y_σ) at each noise level σ",
            "search:  the start z whose sample agrees best with y = A x",
        ),
        "thalweg.tasks.inpaint",
    ),
    "repair": Panel(
        "Repair",
        "A picture is spoilt, or comes spoilt, and the model repairs it: one estimate where noise is taken off, several possible pictures "
        "where something was lost.",
        (
            "noise:  E[x | y],  y = x + σ ε;  by the score of the noised density, y + σ² ∇ log p_σ(y)",
            "blur, grey, coarse:  x with A x = y, or x ~ p(x | y) for y = A x + s ε",
        ),
        "thalweg.tasks.denoise, restore",
    ),
    "detect": Panel(
        "Detect",
        "Is this like what the model has learned? An item is strange if few held-out examples are as strange as it is.",
        (
            "p = (1 + #{held-out examples with a score ≥ s}) / (N + 1),   outlier where p ≤ α",
            "of a model's energies, strange where high or low:  twice the lesser of this and the same with ≤",
        ),
        "model.energy, or thalweg.detect",
    ),
    "watch": Panel(
        "Watch",
        "A training as it goes: what is logged, the newest picture of samples, and what the guard did when losses ran away.",
        ("the guard: back to a good state, learning rate × ½",),
        "stats.jsonl and samples/ of the run's folder",
    ),
}
