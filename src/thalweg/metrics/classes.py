"""Of models that classify: accuracy, calibration, robustness."""

from dataclasses import asdict
from typing import Any

from thalweg import evaluate as ev
from thalweg import plot
from thalweg.metrics.base import Row, Subject, commonest, line


def accuracy(s: Subject) -> dict[str, Any]:
    return asdict(ev.accuracy(s.classify, s.test.x, s.test.label)) | {"chance": commonest(s.test.label)}


def accuracy_rows(r: dict[str, Any]) -> list[Row]:
    floor = "" if "chance" not in r else f"the most frequent class {100 * r['chance']:.1f} %"
    about = "Held-out examples whose class is told right."
    return [line("test accuracy", r["value"], ".1%", (r["low"], r["high"]), f"n = {r['n']}", "up", floor, about)]


def calibration(s: Subject) -> dict[str, Any]:
    found = ev.calibration(s.classify, s.test.x, s.test.label, seed=s.settings.seed)
    s.draw("Reliability of the classes' probabilities on held-out images", "reliability", lambda path: plot.reliability(found, path))
    return asdict(found)


def calibration_rows(r: dict[str, Any]) -> list[Row]:
    floor = f"a calibrated classifier would score {r['ece_floor']:.4f} at n = {r['n']}"
    return [
        line(
            "calibration error (ECE)",
            r["ece"],
            ".4f",
            r["ece_interval"],
            floor,
            "down",
            f"a calibrated classifier {r['ece_floor']:.4f}",
            "How far the probabilities of classes are from the shares that are right.",
        ),
        line("negative log-likelihood of labels", r["nll"], ".4f", r["nll_interval"], "nats", "down"),
    ]


def robustness(s: Subject) -> dict[str, Any]:
    n = min(len(s.test.x), s.settings.n, 200)  # each that withstands costs 80 + 20 · classes gradients at every ε
    x, label = s.test.x[:n].to(s.device), s.test.label[:n].to(s.device)
    found = ev.robustness(s.method.classify, x, label, steps=20, restarts=2, seed=s.settings.seed)
    s.draw("Accuracy under attacks in the sup-norm", "robustness", lambda path: plot.robustness(found, path))
    return asdict(found)


def robustness_rows(r: dict[str, Any]) -> list[Row]:
    masked = "" if r["checks"]["passed"] else "gradient-masking checks FAILED: do not trust; "
    table = []
    for epsilon, auto, pgd, fgsm in zip(r["epsilons"], r["auto"], r["pgd"], r["fgsm"]):
        note = f"{masked}PGD alone {100 * pgd['value']:.1f}, FGSM {100 * fgsm['value']:.1f}, n = {r['n']}"
        name = f"accuracy under PGD and Auto-PGD, ε = {255 * epsilon:.3g}/255"
        table.append(line(name, auto["value"], ".1%", (auto["low"], auto["high"]), note, "up"))
    return table
