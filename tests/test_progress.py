"""What a training says while it runs and while it concludes."""

import io
import sys

import thalweg as tw
from thalweg import random
from thalweg.progress import Progress


def test_a_log_file_is_told_of_what_comes_after_the_last_step(capsys):
    x = random.normal(256, 2, generator=random.seeded(1))
    method = tw.method("dual/vectors", data=x, calibration=50_000, **{"net.width": 8, "net.depth": 1})
    tw.fit(method, x, images=64, batch=32)
    lines = [line for line in capsys.readouterr().err.splitlines() if "after the last step" in line]
    shares = [int(line.partition("%")[0]) for line in lines]
    assert shares[0] == 0 and shares[-1] == 100 and len(shares) > 5 and shares == sorted(set(shares))
    assert all(("s left" in line) is (0 < share < 100) for line, share in zip(lines, shares))


def test_time_left_is_what_the_share_done_took(monkeypatch, capsys):
    now = iter([10.0, 10.0, 40.0])
    monkeypatch.setattr("thalweg.progress.time.monotonic", lambda: next(now))
    with Progress(True, "title", 100, None) as bar:
        bar.conclude(0.0)
        bar.conclude(0.25)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(" 25%      30 s") and last.endswith("about 90 s left")


def test_a_terminal_has_a_second_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    with Progress(True, "title", 100, None) as bar:
        bar.show(100, 1.0, {})
        bar.conclude(0.0)
        bar.conclude(0.5)
        first, second = bar.bar.tasks
        assert (first.completed, second.completed) == (1.0, 0.5)
        assert "after the last step" in second.fields["figures"]


def test_silence_is_kept(capsys):
    with Progress(False, "title", 100, None) as bar:
        bar.conclude(0.5)
    assert capsys.readouterr() == ("", "")
