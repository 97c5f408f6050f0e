"""Every method takes steps and draws samples with all of its tensors on a device that is not the CPU (tests/foreign.py): nothing is left
on the CPU, no generator is of another device, values are those of the CPU, chains do not make the host wait. This file is also the program
that does so, in a process of its own.
"""

import json
import os
import subprocess
import sys
import traceback
from collections import Counter
from pathlib import Path

import pytest
import torch

import thalweg as tw
from thalweg import camera, random, sample
from thalweg.config import all_fields, changed
from thalweg.data import Batch, ViewBatch
from thalweg.energy import score
from thalweg.methods import METHODS, preset
from thalweg.methods.base import has

SMALL = {  # preset and fields that make it quick; one more where a method has ways that do not meet
    "short_run": [("digits-conditional", {"net.widths": (8, 8), "buffer": 16}), ("8gaussians", {"net.width": 8, "buffer": 16})],
    "egc": [("digits", {"net.width": 8, "net.blocks": 1})],
    "dual": [("digits", {"net": {"kind": "mlp", "width": 8, "depth": 1}, "conditional": True})],
    "cdrl": [("digits-conditional", {"net.width": 8, "net.depth": 1}), ("8gaussians", {"net.width": 8, "net.depth": 1})],
    "ddaebm": [("8gaussians", {"net.width": 8, "net.depth": 1}), ("25gaussians-weighted", {"net.width": 8, "net.depth": 1})],
    "jem": [("digits", {"net.width": 8, "net.blocks": 1, "buffer": 16})],
    "coopflow": [("digits", {"net.width": 8, "net.depth": 1, "couplings": 1, "initializer.width": 8})],
    "cf_ebm": [("digits", {"net.width": 8, "stage_images": (8, 8), "images": 16})],
    "nerf_lebm": [("objects", {"field.width": 8, "field.mapping": 8, "renderer.samples": 4}), ("objects-mcmc", {"field.width": 8})],
    "autoencoder": [("fashion-mnist", {"widths": (8, 8, 8)})],
    "ssl": [("digits", {})],
    "ddpm": [("digits", {"net.width": 8, "net.depth": 1, "conditional": True})],
    "wgan_gp": [("digits", {"critic_steps": 2})],
    "liebm": [("digits", {"net.width": 8, "net.depth": 1})],
}
LENGTHS = ("steps", "stage_steps", "sample_steps")
CASES = [(name, *case) for name in METHODS for case in SMALL[name]]


def config_of(name: str, key: str, fields: dict, length: int):
    kind, config = preset(f"{name}/{key}")
    lengths = {}
    for field in all_fields(config):
        if field.rpartition(".")[2] in LENGTHS:
            lengths[field] = (length,) * 2 if field == "stage_steps" else length
        elif field.rpartition(".")[2] == "compile":
            lengths[field] = False
    return kind, changed(config, batch=4, warm_up=0, **lengths, **fields)


def batch_of(config, method, count: int = 4):
    x = random.uniform(count, *config.shape, low=-1.0, high=1.0, generator=random.seeded(3))
    if has(method, "views"):
        angle = camera.unit_vector(torch.linspace(0.1, 1.3, count))
        return ViewBatch(x, None, camera.orbit(angle, angle, distance=4.0, focal=1.866), torch.arange(count) // config.views)
    return Batch(x, torch.arange(count) % config.classes if config.classes else None)


def moved_batch(batch):
    return type(batch)(*(None if part is None else foreign.Foreign(part) for part in batch))


def two_steps(method, batch) -> tuple[tw.methods.base.Method, dict]:
    """The twin after two steps, and what was logged."""
    update = tw.update(method, seed=1)
    for _ in range(2):
        update.step(batch)
    return update.ema, update.figures()


def samples(model) -> torch.Tensor:
    given = {"start": batch_of(model.config, model, 2).x.to(model.device)} if has(model, "given") else {}
    return model.sample(2, seed=5, **given)


def built(name: str, key: str, fields: dict, length: int = 2):
    kind, config = config_of(name, key, fields, length)
    torch.manual_seed(0)
    return kind(config)


# --- in the process that has the device


def check_method(name: str, key: str, fields: dict) -> None:
    """Steps and samples are those of the CPU; with chains of four steps in place of two the host waits as often."""
    here = built(name, key, fields)
    batch = batch_of(here.config, here)
    twin, figures = two_steps(here, batch)
    drawn = samples(twin) if has(twin, "sample") else None
    waits = []
    for length in (2, 4):
        with foreign.on_foreign() as log:
            there = foreign.moved(built(name, key, fields, length))
            other, found = two_steps(there, moved_batch(batch))
            others = None if drawn is None else samples(other)
            waits.append(Counter(log))
            if length == 2:
                # not the weights: Adam's first step is the sign of a gradient, which may be nothing but rounding
                assert figures and found == {key: pytest.approx(value, rel=1e-3, abs=1e-4) for key, value in figures.items()}
                assert all(isinstance(p, foreign.Foreign) for p in there.parameters())
                if drawn is not None:
                    torch.testing.assert_close(others.here, drawn, rtol=1e-4, atol=1e-4)
    more = {line: count - waits[0][line] for line, count in waits[1].items() if count > waits[0][line]}
    assert not more, f"with longer chains the host waits more often: {more}"


def energy(x):
    return 0.5 * x.flatten(1).square().sum(1)


def chain(of, steps: int, device: str) -> torch.Tensor:
    return sample.langevin(of, foreign.Foreign(torch.zeros(4, 2)), steps=steps, generator=random.seeded(0, device=device))


def a_tensor_left_on_the_cpu() -> None:
    scale = torch.ones(4, 2)
    with foreign.on_foreign(), pytest.raises(foreign.Misplaced, match="one on the CPU"):
        chain(lambda x: energy(x * scale), 1, foreign.NAME)


def a_generator_of_the_cpu() -> None:
    with foreign.on_foreign(), pytest.raises(foreign.Misplaced, match="found one of cpu"):
        chain(energy, 1, "cpu")


def a_wait_in_a_chain() -> None:
    def looks(x):
        return energy(x) if x.abs().max() < 1e3 else energy(2 * x)

    waits = []
    for steps in (3, 5):
        for of in (energy, looks):
            with foreign.on_foreign() as log:
                assert chain(of, steps, foreign.NAME).device.type == foreign.NAME
                waits.append(len(log))
    assert waits == [1, 4, 1, 6]  # at its end, and at each step


def values() -> None:
    x = torch.randn(3, 4)
    with foreign.on_foreign() as log:
        y = foreign.Foreign(x)
        assert torch.equal(score(energy, y).here, -x) and y.device.type == foreign.NAME and not log
        assert (y > 0).any().item() and torch.equal(y.cpu(), x) and y.sum().tolist() == pytest.approx(float(x.sum()))
        assert len(log) == 3
        assert torch.equal(y[y > 0].here, x[x > 0]) and len(log) == 4


FAULTS = (a_tensor_left_on_the_cpu, a_generator_of_the_cpu, a_wait_in_a_chain, values)
CHECKS = {f"{name}/{key}": (check_method, name, key, fields) for name, key, fields in CASES}
CHECKS |= {check.__name__: (check,) for check in FAULTS}


def main(chosen: list[str]) -> None:
    said = {}
    for name in chosen or CHECKS:
        check, *arguments = CHECKS[name]
        try:
            check(*arguments)
            said[name] = None
        except Exception:
            said[name] = traceback.format_exc()
    print(json.dumps(said))


# --- what it says


@pytest.fixture(scope="module")
def said():
    """By check: nothing, or where it went wrong."""
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert not done.returncode, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", CHECKS)
def test_on_another_device(name, said):
    assert said[name] is None, said[name]


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import foreign

    main(sys.argv[1:])
