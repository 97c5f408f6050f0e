"""Guidance and composition: the sums of the thesis, labels that are checked and left out."""

import math

import pytest
import torch
from torch import Tensor

from thalweg import random
from thalweg.errors import InputError
from thalweg.guidance import all_of, asked_for, checked_labels, given, some_left_out

BOUND = 4.5
CPU = torch.device("cpu")


def value(x: Tensor, t: int = 0, label: Tensor | None = None) -> Tensor:
    """Linear in x, other for each label, the same for none of either kind."""
    label = torch.full((len(x),), -1) if label is None else label
    return (1.0 + label) * x + t


def test_one_label():
    x, label = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2, 0, -1])
    assert given(value, []) is value
    assert torch.equal(given(value, asked_for(label, 1.0))(x, t=5), value(x, 5, label)), "guidance 1 is p(x | label)"
    free, with_label = value(x, 5), value(x, 5, label)
    for guidance in (0.0, 0.5, 3.0, -1.0):
        found = given(value, asked_for(label, guidance))(x, t=5)
        assert torch.allclose(found, free + guidance * (with_label - free)), "a row without a label is never moved"


def test_several_concepts_and_those_that_nobody_asks_for():
    x, label = torch.tensor([1.0, 2.0]), torch.tensor([[2, -1, 1], [0, -1, -1]])
    asked = asked_for(label, [1.0, 7.0, -1.0])
    assert [weight for _, weight in asked] == [1.0, -1.0]
    free = value(x)
    expected = free + (value(x, 0, label[:, 0]) - free) - (value(x, 0, label[:, 2]) - free)
    assert torch.allclose(given(value, asked)(x, t=0), expected)
    assert asked_for(None, 2.0) == [] == asked_for(torch.tensor([-1, -1]), 2.0)
    with pytest.raises(InputError, match="one guidance for each of 3 concepts is needed, got 2"):
        asked_for(label, [1.0, 2.0])


def test_labels_are_checked():
    assert checked_labels(2, 3, 3, CPU).tolist() == [2, 2, 2]
    assert checked_labels(torch.tensor([[0, -1]]), 1, 3, CPU).tolist() == [[0, -1]]
    for label in (3, -2, torch.tensor([0, 1]), torch.zeros(3, 1, 1, dtype=torch.int64)):
        with pytest.raises(InputError, match=r"3 labels between 0 and 2 \(−1 for none\) are needed"):
            checked_labels(label, 3, 3, CPU)


def test_label_dropping_is_the_share_of_labels_left_out():
    label = torch.arange(6000) % 3
    found = some_left_out(label, 0.3, random.seeded(10))
    kept = found >= 0
    assert torch.equal(found[kept], label[kept])
    assert abs(float((~kept).float().mean()) - 0.3) < BOUND * math.sqrt(0.3 * 0.7 / 6000)
    pairs = torch.stack([torch.zeros(6000), torch.ones(6000)], 1).long()
    picked = some_left_out(pairs, 0.3, random.seeded(11))
    shares = torch.bincount(picked + 1, minlength=3) / 6000
    for share, expected in zip(shares.tolist(), (0.3, 0.35, 0.35)):
        assert abs(share - expected) < BOUND * math.sqrt(0.25 / 6000), "one concept of each row, drawn evenly"


def test_concepts_that_are_learned_together():
    """A share of the rows keeps all of its labels, the others one, and some none."""
    pairs = torch.stack([torch.zeros(6000), torch.ones(6000)], 1).long()
    found = some_left_out(pairs, 0.1, random.seeded(12), together=0.75)
    kinds = {kind: (found == torch.tensor(kind)).all(1).float().mean() for kind in ((0, 1), (0, -1), (-1, 1), (-1, -1))}
    for share, expected in zip(kinds.values(), (0.9 * 0.75, 0.9 * 0.125, 0.9 * 0.125, 0.1)):
        assert abs(float(share) - expected) < BOUND * math.sqrt(expected * (1 - expected) / 6000)
    assert float(sum(kinds.values())) == pytest.approx(1)
    assert [weight for _, weight in all_of(pairs)] == [1.0, 1.0]
