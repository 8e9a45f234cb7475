"""The READMEs' made blocks: `python -m tests.readme` writes them anew.

Between `<!-- NAME -->` and `<!-- /NAME -->`. In README.md: `times` (of each stage) and `results` (key results of each
run), from the committed reference runs; `findings`, from benchmarks/results. In benchmarks/README.md: a block a
benchmark, from benchmarks/results. In data/README.md: `datasets`, from the registry.
"""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

from cytolib.data.registry import DATA_SETS
from tests.readme_encoders import small_encoder
from tests.readme_findings import faults, findings, hostile
from tests.readme_generation import MEASURED, contaminated, generators, measured, sampling

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "papermill_runs" / "reference"
README = ROOT / "README.md"
DATA_README = ROOT / "data" / "README.md"
MEASUREMENTS = ROOT / "benchmarks" / "README.md"
RUNS = {"default": "phantoms", "pbc": "PBC"}
QUESTIONS = {
    "00_data": (
        "what cells are there, from where, how unequal",
        "images → cell table, split, duplicates, a tour",
        "not used",
    ),
    "01_embed": (
        "what does the encoder see",
        "cell table → embeddings, UMAP, probes, attributes, order of age",
        "not measured",
    ),
    "02_train_diffusion": ("can a small model learn the embeddings", "embeddings → model folder", "not measured"),
    "03_sample": (
        "are synthetic cells right, various, new; does the model give its cells away",
        "model → synthetic table, fidelity, membership, attributes",
        "not measured",
    ),
    "04_augment_classifiers": (
        "do classifiers get better, where, how much",
        "real, synthetic → arms, the contaminated column",
        "not used",
    ),
    "10_figures": ("every figure and table of the paper", "result tables → figures, tables", "not used"),
}


def _number(text: str) -> str:
    return f"{float(text):.3f}" if text else ""


def _seconds(run: str, stage: str) -> str:
    seconds = json.loads((REFERENCE / run / "run.json").read_text())["stages"][stage]["wall_seconds"]
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def times() -> str:
    """Table of the notebooks with the wall time of each in the reference runs."""
    rows = [
        "| notebook | question | input → output | CPU, 2 cores: " + " / ".join(RUNS.values()) + " | GPU |",
        "|---|---|---|---|---|",
    ]
    for stage, (question, flow, gpu) in QUESTIONS.items():
        spent = " / ".join(_seconds(run, stage) for run in RUNS)
        rows.append(f"| [{stage}](notebooks/{stage}.ipynb) | {question} | {flow} | {spent} | {gpu} |")
    sweep = " / ".join(_seconds(run, "04_sweep") for run in RUNS)
    rows += [
        "",
        f"The pipeline runs one script stage besides, `04_sweep` ({sweep}): the arms of notebook 04 over five seeds.",
        f"Together: {'; '.join(_together(run, name) for run, name in RUNS.items())}.",
    ]
    return "\n".join(rows)


def _together(run: str, name: str) -> str:
    stages = json.loads((REFERENCE / run / "run.json").read_text())["stages"].values()
    minutes = sum(stage["wall_seconds"] for stage in stages) / 60
    memory = max(stage["peak_memory_bytes"] for stage in stages) / 1e9
    return f"{name} {minutes:.0f} min, at most {memory:.1f} GB of memory for a stage"


def results() -> str:
    """Key results of every reference run, as `10_figures/key_results.csv` has them."""
    parts = []
    for run, name in RUNS.items():
        command = f"make pipeline CONFIG=configs/{run}.yaml"
        rows = [f"**{name}**: `{command}`", "", "| what | value | 95 % interval | test cells |", "|---|---|---|---|"]
        with open(REFERENCE / run / "10_figures" / "key_results.csv", newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                ends = f"{_number(row['low'])} to {_number(row['high'])}" if row["low"] else ""
                rows.append(f"| {row['what']} | {_number(row['value'])} | {ends} | {int(row['n']):,} |")
        parts.append("\n".join(rows))
    return "\n\n".join(parts)


def _with_ends(metrics: dict[str, float], name: str) -> str:
    if name not in metrics:
        return ""
    ends = [metrics.get(f"{name}[{end}]") for end in ("low", "high")]
    return f"{metrics[name]:.2f}" + ("" if None in ends else " [{:.2f}, {:.2f}]".format(*ends))


def _plain(encoder: str) -> str:
    """An encoder's name without its options."""
    return re.sub(r"\?\S*", "", encoder).removeprefix("timm:").replace("_", " ")


def encoders() -> str:
    """Probes on PBC and across sites, an encoder a column."""
    rows = measured("encoders.csv", "experiment", "domain", "encoder", "method")
    found = {key: metrics for key, metrics in rows.items() if key[3] == "logistic_regression"}
    names = list(dict.fromkeys(key[2] for key in found))
    lines = [
        "| logistic regression on frozen embeddings | test cells | score | " + " | ".join(map(_plain, names)) + " |",
        "|---|---|---|" + "---|" * len(names),
    ]
    for experiment, domain in dict.fromkeys(key[:2] for key in found):
        whole = experiment == "encoders"
        metric, score = ("balanced_accuracy", "balanced accuracy") if whole else ("macro_f1", "macro F1")
        frame = "whole frames" if "whole" in experiment else "22 µm"
        what = "PBC, eight classes, whole frames" if whole else f"five classes, {frame}: {domain.replace('_', ' ')}"
        cells = [found[experiment, domain, name, "logistic_regression"] for name in names]
        values = " | ".join(_with_ends(metrics, metric) for metrics in cells)
        lines.append(f"| {what} | {cells[0]['n']:,.0f} | {score} | {values} |")
    lines.append("| DinoBloom S, B, L, G | | | not measured by us" + " |" * len(names))
    return "\n".join(lines)


def marrow() -> str:
    """Bone marrow of Choi: classification and order, an encoder a row."""
    rows = measured("bone_marrow.csv", "encoder", "experiment", "method")
    lines = [
        "| encoder | ten classes: balanced accuracy | macro F1 | within one stage | myeloid, all / 144 px frames |"
        " erythroid, all / 144 px frames |",
        "|---|---|---|---|---|---|",
    ]
    for encoder in dict.fromkeys(key[0] for key in rows):
        classes = rows[encoder, "bone_marrow", "logistic_regression"]
        parts = [_with_ends(classes, name) for name in ("balanced_accuracy", "macro_f1", "within_one_stage")]
        for line in ("myeloid", "erythroid"):
            both = [rows[encoder, f"maturity_{line}{frames}", "ridge"] for frames in ("", " (one magnification)")]
            parts.append(" / ".join(_with_ends(metrics, "spearman") for metrics in both))
        lines.append(f"| {_plain(encoder)} | " + " | ".join(parts) + " |")
    shuffled = [m for key, m in rows.items() if key[1:] == ("bone_marrow (shuffled labels)", "logistic_regression")]
    values = ", ".join(f"{metrics['balanced_accuracy']:.2f}" for metrics in shuffled)
    return "\n".join(
        [*lines, "", f"Balanced accuracy with shuffled labels, in the same order: {values}; chance is 0.10."]
    )


def speed() -> str:
    """Embedding beside the bare model and plain loops, and its memory."""
    found = json.loads((MEASURED / "embedding.json").read_text(encoding="utf-8"))
    lines = ["| method | cells a second | of the bare model |", "|---|---|---|"]
    for method, row in found["speed"].items():
        lines.append(f"| {method} | {row['cells/s']:.0f} | {row['x model only']:.0%} |")
    peaks = ", ".join(f"{row['rest']:,.0f} MiB for {row['cells']:,.0f} cells" for row in found["memory"])
    return "\n".join([*lines, "", f"Peak memory of a fresh process, less the result's own array: {peaks}."])


def datasets() -> str:
    """Table of the registry: every data set, whose it is, how large its pixels are, and what to beware of."""
    rows = ["| name | what | cells | licence | source | scale |", "|---|---|---|---|---|---|"]
    for card in DATA_SETS.values():
        cells = f"{card.n_cells:,}" if card.n_cells else ""
        rows.append(f"| `{card.name}` | {card.title} | {cells} | {card.licence} | {card.source} | {card.scale} |")
    rows += ["", "What to beware of:", ""]
    rows += [f"- `{card.name}`: {'; '.join(card.caveats)}." for card in DATA_SETS.values() if card.caveats]
    return "\n".join(rows)


def filled(text: str, *blocks: Callable[[], str]) -> str:
    """``text`` with its made blocks as they should be."""
    for block in blocks:
        name = block.__name__
        pattern = re.compile(rf"<!-- {name} -->.*?<!-- /{name} -->", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"there is no block <!-- {name} --> ... <!-- /{name} -->")
        text = pattern.sub(lambda _, b=block, n=name: f"<!-- {n} -->\n{b()}\n<!-- /{n} -->", text)
    return text


FILES: dict[Path, tuple[Callable[[], str], ...]] = {
    README: (times, results, findings, faults, hostile),
    MEASUREMENTS: (generators, contaminated, sampling, encoders, small_encoder, marrow, speed),
    DATA_README: (datasets,),
}


if __name__ == "__main__":
    for file, made in FILES.items():
        file.write_text(filled(file.read_text(encoding="utf-8"), *made), encoding="utf-8")
