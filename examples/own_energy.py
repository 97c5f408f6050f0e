"""Write your own energy and sample it: a banana-shaped valley, with MALA and with HMC.

Usage: python examples/own_energy.py [STEPS]
"""

import sys

import torch

import thalweg as tw


def banana(x: torch.Tensor) -> torch.Tensor:
    """x₁ ~ N(0, 1), x₂ | x₁ ~ N(x₁²/2, 1): [B, 2] -> [B]. So E[x₂] = ½ and var(x₂) = 1 + ½."""
    return 0.5 * x[:, 0].square() + 0.5 * (x[:, 1] - 0.5 * x[:, 0].square()).square()


steps = int(sys.argv[1]) if len(sys.argv) > 1 else 500
start = torch.zeros(1000, 2)
samplers = {
    "mala": lambda trace: tw.sample.mala(banana, start, steps=steps, step=0.8, generator=tw.random.seeded(0), trace=trace),
    "hmc": lambda trace: tw.sample.hmc(banana, start, steps=steps // 5, step=0.4, leapfrog=5, generator=tw.random.seeded(0), trace=trace),
}
print("        E[x₁]   E[x₂]  var(x₁)  var(x₂)  accepted     (exact: 0, 0.5, 1, 1.5)")
for name, run in samplers.items():
    trace = tw.sample.Trace()
    x = run(trace)
    mean, variance = x.mean(0), x.var(0)
    print(f"{name:6}{mean[0]:7.3f} {mean[1]:7.3f} {variance[0]:8.3f} {variance[1]:8.3f} {trace.acceptance.mean():9.2f}")

# energies add: the same valley with a Gaussian that pulls x to the right
right = tw.combine([banana, lambda x: 0.5 * (x[:, 0] - 2.0).square()])
x = tw.sample.mala(right, start, steps=steps, step=0.6, generator=tw.random.seeded(1))
print(f"with a pull to the right: E[x₁] = {x[:, 0].mean():.3f} (exact: 1)")
