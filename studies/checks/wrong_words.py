"""Random wrong command lines and wrong Python calls: one message each, exit code 2, no traceback, nothing on disk changed.

    python -m studies.checks.wrong_words --commands 1000 --calls 300

Each line is a right one with one thing made wrong, by a generator that `--seed` sets. What is not refused is printed, and counted in the
result.
"""

import argparse
import contextlib
import io
import os
import random
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from studies.runner import Check  # after the setting, which torch reads when it is imported

METHODS = ("short_run", "egc", "cdrl", "ddaebm", "coopflow", "cf_ebm", "jem", "liebm", "ssl", "autoencoder", "nerf_lebm")
TASKS = ("classify", "detect", "inpaint", "restore", "denoise", "reconstruct", "interpolate", "translate", "turntable", "views", "pose")
# values that no option of numbers, counts or choices takes
NONSENSE = ("", "x", "-", "--", "nan", "-inf", "1e", "0x", "½", "None", "[]", "{}", "1,2", "../..", "𝔘", "a" * 300)
BELOW = ("0", "-1", "-7")


def build(folder: Path) -> None:
    """Two small runs, an exported model and a few files that are not what their names say."""
    import thalweg as tw

    tiny = dict(images=64, batch=32)
    digits = tw.method("egc/digits", net=dict(width=8, blocks=1), levels=20, sample_steps=3, **tiny)
    tw.fit(digits, tw.data.load("digits"), folder / "digits", progress=False)
    toy = tw.method("short_run/moons", width=8, steps=2, sample_steps=3, buffer=64, **tiny)
    tw.save(tw.fit(toy, tw.data.toy("moons"), folder / "toy", progress=False), folder / "exported")
    (folder / "empty").mkdir()
    (folder / "text.txt").write_text("no picture\n")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnot a picture")
    (folder / "broken.npz").write_bytes(b"PK\x03\x04 not an archive")
    (folder / "full").mkdir()
    (folder / "full" / "note.txt").write_text("somebody's\n")


def wrong_line(draw: random.Random) -> list[str]:
    """One wrong command line."""
    pick = draw.choice
    name = f"{pick(METHODS)}/digits"
    word = "".join(pick("abcdefghijklmnopqrstuvwxyz") for _ in range(draw.randint(3, 9)))
    nonsense, below = pick(NONSENSE), pick(BELOW)
    train = ["train", pick(("egc/digits", "short_run/moons", "jem/digits")), "--out", "new"]
    sample = ["sample", pick(("digits", "toy", "exported")), "--out", "new.npz"]
    apply = ["apply", "classify", "digits", "--input", "broken.png", "--out", "new.json"]
    kinds: list[Callable[[], list[str]]] = [
        lambda: [word, *train[1:]],
        lambda: ["train", f"{word}/digits", "--out", "new"],
        lambda: ["train", f"{pick(METHODS)}/{word}", "--out", "new"],
        lambda: ["train", name],  # no --out
        lambda: [*train, f"--{word}x", "1"],
        lambda: [*train, f"--net.{word}x", "1"],
        lambda: [*train, "--" + pick(("images", "batch", "threads", "size", "log-every", "save-every")), below],
        lambda: [*train, "--" + pick(("images", "batch", "lr", "seconds", "seed", "ema", "clip")), pick(("x", "1e", "[]", "half", "½"))],
        lambda: [*train, "--" + pick(("lr", "seconds")), pick(("0", "-1", "-0.5"))],
        lambda: [*train, "--ema", pick(("1.5", "-0.1"))],
        lambda: [*train, "--precision", pick(("fp16", "int8", word))],
        lambda: [*train, "--device", pick(("gpu", "tpu", "cuda:99", word))],
        lambda: [*train, "--data", pick((word, "empty", "text.txt", "broken.npz", "broken.png", f"hf:{word}/{word}/{word}", "nowhere/"))],
        lambda: [*train, "--net", pick((word, "3", "[]"))],
        lambda: ["train", "short_run/moons", "--out", pick(("full", "text.txt", "exported"))],
        lambda: ["train", "short_run/moons", "--lr", "0.5", "--out", "toy"],
        lambda: ["train", "egc/digits", "--out", "toy"],
        lambda: ["train", "short_run/moons", "--out", "toy", "--seed", "1"],
        lambda: [*train, word],
        lambda: [*train, "--lr"],
        lambda: ["train", f"{word}.py:Mine", "--out", "new"],
        lambda: ["train", "text.txt.py:Mine", "--out", "new"],
        lambda: ["sample", pick((word, "empty", "text.txt", f"{word}/{word}/{word}")), "--out", "new.png"],
        lambda: [*sample[:2], "--out", pick(("new", "new.txt", "new.jpg", "nowhere/new.png", "full", ".png/"))],
        lambda: [*sample, "-n", pick((*BELOW, "x", "1.5"))],
        lambda: [*sample, "--steps", pick((*BELOW, "x"))],
        lambda: [*sample, "--seed", pick(("-1", "x", str(2**63)))],
        lambda: [*sample, "--which", word],
        lambda: [*sample, "--eta", pick(("2", "-1", "x"))],
        lambda: ["sample", "digits", "--out", "new.png", "--label", pick((word, "10", "-1", "99999999999999999999"))],
        lambda: ["sample", "toy", "--out", "new.npz", "--label", "1"],
        lambda: ["sample", "toy", "--out", "new.npz", "--guidance", "2"],
        lambda: ["sample", "digits", "--out", "new.png", "--guidance", pick(("x", "nan", "inf", "a=1"))],
        lambda: ["sample", "digits"],
        lambda: ["evaluate"],
        lambda: ["evaluate", pick((word, "empty", "text.txt"))],
        lambda: ["evaluate", "toy", "--metrics", pick((word, "accuracy", "density,density2", "auto,density", ""))],
        lambda: ["evaluate", "digits", "--extractor", word],
        lambda: ["evaluate", "digits", "-n", pick((*BELOW, "x"))],
        lambda: ["evaluate", "digits", "--out", pick(("full", "nowhere/x.json"))],
        lambda: ["evaluate", "digits", "toy", "--compare"],
        lambda: ["evaluate", "digits", "--compare"],
        lambda: ["apply", word, "digits", "--input", "broken.png", "--out", "new.json"],
        lambda: ["apply", pick(TASKS), "toy", "--input", "broken.png", "--out", "new.json"],
        lambda: apply,
        lambda: [*apply[:3], "--input", pick((word, "empty", "text.txt", "broken.npz")), "--out", "new.json"],
        lambda: ["apply", "classify", "digits", "--out", "new.json"],
        lambda: ["apply", "denoise", "digits", "--input", "broken.png", "--std", pick(("0", "-1", "x", "inf", "nan")), "--out", "new.png"],
        lambda: [
            "apply",
            "restore",
            "digits",
            "--input",
            "broken.png",
            "--operator",
            pick((word, "pool:0", "pool:x", "")),
            "--out",
            "new.png",
        ],
        lambda: ["apply", "interpolate", "digits", "--seeds", pick(("1", "1,1", "a,b", "1,2,3", "-1,2")), "--out", "new.png"],
        lambda: ["apply", pick(("translate", "turntable", "reconstruct", "views")), "digits", "--input", "broken.png", "--out", "new.png"],
        lambda: [*apply, f"--{word}x", "1"],
        lambda: ["export", "digits"],
        lambda: ["export", "digits", "--out", pick(("full", "text.txt", "toy"))],
        lambda: ["export", word, "--out", "new"],
        lambda: ["export", "digits", "--out", "new", "--hub", "a/b"],
        lambda: ["list", word],
        lambda: ["bench", word],
        lambda: [nonsense] if nonsense not in ("", "-") else ["", "x"],
        lambda: [*train, "--batch", nonsense] if nonsense not in ("",) else [*train, "--batch", "x"],
        lambda: [*sample, "-n", below],
    ]
    return pick(kinds)()


def wrong_call(draw: random.Random, models: dict[str, Any]) -> tuple[str, Callable[[], Any]]:
    """One wrong call of the Python interface, and what it is called."""
    import torch

    import thalweg as tw

    digits, toy = models["digits"], models["toy"]
    x, pick = torch.rand(3, 1, 8, 8) * 2 - 1, draw.choice
    word = "".join(pick("abcdefghij") for _ in range(6))
    bowl = tw.energy.gaussian
    number = pick((-1, 0, -0.5, float("nan"), float("inf")))
    calls: dict[str, Callable[[], Any]] = {
        "method of no name": lambda: tw.method(f"{word}/digits"),
        "preset of no name": lambda: tw.method(f"egc/{word}"),
        "field of no name": lambda: tw.method("egc/digits", **{word: 1}),
        "field out of range": lambda: tw.method("egc/digits", lr=pick((-1.0, 0.0, float("nan")))),
        "field of another type": lambda: tw.method("egc/digits", batch=pick(("x", None, 1.5, [])), images=pick(("y", {}))),
        "network that does not fit": lambda: tw.method("egc/digits", net=dict(patch=pick((3, 5, 7)))),
        "data by name": lambda: tw.method("egc/digits", data=object()),
        "data of no name": lambda: tw.data.load(word),
        "split of no name": lambda: tw.data.load("digits", word),
        "size below 1": lambda: tw.data.load("digits", size=pick((0, -3))),
        "toy of no name": lambda: tw.data.toy(word),
        "fit for no images": lambda: tw.fit(digits, tw.data.load("digits"), images=pick((0, -5)), progress=False),
        "fit of a trained twin": lambda: tw.fit(digits, tw.data.load("digits"), images=64, progress=False),
        "fit on other data": lambda: tw.fit(tw.method("short_run/moons"), tw.data.load("digits"), images=64, progress=False),
        "fit in no precision": lambda: tw.fit(tw.method("short_run/moons"), tw.data.toy("moons"), precision=word, progress=False),
        "load of nothing": lambda: tw.load(pick((word, "empty", "text.txt", f"{word}/{word}/{word}"))),
        "load of no state": lambda: tw.load("digits", which=word),
        "save over others": lambda: tw.save(digits, pick(("full", "text.txt", "toy"))),
        "sample by label": lambda: digits.sample(2, label=pick((10, -1, torch.tensor([1, 2, 3])))),
        "label of a model without": lambda: toy.sample(2, label=1),
        "start of another shape": lambda: digits.sample(2, start=torch.zeros(pick((1, 3)), 1, 8, 8)),
        "energy of another level": lambda: digits.energy(x, t=pick((0, 99, -1))),
        "step that cannot be": lambda: tw.sample.langevin(bowl, torch.zeros(3, 2), steps=3, step=number),
        "steps below 0": lambda: tw.sample.mala(bowl, torch.zeros(3, 2), steps=pick((-1, 2.5)), step=0.1),
        "energy of no row": lambda: tw.sample.mala(lambda x: bowl(x).mean(), torch.zeros(3, 2), steps=2),
        "energy of columns": lambda: tw.score(lambda x: x.square(), torch.zeros(3, 2)),
        "integers": lambda: tw.score(bowl, torch.zeros(3, 2, dtype=torch.long)),
        "denoise without noise": lambda: tw.tasks.denoise(digits, x, pick((0.0, -1.0, float("inf")))),
        "images out of range": lambda: tw.tasks.inpaint(digits, 3 * x.abs() + 1.5, torch.ones(8, 8)),
        "images of another shape": lambda: tw.tasks.denoise(digits, torch.zeros(2, 3, 9, 9), 0.1),
        "task for points": lambda: tw.tasks.inpaint(toy, torch.zeros(2, 2), torch.ones(2)),
        "translate without a source": lambda: tw.tasks.translate(digits, x),
        "outliers of no kind": lambda: tw.evaluate.outliers(word, x, 3),
        "extractor of no name": lambda: tw.evaluate.extractor_by_name(word),
        "scores of no name": lambda: tw.evaluate.outlier_scores(digits, x, [word]),
        "posterior mean without noise": lambda: tw.sample.posterior_mean(bowl, torch.zeros(3, 2), pick((0.0, -1.0)), steps=3, step=0.1),
        "no steps down": lambda: tw.sample.ancestral(lambda x, t: x, torch.zeros(3, 2), tw.noise.linear_beta(10), resample=pick((0, -1))),
        "temperature of 0": lambda: tw.energy.temper(bowl, pick((0.0, -1.0))),
        "weights of another count": lambda: tw.energy.combine([bowl], [1.0, 2.0]),
    }
    name = pick(list(calls))
    return name, calls[name]


def picture_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below a folder, its size and time."""
    return {str(p.relative_to(folder)): (p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(folder.rglob("*")) if p.is_file()}


def run_command(words: list[str]) -> str:
    """What is wrong with how a wrong command line is refused; empty where nothing is."""
    from thalweg.commands.main import main

    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = main(words)
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    said = err.getvalue().strip()
    if code != 2:
        return f"exit code {code}"
    if not said.startswith("thalweg: ") or "Traceback" in said:
        return f"message: {said[:200]}"
    return f"{len(said.splitlines())} lines: {said[:200]}" if len(said.splitlines()) > 1 else ""


def run_call(call: Callable[[], Any]) -> str:
    """The same of a call: InputError (or ValueError of a pure function), one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call()
    except ValueError as error:  # InputError is one
        return f"{len(str(error).splitlines())} lines" if len(str(error).splitlines()) != 1 else ""
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    return "not refused"


def check(commands: int, calls: int, seed: int, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Counts of both, and what was not refused as it should be."""
    draw, found = random.Random(seed), []
    before_here = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        try:
            folder = Path(name)
            build(folder)
            import thalweg as tw

            models = {key: tw.load(key) for key in ("digits", "toy")}
            before = picture_of(folder)
            kinds: Counter[str] = Counter()
            for i in range(commands + calls):
                if i < commands:
                    words = wrong_line(draw)
                    what, trouble = "thalweg " + " ".join(words), run_command(words)
                    kinds[words[0] if words and words[0] in ("train", "sample", "evaluate", "apply", "export") else "other"] += 1
                else:
                    what, call = wrong_call(draw, models)
                    trouble = run_call(call)
                    kinds["python"] += 1
                after = picture_of(folder)
                if after != before:
                    changed = sorted(set(after.items()) ^ set(before.items()))
                    trouble = f"{trouble}; disk changed: {changed[0][0]}"
                    before = after
                if trouble:
                    found.append({"what": what[:200], "trouble": trouble})
                    say(f"{what[:120]}  ->  {trouble}")
        finally:
            os.chdir(before_here)
    return {"commands": commands, "calls": calls, "kinds": dict(kinds), "faults": found}


def run(options: argparse.Namespace) -> dict[str, Any]:
    return check(options.commands, options.calls, options.seed, lambda line: print(line, file=sys.stderr))


CHECK = Check("wrong_words", __doc__, run, dict(commands=1000, calls=300, seed=0), failed=lambda results: bool(results["faults"]))

if __name__ == "__main__":
    CHECK.main()
