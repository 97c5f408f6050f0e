"""The detector of outliers: a scikit-learn estimator whose score is an energy, and whose false alarms are promised."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy
import torch

from thalweg.errors import InputError, require

require("sklearn", "detect")

from sklearn.base import BaseEstimator, OutlierMixin  # noqa: E402
from sklearn.utils import check_random_state  # noqa: E402
from sklearn.utils.validation import check_is_fitted, validate_data  # noqa: E402

from thalweg.detect import choice, density, keep, scores  # noqa: E402
from thalweg.detect.columns import Columns  # noqa: E402
from thalweg.detect.density import BLOCK, Training  # noqa: E402
from thalweg.detect.known import Known  # noqa: E402
from thalweg.detect.pictures import ENERGIES, PIXELS, Pictures, checked, learned, parts_of  # noqa: E402
from thalweg.detect.promise import Conformal, least  # noqa: E402

MOST_COLUMNS = 4096  # of numbers
PATH = 16  # points on the way from a usual row
ENERGIES_SHARE = 0.7  # of the time, for the training of energies of pictures
NEVER = 1e30  # a threshold above every strangeness in nats


class EnergyDetector(OutlierMixin, BaseEstimator):
    """Outliers in a table or among pictures, by energies of a normalised density at several noise levels, at a rate of false alarms.

    `contamination` in (0, 0.5]: the rate of false alarms on new inliers at which `predict` aims, and so the share of the rows of a table
    of the fit that it flags. `seconds`: bound on the time of training. `random_state`: seed of all draws; two fits with the same seed are
    equal unless `seconds` cut them short. `members`: networks, each of which leaves out a part of the rows; `updates`: how long each is
    trained. `features`: what pictures are judged by, "pixels", a frozen network ("efficientnet-lite0"), or both with a + between: then
    the one, the other or both together, whichever best tells disturbed pictures of the fit from others.

    `fit` takes an array [N, D], N ≥ 2, a DataFrame of numbers, categories, dates and texts, with missing values, or pictures [N, C, H, W]
    in [−1, 1], N ≥ 4. Rows of the fit are later scored by the member that has not seen them, so that they are judged as new rows are. The
    rate is that of new rows exchangeable with those of the fit: measured, for what is proven of such schemes is about twice as much.
    Signs are scikit-learn's: `score_samples`, `decision_function` and `predict` are lower for outliers; `decision_scores_` [N],
    `threshold_` and `labels_` [N] are PyOD's: higher for outliers, and 1.

    Attributes: `columns_`, what the table was; `pictures_`, what pictures were, None of a table; `left_out_`, see `alone`; `usual_`, of the
    energies; `conformal_`, by which p-values are found; `choice_`, of several `features`, the AUROC of each choice; `sensitivity_`, the
    share that is flagged of rows disturbed in several ways; `notes_`, what was done, a sentence each. Raises InputError (a ValueError)
    for what cannot be used.
    """

    pictures_: Pictures | None

    def __init__(
        self,
        contamination: float = 0.05,
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

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn what is usual from rows X [N, D]; y is not looked at."""
        return self._fit(X)

    def _fit(self, X: Any, note: Callable[[float], None] = lambda share: None) -> Self:
        self._check()
        before = ENERGIES_SHARE if ENERGIES in self.features else 0.3 * (self.features != PIXELS)  # of the time, for networks
        table = self._table(X, reset=True, note=lambda share: note(before * share))
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self.columns_ = Columns.fit(table)
        outputs = len(self.columns_.outputs)
        if outputs > MOST_COLUMNS:
            raise InputError(
                f"the table's {len(self.columns_.names):,} columns become {outputs:,} numbers, at most {MOST_COLUMNS:,} can be learned; "
                "select columns, or reduce them, as by sklearn.decomposition.PCA"
            )
        x = torch.from_numpy(self.columns_.encode(table)).float()
        left = self.seconds * (1 - ENERGIES_SHARE * (ENERGIES in self.features))
        training = Training(members=self.members, updates=self.updates, seconds=left)
        widths, apart = ([outputs], [False]) if self.pictures_ is None else (self.pictures_.widths, self.pictures_.apart)
        self.ensemble_, fold = density.fit_blocks(
            x, widths, training, never=self._described, apart=apart, seed=seed, note=lambda share: note(before + (1 - before) * share)
        )
        energies, held_out = self.ensemble_.left_out(x, fold), fold >= 0
        self.choice_: dict[str, float] = {}
        if len(widths) > 1:
            x, energies = self._choose(checked(X), x, energies, fold, seed)
        self.usual_ = scores.usual(energies[held_out])
        strangeness = scores.strangeness(energies, self.usual_).numpy()
        self.known_ = Known.of(x[held_out].numpy(), strangeness[held_out])
        self.left_out_ = strangeness[fold == len(self.ensemble_.models) - 1]
        own, found = self.known_.find(x.numpy())
        self._judge(numpy.where(own, found, strangeness), found[held_out])
        rows, changed = scores.disturbed(x[held_out], seed)
        fold = fold[held_out]
        self.sensitivity_ = {
            name: float((scores.strangeness(self.ensemble_.left_out(other, fold[rows]), self.usual_) > self.threshold_).double().mean())
            for name, other in changed.items()
        }
        return self

    def _choose(self, pictures: Any, x: Any, energies: Any, fold: Any, seed: int) -> tuple[Any, Any]:
        """Rows and energies of the parts of pictures by which these are judged; the other parts go."""
        known = self.pictures_
        assert known is not None

        def energies_of(other: Any, fold: Any) -> Any:
            return self.ensemble_.left_out(torch.from_numpy(self.columns_.encode(known.encode(other))).float(), fold)

        chosen, self.choice_ = choice.choose(pictures, fold, energies, energies_of, tuple(known.along), seed)
        if len(chosen) > 1:
            return x, energies
        (part,), widths, names = chosen, known.widths, list(known.along)
        own = slice(sum(widths[:part]), sum(widths[: part + 1]))
        self.ensemble_, self.columns_, self.pictures_ = self.ensemble_.blocks[part], self.columns_.some(own), known.only(names[part])
        self.n_features_in_ = own.stop - own.start
        levels = energies.shape[1] // len(widths)
        return x[:, own], energies[:, part * levels : (part + 1) * levels]

    def _judge(self, strangeness: numpy.ndarray, held_out: numpy.ndarray) -> None:
        """Thresholds, by the strangeness of the rows of the fit and of those that were left out among them: all, of a table."""
        self.conformal_ = Conformal(held_out)
        self.decision_scores_ = strangeness
        self.threshold_ = self._threshold(held_out)
        self.offset_ = -self.threshold_
        self.labels_ = (strangeness > self.threshold_).astype(int)
        self.notes_ = list(self.columns_.notes)
        if self.choice_ and self.pictures_ is not None:
            areas = ", ".join(f"{area:.3f} by {name}" for name, area in self.choice_.items())
            self.notes_.append(f"pictures are judged by {self.pictures_.features}: of disturbed ones the mean AUROC is {areas}")
        if self.threshold_ == NEVER:
            self.notes_.append(
                f"a false-alarm rate of {self.contamination:g} needs at least {least(self.contamination):,} rows, there are "
                f"{len(held_out):,}: no row is flagged; give more rows, or a contamination of {1 / (len(held_out) + 1):.2g} or more"
            )
            warnings.warn(self.notes_[-1], UserWarning, stacklevel=4)

    def _threshold(self, strangeness: numpy.ndarray) -> float:
        """The strangeness above which a row is flagged: that of the k-th strangest of N, k = ⌊α(N + 1)⌋, which is flagged itself.

        Where others tie with that one it is not, since a new row that ties with it would be flagged too often.
        """
        rows = len(strangeness)
        if rows < least(self.contamination):
            return NEVER
        k = max(1, min(rows, int(self.contamination * (rows + 1) + 1e-9)))
        ordered = numpy.sort(strangeness)[::-1]
        tied = k < rows and ordered[k] == ordered[k - 1]
        return float(ordered[k - 1] if tied else numpy.nextafter(ordered[k - 1], -numpy.inf))

    # --- use

    def score_samples(self, X: Any) -> numpy.ndarray:
        """How usual rows X [N, D] are, [N] float64, lower for stranger rows: a log-density, of the levels that which finds a row strangest.

        In nats, up to a constant; see `scores`. `log_density` is normalised.
        """
        return -self._strangeness(X)[0]

    def decision_function(self, X: Any) -> numpy.ndarray:
        """`score_samples` less `offset_`: [N], below 0 for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> numpy.ndarray:
        """−1 for outliers, 1 for others: [N] int. Of new inliers a share of about `contamination` is flagged, or less."""
        return numpy.where(self.decision_function(X) < 0, -1, 1)

    def p_value(self, X: Any) -> numpy.ndarray:
        """Cross-conformal p-values [N] in (0, 1]: a share of about α of new inliers, or less, has one of at most α.

        Rows of the fit are compared with the others.
        """
        return self.judge(X)[1]

    def judge(self, X: Any) -> tuple[numpy.ndarray, numpy.ndarray]:
        """`score_samples` [N] and `p_value` [N] of rows X [N, D], in the time of one of them."""
        return self._judged(*self._strangeness(X))

    def follow(self, X: Any) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
        """`score_samples`, `p_value` and `alone` of rows X [N, D], [N] each, in the time of one of them: what a stream asks of its rows."""
        x = self._encoded(X)
        each = self.ensemble_.of_each(x)
        own, found = self.known_.find(x.numpy())
        strangeness = numpy.where(own, found, scores.strangeness(each.mean(0), self.usual_).numpy())
        return *self._judged(strangeness, own), scores.strangeness(each[-1], self.usual_).numpy()

    def predict_proba(self, X: Any) -> numpy.ndarray:
        """[N, 2]: the p-value, and what is left to 1, which is near 1 for outliers. No posterior probability: no outliers were seen."""
        p = self.p_value(X)
        return numpy.stack([p, 1 - p], 1)

    def alone(self, X: Any) -> numpy.ndarray:
        """Strangeness of new rows X [N, D] by the last member alone, in nats: [N].

        It is exchangeable with `left_out_` [M], that of the rows that this member left out, as tests for drift need it over a long
        stream; the mean of all members is a little less strange.
        """
        return self.follow(X)[2]

    def log_density(self, X: Any, *, sigma: float = 0.2) -> numpy.ndarray:
        """log p_σ of rows in units of the columns' deviations with noise `sigma`, nats, normalised, the mean of the members: [N].

        `sigma` from 0.04 to 5. Of a small table's own rows it is too high: members have learned them by heart.
        """
        return self.ensemble_.log_density(self._encoded(X), float(sigma)).numpy()

    def explain(self, X: Any) -> numpy.ndarray:
        """What each of the table's columns adds to a row's strangeness, in nats: [N, columns].

        The score's slope by the column, summed up on the straight way to the row from a usual row nearby (integrated gradients,
        Sundararajan et al. 2017): a row's sum is what its strangeness is above that of the usual row. Below 0 where a column makes
        the row more usual.
        """
        x = self._encoded(X)
        usual = self.ensemble_.usual(x)
        pulls = torch.zeros(x.shape, dtype=torch.float64)
        for i in range(PATH):
            for part in torch.arange(len(x)).split(BLOCK):
                with torch.enable_grad():
                    point = (usual[part] + (i + 0.5) / PATH * (x[part] - usual[part])).requires_grad_()
                    value = scores.strangeness(self.ensemble_.in_graph(point), self.usual_).sum()
                    (slope,) = torch.autograd.grad(value, point)
                pulls[part] += slope.double() * (x[part] - usual[part]) / PATH
        of_columns = torch.zeros(len(x), len(self.columns_.names), dtype=torch.float64)
        return of_columns.index_add(1, torch.from_numpy(self.columns_.source), pulls).numpy()

    def save(self, folder: str | Path) -> Path:
        """Write the detector to a new or empty folder: detector.json and model.safetensors, no code. Returns the folder."""
        check_is_fitted(self)
        return keep.write(self, Path(folder))

    def export(self, file: str | Path) -> Path:
        """Write the detector as a graph that runs without Thalweg, FILE.onnx or FILE.pt2, see `detect.ship`. Returns the file."""
        from thalweg.detect import ship

        check_is_fitted(self)
        return ship.export(self, file)[0]

    def as_pyod(self) -> Any:
        """This detector with PyOD's methods and signs, a `detect.pyod.PyODDetector`: scores higher for outliers, labels 0 and 1."""
        from thalweg.detect.pyod import PyODDetector

        return PyODDetector.of(self)

    @classmethod
    def load(cls, folder: str | Path) -> "EnergyDetector":
        """A detector that `save` wrote; executes no code. InputError for anything else."""
        stored = keep.read(Path(folder))
        detector = cls(**stored.parameters)
        detector._check()
        detector.columns_, detector.ensemble_, detector.known_ = stored.columns, stored.ensemble, stored.known
        detector.pictures_, detector.choice_ = stored.pictures, stored.choice
        detector.usual_, detector.sensitivity_ = stored.usual, stored.sensitivity
        detector.n_features_in_ = len(stored.columns.names)
        if stored.columns.named:
            detector.feature_names_in_ = numpy.array(stored.columns.names, dtype=object)
        detector.left_out_ = stored.left_out
        detector._judge(stored.strangeness, stored.held_out)
        return detector

    # --- parts

    def _judged(self, strangeness: numpy.ndarray, own: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
        """Scores and p-values of rows [N]; those that are the fit's `own` are compared with the others."""
        rows = len(self.conformal_)
        found = self.conformal_.p_value(strangeness)
        return -strangeness, numpy.where(own, (found * (rows + 1) - 1).clip(1) / rows, found)

    def _check(self) -> None:
        if not (isinstance(self.contamination, int | float) and 0 < self.contamination <= 0.5):
            raise InputError(f"contamination must be above 0 and at most 0.5, got {self.contamination!r}")
        if not (isinstance(self.seconds, int | float) and self.seconds > 0):
            raise InputError(f"seconds must be above 0, got {self.seconds!r}")
        for name, low in (("members", 2), ("updates", 1)):
            value = getattr(self, name)
            if not isinstance(value, int | numpy.integer) or value < low:
                raise InputError(f"{name} must be a whole number, {low} or more, got {value!r}")
        parts_of(self.features)

    def _table(self, X: Any, *, reset: bool, note: Callable[[float], None] = lambda share: None) -> Any:
        """A DataFrame as it is, pictures as their numbers, anything else as an array; sets or checks columns as scikit-learn does."""
        if getattr(X, "ndim", 0) == 4:
            X = self._numbers(X, reset, note)
        elif reset:
            if self.features != PIXELS:
                raise InputError(f"features {self.features!r} are of pictures [N, C, H, W], got a table")
            self.pictures_ = None
            self._described: torch.Tensor | None = None
        elif self.pictures_ is not None:
            raise InputError(f"the detector was fitted to pictures {list(self.pictures_.shape)}, got no pictures")
        frame = hasattr(X, "columns") and hasattr(X, "iloc")
        least_rows = 2 if reset else 1
        try:
            checked = validate_data(
                self, X, reset=reset, skip_check_array=frame, dtype="numeric", ensure_all_finite="allow-nan", ensure_min_samples=least_rows
            )
        except ValueError as error:  # scikit-learn shows arrays in it, over several lines
            raise InputError(str(error) if frame else " ".join(str(error).split())) from None
        return X if frame else checked

    def _numbers(self, X: Any, reset: bool, note: Callable[[float], None]) -> numpy.ndarray:
        if reset:
            # those by which pictures are described cannot be held out too: what is left of them is less than of new ones
            self.pictures_, self._described, numbers = learned(X, self.features, ENERGIES_SHARE * self.seconds, note)
            return numbers
        if self.pictures_ is None:
            raise InputError(f"the detector was fitted to a table of {len(self.columns_.names)} columns, got pictures {list(X.shape)}")
        return self.pictures_.encode(X, note)

    def _encoded(self, X: Any) -> torch.Tensor:
        check_is_fitted(self)
        return torch.from_numpy(self.columns_.encode(self._table(X, reset=False))).float()

    def _strangeness(self, X: Any) -> tuple[numpy.ndarray, numpy.ndarray]:
        """[N] in nats, and which rows were in the fit."""
        x = self._encoded(X)
        own, found = self.known_.find(x.numpy())
        found[~own] = scores.strangeness(self.ensemble_.energies(x[torch.from_numpy(~own)]), self.usual_).numpy()
        return found, own

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


def describe(detector: EnergyDetector) -> str:
    """What a detector was fitted to, what it promises and what it notices, in a few lines."""
    items, parts = ("rows", "columns") if detector.pictures_ is None else ("pictures", "numbers")
    size = f"{len(detector.decision_scores_):,} {items} of {len(detector.columns_.names):,} {parts}"
    lines = [
        f"{size}; {len(detector.ensemble_.models)} networks",
        f"of new {items} like these about {detector.contamination:.3g} are flagged, or less; of such {items} disturbed:",
        *(f"  {share:4.0%}  {name}" for name, share in detector.sensitivity_.items()),
        *detector.notes_,
    ]
    return "\n".join(lines)
