"""What the commands do with a trained model: pictures, samples, figures, the report. Knows no method by name."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thalweg import checkpoint, data, measure, plot, random, report, run_scenes, tasks
from thalweg import evaluate as ev
from thalweg.data.images import convert, to_unit
from thalweg.data.sources import SUFFIXES, decode, read_arrays
from thalweg.data.toy import TOYS, toy
from thalweg.errors import InputError, nearest
from thalweg.latent import as_images, load, wrap
from thalweg.methods.base import Method, has

HELD_OUT = 512


def held_out(name: str, size: int | None = None, autoencoder: str = "", source: str = "", views: int = 1) -> Any:
    """The batch that the best state is chosen by: validation images, or their latents, or fresh points of a toy.

    With a `source` of translation, images of both domains, as many of each; `views` images of an object beside each other.
    """
    if name in TOYS:
        return toy(name).batch(0, HELD_OUT, seed=1)
    if name.startswith("hf:") or source.startswith("hf:"):
        return None
    images = data.beside(wrap(data.load(name, "validation", size=size), autoencoder), views).all()
    if source:
        x = images.x[:HELD_OUT]
        start = data.load(source, "validation", size=x.shape[-1], channels=x.shape[1]).all().x[: len(x)]
        return data.UnpairedBatch(x[: len(start)], None, start) if len(start) >= 3 else None
    rows = HELD_OUT // views * views
    return type(images)(*(None if part is None else part[:rows] for part in images)) if len(images.x) >= 3 else None


def picture(method: Method, path: Path, images: int) -> None:
    """What a run shows of itself now and then: one row of samples a class (a value of the first concept, where there are several), a
    grid of samples, or density and samples of a toy."""
    method = as_images(method)
    config = method.config
    if not has(method, "sample"):  # an encoder, a plain classifier
        return
    if getattr(config, "source", ""):
        channels, _, size = config.shape
        x = data.load(config.source, "validation", size=size, channels=channels).batch(0, 32, seed=0).x
        found = tasks.translate(method, x).x
        plot.grid(torch.stack([x, found], 1).flatten(0, 1), path, columns=8, title=f"{images:,} images")
    elif getattr(config, "start_noise", 0.0):
        start = method.starts(32)["start"]
        found = tasks.denoise(method, start, config.start_noise)
        plot.grid(torch.stack([start.clamp(-1, 1), found.cpu()], 1).flatten(0, 1), path, columns=8, title=f"{images:,} images")
    elif len(config.shape) == 3:
        if measure.takes_labels(method):
            values = [len(values) for values in data.concepts(config.data).values()] or [config.classes]
            labels = torch.arange(values[0]).repeat_interleave(10)  # the labels of the first concept come first
            plot.grid(method.sample(len(labels), seed=0, label=labels), path, columns=10, title=f"{images:,} images")
        else:
            plot.grid(method.sample(64, seed=0), path, title=f"{images:,} images")
    elif config.data in TOYS and has(method, "energy"):
        plot.density({f"{images:,} images": method.energy}, toy(config.data), path, samples=method.sample(1000, seed=0))


# --- samples


def _class_labels(method: Method, label: str, n: int) -> Tensor:
    config = method.config
    concepts = data.concepts(config.data)
    if concepts:
        return data.attributes.asked_label(label, concepts, n)
    if label == "all":
        return torch.arange(n) % max(1, config.classes)
    names = data.class_names(config.data) or tuple(str(i) for i in range(config.classes))
    if label in names:
        return torch.full((n,), names.index(label))
    if label.isdigit():
        return torch.full((n,), int(label))
    raise InputError(f"unknown class '{label}'{nearest(label, names)}. Classes: {', '.join(names) or 'none'}")


def guidance_weights(method: Method, text: str) -> float | list[float]:
    """The number, or the numbers for each concept, that --guidance gives."""
    config = method.config
    return data.attributes.asked_guidance(text, data.concepts(config.data), getattr(config, "guidance", 0.0))


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
    options |= method.starts(n, seed)
    try:
        x = method.sample(n, seed=seed, **options)
    except TypeError as error:
        raise InputError(f"{method.name} does not take this sampling option: {str(error).split(') ')[-1]}") from None
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{method.name} cannot sample so: {error}") from None
    if out.suffix == ".npz":
        _write_arrays(out, x=x, **({} if labels is None else {"y": labels}))
    elif x.dim() == 4:
        plot.grid(x, out)
    elif method.config.data in TOYS:
        plot.density({method.name: method.energy}, toy(method.config.data), out, samples=x)
    else:
        raise InputError(f"samples of shape {tuple(x.shape[1:])} make no picture; use --out FILE.npz")
    return out


# --- figures


def evaluate(model: str, wanted: tuple[str, ...], settings: measure.Settings, *, which: str, device: str) -> dict[str, Any]:
    """All wanted figures of one model; a run folder also gets metrics.json, pictures and report.html."""
    method = load(model, which=which, device=device)
    measure.chosen(method, wanted)  # a metric that does not fit is said before anything is measured
    folder = Path(model)
    is_run = (folder / "stats.jsonl").exists()
    subject = measure.Subject(method, settings, folder / "report" if is_run else None)
    results = {"which": which} | measure.measure(subject, wanted)
    if is_run:
        measure.write_results(folder / "metrics.json", results)
        _report(folder, method, results, subject.pictures)
    return results


def print_table(results: dict[str, dict[str, Any]]) -> None:
    """The figures of every model, and where the reports are."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    for model, figures in results.items():
        table = Table(title=model, title_justify="left", show_header=False, show_edge=False)
        for row in measure.rows(figures):
            table.add_row(*map(escape, row[:3]))  # names hold brackets
        console.print(table)
        if (Path(model) / "report.html").exists():
            print(f"pictures and table: {Path(model) / 'report.html'}\ntry next: thalweg sample {model} -n 100 --out samples.png")


def comparable(models: tuple[str, ...]) -> None:
    """Raise InputError unless there are two models or more, of the same data and shape."""
    if len(models) < 2 or len(set(models)) < len(models):
        raise InputError("--compare needs two different models or more")
    kinds = {model: load(model).config for model in models}
    first, *others = kinds.items()
    for model, config in others:
        if (config.data, tuple(config.shape)) != (first[1].data, tuple(first[1].shape)):
            one, other = (f"{c.data} {tuple(c.shape)}" for c in (first[1], config))
            raise InputError(f"--compare needs models of the same data: {first[0]} is of {one}, {model} of {other}")


def print_comparison(results: dict[str, dict[str, Any]], picture: Path | None) -> None:
    """One table with a column a model, the best of each line in bold; and the same as a picture, if a path is given."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(show_edge=False)
    table.add_column("measure")
    for model in results:
        table.add_column(escape(model), justify="right")
    lines = measure.compare(results)
    for name, line in lines:
        best = measure.best(line)
        cells = ["–" if row is None else f"[bold]{row.text}[/bold]" if i in best else row.text for i, row in enumerate(line)]
        table.add_row(escape(name), *cells)
    Console().print(table)
    settings = next(iter(results.values()))["settings"]
    print(f"the same data, {settings['n']} samples each, seed {settings['seed']}, extractor {settings['extractor']}")
    if picture is not None:
        print(
            plot.comparison(
                {name: [None if r is None else (r.value, r.low, r.high) for r in line] for name, line in lines}, list(results), picture
            )
        )


# --- the report


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
        folder, title=f"{method.name} on {method.config.data}", table=[row[:3] for row in measure.rows(results)],
        pictures=[(caption, Path(path).relative_to(folder)) for caption, path in pictures],
        config=checkpoint.describe(method), footer="Divergence guard: " + ("; ".join(events) if events else "not needed") + ".",
    )  # fmt: skip


# --- tasks

SHOWN = 100  # images that a picture of restored ones holds at most


def apply(task: str, method: Method, source: str | None, out: Path, **options: Any) -> Path:
    """Run a task on a folder of pictures, one picture or an .npz, and write to `out`.

    classify, detect and pose write one JSON row an image; inpaint, restore and denoise a picture with one row an image (input, measured,
    completions) or an .npz of arrays, reconstruct and translate likewise; interpolate a strip of samples or an .npz, between two draws
    of noise or the first two images of an input. Tasks with objects in space read data with cameras, by name or folder, and also
    write animations (.gif). `options` are the task's.
    """
    config = method.config
    suffixes = (".json",) if task in ("classify", "detect", "pose") else (".png", ".npz")
    suffixes += (".gif",) if task == "turntable" else ()
    if out.suffix not in suffixes:
        raise InputError(f"--out {out}: the name must end in {' or '.join(suffixes)}")
    if out.is_dir() or not out.parent.is_dir():
        raise InputError(f"--out {out} is a folder, or in none; give a file in a folder that exists")
    if task == "classify" and not has(method, "classify"):
        raise InputError(f"{method.name} does not classify")
    if len(config.shape) != 3:
        raise InputError(f"apply is for models of images; this {method.name} was trained on points of shape {tuple(config.shape)}")
    if task in tasks.SCENES and task != "pose":
        arrays = run_scenes.apply(task, method, source, out, **options)
        return out if arrays is None else _write_arrays(out, **arrays)
    channels, _, size = config.shape
    names, x = ([], None) if source is None else _inputs(source, size, channels)
    if task == "interpolate":
        return _interpolate(method, x, out, **options)
    if task in ("classify", "detect", "pose"):
        if task == "pose":
            rows = run_scenes.degrees(tasks.pose(method, x))
        elif task == "classify":
            rows = tasks.classify(method, x, data.class_names(config.data) or tuple(str(i) for i in range(config.classes)))
        else:
            inliers = data.load(config.data, "validation", size=size).all().x
            rows = tasks.detect(ev.energies(method, x), ev.energies(method, inliers))
        rows = [{"input": name, **row} for name, row in zip(names, rows)]
        checkpoint.write_bytes(out, (json.dumps(rows, indent=1) + "\n").encode())
        return out
    if out.suffix == ".png" and len(x) > SHOWN:
        raise InputError(f"--out {out}: a picture shows {SHOWN} images at most, the input holds {len(x)}; use --out FILE.npz")
    return {"denoise": _denoise, "reconstruct": _reconstruct, "translate": _translate}.get(task, _restore)(method, x, out, **options)


def _restore(
    method: Method, x: Tensor, out: Path, *, operator: str, completions: int = 4, latent: bool = False, seed: int = 0, **options: Any
) -> Path:
    shape = tuple(method.config.shape)
    kind, _, mask = operator.partition(":")
    if kind == "mask" and Path(mask).suffix.lower() in SUFFIXES:
        a = tasks.operators.mask(_mask_file(mask, shape))
    else:
        a = tasks.operators.named(operator, shape, seed=seed)
    y = a.forward(x)
    if latent:
        stages = tasks.restore_latent(method, y, a, seed=seed)
        if out.suffix == ".npz":
            return _write_arrays(out, x=x, y=y, start=stages.start, refined=stages.refined, restored=stages.x)
        rows = torch.stack([x, a.pseudo_inverse(y).clamp(-1, 1), stages.start, stages.refined, stages.x], 1)
        return plot.grid(rows.flatten(0, 1), out, columns=rows.shape[1])
    if "search" in options:
        found = tasks.inpaint(method, x, a.known, completions=completions, seed=seed, **options)
    else:
        found = tasks.restore(method, y, a, completions=completions, seed=seed, **options)
    if out.suffix == ".npz":
        known = {"mask": a.known.expand(len(x), *shape)} if isinstance(a, tasks.operators.Mask) else {}
        return _write_arrays(out, x=x, y=y, completions=found, **known)
    rows = torch.cat([x[None], a.pseudo_inverse(y).clamp(-1, 1)[None], found])
    return plot.grid(rows.transpose(0, 1).flatten(0, 1), out, columns=len(rows))


def _denoise(method: Method, x: Tensor, out: Path, *, std: float, seed: int = 0, add_noise: bool = False) -> Path:
    y = x + std * random.normal_like(x, random.seeded(seed, 11)) if add_noise else x
    found = tasks.denoise(method, y, std, seed)
    if out.suffix == ".npz":
        return _write_arrays(out, x=x, y=y, denoised=found)
    rows = torch.stack([x, y, found] if add_noise else [x, found], 1)
    return plot.grid(rows.flatten(0, 1), out, columns=rows.shape[1])


def _reconstruct(method: Method, x: Tensor, out: Path, *, search: int = 200, seed: int = 0) -> Path:
    found = tasks.reconstruct(method, x, steps=search, seed=seed)
    if out.suffix == ".npz":
        return _write_arrays(out, x=x, reconstructed=found)
    return plot.grid(torch.stack([x, found], 1).flatten(0, 1), out, columns=2)


def _translate(method: Method, x: Tensor, out: Path, *, seed: int = 0) -> Path:
    found = tasks.translate(method, x, seed)
    if out.suffix == ".npz":
        return _write_arrays(out, x=x, translated=found.x, saliency=found.saliency, strip=found.strip)
    strongest = found.saliency.flatten(1).max(1).values.clamp(min=1e-12)
    shown = (2 * found.saliency / strongest[:, None, None] - 1)[:, None].expand_as(x)  # white: where this image changed most
    rows = torch.cat([found.strip, shown[None]])
    return plot.grid(rows.transpose(0, 1).flatten(0, 1), out, columns=len(rows))


def _interpolate(method: Method, images: Tensor | None, out: Path, *, seeds=(0, 1), steps: int = 8, seed: int = 0) -> Path:
    if images is None:
        shape = method.latent_shape
        a, b = (random.normal(*shape, generator=random.seeded(end, 12)) for end in seeds)
    elif len(images) < 2:
        raise InputError("interpolate goes from the first image of --input to the second, but there is only one")
    else:
        a, b = tasks.latents(method, images[:2], seed=seed)
    x = tasks.interpolate(method, a, b, steps, seed=seed)
    return _write_arrays(out, x=x) if out.suffix == ".npz" else plot.grid(x, out, columns=steps)


def _mask_file(name: str, shape: tuple[int, ...]) -> Tensor:
    """A mask from a picture of the model's size: known where it is lighter than mid-grey."""
    if not Path(name).is_file():
        raise InputError(f"mask {name}: there is no such file")
    values = decode(name, name, channels=1)[0]
    if tuple(values.shape) != shape[1:]:
        raise InputError(f"mask {name}: got {values.shape[0]} × {values.shape[1]} pixels, the model's images have {shape[1]} × {shape[2]}")
    return values > 127


def _write_arrays(out: Path, **arrays: Tensor) -> Path:
    import io

    import numpy as np

    buffer = io.BytesIO()
    np.savez(buffer, **{name: array.cpu().numpy() for name, array in arrays.items()})
    checkpoint.write_bytes(out, buffer.getvalue())
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
