"""The check of the wheel: what it takes for wrong, what a package needs, and an environment without the clone."""

import sys

from studies.checks import wheel


def test_what_does_not_work_is_wrong():
    good = {"from_wheel": True, "strays": [], "commands": [{"exit": 0}]}
    assert not wheel.failed(good)
    for change in ({"from_wheel": False}, {"strays": ["tests/a.py"]}, {"commands": [{"exit": 2}]}):
        assert wheel.failed(good | change)


def test_a_package_needs_what_its_packages_need_but_no_extras():
    found = wheel.needed("thalweg")
    assert {"thalweg", "torch", "numpy", "matplotlib", "typing-extensions"} <= found and not {"pytest", "scikit-learn"} & found
    assert wheel.on_disk("numpy") > 1


def test_a_fresh_environment_has_the_packages_and_not_the_clone(tmp_path):
    python = wheel.fresh(tmp_path)
    code, said, _ = wheel.call([str(python), "-c", "import numpy, sys; print(sys.prefix); import thalweg"], tmp_path)
    assert code and "No module named 'thalweg'" in said and said.startswith(str(tmp_path / "env")) and sys.prefix not in said
