"""The detector among pictures: every kind of outliers against new pictures of the set that it was fitted to, and the promise.

python -m studies.detector_pictures digits fashion-mnist emoji-google
python -m studies.detector_pictures digits emoji-google fashion-mnist --features pixels+energies --seconds 1800 --most 6000 \
    --new 5000 --strange 1000 --out studies/results/detector_energies.json
python -m studies.detector_pictures emoji-google --features pixels+efficientnet-lite0 --out studies/results/detector_features.json
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch

import thalweg as tw
from studies.runner import Row, write_results
from studies.tables import RESULTS, Each, Section, Shown, Table
from thalweg.detect.promise import least
from thalweg.evaluate.ood import OUTLIERS, ood, outliers

PLAIN = {"black": -1.0, "grey": 0.0, "white": 1.0}
OTHERS = ("digits", "fashion-mnist", "mnist-small", "emoji-google")
RATES = (0.01, 0.05, 0.1)
STRANGE = 2000  # pictures of a kind


def strange(data: str, test: torch.Tensor, count: int = STRANGE) -> dict[str, torch.Tensor]:
    """Outliers by kind, `count` of each at most, in the shape of test pictures [N, C, H, W]."""
    found = {kind: outliers(kind, test, min(count, len(test))) for kind in OUTLIERS}
    found |= {name: torch.full((50, *test.shape[1:]), value) for name, value in PLAIN.items()}
    for name in OTHERS:
        if name != data:
            found[name] = tw.data.load(name, "test", size=test.shape[-1], channels=test.shape[1]).all().x[:count]
    return found


def one(
    data: str, seed: int, features: str = "pixels", most: int = 10**9, seconds: float = 60.0, new: int = 10**9, count: int = STRANGE
) -> Row:
    parts = [tw.data.load(data, split).all().x for split in ("train", "validation")]
    train, test = torch.cat(parts)[:most], tw.data.load(data, "test").all().x[: min(most, new)]
    started = time.process_time()
    detector = tw.EnergyDetector(random_state=seed, features=features, seconds=seconds).fit(train)
    fitted = time.process_time() - started
    usual = torch.from_numpy(-detector.score_samples(test))
    started = time.process_time()
    detector.score_samples(test[:1000])
    row: dict[str, Any] = {
        "data": data, "seed": seed, "train": len(train), "test": len(test), "shape": list(test.shape[1:]), "fit_seconds": fitted,
        "score_seconds_1000": (time.process_time() - started) * 1000 / min(1000, len(test)), "kinds": {}, "promise": [],
        "features": features, "choice": detector.choice_, "judged_by": detector.pictures_.features,
    }  # fmt: skip
    for kind, x in strange(data, test, count).items():
        scores = detector.score_samples(x)
        found, flagged = ood(usual[:count], torch.from_numpy(-scores)), float((scores < detector.offset_).mean())
        row["kinds"][kind] = {"auroc": found.auroc, "interval": list(found.auroc_interval), "flagged": flagged, "n": len(x)}
    row["mean"] = sum(found["auroc"] for found in row["kinds"].values()) / len(row["kinds"])
    p = detector.p_value(test)
    for rate in (rate for rate in RATES if least(rate) <= len(detector.conformal_)):
        alarms, most = int((p <= rate).sum()), detector.conformal_.false_alarms(rate, len(test))
        row["promise"].append({"rate": rate, "alarms": alarms, "of": len(test), "most": most, "share": alarms / len(test)})
    return row


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("data", nargs="*", default=["digits", "fashion-mnist"])
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--features", default="pixels", help="such as pixels+efficientnet-lite0")
    made.add_argument("--seconds", type=float, default=60.0, help="of a fit, about")
    made.add_argument("--most", type=int, default=10**9, help="pictures to learn from and to test: the first, so of sets in no order")
    made.add_argument("--new", type=int, default=10**9, help="new pictures of the set at most")
    made.add_argument("--strange", type=int, default=STRANGE, help="outliers of a kind at most")
    made.add_argument("--out", type=Path, default=RESULTS / "detector_pictures.json")
    return made


def main() -> None:
    options = parser().parse_args()
    torch.set_num_threads(1)
    started, rows = time.monotonic(), []
    for data in options.data:
        rows.append(one(data, options.seed, options.features, options.most, options.seconds, options.new, options.strange))
        kinds = {kind: round(found["auroc"], 3) for kind, found in rows[-1]["kinds"].items()}
        print(
            f"{data}: {rows[-1]['fit_seconds']:.0f} s, mean {rows[-1]['mean']:.3f}, {kinds}, {rows[-1]['promise']}, {rows[-1]['choice']}",
            flush=True,
        )
    print(write_results(options.out, {"sets": rows}, seed=options.seed, seconds=time.monotonic() - started))


KINDS = Table(
    [
        "outliers = kind | AUROC = auroc:.3f",
        ("interval", lambda row: "{:.3f} – {:.3f}".format(*row["interval"])),
        "flagged at 5 % = flagged:.1f % | pictures = n",
    ],
    lambda r: [{"kind": kind, **found} for kind, found in r["kinds"].items()],
)
PROMISE = Table("rate:g | false alarms = alarms | of new pictures = of | share:.2f % | bound = most", "promise")
FITTED = "{data}: {train:,} pictures, fitted in {fit_seconds:.0f} CPU seconds; mean AUROC {mean:.3f}"
PAGE = [
    Section(
        "The detector among pictures",
        [
            Shown("detector_pictures", [Each("sets", [FITTED + ".", KINDS, PROMISE])]),
            Shown("detector_energies", [Each("sets", [FITTED + ", judged by {judged_by}.", KINDS, PROMISE])]),
        ],
    )
]

if __name__ == "__main__":
    main()
