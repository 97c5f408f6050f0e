"""The check of the wheel: what it takes for wrong, what an environment holds, and a page that is asked."""

import sys
import venv

import pytest

from studies.checks import wheel


def test_what_does_not_work_is_wrong():
    good = {"from_wheel": True, "strays": [], "commands": [{"exit": 0}]}
    assert not wheel.failed(good)
    for change in ({"from_wheel": False}, {"strays": ["tests/a.py"]}, {"commands": [{"exit": 2}]}):
        assert wheel.failed(good | change)


@pytest.fixture
def empty(tmp_path):
    venv.create(tmp_path / "env", symlinks=True)
    return tmp_path / "env" / "bin" / "python"


def test_an_environment_is_weighed_and_does_not_see_the_clone(empty, tmp_path):
    home = next((tmp_path / "env" / "lib").glob("python*")) / "site-packages"
    for name, content in (("heavy/__init__.py", "#" * 2**21), ("heavy-1.0.dist-info/METADATA", "Name: heavy\nVersion: 1.0\n")):
        (home / name).parent.mkdir()
        (home / name).write_text(content)
    (home / "heavy-1.0.dist-info" / "RECORD").write_text("heavy/__init__.py,,\nheavy-1.0.dist-info/METADATA,,\ngone.py,,\n")
    assert wheel.sizes(empty) == {"heavy": pytest.approx(2.0, abs=0.01)}
    code, said, _ = wheel.call([str(empty), "-c", "import thalweg"], tmp_path)
    assert code and "No module named 'thalweg'" in said
    with pytest.raises(SystemExit, match="No module named pip"):
        wheel.pip(empty, "list")


def test_a_page_that_does_not_come_is_a_failure(tmp_path):
    program = tmp_path / "thalweg"
    program.write_text(f"#!{sys.executable}\nprint('no page')\n")
    program.chmod(0o755)
    code, said, _ = wheel.page(program, tmp_path, "runs/digits")
    assert code == 1 and said
