"""What stats.jsonl says of chains: how far they moved, how rough their ends are; and that every method with chains of images says it."""

import pytest
import torch
from helpers import Recorder

import thalweg as tw
from thalweg import random, sample
from thalweg.data.base import Batch
from thalweg.sample import Trace
from thalweg.trace import roughness

# few pixels, short chains
METHODS = {
    "short_run/digits": dict(batch=8, buffer=8, steps=2, widths=(4, 8)),
    "jem/digits": dict(batch=8, buffer=8, steps=2, width=8, blocks=1),
    "cf_ebm/digits": dict(batch=8, width=2, stage_steps=(2, 2)),
    "coopflow/digits": dict(batch=8, pretrain=0, **{"chain.steps": 2}),
    "cdrl/digits": dict(batch=8, **{"chain.steps": 2}),
    "liebm/digits": dict(batch=8, **{"chain.steps": 2}),
}


def test_roughness_is_the_mean_absolute_laplacian():
    rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(5.0), indexing="ij")
    ramp, board = rows + 2 * columns, 1 - 2 * ((rows + columns) % 2)
    bowl = rows**2 / 2
    found = roughness(torch.stack([ramp, board, bowl])[:, None])
    torch.testing.assert_close(found, torch.tensor([0.0, 8.0, 1.0]))  # no curve; ±1 in turn; a second derivative of 1
    of_channels = roughness(torch.stack([board, ramp])[None])
    torch.testing.assert_close(of_channels, torch.tensor([4.0]))


def test_figures_compare_samples_with_data():
    board = (1 - 2 * ((torch.arange(8)[:, None] + torch.arange(8)) % 2)).float().expand(4, 1, 8, 8)
    trace = Trace()
    trace.close(torch.zeros(4, 1, 8, 8), 3 * board)
    found = trace.figures(board, 3 * board)
    assert set(found) == {"displacement", "roughness"}
    torch.testing.assert_close(found["displacement"], torch.full((4,), 3.0))
    assert float(found["roughness"]) == pytest.approx(3)
    assert bool(trace.figures(0 * board, board)["roughness"].isfinite()), "data without any edge"
    vectors = Trace()
    vectors.close(torch.zeros(4, 2), torch.ones(4, 2))
    assert set(vectors.figures(torch.zeros(4, 2), torch.ones(4, 2))) == {"displacement"}


@pytest.mark.parametrize("name", METHODS)
def test_methods_with_chains_of_images_log_what_chains_do(name):
    method, update = tw.method(name, seed=0, **METHODS[name]), Recorder(1)
    update.ema, update.optimizers, update.mean = method, method.optimizers(), lambda value: value
    x = random.uniform(8, *method.config.shape, low=-1.0, high=1.0, generator=random.seeded(2))
    method.step(Batch(x, torch.arange(8) % max(1, method.config.classes)), update)
    assert {"energy_data", "energy_samples", "displacement", "roughness"} <= set(update.logged)
    assert float(update.logged["displacement"].mean()) > 0 and float(update.logged["roughness"]) > 0


def test_the_mean_is_that_of_the_states_after_the_second_half_of_the_steps():
    """A chain that is given the trace again begins it anew."""
    trace, x = Trace(keep=8, average=True), torch.tensor([[1.0, 2.0]])
    for start in (5 * x, x):
        sample.langevin(lambda x: 0.5 * x.square().sum(1), start, steps=7, step=0.5, noise=0.0, trace=trace)
    torch.testing.assert_close(trace.mean, trace.states[4:].mean(0))
    torch.testing.assert_close(trace.states[:, 0, 0], 0.875 ** torch.arange(8.0))
