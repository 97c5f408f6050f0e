"""Is the mathematics right? Samplers, gradients, scores, schedules and EGC against closed forms, as one table.

    python -m studies.checks.correctness --out studies/results/correctness.json

A z is a deviation in standard errors; a sampler's is at its effective sample size (ESS), from the autocorrelation over
parallel chains. Leaves with exit code 1 if a figure is outside its bound.
"""

import math
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

import thalweg as tw
from studies.runner import Check, Options, table
from thalweg import noise, random, sample
from thalweg.data import TOYS, Batch, toy
from thalweg.energy import score
from thalweg.nn import build
from thalweg.nn.build import PatchNet, UNet
from thalweg.nn.convnet import ConvEnergy
from thalweg.nn.mlp import MLP
from thalweg.objective import contrastive
from thalweg.sample import Trace

BOUND = 4.5  # standard errors
Row = dict[str, Any]


def effective_size(f: Tensor, mean: float) -> float:
    """ESS of states f [steps, chains] of known expectation: Geyer's initial positive sequence, averaged over the chains."""
    steps, chains = f.shape
    spectrum = torch.fft.rfft((f - mean).double(), n=2 * steps, dim=0)
    covariance = torch.fft.irfft(spectrum * spectrum.conj(), dim=0)[:steps].sum(1) / torch.arange(steps, 0, -1) / chains
    correlation = covariance / covariance[0]
    pairs = correlation[0 : steps - 1 : 2] + correlation[1:steps:2]
    positive = int((pairs <= 0).nonzero()[0]) if bool((pairs <= 0).any()) else len(pairs)
    return steps * chains / max(1e-9, float(2 * pairs[:positive].sum() - 1))


def expectation(sampler: str, law: str, moment: str, f: Tensor, expected: float) -> Row:
    """How far the mean of f [steps, chains] is from `expected`, at its ESS."""
    ess = effective_size(f, expected)
    found = float(f.double().mean())
    error = float((f.double() - expected).square().mean().sqrt()) / math.sqrt(ess)
    z = (found - expected) / error
    row = {"sampler": sampler, "law": law, "moment": moment, "expected": expected, "found": found, "error": error}
    return row | {"ess": round(ess), "z": z, "ok": abs(z) < BOUND}


def chains(sampler, energy, start: Tensor, seed: int, steps: int, **knobs) -> tuple[Tensor, float | None]:
    """States after a burn-in of a quarter, [steps, chains, D], and the accepted share."""
    trace, burn_in = Trace(keep=steps + steps // 4 + 1), steps // 4
    sampler(energy, start, steps=steps + burn_in, generator=random.seeded(seed), trace=trace, **knobs)
    return trace.states[burn_in + 1 :], None if trace.acceptance is None else float(trace.acceptance.mean())


# --- samplers

MEAN = torch.tensor([1.0, -0.5, 0.25])
ROOT = torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.5, 0.0], [-0.3, 0.4, 0.7]])
COVARIANCE = ROOT @ ROOT.T
PRECISION = torch.linalg.inv(COVARIANCE)
MIXTURE = ((0.3, -1.4, 0.6), (0.7, 1.0, 0.8))  # weight, mean, std


def gaussian_energy(x: Tensor) -> Tensor:
    return 0.5 * ((x - MEAN) @ PRECISION * (x - MEAN)).sum(1)


def mixture_energy(x: Tensor) -> Tensor:
    return -torch.logsumexp(torch.stack([math.log(w / s) - (x[:, 0] - m).square() / (2 * s * s) for w, m, s in MIXTURE]), 0)


def gaussian_rows(name: str, law: str, states: Tensor, covariance: Tensor) -> Iterator[Row]:
    centred = states - MEAN
    for i in range(3):
        yield expectation(name, law, f"mean {i}", states[..., i], float(MEAN[i]))
        for j in range(i, 3):
            yield expectation(name, law, f"covariance {i}{j}", centred[..., i] * centred[..., j], float(covariance[i, j]))


def mixture_rows(name: str, law: str, states: Tensor, first: float, second: float, left: float) -> Iterator[Row]:
    x = states[..., 0]
    yield expectation(name, law, "mean", x, first)
    yield expectation(name, law, "second moment", x.square(), second)
    yield expectation(name, law, "mass below 0", (x < 0).double(), left)


def discretised_mixture(step: float) -> tuple[float, float, float]:
    """The first two moments and the mass below 0 of unadjusted Langevin's own stationary law, iterated on a grid."""
    line = torch.linspace(-7, 7, 1001, dtype=torch.float64)[:, None]
    kernel = torch.exp(-(line.T - line - 0.5 * step**2 * score(mixture_energy, line)).square() / (2 * step**2))
    kernel = kernel / kernel.sum(1, keepdim=True)
    for _ in range(10):
        kernel = kernel @ kernel
    law, x = kernel[500], line[:, 0]
    return float(law @ x), float(law @ x.square()), float(law[:500].sum() + 0.5 * law[500])


def sampler_rows(seed: int) -> Iterator[Row]:
    start, start_1d = 3 * random.normal(512, 3, generator=random.seeded(seed)), 2 * random.normal(512, 1, generator=random.seeded(seed, 1))
    step = 0.35
    one = torch.eye(3, dtype=torch.float64)
    contraction = one - 0.5 * step**2 * PRECISION.double()
    discretised = step**2 * torch.linalg.inv(one - contraction @ contraction)
    first, second = sum(w * m for w, m, _ in MIXTURE), sum(w * (m * m + s * s) for w, m, s in MIXTURE)
    left = sum(w * 0.5 * math.erfc(m / (s * math.sqrt(2))) for w, m, s in MIXTURE)

    states, _ = chains(sample.langevin, gaussian_energy, start, seed, 2000, step=step)
    yield from gaussian_rows("langevin", "gaussian, discretised", states, discretised)
    states, _ = chains(sample.langevin, mixture_energy, start_1d, seed, 1500, step=0.8)
    yield from mixture_rows("langevin", "mixture, discretised", states, *discretised_mixture(0.8))
    for name, sampler, knobs, wide in (
        ("mala", sample.mala, {"step": 0.45}, {"step": 1.2}),
        ("hmc", sample.hmc, {"step": 0.45, "leapfrog": 4}, {"step": 0.6, "leapfrog": 4}),
    ):
        states, accepted = chains(sampler, gaussian_energy, start, seed, 1500, **knobs)
        yield from gaussian_rows(f"{name} ({accepted:.0%} accepted)", "gaussian", states, COVARIANCE)
        states, accepted = chains(sampler, mixture_energy, start_1d, seed, 1500, **wide)
        yield from mixture_rows(f"{name} ({accepted:.0%} accepted)", "mixture", states, first, second, left)
    yield from linear_rows(seed)


def linear_rows(seed: int) -> Iterator[Row]:
    """Annealed Langevin, DDPM and DDIM on N(0.7, 0.5²), where every step is a linear map: exact moments by recursion."""
    mu, std, n = 0.7, 0.5, 200_000
    schedule = noise.linear_beta(100, 1e-3, 0.2)
    signal, sigma = schedule.signal, schedule.noise
    variance = [a * a * std**2 + s * s for a, s in zip(signal, sigma)]
    start = random.normal(n, 1, generator=random.seeded(seed, 2), dtype=torch.float64)

    def predict(x: Tensor, t: Tensor) -> Tensor:
        a, s = schedule.alpha(t, x), schedule.sigma(t, x)
        return s * (x - a * mu) / (a.square() * std**2 + s.square())

    for name, eta in (("ancestral, eta 1 (DDPM)", 1.0), ("ancestral, eta 0.5", 0.5), ("ancestral, eta 0 (DDIM)", 0.0)):
        m, v = 0.0, 1.0
        for t, s in pairwise(range(100, -1, -1)):
            spread = eta * sigma[s] / sigma[t] * math.sqrt(1 - (signal[t] / signal[s]) ** 2)
            slope = (signal[s] * signal[t] * std**2 + math.sqrt(sigma[s] ** 2 - spread**2) * sigma[t]) / variance[t]
            m, v = signal[s] * mu + slope * (m - signal[t] * mu), slope**2 * v + spread**2
        found = sample.ancestral(predict, start, schedule, eta=eta, generator=random.seeded(seed, 3))
        yield from independent_rows(name, found, m, v)

    coarse = noise.linear_beta(6, 0.05, 0.5)

    def energy(x: Tensor, t: Tensor) -> Tensor:
        a, s = coarse.alpha(t, x), coarse.sigma(t, x)
        return ((x - a * mu).square() / (2 * (a.square() * std**2 + s.square()))).sum(1)

    m, v = 0.0, 1.0
    for t in range(6, 0, -1):
        step, width = 0.6 * coarse.noise[t], coarse.signal[t] ** 2 * std**2 + coarse.noise[t] ** 2
        for _ in range(4):
            shrink = 1 - step**2 / (2 * width)
            m, v = coarse.signal[t] * mu + shrink * (m - coarse.signal[t] * mu), shrink**2 * v + step**2
    found = sample.annealed_langevin(energy, start, coarse, steps=4, step=0.6, generator=random.seeded(seed, 4))
    yield from independent_rows("annealed_langevin", found, m, v)


def independent_rows(name: str, x: Tensor, mean: float, variance: float) -> Iterator[Row]:
    yield expectation(name, "gaussian, discretised", "mean", x.view(2, -1), mean)
    yield expectation(name, "gaussian, discretised", "variance", (x - mean).square().view(2, -1), variance)


# --- gradients and scores


def contrastive_rows(seed: int) -> Iterator[Row]:
    """The contrastive gradient of a small network in one dimension against the exact one, by quadrature."""
    grid = torch.linspace(-4, 4, 401, dtype=torch.float64)[:, None]
    data_law = torch.softmax(-((grid[:, 0].abs() - 1.5) ** 2) / 0.3, 0)
    torch.manual_seed(seed)
    net = MLP(1, width=8, depth=2).double()
    parameters = list(net.parameters())
    with torch.no_grad():
        torch._foreach_mul_(parameters, 2.0)
    values = net(grid)
    exact = _flat(torch.autograd.grad((data_law * values).sum() + torch.logsumexp(-values, 0), parameters))
    model_law = torch.softmax(-values.detach(), 0)
    generator, found = random.seeded(seed, 5), []
    for _ in range(1000):
        data, samples = (grid[torch.multinomial(law, 256, replacement=True, generator=generator)] for law in (data_law, model_law))
        found.append(_flat(torch.autograd.grad(contrastive(net, data, samples)[0], parameters)))
    found = torch.stack(found)
    moving = found.std(0) > 1e-12
    z = ((found.mean(0) - exact) / (found.std(0) / math.sqrt(len(found))))[moving]
    relative = float((found.mean(0) - exact).norm() / exact.norm())
    largest, count = float(z.abs().max()), int(moving.sum())
    yield {"figure": "largest |z| of a parameter", "parameters": count, "value": largest, "ok": largest < BOUND}
    # the square root of the mean of z² is 1 where the gradient has no bias; parameters are correlated, hence the wide band
    rms = float(z.square().mean().sqrt())
    yield {"figure": "root mean square of z", "parameters": count, "value": rms, "ok": 0.4 < rms < 2}
    yield {"figure": "relative error of the mean gradient", "parameters": count, "value": relative, "ok": relative < 0.02}


def _flat(gradients) -> Tensor:
    return torch.cat([g.flatten() for g in gradients])


def finite_difference_error(energy, x: Tensor, h: float) -> float:
    """Largest deviation of score·v from the fourth-order central difference, relative to the largest |score·v|."""
    worst = 0.0
    for k in range(8):
        v = random.normal(*x.shape, generator=random.seeded(9, k), dtype=torch.float64)
        at = [energy(x + i * h * v).detach() for i in (-2, -1, 1, 2)]
        expected = -(at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * h)
        found = (score(energy, x) * v).flatten(1).sum(1)
        worst = max(worst, float((found - expected).abs().max() / expected.abs().max()))
    return worst


def _perturbed(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    module, generator = module.double().eval(), random.seeded(seed, 6)
    with torch.no_grad():
        for parameter in module.parameters():  # also what starts at zero takes part
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return module


def score_rows(seed: int) -> Iterator[Row]:
    points = lambda *shape: random.normal(*shape, generator=random.seeded(seed, 7), dtype=torch.float64)  # noqa: E731
    torch.manual_seed(seed)
    cases = {
        "MLP": (_perturbed(MLP(5, width=16), seed), points(8, 5)),
        "ConvEnergy": (_perturbed(ConvEnergy((2, 8, 8), widths=(4, 8, 8), blocks=1), seed), points(8, 2, 8, 8)),
        "ConvEnergy, channels last": (
            _perturbed(ConvEnergy((2, 8, 8), widths=(4, 8, 8)), seed),
            points(8, 2, 8, 8).to(memory_format=torch.channels_last),
        ),
    }
    for name, (energy, x) in cases.items():
        error = finite_difference_error(energy, x, 1e-3)
        yield {"energy": name, "relative_error": error, "ok": error < 1e-7}
    in_fp32, torch.Tensor.float = torch.Tensor.float, torch.Tensor.double  # EGC sums in fp32, which would drown the difference
    try:
        for net in (PatchNet(width=8, blocks=1), UNet(width=8, blocks=1, multipliers=(1, 2))):
            for readout in ("inner", "logits", "map"):
                method = _perturbed(tw.method("egc", seed=seed, shape=(2, 4, 4), classes=3, net=net, readout=readout), seed)
                error = finite_difference_error(lambda x, method=method: method.energy(x, t=300, label=1), points(8, 2, 4, 4), 1e-3)
                yield {"energy": f"EGC, {net.kind}, {readout}", "relative_error": error, "ok": error < 1e-6}
    finally:
        torch.Tensor.float = in_fp32
    for name in TOYS:
        law = toy(name)
        error = finite_difference_error(law.energy, law.sample(256, generator=random.seeded(seed, 8)).double(), 1e-4)
        yield {"energy": f"toy {name}", "relative_error": error, "ok": error < 1e-5}


# --- constants

CONSTANTS = {  # as printed: METHODS.md; a value's last digit is its tolerance
    "CDRL, signal²": (".99994 .93636 .76797 .53521 .29399 .10226 .00606", lambda: [a * a for a in noise.cosine_log_snr().signal]),
    "CDRL, noise": (".0074 .2523 .4817 .6818 .8402 .9475 .997", lambda: noise.cosine_log_snr().noise),
    "CDRL, step variance": (
        ".0636 .1798 .3031 .4507 .6522 .9407",
        lambda: noise.cosine_log_snr().step_variance(torch.arange(1, 7), torch.zeros(6, dtype=torch.float64)).tolist(),
    ),
    "DDAEBM, signal²": (".9999 .522 .079 .0034 .00004", lambda: [a * a for a in noise.vp().signal]),
    "EGC, mean signal², β to 0.02": (".2755", lambda: [sum(a * a for a in noise.linear_beta().signal[1:]) / 1000]),
    "EGC, mean signal², latent β": (".3091", lambda: [sum(a * a for a in noise.linear_beta(1000, 0.00085, 0.012).signal[1:]) / 1000]),
}


def constant_rows(seed: int) -> Iterator[Row]:
    for name, (printed, found) in CONSTANTS.items():
        texts, values = printed.split(), list(found())
        digits = [abs(value - float(text)) * 10 ** len(text.partition(".")[2]) for value, text in zip(values, texts)]
        deviation = max(abs(value - float(text)) for value, text in zip(values, texts))
        yield {"constants": name, "count": len(texts), "deviation": deviation, "in_last_digits": max(digits), "ok": max(digits) <= 1}


# --- EGC on N(0, I)


class StandardNormal:
    name, classes = "standard normal", ()

    def __init__(self, dim: int) -> None:
        self.shape = (dim,)

    def batch(self, start: int, count: int, seed: int) -> Batch:
        return Batch(random.normal(count, *self.shape, generator=random.seeded(seed, start)))


def egc_rows(seed: int, dim: int = 4, updates: int = 2000, batch: int = 256) -> Iterator[Row]:
    """A network whose base is not the answer (data_std 0.5) learns ε̂ = σ_t x; per dimension the loss floor is 0.2755."""
    fields = {"net": build.MLP(width=64, depth=2), "readout": "logits", "data_std": 0.5, "lr": 5e-3, "weight_decay": 0.0, "ema": 0.99}
    method = tw.method("egc", seed=seed, shape=(dim,), classes=0, batch=batch, images=updates * batch, **fields)
    ema = tw.fit(method, StandardNormal(dim), images=updates * batch, seed=seed, progress=False)
    t = torch.arange(1, 1001).repeat(100)
    generator = random.seeded(seed, 10)
    x0, epsilon = (random.normal(len(t), dim, generator=generator) for _ in range(2))
    with torch.no_grad():
        loss, _, _ = ema.losses(x0, None, t, epsilon)
    x_t = ema.schedule.diffuse(x0, t, epsilon)
    best = (ema.schedule.sigma(t, x_t) * x_t - epsilon).square().mean(1)
    floor = sum(a * a for a in ema.schedule.signal[1:]) / 1000
    error = math.sqrt(loss.view(100, 1000).var(0).mean().item() / len(t))
    ratio, paired = float(loss.mean()) / floor, float(loss.mean() / best.mean())
    yield {"figure": f"loss / {floor:.4f}", "value": ratio, "error": error / floor, "ok": abs(ratio - 1) < 0.02 + BOUND * error / floor}
    yield {"figure": "loss / loss of the best predictor, same draws", "value": paired, "error": 0.0, "ok": 0.999 < paired < 1.02}
    for level in (100, 200, 400, 700, 1000):
        x = random.normal(20_000, dim, generator=generator)
        line = -x  # of the marginal N(0, I), at every level
        found = score(ema.energy, x, t=level)
        slope, bound = float((found * line).sum() / line.square().sum()), 0.03 if level >= 200 else 0.1
        yield {"figure": f"score / exact score, level {level}", "value": slope, "error": 0.0, "ok": abs(slope - 1) < bound}


PARTS = {
    "samplers": sampler_rows,
    "contrastive gradient": contrastive_rows,
    "scores against finite differences": score_rows,
    "schedule constants": constant_rows,
    "EGC on N(0, I)": egc_rows,
}


def run(options: Options) -> dict:
    results, wrong = {}, 0
    for name, rows in PARTS.items():
        begun = time.monotonic()
        found = list(rows(options.seed))
        seconds = time.monotonic() - begun
        wrong += sum(not row["ok"] for row in found)
        results[name] = {"seconds": round(seconds, 1), "rows": found}
        print(f"\n{name} ({seconds:.1f} s)\n{table(found)}", flush=True)
    zs = [abs(row["z"]) for row in results["samplers"]["rows"]]
    results["summary"] = {
        "checks": sum(len(part["rows"]) for part in results.values()),
        "outside": wrong,
        "samplers_largest_z": max(zs),
        "samplers_rms_z": math.sqrt(sum(z * z for z in zs) / len(zs)),
    }
    print(f"\n{results['summary']}")
    return results


CHECK = Check("correctness", __doc__, run, dict(seed=0), failed=lambda results: results["summary"]["outside"] > 0)

if __name__ == "__main__":
    CHECK.main()
