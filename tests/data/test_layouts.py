"""Objects from known cameras in folders: two layouts, the conventions of their poses, what is wrong in them."""

import numpy
import pytest
import torch
from PIL import Image
from torch import Tensor

import thalweg as tw
from thalweg import camera, random
from thalweg.data import Views
from thalweg.data.layouts import spread
from thalweg.data.prepare import prepare, trained_data
from thalweg.errors import InputError


def cameras(n: int, seed: int = 0, distance: float = 4.0) -> Tensor:
    angles = (random.uniform(n, high=1.0 + 5 * i, generator=random.seeded(131, seed, i)) for i in range(2))
    return camera.orbit(*map(camera.unit_vector, angles), distance=distance, focal=1.5)


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


def test_views_are_spread_and_files_read_when_they_are_asked_for(tmp_path):
    srn(tmp_path / "cars_train", n=2, each=5)
    for path in sorted(tmp_path.glob("*/car1/rgb/*.png"))[1:]:
        path.write_bytes(b"torn")
    (tmp_path / "cars_train" / "car0" / "pose" / "000001.txt").unlink()  # of a view that is left out
    found = tw.data.load(tmp_path, views=2)
    assert found.item.tolist() == [0, 0, 1, 1] and found.views == 1 and len(found) == 4
    assert found.x[torch.tensor([1, 0, 2, 1])][:, 0, 0, 0].tolist() == [2, 0, 10, 2]
    with pytest.raises(InputError, match=r"000002\.png cannot be read as a picture"):
        found.all()
    assert [len(spread(range(n), 4)) for n in (3, 4, 9)] == [3, 4, 4] and spread(range(9), 4) == [0, 2, 4, 6]
    for name in ("objects", "digits", tmp_path / "cars_train" / "car0" / "rgb"):
        with pytest.raises(InputError, match="views are of a folder in the layout of ShapeNet-SRN"):
            tw.data.load(name, views=2)
    with pytest.raises(InputError, match="views must be 1 or more"):
        tw.data.load(tmp_path, views=0)


def test_pictures_of_other_sizes_are_named_when_they_are_met(tmp_path):
    srn(tmp_path, n=10, each=1)
    picture(tmp_path / "car3" / "rgb" / "000000.png", 1, size=6)
    with pytest.raises(InputError, match=r"the pictures differ: \[3, 8, 8\].* \[3, 6, 6\].*give size"):
        tw.data.load(tmp_path).all()
    assert tw.data.load(tmp_path, size=4).all().x.shape == (8, 3, 4, 4)


def test_a_model_of_masked_views_finds_its_data_again(tmp_path):
    srn(tmp_path / "a_train", n=2, each=4)
    srn(tmp_path / "a_test", n=1, each=4, seed=1)
    tiny = {"field.width": 4, "field.depth": 1, "mapping": 4, "octaves": 1, "samples": 2, "rays": 4, "infer_chain.steps": 1}
    fields = dict(shape=(3, 8, 8), data=str(tmp_path), images=8, batch=4, read_views=3, missing=0.25, **tiny)
    method = tw.method("nerf_lebm/shapenet-cars-incomplete", seed=0, **fields)
    data = prepare(method.config, str(tmp_path), "train")
    assert len(data) == 6 and data.views == 2 and 0.6 < float(data.visible.float().mean()) < 0.9
    whole = tw.data.load(tmp_path, views=3)
    kept = data.visible.expand(6, 3, 8, 8)
    assert torch.equal(data.x[kept], whole.x[torch.arange(6)][kept])
    tw.fit(method, data, tmp_path / "run", progress=False)
    found = tw.load(tmp_path / "run")
    assert found.trained_on["options"] == {"views": 3}
    assert len(trained_data(found, "test")) == 3
    picture(tmp_path / "a_train" / "car0" / "rgb" / "000001.png", 200, size=16)
    with pytest.raises(InputError, match="are not what this nerf_lebm was trained on any more"):
        trained_data(found, "test")


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
