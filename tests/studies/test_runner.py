"""Jobs of the studies in `studies/`: run once, kept, and run again where the code is another."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import thalweg
from studies.runner import Part, Study, rows_of_jobs

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

    def run(*jobs, arguments=("--size=8",), **options):
        log.write_text("")
        options |= dict(arguments=arguments, work=tmp_path / "work", workers=2, show=lambda row: f"done {row['job']}")
        rows = rows_of_jobs("study", [(job,) for job in jobs], **options)
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


def test_where_things_lie_does_not_make_another_row(study):
    rows, computed = study("a", places=["--work=here"])
    assert rows[0]["words"] == ["--work=here", "--size=8"] and computed == ["a"]
    assert study("a", places=["--work=there"])[1] == []


def test_a_job_that_fails_says_why_and_leaves_no_row(study, tmp_path):
    with pytest.raises(SystemExit, match="this job is broken"):
        study("a", "bad")
    assert [json.loads(path.read_text())["job"] for path in (tmp_path / "work").iterdir()] == ["a"]


PARTED = """
from pathlib import Path
from studies.runner import Part, Study

def one(row, seed, options):
    return {"value": options.images * seed, "data": options.data}

def line(name, mine, rows):
    return {"value": mine[0]["value"], "of": len(rows)}

part = Part(("a", "b", "c"), one, line, more=lambda options, rows: {"count": len(rows)}, most={"c": 1})
STUDY = Study("parted", "A study.", {"part": part, "look": lambda options: {"run": str(options.run)}}, run=Path("runs/x"), of_run=("look",))
if __name__ == "__main__":
    STUDY.main()
"""


def test_a_study_writes_each_part_and_trains_rows_with_its_own_options(tmp_path):
    (tmp_path / "studies").mkdir()
    root = Path(thalweg.__file__).parents[2]
    for name in ("__init__.py", "runner.py", "measures.py"):
        shutil.copy(root / "studies" / name, tmp_path / "studies" / name)
    (tmp_path / "studies" / "parted.py").write_text(PARTED)

    def run(*words):
        environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"}
        command = [sys.executable, "-m", "studies.parted", *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    done = run("part", "look", "--images", "10", "--seeds", "2", "--rows", "b", "--data", "moons", "--out", "results", "--jobs", "2")
    assert not done.returncode, done.stderr
    found = json.loads((tmp_path / "results" / "parted_part_moons.json").read_text())["results"]
    assert found["runs"] == [{"row": "b", "seed": seed, "value": 10 * seed, "data": "moons"} for seed in (0, 1)]
    assert found["summary"] == [{"row": "b", "seeds": 2, "diverged": 0, "value": 0, "of": 2}] and found["count"] == 2
    assert (found["images"], found["seeds"], found["size"]) == (10, 2, None)
    assert json.loads((tmp_path / "results" / "parted_look_moons.json").read_text())["results"] == {"run": "runs/x"}
    done = run("part", "--images", "10", "--seeds", "2", "--once", "a", "--out", "uneven")
    assert not done.returncode, done.stderr
    runs = json.loads((tmp_path / "uneven" / "parted_part.json").read_text())["results"]["runs"]
    assert [(run["row"], run["seed"]) for run in runs] == [("a", 0), ("b", 0), ("c", 0), ("b", 1)]
    for words, message in ((["nope"], "unknown part 'nope': part, look"), (["part", "--rows", "d"], "none of --rows ['d'] is a row")):
        refused = run(*words, "--out", "refused")
        assert refused.returncode and message in refused.stderr and not (tmp_path / "refused").exists()


def test_names_of_rows_may_follow_from_the_options():
    part = Part(lambda options: [f"{options.data} {i}" for i in range(2)], one=None)
    options = Study("x", "", {"part": part}).parser().parse_args(["--data", "moons"])
    assert part.names(options) == ["moons 0", "moons 1"]


CHECKED = """
from studies.runner import Check

CHECK = Check("checked", "A check.", lambda options: {"seed": options.seed, "many": options.many, "wrong": options.seed > 1},
              dict(seed=0, many=["a"]), one=lambda options: {"words": options.one}, failed=lambda results: results["wrong"])
if __name__ == "__main__":
    CHECK.main()
"""


def test_a_check_writes_its_results_and_fails_where_they_are_wrong(tmp_path):
    (tmp_path / "checked.py").write_text(CHECKED)
    root = Path(thalweg.__file__).parents[2]

    def run(*words):
        environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"}
        return subprocess.run([sys.executable, "-m", "checked", *words], cwd=tmp_path, env=environment, capture_output=True, text=True)

    assert run("--seed", "1", "--out", "right.json").returncode == 0 and run("--seed", "2", "--out", "wrong.json").returncode == 1
    records = [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("right", "wrong")]
    assert [(record["seed"], record["results"]["wrong"]) for record in records] == [(1, False), (2, True)]
    assert records[0]["command"] == "python -m checked --seed 1 --out right.json" and records[0]["versions"]["thalweg"]
    assert json.loads(run("--one", "a", "b").stdout) == {"words": ["a", "b"]}
