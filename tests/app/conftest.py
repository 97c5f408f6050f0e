"""Small models, a run and a detector that the page's tests show."""

import threading

import numpy
import pytest

import thalweg as tw
from thalweg.app.server import Page
from thalweg.app.shelf import Shelf


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """A run of digits with its guard's event and a picture, a model of points, one of samples only, a detector of rows."""
    home = tmp_path_factory.mktemp("app")
    tiny = dict(images=64, batch=32, width=16, blocks=1, levels=20, sample_steps=3)
    digits = tw.method("egc/digits", **tiny)
    tw.fit(digits, tw.data.load("digits"), home / "digits", held_out=tw.data.load("digits", "validation").all(), progress=False)
    with (home / "digits" / "stats.jsonl").open("a") as file:
        file.write('{"images": 64, "event": "diverged at 64 images; back to 32 images"}\n')
    (home / "digits" / "samples").mkdir(exist_ok=True)
    tw.plot.grid(tw.data.load("digits").all().x[:4], home / "digits" / "samples" / "000000000064.png")
    net = {"kind": "mlp", "width": 16, "depth": 1}
    dual = tw.method("dual/digits", conditional=True, sample_steps=3, net=net).eval()
    generator = tw.random.seeded(0)
    for parameter in dual.parameters():  # which starts with labels that do nothing
        parameter.data += 0.1 * tw.random.normal_like(parameter.data, generator)
    tw.save(dual, home / "dual")
    tw.save(tw.method("short_run/moons", width=8, steps=2, sample_steps=3, buffer=512).eval(), home / "moons")
    tw.save(tw.method("wgan_gp/digits").eval(), home / "gan")
    rows = numpy.random.default_rng(0).normal(size=(60, 2))
    tw.EnergyDetector(members=2, updates=20, random_state=0).fit(rows).save(home / "rows")
    return home


@pytest.fixture(scope="session")
def shelf(folders):
    return Shelf([str(folders / name) for name in ("digits", "dual", "moons", "gan", "rows")])


@pytest.fixture(scope="session")
def server(shelf):
    with Page(shelf) as page:
        thread = threading.Thread(target=page.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield page
        page.shutdown()
        thread.join()
