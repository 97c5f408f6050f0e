"""Presets of `cf_ebm`. docs/methods/cf_ebm.md"""

from thalweg.nn.build import ExpandingNet

# Ours: sizes and budgets for small images, with the paper's rates, steps and noise; the data noise is ours as well (sec. A.5: none)
_SMALL = dict(net=ExpandingNet(width=16), data_noise=0.03, batch=128)
# Ours, to translate at 16×16 in minutes: studies/results/cf_ebm_translation_fashion-mnist.json, cf_ebm_translation_emoji.json
_TRANSLATE_16 = dict(net=ExpandingNet(width=8), data_noise=0.03, batch=64, stage_images=(4096, 8192), images=16_384)
# Sec. A.2, a column for each side: 8, 16, 32, 64, 128 pixels. Not run here. The run ends with the last stage's images
_PAPER_32 = dict(stage_steps=(15, 30, 50), stage_images=(50_000, 75_000, 100_000), stage_lr_factors=(1, 1, 1),
                 stage_splits=(1, 2, 4), batch=256, images=225_000)  # fmt: skip
_PAPER_64 = dict(stage_steps=(15, 30, 50, 50), stage_images=(50_000, 75_000, 100_000, 125_000), stage_lr_factors=(1, 1, 1, 1.2),
                 stage_splits=(1, 2, 4, 4), batch=256, images=350_000)  # fmt: skip
_PAPER_128 = dict(stage_steps=(15, 30, 50, 50, 60), stage_images=(50_000, 75_000, 100_000, 125_000, 150_000),
                  stage_lr_factors=(1, 1, 1, 1.2, 1.5), stage_splits=(1, 2, 4, 4, 8), batch=256, images=500_000)  # fmt: skip

# fmt: off
PRESETS = {
    "digits":          dict(_SMALL, data="digits", shape=(1, 8, 8), images=300_000),
    "fashion-mnist":   dict(_SMALL, data="fashion-mnist", shape=(1, 28, 28), stage_steps=(15, 30, 50),
                            stage_images=(50_000, 75_000, 100_000), stage_lr_factors=(1, 1, 1), stage_splits=(1, 1, 2),
                            images=400_000),
    # ours: from images with noise, few steps with hardly any, at full size from the start by the network of three stages.
    # studies/results/cf_ebm_denoiser_fashion-mnist.json
    "denoise":         dict(data="fashion-mnist", shape=(1, 28, 28), net=ExpandingNet(width=8), start_noise=0.2, coarse_to_fine=False,
                            stage_steps=(10, 10, 10), stage_images=(16_384, 16_384, 16_384), stage_lr_factors=(1, 1, 1),
                            stage_splits=(1, 1, 1), chain_noise=0.002, batch=32, images=16_384, ema=0.995),
    # from digits in colour on black to digits in colour on colour: what is to be found is the ground
    "translate":       dict(_SMALL, data="coloured-digits", source="inked-digits", shape=(3, 8, 8), images=300_000),
    # the other way by --source, --target and --size 16
    "translate-shoes": dict(_TRANSLATE_16, data="fashion-mnist:ankle boot", source="fashion-mnist:sneaker", shape=(1, 16, 16)),
    # one vendor's emoji in the other's style, measured at 16×16
    "translate-emoji": dict(_TRANSLATE_16, data="emoji-google", source="emoji-twitter", shape=(3, 16, 16)),
    "cifar10":         dict(_PAPER_32, data="hf:uoft-cs/cifar10", shape=(3, 32, 32), net=ExpandingNet(width=32)),
    "celeba-64":       dict(_PAPER_64, data="pictures/", shape=(3, 64, 64), net=ExpandingNet(width=32)),
    "celebahq-128":    dict(_PAPER_128, data="pictures/", shape=(3, 128, 128), net=ExpandingNet(width=32)),
    # sec. A.8: 15 steps a stage, η_0 = 0.03, 200,000 iterations, here of 32 images
    "celebahq-128-frozen": dict(_PAPER_128, data="pictures/", shape=(3, 128, 128), net=ExpandingNet(width=32), frozen_coarse=True,
                                stage_steps=(15, 15, 15, 15, 15), chain_noise=0.03, images=6_400_000),
    # sec. A.9.2: c = 16; the paper's 256 pixels have one stage more, whose settings it does not give
    "translate-128":   dict(_PAPER_128, data="target/", source="source/", shape=(3, 128, 128), net=ExpandingNet(width=16)),
}
# fmt: on
