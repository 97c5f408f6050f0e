"""One word, one meaning: the fields of all configs and specs follow the lexicon of docs/design.md; the budgets of the design page hold."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "thalweg"
# names that used to mean several things, and the words that stand for them now
FORBIDDEN = {
    "network": "net, a spec",
    "sampler": "chain, a spec",
    "clip_move": "clip of a chain",
    "gamma": "cross_entropy_weight, penalty or concentration",
    "posterior": "latent_posterior or posterior_chain",
    "temperature": "softmax_temperature or likelihood_temperature",
    "lr_energy": "lr",
    "initializer_lr": "lr_initializer",
    "decay": "lr_end",
    "first": "first_time",
    "scale": "readout",
    "labelled_share": "label_dropping",
    "guidance_scale": "guidance",
}
OF_NETWORKS = {"width", "widths", "depth", "blocks", "patch", "multipliers", "spectral_norm", "dropout"}


def fields() -> dict[str, dict[str, str | None]]:
    """name -> {file:class: docstring} of each field of a Config or a spec."""
    found: dict[str, dict[str, str | None]] = defaultdict(dict)
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.ClassDef) and any("STRICT" in ast.dump(d) for d in node.decorator_list)):
                continue
            for here, after in zip(node.body, [*node.body[1:], None]):
                if isinstance(here, ast.AnnAssign) and "ClassVar" not in ast.dump(here.annotation) and here.target.id != "kind":
                    text = getattr(getattr(after, "value", None), "value", None) if isinstance(after, ast.Expr) else None
                    found[here.target.id][f"{path.relative_to(PACKAGE)}:{node.name}"] = text
    return found


def lexicon() -> dict[str, str]:
    page = (ROOT / "docs" / "design.md").read_text()
    section = page[page.index("\n## Lexicon\n") :].split("\n## ", 2)[1]
    rows = re.findall(r"^\| ((?:`[\w.]+`(?:, )?)+) \| (.+) \|$", section, re.M)
    return {name: meaning for names, meaning in rows for name in re.findall(r"`([\w.]+)`", names)}


FIELDS, LEXICON = fields(), lexicon()


def test_there_are_fields_to_look_at():
    assert len(FIELDS) > 100 and {"net", "chain", "steps", "lr"} <= set(FIELDS) and {"step", "noise", "guidance"} <= set(LEXICON)


def test_every_field_says_what_it_is():
    silent = [f"{home}.{name}" for name, homes in FIELDS.items() for home, text in homes.items() if not text]
    assert not silent


def test_a_name_of_several_classes_is_in_the_lexicon():
    shared = {name: sorted(homes) for name, homes in FIELDS.items() if len(homes) > 1 and "config.py:Common" not in homes}
    assert {name: homes for name, homes in shared.items() if name not in LEXICON} == {}


def test_the_lexicon_names_what_exists():
    assert [name for name in LEXICON if name not in FIELDS] == []


@pytest.mark.parametrize("name", FORBIDDEN)
def test_words_of_several_meanings_are_gone(name):
    assert name not in FIELDS, f"say {FORBIDDEN[name]}"


def test_sizes_of_networks_are_fields_of_their_specs():
    for name in OF_NETWORKS:
        assert not [home for home in FIELDS.get(name, {}) if home.endswith(":Config")], name


# --- budgets


def functions(path: Path) -> dict[str, int]:
    """Lines of each function of a file."""
    tree = ast.parse(path.read_text())
    return {n.name: n.end_lineno - n.lineno + 1 for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}


@pytest.mark.parametrize("path", sorted((PACKAGE / "methods").glob("*.py")), ids=lambda path: path.stem)
def test_a_method_s_step_is_short_and_its_file_is_no_longer_than_520_lines(path):
    assert functions(path).get("step", 0) <= 25
    assert len(path.read_text().splitlines()) <= 520


@pytest.mark.parametrize(
    "path", sorted(p for p in PACKAGE.rglob("*.py") if p.parent.name != "methods"), ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_a_library_file_is_no_longer_than_350_lines(path):
    assert len(path.read_text().splitlines()) <= 350


# what a reader of a method's box looks for: its densities, its losses, its step, and what the step is made of
ALGORITHM = {
    "dual": "energy tilted _log_z_at base step losses _slopes level_loss draw_several draw_levels dequantise",
    "short_run": "energy step _start _chain _fresh",
    "egc": "joint energy classify step losses _of_label _kept _own_pass",
    "cdrl": "energy marginal posterior bridge proposal_mean propose refine step",
    "ddaebm": "energy log_prob _energy conditional_energy reverse encode_step reconstruction "
    "step pairs energy_loss _penalty generator_loss",
    "coopflow": "energy log_prob encode decode step initializer_loss propose noise_at _chain",
    "cf_ebm": "energy stage_at beta coarse_steps step _parts _expand _start _chain",
    "liebm": "energy _marginal _log_posterior _moments "
    "generator_loss inference_loss encoder_loss energy_loss step _latents negatives _misfit",
    "nerf_lebm": "energy generate residual posterior_energy run_chain "
    "step _by_chains _by_kept_chains _by_inference _learn_priors _learn_generator",
    "jem": "logits energy classify step _negative _fresh _chain",
    "ssl": "byol w_mse cosine_distance whiten step loss",
    "ddpm": "denoised step losses draw_levels",
    "wgan_gp": "step critic_losses _draw",
    "autoencoder": "encode decode reconstruct step reconstruction_error",
}


@pytest.mark.parametrize("name", ALGORITHM)
def test_step_losses_and_densities_fit_on_three_screens(name):
    lengths = functions(PACKAGE / "methods" / f"{name}.py")
    assert sum(lengths[part] for part in ALGORITHM[name].split()) <= 150


def test_every_method_is_found_in_five_places():
    from thalweg.methods import METHODS

    assert set(ALGORITHM) == set(METHODS)
    for name in METHODS:
        assert (PACKAGE / "presets" / f"{name}.py").exists() and (ROOT / "docs" / "methods" / f"{name}.md").exists()
        assert (ROOT / "tests" / "methods" / f"test_{name}.py").exists()
