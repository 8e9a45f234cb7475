"""MLL23 (Munich Leukemia Laboratory): blood of haematological patients, 18 class folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cytolib.data.cards import DataSet
from cytolib.data.readers.common import Reading, entries_by_folder, find_folder, read_entries, square_frame

FOLDERS = ("MLL23_dataset", "MLL23")
FRAME_UM = 25.0

#: Source labels are harmonised names already, but for the normoblast.
LABELS: Mapping[str, str] = {
    "basophil": "basophil",
    "eosinophil": "eosinophil",
    "hairy_cell": "hairy_cell",
    "lymphocyte": "lymphocyte",
    "lymphocyte_large_granular": "lymphocyte_large_granular",
    "lymphocyte_neoplastic": "lymphocyte_neoplastic",
    "lymphocyte_reactive": "lymphocyte_reactive",
    "metamyelocyte": "metamyelocyte",
    "monocyte": "monocyte",
    "myeloblast": "myeloblast",
    "myelocyte": "myelocyte",
    "neutrophil_band": "neutrophil_band",
    "neutrophil_segmented": "neutrophil_segmented",
    "normoblast": "erythroblast",
    "plasma_cell": "plasma_cell",
    "promyelocyte": "promyelocyte",
    "promyelocyte_atypical": "promyelocyte_atypical",
    "smudge_cell": "smudge_cell",
}

#: As counted in the published label table; the description of an earlier state says 41,906.
COUNTS: Mapping[str, int] = {
    "basophil": 616,
    "eosinophil": 2448,
    "hairy_cell": 3265,
    "lymphocyte": 5532,
    "lymphocyte_large_granular": 1849,
    "lymphocyte_neoplastic": 180,
    "lymphocyte_reactive": 33,
    "metamyelocyte": 483,
    "monocyte": 2510,
    "myeloblast": 8606,
    "myelocyte": 747,
    "neutrophil_band": 687,
    "neutrophil_segmented": 7170,
    "normoblast": 2071,
    "plasma_cell": 1658,
    "promyelocyte": 745,
    "promyelocyte_atypical": 2033,
    "smudge_cell": 988,
}


def read(root: Path, scratch: Path | None = None, *, progress: bool = True) -> Reading:
    """Read ``MLL23_dataset/<class>/<class>_0001.TIF``; no patient is named, so ``group`` is null."""
    entries, others = entries_by_folder(find_folder(root, FOLDERS), LABELS)
    return read_entries(
        root,
        entries,
        dataset="mll23",
        label_map=LABELS,
        domain="mll23",
        um_per_px=square_frame(FRAME_UM),
        not_images=others,
        progress=progress,
    )


CARDS = (
    DataSet(
        name="mll23",
        title="Peripheral blood, Munich Leukemia Laboratory: haematological patients 2021-24, Pappenheim, Metafer",
        citation="Shetab Boushehri et al., Scientific Data 12:1773 (2025), doi 10.1038/s41597-025-06223-x",
        source="doi 10.5281/zenodo.14277609",
        licence="not found: read it at the source before you redistribute",
        folder=FOLDERS[0],
        aliases=FOLDERS[1:],
        layout=f"{FOLDERS[0]}/<class>/<class>_0001.TIF",
        n_cells=41_621,
        counts=COUNTS,
        scale="published: 288 x 288 px are 25 x 25 um",
        read=read,
        label_set="eleven",
        steps=(
            "Open https://zenodo.org/records/14277609 and download its 18 archives, one a class.",
            f"Unpack all of them in {FOLDERS[0]} in the data root, so that {FOLDERS[0]}/basophil lies there.",
        ),
        caveats=(
            "no patient ids in the file names: cells of one patient may stand in training and test",
            "the description says 41,906 images, the label table 41,621: counted here are the files that lie there",
            "its table of harmonised labels swaps the two count columns of PBC for five classes",
            "from Munich, like matek and bmc: a model that goes from one to the other has not left the town",
        ),
    ),
)
