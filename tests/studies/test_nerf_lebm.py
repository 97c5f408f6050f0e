"""The study of NeRF-LEBM: rays a second of its fields."""

import pytest

from studies import nerf_lebm as study


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
    assert {study.tw.method("nerf_lebm/objects", field=field).config.field.kind for field in study.FIELDS.values()} == {
        "radiance_field",
        "tri_plane",
    }
