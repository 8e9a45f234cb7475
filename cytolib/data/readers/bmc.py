"""BMC (Matek et al. 2021): bone marrow of 945 haematological patients, 21 classes in nested folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cytolib.data.cards import DataSet
from cytolib.data.readers.common import Reading, entries_by_folder, find_folder, read_entries, square_frame

FOLDERS = ("BM_cytomorphology_data",)
#: An estimate: 250 px of a camera pixel of 3.45 um behind the published 40x objective.
FRAME_UM = 250 * 3.45 / 40

LABELS: Mapping[str, str] = {
    "ABE": "eosinophil_abnormal",
    "ART": "artefact",
    "BAS": "basophil",
    "BLA": "blast",
    "EBO": "erythroblast",
    "EOS": "eosinophil",
    "FGC": "faggot_cell",
    "HAC": "hairy_cell",
    "KSC": "smudge_cell",
    "LYI": "lymphocyte_immature",
    "LYT": "lymphocyte",
    "MMZ": "metamyelocyte",
    "MON": "monocyte",
    "MYB": "myelocyte",
    "NGB": "neutrophil_band",
    "NGS": "neutrophil_segmented",
    "NIF": "not_identifiable",
    "OTH": "other",
    "PEB": "proerythroblast",
    "PLM": "plasma_cell",
    "PMO": "promyelocyte",
}

#: At second hand, but they sum to the article's 171,374, and a fifth of each is in DinoBloom's published test split.
COUNTS: Mapping[str, int] = {
    "ABE": 8,
    "ART": 19_630,
    "BAS": 441,
    "BLA": 11_973,
    "EBO": 27_395,
    "EOS": 5883,
    "FGC": 47,
    "HAC": 409,
    "KSC": 42,
    "LYI": 65,
    "LYT": 26_242,
    "MMZ": 3055,
    "MON": 4040,
    "MYB": 6557,
    "NGB": 9968,
    "NGS": 29_424,
    "NIF": 3538,
    "OTH": 294,
    "PEB": 2740,
    "PLM": 7629,
    "PMO": 11_994,
}


def read(root: Path, scratch: Path | None = None, *, progress: bool = True) -> Reading:
    """Read ``BM_cytomorphology_data/<ABBR>/<range>/<ABBR>_00001.jpg``; small classes have no range folders.

    No patient is named, so ``group`` is null.
    """
    entries, others = entries_by_folder(find_folder(root, FOLDERS), LABELS)
    return read_entries(
        root,
        entries,
        dataset="bmc",
        label_map=LABELS,
        domain="bmc",
        um_per_px=square_frame(FRAME_UM),
        not_images=others,
        progress=progress,
    )


CARDS = (
    DataSet(
        name="bmc",
        title="Bone marrow, Munich Leukemia Laboratory: 945 patients, May-Grünwald-Giemsa/Pappenheim, Fraunhofer IIS",
        citation="Matek et al., Blood 138:1917-1927 (2021), doi 10.1182/blood.2020010568",
        source="doi 10.7937/TCIA.AXH3-T579",
        licence="CC BY 4.0",
        folder=FOLDERS[0],
        layout=f"{FOLDERS[0]}/<ABBR>/<range>/<ABBR>_00001.jpg",
        n_cells=171_374,
        counts=COUNTS,
        scale="estimated: 40x objective (published) and a camera pixel of 3.45 um (assumed): 250 px are 21.6 um",
        read=read,
        label_set="eight",
        steps=(
            "Open https://www.cancerimagingarchive.net/collection/bone-marrow-cytomorphology_mll_helmholtz_fraunhofer/.",
            "Download the images (6.8 GB, with the IBM Aspera Connect plug-in).",
            f"Unpack them in the data root, so that {FOLDERS[0]}/ABE and its twenty neighbours lie there.",
        ),
        caveats=(
            "bone marrow: another tissue than blood, with other shares of every class",
            "945 patients, but no patient ids in the file names: cells of one may stand in training and test",
            "the article says 171,374 images, the archive's page 171,375, DinoBloom's description 171,373",
            "counts of the classes are from memory of the article; a fifth of each is DinoBloom's published test split",
            "ABE, KSC, FGC and LYI have 8 to 65 cells: a score for one of them is noise",
            "most of it was seen without labels by DinoBloom's training (80 of 100 cells)",
        ),
    ),
)
