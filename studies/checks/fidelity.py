"""Do the fidelity figures behave? Two halves of a data set, the training set against itself, and images with growing noise.

Real digits and Fashion-MNIST in a classifier's features, and Fashion-MNIST in EfficientNet-Lite0's.

    python -m studies.checks.fidelity --out studies/results/fidelity.json
"""

import torch

import thalweg as tw
from studies.runner import Check, Options, table
from studies.tables import Each, Section, Shown, Table
from thalweg import random

FIGURES = ("frechet", "kid", "precision", "recall", "density", "coverage")
NOISE = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # below 0.2 a change of 700 images' distance is within its sampling error
CASES = (("digits", "classifier", 700), ("fashion-mnist", "classifier", 2000), ("fashion-mnist", "efficientnet-lite0", 300))


def figures(real: torch.Tensor, other: torch.Tensor, extractor) -> dict[str, float]:
    metrics = ("frechet", "kid", "prdc") if len(real) > extractor.num_features else ("kid", "prdc")
    found = tw.evaluate.fidelity(real, other, extractor, metrics=metrics, seed=0)
    return {name: getattr(found, name).value for name in FIGURES if getattr(found, name) is not None}


def study(name: str, kind: str, n: int) -> dict:
    """`n` images a side; every set but the first is disjoint from it."""
    x = tw.data.load(name, "train").all().x
    x = x[torch.randperm(len(x), generator=random.seeded(0))]
    extractor = tw.evaluate.extractor(name) if kind == "classifier" else tw.evaluate.extractor_by_name(kind)
    real, other = x[:n], x[n : 2 * n]
    n = min(len(real), len(other))
    real, other = real[:n], other[:n]
    noise = random.normal(*other.shape, generator=random.seeded(1))
    rows = [{"set": "itself", **figures(real, real.clone(), extractor)}]
    rows += [
        {"set": "other half" if std == 0 else f"other half, noise {std}", **figures(real, (other + std * noise).clamp(-1, 1), extractor)}
        for std in NOISE
    ]
    steps = rows[1:]
    monotone = {figure: all(a[figure] < b[figure] for a, b in zip(steps, steps[1:])) for figure in ("frechet", "kid") if figure in steps[0]}
    return {"data": name, "extractor": extractor.name, "n": n, "rows": rows, "monotone_over_noise": monotone}


def run(options: Options) -> list[dict]:
    results = []
    for case in CASES:
        results.append(study(*case))
        print(f"{case}: monotone {results[-1]['monotone_over_noise']}\n" + table(results[-1]["rows"]), flush=True)
    return results


def columns(r: dict) -> list[str]:
    return ["second set = set", *(f"{figure}:.4g" for figure in FIGURES if figure in r["rows"][0])]


INTRO = "Real images only: a set against itself, against a disjoint half of the same data, and against that half with Gaussian noise."
SETS = Each("results", ["{data} in the features of {extractor}, {n} images a side:", Table(columns, "rows")])
PAGE = [Section("Fidelity", [Shown("fidelity", [SETS])], INTRO)]
CHECK = Check("fidelity", __doc__, run)

if __name__ == "__main__":
    CHECK.main()
