"""The READMEs' made blocks: `python -m tests.readme` writes them anew.

Between `<!-- NAME -->` and `<!-- /NAME -->`. In README.md: `times` (of each stage) and `results` (key results of each
run), from the committed reference runs. In data/README.md: `datasets`, from the registry.
"""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

from cytolib.data.registry import DATA_SETS

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "papermill_runs" / "reference"
README = ROOT / "README.md"
DATA_README = ROOT / "data" / "README.md"
RUNS = {"default": "phantoms", "pbc": "PBC"}
QUESTIONS = {
    "00_data": (
        "what cells are there, from where, how unequal",
        "images → cell table, split, contact sheet",
        "not used",
    ),
    "01_embed": ("what does the encoder see", "cell table → embeddings, map, probes", "for `timm:` encoders"),
    "02_train_diffusion": ("can a small model learn the embeddings", "embeddings → model folder", "not measured"),
    "03_sample": ("are synthetic cells right, various, new", "model → synthetic table, fidelity", "not measured"),
    "04_augment_classifiers": ("do classifiers get better, where, how much", "real, synthetic → arms", "not used"),
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


FILES: dict[Path, tuple[Callable[[], str], ...]] = {README: (times, results), DATA_README: (datasets,)}


if __name__ == "__main__":
    for file, made in FILES.items():
        file.write_text(filled(file.read_text(encoding="utf-8"), *made), encoding="utf-8")
