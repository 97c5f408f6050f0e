"""What is looked at of images: their silhouettes, blocks of them, and one image from several cameras."""

import torch

from thalweg import camera, random
from thalweg.scene.rays import Given, choose, look

X = random.uniform(2, 1, 3, 8, 8, low=-1.0, high=0.7, generator=random.seeded(191))
GIVEN = Given(X, None, None, None, choose(2, 64, 10, random.seeded(192), X.device))


def test_a_coarse_image_has_the_means_of_its_blocks():
    visible = torch.ones(2, 1, 1, 8, 8, dtype=torch.bool)
    visible[1, 0, 0, 3, 5] = False
    found = GIVEN._replace(visible=visible).coarse(4)
    torch.testing.assert_close(found.x[:, 0], torch.nn.functional.avg_pool2d(X[:, 0], 2))
    assert found.visible[0].all() and found.visible[1].logical_not().nonzero().tolist() == [[0, 0, 1, 2]]
    assert torch.equal(found.which, torch.arange(16).expand(2, -1)) and GIVEN.coarse(4).visible is None


def test_an_image_is_looked_at_from_several_cameras():
    """As if each camera had its own copy of it."""
    angle = [camera.unit_vector(random.uniform(2, 3, high=h, generator=random.seeded(193))) for h in (1.0, 6.0)]
    cameras = camera.orbit(*angle, distance=4.0, focal=1.866)
    few = GIVEN.again(3, 5)
    seen = look(few.x, cameras, None, few.which, samples=2)
    for i in range(3):
        alone = look(X, cameras[:, i : i + 1], None, GIVEN.which[:, :5], samples=2)
        for name in ("origins", "directions", "x", "weight"):
            torch.testing.assert_close(getattr(seen, name)[:, 5 * i : 5 * i + 5], getattr(alone, name))


def test_silhouettes_are_of_whatever_differs_from_the_background():
    x = X.clone()
    x[:, :, :, :4] = 1.0
    x[0, 0, 1, 0, 0] = 0.5
    seen = GIVEN._replace(x=x).silhouettes("white").x
    assert (seen[:, :, :, 4:] == -1).all() and (seen[0, 0, :, 0, 0] == -1).all() and int((seen[:, :, :, :4] == -1).sum()) == 3
    assert torch.equal(GIVEN._replace(x=-x).silhouettes("black").x, -seen)
