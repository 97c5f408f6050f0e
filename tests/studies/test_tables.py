"""docs/benchmarks.md: templates, tables and pictures, and the page itself."""

import json

import pytest

from studies import tables
from studies.tables import Each, Picture, Section, Shown, Table, When, filled, present, shown


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (1234.5, ",.0f", "1,234"),
        (0.125, ".1f %", "12.5 %"),
        (None, ".2f", "–"),
        (True, "", "yes"),
        ((1.26, 0.31), "+.1f±", "+1.3 ± 0.3"),
        ((-1.26, None), "+.1f±", "-1.3"),
        ((None, None), "+.1f±", "–"),
        ({"mean": 2.0, "standard_error": 0.5, "draws": 3}, ".2f±", "2.00 ± 0.50"),
    ],
)
def test_values_in_their_form(value, form, text):
    assert shown(value, form) == text


def test_a_table_shows_columns_by_key_by_path_and_by_function():
    rows = [{"row": "a", "in": {"deep": 0.5}, "gap": 1.0, "error": 0.25}, {"row": "b", "in": {"deep": None}, "gap": None, "error": None}]
    columns = ["row | half of {whole} = in.deep:.1f % | gap ± error:+.1f", ("twice", lambda row: row["gap"] and 2 * row["gap"], ".0f")]
    lines = Table(columns).text({"summary": rows, "whole": "all"}).splitlines()
    assert lines == ["| row | half of all | gap ± error | twice |", "| --- | --- | --- | --- |",
                     "| a | 50.0 % | +1.0 ± 0.2 | 2 |", "| b | – | – | – |"]  # fmt: skip
    assert Table("w = 1 = x w=1:g | n", "runs").text({"runs": [{"x w=1": 3.0, "n": 2}]}).splitlines()[::2] == ["| w = 1 | n |", "| 3 | 2 |"]


@pytest.fixture
def places(tmp_path, monkeypatch):
    """An empty folder of results and of pictures."""
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    monkeypatch.setattr(tables, "DOCS", tmp_path)
    (tmp_path / "images").mkdir()
    return tmp_path


def record(folder, name, **results):
    about = {"command": f"python -m benchmarks.study_{name}", "date": "2026-01-02T03", "machine": {"cpu": "A", "cores": 2}}
    (folder / f"{name}.json").write_text(json.dumps(about | {"versions": {"torch": "2"}, "results": results}))


def test_a_section_shows_what_there_is_a_group_for_each_data_set(places):
    blocks = ["{data}{at_size}:", Table("row"), When("more", ["and {more}"]), Picture("{last} of {words}", "x_{data}_*.png")]
    section = Section("X", [(Shown("x_one", blocks), Shown("x_two", [Each("items", ["{name}", Table("row", "rows")])]))], "Intro.")
    assert section.text() == ""
    record(places, "x_one", size=None, summary=[{"row": 1}], more=None)
    record(places, "x_two", items=[{"name": "i", "rows": [{"row": 2}]}])
    record(places, "x_one_fashion-mnist", size=16, summary=[], more=3)
    (places / "images" / "x_digits_a.png").touch()
    source = "From `studies/results/{}.json`: `python -m studies.{}`, A, 2 cores, PyTorch 2, 2026-01-02."
    head = "| row |\n| --- |"
    assert section.text().split("\n\n") == [
        "## X", "Intro.", "digits:", f"{head}\n| 1 |", source.format("x_one", "x_one"), "![a of digits, a](images/x_digits_a.png)",
        "i", f"{head}\n| 2 |", source.format("x_two", "x_two"),
        "fashion-mnist at 16×16:", head, source.format("x_one_fashion-mnist", "x_one_fashion-mnist"), "and 3",
    ]  # fmt: skip


def test_commands_are_shown_by_present_names():
    names = {
        "benchmarks.study_egc ablation": "studies.egc ablation",
        "benchmarks.cdrl toys": "studies.cdrl toys",
        "benchmarks.study_cdrl --seconds 60": "studies.cdrl ablation --seconds 60",
        "benchmarks.speed --out benchmarks/results/speed.json": "studies.checks.speed --out studies/results/speed.json",
        "studies.liebm sweep": "studies.liebm sweep",
    }
    assert {old: present(f"python -m {old}") for old in names} == {old: f"python -m {new}" for old, new in names.items()}


def test_the_page_and_readme_are_what_the_results_say():
    assert tables.page() == (tables.DOCS / "benchmarks.md").read_text()
    assert tables.measured() == tables.MEASURED.read_text(encoding="utf-8")
    scale = (tables.DOCS / "scale.md").read_text()
    assert tables.scale(scale) == scale and scale.count("| egc/imagenet256-latent |") == 1
    text = (tables.ROOT / "README.md").read_text()
    assert tables.readme(text) == text and text.count("| test accuracy | 99.") == 1


def test_templates_reach_into_results():
    assert filled("{runs[0][n]:,} of {data}: {share:.0f %}", {"runs": [{"n": 1000}], "data": "x", "share": 0.5}) == "1,000 of x: 50 %"
