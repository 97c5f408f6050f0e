"""Malformed files, drawn by seed, 100 of tables and 100 of pictures: learned from or looked at, or one message and exit code 2."""

import gzip
import io
import json
import re
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pandas
import pytest
from PIL import Image

import thalweg as tw
from thalweg.commands.main import main
from thalweg.detect import density

CASES = 100  # of each kind
Draw = numpy.random.Generator

TEXTS = [" ", "\n\n\n", "\ufeff", ",", '"', "\r", "\0", "a", "1", "nan", "height,weight,city", "1,2\n", "a\n\n\n", "1," * 30 + "\n"]
LINES = ["1,2", "1,2,3,4", "x,y,z", '1,2,"Rome', ",,", "inf,0,Rome", "1e999,1,Rome", "1_0,0x1,Rome", "1,2,'", "9" * 400 + ",1,Rome"]
MARKS = [";", "\t", "|", " ", ",,", ", ", "\0"]
ENDS = ["\r", "\n\n", "\r\n", "\n\r", "\x0b", "\x0c", "\n,\n"]
NAMES = ["height", "", " ", "1", "weight ", "ü" * 5000, '"a\nb"']
CELLS = ["tall", "2024-01-01", True, float("nan"), float("-inf"), 10**400, "1,5", 3, "x" * 2000, "x" * 200_000]
SHAPES = [(), (3,), (0, 3), (3, 0), (0, 0), (2, 3, 4), (2, 3, 4, 5), (2, 1, 1, 1, 1), (1, 3), (20, 6000), (20, 1)]
TOLD = ["(10**12, 3)", "(1000000000000, 3)", "(-1, 3)", "(2, 3)", "(1, 3)", "(2.5, 3)", "'a'", "(9999999999999999999999, 1)"]
KINDS = ["O", "V8", "<U9", "x", "<f16", "M8[as]", ">f8", "<c8", "|b1"]
ROWS = [
    *({}, [], None, 7, "x", True, [1], [[1, 2, 3]], [1, 2, 3], ["1", "2", "Rome"], [None] * 3, {"height": 1}, {"height": [1]}, {"": 1}),
    *({"height": {"a": 1}, "weight": 2, "city": "Rome"}, {"Height": 1, "weight": 2, "city": "Rome"}, [10**400, 2, "Rome"], ["", "", ""]),
    *([float("inf"), 1, "Rome"], [1, 2, "x" * 10**5], [1, 2, "\ud800"], ["\ud800", 2, "Rome"], [1, 2, 3.5], [True, False, "Rome"]),
    *({"height": 1, "weight": 2, "city": "Rome", "more": 0}, {"height": "high", "weight": 2, "city": "Rome"}, [-0.0, 1e-320, "Oslo"]),
]
JSON = ["[" * 10**5, "{" * 999, "nan", "{'height': 1}", "// no", '{"height": 1, "height": 2}', "\x00", "[1, 2, NaN]", "[1e9999, 2, 3]"]
CONTENT = [b"", b"hello", b"a,b\n1,2\n", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"BM", b"<svg/>", b"MZ"]
MODES = ["1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "F", "I;16"]
SIZES = [(1, 1), (1, 400), (400, 1), (8, 9), (2, 2), (300, 200)]
TYPES = ["f4", "f8", "f2", "u1", "i8", "?", "c8", "O", "U5"]
ARRAYS = [
    (24, 1, 8),
    (24, 64),
    (24, 2, 8, 8),
    (24, 5, 8, 8),
    (24, 8, 8, 3),
    (0, 1, 8, 8),
    (24, 1, 0, 8),
    (24, 1, 1, 1),
    (1, 1, 8, 8),
    (24,),
]
BESIDE = [
    *[{"y": y} for y in (numpy.zeros(3), numpy.array(["a"] * 24), numpy.full(24, -1), numpy.zeros((24, 2)), numpy.full(24, 10**12))],
    *[{"values": values} for values in (numpy.zeros(2), numpy.array([0.0, numpy.nan]), numpy.array("a"), numpy.zeros(3))],
    *[{"attributes": y} for y in (numpy.zeros((24, 2), int), numpy.zeros(3, int), numpy.full((24, 1), -1), numpy.full((24, 1), 10**9))],
]
OTHERS = ["05x.gif", "05x.tiff", "notes.txt", "Thumbs.db", ".hidden.png", "__MACOSX/._x.png", "x.svg"]
FOLDERS = [("a",), ("train",), ("test",), ("a/b/c",), ("a", "b"), ("train", "training"), ("train", "a"), ("test", "val")]
LISTS = [b"", b"file,colour\n", b"file,colour\n00.png,red\nmissing.png,red\n", b"\xff\xfe", b"a\n1\n", b"file\n00.png\n"]


def one_of(draw: Draw, values: Any) -> Any:
    return values[int(draw.integers(len(values)))]


def people(draw: Draw, rows: int) -> pandas.DataFrame:
    columns = {"height": draw.normal(170, 10, rows), "weight": draw.normal(70, 9, rows), "city": draw.choice(["Rome", "Oslo"], rows)}
    return pandas.DataFrame(columns)


def damaged(draw: Draw, content: bytes) -> bytes:
    """Cut, or with bytes that are others, more or gone."""
    kept = bytearray(content)
    if draw.random() < 0.4:
        del kept[int(draw.integers(len(kept))) :]
    for _ in range(draw.integers(0, 8)):
        at = int(draw.integers(len(kept) + 1))
        kept[at : at + int(draw.integers(0, 4))] = draw.bytes(int(draw.integers(0, 4)))
    return bytes(kept)


# --- tables


def csv_file(draw: Draw) -> bytes:
    table = people(draw, int(draw.choice([1, 2, 19, 60])))
    text = table.to_csv(index=False)
    first, *rows = text.splitlines()
    half = len(rows) // 2
    kinds: list[Callable[[], Any]] = [
        lambda: damaged(draw, text.encode()),
        lambda: one_of(draw, [b"", draw.bytes(300), gzip.compress(text.encode()), picture(draw), table.to_html(), table.to_json()]),
        lambda: one_of(draw, TEXTS),
        lambda: text.encode(one_of(draw, ["utf-16", "utf-32", "utf-8-sig"])),
        lambda: text.replace("Rome", "Ré\xadm\x85e\u2028").encode(one_of(draw, ["latin-1", "utf-8"]), "replace"),
        lambda: text.replace(",", one_of(draw, MARKS)),
        lambda: text.replace("\n", one_of(draw, ENDS)),
        lambda: "\n".join([first.replace("weight", one_of(draw, NAMES)), *rows]),
        lambda: "\n".join([first, *rows, one_of(draw, LINES)]),
        lambda: "\n".join([first, *rows[:half], first, *rows[half:]]),
        lambda: table.assign(more=one_of(draw, [numpy.nan, 1, "a"])).to_csv(index=False),
        lambda: table[["city", "height", "weight"]].to_csv(),
        lambda: table.drop(columns=one_of(draw, ["city", "height"])).to_csv(index=False),
        lambda: table.assign(**{one_of(draw, ["height", "city"]): one_of(draw, CELLS)}).to_csv(index=False),
        lambda: pandas.concat([table] * 3, axis=1).to_csv(index=False),
        lambda: table.T.to_csv(header=bool(draw.random() < 0.5)),
        lambda: pandas.DataFrame(draw.normal(size=(3, 6000))).to_csv(index=False),
    ]
    content = one_of(draw, kinds)()
    return content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")


def parquet_file(draw: Draw) -> bytes:
    import pyarrow
    import pyarrow.parquet

    rows = int(draw.choice([0, 1, 2, 60]))
    usual = pyarrow.table(people(draw, rows))
    numbers, city = pyarrow.array(draw.normal(size=rows)), usual["city"].combine_chunks()

    def written(**columns: Any) -> bytes:
        buffer = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.table(columns), buffer)
        return buffer.getvalue()

    plain = written(height=numbers, weight=numbers, city=city)
    odd: list[tuple[Any, Any]] = [
        (pyarrow.list_(pyarrow.int64()), [1]), (pyarrow.struct({"a": pyarrow.int64()}), {"a": 1}), (pyarrow.binary(), b"\xff"),
        (pyarrow.decimal128(38, 2), None), (pyarrow.null(), None), (pyarrow.timestamp("s"), 2**50), (pyarrow.time64("us"), 1),
        (pyarrow.duration("ns"), 2**62), (pyarrow.bool_(), True), (pyarrow.float16(), numpy.float16(1)), (pyarrow.uint64(), 2**64 - 1),
        (pyarrow.map_(pyarrow.string(), pyarrow.int8()), [("a", 1)]), (pyarrow.date32(), 2**30), (pyarrow.large_string(), "Rome"),
    ]  # fmt: skip
    kind, value = one_of(draw, odd)
    kinds: list[Callable[[], bytes]] = [
        *[lambda: damaged(draw, plain)] * 3,
        *[lambda: written(height=numbers, weight=numbers, city=pyarrow.array([value] * rows, kind))] * 4,
        lambda: one_of(draw, [b"", b"PAR1", b"PAR1PAR1", plain[4:], plain[:-4], plain + plain, plain.replace(b"eight", b"\xff")]),
        lambda: one_of(draw, [written(), written(**{"": numbers, " ": numbers}), written(height=city, weight=numbers, city=city)]),
        lambda: people(draw, rows).set_index("city").to_parquet(),
        lambda: written(height=numbers, weight=numbers, city=city.dictionary_encode()),
    ]  # fmt: skip
    return one_of(draw, kinds)()


def as_npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    numpy.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def as_npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    numpy.savez(buffer, **arrays)
    return buffer.getvalue()


def npy_header(shape: str, kind: str = "<f8", order: str = "False", version: int = 1) -> bytes:
    """A file that says more than it holds."""
    said = f"{{'descr': {kind!r}, 'fortran_order': {order}, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H", len(said)) + said + bytes(64)


def npy_file(draw: Draw) -> bytes:
    rows = int(draw.choice([0, 1, 2, 60]))
    x, shape = draw.normal(size=(rows, 3)), one_of(draw, SHAPES)
    several = [{}, {"a": x, "b": x}, {"x": x, "y": x}, {"x": 3}, {"y": x}, {"x": x.astype(object)}, {"x": x.astype("U3")}]
    kinds: list[Callable[[], bytes]] = [
        *[lambda: damaged(draw, one_of(draw, [as_npy, lambda x: as_npz(x=x)])(x))] * 4,
        *[lambda: as_npy(draw.normal(size=shape).astype(one_of(draw, ["f8", "f4", "i4", "u1"])))] * 3,
        lambda: npy_header(one_of(draw, TOLD)),
        lambda: npy_header("(2, 3)", one_of(draw, KINDS)),
        lambda: npy_header("(2, 3)", order=one_of(draw, ["True", "1", "__import__('os')"]), version=int(draw.integers(0, 9))),
        lambda: as_npy(x.astype(one_of(draw, ["O", "U9", "S4", "f2", "g", "c8", ">f8", "?"]))),
        lambda: as_npy(x.astype("i8").astype(one_of(draw, ["i1", "u8", "M8[D]", "m8[s]", "M8[ns]"]))),
        lambda: as_npy(numpy.zeros(rows, dtype=[("a", "f8"), ("b", "U3"), ("c", "f8", 2)])),
        lambda: as_npy(numpy.where(draw.random((rows, 3)) < 0.2, one_of(draw, [numpy.nan, numpy.inf, 1e308, 5e-324]), x)),
        lambda: as_npy(numpy.full((rows, 3), one_of(draw, [numpy.nan, numpy.inf, 0, 1e308, -7]))),
        lambda: as_npz(**one_of(draw, several)),
        lambda: b"PK\x05\x06" + bytes(18),
    ]
    return one_of(draw, kinds)()


def json_lines(draw: Draw) -> bytes:
    rows = [json.loads(line) for line in people(draw, 12).to_json(orient="records", lines=True).splitlines()]
    at = int(draw.integers(12))
    rows[at] = one_of(draw, ROWS)
    lines = [json.dumps(row) for row in rows]
    if draw.random() < 0.3:
        return damaged(draw, "\n".join(lines).encode())
    if draw.random() < 0.3:
        lines[at] = one_of(draw, JSON)
    return one_of(draw, ["\n", "\n", "\n", "\r\n", "\r", "\n\n", "\x0b", ",\n"]).join(lines).encode("utf-8", "surrogatepass")


# --- pictures


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def noise(draw: Draw, size: tuple[int, int] = (8, 8)) -> Image.Image:
    return Image.fromarray(draw.integers(0, 256, (size[1], size[0], 3), dtype=numpy.uint8))


def picture(draw: Draw, form: str = "", mode: str = "", size: tuple[int, int] = (8, 8)) -> bytes:
    form = form or one_of(draw, ["PNG", "PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
    try:
        return saved(noise(draw, size).convert(mode or one_of(draw, ["RGB", "L", "P", "1", "RGBA", "CMYK"])), form)
    except (OSError, ValueError):  # a form without this mode
        return saved(noise(draw, size), form)


def chunk(name: bytes, content: bytes, right: bool = True) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content) ^ (not right))


EXTRA = [
    *(chunk(b"tEXt", b"a\0" + bytes(10**6)), chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**7))), chunk(b"iCCP", b"a\0\0x")),
    *(chunk(b"tRNS", b""), chunk(b"eXIf", b"II*\0" + b"\xff" * 20), chunk(b"acTL", bytes(8)), chunk(b"PLTE", bytes(7))),
]


def png(
    width: int, height: int, depth: int = 8, colour: int = 0, pixels: bytes = bytes(72), extra: bytes = b"", right: bool = True
) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header, right) + extra + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def picture_file(draw: Draw) -> bytes:
    """A file that calls itself a picture."""
    side = one_of(draw, [0, 1, 2**31 - 1, 2**32 - 1, 50_000, 20_000])
    frames = [noise(draw) for _ in range(3)]
    deep = [
        draw.integers(0, 2**16, (8, 8)).astype("u2"),
        draw.integers(-9, 2**30, (8, 8)).astype("i4"),
        draw.normal(size=(8, 8)).astype("f4"),
    ]
    kinds: list[Callable[[], Any]] = [
        *[lambda: damaged(draw, picture(draw))] * 4,
        lambda: one_of(draw, [*CONTENT, as_npy(numpy.zeros((3, 3))), draw.bytes(99)]),
        lambda: png(side, one_of(draw, [side, 1, 8, 0])),
        lambda: png(8, 8, one_of(draw, [1, 2, 4, 8, 16, 3, 0]), one_of(draw, [0, 2, 3, 4, 6, 9]), draw.bytes(int(draw.integers(0, 600)))),
        lambda: png(8, 8, extra=one_of(draw, EXTRA)),
        lambda: png(8, 8, right=False),
        lambda: picture(draw, size=one_of(draw, SIZES)),
        *[lambda: picture(draw, one_of(draw, ["PNG", "TIFF"]), one_of(draw, MODES))] * 2,
        lambda: saved(Image.fromarray(one_of(draw, deep)), "TIFF"),
        lambda: saved(frames[0], one_of(draw, ["GIF", "PNG", "WEBP", "TIFF"]), save_all=True, append_images=frames[1:]),
    ]  # fmt: skip
    return one_of(draw, kinds)()


def pictures_file(draw: Draw) -> bytes:
    """An .npz or .npy of pictures, or of what is none."""
    x = draw.uniform(-1, 1, (24, 1, 8, 8)).astype(numpy.float32)
    kinds: list[Callable[[], bytes]] = [
        lambda: as_npz(x=x * one_of(draw, [1, 255, 1.5, numpy.nan, 1e30, -0.5])),
        lambda: as_npz(x=draw.uniform(-1, 1, one_of(draw, ARRAYS)).astype(one_of(draw, TYPES))),
        lambda: as_npz(x=draw.integers(-300, 300, (24, 1, 8, 8))),
        lambda: as_npz(x=x, **one_of(draw, BESIDE)),
        lambda: as_npz(**one_of(draw, [{"images": x}, {"y": x[:, 0, 0, 0]}, {"x": x, "x2": x}])),
        lambda: damaged(draw, as_npz(x=x)),
        lambda: as_npy(one_of(draw, [x, x[:, 0], x[0, 0], (x * 127).astype("u1")])),
    ]  # fmt: skip
    return one_of(draw, kinds)()


def picture_folder(draw: Draw, root: Path) -> None:
    """Usual pictures, and something that is none, or is of another size or kind."""

    def put(name: str, content: bytes) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)

    for i in range(int(draw.choice([0, 1, 3, 4, 24]))):
        put(f"{i:02d}.png", picture(draw, "PNG", "L"))
    kinds: list[Callable[[], Any]] = [
        *[lambda: put("05x.png", picture_file(draw))] * 4,
        lambda: put("05x.PNG", picture(draw, size=one_of(draw, SIZES))),
        lambda: put(one_of(draw, OTHERS), picture_file(draw)),
        lambda: [put(f"{name}/x.png", picture(draw, "PNG", "L")) for name in one_of(draw, FOLDERS)],
        lambda: put("attributes.csv", one_of(draw, [*LISTS, picture(draw)])),
        lambda: (root / "05x.png").mkdir(),
        lambda: (root / "05x.png").symlink_to(root / one_of(draw, ["nowhere.png", "05x.png", "00.png", "."])),
        lambda: (root / "loop").symlink_to(root),
        lambda: [put(f"{i:02d}.png", picture(draw, size=(8 + i, 8))) for i in range(24)],
    ]
    one_of(draw, kinds)()


# --- the commands


class Quick(tw.EnergyDetector):
    """Fitted in no time."""

    def __init__(self, contamination=0.05, seconds=1.0, random_state=None, members=2, updates=1, features="pixels") -> None:
        super().__init__(contamination, seconds, random_state, members, updates, features)


@pytest.fixture(scope="module")
def detectors(tmp_path_factory) -> dict[str, Path]:
    home, draw = tmp_path_factory.mktemp("detectors"), numpy.random.default_rng(0)
    table, grey = people(draw, 60), draw.uniform(-1, 1, (60, 1, 8, 8)).astype(numpy.float32)
    fitted = {"people": table, "plain": table[["height", "weight", "weight"]].to_numpy(), "pictures": grey}
    return {name: Quick(random_state=0).fit(x).save(home / name) for name, x in fitted.items()}


NEWS = "(reading|fitting|looking|[0-9,]+ (rows|pictures|of [0-9,]+ are)|drift by row|.* (is taken for a class|nearly black|became 0))"


def answered(capsys: Any, out: Path | None, *words: Any) -> bool:
    """Whether there is a result. Anything but that, or one message of a line and exit code 2, fails."""
    code = main(["detect", *map(str, words)])
    wrong = [line for line in capsys.readouterr().err.splitlines() if not re.match(rf"thalweg: {NEWS}\b", line)]
    assert code in (0, 2) and len(wrong) == (code == 2) and (out is None or out.exists() == (code == 0)), (code, wrong)
    assert all(line.startswith("thalweg: ") and 20 < len(line) < 1200 for line in wrong), wrong
    return code == 0


def table_case(seed: int, home: Path, detectors: dict[str, Path], capsys: Any, monkeypatch: Any) -> bool:
    draw = numpy.random.default_rng([seed, 1])
    if seed % 6 == 0:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json_lines(draw))))
        return answered(capsys, None, "run", detectors["people"], "--stream")
    kind, suffix = [(csv_file, "csv"), (csv_file, "tsv"), (parquet_file, "parquet"), (npy_file, "npy"), (npy_file, "npz")][seed % 6 - 1]
    path = home / f"table.{suffix}"
    path.write_bytes(kind(draw))
    fitted = answered(capsys, home / "d", "fit", path, "--out", home / "d", "--seconds", 0.01, "--false-alarms", 0.4)
    detector = detectors[one_of(draw, ["people", "plain"])]
    return answered(capsys, home / "r.json", "run", detector, "--input", path, "--out", home / "r.json") or fitted


def picture_case(seed: int, home: Path, detectors: dict[str, Path], capsys: Any, monkeypatch: Any) -> bool:
    draw = numpy.random.default_rng([seed, 2])
    source = path = home / one_of(draw, ["pictures", "x.png", "pïctures ✓", "x.npz"])
    if seed % 4 == 0:
        source = path = home / "x.npz"
        path.write_bytes(pictures_file(draw))
    elif seed % 4 == 1:
        path.mkdir()
        picture_folder(draw, path)
    else:
        path.mkdir()
        source = path / one_of(draw, ["x.png", "x.jpg", "x.PNG", "x.bmp", "x.webp"])
        source.write_bytes(picture_file(draw))
        for i in range(4):
            (path / f"{i}.png").write_bytes(picture(draw, "PNG", "L"))
    size = one_of(draw, [[], ["--size", 8]])
    fitted = answered(capsys, home / "d", "fit", path, "--out", home / "d", "--seconds", 0.01, "--false-alarms", 0.4, *size)
    return answered(capsys, home / "r.html", "run", detectors["pictures"], "--input", source, "--out", home / "r.html") or fitted


@pytest.mark.parametrize("start", range(0, CASES, 20))
@pytest.mark.parametrize("case", [table_case, picture_case])
def test_malformed_files_are_answered_or_refused(detectors, tmp_path, capsys, monkeypatch, case: Callable[..., bool], start: int) -> None:
    monkeypatch.setattr("thalweg.detect.detector.EnergyDetector", Quick)
    method = tw.method
    monkeypatch.setattr(density.methods, "method", lambda *words, **given: method(*words, **given | {"calibration": 100}))
    found = []
    for seed in range(start, start + 20):
        (tmp_path / str(seed)).mkdir()
        found.append(case(seed, tmp_path / str(seed), detectors, capsys, monkeypatch))
    assert 0 < sum(found) < 20  # the draw holds both kinds
