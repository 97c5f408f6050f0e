"""The command line: `thalweg COMMAND ...`. Heavy imports wait inside the commands, so that `--help` answers at once."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

if TYPE_CHECKING:
    pass

USAGE = """usage: thalweg COMMAND ... (thalweg COMMAND --help for its options)

Deep energy-based models: train, sample, evaluate.

  list                          every method/preset, one line each, with what it needs
  train METHOD/PRESET --out DIR train a model; the same command again resumes
  sample DIR -n N --out FILE    draw samples into a .png or .npz
  evaluate DIR [DIR ...]        measure a run and write its report.html
  apply TASK DIR --input PATH   classify, detect, inpaint, restore, denoise, reconstruct, interpolate, translate, ...
  export DIR --out DIR|--hub N  write a model as safetensors + config.json
  bench [NAME]                  run a benchmark of the repository

A first run, about five minutes on two cores:
  thalweg train egc/digits --out runs/digits
  thalweg evaluate runs/digits
"""


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
        COMMANDS[name](rest)
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


def _options(kind: type, arguments: list[str], command: str, *, rest: bool = False) -> Any:
    """Parse into the dataclass `kind` with tyro; wrong options are one InputError. With `rest`, also what was not known."""
    import contextlib
    import io

    import tyro

    from thalweg.errors import InputError

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                kind, args=arguments, prog=f"thalweg {command}", return_unknown_args=rest, config=(tyro.conf.FlagCreatePairsOff,)
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        # tyro frames its message; one plain line is what a terminal and a log can use
        lines = [line.strip(" │╭╮╰╯─\n") for line in said.getvalue().splitlines()]
        frame = ("For full helptext", "Parsing error", "Required options", f"thalweg {command} --help")
        text = " ".join(line for line in lines if line.strip("-") and not line.startswith(frame))
        raise InputError(f"{text or 'wrong options'} (see thalweg {command} --help)") from None


@dataclass
class TrainOptions:
    """Train a model, or resume the run in --out. Any field of the preset can be set too: --width 96 --lr 0.0005"""

    preset: Annotated[str, "positional"]
    """METHOD/PRESET, see `thalweg list`"""
    out: Path | None = None
    """folder of the run; required unless --dry-run"""
    data: str | None = None
    """data by name, folder, .npz or hf:NAME; the preset's own by default"""
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
    log_every: int | None = None
    """images between rows of stats.jsonl"""
    sample_every: int | None = None
    """images between pictures, and between looks at the held-out criterion"""
    save_every: int | None = None
    """images between states on disk"""
    tensorboard: bool = False
    """also write TensorBoard events"""
    dry_run: bool = False
    """build everything, take one step, write nothing"""


def train(arguments: list[str]) -> None:
    from thalweg.errors import InputError, nearest

    options, unknown = _options(_positional(TrainOptions), arguments, "train", rest=True)
    if options.out is None and not options.dry_run:
        raise InputError("train needs --out DIR, the folder of the run")
    _above_zero(options, "images", "seconds", "threads", "size", "log_every", "sample_every", "save_every")
    _check_seed(options.seed)
    from thalweg.methods import preset

    kind, config = preset(options.preset)
    values = _fields(config, unknown, [f.replace("_", "-") for f in TrainOptions.__dataclass_fields__])
    device, precision = _device(options.device), options.precision
    if precision not in ("auto", "fp32", "bf16"):
        raise InputError(f"--precision {precision} is not known{nearest(precision, ('auto', 'fp32', 'bf16'))}: fp32, bf16 or auto")
    import torch

    from thalweg import data as datasets
    from thalweg import latent
    from thalweg.methods.base import changed, fitted_to
    from thalweg.train import fit

    if options.threads:
        torch.set_num_threads(options.threads)
    source = str(values.get("source", getattr(config, "source", "")))
    if options.target and (options.data or not source):
        raise InputError("--target names the data of a translation: give it with --source, and without --data")
    name = options.target or options.data or config.data
    if options.images:
        values["images"] = options.images
    autoencoder = str(values.get("autoencoder", getattr(config, "autoencoder", "")))
    size = options.size
    if size is None and name == config.data and not autoencoder and len(config.shape) == 3 and config.shape[1] == config.shape[2]:
        size = config.shape[2]  # a preset's own data come at its size
    images = latent.wrap(datasets.load(name, "train", size=size), autoencoder, device=device)
    if source:
        channels, _, side = images.shape
        images = datasets.Unpaired(images, datasets.load(source, "train", size=side, channels=channels))
    views = int(values.get("views", getattr(config, "views", 1)))
    images = datasets.beside(images, views)
    config = changed(fitted_to(changed(config, **values), images), data=name)
    torch.manual_seed(options.seed)
    method = kind(config)
    if method.notice:
        print(method.notice, file=sys.stderr)
    settings = dict(
        seconds=options.seconds, seed=options.seed, device=device,
        precision=("bf16" if device.startswith("cuda") else "fp32") if precision == "auto" else precision,
    )  # fmt: skip
    if options.dry_run:
        fit(method, images, None, images=config.batch, progress=False, **settings)
        print("dry run: one step taken, nothing written", file=sys.stderr)
        return
    from thalweg import run

    fit(
        method, images, options.out, images=config.images, picture=run.picture,
        held_out=run.held_out(name, size, autoencoder, source, views),
        log_every=options.log_every, sample_every=options.sample_every, save_every=options.save_every,
        tensorboard=options.tensorboard, **settings,
    )  # fmt: skip
    print(
        f"trained: {options.out}\nnext:\n  thalweg evaluate {options.out}\n  thalweg sample {options.out} -n 64 --out samples.png",
        file=sys.stderr,
    )


def _above_zero(options: Any, *names: str) -> None:
    from thalweg.errors import InputError

    for name in names:
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise InputError(f"--{name.replace('_', '-')} must be above 0, got {value}")


def _check_seed(seed: int) -> None:
    from thalweg.errors import InputError

    if not 0 <= seed < 2**63:
        raise InputError(f"--seed must be between 0 and 2⁶³ − 1, got {seed}")


def _positional(kind: type) -> type:
    """Mark the fields annotated "positional" for tyro, which is imported only now."""
    import dataclasses

    import tyro

    for f in dataclasses.fields(kind):
        metadata = getattr(f.type, "__metadata__", ())
        if "positional" in metadata:
            f.type = tyro.conf.Positional[f.type.__origin__]
            kind.__annotations__[f.name] = f.type
    return kind


def _fields(config: Any, unknown: list[str], options: list[str]) -> dict[str, Any]:
    """Config fields from what is left of the command line: --field value, values read as JSON where they are JSON."""
    import json

    from thalweg.config import all_fields
    from thalweg.errors import InputError, nearest

    known, what = list(all_fields(config)), type(config).__module__.rpartition(".")[2]
    bare = {name.rpartition(".")[2] for name in known}
    values: dict[str, Any] = {}
    words = iter(unknown)
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        if not word.startswith("--"):
            raise InputError(f"unexpected argument '{word}': fields are given as --field value")
        if name not in known and name not in bare and "." not in name:
            hint = nearest(name.replace("_", "-"), [*(k.replace("_", "-") for k in known), *options])
            raise InputError(f"{what} has no field '{name}'{hint}. Its fields: {', '.join(known)}")
        if not equals:
            value = next(words, None)
            if value is None:
                raise InputError(f"--{name} needs a value")
        try:
            values[name] = json.loads(value)
        except json.JSONDecodeError:
            values[name] = {"True": True, "False": False}.get(value, value)
    return values


def _device(wanted: str) -> str:
    from thalweg.distributed import usable

    return usable(wanted)


@dataclass
class SampleOptions:
    """Draw samples from a run or an exported model into a picture (.png) or an array file (.npz)."""

    model: Annotated[str, "positional"]
    """run folder, exported folder or hub name"""
    out: Path
    """FILE.png or FILE.npz"""
    n: Annotated[int, "short"] = 64
    """number of samples"""
    seed: int = 0
    """the same seed gives the same samples"""
    label: str | None = None
    """a class by name or number, or `all` for every class in turn; of several concepts CONCEPT=VALUE,CONCEPT=VALUE"""
    guidance: str | None = None
    """guidance scale of class-conditional samples: one number, or CONCEPT=NUMBER,CONCEPT=NUMBER"""
    guide: Literal["both", "initializer"] | None = None
    """what guidance weighs, cdrl: energies and proposals (both), or proposals alone (initializer)"""
    resample: int | None = None
    """times that each noise level is drawn, noised up again in between, where the method can; brings concepts together"""
    proposals: int | None = None
    """draws of each step, of which one is kept by its weight under the energy, where the method can (ddaebm)"""
    steps: int | None = None
    """sampling steps"""
    eta: float | None = None
    """1 DDPM, 0 DDIM, where the method walks noise levels"""
    chain_noise: float | None = None
    """standard deviation of a chain's first noise, where the method can and it is to be another than in training (cf_ebm)"""
    which: str = "last"
    """state of a run: last or best"""
    device: str = "auto"
    """cpu, cuda, mps or auto"""


def sample(arguments: list[str]) -> None:
    options = _options(_positional(SampleOptions), ["--n" if a == "-n" else a for a in arguments], "sample")
    from thalweg import run
    from thalweg.errors import InputError

    _above_zero(options, "n", "steps", "resample", "proposals")
    _check_seed(options.seed)
    if options.eta is not None and not 0 <= options.eta <= 1:
        raise InputError(f"--eta must be between 0 (DDIM) and 1 (DDPM), got {options.eta}")
    if options.out.suffix not in (".png", ".npz"):
        raise InputError(f"--out {options.out}: the name must end in .png or .npz")
    from thalweg.latent import load

    method = load(options.model, which=options.which, device=_device(options.device))
    path = run.sample_to(
        method,
        options.out,
        options.n,
        seed=options.seed,
        label=options.label,
        guidance=None if options.guidance is None else run.guidance_weights(method, options.guidance),
        guide=options.guide,
        resample=options.resample,
        proposals=options.proposals,
        steps=options.steps,
        eta=options.eta,
        chain_noise=options.chain_noise,
    )
    print(path)


@dataclass
class EvaluateOptions:
    """Measure runs: print a table, write metrics.json and report.html into each, and --out if given."""

    models: Annotated[tuple[str, ...], "positional"]
    """run folders (or exported models)"""
    metrics: str = "auto"
    """comma-separated (density, accuracy, calibration, fidelity, neighbours, ood, modes, views, cost, robustness, restoration, latents,
    likelihood), auto for the quick ones that fit, or all"""
    compare: bool = False
    """one table for all models, which must share their data; with --out also a picture of it"""
    n: Annotated[int, "short"] = 1000
    """samples drawn"""
    seed: int = 0
    """seed of the samples"""
    extractor: str = "classifier"
    """features for fidelity: classifier (trained on the data), efficientnet-lite0 or inception"""
    weights: Path | None = None
    """local file of Inception's weights"""
    outliers: str = ""
    """comma-separated data sets that outliers also come from, by name, folder or hf:NAME"""
    ood_images: int = 2000
    """test images, and outliers of each kind, that are scored at most"""
    which: str = "last"
    """state of a run: last or best"""
    out: Path | None = None
    """also write all figures to this JSON file"""
    device: str = "auto"
    """cpu, cuda, mps or auto"""


def evaluate(arguments: list[str]) -> None:
    options = _options(_positional(EvaluateOptions), ["--n" if a == "-n" else a for a in arguments], "evaluate")
    from thalweg import measure, run
    from thalweg.errors import InputError, nearest

    if not options.models:
        raise InputError("evaluate needs one run folder or more")
    _above_zero(options, "n", "ood_images")
    _check_seed(options.seed)
    if options.out is not None and (options.out.is_dir() or not options.out.parent.is_dir()):
        raise InputError(f"--out {options.out} is a folder, or in none; give a .json file in a folder that exists")
    kinds = ("classifier", "efficientnet-lite0", "inception")
    if options.extractor not in kinds:
        raise InputError(f"unknown extractor '{options.extractor}'{nearest(options.extractor, kinds)}. Extractors: {', '.join(kinds)}")
    wanted = measure.check_metrics(options.metrics)
    if options.compare:
        run.comparable(options.models)
    settings = measure.Settings(
        n=options.n, seed=options.seed, extractor=options.extractor, ood_images=options.ood_images,
        weights=None if options.weights is None else str(options.weights),
        outliers=tuple(part.strip() for part in options.outliers.split(",") if part.strip()),
    )  # fmt: skip
    device = _device(options.device)
    results = {model: run.evaluate(model, wanted, settings, which=options.which, device=device) for model in options.models}
    if options.out is not None:
        measure.write_results(options.out, results)
    if options.compare:
        run.print_comparison(results, None if options.out is None else options.out.with_suffix(".png"))
    else:
        run.print_table(results)


@dataclass
class ApplyOptions:
    """Apply a model to images: a folder of pictures, one picture, or an .npz with key x.

    classify and detect write a JSON file. The other tasks write arrays (.npz), or a picture (.png) with one row for each image: the
    input, what was measured of it, and what the model makes of that.
    """

    task: Annotated[str, "positional"]
    """classify, detect, inpaint, restore, denoise, reconstruct, interpolate, translate; of objects in space (nerf_lebm) turntable,
    recombine, views, complete or pose"""
    model: Annotated[str, "positional"]
    """run folder, exported folder or hub name"""
    out: Path
    """FILE.json, or FILE.png or FILE.npz; of turntable also FILE.gif"""
    input: str | None = None
    """folder, picture or .npz; of turntable, views and complete data with cameras, by name or folder. Interpolate without it goes from
    noise to noise, turntable turns samples"""
    mask: str | None = None
    """inpaint: what is missing, centre:SHARE (default centre:0.25), random:SHARE, irregular:SHARE, half:SIDE, or FILE.png, white
    where known; complete: the same but for a file, of images of which nothing is missing yet"""
    operator: str | None = None
    """restore: what is measured of the input, pool:FACTOR, grey, blur:STD or mask:MASK"""
    latent: bool = False
    """restore: look for a latent of the generator that agrees with what was measured, then for a residual (liebm)"""
    completions: int | None = None
    """inpaint, restore: images drawn for each input, 4 by default"""
    resample: int | None = None
    """inpaint, restore: times that each step down the noise levels is made, where the method can (RePaint)"""
    search: int | None = None
    """reconstruct: steps of the search for where chains start, 200 by default; inpaint: complete by such a search (coopflow);
    turntable, views, complete: steps of the posterior's chain"""
    count: int | None = None
    """turntable, recombine, views, complete: objects, 6 by default"""
    shots: int | None = None
    """turntable, views: images of each object that are given, 2 by default"""
    frames: int | None = None
    """turntable: pictures of one turn, 36 in a .gif, else 8"""
    size: int | None = None
    """turntable, recombine: side of the pictures in pixels, that of training by default"""
    std: float | None = None
    """denoise: standard deviation of the noise, in the unit of images in [−1, 1]"""
    add_noise: bool = False
    """denoise: add that noise to the input first"""
    seeds: str | None = None
    """interpolate: seeds of the two ends, 0,1 by default"""
    steps: int | None = None
    """interpolate: samples from end to end, 8 by default"""
    seed: int | None = None
    """of all draws, 0 by default; not for classify and detect"""
    which: str = "last"
    """state of a run: last or best"""
    device: str = "auto"
    """cpu, cuda, mps or auto"""


# options that only some tasks take
TASK_OPTIONS = {
    "classify": (),
    "detect": (),
    "inpaint": ("mask", "completions", "resample", "search", "seed"),
    "restore": ("operator", "latent", "completions", "resample", "seed"),
    "denoise": ("std", "add_noise", "seed"),
    "reconstruct": ("search", "seed"),
    "interpolate": ("seeds", "steps", "seed"),
    "translate": ("seed",),
    "turntable": ("count", "frames", "shots", "search", "size", "seed"),
    "recombine": ("count", "size", "seed"),
    "views": ("count", "shots", "search", "seed"),
    "complete": ("count", "mask", "search", "seed"),
    "pose": (),
}
# those that can do without an input
WITHOUT_INPUT = ("interpolate", "turntable", "recombine")


def apply(arguments: list[str]) -> None:
    options = _options(_positional(ApplyOptions), arguments, "apply")
    from thalweg import run, tasks
    from thalweg.errors import InputError, nearest

    if options.task not in tasks.TASKS:
        raise InputError(f"unknown task '{options.task}'{nearest(options.task, tasks.TASKS)}. Tasks: {', '.join(tasks.TASKS)}")
    given = _task_options(options)
    from thalweg.latent import load

    method = load(options.model, which=options.which, device=_device(options.device))
    print(run.apply(options.task, method, options.input, options.out, **given))


def _task_options(options: ApplyOptions) -> dict[str, Any]:
    """The options given that are the task's, checked, as `run.apply` takes them."""
    from thalweg.errors import InputError

    task, taken = options.task, TASK_OPTIONS[options.task]
    given = {name: getattr(options, name) for names in TASK_OPTIONS.values() for name in names}
    given = {name: value for name, value in given.items() if value is not None and value is not False}
    for name in given:
        if name not in taken:
            its = ", ".join(f"--{one.replace('_', '-')}" for one in taken) or "none"
            raise InputError(f"{task} takes no --{name.replace('_', '-')}. Its options: {its}")
    if task == "interpolate" and options.input is not None and options.seeds is not None:
        raise InputError("interpolate goes between the first two images of --input or between the noise of two --seeds, not both")
    if task == "recombine" and options.input is not None:
        raise InputError("recombine takes no --input: it draws appearances and shapes")
    if task not in WITHOUT_INPUT and options.input is None:
        kind = (
            "data with cameras, by name or folder" if task in ("views", "complete") else "a folder with pictures, one picture, or an .npz"
        )
        raise InputError(f"{task} needs --input PATH: {kind}")
    if "seed" in given:
        _check_seed(options.seed)
    _above_zero(options, "completions", "resample", "search", "std", "count", "shots", "frames", "size")
    if options.std is not None and options.std == float("inf"):
        raise InputError("--std must be finite, got inf")
    if task == "denoise" and options.std is None:
        raise InputError("denoise needs --std, the standard deviation of the noise in images in [−1, 1]; for example --std 0.3")
    if task == "restore" and options.operator is None:
        raise InputError("restore needs --operator, what is measured of the input: pool:2, grey, blur:1.0 or mask:centre:0.25")
    if options.latent and (options.completions or options.resample):
        raise InputError("restore --latent gives one image for each input: it takes no --completions and no --resample")
    if task == "inpaint":
        given["operator"] = f"mask:{given.pop('mask', 'centre:0.25')}"
    if "seeds" in given:
        given["seeds"] = _two_seeds(options.seeds)
    if options.steps is not None and options.steps < 2:
        raise InputError(f"--steps must be 2 or more, got {options.steps}")
    return given


def _two_seeds(text: str) -> tuple[int, ...]:
    from thalweg.errors import InputError

    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts) or int(parts[0]) == int(parts[1]):
        raise InputError(f"--seeds must be two different whole numbers, for example 0,1, got '{text}'")
    for part in parts:
        _check_seed(int(part))
    return tuple(int(part) for part in parts)


@dataclass
class ExportOptions:
    """Write a trained model as safetensors, config.json and a model card, to a folder or to the Hugging Face hub."""

    model: Annotated[str, "positional"]
    """run folder"""
    out: Path | None = None
    """folder to write"""
    hub: str | None = None
    """hub name, user/model"""
    which: str = "last"
    """state of a run: last or best"""


def export(arguments: list[str]) -> None:
    options = _options(_positional(ExportOptions), arguments, "export")
    from thalweg.errors import InputError

    if (options.out is None) == (options.hub is None):
        raise InputError("export needs either --out DIR or --hub NAME")
    from thalweg.save import load, push_to_hub, save_pretrained

    method = load(options.model, which=options.which)
    print(save_pretrained(method, options.out) if options.hub is None else push_to_hub(method, options.hub))


def list_presets(arguments: list[str]) -> None:
    from thalweg.errors import InputError
    from thalweg.methods import METHODS, find, preset, presets_of

    if arguments:
        if arguments[0] in ("-h", "--help"):
            print("usage: thalweg list\n\nEvery method/preset, one line each: its data, shape, parameters and length.")
            return
        raise InputError(f"list takes no arguments, got '{arguments[0]}'")
    import torch

    for name in METHODS:
        kind = find(name)
        for key in presets_of(kind):
            config = preset(f"{name}/{key}")[1]
            # zuko's flows of vectors look at their masks when they are built, and networks of vectors are small
            try:
                with torch.device("meta" if len(config.shape) == 3 else "cpu"):
                    size = f"{sum(p.numel() for p in kind(config).parameters()):,}"
            except InputError:  # an extra is missing, which training this preset will name
                size = "?"
            shape = "×".join(map(str, config.shape))
            print(f"{name + '/' + key:32} {config.data:16} {shape:>10} {size:>12} parameters {config.images:>13,} images")


def bench(arguments: list[str]) -> None:
    import runpy

    from thalweg.errors import InputError, nearest

    root = Path.cwd() / "studies"
    names = sorted(p.stem for p in root.glob("*.py") if p.stem not in ("__init__", "common"))
    if arguments and arguments[0] in ("-h", "--help"):
        print("usage: thalweg bench [NAME] [options of the benchmark]\n\nRun from a clone of the repository; no name lists them.")
        return
    if not names:
        raise InputError("there is no folder studies here; run from a clone of the repository")
    if not arguments:
        print("\n".join(names))
        return
    if arguments[0] not in names:
        raise InputError(f"unknown benchmark '{arguments[0]}'{nearest(arguments[0], names)}. Benchmarks: {', '.join(names)}")
    sys.path.insert(0, str(Path.cwd()))
    sys.argv = [f"studies/{arguments[0]}.py", *arguments[1:]]
    runpy.run_module(f"studies.{arguments[0]}", run_name="__main__")


COMMANDS = {
    "list": list_presets,
    "train": train,
    "sample": sample,
    "evaluate": evaluate,
    "apply": apply,
    "export": export,
    "bench": bench,
}

if __name__ == "__main__":
    sys.exit(main())
