"""Data sets of the papers in small: a few pictures each, at their real size, in the files and columns that the real sets have.

`make(folder)` fills a folder that then stands for a working directory: sets of the hub under their names, where the package `datasets`
finds them before it asks the hub, folders of the page "Sets of the papers", the npm packages of emoji, and an autoencoder with random
weights under the name of Stable Diffusion's.
"""

import gzip
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
from PIL import Image

from thalweg import camera

MADE = ("cats", "dogs")


def picture(seed: int, height: int, width: int) -> Image.Image:
    """Smooth noise in colour, so that JPEG and resizing have something to do."""
    small = numpy.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=numpy.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def save(path: Path, seed: int, height: int, width: int, grey: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed, height, width).convert("L" if grey else "RGB").save(path)


def hub_set(home: Path, configuration: str, splits: dict[str, int], size: tuple[int, int], columns: Sequence[tuple[str, Any]]) -> None:
    """A set of the hub in parquet: `columns` in their order, "image" for pictures, class names for labels, a type for the rest."""
    import datasets

    features, lines = {}, []
    for name, kind in columns:
        labels = isinstance(kind, int)
        features[name] = datasets.Image() if kind == "image" else datasets.ClassLabel(num_classes=kind) if labels else datasets.Value(kind)
    for split, count in splits.items():
        rows = {
            name: [picture(i, *size) if kind == "image" else i % (kind if isinstance(kind, int) else 2) for i in range(count)]
            for name, kind in columns
        }
        path = home / configuration / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_dict(rows, features=datasets.Features(features)).to_parquet(path)
        lines += [f"  - split: {split}", f"    path: {configuration}/{split}-*"]
    text = "\n".join(["---", "configs:", f"- config_name: {configuration}", "  data_files:", *lines, "---", ""])
    (home / "README.md").write_text(text)


def hub_sets(root: Path) -> None:
    hub_set(root / "uoft-cs/cifar10", "plain_text", {"train": 24, "test": 20}, (32, 32), [("img", "image"), ("label", 10)])
    fine = [("img", "image"), ("fine_label", 100), ("coarse_label", 20)]
    hub_set(root / "uoft-cs/cifar100", "cifar100", {"train": 24, "test": 20}, (32, 32), fine)
    digits = {"train": 24, "test": 20, "extra": 4}
    hub_set(root / "ufldl-stanford/svhn", "cropped_digits", digits, (32, 32), [("image", "image"), ("label", 10)])
    parts = {"train": 2, "validation": 2, "test": 2}
    hub_set(root / "ILSVRC/imagenet-1k", "default", parts, (375, 500), [("image", "image"), ("label", 1000)])
    attributes = [(name, "bool") for name in ("5_o_Clock_Shadow", "Male", "Smiling", "Young")]
    faces = {"train": 4, "valid": 2, "test": 2}
    columns = [("image", "image"), ("celeb_id", "int64"), *attributes]
    hub_set(root / "flwrlabs/celeba", "img_align+identity+attr", faces, (218, 178), columns)
    hub_set(root / "korexyz/celeba-hq-256x256", "default", {"train": 2, "validation": 2}, (256, 256), [("image", "image"), ("label", 2)])
    hub_set(root / "tglcourse/lsun_church_train", "default", {"train": 2, "test": 2}, (256, 256), [("image", "image")])


def folders(root: Path) -> None:
    for i in range(3):
        save(root / f"celebahq-512/{i:05}.jpg", i, 512, 512)
        save(root / f"carla/images/{i:06}.png", i, 128, 128)
    for kind in MADE:
        for split in ("train", "test"):
            for i in range(3):
                save(root / f"cat2dog/{kind}/{split}/{kind}_{i}.jpg", i, 216, 216)
    rows = [f"img/{i:06}.jpg,{1 - 2 * (i % 2)},{1 - 2 * (i // 2 % 2)},{1 - 2 * (i // 4 % 2)}" for i in range(10)]
    for i in range(10):
        save(root / f"celeba-attributes/img/{i:06}.jpg", i, 218, 178)
    (root / "celeba-attributes/attributes.csv").write_text("\n".join(["file,Male,Smiling,Young", *rows, ""]))
    cameras(root)


def cameras(root: Path) -> None:
    """Pictures with poses: GRAF's CARLA at radius 10, cars of ShapeNet-SRN at 1.3, whose third axis looks forward."""
    unit = torch.linspace(0.1, 1.4, 6)
    lens = numpy.zeros((1, 3, 3))
    lens[0, 0, 0], lens[0, 0, 2], lens[0, 1, 2] = 238.9, 64.0, 64.0
    (root / "carla/carla_poses").mkdir(parents=True)
    numpy.save(root / "carla/carla_poses/intrinsics.npy", lens)
    angle = camera.unit_vector(unit)
    for i, view in enumerate(camera.orbit(angle, camera.unit_vector(4 * unit), distance=10.0, focal=1.866)[:3]):
        numpy.save(root / f"carla/carla_poses/{i:06}_extrinsics.npy", view[:, :4].numpy())
    for item in range(2):
        home = root / f"srn_cars/cars_train/{item:032x}"
        for i, view in enumerate(camera.orbit(angle, camera.unit_vector(4 * unit), distance=1.3, focal=1.025)):
            save(home / f"rgb/{i:06}.png", i, 128, 128)
            matrix = torch.eye(4)
            matrix[:3, :4] = view[:, :4] * torch.tensor([1.0, -1.0, -1.0, 1.0])
            path = home / f"pose/{i:06}.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_text(" ".join(f"{v:.8f}" for v in matrix.flatten().tolist()))
        (home / "intrinsics.txt").write_text("131.250000 64.000000 64.000000 0.\n0. 0. 0.\n1.\n128 128\n")


def emoji(root: Path) -> None:
    """Both vendors' packages: 9 categories, and in them 98 kinds of three emoji each."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    entries = []
    for i in range(3 * 98):
        kind = i % 98
        image = f"{i:05x}.png"
        has = {f"has_img_{vendor}": True for vendor in ("google", "twitter")}
        name = f"kind-{letters[kind // 26]}{letters[kind % 26]}"
        entries.append({"category": f"{letters[kind % 9]} & others", "subcategory": name, "sort_order": i, "image": image, **has})
    for vendor in ("google", "twitter"):
        home = root / f"emoji-datasource-{vendor}"
        home.mkdir(parents=True)
        (home / "emoji.json").write_text(json.dumps(entries))
        for i, entry in enumerate(entries):
            save(home / "img" / vendor / "64" / entry["image"], i, 64, 64)


def fashion(root: Path) -> None:
    """The four files of Fashion-MNIST."""
    home, generator = root / "fashion-mnist", numpy.random.default_rng(0)
    home.mkdir(parents=True)
    for part, count in (("train", 1200), ("t10k", 100)):
        images = generator.integers(0, 256, (count, 28, 28), dtype=numpy.uint8)
        head = struct.pack(">4B3I", 0, 0, 8, 3, count, 28, 28)
        (home / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + images.tobytes(), 1))
        labels = (numpy.arange(count) % 10).astype(numpy.uint8)
        (home / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(struct.pack(">4B1I", 0, 0, 8, 1, count) + labels.tobytes(), 1))


def autoencoder(home: Path, widths: tuple[int, ...] = (128, 256, 512, 512), size: int = 256) -> None:
    """diffusers' `AutoencoderKL` in the shape of Stable Diffusion's, 84 million random weights."""
    from diffusers import AutoencoderKL

    count = len(widths)
    model = AutoencoderKL(
        block_out_channels=widths, down_block_types=("DownEncoderBlock2D",) * count, up_block_types=("UpDecoderBlock2D",) * count,
        latent_channels=4, layers_per_block=2, norm_num_groups=min(32, widths[0]), sample_size=size, scaling_factor=0.18215,
    )  # fmt: skip
    model.save_pretrained(home)


def make(folder: Path, *, widths: tuple[int, ...] = (128, 256, 512, 512)) -> None:
    """All of it in `folder`; `widths` of the autoencoder."""
    hub_sets(folder)
    folders(folder / "data")
    emoji(folder / "node_modules")
    fashion(folder / "node_modules")
    autoencoder(folder / "stabilityai/sd-vae-ft-ema", widths)
    rows = [f"{i % 7 - 3},{i % 5 - 2},{'ab'[i % 2]}" for i in range(60)]
    (folder / "data/table.csv").write_text("\n".join(["one,two,label", *rows, ""]))
