"""Jobs of the studies in `studies/`: run once, kept, and run again where the code is another."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import thalweg
from studies import cf_ebm as study_cf_ebm
from studies import ddaebm as study_ddaebm
from studies import liebm as study_liebm
from studies import nerf_lebm as study_nerf_lebm
from studies.runner import rows_of_jobs
from thalweg.methods import find
from thalweg.methods.base import changed

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
import os
from pathlib import Path
from studies.runner import Study

def one(row, seed, options):
    return {"row": row, "seed": seed, "value": options.images * seed, "data": options.data}

def part(options):
    rows = STUDY.rows("part", [(row, seed) for seed in range(options.seeds) for row in STUDY.chosen(("a", "b"), options)], options)
    return {"summary": [{"row": r["row"], "value": r["value"]} for r in rows], "runs": rows}

STUDY = Study("parted", "A study.", {"part": part, "look": lambda options: {"run": str(options.run)}}, {"part": one},
              run=Path("runs/x"), of_run=("look",))
if __name__ == "__main__":
    STUDY.main(STUDY.parser())
"""


def test_a_study_writes_each_part_and_trains_rows_with_its_own_options(tmp_path):
    (tmp_path / "studies").mkdir()
    root = Path(thalweg.__file__).parents[2]
    for name in ("__init__.py", "runner.py"):
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
    assert (found["images"], found["seeds"], found["size"]) == (10, 2, None)
    assert json.loads((tmp_path / "results" / "parted_look_moons.json").read_text())["results"] == {"run": "runs/x"}
    done = run("part", "--images", "10", "--seeds", "2", "--once", "a", "--out", "uneven")
    assert not done.returncode, done.stderr
    runs = json.loads((tmp_path / "uneven" / "parted_part.json").read_text())["results"]["runs"]
    assert [(run["row"], run["seed"]) for run in runs] == [("a", 0), ("b", 0), ("b", 1)]
    for words, message in ((["nope"], "unknown part 'nope': part, look"), (["part", "--rows", "c"], "none of --rows ['c'] is a row")):
        refused = run(*words, "--out", "refused")
        assert refused.returncode and message in refused.stderr and not (tmp_path / "refused").exists()


def test_every_row_of_the_ddaebm_study_can_be_built():
    options = study_ddaebm.study_parser().parse_args(["toys", "--images", "1000"])
    rows = [("ddaebm", fields) for fields in (*study_ddaebm.SWEEP.values(), *study_ddaebm.PROPOSALS.values())]
    rows += study_ddaebm.MODELS.values()
    models = [study_ddaebm.toy_settings(toy, kind, fields, options) for kind, fields in rows for toy in study_ddaebm.TOYS]
    images = {**study_ddaebm.VARIANTS, **study_ddaebm.LEVELS}
    models += [("ddaebm/digits", fields) for fields in images.values()]
    models += [("ddaebm/digits-nice", fields) for fields, _ in study_ddaebm.NICE.values()]
    for preset, fields in models:
        config = thalweg.method(preset, **fields).config
        assert all(getattr(config, key) == value for key, value in fields.items()), (preset, fields)


def test_the_ddaebm_study_pairs_rows_by_seed():
    rows = [{"row": row, "seed": seed, "x": value} for row, values in {"a": (1.0, 2.0, None), "b": (3.0, 6.0, 9.0)}.items()
            for seed, value in enumerate(values)]  # fmt: skip
    assert study_ddaebm.paired(rows, "b", "a", "x") == {"less": "a", "difference": 3.0, "standard_error": 1.0}
    assert study_ddaebm.paired(rows, "a", "a", "x") == {"less": "a", "difference": None, "standard_error": None}


def test_every_row_of_the_cf_ebm_and_liebm_studies_is_a_config():
    for fields, _ in study_cf_ebm.ROWS.values():
        config = thalweg.method("cf_ebm/digits", **fields).config
        assert all(getattr(config, key, getattr(config.net, key, None)) == value for key, value in fields.items()), fields
    rows = [("liebm", fields) for _, fields in study_liebm.ROWS.values()] + [("liebm", fields) for fields in study_liebm.SETTINGS.values()]
    for name, fields in rows:
        config = changed(find(name).PRESETS["digits"], **fields)
        assert all(getattr(config, key) == value for key, value in fields.items()), (name, fields)


def test_every_row_of_the_nerf_lebm_study_is_a_config():
    for rows in study_nerf_lebm.ROWS.values():
        for preset, fields in rows.values():
            config = thalweg.method(f"nerf_lebm/{preset}", **fields).config
            assert all(getattr(config, key) == value for key, value in fields.items()), (preset, fields)


@pytest.mark.parametrize("variance", [1.0, 0.05**2])
def test_the_penalised_precision_is_that_of_the_game(variance):
    """Without a penalty the truth; far from the other level, where the conditional is the energy itself, a root of a quadratic."""
    assert study_ddaebm.penalised_precision(0.0, variance, 0.9, 0.2) == pytest.approx(1 / variance, rel=1e-6)
    gamma = 0.02
    alone = study_ddaebm.penalised_precision(gamma, variance, 1e-6, 1.0)
    assert gamma * variance * alone**2 + 0.5 * variance * alone == pytest.approx(0.5, rel=1e-4)
    assert study_ddaebm.penalised_precision(gamma, variance, 0.9, 0.2) < 1 / variance
