"""Settings: the shared learning-rate rule, specs changed whole and in part, names that are bare or dotted, wrong ones refused."""

import json
import math
import subprocess
import sys
from dataclasses import asdict, field
from typing import Annotated, Literal

import pytest
from pydantic import Field
from pydantic.dataclasses import dataclass

from thalweg.chain import MALA, Chain, Langevin
from thalweg.config import STRICT, Common, Count, all_fields, changed, make_config, spec_kinds
from thalweg.errors import InputError
from thalweg.methods import METHODS, find, preset, presets_of
from thalweg.methods.short_run import Config
from thalweg.nn.build import MLP, ConvNet, Network, PatchNet


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
    # a part of the run that is a training of its own
    assert config.rate(250, end=500) == pytest.approx(0.55) and config.rate(500, end=500) == pytest.approx(0.1)
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
    assert spec_kinds(Two)["other"] == {"mlp": MLP} and set(spec_kinds(Two)["net"]) == {
        "mlp",
        "convnet",
        "patch",
        "patch_unet",
        "unet",
        "guided_unet",
        "own",
    }


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (dict(widht=3), "short_run has no field 'widht' (did you mean 'net.width'?"),
        ({"net.widths": 3}, "short_run has no field 'net.widths' (did you mean 'net.width'?"),
        (dict(net="unnet"), "net = 'unnet' is not known (did you mean 'unet'?): mlp, convnet"),
        (dict(net=dict(widths=3)), "net of kind 'mlp' has no field 'widths' (did you mean 'width'?)"),
        (dict(width=0), "net.width = 0: must be 1 or more"),
        ({"chain.step": -1.0}, "chain.step = -1.0: must be above 0"),
        (dict(batch="x"), "batch = 'x': takes a whole number"),
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


# --- specs in specs


@dataclass(frozen=True, config=STRICT)
class Teacher:
    kind: Literal["teacher"] = "teacher"
    pupils: Count = 3
    chain: Chain = Langevin(steps=7)


@dataclass(frozen=True, config=STRICT)
class Tutor:
    kind: Literal["tutor"] = "tutor"
    rounds: Count = 2


@dataclass(frozen=True, config=STRICT, kw_only=True)
class School(Common):
    net: Network = MLP()
    learner: Annotated[Teacher | Tutor, Field(discriminator="kind")] = field(default_factory=Teacher)
    helper: Annotated[Teacher | Tutor, Field(discriminator="kind")] | None = None


SCHOOL = School(shape=(2,))


def test_a_field_of_a_spec_is_named_in_full_or_alone():
    for name in ("learner.chain.steps", "chain.steps", "steps"):
        assert changed(SCHOOL, **{name: 9}).learner == Teacher(chain=Langevin(steps=9))
    several = changed(SCHOOL, steps=9, pupils=5, **{"net.width": 6}, lr=0.1)
    assert (several.learner, several.net, several.lr) == (Teacher(pupils=5, chain=Langevin(steps=9)), MLP(width=6), 0.1)
    assert School(shape=(2,)) == SCHOOL


def test_specs_in_specs_are_replaced_whole_or_in_part():
    assert changed(SCHOOL, **{"learner.chain": "mala"}).learner.chain == MALA()
    assert changed(SCHOOL, learner=dict(chain=dict(steps=2))).learner == Teacher(chain=Langevin(steps=2))
    assert changed(SCHOOL, chain="mala", target_acceptance=0.6).learner.chain == MALA(target_acceptance=0.6)
    assert changed(SCHOOL, learner="tutor", rounds=4).learner == Tutor(rounds=4)
    assert changed(SCHOOL, helper="tutor").helper == Tutor() and changed(SCHOOL, helper="none").helper is None
    whole = {"kind": "teacher", "pupils": 2, "chain": {"kind": "mala", "steps": 1}}
    assert changed(SCHOOL, learner=whole, **{"chain.steps": 8}).learner == Teacher(pupils=2, chain=MALA(steps=8))


def test_a_name_that_two_specs_have_must_say_which():
    both = changed(SCHOOL, helper="teacher")
    with pytest.raises(InputError, match=r"'pupils' is a field of learner and helper; say which: learner.pupils, helper.pupils"):
        changed(both, pupils=4)
    with pytest.raises(InputError, match=r"say which: learner.chain.steps, helper.chain.steps"):
        changed(both, **{"chain.steps": 4})
    assert changed(both, **{"helper.chain.steps": 4}).helper.chain.steps == 4
    with pytest.raises(InputError, match=r"no field 'net.widths'"):
        changed(SCHOOL, **{"net.widths": (3,)})
    # a name from the root is not looked for in other specs
    with pytest.raises(InputError, match=r"no field 'net.patch'"):
        changed(SCHOOL, helper=Teacher(), **{"net.patch": 2})


def test_what_is_out_of_range_is_named_by_its_place():
    for values, place in (({"learner.chain.steps": -1}, "learner.chain.steps = -1"), ({"net": PatchNet(), "patch": 0}, "net.patch = 0")):
        with pytest.raises(InputError, match=f"test_config.Config: {place}: must be"):
            changed(SCHOOL, **values)
    with pytest.raises(InputError, match=r"shape.0 = 0: must be 1 or more"):
        make_config(School, {"shape": (0,)}, what="x")
    with pytest.raises(InputError, match="does not match any of the expected tags"):
        changed(SCHOOL, net={"kind": "mpl", "width": 3}, width=4)
    with pytest.raises(InputError, match="learner of kind 'teacher' has no field 'pupil'"):
        changed(SCHOOL, learner=dict(pupil=1))


def test_all_fields_are_listed():
    assert {"net.width", "learner", "learner.chain", "learner.chain.step", "helper"} < set(all_fields(SCHOOL))
    assert not [name for name in all_fields(SCHOOL) if name.endswith("kind")]
