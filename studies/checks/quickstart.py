"""Record what `make quickstart` measured, and make README's picture from it.

make quickstart && python -m studies.checks.quickstart --out studies/results/quickstart.json
"""

import json
from pathlib import Path

import torch

import thalweg as tw
from studies.runner import Check, Options
from studies.tables import Section, Shown, Table, shown


def picture(model, path: Path) -> None:
    """Digits on request, and the energies of held-out digits and of non-digits."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    labels = torch.arange(10).repeat_interleave(12)
    digits = model.sample(len(labels), seed=0, label=labels)
    padded = torch.nn.functional.pad(digits, (1, 1, 1, 1), value=-1.0)
    grid = padded.view(10, 12, 10, 10).permute(0, 2, 1, 3).reshape(100, 120)
    test = tw.data.load(model.config.data, "test").all()
    scores = {"held-out digits": tw.evaluate.energies(model, test.x)}
    for kind, name in (("interpolation", "two digits mixed"), ("shuffled", "pixels shuffled"), ("uniform", "noise")):
        scores[name] = tw.evaluate.energies(model, tw.evaluate.outliers(kind, test.x, len(test.x), 0))
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1.2, 1.3))
    left.imshow(grid, cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
    left.set_yticks([10 * i + 4.5 for i in range(10)], [str(i) for i in range(10)])
    left.set_xticks([])
    left.set_title("drawn on request, one row a digit")
    low, high = (torch.cat(list(scores.values())).quantile(q) for q in (0.001, 0.9))
    bins = torch.linspace(float(low), float(high), 70).tolist()
    for name, values in scores.items():
        right.hist(values.clamp(low, high).numpy(), bins=bins, alpha=0.6, label=name, density=True)
    right.set_xlabel("energy E(x), nats: lower is more likely (last bin: and beyond)")
    right.set_yticks([])
    right.legend(frameon=False)
    right.set_title("told apart by the same network's energy")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def run(options: Options) -> dict:
    metrics = json.loads((options.run / "metrics.json").read_text())
    rows = [json.loads(line) for line in (options.run / "stats.jsonl").read_text().splitlines()]
    last = [row for row in rows if any(key.startswith("loss/") for key in row)][-1]
    picture(tw.load(options.run), options.picture)
    return {
        "training_seconds": last["seconds"],
        "images": last["images"],
        "events": [row["event"] for row in rows if "event" in row],
        "config": json.loads((options.run / "config.json").read_text())["config"],
        "metrics": metrics,
    }


def figures(r: dict) -> list[dict]:
    m = r["metrics"]
    guided, free, named = *(m["fidelity"][kind] for kind in ("guided samples", "samples")), m["fidelity"]["class_accuracy"]
    frechet = guided["frechet"]
    rows = {
        "training": f"{r['training_seconds']:.0f} s, {r['images']:,} images, pictures and checkpoints included",
        "test accuracy": f"{shown(m['accuracy']['value'], '.1f %')} of {m['accuracy']['n']}",
        "class accuracy of guided samples": f"{shown(named['value'], '.1f %')} of {named['n']}",
        f"{frechet['name']} distance, guided samples": f"{frechet['value']:.2f}",
        "the same, unguided samples": f"{free['frechet']['value']:.2f}",
        "floor: real held-out images": f"{frechet['held_out']:.2f} (n = {guided['n']} against {guided['real']} training images)",
    }
    aurocs = {kind: found["auroc"] for kind, found in m["ood"]["energy"].items() if isinstance(found, dict)}
    rows |= {f"AUROC of held-out digits against {kind}": f"{auroc:.3f}" for kind, auroc in aurocs.items()}
    return [{"figure": figure, "value": value} for figure, value in rows.items()]


PAGE = [Section("Quickstart", [Shown("quickstart", [Table("figure | value", figures)])])]
CHECK = Check("quickstart", __doc__, run, dict(run=Path("runs/quickstart"), picture=Path("docs/images/quickstart.png"), seed=0))

if __name__ == "__main__":
    CHECK.main()
