"""Presets of `cdrl`. docs/methods/cdrl.md"""

from dataclasses import replace

from thalweg.chain import MALA, Langevin
from thalweg.nn.build import MLP, ConvNet, PatchNet, UNet

# Toys, ours: three levels, adjusted chains and jumps, because the paper's six levels and steps leave the weights of modes undetermined
# in the plane (the page says why)
_ADAPTED = MALA(steps=15, step=1.0, target_acceptance=0.6, jumps=3, jump_every=5)
_TOY = dict(
    data="8gaussians", shape=(2,), net=MLP(width=192, depth=3), waves=3, readout="nats", data_std=1.4, levels=3, chain=_ADAPTED,
    weight_power=0.0, tweedie=1.0, batch=1024, images=1_200_000, lr=1e-3, lr_initializer=1e-3, lr_end=0.0, warm_up=100, ahead=50, ema=0.999,
)  # fmt: skip
# Small images. Ours: the inner read-out and rates for minutes, not days (studies/cdrl ablation)
_SMALL = dict(
    readout="inner", data_std=0.85, weight_power=0.0, lr=1e-3, lr_initializer=1e-3, lr_end=0.0, warm_up=100, ahead=50, ema=0.999,
)  # fmt: skip
_WIDE = dict(net=MLP(width=512, depth=3), initializer=MLP(width=512, depth=3))
_DIGITS = dict(_SMALL | _WIDE, data="digits", shape=(1, 8, 8), images=500_000)
# several concepts composed in sampling, their numbers of values summed; guidance found on held-out pairs of inked digits
# (studies/cdrl composition)
_COMPOSED = dict(_DIGITS, conditional=True, data_first=0.6, guide="initializer", guidance=1.75, resample=4)
# 28 pixels are 7×7 patches; not run at length, not measured
_FASHION = dict(net=PatchNet(width=64, blocks=4, patch=4), initializer=PatchNet(width=64, blocks=4, patch=4))
# tables 5.6, 5.7 and sec. 5.4.8.2. ConvEnergy differs from the paper's network: SiLU for LeakyReLU(0.2), strided convolutions for
# average pooling, residual blocks after (not before) each halving, a linear read-out for ReLU, sum and the product with the embedding
_CIFAR = dict(
    data="hf:uoft-cs/cifar10", shape=(3, 32, 32), images=102_400_000,
    net=ConvNet(widths=(128, 256, 256, 256), blocks=8, spectral_norm=True),
)  # fmt: skip

# fmt: off
PRESETS = {
    "toy":                  dict(_TOY),
    # of its narrow modes few proposals hit one: with 3 jumps the weights of modes went astray, seen in trials of 2,000,000 images
    "25gaussians":          dict(_TOY, data="25gaussians", chain=replace(_ADAPTED, jumps=12)),
    # standardised tables of one's own, whose shape is the data's; ours, not swept
    "vectors":              dict(_TOY, data="", data_std=1.0, images=600_000),
    "digits":               dict(_DIGITS),
    "digits-conditional":   dict(_DIGITS, classes=10, conditional=True),
    # digit × digit, digit × ink, and digit × ink × background (not at its target yet)
    "paired-digits":        dict(_COMPOSED, data="paired-digits", shape=(1, 8, 16), classes=20),
    "inked-digits":         dict(_COMPOSED, data="inked-digits", shape=(3, 8, 8), classes=15, images=850_000),
    "coloured-digits":      dict(_COMPOSED, data="coloured-digits", shape=(3, 8, 8), classes=20, images=600_000),
    # the baseline without initializer: 30 steps, as in Gao et al. 2021
    "digits-drl":           dict(_DIGITS, initializer=None, chain=Langevin(steps=30, step=1.0)),
    "fashion-mnist":        dict(_SMALL | _FASHION, data="fashion-mnist", shape=(1, 28, 28), images=2_000_000),
    # sec. 5.4.4 at a small scale: latents of 28×28 pixels are 4×7×7, of deviation 1
    "fashion-mnist-latent": dict(_SMALL | _WIDE, data="fashion-mnist", shape=(4, 7, 7), autoencoder="runs/autoencoder", data_std=1.0,
                                 data_first=0.6, images=500_000),
    # not run here
    "cifar10":              dict(_CIFAR, initializer=UNet(width=64, multipliers=(1, 1, 1, 1), blocks=3)),
    "cifar10-drl":          dict(_CIFAR, initializer=None, chain=Langevin(steps=30, step=1.0)),
}
# fmt: on
