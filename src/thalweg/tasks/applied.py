"""The tasks with images, as `thalweg apply` runs them: what was read and the options in, arrays, rows of a picture or records out."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from thalweg import random
from thalweg.data.folders import SUFFIXES, decode
from thalweg.data.prepare import in_own_units, trained_data
from thalweg.data.vectors import Table
from thalweg.errors import InputError
from thalweg.evaluate import energies, outlier_scores
from thalweg.evaluate.scores import REFERENCE, LevelScore, fitting_scores
from thalweg.tasks import (
    denoising,
    interpolation,
    latent_restoration,
    operators,
    prediction,
    reconstruction,
    restoration,
    table,
    translation,
)


class Outcome(NamedTuple):
    """What a task gives: `arrays` for an .npz, `rows` [R, K, C, H, W] for a picture with R rows (an animation of K frames), `records` for
    a .json. `least` is the side that images of a picture are enlarged to."""

    arrays: dict[str, Tensor] = {}
    rows: Tensor | None = None
    records: list[dict[str, Any]] | None = None
    least: int = 32


def classify(method: Any, x: Tensor | Table, options: table.Options) -> Outcome:
    return Outcome(records=prediction.classify(method, x))


def detect(method: Any, x: Tensor | Table, options: table.Detect) -> Outcome:
    """Among held-out examples: of the data that are given, as the model's folder keeps their energies, or of its data where they lie."""
    if options.score != "energy":
        train, inliers = (in_own_units(trained_data(method, split, options.data)).x for split in ("train", "validation"))
        level_score = (
            LevelScore(method, train[:REFERENCE]) if options.score in fitting_scores(method) and options.score == "levels" else None
        )
        own, held_out = (
            outlier_scores(method, part, [options.score], reference=train[:REFERENCE], level_score=level_score)[options.score]
            for part in (x, inliers)
        )
        return Outcome(records=prediction.detect(own, held_out, score=options.score))
    kept = (method.trained_on or {}).get("held_out")
    if options.data is None and kept:
        return Outcome(records=prediction.detect(energies(method, x), torch.tensor(kept)))
    inliers = in_own_units(trained_data(method, "validation", options.data)).x
    return Outcome(records=prediction.detect(energies(method, x), energies(method, inliers)))


def inpaint(method: Any, x: Tensor, options: table.Inpaint) -> Outcome:
    a = _operator(f"mask:{options.mask}", tuple(method.config.shape), options.seed)
    assert isinstance(a, operators.Mask)
    given: dict[str, Any] = {} if options.resample is None else {"resample": options.resample}
    found = restoration.inpaint(
        method, x, a.known, completions=options.completions, seed=options.seed, search=options.search, **given
    )  # fmt: skip
    return _completed(x, a.forward(x), a.forward(x), a, found)


def restore(method: Any, x: Tensor, options: table.Restore) -> Outcome:
    a = _operator(options.operator or "", tuple(method.config.shape), options.seed)
    y, std = a.forward(x), options.std or 0.0
    if std:
        y = a.forward(x) + std * random.normal_like(y, random.seeded(options.seed, 11))
        y = a.forward(y) if isinstance(a, operators.Mask) else y
    if options.latent:
        stages = latent_restoration.restore_latent(method, y, a, seed=options.seed)
        rows = torch.stack([x, a.pseudo_inverse(y).clamp(-1, 1), stages.start, stages.refined, stages.x], 1)
        return Outcome({"x": x, "y": y, "start": stages.start, "refined": stages.refined, "restored": stages.x}, rows)
    asked: dict[str, Any] = {"resample": options.resample, "corrections": options.corrections}
    given = {name: value for name, value in asked.items() if value is not None}
    found = restoration.restore(method, y, a, std=std, completions=options.completions or 4, seed=options.seed, **given)
    shown = y if std and y.shape == x.shape else a.pseudo_inverse(y)  # an inverse filter would blow the noise up
    return _completed(x, y, shown, a, found)


def _operator(text: str, shape: tuple[int, ...], seed: int) -> operators.LinearOperator:
    """The operator that `text` names, whose mask may also be a picture: known where it is lighter than mid-grey."""
    kind, _, name = text.partition(":")
    if kind != "mask" or Path(name).suffix.lower() not in SUFFIXES:
        return operators.named(text, shape, seed=seed)
    if not Path(name).is_file():
        raise InputError(f"mask {name}: there is no such file")
    values = decode(name, name, channels=1)[0]
    if tuple(values.shape) != shape[1:]:
        raise InputError(f"mask {name}: got {values.shape[0]} × {values.shape[1]} pixels, the model's images have {shape[1]} × {shape[2]}")
    return operators.mask(values > 127)


def _completed(x: Tensor, y: Tensor, shown: Tensor, a: operators.LinearOperator, found: Tensor) -> Outcome:
    known = {"mask": a.known.expand_as(x)} if isinstance(a, operators.Mask) else {}
    rows = torch.cat([x[None], shown.clamp(-1, 1)[None], found])
    return Outcome({"x": x, "y": y, "completions": found, **known}, rows.transpose(0, 1))


def denoise(method: Any, x: Tensor, options: table.Denoise) -> Outcome:
    assert options.std is not None  # `check` has seen to it
    y = x + options.std * random.normal_like(x, random.seeded(options.seed, 11)) if options.add_noise else x
    found = denoising.denoise(method, y, options.std, options.seed)
    return Outcome({"x": x, "y": y, "denoised": found}, torch.stack([x, y, found] if options.add_noise else [x, found], 1))


def reconstruct(method: Any, x: Tensor, options: table.Reconstruct) -> Outcome:
    found = reconstruction.reconstruct(method, x, steps=options.search, seed=options.seed)
    return Outcome({"x": x, "reconstructed": found}, torch.stack([x, found], 1))


def translate(method: Any, x: Tensor, options: table.Translate) -> Outcome:
    found = translation.translate(method, x, options.seed)
    strongest = found.saliency.flatten(1).max(1).values.clamp(min=1e-12)
    shown = (2 * found.saliency / strongest[:, None, None] - 1)[:, None].expand_as(x)  # white: where this image changed most
    rows = torch.cat([found.strip, shown[None]]).transpose(0, 1)
    return Outcome({"x": x, "translated": found.x, "saliency": found.saliency, "strip": found.strip}, rows)


def interpolate(method: Any, x: Tensor | None, options: table.Interpolate) -> Outcome:
    if x is None:
        a, b = (random.normal(*method.latent_shape, generator=random.seeded(end, 12)) for end in options.ends)
    elif len(x) < 2:
        raise InputError("interpolate goes from the first image of --input to the second, but there is only one")
    else:
        a, b = interpolation.latents(method, x[:2], seed=options.seed)
    found = interpolation.interpolate(method, a, b, options.steps, seed=options.seed)
    return Outcome({"x": found}, found[None])
