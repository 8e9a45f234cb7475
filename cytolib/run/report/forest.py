"""Key results as a forest plot: groups of one measure on one axis, as positions that the template draws."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH = 260.0  # of the plot in the SVG's own units
MARGIN = 14.0
# A part of the measure's name, where nothing would be the case (None: nowhere), and what a reader must know of it.
MEASURES: tuple[tuple[str, float | None, str], ...] = (
    ("minus that of", 0.0, "Differences on a scale from 0 to 1. Above 0 is better than real cells alone."),
    ("closest record ratio", 1.0, "No unit. Near 1: as far from the training cells as new real cells. Near 0: copies."),
    ("Fréchet distance", None, "No unit. Lower is nearer to real test cells; the floor is what real cells reach."),
    ("AUC", 0.5, "From 0 to 1. Higher: an attacker tells training cells from new ones; 0.5 is guessing."),
    ("balanced accuracy", None, "The mean of the classes' recalls, from 0 to 1. Higher is better."),
    ("macro F1", None, "The mean of the classes' F1 scores, from 0 to 1. Higher is better."),
    ("accuracy", None, "The fraction of cells called right, from 0 to 1. Higher is better."),
)


@dataclass(frozen=True)
class ForestRow:
    """One result: its texts, and the positions of its dot and interval (None where there is no number)."""

    what: str
    value: str
    low: str
    high: str
    n: str
    where: str
    dot: float | None
    left: float | None
    right: float | None
    verdict: str


@dataclass(frozen=True)
class ForestGroup:
    """Results of one measure on one axis.

    Attributes:
        measure: its name.
        note: unit and direction in words; empty for a measure that is not known here.
        reference: the text and position of the dashed line, or None.
        ticks: text and position of the axis' ticks.
        rows: the results.
    """

    measure: str
    note: str
    reference: tuple[str, float] | None
    ticks: list[tuple[str, float]]
    rows: list[ForestRow]


def forest_groups(results: Sequence[Mapping[str, str]]) -> list[ForestGroup]:
    """Key results, grouped by what stands behind the last colon of ``what``, in the order of their first rows."""
    parts: dict[str, list[tuple[str, Mapping[str, str]]]] = {}
    for row in results:
        subject, _, measure = row["what"].rpartition(": ")
        parts.setdefault(measure, []).append((subject or measure, row))
    return [_group(measure, rows) for measure, rows in parts.items()]


def _group(measure: str, rows: list[tuple[str, Mapping[str, str]]]) -> ForestGroup:
    reference, note = next(((at, words) for part, at, words in MEASURES if part in measure), (None, ""))
    numbers = [[_finite(row[c]) for c in ("value", "low", "high")] for _, row in rows]
    seen = [number for three in numbers for number in three if number is not None]
    ticks = _ticks([*seen, *([] if reference is None else [reference])])
    low, high = (ticks[0], ticks[-1]) if ticks else (0.0, 1.0)

    def place(number: float | None) -> float | None:
        if number is None:
            return None
        return round(MARGIN + (WIDTH - 2 * MARGIN) * (number - low) / (high - low), 1)

    made = [
        ForestRow(
            subject, row["value"], row["low"], row["high"], row["n"], row["where"],
            *(place(number) for number in three), _verdict(three[1], three[2], reference),
        )
        for (subject, row), three in zip(rows, numbers, strict=True)
    ]  # fmt: skip
    line = place(reference)
    digits = _digits(ticks)
    texts = [f"{tick:.{digits}f}" for tick in ticks]
    positions = [place(tick) or 0.0 for tick in ticks]
    return ForestGroup(
        measure,
        note,
        None if reference is None or line is None else (f"{reference:g}", line),
        list(zip(texts, positions, strict=True)),
        made,
    )


def _finite(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _verdict(low: float | None, high: float | None, reference: float | None) -> str:
    """What the interval says of the reference, in words."""
    if low is None or high is None or reference is None:
        return ""
    if low > reference:
        return f"above {reference:g}"
    return f"below {reference:g}" if high < reference else f"interval holds {reference:g}"


def _ticks(numbers: Sequence[float]) -> list[float]:
    """Three to six round numbers, a step of 1, 2 or 5 apart, the first below and the last above all ``numbers``."""
    if not numbers:
        return []
    low, high = min(numbers), max(numbers)
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= span / 4 * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    return [round(k * step, 12) for k in range(first, last + 1)]


def _digits(ticks: Sequence[float]) -> int:
    """Decimals that tell the ticks apart."""
    if len(ticks) < 2:
        return 0
    return max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
