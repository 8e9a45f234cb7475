"""Attributes of PBC cells (WBCAtt) and factors of phantoms, joined to a cell table."""

import hashlib
from pathlib import Path

import pandas as pd
import pytest

from cytolib.data import phantoms
from cytolib.data.attributes import WBCATT, WBCATT_FILES, read_factors, read_wbcatt

FIRST = {name: values[0] for name, values in WBCATT.items()}


def rows(*names: str, **changes: str) -> pd.DataFrame:
    """Rows of WBCAtt in its published columns."""
    listed = [
        {"img_name": name, "label": "Basophil", **FIRST, **changes, "path": f"PBC_dataset_normal_DIB/basophil/{name}"}
        for name in names
    ]
    return pd.DataFrame(listed, columns=["img_name", "label", *FIRST, "path"])


def write(root: Path, train: pd.DataFrame, val: pd.DataFrame | None = None, test: pd.DataFrame | None = None) -> Path:
    """The three published files."""
    folder = root / "wbcatt"
    folder.mkdir(exist_ok=True)
    tables = (train, rows("BA_8.jpg") if val is None else val, rows("BA_9.jpg") if test is None else test)
    for name, table in zip(WBCATT_FILES, tables, strict=True):
        table.to_csv(folder / name, index=False)
    return folder


def cells(*names: str) -> pd.DataFrame:
    """A cell table's columns that matter here."""
    paths = [f"PBC_dataset_normal_DIB/basophil/{name}" for name in names]
    ids = [hashlib.sha256(path.encode()).hexdigest() for path in paths]
    split = ["test" if k % 2 else "train" for k in range(len(paths))]
    return pd.DataFrame({"cell_id": ids, "path": paths, "split": split})


def one_sentence(error: pytest.ExceptionInfo[BaseException], *said: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    for words in said:
        assert words in text


def test_wbcatt_follows_the_cell_table_and_its_split(tmp_path: Path) -> None:
    write(tmp_path, rows("BA_1.jpg", "BA_2.jpg"), rows("BA_3.jpg", granule_type="coarse", granule_colour="purple"))
    table = cells("BA_7.jpg", "BA_3.jpg", "BA_1.jpg")  # val of theirs is test of ours
    found = read_wbcatt(tmp_path, table)
    assert found.index.tolist() == table["cell_id"].tolist()[1:] and found.index.name == "cell_id"
    assert found["split"].tolist() == ["test", "train"]
    assert list(found.columns) == [*WBCATT, "split"]
    assert found["granule_type"].tolist() == ["coarse", "nil"]  # "nil" is a value, not a gap
    for name, values in WBCATT.items():
        assert found[name].cat.categories.tolist() == list(values)
    assert found.attrs == {"rows": 4, "repeated": 0, "conflicting": [], "not_in_table": 2}


def test_wbcatt_repeated_and_conflicting_rows(tmp_path: Path) -> None:
    conflicting = rows("BA_2.jpg", cell_size="big")
    write(tmp_path, rows("BA_1.jpg", "BA_1.jpg", "BA_2.jpg", "BA_3.jpg"), conflicting)
    found = read_wbcatt(tmp_path, cells("BA_1.jpg", "BA_2.jpg", "BA_3.jpg"))
    assert found.index.tolist() == cells("BA_1.jpg", "BA_2.jpg", "BA_3.jpg")["cell_id"].iloc[[0, 2]].tolist()
    assert found.attrs["repeated"] == 1
    assert found.attrs["conflicting"] == ["PBC_dataset_normal_DIB/basophil/BA_2.jpg"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cell_size": "huge"}, "line 3: cell_size is 'huge'; expected one of small, big"),
        ({"nucleus_shape": ""}, "line 3: nucleus_shape is ''"),
        ({"granule_type": "Nil"}, "granule_type is 'Nil'"),
    ],
)
def test_wbcatt_unknown_value(tmp_path: Path, change: dict[str, str], said: str) -> None:
    folder = write(tmp_path, pd.concat([rows("BA_1.jpg"), rows("BA_2.jpg", **change)]))
    with pytest.raises(ValueError) as error:
        read_wbcatt(tmp_path, cells("BA_1.jpg"))
    one_sentence(error, str(folder / WBCATT_FILES[0]), said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a readable CSV file"),
        (b"\xff\xfe\xff", "not a readable CSV file"),
        (b'path,cell_size\n"a,b\n', "not a readable CSV file"),
        (b"path,cell_size\na,small\n", "columns ['cell_shape'"),
        (",".join(["path", *WBCATT]).encode(), "no rows"),
    ],
)
def test_wbcatt_bad_file(tmp_path: Path, content: bytes, said: str) -> None:
    folder = write(tmp_path, rows("BA_1.jpg"))
    (folder / WBCATT_FILES[1]).write_bytes(content)
    with pytest.raises(ValueError) as error:
        read_wbcatt(tmp_path, cells("BA_1.jpg"))
    one_sentence(error, str(folder / WBCATT_FILES[1]), said)


def test_wbcatt_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        read_wbcatt(tmp_path, cells("BA_1.jpg"))
    one_sentence(error, str(tmp_path / "wbcatt"))
    folder = write(tmp_path, rows("BA_1.jpg"))
    (folder / WBCATT_FILES[2]).unlink()
    with pytest.raises(FileNotFoundError) as error:
        read_wbcatt(tmp_path, cells("BA_1.jpg"))
    one_sentence(error, WBCATT_FILES[2])


def test_wbcatt_of_another_data_set(tmp_path: Path) -> None:
    write(tmp_path, rows("BA_1.jpg"))
    with pytest.raises(ValueError, match="none of its 3 images") as error:
        read_wbcatt(tmp_path, cells("XX_1.jpg"))
    one_sentence(error, str(tmp_path / "wbcatt"))


def test_wbcatt_needs_a_split(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="split") as error:
        read_wbcatt(tmp_path, cells("BA_1.jpg").drop(columns="split"))
    one_sentence(error)


def test_wbcatt_of_one_image_under_two_names(tmp_path: Path) -> None:
    """The cell table keeps one path of two: the other's row is of the same cell, and may say something else."""
    folder = tmp_path / "PBC_dataset_normal_DIB" / "basophil"
    folder.mkdir(parents=True)
    for name, content in {"BA_1.jpg": b"one", "BA_2.jpg": b"one", "BA_3.jpg": b"two", "BA_4.jpg": b"two"}.items():
        (folder / name).write_bytes(content)
    table = cells("BA_1.jpg", "BA_3.jpg")
    table["cell_id"] = [hashlib.sha256(content).hexdigest() for content in (b"one", b"two")]
    write(tmp_path, rows("BA_1.jpg", "BA_2.jpg", "BA_3.jpg"), rows("BA_4.jpg", cell_size="big"))
    found = read_wbcatt(tmp_path, table)
    assert found.index.tolist() == table["cell_id"].tolist()[:1]
    stem = "PBC_dataset_normal_DIB/basophil"
    assert found.attrs == {
        "rows": 5,
        "repeated": 1,
        "conflicting": [f"{stem}/BA_3.jpg", f"{stem}/BA_4.jpg"],
        "not_in_table": 1,
    }


def test_a_cell_that_stands_twice_in_the_table(tmp_path: Path) -> None:
    write(tmp_path, rows("BA_1.jpg"))
    with pytest.raises(ValueError, match="stands twice") as error:
        read_wbcatt(tmp_path, cells("BA_1.jpg", "BA_1.jpg"))
    one_sentence(error)


@pytest.mark.real_data
def test_wbcatt_real_totals(real_data: Path) -> None:
    """8,770 of the published 10,298 rows; 13 cells are annotated twice, 4 of them with other values."""
    files = sorted((real_data / "PBC_dataset_normal_DIB").rglob("*.jpg"))
    ids = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    paths = [path.relative_to(real_data).as_posix() for path in files]
    table = pd.DataFrame({"cell_id": ids, "path": paths, "split": "train"}).drop_duplicates("cell_id")
    found = read_wbcatt(real_data, table)
    assert (found.attrs["rows"], found.attrs["repeated"], found.attrs["not_in_table"]) == (8770, 9, 0)
    assert len(found.attrs["conflicting"]) == 8
    assert len(found) == 8770 - 9 - 8 and found.index.is_unique and not found.isna().any().any()
    whole = pd.concat([pd.read_csv(real_data / "wbcatt" / name, dtype=str) for name in WBCATT_FILES])
    for name, values in WBCATT.items():
        assert set(values) == set(whole[name])  # the vocabulary has no word too many
    assert found["granule_type"].eq("nil").sum() == 2260 - 2  # a monocyte with two opinions on its chromatin
    # Every row is accounted for, also where the table is a part of PBC.
    half = read_wbcatt(real_data, table.iloc[::2])
    assert len(half) + half.attrs["repeated"] + len(half.attrs["conflicting"]) + half.attrs["not_in_table"] == 8770


def test_factors_of_phantoms(tmp_path: Path) -> None:
    table = phantoms.write_phantoms(tmp_path, 8, seed=0, size=64, n_held_out=1, progress=False)
    table["split"] = ["train"] * 8 + ["held_out"]
    some = table.iloc[[8, 2]]
    found = read_factors(tmp_path, some)
    assert found.index.tolist() == some["cell_id"].tolist() and found.index.name == "cell_id"
    assert found["split"].tolist() == ["held_out", "train"]
    assert found.attrs == {"not_in_table": 7}
    whole = pd.read_parquet(tmp_path / "factors.parquet").set_index("cell_id")
    numbers = whole.select_dtypes("number").columns
    assert len(numbers) > 5
    pd.testing.assert_frame_equal(found[numbers], whole.loc[found.index, numbers])


@pytest.mark.parametrize("fault", ["missing", "damaged", "no_ids", "twice", "lacking"])
def test_bad_factors(tmp_path: Path, fault: str) -> None:
    file = tmp_path / "factors.parquet"
    table = cells("a", "b")
    factors = pd.DataFrame({"cell_id": table["cell_id"], "radius": [1.0, 2.0]})
    if fault == "damaged":
        file.write_bytes(b"PAR1 not")
    elif fault != "missing":
        changed = {
            "no_ids": factors[["radius"]],
            "twice": pd.concat([factors, factors]),
            "lacking": factors.iloc[:1],
        }[fault]
        changed.to_parquet(file, index=False)
    with pytest.raises(FileNotFoundError if fault == "missing" else ValueError) as error:
        read_factors(tmp_path, table)
    one_sentence(error, str(file))
