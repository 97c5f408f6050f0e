"""The detector's cost: rows of one law, and a row of results for each size."""

import numpy

from studies.checks import detector_cost


def test_rows_are_of_one_law_whatever_the_seed():
    one, two = (detector_cost.rows_of(20_000, 3, seed) for seed in (0, 1))
    error = (one.std(0) ** 2 / 20_000 + two.std(0) ** 2 / 20_000) ** 0.5
    assert one.shape == (20_000, 3) and (one != two).all()
    assert (numpy.abs(one.mean(0) - two.mean(0)) < 5 * error).all()


def test_each_size_has_a_row(monkeypatch):
    asked = []

    def job(options, *words):
        asked.append(words)
        return {"rows": words[0], "columns": words[1], "fit_seconds": 1.0, "score_seconds": 2.0}

    monkeypatch.setattr(detector_cost, "job", job)
    found = detector_cost.run(detector_cost.CHECK.parser().parse_args(["--rows", "30", "60", "--columns", "4"]))
    assert asked == [(30, 10), (60, 10), (2000, 4)] and len(found["by_rows"]) == 2 and len(found["by_columns"]) == 1
    assert "| 2,000 | 4 | 1.0 | 2.0 |" in detector_cost.BLOCKS[1].text(found)
