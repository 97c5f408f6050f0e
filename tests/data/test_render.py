"""Objects rendered from meshes: the renderer against its own geometry, the cache, folders of meshes."""

import math
import sys
from pathlib import Path

import numpy
import pytest
import torch

import thalweg as tw
from thalweg import camera
from thalweg.data import render
from thalweg.errors import InputError

OCTAHEDRON = """# radius 2 about (1, 1, 0)
v 3 1 0
v -1 1 0
v 1 3 0
v 1 -1 0
v 1 1 2
v 1 1 -2
""" + "".join(f"f {a} {b} {c}\n" for a, b, c in [(1, 3, 5), (3, 2, 5), (2, 4, 5), (4, 1, 5), (3, 1, 6), (2, 3, 6), (4, 2, 6), (1, 4, 6)])


@pytest.fixture
def mesh(tmp_path, monkeypatch):
    monkeypatch.setenv("THALWEG_CACHE", str(tmp_path / "cache"))
    (tmp_path / "meshes").mkdir()
    path = tmp_path / "meshes" / "octahedron.obj"
    path.write_text(OCTAHEDRON)
    return path


def test_a_mesh_is_where_its_camera_sees_it(mesh):
    """The octahedron |x| + |y| + |z| = 1, about the origin after scaling: depth and silhouette of each ray, in closed form."""
    found = render.render([mesh], seeds=[7], views=3, size=32)
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
    torch.testing.assert_close(found.camera, render._poses(7, 3))


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
        axes = render._principal_axes(corner @ turn.T, faces)
        assert numpy.linalg.det(axes) == pytest.approx(1), "no mirror"
        assert (axes @ turn)[0, 0] > 0.9 and (axes @ turn)[1, 1] > 0.9
        for aligned in (True, False):
            pictures[name, aligned] = render.render([path], seeds=[0], views=4, size=32, aligned=aligned).x.float()

    def apart(aligned: bool) -> float:
        return float((pictures["as it is", aligned] - pictures["turned", aligned]).abs().mean())

    assert apart(True) < 0.1 * apart(False)


def test_colours_and_cameras_come_from_the_seed(mesh):
    a, b = render.render([mesh, mesh], seeds=[1, 2], views=2, size=16).x.chunk(2)
    assert not torch.equal(a, b)
    assert torch.equal(render.render([mesh], seeds=[2], views=2, size=16).x, b)


def test_the_cache_is_read_and_checked(mesh, tmp_path, monkeypatch):
    first = render.render([mesh], seeds=[0], views=2, size=16)
    (entry,) = (tmp_path / "cache").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(render, "_render", lambda *_: pytest.fail("it was in the cache"))
        again = render.render([mesh], seeds=[0], views=2, size=16)
    for part in ("x", "camera", "depth", "item"):
        assert torch.equal(getattr(first, part), getattr(again, part))
    content = bytearray(entry.read_bytes())
    content[100] ^= 1
    entry.write_bytes(content)
    with pytest.warns(UserWarning, match="damaged"):
        assert torch.equal(render.render([mesh], seeds=[0], views=2, size=16).x, first.x)
    mesh.write_text(OCTAHEDRON.replace("v 3 1 0", "v 4 1 0"))
    assert not torch.equal(render.render([mesh], seeds=[0], views=2, size=16).x, first.x), "another mesh is another entry"


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
