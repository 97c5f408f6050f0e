"""Presets of `dual`. docs/methods/dual.md"""

from thalweg.augmentation import Shifts
from thalweg.nn.build import MLP, PatchUNet, UNet

# toys: levels from a quarter of the finest structure to four times the extent (studies/dual toys)
_TOY = dict(
    data="8gaussians", shape=(2,), net=MLP(width=128, depth=3), sigma_min=0.0375, sigma_max=6.0, level_weight=0.02,
    batch=512, lr=2e-3, ema=0.998, calibration=500_000, images=4_000_000,
)  # fmt: skip
# pictures of 8 bits: half of the levels about 0.4, which decide samples, half of all, which carry the normalisation
_IMAGES = dict(
    grey_values=256, reference="full", ends="bumps", sigma_min=0.002, sigma_max=20.0, focus=0.5, focus_sigma=0.4, focus_spread=1.2,
    least_std=0.03, calibration=10_000, batch=64, lr=2e-3, ema=0.9995, sample_steps=40,
)  # fmt: skip
_FASHION = dict(
    _IMAGES,
    data="fashion-mnist",
    shape=(1, 28, 28),
    net=PatchUNet(width=48, deep_width=96, hidden=128),
    time_weight=5.0,
    lr=1e-3,
    images=1_500_000,
)
_PAPER = dict(_IMAGES, reference="diagonal", batch=128, lr=5e-4, ema=0.9999)

# fmt: off
PRESETS = {
    "toy":           dict(_TOY),
    "gaussian":      dict(_TOY, data="gaussian", sigma_min=0.25, sigma_max=4.0),
    "2gaussians":    dict(_TOY, data="2gaussians", sigma_min=0.1, sigma_max=10.0),
    "25gaussians":   dict(_TOY, data="25gaussians", sigma_min=0.0125),
    "rings":         dict(_TOY, data="rings", sigma_min=0.02),
    "moons":         dict(_TOY, data="moons", sigma_min=0.05),
    "checkerboard":  dict(_TOY, data="checkerboard", sigma_min=0.0125, sigma_max=5.0),
    # standardised tables of one's own, whose shape is the data's
    "vectors":       dict(_TOY, data="", sigma_min=0.03, sigma_max=5.0, images=1_000_000),
    # 1,259 images: dropout, and no longer than the loss of test images falls (studies/dual digits)
    "digits":        dict(_IMAGES, ends="bins", data="digits", shape=(1, 8, 8), classes=10, grey_values=17, sigma_min=0.01,
                          batch=128, images=160_000,
                          net=PatchUNet(width=32, deep_width=64, hidden=64, blocks=1, deep_blocks=2, dropout=0.2)),
    "fashion-mnist": dict(_FASHION, classes=10),
    "fashion-mnist-conditional": dict(_FASHION, classes=10, conditional=True, label_dropping=0.3, class_sigma=1.0),
    # few pictures: mirror images as well, dropout
    "emoji-google":  dict(_IMAGES, data="emoji-google", shape=(3, 32, 32), classes=9, conditional=True,
                          label_dropping=0.3, lr=1e-3, reference="diagonal", time_weight=5.0,
                          net=PatchUNet(width=48, deep_width=96, hidden=128, dropout=0.05),
                          augmentation=Shifts(flip=0.5, shift=0), images=950_000),
    # by kind (cat-face, keycap …), wider where the map is small; no mirror images, which letters and arrows do not stand
    "emoji-google-kinds": dict(_IMAGES, data="emoji-google-kinds", shape=(3, 32, 32), classes=98, conditional=True,
                          label_dropping=0.2, lr=1e-3, reference="diagonal", time_weight=5.0,
                          net=PatchUNet(width=48, deep_width=160, hidden=128),
                          guidance=2.0, images=660_000),
    # latents of 28×28 pixels are 4×7×7, of deviation 1; not measured
    "fashion-mnist-latent": dict(data="fashion-mnist", shape=(4, 7, 7), autoencoder="runs/autoencoder", net=MLP(width=512, depth=3),
                                 waves=0, reference="full", sigma_min=0.02, sigma_max=10.0, batch=128, images=1_000_000),
    # rate, batch and length of the paper's ImageNet at 64×64 (appendix); its UNet is bias-free, with a norm of its own; not run here
    "cifar10":       dict(_PAPER, data="hf:uoft-cs/cifar10", shape=(3, 32, 32), net=UNet(width=128, multipliers=(1, 2, 2), blocks=3,
                          attention=16), images=64_000_000),
    "imagenet64":    dict(_PAPER, data="hf:ILSVRC/imagenet-1k", shape=(3, 64, 64), net=UNet(width=128, multipliers=(1, 2, 3), blocks=3,
                          attention=16), images=128_000_000),
}
# fmt: on
