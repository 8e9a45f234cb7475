"""Bodzas et al. 2023: nine classes of healthy and leukaemic blood, one cell a frame of 1200 x 1200 pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from cytolib.data.cards import DataSet
from cytolib.data.readers.common import Reading, entries_by_folder, find_folder, read_entries

FOLDERS = ("Bodzas2023", "bodzas", "Bodzas")

LABELS: Mapping[str, str] = {
    "neutrophil_segment": "neutrophil_segmented",
    "neutrophil_band": "neutrophil_band",
    "lymphocyte": "lymphocyte",
    "monocyte": "monocyte",
    "eosinophil": "eosinophil",
    "basophil": "basophil",
    "normoblast": "erythroblast",
    "myeloblast": "myeloblast",
    "lymphoblast": "lymphoblast",
}
COUNTS: Mapping[str, int] = {
    "neutrophil_segment": 3201,
    "neutrophil_band": 99,
    "lymphocyte": 3046,
    "monocyte": 2040,
    "eosinophil": 1017,
    "basophil": 1023,
    "normoblast": 510,
    "myeloblast": 2534,
    "lymphoblast": 2557,
}
_WORDS = {"segmented_neutrophil": "neutrophil_segment", "band_neutrophil": "neutrophil_band"} | {
    f"neutrophil_{word}": f"neutrophil_{kind}"
    for kind, words in {"segment": ("segments", "segmented"), "band": ("bands", "banded")}.items()
    for word in words
}


def source_label(folder: str) -> str:
    """``Neutrophil Segment`` -> ``neutrophil_segment``, plurals as singulars."""
    word = folder.strip().lower().replace(" ", "_").replace("-", "_")
    word = _WORDS.get(word, word)
    return word if word in LABELS else word.removesuffix("s")


def read(root: Path, scratch: Path | None = None, *, progress: bool = True) -> Reading:
    """Read ``root/Bodzas2023/<class>/<image>.bmp``; ``group`` is null."""
    entries, others = entries_by_folder(find_folder(root, FOLDERS), ())
    return read_entries(
        root,
        [replace(entry, source_label=source_label(entry.source_label)) for entry in entries],
        dataset="bodzas",
        label_map=LABELS,
        domain="bodzas",
        not_images=others,
        progress=progress,
    )


CARDS = (
    DataSet(
        name="bodzas",
        title="Peripheral blood, Ostrava: healthy and leukaemic, Olympus BX51, May-Grünwald-Giemsa",
        citation="Bodzas et al., Scientific Data 10:466 (2023), doi 10.1038/s41597-023-02378-7",
        source="doi 10.6084/m9.figshare.22680517",
        licence="CC0, as others who used it say; not checked with the publisher",
        folder=FOLDERS[0],
        aliases=FOLDERS[1:],
        layout=f"{FOLDERS[0]}/<class>/<image>.bmp",
        n_cells=16_027,
        counts=COUNTS,
        scale="unknown: no published micrometres a pixel were found",
        read=read,
        held_out_classes=("blast",),
        steps=(
            "Download the archive (46 GB) from https://doi.org/10.6084/m9.figshare.22680517.",
            f"Unpack it into {FOLDERS[0]} in the data root, so that the nine class folders lie there.",
        ),
        caveats=(
            "the names of the class folders are not certain: blanks, underscores, capitals and plurals are all read",
            "counts are from an audit by others, not from the files",
            "78 patients, who are not named by file: cells of one may stand in training and test",
        ),
    ),
)
