"""Chula: crops from smears of Chulalongkorn University, Bangkok, with the slide and smear of each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from cytolib.data.cards import DataSet
from cytolib.data.images import ImageFacts
from cytolib.data.readers.common import Entry, Reading, entries_by_folder, find_folder, read_entries
from cytolib.data.readers.tables import LEFT_OUT, find_file, listed, read_rows

FOLDER = "chula"
FILE = "labels.csv"

LABELS: Mapping[str, str] = {name: name for name in ("neutrophil", "lymphocyte", "eosinophil", "basophil", "monocyte")}
COUNTS: Mapping[str, int] = {
    "neutrophil": 112,
    "lymphocyte": 111,
    "eosinophil": 100,
    "basophil": 100,
    "monocyte": 86,
}

#: Copies were reduced to this many pixels on the longer side; smaller frames are at the camera's resolution.
REDUCED_SIDE = 180
UM_PER_PX = 0.1
UM_PER_PX_REDUCED = 0.13


def um_per_px(_: Entry, facts: ImageFacts) -> float:
    """Estimated from red cells; a frame of just ``REDUCED_SIDE`` pixels was a larger one, by a factor not kept."""
    return UM_PER_PX_REDUCED if max(facts.width, facts.height) == REDUCED_SIDE else UM_PER_PX


def read(root: Path, scratch: Path | None = None, *, progress: bool = True) -> Reading:
    """Read ``root/chula/<class>/<slide_image_cell>.jpg`` as ``labels.csv`` lists them; ``group`` is the slide.

    Images that the file does not list, that lie in another class's folder, or that it lists but that are not there
    are refused by name.
    """
    folder = find_folder(root, (FOLDER,))
    labels = find_file((folder,), FILE, "label, slide and smear of each image")
    left_out: list[LEFT_OUT] = []
    entries, named = [], set()
    for line, (file, label, slide) in read_rows(labels, (("file",), ("label",), ("slide",))):
        where = f"{labels}, line {line}"
        parts = PurePosixPath(file)
        if parts.is_absolute() or ".." in parts.parts or "\\" in file:
            raise ValueError(f"{where}: file {file!r} leaves the folder of {FILE}; name images below it")
        if label not in LABELS:
            raise ValueError(
                f"{where}: label {label!r} is not in the label map ({', '.join(LABELS)}); correct the line"
            )
        path = folder / file
        named.add(path)
        if not path.is_file():
            left_out.append((path, f"line {line} of {FILE} names it, but there is no such file"))
        elif parts.parent.name.lower() != label:
            left_out.append((path, f"line {line} of {FILE} says {label}, but it lies in folder {parts.parent.name}"))
        else:
            entries.append(Entry(path, label, group=slide or None))
    there, others = entries_by_folder(folder, LABELS)
    left_out += [(entry.path, f"{FILE} does not name it") for entry in there if entry.path not in named]
    reading = read_entries(
        root,
        entries,
        dataset="chula",
        label_map=LABELS,
        domain="chula",
        um_per_px=um_per_px,
        not_images=others,
        progress=progress,
    )
    return listed(reading, root, left_out)


CARDS = (
    DataSet(
        name="chula",
        title="Peripheral blood, Chulalongkorn University, Bangkok: 29 slides, plain camera, strong vignetting",
        citation="not found",
        source="not found",
        licence="MIT",
        folder=FOLDER,
        layout=f"{FOLDER}/<class>/<slide>_<image>_<cell>.jpg and {FOLDER}/{FILE} (file, label, slide, smear)",
        n_cells=509,
        counts=COUNTS,
        scale=(
            "estimated from red cells: 0.1 um a pixel in frames that were not reduced (77 px), about 0.13 in those "
            "reduced to 180 px (58 px); each frame was cut to the size of its cell, so single ones are off by 15 %"
        ),
        read=read,
        label_set="five",
        steps=(
            f"Put the class folders and {FILE} into {FOLDER} in the data root.",
            f"{FILE} has the columns file (class/name.jpg), label, slide and smear.",
        ),
        caveats=(
            "one file, L-8_0730_1.jpg, has 7 x 8 pixels and is refused",
            "a stress test, shown apart and in no mean: slides are almost class-pure, class is confounded with slide",
            "groups are slides: a random split scores .83 where leaving slides out scores .45",
            "the same cell was photographed several times: 359 pairs within 56 bits of 256, all within their slides",
            "one of these pairs has two classes: E-11_0990_1 is called eosinophil, E-11_0981_1 lymphocyte",
            "the frame follows the cell's size, so that size is no feature here",
        ),
    ),
)
