"""The import direction of docs/design: dependencies point downward only, read from the source by its syntax tree."""

import ast
import re
from pathlib import Path

import pytest

from thalweg.methods import METHODS

ROOT = Path(__file__).parents[1] / "src" / "thalweg"
FILES = sorted(path for path in ROOT.rglob("*.py") if path.name != "__main__.py")
BASIC = {"errors", "random"}
MATHS = {"energy", "noise", "sample", "objective"}
# what each part may import of Thalweg, besides itself
ALLOWED = {
    "": set(),  # thalweg/__init__.py, which imports lazily by name
    "errors": set(),
    "random": set(),
    "compiled": set(),
    "nn": {"config", "errors"},
    "camera": set(),
    "energy": BASIC,
    "noise": BASIC | {"energy"},
    "config": {"errors"},
    "chain": BASIC | MATHS | {"config", "noise"},
    "replay": BASIC | MATHS,
    "levels": BASIC | MATHS | {"chain", "config"},
    "particles": BASIC | {"energy", "metropolis"},
    "guidance": BASIC | {"energy"},
    "trace": {"errors"},
    "metropolis": BASIC | {"energy", "trace"},
    "importance": BASIC | MATHS | {"config"},
    "presets": {"augmentation", "chain", "config", "importance", "nn", "scene"},
    "augmentation": BASIC | {"config", "data"},
    "encoders": {"checkpoint", "config", "errors", "nn"},
    "search": set(),
    "gate": {"errors"},
    "given": {"data", "errors", "gate"},
    "sample": BASIC | MATHS | {"compiled", "metropolis", "trace"},
    "objective": BASIC | MATHS,
    "normalising": BASIC,
    "told": {"data", "methods.base"},
    "drawing": BASIC | {"data", "distributed", "progress"},
    "diffusion": BASIC | MATHS | {"metropolis", "trace"},
    "denoising": BASIC,
    "prior": BASIC | MATHS | {"chain", "nn"},
    "scene": BASIC | MATHS | {"camera", "chain", "config", "data", "nn", "prior"},
    "data": BASIC | {"energy", "camera", "progress"},
    "data.prepare": BASIC | {"config", "data", "latent"},
    "evaluate": BASIC | MATHS | {"data", "diffusion", "distributed", "given", "nn"},
    "tasks": BASIC | MATHS | {"camera", "data", "data.prepare", "evaluate", "given", "methods.base", "nn"},
    "detect": BASIC
    | MATHS
    | {"", "checkpoint", "data", "evaluate", "methods", "methods.base", "metrics", "nn", "precision", "report", "train", "updates"},
    "plot": BASIC | MATHS | {"data", "evaluate"},  # the grids of densities
    "report": BASIC | {"checkpoint", "plot"},
    "calls": {"", "checkpoint", "precision"},
    "precision": set(),
    "proposing": {"nn", "random"},
    "progress": set(),
    "guard": {"errors"},
    "distributed": {"errors", "data"},
    "stopping": {"errors"},
    "checkpoint": {"errors", "stopping", ""},
    "methods": BASIC
    | MATHS
    | {
        "augmentation",
        "camera",
        "chain",
        "checkpoint",
        "compiled",
        "config",
        "data",
        "denoising",
        "diffusion",
        "encoders",
        "evaluate",
        "gate",
        "guidance",
        "importance",
        "levels",
        "nn",
        "normalising",
        "particles",
        "presets",
        "prior",
        "proposing",
        "replay",
        "scene",
        "search",
    },
    "updates": BASIC | {"data", "distributed", "guard", "methods.base"},
    "fits": {"data", "errors", "methods.base"},
    "parts": BASIC | {"data", "methods.base", "updates"},
    "loop": BASIC
    | {
        "calls",
        "checkpoint",
        "data",
        "distributed",
        "fits",
        "guard",
        "nn",
        "parts",
        "precision",
        "progress",
        "stopping",
        "told",
        "updates",
        "methods.base",
    },
    "train": {"data", "data.prepare", "errors", "gate", "loop", "methods.base", "precision", "units"},
    "units": {"errors", "gate", "methods.base"},
    "store": {"config", "data", "errors", "checkpoint", "distributed", "gate", "methods", "methods.base", "nn"},
    "latent": {"config", "data", "distributed", "errors", "methods.base", "store", "units"},
    "arena": BASIC
    | {
        "calls",
        "checkpoint",
        "data",
        "data.prepare",
        "drawing",
        "evaluate",
        "methods",
        "methods.base",
        "metrics",
        "plot",
        "precision",
        "progress",
        "report",
        "train",
        "updates",
    },
    "metrics": BASIC
    | {"checkpoint", "data", "data.prepare", "diffusion", "drawing", "evaluate", "methods.base", "plot", "progress", "tasks", "units"},
    "app": BASIC
    | MATHS
    | {
        "",
        "checkpoint",
        "data",
        "data.prepare",
        "detect",
        "evaluate",
        "latent",
        "methods.base",
        "progress",
        "tasks",
        "units",
    },
}
FILES_APART = ("methods.base", "data.prepare")  # which others may import, or that may import others, than the rest of their package
TOP = {"cli", "commands"}  # may import anything


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """Modules of Thalweg that a file imports anywhere in it, but for type checking, named from the package's root."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    package = path.relative_to(ROOT).parts[:-1]
    found = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = ("thalweg", *package)[: len(package) + 2 - node.level] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            is_module = [(ROOT.parent / base.replace(".", "/") / alias.name).with_suffix(".py").exists() for alias in node.names]
            is_package = [(ROOT.parent / base.replace(".", "/") / alias.name / "__init__.py").exists() for alias in node.names]
            found |= {f"{base}.{alias.name}" if m or p else base for alias, m, p in zip(node.names, is_module, is_package)}
    return {name.removeprefix("thalweg").removeprefix(".") for name in found if name == "thalweg" or name.startswith("thalweg.")}


def part_of(module: str) -> str:
    return module if module in FILES_APART else module.partition(".")[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_dependencies_point_downward(path):
    own = part_of(module_name(path))
    if own in TOP:
        return
    own = "methods" if own == "methods.base" else own  # which may import what the others may
    assert own in ALLOWED, f"{own} is a new part: say in this test what it may import"
    package = own.partition(".")[0]
    beyond = {name for name in imports(path) if name.partition(".")[0] != package or not own} - {"" if own == "" else None}
    wrong = sorted(name for name in beyond if part_of(name) not in ALLOWED[own] and name.partition(".")[0] not in ALLOWED[own])
    assert not wrong, f"{path.relative_to(ROOT)} imports {', '.join('thalweg.' + name for name in wrong)}"


@pytest.mark.parametrize("method", sorted(path.stem for path in (ROOT / "methods").glob("*.py") if path.stem not in ("__init__", "base")))
def test_methods_do_not_know_each_other(method):
    others = {name for name in imports(ROOT / "methods" / f"{method}.py") if name.startswith("methods")} - {"methods.base"}
    assert not others


def test_nothing_but_the_methods_names_a_method():
    concrete = {f"methods.{path.stem}" for path in (ROOT / "methods").glob("*.py")} - {"methods.__init__", "methods.base"}
    assert concrete >= {"methods.short_run", "methods.egc"}
    for path in FILES:
        assert not imports(path) & concrete, path


# words that are also something else: a kind of model that others live in, an extra of the package
COMMON_WORDS = {"autoencoder", "ssl"}
OUTSIDE = [path for path in FILES if path.relative_to(ROOT).parts[0] not in ("methods", "presets")]
BUILT_ON_ONE = {"detect/density.py", "detect/energies.py"}  # the detector is an application of one method


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_method_is_named_outside(path):
    """Not even in a docstring: a sentence says which ability is meant. Papers are cited by their own names, pages are linked."""
    names = "|".join(sorted(METHODS.keys() - COMMON_WORDS))
    found = [line.strip() for line in path.read_text().splitlines() if re.search(rf"(?<!docs/methods/)\b({names})\b", line)]
    assert bool(found) == (str(path.relative_to(ROOT)) in BUILT_ON_ONE), found


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_probed_for_a_field_or_a_function(path):
    """What a model can do is among its abilities, what it needs of data in `config.data_needs`."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call) and node.args]
    probes = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id in ("getattr", "hasattr") and len(call.args) > 1]
    on_models = [call for call in probes if re.search(r"(^|[._])(method|model|config)$", ast.unparse(call.args[0]))]
    assert not [ast.unparse(call) for call in on_models if isinstance(call.args[1], ast.Constant)]


def test_the_reader_of_imports_sees_all_forms(tmp_path, monkeypatch):
    code = "import thalweg.nn.mlp\nfrom thalweg import random, Thing\nfrom ..errors import InputError\nfrom . import base\n"
    code += "def f():\n    from thalweg.methods.egc import EGC\nif TYPE_CHECKING:\n    from thalweg import train\n"
    home = tmp_path / "thalweg"
    for name in ("random.py", "errors.py", "methods/base.py", "methods/egc.py", "methods/__init__.py"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).touch()
    (home / "methods" / "new.py").write_text(code)
    monkeypatch.setattr(f"{__name__}.ROOT", home)
    assert imports(home / "methods" / "new.py") == {"nn.mlp", "random", "", "errors", "methods.base", "methods.egc"}
