"""Every panel of `thalweg app` used in a browser as a person would, at 1200 and at 390 pixels: python -m studies.checks.app_pages

Needs chromium (Debian: apt install chromium) and `pip install 'thalweg[browser]'`. A model of the zoo, a toy and a detector trained for
some seconds, and a training that runs meanwhile are shown by a server of its own. What a panel does not do, requests that leave this
machine, errors of the page, text wider than the screen, and files left behind are faults; with one the exit code is 1. Pictures of the
panels go to docs/images, at most 120 kB each.
"""

import contextlib
import csv
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from studies.runner import Check, Options

WIDTHS = (1200, 390)
HEIGHT = 900
LARGEST = 120_000  # bytes of a picture
FREED = 8.0  # seconds from giving up a long drawing to the answer of a short one, on such a machine
PATIENCE = 120_000  # milliseconds for one answer, on a machine that does other things
ZOO = "zoo:dual-fashion-mnist"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def thalweg(*words: str, **options: Any) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "thalweg.cli", *words], text=True, **options)


def done(home: Path, *words: str) -> None:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "cwd": home}
    with thalweg(*words, **quiet) as process:
        if process.wait():
            raise SystemExit(f"thalweg {' '.join(words)}: {process.stderr.read() if process.stderr else ''}")


def prepare(home: Path) -> None:
    """A toy, a detector of rows, rows with two strange ones, and files that are not what they should be."""
    import numpy

    draw = numpy.random.default_rng(0)

    def write(name: str, rows: Any) -> None:
        with (home / name).open("w", newline="") as file:
            csv.writer(file).writerows([["height", "weight", "age"], *rows.round(4).tolist()])

    def people(n: int) -> Any:
        return draw.normal(size=(n, 3)) @ numpy.array([[1, 0.8, 0], [0, 1, 0], [0, 0, 2]]) + [5, 4, 30]

    write("normal.csv", people(400))
    new = people(20)
    new[3], new[11] = [9, -2, 30], [5, 4, 60]
    write("new.csv", new)
    (home / "note.txt").write_text("no picture\n")
    (home / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnot a picture")
    done(home, "train", "short_run/moons", "--images", "20000", "--out", "runs/moons")
    done(home, "detect", "fit", "normal.csv", "--out", "detectors/people", "--seconds", "10")


@contextlib.contextmanager
def training(home: Path) -> Iterator[None]:
    """A training that goes on, with a learning rate too high for it now and then, so that its guard has something to do."""
    out = home / "runs" / "digits"
    sizes = "--sample-steps 10 --images 2000000 --log-every 512 --sample-every 8000 --save-every 4000"
    words = ("train", "egc/digits", "--lr", "0.3", *sizes.split())
    with thalweg(*words, "--out", "runs/digits", cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 480
            while not list(out.glob("samples/*.png")) and process.poll() is None:
                if time.monotonic() > deadline:
                    raise SystemExit("the training has made no picture in eight minutes")
                time.sleep(1)
            yield
        finally:
            process.terminate()


@contextlib.contextmanager
def served(names: list[str], home: Path, scratch: Path) -> Iterator[str]:
    """The address of a page of these names, whose temporary files would lie in `scratch`."""
    environment = os.environ | {"TMPDIR": str(scratch)}
    with thalweg("app", *names, "--port", "0", "--no-browser", stdout=subprocess.PIPE, env=environment, cwd=home) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line.startswith("page: http://127.0.0.1:"):
                raise SystemExit(f"the server says {line!r}")
            yield line.removeprefix("page: ").strip()
        finally:
            process.terminate()


class User:
    """Somebody at one page: what is clicked and seen there. `faults` collects what is wrong."""

    def __init__(self, page: Any, address: str, width: int, pictures: Path) -> None:
        self.page, self.address, self.width, self.pictures = page, address, width, pictures
        self.faults: list[str] = []
        self.sizes: dict[str, int] = {}
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: self._leaves(request.url))
        page.on("pageerror", lambda error: self.faults.append(f"error in the page: {error}"))
        page.on("console", self._said)
        page.goto(address)
        page.wait_for_selector("body[data-ready=yes]")

    def _leaves(self, url: str) -> None:
        if not url.startswith((self.address, "data:", "blob:")):
            self.faults.append(f"a request leaves: {url[:100]}")

    def _said(self, message: Any) -> None:
        # what the server refuses, the browser notes as an error too
        if message.type in ("error", "warning") and "status of 400" not in message.text:
            self.faults.append(f"the browser says: {message.text[:200]}")

    def choose(self, model: str, panel: str) -> Any:
        self.page.select_option("#model", model)
        self.page.click(f"#tabs [data-panel={panel}]")
        return self.page.locator(f"#{panel}")

    def slide(self, section: Any, name: str, value: float) -> None:
        section.locator(f"[name={name}]").evaluate(
            "(field, value) => { field.value = value; field.dispatchEvent(new Event('input')); field.dispatchEvent(new Event('change')); }",
            value,
        )

    def says(self, section: Any, text: str, where: str = ".status") -> None:
        section.locator(where, has_text=text).first.wait_for()

    def until(self, holds: str) -> None:
        """Wait until a JavaScript expression holds, asked from outside: the page lets nothing but its own files run."""
        deadline = time.monotonic() + PATIENCE / 1000
        while not self.page.evaluate(holds):
            if time.monotonic() > deadline:
                self.faults.append(f"never came: {holds}")
                return
            time.sleep(0.1)

    def rested(self, panel: str) -> None:
        """Wait until a panel computes nothing."""
        self.until(f"!document.querySelector('#{panel}').classList.contains('working')")

    def press(self, section: Any, name: str) -> None:
        section.get_by_role("button", name=name, exact=True).click()

    def count(self, section: Any, selector: str, expected: int) -> None:
        found = section.locator(selector).count()
        if found != expected:
            self.faults.append(f"{selector}: {found} in place of {expected}")

    def shoot(self, name: str) -> None:
        """A picture of the whole page, in a palette, and whether anything is wider than the screen."""
        from PIL import Image

        self.page.evaluate("window.scrollTo(0, 0)")
        wide = self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        if wide > 0:
            self.faults.append(f"{name}: {wide} pixels wider than the screen")
        image = Image.open(io.BytesIO(self.page.screenshot(full_page=True))).convert("RGB")
        path = self.pictures / f"app_{name}_{self.width}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        for colours in (256, 128, 64, 32):
            image.quantize(colours, dither=Image.Dither.NONE).save(path, optimize=True)
            if path.stat().st_size <= LARGEST:
                break
        self.sizes[path.name] = path.stat().st_size
        if path.stat().st_size > LARGEST:
            self.faults.append(f"{path.name} has {path.stat().st_size} bytes")


def landscape(user: User, home: Path) -> None:
    section = user.choose(ZOO, "landscape")
    section.locator("[name=first]").select_option("8gaussians")
    user.says(section, "Chains start evenly spread")
    user.press(section, "Walk")
    section.locator(".status", has_text="of exact draws").wait_for()
    user.until("parseInt(document.querySelector('#landscape .status').textContent) >= 100")
    user.press(section, "Pause")
    section.locator("[name=sampler]").select_option("mala")
    section.locator("[name=second]").select_option("rings")
    user.says(section, "Chains start evenly spread")
    user.slide(section, "weight2", -0.4)
    user.says(section, "Chains start evenly spread")
    user.slide(section, "temperature", 0.2)
    user.press(section, "Walk")
    user.says(section, "% accepted")
    user.until("parseInt(document.querySelector('#landscape .status').textContent) >= 100")
    user.press(section, "Pause")
    if section.locator("canvas.map").get_attribute("data-shown") != "150":
        user.faults.append("not all chains are shown")
    user.shoot("landscape")
    section = user.choose("runs/moons", "landscape")
    user.says(section, "Chains start evenly spread")
    if section.locator("[name=first]").input_value() != "runs/moons":
        user.faults.append("the toy's model is not what its landscape shows")
    section.locator("[name=sampler]").select_option("hmc")
    user.press(section, "Walk")
    user.says(section, "% accepted")
    user.press(section, "Start anew")
    user.says(section, "Chains start evenly spread")


def draw(user: User, home: Path) -> None:
    section = user.choose(ZOO, "draw")
    section.locator("[name=steps]").fill("20")
    user.slide(section, "count", 20)
    user.press(section, "Draw")
    user.says(section, "20 samples, seed 0")
    user.count(section, ".result img", 20)
    section.locator("[name=label]").select_option("sneaker")
    user.slide(section, "guidance", 2)
    user.slide(section, "count", 8)
    user.press(section, "Next seed")
    user.says(section, "8 samples, seed 1")
    user.count(section, ".result img", 8)
    section.locator("[name=label]").select_option("each")
    user.slide(section, "count", 20)
    user.press(section, "Draw")
    user.says(section, "20 samples, seed 1")
    user.shoot("draw")
    compose(user, section)
    given_up(user, section)
    section.locator("[name=steps]").fill("0")
    section.locator("form").evaluate("form => { form.noValidate = true; }")
    user.press(section, "Draw")
    user.says(section, "steps must be a whole number from 1 to 1000", ".status.wrong")
    section = user.choose("runs/moons", "draw")
    user.press(section, "Draw")
    user.says(section, "400 samples")
    user.count(section, ".result canvas", 1)


def compose(user: User, section: Any) -> None:
    """Two labels at once, one of them denied."""
    section.locator("[name=label]").select_option("dress")
    user.slide(section, "guidance", 1.5)
    user.press(section, "Add a label")
    section.locator(".concept select").select_option("shirt")
    section.locator(".concept input").evaluate("field => { field.value = -1; field.dispatchEvent(new Event('input')); }")
    user.slide(section, "count", 12)
    user.press(section, "Draw")
    user.says(section, "by E(x) + 1.5 [E(x | dress) − E(x)] − 1 [E(x | shirt) − E(x)]")
    user.count(section, ".result img", 12)
    user.shoot("compose")
    section.locator(".concept .remove").click()
    user.count(section, ".concept", 0)


def given_up(user: User, section: Any) -> None:
    """A long drawing is cancelled, another one asked anew, a third one left: each time the turn is free at once."""
    section.locator("[name=label]").select_option("")
    section.locator("[name=steps]").fill("1000")
    user.slide(section, "count", 36)
    user.press(section, "Draw")
    user.says(section, "drawing … 2 s", ".busy")
    user.press(section, "Cancel")
    user.says(section, "cancelled after 2 s")
    for leave in ("asked anew", "left"):
        section.locator("[name=steps]").fill("1000")
        user.slide(section, "count", 36)
        user.press(section, "Draw")
        user.says(section, "drawing … 1 s", ".busy")
        if leave == "left":
            user.page.click("#tabs [data-panel=repair]")
            user.page.click("#tabs [data-panel=draw]")
            user.says(section, "cancelled, as you left")
        section.locator("[name=steps]").fill("2")
        user.slide(section, "count", 1)
        started = time.monotonic()
        user.press(section, "Draw")
        user.says(section, "1 samples")
        if time.monotonic() - started > FREED:
            user.faults.append(f"{leave}: the next one took {time.monotonic() - started:.1f} s")


def fill(user: User, home: Path) -> None:
    section = user.choose(ZOO, "fill")
    user.press(section, "Fill in")
    user.says(section, "there is no picture yet", ".status.wrong")
    section.locator("[name=label]").select_option("dress")
    user.press(section, "Take a sample")
    user.rested("fill")
    user.press(section, "Fill in")
    user.says(section, "nothing is painted over yet", ".status.wrong")
    canvas = section.locator("canvas.brush")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    for row in (0.6, 0.7, 0.8, 0.9):
        user.page.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + row * box["height"])
        user.page.mouse.down()
        user.page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + row * box["height"], steps=24)
        user.page.mouse.up()
    hidden = int(canvas.get_attribute("data-hidden") or 0)
    if not 150 < hidden < 500:
        user.faults.append(f"the brush has hidden {hidden} pixels")
    user.press(section, "Fill in")
    user.says(section, "4 completions in")
    user.count(section, ".result img", 6)
    user.shoot("fill")
    section.locator("[name=picture]").set_input_files(home / "note.txt")
    user.says(section, "note.txt cannot be read as a picture", ".status.wrong")
    section.locator("[name=way]").select_option("constraint")
    section.locator("[name=picture]").set_input_files(home / "sample.png")
    user.rested("fill")
    user.press(section, "Lower half")
    user.press(section, "Fill in")
    user.says(section, "4 completions in")


def repair(user: User, home: Path) -> None:
    section = user.choose(ZOO, "repair")
    section.locator("[name=label]").select_option("pullover")
    user.press(section, "Repair")
    user.says(section, "repaired in")
    user.count(section, ".result img", 3)
    section.locator("[name=kind]").select_option("blur")
    user.slide(section, "width", 1.5)
    user.press(section, "Repair")
    user.says(section, "repaired in")
    user.count(section, ".result img", 6)
    section.locator("[name=kind]").select_option("coarse")
    section.locator("[name=factor]").select_option("2")
    user.press(section, "Repair")
    user.says(section, "repaired in")
    user.count(section, ".result img", 6)
    user.shoot("repair")
    section.locator("[name=kind]").select_option("noise")
    section.locator("[name=picture]").set_input_files(home / "sample.png")
    section.locator("[name=already]").check()
    user.press(section, "Repair")
    user.says(section, "repaired in")
    user.count(section, ".result img", 2)
    section.locator("[name=picture]").set_input_files(home / "broken.png")
    user.press(section, "Repair")
    user.says(section, "broken.png cannot be read as a picture", ".status.wrong")


def detect(user: User, home: Path) -> None:
    section = user.choose("detectors/people", "detect")
    section.locator("[name=files]").set_input_files(home / "new.csv")
    user.says(section, "of 20 are outliers", ".verdict")
    user.count(section, ".result tr", 21)
    section.locator("[name=files]").set_input_files(home / "sample.png")
    user.says(section, "is no table", ".status.wrong")
    user.choose("detectors/people", "draw")
    user.says(user.page.locator("#draw"), "This is a detector of outliers", ".why")
    section = user.choose(ZOO, "detect")
    section.locator("[name=files]").set_input_files([home / "sample.png", home / "noise.png"])
    user.says(section, "1 of 2 is an outlier", ".verdict")
    section.locator("[name=files]").set_input_files([home / "sample.png", home / "note.txt"])
    user.says(section, "note.txt cannot be read as a picture", ".status.wrong")
    user.press(section, "Try made-up pictures")
    user.says(section, "of 10 are outliers", ".verdict")
    user.count(section, ".result img", 10)
    user.slide(section, "alpha", -1.0)
    user.says(section, "At α = 0.1,")
    user.shoot("detect")


def watch(user: User, home: Path) -> None:
    section = user.choose("runs/digits", "watch")
    user.until("Number(document.querySelector('#watch').dataset.looked) >= 2")
    first = section.locator(".progress").text_content()
    if section.locator(".charts canvas").count() < 3:
        user.faults.append("fewer than 3 curves")
    section.locator(".latest img").wait_for()
    user.until(f"document.querySelector('#watch .progress').textContent !== {json.dumps(first)}")
    user.shoot("watch")


PANELS: dict[str, Callable[[User, Path], None]] = {
    "landscape": landscape, "draw": draw, "fill": fill, "repair": repair, "detect": detect, "watch": watch,
}  # fmt: skip


def together(browser: Any, address: str) -> list[str]:
    """Two users at once get what each gets alone; one that waits sees who is before, and goes on when that one gives up."""
    pages = [browser.new_context().new_page() for _ in range(2)]
    pictures: dict[int, list[Any]] = {0: [], 1: []}
    for page in pages:
        page.set_default_timeout(PATIENCE)
        page.goto(f"{address}#draw")
        page.wait_for_selector("body[data-ready=yes]")
        page.locator("#draw [name=steps]").fill("5")
    for turn in (pages, pages[:1], pages[1:]):
        for page in turn:
            page.locator("#draw [name=seed]").fill(str(pages.index(page)))
            page.evaluate("document.querySelector('#draw .result').replaceChildren()")
            page.locator("#draw [type=submit]").click()
        for page in turn:
            page.locator("#draw .result img").nth(9).wait_for()
            pictures[pages.index(page)].append(page.locator("#draw .result img").evaluate_all("all => all.map(one => one.src)"))
    for page in pages:
        page.locator("#draw [name=steps]").fill("1000" if page is pages[0] else "2")
        page.locator("#draw [type=submit]").click()
        page.locator("#draw .busy", has_text="drawing" if page is pages[0] else "1 before you").wait_for()
    pages[0].locator("#draw .busy button").click()
    pages[1].locator("#draw .status", has_text="samples").wait_for()
    same = all(both == alone for both, alone in pictures.values())
    return [] if same and pictures[0][0] != pictures[1][0] else ["two users at once do not get what each gets alone"]


def uploads(home: Path) -> None:
    """Pictures to upload: a sample of the zoo's model and noise."""
    import torch
    from PIL import Image

    import thalweg as tw

    sample = tw.load(ZOO).sample(1, seed=3, label=7)[0, 0]
    for name, x in (("sample", sample), ("noise", tw.random.uniform(28, 28, low=-1.0, generator=tw.random.seeded(0)))):
        Image.fromarray(((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()).save(home / f"{name}.png")


def run(options: Options) -> dict:
    from thalweg.errors import require

    api = require("playwright.sync_api", "browser")
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        raise SystemExit("there is no chromium here: apt install chromium")
    results: dict[str, Any] = {"pages": {}, "pictures": {}, "faults": []}
    wanted = [name for name in PANELS if name in options.panels]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        home, scratch = Path(folder), Path(folder) / "scratch"
        scratch.mkdir()
        prepare(home)
        uploads(home)
        stack.enter_context(training(home))
        address = stack.enter_context(served([ZOO, "runs/moons", "detectors/people", "runs/digits"], home, scratch))
        play = stack.enter_context(api.sync_playwright())
        browser = play.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-background-networking"])
        results["browser"] = f"{Path(program).name} {browser.version}"
        for width in WIDTHS:
            page = browser.new_context(viewport={"width": width, "height": HEIGHT}).new_page()
            user = User(page, address, width, options.pictures)
            for name in wanted:
                started = time.monotonic()
                try:
                    PANELS[name](user, home)
                except api.Error as error:
                    user.faults.append(str(error).splitlines()[0])
                    page.screenshot(path=options.pictures / f"fault_{name}_{width}.png", full_page=True)
                results["faults"] += [f"{name} at {width}: {fault}" for fault in user.faults]
                results["pages"][f"{name} at {width}"] = {"seconds": round(time.monotonic() - started, 1), "faults": len(user.faults)}
                print(f"{name:10} {width:5}  {results['pages'][f'{name} at {width}']}  {user.faults}", flush=True)
                user.faults.clear()
            results["pictures"] |= user.sizes
            page.context.close()
        results["faults"] += together(browser, address)
        browser.close()
        left = [str(path.relative_to(scratch)) for path in scratch.rglob("*")]
        results["faults"] += [f"left behind: {name}" for name in left]
    print("\n".join(results["faults"]) or "no faults")
    return results


CHECK = Check(
    "app_pages", __doc__, run, dict(pictures=Path("docs/images"), panels=list(PANELS)), failed=lambda found: bool(found["faults"])
)

if __name__ == "__main__":
    CHECK.main()
