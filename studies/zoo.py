"""Make a model of zoo/ from a trained run: weights in bf16, config, card, samples, and zoo.json with its command, minutes and figures.

    python -m studies.zoo runs/dual dual-fashion-mnist --command "thalweg train dual/fashion-mnist-conditional --precision bf16" \
        --results dual_pictures_fashion-mnist dual_likelihood_fashion-mnist --figures samples noise_error bits accuracy

`--figures` are keys of the results, from which they are taken. `check` is the mean energy of the first test images, by which a
test knows the model again.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch

import thalweg as tw
from studies.tables import RESULTS, ROOT
from thalweg.checkpoint import read_stats

EXAMPLES, SIGMA, ROWS = 32, 0.5, 8  # test images and their level in the check; samples a class


def check(model: Any) -> dict[str, Any]:
    """The mean energy of the first test images, at one level where the model has several."""
    condition = {"sigma": SIGMA} if "levels" in model.abilities else {}
    x = tw.data.load(model.config.data, "test").all().x[:EXAMPLES]
    with torch.no_grad():
        return {"examples": EXAMPLES, "condition": condition, "mean_energy": float(model.energy(x, **condition).mean())}


def of_row(results: dict[str, Any], name: str) -> dict[str, Any]:
    """The results, or of those with rows the row of that name at the first seed."""
    rows = results.get("rows")
    return results if rows is None else next(row for row in rows if row["method"] == name and not row["seed"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--results", nargs="+", required=True, help="files of studies/results, without .json")
    parser.add_argument("--figures", nargs="+", required=True, help="keys of their results")
    parser.add_argument("--command", required=True, help="by which it was trained")
    parser.add_argument("--row", default="", help="of results with rows, as the arena's, the one that the model is")
    parser.add_argument("--note", default="", help="what the command does not say of the training")
    options = parser.parse_args()
    out = ROOT / "zoo" / options.name
    if out.exists():
        shutil.rmtree(out)
    tw.save(tw.load(options.run), out, precision="bf16")
    model = tw.load(out)
    asked = {"label": torch.arange(model.config.classes).repeat_interleave(ROWS)} if "labels" in model.abilities else {}
    x = model.sample(len(asked["label"]) if asked else 64, seed=3, **asked)
    tw.plot.grid(x, out / "samples.png", columns=8)
    records = [json.loads((RESULTS / f"{name}.json").read_text()) for name in options.results]
    found = [of_row(record["results"], options.row) for record in records]
    figures = {key: results[key] for key in options.figures for results in found if results.get(key) is not None}
    last = [row for row in read_stats(options.run) if "seconds" in row][-1]
    told = {
        "command": options.command,
        "note": options.note, "images": last["images"], "cpu_minutes": round(last["seconds"] / 60), "figures": figures,
        "measured_by": [results.get("command", record["command"]) for results, record in zip(found, records)], "check": check(model),
    }  # fmt: skip
    (out / "zoo.json").write_text(json.dumps(told, indent=1) + "\n")
    print(out, sum(file.stat().st_size for file in out.iterdir()), "bytes")


if __name__ == "__main__":
    main()
