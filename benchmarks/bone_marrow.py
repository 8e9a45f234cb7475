"""Bone marrow: the ten stages of Choi et al. (2017), embedded, classified in three folds and ordered by maturity.

    python -m benchmarks.bone_marrow [--data DIR] [--out FILE] [--encoders NAME ...] [--mobilenet FILE]

About four minutes of one core.

Frames that overlap on the slide are kept in one fold: half of the cells of this set share pixels with another frame,
some are the same cell twice, and no hash of the whole frame sees it. Controls stand beside every score: what the
imaging alone gives away (colour of the frame's border and its size, no cell), shuffled labels, frames of one
magnification only, and overlapping frames torn apart. Intervals are 95 % bootstrap intervals over cells within their
class and over the draws of the folds; they say nothing about other patients or laboratories, which are not named.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from benchmarks import probing
from cytolib import run
from cytolib.data.duplicates import belong_together, drop_exact_duplicates, near_duplicates
from cytolib.data.images import load_image
from cytolib.data.overlaps import overlapping_cells
from cytolib.data.prepare import NEAR_DUPLICATE_BITS
from cytolib.data.readers import choi
from cytolib.data.taxonomy import MATURITY
from cytolib.embed import embed
from cytolib.evaluate.maturity import cross_validated_scores, maturity_rows, pseudotime
from cytolib.evaluate.results import result_rows

FIELD_UM = 22.0
SEEDS = (0, 1, 2, 3, 4)
MAIN_DOMAIN = "choi_144"
SCORES = ("balanced_accuracy", "macro_f1", "accuracy", "within_one_stage")
INDEX = ("encoder", "experiment", "method", "n")
ORDER = ("spearman", "kendall_tau_b", "adjacent_concordance", "mean_absolute_error")


@dataclass(frozen=True)
class Arm:
    """One row of the table: what is classified, which cells, and what is different from the main arm."""

    control: str
    encoder: str
    rows: NDArray[np.bool_]
    torn: bool = False
    shuffled: bool = False

    @property
    def domain(self) -> str:
        return "all" if self.rows.all() else MAIN_DOMAIN


def read_cells(root: Path) -> pd.DataFrame:
    """The cells, exact duplicates dropped, with ``label`` (the cell type) and ``unit`` (what shares pixels)."""
    cells = choi.read(root, progress=False).cells
    cells = drop_exact_duplicates(cells.assign(label=cells["cell_type"]))[0]
    pairs = pd.concat([near_duplicates(cells, NEAR_DUPLICATE_BITS), overlapping_cells(cells, root)], ignore_index=True)
    return cells.assign(unit=belong_together(cells, pairs).to_numpy())


def imaging_features(image: Image.Image) -> NDArray[np.float32]:
    """Mean colour of the frame's outermost pixels, width and height: what can be known without looking at the cell."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    border = np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]])
    return np.array([*border.mean(axis=0), image.width, image.height], dtype=np.float32)


def embeddings(cells: pd.DataFrame, root: Path, encoders: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """Embeddings by name: each encoder on the whole frame and, where the scale is known, on the harmonised field."""
    found = {probing.IMAGING: np.stack([imaging_features(load_image(root / path)) for path in cells["path"]])}
    fields = (0.0, FIELD_UM) if cells["um_per_px"].notna().all() else (0.0,)
    for encoder in encoders:
        for field in fields:
            table = embed(cells, root, encoder, field_of_view_um=field, progress=False)
            # the name in the metadata is without the path of the weights: tables are the same on every machine
            found[named(table.metadata["encoder"], field)] = table.X
    return found


def named(encoder: str, field_um: float) -> str:
    """An encoder and its field in the result table."""
    return f"{encoder} at {field_um:g} um" if field_um else f"{encoder} whole frame"


def arms(encoder: str, cells: pd.DataFrame) -> Iterator[Arm]:
    """The main arm of an encoder and its controls."""
    everyone = np.ones(len(cells), dtype=bool)
    yield Arm("none", encoder, everyone)
    yield Arm("one magnification", encoder, (cells["domain"] == MAIN_DOMAIN).to_numpy())
    yield Arm("overlaps torn apart", encoder, everyone, torn=True)
    yield Arm("shuffled labels", encoder, everyone, shuffled=True)


def classify(arm: Arm, X: NDArray[np.float32], cells: pd.DataFrame, seeds: Sequence[int]) -> pd.DataFrame:
    """Rows of scores of both probes over ten classes."""
    X, cells = X[arm.rows], cells[arm.rows]
    y = cells["label"].to_numpy(dtype=str)
    units = (cells["cell_id"] if arm.torn else cells["unit"]).to_numpy(dtype=str)
    rows = []
    for method in probing.METHODS:
        called = []
        for seed in seeds:
            # Shuffled: each draw deals the embeddings out anew to the labels, which stay where they are.
            dealt = np.random.default_rng(seed).permutation(len(y)) if arm.shuffled else np.arange(len(y))
            called.append(probing.cross_validated_predictions(X[dealt], y, units[dealt], method, seed=seed))
        metrics = probing.probe_metrics(y, np.stack(called), stages=True)
        rows.append(result_rows(metrics, method=method, n=len(y), **_columns(arm, "bone_marrow")))
    return pd.concat(rows)


def order(arm: Arm, X: NDArray[np.float32], cells: pd.DataFrame, line: str, seeds: Sequence[int]) -> pd.DataFrame:
    """Rows of scores of the ordering along a line: by ridge regression and, without stages, by pseudotime."""
    X, cells = X[arm.rows], cells[arm.rows].reset_index(drop=True)
    units = (cells["cell_id"] if arm.torn else cells["unit"]).to_numpy(dtype=str)
    drawn = [cross_validated_scores(X, cells, line, units, seed=seed, shuffle=arm.shuffled) for seed in seeds]
    # Stages are dealt out anew by each seed in the shuffled arm: in their order, all draws have them alike.
    drawn = [frame.sort_values("stage", kind="stable") for frame in drawn]
    scores = np.stack([frame["score"].to_numpy() for frame in drawn])
    columns = _columns(arm, f"maturity_{line}")
    rows = [maturity_rows(scores, drawn[0]["stage"], line=line, method="ridge", **columns)]
    if not (arm.shuffled or arm.torn or arm.encoder == probing.IMAGING):  # it has neither folds nor labels
        members = drawn[0].sort_index()
        time = pseudotime(X[members.index], members["stage"] == members["stage"].min())
        columns |= {"split": "all", "selection": "none"}
        rows.append(maturity_rows(time, members["stage"], line=line, method="pseudotime", in_stages=False, **columns))
    return pd.concat(rows)


def _columns(arm: Arm, experiment: str) -> dict[str, Any]:
    return {
        "experiment": experiment if arm.control == "none" else f"{experiment} ({arm.control})",
        "dataset": "choi",
        "encoder": arm.encoder,
        "encoder_exposure": probing.exposure(arm.encoder.split(" ")[0], "choi"),
        "domain": arm.domain,
        "split": "3 folds",
        "selection": "inner 3 folds",
    }


def measure(cells: pd.DataFrame, found: dict[str, NDArray[np.float32]], seeds: Sequence[int]) -> pd.DataFrame:
    """All rows of the table, of every embedding."""
    rows = []
    for encoder, X in found.items():
        for arm in arms(encoder, cells):
            rows.append(classify(arm, X, cells, seeds))
            rows += [order(arm, X, cells, line, seeds) for line in MATURITY]
        print(f"measured: {encoder}", flush=True)
    return pd.concat(rows, ignore_index=True)


def report(cells: pd.DataFrame, rows: pd.DataFrame) -> str:
    """The tables that are printed."""
    tied = cells["unit"].duplicated(keep=False)
    mixed = cells[tied].groupby("unit")["label"].nunique().gt(1).sum()
    lines = [
        f"{len(cells)} cells in {cells['unit'].nunique()} units: {tied.sum()} share pixels with another frame, "
        f"{mixed} of {cells.loc[tied, 'unit'].nunique()} shared pieces of slide hold several classes",
        "95 % intervals: bootstrap over cells within their class and over draws of the folds",
        "",
        "Classification, 10 classes (chance: balanced accuracy 0.10)",
        probing.compact(rows[rows["experiment"].str.startswith("bone_marrow")], SCORES, INDEX),
    ]
    for line in MATURITY:
        part = rows[rows["experiment"].str.startswith(f"maturity_{line}")]
        ceiling = part.loc[part["metric"] == "kendall_tau_b[ceiling]", "value"].iloc[0]
        lines += [
            "",
            f"Order along the {line} line (perfect tau-b {ceiling:.2f} on all cells; adjacent pairs 0.50 by chance)",
            probing.compact(part, ORDER, INDEX),
        ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and, with ``--out``, write the rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bone_marrow", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=None, help="data root, default CYTOLIB_DATA")
    parser.add_argument("--out", type=Path, default=None, help="result table: .parquet or .csv")
    parser.add_argument("--encoders", nargs="+", default=None, help="default: morphometry and ImageNet MobileNetV2")
    parser.add_argument("--mobilenet", default="", help="weights of the MobileNetV2")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="draws of the folds")
    options = parser.parse_args(arguments)
    if options.out is not None and options.out.suffix not in (".parquet", ".csv"):
        parser.error(f"--out is {options.out}; expected a file that ends in .parquet or .csv")
    root = options.data or run.data_root()
    cells = read_cells(root)
    encoders = options.encoders or ["morphometry", probing.mobilenet(options.mobilenet)]
    rows = measure(cells, embeddings(cells, root, encoders), options.seeds)
    print(report(cells, rows))
    if options.out is not None:
        probing.write(rows, options.out)


if __name__ == "__main__":
    main()
