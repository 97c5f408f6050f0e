"""Tables in files: what is read, and a message for each that cannot be."""

import os
import pickle

import numpy as np
import pandas as pd
import pytest

from thalweg.detect.columns import Columns
from thalweg.detect.files import read_table
from thalweg.errors import InputError

FRAME = pd.DataFrame(
    {"a": [1.5, 2.5, None], "b": ["x", "y", "z"], "c": [True, False, True], "when": pd.date_range("2024-01-01", periods=3)}
)


def test_text_with_commas_semicolons_and_tabs(tmp_path):
    for name, mark in (("a.csv", ","), ("b.csv", ";"), ("c.csv", "\t"), ("d.tsv", "\t")):
        FRAME.to_csv(tmp_path / name, sep=mark, index=False)
        found = read_table(tmp_path / name)
        assert list(found.columns) == ["a", "b", "c", "when"] and found["a"].isna().tolist() == [False, False, True]
        assert [column.kind for column in Columns.fit(found).columns] == ["number", "dropped", "flag", "date"]


def test_text_of_other_programs(tmp_path):
    (tmp_path / "comma.csv").write_text("size;name\n1,5;a\n-2,25;b\n")
    assert read_table(str(tmp_path / "comma.csv"))["size"].tolist() == [1.5, -2.25]
    (tmp_path / "bom.csv").write_bytes("\ufeffgrösse,b\r\n1,2\r\n\r\n3,4\r\n".encode())
    assert read_table(tmp_path / "bom.csv").to_dict("list") == {"grösse": [1, 3], "b": [2, 4]}
    (tmp_path / "bare.csv").write_text("1,2,3\n4,5,6\n")
    assert read_table(tmp_path / "bare.csv").to_dict("list") == {"x0": [1, 4], "x1": [2, 5], "x2": [3, 6]}
    (tmp_path / "quoted.csv").write_text('\na,"b, c"\n"1",  "x\ny"\n2,z\n')
    assert read_table(tmp_path / "quoted.csv").to_dict("list") == {"a": [1, 2], "b, c": ["x\ny", "z"]}
    FRAME.to_csv(tmp_path / "index.csv")
    assert list(read_table(tmp_path / "index.csv").columns) == list(FRAME.columns)


def test_parquet_and_arrays(tmp_path):
    FRAME.to_parquet(tmp_path / "a.parquet")
    pd.testing.assert_frame_equal(read_table(tmp_path / "a.parquet"), FRAME)
    x = np.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "a.npy", x)
    np.savez(tmp_path / "a.npz", anything=x)
    np.save(tmp_path / "b.npy", FRAME[["a", "c"]].to_records(index=False))
    assert np.array_equal(read_table(tmp_path / "a.npy"), x) and np.array_equal(read_table(tmp_path / "a.npz"), x)
    assert Columns.fit(read_table(tmp_path / "b.npy")).names == ["a", "c"]


class Trap:
    """What would write a file if it was unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def write_bad(root):
    x = np.zeros((2, 3))
    (root / "folder.csv").mkdir()
    (root / "other.txt").write_text("1,2")
    for name in ("empty.csv", "empty.npy", "empty.npz", "empty.parquet"):
        (root / name).touch()
    (root / "blank.csv").write_text("\n\n")
    (root / "header.csv").write_text("a,b\n")
    (root / "ragged.csv").write_text("a,b\n1,2\n\n3,4,5\n")
    (root / "lacking.csv").write_text("a,b\n1\n3,4\n")
    (root / "twice.csv").write_text("a,a\n1,2\n")
    (root / "unnamed.csv").write_text("a,,b\n1,2,3\n")
    (root / "quote.csv").write_text('a,b\n1,"2\n')
    (root / "latin.csv").write_bytes("größe\n1\n".encode("latin-1"))
    (root / "binary.csv").write_bytes(bytes(range(256)) * 4)
    (root / "text.npy").write_text("1,2,3")
    (root / "text.parquet").write_text("1,2,3")
    np.savez(root / "two.npz", x=x, y=x)
    np.savez(root / "none.npz")
    np.save(root / "cube.npy", np.zeros((2, 2, 2)))
    np.save(root / "flat.npy", np.zeros(3))
    (root / "torn.npz").write_bytes((root / "two.npz").read_bytes()[:200])
    np.save(root / "whole.npy", np.zeros((50, 3)))
    (root / "torn.npy").write_bytes((root / "whole.npy").read_bytes()[:200])
    with (root / "vast.npy").open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": (9 * 10**15, 3)})
    np.save(root / "objects.npy", np.array([[Trap(root / "sprung")]], dtype=object), allow_pickle=True)
    np.savez(root / "objects.npz", x=np.array([[Trap(root / "sprung")]], dtype=object))
    (root / "pickle.npy").write_bytes(pickle.dumps(Trap(root / "sprung")))


BAD = {
    "absent.csv": "there is no such file",
    "folder.csv": "is a folder; a table is a file .csv, .tsv",
    "other.txt": "is a file of another kind; a table is .csv",
    "empty.csv": "is empty",
    "empty.npy": "is empty",
    "empty.npz": "is empty",
    "empty.parquet": "is empty",
    "blank.csv": "is empty",
    "header.csv": "has columns but no rows",
    "ragged.csv": "line 4: 3 cells for 2 columns",
    "lacking.csv": "line 2: 1 cells for 2 columns",
    "twice.csv": "columns need names, each another, got 'a, a'",
    "unnamed.csv": "columns need names",
    "quote.csv": "cannot be read as UTF-8 text",
    "latin.csv": "cannot be read as UTF-8 text",
    "binary.csv": "cannot be read as UTF-8 text",
    "text.npy": "holds Python objects|cannot be read as an array",
    "text.parquet": "cannot be read as a parquet file",
    "two.npz": "must hold one array, got 'x, y'",
    "none.npz": "must hold one array, got 'none'",
    "cube.npy": r"must hold a table \[rows, columns\], got an array \[2, 2, 2\]",
    "flat.npy": r"got an array \[3\]",
    "torn.npz": "cannot be read as an array",
    "torn.npy": "cannot be read",
    "vast.npy": "cannot be read as an array|more than there is memory",
    "objects.npy": "holds Python objects, which are not read",
    "objects.npz": "holds Python objects, which are not read",
    "pickle.npy": "holds Python objects, which are not read",
}


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    root = tmp_path_factory.mktemp("bad")
    write_bad(root)
    return root


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_no_table_is_refused(bad, name):
    with pytest.raises(InputError, match=BAD[name]) as found:
        read_table(bad / name)
    assert str(bad / name) in str(found.value) and "\n" not in str(found.value)
    assert not (bad / "sprung").exists()


def test_a_file_that_may_not_be_read(bad, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    (bad / "closed.csv").write_text("a\n1\n")
    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(InputError, match=r"closed\.csv cannot be read: Permission denied"):
        read_table(bad / "closed.csv")
