"""A run killed with SIGKILL at random moments, and started again each time, ends bit-equal to one that was never killed."""

import random
from pathlib import Path

import pytest

from studies.checks.resume import METHODS, Starter, difference, run_with_kills

IMAGES = 1280  # 80 updates and 40 states


@pytest.mark.parametrize("name", METHODS)
def test_killed_runs_end_bit_equal(name, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    with Starter() as starter:
        assert starter.run(name, whole, IMAGES) == 0
        tally = run_with_kills(starter, name, broken, kills=3, draw=random.Random(17), images=IMAGES)
    assert tally.kills == 3 and tally.starts == 4
    assert difference(whole, broken) is None


def test_a_difference_is_seen(tmp_path):
    import torch

    from thalweg import checkpoint

    def state(folder: str, weight: float) -> Path:
        (tmp_path / folder).mkdir()
        checkpoint.save(tmp_path / folder, {"images": 16, "elapsed": weight, "method": {"w": torch.tensor([1.0, weight])}})
        return tmp_path / folder

    a = state("a", 2.0)
    assert difference(a, a) is None
    assert difference(a, state("b", 2.0000002384185791)) == "method/w"
