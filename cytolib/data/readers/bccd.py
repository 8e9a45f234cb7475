"""BCCD: 364 fields with boxes around white cells and platelets, and a list of one category a field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from cytolib.data.cards import DataSet
from cytolib.data.images import check_plain, load_image
from cytolib.data.readers.common import Entry, Reading, find_folder, image_files, other_files, read_entries
from cytolib.data.readers.crops import cut_square, need_scratch, write_png
from cytolib.data.readers.tables import LEFT_OUT, find_file, listed, read_rows

FOLDERS = ("BCCD_Dataset", "BCCD_Dataset-master", "BCCD")
FILE = "labels.csv"

LABELS: Mapping[str, str] = {
    "NEUTROPHIL": "neutrophil",
    "EOSINOPHIL": "eosinophil",
    "BASOPHIL": "basophil",
    "LYMPHOCYTE": "lymphocyte",
    "MONOCYTE": "monocyte",
    "Platelets": "platelet",
}
WHITE, PLATELET, RED = "WBC", "Platelets", "RBC"
UM_PER_PX = 0.071
SIDE = 310  # pixels: 22 um
_MAX_BYTES = 1_000_000


@dataclass(frozen=True)
class Box:
    """A box of an annotation: name, then left, top, right and bottom in pixels of the field."""

    name: str
    left: int
    top: int
    right: int
    bottom: int


def read_boxes(path: Path) -> list[Box]:
    """The boxes of one Pascal VOC file.

    Raises:
        ValueError: naming the file, if it is too large, no plain UTF-8 XML, has a document type (through which XML may
            open other files or blow up in memory), or a box lacks its name or a coordinate.
    """
    check_plain(path)
    content = path.read_bytes()
    if len(content) > _MAX_BYTES:
        raise ValueError(f"{path}: {len(content):,} bytes; an annotation has under {_MAX_BYTES:,}")
    # Two-byte encodings would hide a document type from the search below.
    if b"\0" in content or content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ValueError(f"{path}: not UTF-8; save the annotation as UTF-8")
    if b"<!DOCTYPE" in content.upper() or b"<!ENTITY" in content.upper():
        raise ValueError(f"{path}: it has a document type or entities; an annotation needs none, take them out")
    try:
        objects = ElementTree.fromstring(content).findall("object")
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise ValueError(f"{path}: not readable XML ({error}); replace it") from error
    return [_box(element, path) for element in objects]


def _box(element: ElementTree.Element, path: Path) -> Box:
    name = (element.findtext("name") or "").strip()
    texts = [(element.findtext(f"bndbox/{key}") or "").strip() for key in ("xmin", "ymin", "xmax", "ymax")]
    try:
        numbers = [int(float(text)) for text in texts]
    except (ValueError, OverflowError):
        numbers = []
    if not name or not numbers:
        raise ValueError(
            f"{path}: box {name or 'without a name'} has the corners {texts}; expected a name and 4 numbers"
        )
    return Box(name, *numbers)


def categories(path: Path) -> dict[int, tuple[str, ...]]:
    """Field number to the categories that ``labels.csv`` names for it, none where the line is empty.

    Raises:
        ValueError: naming the line, for a field that is no number or a category that is not in ``LABELS``.
    """
    found = {}
    for line, (field, text) in read_rows(path, (("image",), ("category",))):
        names = tuple(name.strip() for name in text.split(",") if name.strip())
        if not (field.isascii() and field.isdigit()):
            raise ValueError(f"{path}, line {line}: image is {field!r}; expected the number of a field")
        for name in names:
            if name not in LABELS or name == PLATELET:
                raise ValueError(
                    f"{path}, line {line}: category {name!r} is not in the label map ({', '.join(LABELS)})"
                )
        found[int(field)] = names
    return found


def read(root: Path, scratch: Path | None = None, *, progress: bool = True) -> Reading:
    """Cut white cells and platelets out of the fields into ``scratch/bccd``; ``group`` is the field.

    The boxes name no class of white cell and ``labels.csv`` no box: a white cell has a class only where its field has
    one box and one category. All others are listed as refused. Red cells are not read.
    """
    folder = find_folder(root, FOLDERS)
    scratch = need_scratch(scratch, "bccd")
    places = [folder, folder.parent]
    places += [place / "dataset2-master" for place in places] + [root / "dataset2-master/dataset2-master"]
    labels = find_file(places, FILE, "the category of each field's white cell")
    named = categories(labels)
    fields, notes = find_folder(folder, ("JPEGImages",)), find_folder(folder, ("Annotations",))
    left_out: list[LEFT_OUT] = []
    entries: list[Entry] = []
    images = {path.stem: path for path in image_files(fields)}
    left_out += [(path, "not an image by its name") for path in other_files(fields)]
    left_out += [(path, "no field of this name") for path in sorted(notes.glob("*.xml")) if path.stem not in images]
    for stem, path in images.items():
        entries += _cells(path, notes / f"{stem}.xml", named, scratch, left_out)
    reading = read_entries(
        scratch,
        entries,
        dataset="bccd",
        label_map=LABELS,
        domain="bccd",
        um_per_px=lambda entry, facts: UM_PER_PX,
        image_root="stage",
        progress=progress,
    )
    return listed(reading, root, left_out)


def _cells(
    path: Path, note: Path, named: Mapping[int, tuple[str, ...]], scratch: Path, left_out: list[LEFT_OUT]
) -> Iterator[Entry]:
    """The cells of one field; what has no class or no sound box goes to ``left_out``."""
    number = path.stem.rpartition("_")[2]
    if not number.isdigit():
        left_out.append((path, "its name does not end in the number of a field, as in BloodImage_00012"))
        return
    try:
        boxes = read_boxes(note)
        field = np.asarray(load_image(path))
    except (ValueError, OSError) as error:
        reason = str(error) if isinstance(error, ValueError) else f"annotation {note.name}: {error.strerror}"
        left_out.append((path, reason.removeprefix(f"{path}: ").replace(str(note), note.name)))
        return
    white = sum(box.name == WHITE for box in boxes)
    kinds = named.get(int(number), ())
    if white and (white, len(kinds)) != (1, 1):
        left_out.append((path, f"{white} boxes of white cells, categories {list(kinds)}: which is which is not said"))
    for place, box in enumerate(boxes):
        if box.name not in (WHITE, PLATELET, RED):
            left_out.append((note, f"box {place} is called {box.name!r}; expected {WHITE}, {PLATELET} or {RED}"))
        elif box.name == RED or (box.name == WHITE and (white, len(kinds)) != (1, 1)):
            continue
        elif not (0 <= box.left < box.right <= field.shape[1] and 0 <= box.top < box.bottom <= field.shape[0]):
            left_out.append(
                (note, f"box {place} ({box}) leaves its field of {field.shape[1]} x {field.shape[0]} pixels")
            )
        else:
            image = scratch / "bccd" / f"{path.stem}_{place}.png"
            # Pascal VOC counts pixels from 1 and includes the last one.
            centre = ((box.top - 1 + box.bottom) / 2, (box.left - 1 + box.right) / 2)
            write_png(cut_square(field, centre, SIDE), image)
            yield Entry(image, kinds[0] if box.name == WHITE else PLATELET, group=path.stem)


CARDS = (
    DataSet(
        name="bccd",
        title="Peripheral blood, BCCD: 364 fields of 640 x 480 pixels with boxes",
        citation="Shenggan, BCCD Dataset (github.com/Shenggan/BCCD_Dataset); categories: P. Mooney, Blood Cell Images",
        source="https://github.com/Shenggan/BCCD_Dataset",
        licence="MIT",
        folder=FOLDERS[0],
        aliases=FOLDERS[1:],
        beside=(FILE, "dataset2-master"),
        layout=f"BCCD_Dataset/BCCD/JPEGImages/<field>.jpg, …/Annotations/<field>.xml and BCCD_Dataset/{FILE}",
        n_cells=0,
        scale="estimated from red cells: 71 whole boxes of 7 fields have 105 px (quartiles 97, 109): 0.071 um a pixel",
        read=read,
        steps=(
            "Download https://github.com/Shenggan/BCCD_Dataset as a zip file; call the unpacked folder BCCD_Dataset.",
            f"Put {FILE} of the Blood Cell Images set (kaggle.com/datasets/paultimothymooney/blood-cells) into it.",
        ),
        caveats=(
            "a white cell has a class only where its field has one box and one category: the others are left out",
            "both boxes and categories have known errors (TXL-PBC, arXiv 2407.13214)",
            f"cells are cut out of fields, squares of {SIDE} px around each box; groups are fields",
            "the augmented copies of the Blood Cell Images set repeat these fields and must not be mixed with them",
        ),
    ),
)
