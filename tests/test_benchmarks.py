"""Jobs of the studies in `benchmarks/`: run once, kept, and run again where the code is another."""

import json
import os
import shutil

import pytest

import thalweg
from benchmarks.common import rows_of_jobs

STUDY = """
import json, os, pathlib, sys
*words, job = sys.argv[1:]
if job == "bad":
    sys.exit("this job is broken")
with pathlib.Path(os.environ["STUDY_LOG"]).open("a") as log:
    print(job, file=log)
print("on the way")
print(json.dumps({"job": job, "words": words, "threads": os.environ["OMP_NUM_THREADS"]}))
"""


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A module `study` whose job is a word, a package of one file, and a function that runs jobs and tells which were computed."""
    log, package = tmp_path / "log", tmp_path / "package"
    (tmp_path / "study.py").write_text(STUDY)
    package.mkdir()
    (package / "__init__.py").write_text("one = 1\n")
    monkeypatch.setattr(thalweg, "__file__", str(package / "__init__.py"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("STUDY_LOG", str(log))

    def run(*jobs, arguments=("--size=8",)):
        log.write_text("")
        rows = rows_of_jobs(
            "study", [(job,) for job in jobs], arguments=arguments, work=tmp_path / "work", workers=2, show=lambda row: f"done {row['job']}"
        )
        return rows, sorted(log.read_text().split())

    return run


def test_rows_are_in_order_and_kept(study, capsys):
    rows, computed = study("b", "a", "c")
    assert rows == [{"job": job, "words": ["--size=8"], "threads": "1"} for job in "bac"] and computed == ["a", "b", "c"]
    assert sorted(capsys.readouterr().out.splitlines()) == ["done a", "done b", "done c"]
    again, computed = study("d", "b", "a")
    assert [row["job"] for row in again] == ["d", "b", "a"] and computed == ["d"]


def test_other_arguments_and_other_code_are_computed_anew(study, tmp_path):
    study("a")
    assert study("a", arguments=("--size=9",))[1] == ["a"]
    for path in (tmp_path / "study.py", tmp_path / "package" / "__init__.py"):
        with path.open("a") as file:
            file.write("# changed\n")
        assert study("a")[1] == ["a"], path.name
    shutil.copy(tmp_path / "package" / "__init__.py", tmp_path / "package" / "more.py")
    assert study("a")[1] == ["a"] and study("a")[1] == []


def test_a_job_that_fails_says_why_and_leaves_no_row(study, tmp_path):
    with pytest.raises(SystemExit, match="this job is broken"):
        study("a", "bad")
    assert [json.loads(path.read_text())["job"] for path in (tmp_path / "work").iterdir()] == ["a"]
