"""Presets of `jem`. docs/methods/jem.md"""

import math

from thalweg.chain import Langevin
from thalweg.nn.build import ConvNet

# Chains and noise as in the paper (sec. 5, appendix A), with the body, length and data of `egc/digits`; ours where said
# fmt: off
PRESETS = {
    # measured at a fifth of the length, studies/results/egc_classifiers.json
    "digits":        dict(data="digits", shape=(1, 8, 8), classes=10, lr=1e-3, batch=128, images=200_000),
    # ours, for 7,200 CPU seconds of one thread: the chains of short_run/fashion-mnist-persistent at the paper's α = 1 and σ = 0.01
    "fashion-mnist": dict(data="fashion-mnist", shape=(1, 28, 28), classes=10, net=ConvNet(widths=(48, 96), blocks=1, patch=2),
                          chain=Langevin(steps=10, step=math.sqrt(2), noise=0.01 / math.sqrt(2), clip=0.03, clamp=True, compile="auto"),
                          start_law="mixture", lr=3e-4, lr_end=0.05, batch=64, ema=0.999, images=2_000_000),
}
# fmt: on
