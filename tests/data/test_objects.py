"""Objects from known cameras: the stream of views, the renderer against its own geometry, the cache, folders in two layouts."""

import math
import sys
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from torch import Tensor

import thalweg as tw
from thalweg import camera, random
from thalweg.data import Views, objects
from thalweg.data.images import to_unit
from thalweg.errors import InputError

BOUND = 4.5  # standard errors

OCTAHEDRON = """# radius 2 about (1, 1, 0)
v 3 1 0
v -1 1 0
v 1 3 0
v 1 -1 0
v 1 1 2
v 1 1 -2
""" + "".join(f"f {a} {b} {c}\n" for a, b, c in [(1, 3, 5), (3, 2, 5), (2, 4, 5), (4, 1, 5), (3, 1, 6), (2, 3, 6), (4, 2, 6), (1, 4, 6)])


def cameras(n: int, seed: int = 0, distance: float = 4.0) -> Tensor:
    angles = (random.uniform(n, high=1.0 + 5 * i, generator=random.seeded(131, seed, i)) for i in range(2))
    return camera.orbit(*map(camera.unit_vector, angles), distance=distance, focal=1.5)


def views(counts=(3, 4, 5), **options) -> Views:
    """Image i is all of the value i."""
    n = sum(counts)
    x = torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(n, 3, 4, 4).contiguous()
    item = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return Views(x, cameras(n), item, **options)


def numbers(x: Tensor) -> list[int]:
    return ((x[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()


# --- the stream


def test_each_image_comes_once_an_epoch():
    data = views()
    for epoch in range(2):
        batch = data.batch(12 * epoch, 12, seed=3)
        assert sorted(numbers(batch.x)) == list(range(12))
        for number, view, item in zip(numbers(batch.x), batch.camera, batch.item):
            assert torch.equal(view, data.camera[number]) and item == data.item[number]
    assert numbers(data.batch(0, 12, 3).x) != numbers(data.batch(12, 12, 3).x) != numbers(data.batch(12, 12, 4).x)


def test_a_batch_does_not_depend_on_how_the_stream_is_cut():
    data = views(views=2)
    whole = data.batch(2, 18, seed=1)
    parts = [data.batch(start, 6, seed=1) for start in (2, 8, 14)]
    assert torch.equal(whole.x, torch.cat([part.x for part in parts])) and whole.label is None and whole.visible is None


def test_views_of_an_object_stand_beside_each_other():
    data = views().with_views(2)  # of 3, 4 and 5 images: 1, 2 and 2 pairs
    seen = data.batch(0, 10, seed=0)
    assert torch.equal(seen.item[::2], seen.item[1::2]) and seen.item.bincount().tolist() == [2, 4, 4]
    assert len(set(numbers(seen.x))) == 10
    several = {n for seed in range(20) for n in numbers(data.batch(0, 10, seed).x)}
    assert several == set(range(12)), "which images are left over changes"
    every = data.all()
    assert torch.equal(every.item[::2], every.item[1::2]) and numbers(every.x) == [0, 1, 3, 4, 5, 6, 7, 8, 9, 10]
    with pytest.raises(InputError, match="divide by views = 2"):
        data.batch(1, 2, 0)
    with pytest.raises(InputError, match="views = 4, but some object has 3 images"):
        views(views=4)


def test_what_is_masked_is_noise_and_known():
    data = views(counts=(40, 40))._with(x=torch.full((80, 3, 16, 16), 255, dtype=torch.uint8))
    masked = data.masked(0.25, seed=2)
    assert torch.equal(masked.visible, data.masked(0.25, seed=2).visible) and not torch.equal(masked.visible, data.masked(0.25).visible)
    hidden = ~masked.visible
    assert 0.2 < float(hidden.float().mean()) < 0.3
    kept = masked.visible.expand_as(masked.x)
    assert (masked.x[kept] == 255).all()
    noise = to_unit(masked.x[~kept])
    assert abs(float(noise.mean())) < BOUND * 0.5 / math.sqrt(len(noise)) + 0.01 and abs(float(noise.std()) - 0.48) < 0.03
    for hole in hidden[:, 0]:
        rows, columns = hole.any(1), hole.any(0)
        assert hole.sum() == rows.sum() * columns.sum(), "a rectangle"
    assert masked.batch(0, 4, 0).visible.shape == (4, 1, 16, 16)
    with pytest.raises(InputError, match="between 0 and 1"):
        data.masked(1.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(x=torch.zeros(12, 3, 4, 4)), "uint8"),
        (dict(camera=torch.zeros(11, 3, 5)), "cameras must be"),
        (dict(item=torch.ones(12, dtype=torch.int64)), "from 0 without gaps"),
        (dict(visible=torch.ones(12, 4, 4, dtype=torch.bool)), "visible must be bool"),
    ],
)
def test_parts_that_do_not_fit(changes, message):
    with pytest.raises(InputError, match=message):
        views()._with(**changes)


def test_only_objects_have_views():
    assert objects.beside(views(), 1).views == 1 and objects.beside(views(), 2).views == 2
    with pytest.raises(InputError, match="images of objects"):
        objects.beside(tw.data.toy("moons"), 2)


# --- rendering


@pytest.fixture
def mesh(tmp_path, monkeypatch):
    monkeypatch.setenv("THALWEG_CACHE", str(tmp_path / "cache"))
    (tmp_path / "meshes").mkdir()
    path = tmp_path / "meshes" / "octahedron.obj"
    path.write_text(OCTAHEDRON)
    return path


def test_a_mesh_is_where_its_camera_sees_it(mesh):
    """The octahedron |x| + |y| + |z| = 1, about the origin after scaling: depth and silhouette of each ray, in closed form."""
    found = objects.render([mesh], seeds=[7], views=3, size=32)
    assert found.x.shape == (3, 3, 32, 32) and found.objects == 1
    origins, directions = camera.rays(found.camera, 32, 32)
    t = torch.linspace(2.9, 5.1, 1100)
    points = origins[:, :, None] + t[:, None] * directions[:, :, None]
    inside = points.abs().sum(-1) < 1
    wanted = torch.where(inside.any(-1), t[inside.float().argmax(-1)], math.inf).view(3, 32, 32)
    depth = found.depth.float()
    assert float((depth.isfinite() == wanted.isfinite()).float().mean()) > 0.995, "half a pixel aside it is 0.97"
    both = depth.isfinite() & wanted.isfinite()
    assert float((depth - wanted)[both].abs().mean()) < 0.01
    assert (found.x.permute(0, 2, 3, 1)[~depth.isfinite()] == 255).all()
    shades = found.x.permute(0, 2, 3, 1)[depth.isfinite()].float()
    hue = shades / shades.sum(1, keepdim=True)
    assert float(hue.std(0).max()) < 0.02, "one colour, in light and shadow"
    torch.testing.assert_close(found.camera, objects._poses(7, 3))


def test_aligned_objects_look_alike_however_their_mesh_is_turned(mesh):
    """A tetrahedron longest along x, flattest along z, tails to +x and +y; the same turned about two axes is drawn the same."""
    corner = numpy.array([[2.0, 0.0, 0.1], [-0.6, 1.2, 0.0], [-0.7, -0.5, 0.3], [-0.4, -0.4, -0.3]])
    faces = [[1, 2, 3], [1, 3, 4], [1, 4, 2], [2, 4, 3]]
    about_z, about_x = (numpy.eye(3) for _ in range(2))
    about_z[:2, :2], about_x[1:, 1:] = ([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]] for a in (2.0, 1.0))

    def write(corner: numpy.ndarray, name: str) -> Path:
        lines = [f"v {' '.join(map(str, row))}" for row in corner.tolist()] + [f"f {' '.join(map(str, face))}" for face in faces]
        path = mesh.with_name(f"{name}.obj")  # the renderer knows files by their names
        path.write_text("\n".join(lines) + "\n")
        return path

    pictures = {}
    for name, turn in {"as it is": numpy.eye(3), "turned": about_x @ about_z}.items():
        path = write(corner @ turn.T, name)
        axes = objects._principal_axes(corner @ turn.T, faces)
        assert numpy.linalg.det(axes) == pytest.approx(1), "no mirror"
        assert (axes @ turn)[0, 0] > 0.9 and (axes @ turn)[1, 1] > 0.9
        for aligned in (True, False):
            pictures[name, aligned] = objects.render([path], seeds=[0], views=4, size=32, aligned=aligned).x.float()

    def apart(aligned: bool) -> float:
        return float((pictures["as it is", aligned] - pictures["turned", aligned]).abs().mean())

    assert apart(True) < 0.1 * apart(False)


def test_colours_and_cameras_come_from_the_seed(mesh):
    a, b = objects.render([mesh, mesh], seeds=[1, 2], views=2, size=16).x.chunk(2)
    assert not torch.equal(a, b)
    assert torch.equal(objects.render([mesh], seeds=[2], views=2, size=16).x, b)


def test_the_cache_is_read_and_checked(mesh, tmp_path, monkeypatch):
    first = objects.render([mesh], seeds=[0], views=2, size=16)
    (entry,) = (tmp_path / "cache").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(objects, "_render", lambda *_: pytest.fail("it was in the cache"))
        again = objects.render([mesh], seeds=[0], views=2, size=16)
    for part in ("x", "camera", "depth", "item"):
        assert torch.equal(getattr(first, part), getattr(again, part))
    content = bytearray(entry.read_bytes())
    content[100] ^= 1
    entry.write_bytes(content)
    with pytest.warns(UserWarning, match="damaged"):
        assert torch.equal(objects.render([mesh], seeds=[0], views=2, size=16).x, first.x)
    mesh.write_text(OCTAHEDRON.replace("v 3 1 0", "v 4 1 0"))
    assert not torch.equal(objects.render([mesh], seeds=[0], views=2, size=16).x, first.x), "another mesh is another entry"


def test_a_folder_of_meshes(mesh):
    for i in range(9):
        (mesh.parent / f"{i}.obj").write_text(OCTAHEDRON)
    parts = {split: tw.data.load(mesh.parent, split, size=16) for split in tw.data.SPLITS}
    assert {split: part.objects for split, part in parts.items()} == {"train": 8, "validation": 1, "test": 1}
    assert parts["train"].shape == (3, 16, 16) and tw.data.load(mesh.parent, "test", size=16, channels=1).shape == (1, 16, 16)
    for content in ("v 1 2\n", OCTAHEDRON.replace("v 3 1 0", "v nan 1 0")):
        (mesh.parent / "0.obj").write_text(content)
        with pytest.raises(InputError, match="Wavefront"):
            for split in parts:
                tw.data.load(mesh.parent, split, size=16)


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pybullet_data", None)
    with pytest.raises(InputError, match=r"thalweg\[objects\]"):
        tw.data.load("objects")


# --- folders


def opencv(view: Tensor) -> numpy.ndarray:
    """Camera to world, third axis forward, [4, 4]."""
    matrix = torch.eye(4)
    matrix[:3, :4] = view[:, :4] * torch.tensor([1.0, -1.0, -1.0, 1.0])
    return matrix.numpy()


def picture(path, value: int, size: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(numpy.full((size, size, 3), value, numpy.uint8)).save(path)


def srn(root, n: int = 2, each: int = 3, seed: int = 0) -> Tensor:
    view = cameras(n * each, seed, distance=1.3)
    for i in range(n):
        home = root / f"car{i}"
        for j in range(each):
            picture(home / "rgb" / f"{j:06d}.png", 10 * i + j)
            (home / "pose").mkdir(exist_ok=True)
            (home / "pose" / f"{j:06d}.txt").write_text(" ".join(f"{v:.8f}" for v in opencv(view[each * i + j]).flatten()))
        (home / "intrinsics.txt").write_text("12. 4. 4. 0.\n0. 0. 0.\n1.\n8 8\n")
    return view


def test_the_shapenet_layout(tmp_path):
    view = srn(tmp_path / "cars_train")
    srn(tmp_path / "cars_test", n=1, seed=5)
    found = tw.data.load(tmp_path)
    assert isinstance(found, Views) and found.objects == 2 and found.item.tolist() == [0, 0, 0, 1, 1, 1]
    torch.testing.assert_close(found.camera, view, atol=1e-5, rtol=1e-5)
    assert found.x[:, 0, 0, 0].tolist() == [0, 1, 2, 10, 11, 12]
    assert tw.data.load(tmp_path, "test", size=4).shape == (3, 4, 4)
    with pytest.raises(InputError, match="no folder for the split 'validation'"):
        tw.data.load(tmp_path, "validation")


def test_objects_without_splits_are_split(tmp_path):
    srn(tmp_path, n=10, each=1)
    assert [tw.data.load(tmp_path, split).objects for split in tw.data.SPLITS] == [8, 1, 1]


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("forward", [False, True])
def test_the_carla_layout_in_each_convention(tmp_path, inverse, forward):
    view = cameras(10, distance=10.0)
    for i, one in enumerate(view):
        picture(tmp_path / "images" / f"{i:06d}.png", i)
        matrix = opencv(one) if forward else opencv(one) @ numpy.diag([1.0, -1.0, -1.0, 1.0])
        (tmp_path / "carla_poses").mkdir(exist_ok=True)
        numpy.save(tmp_path / "carla_poses" / f"{i:06d}_extrinsics.npy", (numpy.linalg.inv(matrix) if inverse else matrix)[:3])
    numpy.save(tmp_path / "carla_poses" / "intrinsics.npy", numpy.array([[12.0, 0, 4], [0, 12, 4], [0, 0, 1]])[None, None])
    found = tw.data.load(tmp_path)
    assert len(found) == 8 and found.objects == 8
    for x, one in zip(found.x, found.camera):
        torch.testing.assert_close(one, view[int(x[0, 0, 0])], atol=1e-5, rtol=1e-5)


def test_what_is_wrong_in_a_folder_is_named(tmp_path):
    srn(tmp_path / "a_train", n=1)
    home = tmp_path / "a_train" / "car0"
    (home / "pose" / "000001.txt").write_text("1 2 3")
    with pytest.raises(InputError, match=r"000001\.txt holds 3 numbers, need 16"):
        tw.data.load(tmp_path)
    (home / "pose" / "000001.txt").write_text(" ".join(map(str, range(16))))
    with pytest.raises(InputError, match="rotations"):
        tw.data.load(tmp_path)
    aside = opencv(cameras(1)[0])
    aside[:3, 3] = aside[:3, 0] * 2
    (home / "pose" / "000001.txt").write_text(" ".join(map(str, aside.flatten())))
    with pytest.raises(InputError, match="do not look at the origin"):
        tw.data.load(tmp_path)
    (home / "intrinsics.txt").write_text("12 4")
    with pytest.raises(InputError, match=r"intrinsics\.txt holds 2 numbers"):
        tw.data.load(tmp_path)
    Image.fromarray(numpy.zeros((4, 8, 3), numpy.uint8)).save(home / "rgb" / "000000.png")
    (home / "intrinsics.txt").write_text("12 4 4 0\n8 8")
    with pytest.raises(InputError, match="must be square"):
        tw.data.load(tmp_path)
