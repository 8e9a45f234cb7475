"""BloodMNIST: an archive of arrays becomes cells, PBC's lilac ones are found again, damaged archives are refused."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cytolib.data.readers import bloodmnist, pbc
from cytolib.data.registry import DATA_SETS


def one_sentence(error: pytest.ExceptionInfo[BaseException], *names: str) -> None:
    """The message is one line and names what it is about."""
    text = str(error.value)
    assert "\n" not in text
    for name in names:
        assert name in text


def test_bloodmnist_is_pbc_again() -> None:
    ig = sum(pbc.COUNTS[name] for name in ("PMY", "MY", "MMY", "IG"))
    assert bloodmnist.COUNTS["ig"] == ig
    assert bloodmnist.COUNTS["neutrophil"] == sum(pbc.COUNTS[name] for name in ("BNE", "SNE", "NEUTROPHIL"))
    for card in bloodmnist.CARDS:
        assert card.held_out_domains == ("pbc_lilac",)
        (download,) = card.downloads
        assert download.checksum.startswith("md5:") and len(download.checksum) == 36 and not download.unpack


def mnist_arrays(size: int = 28, n: int = 8) -> dict[str, np.ndarray]:
    """Arrays of BloodMNIST's names and types: one cell of each class a split, on the pale yellow slide of PBC."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split in bloodmnist.SPLITS:
        images = np.full((n, size, size, 3), (230, 210, 180), np.uint8)
        images[:, 8:20, 8:20] = rng.integers(0, 160, (n, 12, 12, 3))
        arrays |= {f"{split}_images": images, f"{split}_labels": (np.arange(n) % 8).astype(np.uint8)[:, None]}
    return arrays


def test_bloodmnist_writes_its_cells(tmp_path: Path) -> None:
    arrays = mnist_arrays()
    arrays["val_images"][3][arrays["val_images"][3] == 180] = 232  # a slide without the yellow
    np.savez_compressed(tmp_path / "bloodmnist.npz", **arrays)
    scratch = tmp_path / "stage"
    reading = DATA_SETS["bloodmnist"].read(tmp_path, scratch, progress=False)
    assert reading.image_root == "stage" and reading.refused.empty
    cells = reading.cells.set_index("path")
    assert len(cells) == 24
    row = cells.loc["bloodmnist/val/ig/00003.png"]
    assert (row["source_label"], row["cell_type"], row["domain"]) == ("ig", "immature_granulocyte", "pbc_lilac")
    assert cells.drop("bloodmnist/val/ig/00003.png")["domain"].eq("pbc_main").all()
    assert cells["group"].isna().all() and cells["um_per_px"].eq(20 / 28).all()
    for split in bloodmnist.SPLITS:
        for k, name in enumerate(bloodmnist.NAMES):
            with Image.open(scratch / f"bloodmnist/{split}/{name}/{k:05d}.png") as image:
                assert np.array_equal(np.asarray(image), arrays[f"{split}_images"][k])


def test_bloodmnist_sizes_have_their_own_file_and_scale(tmp_path: Path) -> None:
    np.savez(tmp_path / "bloodmnist_64.npz", **mnist_arrays(64))
    cells = DATA_SETS["bloodmnist_64"].read(tmp_path, tmp_path / "s", progress=False).cells
    assert cells["um_per_px"].eq(20 / 64).all()


def refused(tmp_path: Path, said: str) -> None:
    with pytest.raises(ValueError) as error:
        DATA_SETS["bloodmnist"].read(tmp_path, tmp_path / "stage", progress=False)
    one_sentence(error, str(tmp_path / "bloodmnist.npz"), said)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train_images": None}, "no array train_images"),
        ({"val_labels": None}, "no array val_labels"),
        ({"train_images": np.zeros((8, 64, 64, 3), np.uint8)}, "(8, 64, 64, 3)"),
        ({"train_images": np.zeros((7, 28, 28, 3), np.uint8)}, "one image a label"),
        ({"test_images": np.zeros((8, 28, 28, 3), np.float32)}, "float32"),
        ({"train_labels": np.array([0, 1, 2, 3, 4, 5, 6, 8])}, "train_labels[7] is 8"),
        ({"train_labels": np.linspace(0, 1, 8)}, "whole numbers"),
        ({"train_labels": np.array([{"a": 1}] * 8, dtype=object)}, "no plain array"),
        ({"train_images": np.array([{"a": 1}] * 8, dtype=object)}, "train_images is object"),
    ],
)
def test_bloodmnist_bad_arrays(tmp_path: Path, changes: dict[str, np.ndarray | None], said: str) -> None:
    arrays = {k: v for k, v in (mnist_arrays() | changes).items() if v is not None}
    np.savez(tmp_path / "bloodmnist.npz", **arrays)  # objects are pickled: they must not be read
    refused(tmp_path, said)


def test_bloodmnist_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        DATA_SETS["bloodmnist_224"].read(tmp_path, tmp_path / "stage", progress=False)
    one_sentence(error, "bloodmnist_224.npz", "cytolib data get bloodmnist_224")


@pytest.mark.parametrize("keep", [0, 1000, -400])
def test_bloodmnist_truncated_file(tmp_path: Path, keep: int) -> None:
    whole = io.BytesIO()
    np.savez_compressed(whole, **mnist_arrays())
    (tmp_path / "bloodmnist.npz").write_bytes(whole.getvalue()[:keep])
    refused(tmp_path, "not a readable NumPy archive")


def test_bloodmnist_damaged_bytes(tmp_path: Path) -> None:
    file = tmp_path / "bloodmnist.npz"
    np.savez(file, **mnist_arrays())
    with zipfile.ZipFile(file) as archive:
        where = archive.getinfo("train_images.npy").header_offset + 5000
    content = bytearray(file.read_bytes())
    content[where] ^= 255
    file.write_bytes(content)
    refused(tmp_path, "not a readable NumPy archive")


@pytest.mark.real_data
def test_bloodmnist_tells_the_lilac_images_of_pbc_apart(real_data: Path) -> None:
    """Their frame's size is lost: the colour of the slide says what the size says in PBC."""
    n_main, n_lilac = 0, 0
    for file in sorted((real_data / pbc.FOLDER / "eosinophil").glob("*.jpg")):
        with Image.open(file) as image:
            main = image.size in pbc.MAIN_SIZES
            if main and n_main == 300:
                continue
            left, top = (image.width - 100) // 2, (image.height - 100) // 2
            small = image.convert("RGB").crop((left, top, left + 100, top + 100)).resize((28, 28))
        n_main, n_lilac = n_main + main, n_lilac + (not main)
        assert (bloodmnist.slide_colour(np.asarray(small)) < bloodmnist.LILAC_BELOW) is not main, file.name
    assert n_lilac > 20
