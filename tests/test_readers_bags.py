"""Bags of released embeddings: HDF5 files a patient, and the ways in which one may be wrong or malicious."""

import hashlib
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest

from cytolib.data.bags import iter_bags, read_bags
from cytolib.embedding_table import read_embeddings, write_embeddings

DIM = 6


def vectors(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, DIM)).astype(np.float32)


def bag(path: Path, features: object, label: object = 0) -> Path:
    """A file as released: ``features`` (N, D) and the scalar ``labels``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["features"] = features
        if label is not None:
            file["labels"] = label
    return path


def one_sentence(error: pytest.ExceptionInfo[BaseException], *said: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    for words in said:
        assert words in text


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """Three patients of two cohorts in the released layout."""
    base = tmp_path / "patient_embeddings"
    bag(base / "aml_hehr" / "DHA.h5", vectors(4, 0), 3)
    bag(base / "aml_hehr" / "BOE.h5", vectors(2, 1), 0)
    bag(base / "apl_aml" / "Patient_1.h5", vectors(3, 2), 1)
    return tmp_path


def test_released_layout(released: Path, tmp_path: Path) -> None:
    table, cells = read_bags(released)
    assert table.X.dtype == np.float32
    assert np.array_equal(table.X, np.concatenate([vectors(2, 1), vectors(4, 0), vectors(3, 2)]))
    assert list(cells.columns) == ["cell_id", "group", "label", "dataset"]
    assert cells["group"].tolist() == ["BOE"] * 2 + ["DHA"] * 4 + ["Patient_1"] * 3
    assert cells["label"].drop_duplicates().tolist() == ["AML-CBFB-MYH11", "AML-RUNX1-RUNX1T1", "1"]
    assert cells["dataset"].value_counts().to_dict() == {"aml_hehr": 6, "apl_aml": 3}
    assert cells["cell_id"].tolist() == table.cell_ids.tolist()
    assert cells["cell_id"][2] == hashlib.sha256(b"aml_hehr/DHA/0").hexdigest()
    assert table.metadata["encoder"].startswith("dinobloom-b") and table.metadata["weights_sha256"] == "not known"
    write_embeddings(table, tmp_path / "e.parquet")
    assert np.array_equal(read_embeddings(tmp_path / "e.parquet").X, table.X)


@pytest.mark.parametrize("inner", ["patient_embeddings", "patient_embeddings/aml_hehr"])
def test_folder_may_be_given_at_any_level(released: Path, inner: str) -> None:
    whole = {b.patient: b for b in iter_bags(released)}
    for found in iter_bags(released / inner):
        assert (found.dataset, found.cell_ids()) == (whole[found.patient].dataset, whole[found.patient].cell_ids())


@pytest.mark.parametrize("block_rows", [1, 3, 1000])
def test_blocks_change_no_value(released: Path, block_rows: int) -> None:
    table, _ = read_bags(released, block_rows=block_rows)
    whole, _ = read_bags(released)
    assert np.array_equal(table.X, whole.X) and table.metadata == whole.metadata


def test_fingerprint_is_of_the_content(released: Path) -> None:
    before, _ = read_bags(released)
    bag(released / "patient_embeddings/aml_hehr/BOE.h5", vectors(2, 7), 0)
    assert read_bags(released)[0].metadata["fingerprint"] != before.metadata["fingerprint"]


def test_iteration_holds_one_bag_at_a_time(tmp_path: Path) -> None:
    for k in range(8):
        bag(tmp_path / "d" / f"{k}.h5", np.random.default_rng(k).normal(size=(20_000, DIM)).astype(np.float32))
    size = 20_000 * DIM * 4
    list(zip(iter_bags(tmp_path), range(1), strict=False))  # imports
    tracemalloc.start()
    assert sum(len(found.X) for found in iter_bags(tmp_path, block_rows=500)) == 160_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * size


@pytest.mark.parametrize(
    ("label", "said"), [(np.array([2]), "AML-PML-RARA"), (9, "9"), ("AML", "AML"), (2.0, "AML-PML-RARA"), (None, None)]
)
def test_labels_as_they_come(tmp_path: Path, label: object, said: str | None) -> None:
    bag(tmp_path / "aml_hehr" / "A.h5", vectors(1), label)
    assert next(iter_bags(tmp_path)).label == said
    assert read_bags(tmp_path)[1]["label"].tolist() == [said]


def test_double_and_half_precision(tmp_path: Path) -> None:
    bag(tmp_path / "d" / "A.h5", vectors(2).astype(np.float64))
    bag(tmp_path / "d" / "B.h5", vectors(2).astype(np.float16))
    table, _ = read_bags(tmp_path)
    assert np.allclose(table.X[:2], table.X[2:], atol=1e-2) and table.X.dtype == np.float32


@pytest.mark.parametrize(
    ("features", "said"),
    [
        (np.zeros((0, DIM), np.float32), "no rows"),
        (np.zeros((4, 0), np.float32), "expected floats (N, D)"),
        (np.zeros(DIM, np.float32), "expected floats (N, D)"),
        (np.zeros((2, 3, DIM), np.float32), "expected floats (N, D)"),
        (np.zeros((2, DIM), np.int64), "int64"),
        (np.float32(1.0), "expected floats (N, D)"),
        (np.array([[0.0] * DIM, [np.nan] * DIM]), "row 1 of features"),
        (np.array([[0.0] * DIM, [np.inf] * DIM]), "row 1 of features"),
        (np.array([[0.0] * DIM, [1e300] * DIM]), "row 1 of features"),
    ],
)
@pytest.mark.parametrize("block_rows", [1, 10])
def test_bad_features(tmp_path: Path, features: np.ndarray, said: str, block_rows: int) -> None:
    file = bag(tmp_path / "d" / "A.h5", features)
    with pytest.raises(ValueError) as error:
        list(iter_bags(tmp_path, block_rows=block_rows))
    one_sentence(error, str(file), said)


@pytest.mark.parametrize("label", [np.array([1, 2]), 1.5, np.array([], int)])
def test_bad_labels(tmp_path: Path, label: object) -> None:
    file = bag(tmp_path / "d" / "A.h5", vectors(2), label)
    with pytest.raises(ValueError, match="labels is") as error:
        read_bags(tmp_path)
    one_sentence(error, str(file))


def test_dimensions_must_agree(released: Path) -> None:
    file = bag(released / "patient_embeddings/aml_hehr/ZZZ.h5", np.ones((2, DIM + 1), np.float32))
    with pytest.raises(ValueError, match="7 dimensions, files before it 6") as error:
        read_bags(released)
    one_sentence(error, str(file))


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"\x89HDF\r\n\x1a\n" + b"\0" * 50])
def test_no_hdf5(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "A.h5").write_bytes(content)
    with pytest.raises(ValueError, match="not a readable HDF5 file") as error:
        read_bags(tmp_path)
    one_sentence(error, str(tmp_path / "d" / "A.h5"))


def test_truncated_hdf5(tmp_path: Path) -> None:
    file = bag(tmp_path / "d" / "A.h5", vectors(5000))
    file.write_bytes(file.read_bytes()[:60_000])
    with pytest.raises(ValueError, match="not a readable HDF5 file") as error:
        read_bags(tmp_path)
    one_sentence(error, str(file))


def test_no_features(tmp_path: Path) -> None:
    file = tmp_path / "d" / "A.h5"
    file.parent.mkdir()
    with h5py.File(file, "w") as content:
        content["embeddings"] = vectors(2)
    with pytest.raises(ValueError, match="no array features in it, only embeddings") as error:
        read_bags(tmp_path)
    one_sentence(error, str(file))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("external link", "features is a link"),
        ("soft link", "features is a link"),
        ("group", "features is a group"),
        ("external storage", "features has its numbers in another file"),
        ("virtual", "features has its numbers in another file"),
        ("label link", "labels is a link"),
    ],
)
def test_numbers_that_lie_elsewhere_are_refused(tmp_path: Path, kind: str, said: str) -> None:
    """A file from the net must not make us read another file of ours."""
    secret = bag(tmp_path / "secret" / "S.hdf", vectors(2))
    (tmp_path / "secret" / "raw.bin").write_bytes(vectors(2).tobytes())
    file = tmp_path / "bags" / "d" / "A.h5"
    file.parent.mkdir(parents=True)
    with h5py.File(file, "w") as content:
        if kind == "external link":
            content["features"] = h5py.ExternalLink(str(secret), "features")
        elif kind == "soft link":
            content["other"] = vectors(2)
            content["features"] = h5py.SoftLink("/other")
        elif kind == "group":
            content.create_group("features")
        elif kind == "external storage":
            where = [(str(tmp_path / "secret" / "raw.bin"), 0, 2 * DIM * 4)]
            content.create_dataset("features", (2, DIM), "f4", external=where)
        elif kind == "virtual":
            layout = h5py.VirtualLayout((2, DIM), "f4")
            layout[:] = h5py.VirtualSource(str(secret), "features", (2, DIM))
            content.create_virtual_dataset("features", layout)
        else:
            content["features"] = vectors(2)
            content["labels"] = h5py.ExternalLink(str(secret), "labels")
    with pytest.raises(ValueError) as error:
        read_bags(tmp_path / "bags")
    one_sentence(error, str(file), said)


def test_promise_of_far_more_than_is_stored(tmp_path: Path) -> None:
    file = tmp_path / "d" / "A.h5"
    file.parent.mkdir()
    with h5py.File(file, "w") as content:
        content.create_dataset("features", (10**12, DIM), "f4", chunks=(1000, DIM))[:1000] = vectors(1000)
    with pytest.raises(ValueError, match="but stores") as error:
        read_bags(tmp_path)
    one_sentence(error, str(file))


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        read_bags(tmp_path / "nowhere")
    one_sentence(error, str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="no .h5 file") as error:
        read_bags(tmp_path)
    one_sentence(error, str(tmp_path))


def test_two_files_of_one_patient(released: Path) -> None:
    file = bag(released / "patient_embeddings/aml_hehr/again/DHA.h5", vectors(2))
    with pytest.raises(ValueError, match="patient DHA") as error:
        read_bags(released)
    one_sentence(error, str(file))


def test_bad_block_rows(released: Path) -> None:
    with pytest.raises(ValueError, match="block_rows is 0") as error:
        list(iter_bags(released, block_rows=0))
    one_sentence(error)
