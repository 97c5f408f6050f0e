"""Images of objects from known cameras: the stream of views, holes in them, what does not fit."""

import math

import pytest
import torch
from torch import Tensor

import thalweg as tw
from thalweg import camera, random
from thalweg.data import Views
from thalweg.data.images import to_unit
from thalweg.data.views import group_views
from thalweg.errors import InputError

BOUND = 4.5  # standard errors


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


def test_each_image_comes_once_an_epoch():
    data = views()
    for epoch in range(2):
        batch = data.batch(12 * epoch, 12, seed=3)
        assert sorted(numbers(batch.x)) == list(range(12))
        assert batch.row.tolist() == numbers(batch.x)
        for number, view, item in zip(numbers(batch.x), batch.camera, batch.item):
            assert torch.equal(view, data.camera[number]) and item == data.item[number]
    assert numbers(data.batch(0, 12, 3).x) != numbers(data.batch(12, 12, 3).x) != numbers(data.batch(12, 12, 4).x)


def test_a_batch_does_not_depend_on_how_the_stream_is_cut():
    data = views(views=2)
    whole = data.batch(2, 18, seed=1)
    parts = [data.batch(start, 6, seed=1) for start in (2, 8, 14)]
    assert torch.equal(whole.x, torch.cat([part.x for part in parts])) and whole.label is None and whole.visible is None


def test_views_of_an_object_stand_next_to_each_other():
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
        (dict(mask=torch.zeros(12, 1, 4, 4, dtype=torch.uint8)), "mask must be torch.uint8"),
        (dict(depth=torch.zeros(12, 4, 4)), "depth must be torch.float16"),
        (dict(factors={"height": torch.zeros(12)}), "the factor height must have 3 values, one for each object, got 12"),
    ],
)
def test_parts_that_do_not_fit(changes, message):
    with pytest.raises(InputError, match=message):
        views()._with(**changes)


def test_only_objects_have_views():
    assert group_views(views(), 1).views == 1 and group_views(views(), 2).views == 2
    with pytest.raises(InputError, match="images of objects"):
        group_views(tw.data.toy("moons"), 2)
