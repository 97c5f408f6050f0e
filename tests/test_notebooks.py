"""The notebooks of examples/ run from top to bottom, on small settings in place of those in their cell of settings."""

import ast
import json
import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SMALL = {
    "landscape": {"IMAGES": 512, "CHAINS": 4, "STEPS": 40},
    "your_pictures": {
        "IMAGES": 64, "OF_EACH": 1, "CHANGED": {"width": 16, "blocks": 1, "levels": 20, "sample_steps": 3, "batch": 32},
    },
    "your_method": {"IMAGES": 512, "SAMPLES": 64},
}  # fmt: skip
SAID = {
    "landscape": r"\d+% of the moves were accepted\nKL\(truth‖model\) [\d.]+ nats",
    "your_pictures": r"accuracy on pictures that it has not seen: [\d.]+%\nuniform +[01]\.\d+\nconstant",
    "your_method": r"mine +KL\(truth‖model\) [\d.]+ nats, \d of 8 modes missing\nshort_run",
}


def cells(name: str) -> list[dict]:
    return json.loads((EXAMPLES / f"{name}.ipynb").read_text())["cells"]


@pytest.mark.parametrize("name", SMALL)
def test_a_notebook_runs_on_small_settings(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    scope: dict = {}
    for number, cell in enumerate(cells(name)):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{name}, cell {number}", "exec"), scope)
        if "settings" in cell["metadata"].get("tags", ()):
            assert SMALL[name].keys() <= scope.keys()  # what is made smaller is what the notebook reads
            scope |= SMALL[name]
    assert re.search(SAID[name], capsys.readouterr().out)


def test_notebooks_are_kept_without_outputs_and_as_jupyter_writes_them():
    assert {path.stem for path in EXAMPLES.glob("*.ipynb")} == set(SMALL)
    for name in SMALL:
        book = json.loads((EXAMPLES / f"{name}.ipynb").read_text())
        assert (book["nbformat"], book["nbformat_minor"]) == (4, 5) and book["metadata"]["kernelspec"]["name"] == "python3"
        assert len({cell["id"] for cell in book["cells"]}) == len(book["cells"]) and book["cells"][0]["source"][0].startswith("# ")
        for cell in book["cells"]:
            assert cell["cell_type"] == "markdown" or (cell["outputs"] == [] and cell["execution_count"] is None)
            assert cell["cell_type"] == "markdown" or ast.parse("".join(cell["source"]))  # no magics: it runs as Python


def test_links_of_notebooks_resolve():
    for name in SMALL:
        text = "".join("".join(cell["source"]) for cell in cells(name) if cell["cell_type"] == "markdown")
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            assert (EXAMPLES / target.partition("#")[0]).exists(), f"{name}: {target}"
