import os
import tempfile

import pytest
import torch

from thalweg import precision
from thalweg.progress import Beat

_LATENTS = tempfile.TemporaryDirectory()  # latents of tests are no use to anybody later
os.environ["THALWEG_LATENTS"] = _LATENTS.name
Beat.tick = None  # on a slow machine lines would come by time among those that tests look for; `test_progress` sets it


@pytest.fixture(autouse=True)
def same_weights():
    """Networks that a test builds without a seed have the same weights every time, and in whatever order tests run."""
    torch.manual_seed(0)


@pytest.fixture
def native_bf16(monkeypatch):
    """bfloat16 on any processor: what is small does not take long where PyTorch stands in for instructions that are not there."""
    monkeypatch.setattr(precision, "native", lambda device: True)
