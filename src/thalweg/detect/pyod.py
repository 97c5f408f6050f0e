"""The detector as PyOD's detectors are used: scores that are higher for outliers, and labels of 0 and 1. Needs no PyOD."""

from typing import Any, Self

import numpy
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from thalweg.detect.detector import EnergyDetector
from thalweg.detect.pictures import PIXELS
from thalweg.errors import InputError


class PyODDetector(BaseEstimator):
    """An `EnergyDetector` with the methods, signs and attributes of PyOD's `BaseDetector`.

    Parameters are those of `EnergyDetector`, `contamination` by default PyOD's 0.1. After `fit`: `decision_scores_` [N], strangeness of
    the rows of the fit in nats, higher for outliers; `threshold_`; `labels_` [N], 1 for outliers; `detector_`, the detector, which has
    p-values, explains and is saved. The threshold is that of `EnergyDetector`, whose false alarms are promised, where PyOD takes a
    percentile: of N rows of the fit ⌊contamination (N + 1)⌋ are outliers at most.
    """

    def __init__(
        self,
        contamination: float = 0.1,
        seconds: float = 60.0,
        random_state: Any = None,
        members: int = 5,
        updates: int = 400,
        features: str = PIXELS,
    ) -> None:
        self.contamination = contamination
        self.seconds = seconds
        self.random_state = random_state
        self.members = members
        self.updates = updates
        self.features = features

    @classmethod
    def of(cls, detector: EnergyDetector) -> "PyODDetector":
        """A fitted `EnergyDetector` as one of PyOD's."""
        check_is_fitted(detector)
        return cls(**detector.get_params())._of(detector)

    def _of(self, detector: EnergyDetector) -> Self:
        self.detector_ = detector
        self.decision_scores_, self.threshold_, self.labels_ = detector.decision_scores_, detector.threshold_, detector.labels_
        return self

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn what is usual from rows X [N, D]; y is not looked at. Raises InputError for what cannot be learned from."""
        return self._of(EnergyDetector(**self.get_params()).fit(X))

    def fit_predict(self, X: Any, y: Any = None) -> numpy.ndarray:
        """`labels_` [N] of the rows that are learned from."""
        return self.fit(X).labels_

    def decision_function(self, X: Any) -> numpy.ndarray:
        """How strange rows X [N, D] are, in nats, higher for outliers: [N]."""
        check_is_fitted(self)
        return -self.detector_.score_samples(X)

    def predict(self, X: Any, return_confidence: bool = False) -> Any:
        """1 for outliers, 0 for others, [N] int; with `return_confidence` a pair with `predict_confidence` [N]."""
        scores = self.decision_function(X)
        labels = self._labels(scores)
        return (labels, self._confidence(scores)) if return_confidence else labels

    def predict_proba(self, X: Any, method: str = "linear", return_confidence: bool = False) -> Any:
        """Scores brought to [0, 1] as PyOD does, [N, 2]: of inliers, of outliers. No probabilities: `detector_.p_value` has those.

        `method`: linear, by the lowest and the highest of `decision_scores_`; or unify, by their mean and deviation (Kriegel et al. 2011).
        With `return_confidence` a pair with `predict_confidence` [N]. Raises InputError for another method.
        """
        scores, known = self.decision_function(X), self.decision_scores_
        if method == "linear":
            found = (scores - known.min()) / (numpy.ptp(known) or 1.0)
        elif method == "unify":
            from scipy.special import erf

            found = erf((scores - known.mean()) / ((known.std() or 1.0) * numpy.sqrt(2)))
        else:
            raise InputError(f"method must be linear or unify, got {method!r}")
        found = found.clip(0, 1)
        both = numpy.stack([1 - found, found], 1)
        return (both, self._confidence(scores)) if return_confidence else both

    def predict_confidence(self, X: Any) -> numpy.ndarray:
        """With which probability another set of rows to learn from would give the same label, [N] in [0, 1] (Perini et al. 2020)."""
        return self._confidence(self.decision_function(X))

    def _labels(self, scores: numpy.ndarray) -> numpy.ndarray:
        return (scores > self.threshold_).astype(int)

    def _confidence(self, scores: numpy.ndarray) -> numpy.ndarray:
        from scipy.stats import binom

        rows = len(self.decision_scores_)
        below = numpy.searchsorted(numpy.sort(self.decision_scores_), scores, side="right")
        outlier = 1 - binom.cdf(rows - int(rows * self.contamination), rows, (1 + below) / (2 + rows))
        return numpy.where(self._labels(scores) == 1, outlier, 1 - outlier)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.estimator_type = "outlier_detector"
        tags.input_tags.allow_nan = True
        return tags
