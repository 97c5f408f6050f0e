"""Noise beside x: what a network with it puts out, and which latent the data teach."""

import pytest
import torch

from thalweg import random
from thalweg.nn.beside import Beside
from thalweg.nn.build import MLP, PatchNet
from thalweg.proposing import latent, lesson, nearest, with_latent


@pytest.mark.parametrize(("spec", "shape"), [(MLP(width=16, depth=1), (3,)), (PatchNet(width=8, blocks=1, patch=2), (2, 4, 4))])
def test_maps_are_of_x_and_move_with_z(spec, shape):
    net = with_latent(spec, shape, 5, lambda network: network, classes=4)
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=0.3, generator=random.seeded(7))
    x, t, label = random.normal(6, *shape, generator=random.seeded(1)), torch.arange(6) % 2, torch.arange(6) % 4
    z = latent(net, x, random.seeded(2))
    assert z["z"].shape == (6, 5, *shape[1:])
    out, vector = net(x, t, label, **z)
    other, _ = net(x, t, label, **latent(net, x, random.seeded(3)))
    assert out.shape == x.shape and vector is None and float((out - other).detach().abs().min()) > 0
    assert torch.equal(out, net(x, t, label, **z)[0])


def test_without_channels_the_network_is_the_specs_own():
    net = with_latent(MLP(width=16, depth=1), (3,), 0, lambda network: network)
    assert not isinstance(net, Beside) and latent(net, torch.zeros(2, 3)) == {} == latent(None, torch.zeros(2, 3))


def test_rows_that_share_a_generators_seed_share_their_latent():
    net = with_latent(MLP(width=16, depth=1), (3,), 2, lambda network: network)
    z = latent(net, torch.zeros(3, 3), tuple(random.seeded(4) for _ in range(3)))["z"]
    assert torch.equal(z[0], z[1]) and torch.equal(z[1], z[2]) and not torch.equal(z[0, :1], z[0, 1:])


def test_the_nearest_of_all_draws_is_found_for_each_row():
    draws = list(random.normal(7, 50, 2, generator=random.seeded(5)))
    target, left = random.normal(50, 2, generator=random.seeded(6)), iter(draws)
    found = nearest(lambda z: 2 * z, lambda: {"z": next(left)}, target, 7)["z"]
    far = torch.stack([(2 * z - target).square().sum(1) for z in draws])
    assert torch.equal(found, torch.stack(draws)[far.argmin(0), torch.arange(50)]) and len(set(far.argmin(0).tolist())) == 7


def test_chains_teach_the_mean_they_began_at_and_data_the_nearest():
    mean, learned, data = (torch.full((1000, 1), value) for value in (1.0, 2.0, 3.0))
    draw = lambda: {"z": torch.full((1000, 1), 2.9)}  # noqa: E731
    again = lambda z: z  # noqa: E731
    assert lesson(mean, learned, data, 1.0, None, again, draw, 1) == (mean, learned)
    near, target = lesson(mean, learned, data, 0.0, None, again, draw, 1)
    assert torch.equal(near, draw()["z"]) and target is data
    near, target = lesson(mean, learned, data, 0.25, random.seeded(8), again, draw, 1)
    of_chains = target == 2.0
    assert torch.equal(near, torch.where(of_chains, 1.0, 2.9)) and torch.equal(target, torch.where(of_chains, 2.0, 3.0))
    assert abs(float(of_chains.float().mean()) - 0.25) < 4.5 * (0.25 * 0.75 / 1000) ** 0.5
    assert lesson(mean, learned, data, 0.0, None, None, draw, 1) == (mean, data)
