"""Duplicates: the same file twice, and the same picture twice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

_BLOCK = 256  # rows compared at once: 256 x 100,000 cells take 0.8 GB at most


def drop_exact_duplicates(cells: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Keep one of each set of byte-identical images, none where their labels disagree.

    Returns:
        The kept cells, and a report with one row a dropped image: ``path``, ``label``, ``cell_id``, ``reason``.
    """
    conflicting = cells.groupby("cell_id")["label"].transform("nunique") > 1
    repeated = cells["cell_id"].duplicated() & ~conflicting
    report = cells.loc[conflicting | repeated, ["path", "label", "cell_id"]].copy()
    report["reason"] = np.where(conflicting[report.index], "identical image, other label", "identical image")
    return cells[~(conflicting | repeated)].reset_index(drop=True), report.reset_index(drop=True)


def hash_words(hashes: Sequence[str]) -> NDArray[np.uint64]:
    """Perceptual hashes (hexadecimal, all of one length) as (N, W) words of 64 bits.

    Raises:
        ValueError: for hashes of unequal length or that are no hexadecimal numbers.
    """
    lengths = {len(text) for text in hashes}
    if len(lengths) != 1 or (length := lengths.pop()) % 16:
        raise ValueError("perceptual hashes differ in length or are no multiple of 64 bits; hash all images alike")
    try:
        raw = bytes.fromhex("".join(hashes))
    except ValueError as error:
        raise ValueError(f"a perceptual hash is no hexadecimal number ({error}); hash the images again") from error
    return np.frombuffer(raw, dtype=">u8").astype(np.uint64).reshape(len(hashes), length // 16)


def near_duplicates(cells: pd.DataFrame, max_distance: int) -> pd.DataFrame:
    """Pairs of cells whose perceptual hashes differ in at most ``max_distance`` bits.

    Every pair is compared, block by block, so memory grows with the number of cells, not with its square.

    Args:
        cells: with columns ``cell_id`` and ``perceptual_hash``.
        max_distance: Hamming distance in bits; the hash has 256.

    Returns:
        ``first``, ``second`` (cell ids) and ``distance``; nearest first.
    """
    if max_distance < 0:
        raise ValueError(f"max_distance is {max_distance}; expected a number of bits, 0 or more")
    if len(cells) < 2:
        return pd.DataFrame({"first": [], "second": [], "distance": []}).astype({"distance": int})
    words = hash_words(cells["perceptual_hash"].tolist())
    rows, columns, distances = [], [], []
    for start in range(0, len(words), _BLOCK):
        block = words[start : start + _BLOCK]
        distance = np.zeros((len(block), len(words) - start), dtype=np.uint16)
        for word in range(words.shape[1]):
            distance += np.bitwise_count(block[:, None, word] ^ words[None, start:, word])
        near = np.triu(distance <= max_distance, k=1)  # each pair once, no cell with itself
        row, column = np.nonzero(near)
        rows.append(row + start)
        columns.append(column + start)
        distances.append(distance[row, column])
    ids = cells["cell_id"].to_numpy()
    pairs = pd.DataFrame(
        {
            "first": ids[np.concatenate(rows)],
            "second": ids[np.concatenate(columns)],
            "distance": np.concatenate(distances).astype(int),
        }
    )
    return pairs.sort_values(["distance", "first", "second"], kind="stable").reset_index(drop=True)


def belong_together(cells: pd.DataFrame, pairs: pd.DataFrame | None = None) -> pd.Series:
    """For each cell, the name of the unit that may not be torn apart by a split.

    Cells of one ``group`` (patient, slide) belong together, so do near duplicates, and so does whoever is tied to
    both. The name is the smallest cell id of the unit.
    """
    number = pd.Series(np.arange(len(cells)), index=cells["cell_id"].to_numpy())
    edges = []
    if pairs is not None and len(pairs):
        edges.append((number[pairs["first"]].to_numpy(), number[pairs["second"]].to_numpy()))
    known = cells["group"].notna().to_numpy()
    if known.any():
        members = np.flatnonzero(known)
        first = pd.Series(members).groupby([cells["dataset"].to_numpy()[known], cells["group"].to_numpy()[known]])
        edges.append((members, first.transform("first").to_numpy()))
    if not edges:
        return cells["cell_id"].astype("str")
    start, end = (np.concatenate(part) for part in zip(*edges, strict=True))
    graph = coo_array((np.ones(len(start), dtype=bool), (start, end)), shape=(len(cells), len(cells)))
    unit = connected_components(graph, directed=False)[1]
    return cells["cell_id"].groupby(unit).transform("min").astype("str")
