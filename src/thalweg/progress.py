"""What a training says of itself: how long it will be, how far it is and how long it has left, and of what comes after its last step."""

import sys
import time
from typing import Any

PACE = 20  # steps after which the length of a training is told, or fewer if they take so many seconds:
SOON = 5.0
APART = 0.25  # lines of a log file are this share of the time so far apart, at least SOON seconds and at most
RARE = 300.0
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

    def __enter__(self) -> "Progress":
        if self.shown:
            print(self.title, file=sys.stderr, flush=True)
        if self.shown and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            done, text = TextColumn("[progress.percentage]{task.percentage:>3.0f}%"), TextColumn("{task.fields[text]}")
            self.bar = Progress(done, BarColumn(bar_width=16), text, console=Console(stderr=True))
            self.task = self.bar.add_task("", total=1.0, text="first step")
            self.bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self.bar is not None:
            self.bar.stop()

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
            self.bar.update(self.task, completed=self.done(images, elapsed), text=self._text(images, elapsed, COLUMNS - 23))
        elif elapsed >= self.next_line or images >= self.images:
            self.next_line = elapsed + min(RARE, max(SOON, APART * (elapsed - self.begun[1])))
            print(f"{self.done(images, elapsed):4.0%}  {self._text(images, elapsed, COLUMNS - 6)}", file=sys.stderr, flush=True)

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
        if self.pictures is not None and self.pictures < self.images:
            text += f"; pictures every {duration(self.pictures / rate)}"
        if self.bar is not None:
            self.bar.console.print(text)
        else:
            print(text, file=sys.stderr, flush=True)

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
            self.next_concluding = elapsed + min(RARE, max(SOON, APART * elapsed))
            print(f"{share:4.0%}  {duration(elapsed)}  {text}", file=sys.stderr, flush=True)


class Work:
    """Lines on standard error on how far a work is that is no training: one within five seconds, then less and less often.

    `what` is worked on; nothing is said of what is done before that, nor unless `shown`.
    """

    def __init__(self, what: str, *, shown: bool = True) -> None:
        self.what, self.shown, self.since, self.next_line = what, shown, time.monotonic(), SOON

    def note(self, share: float) -> None:
        """Note that `share` in (0, 1] is done."""
        elapsed = time.monotonic() - self.since
        if self.shown and 0 < share < 1 and elapsed >= self.next_line:
            self.next_line = elapsed + min(RARE, max(SOON, APART * elapsed))
            left = duration(elapsed * (1 - share) / share)
            print(f"{share:4.0%}  {duration(elapsed)}  {self.what}: about {left} left", file=sys.stderr, flush=True)
