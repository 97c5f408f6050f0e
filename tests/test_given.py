"""Every public function of `tw.evaluate` and `tw.tasks` takes what `tw.data.of` takes, with the result that tensors give."""

import inspect
import math
from dataclasses import astuple, is_dataclass
from types import SimpleNamespace

import numpy
import pandas
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import thalweg as tw
from thalweg import evaluate, given, random, tasks
from thalweg.chain import Langevin
from thalweg.errors import InputError
from thalweg.evaluate.bins import Bins

GREY = random.integers(80 * 64, 0, 256, generator=random.seeded(41)).view(80, 1, 8, 8).byte()
X = GREY.float() / 127.5 - 1  # the very floats that pictures of grey values become
Y = torch.arange(80) % 3
V = random.normal(60, 2, generator=random.seeded(42)) * torch.tensor([1.0, 30.0]) + torch.tensor([0.0, 500.0])
W = torch.arange(60) % 2
SMALL = X[:4]
MASK = torch.ones(8, 8).tril()
EXTRACTOR = evaluate.Extractor((1, 8, 8), 3, width=8)


class Able(nn.Module):
    """A model of images [1, 8, 8] that is able to do everything, in the shortest way."""

    name, trained_on, units, default_guidance, log_z = "able", None, None, None, None
    latent_shape, held, inference, chain = (1, 8, 8), {}, None, Langevin(steps=2, step=0.1)
    config = SimpleNamespace(shape=(1, 8, 8), classes=3, data="digits")
    device = torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))
        self.abilities = {"energy", "classify", "denoise", "constraint", "reconstruct", "start", "invert", "translate", "restore_latent"}

    def energy(self, x: Tensor) -> Tensor:
        return self.weight * x.square().flatten(1).sum(1)

    def classify(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3].log_softmax(1)

    def denoise(self, y: Tensor, std: float, seed: int) -> Tensor:
        return y * 0.5

    def reconstruct(self, x: Tensor, mask: Tensor | None = None, *, steps: int, seed: int = 0) -> SimpleNamespace:
        return SimpleNamespace(x=x * 0.5)

    def invert(self, x: Tensor, *, seed: int) -> Tensor:
        return x * 2

    def generate(self, m: Tensor) -> Tensor:
        return m.tanh()

    informed_energy = energy

    def sample(self, n: int, *, seed: int = 0, start: Tensor | None = None, constraint=None, trace=None) -> Tensor:
        x = torch.zeros(n, 1, 8, 8) if start is None else start
        x = x if constraint is None else constraint(x, 1.0, 0.5)
        generator = random.seeded(seed)
        return tw.sample.langevin(self.energy, x, steps=3, step=0.1, generator=generator, trace=trace)


ABLE = Able().requires_grad_(False).eval()
TOY = tw.data.toy("8gaussians")
BASE = evaluate.Gaussian(torch.zeros(2), 1.0)
SCENE = dict(appearance=random.normal(2, 3, generator=random.seeded(43)), shape=random.normal(2, 2, generator=random.seeded(44)))


@pytest.fixture(scope="module")
def scene():
    """An untrained model of objects in space, without cameras."""
    from tests.tasks.test_scenes import method

    return method(poses="unknown")


def bowl(x: Tensor) -> Tensor:
    return x.square().flatten(1).sum(1) / 2


def noisy_bowl(y: Tensor, *, sigma: float) -> Tensor:
    """That of N(0, (1 + σ²) I), normalised."""
    return (y.square() / (1 + sigma**2) + math.log(2 * math.pi * (1 + sigma**2))).flatten(1).sum(1) / 2


DUAL = tw.method("dual/vectors", shape=(2,), sigma_max=1000.0, **{"net.width": 8, "net.depth": 1}).requires_grad_(False).eval()

CALLS = {
    "accuracy": dict(logits=ABLE.classify, x=X, y=Y),
    "calibration": dict(logits=ABLE.classify, x=X, y=Y, bootstrap=20),
    "calibration_from_probabilities": dict(p=ABLE.classify(X).exp(), y=Y, bootstrap=20),
    "class_accuracy": dict(samples=X, labels=Y, extractor=EXTRACTOR),
    "count_modes": dict(labels=Y, target=torch.tensor([0.25, 0.25, 0.5])),
    "dequantise": dict(x=X, bins=Bins(2 / 255, 256), generator=0),
    "energies": dict(method=ABLE, x=X),
    "energy_distance": dict(x=V[:30], y=V[30:]),
    "energy_distance_interval": dict(x=X[:30], y=X[30:]),
    "fidelity": dict(real=X, samples=X.flip(3), extractor=EXTRACTOR, held_out=-X, cache=False, subsets=4),
    "fitted_base": dict(x=V),
    "frechet_distance": dict(real=X, samples=X.flip(3), extractor=EXTRACTOR, held_out=-X, cache=False),
    "frechet_from_features": dict(real=V[:30], fake=V[30:]),
    "grey_bins": dict(x=X),
    "histogram_variation": dict(x=V / 100, toy=TOY),
    "knn": dict(train_z=V[:40], train_y=W[:40], test_z=V[40:], test_y=W[40:]),
    "linear_probe": dict(train_z=V[:40], train_y=W[:40], test_z=V[40:], test_y=W[40:]),
    "level_bounds": dict(energy=noisy_bowl, base=BASE, levels=[2.0, 1.0, 0.5], x=V / 100, walks=4),
    "log_likelihood": dict(energy=bowl, x=V, log_z=1.0),
    "log_partition": dict(energy=bowl, base=BASE, samples=V / 100, chains=8, temperatures=4, step=0.1),
    "memorisation": dict(samples=X[:20], train=X[20:40], held_out=X[40:]),
    "mode_coverage": dict(samples=V / 100, toy=TOY),
    "nearest_neighbours": dict(samples=X[:20], train=X[20:], k=2),
    "ood": dict(inlier_scores=V[:30, 0], outlier_scores=V[30:, 0], bootstrap=20),
    "ood_table": dict(method=ABLE, inliers=X[:40], outliers={"negative": -X[40:]}, reference=X[:20], bootstrap=20),
    "outlier_scores": dict(method=ABLE, x=X[:20], reference=X[20:]),
    "outliers": dict(kind="shuffled", like=X, n=3),
    "perfect_sampler": dict(target=torch.tensor([0.25, 0.25, 0.5]), n=20),
    "psnr": dict(original=X, restored=X.flip(3)),
    "reference_statistics": dict(images=X, extractor=EXTRACTOR, cache=False),
    "restoration": dict(original=X, restored=X.flip(3), observed=-X),
    "robustness": dict(logits=ABLE.classify, x=X[:6], y=Y[:6], epsilons=(0.1,), steps=2, restarts=1),
    "ssim": dict(original=X, restored=X.flip(3)),
    "stacked_modes": dict(samples=X[:30].expand(-1, 3, -1, -1), extractor=EXTRACTOR, held_out=(X[30:60].expand(-1, 3, -1, -1), None)),
    "train_extractor": dict(x=X, label=Y, config=evaluate.ExtractorConfig(images=256, width=8)),
    "tsne": dict(z=V, perplexity=5.0),
    "classify": dict(method=ABLE, x=SMALL),
    "consistency": dict(operator=tasks.operators.mask(MASK), x=SMALL, y=SMALL.flip(3)),
    "coverage": dict(completions=torch.stack([SMALL, -SMALL]), x=SMALL, mask=MASK),
    "denoise": dict(method=ABLE, y=SMALL, std=0.1),
    "detect": dict(energies=V[:5, 0], inliers=V[5:, 0]),
    "diversity": dict(completions=torch.stack([SMALL, -SMALL]), mask=MASK),
    "estimate_noise": dict(method=DUAL, y=V[:4]),
    "inpaint": dict(method=ABLE, x=SMALL, mask=MASK, completions=2),
    "intrinsic_dimension": dict(method=DUAL, x=V[:4], sigma=1.0),
    "interpolate": dict(method=ABLE, a=SMALL[0], b=SMALL[1], steps=3),
    "latents": dict(method=ABLE, x=SMALL),
    "mean_fill": dict(x=SMALL, mask=MASK, train=X),
    "nearest_fill": dict(x=SMALL, mask=MASK, train=X),
    "pose": dict(method="scene", x=X[:2].expand(-1, 3, -1, -1)),
    "recombine": dict(method="scene", n=2),
    "recombine_latents": dict(method="scene", **SCENE),
    "reconstruct": dict(method=ABLE, x=SMALL),
    "restore": dict(method=ABLE, y=SMALL[:, :, :4, :4], operator=tasks.operators.average_pool(2), completions=2),
    "restore_latent": dict(method=ABLE, y=SMALL[:, :, :4, :4], operator=tasks.operators.average_pool(2), latent_steps=2, steps=2),
    "slerp": dict(a=SMALL[0], b=SMALL[1], weights=torch.tensor([0.0, 0.5])),
    "translate": dict(method=ABLE, x=SMALL, frames=2),
    "turntable": dict(method="scene", frames=2, **SCENE),
}
# which take no examples, or (the last three) data with labels or cameras of their own
OTHERS = {"bits_per_dimension", "cost", "density", "draw_objects", "wilson", "extractor", "extractor_by_name", "new_views"}
OTHERS |= {"fit_factor", "compose_factors"}  # of latents, as a model infers them


def test_the_table_of_calls_is_complete():
    public = {name for home in (evaluate, tasks) for name in home.__all__ if inspect.isfunction(getattr(home, name))}
    assert set(CALLS) | OTHERS == public and not set(CALLS) & OTHERS


def plain(value) -> list:
    """The numbers and words of a result, in order."""
    if isinstance(value, Tensor):
        return value.detach().double().flatten().tolist()
    if is_dataclass(value):
        return plain(astuple(value))
    if isinstance(value, evaluate.FeatureStatistics):
        return plain((value.mean, value.covariance, value.count))
    if isinstance(value, nn.Module):
        return plain(list(value.parameters()))
    if isinstance(value, evaluate.Gaussian):
        return plain((value.mean, value.log_prob(V)))
    if isinstance(value, dict):
        return plain(list(value.items()))
    return [part for one in value for part in plain(one)] if isinstance(value, list | tuple) else [value]


def same(found, wanted) -> bool:
    one, two = plain(found), plain(wanted)
    numbers = [isinstance(value, float) for value in two]
    near = all(a == pytest.approx(b, rel=1e-4, abs=1e-5) or (a != a and b != b) for a, b, is_ in zip(one, two, numbers) if is_)
    return near and [a for a, is_ in zip(one, numbers) if not is_] == [b for b, is_ in zip(two, numbers) if not is_]


def array(x: Tensor) -> numpy.ndarray:
    return x.double().numpy() if x.is_floating_point() else x.numpy()


def frame(x: Tensor):
    return pandas.DataFrame(array(x), columns=[f"column {i}" for i in range(x.shape[1])])


def grey(x: Tensor) -> numpy.ndarray:
    """Pictures of grey values as other libraries hold them: uint8 [N, H, W, C]."""
    return ((x + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def dataset(x: Tensor, y: Tensor | None):
    return TensorDataset(*(x,) if y is None else (x, y))


FORMS = {
    "arrays": lambda x, y: array(x) if y is None else (array(x), array(y)),
    "lists": lambda x, y: x.tolist() if y is None else (array(x), y.tolist()),
    "a Dataset": dataset,
    "a DataLoader": lambda x, y: DataLoader(dataset(x, y), batch_size=7, shuffle=True),
    "Data": lambda x, y: tw.data.of(array(x), y),
    "pictures of grey values": lambda x, y: grey(x) if y is None else (grey(x), y),
    "a DataFrame": lambda x, y: frame(x) if y is None else (frame(x), array(y)),
}


def formed(function, arguments: dict, form: str) -> dict:
    """The arguments in a form that fits them: examples and their labels in one, numbers as arrays."""
    kinds = {name: given._kind(one.annotation) for name, one in inspect.signature(function).parameters.items()}
    found, names = {}, list(arguments)
    for name, after in zip(names, [*names[1:], None]):
        value, kind = arguments[name], kinds.get(name)
        label = arguments[after] if after and kinds.get(after) == "labels" else None
        fits = (
            (kind == "examples" or (kind == "batches" and form != "lists"))
            and isinstance(value, Tensor)
            and value.dim() == (2 if form == "a DataFrame" else 4 if "grey" in form else value.dim())
        )
        if fits:
            found[name] = FORMS[form](value, label)
        elif kind == "labels":
            if not (found and isinstance(arguments[names[names.index(name) - 1]], Tensor) and carries(found[names[names.index(name) - 1]])):
                found[name] = value.tolist() if form == "lists" else array(value)
        elif kind == "kinds":
            found[name] = {key: FORMS["arrays"](x, None) for key, x in value.items()}
        elif kind == "labelled":
            found[name] = (array(value[0]), None)
        elif kind in ("numbers", "examples") and isinstance(value, Tensor):
            found[name] = value.tolist() if form == "lists" else value.numpy()
        else:
            found[name] = value
    return found


def carries(value) -> bool:
    """Whether examples bring labels along."""
    source = value.dataset if isinstance(value, DataLoader) else value
    return isinstance(value, tuple) or len(getattr(source, "tensors", ())) == 2 or getattr(value, "label", None) is not None


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CALLS)
def test_every_function_takes_what_holds_examples(name, form, scene, monkeypatch):
    monkeypatch.setattr(evaluate.likelihood.warnings, "warn", lambda *_, **__: None)  # of chains that are cut short
    function = getattr(evaluate if name in evaluate.__all__ else tasks, name)
    arguments = (
        {key: scene if value == "scene" else value for key, value in CALLS[name].items()} if "method" in CALLS[name] else CALLS[name]
    )
    made = [
        {k: random.seeded(v) if k == "generator" else v for k, v in one.items()} for one in (arguments, formed(function, arguments, form))
    ]
    wanted, found = (function(**one) for one in made)
    assert same(found, wanted), (plain(found)[:8], plain(wanted)[:8])


# --- what only some forms have


def test_pairs_stand_for_two_arguments_wherever_they_are():
    z, y = array(V), array(W)
    wanted = evaluate.knn(V[:40], W[:40], V[40:], W[40:])
    assert evaluate.knn((z[:40], y[:40]), (z[40:], y[40:])) == wanted == evaluate.knn(z[:40], y[:40], (z[40:], y[40:]))
    assert evaluate.knn(train_z=(z[:40], y[:40]), test_z=(z[40:], y[40:])) == wanted
    assert evaluate.accuracy(ABLE.classify, (X, Y)) == evaluate.accuracy(ABLE.classify, X, Y) == evaluate.accuracy(ABLE.classify, x=(X, Y))
    samples = evaluate.class_accuracy((X, Y), EXTRACTOR)
    assert samples == evaluate.class_accuracy(X, Y, EXTRACTOR) == evaluate.class_accuracy(X, labels=Y, extractor=EXTRACTOR)
    held_out = X[:9].expand(-1, 3, -1, -1)
    counted = evaluate.stacked_modes(held_out, EXTRACTOR, held_out=(held_out, torch.arange(9)))
    assert evaluate.stacked_modes(held_out, EXTRACTOR, held_out=TensorDataset(held_out, torch.arange(9))) == counted
    assert torch.equal(evaluate.energies(ABLE, (X, Y)), ABLE.energy(X))


WRONG = {
    "labels twice": (lambda: evaluate.accuracy(ABLE.classify, (X, Y), Y), "accuracy: labels are given twice, with x and as y"),
    "by name": (lambda: evaluate.accuracy(ABLE.classify, x=(X, Y), y=Y), "accuracy: labels are given twice"),
    "no labels": (lambda: evaluate.accuracy(ABLE.classify, X), r"accuracy: x has no labels; give y \[N\], or a pair"),
    "a name": (lambda: evaluate.energies(ABLE, "digits"), r"energies: x is a name; .* tw.data.load\('digits', 'test'\)"),
    "few": (lambda: evaluate.accuracy(ABLE.classify, (array(X), array(Y)[1:])), "accuracy: x: 80 examples and 79 labels"),
    "words": (lambda: evaluate.knn((V, ["a", "b"] * 30), (V, W)), "knn: train_z: labels in words need a model"),
    "fractions": (lambda: evaluate.accuracy(ABLE.classify, X, [0.5] * 80), "accuracy: y: labels must be whole numbers"),
    "one label": (lambda: evaluate.accuracy(ABLE.classify, X, "kind"), r"accuracy: y: labels must be \[N\].* got 'kind'"),
    "ragged": (lambda: evaluate.energies(ABLE, [[1.0], [1.0, 2.0]]), "energies: x needs an array, got a list of parts that differ"),
    "text": (lambda: evaluate.energies(ABLE, [["a"]]), "energies: x: an array of <U1; examples must be numbers"),
    "dark": (lambda: evaluate.energies(ABLE, numpy.full((2, 8, 8), 9)), "energies: x: integers from 9 to 9 would be nearly black"),
    "no dict": (lambda: evaluate.ood_table(ABLE, X, X), "ood_table: outliers needs a dict"),
    "nothing": (lambda: evaluate.energies(ABLE, []), "energies"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_meant_is_said(case):
    call, message = WRONG[case]
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_pictures_in_0_to_1_are_told(capsys):
    unit = array((X + 1) / 2)
    torch.testing.assert_close(evaluate.energies(ABLE, unit), ABLE.energy(X))
    assert "energies: x: floats from 0 to 1, taken for [0, 1]" in capsys.readouterr().err
    assert torch.equal(evaluate.energies(ABLE, (X + 1) / 2), ABLE.energy((X + 1) / 2))  # a tensor is as models give it


def test_what_is_made_of_arrays_is_that_of_tensors(scene):
    mean, wide = torch.tensor([0.5, -1.0]), torch.tensor([[2.0, 0.3], [0.3, 1.0]])
    base = evaluate.Gaussian(array(mean), covariance=array(wide))
    torch.testing.assert_close(base.log_prob(V), evaluate.Gaussian(mean, covariance=wide).log_prob(V))
    assert evaluate.Gaussian([0.0, 0.0], 2.0).sample(3).dtype is torch.float32
    for make, one in (
        (lambda a: tasks.operators.matrix(a, (1, 8, 8)), torch.eye(64)[:9]),
        (lambda a: tasks.operators.blur(kernel=a), torch.ones(3, 3) / 9),
    ):
        torch.testing.assert_close(make(array(one)).forward(SMALL), make(one).forward(SMALL))
    assert evaluate.density(TOY.log_prob, "8gaussians", grid=16) == evaluate.density(TOY.log_prob, TOY, grid=16)
    columns = frame(V)
    assert evaluate.ood(columns["column 0"], columns["column 1"], bootstrap=20) == evaluate.ood(V[:, 0], V[:, 1], bootstrap=20)
    assert evaluate.mode_coverage(array(V), "8gaussians") == evaluate.mode_coverage(V, TOY)
    with pytest.raises(InputError, match="ringz"):
        evaluate.mode_coverage(V, "ringz")


def test_a_stream_stands_by_its_first_examples(capsys):
    assert abs(evaluate.energy_distance(TOY.sample(500, generator=random.seeded(3)), TOY)) < 0.1
    assert "energy_distance: y: 8gaussians is a stream, of which the first 1,000 examples are taken" in capsys.readouterr().err


@pytest.fixture(scope="module")
def table():
    """A classifier of a table with words for labels, in the table's own units, and the table."""
    frame = pandas.DataFrame(array(V), columns=["width", "price"]).assign(kind=numpy.where(V[:, 1] > 500, "dear", "cheap"))
    data = tw.data.of(frame, label="kind")
    model = tw.fit(tw.method("egc/vectors", data=data, images=20_000, batch=100), data, progress=False)
    return model, frame


def test_rows_of_a_table_are_in_its_own_units(table):
    model, frame = table
    wanted = model.energy(V)
    for x in (frame[["width", "price"]], frame[["price", "width"]], frame.assign(more=1.0), tw.data.of(frame, label="kind"), array(V)):
        torch.testing.assert_close(evaluate.energies(model, x), wanted, rtol=1e-4, atol=1e-4)
    assert evaluate.outlier_scores(model, frame[["width", "price"]], ["joint"])["joint"].shape == (60,)
    with pytest.raises(InputError, match="energies: x has no column 'price', which the model was trained on; its columns are width, cost"):
        evaluate.energies(model, frame[["width"]].assign(cost=1.0))


def test_words_are_the_model_s_classes(table):
    model, frame = table
    y = (V[:, 1] > 500).long()
    wanted = evaluate.accuracy(model.classify, V, y)
    assert wanted.value > 0.9
    plain = frame[["width", "price"]]
    for pair in ((plain, frame["kind"]), (array(V), frame["kind"].tolist()), (plain, array(y)), tw.data.of(frame, label="kind")):
        assert evaluate.accuracy(model.classify, pair) == wanted
    assert evaluate.accuracy(model.classify, frame.rename(columns={"kind": "label"})) == wanted
    dear = frame[frame["kind"] == "dear"]  # alone these would be class 0
    assert evaluate.accuracy(model.classify, tw.data.of(dear, label="kind")).value > 0.8
    with pytest.raises(InputError, match="the label 'free' is none of the classes cheap, dear"):
        evaluate.accuracy(model.classify, plain, ["free"] * 60)


def test_labels_that_do_not_begin_at_0_are_told_by_their_values():
    y = array(Y) + 4
    data = tw.data.of((array(X), y))
    model = tw.method("egc/digits", data=data)
    model.trained_on = tw.data.record.record(data)
    wanted = evaluate.accuracy(model.classify, X, Y)
    assert evaluate.accuracy(model.classify, (X, y)) == wanted == evaluate.accuracy(model.classify, data)
    five = tw.data.of((array(X), y)).x[Y == 1]
    assert evaluate.accuracy(model.classify, TensorDataset(five, torch.full((len(five),), 5))).n == len(five)
    with pytest.raises(InputError, match="the label '0' is none of the classes 4, 5, 6"):
        evaluate.accuracy(model.classify, (X, array(Y)))


@pytest.mark.parametrize("name", CALLS)
def test_the_default_dtype_changes_nothing(name, scene, monkeypatch):
    monkeypatch.setattr(evaluate.likelihood.warnings, "warn", lambda *_, **__: None)
    function = getattr(evaluate if name in evaluate.__all__ else tasks, name)
    arguments = {k: scene if v == "scene" else v for k, v in CALLS[name].items()} if "method" in CALLS[name] else CALLS[name]
    made = lambda: {k: random.seeded(v) if k == "generator" else v for k, v in arguments.items()}  # noqa: E731
    wanted = function(**made())
    torch.set_default_dtype(torch.float64)
    try:
        found = function(**made())
    finally:
        torch.set_default_dtype(torch.float32)
    assert plain(found) == plain(wanted) or same(found, wanted)
