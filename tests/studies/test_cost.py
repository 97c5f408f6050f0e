"""What a step costs: straight lines, counted convolutions, a page with every part."""

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from studies.checks import cost
from studies.tables import filled
from thalweg.nn.build import ConvNet


def test_a_straight_line_is_found_whatever_its_scale():
    x = [1.0, 2.0, 8.0, 64.0]
    fixed, each = cost.straight(x, [3e-3 + 2e-3 * value for value in x])
    assert fixed == pytest.approx(3e-3, rel=1e-9) and each == pytest.approx(2e-3, rel=1e-9)


def test_a_fixed_part_is_never_below_zero():
    fixed, each = cost.straight([1.0, 2.0, 4.0], [1.0, 4.0, 16.0])  # x²
    assert fixed == 0.0
    # of relative errors, (b − x)/x squared summed over x = 1, 2, 4: b = Σ1/x / Σ1/x²
    assert each == pytest.approx((1 + 1 / 2 + 1 / 4) / (1 + 1 / 4 + 1 / 16))


def test_operations_of_convolutions_are_those_that_pytorch_counts():
    net, x = ConvNet(widths=(8, 16)).build((3, 16, 16)), torch.zeros(1, 3, 16, 16)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(x)
    by_kind = counter.get_flop_counts()["Global"]
    assert cost.multiplied(net, x) == sum(count for kind, count in by_kind.items() if "convolution" in str(kind)) > 0


def test_a_line_says_how_far_each_time_is_from_it(monkeypatch):
    monkeypatch.setitem(cost.LINES, "plain", ("additions", (10_000, 20_000), lambda n: (lambda: sum(range(n)), float(n))))
    row = cost.line("plain", 3)
    assert row["values"] == [10_000.0, 20_000.0] and len(row["off"]) == len(row["seconds"]) == 2
    assert all(abs(off) < 0.5 for off in row["off"]) and row["each"] > 0


def test_a_part_alone_keeps_the_others(tmp_path, monkeypatch):
    out = tmp_path / "cost.json"
    out.write_text(json.dumps({"results": {"lines": ["kept"]}}))
    monkeypatch.setattr(cost, "shares", lambda options: {"peak_gflops": 1.0, "rows": []})
    options = cost.CHECK.parser().parse_args(["--parts", "shares", "--out", str(out)])
    assert cost.run(options) == {"lines": ["kept"], "shares": {"peak_gflops": 1.0, "rows": []}}


def test_the_page_is_filled_from_the_results():
    row = dict(name="a", parameters=7, batch=2, seconds=0.5, images_a_second=4.0, gflop=1.0, share_of_peak=0.25)
    grown = dict(of="steps", values=[1.0, 2.0], seconds=[0.1, 0.2], off=[0.0, -0.02], spread=[0.1, 0.0])
    results = {
        "shares": {"precision": "bf16", "peak_gflops": 500.0, "rows": [row]},
        "lines": [grown],
        "processes": {"preset": "egc/x", "share": 0.93},
    }
    assert "25 %" in cost.SHARES.text(results) and "+0, -2" in cost.GROWN.text(results)
    assert "`egc/x` at 93 %" in filled(cost.PAGE[0].parts[0].blocks[-1], results)
