"""What a detector gives as a file, and how fast, next to Python: python -m studies.checks.detector_export [--rounds 5] [--out FILE]

A detector of five networks is fitted to each table and written for onnxruntime and for torch.export. New rows, half of them disturbed,
go through each of the three, alone and in batches, in turn, on one thread. `ms` are CPU milliseconds of a call, the median over rounds;
`differ` holds by how much scores differ from Python's, as a share of their size or of a nat, and how many p-values and verdicts differ.
Needs the extra `onnx`.
"""

import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy
import torch

from studies.measures import seconds_in_turn
from studies.runner import Check, Options
from studies.tables import Section, Shown, Table
from thalweg.detect.detector import EnergyDetector
from thalweg.detect.ship import export

BATCHES = (1, 7, 1000)
CALLS = {1: 20, 7: 20, 1000: 1}  # in a round


def numbers(columns: int, n: int, seed: int) -> numpy.ndarray:
    """Columns that go together, each far from 0 by another amount; of rows beyond the first half one value is another's."""
    draw = numpy.random.default_rng(seed)
    common = draw.normal(size=(n, 3)) @ numpy.random.default_rng(0).normal(size=(3, columns))
    x = (common + 0.3 * draw.normal(size=(n, columns))) * 10.0 ** (numpy.arange(columns) % 5) + 1e6 * (numpy.arange(columns) % 3)
    x[n // 2 :, 0] = draw.permutation(x[n // 2 :, 0])
    return x


def mixed(n: int, seed: int):
    """Numbers far from 0, dates, flags, categories and missing values."""
    import pandas

    draw = numpy.random.default_rng(seed)
    x = numbers(6, n, seed)
    frame = pandas.DataFrame({f"x{i}": column for i, column in enumerate(x.T)})
    frame["price"] = 1e9 + 50 * draw.normal(size=n)
    frame["date"] = pandas.Timestamp("2001-01-01") + pandas.to_timedelta(draw.uniform(0, 86_400, n), unit="s")
    frame["flag"] = draw.random(n) < 0.3
    for name, count in (("few", 3), ("many", 60)):
        frame[name] = draw.choice([f"{name} {i}" for i in range(count)], n)
        frame.loc[draw.random(n) < 0.05, name] = None
    frame.loc[draw.random(n) < 0.1, "x1"] = numpy.nan
    return frame


TABLES = {"10 numbers": partial(numbers, 10), "100 numbers": partial(numbers, 100), "11 columns of all kinds": mixed}


def run(options: Options) -> list[dict]:
    import onnxruntime

    rows = []
    for name, table in TABLES.items():
        detector = EnergyDetector(updates=options.updates, random_state=options.seed).fit(table(options.rows, options.seed))
        new = table(max(BATCHES), options.seed + 1)
        with tempfile.TemporaryDirectory() as folder:
            onnx, torch_file = Path(folder, "x.onnx"), Path(folder, "x.pt2")
            started = time.process_time()
            export(detector, onnx)
            seconds = time.process_time() - started
            export(detector, torch_file)
            settings = onnxruntime.SessionOptions()
            settings.intra_op_num_threads = settings.inter_op_num_threads = 1
            session = onnxruntime.InferenceSession(onnx, settings, providers=["CPUExecutionProvider"])
            graph = torch.export.load(torch_file).module()
            size = onnx.stat().st_size
        for batch in BATCHES:
            part = new[:batch]
            x = detector.columns_.numbers(part)
            runs = {
                "python": partial(detector.judge, part),
                "onnxruntime": partial(session.run, None, {"x": x}),
                "torch_export": partial(graph, torch.from_numpy(x)),
            }
            wanted = [*detector.judge(part), detector.predict(part) == -1]
            differ = {key: differences(wanted, [numpy.asarray(one) for one in runs[key]()]) for key in ("onnxruntime", "torch_export")}
            several = {key: partial(repeat, one, CALLS[batch]) for key, one in runs.items()}
            _, times = seconds_in_turn(several, options.rounds, time.process_time)
            ms = {key: round(1000 * statistics.median(found) / CALLS[batch], 3) for key, found in times.items()}
            rows.append(
                {"table": name, "batch": batch, "ms": ms, "differ": differ, "file_kb": round(size / 1024), "export_s": round(seconds, 1)}
            )
            print(rows[-1], flush=True)
    return rows


def repeat(one, count: int) -> None:
    for _ in range(count):
        one()


def differences(wanted: list[numpy.ndarray], found: list[numpy.ndarray]) -> dict:
    score = numpy.abs(found[0] - wanted[0]) / numpy.maximum(1, numpy.abs(wanted[0]))
    return {"score": float(score.max()), "p_values": int((found[1] != wanted[1]).sum()), "verdicts": int((found[2] != wanted[2]).sum())}


def failed(rows: list[dict]) -> bool:
    """More than 1e-5, or verdicts that differ, which a threshold just at a row's score would explain and nothing else."""
    return any(one["score"] > 1e-5 or one["verdicts"] for row in rows for one in row["differ"].values())


TABLE = Table(
    "table | rows = batch | Python, ms = ms.python:.2f | onnxruntime = ms.onnxruntime:.2f | torch.export = ms.torch_export:.2f | "
    "largest difference = differ.onnxruntime.score:.0e | p-values that differ = differ.onnxruntime.p_values | "
    "verdicts = differ.onnxruntime.verdicts | file, kB = file_kb",
    "results",
)
INTRO = """A detector of five networks in Python, in onnxruntime and as torch.export loads it: CPU milliseconds of a call, on one thread.
The largest difference of scores is that of ONNX from Python, as a share of their size or of a nat."""
PAGE = [Section("A detector as a file", [Shown("detector_export", [TABLE])], INTRO)]
CHECK = Check("detector_export", __doc__, run, dict(rounds=5, seed=0, rows=1000, updates=100, threads=1), failed=failed)

if __name__ == "__main__":
    CHECK.main()
