"""Fuzzing what comes with images and tables: random bytes, and sound files with a few of their bytes changed."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cytolib.data import taxonomy
from cytolib.data.images import MIN_SIDE, inspect_image, load_image, load_mask
from cytolib.data.readers import folders
from cytolib.data.table import COLUMNS, read_cells, write_cells
from cytolib.data.unpack import unpack
from cytolib.embedding_table import read_embeddings
from cytolib.evaluate.results import read_results, result_rows, write_results
from cytolib.text import unfit
from tests.cell_tables import blobs, toy_cells
from tests.hostile.cases_parquet import FIELDS, embeddings
from tests.test_fuzz_run import FUZZ, refused

FLIPS = st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 255)), min_size=1, max_size=6)
CUT = st.none() | st.integers(0, 10**9)


def spoilt(content: bytes, flips: list[tuple[int, int]], cut: int | None) -> bytes:
    """``content`` with some bytes changed, and its end perhaps cut off."""
    changed = bytearray(content)
    for place, byte in flips:
        changed[place % len(changed)] = byte
    return bytes(changed if cut is None else changed[: cut % len(changed)])


def _encoded(format: str, **options: Any) -> bytes:
    out = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(out, format, **options)
    return out.getvalue()


PICTURES = {"PNG": _encoded("PNG"), "JPEG": _encoded("JPEG"), "TIFF": _encoded("TIFF", compression="tiff_lzw")}
PICTURES |= {"BMP": _encoded("BMP"), "progressive": _encoded("JPEG", progressive=True)}


@FUZZ
@given(kind=st.sampled_from(sorted(PICTURES)), flips=FLIPS, cut=CUT, noise=st.binary(max_size=60), whole=st.booleans())
def test_images(
    tmp_path: Path, kind: str, flips: list[tuple[int, int]], cut: int | None, noise: bytes, whole: bool
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(noise if not whole else spoilt(PICTURES[kind], flips, cut))
    facts = refused(lambda: inspect_image(path), "a.png")
    image = refused(lambda: load_image(path), "a.png")
    if facts is not None:
        assert image is not None and image.mode == "RGB" and image.size == (facts.width, facts.height)
        assert min(image.size) >= MIN_SIDE
    mask = refused(lambda: load_mask(path), "a.png")
    assert mask is None or set(np.unique(mask)) <= {0, 1, 2}


@FUZZ
@given(
    names=st.lists(st.text(alphabet="abc.\u202e\x1b\n$=<> é", min_size=1, max_size=6), max_size=3),
    contents=st.lists(st.binary(max_size=40), min_size=3, max_size=3),
)
def test_folders_go_on_without_the_bad_files(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], contents: list[bytes]
) -> None:
    root = tmp_path_factory.mktemp("folder")
    blobs(root / "mine" / "neutrophil" / "good.png", 1)
    for name, content in zip(names, contents, strict=False):
        (root / "mine" / "neutrophil" / f"x{name}.png").write_bytes(content)
    reading = folders.read_image_folder(root, "mine", dataset="mine", progress=False)
    assert "mine/neutrophil/good.png" in reading.cells["path"].tolist()
    assert len(reading.cells) + len(reading.refused) == 1 + len(set(names[:3]))
    for text in (*reading.refused["path"], *reading.refused["reason"]):
        assert text and text.isprintable()


ROWS = st.lists(
    st.lists(
        st.sampled_from(["a.png", "blast", "", "../a.png", "=1+1", '"', "p1", "0.1"]) | st.text(max_size=8), max_size=5
    ),
    max_size=4,
)


@FUZZ
@given(rows=ROWS, header=st.permutations(["path", "label", "group", "domain"]), noise=st.binary(max_size=60))
def test_csv_files(tmp_path: Path, rows: list[list[str]], header: list[str], noise: bytes) -> None:
    blobs(tmp_path / "a.png", 1)
    text = "\n".join([",".join(header), *(",".join(row) for row in rows)])
    for content in (text.encode("utf-8", "replace"), b"path,label\n" + noise, noise):
        (tmp_path / "cells.csv").write_bytes(content)
        reading = refused(
            lambda: folders.read_csv_file(tmp_path, "cells.csv", dataset="cells", progress=False), "cells"
        )
        if reading is not None:
            assert reading.cells["path"].tolist() == ["a.png"]
            assert not any(unfit(str(text)) for name in ("domain", "group") for text in reading.cells[name].dropna())


def _cells(path: Path) -> None:
    write_cells(toy_cells(12), path)


def _results(path: Path) -> None:
    write_results(result_rows({"macro_f1": 0.5, "recall[blast]": 1.0}, method="real", seed=3, **FIELDS), path)  # type: ignore[arg-type]


TABLES: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Any]]] = {
    "embeddings": (lambda path: embeddings(path, 12), read_embeddings),
    "cells": (_cells, read_cells),
    "results": (_results, read_results),
}


@pytest.mark.parametrize("kind", TABLES)
@FUZZ
@given(flips=FLIPS, cut=CUT, footer=st.booleans(), noise=st.binary(max_size=40))
def test_parquet(
    tmp_path: Path, kind: str, flips: list[tuple[int, int]], cut: int | None, footer: bool, noise: bytes
) -> None:
    """Changed bytes, also those of the footer alone: the table is valid, or refused in one sentence."""
    write, read = TABLES[kind]
    path = tmp_path / "t.parquet"
    write(path)
    whole = path.read_bytes()
    start = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little") if footer else 0
    for content in (
        whole[:start] + spoilt(whole[start:], flips, None if footer else cut),
        noise,
        b"PAR1" + noise + b"PAR1",
    ):
        path.write_bytes(content)
        found = refused(lambda: read(path), "t.parquet")
        if kind == "embeddings" and found is not None:
            assert np.isfinite(found.X).all() and len(set(found.cell_ids.tolist())) == len(found)
        elif kind == "cells" and found is not None:
            assert list(found.columns) == list(COLUMNS) and not found["path"].str.contains("..", regex=False).any()


MEMBERS = st.lists(
    st.lists(
        st.sampled_from(["a", "A", "..", ".", "", "b.png", "\\", "C:", "\0", "\n", "é", "e\u0301", "x" * 300]),
        max_size=4,
    )
    .map("/".join)
    .filter(bool),
    max_size=4,
)


@FUZZ
@given(
    names=MEMBERS,
    kind=st.sampled_from(["zip", "tar"]),
    types=st.lists(st.sampled_from(b"0125673"), min_size=4, max_size=4),
)
def test_archives_stay_in_their_folder(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], kind: str, types: list[int]
) -> None:
    root = tmp_path_factory.mktemp("archive")
    archive, out = root / "set", root / "out"
    with zipfile.ZipFile(archive, "w") if kind == "zip" else tarfile.open(archive, "w") as opened:
        for name, type_ in zip(names, types, strict=False):
            if isinstance(opened, zipfile.ZipFile):
                info = zipfile.ZipInfo("x")
                info.filename = name
                opened.writestr(info, b"content")
            else:
                member = tarfile.TarInfo(name)
                member.type, member.linkname, member.size = bytes([type_]), "/etc/passwd", 7 if type_ == 48 else 0
                opened.addfile(member, io.BytesIO(b"content"))
    refused(lambda: unpack(archive, out, max_bytes=10**6, max_files=10), str(archive))
    assert {path.name for path in root.iterdir()} <= {"set", "out"}, "written outside, or half of it left"
    for path in out.rglob("*"):
        assert not path.is_symlink() and (path.is_dir() or path.read_bytes() == b"content")


@FUZZ
@given(label=st.text(max_size=12) | st.sampled_from(["blast", "__class__", "Blast", "blast\0", "blast\u202e"]))
def test_labels(label: str) -> None:
    """A label is a known one, letter by letter, or refused with its name."""
    known = {"blast": "blast", "odd": "no such type"}
    found = refused(lambda: taxonomy.harmonise(label, known, "row 3"), "row 3", "label")
    assert (found == "blast") == (label == "blast")
    refused(lambda: taxonomy.label_set(label), "label_set")
