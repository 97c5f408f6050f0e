"""Presets of `wgan_gp`. docs/methods/wgan_gp.md"""

from thalweg.nn.build import MLP, ConvNet
from thalweg.nn.initializers import Generator

# fmt: off
# Gulrajani et al.: λ = 10, five steps of the critic, Adam (0, 0.9) at 1e-4 (Algorithm 1); the released toy code's λ = 0.1 and batch.
# Ours: smaller networks, rates that fall to zero, and an EMA of the generator
_TOY = dict(data="8gaussians", shape=(2,), critic=MLP(width=128, depth=3), generator=Generator(latent_dim=2, width=128), penalty=0.1,
            batch=256, lr=5e-4, lr_generator=5e-4, ema=0.998, images=2_500_000)
_IMAGES = dict(batch=32, lr=2e-4, lr_generator=2e-4, ema=0.999)

PRESETS = {
    "toy":           dict(_TOY),
    # standardised tables of one's own, whose shape is the data's
    "vectors":       dict(_TOY, data="", generator=Generator(latent_dim=16, width=128)),
    "digits":        dict(_IMAGES, data="digits", shape=(1, 8, 8), critic=ConvNet(widths=(32, 64)),
                          generator=Generator(latent_dim=64, width=32), images=2_000_000),
    # 2.3 million parameters in both networks; few channels at the full resolution, where they cost most
    "fashion-mnist": dict(_IMAGES, data="fashion-mnist", shape=(1, 28, 28), critic=ConvNet(widths=(24, 96, 192)),
                          generator=Generator(latent_dim=128, width=56), images=2_000_000),
    "emoji-google":  dict(_IMAGES, data="emoji-google", shape=(3, 32, 32), critic=ConvNet(widths=(24, 96, 192, 384)),
                          generator=Generator(latent_dim=128, width=48), images=1_500_000),
}
# fmt: on
