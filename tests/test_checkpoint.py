"""States on disk: atomic, checked, never executed; models saved and loaded bit for bit."""

import errno
import json
import os
import pickle
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import thalweg as tw
from thalweg import checkpoint
from thalweg.train import fit

TINY = {
    "short_run/8gaussians": dict(width=16, steps=2, sample_steps=5, batch=16, images=64, buffer=64),
    "egc/digits": dict(width=8, blocks=1, levels=20, sample_steps=5, batch=16, images=64),
}


def tiny(name: str, **changes):
    return tw.method(name, **(TINY[name] | changes))


def data_of(name: str):
    return tw.data.load(name.split("/")[1])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module", params=TINY)
def trained(request, tmp_path_factory):
    """A name, the run's folder with states at 16 … 64 images, and the twin that the run returned."""
    out = tmp_path_factory.mktemp("run") / "a"
    return request.param, out, fit(tiny(request.param), data_of(request.param), out, save_every=16, progress=False)


@pytest.fixture
def run(tmp_path):
    out = tmp_path / "run"
    fit(tiny("short_run/8gaussians"), data_of("short_run/8gaussians"), out, save_every=16, progress=False)
    return out


# --- writing


@pytest.mark.parametrize(("number", "said"), [(errno.ENOSPC, "the disk is full"), (errno.EACCES, "Permission denied")])
@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_failing_write_leaves_the_old_content(number, said, call, tmp_path, monkeypatch):
    path = tmp_path / "best.pt"
    checkpoint.write(path, {"a": 1})

    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(tw.InputError, match=f"cannot write .*best.pt: {said}. What was there before is unchanged"):
        checkpoint.write(path, {"a": 2})
    monkeypatch.undo()
    assert checkpoint.read(path) == {"a": 1} and os.listdir(tmp_path) == ["best.pt"]


def test_a_file_size_limit_leaves_the_old_content(tmp_path):
    path = tmp_path / "best.pt"
    checkpoint.write(path, {"a": torch.zeros(4)})
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, old[1]))
    try:
        with pytest.raises(tw.InputError, match="the disk is full"):
            checkpoint.write(path, {"a": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert torch.equal(checkpoint.read(path)["a"], torch.zeros(4)) and os.listdir(tmp_path) == ["best.pt"]


def test_a_disk_that_fills_up_during_a_run_keeps_the_last_state(run, monkeypatch):
    before = contents(run)
    real = os.replace

    def fail(source, target):
        if "state-" in str(target):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", fail)
    name = "short_run/8gaussians"
    with pytest.raises(tw.InputError, match="the disk is full"):
        fit(tiny(name), data_of(name), run, images=128, save_every=16, progress=False)
    monkeypatch.undo()
    after = contents(run)
    assert {key: value for key, value in after.items() if key != "stats.jsonl"} == {k: v for k, v in before.items() if k != "stats.jsonl"}
    assert checkpoint.latest(run)["images"] == 64


def test_only_the_newest_three_states_are_kept(run):
    assert sorted(int(path.name.split("-")[1]) for path in run.glob("state-*.pt")) == [32, 48, 64]
    assert not list(run.glob("*.partial"))


def test_a_state_of_the_same_count_takes_the_place_of_the_old(tmp_path):
    for value in (1, 2):
        checkpoint.save(tmp_path, {"images": 16, "value": value})
    assert len(list(tmp_path.iterdir())) == 1 and checkpoint.latest(tmp_path)["value"] == 2


# --- reading


def damage(path: Path, kind: str) -> None:
    content = bytearray(path.read_bytes())
    if kind == "truncated":
        del content[len(content) // 2 :]
    elif kind == "empty":
        content.clear()
    elif kind == "one bit":
        content[len(content) // 3] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("kind", ["truncated", "empty", "one bit"])
def test_a_damaged_state_falls_back_to_the_one_before(kind, run, capsys):
    expected = checkpoint.latest(run)
    (newest,) = run.glob("state-000000000064-*.pt")
    damage(newest, kind)
    assert checkpoint.latest(run)["images"] == 48
    said = capsys.readouterr().err
    assert newest.name in said and "is corrupt" in said and "using the state before it" in said
    name = "short_run/8gaussians"
    fit(tiny(name), data_of(name), run, save_every=16, progress=False)
    again = checkpoint.latest(run)
    assert again["images"] == 64 and all(torch.equal(again["method"][key], value) for key, value in expected["method"].items())


def test_all_states_damaged_is_an_input_error_that_changes_nothing(run, capsys):
    for path in run.glob("state-*.pt"):
        damage(path, "one bit")
    before = contents(run)
    name = "short_run/8gaussians"
    for action in (lambda: tw.load(run), lambda: fit(tiny(name), data_of(name), run, progress=False)):
        with pytest.raises(tw.InputError, match=r"no state in .* can be read; move the folder away to start anew"):
            action()
    assert contents(run) == before
    assert capsys.readouterr().err.count("is corrupt") == 6


class Dangerous:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("form", ["pickle", "torch.save"])
def test_code_in_a_state_is_not_executed(form, tmp_path):
    trap, path = tmp_path / "executed", tmp_path / "best.pt"
    if form == "pickle":
        path.write_bytes(pickle.dumps({"ema": Dangerous(trap)}))
    else:
        torch.save({"ema": Dangerous(trap)}, path)
    with pytest.raises(tw.InputError, match="is corrupt or no state of Thalweg"):
        checkpoint.read(path)
    assert not trap.exists()
    torch.load(path, weights_only=False) if form == "torch.save" else pickle.loads(path.read_bytes())
    assert trap.exists()  # the trap works where code is executed


def test_trim_stats(tmp_path):
    rows = [{"images": 16, "loss": 1.0}, {"images": 32, "loss": 0.1}, {"images": 48, "event": "diverged"}, {"images": 48, "loss": 2.0}]
    text = "".join(json.dumps(row) + "\n" for row in rows) + '{"images": 64, "lo'
    (tmp_path / "stats.jsonl").write_text(text)
    assert checkpoint.read_stats(tmp_path) == rows
    checkpoint.trim_stats(tmp_path, 32)
    assert [json.loads(line) for line in (tmp_path / "stats.jsonl").read_text().splitlines()] == rows[:3]


OTHERS = {
    "width": (lambda: tiny("short_run/8gaussians", width=24), 0, "was started with net.width = 16, now 24"),
    "lr": (lambda: tiny("short_run/8gaussians", lr=0.5), 0, "was started with lr = 0.001, now 0.5"),
    "method": (lambda: tiny("egc/digits"), 0, "holds a run of short_run, not egc"),
    "seed": (lambda: tiny("short_run/8gaussians"), 1, "was started with seed 0, not 1"),
}


@pytest.mark.parametrize("field", OTHERS)
def test_resuming_another_run_names_the_field_and_changes_nothing(field, run):
    make, seed, message = OTHERS[field]
    method, before = make(), contents(run)
    with pytest.raises(tw.InputError, match=message):
        fit(method, data_of("egc/digits" if field == "method" else "short_run/8gaussians"), run, seed=seed, images=128, progress=False)
    assert contents(run) == before


def test_a_kill_while_the_folder_was_made_does_not_block_it(tmp_path):
    (tmp_path / "config.json.partial").write_text('{"thalweg": "0.1')
    name = "short_run/8gaussians"
    fit(tiny(name), data_of(name), tmp_path, progress=False)
    (tmp_path / "state-000000000999-abcdef01.pt.partial").write_text("torn")
    fit(tiny(name), data_of(name), tmp_path, progress=False)
    assert not list(tmp_path.glob("*.partial")) and checkpoint.latest(tmp_path)["images"] == 64


# --- models


def same_model(a, b, name: str) -> None:
    left, right = a.state_dict(), b.state_dict()
    assert left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)
    x = data_of(name).batch(0, 8, 5).x
    assert torch.equal(a.energy(x), b.energy(x)) and torch.equal(a.sample(4, seed=3), b.sample(4, seed=3))
    assert not b.training and not any(p.requires_grad for p in b.parameters())


def test_save_and_load_bit_for_bit(trained, tmp_path):
    name, out, twin = trained
    same_model(twin, tw.load(out), name)
    folder = tw.save(tw.load(out), tmp_path / "model")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "data.json", "model.safetensors"]
    same_model(twin, tw.load(folder), name)
    same_model(twin, tw.load(folder), name)
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: thalweg\n") and f"# {twin.name} on {twin.config.data}" in card and "tw.load(" in card
    before = contents(folder)
    tw.save(tw.load(out), folder)  # an export may be renewed
    assert contents(folder) == before


def test_an_export_in_bf16_is_smaller_and_nearly_the_same(trained, tmp_path):
    _, _, twin = trained
    whole, half = (tw.save(twin, tmp_path / p, precision=p) for p in ("fp32", "bf16"))
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (whole, half)]
    assert sizes[0] - sizes[1] > 1.9 * sum(p.numel() for p in twin.parameters())
    again = tw.load(half)
    for one, other in zip(twin.parameters(), again.parameters()):
        assert other.dtype == one.dtype and torch.allclose(one, other, rtol=2**-8, atol=0)
    assert all(torch.equal(one, other) for one, other in zip(twin.buffers(), again.buffers()))
    with pytest.raises(tw.InputError, match="precision 'int8' is not known"):
        tw.save(twin, tmp_path / "c", precision="int8")


def test_a_model_that_the_zoo_lacks_is_named():
    with pytest.raises(tw.InputError, match="no model 'nothing' in the zoo"):
        tw.load("zoo:nothing")


def test_export_does_not_overwrite_other_files(trained, tmp_path):
    _, out, twin = trained
    (tmp_path / "README.md").write_text("mine")
    for folder in (tmp_path, out):
        before = contents(folder)
        with pytest.raises(tw.InputError, match="is a run folder or holds other files; export to a new or empty one"):
            tw.save(twin, folder)
        assert contents(folder) == before
    with pytest.raises(tw.InputError, match=r"the output .*README.md is a file; give a folder"):
        tw.save(twin, tmp_path / "README.md")


@pytest.mark.parametrize("form", ["pickle", "truncated", "other weights", "missing"])
def test_weights_that_are_none_are_refused(form, trained, tmp_path):
    name, _, twin = trained
    folder, trap = tw.save(twin, tmp_path / "model"), tmp_path / "executed"
    weights = folder / "model.safetensors"
    if form == "pickle":
        weights.write_bytes(pickle.dumps({"net.weight": Dangerous(trap)}))
    elif form == "truncated":
        damage(weights, "truncated")
    elif form == "missing":
        weights.unlink()
    else:
        other = tw.save(tiny(name, width=12 if name.startswith("short") else 16), tmp_path / "other")
        weights.write_bytes((other / "model.safetensors").read_bytes())
    message = {"missing": "has no model.safetensors", "other weights": "do not fit its config: size mismatch"}.get(form, "is corrupt")
    with pytest.raises(tw.InputError, match=message):
        tw.load(folder)
    assert not trap.exists()


@pytest.mark.parametrize("form", ["another field", "other weights"])
def test_what_another_version_wrote_is_named_as_that(form, trained, tmp_path):
    name, _, twin = trained
    folder = tw.save(twin, tmp_path / "model")
    description = json.loads((folder / "config.json").read_text())
    assert description["thalweg"] == tw.__version__
    if form == "another field":
        description["config"]["network"] = "mlp"
    else:
        other = tw.save(tiny(name, width=12 if name.startswith("short") else 16), tmp_path / "other")
        (folder / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    for version in ("0.1.0", tw.__version__):
        (folder / "config.json").write_text(json.dumps(description | {"thalweg": version}))
        before = contents(folder)
        with pytest.raises(tw.InputError) as caught:
            tw.load(folder)
        old = f"was made by Thalweg 0.1.0 and does not fit {tw.__version__}: train it anew, or use it with that version"
        assert (old in str(caught.value)) == (version == "0.1.0") and "\n" not in str(caught.value)
        assert contents(folder) == before


def test_push_to_hub_uploads_the_three_files(trained, monkeypatch):
    import huggingface_hub

    name, _, twin = trained
    seen = {}

    class FakeApi:
        def create_repo(self, repo_id, *, private, exist_ok):
            seen["repo"] = (repo_id, private, exist_ok)
            return f"https://huggingface.co/{repo_id}"

        def upload_folder(self, *, repo_id, folder_path):
            seen["uploaded"] = repo_id
            same_model(twin, tw.load(folder_path), name)
            seen["files"] = sorted(os.listdir(folder_path))

    monkeypatch.setattr(huggingface_hub, "HfApi", FakeApi)
    assert tw.push_to_hub(twin, "user/model", private=True) == "https://huggingface.co/user/model"
    assert seen == {
        "repo": ("user/model", True, True),
        "uploaded": "user/model",
        "files": ["README.md", "config.json", "data.json", "model.safetensors"],
    }

    def refuse(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(FakeApi, "create_repo", refuse)
    with pytest.raises(tw.InputError, match="cannot upload to 'user/model': no route to host"):
        tw.push_to_hub(twin, "user/model")


def test_a_hub_name_out_of_reach(tmp_path):
    code = "import thalweg as tw\ntry:\n    tw.load('nobody/nothing')\nexcept tw.InputError as error:\n    print(error)"
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("'nobody/nothing' is no folder here and cannot be had from the hub: ") and done.stdout.count("\n") == 1


def test_a_state_holds_chains_once(tmp_path):
    """Model, twin and optimizer hold a network's weights four times; what is no weight is the same in model and twin."""
    method = tw.method("short_run/moons", width=8, steps=2, sample_steps=2, batch=16, images=32, buffer=4096)
    tw.fit(method, tw.data.load("moons"), tmp_path / "run", progress=False)
    weights, others = (sum(x.numel() * x.element_size() for x in part) for part in (method.parameters(), method.buffers()))
    assert others > 10 * weights
    found = checkpoint.latest(tmp_path / "run")
    assert torch.equal(found["method"]["replay.chains"], found["ema"]["replay.chains"])
    (path, *_) = sorted((tmp_path / "run").glob("state-*.pt"))
    assert path.stat().st_size < others + 4 * weights + 20_000
