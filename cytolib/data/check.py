"""``cytolib data check``: read a data set as the pipeline will, and compare what is there with what was published."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from cytolib.data.cards import DataSet
from cytolib.data.download import recorded_checksums
from cytolib.data.duplicates import near_duplicates
from cytolib.data.prepare import NEAR_DUPLICATE_BITS

SHOWN = 20  # lines of a long list


def check_data_set(card: DataSet, root: Path, *, show_all: bool = False) -> tuple[list[str], bool]:
    """Read the data set of ``card`` under ``root``; every image is opened once.

    Args:
        card: the data set's card.
        root: the data root.
        show_all: name every refused file and duplicate, not the first ``SHOWN``.

    Returns:
        The report, line by line, and whether all is well: nothing refused, as many cells of each label as published.

    Raises:
        FileNotFoundError: if the data set is not there.
        ValueError: if not one image can be read, or a label is not one that the data set has.
    """
    places = card.places(root)
    if not places:
        raise FileNotFoundError(
            f"{root / card.folder}: not there; `cytolib data get {card.name}` fetches {card.name} or says how, "
            "and CYTOLIB_DATA names the folder that holds it"
        )
    shown = None if show_all else SHOWN
    with tempfile.TemporaryDirectory(prefix="cytolib-check-") as scratch:
        reading = card.read(root, Path(scratch))
    cells, refused = reading.cells, reading.refused
    lines = [f"{card.name}: {card.title}", f"lies at     {places[0]}"]
    total_line, total_fits = _total(len(cells), card.n_cells)
    labels = cells["source_label"].value_counts()
    differing = _differing({str(label): int(n) for label, n in labels.items()}, card.counts)
    lines += [
        f"images      {total_line}",
        f"domains     {_counted(cells['domain'])}",
        f"cell types  {_counted(cells['cell_type'])}",
        f"scale       {_scales(cells['um_per_px'])} ({card.scale})",
        *_named("counts", "labels with another number of cells than published", differing, None),
        *_named("refused", "files that cannot be used", _refused_lines(refused), shown),
        *_named("identical", "files that are byte for byte another one", _identical_lines(cells), shown),
        *_named(
            "near",
            f"pairs of pictures alike but for at most {NEAR_DUPLICATE_BITS} of 256 bits",
            _near_lines(cells),
            shown,
        ),
        *(f"checksum    {line}" for line in _checksum_lines(card, root)),
    ]
    fine = total_fits and refused.empty and not differing
    return [
        *lines,
        "all is as published" if fine and card.n_cells else "all is readable" if fine else "NOT as published",
    ], fine


def _total(found: int, published: int) -> tuple[str, bool]:
    if published == 0:
        return f"{found:,}; no published number to compare with", True
    if found == published:
        return f"{found:,}, as published", True
    kind = "a partial copy" if found < published else "more than published: is another set mixed in?"
    return f"{found:,} of {published:,} published ({100 * found / published:.1f} %): {kind}", False


def _differing(found: Mapping[str, int], published: Mapping[str, int]) -> list[str]:
    """``label: found of published`` where the two are not equal; nothing if no counts are published."""
    if not published:
        return []
    return [
        f"{label}: {found.get(label, 0):,} of {published.get(label, 0):,}"
        for label in sorted({*found, *published})
        if found.get(label, 0) != published.get(label, 0)
    ]


def _counted(column: pd.Series) -> str:
    return ", ".join(f"{name} {n:,}" for name, n in column.value_counts().items())


def _scales(um_per_px: pd.Series) -> str:
    known = um_per_px.dropna()
    missing = len(um_per_px) - len(known)
    span = "" if known.empty else f"{known.min():.3g} to {known.max():.3g} um a pixel"
    return "; ".join(part for part in (span, f"unknown for {missing:,} images" if missing else "") if part)


def _refused_lines(refused: pd.DataFrame) -> list[str]:
    return [f"{path}: {reason}" for path, reason in zip(refused["path"], refused["reason"], strict=True)]


def _identical_lines(cells: pd.DataFrame) -> list[str]:
    """One line a file that repeats another; a difference in its label is said."""
    first: dict[str, tuple[str, str]] = {}
    lines = []
    for cell_id, path, label in zip(cells["cell_id"], cells["path"], cells["source_label"], strict=True):
        original, its_label = first.setdefault(cell_id, (path, label))
        if original != path:
            lines.append(f"{path} = {original}" + ("" if label == its_label else ", under another label"))
    return lines


def _near_lines(cells: pd.DataFrame) -> list[str]:
    distinct = cells.drop_duplicates("cell_id")
    path = distinct.set_index("cell_id")["path"]
    pairs = near_duplicates(distinct, NEAR_DUPLICATE_BITS)
    return [f"{path[first]} ~ {path[second]} ({bits} bits)" for first, second, bits in pairs.itertuples(index=False)]


def _named(head: str, what: str, lines: list[str], shown: int | None) -> list[str]:
    """A heading with the number of ``lines``, and the first ``shown`` of them (None: all)."""
    kept = lines if shown is None else lines[:shown]
    rest = len(lines) - len(kept)
    return [
        f"{head:<11} {len(lines):,} {what}" + (":" if lines else ""),
        *(f"  {line}" for line in kept),
        *([f"  and {rest:,} more: --all names them"] if rest else []),
    ]


def _checksum_lines(card: DataSet, root: Path) -> list[str]:
    """What is known of the archives that the images came from; the images themselves have no published checksum."""
    recorded = recorded_checksums(root)
    lines = []
    for download in card.downloads:
        entry = recorded.get(f"{card.name}/{download.file}")
        if entry is None:
            lines.append(f"{download.file}: not fetched by `cytolib data get` into this data root, so not compared")
        else:
            vouched = "the publisher" if download.checksum else "nobody but the first download"
            lines.append(f"{download.file}: sha256 {entry['sha256']}, vouched for by {vouched}")
    return lines or ["no archive to compare: this set is got by hand"]
