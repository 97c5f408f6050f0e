"""The progress bar of a training run, and of what comes after its last step."""

import sys
import time
from typing import Any


class Progress:
    """A bar on a terminal, a line every tenth of the run elsewhere; images done, speed and the last figures; then time left to its end."""

    def __init__(self, shown: bool, title: str, images: int, seconds: float | None) -> None:
        self.shown, self.title, self.images, self.seconds = shown, title, images, seconds
        self.bar: Any = None
        self.tenth = -1
        self.concluding: tuple[float, Any] | None = None  # since when, and the bar's task
        self.concluded = -1

    def __enter__(self) -> "Progress":
        if self.shown:
            print(self.title, file=sys.stderr, flush=True)
        if self.shown and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

            done, figures = TextColumn("[progress.percentage]{task.percentage:>3.0f}%"), TextColumn("{task.fields[figures]}")
            self.bar = Progress(done, BarColumn(), TimeElapsedColumn(), TimeRemainingColumn(), figures, console=Console(stderr=True))
            self.task = self.bar.add_task("", total=1.0, figures="")
            self.bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self.bar is not None:
            self.bar.stop()

    def show(self, images: int, elapsed: float, figures: dict[str, float]) -> None:
        """Note that `images` are done after `elapsed` seconds, with the last step's figures."""
        if not self.shown:
            return
        done = max(images / self.images, elapsed / self.seconds if self.seconds else 0.0)
        shown = {key.removeprefix("loss/"): value for key, value in figures.items() if not key.startswith("gradient_norm")}
        losses = " ".join(f"{key} {value:.4g}" for key, value in shown.items())
        text = f"{images:,} images, {images / max(elapsed, 1e-9):,.0f}/s  {losses}"
        if self.bar is not None:
            self.bar.update(self.task, completed=min(1.0, done), figures=text)
        elif int(10 * done) > self.tenth:
            self.tenth = int(10 * done)
            print(f"{min(1.0, done):4.0%}  {elapsed:6.0f} s  {text}", file=sys.stderr, flush=True)

    def conclude(self, share: float) -> None:
        """Note that `share` in [0, 1] of what a method does after the last step (`Method.conclude`) is done; begin with 0."""
        if not self.shown:
            return
        text = "after the last step: what the whole model is told of the data"
        if self.concluding is None:
            self.concluding = time.monotonic(), None if self.bar is None else self.bar.add_task("", total=1.0, figures=text)
        since, task = self.concluding
        if self.bar is not None:
            self.bar.update(task, completed=share)
        elif int(10 * share) > self.concluded:
            self.concluded, elapsed = int(10 * share), time.monotonic() - since
            left = f", about {elapsed * (1 - share) / share:,.0f} s left" if 0 < share < 1 else ""
            print(f"{share:4.0%}  {elapsed:6.0f} s  {text}{left}", file=sys.stderr, flush=True)
