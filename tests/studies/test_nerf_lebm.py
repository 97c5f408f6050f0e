"""The study of NeRF-LEBM: rays a second of its fields."""

from types import SimpleNamespace

import pytest
import torch

import thalweg as tw
from studies import nerf_lebm as study
from thalweg import random
from thalweg.methods.nerf_lebm import Pictures


@pytest.mark.parametrize("name", ["MLP of 4 layers of 64", "three planes of 32×32"])
def test_rays_a_second_are_counted(name, monkeypatch):
    monkeypatch.setattr(study, "LATENTS", 1)
    monkeypatch.setattr(study, "SIDE", 8)

    def in_turn(runs, rounds):
        for run in runs.values():
            run()
        return {}, {name: [0.5] * rounds for name in runs}

    monkeypatch.setattr(study, "seconds_in_turn", in_turn)
    found = study.rays_of(name, 1, "fp32")
    assert found["training"] == found["pictures"] == found["pictures_that_stop"] == 64 / 0.5


def test_every_field_of_the_study_is_a_spec():
    assert {tw.method("nerf_lebm/objects", field=field).config.field.kind for field in study.FIELDS.values()} == {
        "radiance_field",
        "tri_plane",
    }


def test_a_linear_factor_is_explained_and_noise_is_not():
    latent, noise = (torch.randn(400, 6, generator=random.seeded(171, i)) for i in range(2))
    factor = latent[:, :2] @ torch.tensor([[1.0, 0.5], [2.0, 0.0]]) + 3
    assert study.explained(latent, factor) > 0.999
    assert -0.3 < study.explained(noise, factor) < 0.05
    half = study.explained(latent, factor + factor.std() * torch.randn(400, 2, generator=random.seeded(172)))
    assert 0.3 < half < 0.6


def test_views_that_are_true_have_no_error(tmp_path, monkeypatch):
    """A model that renders the truth, and one that renders nothing."""
    monkeypatch.setenv("THALWEG_CACHE", str(tmp_path))
    test = tw.data.chairs("train", size=16, objects=5, views=6)
    rows = study.of_each(test)[:2, 2:6].flatten()
    mask = test.mask[rows].float()[:, None] / 255
    near = torch.where(test.depth[rows].isfinite(), test.depth[rows].float(), 0.0)[:, None]

    def against(x, depth, opacity):
        model = SimpleNamespace(render=lambda z_a, z_s, camera: Pictures(x, depth, opacity), optics=SimpleNamespace(far=5.0))
        return study.against_truth(model, test, (torch.zeros(4, 2), torch.zeros(4, 2)), 2)[0]

    found = against(test.all().x[rows], near * mask + 5 * (1 - mask), mask)
    assert found["two_shot_chain"] == 100 and found["ssim"] > 0.999 and found["mask_iou"] == 1 and found["depth_error"] < 2e-3
    white = against(torch.ones(8, 3, 16, 16), torch.full((8, 1, 16, 16), 5.0), torch.zeros(8, 1, 16, 16))
    assert white["two_shot_chain"] < 20 and white["mask_iou"] == 0


@pytest.mark.parametrize("name", ["chairs", "cars"])
def test_rows_of_categories_are_presets_and_their_fields(name):
    options = SimpleNamespace(images=32)
    for row in study.ROWS[name]:
        preset, fields = study.settings(name, row, options)
        assert tw.method(preset, **fields).config.data == name
    assert {row.removesuffix(", Gaussian prior") for row in study.ROWS[name]} <= set(study.ROWS[name])
