"""What all readers share: find the images, look at each once, refuse the broken ones by name, go on with the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from cytolib import run
from cytolib.data.images import IMAGE_SUFFIXES, ImageFacts, inspect_image
from cytolib.data.taxonomy import harmonise
from cytolib.text import hides, printable

#: Columns of ``Reading.cells``: the cell table's but for ``label`` and ``split``, and facts about the image.
READ_COLUMNS: tuple[str, ...] = (
    "cell_id",
    "path",
    "cell_type",
    "source_label",
    "domain",
    "dataset",
    "group",
    "um_per_px",
    "mask",
    "width",
    "height",
    "perceptual_hash",
)


@dataclass(frozen=True)
class Entry:
    """One image that a data set says it has, before anybody opened it; its own domain and scale if it names them."""

    path: Path
    source_label: str
    group: str | None = None
    mask: Path | None = None
    domain: str | None = None
    um_per_px: float | None = None


@dataclass(frozen=True)
class Reading:
    """What a reader found.

    Attributes:
        cells: ``READ_COLUMNS``; one row a readable image.
        refused: ``path``, ``reason``; one row an image that could not be read.
        image_root: "data" if paths are relative to the data root, "stage" if the reader wrote the images itself.
    """

    cells: pd.DataFrame
    refused: pd.DataFrame
    image_root: str = "data"


def require_folder(folder: Path) -> Path:
    """``folder``, if it is there.

    Raises:
        FileNotFoundError: else, saying what to do.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: no such folder; put the images there or set CYTOLIB_DATA to the folder above it"
        )
    return folder


def class_folders(folder: Path) -> list[Path]:
    """The folders in ``folder``, sorted, hidden ones left out.

    Raises:
        FileNotFoundError, ValueError: if it is missing or has none.
    """
    classes = sorted(e for e in require_folder(folder).iterdir() if e.is_dir() and not e.name.startswith("."))
    if not classes:
        raise ValueError(f"{folder}: no class folders in it; expected one folder a class with images inside")
    return classes


def find_folder(root: Path, names: Sequence[str]) -> Path:
    """The data set's folder in ``root``: the first of ``names`` that is there, in whatever case.

    Archives often unpack to a folder in a folder of the same name: then it is the inner one.

    Raises:
        FileNotFoundError: if none is there.
    """
    found: Path | None = None
    place = root
    for _ in range(3):
        within = {e.name.lower(): e for e in sorted(place.iterdir()) if e.is_dir()} if place.is_dir() else {}
        inner = next((within[name.lower()] for name in names if name.lower() in within), None)
        if inner is None:
            break
        found = place = inner
    return found or require_folder(root / names[0])


def entries_by_folder(folder: Path, labels: Iterable[str]) -> tuple[list[Entry], list[Path]]:
    """Entries of ``folder/<label>/<image>``, images at any depth, and the files there that are no images.

    A folder's name is the label, in whatever case; one that is none of ``labels`` is kept as it is, so that
    ``read_entries`` refuses it. What macOS leaves in archives (``__MACOSX``, ``._*``) is passed over.

    Raises:
        FileNotFoundError, ValueError: if ``folder`` is missing or has no folders.
    """
    spelt = {label.lower(): label for label in labels}
    entries: list[Entry] = []
    others: list[Path] = []
    for class_folder in class_folders(folder):
        if class_folder.name == "__MACOSX":
            continue
        label = spelt.get(class_folder.name.strip().lower(), class_folder.name)
        for path in sorted(class_folder.rglob("*")):
            hidden = any(part.startswith(".") for part in path.relative_to(class_folder).parts)
            if hidden or path.is_dir():
                continue
            if path.suffix.lower() in IMAGE_SUFFIXES:
                entries.append(Entry(path, label))
            else:
                others.append(path)
    return entries, others


def square_frame(micrometres: float) -> Callable[[Entry, ImageFacts], float | None]:
    """Micrometres a pixel of frames that were published as squares of this side, whatever pixels a copy has.

    A frame that is no square was cut otherwise: its scale is unknown.
    """

    def um_per_px(_: Entry, facts: ImageFacts) -> float | None:
        return micrometres / facts.width if facts.width == facts.height else None

    return um_per_px


def image_files(folder: Path) -> Iterator[Path]:
    """Image files directly in ``folder``, by name; hidden ones (``._x.jpg`` of some archivers) left out."""
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
            yield path


def other_files(folder: Path) -> list[Path]:
    """Files directly in ``folder`` that are no images by their names: listed as refused, not passed over."""
    return [
        path
        for path in sorted(folder.iterdir())
        if not path.is_dir() and path.suffix.lower() not in IMAGE_SUFFIXES and not path.name.startswith(".")
    ]


def read_entries(
    root: Path,
    entries: Iterable[Entry],
    *,
    dataset: str,
    label_map: Mapping[str, str],
    domain: str | Callable[[Entry, ImageFacts], str],
    um_per_px: Callable[[Entry, ImageFacts], float | None] | None = None,
    not_images: Sequence[Path] = (),
    image_root: str = "data",
    progress: bool = True,
) -> Reading:
    """Open every image once, in threads, and make the table of what is readable.

    Args:
        root: paths in the table are relative to it.
        entries: the images and the source's own labels.
        dataset: name of the data set.
        label_map: source label to cell type.
        domain: site, scanner or stain; the same for all, or from an entry and the facts of its image.
        um_per_px: micrometres a pixel of the file as it lies there; None where unknown.
        not_images: files to list as refused because they are no images.
        image_root: "data" or "stage", see ``Reading``.
        progress: show a progress bar.

    Raises:
        ValueError: for a label that ``label_map`` lacks, or if no image at all can be read.
    """
    entries = list(entries)
    for entry in entries:  # before the long work
        harmonise(entry.source_label, label_map, str(entry.path))
    rows: list[dict[str, object]] = []
    refused = [{"path": _relative(path, root), "reason": "not an image by its name"} for path in not_images]
    with ThreadPoolExecutor(run.threads()) as pool:
        found = tqdm(
            pool.map(_look, (entry.path for entry in entries)),
            total=len(entries),
            desc=f"reading {dataset}",
            unit="cell",
            disable=not progress,
        )
        for entry, facts in zip(entries, found, strict=True):
            if isinstance(facts, str):
                refused.append({"path": _relative(entry.path, root), "reason": facts})
                continue
            scale = um_per_px(entry, facts) if um_per_px else None
            rows.append(
                {
                    "cell_id": facts.cell_id,
                    "path": _relative(entry.path, root),
                    "cell_type": label_map[entry.source_label],
                    "source_label": entry.source_label,
                    "domain": entry.domain or (domain if isinstance(domain, str) else domain(entry, facts)),
                    "dataset": dataset,
                    "group": entry.group,
                    "um_per_px": scale if entry.um_per_px is None else entry.um_per_px,
                    "mask": _relative(entry.mask, root) if entry.mask else None,
                    "width": facts.width,
                    "height": facts.height,
                    "perceptual_hash": facts.perceptual_hash,
                }
            )
    if not rows:
        first = f"; the first: {refused[0]['reason']}" if refused else ""
        raise ValueError(f"{dataset}: none of {len(entries)} files under {root} is a readable image{first}")
    cells = pd.DataFrame(rows, columns=list(READ_COLUMNS))
    cells["um_per_px"] = cells["um_per_px"].astype("float64")
    return Reading(cells, pd.DataFrame(refused, columns=["path", "reason"]), image_root)


def _look(path: Path) -> ImageFacts | str:
    """The facts of an image, or the sentence that refuses it, without its path: the report has a column for that."""
    if hides(path.name):
        return "its name has control or direction characters, or is no UTF-8; rename it"
    try:
        return inspect_image(path)
    except OSError as error:
        return error.strerror or "cannot be read"
    except ValueError as error:
        return str(error).removeprefix(f"{path}: ")


def _relative(path: Path, root: Path) -> str:
    """The path for the table; hidden characters, which only refused files have, as escapes."""
    return printable(path.relative_to(root).as_posix())
