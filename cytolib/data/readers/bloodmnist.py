"""BloodMNIST (Yang et al. 2023): the cells of PBC again, cut to 20 um and made small, in one NumPy archive a size."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm.auto import tqdm

from cytolib.data.cards import DataSet, Download
from cytolib.data.readers.common import Entry, Reading, read_entries, square_frame
from cytolib.run.artefacts import put_bytes

#: In the order of the numbers in the archive. ``ig``: promyelocytes, myelocytes and metamyelocytes together.
NAMES = ("basophil", "eosinophil", "erythroblast", "ig", "lymphocyte", "monocyte", "neutrophil", "platelet")
LABELS: Mapping[str, str] = {name: "immature_granulocyte" if name == "ig" else name for name in NAMES}
COUNTS: Mapping[str, int] = dict(zip(NAMES, (1218, 3117, 1551, 2895, 1214, 1420, 3329, 2348), strict=True))
SPLITS: Mapping[str, int] = {"train": 11_959, "val": 1712, "test": 3421}
#: 200 px of PBC's frame of 0.1 um a pixel.
FRAME_UM = 20.0
#: The publisher's sums (medmnist 3, info.py).
MD5: Mapping[int, str] = {
    28: "7053d0359d879ad8a5505303e11de1dc",
    64: "2b94928a2ae4916078ca51e05b6b800b",
    128: "adace1e0ed228fccda1f39692059dd4c",
    224: "b718ff6835fcbdb22ba9eacccd7b2601",
}
LILAC_BELOW = 10.5  # red minus blue of the slide's light: at most 6 in the lilac images of PBC, at least 15 elsewhere


def file_name(size: int) -> str:
    """``bloodmnist_224.npz``; the smallest has no number."""
    return "bloodmnist.npz" if size == 28 else f"bloodmnist_{size}.npz"


def read(root: Path, scratch: Path, *, size: int, progress: bool = True) -> Reading:
    """Read ``root/bloodmnist_<size>.npz`` and write its cells to ``scratch/bloodmnist/<split>/<class>/<row>.png``.

    Its own split stands in the path and is not used. The images' domains are those of PBC, told apart by the colour
    of the empty slide: it is no second site.

    Raises:
        FileNotFoundError, ValueError: for a missing or damaged archive, missing or odd arrays, or a number that is
            no class.
    """
    file = root / file_name(size)
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; `cytolib data get {_name(size)}` downloads it")
    try:
        with zipfile.ZipFile(file) as archive:
            entries = list(_write_images(archive, file, scratch, size, progress))
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # RuntimeError: a password
        raise ValueError(f"{file}: not a readable NumPy archive ({_line(error)}); download it again") from error
    return read_entries(
        scratch,
        entries,
        dataset="bloodmnist",
        label_map=LABELS,
        domain="pbc_main",
        um_per_px=square_frame(FRAME_UM),
        image_root="stage",
        progress=progress,
    )


def _write_images(archive: zipfile.ZipFile, file: Path, scratch: Path, size: int, progress: bool) -> Iterator[Entry]:
    for split in SPLITS:
        labels = _labels(archive, file, split)
        for name in NAMES:
            (scratch / "bloodmnist" / split / name).mkdir(parents=True, exist_ok=True)
        pictures = _images(archive, file, split, size, len(labels))
        for row, pixels in enumerate(
            tqdm(pictures, total=len(labels), desc=f"unpacking {split}", unit="cell", disable=not progress)
        ):
            label = NAMES[labels[row]]
            path = scratch / "bloodmnist" / split / label / f"{row:05d}.png"
            png = io.BytesIO()
            Image.fromarray(pixels).save(png, format="PNG", compress_level=1)
            put_bytes(png.getvalue(), path)
            yield Entry(path, label, domain="pbc_lilac" if slide_colour(pixels) < LILAC_BELOW else "pbc_main")


def slide_colour(pixels: NDArray[np.uint8]) -> float:
    """Red minus blue of the brightest tenth of an image (H, W, 3), the empty slide: about 50 in PBC, 0 if lilac."""
    step = max(1, len(pixels) // 28)  # the slide is even: every eighth pixel of 224 will do
    flat = pixels[::step, ::step].reshape(-1, 3).astype(int)
    light = flat.sum(axis=1)
    slide = np.median(flat[light >= np.quantile(light, 0.9)], axis=0)
    return float(slide[0] - slide[2])


def _labels(archive: zipfile.ZipFile, file: Path, split: str) -> NDArray[np.int64]:
    with _member(archive, file, f"{split}_labels") as stream:
        try:
            labels = np.lib.format.read_array(stream, allow_pickle=False).ravel()
        except (ValueError, MemoryError) as error:
            raise ValueError(f"{file}: {split}_labels is no plain array ({_line(error)}); download it again") from error
    if labels.dtype.kind not in "iu":
        raise ValueError(f"{file}: {split}_labels holds {labels.dtype}; expected whole numbers from 0 to 7")
    wrong = np.flatnonzero((labels < 0) | (labels >= len(NAMES)))
    if wrong.size:
        raise ValueError(f"{file}: {split}_labels[{wrong[0]}] is {labels[wrong[0]]}; expected 0 to {len(NAMES) - 1}")
    return labels.astype(np.int64)


def _images(archive: zipfile.ZipFile, file: Path, split: str, size: int, n: int) -> Iterator[NDArray[np.uint8]]:
    """The images of a split, one after the other: 224 px are 1.8 GB at once."""
    name = f"{split}_images"
    with _member(archive, file, name) as stream:
        try:
            version = np.lib.format.read_magic(stream)
            header = np.lib.format.read_array_header_1_0 if version[0] == 1 else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = header(stream)
        except ValueError as error:
            raise ValueError(f"{file}: {name} is no plain array ({_line(error)}); download it again") from error
        if shape != (n, size, size, 3) or dtype != np.uint8 or fortran:
            raise ValueError(
                f"{file}: {name} is {dtype} {shape}; expected uint8 ({n}, {size}, {size}, 3), one image a label"
            )
        for row in range(n):
            content = stream.read(size * size * 3)
            if len(content) < size * size * 3:
                raise ValueError(f"{file}: {name} ends after {row} of {n} images; download it again")
            yield np.frombuffer(content, np.uint8).reshape(size, size, 3)


def _member(archive: zipfile.ZipFile, file: Path, name: str) -> zipfile.ZipExtFile:
    try:
        return archive.open(f"{name}.npy")  # type: ignore[return-value]
    except KeyError as error:
        found = ", ".join(sorted(entry.removesuffix(".npy") for entry in archive.namelist()))
        raise ValueError(f"{file}: no array {name} in it, only {found}; is it BloodMNIST?") from error


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _name(size: int) -> str:
    return file_name(size).removesuffix(".npz")


def _card(size: int) -> DataSet:
    file = file_name(size)
    return DataSet(
        name=_name(size),
        title=f"The cells of PBC again, centre 20 x 20 um, {size} x {size} px",
        citation="Yang et al., Scientific Data 10:41 (2023), doi 10.1038/s41597-022-01721-8; Acevedo et al. (2020)",
        source="doi 10.5281/zenodo.10519652",
        licence="CC BY 4.0",
        folder=file,
        layout=f"{file} with arrays train_images, train_labels, val_images, …",
        n_cells=sum(SPLITS.values()),
        counts=COUNTS,
        scale=f"from PBC's: the central 200 px of 0.1 um, made {size} px: {FRAME_UM / size:.3f} um a pixel",
        read=partial(read, size=size),
        held_out_domains=("pbc_lilac",),
        downloads=(
            Download(
                f"https://zenodo.org/records/10519652/files/{file}?download=1", file, f"md5:{MD5[size]}", unpack=False
            ),
        ),
        caveats=(
            "the same cells as pbc: never a second domain or an unseen test set beside it",
            "its own split stands in the path and is not used: it would not agree with one of pbc",
            "the subtypes of neutrophils and immature granulocytes are lost",
            "no patient ids: cells of one donor may stand in training and test",
            "pbc_lilac is told from pbc_main by the colour of the slide, as the frame's size is lost",
        ),
    )


CARDS = tuple(_card(size) for size in MD5)
