"""``cytolib data list``: what there is, whose it is, and whether it lies here."""

from __future__ import annotations

import difflib
import textwrap
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from cytolib.data.cards import DataSet
from cytolib.data.registry import DATA_SETS, data_set

#: Sources that are no published set: name, licence, title, layout.
OWN: tuple[tuple[str, str, str, str], ...] = (
    ("phantoms", "ours", "drawn by the project: needs nothing (the default)", "made by notebook 00"),
    ("folder:NAME", "yours", "your class folders", "NAME/<class>/<image> in the data root"),
    ("csv:FILE", "yours", "your images, named with their labels in a CSV file", "FILE in the data root"),
)


def find_card(name: str) -> DataSet:
    """The card of ``name``; for ``folder:`` and ``csv:`` under that whole name, which the commands go by.

    Raises:
        ValueError: for a name that nobody knows, with the nearest one that is known.
    """
    if name not in DATA_SETS and ":" not in name:
        near = difflib.get_close_matches(name.lower(), [*DATA_SETS, "phantoms"], n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else "`cytolib data list` shows them all"
        known = ", ".join(["phantoms", *DATA_SETS, "folder:<name>", "csv:<file>"])
        raise ValueError(f"no data set is called {name!r}; {hint} (known: {known})")
    return replace(data_set(name), name=name)


def list_rows(root: Path) -> list[dict[str, Any]]:
    """One dictionary a data set, fit for JSON: the card's facts, ``present`` and ``downloadable``."""
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "n_cells": None,
            "licence": licence,
            "title": title,
            "layout": layout,
            "present": name == "phantoms",
        }
        for name, licence, title, layout in OWN
    ]
    for card in DATA_SETS.values():
        # asdict copies deeply, which the reader and read-only mappings do not take
        facts = {
            f.name: getattr(card, f.name)
            for f in fields(card)
            if f.name not in ("read", "files", "downloads", "counts")
        }
        rows.append(
            facts
            | {
                "counts": dict(card.counts),
                "downloads": [asdict(download) for download in card.downloads],
                "downloadable": bool(card.downloads),
                "present": bool(card.places(root)),
            }
        )
    return rows


def list_lines(root: Path) -> list[str]:
    """A table for people: name, cells, whether it is here, licence (long ones cut: the JSON has all), title."""
    rows = list_rows(root)
    cells = ["any" if row["n_cells"] is None else f"{row['n_cells']:,}" if row["n_cells"] else "?" for row in rows]
    here = [_where(row) for row in rows]
    columns = [
        ["name", *(row["name"] for row in rows)],
        ["cells", *cells],
        ["here", *here],
        ["licence", *(textwrap.shorten(row["licence"], 28, placeholder=" ...") for row in rows)],
        ["title", *(row["title"] for row in rows)],
    ]
    widths = [max(map(len, column)) for column in columns]
    lines = []
    for name, number, state, licence, title in zip(*columns, strict=True):
        fixed = f"{name:<{widths[0]}}  {number:>{widths[1]}}  {state:<{widths[2]}}  {licence:<{widths[3]}}  {title}"
        lines.append(fixed.rstrip())
    return [
        *lines,
        "",
        f"data root: {root}",
        "get: `cytolib data get NAME` fetches it; by hand: the same command says how, and all terms of the licence",
    ]


def _where(row: dict[str, Any]) -> str:
    if row["present"]:
        return "yes"
    if row["n_cells"] is None:
        return "-"
    return "get" if row["downloadable"] else "by hand"
