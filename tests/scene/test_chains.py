"""Chains in blocks of latents: their moments, what moves, and chains that objects keep."""

import pytest
import torch

from thalweg import random
from thalweg.errors import Diverged
from thalweg.scene import chains
from thalweg.scene.specs import LatentAdam, LatentLangevin

BLOCKS = [torch.tensor([True, True, False]), torch.tensor([False, False, True])]


def bowl(z):
    return z.square().sum(1) / 2 + z[:, 0] * z[:, 2]


@pytest.mark.parametrize("chain", [LatentLangevin(steps=7, step=0.3), LatentAdam(steps=7)])
def test_a_chain_that_goes_on_is_one_chain(chain):
    start = random.normal(4, 3, generator=random.seeded(171))
    whole, of_whole = chain(bowl, start, BLOCKS)
    half, moments = chain(bowl, start, BLOCKS, steps=3)
    half, moments = chain(bowl, half, BLOCKS, moments=moments, steps=4)
    torch.testing.assert_close(half, whole)
    torch.testing.assert_close(moments, of_whole)
    assert (moments[:, -1] == 7).all()


@pytest.mark.parametrize("kind", [LatentLangevin, LatentAdam])
def test_blocks_move_in_turn_or_together(kind):
    start = torch.ones(1, 3)
    size = {"rate" if kind is LatentAdam else "step": 0.5}
    turns, together = (kind(steps=1, joint=joint, **size)(bowl, start, BLOCKS)[0] for joint in (False, True))
    torch.testing.assert_close(turns[:, :2], together[:, :2])
    assert kind is LatentAdam or float(turns[0, 2]) != float(together[0, 2]), "the second block sees the first one moved"
    alone, _ = kind(steps=1, **size)(bowl, start, BLOCKS[:1])
    assert torch.equal(alone[:, 2], start[:, 2])


def test_moves_are_projected_and_divergence_is_named():
    boxed, _ = LatentLangevin(steps=5, step=2.0, noise=1.0)(
        bowl, torch.zeros(50, 3), BLOCKS, project=lambda z: z.clamp(-1, 1), generator=random.seeded(172)
    )
    assert float(boxed.abs().max()) == 1
    with pytest.raises(Diverged, match="posterior chains ended with NaN"):
        LatentAdam(steps=1)(lambda z: z.sum(1) * float("nan"), torch.zeros(2, 3), BLOCKS)


def test_kept_chains_are_those_of_their_objects():
    kept = chains.ObjectChains(torch.zeros(5, 2))
    kept.write(torch.tensor([1, 3]), torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.ones(2, 5), lambda t: t)
    assert len(kept) == 5 and kept.z.tolist() == [[0, 0], [1, 2], [0, 0], [3, 4], [0, 0]] and kept.moments.sum() == 10
    # an object that comes twice keeps the mean of both; one process of two has seen object 0
    kept.write(torch.tensor([0, 0]), torch.tensor([[1.0, 0.0], [3.0, 0.0]]), torch.zeros(2, 5), lambda t: t / 2)
    torch.testing.assert_close(kept.z[0], torch.tensor([2.0, 0.0]))
