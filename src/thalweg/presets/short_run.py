"""Presets of `short_run`. docs/methods/short_run.md"""

from dataclasses import replace

from thalweg.chain import MALA, Langevin
from thalweg.nn.build import ConvNet

# Toys: Metropolis-adjusted chains, because an unadjusted step of 0.1 widens a mode of std 0.15 by 12 % and the energy absorbs it;
# jumps from the reference, because chains that cannot cross between modes leave the modes' weights undetermined, behind samples
# that look right (docs/design.md)
_TOY = dict(data="8gaussians", shape=(2,), chain=MALA(steps=10, jumps=2), reference_std=2.0, buffer=256, renew=0.0, sample_steps=200)
# Images: unadjusted Langevin at full noise from a replay buffer. Ours: samples of digits looked at, settings not swept
_IMAGE = dict(chain=Langevin(steps=20, step=0.2), data_noise=0.2, lr=3e-4, batch=128, sample_steps=200)
_DIGITS = dict(data="digits", shape=(1, 8, 8), net=ConvNet(widths=(32, 64, 96, 128)), buffer=5_120, images=400_000)
# Fashion-MNIST at 7,200 CPU seconds of one thread, ours: docs/methods/short_run.md. Chains begin at blurred data and stay in [−1, 1], as do
# data, and no pixel moves by more than 0.03 a step. s²/2 = 10, noise of 0.005 and α = 0.1 are of Lippe's tutorial for MNIST (UvA, no. 8)
_FASHION = dict(data="fashion-mnist", shape=(1, 28, 28), net=ConvNet(widths=(32, 64), blocks=1, patch=2), start_law="mixture",
                data_noise=0.005, regularise=0.1, lr=1e-3, lr_end=0.05, batch=32, buffer=4096)  # fmt: skip
_CLAMPED = Langevin(steps=8, step=4.47, noise=0.00112, clip=0.03, clamp=True, compile="auto")

# fmt: off
PRESETS = {
    "toy":                dict(_TOY, images=750_000),
    "25gaussians":        dict(_TOY, images=750_000, data="25gaussians", chain=MALA(steps=10, jumps=2, step=0.05)),
    # standardised tables of one's own (--data FILE.csv), whose shape is the data's. Ours, not swept: the toys' recipe at unit scale
    "vectors":            dict(_TOY, data="", reference_std=1.5, buffer=1024, images=500_000),
    "digits":             dict(_IMAGE | _DIGITS),
    "digits-conditional": dict(_IMAGE | _DIGITS, classes=10, conditional=True),
    # by where chains start: noise, a buffer, data. The first is best early: 300,000 images beat 3 million (docs/methods/short_run.md)
    "fashion-mnist":      dict(_FASHION, start="noise", chain=replace(_CLAMPED, steps=16), images=300_000),
    "fashion-mnist-persistent": dict(_FASHION, chain=_CLAMPED, sample_steps=8, images=3_500_000),
    "fashion-mnist-data": dict(_FASHION, start="data", chain=_CLAMPED, sample_steps=40, images=3_500_000),
    # any images, by --data or from Python, at their own size; as digits, with the three resolutions that 12 pixels have
    "pictures":           dict(_IMAGE, data="digits", shape=(1, 8, 8), net=ConvNet(widths=(32, 64, 128)), buffer=5_120, images=1_000_000),
    # a latent-space prior p(z) ∝ exp(f(z)) N(z; 0, I) (thesis, sec. 2.2.3): from Python, on any Data of vectors
    "latent":             dict(data="gaussian", shape=(2,), start="noise", chain=Langevin(steps=60, step=0.4), reference_std=1.0,
                               lr=2e-5, beta1=0.5, batch=128, images=5_000_000),
    # the non-convergent short run of Nijkamp et al. 2019 in the terms of this file: noise starts, K = 100, noise of std 0.03 on data
    "cifar10":            dict(data="hf:uoft-cs/cifar10", shape=(3, 32, 32), classes=10, net=ConvNet(widths=(64, 128, 256, 512)),
                               start="noise", chain=Langevin(steps=100, step=0.01), data_noise=0.03, lr=1e-4, batch=128,
                               images=10_000_000),
}
# fmt: on
