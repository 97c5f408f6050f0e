"""`thalweg list`: every row of every table, without torch, with the parameters that were counted."""

import json
import subprocess
import sys
import time

import pytest

from thalweg import presets
from thalweg.commands.list import SIZES, lines, tables
from thalweg.commands.main import main
from thalweg.commands.sizes import count
from thalweg.methods import METHODS, preset


def test_every_row_is_a_line(capsys):
    assert main(["list"]) == 0
    said = capsys.readouterr().out.splitlines()
    names = [f"{method}/{key}" for method, rows in tables().items() for key in rows]
    assert [line.split()[0] for line in said[:-2]] == names and list(tables()) == list(METHODS)
    assert said[-2] == "" and all(toy in said[-1] for toy in presets.TOYS)


def test_a_line_says_what_the_preset_is():
    (line,) = (line for line in lines() if line.startswith("short_run/fashion-mnist "))
    config, size = preset("short_run/fashion-mnist")[1], json.loads(SIZES.read_text())["short_run/fashion-mnist"]
    for word in ("fashion-mnist", "1×28×28", f"{size:,} parameters", f"{config.images:,} images"):
        assert word in line
    assert "any toy" in next(line for line in lines() if line.startswith("short_run/toy "))


def test_sizes_are_counted():
    stored = json.loads(SIZES.read_text())
    assert set(stored) == {f"{method}/{key}" for method, rows in tables().items() for key in rows}


@pytest.mark.parametrize("method", METHODS)
def test_the_stored_size_is_that_of_the_network(method):
    """Of the first preset of each; where one has changed, `python -m thalweg.commands.sizes` counts anew."""
    name = f"{method}/{next(iter(tables()[method]))}"
    assert count([name]) == {name: json.loads(SIZES.read_text())[name]}


def test_the_first_run_of_the_help_is_a_preset():
    assert preset(presets.FIRST) and preset(presets.FIRST_TOY)


def test_listing_does_not_wait_for_torch():
    code = "import sys\nfrom thalweg.commands.list import lines\nlines()\nprint('torch' in sys.modules)"
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stdout + done.stderr
    assert time.monotonic() - started < 10  # 0.4 s where the machine is free
