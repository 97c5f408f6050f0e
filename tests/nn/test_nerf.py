"""Cameras, volume rendering, fields, poses on the circle and priors of latents, against closed forms."""

import math

import pytest
import torch
from torch import Tensor

from thalweg import camera, energy, random
from thalweg.chain import Langevin
from thalweg.nn import nerf, von_mises
from thalweg.nn.tri_plane import TriPlaneField
from thalweg.prior import Prior

BOUND = 4.5  # standard errors


def jitter(*shape: int, seed: int = 0) -> Tensor:
    return random.uniform(*shape, generator=random.seeded(101, seed))


def middle(*shape: int) -> Tensor:
    return torch.full(shape, 0.5)


# --- cameras


def cameras(altitude, azimuth, distance=4.0, focal=1.5) -> Tensor:
    vectors = (camera.unit_vector(torch.as_tensor(a, dtype=torch.float64)) for a in (altitude, azimuth))
    return camera.orbit(*vectors, distance=distance, focal=focal)


def test_a_camera_looks_at_the_origin_with_z_up():
    found = cameras([0.0], [0.0])[0]
    right, top, back, position, _ = found.unbind(-1)
    torch.testing.assert_close(torch.stack([right, top, back]), torch.eye(3, dtype=torch.float64)[[1, 2, 0]])
    torch.testing.assert_close(position, torch.tensor([4.0, 0, 0], dtype=torch.float64))
    many = cameras(torch.linspace(-3, 3, 50).tolist(), torch.linspace(-9, 9, 50).tolist())
    axes = many[..., :3]
    torch.testing.assert_close(axes.transpose(1, 2) @ axes, torch.eye(3, dtype=torch.float64).expand(50, 3, 3))
    torch.testing.assert_close(torch.linalg.det(axes), torch.ones(50, dtype=torch.float64))
    torch.testing.assert_close(many[..., 3], 4 * axes[..., 2])


def test_angles_are_those_of_the_position():
    altitude, azimuth = torch.tensor([-1.2, 0.0, 0.4]), torch.tensor([-3.0, 0.3, 2.0])
    found = camera.angles(cameras(altitude.tolist(), azimuth.tolist(), distance=2.5))
    for got, wanted in zip(found, (altitude, azimuth, torch.full((3,), 2.5))):
        torch.testing.assert_close(got.float(), wanted)


def test_rays_project_back_to_their_pixels():
    height, width, focal = 6, 8, 1.5
    view = cameras([0.3], [1.1], focal=focal)
    origins, directions = camera.rays(view, height, width)
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones_like(directions[..., 0]))
    points = origins + 3.7 * directions
    local = (points[0] - view[0, :, 3]) @ view[0, :, :3]  # right, up, back
    column = (focal * local[:, 0] / -local[:, 2] + 0.5) * width
    row = (0.5 - focal * local[:, 1] / -local[:, 2] * width / height) * height
    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    torch.testing.assert_close(column, columns.flatten().double())
    torch.testing.assert_close(row, rows.flatten().double())
    some = torch.tensor([[0, 13, 47]])
    torch.testing.assert_close(camera.rays(view, height, width, some)[1], directions[:, some[0]])


def test_rays_through_other_places_of_a_pixel_project_back_to_them():
    view, places = cameras([0.3], [1.1]), jitter(1, 48, 2, seed=4).double()
    pixels = torch.arange(48)[None]
    origins, directions = camera.rays(view, 6, 8, pixels, places)
    local = (origins + 3.7 * directions - view[0, :, 3])[0] @ view[0, :, :3]
    column = (1.5 * local[:, 0] / -local[:, 2] + 0.5) * 8
    row = (0.5 - 1.5 * local[:, 1] / -local[:, 2] * 8 / 6) * 6
    torch.testing.assert_close(torch.stack([column - pixels[0] % 8, row - pixels[0] // 8], 1), places[0])


def test_the_field_of_view_is_what_the_outer_edge_sees():
    assert camera.focal_length(90) == pytest.approx(0.5)
    assert camera.focal_length(30) == pytest.approx(0.5 / math.tan(math.pi / 12))


# --- volume rendering


def grey(value: float):
    def field(x: Tensor, direction: Tensor):
        return torch.full_like(x[..., 0], value), torch.full_like(x, 0.25)

    return field


def slab(density: float, low: float, high: float):
    """Of constant density between two planes of x, red."""

    def field(x: Tensor, direction: Tensor):
        inside = (x[..., 0] >= low) & (x[..., 0] < high)
        return density * inside.to(x), torch.tensor([1.0, 0, 0]).expand_as(x)

    return field


def along_x(rays: int = 1, batch: int = 1):
    origin = torch.tensor([-2.0, 0, 0]).expand(batch, rays, 3)
    return origin, torch.tensor([1.0, 0, 0]).expand(batch, rays, 3)


@pytest.mark.parametrize("density", [0.1, 1.0, 20.0])
def test_a_slab_lets_through_exp_of_minus_its_thickness(density):
    """Samples at the boundaries of 64 parts: δ adds up to the slab's thickness exactly."""
    found = nerf.render(slab(density, -0.5, 0.25), *along_x(), torch.zeros(1, 1, 64), near=0.0, far=4.0, background=1.0)
    through = math.exp(-density * 0.75)
    assert float(found.opacity) == pytest.approx(1 - through, abs=1e-6)
    torch.testing.assert_close(found.colour[0, 0], torch.tensor([1.0, through, through]))
    black = nerf.render(slab(density, -0.5, 0.25), *along_x(), torch.zeros(1, 1, 64), near=0.0, far=4.0, background=0.0)
    torch.testing.assert_close(black.colour[0, 0], torch.tensor([1 - through, 0, 0]))


def test_jitter_changes_the_slab_by_a_sample_at_most():
    found = nerf.render(slab(1.0, -0.5, 0.25), *along_x(500), jitter(1, 500, 64), near=0.0, far=4.0)
    thickness = -torch.log1p(-found.opacity)
    assert float((thickness - 0.75).abs().max()) < 4 * 4.0 / 64
    assert abs(float(thickness.mean()) - 0.75) < BOUND * float(thickness.std()) / math.sqrt(500) + 1e-6


def test_the_front_hides_the_back():
    def field(x: Tensor, direction: Tensor):
        colour = torch.where(x[..., :1] < 0, torch.tensor([0.0, 0, 1]), torch.tensor([0.0, 1, 0]))
        return torch.full_like(x[..., 0], 50.0) * (x[..., 0].abs() < 1), colour

    found = nerf.render(field, *along_x(), middle(1, 1, 128), near=0.0, far=4.0)
    torch.testing.assert_close(found.colour[0, 0], torch.tensor([0.0, 0, 1]), atol=1e-5, rtol=0)
    assert float(found.depth) == pytest.approx(1.0, abs=0.06)


def ball(x: Tensor, direction: Tensor):
    return 1e4 * (x.norm(dim=-1) < 1).to(x), torch.full_like(x, 0.3)


def test_an_opaque_sphere_has_its_depth_and_silhouette():
    view, size, samples = cameras([0.2], [0.7], distance=4.0, focal=camera.focal_length(35)).float(), 24, 128
    origins, directions = camera.rays(view, size, size)
    found = nerf.render(ball, origins, directions, middle(1, size * size, samples), near=2.5, far=5.5, chunk=20_000)
    nearest = torch.linalg.cross(origins, directions).norm(dim=-1)  # distance of the ray to the centre
    along, step = -(origins * directions).sum(-1), 3.0 / samples
    clear = (nearest - 1).abs() > 1e-3  # a ray that grazes it may pass between samples
    torch.testing.assert_close(found.opacity[clear], (nearest[clear] < 1).float(), atol=1e-6, rtol=0)
    deep = nearest < 0.99
    error = found.depth[deep] - (along - (1 - nearest.square()).clamp(min=0).sqrt())[deep]
    assert float(error.min()) >= -1e-3 and float(error.max()) < 1.01 * step
    assert torch.equal(found.depth[clear & (nearest > 1)], torch.full_like(found.depth, 5.5)[clear & (nearest > 1)])
    assert 0.3 < float(deep.float().mean()) < 0.8


def test_rays_through_a_ball_have_its_chords():
    """Constant density in the ball of radius 1: opacity 1 − exp(−density · chord), to the last bit of the samples' sum."""
    view, size, density = cameras([0.2], [0.7], distance=4.0, focal=camera.focal_length(35)).float(), 24, 1.5
    origins, directions = camera.rays(view, size, size)
    nearest = torch.linalg.cross(origins, directions).norm(dim=-1)
    chord = 2 * (1 - nearest.square()).clamp(min=0).sqrt()
    start, end = nerf.inside_ball(origins, directions)
    torch.testing.assert_close((end - start).squeeze(-1), chord, atol=5e-3, rtol=1e-3)
    surface = origins + start * directions
    hit = nearest < 0.99
    torch.testing.assert_close(surface.norm(dim=-1)[hit], torch.ones_like(nearest)[hit], atol=1e-4, rtol=0)
    for samples in (3, 12):
        nothing = torch.zeros(1, size * size, samples)
        found = nerf.render(grey(density), origins, directions, nothing, near=2.5, far=5.5, ball=True, chunk=1000)
        torch.testing.assert_close(found.opacity, -torch.expm1(-density * chord), atol=8e-3, rtol=1e-3)
        missed = nearest > 1.001
        assert (
            missed.any() and (found.opacity[missed] == 0).all() and (found.depth[missed] == 5.5).all() and (found.colour[missed] == 1).all()
        )


def test_a_ray_that_grazes_the_ball_has_gradients():
    origins = torch.tensor([[[-2.0, 1.0, 0.0], [-2.0, 0.3, 0.0], [-2.0, 1.5, 0.0]]], requires_grad=True)
    directions = torch.tensor([1.0, 0, 0]).expand(1, 3, 3)

    def field(x: Tensor, direction: Tensor):
        return x.square().sum(-1), torch.sigmoid(x)

    found = nerf.render(field, origins, directions, middle(1, 3, 8), near=1.0, far=3.0, ball=True)
    (gradient,) = torch.autograd.grad(found.colour.sum() + found.depth.sum(), origins)
    assert gradient.isfinite().all() and gradient[0, 1].abs().max() > 0 and (gradient[0, 2] == 0).all()


def test_stratified_samples_are_one_a_part():
    t = nerf.stratified(1.0, 3.0, jitter(50, 8))
    assert torch.equal(((t - 1) / 2 * 8).floor(), torch.arange(8.0).expand(50, 8))


def test_hierarchical_samples_follow_the_weights():
    t, weights = torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([[0.2, 0.0, 0.6]])
    found = nerf.hierarchical(t, weights, 4.0, jitter(1, 20_000))[0]
    shares = torch.stack([(found < 0.5).float(), ((found >= 0.5) & (found < 1.5)).float(), (found >= 1.5).float()]).mean(1)
    for share, wanted in zip(shares.tolist(), (0.25, 0.0, 0.75)):
        assert abs(share - wanted) < BOUND * math.sqrt(0.25 / 20_000) + 1e-4
    assert abs(float(found[found >= 1.5].mean()) - 2.75) < BOUND * 2.5 / math.sqrt(12 * 15_000), "uniform within an interval"
    assert float(found.max()) <= 4.0


def test_importance_samples_sharpen_a_thin_wall():
    thin = slab(1e3, 0.011, 0.05)
    coarse = nerf.render(thin, *along_x(), middle(1, 1, 64), near=0.0, far=4.0)
    fine = nerf.render(thin, *along_x(), middle(1, 1, 64), near=0.0, far=4.0, importance=jitter(1, 1, 256))
    assert abs(float(fine.depth) - 2.011) < abs(float(coarse.depth) - 2.011) / 2 < 0.05


def field_of(**options) -> nerf.ConditionalField:
    return nerf.ConditionalField(5, 6, **(dict(width=16, depth=4, mapping=8, octaves=3, octaves_view=1) | options))


@pytest.mark.parametrize("conditioning", ["concat", "film"])
def test_chunks_change_neither_values_nor_gradients(conditioning):
    net = field_of(conditioning=conditioning)
    z_a, z_s = random.normal(2, 5, generator=random.seeded(1)), random.normal(2, 6, generator=random.seeded(2)).requires_grad_(True)
    view = cameras([0.1, 0.5], [0.2, 2.0]).float()
    rays, found = camera.rays(view, 4, 4), {}
    for chunk in (None, 1, 50):
        latents = net.latents(z_a, z_s)
        made = nerf.render(
            lambda x, d, latents=latents: net(x, d, latents), *rays, jitter(2, 16, 6), near=3.0, far=5.0,
            importance=jitter(2, 16, 3), chunk=chunk,
        )  # fmt: skip
        loss = made.colour.square().sum() + made.depth.sum()
        found[chunk] = (made.colour.detach(), *torch.autograd.grad(loss, [z_s, net.layers[0].weight, net.colour.bias]))
    for chunk in (1, 50):
        for a, b in zip(found[None], found[chunk]):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def counted(field):
    """A field that counts the points it is asked for."""

    def ask(x: Tensor, direction: Tensor):
        ask.points += x.shape[0] * x.shape[1]
        return field(x, direction)

    ask.points = 0
    return ask


@pytest.mark.parametrize("importance", [None, jitter(2, 576, 8, seed=3)])
def test_what_light_does_not_reach_is_not_asked_for(importance):
    """An opaque ball with a soft edge, half of the ball that rays are followed through: the same picture by fewer points."""

    def small(x: Tensor, direction: Tensor):
        return 40 * torch.sigmoid(40 * (0.5 - x.norm(dim=-1))), (0.5 + 0.4 * x).clamp(0, 1)

    view = cameras([0.2, 0.7], [0.7, 2.0], distance=4.0, focal=camera.focal_length(30)).float()
    rays, options = camera.rays(view, 24, 24), dict(near=3.0, far=5.0, ball=True, importance=importance)
    full, sparing = counted(small), counted(small)
    whole = nerf.render(full, *rays, jitter(2, 576, 16), **options)
    with torch.no_grad():
        found = nerf.render(sparing, *rays, jitter(2, 576, 16), stop=1e-3, chunk=5000, **options)
    for part, wanted, error in zip(found, whole, (6e-3, 2e-2, 6e-3)):
        torch.testing.assert_close(part, wanted, atol=error, rtol=0)
    assert sparing.points < 0.75 * full.points
    again = counted(small)
    nerf.render(again, *rays, jitter(2, 576, 16), stop=1e-3, **options)
    assert again.points == full.points, "with gradients all of it"


def test_importance_samples_ask_each_point_once():
    ask = counted(slab(1.0, -0.5, 0.25))
    nerf.render(ask, *along_x(3), jitter(1, 3, 8), near=0.0, far=4.0, importance=jitter(1, 3, 4))
    assert ask.points == 3 * 12


def planes_of(**options) -> TriPlaneField:
    return TriPlaneField(5, 6, **(dict(resolution=8, channels=4, width=16, base=8, mapping=8) | options))


def test_a_point_reads_the_three_planes_where_it_lies():
    """Planes that hold their own coordinates: what is read is the point."""
    net = planes_of(channels=2)
    centre = (torch.arange(8.0) + 0.5) / 4 - 1
    down, across = torch.meshgrid(centre, centre, indexing="ij")
    planes = torch.stack([across, down]).expand(3, 2, 8, 8)
    x = random.uniform(1, 50, 3, low=-0.85, high=0.85, generator=random.seeded(9))
    torch.testing.assert_close(net.look_up(x, planes).mT, x[..., [0, 1, 0, 2, 1, 2]], atol=1e-5, rtol=1e-5)


def test_planes_are_of_one_size():
    assert planes_of(resolution=32).latents(torch.zeros(2, 5), torch.zeros(2, 6))[1].shape == (6, 4, 32, 32)
    with pytest.raises(ValueError, match="4 times a power of 2, got 12"):
        planes_of(resolution=12)


def test_chunks_of_a_tri_plane_change_neither_values_nor_gradients():
    net, view = planes_of(), cameras([0.1, 0.5], [0.2, 2.0]).float()
    z_a, z_s = random.normal(2, 5, generator=random.seeded(1)), random.normal(2, 6, generator=random.seeded(2)).requires_grad_(True)
    rays, found = camera.rays(view, 4, 4), []
    for chunk in (None, 50):
        latents = net.latents(z_a, z_s)
        made = nerf.render(lambda x, d, latents=latents: net(x, d, latents), *rays, jitter(2, 16, 6), near=3.0, far=5.0, chunk=chunk)
        found.append((made.colour, *torch.autograd.grad(made.colour.square().sum(), [z_s, net.first.weight, net.planes.weight])))
    for a, b in zip(*found):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
        assert a.abs().max() > 0


@pytest.mark.parametrize("conditioning", ["concat", "film", "planes"])
def test_appearance_does_not_touch_the_density(conditioning):
    net = planes_of() if conditioning == "planes" else field_of(conditioning=conditioning)
    x, d = random.normal(2, 7, 3, generator=random.seeded(3)), torch.tensor([0.0, 0, 1]).expand(2, 7, 3)
    z = [random.normal(2, n, generator=random.seeded(4, n, i)) for n, i in ((5, 0), (6, 0), (5, 1), (6, 1))]
    density, colour = net(x, d, net.latents(z[0], z[1]))
    same, other_colour = net(x, d, net.latents(z[2], z[1]))
    other_density, _ = net(x, d, net.latents(z[0], z[3]))
    assert torch.equal(density, same) and not torch.equal(colour, other_colour) and not torch.equal(density, other_density)
    assert (density >= 0).all() and (colour >= 0).all() and (colour <= 1).all()
    scaled, _ = net(x, d, net.latents(3 * z[0], 2 * z[1]))
    torch.testing.assert_close(scaled, density, atol=1e-4, rtol=1e-4)  # latents are normalised


def test_concatenation_is_what_the_layers_compute():
    """A linear layer of [h, w], in two parts: the same as one whose weight has both."""
    net = field_of()
    z_a, z_s = random.normal(1, 5, generator=random.seeded(5)), random.normal(1, 6, generator=random.seeded(6))
    point = nerf.positional_encoding(random.normal(1, 4, 3, generator=random.seeded(7)), 3)
    joined = torch.cat([point, net.map_shape(z_s)[:, None].expand(-1, 4, -1)], -1)
    weight = torch.cat([net.layers[0].weight, net.shape_at["0"].weight], 1)
    wanted = joined @ weight.T + net.layers[0].bias + net.shape_at["0"].bias
    torch.testing.assert_close(net._layer(net.layers[0], (point,), net.latents(z_a, z_s)[1]["0"]), wanted)
    halves = net._layer(net.layers[0], (point[..., :5], point[..., 5:]), net.latents(z_a, z_s)[1]["0"])
    torch.testing.assert_close(halves, wanted)


def test_octaves_come_in_one_after_the_other():
    x = random.normal(5, 3, generator=random.seeded(181))
    whole, share = nerf.positional_encoding(x, 4), torch.tensor(1.0)
    torch.testing.assert_close(nerf.positional_encoding(x, 4, share), whole)
    waves = nerf.positional_encoding(x, 4, torch.tensor(0.625))[:, 3:].view(5, 2, 3, 4)  # two octaves and half of the third
    torch.testing.assert_close(waves, whole[:, 3:].view(5, 2, 3, 4) * torch.tensor([1.0, 1.0, 0.5, 0.0]))
    net, plain = field_of(annealed=True), field_of()
    assert "revealed" in net.state_dict() and "revealed" not in plain.state_dict()
    net.reveal(2.0)
    assert float(net.revealed) == 1


def test_film_scales_and_shifts_what_the_layers_compute():
    net = field_of(conditioning="film", depth=5)
    z_a, z_s = random.normal(2, 5, generator=random.seeded(8)), random.normal(2, 6, generator=random.seeded(9))
    x, d = random.normal(2, 7, 3, generator=random.seeded(10)), torch.tensor([0.0, 0.6, 0.8]).expand(2, 7, 3)
    appearance, shape = net.latents(z_a, z_s)

    def told(h: Tensor, latent: Tensor) -> Tensor:
        scale, shift = latent.chunk(2, -1)
        return (1 + scale) * h + shift

    h = point = nerf.positional_encoding(x, 3)
    for i, layer in enumerate(net.layers):
        h = layer(torch.cat([h, point], -1) if i == net.again else h)
        h = (told(h, shape[str(i)]) if str(i) in shape else h).relu()
    density = torch.nn.functional.softplus(net.density(h).squeeze(-1) - 1)
    seen = net.colour_hidden(torch.cat([net.feature(h), nerf.positional_encoding(d, 1)], -1))
    assert list(shape) == ["0", "1", "2", "3"] and net.again == 2
    for made, wanted in zip(net(x, d, (appearance, shape)), (density, net.colour(told(seen, appearance).relu()).sigmoid())):
        torch.testing.assert_close(made, wanted, atol=1e-5, rtol=1e-4)


# --- poses on the circle


KAPPAS = torch.tensor([0.5, 1.0, 2.0, 5.0, 10.0, 50.0], dtype=torch.float64)


def test_kl_to_the_uniform_has_its_closed_form():
    wanted = torch.tensor([0.0597, 0.2105, 0.5716, 1.1622, 1.5430, 2.3699], dtype=torch.float64)
    torch.testing.assert_close(von_mises.kl_to_uniform(KAPPAS), wanted, atol=5e-5, rtol=0)
    assert float(von_mises.kl_to_uniform(torch.zeros((), dtype=torch.float64))) == 0


@pytest.mark.parametrize("kappa", [0.0, 0.3, 5.0, 1000.0])
def test_the_density_is_normalised_and_its_entropy_closed(kappa):
    """∫p = 1 and −∫p log p = log 2π − KL to the uniform, on an even grid."""
    theta = torch.arange(20_000, dtype=torch.float64) * 2 * math.pi / 20_000
    x, mean = torch.stack([theta.cos(), theta.sin()], -1), torch.tensor([math.cos(1.0), math.sin(1.0)], dtype=torch.float64)
    nats = von_mises.surprise(x, mean, torch.full_like(theta, kappa))
    mass = (-nats).exp() * 2 * math.pi / len(theta)
    assert float(mass.sum()) == pytest.approx(1, abs=1e-9)
    kl = float(von_mises.kl_to_uniform(torch.tensor(kappa, dtype=torch.float64)))
    assert float((mass * nats).sum()) == pytest.approx(math.log(2 * math.pi) - kl, abs=1e-9)


@pytest.mark.parametrize("kappa", [0.0, 0.3, 1.0, 5.0, 50.0, 1000.0])
def test_draws_have_their_moments(kappa):
    """E cos θ = A(κ) and E cos 2θ = 1 − 2A(κ)/κ, on an even grid of uniform draws, which is as good as an integral."""
    n = 4000
    k = torch.full((n,), kappa, dtype=torch.float64)
    theta = von_mises.angle(k, (torch.arange(n, dtype=torch.float64) + 0.5) / n)
    first = float(von_mises.mean_length(k[0]))
    assert float(theta.cos().mean()) == pytest.approx(first, abs=2e-4)
    assert float((2 * theta).cos().mean()) == pytest.approx(1 - 2 * first / kappa if kappa else 0.0, abs=4e-4)
    assert abs(float(theta.sin().mean())) < 1e-6


@pytest.mark.parametrize(("kappa", "slope"), [(1.0, 0.354), (2.0, 0.164), (5.0, 0.0232)])
def test_gradients_of_draws_are_unbiased(kappa, slope):
    """dA/dκ through the draws: exact on an even grid, and within the standard error of random ones."""
    n = 5000
    for even in (True, False):
        u = (torch.arange(n, dtype=torch.float64) + 0.5) / n if even else jitter(n).double()
        k = torch.full((n,), kappa, dtype=torch.float64, requires_grad=True)
        x = von_mises.sample(torch.tensor([0.6, 0.8], dtype=torch.float64).expand(n, 2), k, u)
        (each,) = torch.autograd.grad((x @ torch.tensor([0.6, 0.8], dtype=torch.float64)).sum(), k)
        error = 6e-4 if even else BOUND * float(each.std()) / math.sqrt(n) + 6e-4
        assert abs(float(each.mean()) - slope) < error
        length = float(von_mises.mean_length(k[0].detach()))
        assert 1 - length / kappa - length**2 == pytest.approx(slope, abs=6e-4)


def test_draws_turn_with_their_mean():
    direction = camera.unit_vector(torch.tensor([0.3, -2.0])).requires_grad_(True)
    u, k = torch.tensor([0.2, 0.9]), torch.tensor([3.0, 3.0])
    x = von_mises.sample(direction, k, u)
    torch.testing.assert_close(x.norm(dim=-1), torch.ones(2))
    torch.testing.assert_close(torch.atan2(*x.flip(-1).unbind(-1)), torch.tensor([0.3, -2.0]) + von_mises.angle(k, u))
    assert torch.autograd.grad(x.sum(), direction)[0].abs().min() > 0


# --- priors of latents


def grid(extent: float = 6.0, n: int = 1201) -> Tensor:
    return torch.linspace(-extent, extent, n)[:, None]


def density_of(prior: Prior, z: Tensor) -> Tensor:
    with torch.no_grad():
        return (-prior.energy(z)).softmax(0)


def test_a_new_prior_is_its_reference():
    z = random.normal(7, 3, generator=random.seeded(8))
    torch.testing.assert_close(Prior(3).energy(z), energy.gaussian(z))
    assert torch.equal(Prior(3, reference="uniform").energy(z), torch.zeros(7))
    gaussian = Prior(3, depth=0)
    assert not list(gaussian.parameters())
    assert torch.equal(
        gaussian.sample(5, Langevin(steps=9, step=1.0), generator=random.seeded(9)), random.normal(5, 3, generator=random.seeded(9))
    )


def tilted(seed: int, **options) -> Prior:
    prior = Prior(1, width=16, depth=2, **options)
    with torch.no_grad():
        prior.net.last.weight.copy_(0.05 * random.normal(1, 16, generator=random.seeded(10, seed)))
    return prior


def test_the_loss_has_the_likelihood_gradient():
    """Against E_p[∇f] − E_data[∇f] by quadrature; an inverted sign would be twice its size away."""
    prior, z = tilted(0), grid()
    data = 1 + 0.5 * random.normal(4000, 1, generator=random.seeded(11))
    parameters = list(prior.parameters())
    p = density_of(prior, z)
    exact = torch.autograd.grad((p * prior.tilting(z)).sum() - prior.tilting(data).mean(), parameters)
    draws = z[torch.multinomial(p, 4000, replacement=True, generator=random.seeded(12))]
    found = torch.autograd.grad(prior.loss(data, draws)[0], parameters)
    flat = [torch.cat([g.flatten() for g in gradient]) for gradient in (exact, found)]
    assert float((flat[0] - flat[1]).norm()) < 0.1 * float(flat[0].norm())


@pytest.mark.parametrize("reference", ["normal", "uniform"])
def test_chains_sample_the_prior(reference):
    prior = tilted(1, reference=reference)
    z = grid(1.0) if reference == "uniform" else grid()
    p = density_of(prior, z)
    found = prior.sample(4000, Langevin(steps=150, step=0.2), generator=random.seeded(13))
    mean, second = float((p * z[:, 0]).sum()), float((p * z[:, 0].square()).sum())
    assert abs(float(found.mean()) - mean) < BOUND * float(found.std()) / math.sqrt(4000) + 0.01
    assert abs(float(found.square().mean()) - second) < BOUND * float(found.square().std()) / math.sqrt(4000) + 0.03
    assert reference == "normal" or float(found.abs().max()) <= 1


def test_reflection_keeps_the_box():
    z = torch.tensor([[0.3, 1.2, -1.4, 2.9]])
    torch.testing.assert_close(Prior(4, reference="uniform").inside(z), torch.tensor([[0.3, 0.8, -0.6, -0.9]]))
    assert Prior(4).inside(z) is z


def test_a_prior_learns_a_known_density():
    """Two modes at ±1.2 of std 0.4: KL of the truth to the prior, by quadrature, falls from that of the reference to near 0."""
    prior, z = Prior(1, width=16, depth=2), grid()
    truth = sum((-(z[:, 0] - m).square() / (2 * 0.4**2)).exp() for m in (-1.2, 1.2))
    truth = truth / truth.sum()

    def kl() -> float:
        return float((truth * (truth.clamp(min=1e-30).log() - density_of(prior, z).clamp(min=1e-30).log())).sum())

    before = kl()
    optimizer = torch.optim.Adam(prior.parameters(), lr=3e-3, betas=(0.5, 0.999))
    generator = random.seeded(14)
    samples = prior.draw_reference(256, generator)
    for i in range(400):
        sign = random.integers(256, 0, 2, generator=generator)[:, None] * 2 - 1
        data = 1.2 * sign + 0.4 * random.normal(256, 1, generator=generator)
        samples = prior.sample(256, Langevin(steps=4, step=0.25), start=samples, generator=generator)
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - i / 400)
        optimizer.zero_grad()
        prior.loss(data, samples)[0].backward()
        optimizer.step()
    assert before > 0.3 and kl() < 0.05
