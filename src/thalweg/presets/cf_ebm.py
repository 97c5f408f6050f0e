"""Presets of `cf_ebm`. docs/methods/cf_ebm.md"""

from thalweg.nn.build import ExpandingNet

# Ours: sizes and budgets for small images, with the paper's rates, steps and noise; the data noise is ours as well (sec. A.5: none)
_SMALL = dict(net=ExpandingNet(width=16), data_noise=0.03, batch=128)
# Ours, to translate at 16×16 in minutes: studies/results/cf_ebm_translation_fashion-mnist.json, cf_ebm_translation_emoji.json
_TRANSLATE_16 = dict(net=ExpandingNet(width=8), data_noise=0.03, batch=64, stage_images=(4096, 8192), images=16_384)


def _paper(stages: int, iterations: int = 200_000) -> dict[str, object]:
    """Sec. A.2, a column for each side of 8, 16, 32, 64, 128 pixels, for `iterations` of training (sec. A.8 alone says how many).

    The paper gives no batches: 256, 128, 64, 64, 32 are ours, and so is all of 256 and 512 pixels, where the settings of 128 go on.
    """
    images = (50_000, 75_000, 100_000, 125_000, 150_000, 150_000, 150_000)[:stages]
    splits = (1, 2, 4, 4, 8, 16, 32)[:stages]
    before = sum(count * parts / 256 for count, parts in zip(images[:-1], splits))
    return dict(stage_steps=(15, 30, 50, 50, 60, 60, 60)[:stages], stage_images=images, stage_splits=splits, batch=256,
                stage_lr_factors=(1, 1, 1, 1.2, 1.5, 1.5, 1.5)[:stages],
                images=sum(images[:-1]) + round((iterations - before) * 256 / splits[-1]))  # fmt: skip


# Sec. A.8: coarse energies that stay as they were, 15 steps a stage, η_0 = 0.03 at 128 pixels
def _frozen(stages: int) -> dict[str, object]:
    return _paper(stages) | dict(frozen_coarse=True, stage_steps=(15,) * stages)


_TO_DOGS = dict(data="data/cat2dog/dogs/", source="data/cat2dog/cats/", net=ExpandingNet(width=16))

# fmt: off
PRESETS = {
    "digits":          dict(_SMALL, data="digits", shape=(1, 8, 8), images=300_000),
    # at 7,200 CPU seconds of one thread: a width by speed (docs), of the time a fifteenth for the coarse stages
    "fashion-mnist":   dict(_SMALL | dict(net=ExpandingNet(width=6), batch=64), data="fashion-mnist", shape=(1, 28, 28),
                            stage_steps=(15, 30, 50), stage_images=(50_000, 75_000, 100_000), stage_lr_factors=(1, 1, 1),
                            stage_splits=(1, 1, 1), lr_end=0.05, ema=0.998, compile="auto", images=400_000),
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
    # sec. A.2, c = 32 (Table 6); nothing from here on was run
    "cifar10":         dict(_paper(3), data="hf:uoft-cs/cifar10", shape=(3, 32, 32), net=ExpandingNet(width=32)),
    "imagenet-32":     dict(_paper(3), data="hf:ILSVRC/imagenet-1k", shape=(3, 32, 32), net=ExpandingNet(width=48)),  # Table 7: c = 48
    # the first column of Table 2, pictures as they are; the other one has their middle 140×140: --middle 140
    "celeba-64":       dict(_paper(4), data="hf:flwrlabs/celeba", shape=(3, 64, 64), net=ExpandingNet(width=32)),
    "celebahq-128":    dict(_paper(5), data="hf:korexyz/celeba-hq-256x256", shape=(3, 128, 128), net=ExpandingNet(width=32)),
    # Figure 13
    "lsun-church-128": dict(_paper(5), data="hf:tglcourse/lsun_church_train", shape=(3, 128, 128), net=ExpandingNet(width=32)),
    "celebahq-128-frozen": dict(_frozen(5), data="hf:korexyz/celeba-hq-256x256", shape=(3, 128, 128), net=ExpandingNet(width=32),
                                chain_noise=0.03),
    # Figures 17 and 18
    "celebahq-256":    dict(_frozen(6), data="hf:korexyz/celeba-hq-256x256", shape=(3, 256, 256), net=ExpandingNet(width=32),
                            chain_noise=0.025),
    "celebahq-512":    dict(_frozen(7), data="data/celebahq-512/", shape=(3, 512, 512), net=ExpandingNet(width=48),
                            chain_noise=0.015),
    # sec. A.9.2: c = 16; cats to dogs, any of the five sets of sec. A.9.1 by --source and --target. The rate is
    # ten times higher from dogs to cats
    "translate-128":   dict(_TO_DOGS, **_paper(5), shape=(3, 128, 128)),
    "translate-256":   dict(_TO_DOGS, **_paper(6), shape=(3, 256, 256)),
    "translate-256-dogs": dict(_TO_DOGS | dict(data="data/cat2dog/cats/", source="data/cat2dog/dogs/"), **_paper(6), shape=(3, 256, 256),
                               lr=1e-2),
}
# fmt: on
