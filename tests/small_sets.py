"""Small copies of published data sets, in their layouts, for the tests of readers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from cytolib.data.readers import choi, chula
from cytolib.data.readers.common import Reading
from tests.cell_tables import blobs


def refused(reading: Reading) -> dict[str, str]:
    """Path and reason of what was refused, each reason one line."""
    assert not reading.refused["reason"].str.contains("\n").any()
    return dict(zip(reading.refused["path"], reading.refused["reason"], strict=True))


def write(path: Path, text: str) -> Path:
    """Write ``text``, with the folders it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def replace_text(path: Path, old: str, new: str) -> None:
    """Replace what must be there."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def disc(path: Path, cells: list[tuple[int, int]], size: tuple[int, int] = (400, 300), levels: bool = True) -> Path:
    """A mask of round cells: 255 nucleus of 15 pixels' radius in 128 cytoplasm of 25, or 255 alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows, columns = np.mgrid[: size[1], : size[0]]
    mask = np.zeros((size[1], size[0]), dtype=np.uint8)
    for row, column in cells:
        away = np.hypot(rows - row, columns - column)
        mask[away < 25] = 128 if levels else 255
        mask[away < 15] = 255
    Image.fromarray(mask).save(path)
    return path


def bangkok(root: Path) -> Path:
    """Chula: five classes, one image of a frame that was not reduced."""
    rows = ["file,label,slide,smear"]
    for seed, label in enumerate(chula.LABELS):
        blobs(root / "chula" / label / f"S-{seed}_0001_0.png", seed, (180, 179))
        rows.append(f"{label}/S-{seed}_0001_0.png,{label},S-{seed},S-{seed}_0001")
    blobs(root / "chula" / "basophil" / "S-9_0002_0.png", 9, (120, 120))
    rows.append("basophil/S-9_0002_0.png,basophil,S-9,S-9_0002")
    write(root / "chula" / "labels.csv", "\n".join(rows))
    return root


def jiangxi(root: Path) -> Path:
    """Zheng 1 and 2: an image of each class, with masks; the label files' columns differ in name."""
    for number, column, suffix, size in ((1, "class label", "png", 60), (2, "class", "jpg", 90)):
        folder = root / "zheng" / f"Dataset {number}"
        for k in range(1, 6):
            blobs(folder / f"{k:03d}.{suffix}", 10 * number + k, (size, size))
            disc(folder / f"{k:03d}_mask.png", [(size // 2, size // 2)], (size, size))
        rows = [f"image ID,{column}", *(f"{k},{k}" for k in range(1, 6))]
        write(folder.parent / f"Class Labels of Dataset {number}.csv", "\n".join(rows))
    return root


def seoul(root: Path) -> Path:
    """Choi: an image of each folder, the two last ones in small frames."""
    for seed, label in enumerate(choi.LABELS):
        side = 96 if label in "89" else 144
        blobs(root / "choi_bone_marrow" / label / "1.png", seed, (side, side))
    return root


def tehran(root: Path) -> Path:
    """LISC: three fields; that of eosinophils has two cells, that of mixt cells of several classes."""
    base = root / "LISC Database"
    for seed, (label, cells) in enumerate(
        {"Baso": [(100, 100)], "eosi": [(60, 80), (140, 150)], "mixt": [(60, 80), (200, 300)]}.items()
    ):
        blobs(base / "Main Dataset" / label / "1.bmp", seed, (400, 300))
        disc(base / "Ground Truth Segmentation" / label / "areaforexpert1" / "1_expert.bmp", cells)
    return root


def voc(boxes: list[tuple[str, int, int, int, int]]) -> str:
    """A Pascal VOC annotation: name, xmin, ymin, xmax, ymax of each box."""
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
        for name, a, b, c, d in boxes
    )
    return f"<annotation><filename>x.jpg</filename>{objects}</annotation>"


WHITE = ("WBC", 260, 177, 491, 376)
PLATELET = ("Platelets", 100, 100, 140, 135)
FIELDS: dict[int, tuple[str, list[tuple[str, int, int, int, int]]]] = {
    0: ("NEUTROPHIL", [WHITE, ("RBC", 78, 336, 184, 435), PLATELET]),
    1: ('"NEUTROPHIL, EOSINOPHIL"', [WHITE, ("WBC", 1, 1, 150, 150)]),
    2: ("", [WHITE]),
    3: ("MONOCYTE", [WHITE, ("WBC", 1, 1, 150, 150), PLATELET]),
    4: ("BASOPHIL", [("WBC", 560, 400, 640, 480)]),
}


def fields(root: Path) -> Path:
    """BCCD: five fields, two of which name one white cell for one box."""
    base = root / "BCCD_Dataset"
    for number, (_, boxes) in FIELDS.items():
        blobs(base / "BCCD" / "JPEGImages" / f"BloodImage_{number:05d}.jpg", number, (640, 480))
        write(base / "BCCD" / "Annotations" / f"BloodImage_{number:05d}.xml", voc(boxes))
    lines = [",Image,Category", *(f"{k},{k},{category}" for k, (category, _) in FIELDS.items())]
    write(base / "labels.csv", "\n".join(lines))
    return root
