"""Tasks with objects in space: turntables, recombinations, new views, completions, poses; from Python and from the command line."""

import json
import math

import numpy
import pytest
import torch
from PIL import Image

import thalweg as tw
from thalweg import camera, cli, metrics, plot, random, tasks
from thalweg.chain import Langevin
from thalweg.config import changed
from thalweg.data import Views
from thalweg.errors import InputError
from thalweg.scene.fields import RadianceField
from thalweg.scene.specs import Amortized, EnergyPrior, InferenceNet, Rays

TINY = dict(
    shape=(3, 8, 8), dim_appearance=3, dim_shape=2, field=RadianceField(width=8, depth=2, mapping=8, mapping_layers=2, octaves=2),
    prior=EnergyPrior(width_appearance=8, width_shape=8, chain=Langevin(steps=3, step=0.4)), renderer=Rays(samples=4, rays=6),
    learner=Amortized(inference=InferenceNet(widths=(8, 8), blocks=(0, 1))), batch=4, images=64,
)  # fmt: skip


def method(**fields):
    return tw.method("nerf_lebm/objects", seed=0, **(TINY | fields))


def method_of(folder, **fields):
    m = method(**fields)
    return type(m)(changed(m.config, data=str(folder)))


def some_cameras(n: int, seed: int = 0) -> torch.Tensor:
    vectors = (camera.unit_vector(random.uniform(n, high=1.0 + 4 * i, generator=random.seeded(211, seed, i))) for i in range(2))
    return camera.orbit(*vectors, distance=4.0, focal=1.866)


def numbered(counts=(5, 4, 6)) -> Views:
    """Image i is all of the value i."""
    n = sum(counts)
    x = torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(n, 3, 8, 8).contiguous()
    return Views(x, some_cameras(n), torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)))


def test_a_turntable_goes_round_once():
    m = method()
    a, s = tasks.draw_objects(m, 2, seed=3)
    made = tasks.turntable(m, a, s, frames=4, altitude=0.4, size=6)
    assert [tuple(part.shape) for part in made] == [(2, 4, 3, 6, 6), (2, 4, 1, 6, 6), (2, 4, 1, 6, 6)]
    for k in range(4):
        azimuth = camera.unit_vector(torch.tensor(k * math.pi / 2))
        view = camera.orbit(camera.unit_vector(torch.tensor(0.4)), azimuth, distance=4.0, focal=m.optics.focal)
        alone = m.render(a, s, view.expand(2, 3, 5), 6)
        torch.testing.assert_close(made.x[:, k], alone.x, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(made.depth[:, k], alone.depth, atol=1e-5, rtol=1e-4)


def test_rows_share_appearance_and_columns_shape():
    m = method()
    made = tasks.recombine(m, 3, seed=1)
    assert made.x.shape == (3, 3, 3, 8, 8)
    torch.testing.assert_close(made.opacity, made.opacity[:1].expand_as(made.opacity), atol=1e-6, rtol=1e-5)  # alike down each column
    assert (made.opacity[:, 0] - made.opacity[:, 1]).abs().max() > 1e-4 and (made.x[0, 0] - made.x[1, 0]).abs().max() > 1e-4
    a, s = tasks.draw_objects(m, 3, seed=1)
    up, front = (camera.unit_vector(torch.tensor(angle)) for angle in (math.radians(30), 0.0))
    view = camera.orbit(up, front, distance=m.optics.distance, focal=m.optics.focal)
    torch.testing.assert_close(made.x[2, 0], m.render(a[2:], s[:1], view[None]).x[0], atol=1e-5, rtol=1e-4)


def test_new_views_are_of_the_same_object_and_were_not_given():
    m, data = method(), numbered()
    made = tasks.new_views(m, data, shots=2, views=2, seed=4)
    assert made.x.shape == made.truth.shape == (3, 2, 3, 8, 8) and made.depth.shape == (3, 2, 1, 8, 8)
    images = torch.cat([made.given, made.truth], 1)[:, :, 0, 0, 0].add(1).mul(127.5).round().long()
    for item, rows in enumerate(images):
        assert len(set(rows.tolist())) == 4 and (data.item[rows] == item).all()
    rows = images[1]
    x, view = data.all().x, data.camera
    found = m.infer(x[rows[:2]][None], view[rows[:2]][None])
    alone = m.render(found.appearance, found.shape, view[rows[2:3]])
    torch.testing.assert_close(made.x[1, 0], alone.x[0], atol=1e-5, rtol=1e-4)
    assert not torch.equal(tasks.new_views(m, data, shots=2, views=2, seed=5).given, made.given)


def test_poses_are_those_that_were_inferred():
    m, x = method(poses="unknown"), numbered().all().x
    found = tasks.pose(m, x)
    altitude, azimuth, _ = camera.angles(m.infer(x).camera[:, 0])
    torch.testing.assert_close(found.altitude, torch.rad2deg(altitude))
    torch.testing.assert_close(found.azimuth, torch.rad2deg(azimuth))


def test_what_cannot_be_done_is_said():
    with pytest.raises(InputError, match="this egc model, as it is configured, cannot do that; needed is the ability 'views'"):
        tasks.recombine(tw.method("egc/digits"))
    with pytest.raises(InputError, match="needs a model trained without cameras, which infers them; this one is told its cameras"):
        tasks.pose(method(), numbered().all().x)
    with pytest.raises(InputError, match=r"views: needs data with cameras, tw.data.Views, .* got Tensor"):
        tasks.new_views(method(), numbered().all().x)
    with pytest.raises(InputError, match="needed is the ability 'cameras'"):
        tasks.new_views(method(poses="unknown"), numbered())
    with pytest.raises(InputError, match=r"an object of views has 5 images, shots \+ views = 6"):
        tasks.new_views(method(), numbered())


# --- evaluation and the command line


@pytest.fixture
def scenes(tmp_path):
    """A model of known and one of unknown poses, and objects in the layout of ShapeNet."""
    tw.save(method(), tmp_path / "model")
    tw.save(method(poses="unknown"), tmp_path / "unposed")
    view = some_cameras(14)
    for i in range(2):
        home = tmp_path / "cars_test" / f"car{i}"
        (home / "rgb").mkdir(parents=True)
        (home / "pose").mkdir()
        (home / "intrinsics.txt").write_text("15. 4. 4. 0.\n0. 0. 0.\n1.\n8 8\n")
        for j in range(7):
            Image.fromarray(numpy.full((8, 8, 3), 20 * i + j, numpy.uint8)).save(home / "rgb" / f"{j:06d}.png")
            matrix = torch.eye(4)
            matrix[:3, :4] = view[7 * i + j, :, :4] * torch.tensor([1.0, -1.0, -1.0, 1.0])
            (home / "pose" / f"{j:06d}.txt").write_text(" ".join(f"{v:.8f}" for v in matrix.flatten().tolist()))
    (tmp_path / "cars_train").mkdir()
    (tmp_path / "cars_test" / "car0").rename(tmp_path / "cars_train" / "car0")
    return tmp_path


def test_new_views_are_measured_on_held_out_objects(scenes, tmp_path):
    m = method_of(scenes)
    assert "views" in metrics.chosen(m, ("auto",)) and "views" not in metrics.chosen(method(poses="unknown"), ("auto",))
    subject = metrics.Subject(m, metrics.Settings(n=1), tmp_path / "report")
    found = metrics.METRICS["views"].measure(subject)
    made = tasks.new_views(m, tw.data.load(scenes, "test", size=8), objects=1)
    error = (made.truth - made.x).square().flatten(2).mean(2)
    assert found["psnr"]["value"] == pytest.approx(float((10 * (4 / error).log10()).mean()), abs=1e-4) and found["psnr"]["n"] == 1
    dark = (made.truth - tw.data.load(scenes, "train", size=8).all().x.mean(0)).square().flatten(2).mean(2)
    assert found["of_mean_image"] == pytest.approx(float((10 * (4 / dark).log10()).mean()), abs=1e-4)
    assert {path.name for _, path in subject.pictures} == {"views.png", "recombined.png"} and all(p.exists() for _, p in subject.pictures)
    assert "PSNR of new views" in metrics.METRICS["views"].rows(found)[0].name


def test_what_has_no_labels_is_evaluated_without_a_classifier(scenes, capsys, monkeypatch):
    monkeypatch.setattr(metrics, "METRICS", {name: metrics.METRICS[name] for name in ("fidelity", "views")})
    found = metrics.measure(metrics.Subject(method_of(scenes, **{"prior.chain.steps": 1}), metrics.Settings(n=7)), ("auto",))
    assert "fidelity" not in found and "views" in found and "fidelity left out" in capsys.readouterr().err
    with pytest.raises(InputError, match="needs data with labels"):
        metrics.measure(metrics.Subject(method_of(scenes), metrics.Settings(n=4)), ("fidelity",))


def apply(scenes, task: str, *words, model: str = "model") -> int:
    return cli.main(["apply", task, str(scenes / model), *map(str, words)])


def test_an_animation_has_all_frames(scenes):
    assert apply(scenes, "turntable", "--frames", 5, "--count", 3, "--out", scenes / "turn.gif") == 0
    with Image.open(scenes / "turn.gif") as found:
        assert found.is_animated and found.n_frames == 5 and found.info["loop"] == 0
    with pytest.raises(InputError, match=r"ends in \.gif"):
        plot.animation(torch.zeros(2, 1, 3, 4, 4), scenes / "turn.png")


def test_pictures_and_arrays_of_each_task(scenes):
    for words in (["--count", 2, "--frames", 3], ["--count", 2, "--frames", 3, "--input", scenes, "--shots", 2, "--search", 1]):
        assert apply(scenes, "turntable", *words, "--out", scenes / "a.npz") == 0
        assert numpy.load(scenes / "a.npz")["x"].shape[1:] == (3, 3, 8, 8)
    assert apply(scenes, "recombine", "--count", 3, "--size", 6, "--out", scenes / "a.npz") == 0
    assert numpy.load(scenes / "a.npz")["x"].shape == (3, 3, 3, 6, 6)
    assert apply(scenes, "views", "--input", scenes, "--out", scenes / "a.npz") == 0
    assert numpy.load(scenes / "a.npz")["truth"].shape == (1, 4, 3, 8, 8)
    assert apply(scenes, "complete", "--input", scenes, "--mask", "half:left", "--out", scenes / "a.npz") == 0
    stored = numpy.load(scenes / "a.npz")
    known = numpy.broadcast_to(stored["visible"], stored["x"].shape)
    assert known.any() and not known.all() and (stored["completed"][known] == stored["x"][known]).all()
    for task, words in {"turntable": [], "recombine": [], "views": ["--input", scenes]}.items():
        assert apply(scenes, task, *words, "--count", 2, "--out", scenes / f"{task}.png") == 0 and (scenes / f"{task}.png").stat().st_size


def test_poses_are_rows_of_json(scenes):
    pictures = scenes / "cars_test" / "car1" / "rgb"
    assert apply(scenes, "pose", "--input", pictures, "--out", scenes / "poses.json", model="unposed") == 0
    rows = json.loads((scenes / "poses.json").read_text())
    assert len(rows) == 7 and set(rows[0]) == {"input", "altitude", "azimuth"} and -90 <= rows[0]["altitude"] <= 90


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["views", "--out", "a.png"], "views needs --input PATH: data with cameras"),
        (["views", "--input", "digits", "--out", "a.png"], "these images have no cameras"),
        (["complete", "--input", "{}", "--out", "a.png"], "nothing is missing in"),
        (["recombine", "--input", "{}", "--out", "a.png"], "recombine takes no --input"),
        (["recombine", "--out", "a.gif"], "must end in .png or .npz"),
        (["recombine", "--shots", "3", "--out", "a.png"], "recombine takes no --shots"),
        (["turntable", "--count", "0", "--out", "a.png"], "--count must be above 0"),
        (["pose", "--input", "{}", "--out", "a.json"], "this one is told its cameras"),
    ],
)
def test_wrong_options_are_one_line(words, message, scenes, capsys):
    task, *rest = (word.replace("{}", str(scenes)) for word in words)
    out = rest.pop()
    assert apply(scenes, task, *rest, scenes / out) == 2
    said = capsys.readouterr().err
    assert message in said and len(said.splitlines()) == 1
