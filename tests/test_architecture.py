"""The import direction of docs/design: dependencies point downward only, read from the source by its syntax tree."""

import ast
from pathlib import Path

import pytest

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
    "levels": BASIC | MATHS | {"config"},
    "guidance": BASIC | {"energy"},
    "trace": {"errors"},
    "metropolis": BASIC | {"energy", "trace"},
    "importance": BASIC | MATHS | {"config"},
    "presets": {"augmentation", "chain", "config", "importance", "nn", "scene"},
    "augmentation": BASIC | {"config", "data"},
    "encoders": {"checkpoint", "config", "errors", "nn"},
    "search": set(),
    "sample": BASIC | MATHS | {"compiled", "metropolis", "trace"},
    "objective": BASIC | MATHS,
    "denoising": BASIC,
    "prior": BASIC | MATHS | {"chain", "nn"},
    "scene": BASIC | MATHS | {"camera", "chain", "config", "data", "nn", "prior"},
    "data": BASIC | {"energy", "camera"},
    "evaluate": BASIC | MATHS | {"data", "nn"},
    "tasks": BASIC | MATHS | {"camera", "data", "nn"},
    "plot": BASIC | MATHS | {"data", "evaluate"},  # the grids of densities
    "report": BASIC | {"plot"},
    "progress": set(),
    "guard": {"errors"},
    "distributed": {"errors", "data"},
    "checkpoint": {"errors", ""},
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
        "encoders",
        "evaluate",
        "guidance",
        "importance",
        "levels",
        "nn",
        "presets",
        "prior",
        "replay",
        "scene",
        "search",
    },
    "updates": BASIC | {"data", "distributed", "guard", "methods.base"},
    "loop": BASIC | {"checkpoint", "data", "distributed", "guard", "progress", "updates", "methods.base"},
    "train": {"data", "errors", "loop", "methods.base"},
    "save": {"config", "errors", "checkpoint", "distributed", "methods", "methods.base"},
    "latent": {"errors", "save", "data"},
    "measure": BASIC | {"checkpoint", "data", "evaluate", "methods.base", "plot", "tasks"},
    "run": BASIC | {"checkpoint", "data", "evaluate", "measure", "methods.base", "plot", "report", "latent", "tasks", "run_scenes"},
    "run_scenes": BASIC | {"data", "methods.base", "plot", "tasks"},
}
TOP = {"cli", "app"}  # may import anything


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
    return module if module == "methods.base" else module.partition(".")[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_dependencies_point_downward(path):
    own = part_of(module_name(path))
    if own in TOP:
        return
    own = "methods" if own == "methods.base" else own
    assert own in ALLOWED, f"{own} is a new part: say in this test what it may import"
    beyond = {name for name in imports(path) if name.partition(".")[0] != own or not own} - {"" if own == "" else None}
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
