"""`python -m thalweg.cli`, as torchrun wants it. The commands are in thalweg/commands."""

import sys

from thalweg.commands.main import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
