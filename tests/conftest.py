import pytest
import torch


@pytest.fixture(autouse=True)
def same_weights():
    """Networks that a test builds without a seed have the same weights every time, and in whatever order tests run."""
    torch.manual_seed(0)
