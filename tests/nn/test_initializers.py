"""Specs of initializers: what they build for images and vectors, the shapes of their latents, and what they refuse."""

import pytest
import torch

from thalweg.errors import InputError
from thalweg.nn.flow import ImageFlow, VectorFlow
from thalweg.nn.initializers import Flow, Generator, Noise

IMAGE, VECTOR = (1, 8, 8), (5,)
FLOW = Flow(couplings=1, width=8, mixtures=2, grey_values=17, dequantisation="uniform")


def test_a_flow_is_of_images_or_of_vectors():
    images, vectors = FLOW.build(IMAGE), FLOW.build(VECTOR, std=3.0)
    assert isinstance(images, ImageFlow) and images.grey_values == 17 and images.dequantisation is None
    assert isinstance(vectors, VectorFlow) and vectors.scale == 3.0
    for net, shape in ((images, IMAGE), (vectors, VECTOR)):
        assert FLOW.latent_shape(shape) == shape
        z = torch.randn(4, *shape)
        torch.testing.assert_close(net.encode(net.decode(z))[0], z, rtol=0, atol=1e-3)


@pytest.mark.parametrize("coupling", ["spline", "affine"])
def test_couplings_of_vectors(coupling):
    net = Flow(couplings=2, width=8, mixtures=3, coupling=coupling).build(VECTOR)
    z, log_det = net.encode(torch.randn(4, *VECTOR))
    assert z.shape == (4, *VECTOR) and log_det.shape == (4,)


@pytest.mark.parametrize("shape", [IMAGE, VECTOR])
def test_a_generator_has_latents_of_its_own(shape):
    spec = Generator(latent_dim=3, width=8)
    assert spec.latent_shape(shape) == (3,) and spec.build(shape)(torch.randn(4, 3)).shape == (4, *shape)


def test_noise_has_no_network():
    assert Noise().build(IMAGE) is None and Noise().latent_shape(IMAGE) == IMAGE


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Flow(scales=4).build(IMAGE), "a flow of 4 scales needs height and width that divide by 16, got 8×8"),
        (lambda: Generator(width=3).build(IMAGE), "must be divisible by num_groups"),
    ],
)
def test_what_does_not_fit_is_wrong_input(make, message):
    with pytest.raises(InputError, match=message):
        make()
