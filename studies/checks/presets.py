"""Does every preset start as it is? `thalweg train PRESET --dry-run` with its true network, on small data in the real sets' layout.

    python -m studies.checks.presets [--only egc cf_ebm/celeba-64] [--out FILE]

Each preset in a process of its own, in a folder that holds what `studies.checks.layouts` makes: pictures at their real size, a batch of 2
(or the smallest that the preset takes). What a step costs is counted on the meta device (`studies.pretend`), at the start, the middle and
the end of the run, on the whole network whatever the stage. Where two images take more than `WHOLE` operations, chains of the dry run have
one step; where they would take more than `MOST` even so, or weights, averages and moments more than 4 GiB, the preset is walked through on
the meta device alone.
"""

import json
import os
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from studies.checks.layouts import make
from studies.pretend import chain_fields, operations
from studies.runner import Check, Options, Row
from studies.tables import Table
from thalweg.commands.list import SIZES, tables
from thalweg.config import all_fields, changed
from thalweg.data.prepare import prepare
from thalweg.methods import preset

WHOLE, MOST = 1e11, 1e12
GIB = 2**30
KNOWN = "counts.json"  # operations of steps, by what they hang on
STATES = 5  # weights, EMA twin, two moments, gradients
AT = (0.125, 0.375, 0.625, 0.875)  # of a run's length
PEAK = {"H200, H100": 989e12}  # dense bf16 operations a second, NVIDIA's data sheet
SHARE = 0.4  # of the peak, which no device run here has measured

# parameters in the papers, and where; presets that are not here have none printed
PAPERS = {
    "cf_ebm/cifar10": (2.7e6, "Table 3"),
    "cf_ebm/imagenet-32": (5.82e6, "Table 7"),
    "cf_ebm/translate-256": (649e3, "Table 5"),
    "cf_ebm/translate-256-dogs": (649e3, "Table 5"),
    "coopflow/cifar10": (45.9e6, "Table 4.8"),
    "coopflow/cifar10-long": (45.9e6, "Table 4.8"),
    "coopflow/cifar10-pre": (45.9e6, "Table 4.8"),
    "nerf_lebm/carla-amortized": (24.52e6, "Table 3.7a"),
    "nerf_lebm/carla-mcmc": (2.21e6, "Table 3.7a"),
    "nerf_lebm/shapenet-cars": (2.21e6, "Table 3.7a"),
    "liebm/cifar10": (9.2e6, "Table 12, E and G"),
    "liebm/imagenet-32": (33.6e6, "Table 12, E and G"),
    "liebm/celeba-64": (48.1e6, "Table 12, E, G and q"),
    "liebm/celebahq-256": (83.1e6, "Table 12, E, G and q"),
}
# where they differ by more than a tenth
REASONS = {
    "cf_ebm/cifar10": "of Table 6's layers this is the count; what else the paper counts it does not say",
    "cf_ebm/imagenet-32": "as CIFAR-10's, at c = 48",
    "cf_ebm/translate-256": "Table 5 does not say at which size its 649,000 are; ours are of six stages",
    "cf_ebm/translate-256-dogs": "as translate-256",
    "nerf_lebm/carla-amortized": "a ResNet-34 of 21.3 million in both; heads and mapping networks as the text has them",
    "liebm/cifar10": "networks are ours, not Dual-MCMC's; with the head of g",
    "liebm/celeba-64": "networks are ours, not Dual-MCMC's",
}


def row(name: str, work: Path) -> Row:
    """What becomes of one preset, in this process."""
    kind, config = preset(name)
    found: Row = {"preset": name, "parameters": json.loads(SIZES.read_text())[name], "images": config.images, "batch": config.batch}
    if name in PAPERS:
        paper, where = PAPERS[name]
        found |= {"paper": paper, "where": where, "ratio": round(found["parameters"] / paper, 3)}
    pictures = len(config.shape) == 3
    known = json.loads((work / KNOWN).read_text()) if (work / KNOWN).exists() else {}
    counts = over_the_run(kind, config, known) if pictures else []
    (work / KNOWN).write_text(json.dumps(known))
    if pictures:
        found["operations_image"] = sum(counts) / len(counts)
        found["gpu_hours"] = found["operations_image"] * config.images / (SHARE * PEAK["H200, H100"]) / 3600
    short = changed(config, **{field: _once(value) for field, value in chain_fields(config).items()}, **uncompiled(config))
    batch = smallest(config)
    # a dry run is of the start, where a network that grows is small
    first = operations(kind, config, (0.0,), known)[0] if max(counts, default=0) * batch > WHOLE else 0
    shortened = first * batch > WHOLE
    least = operations(kind, short, (0.0,), known)[0] if shortened else 0
    large = 4 * STATES * found["parameters"] > 4 * GIB
    if large or least * batch > MOST:
        why = (
            "weights and their states above 4 GiB" if large else f"a step of {batch} takes {least * batch / 1e12:.1f} TFLOP without chains"
        )
        os.chdir(work)
        data = prepare(config, config.data, "train")
        return found | {"run": "meta", "why": why, "ok": tuple(data.batch(0, batch, 0).x.shape) == (batch, *config.shape)}
    words = ["train", name, "--dry-run", "--device", "cpu", "--batch", str(batch), *given(config, name)]
    for field, value in ({**chain_fields(short)} if shortened else {}).items():
        words += [f"--{field}", json.dumps(value) if isinstance(value, tuple) else str(value)]
    for field in uncompiled(config):
        words += [f"--{field}", "false"]
    started = time.monotonic()
    code = dry_run(words, work)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return found | {
        "run": "chains of one step" if shortened and chain_fields(config) else "whole", "dry_batch": batch, "ok": code == 0,
        "seconds": round(time.monotonic() - started, 1), "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_gib": round(used.ru_maxrss / 2**20, 2),
    }  # fmt: skip


def over_the_run(kind: Any, config: Any, known: dict[str, float]) -> list[float]:
    """Operations an image at four places of a run; where first and last are alike, so are those between."""
    first, last = operations(kind, config, (AT[0], AT[-1]), known)
    return [first, *operations(kind, config, AT[1:-1], known), last] if abs(first - last) > 1e-6 * last else [first, last]


def _once(value: Any) -> Any:
    return (1,) * len(value) if isinstance(value, tuple) else min(1, value)


def uncompiled(config: Any) -> dict[str, bool]:
    """Fields that ask for the compiler, which takes longer than a step."""
    return {name: False for name in all_fields(config) if name.rpartition(".")[2] == "compile"}


def smallest(config: Any) -> int:
    """The smallest batch of two or more that a preset takes."""
    return max(2, *getattr(config, "stage_splits", (1,)))


def given(config: Any, name: str) -> list[str]:
    """Data for presets that are for one's own."""
    if config.data:
        return []
    return ["--data", "data/table.csv"] if len(config.shape) == 1 else ["--data", "data/celebahq-512", "--size", str(config.shape[1])]


def dry_run(words: list[str], work: Path) -> int:
    """The exit code of a command in the folder `work`."""
    from thalweg.commands.main import main

    os.chdir(work)
    return main(words)


def forked(name: str, work: Path) -> Row:
    """`row` in a fork of this process, whose memory is its own; what it said is kept where it failed."""
    answer, said = work / "row.json", work / "said.txt"
    answer.unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        with open(said, "w") as file:
            os.dup2(file.fileno(), 1), os.dup2(file.fileno(), 2)
            try:
                answer.write_text(json.dumps(row(name, work)))
            except BaseException:
                traceback.print_exc()
            os._exit(0)
    os.waitpid(pid, 0)
    found = json.loads(answer.read_text()) if answer.exists() else {"preset": name, "ok": False}
    return found if found["ok"] else found | {"said": said.read_text()[-2000:]}


def prepare_folder(work: Path, **options: Any) -> None:
    """Data, an autoencoder of Fashion-MNIST trained for a few steps, and an environment that looks for them here."""
    os.environ |= {
        "THALWEG_DATA": "node_modules", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(work / "hf"),
        "HF_DATASETS_CACHE": str(work / "hf/datasets"), "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    }  # fmt: skip
    make(work, **options)


def few_objects() -> None:
    """Procedural chairs and cars by the dozen: rendering all of them takes minutes."""
    from functools import partial

    from thalweg import data

    for name in data.PROCEDURAL:
        data._BUILT_IN[name] = partial(data._BUILT_IN[name], objects=20, views=4)  # type: ignore[operator]


def run(options: Options) -> dict[str, Any]:
    names = [f"{method}/{key}" for method, rows in tables().items() for key in rows]
    if options.only != [""]:
        names = [name for name in names if name in options.only or name.partition("/")[0] in options.only]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        prepare_folder(work)
        few_objects()
        import datasets  # noqa: F401 (a fork has it then)

        import thalweg.train  # noqa: F401

        if any(name.endswith("fashion-mnist-latent") for name in names):
            pid = os.fork()
            if pid == 0:
                words = "train autoencoder/fashion-mnist --images 64 --batch 32 --out runs/autoencoder --device cpu"
                os._exit(dry_run(words.split(), work))
            os.waitpid(pid, 0)
        for name in names:
            rows.append(forked(name, work))
            shown = {key: value for key, value in rows[-1].items() if key not in ("images", "batch")}
            print(json.dumps(shown), file=sys.stderr, flush=True)
    kept = earlier(Path(options.out)) if options.only != [""] else {}
    rows = list((kept | {found["preset"]: found for found in rows}).values())
    return {"whole": WHOLE, "most": MOST, "share": SHARE, "peak": PEAK, "rows": rows}


def earlier(out: Path) -> dict[str, Row]:
    """The rows of an earlier result, which a run of some presets keeps."""
    return {found["preset"]: found for found in json.loads(out.read_text())["results"]["rows"]} if out.exists() else {}


def failed(results: Mapping[str, Any]) -> bool:
    return any(not found["ok"] or beyond(found) for found in results["rows"])


def beyond(found: Mapping[str, Any]) -> bool:
    """Whether parameters differ from the paper's by more than a tenth and nobody says why."""
    return abs(found.get("ratio", 1.0) - 1) > 0.1 and found["preset"] not in REASONS


def amount(value: float) -> str:
    """A number with its unit's letter: 639 k, 2.11 M."""
    for limit, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g} {letter}"
    return f"{value:.3g}"


def beside(found: Row) -> str:
    """The paper's parameters, with ours as a share of them and why they differ."""
    if "paper" not in found:
        return "–"
    why = f"; {REASONS[found['preset']]}" if abs(found["ratio"] - 1) > 0.1 else ""
    return f"{amount(found['paper'])} ({found['where']}), {100 * found['ratio']:.0f} %{why}"


HOW = {"whole": "a whole step", "chains of one step": "a step with chains of one", "meta": "without values"}
LARGE = 1e16  # operations of a run, from which a row says how many hours


def table(results: Mapping[str, Any]) -> str:
    """The table of docs/scale.md: presets whose runs take hours of a GPU; in one line how all of them started."""
    columns = [
        "preset = preset", ("parameters", lambda row: amount(row["parameters"])), ("the paper's", beside),
        ("operations an image", lambda row: amount(row["operations_image"])), "images = images:,", "batch = batch",
        ("GPU-hours", lambda row: f"{row['gpu_hours']:,.0f}" if row["gpu_hours"] >= 10 else f"{row['gpu_hours']:.2g}"),
        ("started", lambda row: HOW[row["run"]]),
    ]  # fmt: skip
    rows = results["rows"]
    large = [row for row in rows if row.get("operations_image", 0) * row["images"] > LARGE]
    ways = {how: sum(row["run"] == how for row in rows if row["ok"]) for how in HOW}
    text = (
        f"Of {len(rows)} presets that were started {sum(row['ok'] for row in rows)} do: {ways['whole']} take a whole step on the CPU, "
        f"{ways['chains of one step']} one whose chains are cut to one step as two images would take more than "
        f"{amount(results['whole'])}FLOP, and {ways['meta']} are walked through on PyTorch's meta device, shapes and orders of updates, as "
        f"they would take more than {amount(results['most'])}FLOP even so, or 4 GiB for weights and their states. Below are those whose "
        f"whole run takes more than {amount(LARGE)}FLOP. Operations are counted in losses, chains and all derivatives of a step, "
        "multiplications and additions each one, and averaged over the run. GPU-hours follow from them at "
        f"{100 * results['share']:.0f} % of the {amount(results['peak']['H200, H100'])}FLOP/s in bf16 of an H200 or H100, a share that "
        "**is assumed: no run on a GPU has measured it**. Networks with a double backward pass and small layers will stay below."
    )
    names = [f"{method}/{key}" for method, known in tables().items() for key in known]
    waiting = [f"`{name}`" for name in names if name not in {row["preset"] for row in rows}]
    if waiting:
        text += f"\n\nNot started yet, for want of time: {', '.join(waiting)}; `--only` adds them to the result."
    return text + "\n\n" + Table(columns, lambda values: values["rows"]).text({"rows": large})


CHECK = Check("presets", __doc__, run, dict(only=[""], threads=1), failed=failed)

if __name__ == "__main__":
    torch.set_num_threads(1)
    CHECK.main()
