"""`thalweg train`: a preset, its fields as options, data prepared for it, and the loop."""

import inspect
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from thalweg.commands.options import above_zero, check_seed, config_fields, option, parse, usable
from thalweg.errors import InputError, nearest

if TYPE_CHECKING:
    from thalweg.methods.base import Method


@dataclass
class Options:
    """Train a model, or resume the run in --out. Any field of the preset can be set too: --width 96 or --net.width 96, --lr 0.0005"""

    preset: Annotated[str, "positional"]
    """METHOD/PRESET, see `thalweg list`, or FILE.py:CLASS for a method of your own"""
    out: Path | None = None
    """folder of the run; required unless --dry-run"""
    data: str | None = None
    """data by name, folder, .npz, .npy, .csv, .parquet or hf:NAME; the preset's own by default"""
    target: str | None = None
    """the same, said of a translation, whose other domain is --source"""
    images: int | None = None
    """train for this many images; the preset's length by default"""
    seconds: float | None = None
    """or for this long, whichever ends first"""
    seed: int = 0
    """seed of weights, data order and noise"""
    device: str = "auto"
    """cpu, cuda, mps or auto"""
    precision: str = "auto"
    """fp32, bf16, or auto: bf16 on a GPU"""
    threads: int | None = None
    """CPU threads"""
    size: int | None = None
    """side that images are brought to; the preset's by default, of other --data their own"""
    label_column: str | None = None
    """the column of a .csv or .parquet file that holds labels; label, class, target or y by default"""
    values: str | None = None
    """LOW,HIGH: the numbers of black and white in an .npz or .npy file, where they are neither 0 … 255 nor −1 … 1, or in pictures"""
    stream: bool = False
    """read pictures from the disk batch by batch, of a hub set or a folder that does not fit into memory"""
    window: int | None = None
    """with --stream, pictures that are shuffled together; 16,384 by default"""
    latent_views: int = 1
    """of each image so many views are encoded, of a model of latents: 2 with mirror images, more with windows of 7/8 of the sides"""
    log_every: int | None = None
    """images between rows of stats.jsonl"""
    sample_every: int | None = None
    """images between pictures, and between looks at the held-out criterion"""
    save_every: int | None = None
    """images between states on disk"""
    accumulate: int = 1
    """parts that each process cuts its share of a batch into, one after the other, for networks that do not fit with all of it"""
    checkpointing: bool = False
    """blocks of networks compute their inner values anew in the backward pass, to save memory"""
    tensorboard: bool = False
    """also write TensorBoard events"""
    dry_run: bool = False
    """build everything, take one step, write nothing"""


def run(arguments: list[str]) -> None:
    if {"-h", "--help"} & set(arguments) and (name := next((word for word in arguments if not word.startswith("-")), "")):
        print(_help(name))
        return
    options, unknown = parse(Options, arguments, "train", rest=True)
    _check(options)
    from thalweg.methods import preset

    kind, config = preset(options.preset)
    values = config_fields(config, unknown, [option(f.name).removeprefix("--") for f in fields(Options)])
    device = usable(options.device)
    import torch

    from thalweg.commands.pictures import picture
    from thalweg.config import changed
    from thalweg.data.prepare import held_out, prepare
    from thalweg.data.record import name_of
    from thalweg.distributed import speaks
    from thalweg.gate import float32
    from thalweg.train import fit

    if options.threads:
        torch.set_num_threads(options.threads)
    own_length = config.images
    config = changed(config, **values | ({"images": options.images} if options.images else {}))
    if options.target and (options.data or not config.data_needs.source):
        raise InputError("--target names the data of a translation: give it with --source, and without --data")
    name = options.target or options.data or config.data
    if not name:
        raise InputError(f"{options.preset} says nothing of its data: give --data, a name, a folder, a .npz, .csv or hf:NAME")
    config = _from_anywhere(config)
    loaded: dict[str, Any] = {
        key: value
        for key, value in (("label", options.label_column), ("values", _values(options.values)), ("window", options.window))
        if value is not None
    }
    if options.stream:
        loaded["streaming"] = True
    data = prepare(config, name, "train", size=options.size, device=device, latent_views=options.latent_views, **loaded)
    shape = tuple(config.shape)
    config = changed(config, data=name_of(data), shape=tuple(data.shape), classes=len(data.classes))
    torch.manual_seed(options.seed)
    try:
        with float32():
            method = kind(config)
    except InputError as error:
        if len(shape) == 3 and len(data.shape) == 1:
            raise InputError(f"{options.preset} is for images, and {name} holds vectors {list(data.shape)}; see METHOD/vectors") from error
        raise
    if method.notice and speaks():
        print(method.notice, file=sys.stderr)
    precision = options.precision if options.precision != "auto" else "bf16" if device.startswith("cuda") else "fp32"
    settings = dict(
        seconds=options.seconds, seed=options.seed, device=device, precision=precision, accumulate=options.accumulate,
        checkpointing=options.checkpointing,
    )  # fmt: skip
    if options.dry_run:
        fit(method, data, progress=False, dry_run=True, **settings)
        print("dry run: one step taken, nothing written", file=sys.stderr)
        return
    fit(
        method, data, options.out, images=config.images, picture=picture, held_out=held_out(config, name, size=options.size, **loaded),
        log_every=options.log_every, sample_every=options.sample_every, save_every=options.save_every,
        tensorboard=options.tensorboard, **settings,
    )  # fmt: skip
    if speaks():
        print("\n".join([*_trained(options, own_length), *_next(options, method)]), file=sys.stderr)


def _help(name: str) -> str:
    """What a preset is, and its fields, each of which is an option."""
    from thalweg.commands.fields import table
    from thalweg.methods import preset

    kind, config = preset(name)
    first = (inspect.getmodule(kind).__doc__ or "").partition("\n")[0]  # type: ignore[union-attr]  # a class has a module
    return (
        f"usage: thalweg train {name} --out DIR [options]   (thalweg train --help has the options of all presets)\n\n{first}\n\n"
        f"Fields of {name}, each an option; a field of a part as --net.width, or --width where one part alone has it:\n\n{table(config)}"
    )


def _values(text: str | None) -> tuple[float, float] | None:
    """The two numbers of --values; InputError for anything else."""
    if text is None:
        return None
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise InputError(f"--values takes two numbers with a comma, black and white, as in 0,16; got '{text}'") from None
    return low, high


def _from_anywhere(config: Any) -> Any:
    """The config with the autoencoder and the source domain that it names by a path named by an absolute one."""
    from thalweg.config import changed
    from thalweg.data import origin_of

    needs = config.data_needs
    return changed(config, **{key: origin_of(value) for key, value in needs._asdict().items() if isinstance(value, str) and value})


def _check(options: Options) -> None:
    if options.out is None and not options.dry_run:
        raise InputError("train needs --out DIR, the folder of the run")
    above_zero(
        options, "images", "seconds", "threads", "size", "log_every", "sample_every", "save_every", "accumulate", "latent_views", "window"
    )
    check_seed(options.seed)
    known = ("auto", "fp32", "bf16")
    if options.precision not in known:
        raise InputError(f"--precision {options.precision} is not known{nearest(options.precision, known)}: fp32, bf16 or auto")


def _trained(options: Options, own_length: int) -> list[str]:
    """How much of the preset's own length the run has been trained for, and what to expect of it."""
    from thalweg.checkpoint import read_stats
    from thalweg.commands.list import measured
    from thalweg.progress import duration

    assert options.out is not None
    last = [row for row in read_stats(options.out) if "seconds" in row][-1]
    lines = [f"trained: {options.out}, {last['images']:,} images in {duration(last['seconds'])}"]
    share, found = last["images"] / own_length, measured(options.preset)
    length = f"the {own_length:,} that the preset is made for"
    if share < 0.5:
        lines.append(f"  {share:.1%} of {length}: expect less than it can do")
    else:
        lines.append(f"  {min(share, 1):.0%} of {length}")
    return lines + ([f"  measured of the preset: {found}"] if found else [])


def _next(options: Options, method: "Method") -> list[str]:
    """Commands that go on from here, such as this model can do."""
    from thalweg.methods import METHODS, of_packages, split_name
    from thalweg.methods.base import has
    from thalweg.presets import TOYS

    name, _ = split_name(options.preset)
    own, config = "" if name in METHODS or name in of_packages() else f" --kind {name}", method.config
    lines = ["next:", f"  thalweg evaluate {options.out}{own}"]
    if has(method, "sample"):
        kind = "csv" if len(config.shape) == 1 and config.data not in TOYS else "png"
        lines.append(f"  thalweg sample {options.out}{own} -n 64 --out samples.{kind}")
    return lines + ([f"  {more}"] if (more := method.second_stage(str(options.out))) else [])
