"""Ambiguous cells with a known answer: pictures between two classes, and the probability of each class, exactly.

The model: class B comes with probability `prior`, class A otherwise; given the class, a position t on the way from A
(t = 0) to B (t = 1) comes from p(t | A) = (1 + c) (1 - t)^c or p(t | B) = (1 + c) t^c, the densities Beta(1, 1 + c)
and Beta(1 + c, 1). The two cells at the ends, the red cells around, stain and focus come from a seed that knows
neither class nor t. The picture depends on the class through t alone, so Bayes' rule on t is Bayes' rule on all that
made the picture:

    p(B | t) = 1 / (1 + (1 - prior) / prior * ((1 - t) / t)^c)

The overlap coefficient of the two densities, the integral of the smaller one, is 2^-c: hence c = -log2(overlap). At
even prior half of it is the error of the best possible decision, whether it sees t or only the picture.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from cytolib.data.phantoms.anatomy import Anatomy
from cytolib.data.phantoms.between import aligned, between
from cytolib.data.phantoms.cell import PhantomCell, Streams, photograph
from cytolib.data.phantoms.classes import random_anatomy
from cytolib.data.phantoms.draw import cell_reach
from cytolib.data.phantoms.optics import Conditions
from cytolib.data.phantoms.vocabulary import (
    CLASSES,
    DOMAIN_WEIGHTS,
    DOMAINS,
    HELD_OUT,
    check_count,
    check_domain,
    check_label,
    check_size,
)

#: Pairs that haematologists confuse: left shift, activated lymphocyte, the oldest blast and the youngest granulocyte.
AMBIGUOUS_PAIRS: tuple[tuple[str, str], ...] = (
    ("neutrophil", "immature_granulocyte"),
    ("lymphocyte", "monocyte"),
    ("immature_granulocyte", "blast"),
)
OVERLAP = 0.3
_MORPH = 1000  # keeps the streams of morphs apart from those of draw_cell
_LABEL, _POSITION, _DOMAIN, _SEED = range(4)  # independent streams of one seed


def morph(
    first: str,
    second: str,
    t: float,
    domain: str,
    seed: int,
    size: int = 96,
    conditions: Conditions | None = None,
) -> PhantomCell:
    """The cell a share t of the way from a cell of class `first` to one of class `second`, 0 <= t <= 1.

    One seed is one path: the same two end cells, surroundings, stain and focus at every t. The second end is turned so
    that the nuclei lie over each other. factors: label "first/second", first, second, t; the rest as in `draw_cell`.
    A path changes slowly everywhere: no part of the cell pops up. Raises ValueError or TypeError for bad arguments.
    """
    _check_pair(first, second)
    check_domain(domain)
    check_count("seed", seed)
    check_size(size)
    if not 0 <= t <= 1:
        raise ValueError(
            f"t is {t}, expected a share of the way from 0 ({first}) to 1 ({second}); pass for example 0.5"
        )
    start, end = _ends(first, second, seed)
    streams = Streams.of(seed, _MORPH, domain)
    names: dict[str, int | str] = {"label": f"{first}/{second}", "domain": domain, "cell_seed": int(seed)}
    keep_out_um = max(float(np.median(cell.outline)) for cell in (start, end))
    reach_um = max(cell_reach(start), cell_reach(end))
    cell = between(start, end, float(t))
    drawn = photograph(cell, names, size, streams, conditions or Conditions(), keep_out_um, reach_um)
    drawn.factors |= {"first": first, "second": second, "t": float(t)}
    return drawn


def morph_path(first: str, second: str, domain: str, seed: int, n: int = 9, size: int = 96) -> list[PhantomCell]:
    """n >= 2 cells at equal steps of one path, both ends included."""
    check_count("n", n)
    if n < 2:
        raise ValueError(f"n is {n}, expected 2 or more: a path has two ends; pass for example n=9")
    return [morph(first, second, float(t), domain, seed, size) for t in np.linspace(0, 1, n)]


def morph_posterior(t: np.ndarray | float, overlap: float = OVERLAP, prior: float = 0.5) -> np.ndarray:
    """p(second class | t), exactly, of the shape of t; the equation is in the head of the module.

    overlap: share that the two densities of t have in common, in (0, 1]; 1 says that t tells nothing.
    prior: probability of the second class, in (0, 1). Raises ValueError out of range.
    """
    position = np.asarray(t, float)
    if not ((position >= 0) & (position <= 1)).all():
        raise ValueError("t holds values outside 0..1, expected shares of the way; pass the column t of draw_ambiguous")
    c = _exponent(overlap, prior)
    if c == 0:
        return np.full(position.shape, float(prior))
    return expit(logit(prior) + c * logit(position))


def bayes_accuracy(overlap: float = OVERLAP, prior: float = 0.5) -> float:
    """Accuracy of the best possible decision, averaged over the model's cells; 1 - overlap / 2 at even prior."""
    c = _exponent(overlap, prior)
    if c == 0:
        return max(prior, 1 - prior)
    border = float(expit(-logit(prior) / c))  # where both classes are equally likely
    return (1 - prior) * (1 - (1 - border) ** (1 + c)) + prior * (1 - border ** (1 + c))


def draw_ambiguous(
    first: str,
    second: str,
    n: int,
    seed: int,
    overlap: float = OVERLAP,
    prior: float = 0.5,
    domain: str | None = None,
) -> pd.DataFrame:
    """n cells of the model: a DataFrame of first, second, label, t, posterior (of second), domain, cell_seed.

    Row k depends on (seed, k) and the parameters, not on n. domain None draws the site by DOMAIN_WEIGHTS, whatever the
    class. `morph(first, second, t, domain, cell_seed)` draws a row's picture. Raises ValueError or TypeError.
    """
    _check_pair(first, second)
    check_count("n", n)
    check_count("seed", seed)
    if domain is not None:
        check_domain(domain)
    c = _exponent(overlap, prior)

    def uniform(stream: int) -> np.ndarray:
        return np.random.default_rng([seed, _MORPH, stream]).random(n)

    is_second = uniform(_LABEL) < prior
    towards = 1 - uniform(_POSITION) ** (1 / (1 + c))  # Beta(1, 1 + c) by its inverse distribution function
    t = np.where(is_second, 1 - towards, towards)
    edges = np.cumsum([DOMAIN_WEIGHTS[name] for name in DOMAINS])[:-1]
    site = np.searchsorted(edges, uniform(_DOMAIN), side="right")
    return pd.DataFrame(
        {
            "first": first,
            "second": second,
            "label": np.where(is_second, second, first),
            "t": t,
            "posterior": morph_posterior(t, overlap, prior),
            "domain": domain if domain is not None else np.asarray(DOMAINS)[site],
            "cell_seed": np.random.default_rng([seed, _MORPH, _SEED]).integers(2**62, size=n, dtype=np.int64),
        }
    )


def _ends(first: str, second: str, seed: int) -> tuple[Anatomy, Anatomy]:
    """The two end cells, each from a stream of its own, and the second turned over the first."""
    names = (*CLASSES, HELD_OUT)
    start, end = (
        random_anatomy(label, np.random.default_rng([seed, _MORPH, place, names.index(label)]))
        for place, label in enumerate((first, second))
    )
    return start, aligned(start, end)


def _exponent(overlap: float, prior: float) -> float:
    """c of the densities (1 + c) t^c whose overlap coefficient is `overlap`."""
    if not 0 < overlap <= 1:
        raise ValueError(f"overlap is {overlap}, expected a share above 0 and up to 1; pass for example {OVERLAP}")
    if not 0 < prior < 1:
        raise ValueError(f"prior is {prior}, expected a probability between 0 and 1; pass for example 0.5")
    return -math.log2(overlap) + 0.0


def _check_pair(first: str, second: str) -> None:
    for label in (first, second):
        check_label(label)
        if label == "platelet":
            raise ValueError("no path leads to or from a platelet, which has no nucleus; name two nucleated classes")
    if first == second:
        raise ValueError(f"first and second are both {first!r}, expected two classes; name another second class")
