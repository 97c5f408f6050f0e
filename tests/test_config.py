"""Settings: the shared learning-rate rule, specs changed whole and in part, names that are bare or dotted, wrong ones refused."""

import json
import math
import subprocess
import sys
from dataclasses import asdict

import pytest
from pydantic.dataclasses import dataclass

from thalweg.chain import MALA, Langevin
from thalweg.config import STRICT, Common, all_fields, changed, make_config, spec_kinds
from thalweg.errors import InputError
from thalweg.methods import METHODS, find, preset, presets_of
from thalweg.methods.short_run import Config
from thalweg.nn.build import MLP, ConvNet, Network


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Two(Common):
    """A config of two networks, one of which may be missing."""

    net: Network = MLP()
    other: MLP | None = None


TOY = Config(shape=(2,), chain=MALA(steps=3))


def test_the_rate_rises_and_falls_to_its_end():
    config = Common.__subclasses__() and Config(shape=(2,), batch=10, images=1000, warm_up=5, lr_end=0.1)
    assert config.rate(0) == pytest.approx(0.2) and config.rate(20) == pytest.approx(
        0.6 * (0.1 + 0.9 * 0.5 * (1 + math.cos(0.02 * math.pi)))
    )
    assert config.rate(500) == pytest.approx(0.55) and config.rate(1000) == config.rate(5000) == pytest.approx(0.1)
    # updates of its own, and an optimizer that begins later
    assert config.rate(0, updates=1) == pytest.approx(0.4)
    assert config.rate(500, start=500) == pytest.approx(0.2) and config.rate(1000, start=500) == pytest.approx(0.1)
    constant = Config(shape=(2,), warm_up=0, lr_end=1.0)
    assert constant.rate(0) == constant.rate(10**9) == 1.0


def test_fields_of_specs_by_bare_and_dotted_names():
    assert changed(TOY, width=7).net == MLP(width=7) == changed(TOY, **{"net.width": 7}).net
    both = changed(TOY, net="convnet", widths=(4, 8), steps=9, lr=0.1)
    assert both.net == ConvNet(widths=(4, 8)) and both.chain == MALA(steps=9) and both.lr == 0.1
    assert changed(TOY, net=dict(depth=1)).net == MLP(depth=1)
    assert changed(TOY, net=ConvNet(blocks=2)).net == ConvNet(blocks=2)
    assert changed(TOY, chain="mala").chain is TOY.chain  # the same kind keeps its settings
    assert changed(TOY, chain={"kind": "langevin", "steps": 4}).chain == Langevin(steps=4)
    filled = changed(Two(shape=(2,)), other="mlp")
    assert filled.other == MLP() and changed(filled, other=None).other is None and changed(filled, other="none").other is None
    assert spec_kinds(Two)["other"] == {"mlp": MLP} and set(spec_kinds(Two)["net"]) == {"mlp", "convnet", "patch", "patch_unet", "unet"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (dict(widht=3), "short_run has no field 'widht' (did you mean 'net.width'?"),
        ({"net.widths": 3}, "short_run has no field 'net.widths' (did you mean 'net.width'?"),
        (dict(net="unnet"), "net = 'unnet' is not known (did you mean 'unet'?): mlp, convnet"),
        (dict(net=dict(widths=3)), "net of kind 'mlp' has no field 'widths' (did you mean 'width'?)"),
        (dict(width=0), "net.width = 0: input should be greater than or equal to 1"),
        ({"chain.step": -1.0}, "chain.step = -1.0: input should be greater than 0"),
        (dict(batch="x"), "batch = 'x': input should be a valid integer"),
        (dict(shape=(2, 0)), "shape.1 = 0"),
        (dict(net=3), "net = 3"),
        (dict(net=None), "net = None"),
    ],
)
def test_wrong_values_are_one_message(values, message):
    with pytest.raises(InputError) as error:
        changed(TOY, **values)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_name_of_two_specs_asks_which():
    with pytest.raises(InputError, match=r"'width' is a field of net and other; say which: net\.width, other\.width"):
        changed(Two(shape=(2,), other=MLP()), width=3)


def test_configs_survive_json():
    for config in (TOY, Two(shape=(2,), other=MLP(width=3)), Config(shape=(1, 8, 8), net=ConvNet(widths=(3,)))):
        assert make_config(type(config), json.loads(json.dumps(asdict(config))), what="x") == config
    assert "net.width" in all_fields(TOY) and "net.kind" not in all_fields(TOY)


def test_presets_need_no_torch():
    """`thalweg list` and `--help` answer before torch could have been imported."""
    code = "import sys; from thalweg import presets; from thalweg.methods import METHODS\n"
    code += "for name in METHODS:\n    try: presets.with_toys(presets.rows(name))\n    except ModuleNotFoundError: pass\n"
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_toy_s_name_is_the_toy_recipe():
    kind, moons = preset("short_run/moons")
    assert moons == changed(preset("short_run/toy")[1], data="moons")
    assert {"toy", "moons", "gaussian"} <= set(presets_of(kind)) and preset("short_run")[1] == preset("short_run/toy")[1]


def test_toys_have_the_labels_that_presets_say():
    from thalweg import data, presets

    assert {name: len(data.toy(name).classes) for name in data.TOYS} == presets.TOYS


@pytest.mark.parametrize("name", METHODS)
def test_every_preset_says_its_data_shape_and_length(name):
    for key, row in presets_of(find(name)).items():
        assert not isinstance(row, dict) or {"data", "shape", "images"} <= set(row), key
