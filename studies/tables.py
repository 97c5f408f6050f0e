"""Write docs/benchmarks.md and README's table from studies/results/*.json, so that no figure is typed by hand.

python -m studies.tables
"""

import json
import re
from pathlib import Path
from statistics import fmean as mean

from studies.runner import file_of

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "studies" / "results"


def load(name: str) -> dict:
    return json.loads((RESULTS / f"{name}.json").read_text())


def source(name: str, record: dict) -> str:
    machine = record["machine"]
    return (
        f"From `studies/results/{name}.json`: `{record['command']}`, {machine['cpu']}, {machine['cores']} cores, "
        f"PyTorch {record['versions']['torch']}, {record['date'][:10]}."
    )


def quickstart() -> str:
    record = load("quickstart")
    r = record["results"]
    m = r["metrics"]
    guided, free = (m["fidelity"][kind] for kind in ("guided samples", "samples"))
    frechet, named = guided["frechet"], m["fidelity"]["class_accuracy"]
    rows = [
        ("training", f"{r['training_seconds']:.0f} s, {r['images']:,} images, pictures and checkpoints included"),
        ("test accuracy", f"{100 * m['accuracy']['value']:.1f} % of {m['accuracy']['n']}"),
        ("class accuracy of guided samples", f"{100 * named['value']:.1f} % of {named['n']}"),
        (f"{frechet['name']} distance, guided samples", f"{frechet['value']:.2f}"),
        ("the same, unguided samples", f"{free['frechet']['value']:.2f}"),
        ("floor: real held-out images", f"{frechet['held_out']:.2f} (n = {guided['n']} against {guided['real']} training images)"),
    ]
    rows += [(f"AUROC of held-out digits against {k}", f"{v['auroc']:.3f}") for k, v in m["ood"]["energy"].items() if isinstance(v, dict)]
    return "## Quickstart\n\n" + lines(("figure", "value"), rows) + "\n" + source("quickstart", record) + "\n"


def density() -> str:
    record = load("density")
    rows = [
        (r["toy"], f"{r['kl_truth_model']:.4f}", f"{r['kl_worst_seed']:.4f}", f"{r['total_variation']:.3f}", str(r["modes_missing"]),
         f"{r['energy_distance']:.5f}", f"{r['cpu_seconds']:.0f}")
        for r in record["results"]["medians"]
    ]  # fmt: skip
    head = ("toy", "KL(truth‖model), nats", "worst seed", "total variation", "modes missing", "energy distance", "CPU seconds")
    text = "## Densities\n\nshort_run presets, one thread, medians over 3 seeds, both densities normalised on a 400² grid.\n\n"
    return text + lines(head, rows) + "\n" + source("density", record) + "\n"


def speed() -> str:
    record = load("speed")
    r = record["results"]
    text = (
        f"## Speed\n\nMedians of {r['repeats']} paired runs, {r['threads']} thread; the ratio is the contender's time over ours, without "
    )
    text += "the first run of each, in which ours compiles.\n\n"
    titles = {
        "images": "One contrastive step with 60 Langevin steps, batch 128, 32×32×3, 0.33M parameters",
        "plane": "1,000 chains × 1,000 Langevin steps through a 2-128-128-1 network",
    }
    for key, title in titles.items():
        rows = [(c["contender"], f"{c['median_seconds']:.2f}", f"{c['ratio_to_thalweg']:.2f}", f"{c['first_seconds']:.1f}") for c in r[key]]
        text += f"{title}:\n\n" + lines(("contender", "seconds", "ratio", "first run"), rows) + "\n"
    return text + source("speed", record) + "\n"


def precision() -> str:
    record = load("precision")
    r = record["results"]
    mean = {p: [row for row in r["runs"] if row["precision"] == p] for p in ("fp32", "bf16")}
    rows = [
        (
            name,
            *(f"{sum(row[key] for row in mean[p]) / len(mean[p]):.4f}" for p in mean),
            f"{d['mean_change']:+.4f} ± {d['standard_error']:.4f}",
        )
        for key, name in PRECISION_ROWS.items()
        for d in (r["differences"][key],)
    ]
    text = (
        f"## Precision\n\nThe same digits run, {r['images']:,} images, in fp32 and in bf16: means over {len(mean['fp32'])} seeds, and the "
    )
    text += "paired change with its standard error.\n\n" + lines(("figure", "fp32", "bf16", "change"), rows)
    return text + "\n" + source("precision", record) + "\n"


def change(d: dict) -> str:
    return f"{d['mean_change']:+.4f} ± {d['standard_error']:.4f}"


PRECISION_ROWS = {
    "energy_distance": "energy distance of samples to held-out digits",
    "frechet": "Fréchet distance in a digit classifier's features",
    "energy_gap": "energy of held-out digits less that of samples, nats",
    "auroc_uniform": "AUROC against uniform noise",
}


def fidelity() -> str:
    record = load("fidelity")
    text = "## Fidelity\n\nReal images only: a set against itself, against a disjoint half of the same data, "
    text += "and against that half with Gaussian noise.\n\n"
    for study in record["results"]:
        figures = [key for key in study["rows"][0] if key != "set"]
        rows = [(row["set"], *(f"{row[f]:.4g}" for f in figures)) for row in study["rows"]]
        text += f"{study['data']} in the features of {study['extractor']}, {study['n']} images a side:\n\n"
        text += lines(("second set", *figures), rows) + "\n"
    return text + source("fidelity", record) + "\n"


def ood() -> str:
    record = load("ood")
    text = "## Outliers\n\nAUROC, with its 95 % bootstrap interval; inliers are the test split.\n\n"
    for name, model in record["results"].items():
        kinds = [kind for kind in model["ood"]["energy"] if kind != "mean_auroc"]
        rows = [
            (score, *(f"{found[k]['auroc']:.3f} ({found[k]['auroc_interval'][0]:.3f}–{found[k]['auroc_interval'][1]:.3f})" for k in kinds))
            for score, found in model["ood"].items()
        ]
        text += f"{name}: {model['preset']}, {model['images']:,} images, {model['precision']}, {model['inliers']:,} inliers.\n\n"
        text += lines(("score", *kinds), rows) + "\n"
    return text + source("ood", record) + "\n"


def likelihood() -> str:
    record = load("likelihood")
    rows = [
        (
            r["target"],
            r["transition"],
            str(r["temperatures"]),
            f"{r['low']:+.3f}",
            f"{r['high']:+.3f}",
            f"{r['gap']:.3f}",
            f"{r['ess']:.2f}",
        )
        for r in record["results"]["rows"]
    ]
    text = "## Likelihood\n\nBounds of log Z on targets whose log Z is known, as deviations from it in nats.\n\n"
    head = ("target", "transition", "temperatures", "lower", "upper", "gap", "effective share")
    return text + lines(head, rows) + "\n" + source("likelihood", record) + "\n"


def streaming() -> str:
    record = load("streaming")
    rows = [
        (r["extractor"], f"{r['images']:,}", f"{r['beyond_extractor_mib']:.0f} MiB", f"{r['all_images_mib']:.0f} MiB")
        for r in record["results"]["runs"]
    ]
    text = "## Streaming\n\nPeak memory beyond the extractor's own while the statistics of a stream of images are made, "
    text += "and what the images would take.\n\n"
    return text + lines(("extractor", "images", "peak", "all images at once"), rows) + "\n" + source("streaming", record) + "\n"


def study_cdrl() -> str:
    record = load("study_cdrl")
    r = record["results"]

    def cell(line: dict, key: str, form: str = ".1f") -> str:
        return "–" if line[key] is None else format(line[key], form)

    rows = [
        (l["row"], cell(l, "paper_fid", ".2f"), cell(l, "frechet"), signed(l["difference"], l["standard_error"]),
         f"{l['images']:,.0f}", str(l["failed"]), l["holds"] or "–")
        for l in r["summary"]
    ]  # fmt: skip
    text = (
        f"## Ablation of CDRL\n\nDigits, {r['budget_cpu_seconds']:.0f} CPU seconds a row and seed, {r['seeds']} seeds. The Fréchet distance"
        f" is in the features of the digits' classifier (floor {r['floor']:.2f}), the difference is from the full model at the same seed "
        "with its standard error over seeds. Every row of the paper is worse than its full model; *holds* says whether this is.\n\n"
    )
    head = ("row", "paper, FID on CIFAR-10", "Fréchet distance", "difference", "images", "failed", "holds")
    text += lines(head, rows) + "\nFewer steps a level, and parts, of the full models:\n\n"
    rows = [(name, f"{v['frechet']:.1f}", f"{v['ratio']:.2f}", f"{v['time']:.2f}") for name, v in r["sampling"].items()]
    text += lines(("samples by", "Fréchet distance", "ratio to 15 steps", "CPU time, ratio to 15 steps"), rows)
    return text + "\n" + source("study_cdrl", record) + "\n"


def pm(value: dict, form: str = ".2f") -> str:
    return f"{value['mean']:{form}} ± {value['standard_error']:{form}}"


def cdrl() -> str:
    """The parts of studies/cdrl.py, each of its own file."""
    text = "## CDRL\n\n± is the standard error over draws of one trained model, unless said otherwise.\n\n"
    if (RESULTS / "cdrl_toys.json").exists():
        record = load("cdrl_toys")
        rows = [
            (r["toy"], str(r["seed"]), f"{r['density']['kl_truth_model']:.3f}", f"{r['density']['total_variation']:.3f}",
             str(r["density"]["modes_missing"]), f"{r['energy_distance']['value']:.4f}", f"{r['cpu_seconds']:.0f}")
            for r in record["results"]["runs"]
        ]  # fmt: skip
        head = ("toy", "seed", "KL(truth‖model), nats", "total variation", "modes missing", "energy distance", "CPU seconds")
        text += (
            "Densities at the lowest level:\n\n"
            + lines(head, rows)
            + "\n"
            + source("cdrl_toys", record)
            + "\n\n![Checkerboard: the truth, the three levels, samples](images/cdrl_checkerboard.png)\n\n"
        )
    if (RESULTS / "cdrl_digits.json").exists():
        record = load("cdrl_digits")
        r = record["results"]
        rows = [
            (name, pm(r[name]["frechet"]), f"{r[name]['ratio']:.2f}", f"{r[name]['cpu_seconds']:.2f}")
            for name in ("15 steps", "8 steps", "5 steps", "3 steps", "initializer only", "energy only")
        ]
        text += f"Unconditional digits, {r['training']['images']:,} images, {r['training']['seconds']:.0f} s:\n\n"
        text += lines(("samples by", "Fréchet distance", "ratio to the floor", "CPU seconds of 359"), rows) + "\n"
        auroc = ", ".join(f"{kind} {v['auroc']:.3f}" for kind, v in r["auroc"].items())
        text += (
            f"AUROC of the lowest level's energy: {auroc}.\n\n"
            + source("cdrl_digits", record)
            + "\n\n![Unconditional samples](images/cdrl_digits_15_steps.png)\n\n"
        )
    if (RESULTS / "cdrl_conditional.json").exists():
        record = load("cdrl_conditional")
        r = record["results"]
        rows = [
            (GUIDED[c["guide"]], f"{c['w']:g}",
             f"{100 * c['accuracy']['mean']:.1f} ± {100 * c['accuracy']['standard_error']:.1f} %", pm(c["frechet"]),
             pm(c["within_class_distance"]), pm(c["precision"]), pm(c["recall"]))
            for c in r["curve"]
        ]  # fmt: skip
        text += f"Digits by label; the judge's test accuracy is {100 * r['extractor_accuracy']:.1f} %, the distance within a class of real "
        text += f"test digits {r['real_within_class_distance']:.2f}:\n\n"
        text += lines(("guided", "w", "class accuracy", "Fréchet distance", "distance within a class", "precision", "recall"), rows)
        text += (
            "\n" + source("cdrl_conditional", record) + "\n\n![Samples by label at w = 0.5, a class a row](images/cdrl_digits_w0.5.png)\n\n"
        )
    if (RESULTS / "cdrl_composition.json").exists():
        record = load("cdrl_composition")
        for name, r in record["results"].items():
            rows = [
                (GUIDED[x["guide"]], f"{x['w']:g}", " × ".join(x["concepts"]), x["pairs"],
                 str(x["resample"]), str(x["n"]), f"{100 * x['joint']:.1f} %",
                 ", ".join(f"{k} {100 * x[k]:.1f} %" for k in x["concepts"]))
                for x in r["rows"]
            ]  # fmt: skip
            judges = ", ".join(f"{k} {100 * v:.1f} %" for k, v in r["judge_accuracy"].items())
            text += f"Composition, {name}; the judges' accuracy on real images: {judges}:\n\n"
            text += lines(("guided", "w", "concepts", "pairs", "draws a level", "n", "all right", "each right"), rows) + "\n"
            negated = r["not"]
            shares = f"{percent(negated['asked_share'])} have the first, {percent(negated['denied_share'])} have the second"
            text += f"Asked for one {negated['asked']} and *not* for one {negated['denied']}: {shares}.\n\n"
        text += source("cdrl_composition", record) + "\n\n"
        text += "![Pairs never seen in training](images/cdrl_paired-digits_left_right.png)\n\n"
        text += "![Pairs never seen in training](images/cdrl_inked-digits_digit_colour.png)\n\n"
    if (RESULTS / "cdrl_inpainting.json").exists():
        record = load("cdrl_inpainting")
        kinds = ("one completion", f"mean of {record['results']['completions']}", "mean fill", "nearest fill")
        rows = [
            (x["mask"], *(f"{x[k]['psnr_hidden']:.2f}" for k in kinds), f"{x['diversity']:.2f}", "yes" if x["known_pixels_equal"] else "no")
            for x in record["results"]["rows"]
        ]
        text += f"Inpainting {record['results']['n']} held-out digits, PSNR over the missing pixels in dB:\n\n"
        text += (
            lines(("missing", *kinds, "deviation over completions", "known pixels bit-equal"), rows)
            + "\n"
            + source("cdrl_inpainting", record)
            + "\n\n"
        )
    if (RESULTS / "cdrl_latent.json").exists():
        record = load("cdrl_latent")
        r = record["results"]
        rows = [(name, pm(r[key]["frechet"]), f"{r[key]['ratio']:.2f}") for name, key in LATENT_ROWS.items()]
        text += f"Fashion-MNIST in the latents of a small autoencoder (PSNR {r['reconstruction_psnr']['value']:.1f} dB):\n\n"
        text += lines(("images", "Fréchet distance", "ratio to the floor"), rows) + "\n" + source("cdrl_latent", record) + "\n"
    return text.rstrip() + "\n"


GUIDED = {"both": "energies and proposals", "initializer": "proposals"}
LATENT_ROWS = {
    "CDRL in the latents, decoded": "samples", "decoded N(0, I)": "gaussian_prior", "reconstructions of test images": "reconstructions",
}  # fmt: skip


def egc() -> str:
    """The parts of studies/egc.py, each of its own file."""
    text = "## EGC\n"
    for data in ("digits", "fashion-mnist", "emoji-google"):
        tail = "" if data == "digits" else f"_{data}"
        if (RESULTS / f"egc_classifiers{tail}.json").exists():
            text += "\n" + egc_classifiers(f"egc_classifiers{tail}", data)
        if (RESULTS / f"egc_trade{tail}.json").exists():
            text += "\n" + egc_trade(f"egc_trade{tail}", data)
        if (RESULTS / f"egc_ablation{tail}.json").exists():
            text += "\n" + egc_ablation(f"egc_ablation{tail}", data)
        if (RESULTS / f"egc_cost{tail}.json").exists():
            record = load(f"egc_cost{tail}")
            r = record["results"]
            rows = [(name, f"{1000 * value:.0f}") for name, value in r["seconds_a_step"].items()]
            ratios = "; ".join(f"{name} {value:.2f}" for name, value in r["ratios"].items())
            text += f"\nA step on {data}, batches of {r['batch']} in {r['precision']}, medians of {r['rounds']} rounds in turn:\n\n"
            text += lines(("step", "CPU ms"), rows) + f"\nMedian ratios: {ratios}.\n\n" + source(f"egc_cost{tail}", record) + "\n"
    if (RESULTS / "egc_figures.json").exists():
        record = load("egc_figures")
        r = record["results"]
        rows = [
            (f"{g['w']:g}", "" if g["class_accuracy"] is None else f"{100 * g['class_accuracy']:.1f} %", f"{g['std_within_class']:.3f}",
             f"{100 * g['saturated']:.1f} %")
            for g in r["guidance"]
        ]  # fmt: skip
        text += f"\nGuidance, {r['data']}:\n\n" + lines(("w", "class accuracy", "deviation within a class", "pixels at ±1"), rows)
        text += "\n" + source("egc_figures", record) + "\n\n![Class 3 over guidance scales](images/egc_guidance_3.png)\n\n"
        text += "![Energy along the noise](images/egc_energy_along_noise.png)\n\n"
        text += "![Interpolation between two images, in x_T and in x_0](images/egc_interpolation.png)\n\n"
        i, v = r["interpolation"], r["inversion_rmse"]
        text += f"Interpolation of {i['pairs']} pairs of test images of different classes: in the middle third of the way the classifier's "
        text += f"confidence is {i['confidence_x_T']:.3f} in x_T and {i['confidence_x_0']:.3f} in x_0 (difference {i['difference']:+.3f} ± "
        text += f"{i['standard_error']:.3f}), of the images {i['confidence_of_images']:.3f}. Of {v['images']} images inverted and sampled "
        text += f"again the root mean square error is {v['median']:.4f} in the median and {v['highest']:.3f} at most.\n\n"
        rows = [(str(x["steps"]), f"{x['frechet']:.1f}", f"{x['rmse_to_all_steps']:.3f}") for x in r["few_steps"]]
        text += f"DDIM in few steps, {r['few_steps'][0]['n']} samples; the floor is {r['few_steps'][0]['floor']:.1f}:\n\n"
        text += lines(("steps", "Fréchet distance", "root mean square distance from the same samples in all steps"), rows)
        text += "\n![From the same noises in 5, 10, 20, 50 and all steps](images/egc_few_steps.png)\n"
    return text


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def signed(value: float | None, error: float | None) -> str:
    """A paired difference and its standard error; the second needs two seeds."""
    if value is None:
        return "–"
    return f"{value:+.1f}" + ("" if error is None else f" ± {error:.1f}")


def less(line: dict, name: str, scale: float = 1.0) -> str:
    """The paired difference of a line in one quantity."""
    value, error = line[f"{name} difference"], line[f"{name} standard_error"]
    return signed(*(None if x is None else scale * x for x in (value, error)))


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


EGC_GUIDED = tuple(head for w in (1, 2, 6) for head in (f"w = {w}", "class accuracy"))


def egc_guided(x: dict) -> tuple[str, ...]:
    """The columns `EGC_GUIDED`: distances of samples by label, and how many are of the class that was asked for."""
    # results of before several scales were sampled are at the preset's, 2; JEM has none, which is 1
    w = 1 if x["row"] == "jem" else 2
    at = {f"frechet w={w}": x.get("frechet_guided"), f"class_accuracy w={w}": x.get("class_accuracy"), **x}
    shown = (("frechet", number), ("class_accuracy", percent))
    return tuple(show(at.get(f"{key} w={w}")) for w in (1, 2, 6) for key, show in shown)


def egc_trade(name: str, data: str) -> str:
    record = load(name)
    r = record["results"]
    rows = [
        (x["row"], str(x["seeds"]), percent(x["accuracy"]), less(x, "accuracy", 100),
         number(x["frechet"]), less(x, "frechet"), *egc_guided(x))
        for x in r["summary"] if x["seeds"]
    ]  # fmt: skip
    floor = next(x["free"]["floor"] for x in r["runs"] if x["free"])
    text = f"Accuracy against samples over γ and label dropping, passes apart, {data}, {r['images']:,} images; floor {floor:.1f}:\n\n"
    head = ("model", "seeds", "test accuracy", "less the classifier's, points", "Fréchet distance", "less unsupervised EGC's", *EGC_GUIDED)
    return text + lines(head, rows) + "\n" + source(name, record) + "\n"


def egc_classifiers(name: str, data: str) -> str:
    record = load(name)
    r = record["results"]
    rows = [
        (x["row"], str(x["seeds"]), percent(x["accuracy"]), less(x, "accuracy", 100), "–" if x["ece"] is None else f"{x['ece']:.3f}",
         number(x["frechet"]), less(x, "frechet"), *egc_guided(x))
        for x in r["summary"] if x["seeds"]
    ]  # fmt: skip
    images = {x["row"]: x["images"] for x in r["runs"] if x.get("images")}
    fewer = "".join(f", {row} {n:,}" for row, n in images.items() if n < 0.95 * r["images"])
    floor = next(x["free"]["floor"] for x in r["runs"] if x["free"])
    text = f"Beside other classifiers, {data}, {r['images']:,} images{fewer}; the floor of the Fréchet distance is {floor:.1f}:\n\n"
    head = ("model", "seeds", "test accuracy", "less the classifier's, points", "calibration error", "Fréchet distance",
            "less unsupervised EGC's", *EGC_GUIDED)  # fmt: skip
    text += lines(head, rows) + f"\nAccuracy under {r['attack']}, {r['examples']} images, {r['restarts']} restarts, means over seeds:\n\n"
    # radii at which every model is broken wholly say nothing
    kept = [i for i, _ in enumerate(r["epsilons"]) if any(x["pgd"] and x["pgd"][i] for x in r["summary"])]
    rows = [
        (x["row"], *(percent(x["pgd"][i]) for i in kept), f"{sum(x['checks'])} of {len(x['checks'])}",
         f"{sum(map(bool, x['above']))} of {len(x['above'])}" if x["above"] else "–")
        for x in r["summary"] if x["pgd"]
    ]  # fmt: skip
    radii = (f"ε = {round(255 * r['epsilons'][i])}/255" for i in kept)
    text += lines(("model", *radii, "gradient checks passed", "above the classifier at every ε"), rows) + "\n" + source(name, record)
    text += f"\n\n![Robustness](images/egc_robustness_{data}.png)\n"
    for row in (x["row"] for x in r["summary"]):
        name = file_of("egc_samples", data, row)
        if (ROOT / "docs" / "images" / name).exists():
            text += f"\n![Samples, {row}; with labels a row for each class, w = 2](images/{name})\n"
    return text


def egc_ablation(name: str, data: str) -> str:
    record = load(name)
    r = record["results"]
    rows = [
        (x["row"], str(x["seeds"]), "–" if x["paper_fid"] is None else f"{x['paper_fid']:.2f}",
         "–" if x["paper_fid_guided"] is None else f"{x['paper_fid_guided']:.2f}", number(x["frechet"]),
         signed(x["difference"], x["standard_error"]),
         *(number(x[f"frechet w={w}"]) for w in (1, 2)), percent(x["class_accuracy w=2"]), percent(x["accuracy"]))
        for x in r["summary"]
    ]  # fmt: skip
    bound = f", at most {r['seconds']:.0f} CPU seconds" if r["seconds"] else ""
    text = f"Table 5 and our own options, {data}, {r['images']:,} images a row{bound}:\n\n"
    head = ("row", "seeds", "paper's FID", "guided", "Fréchet distance", "above the full model's", "w = 1", "w = 2",
            "class accuracy, w = 2", "test accuracy")  # fmt: skip
    return text + lines(head, rows) + "\n" + source(name, record) + "\n"


def coopflow() -> str:
    """The parts of studies/coopflow.py, each of its own file."""
    text = "## CoopFlow\n"
    if (RESULTS / "coopflow_spiral.json").exists():
        record = load("coopflow_spiral")
        rows = [
            (
                x["row"],
                str(x["models"]),
                *(f"{x[key]:.3f}" for key in ("samples_tv", "flow_tv", "floor", "energy_kl", "energy_tv", "flow_kl")),
            )
            for x in record["results"]["summary"]
        ]
        head = ("chain", "models", "total variation of samples", "of the flow's", "floor", "KL(truth‖energy)", "its total variation",
                "KL(truth‖flow)")  # fmt: skip
        text += "\nThe spiral, samples by histogram, densities on a grid, in nats; of the flow alone the energy is the flow's own:\n\n"
        text += lines(head, rows) + "\n" + source("coopflow_spiral", record) + "\n"
        pictures = ("flow alone", "flowalone"), ("T = 100", "t100"), ("T = 500", "t500"), ("T = 10,000", "t10000")
        text += "".join(f"\n![The spiral, {name}](images/coopflow_spiral_{file}.png)\n" for name, file in pictures)
    for part, title in (("images", "The flows apart and together"), ("chains", "Lengths, steps and noise of the chain")):
        for data in ("digits", "fashion-mnist"):
            name = f"coopflow_{part}" + ("" if data == "digits" else f"_{data}")
            if (RESULTS / f"{name}.json").exists():
                text += "\n" + coopflow_images(name, title, data)
    if (RESULTS / "coopflow_tasks.json").exists():
        text += "\n" + coopflow_tasks()
    if (RESULTS / "coopflow_flows.json").exists():
        record = load("coopflow_flows")
        rows = [
            (x["row"], f"{x['parameters']:,.0f}", f"{x['updates']:.0f}", f"{x['bits_per_dim']:.3f}", f"{x['frechet']:.1f}",
             f"{x['sample_cpu_seconds']:.2f}")
            for x in record["results"]["summary"]
        ]  # fmt: skip
        head = ("flow", "parameters", "updates", "bits per dimension", "Fréchet distance", "CPU seconds a set of samples")
        text += f"\nFlows of digits alone, {record['results']['seconds']:.0f} CPU seconds each, {record['results']['seeds']} seeds:\n\n"
        text += lines(head, rows) + "\n" + source("coopflow_flows", record) + "\n"
    return text


def coopflow_images(name: str, title: str, data: str) -> str:
    record = load(name)
    r = record["results"]

    def own(value: float | None, form: str) -> str:
        return "–" if value is None else format(value, form)

    def trained_step(row: str) -> float | None:
        values = [y["frechet_trained_step"] for y in r["runs"] if y["row"] == row and "frechet_trained_step" in y]
        return sum(values) / len(values) if values else None

    rows = [
        (x["row"], str(len([y for y in r["runs"] if y["row"] == x["row"]])), own(x["frechet"], ".1f"),
         signed(x["above_coopflow"], x["standard_error"]),
         own(trained_step(x["row"]), ".1f"), own(x["frechet_initializer"], ".1f"), own(x["reconstruction_mse"], ".4f"),
         own(x["bits_per_dim"], ".3f"), own(x["cpu_seconds"], ".0f"))
        for x in r["summary"]
    ]  # fmt: skip
    head = ("model", "seeds", "Fréchet distance", "less CoopFlow's", "with the step of training", "of where chains start",
            "reconstruction error", "bits per dimension", "CPU s")  # fmt: skip
    size = "" if r["size"] is None else f" at {r['size']}×{r['size']}"
    text = f"{title}, {data}{size}, {r['images']:,} images a model; the floor of the Fréchet distance is {r['floor']:.1f}:\n\n"
    text += lines(head, rows) + "\n" + source(name, record) + "\n"
    if "images" in name:
        text += f"\n![Samples of CoopFlow](images/coopflow_{data}_coopflow.png)\n"
    return text


def coopflow_tasks() -> str:
    record = load("coopflow_tasks")
    r = record["results"]
    rows = [
        (x["mask"], x["how"], "yes" if x["known_equal"] else "no", f"{x['diversity']:.3f}", f"{x['psnr_hidden']:.1f}",
         f"{r['nearest_fill_psnr'][x['mask']]:.1f}", percent(x["class_kept"]))
        for x in r["inpainting"]
    ]  # fmt: skip
    head = ("missing", "by", "known pixels equal", "diversity", "PSNR of a completion, dB", "of the nearest training image", "class kept")
    b, i = r["reconstruction"], r["interpolation"]
    text = f"Tasks on {r['n']} test images of {r['data']}, inpainting on {r['completed']} of them. Reconstruction: mean squared error "
    text += f"{b['mse']:.5f}, class kept in "
    text += (
        f"{percent(b['class_kept'])}. Interpolation between {i['pairs']} pairs of images: the first class's probability does not rise in "
    )
    text += (
        f"{percent(i['first_class_falls'])} of steps, the second's does not fall in {percent(i['second_class_rises'])}; the classifier's "
    )
    text += f"confidence in the middle is {i['confidence_in_the_middle']:.3f}, on mixed pixels {i['confidence_of_mixed_pixels']:.3f}.\n\n"
    text += lines(head, rows) + "\n" + source("coopflow_tasks", record) + "\n"
    for name in ("reconstruction", "lower_half_search", "interpolation"):
        text += f"\n![{name.replace('_', ' ').capitalize()}](images/coopflow_{r['data']}_{name}.png)\n"
    return text


def cf_ebm() -> str:
    """The parts of studies/cf_ebm.py, each of its own file."""
    text = "## CF-EBM\n"
    for data in ("digits", "fashion-mnist", "emoji"):
        tail = "" if data == "digits" else f"_{data}"
        if (RESULTS / f"cf_ebm_ablation{tail}.json").exists():
            text += "\n" + cf_ebm_ablation(f"cf_ebm_ablation{tail}", data)
        if (RESULTS / f"cf_ebm_others{tail}.json").exists():
            text += "\n" + cf_ebm_others(f"cf_ebm_others{tail}", data)
        if (RESULTS / f"cf_ebm_denoising{tail}.json").exists():
            text += "\n" + cf_ebm_denoising(f"cf_ebm_denoising{tail}", data)
        if (RESULTS / f"cf_ebm_denoiser{tail}.json").exists():
            text += "\n" + cf_ebm_denoiser(f"cf_ebm_denoiser{tail}", data)
        if (RESULTS / f"cf_ebm_translation{tail}.json").exists():
            text += "\n" + cf_ebm_translation(f"cf_ebm_translation{tail}", data)
    return text


def cf_ebm_others(name: str, data: str) -> str:
    record = load(name)
    return cf_ebm_rows(record["results"], data) + "\n" + source(name, record) + "\n"


def cf_ebm_rows(r: dict, data: str) -> str:
    rows = [
        (x["row"], str(x["seeds"]), str(x["diverged"]), str(x["repairs"]), number(x["frechet"]),
         signed(x["above_full"], x["standard_error"]),
         number(x["highest_energy"]))
        for x in r["summary"]
    ]  # fmt: skip
    head = ("model", "seeds", "diverged", "repairs by the guard", "Fréchet distance", "less the full model's", "highest energy")
    floor = "" if r["floor"] is None else f"; the floor of the Fréchet distance is {r['floor']:.1f}"
    size = "" if r["size"] is None else f" at {r['size']}×{r['size']}"
    return f"Parts of CF-EBM, {data}{size}, {r['seconds']:.0f} CPU seconds a model{floor}:\n\n" + lines(head, rows)


def cf_ebm_ablation(name: str, data: str) -> str:
    record = load(name)
    r = record["results"]
    text = cf_ebm_rows(r, data)
    full = [x for x in r["runs"] if x["row"] == "coarse to fine"]
    fewer = "" if data == "digits" else "; of 500 samples, the last of 1,000, which is a little smaller for that alone"
    text += f"\nThe distance along the training, mean over seeds{fewer}:\n\n"
    names = list(dict.fromkeys(x["row"] for x in r["runs"]))
    parts = range(len(full[0]["along"]))
    along = {name: [x["along"] for x in r["runs"] if x["row"] == name and len(x["along"]) == len(parts)] for name in names}
    rows = [
        (name, *(f"{number(mean(a[i]['frechet'] for a in every))} ({mean(a[i]['images'] for a in every):,.0f})" for i in parts))
        for name, every in along.items()
        if every
    ]
    head = ("model", *(f"after {full[0]['along'][i]['cpu_seconds']:.0f} s (images)" for i in parts))
    text += lines(head, rows) + "\n" + source(name, record) + "\n"
    pictures = {
        "coarsetofine": "Samples", "fromscratch": "Samples of the model from scratch", "chain": "Chains from noise",
        "neighbours": "Samples and the training images nearest to them", "noise": "Samples with more noise in the chain",
    }  # fmt: skip
    for picture, title in pictures.items():
        path = f"images/cf_ebm_{data}_{picture}.png"
        if (ROOT / "docs" / path).exists():
            text += f"\n![{title}]({path})\n"
    return text


def cf_ebm_denoising(name: str, data: str) -> str:
    record = load(name)
    r = record["results"]
    rows = [
        (x["row"], x["std"], str(x["seeds"]), f"{x['psnr_noisy']:.1f}", f"{x['within']:+.1f}", f"{x['whole']:+.1f}") for x in r["summary"]
    ]
    head = ("model", "σ", "seeds", "PSNR of noisy images, dB", "gained within the noise's reach", "gained by the whole chain")
    text = f"Denoising, {data}, {r['runs'][0]['n']} test images:\n\n" + lines(head, rows) + "\n" + source(name, record)
    return text + f"\n\n![Denoising](images/cf_ebm_{data}_denoising_coarsetofine.png)\n"


def cf_ebm_denoiser(name: str, data: str) -> str:
    record = load(name)
    r = record["results"]
    gains = ("clamped gains", "linear gains", "denoised gains")
    rows = [(x["row"], x["std"], str(x["seeds"]), f"{x['psnr_noisy']:.1f}", *(f"{x[key]:+.1f}" for key in gains)) for x in r["summary"]]
    head = ("model", "σ", "seeds", "PSNR of noisy images, dB", "gained by clamping", "by the best linear filter", "by the chain")
    text = f"Chains that start at images with noise of σ = 0.2 in training, {data}, {r['runs'][0]['n']:,} test images:\n\n"
    text += lines(head, rows) + "\n" + source(name, record)
    return text + f"\n\n![Denoising](images/cf_ebm_{data}_denoiser.png)\n"


def cf_ebm_translation(name: str, data: str) -> str:
    record = load(name)
    r = record["results"]
    rows = [
        (f"{x['source'].split(':')[-1]} → {x['target'].split(':')[-1]}", str(x["seed"]), percent(x["target_share_before"]),
         percent(x["target_share"]), *(f"{value:.1f}" for value in (x["kid_before"]["value"], x["kid"]["value"], x["kid"]["floor"])),
         f"{x['distance_kept']:.1f}", f"{x['distance_random']:.1f}", f"{x['distance_difference']:+.2f} ± {x['standard_error']:.2f}",
         f"{x['saliency_on_object'] / x['saliency_on_background']:.1f}")
        for x in r["runs"]
    ]  # fmt: skip
    head = ("direction", "seed", "taken for the target before", "after", "kernel distance before", "after", "of real images of the target",
            "feature distance to the source", "of random target images", "difference",
            "saliency on the object, over the background's")  # fmt: skip
    size = "" if r["size"] is None else f" at {r['size']}×{r['size']}"
    text = f"Translation, {data}{size}, {r['images']:,} images a model, {r['runs'][0]['n']:,} test images:\n\n"
    text += lines(head, rows) + "\n"
    if "psnr_of_pair" in r["runs"][0]:
        before, after = (mean(x[key] for x in r["runs"]) for key in ("psnr_of_pair_before", "psnr_of_pair"))
        text += f"To the same emoji in the other style the peak signal to noise is {before:.1f} dB before and {after:.1f} dB after.\n\n"
    text += source(name, record) + "\n"
    for way in ("forth", "back"):
        x = next(x for x in r["runs"] if x["row"] == way)
        text += f"\n![From {x['source']} to {x['target']}: the chain, and the saliency](images/cf_ebm_{data}_{way}.png)\n"
    return text


def liebm() -> str:
    """The parts of studies/liebm.py, each of its own file."""
    text = "## LIEBM\n"
    for data in ("digits", "fashion-mnist", "emoji-google"):
        tail = "" if data == "digits" else f"_{data}"
        parts = (("encoders", liebm_encoders), ("ablation", liebm_ablation), ("sweep", liebm_ablation), ("restoration", liebm_restoration))
        for part, section in parts:
            if (RESULTS / f"liebm_{part}{tail}.json").exists():
                text += "\n" + section(f"liebm_{part}{tail}", data)
    return text


def liebm_encoders(name: str, data: str) -> str:
    record = load(name)
    r = record["results"]
    rows = [(x["row"], str(x["seeds"]), percent(x["linear_probe"]), percent(x["knn"]), f"{x['spread']:.2f}") for x in r["summary"]]
    head = ("encoder", "seeds", "linear probe", "nearest neighbours", "spread of latents, 1 where even")
    size = "" if r["size"] is None else f" at {r['size']}×{r['size']}"
    text = f"Encoders without labels, {data}{size}, {r['encoder_images']:,} images each, test accuracy:\n\n"
    text += lines(head, rows) + "\n" + source(name, record) + "\n"
    for path in sorted((ROOT / "docs" / "images").glob(f"liebm_{data}_tsne_*.png")):
        text += f"\n![Latents of held-out images by t-SNE, {path.stem.rpartition('_')[2]}](images/{path.name})\n"
    return text


def liebm_ablation(name: str, data: str) -> str:
    record = load(name)
    r = record["results"]
    rows = [
        (x["row"], str(x["seeds"]), str(x["diverged"]), number(x["frechet"]),
         signed(x["above_full"], x["standard_error"]),
         number(x["generator"]), *("–" if x[key] is None else f"{x[key]:.3f}" for key in ("auroc_energy", "auroc_joint")),
         "–" if x["label_accuracy"] is None else percent(x["label_accuracy"]),
         "–" if x["reconstruction"] is None else f"{x['reconstruction']:.3f}")
        for x in r["summary"]
    ]  # fmt: skip
    base = r["summary"][0]["row"]
    head = ("model", "seeds", "diverged", "Fréchet distance", f"less that of “{base}”", "of the generator alone", "AUROC, energy",
            "AUROC, joint score", "samples of the label asked for", "reconstruction, squared error")  # fmt: skip
    size = "" if r["size"] is None else f" at {r['size']}×{r['size']}"
    what = "One setting changed at a time" if "sweep" in name else "Parts of LIEBM"
    text = f"{what}, {data}{size}, {r['seconds']:.0f} CPU seconds a model; the floor of the distance is {r['floor']:.1f}:\n\n"
    text += lines(head, rows)
    known = [x for x in r["runs"] if "by_steps" in x]
    if known:
        text += "\nFréchet distance by Langevin steps after the generator, mean over seeds:\n\n"
        steps = list(known[0]["by_steps"])
        names = list(dict.fromkeys(x["row"] for x in known))
        rows = [(row, *(number(mean(x["by_steps"][n] for x in known if x["row"] == row)) for n in steps)) for row in names]
        text += lines(("model", *steps), rows)
    text += "\n" + source(name, record) + "\n"
    return text + (f"\n![Samples](images/liebm_{data}_{''.join(a for a in base if a.isalnum())}.png)\n" if known else "")


def liebm_restoration(name: str, data: str) -> str:
    record = load(name)
    r = record["results"]
    keys = ("psnr_pseudo_inverse", "psnr_start", "psnr_refined", "psnr_restored")
    rows = [(x["row"], str(x["seeds"]), *(f"{x[key]:.1f}" for key in keys)) for x in r["summary"]]
    head = ("measured", "seeds", "A⁺y, dB", "G(m⁰)", "G(m)", "G(m) + Y")
    text = f"Restoration without pairs, {data}, ERM, {r['runs'][0]['n']} test images, PSNR:\n\n"
    text += lines(head, rows) + "\n" + source(name, record) + "\n"
    for picture in ("pool2", "grey"):
        if (ROOT / "docs" / "images" / f"liebm_{data}_{picture}.png").exists():
            text += f"\n![Restoration, {picture}](images/liebm_{data}_{picture}.png)\n"
    return text


def nerf_lebm() -> str:
    """The parts of studies/nerf_lebm.py, each of its own file."""
    head = {
        "two_shot_encoder": "new views from two, dB, by the encoder", "two_shot_chain": "after chains", "given_chain": "the two given",
        "hidden": "hidden pixels, dB", "frechet": "Fréchet distance", "colour_by_appearance": "share of colour by z^a",
        "silhouette_by_shape": "share of silhouette by z^s", "azimuth": "azimuth", "azimuth_twofold": "azimuth twofold",
        "azimuth_by_chance": "azimuth by chance", "altitude": "altitude, correlation",
    }  # fmt: skip
    titles = {
        "priors": "Objects from known cameras", "incomplete": "Learned from images of which a quarter is missing",
        "unposed": "Cameras inferred, objects on their axes; 1 would be every azimuth right up to one rotation and mirror",
    }  # fmt: skip
    pictures = {
        "priors": {"views": "Two images given, the same and four others from the model, the true ones", "recombined": "Colours and shapes",
                   "samples": "Samples"},
        "incomplete": {"": "Visible pixels, completed, whole"},
        "unposed": {"samples": "Samples", "turn": "Turned", "recombined": "Colours and shapes"},
    }  # fmt: skip
    text = "## NeRF-LEBM\n"
    for part, title in titles.items():
        if not (RESULTS / f"nerf_lebm_{part}.json").exists():
            continue
        record = load(f"nerf_lebm_{part}")
        r = record["results"]
        keys = [key for key in head if any(x.get(key) is not None for x in r["summary"])]
        rows = [
            (x["row"], str(x["seeds"]), str(x["diverged"]), f"{x['images'] or 0:,.0f}", f"{x['cpu_seconds'] or 0:.0f}",
             *("–" if x.get(key) is None else f"{x[key]:.1f}" if key in ("frechet", "hidden") or "two" in key[:3] or "given" in key
               else f"{x[key]:.2f}" for key in keys))
            for x in r["summary"]
        ]  # fmt: skip
        of = "" if part == "unposed" else f", {r['objects']} held-out objects"
        known = f"{title}{of}; the mean training image has {r['mean_view']:.1f} dB, as many held-out images"
        text += f"\n{known} a Fréchet distance of {r['frechet_floor']:.0f} (EfficientNet-Lite0, {r['samples']} samples):\n\n"
        text += lines(("model", "seeds", "diverged", "images", "CPU seconds", *(head[key] for key in keys)), rows)
        text += "\n" + source(f"nerf_lebm_{part}", record) + "\n"
        for x in r["summary"]:
            for kind, what in pictures[part].items():
                words = "_".join("".join(a for a in word.lower() if a.isalnum()) for word in (x["row"], kind) if word)
                path = f"images/nerf_lebm_{'' if part == 'priors' else part + '_'}{words}.png"
                if (ROOT / "docs" / path).exists():
                    text += f"\n![{x['row']}: {what}]({path})\n"
    if (RESULTS / "nerf_lebm_cost.json").exists():
        record = load("nerf_lebm_cost")
        r = record["results"]
        rows = [
            (x["preset"], str(x["batch"]), str(x["rounds"]),
             f"{1000 * x['seconds_a_step']:.0f}", f"{1000 * x['seconds_an_image']:.1f}", percent(x["prior_chains"]),
             f"{1000 * x['rendering_an_image']:.0f}")
            for x in r["steps"]
        ]  # fmt: skip
        text += f"\nCPU milliseconds, {r['precision']}, one thread, medians of rounds:\n\n"
        text += lines(("preset", "batch", "rounds", "a step", "an image of training", "share of prior chains", "rendering a sample"), rows)
        rows = [(f"{x['chunk']:,}", f"{x['gib']:.2f}") for x in r["memory"]]
        text += "\nMemory of a step on one image of 128×128, 64 samples on every ray, by samples held at once:\n\n"
        text += lines(("samples at once", "GiB"), rows) + "\n" + source("nerf_lebm_cost", record) + "\n"
    return text


def ddaebm() -> str:
    """The parts of studies/ddaebm.py, each of its own file."""
    titles = {
        "toys": "Samples and exp(−E(·, 0)) of toys against the exact ones", "sweep": "One change of the recipe each, on toys",
        "published": "The same by the paper's recipe",
        "weighted": "K draws of the generator a row in the energy's loss, with importance weights, on toys",
        "bias": "Precisions of the energies of N(0, I) by level and penalty, beside the closed form; without penalty they would be 1",
        "levels": "Denoising steps, Fréchet distance along training", "nice": "Exact log-likelihood of held-out images, one flow",
        "stacked": "Modes of stacked digits", "ood": "AUROC of outliers by E(·, 0)",
    }  # fmt: skip
    text = "## DDAEBM\n"
    for part, title in titles.items():
        for path in sorted(RESULTS.glob(f"ddaebm_{part}*.json")):
            record = load(path.stem)
            r = record["results"]
            paired = any(x.get("difference") is not None for x in r["summary"])
            keys = [key for key in r["summary"][0] if paired or key not in ("less", "difference", "standard_error")]
            rows = [
                tuple(f"{x[key]:.4g}" if isinstance(x[key], float) else "–" if x[key] is None else str(x[key]) for key in keys)
                for x in r["summary"]
            ]
            seeds = f"{r['seeds']} seed{'s' * (r['seeds'] > 1)}"
            text += f"\n{title}; {r['images']:,} images a model, {seeds}:\n\n"
            text += lines(tuple(key.replace("_", " ") for key in keys), rows) + "\n" + source(path.stem, record) + "\n"
        if part == "levels" and (ROOT / "docs" / "images/ddaebm_digits_t4.png").exists():
            text += "\n![samples with four steps](images/ddaebm_digits_t4.png)\n"
        if part == "stacked" and (ROOT / "docs" / "images/ddaebm_stacked-digits_ddaebm.png").exists():
            text += "\n![three digits in red, green and blue](images/ddaebm_stacked-digits_ddaebm.png)\n"
        if part == "nice":
            for what in ("generator", "flow"):
                if (ROOT / "docs" / f"images/ddaebm_fashion-mnist_nice_ddaebm_{what}.png").exists():
                    text += f"\n![samples of the {what}](images/ddaebm_fashion-mnist_nice_ddaebm_{what}.png)\n"
        if part == "weighted":
            for path in sorted((ROOT / "docs" / "images").glob("ddaebm_*_k1*.png")):
                text += f"\n![{path.stem.replace('_', ', ')}: truth, exp(−E), samples](images/{path.name})\n"
        if part == "toys":
            for picture in (
                "25gaussians_ddaebm",
                "25gaussians_kldivergence",
                "25gaussians_drl",
                "pinwheel_ddaebm",
                "pinwheel_drl",
                "swissroll_ddaebm",
            ):
                if (ROOT / "docs" / f"images/ddaebm_{picture}.png").exists():
                    text += f"\n![{picture.replace('_', ', ')}: truth, exp(−E), samples](images/ddaebm_{picture}.png)\n"
    if (RESULTS / "ddaebm_cost.json").exists():
        record = load("ddaebm_cost")
        ways = tuple(record["results"]["training"][0]["plain loop over"])
        rows = [
            (x["preset"], *(f"{1000 * x['seconds_a_step'][name]:.1f}" for name in ("plain loop", *ways)),
             *(f"{x['plain loop over'][name]:.2f}" for name in ways), f"{x['products_share']:.0%}")
            for x in record["results"]["training"]
        ]  # fmt: skip
        head = ("preset", "plain loop, ms a step", *ways, *(f"plain loop over {way}" for way in ways), "plain loop's matrix products")
        text += "\nCPU time of a training step, one thread:\n\n" + lines(head, rows)
        rows = [
            (x["model"], f"{x['parameters']:,}", str(x["network_evaluations"]), f"{x['samples_a_second']:,.0f}")
            for x in record["results"]["sampling"]
        ]
        text += "\nSamples of 25gaussians, networks of equal width:\n\n"
        text += (
            lines(("model", "parameters", "network evaluations", "samples a second"), rows) + "\n" + source("ddaebm_cost", record) + "\n"
        )
    return text


def resume() -> str:
    record = load("resume")
    rows = [
        (name, str(r["kills"]), str(r["during_a_write"]), "yes" if r["bit_equal"] else f"no: {r['first_difference']}")
        for name, r in record["results"].items()
    ]
    head = ("run", "kills", "of them during a write", "ends bit-equal")
    return "## Resume after SIGKILL\n\n" + lines(head, rows) + "\n" + source("resume", record) + "\n"


def startup() -> str:
    record = load("startup")
    rows = [(name, f"{r['median_s']:.2f}") for name, r in record["results"].items()]
    return "## Start-up\n\n" + lines(("command", "median seconds"), rows) + "\n" + source("startup", record) + "\n"


def lines(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return "".join("| " + " | ".join(row) + " |\n" for row in (head, ("---",) * len(head), *rows))


def readme() -> None:
    """Fill the five figures of README's table."""
    m = load("quickstart")["results"]["metrics"]
    frechet = m["fidelity"]["guided samples"]["frechet"]
    values = {
        "test accuracy": f"{100 * m['accuracy']['value']:.1f} %",
        "class accuracy of guided samples": f"{100 * m['fidelity']['class_accuracy']['value']:.1f} %",
        "Fréchet distance of guided samples, in a small classifier's features": f"{frechet['value']:.2f}",
        "the same for real held-out digits (the floor)": f"{frechet['held_out']:.2f}",
        "outlier detection, mean AUROC over five kinds": f"{m['ood']['energy']['mean_auroc']:.3f}",
    }
    path = ROOT / "README.md"
    text = path.read_text()
    for name, value in values.items():
        text = re.sub(rf"^\| {re.escape(name)} *\|.*$", f"| {name} | {value} |", text, flags=re.MULTILINE)
    path.write_text(text)


def main() -> None:
    sections = [
        quickstart,
        density,
        fidelity,
        ood,
        likelihood,
        cdrl,
        study_cdrl,
        egc,
        coopflow,
        cf_ebm,
        ddaebm,
        liebm,
        nerf_lebm,
        speed,
        precision,
        streaming,
        resume,
        startup,
    ]
    found = [section() for section in sections if any(RESULTS.glob(f"{section.__name__}*.json"))]
    head = "# Benchmarks\n\nWritten by `python -m studies.tables` from the files in `studies/results`.\n\n"
    (ROOT / "docs" / "benchmarks.md").write_text(head + "\n".join(found))
    readme()


if __name__ == "__main__":
    main()
