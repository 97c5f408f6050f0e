"""What the study of CDRL says of each level."""

import math

import pytest

import thalweg as tw
from studies.cdrl import HANDED, HANDOVER, level_figures


def test_figures_of_the_levels_of_an_untrained_model():
    """Proposals are the best linear guess, and chains move by little but their noise."""
    model = tw.method("cdrl/digits", net=dict(width=8), initializer=dict(width=8), steps=2)
    rows = level_figures(model, tw.data.load("digits", "test").batch(0, 64, seed=0).x)
    assert [row["level"] for row in rows] == list(range(6))
    for row in rows:
        assert row["error"] == pytest.approx(row["linear"], rel=1e-4)
        assert row["noise"] / 2 < row["displacement"] < 2 * row["noise"]
        assert row["proposed"] > 0.9 * row["least"] and all(math.isfinite(value) for value in row.values())
        assert row["floor"] < row["distance"]


def test_rows_of_the_hand_over_are_settings_of_the_preset():
    for fields in HANDOVER.values():
        assert tw.method("cdrl/digits", **HANDED | fields).config.images == HANDED["images"]
