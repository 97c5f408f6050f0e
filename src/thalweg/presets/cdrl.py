"""Presets of `cdrl`. docs/methods/cdrl.md"""

from dataclasses import replace

from thalweg.chain import MALA, Langevin
from thalweg.nn.build import MLP, PatchNet, UNet
from thalweg.nn.published import RecoveryNet

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
# the initializer learns from the data first; proposals of the EMA twin keep what follows from breaking (studies/cdrl handover)
_DATA_FIRST = dict(data_first=0.6, slow_proposals=True)
_WIDE = dict(net=MLP(width=512, depth=3), initializer=MLP(width=512, depth=3))
_DIGITS = dict(_SMALL | _WIDE, data="digits", shape=(1, 8, 8), images=500_000)
# several concepts composed in sampling, their numbers of values summed; guidance found on held-out pairs of inked digits
# (studies/cdrl composition)
_COMPOSED = dict(_DIGITS | _DATA_FIRST, conditional=True, guide="initializer", guidance=1.75, resample=4)
# digits that are never next to themselves must be learned together (studies/cdrl composition --data paired-digits); each step of a chain
# costs three passes of the network then, so that chains have half as many, which are as much longer as their square root says
_TOGETHER = dict(together=1.0, chain=Langevin(steps=8, step=1.37), images=300_000, guidance=1.5, resample=1)
# 28 pixels are 7×7 patches; not run at length, not measured
_PATCHES = PatchNet(width=64, blocks=4, patch=4, precise_first=True)
_FASHION = dict(_DATA_FIRST, net=_PATCHES, initializer=_PATCHES)
# the baseline of Gao et al. 2021: no initializer, its schedule, pairs of two noises, K = 30, no last denoising. Its released code has
# s_t² = b² (σ̄_t/σ̄_0) σ²_{t+1} with b² = 2e-4 and σ̄_0 = 0.01, which is our coefficient 0.02
_DRL = dict(
    initializer=None, chain=Langevin(steps=30, step=1.0), schedule={"kind": "drl"}, variance_reduction=False, step_coefficient=0.02,
    tweedie=0.0,
)  # fmt: skip
# Tables 5.6, 5.7 and sec. 5.4.8: 400,000 updates of 256 images; initializers of 64 channels with attention at 16×16 and 8×8 (here at 4×4
# too), three blocks a resolution as in the network that the paper follows (Nichol and Dhariwal 2021)
_PAPER = dict(images=102_400_000, initializer=UNet(width=64, multipliers=(1, 1, 1, 1), blocks=3, attention=16, precise_first=True))
_CIFAR = dict(_PAPER, data="hf:uoft-cs/cifar10", shape=(3, 32, 32), net=RecoveryNet(widths=(128, 256, 256, 256), blocks=8))
_LARGE = RecoveryNet(widths=(256, 512, 512, 512), blocks=8)
_IMAGENET = dict(_PAPER, data="hf:ILSVRC/imagenet-1k", shape=(3, 32, 32), net=_LARGE)
_CELEBA = dict(
    _PAPER, data="hf:flwrlabs/celeba", shape=(3, 64, 64),
    initializer=UNet(width=64, multipliers=(1, 1, 1, 1, 1), blocks=3, attention=16, precise_first=True),
)  # fmt: skip
_FIVE = (128, 256, 256, 256, 256)

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
    "paired-digits":        dict(_COMPOSED | _TOGETHER, data="paired-digits", shape=(1, 8, 16), classes=20),
    "inked-digits":         dict(_COMPOSED, data="inked-digits", shape=(3, 8, 8), classes=15, images=850_000),
    "coloured-digits":      dict(_COMPOSED, data="coloured-digits", shape=(3, 8, 8), classes=20, images=600_000),
    "digits-drl":           dict(_DIGITS | _DRL),
    "fashion-mnist":        dict(_SMALL | _FASHION, data="fashion-mnist", shape=(1, 28, 28), images=2_000_000),
    # sec. 5.4.4 at a small scale: latents of 28×28 pixels are 4×7×7, of deviation 1
    "fashion-mnist-latent": dict(_SMALL | _WIDE | _DATA_FIRST, data="fashion-mnist", shape=(4, 7, 7), autoencoder="runs/autoencoder",
                                 data_std=1.0, images=500_000),
    # none of these was run here
    "cifar10":              dict(_CIFAR),
    "cifar10-large":        dict(_CIFAR, net=_LARGE),
    "cifar10-drl":          dict(_CIFAR | _DRL),
    "imagenet32":           dict(_IMAGENET),
    # best at w = 0.7 (sec. 5.4.3)
    "imagenet32-guided":    dict(_IMAGENET, classes=1000, conditional=True, guidance=1.7),
    # male, smiling, young, each yes or no (sec. 5.4.6): a folder with attributes.csv; w = 3, an initializer without labels
    "celeba-64-composition": dict(_CELEBA | dict(data="data/celeba-attributes/"), net=RecoveryNet(widths=_FIVE, blocks=2), classes=6,
                                  conditional=True, guidance=4.0, initializer_conditional=False),
    "celeba-64-inpainting": dict(_CELEBA, net=RecoveryNet(widths=_FIVE, blocks=8)),
    # sec. 5.4.4 gives neither networks nor autoencoder: those of 32×32, in the latents that EGC's preset has
    "celebahq-256-latent":  dict(_PAPER, data="hf:korexyz/celeba-hq-256x256", shape=(4, 32, 32),
                                 autoencoder="diffusers:stabilityai/sd-vae-ft-ema",
                                 net=RecoveryNet(widths=(128, 256, 256, 256), blocks=8)),
}
# fmt: on
