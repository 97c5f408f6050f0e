"""Presets, weights and samples are those of version 0.1, whose records are in tests/golden: the move changed shape, not behaviour.

Where behaviour was changed on purpose, runs.json says so in "what" and CHANGELOG.md for users.
"""

import importlib
import json
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path

import pytest
import torch

import thalweg as tw
from thalweg.methods import preset
from thalweg.precision import autocast

RECORDS = Path(__file__).parent / "golden"
CONFIGS = json.loads((RECORDS / "configs.json").read_text())
CONVERTED = sorted(path.stem for path in RECORDS.glob("*.py"))


@pytest.mark.parametrize("name", [name for name in CONFIGS if name.partition("/")[0] in CONVERTED])
def test_a_preset_is_what_it_was(name):
    renamed = importlib.import_module(f"golden.{name.partition('/')[0]}").renamed
    now, old = json.loads(json.dumps(asdict(preset(name)[1]))), json.loads(json.dumps(renamed(CONFIGS[name])))
    for place in ("data", "source"):  # folders that stood for any; now the sets of docs/data.md
        if old.get(place, "").endswith("/"):
            assert now.pop(place) != old.pop(place)
    assert now == old


# --- weights and samples

RUNS = json.loads((RECORDS / "runs.json").read_text())
# those that take a fraction of a second; the others were compared once, when the methods moved
QUICK = (
    "short_run/8gaussians",
    "short_run/digits",
    "egc/moons",
    "egc/digits",
    "egc/digits@bf16",
    "ddaebm/pinwheel-weighted",
    "ddaebm/digits-nice",
    "jem/digits",
    "coopflow/spiral",
    "cf_ebm/digits",
    "ssl/digits",
    "liebm/digits",
)


def this_machine() -> dict[str, object]:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    flags = next((line for line in lines if line.startswith("flags")), "")
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {"cpu": cpu, "threads": 1, "avx512_bf16": "avx512_bf16" in flags, "amx": "amx_tile" in flags}


@pytest.mark.parametrize("name", QUICK)
def test_weights_and_samples_are_what_they_were(name, native_bf16):
    """Three steps at seed 0, then four samples: bit-equal where processor and PyTorch are those of the record, else equal in norm."""
    record, (preset_name, _, precision) = RUNS["runs"][name], name.partition("@")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        kind, config = preset(preset_name)
        images = tw.data.load(config.data)
        torch.manual_seed(0)
        method = kind(replace(config, shape=tuple(images.shape), classes=len(images.classes)))
        tw.fit(method, images, images=3 * config.batch, progress=False, precision=precision or "fp32")
        norm = sum(float(p.detach().double().square().sum()) for p in method.parameters()) ** 0.5
        assert norm == pytest.approx(record["norm"], rel=1e-3)
        digests = sorted(sha256(p.detach().contiguous().numpy().tobytes()).hexdigest()[:12] for p in method.parameters())
        x = None
        if "samples" in record:
            with autocast(precision):
                x = method.eval().sample(4, seed=0, **method.starts(4, 0)).float()
        if this_machine() == RUNS["machine"] and torch.__version__ == RUNS["versions"]["torch"]:
            assert sha256("".join(digests).encode()).hexdigest()[:16] == record["trained"]
            assert x is None or sha256(x.contiguous().numpy().tobytes()).hexdigest()[:12] == record["samples"]
        elif x is not None:
            assert float(x.norm()) == pytest.approx(record["samples_norm"], rel=0.2)
    finally:
        torch.set_num_threads(threads)
