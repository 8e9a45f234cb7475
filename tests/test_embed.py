"""Embedding: the same whatever the workers, shards and interruptions; never twice; never of another image."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cytolib import embed as embed_module
from cytolib import embedding_cache, embedding_loader, run
from cytolib.data.images import cell_id
from cytolib.data.phantoms import draw_cell
from cytolib.embed import EmbeddingTable, embed, read_embeddings, write_embeddings
from cytolib.morphometry import FEATURE_NAMES, extract

CLASSES = ("neutrophil", "lymphocyte", "eosinophil", "platelet")
TINY = "timm:mobilenetv3_small_050?image_size=32&weights="


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for k in range(24):
        Image.fromarray(draw_cell(CLASSES[k % 4], "site_a", k, size=64).image).save(folder / f"cell{k:02d}.png")
    return folder


@pytest.fixture(scope="module")
def cells(root: Path) -> pd.DataFrame:
    files = sorted(root.glob("*.png"))
    ids, paths = [cell_id(file) for file in files], [file.name for file in files]
    return pd.DataFrame({"cell_id": ids, "path": paths, "um_per_px": 0.25})


@pytest.fixture
def run_embed(root: Path, tmp_path: Path) -> Callable[..., EmbeddingTable]:
    def call(cells: pd.DataFrame, encoder: str = "morphometry", **options: object) -> EmbeddingTable:
        arguments = {"cache": tmp_path / "cache", "progress": False, "workers": 0, "shard": 8} | options
        return embed(cells, root, encoder, **arguments)  # type: ignore[arg-type]

    return call


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many cells each chunk that was really computed had."""
    sizes: list[int] = []
    original = embedding_loader.Preparation.__call__

    def counted(self: embedding_loader.Preparation, work: embedding_loader.Work) -> dict[int, np.ndarray]:
        sizes.append(len(work.tasks))
        return original(self, work)

    monkeypatch.setattr(embedding_loader.Preparation, "__call__", counted)
    return sizes


def table(n: int = 5, d: int = 3, **changes: object) -> EmbeddingTable:
    keys = ("encoder", "weights_sha256", "transform", "image_size", "dtype", "fingerprint")
    fields = {
        "cell_ids": np.array([f"{k:064x}" for k in range(n)]),
        "X": np.random.default_rng(0).normal(size=(n, d)).astype(np.float32),
        "metadata": dict.fromkeys(keys, "x"),
    } | changes
    return EmbeddingTable(**fields)  # type: ignore[arg-type]


def test_rows_follow_the_cell_table(cells: pd.DataFrame, root: Path, run_embed: Callable[..., EmbeddingTable]) -> None:
    shuffled = cells.sample(frac=1, random_state=3)  # an index that is not 0..n-1, too
    result = run_embed(shuffled)
    assert result.cell_ids.tolist() == shuffled["cell_id"].tolist()
    assert result.X.shape == (24, len(FEATURE_NAMES)) and result.X.dtype == np.float32
    for row in (0, 11, 23):
        image = np.asarray(Image.open(root / shuffled["path"].iloc[row]))
        assert np.array_equal(result.X[row], extract(image))


def test_result_does_not_depend_on_order_shards_or_cache(
    cells: pd.DataFrame, run_embed: Callable[..., EmbeddingTable], tmp_path: Path
) -> None:
    first = run_embed(cells)
    other = run_embed(cells.iloc[::-1], shard=5, cache=tmp_path / "other")
    assert np.array_equal(first.X, other.X[::-1])
    assert first.metadata == other.metadata


def test_result_does_not_depend_on_workers(
    cells: pd.DataFrame, run_embed: Callable[..., EmbeddingTable], tmp_path: Path
) -> None:
    alone = run_embed(cells)
    together = run_embed(cells, workers=2, batch_size=3, cache=tmp_path / "other")
    assert alone.X.tobytes() == together.X.tobytes()


def test_second_time_nothing_is_computed(
    cells: pd.DataFrame, run_embed: Callable[..., EmbeddingTable], count: list[int]
) -> None:
    first = run_embed(cells)
    assert sum(count) == 24
    second = run_embed(cells.sample(frac=1, random_state=1))  # another order is the same work
    assert sum(count) == 24
    assert np.array_equal(first.X, second.aligned(first.cell_ids))
    run_embed(cells, field_of_view_um=8.0)
    assert sum(count) == 48
    run_embed(cells, "morphometry?image_size=64")
    assert sum(count) == 72
    run_embed(cells)  # the first files still stand beside the others
    assert sum(count) == 72


def test_field_of_view_is_used_and_recorded(cells: pd.DataFrame, run_embed: Callable[..., EmbeddingTable]) -> None:
    whole, centre = run_embed(cells), run_embed(cells, field_of_view_um=0.7 * 64 * 0.25)
    area = FEATURE_NAMES.index("nucleus_log_area")
    assert np.median(centre.X[:, area] - whole.X[:, area]) == pytest.approx(-2 * np.log(0.7), abs=0.15)
    assert (whole.metadata["field_of_view_um"], centre.metadata["field_of_view_um"]) == ("0.0", "11.2")


def test_scale_of_each_cell_is_part_of_the_key(
    cells: pd.DataFrame, run_embed: Callable[..., EmbeddingTable], count: list[int]
) -> None:
    first = run_embed(cells, field_of_view_um=8.0)
    last = cells["cell_id"].idxmax()  # in the last of three shards
    changed = cells.copy()
    changed.loc[last, "um_per_px"] = 0.2
    second = run_embed(changed, field_of_view_um=8.0)
    assert sum(count) == 24 + 8
    assert np.flatnonzero((first.X != second.X).any(axis=1)).tolist() == [cells.index.get_loc(last)]


def test_field_of_view_needs_every_scale(cells: pd.DataFrame, run_embed: Callable[..., EmbeddingTable]) -> None:
    partly = cells.copy()
    partly.loc[3, "um_per_px"] = np.nan
    with pytest.raises(
        ValueError, match=r"um_per_px of cell03\.png \(row 3\) is nan.*1 cells.*field_of_view_um=0"
    ) as one:
        run_embed(partly, field_of_view_um=8.0)
    with pytest.raises(ValueError, match="um_per_px is missing.*field_of_view_um=0") as two:
        run_embed(cells.drop(columns="um_per_px"), field_of_view_um=8.0)
    assert "\n" not in str(one.value) + str(two.value)
    run_embed(partly)  # whole images need none


@pytest.mark.parametrize("damage", ["truncated", "flipped", "emptied", "swapped"])
def test_damaged_cache_is_computed_again(
    damage: str, cells: pd.DataFrame, run_embed: Callable[..., EmbeddingTable], count: list[int], tmp_path: Path
) -> None:
    first = run_embed(cells)
    one, two, _ = sorted((tmp_path / "cache").glob("*.parquet"))
    content = bytearray(one.read_bytes())
    if damage == "truncated":
        one.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[len(content) // 2] ^= 0xFF
        one.write_bytes(content)
    elif damage == "emptied":
        one.write_bytes(b"")
    else:  # a whole and valid file, of other cells
        one.write_bytes(two.read_bytes())
    before = sum(count)
    if damage == "swapped":
        second = run_embed(cells)
    else:
        with pytest.warns(UserWarning, match="damaged") as warned:
            second = run_embed(cells)
        assert {warning.filename for warning in warned} == {__file__}  # whoever asked is told
    assert sum(count) == before + 8
    assert np.array_equal(first.X, second.X)
    assert run_embed(cells) is not None and sum(count) == before + 8  # and it is whole again


def test_interruption_loses_at_most_a_shard(
    cells: pd.DataFrame, run_embed: Callable[..., EmbeddingTable], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    original, calls = embedding_loader.Preparation.__call__, []

    def interrupted(self: embedding_loader.Preparation, work: embedding_loader.Work) -> dict[int, np.ndarray]:
        calls.append(len(work.tasks))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, work)

    monkeypatch.setattr(embedding_loader.Preparation, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_embed(cells)
    assert len(list((tmp_path / "cache").iterdir())) == 2  # whole shards only, nothing half-written
    run_embed(cells)
    assert sum(calls) == 24 + 8


@pytest.mark.parametrize(("code", "kept_on"), [(errno.EROFS, True), (errno.EACCES, True), (errno.ENOSPC, False)])
def test_a_cache_that_may_not_be_written_costs_time_only(
    cells: pd.DataFrame,
    run_embed: Callable[..., EmbeddingTable],
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    kept_on: bool,
) -> None:
    expected = run_embed(cells)

    def refused(table: EmbeddingTable, path: Path) -> None:
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(embedding_cache, "write_embeddings", refused)
    if kept_on:
        with pytest.warns(UserWarning, match="the cache may not be written to .*CYTOLIB_CACHE") as warned:
            assert np.array_equal(run_embed(cells, shard=6).X, expected.X)
        assert {warning.filename for warning in warned} == {__file__}
    else:
        with pytest.raises(OSError, match="No space left"):
            run_embed(cells, shard=6)


def test_torch_encoder_goes_the_same_way(
    cells: pd.DataFrame, run_embed: Callable[..., EmbeddingTable], tmp_path: Path
) -> None:
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    weights = tmp_path / "tiny.safetensors"
    save_file(timm.create_model("mobilenetv3_small_050", pretrained=False).state_dict(), weights)
    first = run_embed(cells, TINY + str(weights), shard=24)
    second = run_embed(cells.iloc[::-1], TINY + str(weights), shard=7, batch_size=5, cache=tmp_path / "other")
    assert first.X.shape == (24, first.dim) and np.ptp(first.X, axis=0).max() > 0
    assert np.allclose(first.X, second.X[::-1], atol=1e-6, rtol=1e-5)
    assert first.metadata["weights_sha256"] == embed_module.run.sha256(weights)


def test_changed_image_is_refused(cells: pd.DataFrame, root: Path, run_embed: Callable[..., EmbeddingTable]) -> None:
    wrong = cells.copy()
    wrong.loc[4, "cell_id"] = "0" * 64
    with pytest.raises(ValueError, match=r"cell04\.png: its bytes have sha256 .* the image was changed"):
        run_embed(wrong)


def test_missing_image_is_named(cells: pd.DataFrame, run_embed: Callable[..., EmbeddingTable]) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.png: the cell table names it"):
        run_embed(cells.assign(path=["gone.png", *cells["path"][1:]]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"workers": -1}, "workers is -1"),
        ({"shard": 0}, "shard is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"precision": "half"}, "precision is 'half'"),
        ({"precision": "bfloat16"}, "precision is 'bfloat16'.*morphometry"),
        ({"field_of_view_um": -1.0}, "field_of_view_um is -1.0"),
        ({"field_of_view_um": float("nan")}, "field_of_view_um is nan"),
    ],
)
def test_bad_arguments_are_refused(
    options: dict, words: str, cells: pd.DataFrame, run_embed: Callable[..., EmbeddingTable]
) -> None:
    with pytest.raises(ValueError, match=words):
        run_embed(cells, **options)


def test_bad_tables_are_refused(cells: pd.DataFrame, root: Path, run_embed: Callable[..., EmbeddingTable]) -> None:
    with pytest.raises(ValueError, match="columns .* missing"):
        run_embed(cells.drop(columns="path"))
    with pytest.raises(ValueError, match="no rows"):
        run_embed(cells.iloc[:0])
    with pytest.raises(ValueError, match="in row 24 stands twice"):
        run_embed(pd.concat([cells, cells.iloc[:1]]))
    with pytest.raises(FileNotFoundError, match="is no folder"):
        embed(cells, root / "nowhere", progress=False)


def test_round_trip_and_equal_bytes(tmp_path: Path) -> None:
    original = table()
    write_embeddings(original, tmp_path / "a.parquet")
    write_embeddings(table(metadata=dict(reversed(original.metadata.items()))), tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    found = read_embeddings(tmp_path / "a.parquet")
    assert found.X.tobytes() == original.X.tobytes() and found.X.dtype == np.float32 and found.X.flags.writeable
    assert found.cell_ids.tolist() == original.cell_ids.tolist() and found.metadata == original.metadata
    kind = pq.read_schema(tmp_path / "a.parquet").field("embedding").type
    assert kind == pa.list_(pa.float32(), 3)


def test_aligned_finds_rows_by_id() -> None:
    original = table()
    assert np.array_equal(original.aligned(original.cell_ids[[3, 0]]), original.X[[3, 0]])
    with pytest.raises(ValueError, match="1 cells have no row, first nowhere"):
        original.aligned([original.cell_ids[0], "nowhere"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"X": np.zeros((5, 3))}, "float64"),
        ({"X": np.zeros(5, np.float32)}, r"expected float32 \(N, D\)"),
        ({"X": np.zeros((4, 3), np.float32)}, "4 rows"),
        ({"X": np.full((5, 3), np.nan, np.float32)}, "5 rows have values that are not finite, the first is row 0"),
        ({"cell_ids": np.array(["a", "b", "a", "c", "d"])}, "cell_id a in row 2 stands twice"),
        ({"metadata": {"encoder": "x"}}, "weights_sha256"),
    ],
)
def test_invalid_tables_cannot_be_made(changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        table(**changes)


def test_invalid_files_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="01_embed"):
        read_embeddings(tmp_path / "none.parquet")
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 no")
    with pytest.raises(ValueError, match="broken.parquet: not a readable parquet"):
        read_embeddings(broken)
    write_embeddings(table(), tmp_path / "good.parquet")
    good = pq.read_table(tmp_path / "good.parquet")
    twice = tmp_path / "twice.parquet"
    pq.write_table(pa.concat_tables([good, good.slice(0, 1)]), twice)
    with pytest.raises(ValueError, match=r"twice\.parquet: .*row 5 stands twice"):
        read_embeddings(twice)
    ragged = tmp_path / "ragged.parquet"
    lists = pa.array([[1.0], [1.0, 2.0]], type=pa.list_(pa.float32()))
    pq.write_table(pa.table({"cell_id": ["a", "b"], "embedding": lists}), ragged)
    with pytest.raises(ValueError, match="fixed-size list"):
        read_embeddings(ragged)
    nulls = tmp_path / "nulls.parquet"
    ids = [None, *good["cell_id"].to_pylist()[1:]]
    pq.write_table(pa.table({"cell_id": ids, "embedding": good["embedding"]}), nulls)
    with pytest.raises(ValueError, match=r"nulls\.parquet"):
        read_embeddings(nulls)
    bare = tmp_path / "bare.parquet"
    pq.write_table(good.replace_schema_metadata(None), bare)
    with pytest.raises(ValueError, match=r"bare\.parquet: .*metadata"):
        read_embeddings(bare)


@pytest.mark.real_data
def test_morphometry_of_real_cells_carries_the_class(real_data: Path, tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    folder = real_data / "PBC_dataset_normal_DIB"
    files = [file for group in sorted(folder.iterdir()) for file in sorted(group.glob("*.jpg"))[::40][:20]]
    paths = [file.relative_to(real_data).as_posix() for file in files]
    rows = pd.DataFrame({"cell_id": [cell_id(file) for file in files], "path": paths})
    labels = np.array([file.parent.name for file in files])
    train = np.arange(len(files)) % 2 == 0
    X = embed(rows, real_data, cache=tmp_path, progress=False, workers=0).X
    assert len(files) == 160 and len(np.unique(labels)) == 8
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500)).fit(X[train], labels[train])
    assert balanced_accuracy_score(labels[~train], probe.predict(X[~train])) > 0.6


def test_a_change_of_our_own_code_is_another_cache_entry(
    cells: pd.DataFrame, run_embed: Callable[..., EmbeddingTable], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the cache holds was made by other code: it must not come back as if it were this code's."""
    files = set()
    for changed in ("", "images.py", "transforms.py", "inference.py", "timm_models.py"):
        monkeypatch.setattr(run, "sha256", lambda path, name=changed: f"{path}{Path(path).name == name}")
        embedding_cache._code.cache_clear()
        files.add(tuple(embedding_cache._code("timm:x")))
    monkeypatch.undo()
    embedding_cache._code.cache_clear()
    assert len(files) == 5
    monkeypatch.setattr(embedding_cache, "_code", lambda encoder: ["other"])
    run_embed(cells)
    monkeypatch.setattr(embedding_cache, "_code", lambda encoder: ["another"])
    run_embed(cells)
    assert len(list((tmp_path / "cache").glob("*.parquet"))) == 6  # three shards of each


def test_an_image_is_opened_once(root: Path, cells: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bytes are proved and decoded through one handle, so that nothing can be put in between."""
    opened: list[str] = []
    real = open
    monkeypatch.setattr("builtins.open", lambda file, *mode: (opened.append(str(file)), real(file, *mode))[1])
    task = embedding_loader.Task(str(root / cells["path"][0]), cells["cell_id"][0], None)
    embedding_loader.load_checked(task, 0.0)
    assert [Path(name).name for name in opened].count(cells["path"][0]) == 1
