"""Presets of `ssl`. docs/methods/ssl.md"""

from thalweg.augmentation import RandomViews
from thalweg.nn.build import ResNet

_DIGITS = RandomViews(crop=0.5, flip=0.0)  # digits are not mirrored, and keep more of themselves

# Temperature, dimension of the latents and views: LIEBM's footnote 1, the released code of W-MSE. Widths, lengths and rates ours
# fmt: off
PRESETS = {
    "digits":        dict(data="digits", shape=(1, 8, 8), classes=10, augmentation=_DIGITS, images=100_000),
    # by its speed some 40 CPU minutes of one thread; not run at that length
    "fashion-mnist": dict(data="fashion-mnist", shape=(1, 32, 32), classes=10, encoder=ResNet(widths=(32, 64, 128, 256), patch=2),
                          images=1_400_000),
    "emoji-google":  dict(data="emoji-google", shape=(3, 32, 32), classes=10, images=1_000_000),
    # ResNet-18, and of that released code: Adam 3e-3, batch 512, 1000 epochs for SimCLR
    "cifar10":       dict(data="hf:uoft-cs/cifar10", shape=(3, 32, 32), classes=10, images=50_000_000, batch=512, lr=3e-3, warm_up=500,
                          encoder=ResNet(widths=(64, 128, 256, 512), blocks=2, head=1024)),
}
# fmt: on
