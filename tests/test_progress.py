"""What a training says while it runs and while it concludes."""

import io
import sys
import time

import pytest

import thalweg as tw
from thalweg import random
from thalweg.progress import COLUMNS, Beat, Progress, Work, duration, say


@pytest.mark.parametrize(
    "seconds, text",
    [
        (0, "0 s"),
        (99.4, "99 s"),
        (100, "2 min"),
        (3540, "59 min"),
        (3600, "1 h"),
        (7800, "2 h 10 min"),
        (180_000, "2 d 2 h"),
        (172_800, "2 d"),
    ],
)
def test_durations_are_in_their_two_largest_units(seconds, text):
    assert duration(seconds) == text


def run(bar, *, images, batch, each, first=0.0, figures=None):
    """Steps of `each` seconds, the first with `first` more."""
    for i in range(1, images // batch + 1):
        bar.show(figures or {})
        bar.step(i * batch, first + i * each)


def test_the_length_is_told_after_twenty_steps_without_the_first(capsys):
    with Progress(True, "title", 100_000, None, pictures=5000) as bar:
        run(bar, images=2100, batch=100, each=0.1, first=3.0)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["title", "about 98 s at 1,000/s; pictures every 5 s", "  2%  5 s, 98 s left, 2,000 images, 1,000/s"]


def test_a_long_title_takes_two_lines(capsys):
    with Progress(True, "words of a title that are too many for a terminal of eighty columns, /as/is/this/path", 100, None):
        pass
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(len(line) <= COLUMNS for line in lines) and lines[1] == "  /as/is/this/path"


def test_slow_steps_are_told_within_seconds(capsys):
    with Progress(True, "title", 1000, None) as bar:
        run(bar, images=30, batch=10, each=4.0)
    lines = capsys.readouterr().err.splitlines()
    assert lines[1] == "about 7 min at 2.5/s" and lines[2].startswith("  2%  8 s, 7 min left, 20 images")


def test_lines_of_a_log_come_by_time_and_fewer_and_fewer(capsys):
    with Progress(True, "title", 7200, None) as bar:
        run(bar, images=7200, batch=1, each=1.0, figures={"loss/energy": 0.123456, "gradient_norm/energy": 3.0, "another_figure": 1.0})
    lines = capsys.readouterr().err.splitlines()[2:]
    times = [float(line.split("images")[0].split()[-1].replace(",", "")) for line in lines]
    assert times[0] == 5 and times[-1] == 7200 and 25 < len(times) < 50
    gaps = [b - a for a, b in zip(times, times[1:])]
    assert min(gaps[:-1]) >= 5 and max(gaps) <= 300 and gaps[:-1] == sorted(gaps[:-1])
    assert all(len(line) <= COLUMNS for line in lines) and "energy 0.1235" in lines[0] and "gradient" not in lines[0]
    assert "no time left" in lines[-1] and lines[-1].startswith("100%")


def test_time_left_ends_with_the_seconds_of_the_run_and_goes_on_after_a_stop():
    bar = Progress(True, "title", 1000, 60.0, begun=(400, 30.0))
    bar.step(410, 35.0)
    bar.step(420, 36.0)
    assert (
        bar.rate(420, 36.0) == pytest.approx(10) and bar.left(420, 36.0) == pytest.approx(24) and bar.done(420, 36.0) == pytest.approx(0.6)
    )


def test_a_log_file_is_told_of_what_comes_after_the_last_step(capsys, monkeypatch):
    monkeypatch.setattr("thalweg.progress.SOON", 0.0)
    x = random.normal(256, 2, generator=random.seeded(1))
    method = tw.method("dual/vectors", data=x, calibration=50_000, **{"net.width": 8, "net.depth": 1})
    tw.fit(method, x, images=64, batch=32)
    lines = [line for line in capsys.readouterr().err.splitlines() if "after the last step" in line]
    shares = [int(line.partition("%")[0]) for line in lines]
    assert shares[0] == 0 and shares[-1] == 100 and shares == sorted(shares)
    assert all((" left" in line) is (0 < share < 100) for line, share in zip(lines, shares))


class Clock:
    """Time that tests move."""

    def __init__(self, monkeypatch):
        self.now = 10.0
        monkeypatch.setattr("thalweg.progress.time.monotonic", lambda: self.now)
        monkeypatch.setattr(Beat, "spoken", 0.0)


def test_time_left_is_what_the_share_done_took(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    with Progress(True, "title", 100, None) as bar:
        bar.conclude(0.0)
        clock.now = 40.0
        bar.conclude(0.25)
    assert capsys.readouterr().err.splitlines()[-1] == " 25%  30 s  after the last step: about 90 s left"


def test_a_first_step_that_takes_minutes_is_no_silence(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    with Progress(True, "title", 100, None) as bar:
        for seconds in range(1, 60):
            clock.now = 10.0 + seconds
            bar.beat.look()
        bar.step(10, 60.0)
        clock.now += 30
        bar.beat.look()
    lines = capsys.readouterr().err.splitlines()[1:]
    assert lines[0] == "      5 s  first step" and lines[-1] == " 10%  10 images, about 9 min of steps left, 89 s so far"
    times = [int(line.split()[0]) for line in lines if "first step" in line]
    assert times[-1] > 40 and max(b - a for a, b in zip(times, times[1:])) <= 15 and len(times) < 10


def test_of_works_within_works_the_innermost_speaks_by_time_and_says_what_is_left(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    with Work("all of it") as outer:
        outer.note(0.5)
        clock.now += 6
        with Work("a part") as inner:
            clock.now += 4.6
            outer.beat.look()  # silent: the inner one has begun
            inner.beat.look()
            clock.now += 4.6
            inner.note(0.25)
        clock.now += 6
        outer.beat.look()
        say("a line of another")
        outer.beat.look()
    assert capsys.readouterr().err.splitlines() == [
        "      5 s  a part",
        " 25%  9 s  a part, about 28 s left",
        " 50%  21 s  all of it, about 21 s left",
        "a line of another",
    ]


def test_a_work_speaks_by_itself_on_one_process_and_only_when_shown(monkeypatch, capsys):
    monkeypatch.setattr("thalweg.progress.SOON", 0.0)
    monkeypatch.setattr(Beat, "tick", 0.01)

    def work(shown=True):
        with Work("work", shown=shown):
            time.sleep(0.1)
        return capsys.readouterr().err

    assert work().count("work\n") >= 1 and not work(shown=False)
    monkeypatch.setenv("RANK", "1")
    assert not work()


def test_a_terminal_has_a_bar_and_a_second_one(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    with Progress(True, "title", 100, None) as bar:
        run(bar, images=100, batch=4, each=0.1, figures={"energy": 1.0})
        bar.conclude(0.0)
        bar.conclude(0.5)
        first, second = bar.bar.tasks
        assert (first.completed, second.completed) == (1.0, 0.5)
        assert "100 images" in first.fields["text"] and "after the last step" in second.fields["text"]
    assert "about" in sys.stderr.getvalue()


def test_silence_is_kept(capsys):
    with Progress(False, "title", 100, None) as bar:
        bar.step(10, 1.0)
        bar.conclude(0.5)
    assert capsys.readouterr() == ("", "")
