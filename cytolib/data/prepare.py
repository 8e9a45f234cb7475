"""From a data set's name to cells that are ready to embed: read or drawn, labelled, de-duplicated, split."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cytolib import run
from cytolib.data import duplicates, images, overlaps, phantoms, registry, splits, taxonomy
from cytolib.data.readers import Reading

#: Bits of 256 up to which two pictures count as the same one; see data/README.md for how it was measured.
NEAR_DUPLICATE_BITS = 56


@dataclass(frozen=True)
class Prepared:
    """Cells ready to embed, and what did not become one.

    Attributes:
        cells: the cell table.
        refused: images that could not be read: ``path``, ``reason``.
        left_out: cells whose type the label set does not name: ``cell_type``, ``n``.
        identical: dropped exact duplicates: ``path``, ``label``, ``cell_id``, ``reason``.
        near: near duplicates, kept on one side of the split: ``first``, ``second``, ``distance`` (bits of the hash;
            null where two frames share pixels though their hashes differ).
        image_root: what paths are relative to: "data" or "stage".
    """

    cells: pd.DataFrame
    refused: pd.DataFrame
    left_out: pd.DataFrame
    identical: pd.DataFrame
    near: pd.DataFrame
    image_root: str


def sources(dataset: str, split_file: str = "") -> list[Path]:
    """The files and folders, outside the run, that ``prepare_cells`` reads; arguments and errors are the same."""
    found = [] if dataset == "phantoms" else registry.data_set(dataset).sources(run.data_root())
    return [*found, run.root() / split_file] if split_file else found


def prepare_cells(
    dataset: str,
    folder: Path,
    *,
    n_cells: int,
    n_held_out: int,
    image_size: int,
    val_fraction: float,
    test_fraction: float,
    label_set: str = "",
    split_file: str = "",
    seed: int = 0,
) -> Prepared:
    """Read or draw ``dataset``, give its cells the labels of a label set, and split them.

    Args:
        dataset: ``phantoms`` (drawn into ``folder``), a name of the registry, ``folder:<name>`` or ``csv:<file>``.
        folder: where phantoms, and images that a set holds in another form, are written.
        n_cells, n_held_out, image_size: phantoms only: cells drawn, cells of the abnormal class, pixels a side.
        val_fraction, test_fraction: of the cells that are not held out.
        label_set: a name of ``taxonomy.LABEL_SETS``; empty takes the one that suits the data set.
        split_file: an existing split (``cell_id, split``), relative to the project; empty draws one from ``seed``.
        seed: of the phantoms and of the split.

    Raises:
        ValueError, FileNotFoundError: in one sentence, for whatever is missing or does not fit.
    """
    if dataset == "phantoms":
        chosen = taxonomy.label_set(label_set or "eight")
        reading = _draw(folder, n_cells, n_held_out, image_size, seed)
        held_out_domains: Sequence[str] = ()
        held_out_classes = set(chosen.held_out)
        cut_by_hand = False
    else:
        card = registry.data_set(dataset)
        chosen = taxonomy.label_set(label_set or card.label_set)
        reading = card.read(run.data_root(), folder)
        held_out_domains = card.held_out_domains
        held_out_classes = {*chosen.held_out, *card.held_out_classes}
        cut_by_hand = card.cut_by_hand
    cells, left_out = give_labels(reading.cells, chosen)
    cells, identical = duplicates.drop_exact_duplicates(cells)
    near = duplicates.near_duplicates(cells, NEAR_DUPLICATE_BITS)
    if cut_by_hand:
        shared = overlaps.overlapping_cells(cells, run.data_root())
        near = pd.concat([near, shared[["first", "second"]]], ignore_index=True).drop_duplicates(["first", "second"])
    if split_file:
        cells = splits.apply_split(cells, run.root() / split_file)
    else:
        cells = splits.draw_split(
            cells,
            val=val_fraction,
            test=test_fraction,
            held_out_classes=sorted(held_out_classes & set(cells["label"])),
            held_out_domains=[name for name in held_out_domains if name in set(cells["domain"])],
            near_duplicates=near,
            seed=seed,
        )
    return Prepared(cells, reading.refused, left_out, identical, near, reading.image_root)


def give_labels(cells: pd.DataFrame, chosen: taxonomy.LabelSet) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cells with their ``label`` in the label set, and how many of each ``cell_type`` it has no class for.

    Raises:
        ValueError: if it has a class for none of them.
    """
    label = cells["cell_type"].map(dict(chosen.of))
    known = label.notna()
    if not known.any():
        found = ", ".join(taxonomy.in_order(cells["cell_type"]))
        raise ValueError(f"label_set {chosen.name!r} has no class for any of these cells ({found}); choose another")
    counts = cells.loc[~known, "cell_type"].value_counts().rename_axis("cell_type").reset_index(name="n")
    return cells.assign(label=label)[known].reset_index(drop=True), counts


def _draw(folder: Path, n_cells: int, n_held_out: int, image_size: int, seed: int) -> Reading:
    cells = phantoms.write_phantoms(folder, n_cells, seed, size=image_size, n_held_out=n_held_out)
    with ThreadPoolExecutor(run.threads()) as pool:
        facts = list(pool.map(images.inspect_image, (folder / path for path in cells["path"])))
    cells["perceptual_hash"] = [fact.perceptual_hash for fact in facts]
    return Reading(cells, pd.DataFrame({"path": [], "reason": []}), image_root="stage")
