"""Frozen encoders: read from the folder of a run or an export, built for a saved model, or given; and what is refused."""

import json

import pytest
import torch
from torch import nn

import thalweg as tw
from thalweg import random
from thalweg.data import Images
from thalweg.encoders import frozen_encoder
from thalweg.errors import InputError
from thalweg.nn.build import ResNet

SHAPE = (1, 8, 8)
NET = ResNet(widths=(8, 8), head=8, dim=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The run of an encoder that has seen one batch."""
    out = tmp_path_factory.mktemp("encoders") / "run"
    data = Images(random.uniform(16, *SHAPE, low=-1.0, high=1.0, generator=random.seeded(1)), torch.arange(16) % 10)
    tw.fit(tw.method("ssl/digits", encoder=NET, batch=16, images=16, warm_up=0), data, out, progress=False)
    return out


def test_an_encoder_is_read_with_its_weights(folder, tmp_path):
    x, ssl = random.uniform(4, *SHAPE, generator=random.seeded(2)), tw.load(folder)
    tw.save_pretrained(ssl, tmp_path / "exported")
    for name in (folder, tmp_path / "exported"):
        found = frozen_encoder(str(name), None, SHAPE)
        assert (found.name, found.net, found.dim, found.known) == (str(name), NET, 4, True)
        assert torch.equal(found.module(x), ssl.encoder(x))
        assert not found.module.training and not any(p.requires_grad for p in found.module.parameters())


def test_with_its_network_nothing_is_read():
    found = frozen_encoder("moved/away", NET, SHAPE)
    assert (found.dim, found.known) == (4, False) and found.module(torch.zeros(2, *SHAPE)).shape == (2, 4)


def test_one_of_ones_own_is_measured_and_none_is_none():
    given = nn.Sequential(nn.Flatten(), nn.Linear(64, 7))
    found = frozen_encoder("elsewhere", NET, SHAPE, given=given)
    assert found.module is given and found[1:] == (7, "own:Sequential", None, True)
    assert frozen_encoder("", None, SHAPE) == (None, 0, "", None, False)


def test_what_is_no_encoder_of_these_images_is_refused(folder, tmp_path):
    tw.save_pretrained(tw.method("ssl/digits", encoder=NET), tmp_path / "old")
    config = json.loads((tmp_path / "old" / "config.json").read_text())
    del config["config"]["encoder"]
    (tmp_path / "old" / "config.json").write_text(json.dumps(config | {"thalweg": "0.1.0", "widths": [8, 8]}))
    tw.save_pretrained(tw.method("ssl/digits", encoder=NET), tmp_path / "torn")
    config["config"]["encoder"] = {"kind": "resnet", "widths": [8, 8], "head": 16, "dim": 4}
    (tmp_path / "torn" / "config.json").write_text(json.dumps(config))
    tw.save_pretrained(tw.method("autoencoder/fashion-mnist", widths=(4,)), tmp_path / "other")
    calls = {
        "no run or exported model": ("nowhere", SHAPE, None),
        r"is for images of shape \(1, 8, 8\), not \(1, 12, 12\)": (str(folder), (1, 12, 12), None),
        "encoders of ssl are for images": (str(folder), (2,), None),
        r"of Thalweg 0\.1\.0, is not that of an ssl model": (str(tmp_path / "old"), SHAPE, None),
        "do not fit its config": (str(tmp_path / "torn"), SHAPE, None),
        "holds a model of autoencoder, no encoder; train one": (str(tmp_path / "other"), SHAPE, None),
        "must give vectors": ("", SHAPE, nn.Identity()),
        r"user's own \(Net\)": ("own:Net", SHAPE, None),
    }
    for message, (name, shape, given) in calls.items():
        with pytest.raises(InputError, match=message):
            frozen_encoder(name, None, shape, given=given)


def test_an_encoder_of_patches_folds_pixels_into_channels():
    """As one of images of four times the channels at half the size."""
    folded, plain = ResNet(widths=(8, 8), patch=2).build((1, 8, 8)).eval(), ResNet(widths=(8, 8)).build((4, 4, 4)).eval()
    plain.load_state_dict(folded.state_dict())
    x = random.uniform(3, 1, 8, 8, generator=random.seeded(3))
    corners = torch.cat([x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)], 1)
    assert torch.equal(folded(x), plain(corners))
    with pytest.raises(InputError, match="patch = 2: height and width must divide by it, got 8×7"):
        ResNet(patch=2).build((1, 8, 7))
