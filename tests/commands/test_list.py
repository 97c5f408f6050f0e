"""`thalweg list`: every row of every table, without torch, with the parameters that were counted."""

import json
import subprocess
import sys
import time

import pytest

from thalweg import presets
from thalweg.commands.list import MEASURED, SIZES, TAGS, lines, tables, tags
from thalweg.commands.main import main
from thalweg.commands.sizes import count
from thalweg.methods import METHODS, preset


def test_every_row_is_a_line(capsys):
    assert main(["list"]) == 0
    said = capsys.readouterr().out.splitlines()
    names = [f"{method}/{key}" for method, rows in tables().items() for key in rows]
    assert [line.split()[0] for line in said if line.startswith("  ")] == names and list(tables()) == list(METHODS)
    assert [line.partition(":")[0] for line in said[:-1] if line and not line.startswith("  ")] == list(METHODS)
    assert said[-2] == "" and all(toy in said[-1] for toy in presets.TOYS)


def test_a_method_and_tags_narrow_it_down(capsys):
    assert main(["list", "egc", "--laptop", "--picture"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said if line.startswith("  ")] == ["egc/digits", "egc/digits-unsupervised"]
    assert main(["list", "jem", "--3-d"]) == 2 and "no preset is tagged 3-d" in capsys.readouterr().err
    assert main(["list", "ecg"]) == 2 and "did you mean 'egc'" in capsys.readouterr().err
    assert main(["list", "--labtop"]) == 2 and "did you mean 'laptop'" in capsys.readouterr().err
    assert main(["list", "--help"]) == 0 and all(f"--{tag}" in capsys.readouterr().out for tag in list(TAGS)[:1])


@pytest.mark.parametrize(
    "name, found",
    [
        ("short_run/toy", ["toy", "laptop"]), ("dual/vectors", ["table", "laptop"]), ("egc/digits", ["picture", "laptop"]),
        ("egc/fashion-mnist", ["picture", "hours"]), ("dual/emoji-google", ["colour", "hours"]), ("egc/cifar10", ["colour", "gpu"]),
        ("egc/imagenet256-latent", ["latent", "gpu"]), ("dual/fashion-mnist-latent", ["latent", "hours"]),
        ("nerf_lebm/objects", ["3-d", "hours"]), ("nerf_lebm/cars", ["3-d", "hours"]),
        ("nerf_lebm/carla-mcmc", ["3-d", "gpu"]), ("cf_ebm/celeba-64", ["colour", "gpu"]),
    ],
)  # fmt: skip
def test_tags_follow_from_the_row(name, found):
    method, _, key = name.partition("/")
    assert tags(key, presets.rows(method)[key]) == found


def test_every_preset_has_one_tag_of_data_and_one_of_time():
    for method, rows in tables().items():
        for key, row in rows.items():
            found = tags(key, row)
            assert len(found) == 2 and found[0] in list(TAGS)[:6] and found[1] in list(TAGS)[6:], (method, key)


def test_what_was_measured_stands_in_the_line_and_is_of_presets():
    known = json.loads(MEASURED.read_text(encoding="utf-8"))
    assert presets.FIRST in known and known.keys() <= {f"{method}/{key}" for method, rows in tables().items() for key in rows}
    assert any(line.endswith(known[presets.FIRST]) for line in lines(["egc"]))


def test_a_line_says_what_the_preset_is():
    (line,) = (line for line in lines() if line.startswith("  short_run/fashion-mnist "))
    config, size = preset("short_run/fashion-mnist")[1], json.loads(SIZES.read_text())["short_run/fashion-mnist"]
    for word in ("fashion-mnist", "1×28×28", f"{size:,} parameters", f"{config.images:,} images"):
        assert word in line
    assert "any toy" in next(line for line in lines() if line.startswith("  short_run/toy "))


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
