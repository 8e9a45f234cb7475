"""CytoData (Deltadahl et al. 2025): the labelled part of half a million cells, ten classes with artefacts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cytolib.data.cards import DataSet
from cytolib.data.readers.common import Reading, class_folders, entries_by_folder, find_folder, read_entries

FOLDERS = ("cytodata", "CytoData")
SPLITS = ("train", "val", "test")

LABELS: Mapping[str, str] = {
    name: name
    for name in (
        "artefact",
        "basophil",
        "blast",
        "eosinophil",
        "erythroblast",
        "lymphocyte",
        "monocyte",
        "neutrophil",
        "platelet",
    )
} | {"ig": "immature_granulocyte"}


def read(root: Path, scratch: Path | None = None, *, progress: bool = True) -> Reading:
    """Read ``root/cytodata/<train, val, test>/<class>/<image>``, or the class folders without these; ``group`` is null.

    The folders' own division is not kept: a split of this project is a file of its own.
    """
    folder = find_folder(root, FOLDERS)
    found = [sub for sub in class_folders(folder) if sub.name != "__MACOSX"]
    divided = [sub for sub in found if sub.name.lower() in SPLITS]
    if divided and len(divided) < len(found):
        odd = next(sub for sub in found if sub not in divided)
        raise ValueError(
            f"{odd}: a folder beside {divided[0].name}; expected {', '.join(SPLITS)} alone, or classes alone"
        )
    parts = [entries_by_folder(part, LABELS) for part in (divided or [folder])]
    return read_entries(
        root,
        [entry for entries, _ in parts for entry in entries],
        dataset="cytodata",
        label_map=LABELS,
        domain="cytodata",
        not_images=[path for _, others in parts for path in others],
        progress=progress,
    )


CARDS = (
    DataSet(
        name="cytodata",
        title="Peripheral blood, Addenbrooke's Hospital, Cambridge: routine samples, ten classes with artefacts",
        citation="Deltadahl et al., Nature Machine Intelligence (2025), arXiv 2408.08982",
        source="https://www.ebi.ac.uk/biostudies/studies/S-BSST2156",
        licence="not found; terms to accept at the source",
        folder=FOLDERS[0],
        aliases=FOLDERS[1:],
        layout="cytodata/<train, val, test>/<class>/<image>, or cytodata/<class>/<image>",
        n_cells=0,
        scale="unknown: no published micrometres a pixel were found",
        read=read,
        held_out_classes=("blast",),
        steps=(
            "Open https://www.ebi.ac.uk/biostudies/studies/S-BSST2156, accept the terms, download the labelled cells.",
            "Put them into cytodata in the data root, a folder a class, named as the set names it (ig, artefact, …).",
        ),
        caveats=(
            "the labelled part has 4,994 or 4,996 cells: two figures are about, neither from the publisher",
            "artefacts belong to no class of most label sets, and are left out of these",
            "the layout was read in other people's programs, not checked on the files",
            "no patient ids: cells of one patient may stand in training and test",
        ),
    ),
)
