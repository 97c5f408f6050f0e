"""The detector with PyOD's signs: by PyOD's own formulas, and by PyOD itself where it is installed."""

import importlib.util

import numpy
import pandas
import pytest
from scipy.special import erf
from scipy.stats import binom
from sklearn.base import clone, is_outlier_detector
from sklearn.exceptions import NotFittedError

import thalweg as tw
from thalweg.detect.pyod import PyODDetector
from thalweg.errors import InputError

QUICK = dict(members=2, updates=40, random_state=0)


def rows(n: int, seed: int = 0) -> numpy.ndarray:
    draw = numpy.random.default_rng(seed)
    first = draw.normal(size=n)
    return numpy.column_stack([first, first + 0.1 * draw.normal(size=n), draw.normal(size=n)])


@pytest.fixture(scope="module")
def detector() -> PyODDetector:
    return PyODDetector(**QUICK).fit(rows(200))


@pytest.fixture(scope="module")
def new() -> numpy.ndarray:
    return numpy.concatenate([rows(40, seed=1), [[1.0, -1.0, 0.0], [9.0, 9.0, 9.0]]])


def test_scores_are_higher_for_outliers_and_labels_are_1(detector, new) -> None:
    scores = detector.decision_function(new)
    assert scores[-2:].min() > numpy.median(scores[:-2]) and scores.shape == (42,)
    labels = detector.predict(new)
    assert set(labels) == {0, 1} and (labels == (scores > detector.threshold_)).all() and labels[-2:].tolist() == [1, 1]


def test_what_is_known_of_the_fit_is_as_in_pyod(detector) -> None:
    assert detector.contamination == 0.1 and detector.decision_scores_.shape == (200,)
    numpy.testing.assert_array_equal(detector.decision_function(rows(200)), detector.decision_scores_)
    assert (detector.labels_ == (detector.decision_scores_ > detector.threshold_)).all() and detector.labels_.sum() == 20
    numpy.testing.assert_array_equal(detector.predict(rows(200)), detector.labels_)
    numpy.testing.assert_array_equal(clone(detector).fit_predict(rows(200)), detector.labels_)


def test_probabilities_and_confidence_are_pyods_formulas(detector, new) -> None:
    scores, known = detector.decision_function(new), detector.decision_scores_
    linear = ((scores - known.min()) / (known.max() - known.min())).clip(0, 1)
    unified = erf((scores - known.mean()) / (known.std() * 2**0.5)).clip(0, 1)
    for method, wanted in (("linear", linear), ("unify", unified)):
        found = detector.predict_proba(new, method=method)
        numpy.testing.assert_allclose(found, numpy.column_stack([1 - wanted, wanted]), atol=1e-12)
    posterior = (1 + (known[:, None] <= scores).sum(0)) / (2 + 200)
    outlier = 1 - binom.cdf(200 - 20, 200, posterior)
    labels, confidence = detector.predict(new, return_confidence=True)
    numpy.testing.assert_allclose(confidence, numpy.where(labels == 1, outlier, 1 - outlier), atol=1e-12)
    numpy.testing.assert_array_equal(detector.predict_confidence(new), confidence)
    numpy.testing.assert_array_equal(detector.predict_proba(new, return_confidence=True)[1], confidence)
    assert labels[-1] == 1 and confidence[-1] > 0.9  # nine deviations away
    with pytest.raises(InputError, match="linear or unify, got 'log'"):
        detector.predict_proba(new, method="log")


def test_pyod_s_own_methods_say_the_same(detector, new) -> None:
    if importlib.util.find_spec("pyod") is None:  # its formulas are those of the test above
        return
    from pyod.models.base import BaseDetector

    class Theirs(BaseDetector):
        def __init__(self) -> None:
            super().__init__(contamination=detector.contamination)

        def fit(self, X, y=None):
            self.decision_scores_ = detector.decision_scores_
            self._set_n_classes(y)
            self._process_decision_scores()
            self.threshold_ = detector.threshold_
            return self

        def decision_function(self, X):
            return detector.decision_function(X)

    theirs = Theirs().fit(rows(200))
    assert (theirs.labels_ == detector.labels_).mean() > 0.99  # a percentile, and the conformal threshold next to it
    for use in ("predict", "predict_proba", "predict_confidence"):
        numpy.testing.assert_allclose(getattr(theirs, use)(new), getattr(detector, use)(new), atol=1e-12)
    numpy.testing.assert_allclose(theirs.predict_proba(new, method="unify"), detector.predict_proba(new, method="unify"), atol=1e-12)


def test_a_fitted_detector_becomes_one_of_pyod_s(new) -> None:
    fitted = tw.EnergyDetector(contamination=0.05, **QUICK).fit(pandas.DataFrame(rows(60), columns=list("abc")))
    table = pandas.DataFrame(new, columns=list("abc"))
    found = fitted.as_pyod()
    assert found.detector_ is fitted and found.get_params() == fitted.get_params()
    numpy.testing.assert_array_equal(found.decision_function(table), -fitted.score_samples(table))
    numpy.testing.assert_array_equal(found.predict(table), (fitted.predict(table) == -1).astype(int))
    with pytest.raises(NotFittedError):
        tw.EnergyDetector().as_pyod()


def test_it_is_an_estimator_and_refuses_what_the_detector_refuses(new) -> None:
    assert is_outlier_detector(PyODDetector()) and clone(PyODDetector(updates=7)).updates == 7
    with pytest.raises(NotFittedError):
        PyODDetector().predict(new)
    with pytest.raises(InputError, match="contamination"):
        PyODDetector(contamination=0.6).fit(new)
