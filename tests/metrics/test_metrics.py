"""`thalweg evaluate`: every metric on a small model that fits it, one table for several models, and what holds them equal."""

import dataclasses
import inspect
import json
import math

import pytest
import torch

import thalweg as tw
from thalweg import metrics
from thalweg.commands import evaluate
from thalweg.commands.main import main
from thalweg.config import changed
from thalweg.methods import preset
from thalweg.methods.base import ABILITIES
from thalweg.metrics import METRICS, Row, Settings, Subject, best, chosen, compare, likelihood, rows
from thalweg.nn.build import ConvNet


@pytest.fixture(autouse=True)
def few_walks(monkeypatch):
    """How near bounds of log Z are is tested with those of `evaluate`."""
    monkeypatch.setattr(likelihood, "CHAINS", 8)
    monkeypatch.setattr(likelihood, "TEMPERATURES", 20)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Two runs of egc on digits that have seen a few batches, with different seeds."""
    folder = tmp_path_factory.mktemp("measure")
    for seed in (0, 1):
        method = tw.method("egc/digits", seed=seed, width=16, blocks=1, levels=20, sample_steps=3, batch=32, images=96)
        tw.fit(method, tw.data.load("digits"), out=folder / f"run{seed}", seed=seed, progress=False)
    return folder


def test_the_help_names_every_metric():
    assert all(name in inspect.getsource(evaluate.Options) for name in METRICS)


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_asks_for_abilities_that_there_are(name):
    metric = METRICS[name]
    assert metric.needs and set(metric.needs) <= set(ABILITIES) and set(metric.data) <= {"toy", "images", "stacks", "vectors"}


def subject(method, folder=None, **settings) -> Subject:
    return Subject(method, Settings(**({"n": 100} | settings)), folder)


def toy_model():
    return tw.method("short_run/8gaussians", width=16, steps=2, sample_steps=5, batch=16, images=32, buffer=64)


def names(table: list[Row]) -> list[str]:
    return [row.name for row in table]


@pytest.mark.parametrize("metric", [name for name in METRICS if name not in ("density", "modes", "vectors", "views")])
def test_each_metric_of_images_gives_rows_pictures_and_json(metric, digits, tmp_path):
    s = subject(tw.load(digits / "run0"), tmp_path)
    found = metrics.measure(s, (metric,))
    assert list(found) == ["settings", metric]
    json.dumps(found, allow_nan=False)
    table = rows(found)
    assert table and all(row.text and row.value is not None for row in table)
    assert all(row.low is None or row.low <= row.value <= row.high for row in table)
    drawn = {path.name for path in tmp_path.glob("*.png")}
    assert drawn == {path.name for _, path in s.pictures}
    assert len(drawn) == {"ood": 5, "fidelity": 2, "restoration": 3, "cost": 0, "accuracy": 0, "likelihood": 0}.get(metric, 1)


def test_a_normalised_energy_has_its_exact_likelihood():
    m = tw.method("ddaebm/digits-nice", seed=0, **{"net.width": 8, "net.depth": 1, "encoder.width": 8, "encoder.depth": 1})
    s = subject(m)
    found = metrics.measure(s, ("likelihood",))
    assert "log_partition" not in found["likelihood"]
    noise = tw.random.uniform(*s.test.x.shape, generator=tw.random.seeded(s.settings.seed, 12))
    with torch.no_grad():
        wanted = m.log_prob(m.dequantise(s.test.x, noise)).mean()
    (row,) = rows(found)
    assert row.value == pytest.approx(float(wanted), rel=1e-5) and row.low < row.value < row.high and "exact" in row.note


def test_metrics_of_a_toy(tmp_path):
    s = subject(toy_model(), tmp_path, n=64)
    assert chosen(s.method, ("auto",)) == ("density", "cost") and chosen(s.method, ("all",)) == ("density", "cost", "likelihood")
    table = rows(metrics.measure(s, ("auto",)))
    assert names(table)[:2] == ["KL(truth‖model)", "KL(model‖truth)"] and "network evaluations a sample" in names(table)
    assert [path.name for _, path in s.pictures] == ["density.png"]


def test_modes_of_stacks():
    kind, config = preset("short_run/digits")
    small = dict(net=ConvNet(widths=(8, 8)), steps=1, sample_steps=1, buffer=128)
    method = kind(changed(config, data="stacked-digits", shape=(3, 8, 8), classes=1000, **small))
    assert chosen(method, ("auto",)) == ("ood", "modes", "cost")
    found = metrics.measure(subject(method, n=64), ("modes",))
    (modes, kl) = rows(found)
    assert modes.name == "modes covered of 1000" and 1 <= modes.value <= 64 and kl.value > 0


def test_a_metric_that_does_not_fit_is_refused():
    with pytest.raises(tw.InputError, match="'accuracy' does not fit short_run on 8gaussians; fitting are: density, cost, likelihood"):
        chosen(toy_model(), ("accuracy",))


def test_outliers_from_other_data(digits, tmp_path):
    x = torch.rand(30, 3, 12, 12, generator=tw.random.seeded(3)) * 2 - 1
    import numpy as np

    np.savez(tmp_path / "other.npz", x=x.numpy())
    found = METRICS["ood"].measure(subject(tw.load(digits / "run0"), outliers=(str(tmp_path / "other.npz"),)))
    assert set(found) == set(tw.evaluate.SCORES)
    report = found["energy"][str(tmp_path / "other.npz")]
    assert report["inliers"] == 359 and 1 <= report["outliers"] <= 30


def test_best_of_a_line():
    def row(value: float, better: str) -> Row:
        return Row("a", str(value), "", value, None, None, better)

    assert best([row(1, "up"), row(3, "up"), None, row(3, "up")]) == {1, 3}
    assert best([row(1, "down"), row(3, "down")]) == {0}
    assert best([row(1, "down"), row(1, "down")]) == set() == best([row(1, ""), row(2, "")]) == best([None, row(1, "up")])


def test_compare_prints_and_draws_one_table(digits, tmp_path, capsys):
    one, two = str(digits / "run0"), str(digits / "run1")
    out = tmp_path / "compared.json"
    assert main(["evaluate", "--compare", one, two, "--metrics", "accuracy,fidelity", "--n", "100", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "test accuracy" in said and "100 samples each, seed 0, extractor classifier" in said
    assert "frechet[" in said and "[digits-" in said.replace("\n", "")  # brackets are no markup
    results = json.loads(out.read_text())
    assert list(results) == [one, two] and results[one]["settings"] == results[two]["settings"]
    lines = dict(compare(results))
    for run, row in zip((one, two), lines["test accuracy"]):
        assert row.value == results[run]["accuracy"]["value"] and row.text in said
    assert out.with_suffix(".png").stat().st_size > 5_000
    alone = json.loads((digits / "run1" / "metrics.json").read_text())
    assert alone["accuracy"] == results[two]["accuracy"]  # each run keeps its own as well


def test_denoising_of_a_gaussian_is_the_posterior_mean():
    """An untrained egc is the exact energy of Gaussian data of `data_std` s: E[x | y] = y s²/(s² + std²)."""
    method = tw.method("egc/digits", width=16, blocks=1)
    with torch.no_grad():
        method.net.vector.weight.zero_()  # the class scores start small, not at zero
    y = tw.random.normal(50, 1, 8, 8, generator=tw.random.seeded(5))
    for std in (0.1, 0.5, 2.0):
        ratios = [b / a for a, b in zip(method.schedule.signal[1:], method.schedule.noise[1:])]
        nearest = min(ratios, key=lambda r: abs(math.log(r / std)))
        assert abs(nearest / std - 1) < 0.05  # the noise of the level that stands for std
        s2 = method.config.data_std**2
        torch.testing.assert_close(method.denoise(y, std), y * s2 / (s2 + nearest**2), rtol=1e-3, atol=1e-4)


def test_denoising_by_langevin_agrees_with_a_gaussian_posterior():
    """A flat network tilting N(0, 1): the mean of its posterior chain is y/(1 + std²) within the chains' own spread."""
    method = tw.method("short_run/latent", width=8, depth=1)
    with torch.no_grad():
        method.net.last.weight.zero_()
    y = tw.random.normal(4000, 2, generator=tw.random.seeded(6))
    std = 0.5
    x = method.denoise(y, std, steps=200, seed=1)
    slope = float((x * y).sum() / y.square().sum())
    error = float((x - y / (1 + std**2)).std()) / float(y.square().sum().sqrt())
    assert abs(slope - 1 / (1 + std**2)) < 4.5 * error and error < 0.01


@pytest.mark.parametrize("name", ["egc/digits", "short_run/digits"])
def test_denoise_refuses_no_noise(name):
    method = tw.method(name, **({"width": 16, "blocks": 1} if "egc" in name else {"widths": (8, 8), "buffer": 128}))
    with pytest.raises(tw.InputError, match="denoise needs std above 0"):
        method.denoise(torch.zeros(2, 1, 8, 8), 0.0)


def test_the_class_scores_are_linear_in_what_is_encoded():
    """`encode` is the input of the last linear layer: a change of that layer's bias moves scores, not codes."""
    method = tw.method("egc/digits", width=16, blocks=1)
    x = tw.random.uniform(5, 1, 8, 8, low=-1.0, high=1.0, generator=tw.random.seeded(8))
    code = method.encode(x)
    assert code.shape == (5, 256) and not code.requires_grad
    scores = method.net(*_network_input(method, x))[1]
    torch.testing.assert_close(code @ method.net.vector.weight.T + method.net.vector.bias, scores)


def _network_input(method, x):
    seen = []
    hook = method.net.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    method.classify(x)
    hook.remove()
    return seen[0]


class Wide(torch.nn.Module):
    """An extractor with more features than digits has test images."""

    name, num_features, preprocessing = "wide", 500, "none"

    def features(self, images, *, batch=512):
        return images.flatten(1).repeat(1, 8)[:, : self.num_features]


def test_fidelity_leaves_the_covariances_out_where_features_outnumber_images(digits):
    s = subject(tw.load(digits / "run0"), extractor="efficientnet-lite0")
    s.__dict__["extractor"] = Wide()
    named = names(rows(metrics.measure(s, ("fidelity",))))
    assert "kid[wide], samples" in named and not any(name.startswith("frechet") for name in named)


def test_the_features_of_one_class_are_those_of_the_whole_set():
    method = tw.method(
        "short_run/digits", data=tw.data.load("digits:3"), **{"widths": (8, 8), "steps": 1, "sample_steps": 1, "buffer": 128}
    )
    method.config = dataclasses.replace(method.config, data="digits:3")
    own, whole = subject(method).extractor, subject(tw.method("egc/digits", width=16, blocks=1)).extractor
    x = tw.data.load("digits", "test").all().x[:8]
    assert torch.equal(own(x), whole(x))


def test_bits_are_quoted_with_the_data_s_own_grey_values():
    """Digits have 17 grey values, 0.125 apart, not 256: bins of 2/255 would tell 3.99 bits more."""
    method = tw.method("egc/digits", **{"net.width": 8, "net.blocks": 1}).eval()
    measured = METRICS["likelihood"].measure(Subject(method, Settings(n=64)))
    found = measured["log_likelihood"]
    assert (found["bin_width"], found["grey_values"]) == (0.125, 17)
    nats = found["value"]["value"]
    assert found["bits_per_dimension"] == pytest.approx(-nats / (64 * math.log(2)) + 3)
    rows = METRICS["likelihood"].rows(measured)
    assert "bits a dimension of 17 grey values, dequantised" in rows[0].note


def test_continuous_values_have_nats_and_no_bits():
    found = METRICS["likelihood"].measure(Subject(tw.method("short_run/moons").eval(), Settings(n=64)))
    assert found["log_likelihood"]["bits_per_dimension"] is None and math.isfinite(found["log_likelihood"]["value"]["value"])
    assert "continuous values, so no bits a dimension" in METRICS["likelihood"].rows(found)[0].note
