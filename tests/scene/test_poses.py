"""Searched poses: the likeliest candidate is chosen, for its posterior to learn."""

import math

import pytest
import torch

from thalweg import camera as cameras
from thalweg import random
from thalweg.nn import von_mises
from thalweg.scene import poses

N = 6
TRUTH = torch.stack([torch.linspace(0.1, 1.0, N), torch.linspace(-3.0, 3.0, N)])  # altitude and azimuth


def miss(rows: torch.Tensor, camera: torch.Tensor) -> torch.Tensor:
    """The angle squared between camera positions as they are and as they are guessed."""
    truth = cameras.orbit(*map(cameras.unit_vector, TRUTH), distance=4.0, focal=1.5)[rows]
    return (camera[:, 0, :, 3] - truth[:, :, 3]).square().sum(1)


def posteriors(vectors: tuple[torch.Tensor, torch.Tensor], kappa: float = 2.0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(v.clone().requires_grad_(), torch.full((N,), kappa, requires_grad=True)) for v in vectors]


def search(found, candidates: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return poses.search(found, miss, candidates, distance=4.0, focal=1.5, generator=random.seeded(161, seed))


def test_a_right_guess_is_kept():
    found = posteriors(tuple(map(cameras.unit_vector, TRUTH)))
    camera, _ = search(found, 5)
    torch.testing.assert_close(miss(torch.arange(N), camera), torch.zeros(N), atol=1e-8, rtol=0)


def test_more_candidates_come_nearer():
    wrong = (cameras.unit_vector(torch.full((N,), 0.5)), cameras.unit_vector(TRUTH[1] + math.pi))
    mean = [float(miss(torch.arange(N), search(posteriors(wrong), k, seed)[0]).mean()) for k in (1, 10, 400) for seed in range(3)]
    one, ten, many = (sum(mean[i : i + 3]) / 3 for i in (0, 3, 6))
    assert many < 0.3 < ten < one


def test_altitudes_are_from_above():
    chosen = []
    poses.search(
        posteriors((torch.tensor([[1.0, 0.0]]).expand(N, 2),) * 2), lambda rows, camera: chosen.append(camera) or -camera[:, 0, 2, 3], 200,
        distance=4.0, focal=1.5, generator=random.seeded(162),
    )  # fmt: skip
    altitude, azimuth, distance = cameras.angles(chosen[0][:, 0])
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
