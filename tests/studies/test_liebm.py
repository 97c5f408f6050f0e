"""The study of LIEBM: the paper's main claim in pairs that differ by the encoder alone, and a row of it at a tiny size."""

import pytest
import torch

import thalweg as tw
from studies import liebm


def options(*words: str):
    return liebm.STUDY.parser().parse_args(["claim", *words])


@pytest.mark.parametrize("data", ["digits", "fashion-mnist"])
def test_rows_with_and_without_latents_differ_by_the_encoder_alone(data):
    asked = options("--data", data, "--images", "1000")
    with_latents = [row for row in liebm.CLAIM if row.startswith(liebm.FULL)]
    assert 2 * len(with_latents) + 1 == len(liebm.CLAIM) == 2 * len(liebm.VARIANTS) + 1
    found = {}
    for row in with_latents:
        plain = row.replace(liebm.FULL, liebm.NONE)
        assert (liebm.CLAIM[row][0], liebm.CLAIM[plain][0]) == ("simclr", None)
        name, fields = liebm.claim_settings(row, asked)
        assert liebm.claim_settings(plain, asked) == (name, fields)
        found[row] = tw.method(name, **fields).config
    base = found[liebm.FULL]
    assert all(config.images == 1000 and config.concentration == 0.01 for config in found.values())
    # γ s², what latents have in a step, is the paper's in all rows
    shares = {config.concentration * config.concentration_step**2 for config in found.values()}
    assert shares == {1.0}
    assert found[f"{liebm.FULL}, moves unbounded"].chain.clip == 0 < base.chain.clip
    assert [found[f"{liebm.FULL}, step × {k}"].chain.step / base.chain.step for k in (3, 10)] == [3, 10]
    assert [row for row, config in found.items() if config.net.spectral_norm] == [row for row in found if "spectral norm" in row]
    assert all(config.chain.step == 10 for config in found.values() if config.net.spectral_norm)
    assert found[f"{liebm.FULL}, energies free"].regularise == 0
    name, fields = liebm.claim_settings(liebm.COTRAINED, asked)
    control = tw.method(name, **fields).config
    assert control.cotraining and control.encoder == tw.methods.preset(f"ssl/{data}")[1].encoder and not control.pretrained


def test_gamma_of_the_ablation_is_in_nats():
    for data in ("digits", "fashion-mnist"):
        name, fields = liebm.settings("γ = 0.1", options("--data", data))
        config = tw.method(name, **fields).config
        assert config.concentration * (config.concentration_step / config.chain.step) ** 2 == pytest.approx(0.1)


def test_a_pair_of_the_claim(tmp_path, monkeypatch):
    for name, value in (("DRAWN", 40), ("PROBED", 300), ("SAMPLES", 100), ("STOPS", 2)):
        monkeypatch.setattr(liebm, name, value)
    data = tw.data.load("digits", "train")
    small = dict(encoder=dict(widths=(8, 8), head=8, dim=4), batch=16, warm_up=0)
    tw.fit(tw.method("ssl/digits", **small), data, tmp_path / "encoder", images=16, progress=False)
    asked = options("--images", "256", "--work", str(tmp_path), "--pictures", str(tmp_path), "--encoder", str(tmp_path / "encoder"))
    rows = [{"row": row, "seed": 0} | liebm.claim_one(row, 0, asked) for row in (liebm.FULL, liebm.NONE)]
    for row in rows:
        assert row["diverged"] is None and [stop["images"] for stop in row["along"]] == [128, 256]
        assert row["best"] == min(stop["frechet"] for stop in row["along"]) <= row["frechet"]
        assert 0.5 < row["linear_probe"] <= 1 and 0.5 < row["knn"] <= 1 and ("encoder_knn" in row) == (row is rows[0])
        assert (tmp_path / f"liebm_digits_features_{row['row'].replace(' ', '')}.png").exists()
    assert rows[0]["latent_share"] > 0 and "latent_share" not in rows[1]
    assert torch.isfinite(torch.tensor([row["auroc_energy"] for row in rows])).all() and "auroc_joint" not in rows[1]
    lines = [liebm.claim_line(row["row"], [row], rows) for row in rows]
    assert lines[0]["above_latents"] is None and liebm.claim_line(liebm.COTRAINED, [], rows)["above_latents"] is None
    assert lines[1]["above_latents"] == pytest.approx(rows[1]["frechet"] - rows[0]["frechet"])
