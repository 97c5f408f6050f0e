"""The detector: scikit-learn's own checks, the promise, what it notices, and that it survives a disk."""

import json
import pickle
import warnings

import numpy
import pandas
import pytest
from sklearn.base import clone
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import thalweg as tw
from thalweg.detect.detector import describe
from thalweg.detect.promise import Martingale
from thalweg.errors import InputError

QUICK = dict(members=2, updates=60, random_state=0)


def rows(n: int, seed: int = 0) -> numpy.ndarray:
    """Two columns that go together within 0.1, a ring of radius 3 in two others."""
    draw = numpy.random.default_rng(seed)
    first, angle = draw.normal(size=n), draw.uniform(0, 2 * numpy.pi, n)
    ring = 3 * numpy.stack([numpy.cos(angle), numpy.sin(angle)], 1) + 0.1 * draw.normal(size=(n, 2))
    return numpy.column_stack([first, first + 0.1 * draw.normal(size=n), ring])


@pytest.fixture(scope="module")
def detector() -> tw.EnergyDetector:
    return tw.EnergyDetector(members=3, updates=400, random_state=0).fit(rows(600))


def test_every_check_of_scikit_learn_passes() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(tw.EnergyDetector(members=2, updates=15), on_fail=None, on_skip=None)
    failed = [(result["check_name"], result["exception"]) for result in results if result["status"] == "failed"]
    assert len(results) > 40 and not failed
    # asks for a setting of SciPy, of whoever runs it
    assert {result["check_name"] for result in results if result["status"] == "skipped"} <= {"check_array_api_input"}


def test_false_alarms_on_new_inliers_are_as_promised(detector: tw.EnergyDetector) -> None:
    p = detector.p_value(rows(4000, seed=1))
    for alpha in (0.01, 0.05, 0.1):
        assert (p <= alpha).sum() <= detector.conformal_.false_alarms(alpha, 4000, confidence=0.999)
    # and not by flagging nothing
    assert (p <= 0.1).mean() > 0.04 and (p <= 0.5).mean() > 0.4


def test_one_member_alone_judges_new_rows_as_those_that_it_left_out(detector: tw.EnergyDetector) -> None:
    """Their ranks are uniform within the bounds of both samples, and a test for drift finds none in 4,000 of them."""
    found = detector.alone(rows(4000, seed=4))
    assert len(detector.left_out_) == 200
    ranks = numpy.searchsorted(numpy.sort(detector.left_out_), found) / 200
    assert abs(ranks.mean() - 0.5) < 4 * (1 / 12 * (1 / 200 + 1 / 4000)) ** 0.5
    assert Martingale(detector.left_out_).update(found)[-1] > 0.01
    assert Martingale(detector.left_out_).update(detector.alone(rows(4000, seed=4) * 1.1))[-1] < 0.01


def test_scores_and_p_values_come_together(detector: tw.EnergyDetector) -> None:
    some = rows(50, seed=5)
    scores, p = detector.judge(some)
    assert (scores == detector.score_samples(some)).all() and (p == detector.p_value(some)).all()


def test_predict_is_the_p_value_at_the_rate_asked_for(detector: tw.EnergyDetector) -> None:
    new = numpy.concatenate([rows(500, seed=2), rows(100, seed=3) + 0.5])
    assert ((detector.predict(new) == -1) == (detector.p_value(new) <= 0.05)).all()
    assert (detector.predict(rows(600)) == -1).sum() == 30 == detector.labels_.sum()
    assert ((detector.p_value(rows(600)) <= 0.05) == (detector.labels_ == 1)).all()


def test_rows_of_the_fit_are_judged_by_members_that_have_not_seen_them(detector: tw.EnergyDetector) -> None:
    fit, new = detector.score_samples(rows(600)), detector.score_samples(rows(4000, seed=4))
    error = numpy.hypot(fit.std() / 600**0.5, new.std() / 4000**0.5)
    # members that have left a row out are no better than all of them together, by a part of the members' own spread
    assert fit.mean() < new.mean() + 4 * error and fit.mean() > new.mean() - 0.15 * new.std() - 4 * error
    numpy.testing.assert_array_equal(-fit, detector.decision_scores_)


def test_unusual_rows_are_found_and_explained(detector: tw.EnergyDetector) -> None:
    torn, inside = [1.0, -1.0, 3.0, 0.0], [0.0, 0.0, 1.0, 0.5]
    assert (detector.predict([torn, inside]) == -1).all() and (detector.p_value([torn, inside]) < 0.03).all()
    pulls = detector.explain([torn, inside])
    assert pulls.shape == (2, 4)
    assert pulls[0, :2].sum() > 4 * abs(pulls[0, 2:]).sum() and pulls[1, 2:].sum() > 4 * abs(pulls[1, :2]).sum()


def test_a_row_s_pulls_add_up_to_what_it_is_stranger_than_the_usual_row(detector: tw.EnergyDetector) -> None:
    import torch

    new = rows(20, seed=5) + 0.3
    x = torch.from_numpy(detector.columns_.encode(new)).float()
    usual = detector.ensemble_.usual(x)
    here, there = (tw.detect.scores.strangeness(detector.ensemble_.energies(part), detector.usual_) for part in (x, usual))
    numpy.testing.assert_allclose(detector.explain(new).sum(1), (here - there).numpy(), rtol=0.15, atol=0.2)


def test_the_density_of_a_gaussian_is_its_own() -> None:
    draw = numpy.random.default_rng(0)
    found = tw.EnergyDetector(members=2, updates=200, random_state=0).fit(draw.normal(size=(2000, 3)))
    new = draw.normal(size=(2000, 3))
    sigma = 0.5
    spread = 1 + sigma**2  # columns are divided by their own deviation, which is 1 within two per cent
    truth = -0.5 * (new**2 / spread + numpy.log(2 * numpy.pi * spread)).sum(1)
    gap = found.log_density(new, sigma=sigma) - truth
    assert abs(gap.mean()) < 0.05 and gap.std() < 0.25


def test_sensitivity_says_what_is_noticed(detector: tw.EnergyDetector) -> None:
    shares = detector.sensitivity_
    assert set(shares) == set(tw.detect.scores.DISTURBANCES) and all(0 <= share <= 1 for share in shares.values())
    assert shares["one value moved"] > 0.5 and shares["half of it from another row"] > 0.4
    assert "about 0.05 are flagged" in describe(detector)


def test_tables_of_all_kinds_of_columns() -> None:
    draw = numpy.random.default_rng(0)
    colour = draw.choice(["red", "green", "blue"], 400)
    price = numpy.where(colour == "red", 10.0, 20.0) + draw.normal(size=400)
    table = pandas.DataFrame({"price": price, "colour": colour, "when": pandas.date_range("2024", periods=400, freq="h")})
    table.loc[::10, "price"] = numpy.nan
    found = tw.EnergyDetector(members=2, updates=300, random_state=0).fit(table)
    assert list(found.feature_names_in_) == ["price", "colour", "when"]
    usual = pandas.DataFrame({"price": [10.0, 20.0], "colour": ["red", "blue"], "when": ["2024-01-05", "2024-01-05"]})
    strange = pandas.DataFrame({"price": [20.0, 15.0], "colour": ["red", "mauve"], "when": ["2024-01-05", "2024-01-05"]})
    assert found.score_samples(usual).min() > found.score_samples(strange).max()
    assert found.explain(strange)[1].argmax() == 1
    with pytest.raises(InputError, match="now missing:\n- colour"):
        found.predict(usual.drop(columns="colour"))


def test_the_same_seed_gives_the_same_detector() -> None:
    one, two, other = (tw.EnergyDetector(members=2, updates=40, random_state=seed).fit(rows(100)) for seed in (0, 0, 1))
    numpy.testing.assert_array_equal(one.decision_scores_, two.decision_scores_)
    assert (one.decision_scores_ != other.decision_scores_).any()


def test_it_works_as_other_estimators_do() -> None:
    detector = tw.EnergyDetector(**QUICK)
    assert clone(detector).get_params() == detector.get_params()
    found = pickle.loads(pickle.dumps(detector.fit(rows(100))))
    numpy.testing.assert_array_equal(found.predict(rows(100)), detector.predict(rows(100)))
    assert make_pipeline(StandardScaler(), tw.EnergyDetector(**QUICK)).fit(rows(100)).predict(rows(5, seed=1)).shape == (5,)
    labels = numpy.r_[numpy.ones(60), -numpy.ones(20)]
    mixed = numpy.concatenate([rows(60), rows(20) + 2])
    found_in_parts = cross_val_score(tw.EnergyDetector(**QUICK), mixed, labels, cv=StratifiedKFold(2), scoring="roc_auc")
    assert found_in_parts.shape == (2,) and (found_in_parts >= 0).all()
    probabilities = found.predict_proba(rows(5, seed=1))
    numpy.testing.assert_allclose(probabilities.sum(1), 1)


def test_what_is_saved_is_what_is_loaded(detector: tw.EnergyDetector, tmp_path) -> None:
    new = numpy.concatenate([rows(50, seed=6), rows(50)])
    folder = detector.save(tmp_path / "detector")
    found = tw.EnergyDetector.load(folder)
    for use in ("score_samples", "predict", "p_value", "explain", "alone"):
        numpy.testing.assert_array_equal(getattr(found, use)(new), getattr(detector, use)(new))
    assert found.sensitivity_ == detector.sensitivity_ and found.threshold_ == detector.threshold_
    numpy.testing.assert_array_equal(found.left_out_, detector.left_out_)
    assert sorted(path.name for path in folder.iterdir()) == ["detector.json", "model.safetensors"]
    detector.save(folder)  # over itself


def test_a_damaged_detector_is_refused(detector: tw.EnergyDetector, tmp_path) -> None:
    with pytest.raises(InputError, match="no detector"):
        tw.EnergyDetector.load(tmp_path / "nothing")
    folder = detector.save(tmp_path / "detector")
    content = json.loads((folder / "detector.json").read_text())
    for changed in ({**content, "networks": 9}, {**content, "columns": {}}, {"thalweg": "0"}, [], {**content, "parameters": {}}):
        (folder / "detector.json").write_text(json.dumps(changed))
        with pytest.raises(InputError, match="corrupt"):
            tw.EnergyDetector.load(folder)
    (folder / "detector.json").write_text(json.dumps(content))
    other = tw.EnergyDetector(**QUICK).fit(rows(40)).save(tmp_path / "other")
    (folder / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    with pytest.raises(InputError, match="not of one detector"):
        tw.EnergyDetector.load(folder)
    (folder / "model.safetensors").write_bytes(b"\x80\x04")
    with pytest.raises(InputError, match="cannot be read"):
        tw.EnergyDetector.load(folder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("do not overwrite")
    with pytest.raises(InputError, match="other files"):
        detector.save(tmp_path / "mine")


def test_too_few_rows_for_the_rate_are_said() -> None:
    with pytest.warns(UserWarning, match="needs at least 99 rows, there are 40"):
        found = tw.EnergyDetector(contamination=0.01, **QUICK).fit(rows(40))
    assert (found.predict(rows(40, seed=1) + 100) == 1).all() and found.notes_


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (dict(contamination=0.0), "contamination"), (dict(contamination=0.6), "contamination"), (dict(seconds=0), "seconds"),
        (dict(members=1), "members"), (dict(updates=0), "updates"), (dict(members=2.5), "members"),
    ],
)  # fmt: skip
def test_parameters_out_of_range_are_refused(parameters: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tw.EnergyDetector(**parameters).fit(rows(40))


def test_what_cannot_be_learned_is_refused() -> None:
    for table, message in (
        (numpy.zeros((1, 3)), "minimum of 2"), (rows(40)[:, 0], "Expected 2D"),
        (numpy.full((20, 2), numpy.inf), "infinity"), (numpy.random.default_rng(0).normal(size=(20, 5000)), "5,000"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            tw.EnergyDetector(**QUICK).fit(table)


def test_time_is_kept() -> None:
    import time

    start = time.perf_counter()
    tw.EnergyDetector(seconds=1.0, members=2, updates=100_000, random_state=0).fit(rows(200))
    assert time.perf_counter() - start < 20
