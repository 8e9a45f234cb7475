"""A data set's card: what it is, whose it is, how to get it and how it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cytolib.data.readers.common import Reading


@dataclass(frozen=True)
class Download:
    """A file that may be fetched without asking anybody.

    Attributes:
        url: where it lies.
        file: its name on disk.
        checksum: ``sha256:<hex>`` or ``md5:<hex>`` as the publisher gives it; empty where there is none: then the
            SHA-256 of the first download is recorded and holds from then on.
        unpack: an archive, which is unpacked into the card's folder.
        megabytes: size, to check the room on the disk; 0 where unknown.
    """

    url: str
    file: str
    checksum: str = ""
    unpack: bool = True
    megabytes: int = 0


@dataclass(frozen=True)
class DataSet:
    """A data set's card.

    Attributes:
        name: what notebook 00's parameter ``dataset`` calls it.
        title: one line: what, where, which scanner and stain.
        citation: the article to cite.
        source: DOI or address of the data.
        licence: its terms, or "not found" where none could be established.
        folder: the folder or file under the data root that says that it is there.
        aliases: other names that it may have there.
        beside: what else its reader opens, beside that folder.
        files: ``files(root)`` names all that ``read`` opens, for a set that is no folder of its own.
        layout: what a path in it looks like.
        n_cells: the published number of cells; 0 where none is.
        counts: published cells of each source label, where they are known.
        scale: where its micrometres a pixel come from: published, or how they were estimated.
        read: ``read(root, scratch)``; ``scratch`` is a folder for images that the set holds in another form.
        label_set: the label set that suits it.
        held_out_domains, held_out_classes: never trained on.
        cut_by_hand: frames were cut out of photographs by hand, so that two may share pixels of a slide; such frames
            are looked for pixel by pixel, which takes about a minute for 600 of them.
        downloads: what ``cytolib data get`` fetches; empty where the terms want a person's consent.
        steps: how to get it by hand.
        caveats: what a reader of results must know.
    """

    name: str
    title: str
    citation: str
    source: str
    licence: str
    folder: str
    layout: str
    n_cells: int
    read: Callable[[Path, Path], Reading] = field(repr=False)
    counts: Mapping[str, int] = field(default_factory=dict, repr=False)
    scale: str = "unknown"
    aliases: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    files: Callable[[Path], list[Path]] | None = field(default=None, repr=False)
    label_set: str = "eight"
    held_out_domains: tuple[str, ...] = ()
    held_out_classes: tuple[str, ...] = ()
    cut_by_hand: bool = False
    downloads: tuple[Download, ...] = ()
    steps: tuple[str, ...] = ()
    caveats: tuple[str, ...] = ()

    def places(self, root: Path) -> list[Path]:
        """Where the set lies under ``root``, whatever the case of its name; empty if it is not there."""
        here = root / self.folder  # a folder of your own may lie deeper
        return _children(root, (self.folder, *self.aliases)) or ([here] if here.exists() else [])

    def sources(self, root: Path) -> list[Path]:
        """The files and folders under ``root`` that ``read`` opens; its folder's place where nothing is there yet."""
        if self.files:
            return self.files(root)
        return [*(self.places(root) or [root / self.folder]), *_children(root, self.beside)]


def _children(root: Path, names: tuple[str, ...]) -> list[Path]:
    """The entries of ``root`` that have one of ``names``, in any case."""
    wanted = {name.lower() for name in names}
    return sorted(entry for entry in root.iterdir() if entry.name.lower() in wanted) if root.is_dir() else []
