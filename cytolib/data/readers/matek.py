"""Matek-19 (AML-Cytomorphology_LMU): blood of patients with acute myeloid leukaemia and of controls, 15 classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import pandas as pd

from cytolib.data.cards import DataSet
from cytolib.data.readers.common import Reading, entries_by_folder, find_folder, read_entries, square_frame
from cytolib.data.taxonomy import harmonise

FOLDERS = ("AML-Cytomorphology_LMU", "PKG - AML-Cytomorphology_LMU")
FRAME_UM = 29.0

LABELS: Mapping[str, str] = {
    "BAS": "basophil",
    "EBO": "erythroblast",
    "EOS": "eosinophil",
    "KSC": "smudge_cell",
    "LYA": "lymphocyte_atypical",
    "LYT": "lymphocyte",
    "MMZ": "metamyelocyte",
    "MOB": "monoblast",
    "MON": "monocyte",
    "MYB": "myelocyte",
    "MYO": "myeloblast",
    "NGB": "neutrophil_band",
    "NGS": "neutrophil_segmented",
    "PMB": "promyelocyte_bilobed",
    "PMO": "promyelocyte",
}

COUNTS: Mapping[str, int] = {
    "BAS": 79,
    "EBO": 78,
    "EOS": 424,
    "KSC": 15,
    "LYA": 11,
    "LYT": 3937,
    "MMZ": 15,
    "MOB": 26,
    "MON": 1789,
    "MYB": 42,
    "MYO": 3268,
    "NGB": 109,
    "NGS": 8484,
    "PMB": 18,
    "PMO": 70,
}

ANNOTATION_COLUMNS = ("path", "source_label", "second", "third")


def read(root: Path, scratch: Path | None = None, *, progress: bool = True) -> Reading:
    """Read ``AML-Cytomorphology_LMU/<ABBR>/<ABBR>_0001.tiff``; no patient is named, so ``group`` is null."""
    entries, others = entries_by_folder(find_folder(root, FOLDERS), LABELS)
    return read_entries(
        root,
        entries,
        dataset="matek",
        label_map=LABELS,
        domain="matek",
        um_per_px=square_frame(FRAME_UM),
        not_images=others,
        progress=progress,
    )


def read_annotations(file: str | Path) -> pd.DataFrame:
    """What experts said on a second and a third look, from ``annotations.dat``.

    The file has no header and four words a line: ``BAS/BAS_0001.tiff BAS nan nan``. Most cells were looked at once.
    The second and third word are the raters' own and are not mapped: a rater may have been uncertain.

    Returns:
        One row an image: ``path`` (inside the data set's folder), ``source_label``, ``second``, ``third`` (null where
        there was no such look).

    Raises:
        FileNotFoundError, ValueError: naming the line, for a missing or empty file, a line of other than four words,
            an unknown label, a path that leaves the folder, or an image that stands twice.
    """
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; it is published beside the images")
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not a text file; download annotations.dat again") from error
    rows: dict[str, tuple[str | None, ...]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        words = line.split()
        if len(words) != len(ANNOTATION_COLUMNS):
            raise ValueError(f"{where}: {len(words)} words; expected a path, a label and two re-annotations")
        path, label, *again = words
        harmonise(label, LABELS, where)
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise ValueError(f"{where}: {path} leaves the data set's folder; expected a path like BAS/BAS_0001.tiff")
        if path in rows:
            raise ValueError(f"{where}: {path} stands twice; keep one line an image")
        rows[path] = (path, label, *(None if word == "nan" else word for word in again))
    if not rows:
        raise ValueError(f"{file}: it has no lines; download annotations.dat again")
    return pd.DataFrame(list(rows.values()), columns=list(ANNOTATION_COLUMNS))


CARDS = (
    DataSet(
        name="matek",
        title="Peripheral blood, LMU University Hospital Munich: 100 patients with AML and 100 controls, M8 microscope",
        citation="Matek et al., Nature Machine Intelligence 1:538-544 (2019), doi 10.1038/s42256-019-0101-9",
        source="doi 10.7937/tcia.2019.36f5o9ld",
        licence="CC BY 3.0 as others quote it; not confirmed at the source: read it there before you redistribute",
        folder=FOLDERS[0],
        aliases=FOLDERS[1:],
        layout=f"{FOLDERS[0]}/<ABBR>/<ABBR>_0001.tiff",
        n_cells=18_365,
        counts=COUNTS,
        scale="published: 400 x 400 px are 29 x 29 um",
        read=read,
        label_set="eleven",
        steps=(
            "Open https://www.cancerimagingarchive.net/collection/aml-cytomorphology_lmu/ and read its terms.",
            "Download the images (about 11 GB, with the IBM Aspera Connect plug-in).",
            f"Unpack them in the data root, so that {FOLDERS[0]}/BAS and its fourteen neighbours lie there.",
        ),
        caveats=(
            "no patient ids in the file names: cells of one patient may stand in training and test",
            "seen without labels by DinoBloom's training: not an unseen centre for that encoder",
            "from Munich, like mll23 and bmc: a model that goes from one to the other has not left the town",
            "MMZ is the metamyelocyte; the published notebook of MLL23 misspells it, which makes a twelfth class",
            "the published table of MLL23 writes LYA with a blank behind it",
        ),
    ),
)
