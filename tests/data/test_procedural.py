"""Procedural chairs and cars: pictures, depth, masks and cameras against geometry in closed form; factors, splits, cache, processes."""

import math

import numpy
import pytest
import torch

import thalweg as tw
from thalweg import camera
from thalweg.data import categories, parts, procedural, render
from thalweg.errors import InputError

RED = (0.8, 0.1, 0.1)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("THALWEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def seen(shapes: list[parts.Part], number: int = 5, views: int = 4, size: int = 16):
    with render._bullet() as bullet:
        return procedural._look(bullet, shapes, number, views, size), render._poses(number, views)


def test_depth_and_mask_of_a_box_are_those_of_its_planes():
    low, high = torch.tensor([-0.5, -0.3, -0.6]), torch.tensor([0.4, 0.5, 0.2])
    (x, depth, mask), poses = seen([parts.box(low.tolist(), high.tolist(), RED)], size=32)
    origins, directions = camera.rays(poses, 128, 128)
    one, other = (low - origins) / directions, (high - origins) / directions
    enter, leave = torch.minimum(one, other).amax(-1), torch.maximum(one, other).amin(-1)
    true = torch.where(enter < leave, enter, math.inf).view(4, 128, 128).numpy()
    wanted = [procedural.coarser(numpy.zeros((3, 128, 128)), distance) for distance in true]
    covered, all_of_it = numpy.stack([part[2] for part in wanted]), mask > 127
    assert (all_of_it & (covered > 127)).sum() / (all_of_it | (covered > 127)).sum() > 0.99
    assert numpy.abs(mask.astype(float) - covered).mean() < 1.5, "of 255; half a sub-pixel aside it is 3"
    distance = numpy.stack([part[1] for part in wanted]).astype(float)
    both = numpy.isfinite(distance) & numpy.isfinite(depth)
    assert numpy.abs(distance[both] - depth[both]).mean() < 0.004
    assert (x.transpose(0, 2, 3, 1)[mask == 0] == 255).all()
    share = mask / 255  # of green the box shows from half to nearly all in shade and light
    darkest, lightest = ((1 - share) * 255 + share * light * 255 * RED[1] for light in (0.5, 1))
    assert ((x[:, 1] > darkest - 2) & (x[:, 1] < lightest + 2)).all(), "edges are mixed with white by the mask"


def test_a_point_is_drawn_where_its_camera_projects_it():
    point = torch.tensor([0.35, -0.5, 0.4])
    (_, _, mask), poses = seen([parts.box((point - 0.06).tolist(), (point + 0.06).tolist(), RED)], size=32)
    for view, pose in zip(mask.astype(float), poses):
        right, up, back = (point - pose[:, 3]) @ pose[:, :3]
        where = 32 * (0.5 + pose[0, 4] * right / -back), 32 * (0.5 - pose[0, 4] * up / -back)
        for axis, place in zip((0, 1), where):
            assert (view.sum(axis) * (numpy.arange(32) + 0.5)).sum() / view.sum() == pytest.approx(float(place), abs=0.15)


def test_parts_are_closed_and_look_outwards():
    """Gauss: the volume by the faces of a part is that of its box, cylinder or rod."""

    def volume(part: parts.Part) -> float:
        corner, normal, triangle = parts.mesh([part])
        a, b, c = corner[triangle].transpose(1, 0, 2)
        assert (numpy.cross(b - a, c - a) * normal[triangle[:, 0]]).sum(1).min() > 0, "counter-clockwise from outside"
        return float((numpy.cross(a, b) * c).sum() / 6)

    assert volume(parts.box((0, 0, 0), (1, 2, 3), RED)) == pytest.approx(6)
    assert volume(parts.box((0, 0, 0), (1, 1, 3), RED, top=(0.5, 0.5))) == pytest.approx(1.75)
    assert volume(parts.disc((1, 2, 3), (0.5, 2.0), -2.0, RED, axis=1, sides=64)) == pytest.approx(2 * math.pi, rel=0.01)
    assert volume(parts.beam((0, 0, 0), (0, 1, 0), (0.2, 0.3), RED)) == pytest.approx(0.06)
    assert volume(parts.extrusion([(0, 0), (1, 0), (0, 1)], -1.0, 1.0, RED)) == pytest.approx(1)


@pytest.mark.parametrize("name", ["chairs", "cars"])
def test_objects_fit_their_ball_and_are_mirror_images_but_where_a_factor_says_not(name):
    one_sided = 0
    for number in range(60):
        shapes, draws = categories.CATEGORIES[name](number)
        corner = numpy.concatenate([part.corners for part in shapes])
        assert numpy.linalg.norm(corner, axis=1).max() < 1
        floor = categories.FLOOR if name == "chairs" else categories.ROAD
        assert corner[:, 2].min() == pytest.approx(floor, abs=0.02)
        factor = "arms" if name == "chairs" else "door"
        apart = draws.values[factor][draws.found[factor]] in ("left", "right")
        one_sided += apart
        ends = [sorted((corner * (1, side, 1)).round(4).tolist()) for side in (1, -1)]
        assert numpy.allclose(ends[0], ends[1]) != apart
    assert 5 < one_sided < 55


def test_factors_say_what_is_seen():
    found = procedural.made("chairs", range(24), views=1, size=4)
    assert found.objects == 24 and {len(values) for values in found.factors.values()} == {24}
    for number, (height, back) in enumerate(zip(found.factors["seat_height"], found.factors["back_height"])):
        shapes, draws = categories.chair(number)
        corner = numpy.concatenate([part.corners for part in shapes])
        if draws.values["back"][draws.found["back"]] != "half":
            assert corner[:, 2].max() == pytest.approx(categories.FLOOR + float(height + back), abs=1e-4)
        colours = {tuple(numpy.float32(part.colour)) for part in shapes}
        seen = {tuple(found.factors[f"{name}_rgb"][number].numpy()) for name in ("colour", "frame_colour", "back_colour")}
        assert colours <= seen and tuple(found.factors["colour_rgb"][number].numpy()) in colours
        assert len(seen) <= 1 + int(found.factors["colours"][number])
    assert found.values["arms"] == ("none", "both", "left", "right") and found.values["colour"] == tuple(parts.PALETTE)
    rows = found.factors["colour"] == found.values["colour"].index("red")
    assert (found.factors["colour_rgb"][rows].argmax(1) == 0).all() and rows.any()
    assert found.factors["colour_rgb"].min() >= 0 and found.factors["colour_rgb"].max() <= 1, "above 1 the renderer's bytes overflow"


def test_the_second_colour_of_a_car_in_one_colour_is_the_first():
    for number in range(30):
        _, draws = categories.car(number)
        of = {name: draws.values[name][draws.found[name]] for name in draws.values}
        if (of["roof"], of["door"], of["stripe"]) == ("first", "none", "no"):
            assert draws.found["second_colour_rgb"] == draws.found["colour_rgb"] and of["second_colour"] == of["colour"]


def test_a_number_means_the_same_object_wherever_it_is_rendered(monkeypatch, capfd):
    here = procedural.made("cars", [3, 1, 2], views=2, size=8, cache=False)
    assert capfd.readouterr() == ("", ""), "no banner"
    assert torch.equal(here.x[2:4], procedural.made("cars", [1], views=2, size=8, cache=False).x)
    assert not torch.equal(here.x[:2], here.x[2:4])
    monkeypatch.setattr(procedural, "LONG", 0.0)
    monkeypatch.setattr(procedural, "_cores", lambda: 1)  # one process: each imports torch
    there = procedural.made("cars", [3, 1, 2], views=2, size=8, cache=False)
    for part in ("x", "camera", "depth", "mask", "item"):
        assert torch.equal(getattr(here, part), getattr(there, part))
    out, err = capfd.readouterr()
    assert out == "" and "rendering 3 cars, 2 views each of 8×8 pixels, by 1 process;" in err and "bullet" not in err


def test_processes_share_the_objects(monkeypatch):
    def follow(category, numbers, rows, views, size, tell):
        for row in reversed(rows):
            tell((row, numbers[row]))

    monkeypatch.setattr(procedural, "_follow", follow)
    found = dict(procedural._in_processes("cars", [7, 5, 3, 1], 1, 8, 3))
    assert found == {0: 7, 1: 5, 2: 3, 3: 1}


def test_a_process_that_dies_is_noticed(monkeypatch):
    monkeypatch.setattr(procedural.sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="a process that rendered chairs ended with code 1"):
        list(procedural._in_processes("chairs", [0, 1], 1, 8, 2))


def test_doors_split_by_object_and_read_the_cache(cache, monkeypatch):
    found = {split: tw.data.chairs(split, size=8, objects=10, views=2) for split in tw.data.SPLITS}
    assert {split: of.objects for split, of in found.items()} == {"train": 8, "validation": 1, "test": 1}
    assert len(list(cache.iterdir())) == 3
    monkeypatch.setattr(procedural, "_rendered", lambda *_: pytest.fail("it was in the cache"))
    again = tw.data.chairs("train", size=8, objects=10, views=2)
    for part in ("x", "camera", "depth", "mask", "item"):
        assert torch.equal(getattr(again, part), getattr(found["train"], part))
    assert all(torch.equal(again.factors[name], values) for name, values in found["train"].factors.items())
    assert tw.data.chairs("test", size=8, objects=10, views=2, channels=1).shape == (1, 8, 8)
    torn = tw.data.chairs("test", size=8, objects=10, views=2, missing=0.25)
    assert not torn.visible.all() and torch.equal(torn.mask, found["test"].mask) and torn.factors.keys() == again.factors.keys()
    assert {"chairs", "cars", "chairs-incomplete", "cars-incomplete"} <= set(tw.data.NAMES)
    with pytest.raises(InputError, match="split"):
        tw.data.cars("all")


@pytest.mark.parametrize(("name", "total"), [("chairs", 421.4323), ("cars", 1224.0041)])
def test_the_recipe_has_a_number(name, total):
    """Whoever changes the objects raises `procedural._RECIPE`, or caches would keep the old ones; then change the sums here."""
    corner = numpy.concatenate([part.corners for number in range(5) for part in categories.CATEGORIES[name](number)[0]])
    assert procedural._RECIPE == 1
    assert float(numpy.abs(corner).sum()) == pytest.approx(total, abs=1e-3)
