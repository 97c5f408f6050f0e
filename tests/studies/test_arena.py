"""The arena's table: rows join by name, data and seed, and its page shows them."""

import argparse
import json

import pytest

from studies import arena, tables
from thalweg.methods import preset

MADE = {
    "data": "fashion-mnist", "seed": 0, "price": 100.0, "cpu_seconds": 99.0, "images": 1000, "parameters": 10, "n": 50,
    "frechet": 8.0, "floor": 2.0, "precision": 0.9, "recall": 0.8, "kid": 1.0, "guided": None, "bits": 3.1, "accuracy": None,
    "evaluations": 41.0, "cpu_seconds_sample": 0.05, "guard_events": 0, "command": "python -m studies.arena dual",
    "outliers": {"score": "levels", "mean": 0.9, "uniform": 1.0, "interpolation": 0.8},
    "noise_error": {f"{sigma:g}": 0.5 for sigma in arena.SIGMAS},
}  # fmt: skip


@pytest.mark.parametrize("name", arena.ROWS)
def test_every_row_names_a_preset_that_is_there(name):
    who = arena.entrant(name, "fashion-mnist")
    assert preset(who.preset)[1].data == "fashion-mnist" and arena.has_preset(name, "fashion-mnist")
    assert not arena.has_preset(name, "nowhere")


def test_rows_join_in_the_order_of_the_table_and_replace_their_like(tmp_path):
    out = tmp_path / "arena.json"
    arena.join(out, [MADE | {"method": "egc"}])
    arena.join(out, [MADE | {"method": "dual"}, MADE | {"method": "dual", "seed": 1}])
    arena.join(out, [MADE | {"method": "egc", "frechet": 5.0}, MADE | {"method": "dual", "data": "digits"}])
    rows = json.loads(out.read_text())["results"]["rows"]
    assert [(row["data"], row["method"], row["seed"], row["frechet"]) for row in rows] == [
        ("digits", "dual", 0, 8.0), ("fashion-mnist", "dual", 0, 8.0), ("fashion-mnist", "dual", 1, 8.0), ("fashion-mnist", "egc", 0, 5.0)
    ]  # fmt: skip


def test_the_page_shows_all_rows_and_says_which_are_too_short(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    failed = {key: MADE[key] for key in ("data", "seed", "command")} | {"method": "jem", "diverged": "energies grew"}
    arena.join(
        tmp_path / "arena.json", [MADE | {"method": "dual"}, MADE | {"method": "egc", "cpu_seconds": 40.0, "noise_error": None}, failed]
    )
    text = arena.PAGE[0].text()
    assert "| dual | 8.00 | 2.00 | – |" in text and "40 (too short)" in text and "0.800 (interpolation)" in text and "| jem | – |" in text
    assert text.count("| dual |") == 2 and text.count("| egc |") == 1  # errors by level of those that denoise


def test_a_row_is_trained_and_measured(tmp_path):
    options = argparse.Namespace(
        data="digits",
        seconds=2.0,
        n=200,
        precision="fp32",
        run=None,
        work=tmp_path / "work",
        jobs=2,
        pictures=tmp_path,
        command="made here",
    )
    row = arena.one("ddpm", 0, options)
    assert row["frechet"] > row["floor"] > 0 and row["images"] > 0 and 0 < row["noise_error"]["1"] < 1 and row["machine"]["cores"]
    assert (tmp_path / "arena_digits_ddpm_samples.png").exists()
    again = arena.one("ddpm", 0, argparse.Namespace(**vars(options) | {"run": tmp_path / "work" / options.data / row["folder"]}))
    assert again["frechet"] == pytest.approx(row["frechet"])
