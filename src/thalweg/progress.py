"""What works that take long say of themselves: how long they will be, how far they are and how long they have left, by time."""

import contextlib
import os
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar

PACE = 20  # steps after which the length of a training is told, or fewer if they take so many seconds:
SOON = 5.0
APART = 0.25  # lines of a log file are this share of the time so far apart, at least SOON seconds and at most
RARE = 300.0
EARLY = 0.5  # seconds before its time that a line may come, so that it is not late
COLUMNS = 80


def duration(seconds: float) -> str:
    """Seconds in the two largest units that they have: 42 s, 3 min, 2 h 10 min, 3 d 4 h."""
    if seconds < 100:
        return f"{max(0.0, seconds):.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} d {hours % 24} h" if hours % 24 else f"{hours // 24} d"


def per_second(rate: float) -> str:
    """A rate of images as text: 1,234/s, 2.5/s."""
    return f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s"


class Progress:
    """A bar on a terminal, elsewhere lines: one within five seconds, then less and less often. Time left is by the pace of late steps.

    `images`: of the whole training; `seconds`: those that it may take, None for no end; `begun`: images and seconds before this call;
    `pictures`: images between two pictures, None for no pictures.
    """

    def __init__(
        self,
        shown: bool,
        title: str,
        images: int,
        seconds: float | None,
        *,
        begun: tuple[int, float] = (0, 0.0),
        pictures: int | None = None,
    ) -> None:
        self.shown, self.title, self.images, self.seconds, self.begun, self.pictures = shown, title, images, seconds, begun, pictures
        self.bar: Any = None
        self.figures: dict[str, float] = {}
        self.steps = 0
        self.paced: tuple[int, float] | None = None  # images and seconds after the first step, which may compile
        self.told = False  # how long it will be
        self.next_line = begun[1] + SOON
        self.concluding: tuple[float, Any] | None = None  # since when, and the bar's task
        self.next_concluding = 0.0
        self.now: tuple[int, float] | None = None  # images and seconds at the last step
        self.beat = Beat(self._still)  # between two steps, one of which may be long, or a look at samples

    def __enter__(self) -> "Progress":
        if self.shown:
            wrapper = textwrap.TextWrapper(COLUMNS, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
            say("\n".join(part for line in self.title.splitlines() for part in wrapper.wrap(line)))
            self.beat.__enter__()
        if self.shown and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

            done, text = TextColumn("[progress.percentage]{task.percentage:>3.0f}%"), TextColumn("{task.fields[text]}")
            self.bar = Progress(SpinnerColumn(), done, BarColumn(bar_width=16), text, console=Console(stderr=True))
            self.task = self.bar.add_task("", total=1.0, text="first step")
            self.bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self.shown:
            self.beat.__exit__()
        if self.bar is not None:
            self.bar.stop()

    def _still(self, elapsed: float) -> str:
        """What a log file is told when a step, a look at samples or a state on disk takes long; a terminal's bar turns."""
        if self.bar is not None:
            return ""
        if self.now is None or self.concluding is not None:
            return f"      {duration(elapsed)}  {'first step' if self.now is None else 'after the last step'}"
        images, seconds = self.now
        left = duration(self.left(images, seconds))
        return f"{self.done(images, seconds):4.0%}  {images:,} images, about {left} of steps left, {duration(elapsed)} so far"

    def step(self, images: int, elapsed: float) -> None:
        """Note that a step has been taken: `images` are done after `elapsed` seconds."""
        if not self.shown:
            return
        self.steps += 1
        if self.paced is None:
            self.paced = images, elapsed
        if not self.told and self.steps > 1 and (self.steps > PACE or elapsed - self.begun[1] >= SOON):
            self._tell_length(images, elapsed)
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done(images, elapsed), text=self._text(images, elapsed, COLUMNS - 25))
        elif elapsed >= self.next_line or images >= self.images:
            self.next_line = elapsed + pause(elapsed - self.begun[1])
            say(f"{self.done(images, elapsed):4.0%}  {self._text(images, elapsed, COLUMNS - 6)}")
        self.now = images, elapsed

    def show(self, figures: dict[str, float]) -> None:
        """The last step's figures, of which as many are shown as there is room for."""
        self.figures = {key.removeprefix("loss/"): value for key, value in figures.items() if not key.startswith("gradient_norm")}

    def done(self, images: int, elapsed: float) -> float:
        """The share of the training that is done, by images or by time, whichever ends first."""
        return min(1.0, max(images / self.images, elapsed / self.seconds if self.seconds else 0.0))

    def rate(self, images: int, elapsed: float) -> float:
        """Images a second, without the first step."""
        since, at = self.paced if self.paced is not None and images > self.paced[0] else self.begun
        return max(images - since, 1e-9) / max(elapsed - at, 1e-9)

    def left(self, images: int, elapsed: float) -> float:
        """Seconds that the steps to come will take."""
        left = max(0, self.images - images) / self.rate(images, elapsed)
        return min(left, max(0.0, self.seconds - elapsed)) if self.seconds else left

    def _tell_length(self, images: int, elapsed: float) -> None:
        self.told, rate = True, self.rate(images, elapsed)
        text = f"about {duration(self.left(images, elapsed))} at {per_second(rate)}"
        if self.pictures is not None and self.pictures < self.images and self.pictures >= rate:
            text += f"; pictures every {duration(self.pictures / rate)}"
        if self.bar is not None:
            self.bar.console.print(text)
        else:
            say(text)

    def _text(self, images: int, elapsed: float, room: int) -> str:
        left, rate = self.left(images, elapsed), self.rate(images, elapsed)
        text = f"{duration(elapsed)}, {'no time' if left <= 0 else duration(left)} left, {images:,} images, {per_second(rate)}"
        for key, value in self.figures.items():
            more = f"  {key} {value:.4g}"
            if len(text) + len(more) > room:
                break
            text += more
        return text

    def conclude(self, share: float) -> None:
        """Note that `share` in [0, 1] of what a method does after the last step (`Method.conclude`) is done; begin with 0."""
        if not self.shown:
            return
        text, now = "after the last step", time.monotonic()
        if self.concluding is None:
            self.concluding = now, None if self.bar is None else self.bar.add_task("", total=1.0, text=text)
        since, task = self.concluding
        elapsed = now - since
        if 0 < share < 1:
            text += f": about {duration(elapsed * (1 - share) / share)} left"
        if self.bar is not None:
            self.bar.update(task, completed=share, text=text)
        elif elapsed >= self.next_concluding or share in (0, 1):
            self.next_concluding = elapsed + pause(elapsed)
            say(f"{share:4.0%}  {duration(elapsed)}  {text}")


class Beat:
    """Speaks while nothing else does: within five seconds, then less and less often. Of several that are open the innermost speaks.

    `line` gives what to say, a line, after so many seconds, nothing for an empty one. What is printed by `say` counts as spoken.
    """

    tick: ClassVar[float | None] = 0.5  # seconds between two looks at the time; None to look never
    open: ClassVar[list["Beat"]] = []
    spoken: ClassVar[float] = 0.0  # when the last line was printed
    lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, line: Callable[[float], str]) -> None:
        self.line, self.since, self.ended = line, time.monotonic(), threading.Event()

    def __enter__(self) -> "Beat":
        self.since = time.monotonic()
        Beat.open.append(self)
        if Beat.tick is not None:
            threading.Thread(target=self._run, args=(Beat.tick,), daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.ended.set()
        Beat.open.remove(self)

    def _run(self, tick: float) -> None:
        with contextlib.suppress(OSError, ValueError):  # standard error is closed
            while not self.ended.wait(tick):
                self.look()

    def look(self) -> None:
        """Speak, if it is time to."""
        with Beat.lock:
            now = time.monotonic()
            elapsed, silent = now - self.since, now - max(self.since, Beat.spoken)
            if Beat.open[-1:] == [self] and silent >= pause(elapsed) - EARLY and (text := self.line(elapsed)):
                announce(text)


def pause(elapsed: float) -> float:
    """Seconds between two lines after so many of a work."""
    return min(RARE, max(SOON, APART * elapsed))


def say(text: str) -> None:
    """A line on standard error, at once."""
    Beat.spoken = time.monotonic()
    print(text, file=sys.stderr, flush=True)


def announce(text: str) -> None:
    """`say`, of the processes of torchrun by the first alone."""
    if os.environ.get("RANK", "0") == "0":
        say(text)


class Work:
    """A context that says on standard error how far a work is that is no training: within five seconds, then less and less often.

    `what` is worked on. It speaks by time, whether or not anything is noted; nothing unless `shown`.
    """

    def __init__(self, what: str, *, shown: bool = True) -> None:
        self.what, self.shown, self.share, self.beat = what, shown, 0.0, Beat(self._line)

    def __enter__(self) -> "Work":
        if self.shown:
            self.beat.__enter__()
        return self

    def __exit__(self, *_: Any) -> None:
        if self.shown:
            self.beat.__exit__()

    def note(self, share: float, what: str | None = None) -> None:
        """Note that `share` in [0, 1] is done, and what is worked on now."""
        self.share, self.what = share, what or self.what
        if self.shown and share < 1:
            self.beat.look()

    def _line(self, elapsed: float) -> str:
        left = f", about {duration(elapsed * (1 - self.share) / self.share)} left" if 0 < self.share < 1 else ""
        done = f"{self.share:4.0%}" if self.share else "    "
        return f"{done}  {duration(elapsed)}  {self.what}{left}"[:COLUMNS]
