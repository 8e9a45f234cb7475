"""Key results as a forest plot: groups of one measure on one axis, as positions that the template draws."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH = 260.0  # of the plot in the SVG's own units
MARGIN = 22.0
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
        n: number of test cells behind each of them.
        note: unit and direction in words; empty for a measure that is not known here.
        reference: the text and position of the dashed line, or None.
        ticks: text and position of the axis' ticks.
        rows: the results.
    """

    measure: str
    n: str
    note: str
    reference: tuple[str, float] | None
    ticks: list[tuple[str, float]]
    rows: list[ForestRow]


def forest_groups(results: Sequence[Mapping[str, str]]) -> list[ForestGroup]:
    """Key results in the order of their first rows, grouped by measure and number of cells.

    The measure is what stands behind the last colon of ``what``. Another number of cells means other cells, a far
    domain for instance, whose wide intervals on the same axis would squeeze all others.
    """
    parts: dict[tuple[str, str], list[tuple[str, Mapping[str, str]]]] = {}
    for row in results:
        subject, _, measure = row["what"].rpartition(": ")
        parts.setdefault((measure, row["n"]), []).append((subject or measure, row))
    order = [measure for measure, _ in parts]
    names = sorted(parts, key=lambda name: order.index(name[0]))  # groups of one measure side by side
    return [_group(*name, parts[name]) for name in names]


def _group(measure: str, n: str, rows: list[tuple[str, Mapping[str, str]]]) -> ForestGroup:
    reference, note = next(((at, words) for part, at, words in MEASURES if part in measure), (None, ""))
    numbers = [[_finite(row[c]) for c in ("value", "low", "high")] for _, row in rows]
    seen = [number for three in numbers for number in three if number is not None]
    ticks = _ticks([*seen, *([] if reference is None else [reference])])
    low, high = (ticks[0], ticks[-1]) if ticks else (0.0, 1.0)

    def place(number: float | None) -> float | None:
        if number is None:
            return None
        return round(MARGIN + (WIDTH - 2 * MARGIN) * (number - low) / (high - low), 1)

    decimals = _decimals(seen)

    def text(found: str, number: float | None) -> str:
        return found if number is None else f"{number:z.{decimals}f}"

    made = []
    for (subject, row), (value, left, right) in zip(rows, numbers, strict=True):
        made.append(
            ForestRow(
                what=subject,
                value=text(row["value"], value),
                low=text(row["low"], left),
                high=text(row["high"], right),
                where=row["where"],
                dot=place(value),
                left=place(left),
                right=place(right),
                verdict=_verdict(left, right, reference),
            )
        )
    line = place(reference)
    texts = [f"{tick:z.{_digits(ticks)}f}" for tick in ticks]
    positions = [place(tick) or 0.0 for tick in ticks]
    return ForestGroup(
        measure,
        n,
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
    return number if abs(number) < 1e100 else None  # neither infinite nor NaN, and nothing overflows


def _verdict(low: float | None, high: float | None, reference: float | None) -> str:
    """What the interval says of the reference, in words."""
    if low is None or high is None or reference is None:
        return ""
    if low > reference:
        return f"above {reference:g}"
    return f"below {reference:g}" if high < reference else f"interval holds {reference:g}"


def _ticks(numbers: Sequence[float]) -> list[float]:
    """Two to seven round numbers, a step of 1, 2 or 5 apart, the first below and the last above all ``numbers``."""
    if not numbers:
        return []
    low, high = min(numbers), max(numbers)
    largest = max(abs(low), abs(high))
    span = high - low if high - low > max(1e-9 * largest, 1e-12) else max(largest, 1e-9)
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= span / 4 * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    return [float(f"{k * step:.12g}") for k in range(first, last + 1)]


def _decimals(numbers: Sequence[float]) -> int:
    """Decimals that give the largest number three digits, or the four that key results have where all lie close."""
    largest = max(map(abs, numbers), default=0.0)
    span = max(numbers, default=0.0) - min(numbers, default=0.0)
    three = 2 - math.floor(math.log10(largest)) if largest else 0
    close = 1 - math.floor(math.log10(span)) if span else three
    return min(max(0, three, min(close, three + 1)), 12)


def _digits(ticks: Sequence[float]) -> int:
    """Decimals that tell the ticks apart; there are at least two."""
    return max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
