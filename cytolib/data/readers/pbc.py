"""PBC (Acevedo et al. 2020): eight class folders, finer types in the file names, two imaging set-ups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from cytolib.data.cards import DataSet
from cytolib.data.images import ImageFacts
from cytolib.data.readers.common import Entry, Reading, entries_by_folder, find_folder, read_entries

FOLDER = "PBC_dataset_normal_DIB"
#: The main imaging set-up's frame, as published and at half resolution; every other size is the lilac population.
MAIN_SIZES: frozenset[tuple[int, int]] = frozenset({(360, 363), (180, 181)})

#: The prefix of a file name is the subtype: whole words, so that MMY and PMY are never read as MY.
LABELS: Mapping[str, str] = {
    "NEUTROPHIL": "neutrophil",
    "BNE": "neutrophil_band",
    "SNE": "neutrophil_segmented",
    "EO": "eosinophil",
    "BA": "basophil",
    "LY": "lymphocyte",
    "MO": "monocyte",
    "IG": "immature_granulocyte",
    "PMY": "promyelocyte",
    "MY": "myelocyte",
    "MMY": "metamyelocyte",
    "ERB": "erythroblast",
    "PLATELET": "platelet",
}

COUNTS: Mapping[str, int] = {
    "SNE": 1646,
    "BNE": 1633,
    "NEUTROPHIL": 50,
    "EO": 3117,
    "BA": 1218,
    "LY": 1214,
    "MO": 1420,
    "MY": 1137,
    "MMY": 1015,
    "PMY": 592,
    "IG": 151,
    "ERB": 1551,
    "PLATELET": 2348,
}


def source_label(path: Path) -> str:
    """``MMY_12.jpg`` -> ``MMY``."""
    return path.stem.split("_")[0].upper()


def _domain(_: Entry, facts: ImageFacts) -> str:
    """The frame size tells the two set-ups apart exactly (background red minus blue about 50, or 0)."""
    return "pbc_main" if (facts.width, facts.height) in MAIN_SIZES else "pbc_lilac"


def _um_per_px(_: Entry, facts: ImageFacts) -> float:
    """0.1 um as published; twice that in copies of half the resolution."""
    return 0.1 if facts.width > 270 else 0.2


def read(root: Path, scratch: Path | None = None, *, progress: bool = True) -> Reading:
    """Read ``root/PBC_dataset_normal_DIB/<class>/<PREFIX_number>.jpg``.

    No patient ids are published, so ``group`` is null and cells of one donor may stand in several splits.
    """
    entries, others = entries_by_folder(find_folder(root, (FOLDER,)), ())
    return read_entries(
        root,
        [replace(entry, source_label=source_label(entry.path)) for entry in entries],
        dataset="pbc",
        label_map=LABELS,
        domain=_domain,
        um_per_px=_um_per_px,
        not_images=others,
        progress=progress,
    )


CARDS = (
    DataSet(
        name="pbc",
        title="Peripheral blood, Hospital Clinic Barcelona: healthy donors, CellaVision DM96, May-Grünwald-Giemsa",
        citation="Acevedo et al., Data in Brief 30:105474 (2020), doi 10.1016/j.dib.2020.105474",
        source="doi 10.17632/snkd93bnjr.1",
        licence="CC BY 4.0",
        folder=FOLDER,
        layout=f"{FOLDER}/<class>/<PREFIX_number>.jpg",
        n_cells=17_092,
        counts=COUNTS,
        scale="published: 360 x 363 px are 36.0 x 36.3 um",
        read=read,
        held_out_domains=("pbc_lilac",),
        steps=(
            "Open https://data.mendeley.com/datasets/snkd93bnjr/1 and download PBC_dataset_normal_DIB.zip.",
            f"Unpack it in the data root, so that {FOLDER}/basophil and its seven neighbours lie there.",
        ),
        caveats=(
            "no patient ids: cells of one donor may stand in training and test",
            "453 lilac images are a second imaging set-up, a domain of its own that is held out",
            "17 pairs of files are byte for byte the same, one pair under two classes",
        ),
    ),
)
