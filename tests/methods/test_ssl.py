"""Self-supervised encoders: losses by hand, views, whitening; training, loading and bad input."""

import math

import pytest
import torch

import thalweg as tw
from thalweg import random
from thalweg.data import Images
from thalweg.errors import InputError
from thalweg.methods.ssl import byol, cosine_distance, nt_xent, w_mse, whiten

SMALL = dict(widths=(8, 16), head=16, dim=4, batch=32, images=128, warm_up=0)


def method(**fields):
    return tw.method("ssl/digits", seed=0, **(SMALL | fields))


def images(n: int = 64) -> Images:
    return Images(random.uniform(n, 1, 8, 8, low=-1.0, high=1.0, generator=random.seeded(1)), torch.arange(n) % 10)


def test_nt_xent_by_hand():
    """Two images in the plane; a and b agree, the other image is at a right angle: −log(e²/(e² + 2)) at temperature ½."""
    a = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    expected = -math.log(math.exp(2) / (math.exp(2) + 2))
    torch.testing.assert_close(nt_xent(a, 5 * a, 0.5), torch.tensor(expected))
    # views swapped between the images: each is at a right angle to its other view, and agrees with a wrong one
    torch.testing.assert_close(nt_xent(a, a.flip(0), 0.5), torch.tensor(-math.log(1 / (math.exp(2) + 2))))


def test_nt_xent_of_random_directions_is_log_of_the_others():
    """At a high temperature all 2B − 1 others are alike."""
    z = random.normal(16, 8, generator=random.seeded(2))
    assert abs(nt_xent(z, z.flip(0), 1e5).item() - math.log(31)) < 1e-3


def test_cosine_distance_is_two_less_twice_the_cosine():
    angle = torch.tensor([0.0, 1.0, math.pi])
    a, b = torch.stack([angle.cos(), angle.sin()], 1), torch.tensor([[2.0, 0.0]]).expand(3, 2)
    torch.testing.assert_close(cosine_distance(3 * a, b), 2 - 2 * angle.cos())
    torch.testing.assert_close(cosine_distance(a, b / 2), (a - b / 2).square().sum(1))


def test_whitening_gives_identity_covariance():
    g = random.seeded(3)
    z = random.normal(200, 5, generator=g) @ random.normal(5, 5, generator=g) + 7
    white = whiten(z.double())
    torch.testing.assert_close(white.mean(0), torch.zeros(5, dtype=torch.double), atol=1e-9, rtol=0)
    torch.testing.assert_close(torch.cov(white.T), torch.eye(5, dtype=torch.double), atol=1e-9, rtol=0)


def test_byol_by_hand():
    """Each view predicts the other's target: with the identity as predictor a sum of two cosine distances."""
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    torch.testing.assert_close(byol(torch.nn.Identity(), a, b, 3 * a, b), torch.tensor(4.0))
    torch.testing.assert_close(byol(torch.nn.Identity(), a, b, b, a), torch.tensor(0.0))


def test_w_mse_whitens_parts_of_each_view():
    a, b = (random.normal(12, 2, generator=random.seeded(key)) for key in (20, 21))
    expected = torch.cat([cosine_distance(whiten(a[part]), whiten(b[part])) for part in (slice(0, 6), slice(6, 12))]).mean()
    torch.testing.assert_close(w_mse(a, b, 6), expected)


def test_training_with_simclr_tells_images_from_each_other():
    """Sixteen images, seen again and again: a new view is found again among new views of all of them."""
    data, m = images(16), method(crop=0.8, batch=16, images=16 * 30, lr=3e-3, flip=0.0)
    x = data.all().x
    found = tw.fit(m, data, progress=False, ema_decay=0.9)
    a, b = (found.project(found.config.augmentation(x, random.seeded(key))) for key in (10, 11))
    torch.testing.assert_close(a.norm(dim=1), torch.ones(16))
    assert found.encode(x).shape == (16, 16)
    # one in sixteen by chance, with a standard error of 0.06
    assert ((a @ b.T).argmax(1) == torch.arange(16)).float().mean() > 1 / 16 + 4.5 * 0.06


@pytest.mark.parametrize("fields", [{"loss": "byol"}, {"loss": "w-mse", "whiten_size": 16}], ids=["byol", "w-mse"])
def test_the_other_losses_train(fields):
    m = method(**fields)
    before = m.encoder.head[0].weight.clone()
    found = tw.fit(m, images(), images=64, progress=False)
    assert not torch.equal(m.encoder.head[0].weight, before) and found.project(images(4).all().x).isfinite().all()


def test_byol_learns_the_online_network_alone():
    m = method(loss="byol")
    a, b = (m.encoder(x) for x in images(4).all().x[None].expand(2, -1, -1, -1, -1))
    views, target = [images(4).all().x] * 2, method(loss="byol")
    m.loss(a, b, views, target).backward()
    assert all(p.grad is None for p in target.parameters()) and all(p.grad is not None for p in m.parameters())


def test_a_resumed_run_is_bit_equal_and_loads(tmp_path):
    whole = tw.fit(method(), images(), images=128, progress=False)
    tw.fit(method(), images(), tmp_path / "run", images=64, progress=False)
    resumed = tw.fit(method(), images(), tmp_path / "run", images=128, progress=False)
    x = images().all().x
    assert torch.equal(whole.project(x), resumed.project(x))
    assert torch.equal(tw.load(tmp_path / "run").project(x), resumed.project(x))
    tw.save_pretrained(resumed, tmp_path / "exported")
    assert torch.equal(tw.load(tmp_path / "exported").encode(x), resumed.encode(x))


def test_the_metrics_that_fit_an_encoder_are_of_its_latents():
    from thalweg.metrics import METRICS

    assert [name for name, metric in METRICS.items() if metric.fits(method())] == ["latents"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shape": (2,)}, "random views are of images"),
        ({"batch": 1}, "a batch of 2 or more"),
        ({"loss": "w-mse", "whiten_size": 20}, "divides by whiten_size"),
        ({"loss": "w-mse", "whiten_size": 4}, "above dim"),
        ({"softmax_temperature": 0.0}, "softmax_temperature"),
        ({"loss": "moco"}, "loss"),
    ],
)
def test_bad_input_gets_one_message(fields, message):
    with pytest.raises(InputError, match=message):
        method(**fields)


def test_an_encoder_has_no_samples_and_takes_its_own_images():
    with pytest.raises(InputError, match="no samples"):
        method().sample(2)
    with pytest.raises(InputError, match="needs images"):
        method().project(torch.zeros(2, 1, 9, 9))
