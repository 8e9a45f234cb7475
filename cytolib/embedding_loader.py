"""Getting cells to encoders: read, checked, resized, framed or measured ahead of them, in order."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cytolib import embedding_pool, run
from cytolib.data import images
from cytolib.morphometry import Sight

if TYPE_CHECKING:
    import pandas as pd


_TURN = 512  # cells that are prepared before a network on the same cores takes its turn: as many as a shard has


class Task(NamedTuple):
    """A cell to embed: image file, the cell_id that its bytes must have, its scale where a field of view needs it."""

    file: str
    cell_id: str
    um_per_px: float | None


def load_checked(task: Task, field_of_view_um: float) -> Image.Image:
    """The image of a task, after its bytes proved to be those of its ``cell_id``.

    Raises:
        ValueError: if they are not, or it is no plain file; FileNotFoundError if there is no such file.
    """
    try:
        images.check_plain(task.file)
        file = open(task.file, "rb")
    except OSError as error:
        raise FileNotFoundError(
            f"{task.file}: the cell table names it, but it cannot be read ({error.strerror}); "
            "read the data folder again (notebook 00_data)"
        ) from error
    with file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != task.cell_id:
            raise ValueError(
                f"{task.file}: its bytes have sha256 {found[:12]}…, the cell table's cell_id says "
                f"{task.cell_id[:12]}…; the image was changed: read the data folder again (notebook 00_data)"
            )
        file.seek(0)
        return images.load_image(task.file, field_of_view_um, task.um_per_px, opened=file)


class Part(Protocol):
    """What is done to a cell before an encoder sees it (see ``cytolib.transforms``)."""

    laborious: Any

    def prepared(self, sight: Sight) -> NDArray[Any]:
        """What the encoder takes of one cell."""


class Work(NamedTuple):
    """Cells, and the places of the encoders that they are to be prepared for."""

    tasks: Sequence[Task]
    wanted: tuple[int, ...]


@dataclass(frozen=True)
class Preparation:
    """Work -> what each wanted encoder takes of its cells, (B, ...) arrays by the encoder's place; picklable.

    An image is read once, and segmented once, for all encoders that stand side by side.
    """

    parts: tuple[Part, ...]
    field_of_view_um: float

    @property
    def laborious(self) -> bool:
        """Whether a cell costs milliseconds, so that processes pay."""
        return any(part.laborious for part in self.parts)

    def __call__(self, work: Work) -> dict[int, NDArray[Any]]:
        sights = (Sight(load_checked(task, self.field_of_view_um)) for task in work.tasks)
        cells = [[self.parts[k].prepared(sight) for k in work.wanted] for sight in sights]
        return {k: np.stack(column) for k, column in zip(work.wanted, zip(*cells, strict=True), strict=True)}


def prepared_batches(
    prepare: Preparation, work: Iterable[Work], workers: int, batch_size: int, *, network: bool, accelerator: bool
) -> Generator[dict[int, Any], None, None]:
    """``map(prepare, work)``, in order: in ``workers`` processes, or with 0 in threads of this process.

    Pillow lets go of the interpreter lock while it decodes and resizes. Beside an accelerator threads read ahead; on a
    CPU they take turns with the network, which wants all cores at once: a thread that decodes on one of them makes the
    others wait at every layer (0.74 of the bare model's speed when reading ahead, 0.91 in turns: MobileNetV2, 2 cores).
    Processes do not wait for the lock either, which tells from several thousand cells a second, on an accelerator, and
    where a cell costs milliseconds, on a CPU: there they take turns with the network as threads do, or work ahead
    where no ``network`` follows.
    """
    if workers and (accelerator or not prepare.laborious):
        return embedding_pool.in_processes(prepare, work, workers, pin=accelerator)
    turn = max(workers or run.threads(), _TURN // batch_size)
    if workers:
        return embedding_pool.in_pool(prepare, work, workers, turn if network else None)
    if not network:
        return (prepare(cells) for cells in work)
    if accelerator:
        return embedding_pool.in_threads(prepare, work, run.threads())
    return embedding_pool.in_turns(prepare, work, run.threads(), turn)


def check_table(cells: pd.DataFrame, root: Path) -> None:
    """Raise, in one sentence, where ``cells`` is no cell table, or ``root`` no folder."""
    missing = [name for name in ("cell_id", "path") if name not in cells.columns]
    if missing:
        raise ValueError(f"cell table: columns {missing} are missing; expected cell_id and path")
    if cells.empty:
        raise ValueError("cell table: it has no rows, so there is nothing to embed")
    if not root.is_dir():
        raise FileNotFoundError(f"image root {root} is no folder; point CYTOLIB_DATA at the data or pass the right one")
    twice = cells["cell_id"].duplicated()
    if twice.any():
        row = int(twice.to_numpy().argmax())
        raise ValueError(f"cell table: cell_id {cells['cell_id'].iloc[row]} in row {row} stands twice; drop duplicates")


def scales_of(cells: pd.DataFrame, field_of_view_um: float) -> NDArray[np.float64] | None:
    """Micrometres a pixel (N,), or None where the whole image is looked at."""
    import pandas as pd  # worker processes, which import this module, need none of it

    if not (math.isfinite(field_of_view_um) and field_of_view_um >= 0):
        raise ValueError(f"field_of_view_um is {field_of_view_um}; expected micrometres above 0, or 0 for all of it")
    if field_of_view_um == 0:
        return None
    if "um_per_px" not in cells.columns:
        raise ValueError(
            f"cell table: column um_per_px is missing, and a field of view of {field_of_view_um} um needs each image's "
            "scale; pass field_of_view_um=0 for whole images"
        )
    scales = pd.to_numeric(cells["um_per_px"], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    bad = ~(np.isfinite(scales) & (scales > 0))
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(
            f"cell table: um_per_px of {cells['path'].iloc[row]} (row {row}) is {cells['um_per_px'].iloc[row]}, and so "
            f"of {int(bad.sum())} cells in all; expected micrometres a pixel above 0: fill it in, or pass "
            "field_of_view_um=0 for whole images"
        )
    return scales
