"""Presets of `ddaebm`. docs/methods/ddaebm.md"""

from thalweg.chain import MALA
from thalweg.importance import Proposals
from thalweg.nn.build import MLP, NICE, ConvEncoder, MLPEncoder, PatchNet, PatchUNet, UNet
from thalweg.nn.steps import ResidualEncoder, TwoStream, TwoStreamEncoder

# fmt: off
# Table 6 and section B.2.1: T, schedule, batch, rates, length, latent dimension; γ and the floor are the released code's. Ours: SiLU
# networks without batch norm for its PReLU ones, rates that fall and an EMA
_TOY = dict(data="25gaussians", shape=(2,), net=MLP(width=300, depth=2), encoder=MLPEncoder(width=300, depth=2), reference_std=2.0,
            batch=200, images=36_000_000)
# By the paper to the letter: Table 6's networks with PReLU, batch norm in generator and encoder alone, no Gaussian added, constant rates,
# no EMA, no floor under q(x_s | x_t, x₀). What it leaves open, γ and the floor of q_ψ, is the released code's
_PAPER = _TOY | dict(net=TwoStream(), encoder=TwoStreamEncoder(), reference_std=0.0, lr_end=1.0, ema=0.0, encoder_floor=1e-2,
                     reconstruction_floor=0.0)
# Ours, for minutes instead of hours: rates 10 and 20 times the paper's, a falling γ, and the released code's weight on the entropy
_QUICK = _TOY | dict(net=MLP(width=128, depth=3), encoder=MLPEncoder(width=128, depth=3), lr=1e-3, lr_generator=2e-3, lr_end=0.03,
                     penalty_end=0.002, entropy_weight=0.1, images=900_000, ema=0.995)
# Ours, for the density: weighted draws and no penalty, noise at level 0 that the encoder can tell from none, and two steps, so that one
# level tells how far modes outweigh each other. Without contrast the energy of a mode that the generator reaches too seldom may fall
# without end (25 Gaussians), without defensive draws it falls where the generator never is (pinwheel)
_WEIGHTED = _QUICK | dict(proposals=Proposals(count=16, defensive=4, contrast=True), penalty=0.0, penalty_end=0.0, entropy_weight=1.0,
                          first_time=5e-3, levels=2, batch=64, beta2=0.99)
# Table 10's MNIST schedule, rates and length by the data's size; networks ours (the paper's energy there is a NICE flow).
# The floor gives s = 0 the weight that the released image code gives to every level: a squared error
_IMAGE = dict(latent_dim=50, beta_max=10.0, reconstruction_floor=0.5)
_SMALL = _IMAGE | dict(net=PatchNet(width=64, embedding=128, blocks=4, patch=2), encoder=ConvEncoder(width=32))
# Table 7 and section B.2.2: weight 0.1 of generated points, 4 couplings of 5 hidden layers, latent dimension 50, an MLP as generator.
# Ours: no batch norm, widths and length by the data's size, and a scale of the flow at each level
_NICE = _IMAGE | dict(generated_weight=0.1)
# Tables 9 and 10, batches over all GPUs, and the released code's γ; not run here. NCSN++ without its resampling filters and progressive
# inputs, which is the DDPM++ of LSUN church
_LARGE = dict(encoder=ConvEncoder(width=64), latent_dim=100, reconstruction_floor=0.5)
_CELEBA = dict(encoder=ConvEncoder(width=64, stages=4), lr=5e-5, lr_generator=5e-5, penalty=0.002, penalty_end=0.002)
_LSUN = dict(encoder=ResidualEncoder(width=32), lr=5e-5, lr_generator=5e-5, penalty=0.005, penalty_end=0.005, spacing="drl",
             elbo_weight=0.6, elbo_weight_mid=0.2)
# Ours, for the arena's price, 7,200 CPU seconds of one thread: two resolutions, half the batch and twice the paper's rates, for as many
# updates as there is time for, and an EMA that forgets within a fifteenth of them
_FASHION = _IMAGE | dict(data="fashion-mnist", shape=(1, 28, 28), batch=64, lr=2e-4, lr_generator=2e-4, lr_end=0.02, ema=0.999,
                         net=PatchUNet(width=32, deep_width=64, hidden=96), encoder=ConvEncoder(width=16), images=1_000_000)

PRESETS = {
    "toy":                  dict(_TOY),
    "25gaussians-paper":    dict(_PAPER),
    "pinwheel-paper":       dict(_PAPER,    data="pinwheel"),
    "swissroll-paper":      dict(_PAPER,    data="swissroll"),
    "25gaussians-quick":    dict(_QUICK),
    "25gaussians-weighted": dict(_WEIGHTED),
    "pinwheel-quick":       dict(_QUICK,    data="pinwheel"),
    "pinwheel-weighted":    dict(_WEIGHTED, data="pinwheel"),
    "swissroll-quick":      dict(_QUICK,    data="swissroll"),
    "swissroll-weighted":   dict(_WEIGHTED, data="swissroll"),
    # standardised tables of one's own, whose shape is the data's; ours, not swept
    "vectors":              dict(_QUICK, data=""),
    "digits":               dict(_SMALL, data="digits", shape=(1, 8, 8), images=1_000_000),
    "fashion-mnist":        dict(_FASHION),
    # the same with steps of MALA on negatives, not measured at length
    "fashion-mnist-chain":  dict(_FASHION, chain=MALA(steps=3, step=0.5, target_acceptance=0.6)),
    # ours: twice the paper's rates, and short, as shares of digits drift apart again after 100,000 images; the lower floor gives the
    # second bound five times the weight
    "stacked-digits":       dict(_SMALL, data="stacked-digits", shape=(3, 8, 8), images=100_000, lr=2e-4, lr_generator=2e-4, lr_end=0.01,
                                 reconstruction_floor=0.1),
    "stacked-mnist":        dict(_IMAGE, data="stacked-mnist", shape=(3, 28, 28), images=24_000_000,
                                 net=PatchNet(width=128, embedding=256, blocks=5, patch=4), encoder=ConvEncoder(width=64)),
    "digits-nice":          dict(_NICE, data="digits", shape=(1, 8, 8), grey_values=17, images=1_000_000, lr=3e-4, lr_generator=3e-4,
                                 net=NICE(width=256, depth=5, couplings=4), encoder=MLPEncoder(width=256, depth=5)),
    "fashion-mnist-nice":   dict(_NICE, data="fashion-mnist", shape=(1, 28, 28), grey_values=256, images=24_000_000,
                                 net=NICE(width=1000, depth=5, couplings=4), encoder=MLPEncoder(width=1000, depth=5)),
    "cifar10":              dict(_LARGE, data="hf:uoft-cs/cifar10", shape=(3, 32, 32), batch=256, images=60_000_000, ema=0.9999,
                                 net=UNet(width=128, multipliers=(1, 2, 2, 2), blocks=2, attention=16)),
    "celeba-64":            dict(_LARGE | _CELEBA, data="hf:flwrlabs/celeba", shape=(3, 64, 64), batch=128, images=65_000_000,
                                 net=UNet(width=64, multipliers=(1, 1, 2, 2, 4), blocks=2, attention=16)),
    "lsun-church-128":      dict(_LARGE | _LSUN, data="hf:tglcourse/lsun_church_train", shape=(3, 128, 128), batch=48, images=50_000_000,
                                 net=UNet(width=64, multipliers=(1, 2, 2, 4, 4), blocks=2, attention=16)),
}
# fmt: on
