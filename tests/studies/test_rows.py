"""Rows of every study: each is a model, and so are those of the commands that the page quotes."""

import importlib
import json
import shlex

import pytest

import thalweg
from studies import ddaebm
from studies.runner import Part
from studies.tables import RESULTS, SECTIONS, present
from thalweg.config import changed, is_dataclass
from thalweg.methods import preset

MODULES = {name: importlib.import_module(f"studies.{name}") for name in SECTIONS if "." not in name}
STUDIES = {name: module.STUDY for name, module in MODULES.items() if hasattr(module, "STUDY")}  # the arena's rows are the library's
COMMANDS = sorted({present(json.loads(path.read_text())["command"]) for path in RESULTS.glob("*.json")})


def settings(study, words):
    """(row, preset, fields) of the rows of a command's parts."""
    options = study.parser().parse_args(words)
    for name in options.parts or study.parts:
        part = study.parts[name]
        if isinstance(part, Part) and part.settings:
            for row in part.names(options):
                if not options.rows or row in options.rows:
                    yield row, *part.settings(row, options)


def placed(config, key):
    """The value of a field of a config or, by its path or its own name, of one of its specs."""
    first, _, rest = key.partition(".")
    if hasattr(config, first):
        return placed(getattr(config, first), rest) if rest else getattr(config, first)
    (spec,) = [value for value in vars(config).values() if is_dataclass(value) and hasattr(value, first)]
    return getattr(spec, first)


def same(found, asked):
    """Whether a field is what was asked for; of a spec its kind or some of its fields may be."""
    if isinstance(asked, dict):
        return all(getattr(found, key) == value for key, value in asked.items())
    return found == asked or getattr(found, "kind", found) == asked


@pytest.mark.parametrize("name", STUDIES)
def test_every_row_is_a_model_with_what_the_row_says(name):
    for row, preset_name, fields in settings(STUDIES[name], []):
        # models of liebm need an encoder that was trained
        config = changed(preset(preset_name)[1], **fields) if name == "liebm" else thalweg.method(preset_name, **fields).config
        assert all(same(placed(config, key), value) for key, value in fields.items()), (row, fields)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_page_can_be_given(command):
    """Its module is there, its options are known, its rows are rows of its parts, and they are models."""
    python, flag, module, *words = shlex.split(command)
    assert (python, flag) == ("python", "-m")
    module = importlib.import_module(module)
    if module.__name__.startswith("studies.checks."):
        module.CHECK.parser().parse_args(words)
        return
    if module.__name__ == "studies.arena":
        assert set(module.parser().parse_args(words).rows) <= module.ROWS.keys()
        return
    if module.__name__.startswith("studies.detector"):
        module.parser().parse_args(words)
        return
    options = module.STUDY.parser().parse_args(words)
    known = {row for part in options.parts for row in names_of(module.STUDY.parts[part], options)}
    assert set(options.rows) <= known and all(any(name in row for row in known) for name in options.once)
    for row, preset_name, fields in settings(module.STUDY, words):
        assert changed(preset(preset_name)[1], **fields), row


def names_of(part, options):
    return part.names(options) if isinstance(part, Part) else ()


@pytest.mark.parametrize("variance", [1.0, 0.05**2])
def test_the_penalised_precision_is_that_of_the_game(variance):
    """Without a penalty the truth; far from the other level, where the conditional is the energy itself, a root of a quadratic."""
    assert ddaebm.penalised_precision(0.0, variance, 0.9, 0.2) == pytest.approx(1 / variance, rel=1e-6)
    gamma = 0.02
    alone = ddaebm.penalised_precision(gamma, variance, 1e-6, 1.0)
    assert gamma * variance * alone**2 + 0.5 * variance * alone == pytest.approx(0.5, rel=1e-4)
    assert ddaebm.penalised_precision(gamma, variance, 0.9, 0.2) < 1 / variance
