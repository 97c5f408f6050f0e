"""Means of classes: those of all that was seen, whatever the order, and none without labels."""

import torch
from torch.nn import functional as F

from thalweg import random
from thalweg.nn.class_means import ClassMeans


def alone(value):
    """The mean over one process."""
    return value


def batch(key: int, n: int = 12):
    generator = random.seeded(1, key)
    return random.normal(n, 1, 4, 4, generator=generator), random.normal(n, 3, generator=generator)


def test_means_are_those_of_everything_seen():
    means, seen = ClassMeans(3, (1, 4, 4), 3), []
    for key in range(4):
        (x, z), label = batch(key), torch.arange(12) % (2 if key < 2 else 3)
        means.add(x, z, label, alone)
        seen.append((x, z, label))
        assert means.complete == (key >= 2) and means.has(torch.tensor([0, 1]))
        assert means.has(torch.tensor([2])) == (key >= 2)
    x, z, label = (torch.cat(parts) for parts in zip(*seen))
    images, latents = means.of(torch.tensor([2, 0]))
    for row, k in enumerate((2, 0)):
        torch.testing.assert_close(images[row], x[label == k].mean(0))
        torch.testing.assert_close(latents[row], F.normalize(z[label == k].mean(0), dim=0))
    assert means.count.tolist() == [float((label == k).sum()) for k in range(3)]


def test_two_processes_keep_the_means_of_both_batches():
    """Each process adds its batch with the mean over both: the means are those of the joint batch, counts half of it."""
    (x, z), label = batch(0), torch.arange(12) % 2
    whole = ClassMeans(2, (1, 4, 4), 3)
    whole.add(x, z, label, alone)
    parts = [(x[half], z[half], label[half]) for half in (slice(0, 5), slice(5, 12))]
    rows = [F.one_hot(part[2], 2).to(part[1]).T for part in parts]
    means = [
        torch.stack([r.sum(1) for r in rows]).mean(0),
        torch.stack([r @ part[1] for r, part in zip(rows, parts)]).mean(0),
        torch.stack([r @ part[0].flatten(1) for r, part in zip(rows, parts)]).mean(0),
    ]
    rank = ClassMeans(2, (1, 4, 4), 3)
    answers = iter(means)
    rank.add(*parts[0], lambda value: next(answers))
    torch.testing.assert_close(rank.images, whole.images)
    torch.testing.assert_close(rank.latents, whole.latents)


def test_without_labels_nothing_is_kept():
    for means, label in ((ClassMeans(3, (1, 4, 4), 3), None), (ClassMeans(0, (1, 4, 4), 3), torch.zeros(12, dtype=torch.int64))):
        before = {key: value.clone() for key, value in means.state_dict().items()}
        means.add(*batch(0), label, alone)
        means.add(*batch(0), torch.zeros(12, 2, dtype=torch.int64), alone)
        assert all(torch.equal(value, before[key]) for key, value in means.state_dict().items()) and not means.complete
