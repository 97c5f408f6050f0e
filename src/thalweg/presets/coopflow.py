"""Presets of `coopflow`. docs/methods/coopflow.md"""

from dataclasses import replace

from thalweg.augmentation import Shifts
from thalweg.chain import Langevin
from thalweg.nn.build import MLP, ConvNet, PooledNet
from thalweg.nn.initializers import Flow

# Ours: Gaussian reference and full noise, so that long chains sample the energy's density; a flow of affine maps, as in Glow
_TOY = dict(net=MLP(width=96, depth=3), reference_std=2.0, initializer=Flow(couplings=6, width=64, depth=2, coupling="affine"),
            chain=Langevin(steps=100, step=0.1), step_ratio=1.0, lr=2e-3, beta1=0.0, beta2=0.999, lr_initializer=1e-3)  # fmt: skip
# Ours; the paper's recipe (no noise, clamped moves, steps of samples 4/3 times longer) with an energy, rates and a step for small images
_CHAIN = Langevin(steps=30, step=0.2, noise=0.0, clip=0.1, clamp=True)
_SMALL = dict(chain=_CHAIN, lr=3e-4, beta2=0.999, lr_initializer=1e-3)
_DIGITS = dict(_SMALL, data="digits", shape=(1, 8, 8), net=MLP(width=512, depth=3),
               initializer=Flow(couplings=3, width=32, grey_values=17))  # fmt: skip
# Table 4.3 for the energy; Ho et al. 2019 for the flow, whose sizes for CIFAR-10 these are, on all data (sec. 4.5.1). Section 4.5.2 for
# Adam, whose rates are constant, batches, and mirror images of CIFAR-10 alone. Epochs are of 50,000 images, of SVHN's 73,257 and of
# CelebA's 202,599: the released code has SVHN's training split, and all of CelebA, its shorter side brought to 32 and the longer cropped
_PAPER = dict(shape=(3, 32, 32), net=PooledNet(widths=(128, 256, 512, 1024)),
              initializer=Flow(couplings=4, width=96, depth=10, mixtures=32, self_attention=True), warm_up=0, lr_end=1.0)  # fmt: skip
_CIFAR = dict(_PAPER, data="hf:uoft-cs/cifar10", classes=10, augmentation=Shifts(flip=0.5, shift=0))
_SVHN = dict(_PAPER, data="hf:ufldl-stanford/svhn:cropped_digits", classes=10)
_CELEBA = dict(_PAPER, data="hf:flwrlabs/celeba")
_T30 = Langevin(steps=30, step=0.03, noise=0.0, clip=0.1, clamp=True)
_T200 = Langevin(steps=200, step=0.01, noise=0.0, clip=0.1, clamp=True)
_T200_LONGER = replace(_T200, step=0.011)

# fmt: off
PRESETS = {
    "toy":           dict(_TOY, data="spiral", shape=(2,), images=400_000),
    # standardised tables of one's own, whose shape is the data's; ours, not swept
    "vectors":       dict(_TOY, data="", shape=(2,), images=200_000),
    "digits":        dict(_DIGITS, images=200_000),
    "digits-pre":    dict(_DIGITS, images=200_000, pretrain=50_000, warm_up_energy=10_000),
    # the energy by gradient evaluations a CPU second, and an update that costs the chain about as much as the flow (studies.coopflow
    # networks); the step from digits, where samples were the better the longer it was, up to 0.67
    "fashion-mnist": dict(_SMALL | dict(chain=replace(_CHAIN, step=0.7)), data="fashion-mnist", shape=(1, 28, 28),
                          net=ConvNet(widths=(24, 48, 96)), initializer=Flow(couplings=3, width=32), images=600_000),
    # Table 4.4: CoopFlow (T = 30), CoopFlow (T = 200) and CoopFlow (Pre)
    "cifar10":        dict(_CIFAR,  chain=_T30,         step_ratio=4 / 3,          batch=28, images=5_000_000),
    "cifar10-long":   dict(_CIFAR,  chain=_T200,        step_ratio=1.2,            batch=32, images=5_000_000),
    "cifar10-pre":    dict(_CIFAR,  chain=_T30,         step_ratio=4 / 3,          batch=28, images=20_000_000, pretrain=15_000_000,
                           warm_up_energy=1_250_000),
    "svhn":           dict(_SVHN,   chain=_T30,         step_ratio=0.035 / 0.03,   batch=28, images=7_325_700),
    "svhn-long":      dict(_SVHN,   chain=_T200_LONGER, step_ratio=0.0125 / 0.011, batch=32, images=7_325_700),
    "svhn-pre":       dict(_SVHN,   chain=_T30,         step_ratio=0.035 / 0.03,   batch=28, images=21_977_100, pretrain=14_651_400,
                           warm_up_energy=732_570),
    "celeba-32":      dict(_CELEBA, chain=_T30,         step_ratio=0.035 / 0.03,   batch=28, images=20_259_900),
    "celeba-32-long": dict(_CELEBA, chain=_T200_LONGER, step_ratio=0.013 / 0.011,  batch=32, images=20_259_900),
    "celeba-32-pre":  dict(_CELEBA, chain=_T30,         step_ratio=0.035 / 0.03,   batch=28, images=36_467_820, pretrain=16_207_920,
                           warm_up_energy=2_025_990),
}
# fmt: on
