"""Presets of `dual`. docs/methods/dual.md"""

from thalweg.nn.build import MLP, PatchUNet

# toys: levels from a quarter of the finest structure to four times the extent (studies/dual toys)
_TOY = dict(
    data="8gaussians", shape=(2,), net=MLP(width=128, depth=3), sigma_min=0.0375, sigma_max=6.0, compile=True, batch=512, lr=2e-3, ema=0.998,
    images=8_000_000,
)  # fmt: skip

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
    "vectors":       dict(_TOY, data="", sigma_min=0.03, sigma_max=5.0, compile=False, images=1_000_000),
    "fashion-mnist": dict(data="fashion-mnist", shape=(1, 28, 28), net=PatchUNet(), grey_values=256, sigma_min=0.002, sigma_max=20.0,
                          flatness=0.0, focus=0.5, batch=64, images=3_000_000),
}
# fmt: on
