"""Presets of `autoencoder`. docs/methods/autoencoder.md"""

from thalweg.nn.build import Coders

# Widths, length and rate ours; two halvings (f = 4) and 4 channels are Rombach et al.'s middle ground (Table 8)
# fmt: off
PRESETS = {
    "fashion-mnist": dict(data="fashion-mnist", shape=(1, 28, 28), coders=Coders(widths=(32, 64, 64)), images=1_000_000),
    # colour pictures of one's own, by --data FOLDER or hf:NAME, brought to this shape by --size 64
    "pictures":      dict(data="", shape=(3, 64, 64), coders=Coders(widths=(48, 96, 96)), images=2_000_000, batch=64),
}
# fmt: on
