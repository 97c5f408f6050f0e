"""docs/gallery.md: a picture of each preset that has one, with the figures, minutes and commands of committed results.

Written by `python -m studies.tables`. An entry names a preset, a picture of docs/images, the file of results that the picture was made
with, what they say (a template of the results, with `row` for the rows by name), and where the seconds are.
"""

import json
from dataclasses import dataclass

from studies.tables import DOCS, RESULTS, Values, filled, found, joined, present
from thalweg import presets
from thalweg.commands.list import tags
from thalweg.methods import METHODS
from thalweg.progress import duration

FEATURES = {"ssl", "autoencoder"}  # which learn features, and draw nothing

HEAD = """# Gallery

Written by `python -m studies.tables`: what presets draw, from committed results. A picture is of the study whose command stands with it;
where a study changed the preset (fewer images, another width), the figures are the study's. `thalweg list` has all presets, the end of this
page those without a picture.
Fréchet distances are in the features of a classifier of the same data; the floor is that of real images."""


@dataclass(frozen=True)
class Entry:
    """One picture: `seconds` is the place of the CPU seconds of training in the results, "" where they are not recorded."""

    preset: str
    picture: str
    file: str
    text: str
    seconds: str = ""

    def shown(self) -> str:
        record = json.loads((RESULTS / f"{self.file}.json").read_text())
        values = with_rows(record["results"])
        row = found(values, self.seconds.rpartition(".")[0]) if self.seconds.startswith("row.") else {}
        took = f" Trained for {duration(float(found(values, self.seconds)))}." if self.seconds else ""
        return joined([
            f"### `{self.preset}`",
            f"![{self.preset}](images/{self.picture})",
            filled(self.text, values) + took,
            f"`thalweg train {self.preset} --out runs/{self.preset.partition('/')[2]}`; picture and figures: "
            f"`{present(row.get('command') or record['command'])}`",
        ])  # fmt: skip


def with_rows(results: Values) -> Values:
    """The results with `row`: those of a summary, of an arena or of single runs, by name."""
    for key in ("summary", "rows", "runs"):
        rows = results.get(key) or []
        if rows and isinstance(rows, list):
            return {
                **results,
                "row": {str(row.get("row") or row.get("method") or row.get("target") or i): row for i, row in enumerate(rows)},
            }
    return results


FRECHET = "Fréchet {row[%s][frechet]:.2f}, floor {floor:.2f}."
ENTRIES = (
    Entry("dual/fashion-mnist", "arena_fashion-mnist_dual_samples.png", "arena",
          "Clothes: Fréchet {row[dual][frechet]:.2f}, floor {row[dual][floor]:.2f}; {row[dual][bits]:.2f} bits a dimension.",
          "row.dual.cpu_seconds"),
    Entry("dual/fashion-mnist-conditional", "arena_fashion-mnist_dualbylabel_guided_samples.png", "arena",
          "By label: Fréchet {row[dual by label][guided]:.2f}, floor {row[dual by label][floor]:.2f}.", "row.dual by label.cpu_seconds"),
    Entry("dual/emoji-google", "dual_emoji-google_guidance-1_5.png", "dual_pictures_emoji-google",
          "Emoji by kind at guidance 1.5: Fréchet {samples[guidance 1.5][frechet]:.1f}, floor {samples[guidance 1.5][floor]:.1f}.",
          "train_seconds"),
    Entry("dual/emoji-google-kinds", "dual_emoji-google-kinds_kinds.png", "dual_pictures_emoji-google-kinds",
          "One of each of 98 kinds. By kind at guidance 1: Fréchet {samples[guidance 1][frechet]:.1f}, floor "
          "{samples[guidance 1][floor]:.1f}.",
          "train_seconds"),
    Entry("dual/checkerboard", "dual_checkerboard.png", "dual_toys",
          "A normalised density: KL(truth‖model) {row[checkerboard: dual][kl_own]:.4f} nats by its own normalisation, median of "
          "{row[checkerboard: dual][seeds]}.", "row.checkerboard: dual.cpu_seconds"),
    Entry("dual/25gaussians", "dual_25gaussians.png", "dual_toys",
          "KL(truth‖model) {row[25gaussians: dual][kl_own]:.4f} nats by its own normalisation, which is off by "
          "{row[25gaussians: dual][log_z]:.4f} in log Z, so that it may be below 0; {row[25gaussians: dual][kl_on_grid]:.4f} with that put "
          "right.", "row.25gaussians: dual.cpu_seconds"),
    Entry("egc/digits", "quickstart.png", "quickstart",
          "Digits on request, and energies of digits and of what is none: accuracy {metrics[accuracy][value]:.1f %}, Fréchet by label "
          "{metrics[fidelity][guided samples][frechet][value]:.2f}, floor {metrics[fidelity][guided samples][frechet][held_out]:.2f}. "
          "On two cores.", "training_seconds"),
    Entry("egc/fashion-mnist", "arena_fashion-mnist_egc_guided_samples.png", "arena",
          "Clothes by label: accuracy {row[egc][accuracy]:.1f %}, Fréchet {row[egc][guided]:.2f}, floor {row[egc][floor]:.2f}.",
          "row.egc.cpu_seconds"),
    Entry("egc/emoji-google", "egc_samples_emoji-google_egcseparatepasses.png", "egc_classifiers_emoji-google",
          "Accuracy {row[egc, separate passes][accuracy]:.1f %}, Fréchet {row[egc, separate passes][frechet]:.1f}.", "runs.0.cpu_seconds"),
    Entry("ddpm/fashion-mnist", "arena_fashion-mnist_ddpm_samples.png", "arena",
          "No energy, for comparison: Fréchet {row[ddpm][frechet]:.2f}, floor {row[ddpm][floor]:.2f}.", "row.ddpm.cpu_seconds"),
    Entry("cdrl/25gaussians", "cdrl_25gaussians.png", "cdrl_toys", "KL(truth‖model) {median_kl[25gaussians]:.4f} nats.",
          "budget_cpu_seconds.25gaussians"),
    Entry("cdrl/checkerboard", "cdrl_checkerboard.png", "cdrl_toys", "KL(truth‖model) {median_kl[checkerboard]:.4f} nats.",
          "budget_cpu_seconds.checkerboard"),
    Entry("cdrl/digits", "cdrl_digits_15_steps.png", "cdrl_digits",
          "Fréchet {15 steps[frechet]:.1f±}, floor {15 steps[floor]:.2f}.", "training.seconds"),
    Entry("cdrl/digits-conditional", "cdrl_digits_w0.0.png", "cdrl_conditional",
          "By label: Fréchet {curve[0][frechet]:.2f±}, floor {curve[0][floor]:.2f}; {curve[0][accuracy][mean]:.1f %} are read as asked "
          "for.",
          "training.seconds"),
    Entry("cdrl/inked-digits", "cdrl_inked-digits_digit_colour.png", "cdrl_composition",
          "Concepts composed: a digit in a colour, ten pairs that were never seen together (columns); "
          "{inked-digits[rows][8][joint]:.0f %} show both. Asked for a digit *not* in a colour, "
          "{inked-digits[not][denied_share]:.1f %} are.",
          "inked-digits.training.seconds"),
    Entry("cdrl/paired-digits", "cdrl_paired_one_draw_proposals_guided_never_seen_together.png", "cdrl_composition_paired-digits",
          "Two digits side by side, each asked for by itself, here the same one twice, which was never seen (columns); "
          "{both together[rows][4][joint]:.0f %} show both."),
    Entry("cdrl/fashion-mnist-latent", "cdrl_fashion_latent.png", "cdrl_latent",
          "In the latents of an autoencoder: Fréchet {samples[frechet]:.1f±}, floor {samples[floor]:.2f}.", "training.seconds"),
    Entry("ddaebm/25gaussians-weighted", "ddaebm_25gaussians_k16both.png", "ddaebm_weighted",
          "Weighted draws: KL(truth‖model) {row[25gaussians: K = 16, both][kl]:.3g} nats.", "row.25gaussians: K = 16, both.cpu_seconds"),
    Entry("ddaebm/pinwheel-weighted", "ddaebm_pinwheel_k16both.png", "ddaebm_weighted",
          "KL(truth‖model) {row[pinwheel: K = 16, both][kl]:.3g} nats.", "row.pinwheel: K = 16, both.cpu_seconds"),
    Entry("ddaebm/swissroll-weighted", "ddaebm_swissroll_k16both.png", "ddaebm_weighted",
          "KL(truth‖model) {row[swissroll: K = 16, both][kl]:.3g} nats.", "row.swissroll: K = 16, both.cpu_seconds"),
    Entry("ddaebm/digits", "ddaebm_digits_t4.png", "ddaebm_levels",
          "Fréchet {row[T = 4][frechet 4/4]:.1f}, floor {row[T = 4][floor]:.2f}.", "row.T = 4.cpu_seconds"),
    Entry("ddaebm/stacked-digits", "ddaebm_stacked-digits_ddaebm.png", "ddaebm_stacked",
          "{row[DDAEBM][modes]:.0f} of 1000 modes.", "row.DDAEBM.cpu_seconds"),
    Entry("jem/fashion-mnist", "arena_fashion-mnist_jem_samples.png", "arena",
          "Chains of the replay buffer, ten steps on: Fréchet {row[jem][frechet]:.1f}, floor {row[jem][floor]:.2f}; by label from new "
          "starts {row[jem][guided]:.0f}.",
          "row.jem.cpu_seconds"),
    Entry("short_run/fashion-mnist", "arena_fashion-mnist_short_runatenthaslong_samples.png", "arena",
          "Sixteen steps from blurred garments: Fréchet {row[short_run, a tenth as long][frechet]:.1f}, floor "
          "{row[short_run, a tenth as long][floor]:.2f}; no density, longer chains end in noise.",
          "row.short_run, a tenth as long.cpu_seconds"),
    Entry("coopflow/digits", "coopflow_digits_coopflow.png", "coopflow_images", FRECHET % "CoopFlow", "row.CoopFlow.cpu_seconds"),
    Entry("coopflow/fashion-mnist", "coopflow_fashion-mnist_coopflow.png", "coopflow_images_fashion-mnist",
          FRECHET % "CoopFlow", "row.CoopFlow.cpu_seconds"),
    Entry("coopflow/spiral", "coopflow_spiral_t100.png", "coopflow_spiral",
          "Flow, samples and energy: total variation of samples {row[T = 100][samples_tv]:.3f}, floor {row[T = 100][floor]:.3f}."),
    Entry("cf_ebm/translate-shoes", "cf_ebm_fashion-mnist_forth.png", "cf_ebm_translation_fashion-mnist",
          "Sneakers into ankle boots at 16×16, by steps of the chain, and where it changed most. "
          "{summary[0][target_share]:.1f %} are taken for boots.", "runs.0.cpu_seconds"),
    Entry("cf_ebm/translate-emoji", "cf_ebm_emoji_forth.png", "cf_ebm_translation_emoji",
          "One vendor's emoji into another's at 16×16, by steps of the chain, and where it changed most. "
          "{summary[0][target_share]:.1f %} are taken for them.", "runs.0.cpu_seconds"),
    Entry("cf_ebm/denoise", "cf_ebm_fashion-mnist_denoiser.png", "cf_ebm_denoiser_fashion-mnist",
          "Noise of standard deviation {summary[1][std]} taken off: {summary[1][denoised gains]:.1f} dB gained."),
    Entry("cf_ebm/digits", "cf_ebm_digits_coarsetofine.png", "cf_ebm_ablation", FRECHET % "coarse to fine", "seconds"),
    Entry("liebm/digits", "liebm_digits_latents.png", "liebm_ablation", FRECHET % "latents", "seconds"),
    Entry("liebm/fashion-mnist", "liebm_fashion-mnist_latents.png", "liebm_ablation_fashion-mnist", FRECHET % "latents", "seconds"),
    Entry("nerf_lebm/objects", "nerf_lebm_amortized_recombined.png", "nerf_lebm_priors",
          "Shapes (columns) in colours (rows). New views from two: PSNR {row[amortized][two_shot_chain]:.1f} dB, the mean image "
          "{mean_view:.1f}.", "row.amortized.cpu_seconds"),
    Entry("nerf_lebm/objects-persistent", "nerf_lebm_persistentchains_turntable.gif", "nerf_lebm_priors",
          "New objects turned round. New views from two: PSNR {row[persistent chains][two_shot_chain]:.1f} dB, the mean image "
          "{mean_view:.1f}.",
          "row.persistent chains.cpu_seconds"),
    Entry("nerf_lebm/objects-incomplete", "nerf_lebm_incomplete_persistentchains.png", "nerf_lebm_incomplete",
          "Learned from images with holes; in threes: what is seen, completed, whole. "
          "What was hidden has PSNR {row[persistent chains][hidden]:.1f} dB.",
          "row.persistent chains.cpu_seconds"),
)  # fmt: skip


def page() -> str:
    methods = dict.fromkeys(entry.preset.partition("/")[0] for entry in ENTRIES)
    parts = [(f"## {m}", *(one.shown() for one in ENTRIES if one.preset.startswith(f"{m}/"))) for m in methods]
    return joined([HEAD, *(text for part in parts for text in part), "## Without a picture", *unpictured()]) + "\n"


def unpictured() -> list[str]:
    """What draws, and has no picture here: a line a method for what two cores train, and how many are at the papers' scale."""
    shown, named = {entry.preset for entry in ENTRIES}, []
    every = {name: tags(name.partition("/")[2], row) for name, row in every_preset().items()}
    for method in METHODS.keys() - FEATURES:
        own = [name for name, tag in every.items() if name.startswith(f"{method}/") and name not in shown and "gpu" not in tag]
        named += [f"- {method}: " + ", ".join(f"`{name}`" for name in sorted(own))] if own else []
    large = sum("gpu" in tag for tag in every.values())
    return [
        "Of presets for two cores; of those for your own data there can be none:",
        "\n".join(sorted(named)),
        f"Nor have the {large} presets of the papers' scale, which were not trained here.",
    ]


def every_preset() -> dict[str, dict]:
    return {f"{method}/{key}": row for method in METHODS for key, row in presets.rows(method).items()}


def without() -> list[str]:
    """Entries whose picture or results are not there."""
    return [one.preset for one in ENTRIES if not ((DOCS / "images" / one.picture).exists() and (RESULTS / f"{one.file}.json").exists())]
