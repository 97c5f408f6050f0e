"""Presets of `egc`. docs/methods/egc.md"""

from thalweg.augmentation import RandomViews, Shifts
from thalweg.nn.build import MLP, GuidedUNet, PatchNet, PatchUNet

# found by measurement, studies/results/quickstart.json; no augmentation: resampling blurs 8×8 digits, and the samples with them
_DIGITS = dict(data="digits", shape=(1, 8, 8), images=200_000)
# ours, of the arena's price; settings not swept
_FASHION = dict(data="fashion-mnist", shape=(1, 28, 28), net=PatchUNet(width=48, deep_width=96, hidden=192), data_std=0.86, batch=64,
                ema=0.9995, images=1_300_000)  # fmt: skip
# the classes wait until the score has been learnt, and are seen moved and mirrored; samples are not: all shoes point to the left. Nor is
# what is noised, by which samples are guided
_LABELS = dict(classes=10, passes="separate", cross_entropy_early=0.05, cross_entropy_weight=0.5,
               class_augmentation=Shifts(flip=0.5, shift=2), class_augmentation_noised=False)  # fmt: skip
# y latent (sec. 4.2, Table 4): as many classes as there are labels, which are not looked at
_UNSUPERVISED = dict(supervised=False, latent_classes=10)
# the recipe that the released code and the paper share: γ and smoothing of the labels, a constant rate
_RELEASED = dict(cross_entropy_weight=0.005, label_smoothing=0.2, passes="separate", lr=1e-4, lr_end=1.0, weight_decay=0.0, ema=0.9999)
# torchvision's RandomResizedCrop and a flip, which the released code's classifier sees (Table 3, ‡)
_CROPS = RandomViews(crop=0.08, flip=0.5, jitter=0.0, grey=0.0)
_CIFAR = dict(_RELEASED, shape=(3, 32, 32), net=GuidedUNet(width=192, blocks=3, multipliers=(1, 2, 2), attention=16, dropout=0.1),
              readout="logits", augmentation=Shifts(flip=0.5, shift=0), class_augmentation=_CROPS, data_std=0.5, guidance=1.0,
              sample_steps=1000, batch=128, images=100_000_000)  # fmt: skip
_LATENT = dict(shape=(4, 32, 32), autoencoder="diffusers:stabilityai/sd-vae-ft-ema", supervised=False, latent_classes=1000,
               net=GuidedUNet(width=192, blocks=2, multipliers=(1, 2, 4), attention=32), readout="logits", data_std=1.0,
               beta_start=0.00085, beta_stop=0.012, sample_steps=100, eta=0.0, lr=1e-4, lr_end=1.0, weight_decay=0.0, ema=0.9999,
               batch=512, warm_up=0)  # fmt: skip

# fmt: off
PRESETS = {
    "digits":                     dict(_DIGITS, classes=10),
    "fashion-mnist":              dict(_FASHION | _LABELS),
    # labels are an input too, which 70 % of the images show (released code)
    "fashion-mnist-conditional":  dict(_FASHION | _LABELS, label_input=True, label_dropping=0.3),
    "digits-unsupervised":        dict(_DIGITS | _UNSUPERVISED),
    "fashion-mnist-unsupervised": dict(_FASHION | _UNSUPERVISED, images=1_800_000),
    # in colour, with categories as labels; measured at a tenth of the length, egc_classifiers_emoji-google.json
    "emoji-google":               dict(data="emoji-google", shape=(3, 32, 32), classes=9, net=PatchNet(width=96, blocks=6, patch=4),
                                       data_std=0.8, passes="separate", ema=0.999, images=2_000_000),
    # ours: settings not swept
    "toy":                        dict(data="8gaussians", shape=(2,), classes=8, net=MLP(width=128, depth=3), data_std=1.4, guidance=1.0,
                                       sample_steps=200, batch=512, ema=0.999, images=2_500_000),
    # standardised tables of one's own, whose shape and classes are the data's; ours, not swept
    "vectors":                    dict(data="", shape=(2,), net=MLP(width=128, depth=3), data_std=1.0, guidance=1.0, sample_steps=200,
                                       batch=512, ema=0.999, images=1_000_000),
    # the released recipe for latents (its training and sampling scripts; sec. 4.1), not run here. The autoencoder has the shape (8 times
    # smaller, 4 channels) and scale (0.18215) of the paper's. The released scale 6 of the classifier's gradient comes on top of the
    # conditional score, which makes w = 7. Its crops (‡) are of pictures that are encoded afterwards; latents cannot be cropped
    "imagenet256-latent":         dict(_RELEASED, data="hf:ILSVRC/imagenet-1k", shape=(4, 32, 32), classes=1000,
                                       autoencoder="diffusers:stabilityai/sd-vae-ft-ema",
                                       net=GuidedUNet(width=384, blocks=2, multipliers=(1, 2, 4), attention=32, transformer=True,
                                                      modulate=False, pool="map"), readout="map", data_std=1.0,
                                       beta_start=0.00085, beta_stop=0.012, label_dropping=0.1, label_input=True, guidance=7.0,
                                       sample_steps=100, eta=0.0, batch=512, warm_up=0, images=400_000_000),
    # CIFAR's settings were never published; these are guided diffusion's network with the recipe above, crops for the classifier
    # included; not run here
    "cifar10":                    dict(_CIFAR, data="hf:uoft-cs/cifar10", classes=10),
    "cifar100":                   dict(_CIFAR, data="hf:uoft-cs/cifar100", classes=100),
    # Table 4: unsupervised, 30,000 and 126,000 images as latents of the autoencoder above. Neither networks nor lengths were published:
    # half the released width, as many latent classes as that network has labels, all ours; not run here
    "celebahq-256-latent":        dict(_LATENT, data="hf:korexyz/celeba-hq-256x256", images=50_000_000),
    "lsun-church-256-latent":     dict(_LATENT, data="hf:tglcourse/lsun_church_train", images=100_000_000),
}
# fmt: on
