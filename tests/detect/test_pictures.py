"""Pictures as numbers: what the detector of pictures tells apart, and what it refuses."""

import json
import time

import numpy
import pytest
import torch

import thalweg as tw
from thalweg.detect import choice, density, energies, graph, pictures, ship
from thalweg.detect.graph import Look
from thalweg.detect.pictures import DIRECTIONS, Pictures
from thalweg.errors import InputError
from thalweg.evaluate.ood import ood, outliers


@pytest.fixture(scope="module")
def digits() -> tuple[tw.EnergyDetector, torch.Tensor]:
    train, test = (tw.data.load("digits", split).all().x for split in ("train", "test"))
    return tw.EnergyDetector(members=2, updates=150, random_state=0).fit(train), test


@pytest.mark.parametrize("kind", ["uniform", "noise", "constant", "shuffled", "black", "grey", "white"])
def test_pictures_that_are_no_digits_are_found(digits, kind: str) -> None:
    detector, test = digits
    plain = {"black": -1.0, "grey": 0.0, "white": 1.0}
    strange = torch.full((20, 1, 8, 8), plain[kind]) if kind in plain else outliers(kind, test, 200)
    found = ood(torch.from_numpy(-detector.score_samples(test)), torch.from_numpy(-detector.score_samples(strange)))
    assert found.auroc > 0.97
    assert (detector.predict(strange) == -1).mean() > 0.85


def test_false_alarms_on_new_digits(digits) -> None:
    detector, test = digits
    for alpha in (0.05, 0.1):
        alarms = int((detector.p_value(test) <= alpha).sum())
        assert alarms <= detector.conformal_.false_alarms(alpha, len(test), confidence=0.999)


def test_a_detector_of_pictures_survives_a_disk(digits, tmp_path) -> None:
    detector, test = digits
    found = tw.EnergyDetector.load(detector.save(tmp_path / "d"))
    numpy.testing.assert_array_equal(found.score_samples(test), detector.score_samples(test))
    assert found.pictures_.shape == (1, 8, 8)


@pytest.fixture(scope="module")
def files(digits, tmp_path_factory):
    """The detector as a file of torch.export and of ONNX."""
    folder = tmp_path_factory.mktemp("files")
    ship.export(digits[0], folder / "x.pt2", folder / "x.onnx")
    return folder


def graph_of(folder, kind: str):
    if kind == "torch":
        loaded = torch.export.load(folder / "x.pt2").module()
        return lambda x: [part.numpy() for part in loaded(x)]
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "x.onnx", providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"x": x.numpy()})


@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_a_file_gives_what_python_gives(digits, files, kind: str) -> None:
    """Scores within 1e-5 of their size; p-values and verdicts equal but where a held-out picture or the threshold is as near as that."""
    detector, test = digits
    given, black = graph_of(files, kind), torch.full((1, 1, 8, 8), -1.0)
    x = torch.cat([test[:150], outliers("noise", test, 20), outliers("shuffled", test, 20), black, -black])
    for part in (x, x[:1], black):
        score, p_value, verdict = given(part)
        wanted, p = detector.judge(part)
        room = 1e-5 * numpy.maximum(1, numpy.abs(wanted))
        assert (numpy.abs(score - wanted) <= room).all()
        certain = detector.conformal_.p_value(room - wanted) == detector.conformal_.p_value(-room - wanted)
        assert (p_value == p)[certain].all() and certain.mean() > 0.9
        assert ((verdict == 1) == (detector.predict(part) == -1))[numpy.abs(wanted - detector.offset_) > room].all()
    score, _, verdict = given(x)
    assert verdict[:150].mean() < 0.2 and verdict[150:].mean() > 0.8 and score.shape == (192,)


def test_the_file_says_what_pictures_it_takes(digits, files) -> None:
    told = json.loads((files / "x.onnx.json").read_text())
    assert told["shape"] == [1, 8, 8] and told["input"]["x"].startswith("float32 [pictures, channels, height, width] in [-1, 1]")
    assert told["outliers_below"] == digits[0].offset_ and "columns" not in told


def test_large_pictures_are_in_a_graph_as_in_python() -> None:
    x = torch.rand(40, 3, 45, 33, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pictures = Pictures.fit(x)
    numpy.testing.assert_allclose(Look(pictures)(x).numpy(), pictures.encode(x), rtol=0, atol=1e-12)


# --- pixels and a network


class StandIn(torch.nn.Module):
    """A frozen network of pictures 24 × 24, features [N, 20]."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Conv2d(3, 20, 5, 3)
        self.net.input_image_size = 24
        self.requires_grad_(False)

    def of_size(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x).relu().mean((2, 3))

    def features(self, x: torch.Tensor, *, batch: int) -> torch.Tensor:
        return self.of_size(torch.nn.functional.interpolate(x.expand(-1, 3, -1, -1), (24, 24), mode="bilinear", antialias=True))


@pytest.fixture(scope="module", autouse=True)
def stand_in():
    with pytest.MonkeyPatch.context() as patch:
        torch.manual_seed(0)
        known = StandIn()
        patch.setattr(pictures, "network", lambda name: known)
        patch.setattr(graph, "network", lambda name: known)
        yield


@pytest.fixture(scope="module")
def both(digits):
    return tw.EnergyDetector(members=2, updates=60, random_state=0, features="pixels+efficientnet-lite0").fit(digits[1][:200])


def test_the_choice_is_the_best_by_disturbed_pictures_and_is_told(both, digits) -> None:
    chosen = both.pictures_.features
    assert set(both.choice_) == {"pixels", "efficientnet-lite0", "pixels+efficientnet-lite0"}
    assert both.choice_[chosen] == max(both.choice_.values()) and all(0.5 < area <= 1 for area in both.choice_.values())
    assert any(f"judged by {chosen}" in note for note in both.notes_)
    assert both.ensemble_.energies(torch.zeros(3, len(both.columns_.outputs))).shape == (3, 5 * len(chosen.split("+")))
    assert (both.p_value(digits[1][200:]) <= 0.1).mean() < 0.3


@pytest.mark.parametrize("chosen", ["pixels", "efficientnet-lite0", "pixels+efficientnet-lite0"])
def test_every_choice_is_scored_saved_and_loaded(digits, monkeypatch, tmp_path, chosen: str) -> None:
    parts = ["pixels", "efficientnet-lite0"]
    which = tuple(parts.index(part) for part in chosen.split("+"))
    monkeypatch.setattr(choice, "choose", lambda *words: (which, {chosen: 0.9}))
    train, new = digits[1][:60], digits[1][60:90]
    detector = tw.EnergyDetector(members=2, updates=3, random_state=0, features="efficientnet-lite0+pixels").fit(train)
    assert detector.pictures_.features == chosen and detector.n_features_in_ == len(detector.columns_.outputs)
    numpy.testing.assert_array_equal(-detector.score_samples(train), detector.decision_scores_)
    loaded = tw.EnergyDetector.load(detector.save(tmp_path / "d"))
    for use in ("score_samples", "p_value", "alone", "explain", "log_density"):
        numpy.testing.assert_array_equal(getattr(loaded, use)(new), getattr(detector, use)(new))
    assert loaded.choice_ == {chosen: 0.9} and loaded.notes_ == detector.notes_
    # a part alone is judged as if it were all that was asked for
    if "+" not in chosen:
        alone = tw.EnergyDetector(members=2, updates=3, random_state=0, features=chosen).fit(train)
        numpy.testing.assert_allclose(alone.score_samples(new), detector.score_samples(new), rtol=1e-6)
    if chosen != "pixels":
        found = torch.export.load(detector.export(tmp_path / "x.pt2")).module()(new)
        numpy.testing.assert_allclose(found[0].numpy(), detector.score_samples(new), rtol=1e-5)
        assert (found[2].numpy() == (detector.predict(new) == -1)).all()


@pytest.fixture(scope="module")
def by_energies(digits):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(energies, "UPDATES", 40)
        return tw.EnergyDetector(members=2, updates=20, random_state=0, features="energies").fit(digits[1][:120])


def test_energies_are_of_pictures_one_by_one_and_come_back_from_disk(by_energies, digits, tmp_path) -> None:
    train, new = digits[1][:120], digits[1][120:150]
    assert by_energies.pictures_.features == "energies" and by_energies.n_features_in_ == 18
    numpy.testing.assert_array_equal(-by_energies.score_samples(train), by_energies.decision_scores_)
    alone = numpy.concatenate([by_energies.score_samples(new[i : i + 1]) for i in range(30)])
    numpy.testing.assert_allclose(alone, by_energies.score_samples(new), rtol=1e-5, atol=1e-5)
    loaded = tw.EnergyDetector.load(by_energies.save(tmp_path / "d"))
    numpy.testing.assert_array_equal(loaded.score_samples(new), by_energies.score_samples(new))


def test_what_energies_say_of_pictures_is_what_the_model_says(by_energies, digits) -> None:
    known = by_energies.pictures_.along["energies"]
    x = torch.as_tensor(digits[1][:3]).float()
    value, by_x, by_level = known.model.slopes(x, sigma=energies.SIGMAS[1])
    expected = torch.stack([value, by_level, (energies.SIGMAS[1] * by_x).flatten(1).square().sum(1).log()], 1).double()
    found = known(x)[:, 3:6] * known.unit[3:6] + known.centre[3:6]
    assert ((found - expected).abs() <= known.unit[3:6] / energies.GRID).all()  # rounded to a grid


def test_energies_learn_for_no_longer_than_they_may_and_say_where_they_are(digits) -> None:
    told: list[float] = []
    started = time.process_time()
    pictures.Pictures.fit(torch.as_tensor(digits[1][:60]).float(), "energies", seconds=0.5, note=told.append)
    assert time.process_time() - started < 20 and told == sorted(told) and told[-1] >= 0.9


def test_pictures_too_small_for_energies_and_their_export_are_refused(by_energies, tmp_path) -> None:
    with pytest.raises(InputError, match="4 × 4 pixels or more"):
        tw.EnergyDetector(features="energies").fit(torch.zeros(9, 1, 3, 8))
    with pytest.raises(InputError, match="cannot be exported"):
        by_energies.export(tmp_path / "x.pt2")


def test_larger_pictures_are_brought_to_sides_of_multiples_of_four() -> None:
    for sides, expected in (((45, 30), (32, 28)), ((8, 8), (8, 8)), ((5, 100), (4, 32))):
        assert tuple(energies.brought(torch.zeros(2, 3, *sides)).shape[2:]) == expected


def test_parts_are_chosen_by_how_well_they_tell_disturbed_pictures() -> None:
    draw = torch.Generator().manual_seed(0)
    fold, x = torch.arange(300) % 2, torch.zeros(300, 1, 4, 4)
    usual = torch.randn(300, 4, generator=draw).double()

    def chosen_by(*moved: float) -> str:
        def energies_of(other, fold):
            return torch.randn(len(other), 4, generator=draw).double() + torch.tensor(moved).double()

        best, areas = choice.choose(x, fold, usual, energies_of, ("a", "b"), seed=0)
        assert set(areas) == {"a", "b", "a+b"}
        return "+".join("ab"[i] for i in best)

    assert chosen_by(3, 3, 0, 0) == "a" and chosen_by(0, 0, 3, 3) == "b" and chosen_by(1, 1, 1, 1) == "a+b"


def test_disturbed_pictures_are_other_pictures() -> None:
    x = torch.rand(20, 3, 7, 5, generator=torch.Generator().manual_seed(1)) * 2 - 1
    rows = torch.arange(12)
    for change in choice.DISTURBANCES.values():
        found = change(x, rows, torch.Generator().manual_seed(0))
        assert found.shape == (12, 3, 7, 5) and found.isfinite().all() and (found != x[:12]).flatten(1).any(1).float().mean() > 0.8
    tiny = torch.zeros(4, 1, 1, 1)
    assert all(change(tiny, rows[:4], torch.Generator()).shape == tiny.shape for change in choice.DISTURBANCES.values())


def test_other_features_are_refused() -> None:
    for features, message in (("pixel", "did you mean 'pixels'"), ("", "several with"), (None, "got None")):
        with pytest.raises(InputError, match=message):
            tw.EnergyDetector(features=features).fit(torch.zeros(9, 1, 4, 4))
    with pytest.raises(InputError, match="are of pictures"):
        tw.EnergyDetector(features="efficientnet-lite0").fit(numpy.zeros((30, 2)))


# --- numbers


def test_large_pictures_are_looked_at_in_few_numbers() -> None:
    x = torch.rand(300, 3, 80, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    encoded = Pictures.fit(x).encode(x)
    assert encoded.shape[1] < 200 and numpy.isfinite(encoded).all()
    numpy.testing.assert_allclose(encoded[:, :DIRECTIONS].std(0), 1, rtol=0.05)  # but for what is compressed
    same = Pictures.fit(x)
    numpy.testing.assert_array_equal(Pictures.of_tensors(same.tensors()).encode(x[:5]), same.encode(x[:5]))


def test_tiny_pictures_and_a_single_colour_are_no_trouble() -> None:
    for x in (torch.zeros(4, 1, 1, 1), torch.zeros(30, 3, 2, 5), torch.ones(9, 1, 3, 3)):
        assert numpy.isfinite(Pictures.fit(x).encode(x)).all()


def test_what_is_no_picture_is_refused(digits) -> None:
    detector, test = digits
    for x, message in (
        (test[:3, :, :4], "1 × 4 × 8, the detector was fitted to 1 × 8 × 8"), (127 * test[:3], "values from"),
        (test[:3] * float("nan"), "NaN"), (test[:3].flatten(1), "got no pictures"), (test[:3].to(torch.uint8), "floating-point"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            detector.predict(x)
    table = tw.EnergyDetector(members=2, updates=5, random_state=0).fit(test[:60, 0, 0])
    with pytest.raises(InputError, match="a table of 8 columns, got pictures"):
        table.predict(test[:3])
    for count in (1, 2, 3):
        with pytest.raises(InputError, match=f"4 or more are needed to learn from, got {count}"):
            tw.EnergyDetector().fit(test[:count])


def test_four_pictures_are_enough_to_begin_with(digits) -> None:
    with pytest.warns(UserWarning, match="needs at least 19 rows, there are 2"):
        detector = tw.EnergyDetector(members=2, updates=2, random_state=0).fit(digits[1][:4])
    assert numpy.isfinite(detector.score_samples(digits[1])).all()


def test_what_energies_were_trained_on_is_learned_from_by_no_member():
    """Rows that are apart lie at 50 deviations: members that had learned from them would call a row there usual."""
    x, training = torch.randn(120, 2, generator=torch.Generator().manual_seed(0)), density.Training(members=2, updates=20)
    x[:40] += 50
    energies = {}
    for apart in (False, True):
        ensemble, fold = density.fit(x, training, never=torch.arange(40), apart=apart)
        assert (fold[:40] == -1).all() and (fold[40:] >= 0).all()
        energies[apart] = ensemble.energies(x[:5])[:, -1].mean()  # of the Gaussian of the rows that were learned from
    assert energies[True] > energies[False] + 100
