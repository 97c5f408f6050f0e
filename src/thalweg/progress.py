"""The progress bar of a training run."""

import sys
from typing import Any


class Progress:
    """A bar on a terminal, a line every tenth of the run elsewhere; images done, speed and the last figures."""

    def __init__(self, shown: bool, title: str, images: int, seconds: float | None) -> None:
        self.shown, self.title, self.images, self.seconds = shown, title, images, seconds
        self.bar: Any = None
        self.tenth = -1

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
