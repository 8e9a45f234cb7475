"""Tables and arrays of other kinds: HDF5, NumPy archives, XML; and names of data sets."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from cytolib.data.bags import read_bags
from cytolib.data.readers.bccd import read_boxes
from cytolib.data.registry import data_set
from tests.hostile.case import Door, case, command
from tests.hostile.payloads import Payload, good_image


def bag_case(input: str, fill: Callable[[h5py.File, Path], None], *says: str) -> None:
    """A patient's HDF5 file."""

    @case(input, "read_bags", "P1.h5", *says)
    def _(folder: Path) -> Door:
        (folder / "set").mkdir()
        with h5py.File(folder / "set" / "P1.h5", "w") as file:
            fill(file, folder)
        return lambda: read_bags(folder / "set")


def _linked(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "secret.h5", "w") as other:
        other["features"] = np.ones((2, 3), dtype=np.float32)
    file["features"] = h5py.ExternalLink(str(folder / "secret.h5"), "features")


def _vast(file: h5py.File, _: Path) -> None:
    file.create_dataset("features", shape=(10**9, 1000), dtype="f4", chunks=(1, 1000))


bag_case("HDF5 whose numbers are a link to another file", _linked, "features is a link to another place")
bag_case("HDF5 of 1 kB that announces 4 TB", _vast, "features is (1000000000, 1000)")


@case("NumPy archive with pickled objects", "cytolib data check bloodmnist", "bloodmnist.npz", "no plain array")
def _(folder: Path) -> Door:
    objects = io.BytesIO()
    np.save(objects, np.array([Payload(folder)], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(folder / "bloodmnist.npz", "w") as archive:
        for split in ("train", "val", "test"):
            archive.writestr(f"{split}_labels.npy", objects.getvalue())
            archive.writestr(f"{split}_images.npy", objects.getvalue())
    return lambda: command("data", "check", "bloodmnist", "--root", str(folder))


@case("NumPy array that announces 8 TB", "cytolib data check bloodmnist", "bloodmnist.npz", "no plain array")
def _(folder: Path) -> Door:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<i8", "fortran_order": False, "shape": (10**12,)})
    with zipfile.ZipFile(folder / "bloodmnist.npz", "w") as archive:
        archive.writestr("train_labels.npy", header.getvalue())
    return lambda: command("data", "check", "bloodmnist", "--root", str(folder))


LAUGHS = "<!DOCTYPE l [<!ENTITY a 'ha'>" + "".join(
    f"<!ENTITY {b} '{f'&{a};' * 10}'>" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@case("XML of a billion laughs", "BCCD's reader", "a document type or entities", "x.xml")
def _(folder: Path) -> Door:
    (folder / "x.xml").write_text(f"{LAUGHS}]><annotation>&i;</annotation>", encoding="utf-8")
    return lambda: read_boxes(folder / "x.xml")


@case("label map with code for a class", "a reader", "'__import__'", "not in the label map")
def _(folder: Path) -> Door:
    good_image(folder / "set" / "__import__" / "a.png")
    return lambda: data_set("folder:set").read(folder, folder)


@case("data set whose name is code", "cytolib data get", "no data set is called", "__import__")
def _(folder: Path) -> Door:
    return lambda: command("data", "get", "__import__('os').system('touch evil')", "--root", str(folder))
