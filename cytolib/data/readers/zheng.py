"""Zheng 1 and 2 (Zheng et al. 2018): one white cell a frame, with masks of nucleus and cytoplasm by experts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from cytolib.data.cards import DataSet, Download
from cytolib.data.images import ImageFacts
from cytolib.data.readers.common import Entry, Reading, find_folder, image_files, other_files, read_entries
from cytolib.data.readers.tables import LEFT_OUT, find_file, listed, mask_fault, read_rows

#: The repository unpacks as segmentation_WBC-master.
FOLDERS = ("zheng", "segmentation_WBC-master", "segmentation_WBC")

LABELS: Mapping[str, str] = {
    "1": "neutrophil",
    "2": "lymphocyte",
    "3": "monocyte",
    "4": "eosinophil",
    "5": "basophil",
}
COUNTS: Mapping[int, Mapping[str, int]] = {
    1: {"1": 176, "2": 53, "3": 48, "4": 22, "5": 1},
    2: {"1": 33, "2": 37, "3": 15, "4": 12, "5": 3},
}
_MASK = "_mask"
#: Frames of Dataset 1 are cut at the camera's resolution. Those of Dataset 2 are 300 px wide at the 10 px/um of a
#: CellaVision scanner, and may lie there reduced.
UM_PER_PX_1 = 0.185
FRAME_UM_2 = 30.0


def _um_per_px(number: int, _: Entry, facts: ImageFacts) -> float:
    return UM_PER_PX_1 if number == 1 else FRAME_UM_2 / max(facts.width, facts.height)


def images_and_masks(folder: Path) -> tuple[dict[int, Path], dict[int, Path]]:
    """Image and mask of each number: ``001.png`` and ``001_mask.png``, or as published ``001.bmp`` and ``001.png``.

    Raises:
        ValueError: for an image whose name is no number, or two images of one number.
    """
    images: dict[int, Path] = {}
    masks: dict[int, Path] = {}
    paths = list(image_files(folder))
    published = {path.stem for path in paths if path.suffix.lower() == ".bmp"}
    for path in paths:
        stem = path.stem
        is_mask = stem.endswith(_MASK) or (path.suffix.lower() == ".png" and stem in published)
        number = stem.removesuffix(_MASK)
        if not (number.isascii() and number.isdigit()):
            raise ValueError(f"{path}: its name is no number; expected images 001, 002, … and their masks")
        chosen = masks if is_mask else images
        if int(number) in chosen:
            raise ValueError(f"{path}: {chosen[int(number)].name} has the same number; keep one of the two")
        chosen[int(number)] = path
    return images, masks


def read(root: Path, scratch: Path | None = None, *, number: int, progress: bool = True) -> Reading:
    """Read ``Dataset <number>`` and ``Class Labels of Dataset <number>.csv``; masks go into the column ``mask``.

    A mask that is broken or of another size is refused by name and its cell kept without one.
    """
    name = f"Dataset {number}"
    folder = find_folder(root if (root / name).is_dir() else find_folder(root, FOLDERS), (name,))
    labels = find_file((folder.parent, folder), f"Class Labels of {name}.csv", "the class number of each image")
    images, masks = images_and_masks(folder)
    left_out: list[LEFT_OUT] = []
    entries, named = [], set()
    for line, (image_id, label) in read_rows(labels, (("image id",), ("class label", "class"))):
        where = f"{labels}, line {line}"
        if not (image_id.isascii() and image_id.isdigit()):
            raise ValueError(f"{where}: image ID is {image_id!r}; expected a number")
        if label not in LABELS:
            raise ValueError(f"{where}: class is {label!r}; expected a number of 1 to {len(LABELS)}")
        image, mask = images.get(int(image_id)), masks.get(int(image_id))
        if int(image_id) in named:
            raise ValueError(f"{where}: image {int(image_id)} stands twice; keep one of the two lines")
        named.add(int(image_id))
        if image is None:
            missing = folder / f"{int(image_id):03d}"
            left_out.append((missing, f"line {line} of {labels.name} names it, but there is no such image"))
            continue
        reason = mask_fault(image, mask) if mask else ""
        if mask and reason:
            left_out.append((mask, reason))
        entries.append(Entry(image, label, mask=None if reason else mask))
    left_out += [(path, f"{labels.name} does not name it") for key, path in images.items() if key not in named]
    left_out += [(path, "a mask without its image") for key, path in masks.items() if key not in images]
    reading = read_entries(
        root,
        entries,
        dataset=f"zheng{number}",
        label_map=LABELS,
        domain=f"zheng{number}",
        um_per_px=partial(_um_per_px, number),
        not_images=other_files(folder),
        progress=progress,
    )
    return listed(reading, root, left_out)


_CITATION = "Zheng et al., Micron 107:55-71 (2018), doi 10.1016/j.micron.2018.01.010"
_SOURCE = "https://github.com/zxaoyou/segmentation_WBC"
_DOWNLOADS = (Download(f"{_SOURCE}/archive/refs/heads/master.zip", "segmentation_WBC-master.zip"),)
_STEPS = (
    "Download https://github.com/zxaoyou/segmentation_WBC as a zip file and unpack it.",
    'Call the unpacked folder zheng and put it into the data root, so that "zheng/Dataset 1" lies there.',
)
_NOT_EXPERT = "class labels were not checked by experts; the masks were drawn by experts"

CARDS = (
    DataSet(
        name="zheng1",
        title="Peripheral blood, Jiangxi Tecom, China: rapid stain, yellow ground, tight frames, with masks",
        citation=_CITATION,
        source=_SOURCE,
        licence="GPL-3.0",
        folder="zheng",
        aliases=(*FOLDERS[1:], "Dataset 1"),
        beside=("Class Labels of Dataset 1.csv",),
        layout="zheng/Dataset 1/<number>.png, <number>_mask.png, zheng/Class Labels of Dataset 1.csv",
        n_cells=300,
        counts=COUNTS[1],
        scale="estimated from ghosts of red cells (0.17), neutrophils (0.18), nuclei of lymphocytes (0.21 um a pixel)",
        read=partial(read, number=1),
        label_set="five",
        downloads=_DOWNLOADS,
        steps=_STEPS,
        caveats=(
            _NOT_EXPERT,
            "one basophil: macro F1 is over the four other classes",
            "two files are byte for byte the same; three more pairs, perhaps four, show one cell twice",
            "red cells are lysed by the stain, so the scale is the least certain of all",
        ),
    ),
    DataSet(
        name="zheng2",
        title="Peripheral blood of the CellaVision blog: one white cell a frame, with masks",
        citation=_CITATION,
        source=_SOURCE,
        licence="GPL-3.0",
        folder="zheng",
        aliases=(*FOLDERS[1:], "Dataset 2"),
        beside=("Class Labels of Dataset 2.csv",),
        layout="zheng/Dataset 2/<number>.jpg, <number>_mask.png, zheng/Class Labels of Dataset 2.csv",
        n_cells=100,
        counts=COUNTS[2],
        scale="estimated from red cells: 44.6 px in frames of 180 px, so 300 px are 30 um, as on CellaVision scanners",
        read=partial(read, number=2),
        label_set="five",
        downloads=_DOWNLOADS,
        steps=_STEPS,
        caveats=(
            _NOT_EXPERT,
            "chosen for teaching: many cells are reactive or abnormal, and larger than in healthy blood",
            "three basophils: macro F1 is over the four other classes",
        ),
    ),
)
