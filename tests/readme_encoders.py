"""The block of benchmarks/README.md about the encoder that ships with the package, from benchmarks/results."""

from tests.readme_generation import measured

SITES = {"pbc_lilac": "lilac", "zheng1": "Zheng 1", "zheng2": "Zheng 2", "chula": "Chula"}
SCORES = {
    "logistic_regression": "linear probe",
    "knn_20": "20 neighbours",
    "labels_5": "5 labels a class",
    "labels_10": "10 labels a class",
}
FIELD = "encoders_across_sites"
BASELINES = {"morphometry": "classical features", "mobilenetv2_100": "ImageNet MobileNetV2"}
SHIPPED = "cytolib-small+morphometry"


def small_encoder() -> str:
    """Every encoder on the same cells: a row each; then the shipped one less its baselines."""
    rows = measured("small_encoder.csv", "experiment", "domain", "encoder", "method")
    names = list(dict.fromkeys(key[2] for key in rows))
    heads = [*SCORES.values(), *SITES.values(), "mean of the first three", "attributes", "cells a second"]
    lines = ["| encoder | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
    for name in names:
        scores = [_ends(rows["pbc", "pbc_main", name, method], "balanced_accuracy") for method in SCORES]
        sites = [_ends(rows[FIELD, site, name, "logistic_regression"], "macro_f1") for site in SITES]
        (mean,) = (m["macro_f1"] for k, m in rows.items() if k[0] == FIELD and k[1].startswith("mean") and k[2] == name)
        rest = rows["attributes and speed", "pbc_main", name, "ridge"]
        values = [*scores, *sites, f"{mean:.2f}", f"{rest['mean_skill']:.2f}", f"{rest['cells_per_second']:.0f}"]
        lines.append(f"| {name.removeprefix('timm:').replace('_', ' ')} | " + " | ".join(values) + " |")
    lines += [
        "",
        f"`{SHIPPED}` less the others, the same cells and labels (balanced accuracy on PBC's test cells):",
        "",
    ]
    lines += ["| less | " + " | ".join(SCORES.values()) + " |", "|---|" + "---|" * len(SCORES)]
    for baseline, title in BASELINES.items():
        found = [rows["pbc", "pbc_main", SHIPPED, method] for method in SCORES]
        values = [_ends(row, f"balanced_accuracy less {baseline}", 3) for row in found]
        lines.append(f"| {title} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def _ends(metrics: dict[str, float], name: str, digits: int = 2) -> str:
    values = [metrics.get(name + end, float("nan")) for end in ("", "[low]", "[high]")]
    value, low, high = (f"{found:.{digits}f}" for found in values)
    return value if low == "nan" else f"{value} [{low}, {high}]"
