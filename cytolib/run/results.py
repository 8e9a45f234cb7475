"""The key results of a run: the rows that its last stage wrote, as a table for the terminal and for the report."""

from __future__ import annotations

import csv
from pathlib import Path

COLUMNS = ("what", "value", "low", "high", "n", "where")


def read_key_results(run_folder: Path) -> list[dict[str, str]]:
    """Rows of ``10_figures/key_results.csv``, numbers shortened to four digits; none where there is no such file."""
    path = run_folder / "10_figures" / "key_results.csv"
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [c for c in COLUMNS if c not in (reader.fieldnames or [])]
        if missing:
            raise ValueError(f"{path}: the column {missing[0]!r} is missing; expected {', '.join(COLUMNS)}")
        return [{c: _short(row[c] or "") for c in COLUMNS} for row in reader]


def _short(text: str) -> str:
    try:
        number = float(text)
    except ValueError:
        return text
    if number != number:
        return ""
    return f"{number:.0f}" if number == int(number) and abs(number) < 1e15 else f"{number:.4g}"


def key_results_text(run_folder: Path) -> str:
    """The key results as an aligned table; empty where there are none."""
    rows = read_key_results(run_folder)
    if not rows:
        return ""
    lines = [COLUMNS, *(tuple(row[c] for c in COLUMNS) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    numeric = (1, 2, 3, 4)
    return "\n".join(
        "  ".join(t.rjust(w) if i in numeric else t.ljust(w) for i, (t, w) in enumerate(zip(line, widths, strict=True)))
        .rstrip()
        for line in lines
    )  # fmt: skip
