import warnings

import pytest
import torch

import thalweg as tw
from thalweg import precision
from thalweg.commands.main import main


def trained(**options):
    data = tw.data.load("digits", "train")
    model = tw.method("egc/digits", seed=0, data=data, **{"net.width": 16, "net.blocks": 1})
    return tw.fit(model, data, images=2 * model.config.batch, progress=False, seed=0, **options).state_dict()


def test_where_the_processor_lacks_bfloat16_a_run_warns_and_is_the_same_as_in_fp32(monkeypatch, recwarn):
    monkeypatch.setattr(precision, "native", lambda device: False)
    plain = trained()
    assert not recwarn
    fallen_back = trained(precision="bf16")
    assert [str(w.message) for w in recwarn] == [
        "thalweg: this processor has no instructions for bfloat16, in which it would be far slower; fp32 is used"
    ]
    for name, value in plain.items():
        torch.testing.assert_close(fallen_back[name], value, rtol=1e-4, atol=1e-6)  # fp32 in another memory layout or the same


def test_gpus_are_taken_to_have_it_and_the_cpu_is_asked(monkeypatch):
    assert precision.native("cuda") and precision.supported("bf16", "cuda:1") == "bf16" and precision.supported("fp32", "cpu") == "fp32"
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    assert precision.native("cpu") == torch.backends.mkldnn.is_available()


def test_the_command_line_says_it_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(precision, "native", lambda device: False)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # put back afterwards
    with pytest.warns(UserWarning, match="no instructions for bfloat16") as told:
        assert main(["train", "egc/8gaussians", "--images", "512", "--precision", "bf16", "--out", str(tmp_path / "run")]) == 0
    assert len(told) == 1 and warnings.formatwarning(told[0].message, UserWarning, "place.py", 3) == f"{told[0].message}\n"
    assert warnings.formatwarning("of another", UserWarning, "place.py", 3) == "place.py:3: UserWarning: of another\n"
