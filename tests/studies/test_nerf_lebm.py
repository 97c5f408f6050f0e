"""The study of NeRF-LEBM: rays a second of its fields, poses against truth, factors that are asked for and read from pictures."""

import math
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
    samples = 64 * 32 / 0.5  # a second; a layer's gradient has three products, that of its input too
    assert found["gflops"] * 1e9 > 2 * samples * 64 * 32, "one product of the colour's layer alone"


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


@pytest.mark.parametrize("name", ["chairs", "cars", "chairs_unposed", "cars_unposed"])
def test_rows_of_categories_are_presets_and_their_fields(name):
    options = SimpleNamespace(images=32)
    for row in study.ROWS[name]:
        preset, fields = study.settings(name, row, options)
        config = tw.method(preset, **fields).config
        assert config.data == name.removesuffix("_unposed") and (config.poses == "unknown") == name.endswith("_unposed")
    assert {row.removesuffix(", Gaussian prior") for row in study.ROWS[name]} <= set(study.ROWS[name])


def test_shares_within_15_degrees_are_up_to_one_rotation_and_mirror():
    truth = tw.random.uniform(1000, low=-math.pi, high=math.pi, generator=random.seeded(173))
    assert study.share_within(truth + 2, truth) == study.share_within(3 - truth, truth) == 1
    off = torch.where(torch.arange(1000) < 700, math.radians(14), math.pi / 2)
    side = torch.where(torch.arange(1000) % 2 == 0, off, -off)
    assert 0.69 < study.share_within(truth + side + 1, truth) < 0.71
    assert study.share_within(truth + side * 16 / 14, truth) < 0.4, "of errors of 16° one side at most, or neither"
    shuffled = truth[torch.randperm(1000, generator=random.seeded(174))]
    assert 1 / 12 < study.share_within(shuffled, truth) < 0.13


# --- composition


@pytest.fixture
def chairs(tmp_path, monkeypatch):
    monkeypatch.setenv("THALWEG_CACHE", str(tmp_path))
    return tw.data.chairs("train", size=16, objects=10, views=3)


def test_factors_are_read_from_the_data(chairs):
    has = study.factors_of(chairs)
    assert list(has) == list(study.ASKED["chairs"])
    f, values = chairs.factors, chairs.values
    for i in range(chairs.objects):
        assert bool(has["red"][i]) == (values["colour"][f["colour"][i]] == "red")
        assert bool(has["armed"][i]) == (values["arms"][f["arms"][i]] != "none")
        assert bool(has["tall"][i]) == (float(f["seat_height"][i] + f["back_height"][i]) > 1.25)
    code = study.code_of(has)
    assert torch.equal(code & 1, has["red"].long()) and torch.equal(code >> 2, has["armed"].long())


def test_a_reader_goes_by_all_pictures_of_an_object():
    """Two of three pictures say little for one combination, the third says much for another."""
    logits = torch.zeros(2, 3, 8)
    logits[0, :2, 0b001], logits[0, 2, 0b110] = 1.0, 5.0
    logits[1, :, 0b101] = 3.0
    reader = study.Reader.__new__(study.Reader)
    reader.names, reader.net = list("abc"), SimpleNamespace(logits=lambda x: logits.flatten(0, 1))
    assert {key: part.tolist() for key, part in reader(torch.zeros(2, 3, 3, 4, 4)).items()} == {
        "a": [False, True], "b": [True, False], "c": [True, True],
    }  # fmt: skip


def test_composed_objects_have_what_was_asked_for(chairs, tmp_path, monkeypatch):
    """Of a model whose pictures show its latents: with factors' energies of weight 3 nearly all, without them what the prior has."""
    monkeypatch.setattr(study, "COMPOSED_COUNT", 200)
    learner = {"kind": "semi_amortized", "chains": 1000, "inference": {"kind": "inference", "widths": (8,), "blocks": (0,)}}
    model = tw.method("nerf_lebm/objects", seed=0, dim_appearance=2, dim_shape=2, prior="gaussian", learner=learner)
    model.kept.z.copy_(torch.randn(1000, 4, generator=random.seeded(175)))

    def render(a, s, camera):
        shown = torch.stack([a[:, 0], s[:, 0], s[:, 1]], 1)[:, :, None, None].expand(-1, 3, 4, 4)
        return Pictures(shown.tanh(), shown[:, :1], shown[:, :1])

    def reader(x):
        seen = x.mean((1, 3, 4)).clamp(-0.999, 0.999).atanh()
        return {name: seen[:, i] > 0.5 for i, name in enumerate(("red", "tall", "armed"))}

    model.render = render
    has = {name: model.kept.z[:, i] > 0.5 for name, i in (("red", 0), ("tall", 2), ("armed", 3))}
    found = study.composed(model, has, reader, chairs, "chairs", 0, tmp_path / "shown.png")
    assert [line["asked"] for line in found["asked"]] == ["red", "tall", "armed", "red + tall", "red + tall + armed"]
    assert all(line["weight 3"] > 0.85 > line["prior"] + 0.3 for line in found["asked"]) and (tmp_path / "shown.png").exists()
    assert min(found["classifiers"].values()) > 0.85 and set(found["reader"]) == {"red", "tall", "armed"}
    summary = study.composition_line("chairs", [found, found], [])
    assert summary["asked"] == [pytest.approx(line) for line in found["asked"]]
    assert summary["least, weight 3"] == min(line["weight 3"] for line in found["asked"])


# --- cost


def test_the_cost_of_priors_is_a_share_of_a_step(monkeypatch):
    tiny = {"field.width": 8, "field.depth": 1, "renderer.samples": 2, "rays": 4, "batch": 2}
    seconds = {"step": 4.0, "chains": 0.5, "updates": 0.25, "images": 1.0}

    def in_turn(runs, rounds):
        for run in runs.values():
            run()
        return {}, {name: [seconds[name]] * rounds for name in runs}

    monkeypatch.setattr(study, "seconds_in_turn", in_turn)
    row = study.costs("objects", 1, tiny, "fp32")
    assert row["prior_chains"] == 0.125 and row["priors"] == 0.1875 and row["rendering_an_image"] == 0.5
    assert {name for name, _ in study.MEMORY} | {study.PAPER, study.PLANES} <= set(study.FIELDS)
    for preset, _, fields in study.STEPS:
        assert tw.methods.preset(f"nerf_lebm/{preset}")[1].views and set(fields) <= {"field", "batch"}
