"""Random anatomies of each class.

Ranges overlap on purpose where haematologists disagree: band and metamyelocyte, large lymphocyte and monocyte,
promyelocyte and blast.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cytolib.data.phantoms.anatomy import (
    Anatomy,
    Granules,
    around,
    bent,
    lobed,
    round_nucleus,
    scattered,
)
from cytolib.data.phantoms.shapes import add_bumps, outline


def neutrophil(rng: np.random.Generator) -> Anatomy:
    """12 to 15 um, two to five lobes (one in eight a band), pale pink cytoplasm with fine faint granules."""
    radius = around(rng, 6.8, 0.45, 5.7, 7.9)
    if rng.random() < 0.15:
        subtype, lobes = "band", 1
        segments = bent(
            rng, rng.uniform(11.5, 14.5), rng.uniform(2.9, 3.8), rng.uniform(2.4, 4.2), rng.uniform(0, 0.35)
        )
    else:
        subtype, lobes = "segmented", int(rng.choice([2, 3, 4, 5], p=[0.22, 0.45, 0.26, 0.07]))
        width = {2: 4.8, 3: 4.1, 4: 3.6, 5: 3.1}[lobes] * rng.uniform(0.9, 1.12)
        segments = lobed(
            rng, lobes, width, width * rng.uniform(1.05, 1.5), rng.uniform(3.3, 4.1), rng.uniform(0.4, 1.1)
        )
    segments = segments * (radius / 6.8)
    tint = rng.uniform(0.6, 1.6)
    return Anatomy(
        outline=outline(rng, radius, rng.uniform(0, 0.12), 0.02),
        segments=segments,
        nuclear_stain=rng.uniform(1.4, 1.85),
        cytoplasm_stain=(0.06 * tint, 0.09 * rng.uniform(0.5, 1.6), 0.13 * tint, 0.0),
        chromatin_coarseness=rng.uniform(0.18, 0.34),
        chromatin_wavelength_um=rng.uniform(1.1, 1.8),
        lobes=lobes,
        blend_um=0.2,
        rim=rng.uniform(0.4, 0.75),
        granules=[Granules(rng.uniform(0.8, 1.0), rng.uniform(0.15, 0.4), (0.13, 0.06, 0.12, 0.0), 0.3)],
        vacuoles=scattered(rng, int(rng.random() < 0.06) * 3, 0.8 * radius, (0.3, 0.6)),
        subtype=subtype,
    )


def eosinophil(rng: np.random.Generator) -> Anatomy:
    """12 to 16 um, mostly two lobes, cytoplasm packed with coarse salmon granules."""
    radius = around(rng, 7.3, 0.5, 6.1, 8.4)
    lobes = int(rng.choice([1, 2, 3], p=[0.06, 0.74, 0.20]))
    width = {1: 5.6, 2: 5.1, 3: 4.3}[lobes] * rng.uniform(0.88, 1.12)
    segments = lobed(rng, lobes, width, width * rng.uniform(1.1, 1.5), rng.uniform(3.6, 4.5), rng.uniform(0.5, 1.8))
    pale = rng.uniform(0.35, 1.25)
    return Anatomy(
        outline=outline(rng, radius, rng.uniform(0, 0.14), 0.025),
        segments=segments * (radius / 7.1),
        nuclear_stain=rng.uniform(1.2, 1.65),
        cytoplasm_stain=(rng.uniform(0.06, 0.24), rng.uniform(0.03, 0.12), 0.27 * pale, 0.0),
        chromatin_coarseness=rng.uniform(0.18, 0.33),
        chromatin_wavelength_um=rng.uniform(1.1, 1.8),
        lobes=lobes,
        blend_um=0.2,
        rim=rng.uniform(0.45, 0.8),
        granules=[
            Granules(rng.uniform(0.8, 1.15), rng.uniform(0.4, 0.62), (0.08, 0.0, 0.32 * pale, 0.0), 0.1),
        ],
        vacuoles=scattered(rng, int(rng.random() < 0.25) * int(rng.integers(2, 9)), 0.85 * radius, (0.25, 0.5)),
        subtype="eosinophil",
    )


def basophil(rng: np.random.Generator) -> Anatomy:
    """10 to 14 um, nucleus half hidden under coarse dark violet granules."""
    radius = around(rng, 6.4, 0.5, 5.2, 7.4)
    lobes = int(rng.choice([1, 2, 3], p=[0.3, 0.45, 0.25]))
    width = {1: 6.6, 2: 4.8, 3: 4.0}[lobes] * rng.uniform(0.9, 1.12)
    segments = lobed(rng, lobes, width, width * rng.uniform(1.05, 1.35), rng.uniform(1.8, 2.5), rng.uniform(2.0, 3.2))
    load, strength = rng.beta(1.6, 1.4), rng.uniform(0.45, 1.1)
    return Anatomy(
        outline=outline(rng, radius, rng.uniform(0, 0.16), 0.035),
        segments=segments * (radius / 5.9),
        nuclear_stain=rng.uniform(1.25, 1.7),
        cytoplasm_stain=(rng.uniform(0.15, 0.55), rng.uniform(0.05, 0.2), 0.1, 0.0),
        chromatin_coarseness=rng.uniform(0.1, 0.25),
        chromatin_wavelength_um=rng.uniform(1.5, 2.2),
        lobes=lobes,
        nucleus_wobble_um=0.4,
        granules=[
            Granules(
                rng.uniform(1.0, 1.45),
                0.18 + 0.32 * load,
                (1.25 * strength, 0.22 * strength, 0.05, 0.0),
                rng.uniform(0.3, 0.6),
            ),
        ],
        vacuoles=scattered(rng, int(rng.random() < 0.3) * 4, 0.9 * radius, (0.25, 0.5)),
        subtype="basophil",
    )


def lymphocyte(rng: np.random.Generator) -> Anatomy:
    """7 to 12 um, round dense smudgy nucleus, thin blue rim; one in five large, with more cytoplasm."""
    large = rng.random() < 0.22
    radius = around(rng, 6.0 if large else 4.6, 0.65 if large else 0.45, 3.7, 7.6)
    share = rng.uniform(0.66, 0.84) if large else rng.uniform(0.80, 0.93)
    diameter = 2 * radius * share
    if rng.random() < 0.25:
        segments = bent(rng, 1.3 * diameter, 0.88 * diameter, rng.uniform(0.5, 1.6))
    else:
        segments = round_nucleus(rng, diameter, rng.uniform(0, 0.18), rng.uniform(0, 0.9) * radius * (1 - share))
    edges = outline(rng, radius, rng.beta(1, 3) * 0.4, 0.035)
    if rng.random() < 0.22:
        edges = add_bumps(rng, edges, int(rng.integers(1, 4)), (0.4, 1.6), (0.12, 0.4))
    blue = rng.uniform(0.25, 0.7)
    granular = large and rng.random() < 0.4
    return Anatomy(
        outline=edges,
        segments=segments,
        nuclear_stain=rng.uniform(1.4, 1.9) - 0.15 * large,
        cytoplasm_stain=(0.08 + 0.1 * blue, blue, 0.03, 0.0),
        chromatin_coarseness=rng.uniform(0.12, 0.26),
        chromatin_wavelength_um=rng.uniform(1.2, 2.2),
        rim=rng.uniform(0.15, 0.4),
        granules=[Granules(1.3, 0.07, (0.7, 0.0, 0.25, 0.0))] if granular else [],
        subtype="large_granular" if granular else ("large" if large else "small"),
    )


def monocyte(rng: np.random.Generator) -> Anatomy:
    """14 to 20 um, kidney, horseshoe or folded nucleus, lacy chromatin, dusty grey-blue cytoplasm, vacuoles."""
    radius = around(rng, 7.7, 0.8, 6.2, 10.0)
    form = rng.choice(["kidney", "horseshoe", "folded", "round"], p=[0.42, 0.18, 0.22, 0.18])
    scale = radius / 7.7
    if form == "kidney":
        segments = bent(rng, rng.uniform(11.5, 14), rng.uniform(6.2, 7.6), rng.uniform(1.4, 2.8)) * scale
    elif form == "horseshoe":
        segments = (
            bent(rng, rng.uniform(14, 17), rng.uniform(4.4, 5.6), rng.uniform(2.6, 3.9), rng.uniform(0, 0.3)) * scale
        )
    elif form == "folded":
        segments = lobed(rng, int(rng.integers(2, 4)), 6.0, 7.0, 2.4, rng.uniform(2.5, 4.5)) * scale
    else:
        segments = round_nucleus(rng, rng.uniform(9.5, 11.5) * scale, rng.uniform(0.05, 0.3), rng.uniform(0.2, 1.6))
    edges = outline(rng, radius, rng.beta(1, 2.5) * 0.5, 0.055)
    if rng.random() < 0.45:
        edges = add_bumps(rng, edges, int(rng.integers(1, 6)), (0.6, 3.0), (0.12, 0.4))
    grey = rng.uniform(0.7, 1.5)
    n = int(rng.integers(1, 10)) if rng.random() < 0.55 else 0
    return Anatomy(
        outline=edges,
        segments=segments,
        nuclear_stain=rng.uniform(1.2, 1.6),
        cytoplasm_stain=(0.16 * grey, 0.24 * grey, 0.04, 0.0),
        chromatin_coarseness=rng.uniform(0.18, 0.33),
        chromatin_wavelength_um=rng.uniform(0.9, 1.5),
        nucleus_wobble_um=0.22,
        blend_um=0.5,
        rim=rng.uniform(0.35, 0.7),
        cytoplasm_contrast=0.25,
        granules=[Granules(rng.uniform(0.75, 1.0), rng.uniform(0.08, 0.25), (0.2, 0.04, 0.06, 0.0), 0.2)],
        vacuoles=scattered(rng, n, 0.95 * radius, (0.3, 0.85)),
        subtype=str(form),
    )


def immature_granulocyte(rng: np.random.Generator) -> Anatomy:
    """14 to 20 um; promyelocyte (round nucleus, violet granules), myelocyte (oval), metamyelocyte (kidney)."""
    stage = rng.choice(["promyelocyte", "myelocyte", "metamyelocyte"], p=[0.25, 0.42, 0.33])
    maturity = {"promyelocyte": 0.0, "myelocyte": 0.5, "metamyelocyte": 1.0}[stage] + rng.normal(0, 0.12)
    radius = around(rng, 8.0 - 0.9 * maturity, 0.7, 6.0, 9.8)
    share = rng.uniform(0.64, 0.78) - 0.05 * maturity
    if stage == "metamyelocyte":
        segments = bent(rng, radius * rng.uniform(1.6, 2.0), radius * rng.uniform(0.75, 0.95), rng.uniform(1.2, 2.8))
    else:
        off = rng.uniform(0.5, 0.95) * radius * (1 - share)
        segments = round_nucleus(rng, 2 * radius * share, rng.uniform(0.05, 0.35), off)
    blue = 0.36 - 0.24 * maturity
    edges = outline(rng, radius, rng.beta(1, 3) * 0.45, 0.04)
    if rng.random() < 0.15:
        edges = add_bumps(rng, edges, 1, (0.5, 1.5), (0.2, 0.5))
    return Anatomy(
        outline=edges,
        segments=segments,
        nuclear_stain=rng.uniform(1.1, 1.55) + 0.12 * maturity,
        cytoplasm_stain=(0.12, max(blue, 0.05) * rng.uniform(0.7, 1.3), 0.04 + 0.08 * max(maturity, 0), 0.0),
        chromatin_coarseness=0.17 + 0.1 * maturity + rng.uniform(0, 0.12),
        chromatin_wavelength_um=rng.uniform(1.0, 1.5) + 0.4 * maturity,
        rim=rng.uniform(0.25, 0.6),
        perinuclear_halo=rng.uniform(0, 0.6),
        cytoplasm_contrast=0.2,
        granules=[
            Granules(rng.uniform(0.85, 1.15), rng.uniform(0.05, 0.5), (0.46 - 0.22 * maturity, 0.06, 0.1, 0.0), 0.5)
        ],
        nucleoli=scattered(rng, int(rng.integers(0, 3)) * (stage == "promyelocyte"), 0.35 * radius, (0.5, 0.9)),
        subtype=str(stage),
    )


def erythroblast(rng: np.random.Generator) -> Anatomy:
    """8 to 12 um, round very dark nucleus; cytoplasm from blue (basophilic) to red-cell grey (orthochromatic)."""
    maturity = rng.beta(1.6, 1.3)
    radius = around(rng, 5.6 - 0.9 * maturity, 0.4, 3.9, 6.6)
    share = 0.78 - 0.26 * maturity + rng.normal(0, 0.04)
    off = rng.uniform(0.1, 0.85) * radius * (1 - share)
    edges = outline(rng, radius, rng.uniform(0, 0.16), 0.035)
    if rng.random() < 0.15:
        edges = add_bumps(rng, edges, 1, (0.5, 1.5), (0.2, 0.4))
    blue = (0.55 - 0.33 * maturity) * rng.uniform(0.75, 1.25)
    return Anatomy(
        outline=edges,
        segments=round_nucleus(rng, 2 * radius * share, rng.uniform(0, 0.12), off),
        nuclear_stain=rng.uniform(1.35, 1.9) + 0.3 * maturity,
        cytoplasm_stain=(0.14 * (1 - maturity), blue, 0.0, 0.30 * maturity),
        chromatin_coarseness=0.30 - 0.18 * maturity + rng.uniform(0, 0.1),
        chromatin_wavelength_um=rng.uniform(1.5, 2.3),
        nucleus_wobble_um=0.12,
        rim=rng.uniform(0.1, 0.35),
        cytoplasm_contrast=0.1,
        subtype="basophilic" if maturity < 0.35 else ("polychromatic" if maturity < 0.7 else "orthochromatic"),
    )


def platelet(rng: np.random.Generator) -> Anatomy:
    """2 to 4 um (one in twelve a giant), no nucleus: violet granules in a pale blue, frayed body."""
    radius = around(rng, 2.8, 0.3, 2.2, 3.6) if rng.random() < 1 / 12 else around(rng, 2.05, 0.35, 1.2, 2.6)
    edges = outline(rng, radius, rng.uniform(0, 0.5), 0.10)
    if rng.random() < 0.5:
        edges = add_bumps(rng, edges, int(rng.integers(1, 6)), (0.3, 1.1), (0.12, 0.35))
    strength = rng.uniform(0.6, 1.4)
    return Anatomy(
        outline=np.maximum(edges, 0.6).astype(np.float32),
        segments=np.zeros((0, 6)),
        nuclear_stain=0.0,
        cytoplasm_stain=(0.5 * strength, 0.14 * strength, 0.05, 0.0),
        chromatin_coarseness=0.0,
        chromatin_wavelength_um=1.5,
        lobes=0,
        cytoplasm_contrast=0.3,
        granules=[Granules(rng.uniform(0.75, 1.1), rng.uniform(0.3, 0.6), (0.65 * strength, 0.05, 0.1, 0.0))],
        subtype="giant" if radius > 2.5 else "normal",
    )


def blast(rng: np.random.Generator) -> Anatomy:
    """14 to 20 um, nucleus fills most of the cell, fine chromatin, up to four nucleoli, plain blue cytoplasm."""
    radius = around(rng, 7.3, 0.9, 5.5, 9.6)
    share = rng.uniform(0.76, 0.91)
    diameter = 2 * radius * share
    if rng.random() < 0.3:
        segments = bent(rng, 1.25 * diameter, 0.88 * diameter, rng.uniform(0.5, 1.5))
    else:
        segments = round_nucleus(rng, diameter, rng.uniform(0, 0.25), rng.uniform(0.2, 0.9) * radius * (1 - share))
    blue = rng.uniform(0.3, 0.75)
    return Anatomy(
        outline=outline(rng, radius, rng.uniform(0, 0.18), 0.035),
        segments=segments,
        nuclear_stain=rng.uniform(1.05, 1.4),
        cytoplasm_stain=(0.08 + 0.1 * blue, blue, 0.02, 0.0),
        chromatin_coarseness=rng.uniform(0.10, 0.23),
        chromatin_wavelength_um=rng.uniform(0.9, 1.25),
        nucleus_wobble_um=0.2,
        rim=rng.uniform(0.15, 0.4),
        granules=[Granules(1.0, 0.06, (0.5, 0.0, 0.1, 0.0))] if rng.random() < 0.25 else [],
        nucleoli=scattered(rng, int(rng.integers(0, 5)), 0.55 * radius * share + 0.5, (0.6, 1.3)),
        subtype="blast",
    )


_DRAWN_BY: dict[str, Callable[[np.random.Generator], Anatomy]] = {
    f.__name__: f
    for f in (
        neutrophil,
        eosinophil,
        basophil,
        lymphocyte,
        monocyte,
        immature_granulocyte,
        erythroblast,
        platelet,
        blast,
    )
}


def random_anatomy(label: str, rng: np.random.Generator) -> Anatomy:
    """One cell of a class, a pure function of the generator's state."""
    return _DRAWN_BY[label](rng)
