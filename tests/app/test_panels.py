"""The panels as functions: what is asked, what comes back, what is refused."""

import base64
import functools
import io
import json
import os

import numpy
import pytest
import torch
from PIL import Image

import thalweg as tw
from thalweg.app import draw, judge, landscape, mend, shelf, watch
from thalweg.app.pictures import decoded, encoded
from thalweg.app.server import about
from thalweg.app.shelf import PANELS, Shelf
from thalweg.app.words import WORDS
from thalweg.errors import Diverged, InputError


def pixels(url: str) -> numpy.ndarray:
    return numpy.array(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))


def url(content: bytes) -> str:
    return "data:application/octet-stream;base64," + base64.b64encode(content).decode()


def png(array: numpy.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return url(buffer.getvalue())


@pytest.fixture
def entry(shelf, folders):
    return lambda name: shelf.entries[str(folders / name)]


# --- what is shown


def test_panels_are_live_by_abilities_and_say_why_not(shelf, folders):
    told = {one["name"].rpartition("/")[2]: one for one in about(shelf)["entries"]}
    live = {name: [panel for panel in PANELS if not one["panels"][panel]] for name, one in told.items()}
    assert live == {
        "digits": ["draw", "fill", "repair", "detect", "watch"],
        "dual": ["draw", "fill", "repair"],
        "moons": ["landscape", "draw"],
        "gan": ["draw"],
        "rows": ["detect"],
    }
    for one in told.values():
        for why in one["panels"].values():
            assert not why or (why[0].isupper() or why.startswith("/")) and why.endswith(".") and "\n" not in why
    assert "keeps no energies of held-out examples" in told["dual"]["panels"]["detect"]
    assert told["dual"]["ways"] == ["posterior", "constraint"] and told["digits"]["ways"] == ["constraint"]
    assert told["dual"]["kinds"] == ["noise", "blur", "coarse"] and len(told["dual"]["classes"]) == 10
    assert told["digits"]["title"].startswith("EGC") and told["digits"]["page"] == "docs/methods/egc.md" and len(told["digits"]["box"]) == 3


def test_each_panel_says_what_it_does_and_by_which_equation(shelf):
    assert tuple(WORDS) == PANELS and all(panel.sentence and panel.equations and panel.by for panel in WORDS.values())
    json.dumps(about(shelf), allow_nan=False)


def test_a_run_without_a_state_can_be_watched(tmp_path, folders):
    run = tmp_path / "new"
    run.mkdir()
    (run / "config.json").write_bytes((folders / "digits" / "config.json").read_bytes())
    entry = Shelf([str(run)]).entries[str(run)]
    assert "no saved state yet" in entry.panels()["draw"] and not entry.panels()["watch"]
    assert watch.watch(entry, {})["images"] == 0 and entry.about()["title"] == "A run that has no state yet"
    for file in folders.joinpath("digits").glob("state-*"):
        (run / file.name).write_bytes(file.read_bytes())
    assert not entry.panels()["draw"], "the state that has come is loaded"


def test_a_name_that_is_not_there_and_one_that_is_not_shown(tmp_path, shelf):
    with pytest.raises(InputError):
        Shelf([str(tmp_path / "nowhere")])
    for name in ("nowhere", None, ["x"], "../digits", "/etc/passwd"):
        with pytest.raises(InputError, match="no such model here"):
            shelf.entry({"model": name})


# --- landscape


def test_a_map_is_the_energy_and_sums_have_weights(shelf):
    found = landscape.picture(shelf, {"first": "8gaussians"})
    levels = numpy.frombuffer(base64.b64decode(found["map"]), numpy.uint8).reshape(found["cells"], -1)
    row, column = divmod(int(levels.argmin()), found["cells"])
    left, right, bottom, top = found["box"]
    x, y = left + (column + 0.5) / found["cells"] * (right - left), top - (row + 0.5) / found["cells"] * (top - bottom)
    assert abs((x**2 + y**2) ** 0.5 - 2) < 0.05, "the lowest point is a mode, on the circle of radius 2"
    point = torch.tensor([[0.3, -0.7], [1.0, 2.0]])
    one, other = (landscape.chosen(shelf, {"first": name}).energy(point) for name in ("gaussian", "rings"))
    both = landscape.chosen(shelf, {"first": "gaussian", "second": "rings", "weight1": 0.5, "weight2": 1.5})
    torch.testing.assert_close(both.energy(point), 0.5 * one + 1.5 * other)
    without = landscape.chosen(shelf, {"first": "gaussian", "second": "rings", "weight2": -0.5})
    torch.testing.assert_close(without.energy(point), one - 0.5 * other)
    far = landscape.walk(shelf, {"first": "rings", "weight1": -2, "steps": 200, "chains": 50, "seed": 1})["frames"][-1]
    assert 3 < max(abs(x) for pair in far for x in pair) < 8, "a wall keeps chains of a negated energy near"


@pytest.mark.parametrize("sampler", landscape.SAMPLERS)
def test_chains_walk_on_and_nothing_is_kept(shelf, folders, sampler):
    asked = {"first": "gaussian", "sampler": sampler, "step": 0.3, "steps": 20, "chains": 300, "seed": 4}
    first = landscape.walk(shelf, asked)
    assert len(first["frames"]) == 21 and len(first["frames"][0]) == 300 and first["done"] == 20
    assert (first["accepted"] is None) == (sampler == "langevin") and abs(first["exact"] - 2.84) < 0.1
    further = landscape.walk(shelf, asked | {"x": first["frames"][-1], "done": 20, "steps": 200})
    assert further["frames"][0] == first["frames"][-1] and abs(further["energy"] - further["exact"]) < 0.3
    assert landscape.walk(shelf, asked) == first
    own = landscape.walk(shelf, {"first": str(folders / "moons"), "sampler": sampler, "chains": 5, "steps": 3})
    assert len(own["frames"][-1]) == 5 and own["exact"] is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"first": "moon"}, "did you mean 'moons'"),
        ({"second": "x"}, "second must be one of"),
        ({"sampler": "nuts"}, "sampler must be one of"),
        ({"step": "0.1"}, "step must be a number from 0.001 to 2"),
        ({"step": float("nan")}, "step must be"),
        ({"temperature": 0}, "temperature must be"),
        ({"steps": 1.5}, "steps must be a whole number"),
        ({"steps": 10**9}, "steps must be"),
        ({"chains": 10**6}, "chains must be"),
        ({"weight1": True}, "weight1 must be"),
        ({"x": [[1, 2, 3]]}, "pairs of numbers"),
        ({"x": [[1, float("inf")]]}, "pairs of numbers"),
        ({"x": "here"}, "pairs of numbers"),
        ({"x": [[0, 0]] * 401}, "up to 400"),
    ],
)
def test_wrong_words_to_the_landscape_have_one_message(shelf, wrong, message):
    with pytest.raises(InputError, match=message):
        landscape.walk(shelf, {"first": "moons"} | wrong)


def test_a_chain_that_runs_away_is_said(shelf):
    with pytest.raises(Diverged, match="lower the step"):
        landscape.walk(shelf, {"first": "gaussian", "step": 2.0, "temperature": 0.05, "steps": 200, "chains": 5})


# --- draw, fill in, repair


def test_pictures_go_out_and_come_back():
    x = torch.rand(3, 5, 7) * 2 - 1
    back = decoded(encoded(x), "it", (3, 5, 7))
    assert back.shape == (1, 3, 5, 7) and float((back[0] - x).abs().max()) < 1 / 127
    assert decoded(png(numpy.zeros((40, 30, 3), numpy.uint8)), "it", (1, 8, 8)).shape == (1, 1, 8, 8)
    for wrong, message in (
        (None, "missing"), ("data:,***", "no base64"), (url(b"text"), "cannot be read as a picture"),
        (url(b"\x89PNG\r\n\x1a\n"), "cannot be read"),
        (png(numpy.zeros((7000, 7000), numpy.uint8)), "at most 40 million"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            decoded(wrong, "it", (1, 8, 8))
    with pytest.raises(InputError, match="takes no pictures"):
        decoded(encoded(x), "it", (2,))


def test_samples_by_label_guidance_steps_and_seed(entry, monkeypatch):
    model, given = entry("dual").model, []
    own = model.sample

    @functools.wraps(own)
    def sample(n, **options):
        given.append(options)
        return own(n, **options)

    monkeypatch.setattr(model, "sample", sample)
    asked = {"count": 4, "label": "each", "guidance": 2.0, "steps": 2, "seed": 5}
    found = draw.draw(entry("dual"), asked)
    assert [pixels(one).shape for one in found["pictures"]] == [(8, 8)] * 4
    assert draw.draw(entry("dual"), asked) == found != draw.draw(entry("dual"), asked | {"seed": 6})
    assert given[0]["label"].tolist() == [0, 1, 2, 3] and (given[0]["guidance"], given[0]["steps"], given[0]["seed"]) == (2.0, 2, 5)
    draw.draw(entry("dual"), {"count": 2, "label": "", "guidance": 2.0})
    assert given[-1] == {"seed": 0}, "without a label there is nothing to guide by"
    assert found["equation"] == "E(x) + 2 [E(x | y) − E(x)]"
    points = draw.draw(entry("moons"), {})
    assert len(points["points"]) == 400 and points["columns"] == ["x0", "x1"]
    for wrong, message in (
        ({"label": "x"}, "label must be one of"), ({"count": 37}, "count must be"), ({"steps": 0}, "steps must be"),
        ({"seed": -1}, "seed must be"),
        ({"label": "3", "guidance": 99}, "guidance must be"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            draw.draw(entry("dual"), {"count": 1} | wrong)
    with pytest.raises(InputError, match="a detector of outliers"):
        draw.draw(entry("rows"), {})


def test_labels_are_composed_with_weights(entry, folders):
    assert entry("dual").about()["concepts"] and not entry("digits").about()["concepts"] and not entry("gan").about()["concepts"]
    asked = {"count": 3, "label": "3", "guidance": 1.5, "also": [{"label": "8", "guidance": -0.5}], "steps": 2, "seed": 5}
    found = draw.draw(entry("dual"), asked)
    model = tw.load(folders / "dual")
    label = torch.tensor([[3, 8]] * 3)
    expected = model.sample(3, seed=5, steps=2, label=label, guidance=[1.5, -0.5])
    assert found["pictures"] == [encoded(one) for one in expected]
    assert found["equation"] == "E(x) + 1.5 [E(x | 3) − E(x)] − 0.5 [E(x | 8) − E(x)]"
    alone = draw.draw(entry("dual"), asked | {"also": []})
    assert alone["pictures"] != found["pictures"] and alone["equation"] == "E(x) + 1.5 [E(x | 3) − E(x)]"
    assert draw.draw(entry("dual"), asked | {"also": [], "guidance": 1})["equation"] == ""
    denied = draw.draw(entry("dual"), asked | {"label": "", "also": [{"label": "8", "guidance": -1}]})
    assert denied["equation"] == "E(x) − 1 [E(x | 8) − E(x)]"
    for name, wrong, message in (
        ("dual", {"also": [{"label": "8"}] * 4}, "up to 3 labels"), ("dual", {"also": "8"}, "up to 3 labels"),
        ("dual", {"also": ["8"]}, "up to 3 labels"), ("dual", {"also": [{"label": "each"}]}, "label must be one of"),
        ("dual", {"also": [{"label": "8", "guidance": "x"}]}, "guidance must be a number from -10 to 10"),
        ("digits", {"also": [{"label": "8"}]}, "does not compose labels"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            draw.draw(entry(name), {"count": 1} | wrong)


def test_values_of_concepts_are_labels_by_name():
    model = tw.method("cdrl/inked-digits")
    concepts = {"digit": tuple("0123456789"), "colour": ("red", "green", "blue", "magenta", "grey")}
    names = shelf.label_names(model)
    assert names == [f"{name}={value}" for name, values in concepts.items() for value in values] and len(names) == model.config.classes


@pytest.mark.parametrize(("name", "way"), [("dual", "posterior"), ("dual", "constraint"), ("digits", "constraint")])
def test_what_is_not_painted_over_stays(entry, name, way):
    given = numpy.random.default_rng(0).integers(0, 256, (8, 8)).astype(numpy.uint8)
    mask = [[int(i >= 4)] * 8 for i in range(8)]
    asked = {"picture": png(given), "mask": mask, "completions": 2, "way": way}
    found = mend.fill(entry(name), asked)
    assert len(found["pictures"]) == 2 and (pixels(found["given"]) == given).all() and found["way"] == way
    for one in found["pictures"]:
        assert (pixels(one)[:4] == given[:4]).all() and not (pixels(one)[4:] == given[4:]).all()
    assert found["pictures"][0] != found["pictures"][1]


@pytest.mark.parametrize(
    ("mask", "message"),
    [([[0] * 8] * 8, "nothing is painted over"), ([[1] * 8] * 8, "all of the picture"), ([[0] * 8] * 7, "8 rows"), (None, "8 rows"),
     ([[2] * 8] * 8, "zeros and ones"), ([["a"] * 8] * 8, "zeros and ones"), ([1] * 8, "8 rows")],
)  # fmt: skip
def test_wrong_masks_have_one_message(entry, mask, message):
    with pytest.raises(InputError, match=message):
        mend.fill(entry("dual"), {"mask": mask})


def test_repairs(entry):
    given = numpy.random.default_rng(1).integers(0, 256, (8, 8)).astype(numpy.uint8)
    noise = mend.repair(entry("dual"), {"picture": png(given), "kind": "noise", "strength": 0.3})
    assert len(noise["pictures"]) == 1 and (pixels(noise["given"]) == given).all() and not (pixels(noise["spoilt"]) == given).all()
    already = mend.repair(entry("dual"), {"picture": png(given), "kind": "noise", "already": True})
    assert already["given"] == "" and (pixels(already["spoilt"]) == given).all()
    coarse = mend.repair(entry("digits"), {"picture": png(given), "kind": "coarse", "factor": "2", "completions": 3})
    assert len(coarse["pictures"]) == 3 and len({pixels(coarse["spoilt"])[i, j] for i in (0, 1) for j in (0, 1)}) == 1
    noisy = mend.repair(entry("dual"), {"picture": png(given), "kind": "blur", "extra": 0.1, "completions": 1})
    assert len(noisy["pictures"]) == 1
    for name, wrong, message in (
        ("dual", {"kind": "grey"}, "kind must be one of noise, blur, coarse"), ("digits", {"kind": "blur", "extra": 0.1}, "takes no noise"),
        ("gan", {}, "neither takes noise off"), ("moons", {}, "of pictures"), ("dual", {"kind": "noise", "strength": 9}, "strength must"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            mend.repair(entry(name), wrong)


# --- detect


def test_pictures_are_scored_among_held_out_ones(entry):
    found = judge.judge(entry("digits"), {"made": True, "alpha": 0.1})
    held = numpy.array(entry("digits").model.trained_on["held_out"])
    assert found["count"] == len(found["rows"]) == 10 and found["held_out"] == len(held) == sum(found["bins"])
    for row in found["rows"]:
        expected = min(1, 2 * min(1 + (held >= row["score"]).sum(), 1 + (held <= row["score"]).sum()) / (len(held) + 1))
        beyond = not found["lower"] <= row["score"] <= found["threshold"]
        assert abs(row["p"] - expected) < 0.02 and row["outlier"] == (row["p"] <= 0.1) == beyond
    files = [{"name": f"{i}.png", "data": png(numpy.full((8, 8), 40 * i, numpy.uint8))} for i in range(3)]
    assert [row["name"] for row in judge.judge(entry("digits"), {"files": files})["rows"]] == ["0.png", "1.png", "2.png"]


def test_an_energy_below_all_held_out_ones_is_strange(entry, monkeypatch):
    """As of a black picture, which a density of pictures finds likelier than any of these."""
    monkeypatch.setattr(judge.evaluate, "energies", lambda model, x: torch.tensor([-1e6, 50.0, 1e6]))
    moons = entry("moons")
    monkeypatch.setattr(moons.model, "trained_on", {"held_out": [float(i) for i in range(100)]})
    found = judge.judge(moons, {"files": [{"name": "a.csv", "data": url(b"a,b\n1,2\n3,4\n5,6\n")}], "alpha": 0.05})
    assert {row["name"]: row["outlier"] for row in found["rows"]} == {"row 1": True, "row 2": False, "row 3": True}
    assert (found["lower"], found["threshold"], found["outliers"]) == (1.0, 98.0, 2)
    with pytest.raises(InputError, match="needs 200 held-out examples"):
        judge.judge(moons, {"files": [{"name": "a.csv", "data": url(b"a,b\n1,2\n")}], "alpha": 0.01})


def test_rows_are_scored_by_a_detector(entry):
    table = b"x0,x1\n" + b"".join(b"%.2f,0.1\n" % (i / 10) for i in range(10)) + b"50,50\n"
    found = judge.judge(entry("rows"), {"files": [{"name": "new.csv", "data": url(table)}]})
    assert found["count"] == 11 and found["rows"][0]["name"] == "row 11" and found["rows"][0]["outlier"]
    assert found["score"] == "strangeness" and found["alpha"] == 0.05


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        ("rows", [], "no file arrived"),
        ("rows", "x", "no file arrived"),
        ("rows", [{"name": "a.png", "data": url(b"1")}], "is no table"),
        ("rows", [{"name": "a.csv", "data": url(b"")}], "is empty"),
        ("rows", [{"name": "a.csv", "data": url(b"\xff\xfe\x00")}], "UTF-8"),
        ("rows", [{"name": "a.csv", "data": url(b"a,b,c\n1,2,3\n")}], "a.csv has 3 columns, the detector is of 2"),
        ("rows", [{"name": "a.csv", "data": url(b"x0,x1\n1\n")}], "1 cells for 2 columns"),
        ("rows", [{"name": "a.csv", "data": url(b"x0,x1\n" + b"1,2\n" * 10_001)}], "at most 10,000"),
        ("rows", [{"name": "a.csv", "data": url(b"1,2")}, {"name": "b.csv", "data": url(b"1,2")}], "one table at a time"),
        ("rows", [{"name": "../../etc/passwd.csv", "data": ""}], "is missing"),
        ("digits", [{"name": "a.csv", "data": url(b"1,2")}], "takes pictures"),
        ("digits", [{"name": "a.txt", "data": url(b"words")}], "cannot be read as a picture"),
        ("digits", [{"name": "a.png", "data": url(b"")}] * 49, "at most 48"),
        ("gan", [], "no energy to score by"),
    ],
)
def test_wrong_uploads_have_one_message(entry, name, files, message):
    with pytest.raises(InputError, match=message) as error:
        judge.judge(entry(name), {"files": files})
    assert "\n" not in str(error.value)


def test_rows_for_a_model_of_points(entry, monkeypatch):
    moons = entry("moons")
    monkeypatch.setattr(moons.model, "trained_on", {"held_out": [float(i) for i in range(100)]})
    found = judge.judge(moons, {"files": [{"name": "a.csv", "data": url(b"a,b\n1,2\n300,300\n")}], "alpha": 0.05})
    assert found["count"] == 2 and found["rows"][0]["name"] == "row 2"
    with pytest.raises(InputError, match="3 columns of numbers, this model is of 2"):
        judge.judge(moons, {"files": [{"name": "a.csv", "data": url(b"a,b,c\n1,2,3\n")}]})


# --- watch


def test_a_training_is_watched(entry):
    found = watch.watch(entry("digits"), {})
    assert found["images"] == 64 == found["total"] and "loss/energy" in found["curves"] and found["left"] == ""
    assert [event["event"] for event in found["events"]] == ["diverged at 64 images; back to 32 images"]
    assert found["picture"]["name"] == "000000000064.png" and pixels(found["picture"]["data"]).ndim == 3
    assert watch.watch(entry("digits"), {"have": "000000000064.png"})["picture"] is None
    with pytest.raises(InputError, match="no run's folder"):
        watch.watch(entry("dual"), {})


def test_the_time_left_is_at_the_pace_so_far(entry, monkeypatch):
    monkeypatch.setattr(watch.checkpoint, "read_stats", lambda folder: [{"images": 16, "seconds": 30.0}])
    assert watch.watch(entry("digits"), {})["left"] == watch.duration(90.0)


def test_curves_are_short_and_end_at_the_end():
    rows = [{"images": i, "seconds": 1.0, "loss/energy": float(i), "other": float("nan"), "word": "x"} for i in range(5000)]
    found = watch.curves(rows)
    assert len(found["loss/energy"]) == 240 and found["loss/energy"][-1] == [4999, 4999.0] and list(found) == ["loss/energy"]


def test_links_out_of_a_run_are_not_followed(tmp_path, folders):
    secret = tmp_path / "secret"
    secret.mkdir()
    tw_picture = folders / "digits" / "samples" / "000000000064.png"
    (secret / "999999999999.png").write_bytes(tw_picture.read_bytes())
    (secret / "stats.jsonl").write_text('{"images": 1, "seconds": 1, "password": 42}\n')
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_bytes((folders / "digits" / "config.json").read_bytes())
    entry = shelf.Entry(str(run))
    os.symlink(secret, run / "samples")
    with pytest.raises(InputError, match="lies outside"):
        watch.watch(entry, {})
    (run / "samples").unlink()
    (run / "samples").mkdir()
    os.symlink(secret / "999999999999.png", run / "samples" / "999999999999.png")
    with pytest.raises(InputError, match="lies outside"):
        watch.watch(entry, {})
    (run / "samples" / "999999999999.png").unlink()
    os.symlink(secret / "stats.jsonl", run / "stats.jsonl")
    with pytest.raises(InputError, match="lies outside"):
        watch.watch(entry, {})
