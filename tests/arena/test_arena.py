"""Comparisons at equal price: who takes part, what a training may cost, what is a winner, and what is kept on disk."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import thalweg as tw
from thalweg import data
from thalweg.arena import price
from thalweg.arena.compare import _size
from thalweg.arena.entrants import Entrant, entrants, nearest_preset
from thalweg.arena.page import write_page
from thalweg.arena.row import Plan, figures, measured
from thalweg.arena.table import COLUMNS, Cell, Column, cell, shown, summary, troubles, value_of, winner
from thalweg.commands.main import main
from thalweg.data.base import Batch
from thalweg.errors import Diverged, InputError

OWN = """
import torch
from thalweg.methods.short_run import ShortRun

class Mine(ShortRun):
    name = "mine"
    PRESETS = {"toy": dict(data="8gaussians", shape=(2,), images=100, batch=16, buffer=64)}

class Broken(ShortRun):
    name = "broken"
    PRESETS = {"toy": dict(data="8gaussians", shape=(2,), images=100, batch=16, buffer=64)}

    def step(self, batch, update):
        raise tw_error("cannot")

class Wrong(Broken):
    name = "wrong"

    def step(self, batch, update):
        1 / 0

from thalweg.errors import InputError as tw_error
"""
SMALL = {"steps": 2, "sample_steps": 4, "width": 16, "batch": 16, "buffer": 64}


# --- who takes part


def images(channels, size):
    return data.Images(torch.zeros(20, channels, size, size).uniform_(-1, 1), torch.arange(20) % 2, ("a", "b"), name="own")


def test_a_method_alone_takes_the_preset_of_the_data_or_the_nearest():
    assert nearest_preset("egc", data.load("digits", "train")) == "digits"
    assert nearest_preset("short_run", data.load("moons")) == "moons"
    assert nearest_preset("short_run", data.Table(torch.randn(50, 5))) == "vectors"
    assert nearest_preset("egc", images(1, 26)) == "fashion-mnist"
    assert nearest_preset("cf_ebm", images(1, 9)).startswith("digits")


def test_no_preset_for_such_data_is_said():
    with pytest.raises(InputError, match=r"nerf_lebm has no preset for examples of shape \(5,\)"):
        nearest_preset("nerf_lebm", data.Table(torch.randn(50, 5)))
    with pytest.raises(InputError, match=r"unknown method 'shortrun'.*short_run"):
        nearest_preset("shortrun", data.load("moons"))


def test_entrants_have_names_fields_and_are_not_there_twice():
    moons = data.load("moons")
    found = entrants({"wide": ("short_run", {"width": 96}), "dual": "dual/moons"}, moons)
    assert found == [Entrant("wide", "short_run/moons", {"width": 96}), Entrant("dual", "dual/moons")]
    assert entrants(["short_run"], moons)[0].name == "short_run/moons"
    with pytest.raises(InputError, match="compared twice"):
        entrants(["short_run", "short_run/moons"], moons)


def test_all_take_the_size_of_the_preset_that_is_made_for_the_data():
    who = [Entrant("a", "egc/emoji-google"), Entrant("b", "short_run/fashion-mnist")]
    assert (
        _size(who, Plan("emoji-google")) == 32 and _size(who, Plan("digits")) is None and _size(who, Plan({"train": 0, "test": 0})) is None
    )
    with pytest.raises(InputError, match="presets of fashion-mnist have images of sides 28, 32"):
        _size([Entrant("a", "egc/fashion-mnist"), Entrant("b", "liebm/fashion-mnist")], Plan("fashion-mnist"))


# --- the price


class Ticking:
    """A clock that the data move: each batch costs a tenth of a second, the first ten."""

    now = 0.0

    def __init__(self, device="cpu"):
        self.out = Ticking.now

    def __call__(self):
        return Ticking.now - self.out


class Slow:
    name, shape, classes = "slow", (2,), ()

    def __init__(self):
        self.batches = 0

    def batch(self, start, count, seed):
        Ticking.now += 10.0 if not self.batches else 0.1
        self.batches += 1
        return Batch(torch.zeros(count, 2) + torch.randn(count, 2))


@pytest.mark.parametrize("seconds", [100.0, 400.0])
def test_images_follow_from_the_time_of_a_step(monkeypatch, seconds):
    monkeypatch.setattr(price, "Clock", Ticking)
    slow = Slow()
    trial = tw.method("short_run/8gaussians", images=1, **SMALL)
    found = price.images_for(trial, slow, seconds)
    assert found == int((0.97 * seconds - 10.1) / 0.1 + 1e-9) * 16 or abs(found / 16 - (0.97 * seconds - 10.1) / 0.1) <= 1
    assert price.LEAST <= slow.batches - price.FIRST <= price.MOST


def test_what_is_done_while_the_clock_is_stopped_is_free():
    clock = price.Clock()
    with clock.stopped():
        sum(i * i for i in range(2_000_000))
    before = clock()
    assert before < 0.05
    sum(i * i for i in range(2_000_000))
    assert clock() > before + 0.02


# --- the table


def test_cells_are_means_with_students_interval():
    one = cell([1.0, 2.0, 4.5])
    assert one.mean == 2.5 and one.seeds == 3
    assert one.high - one.mean == pytest.approx(4.302653 * math.sqrt(3.25) / math.sqrt(3), rel=1e-5)
    assert cell([3.0]) == Cell(3.0, None, None, 1) and cell([]) is None


def test_a_winner_is_named_only_where_intervals_part():
    down, up, neither = Column("a", "a", better="down"), Column("a", "a", better="up"), Column("a", "a")
    apart = {"x": Cell(1.0, 0.9, 1.1, 3), "y": Cell(2.0, 1.5, 2.5, 3), "z": Cell(3.0, 2.0, 4.0, 3)}
    assert winner(down, apart) == "x" and winner(up, apart) is None and winner(neither, apart) is None
    assert winner(up, {"x": apart["x"], "y": apart["y"]}) == "y"
    assert winner(down, {**apart, "w": Cell(1.15, 1.05, 1.25, 3)}) is None
    assert winner(down, {"x": Cell(1.0, None, None, 1), "y": Cell(9.0, None, None, 1)}) is None
    assert winner(down, {"x": apart["x"]}) is None


def test_rows_are_summed_up_by_entrant_and_column():
    rows = [{"method": name, "seed": s, "kl": kl + s, "outliers": {"mean": 0.5}} for name, kl in (("a", 1.0), ("b", 5.0)) for s in (0, 1)]
    rows.append({"method": "c", "seed": 0, "refused": "no"})
    cells = summary(rows)
    assert list(cells) == ["a", "b", "c"] and cells["c"] == {} and cells["b"]["kl"].mean == 5.5
    assert value_of(rows[0], "outliers.mean") == 0.5 and value_of(rows[0], "outliers.of.it") is None
    assert value_of({"kl": math.nan}, "kl") is None
    assert shown(cells["a"]["kl"], next(c for c in COLUMNS if c.key == "kl")).startswith("1.5000 ± ")
    assert troubles(rows) == ["c, seed 0: refused: no"]


def test_short_trainings_and_unmeasured_figures_are_told():
    row = {"method": "a", "seed": 1, "cpu_seconds": 20.0, "price": 100.0, "refused_metrics": {"ood": "why"}}
    assert troubles([row]) == ["a, seed 1: no ood: why", "a, seed 1: trained for 20 s of 100: its first steps were slower than the others"]


def test_the_outlier_score_is_that_of_all_levels_where_there_is_one():
    kinds = {"constant": {"auroc": 0.9}, "uniform": {"auroc": 0.7}, "mean_auroc": 0.8}
    low = {"constant": {"auroc": 0.1}, "uniform": {"auroc": 0.2}, "mean_auroc": 0.15}
    assert figures({"ood": {"energy": low, "levels": kinds}})["outliers"] == pytest.approx(
        {"score": "levels", "mean": 0.8, "uniform": 0.7, "constant": 0.9}
    )
    assert figures({"ood": {"energy": low}})["outliers"]["score"] == "energy"
    assert figures({"ood": {"refused": "no"}})["refused_metrics"] == {"ood": "no"} and figures({})["frechet"] is None


# --- whole comparisons


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    out = tmp_path_factory.mktemp("compared") / "moons"
    methods = {"short": ("short_run", SMALL), "dual": ("dual", {"width": 16, "batch": 64, "calibration": 500})}
    rows = tw.compare(methods, "moons", out=out, seconds=0.8, seeds=2, n=200, progress=False)
    return methods, out, rows


def test_all_are_trained_at_the_price_and_measured_alike(compared):
    _, out, rows = compared
    assert [(row["method"], row["seed"]) for row in rows] == [("short", 0), ("short", 1), ("dual", 0), ("dual", 1)]
    for row in rows:
        assert 0.2 < row["cpu_seconds"] < 1.5 and row["images"] > 0 and row["kl"] > 0 and row["parameters"] > 0
        assert [look["images"] for look in row["curve"]] == sorted({look["images"] for look in row["curve"]})
        assert row["curve"][-1]["images"] == row["images"] and row["curve"][-1]["value"] == pytest.approx(row["kl"])
        assert row["images"] <= tw.load(out / row["folder"]).config.images < 2 * row["images"]  # a run as any other; rarely cut off
    assert rows[2]["nats"] is not None and rows[0]["nats"] is None
    assert json.loads((out / "compare.json").read_text()) == rows
    page = (out / "compare.html").read_text()
    assert "short" in page and "dual" in page and 'class="wide sorts"' in page and "data:image/png" in page
    assert "<th>KL(truth‖model) ↓</th>" in page and "0.8 CPU seconds of one thread a training" in page and "95 % intervals" in page


def test_the_page_marks_what_lies_beyond_all_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the folder of the runs may be given as it is seen from here
    rows = [
        {"method": name, "seed": seed, "kl": kl + 0.01 * seed, "accuracy": 0.5 + 0.1 * seed, "folder": name,
         "curve": [{"cpu_seconds": s + seed, "value": kl / s} for s in (1.0, 2.0)]}
        for name, kl in (("good", 1.0), ("bad", 5.0)) for seed in (0, 1)
    ]  # fmt: skip
    (tmp_path / "runs").mkdir()
    page = write_page(Path("runs"), rows, Plan("moons")).read_text()
    assert page.count('<td class="best">') == 1 and '<td class="best">1.0050 ± ' in page  # accuracies do not part
    assert "95 % intervals: KL(truth‖model): good." in page and (tmp_path / "runs" / "compare.png").exists()


def test_the_same_call_trains_nothing_anew_and_others_are_refused(compared):
    methods, out, rows = compared
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.pt")}
    assert tw.compare(methods, "moons", out=out, seconds=0.8, seeds=2, n=200, progress=False) == rows
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.pt")} == before
    with pytest.raises(InputError, match=r"other settings .n 200 there, 300 asked for"):
        tw.compare(methods, "moons", out=out, seconds=0.8, seeds=2, n=300, progress=False)
    (out.parent / "other").mkdir()
    (out.parent / "other" / "notes.txt").touch()
    with pytest.raises(InputError, match="other is no comparison"):
        tw.compare(methods, "moons", out=out.parent / "other")


def test_a_training_that_was_cut_off_keeps_its_length(tmp_path):
    plan, who = Plan("moons", seconds=0.4, n=100, curve=False), Entrant("short", "short_run/moons", SMALL)
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "short-0.price.json").write_text(json.dumps({"images": 320}))
    assert measured(who, 0, plan, tmp_path / "short-0", progress=False)["images"] == 320


def test_data_of_ones_own_and_several_at_a_time(tmp_path):
    x = torch.randn(300, 3)
    rows = tw.compare(
        {"a": ("short_run", SMALL), "b": ("short_run", {**SMALL, "width": 24})}, {"train": x[:200], "test": x[200:]},
        out=tmp_path / "own", seconds=0.4, n=100, jobs=2, progress=False,
    )  # fmt: skip
    assert [row["method"] for row in rows] == ["a", "b"] and all(row["energy_distance"] is not None for row in rows)
    assert (tmp_path / "own" / "compare.html").exists()


def test_ones_own_method_and_one_that_fails_among_others(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    mine = [f"{tmp_path}/own.py:{name}" for name in ("Mine", "Broken", "Wrong")]
    rows = tw.compare(mine, "8gaussians", out=tmp_path / "out", seconds=0.3, n=100, progress=False)
    assert rows[0]["method"] == "own.py:Mine" and rows[0]["kl"] is not None
    assert rows[2]["refused"] == "it failed: ZeroDivisionError: division by zero"
    assert rows[1]["refused"] == "cannot" and "own.py:Broken, seed 0: refused: cannot" in (tmp_path / "out" / "compare.html").read_text()


def test_a_model_that_diverges_is_a_row_that_says_so(tmp_path, monkeypatch):
    from thalweg.arena import row

    def diverges(*_, **__):
        raise Diverged("energies grew")

    monkeypatch.setattr(row, "fit", diverges)
    found = measured(Entrant("short", "short_run/moons", SMALL), 0, Plan("moons", seconds=0.3, n=50), tmp_path / "short-0", progress=False)
    assert found["diverged"] == "energies grew"
    write_page(tmp_path, [found], Plan("moons"))
    assert "diverged: energies grew" in (tmp_path / "compare.html").read_text()


@pytest.mark.parametrize(
    "asked, said",
    [
        (["--data", "moons", "--out", "x"], "compare needs --methods"),
        (["--methods", "dual", "--out", "x"], "compare needs --data"),
        (["--methods", "dual", "--data", "moons"], "compare needs --out"),
        (["--methods", "dual", "--data", "moons", "--out", "x", "--seconds", "0"], "--seconds must be above 0"),
        (["--methods", "dul", "--data", "moons", "--out", "x"], "unknown method 'dul'"),
        (["--methods", "dual", "--data", "nowhere", "--out", "x"], "nowhere"),
        (["--methods", "dual", "--data", "moons", "--out", "x", "--precision", "fp8"], "--precision fp8 is not known"),
    ],
)
def test_wrong_options_are_one_line_and_nothing_is_written(asked, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["compare", *asked]) == 2
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("thalweg: ")]
    assert len(told) == 1 and said in told[0] and not list(tmp_path.iterdir())


def test_the_command_prints_a_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    out = tmp_path / "out"
    assert main(["compare", "--methods", "short_run,ddpm", "--data", "moons", "--seconds", "0.5", "--n", "100", "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert "KL(truth‖model)" in said.out and "short_run/moons" in said.out and str(out / "compare.html") in said.out
    assert "[2/2] ddpm/moons, seed 0" in said.err


def test_pictures_of_quality_need_a_value(tmp_path):
    plain = tw.plot.over_time({"a": [(1.0, 2.0), (4.0, 1.0)]}, tmp_path / "c.png").read_bytes()
    banded = {"a": [(1.0, 2.0, 1.5, 2.5), (4.0, 1.0, -1.0, 3.0)]}
    assert tw.plot.over_time(banded, tmp_path / "c.png").read_bytes() != plain
    assert tw.plot.over_time({"a": [(1.0, 2.0), (4.0, 0.1)], "b": [(1.0, math.nan)]}, tmp_path / "a.png").stat().st_size > 1000
    with pytest.raises(InputError, match="nothing to draw"):
        tw.plot.over_time({"a": [(1.0, math.inf)]}, tmp_path / "b.png")


def test_a_plan_says_what_it_is_as_json():
    told = Plan({"train": torch.zeros(2, 2), "test": torch.zeros(2, 2)}, outliers=("digits",)).told()
    assert json.loads(json.dumps(told)) == told and told["data"] == "data of one's own" and told["seconds"] == 300
    assert SimpleNamespace(**told).outliers == ["digits"]


def test_a_row_of_other_settings_is_not_taken_for_this_one(tmp_path):
    who, plan, folder = Entrant("short", "short_run/moons", SMALL), Plan("moons", seconds=0.3, n=50), tmp_path / "short-0"
    row = measured(who, 0, plan, folder, progress=False)
    assert measured(who, 0, plan, folder, progress=False) == row
    for other in (Plan("8gaussians", seconds=0.3, n=50), Plan("moons", seconds=7200.0, n=50)):
        with pytest.raises(InputError, match="measured with other settings"):
            measured(who, 0, other, folder, progress=False)
