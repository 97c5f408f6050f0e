"""`thalweg COMMAND ...`: finds the command, and turns what goes wrong into one line and an exit code."""

import importlib
import sys

from thalweg.presets import FIRST

USAGE = f"""usage: thalweg COMMAND ... (thalweg COMMAND --help for its options)

Deep energy-based models: train, sample, evaluate.

  list                          every method/preset, one line each, with what it needs
  train METHOD/PRESET --out DIR train a model; the same command again resumes
  sample DIR -n N --out FILE    draw samples into a .png or .npz
  evaluate DIR [DIR ...]        measure a run and write its report.html
  apply TASK DIR --input PATH   classify, detect, inpaint, restore, denoise, reconstruct, interpolate, translate, ...
  export DIR --out DIR|--hub N  write a model as safetensors + config.json
  bench [NAME]                  run a benchmark of the repository

A first run, about five minutes on two cores:
  thalweg train {FIRST} --out runs/first
  thalweg evaluate runs/first
"""

COMMANDS = ("list", "train", "sample", "evaluate", "apply", "export", "bench")  # each a module of this package


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 1 for a run that diverged for good, 2 for wrong input, 130 when interrupted."""
    from thalweg.errors import Diverged, InputError, nearest

    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    if arguments[0] == "--version":
        import thalweg

        print(f"thalweg {thalweg.__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    try:
        if name not in COMMANDS:
            raise InputError(f"unknown command '{name}'{nearest(name, COMMANDS)}. Commands: {', '.join(COMMANDS)}")
        importlib.import_module(f"thalweg.commands.{name}").run(rest)
        return 0
    except InputError as error:
        print(f"thalweg: {error}", file=sys.stderr)
        return 2
    except Diverged as error:
        print(f"thalweg: training diverged: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("thalweg: interrupted; the same command resumes from the last state", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
    except OSError as error:  # a disk or folder that fails under the command
        print(f"thalweg: {error}", file=sys.stderr)
        return 2
