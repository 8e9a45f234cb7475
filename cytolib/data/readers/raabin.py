"""Raabin-WBC (Kouzehkanan et al. 2022): double-labelled crops of normal blood, two microscopes, five classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from cytolib.data.cards import DataSet
from cytolib.data.readers.common import Entry, Reading, class_folders, entries_by_folder, find_folder, read_entries

FOLDERS = ("Raabin-WBC", "raabin_wbc", "raabin", "Cropped_double_labeled")
#: The part of the set, its name without case, blanks and hyphens, and the imaging set-up behind it.
DOMAINS: Mapping[str, str] = {"train": "raabin", "testa": "raabin", "testb": "raabin_testb"}

LABELS: Mapping[str, str] = {
    name: name.lower() for name in ("Basophil", "Eosinophil", "Lymphocyte", "Monocyte", "Neutrophil")
}

#: Cells of each part; classes at second hand, but they sum to the published 10,175, 4,339 and 2,119.
PART_COUNTS: Mapping[str, Mapping[str, int]] = {
    "train": {"Basophil": 212, "Eosinophil": 744, "Lymphocyte": 2427, "Monocyte": 561, "Neutrophil": 6231},
    "testa": {"Basophil": 89, "Eosinophil": 322, "Lymphocyte": 1034, "Monocyte": 234, "Neutrophil": 2660},
    "testb": {"Lymphocyte": 148, "Neutrophil": 1971},
}
COUNTS: Mapping[str, int] = {label: sum(part.get(label, 0) for part in PART_COUNTS.values()) for label in LABELS}


def read(root: Path, scratch: Path | None = None, *, progress: bool = True) -> Reading:
    """Read ``Raabin-WBC/<Train|TestA|TestB>/<class>/<image>``; parts that are not there are left out.

    Raises:
        FileNotFoundError, ValueError: for a missing folder, no part in it, or a folder that is no part.
    """
    folder = find_folder(root, FOLDERS)
    entries: list[Entry] = []
    others: list[Path] = []
    for part in class_folders(folder):
        if part.name == "__MACOSX":
            continue
        name = part.name.lower().replace("-", "").replace("_", "").replace(" ", "")
        if name not in DOMAINS:
            raise ValueError(f"{part}: no part of Raabin-WBC; expected Train, TestA, TestB with class folders inside")
        found, rest = entries_by_folder(find_folder(folder, (part.name,)), LABELS)
        entries += [replace(entry, domain=DOMAINS[name]) for entry in found]
        others += rest
    return read_entries(
        root, entries, dataset="raabin", label_map=LABELS, domain="raabin", not_images=others, progress=progress
    )


CARDS = (
    DataSet(
        name="raabin",
        title="Normal peripheral blood, laboratories in Iran: two microscopes, two cameras, labelled twice",
        citation="Kouzehkanan et al., Scientific Reports 12:1123 (2022), doi 10.1038/s41598-021-04426-x",
        source="https://raabindata.com/free-data/",
        licence="not found: called free access; read it at the source before you redistribute",
        folder=FOLDERS[0],
        aliases=FOLDERS[1:],
        layout=f"{FOLDERS[0]}/<Train|TestA|TestB>/<class>/<image>.jpg",
        n_cells=16_633,
        counts=COUNTS,
        scale="unknown: none is published, and none was estimated",
        read=read,
        label_set="five",
        held_out_domains=("raabin_testb",),
        steps=(
            "Open https://raabindata.com/free-data/ and download Train, TestA and TestB of the double-labelled crops.",
            f"Unpack them in {FOLDERS[0]} in the data root, so that {FOLDERS[0]}/Train/Basophil lies there.",
        ),
        caveats=(
            "TestB is from another microscope and camera: a domain of its own that is held out",
            "TestB has neutrophils and lymphocytes only: give labels= to every score over it",
            "counts of Train and TestB are from memory of the article, and agree with its totals",
            "no patient ids read from the file names: cells of one smear may stand in training and test",
            "its own division into Train and TestA stands in the path and is not used",
            "no scale: a field of view in micrometres cannot be cut from these images",
        ),
    ),
)
