"""Presets of `jem`. docs/methods/jem.md"""

from thalweg.nn.build import PatchNet

# the body, length and data of egc's presets of the same names, chains and noise as in the paper (sec. 5, appendix A)
# fmt: off
PRESETS = {
    # measured at a fifth of the length, studies/results/egc_classifiers.json
    "digits":        dict(data="digits", shape=(1, 8, 8), classes=10, lr=1e-3, batch=128, images=200_000),
    # not measured
    "fashion-mnist": dict(data="fashion-mnist", shape=(1, 28, 28), classes=10, net=PatchNet(width=96, blocks=5, patch=4), lr=3e-4,
                          batch=128, ema=0.999, images=6_000_000),
}
# fmt: on
