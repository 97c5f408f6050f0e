"""What the commands do with a trained model: pictures, samples, figures, the report. Knows no method by name."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thalweg import checkpoint, data, plot, report, tasks
from thalweg import evaluate as ev
from thalweg.data.base import Batch
from thalweg.data.images import convert, to_unit
from thalweg.data.sources import SUFFIXES, decode, read_arrays
from thalweg.data.toy import TOYS, toy
from thalweg.errors import InputError, nearest
from thalweg.methods.base import Method
from thalweg.save import load

METRICS = ("density", "accuracy", "fidelity", "ood")
HELD_OUT = 512


def held_out(name: str, size: int | None = None) -> Batch | None:
    """The batch that the best state is chosen by: validation images, or fresh points of a toy."""
    if name in TOYS:
        return toy(name).batch(0, HELD_OUT, seed=1)
    if name.startswith("hf:"):
        return None
    images = data.load(name, "validation", size=size).all()
    return Batch(*(None if part is None else part[:HELD_OUT] for part in images)) if len(images.x) >= 3 else None


def picture(method: Method, path: Path, images: int) -> None:
    """What a run shows of itself now and then: one row of samples a class, a grid of samples, or density and samples of a toy."""
    config = method.config
    if len(config.shape) == 3:
        if _takes_labels(method):
            labels = torch.arange(config.classes).repeat_interleave(10)
            plot.grid(method.sample(len(labels), seed=0, label=labels), path, columns=10, title=f"{images:,} images")
        else:
            plot.grid(method.sample(64, seed=0), path, title=f"{images:,} images")
    elif config.data in TOYS and hasattr(method, "energy"):
        plot.density({f"{images:,} images": method.energy}, toy(config.data), path, samples=method.sample(1000, seed=0))


def _takes_labels(method: Method) -> bool:
    return bool(method.config.classes) and getattr(method.config, "conditional", hasattr(method, "classify"))


# --- samples


def _class_labels(method: Method, label: str, n: int) -> Tensor:
    config = method.config
    if label == "all":
        return torch.arange(n) % max(1, config.classes)
    names = data.class_names(config.data) or tuple(str(i) for i in range(config.classes))
    if label in names:
        return torch.full((n,), names.index(label))
    if label.isdigit():
        return torch.full((n,), int(label))
    raise InputError(f"unknown class '{label}'{nearest(label, names)}. Classes: {', '.join(names) or 'none'}")


def sample_to(method: Method, out: Path, n: int, *, seed: int, label: str | None, **options: Any) -> Path:
    """Draw `n` samples and write them to a .png or .npz; options that are None are left to the method."""
    if not out.parent.is_dir():
        raise InputError(f"the folder {out.parent} does not exist")
    if out.is_dir():
        raise InputError(f"--out {out} is a folder; give a file")
    options = {key: value for key, value in options.items() if value is not None}
    labels = None if label is None else _class_labels(method, label, n)
    if labels is not None:
        options["label"] = labels
    try:
        x = method.sample(n, seed=seed, **options)
    except TypeError as error:
        raise InputError(f"{method.name} does not take this sampling option: {str(error).split(') ')[-1]}") from None
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{method.name} cannot sample so: {error}") from None
    if out.suffix == ".npz":
        import io

        import numpy as np

        buffer = io.BytesIO()
        np.savez(buffer, x=x.cpu().numpy(), **({} if labels is None else {"y": labels.numpy()}))
        checkpoint.write_bytes(out, buffer.getvalue())
    elif x.dim() == 4:
        plot.grid(x, out)
    elif method.config.data in TOYS:
        plot.density({method.name: method.energy}, toy(method.config.data), out, samples=x)
    else:
        raise InputError(f"samples of shape {tuple(x.shape[1:])} make no picture; use --out FILE.npz")
    return out


# --- figures


def check_metrics(wanted: str) -> tuple[str, ...]:
    """Metric names from a comma-separated list; "auto" is all of them, as far as they fit."""
    if wanted == "auto":
        return ("auto",)
    names = tuple(part.strip() for part in wanted.split(","))
    for name in names:
        if name not in METRICS:
            raise InputError(f"unknown metric '{name}'{nearest(name, METRICS)}. Metrics: {', '.join(METRICS)}, auto")
    return names


def evaluate(model: str, wanted: tuple[str, ...], *, n: int, seed: int, which: str, device: str) -> dict[str, Any]:
    """All wanted figures of one model; a run folder also gets metrics.json, pictures and report.html."""
    method = load(model, which=which, device=device)
    config, folder = method.config, Path(model)
    fitting = ("density",) if config.data in TOYS else ("accuracy", "fidelity", "ood") if len(config.shape) == 3 else ()
    if wanted == ("auto",):
        wanted = tuple(name for name in fitting if name != "accuracy" or hasattr(method, "classify"))
    elif bad := [name for name in wanted if name not in fitting or (name == "accuracy" and not hasattr(method, "classify"))]:
        raise InputError(f"metric '{bad[0]}' does not fit {method.name} on {config.data}; fitting are: {', '.join(fitting) or 'none'}")
    is_run = (folder / "stats.jsonl").exists()
    shown = folder / "report" if is_run else None
    if shown is not None:
        shown.mkdir(exist_ok=True)
    results: dict[str, Any] = {"n": n, "seed": seed, "which": which}
    pictures: list[tuple[str, Path]] = []
    if config.data in TOYS:
        results |= _density(method, n, seed, shown, pictures)
    elif wanted:
        results |= _images(method, wanted, n, seed, shown, pictures)
    if shown is not None:
        checkpoint.write_bytes(folder / "metrics.json", (json.dumps(results, indent=2) + "\n").encode())
        _report(folder, method, results, pictures)
    return results


def _density(method: Method, n: int, seed: int, shown: Path | None, pictures: list) -> dict[str, Any]:
    truth = toy(method.config.data)
    x = method.sample(n, seed=seed)
    real = truth.sample(max(n, 4096), generator=torch.Generator().manual_seed(seed + 1))
    if shown is not None:
        pictures.append(
            (
                "Density of the truth and of the model, with its samples",
                plot.density({"model": method.energy}, truth, shown / "density.png", samples=x),
            )
        )
    results = {"density": asdict(ev.density(method.energy, truth)), "energy_distance": asdict(ev.energy_distance_interval(x, real))}
    return results | ({"mode_coverage": asdict(ev.mode_coverage(x, truth))} if truth.modes is not None else {})


def _images(method: Method, wanted: tuple[str, ...], n: int, seed: int, shown: Path | None, pictures: list) -> dict[str, Any]:
    config = method.config
    size = config.shape[-1]
    train, test = (data.load(config.data, split, size=size).all() for split in ("train", "test"))
    device = next(method.parameters()).device
    results: dict[str, Any] = {}
    if "accuracy" in wanted:
        results["accuracy"] = asdict(ev.accuracy(lambda x: method.classify(x.to(device)).cpu(), test.x, test.label))
    if "fidelity" in wanted:
        if train.label is None:
            raise InputError(f"fidelity needs data with labels to train its feature extractor on; {config.data} has none")
        extractor = ev.extractor(((train.x, train.label), (test.x, test.label)), name=config.data)
        results["extractor_test_accuracy"] = extractor.test_accuracy
        kinds = {"samples": {}} | ({"guided samples": {"label": torch.arange(n) % config.classes}} if _takes_labels(method) else {})
        for kind, options in kinds.items():
            x = method.sample(n, seed=seed, **options).cpu()
            # the first ones, not a random draw: labels go round, so that as many of each class are compared as there are in the test set
            compared = x[: len(test.x)]
            results[kind] = asdict(ev.frechet_distance(train.x, compared, extractor, held_out=test.x, n=len(compared)))
            if options:
                results["class_accuracy"] = asdict(ev.class_accuracy(x, options["label"], extractor))
            if shown is not None:
                if options:  # one row a class
                    x = x[: config.classes * 10].view(10, config.classes, *config.shape).transpose(0, 1).flatten(0, 1)
                caption = f"{kind.capitalize()} of the trained model" + (", one row a class" if options else "")
                pictures.append((caption, plot.grid(x[:100], shown / f"{kind.replace(' ', '_')}.png", columns=10)))
    if "ood" in wanted:
        results["ood"] = _ood(method, test.x, shown, pictures, seed)
    return results


def _ood(method: Method, inliers: Tensor, shown: Path | None, pictures: list, seed: int) -> dict[str, Any]:
    scores = {"held-out": ev.energies(method, inliers)}
    results = {}
    for kind in ("uniform", "constant", "noise", "interpolation", "shuffled"):
        scores[kind] = ev.energies(method, ev.outliers(kind, inliers, len(inliers), seed))
        results[kind] = asdict(ev.ood(scores["held-out"], scores[kind]))
    results["mean_auroc"] = sum(r["auroc"] for r in results.values()) / len(results)
    if shown is not None:
        pictures.append(("Energies of held-out images and of outliers", plot.histogram(scores, shown / "energies.png")))
    return results


# --- the report


def rows(results: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Figures as (name, value, note) for a table."""
    table = []
    if "accuracy" in results:
        table.append(_share("test accuracy", results["accuracy"]))
    if "class_accuracy" in results:
        table.append(_share("class accuracy of guided samples", results["class_accuracy"], "by the extractor"))
    for kind in ("guided samples", "samples"):
        if kind in results:
            r = results[kind]
            floor = f"floor {r['floor']:.2f}: {r['n']} real held-out images against the same {r['real']} training images"
            ratio = f"{r['value'] / r['floor']:.2f} × the {floor}"
            table.append((f"{r['name']} distance, {kind}", f"{r['value']:.2f}", ratio))
    for kind, r in results.get("ood", {}).items():
        if isinstance(r, dict):
            low, high = r["auroc_interval"]
            table.append(
                (f"OOD AUROC against {kind}", f"{r['auroc']:.4f}", f"95 % interval {low:.4f} to {high:.4f}; FPR@95 {r['fpr95']:.3f}")
            )
    if "density" in results:
        r = results["density"]
        table.append(("KL(truth‖model)", f"{r['kl_truth_model']:.4f}", "nats, both normalised on a grid"))
        table.append(("KL(model‖truth)", f"{r['kl_model_truth']:.4f}", "nats"))
        table.append(("total variation", f"{r['total_variation']:.4f}", ""))
        if r["modes"]:
            table.append(("modes missing", str(r["modes_missing"]), f"of {r['modes']}"))
        e = results["energy_distance"]
        table.append(("energy distance of samples", f"{e['value']:.4f}", f"95 % interval {e['low']:.4f} to {e['high']:.4f}"))
    return table


def _share(name: str, r: dict[str, Any], note: str = "") -> tuple[str, str, str]:
    return (
        name,
        f"{100 * r['value']:.1f} %",
        f"{note}{', ' if note else ''}95 % interval {100 * r['low']:.1f} to {100 * r['high']:.1f}, n = {r['n']}",
    )


def print_table(results: dict[str, dict[str, Any]]) -> None:
    """The figures of every model, and where the reports are."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for model, figures in results.items():
        table = Table(title=model, title_justify="left", show_header=False, show_edge=False)
        for row in rows(figures):
            table.add_row(*row)
        console.print(table)
        if (Path(model) / "report.html").exists():
            print(f"pictures and table: {Path(model) / 'report.html'}\ntry next: thalweg sample {model} -n 100 --out samples.png")


def _report(folder: Path, method: Method, results: dict[str, Any], pictures: list[tuple[str, Path]]) -> None:
    stats = checkpoint.read_stats(folder)
    keys = {key for row in stats for key in row}
    groups = {
        "losses": sorted(k for k in keys if k.startswith("loss/") or k in ("score_matching", "cross_entropy")),
        "energies": sorted(k for k in keys if k.startswith("energy_")),
        "held-out criterion": [k for k in ("criterion",) if k in keys],
        "gradient norms": sorted(k for k in keys if k.startswith("gradient_norm/")),
        "accuracy and acceptance": sorted(k for k in keys if k in ("accuracy", "acceptance")),
    }
    rows_with_figures = [row for row in stats if "event" not in row]
    if rows_with_figures:
        path = plot.curves(rows_with_figures, {title: group for title, group in groups.items() if group}, folder / "report" / "curves.png")
        pictures = [*pictures, ("The run", path)]
    snapshots = sorted((folder / "samples").glob("*.png"))
    for path in snapshots[:: max(1, len(snapshots) // 4)]:
        pictures.append((f"Samples after {int(path.stem):,} images", path))
    events = [row["event"] for row in stats if "event" in row]
    report.write(
        folder, title=f"{method.name} on {method.config.data}", table=rows(results),
        pictures=[(caption, Path(path).relative_to(folder)) for caption, path in pictures],
        config=checkpoint.describe(method), footer="Divergence guard: " + ("; ".join(events) if events else "not needed") + ".",
    )  # fmt: skip


# --- tasks


def apply(task: str, method: Method, source: str, out: Path) -> Path:
    """Run a task on a folder of pictures, one picture or an .npz, and write one JSON row an image to `out`."""
    config = method.config
    if out.suffix != ".json":
        raise InputError(f"--out {out}: the name must end in .json")
    if task == "classify" and not hasattr(method, "classify"):
        raise InputError(f"{method.name} does not classify")
    if len(config.shape) != 3:
        raise InputError(f"apply is for models of images; this {method.name} was trained on points of shape {tuple(config.shape)}")
    channels, _, size = config.shape
    names, x = _inputs(source, size, channels)
    if task == "classify":
        rows = tasks.classify(method, x, data.class_names(config.data) or tuple(str(i) for i in range(config.classes)))
    else:
        inliers = data.load(config.data, "validation", size=size).all().x
        rows = tasks.detect(ev.energies(method, x), ev.energies(method, inliers))
    rows = [{"input": name, **row} for name, row in zip(names, rows)]
    checkpoint.write_bytes(out, (json.dumps(rows, indent=1) + "\n").encode())
    return out


def _inputs(source: str, size: int, channels: int) -> tuple[list[str], Tensor]:
    path = Path(source)
    if path.suffix == ".npz" and path.is_file():
        x = to_unit(convert(read_arrays(path).x, size, channels))
        return [f"{path.name}[{i}]" for i in range(len(x))], x
    files = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise InputError(f"--input {source}: no picture there; give a folder with pictures, one picture, or an .npz")
    return [str(f) for f in files], to_unit(torch.stack([decode(f, str(f), size, channels) for f in files]))
