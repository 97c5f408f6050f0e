"""Random wrong command lines and calls are refused with one message each; and the check sees what is not."""

from studies.checks import wrong_words


def test_wrong_words_are_refused():
    found = wrong_words.check(120, 60, seed=3, say=lambda line: None)
    assert found["faults"] == [] and found["commands"] == 120 and found["kinds"]["python"] == 60 and len(found["kinds"]) > 4


def test_what_is_not_refused_is_seen(monkeypatch):
    """A right command, a traceback, a changed disk, and calls that are right or raise something else."""
    lines = iter([["list"], ["export", "digits", "--out", "made"], ["sample", "digits", "-n", "2", "--out", "x.npz"]])
    calls = iter([("right", lambda: None), ("raw", lambda: 1 / 0), ("refused", lambda: int("x"))])
    monkeypatch.setattr(wrong_words, "wrong_line", lambda draw: next(lines))
    monkeypatch.setattr(wrong_words, "wrong_call", lambda draw, models: next(calls))
    faults = wrong_words.check(3, 3, seed=0, say=lambda line: None)["faults"]
    assert [fault["trouble"].partition(";")[0] for fault in faults[:3]] == ["exit code 0"] * 3
    assert "disk changed: made" in faults[1]["trouble"] and "disk changed: x.npz" in faults[2]["trouble"]
    assert [fault["trouble"] for fault in faults[3:]] == ["not refused", "ZeroDivisionError: division by zero"]
