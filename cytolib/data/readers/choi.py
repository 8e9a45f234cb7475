"""Choi bone marrow (Choi et al. 2017): ten stages of the myeloid and erythroid lines in folders 0 to 9."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cytolib.data.cards import DataSet
from cytolib.data.images import ImageFacts
from cytolib.data.readers.common import Entry, Reading, entries_by_folder, find_folder, read_entries, square_frame

FOLDER = "choi_bone_marrow"

LABELS: Mapping[str, str] = {
    "0": "proerythroblast",
    "1": "basophilic_erythroblast",
    "2": "polychromatic_erythroblast",
    "3": "orthochromatic_erythroblast",
    "4": "myeloblast",
    "5": "promyelocyte",
    "6": "myelocyte",
    "7": "metamyelocyte",
    "8": "neutrophil_band",
    "9": "neutrophil_segmented",
}
COUNTS: Mapping[str, int] = {
    "0": 17,
    "1": 50,
    "2": 50,
    "3": 50,
    "4": 210,
    "5": 50,
    "6": 50,
    "7": 50,
    "8": 50,
    "9": 50,
}
#: Both kinds of frame show about this much: 144 px at 0.15 um, 96 px at 0.225 um.
FRAME_UM = 21.6


def _domain(_: Entry, facts: ImageFacts) -> str:
    """Two magnifications: frames of 144 and of 96 pixels, which nothing else in the set tells apart exactly."""
    return "choi_144" if facts.width > 120 else "choi_96"


def read(root: Path, scratch: Path | None = None, *, progress: bool = True) -> Reading:
    """Read ``root/choi_bone_marrow/<0..9>/<number>.jpg``; no patient is named, so ``group`` is null."""
    entries, others = entries_by_folder(find_folder(root, (FOLDER,)), LABELS)
    return read_entries(
        root,
        entries,
        dataset="choi",
        label_map=LABELS,
        domain=_domain,
        um_per_px=square_frame(FRAME_UM),
        not_images=others,
        progress=progress,
    )


CARDS = (
    DataSet(
        name="choi",
        title="Bone marrow, Seoul National University: ten stages of maturation",
        citation="Choi et al., PLOS ONE 12:e0189259 (2017), doi 10.1371/journal.pone.0189259",
        source="doi 10.1371/journal.pone.0189259",
        licence="not found for the images (the article is CC BY): do not redistribute",
        folder=FOLDER,
        layout=f"{FOLDER}/<0..9>/<number>.jpg",
        n_cells=627,
        counts=COUNTS,
        scale=(
            "estimated from red cells: 53 px in frames of 144, 32 px in those of 96: 0.14 and 0.23 um a pixel, taken "
            "as 0.15 and 0.225, since nuclei differ by 1.3 to 1.6 and both frames then show the same 21.6 um"
        ),
        read=read,
        label_set="fine",
        cut_by_hand=True,
        steps=(
            "Follow the article's data availability statement to the images.",
            f"Put their ten folders 0 to 9 into {FOLDER} in the data root.",
        ),
        caveats=(
            "what the folders 0 to 9 mean is a reading of the article's order of classes, documented nowhere",
            "frames of 96 and 144 pixels differ in magnification and colour and go with the class (38 of 50 segmented "
            "neutrophils are 96 px, 205 of 210 myeloblasts 144 px): two domains",
            "within each kind of frame the ground is beige in some smears and lilac in others",
            "half of the frames share pixels of a slide with another one, five cells even under two labels, which a "
            "perceptual hash does not see: such frames are kept on one side of a split",
            "the article counts 2,174 images; 627 are in the folders",
            "no patient ids: cells of one donor may stand in training and test",
        ),
    ),
)
