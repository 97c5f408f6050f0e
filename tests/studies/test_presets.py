"""The check that starts every preset: data in the real sets' layout, operations by counting, and what it takes for a failure."""

import json
import os
import subprocess
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import yaml

import thalweg as tw
from studies.checks import layouts, memory, node, presets, sharding
from studies.checks.presets import PAPERS, REASONS, beyond
from studies.pretend import Operations, operations
from thalweg import data
from thalweg.chain import Langevin
from thalweg.commands.list import tables
from thalweg.data.layouts import layout
from thalweg.methods import preset
from thalweg.nn.build import ConvNet

HUB = {  # name: shape and classes of what is read
    "hf:uoft-cs/cifar10": ((3, 32, 32), 10),
    "hf:uoft-cs/cifar100": ((3, 32, 32), 100),
    "hf:ufldl-stanford/svhn:cropped_digits": ((3, 32, 32), 10),
    "hf:ILSVRC/imagenet-1k": ((3, 32, 32), 1000),
    "hf:flwrlabs/celeba": ((3, 32, 32), 0),
    "hf:korexyz/celeba-hq-256x256": ((3, 32, 32), 2),
    "hf:tglcourse/lsun_church_train": ((3, 32, 32), 0),
}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A working directory with the papers' sets in small, but for emoji and the autoencoder."""
    pytest.importorskip("datasets")
    folder, patch = tmp_path_factory.mktemp("work"), pytest.MonkeyPatch()
    patch.chdir(folder)
    for name, value in (("HF_DATASETS_CACHE", folder / "cache"), ("HF_HUB_OFFLINE", True), ("HF_DATASETS_OFFLINE", True)):
        patch.setattr(f"datasets.config.{name}", value)
    layouts.hub_sets(folder)
    layouts.folders(folder / "data")
    yield folder
    patch.undo()


@pytest.mark.parametrize("name", HUB)
def test_sets_of_the_hub_are_read_under_their_names(work, name):
    shape, classes = HUB[name]
    found = data.load(name, size=32)
    assert tuple(found.shape) == shape and len(found.classes) == classes
    assert found.batch(0, 2, seed=0).x.std() > 0.1


def test_folders_of_the_papers_are_what_they_are_taken_for(work):
    found = {path.name: layout(path) for path in (work / "data").iterdir()}
    assert found["carla"] is data.carla and found["srn_cars"] is data.shapenet
    assert data.concepts("data/celeba-attributes") == {name: ("no", "yes") for name in ("Male", "Smiling", "Young")}
    with pytest.raises(tw.InputError, match=r"no folder data/nowhere/; how to get it is said in docs/data\.md"):
        data.load("data/nowhere/")


def test_a_preset_of_paper_scale_starts_unchanged(work, capsys):
    from thalweg.commands.main import main

    assert main(["train", "cf_ebm/celeba-64", "--dry-run", "--device", "cpu", "--batch", "4"]) == 0, capsys.readouterr().err
    assert not list(work.glob("state*")) and "nothing written" in capsys.readouterr().err


def test_every_preset_has_data_that_can_be_had():
    page = (presets.Path(__file__).parents[2] / "docs" / "data.md").read_text()
    for method, rows in tables().items():
        for key, row in rows.items():
            for name in (row["data"], row.get("source", "")):
                if name and name not in data.NAMES and name.partition(":")[0] not in data.NAMES:
                    assert f"`{name}`" in page, f"{method}/{key} names {name}, which docs/data.md does not say how to get"


def test_operations_are_those_of_a_real_step():
    """Walked through without values, with its chain drawn out from one step and two, a step counts what the same one with values does."""
    with Operations() as counter:
        (torch.zeros(3, 4, requires_grad=True) @ torch.zeros(4, 5, requires_grad=True)).sum().backward()
    assert counter.count == 3 * (2 * 3 * 4 * 5)
    kind, config = preset("short_run/digits")
    config = replace(config, net=ConvNet(widths=(8, 8, 8)), chain=Langevin(steps=5, step=0.1), batch=6, buffer=60)
    method = kind(config)
    update = tw.update(method)
    update.begin()
    with Operations() as counter:
        method.step(data.Batch(torch.zeros(6, *config.shape)), update)
    counted = operations(kind, config, (0.0, 0.9))
    assert counted == [pytest.approx(counter.count / 6)] * 2
    longer = operations(kind, replace(config, chain=Langevin(steps=9, step=0.1)), (0.0,))
    assert longer[0] > 1.5 * counted[0]
    known: dict[str, float] = {}
    assert operations(kind, config, (0.0,), known) == counted[:1] and len(known) == 2
    assert operations(kind, replace(config, lr=1.0, chain=Langevin(steps=9, step=0.2)), (0.0,), known) == longer and len(known) == 2


def test_parameters_beside_the_papers():
    assert set(REASONS) <= set(PAPERS)
    rows = {f"{method}/{key}" for method, table in tables().items() for key in table}
    assert set(PAPERS) <= rows
    assert beyond({"preset": "a/b", "ratio": 1.2}) and not beyond({"preset": "a/b", "ratio": 0.95}) and not beyond({"preset": "a/b"})
    assert not any(beyond({"preset": name, "ratio": 2.0}) for name in REASONS)
    assert presets.failed({"rows": [{"preset": "a/b", "ok": False}]}) and not presets.failed({"rows": [{"preset": "a/b", "ok": True}]})


# --- launching, and a machine that fails


def test_launch_scripts_are_whole():
    examples = presets.Path(__file__).parents[2] / "examples"
    assert subprocess.run(["bash", "-n", examples / "slurm.sh"], check=False).returncode == 0
    job = yaml.safe_load((examples / "pytorchjob.yaml").read_text())
    (container,) = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"]
    for text in ((examples / "slurm.sh").read_text(), json.dumps(container)):
        assert "thalweg.cli" in text and "TORCH_DISABLE_SHARE_RDZV_TCP_STORE" in text


def test_what_is_said_of_a_failing_machine():
    ends = {"code": 0, "first_difference": None}
    faults = [{"kind": kind, "at": 10} for kind in ("one", "disk", "shard", "one")]
    found = ends | {"on": "latents", "pictures": 9, "size": 8, "killed_while_encoding": True, "torn_told": 1, "full_told": 1}
    found |= {"asked": 4, "faults": faults, "seconds_back": [3.0, 9.0], "images": 100, "signal": ends | {"at": 50}}
    assert not node.failed(found) and node.said(found).startswith(
        "Two processes on latents of 9 pictures of 8×8, killed first while they encoded, then: SIGKILL of one process 2 times, a full disk "
        "1 time, an altered shard 1 time. The run ended bit-equal"
    )
    for wrong in (
        {"faults": faults[:3]},
        {"signal": ends | {"code": 1}},
        {"torn_told": 0},
        {"full_told": 0},
        {"killed_while_encoding": False},
    ):
        assert node.failed(found | wrong), wrong
    assert node.failed(found | {"first_difference": "ema/x"}) and "not equal: ema/x" in node.said(found | {"first_difference": "ema/x"})


def test_the_processes_of_a_run_are_found():
    child = subprocess.Popen(["sleep", "30"])
    try:
        assert child.pid in node.ranks(os.getpid())
    finally:
        child.kill()
        child.wait()
    assert child.pid not in node.ranks(os.getpid())


def test_the_stages_of_a_streamed_run_are_measured(tmp_path, monkeypatch):
    """Small pictures go through all stages, and what each holds at most is told; the check fails above its limit."""
    monkeypatch.setenv("THALWEG_LATENTS", "")
    options = SimpleNamespace(images=20, size=16, batch=4, threads=1, seed=0, place=str(tmp_path))
    rows = [memory.one(SimpleNamespace(**vars(options), one=(stage,))) for stage in memory.STAGES]
    assert [row["stage"] for row in rows] == ["write", "autoencoder", "encode", "train", "statistics"]
    assert all(50 < row["peak_mib"] < 10_000 for row in rows) and list(tmp_path.rglob("rows.f32")) and list(tmp_path.rglob("state-*.pt"))
    assert not memory.failed({"stages": [{"peak_mib": 2047.0}]}) and memory.failed({"stages": [{"peak_mib": 2048.0}]})


def test_what_is_said_of_sharded_gradients():
    def shard(x):
        return SimpleNamespace(full_tensor=lambda: x)

    right = [torch.tensor([1.0, 2.0]), torch.tensor([3.0])]
    assert sharding.outcome([shard(x) for x in right], right) == "right"
    assert sharding.outcome([shard(1.5 * x) for x in right], right) == "wrong by 0.5"
    assert sharding.outcome([shard(right[0]), None], right) == "no gradient of 1 of 2 parameters"
    assert sharding.outcome(right, right).startswith("gradients of one process's own batch")
