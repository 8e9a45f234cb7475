"""How many micrometres a pixel has in sets that do not say so: red cells first, white cells as a check.

    python -m benchmarks.crop_scale [--data FOLDER] [--sheet FILE.png]

A red cell is 7.5 um across in a healthy adult, whatever the laboratory. Where red cells lie apart on even ground they
are segmented; where they are ghosts, haloed or crowded, diameters were measured by hand on enlarged frames and are
listed here. PBC, whose scale is published, goes through the same segmentation and shows the error of the method.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage
from skimage.filters import gaussian, threshold_multiotsu
from skimage.measure import label, regionprops
from skimage.morphology import disk, opening

from cytolib import morphometry, run
from cytolib.data.images import load_image, load_mask
from cytolib.data.registry import data_set

RED_CELL_UM = 7.5
FIELD_UM = 22.0
#: Every how many-th cell is looked at, so that all sets take seconds.
EVERY = {"pbc_main": 30}
#: Domains whose red cells the segmentation finds.
SEGMENTED = ("pbc_main", "pbc_lilac", "zheng2")
#: Domains whose chromatin is so pale that no nucleus can be measured.
PALE = ("chula",)
#: Diameters in pixels by hand: the mean of length and width of whole red cells, or of arcs of at least three quarters.
BY_HAND: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "chula, reduced": {
        "lymphocyte/L-9_0296_0": (61,),
        "lymphocyte/L-8_0166_0": (63, 62),
        "lymphocyte/L-10_0331_0": (56,),
        "monocyte/M-8_0478_0": (66, 59),
        "eosinophil/E-15_0508_0": (56, 58, 53, 59),
        "eosinophil/E-12_0561_0": (56,),
        "basophil/B-30_0058_0": (53, 63, 56),
        "monocyte/M-3B_0382_0": (50,),
        "neutrophil/N-1B_0229_0": (68,),
    },
    "chula, as it was": {
        "lymphocyte/L-10_0218_0": (79,),
        "lymphocyte/L-8_0719_0": (85,),
        "lymphocyte/L-8_0563_0": (65,),
        "lymphocyte/L-8_0162_0": (74,),
    },
    "zheng1": {"001": (39, 44, 44), "115": (44,), "172": (37,)},
    "choi_144": {"2/9": (53, 53), "7/9": (50,), "3/4": (53,), "4/112": (55,), "7/10": (51,)},
    "choi_96": {
        "9/37": (27.5, 32),
        "8/14": (30,),
        "9/31": (31,),
        "8/15": (35,),
        "8/10": (37,),
        "8/19": (26,),
        "9/4": (35, 39),
        "8/5": (33, 26),
        "9/6": (32,),
    },
}


def red_cells(pixels: NDArray[np.uint8]) -> Iterator[float]:
    """Diameters in pixels of red cells that lie apart and whole: round, solid, lighter than a nucleus.

    Three grey levels of the green channel (multi-Otsu), where haemoglobin absorbs: nuclei, red cells, slide.
    """
    green = gaussian(pixels[..., 1].astype(float) / 255, 1)
    dark, light = threshold_multiotsu(green, 3)
    stained = opening(ndimage.binary_fill_holes(green < light), disk(2))
    width = pixels.shape[1]
    for part in regionprops(label(stained), intensity_image=(green < dark).astype(float)):
        top, left, bottom, right = part.bbox
        if top == 0 or left == 0 or bottom == pixels.shape[0] or right == width:
            continue
        diameter = part.equivalent_diameter_area
        round_one = part.solidity >= 0.94 and part.axis_minor_length >= 0.85 * part.axis_major_length
        if round_one and 0.08 * width < diameter < 0.45 * width and part.intensity_mean < 0.1:
            yield diameter


def scale_rows(cells: pd.DataFrame, root: Path) -> Iterator[dict[str, object]]:
    """A row a domain: red cells in pixels, micrometres a pixel from them, and what the reader says."""
    for domain, group in cells.groupby("domain"):
        if domain in SEGMENTED:
            paths = group["path"].iloc[:: EVERY.get(str(domain), 1)]
            found = [d for path in paths for d in red_cells(np.asarray(load_image(root / path)))]
            yield _row(str(domain), "segmented", found, group["um_per_px"].median())
    reader = cells.groupby("domain")["um_per_px"].median().to_dict()
    reader |= {"chula, reduced": cells.loc[cells["domain"] == "chula", "um_per_px"].max()}
    reader |= {"chula, as it was": cells.loc[cells["domain"] == "chula", "um_per_px"].min()}
    for domain, frames in BY_HAND.items():
        yield _row(domain, "by hand", [d for values in frames.values() for d in values], reader[domain])


def _row(domain: str, how: str, diameters: list[float], reader: float) -> dict[str, object]:
    low, middle, high = np.percentile(diameters, [25, 50, 75])
    estimate = RED_CELL_UM / middle
    return {
        "domain": domain,
        "how": how,
        "red cells": len(diameters),
        "px": f"{middle:.1f} ({low:.1f}-{high:.1f})",
        "um/px estimated": round(estimate, 3),
        "um/px of reader": round(reader, 3),
        "reader / estimate": round(reader / estimate, 2),
    }


def white_cells(cells: pd.DataFrame, root: Path, most: int = 60) -> pd.DataFrame:
    """Median diameters in micrometres, by the readers' scales, of whole cells and nuclei: a domain's over PBC's.

    From the experts' masks where there are any, else from ``cytolib.morphometry``.
    """
    rows = []
    large = cells[cells[["width", "height"]].min(axis=1) >= 60]
    for (domain, cell_type), group in large.groupby(["domain", "cell_type"]):
        for cell in group.head(most).to_dict("records"):
            mask = root / cell["mask"] if isinstance(cell["mask"], str) else None
            nucleus, whole = _areas(root / cell["path"], mask)
            size = cell["um_per_px"] * np.sqrt(cell["width"] * cell["height"] * 4 / np.pi)
            rows.append((domain, cell_type, np.sqrt(nucleus) * size, np.sqrt(whole) * size))
    table = pd.DataFrame(rows, columns=["domain", "cell_type", "nucleus um", "cell um"])
    table.loc[table["domain"].isin(PALE), "nucleus um"] = np.nan
    kinds = table.groupby(["cell_type", "domain"])
    medians = kinds.median().assign(n=kinds.size())
    for name in ("nucleus um", "cell um"):
        pbc = medians[name].xs("pbc_main", level="domain")
        of_type = pbc.reindex(medians.index.get_level_values("cell_type")).to_numpy()
        medians[name.replace("um", "over PBC")] = medians[name] / of_type
    return medians.round(2)


def _areas(path: Path, mask: Path | None) -> tuple[float, float]:
    """Shares of the frame that nucleus and whole cell take."""
    if mask is not None:
        values = load_mask(mask)
        return float((values == 2).mean()), float((values > 0).mean())
    parts = morphometry.regions(morphometry.resize(load_image(path)))
    return float(parts.nucleus.mean()), float(parts.cell.mean())


def contact_sheet(cells: pd.DataFrame, root: Path, file: Path, side: int = 150, columns: int = 10) -> None:
    """Ten cells a domain, each the central ``FIELD_UM`` micrometres: one row a domain, all at one scale."""
    domains = list(cells.groupby("domain"))
    sheet = Image.new("RGB", (side * columns, side * len(domains)))
    for row, (domain, group) in enumerate(domains):
        for column, cell in enumerate(group.sample(columns, random_state=0).to_dict("records")):
            frame = load_image(root / cell["path"], FIELD_UM, cell["um_per_px"]).resize((side, side))
            sheet.paste(frame, (column * side, row * side))
        ImageDraw.Draw(sheet).text((3, row * side + 3), str(domain), fill="red")
    sheet.save(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=None, help="the data root; default: CYTOLIB_DATA")
    parser.add_argument("--sheet", type=Path, default=None, help="write cells at one scale, side by side, to this PNG")
    arguments = parser.parse_args()
    root = arguments.data or run.data_root()
    cells = pd.concat(
        [data_set(name).read(root, Path()).cells for name in ("pbc", "chula", "zheng1", "zheng2", "choi")],
        ignore_index=True,
    )
    print(f"Red cells taken as {RED_CELL_UM} um; pbc_* have a published scale\n")
    print(pd.DataFrame(scale_rows(cells, root)).to_string(index=False))
    print(f"\nWhite cells in um, by the readers' scales\n\n{white_cells(cells, root).to_string()}")
    if arguments.sheet:
        contact_sheet(cells, root, arguments.sheet)


if __name__ == "__main__":
    main()
