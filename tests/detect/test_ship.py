"""A detector as a file that runs without Thalweg: it gives what Python gives, for any number of rows, and holds no code."""

import io
import json
import re
import sys
import warnings
import zipfile

import numpy
import pandas
import pytest
import torch

import thalweg as tw
from thalweg.commands.main import main
from thalweg.detect import ship
from thalweg.detect.columns import Columns
from thalweg.detect.graph import Encode, Energies, Graph, compress
from thalweg.detect.promise import Conformal
from thalweg.detect.scale import compress as compress_numbers
from thalweg.detect.scores import strangeness
from thalweg.errors import InputError

QUICK = dict(members=2, updates=30, random_state=0)


def people(n: int, seed: int) -> pandas.DataFrame:
    """Every kind of column: numbers far from 0, missing values, dates, flags, categories, some rare, one that is open-ended."""
    draw = numpy.random.default_rng(seed)
    height = draw.normal(170, 10, n)
    frame = pandas.DataFrame(
        {
            "town": draw.choice(["Ulm", "Bonn", "Jena"], n, p=[0.6, 0.3, 0.1]),
            "height": height,
            "price": 1e9 + 50 * draw.normal(size=n) + height,
            "born": pandas.Timestamp("2001-01-01") + pandas.to_timedelta(draw.uniform(0, 86_400, n), unit="s"),
            "empty": numpy.nan,
            "constant": 3.0,
            "member": draw.random(n) < 0.3,
            "street": draw.choice([f"street {i}" for i in range(60)], n),
            "word": [f"word {i}" for i in draw.geometric(0.03, n)],
            "weight": height - 100 + draw.normal(0, 8, n),
        }
    )
    frame.loc[draw.random(n) < 0.1, "height"] = numpy.nan
    frame.loc[draw.random(n) < 0.1, "town"] = None
    return frame


def strange(n: int, seed: int) -> pandas.DataFrame:
    """New rows, the first of them with what was not there at fit."""
    frame = people(n, seed)
    frame.loc[0, "town"] = "Rome"
    frame.loc[1, "price"], frame.loc[2, "price"] = 1e12, numpy.nan
    frame.loc[3, "constant"], frame.loc[4, "weight"] = 3.1, -1e200
    frame.loc[5, "street"], frame.loc[6, "word"] = "another", "another"
    frame.loc[7, "born"] = pandas.Timestamp("2031-01-01")
    return frame


@pytest.fixture(scope="module")
def detector() -> tw.EnergyDetector:
    return tw.EnergyDetector(**QUICK).fit(people(300, 0))


@pytest.fixture(scope="module")
def home(detector, tmp_path_factory):
    """A detector's folder, and both files written from it by the command."""
    folder = tmp_path_factory.mktemp("ship")
    detector.save(folder / "people")
    words = ["--onnx", str(folder / "files" / "people.onnx"), "--torch-export", str(folder / "files" / "people.pt2")]
    assert main(["export", str(folder / "people"), *words]) == 0
    return folder / "files"


@pytest.fixture(scope="module")
def session(home):
    import onnxruntime

    return onnxruntime.InferenceSession(home / "people.onnx", providers=["CPUExecutionProvider"])


def graph_of(detector: tw.EnergyDetector) -> Graph:
    return Graph(detector.columns_, detector.ensemble_, detector.usual_, detector.conformal_.strangeness, detector.threshold_).eval()


def assert_as_python(detector: tw.EnergyDetector, table: pandas.DataFrame, found: list[numpy.ndarray]) -> None:
    """Scores within 1e-5 of their size, or of a nat; p-values and verdicts equal but where a calibration row is as near as that."""
    score, p_value, verdict = found
    assert score.dtype == p_value.dtype == numpy.float64 and verdict.dtype == numpy.int64
    wanted = detector.score_samples(table)
    room = 1e-5 * numpy.maximum(1, numpy.abs(wanted))
    assert (numpy.abs(score - wanted) <= room).all()
    least = detector.conformal_.p_value(-wanted + room)
    most = detector.conformal_.p_value(-wanted - room)
    assert ((least <= p_value) & (p_value <= most)).all() and (least == most).mean() > 0.9
    certain = numpy.abs(wanted - detector.offset_) > room
    assert ((verdict == 1) == (detector.predict(table) == -1))[certain].all() and certain.mean() > 0.9


# --- the files


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_onnx_gives_what_python_gives(detector, session, rows):
    table = strange(1000, 1)[-rows:] if rows == 1 else strange(1000, 1)[:rows]
    assert_as_python(detector, table, session.run(None, {"x": detector.columns_.numbers(table)}))


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_the_file_of_torch_export_gives_what_python_gives(detector, home, rows):
    table = strange(1000, 2)[:rows]
    found = torch.export.load(home / "people.pt2").module()(torch.from_numpy(detector.columns_.numbers(table)))
    assert_as_python(detector, table, [part.numpy() for part in found])


def test_both_verdicts_are_given(session, detector):
    p_value, verdict = session.run(["p_value", "verdict"], {"x": detector.columns_.numbers(strange(1000, 3))})
    assert (verdict[:8] == 1).sum() >= 6 and (verdict[8:] == 0).mean() > 0.8
    assert (verdict == (p_value <= 0.05)).all()


def test_names_and_shapes_are_those_of_the_page(session):
    assert [(one.name, one.type, one.shape) for one in session.get_inputs()] == [("x", "tensor(double)", ["rows", 10])]
    assert [(one.name, one.shape) for one in session.get_outputs()] == [(name, ["rows"]) for name in ("score", "p_value", "verdict")]


def test_the_description_says_how_to_make_the_input(detector, home, session):
    text = (home / "people.onnx.json").read_text()
    assert session.get_modelmeta().custom_metadata_map["thalweg"] == text == (home / "people.pt2.json").read_text()
    inside = {"thalweg.json": ""}
    torch.export.load(home / "people.pt2", extra_files=inside)
    assert inside["thalweg.json"] == text
    told = json.loads(text)
    kinds = [column["kind"] for column in told["columns"]]
    assert kinds == ["category", "number", "number", "date", "dropped", "number", "flag", "category", "category", "number"]
    # by hand, as a program without Thalweg would
    row = strange(20, 4)[8:].dropna(subset=["town", "height"]).iloc[0]
    x = []
    for column in told["columns"]:
        cell = row[column["name"]]
        if column["kind"] == "category":
            cell = column["codes"].get(cell, -1)
        elif column["kind"] == "date":
            cell = cell.timestamp()
        x.append(float(cell))
    (score, _, verdict) = session.run(None, {"x": numpy.array([x])})
    assert score[0] == pytest.approx(detector.score_samples(row.to_frame().T.astype(people(1, 0).dtypes))[0], rel=1e-5)
    assert verdict[0] == (score[0] < told["outliers_below"])


def test_files_hold_no_code_and_no_paths(home):
    for name in ("people.onnx", "people.pt2"):
        content = (home / name).read_bytes()
        parts = [content]
        if name.endswith("pt2"):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                parts = [archive.read(part) for part in archive.namelist()]
                (sample,) = [part for part in archive.namelist() if part.endswith(".pt")]
                (rows,), _ = torch.load(io.BytesIO(archive.read(sample)), weights_only=True)
                assert not rows.any()  # nobody's data
                configs = [json.loads(archive.read(part)) for part in archive.namelist() if part.endswith("_config.json")]
                assert len(configs) == 2 and not any(one["use_pickle"] for config in configs for one in config["config"].values())
        found = [part[max(0, match.start() - 60) : match.end() + 60] for part in parts for match in re.finditer(rb"\.py\b|/thalweg/", part)]
        assert not found


@pytest.mark.parametrize("kind", ["numbers", "categories"])
def test_tables_of_one_kind_are_written_too(tmp_path, kind):
    draw = numpy.random.default_rng(0)
    table = draw.normal(size=(150, 3)) if kind == "numbers" else pandas.DataFrame({"a": draw.choice(["x", "y", "z"], 150)})
    one = tw.EnergyDetector(members=2, updates=3, random_state=0).fit(table[:100])
    loaded = torch.export.load(one.export(tmp_path / "new" / "x.pt2")).module()
    found = loaded(torch.from_numpy(one.columns_.numbers(table[100:])))[0].numpy()
    x = torch.from_numpy(one.columns_.encode(table[100:])).float()
    numpy.testing.assert_allclose(-found, strangeness(one.ensemble_.energies(x), one.usual_).numpy(), rtol=1e-5)


# --- the graph


def test_rows_are_encoded_as_in_python(detector):
    table = strange(500, 5)
    found = Encode(detector.columns_)(torch.from_numpy(detector.columns_.numbers(table))).numpy()
    assert numpy.abs(found - detector.columns_.encode(table)).max() < 1e-12


@pytest.mark.parametrize(
    "table",
    [
        {"a": ["x", "y", "y", "x", None, "z", "x", "z"]},
        {"a": [1.0, 2.0, numpy.nan, 4.0, 5.0, 2.0, 2.0, 3.0], "b": ["x", "y", "y", "x", "y", "x", "x", "y"]},
        {"a": [1.0, 2.0, 3.0, 4.0, 5.0, 2.0, 2.0, 3.0]},
    ],
    ids=["categories", "both", "numbers"],
)
def test_tables_of_one_kind_are_encoded_too(table):
    columns = Columns.fit(table)
    found = Encode(columns)(torch.from_numpy(columns.numbers(table))).numpy()
    assert found.shape == (8, len(columns.outputs)) and numpy.abs(found - columns.encode(table)).max() < 1e-12


def test_large_numbers_are_compressed_as_in_python():
    z = numpy.concatenate([[0.0, 4.0, -4.0, 4 + 1e-9, 1e300, -1e300, 1e155], numpy.random.default_rng(0).normal(0, 20, 1000)])
    numpy.testing.assert_allclose(compress(torch.from_numpy(z)).numpy(), compress_numbers(z), rtol=1e-14)
    assert compress(torch.tensor([numpy.inf, -numpy.inf]).double()).tolist() == pytest.approx([695.468, -695.468], abs=1e-3)


def test_numbers_that_are_no_codes_and_infinities_count_as_never_seen(detector):
    x = torch.from_numpy(detector.columns_.numbers(people(12, 6)))
    x[:4, 0] = torch.tensor([3.0, 0.5, -7.0, numpy.inf])  # Ulm, Bonn and Jena are 0, 1, 2
    x[4, 0] = -1
    x[5, 2] = numpy.inf
    score, p_value, verdict = graph_of(detector)(x)
    encoded = Encode(detector.columns_)(x)
    assert (encoded[:5, : len(detector.columns_.columns[0].outputs)] == encoded[4, : len(detector.columns_.columns[0].outputs)]).all()
    assert score.isfinite().all() and verdict[5] == 1 and p_value[5] == 1 / 301


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7, 8, 9, 100])
def test_p_values_count_calibration_rows_with_ties(detector, rows):
    graph = graph_of(detector)
    x = torch.from_numpy(detector.columns_.numbers(people(100, 7)))
    strangeness = -graph(x)[0].numpy()
    calibration = strangeness[:rows]  # each ties with itself
    other = Graph(detector.columns_, detector.ensemble_, detector.usual_, calibration, float(calibration.max()))
    _, p_value, verdict = other(x)
    assert (p_value.numpy() == Conformal(calibration).p_value(strangeness)).all()
    assert (verdict.numpy() == (strangeness > calibration.max())).all()


def test_rows_of_the_fit_are_judged_as_new_ones(detector):
    table = people(300, 0)
    score = graph_of(detector)(torch.from_numpy(detector.columns_.numbers(table)))[0].numpy()
    x = torch.from_numpy(detector.columns_.encode(table)).float()
    numpy.testing.assert_allclose(-score, strangeness(detector.ensemble_.energies(x), detector.usual_).numpy(), rtol=1e-5)
    assert numpy.abs(score - detector.score_samples(table)).max() > 0.1


def test_energies_of_wide_tables_agree():
    """Beyond 256 columns the Gaussian has no covariance."""
    x = numpy.random.default_rng(0).normal(size=(60, 300))
    wide = tw.EnergyDetector(members=2, updates=3, random_state=0).fit(x)
    rows = torch.from_numpy(wide.columns_.encode(2 * x)).float()
    found = Energies(wide.ensemble_)(rows)
    torch.testing.assert_close(found, wide.ensemble_.energies(rows), rtol=1e-5, atol=0)


def test_too_few_rows_flag_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        few = tw.EnergyDetector(members=2, updates=3, random_state=0).fit(numpy.random.default_rng(0).normal(size=(10, 2)))
    _, p_value, verdict = graph_of(few)(torch.tensor([[1e9, 1e9]]).double())
    assert p_value.tolist() == [1 / 11] and verdict.tolist() == [0]
    assert ship.describe(few)["outliers_below"] is None


# --- what is refused


@pytest.mark.parametrize(
    "words, said",
    [
        ([], "needs --onnx FILE.onnx or --torch-export FILE.pt2"),
        (["--out", "x"], "is a detector"),
        (["--onnx", "x.pt2"], r"--onnx needs a file name that ends in \.onnx"),
        (["--torch-export", "x.onnx"], r"--torch-export needs a file name that ends in \.pt2"),
    ],
)
def test_what_a_detector_cannot_be_exported_to(home, capsys, words, said):
    assert main(["export", str(home.parent / "people"), *words]) == 2
    assert re.search(said, capsys.readouterr().err)


def test_a_model_is_no_detector(tmp_path, capsys):
    assert main(["export", str(tmp_path), "--onnx", str(tmp_path / "x.onnx")]) == 2
    assert "is none" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_without_the_extra_one_message(detector, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match=r"pip install 'thalweg\[onnx\]'"):
        detector.export(tmp_path / "x.onnx")
    with pytest.raises(InputError, match=r"FILE\.onnx or FILE\.pt2"):
        detector.export(tmp_path / "x.bin")
    assert not list(tmp_path.iterdir())
