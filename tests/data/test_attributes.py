"""Attributes: several labels an image, the coloured sets and their held-out pairs, and samples by concept."""

from types import SimpleNamespace

import numpy
import pytest
import torch

import thalweg as tw
from thalweg import cli
from thalweg.commands.pictures import picture, shown_labels
from thalweg.config import DataNeeds
from thalweg.data import Images, attributes, load
from thalweg.data.attributes import BACKGROUNDS, INKS, asked_guidance, asked_label, heldout_pairs, holds_heldout, join_label, split_label
from thalweg.data.images import partition
from thalweg.errors import InputError

SHAPES = {"shape": ("disc", "square", "ring"), "colour": ("red", "blue")}  # labels 0 1 2 and 3 4


def shapes(n: int = 12, **options) -> Images:
    x = torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2).clone()
    label = torch.stack([torch.arange(n) % 3, 3 + torch.arange(n) // 3 % 2], 1)
    return Images(x, label, concepts=SHAPES, **options)


# --- labels


def test_labels_of_several_concepts_share_one_space():
    images = shapes(flip=True)
    assert images.classes == ("shape=disc", "shape=square", "shape=ring", "colour=red", "colour=blue")
    assert images.concepts == SHAPES and "3 shape × 2 colour" in repr(images)
    batch = images.batch(5, 20, seed=1)
    again = images.batch(5, 20, seed=1)
    assert batch.label.shape == (20, 2) and torch.equal(batch.label, again.label) and torch.equal(batch.x, again.x)
    number = ((batch.x[:, 0, 0, 0] + 1) * 127.5).round().long()
    assert torch.equal(batch.label[:, 0], number % 3) and torch.equal(batch.label[:, 1], 3 + number // 3 % 2)
    part = images.subset(torch.tensor([4, 1]))
    assert part.label.tolist() == [[1, 4], [1, 3]] and part.concepts == SHAPES and part.flip
    assert images.augmented().concepts == images.resized(4).concepts == SHAPES and images.resized(4).shape == (3, 4, 4)
    single = Images(images.x, images.label[:, 0])
    assert single.concepts == {} and single.batch(0, 4, 0).label.shape == (4,), "one label an image stays as it was"


def test_splitting_and_joining_are_inverse():
    label = torch.tensor([[0, 4], [2, 3], [-1, 4], [1, -1]])
    own = split_label(label, SHAPES)
    assert own["shape"].tolist() == [0, 2, -1, 1] and own["colour"].tolist() == [1, 0, 1, -1]
    assert torch.equal(join_label(own, SHAPES), label)
    assert join_label({"colour": torch.tensor([1, 0])}, SHAPES).tolist() == [[-1, 4], [-1, 3]]


def test_splits_are_even_over_the_first_concept():
    images = shapes(90)
    rows = [partition(split, 90, (0.2, 0.1), images.label) for split in ("train", "validation", "test")]
    assert torch.cat(rows).sort().values.tolist() == list(range(90))
    for index, share in zip(rows, (0.7, 0.2, 0.1)):
        assert images.label[index, 0].bincount().tolist() == [round(30 * share)] * 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: Images(x, torch.zeros(4, 2).long()), "one for each image, got .*need concepts"),
        (lambda x: Images(x, torch.zeros(4).long(), concepts=SHAPES), r"integers \[4, 2\], one for each image and concept, got \[4\]"),
        (lambda x: Images(x, concepts=SHAPES), r"integers \[4, 2\].*got none"),
        (lambda x: Images(x, torch.zeros(4, 2).long(), concepts=SHAPES), "labels of colour must be in 3 … 4, got values from 0 to 0"),
        (lambda x: Images(x, torch.zeros(4, 2), concepts=SHAPES), "torch.float32"),
        (lambda x: Images(x, torch.tensor([[0, 3]] * 4), ["a"], concepts=SHAPES), "classes or concepts, not both"),
        (lambda x: Images(x, torch.zeros(4, 1).long(), concepts={"a=b": ("c",)}), "without = and comma, got 'a=b'"),
        (lambda x: Images(x, torch.zeros(4, 1).long(), concepts={"a": ("c", "c")}), "values of a must differ"),
        (lambda x: Images(x, torch.zeros(4, 1).long(), concepts={"a": ()}), "1 to 1000 values, got 0"),
        (lambda x: Images(x, torch.zeros(4, 1).long(), concepts={"a": "red"}), "got the text 'red'"),
        (lambda x: split_label(torch.tensor([[0, 3], [3, 4]]), SHAPES), "labels of shape are 0 … 2 .*got 3"),
        (lambda x: split_label(torch.tensor([[-1, 3], [0, 2]]), SHAPES), "labels of colour are 3 … 4 .*got 2"),
        (lambda x: split_label(torch.tensor([[-2, 3]]), SHAPES), "labels of shape .*got -2"),
        (lambda x: split_label(torch.tensor([0, 3]), SHAPES), r"integers \[N, 2\], one for each of shape, colour, got \[2\]"),
        (lambda x: join_label({"size": torch.zeros(2)}, SHAPES), "got 'size', the concepts are shape, colour"),
        (lambda x: join_label({}, SHAPES), "got none"),
        (lambda x: join_label({"colour": torch.tensor([2])}, SHAPES), "numbers of colour must be in 0 … 1 .*got 2 to 2"),
    ],
)
def test_labels_that_do_not_fit(call, message):
    with pytest.raises(InputError, match=message):
        call(torch.zeros(4, 3, 2, 2))


# --- coloured sets


COLOURED_PAIRS = {names: pairs for names, pairs in heldout_pairs().items() if names != ("left", "right")}


def luminance(colour: tuple[int, int, int]) -> float:
    """WCAG 2.1's relative luminance of sRGB."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_every_ink_shows_on_every_background():
    for ink in INKS.values():
        for ground in BACKGROUNDS.values():
            low, high = sorted((luminance(ink), luminance(ground)))
            assert (high + 0.05) / (low + 0.05) >= 3, (ink, ground)
    inks = torch.tensor(list(INKS.values()), dtype=torch.float32)
    assert torch.pdist(inks).min() > 150, "inks are well apart"


def test_held_out_pairs_are_a_fifth_and_leave_every_value_its_share():
    pairs = COLOURED_PAIRS
    assert list(pairs) == [("digit", "colour"), ("colour", "background")]
    assert [len(set(found)) for found in pairs.values()] == [10, 5] == [10 * 5 // 5, 5 * 5 // 5]
    for found, sizes in zip(pairs.values(), ((10, 5), (5, 5))):
        for place, size in enumerate(sizes):
            assert torch.tensor(found)[:, place].bincount(minlength=size).tolist() == [len(found) // size] * size


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_held_out_pairs_occur_in_no_split_and_all_else_does(split):
    images = load("coloured-digits", split)
    assert len(images) == 5 * len(load("digits", split)) and images.shape == (3, 8, 8) and list(images.concepts) == [
        "digit", "colour", "background"
    ]  # fmt: skip
    own = split_label(images.label, images.concepts)
    for (one, other), held in COLOURED_PAIRS.items():
        found = set(zip(own[one].tolist(), own[other].tolist()))
        every = {(a, b) for a in range(len(images.concepts[one])) for b in range(len(images.concepts[other]))}
        assert found == every - set(held)
    assert not holds_heldout(images.label, images.concepts).any()
    for name, values in images.concepts.items():
        counts = own[name].bincount(minlength=len(values))
        assert counts.max() < 2 * counts.min() and counts.sum() == len(images)
    assert torch.equal(images.label, load("coloured-digits", split).label), "the same colours every time"


def test_unseen_images_all_hold_a_held_out_pair_of_each_kind():
    images = load("coloured-digits-unseen", "test")
    own = split_label(images.label, images.concepts)
    kinds = []
    for (one, other), held in COLOURED_PAIRS.items():
        pairs = list(zip(own[one].tolist(), own[other].tolist()))
        kinds.append(torch.tensor([pair in held for pair in pairs]))
        assert set(held) <= set(pairs)
    assert torch.equal(kinds[0] | kinds[1], torch.ones(len(images), dtype=torch.bool))
    assert holds_heldout(images.label, images.concepts).all()
    assert torch.equal(own["digit"], load("digits", "test").label.repeat_interleave(5)), "of the digits that no training saw"


def test_inked_digits_have_two_concepts_on_black():
    images, grey = load("inked-digits", "train"), load("digits", "train")
    assert list(images.concepts) == ["digit", "colour"] and len(images) == 3 * len(grey) and images.label.shape == (len(images), 2)
    own, held = split_label(images.label, images.concepts), set(heldout_pairs()["digit", "colour"])
    found = set(zip(own["digit"].tolist(), own["colour"].tolist()))
    assert found == {(a, b) for a in range(10) for b in range(5)} - held
    for row in (0, 5, 3000):
        a = (grey.all().x[row // 3] + 1) / 2
        ink = torch.tensor(list(INKS.values())[int(own["colour"][row])])[:, None, None] / 255
        assert torch.allclose((images.all().x[row] + 1) / 2, a * ink, atol=0.6 / 255)
    unseen = load("inked-digits-unseen", "test")
    own = split_label(unseen.label, unseen.concepts)
    assert set(zip(own["digit"].tolist(), own["colour"].tolist())) == held and len(unseen) == len(load("digits", "test"))


@pytest.mark.parametrize(("name", "split"), [("paired-digits", "train"), ("paired-digits", "test"), ("paired-digits-unseen", "test")])
def test_paired_digits_are_two_of_the_split_and_never_twice_the_same_class_but_in_the_unseen_set(name, split):
    images, single = load(name, split), load("digits", split)
    own = split_label(images.label, images.concepts)
    assert images.shape == (1, 8, 16) and list(images.concepts) == ["left", "right"] and len(images) == 5 * len(single)
    assert torch.equal(images.x[..., :8], single.x.repeat_interleave(5, 0)), "each image five times on the left"
    assert torch.equal(own["left"], single.label.repeat_interleave(5))
    known = {(row.numpy().tobytes(), int(label)) for row, label in zip(single.x, single.label)}
    assert all((row.numpy().tobytes(), int(label)) in known for row, label in zip(images.x[..., 8:].contiguous(), own["right"]))
    found = set(zip(own["left"].tolist(), own["right"].tolist()))
    held = set(heldout_pairs()["left", "right"])
    assert held == {(i, i) for i in range(10)}
    assert found == (held if name.endswith("unseen") else {(a, b) for a in range(10) for b in range(10)} - held)
    assert torch.equal(images.x, load(name, split).x), "the same pairs every time"


@pytest.mark.parametrize(
    ("label", "names", "message"),
    [
        (None, (), "one label an image, grey has none"),
        ([0, 0, 0, 0], ("a",), "2 classes or more, grey has 1"),
        ([0, 2, 2, 0], ("a", "b", "c"), "an image of every class, grey has none of b"),
    ],
)
def test_sets_that_cannot_be_paired(label, names, message):
    base = Images(torch.zeros(4, 1, 2, 2), None if label is None else torch.tensor(label), names, name="grey")
    with pytest.raises(InputError, match=message):
        attributes.paired(lambda split, *, size, channels: base)


def test_sets_of_several_labels_cannot_be_paired():
    with pytest.raises(InputError, match="one label an image, two has shape, colour"):
        attributes.paired(lambda split, *, size, channels: shapes(name="two"))
    with pytest.raises(InputError, match="one label an image, two has shape, colour"):
        attributes.coloured(lambda split, *, size, channels: shapes(name="two"), "digit")


def test_colours_are_exact_and_copies_differ():
    images, grey = load("coloured-digits", "train"), load("digits", "train")
    own = split_label(images.label, images.concepts)
    for row in (0, 7, 4321):
        ink, ground = (
            torch.tensor(list(palette.values())[own[name][row]]) for palette, name in ((INKS, "colour"), (BACKGROUNDS, "background"))
        )
        a = (grey.x[row // 5] + 1) / 2
        expected = a * ink[:, None, None] + (1 - a) * ground[:, None, None]
        assert (images.x[row].float() - expected).abs().max() <= 0.5
        corner = images.all().x[row][:, (a == 0)[0]]
        assert torch.allclose(corner, (ground / 127.5 - 1)[:, None].expand_as(corner), atol=1e-6) and corner.shape[1] > 0
    looks = (own["colour"] * 5 + own["background"]).view(-1, 5)
    assert all(len(set(look)) == 5 for look in looks.tolist()), "each image in five different colourings"
    assert load("coloured-digits", "train", size=16).shape == (3, 16, 16)
    first = (images.label[:3].tolist(), images.x[:100].long().sum().item())
    assert first == ([[1, 10, 19], [1, 13, 17], [1, 10, 17]], 2311999), "frozen: other colours are another data set"


def test_other_grey_sets_can_be_coloured():
    def grey(split, *, size, channels):
        x = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 2, 2).repeat(10, 1, 1, 1)
        return Images(x, torch.arange(10).repeat_interleave(2), tuple("abcdefghij"), name="grey")

    images = attributes.coloured(grey, "class", "train", copies=2)
    own = split_label(images.label, images.concepts)
    assert list(images.concepts) == ["class", "colour", "background"] and images.concepts["class"][3] == "d"
    plain = images.x[:, :, 0, 0].view(20, 2, 3)
    assert torch.equal(
        plain[0::2].flatten(0, 1), torch.tensor(list(BACKGROUNDS.values()))[own["background"].view(20, 2)[0::2].flatten()].byte()
    )
    assert torch.equal(plain[1::2].flatten(0, 1), torch.tensor(list(INKS.values()))[own["colour"].view(20, 2)[1::2].flatten()].byte())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: load("coloured-digits", channels=1), "coloured images have 3 channels, got channels=1"),
        (lambda: load("paired-digits-unseen", "train"), "unseen combinations are for testing only.*got 'train'"),
        (lambda: load("coloured-digits-unseen", "train"), "unseen combinations are for testing only.*got 'train'"),
        (lambda: load("coloured-digit"), "did you mean 'coloured-digits'"),
    ],
)
def test_wrong_requests_of_coloured_sets(call, message):
    with pytest.raises(InputError, match=message):
        call()


# --- samples by concept


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("shape=ring,colour=red", [[2, 3]] * 4),
        (" colour = blue ", [[-1, 4]] * 4),
        ("colour=1", [[-1, 4]] * 4),
        ("all", [[0, -1], [1, -1], [2, -1], [0, -1]]),
    ],
)
def test_labels_that_are_asked_for(text, expected):
    assert asked_label(text, SHAPES, 4).tolist() == expected


def test_names_come_before_numbers():
    assert asked_label("size=1", {"size": ("2", "1")}, 1).tolist() == [[1]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("red", "--label red: give CONCEPT=….*the concepts are shape, colour"),
        ("color=red", r"unknown concept 'color' \(did you mean 'colour'\?\). Concepts: shape, colour"),
        ("colour=blu", r"unknown value 'blu' of colour \(did you mean 'blue'\?\). Values: red, blue"),
        ("colour=2", "unknown value '2' of colour"),
        ("colour=red,colour=blue", "colour is given twice"),
        ("colour=red,", "give CONCEPT="),
    ],
)
def test_labels_that_cannot_be_asked_for(text, message):
    with pytest.raises(InputError, match=message):
        asked_label(text, SHAPES, 1)


def test_guidance_that_is_asked_for():
    assert asked_guidance("-1.5", SHAPES, 0.5) == -1.5 == asked_guidance("-1.5", {}, 0.5)
    assert asked_guidance("colour=-3", SHAPES, 0.5) == [0.5, -3.0]
    for text, given, message in (
        ("much", {}, "must be a number, got 'much'"),
        ("colour=1", {}, "must be a number, got 'colour=1'"),
        ("colour=much", SHAPES, "must be a number, or CONCEPT=NUMBER, got 'much'"),
        ("colour=inf", SHAPES, "must be finite, got inf"),
        ("size=1", SHAPES, "unknown concept 'size'"),
    ):
        with pytest.raises(InputError, match=message):
            asked_guidance(text, given, 0.0)


TINY = {"net.width": 16, "net.depth": 1, "initializer.width": 8, "initializer.depth": 1, "steps": 2, "levels": 2, "batch": 16}


def test_a_model_of_several_concepts_takes_a_step():
    data = load("coloured-digits")
    method = tw.method("cdrl/digits-conditional", data=data, **TINY)
    assert method.config.classes == 20 and method.config.shape == (3, 8, 8)
    before = {name: value.clone() for name, value in method.named_parameters()}
    tw.fit(method, data, images=32, progress=False)  # two steps: the last layers start at zero, so the first moves only them
    moved = {name: (value != before[name]).flatten(1).any(1) for name, value in method.named_parameters() if "label.table" in name}
    assert [name.partition(".")[0] for name in moved] == ["net", "initializer"]
    for rows in moved.values():
        assert len(rows) == 21 and rows[:10].any() and rows[10:15].any() and rows[15:20].any(), "every concept is learned from"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of cdrl that has seen one batch of coloured digits, by the command line."""
    out = tmp_path_factory.mktemp("attributes") / "run"
    fields = [f"--{name.replace('_', '-')}={list(value) if isinstance(value, tuple) else value}" for name, value in TINY.items()]
    words = ["train", "cdrl/digits-conditional", "--data", "coloured-digits", "--out", str(out), "--images", "16", *fields]
    assert cli.main(words) == 0
    return out


def test_samples_are_asked_for_on_the_command_line(trained, tmp_path):
    drawn = {}
    for name, words in {
        "both": ["--label", "digit=3,colour=red"],
        "number": ["--label", "colour=0,digit=3"],
        "one": ["--label", "colour=red"],
        "not": ["--label", "digit=3,colour=red", "--guidance", "colour=-3"],
        "guided": ["--label", "digit=3,colour=red", "--guidance", "-3"],
        "proposals": ["--label", "digit=3,colour=red", "--guidance", "2", "--guide", "initializer", "--resample", "2"],
        "all": ["--label", "all"],
    }.items():
        assert cli.main(["sample", str(trained), "-n", "11", "--out", str(tmp_path / "a.npz"), *words]) == 0
        with numpy.load(tmp_path / "a.npz") as file:
            drawn[name] = torch.from_numpy(file["x"]), file["y"].tolist()
    assert drawn["both"][1] == [[3, 10, -1]] * 11 and drawn["one"][1] == [[-1, 10, -1]] * 11
    assert drawn["all"][1] == [[i % 10, -1, -1] for i in range(11)]
    assert torch.equal(drawn["both"][0], drawn["number"][0])
    method = tw.load(trained)
    label = torch.tensor([[3, 10, -1]] * 11)
    assert torch.equal(drawn["not"][0], method.sample(11, seed=0, label=label, guidance=[1.0, -3.0, 1.0]))
    assert torch.equal(drawn["guided"][0], method.sample(11, seed=0, label=label, guidance=-3.0))
    assert torch.equal(drawn["proposals"][0], method.sample(11, seed=0, label=label, guidance=2.0, guide="initializer", resample=2))


def test_wrong_words_on_the_command_line(trained, tmp_path, capsys):
    for words, message in (
        (["--label", "colour=rde"], "unknown value 'rde' of colour (did you mean 'red'?)"),
        (["--label", "3"], "give CONCEPT="),
        (["--guidance", "ink=2"], "unknown concept 'ink'. Concepts: digit, colour, background"),
    ):
        assert cli.main(["sample", str(trained), "--out", str(tmp_path / "b.npz"), *words]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "b.npz").exists()


def test_a_run_shows_a_row_for_each_value_of_the_first_concept(tmp_path):
    asked = []

    class Recorder:
        config = SimpleNamespace(data="coloured-digits", shape=(3, 8, 8), classes=20, data_needs=DataNeeds())
        abilities, trained_on = frozenset({"sample", "labels"}), None

        def sample(self, n, *, seed, label):
            asked.append(label)
            return torch.zeros(n, 3, 8, 8)

    picture(Recorder(), tmp_path / "a.png", 16)
    assert torch.equal(asked[0], torch.arange(10).repeat_interleave(10)) and (tmp_path / "a.png").exists()


def test_a_picture_of_many_classes_stays_small():
    assert torch.equal(shown_labels(20), torch.arange(20).repeat_interleave(5))
    assert torch.equal(shown_labels(98), torch.arange(98))
    assert len(shown_labels(1000).unique()) == 100 and shown_labels(1000)[[0, -1]].tolist() == [0, 999]


def test_methods_of_one_label_say_so():
    data = load("coloured-digits")
    for method in (
        tw.method("egc/digits", data=data, width=8, blocks=1, levels=5, batch=16),
        tw.method("short_run/digits", data=data, batch=16, conditional=True),
    ):
        with pytest.raises(InputError, match=f"{method.name} takes one label an image, but .*digit, colour, background"):
            tw.fit(method, data, images=16, progress=False)
