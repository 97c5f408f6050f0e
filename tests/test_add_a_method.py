"""docs/add_a_method.md followed literally, outside the package: the file, the commands, Python, one's own loop, the tests that it shows."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "add_a_method.md"
FILE, USE, LOOP, TESTS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.S | re.M)
(COMMANDS,) = re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(), re.S | re.M)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder that holds my_method.py and is the working directory."""
    (tmp_path / "my_method.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "thalweg.cli", *words], capture_output=True, text=True)


def test_the_commands(home):
    """As written, but for shorter runs and fewer samples."""
    short = {"train": ["--images", "1024", "--chain.steps", "5"], "sample": ["--steps", "5"], "evaluate": ["--metrics", "cost", "-n", "4"]}
    for line in COMMANDS.splitlines():
        _, command, *words = shlex.split(line)
        done = run(command, *words, *short[command])
        assert not done.returncode, f"{line}\n{done.stderr}"
    assert (home / "samples.npz").exists() and (home / "runs" / "dsm" / "report.html").exists()
    resumed = run("train", "my_method.py:DSM", "--out", "runs/dsm", *short["train"])
    assert not resumed.returncode and "going on from 1,024" in resumed.stderr
    refused = run("sample", "runs/dsm", "--out", "samples.npz")
    assert refused.returncode == 2 and "--kind" in refused.stderr and "Traceback" not in refused.stderr


def test_the_python_and_the_loop(home):
    code = USE.replace("images=10_000", "images=1024").replace("again = ", "model.config.chain\nagain = ") + LOOP
    code = code.replace("DSM.Config()", "DSM.Config(chain=tw.chain.Langevin(steps=5))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert not done.returncode, done.stderr
    assert "torch.Size([5, 2])" in done.stdout


def test_the_tests_that_the_page_shows(home):
    scope: dict = {}
    exec(compile(FILE, "my_method.py", "exec"), scope)
    exec(compile("import thalweg as tw\n" + TESTS, "add_a_method.md", "exec"), scope)
    tests = [test for name, test in scope.items() if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        test()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "nothing.py:DSM", "--out", "x"], "there is no file nothing.py"),
        (["train", "my_method.py:DMS", "--out", "x"], "my_method.py has no method 'DMS' (did you mean 'DSM'?)"),
        (["train", "broken.py:DSM", "--out", "x"], "broken.py cannot be imported: ZeroDivisionError"),
        (["train", "my_method.py:DSM/spiral", "--out", "x"], "has no preset 'spiral'"),
        (["train", "my_method.py:DSM", "--sigma", "-1", "--out", "x"], "sigma = -1"),
    ],
)
def test_wrong_words_about_a_file_of_one_s_own(words, message, home):
    (home / "broken.py").write_text("1 / 0\n")
    done = run(*words)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert not (home / "x").exists()
