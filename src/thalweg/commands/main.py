"""`thalweg COMMAND ...`: finds the command, and turns what goes wrong into one line and an exit code."""

import codecs
import importlib
import io
import os
import sys
import warnings
from typing import Any

from thalweg.presets import FIRST
from thalweg.progress import Beat, duration

USAGE = f"""usage: thalweg COMMAND ... (thalweg COMMAND --help for its options)

Deep energy-based models: train, sample, evaluate.

  demo [MODEL]                  see in seconds what a trained model of the zoo can do, on one page
  app [RUN|zoo:NAME ...]        play with models in the browser: landscape, draw, fill in, repair, detect, watch a training
  list [METHOD] [--laptop ...]  methods and presets, one line each, with what it needs and what was measured
  zoo                           trained models that come with a clone
  train METHOD/PRESET --out DIR train a model; the same command again resumes
  sample DIR -n N --out FILE    draw samples into a .png or .npz
  evaluate DIR [DIR ...]        measure a run and write its report.html
  compare --methods A,B --data X --out DIR  train several for the same price, measure alike
  apply TASK DIR --input PATH   classify, detect, inpaint, restore, denoise, reconstruct, interpolate, translate, ...
  detect fit DATA --out DIR     learn what is normal in a table or pictures; detect run DIR finds outliers, false alarms held
  export DIR --out DIR|--hub N  write a model as safetensors + config.json; a detector --onnx FILE
  bench [NAME]                  run a benchmark of the repository

A first look, seconds, in a clone: thalweg demo
A first run, about five minutes on two cores:
  thalweg train {FIRST} --out runs/first
  thalweg evaluate runs/first
"""

# each a module of this package
COMMANDS = ("demo", "app", "list", "zoo", "train", "sample", "evaluate", "compare", "apply", "detect", "export", "bench")


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 1 for a run that diverged for good, 2 for wrong input, 130 when interrupted."""
    from thalweg.errors import Diverged, InputError, nearest

    arguments = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        readable_anywhere(stream)
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
        warnings.formatwarning = _warning
        with Beat(lambda seconds: f"      {duration(seconds)}  thalweg {name} goes on"):  # where nothing tells more
            importlib.import_module(f"thalweg.commands.{name}").run(rest)
        return 0
    except InputError as error:
        return _said(error, 2)
    except Diverged as error:
        return _said(f"training diverged: {error}", 1)
    except KeyboardInterrupt as stop:
        from thalweg.stopping import Stopped

        saved = (
            "its state is saved, and the same command goes on from there" if isinstance(stop, Stopped) else "the same command starts again"
        )
        return _said(f"interrupted; {saved}", 128 + (stop.number if isinstance(stop, Stopped) else 2))
    except BrokenPipeError:
        return 0
    except OSError as error:  # a disk or folder that fails under the command
        return _said(error, 2)
    finally:
        if "thalweg.distributed" in sys.modules:
            sys.modules["thalweg.distributed"].leave()


def _warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
    """A warning of this library as one line without the place in its source, which a user of the command line has no use for."""
    return f"{message}\n" if str(message).startswith("thalweg: ") else f"{filename}:{lineno}: {category.__name__}: {message}\n"


def _said(what: object, code: int) -> int:
    """Print what went wrong, once a machine where several processes run the same command, and return the exit code."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"thalweg: {what}", file=sys.stderr)
    return code


# what stands for a character that a terminal's or a pipe's encoding does not have
PLAIN = {"–": "-", "−": "-", "—": "-", "×": "x", "‖": "||", "…": "...", "→": "->", "≥": ">=", "≤": "<=", "±": "+-", "²": "^2", "³": "^3"}
PLAIN |= {"ε": "eps", "∇": "grad ", "σ": "sigma", "τ": "tau", "∈": "in", "√": "sqrt", "½": "1/2", "“": '"', "”": '"', "’": "'", "é": "e"}
PLAIN |= {"Å": "A", "∝": "~", "∞": "inf", "│": "|", "─": "-", "━": "-", "╸": "-", "╺": "-", "•": "*"}


def _plain(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return "".join(PLAIN.get(one, "?") for one in error.object[error.start : error.end]), error.end


def readable_anywhere(stream: Any) -> None:
    """Let a text stream write what its encoding does not have in plain characters, instead of failing at it."""
    if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
        codecs.register_error("thalweg", _plain)
        stream.reconfigure(errors="thalweg")
