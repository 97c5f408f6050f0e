"""`compare`: the rows of several methods at several seeds, one after another or several at a time, kept in a folder."""

import dataclasses
import json
import multiprocessing
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch

from thalweg import checkpoint
from thalweg.arena.entrants import Entrant, Named, entrants
from thalweg.arena.page import write_page
from thalweg.arena.row import Plan, Row, measured
from thalweg.data.prepare import image_size
from thalweg.errors import InputError
from thalweg.methods import preset
from thalweg.progress import Work, say


def compare(
    methods: Iterable[Named] | Mapping[str, Named],
    data: str | Mapping[str, Any],
    *,
    out: str | Path,
    seconds: float = 300.0,
    seeds: int = 1,
    jobs: int = 1,
    progress: bool = True,
    **settings: Any,
) -> list[Row]:
    """Train each of `methods` for `seconds` on `data` at `seeds` seeds, measure all alike; returns a row for each method and seed.

    `methods`: METHOD, METHOD/PRESET, FILE.py:CLASS, or (one of these, fields), in a list or by names of one's own; a METHOD alone takes
    its preset nearest to the data. `data`: a name or path, or {"train": …, "test": …} with what `tw.data.of` takes. `seconds`: CPU seconds
    of one thread a training, on a GPU seconds. `jobs`: trainings at a time, no more than there are cores, each in a process of its own.
    `settings`: further fields of `Plan`: n, precision, device, size, outliers, curve. The folder `out` holds each run, the rows as
    compare.json, and compare.html; the same call goes on where it was cut off. Raises InputError for wrong settings, and for a folder
    that holds a comparison with others.
    """
    plan, folder = Plan(data, seconds=seconds, **settings), Path(out)
    for name, value in {"seconds": seconds, "seeds": seeds, "jobs": jobs, "n": plan.n}.items():
        if not value > 0:
            raise InputError(f"{name} must be above 0, got {value}")
    if isinstance(data, Mapping) and set(data) != {"train", "test"}:
        raise InputError(f"data of one's own are given as {{'train': …, 'test': …}}, got {', '.join(map(str, data)) or 'nothing'}")
    who = entrants(methods, plan.train_data())
    if not who:
        raise InputError("there is nothing to compare: name one method or more")
    plan = dataclasses.replace(plan, size=plan.size or _size(who, plan))
    _same_plan(folder, plan)
    todo = [(one, seed) for seed in range(seeds) for one in who]
    rows: dict[tuple[str, int], Row] = {}
    with Work(f"row 1 of {len(todo)}", shown=progress) as work:
        for one, seed, row in _rows(todo, plan, folder, jobs, progress):
            rows[one.name, seed] = row
            if progress:
                say(_said(row, len(rows), len(todo)))
            work.note(len(rows) / len(todo), f"row {min(len(todo), len(rows) + 1)} of {len(todo)}")
            found = [rows[key] for key in ((one.name, seed) for one in who for seed in range(seeds)) if key in rows]
            checkpoint.write_bytes(folder / "compare.json", (json.dumps(found, indent=1) + "\n").encode())
            write_page(folder, found, plan)
    return found


def _rows(todo: list[tuple[Entrant, int]], plan: Plan, folder: Path, jobs: int, progress: bool) -> Iterable[tuple[Entrant, int, Row]]:
    if jobs == 1:
        threads = torch.get_num_threads()
        try:
            if plan.device == "cpu":
                torch.set_num_threads(1)  # the price is of one thread
            for one, seed in todo:
                if progress:
                    say(f"{one.name}, seed {seed}")
                yield one, seed, measured(one, seed, plan, place(folder, one, seed), progress=progress)
        finally:
            torch.set_num_threads(threads)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=spawn, initializer=torch.set_num_threads, initargs=(1,), max_tasks_per_child=1) as pool:
        asked = {pool.submit(measured, one, seed, plan, place(folder, one, seed), progress=False): (one, seed) for one, seed in todo}
        try:
            for done in as_completed(asked):
                yield *asked[done], done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def place(folder: Path, one: Entrant, seed: int) -> Path:
    """The folder of a run."""
    return folder / f"{one.folder}-{seed}"


def _size(who: list[Entrant], plan: Plan) -> Any:
    """The size of images that those entrants have whose presets are made for the data, which the others take too; None for their own.

    InputError where such presets have several.
    """
    configs = [preset(one.preset)[1] for one in who]
    sizes = {image_size(tuple(c.shape)) for c in configs if c.data == plan.data and not c.data_needs.autoencoder} - {None}
    if len(sizes) > 1:
        raise InputError(f"presets of {plan.data} have images of sides {', '.join(map(str, sorted(sizes)))}: say which, --size or size=")
    return next(iter(sizes), None)


def _same_plan(folder: Path, plan: Plan) -> None:
    """Keep the plan in the folder; InputError where another one is there."""
    path, told = folder / "plan.json", plan.told()
    if folder.exists() and not path.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is no comparison; give a new or empty folder")
    with checkpoint.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if path.exists():
        before = json.loads(path.read_text())
        if differs := [key for key in told if before.get(key) != told[key]]:
            said = ", ".join(f"{key} {before.get(key)} there, {told[key]} asked for" for key in differs)
            raise InputError(f"{folder} holds a comparison with other settings ({said}); give another folder")
    checkpoint.write_bytes(path, (json.dumps(told, indent=1) + "\n").encode())


def _said(row: Row, done: int, of: int) -> str:
    who = f"[{done}/{of}] {row['method']}, seed {row['seed']}"
    for key in ("refused", "diverged"):
        if key in row:
            return f"{who}: {key}: {row[key]}"
    last = row["curve"][-1]["value"]
    quality = "" if last is None else f", at its end {last:.4g}"
    return f"{who}: {row['images']:,} images in {row['cpu_seconds']:.0f} s{quality}"
