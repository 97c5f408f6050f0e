"""Presets, weights and samples are those of version 0.1, whose records are in tests/golden: the move changed shape, not behaviour."""

import importlib
import json
from dataclasses import asdict
from pathlib import Path

import pytest

from thalweg.methods import preset

RECORDS = Path(__file__).parent / "golden"
CONFIGS = json.loads((RECORDS / "configs.json").read_text())
CONVERTED = sorted(path.stem for path in RECORDS.glob("*.py"))


@pytest.mark.parametrize("name", [name for name in CONFIGS if name.partition("/")[0] in CONVERTED])
def test_a_preset_is_what_it_was(name):
    renamed = importlib.import_module(f"golden.{name.partition('/')[0]}").renamed
    now = json.loads(json.dumps(asdict(preset(name)[1])))
    assert now == json.loads(json.dumps(renamed(CONFIGS[name])))
