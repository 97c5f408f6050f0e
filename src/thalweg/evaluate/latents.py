"""What latent vectors know of the labels: a linear probe, nearest neighbours, and a picture in the plane by t-SNE."""

import warnings
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor

from thalweg.errors import InputError, require
from thalweg.evaluate.accuracy import Accuracy, wilson
from thalweg.given import Labels, Numbers, takes

ITERATIONS = 2000


@dataclass(frozen=True)
class LinearProbe:
    """Share of test latents that a linear classifier trained on others gets right, with its 95 % Wilson interval.

    `train_accuracy` in [0, 1]: its share on the `train` latents it was trained on; far above `accuracy` it overfits: take
    more latents or a smaller `inverse_penalty`. `chance`: the test share of the training set's most common class.
    `converged`: whether the optimiser finished within 2000 iterations.
    """

    accuracy: Accuracy
    train_accuracy: float
    chance: float
    classes: int
    dimensions: int
    train: int
    inverse_penalty: float
    converged: bool


@dataclass(frozen=True)
class KNNProbe:
    """Share of test latents whose `k` nearest `train` latents elect the right label, with its 95 % Wilson interval.

    `metric`: "euclidean" or "cosine". `chance`: the test share of the training set's most common class.
    """

    accuracy: Accuracy
    k: int
    metric: str
    chance: float
    classes: int
    dimensions: int
    train: int


@takes
def linear_probe(train_z: Numbers, train_y: Labels, test_z: Numbers, test_y: Labels, *, inverse_penalty: float = 1.0) -> LinearProbe:
    """Multinomial logistic regression on standardised latents, by scikit-learn: what a linear map can read from them.

    train_z [N, D], test_z [M, D] (further dimensions are flattened), train_y [N], test_y [M] whole numbers. Each dimension
    is brought to mean 0 and deviation 1 of the training latents. It minimises inverse_penalty Σ cross-entropy + ‖W‖²/2, the
    `C` of scikit-learn. Raises InputError on NaN, mismatched lengths, fewer than 2 classes, or test labels not in training.
    """
    linear_model = require("sklearn.linear_model", "metrics")
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if not inverse_penalty > 0:
        raise InputError(f"inverse_penalty: got {inverse_penalty!r}, need a positive number")
    x, y, test_x, truth, about = _labelled(train_z, train_y, test_z, test_y)
    classifier = linear_model.LogisticRegression(C=inverse_penalty, max_iter=ITERATIONS)
    model = make_pipeline(StandardScaler(), classifier)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it is told by `converged`
        model.fit(x, y)
    return LinearProbe(
        accuracy=wilson(int((model.predict(test_x) == truth).sum()), len(truth)),
        train_accuracy=float((model.predict(x) == y).mean()),
        inverse_penalty=float(inverse_penalty),
        converged=bool((classifier.n_iter_ < ITERATIONS).all()),
        **about,
    )


@takes
def knn(
    train_z: Numbers, train_y: Labels, test_z: Numbers, test_y: Labels, *, k: int = 5, metric: str = "euclidean", standardise: bool = False
) -> KNNProbe:
    """Label each test latent by the majority of its k nearest training latents, by scikit-learn; the lowest label wins a tie.

    Shapes and errors as in `linear_probe`; k from 1 to N. metric: "euclidean" or "cosine". standardise: bring each dimension
    to mean 0 and deviation 1 of the training latents first, where their units differ.
    """
    neighbors = require("sklearn.neighbors", "metrics")
    from sklearn.preprocessing import StandardScaler

    x, y, test_x, truth, about = _labelled(train_z, train_y, test_z, test_y)
    if not (isinstance(k, Integral) and 1 <= k <= len(x)):
        raise InputError(f"k: got {k!r}, need a whole number from 1 to {len(x)}, the number of training latents")
    if metric not in ("euclidean", "cosine"):
        raise InputError(f"metric: got {metric!r}, need euclidean or cosine")
    if standardise:
        scaler = StandardScaler().fit(x)
        x, test_x = scaler.transform(x), scaler.transform(test_x)
    model = neighbors.KNeighborsClassifier(k, metric=metric).fit(x, y)
    return KNNProbe(accuracy=wilson(int((model.predict(test_x) == truth).sum()), len(truth)), k=k, metric=metric, **about)


@takes
def tsne(z: Numbers, *, perplexity: float | None = None, seed: int = 0) -> Tensor:
    """Lay latents [N, D] (further dimensions are flattened) out in the plane by t-SNE of scikit-learn, [N, 2] float32.

    A picture of who is near whom: distances between groups, their sizes and the axes mean nothing. perplexity: about how
    many neighbours count, from 1 to below N; None for 30, or a third of N where that is less. The same seed gives the same
    picture on the same machine; `thalweg.plot.embedding` draws it. (van der Maaten and Hinton 2008.)
    """
    manifold = require("sklearn.manifold", "metrics")
    x = _vectors("z", z)
    perplexity = min(30.0, max(1.0, len(x) / 3)) if perplexity is None else perplexity
    if not 1 <= perplexity < len(x):
        raise InputError(f"perplexity: got {perplexity!r} for {len(x)} latents, need at least 1 and fewer than there are")
    if len(torch.from_numpy(x).unique(dim=0)) < 2:
        raise InputError("z: all latents are equal, need at least two different ones")
    init = "pca" if x.shape[1] > 1 else "random"
    return torch.from_numpy(manifold.TSNE(2, perplexity=perplexity, init=init, random_state=seed).fit_transform(x)).float()


def _labelled(train_z: Tensor, train_y: Tensor, test_z: Tensor, test_y: Tensor):
    """Latents and labels as arrays, and what every report says of them."""
    x, test_x = _vectors("train_z", train_z), _vectors("test_z", test_z, least=1)
    if x.shape[1] != test_x.shape[1]:
        raise InputError(f"test_z: {test_x.shape[1]} values a latent, but train_z has {x.shape[1]}")
    for name, labels, latents in (("train_y", train_y, x), ("test_y", test_y, test_x)):
        if labels.shape != (len(latents),) or labels.is_floating_point():
            raise InputError(f"{name}: got {labels.dtype} {list(labels.shape)}, need whole numbers [{len(latents)}], one for each latent")
    y, truth = train_y.detach().cpu().long(), test_y.detach().cpu().long()
    values, counts = y.unique(return_counts=True)
    if len(values) < 2:
        raise InputError(f"train_y: all {len(y)} labels are {int(values[0])}, need two classes or more")
    unknown = sorted(set(truth.tolist()) - set(values.tolist()))
    if unknown:
        raise InputError(f"test_y: the labels {unknown[:5]} are not in train_y, so that no classifier could give them")
    chance = float((truth == values[counts.argmax()]).double().mean())
    about = {"chance": chance, "classes": len(values), "dimensions": x.shape[1], "train": len(x)}
    return x, y.numpy(), test_x, truth.numpy(), about


def _vectors(name: str, z: Tensor, least: int = 2):
    if z.dim() < 2 or len(z) < least or z[0].numel() < 1 or not z.is_floating_point():
        raise InputError(f"{name}: got {z.dtype} {list(z.shape)}, need floating-point latents [N, D] with N ≥ {least}")
    if not z.isfinite().all():
        raise InputError(f"{name}: {int((~z.isfinite()).flatten(1).any(1).sum())} of {len(z)} latents hold NaN or infinity")
    return z.detach().cpu().flatten(1).double().numpy()
