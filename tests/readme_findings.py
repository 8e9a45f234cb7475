"""The README's short list of findings, made from benchmarks/results: each line with the numbers it rests on."""

import csv
import json

import numpy as np

from tests.readme_generation import MEASURED, measured, protocol_means

ELSEWHERE = ("zheng1", "zheng2", "pbc_lilac")


def findings() -> str:
    """One line a finding, with the command whose table it is read from."""
    lines = (_generators(), _leakage(), _sites(), _small(), _marrow(), _sampling(), _embedding())
    return "\n".join(f"- {line}" for line in lines)


def _generators() -> str:
    rows = {key[0]: row for key, row in measured("generators.csv", "method").items()}
    useful = {name: f"{rows[name]['tstr_balanced_accuracy']:.3f}" for name in ("real", "diffusion", "class_gaussian")}
    precise = {name: f"{rows[name]['precision']:.2f}" for name in ("diffusion", "class_gaussian")}
    betrayed = {name: f"{rows[name]['membership_by_distance_auc']:.2f}" for name in ("diffusion", "smote")}
    return (
        "**Synthetic cells train as good a classifier as real ones, and no better** (PBC, balanced accuracy: "
        f"real {useful['real']}, diffusion {useful['diffusion']}, class Gaussian {useful['class_gaussian']}). "
        f"Diffusion cells lie among real ones (precision {precise['diffusion']}; Gaussian "
        f"{precise['class_gaussian']}) without giving their training cells away by distance (AUC "
        f"{betrayed['diffusion']}; SMOTE {betrayed['smote']}). `python -m benchmarks.generators`"
    )


def _leakage() -> str:
    means = protocol_means("macro_f1")
    repeated = float(np.mean(means["bootstrap", "plain", "5000", "contaminated", "mixed"]))
    real = float(np.mean(means["none", "plain", "0", "honest", "real"]))
    honest = float(np.mean(means["diffusion", "plain", "5000", "honest", "real"]))
    return (
        "**A contaminated test set makes any generator look perfect**: one that only repeats cells reaches macro F1 "
        f"{repeated:.3f} where synthetic cells are pooled before folds are drawn; in the honest protocol diffusion has "
        f"{honest:.3f}, real cells alone {real:.3f}. `python -m benchmarks.cytodiff_protocol`"
    )


def _sites() -> str:
    scores: dict[str, dict[str, float]] = {}
    rows = measured("encoders.csv", "experiment", "domain", "encoder", "method")
    for (experiment, domain, encoder, method), row in rows.items():
        if (experiment, method) == ("encoders_across_sites", "logistic_regression"):
            name = "classical features" if encoder == "morphometry" else "an ImageNet network"
            scores.setdefault(name, {})[domain] = row.get("macro_f1", float("nan"))
    parts = [
        f"{name} {found['pbc_main']:.2f} at home and {np.mean([found[site] for site in ELSEWHERE]):.2f} elsewhere"
        for name, found in scores.items()
    ]
    return (
        "**At other sites every classifier loses much**: macro F1 of " + ", ".join(parts) + " (mean of three sites). "
        "`python -m benchmarks.encoders`"
    )


def _small() -> str:
    rows = measured("small_encoder.csv", "experiment", "domain", "encoder", "method")
    names = {"cytolib-small+morphometry": "it", "morphometry": "classical features", "mobilenetv2_100": "MobileNetV2"}

    def told(method: str) -> str:
        found = {key[2].removeprefix("timm:"): row for key, row in rows.items() if key[0::3] == ("pbc", method)}
        return ", ".join(f"{name} {found[encoder]['balanced_accuracy']:.3f}" for encoder, name in names.items())

    return (
        "**The default encoder needs no download** (`cytolib-small+morphometry`; PBC, balanced accuracy): ten labels "
        f"a class, {told('labels_10')}; all labels, {told('logistic_regression')}. `python -m benchmarks.small_encoder`"
    )


def _marrow() -> str:
    rows = measured("bone_marrow.csv", "encoder", "experiment", "method")
    wanted = ("bone_marrow", "logistic_regression")
    scores = {key[0]: row["balanced_accuracy"] for key, row in rows.items() if key[1:] == wanted}
    return (
        f"**Ten stages of bone marrow from 627 cells**: balanced accuracy {max(scores.values()):.2f}, where imaging "
        f"alone, without seeing the cell, has {scores['imaging_alone']:.2f} and chance 0.10. "
        "`python -m benchmarks.bone_marrow`"
    )


def _sampling() -> str:
    speed = json.loads((MEASURED / "sampling.json").read_text(encoding="utf-8"))["speed"]
    ours = speed["cytolib"]["cells/s"]
    loops = [row["cells/s"] for name, row in speed.items() if name != "cytolib"]
    return (
        f"**Sampling is fast**: {ours:,.0f} cells a second on two cores, {ours / max(loops):.1f} to "
        f"{ours / min(loops):.1f} times a plain diffusers loop, the same cells. `python -m benchmarks.sampling`"
    )


def _embedding() -> str:
    row = json.loads((MEASURED / "embedding.json").read_text(encoding="utf-8"))["speed"]["embed"]
    return (
        f"**Embedding keeps {row['x model only']:.0%} of the bare model's speed**, with reading, checking and caching "
        f"({row['cells/s']:.0f} cells a second, MobileNetV2 at 224 px, two cores). `python -m benchmarks.embedding`"
    )


def hostile() -> str:
    """How many hostile inputs were refused, from the table of that suite."""
    return (
        f"- `python -m tests.hostile` gives {len(_rows('hostile.csv'))} hostile or broken inputs to the doors that "
        "users use: pickles, bombs, path escapes, images that lie about their size, formulas in cells, code in "
        "parameters, markup in names. Each is refused in one sentence, or named and left out, and nothing of it is "
        "executed: [what was said](benchmarks/results/hostile.csv)."
    )


def faults() -> str:
    """What the fault suite played, and how it went."""
    rows = _rows("faults.csv")
    kills = [row for row in rows if row["case"].startswith("kill-")]
    passed = sum(row["verdict"] == "passed" for row in rows)
    return (
        f"- `python -m tests.faults` plays {len(rows)} faults against the real chain on few phantoms: {len(kills)} "
        "times kill -9 of the run, of Snakemake, papermill, kernels, workers and trainings at moments that a seed "
        "draws; full and read-only disks; damaged, deleted and swapped files; two runs at once; Ctrl-C; clocks that "
        'jump; lost state. After each, nothing says "done" that is not, and the same command again gives the same '
        f"bytes: {passed} of {len(rows)} passed ([table](benchmarks/results/faults.csv), "
        "on two cores in less than 15 minutes; `--all` adds variations). A part of it is in `make test`."
    )


def _rows(file: str) -> list[dict[str, str]]:
    with open(MEASURED / file, newline="", encoding="utf-8") as table:
        return list(csv.DictReader(table))
