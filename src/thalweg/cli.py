"""`python -m thalweg.cli`, as torchrun wants it. The commands are in thalweg/commands."""

import os
import sys

from thalweg.commands.main import main

__all__ = ["main"]

if __name__ == "__main__":
    code = main()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # a thread of the group that outlives Python by a moment would abort the process
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
