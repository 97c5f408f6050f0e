"""Parameters of every preset, counted once and kept in presets/sizes.json, so that they can be listed without building a network.

`python -m thalweg.commands.sizes` counts them anew.
"""

import json
from collections.abc import Iterable

from thalweg.commands.list import SIZES, tables


def count(names: Iterable[str]) -> dict[str, int]:
    """Parameters of presets by METHOD/PRESET; those that need a package or a file that is not there are left out."""
    import torch

    from thalweg.errors import InputError
    from thalweg.methods import preset

    found = {}
    for name in names:
        kind, config = preset(name)
        # flows of vectors look at their masks when they are built, and networks of vectors are small
        try:
            with torch.device("meta" if len(config.shape) == 3 else "cpu"):
                found[name] = sum(p.numel() for p in kind(config).parameters())
        except InputError as error:
            print(f"{name}: {error}")
    return found


if __name__ == "__main__":
    SIZES.write_text(json.dumps(count(f"{method}/{key}" for method, rows in tables().items() for key in rows), indent=1) + "\n")
