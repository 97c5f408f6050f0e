"""The documentation is true: links resolve, commands exist, code runs."""

import dataclasses
import importlib
import importlib.util
import pkgutil
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch

import thalweg as tw
from thalweg.commands import app, apply, compare, demo, detect, evaluate, export, options, sample, train
from thalweg.commands.bench import studies
from thalweg.commands.list import TAGS
from thalweg.commands.main import COMMANDS
from thalweg.methods import METHODS, preset
from thalweg.tasks import TASKS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
OPTIONS = {
    "train": train.Options,
    "sample": sample.Options,
    "evaluate": evaluate.Options,
    "compare": compare.Options,
    "demo": demo.Options,
    "app": app.Options,
    "export": export.Options,
}


def names(pages: list[Path]) -> list[str]:
    return [str(page.relative_to(ROOT)) for page in pages]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.S | re.M)


# --- links


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_relative_links_resolve(page):
    text = re.sub(r"<!--.*?-->|^```.*?^```$", "", page.read_text(), flags=re.S | re.M)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        assert path.exists(), f"{page.name} links to {target}, which is not there"
        assert not anchor or anchor in anchors(path), f"{page.name} links to {target}: no such heading"


@pytest.mark.parametrize("name", ["README.md", "docs/reproduction.md"])
def test_cells_are_short(name):
    rows = [line for line in (ROOT / name).read_text().splitlines() if line.startswith("|")]
    assert rows and max(len(cell) for row in rows for cell in row.split("|")) <= 200


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text()
    for page in sorted((ROOT / "docs").rglob("*.md")):
        assert f": {page.relative_to(ROOT / 'docs')}\n" in navigation


def test_every_module_is_in_the_reference():
    written = "".join(page.read_text() for page in (ROOT / "docs" / "api").glob("*.md"))
    for module in re.findall(r"^::: (\S+)$", written, re.M):
        assert importlib.util.find_spec(module), module
    for name in (*tw._MODULES, *(f"methods.{name}" for name in METHODS)):
        assert f"::: thalweg.{name}" in written, name


# --- commands


def commands() -> list[str]:
    found = []
    for page in [*PAGES, ROOT / "Makefile", *sorted((ROOT / "examples").glob("*.py"))]:
        text = page.read_text().replace("torchrun --nproc-per-node 2 -m thalweg.cli", "thalweg")
        text = text.replace("$(BIN)/", "").replace("$(RUN)", "runs/quickstart")  # the Makefile's variables
        found += re.findall(r"`(thalweg [^`\n]+)`", text)
        found += re.findall(r"^\s*@?(?:echo \" +)?(thalweg [^\n\"]+)", text, re.M)
    return sorted(set(found))


def test_there_are_commands_to_check():
    assert {line.split()[1] for line in commands()} >= {"list", "train", "sample", "evaluate", "compare", "apply", "export", "bench"}


@pytest.mark.parametrize("line", commands())
def test_commands_parse(line, tmp_path, monkeypatch):
    _, command, *words = shlex.split(line, comments=True)
    assert command in COMMANDS
    if "--help" in words:
        return
    if command == "list":
        assert all(word in METHODS or word.removeprefix("--") in TAGS for word in words)
    elif command == "zoo":
        assert not words
    elif command == "bench":
        assert not words or words[0] in studies(ROOT / "studies")
    elif command == "apply":
        monkeypatch.chdir(tmp_path)  # what is written lies in folders that exist
        name, _ = apply.read_options(words)
        assert name in TASKS
    elif command == "detect":
        monkeypatch.chdir(tmp_path)
        if detect.read_options(words) is None:
            apply.read_options(["detect", *words])
    elif command == "train":
        found, unknown = options.parse(train.Options, words, command, rest=True)
        if ".py:" not in found.preset:
            options.config_fields(preset(found.preset)[1], unknown, [])
    else:
        options.parse(OPTIONS[command], words, command)


def test_every_command_is_documented():
    page = (ROOT / "docs" / "cli.md").read_text()
    for command in COMMANDS:
        assert f"\n## {command}\n" in page
    for option in dataclasses.fields(train.Options):
        assert option.name == "preset" or f"`--{option.name.replace('_', '-')}" in page, option.name
    section = page[page.index("\n## detect\n") : page.index("\n## export\n")]
    for option in {f.name for kind in (detect.FitOptions, detect.RunOptions) for f in dataclasses.fields(kind)} - {"data", "detector"}:
        assert f"`--{option.replace('_', '-')}`" in section, option


def test_every_task_is_documented():
    """Its name, its options, and what it writes into an .npz or a .json."""
    page = (ROOT / "docs" / "cli.md").read_text()
    for name, task in TASKS.items():
        assert f"thalweg apply {name} " in page, name
        for option in dataclasses.fields(task.options):
            assert f"`--{option.name.replace('_', '-')}" in page, (name, option.name)


# --- code


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory) -> str:
    """A run of egc on digits that has seen two batches."""
    out = tmp_path_factory.mktemp("docs") / "run"
    method = tw.method("egc/digits", width=16, blocks=1, levels=20, sample_steps=5, batch=32, images=64)
    tw.fit(method, tw.data.load("digits"), out=out, progress=False)
    return str(out)


def test_readme_example_runs(tiny_run, capsys):
    (code,) = blocks(ROOT / "README.md", "python")
    assert len(code.splitlines()) == 12
    scope: dict = {}
    exec(compile(code.replace("runs/quickstart", tiny_run), "README.md", "exec"), scope)
    assert scope["threes"].shape == (20, 1, 8, 8) and scope["energy"].shape == scope["read"].shape == (20,)
    auroc, norm = map(float, capsys.readouterr().out.split())
    assert 0 <= auroc <= 1 and norm > 0


def test_code_on_the_other_pages_names_what_exists():
    for page in PAGES:
        for dotted in set(re.findall(r"\btw((?:\.\w+)+)\(", page.read_text())):
            value = tw
            for part in dotted.split(".")[1:]:
                assert hasattr(value, part), f"{page.name}: tw{dotted}"
                value = getattr(value, part)


def test_paths_of_the_equations_page_exist():
    page = (ROOT / "docs" / "equations.md").read_text()
    for module, function in re.findall(r"`([\w/]+\.py):([\w.]+)`", page):
        value = importlib.import_module("thalweg." + module.removesuffix(".py").replace("/", "."))
        for part in function.split("."):
            assert hasattr(value, part), f"{module}:{function}"
            value = getattr(value, part)


def code_words(page: Path) -> set[str]:
    """What stands between single backticks, outside blocks of code."""
    return set(re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.S | re.M)))


def classes() -> dict[str, list[type]]:
    """Every class of the package by its name."""
    found: dict[str, list[type]] = {}
    for module in pkgutil.walk_packages(tw.__path__, "thalweg."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, type) and value.__module__.startswith("thalweg."):
                found.setdefault(name, []).append(value)
    return found


def test_every_attribute_of_a_class_that_a_page_names_exists():
    """`EGC.losses` and its like: methods and fields of classes, in docs and docstrings' own terms."""
    known, seen = classes(), 0
    for page in PAGES:
        for word in code_words(page):
            match = re.fullmatch(r"([A-Z]\w+)\.(\w+)(?:\(.*\))?", word)
            if not match or match[1] not in known:
                continue
            seen += 1
            fields = [getattr(kind, "__dataclass_fields__", {}) | getattr(kind, "__annotations__", {}) for kind in known[match[1]]]
            there = any(hasattr(kind, match[2]) or match[2] in names for kind, names in zip(known[match[1]], fields))
            assert there, f"{page.name}: {word}"
    assert seen > 30


def test_every_file_that_a_page_names_exists():
    """Paths of code, in the package or from the repository's root, and result files of studies."""
    results = {path.name for path in (ROOT / "studies" / "results").glob("*.json")}
    of_runs = {"compare.json", "config.json", "metrics.json", "data.json", "my_method.py", "thalweg.json"}
    for page in PAGES:
        for word in code_words(page) - of_runs:
            if "NAME" in word or "FILE" in word or "*" in word or "STEM" in word or not re.fullmatch(r"[\w/.-]+\.(py|md|json)", word):
                continue
            if word.endswith(".json"):
                name = word.rpartition("/")[2]
                assert name in results or f"{page.stem}_{name}" in results, f"{page.name}: {word}"
            else:
                homes = (ROOT, ROOT / "src", ROOT / "src" / "thalweg", ROOT / "docs")
                assert any((home / word).exists() for home in homes), f"{page.name}: {word}"


def test_names_of_states_are_as_the_page_says(tiny_run):
    assert "`state-IMAGES-CHECKSUM.pt`" in (ROOT / "docs" / "training.md").read_text()
    names = [path.name for path in Path(tiny_run).glob("state-*.pt")]
    assert names and all(re.fullmatch(r"state-\d{12}-[0-9a-f]{8}\.pt", name) for name in names)


def test_constants_of_the_equations_page():
    signal = [round(tw.noise.cosine_log_snr().alpha(t).item(), 5) for t in range(7)]
    page = (ROOT / "docs" / "equations.md").read_text()
    assert ", ".join(f"{value:.5f}".removeprefix("0") for value in signal) in page
    assert ", ".join(f"{value**2:.5f}".removeprefix("0") for value in tw.noise.cosine_log_snr().signal) in page


def test_the_langevin_bias_of_the_choosing_page():
    """s = σ/3 leaves the variance within 3 %: exactly 1/(1 − s²/4σ²) of it."""
    step, std = 0.1, 0.3
    x = std * tw.random.normal(20_000, 1, generator=tw.random.seeded(0))
    x = tw.sample.langevin(lambda x: x.square().sum(1) / (2 * std**2), x, steps=200, step=step, generator=tw.random.seeded(1))
    ratio = x.var().item() / std**2
    assert abs(ratio - 1 / (1 - step**2 / (4 * std**2))) < 5 * (2 / 20_000) ** 0.5


def run_example(name: str, arguments: list[str], monkeypatch) -> None:
    path = ROOT / "examples" / name
    monkeypatch.setattr(sys, "argv", [str(path), *arguments])
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_example_landscape(tmp_path, monkeypatch, capsys):
    run_example("landscape.py", ["512", str(tmp_path / "landscape.png")], monkeypatch)
    assert (tmp_path / "landscape.png").stat().st_size > 10_000
    assert "KL(truth‖model)" in capsys.readouterr().out


def test_example_outliers(tiny_run, monkeypatch, capsys):
    run_example("outliers.py", [tiny_run], monkeypatch)
    assert capsys.readouterr().out.count("AUROC") == 5


def test_example_own_energy(monkeypatch, capsys):
    run_example("own_energy.py", ["200"], monkeypatch)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    for row in rows[1:3]:
        assert abs(float(row[1])) < 0.3 and abs(float(row[2]) - 0.5) < 0.3 and abs(float(row[3]) - 1) < 0.3


def test_examples_are_short():
    for path in (ROOT / "examples").glob("*.py"):
        assert len(path.read_text().splitlines()) < 40


# --- files of the repository


def test_constraints_pin_every_direct_dependency():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    pinned = {re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower() for line in lines}
    assert len(pinned) == len(lines)
    assert "torch==2.13.0" in lines
    for dependency in wanted:
        assert re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", dependency)[0]).lower() in pinned, dependency


def test_citation_and_licence():
    import yaml

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert len(citation["references"]) == 5 and citation["version"] == tw.__version__
    assert all(reference["authors"] and reference["title"] for reference in citation["references"])
    licence = (ROOT / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in licence and "APPENDIX: How to apply" in licence
    assert torch.__version__.split("+")[0] == "2.13.0"
