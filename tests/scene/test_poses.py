"""Searched poses: the likeliest candidate is chosen, for its posterior to learn; kept ones come nearer from visit to visit."""

import math

import pytest
import torch

from thalweg import camera as cameras
from thalweg import random
from thalweg.errors import InputError
from thalweg.nn import von_mises
from thalweg.scene import poses
from thalweg.scene.poses import Candidates, PoseSet

N = 6
TRUTH = torch.stack([torch.linspace(0.1, 1.0, N), torch.linspace(-3.0, 3.0, N)])  # altitude and azimuth


def miss(camera: torch.Tensor) -> torch.Tensor:
    """The squared distances between camera positions as they are and as they are guessed, [N, K, 3, 5] -> [N, K]."""
    truth = cameras.orbit(*map(cameras.unit_vector, TRUTH), distance=4.0, focal=1.5)[:, None]
    return (camera[..., 3] - truth[..., 3]).square().sum(-1)


def posteriors(vectors: tuple[torch.Tensor, torch.Tensor], kappa: float = 2.0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(v.clone().requires_grad_(), torch.full((N,), kappa, requires_grad=True)) for v in vectors]


def search(found, candidates: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return poses.search(found, miss, Candidates.drawn(N, candidates, random.seeded(161, seed)), distance=4.0, focal=1.5)[:2]


def test_a_right_guess_is_kept():
    found = posteriors(tuple(map(cameras.unit_vector, TRUTH)))
    camera, _ = search(found, 5)
    torch.testing.assert_close(miss(camera), torch.zeros(N, 1), atol=1e-8, rtol=0)


def test_more_candidates_come_nearer():
    wrong = (cameras.unit_vector(torch.full((N,), 0.5)), cameras.unit_vector(TRUTH[1] + math.pi))
    mean = [float(miss(search(posteriors(wrong), k, seed)[0]).mean()) for k in (1, 10, 400) for seed in range(3)]
    one, ten, many = (sum(mean[i : i + 3]) / 3 for i in (0, 3, 6))
    assert many < 0.3 < ten < one


def test_altitudes_are_from_above():
    chosen = []
    poses.search(
        posteriors((torch.tensor([[1.0, 0.0]]).expand(N, 2),) * 2), lambda camera: chosen.append(camera) or -camera[..., 2, 3],
        Candidates.drawn(N, 200, random.seeded(162)), distance=4.0, focal=1.5,
    )  # fmt: skip
    altitude, azimuth, distance = cameras.angles(chosen[0].flatten(0, 1))
    assert altitude.min() >= -1e-6 and altitude.max() <= poses.HIGHEST + 1e-6 and azimuth.min() < -3 and azimuth.max() > 3
    torch.testing.assert_close(distance, torch.full_like(distance, 4.0))


@pytest.mark.parametrize("kappa", [0.0, 3.0])
def test_directions_turn_to_what_was_chosen(kappa):
    """The loss is −log density of the chosen angles with directions held, plus 1 − cos: also at κ = 0 directions learn."""
    wrong = (cameras.unit_vector(torch.full((N,), 0.5)), cameras.unit_vector(TRUTH[1] + math.pi))
    found = posteriors(wrong, kappa)
    camera, loss = search(found, 400)
    chosen = [cameras.unit_vector(angle) for angle in cameras.angles(camera[:, 0])[:2]]
    terms = [von_mises.surprise(v, d.detach(), k) + 1 - (v * d).sum(1) for v, (d, k) in zip(chosen, found)]
    torch.testing.assert_close(loss, sum(terms), atol=1e-4, rtol=1e-4)
    slope, of_kappa = torch.autograd.grad(loss.sum(), found[1])
    torch.testing.assert_close(slope, -chosen[1], atol=1e-4, rtol=1e-4)
    assert (of_kappa != 0).all()


# --- kept from visit to visit


def visited(kept: int, seed: int, visits: int = 12) -> torch.Tensor:
    """Squared distances of the best of 16 candidates after visits that see each distance with an error of its own, [N]."""
    wrong = (cameras.unit_vector(torch.full((N,), 0.5)), cameras.unit_vector(TRUTH[1] + math.pi))
    found, generator, row = PoseSet(kept, 16), random.seeded(163, seed), torch.arange(N) + 2
    for _ in range(visits):
        camera, _, best = poses.search(
            posteriors(wrong), lambda camera: miss(camera) + 0.3 * random.normal(*camera.shape[:2], generator=generator),
            found.propose(row, N, generator, row.device), distance=4.0, focal=1.5, own=False,
        )  # fmt: skip
        found.keep(row, best, lambda value: value)
    if kept:
        torch.testing.assert_close(cameras.angles(camera[:, 0])[0], found.angles[row, 0, 0], atol=1e-5, rtol=0)
        assert not found.visits[:2].any() and not found.visits[2 + N :].any(), "other images were not visited"
    return miss(camera)[:, 0]


def test_kept_candidates_come_nearer_than_those_drawn_anew():
    """Of 16 drawn anew the nearest is 1.7 off in the mean, A/(π 16) of the area A that they fall into, times 4²."""
    kept, anew = (float(torch.stack([visited(images, seed) for seed in range(10)]).mean()) for images in (N + 3, 0))
    assert kept < 0.35 < 0.9 < anew


def test_the_worst_are_drawn_anew_and_half_of_these_near_better_ones():
    old = Candidates.drawn(200, 16, random.seeded(164))
    old = old._replace(regret=torch.arange(16.0).expand(200, 16), visits=torch.ones(200, 16))
    new = old.renewed(0.5, random.seeded(165))
    for part, before in zip(new, old):
        assert torch.equal(part[:, :8], before[:, :8]), "the better half stays"
    assert not new.regret[:, 8:].any() and not new.visits[:, 8:].any() and new.angles.shape == (200, 16, 2)
    apart = torch.remainder(new.angles[:, 8:, None, 1] - old.angles[:, None, :4, 1] + math.pi, 2 * math.pi) - math.pi
    nearest = apart.abs().amin(2)
    assert (
        float((nearest[:, :4] < 3 * poses.NEAR[1]).float().mean()) > 0.99 > 0.8 > float((nearest[:, 4:] < 3 * poses.NEAR[1]).float().mean())
    )
    assert new.angles[..., 0].min() >= 0 and new.angles[..., 0].max() <= poses.HIGHEST


def test_a_candidate_is_judged_over_several_visits():
    """Of two poses the one that was worse by 8 over four visits is not the best for once being better by 4."""
    fixed = Candidates(torch.zeros(1, 2, 2), torch.tensor([[0.0, 8.0]]), torch.full((1, 2), 4.0))
    far = [(torch.tensor([[0.0, 1.0]]), torch.ones(1))] * 2
    _, _, found = poses.search(far, lambda camera: torch.tensor([[4.0, 0.0, 9.0]]), fixed, distance=4.0, focal=1.5)
    torch.testing.assert_close(found.regret, torch.tensor([[1.0, 6.0]]))
    torch.testing.assert_close(found.visits, torch.full((1, 2), 5.0))


def test_images_without_kept_candidates_are_named():
    found, generator = PoseSet(4, 3), random.seeded(166)
    with pytest.raises(InputError, match="image number 4 has none"):
        found.propose(torch.tensor([1, 4]), 2, generator, torch.device("cpu"))
    with pytest.raises(InputError, match="have a number"):
        found.propose(None, 2, generator, torch.device("cpu"))
    assert not PoseSet(0, 3).state_dict()


def test_azimuths_that_were_chosen_often_count_as_worse():
    found, row = PoseSet(0, 3, even=0.5), torch.zeros(4, dtype=torch.long)
    even = found.penalty(torch.rand(2, 5, 2, generator=random.seeded(167)))
    torch.testing.assert_close(even, torch.zeros(2, 5))
    angles = torch.tensor([[0.3, 0.1 + math.pi], [0.5, 0.1 - math.pi]])
    for _ in range(30):
        found.keep(row, Candidates.new(angles[:, None]), lambda value: value)
    near, opposite = found.penalty(torch.tensor([[[0.9, 0.1 + math.pi], [0.9, 0.1]]]))[0].tolist()
    share = (1 - poses.LATELY**30) + poses.LATELY**30 / poses.BINS + 2 * poses.LATELY**30 / poses.BINS
    assert near == pytest.approx(0.5 * math.log(poses.BINS * share / 3), rel=1e-4) and opposite < -1
    fixed, far = Candidates.new(torch.tensor([[[0.3, math.pi + 0.1], [0.3, 0.1]]])), [(torch.tensor([[1.0, 0.0]]), torch.ones(1))] * 2
    for penalty, wanted in ((found.penalty, 0.1), (PoseSet(0, 2).penalty, math.pi + 0.1)):
        _, _, best = poses.search(
            far, lambda camera: torch.tensor([[1.0, 2.0]]), fixed, distance=4.0, focal=1.5, own=False, penalty=penalty
        )
        assert float(best.angles[0, 0, 1]) == pytest.approx(wanted)
