"""Presets of `ddpm`. docs/methods/ddpm.md"""

from thalweg.nn.build import MLP, PatchUNet

# networks, rates and batches as of `dual`, so that the two differ in what they learn; levels log-normal, as in Karras et al. 2022 but wider
_TOY = dict(data="8gaussians", shape=(2,), net=MLP(width=128, depth=3), data_std=1.4, sigma_min=0.03, sigma_max=10.0, focus_sigma=0.4,
            batch=512, lr=2e-3, ema=0.998, images=4_000_000)  # fmt: skip
_IMAGES = dict(data_std=0.82, batch=64, lr=1e-3, ema=0.9995)
_FASHION = dict(_IMAGES, data="fashion-mnist", shape=(1, 28, 28), classes=10, net=PatchUNet(width=48, deep_width=96, hidden=128),
                images=4_000_000)  # fmt: skip

# fmt: off
PRESETS = {
    "toy":                       dict(_TOY),
    # standardised tables of one's own, whose shape is the data's
    "vectors":                   dict(_TOY, data="", data_std=1.0, images=1_000_000),
    "digits":                    dict(_IMAGES, data="digits", shape=(1, 8, 8), classes=10, net=MLP(width=512, depth=3), batch=128, lr=2e-3,
                                      images=1_000_000),
    "fashion-mnist":             dict(_FASHION),
    "fashion-mnist-conditional": dict(_FASHION, conditional=True),
    "emoji-google":              dict(_IMAGES, data="emoji-google", shape=(3, 32, 32), classes=9, net=PatchUNet(width=64, deep_width=128),
                                      images=2_000_000),
}
# fmt: on
