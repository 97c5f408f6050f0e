"""Pictures as numbers: what the detector of pictures tells apart, and what it refuses."""

import numpy
import pytest
import torch

import thalweg as tw
from thalweg.detect.pictures import DIRECTIONS, Pictures
from thalweg.errors import InputError
from thalweg.evaluate.ood import ood, outliers


@pytest.fixture(scope="module")
def digits() -> tuple[tw.EnergyDetector, torch.Tensor]:
    train, test = (tw.data.load("digits", split).all().x for split in ("train", "test"))
    return tw.EnergyDetector(members=2, updates=150, random_state=0).fit(train), test


@pytest.mark.parametrize("kind", ["uniform", "noise", "constant", "shuffled", "black", "grey", "white"])
def test_pictures_that_are_no_digits_are_found(digits, kind: str) -> None:
    detector, test = digits
    plain = {"black": -1.0, "grey": 0.0, "white": 1.0}
    strange = torch.full((20, 1, 8, 8), plain[kind]) if kind in plain else outliers(kind, test, 200)
    found = ood(torch.from_numpy(-detector.score_samples(test)), torch.from_numpy(-detector.score_samples(strange)))
    assert found.auroc > 0.97
    assert (detector.predict(strange) == -1).mean() > 0.85


def test_false_alarms_on_new_digits(digits) -> None:
    detector, test = digits
    for alpha in (0.05, 0.1):
        alarms = int((detector.p_value(test) <= alpha).sum())
        assert alarms <= detector.conformal_.false_alarms(alpha, len(test), confidence=0.999)


def test_a_detector_of_pictures_survives_a_disk(digits, tmp_path) -> None:
    detector, test = digits
    found = tw.EnergyDetector.load(detector.save(tmp_path / "d"))
    numpy.testing.assert_array_equal(found.score_samples(test), detector.score_samples(test))
    assert found.pictures_.shape == (1, 8, 8)


def test_a_detector_of_pictures_is_not_exported_and_says_so(digits, tmp_path) -> None:
    with pytest.raises(InputError, match="not in the graph; use Python"):
        digits[0].export(tmp_path / "digits.pt2")
    assert not list(tmp_path.iterdir())


def test_large_pictures_are_looked_at_in_few_numbers() -> None:
    x = torch.rand(300, 3, 80, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    encoded = Pictures.fit(x).encode(x)
    assert encoded.shape[1] < 200 and numpy.isfinite(encoded).all()
    numpy.testing.assert_allclose(encoded[:, :DIRECTIONS].std(0), 1, rtol=0.05)  # but for what is compressed
    same = Pictures.fit(x)
    numpy.testing.assert_array_equal(Pictures.of_tensors(same.tensors()).encode(x[:5]), same.encode(x[:5]))


def test_tiny_pictures_and_a_single_colour_are_no_trouble() -> None:
    for x in (torch.zeros(4, 1, 1, 1), torch.zeros(30, 3, 2, 5), torch.ones(9, 1, 3, 3)):
        assert numpy.isfinite(Pictures.fit(x).encode(x)).all()


def test_what_is_no_picture_is_refused(digits) -> None:
    detector, test = digits
    for x, message in (
        (test[:3, :, :4], "1 × 4 × 8, the detector was fitted to 1 × 8 × 8"), (127 * test[:3], "values from"),
        (test[:3] * float("nan"), "NaN"), (test[:3].flatten(1), "got no pictures"), (test[:3].to(torch.uint8), "floating-point"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            detector.predict(x)
    table = tw.EnergyDetector(members=2, updates=5, random_state=0).fit(test[:60, 0, 0])
    with pytest.raises(InputError, match="a table of 8 columns, got pictures"):
        table.predict(test[:3])
    for count in (1, 2, 3):
        with pytest.raises(InputError, match=f"4 or more are needed to learn from, got {count}"):
            tw.EnergyDetector().fit(test[:count])


def test_four_pictures_are_enough_to_begin_with(digits) -> None:
    with pytest.warns(UserWarning, match="needs at least 19 rows, there are 2"):
        detector = tw.EnergyDetector(members=2, updates=2, random_state=0).fit(digits[1][:4])
    assert numpy.isfinite(detector.score_samples(digits[1])).all()
