"""What `import thalweg as tw` gives: the names that it says, nothing else, and each of them what it is called."""

import importlib
import subprocess
import sys
from pathlib import Path

import thalweg as tw


def test_dir_is_what_is_public():
    assert dir(tw) == tw.__all__ == sorted(tw.__all__)
    for name in tw.__all__:
        assert getattr(tw, name) is not None


def test_no_name_is_also_that_of_a_submodule():
    """Importing the module would take the function's place."""
    modules = {path.stem for path in Path(tw.__file__).parent.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert not modules & set(tw._HOMES)
    assert set(tw._MODULES) <= modules
    tasks = importlib.import_module("thalweg.tasks")
    assert not {path.stem for path in Path(tasks.__file__).parent.glob("*.py")} & set(tasks._HOMES)


def test_parts_of_packages_are_reached_without_an_import():
    code = (
        "import thalweg as tw\n"
        "assert tw.chain.Langevin(steps=3).steps == 3 and tw.nn.build.MLP().width == 128 and tw.nn.mlp.MLP(2, width=4)\n"
        "assert callable(tw.condition) and callable(tw.update) and tw.replay.Replay and tw.config.Common and tw.metrics.METRICS\n"
        "assert callable(tw.tasks.restore) and tw.tasks.masks.half and tw.tasks.TASKS['inpaint'].needs == ('constraint',)\n"
        "import thalweg.tasks.restoration, thalweg.latent, thalweg.store\n"
        "assert callable(tw.tasks.restore) and callable(tw.save) and callable(tw.load)\n"
        "assert not hasattr(tw, 'nothing') and not hasattr(tw.nn, 'nothing') and not hasattr(tw.tasks, 'nothing')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_saving_and_loading_have_one_pair_and_their_old_names():
    assert tw.save_pretrained is tw.save and tw.from_pretrained is tw.load
