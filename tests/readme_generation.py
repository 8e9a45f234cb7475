"""The blocks of README.md about generators, from benchmarks/results; how such a table is read."""

import csv
import json
from pathlib import Path

import numpy as np

from cytolib.evaluate.intervals import t_interval

MEASURED = Path(__file__).resolve().parent.parent / "benchmarks" / "results"
Rows = dict[tuple[str, ...], dict[str, float]]
GENERATOR_ROWS = {
    "tstr_balanced_accuracy": "TSTR, balanced accuracy",
    "tstr_minus_real": "TSTR less real cells",
    "trts_recall": "label fidelity (TRTS)",
    "frechet_distance_pca": "Fréchet distance, 64 components",
    "kernel_distance": "kernel distance x 100",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "vendi_ratio": "Vendi ratio",
    "two_sample_auc": "two-sample test, AUC",
    "attribute_gap": "gap of attribute frequencies",
    "dcr_ratio": "DCR ratio",
    "authenticity": "authenticity",
    "copying_statistic": "copying statistic C_T",
    "membership_by_distance_auc": "membership by distance, AUC",
    "membership_auc": "membership by denoising loss, AUC",
    "membership_attack_auc": "the same, fitted attack",
}


def generators() -> str:
    """Every generator and real cells, a metric a row."""
    rows = {key[0]: metrics for key, metrics in measured("generators.csv", "method").items()}
    names = ["real", *(name for name in rows if name != "real")]
    lines = ["| | " + " | ".join(name.replace("_", " ") for name in names) + " |", "|---|" + "---|" * len(names)]
    for metric, title in GENERATOR_ROWS.items():
        values = [_mean_and_ends(rows[name], metric, 100 if metric == "kernel_distance" else 1) for name in names]
        lines.append(f"| {title} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def measured(file: str, *keys: str) -> Rows:
    """Metrics (and ``n``) over all seeds of a benchmark's table, by the columns ``keys`` and in the table's order."""
    rows: Rows = {}
    with open(MEASURED / file, newline="", encoding="utf-8") as table:
        for row in csv.DictReader(table):
            if row["seed"] == "-1":
                metrics = rows.setdefault(tuple(row[key] for key in keys), {"n": float(row["n"])})
                metrics[row["metric"]] = float(row["value"])
    return rows


def _mean_and_ends(metrics: dict[str, float], name: str, scale: float = 1) -> str:
    """The mean, and half the width of its 95 % interval where it has one."""
    if name not in metrics:
        return ""
    mean, low, high = [scale * metrics.get(f"{name}{end}", float("nan")) for end in ("", "[low]", "[high]")]
    half, digits = (high - low) / 2, 3 if abs(mean) < 1 else 2
    return f"{mean:.{digits}f}" + (f" ±{half:.{digits}f}" if half > 0 else "")


def contaminated() -> str:
    """CytoDiff's protocol beside the honest one at the most synthetic cells, and what a gain is made of."""
    lines = [
        "| 5,000 synthetic cells a class | contaminated, as published | its real test cells | honest | published gain |"
        " of it the test set | the leak | true |",
        "|---|---|---|---|---|---|---|---|",
    ]
    told = []
    for metric in ("macro_f1", "balanced_accuracy"):
        rows, title = protocol_means(metric), metric.replace("_", " ").replace("f1", "F1")
        alone = rows["none", "plain", "0", "honest", "real"]
        for key in [key[:3] for key in rows if key[2:] == ("5000", "contaminated", "mixed")]:
            mixed, real, honest = (
                rows[*key, *part] for part in (("contaminated", "mixed"), ("contaminated", "real"), ("honest", "real"))
            )
            scores = " | ".join(f"{np.mean(part):.3f}" for part in (mixed, real, honest))
            pairs = ((mixed, alone), (mixed, real), (real, honest), (honest, alone))
            gains = " | ".join(_difference(*pair) for pair in pairs)
            lines.append(f"| {key[0].replace('_', ' ')}, {title} | {scores} | {gains} |")
        heads = [
            f"{name} {_difference(rows['none', name, '0', 'honest', 'real'], alone)}"
            for name in ("class weights", "logit adjustment")
        ]
        told.append(f"{title} {np.mean(alone):.3f}; {', '.join(heads)}")
    return "\n".join([*lines, "", f"Real cells alone: {'. '.join(told)}."])


def protocol_means(metric: str) -> dict[tuple[str, ...], list[float]]:
    """Values of each seed, in the order of seeds, by generator, classifier, number, protocol and scored set."""
    found: dict[tuple[str, ...], dict[int, float]] = {}
    keys = ("generator", "classifier", "n_per_class", "protocol", "scored")
    with open(MEASURED / "cytodiff_protocol.csv", newline="", encoding="utf-8") as table:
        for row in csv.DictReader(table):
            if row["metric"] == metric:
                found.setdefault(tuple(row[key] for key in keys), {})[int(row["seed"])] = float(row["value"])
    return {key: [values[seed] for seed in sorted(values)] for key, values in found.items()}


def _difference(first: list[float], second: list[float]) -> str:
    mean, low, high = t_interval(np.subtract(first, second))
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def sampling() -> str:
    """Sampling beside a plain diffusers loop."""
    found = json.loads((MEASURED / "sampling.json").read_text(encoding="utf-8"))
    lines = ["| method | cells a second | cytolib is faster by | Fréchet distance |", "|---|---|---|---|"]
    for method, row in found["speed"].items():
        ratio = "" if method == "cytolib" else f"{row['cytolib is faster by']:.2f} x"
        lines.append(f"| {method} | {row['cells/s']:,.0f} | {ratio} | {row['Frechet distance']:.3f} |")
    many, scales = found["many"], found["guidance"]
    widths = ", ".join(
        f"{row['variance within classes, over real']:.2f} at {row['guidance scale']:g}" for row in scales
    )
    return "\n".join(
        [
            *lines,
            "",
            f"{many['cells']:,} cells of 256 dimensions: {many['seconds']:.0f} s. Variance within classes over that of"
            f" real cells, by guidance scale: {widths}.",
        ]
    )
